"""pose3d.files.native: poses there and back, by windows, joined, in equal bytes, whole or not at all."""

from __future__ import annotations

import itertools
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.errors import InputError
from pose3d.files import load_poses, save_poses
from pose3d.files.native import (
    WINDOW_FRAMES,
    count_frames,
    identities,
    join_poses,
    read_poses,
    read_windows,
    write_poses,
)
from pose3d.poses import Poses

MakePoses = Callable[..., Poses]
SamePoses = Callable[[Poses, Poses], None]


@given(
    seed=st.integers(0, 2**32 - 1),
    frames=st.sampled_from([0, 1, 2, 300]),
    individuals=st.integers(0, 4),
    dimension=st.sampled_from([2, 3]),
    extras=st.booleans(),
)
@settings(max_examples=12, deadline=None)
def test_poses_come_back_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory,
    poses_of: MakePoses,
    same_poses: SamePoses,
    seed: int,
    frames: int,
    individuals: int,
    dimension: int,
    extras: bool,
) -> None:
    path = tmp_path_factory.mktemp("native") / "poses.nc"
    poses = poses_of(seed, frames, individuals, dimension, extras)
    write_poses(path, poses)
    same_poses(read_poses(path), poses)
    assert count_frames(path) == frames
    same_poses(read_poses(path, slice(1, 200)), poses.window(1, 200))
    same_poses(read_poses(path, slice(-1, None)), poses.window(max(frames - 1, 0), frames))


def test_xarray_reads_named_axes(tmp_path: Path, poses_of: MakePoses) -> None:
    xarray = pytest.importorskip("xarray")
    poses = poses_of(3, frames=40).by_id([1, 2])
    save_poses(tmp_path / "poses.nc", poses)
    with xarray.open_dataset(tmp_path / "poses.nc") as data:
        assert data["points"].dims == ("frames", "individuals", "keypoints", "space")
        assert list(data.keypoints.values) == list(poses.skeleton.keypoints)
        assert list(data.space.values) == ["x", "y", "z"]
        assert list(data.individuals.values) == ["bob", "individual_2"]
        np.testing.assert_array_equal(data.frames, poses.frame)
        np.testing.assert_array_equal(data.points.time, poses.time)  # time is a coordinate of the points
        one = data["points"].sel(frames=poses.frame[5], individuals="bob", keypoints="nose", space="y")
        np.testing.assert_array_equal(one, poses.points[5, 0, 0, 1])
        assert data["covariance"].dims == ("frames", "individuals", "keypoints", "space", "space_2")
        np.testing.assert_array_equal(data["covariance"], poses.extras["covariance"])
        assert (data.attrs["unit"], data.attrs["fps"]) == ("mm", 29.97)


def test_slots_that_change_hands_are_not_named_after_anybody(tmp_path: Path, poses_of: MakePoses) -> None:
    xarray = pytest.importorskip("xarray")
    poses = poses_of(3, frames=40)
    moved = poses.replace(ids=np.where(np.arange(40)[:, None] < 20, [4, -1, 5], [-1, 4, 5]))  # 4 moves to another slot
    for changing in (poses, moved):
        save_poses(tmp_path / "poses.nc", changing)
        with xarray.open_dataset(tmp_path / "poses.nc") as data:
            assert list(data.individuals.values) == ["slot_0", "slot_1", "slot_2"]


