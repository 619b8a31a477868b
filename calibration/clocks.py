"""Were the cameras in step while they filmed the board? Each one's time offset and drift, and the corners set right.

A camera that is late sees a moving board where it will be. Its pictures are given to the moment nearest to the time
they were taken at, what is left is made up for by the board's motion, and offsets, drifts, cameras and boards are
adjusted together (`bundle`); again, until no offset changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calibration.bundle import BundleOptions, BundleResult, adjust_boards
from calibration.determination import clock_spread
from calibration.extrinsics import board_poses
from calibration.motion import middle_of, motion_terms, poses_after
from calibration.rig import CameraRig
from calibration.solver import SolverOptions
from calibration.transforms import apply

if TYPE_CHECKING:
    from calibration.board import BoardDetections

__all__ = ["Clocks", "find_clocks", "set_right"]

Array = NDArray[np.float64]

MOST_ROUNDS = 20
SETTLED = 0.005
"""Change of an offset, in steps of time, below which it has settled."""
MOST_S = 3.0
"""An offset beyond is sought in vain."""
SIGNIFICANT = 5.0
"""Standard deviations from which an offset or a drift is taken for real."""
RUNS, RUN = 12, 25
"""Pieces of the footage, and moments in each, that tell of the clocks."""
FARTHEST = 0.75
"""A picture further than so many steps from every moment belongs to none."""
DRIFT_S = 20.0
"""Seconds of footage from which a drift is sought."""
LEAST_MOMENTS = 8
SOLVER = SolverOptions(cost_tolerance=1e-5, initial_damping=1e-6, max_iterations=15)


@dataclass(frozen=True, eq=False)
class Clocks:
    """detections: as if all cameras had been in step. rig, board_R, board_t: the fit to them.

    clock, sigma (views, 2), in the rig's order: offset in s and drift in s/s, and their standard deviations, relative
    to the first camera: its picture of moment i was taken at time[i] + offset + drift * (time[i] - middle).
    free: camera -> mask (2,) of what was found to be other than 0. taken: every picture's corners, as they were, at the
    moment nearest to it; rest (views, moments): s that it was taken after that.
    """

    detections: BoardDetections
    rig: CameraRig
    board_R: Array  # noqa: N815
    board_t: Array
    clock: Array
    sigma: Array
    middle: float
    free: Mapping[str, NDArray[np.bool_]]
    taken: BoardDetections
    rest: Array

    def made_up_again(self, result: BundleResult, *detections: BoardDetections) -> tuple[BoardDetections, ...]:
        """Detections of the same moments, their corners made up for by the boards' motion as it is known now: where the
        velocity was wrong by a thousandth, the clock was wrong by a thousandth of what was made up for."""
        corners = _made_up_for(self.taken, result.rig, result.board_R, result.board_t, self.rest).corners
        return tuple(replace(d, corners=np.where(np.isfinite(d.corners), corners, np.nan)) for d in detections)

    def in_units(self, per_s: float) -> Clocks:
        """With offsets in other units than seconds."""
        scale = np.array([per_s, 1.0])
        return replace(self, clock=self.clock * scale, sigma=self.sigma * scale)


def find_clocks(detections: BoardDetections, rig: CameraRig, loss: str, scale: float) -> Clocks | None:
    """The clocks of a rig whose intrinsics are about right; None where no camera is out of step by more than chance, or
    the times of the moments are not known.

    They are sought in RUNS pieces of the footage at most; `adjust_boards` makes them exact with all of it. loss, scale:
    of the adjustment.
    """
    time = _filled(detections.time)
    if len(rig) < 2 or time is None:
        return None
    drifts = time[-1] - time[0] >= DRIFT_S
    free = {name: np.array([True, drifts]) for name in rig.names[1:]}
    detections = replace(detections, time=time)
    found = _sought(_pieces(detections), rig, free, BundleOptions(loss, scale, solver=SOLVER))
    if found is None:
        return None
    moments, _, rest = _paired(detections, _late(detections, found.clock, found.middle))
    R, t = board_poses(moments, found.rig)
    for _ in range(2):  # poses that single views proposed are too rough for the boards' velocities
        synced = _made_up_for(moments, found.rig, R, t, rest)
        posed = adjust_boards(found.rig, R, t, synced, BundleOptions(loss, scale, fixed=rig.names, solver=SOLVER))
        R, t = posed.board_R, posed.board_t
    synced = _made_up_for(moments, found.rig, R, t, rest)
    return replace(found, detections=synced, board_R=R, board_t=t, taken=moments, rest=rest)


def _sought(
    detections: BoardDetections, rig: CameraRig, free: Mapping[str, NDArray[np.bool_]], options: BundleOptions
) -> Clocks | None:
    """The clocks, all with an offset and, where any drifts, a drift: one held at 0 would pull at the others.
    None where all are right, or blocks of the footage do not agree on any."""
    found: Clocks | None = None
    for _ in range(2):
        found, spread = _settled(detections, rig, free, found, options)
        if not (np.abs(found.clock) > SIGNIFICANT * spread)[:, 0].any():
            return None
        late, drifts = np.any(np.abs(found.clock) > SIGNIFICANT * found.sigma, axis=0).tolist()
        if not (late or drifts):
            return None
        kept = {name: mask & [True, drifts] for name, mask in free.items()}
        if all(np.array_equal(kept[name], free[name]) for name in free):
            break
        free = kept
    return found


def _settled(
    detections: BoardDetections,
    rig: CameraRig,
    free: Mapping[str, NDArray[np.bool_]],
    before: Clocks | None,
    options: BundleOptions,
) -> tuple[Clocks, Array]:
    """Offsets adjusted until they change no more; those that are not free are 0. Also (views, 2) their standard
    deviations by blocks of the footage."""
    mask = np.array([free.get(name, np.zeros(2, dtype=bool)) for name in rig.names])
    clock = np.zeros((len(rig), 2)) if before is None else np.where(mask, before.clock, 0.0)
    rig = rig if before is None else before.rig
    step, middle = float(np.median(np.diff(detections.time))), middle_of(detections.time)
    pairs: NDArray[np.int64] | None = None
    for _ in range(MOST_ROUNDS):
        late = _late(detections, clock, middle)
        moments, chosen, rest = _paired(detections, late)
        if pairs is None or not np.array_equal(pairs, chosen):
            pairs = chosen
            R, t = board_poses(moments, rig)
        synced = _made_up_for(moments, rig, R, t, rest)
        result = adjust_boards(rig, R, t, synced, replace(options, clocks=free))
        rig, R, t = result.rig, result.board_R, result.board_t
        clock = clock + _referred(result.clock, middle_of(synced.time), middle)
        if np.abs(result.clock[:, 0]).max() < SETTLED * step:
            break
        if np.abs(clock[:, 0]).max() > MOST_S:  # no optimum: nothing is known
            nothing = np.full_like(clock, np.inf)
            return Clocks(synced, rig, R, t, clock, nothing, middle, free, moments, rest), nothing
    found = Clocks(synced, rig, R, t, clock, result.clock_sigma, middle, free, moments, rest)
    return found, clock_spread(result, synced, replace(options, clocks=free))


def set_right(
    clocks: Clocks, result: BundleResult, options: BundleOptions, *detections: BoardDetections
) -> tuple[Clocks, tuple[BoardDetections, ...]]:
    """The clocks after an adjustment of the last of the detections with clocks and these options, and detections of the
    same moments as if all cameras had been in step with these clocks."""
    middle = middle_of(clocks.detections.time)
    clock = clocks.clock + _referred(result.clock, middle, clocks.middle)
    right = []
    for seen in detections:
        late = _late(replace(seen, delay=None), result.clock, middle)
        right.append(_made_up_for(seen, result.rig, result.board_R, result.board_t, late))
    return replace(clocks, clock=clock, sigma=clock_spread(result, detections[-1], options)), tuple(right)


def _referred(clock: Array, middle: float, other: float) -> Array:
    """Clocks (views, 2) whose offsets hold at one time, with the offsets at another."""
    return clock + clock[:, 1:] * np.array([other - middle, 0.0])


def _filled(time: Array) -> Array | None:
    """Times of all moments, those that are not known by their neighbours'; None where too few are known."""
    known = np.flatnonzero(np.isfinite(time))
    if len(known) < LEAST_MOMENTS or not (np.diff(time[known]) > 0).all():
        return None
    step = float(np.median(np.diff(time[known]) / np.diff(known)))
    rows = np.arange(len(time))
    inside = np.interp(rows, known, time[known])
    beyond = np.minimum(rows - known[0], 0) + np.maximum(rows - known[-1], 0)
    return np.asarray(inside + step * beyond)


