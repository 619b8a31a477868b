"""How does the sum of squared pixel errors depend on cameras, board poses and points? Normal equations, no Jacobian
stored.

Compiled kernels shared by the adjustments. Every one returns half the sum of rho and adds up J' w J and J' w r of its
parameters: cameras as in `RIG_PARAMETERS` (left perturbation of R, addition to t and intrinsics), board poses alike
(R = exp(delta) R0, t0 + delta, world from board), points by addition.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from calibration.camera import Intrinsics, project_point, project_point_jacobian, project_point_slope
from calibration.rig import CameraRig, Packed
from calibration.solver import robust
from calibration.transforms import exp_so3

__all__ = [
    "UNSEEN_PX", "block_diagonal", "board_equations", "board_residuals", "point_equations", "stepped",
    "track_equations", "with_cameras",
]  # fmt: skip

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

UNSEEN_PX = 1e4
"""What a measured pixel costs whose point has no pixel in that camera now (behind it, or beyond the fold of its
distortion)."""


@njit(cache=True, error_model="numpy")
def _transform(R: Floats, t: Floats, x: Floats, out: Floats) -> None:
    for i in range(3):
        out[i] = R[i, 0] * x[0] + R[i, 1] * x[1] + R[i, 2] * x[2] + t[i]


@njit(cache=True, error_model="numpy")
def _cross_columns(J: Floats, x: Floats, out: Floats) -> None:
    """out[:, :3] = -J [x]_x, the derivative by a left rotation of x; J (2, 3)."""
    for row in range(2):
        out[row, 0] = J[row, 2] * x[1] - J[row, 1] * x[2]
        out[row, 1] = J[row, 0] * x[2] - J[row, 2] * x[0]
        out[row, 2] = J[row, 1] * x[0] - J[row, 0] * x[1]


@njit(cache=True, error_model="numpy")
def board_residuals(
    R: Floats, t: Floats, parameters: Floats, model: Ints, board_R: Floats, board_t: Floats, xy: Floats, corner: Floats,
    block: Ints, residuals: Floats,
) -> None:  # fmt: skip
    """residuals (n, 2) px = projected - measured; inf where the camera cannot see the corner. Arguments as in
    `board_equations`."""
    world, cam, pixel = np.empty(3), np.empty(3), np.empty(2)
    for b in range(len(block)):
        _, view, start, stop = block[b]
        for i in range(start, stop):
            _transform(board_R[b], board_t[b], corner[i], world)
            _transform(R[view], t[view], world, cam)
            if project_point(model[view], parameters[view], cam[0], cam[1], cam[2], pixel):
                residuals[i, 0], residuals[i, 1] = pixel[0] - xy[i, 0], pixel[1] - xy[i, 1]
            else:
                residuals[i] = np.inf


@njit(cache=True, error_model="numpy")
def board_equations(
    R: Floats, t: Floats, parameters: Floats, model: Ints, board_R: Floats, board_t: Floats, xy: Floats, sigma: Floats,
    corner: Floats, block: Ints, columns: Ints, n_columns: Ints, rate: Floats, loss: int, scale: float,
    H_cc: Floats, g_c: Floats, H_pp: Floats, g_p: Floats, H_cp: Floats,
) -> float:  # fmt: skip
    """Corners of rigid boards seen by cameras. Returns the cost and adds to the normal equations.

    R (V, 3, 3), t (V, 3), parameters (V, 13), model (V,): the cameras.
    xy (n, 2) px, sigma (n,) px, corner (n, 3) on its board, in blocks of one pose and one view: block (m, 4) = pose,
    view, start, stop.
    board_R (m, 3, 3), board_t (m, 3): world from board when a block's picture was taken, which moves with its pose.
    columns (V, 12), n_columns (V,): the intrinsics to differentiate by. rate (m, T, 6): how the board's pose changes
    with each of the view's T clock parameters. loss, scale: of the residual's length over sigma.
    H_cc (V, 18 + T, 18 + T), g_c (V, 18 + T), H_pp (P, 6, 6), g_p (P, 6), H_cp (P, V, 18 + T, 6).

    Within a block, moving the camera and moving the board are both rigid motions of the corners in the camera frame,
    so only one 6-vector and the intrinsics are accumulated per corner, and mapped to both poses once per block.
    """
    world, cam, arm, pixel, zero = np.empty(3), np.empty(3), np.empty(3), np.empty(2), np.zeros(3)
    J_point, J_intrinsics, J = np.empty((2, 3)), np.empty((2, 12)), np.empty((2, 6))
    most = 0
    for b in range(len(block)):
        most = max(most, block[b, 3] - block[b, 2])
    rows, r, H, g = np.empty((18, 2 * most)), np.empty(2 * most), np.empty((18, 18)), np.empty(18)
    cost = 0.0
    for b in range(len(block)):
        pose, view, start, stop = block[b]
        n, m = 6 + n_columns[view], 0
        for i in range(start, stop):
            _transform(board_R[b], board_t[b], corner[i], world)
            _transform(R[view], t[view], world, cam)
            if not project_point_jacobian(
                model[view], parameters[view], cam[0], cam[1], cam[2], pixel, J_point, J_intrinsics
            ):
                cost += 0.5 * robust(loss, (UNSEEN_PX / sigma[i]) ** 2, scale)[0]
                continue
            r0, r1 = pixel[0] - xy[i, 0], pixel[1] - xy[i, 1]
            rho, weight, _ = robust(loss, (r0 * r0 + r1 * r1) / sigma[i] ** 2, scale)
            cost += 0.5 * rho
            _transform(board_R[b], zero, corner[i], world)
            _transform(R[view], zero, world, arm)
            _cross_columns(J_point, arm, J)
            root = math.sqrt(weight) / sigma[i]
            r[m], r[m + 1] = root * r0, root * r1
            for c in range(3):
                rows[c, m], rows[c, m + 1] = root * J[0, c], root * J[1, c]
                rows[3 + c, m], rows[3 + c, m + 1] = root * J_point[0, c], root * J_point[1, c]
            for c in range(n - 6):
                k = columns[view, c]
                rows[6 + c, m], rows[6 + c, m + 1] = root * J_intrinsics[0, k], root * J_intrinsics[1, k]
            m += 2
        _products(rows, r, n, m, H, g)
        _transform(R[view], zero, board_t[b], arm)
        _add_block(
            H, g, n, columns[view], arm, R[view], rate[b], H_cc[view], g_c[view], H_pp[pose], g_p[pose],
            H_cp[pose, view],
        )  # fmt: skip
    return cost


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _products(rows: Floats, r: Floats, n: int, m: int, H: Floats, g: Floats) -> None:
    """H (n, n) = J' J and g = J' r of the first n rows of J' and their first m columns. Sums may be taken in any order,
    so that they become vector instructions."""
    for a in range(n):
        total = 0.0
        for i in range(m):
            total += rows[a, i] * r[i]
        g[a] = total
        for c in range(a + 1):
            total = 0.0
            for i in range(m):
                total += rows[a, i] * rows[c, i]
            H[a, c] = H[c, a] = total


@njit(cache=True, error_model="numpy")
def _add_block(
    H: Floats, g: Floats, n: int, columns: Ints, arm: Floats, R: Floats, rate: Floats,
    H_cc: Floats, g_c: Floats, H_pp: Floats, g_p: Floats, H_cp: Floats,
) -> None:  # fmt: skip
    """Map H (n, n), g of (rigid motion about the board's origin in the camera frame, chosen intrinsics) to the camera's
    and the board's parameters; H and g are overwritten.

    arm: the board's origin from the world's, along the camera's axes. A rotation w of the camera moves it too, by
    -[arm]_x w; the board's motion is turned by R. Clocks move the board by `rate`.
    """
    board, both, g_b = np.empty((n, 6)), np.empty((6, 6)), np.empty(6)
    for half in (0, 3):
        for c in range(3):
            for a in range(n):
                board[a, half + c] = H[a, half] * R[0, c] + H[a, half + 1] * R[1, c] + H[a, half + 2] * R[2, c]
            g_b[half + c] = g[half] * R[0, c] + g[half + 1] * R[1, c] + g[half + 2] * R[2, c]
    for half in (0, 3):
        for c in range(3):
            for a in range(6):
                both[half + c, a] = (
                    board[half, a] * R[0, c] + board[half + 1, a] * R[1, c] + board[half + 2, a] * R[2, c]
                )
                H_pp[half + c, a] += both[half + c, a]
            g_p[half + c] += g_b[half + c]
    for c in range(3):
        one, other = (c + 1) % 3, (c + 2) % 3
        g[c] += arm[one] * g[3 + other] - arm[other] * g[3 + one]
        for a in range(6):
            board[c, a] += arm[one] * board[3 + other, a] - arm[other] * board[3 + one, a]
        for a in range(n):
            H[c, a] += arm[one] * H[3 + other, a] - arm[other] * H[3 + one, a]
        for a in range(n):
            H[a, c] += arm[one] * H[a, 3 + other] - arm[other] * H[a, 3 + one]
    for a in range(n):
        row = a if a < 6 else 6 + columns[a - 6]
        g_c[row] += g[a]
        for c in range(n):
            H_cc[row, c if c < 6 else 6 + columns[c - 6]] += H[a, c]
        for c in range(6):
            H_cp[row, c] += board[a, c]
            for clock in range(len(rate)):
                H_cc[row, 18 + clock] += board[a, c] * rate[clock, c]
                H_cc[18 + clock, row] += board[a, c] * rate[clock, c]
    for clock in range(len(rate)):
        for c in range(6):
            g_c[18 + clock] += rate[clock, c] * g_b[c]
            for a in range(6):
                H_cp[18 + clock, a] += rate[clock, c] * both[c, a]
                for other in range(len(rate)):
                    H_cc[18 + clock, 18 + other] += rate[clock, c] * both[c, a] * rate[other, a]


@njit(cache=True, error_model="numpy")
def track_equations(
    R: Floats, t: Floats, parameters: Floats, model: Ints, points: Floats, xy: Floats, information: Floats, loss: int,
    scale: float, H_cc: Floats, g_c: Floats, H_pp: Floats, g_p: Floats, H_cp: Floats,
) -> float:  # fmt: skip
    """Points seen by cameras whose poses are sought and whose intrinsics are held. Returns the cost, adds to the
    equations.

    points (N, 3); xy (V, N, 2) px, NaN = unseen; information (V, N, 3): xx, xy, yy of the inverse 2D covariance.
    H_cc (V, 6, 6), g_c (V, 6), H_pp (N, 3, 3), g_p (N, 3), H_cp (N, V, 6, 3).
    """
    cam, arm, zero, J = np.empty(3), np.empty(3), np.zeros(3), np.empty((2, 9))
    pixel, J_point = np.empty(2), np.empty((2, 3))
    cost = 0.0
    for p in range(len(points)):
        for v in range(len(t)):
            if not np.isfinite(xy[v, p, 0] + points[p, 0]):
                continue
            xx, cross, yy = information[v, p]
            _transform(R[v], t[v], points[p], cam)
            if not project_point_slope(model[v], parameters[v], cam[0], cam[1], cam[2], pixel, J_point):
                cost += 0.5 * robust(loss, UNSEEN_PX**2 * (xx + yy), scale)[0]
                continue
            r0, r1 = pixel[0] - xy[v, p, 0], pixel[1] - xy[v, p, 1]
            q0, q1 = xx * r0 + cross * r1, cross * r0 + yy * r1
            rho, weight, _ = robust(loss, r0 * q0 + r1 * q1, scale)
            cost += 0.5 * rho
            _transform(R[v], zero, points[p], arm)
            _cross_columns(J_point, arm, J)
            for row in range(2):
                for c in range(3):
                    J[row, 3 + c] = J_point[row, c]
                    J[row, 6 + c] = (
                        J_point[row, 0] * R[v, 0, c] + J_point[row, 1] * R[v, 1, c] + J_point[row, 2] * R[v, 2, c]
                    )
            for a in range(9):
                j0 = weight * (xx * J[0, a] + cross * J[1, a])
                j1 = weight * (cross * J[0, a] + yy * J[1, a])
                gradient = j0 * r0 + j1 * r1
                if a < 6:
                    g_c[v, a] += gradient
                    for c in range(6):
                        H_cc[v, a, c] += j0 * J[0, c] + j1 * J[1, c]
                    for c in range(3):
                        H_cp[p, v, a, c] += j0 * J[0, 6 + c] + j1 * J[1, 6 + c]
                else:
                    g_p[p, a - 6] += gradient
                    for c in range(3):
                        H_pp[p, a - 6, c] += j0 * J[0, 6 + c] + j1 * J[1, 6 + c]
    return cost


@njit(cache=True, error_model="numpy")
def point_equations(
    R: Floats, t: Floats, parameters: Floats, model: Ints, points: Floats, xy: Floats, information: Floats, loss: int,
    scale: float, H: Floats, g: Floats, squared: Floats,
) -> float:  # fmt: skip
    """Points seen by cameras that are held. Returns the cost; adds to H (N, 3, 3), g (N, 3); squared (V, N) is set.

    points, xy, information as in `track_equations`; squared: squared lengths of the residuals over their sigma, NaN =
    unseen, inf = the camera cannot see the point where it is now.
    """
    cam, J = np.empty(3), np.empty((2, 3))
    pixel, J_point = np.empty(2), np.empty((2, 3))
    cost = 0.0
    for p in range(len(points)):
        for v in range(len(t)):
            squared[v, p] = np.nan
            if not np.isfinite(xy[v, p, 0] + points[p, 0]):
                continue
            xx, cross, yy = information[v, p]
            _transform(R[v], t[v], points[p], cam)
            if not project_point_slope(model[v], parameters[v], cam[0], cam[1], cam[2], pixel, J_point):
                squared[v, p] = np.inf
                cost += 0.5 * robust(loss, UNSEEN_PX**2 * (xx + yy), scale)[0]
                continue
            r0, r1 = pixel[0] - xy[v, p, 0], pixel[1] - xy[v, p, 1]
            q0, q1 = xx * r0 + cross * r1, cross * r0 + yy * r1
            squared[v, p] = r0 * q0 + r1 * q1
            rho, weight, _ = robust(loss, squared[v, p], scale)
            cost += 0.5 * rho
            for row in range(2):
                for c in range(3):
                    J[row, c] = (
                        J_point[row, 0] * R[v, 0, c] + J_point[row, 1] * R[v, 1, c] + J_point[row, 2] * R[v, 2, c]
                    )
            for a in range(3):
                g[p, a] += weight * (J[0, a] * q0 + J[1, a] * q1)
                for c in range(3):
                    H[p, a, c] += weight * (
                        J[0, a] * (xx * J[0, c] + cross * J[1, c]) + J[1, a] * (cross * J[0, c] + yy * J[1, c])
                    )
    return cost


def stepped(cameras: Packed, step: Floats) -> Packed:
    """The cameras after a step (V, 18 or more) that begins with RIG_PARAMETERS, or (V, 6) with the intrinsics held."""
    parameters = cameras.parameters.copy()
    parameters[:, : step[:, 6:18].shape[1]] += step[:, 6:18]
    return replace(cameras, R=exp_so3(step[:, :3]) @ cameras.R, t=cameras.t + step[:, 3:6], parameters=parameters)


def with_cameras(rig: CameraRig, packed: Packed) -> CameraRig:
    """The rig with these poses and intrinsics; the covariance is dropped."""
    cameras = []
    for i, camera in enumerate(rig):
        old = camera.intrinsics
        new = Intrinsics.from_parameters(old.size, packed.parameters[i], old.model, len(old.dist))
        cameras.append(replace(camera, intrinsics=new, R=packed.R[i], t=packed.t[i]))
    return CameraRig(tuple(cameras), rig.unit)


def block_diagonal(blocks: Floats) -> Floats:
    """(n, m, m) -> (n m, n m)."""
    n, size, _ = blocks.shape
    out = np.zeros((n, size, n, size))
    out[np.arange(n), :, np.arange(n)] = blocks
    return out.reshape(n * size, n * size)
