from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pose3d.kalman import (
    Motion,
    estimate_motion,
    filter_series,
    motion_from_moments,
    predict,
    smooth_series,
    start,
    update,
)

MOTION = Motion(acceleration=0.7, walk=0.3, measurement=0.5)


def spd(rng: np.random.Generator, *shape: int) -> NDArray[np.float64]:
    root = rng.normal(size=(*shape, shape[-1]))
    return np.asarray(root @ np.swapaxes(root, -1, -2) + 0.1 * np.eye(shape[-1]))


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("step", [1.0, 0.5, 3.0])
def test_predict_and_update_are_those_of_filterpy(rng: np.random.Generator, dimensions: int, step: float) -> None:
    from filterpy.common import Q_discrete_white_noise
    from filterpy.kalman import KalmanFilter

    D = dimensions
    mean, covariance = rng.normal(size=(4, 5, 2 * D)), spd(rng, 4, 5, 2 * D)
    measured, noise = rng.normal(size=(4, 5, D)), spd(rng, 4, 5, D)
    ahead, ahead_covariance = predict(mean, covariance, MOTION, step)
    after, after_covariance, distance = update(ahead, ahead_covariance, measured, noise)
    for i in np.ndindex(4, 5):
        peer = KalmanFilter(dim_x=2 * D, dim_z=D)
        peer.x, peer.P, peer.R = mean[i], covariance[i], noise[i]
        peer.F = np.kron([[1.0, step], [0.0, 1.0]], np.eye(D))
        peer.H = np.eye(D, 2 * D)
        peer.Q = Q_discrete_white_noise(2, step, MOTION.acceleration, block_size=D, order_by_dim=False)
        peer.Q[:D, :D] += MOTION.walk * step * np.eye(D)
        peer.predict()
        np.testing.assert_allclose(ahead[i], peer.x, atol=1e-12)
        np.testing.assert_allclose(ahead_covariance[i], peer.P, atol=1e-10)
        peer.update(measured[i])
        np.testing.assert_allclose(after[i], peer.x, atol=1e-9)
        np.testing.assert_allclose(after_covariance[i], peer.P, atol=1e-9)
        assert distance[i] == pytest.approx(peer.mahalanobis**2)


def test_one_motion_for_each_keypoint(rng: np.random.Generator) -> None:
    motion = Motion(np.array([0.1, 2.0]), np.array([0.0, 0.5]), 0.2)
    mean, covariance = rng.normal(size=(3, 2, 6)), spd(rng, 3, 2, 6)
    together = predict(mean, covariance, motion, 2.0)
    for k in range(2):
        alone = predict(mean[:, k], covariance[:, k], Motion(motion.acceleration[k], motion.walk[k], 0.2), 2.0)  # type: ignore[index]
        np.testing.assert_array_equal(together[0][:, k], alone[0])
        np.testing.assert_array_equal(together[1][:, k], alone[1])


def test_a_missing_measurement_changes_nothing_and_inputs_stay(rng: np.random.Generator) -> None:
    mean, covariance = rng.normal(size=(2, 4)), spd(rng, 2, 4)
    before = mean.copy(), covariance.copy()
    measured = np.array([[np.nan, np.nan], [1.0, 2.0]])
    after, after_covariance, distance = update(mean, covariance, measured, np.eye(2))
    np.testing.assert_array_equal(after[0], mean[0])
    np.testing.assert_array_equal(after_covariance[0], covariance[0])
    assert np.isnan(distance[0])
    assert np.isfinite(distance[1])
    np.testing.assert_array_equal(mean, before[0])
    np.testing.assert_array_equal(covariance, before[1])


def test_beyond_the_limit_the_gain_is_hubers(rng: np.random.Generator) -> None:
    mean, covariance, noise = rng.normal(size=(1, 6)), spd(rng, 1, 6), spd(rng, 1, 3)
    measured = mean[:, :3] + 10.0
    limit = 4.0
    after, after_covariance, distance = update(mean, covariance, measured, noise, limit)
    S = covariance[0, :3, :3] + noise[0]
    K = covariance[0, :, :3] @ np.linalg.inv(S) * np.sqrt(limit / distance[0])
    A = np.eye(6) - K @ np.eye(3, 6)
    np.testing.assert_allclose(after[0], mean[0] + K @ (measured - mean[:, :3])[0], rtol=1e-9)
    joseph = A @ covariance[0] @ A.T + K @ noise[0] @ K.T  # the covariance of any gain
    np.testing.assert_allclose(after_covariance[0], joseph, rtol=1e-7, atol=1e-9)
    np.testing.assert_array_equal(
        update(mean, covariance, measured, noise, distance[0] + 1)[0], update(mean, covariance, measured, noise)[0]
    )


def test_a_track_starts_where_it_was_measured() -> None:
    mean, covariance = start(np.array([[1.0, 2.0], [np.nan, np.nan]]), 0.5 * np.eye(2), np.array([4.0, 9.0]))
    np.testing.assert_array_equal(mean[0], [1.0, 2.0, 0.0, 0.0])
    assert np.isnan(mean[1]).all()
    np.testing.assert_array_equal(covariance[0], np.diag([0.5, 0.5, 4.0, 4.0]))
    np.testing.assert_array_equal(np.diag(covariance[1])[2:], [9.0, 9.0])


