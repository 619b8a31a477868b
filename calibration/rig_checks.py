"""What is wrong with a rig, or with how it was filmed? Findings from a fit and from what explains its residuals."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from calibration.board import BoardDetections
from calibration.camera import project_jacobian
from calibration.explanations import Explained, velocity
from calibration.findings import Finding
from calibration.omissions import leave_out_line
from calibration.planar import MIN_CORNERS, board_views
from calibration.report import CameraReport
from calibration.rig import CameraRig
from calibration.scores import Linearised, Placed
from calibration.timing import Pairs, whole_delays
from calibration.transforms import apply, compose, invert

__all__ = [
    "check_cameras", "check_jitter", "check_late", "check_outlier_frames", "describe", "with_lost_boards",
    "worth_fitting",
]  # fmt: skip

Array = NDArray[np.float64]

MOST_NOISE_PX = 1.0
"""Corners of a sharp picture scatter by 0.05 to 0.5 px."""
MOST_REJECTED, MOST_MISFIT = 0.02, 3.0
"""A warning is due above this share of rejected corners, this ratio of a camera's noise in the rig and alone."""
FAR_PX = 50.0
"""Distance at which a corner is elsewhere, and no farther corner counts for more."""
SLIGHT_PX = 1.0
"""Mistakes that move corners by less are told, and the rig is good within that."""
MOST_LATE = 5.0
"""Standard deviations from which a camera's time offset is taken for real."""
CHANCE = 1e-4
MANY_FRAMES = 3
"""Delays below this are small enough for the fit's own derivatives, which tell them from other mistakes."""
OUTLIER_SIGMAS = 3.0  # rms distance over the corners' noise that a frame is off, to be named
LEAST_POSES, JITTER_RATIO, LEAST_GAIN = 10, 4.0, 0.25
SMOOTH = 0.6
"""Of the boards' times: what changes less from one board to the next goes with the motion, as a wrong lens does."""
ONE_STEP = 0.4
"""Share of the deviations of boards' times that two constants may leave, to be one step and no jitter."""


def worth_fitting(detections: BoardDetections, kept: BoardDetections) -> BoardDetections:
    """The kept corners, and those of boards that a camera sees elsewhere as a whole (most of its corners rejected):
    a wrong corner is the detector's mistake, a wrong board is the footage's."""
    index = np.asarray(detections.board_index)
    seen, fitted = np.isfinite(detections.corners[..., 0]), np.isfinite(kept.corners[..., 0])
    corners = kept.corners.copy()
    for b in range(len(detections.boards)):
        own = index == b
        there = seen[..., own].sum(axis=-1)
        whole = (there >= MIN_CORNERS) & (fitted[..., own].sum(axis=-1) < 0.5 * there)
        back = whole[..., None] & own
        corners[back] = detections.corners[back]
    return replace(kept, corners=corners)


def with_lost_boards(rig: CameraRig, R: Array, t: Array, detections: BoardDetections) -> tuple[Array, Array]:
    """world_from_board R, t with those that the fit gave up, as no two cameras agree on them, where most corners would
    have them; of boards that two cameras see well enough to disagree."""
    R, t = R.copy(), t.copy()
    index = np.asarray(detections.board_index)
    seen = np.isfinite(detections.corners[..., 0])
    views = [board_views(detections, camera.name, camera.intrinsics) for camera in rig]
    order = [list(detections.view_names).index(name) for name in rig.names]
    for frame, b in np.argwhere(~np.isfinite(t).all(axis=-1)):
        if sum(np.isfinite(view.error[frame, b, 0]) for view in views) < 2:
            continue
        own = np.flatnonzero(index == b)
        least = np.inf
        for camera, view in zip(rig, views, strict=True):
            back = invert(camera.R, camera.t)
            for i in np.flatnonzero(np.isfinite(view.error[frame, b])):
                pose = compose(*back, view.R[frame, b, i], view.t[frame, b, i])
                away = (
                    rig.project(apply(*pose, detections.object_points[own])) - detections.corners[order, frame][:, own]
                )
                px = np.nan_to_num(np.linalg.norm(away, axis=-1), nan=FAR_PX)
                cost = float(np.minimum(px, FAR_PX)[seen[order, frame][:, own]].sum())
                if cost < least:
                    least, R[frame, b], t[frame, b] = cost, *pose
    return R, t


