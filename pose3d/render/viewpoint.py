"""Which way is up, where is the floor, from where does one see everything? Geometry of the scene, without graphics."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.camera import Camera
from calibration.errors import InputError
from calibration.rig import CameraRig
from pose3d.poses import Poses

__all__ = ["VIEW_ANGLE", "Floor", "find_floor", "frustum", "in_picture", "up_direction", "viewpoint"]

FloatArray = NDArray[np.float64]

VIEW_ANGLE = math.radians(30.0)
"""Vertical opening of the scene's own camera."""
ELEVATION = math.radians(28.0)
"""How far above the floor the scene is seen from."""

VISIBLE = 0.88 * math.tan(VIEW_ANGLE / 2)
"""Half the height of what is to be seen, at distance 1; the rest is margin."""
OVERHEAD = 0.1
"""Share of the farthest camera's distance from the floor's centre, seen from above: a nearer one has no bearing."""
WIDEST = math.radians(75.0)
"""From a camera's axis: where its frustum ends at the latest."""

_NEAR_Z = math.cos(math.radians(25.0))  # cameras that agree with +z to this much mean a z-up world
_NEAR_UP = math.cos(
    math.radians(30.0)
)  # what the animals say about the vertical counts only this near the cameras' word
_LEVEL = 0.2  # x axes that spread less than this share in a second direction are parallel, in a third one level
_GRID_LINES = 10


def up_direction(rig: CameraRig, points: FloatArray) -> FloatArray:
    """Unit vector (3,) that points up in the world of a rig and of the animals' keypoints, points (n, 3).

    Cameras mostly stand level, their x axes in the horizontal plane, also those of cameras that look straight down: up
    is the direction most perpendicular to all of them, on the side of the cameras' tops (-y). Where the x axes are all
    parallel (cameras side by side) it is the mean top. A world whose +z is within 25 degrees of that is taken as z-up.
    Else, where the cameras disagree about the level, it is the direction in which the keypoints of the whole recording
    spread least (animals that walk about), if that is within 30 degrees.
    """
    x_axes, tops = np.stack([camera.R[0] for camera in rig]), -np.stack([camera.R[1] for camera in rig])
    top = tops.mean(axis=0)
    _, spread, directions = np.linalg.svd(x_axes, full_matrices=True)
    spread = np.concatenate((spread, np.zeros(3 - len(spread))))
    up = directions[2] if spread[1] > _LEVEL * spread[0] else top
    if np.linalg.norm(up) == 0:
        return np.array([0.0, 0.0, 1.0])
    up = up * (np.sign(up @ top) or 1.0) / np.linalg.norm(up)
    if up[2] > _NEAR_Z:
        return np.array([0.0, 0.0, 1.0])
    if len(points) >= 3 and spread[2] > _LEVEL * spread[1]:
        away = points - np.median(points, axis=0)
        distance = np.linalg.norm(away, axis=1)
        thin = np.linalg.svd(away[distance <= np.quantile(distance, 0.98)], full_matrices=False)[2][-1]
        thin = thin * np.sign(thin @ up)
        return thin if thin @ up > _NEAR_UP else up
    return up


@dataclass(frozen=True, eq=False)
class Floor:
    """A square grid on the plane under the animals.

    origin: (3,) its centre. x, y, up: (3,) unit vectors, right-handed. half: (2,) half its lengths along x and y;
    spacing: of the grid lines, 1, 2 or 5 times a power of ten; all in the rig's unit.
    """

    origin: FloatArray
    x: FloatArray
    y: FloatArray
    up: FloatArray
    half: FloatArray
    spacing: float

    def shadow(self, points: ArrayLike) -> FloatArray:
        """Points (..., 3) let down onto the floor."""
        points = np.asarray(points, dtype=np.float64)
        return points - ((points - self.origin) @ self.up)[..., None] * self.up

    def corners(self) -> FloatArray:
        """(4, 3) the corners in turn."""
        signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
        return self.origin + signs[:, :1] * self.half[0] * self.x + signs[:, 1:] * self.half[1] * self.y


