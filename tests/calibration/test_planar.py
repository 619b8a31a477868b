"""The two poses of a flat board: exact geometry, OpenCV's implementation, what is left out."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from calibration.board import Board, BoardDetections
from calibration.camera import Camera, Intrinsics, pixels_from_camera
from calibration.planar import MIN_CORNERS, board_views, plane_poses
from calibration.rig import CameraRig
from calibration.synthetic import simulate_detections
from calibration.transforms import exp_so3, log_so3

BOARD = Board(7, 10, 25.0)
INTRINSICS = Intrinsics(
    (1280, 1024), np.array([[1100.0, 0, 650], [0, 1090, 500], [0, 0, 1]]), np.array([-0.15, 0.05, 1e-3, -5e-4, 0])
)


def motion(n: int, rng: np.random.Generator, tilt: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    R = exp_so3(np.concatenate((rng.uniform(-tilt, tilt, (n, 2)), rng.uniform(-3, 3, (n, 1))), axis=1))
    t = np.concatenate((rng.uniform(-80, 80, (n, 2)), rng.uniform(600, 1200, (n, 1))), axis=1)
    return R, t - R @ BOARD.object_points.mean(axis=0)


def seen(
    n: int, rng: np.random.Generator, noise: float = 0.0, **how: float
) -> tuple[np.ndarray, np.ndarray, BoardDetections]:
    R, t = motion(n, rng, **how)
    rig = CameraRig((Camera("a", INTRINSICS, np.eye(3), np.zeros(3)),), "mm")
    return R, t, simulate_detections(rig, BOARD, R, t, rng, noise_px=noise, dropout=0.1)


def angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(log_so3(np.swapaxes(a, -1, -2) @ b), axis=-1)


def test_plane_poses_hold_the_truth_exactly(rng: np.random.Generator) -> None:
    R, t = motion(50, rng)
    points = BOARD.object_points @ np.swapaxes(R, -1, -2) + t[:, None]
    flat = points[..., :2] / points[..., 2:]
    flat[rng.uniform(size=flat.shape[:2]) < 0.3] = np.nan
    found_R, found_t = plane_poses(BOARD.object_points[:, :2], flat)
    best = angles(R[:, None], found_R).argmin(axis=1)
    rows = np.arange(len(R))
    np.testing.assert_allclose(found_R[rows, best], R, atol=1e-9)
    np.testing.assert_allclose(found_t[rows, best], t, atol=1e-6)


def test_plane_poses_are_opencvs(rng: np.random.Generator) -> None:
    R, t = motion(30, rng)
    points = BOARD.object_points @ np.swapaxes(R, -1, -2) + t[:, None]
    flat = points[..., :2] / points[..., 2:] + rng.normal(0, 3e-4, (*points.shape[:2], 2))
    found_R, found_t = plane_poses(BOARD.object_points[:, :2], flat)
    for k in range(len(R)):
        _, vectors, shifts, _ = cv2.solvePnPGeneric(
            BOARD.object_points, flat[k], np.eye(3), None, flags=cv2.SOLVEPNP_IPPE
        )
        for vector, shift in zip(vectors, shifts, strict=True):
            rotation = cv2.Rodrigues(vector)[0]
            i = angles(rotation, found_R[k]).argmin()
            assert angles(rotation, found_R[k, i]) < 1e-3
            np.testing.assert_allclose(found_t[k, i], shift.ravel(), atol=0.15)


def test_board_views_find_poses_through_distortion(rng: np.random.Generator) -> None:
    R, t, detections = seen(40, rng, noise=0.2)
    views = board_views(detections, "a", INTRINSICS)
    np.testing.assert_array_equal(views.n_corners[:, 0], np.isfinite(detections.corners[0, ..., 0]).sum(axis=1))
    best = np.nanargmin(np.where(np.isnan(views.error[:, 0]), np.nan, angles(R[:, None], views.R[:, 0])), axis=1)
    rows = np.arange(len(R))
    assert np.median(angles(R, views.R[rows, 0, best])) < 0.02
    assert np.median(np.linalg.norm(views.t[rows, 0, best] - t, axis=1)) < 10
    assert np.median(views.error[:, 0, 0]) == pytest.approx(0.2 * np.sqrt(2), rel=0.2)  # the noise of both axes
    both = np.isfinite(views.error[:, 0, 1])
    assert (views.error[both, 0, 0] <= views.error[both, 0, 1]).all()
    assert (views.error[both, 0, 1] <= 2 * views.error[both, 0, 0]).all()


def test_error_is_the_rms_over_the_corners_seen(rng: np.random.Generator) -> None:
    _, _, detections = seen(3, rng)
    views = board_views(detections, "a", INTRINSICS)
    assert np.nanmax(views.error[:, 0, 0]) < 1e-6
    corners = detections.corners.copy()
    corners += rng.normal(0, 1.0, corners.shape)
    views = board_views(replace(detections, corners=corners), "a", INTRINSICS)
    pixels = pixels_from_camera(BOARD.object_points @ views.R[1, 0, 0].T + views.t[1, 0, 0], INTRINSICS)
    expected = np.sqrt(np.nanmean(((pixels - corners[0, 1]) ** 2).sum(axis=1)))
    assert views.error[1, 0, 0] == pytest.approx(expected)


def test_second_pose_is_dropped_where_it_fits_clearly_worse(rng: np.random.Generator) -> None:
    _, _, near = seen(20, rng, noise=0.05)
    R, t = motion(20, rng, tilt=0.1)
    rig = CameraRig((Camera("a", INTRINSICS, np.eye(3), np.zeros(3)),), "mm")
    far = simulate_detections(rig, BOARD, R, t + np.array([0, 0, 6000]), rng, noise_px=0.5, dropout=0.0)
    assert np.isnan(board_views(near, "a", INTRINSICS).error[:, 0, 1]).mean() > 0.8
    assert np.isfinite(board_views(far, "a", INTRINSICS).error[:, 0, 1]).mean() > 0.8


def test_too_few_corners_or_a_line_give_no_pose(rng: np.random.Generator) -> None:
    _, _, detections = seen(3, rng)
    corners = np.full_like(detections.corners, np.nan)
    full = simulate_detections(
        CameraRig((Camera("a", INTRINSICS, np.eye(3), np.zeros(3)),), "mm"),
        BOARD,
        *motion(3, rng),
        rng,
        noise_px=0,
        dropout=0,
    ).corners
    scattered = np.array([0, 5, 20, 31, 48, 53])
    corners[0, 0, scattered] = full[0, 0, scattered]
    corners[0, 1, scattered[:-1]] = full[0, 1, scattered[:-1]]
    corners[0, 2, :6] = full[0, 2, :6]  # one row of the board
    views = board_views(replace(detections, corners=corners), "a", INTRINSICS)
    assert len(scattered) == MIN_CORNERS
    np.testing.assert_array_equal(views.n_corners[:, 0], [6, 0, 0])
    np.testing.assert_array_equal(np.isfinite(views.t[:, 0, 0, 0]), [True, False, False])


def test_boards_are_told_apart(rng: np.random.Generator) -> None:
    small = Board(5, 5, 10.0)
    R, t, first = seen(4, rng)
    rig = CameraRig((Camera("a", INTRINSICS, np.eye(3), np.zeros(3)),), "mm")
    second = simulate_detections(rig, small, R, t, rng, noise_px=0, dropout=0)
    both = BoardDetections(
        view_names=("a",),
        boards=(BOARD, small),
        sizes=first.sizes,
        frame=first.frame,
        time=first.time,
        corners=np.concatenate((first.corners, second.corners), axis=2),
        sigma=np.concatenate((first.sigma, second.sigma), axis=2),
        board_index=np.repeat([0, 1], [BOARD.n_corners, small.n_corners]),
    )
    views = board_views(both, "a", INTRINSICS)
    for board in range(2):
        known = np.isfinite(views.t[:, board, 0, 0])
        assert known.any()
        np.testing.assert_allclose(views.t[known, board, 0], t[known], atol=1e-3)


WIDE = Intrinsics(
    (1280, 1024), np.array([[300.0, 0, 640], [0, 300, 512], [0, 0, 1]]), [0.02, -0.004, 0.001, -1e-4], "fisheye"
)


def around(n: int, rng: np.random.Generator, least: float, most: float) -> tuple[np.ndarray, np.ndarray]:
    """Poses of boards that face the camera, turned a little, their middle at these angles in degrees from its axis."""
    angle, turn = np.radians(rng.uniform(least, most, n)), rng.uniform(0, 2 * np.pi, n)
    ray = np.stack((np.sin(angle) * np.cos(turn), np.sin(angle) * np.sin(turn), np.cos(angle)), axis=-1)
    axis = np.stack((-np.sin(turn), np.cos(turn), 0 * turn), axis=-1)
    R = exp_so3(angle[:, None] * axis) @ exp_so3(rng.uniform(-0.5, 0.5, (n, 3)))
    return R, rng.uniform(250, 500, (n, 1)) * ray - R @ BOARD.object_points.mean(axis=0)


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_a_fisheye_has_poses_of_boards_beside_and_behind_it(rng: np.random.Generator, noise: float) -> None:
    R, t = around(60, rng, 70, 110)
    points = BOARD.object_points @ np.swapaxes(R, -1, -2) + t[:, None]
    assert (points[..., 2] < 0).all(axis=1).sum() > 5
    assert ((points[..., 2] < 0).any(axis=1) & (points[..., 2] > 0).any(axis=1)).sum() > 5
    xy = pixels_from_camera(points, WIDE)[None] + noise * rng.normal(size=(1, *points.shape[:2], 2))
    frames = np.arange(60)
    detections = BoardDetections(
        view_names=("a",), boards=(BOARD,), sizes=np.array([WIDE.size]), frame=frames, time=np.full(60, np.nan),
        corners=xy, sigma=np.ones(xy.shape[:3]), board_index=np.zeros(BOARD.n_corners, dtype=np.int64),
    )  # fmt: skip
    views = board_views(detections, "a", WIDE)
    assert (views.n_corners == BOARD.n_corners).all()
    away = angles(R[:, None], views.R[:, 0])
    best = np.nanargmin(away, axis=1)
    if noise:
        assert np.median(away[frames, best]) < 0.02
        assert np.median(views.error[:, 0, 0]) == pytest.approx(noise * np.sqrt(2), rel=0.2)
    else:
        np.testing.assert_allclose(views.R[frames, 0, best], R, atol=1e-7)
        np.testing.assert_allclose(views.t[frames, 0, best], t, atol=1e-4)


def test_corners_far_from_the_middle_of_their_board_take_no_part() -> None:
    """A board so near that its ends are 88 degrees from the middle of what is seen."""
    t = np.array([0.0, 0.0, 3.0]) - BOARD.object_points.mean(axis=0)
    points = BOARD.object_points + t
    xy = pixels_from_camera(points, WIDE)[None, None]
    detections = BoardDetections(
        view_names=("a",), boards=(BOARD,), sizes=np.array([WIDE.size]), frame=np.arange(1), time=np.full(1, np.nan),
        corners=xy, sigma=np.ones(xy.shape[:3]), board_index=np.zeros(BOARD.n_corners, dtype=np.int64),
    )  # fmt: skip
    near = points[:, 2] / np.linalg.norm(points, axis=1) > 0.05
    assert MIN_CORNERS < near.sum() < BOARD.n_corners
    views = board_views(detections, "a", WIDE)
    assert views.n_corners[0, 0] == near.sum()
    np.testing.assert_allclose(views.t[0, 0, 0], t, atol=1e-4)
