"""Which frames would teach a network most, if somebody labelled them? Doubt, disagreement of views, and diversity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.rig import CameraRig
from pose3d.poses import Groups, Poses

__all__ = [
    "Doubts",
    "Expected",
    "Usual",
    "choose_frames",
    "expected_in_views",
    "normal_pose",
    "view_doubts",
    "view_usual",
]

Float = NDArray[np.float64]

HALF_APART = 0.25
"""Of an animal's size: a keypoint so far from where the other views have it, or so uncertain, is half a doubt."""
USUAL_TIMES = 4.0
"""The usual distance from where the other views have it, times this, is half a doubt where that is more."""
CHANGED_COUNT = 0.5
"""Doubt in a frame in which all animals come or go; less in proportion. They may have walked in, so it is no certain
mistake."""
COUNT_FRAMES = 31
"""Frames around a frame of which the median number of animals is the usual one."""
LEAST_KEYPOINTS = 3
"""Keypoints that two poses must share to be compared."""
FAR_POSE = 0.5
"""Of an animal's size: poses whose keypoints differ so much (rms) are as different as can be."""


@dataclass(frozen=True, eq=False)
class Expected:
    """What the 3D poses say of one view: points (frames, slots, keypoints, 2) px, where the individual in each slot is,
    NaN = unknown; due (frames, individuals) whose whole pose lies in the image; lost: those that the view lacks.
    """

    points: Float
    due: NDArray[np.bool_]
    lost: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Usual:
    """What is usual in one view. size: px, median over animals of the rms distance of their keypoints from their
    middle. seen (keypoints,): share of the animals that have the keypoint. found: share of the animals found, of those
    that the 3D poses put into the image. apart: median distance of keypoints from where the other views have them, in
    sizes, 0 where that is unknown."""

    size: float
    seen: Float
    found: float
    apart: float = 0.0


@dataclass(frozen=True, eq=False)
class Doubts:
    """What is doubtful in one view, frame by frame.

    unsure (frames, slots, keypoints): 0 sure .. 1, 0 in empty slots. apart (frames, slots, keypoints): from where the
    other views have it, in animals' sizes, NaN = unknown. lost (frames,): animals that other views see and this one
    does not. count, usual_count (frames,): animals here, and around here. score (frames,): 0..1. worst (frames,): the
    slot with the highest score, -1 where what is missing weighs more.
    """

    unsure: Float
    apart: Float
    lost: NDArray[np.intp]
    count: NDArray[np.intp]
    usual_count: NDArray[np.intp]
    score: Float
    worst: NDArray[np.intp]


def expected_in_views(poses3d: Poses, groups: Groups, rig: CameraRig) -> dict[str, Expected]:
    """Where each view should see whom, by the 3D poses of the same frames; slots: as many as the groups' highest one.

    The 3D pose comes of all views, robustly: where most agree, it is far from the one that errs.
    """
    n_slots = int(groups.slots.max(initial=-1)) + 1
    expected = {}
    for v, name in enumerate(groups.view_names):
        camera = rig[name]
        xy = camera.project(poses3d.points)
        inside = ((xy > -0.5) & (xy < np.array(camera.intrinsics.size) - 0.5)).all(axis=-1)
        known = ~poses3d.missing
        due = (inside | ~known).all(axis=2) & (known.sum(axis=2) >= LEAST_KEYPOINTS) & (poses3d.ids >= 0)
        points = np.full((len(xy), n_slots, *xy.shape[2:]), np.nan)
        found = np.zeros(due.shape, dtype=bool)
        for i in range(poses3d.shape[1]):
            same = (groups.ids == poses3d.ids[:, i : i + 1]) & (groups.ids >= 0) & (groups.slots[..., v] >= 0)
            row, group = np.nonzero(same)
            found[row, i] = True
            points[row, groups.slots[row, group, v]] = xy[row, i]
        expected[name] = Expected(points, due, due & ~found)
    return expected


