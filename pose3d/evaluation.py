"""How good is an estimate? Distances and identities against a truth; a camera against what the others predict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from calibration.rig import CameraRig
from pose3d.comparison import animals_size, matched, on_common_ground
from pose3d.poses import Groups, Poses

__all__ = [
    "PoseErrors",
    "TrackErrors",
    "TrackOptions",
    "evaluate_pose",
    "evaluate_tracks",
    "left_out_errors",
    "reprojection_distances",
]

Float = NDArray[np.float64]


@dataclass(frozen=True)
class PoseErrors:
    """Distances between truth and estimate, in their unit, over all keypoints that the truth holds.

    delivered: share of the truth's keypoints that the estimate holds. n: keypoints compared. keypoint_median: by name.
    size: the animals' size in the same unit, median over frames of the truth's largest keypoint distance: what the
    percentages of the body length are taken of. Distances are NaN where nothing was delivered.
    """

    unit: str
    n: int
    delivered: float
    median: float
    rms: float
    p95: float
    keypoint_median: dict[str, float]
    size: float

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class TrackOptions:
    """d0: distance at which the similarity max(0, 1 - mean distance / d0) of two poses is zero, in the unit of the
    poses;
    None = the size of the truth's animals. match_at: least similarity of a match."""

    d0: float | None = None
    match_at: float = 0.5


@dataclass(frozen=True)
class TrackErrors:
    """Identity over time. Bernardin & Stiefelhagen 2008: mota = 1 - (misses + false_positives + switches) /
    truths; Ristani et
    al. 2016: idf1. fragmentations: a followed individual was lost and found again. d0: see TrackOptions."""

    truths: int
    misses: int
    false_positives: int
    switches: int
    fragmentations: int
    mota: float
    idf1: float
    d0: float

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return asdict(self)


def evaluate_pose(truth: Poses, estimate: Poses) -> PoseErrors:
    """Distances of the estimate's keypoints from the truth's.

    Frames meet by number, keypoints by name. Individuals meet by identity where both know identities: the
    assignment over the whole
    recording that brings most keypoints closest; else frame by frame. A keypoint of the truth without a partner
    counts as not delivered.
    Raises InputError when nothing can be compared: other units, no common frame or keypoint.
    """
    true, found, size = matched(truth, estimate)
    distance = np.linalg.norm(true.points - found.points, axis=-1)
    wanted, got = ~true.missing, ~np.isnan(distance)
    medians = {
        name: float(np.median(distance[..., k][got[..., k]])) if got[..., k].any() else float("nan")
        for k, name in enumerate(true.skeleton.keypoints)
    }
    median, rms, p95 = _summary(distance[got])
    delivered = float(got.sum() / wanted.sum()) if wanted.any() else float("nan")
    return PoseErrors(true.unit, int(got.sum()), delivered, median, rms, p95, medians, size)


def evaluate_tracks(truth: Poses, estimate: Poses, options: TrackOptions | None = None) -> TrackErrors:
    """MOTA, IDF1, switches and fragmentations of the estimate's identities.

    Frames meet by number and keypoints by name; the similarity of two poses in a frame is max(0, 1 - d / d0) with
    d the mean distance of
    their common keypoints. Slots without identity (-1) count as false positives. Raises InputError as evaluate_pose.
    """
    options = options or TrackOptions()
    true, found = on_common_ground(truth, estimate)
    d0 = animals_size(true) if options.d0 is None else options.d0
    similarity = np.nan_to_num(1.0 - _mean_distance(true.points, found.points) / d0, nan=0.0)
    allowed = similarity >= options.match_at
    here = ~np.all(true.missing, axis=2) & (true.ids >= 0)
    there = ~np.all(found.missing, axis=2)
    allowed &= here[:, :, None] & there[:, None]
    matches, switches, fragmentations = _clear(similarity, allowed, true.ids, found.ids)
    truths, estimates = int(here.sum()), int(there.sum())
    misses, false_positives = truths - matches, estimates - matches
    together = _pair_counts(allowed, true.ids, found.ids)
    rows, columns = linear_sum_assignment(-together)
    idtp = int(together[rows, columns].sum())
    mota = 1.0 - (misses + false_positives + switches) / truths if truths else float("nan")
    idf1 = 2.0 * idtp / (truths + estimates) if truths + estimates else float("nan")
    return TrackErrors(truths, misses, false_positives, switches, fragmentations, mota, idf1, float(d0))


