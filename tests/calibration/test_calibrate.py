"""Detections in, rig out: the truth, misdetections, given intrinsics, several boards, and errors by name."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from calibration import calibrate
from calibration.board import Board, BoardDetections
from calibration.calibrate import CalibrationOptions, calibrate_rig
from calibration.camera import Camera, Intrinsics
from calibration.errors import InputError
from calibration.intrinsics import IntrinsicsOptions, estimate_intrinsics
from calibration.report import corner_residuals
from calibration.rig import CameraRig
from calibration.synthetic import board_motion, ring_rig, simulate_detections
from calibration.transforms import compose, exp_so3, similarity

BOARD = Board(7, 10, 25.0)
NOISE = 0.3


def footage(
    rng: np.random.Generator, n_frames: int = 60, n_cameras: int = 4, **how: float
) -> tuple[CameraRig, np.ndarray, np.ndarray, BoardDetections]:
    rig = ring_rig(n_cameras, rng, radius=1000, height=700, size=(1280, 1024), focal_px=1100)
    R, t = board_motion(rig, BOARD, n_frames, rng, reach=200)
    return rig, R, t, simulate_detections(rig, BOARD, R, t, rng, noise_px=NOISE, **how)


def centre_error(rig: CameraRig, truth: CameraRig) -> float:
    """rms distance of camera centres after the best rotation and shift; the size counts."""
    _, R, _ = similarity(rig.centers, truth.centers)
    away = (rig.centers - rig.centers.mean(axis=0)) @ R.T - (truth.centers - truth.centers.mean(axis=0))
    return float(np.sqrt((away**2).sum(axis=1).mean()))


def sigmas_off(rig: CameraRig, truth: CameraRig) -> np.ndarray:
    """(views - 1, 3) distance of the cameras' t from the truth in the first camera's frame, in standard deviations."""
    truth = truth.moved(1.0, truth.cameras[0].R, truth.cameras[0].t)
    assert rig.covariance is not None
    sigma = np.sqrt(np.diagonal(rig.covariance).reshape(len(rig), 18)[1:, 3:6])
    return np.abs(np.stack([a.t - b.t for a, b in zip(rig, truth, strict=True)])[1:] / sigma)


def test_rig_from_detections(rng: np.random.Generator) -> None:
    truth, R, t, detections = footage(rng)
    steps: list[tuple[str, int, int]] = []
    found = calibrate_rig(detections, progress=lambda *step: steps.append(step))
    assert found.rig.names == truth.names
    assert found.rig.unit == "mm"
    np.testing.assert_array_equal(found.rig.cameras[0].R, np.eye(3))
    np.testing.assert_array_equal(found.rig.cameras[0].t, np.zeros(3))
    assert centre_error(found.rig, truth) < 2.5
    assert sigmas_off(found.rig, truth).max() < 5
    placed = np.isfinite(found.board_t[:, 0, 0])
    assert placed.mean() > 0.9
    _, turn, _ = similarity(found.rig.centers, truth.centers)
    shift = truth.centers.mean(axis=0) - turn @ found.rig.centers.mean(axis=0)
    placed_R, placed_t = compose(turn, shift, found.board_R[placed, 0], found.board_t[placed, 0])
    np.testing.assert_allclose(placed_t, t[placed], atol=5.0)
    np.testing.assert_allclose(placed_R, R[placed], atol=0.02)
    report = found.report
    assert report.n_corners + report.n_unplaced == np.isfinite(detections.corners[..., 0]).sum()
    assert report.n_rejected == 0
    per_view = np.isfinite(detections.corners[..., 0]).sum(axis=2)
    assert [camera.boards for camera in report.cameras] == (per_view >= 6).sum(axis=1).tolist()
    assert [camera.corners for camera in report.cameras] == per_view.sum(axis=1).tolist()
    assert report.rms == pytest.approx(NOISE * np.sqrt(2), rel=0.05)
    assert report.rms < report.rms_held_out < 1.1 * report.rms
    assert report.squares[0].mean == pytest.approx(25, abs=0.05)
    for camera, known in zip(report.cameras, truth, strict=True):
        assert camera.focal == pytest.approx(known.intrinsics.K[0, 0], abs=5 * camera.focal_sigma)
        assert camera.focal_sigma < 0.003 * camera.focal
    assert steps == [("calibrate", i + 1, 8) for i in range(8)]


def test_a_rig_of_mixed_lenses(rng: np.random.Generator) -> None:
    """Two pinholes and two fisheyes that see the board beside and behind them; nobody says which is which."""
    far = ring_rig(4, rng, radius=1000, height=700, size=(1280, 1024), focal_px=1100)
    near = ring_rig(
        4, rng, radius=400, height=250, size=(1280, 1024), focal_px=330, distortion=(0.02, -0.004, 0.001, -1e-4),
        model="fisheye",
    )  # fmt: skip
    truth = CameraRig(tuple((far, near)[i % 2].cameras[i] for i in range(4)), "mm")
    R, t = board_motion(truth, BOARD, 80, rng, reach=700)
    detections = simulate_detections(truth, BOARD, R, t, rng, noise_px=NOISE)
    behind = np.isfinite(detections.corners[1, ..., 0]) & (
        truth.cameras[1].rays(detections.corners[1]) @ truth.cameras[1].R[2] < 0
    )
    assert behind.sum() > 20
    found = calibrate_rig(detections)
    assert [camera.lens for camera in found.report.cameras] == ["pinhole", "fisheye"] * 2
    assert [camera.intrinsics.model for camera in found.rig] == ["pinhole", "fisheye"] * 2
    assert found.report.rms == pytest.approx(NOISE * np.sqrt(2), rel=0.05)
    assert sigmas_off(found.rig, truth).max() < 5
    assert "cam1  fisheye lens: held-out error 0." in found.report.text()
    for camera, known in zip(found.report.cameras, truth, strict=True):
        assert camera.focal == pytest.approx(known.intrinsics.K[0, 0], abs=5 * camera.focal_sigma)
    told = calibrate_rig(detections, CalibrationOptions(intrinsics=IntrinsicsOptions(lens={"cam3": "fisheye"})))
    assert told.report.cameras[3].lens_reason == "as told"
    np.testing.assert_allclose(told.rig.centers, found.rig.centers, atol=0.05)


def test_covariance_tells_the_error(rng: np.random.Generator) -> None:
    """Camera places against the truth, in the frame of the first camera, in standard deviations of the covariance."""
    ratio = []
    for _ in range(3):
        truth, _, _, detections = footage(rng, 30)
        ratio.append(sigmas_off(calibrate_rig(detections).rig, truth))
    assert 0.4 < np.sqrt(np.mean(np.square(ratio))) < 2.0


def test_covariance_tells_the_error_where_the_intrinsics_are_held(rng: np.random.Generator) -> None:
    """Places follow focal lengths that are held at a wrong value: without that part they are 15 sigmas off here."""
    ratio = []
    for _ in range(3):
        truth, _, _, detections = footage(rng, 30)
        found = calibrate_rig(detections, CalibrationOptions(focal_tolerance=1e-5))
        assert [camera.intrinsics for camera in found.report.cameras] == ["held"] * 4
        ratio.append(sigmas_off(found.rig, truth))
    assert 0.3 < np.sqrt(np.mean(np.square(ratio))) < 2.0


def test_misdetections_count_in_the_error_but_not_in_the_rig(rng: np.random.Generator) -> None:
    truth, _, _, detections = footage(rng)
    clean = calibrate_rig(detections)
    corners = detections.corners.copy()
    wrong = (rng.uniform(size=corners.shape[:3]) < 0.02) & np.isfinite(corners[..., 0])
    corners[wrong] += 30 * rng.normal(size=(int(wrong.sum()), 2)) + 20
    found = calibrate_rig(replace(detections, corners=corners))
    assert abs(found.report.n_rejected - wrong.sum()) < 0.05 * wrong.sum()
    assert centre_error(found.rig, truth) < 1.3 * centre_error(clean.rig, truth) + 0.1
    assert found.report.rms_kept == pytest.approx(clean.report.rms, rel=0.05)
    residuals = corner_residuals(found.rig, found.board_R, found.board_t, replace(detections, corners=corners))
    squared = (residuals**2).sum(axis=-1)
    assert found.report.rms == pytest.approx(np.sqrt(np.nanmean(squared)))
    assert found.report.n_corners == np.isfinite(squared).sum()
    assert found.report.rms > 3


def test_gate_is_in_sigmas_of_the_camera(rng: np.random.Generator) -> None:
    _, _, _, detections = footage(rng, 20, 3)
    corners = detections.corners.copy()
    view, frame, corner = np.argwhere(np.isfinite(corners[..., 0]))[100]
    for distance, rejected in ((5.0, 1), (3.0, 0)):  # 13 sigmas of 0.3 px are 3.9 px
        off = corners.copy()
        off[view, frame, corner, 0] += distance
        found = calibrate_rig(replace(detections, corners=off), CalibrationOptions(reject_sigmas=13.0))
        assert found.report.n_rejected == rejected


def test_frames_of_another_moment_do_not_spoil_the_rig(rng: np.random.Generator) -> None:
    truth, _, _, detections = footage(rng)
    corners, sigma = detections.corners.copy(), detections.sigma.copy()
    for view in range(4):
        wrong = rng.permutation(60)[:4]
        corners[view, wrong], sigma[view, wrong] = corners[view, (wrong + 5) % 60], sigma[view, (wrong + 5) % 60]
    found = calibrate_rig(replace(detections, corners=corners, sigma=sigma))
    assert centre_error(found.rig, truth) < 1.5
    assert found.report.rms_kept < 0.5


def test_given_intrinsics_are_held(rng: np.random.Generator) -> None:
    truth, _, _, detections = footage(rng)
    given = {camera.name: camera.intrinsics for camera in truth}
    given["cam1"] = Intrinsics.from_parameters(given["cam1"].size, given["cam1"].parameters + np.eye(12)[4] * 0.01)
    mixed = {name: given[name] for name in ("cam1", "cam2")}
    found = calibrate_rig(detections, intrinsics=mixed)
    for name, intrinsics in mixed.items():
        np.testing.assert_array_equal(found.rig[name].intrinsics.parameters, intrinsics.parameters)
    by_name = {camera.name: camera for camera in found.report.cameras}
    assert by_name["cam1"].intrinsics == "given"
    assert (by_name["cam1"].focal_sigma, by_name["cam1"].held) == (0.0, ())
    assert by_name["cam0"].intrinsics == "adjusted"
    assert found.rig.covariance is not None
    assert (np.diagonal(found.rig.covariance).reshape(4, 18)[1:3, 6:] == 0).all()
    exact = calibrate_rig(detections, intrinsics={c.name: c.intrinsics for c in truth})
    assert centre_error(exact.rig, truth) < 0.5


def test_given_intrinsics_are_refined(rng: np.random.Generator) -> None:
    truth, _, _, detections = footage(rng)
    off = np.array([0.01, 0.01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    given = {
        camera.name: Intrinsics.from_parameters(camera.intrinsics.size, camera.intrinsics.parameters * (1 + off))
        for camera in truth
    }
    found = calibrate_rig(detections, CalibrationOptions(refine=True), given)
    for camera in found.report.cameras:
        assert camera.intrinsics == "adjusted"
        assert abs(camera.focal - truth[camera.name].intrinsics.parameters[:2].mean()) < 4 * camera.focal_sigma < 11
    held = calibrate_rig(detections, intrinsics=given)
    assert centre_error(found.rig, truth) < 0.5 * centre_error(held.rig, truth)
    hardly = calibrate_rig(detections_of(detections, 3), CalibrationOptions(refine=True), given)
    for camera in hardly.report.cameras:  # three boards tell less than what was given
        assert abs(camera.focal / given[camera.name].parameters[:2].mean() - 1) < 0.03


def detections_of(detections: BoardDetections, n_frames: int) -> BoardDetections:
    """The frames with most corners."""
    rows = np.argsort(-np.isfinite(detections.sigma).sum(axis=(0, 2)), kind="stable")[:n_frames]
    return replace(
        detections, frame=detections.frame[rows], time=detections.time[rows], corners=detections.corners[:, rows],
        sigma=detections.sigma[:, rows],
    )  # fmt: skip


def test_intrinsics_of_separate_footage_serve_poor_rig_footage(rng: np.random.Generator) -> None:
    """The way of a session: each camera filmed alone first, then few boards seen by both."""
    truth, _, _, detections = footage(rng, 60, 2)
    given = {}
    for camera in truth:
        R = exp_so3(np.concatenate((rng.uniform(-0.7, 0.7, (50, 2)), rng.uniform(-3, 3, (50, 1))), axis=1))
        z = rng.uniform(350, 900, 50)
        t = np.stack((rng.uniform(-0.35, 0.35, 50) * z, rng.uniform(-0.3, 0.3, 50) * z, z), axis=1)
        alone = CameraRig((Camera(camera.name, camera.intrinsics, np.eye(3), np.zeros(3)),), "mm")
        own = simulate_detections(alone, BOARD, R, t - R @ BOARD.object_points.mean(axis=0), rng, noise_px=NOISE)
        given[camera.name] = estimate_intrinsics(own, camera.name).intrinsics
    few = np.flatnonzero((np.isfinite(detections.corners[..., 0]).sum(axis=2) > 20).all(axis=0))[:3]
    corners = np.full_like(detections.corners, np.nan)
    corners[:, few] = detections.corners[:, few]
    found = calibrate_rig(replace(detections, corners=corners), intrinsics=given)
    baseline = np.linalg.norm(np.diff(truth.centers, axis=0))
    assert np.linalg.norm(np.diff(found.rig.centers, axis=0)) == pytest.approx(baseline, rel=0.02)


def test_several_boards_in_one_footage(rng: np.random.Generator) -> None:
    truth, _, _, first = footage(rng, 30)
    small = Board(5, 6, 30.0)
    R, t = board_motion(truth, small, 30, rng, reach=200)
    second = simulate_detections(truth, small, R, t, rng, noise_px=NOISE)
    both = replace(
        first,
        boards=(BOARD, small),
        corners=np.concatenate((first.corners, second.corners), axis=2),
        sigma=np.concatenate((first.sigma, second.sigma), axis=2),
        board_index=np.repeat([0, 1], [BOARD.n_corners, small.n_corners]),
    )
    found = calibrate_rig(both)
    assert found.board_t.shape == (30, 2, 3)
    assert sigmas_off(found.rig, truth).max() < 5
    assert found.report.rms == pytest.approx(NOISE * np.sqrt(2), rel=0.06)
    assert [square.nominal for square in found.report.squares] == [25.0, 30.0]
    np.testing.assert_allclose([square.mean for square in found.report.squares], [25, 30], rtol=0.003)


def test_corners_of_boards_seen_too_little_are_counted_apart(rng: np.random.Generator) -> None:
    _, _, _, detections = footage(rng, 30)
    corners = detections.corners.copy()
    corners[:, 3, 5:] = np.nan
    found = calibrate_rig(replace(detections, corners=corners))
    assert np.isnan(found.board_t[3]).all()
    assert found.report.n_unplaced >= np.isfinite(corners[:, 3, :, 0]).sum()
    assert found.report.n_corners + found.report.n_unplaced == np.isfinite(corners[..., 0]).sum()


def test_same_input_same_bytes(rng: np.random.Generator) -> None:
    _, _, _, detections = footage(rng, 25, 3)
    one, two = calibrate_rig(detections), calibrate_rig(detections)
    assert one.rig.packed().parameters.tobytes() == two.rig.packed().parameters.tobytes()
    assert one.board_t.tobytes() == two.board_t.tobytes()
    assert one.report.to_dict() == two.report.to_dict()


def test_wrong_input_is_said_by_name(rng: np.random.Generator) -> None:
    truth, _, _, detections = footage(rng, 20)
    lens = truth.cameras[0].intrinsics
    with pytest.raises(InputError, match=r"'cam9': it is not in the footage; did you mean"):
        calibrate_rig(detections, intrinsics={"cam9": lens})
    with pytest.raises(InputError, match=r"lens of camera 'cam9': it is not in the footage; did you mean"):
        calibrate_rig(detections, CalibrationOptions(intrinsics=IntrinsicsOptions(lens={"cam9": "fisheye"})))
    other = Intrinsics((640, 512), lens.K, lens.dist)
    with pytest.raises(InputError, match=r"camera 'cam1': expected images of 640x512 px.* got 1280x1024"):
        calibrate_rig(detections, intrinsics={"cam1": other})
    blind = detections.corners.copy()
    blind[[1, 2]] = np.nan
    blind[2, 0, :7] = 100.0
    with pytest.raises(InputError, match=r"see no board: cam1 \(at most 0 .* expected 8\), cam2 \(at most 7 "):
        calibrate_rig(replace(detections, corners=blind))
    cut = detections.corners.copy()
    cut[0, ::2], cut[1:, 1::2] = np.nan, np.nan
    with pytest.raises(InputError, match="cut off: cam0"):
        calibrate_rig(replace(detections, corners=cut))


def test_too_few_boards_for_two_halves_have_no_held_out_error() -> None:
    board_t = np.full((40, 1, 3), np.nan)
    board_t[: 2 * calibrate.LEAST_FOLD - 1] = 0.0  # one short of two halves
    result = SimpleNamespace(board_t=board_t)
    assert np.isnan(calibrate._held_out(None, None, result, None))  # type: ignore[arg-type]
