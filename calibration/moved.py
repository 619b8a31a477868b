"""Where do the cameras stand that were moved, seen from those that were not? New footage of the board tells."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibration.board import BoardDetections
from calibration.bundle import BundleOptions, BundleResult, adjust_boards, board_system
from calibration.camera import INTRINSIC_PARAMETERS
from calibration.determination import corner_noise
from calibration.errors import InputError
from calibration.extrinsics import initial_rig
from calibration.lenses import free_parameters, lens_of, prior_intrinsics
from calibration.planar import board_views
from calibration.report import corner_residuals, rms
from calibration.rig import RIG_PARAMETERS, CameraRig
from calibration.solver import schur_reduced, updated_covariance
from calibration.transforms import compose, invert, log_so3, mean_rotation

__all__ = ["MovedOptions", "Resettled", "resettle_cameras"]

Array = NDArray[np.float64]

ROBUST, ROBUST_SCALE = "huber", 3.0
LEAST_NOISE_PX = 0.05
MOST_MISFIT = 3.0
"""Corners of a camera that scatter by so many times more in the rig than on boards posed by this camera alone do not
fit."""


@dataclass(frozen=True)
class MovedOptions:
    """refine: the intrinsics of cameras that moved are adjusted too, starting from what is known of them; otherwise
    they are kept. reject_sigmas: as in CalibrationOptions."""

    refine: bool = False
    reject_sigmas: float = 10.0


@dataclass(frozen=True, eq=False)
class Resettled:
    """rig: all cameras of the old one, those that moved at their new places, with covariance. board_R (frames, boards,
    3, 3), board_t (frames, boards, 3): world_from_board, NaN where a board could not be placed. text: what was found,
    by camera, and warnings."""

    rig: CameraRig
    board_R: Array  # noqa: N815
    board_t: Array
    text: str


def resettle_cameras(
    rig: CameraRig, moved: Collection[str], detections: BoardDetections, options: MovedOptions | None = None
) -> Resettled:
    """The rig with some cameras where new footage of the board finds them; all others, and the world, stay.

    detections: of the cameras that moved and of at least one that did not; boards must be seen by cameras of both kinds
    at once. The covariance of cameras that moved follows from the corners' noise and from what the others are known by.
    Raises InputError naming cameras for unknown names, none kept, another image size, another unit, or cameras that
    nothing links with the rest.
    """
    options = options or MovedOptions()
    kept = _checked(rig, moved, detections)
    part = rig.subset((*kept, *moved))
    detections = detections.of_views([list(detections.view_names).index(name) for name in part.names])
    start = _in_the_rig(part, kept, *initial_rig(detections, {c.name: c.intrinsics for c in part}))
    bundle = _bundle(part, kept, moved, options)
    usable, fit = detections, start
    for loss in (ROBUST, "linear", "linear"):
        found = adjust_boards(*fit, usable, replace(bundle, loss=loss, scale=ROBUST_SCALE))
        fit = found.rig, found.board_R, found.board_t
        usable = _without_misdetections(detections, fit, options)
    cameras = {camera.name: camera for camera in (*rig, *found.rig.subset(moved))}
    covariance = _covariance(rig, part, moved, found, usable, options)
    result = CameraRig(tuple(cameras[name] for name in rig.names), rig.unit, covariance)
    said = _text(rig, result, kept, moved, corner_residuals(*fit, detections), _noise_alone(part, detections))
    return Resettled(result, found.board_R, found.board_t, said)


def _checked(rig: CameraRig, moved: Collection[str], detections: BoardDetections) -> tuple[str, ...]:
    """Names of the cameras that stay and were filmed."""
    for name in moved:
        rig.index(name)
        if name not in detections.view_names:
            raise InputError(f"camera '{name}' moved, but there is no footage of it; film the board with it")
    kept = tuple(name for name in rig.names if name in detections.view_names and name not in moved)
    if not moved or not kept:
        raise InputError(
            f"expected one camera or more of {', '.join(rig.names)} that moved, and footage of others that did not, "
            f"got moved: {', '.join(moved) or 'none'}, kept: {', '.join(kept) or 'none'}; if all moved, calibrate anew"
        )
    for name in (*kept, *moved):
        size = tuple(int(length) for length in detections.sizes[list(detections.view_names).index(name)])
        if size != rig[name].intrinsics.size:
            width, height = rig[name].intrinsics.size
            raise InputError(
                f"camera '{name}': expected images of {width}x{height} px, as in the calibration to keep, got "
                f"{size[0]}x{size[1]}; film with the same settings, or calibrate anew"
            )
    if detections.boards[0].unit != rig.unit:
        raise InputError(
            f"the calibration to keep is in {rig.unit}, the board in {detections.boards[0].unit}; describe the board "
            f"in {rig.unit}"
        )
    return kept


def _in_the_rig(
    rig: CameraRig, kept: Collection[str], first: CameraRig, R: Array, t: Array
) -> tuple[CameraRig, Array, Array]:
    """A first rig and its boards, brought into the world of the rig by the cameras that stay, which stay exactly."""
    pairs = [compose(*invert(rig[name].R, rig[name].t), first[name].R, first[name].t) for name in kept]
    turn, shift = mean_rotation(np.stack([pair[0] for pair in pairs])), np.mean([pair[1] for pair in pairs], axis=0)
    there = first.moved(1.0, turn, shift)
    cameras = tuple(camera if camera.name in kept else there[camera.name] for camera in rig)
    return CameraRig(cameras, rig.unit), *compose(turn, shift, R, t)


def _bundle(rig: CameraRig, kept: tuple[str, ...], moved: Collection[str], options: MovedOptions) -> BundleOptions:
    if not options.refine:
        return BundleOptions(fixed=kept)
    free, priors = {}, {}
    for name in moved:
        known = rig[name].intrinsics
        usual = prior_intrinsics(known.size, float(known.parameters[:2].mean()), lens_of(known))[1]
        free[name], priors[name] = free_parameters(known), (known.parameters, usual)
        if rig.covariance is not None:
            sigma = np.sqrt(np.diagonal(rig.covariance).reshape(len(rig), -1)[rig.index(name), 6:])
            priors[name] = (known.parameters, np.where(sigma > 0, sigma, usual))
    return BundleOptions(fixed=kept, free=free, priors=priors)


def _without_misdetections(
    detections: BoardDetections, fit: tuple[CameraRig, Array, Array], options: MovedOptions
) -> BoardDetections:
    """The detections without corners far off, their sigma scaled to the actual noise."""
    residuals = corner_residuals(*fit, detections)
    noise = np.nan_to_num([corner_noise(view) for view in residuals])
    gate = options.reject_sigmas * np.maximum(noise, LEAST_NOISE_PX)
    wrong = np.linalg.norm(residuals, axis=-1) > gate[:, None, None]
    factor = max(corner_noise(residuals / detections.sigma[..., None]), np.finfo(float).eps)
    corners = np.where(wrong[..., None], np.nan, detections.corners)
    return replace(detections, corners=corners, sigma=detections.sigma * factor)


def _covariance(
    rig: CameraRig, part: CameraRig, moved: Collection[str], found: BundleResult, usable: BoardDetections,
    options: MovedOptions,
) -> Array:  # fmt: skip
    """(18 V, 18 V) of the whole rig; a rig without a covariance counts as exact where it is kept."""
    n, views = len(RIG_PARAMETERS), len(rig)
    everything = dict.fromkeys(part.names, np.ones(len(INTRINSIC_PARAMETERS), dtype=bool))
    bundle = replace(_bundle(part, (), moved, options), fixed=(), free=everything)
    H = schur_reduced(board_system(found.rig, found.board_R, found.board_t, usable, bundle))[0] / found.variance
    rows = np.concatenate([n * rig.index(name) + np.arange(n) for name in part.names])
    whole, free = np.zeros((n * views, n * views)), np.zeros((views, n), dtype=bool)
    whole[np.ix_(rows, rows)] = H
    for name in moved:
        free[rig.index(name), :6] = True
        free[rig.index(name), 6:] = free_parameters(rig[name].intrinsics) & options.refine
    known = np.zeros_like(whole) if rig.covariance is None else rig.covariance
    return updated_covariance(whole, known, free.ravel())


def _noise_alone(rig: CameraRig, detections: BoardDetections) -> dict[str, float]:
    """px, how far corners are from boards that are posed by each camera alone: the median over boards."""
    told = {camera.name: board_views(detections, camera.name, camera.intrinsics).error[..., 0] for camera in rig}
    return {name: max(float(np.nanmedian(error)), LEAST_NOISE_PX) for name, error in told.items()}


def _text(
    rig: CameraRig,
    now: CameraRig,
    kept: Collection[str],
    moved: Collection[str],
    residuals: Array,
    alone: dict[str, float],
) -> str:
    """residuals (views, frames, corners, 2): kept cameras first, then those that moved."""
    lines, misfit = [], {}
    for name, view in zip((*kept, *moved), residuals, strict=True):
        old, new = rig[name], now[name]
        what = "kept"
        if name in moved:
            turn = np.rad2deg(np.linalg.norm(log_so3(new.R @ old.R.T)))
            what = f"turned by {turn:.2f}°, moved by {np.linalg.norm(new.center - old.center):.4g} {rig.unit}"
        lines.append(f"{name}: {what}; {int(np.isfinite(view[..., 0]).sum())} corners, rms {rms(view):.3f} px")
        misfit[name] = corner_noise(view) / alone[name]
    worst = max(kept, key=lambda name: misfit[name])
    if misfit[worst] > MOST_MISFIT:
        lines.append(
            f"warning: {worst}: its corners scatter {misfit[worst]:.0f} times as much where the calibration puts it as "
            f"in its own images; it was moved too, perhaps: name it (--moved {worst})"
        )
    return "\n".join(lines)
