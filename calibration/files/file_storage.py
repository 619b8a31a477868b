"""What stands in a file of OpenCV's FileStorage, YAML or XML?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from calibration.errors import InputError

__all__ = ["is_file_storage", "read_file_storage"]

_INT, _REAL, _STR, _SEQ, _MAP = 1, 2, 3, 4, 5  # cv::FileNode's types


def is_file_storage(path: Path) -> bool:
    """Whether a file begins like OpenCV's YAML or XML."""
    try:
        with path.open("rb") as file:
            head = file.read(200).lstrip()
    except OSError:
        return False
    return head.startswith(b"%YAML") or b"<opencv_storage" in head


def read_file_storage(path: Path) -> dict[str, Any]:
    """The values by key, in the file's order: dicts, lists, numbers, strings; matrices as float arrays.

    Raises InputError when the file is missing, or no whole FileStorage.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: expected a readable file, got: {error.strerror}; check the path") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected text in UTF-8; save the file in that encoding") from None
    try:
        storage = cv2.FileStorage(text.replace("\0", " "), cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
        content = _value(storage.root(), str(path))
    except (cv2.error, SystemError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[-1]
        raise InputError(f"{path}: expected a whole file of OpenCV's FileStorage, got: {reason}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected values by key, got {content!r}")
    return content


def _value(node: Any, where: str) -> Any:
    if node.type() == _MAP:
        return _map_value({key: node.getNode(key) for key in node.keys()}, where)  # noqa: SIM118 (no mapping)
    if node.type() == _SEQ:
        return [_value(node.at(i), where) for i in range(node.size())]
    if node.type() == _STR:
        return node.string()
    if node.type() in (_INT, _REAL):
        return node.real()
    return None


def _map_value(nodes: dict[str, Any], where: str) -> Any:
    """A matrix where rows, cols and data are there, else a dict."""
    values = {key: _value(node, f"{where}: {key}") for key, node in nodes.items()}
    if not {"rows", "cols", "data"} <= set(values):
        return values
    try:
        return np.array(values["data"], dtype=np.float64).reshape(int(values["rows"]), int(values["cols"]))
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: expected a matrix of rows x cols numbers, got: {error}") from None
