from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.errors import InputError
from pose3d import tracking
from pose3d.evaluation import evaluate_tracks
from pose3d.poses import Poses
from pose3d.skeleton import Skeleton
from pose3d.synthetic import simulate_animals
from pose3d.tracking import TrackingOptions, Tracklets, reach, stitch, track

Float = NDArray[np.float64]

SKELETON = Skeleton(tuple("abcde"))


def walkers(rng: np.random.Generator, animals: int, frames: int, D: int, *, smooth: bool) -> Poses:
    """Animals of five keypoints in a box of side 1000: smooth walks at about 5 a frame, or random walks of the same
    step."""
    if smooth:
        t = np.arange(frames)[:, None, None] / 60.0
        phase, rate = rng.uniform(0, 2 * np.pi, (2, animals, D)), rng.uniform(0.3, 1.0, (animals, D))
        centre = 500 + 400 * np.sin(phase[0] + rate * t)
    else:
        centre = np.cumsum(rng.uniform(-8, 8, (frames, animals, D)), axis=0) + rng.uniform(100, 900, (animals, D))
    points = centre[:, :, None] + 12 * rng.normal(size=(animals, 5, D))
    return Poses(points, ids=np.tile(np.arange(animals), (frames, 1)), skeleton=SKELETON, fps=30)


def detected(rng: np.random.Generator, truth: Poses, *, dropout: float = 0.002) -> Poses:
    """The truth with 1 unit of noise, misses, dropouts, false detections, in random slots."""
    frames, animals, keypoints, D = truth.shape
    points = truth.points + rng.normal(size=truth.shape)
    points[rng.uniform(size=(frames, animals, keypoints)) < 0.1] = np.nan
    points[rng.uniform(size=(frames, animals)) < 0.05] = np.nan
    for f, a in np.argwhere(rng.uniform(size=(frames, animals)) < dropout):
        points[f : f + rng.integers(5, 25), a] = np.nan
    false = rng.uniform(0, 1000, (frames, animals, 1, D)) + 12 * rng.normal(size=truth.shape)
    false[rng.uniform(size=(frames, animals)) > 0.05] = np.nan
    points = np.concatenate([points, false], axis=1)
    order = rng.permuted(np.tile(np.arange(2 * animals), (frames, 1)), axis=1)
    return Poses(np.take_along_axis(points, order[..., None, None], axis=1), skeleton=SKELETON, fps=30, unit=truth.unit)


@pytest.mark.parametrize(("D", "smooth"), [(2, True), (3, True), (2, False)])
def test_animals_keep_their_ids(rng: np.random.Generator, D: int, smooth: bool) -> None:
    truth = walkers(rng, 6, 400, D, smooth=smooth)
    tracked = track(detected(rng, truth))
    errors = evaluate_tracks(truth, tracked)
    assert errors.switches <= 3
    best = 2 * (errors.truths - errors.misses) / (2 * errors.truths - errors.misses + errors.false_positives)
    assert errors.idf1 > best - 0.02, "what was detected keeps one id throughout"
    first = [int(np.argmax((tracked.ids == i).any(axis=1))) for i in range(tracked.ids.max() + 1)]
    assert first == sorted(first), "ids are numbered in order of first appearance"


def test_without_faults_nothing_is_lost(rng: np.random.Generator) -> None:
    truth = simulate_animals(rng, 3, 150)
    order = rng.permuted(np.tile(np.arange(3), (150, 1)), axis=1)
    noisy = truth.take_slots(order)
    noisy = noisy.replace(points=noisy.points + 0.5 * rng.normal(size=noisy.shape), ids=np.full((150, 3), -1))
    tracked = track(noisy)
    errors = evaluate_tracks(truth, tracked)
    assert (errors.mota, errors.idf1, errors.switches) == (1.0, 1.0, 0)
    assert np.unique(tracked.ids).tolist() == [0, 1, 2]
    np.testing.assert_array_equal(tracked.points, noisy.points)
    np.testing.assert_array_equal(track(noisy).ids, tracked.ids)


def straight(gap: range, *, speed: float = 10.0, frames: int = 60) -> Poses:
    """One animal walking straight on, unseen during the gap, and one far away that stands still."""
    points = np.zeros((frames, 2, 5, 2))
    points += 20 * np.array([[0, 0], [1, 0], [0, 1], [1, 1], [2, 1]])
    points[:, 0, :, 0] += speed * np.arange(frames)[:, None]
    points[:, 1] += 5000.0
    points[list(gap), 0] = np.nan
    return Poses(points, skeleton=SKELETON)


