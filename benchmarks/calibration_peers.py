"""Calibration beside its peers: python benchmarks/calibration_peers.py peers | ceres | scaling | clocks [NUMBER]

peers: the same simulated corners to aniposelib (`CameraGroup.calibrate_rows`) and to us, alternately, several rigs of
cameras on a ring, principal points centred and 12 to 20 px off. Camera centres after a rigid alignment, without scale.
ceres: the same start and the same residuals of rigid boards to Ceres (pyceres, OpenCV's projection and derivatives, so
nothing of it is ours) and to us: the costs at the two optima. Then, from the first rig of a cold start, the time of
our adjustment beside that of Ceres in pycolmap, which moves every corner freely (it has no rigid boards).
scaling: 10^4 to 10^6 observations, each in its own process: seconds and peak memory.
clocks: cameras out of step by up to 50 ms and 200 ppm; offsets and drifts against their Cramér–Rao bound.

pip install aniposelib pyceres pycolmap for the first two. Figures: benchmarks/README.md.
"""

import argparse
import contextlib
import io
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np

from calibration.board import Board, BoardDetections
from calibration.bundle import BundleOptions, adjust_boards, board_system
from calibration.calibrate import CalibrationOptions, calibrate_rig
from calibration.camera import Intrinsics
from calibration.extrinsics import initial_rig
from calibration.intrinsics import estimate_intrinsics
from calibration.rig import CameraRig
from calibration.solver import SolverOptions, schur_covariance
from calibration.synthetic import board_motion, board_visible, ring_rig, simulate_detections
from calibration.transforms import exp_so3, log_so3, similarity

BOARD = Board(7, 10, 25.0, 18.75)
NOISE_PX = 0.3
SEEN = np.array([1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0], dtype=bool)
"""fx fy cx cy k1 k2 p1 p2: what OpenCV's model and ours have in common and Ceres is given."""


def scene(n_cameras: int, n_frames: int, off_px: tuple[float, float], seed: int) -> tuple[CameraRig, BoardDetections]:
    """A rig on a ring of 1 m whose principal points are off by so much, and what it sees of the board."""
    rng = np.random.default_rng([seed, n_cameras])
    rig = ring_rig(n_cameras, rng, radius=1000, height=500, size=(1280, 1024), focal_px=1100, off_centre_px=0.0)
    cameras = []
    for camera in rig:
        angle, K = rng.uniform(0, 2 * np.pi), camera.intrinsics.K.copy()
        K[:2, 2] += rng.uniform(*off_px) * np.array([np.cos(angle), np.sin(angle)])
        cameras.append(replace(camera, intrinsics=Intrinsics(camera.intrinsics.size, K, camera.intrinsics.dist)))
    rig = CameraRig(tuple(cameras), "mm")
    R, t = board_motion(rig, BOARD, n_frames, rng, reach=250)
    return rig, simulate_detections(rig, BOARD, R, t, rng, noise_px=NOISE_PX)


def centre_error(rig: CameraRig, centers: np.ndarray) -> float:
    """mm rms of camera centres after a rigid alignment."""
    if np.isnan(centers).any():
        return np.nan
    truth = rig.centers
    _, R, _ = similarity(centers, truth)
    away = (centers - centers.mean(axis=0)) @ R.T - (truth - truth.mean(axis=0))
    return float(np.sqrt((away**2).sum(axis=1).mean()))


