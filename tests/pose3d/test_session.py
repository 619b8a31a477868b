"""Sessions: files are found whatever the layout, and skeletons are drawn as the session says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from calibration.errors import InputError
from pose3d.session import (
    LabelTable,
    Patterns,
    Session,
    SkeletonTable,
    drawn_skeleton,
    find_files,
    find_in,
    find_labels,
    find_recordings,
)
from pose3d.skeleton import Skeleton


def tree(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
            (path / ("frame_0.json" if "json" in name else "image_0.PNG")).write_bytes(b"")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    return root


def session(data: Path, **changes: Any) -> Session:
    return Session(file=data / "pose3d.toml", data=data, output=data / "results", **changes)


def names_of(found: dict[str, Path], root: Path) -> dict[str, str]:
    return {camera: path.relative_to(root).as_posix() for camera, path in found.items()}


def test_the_house_layout(tmp_path: Path) -> None:
    tree(
        tmp_path, "calibration/top.mp4", "calibration/side/", "calibration/intrinsics/top.avi", "calibration/notes.txt"
    )
    tree(
        tmp_path,
        "recordings/b/top.mp4",
        "recordings/a/poses2d/top.h5",
        "recordings/a/poses2d/side_json/",
        "recordings/c.txt",
    )
    house = session(tmp_path)
    assert names_of(find_files(house, "calibration"), tmp_path) == {
        "side": "calibration/side",
        "top": "calibration/top.mp4",
    }
    assert names_of(find_files(house, "intrinsics"), tmp_path) == {"top": "calibration/intrinsics/top.avi"}
    assert names_of(find_files(house, "poses2d", "a"), tmp_path) == {
        "side": "recordings/a/poses2d/side_json",
        "top": "recordings/a/poses2d/top.h5",
    }
    assert find_files(house, "poses2d", "b") == {}
    assert names_of(find_files(house, "video", "b"), tmp_path) == {"top": "recordings/b/top.mp4"}
    assert find_recordings(house) == ("a", "b")
    assert house.results("a") == tmp_path / "results" / "a"


def test_the_same_camera_in_a_pattern_twice_and_wildcards(tmp_path: Path) -> None:
    tree(
        tmp_path,
        "s/top/m_top.h5",
        "s/back/m_back.h5",
        "s/back/m_other.h5",
        "x/cam1DLC_resnet.h5",
        "x/cam10DLC_resnet.h5",
    )
    twice = session(tmp_path, patterns=Patterns(poses2d="s/{camera}/m_{camera}.h5"))
    assert names_of(find_files(twice, "poses2d", "r"), tmp_path) == {
        "back": "s/back/m_back.h5",
        "top": "s/top/m_top.h5",
    }
    wild = session(tmp_path, patterns=Patterns(poses2d="x/{camera}DLC*.h5"), cameras=("cam10", "cam1"))
    assert names_of(find_files(wild, "poses2d", "r"), tmp_path) == {
        "cam10": "x/cam10DLC_resnet.h5",
        "cam1": "x/cam1DLC_resnet.h5",
    }
    assert list(find_files(wild, "poses2d", "r")) == ["cam10", "cam1"]


def test_patterns_may_be_absolute(tmp_path: Path) -> None:
    tree(tmp_path, "elsewhere/one/back.h5", "elsewhere/one/top.h5")
    away = session(tmp_path / "s", patterns=Patterns(poses2d=f"{tmp_path}/elsewhere/{{recording}}/{{camera}}.h5"))
    found = find_files(away, "poses2d", "one")
    assert names_of(found, tmp_path) == {"back": "elsewhere/one/back.h5", "top": "elsewhere/one/top.h5"}
    assert find_recordings(away) == ("one",)


def test_of_several_endings_the_preferred_one(tmp_path: Path) -> None:
    tree(
        tmp_path, "recordings/a/poses2d/top.slp", "recordings/a/poses2d/top.analysis.h5", "recordings/a/poses2d/top.csv"
    )
    assert names_of(find_files(session(tmp_path), "poses2d", "a"), tmp_path) == {
        "top": "recordings/a/poses2d/top.analysis.h5"
    }


def test_a_named_camera_that_is_missing_is_named(tmp_path: Path) -> None:
    tree(tmp_path, "calibration/top/")
    with pytest.raises(
        InputError, match=r"camera 'side': expected .*calibration/side.*cameras\.calibration.*pose3d\.toml"
    ):
        find_files(session(tmp_path, cameras=("top", "side")), "calibration")
    assert find_files(session(tmp_path, cameras=("top", "side")), "video", "a") == {}


def test_folders_without_images_or_json_are_no_cameras(tmp_path: Path) -> None:
    tree(tmp_path, "calibration/extrinsic/cam_0.mp4", "calibration/top/", "recordings/a/poses2d/readme/x.txt")
    assert list(find_files(session(tmp_path), "calibration")) == ["top"]
    assert find_files(session(tmp_path), "poses2d", "a") == {}
    assert find_in(tmp_path / "calibration", "calibration") == {"top": tmp_path / "calibration/top"}
    with pytest.raises(InputError, match="nowhere: expected a folder, found none"):
        find_in(tmp_path / "nowhere", "poses2d")


def test_recordings(tmp_path: Path) -> None:
    tree(tmp_path, "one/pose/cam1_json/", "one/pose/cam2_json/", "two/video/cam1.mp4")
    assert find_recordings(session(tmp_path, recordings=("z",))) == ("z",)
    flat = session(tmp_path, patterns=Patterns(poses2d="one/pose/{camera}_json", video="none/{camera}"))
    assert find_recordings(flat) == (tmp_path.name,)
    assert names_of(find_files(flat, "poses2d", tmp_path.name), tmp_path) == {
        "cam1": "one/pose/cam1_json",
        "cam2": "one/pose/cam2_json",
    }
    deep = session(
        tmp_path, patterns=Patterns(poses2d="{recording}/pose/{camera}_json", video="{recording}/video/{camera}")
    )
    assert find_recordings(deep) == ("one", "two")
    assert find_recordings(session(tmp_path)) == ()


def test_pairs_of_the_session_by_name() -> None:
    own = Skeleton(("tail", "nose", "ear"), edges=((0, 1),), bones=((0, 1),), sigmas=(0.1, 0.1, 0.2))
    assert drawn_skeleton(own, SkeletonTable()) == own
    drawn = drawn_skeleton(own, SkeletonTable(edges=(("tail", "ear"),), bones=(), symmetry=(("nose", "ear"),)))
    assert drawn == Skeleton(own.keypoints, edges=((0, 2),), bones=(), symmetry=((1, 2),), sigmas=(0.1, 0.1, 0.2))
    with pytest.raises(
        InputError, match=r"skeleton\.bones: keypoint 'nosse' is not in the skeleton; did you mean 'nose'"
    ):
        drawn_skeleton(own, SkeletonTable(bones=(("nosse", "tail"),)))


def test_labels_are_projects_tables_or_files(tmp_path: Path) -> None:
    tree(tmp_path, "labels/a.pkg.slp", "labels/a.slp", "labels/b.slp", "a.mp4", "b.avi", "labels/images/")
    tree(tmp_path, "dlc/config.yaml", "dlc/labeled-data/a/CollectedData_me.h5")
    found = find_labels(session(tmp_path), LabelTable("labels/{camera}", video="{camera}"))
    assert found == [
        ("a", tmp_path / "labels/a.pkg.slp", tmp_path / "a.mp4"),
        ("b", tmp_path / "labels/b.slp", tmp_path / "b.avi"),
    ]
    named = session(tmp_path, cameras=("b", "c"))
    assert find_labels(named, LabelTable("labels/{camera}.slp")) == [("b", tmp_path / "labels/b.slp", None)]
    assert find_labels(named, LabelTable("dlc")) == [("", tmp_path / "dlc", None)]
    assert find_labels(named, LabelTable("dlc/config.yaml", camera="b")) == [("b", tmp_path / "dlc/config.yaml", None)]
    folder = LabelTable("dlc/labeled-data/{camera}")
    assert find_labels(session(tmp_path), folder) == [("a", tmp_path / "dlc/labeled-data/a", None)]


def test_labels_of_lightning_pose_and_coco(tmp_path: Path) -> None:
    tree(tmp_path, "lp/labeled-data/", "lp/top.csv", "labels/a.slp", "labels/b.json", "labels/c.json", "labels/a.json")
    for name in ("a", "b"):
        (tmp_path / f"labels/{name}.json").write_text('{"annotations": [{"keypoints": []}]}')
    found = find_labels(session(tmp_path), LabelTable("labels/{camera}"))
    assert found == [("a", tmp_path / "labels/a.slp", None), ("b", tmp_path / "labels/b.json", None)]
    assert find_labels(session(tmp_path), LabelTable("lp")) == [("", tmp_path / "lp", None)]
    assert find_labels(session(tmp_path), LabelTable("lp/{camera}.csv")) == [("top", tmp_path / "lp/top.csv", None)]
    assert find_labels(session(tmp_path / "lp"), LabelTable(".")) == [("", tmp_path / "lp", None)]
    with pytest.raises(InputError, match="expected labelled frames, found none"):
        find_labels(session(tmp_path), LabelTable("."))
    named = find_labels(session(tmp_path), LabelTable("labels/{camera}.json"))
    assert [name for name, _, _ in named] == ["a", "b", "c"]  # the reader tells what is wrong with c
