"""pose3d.files.moved: a project that was copied finds what was copied with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pose3d.files.moved import find_moved


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_the_stored_path_comes_first_then_the_longest_tail_then_folders_above(tmp_path: Path) -> None:
    project = tmp_path / "a/b/project.slp"
    stored = tmp_path / "old/videos/v.mp4"
    for found in (
        *(tmp_path / place for place in ("videos/v.mp4", "a/videos/v.mp4", "a/b/v.mp4", "a/b/videos/v.mp4")),
        stored,
    ):
        touch(found)
        assert find_moved(project, str(stored)) == found


@pytest.mark.parametrize("stored", ["C:\\old\\videos\\v.mp4", "videos/v.mp4", "./videos/v.mp4", "//host/videos/v.mp4"])
def test_paths_of_other_systems(tmp_path: Path, stored: str) -> None:
    found = touch(tmp_path / "a/videos/v.mp4")
    assert find_moved(tmp_path / "a/b/project.slp", stored) == found


def test_above_a_name_alone_is_not_enough(tmp_path: Path) -> None:
    """A file of that name there may be any; what is expected is named."""
    touch(tmp_path / "v.mp4")
    (tmp_path / "a").mkdir()
    assert find_moved(tmp_path / "a/project.slp", "/old/v.mp4") == tmp_path / "a/v.mp4"
    (tmp_path / "a/videos").mkdir()
    assert find_moved(tmp_path / "a/project.slp", "/old/videos/v.mp4") == tmp_path / "a/videos/v.mp4"
