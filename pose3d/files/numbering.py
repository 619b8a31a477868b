"""Which frame does a file's name stand for? The last integer in it."""

from __future__ import annotations

import re
from pathlib import Path

from calibration.errors import InputError

__all__ = ["last_integer"]


def last_integer(name: str, where: Path) -> int:
    """The last run of digits in a file's name without its suffix: 80 of "cam02.0080.json", 12 of "12". Raises
    InputError.
    """
    stem = re.sub(r"\.[A-Za-z]\w*$", "", name)
    digits = re.findall(r"\d+", stem)
    if not digits:
        raise InputError(f"{where}: expected a frame number in the name '{name}', found none")
    return int(digits[-1])
