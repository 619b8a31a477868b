"""By how many whole frames is one camera late? From each camera's own view of the board, whatever the rig says.

Two cameras that do not move see one rigid motion: some pose of one to the other maps every board that the first sees to
what the second sees, if both look at the same moment. The shift of one recording that makes this true is its delay.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from calibration.board import BoardDetections
from calibration.camera import Intrinsics
from calibration.planar import BoardViews, board_views
from calibration.transforms import apply, similarity

__all__ = ["Pairs", "odd_ones_out", "pair_delay", "pair_delays", "whole_delays"]

Array = NDArray[np.float64]
Pairs = dict[tuple[int, int], tuple[int | None, float]]
"""Of two views: the delay of the second, None where it is not clear, and px by which boards disagree as they are."""

MOST_SHIFT, LEAST_COMMON = 60, 10
"""Frames tried either way, and boards that both cameras must then see."""
LEAST_PX, CLEARLY = 3.0, 0.2
"""Boards that disagree by less are in step. A delay is clear where they then disagree by no more than this share of
what they do with most delays, and of how far the board travels in the image; and by half of what they do without."""
ROUNDS = 5


def pair_delays(detections: BoardDetections, intrinsics: Sequence[Intrinsics]) -> Pairs:
    """`pair_delay` of all pairs of views. intrinsics: of the views in order, roughly."""
    names = detections.view_names
    views = [board_views(detections, name, lens) for name, lens in zip(names, intrinsics, strict=True)]
    ends = np.stack([b.sides[0].object_points[[0, -1, b.columns - 2, 1 - b.columns]] for b in detections.boards])
    return {
        (a, b): pair_delay(views[a], views[b], ends, float(intrinsics[b].parameters[:2].mean()))
        for a, b in combinations(range(len(names)), 2)
    }


def whole_delays(pairs: Pairs, views: int) -> NDArray[np.int64]:
    """(views,) frames by which each camera is late, 0 for most; by pairs of cameras, the most common delay being 0."""
    later: dict[tuple[int, int], int] = {}
    for (a, b), (shift, _) in pairs.items():
        if shift is not None:
            later[a, b], later[b, a] = shift, -shift
    delay = np.zeros(views, dtype=np.int64)
    for _ in range(views):
        for v in range(views):
            votes = [delay[u] + later[u, v] for u in range(views) if (u, v) in later]
            if votes:
                values, counts = np.unique(votes, return_counts=True)
                delay[v] = values[np.argmax(counts)]
    values, counts = np.unique(delay, return_counts=True)
    return delay - values[np.argmax(counts)] if counts.max() > 1 else delay - delay[0]


def odd_ones_out(pairs: Pairs, views: int) -> tuple[int, ...]:
    """The view that agrees with no other one at any delay, while these agree with each other; both of two views that do
    not agree; else none."""
    apart = {pair for pair, (shift, px) in pairs.items() if shift is None and px >= LEAST_PX}
    agree = {pair for pair, (_, px) in pairs.items() if px < LEAST_PX}
    odd = tuple(v for v in range(views) if any(v in p for p in apart) and not any(v in p for p in agree))
    return odd if len(odd) == (2 if views == 2 else 1) and all(set(pair) & set(odd) for pair in apart) else ()


def pair_delay(a: BoardViews, b: BoardViews, ends: Array, focal: float) -> tuple[int | None, float]:
    """Frames by which b is late against a; 0 where they agree; None where too few boards are common or nothing is
    clear. And px by which boards disagree without a delay, NaN where too few are common. ends: (boards, n, 3) points
    that stand for each board. focal: px, of b."""
    frames = len(a.error)
    most = min(MOST_SHIFT, frames // 2)
    costs, travels = {}, {}
    for shift in range(-most, most + 1):
        rows = np.arange(max(0, -shift), min(frames, frames - shift))
        both, board = np.nonzero(np.isfinite(a.error[rows, :, 0]) & np.isfinite(b.error[rows + shift, :, 0]))
        rows = rows[both]
        if len(rows) >= LEAST_COMMON:
            source = apply(a.R[rows, board, 0], a.t[rows, board, 0], ends[board])
            target = apply(b.R[rows + shift, board, 0], b.t[rows + shift, board, 0], ends[board])
            costs[shift] = focal * _apart(source, target)
            travels[shift] = focal * float(np.median(_angle(target, target.mean(axis=0)).max(axis=1)))
    now = costs.get(0, float("nan"))
    if now < LEAST_PX:
        return 0, now
    if not costs:
        return None, now
    best = min(costs, key=lambda shift: (costs[shift], abs(shift)))
    ordinary = min(float(np.median(list(costs.values()))), travels[best])
    return best if costs[best] < min(CLEARLY * ordinary, 0.5 * costs.get(0, np.inf)) else None, now


def _apart(source: Array, target: Array) -> float:
    """rad, median angle at which points (frames, n, 3) are seen from where the best motion of the others puts them."""
    weight = np.ones(len(source))
    apart = np.zeros(len(source))
    n = source.shape[1]
    for _ in range(ROUNDS):
        _, R, _ = similarity(source.reshape(-1, 3), target.reshape(-1, 3), np.repeat(weight, n))
        t = np.average((target - source @ R.T).reshape(-1, 3), axis=0, weights=np.repeat(weight, n))
        apart = _angle(source @ R.T + t, target).max(axis=1)
        weight = 1.0 / (1.0 + (apart / max(float(np.median(apart)), 1e-12)) ** 2)
    return float(np.median(apart))


def _angle(a: Array, b: Array) -> Array:
    """rad, between the directions of points (..., 3)."""
    cosine = (a * b).sum(axis=-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
    return np.asarray(np.arccos(np.clip(cosine, -1.0, 1.0)))
