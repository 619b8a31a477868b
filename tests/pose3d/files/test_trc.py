"""pose3d.files.trc: axes, frames, units; there and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.errors import InputError
from pose3d.files.trc import read_trc, write_trc
from pose3d.poses import Poses

# X forward, Y up, Z right of the file are y, z, x of the world.
TRC = (
    "PathFileType\t4\t(X/Y/Z)\tx.trc\n"
    "DataRate\tCameraRate\tNumFrames\tNumMarkers\tUnits\tOrigDataRate\tOrigDataStartFrame\tOrigNumFrames\n"
    "60\t60\t2\t2\tm\t60\t0\t2\n"
    "Frame#\tTime\tRHip\t\t\tNeck\t\t\t\n"
    "\t\tX1\tY1\tZ1\tX2\tY2\tZ2\t\n"
    "1\t0.016\t0.1\t0.9\t-0.3\t0.4\t1.5\t-0.6\n"
    "2\t0.033\t\t\t\t0.5\t1.6\t-0.7\n"
)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "x.trc"
    path.write_text(text)
    return path


def test_y_up_becomes_z_up(tmp_path: Path) -> None:
    poses = read_trc(write(tmp_path, TRC))
    np.testing.assert_array_equal(poses.points[:, 0, 1], [[-0.6, 0.4, 1.5], [-0.7, 0.5, 1.6]])
    np.testing.assert_array_equal(poses.points[0, 0, 0], [-0.3, 0.1, 0.9])
    assert poses.missing[1, 0, 0]
    assert poses.skeleton.keypoints == ("RHip", "Neck")
    assert (poses.unit, poses.fps) == ("m", 60.0)
    np.testing.assert_array_equal(poses.time, [0.016, 0.033])


def test_frames_count_from_the_videos_first(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_trc(write(tmp_path, TRC)).frame, [0, 1])
    later = TRC.replace("\t60\t0\t2\n", "\t60\t120\t2\n")
    np.testing.assert_array_equal(read_trc(write(tmp_path, later)).frame, [120, 121])
    opensim = TRC.replace("\t60\t0\t2\n", "\t60\t1\t2\n").replace("Z2\t\n", "Z2\t\n\n").replace("-0.7\n", "-0.7\t\n")
    np.testing.assert_array_equal(read_trc(write(tmp_path, opensim)).frame, [1, 2])


def test_units(tmp_path: Path) -> None:
    assert read_trc(write(tmp_path, TRC), unit="m").unit == "m"
    with pytest.raises(InputError, match=r'x\.trc: the file is in m, got unit="mm"'):
        read_trc(write(tmp_path, TRC), unit="mm")
    path = write(tmp_path, TRC.replace("\tm\t", "\t\t"))
    with pytest.raises(InputError, match=r"x\.trc: the header names no unit"):
        read_trc(path)
    assert read_trc(path, unit="mm").unit == "mm"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a TRC"),
        (TRC.replace("PathFileType", "Path"), "expected a TRC"),
        (TRC.replace("0.9", "zero"), "cannot be read as TRC"),
        (TRC.replace("DataRate\tCameraRate", "Rate\tCameraRate", 1), "cannot be read as TRC"),
    ],
)
def test_errors_name_the_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=rf"x\.trc: {message}"):
        read_trc(write(tmp_path, text))
    with pytest.raises(InputError, match=r"none\.trc: cannot be read"):
        read_trc(tmp_path / "none.trc")


@given(seed=st.integers(0, 2**32 - 1), frames=st.integers(1, 20))
@settings(max_examples=20, deadline=None)
def test_there_and_back(
    tmp_path_factory: pytest.TempPathFactory, poses_of: Callable[..., Poses], seed: int, frames: int
) -> None:
    path = tmp_path_factory.mktemp("trc") / "a.trc"
    poses = poses_of(seed, frames=frames, individuals=1)
    poses = poses.replace(ids=np.zeros((frames, 1), dtype=int), names={0: "bob"})
    write_trc(path, poses)
    back = read_trc(path)
    np.testing.assert_array_equal(back.points, poses.by_id().points)
    np.testing.assert_array_equal(back.frame, poses.frame)
    np.testing.assert_array_equal(back.time, np.where(np.isnan(poses.time), poses.frame / 29.97, poses.time))
    assert (back.unit, back.fps, back.skeleton.keypoints) == ("mm", 29.97, poses.skeleton.keypoints)


def test_each_individual_gets_a_file(tmp_path: Path, poses_of: Callable[..., Poses]) -> None:
    poses = poses_of(3, frames=30, individuals=2).replace(names={0: "a/b", 1: "bob"})
    write_trc(tmp_path / "session.trc", poses)
    by_id = poses.by_id()
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["session_a_b.trc", "session_bob.trc", "session_individual_2.trc"]
    for slot, name in enumerate(names):
        np.testing.assert_array_equal(read_trc(tmp_path / name).points[:, 0], by_id.points[:, slot])


def test_what_trc_cannot_hold(tmp_path: Path, poses_of: Callable[..., Poses]) -> None:
    with pytest.raises(InputError, match="TRC holds 3D poses, got 2D"):
        write_trc(tmp_path / "a.trc", poses_of(1, dimension=2))
    with pytest.raises(InputError, match="TRC needs the frame rate"):
        write_trc(tmp_path / "a.trc", poses_of(1).replace(fps=float("nan")))
    assert list(tmp_path.iterdir()) == []
