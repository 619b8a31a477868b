from __future__ import annotations

import numpy as np
import pytest

from calibration.camera import Camera, Intrinsics
from calibration.errors import InputError
from calibration.rig import CameraRig
from pose3d.evaluation import (
    TrackOptions,
    evaluate_pose,
    evaluate_tracks,
    left_out_errors,
    reprojection_distances,
)
from pose3d.poses import Groups, Poses
from pose3d.skeleton import Skeleton

LINE = Skeleton(("a", "b"))


def two_animals(frames: int = 10) -> Poses:
    """Two animals of length 10 that stand 100 apart."""
    points = np.zeros((frames, 2, 2, 3))
    points[:, :, 1, 0] = 10.0
    points[:, 1, :, 1] = 100.0
    return Poses(points, ids=np.tile([0, 1], (frames, 1)), skeleton=LINE, unit="mm", fps=10)


def test_distances_of_a_known_displacement() -> None:
    truth = two_animals()
    moved = truth.points.copy()
    moved[:, 0, 0, 2] += 1.0
    moved[:, 0, 1, 2] += 2.0
    moved[:, 1, :, 2] += 3.0
    errors = evaluate_pose(truth, truth.replace(points=moved))
    assert errors.median == pytest.approx(2.5)
    assert errors.rms == pytest.approx(np.sqrt((1 + 4 + 9 + 9) / 4))
    assert errors.p95 == pytest.approx(3.0)
    assert errors.keypoint_median == pytest.approx({"a": 2.0, "b": 2.5})
    assert (errors.n, errors.delivered, errors.size, errors.unit) == (40, 1.0, 10.0, "mm")
    assert errors.to_dict()["median"] == errors.median


def test_individuals_meet_by_identity_over_the_whole_recording() -> None:
    truth = two_animals()
    renamed = truth.replace(points=truth.points[:, ::-1], ids=np.tile([8, 3], (10, 1)))  # slots exchanged, other ids
    assert evaluate_pose(truth, renamed).median == 0.0
    switched = truth.replace(ids=np.where(np.arange(10)[:, None] < 7, [0, 1], [1, 0]))
    errors = evaluate_pose(truth, switched)
    assert errors.delivered == 1.0
    assert errors.rms == pytest.approx(np.sqrt(0.3) * 100), "the three frames after the switch are 100 away"


def test_without_identities_individuals_meet_frame_by_frame() -> None:
    truth = two_animals()
    points = truth.points.copy()
    points[::2] = points[::2, ::-1]
    assert evaluate_pose(truth, Poses(points, skeleton=LINE, unit="mm")).rms == 0.0


def test_what_is_missing_counts_as_not_delivered() -> None:
    truth = two_animals()
    points = truth.points.copy()
    points[0, 0, 0] = np.nan
    fewer = truth.replace(points=points).window(0, 5)  # and the frames 5 to 9 are not there at all
    assert evaluate_pose(truth, fewer).delivered == pytest.approx(19 / 40)
    assert evaluate_pose(fewer, truth).delivered == 1.0, "only what the truth holds is asked for"
    nothing = evaluate_pose(truth, truth.replace(points=np.full_like(points, np.nan)))
    assert nothing.delivered == 0.0
    assert np.isnan(nothing.median)


def test_keypoints_meet_by_name_and_frames_by_number() -> None:
    truth = two_animals()
    other = Poses(
        truth.points[2:6, :, ::-1], ids=truth.ids[2:6], frame=truth.frame[2:6], skeleton=Skeleton(("b", "a")), unit="mm"
    )
    errors = evaluate_pose(truth, other)
    assert errors.rms == 0.0
    assert errors.delivered == pytest.approx(0.4)


def test_what_cannot_be_compared_is_refused() -> None:
    truth = two_animals()
    with pytest.raises(InputError, match="in mm, the estimate 3D in m"):
        evaluate_pose(truth, truth.replace(unit="m"))
    with pytest.raises(InputError, match="no common keypoint"):
        evaluate_pose(truth, truth.replace(skeleton=Skeleton(("c", "d"))))
    with pytest.raises(InputError, match="no common frame"):
        evaluate_tracks(truth, truth.replace(frame=truth.frame + 50))


def test_animals_of_a_single_keypoint_meet_the_nearest() -> None:
    points = np.tile([[[0.0, 0.0]], [[50.0, 0.0]]], (4, 1, 1, 1))
    errors = evaluate_pose(Poses(points), Poses(points[:, ::-1] + [3.0, 4.0]))
    assert (errors.n, errors.median) == (8, pytest.approx(5.0))
    assert np.isnan(errors.size)