def test_same_poses_same_bytes_in_another_process(tmp_path: Path, poses_of: MakePoses) -> None:
    write_poses(tmp_path / "a.nc", poses_of(5, frames=300))
    code = (
        "import sys, pathlib, runpy\n"
        "from pose3d.files.native import read_poses, write_poses\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "write_poses(folder / 'b.nc', read_poses(folder / 'a.nc'))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=Path(__file__).parents[3])
    assert (tmp_path / "a.nc").read_bytes() == (tmp_path / "b.nc").read_bytes()


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, poses_of: MakePoses) -> None:
    path = tmp_path / "poses.nc"
    write_poses(path, poses_of(1, frames=2))
    before = path.read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (100_000, limit[1])
    )  # the kernel refuses to write on, as a full disk does
    try:
        with pytest.raises(OSError, match=r"."):
            write_poses(path, poses_of(1, frames=3000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["poses.nc"]


def parts_of(folder: Path, poses: Poses, borders: list[int]) -> list[Path]:
    paths = []
    for number, (start, stop) in enumerate(itertools.pairwise(borders)):
        paths.append(folder / f"part_{number:03d}.nc")
        write_poses(paths[-1], poses.window(start, stop))
    return paths


@given(seed=st.integers(0, 2**32 - 1), borders=st.lists(st.integers(0, 50), max_size=2))
@settings(max_examples=8, deadline=None)
def test_joined_parts_are_the_whole_by_identity(
    tmp_path_factory: pytest.TempPathFactory, poses_of: MakePoses, same_poses: SamePoses, seed: int, borders: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("join")
    poses = poses_of(seed, frames=50)
    parts = parts_of(folder, poses, [0, *sorted(borders), 50])
    join_poses(parts, folder / "whole.nc")
    same_poses(read_poses(folder / "whole.nc"), poses.by_id())


def test_identities_and_names_are_collected_over_all_parts(tmp_path: Path, poses_of: MakePoses) -> None:
    poses = poses_of(2, frames=4, individuals=1)
    ids = [[3], [3], [8], [8]]
    early = poses.replace(points=np.ones_like(poses.points), ids=np.array(ids), names={3: "ann"}, frame=np.arange(4))
    late = early.replace(ids=np.full((4, 1), 0), names={0: "zoe", 9: "ghost"}, frame=np.arange(10, 14))
    for name, part in (("a", early), ("b", late)):
        write_poses(tmp_path / f"{name}.nc", part)
    join_poses([tmp_path / "a.nc", tmp_path / "b.nc"], tmp_path / "whole.nc")
    whole = read_poses(tmp_path / "whole.nc")
    assert whole.names == {0: "zoe", 3: "ann", 9: "ghost"}
    assert whole.shape[1] == 4  # 0, 3, 8, 9
    np.testing.assert_array_equal(whole.ids[[0, 2, 4]], [[-1, 3, -1, -1], [-1, -1, 8, -1], [0, -1, -1, -1]])
    assert identities(tmp_path / "whole.nc") == [0, 3, 8, 9]


def test_without_identities_slots_stay_and_are_padded(
    tmp_path: Path, poses_of: MakePoses, same_poses: SamePoses
) -> None:
    wide = poses_of(2, frames=3, individuals=3)
    wide = wide.replace(ids=np.full((3, 3), -1), names={}, frame=np.arange(3))
    narrow = wide.take_slots(np.tile([1], (3, 1))).replace(frame=np.arange(3, 6))
    write_poses(tmp_path / "a.nc", narrow.replace(frame=np.arange(3)))
    write_poses(tmp_path / "b.nc", wide.replace(frame=np.arange(3, 6)))
    join_poses([tmp_path / "a.nc", tmp_path / "b.nc"], tmp_path / "whole.nc")
    whole = read_poses(tmp_path / "whole.nc")
    same_poses(whole.window(3, 6), wide.replace(frame=np.arange(3, 6)))
    np.testing.assert_array_equal(whole.points[:3, 0], wide.points[:, 1])
    assert whole.missing[:3, 1:].all()


def test_parts_that_do_not_fit_leave_no_file(tmp_path: Path, poses_of: MakePoses) -> None:
    whole = tmp_path / "whole.nc"
    first, other = tmp_path / "a.nc", tmp_path / "b.nc"
    poses = poses_of(4, frames=6)
    write_poses(first, poses)
    later = poses.replace(frame=poses.frame + 1000)
    for changes, message in (
        ({"unit": "m"}, "the parts' unit must agree"),
        ({"extras": {}}, "the parts' extras must agree"),
        (
            {"frame": poses.frame - poses.frame[0] + poses.frame[-1]},
            r"parts must follow each other; frame \d+ comes after frame \d+",
        ),
    ):
        write_poses(other, later.replace(**changes))
        with pytest.raises(InputError, match=message):
            join_poses([first, other], whole)
    with pytest.raises(InputError, match="nothing to join"):
        join_poses([], whole)
    write_poses(other, poses.window(0, 0))
    with pytest.raises(InputError, match="no part holds any frame"):
        join_poses([other], whole)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nc", "b.nc"]


def test_joining_keeps_one_window_in_memory(
    tmp_path: Path, poses_of: MakePoses, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pose3d.files.native as native

    monkeypatch.setattr(native, "read_windows", lambda path: read_windows(path, 20))
    sizes: list[int] = []
    monkeypatch.setattr(
        native, "_arrays", lambda poses, original=native._arrays: sizes.append(len(poses.frame)) or original(poses)
    )
    poses = poses_of(6, frames=90)
    join_poses(parts_of(tmp_path, poses, [0, 50, 90]), tmp_path / "whole.nc")
    assert sizes == [50, 40, 20, 20, 10, 20, 20]  # writing the two parts, then the windows of each
    np.testing.assert_array_equal(read_poses(tmp_path / "whole.nc").frame, poses.frame)


def test_windows_cover_the_file_once(tmp_path: Path, poses_of: MakePoses) -> None:
    poses = poses_of(7, frames=10)
    write_poses(tmp_path / "a.nc", poses)
    windows = list(read_windows(tmp_path / "a.nc", 4))
    assert [len(w.frame) for w in windows] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([w.points for w in windows]), poses.points)
    assert WINDOW_FRAMES > 0


def test_a_file_without_one_of_its_parts_is_named(tmp_path: Path, poses_of: MakePoses) -> None:
    path = tmp_path / "a.nc"
    write_poses(path, poses_of(7))
    with h5py.File(path, "a") as file:
        del file["score"]
    with pytest.raises(InputError, match=r"a\.nc: an expected part is missing"):
        load_poses(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 3])
    with pytest.raises(InputError, match=r"a\.nc: cannot be read as HDF5"):
        load_poses(path)


def test_another_kind_of_file_is_named(tmp_path: Path, poses_of: MakePoses) -> None:
    from pose3d.files.native_groups import write_groups
    from pose3d.poses import Groups

    path = tmp_path / "groups.nc"
    write_groups(path, Groups(("a", "b"), np.zeros((2, 1, 2))))
    with pytest.raises(InputError, match=r"groups\.nc: expected poses, the file holds groups"):
        load_poses(path)
    with pytest.raises(InputError, match="expected poses"):
        count_frames(path)
