"""A parabola through three poses: exact for what moves so, and nothing where nothing is known."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.motion import board_velocity, middle_of, poses_after
from calibration.transforms import exp_so3

AXIS = np.array([0.3, -0.5, 0.8])


def falling(time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A board that turns about one axis and falls: (frames, 1, 3, 3), (frames, 1, 3), both parabolas in time."""
    angle = 0.7 * time + 0.9 * time**2
    t = np.stack([2.0 * time, 1.0 + 0 * time, -4.9 * time**2], axis=1)
    return exp_so3(angle[:, None] * AXIS)[:, None], t[:, None]


def test_parabolas_are_followed_exactly_also_over_gaps() -> None:
    time = np.array([0.0, 0.1, 0.2, 0.35, 0.5, 0.6])
    R, t = falling(time)
    velocity, acceleration = board_velocity(R, t, time)
    for i in range(1, 5):
        for later in (-0.04, 0.0, 0.03):
            moved_R, moved_t, v = poses_after(R[i], t[i], velocity[i], acceleration[i], np.array([later]))
            true_R, true_t = falling(np.array([time[i] + later]))
            np.testing.assert_allclose(moved_R, true_R[0], atol=1e-12)
            np.testing.assert_allclose(moved_t, true_t[0], atol=1e-12)
            spin = (0.7 + 1.8 * (time[i] + later)) * AXIS
            np.testing.assert_allclose(v[0], [*spin, 2.0, 0.0, -9.8 * (time[i] + later)], atol=1e-11)


def test_at_the_ends_the_line_to_the_only_neighbour() -> None:
    time = np.array([0.0, 0.1, 0.2])
    R, t = falling(time)
    velocity, acceleration = board_velocity(R, t, time)
    np.testing.assert_allclose(velocity[0, 0, 3:], (t[1] - t[0])[0] / 0.1)
    np.testing.assert_allclose(velocity[2, 0, 3:], (t[2] - t[1])[0] / 0.1)
    assert not acceleration[[0, 2]].any()


@pytest.mark.parametrize("time", [np.array([0.0, 0.5, 1.0]), np.full(3, np.nan), np.array([0.0, np.nan, np.nan])])
def test_poses_far_apart_or_without_a_time_tell_nothing(time: np.ndarray) -> None:
    R, t = falling(np.arange(3) / 10)
    velocity, acceleration = board_velocity(R, t, time)
    assert not velocity.any()
    assert not acceleration.any()


def test_unknown_poses_are_stepped_over() -> None:
    time = np.arange(6) / 20
    R, t = falling(time)
    both = np.concatenate([R, R], axis=1), np.concatenate([t, t], axis=1)
    both[1][2, 1] = np.nan
    velocity, _ = board_velocity(*both, time)
    np.testing.assert_allclose(velocity[[1, 3], 1], velocity[[1, 3], 0], atol=1e-12)
    assert not velocity[2, 1].any()
    assert middle_of(np.array([np.nan, 1.0, 2.0, 4.0])) == 2.5
    assert middle_of(np.full(2, np.nan)) == 0.0
