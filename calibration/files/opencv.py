"""How does a rig stand in a file of OpenCV's FileStorage?

OpenCV has no format for a rig, only functions that take its matrices. Written and read back: unit, and in `cameras` for
each name, image_width, image_height, fisheye_model (0 or 1), camera_matrix, distortion_coefficients (as its
`samples/cpp/tutorial_code/calib3d/camera_calibration` names them), R (3, 3) and T (3, 1) world to camera.
Read besides: a pair by `samples/cpp/stereo_calib.cpp`, M1 D1 M2 D2 (also K1, K2) and R, T from the first camera to the
second, in one file or as the sample leaves them, in intrinsics.yml and extrinsics.yml: pinhole cameras, unless
fisheye_model is 1 there too. It names neither the size of the images nor a unit. Pixel (0, 0) is the centre of the
first; OpenCV knows no skew.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from calibration.camera import Camera
from calibration.errors import InputError
from calibration.files.atomic import write_bytes
from calibration.files.cameras import camera_of, rig_of, size_of, unit_of
from calibration.files.file_storage import read_file_storage
from calibration.files.limits import refuse_unheld
from calibration.files.toml_tables import numbers
from calibration.rig import CameraRig

__all__ = ["is_opencv", "read_opencv", "write_opencv"]

_ONE_CAMERA = {"camera_matrix", "cameraMatrix", "K", "M"}
_PAIR = ({"M1", "K1"}, {"M2", "K2"}, {"R", "T"})


def is_opencv(content: Mapping[str, Any]) -> bool:
    """Whether the content of a FileStorage is a rig, a pair, or at least one camera."""
    keys = set(content)
    return "cameras" in keys or bool(keys & (_ONE_CAMERA | _PAIR[0])) or _PAIR[2] <= keys


def read_opencv(path: Path, unit: str | None = None, size: tuple[int, int] | None = None) -> CameraRig:
    """The rig of a FileStorage. A pair's cameras are camera1, the world, and camera2.

    unit, size: (width, height) px of a pair, which says neither. Raises InputError naming file, camera and key, and
    for a camera alone, which has no place.
    """
    content = read_file_storage(path)
    if isinstance(content.get("cameras"), list):
        cameras = [_camera(table, f"{path}: cameras[{i}]", size) for i, table in enumerate(content["cameras"])]
        stored = content.get("unit")
        return rig_of(path, cameras, unit_of(path, None if stored is None else str(stored), unit))
    return _pair(path, content, unit, size)


def write_opencv(path: Path, rig: CameraRig) -> None:
    """Write a rig as YAML of OpenCV's FileStorage; every number reads back exactly. Same rig, same bytes.

    Raises InputError for a clock's offset or drift, and skew.
    """
    refuse_unheld(path, rig, "OpenCV")
    lines = ["%YAML:1.0", "---", f"unit: {_string(rig.unit, path)}", "cameras:"]
    for camera in rig:
        intrinsics = camera.intrinsics
        lines += [
            "   -",
            f"      name: {_string(camera.name, path)}",
            f"      image_width: {intrinsics.size[0]}",
            f"      image_height: {intrinsics.size[1]}",
            f"      fisheye_model: {int(intrinsics.model == 'fisheye')}",
            *_matrix("camera_matrix", intrinsics.K),
            *_matrix("distortion_coefficients", intrinsics.dist[:, None]),
            *_matrix("R", camera.R),
            *_matrix("T", camera.t[:, None]),
        ]
    write_bytes(path, ("\n".join(lines) + "\n").encode())


def _camera(table: Any, where: str, size: tuple[int, int] | None) -> Camera:
    if not isinstance(table, Mapping):
        raise InputError(f"{where}: expected a camera's values, got {table!r}")
    if not isinstance(table.get("name"), str):
        raise InputError(f"{where}.name: expected the camera's name, got {table.get('name')!r}")
    width, height, fisheye = (
        float(numbers(table, key, (), where)) for key in ("image_width", "image_height", "fisheye_model")
    )
    return camera_of(
        where,
        table["name"],
        size=size_of(where, (width, height), size),
        K=numbers(table, "camera_matrix", (3, 3), where),
        dist=numbers(table, "distortion_coefficients", (-1, 1), where),
        R=numbers(table, "R", (3, 3), where),
        t=numbers(table, "T", (3, 1), where)[:, 0],
        fisheye=bool(fisheye),
    )


def _pair(path: Path, content: dict[str, Any], unit: str | None, size: tuple[int, int] | None) -> CameraRig:
    for one, other in (("intrinsics", "extrinsics"), ("extrinsics", "intrinsics")):
        beside = path.with_name(path.name.replace(one, other))
        if beside != path and beside.is_file():
            content = {**read_file_storage(beside), **content}
    if not all(keys & set(content) for keys in _PAIR):
        raise InputError(
            f"{path}: expected `cameras`, or a pair's M1, D1, M2, D2, R and T, got {', '.join(content) or 'nothing'}; "
            "what says nothing of where a camera is makes no rig: calibrate the cameras together"
        )
    where = str(path)
    unit, size = unit_of(path, None, unit), size_of(where, None, size)
    fisheye = bool(content.get("fisheye_model", False))
    flat = {key: np.ravel(value) if isinstance(value, np.ndarray) else value for key, value in content.items()}
    second = numbers(content, "R", (3, 3), where), numbers(flat, "T", (3,), where)
    cameras = []
    for n, (R, t) in enumerate(((np.eye(3), np.zeros(3)), second), start=1):
        K = numbers(content, f"M{n}" if f"M{n}" in content else f"K{n}", (3, 3), where)
        dist = numbers(flat, f"D{n}", (-1,), where)
        cameras.append(camera_of(where, f"camera{n}", size=size, K=K, dist=dist, R=R, t=t, fisheye=fisheye))
    return rig_of(path, cameras, unit)


def _matrix(name: str, values: ArrayLike) -> list[str]:
    values = np.asarray(values)
    data = ", ".join(repr(float(v)) for v in values.ravel())
    rows, columns = values.shape
    head = [f"      {name}: !!opencv-matrix", f"         rows: {rows}", f"         cols: {columns}", "         dt: d"]
    return [*head, f"         data: [ {data} ]"]


def _string(text: str, path: Path) -> str:
    """A string between quotes. Raises InputError for what FileStorage would not give back."""
    if not text.isprintable():
        raise InputError(f"{path}: OpenCV's YAML cannot hold the name {text!r}; use printable characters")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
