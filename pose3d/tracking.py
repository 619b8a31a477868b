"""Which pose of this frame is which of the last? One tracker for 2D and 3D, sized by the array's shape.

Every keypoint of a track is a constant-velocity Kalman filter; tracks and poses are matched by the Hungarian method on
the mean squared innovation in units of its own variance. How the animals move and how noisy the keypoints are is
estimated from the recording itself, on poses that follow each other without doubt. Tracks that break are stitched where
one can be the other's end.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import chi2

from calibration.errors import InputError
from pose3d.kalman import Motion, adapted, estimate_motion, predict, start, update
from pose3d.poses import Poses

__all__ = ["TrackingOptions", "Tracklets", "reach", "stitch", "track"]

Array = NDArray[Any]

_CONFIDENCE = 0.9999
"""Share of right matches that the gate would keep, were the innovations of all keypoints the same Gaussian."""
_GATES = {D: float(chi2.ppf(_CONFIDENCE, D)) for D in (2, 3)}
_WORST = 4.0
"""A keypoint counts at most as this many gates."""
_CLEAR = 2.0
"""The nearest pose is a sure successor when the next nearest is this many times as far."""
_BLOCKS, _BLOCK = 40, 12
"""Motion is estimated on this many stretches of so many frames, spread over the recording."""
_MOST = 1.0
"""Greatest variance of the acceleration per frame, in squared radii."""
_LEAST = 1e-3
"""Least measurement noise and acceleration per frame, in radii of the animals: exact and resting data have some,
too."""
_STRAIGHT = 15
"""Frames for which an animal may walk straight on; beyond, its way grows as that of a random walk."""


@dataclass(frozen=True)
class TrackingOptions:
    """max_gap: frames for which an unseen track is remembered. min_frames: a track seen in fewer gets no id, in a
    recording of at least ten times as many frames."""

    max_gap: int = 40
    min_frames: int = 3


@dataclass(frozen=True, eq=False)
class Tracklets:
    """Pieces of tracks: first, last (n,) frame positions; began (n, K, D) first position; ended (n, K, 2 D) last state,
    NaN where unknown. radius: the animals' rms radius; step: rms of what a coordinate moves per frame; both in the
    points' unit."""

    first: Array
    last: Array
    began: Array
    ended: Array
    radius: float
    step: float


def track(poses: Poses, options: TrackingOptions | None = None) -> Poses:
    """The same poses with ids: one number an individual as far as it can be followed, from 0 in order of first
    appearance.

    poses: 2D or 3D; ids already there are not looked at. A pose without any keypoint has id -1, and so has one of a
    track that is too short. The extra `covariance`, if there is one, is the measurement noise; else it is estimated.
    Frame numbers that jump are longer steps. Raises InputError when there is no keypoint at all.
    """
    options = options or TrackingOptions()
    if poses.missing.all():
        raise InputError("tracking: no keypoint in any frame; check the poses")
    tracks = _begun(poses)
    noise = np.asarray(tracks.motion.measurement)[:, None, None] * np.eye(poses.shape[3])
    noise = np.broadcast_to(noise, (*poses.shape, poses.shape[3]))
    if "covariance" in poses.extras:
        own = poses.extras["covariance"]
        noise = np.where(np.isnan(own).any(axis=(-1, -2), keepdims=True), noise, own)
    numbers = np.full(poses.shape[:2], -1)
    for f in range(len(poses.frame)):
        slots = np.flatnonzero(~poses.missing[f].all(axis=1))
        gap = int(poses.frame[f] - poses.frame[f - 1]) if f else 1
        numbers[f, slots] = _step(tracks, poses.points[f, slots], noise[f, slots], int(poses.frame[f]), gap)
        tracks.forget(poses.frame[f] - options.max_gap)
    return poses.replace(ids=_ids(numbers, tracks, options))


