"""What is known of the individuals after some frames? The state that `identity` carries from frame to frame, and how it
learns.

Nothing is set by hand: how fast the animals move, how unsteadily, how large they are and how noisy the 2D keypoints are
relative to their size is counted as the frames go by, beginning with a guess that weighs little.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from pose3d.kalman import Motion, adapted, start, update

__all__ = [
    "CONFIRM",
    "IdentityState",
    "born",
    "buried",
    "corrected",
    "counted",
    "initial_state",
    "learned",
    "motion",
    "noise",
    "radius_3d",
    "state_from_arrays",
    "state_to_arrays",
    "step_rms",
    "together",
]

Array = NDArray[Any]

CONFIRM = 3
"""Frames in which an individual must have been seen before it is believed."""
_SPARE = 10
"""Frames for which a track is kept that is one more than there are individuals."""
_LOST = 1.0
"""Standard deviation of a predicted keypoint, in radii of the animal, beyond which it is forgotten."""
_LIMIT = float(chi2.ppf(0.99, 3))
"""Squared Mahalanobis distance of a measured 3D keypoint beyond which it counts less."""
_CLIP = 6.0
"""Steps count as at most this many times their rms so far: a wrong link must not set it."""
_GUESS_COUNT, _GUESS_STEP, _GUESS_ACCELERATION = 30.0, 0.3, 0.1
"""Rms of the step per frame and of its change, in radii, until it has been seen; the guess weighs as many
coordinates."""
_UNSTEADY_RANGE = (1e-4, 1e4)
_GUESS_NOISE = 0.1
"""2D noise relative to the detections' size that is assumed at first; weighs `_GUESS_COUNT` distances."""
_NOISE_RANGE = (0.01, 0.2)
_LATELY, _SHARE = 1000.0, 0.1
"""As many individuals are there as are seen at once in this share of about so many frames."""
_BINS = np.geomspace(1e-4, 10.0, 401)
"""Edges of the histogram of 2D distances relative to size."""


@dataclass(frozen=True, eq=False)
class IdentityState:
    """All that is known after some frames; T live tracks, S tracks ever, K keypoints; rig's unit, time in frames.

    frames: () frames handled. live: (T,) track numbers. missed: (T,) frames since each was last seen.
    mean: (T, K, 6), covariance: (T, K, 6, 6) of `kalman`, NaN for keypoints never seen. recent: (T, K, 3) positions
    measured in the last frame, NaN where missing. steps: (2, K) sum and count of squared first differences.
    unsteady: (K,) variance of the acceleration, in guesses of it. histogram: (bins,) of 2D distances relative to size.
    radius: (2,) sum and count of the animals' rms radii. at_once: (n,) lately, in how many frames at least 0, 1, ...
    individuals were seen for sure by the frame alone.
    By track number: first, last: (S,) frames handled before it was seen first and last; seen: (S,) in how many frames;
    began: (S, K, 3) its first position; ended: (S, K, 6) its last state.
    """

    frames: Array
    live: Array
    missed: Array
    mean: Array
    covariance: Array
    recent: Array
    steps: Array
    unsteady: Array
    histogram: Array
    radius: Array
    at_once: Array
    first: Array
    last: Array
    seen: Array
    began: Array
    ended: Array


def initial_state(keypoints: int) -> IdentityState:
    """The state before the first frame."""
    none = np.zeros(0, dtype=np.int64)
    return IdentityState(
        frames=np.zeros((), dtype=np.int64),
        live=none,
        missed=none,
        mean=np.zeros((0, keypoints, 6)),
        covariance=np.zeros((0, keypoints, 6, 6)),
        recent=np.zeros((0, keypoints, 3)),
        steps=np.zeros((2, keypoints)),
        unsteady=np.ones(keypoints),
        histogram=np.zeros(len(_BINS) - 1),
        radius=np.zeros(2),
        at_once=np.zeros(1),
        first=none,
        last=none,
        seen=none,
        began=np.zeros((0, keypoints, 3)),
        ended=np.zeros((0, keypoints, 6)),
    )


