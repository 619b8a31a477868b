"""Where in large frames are the animals? Windows that hold them, from whole frames before and after those looked at.

Frames come in stretches whose borders are fixed by frame number. The first and the last of a stretch are looked at
whole, those between only in windows around what these two show, unless that saves little or the two disagree. A frame
is looked at whole after all where candidates come near a window's border or are missing, or where the picture changes
outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from pose3d.nn.coords import MULTIPLE
from pose3d.nn.engines import Engine

__all__ = ["STRETCH", "Window", "find_windows", "look", "maps_within", "stretch_of"]

Image = NDArray[np.uint8]
Arrays = tuple[NDArray[Any], ...]
"""keypoint (n,), cell (n, 2), score (n,) of candidates, a, b, edge, score of limbs, and what else `Predictor` knows."""
Window = tuple[int, int, int, int]
"""left, top, right, bottom of a part of the network's input, in px, multiples of 32."""

STRETCH = 24
"""Frames of which the first and the last are looked at whole."""
LEAST_PIXELS = 150_000
"""Of the network's input, below which all is looked at whole."""
MOST_SHARE = 0.7
"""Windows that are more of the frame than this save too little."""
SURE, JOINED = 0.5, 0.35
"""Candidates are taken for an animal's from this score on, and from that one where a limb of that score joins them."""
MARGIN, NEAR = 64, 40
"""Input px from what either whole frame shows to the window's border, and from there to what is too near to it."""
RIM = 16
"""Input px along a window's border, where the network sees too little to be believed; less than NEAR."""
SIDE = 64
"""Sides of windows are multiples of this, so that there are few sizes."""
MISSING = 0.25
"""Share of one animal's keypoints that may be missing, which both whole frames show."""
CHANGE = 6.0
"""Grey levels by which the mean of a tile outside the windows may differ from both whole frames."""


class Predict(Protocol):
    """Looks at images (n, h, w, 3), whole or in windows: frame number and what is there, of each."""

    def __call__(
        self, numbers: list[int], images: Image, border: NDArray[np.float64], windows: Sequence[Window] = ()
    ) -> list[tuple[int, Arrays]]: ...


def stretch_of(height: int, width: int) -> int:
    """How many frames of this size in the network's input go together; 1 where windows would save nothing."""
    return STRETCH if height * width >= LEAST_PIXELS else 1


def look(
    numbers: list[int], images: Image, border: NDArray[np.float64], stride: int, kinds: int, predict: Predict
) -> list[tuple[int, Arrays]]:
    """What is in each image of a stretch. border: as `predict` takes it. stride: input px per cell of the maps. kinds:
    the number of keypoints. Frames that do not follow one another are looked at whole."""
    if len(numbers) < 4 or numbers[-1] - numbers[0] >= len(numbers) or stretch_of(*images.shape[1:3]) == 1:
        return predict(numbers, images, border)
    ends = predict([numbers[0], numbers[-1]], images[[0, -1]], border)
    windows = find_windows(ends[0][1], ends[1][1], images.shape[1:3], stride, kinds)
    between, inner = numbers[1:-1], images[1:-1]
    if not windows:
        return [ends[0], *predict(between, inner, border), ends[1]]
    found = predict(between, inner, border, windows)
    changed = _changed(images, windows)
    least = np.minimum(*(_counts(arrays, kinds) for _, arrays in ends))
    doubtful = [
        row
        for row, (_, arrays) in enumerate(found)
        if changed[row]
        or np.maximum(least - _counts(arrays, kinds), 0).sum() > MISSING * kinds
        or _near_border(arrays, windows, images.shape[1:3], stride)
    ]
    if doubtful:
        again = predict([between[row] for row in doubtful], inner[doubtful], border)
        for row, whole in zip(doubtful, again, strict=True):
            found[row] = whole
    return [ends[0], *found, ends[1]]


