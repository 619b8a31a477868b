"""Where do cameras stand by all their pairwise poses? The wrong ones outvoted, the others averaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calibration.transforms import compose, exp_so3, invert, log_so3

if TYPE_CHECKING:
    import networkx

__all__ = ["average_poses"]

Array = NDArray[np.float64]
Index = NDArray[np.intp]
UNSUPPORTED = 0.01
"""Of its weight counts a pairwise pose that all triangles contradict: it is used where there is no other way."""
TRIANGLE_RAD = 0.4
"""Three pairwise poses that turn a camera by more than this against itself contradict each other."""
OFF_RAD, OFF_SHARE = 0.05, 0.05
"""A pairwise pose this far from the average, rad and share of the cameras' median distance, counts a quarter."""
MAX_ROUNDS, CONVERGED = 30, 1e-9


def average_poses(graph: networkx.Graph, names: list[str]) -> dict[str, tuple[Array, Array]]:
    """cam_from_world (R (3, 3), t (3,)) of every camera of a connected graph, the first one's frame being the world.

    graph: cameras; an edge holds the pose b_from_a of two of them as R, t, their first (a), and its weight > 0.

    Pairwise poses are first weighed by what the triangles around them say, so that one that is wrong does not come into
    the maximum spanning tree. From there all are averaged by iteratively reweighted least squares with Geman and
    McClure's loss, rotations, then centres (Hartley et al. 2013; Chatterjee & Govindu 2018).
    """
    import networkx as nx

    graph = _weighed_by_triangles(graph)
    poses = {names[0]: (np.eye(3), np.zeros(3))}
    tree = nx.maximum_spanning_tree(graph, weight="weight")
    for known, new in nx.bfs_edges(tree, names[0]):
        poses[new] = compose(*_pairwise(graph, known, new), *poses[known])
    if not graph.edges:
        return poses
    i, j = np.array([(names.index(a), names.index(b)) for a, b in graph.edges], dtype=np.intp).T
    pair_R, pair_t = (np.array([_pairwise(graph, a, b)[k] for a, b in graph.edges]) for k in range(2))
    weight = np.array([edge["weight"] for _, _, edge in graph.edges(data=True)])
    R, t = (np.array([poses[name][k] for name in names]) for k in range(2))
    R = _averaged_rotations(R, i, j, pair_R, weight)
    off = np.linalg.norm(log_so3(pair_R @ R[i] @ np.swapaxes(R[j], -1, -2)), axis=-1)
    between = -np.einsum("eyx,ey->ex", R[j], pair_t)
    centers = _averaged_centers(-np.einsum("nyx,ny->nx", R, t), i, j, between, weight * _trust(off, OFF_RAD))
    return {name: (R[k], -R[k] @ centers[k]) for k, name in enumerate(names)}


def _pairwise(graph: networkx.Graph, a: str, b: str) -> tuple[Array, Array]:
    """b_from_a."""
    edge = graph.edges[a, b]
    return (edge["R"], edge["t"]) if edge["first"] == a else invert(edge["R"], edge["t"])


def _weighed_by_triangles(graph: networkx.Graph) -> networkx.Graph:
    """The same graph, each weight times the share of the edge's triangles, by their weaker side, that agree with it."""
    names = list(graph)
    R, weight = np.zeros((len(names), len(names), 3, 3)), np.zeros((len(names), len(names)))  # [a, b]: b_from_a
    for a, b in graph.edges:
        i, j = names.index(a), names.index(b)
        R[i, j] = _pairwise(graph, a, b)[0]
        R[j, i], weight[i, j] = R[i, j].T, graph.edges[a, b]["weight"]
        weight[j, i] = weight[i, j]
    weighed = graph.copy()
    for a, b in graph.edges:
        i, j = names.index(a), names.index(b)
        around = R[:, j] @ R[i]  # by way of each camera
        angle = np.arccos(np.clip((np.einsum("cxy,xy->c", around, R[i, j]) - 1.0) / 2.0, -1.0, 1.0))
        by_way = np.minimum(weight[i], weight[:, j])
        share = by_way @ np.maximum(0.0, 1.0 - (angle / TRIANGLE_RAD) ** 2) / max(by_way.sum(), 1e-300)
        weighed.edges[a, b]["weight"] *= UNSUPPORTED + (share if by_way.any() else 1.0)
    return weighed


def _averaged_rotations(R: Array, i: Index, j: Index, pair: Array, weight: Array) -> Array:
    """Rotations (cameras, 3, 3) from a start, the first fixed, with pair (edges, 3, 3) ~ R[j] R[i]^T."""
    R, design = R.copy(), _differences(i, j, len(R))
    for _ in range(MAX_ROUNDS):
        off = log_so3(pair @ R[i] @ np.swapaxes(R[j], -1, -2))
        root = np.sqrt(weight * _trust(np.linalg.norm(off, axis=-1), OFF_RAD))[:, None]
        step = np.linalg.lstsq(design * root, np.einsum("eyx,ey->ex", R[j], off) * root, rcond=None)[0]
        R[1:] = R[1:] @ exp_so3(step)
        if np.abs(step).max(initial=0.0) < CONVERGED:
            break
    return R


def _averaged_centers(centers: Array, i: Index, j: Index, between: Array, weight: Array) -> Array:
    """Centres (cameras, 3) from a start, the first at the origin, with between (edges, 3) ~ centers[j] - centers[i]."""
    design = _differences(i, j, len(centers))
    scale = max(OFF_SHARE * float(np.median(np.linalg.norm(between, axis=-1))), 1e-12)
    for _ in range(MAX_ROUNDS):
        before = centers
        off = np.linalg.norm(centers[j] - centers[i] - between, axis=-1)
        root = np.sqrt(weight * _trust(off, scale))[:, None]
        centers = np.vstack((np.zeros(3), np.linalg.lstsq(design * root, between * root, rcond=None)[0]))
        if np.abs(centers - before).max() < CONVERGED * scale:
            break
    return centers


def _differences(i: Index, j: Index, n: int) -> Array:
    """(edges, n - 1): x[j] - x[i] of unknowns x (n,) of which the first is zero."""
    rows, design = np.arange(len(i)), np.zeros((len(i), n))
    design[rows, j], design[rows, i] = 1.0, -1.0
    return design[:, 1:]


def _trust(off: Array, scale: float) -> Array:
    """Weights of Geman and McClure's loss off^2 / (1 + (off / scale)^2) / 2."""
    return (1.0 + (off / scale) ** 2) ** -2
