"""Where exactly is a chessboard corner? Saddle points from the edges of the squares, with their precision."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["refine_corners"]

Array = NDArray[Any]

REACH = 0.45
"""How far along its edges a corner is looked for, in squares: as far as no other corner's edges come in."""
MAX_REACH_PX = 16.0
"""Reach, px, that is enough, and over which a lens bends no edge by what could be measured."""
STRIP = 0.7
"""Half width of the strip of pixels along an edge, of the free rim: the blurred edges of the markers stay out."""
MIN_STRIP_PX = 2.0
"""Its least half width, px: narrower, it does not hold a blurred edge."""
MAX_STRIP_PX = 9.0
"""Half width that also holds both edges of a double contour, as motion and glare make them, px."""
MAX_ITERATIONS = 30
MAX_SHIFT = 0.25
"""A corner further than this from where it was expected, in squares, is another corner."""
MAX_SIGMA = 0.06
"""Of a square's width across its narrow way: a corner less certain than that is seen too steeply or half covered."""
MIN_CONTRAST = 8.0
"""White less black around a corner, grey levels; below that noise makes corners."""


def refine_corners(
    gray: Array, start: Array, step_u: Array, step_v: Array, rim: float, first_dark: Array
) -> tuple[Array, Array, Array]:
    """Corners (n, 2) px where black and white squares meet, sigma (n,) px and contrast (n,) grey levels; NaN where the
    image shows no such corner.

    gray: (h, w) uint8. start: (n, 2) px, expected corners. step_u, step_v: (n, 2) px, the image of one square along the
    board's x and y there. rim: free width beside an edge, in squares (0.5 on a chessboard, half the difference of
    square and marker on a ChArUco board). first_dark: (n,) bool, whether the squares towards -u -v and +u +v are black.

    The corner is the point that all gradients along its four edges are perpendicular to (Förstner & Gülch 1987; the
    criterion of cv2.cornerSubPix), but the pixels are those along the edges up to REACH of a square instead of a small
    window, so that neighbouring markers stay out and many more pixels speak. sigma is the same paper's estimate from
    the residuals: the rms of both axes.
    """
    out = np.full((len(start), 4), np.nan)
    _refine_all(
        np.ascontiguousarray(gray),
        np.ascontiguousarray(start, dtype=np.float64),
        np.ascontiguousarray(step_u, dtype=np.float64),
        np.ascontiguousarray(step_v, dtype=np.float64),
        float(rim),
        np.ascontiguousarray(first_dark),
        out,
    )
    area = step_u[:, 0] * step_v[:, 1] - step_u[:, 1] * step_v[:, 0]
    width = area / np.maximum(np.linalg.norm(step_u, axis=-1), np.linalg.norm(step_v, axis=-1))
    out[~(out[:, 2] <= MAX_SIGMA * width)] = np.nan
    return out[:, :2], out[:, 2], out[:, 3]


@njit(cache=True, nogil=True, error_model="numpy")
def _refine_all(gray, start, step_u, step_v, rim, first_dark, out):  # type: ignore[no-untyped-def]
    for i in range(len(start)):
        x, y, sigma = _refine(gray, start[i], step_u[i], step_v[i], rim)
        if sigma < 0.0:
            continue
        contrast = _contrast(gray, x, y, step_u[i], step_v[i], rim, first_dark[i])
        if contrast >= MIN_CONTRAST:
            out[i, 0], out[i, 1], out[i, 2], out[i, 3] = x, y, sigma, contrast


