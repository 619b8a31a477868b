"""Which solids make up an animal around its keypoints, and where does a ray meet them?

Every solid is a tapered capsule (the convex hull of two balls), possibly flattened: `axes` map world vectors to the
frame in which it lies along the first axis and is round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from calibration.errors import InputError

__all__ = ["EAR", "EYE", "FUR", "SKIN", "Solids", "entry", "hiding_depth", "seen", "solids"]

Float = NDArray[np.float64]

FUR, SKIN, EAR, EYE = 0, 1, 2, 3
_HEAD, _FRONT, _REAR, _GROUND = 0, 1, 2, 3
_FRAME_ENDS = (("nose", "neck"), ("neck", "back"), ("back", "tail_base"), ("neck", "tail_base"))
_NAMES = (
    *("nose", "ear_left", "ear_right", "neck", "back", "tail_base", "tail_mid", "tail_tip"),
    *("paw_front_left", "paw_front_right", "paw_hind_left", "paw_hind_right"),
)
_HIDING = (0.05, 0.09, 0.09, 0.28, 0.40, 0.25, 0.04, 0.03, 0.05, 0.05, 0.05, 0.05)
"""A keypoint is hidden by what lies more than this many body lengths before it: about one radius of the part around
it, twice that for those on the trunk's axis, which is seen aslant."""

Anchor = tuple[dict[str, float], int, tuple[float, float, float]]


@dataclass(frozen=True)
class _Part:
    """A solid between two anchors. An anchor is a weighted mean of keypoints, moved in a frame (forward, left, up) by
    so many body lengths. radii: at either end, in body lengths; flat: thickness along the part's own up, relative;
    along: how far from the rump the fur's pattern begins, in body lengths.
    """

    material: int
    ends: tuple[Anchor, Anchor]
    radii: tuple[float, float]
    flat: float = 1.0
    along: float = 0.0


@dataclass(frozen=True, eq=False)
class Solids:
    """All solids of all animals, n of them.

    origin: (n, 3) the first ball's centre. axes: (n, 3, 3) local from world. shape: (n, 3) distance between the balls
    and their two radii. animal, material: (n,) int32. along: (n,) where the solid begins on its animal's fur.
    unit: (n,) body length of its animal.
    """

    origin: Float
    axes: Float
    shape: Float
    animal: NDArray[np.int32]
    material: NDArray[np.int32]
    along: Float
    unit: Float

    @property
    def ends(self) -> Float:
        """(n, 2, 3) centres of the two balls."""
        return np.stack([self.origin, self.origin + self.shape[:, :1] * self.axes[:, 0]], axis=1)

    @property
    def coat(self) -> tuple[Float, Float, Float, Float, NDArray[np.int32], NDArray[np.int32]]:
        """What `shading.paint` must know of the solids."""
        return self.axes, self.shape, self.along, self.unit, self.animal, self.material

    def seen_from(self, centre: Float) -> Float:
        """(n, 3) the camera's centre in each solid's frame."""
        local: Float = np.einsum("nij,nj->ni", self.axes, centre - self.origin)
        return local


def solids(points: Float, keypoints: tuple[str, ...]) -> Solids:
    """The bodies of animals whose keypoints (animals, keypoints, 3) are all known; they need the names of a mouse-like
    quadruped (nose, ears, neck, back, tail, paws), in any order.
    """
    weights, radii, flat, material, frame_of, along = _table(keypoints)
    ends = [[keypoints.index(name) for name in pair] for pair in _FRAME_ENDS]
    forward = points[:, [e[0] for e in ends]] - points[:, [e[1] for e in ends]]
    unit = np.linalg.norm(forward[:, :_GROUND], axis=-1).sum(axis=1)
    forward[:, _GROUND, 2] = 0.0
    forward /= np.linalg.norm(forward, axis=-1, keepdims=True)
    left = np.cross([0.0, 0.0, 1.0], forward)
    left /= np.linalg.norm(left, axis=-1, keepdims=True)
    frames = np.stack([forward, left, np.cross(forward, left)], axis=2)
    moves = (frames * unit[:, None, None, None]).reshape(len(points), -1, 3)
    anchors = (weights @ np.concatenate([points, moves], axis=1)).reshape(len(points), -1, 2, 3)
    bone = anchors[:, :, 1] - anchors[:, :, 0]
    length = np.linalg.norm(bone, axis=-1, keepdims=True)
    own = np.where(length > 0, bone / np.where(length > 0, length, 1.0), frames[:, frame_of, 0])
    side = frames[:, frame_of, 1]
    side = side - np.sum(side * own, axis=-1, keepdims=True) * own
    side /= np.linalg.norm(side, axis=-1, keepdims=True)
    axes = np.stack([own, side, np.cross(own, side) / flat[:, None]], axis=2)
    n, parts = len(points), len(radii)
    return Solids(
        anchors[:, :, 0].reshape(-1, 3),
        np.ascontiguousarray(axes.reshape(-1, 3, 3)),
        np.concatenate([length, unit[:, None, None] * radii], axis=-1).reshape(-1, 3),
        np.repeat(np.arange(n, dtype=np.int32), parts),
        np.tile(material, n),
        (along * unit[:, None]).ravel(),
        np.repeat(unit, parts),
    )


