"""Intrinsics of one camera: the truth within the stated uncertainty, the prior where nothing was seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibration.board import Board, BoardDetections
from calibration.camera import Camera, Intrinsics, rays_from_pixels
from calibration.errors import InputError
from calibration.intrinsics import IntrinsicsOptions, estimate_intrinsics
from calibration.lenses import lens_of
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


def through(lens: Intrinsics, rng: np.random.Generator, widest: float, n_frames: int = 60) -> BoardDetections:
    """Boards that face a camera with this lens, turned a little, their middle at any angle up to `widest` rad."""
    angle, turn = widest * np.sqrt(rng.uniform(size=n_frames)), rng.uniform(0, 2 * np.pi, n_frames)
    ray = np.stack((np.sin(angle) * np.cos(turn), np.sin(angle) * np.sin(turn), np.cos(angle)), axis=-1)
    R = exp_so3(angle[:, None] * np.stack((-np.sin(turn), np.cos(turn), 0 * turn), axis=-1))
    R = R @ exp_so3(np.concatenate((rng.uniform(-0.7, 0.7, (n_frames, 2)), rng.uniform(-3, 3, (n_frames, 1))), axis=1))
    t = rng.uniform(250, 500, (n_frames, 1)) * ray - R @ BOARD.object_points.mean(axis=0)
    rig = CameraRig((Camera("a", lens, np.eye(3), np.zeros(3)),), "mm")
    return simulate_detections(rig, BOARD, R, t, rng, noise_px=0.3)


def lens(focal: float, dist: list[float], model: str = "pinhole") -> Intrinsics:
    return Intrinsics((1280, 1024), np.array([[focal, 0, 650], [0, focal, 500], [0, 0, 1]]), dist, model)


LENSES = {
    "pinhole": (lens(600, [-0.25, 0.07, 1e-3, -5e-4, -0.007]), 0.7),
    "fisheye": (lens(330, [0.02, -0.004, 0.001, -1e-4], "fisheye"), 1.8),
    "rational": (lens(500, [0.8, 0.3, 0.003, -0.002, 0.05, 1.1, 0.35, 0.02]), 0.8),
}


@pytest.mark.parametrize("kind", LENSES)
def test_the_kind_of_lens_is_found_out(rng: np.random.Generator, kind: str) -> None:
    """The kind, the focal length and the whole mapping of pixels to rays, where there were corners."""
    truth, widest = LENSES[kind]
    for _ in range(3):
        footage = through(truth, rng, widest)
        found = estimate_intrinsics(footage, "a")
        assert lens_of(found.intrinsics) == kind
        assert found.reason.startswith("held-out error 0.")
        assert found.focal == pytest.approx(truth.K[0, 0], abs=5 * found.focal_sigma)
        assert found.focal_sigma < 0.01 * found.focal
        assert found.noise == pytest.approx(0.3, rel=0.1)
        a, b = (rays_from_pixels(footage.corners, known) for known in (truth, found.intrinsics))
        away = np.linalg.norm(np.cross(a, b), axis=-1) * truth.K[0, 0]
        assert np.sqrt(np.nanmean(away**2)) < 1.0  # px; the principal point trades with the cameras' direction


def test_a_fisheye_is_known_behind_its_image_plane(rng: np.random.Generator) -> None:
    truth, widest = LENSES["fisheye"]
    footage = through(truth, rng, widest)
    angle = np.arccos(rays_from_pixels(footage.corners, truth)[..., 2])
    assert np.nanmax(angle) > np.radians(105)
    found = estimate_intrinsics(footage, "a").intrinsics
    seen = np.arccos(rays_from_pixels(footage.corners, found)[..., 2])[angle > np.radians(90)]
    assert len(seen) > 100
    np.testing.assert_allclose(seen, angle[angle > np.radians(90)], atol=np.radians(0.5))


@pytest.mark.parametrize("how", ["few", "flat", "bent"])
def test_an_ordinary_lens_stays_ordinary(rng: np.random.Generator, how: str) -> None:
    """Eight boards; boards square to the axis; a board whose middle stands out by a hundredth of its width."""
    for _ in range(6):
        footage = alone(rng, 8) if how == "few" else alone(rng, tilt=0.0) if how == "flat" else alone(rng)
        if how == "bent":
            x = BOARD.object_points[:, 0] - BOARD.object_points[:, 0].mean()
            shift = 0.01 * np.ptp(x) * (1 - (2 * x / np.ptp(x)) ** 2)
            footage = replace(footage, corners=footage.corners + np.outer(shift, [0.7, 0.7]))
        found = estimate_intrinsics(footage, "a")
        assert lens_of(found.intrinsics) == "pinhole", found.reason


def test_at_wide_angles_a_fisheye_is_ordinary(rng: np.random.Generator) -> None:
    """Of 142 degrees across, seen only to 40: of that few boards say nothing, and no pinhole looks so wide."""
    truth = LENSES["fisheye"][0]
    found = [estimate_intrinsics(through(truth, rng, 0.3, 12), "a") for _ in range(6)]
    assert [lens_of(own.intrinsics) for own in found] == ["fisheye"] * 6


def test_a_lens_that_is_told_is_taken(rng: np.random.Generator) -> None:
    footage = alone(rng, 30)
    for told in ("pinhole", "fisheye", "rational"):
        found = estimate_intrinsics(footage, "a", IntrinsicsOptions(lens={"a": told, "b": "pinhole"}))
        assert (lens_of(found.intrinsics), found.reason) == (told, "as told")
        assert found.focal == pytest.approx(1000, rel=0.02)
    with pytest.raises(InputError, match=r"camera 'a': 'fish' is not known; did you mean 'fisheye'"):
        IntrinsicsOptions(lens={"a": "fish"})  # type: ignore[dict-item]


def test_wrong_input_is_named(rng: np.random.Generator) -> None:
    footage = alone(rng, 5)
    with pytest.raises(InputError, match=r"camera 'b'.*did you mean 'a'|camera 'b'.*valid: a"):
        estimate_intrinsics(footage, "b")
    with pytest.raises(InputError, match=r"camera 'a': expected a board with at least 55 corners in one of 5 frames"):
        estimate_intrinsics(footage, "a", IntrinsicsOptions(min_corners=55))