def describe(found: Explained, placed: Placed, detections: BoardDetections) -> Finding:
    """A mistake in words."""
    return replace(_told(found, placed, detections), slight=found.effect_px < SLIGHT_PX)


def _told(found: Explained, placed: Placed, detections: BoardDetections) -> Finding:
    mistake, names = found.mistake, placed.rig.names
    who = () if mistake.view < 0 else tuple(names[v] for v in (mistake.view, *found.others))
    view = detections.view_names.index(names[max(mistake.view, 0)])
    frame = int(detections.numbers[view, placed.frame[mistake.start]])
    if mistake.kind == "delay":
        since = frame if mistake.start else None
        return _late(who, float(found.value[0]), float(found.sigma[0]), found.effect_px, since)
    if mistake.kind == "move":
        shift, turn = _move(found, placed)
        return Finding(
            "moved", who,
            f"moved before frame {frame}: from there on it sees the board {found.effect_px:.1f} px from where it would "
            f"have, as if turned by {np.rad2deg(turn):.2f} degrees and shifted by {shift:.2f} {placed.rig.unit}",
            "calibrate with the frames before or after it only, and use that for recordings of that time",
            found.effect_px, 0.0, "px", (frame,),
        )  # fmt: skip
    if mistake.kind == "lens":
        f, x, y, k = (found.value[:2].mean(), *found.value[2:5])
        return Finding(
            "wrong_intrinsics", who,
            f"its given intrinsics do not fit, by {found.effect_px:.1f} px: the footage wants a focal length of "
            f"{f:+.1f} px, a centre of ({x:+.1f}, {y:+.1f}) px and k1 of {k:+.3f} more",
            "give the intrinsics of this camera at this zoom, focus and crop, or leave them out",
            found.effect_px, 0.0, "px",
        )  # fmt: skip
    if mistake.kind == "shutter":
        return Finding(
            "rolling_shutter", who,
            f"the rows of its pictures are taken one after the other, within {abs(found.value[0]):.2f} ± "
            f"{found.sigma[0]:.2f} frames: {found.effect_px:.1f} px at the board's speed",
            "move the board slowly or rest it, and mind that fast animals are off likewise; or use a global shutter",
            abs(float(found.value[0])), 0.0, "frames",
        )  # fmt: skip
    if mistake.kind == "back":
        return _shifted_back(found, placed, detections)
    return _shape(found, placed)


def _shifted_back(found: Explained, placed: Placed, detections: BoardDetections) -> Finding:
    (x, y, z), unit = found.value, placed.rig.unit
    pose = next(int(np.argmax(p.any(axis=(1, 2, 3)))) for p in found.mistake.columns if p is not None and p.any())
    back = detections.boards[placed.board[pose]].back
    assert back is not None
    thick = back.thickness + z
    return Finding(
        "wrong_board_geometry", (),
        f"its back lies elsewhere than described: {thick:.2f} {unit} from its front, not {back.thickness:g}, and "
        f"shifted by ({x:+.2f}, {y:+.2f}) {unit} along the front's rows and columns: {found.effect_px:.2f} px",
        f"measure the board: thickness = {thick:.2f} may be right; print both sides edge on edge",
        float(thick), float(back.thickness), unit,
    )  # fmt: skip


