"""How near to the Cramér–Rao bound are calibrated rigs, and do their 95 % ellipsoids hold the truth in 95 % of trials?

Every trial is a new rig, a new motion of a small board and new noise; the corners go through the cold start of
`calibrate_rig`. The bound is the inverse of the adjustment's normal equations at the true parameters, in the same gauge
(the first camera), without priors; beside it, with the weak priors on the intrinsics that the cold start uses.

    python benchmarks/cramer_rao.py                              # all scenes; hours on two cores
    python benchmarks/cramer_rao.py pinhole-4 mixed-8 --trials 100
    python benchmarks/cramer_rao.py --keep trials                # go on with what was done before
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from calibration.board import Board
from calibration.bundle import BundleOptions, board_system
from calibration.calibrate import CalibrationOptions, calibrate_rig
from calibration.lenses import free_parameters, prior_intrinsics
from calibration.rig import CameraRig
from calibration.solver import schur_covariance
from calibration.synthetic import board_motion, ring_rig, simulate_detections
from calibration.transforms import compose, skew

Array = NDArray[np.float64]

BOARD = Board(6, 5, 45.0)
SIZE = (1280, 1024)
NOISE_PX = 0.3
FRAMES = {2: 40, 4: 40, 8: 40, 18: 80, 30: 120}
FISHEYE = (0.02, -0.004, 0.001, -1e-4)


@dataclass(frozen=True)
class Trial:
    """One calibration: squared errors and the bounds' variances, of camera centres (n,) mm^2 and focal lengths px^2.

    inside: (n,) whether a camera's 95 % ellipsoid holds its true centre. held: cameras whose focal length was held.
    lenses: cameras whose lens was not the true one.
    """

    centre: Array
    centre_bound: Array
    centre_prior: Array
    focal: Array
    focal_bound: Array
    focal_prior: Array
    distance: Array
    held: int
    lenses: int


def make_rig(kind: str, n: int, rng: np.random.Generator) -> tuple[CameraRig, float]:
    """A rig of n cameras and the reach of the board's motion; two cameras stand next to each other on a ring of six."""
    ring = max(n, 6) if n == 2 else n
    seed = int(rng.integers(2**32))
    near = ring_rig(
        ring, np.random.default_rng(seed), radius=400, height=250, size=SIZE, focal_px=330, distortion=FISHEYE,
        model="fisheye",
    )  # fmt: skip
    far = ring_rig(ring, np.random.default_rng(seed), radius=1000, height=700, size=SIZE, focal_px=1100)
    if kind == "pinhole":
        return far.subset(far.names[:n]), 700.0
    if kind == "fisheye":
        return near.subset(near.names[:n]), 700.0
    cameras = [(far, near)[i % 2].cameras[i] for i in range(n)]
    return CameraRig(tuple(cameras), "mm"), 700.0


def run_trial(task: tuple[str, int, int]) -> Trial:
    kind, n, seed = task
    rng = np.random.default_rng((seed, n, ("pinhole", "fisheye", "mixed").index(kind)))
    truth, reach = make_rig(kind, n, rng)
    R, t = board_motion(truth, BOARD, FRAMES[n], rng, reach=reach)
    detections = simulate_detections(truth, BOARD, R, t, rng, noise_px=NOISE_PX)
    first = truth.cameras[0]
    R, t = compose(first.R, first.t, R, t)
    truth = truth.moved(1.0, first.R, first.t)
    free = {camera.name: free_parameters(camera.intrinsics) for camera in truth}
    priors = {
        c.name: (p.parameters, s)
        for c in truth
        for p, s in [prior_intrinsics(SIZE, c.intrinsics.parameters[0], c.intrinsics.model)]
    }
    bounds = [
        schur_covariance(board_system(truth, R, t, detections, BundleOptions(free=free, priors=prior)))
        for prior in ({}, priors)
    ]
    found = calibrate_rig(detections, CalibrationOptions(audit=False))
    away = found.rig.centers - truth.centers
    focal = found.rig.packed().parameters[:, :2] - truth.packed().parameters[:, :2]
    spread = centre_covariance(found.rig, found.rig.covariance)
    distance = np.array([a @ np.linalg.solve(c, a) for a, c in zip(away[1:], spread[1:], strict=True)])
    traces = [np.trace(centre_covariance(truth, bound)[1:], axis1=1, axis2=2) for bound in bounds]
    focals = [np.diagonal(bound).reshape(n, 18)[:, 6:8].sum(axis=1) for bound in bounds]
    return Trial(
        (away[1:] ** 2).sum(axis=1), *traces, (focal**2).sum(axis=1), *focals, distance,
        sum(camera.intrinsics == "held" for camera in found.report.cameras),
        sum(a.intrinsics.model != b.intrinsics.model for a, b in zip(truth, found.rig, strict=True)),
    )  # fmt: skip


