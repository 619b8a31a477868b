"""Which cameras and board poses together explain all measured board corners best?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.camera import INTRINSIC_PARAMETERS
from calibration.errors import InputError, nearest_name
from calibration.motion import middle_of, motion_terms, poses_after
from calibration.normal_equations import block_diagonal, board_equations, board_residuals, stepped, with_cameras
from calibration.rig import RIG_PARAMETERS, CameraRig, Packed
from calibration.solver import (
    LOSSES,
    SchurSystem,
    SolverOptions,
    levenberg_marquardt,
    m_estimator_variance,
    schur,
    schur_covariance,
    schur_reduced,
)  # fmt: skip
from calibration.transforms import exp_so3

if TYPE_CHECKING:
    from calibration.board import BoardDetections

__all__ = ["BundleOptions", "BundleResult", "adjust_boards", "board_system", "board_systems"]

Floats = NDArray[np.float64]

N_CAMERA, N_INTRINSIC = len(RIG_PARAMETERS), len(INTRINSIC_PARAMETERS)
LEAST_CORNERS = 4
"""A board pose with fewer measured corners, over all views, is left out."""
SOLVER = SolverOptions(initial_damping=1e-6)


@dataclass(frozen=True)
class BundleOptions:
    """loss: of solver.LOSSES, on each corner's distance over its sigma; scale: where the loss sets in, in sigmas.

    free: camera -> mask (12,) over INTRINSIC_PARAMETERS of what is adjusted; a camera not named keeps its intrinsics.
    priors: camera -> (mean (12,), sigma (12,)) Gaussian prior on the intrinsics, sigma inf = none. A free parameter is
    drawn to it; one that is held takes sigma^2 for its variance (0 without a prior). held: camera -> covariance (12,
    12) of its intrinsics, for those that are held, instead. What is adjusted depends on what is held: its covariance
    has that part too.
    fixed: cameras that keep their place, None = the first one; with all of them and nothing free, only the boards are
    posed.
    clocks: camera -> mask (2,) of what is adjusted of its clock, offset in s and drift in s/s, for detections whose
    time is known. The boards' motion between the moments is that of the poses given. Held clocks are right.
    """

    loss: str = "linear"
    scale: float = 1.0
    free: Mapping[str, ArrayLike] = field(default_factory=dict)
    priors: Mapping[str, tuple[ArrayLike, ArrayLike]] = field(default_factory=dict)
    held: Mapping[str, ArrayLike] = field(default_factory=dict)
    fixed: Collection[str] | None = None
    clocks: Mapping[str, ArrayLike] = field(default_factory=dict)
    solver: SolverOptions = SOLVER


@dataclass(frozen=True, eq=False)
class BundleResult:
    """rig: with covariance. board_R, board_t: world from board, in the shape given; poses that could not be used are
    NaN.

    residuals: (views, frames, corners, 2) px, projected - measured, views in the detections' order; NaN where unseen
    or the pose is NaN, inf where the camera cannot see the corner at its place. cost: half the sum of rho, priors
    included.
    variance: of the residuals over their sigma (1 = as stated; `m_estimator_variance`); the covariance is scaled by it.
    clock, clock_sigma (views, 2): offset in s and drift in s/s of the rig's cameras, and their standard deviations, 0
    where held: a picture of moment i was taken at time[i] + offset + drift * (time[i] - motion.middle_of(time)).
    """

    rig: CameraRig
    board_R: Floats  # noqa: N815
    board_t: Floats
    residuals: Floats
    cost: float
    variance: float
    iterations: int
    converged: bool
    clock: Floats
    clock_sigma: Floats


@dataclass(frozen=True, eq=False)
class _State:
    """What is adjusted: the cameras (V, ...), their clocks (V, 2), and the poses that hang on them."""

    cameras: Packed
    board_R: Floats  # noqa: N815
    board_t: Floats
    clock: Floats


@dataclass(frozen=True, eq=False)
class _Corners:
    """Measured corners in blocks of one pose and one view; index: view, frame, corner of each, in the rig's order of
    views."""

    xy: Floats
    sigma: Floats
    corner: Floats
    block: NDArray[np.int64]
    index: tuple[NDArray[np.intp], ...]
    pose: tuple[NDArray[np.intp], ...]


@dataclass(frozen=True, eq=False)
class _Clocks:
    """free (V, 2), and of each pose its time less the middle one and its motion (3, 6)."""

    free: NDArray[np.bool_]
    time: Floats
    motion: Floats

    def at(self, state: _State, block: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
        """World from board R, t when each block's picture was taken, and rate (m, T, 6) of `board_equations`."""
        pose, view = block[:, 0], block[:, 1]
        R, t = state.board_R[pose], state.board_t[pose]
        if not self.free.any():
            return R, t, np.zeros((len(block), 0, 6))
        terms = np.stack((np.ones(len(pose)), self.time[pose]), axis=1)
        seconds = (state.clock[view] * terms).sum(axis=1)
        R, t, velocity = poses_after(R, t, self.motion[pose], seconds)
        return R, t, terms[:, :, None] * velocity[:, None]


