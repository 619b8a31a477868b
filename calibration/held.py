"""Which intrinsics are adjusted with the rig, and which are held at what value, because the footage does not determine
them?

A low error proves nothing: footage without tilted boards, or of cameras that are not quite synchronous, fits best with
wrong focal lengths. So a focal length must show the same value in all parts of the footage (a block jackknife), and its
spread is multiplied by how much worse a camera fits into the rig than its own images fit together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calibration.bundle import BundleOptions, BundleResult, adjust_boards
from calibration.camera import INTRINSIC_PARAMETERS, Intrinsics
from calibration.determination import corner_noise, intrinsic_spread
from calibration.intrinsics import IntrinsicsEstimate
from calibration.lenses import RADIAL, free_parameters, lens_of, prior_intrinsics
from calibration.rig import RIG_PARAMETERS, CameraRig
from calibration.solver import SolverOptions

if TYPE_CHECKING:
    from calibration.board import BoardDetections

__all__ = ["Knowledge", "Start", "adjust_determined", "weak_priors"]

Array = NDArray[np.float64]
Start = tuple[CameraRig, Array, Array]
"""A rig and world_from_board R (frames, boards, 3, 3), t (frames, boards, 3)."""

LEAST_NOISE_PX = 1e-3
MAX_ROUNDS = 12
ROUGH = SolverOptions(cost_tolerance=1e-6, initial_damping=1e-6)
FINE = SolverOptions(initial_damping=1e-6)


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What is known of the intrinsics of every camera that came without, by name.

    free: (12,) mask over INTRINSIC_PARAMETERS of what was adjusted. prior: mean and sigma (12,), of what was adjusted a
    weak prior, of what is held its value and uncertainty. sigma: (12,) standard deviations. reason: why a focal length
    is held. covariance: (12, 12) of all intrinsics where it is.
    """

    free: dict[str, NDArray[np.bool_]]
    prior: dict[str, tuple[Array, Array]]
    sigma: dict[str, Array] = field(default_factory=dict)
    reason: dict[str, str] = field(default_factory=dict)
    covariance: dict[str, Array] = field(default_factory=dict)

    def options(self, solver: SolverOptions = ROUGH) -> BundleOptions:
        """For the adjustment."""
        return BundleOptions(free=self.free, priors=self.prior, held=self.covariance, solver=solver)


def adjust_determined(
    detections: BoardDetections,
    first: Start,
    robust: Start,
    alone: Mapping[str, IntrinsicsEstimate],
    focal_tolerance: float,
) -> tuple[Knowledge, BundleResult]:
    """Adjust the rig, hold what the footage does not determine, and again, until all that is adjusted is determined.

    detections: without misdetections, sigma being the corners' actual noise. first: the first rig; robust: the same
    after a robust adjustment of all of it. alone: cameras whose intrinsics are sought, with what their own images say.
    focal_tolerance: relative standard deviation of a focal length above which all intrinsics of its camera are held.
    """
    weak = weak_priors(alone)
    known = Knowledge({name: free_parameters(own.intrinsics) for name, own in alone.items()}, dict(weak))
    start = robust
    for _ in range(MAX_ROUNDS):
        result = adjust_boards(*start, detections, known.options())
        _spread(known, result, detections, alone)
        if values := _hold_focal(known, result.rig, alone, focal_tolerance):
            start = (_with_parameters(first[0], {name: known.prior[name][0] for name in known.reason}), *first[1:])
        elif values := _hold_rest(known, result.rig, weak):
            start = (_with_parameters(result.rig, values), result.board_R, result.board_t)
        else:
            break
    return known, adjust_boards(result.rig, result.board_R, result.board_t, detections, known.options(FINE))


def weak_priors(alone: Mapping[str, IntrinsicsEstimate]) -> dict[str, tuple[Array, Array]]:
    """Mean and sigma (12,) of what was known of intrinsics before, by name: of ordinary cameras with images of this
    size, where nothing was."""
    priors = {
        name: own.prior or prior_intrinsics(own.intrinsics.size, own.focal, lens_of(own.intrinsics))
        for name, own in alone.items()
    }
    return {name: (prior.parameters, sigma) for name, (prior, sigma) in priors.items()}


