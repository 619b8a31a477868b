"""How sure is it who is who? The probability of an exchange in each frame, the moments that are worth a look, what they
mean for all other frames, and what somebody who looked has corrected.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from calibration.errors import InputError
from pose3d.poses import GROUP_ARRAYS, Groups

__all__ = ["Swap", "exchange_probability", "identity_confidence", "suspected_swaps", "swapped"]

Array = NDArray[Any]

_WORTH = 3.0
"""Independent keypoints that an animal's keypoints are worth: they err together when it turns or is taken for two."""
_WORST = 27.0
"""Squared distance, in variances, as which a keypoint counts at most."""
_COMMON = 3
"""Keypoints that must be comparable."""
_LEAST = 0.01
"""Probability below which an exchange is not worth a look."""
_ONE_MOMENT = 5
"""Frames between two doubts about the same individuals from which they are two moments."""


@dataclass(frozen=True)
class Swap:
    """From row `row` of the frames axis on, individual `first` may be called `second` and the other way round.

    probability: of that. cost: frames, of both, that would bear the wrong name, times the probability.
    """

    row: int
    first: int
    second: int
    probability: float = 1.0
    cost: float = float("nan")


def exchange_probability(
    mean: Array, covariance: Array, points: Array, spread: Array, known: Array
) -> tuple[Array, Array]:
    """(T,) how probable it is that what was taken for an individual is another, and (T,) which other, -1 = none.

    mean (T, K, 6), covariance (T, K, 6, 6): of `kalman`, predicted; points (T, K, 3), spread (T, K, 3, 3): measured for
    each, NaN where not; known (T,): individuals sure enough to be somebody's rival. Where both were measured the two
    assignments are compared, otherwise the two whose measurement the one may be, by the likelihood of its keypoints
    under normal predictions, as if `_WORTH` of them were independent.
    """
    cost = _costs(
        mean[..., :3],
        np.trace(covariance[..., :3, :3], axis1=-2, axis2=-1) / 3.0,
        points,
        np.trace(spread, axis1=-2, axis2=-1) / 3.0,
    )
    own = np.einsum("iik->ik", cost)
    here = np.asarray(~np.isnan(points[..., 0]).all(axis=1))
    against = cost.transpose(1, 0, 2) - own[:, None]  # [i, j]: what was taken for i is j
    both = (here[:, None] & here)[..., None]
    pooled = np.concatenate([against, np.where(both, against.swapaxes(0, 1), np.nan)], axis=2)
    usable = ~np.isnan(pooled)
    count = usable.sum(axis=2)
    average = np.where(usable, pooled, 0.0).sum(axis=2) / np.maximum(count, 1)
    ratio = 0.5 * _WORTH * average * np.where(both[..., 0], 2.0, 1.0)
    probability = 1.0 / (1.0 + np.exp(np.clip(ratio, -50.0, 50.0)))
    allowed = (count >= _COMMON) & here[:, None] & known[:, None] & known & ~np.eye(len(mean), dtype=bool)
    probability = np.where(allowed, probability, 0.0)
    if not len(mean):
        return np.zeros(0), np.zeros(0, dtype=np.intp)
    rival = probability.argmax(axis=1)
    most = probability[np.arange(len(mean)), rival]
    return most, np.where(most > 0, rival, -1)


def suspected_swaps(windows: Iterable[Groups]) -> list[Swap]:
    """The moments at which two individuals may have been exchanged, the dearest first.

    windows: a recording's Groups as `identify` makes them, whole or in consecutive windows; group g is identity g. An
    exchange costs the frames of the two on the side of the moment where they have fewer, times its probability. Doubts
    about the same two that follow each other closely are one moment, the most probable.
    """
    doubts: list[tuple[int, int, int, float]] = []
    seen: list[Array] = []
    for groups in windows:
        begin = sum(len(part) for part in seen)
        row, who = np.nonzero((groups.doubt >= _LEAST) & (groups.rival >= 0))
        other, doubt = groups.rival[row, who], groups.doubt[row, who]
        low, high = np.minimum(who, other), np.maximum(who, other)
        doubts += zip(low.tolist(), high.tolist(), (begin + row).tolist(), doubt.tolist(), strict=True)
        seen.append(groups.ids >= 0)
    if not doubts:
        return []
    moments: list[tuple[int, int, int, int, float]] = []  # first, second, last row, row of the most probable, of which
    for a, b, at, p in sorted(doubts):
        last = moments[-1] if moments else (-1, -1, 0, 0, 0.0)
        if last[:2] == (a, b) and at - last[2] <= _ONE_MOMENT:
            moments[-1] = (a, b, at, *((at, p) if p > last[4] else last[3:]))
        else:
            moments.append((a, b, at, at, p))
    before = np.cumsum(np.concatenate(seen), axis=0)
    swaps = []
    for a, b, _, at, p in moments:
        early = before[at - 1, [a, b]].sum() if at else 0
        swaps.append(Swap(at, a, b, p, p * min(int(early), int(before[-1, [a, b]].sum() - early))))
    return sorted(swaps, key=lambda swap: (-swap.cost, swap.row, swap.first, swap.second))


