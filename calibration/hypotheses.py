"""Which camera, moved when, would explain what does not fit? Hypotheses put to the evidence, one camera at a time.

A hypothesis is a step of some rig parameters with a profile in time. It is judged by generalised least squares with
everything else that may be wrong as nuisance: biases of the points as random effects, and either any constant error of
all poses, or the calibration's own uncertainty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f as f_distribution

from calibration.evidence import N_POSE, Evidence
from calibration.rig import CameraRig, gauge_directions
from calibration.transforms import skew

__all__ = [
    "Term",
    "Verdict",
    "any_pose",
    "best_profile",
    "bias_variance",
    "dispersion",
    "estimated_biases",
    "judge",
    "judge_bias",
    "move_of",
    "tempered",
    "turn_and_shift",
]

Floats = NDArray[np.float64]

RANK = 1e-6
"""Directions of which the nuisance leaves less than this share of the information are not determined."""
FLAT = 1e-9
"""Precision of what is free, relative to what the data say of it: only there to fix the gauge."""
EM_ROUNDS = 10
LAGS = 2
"""Stretches over which what is left may hang together."""


@dataclass(frozen=True, eq=False)
class Term:
    """columns (18 V, m) of rig parameters that step together by m numbers; profile (B,) in time; precision (m,) of
    these numbers around 0, or None = free."""

    columns: Floats
    profile: Floats
    precision: Floats | None = None


@dataclass(frozen=True, eq=False)
class Verdict:
    """step (m,) of the term judged and its information (m, m), the inverse of its covariance, 0 where nothing is known;
    gain: how much less the squared misfit is, in variances of an observation; p: the probability of such a step by
    chance."""

    step: Floats
    information: Floats
    gain: float
    p: float


def move_of(view: int, views: int, t: Floats, profile: Floats, parameters: int = N_POSE) -> Term:
    """A turn (3) of one camera about its centre, rad, and a shift (3) of what it sees, both in its own axes: x_cam
    becomes exp(turn) x_cam + shift. t (3,): its world-to-camera translation. parameters: a camera, in the evidence."""
    columns = np.zeros((views, parameters, N_POSE))
    columns[view, :N_POSE] = turn_and_shift(t)
    return Term(columns.reshape(-1, N_POSE), profile)


def turn_and_shift(t: Floats) -> Floats:
    """(6, 6) how the first six of RIG_PARAMETERS change by a move, as in `move_of`."""
    out = np.eye(N_POSE)
    out[3:, :3] = -skew(t)
    return out


def any_pose(rig: CameraRig, shift: Floats, stretches: int) -> Term:
    """A constant error of all poses, free but for where the world is and how large. shift: as in `Evidence`."""
    scale = np.sqrt(np.maximum(np.einsum("vii->vi", shift).ravel(), np.finfo(float).tiny))
    world = gauge_directions(rig.packed())[:, :6].reshape(-1, 7)
    kept = np.linalg.qr(scale[:, None] * world, mode="complete")[0][:, 7:]
    return Term(kept / scale[:, None], np.ones(stretches))


def tempered(evidence: Evidence, factor: float) -> Evidence:
    """The evidence if all observations had `factor` times the variance that they were given."""
    parts = {name: getattr(evidence, name) / factor for name in ("H_rig", "g_rig", "H_bias", "g_bias", "H_cross")}
    return replace(evidence, **parts)


def bias_variance(evidence: Evidence, terms: Sequence[Term], start: float) -> float:
    """px squared, of one coordinate of a kind's bias in one view, by expectation and maximisation (Dempster et al.
    1977)."""
    variance = start
    for _ in range(EM_ROUNDS):
        system = _System(evidence, terms, variance)
        bias, spread = system.solution[system.n_rig :], np.diagonal(system.inverse)[system.n_rig :]
        variance = float(np.mean(bias**2 + spread))
    return variance


def estimated_biases(evidence: Evidence, terms: Sequence[Term], variance: float) -> Floats:
    """(V, K, 2) px of every kind of point in every view."""
    system = _System(evidence, terms, variance)
    kinds, C = evidence.g_bias.shape[1:]
    return np.asarray(system.solution[system.n_rig :].reshape(kinds, C // 2, 2).swapaxes(0, 1))


def dispersion(evidence: Evidence, terms: Sequence[Term], variance: float) -> float:
    """How much larger than expected the poses' gradients of single stretches are, squared, after a fit of the terms."""
    left, _ = _System(evidence, terms, variance).left()
    total, rank = 0.0, 0
    for b in range(len(left)):
        for first in range(0, left.shape[1], N_POSE):
            pose = slice(first, first + N_POSE)
            H = evidence.H_rig[b, pose, pose]
            white = _root(H, np.diagonal(H)).T @ left[b, pose]
            total, rank = total + float(white @ white), rank + len(white)
    return max(total / max(rank, 1), 1.0)


