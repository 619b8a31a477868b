"""Which markers are there? OpenCV's dictionaries, and which of them are one family."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2

__all__ = ["DICTIONARIES", "family", "marker_count", "marker_dictionary"]

DICTIONARIES = tuple(
    sorted(name for name in dir(cv2.aruco) if name.startswith("DICT_") and name == name.replace("h", "H"))
)
"""Names of the marker dictionaries that OpenCV knows."""


@lru_cache(maxsize=16)
def marker_dictionary(name: str) -> Any:
    """OpenCV's dictionary of a name in `DICTIONARIES`."""
    return cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, name))


def marker_count(name: str) -> int:
    """How many markers a dictionary holds; their ids begin at 0."""
    return len(marker_dictionary(name).bytesList)


def family(name: str) -> str:
    """What dictionaries share in which one id is one marker: DICT_4X4_50 holds the first 50 of DICT_4X4_1000."""
    stem, _, size = name.rpartition("_")
    return stem if size.isdigit() else name
