"""Batches depend on seed and step alone; the scale follows from the animals' size."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from pose3d.labels import Labels, Picture
from pose3d.nn.coords import input_from_image
from pose3d.nn.data import Pictures, animal_size, draw_batch, load_pictures, normalised, suitable_scale
from pose3d.nn.options import TrainOptions
from pose3d.skeleton import Skeleton

OPTIONS = TrainOptions(batch=4, crop=64, rotation_deg=20.0, zoom=(0.9, 1.1), seed=5)


def pictures_of(n: int, rng: np.random.Generator) -> Pictures:
    images = tuple(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8) for _ in range(n))
    return Pictures(images, rng.uniform(10, 50, (n, 2, 3, 2)), np.array([1, 0, 2]))


def test_a_batch_is_what_its_seed_and_step_say(rng: np.random.Generator) -> None:
    pictures = pictures_of(7, rng)
    forwards = [draw_batch(pictures, OPTIONS, 0.3, step) for step in range(6)]
    backwards = [draw_batch(pictures, OPTIONS, 0.3, step) for step in range(5, -1, -1)][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    images, points = forwards[0]
    assert (images.shape, images.dtype, points.shape) == ((4, 64, 64, 3), np.float32, (4, 4, 3, 2))
    assert -1 <= images.min() < images.max() <= 1
    other = draw_batch(pictures, TrainOptions(batch=4, crop=64, rotation_deg=20.0, zoom=(0.9, 1.1), seed=6), 0.3, 0)
    assert not np.array_equal(images, other[0])


def test_a_mirrored_animal_has_its_left_where_its_right_was(rng: np.random.Generator) -> None:
    """The left keypoint is red and stands left of the blue right one. A mirror image of the animal has its left on the
    left as well, and that is what was blue."""
    image = np.full((80, 80, 3), 255, np.uint8)
    image[39:42, 29:32], image[39:42, 49:52] = (255, 0, 0), (0, 0, 255)
    points = np.array([[[[30.0, 40.0], [50.0, 40.0], [40.0, 20.0]]]])
    pictures = Pictures((image,), points, np.array([1, 0, 2]))
    options = TrainOptions(batch=1, crop=96, zoom=(1.0, 1.0))

    def red_is_left(flip: bool) -> list[bool]:
        found = []
        for step in range(60):
            crop, moved = draw_batch(pictures, replace(options, flip=flip), 0.0, step)
            if not np.isnan(moved).any():
                left, right = moved[0, 0, :2].round().astype(int)
                assert left[0] < right[0]
                colours = crop[0, left[1], left[0]], crop[0, right[1], right[0]]
                red, blue = (c[0] > c[2] for c in colours)
                assert red != blue
                found.append(bool(red))
        return found

    assert 0.3 < np.mean(red_is_left(True)) < 0.7
    assert all(red_is_left(False))


@pytest.mark.parametrize(("n", "batch"), [(7, 4), (3, 8), (5, 5)])
def test_every_frame_comes_once_an_epoch(n: int, batch: int, rng: np.random.Generator) -> None:
    told: list[int] = []

    class Noted(tuple):  # which pictures are taken
        def __getitem__(self, row: int) -> np.ndarray:
            told.append(int(row))
            return tuple.__getitem__(self, row)

    pictures = Pictures(Noted([np.zeros((4, 4, 3), np.uint8)] * n), np.zeros((n, 1, 2, 2)), np.arange(2))
    options = TrainOptions(batch=batch, crop=64, seed=1)
    for step in range(n):
        draw_batch(pictures, options, 0.0, step)
    epochs = np.array(told).reshape(batch, n)
    assert (np.sort(epochs, axis=1) == np.arange(n)).all()
    assert len({tuple(epoch) for epoch in epochs}) > 1, "in another order"


def test_animals_are_as_long_as_their_box() -> None:
    points = np.full((3, 2, 4, 2), np.nan)
    points[0, 0] = [[0, 0], [100, 10], [50, 5], [20, 20]]
    points[1, 0] = [[0, 0], [10, 80], [5, 40], [2, 2]]
    points[1, 1] = [[5, 5], [5, 125], [6, 6], [np.nan, np.nan]]
    points[2, 0, 0] = [7, 7]  # too little of it is known
    assert animal_size(points) == 100
    few = np.full((2, 1, 6, 2), np.nan)
    few[0, 0, :2] = [[0, 0], [30, 40]]
    assert animal_size(few) == 40, "nothing more is known of any"
    assert math.isnan(animal_size(np.full((2, 1, 3, 2), np.nan)))
    assert math.isnan(animal_size(np.ones((2, 1, 1, 2)))), "a point has no size"


@pytest.mark.parametrize(("size", "expected"), [(160, 1.0), (320, 0.5), (270, 2**-0.75), (20, 2**0.5), (9000, 0.125)])
def test_the_scale_makes_animals_as_long_as_wanted(size: float, expected: float) -> None:
    points = np.array([[[[0.0, 0.0], [size, size / 3]]]])
    np.testing.assert_allclose(suitable_scale(points, 160.0), expected)
    np.testing.assert_allclose(suitable_scale(points * 1.05, 160.0), expected)  # a few more labels change nothing


def test_the_scale_without_a_size() -> None:
    assert suitable_scale(np.full((1, 1, 3, 2), np.nan), 160.0) == 1.0
    assert suitable_scale(np.zeros((1, 1, 3, 2)), 160.0) == 1.0


def test_pictures_and_points_at_the_networks_scale(tmp_path: Path, rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (3, 50, 70, 3), dtype=np.uint8)
    for i, image in enumerate(images):
        cv2.imwrite(str(tmp_path / f"{i}.png"), image[..., ::-1])
    points = rng.uniform(0, 40, (3, 1, 2, 2))
    points[1, 0, 0] = np.nan
    paths = tuple(Picture(tmp_path / f"{i}.png") for i in range(3))
    labels = Labels(points, np.arange(3), ("a",) * 3, ("v",) * 3, paths, Skeleton(("x", "y")))
    told: list[int] = []
    pictures = load_pictures(labels.take([2, 0, 1]), 0.5, np.array([1, 0, 2]), told.append)
    assert told == [1, 2, 3]
    for row, image in zip((2, 0, 1), pictures.images, strict=True):
        np.testing.assert_array_equal(image, input_from_image(images[row], 0.5))
    np.testing.assert_allclose(pictures.points, (points[[2, 0, 1]] + 0.5) * 0.5 - 0.5)
    np.testing.assert_array_equal(pictures.take(np.array([1])).points, pictures.points[[1]])
    np.testing.assert_allclose(normalised(np.array([0, 255], np.uint8)), [-1, 1], atol=1e-6)
