"""calibration.files.toml_tables: errors that name file and key."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.errors import InputError
from calibration.files.toml_tables import numbers, read_toml, refuse_misspelt_keys, refuse_unknown_keys


def test_tables_keep_the_files_order(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("[cam_10]\nx = 1\n[cam_2]\nx = 2\n")
    assert list(read_toml(path)) == ["cam_10", "cam_2"]


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml: .*No such file"):
        read_toml(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("a = [1,\n")
    with pytest.raises(InputError, match=r"broken\.toml: expected TOML"):
        read_toml(broken)
    broken.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"broken\.toml"):
        read_toml(broken)


def test_unknown_keys_get_the_nearest_name() -> None:
    refuse_unknown_keys({"rows": 1}, ["rows", "columns"], "b.toml")
    with pytest.raises(InputError, match=r"b\.toml: unknown key 'collumns'; did you mean 'columns'\?"):
        refuse_unknown_keys({"collumns": 1}, ["rows", "columns"], "b.toml")


def test_only_misspelt_keys_are_refused_where_others_may_add_theirs() -> None:
    refuse_misspelt_keys({"world_position": 1, "offset": 2}, ["offset", "drift"], "x")
    with pytest.raises(InputError, match=r"x: unknown key 'ofset'; did you mean 'offset'\?"):
        refuse_misspelt_keys({"ofset": 1}, ["offset", "drift"], "x")


def test_numbers_of_a_shape() -> None:
    table = {"m": [[1, 2], [3, 4.5]], "s": 3, "t": "x", "r": [[1], [2, 3]], "n": [float("nan")], "l": [1, 2, 3]}
    np.testing.assert_array_equal(numbers(table, "m", (2, 2), "w"), [[1, 2], [3, 4.5]])
    np.testing.assert_array_equal(numbers(table, "l", (-1,), "w"), [1, 2, 3])
    assert numbers(table, "s", (), "w") == 3
    for key, shape in (("m", (2,)), ("m", (2, 3)), ("s", (1,)), ("t", ()), ("r", (2, 2)), ("n", (1,)), ("l", (2,))):
        with pytest.raises(InputError, match=rf"w\.{key}: expected"):
            numbers(table, key, shape, "w")
    with pytest.raises(InputError, match=r"w: expected a key 'size', got only m, s"):
        numbers(table, "size", (2,), "w")


def test_a_byte_order_mark_is_no_mistake_but_another_encoding_is(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes("\ufeffx = 1\n".encode())
    assert read_toml(path) == {"x": 1}
    path.write_bytes("x = 'µ'".encode("latin-1"))
    with pytest.raises(InputError, match=r"a\.toml: expected text in UTF-8"):
        read_toml(path)
