"""Which poses does a file hold? Our netCDF and other tools' formats, one module each, told apart by what stands in
them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from calibration.errors import InputError, nearest_name
from pose3d.files.deeplabcut import is_deeplabcut_csv, read_deeplabcut, write_deeplabcut
from pose3d.files.hdf5 import open_hdf5
from pose3d.files.labels import MISSING_IMAGES, load_labels
from pose3d.files.native import count_frames, join_poses, read_poses, read_windows, write_poses
from pose3d.files.native_candidates import count_candidates, join_candidates, read_candidates, write_candidates
from pose3d.files.native_groups import join_groups, read_groups, write_groups
from pose3d.files.netcdf import rows_of
from pose3d.files.openpose import BODY_25, BODY_25B, read_openpose
from pose3d.files.sleap import read_analysis, read_slp
from pose3d.files.tidy_csv import is_tidy_csv, read_tidy, stream_tidy, write_tidy
from pose3d.files.trc import read_trc, write_trc
from pose3d.poses import Poses
from pose3d.skeleton import Skeleton

__all__ = [
    "BODY_25",
    "BODY_25B",
    "MISSING_IMAGES",
    "READABLE",
    "WRITABLE",
    "count_candidates",
    "count_frames",
    "join_candidates",
    "join_groups",
    "join_poses",
    "load_labels",
    "load_poses",
    "read_candidates",
    "read_groups",
    "read_windows",
    "save_poses",
    "stream_tidy",
    "write_candidates",
    "write_groups",
]

READABLE = {
    "native": "our netCDF, .nc",
    "sleap": "SLEAP project or predictions, .slp",
    "sleap_analysis": "SLEAP analysis, .h5",
    "deeplabcut": "DeepLabCut table, .csv or .h5",
    "openpose": "folder of OpenPose .json, BODY_25 or BODY_25B by the data",
    "openpose_body25": "folder of OpenPose .json",
    "openpose_body25b": "folder of OpenPose .json",
    "trc": "OpenSim markers, .trc",
    "csv": "tidy table, .csv",
}
"""Formats that `load_poses` reads."""
WRITABLE: dict[str, Callable[[Path, Poses], tuple[Path, ...] | None]] = {
    "native": write_poses,
    "csv": write_tidy,
    "trc": write_trc,
    "deeplabcut": write_deeplabcut,
}
"""Formats that `save_poses` writes."""

_WRITTEN_SUFFIX = {".nc": "native", ".csv": "csv", ".trc": "trc"}


def load_poses(
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    skeleton: Skeleton | None = None,
    unit: str | None = None,
    fps: float | None = None,
    video: int | str | None = None,
    frames: slice | None = None,
) -> Poses:
    """The poses of a file or folder in any format of `READABLE`; default by what stands in it.

    skeleton: to bring the keypoints into (order, edges, bones); those that the file lacks are missing. For OpenPose
        also what the triples are, where they are neither BODY_25 nor BODY_25B.
    unit: of the lengths of 3D files that do not say; a unit unlike the file's own is an error, nothing is rescaled.
    fps: frames/s of a file that does not know; time becomes frame / fps.
    video: which one, in a SLEAP project (number or file name) or a DeepLabCut table (folder) of several.
    frames: rows of the frames axis (positions, not frame numbers); a native file reads nothing else.
    Raises InputError naming the file when it is missing, damaged, of an unknown format, holds no keypoint at all, or
    its keypoints are not in the skeleton.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: expected a file or folder, found none; check the path")
    told = format or _told_format(path)
    if told not in READABLE:
        raise InputError(f"{path}: unknown format '{told}'; {nearest_name(told, READABLE)}")
    poses = _read(path, told, skeleton, unit, video, frames)
    if frames is not None and told != "native":
        rows = rows_of(frames, len(poses.frame))
        poses = poses.window(rows.start, rows.stop)
    if frames is None and poses.missing.all():
        raise InputError(f"{path}: holds no keypoint at all; every one is missing")
    if unit is not None and unit != poses.unit:
        raise InputError(f'{path}: the file is in {poses.unit}, got unit="{unit}"; leave it out')
    if fps is not None:
        poses = poses.replace(fps=fps, time=poses.frame / fps)
    return poses if skeleton is None else _onto_skeleton(poses, skeleton, path)


