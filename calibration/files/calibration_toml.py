"""How does a rig stand in calibration.toml? aniposelib's schema with a unit, clocks and the camera model added.

One table for each camera (`[cam_0]`, `[cam_1]`, ...): name, size (width, height) px, matrix K, distortions in OpenCV's
order, rotation (Rodrigues vector, rad) and translation world to camera, fisheye; ours: offset (s) and drift (s/s) of
its clock. `[metadata]` holds ours: unit. aniposelib 0.8 (`cameras.py`, `CameraGroup.load`) reads what is written here;
it sorts the tables' names as strings, so they are padded with zeros, and it keeps K as OpenCV does: pixel (0, 0) is a
pixel's centre. It hands 4, 5 or 8 distortions to OpenCV as they are, and 4 to OpenCV's fisheye where `fisheye` is true
(`Camera.project`, `FisheyeCamera.project`); what it would read and leave out (a clock, skew) only ours may hold.
The rig's covariance lies beside the TOML with the SHA-256 of the TOML that it belongs to.
"""

from __future__ import annotations

import hashlib
import io
import logging
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.camera import Camera
from calibration.errors import InputError
from calibration.files.atomic import write_bytes
from calibration.files.cameras import camera_of, rig_of, unit_of
from calibration.files.limits import refuse_unheld
from calibration.files.toml_tables import numbers, refuse_misspelt_keys
from calibration.rig import RIG_PARAMETERS, CameraRig
from calibration.transforms import exp_so3, log_so3

__all__ = [
    "camera_from_table",
    "covariance_path",
    "rig_from_tables",
    "rig_of_cameras",
    "toml_floats",
    "toml_string",
    "write_aniposelib",
    "write_rig",
]

_LOG = logging.getLogger(__name__)
_CAMERA_KEYS = ("name", "size", "matrix", "distortions", "rotation", "translation", "fisheye", "offset", "drift")


def rig_from_tables(tables: Mapping[str, Any], path: Path, unit: str | None = None) -> CameraRig:
    """The rig of a parsed calibration.toml: cameras in the file's order, the covariance from beside it when it belongs
    to it.

    unit: of lengths, for a file that does not say (aniposelib's own). Raises InputError naming file, camera and key.
    """
    metadata = tables.get("metadata", {})
    if not isinstance(metadata, Mapping):
        raise InputError(f"{path}: [metadata]: expected a table, got {metadata!r}; move it under another name")
    stored = str(metadata["unit"]) if "unit" in metadata else None
    unit = unit_of(path, stored, unit, 'add unit = "mm" under [metadata], or give --unit (unit= in Python)')
    rig = rig_of_cameras(tables, path, unit)
    return CameraRig(rig.cameras, rig.unit, _read_covariance(path, rig))


def rig_of_cameras(tables: Mapping[str, Any], path: Path, unit: str) -> CameraRig:
    """A rig without covariance: a camera for every table but [metadata]. Raises InputError naming file and key."""
    cameras = [
        camera_from_table(table, f"{path}: [{key}]", default_name=key)
        for key, table in tables.items()
        if key != "metadata"
    ]
    if not cameras:
        raise InputError(f"{path}: expected a table for each camera, such as [cam_0], got none")
    return rig_of(path, cameras, unit)


def camera_from_table(table: Any, where: str, default_name: str) -> Camera:
    """One camera of a table in aniposelib's schema; keys that other tools add are left alone.

    Raises InputError that starts with `where` and names the key.
    """
    if not isinstance(table, Mapping):
        raise InputError(f"{where}: expected a camera's table, got {table!r}; move it under [metadata]")
    refuse_misspelt_keys(table, _CAMERA_KEYS, where)
    width, height = numbers(table, "size", (2,), where)
    fisheye = table.get("fisheye", False)
    if not isinstance(fisheye, bool):
        raise InputError(f"{where}.fisheye: expected true or false, got {fisheye!r}")
    return camera_of(
        where,
        str(table.get("name", default_name)),
        size=(round(width), round(height)),
        K=numbers(table, "matrix", (3, 3), where),
        dist=numbers(table, "distortions", (-1,), where),
        R=exp_so3(numbers(table, "rotation", (3,), where)),
        t=numbers(table, "translation", (3,), where),
        fisheye=fisheye,
        offset=float(numbers(table, "offset", (), where)) if "offset" in table else 0.0,
        drift=float(numbers(table, "drift", (), where)) if "drift" in table else 0.0,
    )


