"""Where does an image pixel fall in the network's input and in its maps? Owns the half-pixel rule.

Three frames, each with (0, 0) at the centre of its first cell: the image (px), the network's input (px; the image
resized by `scale`, then padded at its right and bottom), and the maps (cells of `stride` input pixels).
Rescaling by s is (u + 0.5) s - 0.5, because what stays in place is the image's corner, not the centre of its first
pixel (Huang et al. 2020, "The Devil is in the Details": unbiased data processing).
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["MULTIPLE", "cells_from_image", "image_from_cells", "input_from_image", "padded_size", "rescaled"]

MULTIPLE = 32
"""Input widths and heights are multiples of this, the coarsest stride of the networks."""


def rescaled(xy: ArrayLike, factor: float) -> NDArray[np.float64]:
    """Coordinates after everything is resized by `factor`; any shape, NaN stays NaN."""
    return (np.asarray(xy, dtype=np.float64) + 0.5) * factor - 0.5


def image_from_cells(cells: ArrayLike, scale: float, stride: int) -> NDArray[np.float64]:
    """Image px of positions in the maps, (..., 2) cells. scale: input px per image px. stride: input px per cell."""
    return rescaled(cells, stride / scale)


def cells_from_image(xy: ArrayLike, scale: float, stride: int) -> NDArray[np.float64]:
    """Positions in the maps, in cells, of image px (..., 2)."""
    return rescaled(xy, scale / stride)


def padded_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(width, height) of the network's input for images of this (width, height): resized, then padded."""
    width, height = (-(-max(1, round(n * scale)) // MULTIPLE) * MULTIPLE for n in size)
    return width, height


def input_from_image(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """The network's input (padded height, padded width, 3) uint8 of an RGB image: resized by exactly `scale`, zeros
    beside it.

    Shrinking averages (no aliasing), and the factor is exact although the size is rounded: a point u of the image lands
    at (u + 0.5) scale - 0.5 whatever the size.
    """
    height, width = image.shape[:2]
    wide, high = padded_size((width, height), scale)
    if scale == 1.0:
        resized = image
    else:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        if abs(size[0] / width - scale) + abs(size[1] / height - scale) < 1e-9:
            how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            resized = np.asarray(cv2.resize(image, size, interpolation=how), dtype=np.uint8)
        else:
            resized = _resized_exactly(image, scale, size)
    padded: NDArray[Any] = np.zeros((high, wide, 3), dtype=np.uint8)
    padded[: resized.shape[0], : resized.shape[1]] = resized
    return padded


def _resized_exactly(image: NDArray[np.uint8], scale: float, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resized to the size whose factor is nearest, then moved by the rest, less than a pixel in all."""
    height, width = image.shape[:2]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    near = cv2.resize(image, size, interpolation=how)
    fx, fy = scale * width / size[0], scale * height / size[1]
    move = np.array([[fx, 0, 0.5 * fx - 0.5], [0, fy, 0.5 * fy - 0.5]])
    moved = cv2.warpAffine(near, move, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, dtype=np.uint8)
