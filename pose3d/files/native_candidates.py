"""How do Candidates lie on the disk? netCDF-4 like the poses beside them, whole or joined from windows.

The columns are written one after the other in whole chunks: the same candidates give the same bytes, however they were
cut into windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from pose3d.files.hdf5 import create_hdf5, expect_kind, open_hdf5, text
from pose3d.files.netcdf import CHUNK_FRAMES, Variable, create_netcdf, rows_of, skeleton_from_json, skeleton_to_json
from pose3d.poses import Candidates

__all__ = ["count_candidates", "join_candidates", "read_candidates", "write_candidates"]

KIND = "candidates"
_VARIABLES = {
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
_COUNTED_IN = {"frame_start": "candidates", "a": "candidates", "b": "candidates", "limb_start": "limb_candidates"}
"""Columns that are positions along another axis: in a joined file they count what earlier parts hold of it."""


def write_candidates(path: Path, candidates: Candidates) -> None:
    """Write one view's candidates. Atomic; same candidates, same bytes."""
    arrays = {name: getattr(candidates, name) for name in _VARIABLES if name not in ("frames", "limbs")}
    arrays |= {"frames": candidates.frame, "limbs": np.array(candidates.limbs, dtype=np.int32).reshape(-1, 2)}
    _write(path, _sizes(arrays), skeleton_to_json(candidates.skeleton), {n: iter([a]) for n, a in arrays.items()})


def read_candidates(path: Path, frames: slice | None = None) -> Candidates:
    """One view's candidates, or those of the rows `frames` of its frames axis (positions, not frame numbers).

    Raises InputError naming the file when it is missing, damaged or of another kind.
    """
    with open_hdf5(path) as file:
        expect_kind(file, KIND, path)
        here = rows_of(slice(None) if frames is None else frames, file["frames"].shape[0])
        here = slice(here.start, max(here.start, here.stop))
        starts = {name: file[name][here.start : here.stop + 1] for name in ("frame_start", "limb_start")}
        rows = {name: slice(int(values[0]), int(values[-1])) for name, values in starts.items()}
        stored = {name: values - values[0] for name, values in starts.items()}
        stored |= {name: file[name][rows["frame_start"]] for name in ("keypoint", "xy", "score", "covariance")}
        stored |= {name: file[name][rows["limb_start"]] for name in ("a", "b", "edge", "limb_score")}
        stored |= {name: stored[name] - rows["frame_start"].start for name in ("a", "b")}
        limbs = tuple((int(a), int(b)) for a, b in file["limbs"][()])
        skeleton = skeleton_from_json(text(file.attrs["skeleton"]))
        return Candidates(frame=file["frames"][here], skeleton=skeleton, limbs=limbs, **stored)


def count_candidates(path: Path) -> tuple[int, int]:
    """How many frames and candidates a file holds. Raises InputError like `read_candidates`."""
    with open_hdf5(path) as file:
        expect_kind(file, KIND, path)
        return int(file["frames"].shape[0]), int(file["keypoint"].shape[0])


def join_candidates(parts: Sequence[Path], path: Path) -> None:
    """One file of consecutive parts, in bounded memory: one column of one part at a time. Atomic; the same bytes as of
    the whole written at once. Raises InputError when there is no part, their skeletons or limbs differ, or the frame
    numbers do not rise.
    """
    parts = list(parts)
    if not parts:
        raise InputError(f"{path}: nothing to join; expected at least one part")
    sizes: list[dict[str, int]] = []
    told, last = None, None
    for part in parts:
        with open_hdf5(part) as file:
            expect_kind(file, KIND, part)
            network = (text(file.attrs["skeleton"]), file["limbs"][()].tolist())
            told = told or network
            if network != told:
                raise InputError(f"{path}: the parts' skeletons and limbs must agree, got {told} and {network}")
            frames = file["frames"][()]
            if last is not None and len(frames) and frames[0] <= last:
                raise InputError(f"{path}: parts must follow each other; frame {frames[0]} comes after frame {last}")
            last = frames[-1] if len(frames) else last
            sizes.append(_sizes({name: file[name] for name in _VARIABLES}))
    total = {axis: sum(size[axis] for size in sizes) for axis in ("frames", "candidates", "limb_candidates")}
    total = sizes[0] | total | {"starts": total["frames"] + 1}
    _write(path, total, text(told[0]) if told else "", {name: _column(parts, sizes, name) for name in _VARIABLES})


def _column(parts: Sequence[Path], sizes: Sequence[dict[str, int]], name: str) -> Iterator[NDArray[Any]]:
    """One column of all parts, part by part; of the starts only the first part's has its leading 0."""
    before = 0
    for number, (part, size) in enumerate(zip(parts, sizes, strict=True)):
        if name == "limbs" and number:
            return
        with open_hdf5(part) as file:
            block = file[name][1 if number and name in ("frame_start", "limb_start") else 0 :]
        yield block + before if name in _COUNTED_IN else block
        before += size[_COUNTED_IN[name]] if name in _COUNTED_IN else 0


def _sizes(arrays: dict[str, Any]) -> dict[str, int]:
    """The length of every axis."""
    return {
        axis: size
        for name, variable in _VARIABLES.items()
        for axis, size in zip(variable.axes, arrays[name].shape, strict=True)
    }


def _write(path: Path, sizes: dict[str, int], skeleton: str, columns: dict[str, Iterator[NDArray[Any]]]) -> None:
    with create_hdf5(path) as file:
        create_netcdf(file, sizes, _VARIABLES, {"space": ["x", "y"]}, {"kind": KIND, "skeleton": skeleton})
        for name in _VARIABLES:
            _fill(file[name], columns[name])


def _fill(column: h5py.Dataset, blocks: Iterable[NDArray[Any]]) -> None:
    """Write consecutive blocks in whole chunks, each chunk once: one written twice would move within the file."""
    row, rest = 0, np.zeros((0, *column.shape[1:]), column.dtype)
    for block in blocks:
        rest = np.concatenate((rest, block))
        whole = len(rest) if row + len(rest) == len(column) else len(rest) // CHUNK_FRAMES * CHUNK_FRAMES
        if whole:
            column[row : row + whole] = rest[:whole]
            row, rest = row + whole, rest[whole:]
