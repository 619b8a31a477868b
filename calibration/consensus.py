"""Which views agree on a point, and where is it? Compiled triangulation, one point at a time, for `geometry`.

A rig is an array (V, 29), one row a camera (`camera_rows`); an observation is a pixel (2,), NaN where missing, and its
information (3,) = xx, xy, yy of the inverse covariance in px. Distances are in standard deviations of the observations.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from calibration.camera import project_point, project_point_slope

__all__ = ["camera_rows", "linear_points", "robust_points"]

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

TRANSLATION, CENTER, MODEL, PARAMETERS = 9, 12, 15, 16
"""Where in a camera's row they begin: R (9 numbers) comes first, the intrinsics (`Intrinsics.row`) last."""
_MANY = 12
"""Views up to which every set of them may be tried."""
_STEPS = 20
_STEP_TOLERANCE = 1e-5
"""Gauss-Newton steps of one point at most, and the squared step, in standard deviations of the point, that ends
them."""
_SINGULAR = 1e-14
"""Determinant of a 3x3 normal matrix, relative to its cubed trace, below which rays count as parallel."""


def camera_rows(R: Array, t: Array, model: NDArray[np.int64], parameters: Array) -> Array:
    """A packed rig as (V, 29): of each camera R, t, center, model, parameters."""
    centers = -(t[:, None, :] @ R)[:, 0]
    return np.column_stack((R.reshape(-1, 9), t, centers, model, parameters))


def linear_points(rays: Array, weights: Array, cameras: Array) -> Array:
    """Points (P, 3) of least weighted squared distance to their rays (P, V, 3); weights (P, V). NaN where not
    determined."""
    out = np.full((len(rays), 3), np.nan)
    _linear_points(rays, weights, cameras, out)
    return out


def robust_points(
    rays: Array, xy: Array, information: Array, cameras: Array, gate: float, max_error: float, min_views: int
) -> tuple[Array, Array, Array, Array, Bools]:
    """Robust points of rays (P, V, 3), xy (P, V, 2) and information (P, V, 3); see `geometry.triangulate_points`.

    Returns points (P, 3), covariances (P, 3, 3), reprojection errors (P,) px, chi-squares (P,) over the views used (P,
    V).
    """
    n, views = xy.shape[:2]
    points, covariance = np.full((n, 3), np.nan), np.full((n, 3, 3), np.nan)
    error, squares = np.full(n, np.nan), np.full(n, np.nan)
    used, strained = np.zeros((n, views), dtype=np.bool_), np.zeros(n, dtype=np.bool_)
    _agreements(rays, xy, information, cameras, (gate, max_error, min_views), points, used, strained)
    _refinements(xy, information, cameras, points, used, covariance, error, squares)
    poor = np.where(strained, np.maximum(squares / np.maximum(2 * used.sum(axis=1) - 3, 1), 1.0), 1.0)
    return points, covariance * poor[:, None, None], error, squares, used


@njit(cache=True, error_model="numpy")
def _linear_points(rays: Array, weights: Array, cameras: Array, out: Array) -> None:
    seen, normal = np.empty(rays.shape[1], np.bool_), np.empty((3, 3))
    for i in range(len(rays)):
        if _whole(rays[i], seen) < 2 or not _meeting(rays[i], seen, weights[i], cameras, normal, out[i]):
            _fill(out[i], np.nan)


@njit(cache=True, error_model="numpy")
def _agreements(
    rays: Array, xy: Array, information: Array, cameras: Array, limits: tuple[float, float, int],
    points: Array, used: Bools, strained: Bools,
) -> None:  # fmt: skip
    """Which views agree on each point, and its linear point; strained where they do so only with the gate lifted."""
    gate, max_error, min_views = limits
    views = rays.shape[1]
    seen, weights = np.empty(views, np.bool_), np.empty(views)
    for i in range(len(rays)):
        _whole(rays[i], seen)
        for view in range(views):
            weights[view] = 0.5 * (information[i, view, 0] + information[i, view, 2])
        found = False
        for limit in (gate, np.inf):
            if not found:
                strained[i] = limit > gate
                found = _agreeing(
                    rays[i],
                    seen,
                    weights,
                    xy[i],
                    information[i],
                    cameras,
                    limit,
                    max_error,
                    min_views,
                    used[i],
                    points[i],
                )
        if not found:
            _fill(points[i], np.nan)
            _fill(used[i], False)


