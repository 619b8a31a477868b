from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration.errors import InputError
from pose3d import assemble
from pose3d.assembly import AssemblyOptions
from pose3d.poses import Candidates, Poses
from pose3d.skeleton import Skeleton

Array = NDArray[Any]
Frame = tuple[Array, Array, Array, Array, Array]
"""Keypoint (n,), xy (n, 2), score (n,) of candidates, ends (m, 2) and score (m,) of limbs."""

SKELETON = Skeleton(("nose", "neck", "hip", "tail"))
LIMBS = ((0, 1), (1, 2), (2, 3), (0, 2), (1, 3))
BIAS = AssemblyOptions().bias


def candidates_of(
    *frames: Frame, skeleton: Skeleton = SKELETON, limbs: tuple[tuple[int, int], ...] = LIMBS
) -> Candidates:
    starts = np.cumsum([0] + [len(f[0]) for f in frames])
    ends = [f[3].reshape(-1, 2) + start for f, start in zip(frames, starts, strict=False)]
    keypoint, xy, score, limb_score = (np.concatenate([f[i] for f in frames]) for i in (0, 1, 2, 4))
    a, b = np.concatenate(ends).astype(np.int64).T
    number = {frozenset(limb): i for i, limb in enumerate(limbs)}
    edge = np.array(
        [number[frozenset((int(keypoint[i]), int(keypoint[j])))] for i, j in zip(a, b, strict=True)], np.int32
    )
    covariance = (1.0 + np.arange(starts[-1]))[:, None, None] * np.eye(2)
    limb_start = np.cumsum([0] + [len(f[4]) for f in frames])
    return Candidates(starts, keypoint.astype(np.int32), xy.astype(float), score.astype(float), covariance, limb_start,
                      a, b, edge, limb_score.astype(float), 10 * np.arange(len(frames)), skeleton, limbs)  # fmt: skip


def scene(
    rng: np.random.Generator,
    animals: int,
    *,
    kinds: int = 4,
    missing: float = 0.0,
    right: float = 0.6,
    wrong: float = 0.3,
) -> tuple[Frame, Array]:
    """Candidates in random order with limbs of at least `right` within and at most `wrong` between animals, of which
    half are not there at all; and the animal of each."""
    there = rng.uniform(size=(animals, kinds)) >= missing
    animal, keypoint = np.nonzero(there)
    order = rng.permutation(len(animal))
    animal, keypoint = animal[order], keypoint[order]
    xy = 100.0 * animal[:, None] + np.stack((10.0 * keypoint, rng.uniform(0, 5, len(animal))), axis=1)
    ends, scores = [], []
    for i, j in np.argwhere(np.ones((len(animal),) * 2)):
        if (keypoint[i], keypoint[j]) in LIMBS:
            same = animal[i] == animal[j]
            if same or rng.uniform() < 0.5:
                ends.append((i, j))
                scores.append(rng.uniform(right, 1.0) if same else rng.uniform(0.0, wrong))
    frame = keypoint, xy, rng.uniform(0.5, 1.0, len(animal)), np.array(ends, dtype=int).reshape(-1, 2), np.array(scores)
    return frame, animal


def groups(poses: Poses, frame: int = 0) -> set[frozenset[tuple[float, ...]]]:
    """The individuals of a frame as sets of (keypoint, x, y, score, variance)."""
    found = set()
    for slot in range(poses.shape[1]):
        known = np.flatnonzero(~poses.missing[frame, slot])
        variance = poses.extras["covariance"][frame, slot, known, 0, 0]
        rows = (known, *poses.points[frame, slot, known].T, poses.score[frame, slot, known], variance)
        if len(known):
            found.add(frozenset(zip(*(map(float, r) for r in rows), strict=True)))
    return found


def groups_of(candidates: Candidates, animal: Array) -> set[frozenset[tuple[float, ...]]]:
    rows = zip(candidates.keypoint, *candidates.xy.T, candidates.score, candidates.covariance[:, 0, 0], strict=True)
    told = [tuple(map(float, r)) for r in rows]
    return {frozenset(t for t, a in zip(told, animal, strict=True) if a == i) for i in np.unique(animal[animal >= 0])}


