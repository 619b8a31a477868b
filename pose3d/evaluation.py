"""How good is an estimate? Distances and identities against a truth; a camera against what the others predict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from calibration.rig import CameraRig
from pose3d.comparison import animals_size, matched, on_common_ground
from pose3d.detection_scores import extent, oks
from pose3d.identity_scores import TrackErrors, score_identities
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
    poses; None = the size of the truth's animals. kappa: object keypoint similarity (`oks`) instead, of 2D poses; 0.05
    is SLEAP's. match_at: least similarity of a match."""

    d0: float | None = None
    kappa: float | None = None
    match_at: float = 0.5


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
    """MOTA, IDF1, HOTA, switches and fragmentations of the estimate's identities (`score_identities`).

    Frames meet by number and keypoints by name; the similarity of two poses in a frame is that of the options. Slots
    without identity (-1) count as false positives. Raises InputError as evaluate_pose, and for `kappa` in 3D.
    """
    options = options or TrackOptions()
    true, found = on_common_ground(truth, estimate)
    if options.kappa is None:
        d0 = animals_size(true) if options.d0 is None else options.d0
        similarity = np.maximum(1.0 - _mean_distance(true.points, found.points) / d0, 0.0)
    elif truth.shape[3] != 2:
        raise InputError("evaluate_tracks: object keypoint similarity (`kappa`) is for 2D poses, got 3D; give `d0`")
    else:
        d0, area = float("nan"), np.prod(extent(true.points), axis=-1)
        similarity = oks(true.points[:, :, None], found.points[:, None], area[:, :, None], options.kappa)
    true_ids = np.where(np.all(true.missing, axis=2), -1, true.ids).astype(np.int64)
    there = ~np.all(found.missing, axis=2)
    found_ids = np.where(there, found.ids, -1).astype(np.int64)
    nameless = there & (found_ids < 0)
    found_ids[nameless] = found_ids.max(initial=-1) + 1 + np.arange(nameless.sum())  # nobody twice, so nobody's
    similarity[np.broadcast_to(nameless[:, None], similarity.shape)] = 0.0
    return replace(score_identities(similarity, true_ids, found_ids, options.match_at), d0=float(d0))


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


def _summary(distance: Float) -> tuple[float, float, float]:
    """Median, RMS and 95th percentile; NaN of nothing."""
    if not distance.size:
        return float("nan"), float("nan"), float("nan")
    return float(np.median(distance)), float(np.sqrt(np.mean(distance**2))), float(np.percentile(distance, 95))
