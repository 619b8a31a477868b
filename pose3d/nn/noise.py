"""How far off is what a network finds? What its maps state, and what held-out labels make of that. No torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pose3d.nn.network import Network

__all__ = ["calibrate_noise", "candidate_covariance", "stated_covariance"]

Float = NDArray[np.float64]

LEAST_PX = 0.01
"""Distances below are rounding: their logarithm would weigh without limit."""
CAUTION = 0.05
"""Ridge of the regression of log distance on doubt, so that little is learnt from few keypoints: the variance of the
logarithm of Rayleigh's distances, 0.64 squared, over that of slopes, of which 3 is usual."""
LEAST_CELLS = 0.05
"""SD of a candidate's place at least, in cells: no network is surer."""
UNKNOWN_CELLS = 0.5
"""SD of a candidate's place, in cells, where nothing was held out to measure it and the network does not state it."""
_SD = 1 / math.sqrt(2 * math.log(2))
"""SD per axis of a 2D Gaussian from its median distance: that follows Rayleigh's distribution."""
_LOG_MEDIAN = 0.5 / math.log(2) ** 2 / 2
"""Variance of the logarithm of the median of n Rayleigh distances, times n."""


def stated_covariance(noise: NDArray[np.float32], keypoint: NDArray[np.int32], cell: Float) -> Float:
    """(n, 2, 2) cells^2 as the maps (K, 3, H, W) of `PoseNet.forward` state it for keypoints (n,) at cells (n, 2) x, y;
    of maps without keypoints the unit matrix."""
    if not len(noise):
        return np.broadcast_to(np.eye(2), (len(keypoint), 2, 2)).copy()
    x, y = (np.clip(np.rint(cell[:, i]).astype(int), 0, noise.shape[3 - i] - 1) for i in (0, 1))
    p, q, r = noise[keypoint, :, y, x].astype(np.float64).T
    root = np.zeros((len(keypoint), 2, 2))  # the inverse of L, which is [[e^p, 0], [r, e^q]]
    root[:, 0, 0], root[:, 1, 1], root[:, 1, 0] = np.exp(-p), np.exp(-q), -r * np.exp(-p - q)
    return np.asarray(root.transpose(0, 2, 1) @ root)


def calibrate_noise(errors: Float, scores: Float) -> tuple[Float, float]:
    """sigma (keypoints,) and doubt of `Network`, from distances and scores (n, individuals, keypoints): px, or in units
    of what the network states.

    doubt: the slope of the logarithm of the distance against 1 - score, the same for all keypoints, by ridge regression
    over what was found, never negative. sigma: from the medians of what is left, with what was missed infinitely far,
    drawn towards their common mean by as much as chance scatters them (empirical Bayes; Efron and Morris 1973); NaN
    where that is more than half of them. Widened for what few frames leave open, so that 95 % ellipses hold 95 % of
    frames to come if a frame's errors tell as much as one error alone: they hang together.
    """
    found = np.isfinite(errors)
    log = np.log(np.where(found, np.maximum(errors, LEAST_PX), 1.0))
    doubts = np.where(found, 1 - scores, 0.0)
    count = np.maximum(found.sum(axis=(0, 1)), 1)
    away, apart = (np.where(found, a - a.sum(axis=(0, 1)) / count, 0.0) for a in (doubts, log))
    doubt = max(0.0, float((away * apart).sum()) / (float((away**2).sum()) + CAUTION))
    sigma, chance = np.full((2, errors.shape[2]), np.nan)
    for k, left in enumerate(np.moveaxis(errors / np.exp(doubt * doubts), 2, 0)):
        known = left[~np.isnan(left)]
        median = np.median(known) if known.size else np.inf
        if np.isfinite(median):
            sigma[k], chance[k] = _SD * max(float(median), LEAST_PX), _LOG_MEDIAN / known.size
    return _widening(int(found.any(axis=(1, 2)).sum())) * _drawn_together(sigma, chance), doubt


def _widening(frames: int) -> float:
    """Of SDs: the root of the 95 % quantile of twice F with 2 and 2 x frames degrees of freedom over that of
    chi-square with 2, both in closed form (Hotelling 1931)."""
    return math.sqrt(frames * (0.05 ** (-1 / frames) - 1) / -math.log(0.05)) if frames else 1.0


def _drawn_together(sigma: Float, chance: Float) -> Float:
    """Each logarithm drawn towards the mean of all, by the share of chance (variances) in their scatter."""
    known = np.isfinite(sigma)
    if known.sum() < 3:
        return sigma
    log, chance = np.log(sigma[known]), chance[known]
    true = max(0.0, float(log.var(ddof=1) - chance.mean()))
    mean = np.average(log, weights=1 / (true + chance))
    drawn = sigma.copy()
    drawn[known] = np.exp(mean + true / (true + chance) * (log - mean))
    return drawn


def candidate_covariance(stated: Float, keypoint: NDArray[np.int32], score: Float, network: Network) -> Float:
    """(n, 2, 2) px^2 of candidates: what their network states, (n, 2, 2) cells^2 (else the unit matrix), as far as
    held-out labels bear it out. Where a keypoint was not held out, the median of the others counts."""
    spec = network.spec
    cell_px = spec.stride / spec.scale
    known = network.sigma_px[np.isfinite(network.sigma_px)]
    unit, default = (cell_px, 1.0) if spec.unsure else (1.0, UNKNOWN_CELLS * cell_px)
    sigma = np.nan_to_num(network.sigma_px, nan=float(np.median(known)) if len(known) else default)
    sd = unit * sigma[keypoint] * np.exp(network.doubt * (1 - score))
    return np.asarray(stated * (sd**2)[:, None, None] + (LEAST_CELLS * cell_px) ** 2 * np.eye(2))