def test_perfect_tracks() -> None:
    truth = two_animals()
    errors = evaluate_tracks(truth, truth.replace(ids=truth.ids + 4))
    assert (errors.mota, errors.idf1, errors.switches, errors.fragmentations) == (1.0, 1.0, 0, 0)
    assert (errors.truths, errors.misses, errors.false_positives, errors.d0) == (20, 0, 0, 10.0)


def test_one_switch_by_hand() -> None:
    truth = two_animals()
    errors = evaluate_tracks(truth, truth.replace(ids=np.where(np.arange(10)[:, None] < 7, [0, 1], [1, 0])))
    assert errors.switches == 2, "both animals get another identity"
    assert errors.mota == pytest.approx(1 - 2 / 20)
    assert errors.idf1 == pytest.approx(14 / 20), "7 of 10 frames are right for each"


def test_misses_false_positives_and_fragmentation_by_hand() -> None:
    truth = two_animals()
    points, ids = truth.points.copy(), truth.ids.copy()
    points[4:6, 0] = np.nan  # missed twice, then found again under the same identity
    points[9, 1] += 50.0  # too far away: a miss and a false positive
    errors = evaluate_tracks(truth, truth.replace(points=points, ids=ids))
    assert (errors.misses, errors.false_positives, errors.switches, errors.fragmentations) == (3, 1, 0, 1)
    assert errors.mota == pytest.approx(1 - 4 / 20)
    assert errors.idf1 == pytest.approx(2 * 17 / (20 + 18))


def test_match_needs_the_similarity_asked_for() -> None:
    truth = two_animals()
    shifted = truth.replace(points=truth.points + [0, 0, 4.0])
    assert evaluate_tracks(truth, shifted).misses == 0, "similarity 0.6"
    assert evaluate_tracks(truth, shifted, TrackOptions(match_at=0.7)).misses == 20
    assert evaluate_tracks(truth, shifted, TrackOptions(d0=7.0)).misses == 20, "similarity 3/7"
    unknown = truth.replace(ids=np.full((10, 2), -1))
    assert evaluate_tracks(truth, unknown).idf1 == 0.0


def test_a_match_is_kept_although_another_comes_closer() -> None:
    points = np.zeros((2, 1, 1, 3))
    truth = Poses(points, ids=[[0], [0]], unit="mm")
    found = np.zeros((2, 2, 1, 3))
    found[0, :, 0, 0] = [1.0, 30.0]
    found[1, :, 0, 0] = [3.0, 1.0]  # identity 6 is closer now, but 5 still fits
    errors = evaluate_tracks(truth, Poses(found, ids=[[5, 6], [5, 6]], unit="mm"), TrackOptions(d0=10.0))
    assert (errors.switches, errors.misses, errors.false_positives) == (0, 0, 2)


def rig_of_two() -> CameraRig:
    intrinsics = Intrinsics((640, 480), np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), np.zeros(5))
    return CameraRig(
        (
            Camera("one", intrinsics, np.eye(3), np.array([0, 0, 500.0])),
            Camera("two", intrinsics, np.eye(3), np.array([-50.0, 0, 500])),
        ),
        "mm",
    )


def test_reprojection_follows_the_groups_slots() -> None:
    truth, rig = two_animals(3), rig_of_two()
    views = {camera.name: Poses(camera.project(truth.points), skeleton=LINE) for camera in rig}
    views["two"] = views["two"].replace(points=views["two"].points[:, ::-1] + [3.0, 4.0])
    groups = Groups(("two", "one"), np.tile([[1, 0], [0, 1]], (3, 1, 1)))
    distances = reprojection_distances(truth, views, groups, rig)
    np.testing.assert_allclose(distances["one"], 0.0, atol=1e-9)
    np.testing.assert_allclose(distances["two"], 5.0)


def test_left_out_camera_is_predicted_from_the_others_only() -> None:
    truth, rig = two_animals(3), rig_of_two()
    views = {camera.name: Poses(camera.project(truth.points), skeleton=LINE) for camera in rig}
    groups = Groups(("one", "two"), np.tile([[0, 0], [1, 1]], (3, 1, 1)), ids=truth.ids)
    asked = []

    def reconstruct(others: dict[str, Poses], their_groups: Groups, their_rig: CameraRig) -> Poses:
        asked.append((tuple(others), their_groups.view_names, their_rig.names))
        np.testing.assert_array_equal(their_groups.ids, truth.ids)
        return truth.replace(points=truth.points + [1.0, 0, 0])

    errors = left_out_errors(views, groups, rig, reconstruct)
    assert [a[0] for a in asked] == [("two",), ("one",)]
    assert all(a == b == tuple(c) for a, b, c in asked)
    np.testing.assert_allclose(errors["one"], 1.0, rtol=1e-6)  # 1 mm at 500 mm and f 500 px
