"""Which boards does a board.toml describe?

Ours: columns and rows (squares), square_length, marker_length, dictionary, first_marker, unit; without marker_length it
    is a chessboard. A table [back] describes the other side of a board that is printed on both: first_marker,
    thickness, flipped, dictionary. Several boards are tables [[board]] (and [board.back]) with these keys.
sleap-anipose's: board_x and board_y ("the number of squares along the width and height of the board", its README),
square_length, marker_length, marker_bits, dict_size; it stores no unit.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibration.board import FLIPS, Back, Board, refuse_alike
from calibration.errors import InputError
from calibration.files.toml_tables import numbers, refuse_unknown_keys

__all__ = ["boards_from_tables"]

_LOG = logging.getLogger(__name__)
_KEYS = ("columns", "rows", "square_length", "marker_length", "dictionary", "first_marker", "unit", "back")
_BACK_KEYS = ("first_marker", "thickness", "flipped", "dictionary")
_SLEAP_ANIPOSE_KEYS = ("board_x", "board_y", "square_length", "marker_length", "marker_bits", "dict_size", "unit")


def boards_from_tables(tables: Mapping[str, Any], path: Path) -> tuple[Board, ...]:
    """The boards of a parsed TOML. Raises InputError naming file and key (an unknown one with the nearest valid name),
    and boards that an image cannot tell apart.
    """
    if "board" not in tables:
        return (_board(tables, str(path)),)
    several = tables["board"]
    refuse_unknown_keys(tables, ("board",), f"{path}: beside [[board]]")
    if not isinstance(several, list) or not all(isinstance(table, Mapping) for table in several) or not several:
        raise InputError(f"{path}.board: expected tables [[board]], got {several!r}; write [[board]] above each board")
    boards = tuple(_board(table, f"{path}: board {i}") for i, table in enumerate(several, 1))
    try:
        refuse_alike(boards)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return boards


def _board(table: Mapping[str, Any], path: str) -> Board:
    """path: the file, and which board of it, for messages."""
    foreign = "board_x" in table or "board_y" in table
    refuse_unknown_keys(table, _SLEAP_ANIPOSE_KEYS if foreign else _KEYS, path)
    columns, rows = ("board_x", "board_y") if foreign else ("columns", "rows")
    options: dict[str, Any] = {}
    if "marker_length" in table:
        options["marker_length"] = _length(table, "marker_length", path)
        dictionary = _sleap_anipose_dictionary(table, path) if foreign else table.get("dictionary")
        if dictionary is not None:
            options["dictionary"] = str(dictionary)
    elif "dictionary" in table or "marker_bits" in table:
        raise InputError(
            f"{path}.marker_length: expected the side of a marker, got none; add it, or take out what describes "
            "markers: a chessboard has none"
        )
    if "first_marker" in table:
        options["first_marker"] = _count(table, "first_marker", path, least=0)
    if "back" in table:
        options["back"] = _back(table["back"], f"{path}: back")
    if "unit" in table:
        options["unit"] = str(table["unit"])
    elif foreign:
        _LOG.warning('%s: does not say its unit of length; taken as mm (add unit = "mm" to say so)', path)
    try:
        return Board(
            _count(table, columns, path), _count(table, rows, path), _length(table, "square_length", path), **options
        )
    except InputError as error:
        raise error if str(error).startswith(path) else InputError(f"{path}: {error}") from None


def _back(table: Any, path: str) -> Back:
    if not isinstance(table, Mapping):
        raise InputError(f"{path}: expected a table [back], got {table!r}")
    refuse_unknown_keys(table, _BACK_KEYS, path)
    if "flipped" not in table:
        raise InputError(
            f"{path}: expected a key 'flipped'; turn the board over as a page of a book: where the back then stands "
            f'upright, its first row of squares on top, add flipped = "{FLIPS[0]}", else flipped = "{FLIPS[1]}"'
        )
    dictionary = None if "dictionary" not in table else str(table["dictionary"])
    thickness = float(numbers(table, "thickness", (), path))
    try:
        return Back(_count(table, "first_marker", path, least=0), thickness, table["flipped"], dictionary)
    except InputError as error:
        raise error if str(error).startswith(path) else InputError(f"{path.removesuffix('back')}{error}") from None


def _sleap_anipose_dictionary(table: Mapping[str, Any], path: str) -> str:
    bits = _count(table, "marker_bits", path)
    return f"DICT_{bits}X{bits}_{_count(table, 'dict_size', path)}"


def _count(table: Mapping[str, Any], key: str, path: str, least: int = 1) -> int:
    value = math.nan if isinstance(table.get(key), bool) else float(numbers(table, key, (), path))
    if not value >= least or value != round(value):
        wanted = "above 0" if least else "of 0 or more"
        raise InputError(f"{path}.{key}: expected a whole number {wanted}, got {table[key]!r}")
    return round(value)


def _length(table: Mapping[str, Any], key: str, path: str) -> float:
    value = float(numbers(table, key, (), path))
    if value <= 0:
        raise InputError(f"{path}.{key}: expected a length above 0, got {table[key]!r}")
    return value
