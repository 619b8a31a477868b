"""The spread of intrinsics: against real refits without a block, the normal equations, and simulated repetitions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibration.board import Board, BoardDetections
from calibration.bundle import BundleOptions, BundleResult, adjust_boards, board_system
from calibration.camera import INTRINSIC_PARAMETERS
from calibration.determination import N_BLOCKS, Spread, corner_losses, corner_noise, intrinsic_spread
from calibration.rig import CameraRig
from calibration.solver import schur_covariance
from calibration.synthetic import board_motion, ring_rig, simulate_detections

BOARD = Board(6, 5, 40.0)
FREE = np.array([name in ("fx", "fy", "cx", "cy", "d1") for name in INTRINSIC_PARAMETERS])


def fitted(
    rng: np.random.Generator, n_frames: int = 45, noise: float = 0.5, **how: object
) -> tuple[CameraRig, BoardDetections, BundleOptions, BundleResult]:
    rig = ring_rig(3, rng, radius=900, height=600)
    R, t = board_motion(rig, BOARD, n_frames, rng, reach=150)
    detections = simulate_detections(rig, BOARD, R, t, rng, noise_px=noise, dropout=0.0)
    options = BundleOptions(free=dict.fromkeys(rig.names, FREE), **how)  # type: ignore[arg-type]
    return rig, detections, options, adjust_boards(rig, R, t, detections, options)


def test_jackknife_is_that_of_real_refits(rng: np.random.Generator) -> None:
    _, detections, options, result = fitted(rng)
    spread = intrinsic_spread(result, detections, options)
    blocks = np.array_split(np.flatnonzero(np.isfinite(result.board_t[:, 0])), N_BLOCKS)
    refits = []
    for block in blocks:
        t = result.board_t.copy()
        t[block] = np.nan
        rest = adjust_boards(result.rig, result.board_R, t, detections, options).rig
        refits.append(rest.packed().parameters[:, : len(FREE)])
    moved = np.stack(refits) - np.mean(refits, axis=0)
    expected = np.sqrt((N_BLOCKS - 1) / N_BLOCKS * (moved**2).sum(axis=0))
    np.testing.assert_allclose(spread.jackknife[:, FREE], expected[:, FREE], rtol=0.15)
    assert (spread.jackknife[:, ~FREE] == 0).all()


@pytest.mark.parametrize("loss", ["linear", "huber"])
def test_held_out_error_is_that_of_real_refits(rng: np.random.Generator, loss: str) -> None:
    """Cameras fitted without a block of frames, the block's boards posed with them."""
    rig, detections, options, result = fitted(rng, loss=loss, scale=3.0)
    spread = intrinsic_spread(result, detections, options, n_blocks=5)
    inside = corner_losses(result.residuals, detections, options)
    blocks = np.array_split(np.flatnonzero(np.isfinite(detections.corners[..., 0]).any(axis=(0, 2))), 5)
    for block, held_out in zip(blocks, spread.held_out, strict=True):
        t = result.board_t.copy()
        t[block] = np.nan
        rest = adjust_boards(result.rig, result.board_R, t, detections, options).rig
        t = np.full_like(t, np.nan)
        t[block] = result.board_t[block]
        posed = adjust_boards(rest, result.board_R, t, detections, replace(options, free={}, fixed=rig.names))
        losses = corner_losses(posed.residuals, detections, options)
        assert held_out > inside[block].sum()
        assert held_out - inside[block].sum() == pytest.approx(losses[block].sum() - inside[block].sum(), rel=0.2)


def test_corners_without_a_place_count(rng: np.random.Generator) -> None:
    _, detections, options, result = fitted(rng)
    residuals = result.residuals.copy()
    view, frame, corner = np.argwhere(np.isfinite(detections.corners[..., 0]))[7]
    before = corner_losses(residuals, detections, options)
    mine = (residuals[view, frame, corner] ** 2).sum() / detections.sigma[view, frame, corner] ** 2
    for nothing in (np.inf, np.nan):
        residuals[view, frame, corner] = nothing
        assert corner_losses(residuals, detections, options)[frame] == pytest.approx(before[frame] - mine + 100)
    corners = detections.corners.copy()
    corners[view, frame, corner] = np.nan  # its sigma stays
    unmeasured = corner_losses(residuals, replace(detections, corners=corners), options)
    assert unmeasured[frame] == pytest.approx(before[frame] - mine)


def test_formal_is_the_bundles_covariance(rng: np.random.Generator) -> None:
    _, detections, options, result = fitted(rng)
    assert result.rig.covariance is not None
    expected = np.sqrt(np.diagonal(result.rig.covariance)).reshape(3, 18)[:, 6:]
    spread = intrinsic_spread(result, detections, options)
    np.testing.assert_allclose(spread.formal, expected, rtol=1e-3)


