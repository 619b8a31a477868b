"""Where is a point going, and how sure is that? Constant-velocity filter and RTS smoother, batched over tracks.

The state of a point in D dimensions is (position, velocity), 2 D numbers in that order; velocity is per second where
the step is in seconds, per frame where it is in frames. Any number of points (tracks, keypoints) stands in leading
axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = [
    "Filtered",
    "Motion",
    "adapted",
    "estimate_motion",
    "filter_series",
    "motion_from_moments",
    "predict",
    "smooth_series",
    "start",
    "update",
]

Array = NDArray[Any]

_CLIP = 4.0
"""Second differences beyond this many robust standard deviations count as this many: wrong links must not set the
noise."""
_RATE, _WORST_RATIO = 0.2, 4.0
"""How fast the acceleration follows the innovations, per step, and what a single one counts at most."""


@dataclass(frozen=True)
class Motion:
    """How points move, and how well they are measured; variances per coordinate in squared units of the points.

    Each is a number, or an array (...) that broadcasts against the points, such as one value a keypoint.

    acceleration: variance of the piecewise constant acceleration (unit / step squared, squared).
    walk: variance of a random walk of the position, per step.
    measurement: variance of the white measurement noise.
    """

    acceleration: Array | float
    walk: Array | float
    measurement: Array | float

    def matrices(self, step: float = 1.0) -> tuple[Array, Array]:
        """F (2, 2) and Q (..., 2, 2) over (position, velocity) of one coordinate, for a step of that many frames (or
        seconds)."""
        F = np.array([[1.0, step], [0.0, 1.0]])
        Q = np.asarray(self.acceleration)[..., None, None] * _white_acceleration(float(step))
        Q[..., 0, 0] += np.asarray(self.walk) * step
        return F, Q


@lru_cache(maxsize=64)
def _white_acceleration(step: float) -> Array:
    """(2, 2) covariance of filterpy's discrete white noise model with variance 1."""
    from filterpy.common import Q_discrete_white_noise

    return np.asarray(Q_discrete_white_noise(2, dt=step, var=1.0))


def start(measured: Array, noise: Array, velocity_variance: Array | float) -> tuple[Array, Array]:
    """First state of points: position as measured (..., D) with covariance noise (..., D, D), velocity 0.

    velocity_variance: (...) per coordinate. Where measured is NaN the state is NaN.
    Returns mean (..., 2 D) and covariance (..., 2 D, 2 D).
    """
    D = measured.shape[-1]
    mean = np.concatenate([measured, np.where(np.isnan(measured), np.nan, 0.0)], axis=-1)
    covariance = np.zeros((*measured.shape[:-1], 2 * D, 2 * D))
    covariance[..., :D, :D] = noise
    velocity = np.arange(D, 2 * D)
    covariance[..., velocity, velocity] = np.asarray(velocity_variance)[..., None]
    return mean, covariance


def predict(mean: Array, covariance: Array, motion: Motion, step: float = 1.0) -> tuple[Array, Array]:
    """The state after `step`: F x and F P F' + Q, shapes as they came; NaN stays NaN (Kalman 1960)."""
    F, Q = motion.matrices(step)
    S = mean.shape[-1]
    out_mean, out_covariance = np.empty(mean.shape), np.empty(covariance.shape)
    _predict(
        np.ascontiguousarray(mean).reshape(-1, S),
        np.ascontiguousarray(covariance).reshape(-1, S, S),
        F,
        np.ascontiguousarray(np.broadcast_to(Q, (*mean.shape[:-1], 2, 2))).reshape(-1, 2, 2),
        out_mean.reshape(-1, S),
        out_covariance.reshape(-1, S, S),
    )
    return out_mean, out_covariance


def update(
    mean: Array, covariance: Array, measured: Array, noise: Array, limit: float = np.inf
) -> tuple[Array, Array, Array]:
    """The state after a measurement (..., D) with covariance noise (..., D, D); without one (NaN) it stays.

    limit: of the squared Mahalanobis distance; beyond it the gain K is scaled by c = sqrt(limit / distance), Huber's
    weight, and the covariance becomes P - (2 c - c^2) K S K'. Returns mean, covariance and the squared Mahalanobis
    distance (...) of the innovation, NaN where nothing was measured.
    """
    mean, covariance = mean.copy(), covariance.copy()
    S, D = mean.shape[-1], measured.shape[-1]
    distance = np.full(mean.shape[:-1], np.nan)
    _update(
        mean.reshape(-1, S),
        covariance.reshape(-1, S, S),
        np.ascontiguousarray(measured, dtype=np.float64).reshape(-1, D),
        np.ascontiguousarray(np.broadcast_to(noise, (*measured.shape, D))).reshape(-1, D, D),
        limit,
        distance.reshape(-1),
    )
    return mean, covariance, distance


