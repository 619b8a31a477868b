"""Is the board in these pictures the one that is described, and are they sharp? From markers, as they lie."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.board import Board, Pattern
from calibration.board_corners import detect_board, find_markers
from calibration.dictionaries import DICTIONARIES
from calibration.errors import InputError

__all__ = [
    "MeasuredBoard", "edge_blur", "first_of_markers", "measure_board", "mirrored_share", "refuse_other_board",
    "told_of_no_board",
]  # fmt: skip

Array = NDArray[Any]

LEAST_MARKERS = 6
"""Markers in a picture, not on one line, from which the board's layout shows."""
MOST_COLUMNS = 30
FITS, CLEARLY = 0.1, 3.0
"""Squares, rms, within which markers lie on a layout, and how many times worse the described one must be."""
SEARCHED_IDS = 150
"""Markers of each dictionary that are looked for where no board is found: boards use the first ones."""
DISTINCT_MARKERS = 3
"""Different markers of one dictionary in one image that are no accident."""
OUTLINE_PX = 1.0
"""A marker's outline runs through the middles of its outermost pixels, so that it is smaller by this."""
REBLUR_PX = 1.5
EDGES = 0.8
"""Gradients above this share of the steepest are the middles of edges between black and white."""
SOBEL_VARIANCE = 1 / 3
"""px squared: the blur of the derivative itself, a difference over two pixels."""


@dataclass(frozen=True)
class MeasuredBoard:
    """What pictures say of a ChArUco board. columns: squares in a row. marker_share: side of a marker over that of a
    square. images: pictures that told."""

    columns: int
    marker_share: float
    images: int


def measure_board(
    images: Iterable[Array], board: Board, pattern: Pattern, *, thorough: bool = True
) -> MeasuredBoard | None:
    """From gray pictures of a board's side; None where none shows enough markers, or none lie as on a board. Not
    thorough: in smaller pictures, which are good for the columns."""
    votes: list[int] = []
    shares: list[float] = []
    for gray in images:
        shown, first = 255 - gray if pattern.inverted else gray, board.first_marker
        markers, ids = find_markers(shown, board.dictionary, board.n_markers, first=first, thorough=thorough)
        ids = ids - first
        if len(ids) < LEAST_MARKERS or np.unique(ids).size < len(ids):
            continue
        white = pattern.legacy and board.rows % 2 == 0
        own = _misfit(markers, ids, board.columns, white)
        others = {  # the pattern, too, was found by the board as it is described
            c: min((_misfit(markers, ids, c, first) for first in (white, not white)), key=lambda misfit: misfit[0])
            for c in range(3, MOST_COLUMNS + 1)
        }
        best = min(others, key=lambda c: others[c][0])
        if own[0] < max(FITS, CLEARLY * others[best][0]):
            best = board.columns
        if others[best][0] < FITS:
            votes.append(best)
            shares.append(others[best][1])
    if not votes:
        return None
    values, counts = np.unique(votes, return_counts=True)
    columns = int(values[np.argmax(counts)])
    share = float(np.median([s for s, c in zip(shares, votes, strict=True) if c == columns]))
    return MeasuredBoard(columns, share, int(counts.max()))


def refuse_other_board(images: Iterable[Array], board: Board, pattern: Pattern) -> None:
    """Raises InputError where the markers of a board's side lie as on one with another number of columns."""
    measured = measure_board(images, board, pattern, thorough=False) if board.marker_length else None
    if measured is None or measured.columns == board.columns:
        return
    exchanged = measured.columns == board.rows
    told = "columns and rows are exchanged" if exchanged else f"its markers lie as on one of {measured.columns} columns"
    rows = f", rows = {board.columns}" if exchanged else ""
    raise InputError(
        f"board: expected {board.columns} x {board.rows} squares, as in board.toml, got another board: {told} (in "
        f"{measured.images} pictures); write columns = {measured.columns}{rows}, or film the board that is described"
    )