def centre_covariance(rig: CameraRig, covariance: Array) -> Array:
    """(views, 3, 3) of the centres -R' t: R = exp(w) R0 moves them by -R' [t]_x w, t by -R'."""
    blocks = []
    for i, camera in enumerate(rig):
        J = np.concatenate((-camera.R.T @ skew(camera.t), -camera.R.T), axis=1)
        pose = slice(18 * i, 18 * i + 6)
        blocks.append(J @ covariance[pose, pose] @ J.T)
    return np.stack(blocks)


def summary(scene: str, trials: list[Trial], seconds: float) -> dict[str, object]:
    """One line of the table."""

    def ratio(error: str, bound: str) -> float:
        """The root mean square of every camera's error in units of its bound, so that rigs that are hardly determined
        count like all others; without trials in which a lens was taken for another or a focal length held, which have
        another bound and are counted by themselves."""
        right = [t for t in trials if not (t.held or t.lenses)]
        squared = np.concatenate([getattr(t, error) / getattr(t, bound) for t in right])
        return round(float(np.sqrt(squared.mean())), 3)

    distance = np.concatenate([t.distance for t in trials])
    return {
        "scene": scene,
        "trials": len(trials),
        "centre_rms_mm": round(float(np.sqrt(np.mean(np.concatenate([t.centre for t in trials])))), 3),
        "centre_median_mm": round(float(np.sqrt(np.median(np.concatenate([t.centre for t in trials])))), 3),
        "centre_over_bound": ratio("centre", "centre_bound"),
        "centre_over_bound_with_priors": ratio("centre", "centre_prior"),
        "focal_rms_px": round(float(np.sqrt(np.mean(np.concatenate([t.focal for t in trials])) / 2)), 3),
        "focal_over_bound": ratio("focal", "focal_bound"),
        "focal_over_bound_with_priors": ratio("focal", "focal_prior"),
        "inside_95": round(float((distance < chi2.ppf(0.95, 3)).mean()), 4),
        "distance_mean_over_3": round(float(distance.mean() / 3), 3),
        "cameras_held": sum(t.held for t in trials),
        "lenses_wrong": sum(t.lenses for t in trials),
        "seconds": round(seconds, 1),
    }


def run_trials(scene: str, tasks: list[tuple[str, int, int]], workers: int, keep: Path | None) -> list[Trial]:
    """All trials; those that stand in <keep>/<scene>.jsonl, a line each with its seed, are not run again."""
    done: dict[int, Trial] = {}
    path = None if keep is None else keep / f"{scene}.jsonl"
    if path is not None and path.is_file():
        for line in path.read_text().splitlines():
            told = json.loads(line)
            seed = told.pop("seed")
            done[seed] = Trial(**{k: np.array(v) if isinstance(v, list) else v for k, v in told.items()})
    left = [task for task in tasks if task[2] not in done]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for task, trial in zip(left, pool.imap(run_trial, left), strict=True):
            done[task[2]] = trial
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(trial).items()}
                with path.open("a") as file:
                    file.write(json.dumps({"seed": task[2], **plain}) + "\n")
    return [done[task[2]] for task in tasks]


def main() -> None:
    scenes = [f"{kind}-{n}" for n in (2, 4, 8) for kind in ("pinhole", "fisheye", "mixed")] + ["mixed-18", "mixed-30"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", nargs="*", default=scenes, help="kind-cameras, such as fisheye-4")
    parser.add_argument("--trials", type=int, help="default 1,000; 200 for 18 and 30 cameras")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder in which every trial is put down, and taken from")
    told = parser.parse_args()
    for scene in told.scenes:
        kind, number = scene.split("-")
        n = int(number)
        trials = told.trials or (1000 if n <= 8 else 200)
        start = time.perf_counter()
        tasks = [(kind, n, told.seed + i) for i in range(trials)]
        done = run_trials(scene, tasks, told.workers, told.keep)
        sys.stdout.write(json.dumps(summary(scene, done, time.perf_counter() - start)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
