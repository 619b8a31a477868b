from __future__ import annotations

import numpy as np
import pytest

from pose3d.poses import Candidates, Groups, InputError, Poses
from pose3d.skeleton import Skeleton

TWO = Skeleton(("nose", "tail"))


def make(rng: np.random.Generator) -> Poses:
    """4 frames, 2 slots that exchange their identities in frame 2, identity 5 missing in frame 3."""
    points = rng.normal(size=(4, 2, 2, 3))
    points[3, 1] = np.nan
    ids = [[5, 7], [5, 7], [7, 5], [7, 5]]
    score = np.full((4, 2, 2), 0.5)
    extras = {"n_views": np.arange(16).reshape(4, 2, 2), "covariance": rng.normal(size=(4, 2, 2, 3, 3))}
    return Poses(
        points, score, ids, frame=[1, 2, 4, 9], skeleton=TWO, names={7: "b", 5: "a"}, unit="mm", fps=10.0, extras=extras
    )


def test_defaults() -> None:
    points = np.zeros((3, 2, 2, 2))
    points[1, 0, 1, 0] = np.nan
    poses = Poses(points, fps=20.0)
    assert np.isnan(poses.points[1, 0, 1]).all(), "NaN in one coordinate is NaN in all"
    assert poses.score[1, 0, 1] == 0.0
    assert poses.score[0, 0, 0] == 1.0
    assert poses.missing.sum() == 1
    np.testing.assert_array_equal(poses.frame, [0, 1, 2])
    np.testing.assert_allclose(poses.time, [0, 0.05, 0.1])
    assert (poses.ids == -1).all()
    assert poses.ids.dtype == np.int32
    assert poses.skeleton.keypoints == ("keypoint_0", "keypoint_1")
    assert np.isnan(Poses(points).time).all(), "without fps the time is unknown"


def test_scores_are_clipped_and_zero_where_missing() -> None:
    points = np.zeros((1, 1, 3, 2))
    points[0, 0, 2] = np.nan
    np.testing.assert_array_equal(Poses(points, [[[1.7, -0.2, 0.9]]]).score, [[[1.0, 0.0, 0.0]]])