def stitch(pieces: Tracklets, until: Array | None = None) -> NDArray[np.int64]:
    """Which individual each piece belongs to: (n,) numbers from 0 in the order of the pieces.

    A piece may follow another that ended before it began, where the median distance of common keypoints from its end to
    the beginning is at most one radius and the `reach` of the gap. All links are chosen at once, so that the sum of 1 -
    distance / limit is greatest and every piece has at most one predecessor and one successor: a minimum-cost flow
    through the pieces, which is an assignment since every piece can begin and end a track at no cost. until: (n,) after
    which frames a piece may be followed, by one that begins and ends later than it does; default `last`.
    """
    n, D = len(pieces.first), pieces.began.shape[-1]
    gain = np.zeros((n, n))
    for i in range(n):
        gap = pieces.first - pieces.last[i]
        free = gap > 0 if until is None else pieces.first > until[i]
        later = np.flatnonzero(free & (pieces.first > pieces.first[i]) & (pieces.last > pieces.last[i]))
        apart = np.linalg.norm(pieces.began[later] - pieces.ended[i, :, :D], axis=-1)
        both = ~np.isnan(apart).all(axis=1)
        later, apart = later[both], apart[both]
        limit = pieces.radius + reach(np.abs(gap[later]), pieces.step, D)
        gain[i, later] = np.maximum(1.0 - np.nanmedian(apart, axis=1) / limit, 0.0) if len(later) else 0.0
    chain = np.arange(n)
    before, after = linear_sum_assignment(-gain)
    successor = {int(i): int(j) for i, j in zip(before, after, strict=True) if gain[i, j] > 0.0}
    for i in np.argsort(pieces.first, kind="stable"):
        if int(i) in successor:
            chain[successor[int(i)]] = chain[i]
    return np.unique(chain, return_inverse=True)[1]


def reach(gap: Array, step: float, dimensions: int) -> Array:
    """How far an animal gets in `gap` frames, when `step` is the rms of what a coordinate moves in one."""
    return step * np.sqrt(dimensions * gap * np.minimum(gap, _STRAIGHT))


@dataclass
class _Tracks:
    """The tracks while they are followed: mean (T, K, 2 D), covariance (T, K, 2 D, 2 D), number (T,); and of every
    track ever, by number: first and last frame number, in how many frames it was seen, first position and last
    state. motion of each keypoint; radius of the animals, rms step of a coordinate, least variance of anything."""

    motion: Motion
    radius: float
    step: float
    least: float
    mean: Array
    covariance: Array
    number: Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    first: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    began: list[Array] = field(default_factory=list)
    ended: list[Array] = field(default_factory=list)

    def forget(self, before: int) -> None:
        """Drop the tracks that were last seen before this frame number."""
        stay = np.array([self.last[i] >= before for i in self.number], dtype=bool)
        if not stay.all():
            self.mean, self.covariance, self.number = self.mean[stay], self.covariance[stay], self.number[stay]


def _step(tracks: _Tracks, points: Array, noise: Array, frame: int, gap: int) -> Array:
    """Follow the tracks to the poses (n, K, D) of one frame, begin new ones: the track number of each pose (n,)."""
    D, motion = points.shape[-1], tracks.motion
    mean, covariance = predict(tracks.mean, tracks.covariance, motion, float(gap))
    usual = motion.measurement + motion.walk + motion.acceleration / 4.0 + tracks.step**2
    cost = _costs(mean, covariance, points, noise, _GATES[D], usual)
    rows, columns = linear_sum_assignment(np.minimum(cost, 1.0))
    matched = cost[rows, columns] < 1.0
    rows, columns = rows[matched], columns[matched]
    measured, spread = np.full((*mean.shape[:2], D), np.nan), np.zeros((*mean.shape[:2], D, D))
    measured[rows], spread[rows] = points[columns], noise[columns]
    mean, covariance, distance = update(mean, covariance, measured, spread)
    limits = (tracks.least, max(_MOST * tracks.radius**2, tracks.least))
    tracks.motion = replace(motion, acceleration=adapted(np.asarray(motion.acceleration), distance, D, limits))
    new = np.setdiff1d(np.arange(len(points)), columns)
    first_mean, first_covariance = start(points, noise, tracks.step**2)
    fresh = np.isnan(mean[rows, :, 0])
    mean[rows] = np.where(fresh[..., None], first_mean[columns], mean[rows])
    covariance[rows] = np.where(fresh[..., None, None], first_covariance[columns], covariance[rows])
    number = np.empty(len(points), dtype=np.int64)
    number[columns] = tracks.number[rows]
    number[new] = len(tracks.first) + np.arange(len(new))
    tracks.mean, tracks.covariance = (
        np.concatenate([mean, first_mean[new]]),
        np.concatenate([covariance, first_covariance[new]]),
    )
    tracks.number = np.r_[tracks.number, number[new]]
    for i in new:
        tracks.first.append(frame)
        tracks.last.append(frame)
        tracks.seen.append(1)
        tracks.began.append(points[i])
        tracks.ended.append(first_mean[i])
    for row in rows:
        i = tracks.number[row]
        tracks.last[i], tracks.ended[i] = frame, tracks.mean[row]
        tracks.seen[i] += 1
    return number


