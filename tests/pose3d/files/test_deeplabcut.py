"""pose3d.files.deeplabcut: tables of one and of several animals, predictions, labels, 3D; there and back."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from calibration.errors import InputError
from pose3d.files.deeplabcut import is_deeplabcut_csv, read_deeplabcut, write_deeplabcut
from pose3d.poses import Poses

SINGLE = """scorer,net,net,net,net,net,net
bodyparts,nose,nose,nose,tail,tail,tail
coords,x,y,likelihood,x,y,likelihood
0,1.5,2.5,0.9,3,4,0.25
2,,,,5,6,1.0
1,7,8,0.5,9,10,0.125
"""
LABELS = """scorer,ann,ann
bodyparts,nose,nose
coords,x,y
labeled-data/m4s1/img0012.png,1,2
labeled-data/m4s1/img0003.png,,
"""
SPLIT_PATHS = """scorer,,,ann,ann,ann,ann,ann,ann
individuals,,,m1,m1,m2,m2,single,single
bodyparts,,,nose,nose,nose,nose,corner,corner
coords,,,x,y,x,y,x,y
labeled-data,clip1,img01.png,1,2,3,4,5,6
labeled-data,clip1,img10.png,7,8,,,9,10
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(text)
    return path


def test_one_animal(tmp_path: Path) -> None:
    poses = read_deeplabcut(write(tmp_path, SINGLE))
    np.testing.assert_array_equal(poses.frame, [0, 1, 2])
    nan = np.nan
    np.testing.assert_array_equal(poses.points[:, 0], [[[1.5, 2.5], [3, 4]], [[7, 8], [9, 10]], [[nan, nan], [5, 6]]])
    np.testing.assert_array_equal(poses.score[:, 0], [[0.9, 0.25], [0.5, 0.125], [0, 1]])
    assert poses.skeleton.keypoints == ("nose", "tail")
    assert (poses.ids == -1).all()
    assert poses.unit == "px"


def test_labels_have_the_frame_in_the_images_name_and_score_1(tmp_path: Path) -> None:
    poses = read_deeplabcut(write(tmp_path, LABELS))
    np.testing.assert_array_equal(poses.frame, [3, 12])
    np.testing.assert_array_equal(poses.points[:, 0, 0], [[np.nan, np.nan], [1, 2]])
    np.testing.assert_array_equal(poses.score[:, 0, 0], [0, 1])
    windows = LABELS.replace("/", "\\")
    np.testing.assert_array_equal(read_deeplabcut(write(tmp_path, windows)).frame, [3, 12])


def test_several_animals_and_parts_that_belong_to_none(tmp_path: Path) -> None:
    poses = read_deeplabcut(write(tmp_path, SPLIT_PATHS))
    np.testing.assert_array_equal(poses.frame, [1, 10])
    assert poses.skeleton.keypoints == ("nose", "corner")
    assert poses.names == {0: "m1", 1: "m2", 2: "single"}
    np.testing.assert_array_equal(poses.ids, [[0, 1, 2], [0, -1, 2]])
    np.testing.assert_array_equal(poses.points[0, :, 0], [[1, 2], [3, 4], [np.nan, np.nan]])
    np.testing.assert_array_equal(poses.points[1, 2, 1], [9, 10])


def test_of_several_videos_one_is_chosen(tmp_path: Path) -> None:
    path = write(tmp_path, LABELS + "labeled-data/other/img0012.png,5,6\n")
    with pytest.raises(InputError, match=r"table\.csv: frame 12 occurs more than once; .*video= \(m4s1, other\)"):
        read_deeplabcut(path)
    np.testing.assert_array_equal(read_deeplabcut(path, video="other").points, [[[[5, 6]]]])
    np.testing.assert_array_equal(read_deeplabcut(path, video="m4s1").frame, [3, 12])
    with pytest.raises(InputError, match="holds no images of 'third'; it holds m4s1, other"):
        read_deeplabcut(path, video="third")


