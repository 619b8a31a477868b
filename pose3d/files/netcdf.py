"""How is netCDF-4 written with h5py so that xarray reads it and the same data give the same bytes?

A dimension is an HDF5 dimension scale of its name; every variable's axes are attached to their scales (netCDF-4 format
specification, "Interoperability with HDF5"; HDF5 Dimension Scale Specification).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from pose3d.skeleton import Skeleton

__all__ = ["CHUNK_FRAMES", "Variable", "create_netcdf", "rows_of", "skeleton_from_json", "skeleton_to_json"]

CHUNK_FRAMES = 256
"""Frames in one chunk of a file."""


@dataclass(frozen=True)
class Variable:
    """Axes by name, dtype, and the value of what was not written (None: zero)."""

    axes: tuple[str, ...]
    dtype: Any
    fill: Any = None


def create_netcdf(
    file: h5py.File,
    sizes: Mapping[str, int],
    variables: Mapping[str, Variable],
    strings: Mapping[str, Sequence[str]],
    attributes: Mapping[str, Any],
) -> None:
    """Lay out an empty file: dimensions of these sizes, variables, coordinates of strings (written at once),
    attributes.

    A variable or strings with a dimension's name are its coordinate; dimensions without one are plain numbers.
    Variables along `frames` (or whatever their first axis is) are chunked and compressed.
    """
    for name, value in attributes.items():
        file.attrs[name] = value
    for name, size in sizes.items():
        if name in strings:
            file.create_dataset(name, data=np.array(strings[name], dtype=object), dtype=h5py.string_dtype())
        elif name in variables:
            _create_variable(file, name, variables[name], sizes)
        else:
            file.create_dataset(name, shape=(size,), dtype=">f4")
        coordinate = name in strings or name in variables
        file[name].make_scale(
            name if coordinate else f"This is a netCDF dimension but not a netCDF variable. {size:>10}"
        )
        file[name].attrs["_Netcdf4Dimid"] = np.int32(list(sizes).index(name))
    for name, variable in variables.items():
        if name in sizes:
            continue
        _create_variable(file, name, variable, sizes)
        for axis, dimension in enumerate(variable.axes):
            file[name].dims[axis].attach_scale(file[dimension])


def rows_of(frames: slice, n_frames: int) -> slice:
    """A slice of positions with negative and missing ends resolved and nothing out of range; the step must be 1."""
    start, stop, step = frames.indices(n_frames)
    if step != 1:
        raise ValueError(f"frames: expected a slice with step 1, got {frames}")
    return slice(start, stop)


def skeleton_to_json(skeleton: Skeleton) -> str:
    """A skeleton as one line of JSON."""
    return json.dumps(
        {
            "keypoints": skeleton.keypoints,
            "edges": skeleton.edges,
            "bones": skeleton.bones,
            "symmetry": skeleton.symmetry,
            "sigmas": skeleton.sigmas,
        }
    )


def skeleton_from_json(line: str) -> Skeleton:
    """The inverse of `skeleton_to_json`."""
    return Skeleton(**json.loads(line))


def _create_variable(file: h5py.File, name: str, variable: Variable, sizes: Mapping[str, int]) -> None:
    shape = tuple(sizes[axis] for axis in variable.axes)
    options: dict[str, Any] = {}
    if all(shape):  # empty slots cost nothing when compressed, and an array without elements has no chunks
        chunks = (min(shape[0], CHUNK_FRAMES), *shape[1:])
        options = {"chunks": chunks, "compression": "gzip", "compression_opts": 1}
    file.create_dataset(name, shape=shape, dtype=variable.dtype, fillvalue=variable.fill, **options)
