"""calibration.files.atomic: whole or not at all, whatever breaks."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from calibration.files.atomic import atomic_path, write_bytes


def test_the_file_appears_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "new folder" / "rig.toml"
    with atomic_path(target) as partial:
        partial.write_bytes(b"whole")
        assert partial.parent == target.parent  # a rename within one folder is atomic
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert [p.name for p in target.parent.iterdir()] == ["rig.toml"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt(), ValueError("x")]
)
def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "rig.toml"
    target.write_bytes(b"old")

    def write() -> None:
        with atomic_path(target) as partial:
            partial.write_bytes(b"ha")
            raise error

    with pytest.raises(type(error)):
        write()
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["rig.toml"]


def test_what_a_killed_process_left_is_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "rig.toml"
    with atomic_path(target) as partial:
        partial.touch()
    partial.write_bytes(b"half of a much longer file")
    write_bytes(target, b"whole")
    assert target.read_bytes() == b"whole"
    assert [p.name for p in tmp_path.iterdir()] == ["rig.toml"]


def test_written_data_reach_the_disk_before_the_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def watched_fsync(handle: int) -> None:
        events.append("fsync " + Path(f"/proc/self/fd/{handle}").readlink().name)
        fsync(handle)

    def watched_replace(self: Path, target: Path) -> Path:
        events.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    write_bytes(tmp_path / "a", b"1")
    assert events == ["fsync .a.partial", "rename", f"fsync {tmp_path.name}"]
