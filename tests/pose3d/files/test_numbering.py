"""pose3d.files.numbering: the last integer of a name."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibration.errors import InputError
from pose3d.files.numbering import last_integer


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("cam02.0080.json", 80),
        ("img0064.png", 64),
        ("clip1_000000000012", 12),
        ("12", 12),
        ("t3_f7_x.mp4", 7),
        ("f_00", 0),
        ("cam02.0080", 80),
    ],
)
def test_last_integer(name: str, number: int) -> None:
    assert last_integer(name, Path("x")) == number


def test_a_name_without_number_is_an_error() -> None:
    with pytest.raises(InputError, match=r"folder: expected a frame number in the name 'image.mp4'"):
        last_integer("image.mp4", Path("folder"))
