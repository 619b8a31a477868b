from __future__ import annotations

import numpy as np
import pytest

from calibration.board import Board, Pattern
from calibration.camera import Camera, Intrinsics
from calibration.rig import CameraRig
from calibration.synthetic import board_motion, board_visible, render_board, ring_rig, simulate_detections

BOARD = Board(6, 5, 20.0, 15.0, "DICT_4X4_50")
STILL = np.eye(3)


def plain_camera(distortion: tuple[float, ...] = (0, 0, 0, 0, 0)) -> Camera:
    """At the origin, looking along z."""
    K = np.array([[400.0, 0, 199.5], [0, 400, 149.5], [0, 0, 1]])
    return Camera("plain", Intrinsics((400, 300), K, distortion), np.eye(3), np.zeros(3))


def test_ring_looks_at_the_origin_upright(rng: np.random.Generator) -> None:
    rig = ring_rig(5, rng, radius=600.0, height=400.0, off_centre_px=15)
    assert rig.names == tuple(f"cam{i}" for i in range(5)) or list(rig.names) == [f"cam{i}" for i in range(5)]
    for i, camera in enumerate(rig):
        cx, cy = camera.intrinsics.K[:2, 2]
        np.testing.assert_allclose(camera.project(np.zeros(3)), [cx, cy], atol=1e-9)
        assert camera.project(np.array([0, 0, 50.0]))[1] < cy, "up in the world is up in the image"
        assert abs(np.linalg.norm(camera.center[:2]) - 600) < 0.05 * 600 * np.sqrt(2)
        assert abs(camera.center[2] - 400) <= 0.05 * 600
        angle = np.arctan2(camera.center[1], camera.center[0]) - 2 * np.pi * i / 5
        assert abs(np.angle(np.exp(1j * angle))) < 0.08
        assert 0.97 * 900 <= camera.intrinsics.K[0, 0] <= 1.03 * 900
        assert (np.abs([cx - 479.5, cy - 359.5]) <= 15).all()
        assert np.linalg.det(camera.R) == pytest.approx(1.0)


def test_board_shows_its_front_to_two_neighbours_within_reach(rng: np.random.Generator) -> None:
    rig = ring_rig(4, rng, radius=600.0, height=400.0)
    R, t = board_motion(rig, BOARD, 60, rng, reach=100.0, tilt=0.5)
    np.testing.assert_allclose(np.linalg.det(R), 1.0)
    middle = np.einsum("fij,j->fi", R, BOARD.object_points.mean(axis=0)) + t
    assert np.linalg.norm(middle, axis=1).max() <= 100.0
    for frame in range(60):
        for camera in (frame % 4, (frame + 1) % 4):
            sight = middle[frame] - rig.centers[camera]
            assert sight @ R[frame, :, 2] > 0, "the normal points away from who sees the front"
    pair = rig.centers[np.arange(60) % 4], rig.centers[np.arange(1, 61) % 4]
    between = [0.5 * (a + b) - m for a, b, m in zip(*pair, middle, strict=True)]
    cosine = [-b @ r[:, 2] / np.linalg.norm(b) for b, r in zip(between, R, strict=True)]
    # turned by up to 0.5 rad from a direction up to 0.3 of the way (about 0.35 rad) from the middle between the two
    assert min(cosine) > np.cos(0.9)
    assert np.std(np.arccos(cosine)) > 0.05, "and tilted differently each time"
    rolls = np.array([np.arctan2(*r[1, :2]) for r in R])
    assert np.ptp(rolls) > 3


def test_visible_from_the_front_inside_and_not_too_steeply() -> None:
    camera = plain_camera()
    at = np.array([-60.0, -50.0, 400.0])

    def visible(R: np.ndarray, t: np.ndarray, **steepest: float) -> np.ndarray:
        return board_visible(camera, BOARD, R[None], t[None], **steepest)[0]

    assert visible(STILL, at).all()
    behind = np.diag([-1.0, 1.0, -1.0])
    assert not visible(behind, at * [-1, 1, 1]).any()
    assert not visible(STILL, at + [0, 0, -800]).any(), "behind the camera"
    aside = visible(STILL, at + [180.0, 0, 0])
    np.testing.assert_array_equal(aside, camera.project(BOARD.object_points + at + [180.0, 0, 0])[:, 0] < 399.5)
    for degrees, seen in ((60, True), (80, False)):
        angle = np.deg2rad(degrees)
        turned = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        small = visible(turned, np.array([0.0, 0, 4000]))
        assert small.all() == seen
        assert small.any() == seen
    assert visible(turned, np.array([0.0, 0, 4000]), steepest=np.deg2rad(85)).all()


