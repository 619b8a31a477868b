"""Averages of pairwise poses: exact, better than a tree, unmoved by wrong pairs, stationary points of their loss."""

from __future__ import annotations

from itertools import combinations

import networkx as nx
import numpy as np
import pytest

from calibration.averaging import OFF_RAD, OFF_SHARE, average_poses
from calibration.transforms import compose, exp_so3, invert, log_so3

Poses = dict[str, tuple[np.ndarray, np.ndarray]]


def rig(rng: np.random.Generator, n: int) -> Poses:
    """cam_from_world of n cameras, the first one's frame being the world."""
    poses = {f"cam{k}": (exp_so3(rng.uniform(-2, 2, 3)), rng.uniform(-900, 900, 3)) for k in range(n)}
    back = invert(*poses["cam0"])
    return {name: compose(*pose, *back) for name, pose in poses.items()}


def graph_of(
    poses: Poses, rng: np.random.Generator, pairs: list[tuple[int, int]] | None = None, noise: float = 0.0
) -> nx.Graph:
    """Their pairwise poses, with noise in rad and in metres a thousandth of a rad's length, some told the other way."""
    names, graph = list(poses), nx.Graph()
    graph.add_nodes_from(names)
    for a, b in pairs or combinations(range(len(names)), 2):
        one, other = (names[a], names[b]) if rng.uniform() < 0.5 else (names[b], names[a])
        R, t = compose(*poses[other], *invert(*poses[one]))
        R = exp_so3(noise * rng.normal(size=3)) @ R
        edge = {"first": one, "R": R, "t": t + 1000 * noise * rng.normal(size=3), "weight": rng.uniform(50, 200)}
        graph.add_edge(names[a], names[b], **edge)
    return graph


def far(found: Poses, truth: Poses) -> tuple[float, float]:
    """Root mean squares of rotation error, rad, and camera centre error."""
    turned = [np.linalg.norm(log_so3(found[k][0] @ truth[k][0].T)) for k in truth]
    moved = [np.linalg.norm(invert(*found[k])[1] - invert(*truth[k])[1]) for k in truth]
    return float(np.sqrt(np.mean(np.square(turned)))), float(np.sqrt(np.mean(np.square(moved))))


@pytest.mark.parametrize("pairs", [None, [(0, 1), (1, 2), (2, 3), (3, 4)], [(0, 4), (4, 2), (2, 1), (1, 0), (3, 1)]])
def test_exact_pairs_give_the_exact_rig(rng: np.random.Generator, pairs: list[tuple[int, int]] | None) -> None:
    truth = rig(rng, 5)
    found = average_poses(graph_of(truth, rng, pairs), list(truth))
    assert list(found["cam0"][1]) == [0, 0, 0]
    turned, moved = far(found, truth)
    assert turned < 1e-7
    assert moved < 1e-6


def test_one_camera_stands_where_it_stands() -> None:
    graph = nx.Graph()
    graph.add_node("cam0")
    ((R, t),) = average_poses(graph, ["cam0"]).values()
    np.testing.assert_array_equal(R, np.eye(3))
    np.testing.assert_array_equal(t, np.zeros(3))


def test_all_pairs_say_more_than_those_of_a_tree(rng: np.random.Generator) -> None:
    """In a complete graph of n equal edges, the variance against the first camera is 2/n of one edge's."""
    errors, noise, n = [], 0.01, 10
    for _ in range(30):
        truth = rig(rng, n)
        graph = graph_of(truth, rng, noise=noise)
        nx.set_edge_attributes(graph, 1.0, "weight")
        errors.append(far(average_poses(graph, list(truth)), truth)[0])
    expected = noise * np.sqrt(3 * 2 / n * (n - 1) / n)  # three axes; the first of n cameras is exact
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(expected, rel=0.1)


def test_wrong_pairs_are_outvoted_though_they_weigh_most(rng: np.random.Generator) -> None:
    for _ in range(20):
        truth = rig(rng, 6)
        graph = graph_of(truth, rng, noise=1e-3)
        clean = far(average_poses(graph, list(truth)), truth)
        for a, b in (("cam0", "cam1"), ("cam2", "cam3")):
            R, t = rng.uniform(0.6, 2.5) * np.array([1.0, 0.0, 0.0]), rng.uniform(-500, 500, 3)
            edge = graph.edges[a, b]
            edge["R"], edge["t"], edge["weight"] = exp_so3(R) @ edge["R"], edge["t"] + t, 1000.0
        turned, moved = far(average_poses(graph, list(truth)), truth)
        assert turned < 2 * clean[0] + 1e-3
        assert moved < 2 * clean[1] + 1.0


def test_a_contradicted_pair_is_used_where_there_is_no_other_way(rng: np.random.Generator) -> None:
    truth = rig(rng, 4)
    graph = graph_of(truth, rng, [(0, 1), (1, 2), (2, 0), (2, 3)])
    edge = graph.edges["cam0", "cam1"]
    edge["R"] = exp_so3([0.0, 1.0, 0.0]) @ edge["R"]
    found = average_poses(graph, list(truth))
    assert set(found) == set(truth)
    around = found["cam3"][0] @ found["cam2"][0].T
    np.testing.assert_allclose(around, truth["cam3"][0] @ truth["cam2"][0].T, atol=1e-9)


def test_the_average_is_a_stationary_point_of_its_loss(rng: np.random.Generator) -> None:
    """Geman and McClure's loss around two loops without triangles, by central differences."""
    truth = rig(rng, 6)
    pairs = [(0, 1), (1, 2), (2, 3), (3, 0), (3, 4), (4, 5), (5, 0)]
    names, graph = list(truth), graph_of(truth, rng, pairs, noise=0.02)
    found = average_poses(graph, names)
    told = []
    for a, b, edge in graph.edges(data=True):
        R, t = (edge["R"], edge["t"]) if edge["first"] == a else invert(edge["R"], edge["t"])
        off = np.linalg.norm(log_so3(R @ found[a][0] @ found[b][0].T)) / OFF_RAD
        told.append((a, b, R, edge["weight"], edge["weight"] / (1 + off**2) ** 2, -found[b][0].T @ t))
    scale = OFF_SHARE * np.median([np.linalg.norm(way) for *_, way in told])

    def turned(name: str, w: np.ndarray) -> float:
        poses = {key: pose[0] for key, pose in found.items()}
        poses[name] = poses[name] @ exp_so3(w)
        angle = np.array([np.linalg.norm(log_so3(R @ poses[a] @ poses[b].T)) for a, b, R, *_ in told]) / OFF_RAD
        return float(np.array([weight for *_, weight, _, _ in told]) @ (angle**2 / (1 + angle**2)))

    def moved(name: str, w: np.ndarray) -> float:
        centers = {key: invert(*pose)[1] for key, pose in found.items()}
        centers[name] = centers[name] + w
        square = np.array([np.sum((centers[b] - centers[a] - way) ** 2) for a, b, *_, way in told]) / scale**2
        return float(np.array([trust for *_, trust, _ in told]) @ (square / (1 + square)))

    for loss, size in ((turned, 1e-3), (moved, 1.0)):
        for name in names[1:]:
            for step in size * np.eye(3):
                ahead, back, here = loss(name, step), loss(name, -step), loss(name, 0 * step)
                assert abs(ahead - back) < 0.02 * abs(ahead + back - 2 * here)