def reprojection_distances(
    poses: Poses, views: Mapping[str, Poses], groups: Groups, rig: CameraRig
) -> dict[str, Float]:
    """{camera: (frames, groups, keypoints)} px between the projected 3D keypoints and the detections grouped with them.

    Slots of the poses are the groups; NaN where either is missing.
    """
    distances = {}
    for column, name in enumerate(groups.view_names):
        seen = views[name].take_slots(groups.slots[:, :, column])
        distances[name] = np.linalg.norm(rig[name].project(poses.points) - seen.points, axis=-1)
    return distances


def left_out_errors(
    views: Mapping[str, Poses],
    groups: Groups,
    rig: CameraRig,
    reconstruct: Callable[[Mapping[str, Poses], Groups, CameraRig], Poses],
) -> dict[str, Float]:
    """{camera: (frames, groups, keypoints)} px between a camera's detections and their prediction from all other
    cameras.

    reconstruct: makes 3D poses, slots = groups, of some views; called once a camera, without it. NaN where it
    delivers nothing.
    """
    errors = {}
    for name in groups.view_names:
        keep = [column for column, other in enumerate(groups.view_names) if other != name]
        names = tuple(groups.view_names[column] for column in keep)
        others = Groups(names, groups.slots[:, :, keep], groups.ids)
        poses = reconstruct({other: views[other] for other in names}, others, rig.subset(names))
        errors[name] = reprojection_distances(poses, views, groups, rig)[name]
    return errors


def _mean_distance(true: Float, found: Float) -> Float:
    """(frames, individuals, found individuals) mean distance of the common keypoints; NaN where there is none."""
    apart = np.linalg.norm(true[:, :, None] - found[:, None], axis=-1)
    both = ~np.isnan(apart)
    return np.where(both.any(axis=-1), np.nansum(apart, axis=-1) / np.maximum(both.sum(axis=-1), 1), np.nan)


def _clear(
    similarity: Float, allowed: NDArray[np.bool_], true_ids: NDArray[np.int32], found_ids: NDArray[np.int32]
) -> tuple[int, int, int]:
    """Matches, switches and fragmentations; a match of the frame before is kept while it is allowed (Bernardin
    2008, section 2.1).
    """
    matches = switches = fragmentations = 0
    last: dict[int, int] = {}  # the identity that last followed each true one
    lost: set[int] = set()
    before: dict[int, int] = {}
    for value, ok, true, found in zip(similarity, allowed, true_ids, found_ids, strict=True):
        kept = np.array([[before.get(int(t), -2) == f for f in found] for t in true]).reshape(ok.shape)
        rows, columns = linear_sum_assignment(-(ok * (value + 1000.0 * kept)))
        now = {int(true[r]): int(found[c]) for r, c in zip(rows, columns, strict=True) if ok[r, c]}
        for who, follower in now.items():
            switches += who in last and last[who] != follower
            fragmentations += who in lost
        lost = (lost | {int(t) for t in true if t in last}) - set(now)
        last |= now
        before = now
        matches += len(now)
    return matches, switches, fragmentations


def _pair_counts(
    allowed: NDArray[np.bool_], true_ids: NDArray[np.int32], found_ids: NDArray[np.int32]
) -> NDArray[np.int64]:
    """(true identities, found identities) in how many frames the two are an allowed match."""
    frame, a, b = np.nonzero(allowed & (found_ids[:, None] >= 0))
    trues, found = np.unique(true_ids[true_ids >= 0]), np.unique(found_ids[found_ids >= 0])
    counts = np.zeros((len(trues), len(found)), dtype=np.int64)
    np.add.at(counts, (np.searchsorted(trues, true_ids[frame, a]), np.searchsorted(found, found_ids[frame, b])), 1)
    return counts


def _summary(distance: Float) -> tuple[float, float, float]:
    """Median, RMS and 95th percentile; NaN of nothing."""
    if not distance.size:
        return float("nan"), float("nan"), float("nan")
    return float(np.median(distance)), float(np.sqrt(np.mean(distance**2))), float(np.percentile(distance, 95))
