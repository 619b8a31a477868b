"""Where does a point in space fall in a camera's image, and back? The only place with K or distortion formulas.

Pinhole cameras have OpenCV's rational distortion, fisheye cameras that of Kannala and Brandt 2006 (OpenCV's
`fisheye`), which sees beyond 90 degrees from the axis. Camera frame: x right, y down, z forward; pixel (0, 0) is the
centre of the first one. In kernels a camera is `model` (0 pinhole, 1 fisheye) and 13 numbers, `Intrinsics.row`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from calibration.errors import InputError, nearest_name
from calibration.transforms import apply

__all__ = [
    "INTRINSIC_PARAMETERS",
    "Camera",
    "Intrinsics",
    "pixels_from_camera",
    "project_jacobian",
    "project_point",
    "project_point_jacobian",
    "project_point_slope",
    "ray_of_pixel",
    "rays_from_pixels",
]

Array = NDArray[np.float64]

PINHOLE, FISHEYE = 0, 1
_MODELS = {"pinhole": PINHOLE, "fisheye": FISHEYE}
INTRINSIC_PARAMETERS = ("fx", "fy", "cx", "cy", "d1", "d2", "d3", "d4", "d5", "d6", "d7", "d8")
"""The intrinsic parameters' order everywhere. d1..d8 = k1 k2 p1 p2 k3 k4 k5 k6 (pinhole), k1 k2 k3 k4 0 0 0 0
(fisheye). The skew is not among them: what a file says of it is kept, nothing here adjusts it."""

_FOLD_SAMPLES = 16
"""Radii from the axis to a point where the distortion is checked for having turned back, unless a bound clears it."""
_INVERSION_RESIDUAL = 1e-10
"""Of normalised coordinates, relative to 1 + the distance from the centre: after such a miss one step more will do."""
_NEWTON_STEPS, _BRACKET_STEPS = 10, 100


@dataclass(frozen=True, eq=False)
class Intrinsics:
    """What a camera is without where it stands.

    size: (width, height) px. K: [fx skew cx; 0 fy cy; 0 0 1] px. model: "pinhole" or "fisheye".
    dist: pinhole k1 k2 p1 p2 k3 [k4 k5 k6] (0, 4, 5 or 8 given, 5 or 8 kept), fisheye k1 k2 k3 k4 (0 or 4 given).
    Raises InputError for other shapes, or values that are not finite.
    """

    size: tuple[int, int]
    K: Array
    dist: Array
    model: str = "pinhole"

    def __post_init__(self) -> None:
        if self.model not in _MODELS:
            raise InputError(f"camera model '{self.model}' is not known; {nearest_name(self.model, _MODELS)}")
        if len(self.size) != 2 or min(self.size) <= 0:
            raise InputError(f"image size: expected (width, height) in px, got {self.size}")
        K = np.array(self.K, dtype=np.float64)
        whole = K.shape == (3, 3) and bool(np.isfinite(K).all())
        if not whole or np.any(K[2] != (0, 0, 1)) or K[1, 0] != 0 or min(K[0, 0], K[1, 1]) <= 0:
            raise InputError(f"K: expected a 3x3 matrix [fx skew cx; 0 fy cy; 0 0 1], got {K.tolist()}")
        dist = np.array(self.dist, dtype=np.float64).ravel()
        lengths = (0, 4, 5, 8) if self.model == "pinhole" else (0, 4)
        if len(dist) not in lengths or not np.isfinite(dist).all():
            raise InputError(f"distortion: expected {lengths} finite numbers ({self.model}), got {dist.tolist()}")
        kept = 4 if self.model == "fisheye" else max(len(dist), 5)
        object.__setattr__(self, "size", (int(self.size[0]), int(self.size[1])))
        object.__setattr__(self, "K", K)
        object.__setattr__(self, "dist", np.concatenate((dist, np.zeros(kept - len(dist)))))

    @property
    def parameters(self) -> Array:
        """(12,) in the order of `INTRINSIC_PARAMETERS`; unused ones are 0."""
        K, unused = self.K, np.zeros(8 - len(self.dist))
        return np.concatenate(([K[0, 0], K[1, 1], K[0, 2], K[1, 2]], self.dist, unused))

    @property
    def row(self) -> Array:
        """(13,) what kernels read: `parameters`, then the skew."""
        return np.append(self.parameters, self.K[0, 1])

    @classmethod
    def from_parameters(
        cls, size: tuple[int, int], parameters: ArrayLike, model: str = "pinhole", n_dist: int | None = None
    ) -> Intrinsics:
        """The inverse of `parameters` or `row`; n_dist distortion coefficients are kept (default 5, fisheye 4)."""
        fx, fy, cx, cy, *rest = np.asarray(parameters, dtype=np.float64)
        n_dist = (4 if model == "fisheye" else 5) if n_dist is None else n_dist
        skew = rest[8] if len(rest) > 8 else 0.0
        return cls(size, np.array([[fx, skew, cx], [0, fy, cy], [0, 0, 1]]), np.array(rest[:n_dist]), model)


@dataclass(frozen=True, eq=False)
class Camera:
    """Intrinsics and a place in the world: x_cam = R @ x_world + t.

    R: (3, 3) rotation, world to camera. t: (3,) in the rig's unit. offset: s and drift: s/s of its clock to the rig's.
    Raises InputError when R is not a rotation (to 1e-6) or a value is not finite.
    """

    name: str
    intrinsics: Intrinsics
    R: Array
    t: Array
    offset: float = 0.0
    drift: float = 0.0

    def __post_init__(self) -> None:
        R, t = np.array(self.R, dtype=np.float64), np.array(self.t, dtype=np.float64)
        if R.shape != (3, 3) or not np.allclose(R @ R.T, np.eye(3), atol=1e-6) or np.linalg.det(R) < 0:
            raise InputError(f"camera '{self.name}': R: expected a 3x3 rotation matrix, got {R.tolist()}")
        if t.shape != (3,) or not np.isfinite(t).all():
            raise InputError(f"camera '{self.name}': t: expected 3 finite numbers, got {t.tolist()}")
        object.__setattr__(self, "name", str(self.name))
        object.__setattr__(self, "R", R)
        object.__setattr__(self, "t", t)

    @property
    def center(self) -> Array:
        """(3,) where the camera stands in the world."""
        return -self.R.T @ self.t

    def project(self, points: ArrayLike) -> Array:
        """World points (..., 3) -> pixels (..., 2); NaN where the camera cannot see in that direction."""
        points = np.asarray(points, dtype=np.float64)
        x_cam = apply(self.R, self.t, points.reshape(-1, 3))
        return pixels_from_camera(x_cam, self.intrinsics).reshape(*points.shape[:-1], 2)

    def rays(self, xy: ArrayLike) -> Array:
        """Pixels (..., 2) -> unit rays (..., 3) in world axes, from `center`; NaN where there is none."""
        return rays_from_pixels(xy, self.intrinsics) @ self.R


def pixels_from_camera(x_cam: ArrayLike, intrinsics: Intrinsics) -> Array:
    """Camera-frame points (..., 3) -> pixels (..., 2).

    NaN behind a pinhole camera (z <= 0), and for either model where the distortion has turned back: a point so far
    from the axis that the polynomial would fold it into the image again has no pixel. Pixels outside the image are
    returned as such.
    """
    x_cam = np.asarray(x_cam, dtype=np.float64)
    flat = np.ascontiguousarray(x_cam.reshape(-1, 3))
    return _project(_MODELS[intrinsics.model], intrinsics.row, flat).reshape(*x_cam.shape[:-1], 2)


def rays_from_pixels(xy: ArrayLike, intrinsics: Intrinsics) -> Array:
    """Pixels (..., 2), also outside the image, -> unit rays (..., 3) in the camera frame.

    NaN where the pixel is NaN or the distortion never reaches it.
    """
    xy = np.asarray(xy, dtype=np.float64)
    flat = np.ascontiguousarray(xy.reshape(-1, 2))
    return _unproject(_MODELS[intrinsics.model], intrinsics.row, flat).reshape(*xy.shape[:-1], 3)


def project_jacobian(x_cam: ArrayLike, intrinsics: Intrinsics) -> tuple[Array, Array, Array]:
    """Pixels of camera-frame points (..., 3) and their derivatives.

    Returns xy (..., 2), J_point (..., 2, 3) px per unit, J_parameters (..., 2, 12) in the order of
    `INTRINSIC_PARAMETERS` (0 for unused ones of a fisheye). NaN in all three where `pixels_from_camera` is NaN.
    """
    x_cam = np.asarray(x_cam, dtype=np.float64)
    flat, shape = np.ascontiguousarray(x_cam.reshape(-1, 3)), x_cam.shape[:-1]
    xy, J_point, J_parameters = _project_with_jacobian(_MODELS[intrinsics.model], intrinsics.row, flat)
    return xy.reshape(*shape, 2), J_point.reshape(*shape, 2, 3), J_parameters.reshape(*shape, 2, 12)


@njit(cache=True, error_model="numpy")
def project_point(model: int, parameters: Array, x: float, y: float, z: float, out_xy: Array) -> bool:
    """Pixel of one camera-frame point into out_xy (2,). False, and out_xy meaningless, where there is none."""
    p = parameters
    if model == FISHEYE:
        r = math.sqrt(x * x + y * y)
        if not (r > 0.0 or z > 0.0):
            return False
        angle = math.atan2(r, z)
        scale = _radial(FISHEYE, p, angle)[0] / r if r > 0.0 else 1.0 / z
        out_xy[0], out_xy[1] = p[0] * scale * x + p[12] * scale * y + p[2], p[1] * scale * y + p[3]
        return _unfolded(FISHEYE, p, angle)
    if not z > 0.0:
        return False
    a, b = x / z, y / z
    u, v, _, _, _ = _distorted(p, a, b)
    out_xy[0], out_xy[1] = p[0] * u + p[12] * v + p[2], p[1] * v + p[3]
    return _unfolded(PINHOLE, p, math.sqrt(a * a + b * b))


@njit(cache=True, error_model="numpy")
def project_point_slope(
    model: int, parameters: Array, x: float, y: float, z: float, out_xy: Array, J_point: Array
) -> bool:
    """`project_point` with its derivative by the point (2, 3), overwritten."""
    p = parameters
    if not project_point(model, p, x, y, z, out_xy):
        return False
    if model == FISHEYE:
        r, distance2 = math.sqrt(x * x + y * y), x * x + y * y + z * z
        value, slope = _radial(FISHEYE, p, math.atan2(r, z))
        scale, bend = 1.0 / z, 0.0
        if r > 0.0:
            scale = value / r
            bend = (slope * z / distance2 - scale) / (r * r)
        J_point[0, 0], J_point[0, 1], J_point[0, 2] = scale + bend * x * x, bend * x * y, -x * slope / distance2
        J_point[1, 0], J_point[1, 1], J_point[1, 2] = bend * x * y, scale + bend * y * y, -y * slope / distance2
    else:
        a, b, inverse = x / z, y / z, 1.0 / z
        _, _, aa, ab, bb = _distorted(p, a, b)
        J_point[0, 0], J_point[0, 1], J_point[0, 2] = aa * inverse, ab * inverse, -(aa * a + ab * b) * inverse
        J_point[1, 0], J_point[1, 1], J_point[1, 2] = ab * inverse, bb * inverse, -(ab * a + bb * b) * inverse
    for i in range(3):
        J_point[0, i] = p[0] * J_point[0, i] + p[12] * J_point[1, i]
        J_point[1, i] *= p[1]
    return True


@njit(cache=True, error_model="numpy")
def project_point_jacobian(
    model: int, parameters: Array, x: float, y: float, z: float, out_xy: Array, J_point: Array, J_parameters: Array
) -> bool:
    """`project_point_slope` with the derivative by the parameters (2, 12) too, overwritten."""
    p = parameters
    if not project_point_slope(model, p, x, y, z, out_xy, J_point):
        return False
    J_parameters[:] = 0.0
    J_parameters[1, 1] = (out_xy[1] - p[3]) / p[1]
    J_parameters[0, 0] = (out_xy[0] - p[2] - p[12] * J_parameters[1, 1]) / p[0]
    J_parameters[0, 2] = J_parameters[1, 3] = 1.0
    if model == FISHEYE:
        r = math.sqrt(x * x + y * y)
        angle = math.atan2(r, z)
        power = angle / r if r > 0.0 else 0.0
        for i in range(4):
            power *= angle * angle
            J_parameters[0, 4 + i], J_parameters[1, 4 + i] = p[0] * x * power, p[1] * y * power
    else:
        a, b = x / z, y / z
        s = a * a + b * b
        inverse = 1.0 / (1.0 + s * (p[9] + s * (p[10] + s * p[11])))
        g = (1.0 + s * (p[4] + s * (p[5] + s * p[8]))) * inverse
        power = inverse
        for i in range(3):
            power *= s
            top, bottom = (4, 5, 8)[i], 9 + i
            J_parameters[0, top], J_parameters[1, top] = p[0] * a * power, p[1] * b * power
            J_parameters[0, bottom], J_parameters[1, bottom] = -p[0] * a * g * power, -p[1] * b * g * power
        J_parameters[0, 6], J_parameters[0, 7] = p[0] * 2.0 * a * b, p[0] * (s + 2.0 * a * a)
        J_parameters[1, 6], J_parameters[1, 7] = p[1] * (s + 2.0 * b * b), p[1] * 2.0 * a * b
    for i in range(4, 12):
        J_parameters[0, i] += p[12] / p[1] * J_parameters[1, i]
    return True


@njit(cache=True, error_model="numpy")
def _distorted(p: Array, a: float, b: float) -> tuple[float, float, float, float, float]:
    """OpenCV's rational model on normalised coordinates: u, v and the derivatives du/da, du/db = dv/da, dv/db."""
    s = a * a + b * b
    inverse = 1.0 / (1.0 + s * (p[9] + s * (p[10] + s * p[11])))
    g = (1.0 + s * (p[4] + s * (p[5] + s * p[8]))) * inverse
    slope = p[4] + s * (2.0 * p[5] + 3.0 * s * p[8]) - g * (p[9] + s * (2.0 * p[10] + 3.0 * s * p[11]))
    slope *= 2.0 * inverse  # 2 dg/ds
    u = a * g + 2.0 * p[6] * a * b + p[7] * (s + 2.0 * a * a)
    v = b * g + p[6] * (s + 2.0 * b * b) + 2.0 * p[7] * a * b
    aa = g + a * a * slope + 2.0 * p[6] * b + 6.0 * p[7] * a
    bb = g + b * b * slope + 6.0 * p[6] * b + 2.0 * p[7] * a
    return u, v, aa, a * b * slope + 2.0 * (p[6] * a + p[7] * b), bb