def find_windows(first: Arrays, last: Arrays, shape: tuple[int, ...], stride: int, kinds: int) -> tuple[Window, ...]:
    """Windows of a network input of this (height, width) that hold the animals of both whole frames; none where nothing
    is there, the frames disagree on how much, or little would be saved."""
    counts = _counts(first, kinds), _counts(last, kinds)
    if not counts[0].sum() or not counts[1].sum() or np.abs(counts[0] - counts[1]).sum() > kinds / 2:
        return ()
    height, width = shape[0] // MULTIPLE, shape[1] // MULTIPLE
    tiles = np.zeros((height, width), dtype=np.uint8)
    for place in np.concatenate([stride * arrays[1][_animals(arrays)] for arrays in (first, last)]):
        left, top = np.maximum((place - MARGIN) // MULTIPLE, 0).astype(int)
        right, bottom = ((place + MARGIN) // MULTIPLE).astype(int) + 1
        tiles[top:bottom, left:right] = 1
    boxes = cv2.connectedComponentsWithStats(tiles)[2][1:, :4]
    windows = _apart([_grown((x, y, x + w, y + h), (height, width)) for x, y, w, h in boxes.tolist()], (height, width))
    share = sum((right - left) * (bottom - top) for left, top, right, bottom in windows) / (height * width)
    if share > MOST_SHARE:
        return ()
    return tuple(tuple(MULTIPLE * n for n in window) for window in windows)  # type: ignore[misc]


def maps_within(engine: Engine, images: Image, windows: Sequence[Window]) -> list[NDArray[np.float32]]:
    """The maps of images (n, h, w, 3), computed in the windows only, 0 elsewhere and at their rims; without windows, of
    all."""
    if not windows:
        return engine(images)
    whole: list[NDArray[np.float32]] = []
    limits = images.shape[2], images.shape[1]
    for window in windows:
        left, top, right, bottom = window
        parts = engine(np.ascontiguousarray(images[:, top:bottom, left:right]))
        stride = (bottom - top) // parts[0].shape[-2]
        whole = whole or [np.zeros((*part.shape[:-2], limits[1] // stride, limits[0] // stride), part.dtype)
                          for part in parts]  # fmt: skip
        low = [(begin + RIM * (begin > 0)) // stride for begin in window[:2]]
        high = [(end - RIM * (end < limit)) // stride for end, limit in zip(window[2:], limits, strict=True)]
        across, down = (slice(low[axis], high[axis]) for axis in (0, 1))
        columns, rows = (slice(low[axis] - begin // stride, high[axis] - begin // stride)
                         for axis, begin in ((0, left), (1, top)))  # fmt: skip
        for target, part in zip(whole, parts, strict=True):
            target[..., down, across] = part[..., rows, columns]
    return whole


def _animals(arrays: Arrays) -> NDArray[np.bool_]:
    """(n,) which candidates are taken for an animal's."""
    score, a, b, limb = arrays[2], arrays[3], arrays[4], arrays[6]
    taken = score >= SURE
    joining = (limb >= JOINED) & (np.minimum(score[a], score[b]) >= JOINED)
    taken[a[joining]] = taken[b[joining]] = True
    return np.asarray(taken)


def _counts(arrays: Arrays, kinds: int) -> NDArray[np.int64]:
    """(kinds,) candidates of each keypoint that are sure."""
    return np.bincount(arrays[0][arrays[2] >= SURE], minlength=kinds)


def _grown(window: Window, shape: tuple[int, int]) -> Window:
    """With sides that are multiples of SIDE, as far as the frame allows; all in tiles, shape (height, width)."""
    step = SIDE // MULTIPLE
    sides = []
    for begin, end, most in ((window[0], window[2], shape[1]), (window[1], window[3], shape[0])):
        length = min(-(-(end - begin) // step) * step, most)
        start = min(max(begin - (length - (end - begin)) // 2, 0), most - length)
        sides.append((start, start + length))
    (left, right), (top, bottom) = sides
    return left, top, right, bottom


def _apart(windows: list[Window], shape: tuple[int, int]) -> list[Window]:
    """Windows that overlap joined, until none do."""
    apart: list[Window] = []
    for window in windows:
        met = window
        while touching := [w for w in apart if w[0] < met[2] and met[0] < w[2] and w[1] < met[3] and met[1] < w[3]]:
            apart = [w for w in apart if w not in touching]
            low, high = np.array([met, *touching])[:, :2].min(axis=0), np.array([met, *touching])[:, 2:].max(axis=0)
            met = _grown((int(low[0]), int(low[1]), int(high[0]), int(high[1])), shape)
        apart.append(met)
    return apart


def _near_border(arrays: Arrays, windows: Sequence[Window], shape: tuple[int, ...], stride: int) -> bool:
    """Whether an animal is too near to a window's border that is not the frame's."""
    place = stride * arrays[1][_animals(arrays)]
    near = np.zeros(len(place), dtype=bool)
    for left, top, right, bottom in windows:
        inside = np.all((place >= (left, top)) & (place < (right, bottom)), axis=1)
        low = np.where(np.array([left, top]) > 0, (left + NEAR, top + NEAR), -np.inf)
        high = np.where(np.array([right, bottom]) < shape[1::-1], (right - NEAR, bottom - NEAR), np.inf)
        near |= inside & np.any((place < low) | (place > high), axis=1)
    return bool(near.any())


def _changed(images: Image, windows: Sequence[Window]) -> NDArray[np.bool_]:
    """(n - 2,) which of the images between the first and the last show something new outside the windows."""
    height, width = images.shape[1] // MULTIPLE, images.shape[2] // MULTIPLE
    outside = np.ones((height, width), dtype=bool)
    for left, top, right, bottom in windows:
        outside[top // MULTIPLE : bottom // MULTIPLE, left // MULTIPLE : right // MULTIPLE] = False
    tiles = np.stack([cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in images])
    seen = tiles[:, outside].astype(np.float64)
    apart = np.minimum(*(np.abs(seen[1:-1] - seen[end]).max(axis=2) for end in (0, -1)))
    return np.asarray(apart.max(axis=1, initial=0.0) > CHANGE)
