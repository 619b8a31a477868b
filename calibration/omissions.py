"""Which frames of which camera, and which parts of its images, take no part? Told by number, and by a mask."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError, nearest_name
from calibration.footage import Footage

__all__ = ["ALL", "FrameNumbers", "check_numbers", "leave_out_line", "left_out", "masked", "read_masks"]

Array = NDArray[Any]
FrameNumbers = tuple[int | tuple[int, int], ...]
"""Numbers of single frames, and (first, last) of ranges, both ends included."""

ALL = "all"
"""Stands for every camera."""


def check_numbers(told: Mapping[str, FrameNumbers]) -> None:
    """Raises InputError for numbers below 0 and ranges that end before they begin."""
    for name, entries in told.items():
        for entry in entries:
            first, last = _ends(entry)
            if first < 0 or last < first:
                raise InputError(
                    f"leave_out.{name}: expected frame numbers from 0 on and ranges [first, last], got {_shown(entry)}"
                )


def left_out(
    positions: Mapping[str, NDArray[np.int64]], footage: Mapping[str, Footage], told: Mapping[str, FrameNumbers]
) -> dict[str, NDArray[np.int64]]:
    """The positions (moments,) in each camera's footage, -1 = none, with -1 for the frames that are to be left out.

    told: {camera or "all": frames}, by the numbers of the camera's own footage: positions in a video, numbers in the
    names of images. Raises InputError for unknown cameras, frames that the footage does not have, and where nothing is
    left of a camera.
    """
    for name in told:
        if name not in footage and name != ALL:
            raise InputError(f"leave_out: camera '{name}' is not in the footage; {nearest_name(name, (*footage, ALL))}")
    kept = {name: np.array(rows, dtype=np.int64) for name, rows in positions.items()}
    for name, entries in told.items():
        for entry in entries:
            first, last = _ends(entry)
            there = False
            for camera in footage if name == ALL else (name,):
                numbers = footage[camera].frame_numbers
                there |= bool(((numbers >= first) & (numbers <= last)).any())
                rows = kept[camera]
                rows[(rows >= 0) & (numbers[rows] >= first) & (numbers[rows] <= last)] = -1
            if not there:
                camera = next(iter(footage)) if name == ALL else name
                numbers = footage[camera].frame_numbers
                raise InputError(
                    f"leave_out.{name}: expected frames of {footage[camera].path}, which has {numbers.min()} to "
                    f"{numbers.max()}, got {_shown(entry)}"
                )
    for name, rows in kept.items():
        if (positions[name] >= 0).any() and (rows < 0).all():
            raise InputError(f"leave_out: camera '{name}': none of its frames is left; leave out less, or the camera")
    return kept


def read_masks(masks: Mapping[str, Path], footage: Mapping[str, Footage]) -> dict[str, NDArray[np.bool_]]:
    """{camera: (height, width), where the image counts: all but black}. Raises InputError for unknown cameras, and
    naming camera and file for what is no image or of another size than the footage."""
    counts = {}
    for name, path in masks.items():
        if name not in footage:
            raise InputError(f"masks: camera '{name}' is not in the footage; {nearest_name(name, footage)}")
        data = np.fromfile(path, dtype=np.uint8) if Path(path).is_file() else np.zeros(0, np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if len(data) else None
        if picture is None:
            raise InputError(f"masks.{name}: {path}: expected an image that OpenCV can read, got none; check the path")
        width, height = footage[name].size
        if picture.shape != (height, width):
            raise InputError(
                f"masks.{name}: {path}: expected an image of {width} x {height} px, as {footage[name].path}, got "
                f"{picture.shape[1]} x {picture.shape[0]}"
            )
        counts[name] = picture > 0
    return counts


def masked(name: str, corners: Array, sigma: Array, counts: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Corners (..., 2) px and sigma (...) px without those on black pixels: NaN. counts: as from `read_masks`. Raises
    InputError where that hides all corners that there were."""
    seen = np.isfinite(corners[..., 0])
    column, row = np.clip(np.rint(corners[seen]).astype(int), 0, np.array(counts.shape[::-1]) - 1).T
    hidden = seen.copy()
    hidden[seen] = ~counts[row, column]
    if seen.any() and not (seen & ~hidden).any():
        raise InputError(
            f"masks.{name}: hides all {int(seen.sum())} corners that camera '{name}' sees of the board; black is left "
            "out, all else counts: is it the wrong way round?"
        )
    return np.where(hidden[..., None], np.nan, corners), np.where(hidden, np.nan, sigma)


def leave_out_line(numbers: Mapping[str, Sequence[int]]) -> str:
    """What to write so that these frames of these cameras take no part, in words."""
    lines = []
    for name, frames in numbers.items():
        wanted = np.unique([frame for frame in frames if frame >= 0])
        runs = np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1)
        shown = [f"[{run[0]}, {run[-1]}]" if len(run) > 2 else ", ".join(map(str, run)) for run in runs if len(run)]
        key = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)
        lines.append(f"leave_out.{key} = [{', '.join(shown)}]")
    return f"add {' and '.join(lines)} under [detect]"


def _ends(entry: int | tuple[int, int]) -> tuple[int, int]:
    first, last = (entry, entry) if isinstance(entry, int) else entry
    return first, last


def _shown(entry: int | tuple[int, int]) -> str:
    return str(entry) if isinstance(entry, int) else str(list(entry))
