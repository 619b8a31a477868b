"""Where do a network's maps show keypoints, and which two of them does a limb join? Compiled, no torch.

Positions are in cells of the maps: (0, 0) is the centre of the first one, x to the right, y down.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["find_peaks", "score_limbs"]

Maps = NDArray[np.float32]
Ints = NDArray[np.int32]
Rows = NDArray[np.int64]
Floats = NDArray[np.float64]

_VOTES = 0.5
"""A neighbour votes for a peak's position from this share of the peak's heat on ..."""
_AGREE = 1.0
"""... if it places it within so many cells of where the peak itself does."""
_SAME = 1.0
"""Peaks of one kind that lie closer than this, in cells, are one."""
_SAMPLES = 10
"""A limb is sampled once a cell, at least 3 times, at most so often."""


def find_peaks(heat: Maps, offset: Maps | None, threshold: float, limit: int) -> tuple[Ints, Floats, Floats]:
    """The local maxima of heat (K, H, W) that reach the threshold, at most `limit` a map: keypoint (n,), cell (n, 2)
    x, y, score (n,) = heat; by keypoint, then falling score.

    offset (K, 2, H, W): from each cell to the keypoint, in cells x, y. The cells around a peak vote for its place,
    weighted by their heat. Without offsets the logarithm of the heat is taken for a parabola along x and along y, which
    is exact for a Gaussian. A plateau is one peak, and so are peaks that turn out to lie in one place.
    """
    heat = np.ascontiguousarray(heat, dtype=np.float32)
    votes = np.empty((len(heat), 2, 0, 0)) if offset is None else offset
    votes = np.asarray(votes, dtype=np.float32)
    kinds, height, width = heat.shape
    most = kinds * min(limit, ((height + 1) // 2) * ((width + 1) // 2))  # no two maxima are neighbours
    keypoint, cell, score = np.empty(most, np.int32), np.empty((most, 2)), np.empty(most)
    n = _find_peaks(heat, votes, np.float32(threshold), limit, keypoint, cell, score)
    return keypoint[:n], cell[:n], score[:n]


def score_limbs(
    paf: Maps, limbs: Ints, keypoint: Ints, cell: Floats, minimum: float = 0.2
) -> tuple[Rows, Rows, Ints, Floats]:
    """How well each pair of candidates is joined by a limb: a, b (m,) rows of the candidates, edge (m,) rows of limbs
    (L, 2), score (m,) in 0..1; pairs below the minimum are left out.

    paf (L, 2, H, W): along each limb the unit vector from its first keypoint to its second, else 0. keypoint (n,)
    rising, cell (n, 2) as `find_peaks` gives them. The score is the mean of the field along the straight line between
    the two (Cao et al. 2019, eq. 10); of two in one place, which have no direction, the field's length there. Pairs are
    left out early where the field around both ends together, or in a third of the samples, is too weak.
    """
    limbs = np.asarray(limbs, dtype=np.int32).reshape(-1, 2)
    start = np.searchsorted(keypoint, np.arange(limbs.max(initial=-1) + 2))
    count = np.diff(start)
    pairs = int(count[limbs[:, 0]] @ count[limbs[:, 1]])
    a, b = np.empty(pairs, np.int64), np.empty(pairs, np.int64)
    edge, score = np.empty(pairs, np.int32), np.empty(pairs)
    fields = np.asarray(paf, dtype=np.float32)
    n = _score_limbs(fields, limbs, start, np.asarray(cell, dtype=np.float64), minimum, a, b, edge, score)
    return a[:n], b[:n], edge[:n], score[:n]


@njit(cache=True, nogil=True, error_model="numpy")
def _find_peaks(
    heat: Maps, offset: Maps, threshold: np.float32, limit: int, keypoint: Ints, cell: Floats, score: Floats
) -> int:
    """Write keypoint, cell and score of the peaks: how many."""
    kinds, height, width = heat.shape
    found, pending = np.empty(height * width, np.int32), np.empty(height * width, np.int32)
    value = np.empty((height + 1) // 2 * ((width + 1) // 2))
    marked = np.zeros((height * width + 7) // 8 * 8, np.uint8)
    n = 0
    for k in range(kinds):
        count = _maxima(heat[k], threshold, marked, found, pending)
        for i in range(count):
            value[i] = heat[k, found[i] // width, found[i] % width]
        first = n
        for _ in range(count):
            if n - first == limit:
                break
            i = 0
            for j in range(1, count):
                if value[j] > value[i]:
                    i = j
            y, x = found[i] // width, found[i] % width
            cx, cy = _parabola(heat[k], y, x) if offset.size == 0 else _vote(heat[k], offset[k], y, x)
            if not _taken(cell, first, n, cx, cy):
                keypoint[n], cell[n, 0], cell[n, 1], score[n] = k, cx, cy, value[i]
                n += 1
            value[i] = -np.inf
    return n


@njit(cache=True, error_model="numpy")
def _maxima(heat: Maps, threshold: np.float32, marked: NDArray[np.uint8], found: Ints, pending: Ints) -> int:
    """Write the local maxima of one map to `found`, as y * width + x in rising order: how many."""
    _mark(heat.ravel(), heat.shape[1], threshold, marked)
    n, words = 0, marked.view(np.uint64)
    for word in range(len(words)):
        if words[word]:
            for place in range(8 * word, 8 * word + 8):
                if marked[place] and _is_maximum(heat, place, pending):
                    found[n] = place
                    n += 1
    return n


@njit(cache=True, error_model="numpy")
def _mark(heat: Maps, width: int, threshold: np.float32, marked: NDArray[np.uint8]) -> None:
    """Mark what reaches the threshold and is not lower than its neighbours in the row: a loop without branches becomes
    vector instructions, and where eight marks are 0, as nearly everywhere, one look at all eight suffices."""
    for i in range(1, len(heat) - 1):
        marked[i] = (heat[i] >= threshold) & (heat[i] >= heat[i - 1]) & (heat[i] >= heat[i + 1])
    for begin in range(0, len(heat), width):
        for i in (begin, begin + width - 1):
            marked[i] = heat[i] >= threshold


@njit(cache=True, error_model="numpy")
def _is_maximum(heat: Maps, place: int, pending: Ints) -> bool:
    """Whether no neighbour is higher and the cell is the first, row by row, of all equal cells that hang together."""
    height, width = heat.shape
    y, x = place // width, place % width
    value, level = heat[y, x], False
    for v in range(max(y - 1, 0), min(y + 2, height)):
        for u in range(max(x - 1, 0), min(x + 2, width)):
            if heat[v, u] >= value and (v != y or u != x):
                if heat[v, u] > value or v * width + u < place:
                    return False
                level = True
    return not level or _is_first(heat, place, pending)


@njit(cache=True, error_model="numpy")
def _is_first(heat: Maps, place: int, pending: Ints) -> bool:
    """Whether a plateau, followed from one of its cells, has neither a higher neighbour nor an earlier cell."""
    height, width = heat.shape
    value = heat[place // width, place % width]
    n, done = 1, 0
    pending[0] = place
    while done < n:
        y, x = pending[done] // width, pending[done] % width
        done += 1
        for v in range(max(y - 1, 0), min(y + 2, height)):
            for u in range(max(x - 1, 0), min(x + 2, width)):
                if heat[v, u] > value or (heat[v, u] == value and v * width + u < place):
                    return False
                new = heat[v, u] == value
                for i in range(n):
                    new &= pending[i] != v * width + u
                if new:
                    pending[n] = v * width + u
                    n += 1
    return True


@njit(cache=True, error_model="numpy")
def _vote(heat: Maps, offset: Maps, y: int, x: int) -> tuple[float, float]:
    """Where the 3x3 cells around a peak place it: the mean of the votes that agree with its own, weighted by heat."""
    height, width = heat.shape
    own_x, own_y = x + offset[0, y, x], y + offset[1, y, x]
    total, sum_x, sum_y = 0.0, 0.0, 0.0
    for v in range(max(y - 1, 0), min(y + 2, height)):
        for u in range(max(x - 1, 0), min(x + 2, width)):
            weight = heat[v, u]
            to_x, to_y = u + offset[0, v, u], v + offset[1, v, u]
            if weight >= _VOTES * heat[y, x] and (to_x - own_x) ** 2 + (to_y - own_y) ** 2 <= _AGREE**2:
                total, sum_x, sum_y = total + weight, sum_x + weight * to_x, sum_y + weight * to_y
    return sum_x / total, sum_y / total


@njit(cache=True, error_model="numpy")
def _parabola(heat: Maps, y: int, x: int) -> tuple[float, float]:
    """Where the parabolas through the logarithm of the heat and its neighbours' are highest; the cell at the border."""
    height, width = heat.shape
    cx, cy = float(x), float(y)
    if 0 < x < width - 1:
        cx += _vertex(heat[y, x - 1], heat[y, x], heat[y, x + 1])
    if 0 < y < height - 1:
        cy += _vertex(heat[y - 1, x], heat[y, x], heat[y + 1, x])
    return cx, cy


