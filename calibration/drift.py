"""Does the rig still hold? One recording's points tell which camera moved, when, and where it stands now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2
from scipy.stats import f as f_distribution

from calibration.camera import Camera
from calibration.drift_report import DriftReport, MovedCamera
from calibration.errors import InputError
from calibration.evidence import N_POSE, Evidence, Observations, gather_evidence, observe, pixel_costs
from calibration.exchanged import exchanged_names
from calibration.hypotheses import (
    Term,
    Verdict,
    any_pose,
    best_profile,
    bias_variance,
    dispersion,
    estimated_biases,
    judge,
    judge_bias,
    move_of,
    tempered,
    turn_and_shift,
)
from calibration.rig import RIG_PARAMETERS, CameraRig
from calibration.transforms import exp_so3

__all__ = ["DriftOptions", "check_rig"]

Floats = NDArray[np.float64]

LEAST_STRETCHES, STRETCH_FRAMES, LEAST_FRAMES = 12, 25, 60
"""Stretches that a change is sought with at least, frames of one where there are enough, frames below which none is."""
EDGE = 2
"""Stretches at either end of a recording in which no change can be told from chance."""
FEW, DOUBT = 0.1, 100.0
"""Share of the stretches; of a change with fewer before or after it chance is taken to be so much more likely: of the
scatter of so few little is known."""
MOST_POINTS = 36_000
"""Points that are looked at, in evenly spaced frames: more say hardly more, since neighbouring ones err alike."""
ROUNDS = 3
"""How often a move is found anew from where it was found to be."""
SETTLED = 0.01
"""Probability of a move, once it was found anew from where it leads to, above which it is dropped again."""
LEAST_FREE = 6
"""Differences of biases below which a constant error cannot be told from them."""


@dataclass(frozen=True)
class DriftOptions:
    """false_alarm: probability of one, over all cameras and moments. least_px: moves that shift the camera's pixels by
    less, rms over its points, are not spoken of. stretches: of time, at most, whose scatter tells chance from change.
    pivot: how far from its centre a camera turns when it is nudged (SD), as a share of its distance from the points;
    what the points say outweighs it."""

    false_alarm: float = 1e-4
    least_px: float = 1.0
    stretches: int = 40
    pivot: float = 0.1


def check_rig(
    rig: CameraRig,
    xy: ArrayLike,
    covariance: ArrayLike | None = None,
    options: DriftOptions | None = None,
    *,
    kind: ArrayLike | None = None,
) -> DriftReport:
    """Whether the cameras stand where the rig says, by points that they saw; which does not, and from which frame on.

    xy: (views, frames, points, 2) px, views in the rig's order, NaN = missing; frames in order of time, also of several
    recordings. covariance (views, frames, points, 2, 2) px squared, used up to a common factor. kind (points,): points
    of one kind (a keypoint of several animals) have the same bias in a view; default every point its own.

    A change during the recording stands out from what is constant: biases of the points, of which every view has its
    own, and errors of the calibration. A camera that was off all the time is told from biases only because it shifts
    all kinds of points together, so it takes more to be found; the rig's covariance counts as expected.
    Raises InputError for a wrong shape, when no point is seen by two cameras, or two have each other's name.
    """
    options = options or DriftOptions()
    told = _checked(rig, xy, covariance, kind)
    pixels = told[0].xy
    if wrong := exchanged_names(rig, pixels.reshape(len(rig), -1, 2)):
        raise InputError(
            f"cameras '{wrong[0]}' and '{wrong[1]}': their points fit the rig once these two names are exchanged; "
            "correct the names in the calibration, or in the recording"
        )
    search = _Search(rig, options, *told)
    search.find_changes()
    search.find_constant()
    return search.report()


def _checked(
    rig: CameraRig, xy: ArrayLike, covariance: ArrayLike | None, kind: ArrayLike | None
) -> tuple[Observations, NDArray[np.intp], int]:
    """Observations of the frames looked at, the numbers (rows of xy) of these frames, and how many there were."""
    xy = np.asarray(xy, dtype=np.float64)
    if xy.ndim != 4 or xy.shape[0] != len(rig) or xy.shape[3] != 2:
        raise InputError(f"check_rig: expected xy ({len(rig)} views, frames, points, 2), got {xy.shape}")
    if covariance is not None and np.shape(covariance) != (*xy.shape, 2):
        raise InputError(f"check_rig: expected covariance {(*xy.shape, 2)}, got {np.shape(covariance)}")
    kinds = np.arange(xy.shape[2]) if kind is None else np.unique(np.asarray(kind), return_inverse=True)[1].ravel()
    if len(kinds) != xy.shape[2]:
        raise InputError(f"check_rig: expected the kind of {xy.shape[2]} points, got {len(kinds)}")
    common = np.isfinite(xy).all(axis=-1).sum(axis=0) >= 2
    rows = np.flatnonzero(common.any(axis=1))
    if not len(rows):
        raise InputError(
            "check_rig: expected points seen by at least two cameras at once, got none; check that these cameras look "
            "at one scene and that their frames belong together"
        )
    rows = rows[:: max(1, -(-int(common.sum()) // MOST_POINTS))]
    spread = None if covariance is None else np.asarray(covariance, dtype=np.float64)[:, rows]
    return observe(rig, xy[:, rows], spread, kinds), rows, xy.shape[1]


@dataclass(eq=False)
class _Move:
    """One camera's move: turn and shift as in `move_of`, since a row of the observations (0: all the time)."""

    view: int
    since: int
    move: Floats = field(default_factory=lambda: np.zeros(6))
    covariance: Floats = field(default_factory=lambda: np.zeros((6, 6)))
    pixels: float = 0.0
    p: float = 1.0
    others: tuple[str, ...] = ()
    constant: bool = False


