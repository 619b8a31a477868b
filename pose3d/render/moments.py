"""Which moments of a recording are shown, how fast, and who is in them?"""

from __future__ import annotations

import math

import numpy as np

from calibration.errors import InputError
from pose3d.poses import Poses

__all__ = ["movie_fps", "movie_rows", "named_ids", "row_of"]

DEFAULT_FPS = 30.0
"""Of a movie where the recording does not know its own."""


def row_of(poses: Poses, frame: int | None) -> int:
    """The row of a frame's number; None: the middle one of those with most keypoints, so that trails lead to it.

    Raises InputError when it is not in the poses.
    """
    keypoints = (~poses.missing).sum(axis=(1, 2))
    rows = np.flatnonzero(keypoints == keypoints.max() if frame is None else poses.frame == frame)
    if len(rows) == 0:
        raise InputError(f"frame {frame} is not in the poses, which have {poses.frame[0]} to {poses.frame[-1]}")
    return int(rows[len(rows) // 2])


def movie_rows(poses: Poses, every: int) -> range:
    """The rows of every n-th frame, from the first. Raises InputError when every is less than 1."""
    if every < 1:
        raise InputError(f"a movie shows every n-th frame: expected every to be 1 or more, got {every}")
    return range(0, len(poses.frame), every)


def movie_fps(poses: Poses, fps: float | None, every: int) -> float:
    """Pictures a second of a movie that shows every n-th frame: as asked for, else as fast as it was, else 30."""
    return fps or (poses.fps / every if math.isfinite(poses.fps) else DEFAULT_FPS)


def named_ids(poses: Poses) -> dict[int, str]:
    """{id: name} of everybody who occurs in poses, in order of id; those without a name are called by their number."""
    present = sorted({int(i) for i in poses.ids[poses.ids >= 0]})
    return {identity: poses.names.get(identity, f"animal {identity}") for identity in present}
