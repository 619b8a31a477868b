"""Covariances that are right, too small, or of the wrong shape are told as such; scores by the errors below them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import chi2

from pose3d.covariance_scores import evaluate_covariance, evaluate_scores
from pose3d.poses import Poses
from pose3d.skeleton import Skeleton

SKELETON = Skeleton(("a", "b", "c", "d"))


def recording(rng: np.random.Generator, d: int, factor: float = 1.0, n: int = 3000) -> tuple[Poses, Poses]:
    """Truth, and an estimate whose errors follow its covariances times factor; keypoint d has none."""
    points = rng.uniform(0, 500, (n, 1, 4, d)) + 200 * np.arange(4)[:, None]
    root = rng.normal(size=(n, 1, 4, d, d))
    error = np.sqrt(factor) * (root @ rng.normal(size=(n, 1, 4, d, 1)))[..., 0]
    covariance = root @ np.swapaxes(root, -1, -2)
    covariance[:, :, 3] = np.nan
    unit = {"unit": "px" if d == 2 else "mm"}
    truth = Poses(points, frame=np.arange(n), skeleton=SKELETON, **unit)
    estimate = Poses(
        points + error, rng.uniform(size=(n, 1, 4)), frame=np.arange(n), skeleton=SKELETON,
        extras={"covariance": covariance}, **unit,
    )  # fmt: skip
    return truth, estimate


@pytest.mark.parametrize("d", [2, 3])
def test_right_covariances(rng: np.random.Generator, d: int) -> None:
    told = evaluate_covariance(*recording(rng, d))
    assert told is not None
    assert told.n == 9000
    spread = np.sqrt(0.25 / 9000)
    for share, inside in zip((0.5, 0.9, 0.95, 0.99), told.inside.values(), strict=True):
        assert inside == pytest.approx(share, abs=4 * spread)
    assert told.nees_median == pytest.approx(1, abs=0.06)
    assert told.nees_mean == pytest.approx(1, abs=5 * np.sqrt(2 / d / 9000))
    assert np.isnan(told.keypoint_inside["d"])
    assert told.keypoint_inside["a"] == pytest.approx(0.95, abs=4 * np.sqrt(0.0475 / 3000))


def test_covariances_four_times_too_small(rng: np.random.Generator) -> None:
    told = evaluate_covariance(*recording(rng, 2, 4.0))
    assert told is not None
    assert told.nees_median == pytest.approx(4, rel=0.06)
    assert told.inside["95 %"] == pytest.approx(chi2.cdf(chi2.ppf(0.95, 2) / 4, 2), abs=0.02)


def test_the_total_counts_where_there_is_one(rng: np.random.Generator) -> None:
    truth, estimate = recording(rng, 3, 4.0)
    total = {**estimate.extras, "covariance_total": 4 * estimate.extras["covariance"]}
    told = evaluate_covariance(truth, estimate.replace(extras=total))
    assert told is not None
    assert told.nees_median == pytest.approx(1, abs=0.06)
    assert evaluate_covariance(truth, estimate.replace(extras={})) is None


def test_individuals_meet_by_identity_with_their_covariances(rng: np.random.Generator) -> None:
    points = rng.uniform(0, 50, (40, 2, 4, 2)) + np.array([0, 400])[:, None, None]
    truth = Poses(points, ids=np.tile([0, 1], (40, 1)), frame=np.arange(40), skeleton=SKELETON)
    sd = np.array([1.0, 3.0])[:, None]
    noisy = points + sd[:, None] * rng.normal(size=points.shape)
    covariance = np.broadcast_to((sd**2)[:, :, None, None] * np.eye(2), (40, 2, 4, 2, 2))
    estimate = Poses(
        noisy[:, ::-1], ids=np.tile([7, 4], (40, 1)), frame=np.arange(40), skeleton=SKELETON,
        extras={"covariance": covariance[:, ::-1]},
    )  # fmt: skip
    told = evaluate_covariance(truth, estimate)
    assert told is not None
    assert told.n == 320
    assert told.nees_mean == pytest.approx(1, abs=5 * np.sqrt(1 / 320))


def test_scores_that_mean_something(rng: np.random.Generator) -> None:
    truth, estimate = recording(rng, 2)
    score = estimate.score
    points = truth.points + (10 * (1.1 - score))[..., None] * rng.normal(size=truth.points.shape)
    bins = evaluate_scores(truth, estimate.replace(points=points))
    assert [part.n for part in bins] == [2400] * 5
    assert all(one.median > 1.2 * other.median and one.high <= other.low for one, other in pairwise(bins))
    expected = 10 * (1.1 - 0.9) * np.sqrt(2 * np.log(2))  # Rayleigh's median at a score of 0.9
    assert bins[-1].median == pytest.approx(expected, rel=0.1)
    assert evaluate_scores(truth, estimate.replace(score=np.ones_like(score))) == ()
