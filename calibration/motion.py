"""How does a board move between two pictures? A polynomial through its poses before, at and after each moment."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.transforms import exp_so3, log_so3

__all__ = ["middle_of", "motion_terms", "poses_after"]

Floats = NDArray[np.float64]

TERMS, FACTORIALS = 3, np.array([1.0, 2.0, 6.0, 24.0])
MOST_STEPS, MOST_S = 3.5, 0.35
"""Poses further apart than so many median steps, or so many seconds, do not tell how the board moved between them."""


def motion_terms(R: Floats, t: Floats, time: Floats) -> Floats:
    """(frames, boards, 3, 6) velocity, acceleration and jerk of boards: of the turn in rad and the place in units of
    length, per s, s^2 and s^3, as `poses_after` takes them; 0 where unknown.

    R (frames, boards, 3, 3), t (frames, boards, 3): world from board, NaN where unknown. time (frames,) s, rising, NaN
    where unknown. Of the polynomial through the nearest known poses, two before and two after; with fewer of them one
    on each side, or a straight line through one.
    """
    known = np.isfinite(t).all(axis=2) & np.isfinite(time)[:, None]
    motion = np.zeros((*t.shape[:2], TERMS, 6))
    steps = np.diff(time[np.isfinite(time)])
    if not len(steps):
        return motion
    gap = min(MOST_STEPS * float(np.median(steps)), MOST_S)
    for b in range(t.shape[1]):
        rows = np.flatnonzero(known[:, b])
        h = np.diff(time[rows])
        run = np.cumsum(np.concatenate(([0], (h > gap) | (h <= 0))))  # poses of one run follow each other
        left = np.ones(len(rows), dtype=bool)
        for offsets in ((-2, -1, 1, 2), (-1, 1), (1,), (-1,)):
            at = np.arange(len(rows))[:, None] + offsets
            near = (at >= 0) & (at < len(rows))
            at = np.where(near, at, 0)
            own = np.flatnonzero(left & (near & (run[at] == run[:, None])).all(axis=1))
            left[own] = False
            if len(own):
                terms = _polynomial(R[rows, b], t[rows, b], time[rows], own, at[own])
                motion[rows[own], b, : terms.shape[1]] = terms
    return motion


def _polynomial(R: Floats, t: Floats, time: Floats, own: NDArray[np.intp], near: NDArray[np.intp]) -> Floats:
    """(n, up to 3, 6) derivatives at the poses `own` (n,) of the polynomials through them and those near (n, k)."""
    turn = log_so3(R[near] @ R[own, None].transpose(0, 1, 3, 2))
    away = np.concatenate([turn, t[near] - t[own, None]], axis=2)
    powers = np.arange(1, near.shape[1] + 1)
    s = (time[near] - time[own, None])[..., None]
    return np.linalg.solve(s**powers / FACTORIALS[: len(powers)], away)[:, :TERMS]


def poses_after(R: Floats, t: Floats, motion: Floats, seconds: Floats) -> tuple[Floats, Floats, Floats]:
    """Poses (n, ...) so many seconds (n,) later, and the velocity (n, 6) they have then. motion (n, 3, 6): velocity v,
    acceleration a and jerk j: R = exp(v s + a s^2 / 2 + j s^3 / 6) R0 with the first three of each, t = t0 + the same
    of the others."""
    s = seconds[:, None]
    v, a, j = np.moveaxis(motion, 1, 0)
    way = s * (v + s * (a / 2 + s * j / 6))
    return exp_so3(way[:, :3]) @ R, t + way[:, 3:], v + s * (a + s * j / 2)


def middle_of(time: Floats) -> float:
    """The time halfway between the first and the last known one, at which the offset of a drifting clock is told."""
    known = time[np.isfinite(time)]
    return float(known[0] + known[-1]) / 2 if len(known) else 0.0
