"""Which mistake explains why the cameras do not agree on where the board is?

Each candidate mistake adds a few parameters to the fit: a camera's delay, a camera's place from some frame on, its
given lens, the board's true shape, where its back lies. The one that explains most is taken, then the next beside it,
for as long as what it explains is beyond chance and large enough to matter; so a late camera is not also called moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibration.bundle import BundleOptions
from calibration.camera import project_jacobian
from calibration.lenses import free_parameters
from calibration.rig import RIG_PARAMETERS, CameraRig
from calibration.scores import Linearised, Normals, Placed, camera_columns, linearise, normals
from calibration.transforms import apply

__all__ = ["SHADOW", "Explained", "Mistake", "board_shape", "explain", "freedom", "shape_directions", "velocity"]

Array = NDArray[np.float64]

N = len(RIG_PARAMETERS)
CHANCE = 1e-4
"""Of calling a faultless rig faulty, shared among all candidates."""
LEAST_GAIN = 0.25
"""What a mistake explains, per coordinate of the camera's corners and in squares of their noise, to be worth a word."""
MOST_OF_IT = 0.5
"""Share of all misfit that a mistake explains whatever chance says: what bends leaves much open in every block."""
SHADOW = 0.05
"""Share of the greatest gain below which others may be what a straight line leaves of a curve."""
MOST_CHANGES, LEAST_SIDE = 48, 5
"""Moments tried as the one of a change, and boards that must lie before and after it."""
ODD_BOARD = 0.5
"""Share of all that disagrees before or after a change, whichever is shorter, and of what the change explains, in one
board: an odd one, no change."""
ALIKE = 0.9
"""Share of the best candidate's gain with which another one explains the same: the footage cannot say which it was."""


@dataclass(frozen=True, eq=False)
class Mistake:
    """kind: delay, move, lens, shape, back, shutter. view: of the camera, -1 for the board. start: pose index of a
    change, else 0. matrix: (poses, corners, 2, k) px of each of k parameters, in the views that see it."""

    kind: str
    view: int
    start: int
    columns: tuple[Array | None, ...]

    def __call__(self, view: int) -> Array:
        k = next(part.shape[-1] for part in self.columns if part is not None)
        part = self.columns[view]
        shape = next(part.shape for part in self.columns if part is not None)
        return np.zeros((*shape[:3], k)) if part is None else part


@dataclass(frozen=True, eq=False)
class Explained:
    """One mistake that was found. value (k,) and sigma (k,) of its parameters. gain: chi-square that it explains.
    effect_px: rms shift of the camera's corners that it amounts to. others: views whose like mistake would explain the
    same."""

    mistake: Mistake
    value: Array
    sigma: Array
    gain: float
    effect_px: float
    others: tuple[int, ...]


def explain(
    placed: Placed, free: NDArray[np.bool_], precision: Array, frames: NDArray[np.int64], given: Sequence[int]
) -> tuple[tuple[Explained, ...], Linearised]:
    """All mistakes found, in the order of what they explain, and the fit's linearisation with them taken out.

    free, precision: (views, 18) what the fit had free and its priors. frames: (poses,) source frame numbers.
    given: views whose lens was given.
    """
    fit = linearise(placed)
    delays = _delays(placed, frames)
    changes = _changes(fit, free, precision, delays)
    shapes = [board_shape(placed, b) for b in np.unique(placed.board)]
    candidates = [*delays, *changes, *shapes, *_backs(placed), *_lenses(placed, given), *_shutters(placed, frames)]
    equations = normals(fit, free, precision, candidates)
    width = np.array([next(p.shape[-1] for p in c.columns if p is not None) for c in candidates])
    first = N * len(placed.rig) + np.concatenate(([0], np.cumsum(width)[:-1]))
    columns = [np.arange(a, a + k) for a, k in zip(first, width, strict=True)]
    active = equations.base.copy()
    unexplained = fit.misfit
    chosen: list[tuple[int, float, tuple[int, ...]]] = []
    while len(chosen) < len(candidates):
        taken = {i: gain for i, gain, _ in chosen}
        best = _best(equations, active, columns, candidates, placed, taken, unexplained - sum(taken.values()))
        if best is None:
            break
        active[columns[best[0]]] = True
        chosen.append(best)
    step, covariance = equations.solved(active)
    scatter = equations.scatter(step, covariance)
    found = []
    for i, gain, others in chosen:
        value, mistake = step[columns[i]], candidates[i]
        sigma = np.sqrt(np.maximum(np.diagonal(covariance), scatter)[columns[i]])
        found.append(Explained(mistake, value, sigma, gain, _effect(mistake, value, placed), others))
    return tuple(found), linearise(_without(placed, candidates, columns, step)) if found else fit


