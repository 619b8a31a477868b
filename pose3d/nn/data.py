"""What does the network learn from? Labelled frames at the network's scale, and the batches drawn from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pose3d.labels import Labels
from pose3d.nn.augment import blurred, covered, lit, noisy, pasted, random_warp, warp_image, warp_points
from pose3d.nn.coords import input_from_image, rescaled
from pose3d.nn.options import TrainOptions

__all__ = ["Pictures", "animal_size", "draw_batch", "load_pictures", "normalised", "shuffled", "suitable_scale"]

SCALES = (0.125, 2**0.5)
"""The scale that is chosen stays within these: enlarging helps with small animals, and makes predictions slow."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """Labelled frames at the network's scale. images: RGB uint8 (h, w, 3), padded; points: (n, individuals, keypoints,
    2) input px, NaN where not labelled. mirrored: (keypoints,) which keypoint each is in a mirror."""

    images: tuple[NDArray[np.uint8], ...]
    points: NDArray[np.float64]
    mirrored: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: NDArray[np.integer]) -> Pictures:
        """These frames, in this order."""
        return Pictures(tuple(self.images[int(row)] for row in rows), self.points[rows], self.mirrored)


def animal_size(points: NDArray[np.float64]) -> float:
    """Median over animals of the longer side of the box around their labelled keypoints, in px; NaN without any.

    points: (n, individuals, keypoints, 2) px. Animals with less than half of their keypoints are left out where others
    are there.
    """
    known = np.isfinite(points[..., 0])
    share = known.mean(axis=-1)
    whole = share >= min(0.5, share.max(initial=0.0))
    whole &= known.sum(axis=-1) > 1
    if not whole.any():
        return math.nan
    animals = points[whole]
    return float(np.median((np.nanmax(animals, axis=1) - np.nanmin(animals, axis=1)).max(axis=-1)))


def suitable_scale(points: NDArray[np.float64], animal_px: float) -> float:
    """Input px per image px at which an animal is `animal_px` long, in quarters of an octave, at most 1.41.

    Rounding keeps the scale the same when a few labels are added.
    """
    size = animal_size(points)
    if not size > 0:
        return 1.0
    step = 2.0 ** (round(math.log2(animal_px / size) * 4) / 4)
    return float(np.clip(step, *SCALES))


def load_pictures(
    labels: Labels, scale: float, mirrored: NDArray[np.intp], progress: Callable[[int], None] | None = None
) -> Pictures:
    """All labelled frames at the network's scale, in memory. mirrored: see Pictures."""
    images: list[NDArray[np.uint8]] = [np.zeros((0, 0, 3), np.uint8)] * len(labels)
    for done, (row, image) in enumerate(labels.images()):
        images[row] = input_from_image(image, scale)
        if progress:
            progress(done + 1)
    return Pictures(tuple(images), rescaled(labels.points, scale), mirrored)


def shuffled(n: int, numbers: NDArray[np.integer], seed: list[int]) -> NDArray[np.intp]:
    """Which of n things are drawn as these numbers (counted from 0) of an endless sequence, in which all n come once an
    epoch, each epoch in an order of its own."""
    orders = {e: np.random.default_rng([*seed, e]).permutation(n) for e in set((numbers // n).tolist())}
    return np.array([orders[i // n][i % n] for i in numbers.tolist()], np.intp)


def draw_batch(
    pictures: Pictures,
    options: TrainOptions,
    rotation: float,
    step: int,
    rows: NDArray[np.integer] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The batch of one step: crops (batch, crop, crop, 3) in -1..1 and points (batch, individuals, keypoints, 2) px, of
    twice as many individuals where some are pasted.

    rows: (batch,) of the pictures; None = every frame comes once an epoch. A batch depends on these, the seed and its
    step alone, so a training that was cut off goes on as if it had not been.
    """
    first = step * options.batch
    if rows is None:
        rows = shuffled(len(pictures), np.arange(first, first + options.batch), [options.seed, 1])
    chosen = rows.tolist()

    several = options.paste > 0 and pictures.points.shape[1] > 1

    def cut(row: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        image, points = pictures.images[row], pictures.points[row]
        size = (image.shape[1], image.shape[0])
        mirrored = options.flip and rng.uniform() < 0.5
        warp = random_warp(points, size, options.crop, rotation, options.zoom, rng, mirrored=mirrored)
        points = points[:, pictures.mirrored] if mirrored else points
        return warp_image(image, warp, options.crop), warp_points(points, warp, options.crop)

    def sample(i: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        rng = np.random.default_rng([options.seed, 2, first + i])
        crop, points = cut(chosen[i], rng)
        paste, cover, blur, noise = rng.uniform(size=4) < (options.paste, options.cover, options.blur, options.noise)
        if several and paste:
            other, others = cut(int(rng.integers(len(pictures))), rng)
            crop, points = pasted(crop, points, other, others, int(rng.integers(len(others))))
        elif several:
            points = np.concatenate([points, np.full_like(points, np.nan)])
        crop = covered(crop, rng) if cover else crop
        crop = blurred(crop, rng) if blur else crop
        return noisy(lit(crop, rng), rng) if noise else lit(crop, rng), points

    samples = [sample(i) for i in range(options.batch)]
    return np.stack([image for image, _ in samples]), np.stack([points for _, points in samples])


def normalised(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A network's input in -1..1."""
    return image.astype(np.float32) * np.float32(2 / 255) - np.float32(1)
