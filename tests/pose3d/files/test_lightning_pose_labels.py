"""Lightning Pose's projects, of one view and of several, written here."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.errors import InputError
from pose3d.files import load_labels
from pose3d.labels import Labels, check_labels

NAN = float("nan")
SIZE = 32, 24
FRAMES = (12, 3)


def write_table(path: Path, rows: dict[str, list[object]], coords: tuple[str, ...] = ("x", "y")) -> Path:
    """nose and tail; {name of the image: cells}."""
    parts = [part for part in ("nose", "tail") for _ in coords]
    lines = [["scorer", *["me"] * len(parts)], ["bodyparts", *parts], ["coords", *coords * 2]]
    lines += [[name, *(str(cell) for cell in cells)] for name, cells in rows.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(",".join(line) + "\n" for line in lines))
    return path


def write_view(project: Path, table: str, folders: tuple[str, ...], value: int = 0) -> Path:
    """Labels of two frames in each folder; the noses of the table are at (value, 2), its images have that value."""
    rows: dict[str, list[object]] = {}
    for folder in folders:
        for place, frame in enumerate(FRAMES):
            name = f"labeled-data/{folder}/img{frame:08d}.png"
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(project / name), np.full((SIZE[1], SIZE[0], 3), value, dtype=np.uint8))
            rows[name] = [value, 2, "" if place else 4, "" if place else 5]
    return write_table(project / table, rows)


def write_views(project: Path, prefix: str = "CollectedData_") -> Path:
    for value, view in enumerate(("bot", "top")):
        write_view(project, f"{prefix}{view}.csv", (f"s0_{view}", f"s1_{view}"), 10 + value)
    return project


def assert_views(labels: Labels) -> None:
    check_labels(labels)
    assert labels.camera == ("bot",) * 4 + ("top",) * 4
    assert labels.video == tuple(f"{s}_{view}" for view in ("bot", "top") for s in ("s0", "s0", "s1", "s1"))
    np.testing.assert_array_equal(labels.frame, [3, 12] * 4)
    np.testing.assert_array_equal(labels.points[:2, 0], [[[10, 2], [NAN, NAN]], [[10, 2], [4, 5]]])
    assert [image[0, 0, 0] for _, image in sorted(labels.images(), key=lambda p: p[0])] == [10] * 4 + [11] * 4


def test_a_project_of_one_view(tmp_path: Path) -> None:
    project = tmp_path / "lp"
    table = write_view(project, "CollectedData.csv", ("s0", "s1"), 7)
    for path in (project, table):
        labels = load_labels(path, camera="cam1")
        check_labels(labels)
        assert labels.camera == ("cam1",) * 4
        assert labels.video == ("s0", "s0", "s1", "s1")
        np.testing.assert_array_equal(labels.frame, [3, 12, 3, 12])
        np.testing.assert_array_equal(labels.points[:2, 0], [[[7, 2], [NAN, NAN]], [[7, 2], [4, 5]]])
        assert labels.image(0)[0, 0, 0] == 7
    assert load_labels(project, video="s1").video == ("s1", "s1")


@pytest.mark.parametrize("prefix", ["CollectedData_", ""])
def test_views_are_cameras(tmp_path: Path, prefix: str) -> None:
    project = write_views(tmp_path / "lp", prefix)
    (project / "bboxes_top.csv").write_text(",x,y,h,w\nlabeled-data/s0_top/img00000003.png,0,0,9,9\n")
    assert_views(load_labels(project))
    top = load_labels(project, camera="top")
    assert set(top.camera) == {"top"}
    assert set(top.points[:, 0, 0, 0]) == {11}
    with pytest.raises(InputError, match=r"lp: expected labels of camera 'side', found those of bot, top"):
        load_labels(project, camera="side")
    assert set(load_labels(project / f"{prefix}top.csv", camera="cam1").camera) == {"cam1"}


def test_views_of_plain_folders(tmp_path: Path) -> None:
    """labeled-data/<view>/..., as in Lightning Pose before 2024."""
    for value, view in enumerate(("view0", "view1")):
        write_view(tmp_path, f"{view}.csv", (view,), value)
    assert load_labels(tmp_path).camera == ("view0",) * 2 + ("view1",) * 2


def test_labels_of_a_test_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    several = write_views(tmp_path / "several")
    write_view(several, "CollectedData_top_test.csv", ("s9_top",))
    one = tmp_path / "one"
    write_view(one, "CollectedData.csv", ("s0",))
    new = write_view(one, "CollectedData_new.csv", ("s9",))
    with caplog.at_level(logging.INFO):
        assert_views(load_labels(several))
        assert set(load_labels(one).video) == {"s0"}
    assert "CollectedData_top_test.csv" in caplog.text
    assert "CollectedData_new.csv" in caplog.text
    assert set(load_labels(new).video) == {"s9"}


def test_project_yaml_names_the_views(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    project = write_views(tmp_path / "lp")
    config = project / "project.yaml"
    config.write_text("view_names:\n  - bot\n  - top\nkeypoint_names: [nose, tail]\n")
    write_view(project, "CollectedData_side.csv", ("s0_side",))
    assert_views(load_labels(project))
    assert_views(load_labels(config))
    config.write_text("view_names: [bot, top, back]\n")
    assert_views(load_labels(project))
    assert "no table of labels for view back" in caplog.text
    config.write_text("view_names: []\n")
    assert set(load_labels(project).camera) == {"bot", "side", "top"}
    for text in ("view_names: top\n", "view_names: [[a]]\n"):
        config.write_text(text)
        with pytest.raises(InputError, match=r"project\.yaml: view_names: expected a list of names, got"):
            load_labels(project)
    for text in ("view_names: [top\n", "- top\n", "\0"):
        config.write_text(text)
        with pytest.raises(InputError, match=r"project\.yaml: expected YAML with view_names, cannot be read"):
            load_labels(project)
    config.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match=r"project\.yaml: expected YAML with view_names, cannot be read"):
        load_labels(project)


def test_tables_that_tell_no_view_are_named(tmp_path: Path) -> None:
    for name in ("labels_a.csv", "labels_b.csv"):
        write_view(tmp_path, name, ("s0",))
    with pytest.raises(InputError, match=r"or a table for each view, .*, got labels_a\.csv, labels_b\.csv; give one"):
        load_labels(tmp_path)


def test_images_that_are_gone_are_named(tmp_path: Path) -> None:
    project = write_views(tmp_path / "lp")
    (project / "labeled-data/s0_top/img00000012.png").unlink()
    with pytest.raises(InputError, match=r"(?s)lp: 1 of 8 labelled frames have no image; .*s0_top/img00000012\.png$"):
        load_labels(project)
    assert len(load_labels(project, missing="skip")) == 7


def test_a_project_without_tables_is_told(tmp_path: Path) -> None:
    (tmp_path / "project.yaml").write_text("view_names: [top]\n")
    (tmp_path / "labeled-data").mkdir()
    with pytest.raises(
        InputError, match=r"project\.yaml: expected CollectedData\.csv, or CollectedData_<view>\.csv for"
    ):
        load_labels(tmp_path / "project.yaml")
    with pytest.raises(InputError, match=r"or a Lightning Pose project with CollectedData\.csv, found none"):
        load_labels(tmp_path)


def test_copied_tables_of_deeplabcut_are_not_read_twice(tmp_path: Path) -> None:
    """dlc2lp copies the folders of labelled images as they are, with DeepLabCut's tables; in a DeepLabCut project these
    are the labels."""
    project = tmp_path / "lp"
    text = write_view(project, "CollectedData.csv", ("s0",)).read_text()
    (project / "labeled-data/s0/CollectedData_me.csv").write_text(text[: text.rstrip().rindex("\n")])
    assert len(load_labels(project)) == 2
    (project / "config.yaml").write_text("scorer: me\n")
    assert len(load_labels(project)) == 1


def test_only_visible_keypoints_count_where_it_is_told(tmp_path: Path) -> None:
    image = "labeled-data/s0/img1.png"
    write_view(tmp_path, "other.csv", ("s0",))
    cells: dict[str, list[object]] = {
        f"labeled-data/s0/img{frame:08d}.png": [1, 2, nose, 3, 4, tail]
        for frame, nose, tail in ((12, 2, 1), (3, 0, ""))
    }
    path = write_table(tmp_path / "CollectedData.csv", cells, ("x", "y", "visible"))
    labels = load_labels(path)
    np.testing.assert_array_equal(labels.points[:, 0], [[[NAN, NAN], [3, 4]], [[1, 2], [NAN, NAN]]])
    write_table(path, {image: [1, 2, 0, 3, 4, 1]}, ("x", "y", "visible"))
    with pytest.raises(InputError, match="expected labelled images, found none"):
        load_labels(path)


def test_cut_tables_are_labels_or_an_error(tmp_path: Path) -> None:
    project = write_views(tmp_path / "lp")
    table = project / "CollectedData_top.csv"
    whole = table.read_bytes()
    told = []
    for end in range(len(whole)):
        table.write_bytes(whole[:end])
        for path in (project, table):
            try:
                labels = load_labels(path)
            except InputError as error:
                told.append(str(error))
            else:
                assert set(labels.camera) <= {"bot", "top", ""}
    assert len(told) > 100
    assert all(str(project) in error for error in told)
