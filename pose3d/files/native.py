"""How do Poses lie on the disk? netCDF-4 that `xarray.open_dataset` reads, written whole or joined from parts.

Dimensions frames, individuals (slots), keypoints, space (x y z, or x y), each with its coordinate: source frame
numbers, names, keypoints' names. Variables points, score, ids, time and the extras of `EXTRA_AXES`; a second axis of
coordinates is `space_2`. Skeleton and names are JSON attributes. The chunks are fixed and nothing of the clock is
stored: same poses, same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from pose3d.files.hdf5 import create_hdf5, expect_kind, open_hdf5, text
from pose3d.files.netcdf import CHUNK_FRAMES, Variable, create_netcdf, rows_of, skeleton_from_json, skeleton_to_json
from pose3d.poses import EXTRA_AXES, Poses

__all__ = ["count_frames", "identities", "join_poses", "read_poses", "read_windows", "write_poses"]

WINDOW_FRAMES = 8 * CHUNK_FRAMES
"""Frames in memory at a time while a file is read or joined by windows."""

_DIMENSION = {"coordinates": "space", "alternatives": "rank"}
_VARIABLES: dict[str, tuple[tuple[str, ...], Any, Any]] = {
    "frames": (("frames",), np.int64, 0),
    "time": (("frames",), np.float64, np.nan),
    "points": (("frames", "individuals", "keypoints", "space"), np.float64, np.nan),
    "score": (("frames", "individuals", "keypoints"), np.float64, 0.0),
    "ids": (("frames", "individuals"), np.int32, -1),
}
KIND = "poses"


def write_poses(path: Path, poses: Poses) -> None:
    """Write poses as they are (slots are not reordered). Atomic."""
    _write(path, len(poses.frame), _slot_labels(poses), iter([poses]))


def read_poses(path: Path, frames: slice | None = None) -> Poses:
    """The poses of a native file, or the rows `frames` of its frames axis (positions, not frame numbers).

    Raises InputError naming the file when it is missing, damaged or of another kind.
    """
    with open_hdf5(path) as file:
        expect_kind(file, KIND, path)
        rows = slice(None) if frames is None else rows_of(frames, file["frames"].shape[0])
        stored = {name: file[name][rows] for name in _VARIABLES}
        return Poses(
            **{"frame" if name == "frames" else name: array for name, array in stored.items()},
            skeleton=skeleton_from_json(text(file.attrs["skeleton"])),
            names={int(i): name for i, name in json.loads(text(file.attrs["names"])).items()},
            unit=text(file.attrs["unit"]),
            fps=float(file.attrs["fps"]),
            extras={name: file[name][rows] for name in EXTRA_AXES if name in file},
        )


def read_windows(path: Path, size: int = WINDOW_FRAMES) -> Iterator[Poses]:
    """The poses of a native file in windows of `size` frames, in order, one in memory at a time."""
    for start in range(0, count_frames(path), size):
        yield read_poses(path, slice(start, start + size))


def count_frames(path: Path) -> int:
    """How many frames a native poses file holds. Raises InputError like `read_poses`."""
    with open_hdf5(path) as file:
        expect_kind(file, KIND, path)
        return int(file["frames"].shape[0])


def identities(path: Path) -> list[int]:
    """Every identity that occurs or is named in a native file, ascending. Reads by windows."""
    found: set[int] = set()
    for poses in read_windows(path):
        found |= {int(i) for i in np.unique(poses.ids) if i >= 0} | set(poses.names)
    return sorted(found)


def join_poses(parts: Sequence[Path], path: Path) -> None:
    """One file of consecutive parts, in bounded memory, by identity: slot i holds the i-th identity of all parts.

    Where no part knows any identity, the slots stay as they are, padded to the most of any part. Identities are
    collected first, then each part is read, reordered and written by windows. Atomic; same parts, same bytes. Raises
    InputError when there is no part, or skeletons, units, extras or frame numbers of the parts do not fit together.
    """
    parts = list(parts)
    if not parts:
        raise InputError(f"{path}: nothing to join; expected at least one part")
    n_frames, n_slots = 0, 0
    ids: set[int] = set()
    names: dict[int, str] = {}
    for part in parts:
        for poses in read_windows(part):
            n_frames, n_slots = n_frames + poses.shape[0], max(n_slots, poses.shape[1])
            ids |= {int(i) for i in np.unique(poses.ids) if i >= 0}
            names |= poses.names
    ids |= set(names)
    ordered, known = sorted(ids), bool(ids)
    labels = [_label(i, names) for i in ordered] if known else [f"slot_{i}" for i in range(n_slots)]

    def windows() -> Iterator[Poses]:
        for part in parts:
            for poses in read_windows(part):
                moved = poses.by_id(ordered) if known else _padded(poses, n_slots)
                yield moved.replace(names=names)

    _write(path, n_frames, labels, windows())


def _write(path: Path, n_frames: int, labels: list[str], windows: Iterable[Poses]) -> None:
    """Write windows one after the other into a file for n_frames frames."""
    row, first, last = 0, None, None
    with create_hdf5(path) as file:
        for poses in windows:
            if first is None:
                first = poses
                _create(file, poses, n_frames, labels)
            else:
                _expect_same(first, poses, path)
            if last is not None and len(poses.frame) and poses.frame[0] <= last:
                raise InputError(
                    f"{path}: parts must follow each other; frame {poses.frame[0]} comes after frame {last}"
                )
            last = poses.frame[-1] if len(poses.frame) else last
            rows = slice(row, row + len(poses.frame))
            for name, array in _arrays(poses).items():
                file[name][rows] = array
            row = rows.stop
        if first is None:
            raise InputError(f"{path}: no part holds any frame")


def _create(file: h5py.File, poses: Poses, n_frames: int, labels: list[str]) -> None:
    sizes = {"frames": n_frames, "individuals": len(labels), "keypoints": poses.shape[2], "space": poses.shape[3]}
    variables = {name: Variable(axes, dtype, fill) for name, (axes, dtype, fill) in _VARIABLES.items()}
    for name, array in poses.extras.items():
        axes, dtype = EXTRA_AXES[name]
        axes = tuple(_DIMENSION.get(axis, axis) for axis in axes)
        if axes[-2:] == ("space", "space"):
            axes = (*axes[:-1], "space_2")
        sizes |= {axis: n for axis, n in zip(axes, array.shape, strict=True) if axis not in sizes}
        variables[name] = Variable(axes, np.uint8 if dtype is np.bool_ else dtype, None)
    strings = {
        "individuals": labels,
        "keypoints": list(poses.skeleton.keypoints),
        "space": list("xyz")[: poses.shape[3]],
    }
    attributes = {
        "kind": KIND,
        "unit": poses.unit,
        "fps": poses.fps,
        "skeleton": skeleton_to_json(poses.skeleton),
        "names": json.dumps({str(i): name for i, name in poses.names.items()}),
    }
    create_netcdf(file, sizes, variables, strings, attributes)
    file["points"].attrs["coordinates"] = "time"


def _arrays(poses: Poses) -> dict[str, NDArray[Any]]:
    return {
        "frames": poses.frame,
        "time": poses.time,
        "points": poses.points,
        "score": poses.score,
        "ids": poses.ids,
        **poses.extras,
    }


def _expect_same(first: Poses, poses: Poses, path: Path) -> None:
    checks = {
        "skeleton": (first.skeleton, poses.skeleton),
        "unit": (first.unit, poses.unit),
        "dimension": (first.shape[3], poses.shape[3]),
        "extras": (
            {name: array.shape[2:] for name, array in first.extras.items()},
            {name: array.shape[2:] for name, array in poses.extras.items()},
        ),
    }
    for what, (a, b) in checks.items():
        if a != b:
            raise InputError(f"{path}: the parts' {what} must agree, got {a} and {b}")


def _padded(poses: Poses, n_slots: int) -> Poses:
    slots = np.where(np.arange(n_slots) < poses.shape[1], np.arange(n_slots), -1)
    return poses.take_slots(np.broadcast_to(slots, (len(poses.frame), n_slots)))


def _slot_labels(poses: Poses) -> list[str]:
    """One name for each slot: the individual's where each slot holds one and the same throughout, else the slot's
    number.
    """
    held = [np.unique(column[column >= 0]) for column in poses.ids.T]
    ids = [int(h[0]) if len(h) == 1 else -1 for h in held]
    if min(ids, default=-1) >= 0 and len(set(ids)) == len(ids):
        return [_label(i, poses.names) for i in ids]
    return [f"slot_{i}" for i in range(poses.shape[1])]


def _label(identity: int, names: Any) -> str:
    return str(names.get(identity, f"individual_{identity}"))
