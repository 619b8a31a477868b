"""Where are a board's corners in one image? ChArUco boards by their markers, chessboards whole."""

from __future__ import annotations

from itertools import product
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.board import Board, Pattern, charuco
from calibration.corners import refine_corners
from calibration.dictionaries import marker_dictionary

__all__ = ["detect_board", "find_markers"]

Array = NDArray[Any]

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


def detect_board(
    image: Array, board: Board, pattern: Pattern | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corners (corners, 2) px and sigma (corners,) px of a board in one image; NaN where unseen. Of a board with two
    sides an image shows one: the one with more corners.

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
    sides, found = board.sides, []
    for thorough, side in product((False, True), sides):
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):  # of markers that lie on no board
            found.append(_detect_charuco(gray, side, pattern.legacy, thorough=thorough))
        if np.isfinite(found[-1][1]).sum() >= SATISFIED * side.n_corners:
            break
    best = int(np.argmax([np.isfinite(sigma).sum() for _, sigma in found]))
    own = board.side == best % len(sides)
    xy, sigma = np.full((board.n_corners, 2), np.nan), np.full(board.n_corners, np.nan)
    xy[own], sigma[own] = found[best]
    return xy, sigma


def find_markers(
    gray: Array,
    dictionary: str,
    n_markers: int | None = None,
    *,
    first: int = 0,
    thorough: bool = True,
    either_colour: bool = False,
) -> tuple[Array, Array]:
    """Corners (markers, 4, 2) px and ids (markers,) of the black markers in a gray image, n ids from the first only.

    either_colour: white ones on black too. Not thorough: in an image scaled down to about LARGE_PX, with one threshold
    window instead of OpenCV's three.
    """
    whole = marker_dictionary(dictionary)
    parameters = cv2.aruco.DetectorParameters()
    parameters.detectInvertedMarker = either_colour
    scale = 1
    if not thorough:
        parameters.adaptiveThreshWinSizeMin = parameters.adaptiveThreshWinSizeMax = QUICK_WINDOW_PX
        scale = max(1, round(min(gray.shape) / LARGE_PX))
        height, width = (side // scale * scale for side in gray.shape)
        gray = cv2.resize(gray[:height, :width], None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)
    wanted = whole.bytesList[first:][:n_markers]
    part = cv2.aruco.Dictionary(wanted, whole.markerSize, whole.maxCorrectionBits)
    corners, ids, _ = cv2.aruco.ArucoDetector(part, parameters).detectMarkers(gray)
    if ids is None or len(ids) == 0:
        return np.zeros((0, 4, 2)), np.zeros(0, np.int64)
    order = np.argsort(ids.ravel(), kind="stable")
    xy = (np.asarray(corners, dtype=np.float64).reshape(-1, 4, 2) + 0.5) * scale - 0.5
    return xy[order], ids.ravel()[order].astype(np.int64) + first


def _detect_charuco(gray: Array, board: Board, legacy: bool, *, thorough: bool) -> tuple[Array, Array]:
    markers, ids = find_markers(gray, board.dictionary, board.n_markers, first=board.first_marker, thorough=thorough)
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
    layout = (
        np.array(charuco(board, legacy).getObjPoints(), dtype=np.float64)[ids - board.first_marker, :, :2]
        / board.square_length
    )
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
    """(n, 3, 3) that map four points (n, 4, 2) onto four points. H[2, 2] is 1 about the points' middle, which is seen:
    at the origin it may be 0."""
    middle = source.mean(axis=1)
    (x, y), (u, v) = np.moveaxis(source - middle[:, None], -1, 0), np.moveaxis(target, -1, 0)
    one, zero = np.ones_like(x), np.zeros_like(x)
    rows_u = np.stack([x, y, one, zero, zero, zero, -u * x, -u * y], axis=-1)
    rows_v = np.stack([zero, zero, zero, x, y, one, -v * x, -v * y], axis=-1)
    design, right = np.concatenate([rows_u, rows_v], axis=-2), np.concatenate([u, v], axis=-1)
    solution = np.linalg.solve(design, right[..., None])[..., 0]
    H = np.concatenate([solution, np.ones((len(solution), 1))], axis=-1).reshape(-1, 3, 3)
    H[:, :, 2] -= np.einsum("nij,nj->ni", H[:, :, :2], middle)
    return H


def _side(step_u: Array, step_v: Array) -> Array:
    """Length of the shorter side of a square in the image, px."""
    return np.minimum(np.linalg.norm(step_u, axis=-1), np.linalg.norm(step_v, axis=-1))


def _grown(
    gray: Array, grid: Array, expected: tuple[Array, Array, Array], rim: float, dark: Array
) -> tuple[Array, Array]:
    """Refine what is expected, then what is missing and the found corners let expect, until there are no more.

    grid: (corners, 2) places on the board in squares. Corners that the image shows less clearly than the others, or
    that their neighbours contradict, are dropped.
    """
    xy, sigma, contrast = refine_corners(gray, *expected, rim, dark)
    known = FIRST_CORNERS - 1
    while True:
        seen = np.isfinite(sigma)
        if seen.any():
            seen[seen] = contrast[seen] >= MIN_RELATIVE_CONTRAST * np.median(contrast[seen])
        xy[~seen], sigma[~seen] = np.nan, np.nan
        if not known < seen.sum() < len(grid):
            break
        known = int(seen.sum())
        _, (near, step_u, step_v) = _consistent(grid, xy)
        shown = step_u[:, 0] * step_v[:, 1] > step_u[:, 1] * step_v[:, 0]  # near others, and not from behind
        xy[~shown], sigma[~shown] = np.nan, np.nan
        rest = np.flatnonzero(~seen & shown)
        xy[rest], sigma[rest], contrast[rest] = refine_corners(
            gray, near[rest], step_u[rest], step_v[rest], rim, dark[rest]
        )
    xy, _ = _consistent(grid, xy)
    if np.isfinite(xy[:, 0]).sum() < MIN_CORNERS:
        xy = np.full_like(xy, np.nan)
    return xy, np.where(np.isnan(xy[:, 0]), np.nan, sigma)


def _consistent(grid: Array, xy: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    """The corners without those that are not where the others let expect them, the worst dropped first, and what those
    that are left let expect."""
    xy = xy.copy()
    while True:
        near, step_u, step_v = _interpolated(grid, xy)
        off = np.nan_to_num(np.linalg.norm(xy - near, axis=-1) / _side(step_u, step_v))
        if off.max() < MAX_DISAGREEMENT:
            return xy, (near, step_u, step_v)
        xy[off.argmax()] = np.nan


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