@njit(cache=True, error_model="numpy")
def _vertex(before: float, at: float, after: float) -> float:
    """Where a Gaussian through three values at -1, 0, 1 is highest; the middle one is the greatest."""
    least = 1e-6 * at
    low, middle, high = math.log(max(before, least)), math.log(at), math.log(max(after, least))
    bend = 2.0 * middle - low - high
    return 0.5 * (high - low) / bend if bend > 0.0 else 0.0


@njit(cache=True, error_model="numpy")
def _taken(cell: Floats, begin: int, end: int, x: float, y: float) -> bool:
    taken = False
    for i in range(begin, end):
        taken |= (cell[i, 0] - x) ** 2 + (cell[i, 1] - y) ** 2 < _SAME**2
    return taken


@njit(cache=True, nogil=True, error_model="numpy")
def _score_limbs(
    paf: Maps, limbs: Ints, start: Rows, cell: Floats, minimum: float, a: Rows, b: Rows, edge: Ints, score: Floats
) -> int:
    """Write the pairs and their scores: how many. start (kinds + 1,): the rows of each kind's candidates."""
    end, least = np.empty((len(cell), 2)), (2.0 * minimum) ** 2
    n = 0
    for limb in range(len(limbs)):
        first, second = limbs[limb, 0], limbs[limb, 1]
        _around(paf, limb, cell, end, start[first], start[first + 1])
        _around(paf, limb, cell, end, start[second], start[second + 1])
        for i in range(start[first], start[first + 1]):
            for j in range(start[second], start[second + 1]):
                x, y = cell[j, 0] - cell[i, 0], cell[j, 1] - cell[i, 1]
                along = x * (end[i, 0] + end[j, 0]) + y * (end[i, 1] + end[j, 1])
                squared = x * x + y * y
                if squared >= 1.0 and (along < 0.0 or along * along < least * squared):
                    continue
                value = _along(paf, limb, cell[i, 0], cell[i, 1], x, y, math.sqrt(squared), minimum)
                if value >= minimum:
                    a[n], b[n], edge[n], score[n] = i, j, limb, min(value, 1.0)
                    n += 1
    return n


