"""Does the rig still hold? Recordings' 2D poses and a calibration in, a report and a repaired calibration out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.drift import DriftOptions, check_rig
from calibration.drift_report import DriftReport
from calibration.errors import InputError
from calibration.files import load_rig, save_rig
from calibration.rig import CameraRig
from pose3d.files import load_poses, read_groups
from pose3d.identity import identify
from pose3d.poses import Groups, Poses
from pose3d.rig_points import RigPoints, rig_points
from pose3d.session import find_in

__all__ = ["RigCheck", "check_recordings"]

MOST_FRAMES, WINDOW = 20_000, 1000
"""Frames of a recording, evenly spaced, that are looked at, and frames that are read at a time."""


@dataclass(frozen=True, eq=False)
class RigCheck:
    """report: of `check_rig`; frames: what its rows are called; output: the repaired calibration, where one was
    written."""

    report: DriftReport
    frames: tuple[str, ...]
    output: Path | None

    def text(self) -> str:
        """For people."""
        return self.report.text(self.frames)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; the moves' `since` is the name of a frame."""
        told = self.report.to_dict()
        for move in told["cameras"]:
            move["since"] = None if move["since"] is None else self.frames[move["since"]]
        return told | {"messages": list(self.report.messages(self.frames)), "output": self.output}


def check_recordings(
    folders: Sequence[Path],
    calibration: Path,
    output: Path | None = None,
    *,
    unit: str | None = None,
    file_format: str | None = None,
    options: DriftOptions | None = None,
) -> RigCheck:
    """Check a rig by the 2D poses of one recording or several, in order of time.

    folders: results of a recording (poses2d/ and groups.nc), or 2D poses by camera. output: where the calibration as it
    stands at the end is written, if the rig does not hold. Raises InputError.
    """
    rig = load_rig(calibration, unit=unit)
    parts = [_points(folder, rig, file_format) for folder in folders]
    names = [name for name in rig.names if all(name in seen for seen, _ in parts)]
    if len(names) < 2:
        raise InputError(
            f"expected 2D poses of two cameras of {calibration} or more in every recording, got "
            f"{', '.join(names) or 'none in common'}; check the names of the cameras"
        )
    kinds = {len(np.unique(points.kind)) for _, points in parts}
    if len(kinds) > 1:
        raise InputError("expected the same keypoints in all recordings, got different ones; check them one by one")
    most = max(points.xy.shape[2] for _, points in parts)
    xy, covariance = (
        np.concatenate([_padded(getattr(p, what)[[seen.index(n) for n in names]], most) for seen, p in parts], axis=1)
        for what in ("xy", "covariance")
    )
    kind = max((points.kind for _, points in parts), key=len)
    report = check_rig(rig.subset(names), xy, covariance, options, kind=kind)
    several = len(folders) > 1
    frames = tuple(
        f"{frame} of {folder.resolve().name}" if several else str(frame)
        for folder, (_, points) in zip(folders, parts, strict=True)
        for frame in points.frame
    )
    if output is not None and not report.holds:
        save_rig(output, report.repaired(rig))
    return RigCheck(report, frames, output if not report.holds else None)


def _padded(array: NDArray[np.float64], points: int) -> NDArray[np.float64]:
    """(views, frames, points, ...) with missing points up to this number."""
    width = [(0, 0)] * array.ndim
    width[2] = (0, points - array.shape[2])
    out = np.pad(array, width, constant_values=np.nan)
    if array.ndim == 5:
        out[:, :, array.shape[2] :] = np.eye(2)
    return out


def _points(folder: Path, rig: CameraRig, file_format: str | None) -> tuple[tuple[str, ...], RigPoints]:
    """The cameras and points of a folder."""
    if (folder / "groups.nc").is_file():
        return _points_of_results(folder)
    found = {name: path for name, path in find_in(folder, "poses2d").items() if name in rig.names}
    if len(found) < 2:
        raise InputError(
            f"{folder}: expected groups.nc and poses2d/ of a run, or 2D poses of two cameras or more of "
            f"{', '.join(rig.names)}, got {', '.join(found) or 'none'}"
        )
    views = {name: load_poses(path, file_format) for name, path in found.items()}
    groups = _who(views, rig)
    return groups.view_names, rig_points(views, groups)


def _points_of_results(folder: Path) -> tuple[tuple[str, ...], RigPoints]:
    """Of a run's results, window by window."""
    everything = read_groups(folder / "groups.nc")
    names, n = everything.view_names, len(everything.slots)
    everyone = np.unique(everything.ids[everything.ids >= 0])
    every = max(1, -(-n // MOST_FRAMES))
    parts = []
    for start in range(0, n, WINDOW):
        rows = slice(start, start + WINDOW)
        views = {name: load_poses(folder / f"poses2d/{name}.nc", frames=rows) for name in names}
        part = rig_points(views, everything.window(rows.start, rows.stop), everyone)
        kept = np.arange(-start % every, len(part.frame), every)
        parts.append(replace(part, xy=part.xy[:, kept], covariance=part.covariance[:, kept], frame=part.frame[kept]))
    xy, covariance = (np.concatenate([getattr(part, what) for part in parts], axis=1) for what in ("xy", "covariance"))
    frame = np.concatenate([part.frame for part in parts])
    return names, replace(parts[0], xy=xy, covariance=covariance, frame=frame)


def _who(views: Mapping[str, Poses], rig: CameraRig) -> Groups:
    """Who is who: one individual a view is the same one in all."""
    if all(poses.shape[1] == 1 for poses in views.values()):
        slots = [np.where(poses.missing[:, 0].all(axis=1), -1, 0) for poses in views.values()]
        if len({len(row) for row in slots}) == 1:
            return Groups(tuple(views), np.stack(slots, axis=1)[:, None].astype(np.int32))
    return identify(views, rig)
