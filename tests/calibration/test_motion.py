"""Polynomials through neighbouring poses: exact for what moves so, and nothing where nothing is known."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.motion import middle_of, motion_terms, poses_after
from calibration.transforms import exp_so3

AXIS = np.array([0.3, -0.5, 0.8])


def falling(time: np.ndarray, quartic: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A board that turns about one axis and falls, (frames, 1, 3, 3) and (frames, 1, 3): polynomials of time."""
    angle = 0.7 * time + 0.9 * time**2 + quartic * time**4
    t = np.stack([2.0 * time - quartic * time**3, 1.0 + 0 * time, -4.9 * time**2], axis=1)
    return exp_so3(angle[:, None] * AXIS)[:, None], t[:, None]


def test_polynomials_are_followed_also_over_gaps() -> None:
    """Exactly with two poses on each side; but for the jerk, a fourth power, that is left out of the way after."""
    time = np.array([0.0, 0.1, 0.2, 0.35, 0.5, 0.6, 0.7])
    for quartic, rows in ((0.0, range(1, 6)), (0.3, range(2, 5))):
        R, t = falling(time, quartic)
        motion = motion_terms(R, t, time)[:, 0]
        for i in rows:
            spin = 0.7 + 1.8 * time[i] + 4 * quartic * time[i] ** 3
            np.testing.assert_allclose(motion[i, 0, :3], spin * AXIS, atol=1e-11)
            for later in (-0.04, 0.0, 0.03):
                moved_R, moved_t, v = poses_after(R[i], t[i], motion[[i]], np.array([later]))
                true_R, true_t = falling(np.array([time[i] + later]), quartic)
                np.testing.assert_allclose(moved_R, true_R[0], atol=1e-12 + quartic * later**4)
                np.testing.assert_allclose(moved_t, true_t[0], atol=1e-12)
                at = time[i] + later
                np.testing.assert_allclose(v[0, 3:], [2.0 - 3 * quartic * at**2, 0.0, -9.8 * at], atol=1e-10)


def test_at_the_ends_the_line_to_the_only_neighbour() -> None:
    time = np.array([0.0, 0.1, 0.2])
    R, t = falling(time)
    motion = motion_terms(R, t, time)[:, 0]
    np.testing.assert_allclose(motion[0, 0, 3:], (t[1] - t[0])[0] / 0.1)
    np.testing.assert_allclose(motion[2, 0, 3:], (t[2] - t[1])[0] / 0.1)
    assert not motion[[0, 2], 1:].any()


@pytest.mark.parametrize("time", [np.array([0.0, 0.5, 1.0]), np.full(3, np.nan), np.array([0.0, np.nan, np.nan])])
def test_poses_far_apart_or_without_a_time_tell_nothing(time: np.ndarray) -> None:
    R, t = falling(np.arange(3) / 10)
    assert not motion_terms(R, t, time).any()


def test_unknown_poses_are_stepped_over() -> None:
    time = np.arange(6) / 20
    R, t = falling(time)
    both = np.concatenate([R, R], axis=1), np.concatenate([t, t], axis=1)
    both[1][2, 1] = np.nan
    motion = motion_terms(*both, time)
    np.testing.assert_allclose(motion[[1, 3], 1], motion[[1, 3], 0], atol=1e-8)
    assert not motion[2, 1].any()
    assert middle_of(np.array([np.nan, 1.0, 2.0, 4.0])) == 2.5
    assert middle_of(np.full(2, np.nan)) == 0.0
