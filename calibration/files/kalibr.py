"""How does a rig stand in Kalibr's camchain.yaml?

YAML with `cam0`, `cam1`, ...: camera_model, intrinsics (fu fv pu pv), distortion_model, distortion_coeffs, resolution
(width, height) and, after the first, T_cn_cnm1 (4, 4), which takes points of the camera before to this one, in metres
(Kalibr, `kalibr_common/ConfigReader.py`; its wiki, *yaml formats*). radtan is OpenCV's k1 k2 p1 p2, equidistant
OpenCV's fisheye (aslam_cameras, `RadialTangentialDistortion.hpp`, `EquidistantDistortion.hpp`). A principal point
begins at (width - 1) / 2 (`PinholeProjection.hpp`) and corners are refined by OpenCV: pixel (0, 0) is a pixel's centre.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from calibration.camera import Camera
from calibration.errors import InputError
from calibration.files.cameras import camera_of, rig_of, rigid, size_of, unit_of
from calibration.files.toml_tables import numbers
from calibration.rig import CameraRig
from calibration.transforms import compose

__all__ = ["is_kalibr", "read_kalibr", "read_yaml"]

_LOG = logging.getLogger(__name__)
_DISTORTIONS = {"radtan": 4, "equidistant": 4, "none": 0}
"""Models that are read, and their numbers of coefficients."""


def is_kalibr(content: Any) -> bool:
    """Whether parsed YAML is Kalibr's."""
    first = content.get("cam0") if isinstance(content, Mapping) else None
    return isinstance(first, Mapping) and "camera_model" in first


def read_yaml(path: Path) -> Any:
    """What stands in a YAML file; a first line `%YAML:1.0`, which some write before Kalibr's, is passed over.

    Raises InputError when it is missing or no YAML.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8-sig")
        return yaml.safe_load(re.sub(r"\A%YAML:.*", "", text))
    except OSError as error:
        raise InputError(f"{path}: expected a readable YAML file, got: {error.strerror}; check the path") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected text in UTF-8; save the file in that encoding") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected YAML, got: {error}; correct that line") from None


def read_kalibr(path: Path, unit: str | None = None, size: tuple[int, int] | None = None) -> CameraRig:
    """The rig of a camchain.yaml, in metres: cam0 is the world; IMUs are left out.

    Raises InputError naming file, camera and key, and for models other than pinhole with radtan, equidistant or none.
    """
    content = read_yaml(path)
    content = content if isinstance(content, Mapping) else {}
    tables = {key: table for key, table in content.items() if re.fullmatch(r"cam\d+", str(key))}
    if not tables:
        raise InputError(f"{path}: expected cam0, cam1, ..., got {', '.join(map(str, content)) or 'nothing'}")
    cameras: list[Camera] = []
    R, t = np.eye(3), np.zeros(3)
    for n, key in enumerate(sorted(tables, key=lambda key: int(key[3:]))):
        table = tables[key]
        where = f"{path}: {key}"
        if not isinstance(table, Mapping):
            raise InputError(f"{where}: expected a camera's values, got {table!r}")
        if key != f"cam{n}":
            raise InputError(f"{where}: expected cam{n}, each camera's place is told from the one before")
        if n:
            R, t = compose(*rigid(numbers(table, "T_cn_cnm1", (4, 4), where), f"{where}.T_cn_cnm1"), R, t)
        cameras.append(_camera(table, where, key, R, t, size))
    shifts = [str(table["timeshift_cam_imu"]) for table in tables.values() if "timeshift_cam_imu" in table]
    if len(set(shifts)) > 1:
        _LOG.warning("%s: the cameras' time shifts to the IMU differ and are left out: %s s", path, ", ".join(shifts))
    return rig_of(path, cameras, unit_of(path, "m", unit))


def _camera(
    table: Mapping[str, Any], where: str, name: str, R: np.ndarray, t: np.ndarray, size: tuple[int, int] | None
) -> Camera:
    if table.get("camera_model") != "pinhole":
        raise InputError(
            f"{where}.camera_model: expected 'pinhole', got {table.get('camera_model')!r}; calibrate with "
            "pinhole-radtan or, for a fisheye, pinhole-equi"
        )
    model = table.get("distortion_model")
    if model not in _DISTORTIONS:
        raise InputError(f"{where}.distortion_model: expected {', '.join(_DISTORTIONS)}, got {model!r}")
    fu, fv, pu, pv = numbers(table, "intrinsics", (4,), where)
    width, height = numbers(table, "resolution", (2,), where)
    dist = numbers(table, "distortion_coeffs", (_DISTORTIONS[model],), where) if _DISTORTIONS[model] else np.zeros(0)
    K = np.array([[fu, 0, pu], [0, fv, pv], [0, 0, 1]])
    size = size_of(where, (float(width), float(height)), size)
    return camera_of(where, name, size=size, K=K, dist=dist, R=R, t=t, fisheye=model == "equidistant")
