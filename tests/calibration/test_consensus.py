"""Which views agree: against brute force over all sets of views, and SciPy's least squares."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.stats import chi2

from calibration.camera import Camera, Intrinsics
from calibration.consensus import _fit, camera_rows
from calibration.geometry import TriangulationOptions, reprojection_errors, triangulate_points
from calibration.rig import CameraRig

Array = NDArray[np.float64]
SIZE = (1280, 1024)


def looking(name: str, center: Array, at: Array, intrinsics: Intrinsics) -> Camera:
    """A camera at center that looks at a point, its image's up being the world's z."""
    z = (at - center) / np.linalg.norm(at - center)
    x = np.cross(z, [0, 0, 1.0])
    R = np.stack((x / np.linalg.norm(x), np.cross(z, x / np.linalg.norm(x)), z))
    return Camera(name, intrinsics, R, -R @ center)


def ring(n: int, fisheye: tuple[int, ...] = ()) -> CameraRig:
    """Distorted cameras on a ring of 1000 around the origin, 600 above it."""
    K = np.array([[1100.0, 0, 640], [0, 1090, 512], [0, 0, 1]])
    cameras = []
    for i in range(n):
        dist, model = (
            ([-0.15, 0.05, 1e-3, -5e-4, 0], "pinhole") if i not in fisheye else ([0.05, -0.01, 0, 0], "fisheye")
        )
        angle = 2 * np.pi * i / n + 0.1 * (i % 2)
        center = np.array([1000 * np.cos(angle), 1000 * np.sin(angle), 600.0 + 50 * i])
        cameras.append(looking(f"cam{i}", center, np.zeros(3), Intrinsics(SIZE, K, dist, model)))
    return CameraRig(tuple(cameras), "mm")


def seen_points(rig: CameraRig, n: int, rng: np.random.Generator, noise: float = 1.0) -> tuple[Array, Array]:
    points = rng.uniform(-150, 150, (n, 3))
    xy = rig.project(points)
    return points, xy + noise * rng.normal(size=xy.shape)


def dlt(rays: Array, rig: CameraRig, weights: Array) -> Array:
    """One point (3,) from world rays (V, 3), NaN where missing: rows [ray]x (X - center) stacked, by lstsq."""
    rows, right = [], []
    for ray, center, weight in zip(rays, rig.centers, weights, strict=True):
        if np.isfinite(ray).all():
            cross = np.cross(np.eye(3), -ray)
            rows.append(np.sqrt(weight) * cross)
            right.append(np.sqrt(weight) * cross @ center)
    return np.linalg.lstsq(np.concatenate(rows), np.concatenate(right), rcond=None)[0]


def reference(
    xy: Array, rig: CameraRig, covariance: Array, options: TriangulationOptions
) -> tuple[Array, Array, Array, Array]:
    """One point by brute force: points (3,), seen (V,), covariance (3, 3), chi-square. xy (V, 2), covariance (V, 2,
    2)."""
    there = np.flatnonzero(np.isfinite(xy[:, 0]))
    information = np.linalg.inv(covariance)
    weights = np.trace(information, axis1=1, axis2=2) / 2
    rays = rig.rays(xy)

    def distances(point: Array, views: Array) -> tuple[Array, Array]:
        residual = (rig.project(point) - xy)[views]
        squared = np.einsum("vi,vij,vj->v", residual, information[views], residual)
        return np.where(np.isnan(squared), np.inf, squared), np.linalg.norm(residual, axis=1)

    best: tuple[float, list[int] | None, Array | None] = (np.inf, None, None)
    for gate in (chi2.ppf(options.confidence, 2), np.inf):
        for n in range(len(there), options.min_views - 1, -1):
            for views in itertools.combinations(there, n):
                chosen = list(views)
                only = np.full_like(rays, np.nan)
                only[chosen] = rays[chosen]
                point = dlt(only, rig, weights)
                squared, error = distances(point, chosen)
                ahead = (((point - rig.centers) * rays).sum(1)[chosen] > 0).all()
                if (
                    ahead
                    and (squared <= gate).all()
                    and error.mean() <= options.max_error_px
                    and squared.sum() < best[0]
                ):
                    best = (squared.sum(), chosen, point)
            if best[1] is not None:
                break
        if best[1] is not None:
            break
    seen = np.zeros(len(xy), bool)
    if best[1] is None:
        return np.full(3, np.nan), seen, np.full((3, 3), np.nan), np.nan
    seen[best[1]] = True
    root = np.linalg.cholesky(information[seen]).swapaxes(-1, -2)

    def residuals(point: Array) -> Array:
        return (root @ (rig.project(point) - xy)[seen][..., None]).ravel()

    solved = least_squares(residuals, best[2], xtol=1e-12, ftol=1e-12, gtol=1e-12, x_scale=0.1)
    squares = 2 * solved.cost
    spread = np.linalg.inv(solved.jac.T @ solved.jac)
    if np.isinf(gate):
        spread = spread * max(1.0, squares / (2 * seen.sum() - 3))
    return solved.x, seen, spread, squares


@pytest.mark.parametrize("max_error_px", [15.0, 2.0])
@pytest.mark.parametrize("min_views", [2, 3])
def test_robust_points_are_those_of_brute_force(max_error_px: float, min_views: int, rng: np.random.Generator) -> None:
    rig = ring(5, fisheye=(2,))
    n = 80
    _truth, xy = seen_points(rig, n, rng, 0.0)
    spread = rng.normal(size=(5, n, 2, 2))
    covariance = 0.3 * spread @ spread.swapaxes(-1, -2) + 0.5 * np.eye(2)
    xy += (np.linalg.cholesky(covariance) @ rng.normal(size=(5, n, 2, 1)))[..., 0]
    wrong = rng.random((5, n)) < 0.25  # many of them about as large as the gate
    xy[wrong] += rng.normal(size=(wrong.sum(), 2)) * rng.choice([3.0, 8.0, 100.0], (wrong.sum(), 1))
    xy[rng.random((5, n)) < 0.15] = np.nan
    options = TriangulationOptions(confidence=0.99, max_error_px=max_error_px, min_views=min_views)
    result = triangulate_points(xy, rig, covariance=covariance, options=options)
    assert math.isnan(result.noise_px)
    lifted = 0
    for i in range(n):
        point, seen, cov, squares = reference(xy[:, i], rig, covariance[:, i], options)
        np.testing.assert_array_equal(result.seen[:, i], seen, err_msg=str(i))
        np.testing.assert_allclose(result.points[i], point, atol=1e-3)
        np.testing.assert_allclose(result.covariance[i], cov, rtol=2e-3, atol=1e-6)
        if seen.any():
            error = reprojection_errors(result.points[i], xy[:, i], rig)[seen]
            assert result.reprojection_error[i] == pytest.approx(np.sqrt(np.mean(error**2)))
            lifted += squares > 2 * chi2.ppf(0.99, 2) * seen.sum()
        else:
            assert np.isnan(result.reprojection_error[i])
    assert 10 < result.seen.any(axis=0).sum() <= n
    # all branches were met: whole sets, sets without some, none, and pairs that the gate would not have taken
    counts = result.seen.sum(axis=0)
    assert {min_views, 4, 5} <= set(counts) if max_error_px > 10 else 0 in counts


def test_four_wrong_views_of_fifteen_are_the_ones_left_out(rng: np.random.Generator) -> None:
    rig = ring(15)
    truth, xy = seen_points(rig, 20, rng, 0.5)
    wrong = np.argsort(rng.random((15, 20)), axis=0) < 4
    xy[wrong] += rng.choice([-1, 1], (wrong.sum(), 2)) * rng.uniform(30, 200, (wrong.sum(), 2))
    result = triangulate_points(xy, rig, options=TriangulationOptions(noise_px=0.5, confidence=0.99999))
    np.testing.assert_array_equal(result.seen, ~wrong)
    assert np.linalg.norm(result.points - truth, axis=1).max() < 2


def test_rows_hold_what_the_kernels_read() -> None:
    rig = ring(3, fisheye=(1,))
    packed = rig.packed()
    rows = camera_rows(packed.R, packed.t, packed.model, packed.parameters)
    assert rows.shape == (3, 29)
    for row, camera in zip(rows, rig, strict=True):
        model = [float(camera.intrinsics.model == "fisheye")]
        expected = np.concatenate((camera.R.ravel(), camera.t, camera.center, model, camera.intrinsics.row))
        np.testing.assert_allclose(row, expected, atol=1e-12)


def test_rays_that_meet_behind_a_camera_do_not_agree() -> None:
    K = np.array([[300.0, 0, 640], [0, 300, 512], [0, 0, 1]])
    intrinsics = Intrinsics(SIZE, K, [], "fisheye")
    left, right = (Camera(n, intrinsics, np.eye(3), np.array([x, 0.1, 0])) for n, x in (("l", 1.0), ("r", -1.0)))
    rig = CameraRig((left, right), "m")
    packed = rig.packed()
    rows = camera_rows(packed.R, packed.t, packed.model, packed.parameters)
    apart = np.array([[540.0, 512], [740, 512]])  # the left one looks left, the right one right
    both, weights, information = np.ones(2, dtype=bool), np.ones(2), np.tile([1.0, 0, 1], (2, 1))
    for xy, agree in ((apart, False), (apart[::-1].copy(), True)):
        cost = _fit(rig.rays(xy), both, weights, xy, information, rows, np.inf, np.inf, np.empty(3))
        assert np.isfinite(cost) == agree
