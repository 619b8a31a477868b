"""pose3d.files.tidy_csv: one line a frame, individual and keypoint; there and back; by windows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.errors import InputError
from pose3d.files import tidy_csv
from pose3d.files.native import write_poses
from pose3d.files.tidy_csv import read_tidy, stream_tidy, write_tidy
from pose3d.poses import BRIDGED, Poses
from pose3d.skeleton import Skeleton


def small() -> Poses:
    points = np.arange(24, dtype=float).reshape(2, 2, 2, 3)
    points[1, 0, 1] = np.nan
    covariance = np.zeros((2, 2, 2, 3, 3))
    covariance[...] = np.diag([4.0, 9.0, 16.0])
    status = np.ones((2, 2, 2), dtype=int)
    status[0, 0, 0] = BRIDGED
    return Poses(
        points,
        np.full((2, 2, 2), 0.5),
        np.array([[3, 8], [8, 3]]),
        np.array([10, 12]),
        np.array([1.0, 1.2]),
        Skeleton(("nose", "tail")),
        {3: "ann"},
        "mm",
        10.0,
        {
            "covariance": covariance,
            "status": status,
            "n_views": np.full((2, 2, 2), 4),
            "covariance_total": 4 * covariance,
        },
    )


def test_the_lines_of_a_small_table(tmp_path: Path) -> None:
    write_tidy(tmp_path / "a.csv", small())
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[0] == (
        "frame,time,individual,keypoint,x,y,z,score,n_views,status,sd_x,sd_y,sd_z,sd_total_x,sd_total_y,sd_total_z,id"
    )
    assert lines[1] == "10,1.0,ann,nose,0.0,1.0,2.0,0.5,4,bridged,2.0,3.0,4.0,4.0,6.0,8.0,3"
    assert lines[4] == "10,1.0,individual_8,tail,9.0,10.0,11.0,0.5,4,measured,2.0,3.0,4.0,4.0,6.0,8.0,8"
    assert lines[8] == "12,1.2,individual_8,tail,,,,0.0,4,measured,2.0,3.0,4.0,4.0,6.0,8.0,8"
    assert len(lines) == 1 + 2 * 2 * 2


@given(
    seed=st.integers(0, 2**32 - 1),
    frames=st.integers(1, 12),
    individuals=st.integers(1, 3),
    dimension=st.sampled_from([2, 3]),
    known=st.booleans(),
)
@settings(max_examples=15, deadline=None)
def test_there_and_back(
    tmp_path_factory: pytest.TempPathFactory,
    poses_of: Callable[..., Poses],
    seed: int,
    frames: int,
    individuals: int,
    dimension: int,
    known: bool,
) -> None:
    path = tmp_path_factory.mktemp("tidy") / "a.csv"
    poses = poses_of(seed, frames, individuals, dimension)
    ids = np.where(poses.ids < 0, 5, poses.ids) if known else np.full_like(poses.ids, -1)
    poses = poses.replace(ids=ids, names={5: "éva, the 2nd"} if known else {})
    write_tidy(path, poses)
    back = read_tidy(path, unit="mm" if dimension == 3 else None)
    whole = poses.by_id() if known else poses
    np.testing.assert_array_equal(back.frame, poses.frame)
    np.testing.assert_array_equal(back.time, poses.time)
    np.testing.assert_array_equal(back.points, whole.points)
    np.testing.assert_array_equal(back.score, whole.score)
    np.testing.assert_array_equal(back.ids, whole.ids)
    assert back.names == whole.names
    assert back.skeleton.keypoints == whole.skeleton.keypoints
    for name in ("reprojection_error", "n_views", "status", "occluded"):
        np.testing.assert_array_equal(back.extras[name], whole.extras[name])


def test_points_without_identity_keep_their_slots(tmp_path: Path) -> None:
    poses = small()
    poses = poses.replace(ids=np.array([[3, -1], [-1, 3]]))
    write_tidy(tmp_path / "a.csv", poses)
    table = pd.read_csv(tmp_path / "a.csv")
    assert list(table.groupby("individual").size().items()) == [("ann", 4), ("slot_0", 2), ("slot_1", 2)]
    assert table["frame"].is_monotonic_increasing
    back = read_tidy(tmp_path / "a.csv", unit="mm")
    np.testing.assert_array_equal(back.by_id().points[:, 0], poses.by_id().points[:, 0])
    assert sorted(back.points[np.isfinite(back.points)]) == sorted(poses.points[np.isfinite(poses.points)])


def test_streaming_a_native_file_gives_the_same_table(
    tmp_path: Path, poses_of: Callable[..., Poses], monkeypatch: pytest.MonkeyPatch
) -> None:
    poses = poses_of(2, frames=50)
    write_poses(tmp_path / "a.nc", poses)
    write_tidy(tmp_path / "a.csv", poses)
    windows = tidy_csv.read_windows
    sizes: list[int] = []

    def small_windows(path: Path) -> object:
        for window in windows(path, 8):
            sizes.append(len(window.frame))
            yield window

    monkeypatch.setattr(tidy_csv, "read_windows", small_windows)
    stream_tidy(tmp_path / "a.nc", tmp_path / "b.csv")
    assert sizes == [8] * 6 + [2]
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_windows_in_memory_do_not_change_the_table(
    tmp_path: Path, poses_of: Callable[..., Poses], monkeypatch: pytest.MonkeyPatch
) -> None:
    poses = poses_of(2, frames=50)
    write_tidy(tmp_path / "a.csv", poses)
    monkeypatch.setattr(tidy_csv, "WINDOW_FRAMES", 7)
    write_tidy(tmp_path / "b.csv", poses)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_names_that_look_like_missing_values_are_names(tmp_path: Path) -> None:
    poses = small().replace(names={3: "NA", 8: "nan"}, skeleton=Skeleton(("null", "None")))
    write_tidy(tmp_path / "a.csv", poses)
    back = read_tidy(tmp_path / "a.csv", unit="mm")
    assert back.names == {3: "NA", 8: "nan"}
    assert back.skeleton.keypoints == ("null", "None")


MINIMAL = "frame,time,individual,keypoint,x,y\n5,,m1,a,1,2\n5,,m1,b,3,4\n5,,individual_9,a,5,6\n5,,slot_0,a,7,8\n"


def test_somebody_elses_table(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(MINIMAL)
    poses = read_tidy(path)
    np.testing.assert_array_equal(poses.ids, [[0, 9, -1]])
    assert poses.names == {0: "m1"}
    np.testing.assert_array_equal(poses.points[0, :, 0], [[1, 2], [5, 6], [7, 8]])
    assert poses.missing[0, 1, 1]
    np.testing.assert_array_equal(poses.score[0, :, 0], [1, 1, 1])
    assert np.isnan(poses.fps)


@pytest.mark.parametrize(
    ("time", "fps"), [(["0.5", "", "1.5"], 4.0), (["", "", "1.5"], np.nan), (["1", "1", "1"], np.nan)]
)
def test_the_rate_follows_from_the_times(tmp_path: Path, time: list[str], fps: float) -> None:
    path = tmp_path / "a.csv"
    lines = [f"{frame},{t},m,a,1,2" for frame, t in zip((10, 11, 14), time, strict=True)]
    path.write_text("\n".join(["frame,time,individual,keypoint,x,y", *lines]))
    np.testing.assert_equal(read_tidy(path).fps, fps)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL.replace("keypoint", "bodypart"), "expected a column 'keypoint'"),
        (MINIMAL.replace(",x,", ",xx,"), r"expected a column 'x'"),
        (MINIMAL.replace("x,y", "x,y,z").replace("1,2", "1,2,3"), "a 3D table does not say its unit"),
        (MINIMAL + "5,,m1,a,9,9\n", "expected one line for each frame.*got one twice"),
        (MINIMAL.replace("7,8", "seven,8"), "expected numbers"),
        ("", "cannot be read as a table"),
    ],
)
def test_errors_name_the_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"a\.csv: {message}"):
        read_tidy(path)
