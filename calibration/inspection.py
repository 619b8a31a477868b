"""Are the pictures of the board sharp, and its markers as large as described? Findings from a few frames a camera."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.board import Board, BoardDetections, Pattern
from calibration.board_check import edge_blur, first_of_markers, measure_board
from calibration.findings import Finding
from calibration.footage import Footage, open_footage

__all__ = ["inspect_footage"]

Array = NDArray[Any]

LOOKED_AT, LEAST_CORNERS = 4, 8
"""Pictures of each camera, those with most corners, and corners that they must show."""
MOST_BLUR = 0.35
"""Standard deviation of the blur, of the width of a marker's cells: beyond, most of the boards are not found."""
CHESSBOARD_CELL = 0.125
"""Width of a cell in squares where there are no markers."""
MARKER_TOLERANCE = 0.15
"""Relative: outlines of small or blurred markers are some per cent off."""
LEAST_PICTURES = 3
MEASURED = 8
"""Pictures of all cameras together in which markers are measured, about."""


def inspect_footage(sources: Mapping[str, str | Path], detections: BoardDetections) -> tuple[Finding, ...]:
    """Blurred cameras, and a marker_length that is not the board's. sources: as `detect_boards` had them."""
    findings = []
    pictures: dict[int, list[Array]] = {side: [] for side in range(int(detections.side_index.max()) + 1)}
    for v, name in enumerate(detections.view_names):
        rows, sides = _telling(detections, v)
        with open_footage(sources[name]) as reel:
            grays = [_gray(reel, int(detections.numbers[v, row])) for row in rows]
        blur = []
        for gray, row, side in zip(grays, rows, sides, strict=True):
            pictures[side].append(gray)
            own = detections.side_index == side
            xy = detections.corners[v, row][own]
            blur.append((edge_blur(gray, _region(xy)), MOST_BLUR * _cell(xy, *_described(detections, side))))
        if len(blur) >= LEAST_PICTURES:
            px, limit = (float(part) for part in np.median(blur, axis=0))
            if px > limit:
                findings.append(
                    Finding(
                        "blurred", (name,), f"the board's edges are blurred by {px:.1f} px (standard deviation)",
                        "focus it, give more light or a shorter exposure, move the board slowly, or print it larger",
                        px, limit, "px",
                    )
                )  # fmt: skip
    for side, shown in pictures.items():
        findings += _markers(shown[:: max(1, len(shown) // MEASURED)], _described(detections, side)[0])
    return tuple(findings)


def _markers(pictures: list[Array], board: Board) -> tuple[Finding, ...]:
    if not board.marker_length:
        return ()
    ways = (Pattern(), Pattern(inverted=True))
    measured = measure_board(pictures, board, ways[0]) or measure_board(pictures, board, ways[1])
    shown = [first_of_markers(pictures, board, pattern) for pattern in ways]
    others = next((found for one in shown if (found := _others(*one, board))), ())
    share = board.marker_length / board.square_length
    if measured is None or abs(measured.marker_share / share - 1) < MARKER_TOLERANCE:
        return others
    length = measured.marker_share * board.square_length
    return (
        *others,
        Finding(
            "wrong_marker_length", (),
            f"its markers are about {measured.marker_share:.2f} of a square wide, not {share:.2f}",
            f"measure squares and markers: either marker_length is about {length:.3g} {board.unit}, or square_length "
            "is wrong, and with it all lengths", measured.marker_share, share, "squares",
        ),
    )  # fmt: skip


def _others(first: int, rows: int, board: Board) -> tuple[Finding, ...]:
    """What is said of a board whose markers begin elsewhere, or that has more rows than described."""
    remedy = "correct board.toml: corners beside unknown markers are lost"
    found = []
    if first != board.first_marker:
        message = f"its markers lie as if the first one were number {first}, not {board.first_marker}"
        found.append(
            Finding("other_markers", (), message, f"{remedy}; first_marker = {first}", first, board.first_marker)
        )
    if rows != board.rows:
        message = f"it has {rows} rows of squares or more, not {board.rows}"
        found.append(Finding("other_markers", (), message, f"{remedy}; rows = {rows}", rows, board.rows, "rows"))
    return tuple(found)


def _telling(detections: BoardDetections, view: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Frames of a camera with many corners of one side of a board, spread over the footage; and which side."""
    seen = np.isfinite(detections.corners[view, ..., 0])
    index = detections.side_index
    counts = np.stack([seen[:, index == side].sum(axis=1) for side in range(int(index.max()) + 1)], axis=1)
    share = counts / np.maximum(counts.max(axis=0), 1)
    rows = np.flatnonzero(((counts >= LEAST_CORNERS) & (share >= 0.6)).any(axis=1))
    rows = rows[np.linspace(0, len(rows) - 1, min(LOOKED_AT, len(rows))).round().astype(int)]
    return rows, counts[rows].argmax(axis=1)


def _described(detections: BoardDetections, side: int) -> tuple[Board, Array]:
    """A side of a board as a board of its own, and the places (corners, 2) of its corners in squares."""
    pages = [page for board in detections.boards for page in board.sides]
    return pages[side], pages[side].object_points[:, :2] / pages[side].square_length


def _gray(reel: Footage, number: int) -> Array:
    position = int(np.searchsorted(reel.frame_numbers, number))
    return np.asarray(next(reel.frames(position, position + 1, gray=True))[1])


def _region(xy: Array) -> tuple[slice, slice]:
    low = np.maximum(np.floor(np.nanmin(xy, axis=0)).astype(int) - 4, 0)
    high = np.ceil(np.nanmax(xy, axis=0)).astype(int) + 5
    return slice(low[1], high[1]), slice(low[0], high[0])


def _cell(xy: Array, board: Board, squares: Array) -> float:
    """px, width of a cell of a board's markers in a picture with its corners xy (corners, 2), across its narrow way."""
    seen = np.isfinite(xy[:, 0])
    H, _ = cv2.findHomography(squares[seen], xy[seen])
    if H is None:
        return float("nan")
    middle = squares[seen].mean(axis=0)
    ends = cv2.perspectiveTransform((middle + np.array([(-0.5, 0), (0.5, 0), (0, -0.5), (0, 0.5)]))[None], H)[0]
    square = float(min(np.linalg.norm(ends[1] - ends[0]), np.linalg.norm(ends[3] - ends[2])))
    if not board.marker_length:
        return CHESSBOARD_CELL * square
    bits = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, board.dictionary)).markerSize
    return square * board.marker_length / board.square_length / (bits + 2)
