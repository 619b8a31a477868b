"""From board detections to a rig: intrinsics, first rig, misdetections, adjustment, held-out error, report; in this
order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calibration.audit import audit
from calibration.bending import bend_boards
from calibration.bundle import BundleOptions, BundleResult, adjust_boards
from calibration.camera import Intrinsics
from calibration.clocks import Clocks, find_clocks, set_right
from calibration.determination import corner_noise
from calibration.errors import InputError, nearest_name
from calibration.extrinsics import ExtrinsicsOptions, initial_rig
from calibration.footage_checks import BROKEN, check_footage, refuse_mirrored
from calibration.held import FINE, ROUGH, Knowledge, Start, adjust_determined, weak_priors
from calibration.intrinsics import IntrinsicsEstimate, IntrinsicsOptions, estimate_intrinsics, refined_intrinsics
from calibration.lenses import free_parameters
from calibration.planar import MIN_CORNERS
from calibration.report import CalibrationReport, corner_residuals, make_report, rms
from calibration.rig import CameraRig

if TYPE_CHECKING:
    from calibration.board import BoardDetections

__all__ = ["Calibration", "CalibrationOptions", "calibrate_rig"]

Array = NDArray[np.float64]

ROBUST, ROBUST_SCALE = "huber", 3.0
LEAST_NOISE_PX = 0.05
"""Corners are not taken to be better than this when misdetections are told from noise."""
LEAST_IN_STEP = 0.95
"""Share of the corners that fit once the cameras are taken to have been late: below, that is not what was wrong."""
MOST_LEFT = 0.7
"""Of the corners' scatter as if in step: what may be left with clocks where it is not explained by noise."""
FRAMES_PER_S = 30.0
"""Taken where no times are known; clocks are told in frames then."""
MOST_MISFIT = 1.5
"""Scatter of a camera's corners in the rig, over that in its own images alone, from which it may be out of step where
no times are known: to look for clocks takes a while, and frames may not follow each other evenly."""
LEAST_FOLD = 2
"""Frames with a board that each half of the footage must have for a held-out error."""


@dataclass(frozen=True)
class CalibrationOptions:
    """focal_tolerance: relative standard deviation above which a focal length is not determined by the footage.
    reject_sigmas: a corner farther from its board than this many times its camera's noise is a misdetection.
    clocks: find out how far the cameras are out of step, where the times of the moments are known.
    refine: the given intrinsics are adjusted, too, from what they are on.
    bend: the boards may be bent, skewed, and stretched one way; their shape is found with the rig.
    audit: find out what the rig is worth, too: the report's held-out error, findings and precision.
    intrinsics, extrinsics: options of these two steps."""

    focal_tolerance: float = 0.01
    reject_sigmas: float = 10.0
    clocks: bool = True
    refine: bool = False
    bend: bool = False
    audit: bool = True
    intrinsics: IntrinsicsOptions = field(default_factory=IntrinsicsOptions)
    extrinsics: ExtrinsicsOptions = field(default_factory=ExtrinsicsOptions)


@dataclass(frozen=True, eq=False)
class Calibration:
    """rig: its world is the first camera's frame, its unit the board's, with covariance. report: what it is worth.
    board_R (frames, boards, 3, 3), board_t (frames, boards, 3): world_from_board, NaN where a board could not be
    placed. detections: whose frames these are; the corners of cameras that were out of step are set right."""

    rig: CameraRig
    report: CalibrationReport
    board_R: Array  # noqa: N815
    board_t: Array
    detections: BoardDetections


