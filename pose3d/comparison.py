"""What of a truth and an estimate can be compared? Common frames and keypoints, sizes, and who is nearest to whom."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from calibration.errors import InputError
from pose3d.poses import Poses
from pose3d.skeleton import Skeleton

__all__ = ["animals_size", "assigned", "closeness", "matched", "on_common_ground"]

COVARIANCES = ("covariance", "covariance_total")

Float = NDArray[np.float64]


def on_common_ground(truth: Poses, estimate: Poses) -> tuple[Poses, Poses]:
    """Both on the truth's frames and on their common keypoints; frames that the estimate lacks are empty. Of its extras
    the estimate keeps its covariances."""
    if truth.unit != estimate.unit or truth.shape[3] != estimate.shape[3]:
        raise InputError(
            f"evaluate: the truth is {truth.shape[3]}D in {truth.unit}, the estimate {estimate.shape[3]}D in "
            f"{estimate.unit}; convert one of them"
        )
    names = [k for k in truth.skeleton.keypoints if k in estimate.skeleton.keypoints]
    if not names:
        raise InputError(
            f"evaluate: no common keypoint; the truth has {', '.join(truth.skeleton.keypoints)}, "
            f"the estimate {', '.join(estimate.skeleton.keypoints)}"
        )
    rows = np.searchsorted(estimate.frame, truth.frame)
    rows[rows == len(estimate.frame)] = 0
    there = estimate.frame[rows] == truth.frame if len(estimate.frame) else np.zeros(len(truth.frame), dtype=bool)
    if not there.any():
        raise InputError(
            f"evaluate: no common frame; the truth has {len(truth.frame)} frames, the estimate {len(estimate.frame)}"
        )
    points = np.where(there[:, None, None, None], estimate.points[rows], np.nan)
    ids = np.where(there[:, None], estimate.ids[rows], -1)
    extras = {
        name: np.where(there[:, None, None, None, None], estimate.extras[name][rows], np.nan)
        for name in COVARIANCES
        if name in estimate.extras
    }
    moved = Poses(
        points,
        np.where(there[:, None, None], estimate.score[rows], 0.0),
        ids=ids,
        frame=truth.frame,
        time=truth.time,
        skeleton=estimate.skeleton,
        names=estimate.names,
        unit=truth.unit,
        extras=extras,
    )
    return _with_keypoints(truth, names), _with_keypoints(moved, names)


def animals_size(poses: Poses) -> float:
    """Median over frames and individuals of the largest distance between two keypoints; NaN without any."""
    points = poses.points
    largest = np.zeros(points.shape[:2])
    for k in range(points.shape[2] - 1):
        apart = np.linalg.norm(points[:, :, k + 1 :] - points[:, :, k, None], axis=-1)
        largest = np.maximum(largest, np.nan_to_num(apart).max(axis=2))
    return float(np.median(largest[largest > 0])) if (largest > 0).any() else float("nan")


def closeness(true: Float, found: Float, size: float) -> Float:
    """(frames, individuals, found individuals) sum over keypoints of max(0, 1 - distance / size); where animals have no
    size (NaN), because they are single keypoints, the greatest distance stands for it: any is close enough."""
    apart = np.linalg.norm(true[:, :, None] - found[:, None], axis=-1)
    if np.isnan(size):
        size = 1.0 + np.max(apart, initial=0.0, where=np.isfinite(apart))
    return np.clip(1.0 - np.where(np.isnan(apart), np.inf, apart) / size, 0.0, None).sum(axis=-1)


def assigned(gain: Float) -> NDArray[np.intp]:
    """(frames, individuals) the found individual of each true one, -1 = none, from gains (frames, individuals,
    found).
    """
    partner = np.full(gain.shape[:2], -1)
    for frame, matrix in enumerate(gain):
        rows, columns = linear_sum_assignment(-matrix)
        good = matrix[rows, columns] > 0
        partner[frame, rows[good]] = columns[good]
    return partner


def matched(truth: Poses, estimate: Poses) -> tuple[Poses, Poses, float]:
    """Both on common ground with the same individual in the same slot, and the truth's animals' size.

    Individuals meet by identity where both know identities: the assignment over the whole recording that brings most
    keypoints closest; else frame by frame. Raises InputError when nothing can be compared.
    """
    true, found = on_common_ground(truth, estimate)
    size = animals_size(true)
    if np.any(truth.ids >= 0) and np.any(estimate.ids >= 0):
        true, found = true.by_id(), found.by_id()
        pairs = assigned(_gain(true.points, found.points, size)[None])[0]
        partner = np.tile(pairs, (len(true.frame), 1))
    else:
        partner = assigned(closeness(true.points, found.points, size))
    return true, found.take_slots(partner), size


def _gain(true: Float, found: Float, size: float) -> Float:
    gain = np.zeros((true.shape[1], found.shape[1]))
    for a in range(true.shape[1]):
        gain[a] = closeness(true[:, a : a + 1], found, size).sum(axis=(0, 1))
    return gain


def _with_keypoints(poses: Poses, names: list[str]) -> Poses:
    order = [poses.skeleton.index(name) for name in names]
    return Poses(
        poses.points[:, :, order], poses.score[:, :, order], ids=poses.ids, frame=poses.frame, time=poses.time,
        skeleton=Skeleton(tuple(names)), names=poses.names, unit=poses.unit, fps=poses.fps,
        extras={name: poses.extras[name][:, :, order] for name in COVARIANCES if name in poses.extras},
    )  # fmt: skip
