"""Where in space are points seen by several cameras, how sure is that, and which view is wrong?

Pixels become unit rays first, so that fisheye cameras that see beyond 90 degrees are like all others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2

from calibration.camera import (
    Camera,
    project_jacobian,
    rays_from_pixels,
)
from calibration.consensus import camera_rows, linear_points, robust_points
from calibration.errors import InputError
from calibration.rig import RIG_PARAMETERS, CameraRig
from calibration.transforms import apply, skew

__all__ = [
    "Triangulation",
    "TriangulationOptions",
    "epipolar_distance",
    "estimate_noise",
    "points_by_rig",
    "reprojection_errors",
    "rig_covariance_of_points",
    "triangulate_linear",
    "triangulate_points",
]

Array = NDArray[np.float64]

_NOISE_SAMPLE, _NOISE_ROUNDS = 4000, 4
"""Points, about, that the noise is estimated from, and how often they are triangulated anew with what it came to."""
_PRIOR_SHARE, _PRIOR_DOF = 0.0025, 20.0
"""Pixel noise, of the image diagonal, expected before any is seen, and the degrees of freedom that it weighs."""
_PARALLEL_PX = 3.0
"""Angle between rays, in pixels, below which it is noise on which side of the cameras they meet."""
_CHUNK = 4096
"""Points whose derivatives by the rig are held at a time."""
_ONE_RAY = 1e-12
"""Determinant of a point's normal matrix over its cubed trace, below which all views look along one ray."""


@dataclass(frozen=True)
class TriangulationOptions:
    """How `triangulate_points` decides.

    confidence: share of right observations that the chi-square gate (2 degrees of freedom) keeps.
    max_error_px: mean distance of the views' pixels from the point's projections, beyond which they do not show one
        thing, however noisy they are. Default as Pose2Sim's, from its practice.
    min_score: a lower score counts as missing. Default as Pose2Sim's.
    min_views: fewer agreeing views give no point; at least 2.
    noise_px: standard deviation, in each pixel coordinate, of an observation of score 1 that comes without covariance;
        None: estimated from the data (`estimate_noise`).
    """

    confidence: float = 0.999
    max_error_px: float = 15.0
    min_score: float = 0.3
    min_views: int = 2
    noise_px: float | None = None


@dataclass(frozen=True, eq=False)
class Triangulation:
    """Points (P, 3) with covariance (P, 3, 3) in the rig's unit, NaN where there is none; reprojection_error (P,) px,
    rms over the views used; seen (V, P) which views were used; noise_px as used, NaN where covariances were given."""

    points: Array
    covariance: Array
    reprojection_error: Array
    seen: NDArray[np.bool_]
    noise_px: float


def triangulate_points(
    xy: ArrayLike,
    rig: CameraRig,
    *,
    score: ArrayLike | None = None,
    covariance: ArrayLike | None = None,
    options: TriangulationOptions | None = None,
) -> Triangulation:
    """Robust maximum-likelihood points from pixels; one wrong view does not spoil a point that three others see.

    xy: (V, P, 2) px in the order of the rig's cameras; NaN = missing. score: (V, P); 0, or less than min_score
    = missing. covariance: (V, P, 2, 2) px squared. Where it is given it says all about the noise; where not, the
    standard deviation of an observation is noise_px / score, the same in both directions.

    Of each point the largest set of views is sought that agree: each within the chi-square gate, and all together
    within max_error_px, of the linear point of their rays; of several such sets the one with the least chi-square.
    That point is refined by Gauss-Newton on distorted pixels. Its covariance is (J^T W J)^-1 over the views used and
    leaves out the rig's own (`rig_covariance_of_points`). Where no two views agree so well the gate is lifted, and the
    covariance multiplied by chi-square per degree of freedom: two views that do not quite meet still give a point, and
    say how poor it is. A point behind a camera does not exist for it.
    Raises InputError when shapes do not fit.
    """
    options = options or TriangulationOptions()
    xy, information = _observations(xy, rig, score, covariance, options.min_score)
    noise = math.nan
    if covariance is None:
        noise = options.noise_px or _noise(xy, information, rig, options)
        information = information / noise**2
    points, spread, error, _, used = _robust(xy, information, rig, options)
    return Triangulation(points, spread, error, np.ascontiguousarray(used.T), noise)


def triangulate_linear(xy: ArrayLike, rig: CameraRig, weights: ArrayLike | None = None) -> Array:
    """Points (P, 3) in the rig's unit from pixels (V, P, 2), by linear least squares over all views; not robust.

    Minimises sum w |[ray]x (R X + t)|^2 over unit rays: the DLT with X inhomogeneous, which is the point of least
    squared distance to all rays. NaN where fewer than two views see the point or all rays are parallel. weights: (V,
    P), default 1.
    """
    xy, information = _observations(xy, rig, weights, None, 0.0)
    return linear_points(_rays(xy, rig), np.ascontiguousarray(np.sqrt(information[..., 0])), _rows(rig))