@njit(cache=True, error_model="numpy")
def _radial(model: int, p: Array, r: float) -> tuple[float, float]:
    """Distorted radius and its derivative; r is tan(angle) of a pinhole camera, the angle of a fisheye."""
    s = r * r
    if model == FISHEYE:
        value = r * (1.0 + s * (p[4] + s * (p[5] + s * (p[6] + s * p[7]))))
        return value, 1.0 + s * (3.0 * p[4] + s * (5.0 * p[5] + s * (7.0 * p[6] + s * 9.0 * p[7])))
    top, bottom = 1.0 + s * (p[4] + s * (p[5] + s * p[8])), 1.0 + s * (p[9] + s * (p[10] + s * p[11]))
    g = top / bottom if bottom > 0.0 else np.nan
    slope = p[4] + s * (2.0 * p[5] + 3.0 * s * p[8]) - g * (p[9] + s * (2.0 * p[10] + 3.0 * s * p[11]))
    return r * g, g + 2.0 * s * slope / bottom


@njit(cache=True, error_model="numpy")
def _unfolded(model: int, p: Array, r: float) -> bool:
    """Whether the distorted radius grows all the way from 0 to r, so that no nearer point has the same pixel."""
    s = r * r
    if model == FISHEYE:
        least = 1.0 + s * (
            3.0 * min(p[4], 0.0) + s * (5.0 * min(p[5], 0.0) + s * (7.0 * min(p[6], 0.0) + s * 9.0 * min(p[7], 0.0)))
        )
    else:
        least = 1.0 + s * (3.0 * min(p[4], 0.0) + s * (5.0 * min(p[5], 0.0) + s * 7.0 * min(p[8], 0.0)))
        if p[9] != 0.0 or p[10] != 0.0 or p[11] != 0.0:
            least = 0.0
    if least > 0.0:  # even with every growing term left out
        return True
    for i in range(_FOLD_SAMPLES):  # noqa: SIM110 (numba has no all())
        if not _radial(model, p, r * (i + 1) / _FOLD_SAMPLES)[1] > 0.0:
            return False
    return True


