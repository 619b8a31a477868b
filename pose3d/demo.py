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
from calibration.camera import Camera
from calibration.errors import InputError
from calibration.files import load_rig, save_rig
from calibration.files.atomic import write_bytes
from calibration.rig import CameraRig
from calibration.synthetic import board_motion, render_board, ring_rig
from calibration.transforms import similarity
from pose3d.config import load_session
from pose3d.evaluation import evaluate_pose, evaluate_tracks
from pose3d.files import load_poses, read_groups, save_poses
from pose3d.filming import Look, film, make_look, visible_keypoints
from pose3d.pipeline import run_session
from pose3d.poses import Groups, Poses
from pose3d.records import Plan, Progress, StageReport, fingerprint_product, run_stage
from pose3d.rehearsal import COARSE, FINE, SCENES, film_labels
from pose3d.synthetic import body_length, count_crossings, simulate_animals
from pose3d.video import MovieWriter

__all__ = ["Simulation", "compare", "run_demo", "simulate", "write_session"]

VERSION = 3
SHIPPED = Path(__file__).parent / "nn" / "quadruped.safetensors"
"""Made by `pose3d demo --train`."""
MODEL = Path("models/quadruped.safetensors")
_MODEL_FILES = (str(MODEL), str(MODEL.with_suffix(".json")))
VIDEO_QUALITY = 23
NEAR_PX = 10.0
"""A keypoint counts for an animal if it is found so near to the animal's own."""
CAMERAS, ANIMALS, FRAMES, BOARD_FRAMES = 6, 3, 150, 24
RADIUS, HEIGHT, REACH = 650.0, 450.0, 150.0  # mm: of the ring of cameras, and how far the board is carried about
BOARD = Board(8, 6, 36.0, 27.0)
RECORDING = "walk"
CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Simulation:
    """The truth: the rig, the animals (Poses 3D with ids), how they look, visible (views, frames, animals, keypoints),
    and where the board was in each frame of its footage: world_from_board as R (3, 3) and t (3,)."""

    rig: CameraRig
    animals: Poses
    look: Look
    visible: NDArray[np.bool_]
    board_poses: tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...]

    def in_view(self, name: str) -> Poses:
        """The keypoints that a camera sees, where it sees them (Poses 2D with ids)."""
        shown = self.visible[self.rig.names.index(name)]
        xy = np.where(shown[..., None], self.rig[name].project(self.animals.points), np.nan)
        return self.animals.replace(points=xy, score=None, unit="px")


def run_demo(
    output: Path, seed: int, *, train: bool = False, progress: Progress | None = None
) -> Iterator[tuple[str, StageReport]]:
    """Film a synthetic session into a folder, run it like any session, and yield each stage's report with its error.

    The same seed gives the same session; stages that are finished are skipped, as in any run. train: make the network
    anew instead of taking the one that comes with pose3d.
    """
    if seed < 0:
        raise InputError(f"seed: expected a whole number from 0, got {seed}")
    truth = simulate(seed)
    yield "", write_session(output, truth, seed, progress=progress)
    yield "", (make_network if train else take_network)(output, progress)
    session = load_session(output)
    for recording, report in run_session(session, progress=progress):
        errors = compare(report.stage, truth, session.output, session.results(RECORDING))
        yield recording, replace(report, summary=dict(report.summary) | errors)


def simulate(seed: int) -> Simulation:
    """Cameras on a ring, a board carried about between them, animals that cross, and what each camera sees of them."""
    rng = np.random.default_rng(seed)
    rig = ring_rig(CAMERAS, rng, radius=RADIUS, height=HEIGHT)
    animals = simulate_animals(rng, ANIMALS, FRAMES)
    R, t = board_motion(rig, BOARD, BOARD_FRAMES, rng, reach=REACH)
    visible = np.array([[visible_keypoints(camera, points) for points in animals.points] for camera in rig])
    look = make_look(rng, ANIMALS, rig)
    return Simulation(rig, animals, look, visible, tuple(zip(R, t, strict=True)))


def write_session(folder: Path, truth: Simulation, seed: int, *, progress: Progress | None = None) -> StageReport:
    """A session folder as a user has it: board pictures, board.toml, videos, pose3d.toml; truth/ beside them."""
    images = [f"calibration/{camera.name}/frame_{f:04d}.jpg" for f in range(BOARD_FRAMES) for camera in truth.rig]
    videos = {name: f"recordings/{RECORDING}/{name}.mp4" for name in truth.rig.names}
    known = {name: f"truth/poses2d/{name}.nc" for name in truth.rig.names}
    names = (*images, *videos.values(), *known.values(), "board.toml", "pose3d.toml")
    plan = Plan(folder, "film", VERSION, {}, {"seed": seed}, (*names, "truth/calibration.toml", "truth/poses3d.nc"))

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
            filming = [pool.submit(_write_video, folder / videos[c.name], truth, c, seed) for c in truth.rig]
            for done, video in enumerate(filming):
                video.result()
                if progress:
                    progress("filming the animals", done + 1, len(filming))
        for name, path in known.items():
            save_poses(folder / path, truth.in_view(name))
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
            "keypoints that two cameras see": float((truth.visible.sum(axis=0) > 1).mean()),
        }

    return run_stage(plan, work)