def write_aniposelib(path: Path, rig: CameraRig) -> None:
    """Write a rig for aniposelib, with nothing in it that aniposelib would leave out but the unit, in [metadata].

    Raises InputError for a clock's offset or drift, or skew.
    """
    refuse_unheld(path, rig, "aniposelib")
    write_bytes(path, _text(rig, clocks=False))


def write_rig(path: Path, rig: CameraRig) -> None:
    """Write a rig, and its covariance beside it. Same rig, same bytes; each file appears whole or not at all."""
    text = _text(rig, clocks=True)
    write_bytes(path, text)
    if rig.covariance is None:
        covariance_path(path).unlink(missing_ok=True)
        return
    parameters = [f"{name}.{parameter}" for name in rig.names for parameter in RIG_PARAMETERS]
    buffer = io.BytesIO()
    np.savez(buffer, covariance=rig.covariance, parameters=parameters, toml_sha256=hashlib.sha256(text).hexdigest())
    write_bytes(covariance_path(path), buffer.getvalue())


def covariance_path(path: Path) -> Path:
    """Where the covariance of a calibration file lies: calibration.toml -> calibration.covariance.npz."""
    return path.with_suffix(".covariance.npz")


def _read_covariance(path: Path, rig: CameraRig) -> NDArray[np.float64] | None:
    """The covariance beside a TOML, or None with a warning in the log when it belongs to other bytes or is damaged."""
    beside = covariance_path(path)
    if not beside.is_file():
        return None
    try:
        with np.load(io.BytesIO(beside.read_bytes()), allow_pickle=False) as stored:
            covariance, sha256 = np.array(stored["covariance"], dtype=np.float64), str(stored["toml_sha256"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        _LOG.warning("%s: cannot be read (%s); the rig is taken as exact", beside, error)
        return None
    if sha256 != hashlib.sha256(path.read_bytes()).hexdigest():
        _LOG.warning("%s: belongs to another version of %s; the rig is taken as exact", beside, path.name)
        return None
    n = len(RIG_PARAMETERS) * len(rig)
    if covariance.shape != (n, n):
        _LOG.warning("%s: expected (%d, %d), got %s; the rig is taken as exact", beside, n, n, covariance.shape)
        return None
    return covariance


def _text(rig: CameraRig, clocks: bool) -> bytes:
    digits = len(str(len(rig) - 1))
    blocks = []
    for i, camera in enumerate(rig):
        intrinsics = camera.intrinsics
        lines = [
            f"[cam_{i:0{digits}d}]",
            f"name = {toml_string(camera.name)}",
            f"size = [{intrinsics.size[0]}, {intrinsics.size[1]}]",
            f"matrix = [{', '.join(toml_floats(row) for row in intrinsics.K)}]",
            f"distortions = {toml_floats(intrinsics.dist)}",
            f"rotation = {toml_floats(log_so3(camera.R))}",
            f"translation = {toml_floats(camera.t)}",
            f"fisheye = {str(intrinsics.model == 'fisheye').lower()}",
        ]
        if clocks:
            lines += [f"offset = {float(camera.offset)!r}", f"drift = {float(camera.drift)!r}"]
        blocks.append("\n".join(lines) + "\n")
    blocks.append(f"[metadata]\nunit = {toml_string(rig.unit)}\n")
    return "\n".join(blocks).encode()


def toml_floats(values: Iterable[float]) -> str:
    """A TOML array of numbers that read back exactly."""
    return f"[{', '.join(repr(float(v)) for v in values)}]"


def toml_string(text: str) -> str:
    """A TOML basic string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'
