"""Which points draw a skeleton, a trail, a camera, the floor? Vertices and ends of lines, without graphics."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pose3d.render.colours import Colour
from pose3d.render.viewpoint import Floor

__all__ = [
    "ball",
    "ellipsoids",
    "frustum_lines",
    "grid_lines",
    "per_vertex",
    "skeleton_faces",
    "skeleton_surface",
    "trail_colours",
    "trail_segments",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_SIDES = 12  # of a rod
_SUBDIVISIONS = 2  # of the icosahedron behind a ball: 162 vertices, 320 triangles


@cache
def ball() -> tuple[FloatArray, IntArray]:
    """A unit sphere: vertices (n, 3), its normals too, and triangles (m, 3), counterclockwise from outside."""
    golden = (1 + 5**0.5) / 2
    vertices = [(s * 1.0, t * golden, 0.0) for t in (1, -1) for s in (-1, 1)]
    vertices += [(0.0, s * 1.0, t * golden) for t in (1, -1) for s in (-1, 1)]
    vertices += [(t * golden, 0.0, s * 1.0) for t in (1, -1) for s in (-1, 1)]
    points = np.array(vertices)
    apart = np.linalg.norm(points[:, None] - points, axis=-1)
    near = np.isclose(apart, 2.0)
    corners = [
        (a, b, c) for a in range(12) for b in range(a) for c in range(b) if near[a, b] and near[b, c] and near[a, c]
    ]
    triangles = np.array(corners)
    for _ in range(_SUBDIVISIONS):
        points, triangles = _subdivided(points, triangles)
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    a, b, c = points[triangles].transpose(1, 0, 2)
    inward = (np.cross(b - a, c - a) * a).sum(axis=1) < 0
    triangles[inward] = triangles[inward][:, ::-1]
    return points, triangles


def _subdivided(points: FloatArray, triangles: IntArray) -> tuple[FloatArray, IntArray]:
    """Every triangle in four, the middles of its sides shared with its neighbours."""
    a, b, c = triangles.T
    sides = np.sort(np.concatenate([np.stack(pair, axis=1) for pair in ((a, b), (b, c), (c, a))]), axis=1)
    unique, index = np.unique(sides, axis=0, return_inverse=True)
    ab, bc, ca = len(points) + index.reshape(3, -1)
    middles = points[unique].mean(axis=1)
    pieces = [np.stack(corner, axis=1) for corner in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
    return np.concatenate((points, middles)), np.concatenate(pieces)


def skeleton_faces(n_skeletons: int, n_keypoints: int, n_edges: int) -> IntArray:
    """Triangles (m, 3) of `skeleton_surface`, the same at every moment."""
    vertices, triangles = ball()
    balls = n_skeletons * n_keypoints
    first = np.arange(balls)[:, None, None] * len(vertices)
    side = np.arange(_SIDES)
    beside = (side + 1) % _SIDES
    rod = np.concatenate(
        [np.stack((side, beside, side + _SIDES), axis=1), np.stack((beside, beside + _SIDES, side + _SIDES), axis=1)]
    )
    rods = balls * len(vertices) + np.arange(n_skeletons * n_edges)[:, None, None] * 2 * _SIDES
    return np.concatenate(((triangles + first).reshape(-1, 3), (rod + rods).reshape(-1, 3)))


def skeleton_surface(
    points: FloatArray, edges: Sequence[tuple[int, int]], radius: float, hidden: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Balls at the keypoints and rods, half as thick, along the edges of skeletons (skeletons, keypoints, 3).

    radius: of a ball. hidden: (3,) where what is missing (NaN) shrinks to a point that shows nothing.
    Returns vertices and unit normals, both (n, 3): the balls of all keypoints, then the rods of all edges.
    """
    unit, _ = ball()
    balls = points[..., None, :] + radius * unit
    ball_normals = np.broadcast_to(unit, balls.shape)

    start, end = (points[:, [edge[k] for edge in edges]] for k in (0, 1))
    along = end - start
    aside = np.eye(3)[np.abs(np.nan_to_num(along)).argmin(axis=-1)]
    u = np.cross(along, aside)
    with np.errstate(invalid="ignore", divide="ignore"):
        u = u / np.linalg.norm(u, axis=-1, keepdims=True)
        v = np.cross(along, u) / np.linalg.norm(along, axis=-1, keepdims=True)
    angle = 2 * np.pi * np.arange(_SIDES)[:, None] / _SIDES
    ring = np.cos(angle) * u[..., None, :] + np.sin(angle) * v[..., None, :]
    rods = np.stack((start[..., None, :] + 0.5 * radius * ring, end[..., None, :] + 0.5 * radius * ring), axis=-3)
    rod_normals = np.broadcast_to(ring[..., None, :, :], rods.shape)

    vertices = np.concatenate((balls.reshape(-1, 3), rods.reshape(-1, 3)))
    normals = np.concatenate((ball_normals.reshape(-1, 3), rod_normals.reshape(-1, 3)))
    lost = np.isnan(vertices).any(axis=1)
    return np.where(lost[:, None], hidden, vertices), np.nan_to_num(normals)


