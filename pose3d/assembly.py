"""Which keypoint candidates of a frame belong to the same individual? The part affinity graph, divided frame by frame.

Every limb says with a score in 0..1 how well it joins two candidates; minus `bias` that is evidence for or against one
individual, also where a limb that should be there is not; it counts as much as its ends do (the product of their
scores). Individuals, which have at most one candidate of a kind, are sought so that the evidence inside them is
greatest: fragments grow along the best supported limbs as long as all limbs between two of them together speak for it,
then they split and exchange parts where the evidence gains. At last, limbs having told whose a candidate is, the heat
tells which of an individual's candidates of one kind is the keypoint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from calibration.errors import InputError
from pose3d.poses import Candidates, Poses
from pose3d.skeleton import Skeleton

__all__ = ["AssemblyOptions", "assemble"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_ROUNDS = 5
"""How often fragments are joined and exchange at most; nearly always the second round changes nothing."""
_LIMBS = 0.15
"""Power of the limbs' evidence beside the score where an individual has several candidates of a kind."""
_GAIN = 1e-6
"""Least gain of an exchange: rounding errors are none."""


@dataclass(frozen=True)
class AssemblyOptions:
    """individuals: how many animals there are, None = as many as are seen. Where it is given, the best that many stay,
    however small, and each fragment left over gives what it has and they lack to the nearest of them that is no farther
    than the largest of them is long. One animal has the best candidate of each kind, however far apart they are.
    min_score: candidates below are not looked at.
    min_share: where `individuals` is None, those with fewer of the skeleton's keypoints are dropped.
    bias: score of a limb that speaks neither for nor against."""

    individuals: int | None = None
    min_score: float = 0.0
    min_share: float = 0.2
    bias: float = 0.05

    def __post_init__(self) -> None:
        if self.individuals is not None and self.individuals < 1:
            raise InputError(f"individuals: expected at least 1 or none, got {self.individuals}")
        for name in ("min_score", "min_share", "bias"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"{name}: expected 0 to 1, got {getattr(self, name)}")


def assemble(candidates: Candidates, skeleton: Skeleton | None = None, options: AssemblyOptions | None = None) -> Poses:
    """The individuals of every frame, 2D poses in px without ids: slots by falling total of scores and evidence.

    candidates: of one view; frames do not depend on each other. skeleton: of the result, whose keypoints must be among
    the candidates', in any order; default theirs. Score and the extra `covariance` are the candidates'. There are as
    many slots as individuals in the fullest frame, at least one. Raises InputError for rows or keypoints that are not
    there.
    """
    options = options or AssemblyOptions()
    skeleton = skeleton or candidates.skeleton
    order = [candidates.skeleton.index(name) for name in skeleton.keypoints]
    frame = _checked_frames(candidates)
    kinds = len(candidates.skeleton)
    score = np.asarray(candidates.score, dtype=np.float64)
    usable = score >= options.min_score
    if options.individuals == 1:
        usable &= _best(frame, candidates.keypoint, score)
    limb_frame = np.repeat(np.arange(len(candidates.frame)), np.diff(candidates.limb_start))
    speaking = np.flatnonzero(candidates.limb_score > options.bias)
    ends = np.column_stack((candidates.a, candidates.b)).astype(np.int64)
    evidence = (candidates.limb_score - options.bias) * score[ends].prod(axis=1)
    speaking = speaking[np.lexsort((-evidence[speaking], limb_frame[speaking]))]  # the best of each frame first
    slot = np.full(len(score), -1)
    _assemble(
        np.asarray(candidates.frame_start, dtype=np.int64), np.asarray(candidates.keypoint, dtype=np.int64),
        np.asarray(candidates.xy, dtype=np.float64), np.where(usable, score, -1.0),
        np.asarray(candidates.limb_start, dtype=np.int64), ends, evidence,
        np.searchsorted(limb_frame[speaking], np.arange(len(candidates.frame) + 1)), ends[speaking],
        _neighbours(candidates.limbs, kinds),
        options.individuals or 0, int(np.ceil(options.min_share * kinds - 1e-9)), options.bias, slot,
    )  # fmt: skip
    used = np.flatnonzero(slot >= 0)
    place = (frame[used], slot[used], candidates.keypoint[used])
    shape = (len(candidates.frame), int(slot.max(initial=0)) + 1, kinds)
    points, scores = np.full((*shape, 2), np.nan), np.zeros(shape)
    covariance = np.full((*shape, 2, 2), np.nan)
    points[place], scores[place], covariance[place] = candidates.xy[used], score[used], candidates.covariance[used]
    extras = {"covariance": covariance[:, :, order]}
    return Poses(points[:, :, order], scores[:, :, order], frame=candidates.frame, skeleton=skeleton, extras=extras)


