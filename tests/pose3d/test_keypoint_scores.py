"""Errors by keypoint and camera against closed forms; what is missing counts; cameras together are their labels."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.errors import InputError
from calibration.view_noise import ViewNoise
from pose3d.detection_scores import evaluate_detections
from pose3d.keypoint_scores import (
    ALL,
    KeypointErrors,
    beside_labels,
    evaluate_keypoints,
    evaluate_views,
    join_frames,
    join_views,
)
from pose3d.poses import Poses
from pose3d.skeleton import Skeleton

NAMES = Skeleton(("nose", "ear", "tail"))
BODY = np.array([[0.0, 0.0], [30.0, 40.0], [60.0, 80.0]])  # 100 px long


def truth(frames: int = 10, scale: float = 1.0) -> Poses:
    return Poses(np.tile(scale * BODY, (frames, 1, 1, 1)) + 200.0, skeleton=NAMES)


def moved(poses: Poses, distances: np.ndarray, sd: float | None = None) -> Poses:
    """Each keypoint (frames, 1, keypoints) this far from where it was, to the right; NaN: missing."""
    points = poses.points + np.stack((distances, 0 * distances), axis=-1)
    extras = {} if sd is None else {"covariance": np.broadcast_to(sd**2 * np.eye(2), (*poses.shape[:3], 2, 2))}
    return poses.replace(points=points, extras=extras)


def row(rows: tuple[KeypointErrors, ...], keypoint: str, camera: str = "") -> KeypointErrors:
    (found,) = [one for one in rows if (one.keypoint, one.camera) == (keypoint, camera)]
    return found


def test_figures_of_known_distances() -> None:
    distances = np.zeros((10, 1, 3))
    distances[:, 0, 0] = np.arange(1, 11)  # 1 to 10 px: 0.01 to 0.1 of the animal
    distances[:, 0, 1] = 15.0
    distances[:4, 0, 2] = np.nan
    rows = evaluate_keypoints(truth(), moved(truth(), distances, sd=3.0))
    assert [one.keypoint for one in rows] == ["nose", "ear", "tail", ALL]
    nose, ear, tail, everything = rows
    assert (nose.n, nose.delivered, nose.size) == (10, 1.0, pytest.approx(100.0))
    assert nose.median == pytest.approx(5.5)
    assert nose.rms == pytest.approx(np.sqrt(385 / 10))
    assert nose.p95 == pytest.approx(np.percentile(np.arange(1, 11), 95))
    assert nose.pck == pytest.approx({"0.05": 0.5, "0.1": 1.0, "0.2": 1.0})
    assert nose.inside_95 == pytest.approx(0.7), "chi-square of 2: 3 SD times 2.45 are 7.3 px"
    assert ear.pck == {"0.05": 0.0, "0.1": 0.0, "0.2": 1.0}
    assert (tail.n, tail.delivered, tail.rms) == (10, 0.6, 0.0)
    assert tail.pck == {"0.05": 0.6, "0.1": 0.6, "0.2": 0.6}, "what was not delivered is not within"
    assert (everything.n, everything.delivered) == (30, pytest.approx(26 / 30))
    assert everything.pck["0.1"] == pytest.approx(16 / 30)
    assert everything.oks_map == evaluate_detections(truth(), moved(truth(), distances)).oks_map
    assert np.isnan(nose.oks_map)


def test_what_the_truth_lacks_is_not_asked_for() -> None:
    known = truth().points.copy()
    known[:, 0, 1] = np.nan
    known[:7, 0, 0] = np.nan
    rows = evaluate_keypoints(truth().replace(points=known), truth())
    assert [(one.keypoint, one.n) for one in rows] == [("nose", 3), ("tail", 10), (ALL, 13)]
    with pytest.raises(InputError, match="camera 'top': expected keypoints in the truth"):
        evaluate_views({"top": (truth().replace(points=np.full_like(known, np.nan)), truth())})


def test_individuals_in_3d_by_identity() -> None:
    points = np.zeros((4, 2, 3, 3))
    points[:, :, 1, 0], points[:, :, 2, 0], points[:, 1, :, 1] = 5.0, 10.0, 100.0
    two = Poses(points, ids=np.tile([0, 1], (4, 1)), skeleton=NAMES, unit="mm")
    other = two.replace(points=points[:, ::-1] + [0.0, 0.0, 1.0], ids=np.tile([7, 5], (4, 1)))
    everything = row(evaluate_keypoints(two, other), ALL)
    assert (everything.n, everything.median, everything.pck["0.1"]) == (24, 1.0, 1.0)
    assert np.isnan(everything.oks_map)


def test_cameras_together_are_all_their_labels_each_with_its_own_size() -> None:
    near, far = truth(10, 2.0), truth(30, 0.5)  # 200 and 50 px long
    six = np.full((10, 1, 3), 6.0)  # 0.03 and 0.12 of the animal
    views = {"near": (near, moved(near, six, 2.0)), "far": (far, moved(far, np.full((30, 1, 3), 6.0), 2.0))}
    rows = evaluate_views(views)
    assert [one.camera for one in rows] == ["near"] * 4 + ["far"] * 4 + [ALL] * 4
    assert row(rows, "ear", "near").pck["0.05"] == 1.0
    assert row(rows, "ear", "far").pck["0.1"] == 0.0
    together = row(rows, ALL, ALL)
    assert (together.n, together.median, together.pck["0.1"]) == (120, 6.0, 0.25)
    assert np.isnan(together.size)
    assert together.inside_95 == 0.0
    assert len(evaluate_views({"near": views["near"]})) == 4, "one camera needs no sum"
    known, found = join_views(views)
    assert together.oks_map == pytest.approx(evaluate_detections(known, found).oks_map)


def test_frames_of_cameras_are_joined_on_all_their_keypoints() -> None:
    one = moved(truth(2), np.zeros((2, 1, 3)), sd=1.5)
    other = Poses(np.arange(12.0).reshape(2, 3, 1, 2), skeleton=Skeleton(("paw",)), ids=np.tile([3, 4, 5], (2, 1)))
    joined = join_frames((one, other))
    assert (joined.shape, joined.skeleton.keypoints) == ((4, 3, 4, 2), ("nose", "ear", "tail", "paw"))
    np.testing.assert_array_equal(joined.points[:2, 0, :3], one.points[:, 0])
    np.testing.assert_array_equal(joined.points[2:, :, 3], other.points[:, :, 0])
    assert (~joined.missing).sum() == 6 + 6
    assert np.isfinite(joined.extras["covariance"]).all(axis=(-1, -2)).sum() == 6
    assert (joined.ids == -1).all()


def test_the_labels_noise_stands_beside() -> None:
    noise = {
        "nose": ViewNoise(np.array([1.0, 3.0]), np.zeros(2), np.array([10, 30])),
        "ear": ViewNoise(np.array([2.0, np.nan]), np.zeros(2), np.array([20, 0])),
    }
    views = {camera: (truth(), truth()) for camera in ("a", "b")}
    rows = beside_labels(evaluate_views(views), noise, ("a", "b"))
    assert row(rows, "nose", "b").label_sd == 3.0
    assert row(rows, "nose", ALL).label_sd == pytest.approx(np.sqrt((10 + 30 * 9) / 40))
    assert row(rows, ALL, "a").label_sd == pytest.approx(np.sqrt((10 + 20 * 4) / 30))
    assert row(rows, ALL, ALL).label_sd == pytest.approx(np.sqrt((10 + 270 + 80) / 60))
    assert np.isnan([row(rows, "ear", "b").label_sd, row(rows, "tail", "a").label_sd]).all()
    rng = np.random.default_rng(0)
    labels = np.linalg.norm(3.0 * rng.normal(size=(100_000, 2)), axis=1)
    assert row(rows, "nose", "b").label_median == pytest.approx(np.median(labels), rel=0.01)
    told = row(rows, "nose", "b").to_dict()
    assert list(told)[:8] == ["camera", "keypoint", "n", "delivered", "median", "rms", "p95", "pck_0.05"]
    assert told["label_median"] == row(rows, "nose", "b").label_median
