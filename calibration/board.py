"""What is printed on a calibration board? ChArUco boards and chessboards, also printed on both sides; and what was seen
of them in the footage of several cameras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.dictionaries import DICTIONARIES, family, marker_count, marker_dictionary
from calibration.errors import InputError, nearest_name

__all__ = ["FLIPS", "Back", "Board", "BoardDetections", "Pattern", "charuco", "refuse_alike"]

Array = NDArray[Any]

FLIPS = ("left_right", "top_bottom")
"""Ways to turn a board over after which its back stands upright: as a page of a book, as a page of a wall calendar."""


@dataclass(frozen=True)
class Back:
    """The other printed side of a board: columns, rows, squares and marker_length as in front, edge on edge with it.

    first_marker: as in Board. thickness: from one printed side to the other, in the board's unit. flipped: how the
    board is turned over to see its back upright, its first row of squares on top: "left_right", about its vertical
    edge, as a page of a book is; "top_bottom", about its upper edge, as a page of a wall calendar is. dictionary: the
    front's where it is None. Raises InputError.
    """

    first_marker: int
    thickness: float
    flipped: Literal["left_right", "top_bottom"]
    dictionary: str | None = None

    def __post_init__(self) -> None:
        if not (self.thickness >= 0 and np.isfinite(self.thickness)):
            raise InputError(f"back: expected thickness of 0 or more, got {self.thickness}")
        if self.flipped not in FLIPS:
            raise InputError(
                f'back: expected flipped = "left_right" (turned over as a page of a book, the back stands upright) or '
                f'"top_bottom" (turned over as a page of a wall calendar), got {self.flipped!r}'
            )


@dataclass(frozen=True)
class Board:
    """A flat calibration board, printed on one side or on both. columns and rows count squares, always.

    square_length, marker_length: side lengths in `unit`; without marker_length it is a chessboard. dictionary: the
    markers' (OpenCV's name), of which it has first_marker, first_marker + 1, ... along its rows. Corner i is at column
    i % (columns - 1), row i // (columns - 1) of the inner corners. back: the other side of a board that is printed on
    both; its corners follow those of the front. Raises InputError where that is no board.
    """

    columns: int
    rows: int
    square_length: float
    marker_length: float | None = None
    dictionary: str = "DICT_4X4_1000"
    unit: str = "mm"
    first_marker: int = 0
    back: Back | None = None

    def __post_init__(self) -> None:
        if self.columns < 3 or self.rows < 3:
            raise InputError(f"board: expected 3 or more columns and rows of squares, got {self.columns} x {self.rows}")
        if not self.square_length > 0:
            raise InputError(f"board: expected square_length above 0, got {self.square_length}")
        if self.marker_length is None:
            if self.first_marker or self.back:
                what = "first_marker" if self.first_marker else "back"
                raise InputError(f"board: expected no {what} on a chessboard, which has no markers; add marker_length")
            return
        if not 0 < self.marker_length < self.square_length:
            raise InputError(
                f"board: expected marker_length between 0 and square_length = {self.square_length}, "
                f"got {self.marker_length}"
            )
        if self.dictionary not in DICTIONARIES:
            hint = nearest_name(self.dictionary, DICTIONARIES)
            raise InputError(f"board: unknown dictionary {self.dictionary!r}; {hint}")
        held, needed = marker_count(self.dictionary), self.n_markers
        if self.first_marker < 0:
            raise InputError(f"board: expected first_marker of 0 or more, got {self.first_marker}")
        if self.first_marker + needed > held:
            since = f" from {self.first_marker} on" if self.first_marker else ""
            told = f"{self.columns} x {self.rows} squares need {needed} markers{since}"
            raise InputError(f"board: {told}, {self.dictionary} has {held}")
        if self.back is not None:
            try:
                faces = list(zip(("the front", "the back"), self.sides, strict=True))
            except InputError as error:
                raise InputError(str(error).replace("board:", "back:", 1)) from None
            _refuse_shared(faces, "board")

    @property
    def sides(self) -> tuple[Board, ...]:
        """The printed sides, each as a board of its own: the front, and the back if there is one."""
        if self.back is None:
            return (self,)
        back = replace(
            self, dictionary=self.back.dictionary or self.dictionary, first_marker=self.back.first_marker, back=None
        )
        return replace(self, back=None), back

    @property
    def side(self) -> NDArray[np.int64]:
        """(corners,) the side that each corner is on: 0 the front, 1 the back."""
        return np.repeat(np.arange(1 if self.back is None else 2), (self.columns - 1) * (self.rows - 1))

    @property
    def n_corners(self) -> int:
        """Inner corners, of both sides."""
        return (self.columns - 1) * (self.rows - 1) * (1 if self.back is None else 2)

    @property
    def n_markers(self) -> int:
        """Markers of a side of a ChArUco board, on its white squares."""
        return self.columns * self.rows // 2 if self.marker_length else 0

    @property
    def object_points(self) -> NDArray[np.float64]:
        """(corners, 3) in the board's frame: x along a row, y down the rows, z = 0 and z > 0 behind the board.

        The origin is the outer corner of the first square, as in OpenCV. Both sides' corners are in the front's frame.
        """
        row, column = np.divmod(np.arange((self.columns - 1) * (self.rows - 1)), self.columns - 1)
        front = np.stack([column + 1.0, row + 1.0, np.zeros(len(row))], axis=-1) * self.square_length
        if self.back is None:
            return front
        back = front + np.array([0.0, 0.0, self.back.thickness])
        axis = FLIPS.index(self.back.flipped)
        back[:, axis] = (self.columns, self.rows)[axis] * self.square_length - back[:, axis]
        return np.concatenate([front, back])

    @property
    def neighbours(self) -> NDArray[np.int64]:
        """(pairs, 2) indices of corners one square apart, in rows and columns of a side."""
        index = np.arange(self.n_corners).reshape(-1, self.rows - 1, self.columns - 1)
        across = np.stack([index[..., :-1].ravel(), index[..., 1:].ravel()], axis=-1)
        down = np.stack([index[:, :-1].ravel(), index[:, 1:].ravel()], axis=-1)
        return np.concatenate([across, down])

    def image(self, px_per_square: int, *, pattern: Pattern | None = None) -> NDArray[np.uint8]:
        """(rows, columns) * px_per_square uint8: the page to print, its squares touching the image's border; the front
        of a board with two `sides`.

        Board point (x, y) lies at pixel (x, y) / square_length * px_per_square - 0.5.
        """
        pattern = pattern or Pattern()
        size = (self.columns * px_per_square, self.rows * px_per_square)
        if self.marker_length is None:
            row, column = np.indices((self.rows, self.columns))
            squares = np.where((row + column) % 2 == 0, 0, 255).astype(np.uint8)
            page = squares.repeat(px_per_square, axis=0).repeat(px_per_square, axis=1)
        else:
            page = charuco(self, pattern.legacy).generateImage(size, marginSize=0, borderBits=1)
        return 255 - page if pattern.inverted else page


@dataclass(frozen=True)
class Pattern:
    """How a board is printed, found out by the program: inverted (white on black), legacy (OpenCV before 4.7)."""

    inverted: bool = False
    legacy: bool = False


@dataclass(frozen=True, eq=False)
class BoardDetections:
    """Corners of boards in the synchronised footage of several cameras.

    view_names: cameras, in order. boards: the boards looked for. sizes: (views, 2) width and height of the images, px.
    frame: (frames,) int64, the number all cameras agree on; time: (frames,) s, NaN where unknown.
    corners: (views, frames, corners, 2) px and sigma: (views, frames, corners) px, standard deviation per axis; NaN
    where unseen. The corners of all boards follow each other; board_index (corners,) says which board.
    delay: (views, frames) s that each picture was taken after its moment's time, as far as it is known; NaN or None =
    not at all. own_number: (views, frames) int64, each picture's number in its camera's own footage, -1 = no picture;
    None = `frame` in all. points: (corners, 3) where the corners are, each in the frame of its own board, if not where
    the boards' descriptions have them.
    """

    view_names: tuple[str, ...]
    boards: tuple[Board, ...]
    sizes: NDArray[np.int64]
    frame: NDArray[np.int64]
    time: NDArray[np.float64]
    corners: NDArray[np.float64]
    sigma: NDArray[np.float64]
    board_index: NDArray[np.int64]
    delay: NDArray[np.float64] | None = None
    points: NDArray[np.float64] | None = None
    own_number: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        views, frames, corners = len(self.view_names), len(self.frame), sum(board.n_corners for board in self.boards)
        expected = {
            "sizes": (views, 2),
            "time": (frames,),
            "corners": (views, frames, corners, 2),
            "sigma": (views, frames, corners),
            "board_index": (corners,),
        }
        expected |= {name: (views, frames) for name in ("delay", "own_number") if getattr(self, name) is not None}
        expected |= {} if self.points is None else {"points": (corners, 3)}
        for name, shape in expected.items():
            got = np.shape(getattr(self, name))
            if got != shape:
                raise InputError(f"board detections: expected {name} {shape}, got {got}")

    @property
    def object_points(self) -> NDArray[np.float64]:
        """(corners, 3) each in the frame of its own board."""
        if self.points is not None:
            return self.points
        return np.concatenate([board.object_points for board in self.boards])

    @property
    def side_index(self) -> NDArray[np.int64]:
        """(corners,) which printed side each is on, counted over all boards; a side is flat, a board may have two."""
        first = np.cumsum([0, *(len(board.sides) for board in self.boards)])
        return np.asarray(first[self.board_index] + np.concatenate([board.side for board in self.boards]))

    @property
    def numbers(self) -> NDArray[np.int64]:
        """(views, frames) the pictures' numbers in the cameras' own footage, as a user finds them there; -1 = none."""
        whole = np.broadcast_to(np.asarray(self.frame, dtype=np.int64), (len(self.view_names), len(self.frame)))
        return whole if self.own_number is None else self.own_number

    def of_views(self, rows: Sequence[int]) -> BoardDetections:
        """Of these cameras only, in this order."""
        kept = list(rows)
        parts = {name: getattr(self, name) for name in ("sizes", "corners", "sigma", "delay", "own_number")}
        chosen: dict[str, Any] = {name: None if part is None else part[kept] for name, part in parts.items()}
        return replace(self, view_names=tuple(self.view_names[v] for v in kept), **chosen)

    def of_frames(self, rows: NDArray[np.integer[Any]]) -> BoardDetections:
        """Of these moments only, by index."""
        parts = {name: getattr(self, name) for name in ("corners", "sigma", "delay", "own_number")}
        chosen: dict[str, Any] = {name: None if part is None else part[:, rows] for name, part in parts.items()}
        return replace(self, frame=self.frame[rows], time=self.time[rows], **chosen)


def refuse_alike(boards: Sequence[Board]) -> None:
    """Raises InputError where boards cannot be told apart in an image (one marker on two of them, chessboards of the
    same squares), or are in different units; it names both."""
    for i, board in enumerate(boards):
        if board.unit != boards[0].unit:
            raise InputError(
                f"boards: expected one unit of length, got board 1 in {boards[0].unit} and board {i + 1} in "
                f"{board.unit}; describe all of them in one"
            )
    faces = [
        (f"{('', 'the back of ')[j]}board {i}", page) for i, b in enumerate(boards, 1) for j, page in enumerate(b.sides)
    ]
    _refuse_shared(faces, "boards")


def _refuse_shared(faces: Sequence[tuple[str, Board]], where: str) -> None:
    """faces: printed sides and what to call them."""
    for (name, a), (other, b) in combinations(faces, 2):
        if not a.marker_length and not b.marker_length and {a.columns, a.rows} == {b.columns, b.rows}:
            raise InputError(
                f"{where}: {name} and {other} are chessboards of {a.columns} x {a.rows} squares both, so an image "
                "cannot tell them apart; film one of them only, or print boards with markers"
            )
        first, last = max(a.first_marker, b.first_marker), min(p.first_marker + p.n_markers for p in (a, b)) - 1
        if family(a.dictionary) == family(b.dictionary) and first <= last:
            kin = [page for _, page in faces if family(page.dictionary) == family(a.dictionary)]
            free = max(page.first_marker + page.n_markers for page in kin)
            raise InputError(
                f"{where}: {name} and {other} have the markers {first} to {last} of {b.dictionary} both, so an image "
                f"cannot tell them apart; print {other} with other markers and say which one is its first, such as "
                f"first_marker = {free}"
            )


@lru_cache(maxsize=16)
def charuco(board: Board, legacy: bool) -> Any:
    """OpenCV's board of a side with markers, whose ids are the dictionary's."""
    page = cv2.aruco.CharucoBoard(
        (board.columns, board.rows),
        board.square_length,
        board.marker_length or 0.0,
        marker_dictionary(board.dictionary),
        np.arange(board.first_marker, board.first_marker + board.n_markers),
    )
    page.setLegacyPattern(legacy)
    return page
