"""Which cameras and board poses together explain all measured board corners best?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.camera import INTRINSIC_PARAMETERS
from calibration.errors import InputError, nearest_name
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
)  # fmt: skip
from calibration.transforms import exp_so3

if TYPE_CHECKING:
    from calibration.board import BoardDetections

__all__ = ["BundleOptions", "BundleResult", "adjust_boards", "board_system"]

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
    drawn to it; one that is held takes sigma^2 for its variance (0 without a prior).
    fixed: cameras that keep their place, None = the first one; with all of them and nothing free, only the boards are
    posed.
    """

    loss: str = "linear"
    scale: float = 1.0
    free: Mapping[str, ArrayLike] = field(default_factory=dict)
    priors: Mapping[str, tuple[ArrayLike, ArrayLike]] = field(default_factory=dict)
    fixed: Collection[str] | None = None
    solver: SolverOptions = SOLVER


@dataclass(frozen=True, eq=False)
class BundleResult:
    """rig: with covariance. board_R, board_t: world from board, in the shape given; poses that could not be used are
    NaN.

    residuals: (views, frames, corners, 2) px, projected - measured, views in the detections' order; NaN where unseen
    or the pose is NaN, inf where the camera cannot see the corner at its place. cost: half the sum of rho, priors
    included.
    variance: of the residuals over their sigma (1 = as stated; `m_estimator_variance`); the covariance is scaled by it.
    """

    rig: CameraRig
    board_R: Floats  # noqa: N815
    board_t: Floats
    residuals: Floats
    cost: float
    variance: float
    iterations: int
    converged: bool


@dataclass(frozen=True, eq=False)
class _State:
    """What is adjusted: the cameras (V, ...) and the poses or points that hang on them."""

    cameras: Packed
    board_R: Floats  # noqa: N815
    board_t: Floats


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


def adjust_boards(
    rig: CameraRig,
    boards_R: ArrayLike,
    boards_t: ArrayLike,
    detections: BoardDetections,
    options: BundleOptions | None = None,
) -> BundleResult:
    """Adjust camera poses, chosen intrinsics and every board pose to all measured corners, weighted by their sigma.

    boards_R (frames, boards, 3, 3) and boards_t (frames, boards, 3): world from board, NaN where unknown (those
    corners are left out); without the boards axis where there is one board. Cameras are matched to the detections by
    name.
    Gauge: the cameras that are fixed keep their pose; the covariance (18 V, 18 V), over RIG_PARAMETERS, is relative to
    them.
    Normal equations with analytic Jacobians, board poses eliminated (Triggs et al. 2000, section 6.1).
    Raises InputError when a camera is not in the detections, or no pose has 4 measured corners.
    """
    options = options or BundleOptions()
    boards_R, boards_t = np.asarray(boards_R, dtype=np.float64), np.asarray(boards_t, dtype=np.float64)
    shape = boards_R.shape
    boards_R, boards_t = boards_R.reshape(shape[0], -1, 3, 3), boards_t.reshape(shape[0], -1, 3)
    views = [_view(name, detections.view_names) for name in rig.names]
    corners = _gather(detections, views, boards_R, boards_t)
    free, _, sigma = choices = _choices(rig, options)
    evaluate = _board_evaluation(corners, *choices, options)
    start = _State(rig.packed(), boards_R[corners.pose], boards_t[corners.pose])
    found = levenberg_marquardt(start, evaluate, schur, _moved, options.solver)
    state: _State = found.x

    flat = np.empty_like(corners.xy)
    cameras = state.cameras
    board_residuals(
        cameras.R, cameras.t, cameras.parameters, cameras.model, state.board_R, state.board_t, corners.xy,
        corners.corner, corners.block, flat,
    )  # fmt: skip
    squared = (flat**2).sum(axis=1) / corners.sigma**2
    n_parameters = int(free.sum()) + 6 * len(state.board_R)
    variance = m_estimator_variance(squared[np.isfinite(squared)], options.loss, options.scale, n_parameters)
    covariance = variance * schur_covariance(evaluate(state)[1])
    held = ~free[:, 6:] & np.isfinite(sigma)
    rows = (np.arange(len(rig))[:, None] * N_CAMERA + np.arange(6, N_CAMERA))[held]
    covariance[rows, rows] = sigma[held] ** 2
    residuals = np.full(detections.corners.shape, np.nan)
    residuals[(np.array(views)[corners.index[0]], *corners.index[1:])] = flat
    R, t = np.full_like(boards_R, np.nan), np.full_like(boards_t, np.nan)
    R[corners.pose], t[corners.pose] = state.board_R, state.board_t
    return BundleResult(
        rig=replace(with_cameras(rig, cameras), covariance=covariance), board_R=R.reshape(shape),
        board_t=t.reshape(shape[:-1]), residuals=residuals, cost=found.cost, variance=variance,
        iterations=found.iterations, converged=found.converged,
    )  # fmt: skip