def _best(frame: Ints, keypoint: NDArray[np.integer], score: Floats) -> NDArray[np.bool_]:
    """(n,) which candidates are the best of their kind in their frame."""
    order = np.lexsort((-score, keypoint, frame))
    first = np.ones(len(score), dtype=bool)
    first[1:] = (np.diff(frame[order]) != 0) | (np.diff(keypoint[order]) != 0)
    best = np.zeros(len(score), dtype=bool)
    best[order[first]] = True
    return best


def _neighbours(limbs: tuple[tuple[int, int], ...], kinds: int) -> Ints:
    """(kinds, most) the kinds that limbs join to each, -1 after the last."""
    linked = [sorted({b for a, b in limbs if a == k} | {a for a, b in limbs if b == k}) for k in range(kinds)]
    near = np.full((kinds, max(map(len, linked), default=0)), -1)
    for k, others in enumerate(linked):
        near[k, : len(others)] = others
    return near


def _checked_frames(candidates: Candidates) -> Ints:
    """(n,) the frame of each candidate. Raises InputError where a keypoint or the row of a limb is not there."""
    frame = np.repeat(np.arange(len(candidates.frame)), np.diff(candidates.frame_start))
    limb_frame = np.repeat(np.arange(len(candidates.frame)), np.diff(candidates.limb_start))
    kinds, n = len(candidates.skeleton), len(frame)
    if np.any((candidates.keypoint < 0) | (candidates.keypoint >= kinds)):
        raise InputError(f"candidates: expected keypoints from 0 to {kinds - 1}; predict again")
    if np.any(np.array(candidates.limbs, dtype=np.int64).reshape(-1, 2) >= kinds):
        raise InputError(f"candidates: expected limbs between keypoints from 0 to {kinds - 1}; predict again")
    for rows in (candidates.a, candidates.b):
        if np.any((rows < 0) | (rows >= n)) or np.any(frame[rows] != limb_frame):
            raise InputError("candidates: expected both ends of a limb among its frame's candidates; predict again")
    return frame


@njit(cache=True, nogil=True, error_model="numpy")
def _assemble(
    frame_start: Ints, keypoint: Ints, xy: Floats, score: Floats, limb_start: Ints, ends: Ints, evidence: Floats,
    speaking_start: Ints, speaking: Ints, near: Ints, individuals: int, least: int, bias: float, slot: Ints,
) -> None:  # fmt: skip
    """Write the slot of each candidate that belongs to an individual of its frame. ends (m, 2): what the limbs join;
    speaking: the same of those that speak for it, by falling evidence within a frame; near (kinds, most): the kinds
    that limbs join to each. A candidate with a score below 0 is not looked at."""
    most = 0
    for f in range(len(frame_start) - 1):
        most = max(most, frame_start[f + 1] - frame_start[f])
    pair = np.empty((most, most), np.float32)
    member = np.empty((most + 1, len(near)), np.int64)
    for f in range(len(frame_start) - 1):
        begin, end, first, last = frame_start[f], frame_start[f + 1], limb_start[f], limb_start[f + 1]
        kind, value = keypoint[begin:end], score[begin:end]
        for a in range(end - begin):
            for b in range(end - begin):
                pair[a, b] = -bias * value[a] * value[b]
        for i in range(first, last):
            a, b = ends[i, 0] - begin, ends[i, 1] - begin
            pair[a, b] = pair[b, a] = max(pair[a, b], evidence[i])
        joined = speaking[speaking_start[f] : speaking_start[f + 1]] - begin
        home = _divide(kind, value, joined, pair, near, member)
        _number(kind, value, xy[begin:end], home, pair, near, member, individuals, least, slot[begin:end])


