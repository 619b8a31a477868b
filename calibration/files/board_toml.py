"""Which board does a board.toml describe?

Ours: columns and rows (squares), square_length, marker_length, dictionary, unit; without marker_length it is a
    chessboard.
sleap-anipose's: board_x and board_y ("the number of squares along the width and height of the board", its README),
square_length, marker_length, marker_bits, dict_size; it stores no unit.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibration.board import Board
from calibration.errors import InputError
from calibration.files.toml_tables import numbers, refuse_unknown_keys

__all__ = ["board_from_table"]

_LOG = logging.getLogger(__name__)
_KEYS = ("columns", "rows", "square_length", "marker_length", "dictionary", "unit")
_SLEAP_ANIPOSE_KEYS = ("board_x", "board_y", "square_length", "marker_length", "marker_bits", "dict_size", "unit")


def board_from_table(table: Mapping[str, Any], path: Path) -> Board:
    """The board of a parsed TOML. Raises InputError naming file and key (an unknown one with the nearest valid
    name).
    """
    foreign = "board_x" in table or "board_y" in table
    refuse_unknown_keys(table, _SLEAP_ANIPOSE_KEYS if foreign else _KEYS, str(path))
    columns, rows = ("board_x", "board_y") if foreign else ("columns", "rows")
    options: dict[str, Any] = {}
    if "marker_length" in table:
        options["marker_length"] = _length(table, "marker_length", path)
        dictionary = _sleap_anipose_dictionary(table, path) if foreign else table.get("dictionary")
        if dictionary is not None:
            options["dictionary"] = str(dictionary)
    if "unit" in table:
        options["unit"] = str(table["unit"])
    elif foreign:
        _LOG.warning('%s: does not say its unit of length; taken as mm (add unit = "mm" to say so)', path)
    try:
        return Board(
            _count(table, columns, path), _count(table, rows, path), _length(table, "square_length", path), **options
        )
    except InputError as error:
        raise error if str(error).startswith(str(path)) else InputError(f"{path}: {error}") from None


def _sleap_anipose_dictionary(table: Mapping[str, Any], path: Path) -> str:
    bits = _count(table, "marker_bits", path)
    return f"DICT_{bits}X{bits}_{_count(table, 'dict_size', path)}"


def _count(table: Mapping[str, Any], key: str, path: Path) -> int:
    value = float(numbers(table, key, (), str(path)))
    if value != round(value) or value < 1:
        raise InputError(f"{path}.{key}: expected a whole number above 0, got {table[key]!r}")
    return round(value)


def _length(table: Mapping[str, Any], key: str, path: Path) -> float:
    value = float(numbers(table, key, (), str(path)))
    if value <= 0:
        raise InputError(f"{path}.{key}: expected a length above 0, got {table[key]!r}")
    return value
