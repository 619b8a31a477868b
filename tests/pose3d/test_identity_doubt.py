"""Doubt about identities: the formula keypoint by keypoint, moments and their cost, what they mean for other frames."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.errors import InputError
from pose3d.identity import IdentityOptions, identify
from pose3d.identity_doubt import Swap, exchange_probability, identity_confidence, suspected_swaps, swapped
from pose3d.poses import Groups
from pose3d.scenes import simulate_scene

KEYPOINTS = 6


def _predicted(rng: np.random.Generator, T: int) -> tuple[np.ndarray, np.ndarray]:
    mean = rng.normal(0.0, 2.0, (T, KEYPOINTS, 6))
    half = rng.normal(0.0, 1.0, (T, KEYPOINTS, 6, 6))
    return mean, half @ half.swapaxes(-1, -2)


def _plain(mean: np.ndarray, variance: np.ndarray, points: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Probabilities (T, T) by loops."""
    T = len(mean)
    out = np.zeros((T, T))
    for i in range(T):
        for j in range(T):
            pairs = [(i, i, j)]
            both = not np.isnan(points[j]).all()
            if both:
                pairs.append((j, j, i))
            differences = []
            for own, p, other in pairs:
                for k in range(KEYPOINTS):
                    if np.isnan(points[p, k]).any():
                        continue
                    costs = []
                    for t in (own, other):
                        v = variance[t, k] + spread[p, k]
                        costs.append(min(((points[p, k] - mean[t, k]) ** 2).sum() / v, 27.0) + 3 * np.log(v))
                    differences.append(costs[1] - costs[0])
            if i != j and not np.isnan(points[i]).all() and len(differences) >= 3:
                ratio = 0.5 * 3.0 * np.mean(differences) * (2 if both else 1)
                out[i, j] = 1 / (1 + np.exp(np.clip(ratio, -50, 50)))
    return out


def test_probability_of_an_exchange_is_that_of_the_two_assignments() -> None:
    rng = np.random.default_rng(0)
    mean, covariance = _predicted(rng, 5)
    points = mean[..., :3] + rng.normal(0.0, 1.0, (5, KEYPOINTS, 3))
    points[1, 3:] = np.nan
    points[4] = np.nan
    half = rng.normal(0.0, 0.3, (5, KEYPOINTS, 3, 3))
    spread = half @ half.swapaxes(-1, -2)
    expected = _plain(
        mean[..., :3],
        np.trace(covariance[..., :3, :3], axis1=-2, axis2=-1) / 3,
        points,
        np.trace(spread, axis1=-2, axis2=-1) / 3,
    )
    p, rival = exchange_probability(mean, covariance, points, spread, np.ones(5, dtype=bool))
    np.testing.assert_allclose(p, expected.max(axis=1), atol=1e-12)
    np.testing.assert_array_equal(rival[:4], expected.argmax(axis=1)[:4])
    assert rival[4] == -1
    unknown, none = exchange_probability(mean, covariance, points, spread, np.zeros(5, dtype=bool))
    assert (unknown == 0).all()
    assert (none == -1).all()


def test_exchanged_measurements_are_found_and_equal_ones_are_even() -> None:
    mean = np.zeros((2, KEYPOINTS, 6))
    mean[1, :, 0] = 10.0
    covariance, spread = np.tile(np.eye(6), (2, KEYPOINTS, 1, 1)), np.tile(np.eye(3), (2, KEYPOINTS, 1, 1))
    known = np.ones(2, dtype=bool)
    assert (exchange_probability(mean, covariance, mean[..., :3], spread, known)[0] < 1e-6).all()
    assert (exchange_probability(mean, covariance, mean[::-1, :, :3], spread, known)[0] > 1 - 1e-6).all()
    middle = np.full((2, KEYPOINTS, 3), 0.0)
    middle[..., 0] = 5.0
    np.testing.assert_allclose(exchange_probability(mean, covariance, middle, spread, known)[0], 0.5)


def test_nobody_and_one_alone_are_never_doubtful() -> None:
    for T in (0, 1):
        mean, covariance = _predicted(np.random.default_rng(T), T)
        spread = np.ones((T, KEYPOINTS, 3, 3))
        p, rival = exchange_probability(mean, covariance, mean[..., :3], spread, np.ones(T, dtype=bool))
        assert p.shape == rival.shape == (T,)
        assert not p.any()


