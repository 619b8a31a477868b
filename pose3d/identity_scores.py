"""How well do identities hold over time? MOTA, IDF1 and HOTA from similarities frame by frame."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from calibration.errors import InputError

__all__ = ["TrackErrors", "score_identities"]

Float = NDArray[np.float64]
Ids = NDArray[np.int64]

ALPHAS = np.linspace(0.05, 0.95, 19)
"""Similarities from which HOTA takes a pair for a match; it is the mean over them."""
ROUNDING = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class TrackErrors:
    """Identity over time, of estimates matched to truths from a similarity on (HOTA: from each of ALPHAS on).

    truths, misses, false_positives, switches, fragmentations: counts. fragmentations: a followed individual was lost
    and found again. mota = 1 - (misses + false_positives + switches) / truths; motp: mean similarity of the matches
    (Bernardin & Stiefelhagen 2008). idf1, and the precision and recall idp, idr that it joins (Ristani et al. 2016).
    hota: geometric mean of detection and association accuracy deta, assa, mean over alphas as these; loca: mean
    similarity of its matches (Luiten et al. 2021). NaN where nothing is to be divided by. d0: see TrackOptions; NaN
    where it played no part.
    """

    truths: int
    misses: int
    false_positives: int
    switches: int
    fragmentations: int
    mota: float
    motp: float
    idf1: float
    idp: float
    idr: float
    hota: float
    deta: float
    assa: float
    loca: float
    d0: float = float("nan")

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return asdict(self)


def score_identities(
    similarity: Float, true_ids: NDArray[np.integer], found_ids: NDArray[np.integer], match_at: float = 0.5
) -> TrackErrors:
    """The errors of estimated identities.

    similarity: (frames, truths, estimates) 0..1 of each pair in a frame, NaN where the two cannot be compared.
    true_ids (frames, truths), found_ids (frames, estimates): who each is, -1 = nobody there; an estimate of unknown
    identity needs one that nobody else has. match_at: least similarity of a match for MOTA and IDF1. Raises InputError
    for shapes that do not fit, and where an identity is twice in a frame.
    """
    similarity = np.nan_to_num(np.asarray(similarity, dtype=np.float64), nan=0.0)
    true, found = np.asarray(true_ids, dtype=np.int64), np.asarray(found_ids, dtype=np.int64)
    if similarity.shape != (*true.shape, *found.shape[1:]) or len(true) != len(found):
        raise InputError(
            f"score_identities: expected similarities (frames, truths, estimates) for ids {true.shape} and "
            f"{found.shape}, got {similarity.shape}"
        )
    _expect_once("true_ids", true)
    _expect_once("found_ids", found)
    pairs = (true >= 0)[:, :, None] & (found >= 0)[:, None]
    similarity = np.where(pairs, similarity, 0.0)
    allowed = pairs & (similarity >= match_at)
    a, b = _rows(true), _rows(found)
    truths, estimates = int((true >= 0).sum()), int((found >= 0).sum())
    matches, closeness, switches, fragmentations = _clear(similarity, allowed, a, b)
    misses, false_positives = truths - matches, estimates - matches
    together = _pair_sums(allowed.astype(np.float64), a, b)
    idtp = float(together[linear_sum_assignment(-together)].sum())
    hota, deta, assa, loca = _hota(similarity, pairs, a, b)
    return TrackErrors(
        truths, misses, false_positives, switches, fragmentations,
        mota=1.0 - _ratio(misses + false_positives + switches, truths), motp=_ratio(closeness, matches),
        idf1=_ratio(2 * idtp, truths + estimates), idp=_ratio(idtp, estimates), idr=_ratio(idtp, truths),
        hota=hota, deta=deta, assa=assa, loca=loca,
    )  # fmt: skip


def _rows(ids: Ids) -> Ids:
    """The same with identities numbered from 0 without gaps."""
    return np.where(ids >= 0, np.searchsorted(np.unique(ids[ids >= 0]), ids), -1)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def _expect_once(name: str, ids: Ids) -> None:
    """Raise InputError where an identity is twice in a frame."""
    order = np.sort(ids, axis=1)
    twice = (np.diff(order, axis=1) == 0) & (order[:, 1:] >= 0)
    if twice.any():
        frame, slot = np.argwhere(twice)[0].tolist()
        raise InputError(f"score_identities: {name} has {order[frame, slot]} twice in row {frame}; expected it once")


def _clear(similarity: Float, allowed: NDArray[np.bool_], true: Ids, found: Ids) -> tuple[int, float, int, int]:
    """Matches, the sum of their similarities, switches and fragmentations; whoever followed last is kept while it is
    allowed (Bernardin & Stiefelhagen 2008, section 2.1)."""
    matches = switches = fragmentations = 0
    total = 0.0
    last: dict[int, int] = {}  # the identity that last followed each true one
    lost: set[int] = set()
    for value, ok, who, whom in zip(similarity, allowed, true.tolist(), found.tolist(), strict=True):
        kept = np.array([[t >= 0 and last.get(t) == f for f in whom] for t in who], dtype=bool).reshape(ok.shape)
        rows, columns = linear_sum_assignment(-(ok * (value + 1000.0 * kept)))
        good = ok[rows, columns]
        total += float(value[rows[good], columns[good]].sum())
        now = {who[r]: whom[c] for r, c in zip(rows[good].tolist(), columns[good].tolist(), strict=True)}
        for one, follower in now.items():
            switches += one in last and last[one] != follower
            fragmentations += one in lost
        lost = (lost | {t for t in who if t in last}) - set(now)
        last |= now
        matches += len(now)
    return matches, total, switches, fragmentations


def _pair_sums(values: Float, true: Ids, found: Ids) -> Float:
    """(true identities, estimated ones) sums over frames of values (frames, truths, estimates)."""
    sums = np.zeros((int(true.max(initial=-1)) + 1, int(found.max(initial=-1)) + 1))
    frame, i, j = np.nonzero(values)
    np.add.at(sums, (true[frame, i], found[frame, j]), values[frame, i, j])
    return sums


def _hota(similarity: Float, pairs: NDArray[np.bool_], true: Ids, found: Ids) -> tuple[float, float, float, float]:
    """HOTA, DetA, AssA and LocA, means over ALPHAS (Luiten et al. 2021, sections 4.1 and 6.1).

    Matches of a frame are those with the greatest total similarity, each weighed by how alike its two identities are
    over the whole recording, from similarities alone, without any threshold.
    """
    n_true, n_found = (np.bincount(ids[ids >= 0], minlength=int(ids.max(initial=-1)) + 1) for ids in (true, found))
    truths, estimates = int(n_true.sum()), int(n_found.sum())
    if not truths or not estimates:
        nothing = 0.0 if truths or estimates else float("nan")
        return nothing, nothing, nothing, float("nan")
    either = similarity.sum(axis=1, keepdims=True) + similarity.sum(axis=2, keepdims=True) - similarity
    share = np.divide(similarity, either, out=np.zeros_like(similarity), where=either > ROUNDING)
    both = _pair_sums(share, true, found)
    alike = both / (n_true[:, None] + n_found - both)
    weighed = np.where(pairs, alike[true[:, :, None], found[:, None]] * similarity, 0.0)
    best = [linear_sum_assignment(-gain) for gain in weighed]
    frame = np.repeat(np.arange(len(best)), [len(rows) for rows, _ in best])
    at = frame, np.concatenate([rows for rows, _ in best]), np.concatenate([columns for _, columns in best])
    real = pairs[at]
    value, who, whom = similarity[at][real], true[at[0], at[1]][real], found[at[0], at[2]][real]
    scores = []
    for alpha in ALPHAS:
        good = value >= alpha - ROUNDING
        hits = int(good.sum())
        count = np.zeros(both.shape)
        np.add.at(count, (who[good], whom[good]), 1)
        jaccard = count / np.maximum(1, n_true[:, None] + n_found - count)
        deta, assa = hits / (truths + estimates - hits), float((count * jaccard).sum()) / max(1, hits)
        scores.append((np.sqrt(deta * assa), deta, assa, float(value[good].mean()) if hits else 1.0))
    hota, deta, assa, loca = np.mean(scores, axis=0).tolist()
    return hota, deta, assa, loca