def view_usual(poses: Poses, expected: Expected | None = None) -> Usual:
    """What is usual in these frames of one view; size 1 px and nothing seen where there is no animal."""
    known: NDArray[np.bool_] = ~poses.missing
    animals = poses.points[known.any(axis=2)]
    several = np.isfinite(animals[:, :, 0]).sum(axis=1) >= 2
    size = float(np.median(_sizes(animals[several]))) if several.any() else 1.0
    seen = np.isfinite(animals[:, :, 0]).mean(axis=0) if len(animals) else np.zeros(poses.shape[2])
    due = 0 if expected is None else int(expected.due.sum())
    found = 1.0 if expected is None or not due else 1.0 - float(expected.lost.sum()) / due
    size = max(size, 1e-9)
    off = _apart(poses, expected)
    off = off[np.isfinite(off)]
    return Usual(size, seen, found, float(np.median(off)) / size if len(off) else 0.0)


def view_doubts(poses: Poses, usual: Usual, expected: Expected | None = None) -> Doubts:
    """How doubtful the 2D poses of one view are, of consecutive frames; expected: by the other views, where known.

    A keypoint is unsure by 1 - score, or by its standard deviation (`extras["covariance"]`, half at HALF_APART), which
    is more; a missing one of an animal that is there by the share of animals which have it, so that what this camera
    never sees costs nothing. It is in dispute by x^2 / (1 + x^2), x its distance from the other views' place over
    HALF_APART of the usual size, or over USUAL_TIMES what is usual, or over twice its standard deviation, whichever is
    most: what the network itself said to be vague is not told twice. Both are joined as independent doubts; an animal's
    score is their rms over its keypoints, so that one bad keypoint shows; a frame's is that of its worst animal. An
    animal that the view lacks but others see counts as the view's usual share of those found. Without other views, a
    number of animals that differs from the median around counts, at most CHANGED_COUNT.
    """
    from scipy.ndimage import median_filter

    known: NDArray[np.bool_] = ~poses.missing
    present: NDArray[np.bool_] = np.asarray(known.any(axis=2))
    sd = _deviation(poses) / usual.size
    unsure = np.maximum(1.0 - poses.score, sd**2 / (sd**2 + HALF_APART**2))
    unsure = np.asarray(np.where(known, unsure, usual.seen) * present[..., None], dtype=np.float64)
    apart = _apart(poses, expected) / usual.size
    x = np.nan_to_num(apart) / np.maximum(max(HALF_APART, USUAL_TIMES * usual.apart), 2.0 * sd)
    doubt = 1.0 - (1.0 - unsure) / (1.0 + x**2)
    animal = np.sqrt((doubt**2).mean(axis=2)) * present
    count = present.sum(axis=1).astype(np.intp)
    around = median_filter(count, size=COUNT_FRAMES, mode="nearest") if len(count) else count
    lost = np.zeros(len(count), dtype=np.intp) if expected is None else expected.lost.sum(axis=1)
    if expected is None:
        missing = CHANGED_COUNT * np.abs(count - around) / np.maximum(np.maximum(count, around), 1)
    else:
        missing = np.where(lost > 0, usual.found, 0.0)
    best = animal.max(axis=1, initial=0.0)
    worst = np.where(present.any(axis=1) & (best >= missing), animal.argmax(axis=1) if animal.shape[1] else -1, -1)
    return Doubts(unsure, apart, lost, count, around, np.maximum(best, missing), worst.astype(np.intp))


def normal_pose(poses: Poses, slot: NDArray[np.intp]) -> Float:
    """(frames, keypoints, 2) the pose in a slot of each frame (-1 = none) about its middle, in units of its size; NaN
    where there are not two keypoints. It is not turned: a network must see animals under every angle."""
    points = poses.take_slots(slot[:, None]).points[:, 0]
    size = _sizes(points)
    known = np.isfinite(points[..., 0]).sum(axis=1) >= 2
    scale = np.where(known & (size > 0), size, np.nan)
    return (points - _middles(points)) / scale[:, None, None]


