from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from numpy.typing import NDArray
from scipy.ndimage import label, maximum_filter

from pose3d.nn.peaks import find_peaks, score_limbs

Array = NDArray[Any]

SIGMA = 1.5


def drawn(points: Array, shape: tuple[int, int], *, sigma: float = SIGMA) -> tuple[Array, Array]:
    """heat (K, h, w) and offsets (K, 2, h, w) to the nearest keypoint, of points (K, animals, 2) in cells."""
    x, y = np.meshgrid(np.arange(shape[1]), np.arange(shape[0]))
    to = points[..., None, None] - np.stack((x, y))
    squared = (to**2).sum(axis=2)
    nearest = squared.argmin(axis=1)[:, None]
    offset = np.take_along_axis(to, nearest[:, :, None], axis=1)[:, 0]
    heat = np.exp(-np.take_along_axis(squared, nearest, axis=1)[:, 0] / (2 * sigma**2))
    return heat.astype(np.float32), offset.astype(np.float32)


def spread_points(rng: np.random.Generator, kinds: int, shape: tuple[int, int]) -> Array:
    """(kinds, 6, 2) points, one in each of 3x2 parts of the map, at least 6 cells apart."""
    part = np.array([shape[1] / 3, shape[0] / 2])
    corner = np.array([(c, r) for r in range(2) for c in range(3)]) * part
    return np.asarray(corner + rng.uniform(3, part - 4, (kinds, 6, 2)))


def by_place(points: Array) -> Array:
    return points[np.lexsort(points.T)]


@pytest.mark.parametrize("offsets", [True, False])
def test_exact_maps_give_exact_places(rng: np.random.Generator, offsets: bool) -> None:
    points = spread_points(rng, 5, (40, 61))
    heat, offset = drawn(points, (40, 61))
    keypoint, cell, score = find_peaks(heat, offset if offsets else None, 0.3, 20)
    assert keypoint.dtype == np.int32
    assert cell.dtype == score.dtype == np.float64
    assert keypoint.tolist() == np.repeat(np.arange(5), 6).tolist()
    for k in range(5):
        np.testing.assert_allclose(by_place(cell[keypoint == k]), by_place(points[k]), atol=2e-4)
        assert (np.diff(score[keypoint == k]) <= 0).all()
    np.testing.assert_allclose(score, [heat[k, round(y), round(x)] for k, (x, y) in zip(keypoint, cell, strict=True)])


def test_votes_place_a_peak_that_is_no_gaussian(rng: np.random.Generator) -> None:
    """A heat that leans to one side moves the parabola, not the votes; their noise is averaged over the neighbours."""
    points = spread_points(rng, 20, (40, 61))
    heat, offset = drawn(points, (40, 61))
    leaning = heat * np.exp(0.8 * np.clip(offset[:, 0], -2, 2) - 1.6).astype(np.float32)
    noisy = offset + rng.normal(0, 0.1, offset.shape).astype(np.float32)
    errors = {}
    for what, votes in (("votes", noisy), ("parabola", None)):
        keypoint, cell, _ = find_peaks(leaning, votes, 0.05, 20)
        apart = np.linalg.norm(cell[:, None] - points[keypoint], axis=-1).min(axis=1)
        errors[what] = np.sqrt((apart**2).mean() / 2)
    assert errors["votes"] < 0.6 * 0.1, "of one coordinate; one vote alone has 0.1"
    assert errors["parabola"] > 0.5


def test_a_neighbour_that_votes_for_another_keypoint_is_not_heard() -> None:
    heat = np.zeros((1, 9, 12), np.float32)
    offset = np.zeros((1, 2, 9, 12), np.float32)
    heat[0, 4, 4], heat[0, 4, 5], heat[0, 4, 3], heat[0, 3, 4] = 1.0, 0.8, 0.6, 0.4
    offset[0, 0, 4, 3:6] = 1.2, 0.2, 2.0
    offset[0, 0, 3, 4] = 0.9
    _, cell, _ = find_peaks(heat, offset, 0.5, 5)
    np.testing.assert_allclose(cell, [[4.2, 4.0]], atol=1e-6)
    offset[0, 0, 4, 5] = -0.4
    _, cell, _ = find_peaks(heat, offset, 0.5, 5)
    np.testing.assert_allclose(cell[0, 0], (1.0 * 4.2 + 0.8 * 4.6 + 0.6 * 4.2) / 2.4, rtol=1e-6)


def reference_maxima(heat: Array, threshold: float) -> set[tuple[int, int, int]]:
    """First cell (k, y, x) of every plateau that reaches the threshold and is nowhere beside something higher."""
    cells = set()
    for k, level in enumerate(heat):
        for value in np.unique(level[level >= threshold]):
            parts, count = label(level == value, structure=np.ones((3, 3)))
            for part in range(1, count + 1):
                inside = parts == part
                if maximum_filter(inside * 1.0, 3)[level > value].any():
                    continue
                y, x = np.argwhere(inside)[0]
                cells.add((k, int(y), int(x)))
    return cells


