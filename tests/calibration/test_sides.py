"""Boards printed on both sides: one rigid body, seen from either side, for cameras that face each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibration.board import Back, Board, BoardDetections
from calibration.board_corners import detect_board
from calibration.calibrate import CalibrationOptions, calibrate_rig
from calibration.camera import Camera, Intrinsics
from calibration.errors import InputError
from calibration.extrinsics import initial_rig
from calibration.footage_checks import mirrored_views
from calibration.planar import board_views
from calibration.rig import CameraRig
from calibration.synthetic import board_motion, board_visible, render_board, ring_rig, simulate_detections
from calibration.transforms import exp_so3, invert
from calibration.world import on_board

NOISE = 0.3
FLIPS = ("left_right", "top_bottom")
PLAIN = Board(7, 5, 40.0, 30.0, "DICT_4X4_1000")


def two_sided(flipped: str = "left_right", thickness: float = 6.0) -> Board:
    return replace(PLAIN, back=Back(17, thickness, flipped))  # type: ignore[arg-type]


def facing(rng: np.random.Generator, board: Board, n_frames: int = 60) -> tuple[CameraRig, BoardDetections]:
    """Four cameras, 0 and 1 on one side, 2 and 3 on the other, between which only the board's two sides are a link."""
    rig = ring_rig(4, rng, radius=1000, height=150)
    pairs = [rig.subset(["cam0", "cam1"]), rig.subset(["cam2", "cam3"])]
    moves = [board_motion(pair, board, n_frames // 2, rng, reach=150, tilt=0.6) for pair in pairs]
    R, t = (np.concatenate(parts) for parts in zip(*moves, strict=True))
    return rig, simulate_detections(rig, board, R, t, rng, noise_px=NOISE)


def without_back(detections: BoardDetections) -> BoardDetections:
    front = detections.side_index == 0
    return replace(
        detections,
        boards=(detections.boards[0].sides[0],),
        corners=detections.corners[:, :, front],
        sigma=detections.sigma[:, :, front],
        board_index=detections.board_index[front],
    )


def nees(found: CameraRig, truth: CameraRig) -> np.ndarray:
    """(cameras - 1,) squared error of centres in the first camera's frame, over the covariance; 3 on the average."""
    told = truth.moved(1.0, truth.cameras[0].R, truth.cameras[0].t)
    assert found.covariance is not None
    squared = []
    for v in range(1, len(found)):
        camera, step, J = found.cameras[v], np.eye(6) * 1e-6, np.empty((3, 6))
        for i in range(6):
            R, t = exp_so3(step[i, :3]) @ camera.R, camera.t + step[i, 3:]
            J[:, i] = (-R.T @ t - camera.center) / 1e-6
        covariance = J @ found.covariance[18 * v : 18 * v + 6, 18 * v : 18 * v + 6] @ J.T
        off = camera.center - told.cameras[v].center
        squared.append(off @ np.linalg.solve(covariance, off))
    return np.array(squared)


@pytest.mark.parametrize("flipped", FLIPS)
def test_the_back_lies_where_the_board_is_turned_over(flipped: str) -> None:
    """Turned over as said, the back is upright: its corners run as the front's do, on the front's far side."""
    board = two_sided(flipped)
    points, side = board.object_points, board.side
    assert board.n_corners == 48
    front, back = points[side == 0], points[side == 1]
    np.testing.assert_array_equal(front, PLAIN.object_points)
    assert (back[:, 2] == 6.0).all()
    turn = np.diag([-1.0, 1.0, -1.0] if flipped == "left_right" else [1.0, -1.0, -1.0])
    turned, upright = back @ turn.T, front @ np.diag([1.0, 1.0, -1.0])
    shift = turned.mean(axis=0) - upright.mean(axis=0)
    np.testing.assert_allclose(turned - shift, upright, atol=1e-9)
    np.testing.assert_allclose(back[:, :2].mean(axis=0), front[:, :2].mean(axis=0), err_msg="edge on edge")
    apart = np.linalg.norm(points[board.neighbours[:, 0]] - points[board.neighbours[:, 1]], axis=1)
    np.testing.assert_allclose(apart, 40.0)
    assert len(board.neighbours) == 2 * len(PLAIN.neighbours)
    first, second = board.sides
    assert (first, second) == (PLAIN, replace(PLAIN, first_marker=17))


@pytest.mark.parametrize("flipped", FLIPS)
def test_each_side_gives_the_pose_of_the_whole_board(rng: np.random.Generator, flipped: str) -> None:
    board = two_sided(flipped, 25.0)
    rig = ring_rig(4, rng, radius=1000, height=150)
    R, t = board_motion(rig, board, 30, rng, reach=100, tilt=0.5)
    seen = simulate_detections(rig, board, R, t, rng, noise_px=0.0, dropout=0.0)
    count = np.zeros(2, dtype=int)
    for v, camera in enumerate(rig):
        found = board_views(seen, camera.name, camera.intrinsics)
        rows = np.flatnonzero(found.n_corners[:, 0])
        world_R, world_t = (
            camera.R.T @ found.R[rows, 0],
            np.einsum("ij,fpj->fpi", camera.R.T, found.t[rows, 0] - camera.t),
        )
        off = np.abs(world_R - R[rows, None]).max(axis=(2, 3)) + np.abs(world_t - t[rows, None]).max(axis=2) / 1000
        assert np.nanmin(off, axis=1).max() < 1e-4
        visible = np.isfinite(seen.corners[v, rows, :, 0])
        count += [int(visible[:, board.side == s].any(axis=1).sum()) for s in (0, 1)]
        assert not (visible[:, board.side == 0].any(axis=1) & visible[:, board.side == 1].any(axis=1)).any()
    assert (count > 20).all(), "both sides were seen"
    assert mirrored_views(seen) == ()
    corners = seen.corners.copy()
    corners[1, ..., 0] = 959 - corners[1, ..., 0]
    assert mirrored_views(replace(seen, corners=corners)) == ("cam1",)


@pytest.mark.parametrize("flipped", FLIPS)
def test_cameras_that_face_each_other_are_linked(flipped: str) -> None:
    rng = np.random.default_rng(7)
    ratios, largest = [], 0.0
    for _ in range(3):
        truth, seen = facing(rng, two_sided(flipped))
        lenses = {camera.name: camera.intrinsics for camera in truth}
        with pytest.raises(InputError, match="cameras cut off: cam2, cam3"):
            initial_rig(without_back(seen), lenses)
        found = calibrate_rig(seen, CalibrationOptions(audit=False), lenses)
        ratios.append(nees(found.rig, truth))
        told = truth.moved(1.0, truth.cameras[0].R, truth.cameras[0].t)
        largest = max(largest, float(np.linalg.norm(found.rig.centers - told.centers, axis=1).max()))
        assert found.report.rms == pytest.approx(NOISE * np.sqrt(2), rel=0.05)
    assert 0.3 < np.mean(ratios) / 3 < 2.5, "a chi-square of 27 degrees of freedom over 27: 0.3 to 2.5 at 1 in 10000"
    assert largest < 3.0, "mm"


def test_a_wrong_thickness_and_a_wrong_flip_show() -> None:
    rng = np.random.default_rng(8)
    truth, seen = facing(rng, two_sided())
    lenses = {camera.name: camera.intrinsics for camera in truth}
    right = calibrate_rig(seen, CalibrationOptions(audit=False), lenses).report.rms
    thick = replace(seen, boards=(two_sided(thickness=8.0),))
    assert calibrate_rig(thick, CalibrationOptions(audit=False), lenses).report.rms > 1.1 * right
    (finding,) = calibrate_rig(thick, None, lenses).report.findings
    assert finding.kind == "wrong_board_geometry"
    assert finding.measured == pytest.approx(6.0, abs=0.2)
    turned = replace(seen, boards=(two_sided("top_bottom"),))
    assert calibrate_rig(turned, CalibrationOptions(audit=False), lenses).report.rms > 5 * right


@pytest.mark.parametrize("flipped", FLIPS)
def test_rendered_sides_are_found_in_place(rng: np.random.Generator, flipped: str) -> None:
    board = two_sided(flipped)
    K = np.array([[700.0, 0, 319.5], [0, 700, 239.5], [0, 0, 1]])
    lens = Intrinsics((640, 480), K, np.zeros(5))
    camera = Camera("one", lens, np.eye(3), np.zeros(3))
    tilt = np.array([[np.cos(0.4), 0, np.sin(0.4)], [0, 1, 0], [-np.sin(0.4), 0, np.cos(0.4)]])
    for shown, turn in enumerate((np.eye(3), np.diag([-1.0, 1.0, -1.0]))):
        R = tilt @ turn
        t = np.array([0.0, 0, 600]) - R @ board.object_points.mean(axis=0)
        picture = render_board(camera, board, R, t, rng)
        xy, sigma = detect_board(picture, board)
        visible = board_visible(camera, board, R[None], t[None])[0]
        np.testing.assert_array_equal(visible, board.side == shown)
        np.testing.assert_array_equal(np.isfinite(sigma), visible)
        error = (xy - camera.project(board.object_points @ R.T + t))[visible]
        assert np.sqrt((error**2).sum(axis=1).mean()) < 0.1


@pytest.mark.parametrize("flipped", FLIPS)
@pytest.mark.parametrize("up", [0, 1])
def test_the_upper_side_makes_the_floor(rng: np.random.Generator, flipped: str, up: int) -> None:
    board = two_sided(flipped)
    rig = ring_rig(3, rng, radius=600, height=800)
    down = np.diag([1.0, -1.0, -1.0])  # z of the board, behind its front, points down: the front is up
    R = down if up == 0 else np.eye(3)
    t = -R @ board.object_points.mean(axis=0)
    seen = simulate_detections(rig, board, R[None], t[None], rng, noise_px=0.0, dropout=0.0)
    placed = on_board(rig, R[None, None], t[None, None], seen, 0).rig
    to_new_R, to_new_t = invert(placed.cameras[0].R, placed.cameras[0].t)
    shown = (board.object_points @ R.T + t)[board.side == up]
    inside = (shown @ rig.cameras[0].R.T + rig.cameras[0].t) @ to_new_R.T + to_new_t
    np.testing.assert_allclose(inside[:, 2], 0.0, atol=1e-6)
    np.testing.assert_allclose(inside[0], 0.0, atol=1e-6)
    np.testing.assert_allclose(inside[1], [40.0, 0, 0], atol=1e-6)
    assert (placed.centers[:, 2] > 0).all()
