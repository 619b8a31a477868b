"""pose3d.files.hdf5: a damaged file is the user's error."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from calibration.errors import InputError
from pose3d.files.hdf5 import open_hdf5, text


def test_missing_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.nc: expected a file, found none"), open_hdf5(tmp_path / "none.nc"):
        pass
    path = tmp_path / "a.nc"
    path.write_text("no HDF5")
    with pytest.raises(InputError, match=r"a\.nc: cannot be read as HDF5"), open_hdf5(path):
        pass
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros((1000, 100))
    with pytest.raises(InputError, match=r"a\.nc: an expected part is missing"), open_hdf5(path) as file:
        file["y"]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"a\.nc: cannot be read"), open_hdf5(path) as file:
        file["x"][()]


def test_text_of_bytes_and_strings() -> None:
    assert text("é".encode()) == text("é") == "é"