def adapted(acceleration: Array, distance: Array, dimensions: int, limits: tuple[float, float]) -> Array:
    """The acceleration variance (keypoints,) after the innovations of one step, within limits.

    distance: (tracks, keypoints) squared Mahalanobis distances of `update`, NaN where nothing was measured. They have
    mean `dimensions` when the model is right; where they are larger the animals move less steadily than it says, and
    the variance is multiplied by exp(`_RATE` (mean ratio - 1)), a ratio counting at most `_WORST_RATIO`.
    (Innovation-based adaptive estimation; Mehra 1972.)
    """
    known = ~np.isnan(distance)
    ratios = np.where(known, np.minimum(distance / dimensions, _WORST_RATIO), 0.0)
    ratio = ratios.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.clip(np.where(known.any(axis=0), acceleration * np.exp(_RATE * (ratio - 1.0)), acceleration), *limits)


@dataclass(frozen=True, eq=False)
class Filtered:
    """A filtered series: mean (frames, ..., 2 D) and covariance (frames, ..., 2 D, 2 D) after each frame's measurement,
    and the motion they were made with. NaN before a point's first measurement."""

    mean: Array
    covariance: Array
    motion: Motion
    step: float


def filter_series(points: Array, noise: Array, motion: Motion, step: float = 1.0) -> Filtered:
    """Filter points (frames, ..., D), NaN = not measured, with covariance noise (frames, ..., D, D) or broadcastable.

    A point starts at its first measurement with velocity 0, as uncertain as its noise and one second difference per
    step.
    """
    D = points.shape[-1]
    noise = np.broadcast_to(noise, (*points.shape, D))
    mean = np.full((*points.shape[:-1], 2 * D), np.nan)
    covariance = np.full((*points.shape[:-1], 2 * D, 2 * D), np.nan)
    velocity_variance = _first_velocity_variance(points, step)
    for f in range(len(points)):
        first_mean, first_covariance = start(points[f], noise[f], velocity_variance)
        if f == 0:
            mean[0], covariance[0] = first_mean, first_covariance
            continue
        before_mean, before_covariance = predict(mean[f - 1], covariance[f - 1], motion, step)
        mean[f], covariance[f], _ = update(before_mean, before_covariance, points[f], noise[f])
        new = np.isnan(mean[f, ..., 0])
        mean[f, new], covariance[f, new] = first_mean[new], first_covariance[new]
    covariance[np.isnan(mean[..., 0])] = np.nan
    return Filtered(mean, covariance, motion, step)