def by_aniposelib(detections: BoardDetections) -> tuple[float, np.ndarray]:
    """Seconds and camera centres (n, 3); NaN where it fails."""
    from aniposelib.boards import CharucoBoard
    from aniposelib.cameras import Camera, CameraGroup

    board = CharucoBoard(BOARD.columns, BOARD.rows, BOARD.square_length, BOARD.marker_length)
    cameras = [
        Camera(name=name, size=tuple(int(s) for s in size))
        for name, size in zip(detections.view_names, detections.sizes, strict=True)
    ]
    rows = []
    for corners in detections.corners:
        seen = np.isfinite(corners[..., 0])
        rows.append(
            [
                {"framenum": (0, f), "corners": corners[f, seen[f]][:, None], "ids": np.flatnonzero(seen[f])[:, None]}
                for f in np.flatnonzero(seen.any(axis=1))
            ]
        )
    start = time.perf_counter()
    group = CameraGroup(cameras)
    with contextlib.redirect_stdout(io.StringIO()):
        rows = [board.fill_points_rows(r) for r in rows]
        try:
            group.calibrate_rows(rows, board, verbose=False)
        except cv2.error:
            return np.nan, np.full((len(cameras), 3), np.nan)
    seconds = time.perf_counter() - start
    poses = [(exp_so3(np.asarray(c.get_rotation())), np.asarray(c.get_translation())) for c in cameras]
    return seconds, np.stack([-R.T @ t for R, t in poses])


def by_us(detections: BoardDetections, audit: bool) -> tuple[float, np.ndarray]:
    """Seconds and camera centres (n, 3)."""
    start = time.perf_counter()
    found = calibrate_rig(detections, CalibrationOptions(audit=audit))
    return time.perf_counter() - start, found.rig.centers


def peers(seeds: int, cameras: tuple[int, ...]) -> dict:
    told = {}
    by_us(scene(3, 30, (0, 0), 0)[1], True)  # compiled before anything is timed
    for n_cameras in cameras:
        for off_px in ((0.0, 0.0), (12.0, 20.0)):
            rows = []
            for seed in range(seeds):
                rig, detections = scene(n_cameras, 200, off_px, seed)
                theirs, without, audited = by_aniposelib(detections), by_us(detections, False), by_us(detections, True)
                rows.append((theirs[0], without[0], audited[0], *(centre_error(rig, c) for _, c in (theirs, audited))))
            s_theirs, s_rig, s_audited, mm_theirs, mm_ours = np.nanmedian(rows, axis=0)
            label = f"{n_cameras} cameras, centre {'off' if off_px[1] else 'right'}"
            worse = int((np.array(rows)[:, 4] > np.array(rows)[:, 3]).sum())
            told[label] = {
                "aniposelib, s": s_theirs, "rig, s": s_rig, "audited, s": s_audited, "aniposelib, mm": mm_theirs,
                "mm": mm_ours, "worse in": worse,
            }  # fmt: skip
            print(
                f"{label}: aniposelib {s_theirs:.1f} s, rig {s_rig:.2f} s ({s_theirs / s_rig:.1f} x), audited "
                f"{s_audited:.2f} s ({s_theirs / s_audited:.1f} x); centres {mm_theirs:.2f} mm, ours {mm_ours:.2f} mm "
                f"({mm_ours / mm_theirs:.2f} x, worse in {worse} of {seeds}; it fails in "
                f"{int(np.isnan(np.array(rows)).any(axis=1).sum())})",
                flush=True,
            )
    return told


def near(rig: CameraRig, R: np.ndarray, t: np.ndarray, seed: int) -> tuple[CameraRig, np.ndarray, np.ndarray]:
    """A start: cameras and boards a little off (the first camera only in its lens)."""
    rng = np.random.default_rng(seed)
    cameras = []
    for i, camera in enumerate(rig):
        K = camera.intrinsics.K.copy()
        K[[0, 1], [0, 1]] *= 1.02
        away = 0.0 if i == 0 else 1.0
        cameras.append(
            replace(
                camera, intrinsics=Intrinsics(camera.intrinsics.size, K, np.zeros(5)),
                R=exp_so3(away * 0.01 * rng.normal(size=3)) @ camera.R, t=camera.t + away * 10 * rng.normal(size=3),
            )
        )  # fmt: skip
    turn = exp_so3(0.02 * rng.normal(size=(len(R), 3)))
    return CameraRig(tuple(cameras), rig.unit), turn @ R, t + 5 * rng.normal(size=t.shape)


