"""What a user did wrong: the one exception that the command line prints without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["InputError", "nearest_name"]


class InputError(ValueError):
    """Input that cannot be used. The message says *what: expected X, got Y; do Z*, with file, camera and key by
    name.
    """


def nearest_name(name: str, valid: Iterable[str]) -> str:
    """The sentence that ends an error about an unknown name: the nearest valid one, or all of them.

    Returns "did you mean 'x'?" where one is near, else "valid: a, b, c".
    """
    valid = [str(v) for v in valid]
    near = difflib.get_close_matches(str(name), valid, n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else f"valid: {', '.join(valid)}"