def estimate_noise(
    xy: ArrayLike, rig: CameraRig, *, score: ArrayLike | None = None, options: TriangulationOptions | None = None
) -> float:
    """Standard deviation in px, of each coordinate of an observation of score 1, from how well views agree.

    xy (V, P, 2), score (V, P) as in `triangulate_points`.
    """
    options = options or TriangulationOptions()
    xy, information = _observations(xy, rig, score, None, options.min_score)
    return _noise(xy, information, rig, options)


def reprojection_errors(points: ArrayLike, xy: ArrayLike, rig: CameraRig) -> Array:
    """Distances (V, ...) px between the projections of points (..., 3) and pixels (V, ..., 2); NaN where either is
    missing."""
    return np.linalg.norm(rig.project(points) - np.asarray(xy, dtype=np.float64), axis=-1)


def epipolar_distance(xy_a: ArrayLike, xy_b: ArrayLike, camera_a: Camera, camera_b: Camera) -> Array:
    """How far pixels (..., n, 2) of one camera and (..., m, 2) of another are from being one point: (..., n, m) px.

    The least root of summed squared moves of the two pixels after which their rays meet, to first order (Sampson
    1982), with the distortion taken into account. For the right pair under noise of 1 px in each coordinate it is
    |N(0, 1)|; the same with the cameras exchanged. NaN where a pixel is; infinite where the rays meet behind a camera.
    Rays that are parallel to within a few pixels pass as meeting in front.
    """
    baseline = camera_b.center - camera_a.center
    length = np.linalg.norm(baseline)
    if not length > 0:
        raise InputError(
            f"cameras '{camera_a.name}' and '{camera_b.name}' stand in one place; their rays say nothing of depth"
        )
    axis = baseline / length
    ray_a, px_a = _rays_and_scale(xy_a, camera_a)
    ray_b, px_b = _rays_and_scale(xy_b, camera_b)
    normal_a, normal_b = np.cross(ray_a, axis), np.cross(ray_b, axis)  # of the epipolar planes
    triple = ray_a @ np.swapaxes(normal_b, -1, -2)
    slope_a = np.maximum((normal_b**2).sum(-1)[..., None, :] - triple**2, 0.0) / px_a[..., :, None] ** 2
    slope_b = np.maximum((normal_a**2).sum(-1)[..., :, None] - triple**2, 0.0) / px_b[..., None, :] ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.abs(triple) / np.sqrt(slope_a + slope_b)
    distance = np.where(triple == 0, 0.0, distance)
    cosine = ray_a @ np.swapaxes(ray_b, -1, -2)
    along_a, along_b = (ray_a @ axis)[..., :, None], (ray_b @ axis)[..., None, :]
    behind = (along_a - cosine * along_b < 0) | (cosine * along_a - along_b < 0)
    apart = 1 - cosine**2 > _PARALLEL_PX**2 * (1 / px_a[..., :, None] ** 2 + 1 / px_b[..., None, :] ** 2)
    return np.where(behind & apart & np.isfinite(distance), np.inf, distance)


def rig_covariance_of_points(points: ArrayLike, seen: ArrayLike, rig: CameraRig) -> Array:
    """The rig's part (P, 3, 3) of the covariance of triangulated points: J S J^T, with S the rig's covariance.

    points: (P, 3). seen: (V, P) views used. J is the derivative of the least-squares point (equal weights in px) by
    the 18 parameters of each camera that saw it, by the implicit function theorem with residuals small. Zero for an
    exact rig; NaN where the point is NaN or two views did not see it.
    """
    points, seen = np.asarray(points, dtype=np.float64), np.asarray(seen, dtype=bool)
    if rig.covariance is None:
        return np.where(np.isnan(points)[..., None], np.nan, np.zeros((*points.shape, 3)))
    out = np.empty((len(points), 3, 3))
    for start in range(0, len(points), _CHUNK):
        part = slice(start, start + _CHUNK)
        J = points_by_rig(points[part], seen[:, part], rig)[0]
        out[part] = J @ rig.covariance @ np.swapaxes(J, -1, -2)
    return out


def points_by_rig(points: Array, seen: NDArray[np.bool_], rig: CameraRig) -> tuple[Array, Array]:
    """Derivative (P, 3, 18 V) of least-squares points (P, 3) by the rig's parameters, NaN as above and where all views
    look along one ray, and the points' own normal matrix (P, 3, 3) per squared px, whose inverse is their covariance
    under 1 px of noise. seen: (V, P)."""
    width = len(RIG_PARAMETERS)
    by_rig = np.zeros((len(points), 3, width * len(rig)))
    normal = np.zeros((len(points), 3, 3))
    for i, camera in enumerate(rig):
        x_cam = apply(camera.R, camera.t, points)
        _, J_cam, J_intrinsic = project_jacobian(x_cam, camera.intrinsics)
        J_turn = -J_cam @ skew(x_cam - camera.t)
        J = np.where(seen[i][:, None, None], np.concatenate((J_turn, J_cam, J_intrinsic), axis=-1), 0.0)
        J_point = np.swapaxes(np.where(seen[i][:, None, None], J_cam @ camera.R, 0.0), -1, -2)
        normal += J_point @ np.swapaxes(J_point, -1, -2)
        by_rig[:, :, width * i : width * (i + 1)] = -J_point @ J
    solvable = np.isfinite(normal).all(axis=(1, 2)) & (seen.sum(axis=0) >= 2)
    solvable[solvable] = np.linalg.det(normal[solvable]) > _ONE_RAY * np.trace(normal[solvable], axis1=1, axis2=2) ** 3
    by_rig[solvable] = np.linalg.solve(normal[solvable], by_rig[solvable])
    by_rig[~solvable] = np.nan
    return by_rig, normal


