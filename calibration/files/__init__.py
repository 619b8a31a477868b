"""Which rig or board does a file hold? Our calibration.toml and board.toml, and other tools' formats, one module
each.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from calibration.errors import InputError, nearest_name
from calibration.files.calibration_toml import rig_from_tables, write_rig
from calibration.files.pose2sim import is_pose2sim, rig_from_pose2sim
from calibration.files.toml_tables import read_toml
from calibration.rig import CameraRig

if TYPE_CHECKING:
    from calibration.board import Board

__all__ = ["load_board", "load_rig", "save_rig"]

_READERS = {"calibration": rig_from_tables, "pose2sim": rig_from_pose2sim}


def load_rig(
    path: str | os.PathLike[str],
    format: str | None = None,
    unit: str | None = None,
) -> CameraRig:
    """The rig of a calibration TOML: cameras in the file's order, lengths in the file's unit.

    format: "calibration" (ours, and aniposelib's) or "pose2sim" (metres); default by what stands in the file.
    unit: of lengths, where the file does not say (aniposelib); a unit unlike the file's own is an error, nothing is
        rescaled.
    The covariance is read from beside the file (calibration.covariance.npz) when it belongs to the TOML's bytes, else
    None. Raises InputError naming file, camera and key.
    """
    path = Path(path)
    tables = read_toml(path)
    told = format or ("pose2sim" if is_pose2sim(tables) else "calibration")
    if told not in _READERS:
        raise InputError(f"{path}: unknown rig format '{told}'; {nearest_name(told, _READERS)}")
    return _READERS[told](tables, path, unit)


def save_rig(path: str | os.PathLike[str], rig: CameraRig, format: str | None = None) -> None:
    """Write a rig as calibration.toml (aniposelib reads it too), its covariance beside it. Atomic; same rig, same
    bytes.

    format: only "calibration". Raises InputError for another one.
    """
    if format not in (None, "calibration"):
        raise InputError(f"{path}: rigs are written as 'calibration' only, got format '{format}'")
    write_rig(Path(path), rig)


def load_board(path: str | os.PathLike[str]) -> Board:
    """The calibration board of a board.toml, ours or sleap-anipose's. Raises InputError naming file and key."""
    from calibration.files.board_toml import board_from_table

    return board_from_table(read_toml(Path(path)), Path(path))
