"""pose3d.files.sleap: .slp of several versions, and analysis files, made here table by table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from calibration.errors import InputError
from pose3d.files.sleap import read_analysis, read_slp

USER, PREDICTED = 0, 1
NAN = float("nan")
EDGE = {"py/reduce": [{"py/type": "sleap.skeleton.EdgeType"}, {"py/tuple": [1]}]}
SYMMETRY = {"py/reduce": [{"py/type": "sleap.skeleton.EdgeType"}, {"py/tuple": [2]}]}


class Project:
    """A SLEAP file put together by hand: instances of frames, points of instances."""

    def __init__(self, version: float = 1.2) -> None:
        self.version = version
        self.frames: list[tuple[int, int, int, int, int]] = []
        self.instances: list[tuple[Any, ...]] = []
        self.points: list[tuple[Any, ...]] = []
        self.predicted: list[tuple[Any, ...]] = []
        self.videos = [{"backend": {"filename": "data\\a\\top.mp4"}}]
        self.tracks = ["female", "male"]
        # the project's list of nodes; the skeleton has them in another order: tail, nose, ear
        self.nodes = ["nose", "ear", "tail"]
        self.graph: dict[str, Any] = {
            "nodes": [{"id": 2}, {"id": 0}, {"id": 1}],
            "links": [
                {"source": 0, "target": 1, "type": EDGE, "edge_insert_idx": 1},
                {"source": 2, "target": 0, "type": {"py/id": 1}, "edge_insert_idx": 0},
                {"source": 1, "target": 2, "type": SYMMETRY},
                {"source": 2, "target": 1, "type": {"py/id": 2}},
            ],
        }

    def frame(self, number: int, instances: list[dict[str, Any]], video: int = 0) -> None:
        first = len(self.instances)
        for instance in instances:
            kind = instance.get("kind", PREDICTED)
            table = self.points if kind == USER else self.predicted
            start = len(table)
            for point in instance["points"]:
                x, y, *rest = point
                visible = rest[1] if len(rest) > 1 else True
                table.append((x, y, visible, True) if kind == USER else (x, y, visible, True, rest[0] if rest else 0.5))
            row = (
                instance.get("id", len(self.instances)), kind, len(self.frames), instance.get("skeleton", 0),
                instance.get("track", -1), instance.get("made_from", -1), 0.9, start, len(table),
            )  # fmt: skip
            self.instances.append(row if self.version < 1.2 else (*row, 0.0))
        self.frames.append((len(self.frames), video, number, first, len(self.instances)))

    def save(self, path: Path) -> Path:
        columns = [
            ("instance_id", "i8"), ("instance_type", "u1"), ("frame_id", "u8"), ("skeleton", "u4"), ("track", "i4"),
            ("from_predicted", "i8"), ("score", "f4"), ("point_id_start", "u8"), ("point_id_end", "u8"),
            ("tracking_score", "f4"),
        ][: 9 if self.version < 1.2 else 10]  # fmt: skip
        point = [("x", "f8"), ("y", "f8"), ("visible", "?"), ("complete", "?")]
        frame = [
            ("frame_id", "u8"),
            ("video", "u4"),
            ("frame_idx", "u8"),
            ("instance_id_start", "u8"),
            ("instance_id_end", "u8"),
        ]
        skeletons = [self.graph, {"nx_graph": self.graph}]
        metadata = {"nodes": [{"name": n, "weight": 1.0} for n in self.nodes], "skeletons": skeletons}
        with h5py.File(path, "w") as file:
            file["frames"] = np.array(self.frames, dtype=frame)
            file["instances"] = np.array(self.instances, dtype=columns)
            file["points"] = np.array(self.points, dtype=point)
            file["pred_points"] = np.array(self.predicted, dtype=[*point, ("score", "f8")])
            file["videos_json"] = [json.dumps(video).encode() for video in self.videos]
            file["tracks_json"] = [json.dumps([0, track]).encode() for track in self.tracks]
            group = file.create_group("metadata")
            group.attrs["format_id"] = self.version
            group.attrs["json"] = np.bytes_(json.dumps(metadata))
        return path


def points(at: float, score: float = 0.5) -> list[tuple[float, float, float]]:
    return [(at, at + 1, score), (at + 2, at + 3, score), (at + 4, at + 5, score)]


def xy(at: float) -> list[list[float]]:
    return [[at, at + 1], [at + 2, at + 3], [at + 4, at + 5]]


def test_tables_become_poses(tmp_path: Path) -> None:
    project = Project()
    project.frame(7, [{"points": points(10), "track": 1}, {"points": points(20, 1.7), "track": 0}])
    project.frame(3, [{"points": [(1, 2, 0.25), (NAN, NAN, 0.0), (5, 6, 1.0)], "track": 1}])
    project.frame(5, [])
    poses = read_slp(project.save(tmp_path / "a.slp"))
    np.testing.assert_array_equal(poses.frame, [3, 5, 7])  # ascending, the empty one too
    assert poses.shape == (3, 2, 3, 2)
    np.testing.assert_array_equal(poses.points[2], [xy(10), xy(20)])
    np.testing.assert_array_equal(poses.points[0, 0], [[1, 2], [NAN, NAN], [5, 6]])
    np.testing.assert_array_equal(poses.score[0, 0], [0.25, 0, 1])
    np.testing.assert_array_equal(poses.score[2, 1], [1, 1, 1])  # clipped
    np.testing.assert_array_equal(poses.ids, [[1, -1], [-1, -1], [1, 0]])
    assert poses.names == {0: "female", 1: "male"}
    assert poses.unit == "px"
    assert np.isnan(poses.fps)
    assert np.isnan(poses.time).all()


@pytest.mark.parametrize("skeleton", [0, 1])  # since SLEAP 1.3.2 the graph stands one level deeper
def test_skeleton_in_its_own_order_with_edges_as_drawn(tmp_path: Path, skeleton: int) -> None:
    project = Project()
    project.frame(0, [{"points": points(1), "skeleton": skeleton}])
    found = read_slp(project.save(tmp_path / "a.slp")).skeleton
    assert found.keypoints == ("tail", "nose", "ear")
    assert found.edges == ((0, 1), (1, 2))  # tail-nose was drawn before nose-ear
    assert found.symmetry == ((0, 2),)  # ear and tail, once


@pytest.mark.parametrize(("version", "shift"), [(1.0, -0.5), (1.1, 0.0), (1.2, 0.0), (2.4, 0.0)])
def test_old_files_count_from_the_pixels_corner(tmp_path: Path, version: float, shift: float) -> None:
    project = Project(version)
    project.frame(0, [{"points": points(10)}, {"points": points(30), "kind": USER}])
    poses = read_slp(project.save(tmp_path / "a.slp"))
    np.testing.assert_array_equal(poses.points[0], np.array([xy(10), xy(30)]) + shift)


def test_newer_formats_are_refused(tmp_path: Path) -> None:
    project = Project(3.0)
    project.frame(0, [{"points": points(10)}])
    with pytest.raises(InputError, match=r"a\.slp: SLEAP format 3 is newer"):
        read_slp(project.save(tmp_path / "a.slp"))


def test_a_users_instance_replaces_its_prediction(tmp_path: Path) -> None:
    project = Project()
    project.frame(
        0,
        [
            {"points": points(10), "id": 100},
            {"points": points(20), "id": 101, "track": 1},
            {"points": points(30), "id": 102, "track": 0},
            {"points": points(40), "kind": USER, "made_from": 100},
            {"points": points(50), "kind": USER, "track": 1},
        ],
    )
    # elsewhere the same prediction's number and track stand for others
    project.frame(1, [{"points": points(60), "id": 100}, {"points": points(70), "track": 1}])
    poses = read_slp(project.save(tmp_path / "a.slp"))
    np.testing.assert_array_equal(poses.points[0], [xy(30), xy(40), xy(50)])
    np.testing.assert_array_equal(poses.score[0], np.array([0.5, 1, 1])[:, None] * np.ones(3))
    np.testing.assert_array_equal(poses.points[1, :2], [xy(60), xy(70)])
    np.testing.assert_array_equal(poses.ids, [[0, -1, 1], [-1, 1, -1]])


def test_a_hidden_point_is_missing_and_marked(tmp_path: Path) -> None:
    project = Project()
    hidden = [(1, 2, 0.5, True), (3, 4, 0.5, False), (NAN, NAN, 0.5, False)]
    project.frame(0, [{"points": hidden, "kind": USER}])
    poses = read_slp(project.save(tmp_path / "a.slp"))
    np.testing.assert_array_equal(poses.points[0, 0], [[1, 2], [NAN, NAN], [NAN, NAN]])
    np.testing.assert_array_equal(poses.extras["occluded"][0, 0], [False, True, False])


def test_of_several_videos_one_is_chosen(tmp_path: Path) -> None:
    project = Project()
    project.videos = [{"backend": {"filename": f"data\\{name}.mp4"}} for name in ("top", "side", "a/side")]
    project.frame(5, [{"points": points(10)}], video=0)
    project.frame(5, [{"points": points(20)}], video=1)
    project.frame(6, [{"points": points(30)}], video=2)
    path = project.save(tmp_path / "a.slp")
    np.testing.assert_array_equal(read_slp(path, 1).points[0, 0], xy(20))
    np.testing.assert_array_equal(read_slp(path, "top.mp4").points[0, 0], xy(10))
    np.testing.assert_array_equal(read_slp(path, "a/side.mp4").points[0, 0], xy(30))
    with pytest.raises(InputError, match=r"holds 3 videos; say which with video= \(0: data/top\.mp4; 1: data/side"):
        read_slp(path)
    with pytest.raises(InputError, match="has no video 3"):
        read_slp(path, 3)
    with pytest.raises(InputError, match=r"expected one video named 'side\.mp4', got 2"):
        read_slp(path, "side.mp4")


def test_packages_number_videos_by_their_groups(tmp_path: Path) -> None:
    project = Project()
    project.videos = [{"backend": {"filename": ".", "dataset": f"video{n}/video"}} for n in (4, 15)]
    project.frame(5, [{"points": points(10)}], video=15)
    project.frame(6, [{"points": points(20)}], video=4)
    path = project.save(tmp_path / "a.pkg.slp")
    np.testing.assert_array_equal(read_slp(path, 0).points[0, 0], xy(20))
    np.testing.assert_array_equal(read_slp(path, 1).points[0, 0], xy(10))


def test_damaged_projects_are_named(tmp_path: Path) -> None:
    project = Project()
    project.frame(0, [{"points": points(10)}, {"points": points(20), "skeleton": 1}])
    with pytest.raises(InputError, match=r"a\.slp: the instances have 2 different skeletons"):
        read_slp(project.save(tmp_path / "a.slp"))
    project = Project()
    project.frame(0, [{"points": points(10)[:2]}])
    with pytest.raises(InputError, match=r"a\.slp: expected 3 points an instance"):
        read_slp(project.save(tmp_path / "a.slp"))
    with h5py.File(tmp_path / "a.slp", "a") as file:
        del file["instances"]
    with pytest.raises(InputError, match=r"a\.slp: an expected part is missing"):
        read_slp(tmp_path / "a.slp")


def write_analysis(
    path: Path, canonical: np.ndarray, score: np.ndarray, tracks: list[str], dims: list[str] | None
) -> Path:
    """canonical (frame, track, node, xy); written in SLEAP's axes, or in `dims` with their names stored."""
    axes = dims or ["track", "xy", "node", "frame"]
    names = ["frame", "track", "node", "xy"]
    with h5py.File(path, "w") as file:
        file["tracks"] = np.transpose(canonical, [names.index(axis) for axis in axes])
        file["point_scores"] = np.transpose(score, [names.index(axis) for axis in axes if axis != "xy"])
        file["node_names"] = [b"nose", b"tail", b"ear"]
        file["edge_inds"] = np.array([[0, 1], [2, 0]])
        file["track_names"] = np.array([t.encode() for t in tracks], dtype="S8")
        if dims:
            file["tracks"].attrs["dims"] = json.dumps(dims)
    return path


