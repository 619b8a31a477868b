"""How do frames turn into one another? SO(3) and SE(3): exp and log, compose, invert, mean rotation, similarity.

A rigid transform is a pair (R, t), named `a_from_b`: x_a = R @ x_b + t. Everything is batched over leading axes `...`,
and NaN in gives NaN out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.errors import InputError

__all__ = ["apply", "compose", "exp_so3", "invert", "log_so3", "mean_rotation", "similarity", "skew"]

Array = NDArray[np.float64]


def skew(w: ArrayLike) -> Array:
    """(..., 3) -> (..., 3, 3), the matrix with skew(w) @ v = w x v."""
    w = np.asarray(w, dtype=np.float64)
    out = np.zeros((*w.shape, 3))
    out[..., 0, 1], out[..., 0, 2], out[..., 1, 2] = -w[..., 2], w[..., 1], -w[..., 0]
    return out - np.swapaxes(out, -1, -2)


def exp_so3(w: ArrayLike) -> Array:
    """Rotation vectors (..., 3) in rad -> rotation matrices (..., 3, 3): Rodrigues' formula, exact at 0."""
    w = np.asarray(w, dtype=np.float64)
    angle = np.linalg.norm(w, axis=-1)[..., None, None]
    generator = skew(w)
    half = np.sinc(angle / (2 * np.pi))  # sin(angle / 2) / (angle / 2)
    return np.eye(3) + np.sinc(angle / np.pi) * generator + 0.5 * half**2 * (generator @ generator)


def log_so3(R: ArrayLike) -> Array:
    """Rotation matrices (..., 3, 3) -> rotation vectors (..., 3) of length 0..pi rad, accurate at 0 and at pi.

    Goes through the unit quaternion, taken from the largest of its four components (Shepperd 1978).
    """
    R = np.asarray(R, dtype=np.float64)
    outer = np.empty((*R.shape[:-2], 4, 4))  # 4 q q^T, q = (w, x, y, z)
    trace = np.trace(R, axis1=-2, axis2=-1)
    outer[..., 0, 0] = 1 + trace
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        outer[..., i + 1, i + 1] = 1 + 2 * R[..., i, i] - trace
        outer[..., 0, i + 1] = outer[..., i + 1, 0] = R[..., k, j] - R[..., j, k]
        outer[..., j + 1, k + 1] = outer[..., k + 1, j + 1] = R[..., j, k] + R[..., k, j]
    largest = np.argmax(np.diagonal(outer, axis1=-2, axis2=-1), axis=-1)
    q = np.take_along_axis(outer, largest[..., None, None], axis=-2)[..., 0, :]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    q = np.where(q[..., :1] < 0, -q, q)
    length = np.linalg.norm(q[..., 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(length, q[..., :1])
    return q[..., 1:] * (angle / np.where(length > 0, length, 1.0))


def invert(R: ArrayLike, t: ArrayLike) -> tuple[Array, Array]:
    """a_from_b (R (..., 3, 3), t (..., 3)) -> b_from_a."""
    R, t = np.asarray(R, dtype=np.float64), np.asarray(t, dtype=np.float64)
    back = np.swapaxes(R, -1, -2)
    return back, -(back @ t[..., None])[..., 0]


def compose(R_ab: ArrayLike, t_ab: ArrayLike, R_bc: ArrayLike, t_bc: ArrayLike) -> tuple[Array, Array]:
    """a_from_b and b_from_c -> a_from_c."""
    R_ab, t_bc = np.asarray(R_ab, dtype=np.float64), np.asarray(t_bc, dtype=np.float64)
    return R_ab @ np.asarray(R_bc), (R_ab @ t_bc[..., None])[..., 0] + np.asarray(t_ab)


def apply(R: ArrayLike, t: ArrayLike, points: ArrayLike) -> Array:
    """Points (..., n, 3) in frame b -> the same points in frame a, by a_from_b (R (..., 3, 3), t (..., 3))."""
    return np.asarray(points) @ np.swapaxes(np.asarray(R), -1, -2) + np.asarray(t)[..., None, :]


def mean_rotation(R: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """The rotation (3, 3) nearest to all of R (n, 3, 3) in the sum of squared matrix distances (chordal mean).

    weights: (n,) non-negative; default equal.
    """
    R = np.asarray(R, dtype=np.float64)
    weight = np.ones(len(R)) if weights is None else np.asarray(weights, dtype=np.float64)
    return _nearest_rotation(np.tensordot(weight, R, axes=1))


def similarity(source: ArrayLike, target: ArrayLike, weights: ArrayLike | None = None) -> tuple[float, Array, Array]:
    """(scale, R (3, 3), t (3,)) with target ~ scale * R @ source + t, least squares (Umeyama 1991).

    source, target: (n, 3), n >= 3, not on a line. Rows with a NaN are left out. weights: (n,), default equal.
    Raises InputError when fewer than three rows are whole.
    """
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    weight = np.ones(len(source)) if weights is None else np.asarray(weights, dtype=np.float64)
    whole = np.isfinite(source).all(axis=1) & np.isfinite(target).all(axis=1) & (weight > 0)
    if whole.sum() < 3:
        raise InputError(f"similarity: expected at least 3 common points, got {int(whole.sum())}; give more points")
    a, b, weight = source[whole], target[whole], weight[whole] / weight[whole].sum()
    a_mean, b_mean = weight @ a, weight @ b
    a, b = a - a_mean, b - b_mean
    covariance = b.T @ (weight[:, None] * a)
    R = _nearest_rotation(covariance)
    scale = float(np.sum(R * covariance) / (weight @ (a**2).sum(axis=1)))
    return scale, R, b_mean - scale * R @ a_mean


def _nearest_rotation(matrix: NDArray[Any]) -> Array:
    """The rotation that maximises trace(R^T matrix)."""
    u, _, vt = np.linalg.svd(matrix)
    u[:, 2] *= np.sign(np.linalg.det(u @ vt))
    return u @ vt