def test_the_h5_twin_holds_the_same(tmp_path: Path) -> None:
    pytest.importorskip("tables")
    for text, levels in ((SINGLE, 3), (SPLIT_PATHS, 4)):
        path = write(tmp_path, text)
        poses = read_deeplabcut(path)
        index = [0] if levels == 3 else [0, 1, 2]
        table = pd.read_csv(path, header=list(range(levels)), index_col=index)
        h5 = tmp_path / f"table{levels}.h5"
        table.to_hdf(h5, key="df_with_missing", format="table" if levels == 3 else "fixed", mode="w")
        other = read_deeplabcut(h5)
        np.testing.assert_array_equal(other.points, poses.points)
        np.testing.assert_array_equal(other.frame, poses.frame)
        assert (other.names, other.skeleton) == (poses.names, poses.skeleton)


def test_3d_tables_need_a_unit(tmp_path: Path) -> None:
    path = write(tmp_path, "scorer,a,a,a\nbodyparts,n,n,n\ncoords,x,y,z\n0,1,2,3\n1,4,5,6\n")
    with pytest.raises(InputError, match=r"table\.csv: a 3D table does not say its unit"):
        read_deeplabcut(path)
    poses = read_deeplabcut(path, unit="cm")
    np.testing.assert_array_equal(poses.points[:, 0, 0], [[1, 2, 3], [4, 5, 6]])
    assert poses.unit == "cm"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", r"table\.csv: expected header rows scorer, .*got none"),
        (SINGLE.replace("coords", "coord"), "expected header rows"),
        (SINGLE.replace("1.5", "one"), r"table\.csv: cannot be read as a DeepLabCut table"),
        (SINGLE.replace("net,net\nbody", "net,other\nbody"), r"table\.csv: expected one scorer"),
        (LABELS.replace("img0012", "image"), r"table\.csv: expected a frame number in the name 'image\.png'"),
    ],
)
def test_errors_name_the_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_deeplabcut(write(tmp_path, text))


def test_no_table_in_an_h5(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_text("nothing")
    with pytest.raises(InputError, match=r"a\.h5: cannot be read as HDF5"):
        read_deeplabcut(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(InputError, match=r"a\.h5: cannot be read as a DeepLabCut table"):
        read_deeplabcut(tmp_path / "a.h5")
    pd.DataFrame({"x": [1.0]}).to_hdf(tmp_path / "b.h5", key="x", mode="w")
    with pytest.raises(InputError, match=r"b\.h5: expected a table with columns scorer"):
        read_deeplabcut(tmp_path / "b.h5")


@pytest.mark.parametrize(("individuals", "dimension"), list(itertools.product([1, 3], [2, 3])))
def test_there_and_back(tmp_path: Path, poses_of: Callable[..., Poses], individuals: int, dimension: int) -> None:
    path = tmp_path / "out.csv"
    poses = poses_of(1, frames=6, individuals=individuals, dimension=dimension)
    if individuals == 1:
        poses = poses.replace(ids=np.full((6, 1), -1), names={})
    write_deeplabcut(path, poses)
    assert is_deeplabcut_csv(path)
    back = read_deeplabcut(path, unit="mm" if dimension == 3 else None)
    whole = poses if individuals == 1 else poses.by_id()
    np.testing.assert_array_equal(back.points, whole.points)
    np.testing.assert_array_equal(back.frame, whole.frame)
    if dimension == 2:
        np.testing.assert_array_equal(back.score, whole.score)
    if individuals == 3:
        found = sorted({int(i) for i in poses.ids.ravel()} - {-1} | set(poses.names))
        assert list(back.names.values()) == [poses.names.get(i, f"individual_{i}") for i in found]
    levels = ["scorer", "bodyparts", "coords"] if individuals == 1 else ["scorer", "individuals", "bodyparts", "coords"]
    table = pd.read_csv(path, header=list(range(len(levels))), index_col=0)  # as DeepLabCut itself reads it
    assert list(table.columns.names) == levels
    np.testing.assert_array_equal(table.xs("x", axis=1, level="coords").to_numpy(), whole.points[..., 0].reshape(6, -1))
    with pytest.raises(InputError, match=r"written as \.csv only"):
        write_deeplabcut(tmp_path / "out.h5", poses)


def test_other_files_and_folders_are_not_its_tables(tmp_path: Path) -> None:
    (tmp_path / "a.slp").write_bytes(bytes(range(256)))
    for path in (tmp_path / "a.slp", tmp_path):
        with pytest.raises(InputError, match="expected a DeepLabCut table"):
            read_deeplabcut(path)