def adjust_boards(
    rig: CameraRig,
    boards_R: ArrayLike,
    boards_t: ArrayLike,
    detections: BoardDetections,
    options: BundleOptions | None = None,
    *,
    covariance: bool = True,
) -> BundleResult:
    """Adjust camera poses, chosen intrinsics and every board pose to all measured corners, weighted by their sigma.

    boards_R (frames, boards, 3, 3) and boards_t (frames, boards, 3): world from board, NaN where unknown (those
    corners are left out); without the boards axis where there is one board. Cameras are matched to the detections by
    name.
    Gauge: the cameras that are fixed keep their pose; the covariance (18 V, 18 V), over RIG_PARAMETERS, is relative to
    them; without `covariance` there is none, nor of the clocks.
    Normal equations with analytic Jacobians, board poses eliminated (Triggs et al. 2000, section 6.1).
    Raises InputError when a camera is not in the detections, or no pose has 4 measured corners.
    """
    options = options or BundleOptions()
    boards_R, boards_t = np.asarray(boards_R, dtype=np.float64), np.asarray(boards_t, dtype=np.float64)
    shape = boards_R.shape
    boards_R, boards_t = boards_R.reshape(shape[0], -1, 3, 3), boards_t.reshape(shape[0], -1, 3)
    views = [_view(name, detections.view_names) for name in rig.names]
    corners = _gather(detections, views, boards_R, boards_t)
    clocks = _clocks(rig, boards_R, boards_t, detections, corners, options)
    choices = _choices(rig, options)
    evaluate = _board_evaluation(corners, clocks, *choices, options)
    start = _State(rig.packed(), boards_R[corners.pose], boards_t[corners.pose], np.zeros((len(rig), 2)))
    found = levenberg_marquardt(start, evaluate, schur, _moved, options.solver)
    state: _State = found.x

    flat = np.empty_like(corners.xy)
    cameras = state.cameras
    board_residuals(
        cameras.R, cameras.t, cameras.parameters, cameras.model, *clocks.at(state, corners.block)[:2], corners.xy,
        corners.corner, corners.block, flat,
    )  # fmt: skip
    squared = (flat**2).sum(axis=1) / corners.sigma**2
    n_parameters = int(choices[0].sum()) + 6 * len(state.board_R)
    variance = m_estimator_variance(squared[np.isfinite(squared)], options.loss, options.scale, n_parameters)
    known: Floats | None = None
    clock_sigma = np.full((len(rig), 2), np.nan)
    if covariance:
        whole = _covariance(rig, corners, clocks, state, choices, options, variance)
        known, clock_sigma = _without_clocks(whole, len(rig))
    residuals = np.full(detections.corners.shape, np.nan)
    residuals[(np.array(views)[corners.index[0]], *corners.index[1:])] = flat
    R, t = np.full_like(boards_R, np.nan), np.full_like(boards_t, np.nan)
    R[corners.pose], t[corners.pose] = state.board_R, state.board_t
    return BundleResult(
        rig=replace(with_cameras(rig, cameras), covariance=known), board_R=R.reshape(shape),
        board_t=t.reshape(shape[:-1]), residuals=residuals, cost=found.cost, variance=variance,
        iterations=found.iterations, converged=found.converged, clock=state.clock, clock_sigma=clock_sigma,
    )  # fmt: skip


def board_system(
    rig: CameraRig,
    boards_R: ArrayLike,
    boards_t: ArrayLike,
    detections: BoardDetections,
    options: BundleOptions | None = None,
) -> SchurSystem:
    """The normal equations of `adjust_boards` at the cameras and board poses given: cameras as a (18 parameters each,
    with clocks 20), one block b of 6 per board pose. boards_R (frames, boards, 3, 3), boards_t (frames, boards, 3), or
    without the axis of boards; NaN where there is none."""
    return board_systems(rig, boards_R, boards_t, detections, [np.arange(len(np.asarray(boards_t)))], options)[0]


def board_systems(
    rig: CameraRig,
    boards_R: ArrayLike,
    boards_t: ArrayLike,
    detections: BoardDetections,
    parts: Sequence[NDArray[np.intp]],
    options: BundleOptions | None = None,
) -> list[SchurSystem]:
    """`board_system` of the boards in some of the frames, for each part: rows (n,) of boards_R, which rise."""
    options = options or BundleOptions()
    boards_R, boards_t = np.asarray(boards_R, dtype=np.float64), np.asarray(boards_t, dtype=np.float64)
    boards_R, boards_t = boards_R.reshape(len(boards_R), -1, 3, 3), boards_t.reshape(len(boards_t), -1, 3)
    corners = _gather(detections, [_view(name, detections.view_names) for name in rig.names], boards_R, boards_t)
    clocks = _clocks(rig, boards_R, boards_t, detections, corners, options)
    choices, cameras, systems = _choices(rig, options), rig.packed(), []
    for frames in parts:
        some, theirs = _part(corners, clocks, frames)
        at = _State(cameras, boards_R[some.pose], boards_t[some.pose], np.zeros((len(rig), 2)))
        systems.append(_board_evaluation(some, theirs, *choices, options)(at)[1])
    return systems


