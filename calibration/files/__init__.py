"""Which rig or board does a file hold? Our calibration.toml and board.toml, and other tools' formats, one module
each, told apart by what stands in them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibration.errors import InputError, nearest_name
from calibration.files.calibration_toml import rig_from_tables, write_aniposelib, write_rig
from calibration.files.caliscope import is_caliscope, rig_from_caliscope
from calibration.files.dannce import is_dannce, read_dannce
from calibration.files.file_storage import is_file_storage, read_file_storage
from calibration.files.kalibr import is_kalibr, read_kalibr, read_yaml
from calibration.files.mc_calib import is_mc_calib, read_mc_calib
from calibration.files.opencv import is_opencv, read_opencv, write_opencv
from calibration.files.pose2sim import is_pose2sim, rig_from_pose2sim, write_pose2sim
from calibration.files.toml_tables import read_toml
from calibration.rig import CameraRig

if TYPE_CHECKING:
    from calibration.board import Board

__all__ = ["READABLE_RIGS", "WRITABLE_RIGS", "load_board", "load_boards", "load_rig", "save_rig"]

Size = tuple[int, int] | None
READABLE_RIGS = {
    "calibration": "our calibration.toml",
    "aniposelib": "aniposelib's calibration.toml",
    "caliscope": "caliscope's camera_array.toml or config.toml",
    "pose2sim": "Pose2Sim's .toml",
    "dannce": "DANNCE's .mat, or a folder of hires_cam1_params.mat, ...",
    "mc_calib": "MC-Calib's calibrated_cameras_data.yml",
    "kalibr": "Kalibr's camchain.yaml",
    "opencv": "OpenCV's FileStorage, .yml or .xml: ours, or a stereo pair's M1 D1 M2 D2 R T",
}
"""Formats that `load_rig` reads."""
WRITABLE_RIGS: dict[str, Callable[[Path, CameraRig], None]] = {
    "calibration": write_rig,
    "aniposelib": write_aniposelib,
    "pose2sim": write_pose2sim,
    "opencv": write_opencv,
}
"""Formats that `save_rig` writes."""

_TOML: dict[str, Callable[[Mapping[str, Any], Path, str | None], CameraRig]] = {
    "calibration": rig_from_tables,
    "aniposelib": rig_from_tables,
    "caliscope": rig_from_caliscope,
    "pose2sim": rig_from_pose2sim,
}
_OTHERS: dict[str, Callable[[Path, str | None, Size], CameraRig]] = {
    "dannce": read_dannce,
    "mc_calib": read_mc_calib,
    "kalibr": read_kalibr,
    "opencv": read_opencv,
}
_WRITTEN_SUFFIX = {".toml": "calibration", ".yml": "opencv", ".yaml": "opencv"}


def load_rig(
    path: str | os.PathLike[str], format: str | None = None, unit: str | None = None, size: Size = None
) -> CameraRig:
    """The rig of a calibration file in any format of `READABLE_RIGS`: cameras in the file's order.

    format: default by what stands in the file.
    unit: of lengths, where the file does not say (aniposelib, DANNCE, MC-Calib, a stereo pair); a unit unlike the
        file's own is an error, nothing is rescaled.
    size: (width, height) px of every camera's images, where the file does not say (DANNCE, a stereo pair).
    The covariance is read from beside our TOML (calibration.covariance.npz) when it belongs to the TOML's bytes, else
    None. Raises InputError naming file, camera and key.
    """
    path = Path(path)
    told = format or _told_format(path)
    if told in _OTHERS:
        return _OTHERS[told](path, unit, size)
    if told not in _TOML:
        raise InputError(f"{path}: unknown rig format '{told}'; {nearest_name(told, READABLE_RIGS)}")
    rig = _TOML[told](read_toml(path), path, unit)
    for camera in rig:
        if size is not None and camera.intrinsics.size != tuple(size):
            raise InputError(
                f"{path}: camera '{camera.name}': the file says images of {camera.intrinsics.size} px, got "
                f"size={tuple(size)}; leave it out"
            )
    return rig


def save_rig(path: str | os.PathLike[str], rig: CameraRig, format: str | None = None) -> None:
    """Write a rig in a format of `WRITABLE_RIGS`; default by the suffix: .toml calibration, .yml OpenCV. Atomic; same
    rig, same bytes.

    Only ours (which aniposelib reads too) holds everything, the covariance beside it. Raises InputError for an unknown
    format, and naming the camera for what another format cannot hold.
    """
    path = Path(path)
    told = format or _WRITTEN_SUFFIX.get(path.suffix.lower())
    if told is None:
        raise InputError(
            f"{path}: the suffix names no format; use {', '.join(_WRITTEN_SUFFIX)}, or give format= "
            "(pose3d convert --to)"
        )
    if told not in WRITABLE_RIGS:
        raise InputError(f"{path}: cannot write rig format '{told}'; {nearest_name(told, WRITABLE_RIGS)}")
    WRITABLE_RIGS[told](path, rig)


def load_boards(path: str | os.PathLike[str]) -> tuple[Board, ...]:
    """The calibration boards of a board.toml, ours (one, or several [[board]]) or sleap-anipose's. Raises InputError
    naming file and key, and boards that an image cannot tell apart."""
    from calibration.files.board_toml import boards_from_tables

    return boards_from_tables(read_toml(Path(path)), Path(path))


def load_board(path: str | os.PathLike[str]) -> Board:
    """The only board of a board.toml. Raises InputError as `load_boards`, and where it describes several."""
    first, *others = load_boards(path)
    if others:
        raise InputError(f"{path}: expected one board, got {1 + len(others)}; read them with load_boards")
    return first


def _told_format(path: Path) -> str:
    """The format by what stands in the file. Raises InputError that lists the formats."""
    if not path.exists():
        raise InputError(f"{path}: expected a calibration file, found none; check the path")
    if is_dannce(path):
        return "dannce"
    if is_file_storage(path):
        content = read_file_storage(path)
        for name, told in (("mc_calib", is_mc_calib), ("opencv", is_opencv)):
            if told(content):
                return name
    elif path.suffix.lower() in (".yml", ".yaml"):
        if is_kalibr(read_yaml(path)):
            return "kalibr"
    elif path.is_file() and path.suffix.lower() not in (".xml", ".json", ".txt"):
        tables = read_toml(path)
        if is_caliscope(tables):
            return "caliscope"
        return "pose2sim" if is_pose2sim(tables) else "calibration"
    listed = "; ".join(f"{name}: {what}" for name, what in READABLE_RIGS.items())
    raise InputError(
        f"{path}: not a rig's format that is known from its content; give format=, or pose3d convert --from ({listed})"
    )
