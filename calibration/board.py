"""What is printed on the calibration board, and where are its corners in one image? ChArUco boards and chessboards."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.corners import refine_corners
from calibration.errors import InputError, nearest_name

__all__ = ["DICTIONARIES", "Board", "BoardDetections", "Pattern", "detect_board", "find_markers"]

Array = NDArray[Any]

DICTIONARIES = tuple(
    sorted(name for name in dir(cv2.aruco) if name.startswith("DICT_") and name == name.replace("h", "H"))
)
"""Names of the marker dictionaries that OpenCV knows."""

MIN_CORNERS = 4
"""Corners that an image must show to be said to show the board; fewer fix no pose."""
NEIGHBOURS = 8
"""Found corners around a missing one from which it is predicted."""
FIRST_CORNERS = 6
"""Found corners from which others can be predicted and checked."""
MAX_GAP = 1.5
"""Squares from the nearest found corner over which a missing one is predicted."""
MAX_DISAGREEMENT = 0.25
"""Squares between a corner and what its neighbours, or two markers, say of it; beyond, one of them is wrong."""
MIN_RELATIVE_CONTRAST = 0.25
"""Of the median contrast of the image's corners; fainter ones are shadows and covered corners."""
LARGE_PX = 512
"""Markers are looked for first in an image scaled down to about this height: several times as fast, and the corners
are found at full resolution anyhow."""
QUICK_WINDOW_PX = 13
"""Window of the adaptive threshold in that image."""
SATISFIED = 0.5
"""Share of the corners below which the image is searched again, thoroughly."""


@dataclass(frozen=True)
class Board:
    """A flat calibration board. columns and rows count squares, always.

    square_length, marker_length: side lengths in `unit`; without marker_length it is a chessboard. dictionary: the
    markers' (OpenCV's name). Corner i is at column i % (columns - 1), row i // (columns - 1) of the inner corners.
    Raises InputError where that is no board.
    """

    columns: int
    rows: int
    square_length: float
    marker_length: float | None = None
    dictionary: str = "DICT_4X4_1000"
    unit: str = "mm"

    def __post_init__(self) -> None:
        if self.columns < 3 or self.rows < 3:
            raise InputError(f"board: expected 3 or more columns and rows of squares, got {self.columns} x {self.rows}")
        if not self.square_length > 0:
            raise InputError(f"board: expected square_length above 0, got {self.square_length}")
        if self.marker_length is None:
            return
        if not 0 < self.marker_length < self.square_length:
            raise InputError(
                f"board: expected marker_length between 0 and square_length = {self.square_length}, "
                f"got {self.marker_length}"
            )
        if self.dictionary not in DICTIONARIES:
            hint = nearest_name(self.dictionary, DICTIONARIES)
            raise InputError(f"board: unknown dictionary {self.dictionary!r}; {hint}")
        held, needed = len(_dictionary(self.dictionary).bytesList), self.n_markers
        if needed > held:
            raise InputError(
                f"board: {self.columns} x {self.rows} squares need {needed} markers, {self.dictionary} has {held}"
            )

    @property
    def n_corners(self) -> int:
        """Inner corners."""
        return (self.columns - 1) * (self.rows - 1)

    @property
    def n_markers(self) -> int:
        """Markers of a ChArUco board, on its white squares."""
        return self.columns * self.rows // 2 if self.marker_length else 0

    @property
    def object_points(self) -> NDArray[np.float64]:
        """(corners, 3) in the board's frame: x along a row, y down the rows, z = 0 and z > 0 behind the board.

        The origin is the outer corner of the first square, as in OpenCV.
        """
        row, column = np.divmod(np.arange(self.n_corners), self.columns - 1)
        return np.stack([column + 1.0, row + 1.0, np.zeros(self.n_corners)], axis=-1) * self.square_length

    @property
    def neighbours(self) -> NDArray[np.int64]:
        """(pairs, 2) indices of corners one square apart, in rows and columns."""
        index = np.arange(self.n_corners).reshape(self.rows - 1, self.columns - 1)
        across = np.stack([index[:, :-1].ravel(), index[:, 1:].ravel()], axis=-1)
        down = np.stack([index[:-1].ravel(), index[1:].ravel()], axis=-1)
        return np.concatenate([across, down])

    def image(self, px_per_square: int, *, pattern: Pattern | None = None) -> NDArray[np.uint8]:
        """(rows, columns) * px_per_square uint8: the page to print, its squares touching the image's border.

        Board point (x, y) lies at pixel (x, y) / square_length * px_per_square - 0.5.
        """
        pattern = pattern or Pattern()
        size = (self.columns * px_per_square, self.rows * px_per_square)
        if self.marker_length is None:
            row, column = np.indices((self.rows, self.columns))
            squares = np.where((row + column) % 2 == 0, 0, 255).astype(np.uint8)
            page = squares.repeat(px_per_square, axis=0).repeat(px_per_square, axis=1)
        else:
            page = _charuco(self, pattern.legacy).generateImage(size, marginSize=0, borderBits=1)
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
    not at all. points: (corners, 3) where the corners are, each in the frame of its own board, if not where the boards'
    descriptions have them.
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

    def __post_init__(self) -> None:
        views, frames, corners = len(self.view_names), len(self.frame), sum(board.n_corners for board in self.boards)
        expected = {
            "sizes": (views, 2),
            "time": (frames,),
            "corners": (views, frames, corners, 2),
            "sigma": (views, frames, corners),
            "board_index": (corners,),
        } | ({} if self.delay is None else {"delay": (views, frames)})
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


