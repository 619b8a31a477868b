"""Cameras out of step: offsets and drifts as sure as the geometry allows, and nothing found where there is nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibration.board import Board, BoardDetections
from calibration.bundle import BundleOptions, adjust_boards, board_system
from calibration.calibrate import CalibrationOptions, calibrate_rig
from calibration.clocks import find_clocks
from calibration.extrinsics import board_poses
from calibration.report import corner_residuals, rms
from calibration.rig import CameraRig
from calibration.solver import schur_covariance
from calibration.synthetic import board_visible, ring_rig
from calibration.transforms import exp_so3

BOARD = Board(6, 8, 30.0)
FPS, NOISE = 30.0, 0.3
Scene = tuple[BoardDetections, CameraRig]


def waved(
    seed: int, clock: np.ndarray, seconds: float = 8.0, jitter: np.ndarray | None = None, hz: float = 0.25
) -> Scene:
    """A board waved smoothly over cameras that look up at it; camera v films with this clock (offset at the middle of
    the time, drift)."""
    rng = np.random.default_rng(seed)
    rig = ring_rig(len(clock), rng, radius=900.0, height=900.0, size=(1280, 1024), focal_px=1100.0)
    rate, phase, size = (rng.uniform(low, high, (6, 3)) for low, high in ((0.4 * hz, hz), (0, 6.28), (0.5, 1.0)))

    def poses(time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        wave = (size[..., None] * np.sin(2 * np.pi * rate[..., None] * time + phase[..., None])).sum(axis=1)
        return exp_so3(0.2 * wave[3:].T) @ np.diag([1.0, -1.0, -1.0]), 90.0 * wave[:3].T

    time = np.arange(int(seconds * FPS)) / FPS
    late = clock[:, :1] + clock[:, 1:] * (time - time[-1] / 2) + (0 if jitter is None else jitter)
    corners = np.full((len(rig), len(time), BOARD.n_corners, 2), np.nan)
    for v, camera in enumerate(rig):
        R, t = poses(time + late[v])
        world = BOARD.object_points @ R.transpose(0, 2, 1) + t[:, None]
        xy = camera.project(world) + NOISE * rng.normal(size=(*world.shape[:2], 2))
        corners[v] = np.where(board_visible(camera, BOARD, R, t)[..., None], xy, np.nan)
    sizes = np.array([camera.intrinsics.size for camera in rig])
    sigma = np.where(np.isfinite(corners[..., 0]), NOISE, np.nan)
    index = np.zeros(BOARD.n_corners, dtype=np.int64)
    return BoardDetections(rig.names, (BOARD,), sizes, np.arange(len(time)), time, corners, sigma, index), rig


def bound(detections: BoardDetections, rig: CameraRig) -> np.ndarray:
    """(views, 2) Cramér–Rao bound of offset and drift at the truth, for cameras in step."""
    masks = {name: np.ones(2, dtype=bool) for name in rig.names[1:]}
    R, t = board_poses(detections, rig)
    fit = adjust_boards(rig, R, t, detections, BundleOptions(fixed=rig.names))
    system = board_system(rig, fit.board_R, fit.board_t, detections, BundleOptions(clocks=masks))
    return np.sqrt(np.diagonal(schur_covariance(system)).reshape(len(rig), 20)[:, 18:])


@pytest.mark.parametrize("offset", [0.03, 0.25])
def test_offsets_and_drifts_are_found_as_well_as_can_be(offset: float) -> None:
    clock = np.array([[0.0, 0.0], [offset, 1e-3], [-0.7 * offset, -5e-4]])
    detections, rig = waved(0, clock, 24.0)
    found = calibrate_rig(detections, intrinsics={camera.name: camera.intrinsics for camera in rig})
    told = np.array([[camera.offset, camera.drift] for camera in found.report.cameras])
    best = bound(*waved(0, 0 * clock, 24.0))
    away = (told - told[0] - clock)[1:] / best[1:]
    assert np.sqrt((away**2).mean()) < 2.0, "of four numbers: 1.5 times the bound, and chance"
    assert found.report.rms < 1.02 * NOISE * np.sqrt(2)
    lost = np.isfinite(detections.corners[..., 0]).sum() - found.report.n_corners
    assert lost < 0.01 * found.report.n_corners
    assert all(w.count("ms too") == 1 for w in found.report.warnings if "pictures of the board" in w)


def test_without_times_delays_are_found_and_told_in_frames() -> None:
    clock = np.array([[0.0, 0.0], [2.0, 0.0], [-0.6, 0.0]]) / FPS
    timed, rig = waved(0, clock)
    detections = replace(timed, time=np.full(len(timed.time), np.nan))
    given = {camera.name: camera.intrinsics for camera in rig}
    found = calibrate_rig(detections, intrinsics=given)
    best = bound(*waved(0, 0 * clock))[:, 0] * FPS
    told = np.array([camera.offset for camera in found.report.cameras])
    assert np.abs(told - told[0] - clock[:, 0] * FPS)[1:] == pytest.approx(0.0, abs=4 * best.max())
    assert {camera.offset_unit for camera in found.report.cameras} == {"frames"}
    assert "pictures taken late by, frames: " in found.report.text()
    assert "offset_frames = { cam1 = -2" in found.report.text()
    assert found.report.rms < 1.1 * np.sqrt(2) * NOISE
    assert np.isnan(found.detections.time).all()
    alone = calibrate_rig(replace(waved(0, 0 * clock)[0], time=detections.time), intrinsics=given)
    assert not any(camera.offset_sigma for camera in alone.report.cameras)


def test_uncertainty_is_honest() -> None:
    clock = np.array([[0.0, 0.0], [0.02, 0.0], [-0.03, 0.0]])
    away = []
    for seed in range(12):
        detections, rig = waved(seed, clock, 5.0)
        found = find_clocks(detections, rig, "linear", 1.0)
        assert found is not None
        away.append(((found.clock - clock) / np.where(found.sigma > 0, found.sigma, np.inf))[1:, 0])
    assert 0.65 < np.sqrt(np.mean(np.square(away))) < 1.45, "24 numbers whose SD should be 1"


def test_cameras_in_step_are_left_alone() -> None:
    for seed in range(3):
        detections, rig = waved(seed, np.zeros((3, 2)), 5.0)
        assert find_clocks(detections, rig, "huber", 3.0) is None
    detections, rig = waved(0, np.array([[0.0, 0.0], [0.05, 0.0]]), 5.0)
    assert find_clocks(replace(detections, time=np.full(len(detections.time), np.nan)), rig, "huber", 3.0) is None
    lone = replace(detections, view_names=("cam0",), sizes=detections.sizes[:1], corners=detections.corners[:1],
                   sigma=detections.sigma[:1])  # fmt: skip
    assert find_clocks(lone, rig.subset(["cam0"]), "huber", 3.0) is None


def test_a_still_board_tells_nothing_of_clocks() -> None:
    detections, rig = waved(1, np.zeros((3, 2)), 2.0, hz=0.0)
    assert find_clocks(detections, rig, "huber", 3.0) is None


def test_known_delays_of_single_pictures_are_made_up_for() -> None:
    rng = np.random.default_rng(3)
    jitter = rng.uniform(-0.015, 0.015, (3, 150))
    clock = np.array([[0.0, 0.0], [0.02, 0.0], [0.0, 0.0]])
    detections, rig = waved(2, clock, 5.0, jitter)
    intrinsics = {camera.name: camera.intrinsics for camera in rig}
    blind = calibrate_rig(detections, intrinsics=intrinsics).report
    told = calibrate_rig(replace(detections, delay=jitter), intrinsics=intrinsics).report
    assert told.rms < 1.03 * NOISE * np.sqrt(2) < 0.8 * blind.rms
    assert told.rms_held_out < 0.8 * blind.rms_held_out


def test_out_of_step_can_be_left_as_it_is() -> None:
    clock = np.array([[0.0, 0.0], [0.05, 0.0], [0.0, 0.0]])
    detections, rig = waved(4, clock, 5.0)
    intrinsics = {camera.name: camera.intrinsics for camera in rig}
    kept = calibrate_rig(detections, CalibrationOptions(clocks=False), intrinsics)
    assert [camera.offset for camera in kept.report.cameras] == [0, 0, 0]
    right = calibrate_rig(detections, intrinsics=intrinsics)
    assert right.report.rms < 1.02 * NOISE * np.sqrt(2) < 0.7 * kept.report.rms
    assert [round(camera.offset, 2) for camera in right.report.cameras] == [0, 0.05, 0]
    assert "pictures taken late by" in right.report.text()
    residuals = corner_residuals(kept.rig, kept.board_R, kept.board_t, detections)
    assert rms(residuals) == kept.report.rms
