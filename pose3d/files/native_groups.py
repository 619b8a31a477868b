"""How do Groups lie on the disk? netCDF-4 like the poses beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from pose3d.files.hdf5 import create_hdf5, expect_kind, open_hdf5, text
from pose3d.files.netcdf import CHUNK_FRAMES, Variable, create_netcdf, rows_of
from pose3d.poses import GROUP_ARRAYS, Groups

__all__ = ["join_groups", "read_groups", "write_groups"]

_GROUP_VARIABLES = {
    "slots": Variable(("frames", "groups", "views"), np.int32, -1),
    "ids": Variable(("frames", "groups"), np.int32, -1),
    "confidence": Variable(("frames", "groups"), np.float64, 0.0),
    "doubt": Variable(("frames", "groups"), np.float64, 0.0),
    "rival": Variable(("frames", "groups"), np.int32, -1),
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
        expect_kind(file, "groups", path)
        rows = slice(None) if frames is None else rows_of(frames, file["slots"].shape[0])
        arrays = {name: file[name][rows] for name in GROUP_ARRAYS if name in file}
        return Groups(tuple(text(name) for name in file["views"][()]), **arrays)


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
                for name in GROUP_ARRAYS:
                    file[name][rows] = getattr(window, name)
                row = rows.stop


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

    def moved(name: str) -> NDArray[Any]:
        array, fill = getattr(groups, name), _GROUP_VARIABLES[name].fill
        padded = np.concatenate((array, np.full((len(array), 1, *array.shape[2:]), fill, dtype=array.dtype)), axis=1)
        return padded[rows, np.where(empty, array.shape[1], columns)]

    return Groups(groups.view_names, **{name: moved(name) for name in GROUP_ARRAYS})
