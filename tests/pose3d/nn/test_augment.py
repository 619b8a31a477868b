"""One warp for image and points, within the limits that were asked for."""

from __future__ import annotations

import numpy as np
import pytest

from pose3d.nn.augment import (
    BLUR_PX,
    COVER,
    COVERS,
    ELSEWHERE,
    JITTER,
    NOISE,
    blurred,
    covered,
    lit,
    noisy,
    pasted,
    random_warp,
    warp_image,
    warp_points,
)

CROP, SIZE = 96, (260, 200)
TURN, ZOOM = np.radians(40), (0.7, 1.3)
ANIMAL = np.array([[[120.0, 90.0], [140.0, 110.0], [np.nan, np.nan]], np.full((3, 2), np.nan)])


def test_a_blob_follows_its_point(rng: np.random.Generator) -> None:
    v, u = np.mgrid[: SIZE[1], : SIZE[0]]
    checked = 0
    for _ in range(40):
        point = rng.uniform((90, 70), (170, 130))
        grey = 250 * np.exp(-((u - point[0]) ** 2 + (v - point[1]) ** 2) / (2 * 4.0**2))
        image = np.repeat(np.round(grey).astype(np.uint8)[..., None], 3, axis=2)
        warp = random_warp(point[None, None], SIZE, CROP, np.pi, ZOOM, rng)
        moved = warp_points(point[None], warp, CROP)[0]
        if not (np.abs(moved - (CROP - 1) / 2) < CROP / 2 - 20).all():
            continue  # some of the blob is cut off; NaN falls here too
        crop = warp_image(image, warp, CROP)[..., 0].astype(float)
        y, x = np.mgrid[:CROP, :CROP]
        np.testing.assert_allclose([(x * crop).sum() / crop.sum(), (y * crop).sum() / crop.sum()], moved, atol=0.1)
        checked += 1
    assert checked > 10


def test_turns_and_zooms_stay_within_their_limits(rng: np.random.Generator) -> None:
    warps = np.array([random_warp(ANIMAL, SIZE, CROP, TURN, ZOOM, rng) for _ in range(2000)])
    factor = np.sqrt(np.linalg.det(warps[:, :, :2]))
    angle = np.arctan2(warps[:, 1, 0], warps[:, 0, 0])
    similar = factor[:, None, None] * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).T
    np.testing.assert_allclose(warps[:, :, :2], similar.transpose(0, 2, 1), atol=1e-12)  # no shear, no mirror
    assert ZOOM[0] <= factor.min() < 0.71
    assert 1.29 < factor.max() <= ZOOM[1]
    np.testing.assert_allclose(np.median(np.log(factor)), np.mean(np.log(ZOOM)), atol=0.03)
    assert 0.99 * TURN < np.abs(angle).max() <= TURN
    nearly_upright = (np.abs(angle) < TURN / 4).mean()
    np.testing.assert_allclose(nearly_upright, 0.5 + 0.5 / 4, atol=0.04)
    centre = warps[:, :, :2] @ np.array([130.0, 100.0]) + warps[:, :, 2] - (CROP - 1) / 2
    centre = np.einsum("nji,nj->ni", warps[:, :, :2], centre) / factor[:, None]  # turned back
    moved = np.abs(centre).max(axis=1)
    near = moved <= JITTER * CROP + 1e-9
    assert moved[near].max() > 0.98 * JITTER * CROP
    assert 0.5 * ELSEWHERE < (~near).mean() < 1.3 * ELSEWHERE, "the others are elsewhere"


def test_a_mirror_turns_right_into_left(rng: np.random.Generator) -> None:
    """A row of three dots, left to right, stands the other way round; the rest of the warp is drawn as without."""
    seeds = rng.integers(1 << 30, size=50)
    plain = [random_warp(ANIMAL, SIZE, CROP, 0.3, ZOOM, np.random.default_rng(s)) for s in seeds]
    mirrored = [random_warp(ANIMAL, SIZE, CROP, 0.3, ZOOM, np.random.default_rng(s), mirrored=True) for s in seeds]
    for one, other in zip(plain, mirrored, strict=True):
        assert np.linalg.det(one[:, :2]) == pytest.approx(-np.linalg.det(other[:, :2]))
        assert one[0, 0] > 0 > other[0, 0]
        np.testing.assert_allclose(other[:, :2] @ [-1, 1], one[:, :2] @ [1, 1])
        middle = np.linalg.solve(one[:, :2], (CROP - 1) / 2 - one[:, 2])
        np.testing.assert_allclose(other[:, :2] @ middle + other[:, 2], (CROP - 1) / 2)


def test_each_animal_has_its_turn(rng: np.random.Generator) -> None:
    two = np.array([[[30.0, 40.0]], [[220.0, 150.0]]])
    seen = [
        np.isfinite(warp_points(two, random_warp(two, SIZE, 64, 0.5, (1, 1), rng), 64)[:, 0, 0]) for _ in range(400)
    ]
    assert np.all(np.abs(np.mean(seen, axis=0) - 0.5 * (1 - ELSEWHERE)) < 0.1)


