"""How is a sum of squares made small when some of the measurements are wrong? Robust losses, damping, linear steps,
covariance.

`levenberg_marquardt` knows nothing about cameras: it asks for a cost with its normal equations and a way to solve
them. Two such ways are here: `schur` (many small blocks hang on a few shared parameters) and `banded` (a chain in
time).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve, cho_solve_banded, cholesky_banded

__all__ = [
    "LOSSES", "BandedSystem", "SchurSystem", "Solution", "SolverOptions", "banded", "banded_covariance",
    "levenberg_marquardt", "loss_weight", "m_estimator_variance", "robust", "schur", "schur_covariance",
    "schur_reduced", "updated_covariance",
]  # fmt: skip

Floats = NDArray[np.float64]
X = TypeVar("X")

LOSSES = ("linear", "huber", "soft_l1", "cauchy", "tukey")
"""Robust losses by name; the index is the code that `robust` takes in compiled code."""

MAX_DAMPING = 1e12
SMALLEST_EIGENVALUE = 1e-14


@njit(cache=True, error_model="numpy")
def robust(loss: int, squared: float, scale: float) -> tuple[float, float, float]:
    """rho, its first and its second derivative with respect to `squared`, for one squared residual (compiled).

    rho(s) = scale^2 r(s / scale^2) with r(z) as in scipy.optimize.least_squares: z (linear), 2 sqrt(z) - 1 beyond 1
    (huber), 2 (sqrt(1 + z) - 1) (soft_l1), log(1 + z) (cauchy); and Tukey's biweight (1 - (1 - z)^3) / 3, constant
    from z = 1 on. The first derivative is the weight of iteratively reweighted least squares: solving with it never
    raises the cost, since every rho is concave in `squared` (Huber 1981, section 7.8).
    """
    z = squared / (scale * scale)
    if loss == 1:
        if z <= 1.0:
            return squared, 1.0, 0.0
        return scale * scale * (2.0 * np.sqrt(z) - 1.0), z**-0.5, -0.5 * z**-1.5 / (scale * scale)
    if loss == 2:
        root = np.sqrt(1.0 + z)
        return 2.0 * scale * scale * (root - 1.0), 1.0 / root, -0.5 / (root**3 * scale * scale)
    if loss == 3:
        return scale * scale * np.log1p(z), 1.0 / (1.0 + z), -1.0 / ((1.0 + z) ** 2 * scale * scale)
    if loss == 4:
        if z >= 1.0:
            return scale * scale / 3.0, 0.0, 0.0
        return scale * scale / 3.0 * (1.0 - (1.0 - z) ** 3), (1.0 - z) ** 2, -2.0 * (1.0 - z) / (scale * scale)
    return squared, 1.0, 0.0


@njit(cache=True, error_model="numpy")
def _robust_all(loss: int, squared: Floats, scale: float, out: Floats) -> None:
    for i in range(len(squared)):
        out[0, i], out[1, i], out[2, i] = robust(loss, squared[i], scale)


def loss_weight(squared: ArrayLike, loss: str, scale: float = 1.0) -> tuple[Floats, Floats]:
    """rho and weight of every squared residual (...), in the units of `squared`. See `robust`; the cost is half the
    sum of rho."""
    squared = np.asarray(squared, dtype=np.float64)
    out = np.empty((3, squared.size))
    _robust_all(LOSSES.index(loss), squared.ravel(), float(scale), out)
    return out[0].reshape(squared.shape), out[1].reshape(squared.shape)


def m_estimator_variance(squared: Floats, loss: str, scale: float, n_parameters: int) -> float:
    """The factor that turns the inverse of the reweighted normal equations into a covariance, for residuals in pairs
    (x, y).

    squared (n,): squared lengths of the whitened residual pairs. With psi(r) = w(|r|^2) r the estimate has the
    covariance E[psi psi'] E[dpsi]^-2 (J'J)^-1 (Huber 1981, section 7.6) and the reweighted matrix is E[w] J'J; in two
    dimensions E[psi psi'] = E[w^2 s] / 2 and E[dpsi] = E[w + w' s]. Corrected by the degrees of freedom; for the
    linear loss it is the usual residual variance. 1 where residuals have the stated sigma and the loss leaves them
    alone.
    """
    squared = np.asarray(squared, dtype=np.float64)
    out = np.empty((3, squared.size))
    _robust_all(LOSSES.index(loss), squared, float(scale), out)
    _, weight, slope = out
    spread, gain = np.mean(weight**2 * squared) / 2, np.mean(weight + slope * squared)
    free = max(2 * squared.size - n_parameters, 1) / (2 * squared.size)
    return float(spread * weight.mean() / gain**2 / free)


@dataclass(frozen=True)
class SolverOptions:
    """max_iterations: steps tried. cost_tolerance: stop when a step promises less than this share of the cost.
    initial_damping: relative to the diagonal of the normal equations."""

    max_iterations: int = 100
    cost_tolerance: float = 1e-9
    initial_damping: float = 1e-3


@dataclass(frozen=True, eq=False)
class Solution:
    """x at the lowest cost found; converged is False when the iterations ran out or only tiny, heavily damped steps
    were left."""

    x: Any
    cost: float
    iterations: int
    converged: bool


def levenberg_marquardt(
    x: X,
    evaluate: Callable[[X], tuple[float, Any]],
    solve: Callable[[Any, float], tuple[Any, float]],
    retract: Callable[[X, Any], X],
    options: SolverOptions | None = None,
) -> Solution:
    """Minimise a cost by damped Gauss-Newton steps; the damping follows the gain ratio (Nielsen 1999, IMM-REP-1999-05).

    evaluate(x): half the sum of squares (of rho), inf where x is not allowed, and the normal equations there, in the
    form that `solve` wants. solve(system, damping): (step, predicted decrease). retract(x, step): the new x.
    """
    options = options or SolverOptions()
    damping, growth = options.initial_damping, 2.0
    value, system = evaluate(x)
    if not np.isfinite(value):
        raise ValueError("levenberg_marquardt: the cost of the start is not finite")
    first, converged, iteration = value, False, 0
    for iteration in range(1, options.max_iterations + 1):  # noqa: B007
        step, predicted = solve(system, damping)
        if predicted <= options.cost_tolerance * (value + np.finfo(float).eps * first):
            converged = damping <= 1.0
            break
        candidate = retract(x, step)
        new_value, new_system = evaluate(candidate)
        gain = (value - new_value) / predicted
        if gain > 0:
            x, value, system = candidate, new_value, new_system
            damping, growth = damping * max(1.0 / 3.0, 1.0 - (2.0 * gain - 1.0) ** 3), 2.0
        else:
            damping, growth = damping * growth, growth * 2.0
        if damping > MAX_DAMPING:
            break
    return Solution(x, value, iteration, converged)


@dataclass(frozen=True, eq=False)
class SchurSystem:
    """Normal equations of A shared parameters a and n independent blocks of b parameters each.

    H_aa (A, A), g_a (A,), H_bb (n, b, b), g_b (n, b), H_ab (n, A, b): second derivatives and gradients of the cost. A
    parameter that is held has zero rows and columns; its step is 0.
    """

    H_aa: Floats
    g_a: Floats
    H_bb: Floats
    g_b: Floats
    H_ab: Floats


def schur(system: SchurSystem, damping: float) -> tuple[tuple[Floats, Floats], float]:
    """Solve (H + damping diag(H)) step = -g by eliminating the blocks: ((step_a (A,), step_b (n, b)), predicted
    decrease)."""
    scale_a = _positive(np.diagonal(system.H_aa))
    scale_b = _positive(np.einsum("nii->ni", system.H_bb))
    blocks = _with_diagonal(system.H_bb, damping * scale_b)
    reduced, eliminated, inverse = _reduce(system, blocks)
    right = np.einsum("nba,nb->a", eliminated, system.g_b) - system.g_a
    reduced[np.diag_indices_from(reduced)] += damping * scale_a
    try:
        step_a = cho_solve(cho_factor(reduced, lower=True), right)
    except LinAlgError:  # only where the damping is too small for a gauge that nobody fixed, or nought for what is held
        step_a = np.linalg.lstsq(reduced, right, rcond=None)[0]
    step_b = -(inverse @ system.g_b[..., None])[..., 0] - eliminated @ step_a
    damped = damping * (np.sum(scale_a * step_a**2) + np.sum(scale_b * step_b**2))
    linear = np.sum(system.g_a * step_a) + np.sum(system.g_b * step_b)
    return (step_a, step_b), float(0.5 * (damped - linear))


def schur_covariance(system: SchurSystem) -> Floats:
    """(A, A) the shared parameters' block of H^-1: the covariance for residuals of variance 1. Held parameters: zeros.

    A direction that the data does not determine at all keeps a huge variance (the smallest eigenvalue is bounded from
    below, relative to the parameters' own scale), so it is not taken for well known.
    """
    reduced, _ = schur_reduced(system)
    free = np.flatnonzero(np.diagonal(system.H_aa) > 0)
    scale = np.sqrt(np.diagonal(system.H_aa)[free])
    values, vectors = np.linalg.eigh(reduced[np.ix_(free, free)] / np.outer(scale, scale))
    vectors = vectors / np.sqrt(np.maximum(values, SMALLEST_EIGENVALUE)) / scale[:, None]
    covariance = np.zeros_like(reduced)
    covariance[np.ix_(free, free)] = vectors @ vectors.T
    return covariance


def schur_reduced(system: SchurSystem) -> tuple[Floats, Floats]:
    """Normal equations (A, A) and gradient (A,) of the shared parameters alone, the blocks at their optimum. A block
    that its data leaves open in some direction stays where it is in that."""
    blocks = _with_diagonal(system.H_bb, SMALLEST_EIGENVALUE * _positive(np.einsum("nii->ni", system.H_bb)))
    reduced, eliminated, _ = _reduce(system, blocks)
    return reduced, system.g_a - np.einsum("nba,nb->a", eliminated, system.g_b)


def updated_covariance(H: Floats, covariance: Floats, free: NDArray[np.bool_]) -> Floats:
    """(P, P) covariance of parameters of which the free ones (P,) were found anew, by least squares with second
    derivatives H (P, P) for residuals of variance 1, with the others held at what is known of them, `covariance`."""
    scale = 1.0 / np.sqrt(_positive(np.diagonal(H)[free]))
    values, vectors = np.linalg.eigh(H[np.ix_(free, free)] * scale[:, None] * scale)
    vectors = vectors / np.sqrt(np.maximum(values, SMALLEST_EIGENVALUE)) * scale[:, None]
    inverse = vectors @ vectors.T
    follows = np.diag(np.where(free, 0.0, 1.0))
    follows[np.ix_(free, ~free)] = -inverse @ H[np.ix_(free, ~free)]
    out = follows @ covariance @ follows.T
    out[np.ix_(free, free)] += inverse
    return np.asarray(out)


def _reduce(system: SchurSystem, blocks: Floats) -> tuple[Floats, Floats, Floats]:
    """H_aa - sum H_ab B^-1 H_ba, B^-1 H_ba (n, b, A) and B^-1."""
    inverse = np.asarray(np.linalg.inv(blocks), dtype=np.float64)
    coupling = np.ascontiguousarray(system.H_ab.transpose(0, 2, 1))
    eliminated = inverse @ coupling
    n_shared = len(system.g_a)
    reduced = system.H_aa - coupling.reshape(-1, n_shared).T @ eliminated.reshape(-1, n_shared)
    return reduced, eliminated, inverse


def _with_diagonal(blocks: Floats, extra: Floats) -> Floats:
    out = blocks.copy()
    np.einsum("nii->ni", out)[...] += extra
    held = np.einsum("nii->ni", blocks) == 0
    np.einsum("nii->ni", out)[held] = 1.0
    return out


def _positive(diagonal: Floats) -> Floats:
    """The diagonal with 1 where a parameter is held."""
    return np.where(diagonal > 0, diagonal, 1.0)


@dataclass(frozen=True, eq=False)
class BandedSystem:
    """Normal equations with bands (u + 1, n), lower form: bands[i, j] = H[j + i, j]; gradient (n,). No zero on the
    diagonal."""

    bands: Floats
    gradient: Floats


def banded(system: BandedSystem, damping: float) -> tuple[Floats, float]:
    """Solve (H + damping diag(H)) step = -gradient in time linear in n: (step (n,), predicted decrease)."""
    bands = system.bands.copy(order="K")
    bands[0] *= 1.0 + damping
    factor = cholesky_banded(bands, overwrite_ab=True, lower=True, check_finite=False)
    step = -cho_solve_banded((factor, True), system.gradient, check_finite=False)
    damped = damping * np.sum(system.bands[0] * step**2)
    return step, float(0.5 * (damped - np.sum(system.gradient * step)))


def banded_covariance(system: BandedSystem, block: int) -> Floats:
    """(n / block, block, block) the diagonal blocks of H^-1, in time linear in n.

    Selected inversion (Takahashi, Fagan & Chin 1973) from the banded Cholesky factor: column j of the inverse follows
    from the columns j + 1 .. j + u, of which only a sliding window is kept.
    """
    factor = cholesky_banded(system.bands, lower=True, check_finite=False)
    out = np.zeros((factor.shape[1] // block, block, block))
    _selected_inverse(np.ascontiguousarray(factor.T), block, out)
    return out


@njit(cache=True, error_model="numpy")
def _selected_inverse(factor: Floats, block: int, out: Floats) -> None:
    """factor (n, u + 1): factor[j, i] = L[j + i, j]. The window (u, u) holds inverse[r, c] at [r mod u, c mod u]: the
    column that comes in takes the place of the one that leaves."""
    n, width = factor.shape
    u = max(width - 1, 1)
    window = np.zeros((u, u))
    column = np.zeros(u)
    for j in range(n - 1, -1, -1):
        reach = min(width - 1, n - 1 - j)
        column[:] = 0.0
        for i in range(1, reach + 1):
            ratio = factor[j, i] / factor[j, 0]
            if ratio != 0.0:
                row = window[(j + i) % u]
                for c in range(u):
                    column[c] -= ratio * row[c]
        diagonal = 1.0 / (factor[j, 0] * factor[j, 0])
        for i in range(1, reach + 1):
            diagonal -= factor[j, i] / factor[j, 0] * column[(j + i) % u]
        here = j % block
        out[j // block, here, here] = diagonal
        for i in range(1, min(block - here, reach + 1)):
            out[j // block, here, here + i] = out[j // block, here + i, here] = column[(j + i) % u]
        place = j % u
        for c in range(u):
            window[place, c] = column[c]
            window[c, place] = column[c]
        window[place, place] = diagonal