def hiding_depth(keypoints: tuple[str, ...]) -> Float:
    """(keypoints,) how far before a keypoint, in body lengths, a surface must lie to hide it."""
    return np.array([_HIDING[_NAMES.index(name)] for name in keypoints])


@lru_cache(maxsize=8)
def _table(
    keypoints: tuple[str, ...],
) -> tuple[Float, Float, Float, NDArray[np.int32], NDArray[np.int32], Float]:
    """The parts as arrays: weights (2 parts, keypoints + 12) of keypoints and frame vectors, radii (parts, 2), flat,
    material, frame, along.
    """
    if missing := set(_NAMES) - set(keypoints):
        raise InputError(
            "animals to film: expected the keypoints of synthetic.QUADRUPED, "
            f"got none of {', '.join(sorted(missing))}; film simulated animals"
        )
    parts = _parts()
    weights = np.zeros((len(parts), 2, len(keypoints) + 12))
    for p, part in enumerate(parts):
        for e, (mean, frame, move) in enumerate(part.ends):
            for name, weight in mean.items():
                weights[p, e, keypoints.index(name)] = weight
            weights[p, e, len(keypoints) + 3 * frame :][:3] = move
    return (
        weights.reshape(-1, weights.shape[-1]),
        np.array([part.radii for part in parts]),
        np.array([part.flat for part in parts]),
        np.array([part.material for part in parts], dtype=np.int32),
        np.array([part.ends[1][1] for part in parts], dtype=np.int32),
        np.array([part.along for part in parts]),
    )


def _at(name: str, frame: int, *move: float) -> Anchor:
    return {name: 1.0}, frame, (move[0], move[1], move[2])