def by_ceres(rig: CameraRig, R: np.ndarray, t: np.ndarray, detections: BoardDetections) -> float:
    """The cost at the optimum: half of the squared residuals, px over NOISE_PX."""
    import cv2
    import pyceres

    class Seen(pyceres.CostFunction):
        """One board in one camera; parameters: board (rvec, t), camera (rvec, t), fx fy cx cy k1 k2 p1 p2."""

        def __init__(self, points, xy):
            super().__init__()
            self.points, self.xy = points, xy
            self.set_num_residuals(2 * len(xy))
            self.set_parameter_block_sizes([6, 6, 8])

        def Evaluate(self, parameters, residuals, jacobians):  # noqa: N802
            board, camera, lens = parameters
            whole = cv2.composeRT(board[:3], board[3:], camera[:3], camera[3:])
            K = np.array([[lens[0], 0, lens[2]], [0, lens[1], lens[3]], [0, 0, 1.0]])
            dist = np.append(lens[4:8], 0.0)
            xy, J = cv2.projectPoints(self.points, whole[0], whole[1], K, dist)
            residuals[:] = ((xy.reshape(-1, 2) - self.xy) / NOISE_PX).ravel()
            if jacobians is not None:
                by_pose = J[:, :6] / NOISE_PX
                for k, first in ((0, 0), (1, 2)):  # derivatives of rvec3 and tvec3: by rvec1 tvec1 rvec2 tvec2
                    if jacobians[k] is not None:
                        turn = np.hstack((whole[2 + first], whole[3 + first]))
                        shift = np.hstack((whole[6 + first], whole[7 + first]))
                        jacobians[k][:] = (by_pose[:, :3] @ turn + by_pose[:, 3:] @ shift).ravel()
                if jacobians[2] is not None:
                    jacobians[2][:] = (J[:, [6, 7, 8, 9, 10, 11, 12, 13]] / NOISE_PX).ravel()
            return True

    problem = pyceres.Problem()
    boards = [np.concatenate((log_so3(R[f]), t[f])) for f in range(len(R))]
    cameras = [np.concatenate((log_so3(c.R), c.t)) for c in rig]
    lenses = [c.intrinsics.parameters[:8].copy() for c in rig]
    for v in range(len(rig)):
        for f in range(len(R)):
            seen = np.isfinite(detections.corners[v, f, :, 0])
            if seen.any():
                cost = Seen(BOARD.object_points[seen], detections.corners[v, f, seen])
                problem.add_residual_block(cost, None, [boards[f], cameras[v], lenses[v]])
    problem.set_parameter_block_constant(cameras[0])
    options, summary = pyceres.SolverOptions(), pyceres.SolverSummary()
    options.max_num_iterations, options.function_tolerance = 200, 1e-14
    options.gradient_tolerance, options.parameter_tolerance = 1e-12, 1e-14
    options.linear_solver_type = pyceres.LinearSolverType.SPARSE_SCHUR
    options.num_threads = 1
    pyceres.solve(options, problem, summary)
    return float(summary.final_cost)


def ceres(seeds: int) -> dict:
    apart, seconds = [], []
    for seed in range(seeds):
        rig, detections = scene(6, 200, ((0.0, 0.0), (12.0, 20.0))[seed % 2], seed)
        first = calibrate_rig(detections, CalibrationOptions(audit=False))
        used = np.isfinite(first.board_t[:, 0, 0])
        detections = replace(
            detections, frame=detections.frame[used], time=detections.time[used],
            corners=detections.corners[:, used], sigma=detections.sigma[:, used],
        )  # fmt: skip
        start = near(first.rig, first.board_R[used, 0], first.board_t[used, 0], seed)
        options = BundleOptions(
            free=dict.fromkeys(rig.names, SEEN), solver=SolverOptions(cost_tolerance=1e-14, max_iterations=200)
        )
        ours = adjust_boards(start[0], start[1][:, None], start[2][:, None], detections, options).cost
        theirs = by_ceres(*start, detections)
        apart.append(ours / theirs - 1)
        known = {name: estimate_intrinsics(detections, name).intrinsics for name in rig.names}
        usual, begin = replace(options, solver=SolverOptions()), initial_rig(detections, known)
        began = time.perf_counter()
        adjust_boards(*begin, detections, usual)
        seconds.append((time.perf_counter() - began, by_pycolmap(begin[0], begin[1][:, 0], begin[2][:, 0], detections)))
        print(
            f"seed {seed}: cost {ours:.6f}, Ceres' {theirs:.6f} ({apart[-1]:+.1e}); ours {seconds[-1][0]:.3f} s, "
            f"pycolmap {seconds[-1][1]:.3f} s", flush=True,
        )  # fmt: skip
    ours_s, theirs_s = np.median(seconds, axis=0)
    return {"greatest relative difference of cost": float(np.abs(apart).max()), "s": ours_s, "pycolmap, s": theirs_s}