def state_to_arrays(state: IdentityState) -> dict[str, Array]:
    """The state as named arrays, to be saved; `state_from_arrays` is the inverse."""
    return {field.name: np.asarray(getattr(state, field.name)) for field in fields(state)}


def state_from_arrays(arrays: Mapping[str, Array]) -> IdentityState:
    """The state that `state_to_arrays` took apart."""
    return IdentityState(**{field.name: np.asarray(arrays[field.name]) for field in fields(IdentityState)})


def radius_3d(state: IdentityState) -> float:
    """Mean rms radius of the animals seen so far, in the rig's unit; infinite before any."""
    return float(state.radius[0] / state.radius[1]) if state.radius[1] > 0 else float("inf")


def noise(state: IdentityState) -> float:
    """SD of 2D keypoints relative to the size of their detection: the median of the distances counted, / 0.6745."""
    middle = np.sqrt(_BINS[1:] * _BINS[:-1])
    counts = state.histogram.copy()
    counts[np.searchsorted(_BINS, 0.6745 * _GUESS_NOISE) - 1] += _GUESS_COUNT
    total = np.cumsum(counts)
    median = middle[np.searchsorted(total, total[-1] / 2)]
    return float(np.clip(median / 0.6745, *_NOISE_RANGE))


def motion(state: IdentityState) -> Motion:
    """How each keypoint (K,) moves per frame, as far as the innovations have told."""
    if state.radius[1] == 0:
        return Motion(0.0, 0.0, 0.0)
    return Motion(state.unsteady * (_GUESS_ACCELERATION * radius_3d(state)) ** 2, 0.0, 0.0)


def step_rms(state: IdentityState) -> Array:
    """(K,) rms of what a coordinate of each keypoint moves per frame, in the rig's unit."""
    guess = (_GUESS_STEP * radius_3d(state)) ** 2
    return np.asarray(np.sqrt((state.steps[0] + _GUESS_COUNT * guess) / (state.steps[1] + _GUESS_COUNT)))


def together(state: IdentityState) -> int:
    """How many individuals were seen at once in at least `_SHARE` of the frames, lately; 0 = none, or too few frames to
    say."""
    if state.at_once[0] < _GUESS_COUNT:
        return 0
    return int((state.at_once[1:] >= _SHARE * state.at_once[0]).sum())


def counted(state: IdentityState, n: int) -> IdentityState:
    """After a frame in which n individuals were seen for sure, whoever they are."""
    at_once = np.zeros(max(len(state.at_once), n + 1))
    at_once[: len(state.at_once)] = state.at_once * (1.0 - 1.0 / _LATELY)
    at_once[: n + 1] += 1.0
    return replace(state, at_once=at_once)


def learned(state: IdentityState, points: Array, distances: Array) -> IdentityState:
    """Counts of one frame added: measured positions (T or more, K, 3) of the live tracks, then of new ones, and 2D
    distances relative to size (any shape, NaN = none)."""
    known = distances[np.isfinite(distances)]
    histogram = state.histogram + np.histogram(np.clip(known, _BINS[0], _BINS[-1]), _BINS)[0]
    spread = points - _nanmean(points, axis=1)[:, None]
    size = np.sqrt(_nanmean((spread**2).sum(axis=-1), axis=1))
    size = size[np.isfinite(size) & (size > 0)]
    radius = state.radius + np.array([size.sum(), len(size)])
    state = replace(state, histogram=histogram, radius=radius)
    now = points[: len(state.live)]
    limit = _CLIP * step_rms(state)[:, None]
    squared = np.clip(now - state.recent, -limit, limit) ** 2
    both = np.isfinite(squared)
    steps = state.steps + np.stack([np.where(both, squared, 0.0).sum(axis=(0, 2)), both.sum(axis=(0, 2))])
    return replace(state, steps=steps, recent=now)