def _late(
    who: tuple[str, ...], late: float, sigma: float = 0.0, effect_px: float = 0.0, frame: int | None = None
) -> Finding:
    told = f"{abs(late):.2f} ± {sigma:.2f}" if sigma else f"{abs(late):.0f}"
    what = f"{told} frames {'late' if late > 0 else 'early'}" + (f", {effect_px:.1f} px" if effect_px else "")
    if frame is not None:
        return Finding(
            "out_of_sync", who, f"from frame {frame} on it is {what}",
            "it dropped or doubled frames there: give timestamps under [sync_calibration] and [sync], or use the "
            "frames before it only", late, 0.0, "frames", (frame,),
        )  # fmt: skip
    shown = f"what the others show in frame n, it shows in frame n {'+' if late > 0 else '-'} {abs(late):.2g}"
    line = f"offset_frames = {{ {who[0]} = {-late:.4g} }}"
    return Finding(
        "out_of_sync", who, f"{what} ({shown})",
        f"add {line} under [sync_calibration], and under [sync] if its recordings begin alike, or cut its video",
        late, 0.0, "frames",
    )  # fmt: skip


def _move(found: Explained, placed: Placed) -> tuple[float, float]:
    """How far the camera's centre went and by how much it turned (rad)."""
    turn, shift, t = found.value[:3], found.value[3:], placed.rig.cameras[found.mistake.view].t
    return float(np.linalg.norm(shift - np.cross(turn, t))), float(np.linalg.norm(turn))


def _shape(found: Explained, placed: Placed) -> Finding:
    stretch, shear, *bend = found.value
    local = np.einsum("pji,pcj->pci", placed.R, placed.world - placed.t[:, None])
    local -= np.nanmean(local, axis=1, keepdims=True)
    size = float(np.nanmax(np.linalg.norm(local, axis=-1)))
    x, y = local[..., 0] / size, local[..., 1] / size
    z = size * (bend[0] * x * x + bend[1] * x * y + bend[2] * y * y)
    sag = float(np.nanmax(z) - np.nanmin(z))
    unit = placed.rig.unit
    if sag > max(abs(stretch), abs(shear)) * size:
        return Finding(
            "bent_board", (), f"it is bent by {sag:.2f} {unit}, which makes {found.effect_px:.2f} px",
            "fix the print to a flat, stiff plate and film again, or set bend = true under [calibrate]", sag, 0.0, unit,
        )  # fmt: skip
    return Finding(
        "wrong_board_geometry", (),
        f"its squares are not square: {abs(stretch):.2%} {'longer' if stretch > 0 else 'shorter'} down than across, "
        f"and skewed by {abs(shear):.2%}: {found.effect_px:.2f} px",
        "print it without scaling, or measure squares both ways, and fix it to a flat plate", 1.0 + float(stretch), 1.0,
        "ratio",
    )  # fmt: skip


def check_late(names: Sequence[str], pairs: Pairs) -> tuple[Finding, ...]:
    """Cameras, by name in the order of the views, that are late by many frames. pairs: of views."""
    delays = whole_delays(pairs, len(names))
    delays = np.where(np.abs(delays) < MANY_FRAMES, 0, delays)
    if len(names) == 2 and delays.any():
        return (_late((names[1], names[0]), float(delays[1])),)
    return tuple(_late((name,), float(late)) for name, late in zip(names, delays, strict=True) if late)


