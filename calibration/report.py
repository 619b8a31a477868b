"""What is a calibration worth? Per camera, held out, in millimetres, and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calibration.bundle import BundleResult
from calibration.determination import corner_noise
from calibration.extrinsics import camera_graph
from calibration.findings import Finding
from calibration.footage_checks import coverage
from calibration.geometry import triangulate_linear
from calibration.held import Knowledge
from calibration.intrinsics import IntrinsicsEstimate
from calibration.lenses import free_parameters, lens_of, parameter_names
from calibration.planar import MIN_CORNERS
from calibration.precision import VolumePrecision
from calibration.rig import CameraRig
from calibration.transforms import apply

if TYPE_CHECKING:
    from calibration.board import BoardDetections

__all__ = [
    "CalibrationReport",
    "CameraReport",
    "SquareReport",
    "corner_residuals",
    "make_report",
    "measured_squares",
    "rms",
    "square_lengths",
]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CameraReport:
    """One camera. corners: detected; boards: seen well enough to be placed; rejected: corners not fitted
    (misdetections).

    rms, rms_kept: px, of all corners and without the rejected ones. noise: px, scatter of one coordinate in the rig;
    noise_alone: in its own images alone, NaN where its intrinsics were given. coverage: share of the image that corners
    reach. focal, focal_sigma: px, mean of fx and fy, and its uncertainty (0: given). intrinsics: "given", "adjusted" or
    "held"; held: names of parameters that the footage does not determine; reason: why. lens: of `lenses.LENSES`,
    and why it is taken for that. offset, offset_sigma (s, or frames where no times are
    known: offset_unit), drift (s/s): how much later than its moment a picture was taken, on the clock of the camera in
    the middle of all; 0 where no camera is out of step.
    """

    name: str
    corners: int
    boards: int
    rejected: int
    rms: float
    rms_kept: float
    noise: float
    noise_alone: float
    coverage: float
    focal: float
    focal_sigma: float
    intrinsics: str
    held: tuple[str, ...] = ()
    reason: str = ""
    offset: float = 0.0
    offset_sigma: float = 0.0
    drift: float = 0.0
    offset_unit: str = "s"
    lens: str = "pinhole"
    lens_reason: str = ""


@dataclass(frozen=True)
class SquareReport:
    """Distances of neighbouring corners of one board, corners triangulated linearly: mean and SD in the rig's unit."""

    nominal: float
    mean: float
    sd: float
    count: int


