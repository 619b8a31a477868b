"""How does a file appear whole or not at all?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic_path", "write_bytes"]


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes the place of `path` once the block ends without an error.

    The temporary file lies in the same folder under a fixed hidden name (`.name.partial`), so what a killed process
    left is overwritten by the next. It is flushed to the disk before it is renamed, and removed when the block raises,
    whatever it raises (an OSError of a full disk passes through). Missing folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        _flush(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _flush(path.parent)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a small file atomically."""
    with atomic_path(path) as partial:
        partial.write_bytes(data)


def _flush(path: Path) -> None:
    """Ask the disk to keep what was written; a folder keeps the renaming."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
