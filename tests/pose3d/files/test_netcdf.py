"""pose3d.files.netcdf: what h5py writes is netCDF to xarray."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from pose3d.files.netcdf import CHUNK_FRAMES, Variable, create_netcdf, rows_of, skeleton_from_json, skeleton_to_json
from pose3d.skeleton import Skeleton


def test_xarray_sees_dimensions_coordinates_and_fill_values(tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    path = tmp_path / "a.nc"
    variables = {
        "frames": Variable(("frames",), np.int64),
        "height": Variable(("frames", "who"), np.float64, np.nan),
        "pair": Variable(("ends", "frames"), np.int32, -1),
    }
    with h5py.File(path, "w") as file:
        create_netcdf(file, {"frames": 600, "who": 2, "ends": 2}, variables, {"who": ["añá", "b"]}, {"unit": "mm"})
        file["frames"][...] = np.arange(600) + 5
        file["height"][1] = [1.0, 2.0]
        assert file["height"].chunks == (CHUNK_FRAMES, 2)
    with xarray.open_dataset(path) as data:
        assert dict(data.sizes) == {"frames": 600, "who": 2, "ends": 2}
        assert set(data.coords) == {"frames", "who"}
        assert data.attrs["unit"] == "mm"
        assert float(data["height"].sel(frames=6, who="b")) == 2.0
        assert np.isnan(data["height"].sel(frames=7)).all()
        assert (data["pair"] == -1).all()
        assert data["pair"].dims == ("ends", "frames")


def test_rows_are_resolved_like_a_list() -> None:
    for part in (slice(None), slice(2, 5), slice(-3, None), slice(8, 100), slice(5, 2), slice(100, 200)):
        rows = rows_of(part, 10)
        assert list(range(rows.start, rows.stop)) == list(range(10))[part]
    with pytest.raises(ValueError, match="step 1"):
        rows_of(slice(0, 10, 2), 10)


@pytest.mark.parametrize(
    "skeleton", [Skeleton(("a",)), Skeleton(("ä", "b c", "d"), ((0, 1),), ((1, 2),), ((0, 2),), (0.1, 1 / 3, 2e-17))]
)
def test_a_skeleton_comes_back(skeleton: Skeleton) -> None:
    assert skeleton_from_json(skeleton_to_json(skeleton)) == skeleton
