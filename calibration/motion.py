"""How does a board move between two pictures? A parabola through its poses before, at and after each moment."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.transforms import exp_so3, log_so3

__all__ = ["board_velocity", "middle_of", "poses_after"]

Floats = NDArray[np.float64]

MOST_STEPS, MOST_S = 3.5, 0.35
"""Poses further apart than so many median steps, or so many seconds, do not tell how the board moved between them."""


def board_velocity(R: Floats, t: Floats, time: Floats) -> tuple[Floats, Floats]:
    """Velocity and acceleration (frames, boards, 6) of boards: rad/s and length/s of `poses_after`, 0 where unknown.

    R (frames, boards, 3, 3), t (frames, boards, 3): world from board, NaN where unknown. time (frames,) s, rising, NaN
    where unknown. The parabola goes through the nearest known poses before and after; a straight line through one.
    """
    known = np.isfinite(t).all(axis=2) & np.isfinite(time)[:, None]
    velocity, acceleration = np.zeros((2, *t.shape[:2], 6))
    steps = np.diff(time[np.isfinite(time)])
    if not len(steps):
        return velocity, acceleration
    gap = min(MOST_STEPS * float(np.median(steps)), MOST_S)
    for b in range(t.shape[1]):
        rows = np.flatnonzero(known[:, b])
        if len(rows) < 2:
            continue
        h = np.diff(time[rows])
        turned = R[rows, b]
        log = log_so3(turned[1:] @ turned[:-1].transpose(0, 2, 1))  # the same axis seen from both ends
        ahead = np.concatenate([log, np.diff(t[rows, b], axis=0)], axis=1) / h[:, None]
        near = (h <= gap) & (h > 0)
        before, after = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
        before[1:], after[:-1] = near, near
        v1, v2 = np.zeros((2, len(rows), 6))  # mean velocity since the pose before, until the pose after
        h1, h2 = np.ones((2, len(rows), 1))
        v1[1:], v2[:-1], h1[1:], h2[:-1] = ahead, ahead, h[:, None], h[:, None]
        both = (before & after)[:, None]
        one = np.where(after[:, None], v2, np.where(before[:, None], v1, 0.0))
        velocity[rows, b] = np.where(both, (v1 * h2 + v2 * h1) / (h1 + h2), one)
        acceleration[rows, b] = np.where(both, 2 * (v2 - v1) / (h1 + h2), 0.0)
    return velocity, acceleration


def poses_after(
    R: Floats, t: Floats, velocity: Floats, acceleration: Floats, seconds: Floats
) -> tuple[Floats, Floats, Floats]:
    """Poses (n, ...) so many seconds (n,) later, and the velocity (n, 6) they have then: R = exp(v s + a s^2 / 2) R0
    with the first three of v and a, t = t0 + v s + a s^2 / 2 with the others."""
    s = seconds[:, None]
    way = velocity * s + 0.5 * acceleration * s**2
    return exp_so3(way[:, :3]) @ R, t + way[:, 3:], velocity + acceleration * s


def middle_of(time: Floats) -> float:
    """The time halfway between the first and the last known one, at which the offset of a drifting clock is told."""
    known = time[np.isfinite(time)]
    return float(known[0] + known[-1]) / 2 if len(known) else 0.0
