"""How do a file's numbers become cameras, and what must the caller say that the file does not?"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.camera import Camera, Intrinsics
from calibration.errors import InputError
from calibration.rig import CameraRig

__all__ = ["camera_of", "rig_of", "rigid", "size_of", "unit_of"]

_THIN_PRISM = 8
"""OpenCV's distortion coefficients after this many (thin prism, tilted sensor) are not known here."""


def camera_of(
    where: str,
    name: str,
    *,
    size: tuple[int, int],
    K: ArrayLike,
    dist: ArrayLike,
    R: ArrayLike,
    t: ArrayLike,
    fisheye: bool = False,
    offset: float = 0.0,
    drift: float = 0.0,
) -> Camera:
    """A camera of a file's numbers, in OpenCV's order; coefficients after the eighth may be there when they are 0.

    where: what errors begin with. Raises InputError for what `Intrinsics` or `Camera` refuses.
    """
    dist = np.asarray(dist, dtype=np.float64).ravel()
    if len(dist) > _THIN_PRISM and not dist[_THIN_PRISM:].any():
        dist = dist[:_THIN_PRISM]
    try:
        intrinsics = Intrinsics(size, np.asarray(K), dist, "fisheye" if fisheye else "pinhole")
        return Camera(name, intrinsics, np.asarray(R), np.asarray(t), offset, drift)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def rig_of(path: Path, cameras: Iterable[Camera], unit: str) -> CameraRig:
    """The cameras as a rig without covariance. Raises InputError naming the file."""
    try:
        return CameraRig(tuple(cameras), unit)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def rigid(matrix: NDArray[np.float64], where: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(R, t) of a rigid transform (4, 4). Raises InputError when its last row is not 0 0 0 1 or R no rotation."""
    R = matrix[:3, :3]
    if np.any(matrix[3] != (0, 0, 0, 1)) or not np.allclose(R @ R.T, np.eye(3), atol=1e-6) or np.linalg.det(R) < 0:
        raise InputError(f"{where}: expected a rotation and a translation above a row 0 0 0 1, got {matrix.tolist()}")
    return R, matrix[:3, 3]


def unit_of(path: Path, stored: str | None, given: str | None, remedy: str = "give --unit, or unit= in Python") -> str:
    """The unit of a file's lengths: what it says itself (stored), or what the caller gave. Raises InputError when it is
    neither, or they differ: nothing is rescaled."""
    if stored is None and given is None:
        raise InputError(f"{path}: the file does not say its unit of length; {remedy}")
    if stored is not None and given is not None and stored != given:
        raise InputError(f'{path}: its lengths are in unit = "{stored}", got unit="{given}"; leave one out')
    return str(given if stored is None else stored)


def size_of(where: str, stored: tuple[float, float] | None, given: tuple[int, int] | None) -> tuple[int, int]:
    """(width, height) px of a camera's images: what the file says, or what the caller gave. Raises InputError when it
    is neither, or they differ."""
    if stored is None and given is None:
        raise InputError(
            f"{where}: the file does not say the size of the images; give size=(width, height) in px "
            "(pose3d convert --size WIDTH HEIGHT makes a calibration.toml of it)"
        )
    if stored is None:
        return int(given[0]), int(given[1])  # type: ignore[index]
    size = round(stored[0]), round(stored[1])
    if given is not None and size != tuple(given):
        raise InputError(f"{where}: the file says images of {size} px, got size={tuple(given)}; leave it out")
    return size