@njit(cache=True, error_model="numpy")
def _refinements(
    xy: Array, information: Array, cameras: Array, points: Array, used: Bools,
    covariance: Array, error: Array, squares: Array,
) -> None:  # fmt: skip
    """Points refined in place, over the views used; what cannot be refined is no point."""
    pixel, normal = np.empty(2), np.empty((3, 3))
    for i in range(len(points)):
        if math.isnan(points[i, 0]):
            continue
        if not (
            _refine(xy[i], information[i], cameras, used[i], points[i], normal) and _inverse(normal, covariance[i])
        ):
            _fill(points[i], np.nan)
            _fill(used[i], False)
            continue
        squared, count, squares[i] = 0.0, 0, 0.0
        for view in range(len(used[i])):
            if used[i, view]:
                squares[i] += _distance(points[i], view, xy[i], information[i], cameras, pixel)
                squared += (pixel[0] - xy[i, view, 0]) ** 2 + (pixel[1] - xy[i, view, 1]) ** 2
                count += 1
        error[i] = math.sqrt(squared / count)


@njit(cache=True, error_model="numpy")
def _fill(array: Array | Bools, value: float) -> None:
    for i in range(len(array)):
        array[i] = value


@njit(cache=True, error_model="numpy")
def _copy(source: Array | Bools, target: Array | Bools) -> None:
    for i in range(len(source)):
        target[i] = source[i]


@njit(cache=True, error_model="numpy")
def _whole(rays: Array, seen: Bools) -> int:
    """How many of one point's rays (V, 3) there are, and which."""
    count = 0
    for view in range(len(rays)):
        seen[view] = not math.isnan(rays[view, 0])
        count += seen[view]
    return count


@njit(cache=True, error_model="numpy")
def _inverse(matrix: Array, out: Array) -> bool:
    """Inverse of a symmetric positive 3x3 matrix; False where it is singular."""
    a, b, c = matrix[0, 0], matrix[0, 1], matrix[0, 2]
    d, e, f = matrix[1, 1], matrix[1, 2], matrix[2, 2]
    A, B, C = d * f - e * e, c * e - b * f, b * e - c * d
    determinant, trace = a * A + b * B + c * C, a + d + f
    if not determinant > _SINGULAR * trace * trace * trace:
        return False
    out[0, 0], out[0, 1], out[0, 2] = A / determinant, B / determinant, C / determinant
    out[1, 1], out[1, 2], out[2, 2] = (
        (a * f - c * c) / determinant,
        (b * c - a * e) / determinant,
        (a * d - b * b) / determinant,
    )
    out[1, 0], out[2, 0], out[2, 1] = out[0, 1], out[0, 2], out[1, 2]
    return True


@njit(cache=True, error_model="numpy")
def _meeting(rays: Array, chosen: Bools, weights: Array, cameras: Array, normal: Array, out: Array) -> bool:
    """The point (3,) of least weighted squared distance to the chosen rays; False where they are parallel."""
    for i in range(3):
        _fill(normal[i], 0.0)
    b0, b1, b2 = 0.0, 0.0, 0.0
    for view in range(len(rays)):
        if not chosen[view]:
            continue
        w, d, c = weights[view], rays[view], cameras[view, CENTER:MODEL]
        along = d[0] * c[0] + d[1] * c[1] + d[2] * c[2]
        b0 += w * (c[0] - along * d[0])
        b1 += w * (c[1] - along * d[1])
        b2 += w * (c[2] - along * d[2])
        for i in range(3):
            normal[i, i] += w
            for j in range(i, 3):
                normal[i, j] -= w * d[i] * d[j]
    if not _inverse(normal, normal):
        return False
    for i in range(3):
        out[i] = normal[i, 0] * b0 + normal[i, 1] * b1 + normal[i, 2] * b2
    return True


