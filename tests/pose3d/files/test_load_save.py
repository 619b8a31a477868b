"""pose3d.files: formats told apart, hints applied, errors by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from calibration.errors import InputError
from pose3d.files import READABLE, WRITABLE, load_poses, save_poses
from pose3d.poses import Poses
from pose3d.skeleton import Skeleton

MakePoses = Callable[..., Poses]


@pytest.mark.parametrize("name", ["a.nc", "a.csv", "a.trc"])
def test_what_is_saved_by_suffix_is_found_by_content(tmp_path: Path, poses_of: MakePoses, name: str) -> None:
    poses = poses_of(1, frames=9, individuals=1)
    poses = poses.replace(ids=np.zeros((9, 1)), names={}).by_id()
    save_poses(tmp_path / name, poses)
    back = load_poses(tmp_path / name, unit="mm")
    np.testing.assert_array_equal(back.points, poses.points)
    np.testing.assert_array_equal(
        load_poses(str(tmp_path / name), unit="mm", frames=slice(-3, None)).points, poses.points[-3:]
    )


def test_deeplabcut_tables_are_told_from_tidy_ones(tmp_path: Path, poses_of: MakePoses) -> None:
    poses = poses_of(1, individuals=1, dimension=2)
    save_poses(tmp_path / "a.csv", poses, "deeplabcut")
    np.testing.assert_array_equal(load_poses(tmp_path / "a.csv").frame, poses.frame)
    table = pd.DataFrame(
        [[1.0, 2.0]],
        columns=pd.MultiIndex.from_product([["s"], ["nose"], ["x", "y"]], names=["scorer", "bodyparts", "coords"]),
    )
    table.to_hdf(tmp_path / "a.h5", key="df_with_missing", mode="w")
    np.testing.assert_array_equal(load_poses(tmp_path / "a.h5").points, [[[[1, 2]]]])


def test_unknown_formats_are_listed(tmp_path: Path, poses_of: MakePoses) -> None:
    with h5py.File(tmp_path / "points3d.h5", "w") as file:
        file["tracks"] = np.zeros((5, 1, 2, 3))
    (tmp_path / "a.csv").write_text("1,2,3\n")
    (tmp_path / "a.xyz").write_text("")
    (tmp_path / "empty").mkdir()
    for name in ("points3d.h5", "a.csv", "a.xyz", "empty"):
        with pytest.raises(InputError, match=f"{name}: .*native: .*sleap: .*deeplabcut: .*openpose: .*trc: .*csv: "):
            load_poses(tmp_path / name)
    with pytest.raises(InputError, match="unknown format 'slaep'; did you mean 'sleap'"):
        load_poses(tmp_path / "a.csv", "slaep")
    with pytest.raises(InputError, match=r"none\.slp: expected a file or folder, found none"):
        load_poses(tmp_path / "none.slp")
    with pytest.raises(InputError, match=r"a\.xyz: the suffix names no format; use \.nc, \.csv, \.trc"):
        save_poses(tmp_path / "a.xyz", poses_of(1))
    with pytest.raises(InputError, match="cannot write format 'sleap'"):
        save_poses(tmp_path / "a.slp", poses_of(1), "sleap")
    assert set(WRITABLE) <= set(READABLE)


def test_poses_without_any_keypoint_are_an_error(tmp_path: Path, poses_of: MakePoses) -> None:
    poses = poses_of(1)
    save_poses(tmp_path / "a.nc", poses.replace(points=np.full(poses.shape, np.nan)))
    with pytest.raises(InputError, match=r"a\.nc: holds no keypoint at all"):
        load_poses(tmp_path / "a.nc")
    assert load_poses(tmp_path / "a.nc", frames=slice(0, 2)).missing.all()  # an empty window is ordinary


def test_a_rate_given_sets_the_times(tmp_path: Path, poses_of: MakePoses) -> None:
    poses = poses_of(1).replace(fps=float("nan"))
    save_poses(tmp_path / "a.nc", poses)
    back = load_poses(tmp_path / "a.nc", fps=50)
    assert back.fps == 50
    np.testing.assert_array_equal(back.time, poses.frame / 50)


def test_units_are_compared_never_converted(tmp_path: Path, poses_of: MakePoses) -> None:
    save_poses(tmp_path / "a.nc", poses_of(1))
    save_poses(tmp_path / "b.nc", poses_of(1, dimension=2))
    with pytest.raises(InputError, match=r'a\.nc: the file is in mm, got unit="m"'):
        load_poses(tmp_path / "a.nc", unit="m")
    with pytest.raises(InputError, match=r'b\.nc: the file is in px, got unit="mm"'):
        load_poses(tmp_path / "b.nc", unit="mm")


def test_keypoints_come_into_the_skeletons_order(tmp_path: Path, poses_of: MakePoses) -> None:
    poses = poses_of(1)
    save_poses(tmp_path / "a.nc", poses)
    wanted = Skeleton(("paw", *poses.skeleton.keypoints[::-1]), edges=((0, 1),))
    back = load_poses(tmp_path / "a.nc", skeleton=wanted)
    assert back.skeleton == wanted
    np.testing.assert_array_equal(back.points[:, :, 1:], poses.points[:, :, ::-1])
    np.testing.assert_array_equal(back.score[:, :, 1:], poses.score[:, :, ::-1])
    np.testing.assert_array_equal(back.extras["covariance"][:, :, 1:], poses.extras["covariance"][:, :, ::-1])
    np.testing.assert_array_equal(back.extras["n_views"][:, :, 1:], poses.extras["n_views"][:, :, ::-1])
    assert back.missing[:, :, 0].all()
    assert np.isnan(back.extras["covariance"][:, :, 0]).all()
    assert (back.extras["n_views"][:, :, 0] == 0).all()
    with pytest.raises(InputError, match=r"a\.nc: keypoint 'ear_l' is not in the skeleton; did you mean 'ear_left'"):
        load_poses(tmp_path / "a.nc", skeleton=Skeleton(("nose", "ear_left", "täil")))