def save_poses(path: str | os.PathLike[str], poses: Poses, format: str | None = None) -> tuple[Path, ...]:
    """Write poses in a format of `WRITABLE`; default by the suffix: .nc native, .csv tidy table, .trc. Atomic; same
    poses, same bytes. Returns the files: one, but for TRC one an individual.

    Slots are written as they are in native files, by identity elsewhere. Raises InputError for an unknown format or
    poses that the format cannot hold.
    """
    path = Path(path)
    told = format or _WRITTEN_SUFFIX.get(path.suffix.lower())
    if told is None:
        raise InputError(
            f"{path}: the suffix names no format; use {', '.join(_WRITTEN_SUFFIX)}, or give format= "
            "(pose3d convert --to)"
        )
    if told not in WRITABLE:
        raise InputError(f"{path}: cannot write format '{told}'; {nearest_name(told, WRITABLE)}")
    return WRITABLE[told](path, poses) or (path,)


def _read(
    path: Path, told: str, skeleton: Skeleton | None, unit: str | None, video: int | str | None, frames: slice | None
) -> Poses:
    models = {"openpose": _triples(skeleton), "openpose_body25": BODY_25, "openpose_body25b": BODY_25B}
    if told in models:
        return read_openpose(path, models[told])
    readers: dict[str, Callable[[], Poses]] = {
        "native": lambda: read_poses(path, frames),
        "sleap": lambda: read_slp(path, video),
        "sleap_analysis": lambda: read_analysis(path),
        "deeplabcut": lambda: read_deeplabcut(path, None if video is None else str(video), unit),
        "trc": lambda: read_trc(path, unit),
        "csv": lambda: read_tidy(path, unit),
    }
    return readers[told]()


def _triples(skeleton: Skeleton | None) -> Skeleton | None:
    """What OpenPose's triples are, as far as a wanted skeleton tells: one of its models where that is part of it, else
    itself.
    """
    for model in (BODY_25B, BODY_25):
        if skeleton is not None and set(model.keypoints) <= set(skeleton.keypoints):
            return model
    return skeleton


def _told_format(path: Path) -> str:
    """The format by what stands in the file. Raises InputError that lists the formats."""
    suffix = path.suffix.lower()
    if path.is_dir():
        if any(path.glob("*.json")):
            return "openpose"
    elif suffix in (".nc", ".slp", ".trc"):
        return {".nc": "native", ".slp": "sleap", ".trc": "trc"}[suffix]
    elif suffix == ".csv":
        if is_tidy_csv(path):
            return "csv"
        if is_deeplabcut_csv(path):
            return "deeplabcut"
    elif suffix in (".h5", ".hdf5"):
        with open_hdf5(path) as file:
            if {"tracks", "node_names"} <= set(file):
                return "sleap_analysis"
            if any("pandas_type" in file[name].attrs for name in file):
                return "deeplabcut"
    listed = "; ".join(f"{name}: {what}" for name, what in READABLE.items())
    raise InputError(
        f"{path}: not a format that is known from its content; give format=, or pose3d convert --from ({listed})"
    )


def _onto_skeleton(poses: Poses, skeleton: Skeleton, path: Path) -> Poses:
    """The keypoints gathered by name into a skeleton's order; missing where the file has none."""
    for keypoint in poses.skeleton.keypoints:
        if keypoint not in skeleton.keypoints:
            raise InputError(
                f"{path}: keypoint '{keypoint}' is not in the skeleton; {nearest_name(keypoint, skeleton.keypoints)}"
            )
    place = {name: k for k, name in enumerate(poses.skeleton.keypoints)}
    gather = np.array([place.get(name, -1) for name in skeleton.keypoints], dtype=int)
    lacking = gather < 0

    def moved(array: np.ndarray, fill: float) -> np.ndarray:
        out = array[:, :, gather]
        out[:, :, lacking] = fill
        return out

    extras = {name: moved(array, np.nan if array.dtype.kind == "f" else 0) for name, array in poses.extras.items()}
    return poses.replace(
        points=moved(poses.points, np.nan), score=moved(poses.score, 0.0), skeleton=skeleton, extras=extras
    )