def evidence(frame: Frame, home: Array) -> float:
    """Sum over limbs within individuals of (score - bias) x the scores of its ends, also of those not there."""
    keypoint, _, value, ends, scores = frame
    pair = {frozenset((int(i), int(j))): s for (i, j), s in zip(ends, scores, strict=True)}
    linked = {frozenset(limb) for limb in LIMBS}
    return sum(
        (pair.get(frozenset((i, j)), 0.0) - BIAS) * value[i] * value[j]
        for i in range(len(home))
        for j in range(i)
        if home[i] == home[j] and frozenset((int(keypoint[i]), int(keypoint[j]))) in linked
    )


def divisions(keypoint: Array) -> Iterator[Array]:
    """Every way of dividing candidates into individuals that have at most one of a kind."""

    def grow(home: list[int]) -> Iterator[list[int]]:
        i = len(home)
        if i == len(keypoint):
            yield home
            return
        for group in range(max(home, default=-1) + 2):
            if all(keypoint[j] != keypoint[i] for j in range(i) if home[j] == group):
                yield from grow([*home, group])

    return (np.array(home) for home in grow([]))


EVERYTHING = AssemblyOptions(min_share=0.0)


def home_of(frame: Frame, poses: Poses) -> Array:
    """Slot of each candidate of the only frame."""
    distance = np.linalg.norm(poses.points[0][:, frame[0]] - frame[1], axis=-1)
    return np.nan_to_num(distance, nan=np.inf).argmin(axis=0)


@pytest.mark.parametrize("seed", range(8))
def test_no_division_has_more_evidence(seed: int) -> None:
    """Exhaustively, for two animals of four keypoints or three of three, also where a keypoint is missing."""
    rng = np.random.default_rng(seed)
    frame, _ = scene(rng, 2 + seed % 2, kinds=4 - seed % 2, missing=0.1, right=0.5, wrong=0.45)
    best = max(divisions(frame[0]), key=lambda home: evidence(frame, home))
    found = home_of(frame, assemble(candidates_of(frame), options=EVERYTHING))
    assert evidence(frame, found) == pytest.approx(evidence(frame, best))
    np.testing.assert_array_equal(found[:, None] == found, best[:, None] == best)


def test_clear_evidence_gives_the_animals(rng: np.random.Generator) -> None:
    for _ in range(20):
        frame, animal = scene(rng, 12)
        candidates = candidates_of(frame)
        poses = assemble(candidates)
        assert groups(poses) == groups_of(candidates, animal)
        assert poses.shape == (1, 12, 4, 2)
        assert (poses.ids == -1).all()
        assert poses.unit == "px"


def test_animals_with_missing_joints_are_the_components_of_the_graph(rng: np.random.Generator) -> None:
    """The over-complete limbs hold an animal together without its neck or its hip."""
    whole = 0
    for _ in range(20):
        frame, animal = scene(rng, 6, missing=0.25, wrong=0.0)
        graph = nx.Graph()
        graph.add_nodes_from(range(len(animal)))
        graph.add_edges_from(frame[3][frame[4] > 0.5].tolist())
        home = np.empty(len(animal), dtype=int)
        for number, part in enumerate(nx.connected_components(graph)):
            home[list(part)] = number
        candidates = candidates_of(frame)
        assert groups(assemble(candidates, options=EVERYTHING)) == groups_of(candidates, home)
        whole += len(groups_of(candidates, home) & groups_of(candidates, animal))
    assert whole > 0.9 * 6 * 20


def test_one_limb_does_not_join_what_the_others_part() -> None:
    """Neck and hip of two animals are joined by a false limb that is stronger than any true one."""
    keypoint = np.array([0, 1, 2, 3])
    xy = np.array([[0, 0], [10, 0], [20, 0], [30, 0]])
    ends = np.array([[0, 1], [2, 3], [1, 2]])
    frame = keypoint, xy, np.ones(4), ends, np.array([0.9, 0.9, 1.0])
    home = home_of(frame, assemble(candidates_of(frame), options=replace(EVERYTHING, bias=0.4)))
    assert home[0] == home[1]
    assert home[2] == home[3]
    assert home[0] != home[2], "1 - 0.4 for it, 2 * 0.4 against it"


def test_halves_are_exchanged_where_the_other_limbs_say_so() -> None:
    """The two strongest limbs join the front of each animal with the back of the other."""
    keypoint = np.array([0, 1, 2, 3, 0, 1, 2, 3])
    xy = np.array([[0, 0], [10, 0], [20, 0], [30, 0], [0, 9], [10, 9], [20, 9], [30, 9]])
    inside = [(i + s, j + s) for s in (0, 4) for i, j in LIMBS]
    ends = np.array([*inside, (1, 6), (5, 2)])
    frame = keypoint, xy, np.ones(8), ends, np.array([0.8] * len(inside) + [1.0, 0.95])
    assert home_of(frame, assemble(candidates_of(frame), options=EVERYTHING)).tolist() in (
        [0] * 4 + [1] * 4,
        [1] * 4 + [0] * 4,
    )


