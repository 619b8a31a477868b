"""Limbs hold an animal together although a joint is missing."""

from __future__ import annotations

from itertools import combinations

import networkx as nx
import numpy as np
import pytest

from pose3d.nn.limbs import choose_limbs, limb_lengths
from pose3d.skeleton import Skeleton

ALONG = Skeleton(tuple("abcdef"), edges=((5, 0),))


def animals(rng: np.random.Generator, n: int = 6) -> np.ndarray:
    """(30, 2, n, 2): keypoints along a line, 10 px apart, each animal turned and moved."""
    angle = rng.uniform(0, 2 * np.pi, (30, 2, 1))
    along = 10.0 * np.arange(n) + rng.normal(0, 0.5, (30, 2, n))
    return np.stack([along * np.cos(angle), along * np.sin(angle)], axis=-1) + rng.uniform(0, 500, (30, 2, 1, 2))


def test_edges_tree_and_neighbours(rng: np.random.Generator) -> None:
    limbs = choose_limbs(animals(rng), ALONG)
    along = {(k, k + 1) for k in range(5)}
    assert set(limbs) == along | {(0, 2), (3, 5)} | {(0, 5)}, "the two nearest of the ends are on one side"
    assert list(limbs) == sorted(limbs)
    assert limbs == choose_limbs(animals(np.random.default_rng(20260101)), ALONG)


@pytest.mark.parametrize("n", [2, 3, 7, 12])
def test_whole_and_at_least_two_partners(rng: np.random.Generator, n: int) -> None:
    points = rng.uniform(0, 300, (1, 1, n, 2)) + rng.normal(0, 3, (20, 2, n, 2))
    points[rng.uniform(size=points.shape[:3]) < 0.3] = np.nan
    limbs = choose_limbs(points, Skeleton(tuple(str(k) for k in range(n))))
    graph: nx.Graph[int] = nx.Graph(limbs)
    assert set(graph) == set(range(n))
    assert nx.is_connected(graph)
    assert min(degree for _, degree in graph.degree) >= min(2, n - 1)
    median = {
        (a, b): np.nanmedian(np.linalg.norm(points[:, :, a] - points[:, :, b], axis=-1))
        for a, b in combinations(range(n), 2)
    }
    tree = nx.minimum_spanning_tree(nx.Graph((a, b, {"weight": d}) for (a, b), d in median.items()))
    assert {(min(e), max(e)) for e in tree.edges} <= set(limbs)


def test_keypoints_never_seen_together_or_at_all(rng: np.random.Generator) -> None:
    points = animals(rng)
    points[:, :, 3] = np.nan
    assert not any(3 in limb for limb in choose_limbs(points, ALONG))
    assert (2, 3) in choose_limbs(points, Skeleton(ALONG.keypoints, edges=((3, 2),)))
    points[:15, :, :3] = np.nan
    points[15:, :, 4:] = np.nan
    assert choose_limbs(points, Skeleton(ALONG.keypoints)) == ((0, 1), (0, 2), (1, 2), (4, 5))
    assert choose_limbs(animals(rng, 1), Skeleton(("a",))) == ()


def test_lengths_of_limbs(rng: np.random.Generator) -> None:
    """A tenth of the labels is far off, which neither the median nor the SD minds much."""
    points = np.zeros((2000, 2, 4, 2))
    points[:, :, 1, 0] = 30.0 * np.exp(rng.normal(0, 0.2, (2000, 2)))
    points[rng.uniform(size=(2000, 2)) < 0.05, 1] *= 50
    points[:, :, 2, 1] = 7.0
    points[rng.uniform(size=(2000, 2)) < 0.5, 2] = np.nan
    points[:, :, 3] = np.nan
    lengths = limb_lengths(points, ((0, 1), (0, 2), (0, 3)))
    np.testing.assert_allclose(lengths[0], (30.0, 0.2), rtol=0.08)
    np.testing.assert_allclose(lengths[1], (7.0, 0.0))
    assert np.isnan(lengths[2]).all()