@njit(cache=True, error_model="numpy")
def _around(paf: Maps, limb: int, cell: Floats, mean: Floats, begin: int, end: int) -> None:
    """Write the mean of a limb's field over the 3x3 cells around each candidate of one kind."""
    height, width = paf.shape[2:]
    for i in range(begin, end):
        column, row = int(cell[i, 0] + 0.5), int(cell[i, 1] + 0.5)
        x, y = 0.0, 0.0
        for v in range(max(row - 1, 0), min(row + 2, height)):
            for u in range(max(column - 1, 0), min(column + 2, width)):
                x, y = x + paf[limb, 0, v, u], y + paf[limb, 1, v, u]
        mean[i, 0], mean[i, 1] = x / 9.0, y / 9.0


@njit(cache=True, error_model="numpy")
def _along(
    paf: Maps, limb: int, from_x: float, from_y: float, x: float, y: float, length: float, minimum: float
) -> float:
    """Mean of a limb's field along a line that begins at from and goes by (x, y), in its direction; 0 as soon as a
    third of the samples has less than half the minimum."""
    height, width = paf.shape[2:]
    samples = min(max(int(length) + 1, 3), _SAMPLES)
    step = 1.0 / samples
    sum_x, sum_y, done, score = 0.0, 0.0, 0, 0.0
    for phase in (1, 0, 2):
        for i in range(phase, samples, 3):
            t = (i + 0.5) * step
            u = min(max(int(from_x + t * x + 0.5), 0), width - 1)
            v = min(max(int(from_y + t * y + 0.5), 0), height - 1)
            sum_x, sum_y, done = sum_x + paf[limb, 0, v, u], sum_y + paf[limb, 1, v, u], done + 1
        directed = length >= 1.0
        total = (sum_x * x + sum_y * y) / length if directed else math.sqrt(sum_x**2 + sum_y**2)
        score = total / done
        if score < 0.5 * minimum:
            return 0.0
    return score