@njit(cache=True, error_model="numpy")
def _in_camera(camera: Array, point: Array) -> tuple[float, float, float]:
    x, y, z = point[0], point[1], point[2]
    return (
        camera[0] * x + camera[1] * y + camera[2] * z + camera[TRANSLATION],
        camera[3] * x + camera[4] * y + camera[5] * z + camera[TRANSLATION + 1],
        camera[6] * x + camera[7] * y + camera[8] * z + camera[TRANSLATION + 2],
    )


@njit(cache=True, error_model="numpy")
def _distance(point: Array, view: int, xy: Array, information: Array, cameras: Array, pixel: Array) -> float:
    """Squared distance of a point's projection, left in pixel (2,), from the observation; infinite where it has
    none."""
    camera = cameras[view]
    x, y, z = _in_camera(camera, point)
    if not project_point(int(camera[MODEL]), camera[PARAMETERS:], x, y, z, pixel):
        return np.inf
    u, v = pixel[0] - xy[view, 0], pixel[1] - xy[view, 1]
    return information[view, 0] * u * u + 2.0 * information[view, 1] * u * v + information[view, 2] * v * v


@njit(cache=True, error_model="numpy")
def _agreeing(
    rays: Array, seen: Bools, weights: Array, xy: Array, information: Array, cameras: Array,
    gate: float, max_error: float, min_views: int, used: Bools, best: Array,
) -> bool:  # fmt: skip
    """The largest set of views that agree, and its point (3,); of several the one with the least chi-square.

    Beyond `_MANY` views the one whose ray passes farthest from the point of all goes first, one at a time; after that
    every set is tried, largest first. False where no two views agree.
    """
    total, members, point, chosen = 0, np.empty(len(seen), np.int64), np.empty(3), np.empty(len(seen), np.bool_)
    for view in range(len(seen)):
        used[view] = seen[view]
        total += seen[view]
    while total > _MANY and not _fit(rays, used, weights, xy, information, cameras, gate, max_error, best) < np.inf:
        used[_farthest(rays, used, cameras, best)] = False
        total -= 1
    k = 0
    for view in range(len(seen)):
        chosen[view] = used[view]
        if used[view]:
            members[k] = view
            k += 1
    for dropped in range(total - min_views + 1):
        least = np.inf
        out, last = (1 << dropped) - 1, 1 << total
        while out < last:
            for k in range(total):
                chosen[members[k]] = not (out >> k) & 1
            cost = _fit(rays, chosen, weights, xy, information, cameras, gate, max_error, point)
            if cost < least:
                least = cost
                _copy(chosen, used)
                _copy(point, best)
            if dropped == 0:
                break
            low = out & -out  # the next larger number with as many bits (Gosper)
            high = out + low
            out = high | (((out ^ high) >> 2) // low)
        if least < np.inf:
            return True
    return False


@njit(cache=True, error_model="numpy")
def _fit(
    rays: Array, chosen: Bools, weights: Array, xy: Array, information: Array, cameras: Array,
    gate: float, max_error: float, point: Array,
) -> float:  # fmt: skip
    """Chi-square of the chosen views at the point (3,) nearest to their rays; infinite where they disagree."""
    normal, pixel = np.empty((3, 3)), np.empty(2)
    if not _meeting(rays, chosen, weights, cameras, normal, point):
        return np.inf
    cost, error, count = 0.0, 0.0, 0
    for view in range(len(chosen)):
        if not chosen[view]:
            continue
        depth = 0.0
        for k in range(3):
            depth += rays[view, k] * (point[k] - cameras[view, CENTER + k])
        squared = _distance(point, view, xy, information, cameras, pixel)
        if not (depth > 0.0 and squared <= gate):
            return np.inf
        cost += squared
        error += math.hypot(pixel[0] - xy[view, 0], pixel[1] - xy[view, 1])
        count += 1
    return cost if error <= max_error * count else np.inf


@njit(cache=True, error_model="numpy")
def _farthest(rays: Array, chosen: Bools, cameras: Array, point: Array) -> int:
    """The chosen view whose ray misses the point (3,) by the largest angle."""
    worst, least = 0, np.inf
    for view in range(len(chosen)):
        if chosen[view]:
            along, length2 = 0.0, 0.0
            for k in range(3):
                arm = point[k] - cameras[view, CENTER + k]
                along += rays[view, k] * arm
                length2 += arm * arm
            cosine = along / math.sqrt(length2)
            if cosine < least:
                worst, least = view, cosine
    return worst


@njit(cache=True, error_model="numpy")
def _refine(xy: Array, information: Array, cameras: Array, used: Bools, point: Array, normal: Array) -> bool:
    """Gauss-Newton on the pixels of the used views, halving steps that lead uphill; False where they do not fix the
    point."""
    gradient, step, trial, inverse = np.empty(3), np.zeros(3), np.empty(3), np.empty((3, 3))
    scratch = (np.empty(2), np.empty((2, 3)), np.empty((2, 3)))
    _copy(point, trial)
    least, length = np.inf, np.inf
    for _ in range(_STEPS):
        cost = _linearise(xy, information, cameras, used, trial, normal, gradient, scratch)
        if cost <= least and cost < np.inf:
            least = cost
            _copy(trial, point)
            if not _inverse(normal, inverse):
                return False
            length = 0.0
            for i in range(3):
                step[i] = -(inverse[i, 0] * gradient[0] + inverse[i, 1] * gradient[1] + inverse[i, 2] * gradient[2])
                length -= step[i] * gradient[i]
        else:
            for i in range(3):
                step[i] *= 0.5
        for i in range(3):
            trial[i] = point[i] + step[i]
        if least < np.inf and length <= _STEP_TOLERANCE:
            _copy(trial, point)
            return True
    return least < np.inf


@njit(cache=True, error_model="numpy")
def _linearise(
    xy: Array, information: Array, cameras: Array, used: Bools, point: Array, normal: Array, gradient: Array,
    scratch: tuple[Array, Array, Array],
) -> float:  # fmt: skip
    """Sum of squared distances of the used views; normal = J^T W J (3, 3) and gradient = J^T W r (3,), by the point."""
    pixel, J, J_world = scratch
    _fill(gradient, 0.0)
    for i in range(3):
        _fill(normal[i], 0.0)
    cost = 0.0
    for view in range(len(used)):
        if not used[view]:
            continue
        camera = cameras[view]
        x, y, z = _in_camera(camera, point)
        if not project_point_slope(int(camera[MODEL]), camera[PARAMETERS:], x, y, z, pixel, J):
            return np.inf
        xx, mixed, yy = information[view, 0], information[view, 1], information[view, 2]
        u, v = pixel[0] - xy[view, 0], pixel[1] - xy[view, 1]
        wu, wv = xx * u + mixed * v, mixed * u + yy * v
        cost += u * wu + v * wv
        for i in range(3):
            du = J[0, 0] * camera[i] + J[0, 1] * camera[3 + i] + J[0, 2] * camera[6 + i]
            dv = J[1, 0] * camera[i] + J[1, 1] * camera[3 + i] + J[1, 2] * camera[6 + i]
            J_world[0, i], J_world[1, i] = du, dv
            gradient[i] += du * wu + dv * wv
            pu, pv = xx * du + mixed * dv, mixed * du + yy * dv
            for j in range(i + 1):
                normal[j, i] += pu * J_world[0, j] + pv * J_world[1, j]
    return cost