def by_pycolmap(rig: CameraRig, R: np.ndarray, t: np.ndarray, detections: BoardDetections) -> float:
    """Seconds of its bundle adjustment from the same cameras and corners."""
    import pycolmap

    model = pycolmap.Reconstruction()
    world = np.einsum("fij,cj->fci", R, BOARD.object_points) + t[:, None]
    seen = np.isfinite(detections.corners[..., 0])
    used = np.argwhere(seen.sum(axis=0) >= 2)
    tracks = [pycolmap.Track() for _ in used]
    for v, camera in enumerate(rig):
        fx, fy, cx, cy, k1, k2, p1, p2 = camera.intrinsics.parameters[:8]
        width, height = camera.intrinsics.size
        lens = pycolmap.Camera(
            camera_id=v + 1, model="OPENCV", width=width, height=height, params=[fx, fy, cx, cy, k1, k2, p1, p2]
        )
        model.add_camera_with_trivial_rig(lens)
        own = [i for i, (f, c) in enumerate(used) if seen[v, f, c]]
        points = [pycolmap.Point2D(detections.corners[v, used[i][0], used[i][1]]) for i in own]
        image = pycolmap.Image(name=camera.name, points2D=points, camera_id=v + 1, image_id=v + 1)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pycolmap.Rotation3d(camera.R), camera.t))
        for k, i in enumerate(own):
            tracks[i].add_element(v + 1, k)
    for (f, c), track in zip(used, tracks, strict=True):
        model.add_point3D(world[f, c], track)
    options = pycolmap.BundleAdjustmentOptions()
    options.refine_principal_point = True
    options.print_summary = False
    start = time.perf_counter()
    pycolmap.bundle_adjustment(model, options)
    return time.perf_counter() - start


def scaling() -> dict:
    """Each size in a process of its own."""
    told = {}
    for observations in (10_000, 100_000, 1_000_000):
        line = subprocess.run(
            [sys.executable, __file__, "one", str(observations)], check=True, capture_output=True, text=True
        ).stdout.splitlines()[-1]
        told[observations] = json.loads(line)
        print(observations, line, flush=True)
    return told


