"""The half-pixel rule: what is drawn at a point of the image is seen where `rescaled` says, whatever scale and size."""

from __future__ import annotations

import numpy as np
import pytest

from pose3d.nn.coords import MULTIPLE, cells_from_image, image_from_cells, input_from_image, padded_size, rescaled


def blob(centre: tuple[float, float], size: tuple[int, int], sigma: float) -> np.ndarray:
    v, u = np.mgrid[: size[1], : size[0]]
    grey = 250 * np.exp(-((u - centre[0]) ** 2 + (v - centre[1]) ** 2) / (2 * sigma**2))
    return np.repeat(np.round(grey).astype(np.uint8)[..., None], 3, axis=2)


def centroid(image: np.ndarray) -> np.ndarray:
    v, u = np.mgrid[: image.shape[0], : image.shape[1]]
    weight = image[..., 0].astype(float)
    return np.array([(u * weight).sum(), (v * weight).sum()]) / weight.sum()


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.5946, 0.3, 0.125, 2**0.25, 1.5])
@pytest.mark.parametrize("size", [(961, 719), (640, 480), (333, 517)])
def test_what_is_drawn_is_seen_where_the_rule_says(scale: float, size: tuple[int, int]) -> None:
    """Far from the corner, where a factor of the rounded size instead of the scale would be off by up to 0.5 px."""
    centre = (size[0] - 60.3, size[1] - 70.6)
    seen = centroid(input_from_image(blob(centre, size, 12.0), scale))
    np.testing.assert_allclose(seen, rescaled(centre, scale), atol=0.05)


def test_padding_is_black_and_behind(rng: np.random.Generator) -> None:
    assert padded_size((961, 719), 0.5946) == (576, 448)
    assert padded_size((64, 33), 1.0) == (64, 64)
    assert padded_size((3, 3), 0.1) == (MULTIPLE, MULTIPLE)
    image = rng.integers(1, 256, (33, 50, 3), dtype=np.uint8)
    given = input_from_image(image, 1.0)
    assert given.shape == (64, 64, 3)
    np.testing.assert_array_equal(given[:33, :50], image)
    assert not given[33:].any()
    assert not given[:, 50:].any()


def test_a_uniform_image_stays_uniform_to_its_border() -> None:
    given = input_from_image(np.full((719, 961, 3), 77, np.uint8), 0.5946)
    assert (given[:428, :571] == 77).all()
    assert not given[428:].any()


def test_there_and_back(rng: np.random.Generator) -> None:
    points = rng.uniform(-10, 1000, (4, 5, 2))
    points[0, 0] = np.nan
    for scale in (0.25, 0.5946, 1.4):
        cells = cells_from_image(points, scale, 4)
        np.testing.assert_allclose(image_from_cells(cells, scale, 4), points, atol=1e-9)
    np.testing.assert_allclose(image_from_cells([0.0, 1.0], 1.0, 4), [1.5, 5.5])  # 4 px a cell: its middle
    np.testing.assert_allclose(cells_from_image([-0.5, -0.5], 0.3, 4), -0.5)  # the corner stays
