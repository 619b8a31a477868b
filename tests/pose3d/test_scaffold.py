"""A pose3d.toml from what lies in a folder, in any layout in which names differ only by the camera."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.errors import InputError
from calibration.files import save_rig
from calibration.synthetic import ring_rig
from pose3d.config import load_session
from pose3d.scaffold import look_around, write_session
from pose3d.session import LabelTable, Patterns, find_files, find_recordings

BOARD = "columns = 8\nrows = 6\nsquare_length = 30\n"


def tree(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(BOARD if name.endswith("board.toml") else "")
    return root


def test_the_house_layout_needs_no_patterns(tmp_path: Path) -> None:
    tree(tmp_path, "board.toml", "calibration/a/1.png", "calibration/b/1.png", "recordings/x/poses2d/a.h5")
    tree(tmp_path, "recordings/x/poses2d/b.h5", "results/x/poses2d/old.h5", ".hidden/a.h5")
    found = look_around(tmp_path)
    assert (found.patterns, found.cameras, found.recordings) == ({}, ("a", "b"), ("x",))
    assert (found.board, found.calibration) == ("board.toml", None)


def test_other_layouts_become_patterns(tmp_path: Path) -> None:
    for camera in ("left", "right"):
        tree(tmp_path, f"s/{camera}/calibration_images/{camera}-1.jpg", f"s/{camera}/m_{camera}.mp4")
        tree(tmp_path, f"s/{camera}/m_{camera}.analysis.h5", f"s/{camera}/m_{camera}.slp")
    tree(tmp_path, "s/my_board.toml")
    found = look_around(tmp_path)
    assert found.patterns == {
        "calibration": "s/{camera}/calibration_images",
        "poses2d": "s/{camera}/m_{camera}.analysis.h5",
        "video": "s/{camera}/m_{camera}.mp4",
    }
    assert found.cameras == ("left", "right")
    assert found.board == "s/my_board.toml"


def test_openpose_folders_and_numbered_cameras(tmp_path: Path) -> None:
    for camera in ("cam_1", "cam_2"):
        tree(tmp_path, f"pose/{camera}_json/{camera}_000.json", f"footage/{camera}.avi")
    found = look_around(tmp_path)
    assert found.patterns == {"poses2d": "pose/{camera}_json", "video": "footage/{camera}.avi"}
    assert found.cameras == ("cam_1", "cam_2")


def test_two_things_that_vary_are_no_pattern(tmp_path: Path) -> None:
    tree(tmp_path, "d1/a_x.mp4", "d2/b_y.mp4")
    assert look_around(tmp_path).patterns == {}


def test_the_written_file_is_a_session_that_finds_the_files(tmp_path: Path) -> None:
    for camera in ("left", "right"):
        tree(tmp_path, f"s/{camera}.h5")
    save_rig(tmp_path / "rig.toml", ring_rig(2, np.random.default_rng(0), radius=1.0, height=1.0, unit="m"))
    path, lines = write_session(tmp_path)
    assert "cameras: left, right" in lines
    session = load_session(path)
    assert session.patterns == Patterns(poses2d="s/{camera}.h5")
    assert (session.cameras, session.calibration, session.unit, session.board) == (
        ("left", "right"),
        "rig.toml",
        "m",
        None,
    )
    assert list(find_files(session, "poses2d", "x")) == ["left", "right"]
    assert find_recordings(session) == (tmp_path.name,)


def test_board_footage_is_preferred_to_a_calibration(tmp_path: Path) -> None:
    tree(tmp_path, "board.toml", "calibration/a/1.png")
    save_rig(tmp_path / "old.toml", ring_rig(2, np.random.default_rng(0), radius=1.0, height=1.0))
    session = load_session(write_session(tmp_path)[0])
    assert (session.board, session.calibration) == ("board.toml", None)


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    write_session(tmp_path)
    load_session(tmp_path)
    (tmp_path / "pose3d.toml").write_text("# mine")
    with pytest.raises(InputError, match="is there already"):
        write_session(tmp_path)
    assert (tmp_path / "pose3d.toml").read_text() == "# mine"
    write_session(tmp_path, force=True)
    assert (tmp_path / "pose3d.toml").read_text() != "# mine"
    with pytest.raises(InputError, match="expected the folder of a session"):
        write_session(tmp_path / "nowhere")


def test_labels_and_networks(tmp_path: Path) -> None:
    for camera in ("left", "right"):
        tree(tmp_path, f"labels/{camera}.slp", f"recordings/x/{camera}.mp4", "models/network.safetensors")
    found = look_around(tmp_path)
    assert (found.patterns, found.cameras, found.recordings) == ({}, ("left", "right"), ("x",))
    assert (found.labels, found.model) == ("labels/{camera}", "models/network.safetensors")
    path, lines = write_session(tmp_path)
    assert lines[-2:] == ["labels: labels/{camera}", "network: models/network.safetensors"]
    session = load_session(path)
    assert session.labels == (LabelTable("labels/{camera}"),)
    assert '# video = "recordings/x/{camera}.mp4"' in path.read_text()
    assert session.options["predict"].model == tmp_path / "models/network.safetensors"
    tree(tmp_path, "models/left.safetensors")
    assert look_around(tmp_path).model == "models"


def test_lightning_pose_and_coco_are_labels(tmp_path: Path) -> None:
    for view in ("top", "side"):
        tree(tmp_path, f"lp/CollectedData_{view}.csv", f"lp/labeled-data/s_{view}/img1.png", f"lp/{view}.csv")
        tree(tmp_path, f"lp/labeled-data/s_{view}/CollectedData_me.csv", f"lp/videos/s_{view}.mp4")
    around = look_around(tmp_path)
    assert (around.labels, around.patterns) == ("lp", {"video": "lp/videos/s_{camera}.mp4"})
    inside = look_around(tmp_path / "lp")
    assert (inside.labels, inside.patterns) == (".", {"video": "videos/s_{camera}.mp4"})
    assert load_session(write_session(tmp_path / "lp")[0]).labels == (LabelTable("."),)
    tree(tmp_path / "coco", "labels/top.json")
    assert look_around(tmp_path / "coco").labels is None
    (tmp_path / "coco/labels/top.json").write_text('{"annotations": [{"keypoints": []}]}')
    assert look_around(tmp_path / "coco").labels == "labels/{camera}"


def test_a_deeplabcut_project_is_labels(tmp_path: Path) -> None:
    tree(tmp_path, "mice-me/config.yaml", "mice-me/labeled-data/a/CollectedData_me.csv", "other/config.yaml")
    assert look_around(tmp_path).labels == "mice-me"
    nothing = look_around(tmp_path / "other")
    assert (nothing.labels, nothing.model) == (None, None)
    text = write_session(tmp_path / "other")[0].read_text()
    assert '# [labels]\n# files = "labels/{camera}"' in text
    assert '# [predict]\n# model = "models/network.safetensors"' in text
