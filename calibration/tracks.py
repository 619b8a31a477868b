"""How do tracked points, seen by several cameras over time, improve the cameras' poses?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.errors import InputError
from calibration.geometry import triangulate_linear
from calibration.normal_equations import block_diagonal, point_equations, stepped, track_equations, with_cameras
from calibration.rig import RIG_PARAMETERS, CameraRig, Packed, gauge_directions
from calibration.solver import (
    LOSSES,
    SchurSystem,
    SolverOptions,
    levenberg_marquardt,
    loss_weight,
    schur,
    schur_covariance,
    schur_reduced,
    updated_covariance,
)  # fmt: skip
from calibration.transforms import mean_rotation, skew

__all__ = ["TrackOptions", "adjust_rig"]

Floats = NDArray[np.float64]

N_CAMERA = len(RIG_PARAMETERS)
RIGIDITY = 0.25
"""How rigid a constant pair is taken to be, as a share of the spread that its triangulated length shows."""
LEAST_NOISE_PX = 1e-3
OUTLIER = 4.0
"""Pixels further from their projection, in sigmas, tell nothing about how well the poses are known."""
SOLVER = SolverOptions(initial_damping=1e-6, cost_tolerance=1e-7)


@dataclass(frozen=True)
class TrackOptions:
    """loss, scale (in sigmas): see BundleOptions. rounds: how often noise and rigidity are estimated anew from the
    residuals. fixed: cameras that keep their place, two or more of them; none = all are adjusted."""

    loss: str = "cauchy"
    scale: float = 3.0
    rounds: int = 3
    fixed: Collection[str] = ()
    solver: SolverOptions = SOLVER


def adjust_rig(
    rig: CameraRig,
    xy: ArrayLike,
    covariance: ArrayLike | None = None,
    constant_pairs: Sequence[tuple[int, int]] = (),
    options: TrackOptions | None = None,
) -> CameraRig:
    """Better camera poses from tracked points; the intrinsics are held, so is the unit of length.

    xy: (views, frames, points, 2) px, views in the rig's order, NaN = missing; covariance (views, frames, points, 2,
    2) px squared, used up to a common factor, which is estimated. constant_pairs: indices of points whose distance is
    the same in all frames but unknown; how rigid each pair is, is estimated.
    Gauge: points alone tell neither where the world is nor how large; the result is moved by the similarity that
    brings camera centres and mean orientation back to where they were. Covariance: of the poses, in that gauge
    (intrinsics as in `rig`). With options.fixed the world and its scale are those of the cameras that are fixed; the
    covariance of what they are known by is carried over.
    Raises InputError for a wrong shape, when no point is seen by two cameras, or a single camera is fixed.
    """
    options = options or TrackOptions()
    xy = np.asarray(xy, dtype=np.float64)
    if xy.ndim != 4 or xy.shape[0] != len(rig) or xy.shape[3] != 2:
        raise InputError(f"adjust_rig: expected xy ({len(rig)} views, frames, points, 2), got {xy.shape}")
    if not len(constant_pairs):
        xy = xy.reshape(len(rig), -1, 1, 2)
    shape = xy.shape[1:3]
    pairs = np.array(constant_pairs, dtype=int).reshape(-1, 2)
    flat = np.ascontiguousarray(xy.reshape(len(rig), -1, 2))
    free = _free(rig, options)
    starting = np.where(free[:, None, None], np.nan, flat) if options.fixed else flat
    points = triangulate_linear(starting, rig)
    if not np.isfinite(points).any():
        whom = f" of {', '.join(options.fixed)}" if options.fixed else ""
        raise InputError(f"adjust_rig: expected points seen by at least two cameras{whom}, got none")
    information = _information(covariance, flat.shape)
    state = _Tracks(rig.packed(), points, np.nanmedian(_pair_lengths(points, shape[1], pairs), axis=0))
    for _ in range(options.rounds):
        scaled = information / _noise(state, flat, information)
        deviation = np.abs(_pair_lengths(state.points, shape[1], pairs) - state.lengths)
        spread = RIGIDITY * 1.4826 * np.nanmedian(deviation, axis=0)
        evaluate = _evaluation(flat, scaled, shape, pairs, spread, free, options)
        state = levenberg_marquardt(state, evaluate, schur, _tracks_moved, options.solver).x
    adjusted = with_cameras(rig, state.cameras)
    kept = _squared(state, flat, scaled) < OUTLIER**2
    kept &= kept.sum(axis=0) >= 2
    told = _evaluation(
        np.where(kept[..., None], flat, np.nan), scaled, shape, pairs, spread, np.ones(len(rig), dtype=bool),
        replace(options, loss="linear"),
    )  # fmt: skip
    if options.fixed:
        return replace(adjusted, covariance=_hung_covariance(rig, schur_reduced(told(state)[1])[0], free))
    covariance = _gauged_covariance(rig, state, told(state)[1])
    R = mean_rotation(np.swapaxes(state.cameras.R, 1, 2) @ rig.packed().R).T
    was, now = rig.centers - rig.centers.mean(axis=0), adjusted.centers - adjusted.centers.mean(axis=0)
    scale = float(np.sqrt(np.sum(was**2) / np.sum(now**2)))
    moved = adjusted.moved(scale, R, rig.centers.mean(axis=0) - scale * R @ adjusted.centers.mean(axis=0))
    return replace(moved, covariance=covariance)


def _free(rig: CameraRig, options: TrackOptions) -> NDArray[np.bool_]:
    """(V,) cameras that are adjusted. Raises InputError where they have nothing to hang on."""
    free = np.ones(len(rig), dtype=bool)
    free[[rig.index(name) for name in options.fixed]] = False
    if 0 < np.sum(~free) < 2 or not free.any():
        raise InputError(
            f"adjust_rig: expected two or more of {', '.join(rig.names)} to be fixed, and another to adjust, got "
            f"{', '.join(options.fixed)}; points alone tell no lengths, use footage of the board"
        )
    return free


@dataclass(frozen=True, eq=False)
class _Tracks:
    """Cameras, points (frames * points, 3) with NaN where unseen, lengths (pairs,)."""

    cameras: Packed
    points: Floats
    lengths: Floats


def _pair_lengths(points: Floats, n_points: int, pairs: NDArray[np.intp]) -> Floats:
    """(frames, pairs)."""
    ends = points.reshape(-1, n_points, 3)[:, pairs]
    return np.asarray(np.linalg.norm(ends[:, :, 0] - ends[:, :, 1], axis=-1))


def _information(covariance: ArrayLike | None, shape: tuple[int, ...]) -> Floats:
    """(views, n, 3): xx, xy, yy of the inverse of each 2D covariance; the identity without."""
    if covariance is None:
        return np.broadcast_to(np.array([1.0, 0.0, 1.0]), (*shape[:2], 3)).copy()
    inverse = np.linalg.inv(np.asarray(covariance, dtype=np.float64).reshape(*shape[:2], 2, 2))
    return np.stack((inverse[..., 0, 0], inverse[..., 0, 1], inverse[..., 1, 1]), axis=-1)


def _squared(state: _Tracks, xy: Floats, information: Floats) -> Floats:
    """(views, n) squared whitened residuals; NaN where unseen, inf where the camera cannot see the point."""
    c, n = state.cameras, len(state.points)
    squared = np.empty(xy.shape[:2])
    point_equations(
        c.R,
        c.t,
        c.parameters,
        c.model,
        state.points,
        xy,
        information,
        0,
        1.0,
        np.zeros((n, 3, 3)),
        np.zeros((n, 3)),
        squared,
    )
    return squared


def _noise(state: _Tracks, xy: Floats, information: Floats) -> float:
    """Variance of the residuals per coordinate over the stated one, from their median (that of chi-square with 2
    degrees of freedom is 2 log 2), corrected by the degrees of freedom that points and cameras take."""
    squared = _squared(state, xy, information)
    squared = squared[np.isfinite(squared)]
    taken = 3 * np.isfinite(state.points[:, 0]).sum() + 6 * len(xy)
    free = max(2 * len(squared) - taken, 1) / (2 * len(squared))
    return max(float(np.median(squared)) / (2 * np.log(2)) / free, LEAST_NOISE_PX**2)


def _evaluation(
    xy: Floats,
    information: Floats,
    shape: tuple[int, int],
    pairs: NDArray[np.intp],
    spread: Floats,
    free: NDArray[np.bool_],
    options: TrackOptions,
) -> Callable[[_Tracks], tuple[float, SchurSystem]]:
    """The function state -> (cost, SchurSystem): poses and pair lengths are shared, the points of a frame are one
    block."""
    frames, n_points = shape
    views, n_shared, size = len(xy), 6 * len(xy) + len(pairs), 3 * n_points

    def evaluate(state: _Tracks) -> tuple[float, SchurSystem]:
        H_cc, g_c = np.zeros((views, 6, 6)), np.zeros((views, 6))
        H_pp, g_p = np.zeros((len(state.points), 3, 3)), np.zeros((len(state.points), 3))
        H_cp = np.zeros((len(state.points), views, 6, 3))
        c = state.cameras
        cost = track_equations(
            c.R, c.t, c.parameters, c.model, state.points, xy, information, LOSSES.index(options.loss), options.scale,
            H_cc, g_c, H_pp, g_p, H_cp,
        )  # fmt: skip
        H_cc[~free], g_c[~free], H_cp[:, ~free] = 0.0, 0.0, 0.0
        unit = np.sqrt(np.maximum(np.einsum("vii->vi", H_cc), np.finfo(float).tiny)).reshape(-1, 1)
        H_aa, g_a = np.zeros((n_shared, n_shared)), np.zeros(n_shared)
        H_aa[: 6 * views, : 6 * views] = block_diagonal(H_cc)
        if not options.fixed:
            gauge = unit * np.linalg.qr(unit * _gauge(c))[0]  # steps along it change nothing: no use in taking any
            H_aa[: 6 * views, : 6 * views] += gauge @ gauge.T
        g_a[: 6 * views] = g_c.ravel()
        H_ab = np.zeros((frames, n_shared, n_points, 3))
        H_ab[:, : 6 * views] = H_cp.reshape(frames, n_points, 6 * views, 3).swapaxes(1, 2)
        H_bb = np.zeros((frames, n_points, 3, n_points, 3))
        each = np.arange(n_points)
        H_bb[:, each, :, each] = H_pp.reshape(frames, n_points, 3, 3).swapaxes(0, 1)
        g_b = g_p.reshape(frames, n_points, 3)
        for i, (pair, sigma) in enumerate(zip(pairs, spread, strict=True)):
            cost += _add_pair(state, 6 * views + i, pair, sigma, options, H_aa, g_a, H_bb, g_b, H_ab)
        blocks, coupling = H_bb.reshape(frames, size, size), H_ab.reshape(frames, n_shared, size)
        return cost, SchurSystem(H_aa, g_a, blocks, g_b.reshape(frames, size), coupling)

    return evaluate


def _add_pair(
    state: _Tracks, row: int, pair: NDArray[np.intp], sigma: float, options: TrackOptions,
    H_aa: Floats, g_a: Floats, H_bb: Floats, g_b: Floats, H_ab: Floats,
) -> float:  # fmt: skip
    """Add (distance - length) / sigma of a pair, over all frames, to cost and equations; its length is shared
    parameter `row`."""
    ends = state.points.reshape(*g_b.shape)
    apart = np.nan_to_num(ends[:, pair[0]] - ends[:, pair[1]])
    distance = np.linalg.norm(apart, axis=-1)
    seen = distance > 0
    along = apart / np.where(seen, distance, 1.0)[:, None] / sigma
    residual = np.where(seen, distance - state.lengths[row - len(g_a)], 0.0) / sigma
    rho, weight = loss_weight(residual**2, options.loss, options.scale)
    for p, sign in zip(pair, (1.0, -1.0), strict=True):
        g_b[:, p] += sign * (weight * residual)[:, None] * along
        H_ab[:, row, p] -= sign * weight[:, None] * along / sigma
        for q, other in zip(pair, (1.0, -1.0), strict=True):
            H_bb[:, p, :, q] += sign * other * weight[:, None, None] * along[:, :, None] * along[:, None, :]
    g_a[row] = -np.sum(weight * residual) / sigma
    H_aa[row, row] = np.sum(weight[seen]) / sigma**2
    return 0.5 * float(rho.sum())


def _gauge(cameras: Packed) -> Floats:
    """(6 V, 7) how the poses move when the world is turned, shifted and scaled."""
    return gauge_directions(cameras)[:, :6].reshape(-1, 7)


def _placed(cameras: Packed) -> Floats:
    """(7, 6 V) how mean orientation, mean centre and size of the rig change with the poses: what the gauge holds."""
    world_from_cam = np.swapaxes(cameras.R, 1, 2)
    centers = -(world_from_cam @ cameras.t[..., None])[..., 0]
    by_pose = np.concatenate((-world_from_cam @ skew(cameras.t), -world_from_cam), axis=2)  # of the centres
    out = np.zeros((len(cameras.t), 7, 6))
    out[:, :3, :3] = world_from_cam
    out[:, 3:6] = by_pose
    out[:, 6] = np.einsum("vi,vij->vj", centers - centers.mean(axis=0), by_pose)
    return out.swapaxes(0, 1).reshape(7, -1)


def _gauged_covariance(rig: CameraRig, state: _Tracks, system: SchurSystem) -> Floats:
    """(18 V, 18 V): the poses' covariance with mean orientation, mean centre and size held, and the intrinsics' as it
    was."""
    n = 6 * len(rig)
    move, held = _gauge(state.cameras), _placed(state.cameras)
    keep = np.eye(n) - move @ np.linalg.solve(held @ move, held)
    poses = keep @ schur_covariance(system)[:n, :n] @ keep.T
    out = np.zeros((len(rig), N_CAMERA, len(rig), N_CAMERA))
    if rig.covariance is not None:
        out[:, 6:, :, 6:] = rig.covariance.reshape(out.shape)[:, 6:, :, 6:]
    out[:, :6, :, :6] = poses.reshape(len(rig), 6, len(rig), 6)
    return out.reshape(N_CAMERA * len(rig), -1)


def _hung_covariance(rig: CameraRig, H: Floats, free: NDArray[np.bool_]) -> Floats:
    """(18 V, 18 V): the free poses' covariance follows from the pixels and from that of the fixed ones; H as solved
    for: poses, then pair lengths. Of the intrinsics' uncertainty it knows nothing new."""
    n, views = 6 * len(rig), len(rig)
    pairs = H[n:, n:]
    H = H[:n, :n] - H[:n, n:] @ np.linalg.solve(pairs, H[n:, :n]) if len(pairs) else H
    rows = (N_CAMERA * np.arange(views)[:, None] + np.arange(6)).ravel()
    whole, found = np.zeros((N_CAMERA * views, N_CAMERA * views)), np.zeros((views, N_CAMERA), dtype=bool)
    whole[np.ix_(rows, rows)] = H
    found[free, :6] = True
    known = np.zeros_like(whole) if rig.covariance is None else rig.covariance
    return updated_covariance(whole, known, found.ravel())


def _tracks_moved(state: _Tracks, step: tuple[Floats, Floats]) -> _Tracks:
    n = 6 * len(state.cameras.t)
    cameras = stepped(state.cameras, step[0][:n].reshape(-1, 6))
    return _Tracks(cameras, state.points + step[1].reshape(-1, 3), state.lengths + step[0][n:])