def _best(
    equations: Normals,
    active: NDArray[np.bool_],
    columns: list[NDArray[np.intp]],
    candidates: Sequence[Mistake],
    placed: Placed,
    taken: dict[int, float],
    unexplained: float,
) -> tuple[int, float, tuple[int, ...]] | None:
    """The candidate that explains most beyond chance (or most of all there is to explain) and beyond what matters, and
    other views' like ones as good."""
    optimum = equations.solved(active)
    coordinates = 2 * placed.seen.sum(axis=(1, 2))
    gains = {}
    for i, candidate in enumerate(candidates):
        if i in taken:
            continue
        gain, chance, _ = equations.gain(optimum, columns[i])
        if gain < SHADOW * max(taken.values(), default=0.0):
            continue
        tries = len(candidates) * (MOST_CHANGES if candidate.start else 1)
        size = coordinates[candidate.view] if candidate.view >= 0 else coordinates.sum()
        if (chance < CHANCE / tries or gain > MOST_OF_IT * unexplained) and gain > LEAST_GAIN * size:
            gains[i] = gain
    if not gains:
        return None
    best = max(gains, key=gains.__getitem__)
    alike = [
        candidates[i].view
        for i in gains
        if i != best
        and (candidates[i].kind, candidates[i].start > 0) == (candidates[best].kind, candidates[best].start > 0)
        and gains[i] > ALIKE * gains[best]
    ]
    return best, gains[best], tuple(alike)


def freedom(rig: CameraRig, options: BundleOptions) -> tuple[NDArray[np.bool_], Array]:
    """(views, 18) what an adjustment has free, the first camera fixed, and the precision of its priors."""
    free, precision = np.ones((len(rig), N), dtype=bool), np.zeros((len(rig), N))
    free[0, :6] = False
    for v, name in enumerate(rig.names):
        free[v, 6:] = np.asarray(options.free.get(name, False))
        if name in options.priors:
            precision[v, 6:] = np.where(free[v, 6:], 1.0 / np.asarray(options.priors[name][1]) ** 2, 0.0)
    return free, precision


def velocity(placed: Placed, frames: NDArray[np.int64]) -> Array:
    """(poses, corners, 3) world units a frame, from the same board a moment before and after; 0 where there is none."""
    out = np.zeros_like(placed.world)
    gap = np.diff(np.unique(frames)).min(initial=np.iinfo(np.int64).max)
    for board in np.unique(placed.board):
        rows = np.flatnonzero(placed.board == board)
        for i in range(len(rows)):
            near = rows[max(i - 1, 0) : i + 2]
            near = near[np.abs(frames[near] - frames[rows[i]]) <= gap]
            if len(near) > 1:
                span = frames[near[-1]] - frames[near[0]]
                out[rows[i]] = (placed.world[near[-1]] - placed.world[near[0]]) / span
    return out


def _delays(placed: Placed, frames: NDArray[np.int64]) -> list[Mistake]:
    """Every camera may be late; one frame late, a camera shows where the board was a frame ago."""
    speed = velocity(placed, frames)
    views = len(placed.rig)
    if views < 2 or not np.nanmax(np.abs(speed), initial=0.0) > 0:
        return []
    return [_of_view("delay", v, 0, -_by_world(placed, v, speed)[..., None], views) for v in range(views)]


def _shutters(placed: Placed, frames: NDArray[np.int64]) -> list[Mistake]:
    """Every camera may take the rows of a picture one after the other, within one frame: the lower ones later."""
    speed = velocity(placed, frames)
    views = len(placed.rig)
    if views < 2 or not np.nanmax(np.abs(speed), initial=0.0) > 0:
        return []
    below = [(placed.xy[v, ..., 1] + 0.5) / camera.intrinsics.size[1] - 0.5 for v, camera in enumerate(placed.rig)]
    columns = [(_by_world(placed, v, speed) * below[v][..., None])[..., None] for v in range(views)]
    return [_of_view("shutter", v, 0, columns[v], views) for v in range(views)]


def _changes(fit: Linearised, free: NDArray[np.bool_], precision: Array, delays: Sequence[Mistake]) -> list[Mistake]:
    """Each camera in another place, or late, from its most telling board on."""
    placed, changes = fit.placed, []
    views = len(placed.rig)
    base = normals(fit, free, precision, [])
    step, covariance = base.solved(base.base)
    late = {delay.view: delay(delay.view) for delay in delays}
    for v in range(views if views > 1 else 0):
        there = np.flatnonzero(placed.seen[v].any(axis=1))
        if len(there) < 2 * LEAST_SIDE:
            continue
        tried = there[LEAST_SIDE : len(there) - LEAST_SIDE + 1]
        tried = tried[np.linspace(0, len(tried) - 1, min(MOST_CHANGES, len(tried))).round().astype(int)]
        total, dof = fit.disagreement(v)
        excess = np.maximum(total - dof, 0.0)
        ways = [("move", camera_columns(placed, v)[..., :6])]
        ways += [("delay", late[v])] if v in late else []
        for kind, columns in ways:
            parts = fit.by_pose(v, fit.over_noise(v, columns))
            gradient, own, rows = (np.cumsum(part[::-1], axis=0)[::-1][tried] for part in parts)
            score = gradient + rows @ step
            curvature = own - rows @ covariance @ rows.transpose(0, 2, 1)
            size = np.einsum("tii->ti", own)
            curvature += (1e-9 * size + (size <= 0))[:, :, None] * np.eye(own.shape[1])
            gain = np.einsum("ti,ti->t", score, np.linalg.solve(curvature, score[..., None])[..., 0])
            start = int(tried[np.argmax(gain)])
            sides = [excess[there[there < start]], excess[there[there >= start]]]
            fewer = min(sides, key=len)
            if fewer.max() > ODD_BOARD * max(fewer.sum(), gain.max()):
                continue
            later = np.where(np.arange(len(columns)) >= start, 1.0, 0.0)[:, None, None, None]
            changes.append(_of_view(kind, v, start, columns * later, views))
    return changes