def check_jitter(
    fit: Linearised, frames: NDArray[np.int64], numbers: NDArray[np.int64], least: float = 0.0
) -> tuple[Finding, ...]:
    """Cameras whose frames come at uneven times: boards are off along their motion, by another time each.

    frames: (poses,) of the moments. numbers: (views, poses) of the pictures in each camera's own footage. least:
    chi-square below which it may be left over from what was explained before.
    """
    placed, found = fit.placed, []
    speed = np.nan_to_num(velocity(placed, frames))
    for v, camera in enumerate(placed.rig):
        J = project_jacobian(apply(camera.R, camera.t, placed.world), camera.intrinsics)[1] @ camera.R
        along = fit.over_noise(v, -np.nan_to_num(np.einsum("pcij,pcj->pci", J, speed))[..., None])
        gradient, curvature, _ = fit.by_pose(v, along)
        total, dof = fit.disagreement(v)
        used = (dof == 6) & (curvature[:, 0, 0] > 0)
        if used.sum() < LEAST_POSES:
            continue
        time = -gradient[used, 0] / curvature[used, 0, 0]
        own = gradient[used, 0] ** 2 / curvature[used, 0, 0]
        ratio = float(np.median(own) / chi2.median(1)), float(np.median(total[used] - own) / chi2.median(5))
        coordinates = 2 * np.median(placed.seen[v].sum(axis=1)[used])
        leaps = np.median(np.abs(np.diff(time))) > SMOOTH * np.median(np.abs(time))
        if (
            leaps
            and ratio[0] > JITTER_RATIO * max(ratio[1], 1.0)
            and own.sum() > max(LEAST_GAIN * coordinates * len(own), least)
        ):
            pixels = np.linalg.norm(np.einsum("pcij,pcj->pci", J, speed)[used] * time[:, None, None], axis=-1)
            found.append((ratio[0], v, numbers[v, used], time, float(np.nanmedian(pixels[placed.seen[v][used]]))))
    worst = max((ratio for ratio, *_ in found), default=0.0)
    return tuple(_uneven(placed.rig.names[v], *told) for ratio, v, *told in found if ratio > 0.5 * worst)


