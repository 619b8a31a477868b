"""How is HDF5 opened so that a damaged file is the user's error, and a full disk one error that says so?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from calibration.errors import InputError
from calibration.files.atomic import atomic_path

__all__ = ["create_hdf5", "expect_kind", "open_hdf5", "text"]


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file for reading. Raises InputError naming it when it is missing, is no HDF5, or breaks off while it is
    read.
    """
    if not path.is_file():
        raise InputError(f"{path}: expected a file, found none; check the path")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except OSError as error:
        raise InputError(f"{path}: cannot be read as HDF5 ({error}); it is damaged or of another format") from None
    except KeyError as error:
        raise InputError(
            f"{path}: an expected part is missing ({error.args[0]}); it is damaged or of another format"
        ) from None


@contextmanager
def create_hdf5(path: Path) -> Iterator[h5py.File]:
    """A new HDF5 file, atomic like `atomic_path`. Raises OSError when it cannot be written, such as on a full disk.

    Chunks go to the disk at once: those that h5py still held when the disk is full would fail one by one while they are
    thrown away, each with a message of its own. What fails on closing is a RuntimeError of h5py's.
    """
    with atomic_path(path) as partial:
        try:
            with h5py.File(partial, "w", rdcc_nbytes=0) as file:
                yield file
        except RuntimeError as error:
            raise OSError(f"{path}: cannot be written ({error}); is the disk full?") from error


def text(value: object) -> str:
    """A string stored in HDF5 as bytes or text."""
    return value.decode() if isinstance(value, bytes) else str(value)


def expect_kind(file: h5py.File, kind: str, path: Path) -> None:
    """Raise InputError unless a file of ours holds this kind of thing."""
    found = text(file.attrs.get("kind", "nothing of ours"))
    if found != kind:
        raise InputError(f"{path}: expected {kind}, the file holds {found}")