def board_shape(placed: Placed, board: int) -> Mistake:
    """A board that is not as described: its rows farther apart than columns, skewed, and bent."""
    mine = placed.board == board
    first = int(np.argmax(mine))
    local = (placed.world[first] - placed.t[first]) @ placed.R[first]
    warp = np.nan_to_num(shape_directions(local))
    world = np.where(mine[:, None, None, None], np.einsum("pij,cjk->pcik", placed.R, warp), 0.0)
    return _of_boards("shape", placed, world)


def _backs(placed: Placed) -> list[Mistake]:
    """Of every board with two sides: its back elsewhere, by a shift along the axes of the board."""
    moved = [(placed.board == b)[:, None] & np.isfinite(placed.world[..., 0]) for b in np.unique(placed.board)]
    moved = [mine & (placed.side == 1) for mine in moved]
    return [_of_boards("back", placed, placed.R[:, None] * m[..., None, None]) for m in moved if m.any()]


def _of_boards(kind: str, placed: Placed, world: Array) -> Mistake:
    """world: (poses, corners, 3, k) where corners move with each of k parameters."""
    parts = tuple(
        np.nan_to_num(np.stack([_by_world(placed, v, world[..., k]) for k in range(world.shape[-1])], axis=-1))
        for v in range(len(placed.rig))
    )
    return Mistake(kind, -1, 0, parts)


def shape_directions(points: Array) -> Array:
    """(n, 3, 5) how corners (n, 3) in their board's frame, NaN = another board's, move with five numbers: y by y, x by
    y, and z by the second-order terms of x and y, over the board's size."""
    away = points - np.nanmean(points, axis=0)
    size = np.nanmax(np.linalg.norm(away, axis=-1))
    x, y = away[:, 0], away[:, 1]
    zero = np.zeros_like(x)
    along = [(zero, y, zero), (y, zero, zero)]
    along += [(zero, zero, bend) for bend in (x * x / size, x * y / size, y * y / size)]
    return np.stack([np.stack(column, axis=-1) for column in along], axis=-1)


def _lenses(placed: Placed, given: Sequence[int]) -> list[Mistake]:
    """Other intrinsics than the given ones, those that a lens of this kind has."""
    lenses = []
    for v in given:
        camera = placed.rig.cameras[v]
        J = project_jacobian(apply(camera.R, camera.t, placed.world), camera.intrinsics)[2]
        lenses.append(_of_view("lens", v, 0, J[..., free_parameters(camera.intrinsics)], len(placed.rig)))
    return lenses


def _of_view(kind: str, view: int, start: int, J: Array, views: int) -> Mistake:
    return Mistake(kind, view, start, tuple(np.nan_to_num(J) if v == view else None for v in range(views)))


def _by_world(placed: Placed, view: int, shift: Array) -> Array:
    """(poses, corners, 2) px a shift (poses, corners, 3) of the board in the world makes in a view."""
    camera = placed.rig.cameras[view]
    J = project_jacobian(apply(camera.R, camera.t, placed.world), camera.intrinsics)[1] @ camera.R
    return np.einsum("pcij,pcj->pci", J, shift)


def _effect(mistake: Mistake, value: Array, placed: Placed) -> float:
    """px rms of the corners that it shifts."""
    moved = []
    for v, part in enumerate(mistake.columns):
        if part is not None:
            used = placed.seen[v].copy()
            used[: mistake.start] = False
            moved.append((part @ value)[used])
    squared = (np.concatenate(moved) ** 2).sum(axis=-1)
    return float(np.sqrt(np.nanmean(squared))) if len(squared) else 0.0


def _without(placed: Placed, candidates: Sequence[Mistake], columns: list[NDArray[np.intp]], step: Array) -> Placed:
    """The measurements as they were without the mistakes, and as the cameras at the new optimum would fit them."""
    xy = placed.xy.copy()
    for v in range(len(placed.rig)):
        shift = camera_columns(placed, v) @ step[N * v : N * v + N]
        for candidate, own in zip(candidates, columns, strict=True):
            if step[own].any() and candidate.columns[v] is not None:
                shift += candidate(v) @ step[own]
        xy[v] -= shift
    return replace(placed, xy=xy)
