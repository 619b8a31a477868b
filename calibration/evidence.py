"""What do tracked points say about every camera's parameters, stretch of time by stretch of time?

Normal equations with the points themselves eliminated, small enough to keep for every stretch: whatever hypothesis is
put to them later (this camera moved then) costs no second look at the pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.camera import project_jacobian
from calibration.geometry import TriangulationOptions, estimate_noise, triangulate_points
from calibration.rig import CameraRig
from calibration.solver import loss_weight
from calibration.transforms import apply, skew

__all__ = ["N_POSE", "Evidence", "Observations", "gather_evidence", "observe", "pixel_costs"]

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

N_POSE = 6
"""The first of RIG_PARAMETERS: a camera's pose."""
LOSS, SCALE = "cauchy", 3.0
"""Of residuals in standard deviations. Its weights never vanish: of a camera that is off as a whole all are alike."""


@dataclass(frozen=True, eq=False)
class Observations:
    """xy (V, F, P, 2) px, NaN = missing; covariance (V, F, P, 2, 2) px squared, of a size that fits the data; whiten
    (V, F, P, 2, 2): what turns residuals into independent ones of variance 1; kind (P,) 0, 1, ...: points of one kind
    share their bias; noise_px: the SD per coordinate, typical of all."""

    xy: Floats
    covariance: Floats
    whiten: Floats
    kind: Ints
    noise_px: float


@dataclass(frozen=True, eq=False)
class Evidence:
    """Normal equations of B stretches of frames; K kinds of points, A = n V rig parameters (the first n = 6 or all 18
    of RIG_PARAMETERS of every camera), C = 2 V biases of a kind.

    H_rig (B, A, A), g_rig (B, A); H_bias (B, K, C, C), g_bias (B, K, C); H_cross (B, K, A, C). A step that solves
    H step = g moves the rig's parameters, or the pixels of a kind in a view, towards the data. shift (V, 6, 6): mean of
    J' J, px squared, of what a step of a camera's pose does to the pixels that it sees.
    """

    H_rig: Floats
    g_rig: Floats
    H_bias: Floats
    g_bias: Floats
    H_cross: Floats
    shift: Floats


def observe(rig: CameraRig, xy: Floats, covariance: Floats | None, kind: Ints) -> Observations:
    """Observations whose covariance, given up to a common factor or not at all, fits how well the views agree."""
    flat = xy.reshape(len(xy), -1, 2)
    spread = np.broadcast_to(np.eye(2), (*xy.shape, 2)) if covariance is None else covariance
    sd = np.sqrt(np.trace(spread, axis1=-2, axis2=-1) / 2)
    usual = float(np.nanmedian(np.where(np.isfinite(xy[..., 0]), sd, np.nan)))
    score = usual / sd.reshape(len(xy), -1)
    factor = estimate_noise(flat, rig, score=score, options=TriangulationOptions(min_score=0.0)) / usual
    spread = factor**2 * spread
    return Observations(xy, spread, np.linalg.inv(np.linalg.cholesky(spread)), kind, factor * usual)


def gather_evidence(
    rigs: Sequence[CameraRig], borders: Ints, observations: Observations, parameters: int = N_POSE
) -> Evidence:
    """rigs: what is held to be true, one for each stretch. borders (B + 1,): first frames of the stretches, and the
    end. parameters: 6, or 18 with the intrinsics."""
    views, kinds = len(rigs[0]), int(observations.kind.max()) + 1
    A, C, B = parameters * views, 2 * views, len(rigs)
    out = Evidence(
        np.zeros((B, A, A)), np.zeros((B, A)), np.zeros((B, kinds, C, C)), np.zeros((B, kinds, C)),
        np.zeros((B, kinds, A, C)), np.zeros((views, N_POSE, N_POSE)),
    )  # fmt: skip
    each = np.arange(views * (parameters + 2)).reshape(views, -1)
    order = np.concatenate((each[:, :parameters].ravel(), each[:, parameters:].ravel()))
    seen = np.zeros(views)
    for b, rig in enumerate(rigs):
        part = slice(borders[b], borders[b + 1])
        D, J, r = _linearised(rig, observations, part, parameters, out.shift, seen)
        kind = np.tile(observations.kind, borders[b + 1] - borders[b])
        for k in range(kinds):
            mine = kind == k
            H, g = _without_points(D[:, mine], J[:, mine], r[:, mine])
            H, g = H[np.ix_(order, order)], g[order]
            out.H_rig[b] += H[:A, :A]
            out.g_rig[b] += g[:A]
            out.H_cross[b, k], out.H_bias[b, k], out.g_bias[b, k] = H[:A, A:], H[A:, A:], g[A:]
    out.shift[...] /= np.maximum(seen, 1)[:, None, None]
    return out