def _uneven(name: str, frames: NDArray[np.int64], time: Array, px: float) -> Finding:
    """A camera whose boards are off by these times (in frames), px by the median: a step, or jitter."""
    spread = float(np.median(np.abs(time)) * 1.4826)
    sides = [(time[:i], time[i:]) for i in range(LEAST_POSES // 2, len(time) - LEAST_POSES // 2 + 1)]
    rest = [sum(float(np.abs(side - np.median(side)).sum()) for side in pair) for pair in sides]
    best = int(np.argmin(rest)) if rest else 0
    if rest and rest[best] < ONE_STEP * float(np.abs(time - np.median(time)).sum()):
        before, after = sides[best]
        late = float(np.median(after) - np.median(before))
        return _late((name,), late, effect_px=px, frame=int(frames[len(before)]))
    return Finding(
        "sync_jitter", (name,),
        f"its frames come at uneven times, by {spread:.2f} frames against the others' (standard deviation)",
        "trigger the cameras by hardware or give [sync_calibration] timestamps; move the board slowly",
        spread, 0.0, "frames", slight=px < SLIGHT_PX,
    )  # fmt: skip


def check_outlier_frames(fit: Linearised, numbers: NDArray[np.int64], least: float = 0.0) -> tuple[Finding, ...]:
    """Frames of a camera in which the whole board is elsewhere than for the others. least: as in `check_jitter`.

    numbers: (views, poses) of the pictures in each camera's own footage. The findings' frames are those of the first
    camera that they name.
    """
    placed = fit.placed
    views, poses = placed.seen.shape[:2]
    total, off = np.zeros((views, poses)), np.zeros((views, poses), dtype=bool)
    size = np.zeros((views, poses))
    for v in range(views):
        total[v], dof = fit.disagreement(v)
        used = dof > 0
        if used.sum() < 2 * LEAST_POSES:
            continue
        dispersion = max(1.0, float(np.median(total[v, used] / chi2.median(dof[used]))))
        limit = dispersion * chi2.isf(CHANCE / (views * poses), np.maximum(dof, 1))
        size[v] = np.sqrt(total[v] / np.maximum(2 * placed.seen[v].sum(axis=1), 1))
        off[v] = used & (total[v] > limit) & (size[v] > OUTLIER_SIGMAS)
    off &= total[off].sum() > least
    named: dict[tuple[str, ...], list[int]] = {}
    worst: dict[tuple[str, ...], float] = {}
    for pose in np.flatnonzero(off.any(axis=0)):
        who = tuple(placed.rig.names[v] for v in np.flatnonzero(total[:, pose] > 0.9 * total[:, pose].max()))
        named.setdefault(who, []).append(int(pose))
        px = float((size[:, pose] * placed.noise).max())
        worst[who] = max(worst.get(who, 0.0), px)
    findings = []
    for who, odd in named.items():
        frames = {name: numbers[placed.rig.index(name), odd].tolist() for name in who}
        shown = ", ".join(map(str, frames[who[0]][:12])) + (", ..." if len(odd) > 12 else "")
        findings.append(
            Finding(
                "outlier_frames", who,
                f"sees the board elsewhere than the others in {len(odd)} frames, by up to {worst[who]:.1f} px: {shown}",
                "look at these frames (a fast board before a rolling shutter, a dropped frame); to leave them out, "
                + leave_out_line(frames), float(len(odd)), 0.0, "frames", tuple(frames[who[0]]), worst[who] < SLIGHT_PX,
            )
        )  # fmt: skip
    return tuple(findings)


def check_cameras(
    cameras: Sequence[CameraReport], noise: Mapping[str, float], mistakes: Collection[str]
) -> tuple[Finding, ...]:
    """Blur, offsets made up for; and, unless mistakes (kinds of findings) bring them about, focal lengths that are not
    determined, misfit and rejected corners. noise: px, scatter of a camera's corners in its own images alone."""
    findings = []
    for camera in cameras:
        who, alone = (camera.name,), noise[camera.name]
        if camera.reason and not set(mistakes) - {"sync_jitter"}:
            findings.append(
                Finding(
                    "focal_unknown", who, f"its focal length is not determined by this footage: {camera.reason}",
                    "film the board tilted by 30 to 60 degrees, near and far, all over its image, or give intrinsics "
                    "from footage of it alone", camera.focal_sigma / camera.focal, 0.01, "share",
                )
            )  # fmt: skip
        if abs(camera.offset) > MOST_LATE * camera.offset_sigma > 0:
            findings.append(_set_right(camera, cameras))
        if alone > MOST_NOISE_PX:
            findings.append(
                Finding(
                    "blurred", who, f"its corners scatter by {alone:.2f} px in its own images, as in blurred ones",
                    "focus it, give more light or a shorter exposure, and move the board slowly", alone, MOST_NOISE_PX,
                    "px",
                )
            )  # fmt: skip
        if camera.noise > MOST_MISFIT * alone and not mistakes:
            findings.append(
                Finding(
                    "misfit", who,
                    f"corners scatter by {camera.noise:.2f} px in the rig, but by {alone:.2f} px in its own images",
                    "move the board slowly, and check that the cameras are synchronous, the board flat and no camera "
                    "was moved", camera.noise, MOST_MISFIT * alone, "px", slight=camera.noise < SLIGHT_PX,
                )
            )  # fmt: skip
        if camera.rejected > MOST_REJECTED * camera.corners and not mistakes:
            findings.append(
                Finding(
                    "rejected_corners", who, f"{camera.rejected} of {camera.corners} corners rejected",
                    "look at its footage", camera.rejected / camera.corners, MOST_REJECTED, "share",
                )
            )  # fmt: skip
    return tuple(findings)


def _set_right(camera: CameraReport, cameras: Sequence[CameraReport]) -> Finding:
    """A camera that was out of step, whose corners were set right before the fit. Of two, either may be meant."""
    drifts = f", and drifts by {1e6 * camera.drift:+.0f} ppm" if camera.drift else ""
    size, line = f"{1e3 * abs(camera.offset):.1f} ms", f"offsets = {{ {camera.name} = {camera.offset:.4f} }}"
    if camera.offset_unit == "frames":
        size, line = f"{abs(camera.offset):.2f} frames", f"offset_frames = {{ {camera.name} = {-camera.offset:.4g} }}"
    return Finding(
        "out_of_sync", (camera.name, *(other.name for other in cameras if len(cameras) == 2 and other is not camera)),
        f"its pictures of the board were taken {size} too {'late' if camera.offset > 0 else 'early'}{drifts}; that is "
        "made up for here", f"where recordings are made the same way, add {line} under [sync]", camera.offset, 0.0,
        camera.offset_unit, slight=True,
    )  # fmt: skip
