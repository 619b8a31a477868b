"""How do Groups and Candidates lie on the disk? netCDF-4 like the poses beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from pose3d.files.hdf5 import create_hdf5, open_hdf5, text
from pose3d.files.netcdf import CHUNK_FRAMES, Variable, create_netcdf, rows_of, skeleton_from_json, skeleton_to_json
from pose3d.poses import Candidates, Groups

__all__ = ["join_groups", "read_candidates", "read_groups", "write_candidates", "write_groups"]

_GROUP_VARIABLES = {
    "slots": Variable(("frames", "groups", "views"), np.int32, -1),
    "ids": Variable(("frames", "groups"), np.int32, -1),
    "confidence": Variable(("frames", "groups"), np.float64, 0.0),
}
_CANDIDATE_VARIABLES = {
    "frames": Variable(("frames",), np.int64),
    "frame_start": Variable(("starts",), np.int64),
    "keypoint": Variable(("candidates",), np.int32),
    "xy": Variable(("candidates", "space"), np.float64),
    "score": Variable(("candidates",), np.float64),
    "covariance": Variable(("candidates", "space", "space_2"), np.float64),
    "limb_start": Variable(("starts",), np.int64),
    "a": Variable(("limb_candidates",), np.int64),
    "b": Variable(("limb_candidates",), np.int64),
    "edge": Variable(("limb_candidates",), np.int32),
    "limb_score": Variable(("limb_candidates",), np.float64),
    "limbs": Variable(("limbs_of_network", "ends"), np.int32),
}


def write_groups(path: Path, groups: Groups) -> None:
    """Write groups as they are. Atomic; same groups, same bytes."""
    n_frames, n_groups, _ = groups.slots.shape
    _write_groups(path, n_frames, n_groups, iter([groups]))


def read_groups(path: Path, frames: slice | None = None) -> Groups:
    """The groups of a file, or the rows `frames` of its frames axis. Raises InputError naming the file when it is not
    one.
    """
    with open_hdf5(path) as file:
        _expect_kind(file, "groups", path)
        rows = slice(None) if frames is None else rows_of(frames, file["slots"].shape[0])
        return Groups(
            view_names=tuple(text(name) for name in file["views"][()]),
            slots=file["slots"][rows],
            ids=file["ids"][rows],
            confidence=file["confidence"][rows],
        )


def join_groups(parts: Sequence[Path], path: Path) -> None:
    """One file of consecutive parts by identity, like `join_poses`: group i holds the i-th identity of all parts.

    Where no part knows any identity the groups stay as they are, padded. One part is in memory at a time. Atomic.
    Raises InputError when there is no part or their views differ.
    """
    parts = list(parts)
    if not parts:
        raise InputError(f"{path}: nothing to join; expected at least one part")
    n_frames, n_groups = 0, 0
    found: set[int] = set()
    for part in parts:
        groups = read_groups(part)
        n_frames, n_groups = n_frames + groups.slots.shape[0], max(n_groups, groups.slots.shape[1])
        found |= {int(i) for i in np.unique(groups.ids) if i >= 0}
    ids = np.array(sorted(found), dtype=np.int32)

    def moved() -> Iterator[Groups]:
        for part in parts:
            groups = read_groups(part)
            columns = _columns_by_id(groups.ids, ids) if len(ids) else _padded_columns(groups.ids.shape, n_groups)
            yield _take(groups, columns)

    _write_groups(path, n_frames, len(ids) or n_groups, moved())


def write_candidates(path: Path, candidates: Candidates) -> None:
    """Write one view's candidates. Atomic; same candidates, same bytes."""
    limbs = np.array(candidates.limbs, dtype=np.int32).reshape(-1, 2)
    arrays = {name: getattr(candidates, name) for name in _CANDIDATE_VARIABLES if name not in ("frames", "limbs")}
    arrays |= {"frames": candidates.frame, "limbs": limbs}
    sizes: dict[str, int] = {}
    for name, variable in _CANDIDATE_VARIABLES.items():
        sizes |= dict(zip(variable.axes, arrays[name].shape, strict=True))
    attributes = {"kind": "candidates", "skeleton": skeleton_to_json(candidates.skeleton)}
    with create_hdf5(path) as file:
        create_netcdf(file, sizes, _CANDIDATE_VARIABLES, {"space": ["x", "y"]}, attributes)
        for name, array in arrays.items():
            file[name][...] = array


def read_candidates(path: Path) -> Candidates:
    """One view's candidates. Raises InputError naming the file when it is not one."""
    with open_hdf5(path) as file:
        _expect_kind(file, "candidates", path)
        stored = {name: file[name][()] for name in _CANDIDATE_VARIABLES}
        skeleton = skeleton_from_json(text(file.attrs["skeleton"]))
    limbs = tuple((int(a), int(b)) for a, b in stored.pop("limbs"))
    return Candidates(frame=stored.pop("frames"), skeleton=skeleton, limbs=limbs, **stored)


def _write_groups(path: Path, n_frames: int, n_groups: int, windows: Iterator[Groups]) -> None:
    row, view_names = 0, None
    with create_hdf5(path) as file:
        for groups in windows:
            if view_names is None:
                view_names = groups.view_names
                sizes = {"frames": n_frames, "groups": n_groups, "views": len(view_names)}
                create_netcdf(file, sizes, _GROUP_VARIABLES, {"views": view_names}, {"kind": "groups"})
            if groups.view_names != view_names:
                raise InputError(f"{path}: the parts' views must agree, got {view_names} and {groups.view_names}")
            for start in range(0, len(groups.slots), CHUNK_FRAMES):
                window = groups.window(start, start + CHUNK_FRAMES)
                rows = slice(row, row + len(window.slots))
                file["slots"][rows], file["ids"][rows], file["confidence"][rows] = (
                    window.slots,
                    window.ids,
                    window.confidence,
                )
                row = rows.stop


def _expect_kind(file: h5py.File, kind: str, path: Path) -> None:
    found = text(file.attrs.get("kind", "nothing of ours"))
    if found != kind:
        raise InputError(f"{path}: expected {kind}, the file holds {found}")


def _columns_by_id(ids: NDArray[np.int32], wanted: NDArray[np.int32]) -> NDArray[np.intp]:
    """(frames, wanted) where each identity stands in `ids`, -1 = nowhere."""
    here = ids[:, None, :] == wanted[None, :, None]
    if ids.shape[1] == 0:
        return np.full((len(ids), len(wanted)), -1, dtype=np.intp)
    return np.where(here.any(axis=2), here.argmax(axis=2), -1)


def _padded_columns(shape: tuple[int, ...], n_groups: int) -> NDArray[np.intp]:
    columns = np.where(np.arange(n_groups) < shape[1], np.arange(n_groups), -1)
    return np.broadcast_to(columns, (shape[0], n_groups))


def _take(groups: Groups, columns: NDArray[np.intp]) -> Groups:
    rows = np.arange(len(columns))[:, None]
    empty = columns < 0

    def moved(array: NDArray[Any], fill: Any) -> NDArray[Any]:
        padded = np.concatenate((array, np.full((len(array), 1, *array.shape[2:]), fill, dtype=array.dtype)), axis=1)
        return padded[rows, np.where(empty, array.shape[1], columns)]

    return Groups(groups.view_names, moved(groups.slots, -1), moved(groups.ids, -1), moved(groups.confidence, 0.0))
