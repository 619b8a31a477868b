"""Which keypoints an animal has and how they hang together."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError, nearest_name

__all__ = ["Skeleton", "symmetry_by_name"]

Pairs = tuple[tuple[int, int], ...]

_LEFT = re.compile(r"[Ll]eft|LEFT|L|(?<![A-Za-z])l(?![A-Za-z])")
"""What may stand for the left side in a name; a lone l only where no letter is beside it."""
_RIGHT = {"left": "right", "Left": "Right", "LEFT": "RIGHT", "L": "R", "l": "r"}


@dataclass(frozen=True)
class Skeleton:
    """Keypoint names and the pairs of keypoints that mean something; pairs are 0-based indices into `keypoints`.

    keypoints: names, unique.
    edges: drawn as lines; also which keypoints are neighbours.
    bones: pairs whose distance is constant for an individual (used by `refine`).
    symmetry: (left, right) pairs that mirror each other.
    sigmas: per-keypoint constants of OKS (COCO), shape (keypoints,), or None.
    """

    keypoints: tuple[str, ...]
    edges: Pairs = ()
    bones: Pairs = ()
    symmetry: Pairs = ()
    sigmas: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "keypoints", tuple(str(k) for k in self.keypoints))
        if len(set(self.keypoints)) != len(self.keypoints):
            doubled = sorted({k for k in self.keypoints if self.keypoints.count(k) > 1})
            raise InputError(f"skeleton: keypoint names must differ, got {', '.join(doubled)} more than once")
        for what in ("edges", "bones", "symmetry"):
            object.__setattr__(self, what, self._checked_pairs(what, getattr(self, what)))
        if self.sigmas is not None:
            sigmas = tuple(float(s) for s in self.sigmas)
            if len(sigmas) != len(self.keypoints):
                raise InputError(f"skeleton: expected {len(self.keypoints)} sigmas, one a keypoint, got {len(sigmas)}")
            object.__setattr__(self, "sigmas", sigmas)

    def _checked_pairs(self, what: str, pairs: Iterable[Iterable[int]]) -> Pairs:
        checked = []
        for pair in pairs:
            a, b = (int(i) for i in pair)
            if not (0 <= a < len(self.keypoints) and 0 <= b < len(self.keypoints)) or a == b:
                raise InputError(
                    f"skeleton: {what} hold pairs of different keypoint indices from 0 to "
                    f"{len(self.keypoints) - 1}, got ({a}, {b})"
                )
            checked.append((a, b))
        return tuple(checked)

    def __len__(self) -> int:
        return len(self.keypoints)

    def index(self, keypoint: str) -> int:
        """The position of a keypoint by name. Raises InputError with the nearest valid name."""
        try:
            return self.keypoints.index(keypoint)
        except ValueError:
            raise InputError(
                f"keypoint '{keypoint}' is not in the skeleton; {nearest_name(keypoint, self.keypoints)}"
            ) from None

    def pairs_by_name(self, names: Iterable[tuple[str, str]]) -> Pairs:
        """Index pairs of keypoint-name pairs. Raises InputError for an unknown name."""
        return tuple((self.index(a), self.index(b)) for a, b in names)

    def flip_order(self) -> NDArray[np.intp]:
        """(keypoints,) the keypoint that each becomes when the image is mirrored; itself where it has no partner."""
        order = np.arange(len(self.keypoints))
        for left, right in self.symmetry:
            order[left], order[right] = right, left
        return order


def symmetry_by_name(keypoints: tuple[str, ...]) -> Pairs:
    """(left, right) indices of keypoints whose names differ in nothing but the side: wingL and wingR, left_ear and
    right_ear, l-paw and r-paw. Names of which several could be the other's partner are left out."""
    found: dict[tuple[int, int], None] = {}
    for a, name in enumerate(keypoints):
        for side in _LEFT.finditer(name):
            other = name[: side.start()] + _RIGHT[side[0]] + name[side.end() :]
            if other in keypoints:
                found[a, keypoints.index(other)] = None
    used = [index for pair in found for index in pair]
    return tuple(pair for pair in found if all(used.count(index) == 1 for index in pair))