def test_empty_slots_have_no_identity() -> None:
    assert make(np.random.default_rng(0)).ids[3, 1] == -1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": np.zeros((4, 2, 2, 4))}, "expected points"),
        ({"score": np.zeros((4, 2, 3))}, "score: expected shape"),
        ({"ids": np.zeros((4, 3))}, "ids: expected shape"),
        ({"frame": [1, 1, 2, 3]}, "increase strictly"),
        ({"frame": [1, 2, 3]}, "frame: expected shape"),
        ({"time": [1.0]}, "time: expected shape"),
        ({"skeleton": Skeleton(("nose",))}, "skeleton has 1 keypoints"),
        ({"extras": {"nviews": np.zeros((4, 2, 2))}}, "unknown extra 'nviews'"),
        ({"extras": {"covariance": np.zeros((4, 2, 2, 2, 2))}}, "extra 'covariance'"),
        ({"extras": {"n_views": np.zeros((4, 2))}}, "extra 'n_views'"),
    ],
)
def test_what_does_not_fit_is_refused(rng: np.random.Generator, change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(rng).replace(**change)


def test_window_cuts_every_array(rng: np.random.Generator) -> None:
    poses = make(rng)
    part = poses.window(1, 3)
    np.testing.assert_array_equal(part.frame, [2, 4])
    np.testing.assert_allclose(part.time, [0.2, 0.4])
    np.testing.assert_array_equal(part.points, poses.points[1:3])
    np.testing.assert_array_equal(part.ids, poses.ids[1:3])
    np.testing.assert_array_equal(part.score, poses.score[1:3])
    np.testing.assert_array_equal(part.extras["n_views"], poses.extras["n_views"][1:3])


def test_by_id_follows_identities_with_all_their_arrays(rng: np.random.Generator) -> None:
    poses = make(rng)
    sorted_ = poses.by_id()
    assert sorted_.shape == (4, 2, 2, 3)
    for frame, (slot5, slot7) in enumerate([(0, 1), (0, 1), (1, 0), (None, 0)]):
        if slot5 is None:
            assert np.isnan(sorted_.points[frame, 0]).all()
            assert sorted_.ids[frame, 0] == -1
            assert sorted_.extras["n_views"][frame, 0].sum() == 0
            assert np.isnan(sorted_.extras["covariance"][frame, 0]).all()
        else:
            np.testing.assert_array_equal(sorted_.points[frame, 0], poses.points[frame, slot5])
            np.testing.assert_array_equal(sorted_.extras["n_views"][frame, 0], poses.extras["n_views"][frame, slot5])
        np.testing.assert_array_equal(sorted_.points[frame, 1], poses.points[frame, slot7])
        assert sorted_.ids[frame, 1] == 7


def test_by_id_of_chosen_and_of_doubled_identities(rng: np.random.Generator) -> None:
    poses = make(rng)
    np.testing.assert_array_equal(poses.by_id([7, 3]).ids, [[7, -1]] * 4)
    with pytest.raises(InputError, match="id 5 stands in two slots of frame 1"):
        poses.replace(ids=np.full((4, 2), 5)).by_id()


def test_by_id_keeps_a_named_individual_that_never_occurs(rng: np.random.Generator) -> None:
    assert make(rng).replace(names={5: "a", 7: "b", 9: "c"}).by_id().shape[1] == 3


def test_take_slots_of_nothing() -> None:
    empty = Poses(np.zeros((2, 0, 2, 3)), skeleton=TWO)
    assert np.isnan(empty.take_slots(np.full((2, 3), -1)).points).all()


def test_xarray_has_the_layout_of_movement(rng: np.random.Generator) -> None:
    poses = make(rng)
    dataset = poses.to_xarray()
    assert dataset.position.dims == ("time", "space", "keypoints", "individuals")
    assert dataset.confidence.dims == ("time", "keypoints", "individuals")
    assert list(dataset.individuals.values) == ["a", "b"]
    nose = dataset.position.sel(individuals="b", keypoints="nose", space="y")
    np.testing.assert_allclose(
        nose.values, [poses.points[0, 1, 0, 1], poses.points[1, 1, 0, 1], *poses.points[2:, 0, 0, 1]]
    )
    np.testing.assert_allclose(dataset.time.values, poses.time)
    assert dataset.attrs["time_unit"] == "seconds"
    anonymous = Poses(np.zeros((2, 1, 2, 2)), skeleton=TWO).to_xarray()
    assert anonymous.attrs["time_unit"] == "frames"
    assert list(anonymous.individuals.values) == ["individual_0"]
    unnamed = poses.replace(names={}).to_xarray()
    assert list(unnamed.individuals.values) == ["individual_5", "individual_7"]


def test_no_identity_zero_is_invented(rng: np.random.Generator) -> None:
    ids = [[0, -1], [-1, 0]]
    poses = Poses(rng.normal(size=(2, 2, 2, 3)), ids=ids, skeleton=TWO)
    assert list(poses.to_xarray().individuals.values) == ["individual_0"]
    taken = poses.take_slots(np.array([[1, -1], [1, -1]]))
    np.testing.assert_array_equal(taken.ids, [[-1, -1], [0, -1]])
    assert poses.by_id().shape[1] == 1


def test_groups_know_which_are_empty() -> None:
    slots = np.array([[[0, -1], [-1, -1]], [[1, 0], [0, 1]]])
    groups = Groups(("left", "right"), slots)
    np.testing.assert_array_equal(groups.confidence, [[1, 0], [1, 1]])
    assert (groups.ids == -1).all()
    part = groups.window(1, 2)
    np.testing.assert_array_equal(part.slots, slots[1:])
    assert part.ids.shape == part.confidence.shape == (1, 2)
    with pytest.raises(InputError, match="expected slots"):
        Groups(("left",), slots)
    with pytest.raises(InputError, match="ids: expected shape"):
        Groups(("left", "right"), slots, ids=np.zeros((2, 3)))


def test_candidates_check_their_columns() -> None:
    columns = dict(
        frame_start=np.array([0, 1, 3]), keypoint=np.zeros(3, int), xy=np.zeros((3, 2)), score=np.ones(3),
        covariance=np.zeros((3, 2, 2)), limb_start=np.array([0, 0, 1]), a=np.array([1]), b=np.array([2]),
        edge=np.array([0]), limb_score=np.ones(1), frame=np.array([0, 1]), skeleton=TWO,
    )  # fmt: skip
    assert len(Candidates(**columns).keypoint) == 3
    with pytest.raises(InputError, match="xy: expected shape"):
        Candidates(**columns | {"xy": np.zeros((2, 2))})
    with pytest.raises(InputError, match="frame_start must rise from 0 to 3"):
        Candidates(**columns | {"frame_start": np.array([0, 2, 1])})