def pixel_costs(rig: CameraRig, observations: Observations, rows: slice) -> Floats:
    """(frames,) how badly the views of each of these frames agree: robust losses of the residuals, summed."""
    points, xy, whiten = _points(rig, observations, rows)
    squared = ((whiten @ (xy - rig.project(points))[..., None])[..., 0] ** 2).sum(axis=-1)
    cost = np.nansum(loss_weight(squared, LOSS, SCALE)[0], axis=0)
    return np.asarray(cost.reshape(-1, len(observations.kind)).sum(axis=1))


def _points(rig: CameraRig, observations: Observations, rows: slice) -> tuple[Floats, Floats, Floats]:
    """Points (n, 3) of these frames, triangulated robustly, with pixels (V, n, 2) and whitening (V, n, 2, 2)."""
    views = len(rig)
    xy = np.ascontiguousarray(observations.xy[:, rows].reshape(views, -1, 2))
    covariance = observations.covariance[:, rows].reshape(views, -1, 2, 2)
    points = triangulate_points(xy, rig, covariance=covariance).points
    return points, xy, observations.whiten[:, rows].reshape(views, -1, 2, 2)


def _linearised(
    rig: CameraRig, observations: Observations, rows: slice, parameters: int, shift: Floats, seen: Floats
) -> tuple[Floats, Floats, Floats]:
    """Whitened and robustly weighted, 0 where unseen: derivatives by the rig's parameters and a bias (V, n, 2,
    parameters + 2) and by the points (V, n, 2, 3), residuals (V, n, 2). Adds to shift J'J and to seen the count of what
    is seen."""
    points, xy, whiten = _points(rig, observations, rows)
    views, n = xy.shape[:2]
    D, J, r = np.zeros((views, n, 2, parameters + 2)), np.zeros((views, n, 2, 3)), np.zeros((views, n, 2))
    residual = xy - rig.project(points)
    usable = np.isfinite(residual).all(axis=-1)
    usable &= usable.sum(axis=0) >= 2
    for v, camera in enumerate(rig):
        here = np.flatnonzero(usable[v])
        x_cam = apply(camera.R, camera.t, points[here])
        _, J_cam, J_lens = project_jacobian(x_cam, camera.intrinsics)
        root, left = whiten[v, here], residual[v, here, :, None]
        weight = loss_weight(((root @ left) ** 2).sum(axis=(1, 2)), LOSS, SCALE)[1]
        root = root * np.sqrt(weight)[:, None, None]
        columns = np.concatenate((-J_cam @ skew(x_cam - camera.t), J_cam, J_lens), axis=2)[..., :parameters]
        pose = columns[..., :N_POSE].reshape(-1, N_POSE)
        shift[v] += pose.T @ pose
        seen[v] += len(here)
        D[v, here, :, :parameters], D[v, here, :, parameters:] = root @ columns, root
        J[v, here], r[v, here] = root @ (J_cam @ camera.R), (root @ left)[..., 0]
    return D, J, r


def _without_points(D: Floats, J: Floats, r: Floats) -> tuple[Floats, Floats]:
    """D (V, n, 2, m), J (V, n, 2, 3), r (V, n, 2) -> normal equations (V m, V m), (V m,) of the parameters of all
    views, every point eliminated: (I - Q Q') takes from the residuals what moving the point can."""
    views, n, _, m = D.shape
    rows = J.transpose(1, 0, 2, 3).reshape(n, 2 * views, 3)
    values, vectors = np.linalg.eigh(np.swapaxes(rows, 1, 2) @ rows)
    kept = values > 1e-12 * np.maximum(values[:, -1:], np.finfo(float).tiny)
    root = vectors * np.where(kept, 1.0 / np.sqrt(np.where(kept, values, 1.0)), 0.0)[:, None, :]
    Q = np.swapaxes((rows @ root).reshape(n, views, 2, 3), 2, 3)  # (n, V, 3, 2)
    E = np.empty((n, 3, views, m))
    along = np.zeros((n, 3))
    H, g = np.empty((views * m, views * m)), np.empty(views * m)
    for v in range(views):
        E[:, :, v] = Q[:, v] @ D[v]
        along += (Q[:, v] @ r[v][..., None])[..., 0]
    flat = E.reshape(3 * n, views * m)
    np.matmul(-flat.T, flat, out=H)
    g[:] = -(along.ravel() @ flat)
    for v in range(views):
        own, part = D[v].reshape(2 * n, m), slice(v * m, (v + 1) * m)
        H[part, part] += own.T @ own
        g[part] += r[v].ravel() @ own
    return H, g
