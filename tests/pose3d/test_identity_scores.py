"""Scores of identities by hand, against TrackEval, and the answer that is known for TUD-Campus."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.errors import InputError
from pose3d.identity_scores import ALPHAS, score_identities

BY_TRACKEVAL = {
    0: (0.177352333, 0.387555163, 0.084372908, 0.759752434, 0.243243243, 0.243243243, 0.243243243),
    1: (0.186739543, 0.339094924, 0.105099304, 0.785822376, 0.251968504, 0.219178082, 0.296296296),
    2: (0.100986066, 0.111561349, 0.097758556, 0.739658339, 0.144578313, 0.24, 0.103448276),
    3: (0.127888481, 0.16942375, 0.097733177, 0.737622453, 0.125, 0.090909091, 0.2),
    4: (0.224309742, 0.434631392, 0.118108794, 0.778321317, 0.265151515, 0.244755245, 0.289256198),
    5: (0.099522994, 0.106630556, 0.093871538, 0.82987295, 0.140625, 0.529411765, 0.081081081),
}
"""HOTA, DetA, AssA, LocA, IDF1, IDP, IDR of `random_case` by TrackEval 1.3.0."""


def random_case(seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Similarities, true and estimated identities, a fifth of which are not there."""
    rng = np.random.default_rng(seed)
    n, a, b = rng.integers(5, 40), rng.integers(1, 6), rng.integers(1, 7)
    true, found = (np.array([rng.permutation(k + extra)[:k] for _ in range(n)]) for k, extra in ((a, 2), (b, 3)))
    true, found = (np.where(rng.uniform(size=ids.shape) < 0.2, -1, ids) for ids in (true, found))
    return rng.uniform(size=(n, a, b)) ** 2, true, found


@pytest.mark.parametrize("seed", BY_TRACKEVAL)
def test_trackeval_agrees(seed: int) -> None:
    errors = score_identities(*random_case(seed))
    own = (errors.hota, errors.deta, errors.assa, errors.loca, errors.idf1, errors.idp, errors.idr)
    np.testing.assert_allclose(own, BY_TRACKEVAL[seed], atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_names_and_order_play_no_part(seed: int, rng: np.random.Generator) -> None:
    similarity, true, found = random_case(seed)
    rows, columns = rng.permutation(true.shape[1]), rng.permutation(found.shape[1])
    other = score_identities(
        similarity[:, rows][:, :, columns], true[:, rows], np.where(found < 0, -1, 90 - 7 * found)[:, columns]
    )
    for name, value in score_identities(similarity, true, found).to_dict().items():
        assert getattr(other, name) == pytest.approx(value, nan_ok=True), name


def test_a_swap_halfway_in_closed_form() -> None:
    """Two animals, found everywhere with similarity 0.7, exchange their identities after 6 of 10 frames."""
    true = np.tile([0, 1], (10, 1))
    found = np.where(np.arange(10)[:, None] < 6, [3, 4], [4, 3])
    similarity = np.zeros((10, 2, 2))
    similarity[:, [0, 1], [0, 1]] = 0.7
    errors = score_identities(similarity, true, found)
    assert (errors.switches, errors.misses, errors.false_positives) == (2, 0, 0)
    assert errors.idf1 == pytest.approx(0.6)
    assert errors.motp == pytest.approx(0.7)
    share = (ALPHAS < 0.7 + 1e-9).mean()  # of the thresholds that find them
    assert errors.deta == pytest.approx(share)
    jaccard = 0.6 * 6 / (10 + 10 - 6) + 0.4 * 4 / (10 + 10 - 4)
    assert errors.assa == pytest.approx(share * jaccard)
    assert errors.hota == pytest.approx(share * np.sqrt(jaccard))
    assert errors.loca == pytest.approx(share * 0.7 + (1 - share))


def test_nobody_there() -> None:
    nobody, somebody, none = np.full((3, 2), -1), np.tile([0, 1], (3, 1)), np.zeros((3, 2, 2))
    errors = score_identities(none, nobody, nobody)
    assert np.isnan([errors.mota, errors.idf1, errors.hota]).all()
    errors = score_identities(none, somebody, nobody)
    assert (errors.misses, errors.mota, errors.idf1, errors.hota) == (6, 0.0, 0.0, 0.0)
    errors = score_identities(none[:0], somebody[:0], somebody[:0])
    assert errors.truths == 0


def test_bad_input() -> None:
    with pytest.raises(InputError, match="found_ids has 4 twice in row 1"):
        score_identities(np.zeros((2, 1, 2)), [[0], [0]], [[3, 4], [4, 4]])
    with pytest.raises(InputError, match=r"expected similarities .* got \(2, 1, 2\)"):
        score_identities(np.zeros((2, 1, 2)), [[0], [0]], [[3], [4]])


def boxes(path: Path) -> dict[int, dict[int, list[float]]]:
    """{frame: {identity: left, top, width, height}} of a file of the MOT challenge."""
    found: dict[int, dict[int, list[float]]] = {}
    with path.open() as file:
        for row in csv.reader(file):
            found.setdefault(int(row[0]), {})[int(row[1])] = [float(v) for v in row[2:6]]
    return found


def overlap(a: list[float], b: list[float]) -> float:
    """Intersection over union."""
    sides = [min(a[i] + a[i + 2], b[i] + b[i + 2]) - max(a[i], b[i]) for i in (0, 1)]
    common = max(sides[0], 0) * max(sides[1], 0)
    return common / (a[2] * a[3] + b[2] * b[3] - common)


@pytest.mark.real
def test_tud_campus(real_data: Path) -> None:
    """py-motmetrics' known answer; HOTA is TrackEval's."""
    truth, tracks = (boxes(real_data / f"motmetrics_tud/TUD-Campus/{name}.txt") for name in ("gt", "test"))
    frames = sorted(truth | tracks)
    most = [max(len(table.get(frame, {})) for frame in frames) for table in (truth, tracks)]
    ids = [np.full((len(frames), n), -1) for n in most]
    similarity = np.zeros((len(frames), *most))
    for row, frame in enumerate(frames):
        here, there = truth.get(frame, {}), tracks.get(frame, {})
        for known, table in zip(ids, (here, there), strict=True):
            known[row, : len(table)] = list(table)
        similarity[row, : len(here), : len(there)] = [[overlap(a, b) for b in there.values()] for a in here.values()]
    errors = score_identities(similarity, *ids)
    assert (errors.truths, errors.misses, errors.false_positives, errors.switches) == (359, 150, 13, 7)
    assert errors.mota == pytest.approx(0.526, abs=5e-4)
    assert errors.idf1 == pytest.approx(0.558, abs=5e-4)
    assert errors.hota == pytest.approx(0.3913974378, abs=1e-9)
