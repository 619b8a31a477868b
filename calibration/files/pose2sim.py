"""How does a rig stand in Pose2Sim's calibration TOML (converted from Qualisys, or calculated)?

The tables are aniposelib's, with four distortion coefficients (k1 k2 p1 p2) and lengths in metres: Pose2Sim 0.10,
`calibration.py` (`toml_write`, `calib_qca_fun`). K counts pixels from the centre of the first: Qualisys' sensor runs
from 0 to 64 * (width - 1) in 1/64 px.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibration.errors import InputError
from calibration.files.calibration_toml import rig_of_cameras
from calibration.rig import CameraRig

__all__ = ["is_pose2sim", "rig_from_pose2sim"]


def is_pose2sim(tables: Mapping[str, Any]) -> bool:
    """Whether parsed TOML is Pose2Sim's: it writes `fisheye = false` and four coefficients, and stores no unit.

    aniposelib writes `fisheye` only when true, and five coefficients otherwise.
    """
    cameras = [table for key, table in tables.items() if key != "metadata"]
    return (
        "unit" not in tables.get("metadata", {})
        and bool(cameras)
        and all(
            isinstance(c, Mapping) and c.get("fisheye") is False and len(c.get("distortions", ())) == 4 for c in cameras
        )
    )


def rig_from_pose2sim(tables: Mapping[str, Any], path: Path, unit: str | None = None) -> CameraRig:
    """The rig of a parsed Pose2Sim TOML, in metres, in the file's order. Raises InputError naming file, camera and
    key.
    """
    if unit not in (None, "m"):
        raise InputError(f'{path}: Pose2Sim writes metres, got unit="{unit}"; leave it out')
    return rig_of_cameras(tables, path, "m")
