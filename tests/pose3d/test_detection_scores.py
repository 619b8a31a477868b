"""OKS and its average precision against closed forms and against COCO's rules written out plainly."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.errors import InputError
from pose3d.detection_scores import DetectionOptions, evaluate_detections, oks
from pose3d.poses import Poses
from pose3d.skeleton import Skeleton

SQUARE = np.array([[0.0, 0.0], [20.0, 0.0], [20.0, 20.0], [0.0, 20.0]])
KAPPA = 0.05


def one_at_each(*corners: tuple[float, float]) -> np.ndarray:
    """(1, animals, 4, 2) squares with a side of 20 px."""
    return np.stack([SQUARE + corner for corner in corners])[None]


def test_oks_is_the_mean_of_the_keypoints_similarities() -> None:
    off = SQUARE + np.array([[0, 0], [1, 0], [0, 2], [3, 4]])
    squared = np.array([0, 1, 4, 25])
    assert oks(SQUARE, off, 400.0, KAPPA) == pytest.approx(np.mean(np.exp(-squared / (2 * 400 * KAPPA**2))))
    each = np.array([0.05, 0.1, 0.2, 0.4])
    assert oks(SQUARE, off, 400.0, each) == pytest.approx(np.mean(np.exp(-squared / (2 * 400 * each**2))))
    lacking = off.copy()
    lacking[0] = np.nan  # adds nothing, but counts
    assert oks(SQUARE, lacking, 400.0, KAPPA) == pytest.approx(np.sum(np.exp(-squared[1:] / 2)) / 4)
    unlabelled = SQUARE.copy()
    unlabelled[3] = np.nan  # does not count
    assert oks(unlabelled, off, 400.0, KAPPA) == pytest.approx(np.mean(np.exp(-squared[:3] / 2)))
    assert np.isnan(oks(np.full((4, 2), np.nan), off, 400.0, KAPPA))
    pairs = oks(np.stack((SQUARE, off))[:, None], np.stack((off, SQUARE))[None], np.full((2, 1), 400.0), KAPPA)
    np.testing.assert_allclose(np.diag(pairs), oks(SQUARE, off, 400.0, KAPPA))
    np.testing.assert_allclose(pairs[[0, 1], [1, 0]], 1.0)


def test_missed_keypoints_are_infinitely_far() -> None:
    truth = np.tile(one_at_each((0, 0), (100, 0)), (4, 1, 1, 1))
    found = truth[:, ::-1] + [3.0, 4.0]  # slots do not matter
    found[0, 0, :3] = np.nan  # three quarters of one animal
    found[1, 1] = np.nan
    found[2, 0, 0] += [3.0, 4.0]
    found[3, 0, 1:3] = np.nan
    errors = evaluate_detections(Poses(truth), Poses(found))
    assert (errors.n, errors.median, errors.within) == (32, pytest.approx(5.0), 22 / 32)
    assert errors.delivered == pytest.approx(1 - 9 / 32)
    assert errors.all_found == pytest.approx(0.5), "half of its keypoints are enough in the last frame"
    assert evaluate_detections(Poses(truth), Poses(found), DetectionOptions(found=0.6)).all_found == 0.25
    assert evaluate_detections(Poses(truth), Poses(found), DetectionOptions(within=4.99)).within == 0.0
    none = evaluate_detections(Poses(truth), Poses(np.full_like(found, np.nan)))
    assert (none.median, none.within, none.all_found, none.oks_map) == (np.inf, 0.0, 0.0, 0.0)


def test_perfect_detections_and_frames_without_truth() -> None:
    truth = np.tile(one_at_each((0, 0), (100, 0)), (4, 1, 1, 1))
    points = truth.copy()
    points[3] = np.nan
    points[2, 1] = np.nan
    found = truth.copy()
    found[2, 1] = np.nan
    errors = evaluate_detections(Poses(points), Poses(found))
    assert (errors.oks_map, errors.all_found, errors.all_alike, errors.median) == (1.0, 1.0, 1.0, 0.0)
    assert errors.n == 5 * 4


def test_a_false_detection_costs_by_its_rank() -> None:
    """Two right ones and a false one: ranked last it costs nothing, ranked first precision is 2/3 throughout."""
    truth, found = Poses(one_at_each((0, 0), (100, 0))), one_at_each((0, 0), (100, 0), (300, 0))
    for scores, expected in (
        ((0.9, 0.8, 0.1), 1.0),
        ((0.8, 0.7, 0.9), 2 / 3),
        ((0.9, 0.7, 0.8), (51 + 50 * 2 / 3) / 101),
    ):
        score = np.broadcast_to(np.array(scores)[None, :, None], (1, 3, 4))
        assert evaluate_detections(truth, Poses(found, score)).oks_map == pytest.approx(expected)


def test_all_alike_asks_where_the_keypoints_are() -> None:
    truth = Poses(one_at_each((0, 0), (100, 0)))
    limit = np.sqrt(2 * np.log(2))  # px, where the similarity is one half: area 400, kappa 0.05
    for offset, expected in ((limit - 0.01, 1.0), (limit + 0.01, 0.0)):
        errors = evaluate_detections(truth, Poses(one_at_each((0, 0), (100 + offset, 0))))
        assert (errors.all_alike, errors.all_found) == (expected, 1.0)


def test_what_cannot_be_judged_is_refused() -> None:
    truth = Poses(one_at_each((0, 0)))
    with pytest.raises(InputError, match="expected 2D poses"):
        evaluate_detections(Poses(np.zeros((1, 1, 4, 3))), Poses(np.zeros((1, 1, 4, 3))))
    with pytest.raises(InputError, match="no common keypoint"):
        evaluate_detections(truth, truth.replace(skeleton=Skeleton(tuple("wxyz"))))
    with pytest.raises(InputError, match="expected keypoints in the truth"):
        evaluate_detections(truth.replace(points=np.full((1, 1, 4, 2), np.nan)), truth)


def plain_map(truth: Poses, found: Poses) -> float:
    """COCO's average precision of keypoints, loop by loop (pycocotools: evaluateImg, accumulate)."""
    precisions = []
    for threshold in np.arange(0.5, 0.96, 0.05):
        detections, n = [], 0
        for frame in range(truth.shape[0]):
            animals = [a for a in truth.points[frame] if np.isfinite(a).any()]
            n += len(animals)
            free = list(range(len(animals)))
            slots = [s for s in range(found.shape[1]) if np.isfinite(found.points[frame, s]).any()]
            for slot in sorted(slots, key=lambda s: -found.score[frame, s].mean()):
                best, chosen = threshold, None
                for animal in free:
                    labelled = [k for k in range(truth.shape[2]) if np.isfinite(animals[animal][k, 0])]
                    width, height = np.ptp(animals[animal][labelled], axis=0)
                    total = 0.0
                    for k in labelled:
                        d2 = np.sum((animals[animal][k] - found.points[frame, slot, k]) ** 2)
                        total += np.exp(-d2 / (2 * width * height * KAPPA**2)) if np.isfinite(d2) else 0.0
                    if total / len(labelled) >= best:
                        best, chosen = total / len(labelled), animal
                if chosen is not None:
                    free.remove(chosen)
                detections.append((found.score[frame, slot].mean(), chosen is not None))
        detections.sort(key=lambda d: -d[0])
        right, curve = 0, []
        for rank, (_, hit) in enumerate(detections, start=1):
            right += hit
            curve.append((right / n, right / rank))
        precisions += [max((p for r, p in curve if r >= recall), default=0.0) for recall in np.linspace(0, 1, 101)]
    return float(np.mean(precisions))


@pytest.mark.parametrize("spread", [0.5, 1.5, 3.0])
def test_average_precision_equals_cocos_rules(rng: np.random.Generator, spread: float) -> None:
    frames, animals, keypoints = 12, 3, 6
    truth = rng.uniform(0, 60, (frames, animals, keypoints, 2)) + rng.uniform(0, 40, (frames, animals, 1, 2))
    found = np.concatenate((truth, truth[:, :1] + 30), axis=1) + rng.normal(0, spread, (frames, 4, keypoints, 2))
    truth[rng.random(truth.shape[:3]) < 0.15] = np.nan
    truth[::5, 1] = np.nan
    found[rng.random(found.shape[:3]) < 0.1] = np.nan
    found[::4, 2] = np.nan
    score = rng.random(found.shape[:3])
    poses = Poses(found, score).take_slots(np.argsort(rng.random((frames, 4)), axis=1))
    errors = evaluate_detections(Poses(truth), poses)
    assert 0.0 < errors.oks_map < 1.0
    assert errors.oks_map == pytest.approx(plain_map(Poses(truth), poses), rel=1e-12)
