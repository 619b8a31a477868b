"""Which intrinsics does this footage determine, and how well? The spread of every parameter over parts of the footage.

The covariance of a fit trusts its residuals to be independent. Corners of one image share blur, a bent board and a
wrong moment, so it is far too small on real footage. Here blocks of consecutive frames are left out in turn (Efron
1982, The Jackknife; Quenouille's blocks), which also sees errors that are common to a block.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calibration.bundle import BundleOptions, BundleResult, board_systems
from calibration.rig import RIG_PARAMETERS
from calibration.solver import loss_weight, schur_reduced

if TYPE_CHECKING:
    from calibration.board import BoardDetections

__all__ = ["LEAST_BLOCKS", "N_BLOCKS", "Spread", "clock_spread", "corner_losses", "corner_noise", "intrinsic_spread"]

Array = NDArray[np.float64]

N_BLOCKS = 10
"""Blocks of consecutive frames that are left out in turn."""
LEAST_BLOCKS = 3
CLEARLY = 2.0
"""Ratio of two standard deviations, one of ten blocks, that chance exceeds once in ten thousand times."""
UNPLACED_SIGMAS = 10.0
N_POSE = 6
SMALLEST_EIGENVALUE = 1e-12
"""Relative to the parameters' own scale; a direction below it is known to nobody and gets this much information."""


NORMAL_QUARTILE = 0.6745
"""Half of all values of a normal distribution are within this many standard deviations."""


@dataclass(frozen=True, eq=False)
class Spread:
    """Standard deviations (views, 12) over INTRINSIC_PARAMETERS, 0 where held.

    formal: from the normal equations, priors included, with the residuals' own variance. jackknife: over blocks of
    frames, inf where fewer than three blocks have a board. held_out: (blocks,) summed loss (rho, in squared sigmas) of
    each block's corners where the intrinsics are those of the other blocks and its boards are posed anew.
    """

    formal: Array
    jackknife: Array
    held_out: Array

    @property
    def larger(self) -> Array:
        """(views, 12) the formal one times how much larger the jackknife's typically is in that view (errors common to
        a block); the jackknife's own where it is larger than that by more than the chance of few blocks."""
        usual = np.zeros_like(self.formal)
        for own, formal, jackknife in zip(usual, self.formal, self.jackknife, strict=True):
            free = formal > 0
            if free.any():
                own[free] = formal[free] * max(1.0, float(np.median(jackknife[free] / formal[free])))
        return np.where(self.jackknife > CLEARLY * usual, self.jackknife, usual)


def intrinsic_spread(
    result: BundleResult, detections: BoardDetections, options: BundleOptions, n_blocks: int = N_BLOCKS
) -> Spread:
    """How far the intrinsics of an adjusted rig may be trusted.

    result: of `adjust_boards(..., detections, options)`. A block's absence moves the parameters by one Gauss-Newton
    step from the optimum, (S - S_block)^-1 g_block with board poses eliminated; the steps' scatter is the jackknife's.
    """
    views = len(result.rig)
    blocks = _Blocks.of(result, detections, options, n_blocks)
    formal = _expand(
        np.sqrt(result.variance * np.diagonal(_inverse(blocks.total, np.diagonal(blocks.total)))), blocks.free, views
    )
    losses = corner_losses(result.residuals, detections, options)
    cost = np.array([losses[frames].sum() for frames in blocks.frames])
    if len(blocks.frames) < LEAST_BLOCKS:
        return Spread(formal, np.where(formal > 0, np.inf, 0.0), cost)
    steps = blocks.steps()
    cost += [2 * g @ step + step @ H @ step for H, g, step in zip(blocks.H, blocks.g, steps, strict=True)]
    return Spread(formal, _expand(_jackknife(steps), blocks.free, views), cost)


def clock_spread(result: BundleResult, detections: BoardDetections, options: BundleOptions) -> Array:
    """(views, 2) standard deviations of clocks that were adjusted: the formal ones, or those over blocks of frames
    where these are larger by more than the chance of few blocks; inf where there are too few blocks, 0 where held."""
    blocks = _Blocks.of(result, detections, options, N_BLOCKS)
    few = len(blocks.frames) < LEAST_BLOCKS
    spread = np.zeros(len(blocks.free))
    spread[blocks.free] = np.inf if few else _jackknife(blocks.steps())
    spread = spread.reshape(len(result.rig), -1)[:, len(RIG_PARAMETERS) :]
    return np.where(spread > CLEARLY * result.clock_sigma, spread, result.clock_sigma)


