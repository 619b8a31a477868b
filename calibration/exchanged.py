"""Do two cameras have each other's name? Their pixels fit the rig when the names are exchanged, and not as they are."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import reprojection_errors, triangulate_linear
from calibration.rig import CameraRig

__all__ = ["exchanged_names"]

LEAST_PX, CLEARLY = 10.0, 0.1
"""Error of the points from which names are doubted, and the share of it that must be left when they are exchanged."""
MOST_POINTS = 3000


def exchanged_names(rig: CameraRig, xy: NDArray[np.float64]) -> tuple[str, str] | None:
    """The two cameras whose names must be exchanged for pixels xy (views, points, 2) to fit the rig; None where they
    fit as they are, or no such pair makes it much better."""
    common = np.flatnonzero(np.isfinite(xy).all(axis=-1).sum(axis=0) >= 2)
    some = xy[:, common[:: max(1, -(-len(common) // MOST_POINTS))]]
    plain = _misfit(rig, some)
    if not plain > LEAST_PX:
        return None
    errors = {pair: _misfit(_exchanged(rig, *pair), some) for pair in combinations(range(len(rig)), 2)}
    best = min(errors, key=errors.__getitem__)
    return (rig.names[best[0]], rig.names[best[1]]) if errors[best] < CLEARLY * plain else None


def _exchanged(rig: CameraRig, a: int, b: int) -> CameraRig:
    cameras = list(rig.cameras)
    cameras[a], cameras[b] = replace(cameras[b], name=rig.names[a]), replace(cameras[a], name=rig.names[b])
    return CameraRig(tuple(cameras), rig.unit)


def _misfit(rig: CameraRig, xy: NDArray[np.float64]) -> float:
    """px, the error that three quarters of the pixels do not reach; a point that a camera cannot see is infinitely off.
    With the median, two of many cameras would go unnoticed."""
    errors = reprojection_errors(triangulate_linear(xy, rig), xy, rig)
    seen = np.isfinite(xy).all(axis=-1)
    return float(np.quantile(np.where(np.isfinite(errors), errors, np.inf)[seen], 0.75, method="lower"))
