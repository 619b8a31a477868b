"""May a paper rest on this calibration? All checks, in the order in which one mistake hides another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from calibration.board import BoardDetections
from calibration.bundle import BundleResult
from calibration.errors import InputError
from calibration.explanations import SHADOW, explain, freedom
from calibration.findings import VAGUE_FOCAL, Finding
from calibration.footage_checks import BROKEN
from calibration.held import Knowledge
from calibration.intrinsics import IntrinsicsEstimate, estimate_intrinsics
from calibration.lens_checks import check_stretched, check_swapped
from calibration.place_checks import check_collapsed, check_repeatable, check_squares
from calibration.precision import VolumePrecision, volume_precision
from calibration.report import CalibrationReport
from calibration.rig_checks import (
    MOST_MISFIT,
    check_cameras,
    check_jitter,
    check_late,
    check_outlier_frames,
    describe,
    with_lost_boards,
    worth_fitting,
)
from calibration.scores import Placed
from calibration.timing import odd_ones_out, pair_delays

__all__ = ["audit"]

BOARD = ("wrong_board_geometry", "bent_board")
"""Kinds that no lens brings about."""
LIKE_A_LENS = ("moved", "out_of_sync", "sync_jitter")
"""Kinds as which a wrong focal length may appear."""
UNEVEN = ("sync_jitter", "outlier_frames")
"""Kinds as which what is left of a delay that was made up for may appear."""
MOST_LOST = 0.05
"""Share of corners that the fit gave up, beyond which something must be wrong."""
LEAST_NOISE_PX = 0.05
"""Corners are not taken to be better than this, so that what no eye sees is no fault."""


def audit(
    footage: Sequence[Finding],
    detections: BoardDetections,
    kept: BoardDetections,
    result: BundleResult,
    known: Knowledge,
    alone: Mapping[str, IntrinsicsEstimate],
    report: CalibrationReport,
) -> tuple[tuple[Finding, ...], VolumePrecision]:
    """What is wrong with an adjusted rig, what makes it wrong first; and how precise it is.

    footage: what was found in the footage itself (`check_footage`). detections: cameras that were out of step set
    right; kept: without misdetections. known, alone: of cameras that came without intrinsics. report: the
    figures already made. A mistake that spoils all (a camera late by many frames, a frozen or doubled video) is named
    alone: what else there may be shows once it is gone.
    """
    rig = result.rig
    own = {name: alone.get(name) or _own(detections, name) for name in rig.names}
    noise = {name: report.camera(name).noise if lens is None else lens.noise for name, lens in own.items()}
    scatter = np.maximum([noise[name] for name in rig.names], LEAST_NOISE_PX)
    usable = worth_fitting(detections, kept)
    fitted = Placed.of(rig, result.board_R, result.board_t, usable, scatter)
    precision = volume_precision(fitted)
    findings = list(footage)
    if not any(finding.kind in BROKEN for finding in findings):
        lost = report.n_rejected + report.n_unplaced > MOST_LOST * (report.n_corners + report.n_unplaced)
        gross = lost or any(report.camera(name).noise > MOST_MISFIT * noise[name] for name in rig.names)
        lenses = [rig[name].intrinsics if lens is None else lens.intrinsics for name, lens in own.items()]
        pairs = pair_delays(detections, lenses) if gross else {}
        boards = with_lost_boards(rig, result.board_R, result.board_t, usable)
        placed = Placed.of(rig, *boards, usable, scatter)
        odd = tuple(detections.view_names[v] for v in odd_ones_out(pairs, len(rig)))
        late = check_late(detections.view_names, pairs)
        findings += late or _of_the_odd(odd, _explained(placed, detections, usable, known, alone))
    if not any(finding.kind == "wrong_board_geometry" for finding in findings):
        findings += check_stretched(alone.values())
    findings += check_collapsed(rig, np.asarray(precision.middle))
    vague = {name for name, lens in alone.items() if lens.focal_sigma > VAGUE_FOCAL * lens.focal}
    vague &= {camera.name for camera in report.cameras if camera.reason}
    findings = [f for f in findings if f.kind not in LIKE_A_LENS or not vague & set(f.cameras)]
    mistakes = {f.kind for f in findings if f.kind in BOARD or f.grave} - {"hardly_linked"}
    findings += check_cameras(report.cameras, noise, mistakes)
    wrong = {name for f in findings if f.kind == "out_of_sync" and f.grave for name in f.cameras}
    findings = [f for f in findings if not (f.kind == "out_of_sync" and f.slight and wrong & set(f.cameras))]
    if any(camera.offset for camera in report.cameras):  # corners between frames are known a little less well
        findings = [f for f in findings if not (f.slight and f.kind in UNEVEN)]
    if any(camera.reason for camera in report.cameras):
        findings = [f for f in findings if not (f.slight and f.kind in LIKE_A_LENS and f.unit != "s")]
    harmless = {finding.kind for finding in findings} <= {
        "blurred",
        "clipped_coverage",
        "hardly_linked",
        "focal_unknown",
    }
    findings += check_squares(report.squares, fitted) if harmless else ()
    if not any(finding.grave for finding in findings):
        findings += check_repeatable(report.rms, report.rms_held_out)
    return tuple(sorted(findings, key=lambda finding: not finding.grave)), precision


def _explained(
    placed: Placed,
    detections: BoardDetections,
    usable: BoardDetections,
    known: Knowledge,
    alone: Mapping[str, IntrinsicsEstimate],
) -> list[Finding]:
    """What explains that the cameras disagree, and the frames that are left over; where there are only such, what the
    other frames say."""
    rig = placed.rig
    given = [v for v, name in enumerate(rig.names) if name not in alone]
    frames = np.asarray(detections.frame)[placed.frame]
    numbers = detections.numbers[[detections.view_names.index(name) for name in rig.names]][:, placed.frame]
    found, fit = explain(placed, *freedom(rig, known.options()), frames, given)
    findings = [describe(one, placed, detections) for one in found]
    foreign = [rig.names[one.mistake.view] for one in found if one.mistake.kind == "lens"]
    foreign += [rig.names[v] for one in found if one.mistake.kind == "lens" for v in one.others]
    if foreign and (swapped := check_swapped(usable, rig, [rig.names[v] for v in given])):
        names = {name for finding in swapped for name in finding.cameras}
        findings = [f for f in findings if f.kind != "wrong_intrinsics" or not names & set(f.cameras)]
        findings += swapped
    least = SHADOW * max((one.gain for one in found), default=0.0)
    jitter = check_jitter(fit, frames, numbers, least)
    told = [finding for finding in findings if not finding.slight]
    odd = jitter or (() if told else check_outlier_frames(fit, numbers, least))
    if odd and not jitter and not found:
        rest = placed.without([(finding.cameras, finding.frames) for finding in odd], numbers)
        again, _ = explain(rest, *freedom(rig, known.options()), frames, given)
        findings = [describe(one, rest, detections) for one in again]
    return findings + list(odd)


def _of_the_odd(odd: tuple[str, ...], findings: list[Finding]) -> list[Finding]:
    """What is said of the camera that agrees with no other, while these agree with each other: all blame is its own."""
    own = [finding for finding in findings if not odd or not finding.cameras or set(odd) & set(finding.cameras)]
    if odd and not any(finding.grave and finding.cameras for finding in own):
        own.append(
            Finding(
                "out_of_sync", odd,
                "what it shows goes with what the others show at no delay: dropped frames, another frame rate, or "
                "another recording",
                "look at its video beside another one; give timestamps under [sync_calibration] and [sync], or film "
                "again",
            )
        )  # fmt: skip
    return own


def _own(detections: BoardDetections, name: str) -> IntrinsicsEstimate | None:
    """What the images of a camera with given intrinsics say themselves; None where too few boards are seen."""
    try:
        return estimate_intrinsics(detections, name)
    except InputError:
        return None