@dataclass(frozen=True, eq=False)
class _Blocks:
    """Normal equations at an optimum, board poses eliminated, over the parameters that are free (a mask over all):
    total, with the priors; H, g: of the blocks, whose frames are given."""

    free: NDArray[np.bool_]
    total: Array
    H: list[Array]
    g: list[Array]
    frames: list[NDArray[np.intp]]

    @classmethod
    def of(cls, result: BundleResult, detections: BoardDetections, options: BundleOptions, n_blocks: int) -> _Blocks:
        seen = np.isfinite(detections.corners[..., 0]).any(axis=(0, 2))
        posed = np.flatnonzero(np.isfinite(result.board_t.reshape(len(result.board_t), -1)).any(axis=1))
        frames = np.array_split(np.flatnonzero(seen), min(n_blocks, len(posed)))
        data = replace(options, priors={})
        systems = board_systems(result.rig, result.board_R, result.board_t, detections, frames, data)
        parts = [schur_reduced(system) for system in systems]
        whole = np.sum([H for H, _ in parts], axis=0)
        free = np.diagonal(whole) > 0
        precision = np.zeros((len(result.rig), len(whole) // len(result.rig)))
        for name, (_, sigma) in options.priors.items():
            own = slice(N_POSE, len(RIG_PARAMETERS))
            precision[result.rig.index(name), own] = 1.0 / np.asarray(sigma, dtype=np.float64) ** 2
        total = (whole + np.diag(precision.ravel()))[np.ix_(free, free)]
        return cls(free, total, [H[np.ix_(free, free)] for H, _ in parts], [g[free] for _, g in parts], frames)

    def steps(self) -> Array:
        """(blocks, free) where the optimum goes without each block."""
        own = np.diagonal(self.total)
        return np.stack([_inverse(self.total - H, own) @ g for H, g in zip(self.H, self.g, strict=True)])


def _jackknife(steps: Array) -> Array:
    return np.asarray(np.sqrt((len(steps) - 1) / len(steps) * ((steps - steps.mean(axis=0)) ** 2).sum(axis=0)))


def corner_losses(residuals: Array, detections: BoardDetections, options: BundleOptions) -> Array:
    """(frames,) summed rho of residuals (views, frames, corners, 2), in squared sigmas; a measured corner that has no
    place in its image, or whose board has no pose, counts as `UNPLACED_SIGMAS` off."""
    squared = (residuals**2).sum(axis=-1) / detections.sigma**2
    squared = np.where(np.isfinite(squared), squared, UNPLACED_SIGMAS**2)
    seen = np.isfinite(detections.corners[..., 0])
    losses: Array = np.where(seen, loss_weight(squared, options.loss, options.scale)[0], 0.0).sum(axis=(0, 2))
    return losses


def corner_noise(residuals: Array, n_parameters: int = 0) -> float:
    """px, the scatter of one coordinate of the corners, from the median: misdetections do not count.

    residuals (..., 2), NaN where unseen; n_parameters: fitted to them. NaN where there is none.
    """
    size = np.abs(residuals[np.isfinite(residuals)])
    if not len(size):
        return float("nan")
    return float(np.median(size) / NORMAL_QUARTILE * np.sqrt(len(size) / max(len(size) - n_parameters, 1)))


def _inverse(matrix: Array, own: Array) -> Array:
    """Inverse of a symmetric matrix, its eigenvalues bounded from below relative to `own` (n,), its diagonal before
    anything was taken off."""
    scale = np.sqrt(np.maximum(own, np.finfo(float).tiny))
    values, vectors = np.linalg.eigh(matrix / np.outer(scale, scale))
    vectors = vectors / np.sqrt(np.maximum(values, SMALLEST_EIGENVALUE)) / scale[:, None]
    return vectors @ vectors.T


def _expand(values: Array, free: NDArray[np.bool_], views: int) -> Array:
    """Values of the free parameters -> (views, 12), 0 where held."""
    full = np.zeros(len(free))
    full[free] = values
    return full.reshape(views, len(RIG_PARAMETERS))[:, 6:]