def _part(corners: _Corners, clocks: _Clocks, frames: NDArray[np.intp]) -> tuple[_Corners, _Clocks]:
    """The blocks and poses of some frames, rows (n,) of the boards' poses; the corners stay where they are."""
    poses = np.flatnonzero(np.isin(corners.pose[0], frames))
    block = corners.block[np.isin(corners.block[:, 0], poses)]
    block[:, 0] = np.searchsorted(poses, block[:, 0])
    if clocks.free.any():
        clocks = _Clocks(clocks.free, clocks.time[poses], clocks.motion[poses])
    return replace(corners, block=block, pose=tuple(place[poses] for place in corners.pose)), clocks


def _clocks(
    rig: CameraRig, boards_R: Floats, boards_t: Floats, detections: BoardDetections, corners: _Corners,
    options: BundleOptions,
) -> _Clocks:  # fmt: skip
    """What is sought of the clocks, and how the boards move."""
    free = np.zeros((len(rig), 2), dtype=bool)
    for name, mask in options.clocks.items():
        free[rig.index(name)] = np.asarray(mask, dtype=bool)
    if not free.any():
        return _Clocks(free, np.zeros(0), np.zeros((0, 3, 6)))
    time = np.asarray(detections.time, dtype=np.float64)
    away = np.nan_to_num(time[corners.pose[0]] - middle_of(time))
    return _Clocks(free, away, motion_terms(boards_R, boards_t, time)[corners.pose])


def _without_clocks(covariance: Floats, views: int) -> tuple[Floats, Floats]:
    """The covariance (18 V, 18 V) of the cameras, and the standard deviations (V, 2) of their clocks."""
    width = len(covariance) // views
    rows = np.arange(views)[:, None] * width + np.arange(N_CAMERA)
    sigma = np.zeros((views, 2))
    sigma[:, : width - N_CAMERA] = np.sqrt(np.diagonal(covariance).reshape(views, width)[:, N_CAMERA:])
    return covariance[np.ix_(rows.ravel(), rows.ravel())], sigma


def _view(name: str, view_names: Sequence[str]) -> int:
    if name not in view_names:
        raise InputError(f"bundle: no detections of camera '{name}'; {nearest_name(name, view_names)}")
    return list(view_names).index(name)


def _gather(detections: BoardDetections, views: list[int], boards_R: Floats, boards_t: Floats) -> _Corners:
    """The measured corners that take part, sorted by pose and view."""
    board = np.asarray(detections.board_index)
    xy = np.asarray(detections.corners, dtype=np.float64)[views]
    seen = np.isfinite(xy).all(axis=-1)
    known = np.isfinite(boards_R).all(axis=(2, 3)) & np.isfinite(boards_t).all(axis=2)
    n_seen = seen.sum(axis=0) @ (board[:, None] == np.arange(boards_R.shape[1]))
    used = known & (n_seen >= LEAST_CORNERS)
    if not used.any():
        raise InputError(
            f"bundle: expected a board with a starting pose and {LEAST_CORNERS} measured corners, got none"
        )
    number = np.cumsum(used.ravel()).reshape(used.shape) - 1
    view, frame, corner = np.nonzero(seen & used[:, board])
    order = np.lexsort((view, number[frame, board[corner]]))
    view, frame, corner = view[order], frame[order], corner[order]
    pose = number[frame, board[corner]]
    first = np.flatnonzero(np.diff(pose * len(views) + view, prepend=-1))
    block = np.stack((pose[first], view[first], first, np.append(first[1:], len(view))), axis=1)
    sigma = np.asarray(detections.sigma, dtype=np.float64)[views][view, frame, corner]
    points = np.ascontiguousarray(detections.object_points[corner], dtype=np.float64)
    return _Corners(
        xy[view, frame, corner], sigma, points, block.astype(np.int64), (view, frame, corner), np.nonzero(used)
    )