def test_a_gap_is_bridged_as_long_as_the_track_is_remembered_or_can_be_stitched() -> None:
    assert len(np.unique(track(straight(range(20, 30))).ids[:, 0])) == 2  # its id and -1 in the gap
    tracked = track(straight(range(20, 23)), TrackingOptions(max_gap=2))
    assert set(tracked.ids[:, 0]) == {0, -1}, "stitched where it must have gone"
    jumping = straight(range(20, 30))
    points = jumping.points.copy()
    points[30:, 0] += 2000.0
    tracked = track(jumping.replace(points=points))
    assert tracked.ids[19, 0] != tracked.ids[30, 0], "nothing moves as fast as that"


def test_frame_numbers_that_jump_are_longer_steps() -> None:
    poses = straight(range(0), frames=40)
    keep = np.r_[np.arange(20), np.arange(30, 40)]
    sparse = poses.replace(
        points=poses.points[keep],
        score=poses.score[keep],
        ids=poses.ids[keep],
        frame=poses.frame[keep],
        time=poses.time[keep],
    )
    tracked = track(sparse, TrackingOptions(max_gap=20))
    assert (tracked.ids[:, 0] == tracked.ids[0, 0]).all()


def test_short_tracks_have_no_id(rng: np.random.Generator) -> None:
    poses = straight(range(0))
    false = np.full((60, 1, 5, 2), np.nan)
    false[30:32] = -3000.0 + 20 * rng.normal(size=(1, 1, 5, 2))
    more = Poses(np.concatenate([poses.points, false], axis=1), skeleton=SKELETON)
    assert (track(more).ids[:, 2] == -1).all()
    assert (track(more, TrackingOptions(min_frames=2)).ids[30:32, 2] >= 0).all()
    assert (track(more.window(28, 33)).ids[2:4, 2] >= 0).all(), "a recording of five frames has no short tracks"


def test_given_covariances_are_the_noise(rng: np.random.Generator) -> None:
    """Two points pass at a distance that the given covariance makes certain."""
    frames = 60
    points = np.zeros((frames, 2, 5, 3)) + 5.0 * rng.normal(size=(1, 1, 5, 3))
    points[:, 0, :, 0] += np.arange(frames)[:, None] - 30
    points[:, 1, :, 0] -= np.arange(frames)[:, None] - 30
    points[:, 1, :, 1] += 1.0
    covariance = np.broadcast_to(1e-4 * np.eye(3), (frames, 2, 5, 3, 3))
    poses = Poses(
        points + 0.01 * rng.normal(size=points.shape), skeleton=SKELETON, unit="mm", extras={"covariance": covariance}
    )
    ids = track(poses).ids
    assert (ids == ids[0]).all()
    assert ids[0].tolist() == [0, 1]


def test_edge_cases() -> None:
    one = Poses(np.zeros((1, 2, 5, 2)) + np.array([0.0, 500.0])[:, None, None], skeleton=SKELETON)
    assert track(one).ids.tolist() == [[0, 1]]
    still = Poses(np.zeros((30, 1, 1, 2)))
    assert (track(still).ids == 0).all()
    with pytest.raises(InputError, match="no keypoint in any frame"):
        track(Poses(np.full((3, 1, 2, 2), np.nan)))


def pieces(first: list[int], last: list[int], began: list[float], ended: list[float]) -> Tracklets:
    start, end = np.zeros((len(first), 2, 2)), np.zeros((len(first), 2, 4))
    start[..., 0], end[..., 0] = np.array(began)[:, None], np.array(ended)[:, None]
    return Tracklets(np.array(first), np.array(last), start, end, radius=10.0, step=1.0)


def test_stitching_takes_all_the_best_links_at_once() -> None:
    assert stitch(pieces([0, 20, 20], [10, 30, 30], [0, 24, 3], [0, 24, 3])).tolist() == [0, 1, 0]
    chain = pieces([0, 0, 12, 13, 30], [10, 11, 20, 20, 40], [0, 9, 4, 20, 4], [0, 9, 4, 20, 4])
    assert stitch(chain).tolist() == [0, 1, 0, 1, 0], "4 is nearer to 9 - 4 = 5 than 20 is, but 0 - 4, 9 - 20 gain more"
    assert stitch(pieces([0, 10], [10, 20], [0, 0], [0, 0])).tolist() == [0, 1], "both were seen in frame 10"
    edge = 10.0 + np.sqrt(2 * 5 * 5)  # one radius and the reach of five frames
    assert stitch(pieces([0, 10], [5, 20], [0, edge - 0.01], [0, 0])).tolist() == [0, 0]
    assert stitch(pieces([0, 10], [5, 20], [0, edge + 0.01], [0, 0])).tolist() == [0, 1]