def first_of_markers(images: Iterable[Array], board: Board, pattern: Pattern) -> tuple[int, int]:
    """The first marker of a board's side, and its rows, as far as gray pictures show it; the described ones where they
    do not tell of others."""
    start = max(0, board.first_marker - board.n_markers)
    most = board.first_marker + 2 * board.n_markers - start
    seen = []
    for gray in images:
        shown = 255 - gray if pattern.inverted else gray
        markers, ids = find_markers(shown, board.dictionary, most, first=start)
        if len(ids) >= LEAST_MARKERS and np.unique(ids).size == len(ids):
            seen.append((markers, ids))
    if not seen:
        return board.first_marker, board.rows

    def misfit(first: int) -> float:
        fits = []
        for markers, ids in seen:
            own = ids >= first
            there = [_misfit(markers[own], ids[own] - first, board.columns, white) for white in (True, False)]
            fits.append(min(off for off, _ in there) if own.sum() >= LEAST_MARKERS else np.inf)
        return float(np.median(fits))

    last, first = max(int(ids.max()) for _, ids in seen), min(int(ids.min()) for _, ids in seen)
    told, other = misfit(board.first_marker), misfit(first)
    if not (other < FITS and (first < board.first_marker or other < told / CLEARLY)):
        first = board.first_marker
    if min(told, other) > FITS:
        return board.first_marker, board.rows
    return first, max(board.rows, 2 * (last - first) // board.columns + 1)


def mirrored_share(images: Iterable[Array], board: Board, pattern: Pattern) -> float:
    """Share of the gray pictures that show the board once they are turned left to right."""
    found = [np.isfinite(detect_board(gray[:, ::-1].copy(), board, pattern)[1]).any() for gray in images]
    return float(np.mean(found)) if found else 0.0


def told_of_no_board(boards: Sequence[Board], cameras: str, images: Iterable[Array]) -> str:
    """What to say when no camera shows a board: what was looked for, and which markers there are instead in some gray
    images. cameras: where it was looked for, in words."""
    sides = [side for board in boards for side in board.sides]
    sought = " or ".join(_described(side) for side in sides)
    seen: dict[str, set[int]] = {}
    most = max(SEARCHED_IDS, *(side.first_marker + side.n_markers for side in sides))
    for gray in images:
        for name in _FAMILIES:
            ids = np.unique(find_markers(gray, name, most, either_colour=True)[1])
            if len(ids) >= DISTINCT_MARKERS:
                seen.setdefault(name, set()).update(ids.tolist())
    told = f"board: expected {sought}, found in no image of {cameras}"
    if not seen:
        return f"{told}, nor markers of a known dictionary; check focus and light, and that the board is in the footage"
    lines = "; ".join(
        f"{_smallest(name, max(ids))}: {len(ids)} different markers, ids {min(ids)} to {max(ids)}"
        for name, ids in sorted(seen.items(), key=lambda item: -len(item[1]))
    )
    return f"{told}; dictionaries seen: {lines}; correct columns, rows, dictionary and first_marker of the board"


def _described(side: Board) -> str:
    since = f" from marker {side.first_marker} on" if side.first_marker else ""
    kind = f"{side.dictionary}{since}" if side.marker_length else "chessboard"
    return f"{side.columns} x {side.rows} squares, {kind}"


def _smallest(family: str, largest_id: int) -> str:
    """The smallest dictionary of a family (DICT_4X4_50, _100, ...) that holds an id."""
    stem = family.rsplit("_", 1)[0] + "_"
    ends = [name.removeprefix(stem) for name in DICTIONARIES if name.startswith(stem)]
    sizes = sorted(int(end) for end in ends if end.isdigit())
    return next((f"{stem}{size}" for size in sizes if size > largest_id), family)


_FAMILIES = tuple(
    name for name in DICTIONARIES if not name.endswith(("X4_50", "X5_50", "X6_50", "X7_50", "_100", "_250"))
)


def edge_blur(gray: Array, region: tuple[slice, slice] | None = None) -> float:
    """px, standard deviation of the blur of the steepest edges in a gray picture, or in a region (rows, columns) of it;
    infinite where there is no edge.

    A step edge blurred by s has its steepest gradient go down by sqrt(1 + s0^2 / s^2) under another blur s0 (Zhuo & Sim
    2011).
    """
    part = np.ascontiguousarray(gray if region is None else gray[region]).astype(np.float32)
    sharp, blurred = _gradient(part), _gradient(cv2.GaussianBlur(part, (0, 0), REBLUR_PX))
    edge = sharp > EDGES * np.percentile(sharp, 99.5)
    ratio = sharp[edge] / np.maximum(blurred[edge], 1e-6)
    ratio = ratio[ratio > 1.0]
    if not len(ratio):
        return float("inf")
    return float(np.sqrt(max(REBLUR_PX**2 / (np.median(ratio) ** 2 - 1.0) - SOBEL_VARIANCE, 0.0)))


def _gradient(picture: Array) -> Array:
    return np.asarray(np.hypot(cv2.Sobel(picture, cv2.CV_32F, 1, 0), cv2.Sobel(picture, cv2.CV_32F, 0, 1)))


def _misfit(markers: Array, ids: Array, columns: int, first_white: bool) -> tuple[float, float]:
    """Squares rms between the markers' middles and a board of that many columns, and the markers' side in squares.

    Markers are numbered along the rows of white squares; the first square is white on legacy boards of even rows.
    """
    row, column = np.divmod(np.arange((2 * int(ids.max()) // columns + 3) * columns), columns)
    white = (row + column) % 2 == (0 if first_white else 1)
    middle = np.stack((column[white], row[white]), axis=1)[ids] + 0.5
    if np.linalg.matrix_rank(middle - middle.mean(axis=0), tol=0.3) < 2:
        return np.inf, np.nan
    H, _ = cv2.findHomography(markers.mean(axis=1), middle)
    if H is None:
        return np.inf, np.nan
    there = cv2.perspectiveTransform(markers.reshape(-1, 1, 2), H).reshape(-1, 4, 2)
    off = np.sqrt(((there.mean(axis=1) - middle) ** 2).sum(axis=1).mean())
    side, side_px = (np.linalg.norm(xy - np.roll(xy, 1, axis=1), axis=-1) for xy in (there, markers))
    return float(off), float(np.median(side * (1.0 + OUTLINE_PX / side_px)))