@settings(deadline=None, max_examples=60)
@given(
    nps.arrays(np.float32, st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 9)),
               elements=st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0])),
    st.sampled_from([0.1, 0.5, 0.6]),
)  # fmt: skip
def test_every_plateau_is_one_peak(heat: Array, threshold: float) -> None:
    """Offsets that point away from each other keep the peaks apart."""
    _, height, width = heat.shape
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    offset = np.broadcast_to(9.0 * np.stack((x, y)), (len(heat), 2, height, width)).astype(np.float32)
    keypoint, cell, score = find_peaks(heat, offset, threshold, 100)
    rows = np.round(cell / 10).astype(int)
    found = {(int(k), int(y), int(x)) for k, (x, y) in zip(keypoint, rows, strict=True)}
    assert found == reference_maxima(heat, threshold)
    assert len(found) == len(keypoint)
    np.testing.assert_array_equal(score, heat[keypoint, rows[:, 1], rows[:, 0]])


def test_peaks_that_lie_in_one_place_are_one() -> None:
    heat = np.zeros((2, 7, 9), np.float32)
    heat[0, 3, 2], heat[0, 3, 6] = 0.9, 0.8
    offset = np.zeros((2, 2, 7, 9), np.float32)
    offset[0, 0, 3, 2], offset[0, 0, 3, 6] = 2.0, -1.9
    keypoint, cell, score = find_peaks(heat, offset, 0.5, 5)
    assert keypoint.tolist() == [0]
    np.testing.assert_allclose(cell, [[4.0, 3.0]])
    np.testing.assert_allclose(score, [0.9])
    offset[0, 0, 3, 6] = -0.5
    assert len(find_peaks(heat, offset, 0.5, 5)[0]) == 2


def test_the_best_are_kept_and_the_weak_are_not(rng: np.random.Generator) -> None:
    heat = rng.uniform(0, 1, (3, 33, 47)).astype(np.float32)
    keypoint, cell, score = find_peaks(heat, None, 0.7, 1000)
    assert score.min() >= 0.7
    few = find_peaks(heat, None, 0.7, 4)
    assert few[0].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    for k in range(3):
        np.testing.assert_array_equal(few[1][few[0] == k], cell[keypoint == k][:4])
        np.testing.assert_array_equal(few[2][few[0] == k], score[keypoint == k][:4])
    assert len(find_peaks(heat, None, 1.5, 4)[0]) == 0


def test_a_gaussian_between_two_cells_and_at_the_border() -> None:
    heat, _ = drawn(np.array([[[3.5, 2.0]], [[0.0, 6.0]]]), (7, 9))
    keypoint, cell, _ = find_peaks(heat, None, 0.3, 5)
    assert keypoint.tolist() == [0, 1]
    np.testing.assert_allclose(cell, [[3.5, 2.0], [0.0, 6.0]], atol=1e-5)


def field(limbs: Array, shape: tuple[int, int], *, band: float = 1.5) -> Array:
    """(1, 2, h, w) mean of the unit vectors along limbs (n, 2, 2) in cells."""
    x, y = np.meshgrid(np.arange(shape[1]), np.arange(shape[0]))
    total, count = np.zeros((2, *shape)), np.zeros(shape)
    for start, end in limbs:
        length = np.linalg.norm(end - start)
        unit = (end - start) / length
        run = (x - start[0]) * unit[0] + (y - start[1]) * unit[1]
        off = np.abs((x - start[0]) * unit[1] - (y - start[1]) * unit[0])
        on = (off <= band) & (run >= -band) & (run <= length + band)
        total += np.where(on, unit[:, None, None], 0.0)
        count += on
    return (total / np.maximum(count, 1))[None].astype(np.float32)


ONE_LIMB = np.array([[0, 1]], np.int32)


def joined(paf: Array, starts: Array, ends: Array, minimum: float = 0.2) -> dict[tuple[int, int], float]:
    """Score of each pair (start, end)."""
    keypoint = np.repeat([0, 1], [len(starts), len(ends)]).astype(np.int32)
    a, b, edge, score = score_limbs(paf, ONE_LIMB, keypoint, np.concatenate((starts, ends)), minimum)
    assert (edge == 0).all()
    return {(int(i), int(j) - len(starts)): float(s) for i, j, s in zip(a, b, score, strict=True)}