@njit(cache=True, error_model="numpy")
def _undistorted_radius(model: int, p: Array, distorted: float) -> float:
    """The radius with this distorted one: bracketed Newton. Meaningless where there is none; check by projecting."""
    low, high = 0.0, (math.pi if model == FISHEYE else np.inf)
    r = min(distorted, high)
    for _ in range(_BRACKET_STEPS):
        value, slope = _radial(model, p, r)
        step = np.nan
        if slope > 0.0 and _unfolded(model, p, r):
            step = r - (value - distorted) / slope
            if abs(step - r) <= 1e-15 * (1.0 + r):
                return step
            if value < distorted:
                low = r
            else:
                high = r
        else:
            high = r
        if not (low < step < high):
            step = 0.5 * (low + high) if high < np.inf else 2.0 * low
        r = step
    return r


@njit(cache=True, error_model="numpy")
def ray_of_pixel(model: int, parameters: Array, u: float, v: float, ray: Array) -> bool:
    """Unit ray (3,) of one pixel in the camera frame; False, and ray meaningless, where there is none."""
    p = parameters
    u, v = (u - p[2] - p[12] * (v - p[3]) / p[1]) / p[0], (v - p[3]) / p[1]
    distorted = math.sqrt(u * u + v * v)
    if not math.isfinite(distorted):
        return False
    if model == FISHEYE:
        angle = _undistorted_radius(FISHEYE, p, distorted)
        scale = math.sin(angle) / distorted if distorted > 0.0 else 1.0
        ray[0], ray[1], ray[2] = scale * u, scale * v, math.cos(angle)
        missed = abs(_radial(FISHEYE, p, angle)[0] - distorted)
        return missed <= _INVERSION_RESIDUAL * (1.0 + distorted) and _unfolded(FISHEYE, p, angle)
    found, a, b = _undistorted(p, u, v, u, v)
    if not found and distorted > 0.0:
        scale = _undistorted_radius(PINHOLE, p, distorted) / distorted
        found, a, b = _undistorted(p, u, v, scale * u, scale * v)
    length = 1.0 / math.sqrt(1.0 + a * a + b * b)
    ray[0], ray[1], ray[2] = a * length, b * length, length
    return found


