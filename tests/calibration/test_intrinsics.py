"""Intrinsics of one camera: the truth within the stated uncertainty, the prior where nothing was seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibration.board import Board, BoardDetections
from calibration.camera import Camera, Intrinsics
from calibration.errors import InputError
from calibration.intrinsics import IntrinsicsOptions, estimate_intrinsics, prior_intrinsics
from calibration.rig import CameraRig
from calibration.synthetic import simulate_detections
from calibration.transforms import exp_so3

BOARD = Board(7, 10, 25.0)
TRUTH = Intrinsics(
    (1280, 1024), np.array([[1000.0, 0, 650], [0, 1000, 500], [0, 0, 1]]), np.array([-0.2, 0.08, 1e-3, -5e-4, 0])
)


def alone(
    rng: np.random.Generator,
    n_frames: int = 60,
    tilt: float = 0.7,
    near: float = 350,
    far: float = 900,
    noise: float = 0.3,
) -> BoardDetections:
    """Footage of one camera: boards turned by up to `tilt` about both axes, all over the image."""
    R = exp_so3(np.concatenate((rng.uniform(-tilt, tilt, (n_frames, 2)), rng.uniform(-3, 3, (n_frames, 1))), axis=1))
    z = rng.uniform(near, far, n_frames)
    t = np.stack((rng.uniform(-0.4, 0.4, n_frames) * z, rng.uniform(-0.3, 0.3, n_frames) * z, z), axis=1)
    rig = CameraRig((Camera("a", TRUTH, np.eye(3), np.zeros(3)),), "mm")
    t -= R @ BOARD.object_points.mean(axis=0)
    return simulate_detections(rig, BOARD, R, t, rng, noise_px=noise, dropout=0.05)


def test_rich_footage_gives_the_truth_within_its_uncertainty(rng: np.random.Generator) -> None:
    away = []
    for _ in range(5):
        found = estimate_intrinsics(alone(rng), "a")
        away.append((found.intrinsics.parameters - TRUTH.parameters)[:9] / found.sigma[:9])
        assert found.focal == pytest.approx(1000, rel=0.01)
        assert found.focal_sigma < 8
        assert found.noise == pytest.approx(0.3, rel=0.1)
        assert (found.sigma[9:] == 0).all()
        assert found.n_boards == 30
    assert np.abs(away).max() < 5
    assert 0.3 < np.sqrt(np.mean(np.square(away))) < 1.6


def test_more_frames_say_more(rng: np.random.Generator) -> None:
    footage = alone(rng, 150)
    few = estimate_intrinsics(footage, "a", IntrinsicsOptions(max_frames=10))
    many = estimate_intrinsics(footage, "a", IntrinsicsOptions(max_frames=100))
    assert (few.n_boards, many.n_boards) == (10, 100)
    assert many.focal_sigma < 0.7 * few.focal_sigma


def test_boards_square_to_the_axis_leave_the_focal_length_open(rng: np.random.Generator) -> None:
    found = estimate_intrinsics(alone(rng, tilt=0.0, near=600, far=600), "a")
    assert found.focal_sigma > 0.1 * found.focal


def test_errors_common_to_an_image_widen_the_uncertainty(rng: np.random.Generator) -> None:
    footage = alone(rng)
    middle = np.nanmean(footage.corners, axis=2, keepdims=True)
    bent = middle + (footage.corners - middle) * (1 + rng.normal(0, 0.01, (1, 60, 1, 2)))
    assert (
        estimate_intrinsics(replace(footage, corners=bent), "a").focal_sigma
        > 3 * estimate_intrinsics(footage, "a").focal_sigma
    )


def test_misdetections_hardly_move_it(rng: np.random.Generator) -> None:
    footage = alone(rng)
    corners = footage.corners.copy()
    wrong = rng.uniform(size=corners.shape[:3]) < 0.01
    corners[wrong] += rng.normal(0, 40, (int(wrong.sum()), 2))
    found = estimate_intrinsics(replace(footage, corners=corners), "a")
    assert found.focal == pytest.approx(1000, rel=0.02)
    assert found.noise == pytest.approx(0.3, rel=0.15)


def test_noise_allows_for_the_poses_fitted(rng: np.random.Generator) -> None:
    """Of a board of six corners, half of the measured numbers go into its pose."""
    small = Board(4, 3, 80.0)
    rig = CameraRig((Camera("a", TRUTH, np.eye(3), np.zeros(3)),), "mm")
    found = []
    for _ in range(6):
        R = exp_so3(np.concatenate((rng.uniform(-0.7, 0.7, (60, 2)), rng.uniform(-3, 3, (60, 1))), axis=1))
        t = np.stack((rng.uniform(-150, 150, 60), rng.uniform(-100, 100, 60), rng.uniform(400, 900, 60)), axis=1)
        t -= R @ small.object_points.mean(axis=0)
        detections = simulate_detections(rig, small, R, t, rng, noise_px=0.4, dropout=0.0)
        found.append(estimate_intrinsics(detections, "a", IntrinsicsOptions(max_frames=60, min_corners=6)).noise)
    assert np.mean(found) == pytest.approx(0.4, rel=0.15)


def test_frames_are_chosen_to_differ(rng: np.random.Generator) -> None:
    """Many copies of one view and few different ones: without those, the focal length would be open."""
    footage = alone(rng, 60)
    index = np.where(np.arange(60) % 6 == 0, np.arange(60), 1)
    stale = replace(footage, corners=footage.corners[:, index], sigma=footage.sigma[:, index])
    found = estimate_intrinsics(stale, "a", IntrinsicsOptions(max_frames=11))
    assert found.focal == pytest.approx(1000, abs=4 * found.focal_sigma)
    assert found.focal_sigma < 20


@pytest.mark.parametrize("focal", [450.0, 2500.0, 5000.0])
def test_wide_and_long_lenses(rng: np.random.Generator, focal: float) -> None:
    scale = focal / 1000
    K = np.array([[focal, 0, 640], [0, focal, 512], [0, 0, 1]])
    rig = CameraRig((Camera("a", Intrinsics((1280, 1024), K, np.zeros(5)), np.eye(3), np.zeros(3)),), "mm")
    R = exp_so3(np.concatenate((rng.uniform(-0.7, 0.7, (60, 2)), rng.uniform(-3, 3, (60, 1))), axis=1))
    t = np.stack((rng.uniform(-100, 100, 60), rng.uniform(-80, 80, 60), rng.uniform(500, 800, 60) * scale), axis=1)
    t -= R @ BOARD.object_points.mean(axis=0)
    found = estimate_intrinsics(simulate_detections(rig, BOARD, R, t, rng, noise_px=0.3), "a")
    assert found.focal == pytest.approx(focal, rel=0.02)


def test_prior_is_an_ordinary_lens() -> None:
    prior, sigma = prior_intrinsics((1000, 600))
    np.testing.assert_allclose(prior.parameters, [900, 900, 499.5, 299.5] + [0] * 8)
    np.testing.assert_allclose(sigma[:9], [450, 450, 20, 20, 0.3, 0.3, 0.003, 0.003, 0.3])
    assert np.isinf(sigma[9:]).all()
    np.testing.assert_array_equal(prior_intrinsics((600, 1000), 880.0)[1][:2], 450)
    np.testing.assert_array_equal(prior_intrinsics((600, 1000), 2000.0)[1][:2], 1000)


def test_wrong_input_is_named(rng: np.random.Generator) -> None:
    footage = alone(rng, 5)
    with pytest.raises(InputError, match=r"camera 'b'.*did you mean 'a'|camera 'b'.*valid: a"):
        estimate_intrinsics(footage, "b")
    with pytest.raises(InputError, match=r"camera 'a': expected a board with at least 55 corners in one of 5 frames"):
        estimate_intrinsics(footage, "a", IntrinsicsOptions(min_corners=55))