def _ids(numbers: Array, tracks: _Tracks, options: TrackingOptions) -> Array:
    """Track numbers (frames, slots) -> ids: the short ones taken out, the others stitched, in order of first
    appearance."""
    good = np.flatnonzero(np.array(tracks.seen) >= min(options.min_frames, max(len(numbers) // 10, 1)))
    first, last, began, ended = (np.array(c)[good] for c in (tracks.first, tracks.last, tracks.began, tracks.ended))
    final = np.full(len(tracks.seen), -1)
    final[good] = stitch(Tracklets(first, last, began, ended, tracks.radius, tracks.step))
    return np.where(numbers >= 0, final[numbers], -1)


def _begun(poses: Poses) -> _Tracks:
    """No tracks yet; how the animals move and how large they are, from sure successions of poses."""
    known = ~poses.missing
    count = np.maximum(known.sum(axis=2), 1)[..., None]
    filled = np.where(known[..., None], poses.points, 0.0)
    spread = ((filled - (filled.sum(axis=2) / count)[:, :, None]) ** 2).sum(axis=-1)
    radius = float(np.sqrt(spread[known].mean()))
    blocks = np.unique(np.linspace(0, max(len(poses.frame) - _BLOCK, 0), _BLOCKS).astype(int))
    points = np.concatenate([_series(poses.points[begin : begin + _BLOCK]) for begin in blocks], axis=1)
    steps = np.diff(points, axis=0)
    steps = steps[np.isfinite(steps)]
    step_rms = float(np.sqrt((steps**2).mean())) if len(steps) else radius
    least = _LEAST**2 * (radius**2 or step_rms**2 or 1.0)
    motion = estimate_motion(points)
    motion = Motion(np.maximum(motion.acceleration, least), motion.walk, np.maximum(motion.measurement, least))
    K, D = poses.shape[2:]
    empty = np.zeros((0, K, 2 * D)), np.zeros((0, K, 2 * D, 2 * D))
    return _Tracks(motion, radius, max(step_rms, least**0.5), least, *empty)


def _series(points: Array) -> Array:
    """Poses (frames, slots, K, D) -> (frames, chains, K, D): each slot of the first frame followed while it is sure."""
    series = np.full(points.shape, np.nan)
    series[0] = points[0]
    slot = np.arange(points.shape[1])
    for f in range(1, len(points)):
        slot = np.where(slot >= 0, _successors(points[f - 1], points[f])[slot], -1)
        series[f, slot >= 0] = points[f, slot[slot >= 0]]
    return series


def _successors(before: Array, after: Array) -> Array:
    """(n,) the pose of `after` (m, K, D) that each of `before` (n, K, D) surely became, -1 = unsure."""
    apart = np.linalg.norm(before[:, None] - after, axis=-1)
    common = ~np.isnan(apart)
    mean = np.where(
        common.any(axis=-1), np.where(common, apart, 0.0).sum(axis=-1) / np.maximum(common.sum(axis=-1), 1), np.inf
    )
    n = len(mean)
    nearest = mean.argmin(axis=1)
    least = mean[np.arange(n), nearest]
    row, column = mean.copy(), mean[:, nearest].T.copy()
    row[np.arange(n), nearest] = np.inf
    column[np.arange(n), np.arange(n)] = np.inf
    sure = np.isfinite(least) & (row.min(axis=1) >= _CLEAR * least) & (column.min(axis=1) >= _CLEAR * least)
    return np.where(sure, nearest, -1)


@njit(cache=True, error_model="numpy")
def _costs(mean, covariance, points, noise, gate, usual):  # type: ignore[no-untyped-def]
    """Cost (T, n) of a pose being a track's next: mean over common keypoints of (d^2 / v + D log(max(v / usual, 1))) /
    gate.

    d is the innovation, v its variance per coordinate, usual (K,) that of a track that has just begun; a keypoint
    counts at most `_WORST`. Without common keypoints infinite.
    """
    T, K = mean.shape[:2]
    n, D = len(points), points.shape[2]
    cost = np.full((T, n), np.inf)
    for t in range(T):
        for i in range(n):
            total, count = 0.0, 0
            for k in range(K):
                squared, variance = 0.0, 0.0
                for a in range(D):
                    squared += (points[i, k, a] - mean[t, k, a]) ** 2
                    variance += (covariance[t, k, a, a] + noise[i, k, a, a]) / D
                if not np.isnan(squared):
                    total += min((squared / variance + D * np.log(max(variance / usual[k], 1.0))) / gate, _WORST)
                    count += 1
            if count:
                cost[t, i] = total / count
    return cost