def choose_frames(
    score: Float,
    frame: NDArray[np.int64],
    camera: Sequence[str],
    recording: Sequence[str],
    pose: Float,
    count: int,
    apart: int,
) -> NDArray[np.intp]:
    """At most `count` rows, the best first: doubtful frames that are unlike each other; the same for the same rows.

    score (n,): of `view_doubts`; 0 or NaN is never chosen. frame (n,), camera, recording (n): where each row stands.
    pose (n, keypoints, 2): `normal_pose`. apart: frames that two choices of one camera and recording keep at least.

    Greedy: the next row has the highest score x novelty x share. Novelty is the least distance, 0..1, from any chosen
    row: half of it pose (rms over FAR_POSE), half time (over the frames that an even spread of `count` would leave),
    of which another recording is 1; another camera is 1 in all. Share is 1 / sqrt(1 + rows chosen of this camera and
    recording), so that equal doubts are spread evenly and no camera takes all.
    """
    cameras, recordings = (
        np.unique(np.array(names, dtype=str), return_inverse=True)[1] for names in (camera, recording)
    )
    place = cameras * (recordings.max(initial=0) + 1) + recordings
    reach = np.ones(len(score))
    for where in np.unique(place):
        reach[place == where] = max(float(np.ptp(frame[place == where])) / max(count, 1), 1.0)
    novelty, taken = np.ones(len(score)), np.zeros(len(score))
    gain = np.where(np.isfinite(score) & (score > 0), score, 0.0)
    free = gain > 0
    chosen: list[int] = []
    while len(chosen) < count and free.any():
        best = int(np.argmax(np.where(free, gain * novelty / np.sqrt(1.0 + taken), -1.0)))
        if gain[best] * novelty[best] <= 0:
            break
        chosen.append(best)
        same = place == place[best]
        away = np.abs(frame - frame[best])
        free &= ~(same & (away < apart))
        free[best] = False
        taken += same
        time = np.where(same, np.minimum(1.0, away / reach), 1.0)
        distance = np.where(cameras == cameras[best], (_pose_distance(pose, pose[best]) + time) / 2, 1.0)
        novelty = np.minimum(novelty, distance)
    return np.array(chosen, dtype=np.intp)


def _pose_distance(poses: Float, pose: Float) -> Float:
    """(n,) 0..1: rms over common keypoints over FAR_POSE; no pose is like no pose, and unlike any other."""
    off = ((poses - pose) ** 2).sum(axis=-1)
    common = np.isfinite(off)
    n = common.sum(axis=1)
    rms = np.sqrt(np.where(common, off, 0.0).sum(axis=1) / np.maximum(n, 1))
    empty = np.isnan(poses[..., 0]).all(axis=1)
    none = np.isnan(pose[..., 0]).all()
    comparable = n >= min(LEAST_KEYPOINTS, poses.shape[1])
    return np.where(comparable, np.minimum(1.0, rms / FAR_POSE), np.where(empty & none, 0.0, 1.0))


def _apart(poses: Poses, expected: Expected | None) -> Float:
    """(frames, slots, keypoints) px from where the other views have it, NaN = unknown."""
    apart = np.full(poses.score.shape, np.nan)
    if expected is not None:
        slots = min(poses.shape[1], expected.points.shape[1])
        apart[:, :slots] = np.linalg.norm(poses.points[:, :slots] - expected.points[:, :slots], axis=-1)
    return apart


def _deviation(poses: Poses) -> Float:
    """(frames, slots, keypoints) px, standard deviation of a coordinate; 0 where the poses do not say."""
    extras: Mapping[str, NDArray[np.float64]] = poses.extras
    if "covariance" not in extras:
        return np.zeros(poses.score.shape)
    variance = np.trace(extras["covariance"], axis1=-2, axis2=-1) / 2
    return np.sqrt(np.where(np.isfinite(variance), np.maximum(variance, 0.0), 0.0))


def _middles(points: Float) -> Float:
    """(n, 1, 2) mean of the known keypoints of (n, keypoints, 2)."""
    known = np.isfinite(points)
    return np.where(known, points, 0.0).sum(axis=1, keepdims=True) / np.maximum(known.sum(axis=1, keepdims=True), 1)


def _sizes(points: Float) -> Float:
    """(n,) px, rms distance of the known keypoints of (n, keypoints, 2) from their middle."""
    known = np.isfinite(points[..., 0])
    off = ((np.where(known[..., None], points, 0.0) - _middles(points) * known[..., None]) ** 2).sum(axis=(1, 2))
    return np.sqrt(off / np.maximum(known.sum(axis=1), 1))