class _Search:
    """The moves found so far, and the evidence gathered with them taken into account."""

    def __init__(
        self, rig: CameraRig, options: DriftOptions, observations: Observations, rows: NDArray[np.intp], frames: int
    ) -> None:
        self.rig, self.options, self.observations, self.rows, self.frames = rig, options, observations, rows, frames
        self.views, self.n = len(rig), observations.xy.shape[1]
        self.moves: list[_Move] = []
        self.notes: list[str] = []
        self.weakest = np.full(self.views, np.nan)
        self.look()

    def look(self) -> None:
        """Gather the evidence anew, stretch by stretch, about the rig with the moves found so far."""
        changes = sorted({0, self.n, *(m.since for m in self.moves)})
        wanted = min(self.options.stretches, max(LEAST_STRETCHES, self.n // STRETCH_FRAMES), self.n)
        parts = [np.linspace(a, b, max(1, round(wanted * (b - a) / self.n)) + 1)[:-1] for a, b in pairwise(changes)]
        self.borders = np.append(np.concatenate(parts), self.n).round().astype(np.intp)
        rigs = {row: self.rig_at(row) for row in changes[:-1]}
        self.rigs = [rigs[changes[np.searchsorted(changes, row, side="right") - 1]] for row in self.borders[:-1]]
        self.evidence = gather_evidence(self.rigs, self.borders, self.observations)
        self.free = any_pose(self.rig, self.evidence.shift, len(self.borders) - 1)
        bias = bias_variance(self.evidence, self.terms(), self.observations.noise_px**2)
        factor = dispersion(self.evidence, self.terms(), bias)
        self.bias = bias_variance(tempered(self.evidence, factor), self.terms(), bias)

    def rig_at(self, row: int, without: _Move | None = None) -> CameraRig:
        """The rig in this row, by the moves found so far."""
        cameras = list(self.rig.cameras)
        for move in sorted(self.moves, key=lambda m: (not m.constant, m.since)):
            if move.since <= row and move is not without:
                cameras[move.view] = moved_camera(cameras[move.view], move.move)
        return CameraRig(tuple(cameras), self.rig.unit)

    def term(self, move: _Move, parameters: int = N_POSE) -> Term:
        """The move as a hypothesis."""
        t = self.rig_at(move.since).cameras[move.view].t
        return move_of(move.view, self.views, t, (self.borders[:-1] >= move.since).astype(float), parameters)

    def terms(self, without: _Move | None = None) -> list[Term]:
        """Nuisance of a change: constant errors of all poses, and the other changes."""
        return [self.free, *(self.term(m) for m in self.moves if m is not without and not m.constant)]

    def find_changes(self) -> None:
        """Take in one change after the other, the surest first, until none is left that chance could not make."""
        if self.n < LEAST_FRAMES:
            self.notes.append(
                f"only {self.n} frames have points that two cameras see; a change in their course is sought in "
                f"{LEAST_FRAMES} or more"
            )
            return
        for _ in range(2 * self.views):
            stretches = len(self.borders) - 1
            starts = np.arange(EDGE, stretches - EDGE + 1)
            profiles = (np.arange(stretches) >= starts[:, None]).astype(float)
            found = []
            for view in range(self.views):
                whole = move_of(view, self.views, self.rig.cameras[view].t, np.ones(stretches))
                best, _ = best_profile(self.evidence, self.terms(), self.bias, whole, profiles)
                tested = replace(whole, profile=profiles[best])
                verdict = judge(self.evidence, self.terms(), self.bias, tested)
                if min(starts[best], stretches - starts[best]) < FEW * stretches:
                    verdict = replace(verdict, p=verdict.p * DOUBT)
                found.append((verdict, _Move(view, int(self.borders[starts[best]]))))
                if not self.moves:
                    middle = replace(whole, profile=profiles[len(starts) // 2])
                    self.weakest[view] = self.smallest_turn(view, judge(self.evidence, self.terms(), self.bias, middle))
            if not self.take_in(found, self.views * len(starts)):
                return

    def find_constant(self) -> None:
        """Take in cameras that were off all the time, or before the first change."""
        kinds = int(self.observations.kind.max()) + 1
        free = kinds * (2 * self.views - 3) - (6 * self.views - 7)
        if free < LEAST_FREE:
            self.notes.append(
                f"{kinds} kinds of points in {self.views} views are too few to tell a camera that was off from the "
                "first frame on from points that are marked in different places in different views; film the board"
            )
            return
        for _ in range(self.views):
            moves = [_Move(view, 0, constant=True) for view in range(self.views)]
            found = [(self.judge_constant(move, free), move) for move in moves]
            if not self.take_in(found, self.views, free):
                return

    def against_biases(self, move: _Move) -> tuple[Evidence, list[Term], Term]:
        """What a constant move is judged by: the evidence in units of its scatter, nuisance (the calibration's own
        uncertainty and the other moves), and the move."""
        factor = dispersion(self.evidence, self.terms(), self.bias)
        known, parameters = self.rig.covariance, N_POSE if self.rig.covariance is None else len(RIG_PARAMETERS)
        terms = [self.term(m, parameters) for m in self.moves if m is not move]
        if known is None:
            return tempered(self.evidence, factor), terms, self.term(move)
        evidence = gather_evidence(self.rigs, self.borders, self.observations, parameters)
        values, vectors = np.linalg.eigh(known)
        kept = values > 1e-12 * values[-1]
        columns = vectors[:, kept] * np.sqrt(values[kept])
        terms.append(Term(columns, np.ones(len(self.rigs)), np.ones(columns.shape[1])))
        return tempered(evidence, factor), terms, self.term(move, parameters)

    def judge_constant(self, move: _Move, free: int) -> Verdict:
        """A constant move against biases and the calibration's own uncertainty."""
        evidence, terms, tested = self.against_biases(move)
        return judge_bias(evidence, terms, self.bias, tested, free)

    def began(self, move: _Move, verdict: Verdict) -> bool:
        """Whether a move that was found as constant is a change, which explains more than the choice of its moment
        could by chance; it becomes one then."""
        stretches = len(self.rigs)
        if self.n < LEAST_FRAMES:
            return False
        starts = np.arange(EDGE, stretches - EDGE + 1)
        evidence, terms, tested = self.against_biases(move)
        profiles = (np.arange(stretches) >= starts[:, None]).astype(float)
        best, gain = best_profile(evidence, terms, self.bias, tested, profiles)
        if gain > verdict.gain + 2 * np.log(stretches):
            move.since, move.constant = int(self.borders[starts[best]]), False
        return not move.constant

    def take_in(self, found: Sequence[tuple[Verdict, _Move]], tests: int, free: int = 0) -> bool:
        """Whether the surest of the moves is sure and large enough; it is then found anew from where it leads to."""
        sure = [(v, m) for v, m in found if v.p * tests <= self.options.false_alarm]
        if not sure:
            return False
        verdict, move = max(sure, key=lambda pair: pair[0].gain)
        if self.pixels(move, verdict.step) < self.options.least_px:
            return False
        move.p = min(verdict.p * tests, 1.0)
        scale = dispersion(self.evidence, self.terms(), self.bias)
        least = verdict.gain - 2 * scale * np.log(1 / self.options.false_alarm)
        move.others = tuple(self.rig.names[m.view] for v, m in found if m is not move and v.gain > least)
        if move.constant and self.began(move, verdict):
            verdict = judge(self.evidence, self.terms(), self.bias, self.term(move))
        self.moves.append(move)
        self.update(move, verdict)
        for number in range(ROUNDS):
            if number and not move.constant:
                self.locate(move)
            self.look()
            for each in self.moves:
                if each.constant:
                    verdict = self.judge_constant(each, max(free, LEAST_FREE))
                else:
                    verdict = judge(self.evidence, self.terms(each), self.bias, self.term(each))
                self.update(each, verdict)
        left = move.move @ np.linalg.solve(move.covariance, move.move)
        if left < chi2.isf(SETTLED, N_POSE) or move.pixels < self.options.least_px:
            self.moves.remove(move)  # where it led to, little of it was left
            self.look()
            return False
        return True

    def update(self, move: _Move, verdict: Verdict) -> None:
        """The move and its covariance, from a further step that the evidence asks for, and the pivot's prior: of a turn
        about a place near the camera, or where that does not go with the evidence, of any move of this size."""
        wanted: Floats = np.asarray(move.move + verdict.step)
        pixels = max(self.pixels(move, wanted), self.options.least_px)
        per_length = np.trace(self.evidence.shift[move.view, 3:, 3:]) / 2
        for pivot in (self.options.pivot, 1.0):
            prior = np.zeros((N_POSE, N_POSE))
            prior[3:, 3:] = np.eye(3) * per_length / (pivot * pixels) ** 2
            total = verdict.information + prior
            found: Floats = np.asarray(np.linalg.solve(total, verdict.information @ wanted))
            conflict = (wanted - found) @ verdict.information @ (wanted - found) + found @ prior @ found
            if f_distribution.sf(conflict / 3, 3, max(len(self.rigs) - N_POSE, N_POSE)) > self.options.false_alarm:
                break
        move.move, move.pixels = found, self.pixels(move, found)
        move.covariance = np.asarray(np.linalg.inv(total), dtype=np.float64)

    def pixels(self, move: _Move, step: Floats) -> float:
        """px, rms over a camera's points, that such a move shifts them by."""
        step = turn_and_shift(self.rig_at(move.since).cameras[move.view].t) @ step
        return float(np.sqrt(max(step @ self.evidence.shift[move.view] @ step, 0.0)))

    def smallest_turn(self, view: int, verdict: Verdict) -> float:
        """Degrees: a turn about an axis of no particular direction, as judged, that would just be found."""
        stretches = len(self.rigs)
        free = stretches - N_POSE
        p = self.options.false_alarm / (self.views * stretches)
        least = f_distribution.isf(p, N_POSE, free) * N_POSE * (stretches - 1) / free
        columns = turn_and_shift(self.rig.cameras[view].t)[:, :3]
        shown = np.trace(columns.T @ self.evidence.shift[view] @ columns) / self.options.least_px**2
        told = max(min(np.trace(verdict.information[:3, :3]) / least, shown), np.finfo(float).tiny)
        return float(np.rad2deg(np.sqrt(3 / told)))

    def locate(self, move: _Move) -> None:
        """The row from which on the moved camera agrees better, near the stretch border at which it was found."""
        near = np.argmin(np.abs(self.borders - move.since))
        first, last = (int(self.borders[np.clip(near + k * EDGE, 0, len(self.borders) - 1)]) for k in (-1, 1))
        others = [m.since for m in self.moves if m is not move and not m.constant]
        first = max([first, *(s for s in others if s < move.since)])
        last = min([last, *(s for s in others if s > move.since)])
        part = slice(first, last)
        bias = estimated_biases(self.evidence, self.terms()[1:], self.bias)
        told = replace(self.observations, xy=self.observations.xy - bias[:, None, self.observations.kind])
        before = pixel_costs(self.rig_at(move.since, without=move), told, part)
        after = pixel_costs(self.rig_at(move.since), told, part)
        better = np.append(np.cumsum((before - after)[::-1])[::-1], 0.0)
        move.since = first + int(np.clip(np.argmax(better), 1, last - first - 1))

    def report(self) -> DriftReport:
        """What was found, in the frames of the recording."""
        cameras = []
        for move in sorted(self.moves, key=lambda m: (not m.constant, m.since)):
            camera = self.rig_at(move.since).cameras[move.view]
            to_pose = turn_and_shift(camera.t)
            since = None if move.constant else int(self.rows[move.since])
            cameras.append(
                MovedCamera(
                    name=camera.name, since=since, others=move.others, p=move.p, moved_px=move.pixels,
                    turn_deg=float(np.rad2deg(np.linalg.norm(move.move[:3]))),
                    turn_sd_deg=float(np.rad2deg(np.sqrt(np.trace(move.covariance[:3, :3])))),
                    shift=float(np.linalg.norm(move.move[3:])),
                    shift_sd=float(np.sqrt(np.trace(move.covariance[3:, 3:]))),
                    camera=camera, covariance=to_pose @ move.covariance @ to_pose.T,
                )
            )  # fmt: skip
        return DriftReport(
            names=self.rig.names, unit=self.rig.unit, cameras=tuple(cameras), n_frames=self.frames,
            frames_used=self.n, noise_px=self.observations.noise_px, bias_px=float(np.sqrt(self.bias)),
            smallest_turn_deg=tuple(float(turn) for turn in self.weakest), notes=tuple(self.notes),
        )  # fmt: skip


def moved_camera(camera: Camera, move: Floats) -> Camera:
    """A camera after a move (6,): x_cam becomes exp(turn) x_cam + shift."""
    R = exp_so3(move[:3])
    return replace(camera, R=R @ camera.R, t=R @ camera.t + move[3:])