def find_floor(poses: Poses, up: FloatArray) -> Floor:
    """The floor of 3D poses: perpendicular to up, at the height that 1 % of all keypoints are below.

    It reaches a fifth beyond the middle 98 % of the keypoints, to whole grid cells. Raises InputError when there is no
    keypoint at all.
    """
    points = poses.points[~poses.missing]
    if len(points) == 0:
        raise InputError("scene: the poses hold no keypoint at all (NaN only); check the stage that made them")
    aside = np.eye(3)[np.abs(up).argmin()]
    x = aside - (aside @ up) * up
    x = x / np.linalg.norm(x)
    y = np.cross(up, x)
    along = points @ np.stack([x, y, up]).T
    low, high = np.quantile(along, 0.01, axis=0), np.quantile(along, 0.99, axis=0)
    size = max(float((high - low).max()), 1e-9)
    spacing = _nice(1.4 * size / _GRID_LINES)
    half = np.ceil(0.7 * np.maximum(high - low, 0.3 * size)[:2] / spacing) * spacing
    middle = (low + high) / 2
    origin = middle[0] * x + middle[1] * y + low[2] * up
    return Floor(origin, x, y, up, half, spacing)


def _nice(length: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below length."""
    power = 10.0 ** math.floor(math.log10(length))
    return next(step * power for step in (1.0, 2.0, 5.0, 10.0) if step * power >= length * (1 - 1e-9))


def frustum(camera: Camera, depth: float) -> FloatArray:
    """(5, 3) world points: where the camera stands, then its image's corners (top left, top right, bottom right, bottom
    left) on their rays at `depth` along the axis, in the rig's unit. Distortion is included, where it reaches the
    corners; those more than 75 degrees from the axis (fisheye) are drawn there.
    """
    width, height = camera.intrinsics.size
    corners = np.array([(0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)], dtype=float)
    rays = camera.rays(corners) @ camera.R.T
    K = camera.intrinsics.K
    straight = np.column_stack(((corners - K[:2, 2]) / K[[0, 1], [0, 1]], np.ones(4)))
    rays = np.where(np.isnan(rays), straight, rays)
    along = np.maximum(rays[:, 2], np.linalg.norm(rays[:, :2], axis=1) / math.tan(WIDEST))
    x_cam = depth * np.column_stack((rays[:, :2] / along[:, None], np.ones(4)))
    return np.concatenate((camera.center[None], (x_cam - camera.t) @ camera.R))


def viewpoint(points: FloatArray, centers: FloatArray, floor: Floor, aspect: float) -> tuple[FloatArray, FloatArray]:
    """Where to look from and at, (3,) and (3,), so that all points (n, 3) are in the picture, with a margin.

    centers: (cameras, 3). aspect: of the picture, width / height. From 28 degrees above the floor, between the cameras:
    of 72 bearings the one furthest from any camera's, so that none stands in the way, and of equal ones the first.
    """
    bearings = np.arange(72) * (2 * math.pi / 72)
    ground = (centers - floor.origin) @ np.stack([floor.x, floor.y]).T
    distance = np.linalg.norm(ground, axis=1)
    angle = np.arctan2(ground[:, 1], ground[:, 0])[distance > OVERHEAD * distance.max()]
    gap = np.abs((bearings[:, None] - angle + math.pi) % (2 * math.pi) - math.pi).min(axis=1, initial=math.pi)
    bearing = bearings[int(np.round(gap, 9).argmax())]
    aside = math.cos(bearing) * floor.x + math.sin(bearing) * floor.y
    back = math.cos(ELEVATION) * aside + math.sin(ELEVATION) * floor.up
    right = np.cross(floor.up, back) / math.cos(ELEVATION)
    above = np.cross(back, right)
    across, upward, toward = (points @ np.stack([right, above, back]).T).T
    # From place p and distance d, |x - p| <= half * (d - z) for all points: the least d, and p in the middle.
    place, reach = [], []
    for x, half in ((across, aspect * VISIBLE), (upward, VISIBLE)):
        high, low = (x + half * toward).max(), (x - half * toward).min()
        place.append((high + low) / 2)
        reach.append((high - low) / (2 * half))
    position = place[0] * right + place[1] * above + max(reach) * back
    return position, position - (max(reach) - floor.origin @ back) * back


def in_picture(
    points: FloatArray, position: FloatArray, focus: FloatArray, up: FloatArray, aspect: float
) -> FloatArray:
    """Where points (..., 3) are in the picture of a viewer at position (3,) who looks at focus (3,).

    Returns (..., 2): x to the right and y down, (0, 0) the top left corner, (1, 1) the bottom right one.
    """
    back = (position - focus) / np.linalg.norm(position - focus)
    right = np.cross(up, back) / np.linalg.norm(np.cross(up, back))
    across, upward, toward = np.moveaxis((points - position) @ np.stack([right, np.cross(back, right), back]).T, -1, 0)
    half = math.tan(VIEW_ANGLE / 2)
    return np.stack((0.5 - across / toward / (2 * half * aspect), 0.5 + upward / toward / (2 * half)), axis=-1)
