"""What do 2D poses tell of the rig? Named individuals of all views, as the points that `calibration` takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from calibration.rig import CameraRig
from calibration.tracks import TrackOptions, adjust_rig
from pose3d.poses import Groups, Poses

__all__ = ["RigPoints", "adjust_rig_to_poses", "rig_points"]

Array = NDArray[np.float64]

MIN_SCORE = 0.3
"""A keypoint of a lower score tells nothing of the rig; as in `TriangulationOptions`."""


@dataclass(frozen=True, eq=False)
class RigPoints:
    """xy (views, frames, points, 2) px, NaN = missing, and its covariance (..., 2, 2), up to a common factor; points
    are the keypoints of one individual after the other. kind (points,): the keypoint. pairs: points at the ends of
    bones. frame (frames,): numbers in the source video."""

    xy: Array
    covariance: Array
    kind: NDArray[np.intp]
    pairs: tuple[tuple[int, int], ...]
    frame: NDArray[np.int64]


def rig_points(views: Mapping[str, Poses], groups: Groups, everyone: NDArray[np.integer] | None = None) -> RigPoints:
    """The keypoints of everyone in all views, in the order of groups.view_names.

    groups: who is who; by their ids where there are any (everyone: which, default all in these frames), else group by
    group. The covariance is that of the 2D poses
    where all views have it, else it falls with the score squared. Raises InputError where a view is missing or not of
    the same frames and keypoints.
    """
    first = views.get(groups.view_names[0])
    for name in groups.view_names:
        if name not in views or first is None:
            raise InputError(f"expected 2D poses of camera '{name}', as in the groups, got {', '.join(views)}")
        if len(views[name].frame) != len(groups.slots) or views[name].skeleton.keypoints != first.skeleton.keypoints:
            raise InputError(
                f"camera '{name}': expected the frames and keypoints of the others; run `pose3d run` first"
            )
    assert first is not None
    slots = groups.slots
    everyone = np.unique(groups.ids[groups.ids >= 0]) if everyone is None else everyone
    if len(everyone):
        here = groups.ids[:, :, None] == everyone  # (frames, groups, individuals)
        row = np.arange(len(slots))[:, None]
        slots = np.where(here.any(axis=1)[..., None], slots[row, here.argmax(axis=1)], -1)
    taken = [views[name].take_slots(slots[..., v]) for v, name in enumerate(groups.view_names)]
    frames, individuals, keypoints, _ = taken[0].shape
    shape = (len(taken), frames, individuals * keypoints)
    score = np.stack([poses.score for poses in taken]).reshape(shape)
    xy = np.stack([poses.points for poses in taken]).reshape(*shape, 2)
    xy = np.where((score >= MIN_SCORE)[..., None], xy, np.nan)
    if all("covariance" in poses.extras for poses in taken):
        covariance = np.stack([poses.extras["covariance"] for poses in taken]).reshape(*shape, 2, 2)
        known = np.isfinite(covariance).all(axis=(-2, -1), keepdims=True)
        positive = np.linalg.det(np.where(known, covariance, 0.0)) > 0
        xy = np.where(positive[..., None], xy, np.nan)
        covariance = np.where(np.isfinite(xy[..., None]), covariance, np.eye(2))
    else:
        covariance = np.eye(2) / np.maximum(score, MIN_SCORE)[..., None, None] ** 2
    pairs = [(a + i * keypoints, b + i * keypoints) for i in range(individuals) for a, b in first.skeleton.bones]
    return RigPoints(xy, covariance, np.tile(np.arange(keypoints), individuals), tuple(pairs), first.frame)


def adjust_rig_to_poses(
    rig: CameraRig, views: Mapping[str, Poses], groups: Groups, options: TrackOptions | None = None
) -> CameraRig:
    """Better camera poses from identified 2D poses, the animals' bones being constant in length (`adjust_rig`); cameras
    without 2D poses stay as they are out of it. Raises InputError."""
    told = rig_points(views, groups)
    return adjust_rig(rig.subset(groups.view_names), told.xy, told.covariance, told.pairs, options)
