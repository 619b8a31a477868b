"""What is adjusted and what is held: footage that says much, that says little, and that misleads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibration.board import Board, BoardDetections
from calibration.bundle import adjust_boards
from calibration.calibrate import Calibration, CalibrationOptions, calibrate_rig
from calibration.camera import Camera, Intrinsics
from calibration.held import Knowledge, _hold_focal, _hold_rest, adjust_determined, weak_priors
from calibration.intrinsics import IntrinsicsEstimate, estimate_intrinsics
from calibration.lenses import Lens, free_parameters, prior_intrinsics
from calibration.rig import CameraRig
from calibration.synthetic import board_motion, ring_rig, simulate_detections
from calibration.transforms import exp_so3

BOARD = Board(7, 10, 25.0)
FREE = free_parameters(prior_intrinsics((1000, 800))[0])


def side_by_side(rng: np.random.Generator, tilt: float, near: float, far: float) -> tuple[CameraRig, BoardDetections]:
    """Two parallel cameras and boards turned by up to `tilt`."""
    K = np.array([[900.0, 0, 639.5], [0, 900, 511.5], [0, 0, 1]])
    lens = Intrinsics((1280, 1024), K, np.array([-0.2, 0.05, 0, 0, 0]))
    rig = CameraRig(tuple(Camera(f"c{v}", lens, np.eye(3), np.array([-150.0 * v, 0, 0])) for v in range(2)), "mm")
    R = exp_so3(np.concatenate((rng.uniform(-tilt, tilt, (50, 2)), rng.uniform(-3, 3, (50, 1))), axis=1))
    t = np.stack((rng.uniform(-70, 220, 50), rng.uniform(-150, 150, 50), rng.uniform(near, far, 50)), axis=1)
    t -= R @ BOARD.object_points.mean(axis=0)
    return rig, simulate_detections(rig, BOARD, R, t, rng, noise_px=0.3)


def test_rich_footage_frees_the_focal_lengths_and_finds_them(rng: np.random.Generator) -> None:
    _, detections = side_by_side(rng, 0.6, 400, 1000)
    for camera in calibrate_rig(detections).report.cameras:
        assert camera.intrinsics == "adjusted"
        assert camera.reason == ""
        assert camera.focal == pytest.approx(900, abs=4 * camera.focal_sigma)
        assert camera.focal_sigma < 0.005 * 900


@pytest.mark.parametrize(("near", "far"), [(700.0, 700.0), (500.0, 1000.0)])
def test_boards_square_to_the_cameras_leave_the_focal_lengths_open(
    rng: np.random.Generator, near: float, far: float
) -> None:
    _, detections = side_by_side(rng, 0.0, near, far)
    report = calibrate_rig(detections).report
    for camera in report.cameras:
        assert camera.intrinsics == "held"
        assert camera.held == ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3")
        assert camera.focal_sigma > 0.05 * camera.focal
        assert any(w.startswith(f"{camera.name}: its focal length is not determined") for w in report.warnings)


def unsynchronised(rng: np.random.Generator) -> tuple[CameraRig, BoardDetections]:
    """A board carried about before four cameras of which each takes its picture a little too early or too late."""
    rig = ring_rig(4, rng, radius=900, height=500, size=(1280, 720), focal_px=800.0, off_centre_px=0)
    board = Board(5, 6, 50.0)
    steps = np.arange(60)[:, None]
    views = []
    path_R = exp_so3(0.5 * np.sin(steps * [0.31, 0.23, 0.17] + [0, 1, 2])) @ exp_so3([np.pi, 0.0, 0.0])
    path_t = 120 * np.sin(steps * [0.21, 0.27, 0.19] + [2, 1, 0]) + [-125, 150, 0]
    for camera, lag in zip(rig, rng.uniform(-6, 6, (4, 3)), strict=True):
        speed = np.cos(steps * [0.21, 0.27, 0.19] + [2, 1, 0])
        one = CameraRig((camera,), "mm")
        views.append(simulate_detections(one, board, path_R, path_t + lag * speed, rng, noise_px=0.1, dropout=0))
    corners, sigma = np.concatenate([v.corners for v in views]), np.concatenate([v.sigma for v in views])
    sizes = np.concatenate([v.sizes for v in views])
    return rig, replace(views[0], view_names=rig.names, corners=corners, sigma=sigma, sizes=sizes)


def test_misleading_footage_holds_what_the_cameras_say_alone() -> None:
    """Unsynchronised cameras: freeing all gives the lower error and the worse focal lengths."""
    rig, detections = unsynchronised(np.random.default_rng(2))
    held = calibrate_rig(detections)
    freed = calibrate_rig(detections, CalibrationOptions(focal_tolerance=10.0))
    assert [c.intrinsics for c in held.report.cameras] == ["held"] * 4
    assert [c.intrinsics for c in freed.report.cameras] == ["adjusted"] * 4
    assert freed.report.rms < held.report.rms
    truth = np.array([camera.intrinsics.K[0, 0] for camera in rig])

    def worst(calibration: Calibration) -> float:
        return float(np.abs(np.array([c.focal for c in calibration.report.cameras]) / truth - 1).max())

    assert worst(held) < 0.015
    assert worst(freed) > 2 * worst(held)
    assert held.rig.covariance is not None
    variance = np.diagonal(held.rig.covariance).reshape(4, 18)[:, 6]
    np.testing.assert_allclose(np.sqrt(variance), [c.focal_sigma for c in held.report.cameras], rtol=0.3)


def small_rig() -> CameraRig:
    K = np.array([[1000.0, 0, 500], [0, 1000, 400], [0, 0, 1]])
    lens = Intrinsics((1000, 800), K, np.array([0.1, 0.2, 1e-3, 2e-3, 0.3]))
    return CameraRig((Camera("a", lens, np.eye(3), np.zeros(3)),), "mm")


def estimate(focal: float, focal_sigma: float) -> IntrinsicsEstimate:
    parameters = small_rig()["a"].intrinsics.parameters.copy()
    parameters[:2] = focal
    sigma = np.where(FREE, 0.01, 0.0)
    sigma[:2] = focal_sigma
    return IntrinsicsEstimate(Intrinsics.from_parameters((1000, 800), parameters), np.diag(sigma**2), 0.3, 30)


def knowledge(sigma: np.ndarray) -> Knowledge:
    prior, prior_sigma = prior_intrinsics((1000, 800))
    return Knowledge({"a": FREE.copy()}, {"a": (prior.parameters, prior_sigma)}, {"a": sigma})


@pytest.mark.parametrize(
    ("rig_sigma", "own_sigma", "value"),
    [(9.9, 5.0, None), (10.1, 5.0, 950.0), (50.0, 47.0, 950.0), (50.0, 48.0, 1000.0)],
)
def test_focal_is_held_at_the_better_known_value(rig_sigma: float, own_sigma: float, value: float | None) -> None:
    sigma = np.where(FREE, 0.01, 0.0)
    sigma[:2] = rig_sigma
    known = knowledge(sigma)
    values = _hold_focal(known, small_rig(), {"a": estimate(950.0, own_sigma)}, 0.01)
    if value is None:
        assert not values
        assert known.free["a"].any()
        return
    assert values["a"][0] == value
    assert not known.free["a"].any()
    assert known.prior["a"][0][0] == value
    assert known.sigma["a"][0] == (own_sigma if value == 950.0 else rig_sigma)
    assert known.prior["a"][1][0] == known.sigma["a"][0]
    assert f"{value:.0f}" in known.reason["a"]
    assert not _hold_focal(known, small_rig(), {"a": estimate(950.0, own_sigma)}, 0.01)  # once is enough


def test_the_rest_is_held_where_the_prior_says_more() -> None:
    """A variance of more than half the prior's: k3 before k2 before k1, the others at once."""
    _, prior_sigma = prior_intrinsics((1000, 800))
    sigma = np.where(FREE, 0.70 * prior_sigma, 0.0)
    rig = small_rig()
    weak = weak_priors({"a": estimate(1000.0, 1.0)})
    assert not _hold_rest(knowledge(sigma), rig, weak)
    sigma[[2, 4, 6, 8]] = 0.71 * prior_sigma[[2, 4, 6, 8]]
    known = knowledge(sigma)
    values = _hold_rest(known, rig, weak)["a"]
    np.testing.assert_array_equal(np.flatnonzero(FREE & ~known.free["a"]), [2, 6, 8])
    np.testing.assert_allclose(values[:9], [1000, 1000, 499.5, 400, 0.1, 0.2, 0, 2e-3, 0])
    sigma[5] = 0.71 * prior_sigma[5]
    _hold_rest(known, rig, weak)
    np.testing.assert_array_equal(np.flatnonzero(FREE & ~known.free["a"]), [2, 5, 6, 8])
    _hold_rest(known, rig, weak)
    np.testing.assert_array_equal(np.flatnonzero(FREE & ~known.free["a"]), [2, 4, 5, 6, 8])


