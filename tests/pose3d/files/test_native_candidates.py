"""pose3d.files.native_candidates: candidates there and back, whole, in part and joined."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from calibration.errors import InputError
from pose3d.files.native_candidates import count_candidates, join_candidates, read_candidates, write_candidates
from pose3d.files.native_groups import read_groups
from pose3d.poses import Candidates
from pose3d.skeleton import Skeleton

COLUMNS = (
    "frame_start", "keypoint", "xy", "score", "covariance", "limb_start", "a", "b", "edge", "limb_score", "frame",
)  # fmt: skip


def make_candidates(rng: np.random.Generator, frames: int, most: int) -> Candidates:
    """Up to `most` candidates and limbs in each frame; limbs join candidates of their own frame."""
    found, joined = (rng.integers(0, most + 1, frames) for _ in range(2))
    joined[found == 0] = 0
    starts, limb_starts = (np.concatenate(([0], np.cumsum(count))) for count in (found, joined))
    n, m = starts[-1], limb_starts[-1]
    first, size = (np.repeat(values, joined) for values in (starts[:-1], found))
    return Candidates(
        frame_start=starts, keypoint=rng.integers(0, 2, n).astype(np.int32), xy=rng.random((n, 2)),
        score=rng.random(n), covariance=rng.random((n, 2, 2)), limb_start=limb_starts,
        a=first + rng.integers(0, np.maximum(size, 1)), b=first + rng.integers(0, np.maximum(size, 1)),
        edge=rng.integers(0, 1, m).astype(np.int32), limb_score=rng.random(m), frame=np.arange(frames) * 3 + 2,
        skeleton=Skeleton(("a", "b"), edges=((0, 1),)), limbs=((0, 1), (1, 0)),
    )  # fmt: skip


def cut(whole: Candidates, start: int, stop: int) -> Candidates:
    """The frames start..stop-1, one after the other in a loop: the plain way."""
    columns: dict[str, list] = {name: [] for name in COLUMNS}
    columns["frame_start"], columns["limb_start"] = [0], [0]
    for f in range(start, stop):
        n, m = len(columns["keypoint"]), slice(whole.limb_start[f], whole.limb_start[f + 1])
        rows = slice(whole.frame_start[f], whole.frame_start[f + 1])
        for name in ("keypoint", "xy", "score", "covariance"):
            columns[name] += list(getattr(whole, name)[rows])
        for name in ("edge", "limb_score"):
            columns[name] += list(getattr(whole, name)[m])
        for name in ("a", "b"):
            columns[name] += [row - rows.start + n for row in getattr(whole, name)[m]]
        columns["frame"].append(whole.frame[f])
        columns["frame_start"].append(len(columns["keypoint"]))
        columns["limb_start"].append(len(columns["a"]))
    shapes = {"xy": (-1, 2), "covariance": (-1, 2, 2)}
    arrays = {
        name: np.array(values, dtype=getattr(whole, name).dtype).reshape(shapes.get(name, (-1,)))
        for name, values in columns.items()
    }
    return replace(whole, **arrays)


def assert_same(one: Candidates, other: Candidates) -> None:
    assert (one.skeleton, one.limbs) == (other.skeleton, other.limbs)
    for name in COLUMNS:
        assert getattr(one, name).dtype == getattr(other, name).dtype
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize("most", [0, 8])
def test_candidates_come_back(tmp_path: Path, rng: np.random.Generator, most: int) -> None:
    candidates, path = make_candidates(rng, 7, most), tmp_path / "candidates.nc"
    write_candidates(path, candidates)
    assert_same(read_candidates(path), candidates)
    assert count_candidates(path) == (7, len(candidates.keypoint))
    for start, stop in ((0, 7), (2, 5), (6, 7), (3, 3)):
        assert_same(read_candidates(path, slice(start, stop)), cut(candidates, start, stop))
    xarray = pytest.importorskip("xarray")
    with xarray.open_dataset(path) as data:
        assert data["xy"].dims == ("candidates", "space")
    with pytest.raises(InputError, match="expected groups, the file holds candidates"):
        read_groups(path)


@pytest.mark.parametrize("borders", [(), (0, 1, 1), (100, 200), (37, 290)])
def test_joined_windows_are_the_bytes_of_the_whole(tmp_path: Path, borders: tuple[int, ...]) -> None:
    folder, parts = tmp_path, []
    whole = make_candidates(np.random.default_rng(0), 300, 6)
    for number, (start, stop) in enumerate(pairwise([0, *borders, 300])):
        parts.append(folder / f"{number}.nc")
        write_candidates(parts[-1], cut(whole, start, stop))
    join_candidates(parts, folder / "joined.nc")
    assert_same(read_candidates(folder / "joined.nc"), whole)
    write_candidates(folder / "whole.nc", whole)
    assert (folder / "joined.nc").read_bytes() == (folder / "whole.nc").read_bytes()


def test_joining_asks_for_parts_that_follow_each_other(tmp_path: Path, rng: np.random.Generator) -> None:
    one, other = tmp_path / "one.nc", tmp_path / "other.nc"
    first = make_candidates(rng, 3, 2)
    write_candidates(one, first)
    write_candidates(other, first)
    for parts, message in (
        ([], "nothing to join"),
        ([one, other], "frame 2 comes after frame 8"),
    ):
        with pytest.raises(InputError, match=message):
            join_candidates(parts, tmp_path / "whole.nc")
    write_candidates(other, replace(first, frame=first.frame + 100, limbs=((0, 1),)))
    with pytest.raises(InputError, match="skeletons and limbs must agree"):
        join_candidates([one, other], tmp_path / "whole.nc")
    assert not (tmp_path / "whole.nc").exists()
