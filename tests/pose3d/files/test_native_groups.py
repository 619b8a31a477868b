"""pose3d.files.native_groups: groups and candidates there and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.errors import InputError
from pose3d.files.native_groups import join_groups, read_groups, write_groups
from pose3d.poses import Groups

VIEWS = ("back", "mid", "top")


def make_groups(seed: int, frames: int, groups: int, ids: bool = True) -> Groups:
    rng = np.random.default_rng(seed)
    slots = rng.integers(-1, 5, (frames, groups, len(VIEWS)))
    drawn = [rng.permutation(np.arange(-1, 2 * groups))[:groups] for _ in range(frames)]
    stored = np.array(drawn).reshape(frames, groups) if ids else None
    return Groups(VIEWS, slots, stored, rng.random((frames, groups)))


def assert_same_groups(a: Groups, b: Groups) -> None:
    assert a.view_names == b.view_names
    np.testing.assert_array_equal(a.slots, b.slots)
    np.testing.assert_array_equal(a.ids, b.ids)
    np.testing.assert_array_equal(a.confidence, b.confidence)


@given(seed=st.integers(0, 2**32 - 1), frames=st.sampled_from([0, 1, 300]), groups=st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_groups_come_back(tmp_path_factory: pytest.TempPathFactory, seed: int, frames: int, groups: int) -> None:
    path = tmp_path_factory.mktemp("groups") / "groups.nc"
    written = make_groups(seed, frames, groups)
    write_groups(path, written)
    assert_same_groups(read_groups(path), written)
    assert_same_groups(read_groups(path, slice(1, 5)), written.window(1, 5))
    first = path.read_bytes()
    write_groups(path, written)
    assert path.read_bytes() == first


def test_joined_groups_stand_in_columns_of_identity(tmp_path: Path) -> None:
    parts = [make_groups(1, 20, 2), make_groups(2, 300, 3), make_groups(3, 1, 0)]
    paths = [tmp_path / f"{i}.nc" for i in range(3)]
    for path, part in zip(paths, parts, strict=True):
        write_groups(path, part)
    join_groups(paths, tmp_path / "whole.nc")
    whole = read_groups(tmp_path / "whole.nc")
    ids = sorted({int(i) for part in parts for i in part.ids.ravel()} - {-1})
    assert whole.ids.shape == (321, len(ids))
    row = 0
    for part in parts:
        for frame in range(len(part.ids)):
            for column, identity in enumerate(ids):
                found = np.flatnonzero(part.ids[frame] == identity)
                if len(found):
                    np.testing.assert_array_equal(whole.slots[row, column], part.slots[frame, found[0]])
                    assert whole.confidence[row, column] == part.confidence[frame, found[0]]
                    assert whole.ids[row, column] == identity
                else:
                    assert (whole.slots[row, column] == -1).all()
                    assert (whole.ids[row, column], whole.confidence[row, column]) == (-1, 0)
            row += 1


def test_joined_groups_without_identity_are_padded(tmp_path: Path) -> None:
    parts = [make_groups(1, 2, 1, ids=False), make_groups(2, 3, 2, ids=False)]
    paths = [tmp_path / "a.nc", tmp_path / "b.nc"]
    for path, part in zip(paths, parts, strict=True):
        write_groups(path, part)
    join_groups(paths, tmp_path / "whole.nc")
    whole = read_groups(tmp_path / "whole.nc")
    np.testing.assert_array_equal(whole.slots[:2, :1], parts[0].slots)
    np.testing.assert_array_equal(whole.slots[2:], parts[1].slots)
    assert (whole.slots[:2, 1] == -1).all()


def test_joining_asks_for_parts_with_the_same_views(tmp_path: Path) -> None:
    write_groups(tmp_path / "a.nc", make_groups(1, 2, 1))
    write_groups(tmp_path / "b.nc", Groups(("x", "y", "z"), np.zeros((2, 1, 3))))
    with pytest.raises(InputError, match="views must agree"):
        join_groups([tmp_path / "a.nc", tmp_path / "b.nc"], tmp_path / "whole.nc")
    with pytest.raises(InputError, match="nothing to join"):
        join_groups([], tmp_path / "whole.nc")
    assert not (tmp_path / "whole.nc").exists()