def smooth_series(filtered: Filtered) -> tuple[Array, Array]:
    """Each frame's state given the whole series: mean (frames, ..., 2 D), covariance (Rauch, Tung, Striebel 1965)."""
    mean, covariance = filtered.mean.copy(), filtered.covariance.copy()
    F2, _ = filtered.motion.matrices(filtered.step)
    F = np.kron(F2, np.eye(mean.shape[-1] // 2))
    for f in range(len(mean) - 2, -1, -1):
        known = ~np.isnan(mean[f, ..., 0])
        x, P = filtered.mean[f][known], filtered.covariance[f][known]
        ahead_mean, ahead_covariance = predict(x, P, filtered.motion, filtered.step)
        gain = np.linalg.solve(ahead_covariance, F @ P).swapaxes(-1, -2)
        mean[f, known] = x + (gain @ (mean[f + 1][known] - ahead_mean)[..., None])[..., 0]
        covariance[f, known] = P + gain @ (covariance[f + 1][known] - ahead_covariance) @ gain.swapaxes(-1, -2)
    return mean, covariance


def estimate_motion(points: Array) -> Motion:
    """Noise and motion per keypoint of series (frames, tracks, keypoints, D), NaN = not measured, step 1 frame.

    The second differences d give `motion_from_moments`; those beyond `_CLIP` robust standard deviations count as that
    much. Arrays (keypoints,); zero where no three frames follow each other.
    """
    d = points[2:] - 2.0 * points[1:-1] + points[:-2]
    limit = np.array(
        [
            _CLIP * 1.4826 * np.median(known) if len(known) else 0.0
            for known in map(_known, np.abs(np.moveaxis(d, 2, 0)))
        ]
    )
    d = np.clip(d, -limit[:, None], limit[:, None])
    moments = [
        np.array([_mean(part) for part in np.moveaxis(d[lag:] * d[: max(len(d) - lag, 0)], 2, 0)]) for lag in range(3)
    ]
    return motion_from_moments(*moments)


def motion_from_moments(g0: Array, g1: Array, g2: Array) -> Motion:
    """The motion whose second differences have these autocovariances (...) at lags 0, 1 and 2.

    A point that accelerates (variance a), walks (w) and is measured with white noise (r) has g0 = 6 r + 2 w + a / 2,
    g1 = -4 r - w + a / 4, g2 = r. Where that gives a negative variance, the one is zero, g0 and g1 give the others, and
    the noise is at most what g0 has room for: a motion smoother than the model is not measurement noise.
    """
    a = g0 + 2.0 * g1 + 2.0 * g2
    w = (g0 - 6.0 * g2 - a / 2.0) / 2.0
    no_walk, no_acceleration, no_noise = w < 0.0, a < 0.0, np.asarray(g2) < 0.0
    cases = [no_walk, no_acceleration, no_noise]
    room = np.maximum(g0, 0.0) / 6.0
    r = np.select(
        cases, [np.clip((g0 - 2.0 * g1) / 14.0, 0.0, room), np.clip(-(g0 + 2.0 * g1) / 2.0, 0.0, room), 0.0], g2
    )
    a = np.select(cases, [2.0 * (g0 - 6.0 * r), 0.0, np.clip(g0 + 2.0 * g1, 0.0, 12.0 * room)], a)
    w = np.where(no_walk, 0.0, (g0 - 6.0 * r - a / 2.0) / 2.0)
    return Motion(acceleration=np.maximum(a, 0.0), walk=np.maximum(w, 0.0), measurement=r)


def _known(values: Array) -> Array:
    return values[np.isfinite(values)]


def _mean(values: Array) -> float:
    known = _known(values)
    return float(known.mean()) if len(known) else 0.0


def _first_velocity_variance(points: Array, step: float) -> float:
    """Mean square of first differences per step: what a velocity may be before anything is known."""
    steps = np.diff(points, axis=0) / step
    return _mean(steps**2)


@njit(cache=True, error_model="numpy")
def _predict(mean, covariance, F, Q, out_mean, out_covariance):  # type: ignore[no-untyped-def]
    """States of n points one step on; F (2, 2) and Q (n, 2, 2) act alike on every coordinate."""
    n, S = mean.shape
    D = S // 2
    for i in range(n):
        for a in range(D):
            out_mean[i, a] = F[0, 0] * mean[i, a] + F[0, 1] * mean[i, D + a]
            out_mean[i, D + a] = F[1, 0] * mean[i, a] + F[1, 1] * mean[i, D + a]
            for b in range(D):
                pp, pv = covariance[i, a, b], covariance[i, a, D + b]
                vp, vv = covariance[i, D + a, b], covariance[i, D + a, D + b]
                for r in range(2):
                    for c in range(2):
                        value = F[r, 0] * (pp * F[c, 0] + pv * F[c, 1]) + F[r, 1] * (vp * F[c, 0] + vv * F[c, 1])
                        out_covariance[i, r * D + a, c * D + b] = value + (Q[i, r, c] if a == b else 0.0)


@njit(cache=True, error_model="numpy")
def _update(mean, covariance, measured, noise, limit, distance):  # type: ignore[no-untyped-def]
    """Kalman update in place of n points; the innovation's covariance is inverted by Gauss-Jordan (it is positive)."""
    n, S = mean.shape
    D = measured.shape[1]
    inverse = np.empty((D, D))
    gain = np.empty((S, D))
    for i in range(n):
        missing = False
        for a in range(D):
            missing = missing or np.isnan(measured[i, a])
        if missing or np.isnan(mean[i, 0]):
            continue
        matrix = covariance[i, :D, :D] + noise[i]
        for a in range(D):
            for b in range(D):
                inverse[a, b] = 1.0 if a == b else 0.0
        for a in range(D):
            pivot = matrix[a, a]
            for b in range(D):
                matrix[a, b] /= pivot
                inverse[a, b] /= pivot
            for c in range(D):
                factor = matrix[c, a]
                if c != a:
                    for b in range(D):
                        matrix[c, b] -= factor * matrix[a, b]
                        inverse[c, b] -= factor * inverse[a, b]
        innovation = measured[i] - mean[i, :D]
        squared = 0.0
        for a in range(D):
            for b in range(D):
                squared += innovation[a] * inverse[a, b] * innovation[b]
        distance[i] = squared
        for s in range(S):
            for a in range(D):
                total = 0.0
                for b in range(D):
                    total += covariance[i, s, b] * inverse[b, a]
                gain[s, a] = total
        trust = np.sqrt(limit / squared) if squared > limit else 1.0
        top = covariance[i, :D].copy()
        for s in range(S):
            for a in range(D):
                mean[i, s] += trust * gain[s, a] * innovation[a]
                for c in range(S):
                    covariance[i, s, c] -= (2.0 - trust) * trust * gain[s, a] * top[a, c]