def test_detections_have_the_noise_and_dropout_that_were_asked_for(rng: np.random.Generator) -> None:
    rig = ring_rig(3, rng, radius=600.0, height=400.0)
    R, t = board_motion(rig, BOARD, 300, rng, reach=60.0)
    detections = simulate_detections(rig, BOARD, R, t, rng, noise_px=0.5, dropout=0.2)
    assert detections.corners.shape == (3, 300, 20, 2)
    assert detections.view_names == tuple(rig.names)
    np.testing.assert_array_equal(detections.sizes, [[960, 720]] * 3)
    world = np.einsum("fij,cj->fci", R, BOARD.object_points) + t[:, None]
    error = detections.corners - rig.project(world)
    seen = np.isfinite(error[..., 0])
    n = seen.sum()
    assert np.nanstd(error) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(4 * n))
    assert abs(np.nanmean(error)) < 4 * 0.5 / np.sqrt(2 * n)
    could = np.stack([board_visible(camera, BOARD, R, t) for camera in rig])
    assert not (seen & ~could).any()
    assert seen.sum() / could.sum() == pytest.approx(0.8, abs=4 * np.sqrt(0.16 / could.sum()))
    assert (detections.sigma[seen] == 0.5).all()
    assert np.isnan(detections.sigma[~seen]).all()


@pytest.mark.parametrize("inverted", [False, True])
def test_rendered_squares_stand_where_the_camera_projects_them(rng: np.random.Generator, inverted: bool) -> None:
    camera = plain_camera((-0.3, 0.1, 0.002, -0.003, 0.0))
    angle = 0.5
    R = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    t = np.array([-55.0, -45.0, 180.0])
    chess = Board(6, 5, 20.0)
    picture = render_board(camera, chess, R, t, rng, pattern=Pattern(inverted=inverted))
    assert picture.shape == (300, 400, 3)
    assert picture.dtype == np.uint8
    row, column = np.indices((5, 6))
    middles = np.stack([column + 0.5, row + 0.5, 0 * row], axis=-1).reshape(-1, 3) * 20.0
    x, y = np.rint(camera.project(middles @ R.T + t)).astype(int).T
    grey = picture[..., 0].astype(float)
    dark = ((row + column) % 2 == 0).ravel() != inverted
    assert grey[y, x][dark].max() + 60 < grey[y, x][~dark].min()
    # Along an edge between a dark and a bright square brightness passes half way exactly at the projected edge.
    edge = camera.project(np.array([20.0, 10.0, 0.0]) @ R.T + t)
    line = np.interp(edge[0] + np.linspace(-0.5, 0.5, 11), np.arange(400), grey[round(edge[1])])
    left, right = grey[round(edge[1]), int(edge[0]) - 4], grey[round(edge[1]), int(edge[0]) + 5]
    crossing = np.interp(0.5, np.sort((line - left) / (right - left)), np.linspace(-0.5, 0.5, 11))
    assert abs(crossing) < 0.25  # noise of 2 levels on a slope of about 60 levels a pixel, and the row is rounded


def test_rendered_paper_has_a_rim_a_back_and_a_place_in_the_world(rng: np.random.Generator) -> None:
    board = Board(6, 5, 20.0)
    cameras = (
        plain_camera(),
        Camera("behind", plain_camera().intrinsics, np.diag([-1.0, 1.0, -1.0]), np.array([0, 0, 400.0])),
    )
    rig = CameraRig(cameras, "mm")
    t = np.array([-60.0, -50.0, 200.0])
    front, back = (render_board(camera, board, STILL, t, rng)[..., 0].astype(float) for camera in rig)
    x, y = np.rint(rig["plain"].project(np.array([-5.0, 50, 0]) + t)).astype(int)
    assert front[y, x] > 150, "the white rim is half a square wide"
    x, y = np.rint(rig["plain"].project(np.array([-15.0, 50, 0]) + t)).astype(int)
    assert front[y, x] < 130, "and no wider"
    inside = back[100:200, 150:250]
    assert 100 < inside.mean() < 155
    assert inside.std() < 6, "from behind it is a grey sheet"
    nowhere = render_board(plain_camera(), board, STILL, np.array([0.0, 0, -500]), rng)
    assert nowhere.max() < 140


def test_same_generator_same_picture() -> None:
    pictures = [
        render_board(plain_camera(), BOARD, STILL, np.array([-60.0, -50, 300]), np.random.default_rng(1))
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*pictures)