def test_smoothing_is_the_least_squares_path_through_all_measurements(rng: np.random.Generator) -> None:
    frames, D = 12, 2
    points = np.cumsum(rng.normal(size=(frames, D)), axis=0)
    points[5:7] = np.nan
    filtered = filter_series(points, MOTION.measurement * np.eye(D), MOTION)
    mean, covariance = smooth_series(filtered)
    F2, Q2 = MOTION.matrices()
    F, Q = np.kron(F2, np.eye(D)), np.kron(Q2, np.eye(D))
    information, vector = np.zeros((frames, 4, frames, 4)), np.zeros((frames, 4))
    first = np.linalg.inv(filtered.covariance[0])
    information[0, :, 0] += first
    vector[0] += first @ filtered.mean[0]
    for f in range(1, frames):
        W = np.linalg.inv(Q)
        information[f, :, f] += W
        information[f - 1, :, f - 1] += F.T @ W @ F
        information[f, :, f - 1] -= W @ F
        information[f - 1, :, f] -= F.T @ W
        if np.isfinite(points[f]).all():
            information[f, :D, f, :D] += np.eye(D) / MOTION.measurement
            vector[f, :D] += points[f] / MOTION.measurement
    joint = np.linalg.inv(information.reshape(frames * 4, -1))
    np.testing.assert_allclose(mean, (joint @ vector.ravel()).reshape(frames, 4), atol=1e-7)
    for f in range(frames):
        np.testing.assert_allclose(covariance[f], joint[4 * f : 4 * f + 4, 4 * f : 4 * f + 4], atol=1e-7)


def test_a_series_begins_at_its_first_measurement(rng: np.random.Generator) -> None:
    points = np.cumsum(rng.normal(size=(8, 3, 2)), axis=0)
    points[:3, 1] = np.nan
    filtered = filter_series(points, 0.1 * np.eye(2), MOTION)
    assert np.isnan(filtered.mean[:3, 1]).all()
    assert np.isnan(filtered.covariance[:3, 1]).all()
    assert np.isfinite(filtered.mean[3:]).all()
    np.testing.assert_array_equal(filtered.mean[3, 1], [*points[3, 1], 0, 0])
    known = np.diff(points, axis=0)
    np.testing.assert_allclose(filtered.covariance[0, 0, 2, 2], np.nanmean(known**2))
    smooth, _ = smooth_series(filtered)
    assert np.isnan(smooth[:3, 1]).all()
    assert np.isfinite(smooth[3:]).all()


def simulated(rng: np.random.Generator, motion: Motion, frames: int, tracks: int) -> NDArray[np.float64]:
    acceleration = np.sqrt(motion.acceleration) * rng.normal(size=(frames, tracks, 1, 2))
    velocity = np.cumsum(acceleration, axis=0) - acceleration  # velocity at the beginning of each step
    position = np.cumsum(velocity + acceleration / 2, axis=0)
    position += np.cumsum(np.sqrt(motion.walk) * rng.normal(size=position.shape), axis=0)
    return np.asarray(position + np.sqrt(motion.measurement) * rng.normal(size=position.shape))


@pytest.mark.parametrize(
    "motion", [Motion(2.0, 0.0, 0.1), Motion(0.0, 1.0, 0.5), Motion(0.0, 0.0, 1.0), Motion(1.0, 1.0, 1.0)]
)
def test_motion_is_found_again_in_simulated_paths(rng: np.random.Generator, motion: Motion) -> None:
    points = np.concatenate([simulated(rng, motion, 400, 200), 10.0 * simulated(rng, motion, 400, 200)], axis=2)
    points[rng.uniform(size=points.shape[:3]) < 0.1] = np.nan
    found = estimate_motion(points)
    scale = motion.acceleration + motion.walk + motion.measurement
    for name in ("acceleration", "walk", "measurement"):
        expected = getattr(motion, name) * np.array([1.0, 100.0])
        np.testing.assert_allclose(getattr(found, name), expected, atol=0.08 * scale * 100, rtol=0.08)
        np.testing.assert_allclose(getattr(found, name)[0], expected[0], atol=0.08 * scale, rtol=0.08)


def test_few_wrong_links_do_not_set_the_motion(rng: np.random.Generator) -> None:
    motion = Motion(1.0, 0.0, 0.2)
    points = simulated(rng, motion, 300, 100)
    points[rng.uniform(size=points.shape[:3]) < 0.002] += 1000.0
    assert estimate_motion(points).acceleration == pytest.approx(1.0, abs=0.35)


def test_moments_that_no_model_has() -> None:
    smooth = motion_from_moments(1.0, 1.0, 1.0)  # a motion smoother than white acceleration is not measurement noise
    assert float(smooth.measurement) == 0.0
    assert float(smooth.acceleration) == pytest.approx(2.0)
    assert float(smooth.walk) == pytest.approx(0.0)
    rough = motion_from_moments(6.0, -5.0, 1.5)
    assert float(rough.measurement) == 1.0
    assert float(rough.acceleration) == 0.0
    least = motion_from_moments(1.0, -0.2, -0.1)
    assert float(least.measurement) == 0.0
    assert float(least.acceleration) == pytest.approx(0.6)
    assert float(least.walk) == pytest.approx(0.35)


def test_no_motion_without_three_frames_in_a_row() -> None:
    for points in (np.zeros((2, 1, 1, 2)), np.full((6, 1, 1, 2), np.nan), np.zeros((0, 1, 1, 2))):
        found = estimate_motion(points)
        assert float(found.acceleration[0]) == float(found.measurement[0]) == 0.0  # type: ignore[index]
