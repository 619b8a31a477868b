"""Where are the animals? From 2D keypoints of several cameras to named 3D skeletons with uncertainty."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Candidates": "poses",
    "Groups": "poses",
    "InputError": "poses",
    "Poses": "poses",
    "Skeleton": "skeleton",
    "Timeline": "timeline",
    "adjust_rig_to_poses": "rig_points",
    "assemble": "assembly",
    "associate": "association",
    "evaluate_pose": "evaluation",
    "evaluate_tracks": "evaluation",
    "identify": "identity",
    "identity_confidence": "identity_doubt",
    "load_poses": "files",
    "refine": "refinement",
    "rig_points": "rig_points",
    "save_poses": "files",
    "track": "tracking",
    "triangulate": "triangulation",
}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pose3d' has no attribute {name!r}")
    return getattr(import_module(f"pose3d.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
