"""How does a rig stand in Pose2Sim's calibration TOML (converted from Qualisys, or calculated)?

The tables are aniposelib's, each under its camera's name, with four distortion coefficients (k1 k2 p1 p2), zero skew
and lengths in metres: Pose2Sim 0.10, `calibration.py` (`toml_write`, `calib_qca_fun`). K counts pixels from the centre
of the first: Qualisys' sensor runs from 0 to 64 * (width - 1) in 1/64 px. Its readers hand the coefficients on to
OpenCV as they are (`common.py`, `computeP`, `retrieve_calib_params`), so five or eight are written where a camera has
them; they know no fisheye, and no unit but metres.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibration.files.atomic import write_bytes
from calibration.files.calibration_toml import rig_of_cameras, toml_floats, toml_string
from calibration.files.cameras import unit_of
from calibration.files.limits import in_metres, refuse_unheld
from calibration.rig import CameraRig
from calibration.transforms import log_so3

__all__ = ["is_pose2sim", "rig_from_pose2sim", "write_pose2sim"]

_OTHER_TABLES = ("metadata", "capture_volume", "charuco", "checkerboard")
"""Tables that Pose2Sim does not take for cameras."""


def is_pose2sim(tables: Mapping[str, Any]) -> bool:
    """Whether parsed TOML is Pose2Sim's: it writes `fisheye = false` and four coefficients, and stores no unit.

    aniposelib writes `fisheye` only when true, and five coefficients otherwise.
    """
    metadata = tables.get("metadata", {})
    cameras = [table for key, table in tables.items() if key != "metadata"]
    return isinstance(metadata, Mapping) and "unit" not in metadata and bool(cameras) and all(map(_is_camera, cameras))


def rig_from_pose2sim(tables: Mapping[str, Any], path: Path, unit: str | None = None) -> CameraRig:
    """The rig of a parsed Pose2Sim TOML, in metres, in the file's order. Raises InputError naming file, camera and
    key.
    """
    return rig_of_cameras(tables, path, unit_of(path, "m", unit))


def write_pose2sim(path: Path, rig: CameraRig) -> None:
    """Write a rig for Pose2Sim, its lengths in metres, and [metadata] says so. Same rig, same bytes.

    Raises InputError for a fisheye, a clock's offset or drift, skew, and a unit that is not known.
    """
    refuse_unheld(path, rig, "Pose2Sim", fisheye=False, reserved=_OTHER_TABLES)
    blocks = []
    for camera in in_metres(path, rig, "Pose2Sim"):
        intrinsics, name = camera.intrinsics, toml_string(camera.name)
        n_dist = 4 if not intrinsics.dist[4:].any() else len(intrinsics.dist)
        blocks.append(
            f"[{name}]\n"
            f"name = {name}\n"
            f"size = {toml_floats(intrinsics.size)}\n"
            f"matrix = [{', '.join(toml_floats(row) for row in intrinsics.K)}]\n"
            f"distortions = {toml_floats(intrinsics.dist[:n_dist])}\n"
            f"rotation = {toml_floats(log_so3(camera.R))}\n"
            f"translation = {toml_floats(camera.t)}\n"
            "fisheye = false\n"
        )
    blocks.append('[metadata]\nadjusted = false\nerror = 0.0\nunit = "m"\n')
    write_bytes(path, "\n".join(blocks).encode())


def _is_camera(table: Any) -> bool:
    four = isinstance(table, Mapping) and isinstance(table.get("distortions"), list) and len(table["distortions"]) == 4
    return four and table.get("fisheye") is False