@dataclass(frozen=True)
class CalibrationReport:
    """The whole rig. rms, n_corners: px, every detected corner to the rigid board at its adjusted pose, outliers
    included.

    rms_kept: after rejection of n_rejected corners. n_unplaced: corners of boards that no camera sees well enough to
    place; they are in no rms. rms_held_out: px, cameras fitted on half of the frames and boards posed on the other
    half, both ways. links: (camera, camera, frames in which both see a board). bent: by how much each board is bent
    where that was made up for. findings: what is wrong, by camera and with the remedy. precision: how sure points in
    the volume are, None where it was not asked for.
    """

    unit: str
    cameras: tuple[CameraReport, ...]
    rms: float
    n_corners: int
    rms_kept: float
    n_rejected: int
    n_unplaced: int
    rms_held_out: float
    squares: tuple[SquareReport, ...]
    links: tuple[tuple[str, str, int], ...]
    bent: tuple[float, ...] = ()
    findings: tuple[Finding, ...] = ()
    precision: VolumePrecision | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """The findings in words."""
        return tuple(str(finding) for finding in self.findings)

    @property
    def verdict(self) -> str:
        """In plain words, whether to go on."""
        if grave := [finding for finding in self.findings if finding.grave]:
            return f"Not to be trusted before this is mended: {_listed(grave)}."
        if self.findings:
            return f"Usable within limits: {_listed(self.findings)}. Points are known to {self._in_volume()}."
        return f"No fault found. Points are known to {self._in_volume()}."

    def with_findings(self, more: Sequence[Finding]) -> CalibrationReport:
        """The same with what was found elsewhere; a fault that a camera has already been told of is not repeated."""
        told = {(finding.kind, finding.cameras) for finding in self.findings}
        new = tuple(finding for finding in more if (finding.kind, finding.cameras) not in told)
        return replace(self, findings=self.findings + new)

    def camera(self, name: str) -> CameraReport:
        """The camera of that name."""
        return next(camera for camera in self.cameras if camera.name == name)

    def _in_volume(self) -> str:
        p = self.precision
        if p is None or not np.isfinite(p.rig_middle):
            return "a precision that this footage does not tell"
        return (
            f"{p.rig_middle:.2g} {p.unit} in the middle of the volume and {p.rig_corners:.2g} {p.unit} at its corners "
            f"by the calibration alone (1 px of noise: {p.pixel_middle:.2g} and {p.pixel_corners:.2g} {p.unit})"
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON: plain dicts, lists, numbers; None for NaN."""
        plain: dict[str, Any] = _plain(asdict(self))
        return {"verdict": self.verdict, **plain, "warnings": list(self.warnings)}

    def text(self) -> str:
        """Plain text, a line per camera."""
        lines = [] if self.precision is None else [self.verdict]
        lines += [
            f"board error {self.rms:.3f} px rms over all {self.n_corners} corners "
            f"({self.rms_kept:.3f} without {self.n_rejected} rejected; held out {self.rms_held_out:.3f})"
        ]
        if self.n_unplaced:
            lines.append(f"{self.n_unplaced} more corners are on boards seen too little to be placed")
        lines += [
            f"squares {square.mean:.3f} {self.unit} (nominal {square.nominal:g}), SD {square.sd:.3f}, "
            f"{square.count} triangulated pairs of corners"
            for square in self.squares
            if square.count
        ]
        if self.bent:
            listed = ", ".join(f"{sag:.2g} {self.unit}" for sag in self.bent)
            lines.append(f"boards bent by {listed}; made up for in the figures above")
        width = max(len(camera.name) for camera in self.cameras)
        for camera in self.cameras:
            sigma = f" ± {camera.focal_sigma:.1f}" if camera.focal_sigma > 0 else ""
            held = f" ({', '.join(camera.held)} held)" if camera.held else ""
            lines.append(
                f"{camera.name:{width}}  {camera.corners:6d} corners on {camera.boards:4d} "
                f"boards  rms {camera.rms:.3f} px  covers "
                f"{camera.coverage:4.0%}  focal {camera.focal:.1f}{sigma} px, {camera.intrinsics}{held}"
            )
            if camera.lens != "pinhole":
                lines.append(f"{camera.name:{width}}  {camera.lens} lens: {camera.lens_reason}")
        if any(camera.offset_sigma > 0 for camera in self.cameras):
            scale, unit = (1e3, "ms") if self.cameras[0].offset_unit == "s" else (1.0, "frames")
            late = ", ".join(f"{c.name} {scale * c.offset:+.2f} ± {scale * c.offset_sigma:.2f}" for c in self.cameras)
            lines.append(f"pictures taken late by, {unit}: {late}; made up for in the figures above")
        lines += [f"{a} - {b}: {count} common frames" for a, b, count in self.links]
        lines += [f"warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)


def make_report(
    detections: BoardDetections,
    kept: BoardDetections,
    result: BundleResult,
    known: Knowledge,
    alone: Mapping[str, IntrinsicsEstimate],
    rms_held_out: float,
    clock: tuple[Array, Array, str] | None = None,
) -> CalibrationReport:
    """The report on an adjusted rig. kept: the detections without the rejected corners; alone: by camera without given
    intrinsics, what its own images say. clock: (views, 2) of `clocks.Clocks`, its sigma, and the unit of offsets. Views
    in the detections' order, which is the rig's."""
    residuals = corner_residuals(result.rig, result.board_R, result.board_t, detections)
    seen, fitted = np.isfinite(detections.corners[..., 0]), np.isfinite(kept.corners[..., 0])
    cameras = tuple(
        _camera_report(v, detections, seen[v], fitted[v], residuals[v], result.rig, known, alone)
        for v in range(len(result.rig))
    )
    if clock is not None:
        cameras = _on_the_middle_clock(cameras, *clock)
    links = tuple((a, b, int(edge["common"])) for a, b, edge in camera_graph(detections).edges(data=True))
    lost = np.isnan(result.board_t[..., 0])[:, np.asarray(detections.board_index)]
    placed = replace(kept, corners=np.where(lost[..., None], np.nan, kept.corners))
    squares = square_lengths(result.rig, placed)
    n_corners = int(np.isfinite(residuals[..., 0]).sum())
    return CalibrationReport(
        unit=result.rig.unit,
        cameras=cameras,
        rms=rms(residuals),
        n_corners=n_corners,
        rms_kept=rms(residuals[fitted]),
        n_rejected=int((seen & ~fitted).sum()),
        n_unplaced=int(seen.sum()) - n_corners,
        rms_held_out=rms_held_out,
        squares=squares,
        links=links,
    )


def _camera_report(
    v: int,
    detections: BoardDetections,
    seen: NDArray[np.bool_],
    fitted: NDArray[np.bool_],
    residuals: Array,
    rig: CameraRig,
    known: Knowledge,
    alone: Mapping[str, IntrinsicsEstimate],
) -> CameraReport:
    name, intrinsics = rig.names[v], rig.cameras[v].intrinsics
    own, index = alone.get(name), np.asarray(detections.board_index)
    boards = sum(int((seen[:, index == b].sum(axis=1) >= MIN_CORNERS).sum()) for b in range(len(detections.boards)))
    labels = parameter_names(intrinsics)
    held = () if own is None else np.flatnonzero(free_parameters(intrinsics) & ~known.free[name])
    return CameraReport(
        name=name,
        corners=int(seen.sum()),
        boards=boards,
        rejected=int((seen & ~fitted).sum()),
        rms=rms(residuals),
        rms_kept=rms(residuals[fitted]),
        noise=corner_noise(residuals),
        noise_alone=float("nan") if own is None else own.noise,
        coverage=coverage(detections.corners[v], intrinsics.size),
        focal=float(intrinsics.parameters[:2].mean()),
        focal_sigma=0.0 if own is None else float(known.sigma[name][:2].mean()),
        intrinsics="given" if own is None else "held" if name in known.reason else "adjusted",
        held=tuple(labels[c] for c in held),
        lens=lens_of(intrinsics),
        lens_reason="given" if own is None else own.reason,
        reason=known.reason.get(name, ""),
    )


def _on_the_middle_clock(
    cameras: tuple[CameraReport, ...], clock: Array, sigma: Array, unit: str
) -> tuple[CameraReport, ...]:
    """With offsets relative to the camera whose own is the median: what is odd about one camera is said of that one."""
    middle = np.argsort(clock[:, 0], kind="stable")[(len(clock) - 1) // 2]
    shown = clock - clock[middle]
    apart = np.hypot(sigma[:, 0], sigma[middle, 0]) * (np.arange(len(clock)) != middle)
    return tuple(
        replace(camera, offset=float(o), offset_sigma=float(s), drift=float(d), offset_unit=unit)
        for camera, (o, d), s in zip(cameras, shown, apart, strict=True)
    )


def _listed(findings: Sequence[Finding]) -> str:
    """Kinds and whom they are about."""
    who: dict[str, list[str]] = {}
    for finding in findings:
        who.setdefault(finding.kind.replace("_", " "), []).append(" or ".join(finding.cameras) or "board")
    return "; ".join(f"{kind} ({', '.join(dict.fromkeys(names))})" for kind, names in who.items())


def corner_residuals(rig: CameraRig, board_R: Array, board_t: Array, detections: BoardDetections) -> Array:
    """(views, frames, corners, 2) px, projected - measured, for every corner of a placed board; views in the rig's
    order.

    board_R (frames, boards, 3, 3), board_t (frames, boards, 3): world_from_board. NaN where unseen or not placed.
    """
    index, points = np.asarray(detections.board_index), detections.object_points
    out = np.full((len(rig), *detections.corners.shape[1:]), np.nan)
    for board in range(board_t.shape[1]):
        corners = np.flatnonzero(index == board)
        world = apply(board_R[:, board], board_t[:, board], points[corners])
        for v, camera in enumerate(rig):
            measured = detections.corners[list(detections.view_names).index(camera.name)][:, corners]
            out[v][:, corners] = camera.project(world) - measured
    return out


def rms(residuals: Array) -> float:
    """Root of the mean squared length of residuals (..., 2), NaN left out; NaN where there is none."""
    squared = (residuals**2).sum(axis=-1)
    squared = squared[np.isfinite(squared)]
    return float(np.sqrt(squared.mean())) if len(squared) else float("nan")


def square_lengths(rig: CameraRig, detections: BoardDetections) -> tuple[SquareReport, ...]:
    """Neighbouring corners triangulated linearly from every view that sees them, one report per board."""
    reports = []
    for board, lengths in zip(detections.boards, measured_squares(rig, detections), strict=True):
        mean, sd = (float(lengths.mean()), float(lengths.std())) if len(lengths) else (float("nan"), float("nan"))
        reports.append(SquareReport(float(board.square_length), mean, sd, len(lengths)))
    return tuple(reports)


def measured_squares(rig: CameraRig, detections: BoardDetections) -> tuple[Array, ...]:
    """(n,) distances of neighbouring corners of each board, in the rig's unit."""
    order = [list(detections.view_names).index(name) for name in rig.names]
    views, frames, corners, _ = detections.corners.shape
    points = triangulate_linear(detections.corners[order].reshape(views, -1, 2), rig).reshape(frames, corners, 3)
    measured = []
    for b, board in enumerate(detections.boards):
        first, second = (np.flatnonzero(np.asarray(detections.board_index) == b)[board.neighbours]).T
        lengths = np.linalg.norm(points[:, first] - points[:, second], axis=-1)
        measured.append(lengths[np.isfinite(lengths)])
    return tuple(measured)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