def board_system(
    rig: CameraRig,
    boards_R: ArrayLike,
    boards_t: ArrayLike,
    detections: BoardDetections,
    options: BundleOptions | None = None,
) -> SchurSystem:
    """The normal equations of `adjust_boards` at the cameras and board poses given: cameras as a, one block b per
    board pose."""
    options = options or BundleOptions()
    boards_R, boards_t = np.asarray(boards_R, dtype=np.float64), np.asarray(boards_t, dtype=np.float64)
    boards_R, boards_t = boards_R.reshape(len(boards_R), -1, 3, 3), boards_t.reshape(len(boards_t), -1, 3)
    corners = _gather(detections, [_view(name, detections.view_names) for name in rig.names], boards_R, boards_t)
    evaluate = _board_evaluation(corners, *_choices(rig, options), options)
    system: SchurSystem = evaluate(_State(rig.packed(), boards_R[corners.pose], boards_t[corners.pose]))[1]
    return system


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
    for name in (*options.free, *options.priors):
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


def _board_evaluation(corners, free, mean, sigma, options):  # type: ignore[no-untyped-def]
    """The function state -> (cost, SchurSystem) that the solver calls."""
    n_columns = free[:, 6:].sum(axis=1)
    columns = np.argsort(~free[:, 6:], axis=1, kind="stable")
    views, n_poses = len(free), len(corners.pose[0])
    drawn = np.isfinite(sigma) & free[:, 6:]
    precision = np.where(drawn, 1.0 / np.where(drawn, sigma, 1.0) ** 2, 0.0)
    loss = LOSSES.index(options.loss)

    def evaluate(state: _State) -> tuple[float, SchurSystem]:
        H_cc, g_c = np.zeros((views, N_CAMERA, N_CAMERA)), np.zeros((views, N_CAMERA))
        H_pp, g_p = np.zeros((n_poses, 6, 6)), np.zeros((n_poses, 6))
        H_cp = np.zeros((n_poses, views, N_CAMERA, 6))
        cameras = state.cameras
        cost = board_equations(
            cameras.R, cameras.t, cameras.parameters, cameras.model, state.board_R, state.board_t, corners.xy,
            corners.sigma, corners.corner, corners.block, columns, n_columns, loss, options.scale,
            H_cc, g_c, H_pp, g_p, H_cp,
        )  # fmt: skip
        away = cameras.parameters - mean
        cost += 0.5 * float(np.sum(precision * away**2))
        g_c[:, 6:] += precision * away
        np.einsum("vii->vi", H_cc)[:, 6:] += precision
        H_cc *= free[:, :, None] & free[:, None, :]
        H_cp *= free[:, :, None]
        H_aa = block_diagonal(H_cc)
        return cost, SchurSystem(H_aa, (g_c * free).ravel(), H_pp, g_p, H_cp.reshape(n_poses, -1, 6))

    return evaluate


def _moved(state: _State, step: tuple[Floats, Floats]) -> _State:
    cameras = step[0].reshape(len(state.cameras.t), N_CAMERA)
    boards = step[1]
    return _State(
        stepped(state.cameras, cameras), exp_so3(boards[:, :3]) @ state.board_R, state.board_t + boards[:, 3:]
    )
