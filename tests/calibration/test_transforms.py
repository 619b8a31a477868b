"""Rotations and rigid transforms against OpenCV, SciPy's matrix exponential and plain matrix algebra."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import scipy.linalg
from numpy.typing import NDArray

from calibration.errors import InputError
from calibration.transforms import apply, compose, exp_so3, invert, log_so3, mean_rotation, similarity, skew

Array = NDArray[np.float64]


def rigid(R: Array, t: Array) -> Array:
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = R, t
    return out


def test_skew_is_the_cross_product(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(2, 4, 5, 3))
    np.testing.assert_allclose((skew(a) @ b[..., None])[..., 0], np.cross(a, b), atol=1e-15)


def test_exp_is_the_matrix_exponential_in_any_batch(rng: np.random.Generator) -> None:
    w = rng.normal(size=(2, 3, 3))
    expected = [[scipy.linalg.expm(np.cross(np.eye(3), v)) for v in row] for row in w]
    np.testing.assert_allclose(exp_so3(w), expected, atol=1e-14)
    np.testing.assert_allclose(exp_so3(w[0, 0]), cv2.Rodrigues(w[0, 0])[0], atol=1e-14)
    assert exp_so3(np.zeros((0, 3))).shape == (0, 3, 3)


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-8, 1e-4, 1.0, 3.0, np.pi - 1e-9, np.pi])
def test_log_inverts_exp_from_zero_to_pi(angle: float, rng: np.random.Generator) -> None:
    axes = rng.normal(size=(50, 3))
    axes[:3] = np.eye(3)
    w = angle * axes / np.linalg.norm(axes, axis=1, keepdims=True)
    back = log_so3(exp_so3(w))
    assert np.all(np.linalg.norm(back, axis=1) <= np.pi + 1e-12)
    # at pi itself w and -w are one rotation
    error = np.minimum(
        np.linalg.norm(back - w, axis=1), np.where(angle > 3.1, np.linalg.norm(back + w, axis=1), np.inf)
    )
    assert error.max() <= 1e-14 * max(angle, 1e-2) * 10


def test_log_of_turns_beyond_pi_comes_back_the_short_way() -> None:
    np.testing.assert_allclose(log_so3(exp_so3([0.0, 0.0, 1.5 * np.pi])), [0, 0, -0.5 * np.pi], atol=1e-14)


def test_invert_compose_and_apply_are_those_of_4x4_matrices(rng: np.random.Generator) -> None:
    R_ab, R_bc = exp_so3(rng.normal(size=(2, 6, 3)))
    t_ab, t_bc = rng.normal(size=(2, 6, 3))
    R_ac, t_ac = compose(R_ab, t_ab, R_bc, t_bc)
    R_ba, t_ba = invert(R_ab, t_ab)
    points = rng.normal(size=(6, 4, 3))
    moved = apply(R_ab, t_ab, points)
    for i in range(6):
        a_from_b = rigid(R_ab[i], t_ab[i])
        np.testing.assert_allclose(rigid(R_ac[i], t_ac[i]), a_from_b @ rigid(R_bc[i], t_bc[i]), atol=1e-14)
        np.testing.assert_allclose(rigid(R_ba[i], t_ba[i]), np.linalg.inv(a_from_b), atol=1e-14)
        homogeneous = np.column_stack((points[i], np.ones(4)))
        np.testing.assert_allclose(moved[i], (homogeneous @ a_from_b.T)[:, :3], atol=1e-14)


def test_nan_stays_nan() -> None:
    w = np.array([[np.nan, 0, 0], [0, 0, 1.0]])
    assert np.isnan(exp_so3(w)[0]).any()
    assert np.isfinite(exp_so3(w)[1]).all()


def test_mean_rotation_minimises_the_weighted_chordal_distance(rng: np.random.Generator) -> None:
    center = exp_so3(rng.normal(size=3))
    R = exp_so3(0.4 * rng.normal(size=(9, 3))) @ center
    weights = rng.uniform(0.1, 2.0, 9)
    for given, used in ((weights, weights), (None, np.ones(9))):
        mean = mean_rotation(R, given)
        np.testing.assert_allclose(mean @ mean.T, np.eye(3), atol=1e-14)
        assert np.linalg.det(mean) > 0

        def cost(M: Array, w: Array = used) -> float:
            return float(w @ ((R - M) ** 2).sum(axis=(1, 2)))

        nudges = 1e-3 * np.concatenate((np.eye(3), -np.eye(3)))
        assert all(cost(mean) < cost(exp_so3(nudge) @ mean) for nudge in nudges)


def test_mean_of_rotations_far_apart_is_a_rotation_not_a_mirror() -> None:
    mean = mean_rotation(exp_so3([[np.pi, 0, 0], [0, np.pi, 0], [0, 0, np.pi]]))
    assert np.linalg.det(mean) == pytest.approx(1)


def test_similarity_finds_what_was_put_in(rng: np.random.Generator) -> None:
    source = rng.normal(size=(20, 3))
    R, t = exp_so3(rng.normal(size=3)), rng.normal(size=3)
    target = 2.5 * source @ R.T + t
    source[3] = np.nan
    scale, R_found, t_found = similarity(source, target)
    assert scale == pytest.approx(2.5, abs=1e-12)
    np.testing.assert_allclose(R_found, R, atol=1e-12)
    np.testing.assert_allclose(t_found, t, atol=1e-12)


def test_similarity_is_the_weighted_least_squares_minimum(rng: np.random.Generator) -> None:
    source, weights = rng.normal(size=(12, 3)), rng.uniform(0.1, 3.0, 12)
    target = 0.7 * source @ exp_so3([0.3, -0.2, 0.9]).T + [1, 2, 3] + 0.1 * rng.normal(size=(12, 3))
    scale, R, t = similarity(source, target, weights)

    def cost(s: float, R: Array, t: Array) -> float:
        return float(weights @ ((target - s * source @ R.T - t) ** 2).sum(axis=1))

    best = cost(scale, R, t)
    for step in (1e-4, -1e-4):
        assert best < cost(scale + step, R, t)
        for axis in np.eye(3):
            assert best < cost(scale, exp_so3(step * axis) @ R, t)
            assert best < cost(scale, R, t + step * axis)


def test_similarity_of_mirrored_points_turns_the_thinnest_axis_instead() -> None:
    source = np.concatenate((np.diag([3.0, 2, 1]), -np.diag([3.0, 2, 1])))
    scale, R, t = similarity(source, source * [-1, 1, 1])
    np.testing.assert_allclose(R, np.diag([-1, 1, -1]), atol=1e-14)
    assert scale == pytest.approx((9 + 4 - 1) / (9 + 4 + 1))
    np.testing.assert_allclose(t, 0, atol=1e-14)


def test_similarity_needs_three_points() -> None:
    with pytest.raises(InputError, match="at least 3 common points, got 2"):
        similarity(np.eye(3)[:2], np.eye(3)[:2])
    similarity(np.eye(3), np.eye(3))