def test_a_faint_candidate_does_not_push_out_a_clear_one() -> None:
    """Of two noses the one that is hardly there has the better limb."""
    keypoint, xy = np.array([0, 0, 1]), np.array([[0, 0], [0, 9], [10, 0]])
    frame = keypoint, xy, np.array([0.1, 0.9, 0.9]), np.array([[0, 2], [1, 2]]), np.array([0.8, 0.6])
    home = home_of(frame, assemble(candidates_of(frame), options=EVERYTHING))
    assert home[1] == home[2] != home[0]


def test_limbs_tell_whose_and_the_heat_tells_where() -> None:
    """A raised wing: its fields are faint, where the other wing lies limbs are short and sure."""
    keypoint, xy = np.array([0, 1, 2, 3, 3]), np.array([[0, 0], [10, 0], [20, 0], [22, 1], [10, 30]])
    ends = np.array([[0, 1], [1, 2], [0, 2], [2, 3], [1, 3], [2, 4], [1, 4]])
    limbs = np.array([0.9, 0.9, 0.9, 1.0, 0.8, 0.3, 0.2])
    frame = keypoint, xy, np.array([0.9, 0.9, 0.9, 0.6, 0.95]), ends, limbs
    poses = assemble(candidates_of(frame), options=AssemblyOptions(min_share=0.5))
    assert poses.points[0, 0, 3].tolist() == [10, 30]


def test_better_heat_of_another_animal_is_not_taken() -> None:
    """The tail of an animal that is left out (too small) is as near as can be, and its limbs speak for its own hip."""
    keypoint, xy = np.array([0, 1, 2, 3, 2, 3]), np.array([[0, 0], [10, 0], [20, 0], [30, 0], [31, 3], [30, 1]])
    ends = np.array([[0, 1], [1, 2], [0, 2], [2, 3], [1, 3], [4, 5]])
    frame = keypoint, xy, np.array([0.9, 0.9, 0.9, 0.5, 0.9, 0.95]), ends, np.array([0.9] * 6)
    poses = assemble(candidates_of(frame), options=AssemblyOptions(min_share=0.75))
    assert poses.points[0, :, 3].tolist() == [[30, 0]]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from([None, 1, 2, 5]))
def test_whatever_comes_in(seed: int, individuals: int | None) -> None:
    """No candidate twice, one of a kind, slots by falling total, frames independent of each other and of the order."""
    rng = np.random.default_rng(seed)
    frames = [scene(rng, int(rng.integers(0, 5)), missing=0.3, right=0.2, wrong=0.9)[0] for _ in range(4)]
    options = AssemblyOptions(individuals=individuals, min_score=0.6, min_share=0.5)
    candidates = candidates_of(*frames)
    poses = assemble(candidates, options=options)
    for begin in (0, 2):
        part = replace(candidates_of(*frames[begin : begin + 2]), frame=10 * np.arange(begin, begin + 2))
        window, whole = assemble(part, options=options), poses.window(begin, begin + 2)
        np.testing.assert_array_equal(window.points, whole.points[:, : window.shape[1]])
        np.testing.assert_array_equal(window.score, whole.score[:, : window.shape[1]])
        assert whole.missing[:, window.shape[1] :].all()
    for f, frame in enumerate(frames):
        known = ~poses.missing[f]
        places = poses.points[f][known]
        assert len(np.unique(places, axis=0)) == len(places)
        allowed = {(int(k), *p) for k, p, s in zip(*frame[:3], strict=True) if s >= 0.6}
        assert {(int(k), *p) for k, p in zip(np.nonzero(known)[1], places, strict=True)} <= allowed
        size = known.sum(axis=1)
        if individuals is None:
            assert (size[size > 0] >= 2).all()
        else:
            assert (size > 0).sum() <= individuals
        order = rng.permutation(len(frame[0]))
        place = np.argsort(order)
        shuffled = *(column[order] for column in frame[:3]), place[frame[3]], frame[4]
        again = assemble(candidates_of(shuffled), options=options)
        slots = min(again.shape[1], poses.shape[1])
        np.testing.assert_array_equal(again.points[0, :slots], poses.points[f, :slots])