def _pieces(detections: BoardDetections) -> BoardDetections:
    """Runs of moments spread evenly over the footage; all of it where it is short."""
    n = len(detections.time)
    if n <= RUNS * RUN:
        return detections
    first = np.linspace(0, n - RUN, RUNS).astype(int)
    rows = np.unique(first[:, None] + np.arange(RUN))
    return detections.of_frames(rows)


def _late(detections: BoardDetections, clock: Array, middle: float) -> Array:
    """(views, moments) s that the pictures were taken after their moments, in the detections' order of views."""
    late = clock[:, :1] + clock[:, 1:] * (detections.time - middle)
    return late if detections.delay is None else late + np.nan_to_num(detections.delay)


def _paired(detections: BoardDetections, late: Array) -> tuple[BoardDetections, NDArray[np.int64], Array]:
    """Each picture at the moment nearest to when it was taken; its moment's row before, and what is left in s.

    Moments are added before the first and after the last where pictures need them. Of two pictures for one moment the
    nearer stays, and a picture too far from any is left out. Second and third result: (views, moments), -1 and 0 where
    there is no picture.
    """
    time, step = detections.time, float(np.median(np.diff(detections.time)))
    seen = np.asarray(np.isfinite(detections.corners[..., 0]).any(axis=2))
    taken = time + late
    first = max(0, int(np.ceil((time[0] - taken[seen].min()) / step - 0.5)))
    last = max(0, int(np.ceil((taken[seen].max() - time[-1]) / step - 0.5)))
    before, behind = np.arange(first, 0, -1), np.arange(1, last + 1)
    moments = np.concatenate([time[0] - step * before, time, time[-1] + step * behind])
    frame = np.concatenate([detections.frame[0] - before, detections.frame, detections.frame[-1] + behind])
    nearest = np.searchsorted((moments[1:] + moments[:-1]) / 2, taken)
    away = taken - moments[nearest]
    views, n = len(taken), len(moments)
    row, rest = np.full((views, n), -1), np.zeros((views, n))
    for v in range(views):
        rows = np.flatnonzero(seen[v] & (np.abs(away[v]) <= FARTHEST * step))
        rows = rows[np.argsort(-np.abs(away[v, rows]), kind="stable")]  # the nearest is written last
        row[v, nearest[v, rows]], rest[v, nearest[v, rows]] = rows, away[v, rows]
    corners, sigma = (a[np.arange(views)[:, None], row] for a in (detections.corners, detections.sigma))
    corners[row < 0], sigma[row < 0] = np.nan, np.nan
    own = np.where(row < 0, -1, detections.numbers[np.arange(views)[:, None], row])
    paired = replace(
        detections, frame=frame, time=moments, corners=corners, sigma=sigma, delay=None, own_number=own
    )  # fmt: skip
    return paired, row, rest


def _made_up_for(detections: BoardDetections, rig: CameraRig, R: Array, t: Array, rest: Array) -> BoardDetections:
    """The corners where they would have been so much earlier (views, moments) s, by the boards' motion."""
    motion = motion_terms(R, t, detections.time)
    index, points = np.asarray(detections.board_index), detections.object_points
    corners = detections.corners.copy()
    for b in range(R.shape[1]):
        own = np.flatnonzero(index == b)
        here = apply(R[:, b], t[:, b], points[own])
        for camera in rig:
            v = list(detections.view_names).index(camera.name)
            later_R, later_t, _ = poses_after(R[:, b], t[:, b], motion[:, b], rest[v])
            shift = camera.project(apply(later_R, later_t, points[own])) - camera.project(here)
            corners[v][:, own] -= np.nan_to_num(shift)
    return replace(detections, corners=corners)
