"""What is in a scene? Animals, trails, rig and floor as arrays, without graphics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from calibration.rig import CameraRig
from pose3d.poses import Poses
from pose3d.render.colours import colour_of
from pose3d.render.moments import named_ids
from pose3d.render.viewpoint import Floor, find_floor, frustum, up_direction

__all__ = ["Content", "SceneOptions", "gather"]

FloatArray = NDArray[np.float64]

FRUSTUM = 0.11
"""Depth of a camera's frustum, as a share of the cameras' median distance from the floor's centre."""


@dataclass(frozen=True)
class SceneOptions:
    """What a scene shows.

    size: (width, height) px. frame: the step number that a PNG shows, None = the one with most keypoints.
    every: a movie shows every n-th step. fps: of the movie, None = as recorded (30 where unknown). crf: its quality, 0
        (best) to 51.
    trail: steps of the past that a trail shows, 0 = none. trail_keypoint: whose trail, None = that of their mean.
    uncertainty: standard deviations that the ellipsoids about the keypoints reach, 0 = none. cameras: show the rig.
    up: the direction up, None = from the cameras and animals (`viewpoint.up_direction`).
    """

    size: tuple[int, int] = (1280, 960)
    frame: int | None = None
    every: int = 1
    fps: float | None = None
    crf: int = 20
    trail: int = 50
    trail_keypoint: str | None = None
    uncertainty: float = 0.0
    cameras: bool = True
    up: tuple[float, float, float] | None = None


@dataclass(frozen=True, eq=False)
class Content:
    """What is shown: arrays (frames, animals, ...), one animal per identity."""

    poses: Poses
    covariance: FloatArray | None
    trail: FloatArray  # (frames, animals, 3)
    names: dict[int, str]  # of the animals, in order
    colours: NDArray[np.uint8]  # (animals, 3)
    size: float  # of an animal
    rig: CameraRig
    frusta: FloatArray  # (cameras, 5, 3)
    floor: Floor
    options: SceneOptions


def gather(poses: Poses, rig: CameraRig, options: SceneOptions) -> Content:
    if poses.shape[3] != 3:
        raise InputError("scene: expected 3D poses, got 2D ones; triangulate them first")
    names = named_ids(poses)
    if names:
        poses = poses.by_id(list(names))
    else:
        names = dict.fromkeys(range(poses.shape[1]), "")
    up = (
        up_direction(rig, poses.points[~poses.missing])
        if options.up is None
        else np.array(options.up) / np.linalg.norm(options.up)
    )
    floor = find_floor(poses, up)
    if options.trail_keypoint is None:
        count = (~poses.missing).sum(axis=2)[..., None]
        trail = np.where(count > 0, np.nan_to_num(poses.points).sum(axis=2) / np.maximum(count, 1), np.nan)
    else:
        trail = poses.points[:, :, poses.skeleton.index(options.trail_keypoint)]
    covariance = poses.extras.get("covariance_total", poses.extras.get("covariance"))
    reach = float(np.median(np.linalg.norm(rig.centers - floor.origin, axis=1)))
    return Content(
        poses=poses,
        covariance=covariance if options.uncertainty > 0 else None,
        trail=trail,
        names=names,
        colours=np.array([colour_of(identity) for identity in names], dtype=np.uint8),
        size=_size(poses) or floor.spacing,
        rig=rig,
        frusta=np.stack([frustum(camera, FRUSTUM * reach) for camera in rig])
        if options.cameras
        else np.zeros((0, 5, 3)),
        floor=floor,
        options=options,
    )


def _size(poses: Poses) -> float:
    """Median over frames and animals of the diagonal of the box about the keypoints, in the poses' unit."""
    some = ~poses.missing.all(axis=2)
    points = poses.points[some]
    missing = np.isnan(points)
    low, high = np.where(missing, np.inf, points).min(axis=1), np.where(missing, -np.inf, points).max(axis=1)
    return float(np.median(np.linalg.norm(high - low, axis=1)))