def _write_video(path: Path, truth: Simulation, camera: Camera, seed: int) -> None:
    with MovieWriter(path, truth.animals.fps, camera.intrinsics.size, crf=VIDEO_QUALITY) as movie:
        for image, _ in film(truth.animals, camera, truth.look, seed):
            movie.write(image)


def take_network(folder: Path, progress: Progress | None = None) -> StageReport:
    """The network that comes with pose3d, into the session."""
    inputs = {path.name: fingerprint_product(path) for path in (SHIPPED, SHIPPED.with_suffix(".json"))}

    def work() -> dict[str, Any]:
        for path in (SHIPPED, SHIPPED.with_suffix(".json")):
            write_bytes(folder / MODEL.with_suffix(path.suffix), path.read_bytes())
        return {"network": "comes with pose3d; --train makes it anew"}

    return run_stage(Plan(folder, "take network", VERSION, inputs, {}, _MODEL_FILES), work)


def make_network(folder: Path, progress: Progress | None = None) -> StageReport:
    """A network trained on filmed scenes of other seeds, into the session."""
    from pose3d.nn.network import save_network
    from pose3d.nn.train import train_network

    plan = Plan(folder, "train network", VERSION, {}, {"coarse": COARSE, "fine": FINE, "scenes": SCENES}, _MODEL_FILES)

    def work() -> dict[str, Any]:
        labels = film_labels(folder / "training", RADIUS, HEIGHT, progress=progress)
        coarse = train_network(labels, plan.unfinished / "coarse", COARSE, progress=progress)
        network = train_network(labels, plan.unfinished / "fine", FINE, start=coarse, progress=progress)
        save_network(folder / MODEL, network, half=True)
        return {name: value for name, value in network.metrics.items() if not isinstance(value, list)}

    return run_stage(plan, work)


def compare(stage: str, truth: Simulation, results: Path, recording: Path) -> dict[str, Any]:
    """What a stage adds to its summary: its error against the truth; {} for stages that have none of their own."""
    if stage.startswith("calibrate"):
        return {"error": _rig_error(truth, load_rig(results / "calibration.toml"))}
    if stage == "identify":
        return {"error": _grouping_error(truth, read_groups(recording / "groups.nc"), recording / "poses2d")}
    if stage == "assemble":
        return _view_errors(truth, recording / "assembled")
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


def _view_errors(truth: Simulation, folder: Path) -> dict[str, Any]:
    """What was found of that which each camera sees, all cameras together."""
    errors = {name: evaluate_pose(truth.in_view(name), load_poses(folder / f"{name}.nc")) for name in truth.rig.names}
    return {
        "error, px, median": {name: pose.median for name, pose in errors.items()},
        "found, % of what the camera sees": {name: 100 * pose.delivered for name, pose in errors.items()},
    }


def _grouping_error(truth: Simulation, groups: Groups, poses2d: Path) -> dict[str, float]:
    """How many detections stand with the right animal: the best assignment of ids to animals over the recording."""
    counts = np.zeros((ANIMALS, int(groups.ids.max()) + 1), dtype=int)
    grouped = theirs = 0
    for v, name in enumerate(groups.view_names):
        identity = _identified(truth.in_view(name), load_poses(poses2d / f"{name}.nc"))
        frame, group = np.nonzero(groups.slots[:, :, v] >= 0)
        who = identity[frame, groups.slots[frame, group, v]]
        grouped, theirs = grouped + len(who), theirs + int((identity >= 0).sum())
        np.add.at(counts, (who[who >= 0], groups.ids[frame, group][who >= 0]), 1)
    right = int(counts[linear_sum_assignment(-counts)].sum())
    return {
        "detections with the right animal, %": 100 * right / max(theirs, 1),
        "wrongly grouped, %": 100 * (1 - right / max(grouped, 1)),
    }


def _identified(truth: Poses, found: Poses) -> NDArray[np.int64]:
    """(frames, slots) which animal each detection is, -1 = none: the one with most keypoints near its own."""
    identity = np.full(found.points.shape[:2], -1)
    for row in range(len(found.frame)):
        apart = np.linalg.norm(found.points[row][:, None] - truth.points[row][None], axis=-1)
        near = (apart < NEAR_PX).sum(axis=-1)
        slot, animal = linear_sum_assignment(-near)
        identity[row, slot] = np.where(near[slot, animal] > 0, truth.ids[row, animal], -1)
    return identity


def _pose_errors(truth: Simulation, estimate: Poses, rig: CameraRig) -> dict[str, Any]:
    """Identity and distance errors in the true world; only keypoints that two cameras saw can be expected."""
    R, t = _world_from(rig.subset(truth.rig.names), truth.rig)
    estimate = estimate.replace(points=estimate.points @ R.T + t)
    seen = truth.visible.sum(axis=0) > 1
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

[predict]
model = "{MODEL}"

[assemble]
# Animals hide each other: doubtful keypoints and limbs, and views in which little of an animal is left, do more harm
# than good.
min_score = 0.5
min_share = 0.35
bias = 0.1

[identify]
individuals = {ANIMALS}

[refine]
# Keypoints that are less sure than this (mm, standard deviation) are left out.
max_sd = 4.0

[scene]
size = [960, 720]
every = 2
"""
