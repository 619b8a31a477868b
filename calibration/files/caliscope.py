"""How does a rig stand in caliscope's camera_array.toml?

A table `[cameras.N]` for each camera: cam_id, size (width, height), matrix, distortions as OpenCV takes them, rotation
and translation world to camera in metres, fisheye (caliscope 0.11, `cameras/camera_array.py`, `CameraArray.to_toml`).
The rotation is a Rodrigues vector, in files of earlier versions a matrix; these kept the tables in config.toml as
`[cam_N]`, beside tables of other things, with `port` for cam_id before that. A key of a camera that was not placed is
missing or "null". `rotation_count` turns frames for networks alone, whose points are turned back
(`trackers/onnx_tracker.py`), and all pixels are OpenCV's: (0, 0) is the centre of the first.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibration.camera import Camera
from calibration.errors import InputError
from calibration.files.cameras import camera_of, rig_of, unit_of
from calibration.files.toml_tables import numbers
from calibration.rig import CameraRig
from calibration.transforms import exp_so3

__all__ = ["is_caliscope", "rig_from_caliscope"]

_LOG = logging.getLogger(__name__)


def is_caliscope(tables: Mapping[str, Any]) -> bool:
    """Whether parsed TOML is caliscope's: cameras with a cam_id or a port, which no other tool writes."""
    return any(isinstance(table, Mapping) and ({"cam_id", "port"} & set(table)) for table in _tables(tables).values())


def rig_from_caliscope(tables: Mapping[str, Any], path: Path, unit: str | None = None) -> CameraRig:
    """The placed cameras of a parsed camera_array.toml as cam_0, cam_1, ..., in metres; those that were ignored or not
    placed are left out, and named in the log.

    Raises InputError naming file, camera and key, also when no camera is placed.
    """
    cameras, left_out = [], []
    for key, table in _tables(tables).items():
        where = f"{path}: [{key}]"
        if not isinstance(table, Mapping):
            raise InputError(f"{where}: expected a camera's table, got {table!r}; remove it")
        known = {name: value for name, value in table.items() if value is not None and value != "null"}
        name = f"cam_{known.get('cam_id', known.get('port', key))}"
        if known.get("ignore", False) or not {"matrix", "rotation", "translation"} <= set(known):
            left_out.append(name)
        else:
            cameras.append(_camera(known, where, name))
    if not cameras:
        raise InputError(f"{path}: no camera is placed; calibrate the extrinsics in caliscope first")
    if left_out:
        _LOG.warning("%s: ignored or not placed by caliscope, so left out: %s", path, ", ".join(left_out))
    return rig_of(path, cameras, unit_of(path, "m", unit))


def _tables(tables: Mapping[str, Any]) -> dict[str, Any]:
    """{name of the table: table} of the cameras, in the file's order."""
    cameras = tables.get("cameras")
    if isinstance(cameras, Mapping):
        return {f"cameras.{key}": table for key, table in cameras.items()}
    return {key: table for key, table in tables.items() if re.fullmatch(r"(cam|port)_\d+", key)}


def _camera(table: Mapping[str, Any], where: str, name: str) -> Camera:
    flat = dict(table)
    for key in ("distortions", "translation", "rotation"):  # vectors may stand as columns or rows
        nested = table.get(key)
        if isinstance(nested, list) and nested and all(isinstance(row, list) for row in nested):
            flat[key] = [value for row in nested for value in row]
    n = 9 if isinstance(flat["rotation"], list) and len(flat["rotation"]) == 9 else 3
    rotation = numbers(flat, "rotation", (n,), where)
    width, height = numbers(table, "size", (2,), where)
    fisheye = table.get("fisheye", False)
    if not isinstance(fisheye, bool):
        raise InputError(f"{where}.fisheye: expected true or false, got {fisheye!r}")
    return camera_of(
        where,
        name,
        size=(round(width), round(height)),
        K=numbers(table, "matrix", (3, 3), where),
        dist=numbers(flat, "distortions", (-1,), where),
        R=rotation.reshape(3, 3) if n == 9 else exp_so3(rotation),
        t=numbers(flat, "translation", (3,), where),
        fisheye=fisheye,
    )