@njit(cache=True, error_model="numpy")
def _divide(kind: Ints, value: Floats, ends: Ints, pair: Floats, near: Ints, member: Ints) -> Ints:
    """The fragment of each candidate (n,), -1 = not looked at; member (fragments + 1, kinds) is filled, -1 = none, the
    last row stays empty. ends (m, 2): what limbs join that speak for one individual."""
    n = len(kind)
    home, touched, tried = np.empty(n, np.int64), np.zeros(n, np.int64), np.empty(n, np.int64)
    tie = np.empty(near.shape)
    for i in range(n + 1):
        for k in range(member.shape[1]):
            member[i, k] = -1
    for i in range(n):
        home[i] = i if value[i] >= 0.0 else -1
        if home[i] >= 0:
            member[i, kind[i]] = i
    for clock in range(_ROUNDS):
        changed = False
        for row in range(len(ends)):
            first, second = home[ends[row, 0]], home[ends[row, 1]]
            apart = first >= 0 and second >= 0 and first != second
            if apart and _join(first, second, home, pair, near, member):
                touched[first] = clock
        for fragment in range(n):
            tried[fragment] = -1
            if touched[fragment] == clock and _exchange(fragment, n, home, pair, near, member, tie):
                touched[fragment], changed = clock + 1, True
        for row in range(len(ends)):
            first, second = home[ends[row, 0]], home[ends[row, 1]]
            if first < 0 or second < 0 or first == second or max(touched[first], touched[second]) < clock:
                continue
            if tried[first] == second or tried[second] == first:
                continue
            tried[first] = second
            if _exchange(first, second, home, pair, near, member, tie):
                touched[first], touched[second] = clock + 1, clock + 1
                tried[first], changed = -1, True
        if not changed:
            break
    return home


@njit(cache=True, error_model="numpy")
def _join(first: int, second: int, home: Ints, pair: Floats, near: Ints, member: Ints) -> bool:
    """Put two fragments together if they have no kind in common and the limbs between them speak for it."""
    for k in range(member.shape[1]):
        if member[first, k] >= 0 and member[second, k] >= 0:
            return False
    evidence = 0.0
    for k in range(member.shape[1]):
        if member[first, k] >= 0:
            evidence += _bond(member[first, k], k, second, pair, near, member)
    if evidence <= 0.0:
        return False
    for k in range(member.shape[1]):
        if member[second, k] >= 0:
            member[first, k] = member[second, k]
            home[member[second, k]] = first
            member[second, k] = -1
    return True


@njit(cache=True, error_model="numpy")
def _exchange(one: int, other: int, home: Ints, pair: Floats, near: Ints, member: Ints, tie: Floats) -> bool:
    """Exchange those kinds between two fragments by which the evidence within them gains, if there are any.

    As Kernighan and Lin (1970) do it: one kind after another, the best one first, and back to where the sum of gains
    was greatest. To exchange with nothing is to split.
    """
    if not _ties(one, other, pair, near, member, tie):
        return False
    kinds = member.shape[1]
    gain, free, turn = np.zeros(kinds), np.zeros(kinds, np.bool_), np.empty(kinds, np.int64)
    for k in range(kinds):
        free[k] = member[one, k] >= 0 or member[other, k] >= 0
        for column in range(near.shape[1]):
            gain[k] -= tie[k, column]
    total, best, greatest = 0.0, 0, _GAIN
    for turns in range(kinds):
        k = -1
        for candidate in range(kinds):
            if free[candidate] and (k < 0 or gain[candidate] > gain[k]):
                k = candidate
        if k < 0:
            break
        free[k], turn[turns], total = False, k, total + gain[k]
        if total > greatest:
            best, greatest = turns + 1, total
        for column in range(near.shape[1]):
            if near[k, column] >= 0:
                gain[near[k, column]] += 2.0 * tie[k, column]
    for i in range(best):
        k = turn[i]
        member[one, k], member[other, k] = member[other, k], member[one, k]
    if best:
        _settle(one, other, home, member)
    return best > 0


@njit(cache=True, error_model="numpy")
def _ties(one: int, other: int, pair: Floats, near: Ints, member: Ints, tie: Floats) -> bool:
    """Write to tie (kinds, most), of each kind and its neighbours, by how much the limbs between them speak for those
    within the two fragments against those across; whether any speak for an exchange."""
    any_across = False
    for k in range(near.shape[0]):
        i, j = member[one, k], member[other, k]
        for column in range(near.shape[1]):
            evidence, q = 0.0, near[k, column]
            if q >= 0:
                u, v = member[one, q], member[other, q]
                if i >= 0 and u >= 0:
                    evidence += pair[i, u]
                if j >= 0 and v >= 0:
                    evidence += pair[j, v]
                if i >= 0 and v >= 0:
                    evidence -= pair[i, v]
                if j >= 0 and u >= 0:
                    evidence -= pair[j, u]
            tie[k, column] = evidence
            any_across |= evidence < 0.0
    return any_across


@njit(cache=True, error_model="numpy")
def _settle(one: int, other: int, home: Ints, member: Ints) -> None:
    """Bring `home` up to date; what was split off into the last row of `member` moves to a free one."""
    n = len(home)
    place = other
    if other == n:
        place, taken = -1, True
        while taken:
            place, taken = place + 1, False
            for k in range(member.shape[1]):
                taken |= member[place, k] >= 0
    for k in range(member.shape[1]):
        if place != other:
            member[place, k], member[other, k] = member[other, k], -1
        if member[one, k] >= 0:
            home[member[one, k]] = one
        if member[place, k] >= 0:
            home[member[place, k]] = place


