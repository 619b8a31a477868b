"""Which pairs of keypoints get a part affinity field, and how long are they? More than a tree: a missing joint must not
cut an animal."""

from __future__ import annotations

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from pose3d.skeleton import Skeleton

__all__ = ["choose_limbs", "limb_lengths"]

NEIGHBOURS = 2
_SD = 1.4826
"""SD of a Gaussian, in median absolute deviations."""


def choose_limbs(points: NDArray[np.float64], skeleton: Skeleton) -> tuple[tuple[int, int], ...]:
    """Pairs (a, b), a < b, ascending: the skeleton's edges, the shortest spanning tree of the labelled animals and each
    keypoint's nearest neighbours, by the median of the labelled distances.

    points: (frames, individuals, keypoints, 2) px, NaN where not labelled. Short limbs are easier to see and cross
    fewer others. A keypoint that was never labelled has only the skeleton's edges.
    """
    n = len(skeleton)
    apart = np.full((n, n), np.inf)
    for a in range(n):
        for b in range(a + 1, n):
            d = np.linalg.norm(points[:, :, a] - points[:, :, b], axis=-1)
            if np.isfinite(d).any():
                apart[a, b] = apart[b, a] = np.nanmedian(d)
    graph: nx.Graph[int] = nx.Graph()
    graph.add_weighted_edges_from((a, b, apart[a, b]) for a in range(n) for b in range(a) if np.isfinite(apart[a, b]))
    pairs = {(min(e), max(e)) for e in (*skeleton.edges, *nx.minimum_spanning_edges(graph, data=False))}
    for a in range(n):
        near = [b for b in np.argsort(apart[a], kind="stable")[:NEIGHBOURS] if np.isfinite(apart[a, b])]
        pairs |= {(min(a, int(b)), max(a, int(b))) for b in near}
    return tuple(sorted((int(a), int(b)) for a, b in pairs))


def limb_lengths(points: NDArray[np.float64], limbs: tuple[tuple[int, int], ...]) -> NDArray[np.float64]:
    """(L, 2) median length of each limb in the labels, px, and the robust SD of its logarithm; NaN if never labelled.

    points: as for `choose_limbs`.
    """
    known = np.full((len(limbs), 2), np.nan)
    for row, (a, b) in enumerate(limbs):
        lengths = np.linalg.norm(points[:, :, a] - points[:, :, b], axis=-1)
        lengths = np.log(lengths[lengths > 0])
        if len(lengths):
            middle = np.median(lengths)
            known[row] = np.exp(middle), _SD * np.median(np.abs(lengths - middle))
    return known
