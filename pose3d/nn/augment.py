"""What else might this labelled frame have looked like? One warp for the image and its points, another animal
before it, things in the way, another light, blur, noise."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Warp", "blurred", "covered", "lit", "noisy", "pasted", "random_warp", "warp_image", "warp_points"]

Warp = NDArray[np.float64]
"""(2, 3) crop_from_picture: pixels of the picture to pixels of the crop."""

JITTER = 0.25
"""The animal's centre is moved by up to this share of the crop off the crop's centre."""
UPRIGHT = 0.25
"""Half of the crops are turned by this share of the largest turn at most."""
ELSEWHERE = 0.1
"""Share of crops that are taken anywhere, so that the network learns what no animal looks like."""
BLUR_PX = 7
"""Length of a movement's blur at most, input px: odd."""
NOISE = 0.06
"""SD of the pictures' noise at most, of the whole range of light."""
COVERS, COVER = 3, (0.05, 0.25)
"""Things in the way at most, and their radii as shares of the crop's side."""
BODY = 0.12
"""An animal is the hull of its keypoints and this share of its size around it ..."""
FADE = 0.03
"""... and its border fades over this share."""


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


def blurred(crop: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The crop, moved during its exposure: in any direction, by up to BLUR_PX."""
    angle, length = rng.uniform(0, np.pi), rng.uniform(1, BLUR_PX)
    middle = BLUR_PX // 2
    end = np.array([np.cos(angle), np.sin(angle)]) * (length - 1) / 2
    kernel = np.zeros((BLUR_PX, BLUR_PX), np.float32)
    tips = [tuple(round(v) for v in (middle + sign * end) * 256) for sign in (-1, 1)]
    cv2.line(kernel, tips[0], tips[1], 1.0, 1, cv2.LINE_AA, 8)
    return np.asarray(cv2.filter2D(crop, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE), dtype=np.uint8)


def noisy(crop: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """The crop in -1..1 as a camera short of light sees it."""
    sd = 2 * rng.uniform(0, NOISE)
    grain = rng.standard_normal(crop.shape, dtype=np.float32) * np.float32(sd)
    return np.clip(crop + grain, -1, 1, out=grain)


def covered(crop: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The crop with up to COVERS things in the way, ellipses in colours of the crop; keypoints behind them are still
    there."""
    crop, side = crop.copy(), len(crop)
    for _ in range(rng.integers(1, COVERS + 1)):
        place, spot = rng.integers(0, side, 2), rng.integers(0, side, 2)
        axes = tuple(int(r) for r in rng.uniform(*COVER, 2) * side)
        colour = tuple(int(v) for v in crop[spot[1], spot[0]])
        cv2.ellipse(crop, tuple(int(v) for v in place), axes, rng.uniform(0, 360), 0, 360, colour, -1)
    return crop


def pasted(
    crop: NDArray[np.uint8],
    points: NDArray[np.float64],
    other: NDArray[np.uint8],
    others: NDArray[np.float64],
    who: int,
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The crop before which one animal of another crop stands, and the points of both, (2 individuals, keypoints, 2):
    without a label is what it hides, and what is not on it.

    points, others: (individuals, keypoints, 2) px of the crops, NaN where not labelled. who: row of others, an animal
    with at least three keypoints; with fewer nothing is pasted. Ghiasi et al. 2021, "Simple copy-paste".
    """
    animal = others[who][np.isfinite(others[who, :, 0])]
    mask = np.zeros(crop.shape[:2], np.uint8)
    if len(animal) >= 3:
        size = float(np.ptp(animal, axis=0).max())
        hull = cv2.convexHull(np.round(animal).astype(np.int32))
        cv2.fillConvexPoly(mask, hull, 255)
        mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * int(BODY * size) + 1,) * 2))
    before, behind = (_on(mask, p) for p in (others, points))
    both = np.concatenate([np.where(behind[..., None], np.nan, points), np.where(before[..., None], others, np.nan)])
    if not mask.any():
        return crop, both
    share = cv2.GaussianBlur(mask, (0, 0), max(FADE * size, 0.5))[..., None].astype(np.float32) / 255
    return np.round(crop + share * (other.astype(np.float32) - crop)).astype(np.uint8), both


def _on(mask: NDArray[np.uint8], points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether points (..., 2) px lie on a mask; False where NaN."""
    known = np.asarray(np.isfinite(points).all(axis=-1))
    cell = np.clip(np.rint(np.where(known[..., None], points, 0)).astype(int), 0, np.array(mask.shape[::-1]) - 1)
    return np.asarray((mask[cell[..., 1], cell[..., 0]] > 0) & known)