@njit(cache=True, nogil=True, error_model="numpy")
def _refine(gray, start, u, v, rim):  # type: ignore[no-untyped-def]
    """(x, y, sigma); sigma = -1 where there is no corner."""
    height, width = gray.shape
    det = u[0] * v[1] - u[1] * v[0]
    length_u, length_v = np.hypot(u[0], u[1]), np.hypot(v[0], v[1])
    if not det > 4.0:
        return 0.0, 0.0, -1.0
    half_u = min(max(STRIP * rim * det / length_v, MIN_STRIP_PX), MAX_STRIP_PX) * length_v / det
    half_v = min(max(STRIP * rim * det / length_u, MIN_STRIP_PX), MAX_STRIP_PX) * length_u / det
    reach_u = max(min(REACH, MAX_REACH_PX / length_u), half_u)
    reach_v = max(min(REACH, MAX_REACH_PX / length_v), half_v)
    extent = (
        int(np.ceil(reach_u * abs(u[0]) + reach_v * abs(v[0]))) + 1,
        int(np.ceil(reach_u * abs(u[1]) + reach_v * abs(v[1]))) + 1,
    )
    along, across = (v[1] / det, -v[0] / det), (-u[1] / det, u[0] / det)
    reach, half = (1 / reach_u, 1 / reach_v), (1 / half_u, 1 / half_v)
    x, y = start[0], start[1]
    for _ in range(MAX_ITERATIONS):
        if x < 1.0 or y < 1.0 or x > width - 2.0 or y > height - 2.0:
            return 0.0, 0.0, -1.0
        nxx, nxy, nyy, bx, by, rest, total, squares = _sums(gray, x, y, extent, along, across, reach, half)
        det_n = nxx * nyy - nxy * nxy
        if not det_n > 1e-3 * (nxx + nyy) ** 2:
            return 0.0, 0.0, -1.0
        step_x = (nyy * bx - nxy * by) / det_n
        step_y = (nxx * by - nxy * bx) / det_n
        x += step_x
        y += step_y
        moved_x, moved_y = x - start[0], y - start[1]
        shift_u = (moved_x * v[1] - moved_y * v[0]) / det
        shift_v = (moved_y * u[0] - moved_x * u[1]) / det
        if abs(shift_u) > MAX_SHIFT or abs(shift_v) > MAX_SHIFT:
            return 0.0, 0.0, -1.0
        if step_x * step_x + step_y * step_y < 1e-6:
            break
    variance = max(rest - bx * step_x - by * step_y, 0.0) / total * (squares / total)
    return x, y, np.sqrt(0.5 * variance * (nxx + nyy) / det_n)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _sums(gray, x, y, extent, along, across, per_reach, per_half):  # type: ignore[no-untyped-def]
    """Weighted sums over the pixels around a corner: of the gradients' products xx, xy, yy; of those with the offset
    along the gradient, x and y; of its square; of the weights and their squares.

    Pixels outside both strips weigh nothing and are summed too: without a branch the loop is one of vectors.
    """
    height, width = gray.shape
    x0, x1 = max(round(x) - extent[0], 1), min(round(x) + extent[0], width - 2) + 1
    y0, y1 = max(round(y) - extent[1], 1), min(round(y) + extent[1], height - 2) + 1
    nxx = nxy = nyy = bx = by = rest = total = squares = 0.0
    for row in range(y0, y1):
        left, right = gray[row, x0 - 1 : x1 - 1], gray[row, x0 + 1 : x1 + 1]
        above, below = gray[row - 1, x0:x1], gray[row + 1, x0:x1]
        dy = row - y
        for i in range(x1 - x0):
            dx = x0 - x + i
            a = dx * along[0] + dy * along[1]
            b = dx * across[0] + dy * across[1]
            weight = max(
                _bump(a * per_reach[0]) * _bump(b * per_half[1]), _bump(a * per_half[0]) * _bump(b * per_reach[1])
            )
            gx = (float(right[i]) - float(left[i])) * 0.5
            gy = (float(below[i]) - float(above[i])) * 0.5
            offset = gx * dx + gy * dy
            nxx += weight * gx * gx
            nxy += weight * gx * gy
            nyy += weight * gy * gy
            bx += weight * gx * offset
            by += weight * gy * offset
            rest += weight * offset * offset
            total += weight
            squares += weight * weight
    return nxx, nxy, nyy, bx, by, rest, total, squares


@njit(cache=True, nogil=True, error_model="numpy")
def _bump(distance):  # type: ignore[no-untyped-def]
    """Weight of a pixel: 1 in the middle, falling smoothly to 0 at a distance of 1."""
    s = 1.0 - distance * distance
    return s * s if s > 0.0 else 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _contrast(gray, x, y, u, v, rim, first_dark):  # type: ignore[no-untyped-def]
    """Darkest white less brightest black sample of the four squares that meet at the corner, grey levels."""
    height, width = gray.shape
    det = u[0] * v[1] - u[1] * v[0]
    length = min(np.hypot(u[0], u[1]), np.hypot(v[0], v[1]))
    inner = min(max(0.5 * rim, 2.0 * length / det), 0.5)
    white, black = 1e9, -1e9
    for sign_u in (-1, 1):
        for sign_v in (-1, 1):
            px = x + inner * (sign_u * u[0] + sign_v * v[0])
            py = y + inner * (sign_u * u[1] + sign_v * v[1])
            column, row = int(np.floor(px)), int(np.floor(py))
            if column < 0 or row < 0 or column >= width - 1 or row >= height - 1:
                return -1.0
            fx, fy = px - column, py - row
            top = (1 - fx) * float(gray[row, column]) + fx * float(gray[row, column + 1])
            bottom = (1 - fx) * float(gray[row + 1, column]) + fx * float(gray[row + 1, column + 1])
            value = (1 - fy) * top + fy * bottom
            if (sign_u == sign_v) == first_dark:
                black = max(black, value)
            else:
                white = min(white, value)
    return white - black
