"""Triangulation against linear algebra, other libraries and finite differences, and statistics of known noise."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2

from calibration.camera import Camera, Intrinsics, project_jacobian
from calibration.errors import InputError
from calibration.geometry import (
    TriangulationOptions,
    epipolar_distance,
    estimate_noise,
    reprojection_errors,
    rig_covariance_of_points,
    triangulate_linear,
    triangulate_points,
)
from calibration.rig import CameraRig
from calibration.transforms import exp_so3

Array = NDArray[np.float64]
SIZE = (1280, 1024)
PRIOR_PX = 0.0025 * math.hypot(*SIZE)


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


def nees(found: Array, truth: Array, covariance: Array) -> Array:
    error = found - truth
    return np.einsum("pi,pij,pj->p", error, np.linalg.inv(covariance), error)


def dlt(rays: Array, rig: CameraRig, weights: Array) -> Array:
    """One point (3,) from world rays (V, 3), NaN where missing: rows [ray]x (X - center) stacked, by lstsq."""
    rows, right = [], []
    for ray, center, weight in zip(rays, rig.centers, weights, strict=True):
        if np.isfinite(ray).all():
            cross = np.cross(np.eye(3), -ray)
            rows.append(np.sqrt(weight) * cross)
            right.append(np.sqrt(weight) * cross @ center)
    return np.linalg.lstsq(np.concatenate(rows), np.concatenate(right), rcond=None)[0]


# --- linear


def test_linear_points_solve_the_dlt_of_unit_rays(rng: np.random.Generator) -> None:
    rig = ring(5, fisheye=(1, 3))
    _, xy = seen_points(rig, 30, rng, 5.0)
    xy[rng.random(xy.shape[:2]) < 0.2] = np.nan
    weights = rng.uniform(0.1, 2, xy.shape[:2])
    rays = rig.rays(xy)
    for given, used in ((weights, weights), (None, np.ones_like(weights))):
        found = triangulate_linear(xy, rig, given)
        for i in range(30):
            if np.isfinite(xy[:, i, 0]).sum() >= 2:
                np.testing.assert_allclose(found[i], dlt(rays[:, i], rig, used[:, i]), atol=1e-8)
            else:
                assert np.isnan(found[i]).all()


def test_linear_points_of_parallel_rays_do_not_exist() -> None:
    K = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    left, right = (
        Camera(n, Intrinsics((640, 480), K, []), np.eye(3), np.array([x, 0, 0.0])) for n, x in (("l", 1), ("r", -1))
    )
    rig = CameraRig((left, right), "m")
    xy = np.array([[[100.0, 100]], [[100, 100]]])
    assert np.isnan(triangulate_linear(xy, rig)).all()
    assert np.isnan(triangulate_points(xy, rig).points).all()
    xy[1, 0, 0] += 10  # they meet behind the cameras
    assert not np.isnan(triangulate_linear(xy, rig)).any()
    result = triangulate_points(xy, rig)
    assert np.isnan(result.points).all()
    assert not result.seen.any()
    assert np.isnan(result.covariance).all()


# --- robust


def test_exact_pixels_give_exact_points(rng: np.random.Generator) -> None:
    rig = ring(4, fisheye=(0, 3))
    truth, xy = seen_points(rig, 100, rng, 0.0)
    result = triangulate_points(xy, rig)
    np.testing.assert_allclose(result.points, truth, atol=1e-9)
    assert result.seen.all()
    assert result.reprojection_error.max() < 1e-9


def test_points_beside_and_behind_fisheyes_are_found(rng: np.random.Generator) -> None:
    K = np.array([[300.0, 0, 640], [0, 300, 512], [0, 0, 1]])
    intrinsics = Intrinsics(SIZE, K, [0.02, -0.003, 0, 0], "fisheye")
    cameras = [
        looking(f"cam{i}", center, np.add(center, [1.0, 0, 0]), intrinsics) for i, center in enumerate(300 * np.eye(3))
    ]
    rig = CameraRig(tuple(cameras), "mm")
    truth = rng.uniform(-60, 60, (50, 3))  # behind the first camera's plane, beside the others
    assert (truth[:, 0] - 300 < 0).all()
    result = triangulate_points(rig.project(truth), rig)
    np.testing.assert_allclose(result.points, truth, atol=1e-8)


def test_no_wrong_view_spoils_a_point_and_its_covariance_is_honest(rng: np.random.Generator) -> None:
    rig = ring(6)
    truth, xy = seen_points(rig, 4000, rng, 1.0)
    wrong = np.zeros((6, 4000), bool)
    wrong[rng.integers(0, 6, 4000), np.arange(4000)] = rng.random(4000) < 0.4
    angle, far = rng.uniform(0, 2 * np.pi, (6, 4000)), rng.uniform(20, 300, (6, 4000))
    xy += (wrong * far)[..., None] * np.stack((np.cos(angle), np.sin(angle)), axis=-1)
    xy[(rng.random((6, 4000)) < 0.2) & ~wrong] = np.nan
    for covariance in (np.broadcast_to(np.eye(2), (*xy.shape, 2)), None):
        result = triangulate_points(xy, rig, covariance=covariance)
        good = (np.isfinite(xy[..., 0]) & ~wrong).sum(axis=0)
        enough = good >= 3
        assert np.isfinite(result.points[enough]).all()
        assert not (result.seen & wrong)[:, enough].any()
        statistic = nees(result.points[enough], truth[enough], result.covariance[enough])
        # chi-square of 3 degrees of freedom: mean 3, SD sqrt(6 / n); 5 % for the noise that was estimated
        assert statistic.mean() == pytest.approx(3, abs=0.12 if covariance is not None else 0.25)
        assert np.mean(statistic[wrong.any(axis=0)[enough]] > chi2.ppf(0.99, 3)) < 0.02


# --- noise, scores


@pytest.mark.parametrize(("views", "noise"), [(2, 1.0), (3, 2.0), (6, 0.4)])
def test_the_noise_is_found(views: int, noise: float, rng: np.random.Generator) -> None:
    rig = ring(6).subset([f"cam{i}" for i in range(views)])
    _, xy = seen_points(rig, 6000, rng, noise)
    if views > 3:
        xy[0, ::3] += 60  # and one view in three points is wrong
    found = estimate_noise(xy, rig)
    # the median of n chi-squares has a relative SD of about sqrt(pi / dof / n) in the variance
    assert found == pytest.approx(noise, rel=0.03)
    assert triangulate_points(xy, rig).noise_px == found


def test_few_points_lean_on_the_prior() -> None:
    rig = ring(4)
    xy = rig.project(np.array([[0.0, 0, 0], [10, 20, 30], [-40, 10, 5]]))
    dof = 3 * (2 * 4 - 3)
    assert estimate_noise(xy, rig) == pytest.approx(PRIOR_PX * np.sqrt(20 / (20 + dof)), rel=1e-6)
    assert estimate_noise(np.full_like(xy, np.nan), rig) == pytest.approx(PRIOR_PX)


def test_without_covariance_the_noise_is_that_of_the_data_over_the_score(rng: np.random.Generator) -> None:
    rig = ring(4)
    _, xy = seen_points(rig, 300, rng, 1.5)
    score = rng.uniform(0.3, 1, xy.shape[:2])
    options = TriangulationOptions(noise_px=1.5)
    result = triangulate_points(xy, rig, score=score, options=options)
    covariance = (1.5 / score)[..., None, None] ** 2 * np.eye(2)
    same = triangulate_points(xy, rig, covariance=covariance, options=options)
    np.testing.assert_allclose(result.points, same.points, atol=1e-9)
    np.testing.assert_allclose(result.covariance, same.covariance, rtol=1e-9)
    assert result.noise_px == 1.5
    scaled = estimate_noise(rig.project(rng.uniform(-100, 100, (5000, 3))) + rng.normal(size=(4, 5000, 2)) / 0.5, rig,
                            score=np.full((4, 5000), 0.5))  # fmt: skip
    assert scaled == pytest.approx(1.0, rel=0.03)


def test_views_of_low_score_are_missing(rng: np.random.Generator) -> None:
    rig = ring(4)
    _truth, xy = seen_points(rig, 50, rng, 0.1)
    score = np.ones((4, 50))
    score[0], score[1, :25], score[1, 25:] = 0.0, 0.299, 0.3
    xy[0] += 3  # would be taken for agreeing, were it not for the score
    result = triangulate_points(xy, rig, score=score, options=TriangulationOptions(noise_px=1.0))
    np.testing.assert_array_equal(result.seen, score >= 0.3)
    every = triangulate_points(xy, rig, score=score, options=TriangulationOptions(noise_px=1.0, min_score=0.0))
    np.testing.assert_array_equal(every.seen, score > 0)
    with_covariance = triangulate_points(xy, rig, score=score, covariance=np.broadcast_to(np.eye(2), (4, 50, 2, 2)))
    np.testing.assert_array_equal(with_covariance.seen, score >= 0.3)
    linear = triangulate_linear(xy, rig, np.where(score > 0, 1.0, 0.0))
    np.testing.assert_allclose(linear, triangulate_linear(np.where(score[..., None] > 0, xy, np.nan), rig))


def test_shapes_that_do_not_fit_are_refused() -> None:
    rig = ring(3)
    xy = np.zeros((3, 5, 2))
    with pytest.raises(InputError, match=r"xy: expected \(3 views, points, 2\), got \(2, 5, 2\)"):
        triangulate_points(xy[:2], rig)
    with pytest.raises(InputError, match="score: expected"):
        triangulate_points(xy, rig, score=np.ones((5, 3)))
    with pytest.raises(InputError, match="covariance: expected"):
        triangulate_points(xy, rig, covariance=np.ones((3, 5, 2)))
    result = triangulate_points(np.full((3, 0, 2), np.nan), rig)
    assert result.points.shape == (0, 3)
    assert result.seen.shape == (3, 0)
    assert np.isnan(triangulate_points(np.full((3, 4, 2), np.nan), rig).points).all()


def test_reprojection_errors_are_distances_in_pixels(rng: np.random.Generator) -> None:
    rig = ring(3)
    points, xy = seen_points(rig, 12, rng, 0.0)
    xy += [3.0, -4.0]
    xy[1, 2] = np.nan
    errors = reprojection_errors(points.reshape(3, 4, 3), xy.reshape(3, 3, 4, 2), rig)
    assert errors.shape == (3, 3, 4)
    assert np.isnan(errors.reshape(3, 12)[1, 2])
    np.testing.assert_allclose(np.delete(errors.ravel(), 14), 5)


# --- two views


def test_epipolar_distance_is_the_least_move_of_both_pixels(rng: np.random.Generator) -> None:
    rig = ring(3, fisheye=(1,))
    for a, b in ((0, 1), (0, 2), (2, 0)):
        pair = rig.subset([f"cam{a}", f"cam{b}"])
        _, xy = seen_points(pair, 15, rng, 2.0)
        distance = epipolar_distance(xy[0], xy[1], *pair.cameras)
        assert distance.shape == (15, 15)
        options = TriangulationOptions(noise_px=100.0, max_error_px=1e9)
        moved = triangulate_points(xy, pair, options=options).reprojection_error * np.sqrt(2)
        np.testing.assert_allclose(np.diag(distance), moved, rtol=0.05, atol=0.02)
        np.testing.assert_allclose(distance, epipolar_distance(xy[1], xy[0], *pair.cameras[::-1]).T)


def test_epipolar_distance_of_right_pairs_has_unit_variance(rng: np.random.Generator) -> None:
    rig = ring(3, fisheye=(1,))
    _, xy = seen_points(rig, 4000, rng, 1.0)
    xy = xy.reshape(3, 400, 10, 2)  # in batches
    for a, b in ((0, 1), (1, 2)):
        distance = epipolar_distance(xy[a], xy[b], rig.cameras[a], rig.cameras[b])
        assert distance.shape == (400, 10, 10)
        own = np.diagonal(distance, axis1=1, axis2=2)
        assert np.mean(own**2) == pytest.approx(1, abs=4 * np.sqrt(2 / 4000))  # the fisheye's px/rad vary by direction
        np.testing.assert_allclose(distance[7], epipolar_distance(xy[a, 7], xy[b, 7], rig.cameras[a], rig.cameras[b]))


def test_rays_that_meet_behind_a_camera_are_infinitely_apart() -> None:
    K = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    left, right = (
        Camera(n, Intrinsics((640, 480), K, []), np.eye(3), np.array([x, 0, 0.0])) for n, x in (("l", 1), ("r", -1))
    )
    xy_left, xy_right = np.array([[320.0, 240], [np.nan, np.nan]]), np.array([[300.0, 240], [321, 240], [340, 240]])
    distance = epipolar_distance(xy_left, xy_right, left, right)
    np.testing.assert_allclose(distance[0], [0, 0, np.inf], atol=1e-9)  # the middle one: parallel within the noise
    assert np.isnan(distance[1]).all()
    lifted = epipolar_distance(xy_left[:1], [[300.0, 243]], left, right)
    assert lifted[0, 0] == pytest.approx(3 / np.sqrt(2), rel=1e-2)  # both move by half of it
    with pytest.raises(InputError, match="stand in one place"):
        epipolar_distance(xy_left, xy_right, left, left)


def test_rays_that_meet_behind_one_camera_only_are_infinitely_apart() -> None:
    K = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    ahead = Camera("ahead", Intrinsics((640, 480), K, []), np.eye(3), np.array([1.0, 0, 0]))
    back = Camera("back", Intrinsics((640, 480), K, []), np.diag([-1.0, 1, -1]), np.array([1.0, 0, 1]))
    point = ahead.center + np.array([0.3, 0, -1.0])
    mirrored = ahead.project(2 * ahead.center - point)  # the ray ahead, whose backward end goes through the point
    seen = back.project(point)
    assert epipolar_distance(mirrored[None], seen[None], ahead, back) == np.inf
    assert epipolar_distance(seen[None], mirrored[None], back, ahead) == np.inf
    before = ahead.center + np.array([0.3, 0, 0.5])
    assert epipolar_distance(ahead.project(before)[None], back.project(before)[None], ahead, back) < 1e-9


# --- the rig's part


def test_the_rigs_uncertainty_arrives_in_the_points(rng: np.random.Generator) -> None:
    rig = ring(3, fisheye=(1,))
    truth, xy = seen_points(rig, 6, rng, 0.0)
    seen = np.ones((3, 6), bool)
    seen[2, :2] = False
    seen[:2, 5] = False
    scale = np.tile([1e-3] * 3 + [1.0] * 3 + [1.0] * 4 + [1e-3] * 8, 3)
    root = scale[:, None] * rng.normal(size=(54, 54))
    covariance = root @ root.T
    found = rig_covariance_of_points(truth, seen, CameraRig(rig.cameras, "mm", covariance))
    observed = np.where(seen[..., None], xy, np.nan)
    options = TriangulationOptions(noise_px=1.0)
    jacobian = np.zeros((6, 3, 54))
    for i in range(54):
        ends = []
        for step in (1e-3 * scale[i], -1e-3 * scale[i]):
            cameras = list(rig.cameras)
            camera, change = cameras[i // 18], np.eye(18)[i % 18] * step
            old = camera.intrinsics
            n_dist = 8 if old.model == "pinhole" else 4
            intrinsics = Intrinsics.from_parameters(old.size, old.parameters + change[6:], old.model, n_dist)
            cameras[i // 18] = Camera(camera.name, intrinsics, exp_so3(change[:3]) @ camera.R, camera.t + change[3:6])
            ends.append(triangulate_points(observed, CameraRig(tuple(cameras), "mm"), options=options).points)
        jacobian[..., i] = (ends[0] - ends[1]) / (2e-3 * scale[i])
    expected = jacobian[:5] @ covariance @ jacobian[:5].swapaxes(-1, -2)
    np.testing.assert_allclose(found[:5], expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    assert np.isnan(found[5]).all()


def test_an_exact_rig_adds_nothing_and_long_recordings_are_worked_off_in_parts() -> None:
    rig = ring(2)
    points = np.zeros((5000, 3))
    points[1] = np.nan
    seen = np.ones((2, 5000), bool)
    exact = rig_covariance_of_points(points, seen, rig)
    assert not exact[0].any()
    assert np.isnan(exact[1]).all()
    found = rig_covariance_of_points(points, seen, CameraRig(rig.cameras, "mm", np.eye(36)))
    np.testing.assert_allclose(found[[2, 4999]], found[[0, 0]])
    assert np.isnan(found[1]).all()
    assert found[0].any()


def test_one_camera_under_two_names_tells_nothing() -> None:
    camera = ring(2).cameras[0]
    rig = CameraRig((camera, replace(camera, name="copy")), "mm", np.eye(36))
    assert np.isnan(rig_covariance_of_points(np.eye(3), np.ones((2, 3), bool), rig)).all()


def test_covariance_is_that_of_the_linearised_pixels(rng: np.random.Generator) -> None:
    rig = ring(3)
    truth, xy = seen_points(rig, 5, rng, 0.0)
    spread = np.array([[4.0, 1.5], [1.5, 1.0]])
    plain = triangulate_points(xy, rig, options=TriangulationOptions(noise_px=2.0))
    tilted = triangulate_points(xy, rig, covariance=np.broadcast_to(spread, (3, 5, 2, 2)))
    for result, covariance in ((plain, 4 * np.eye(2)), (tilted, spread)):
        for i in range(5):
            normal = np.zeros((3, 3))
            for camera in rig:
                J = project_jacobian(camera.R @ truth[i] + camera.t, camera.intrinsics)[1] @ camera.R
                normal += J.T @ np.linalg.inv(covariance) @ J
            np.testing.assert_allclose(result.covariance[i], np.linalg.inv(normal), rtol=1e-6)