def _groups(n: int = 100, individuals: int = 3) -> Groups:
    slots = np.tile(np.arange(individuals)[:, None], (n, 1, 2))
    return Groups(("a", "b"), slots, np.tile(np.arange(individuals), (n, 1)))


def _doubt(groups: Groups, row: int, a: int, b: int, p: float) -> None:
    groups.doubt[row, [a, b]] = p
    groups.rival[row, [a, b]] = [b, a]


def test_moments_are_ranked_by_what_they_would_cost() -> None:
    groups = _groups()
    for row, p in ((10, 0.2), (13, 0.6), (16, 0.1)):
        _doubt(groups, row, 0, 1, p)
    _doubt(groups, 50, 2, 1, 0.5)
    _doubt(groups, 97, 0, 2, 0.9)
    _doubt(groups, 30, 0, 2, 0.001)
    expected = [Swap(50, 1, 2, 0.5, 50.0), Swap(13, 0, 1, 0.6, 0.6 * 26), Swap(97, 0, 2, 0.9, 0.9 * 6)]
    for windows in ([groups], [groups.window(0, 12), groups.window(12, 51), groups.window(51, 100)]):
        swaps = suspected_swaps(windows)
        assert [(s.row, s.first, s.second) for s in swaps] == [(s.row, s.first, s.second) for s in expected]
        np.testing.assert_allclose(
            [(s.probability, s.cost) for s in swaps], [(s.probability, s.cost) for s in expected]
        )
    assert suspected_swaps([_groups()]) == []


def test_confidence_falls_away_from_where_most_frames_are() -> None:
    groups = _groups()
    groups.ids[:5, 2] = -1
    _doubt(groups, 20, 0, 1, 0.25)
    _doubt(groups, 60, 0, 1, 0.5)
    confidence = identity_confidence(groups)
    np.testing.assert_allclose(confidence[:, 0], np.repeat([0.75, 1.0, 0.5], [20, 40, 40]))
    np.testing.assert_array_equal(confidence[:, 0], confidence[:, 1])
    assert np.isnan(confidence[:5, 2]).all()
    assert (confidence[5:, 2] == 1).all()


def test_corrections_exchange_all_views_from_there_on() -> None:
    groups = _groups()
    groups.confidence[:] = [0.1, 0.2, 0.3]
    _doubt(groups, 40, 0, 1, 0.9)
    _doubt(groups, 70, 0, 2, 0.5)
    swaps = [Swap(80, 1, 2), Swap(40, 0, 1)]
    after = swapped(groups, swaps)
    order = [[0, 1, 2]] * 40 + [[1, 0, 2]] * 40 + [[1, 2, 0]] * 20
    np.testing.assert_array_equal(after.slots[:, :, 1], order)
    np.testing.assert_array_equal(after.slots[:, :, 0], order)
    np.testing.assert_allclose(after.confidence[99], [0.2, 0.3, 0.1])
    np.testing.assert_array_equal(after.ids, groups.ids)
    assert [(s.row, s.first, s.second) for s in suspected_swaps([after])] == [(70, 1, 2)]
    parts = [swapped(groups.window(a, b), [Swap(s.row - a, s.first, s.second) for s in swaps])
             for a, b in ((0, 38), (38, 42), (42, 100))]  # fmt: skip
    joined = Groups.joined(parts)
    for name in ("slots", "ids", "confidence", "doubt", "rival"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(after, name))
    for a, b in ((0, 3), (-1, 0), (1, 1)):
        with pytest.raises(InputError, match=f"individuals {a} and {b}: expected two of 0 to 2"):
            swapped(groups, [Swap(1, a, b)])


def test_animals_that_keep_apart_are_beyond_doubt_and_a_number_is_kept() -> None:
    scene = simulate_scene("few", 0)
    views = {name: poses.window(0, 150) for name, poses in scene.seen.views.items()}
    groups = identify(views, scene.rig, IdentityOptions())
    assert groups.doubt.max() < 0.01
    assert (identity_confidence(groups)[groups.ids >= 0] > 0.99).all()
