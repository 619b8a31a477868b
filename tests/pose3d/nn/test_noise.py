"""What a network states of its errors, and what held-out labels make of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2, f

from pose3d.nn.network import Network, NetworkSpec, make_module
from pose3d.nn.noise import calibrate_noise, candidate_covariance, stated_covariance
from pose3d.skeleton import Skeleton

SPEC = NetworkSpec("mobilenet_v2", 0.35, 8, Skeleton(("a", "b", "c", "d")), (), 0.5, unsure=True)


def test_covariances_are_read_at_the_keypoints_own_cell(rng: np.random.Generator) -> None:
    noise = rng.normal(size=(2, 3, 5, 7)).astype(np.float32)
    keypoint, cell = np.array([1, 0], np.int32), np.array([[2.4, 3.6], [-0.5, 4.4]])
    found = stated_covariance(noise, keypoint, cell)
    for covariance, (p, q, r) in zip(found, (noise[1, :, 4, 2], noise[0, :, 4, 0]), strict=True):
        root = np.array([[np.exp(p), 0], [r, np.exp(q)]])
        np.testing.assert_allclose(covariance, np.linalg.inv(root @ root.T), rtol=1e-5)
    np.testing.assert_array_equal(stated_covariance(noise[:0], keypoint, cell), [np.eye(2)] * 2)
    assert stated_covariance(noise, keypoint[:0], cell[:0]).shape == (0, 2, 2)


@pytest.mark.parametrize("n", [12, 3000])
def test_keypoints_alike_are_drawn_together_and_others_are_not(n: int, rng: np.random.Generator) -> None:
    """Of alike ones, what is left of the scatter is far below that of medians of n; of others nothing is lost."""
    alike = np.linalg.norm(rng.normal(0, 1.0, (n, 1, 30, 2)), axis=-1)
    chance = np.sqrt(0.52 / n)
    sigma, _ = calibrate_noise(alike, np.ones(alike.shape))
    assert np.std(np.log(sigma)) < 0.6 * chance
    assert np.mean(np.log(sigma)) == pytest.approx(0, abs=4 * chance / np.sqrt(30))
    scale = np.exp(np.linspace(-1, 1, 30))
    sigma, _ = calibrate_noise(alike * scale, np.ones(alike.shape))
    np.testing.assert_allclose(np.log(sigma), np.log(scale), atol=4 * chance)


def test_what_was_not_held_out_is_as_the_others() -> None:
    errors = np.full((5, 1, 4), 2.0)
    errors[:, :, 3] = np.nan
    sigma, doubt = calibrate_noise(errors, np.ones(errors.shape))
    assert np.isnan(sigma[3])
    network = Network(replace(SPEC, unsure=False), make_module(SPEC), sigma, doubt)
    keypoint = np.arange(4, dtype=np.int32)
    found = candidate_covariance(np.tile(np.eye(2), (4, 1, 1)), keypoint, np.ones(4), network)
    np.testing.assert_allclose(found[3], found[0])
    np.testing.assert_allclose(found[0], (wider(5) * 2.0**2 / (2 * np.log(2)) + (0.05 * 8) ** 2) * np.eye(2))


def wider(frames: int) -> float:
    """Of variances: what few frames leave open."""
    return float(2 * f.ppf(0.95, 2, 2 * frames) / chi2.ppf(0.95, 2))


@pytest.mark.parametrize("frames", [1, 2, 5, 50])
def test_few_frames_leave_much_open(frames: int) -> None:
    """All errors of 2 px: the same medians of however many frames."""
    sigma, _ = calibrate_noise(np.full((frames, 2, 4), 2.0), np.ones((frames, 2, 4)))
    np.testing.assert_allclose(sigma**2, wider(frames) * 2.0**2 / (2 * np.log(2)))


def test_ellipses_hold_what_they_say(rng: np.random.Generator) -> None:
    """A network whose shapes are right but 1.7 times too small, which one set of labels tells: on another, its 95 %
    ellipses hold 95 %."""
    n, cell_px = 4000, 4 / SPEC.scale
    root = rng.normal(size=(2, n, 4, 2, 2))
    stated = root @ root.swapaxes(-1, -2) + 0.1 * np.eye(2)
    noise = np.linalg.cholesky(stated) @ rng.normal(size=(2, n, 4, 2, 1)) * 1.7 * cell_px
    squared = (noise.swapaxes(-1, -2) @ np.linalg.inv(stated) @ noise)[..., 0, 0]
    sigma, doubt = calibrate_noise(np.sqrt(squared[0])[:, None] / cell_px, np.ones((n, 1, 4)))
    np.testing.assert_allclose(sigma, 1.7, rtol=0.05)
    network = Network(SPEC, make_module(SPEC), sigma, doubt)
    keypoint = np.tile(np.arange(4, dtype=np.int32), n)
    covariance = candidate_covariance(stated[1].reshape(-1, 2, 2), keypoint, np.ones(4 * n), network)
    error = noise[1].reshape(-1, 2, 1)
    nees = (error.swapaxes(-1, -2) @ np.linalg.inv(covariance) @ error).ravel()
    assert (nees < chi2.ppf(0.95, 2)).mean() == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / (4 * n)) + 0.005)