def one(observations: int) -> dict:
    by_us(scene(6, 30, (0.0, 0.0), 0)[1], True)
    per_frame = int(np.isfinite(scene(6, 50, (0.0, 0.0), 1)[1].sigma).sum()) / 50
    detections = scene(6, round(observations / per_frame), (0.0, 0.0), 1)[1]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = [by_us(detections, audit)[0] for audit in (False, True)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    counted = int(np.isfinite(detections.sigma).sum())
    return {
        "observations": counted, "frames": len(detections.frame), "rig, s": round(seconds[0], 2),
        "audited, s": round(seconds[1], 2), "peak, MB": round(peak), "detections and Python, MB": round(before),
    }  # fmt: skip


def walk(rng: np.random.Generator):
    """A board carried about: world_from_board of times in s; 0.2 to 0.5 m/s."""
    hz, phase = rng.uniform(0.15, 0.5, (6, 3)), rng.uniform(0, 2 * np.pi, (6, 3))
    size = rng.uniform(0.5, 1.0, (6, 3)) * np.repeat([[100.0], [0.2]], 3, axis=0)

    def at(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        w = (size[..., None] * np.sin(2 * np.pi * hz[..., None] * s + phase[..., None])).sum(axis=1)
        return exp_so3(w[3:].T) @ np.diag([1.0, -1.0, -1.0]), w[:3].T

    return at


def out_of_step(seed: int, seconds: float, late_s: float, drift: float):
    """What 4 cameras of 30 frames/s see: detections, rig, true clocks, board poses at the first camera's times."""
    rng = np.random.default_rng(seed)
    rig = ring_rig(4, rng, radius=900.0, height=900.0, off_centre_px=0.0)
    at, times = walk(rng), np.arange(int(30 * seconds)) / 30
    clock = np.stack([rng.uniform(-late_s, late_s, 4), rng.uniform(-drift, drift, 4)], axis=1)
    clock[0] = 0
    corners = np.full((4, len(times), BOARD.n_corners, 2), np.nan)
    for v, camera in enumerate(rig):
        R, t = at(times + clock[v, 0] + clock[v, 1] * (times - times.mean()))
        world = np.einsum("fij,cj->fci", R, BOARD.object_points) + t[:, None]
        seen = board_visible(camera, BOARD, R, t) & (rng.uniform(size=world.shape[:2]) > 0.05)
        xy = camera.project(world) + NOISE_PX * rng.normal(size=(*world.shape[:2], 2))
        corners[v] = np.where(seen[..., None], xy, np.nan)
    sigma = np.where(np.isfinite(corners[..., 0]), NOISE_PX, np.nan)
    sizes = np.array([camera.intrinsics.size for camera in rig])
    index = np.zeros(BOARD.n_corners, dtype=np.int64)
    seen_by = BoardDetections(rig.names, (BOARD,), sizes, np.arange(len(times)), times, corners, sigma, index)
    R, t = at(times)
    return seen_by, rig, clock, R, t


def clocks(seeds: int, seconds: float = 120.0) -> dict:
    ratios = []
    for seed in range(seeds):
        together, rig, _, R, t = out_of_step(seed, seconds, 0.0, 0.0)
        options = BundleOptions(
            clocks={name: [True, True] for name in rig.names[1:]},
            free=dict.fromkeys(rig.names, np.arange(12) < 9),
        )
        bound = schur_covariance(board_system(rig, R, t, together, options))
        bound = np.sqrt(np.diagonal(bound).reshape(4, -1)[1:, 18:])
        detections, _, clock, R, t = out_of_step(seed, seconds, 0.05, 2e-4)
        began = time.perf_counter()
        cameras = calibrate_rig(detections).report.cameras
        found = np.array([(c.offset, c.drift) for c in cameras])
        away = (found - found[0] - clock)[1:]
        speed = np.linalg.norm(np.diff(t, axis=0), axis=1).mean() * 30 / 1000
        ratios.append(away / bound)
        print(
            f"seed {seed}: {speed:.2f} m/s; offsets off by {np.round(1e6 * away[:, 0], 1)} us, bound "
            f"{np.round(1e6 * bound[:, 0], 1)}; drifts by {np.round(1e6 * away[:, 1], 2)} ppm, bound "
            f"{np.round(1e6 * bound[:, 1], 2)}; {time.perf_counter() - began:.0f} s", flush=True,
        )  # fmt: skip
    offset, drift = np.sqrt((np.array(ratios) ** 2).mean(axis=(0, 1)))
    return {"offset over bound, rms": float(offset), "drift over bound, rms": float(drift)}


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("what", choices=("peers", "ceres", "scaling", "clocks", "one"))
parser.add_argument("number", type=int, nargs="?", default=10, help="seeds (one: observations)")
parser.add_argument("--cameras", type=int, nargs="+", default=(3, 6, 10), help="of peers")
arguments = parser.parse_args()
if arguments.what == "scaling":
    print(json.dumps(scaling()))
elif arguments.what == "peers":
    print(json.dumps(peers(arguments.number, arguments.cameras)))
else:
    print(json.dumps({"ceres": ceres, "clocks": clocks, "one": one}[arguments.what](arguments.number)))