@pytest.mark.parametrize(("lens", "order"), [("fisheye", [7, 6, 5, 4]), ("rational", [11, 10, 9, 8, 5, 4])])
def test_radial_coefficients_are_held_from_the_highest_power(lens: Lens, order: list[int]) -> None:
    prior, prior_sigma = prior_intrinsics((1000, 800), lens=lens)
    free = free_parameters(prior)
    sigma = np.where(free, 0.71 * prior_sigma, 0.0)
    sigma[:4] = 1e-3
    sigma[6:8] = sigma[6:8] if lens == "fisheye" else 1e-6
    rig = CameraRig((Camera("a", prior, np.eye(3), np.zeros(3)),), "mm")
    known = Knowledge({"a": free.copy()}, {"a": (prior.parameters, prior_sigma)}, {"a": sigma})
    for n in range(1, len(order) + 1):
        _hold_rest(known, rig, {"a": (prior.parameters, prior_sigma)})
        np.testing.assert_array_equal(np.flatnonzero(free & ~known.free["a"]), sorted(order[:n]))


def test_misfit_widens_what_the_rig_says(rng: np.random.Generator) -> None:
    rig = ring_rig(3, rng, radius=900, height=600)
    R, t = board_motion(rig, BOARD, 40, rng, reach=120)
    detections = simulate_detections(rig, BOARD, R, t, rng, noise_px=0.3)
    alone = {name: estimate_intrinsics(detections, name) for name in rig.names}
    fit = adjust_boards(rig, R[:, None], t[:, None], detections, knowledge_of(rig, alone).options())
    start = (fit.rig, fit.board_R, fit.board_t)
    plain, _ = adjust_determined(detections, start, start, alone, 0.05)
    quieter = {name: replace(own, noise=own.noise / 5) for name, own in alone.items()}
    wide, _ = adjust_determined(detections, start, start, quieter, 0.05)
    for name in rig.names:
        assert wide.sigma[name][0] == pytest.approx(5 * plain.sigma[name][0], rel=0.25)


def knowledge_of(rig: CameraRig, alone: dict[str, IntrinsicsEstimate]) -> Knowledge:
    return Knowledge({name: FREE.copy() for name in alone}, weak_priors(alone))
