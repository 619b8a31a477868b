"""How does a rig stand in DANNCE's MATLAB files?

One `..._dannce.mat` with `params` (a cell of structs, one a camera) and perhaps `camnames`, or a folder of
`hires_cam1_params.mat`, `hires_cam2_params.mat`, ... with the same fields: K, RDistort (k1 k2 [k3]), TDistort (p1 p2),
r (or R), t. All as MATLAB has them: K and r transposed, x_cam = X r + t (dannce, `engine/ops.py`, `camera_matrix`), and
the first pixel's centre is (1, 1) (`utils_cxf/cameraIntrinsics_OpenCV.py`; MATLAB's `cameraIntrinsicsToOpenCV` takes
the same 1 from the principal point). K may have skew. The files name neither a unit nor the size of the images.
MATLAB writes version 5, which SciPy reads, or 7.3, which is HDF5 with every array's axes reversed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.camera import Camera
from calibration.errors import InputError
from calibration.files.cameras import camera_of, rig_of, size_of, unit_of
from calibration.files.toml_tables import numbers
from calibration.rig import CameraRig

__all__ = ["is_dannce", "read_dannce"]

_ONE_CAMERA = re.compile(r"cam(?:era)?_?(\d+)_params\.mat$", re.IGNORECASE)


def is_dannce(path: Path) -> bool:
    """Whether a path is a MATLAB file, or a folder of one camera's parameters each."""
    return bool(_parts(path)) if path.is_dir() else path.suffix.lower() == ".mat"


def read_dannce(path: Path, unit: str | None = None, size: tuple[int, int] | None = None) -> CameraRig:
    """The rig of a DANNCE file or folder: cameras named by `camnames`, else Camera1, Camera2, ... as DANNCE does.

    unit: of the lengths (millimetres by DANNCE's habit). size: (width, height) px of the images. Raises InputError
    when one of them is not given, and naming file, camera and field.
    """
    size = size_of(str(path), None, size)
    unit = unit_of(path, None, unit)
    if path.is_dir():
        numbered = _parts(path)
        if not numbered:
            raise InputError(f"{path}: expected files such as hires_cam1_params.mat, found none; check the path")
        named = [(f"Camera{n}", file, _load(file)) for n, file in sorted(numbered.items())]
    else:
        named = _named(path, _load(path))
    return rig_of(path, [_camera(name, f"{file}: {name}", table, size) for name, file, table in named], unit)


def _parts(folder: Path) -> dict[int, Path]:
    """{camera number: its file} of a folder."""
    found = ((_ONE_CAMERA.search(file.name), file) for file in folder.glob("*.mat"))
    return {int(match[1]): file for match, file in found if match}


def _named(path: Path, content: Mapping[str, Any]) -> list[tuple[str, Path, Any]]:
    """(name, file, fields) of the cameras in one file."""
    if "params" not in content:
        number = _ONE_CAMERA.search(path.name)
        return [(f"Camera{number[1]}" if number else path.stem, path, content)]
    params = content["params"]
    if isinstance(params, Mapping) and isinstance(params.get("K"), list):  # an array of structs, in version 7.3
        params = [dict(zip(params, fields, strict=True)) for fields in zip(*params.values(), strict=False)]
    params = [params] if isinstance(params, Mapping) else list(np.ravel(np.asarray(params, dtype=object)))
    names = [f"Camera{n + 1}" for n in range(len(params))]
    if "camnames" in content:
        names = list(np.ravel(np.asarray(content["camnames"], dtype=object)))
    if len(names) != len(params):
        raise InputError(f"{path}: expected as many camnames as params, got {len(names)} and {len(params)}")
    return [(str(name), path, fields) for name, fields in zip(names, params, strict=True)]


def _camera(name: str, where: str, fields: Any, size: tuple[int, int]) -> Camera:
    if not isinstance(fields, Mapping):
        raise InputError(f"{where}: expected the fields K, RDistort, TDistort, r, t, got {fields!r}")
    if np.any(np.asarray(fields.get("m", 0)) != 0):
        raise InputError(f"{where}: films by a mirror (m = 1), which no camera here does; leave it out")
    flat = {key: np.ravel(fields[key]) for key in ("RDistort", "TDistort", "t") if key in fields}
    radial, tangential = numbers(flat, "RDistort", (-1,), where), numbers(flat, "TDistort", (2,), where)
    if len(radial) not in (2, 3):
        raise InputError(f"{where}.RDistort: expected 2 or 3 numbers, got {radial.tolist()}")
    K = numbers(fields, "K", (3, 3), where).T
    K = K - np.array([[0, 0, K[2, 2]], [0, 0, K[2, 2]], [0, 0, 0]])
    R = numbers(fields, "r" if "r" in fields else "R", (3, 3), where).T
    dist = [*radial[:2], *tangential, *radial[2:]]
    return camera_of(where, name, size=size, K=K, dist=dist, R=R, t=numbers(flat, "t", (3,), where))


def _load(path: Path) -> dict[str, Any]:
    """The variables of a MATLAB file: structs as dicts, cells as lists, arrays with MATLAB's axes.

    Raises InputError when the file is missing, damaged or no MATLAB file.
    """
    import h5py
    from scipy.io import loadmat

    if not path.is_file():
        raise InputError(f"{path}: expected a MATLAB file, found none; check the path")
    try:
        if h5py.is_hdf5(path):
            with h5py.File(path) as file:
                return {key: _from_hdf5(file[key], file) for key in file if key in _WANTED}
        return dict(loadmat(path, simplify_cells=True, variable_names=_WANTED))
    except Exception as error:  # what the readers raise on damaged bytes has nothing in common
        raise InputError(f"{path}: expected a whole MATLAB file, got: {error}; save it again in MATLAB") from None


_WANTED = ("params", "camnames", "K", "RDistort", "TDistort", "r", "R", "t", "m")


def _from_hdf5(node: Any, file: Any) -> Any:
    """A variable of MATLAB 7.3: groups are structs, arrays of references cells, characters numbers."""
    import h5py

    if isinstance(node, h5py.Group):
        return {key: _from_hdf5(node[key], file) for key in node}
    values: NDArray[Any] = node[()]
    if h5py.check_ref_dtype(node.dtype) is not None:
        return [_from_hdf5(file[reference], file) for reference in np.ravel(values.T)]
    if node.attrs.get("MATLAB_class") == b"char":
        return "".join(map(chr, np.ravel(values.T)))
    return values.T
