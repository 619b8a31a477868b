"""How well are individuals found in images? Distances that count what was missed, OKS and its average precision."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.errors import InputError
from pose3d.comparison import animals_size, assigned, closeness, on_common_ground
from pose3d.poses import Poses

__all__ = ["DetectionErrors", "DetectionOptions", "evaluate_detections", "extent", "oks"]

Float = NDArray[np.float64]

OKS_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class DetectionOptions:
    """within: distance in px up to which a keypoint counts as right. kappa: of all keypoints, see `oks`. found: share
    of an individual's keypoints that the estimate matched to it must hold for it to be found."""

    within: float = 5.0
    kappa: float = 0.05
    found: float = 0.5


@dataclass(frozen=True)
class DetectionErrors:
    """2D estimates frame by frame, over the n keypoints that the truth holds; one that was missed is infinitely far.

    median: distance in px, infinite where more than half have no estimate. within: share no further than the options
    say. delivered: share with an estimate. all_found: share of frames in which every individual is matched to an
    estimate that holds enough of its keypoints; all_alike: to one whose OKS is at least 0.5. oks_map: mean average
    precision of the individuals over the OKS thresholds 0.5, 0.55, ..., 0.95 (COCO).
    """

    n: int
    median: float
    within: float
    delivered: float
    all_found: float
    all_alike: float
    oks_map: float

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return asdict(self)


def evaluate_detections(truth: Poses, estimate: Poses, options: DetectionOptions | None = None) -> DetectionErrors:
    """How well the individuals of each frame are found in 2D, whoever they are.

    Frames meet by number and keypoints by name; frames in which the truth holds nothing are left out. Individuals meet
    frame by frame, by the assignment that brings most keypoints closest. The average precisions are those of COCO's
    keypoint evaluation (pycocotools, `cocoeval.py`): estimates by falling score, each matched to the free individual
    with the greatest OKS, precision made monotonic and read at 101 recalls. An estimate's score is the mean of its
    keypoints', 0 for those it lacks. An individual's area is that of the box around its keypoints, as in sleap-nn's
    `evaluation.compute_oks`, whose default `stddev` 0.025 is kappa 0.05. Raises InputError as evaluate_pose, for 3D,
    and where the truth holds nothing.
    """
    options = options or DetectionOptions()
    if truth.shape[3] != 2:
        raise InputError("evaluate_detections: expected 2D poses, got 3D; use evaluate_pose")
    true, found = on_common_ground(truth, estimate)
    labelled = ~true.missing
    if not labelled.any():
        raise InputError("evaluate_detections: expected keypoints in the truth, got none")
    here = labelled.any(axis=2)
    frames = labelled.max(axis=(1, 2))
    area = np.prod(extent(true.points), axis=-1)
    matched = found.take_slots(assigned(closeness(true.points, found.points, animals_size(true)))).points
    distance = np.linalg.norm(true.points - matched, axis=-1)
    delivered = np.isfinite(distance)
    far = np.where(delivered, distance, np.inf)[labelled]
    enough = delivered.sum(axis=2) >= options.found * labelled.sum(axis=2)
    alike = oks(true.points, matched, area, options.kappa) >= OKS_THRESHOLDS[0]
    similarity = oks(true.points[:, :, None], found.points[:, None], area[:, :, None], options.kappa)
    there = ~found.missing.all(axis=2) & frames[:, None]
    ranked = np.nan_to_num(similarity), there, found.score.mean(axis=2), int(here.sum())
    return DetectionErrors(
        n=len(far),
        median=float(np.sort(far)[(len(far) - 1) // 2]),
        within=float((far <= options.within).mean()),
        delivered=float(np.isfinite(far).mean()),
        all_found=float((enough | ~here)[frames].all(axis=1).mean()),
        all_alike=float((alike | ~here)[frames].all(axis=1).mean()),
        oks_map=float(np.mean([_average_precision(*ranked, threshold) for threshold in OKS_THRESHOLDS])),
    )


def oks(truth: ArrayLike, estimate: ArrayLike, area: ArrayLike, kappa: ArrayLike) -> Float:
    """Object keypoint similarity (...), 0..1, of keypoints (..., K, 2): the mean of exp(-d^2 / (2 area kappa^2)) over
    the keypoints that the truth holds; one that the estimate lacks adds 0. NaN where the truth holds none.

    area: (...) of the individual, px squared. kappa: of each keypoint (K,), or of all; COCO's is twice its sigma
    (Ronchi & Perona 2017, "Benchmarking and Error Diagnosis in Multi-Instance Pose Estimation", equation 1).
    """
    true, found = np.asarray(truth, dtype=np.float64), np.asarray(estimate, dtype=np.float64)
    squared = np.sum((true - found) ** 2, axis=-1)
    spread = 2 * (np.asarray(area, dtype=np.float64)[..., None] + np.spacing(1)) * np.asarray(kappa) ** 2
    wanted = np.broadcast_to(np.isfinite(true[..., 0]), squared.shape)
    alike = np.where(np.isfinite(squared), np.exp(-np.nan_to_num(squared) / spread), 0.0)
    total = np.sum(alike, axis=-1)
    return np.divide(total, wanted.sum(axis=-1), out=np.full(total.shape, np.nan), where=wanted.any(axis=-1))


def extent(points: Float) -> Float:
    """(frames, individuals, D) sides of the boxes around the keypoints; 0 where there is none."""
    missing = np.isnan(points)
    top = np.where(missing, -np.inf, points).max(axis=2, initial=-np.inf)
    sides = top - np.where(missing, np.inf, points).min(axis=2, initial=np.inf)
    return np.maximum(sides, 0.0)


def _average_precision(
    similarity: Float, there: NDArray[np.bool_], score: Float, truths: int, threshold: float
) -> float:
    """Of the estimates (frames, found individuals) that are there: similarity (frames, individuals, found)."""
    right = np.zeros(there.shape, dtype=bool)
    for frame, alike in enumerate(similarity.copy()):
        for slot in np.argsort(-score[frame], kind="stable"):
            if there[frame, slot] and alike[:, slot].max(initial=0.0) >= threshold:
                right[frame, slot] = True
                alike[alike[:, slot].argmax()] = 0.0  # taken
    order = np.argsort(-score[there], kind="stable")
    hits = np.cumsum(right[there][order])
    precision = np.append(hits / np.arange(1, len(hits) + 1), 0.0)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best[np.searchsorted(hits / truths, RECALLS)].mean())