@njit(cache=True, error_model="numpy")
def _undistorted(p: Array, u: float, v: float, a: float, b: float) -> tuple[bool, float, float]:
    """Newton from (a, b) for the normalised coordinates that distort to (u, v); whether it came to an end there."""
    enough = _INVERSION_RESIDUAL * (1.0 + abs(u) + abs(v))
    for _ in range(_NEWTON_STEPS):
        value_u, value_v, aa, ab, bb = _distorted(p, a, b)
        du, dv = u - value_u, v - value_v
        determinant = aa * bb - ab * ab
        if not determinant > 0.0:
            return False, a, b
        a += (bb * du - ab * dv) / determinant
        b += (aa * dv - ab * du) / determinant
        if abs(du) + abs(dv) <= enough:
            return _unfolded(PINHOLE, p, math.sqrt(a * a + b * b)), a, b
    return False, a, b


@njit(cache=True, error_model="numpy")
def _project(model: int, p: Array, points: Array) -> Array:
    out = np.empty((len(points), 2))
    for i in range(len(points)):
        if not project_point(model, p, points[i, 0], points[i, 1], points[i, 2], out[i]):
            out[i] = np.nan
    return out


@njit(cache=True, error_model="numpy")
def _project_with_jacobian(model: int, p: Array, points: Array) -> tuple[Array, Array, Array]:
    n = len(points)
    xy, J_point, J_parameters = np.empty((n, 2)), np.empty((n, 2, 3)), np.empty((n, 2, 12))
    for i in range(n):
        x, y, z = points[i]
        if not project_point_jacobian(model, p, x, y, z, xy[i], J_point[i], J_parameters[i]):
            xy[i], J_point[i], J_parameters[i] = np.nan, np.nan, np.nan
    return xy, J_point, J_parameters


@njit(cache=True, error_model="numpy")
def _unproject(model: int, p: Array, xy: Array) -> Array:
    out = np.empty((len(xy), 3))
    for i in range(len(xy)):
        if not ray_of_pixel(model, p, xy[i, 0], xy[i, 1], out[i]):
            out[i] = np.nan
    return out