def best_profile(
    evidence: Evidence, terms: Sequence[Term], variance: float, tested: Term, profiles: Floats
) -> tuple[int, float]:
    """Which profile in time, of (n, B), lets a term explain most, and by how much less the squared misfit is then."""
    system = _System(evidence, terms, variance)
    gains: list[float] = []
    for profile in profiles:
        H, g, own = system.released(replace(tested, profile=profile))
        gains.append(float(np.sum((_root(H, own).T @ g) ** 2)))
    return int(np.argmax(gains)), max(gains)


def judge(evidence: Evidence, terms: Sequence[Term], variance: float, tested: Term) -> Verdict:
    """A term whose profile changes: its chi2 is in units of how much its estimate scatters from stretch to stretch
    (Hotelling's T squared of their contributions, with what neighbouring ones have in common)."""
    system = _System(evidence, [*terms, tested], variance)
    mine = system.at(len(terms))
    H = _inverse(system.inverse[mine, mine])
    root = _root(H, system.own[mine])
    found, rank = root.T @ H @ system.solution[mine], root.shape[1]
    if not rank:
        return Verdict(np.zeros(len(H)), np.zeros_like(H), 0.0, 1.0)
    parts, expected = _contributions(system, system.inverse[:, mine] @ H @ root)
    parts *= np.sqrt(rank / np.maximum(expected, np.finfo(float).tiny))[:, None]
    scatter = _scatter(parts[expected > 1e-6 * expected.max()])
    chi2, free = float(found @ np.linalg.solve(scatter, found)), len(parts) - rank
    p = f_distribution.sf(chi2 * free / ((len(parts) - 1) * rank), rank, free)
    weigh = H @ root
    return Verdict(root @ found, weigh @ np.linalg.solve(scatter, weigh.T), float(found @ found), float(p))


def judge_bias(evidence: Evidence, terms: Sequence[Term], variance: float, tested: Term, free: int) -> Verdict:
    """A term that is constant: against the biases' variance, which is known from so many `free` differences."""
    system = _System(evidence, terms, variance)
    H, g, own = system.released(tested)
    root = _root(H, own)
    found, rank = root.T @ g, root.shape[1]
    gain = float(found @ found)
    p = f_distribution.sf(gain / rank, rank, free) if rank else 1.0
    return Verdict(root @ found, H @ root @ root.T @ H, gain, float(p))


class _System:
    """The normal equations of nuisance terms and biases: inverse, solution (n_rig numbers, then the biases), own (n,)
    their diagonal."""

    def __init__(self, evidence: Evidence, terms: Sequence[Term], variance: float) -> None:
        self.evidence, self.terms = evidence, terms
        _, kinds, C = evidence.g_bias.shape
        self.columns = [term.columns for term in terms]
        self.profiles = np.array([term.profile for term in terms]).reshape(len(terms), len(evidence.g_rig))
        self.splits = np.cumsum([0, *(c.shape[1] for c in self.columns)])
        self.n_rig = int(self.splits[-1])
        n = self.n_rig + kinds * C
        H, g = np.zeros((n, n)), np.zeros(n)
        for i, term in enumerate(terms):
            cross, gradient = self._against(term)
            H[:, self.at(i)], g[self.at(i)] = cross, gradient
        H[: self.n_rig, self.n_rig :] = H[self.n_rig :, : self.n_rig].T
        bias = evidence.H_bias.sum(axis=0)
        for k in range(kinds):
            part = slice(self.n_rig + k * C, self.n_rig + (k + 1) * C)
            H[part, part] = bias[k] + np.eye(C) / variance
        g[self.n_rig :] = evidence.g_bias.sum(axis=0).ravel()
        for i, term in enumerate(terms):
            rows = np.arange(self.splits[i], self.splits[i + 1])
            H[rows, rows] += FLAT * np.diagonal(H)[rows] if term.precision is None else term.precision
        self.own = np.diagonal(H).copy()
        self.inverse = _inverse(H)
        self.solution = self.inverse @ g

    def at(self, i: int) -> slice:
        """The numbers of a term."""
        return slice(self.splits[i], self.splits[i + 1])

    def _against(self, term: Term) -> tuple[Floats, Floats]:
        """(n, m) second derivatives of a term with all nuisance, (m,) its gradient."""
        e = self.evidence
        H = (
            np.einsum("ib,baz->iaz", self.profiles * term.profile, e.H_rig @ term.columns)
            if len(self.columns)
            else None
        )
        rows = [self.columns[i].T @ H[i] for i in range(len(self.columns))] if H is not None else []
        bias = np.einsum("b,bkac->kca", term.profile, e.H_cross).reshape(-1, e.H_rig.shape[1]) @ term.columns
        return np.concatenate((*rows, bias)), term.columns.T @ (term.profile @ e.g_rig)

    def released(self, term: Term) -> tuple[Floats, Floats, Floats]:
        """H (m, m), g (m,) of a term with all nuisance eliminated; (m,) the diagonal of H before that."""
        cross, gradient = self._against(term)
        own = term.columns.T @ np.einsum("b,baz->az", term.profile**2, self.evidence.H_rig) @ term.columns
        return own - cross.T @ self.inverse @ cross, gradient - cross.T @ self.solution, np.diagonal(own)

    def spread(self, numbers: Floats) -> tuple[Floats, Floats]:
        """Numbers (n, ...) of all nuisance -> steps of the rig's parameters (B, 18 V, ...) and biases (K, C, ...)."""
        _, kinds, C = self.evidence.g_bias.shape
        rig = np.zeros((len(self.evidence.H_rig), self.evidence.H_rig.shape[1], *numbers.shape[1:]))
        for i, columns in enumerate(self.columns):
            rig += np.multiply.outer(self.profiles[i], columns @ numbers[self.at(i)])
        return rig, numbers[self.n_rig :].reshape(kinds, C, *numbers.shape[1:])

    def left(self) -> tuple[Floats, Floats]:
        """Gradients (B, A), (B, K, C) that the fit leaves, of every stretch."""
        by_rig, by_bias = self.pull(*(part[..., None] for part in self.spread(self.solution)))
        return self.evidence.g_rig - by_rig[..., 0], self.evidence.g_bias - by_bias[..., 0]

    def pull(self, rig: Floats, bias: Floats) -> tuple[Floats, Floats]:
        """Gradients (B, A, m), (B, K, C, m) that steps (B, A, m) of the rig and (K, C, m) of the biases cause."""
        e = self.evidence
        by_rig = e.H_rig @ rig + np.einsum("bkac,kcm->bam", e.H_cross, bias)
        return by_rig, np.einsum("bkcd,kdm->bkcm", e.H_bias, bias) + np.einsum("bkac,bam->bkcm", e.H_cross, rig)

    def collect(self, rig: Floats, bias: Floats) -> Floats:
        """Gradients (B, A, m), (B, K, C, m) of stretches -> (B, n, m) of the nuisance's numbers; the transpose of
        `spread`."""
        rows = [profile[:, None, None] * (c.T @ rig) for c, profile in zip(self.columns, self.profiles, strict=True)]
        return np.concatenate((*rows, bias.reshape(len(bias), -1, bias.shape[-1])), axis=1)