def test_jackknife_counts_where_it_is_typically_larger_or_clearly() -> None:
    formal = np.array([[1.0, 2.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    jackknife = np.array([[1.5, 3.2, 9.0, 0.0], [0.7, 1.7, 0.6, 2.5]])
    expected = [[1.6, 3.2, 9.0, 0.0], [1.2, 1.2, 1.2, 2.5]]
    np.testing.assert_allclose(Spread(formal, jackknife, np.zeros(3)).larger, expected)
    nothing = Spread(formal, np.where(formal > 0, np.inf, 0.0), np.zeros(2)).larger
    np.testing.assert_array_equal(nothing, np.where(formal > 0, np.inf, 0.0))


def test_formal_holds_the_prior(rng: np.random.Generator) -> None:
    sigma = np.where(FREE, 0.5, np.inf)
    rig, detections, _, result = fitted(rng)
    prior = {name: (rig[name].intrinsics.parameters, sigma) for name in rig.names}
    options = BundleOptions(free=dict.fromkeys(rig.names, FREE), priors=prior)
    result = adjust_boards(result.rig, result.board_R, result.board_t, detections, options)
    assert result.rig.covariance is not None
    expected = np.sqrt(np.diagonal(result.rig.covariance)).reshape(3, 18)[:, 6:]
    spread = intrinsic_spread(result, detections, options)
    np.testing.assert_allclose(spread.formal, expected, rtol=1e-3)
    assert (spread.formal[:, :2] < 0.5).all()


def test_independent_noise_gives_jackknife_and_formal_alike(rng: np.random.Generator) -> None:
    ratio = []
    for _ in range(4):
        _, detections, options, result = fitted(rng, 40)
        spread = intrinsic_spread(result, detections, options)
        ratio.append(spread.jackknife[:, FREE] / spread.formal[:, FREE])
    assert 0.7 < np.median(ratio) < 1.5


def test_errors_common_to_a_frame_show_in_the_jackknife_only(rng: np.random.Generator) -> None:
    rig, detections, options, _ = fitted(rng)
    R, t = board_motion(rig, BOARD, 45, rng, reach=150)
    detections = simulate_detections(rig, BOARD, R, t, rng, noise_px=0.05, dropout=0.0)
    middle = detections.sizes[:, None, None, :] / 2
    stretched = middle + (detections.corners - middle) * (1 + rng.normal(0, 0.01, (3, 45, 1, 1)))
    result = adjust_boards(rig, R, t, replace(detections, corners=stretched), options)
    spread = intrinsic_spread(result, replace(detections, corners=stretched), options)
    assert np.median(spread.jackknife[:, :2] / spread.formal[:, :2]) > 2


def test_two_frames_say_nothing_about_the_spread(rng: np.random.Generator) -> None:
    _, detections, options, result = fitted(rng)
    t = np.full_like(result.board_t, np.nan)
    t[:2] = result.board_t[:2]
    few = intrinsic_spread(replace(result, board_t=t), detections, options)
    assert np.isinf(few.jackknife[:, FREE]).sum() >= FREE.sum()
    assert (few.jackknife[:, ~FREE] == 0).all()


def test_corner_noise(rng: np.random.Generator) -> None:
    residuals = rng.normal(0, 0.4, (20000, 2))
    residuals[:100] = 80.0
    residuals[100:200] = np.nan
    assert corner_noise(residuals) == pytest.approx(0.4, rel=0.02)
    n = 2 * 19900
    assert corner_noise(residuals, n // 2) == pytest.approx(np.sqrt(2) * corner_noise(residuals))
    assert np.isnan(corner_noise(np.full((3, 2), np.nan)))


def test_fixed_cameras_only_pose_the_boards(rng: np.random.Generator) -> None:
    rig, detections, _, result = fitted(rng, noise=0.1)
    posed = adjust_boards(rig, result.board_R, result.board_t, detections, BundleOptions(fixed=rig.names))
    assert posed.rig.packed().t.tobytes() == rig.packed().t.tobytes()
    assert posed.rig.packed().parameters.tobytes() == rig.packed().parameters.tobytes()
    assert np.sqrt(np.nanmean((posed.residuals**2).sum(axis=-1))) < 0.16
    partly = adjust_boards(rig, result.board_R, result.board_t, detections, BundleOptions(fixed=rig.names[:2]))
    np.testing.assert_array_equal(partly.rig.cameras[1].R, rig.cameras[1].R)
    assert not np.array_equal(partly.rig.cameras[2].R, rig.cameras[2].R)


def test_board_system_is_at_rest_at_the_optimum(rng: np.random.Generator) -> None:
    _, detections, options, result = fitted(rng)
    assert result.rig.covariance is not None
    system = board_system(result.rig, result.board_R, result.board_t, detections, options)
    scale = np.sqrt(np.maximum(np.diagonal(system.H_aa), 1.0))
    assert np.abs(system.g_a / scale).max() < 0.01
    np.testing.assert_allclose(result.variance * schur_covariance(system), result.rig.covariance, rtol=1e-6, atol=1e-12)
