"""How noisy is what each camera sees of points? From how well the views agree, camera by camera."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2

from calibration.camera import project_jacobian
from calibration.geometry import TriangulationOptions, estimate_noise, triangulate_points
from calibration.rig import CameraRig
from calibration.transforms import apply

__all__ = ["ViewNoise", "view_noise"]

Array = NDArray[np.float64]

CONFIDENCE = 0.999
"""Share of right observations that count; what is farther off is no noise, but a mistake."""
ROUNDS, UPDATES = 4, 6
"""Triangulations with the noise known so far, and updates of the noise between two of them."""
LEAST_DOF = 10
"""Degrees of freedom from which on anything is said: the standard error is 22 % then."""
ALIKE = 1.5
"""SD of the logarithms of the views' variances, expected before any is seen: one is twice as noisy as another."""
LEAST_PX = 1e-3


@dataclass(frozen=True, eq=False)
class ViewNoise:
    """sd: (V,) px, standard deviation in each coordinate. se: (V,) px, its standard error if points do not depend on
    each other. n: (V,) observations that it is from. NaN and 0 where there are too few points."""

    sd: Array
    se: Array
    n: NDArray[np.int64]


def view_noise(xy: ArrayLike, rig: CameraRig) -> ViewNoise:
    """The noise of each view from points (V, P, 2) px that two or more see, NaN = missing.

    Points are triangulated robustly, so that mistakes (beyond CONFIDENCE) do not count. The variances are those that
    make the residuals likeliest, points left free (restricted maximum likelihood, Patterson & Thompson 1971, by Fisher
    scoring on their logarithms): each view's squared residuals are then what its share of the degrees of freedom lets
    expect. Where points hardly tell one view's noise from another's, as those of two views do, ALIKE makes them nearly
    the same. What a keypoint's place differs from view to view counts as noise, and so does an error of the rig; noise
    along the epipolar line of two views cannot be seen and is taken to be as large as across it. Raises InputError when
    shapes do not fit.
    """
    xy = np.asarray(xy, dtype=np.float64)
    options = TriangulationOptions(confidence=CONFIDENCE, max_error_px=math.inf)
    variance = np.full(len(rig), estimate_noise(xy, rig, options=options) ** 2)
    for _ in range(ROUNDS):
        covariance = np.broadcast_to(variance[:, None, None, None] * np.eye(2), (*xy.shape, 2))
        found = triangulate_points(xy, rig, covariance=covariance, options=options)
        residual, jacobian = _linearised(found.points, xy, found.seen, rig)
        good = np.asarray(np.isfinite(found.covariance).all(axis=(1, 2)))
        good[good] = _agree(residual[good], jacobian[good], found.seen.T[good], variance)
        residual, jacobian, seen = residual[good], jacobian[good], found.seen.T[good]
        dof = int((2 * seen.sum(axis=1) - 3).sum())
        if dof < LEAST_DOF:
            unknown = np.full(len(rig), np.nan)
            return ViewNoise(unknown, unknown, np.zeros(len(rig), dtype=np.int64))
        for _ in range(UPDATES):
            step, _ = _scored(residual, jacobian, seen, variance)
            variance = np.maximum(variance * np.exp(np.clip(step, -1, 1)), LEAST_PX**2)
    n, sd = seen.sum(axis=0), np.sqrt(variance)
    _, spread = _scored(residual, jacobian, seen, variance)
    return ViewNoise(np.where(n, sd, np.nan), np.where(n, sd * spread / 2, np.nan), n)


def _scored(residual: Array, jacobian: Array, seen: NDArray[np.bool_], variance: Array) -> tuple[Array, Array]:
    """The next step of the logarithms of the variances (V,), and the standard errors (V,) of these; views that see
    nothing stay and have 0."""
    some = np.asarray(seen.any(axis=0))
    projector, weighted = _projected(residual, jacobian, seen, variance)
    gradient = variance * ((weighted**2).sum(axis=(0, 2)) - np.einsum("pvivi->v", projector)) / 2
    information = (projector**2).sum(axis=(0, 2, 4)) * np.outer(variance, variance) / 2
    mean = np.eye(len(variance)) - some / some.sum()
    prior = np.where(np.outer(some, some), mean, 0.0) / ALIKE**2
    inverse = np.linalg.pinv(information + prior, hermitian=True)
    return inverse @ (gradient - prior @ np.log(variance)), np.sqrt(np.diag(inverse))


def _linearised(points: Array, xy: Array, seen: NDArray[np.bool_], rig: CameraRig) -> tuple[Array, Array]:
    """Residuals (P, V, 2) px and the projections' derivatives (P, V, 2, 3) by the points, 0 where not seen."""
    residual, jacobian = np.zeros((*seen.T.shape, 2)), np.zeros((*seen.T.shape, 2, 3))
    for v, camera in enumerate(rig):
        projected, J, _ = project_jacobian(apply(camera.R, camera.t, points), camera.intrinsics)
        residual[:, v] = np.where(seen[v][:, None], xy[v] - projected, 0.0)
        jacobian[:, v] = np.where(seen[v][:, None, None], J @ camera.R, 0.0)
    return residual, jacobian


def _projected(residual: Array, jacobian: Array, seen: NDArray[np.bool_], variance: Array) -> tuple[Array, Array]:
    """W - W J (J^T W J)^-1 J^T W of each point (P, V, 2, V, 2), and that times the residuals (P, V, 2)."""
    points, views = seen.shape
    weight = np.repeat(np.where(seen, 1 / variance, 0.0), 2, axis=1)  # (P, 2 V)
    J = jacobian.reshape(points, 2 * views, 3)
    WJ = weight[..., None] * J
    projector = weight[..., None] * np.eye(2 * views) - WJ @ np.linalg.solve(
        np.swapaxes(J, 1, 2) @ WJ, np.swapaxes(WJ, 1, 2)
    )
    weighted = (projector @ residual.reshape(points, 2 * views, 1)).reshape(residual.shape)
    return projector.reshape(points, views, 2, views, 2), weighted


def _agree(residual: Array, jacobian: Array, seen: NDArray[np.bool_], variance: Array) -> NDArray[np.bool_]:
    """(P,) whether the views that see a point agree on it."""
    _, weighted = _projected(residual, jacobian, seen, variance)
    limit = chi2.ppf(CONFIDENCE, 2 * np.maximum(seen.sum(axis=1), 2) - 3)
    return np.asarray((weighted * residual).sum(axis=(1, 2)) < limit)