def _contributions(system: _System, weights: Floats) -> tuple[Floats, Floats]:
    """What every stretch adds, after the fit, to numbers of variance 1 that weigh all gradients by weights (n, m): (B,
    m), and how much of their summed variance is expected from there (B,), what the fit took off not counted."""
    rig, bias = system.spread(weights)
    left_rig, left_bias = system.left()
    parts = np.einsum("bam,ba->bm", rig, left_rig) + np.einsum("kcm,bkc->bm", bias, left_bias)
    by_rig, by_bias = system.pull(rig, bias)
    expected = np.einsum("bam,bam->b", rig, by_rig) + np.einsum("kcm,bkcm->b", bias, by_bias)
    gradients = system.collect(by_rig, by_bias)
    return parts, expected - np.einsum("bnm,bnm->b", gradients, system.inverse @ gradients)


def _scatter(white: Floats) -> Floats:
    """(m, m) variance of whitened contributions (B, m), those of up to LAGS stretches' distance taken together (Newey &
    West 1987) where that makes it larger, drawn a little to a multiple of the identity."""
    n, m = white.shape
    S = white.T @ white / n
    common = np.zeros_like(S)
    for lag in range(1, min(LAGS, n - 1) + 1):
        both = white[lag:].T @ white[:-lag] / n
        common += (1 - lag / (LAGS + 1)) * (both + both.T)
    S = S + common if np.trace(common) > 0 else S
    mean = max(float(np.trace(S)) / m, 1.0)
    return np.asarray((n * S + m * mean * np.eye(m)) / (n + m))


def _inverse(H: Floats) -> Floats:
    """Of a symmetric matrix whose rows have different units; 0 for what nothing is known of."""
    own = np.diagonal(H)
    scale = np.where(own > 0, 1.0 / np.sqrt(np.where(own > 0, own, 1.0)), 0.0)
    inverse = np.linalg.inv(H * scale[:, None] * scale + np.diag(np.where(own > 0, 0.0, 1.0)))
    return np.asarray(inverse * scale[:, None] * scale)


def _root(H: Floats, own: Floats) -> Floats:
    """(m, rank) whose product with its transpose is the inverse of H (m, m), on the directions that it determines; own
    (m,): its diagonal while all nuisance was held."""
    scale = 1.0 / np.sqrt(np.where(own > 0, own, np.inf))
    values, vectors = np.linalg.eigh(H * scale[:, None] * scale)
    kept = values > RANK
    return np.asarray(vectors[:, kept] / np.sqrt(values[kept]) * scale[:, None])
