"""Where are the cameras? Calibration of a rig of synchronised cameras from board footage, and the geometry on it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "Back": "board",
    "Board": "board",
    "BoardDetections": "board",
    "Calibration": "calibrate",
    "Camera": "camera",
    "CameraRig": "rig",
    "InputError": "errors",
    "Intrinsics": "camera",
    "Triangulation": "geometry",
    "adjust_rig": "tracks",
    "calibrate_rig": "calibrate",
    "check_rig": "drift",
    "detect_boards": "detection",
    "load_board": "files",
    "load_boards": "files",
    "load_rig": "files",
    "place_rig": "world",
    "resettle_cameras": "moved",
    "save_rig": "files",
    "triangulate_points": "geometry",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'calibration' has no attribute {name!r}")
    return getattr(import_module(f"calibration.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
