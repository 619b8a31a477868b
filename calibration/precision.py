"""How far from the truth may a point in the middle of the volume be, in the rig's unit?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import points_by_rig
from calibration.rig import CameraRig
from calibration.scores import Placed
from calibration.transforms import skew

__all__ = ["VolumePrecision", "volume_precision"]

Array = NDArray[np.float64]

SPAN = (5.0, 95.0)
"""Percentiles of the boards' corners, along their principal axes, between which the volume lies."""


@dataclass(frozen=True)
class VolumePrecision:
    """The volume is a box around the boards. middle (3,) and size (3,) in the rig's world and unit, along the boards'
    principal axes.

    rig_middle, rig_corners: standard deviation (root of the summed variances of x, y, z) that the calibration's
    uncertainty gives a point there, in the middle and on average over the box's corners; the rig's own place in the
    world, which means nothing, left out. pixel_middle, pixel_corners: of a keypoint with 1 px of noise in each
    coordinate in every camera that has it in its image; NaN where fewer than two do. scale: relative standard deviation
    of lengths across the box.
    """

    unit: str
    middle: tuple[float, float, float]
    size: tuple[float, float, float]
    rig_middle: float
    rig_corners: float
    pixel_middle: float
    pixel_corners: float
    scale: float


def volume_precision(placed: Placed) -> VolumePrecision:
    """From the adjusted rig's covariance and the boards' places."""
    rig = placed.rig
    cloud = placed.world[np.isfinite(placed.world[..., 0]) & (placed.seen.sum(axis=0) >= min(2, len(rig)))]
    if not len(cloud):
        cloud = placed.world[np.isfinite(placed.world[..., 0])]
    axes = np.linalg.svd(cloud[:: max(1, len(cloud) // 5000)] - cloud.mean(axis=0), full_matrices=False)[2]
    low, high = np.percentile(cloud @ axes.T, SPAN, axis=0)
    signs = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    points = np.concatenate((np.zeros((1, 3)), signs)) * (high - low) / 2 + (high + low) / 2
    points = points @ axes
    inside = np.stack([_in_image(rig, v, points) for v in range(len(rig))])
    by_rig, normal = points_by_rig(points, inside, rig)
    pixel = np.full(len(points), np.nan)
    usable = (inside.sum(axis=0) >= 2) & np.isfinite(by_rig).all(axis=(1, 2))
    pixel[usable] = np.sqrt(np.trace(np.linalg.inv(normal[usable]), axis1=1, axis2=2))
    rig_sd, scale = _rig_part(points, by_rig, usable, rig)
    return VolumePrecision(
        unit=rig.unit,
        middle=_triple(points[0]),
        size=_triple(high - low),
        rig_middle=float(rig_sd[0]),
        rig_corners=_rms(rig_sd[1:]),
        pixel_middle=float(pixel[0]),
        pixel_corners=_rms(pixel[1:]),
        scale=scale,
    )


def _rig_part(points: Array, by_rig: Array, usable: NDArray[np.bool_], rig: CameraRig) -> tuple[Array, float]:
    """(points,) standard deviations by the rig's covariance after the best rigid motion, and that of the scale."""
    out = np.full(len(points), np.nan)
    rows = np.flatnonzero(usable)
    if rig.covariance is None or len(rows) < 3:
        return out, float("nan")
    around = points[rows] - points[rows].mean(axis=0)
    rigid = np.concatenate((np.tile(np.eye(3), (len(rows), 1, 1)), -skew(around)), axis=2).reshape(-1, 6)
    basis = np.linalg.qr(rigid)[0]
    J = by_rig[rows].reshape(-1, by_rig.shape[2])
    J = J - basis @ (basis.T @ J)
    covariance = J @ rig.covariance @ J.T
    out[rows] = np.sqrt(np.maximum(np.diagonal(covariance), 0.0).reshape(-1, 3).sum(axis=1))
    along = around.ravel() / (around**2).sum()
    return out, float(np.sqrt(max(along @ covariance @ along, 0.0)))


def _in_image(rig: CameraRig, view: int, points: Array) -> NDArray[np.bool_]:
    xy = rig.cameras[view].project(points)
    size = np.asarray(rig.cameras[view].intrinsics.size)
    return np.asarray(((xy > -0.5) & (xy < size - 0.5)).all(axis=-1))


def _rms(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(np.sqrt((known**2).mean())) if len(known) else float("nan")


def _triple(values: Array) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
