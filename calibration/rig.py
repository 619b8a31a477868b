"""Which cameras look at the same scene, and what does each of them see of a point? Ordered, named cameras."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.camera import INTRINSIC_PARAMETERS, Camera
from calibration.errors import InputError, nearest_name
from calibration.transforms import skew

__all__ = ["RIG_PARAMETERS", "CameraRig", "Packed", "gauge_directions"]

Array = NDArray[np.float64]

RIG_PARAMETERS = ("rx", "ry", "rz", "tx", "ty", "tz", *INTRINSIC_PARAMETERS)
"""The 18 parameters of each camera in the rig's covariance: R = exp(rx, ry, rz) R0, t = t0 + (tx, ty, tz), then
intrinsics."""


@dataclass(frozen=True, eq=False)
class Packed:
    """A rig as arrays for kernels: R (V, 3, 3), t (V, 3), parameters (V, 13) as in `Intrinsics.row`, model (V,) int64
    (0 pinhole, 1 fisheye)."""

    R: Array
    t: Array
    parameters: Array
    model: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CameraRig:
    """Cameras in one world, ordered and named.

    unit: of the world's lengths, such as "mm".
    covariance: (18 V, 18 V) over `RIG_PARAMETERS` of each camera, in the cameras' order; rotations in rad, lengths in
    the
        rig's unit, intrinsics in px. Zero rows are held or exact; None takes the whole rig as exact.
    Raises InputError when there is no camera, two have one name, or the covariance has another shape.
    """

    cameras: tuple[Camera, ...]
    unit: str
    covariance: Array | None = None

    def __post_init__(self) -> None:
        cameras = tuple(self.cameras)
        names = [camera.name for camera in cameras]
        if not cameras:
            raise InputError("rig: expected at least one camera, got none")
        if len(set(names)) < len(names):
            doubled = sorted({name for name in names if names.count(name) > 1})
            raise InputError(f"rig: camera names must differ, got {', '.join(doubled)} more than once")
        object.__setattr__(self, "cameras", cameras)
        object.__setattr__(self, "unit", str(self.unit))
        if self.covariance is not None:
            covariance = np.asarray(self.covariance, dtype=np.float64)
            n = len(RIG_PARAMETERS) * len(cameras)
            if covariance.shape != (n, n):
                raise InputError(
                    f"rig: expected a covariance ({n}, {n}) for {len(cameras)} cameras, got {covariance.shape}"
                )
            object.__setattr__(self, "covariance", covariance)

    @property
    def names(self) -> tuple[str, ...]:
        """The cameras' names in order."""
        return tuple(camera.name for camera in self.cameras)

    @property
    def centers(self) -> Array:
        """(views, 3) where the cameras stand."""
        return np.stack([camera.center for camera in self.cameras])

    def __len__(self) -> int:
        return len(self.cameras)

    def __iter__(self) -> Iterator[Camera]:
        return iter(self.cameras)

    def __getitem__(self, name: str) -> Camera:
        """The camera of that name. Raises InputError with the nearest valid name."""
        return self.cameras[self.index(name)]

    def index(self, name: str) -> int:
        """The position of a camera by name. Raises InputError with the nearest valid name."""
        if name not in self.names:
            raise InputError(f"camera '{name}' is not in the rig; {nearest_name(name, self.names)}")
        return self.names.index(name)

    def project(self, points: ArrayLike) -> Array:
        """World points (..., 3) -> pixels (views, ..., 2); NaN where a camera cannot see in that direction."""
        return np.stack([camera.project(points) for camera in self.cameras])

    def rays(self, xy: ArrayLike) -> Array:
        """Pixels (views, ..., 2) -> unit rays (views, ..., 3) in world axes, from `centers`; NaN in, NaN out."""
        xy = np.asarray(xy, dtype=np.float64)
        if len(xy) != len(self):
            raise InputError(f"rays: expected pixels of {len(self)} views, got {len(xy)}")
        return np.stack([camera.rays(pixels) for camera, pixels in zip(self.cameras, xy, strict=True)])

    def subset(self, names: Iterable[str]) -> CameraRig:
        """The rig of these cameras, in this order. Raises InputError for an unknown name."""
        order = [self.index(name) for name in names]
        covariance = None
        if self.covariance is not None:
            rows = (np.array(order)[:, None] * len(RIG_PARAMETERS) + np.arange(len(RIG_PARAMETERS))).ravel()
            covariance = self.covariance[np.ix_(rows, rows)]
        return CameraRig(tuple(self.cameras[i] for i in order), self.unit, covariance)

    def moved(
        self,
        scale: float,
        R: ArrayLike,
        t: ArrayLike,
        *,
        by_rig: ArrayLike | None = None,
        spread: ArrayLike | None = None,
    ) -> CameraRig:
        """The same rig in another world: x_new = scale * R @ x_world + t. Every point keeps its pixels.

        The covariance moves along. A similarity that was found with this rig is not exact: by_rig (7, 18 V) is its
        derivative by the rig's parameters, spread (7, 7) its covariance for an exact rig, both of a further turn (3),
        shift (3) and relative change of scale in the new world; default 0.
        """
        R, t = np.asarray(R, dtype=np.float64), np.asarray(t, dtype=np.float64)
        cameras = []
        jacobian = np.eye(len(RIG_PARAMETERS) * len(self))
        for i, camera in enumerate(self.cameras):
            cam_from_new = camera.R @ R.T
            shift = cam_from_new @ t
            cameras.append(replace(camera, R=cam_from_new, t=scale * camera.t - shift))
            row = len(RIG_PARAMETERS) * i
            jacobian[row + 3 : row + 6, row : row + 3] = skew(shift)
            jacobian[row + 3 : row + 6, row + 3 : row + 6] = scale * np.eye(3)
        rig = CameraRig(tuple(cameras), self.unit)
        if self.covariance is None:
            return rig
        world = gauge_directions(rig.packed()).reshape(-1, 7)
        if by_rig is not None:
            jacobian += world @ np.asarray(by_rig)
        covariance = jacobian @ self.covariance @ jacobian.T
        if spread is not None:
            covariance += world @ np.asarray(spread) @ world.T
        return replace(rig, covariance=covariance)

    def packed(self) -> Packed:
        """The rig as arrays for kernels."""
        return Packed(
            R=np.stack([camera.R for camera in self.cameras]),
            t=np.stack([camera.t for camera in self.cameras]),
            parameters=np.stack([camera.intrinsics.row for camera in self.cameras]),
            model=np.array([camera.intrinsics.model == "fisheye" for camera in self.cameras], dtype=np.int64),
        )


def gauge_directions(cameras: Packed) -> Array:
    """(V, 18, 7) how the parameters of the cameras change when the world is turned (3), shifted (3) and scaled: the
    pixels stay."""
    out = np.zeros((len(cameras.t), len(RIG_PARAMETERS), 7))
    out[:, :3, :3] = -cameras.R
    out[:, 3:6, 3:6] = -cameras.R
    out[:, 3:6, 6] = cameras.t
    return out
