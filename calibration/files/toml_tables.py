"""What stands in a TOML file, checked, with errors that name the file and the key?"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError, nearest_name

__all__ = ["numbers", "read_toml", "refuse_misspelt_keys", "refuse_unknown_keys"]


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, in the file's order. Raises InputError when it is missing, unreadable or no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: expected a readable TOML file, got: {error.strerror}; check the path") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected text in UTF-8; save the file in that encoding") from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, or an integer of thousands of digits
        raise InputError(f"{path}: expected TOML, got: {error}; correct that line") from None


def refuse_unknown_keys(table: Mapping[str, Any], valid: Iterable[str], where: str) -> None:
    """Raise InputError for the first key that is not in `valid`, with the nearest valid name."""
    valid = list(valid)
    for key in table:
        if key not in valid:
            raise InputError(f"{where}: unknown key '{key}'; {nearest_name(key, valid)}")


def refuse_misspelt_keys(table: Mapping[str, Any], valid: Iterable[str], where: str) -> None:
    """Raise InputError for the first unknown key that looks like one in `valid`; other unknown ones are somebody
    else's.
    """
    valid = list(valid)
    for key in table:
        near = nearest_name(key, valid)
        if key not in valid and near.startswith("did you mean"):
            raise InputError(f"{where}: unknown key '{key}'; {near}")


def numbers(table: Mapping[str, Any], key: str, shape: tuple[int, ...], where: str) -> NDArray[np.float64]:
    """table[key] as finite floats of a shape; -1 in the shape is any length. Raises InputError naming file and key."""
    try:
        array = np.array(table[key], dtype=np.float64)
    except KeyError:
        raise InputError(f"{where}: expected a key '{key}', got only {', '.join(table) or 'none'}; add it") from None
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{where}.{key}: expected numbers, got {table[key]!r}") from None
    fits = array.ndim == len(shape) and all(n in (-1, m) for n, m in zip(shape, array.shape, strict=True))
    if not fits or not np.isfinite(array).all():
        wanted = "x".join("n" if n < 0 else str(n) for n in shape) or "one"
        raise InputError(f"{where}.{key}: expected {wanted} finite numbers, got {table[key]!r}")
    return array
