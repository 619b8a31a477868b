"""What else might this labelled frame have looked like? One warp for the image and its points, then another light."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Warp", "lit", "random_warp", "warp_image", "warp_points"]

Warp = NDArray[np.float64]
"""(2, 3) crop_from_picture: pixels of the picture to pixels of the crop."""

JITTER = 0.25
"""The animal's centre is moved by up to this share of the crop off the crop's centre."""
UPRIGHT = 0.25
"""Half of the crops are turned by this share of the largest turn at most."""
ELSEWHERE = 0.1
"""Share of crops that are taken anywhere, so that the network learns what no animal looks like."""


def random_warp(
    points: NDArray[np.float64],
    size: tuple[int, int],
    crop: int,
    rotation: float,
    zoom: tuple[float, float],
    rng: np.random.Generator,
    *,
    mirrored: bool = False,
) -> Warp:
    """A crop of `crop` x `crop` px near one of the animals: turned by up to `rotation` radians, resized within `zoom`,
    and mirrored if asked for.

    Half of the crops are turned by a quarter of that at most: most cameras have an upright, some look from above.
    points: (individuals, keypoints, 2) px, NaN where not labelled. size: (width, height) of the picture.
    """
    there = np.flatnonzero(np.isfinite(points[..., 0]).any(axis=1))
    angle = rng.uniform(-rotation, rotation) * rng.choice([UPRIGHT, 1.0])
    factor = np.exp(rng.uniform(*np.log(zoom)))
    elsewhere, who, jitter, place = rng.uniform(), rng.uniform(), rng.uniform(-1, 1, 2), rng.uniform(size=2)
    if elsewhere < ELSEWHERE or not len(there):
        centre = place * size
    else:
        animal = points[there[int(who * len(there))]]
        centre = (np.nanmin(animal, axis=0) + np.nanmax(animal, axis=0)) / 2 + jitter * JITTER * crop / factor
    c, s = factor * np.cos(angle), factor * np.sin(angle)
    turn = np.array([[c, -s], [s, c]]) * (-1 if mirrored else 1, 1)
    return np.column_stack([turn, (crop - 1) / 2 - turn @ centre])


def warp_image(picture: NDArray[np.uint8], warp: Warp, crop: int) -> NDArray[np.uint8]:
    """The crop (crop, crop, 3) of a picture; black where there is none, as in the padding of `input_from_image`."""
    return np.asarray(cv2.warpAffine(picture, warp, (crop, crop), flags=cv2.INTER_LINEAR), dtype=np.uint8)


def warp_points(points: NDArray[np.float64], warp: Warp, crop: int) -> NDArray[np.float64]:
    """Points (..., 2) of the picture in the crop; NaN outside it."""
    moved: NDArray[Any] = points @ warp[:, :2].T + warp[:, 2]
    inside = ((moved > -0.5) & (moved < crop - 0.5)).all(axis=-1, keepdims=True)
    return np.where(inside, moved, np.nan)


def lit(crop: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """The crop in -1..1 under another light: gain, offset and gamma."""
    gain, offset, gamma = np.exp(rng.uniform(-0.3, 0.3)), rng.uniform(-0.1, 0.1), np.exp(rng.uniform(-0.3, 0.3))
    table = np.clip(gain * (np.arange(256) / 255) ** gamma + offset, 0, 1) * 2 - 1
    return table.astype(np.float32)[crop]
