"""What do pixels, smoothness and bones say about the path of one individual? Its data, and the normal equations of a
path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from calibration.normal_equations import point_equations
from calibration.rig import CameraRig, Packed
from calibration.solver import LOSSES, BandedSystem, robust
from pose3d.poses import Groups, Poses

__all__ = [
    "GATE",
    "Terms",
    "Track",
    "bridged",
    "data_equations",
    "filled",
    "gather",
    "path_equations",
    "with_prior",
    "without_strays",
]

Floats = NDArray[np.float64]

GATE = 5.0
"""Pixels this many sigma from the projection count nothing (Tukey's biweight)."""
STRAY = 10.0
ROUNDING = 1e-9
"""Share of the coordinates that is no distance: motion on a straight line has none but rounding errors."""
CAUCHY = LOSSES.index("cauchy")
RIDGE = 1e-10
"""Share added to the diagonal: keeps the equations solvable where all pixels of a stretch were gated away, or where the
smoothing is all but a straight line."""


@dataclass(frozen=True, eq=False)
class Track:
    """One individual over a stretch of frames.

    frame (T,) numbers; xy (V, T, K, 2) px, NaN = unseen, views in the rig's order; information (V, T, K, 3): xx, xy,
    yy of the inverse 2D covariance; points (T, K, 3) where triangulated, else NaN; alive (T, K): triangulated, or in a
    gap that is bridged; spacing (T, 3): weights of the second difference about each frame, 0 where there is none.
    """

    frame: NDArray[np.int64]
    xy: Floats
    information: Floats
    points: Floats
    alive: NDArray[np.bool_]
    spacing: Floats

    def with_noise(self, noise: Floats) -> Track:
        """The information divided by noise (K,) squared."""
        return replace(self, information=self.information / noise[:, None] ** 2)


@dataclass(frozen=True, eq=False)
class Terms:
    """The prior on n keypoints that hang together: acceleration (n,), spread of each coordinate's second difference;
    bones (b, 2) within the set with length and spread (b,). burst: second differences beyond this many times the
    acceleration count less and less (Cauchy's loss), inf = never: animals start and stop."""

    keypoints: NDArray[np.intp]
    acceleration: Floats
    bones: NDArray[np.int64]
    length: Floats
    spread: Floats
    burst: float = np.inf


def gather(
    poses: Poses, views: Mapping[str, Poses], groups: Groups, rig: CameraRig, identity: int, max_gap: int
) -> Track:
    """The pixels and points of one identity; views and rig are matched by name.

    information: of the views' 2D covariances, else score squared, for noise of 1 px at score 1. A score of 0 counts as
    unseen.
    """
    frames, _, keypoints, _ = poses.shape
    rows = np.arange(frames)
    mine = groups.ids == identity
    slot = np.where(mine.any(axis=1)[:, None], groups.slots[rows, mine.argmax(axis=1)], -1)
    xy = np.full((len(rig), frames, keypoints, 2), np.nan)
    information = np.zeros((len(rig), frames, keypoints, 3))
    for v, name in enumerate(rig.names):
        if name not in views or name not in groups.view_names:
            continue
        column = slot[:, groups.view_names.index(name)]
        seen = np.flatnonzero(column >= 0)
        view = views[name]
        information[v, seen] = _information(view, seen, column[seen])
        usable = information[v, seen, :, 0] > 0
        xy[v, seen] = np.where(usable[..., None], view.points[seen, column[seen]], np.nan)
    here = poses.ids == identity
    points = np.full((frames, keypoints, 3), np.nan)
    present = here.any(axis=1)
    points[present] = poses.points[present, here.argmax(axis=1)[present]]
    return Track(
        poses.frame,
        xy,
        information,
        points,
        bridged(np.isfinite(points[..., 0]), poses.frame, max_gap),
        _spacing(poses.frame, max_gap),
    )


def _information(view: Poses, rows: NDArray[np.intp], slots: NDArray[np.intp]) -> Floats:
    """(n, K, 3): inverse 2D covariances where the view has them, else the squared scores (the same in both
    directions)."""
    if "covariance" in view.extras:
        cov = view.extras["covariance"][rows, slots]
        xx, xy, yy = cov[..., 0, 0], cov[..., 0, 1], cov[..., 1, 1]
        determinant = xx * yy - xy * xy
        return np.nan_to_num(
            np.stack((yy, -xy, xx), axis=-1) / np.where(determinant > 0, determinant, np.inf)[..., None]
        )
    weight = view.score[rows, slots] ** 2
    return np.stack((weight, np.zeros_like(weight), weight), axis=-1)


def bridged(measured: NDArray[np.bool_], frame: NDArray[np.int64], max_gap: int) -> NDArray[np.bool_]:
    """(T, K): measured (T, K), or at most max_gap frames without lie between two measured ones."""
    number = np.broadcast_to(frame[:, None], measured.shape)
    never = np.iinfo(np.int64).max // 4
    before = np.maximum.accumulate(np.where(measured, number, -never), axis=0)
    after = np.minimum.accumulate(np.where(measured, number, never)[::-1], axis=0)[::-1]
    return measured | (after - before - 1 <= max_gap)


def _spacing(frame: NDArray[np.int64], max_gap: int) -> Floats:
    """(T, 3): weights of the frames t - 1, t, t + 1 in the second difference: 1, -2, 1 where the frames are neighbours.

    With steps h and k: the change of slope (1/h, -1/h - 1/k, 1/k), over the root of the mean step, as white
    acceleration makes it. Zero at the ends and across steps of more than max_gap missing frames.
    """
    out = np.zeros((len(frame), 3))
    if len(frame) > 2:
        h, k = np.diff(frame)[:-1].astype(float), np.diff(frame)[1:].astype(float)
        slope = np.stack((1 / h, -1 / h - 1 / k, 1 / k), axis=1) / np.sqrt((h + k) / 2)[:, None]
        out[1:-1] = np.where((np.maximum(h, k) - 1 <= max_gap)[:, None], slope, 0.0)
    return out


def filled(track: Track) -> Floats:
    """The starting points (T, K, 3): triangulated ones, straight lines across bridged gaps, 0 elsewhere."""
    out = np.zeros_like(track.points)
    for k in range(out.shape[1]):
        measured = np.isfinite(track.points[:, k, 0])
        if measured.any():
            for c in range(3):
                out[:, k, c] = np.interp(track.frame, track.frame[measured], track.points[measured, k, c])
    return out


def without_strays(track: Track, rig: Packed, max_gap: int) -> Track:
    """The track without triangulated points that fewer than three views agree on and that stand far from their
    neighbours in time: further from the median of the seven frames about them than STRAY times such a distance usually
    is. So far they must be from where the frames lie, and from where they lie once the window's velocity is taken out:
    in a window that is cut short by a track's end, the median of a moving animal lies behind or before it."""
    everything = np.arange(track.points.shape[1])
    squared = data_equations(track, rig, track.points, everything)[3]
    around = _windows(track.points)
    time = _windows(track.frame[:, None, None].astype(np.float64)) - track.frame[:, None, None, None]
    velocity = np.nan_to_num(_lower_median(np.diff(around) / np.diff(time)))
    stray = (squared < GATE**2).sum(axis=0) < 3
    rounding = ROUNDING * np.abs(np.nan_to_num(track.points)).max(initial=0.0)
    for places in (around, around - velocity[..., None] * time):
        apart = np.linalg.norm(track.points - _lower_median(places), axis=-1)
        usual = np.array([np.median(d[np.isfinite(d)]) if np.isfinite(d).any() else 0.0 for d in apart.T])
        stray &= apart > STRAY * usual + rounding
    points = np.where(stray[..., None], np.nan, track.points)
    return replace(track, points=points, alive=bridged(np.isfinite(points[..., 0]), track.frame, max_gap))


def _windows(values: Floats) -> Floats:
    """(T, ..., 7): the values (T, ...) of the seven frames about each, NaN beyond the ends."""
    padded = np.pad(values, ((3, 3), *((0, 0),) * (values.ndim - 1)), constant_values=np.nan)
    return np.lib.stride_tricks.sliding_window_view(padded, 7, axis=0)


def _lower_median(values: Floats) -> Floats:
    """The median along the last axis of what is not NaN, the lower one of two; NaN of nothing."""
    middle = (np.isfinite(values).sum(axis=-1, keepdims=True) - 1).clip(0) // 2
    return np.asarray(np.take_along_axis(np.sort(values, axis=-1), middle, axis=-1)[..., 0])  # NaN last


def data_equations(
    track: Track, rig: Packed, points: Floats, keypoints: NDArray[np.intp], loss: str = "tukey"
) -> tuple[float, Floats, Floats, Floats]:
    """Cost, H (T, n, 3, 3), g (T, n, 3) and squared (V, T, n) of the pixels of these keypoints at points (T, n, 3).

    squared: of each pixel's distance from the projection over its noise; NaN = unseen.
    """
    views, frames, n = len(track.xy), *points.shape[:2]
    H, g, squared = np.zeros((frames * n, 3, 3)), np.zeros((frames * n, 3)), np.empty((views, frames * n))
    cost = point_equations(
        rig.R, rig.t, rig.parameters, rig.model, np.ascontiguousarray(points).reshape(-1, 3),
        np.ascontiguousarray(track.xy[:, :, keypoints]).reshape(views, -1, 2),
        np.ascontiguousarray(track.information[:, :, keypoints]).reshape(views, -1, 3),
        LOSSES.index(loss), GATE, H, g, squared,
    )  # fmt: skip
    return cost, H.reshape(frames, n, 3, 3), g.reshape(frames, n, 3), squared.reshape(views, frames, n)


def path_equations(track: Track, rig: Packed, points: Floats, terms: Terms) -> tuple[float, BandedSystem]:
    """Half the sum of squares of all terms at points (T, n, 3), and its normal equations.

    Terms: pixels over their noise (robust), second differences over `acceleration` (robust), lengths of bones less
    `length` over `spread`.
    """
    cost, H, g, _ = data_equations(track, rig, points, terms.keypoints)
    prior, system = with_prior(track, points, H, g, terms)
    return cost + prior, system


def with_prior(track: Track, points: Floats, H: Floats, g: Floats, terms: Terms) -> tuple[float, BandedSystem]:
    """The prior's cost at points (T, n, 3), and the normal equations of H (T, n, 3, 3), g (T, n, 3) and prior together.

    Unknowns in the order frame, keypoint, coordinate; those that are not alive are held.
    """
    frames, n = points.shape[:2]
    alive = np.ascontiguousarray(track.alive[:, terms.keypoints])
    bands, gradient = np.zeros((3 * frames * n, 6 * n + 1)), np.zeros((frames, n, 3))
    cost = _assemble(
        np.ascontiguousarray(points), alive, np.ascontiguousarray(H), np.ascontiguousarray(g), track.spacing,
        terms.acceleration, terms.burst, terms.bones, terms.length, terms.spread, bands, gradient,
    )  # fmt: skip
    bands[:, 0] = np.where(bands[:, 0] > 0, bands[:, 0] * (1.0 + RIDGE), 1.0)
    return cost, BandedSystem(bands.T, gradient.ravel())


@njit(cache=True, error_model="numpy")
def _assemble(
    points: Floats, alive: NDArray[np.bool_], H: Floats, g: Floats, spacing: Floats, acceleration: Floats,
    burst: float, bones: NDArray[np.int64], length: Floats, spread: Floats, bands: Floats, gradient: Floats,
) -> float:  # fmt: skip
    """Adds everything to bands (3 T n, u + 1), row j = column j of the lower triangle, and to gradient (T, n, 3).
    Returns the prior's cost."""
    frames, n, _ = points.shape
    cost, second = 0.0, np.empty(3)
    for t in range(frames):
        for k in range(n):
            at = 3 * (t * n + k)
            for c in range(3):
                if not alive[t, k]:
                    bands[at + c, 0] = 1.0
                    continue
                gradient[t, k, c] += g[t, k, c]
                for d in range(c, 3):
                    bands[at + c, d - c] += H[t, k, d, c]
            if spacing[t, 1] == 0.0 or not (alive[t - 1, k] and alive[t, k] and alive[t + 1, k]):
                continue
            for c in range(3):
                second[c] = 0.0
                for i in range(3):
                    second[c] += spacing[t, i] * points[t - 1 + i, k, c] / acceleration[k]
            rho, weight, _ = robust(
                CAUCHY if burst < np.inf else 0, second[0] ** 2 + second[1] ** 2 + second[2] ** 2, burst
            )
            cost += 0.5 * rho
            weight /= acceleration[k]
            for c in range(3):
                for i in range(3):
                    gradient[t - 1 + i, k, c] += weight * spacing[t, i] * second[c]
                    for j in range(i, 3):
                        value = weight / acceleration[k] * spacing[t, i] * spacing[t, j]
                        bands[at + 3 * n * (i - 1) + c, 3 * n * (j - i)] += value
        for b in range(len(bones)):
            cost += _add_bone(points[t], alive[t], bones[b], length[b], spread[b], 3 * t * n, bands, gradient[t])
    return cost


@njit(cache=True, error_model="numpy")
def _add_bone(
    points: Floats, alive: NDArray[np.bool_], bone: NDArray[np.int64], length: float, spread: float, row: int,
    bands: Floats, gradient: Floats,
) -> float:  # fmt: skip
    """One bone in one frame whose first unknown is `row`; bone[0] < bone[1]."""
    a, b = bone
    if not (alive[a] and alive[b]):
        return 0.0
    apart = points[b] - points[a]
    distance = np.sqrt(apart[0] ** 2 + apart[1] ** 2 + apart[2] ** 2)
    if not (distance > 0.0 and spread < np.inf):
        return 0.0
    residual = (distance - length) / spread
    for c in range(3):
        along = apart[c] / distance / spread
        gradient[a, c] -= along * residual
        gradient[b, c] += along * residual
        for d in range(3):
            value = along * apart[d] / distance / spread
            if d >= c:
                bands[row + 3 * a + c, d - c] += value
                bands[row + 3 * b + c, d - c] += value
            bands[row + 3 * a + c, 3 * (b - a) + d - c] -= value
    return 0.5 * residual * residual