def identity_confidence(groups: Groups) -> Array:
    """(frames, groups) probability that who is called i in a frame is who is called i most of the time, NaN where
    nobody is.

    groups: of `identify`, whole. Each moment of `suspected_swaps` is passed unharmed with 1 - its probability. The
    individual is who it is in the frame from which most frames are reached unharmed.
    """
    swaps, confidence = suspected_swaps([groups]), np.full(groups.ids.shape, np.nan)
    for identity in range(groups.ids.shape[1]):
        loss = np.zeros(len(groups.ids))
        for swap in swaps:
            if identity in (swap.first, swap.second):
                loss[swap.row] -= np.log(max(1.0 - swap.probability, 1e-12))
        passed, here = np.cumsum(loss), groups.ids[:, identity] >= 0
        levels, frames = np.unique(passed[here], return_counts=True)
        if len(levels):
            reached = np.exp(-np.abs(levels[:, None] - levels)) @ frames
            confidence[here, identity] = np.exp(-np.abs(passed[here] - levels[reached.argmax()]))
    return confidence


def swapped(groups: Groups, swaps: Iterable[Swap]) -> Groups:
    """The groups, group g being identity g, with individuals exchanged in all views from rows on, in the order of time;
    what was doubtful about the two just then no longer is.

    Of a window of a recording: rows count from the window's first, also below 0. Raises InputError for an individual
    that does not exist.
    """
    count = groups.ids.shape[1]
    arrays = {name: getattr(groups, name).copy() for name in GROUP_ARRAYS}
    for swap in sorted(swaps, key=lambda swap: swap.row):
        pair, other = [swap.first, swap.second], [swap.second, swap.first]
        if min(pair) < 0 or max(pair) >= count or swap.first == swap.second:
            raise InputError(
                f"corrections.csv: individuals {swap.first} and {swap.second}: expected two of 0 to {count - 1}"
            )
        later = slice(max(swap.row, 0), None)
        for array in arrays.values():
            array[later, pair] = array[later, other]
        named = arrays["rival"][later]
        arrays["rival"][later] = np.select([named == swap.first, named == swap.second], other, named)
        near = slice(max(swap.row - _ONE_MOMENT, 0), max(swap.row + _ONE_MOMENT + 1, 0))
        settled = arrays["rival"][near, pair] == other
        arrays["doubt"][near, pair] = np.where(settled, 0.0, arrays["doubt"][near, pair])
        arrays["rival"][near, pair] = np.where(settled, -1, arrays["rival"][near, pair])
    seen = (arrays["slots"] >= 0).any(axis=2)
    return Groups(groups.view_names, **arrays | {"ids": np.where(seen, np.arange(count), -1)})


@njit(cache=True, error_model="numpy")
def _costs(mean, variance, points, spread):  # type: ignore[no-untyped-def]
    """(T, n, K) minus twice the log likelihood of points (n, K, 3) under predictions mean (T, K, 3), up to a constant:
    d^2 / v + 3 log v; variance (T, K) and spread (n, K) per coordinate; NaN where either is missing."""
    T, n, K = len(mean), len(points), points.shape[1]
    cost = np.full((T, n, K), np.nan)
    for t in range(T):
        for i in range(n):
            for k in range(K):
                squared = 0.0
                for a in range(3):
                    squared += (points[i, k, a] - mean[t, k, a]) ** 2
                v = max(variance[t, k] + spread[i, k], 1e-12)
                if not np.isnan(squared) and not np.isnan(v):
                    cost[t, i, k] = min(squared / v, _WORST) + 3.0 * np.log(v)
    return cost
