"""How does a rig stand in MC-Calib's calibrated_cameras_data.yml?

OpenCV's FileStorage: nb_camera, and `camera_0`, `camera_1`, ... with camera_matrix, distortion_vector,
distortion_type (0: Brown, 5 coefficients; 1: Kannala, 4), camera_group, img_width, img_height and camera_pose_matrix
(4, 4), which takes points of the camera to those of its group's first one: the inverse of what is kept here (MC-Calib,
`McCalib.cpp`, `saveCamerasParams`; `Camera.cpp`, `getDistortionVectorVector`). Corners are OpenCV's, so pixel (0, 0)
is a pixel's centre. Lengths are in the board's unit, which the file does not name.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibration.camera import Camera
from calibration.errors import InputError
from calibration.files.cameras import camera_of, rig_of, rigid, size_of, unit_of
from calibration.files.file_storage import read_file_storage
from calibration.files.toml_tables import numbers
from calibration.rig import CameraRig
from calibration.transforms import invert

__all__ = ["is_mc_calib", "read_mc_calib"]

_LOG = logging.getLogger(__name__)
_BROWN, _KANNALA = 0, 1


def is_mc_calib(content: Mapping[str, Any]) -> bool:
    """Whether the content of a FileStorage is MC-Calib's."""
    return "nb_camera" in content and any(re.fullmatch(r"camera_\d+", key) for key in content)


def read_mc_calib(path: Path, unit: str | None = None, size: tuple[int, int] | None = None) -> CameraRig:
    """The rig of a calibrated_cameras_data.yml: cameras named as in the file, the first one's frame is the world.

    unit: of the board's squares in MC-Calib's configuration. Raises InputError without it, naming file, camera and
    key, and when the cameras are in several groups, which have no common world.
    """
    content = read_file_storage(path)
    tables = {key: table for key, table in content.items() if re.fullmatch(r"camera_\d+", key)}
    if not tables:
        raise InputError(f"{path}: expected camera_0, camera_1, ..., got {', '.join(content) or 'nothing'}")
    unit = unit_of(path, None, unit)
    cameras = [_camera(table, f"{path}: {key}", key, size) for key, table in tables.items()]
    groups = {str(table.get("camera_group")): key for key, table in tables.items()}
    if len(groups) > 1:
        raise InputError(
            f"{path}: expected all cameras in one camera_group, but {' and '.join(groups.values())} are in different "
            "ones: nothing says where these are to each other; film a board that connects them"
        )
    if content.get("nb_camera") != len(tables):
        _LOG.warning("%s: says %s cameras, holds %d", path, content.get("nb_camera"), len(tables))
    return rig_of(path, cameras, unit)


def _camera(table: Any, where: str, name: str, size: tuple[int, int] | None) -> Camera:
    if not isinstance(table, Mapping):
        raise InputError(f"{where}: expected a camera's values, got {table!r}")
    kind = int(numbers(table, "distortion_type", (), where))
    if kind not in (_BROWN, _KANNALA):
        raise InputError(f"{where}.distortion_type: expected 0 (Brown) or 1 (Kannala), got {kind}; calibrate with one")
    width, height = (float(numbers(table, key, (), where)) for key in ("img_width", "img_height"))
    R, t = invert(*rigid(numbers(table, "camera_pose_matrix", (4, 4), where), f"{where}.camera_pose_matrix"))
    return camera_of(
        where,
        name,
        size=size_of(where, (width, height), size),
        K=numbers(table, "camera_matrix", (3, 3), where),
        dist=numbers(table, "distortion_vector", (1, -1), where),
        R=R,
        t=t,
        fisheye=kind == _KANNALA,
    )