def test_slots_go_by_falling_total(rng: np.random.Generator) -> None:
    frame, _ = scene(rng, 5, missing=0.2)
    poses = assemble(candidates_of(frame), options=EVERYTHING)
    home = home_of(frame, poses)
    within = home[frame[3][:, 0]] == home[frame[3][:, 1]]
    limbs = ((frame[4] - BIAS) * frame[2][frame[3]].prod(axis=1))[within]
    totals = np.bincount(home, frame[2]) + np.bincount(home[frame[3][within, 0]], limbs, home.max() + 1)
    assert (np.diff(totals) < 0).all()


def test_a_single_animal_gets_the_best_of_every_kind_whatever_limbs_say() -> None:
    keypoint = np.array([0, 1, 2, 2, 3, 3])
    xy = np.array([[0, 0], [10, 0], [20, 0], [500, 0], [900, 0], [300, 0]])
    score = np.array([0.9, 0.9, 0.4, 0.99, 0.5, 0.7])
    frame = keypoint, xy, score, np.array([[0, 1], [1, 2]]), np.array([0.9, 0.8])
    poses = assemble(candidates_of(frame), options=AssemblyOptions(individuals=1))
    assert poses.points[0, 0, :, 0].tolist() == [0, 10, 500, 300]
    alone = np.array([2]), np.zeros((1, 2)), np.array([0.3]), np.zeros((0, 2), dtype=int), np.zeros(0)
    assert groups(assemble(candidates_of(alone), options=AssemblyOptions(individuals=1, min_share=1.0)))


def test_what_is_left_over_goes_to_the_nearest_that_lacks_it() -> None:
    """Two animals of three keypoints, side by side; noses left over near the second, tails far from both."""
    keypoint = np.array([1, 2, 3, 0, 1, 2, 0, 0])
    xy = np.array([[0, 0], [0, 10], [0, 20], [40, -10], [40, 0], [40, 10], [5, -9], [400, 0]])
    ends = np.array([[0, 1], [1, 2], [0, 2], [3, 4], [4, 5], [3, 5]])
    frame = keypoint, xy, np.array([1.0] * 6 + [0.5, 0.6]), ends, np.full(6, 0.9)
    poses = assemble(candidates_of(frame), options=AssemblyOptions(individuals=2))
    first = 0 if poses.points[0, 0, 1, 0] == 0 else 1
    np.testing.assert_array_equal(poses.points[0, first, 0], [5, -9])
    np.testing.assert_array_equal(poses.points[0, 1 - first, 0], [40, -10])
    assert poses.missing[0, 1 - first, 3], "nothing was left over for it"
    many = assemble(candidates_of(frame))
    assert many.shape[1] == 4, "where their number is not known nothing is attached"


def test_the_skeleton_asked_for_orders_the_keypoints(rng: np.random.Generator) -> None:
    candidates = candidates_of(scene(rng, 3)[0])
    poses = assemble(candidates, Skeleton(("tail", "neck")))
    np.testing.assert_array_equal(poses.points, assemble(candidates).points[:, :, [3, 1]])
    assert poses.skeleton.keypoints == ("tail", "neck")
    with pytest.raises(InputError, match="'ear' is not in the skeleton"):
        assemble(candidates, Skeleton(("tail", "ear")))


def test_frames_without_candidates(rng: np.random.Generator) -> None:
    empty = scene(rng, 0)[0]
    poses = assemble(candidates_of(empty, scene(rng, 2)[0], empty))
    assert (~poses.missing).sum(axis=(1, 2)).tolist() == [0, 8, 0]
    assert poses.frame.tolist() == [0, 10, 20]
    assert assemble(candidates_of(empty)).shape == (1, 1, 4, 2)


def test_bad_input(rng: np.random.Generator) -> None:
    for wrong in ({"individuals": 0}, {"min_score": -0.1}, {"min_share": 1.2}, {"bias": 2.0}):
        with pytest.raises(InputError, match=rf"^{next(iter(wrong))}: expected"):
            AssemblyOptions(**wrong)  # type: ignore[arg-type]
    two = candidates_of(scene(rng, 2)[0], scene(rng, 2)[0])
    with pytest.raises(InputError, match="expected keypoints from 0 to 3"):
        assemble(replace(two, keypoint=two.keypoint + 1))
    with pytest.raises(InputError, match="expected limbs between keypoints from 0 to 3"):
        assemble(replace(two, limbs=((0, 4),)))
    with pytest.raises(InputError, match="both ends of a limb among its frame"):
        assemble(replace(two, a=two.a[::-1]))
