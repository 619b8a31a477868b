"""Which limbs tell one animal from another? After training, those that do not are left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np
import torch
from numpy.typing import NDArray

from pose3d.nn.data import Pictures, normalised
from pose3d.nn.model import PoseNet, fold_norms
from pose3d.nn.network import NetworkSpec, make_module
from pose3d.nn.peaks import score_limbs

__all__ = ["discrimination", "limbs_that_tell", "without_limbs"]

SURE = 0.9
"""A limb that a pair of one animal wins less often than this against a pair of two is left out ..."""
LEAST = 20
"""... if so many pairs of either kind were compared."""


def discrimination(module: PoseNet, pictures: Pictures, spec: NetworkSpec) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """(L,) the share of comparisons that a labelled limb's score wins against one between two animals (the area under
    the ROC curve, ties as a half), and (L, 2) how many of each kind there were; NaN without any.

    As Insafutdinov et al. 2016 and DeepLabCut judge their pairs: by labelled keypoints, so that only the field counts.
    """
    device = next(module.parameters()).device
    folded, limbs = fold_norms(module.eval()), np.array(spec.limbs, dtype=np.int32).reshape(-1, 2)
    scores: list[tuple[list[float], list[float]]] = [([], []) for _ in limbs]
    for image, points in zip(pictures.images, pictures.points, strict=True):
        known = np.argwhere(np.isfinite(points[..., 0].T))
        keypoint, animal = known[:, 0].astype(np.int32), known[:, 1]
        x = torch.from_numpy(normalised(image))[None].to(device).permute(0, 3, 1, 2)
        with torch.inference_mode():
            paf = folded.maps(x.contiguous(memory_format=torch.channels_last))[2][0].cpu().numpy()
        cell = (points[animal, keypoint] + 0.5) / spec.stride - 0.5
        a, b, edge, score = score_limbs(paf, limbs, keypoint, cell, 1e-6)
        told = dict(zip(zip(a, b, edge, strict=True), score, strict=True))
        for row, (one, other) in enumerate(limbs):
            for i in np.flatnonzero(keypoint == one):
                for j in np.flatnonzero(keypoint == other):
                    scores[row][int(animal[i] != animal[j])].append(told.get((i, j, row), 0.0))
    won = np.array([_won(np.array(same), np.array(two)) for same, two in scores])
    return won, np.array([[len(same), len(two)] for same, two in scores]).reshape(-1, 2)


def limbs_that_tell(won: NDArray[np.float64], count: NDArray[Any], limbs: tuple[tuple[int, int], ...]) -> list[int]:
    """Rows of the limbs that are kept: those that win often enough, those that too little is known of, and the ones by
    which the best join all keypoints that limbs joined before."""
    poor = (np.nan_to_num(won, nan=1.0) < SURE) & (count >= LEAST).all(axis=1)
    graph: nx.Graph[int] = nx.Graph()
    for row, (a, b) in enumerate(limbs):
        graph.add_edge(a, b, row=row, weight=float(np.nan_to_num(won[row], nan=1.0)))
    tree = {data["row"] for _, _, data in nx.maximum_spanning_edges(graph, data=True)}
    return [row for row in range(len(limbs)) if not poor[row] or row in tree]


def without_limbs(module: PoseNet, spec: NetworkSpec, kept: list[int]) -> tuple[PoseNet, NetworkSpec]:
    """The network with these limbs alone; all other maps stay as they are."""
    if len(kept) == len(spec.limbs):
        return module, spec
    spec = replace(spec, limbs=tuple(spec.limbs[row] for row in kept))
    first = 3 * len(spec.skeleton)
    rows = torch.tensor([*range(first), *(first + 2 * row + i for row in kept for i in (0, 1))])
    smaller, state = make_module(spec), dict(module.state_dict())
    for name in ("head.1.weight", "head.1.bias"):
        state[name] = state[name][rows]
    smaller.load_state_dict(state)
    return smaller, spec


def _won(same: NDArray[np.float64], two: NDArray[np.float64]) -> float:
    if not len(same) or not len(two):
        return float("nan")
    return float((same[:, None] > two).mean() + 0.5 * (same[:, None] == two).mean())
