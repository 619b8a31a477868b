"""Which kinds of lens are there, what of each is sought, and what is it before anything was seen?"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from calibration.camera import INTRINSIC_PARAMETERS, Intrinsics

__all__ = ["LENSES", "RADIAL", "Lens", "free_parameters", "lens_of", "parameter_names", "prior_intrinsics"]

Array = NDArray[np.float64]

Lens = Literal["pinhole", "fisheye", "rational"]
LENSES: tuple[Lens, ...] = ("pinhole", "fisheye", "rational")
"""From the most to the least ordinary: a pinhole with 5 coefficients, a fisheye with 4, a pinhole with 8."""
RADIAL: dict[Lens, tuple[int, ...]] = {"pinhole": (8, 5, 4), "fisheye": (7, 6, 5, 4), "rational": (11, 10, 9, 8, 5, 4)}
"""Columns of INTRINSIC_PARAMETERS that bend the image along its radius, the highest power first."""

_NAMES: dict[Lens, tuple[str, ...]] = {
    "pinhole": ("k1", "k2", "p1", "p2", "k3"),
    "fisheye": ("k1", "k2", "k3", "k4"),
    "rational": ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
}
ORDINARY_FOCAL: dict[Lens, float] = {"pinhole": 0.9, "fisheye": 0.4, "rational": 0.9}
FOCAL_SIGMA = 0.45
"""Prior of the focal length, in units of the image's longer side."""
LONG_SIGMA = 0.5
"""At least this share of the focal length first found is the sigma of its prior: there is no longest lens."""
CENTRE_SIGMA = 0.02
"""Prior of the principal point about the image's middle, in units of the image's longer side."""
DISTORTION_SIGMA: dict[Lens, tuple[float, ...]] = {
    "pinhole": (0.3, 0.3, 0.003, 0.003, 0.3),
    "fisheye": (0.2, 0.1, 0.05, 0.02),
    "rational": (1.0, 1.0, 0.003, 0.003, 1.0, 1.0, 1.0, 1.0),
}
"""Prior of the distortion coefficients about 0."""


def lens_of(intrinsics: Intrinsics) -> Lens:
    """Its kind: pinholes differ by the number of coefficients that they keep."""
    if intrinsics.model == "fisheye":
        return "fisheye"
    return "rational" if len(intrinsics.dist) == 8 else "pinhole"


def parameter_names(intrinsics: Intrinsics) -> tuple[str, ...]:
    """What the first of INTRINSIC_PARAMETERS are called in a camera with this lens."""
    return (*INTRINSIC_PARAMETERS[:4], *_NAMES[lens_of(intrinsics)])


def free_parameters(intrinsics: Intrinsics) -> NDArray[np.bool_]:
    """(12,) over INTRINSIC_PARAMETERS: what is sought of a camera with this lens."""
    return np.arange(len(INTRINSIC_PARAMETERS)) < len(parameter_names(intrinsics))


def prior_intrinsics(
    size: tuple[int, int], focal_found: float = 0.0, lens: Lens = "pinhole"
) -> tuple[Intrinsics, Array]:
    """What a camera of this image size (width, height) is before anything was seen, and the sigma (12,) of that; inf =
    not sought. focal_found: px, a first estimate, which widens the prior of a long lens."""
    longer, (width, height) = max(size), size
    focal, bend = ORDINARY_FOCAL[lens] * longer, DISTORTION_SIGMA[lens]
    K = np.array([[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]])
    sigma = np.full(len(INTRINSIC_PARAMETERS), np.inf)
    sigma[:2] = max(FOCAL_SIGMA * longer, LONG_SIGMA * focal_found)
    sigma[2:4] = CENTRE_SIGMA * longer
    sigma[4 : 4 + len(bend)] = bend
    return Intrinsics(size, K, np.zeros(len(bend)), "fisheye" if lens == "fisheye" else "pinhole"), sigma