def per_vertex(values: NDArray[np.uint8], n_keypoints: int, n_edges: int) -> NDArray[np.uint8]:
    """One value a skeleton (skeletons, ...) -> one a vertex of `skeleton_surface` (n, ...)."""
    in_balls = np.repeat(values, n_keypoints * len(ball()[0]), axis=0)
    return np.concatenate((in_balls, np.repeat(values, n_edges * 2 * _SIDES, axis=0)))


def ellipsoids(
    points: FloatArray, covariance: FloatArray, sigmas: float, hidden: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Surfaces `sigmas` standard deviations about points (n, 3) of covariance (n, 3, 3): vertices, normals (m, 3).

    What is missing (NaN in either) shrinks to the point `hidden` (3,).
    """
    unit, _ = ball()
    known = np.isfinite(np.concatenate((points[..., None], covariance), axis=-1)).all(axis=(-2, -1), keepdims=True)
    values, vectors = np.linalg.eigh(np.where(known, covariance, np.eye(3)))
    axes = sigmas * np.sqrt(np.maximum(values, 1e-12 * values.max(axis=-1, keepdims=True)))
    vertices = points[:, None] + (unit @ vectors * axes[:, None]) @ vectors.swapaxes(-1, -2)
    normals = (unit @ vectors / axes[:, None]) @ vectors.swapaxes(-1, -2)
    normals = normals / np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.where(known, vertices, hidden).reshape(-1, 3), normals.reshape(-1, 3)


def trail_segments(trail: FloatArray, row: int, length: int, hidden: FloatArray) -> FloatArray:
    """(animals * length, 2, 3) the last steps' ways of every animal, newest first, from a trail (frames, animals, 3).

    Before the beginning and where a point is missing: both ends at `hidden` (3,).
    """
    rows = row - np.arange(length + 1)
    points = np.where((rows >= 0)[:, None, None], trail[np.maximum(rows, 0)], np.nan)
    segments = np.stack((points[:-1], points[1:]), axis=2).swapaxes(0, 1).reshape(-1, 2, 3)
    lost = np.isnan(segments).any(axis=(1, 2))
    return np.where(lost[:, None, None], hidden, segments)


def trail_colours(colours: NDArray[np.uint8], length: int, ground: Colour) -> NDArray[np.uint8]:
    """(animals * length, 3) one for each of `trail_segments`: from the animal's colour (animals, 3) to the ground's."""
    left = 1 - np.arange(length)[:, None] / length
    faded = left * colours[:, None] + (1 - left) * np.array(ground)
    return np.round(faded).astype(np.uint8).reshape(-1, 3)


def grid_lines(floor: Floor) -> FloatArray:
    """(lines, 2, 3) the ends of the floor's grid lines, its edges included."""
    lines = []
    for along, across, half, reach in ((floor.x, floor.y, *floor.half), (floor.y, floor.x, *floor.half[::-1])):
        at = np.arange(-half, half + floor.spacing / 2, floor.spacing)[:, None] * along + floor.origin
        lines.append(np.stack((at - reach * across, at + reach * across), axis=1))
    return np.concatenate(lines)


def frustum_lines(frusta: FloatArray) -> FloatArray:
    """(lines, 2, 3) of frusta (cameras, 5, 3): to the image's corners, round it, and a roof that marks its top."""
    center, corners = frusta[:, :1], frusta[:, 1:]
    sides = np.stack((np.broadcast_to(center, corners.shape), corners), axis=2)
    border = np.stack((corners, np.roll(corners, -1, axis=1)), axis=2)
    top, bottom = corners[:, :2].mean(axis=1), corners[:, 2:].mean(axis=1)
    roof = (top + 0.25 * (top - bottom))[:, None]
    roofs = np.stack((corners[:, :2], np.broadcast_to(roof, corners[:, :2].shape)), axis=2)
    return np.concatenate((sides, border, roofs), axis=1).reshape(-1, 2, 3)