def test_a_limb_joins_its_own_ends_only(rng: np.random.Generator) -> None:
    limbs = np.array([[[5.3, 5.1], [20.2, 9.4]], [[6.0, 30.0], [18.0, 22.5]], [[30.4, 8.0], [31.2, 25.0]]])
    scores = joined(field(limbs, (40, 40)), limbs[:, 0], limbs[:, 1])
    np.testing.assert_allclose([scores.pop((i, i)) for i in range(3)], 1.0, atol=1e-6)
    assert all(s < 0.5 for s in scores.values()), "lines that run along somebody's limb for a while"
    backwards = joined(field(limbs, (40, 40)), limbs[:, 1], limbs[:, 0])
    assert not backwards


def test_limbs_that_cross_keep_most_of_their_score() -> None:
    limbs = np.array([[[5.0, 5.0], [25.0, 25.0]], [[5.0, 25.0], [25.0, 5.0]]])
    scores = joined(field(limbs, (31, 31)), limbs[:, 0], limbs[:, 1])
    assert scores.keys() == {(0, 0), (1, 1)}
    assert all(0.8 < s < 0.99 for s in scores.values()), "the mean of both fields where they cross"


def reference_score(paf: Array, start: Array, end: Array) -> float:
    """Mean of the nearest cells' field along the line, or its length where there is no direction."""
    apart = end - start
    length = np.hypot(*apart)
    samples = int(np.clip(int(length) + 1, 3, 10))
    places = start + (np.arange(samples)[:, None] + 0.5) / samples * apart
    x, y = np.clip(np.floor(places + 0.5).astype(int), 0, np.array(paf.shape[:1:-1]) - 1).T
    mean = paf[:, y, x].mean(axis=1)
    return float(np.hypot(*mean)) if length < 1 else float(mean @ apart / length)


def test_scores_are_the_plain_mean_along_the_line(rng: np.random.Generator) -> None:
    limbs = np.array([[0, 2], [1, 0]], np.int32)
    smooth = (
        field(rng.uniform(0, 29, (5, 2, 2)), (30, 31), band=6.0)[0],
        field(rng.uniform(0, 29, (5, 2, 2)), (30, 31))[0],
    )
    paf = np.stack(smooth)
    keypoint = np.repeat([0, 1, 2], [15, 20, 25]).astype(np.int32)
    cell = rng.uniform(-0.4, 29.4, (60, 2))
    cell[40:44] = cell[:4] + rng.uniform(-0.5, 0.5, (4, 2))
    minimum = 0.3
    a, b, edge, score = score_limbs(paf, limbs, keypoint, cell, minimum)
    assert (score >= minimum).all()
    assert (score <= 1.0).all()
    np.testing.assert_array_equal(keypoint[a], limbs[edge, 0])
    np.testing.assert_array_equal(keypoint[b], limbs[edge, 1])
    truth = [reference_score(paf[e], cell[i], cell[j]) for i, j, e in zip(a, b, edge, strict=True)]
    np.testing.assert_allclose(score, np.minimum(truth, 1.0), atol=1e-6)
    all_pairs = [(i, j, e) for e, (p, q) in enumerate(limbs) for i in np.flatnonzero(keypoint == p)
                 for j in np.flatnonzero(keypoint == q)]  # fmt: skip
    strong = {p for p in all_pairs if reference_score(paf[p[2]], cell[p[0]], cell[p[1]]) > 0.8}
    assert len(strong) > 10
    got = set(zip(a.tolist(), b.tolist(), edge.tolist(), strict=True))
    assert len({p for p in strong if p in got}) >= 0.98 * len(strong), (
        "only ends that point elsewhere are left out early"
    )


def test_ends_in_one_place_have_no_direction() -> None:
    limbs = np.array([[[5.0, 5.0], [5.5, 5.2]]])
    assert joined(field(limbs, (12, 12)), limbs[:, 0], limbs[:, 1])[0, 0] == pytest.approx(1.0)
    assert joined(field(limbs, (12, 12)), limbs[:, 1], limbs[:, 0])[0, 0] == pytest.approx(1.0), (
        "which is which is noise"
    )
    assert joined(np.zeros((1, 2, 12, 12), np.float32), limbs[:, 0], limbs[:, 1]) == {}


def test_nothing_gives_nothing() -> None:
    paf = np.zeros((1, 2, 8, 8), np.float32)
    none = np.zeros(0, np.int32), np.zeros((0, 2))
    assert [len(c) for c in score_limbs(paf, ONE_LIMB, *none)] == [0, 0, 0, 0]
    assert [len(c) for c in score_limbs(paf[:0], ONE_LIMB[:0], np.zeros(1, np.int32), np.zeros((1, 2)))] == [0, 0, 0, 0]
    lonely = score_limbs(paf, ONE_LIMB, np.ones(3, np.int32), np.zeros((3, 2)))
    assert [len(c) for c in lonely] == [0, 0, 0, 0]
    assert [len(c) for c in find_peaks(np.zeros((2, 8, 8), np.float32), None, 0.1, 3)] == [0, 0, 0]