def _spread(
    known: Knowledge, result: BundleResult, detections: BoardDetections, alone: Mapping[str, IntrinsicsEstimate]
) -> None:
    """Standard deviations of what is adjusted: block jackknife times how much noisier a camera is in the rig than
    alone."""
    spread = intrinsic_spread(result, detections, known.options()).larger
    for v, name in enumerate(result.rig.names):
        if name not in alone or name in known.reason:
            continue
        noise = corner_noise(result.residuals[list(detections.view_names).index(name)])
        known.sigma[name] = spread[v] * max(1.0, noise / max(alone[name].noise, LEAST_NOISE_PX))


def _hold_focal(
    known: Knowledge, rig: CameraRig, alone: Mapping[str, IntrinsicsEstimate], tolerance: float
) -> dict[str, Array]:
    """Hold all intrinsics of cameras whose focal length is not determined; the values (12,) they are held at."""
    values = {}
    for name, own in alone.items():
        parameters, sigma = rig[name].intrinsics.parameters, known.sigma[name]
        relative = float(sigma[:2].mean() / parameters[:2].mean())
        if name in known.reason or relative <= tolerance:
            continue
        known.covariance[name] = _scaled(rig, name, sigma)
        found, source = f"{parameters[:2].mean():.0f} px, uncertain by {min(relative, 1.0):.1%}", "the rig"
        if not own.focal_sigma / own.focal > relative:
            parameters, sigma, source = own.intrinsics.parameters, own.sigma, "its own images"
            known.covariance[name] = own.covariance
        known.reason[name] = (
            f"the rig gives {found} (accepted: {tolerance:.1%}), so it is held at {parameters[:2].mean():.0f} ± "
            f"{sigma[:2].mean():.0f} px, from {source}"
        )
        known.free[name] = np.zeros(len(INTRINSIC_PARAMETERS), dtype=bool)
        known.prior[name] = (parameters, np.where(sigma > 0, sigma, np.inf))
        known.sigma[name], values[name] = sigma, parameters
    return values


def _scaled(rig: CameraRig, name: str, sigma: Array) -> Array:
    """(12, 12) covariance of a camera's intrinsics: standard deviations sigma (12,), correlations as in the rig's."""
    if rig.covariance is None:
        return np.diag(sigma**2)
    rows = slice(len(RIG_PARAMETERS) * rig.index(name) + 6, len(RIG_PARAMETERS) * (rig.index(name) + 1))
    formal = rig.covariance[rows, rows]
    factor = sigma / np.sqrt(np.maximum(np.diagonal(formal), np.finfo(float).tiny))
    with np.errstate(invalid="ignore"):  # infinite for what is not known, beside what is held
        return np.where(formal != 0, np.outer(factor, factor) * formal, 0.0)


def _hold_rest(known: Knowledge, rig: CameraRig, weak: Mapping[str, tuple[Array, Array]]) -> dict[str, Array]:
    """Hold at the weak prior what the footage says less about than the prior (its variance is then still more than half
    of the prior's), of the radial ones only the highest power; new parameters (12,) of the cameras changed."""
    values = {}
    for name, free in known.free.items():
        if name in known.reason:
            continue
        mean, sigma = weak[name]
        unknown = free & (known.sigma[name] ** 2 > sigma**2 / 2)
        radial = [column for column in RADIAL[lens_of(rig[name].intrinsics)] if free[column]]
        columns = [column for column in range(2, len(free)) if column not in radial[1:]]
        held = [c for c in columns if unknown[c]]
        if held:
            free[held] = False
            values[name] = rig[name].intrinsics.parameters
            values[name][held] = mean[held]
    return values


def _with_parameters(rig: CameraRig, values: Mapping[str, Array]) -> CameraRig:
    cameras = []
    for camera in rig:
        old = camera.intrinsics
        new = old
        if camera.name in values:
            new = Intrinsics.from_parameters(old.size, values[camera.name], old.model, len(old.dist))
        cameras.append(replace(camera, intrinsics=new))
    return CameraRig(tuple(cameras), rig.unit)