@njit(cache=True, error_model="numpy")
def _bond(i: int, k: int, fragment: int, pair: Floats, near: Ints, member: Ints) -> float:
    """Evidence of the limbs between a candidate of kind k and the other kinds of a fragment."""
    evidence = 0.0
    for column in range(near.shape[1]):
        if near[k, column] < 0:
            break
        other = member[fragment, near[k, column]]
        if other >= 0:
            evidence += pair[i, other]
    return evidence


@njit(cache=True, error_model="numpy")
def _number(
    kind: Ints, value: Floats, xy: Floats, home: Ints, pair: Floats, near: Ints, member: Ints,
    individuals: int, least: int, slot: Ints,
) -> None:  # fmt: skip
    """Write the slots of candidates: fragments by falling total score, the small ones and those too many left out."""
    n = len(kind)
    total, size = np.zeros(n), np.zeros(n, np.int64)
    for i in range(n):
        if home[i] >= 0:
            total[home[i]] += value[i] + 0.5 * _bond(i, kind[i], home[i], pair, near, member)
            size[home[i]] += 1
    kept, count, reach = np.empty(n, np.int64), 0, 0.0
    for _ in range(n):
        fragment = -1
        for i in range(n):
            if size[i] > 0 and (individuals or size[i] >= least) and (fragment < 0 or total[i] > total[fragment]):
                fragment = i
        if fragment < 0:
            break
        size[fragment] = 0
        if not individuals or count < individuals:
            kept[count] = fragment
            reach = max(reach, _apart(fragment, fragment, xy, member, True))
            count += 1
        else:
            _attach(fragment, kept, count, np.inf if individuals == 1 else reach, xy, member)
    for i in range(count):
        for k in range(member.shape[1]):
            if member[kept[i], k] >= 0:
                slot[member[kept[i], k]] = i
    _prefer(kind, value, kept[:count], pair, near, member, slot)


@njit(cache=True, error_model="numpy")
def _prefer(kind: Ints, value: Floats, kept: Ints, pair: Floats, near: Ints, member: Ints, slot: Ints) -> None:
    """Of a kind's candidates that nobody else has and whose limbs speak for an individual, more than for any other,
    give it the one with the best score, limbs counting little: they tell whose a candidate is, not where the keypoint
    is."""
    free, chosen = slot < 0, member[kept]
    for j in range(len(kind)):
        if value[j] < 0.0 or not free[j]:
            continue
        owner, most = -1, 0.0
        for i in range(len(kept)):
            bond = _bond(j, kind[j], kept[i], pair, near, member)
            if bond > most:
                owner, most = i, bond
        held = chosen[owner, kind[j]] if owner >= 0 else -1
        if held < 0:
            continue
        bond = _bond(held, kind[j], kept[owner], pair, near, member)
        if value[j] * most**_LIMBS > value[held] * max(bond, 0.0) ** _LIMBS:
            chosen[owner, kind[j]], slot[held], slot[j] = j, -1, owner


@njit(cache=True, error_model="numpy")
def _attach(fragment: int, kept: Ints, count: int, reach: float, xy: Floats, member: Ints) -> None:
    """Give what is left over to the individual within reach that lacks most of it, of several to the nearest."""
    best, most, least = -1, 0, 0.0
    for i in range(count):
        individual, free = kept[i], 0
        for k in range(member.shape[1]):
            free += member[fragment, k] >= 0 and member[individual, k] < 0
        apart = _apart(fragment, individual, xy, member, False)
        if apart <= reach and free and (free > most or (free == most and apart < least)):
            best, most, least = individual, free, apart
    if best >= 0:
        for k in range(member.shape[1]):
            if member[best, k] < 0:
                member[best, k] = member[fragment, k]


@njit(cache=True, error_model="numpy")
def _apart(one: int, other: int, xy: Floats, member: Ints, farthest: bool) -> float:
    """The least or the greatest distance, in px, between a keypoint of one fragment and one of another."""
    least, greatest = np.inf, 0.0
    for p in range(member.shape[1]):
        for q in range(member.shape[1]):
            i, j = member[one, p], member[other, q]
            if i >= 0 and j >= 0:
                squared = (xy[i, 0] - xy[j, 0]) ** 2 + (xy[i, 1] - xy[j, 1]) ** 2
                least, greatest = min(least, squared), max(greatest, squared)
    return math.sqrt(greatest if farthest else least)