def born(state: IdentityState, points: Array) -> IdentityState:
    """New live tracks at points (n, K, 3), their states still empty (NaN) and never seen."""
    n, keypoints = points.shape[:2]
    number = len(state.seen) + np.arange(n)
    empty = np.full((n, keypoints, 6), np.nan)
    return replace(
        state,
        live=np.r_[state.live, number],
        missed=np.r_[state.missed, np.zeros(n, dtype=np.int64)],
        mean=np.concatenate([state.mean, empty]),
        covariance=np.concatenate([state.covariance, np.full((n, keypoints, 6, 6), np.nan)]),
        recent=np.concatenate([state.recent, points]),
        first=np.r_[state.first, np.full(n, state.frames)],
        last=np.r_[state.last, np.full(n, state.frames)],
        seen=np.r_[state.seen, np.zeros(n, dtype=np.int64)],
        began=np.concatenate([state.began, points]),
        ended=np.concatenate([state.ended, empty]),
    )


def corrected(state: IdentityState, points: Array, spread: Array) -> IdentityState:
    """The frame's measurements taken in: points (T, K, 3), covariance spread (T, K, 3, 3), NaN where not measured.

    A track without any point was not seen. A keypoint seen for the first time starts at the mean velocity of its
    animal.
    """
    mean, covariance, distance = update(state.mean, state.covariance, points, spread, _LIMIT)
    unsteady = adapted(state.unsteady, distance, 3, _UNSTEADY_RANGE)
    fresh = np.isnan(mean[..., 0]) & ~np.isnan(points[..., 0])
    first_mean, first_covariance = start(points, spread, step_rms(state) ** 2)
    carried = np.nan_to_num(_nanmean(mean[..., 3:], axis=1))
    first_mean[..., 3:] += carried[:, None]
    mean[fresh], covariance[fresh] = first_mean[fresh], first_covariance[fresh]
    here = ~np.isnan(points[..., 0]).all(axis=1)
    last, seen, ended = state.last.copy(), state.seen.copy(), state.ended.copy()
    now = state.live[here]
    last[now], ended[now] = state.frames, mean[here]
    seen[now] += 1
    missed = np.where(here, 0, state.missed + 1)
    return replace(
        state, mean=mean, covariance=covariance, unsteady=unsteady, last=last, seen=seen, ended=ended, missed=missed
    )


def buried(state: IdentityState, max_gap: int, individuals: int | None = None) -> IdentityState:
    """The end of a frame: keypoints that could be anywhere are forgotten, and tracks that were not seen for more than
    max_gap frames, or for more than one while not yet confirmed; sooner where all individuals are seen without them:
    another track has taken over theirs, and they should not come back as somebody's else."""
    sd = np.sqrt(np.trace(state.covariance[..., :3, :3], axis1=-2, axis2=-1) / 3.0)
    lost = ~(sd <= _LOST * radius_3d(state))
    mean = np.where(lost[..., None], np.nan, state.mean)
    covariance = np.where(lost[..., None, None], np.nan, state.covariance)
    confirmed = state.seen[state.live] >= CONFIRM
    spare = individuals is not None and (confirmed & (state.missed == 0)).sum() >= individuals
    patience = np.where(confirmed, min(max_gap, _SPARE) if spare else max_gap, 1)
    stay = state.missed <= patience
    return replace(
        state,
        frames=state.frames + 1,
        live=state.live[stay],
        missed=state.missed[stay],
        mean=mean[stay],
        covariance=covariance[stay],
        recent=state.recent[stay],
    )


def _nanmean(values: Array, axis: int) -> Array:
    """Mean of the values that are known, NaN where none is."""
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    return np.where(count > 0, np.where(known, values, 0.0).sum(axis=axis) / np.maximum(count, 1), np.nan)
