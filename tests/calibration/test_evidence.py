"""What points say of the cameras, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.evidence import gather_evidence, observe, pixel_costs
from calibration.normal_equations import stepped, with_cameras
from calibration.rig import CameraRig
from calibration.synthetic import ring_rig

Array = NDArray[np.float64]
KIND = np.array([0, 1, 0])


def scene(rng: np.random.Generator, noise: float = 0.02, frames: int = 8) -> tuple[CameraRig, Array, Array]:
    """Three cameras, points (frames, 3, 3), pixels with little noise, some missing."""
    rig = ring_rig(3, rng, radius=700, height=500, size=(1280, 1024), focal_px=1100)
    points = rng.uniform(-120, 120, (frames, 3, 3))
    xy = rig.project(points) + rng.normal(0, noise, (3, frames, 3, 2))
    xy[0, 3, 1] = xy[2, 5, 0] = xy[1, 2, 2] = np.nan
    xy[:2, 6, 0] = np.nan  # seen by one: says nothing
    return rig, points, xy


def dense(rig: CameraRig, points: Array, xy: Array, whiten: Array, parameters: int) -> tuple[Array, Array]:
    """Normal equations of all parameters and biases with the points eliminated, from numeric derivatives."""
    steps = np.array([1e-6] * 3 + [1e-3] * 3 + [1e-2] * 4 + [1e-5] * 5 + [0.0] * 3)
    views, n_rig = len(rig), parameters * len(rig)
    biases = 2 * views * 2

    def residuals(change: Array, bias: Array, moved: Array) -> Array:
        full = np.zeros((views, 18))
        full[:, :parameters] = change.reshape(views, parameters)
        told = with_cameras(rig, stepped(rig.packed(), full)).project(points + moved)
        told = told + bias.reshape(2, views, 2)[KIND].transpose(1, 0, 2)[:, None]
        left = (whiten @ (xy - told)[..., None])[..., 0]
        return np.where(np.isfinite(xy), left, 0.0).ravel()

    zero = np.zeros(n_rig), np.zeros(biases), np.zeros_like(points)
    columns = []
    for part, start in enumerate(zero):
        for i in np.ndindex(start.shape):
            step = steps[i[0] % parameters] if part == 0 else 1e-4
            if step == 0.0:
                columns.append(np.zeros(xy.size))
                continue
            nudge = [np.zeros_like(z) for z in zero]
            nudge[part][i] = step
            columns.append((residuals(*(-z for z in nudge)) - residuals(*nudge)) / (2 * step))
    J, r = np.stack(columns, axis=1), residuals(*zero)
    own, of_points = J[:, : n_rig + biases], J[:, n_rig + biases :]
    keep = own - of_points @ np.linalg.pinv(of_points) @ own
    return keep.T @ own, keep.T @ r


@pytest.mark.parametrize("parameters", [6, 18])
def test_evidence_is_least_squares_without_the_points(parameters: int, rng: np.random.Generator) -> None:
    rig, points, xy = scene(rng)
    observations = observe(rig, xy, None, KIND)
    xy[2, 6, 0] = np.nan
    found = gather_evidence([rig, rig], np.array([0, 5, 8]), observations, parameters)
    H, g = dense(rig, points, xy, observations.whiten, parameters)
    n = 3 * parameters
    used = np.diagonal(H) > 0  # not the last three of the distortion's coefficients
    scale = np.sqrt(np.diagonal(H)[used])
    whole = np.zeros_like(H)
    whole[:n, :n] = found.H_rig.sum(axis=0)
    for k in range(2):
        rows = slice(n + 6 * k, n + 6 * (k + 1))
        whole[:n, rows] = found.H_cross[:, k].sum(axis=0)
        whole[rows, :n] = whole[:n, rows].T
        whole[rows, rows] = found.H_bias[:, k].sum(axis=0)
    unit, whole, H = np.outer(scale, scale), whole[np.ix_(used, used)], H[np.ix_(used, used)]
    np.testing.assert_allclose(whole / unit, H / unit, atol=2e-3)
    gradient = np.concatenate((found.g_rig.sum(axis=0), found.g_bias.sum(axis=0).ravel()))
    assert np.abs((gradient - g)[used] / scale).max() < 0.1  # sigmas: points robustly refined differ a little


def test_given_covariances_count_up_to_a_factor(rng: np.random.Generator) -> None:
    rig, _, xy = scene(rng, 2.0)
    spread = np.broadcast_to(np.diag([1.0, 4.0]), (*xy.shape, 2)) * rng.uniform(0.5, 2, xy.shape[:3])[..., None, None]
    one, other = (observe(rig, xy, factor * spread, KIND) for factor in (1.0, 49.0))
    np.testing.assert_allclose(one.covariance, other.covariance)
    assert one.noise_px == pytest.approx(other.noise_px)


def test_costs_tell_the_right_rig(rng: np.random.Generator) -> None:
    rig, _, xy = scene(rng, 1.0, 100)
    step = np.zeros((3, 18))
    step[1, 3] = 20.0
    wrong = with_cameras(rig, stepped(rig.packed(), step))
    observations = observe(rig, xy, None, KIND)
    right, off = (pixel_costs(r, observations, slice(20, 60)) for r in (rig, wrong))
    assert right.shape == (40,)
    assert right.sum() < 0.5 * off.sum()
