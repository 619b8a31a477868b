"""Poses to write, with everything that Poses may carry, and a check that nothing was lost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pose3d.poses import Poses
from pose3d.skeleton import Skeleton

SKELETON = Skeleton(
    ("nose", "ear_l", "ear_r", "täil"),
    edges=((0, 1), (0, 2)),
    bones=((0, 3),),
    symmetry=((1, 2),),
    sigmas=(0.1, 0.2, 0.2, 1 / 3),
)


def make_poses(seed: int, frames: int = 7, individuals: int = 3, dimension: int = 3, extras: bool = True) -> Poses:
    """Random poses: a fifth of the points missing, slots that change hands, gaps in frame numbers, unknown times."""
    rng = np.random.default_rng(seed)
    shape = (frames, individuals, len(SKELETON))
    points = rng.normal(0, 1e3, (*shape, dimension))
    points[rng.random(shape) < 0.2] = np.nan
    points[rng.random(shape[:2]) < 0.2] = np.nan
    ids = (
        np.stack([rng.permutation(np.arange(-1, individuals + 1))[:individuals] for _ in range(frames)])
        if frames
        else None
    )
    frame = np.cumsum(rng.integers(1, 4, frames)) + int(rng.integers(0, 1000))
    time = frame / 29.97
    time[rng.random(frames) < 0.2] = np.nan
    stored = {}
    if extras:
        half = rng.normal(size=(*shape, dimension, dimension))
        stored = {
            "covariance": half @ np.swapaxes(half, -1, -2),
            "covariance_total": 2 * half @ np.swapaxes(half, -1, -2),
            "reprojection_error": rng.random(shape),
            "n_views": rng.integers(0, 300, shape),
            "status": rng.integers(0, 3, shape),
            "occluded": rng.random(shape) < 0.5,
            "alternatives": rng.random((*shape, 2, 3)),
        }
    return Poses(
        points, rng.random(shape), ids if ids is not None else np.zeros((0, individuals)), frame, time, SKELETON,
        names={1: "bob", 7: "élodie"}, unit="mm" if dimension == 3 else "px", fps=29.97, extras=stored,
    )  # fmt: skip


def assert_same_poses(a: Poses, b: Poses) -> None:
    """Equal to the last bit, dtypes included."""
    assert (a.skeleton, a.names, a.unit) == (b.skeleton, b.names, b.unit)
    assert a.fps == b.fps or (np.isnan(a.fps) and np.isnan(b.fps))
    assert sorted(a.extras) == sorted(b.extras)
    pairs = [(getattr(a, name), getattr(b, name)) for name in ("points", "score", "ids", "frame", "time")]
    for one, other in [*pairs, *((a.extras[name], b.extras[name]) for name in a.extras)]:
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="session")
def poses_of() -> Callable[..., Poses]:
    return make_poses


@pytest.fixture(scope="session")
def same_poses() -> Callable[[Poses, Poses], None]:
    return assert_same_poses
