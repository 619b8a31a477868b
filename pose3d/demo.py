"""Does it work, and how well? A made-up session is written as a user's would be, run, and compared with its truth."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import chi2

from calibration.board import Board
from calibration.files import load_rig, save_rig
from calibration.files.atomic import write_bytes
from calibration.rig import CameraRig
from calibration.synthetic import board_motion, render_board, ring_rig
from calibration.transforms import similarity
from pose3d.config import load_session
from pose3d.evaluation import evaluate_pose, evaluate_tracks
from pose3d.files import load_poses, read_groups, save_poses
from pose3d.pipeline import run_session
from pose3d.poses import Groups, Poses
from pose3d.records import Plan, Progress, StageReport, run_stage
from pose3d.synthetic import SimulatedViews, body_length, count_crossings, simulate_animals, simulate_views

__all__ = ["Simulation", "compare", "run_demo", "simulate", "write_session"]

VERSION = 1
CAMERAS, ANIMALS, FRAMES, BOARD_FRAMES = 4, 3, 200, 24
RADIUS, HEIGHT, REACH = 650.0, 450.0, 150.0  # mm: of the ring of cameras, and how far the board is carried about
BOARD = Board(8, 6, 36.0, 27.0)
RECORDING = "walk"
CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Simulation:
    """The truth: the rig, the animals (Poses 3D with ids), what a detector saw of them, and where the board was
    in each frame of its footage: world_from_board as R (3, 3) and t (3,)."""

    rig: CameraRig
    animals: Poses
    seen: SimulatedViews
    board_poses: tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...]


def run_demo(output: Path, seed: int, *, progress: Progress | None = None) -> Iterator[tuple[str, StageReport]]:
    """Write a synthetic session into a folder, run it like any session, and yield each stage's report with its error.

    The same seed gives the same session; stages that are finished are skipped, as in any run.
    """
    truth = simulate(seed)
    yield "", write_session(output, truth, seed, progress=progress)
    session = load_session(output)
    for recording, report in run_session(session, progress=progress):
        errors = compare(report.stage, truth, session.output, session.results(RECORDING))
        yield recording, replace(report, summary=dict(report.summary) | errors)


def simulate(seed: int) -> Simulation:
    """Cameras on a ring, a board carried about between them, animals that cross, and what a faulty detector saw."""
    rng = np.random.default_rng(seed)
    rig = ring_rig(CAMERAS, rng, radius=RADIUS, height=HEIGHT)
    animals = simulate_animals(rng, ANIMALS, FRAMES)
    seen = simulate_views(animals, rig, rng)
    R, t = board_motion(rig, BOARD, BOARD_FRAMES, rng, reach=REACH)
    return Simulation(rig, animals, seen, tuple(zip(R, t, strict=True)))


def write_session(folder: Path, truth: Simulation, seed: int, *, progress: Progress | None = None) -> StageReport:
    """A session folder as a user has it: board pictures, board.toml, 2D poses, pose3d.toml; truth/ beside them."""
    images = [f"calibration/{camera.name}/frame_{f:04d}.jpg" for f in range(BOARD_FRAMES) for camera in truth.rig]
    poses = {name: f"recordings/{RECORDING}/poses2d/{name}.nc" for name in truth.rig.names}
    names = (*images, *poses.values(), "board.toml", "pose3d.toml", "truth/calibration.toml", "truth/poses3d.nc")
    plan = Plan(folder, "simulate", VERSION, {}, {"seed": seed}, names)

    def work() -> dict[str, Any]:
        def rendered(number: int) -> bytes:
            camera, board = truth.rig.cameras[number % CAMERAS], truth.board_poses[number // CAMERAS]
            picture = render_board(camera, BOARD, *board, np.random.default_rng([seed, number]))
            return bytes(cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1])

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for done, data in enumerate(pool.map(rendered, range(len(images)))):
                write_bytes(folder / images[done], data)
                if progress:
                    progress("rendering the board", done + 1, len(images))
        for name, path in poses.items():
            save_poses(folder / path, truth.seen.views[name])
        write_bytes(folder / "board.toml", _board_toml(BOARD).encode())
        write_bytes(folder / "pose3d.toml", _SESSION.encode())
        save_rig(folder / "truth/calibration.toml", truth.rig)
        save_poses(folder / "truth/poses3d.nc", truth.animals)
        return {
            "cameras": CAMERAS,
            "pictures of the board": len(images),
            "animals": ANIMALS,
            "frames": FRAMES,
            "crossings": count_crossings(truth.animals),
            "keypoints seen by two cameras": float((truth.seen.found.sum(axis=0) > 1).mean()),
        }

    return run_stage(plan, work)


def compare(stage: str, truth: Simulation, results: Path, recording: Path) -> dict[str, Any]:
    """What a stage adds to its summary: its error against the truth; {} for stages that have none of their own."""
    if stage.startswith("calibrate"):
        return {"error": _rig_error(truth, load_rig(results / "calibration.toml"))}
    if stage == "identify":
        return {"error": _grouping_error(truth, read_groups(recording / "groups.nc"))}
    if stage in ("triangulate", "refine"):
        name = {"triangulate": "triangulated.nc", "refine": "poses3d.nc"}[stage]
        return _pose_errors(truth, load_poses(recording / name), load_rig(results / "calibration.toml"))
    return {}


def _rig_error(truth: Simulation, rig: CameraRig) -> dict[str, float]:
    """Camera centres after the best rigid motion, focal lengths, and where the keypoints fall in the images."""
    rig = rig.subset(truth.rig.names)
    R, t = _world_from(rig, truth.rig)
    moved = rig.moved(1.0, R, t)
    off = np.linalg.norm(moved.centers - truth.rig.centers, axis=1)
    pixels = np.linalg.norm(moved.project(truth.animals.points) - truth.rig.project(truth.animals.points), axis=-1)
    focal = [a.intrinsics.K[0, 0] / b.intrinsics.K[0, 0] - 1 for a, b in zip(rig, truth.rig, strict=True)]
    return {
        "camera centres, mm, median": float(np.median(off)),
        "largest": float(off.max()),
        "focal lengths, %, largest": 100 * float(np.abs(focal).max()),
        "keypoints in the images, px, rms": float(np.sqrt(np.nanmean(pixels**2))),
    }


def _grouping_error(truth: Simulation, groups: Groups) -> dict[str, float]:
    """How many detections stand with the right animal: the best assignment of ids to animals over the recording."""
    counts = np.zeros((ANIMALS, int(groups.ids.max()) + 1), dtype=int)
    grouped = 0
    for v, name in enumerate(groups.view_names):
        frame, group = np.nonzero(groups.slots[:, :, v] >= 0)
        who = truth.seen.identity[name][frame, groups.slots[frame, group, v]]
        grouped += len(who)
        np.add.at(counts, (who[who >= 0], groups.ids[frame, group][who >= 0]), 1)
    right = int(counts[linear_sum_assignment(-counts)].sum())
    theirs = sum(int((who >= 0).sum()) for who in truth.seen.identity.values())
    return {
        "detections with the right animal, %": 100 * right / theirs,
        "wrongly grouped, %": 100 * (1 - right / max(grouped, 1)),
    }


def _pose_errors(truth: Simulation, estimate: Poses, rig: CameraRig) -> dict[str, Any]:
    """Identity and distance errors in the true world; only keypoints that two cameras saw can be expected."""
    R, t = _world_from(rig.subset(truth.rig.names), truth.rig)
    estimate = estimate.replace(points=estimate.points @ R.T + t)
    seen = truth.seen.found.sum(axis=0) > 1
    expected = truth.animals.replace(
        points=np.where(seen[..., None], truth.animals.points, np.nan), ids=truth.animals.ids
    )
    pose, tracks = evaluate_pose(expected, estimate), evaluate_tracks(truth.animals, estimate)
    length = body_length(truth.animals) / 100
    errors: dict[str, Any] = {
        "identity": {"IDF1": tracks.idf1, "switches": tracks.switches, "fragmentations": tracks.fragmentations},
        "error, % of body length": {"median": pose.median / length, "p95": pose.p95 / length},
        f"error, {pose.unit}": {"median": pose.median, "p95": pose.p95},
        "delivered, % of what two cameras saw": 100 * pose.delivered,
    }
    if "covariance_total" in estimate.extras:
        errors[f"points inside their {CONFIDENCE:.0%} ellipsoid, %"] = _inside(truth.animals, estimate, R)
    return errors


def _inside(truth: Poses, estimate: Poses, R: NDArray[np.float64]) -> float:
    """Percentage of keypoints with the truth in the ellipsoid of their covariance; animals are matched by distance."""
    apart = np.linalg.norm(truth.points[:, :, None] - estimate.points[:, None], axis=-1)
    gain = np.nansum(np.maximum(0, 1 - apart / body_length(truth)), axis=(0, 3))
    rows, columns = linear_sum_assignment(-gain)
    off = estimate.points[:, columns] - truth.points[:, rows]
    covariance = R @ estimate.extras["covariance_total"][:, columns] @ R.T
    known = np.isfinite(off).all(axis=-1)
    squared = np.einsum("ni,ni->n", off[known], np.linalg.solve(covariance[known], off[known][..., None])[..., 0])
    return 100 * float((squared < chi2.ppf(CONFIDENCE, 3)).mean())


def _world_from(rig: CameraRig, truth: CameraRig) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """R, t: true world from the rig's, without scale, by the camera centres."""
    _, R, _ = similarity(rig.centers, truth.centers)
    return R, truth.centers.mean(axis=0) - R @ rig.centers.mean(axis=0)


def _board_toml(board: Board) -> str:
    lines: dict[str, Any] = {"columns": board.columns, "rows": board.rows, "square_length": board.square_length}
    lines |= {"marker_length": board.marker_length, "dictionary": f'"{board.dictionary}"', "unit": f'"{board.unit}"'}
    return "".join(f"{key} = {value}\n" for key, value in lines.items())


_SESSION = f"""\
# The session that `pose3d demo` made up. Everything lies where pose3d expects it, so little has to be said.

[session]
recordings = ["{RECORDING}"]

[board]
file = "board.toml"

[scene]
size = [960, 720]
every = 2
"""