def detect_board(
    image: Array, board: Board, pattern: Pattern | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corners (corners, 2) px and sigma (corners,) px of a board in one image; NaN where unseen.

    image: (h, w) or RGB (h, w, 3) uint8. pattern: how the board is printed; by default black on white and not legacy
    (`detection.find_pattern` finds it out). Each corner is predicted from the markers around it, then from found
    corners, refined at full resolution (`corners.refine_corners`), and kept where the image shows it.
    """
    pattern = pattern or Pattern()
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
    if pattern.inverted:
        gray = 255 - gray
    if board.marker_length is None:
        return _detect_chessboard(gray, board)
    found = _detect_charuco(gray, board, pattern.legacy, thorough=False)
    if np.isfinite(found[1]).sum() < SATISFIED * board.n_corners:
        again = _detect_charuco(gray, board, pattern.legacy, thorough=True)
        found = max(found, again, key=lambda result: int(np.isfinite(result[1]).sum()))
    return found


def find_markers(
    gray: Array, dictionary: str, n_markers: int | None = None, *, thorough: bool = True, either_colour: bool = False
) -> tuple[Array, Array]:
    """Corners (markers, 4, 2) px and ids (markers,) of the black markers in a gray image, the first n ids only.

    either_colour: white ones on black too. Not thorough: in an image scaled down to about LARGE_PX, with one threshold
    window instead of OpenCV's three.
    """
    whole = _dictionary(dictionary)
    parameters = cv2.aruco.DetectorParameters()
    parameters.detectInvertedMarker = either_colour
    scale = 1
    if not thorough:
        parameters.adaptiveThreshWinSizeMin = parameters.adaptiveThreshWinSizeMax = QUICK_WINDOW_PX
        scale = max(1, round(min(gray.shape) / LARGE_PX))
        height, width = (side // scale * scale for side in gray.shape)
        gray = cv2.resize(gray[:height, :width], None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)
    part = cv2.aruco.Dictionary(whole.bytesList[:n_markers], whole.markerSize, whole.maxCorrectionBits)
    corners, ids, _ = cv2.aruco.ArucoDetector(part, parameters).detectMarkers(gray)
    if ids is None or len(ids) == 0:
        return np.zeros((0, 4, 2)), np.zeros(0, np.int64)
    order = np.argsort(ids.ravel(), kind="stable")
    xy = (np.asarray(corners, dtype=np.float64).reshape(-1, 4, 2) + 0.5) * scale - 0.5
    return xy[order], ids.ravel()[order].astype(np.int64)


def _detect_charuco(gray: Array, board: Board, legacy: bool, *, thorough: bool) -> tuple[Array, Array]:
    markers, ids = find_markers(gray, board.dictionary, board.n_markers, thorough=thorough)
    start, step_u, step_v = _from_markers(markers, ids, board, legacy)
    grid = board.object_points[:, :2] / board.square_length
    dark = (grid.sum(axis=-1) % 2 == 0) == (not (legacy and board.rows % 2 == 0))
    rim = 0.5 * (1.0 - (board.marker_length or 0.0) / board.square_length)
    return _grown(gray, grid, (start, step_u, step_v), rim, dark)


def _detect_chessboard(gray: Array, board: Board) -> tuple[Array, Array]:
    """The corners in the order that makes the first square black, where the board has such an order.

    A board with both numbers of squares even or both odd looks the same upside down: of its two orders the one whose
    rows run down or to the right in the image is taken.
    """
    shape = (board.columns - 1, board.rows - 1)
    nothing = np.full((board.n_corners, 2), np.nan), np.full(board.n_corners, np.nan)
    found, corners = cv2.findChessboardCornersSB(gray, shape, flags=cv2.CALIB_CB_NORMALIZE_IMAGE)
    if not found:
        return nothing
    grid = np.asarray(corners, dtype=np.float64).reshape(board.rows - 1, board.columns - 1, 2)
    along, down = grid[0, -1] - grid[0, 0], grid[-1, 0] - grid[0, 0]
    if along[0] * down[1] - along[1] * down[0] < 0:
        grid = grid[::-1]
    squares = board.object_points[:, :2] / board.square_length
    dark = squares.sum(axis=-1) % 2 == 0
    results = []
    for order in (grid, grid[::-1, ::-1]):
        xy = np.ascontiguousarray(order).reshape(-1, 2)
        results.append(_grown(gray, squares, (xy, *_interpolated(squares, xy)[1:]), 0.5, dark))
    counts = [int(np.isfinite(sigma).sum()) for _, sigma in results]
    if counts[0] == counts[1]:
        return min(results, key=lambda result: float(np.nansum(result[0][0])))
    return results[int(counts[1] > counts[0])]


def _from_markers(markers: Array, ids: Array, board: Board, legacy: bool) -> tuple[Array, Array, Array]:
    """Each corner (corners, 2) px and the image of one square along x and y there, from the homographies of the
    markers beside it (at most two, their mean; NaN where there is none or they contradict each other).
    """
    layout = np.array(_charuco(board, legacy).getObjPoints(), dtype=np.float64)[ids, :, :2] / board.square_length
    H = _homographies(layout, markers)
    first = np.floor(layout.mean(axis=1)).astype(int)
    places = first[:, None] + np.array([(0, 0), (1, 0), (0, 1), (1, 1)])
    around = places[:, :, None] + np.array([(0, 0), (0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5)])
    at = np.einsum("mij,mpkj->mpki", H, np.concatenate([around, np.ones((*around.shape[:3], 1))], axis=-1))
    at = at[..., :2] / at[..., 2:]
    guess = np.stack([at[:, :, 0], at[:, :, 1] - at[:, :, 2], at[:, :, 3] - at[:, :, 4]], axis=2)
    inner = ((places > 0) & (places < (board.columns, board.rows))).all(axis=-1)
    corner = ((places[..., 1] - 1) * (board.columns - 1) + places[..., 0] - 1)[inner]
    sums = np.zeros((2, board.n_corners, 3, 2))
    np.add.at(sums[0], corner, guess[inner])
    np.add.at(sums[1], corner, guess[inner] ** 2)
    count = np.bincount(corner, minlength=board.n_corners)[:, None, None]
    mean = np.where(count > 0, sums[0] / np.maximum(count, 1), np.nan)
    spread = np.sqrt(np.maximum(sums[1] / np.maximum(count, 1) - mean**2, 0.0)[:, 0].sum(axis=-1))
    mean[~(spread < MAX_DISAGREEMENT * _side(mean[:, 1], mean[:, 2]))] = np.nan
    return mean[:, 0], mean[:, 1], mean[:, 2]


def _homographies(source: Array, target: Array) -> Array:
    """(n, 3, 3) that map four points (n, 4, 2) onto four points."""
    x, y, u, v = source[..., 0], source[..., 1], target[..., 0], target[..., 1]
    one, zero = np.ones_like(x), np.zeros_like(x)
    rows_u = np.stack([x, y, one, zero, zero, zero, -u * x, -u * y], axis=-1)
    rows_v = np.stack([zero, zero, zero, x, y, one, -v * x, -v * y], axis=-1)
    design, right = np.concatenate([rows_u, rows_v], axis=-2), np.concatenate([u, v], axis=-1)
    solution = np.linalg.solve(design, right[..., None])[..., 0]
    return np.concatenate([solution, np.ones((len(solution), 1))], axis=-1).reshape(-1, 3, 3)


def _side(step_u: Array, step_v: Array) -> Array:
    """Length of the shorter side of a square in the image, px."""
    return np.minimum(np.linalg.norm(step_u, axis=-1), np.linalg.norm(step_v, axis=-1))


def _grown(
    gray: Array, grid: Array, expected: tuple[Array, Array, Array], rim: float, dark: Array
) -> tuple[Array, Array]:
    """Refine what is expected, then what the found corners let expect, until there are no more.

    grid: (corners, 2) places on the board in squares. Corners that their neighbours contradict are dropped.
    """
    xy, sigma = _refined(gray, expected, rim, dark)
    known = FIRST_CORNERS - 1
    while np.isfinite(sigma).sum() > known:
        known = int(np.isfinite(sigma).sum())
        near, step_u, step_v = _interpolated(grid, _consistent(grid, xy))
        xy, sigma = _refined(gray, (np.where(np.isnan(xy), near, xy), step_u, step_v), rim, dark)
    xy = _consistent(grid, xy)
    if np.isfinite(xy[:, 0]).sum() < MIN_CORNERS:
        xy = np.full_like(xy, np.nan)
    return xy, np.where(np.isnan(xy[:, 0]), np.nan, sigma)


def _refined(gray: Array, expected: tuple[Array, Array, Array], rim: float, dark: Array) -> tuple[Array, Array]:
    """Corners and sigma of the expected ones that the image shows about as clearly as the others."""
    xy, sigma, contrast = refine_corners(gray, *expected, rim, dark)
    if np.isfinite(sigma).any():
        faint = contrast < MIN_RELATIVE_CONTRAST * np.nanmedian(contrast)
        xy[faint], sigma[faint] = np.nan, np.nan
    return xy, sigma


def _consistent(grid: Array, xy: Array) -> Array:
    """The corners without those that are not where the others let expect them, the worst dropped first."""
    xy = xy.copy()
    while np.isfinite(xy[:, 0]).sum() >= FIRST_CORNERS:
        near, step_u, step_v = _interpolated(grid, xy)
        off = np.nan_to_num(np.linalg.norm(xy - near, axis=-1) / _side(step_u, step_v))
        if off.max() < MAX_DISAGREEMENT:
            break
        xy[off.argmax()] = np.nan
    return xy


def _interpolated(grid: Array, xy: Array) -> tuple[Array, Array, Array]:
    """Each corner as the *other* found ones let expect it, and the image of one square along x and y there: px.

    The homography of all found corners, plus what it leaves (lens distortion) as a plane through the residuals of the
    NEIGHBOURS nearest others. NaN further than MAX_GAP squares from any, and where fewer than FIRST_CORNERS are found.
    """
    result = np.full((3, len(grid), 2), np.nan)
    found = np.flatnonzero(np.isfinite(xy[:, 0]))
    if len(found) < FIRST_CORNERS:
        return result[0], result[1], result[2]
    H, _ = cv2.findHomography(grid[found], xy[found])
    if H is None:
        return result[0], result[1], result[2]
    homogeneous = np.concatenate([grid, np.ones((len(grid), 1))], axis=-1) @ H.T
    plane = homogeneous[:, :2] / homogeneous[:, 2:]
    slope = (H[:2, :2] - plane[:, :, None] * H[2, :2]) / homogeneous[:, 2, None, None]
    distance = np.linalg.norm(grid[:, None] - grid[found], axis=-1)
    distance[found, np.arange(len(found))] = np.inf
    nearest = np.argsort(distance, axis=-1, kind="stable")[:, :NEIGHBOURS]
    there = np.take_along_axis(distance, nearest, axis=-1)
    nearest = found[nearest]
    weight = np.where(np.isfinite(there), 1.0 / (1.0 + there**2), 0.0)[..., None]
    design = np.concatenate([np.ones((*nearest.shape, 1)), grid[nearest] - grid[:, None]], axis=-1)
    normal = np.swapaxes(design * weight, -1, -2) @ design + 1e-3 * np.eye(3)
    fit = np.linalg.solve(normal, np.swapaxes(design * weight, -1, -2) @ np.nan_to_num((xy - plane)[nearest]))
    result[0] = plane + fit[:, 0]
    result[1] = slope[:, :, 0] + fit[:, 1]
    result[2] = slope[:, :, 1] + fit[:, 2]
    result[:, there[:, 0] > MAX_GAP] = np.nan
    return result[0], result[1], result[2]


@lru_cache(maxsize=16)
def _dictionary(name: str) -> Any:
    return cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, name))


@lru_cache(maxsize=16)
def _charuco(board: Board, legacy: bool) -> Any:
    page = cv2.aruco.CharucoBoard(
        (board.columns, board.rows), board.square_length, board.marker_length or 0.0, _dictionary(board.dictionary)
    )
    page.setLegacyPattern(legacy)
    return page
