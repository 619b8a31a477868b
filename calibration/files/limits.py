"""What of a rig can another tool's format not hold?"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from calibration.errors import InputError
from calibration.rig import CameraRig

__all__ = ["in_metres", "refuse_unheld"]

_LOG = logging.getLogger(__name__)
_METRES = {"m": 1.0, "dm": 0.1, "cm": 0.01, "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "inch": 0.0254}


def refuse_unheld(path: Path, rig: CameraRig, tool: str, *, fisheye: bool = True, reserved: Iterable[str] = ()) -> None:
    """Raise InputError for the first camera with something that a tool's format cannot hold: a clock of its own, skew,
    a fisheye where it has none, a reserved name. A covariance is left out with a warning in the log."""
    other = "write calibration.toml, which holds it"
    for camera in rig:
        where = f"{path}: camera '{camera.name}'"
        for what, value in (("offset", camera.offset), ("drift", camera.drift)):
            if value != 0:
                raise InputError(
                    f"{where}: {tool} cannot hold the clock's {what} of {value:g}; set it to 0 and shift the times of "
                    f"the 2D points instead, or {other}"
                )
        if camera.intrinsics.K[0, 1] != 0:
            skew = camera.intrinsics.K[0, 1]
            raise InputError(f"{where}: {tool} cannot hold the skew of {skew:g} px; calibrate without, or {other}")
        if camera.intrinsics.model == "fisheye" and not fisheye:
            raise InputError(f"{where}: {tool} cannot hold a fisheye; calibrate it as a pinhole camera, or {other}")
        if camera.name in reserved:
            raise InputError(f"{where}: {tool} takes a table of that name for something else; rename the camera")
    if rig.covariance is not None:
        _LOG.warning("%s: %s cannot hold the rig's covariance; only calibration.toml does", path, tool)


def in_metres(path: Path, rig: CameraRig, tool: str) -> CameraRig:
    """The rig with its lengths in metres, for formats that know no other unit. Raises InputError for an unknown
    unit."""
    if rig.unit not in _METRES:
        raise InputError(
            f"{path}: {tool} wants metres, and how long is a '{rig.unit}'? Known units: {', '.join(_METRES)}"
        )
    scale = _METRES[rig.unit]
    return CameraRig(tuple(replace(camera, t=scale * camera.t) for camera in rig), "m")
