"""Projection, rays and derivatives against OpenCV, finite differences and round trips."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.camera import (
    INTRINSIC_PARAMETERS,
    Camera,
    Intrinsics,
    pixels_from_camera,
    project_jacobian,
    rays_from_pixels,
)
from calibration.errors import InputError
from calibration.transforms import exp_so3

Array = NDArray[np.float64]
SIZE = (1280, 1024)
K = np.array([[900.0, 0, 650], [0, 910, 500], [0, 0, 1]])
PINHOLES = {
    "none": [],
    "four": [-0.2, 0.08, 0.004, -0.003],
    "five": [-0.25, 0.1, -0.002, 0.003, -0.02],
    "barrel": [-0.15, 0.05, 1e-3, -5e-4, 0.0],
    "rational": [0.8, 0.3, 0.003, -0.002, 0.05, 1.1, 0.35, 0.02],
}
FISHEYE = [0.05, -0.01, 0.002, -0.0005]


def pinhole(name: str) -> Intrinsics:
    return Intrinsics(SIZE, K, PINHOLES[name])


def fisheye() -> Intrinsics:
    return Intrinsics(SIZE, K / 2.2 + np.diag([0, 0, 1 - 1 / 2.2]), FISHEYE, "fisheye")


def skewed(intrinsics: Intrinsics) -> Intrinsics:
    K = intrinsics.K + np.array([[0, 25.0, 0], [0, 0, 0], [0, 0, 0]])
    return Intrinsics(SIZE, K, intrinsics.dist, intrinsics.model)


def every() -> list[Intrinsics]:
    return [*(pinhole(name) for name in PINHOLES), fisheye(), skewed(pinhole("rational")), skewed(fisheye())]


NAMES = [*PINHOLES, "fisheye", "skewed", "skewed fisheye"]


def in_view(intrinsics: Intrinsics, rng: np.random.Generator, n: int = 200) -> Array:
    """Camera-frame points all over the image; for a fisheye to 110 degrees from the axis."""
    if intrinsics.model == "fisheye":
        angle, turn = rng.uniform(0, np.radians(110), n), rng.uniform(0, 2 * np.pi, n)
        rays = np.stack((np.sin(angle) * np.cos(turn), np.sin(angle) * np.sin(turn), np.cos(angle)), axis=1)
    else:
        rays = np.column_stack((rng.uniform(-0.7, 0.7, n), rng.uniform(-0.55, 0.55, n), np.ones(n)))
    return rays * rng.uniform(0.5, 4, (n, 1))


@pytest.mark.parametrize("name", PINHOLES)
def test_pinhole_projects_as_opencv(name: str, rng: np.random.Generator) -> None:
    intrinsics = pinhole(name)
    points = in_view(intrinsics, rng)
    expected = cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, np.array(PINHOLES[name]))[0][:, 0]
    np.testing.assert_allclose(pixels_from_camera(points, intrinsics), expected, atol=1e-10)


def test_fisheye_projects_as_opencv(rng: np.random.Generator) -> None:
    intrinsics = fisheye()
    points = in_view(intrinsics, rng)
    points = points[points[:, 2] > 0.1]
    expected = cv2.fisheye.projectPoints(points[:, None], np.zeros(3), np.zeros(3), intrinsics.K, intrinsics.dist)[0]
    np.testing.assert_allclose(pixels_from_camera(points, intrinsics), expected[:, 0], atol=1e-10)


@pytest.mark.parametrize("straight", [pinhole("rational"), fisheye()], ids=["pinhole", "fisheye"])
def test_skew_moves_pixels_across_by_their_height(straight: Intrinsics, rng: np.random.Generator) -> None:
    points = in_view(straight, rng)
    xy, moved = pixels_from_camera(points, straight), pixels_from_camera(points, skewed(straight))
    across = 25.0 * (xy[:, 1] - straight.K[1, 2]) / straight.K[1, 1]
    np.testing.assert_allclose(moved, xy + np.stack((across, np.zeros(len(xy))), axis=1), atol=1e-10)


@pytest.mark.parametrize("intrinsics", every(), ids=NAMES)
def test_rays_and_pixels_are_inverse_to_each_other(intrinsics: Intrinsics, rng: np.random.Generator) -> None:
    points = in_view(intrinsics, rng).reshape(4, 50, 3)
    rays = rays_from_pixels(pixels_from_camera(points, intrinsics), intrinsics)
    assert rays.shape == points.shape
    np.testing.assert_allclose(rays, points / np.linalg.norm(points, axis=-1, keepdims=True), atol=1e-13)
    center = intrinsics.K[:2, 2]
    np.testing.assert_allclose(rays_from_pixels(center, intrinsics), [0, 0, 1], atol=1e-15)


def test_pixels_outside_the_image_have_rays_too() -> None:
    u, v = np.meshgrid(np.linspace(-1000, 2300, 12), np.linspace(-800, 1800, 11))
    xy = np.stack((u, v), axis=-1)
    for name in ("none", "rational"):
        rays = rays_from_pixels(xy, pinhole(name))
        np.testing.assert_allclose(pixels_from_camera(rays, pinhole(name)), xy, atol=1e-8)


@pytest.mark.parametrize("intrinsics", every(), ids=NAMES)
def test_derivatives_are_those_of_finite_differences(intrinsics: Intrinsics, rng: np.random.Generator) -> None:
    points = in_view(intrinsics, rng, 40)
    xy, J_point, J_parameters = project_jacobian(points, intrinsics)
    np.testing.assert_array_equal(xy, pixels_from_camera(points, intrinsics))
    step = 1e-6
    for i, nudge in enumerate(step * np.eye(3)):
        difference = pixels_from_camera(points + nudge, intrinsics) - pixels_from_camera(points - nudge, intrinsics)
        np.testing.assert_allclose(J_point[..., i], difference / (2 * step), atol=2e-5)
    n_dist = 4 if intrinsics.model == "fisheye" else 8
    for i in range(12):
        if i >= 4 + n_dist:
            assert not J_parameters[..., i].any()
            continue
        both = []
        for sign in (1, -1):
            parameters = intrinsics.parameters
            parameters[i] += sign * step
            row = np.append(parameters, intrinsics.K[0, 1])
            nudged = Intrinsics.from_parameters(SIZE, row, intrinsics.model, n_dist)
            both.append(pixels_from_camera(points, nudged))
        np.testing.assert_allclose(J_parameters[..., i], (both[0] - both[1]) / (2 * step), atol=2e-5)


def test_derivatives_on_the_axis_of_a_fisheye_are_those_of_a_pinhole() -> None:
    xy, J_point, J_parameters = project_jacobian([0.0, 0.0, 2.0], fisheye())
    fx, fy, cx, cy = fisheye().parameters[:4]
    np.testing.assert_allclose(xy, [cx, cy])
    np.testing.assert_allclose(J_point, [[fx / 2, 0, 0], [0, fy / 2, 0]], atol=1e-12)
    np.testing.assert_allclose(J_parameters[:, :4], [[0, 0, 1, 0], [0, 0, 0, 1]], atol=1e-12)
    assert not J_parameters[:, 4:].any()


def test_a_fisheye_sees_behind_its_plane_and_a_pinhole_does_not() -> None:
    behind = np.array([[1.0, 0.5, -0.3], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
    assert np.isnan(pixels_from_camera(behind, pinhole("five"))).all()
    assert all(np.isnan(part).all() for part in project_jacobian(behind, pinhole("five")))
    xy = pixels_from_camera(behind, fisheye())
    assert np.isfinite(xy[[0, 2]]).all()
    assert np.isnan(xy[1]).all()
    angle = np.arctan2(np.hypot(1, 0.5), -0.3)
    k = fisheye().parameters[4:8]
    radius = angle * (1 + k @ angle ** (2.0 * np.arange(1, 5)))
    centered = (xy[0] - fisheye().parameters[2:4]) / fisheye().parameters[:2]
    np.testing.assert_allclose(centered, radius * np.array([1, 0.5]) / np.hypot(1, 0.5))


LENSES = [[0.0] * 4, FISHEYE, [-0.02, 0.004, -0.002, 0.0003], [0.3, 0.1, -0.02, 0.003], [-0.11, 0.03, -0.012, 0.0018]]


@pytest.mark.parametrize("lens", LENSES, ids=range(len(LENSES)))
def test_fisheye_round_trip_and_derivatives_to_95_degrees_and_beyond(lens: list[float]) -> None:
    """Pixels to 1e-6, derivatives by finite differences, at every angle up to 110 degrees from the axis."""
    intrinsics = Intrinsics(SIZE, K / 2.2 + np.diag([0, 0, 1 - 1 / 2.2]), lens, "fisheye")
    angle, turn = np.meshgrid(np.radians(np.linspace(0, 110, 221)), np.linspace(0, 2 * np.pi, 24, endpoint=False))
    rays = np.stack((np.sin(angle) * np.cos(turn), np.sin(angle) * np.sin(turn), np.cos(angle)), axis=-1)
    assert (np.diff(radial(intrinsics, angle[0])) > 0).all()  # these lenses do not fold
    xy = pixels_from_camera(rays, intrinsics)
    back = rays_from_pixels(xy, intrinsics)
    np.testing.assert_allclose(back, rays, atol=1e-12)
    np.testing.assert_allclose(pixels_from_camera(back, intrinsics), xy, atol=1e-9)
    _, J_point, _ = project_jacobian(rays, intrinsics)
    for i, nudge in enumerate(1e-6 * np.eye(3)):
        difference = pixels_from_camera(rays + nudge, intrinsics) - pixels_from_camera(rays - nudge, intrinsics)
        np.testing.assert_allclose(J_point[..., i], difference / 2e-6, atol=1e-4)


def radial(intrinsics: Intrinsics, r: Array) -> Array:
    """Distorted radius by the plain polynomial."""
    k = intrinsics.parameters[4:]
    if intrinsics.model == "fisheye":
        return r * (1 + k[0] * r**2 + k[1] * r**4 + k[2] * r**6 + k[3] * r**8)
    top = 1 + k[0] * r**2 + k[1] * r**4 + k[4] * r**6
    return r * top / (1 + k[5] * r**2 + k[6] * r**4 + k[7] * r**6)


FOLDING = [
    Intrinsics(SIZE, K, [-0.3, 0.0, 0, 0]),
    Intrinsics(SIZE, K, [-0.4, 0.05, 0, 0]),  # grows again further out
    Intrinsics(SIZE, K, [0.1, 0.0, 0, 0, -0.05]),
    Intrinsics(SIZE, K, [0.0, 0.0, 0, 0, 0, 0.2, 0.1, 0.05]),
    Intrinsics(SIZE, K, [0.5, -0.3, 0, 0]),  # the pixels near the fold lie farther out than the fold's own radius
    Intrinsics(SIZE, K, [0.1, -0.05, 0, 0], "fisheye"),
    Intrinsics(SIZE, K, [0.0, 0.0, -0.01, 0.0], "fisheye"),
    Intrinsics(SIZE, K, [0.0, 0.0, 0.0, -0.001], "fisheye"),
]


@pytest.mark.parametrize("intrinsics", FOLDING, ids=range(len(FOLDING)))
def test_what_the_distortion_folds_back_has_no_pixel_and_no_ray(intrinsics: Intrinsics) -> None:
    r = np.linspace(0, 3.1, 1000)
    turning = r[np.argmax(np.diff(radial(intrinsics, r)) < 0)]
    assert 0 < turning < 3
    x_cam = np.column_stack((np.sin(r), 0 * r, np.cos(r)))
    if intrinsics.model == "pinhole":
        x_cam = np.column_stack((r, 0 * r, 1 + 0 * r))
    xy = pixels_from_camera(x_cam, intrinsics)
    assert np.isfinite(xy[r < turning - 0.01]).all()
    assert np.isnan(xy[r > turning + 0.01]).all()
    reached = radial(intrinsics, np.array([turning]))[0]
    inside, outside = K[:2, 2] + [[0.99 * reached * 900, 0]], K[:2, 2] + [[1.01 * reached * 900, 0]]
    ray = rays_from_pixels(inside, intrinsics)
    np.testing.assert_allclose(pixels_from_camera(ray, intrinsics), inside, atol=1e-6)
    angle = np.arctan2(ray[0, 0], ray[0, 2])
    assert (angle if intrinsics.model == "fisheye" else np.tan(angle)) < turning
    assert np.isnan(rays_from_pixels(outside, intrinsics)).all()


def test_missing_stays_missing() -> None:
    for intrinsics in (pinhole("five"), fisheye()):
        assert np.isnan(rays_from_pixels([[np.nan, 3.0], [np.nan, np.nan], [np.inf, 0]], intrinsics)).all()
        assert np.isnan(pixels_from_camera([[np.nan, 0, 1], [np.nan, np.nan, np.nan]], intrinsics)).all()
        assert rays_from_pixels(np.zeros((0, 2)), intrinsics).shape == (0, 3)


def test_parameters_and_back() -> None:
    assert INTRINSIC_PARAMETERS[:4] == ("fx", "fy", "cx", "cy")
    assert len(INTRINSIC_PARAMETERS) == 12
    for intrinsics in every():
        n = len(intrinsics.dist)
        np.testing.assert_array_equal(intrinsics.parameters[:4], intrinsics.K[[0, 1, 0, 1], [0, 1, 2, 2]])
        np.testing.assert_array_equal(intrinsics.parameters[4 : 4 + n], intrinsics.dist)
        back = Intrinsics.from_parameters(SIZE, intrinsics.row, intrinsics.model, n)
        np.testing.assert_array_equal(back.K, intrinsics.K)
        np.testing.assert_array_equal(back.dist, intrinsics.dist)
    assert [len(pinhole(name).dist) for name in PINHOLES] == [5, 5, 5, 5, 8]
    assert len(Intrinsics(SIZE, K, [], "fisheye").dist) == 4
    assert len(Intrinsics.from_parameters(SIZE, fisheye().parameters, "fisheye").dist) == 4
    assert len(Intrinsics.from_parameters(SIZE, pinhole("five").parameters).dist) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "fish"}, "did you mean 'fisheye'"),
        ({"K": K + np.array([[0, 0, 0], [1.0, 0, 0], [0, 0, 0]])}, "K: expected"),
        ({"K": K.T}, "K: expected"),
        ({"K": np.diag([0.0, 1, 1])}, "K: expected"),
        ({"K": np.full((3, 3), np.nan)}, "K: expected"),
        ({"dist": [1, 2, 3]}, "distortion"),
        ({"dist": [0, 0, 0, 0, 0], "model": "fisheye"}, "distortion"),
        ({"dist": [np.nan, 0, 0, 0]}, "distortion"),
        ({"size": (0, 5)}, "image size"),
    ],
)
def test_what_is_not_a_camera_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Intrinsics(**({"size": SIZE, "K": K, "dist": []} | change))  # type: ignore[arg-type]


def test_a_camera_is_placed_world_to_camera(rng: np.random.Generator) -> None:
    R, t = exp_so3([0.2, -0.3, 0.5]), np.array([1.0, 2, 30])
    camera = Camera("top", pinhole("five"), R, t)
    points = rng.normal(size=(2, 7, 3))
    expected = cv2.projectPoints(points.reshape(-1, 3), cv2.Rodrigues(R)[0], t, K, np.array(PINHOLES["five"]))[0][:, 0]
    np.testing.assert_allclose(camera.project(points), expected.reshape(2, 7, 2), atol=1e-9)
    np.testing.assert_allclose(R @ camera.center + t, 0, atol=1e-12)
    rays = camera.rays(camera.project(points))
    arm = points - camera.center
    np.testing.assert_allclose(rays, arm / np.linalg.norm(arm, axis=-1, keepdims=True), atol=1e-12)


@pytest.mark.parametrize(
    ("R", "t", "message"),
    [
        (np.diag([1.0, 1, -1]), np.zeros(3), "camera 'top': R"),
        (1.001 * np.eye(3), np.zeros(3), "camera 'top': R"),
        (np.eye(2), np.zeros(3), "camera 'top': R"),
        (np.eye(3), np.zeros(2), "camera 'top': t"),
        (np.eye(3), np.full(3, np.nan), "camera 'top': t"),
    ],
)
def test_a_camera_that_stands_nowhere_is_refused(R: Array, t: Array, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Camera("top", pinhole("none"), R, t)