def test_a_piece_may_take_over_from_one_that_lives_on() -> None:
    late = pieces([0, 8, 8], [10, 30, 9], [0, 0, 0], [0, 0, 0])
    assert stitch(late).tolist() == [0, 1, 2]
    assert stitch(late, np.array([7, 30, 9])).tolist() == [0, 0, 1], "who ends before it cannot follow"
    assert stitch(late, np.array([8, 30, 9])).tolist() == [0, 1, 2]
    same = pieces([0, 0], [10, 30], [0, 0], [0, 0])
    assert stitch(same, np.array([-5, -5])).tolist() == [0, 1], "both began at once"
    far = 10.0 + np.sqrt(2 * 3 * 3)  # one radius and the reach of three frames, whichever is earlier
    assert stitch(pieces([0, 7], [10, 20], [0, far - 0.01], [0, 0]), np.array([5, 20])).tolist() == [0, 0]
    assert stitch(pieces([0, 7], [10, 20], [0, far + 0.01], [0, 0]), np.array([5, 20])).tolist() == [0, 1]


def test_stitching_compares_common_keypoints_only() -> None:
    part = pieces([0, 10], [5, 20], [0, 0], [0, 0])
    part.ended[0, 0] = np.nan
    part.began[1, 0] = 1000.0
    assert stitch(part).tolist() == [0, 0]
    part.began[1, 1] = np.nan
    assert stitch(part).tolist() == [0, 1], "nothing in common, nothing known"


def test_the_reach_is_straight_at_first_and_then_a_random_walk() -> None:
    np.testing.assert_allclose(reach(np.array([1, 10, 15]), 2.0, 3), 2 * np.sqrt(3) * np.array([1, 10, 15]))
    assert reach(np.array(60), 2.0, 3) == pytest.approx(2 * np.sqrt(3) * 30)


def test_costs_are_the_formula_of_their_docstring(rng: np.random.Generator) -> None:
    T, n, K, D, gate = 2, 3, 4, 3, 16.0
    mean, points = rng.normal(size=(T, K, 2 * D)), rng.normal(size=(n, K, D))
    roots = rng.normal(size=(T, K, 2 * D, 2 * D)), rng.normal(size=(n, K, D, D))
    covariance, noise = (root @ root.swapaxes(-1, -2) for root in roots)
    usual = rng.uniform(0.5, 2.0, K)
    points[0, 1], mean[1, 2], points[2] = np.nan, np.nan, np.nan
    points[1, 3] += 100.0  # so far off that it counts at most _WORST
    cost = tracking._costs(mean, covariance, points, noise, gate, usual)
    for t in range(T):
        for i in range(n):
            each = []
            for k in range(K):
                d = points[i, k] - mean[t, k, :D]
                if not np.isnan(d).any():
                    v = (np.trace(covariance[t, k, :D, :D]) + np.trace(noise[i, k])) / D
                    each.append(min((d @ d / v + D * np.log(max(v / usual[k], 1.0))) / gate, tracking._WORST))
            assert cost[t, i] == (pytest.approx(np.mean(each)) if each else np.inf)


def test_beginnings_know_the_animals_size_and_step() -> None:
    points = np.zeros((50, 1, 2, 2))
    points[:, :, 0, 0], points[:, :, 1, 0] = -6.0, 6.0
    points[..., 1] += 3.0 * np.arange(50)[:, None, None]
    tracks = tracking._begun(Poses(points))
    assert tracks.radius == pytest.approx(6.0)
    assert tracks.step == pytest.approx(3.0 / np.sqrt(2)), "rms over both coordinates"
    assert tracks.least == pytest.approx(tracking._LEAST**2 * 36.0)
    dots = tracking._begun(Poses(points[:, :, :1]))
    assert dots.least == pytest.approx(tracking._LEAST**2 * 4.5), "a single keypoint has no size, but a step"


def test_successors_are_the_nearest_by_far_on_both_sides() -> None:
    before = np.array([[[0.0, 0], [0, 4]], [[100, 0], [100, 4]], [[50, 0], [50, 4]]])
    after = np.array([[[99.0, 0], [99, 4]], [[1, 0], [np.nan, np.nan]], [[49, 0], [49, 4]], [[51, 0], [51, 4]]])
    np.testing.assert_array_equal(tracking._successors(before, after), [1, 0, -1])
    one_near = np.array([[[0.0, 0], [0, 0], [0, 0]]])
    many = np.array([[[10.0, 0], [10, 0], [10, 0]], [[14.0, 0], [np.nan] * 2, [np.nan] * 2]])
    ratio = 14.0 / 10.0  # mean distances, not sums: the second is further although it has one keypoint only
    expected = 0 if ratio >= tracking._CLEAR else -1
    np.testing.assert_array_equal(tracking._successors(one_near, many), [expected])
    many[1, 0, 0] = 10.0 * tracking._CLEAR + 1e-6
    np.testing.assert_array_equal(tracking._successors(one_near, many), [0])