def _parts() -> list[_Part]:
    """A mouse: trunk, head, tail, and everything that it has twice."""
    rump, belly = _at("tail_base", _REAR, 0.12, 0, 0.0), _at("back", _REAR, -0.10, 0, -0.015)
    chest, shoulders = _at("back", _FRONT, 0.10, 0, -0.02), _at("neck", _FRONT, -0.05, 0, -0.01)
    skull, muzzle = _at("neck", _HEAD, 0.07, 0, 0), _at("neck", _HEAD, 0.15, 0, -0.005)
    snout, tip = _at("nose", _HEAD, -0.03, 0, 0), _at("nose", _HEAD, -0.006, 0, 0)
    # A parabola through base, middle and tip, so that the tail has no corner.
    tail: list[Anchor] = [
        ({"tail_base": a, "tail_mid": b, "tail_tip": c}, _REAR, (0.0, 0.0, 0.0))
        for a, b, c in ((1, 0, 0), (0.375, 0.75, -0.125), (0, 1, 0), (-0.125, 0.75, 0.375), (0, 0, 1))
    ]
    thick = (0.034, 0.026, 0.020, 0.015, 0.010)
    parts = [
        _Part(FUR, (rump, belly), (0.125, 0.18)),
        _Part(FUR, (belly, chest), (0.18, 0.165), along=0.22),
        _Part(FUR, (chest, shoulders), (0.165, 0.12), along=0.40),
        _Part(FUR, (shoulders, skull), (0.12, 0.098), along=0.60),
        _Part(FUR, (skull, muzzle), (0.098, 0.066), along=0.72),
        _Part(FUR, (muzzle, snout), (0.066, 0.024), along=0.80),
        _Part(SKIN, (tip, tip), (0.019, 0.019)),
        *(_Part(SKIN, (tail[i], tail[i + 1]), (thick[i], thick[i + 1])) for i in range(4)),
    ]
    for name, sign in (("left", 1.0), ("right", -1.0)):
        ear, front, hind = f"ear_{name}", f"paw_front_{name}", f"paw_hind_{name}"
        lobe = _at(ear, _HEAD, -0.012, -0.014 * sign, -0.016), _at(ear, _HEAD, 0, 0.014 * sign, 0.016)
        eye = _at("neck", _HEAD, 0.155, 0.053 * sign, 0.032)
        upper, wrist = _at("neck", _FRONT, -0.06, 0.07 * sign, -0.05), _at(front, _GROUND, -0.005, 0, 0.032)
        haunch = _at("tail_base", _REAR, 0.15, 0.08 * sign, -0.04)
        knee = {"tail_base": 0.5, hind: 0.5}, _REAR, (0.11, 0.03 * sign, -0.02)
        ankle = _at(hind, _GROUND, 0, 0, 0.02)
        parts += [
            _Part(EAR, lobe, (0.045, 0.062), 0.25),
            _Part(EYE, (eye, eye), (0.016, 0.016)),
            _Part(FUR, (upper, wrist), (0.055, 0.021)),
            _Part(SKIN, (wrist, _at(front, _GROUND, -0.005, 0, 0.015)), (0.018, 0.018)),
            _Part(SKIN, (_at(front, _GROUND, -0.015, 0, 0.014), _at(front, _GROUND, 0.03, 0, 0.011)), (0.018, 0.014)),
            _Part(FUR, (haunch, knee), (0.095, 0.05)),
            _Part(FUR, (knee, ankle), (0.05, 0.018)),
            _Part(SKIN, (_at(hind, _GROUND, -0.04, 0, 0.018), _at(hind, _GROUND, 0.05, 0, 0.014)), (0.021, 0.018)),
        ]
    return parts


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "arcp", "nsz"}, forceinline=True)
def entry(start, axes, shape, i, dx, dy, dz):  # type: ignore[no-untyped-def]
    """Distance at which the ray (dx, dy, dz) from the camera enters solid i, infinite where it passes by.

    start: `Solids.seen_from` the camera. The entry is the nearest of those into either ball and through the cone
    between them: all lie on or in the hull, and one is its surface.
    """
    px, py, pz = start[i, 0], start[i, 1], start[i, 2]
    x = axes[i, 0, 0] * dx + axes[i, 0, 1] * dy + axes[i, 0, 2] * dz
    y = axes[i, 1, 0] * dx + axes[i, 1, 1] * dy + axes[i, 1, 2] * dz
    z = axes[i, 2, 0] * dx + axes[i, 2, 1] * dy + axes[i, 2, 2] * dz
    length, first, last = shape[i, 0], shape[i, 1], shape[i, 2]
    across, lever, gap = y * y + z * z, py * y + pz * z, py * py + pz * pz
    a, nearest = across + x * x, np.inf
    for offset, radius in ((px, first), (px - length, last)):
        b = offset * x + lever
        h = b * b - a * (offset * offset + gap - radius * radius)
        if h >= 0.0:
            nearest = min(nearest, (-b - math.sqrt(h)) / a)
    if length > abs(first - last):
        sine = (first - last) / length
        cosine2, rest = 1.0 - sine * sine, first - px * sine
        a = cosine2 * across - sine * sine * x * x
        b = cosine2 * lever + sine * x * rest
        h = b * b - a * (cosine2 * gap - rest * rest)
        if h >= 0.0:
            root = math.sqrt(h)
            for t in ((-b - root) / a, (-b + root) / a):
                if first * sine <= px + t * x <= length + last * sine:
                    nearest = min(nearest, t)
    return nearest


@njit(cache=True, nogil=True, error_model="numpy")
def seen(start, axes, shape, sights, depth):  # type: ignore[no-untyped-def]
    """(n,) whether no solid lies more than depth (n,) before the end of the sights (n, 3), vectors from the camera."""
    free = np.ones(len(sights), dtype=np.bool_)
    for k in range(len(sights)):
        x, y, z = sights[k]
        distance = math.sqrt(x * x + y * y + z * z)
        for i in range(len(start)):
            t = entry(start, axes, shape, i, x / distance, y / distance, z / distance)
            if 0.0 < t < distance - depth[k]:
                free[k] = False
                break
    return free
