"""Is an estimate as sure as it says? Errors against stated covariances, and against scores."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from pose3d.comparison import matched
from pose3d.poses import Poses

__all__ = ["CovarianceErrors", "ScoreBin", "evaluate_covariance", "evaluate_scores", "squared_deviations"]

Float = NDArray[np.float64]

LEVELS = (0.5, 0.9, 0.95, 0.99)
BINS = 5


@dataclass(frozen=True)
class CovarianceErrors:
    """Errors e of the n keypoints that truth and estimate hold, against the stated covariances C.

    inside: share within the ellipses (ellipsoids) that should hold 50, 90, 95, 99 %. nees_median: of e^T C^-1 e over
    the median of chi-square's distribution: 1 if C is right, whatever gross errors there are. nees_mean: the mean over
    its expectation, the number of coordinates. sd_median: median over keypoints of the stated SD per axis, in `unit`.
    keypoint_inside: share within the 95 % ellipse, by name. NaN where nothing is stated.
    """

    unit: str
    n: int
    inside: dict[str, float]
    nees_median: float
    nees_mean: float
    sd_median: float
    keypoint_inside: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class ScoreBin:
    """Keypoints with scores from low to high: how many, and the median and 95th percentile of their errors."""

    low: float
    high: float
    n: int
    median: float
    p95: float


def evaluate_covariance(truth: Poses, estimate: Poses) -> CovarianceErrors | None:
    """How the estimate's errors compare with its covariance (`covariance_total` where there is one, which holds the
    rig's part too; else `covariance`); None where it states none.

    Frames, keypoints and individuals meet as in `evaluate_pose`. Raises InputError when nothing can be compared.
    """
    true, found, _ = matched(truth, estimate)
    covariance = _stated(found)
    if covariance is None:
        return None
    nees = squared_deviations(true, found)
    known = ~np.isnan(nees)
    d = true.shape[3]
    within = np.asarray(nees <= chi2.ppf(0.95, d))
    inside = {f"{100 * level:g} %": _share(nees[known] <= chi2.ppf(level, d)) for level in LEVELS}
    sd = np.sqrt(np.trace(covariance[known], axis1=-2, axis2=-1) / d)
    return CovarianceErrors(
        true.unit, int(known.sum()), inside, _median(nees[known]) / float(chi2.median(d)),
        float(nees[known].mean()) / d if known.any() else float("nan"), _median(sd),
        {k: _share(within[..., i][known[..., i]]) for i, k in enumerate(true.skeleton.keypoints)},
    )  # fmt: skip


def squared_deviations(true: Poses, found: Poses) -> Float:
    """e^T C^-1 e (frames, individuals, keypoints) of errors e against their stated covariance C; NaN where none is
    stated, or not a positive one. Slots of both hold the same individuals, as `matched` brings them."""
    error, covariance = true.points - found.points, _stated(found)
    nees = np.full(error.shape[:-1], np.nan)
    if covariance is None:
        return nees
    known = np.asarray(np.isfinite(error).all(axis=-1) & np.isfinite(covariance).all(axis=(-1, -2)))
    known[known] = np.linalg.eigvalsh(covariance[known])[:, 0] > 0
    whitened = np.linalg.solve(covariance[known], error[known][..., None])[..., 0]
    nees[known] = np.einsum("ni,ni->n", error[known], whitened)
    return nees


def _stated(found: Poses) -> Float | None:
    """The covariance with the rig's part where it is known, else without it."""
    return found.extras.get("covariance_total", found.extras.get("covariance"))


def evaluate_scores(truth: Poses, estimate: Poses) -> tuple[ScoreBin, ...]:
    """Errors by score, in BINS parts of equally many keypoints, the lowest scores first: where scores mean something,
    errors fall from part to part. Empty where all scores are the same, or nothing is compared.

    Frames, keypoints and individuals meet as in `evaluate_pose`. Raises InputError when nothing can be compared.
    """
    true, found, _ = matched(truth, estimate)
    error = np.linalg.norm(true.points - found.points, axis=-1)
    known = np.isfinite(error) & np.isfinite(found.score)
    score, error = found.score[known], error[known]
    if len(score) < BINS or np.ptp(score) == 0:
        return ()
    order = np.argsort(score, kind="stable")
    return tuple(
        ScoreBin(float(score[part[0]]), float(score[part[-1]]), len(part), _median(error[part]),
                 float(np.percentile(error[part], 95)))
        for part in np.array_split(order, BINS)
    )  # fmt: skip


def _share(inside: NDArray[np.bool_]) -> float:
    return float(inside.mean()) if inside.size else float("nan")


def _median(values: Float) -> float:
    return float(np.median(values)) if values.size else float("nan")