def _rays_and_scale(xy: ArrayLike, camera: Camera) -> tuple[Array, Array]:
    """World rays (..., n, 3) of pixels and pixels per radian (..., n) there, the geometric mean over directions."""
    rays = rays_from_pixels(xy, camera.intrinsics)
    J = project_jacobian(rays, camera.intrinsics)[1]
    squared = J @ np.swapaxes(J, -1, -2)
    determinant = squared[..., 0, 0] * squared[..., 1, 1] - squared[..., 0, 1] ** 2
    return rays @ camera.R, determinant**0.25


def _observations(
    xy: ArrayLike, rig: CameraRig, score: ArrayLike | None, covariance: ArrayLike | None, min_score: float
) -> tuple[Array, Array]:
    """Pixels (P, V, 2), NaN where not to be used, and their information (P, V, 3) = xx, xy, yy of the inverse
    covariance."""
    xy = np.asarray(xy, dtype=np.float64)
    if xy.ndim != 3 or xy.shape[0] != len(rig) or xy.shape[2] != 2:
        raise InputError(f"xy: expected ({len(rig)} views, points, 2), got {xy.shape}; one row a camera of the rig")
    weight = np.ones(xy.shape[:2]) if score is None else np.asarray(score, dtype=np.float64)
    if weight.shape != xy.shape[:2]:
        raise InputError(f"score: expected {xy.shape[:2]}, got {weight.shape}")
    if covariance is None:
        information = np.stack((weight**2, np.zeros_like(weight), weight**2), axis=-1)
    else:
        covariance = np.asarray(covariance, dtype=np.float64)
        if covariance.shape != (*xy.shape, 2):
            raise InputError(f"covariance: expected {(*xy.shape, 2)}, got {covariance.shape}")
        xx, mixed, yy = covariance[..., 0, 0], covariance[..., 0, 1], covariance[..., 1, 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            information = np.stack((yy, -mixed, xx), axis=-1) / (xx * yy - mixed**2)[..., None]
    usable = (weight > 0) & (weight >= min_score) & np.isfinite(information).all(axis=-1) & (information[..., 0] > 0)
    xy = np.where(usable[..., None], xy, np.nan)
    return np.ascontiguousarray(xy.swapaxes(0, 1)), np.ascontiguousarray(information.swapaxes(0, 1))


def _rows(rig: CameraRig) -> Array:
    packed = rig.packed()
    return camera_rows(packed.R, packed.t, packed.model, packed.parameters)


def _rays(xy: Array, rig: CameraRig) -> Array:
    """World rays (P, V, 3) of pixels (P, V, 2)."""
    return np.ascontiguousarray(rig.rays(xy.swapaxes(0, 1)).swapaxes(0, 1))


def _robust(
    xy: Array, information: Array, rig: CameraRig, options: TriangulationOptions
) -> tuple[Array, Array, Array, Array, NDArray[np.bool_]]:
    gate = float(chi2.ppf(options.confidence, 2))
    rays = _rays(xy, rig)
    return robust_points(rays, xy, information, _rows(rig), gate, options.max_error_px, max(options.min_views, 2))


def _noise(xy: Array, information: Array, rig: CameraRig, options: TriangulationOptions) -> float:
    """`estimate_noise` of prepared observations.

    From evenly chosen points, triangulated robustly with the noise known so far: the median over points of chi-square
    per degree of freedom, 2 views - 3, against the median that it would have for Gaussian noise. Few points are
    blended with a prior: 0.25 % of the image diagonal, counting as much as ten views.
    """
    seen = np.isfinite(xy[..., 0]).sum(axis=1)
    rows = np.flatnonzero(seen >= (3 if (seen >= 3).any() else 2))
    rows = rows[:: max(1, len(rows) // _NOISE_SAMPLE)]
    prior = _PRIOR_SHARE * float(np.mean([math.hypot(*camera.intrinsics.size) for camera in rig]))
    noise = 4 * prior
    for _ in range(_NOISE_ROUNDS):
        _, _, _, squares, used = _robust(xy[rows], information[rows] / noise**2, rig, options)
        dof = 2 * used.sum(axis=1) - 3
        valid = dof > 0
        if not valid.any():
            return prior
        ratio = squares[valid] * noise**2 / (dof[valid] * (1 - 2 / (9 * dof[valid])) ** 3)
        total = dof[valid].sum()
        noise = math.sqrt((np.median(ratio) * total + prior**2 * _PRIOR_DOF) / (total + _PRIOR_DOF))
    return noise