def test_the_same_rng_gives_the_same_warp_and_light() -> None:
    pairs = [np.random.default_rng(s) for s in (7, 7, 8)]
    warps = [random_warp(ANIMAL, SIZE, CROP, TURN, ZOOM, rng) for rng in pairs]
    np.testing.assert_array_equal(warps[0], warps[1])
    assert not np.array_equal(warps[0], warps[2])
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    light = [lit(image, rng) for rng in pairs]
    np.testing.assert_array_equal(light[0], light[1])
    assert not np.array_equal(light[0], light[2])


def test_light_keeps_order_and_range(rng: np.random.Generator) -> None:
    image = np.arange(256, dtype=np.uint8)
    for _ in range(100):
        shown = lit(image, rng)
        assert shown.dtype == np.float32
        assert (np.diff(shown) >= 0).all()
        assert -1 <= shown[0] < shown[-1] <= 1


def test_what_leaves_the_crop_is_unknown() -> None:
    shift = np.array([[1.0, 0, -10], [0, 1, -20]])
    points = np.array([[[10.0, 20.0], [9.4, 50], [9.6, 50], [41.4, 51.4], [41.6, 30], [np.nan, np.nan]]])
    moved = warp_points(points, shift, 32)
    expected = np.array([[[0.0, 0], [np.nan] * 2, [-0.4, 30], [31.4, 31.4], [np.nan] * 2, [np.nan] * 2]])
    np.testing.assert_allclose(moved, expected, atol=1e-12)


@pytest.mark.parametrize("points", [np.full((2, 3, 2), np.nan), np.zeros((0, 3, 2))])
def test_frames_without_animals(points: np.ndarray, rng: np.random.Generator) -> None:
    """Their crops lie anywhere in the picture."""
    warps = np.array([random_warp(points, SIZE, CROP, 0.0, (1, 1), rng) for _ in range(300)])
    centre = (CROP - 1) / 2 - warps[:, :, 2]
    assert (centre >= 0).all()
    assert (centre <= SIZE).all()
    assert (np.ptp(centre, axis=0) > 0.9 * np.array(SIZE)).all()
    assert warp_points(points, warps[0], CROP).shape == points.shape


def test_what_is_pasted_hides_what_is_behind() -> None:
    """A white square of an animal before a black crop: its points are there, those of the other behind it are not."""
    crop, other = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)
    points = np.array([[[30.0, 30.0], [5.0, 5.0], [np.nan, np.nan]]])
    square = np.array([[[20.0, 20.0], [40.0, 20.0], [40.0, 40.0]], [[25.0, 22.0], [60.0, 60.0], [np.nan, np.nan]]])
    image, both = pasted(crop, points, other, square, 0)
    assert both.shape == (3, 3, 2)
    np.testing.assert_array_equal(both[0], [[np.nan] * 2, [5, 5], [np.nan] * 2])
    np.testing.assert_array_equal(both[1], square[0])
    np.testing.assert_array_equal(both[2], [[25, 22], [np.nan] * 2, [np.nan] * 2], "what is on it comes with it")
    assert (image[25, 35] == 255).all()
    assert (image[60, 60] == 0).all()
    assert (image[3, 3] == 0).all()
    few = square.copy()
    few[0, 1:] = np.nan
    image, both = pasted(crop, points, other, few, 0)
    np.testing.assert_array_equal(image, crop)
    np.testing.assert_array_equal(both[0], points[0])
    assert np.isnan(both[1:]).all()


def test_a_movement_blurs_along_one_line_and_keeps_the_light(rng: np.random.Generator) -> None:
    dot = np.zeros((33, 33, 3), np.uint8)
    dot[16, 16] = 240
    for _ in range(20):
        found = blurred(dot, rng).astype(float)
        y, x = np.mgrid[:33, :33]
        weight = found[..., 0] / found[..., 0].sum()
        assert found[..., 0].sum() == pytest.approx(240, rel=0.1)
        assert (weight * x).sum() == pytest.approx(16, abs=0.35)
        assert (weight * y).sum() == pytest.approx(16, abs=0.35)
        spread = np.linalg.eigvalsh(np.cov(np.stack([x.ravel(), y.ravel()]), aweights=weight.ravel(), bias=True))
        assert spread[0] < 0.5, "across"
        assert spread[1] < (BLUR_PX**2) / 12 + 1, "along: a line of BLUR_PX at most"


def test_noise_and_covers_stay_in_range(rng: np.random.Generator) -> None:
    grey = np.zeros((64, 64, 3), np.float32)
    sds = [noisy(grey, rng).std() for _ in range(50)]
    assert max(sds) < 2 * NOISE * 1.02
    assert max(sds) > 1.5 * NOISE
    crop = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    before = crop.copy()
    changed = [(covered(crop, rng) != before).any(axis=-1).mean() for _ in range(50)]
    np.testing.assert_array_equal(crop, before)
    assert 0 < np.mean(changed) < COVERS * np.pi * COVER[1] ** 2