@pytest.mark.parametrize("dims", [None, ["frame", "track", "node", "xy"], ["node", "frame", "xy", "track"]])
def test_analysis_files(tmp_path: Path, rng: np.random.Generator, dims: list[str] | None) -> None:
    canonical, score = rng.random((5, 2, 3, 2)), rng.random((5, 2, 3))
    canonical[2, 1] = canonical[3, 0, 1] = NAN
    score[4, 0, 0] = NAN  # labelled by a user
    score[4, 0, 1] = 1.25
    poses = read_analysis(write_analysis(tmp_path / "a.h5", canonical, score, ["m1", "m2"], dims))
    np.testing.assert_array_equal(poses.points, canonical)
    expected = np.where(np.isnan(canonical[..., 0]), 0, score)
    expected[4, 0, :2] = 1
    np.testing.assert_array_equal(poses.score, expected)
    np.testing.assert_array_equal(poses.frame, range(5))
    np.testing.assert_array_equal(poses.ids, [[0, 1], [0, 1], [0, -1], [0, 1], [0, 1]])
    assert poses.names == {0: "m1", 1: "m2"}
    assert poses.skeleton.keypoints == ("nose", "tail", "ear")
    assert poses.skeleton.edges == ((0, 1), (2, 0))


def test_an_analysis_without_tracks_knows_nobody(tmp_path: Path, rng: np.random.Generator) -> None:
    poses = read_analysis(write_analysis(tmp_path / "a.h5", rng.random((2, 1, 3, 2)), rng.random((2, 1, 3)), [], None))
    assert (poses.ids == -1).all()
    assert poses.names == {}


def test_other_axes_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "points3d.h5", "w") as file:
        file["tracks"] = np.zeros((5, 3, 3))
    with pytest.raises(InputError, match=r"points3d\.h5: expected tracks with axes"):
        read_analysis(tmp_path / "points3d.h5")
