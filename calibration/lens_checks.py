"""Do the intrinsics that were given belong to these cameras?"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from calibration.board import BoardDetections
from calibration.bundle import BundleOptions, adjust_boards
from calibration.determination import corner_noise
from calibration.extrinsics import initial_rig
from calibration.findings import Finding
from calibration.held import ROUGH
from calibration.intrinsics import IntrinsicsEstimate
from calibration.rig import CameraRig

__all__ = ["check_stretched", "check_swapped"]

CLEARLY = 0.7
"""Of their noise in the rig: how much of it is left once two cameras have exchanged their intrinsics."""

LEAST_STRETCH, SURE, ALIKE = 0.005, 5.0, 0.3
"""Share by which pixels seem longer one way, its standard deviations, and how far from it, as a share of it, that of a
single camera may be, to be the board's rather than the cameras'."""


def check_stretched(estimates: Collection[IntrinsicsEstimate]) -> tuple[Finding, ...]:
    """A board that is stretched one way, held upright: every camera's pixels seem to be stretched alike."""
    if len(estimates) < 2:
        return ()
    fx, fy = np.array([own.intrinsics.parameters[:2] for own in estimates]).T
    stretch = fy / fx - 1
    covariance = np.array([own.covariance[:2, :2] for own in estimates])
    by = np.stack((-fy / fx**2, 1 / fx), axis=1)
    sigma = np.sqrt(np.einsum("vi,vij,vj->v", by, covariance, by))
    mean = float(np.average(stretch, weights=1 / sigma**2))
    if abs(mean) < max(LEAST_STRETCH, SURE / np.sqrt((1 / sigma**2).sum())):
        return ()
    if (np.abs(stretch - mean) > np.maximum(ALIKE * abs(mean), SURE * sigma)).any():
        return ()
    return (
        Finding(
            "wrong_board_geometry", (),
            f"all cameras seem to have pixels {abs(mean):.2%} {'longer' if mean > 0 else 'shorter'} across than down, "
            "as if the board's squares were that much longer one way",
            "print it without scaling, or measure squares both ways, and fix it to a flat plate; turn it by 90 degrees "
            "in some pictures; where pixels are not square indeed, the rig is right", 1.0 + abs(mean), 1.0, "ratio",
        ),
    )  # fmt: skip


def check_swapped(detections: BoardDetections, rig: CameraRig, suspects: Sequence[str]) -> tuple[Finding, ...]:
    """Pairs of cameras, both with intrinsics that do not fit, that fit once these are exchanged.

    detections: without misdetections. suspects: names of cameras whose given intrinsics do not fit.
    """
    findings: list[Finding] = []
    now = _noise(detections, rig)
    for a, b in combinations([v for v, name in enumerate(rig.names) if name in suspects], 2):
        one, other = rig.cameras[a], rig.cameras[b]
        if one.intrinsics.size != other.intrinsics.size or any(one.name in f.cameras for f in findings):
            continue
        cameras = list(rig.cameras)
        cameras[a], cameras[b] = (
            replace(one, intrinsics=other.intrinsics), replace(other, intrinsics=one.intrinsics),
        )  # fmt: skip
        then = _noise(detections, CameraRig(tuple(cameras), rig.unit))
        pair = [a, b]
        if (then[pair] < CLEARLY * now[pair]).all():
            findings.append(
                Finding(
                    "swapped_names", (one.name, other.name),
                    f"each fits with the other's intrinsics: {then[a]:.2f} and {then[b]:.2f} px of noise instead of "
                    f"{now[a]:.2f} and {now[b]:.2f}",
                    "exchange their names in the file of intrinsics, or in the footage",
                    float(then[pair].mean()), float(now[pair].mean()), "px",
                )
            )  # fmt: skip
    return tuple(findings)


def _noise(detections: BoardDetections, rig: CameraRig) -> NDArray[np.float64]:
    """(views,) px, scatter of each camera's corners in a rig placed anew with these intrinsics."""
    start = initial_rig(detections, {camera.name: camera.intrinsics for camera in rig})
    fitted = adjust_boards(*start, detections, BundleOptions("huber", 3.0, solver=ROUGH))
    return np.array([corner_noise(view) for view in fitted.residuals])