def calibrate_rig(
    detections: BoardDetections,
    options: CalibrationOptions | None = None,
    intrinsics: Mapping[str, Intrinsics] | None = None,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> Calibration:
    """Place all cameras, and find the intrinsics of those that are not in `intrinsics` (by name), which are held unless
    they shall be refined.

    A focal length that the footage does not determine to `options.focal_tolerance` is held, with all intrinsics of its
    camera, at the better known of two values: from the camera's own images, or from the rig; the report names it. Other
    intrinsics are held at their prior (distortion 0, principal point at the image's middle) where the footage says less
    about them than the prior. Misdetected corners take no part in the fit, but in the report's error. Nothing is
    random. Raises InputError for cameras that see no board, are mirrored, are cut off from the others, or whose given
    intrinsics are of another image size; each by name. What else is wrong the report names (`calibration.audit`).
    """
    options, given = options or CalibrationOptions(), intrinsics or {}
    tell = _steps(progress, len(detections.view_names) + 4)
    _check(detections, given, options)
    alone = _alone(detections, options, given, tell)
    start = {**given, **{name: own.intrinsics for name, own in alone.items()}}
    first = initial_rig(detections, start, options.extrinsics)
    footage = check_footage(detections)
    tell()
    seek = options.clocks and not any(finding.kind in BROKEN for finding in footage)
    timed = bool(np.isfinite(detections.time).any())
    detections, first, kept, robust, clocks = _in_step(detections, first, alone, options, seek)
    tell()
    known, result = adjust_determined(kept, first, robust, alone, options.focal_tolerance)
    if clocks is not None:
        told = replace(known.options(FINE), clocks=clocks.free)
        for _ in range(2):
            detections, kept = clocks.made_up_again(result, detections, kept)
            result = adjust_boards(result.rig, result.board_R, result.board_t, kept, told)
        clocks, (detections, kept) = set_right(clocks, result, told, detections, kept)
        if not timed:
            detections, kept = (replace(d, time=np.full_like(d.time, np.nan)) for d in (detections, kept))
            clocks = clocks.in_units(FRAMES_PER_S)
    bent: tuple[float, ...] = ()
    if options.bend:
        result, points, bent = bend_boards(result, kept, known.options(FINE))
        detections, kept = (replace(found, points=points) for found in (detections, kept))
    tell()
    held_out = _held_out(kept, detections, result, known) if options.audit else float("nan")
    clock = None if clocks is None else (clocks.clock, clocks.sigma, "s" if timed else "frames")
    report = replace(make_report(detections, kept, result, known, alone, held_out, clock), bent=bent)
    if options.audit:
        findings, precision = audit(footage, detections, kept, result, known, alone, report)
        report = replace(report, findings=findings, precision=precision)
    tell()
    return Calibration(result.rig, report, result.board_R, result.board_t, detections)


def _alone(
    detections: BoardDetections, options: CalibrationOptions, given: Mapping[str, Intrinsics], tell: Callable[[], None]
) -> dict[str, IntrinsicsEstimate]:
    """What each camera's own images say of its intrinsics, where these are sought."""
    found = {}
    for name in detections.view_names:
        if name not in given:
            found[name] = estimate_intrinsics(detections, name, options.intrinsics)
        elif options.refine:
            found[name] = refined_intrinsics(detections, name, given[name], options.intrinsics)
        tell()
    return found


def _steps(progress: Callable[[str, int, int], None] | None, total: int) -> Callable[[], None]:
    done = 0

    def tell() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress("calibrate", done, total)

    return tell


def _check(detections: BoardDetections, given: Mapping[str, Intrinsics], options: CalibrationOptions) -> None:
    """Names and image sizes of the given intrinsics; that every camera sees a board."""
    names = list(detections.view_names)
    for name in options.intrinsics.lens:
        if name not in names:
            raise InputError(f"lens of camera '{name}': it is not in the footage; {nearest_name(name, names)}")
    for name, intrinsics in given.items():
        if name not in names:
            raise InputError(f"intrinsics of camera '{name}': it is not in the footage; {nearest_name(name, names)}")
        width, height = (int(length) for length in detections.sizes[names.index(name)])
        if tuple(intrinsics.size) != (width, height):
            raise InputError(
                f"camera '{name}': expected images of {intrinsics.size[0]}x{intrinsics.size[1]} px, as in its "
                f"intrinsics, got {width}x{height}; give intrinsics for this image size, or leave them out"
            )
    index = np.asarray(detections.board_index)
    blind = []
    for name, seen in zip(names, np.isfinite(detections.corners[..., 0]), strict=True):
        least = MIN_CORNERS if name in given else options.intrinsics.min_corners
        most = max(int(seen[:, index == b].sum(axis=1).max(initial=0)) for b in range(len(detections.boards)))
        if most < least:
            blind.append(f"{name} (at most {most} corners of a board in a frame, expected {least})")
    if blind:
        raise InputError(
            f"cameras that see no board: {', '.join(blind)}; film the board so that each camera sees it whole "
            "and sharp, check that board.toml describes the board that was filmed, or leave these cameras out"
        )
    refuse_mirrored(detections)


def _without_misdetections(
    detections: BoardDetections, first: Start, alone: Mapping[str, IntrinsicsEstimate], options: CalibrationOptions
) -> tuple[BoardDetections, Start]:
    """The detections without corners far off, their sigma scaled to the corners' actual noise; and the fit to them.

    A robust fit finds the worst; a second fit without those says which of all corners it cannot explain.
    """
    free = {name: free_parameters(own.intrinsics) for name, own in alone.items()}
    bundle = BundleOptions(ROBUST, ROBUST_SCALE, free, weak_priors(alone), solver=ROUGH)
    kept, fit = detections, first
    for _ in range(2):
        adjusted = adjust_boards(*fit, kept, bundle, covariance=False)
        fit = adjusted.rig, adjusted.board_R, adjusted.board_t
        residuals = corner_residuals(*fit, detections)
        noise = np.nan_to_num([corner_noise(view) for view in residuals])
        gate = options.reject_sigmas * np.maximum(noise, LEAST_NOISE_PX)
        wrong = np.linalg.norm(residuals, axis=-1) > gate[:, None, None]
        factor = corner_noise(residuals / detections.sigma[..., None])
        kept = replace(
            detections,
            corners=np.where(wrong[..., None], np.nan, detections.corners),
            sigma=detections.sigma * max(factor, np.finfo(float).eps),
        )
        bundle = replace(bundle, loss="linear")
    return kept, fit


def _in_step(
    detections: BoardDetections, first: Start, alone: Mapping[str, IntrinsicsEstimate], options: CalibrationOptions,
    seek: bool,
) -> tuple[BoardDetections, Start, BoardDetections, Start, Clocks | None]:  # fmt: skip
    """The detections and the first rig, set right where cameras are found to be out of step; both without
    misdetections; and the clocks, if so. seek: whether these are sought."""
    timed = bool(np.isfinite(detections.time).any())
    plain = None if timed and seek else _without_misdetections(detections, first, alone, options)
    if seek and (plain is None or _unexplained(*plain, alone)):
        paced = detections if timed else replace(detections, time=detections.frame / FRAMES_PER_S)
        clocks = find_clocks(paced, first[0], ROBUST, ROBUST_SCALE)
        if clocks is not None:
            start = clocks.rig, clocks.board_R, clocks.board_t
            kept, robust = _without_misdetections(clocks.detections, start, alone, options)
            n_kept, n_seen = (np.isfinite(found.corners).sum() for found in (kept, clocks.detections))
            fits = n_kept > LEAST_IN_STEP * n_seen
            if fits and _unexplained(kept, robust, alone):
                plain = plain or _without_misdetections(detections, first, alone, options)
                fits = _scatter(kept, robust) < MOST_LEFT * _scatter(*plain)
            if fits:
                return clocks.detections, start, kept, robust, clocks
    return detections, first, *(plain or _without_misdetections(detections, first, alone, options)), None


def _unexplained(kept: BoardDetections, robust: Start, alone: Mapping[str, IntrinsicsEstimate]) -> bool:
    """Whether the corners that cameras share scatter more in the rig than in each camera's own images, or nothing is
    known of these."""
    scatter = dict(zip(kept.view_names, _shared_residuals(kept, robust), strict=True))
    return any(
        name not in alone or corner_noise(view) > MOST_MISFIT * alone[name].noise for name, view in scatter.items()
    )


def _scatter(kept: BoardDetections, robust: Start) -> float:
    return corner_noise(_shared_residuals(kept, robust))


def _shared_residuals(kept: BoardDetections, robust: Start) -> Array:
    """(views, frames, corners, 2) px, in the frames in which several cameras see a board."""
    shared = np.isfinite(kept.corners[..., 0]).any(axis=2).sum(axis=0) > 1
    return corner_residuals(*robust, kept)[:, shared]


def _held_out(kept: BoardDetections, detections: BoardDetections, result: BundleResult, known: Knowledge) -> float:
    """px rms of all corners: cameras fitted on every second frame, boards of the others posed, and vice versa."""
    posed = np.flatnonzero(np.isfinite(result.board_t[..., 0]).any(axis=1))
    if len(posed) < 2 * LEAST_FOLD:
        return float("nan")
    errors = np.full(detections.corners.shape, np.nan)
    for fold in (0, 1):
        fit, test = posed[fold::2], posed[1 - fold :: 2]
        cameras = adjust_boards(result.rig, *_only(result, fit), kept, known.options(), covariance=False).rig
        still = BundleOptions(fixed=cameras.names, solver=ROUGH)
        boards = adjust_boards(cameras, *_only(result, test), kept, still, covariance=False)
        errors[:, test] = corner_residuals(cameras, boards.board_R, boards.board_t, detections)[:, test]
    return rms(errors)


def _only(result: BundleResult, frames: NDArray[np.intp]) -> tuple[Array, Array]:
    """The board poses of these frames; NaN elsewhere."""
    R, t = np.full_like(result.board_R, np.nan), np.full_like(result.board_t, np.nan)
    R[frames], t[frames] = result.board_R[frames], result.board_t[frames]
    return R, t
