"""Where in space are the keypoints of each group? Groups of 2D individuals -> 3D poses, every point by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError, nearest_name
from calibration.geometry import TriangulationOptions, estimate_noise, triangulate_points
from calibration.rig import CameraRig
from pose3d.poses import ABSENT, MEASURED, Groups, Poses

__all__ = ["TriangulationOptions", "triangulate"]

Array = NDArray[np.float64]

_CHUNK_POINTS = 200_000
"""Keypoints triangulated at a time, which bounds the memory; no result depends on it."""
_NOISE_POINTS = 50_000
"""Keypoints, from evenly spaced frames, at most, that the pixel noise is estimated from."""


def triangulate(
    views: Mapping[str, Poses], groups: Groups, rig: CameraRig, options: TriangulationOptions | None = None
) -> Poses:
    """3D poses (frames, groups, keypoints, 3) in the rig's unit, one slot a group, with the groups' ids.

    views: 2D poses by camera name, aligned: the same frames and skeleton in all. groups: which slot of a view is whom.
    Each keypoint is triangulated alone and robustly (`calibration.geometry.triangulate_points`), with the extra
    `covariance` of the 2D points where all views have it, else with their scores and one pixel noise, which is
    estimated from these views unless options.noise_px gives it: give it where a recording is worked off in windows.

    score is the mean score of the views used, NaN points are those that no two agreeing views see. Extras: covariance
    (unit squared, without the rig's part), reprojection_error (px, rms over the views used), n_views, status MEASURED
    or ABSENT.
    Raises InputError when a camera is not in the rig or in views, or the views are not aligned.
    """
    options = options or TriangulationOptions()
    rig = rig.subset(groups.view_names)
    first = _checked(views, groups)
    with_covariance = all("covariance" in views[name].extras for name in groups.view_names)
    taken = [views[name].take_slots(groups.slots[..., i]) for i, name in enumerate(groups.view_names)]
    frames, slots, keypoints, _ = taken[0].shape
    per_frame = max(1, slots * keypoints)
    if not with_covariance and options.noise_px is None:
        every = max(1, -(-frames * per_frame // _NOISE_POINTS))
        xy, score, _ = _stacked(taken, slice(None, None, every), False)
        options = replace(options, noise_px=estimate_noise(xy, rig, score=score, options=options))
    points = np.full((frames, slots, keypoints, 3), np.nan)
    covariance = np.full((*points.shape, 3), np.nan)
    error, mean_score = np.full(points.shape[:3], np.nan), np.zeros(points.shape[:3])
    n_views = np.zeros(points.shape[:3], dtype=np.int16)
    step = max(1, _CHUNK_POINTS // per_frame)
    for start in range(0, frames, step):
        rows = slice(start, start + step)
        xy, score, spread = _stacked(taken, rows, with_covariance)
        found = triangulate_points(xy, rig, score=score, covariance=spread, options=options)
        shape = points[rows].shape[:3]
        count = found.seen.sum(axis=0)
        points[rows], covariance[rows] = found.points.reshape(*shape, 3), found.covariance.reshape(*shape, 3, 3)
        error[rows], n_views[rows] = found.reprojection_error.reshape(shape), count.reshape(shape)
        mean_score[rows] = ((score * found.seen).sum(axis=0) / np.maximum(count, 1)).reshape(shape)
    status = np.where(np.isnan(points[..., 0]), ABSENT, MEASURED)
    extras = {"covariance": covariance, "reprojection_error": error, "n_views": n_views, "status": status}
    return first.replace(points=points, score=mean_score, ids=groups.ids, unit=rig.unit, extras=extras)


def _checked(views: Mapping[str, Poses], groups: Groups) -> Poses:
    """The first view, after making sure that all views of the groups fit one another."""
    for name in groups.view_names:
        if name not in views:
            raise InputError(f"camera '{name}' of the groups has no 2D poses; {nearest_name(name, views)}")
    first = views[groups.view_names[0]]
    for name in groups.view_names:
        if not np.array_equal(views[name].frame, first.frame):
            raise InputError(
                f"views '{groups.view_names[0]}' and '{name}' do not have the same frames; align them first"
            )
        if views[name].skeleton.keypoints != first.skeleton.keypoints:
            raise InputError(f"views '{groups.view_names[0]}' and '{name}' do not have the same keypoints")
        if views[name].shape[3] != 2:
            raise InputError(f"view '{name}': expected 2D poses, got points {views[name].shape}")
    if len(groups.slots) != len(first.frame):
        raise InputError(f"groups: expected {len(first.frame)} frames as in the views, got {len(groups.slots)}")
    return first


def _stacked(taken: list[Poses], rows: slice, with_covariance: bool) -> tuple[Array, Array, Array | None]:
    """Of these frames xy (views, points, 2), score (views, points) and covariance (views, points, 2, 2) or None."""
    xy = np.stack([poses.points[rows] for poses in taken]).reshape(len(taken), -1, 2)
    score = np.stack([poses.score[rows] for poses in taken]).reshape(len(taken), -1)
    if not with_covariance:
        return xy, score, None
    return xy, score, np.stack([poses.extras["covariance"][rows] for poses in taken]).reshape(*xy.shape, 2)
