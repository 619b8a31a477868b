from __future__ import annotations

import math

import numpy as np
import pytest

from calibration.camera import Camera, Intrinsics
from calibration.errors import InputError
from calibration.rig import CameraRig
from pose3d.poses import Poses
from pose3d.render import viewpoint as module
from pose3d.render.viewpoint import Floor, find_floor, frustum, in_picture, up_direction, viewpoint

Z = np.array([0.0, 0.0, 1.0])
NOBODY = np.zeros((0, 3))


def looking(name: str, center: tuple[float, ...], at: tuple[float, ...] = (0, 0, 0), roll: float = 0.0) -> Camera:
    """A level camera of a z-up world, turned about its axis by roll (rad); one that looks straight down has x = +x."""
    forward = np.array(at, float) - center
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, Z) if abs(forward[2]) < 1 else np.array([1.0, 0.0, 0.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    right, down = math.cos(roll) * right + math.sin(roll) * down, math.cos(roll) * down - math.sin(roll) * right
    R = np.stack([right, down, forward])
    K = np.array([[500.0, 0, 319.5], [0, 500.0, 239.5], [0, 0, 1]])
    return Camera(name, Intrinsics((640, 480), K, np.zeros(5)), R, -R @ np.array(center, float))


def ring(n: int = 4, height: float = 2.0) -> CameraRig:
    angles = 2 * np.pi * np.arange(n) / n
    return CameraRig(tuple(looking(f"c{a:.2f}", (3 * np.cos(a), 3 * np.sin(a), height)) for a in angles), "m")


_AXIS = np.array([0.6, -0.64, 0.48])
_CROSS = np.array([[0, -_AXIS[2], _AXIS[1]], [_AXIS[2], 0, -_AXIS[0]], [-_AXIS[1], _AXIS[0], 0]])
TURN = np.eye(3) + math.sin(1.9) * _CROSS + (1 - math.cos(1.9)) * _CROSS @ _CROSS


def turned(rig: CameraRig) -> tuple[CameraRig, np.ndarray]:
    """The rig in another world and where its up is there."""
    return rig.moved(2.0, TURN, np.array([3.0, -1.0, 5.0])), TURN @ Z


def angle(a: np.ndarray, b: np.ndarray) -> float:
    return math.degrees(math.acos(min(1.0, float(a @ b) / np.linalg.norm(a) / np.linalg.norm(b))))


def test_up_is_perpendicular_to_the_cameras_x_axes_in_any_world() -> None:
    lopsided = CameraRig(
        (
            looking("back", (0, -3, 0.5)),
            looking("side", (3, 0, 0.4)),
            looking("mid", (2, -2, 1.0)),
            looking("top", (0, 0, 4)),
        ),
        "m",
    )
    for rig in (ring(), lopsided):
        rig, up = turned(rig)
        assert angle(up_direction(rig, NOBODY), up) < 1e-4
        assert np.linalg.norm(up_direction(rig, NOBODY)) == pytest.approx(1)


def test_up_of_cameras_side_by_side_is_their_mean_top() -> None:
    rig, up = turned(CameraRig((looking("a", (-1, -5, 0), (-1, 0, 0)), looking("b", (1, -5, 0), (1, 0, 0))), "m"))
    assert angle(up_direction(rig, NOBODY), up) < 1e-4
    alone, up = turned(CameraRig((looking("a", (0, -5, 0)),), "m"))
    assert angle(up_direction(alone, NOBODY), up) < 1e-4
    half = CameraRig((looking("a", (0, -5, 0), roll=math.pi / 2), looking("b", (0, -5, 0), roll=-math.pi / 2)), "m")
    np.testing.assert_array_equal(up_direction(half, NOBODY), Z)  # tops cancel


def test_a_world_with_z_up_is_left_as_it_is() -> None:
    tilted = CameraRig((looking("a", (0, -5, 0), roll=math.radians(20)),), "m")
    np.testing.assert_array_equal(up_direction(tilted, NOBODY), Z)
    more = CameraRig((looking("a", (0, -5, 0), roll=math.radians(30)),), "m")
    assert angle(up_direction(more, NOBODY), Z) == pytest.approx(30)
    level = looking("a", (0, -5, 0))
    hanging = CameraRig((Camera("a", level.intrinsics, np.diag([-1.0, -1, 1]) @ level.R, level.t),), "m")
    assert up_direction(hanging, NOBODY)[2] == pytest.approx(-1)


def test_animals_that_walk_about_tell_the_vertical_where_cameras_are_rolled(rng: np.random.Generator) -> None:
    cameras = [
        looking(f"c{k}", (3 * np.cos(1.5 * k), 3 * np.sin(1.5 * k), 2), roll=math.radians(roll))
        for k, roll in enumerate((30, -30, 10, -10))
    ]
    rig, up = turned(CameraRig(tuple(cameras), "m"))
    level, _ = turned(ring())
    walk = rng.normal(size=(4000, 3)) * (1.0, 0.5, 0.1)
    walk[:20, 2] *= 300  # gone astray
    assert 5 < angle(up_direction(rig, NOBODY), up) < 30
    assert angle(up_direction(rig, walk @ TURN.T), up) < 1.0
    tilted = walk @ np.array([[1, 0, 0], [0, 0.96, 0.28], [0, -0.28, 0.96]])
    assert angle(up_direction(rig, tilted @ TURN.T), up) == pytest.approx(math.degrees(math.asin(0.28)), abs=1.0)
    assert angle(up_direction(level, tilted @ TURN.T), up) < 1e-4  # level cameras are believed
    upright = walk[:, [0, 2, 1]] @ TURN.T  # thin, but not from above: a person who stands
    np.testing.assert_array_equal(up_direction(rig, upright), up_direction(rig, NOBODY))


def cloud(rng: np.random.Generator, low: tuple[float, ...], high: tuple[float, ...], n: int = 5000) -> Poses:
    return Poses(rng.uniform(low, high, (n, 1, 1, 3)), unit="mm")


def test_the_floor_lies_under_the_animals(rng: np.random.Generator) -> None:
    poses = cloud(rng, (100, -50, 7), (300, 50, 27))
    poses.points[0] = (5000, 5000, -5000)  # one gone astray
    floor = find_floor(poses, Z)
    np.testing.assert_allclose(floor.origin, (200, 0, 7.2), atol=2)
    np.testing.assert_allclose(np.stack([floor.x, floor.y, floor.up]), np.eye(3))
    assert floor.spacing == 50  # 1.4 * 196 / 10 = 27.4, rounded up
    np.testing.assert_array_equal(floor.half, (150, 100))  # 0.7 * 196 = 137, 0.7 * 98 = 69, to whole cells
    corners = floor.corners()
    np.testing.assert_allclose(corners - floor.origin, [(-150, -100, 0), (150, -100, 0), (150, 100, 0), (-150, 100, 0)])


def test_a_floor_in_any_direction_is_right_handed(rng: np.random.Generator) -> None:
    up = np.array([0.48, 0.6, -0.64])
    floor = find_floor(cloud(rng, (0, 0, 0), (10, 10, 10)), up)
    axes = np.stack([floor.x, floor.y, floor.up])
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(axes) == pytest.approx(1)
    below = cloud(rng, (0, 0, 0), (10, 10, 10)).points.reshape(-1, 3) @ up < floor.origin @ up
    assert below.mean() == pytest.approx(0.01, abs=0.01)


def test_a_narrow_walk_has_a_floor_of_some_width(rng: np.random.Generator) -> None:
    floor = find_floor(cloud(rng, (0, 0, 0), (100, 0.001, 1)), Z)
    assert floor.half[1] >= 0.3 * 0.7 * 98
    lone = find_floor(Poses(np.full((1, 1, 1, 3), 4.0)), Z)
    assert np.isfinite(lone.half).all()
    with pytest.raises(InputError, match="no keypoint at all"):
        find_floor(Poses(np.full((4, 1, 2, 3), np.nan)), Z)


@pytest.mark.parametrize(("length", "spacing"), [(1, 1), (1.01, 2), (2.01, 5), (5.01, 10), (0.03, 0.05), (999, 1000)])
def test_grid_spacing_is_a_round_number(length: float, spacing: float) -> None:
    assert module._nice(length) == pytest.approx(spacing)


def test_shadows_fall_straight_down() -> None:
    floor = Floor(np.array([0, 0, 2.0]), *np.eye(3), np.ones(2), 1.0)
    np.testing.assert_allclose(floor.shadow([[3, 4, 9], [1, 1, 0]]), [[3, 4, 2], [1, 1, 2]])


@pytest.mark.parametrize("dist", [np.zeros(5), np.array([-0.2, 0.05, 0.001, -0.002, 0.0])])
def test_a_frustum_projects_to_the_images_corners(dist: np.ndarray) -> None:
    camera = looking("a", (1, -4, 2))
    camera = Camera("a", Intrinsics((640, 480), camera.intrinsics.K, dist), camera.R, camera.t)
    points = frustum(camera, 0.7)
    np.testing.assert_allclose(points[0], camera.center)
    corners = [(0, 0), (639, 0), (639, 479), (0, 479)]
    np.testing.assert_allclose(camera.project(points[1:]), corners, atol=1e-6)
    np.testing.assert_allclose((points[1:] - camera.center) @ camera.R[2], 0.7)


def test_a_frustum_of_a_wide_fisheye_stays_finite() -> None:
    K = np.array([[150.0, 0, 319.5], [0, 150.0, 239.5], [0, 0, 1]])
    camera = Camera("a", Intrinsics((640, 480), K, np.zeros(4), "fisheye"), np.eye(3), np.zeros(3))
    points = frustum(camera, 1.0)
    np.testing.assert_allclose(points[1:, 2], 1.0)
    np.testing.assert_allclose(np.linalg.norm(points[1:, :2], axis=1), math.tan(math.radians(75)))
    assert (np.sign(points[1:, :2]) == [(-1, -1), (1, -1), (1, 1), (-1, 1)]).all()
    folding = Camera("a", Intrinsics((640, 480), K, np.array([-0.5, 0, 0, 0, 0])), np.eye(3), np.zeros(3))
    assert np.isfinite(frustum(folding, 1.0)).all()  # no ray reaches the corners


@pytest.mark.parametrize("aspect", [4 / 3, 1.0, 2.5])
def test_everything_is_in_the_picture_and_fills_it(aspect: float, rng: np.random.Generator) -> None:
    for rig, floor in (
        (ring(), find_floor(cloud(rng, (-1, -1, 0), (1, 1, 0.2)), Z)),
        (ring(3, 0.5), find_floor(cloud(rng, (-3, 0, 0), (5, 1, 2)), np.array([0.6, 0.0, 0.8]))),
    ):
        points = np.concatenate((rig.centers, floor.corners()))
        position, focus = viewpoint(points, rig.centers, floor, aspect)
        place = in_picture(points, position, focus, floor.up, aspect)
        assert place.min() >= 0.06 - 1e-9
        assert place.max() <= 0.94 + 1e-9
        tight = min(abs(np.ptp(place[:, 0]) - 0.88), abs(np.ptp(place[:, 1]) - 0.88))
        assert tight < 1e-9  # no nearer without losing a point
        back = (position - focus) / np.linalg.norm(position - focus)
        assert math.degrees(math.asin(back @ floor.up)) == pytest.approx(28)


def test_the_viewer_stands_between_the_cameras(rng: np.random.Generator) -> None:
    floor = find_floor(cloud(rng, (-1, -1, 0), (1, 1, 0.2)), Z)

    def bearing(rig: CameraRig) -> float:
        position, focus = viewpoint(rig.centers, rig.centers, floor, 1.0)
        back = position - focus
        return math.degrees(math.atan2(back[1], back[0])) % 360

    assert bearing(ring(4)) % 90 == pytest.approx(45)
    row = CameraRig((looking("a", (3, 0.0, 1)), looking("b", (3, 0.5, 1)), looking("top", (0.01, -0.01, 3))), "m")
    assert bearing(row) == pytest.approx(185, abs=5)  # the one overhead does not count
    overhead = CameraRig((looking("top", (*floor.origin[:2], 3)),), "m")
    assert math.isfinite(bearing(overhead))


def test_in_picture_of_known_points() -> None:
    position, focus, up = np.array([0.0, -10, 0]), np.zeros(3), Z
    half = 10 * math.tan(math.radians(15))
    points = np.array([(0, 0, 0), (2 * half, 0, half), (-2 * half, 0, -half), (half, 0, 0)])
    expected = [(0.5, 0.5), (1, 0), (0, 1), (0.75, 0.5)]
    np.testing.assert_allclose(in_picture(points, position, focus, up, 2.0), expected, atol=1e-12)