def _choices(rig: CameraRig, options: BundleOptions) -> tuple[NDArray[np.bool_], Floats, Floats]:
    """free (V, 18) over RIG_PARAMETERS, prior mean and sigma (V, 12)."""
    for name in (*options.free, *options.priors, *options.held):
        rig.index(name)
    free = np.ones((len(rig), N_CAMERA), dtype=bool)
    fixed = rig.names[:1] if options.fixed is None else options.fixed
    free[[rig.index(name) for name in fixed], :6] = False
    mean, sigma = np.zeros((len(rig), N_INTRINSIC)), np.full((len(rig), N_INTRINSIC), np.inf)
    for i, name in enumerate(rig.names):
        free[i, 6:] = np.asarray(options.free.get(name, np.zeros(N_INTRINSIC)), dtype=bool)
        if name in options.priors:
            mean[i], sigma[i] = options.priors[name]
    return free, mean, sigma


def _board_evaluation(corners, clocks, free, mean, sigma, options):  # type: ignore[no-untyped-def]
    """The function state -> (cost, SchurSystem) that the solver calls."""
    n_columns = free[:, 6:].sum(axis=1)
    columns = np.argsort(~free[:, 6:], axis=1, kind="stable")
    views, n_poses = len(free), len(corners.pose[0])
    drawn = np.isfinite(sigma) & free[:, 6:]
    precision = np.where(drawn, 1.0 / np.where(drawn, sigma, 1.0) ** 2, 0.0)
    loss = LOSSES.index(options.loss)

    adjusted = np.concatenate((free, clocks.free), axis=1) if clocks.free.any() else free
    width = adjusted.shape[1]

    def evaluate(state: _State) -> tuple[float, SchurSystem]:
        H_cc, g_c = np.zeros((views, width, width)), np.zeros((views, width))
        H_pp, g_p = np.zeros((n_poses, 6, 6)), np.zeros((n_poses, 6))
        H_cp = np.zeros((n_poses, views, width, 6))
        cameras = state.cameras
        board_R, board_t, rate = clocks.at(state, corners.block)
        cost = board_equations(
            cameras.R, cameras.t, cameras.parameters, cameras.model, board_R, board_t, corners.xy,
            corners.sigma, corners.corner, corners.block, columns, n_columns, rate, loss, options.scale,
            H_cc, g_c, H_pp, g_p, H_cp,
        )  # fmt: skip
        away = cameras.parameters[:, :N_INTRINSIC] - mean
        cost += 0.5 * float(np.sum(precision * away**2))
        g_c[:, 6:N_CAMERA] += precision * away
        np.einsum("vii->vi", H_cc)[:, 6:N_CAMERA] += precision
        H_cc *= adjusted[:, :, None] & adjusted[:, None, :]
        H_cp *= adjusted[:, :, None]
        H_aa = block_diagonal(H_cc)
        return cost, SchurSystem(H_aa, (g_c * adjusted).ravel(), H_pp, g_p, H_cp.reshape(n_poses, len(H_aa), 6))

    return evaluate


def _covariance(  # type: ignore[no-untyped-def]
    rig: CameraRig, corners: _Corners, clocks: _Clocks, state: _State, choices, options: BundleOptions, variance: float
) -> Floats:
    """(18 V, 18 V), with clocks (20 V, 20 V), of all parameters: of the adjusted ones by the corners' noise, and by
    what is not known of those that are held, which they follow ("consider" parameters, Tapley, Schutz & Born 2004,
    section 6.5)."""
    free, mean, sigma = choices
    system = _board_evaluation(corners, clocks, free, mean, sigma, options)(state)[1]
    covariance: Floats = variance * schur_covariance(system)
    known = np.where(~free[:, 6:] & np.isfinite(sigma), sigma, 0.0)[:, :, None] ** 2 * np.eye(N_INTRINSIC)
    for name, told in options.held.items():
        i = rig.index(name)
        known[i] = np.where(free[i, 6:, None] | free[i, None, 6:], 0.0, told)
    unsure = np.einsum("vii->vi", known) > 0
    if not unsure.any():
        return covariance
    every, drawn = free.copy(), np.where(free[:, 6:], sigma, np.inf)
    every[:, 6:] |= unsure
    information = schur_reduced(_board_evaluation(corners, clocks, every, mean, drawn, options)(state)[1])[0]
    width = len(covariance) // len(rig)
    rows = (np.arange(len(rig))[:, None] * width + np.arange(6, N_CAMERA))[unsure]
    follow = -covariance @ information[:, rows] / variance
    follow[rows] = np.eye(len(rows))
    spread = block_diagonal(known)[np.ix_(unsure.ravel(), unsure.ravel())]
    return covariance + follow @ spread @ follow.T


def _moved(state: _State, step: tuple[Floats, Floats]) -> _State:
    cameras = step[0].reshape(len(state.cameras.t), -1)
    boards = step[1]
    clock = state.clock + cameras[:, N_CAMERA:] if cameras.shape[1] > N_CAMERA else state.clock
    R, t = exp_so3(boards[:, :3]) @ state.board_R, state.board_t + boards[:, 3:]
    return _State(stepped(state.cameras, cameras), R, t, clock)
