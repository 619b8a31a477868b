"""Which smooth paths of a body with constant bones explain all pixels best? Bundle adjustment of poses over time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from calibration.errors import InputError
from calibration.geometry import rig_covariance_of_points
from calibration.rig import CameraRig, Packed
from calibration.solver import SolverOptions, banded, banded_covariance, levenberg_marquardt
from pose3d.motion import Motion, estimate_motion
from pose3d.poses import ABSENT, BRIDGED, MEASURED, Groups, Poses
from pose3d.skeleton import Skeleton
from pose3d.trajectory import (
    GATE,
    Terms,
    Track,
    bridged,
    data_equations,
    filled,
    gather,
    path_equations,
    without_strays,
)

__all__ = ["RefineOptions", "add_rig_covariance", "gap_limit", "learn_motion", "refine", "refine_window", "windows"]

Floats = NDArray[np.float64]

BURST = 4.0
"""Second differences beyond this many times the acceleration count less and less: animals start and stop."""
SOLVER = SolverOptions(max_iterations=20, cost_tolerance=1e-3, initial_damping=1e-8)


@dataclass(frozen=True)
class RefineOptions:
    """max_gap_s: the longest gap that is bridged, in s; max_gap: in frames, where the frame rate is not known.

    window, margin: frames solved at once, and frames on either side solved along and thrown away. sample: at most so
    many frames teach the motion model.

    max_sd: keypoints that are less sure are not delivered: SD of the place, the root of the trace of the covariance, in
    the rig's unit; None = all are. The pixels of a keypoint that is not delivered still tell of the others.
    """

    max_gap_s: float = 0.25
    max_gap: int = 10
    window: int = 1000
    margin: int = 100
    sample: int = 3000
    max_sd: float | None = None

    def __post_init__(self) -> None:
        if self.max_sd is not None and not self.max_sd > 0:
            raise InputError(f"max_sd: expected a distance above 0, or none, got {self.max_sd}")


def refine(
    poses: Poses,
    views: Mapping[str, Poses],
    groups: Groups,
    rig: CameraRig,
    options: RefineOptions | None = None,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> Poses:
    """3D poses of identified individuals, adjusted to all pixels of all frames under smoothness and constant bones.

    poses: triangulated, with ids. views: {camera: Poses 2D}, all with the frames of `poses`. groups: which slot of
    which view is who, with ids. The motion model is learnt first (`learn_motion`), then one window after the other is
    solved by `refine_window`; a window's borders lie at multiples of options.window in frame numbers.

    Returns Poses with one slot per identity, ascending; individuals without id are left out. A keypoint is delivered
    where it was triangulated (status MEASURED: two views or more agree with it, else BRIDGED) and in gaps of at most
    the options' limit between two such frames (BRIDGED), unless it is less sure than options.max_sd. extras:
    covariance (random part, posterior), reprojection_error, n_views, status. score: as triangulated, 0 where bridged
    without any. Raises InputError when frames do not match or nobody has an id.
    """
    options = options or RefineOptions()
    _check(poses, views, groups)
    motion = learn_motion(poses, views, groups, rig, options)
    parts = []
    borders = list(windows(poses.frame, options))
    for done, (start, stop, first, last) in enumerate(borders):
        if progress:
            progress("refine", done, len(borders))
        part = {name: view.window(start, stop) for name, view in views.items()}
        solved = refine_window(poses.window(start, stop), part, groups.window(start, stop), rig, motion, options)
        parts.append(solved.window(first - start, last - start))
    if progress:
        progress("refine", len(borders), len(borders))
    return _joined(parts)


def learn_motion(
    poses: Poses,
    views: Mapping[str, Poses],
    groups: Groups,
    rig: CameraRig,
    options: RefineOptions | None = None,
    everyone: NDArray[np.int32] | None = None,
) -> Motion:
    """The motion model from at most options.sample frames, in five stretches spread evenly over the recording.

    everyone: the identities that it is for, ascending; by default those in `poses`. Who is not in the stretches, and a
    keypoint that is not, is taken to move and to be seen as the others are; bone lengths are then not known.
    """
    options = options or RefineOptions()
    frames, everyone = len(poses.frame), np.unique(poses.ids[poses.ids >= 0]) if everyone is None else everyone
    if frames > options.sample:
        length = options.sample // 5
        starts = np.linspace(0, frames - length, 5).astype(int)
        rows = np.unique((starts[:, None] + np.arange(length)).ravel())
        poses, views = _rows(poses, rows), {name: _rows(view, rows) for name, view in views.items()}
        groups = groups.take(rows)
    return _for_everyone(estimate_motion(poses, views, groups, rig, gap_limit(poses, options)), everyone)


def _for_everyone(motion: Motion, ids: NDArray[np.int32]) -> Motion:
    known = np.isin(ids, motion.ids)
    rows = np.searchsorted(motion.ids, ids[known])

    def spread(values: Floats) -> Floats:
        out = np.full((len(ids), values.shape[1]), np.nan)
        out[known] = values[rows]
        return out

    def typical(values: Floats) -> Floats:
        usual = float(np.median(values[np.isfinite(values)])) if np.isfinite(values).any() else 1.0
        columns = [column[np.isfinite(column)] for column in values.T]
        each = np.array([np.median(column) if column.size else usual for column in columns])
        out = spread(values)
        return np.where(np.isfinite(out), out, each)

    noise, acceleration = typical(motion.noise), typical(motion.acceleration)
    return Motion(ids, noise, acceleration, spread(motion.bone_length), spread(motion.bone_spread))


def windows(frame: NDArray[np.int64], options: RefineOptions | None = None) -> Iterator[tuple[int, int, int, int]]:
    """Rows (start, stop, first, last) of every window: start..stop-1 are solved, first..last-1 are kept."""
    options = options or RefineOptions()
    for number in np.unique(frame // options.window):
        border = np.array([number, number + 1]) * options.window
        start, stop = np.searchsorted(frame, border + np.array([-options.margin, options.margin]))
        first, last = np.searchsorted(frame, border)
        yield int(start), int(stop), int(first), int(last)


def gap_limit(poses: Poses, options: RefineOptions | None = None) -> int:
    """The longest gap that is bridged, in frames: by the frame rate, or by time stamps, or options.max_gap."""
    options = options or RefineOptions()
    fps = poses.fps
    if not np.isfinite(fps) and len(poses.frame) > 1:
        fps = 1.0 / float(np.median(np.diff(poses.time) / np.diff(poses.frame)))
    return round(options.max_gap_s * fps) if np.isfinite(fps) else options.max_gap


def refine_window(
    poses: Poses,
    views: Mapping[str, Poses],
    groups: Groups,
    rig: CameraRig,
    motion: Motion,
    options: RefineOptions | None = None,
) -> Poses:
    """`refine` of one stretch of frames, all at once, with a motion model learnt before. Slots are those of
    motion.ids."""
    options = options or RefineOptions()
    frames, _, keypoints, _ = poses.shape
    shape = (frames, len(motion.ids), keypoints)
    points, score = np.full((*shape, 3), np.nan), np.zeros(shape)
    error, covariance = np.full(shape, np.nan), np.full((*shape, 3, 3), np.nan)
    n_views, status = np.zeros(shape, dtype=np.int16), np.full(shape, ABSENT, dtype=np.int8)
    limit = gap_limit(poses, options)
    for i, identity in enumerate(motion.ids):
        track = gather(poses, views, groups, rig, int(identity), limit)
        known = np.isfinite(motion.noise[i])
        track = without_strays(track.with_noise(np.where(known, motion.noise[i], 1.0)), rig.packed(), limit)
        track = replace(track, alive=track.alive & known)
        path, spread = _solve(track, rig.packed(), motion, i, poses.skeleton)
        squared = data_equations(track, rig.packed(), path, np.arange(keypoints))[3]
        agree = squared < GATE**2
        seen = track.alive & (agree.sum(axis=0) >= 2)
        delivered = track.alive & bridged(seen, poses.frame, limit)
        if options.max_sd is not None:
            delivered &= np.trace(spread, axis1=-2, axis2=-1) <= options.max_sd**2
        status[:, i] = np.where(delivered, np.where(seen, MEASURED, BRIDGED), ABSENT)
        n_views[:, i] = np.where(delivered, agree.sum(axis=0), 0)
        points[:, i] = np.where(delivered[..., None], path, np.nan)
        covariance[:, i] = np.where(delivered[..., None, None], spread, np.nan)
        distance2 = np.where(agree, np.sum((rig.project(path) - track.xy) ** 2, axis=-1), 0.0).sum(axis=0)
        error[:, i] = np.where(n_views[:, i] > 0, np.sqrt(distance2 / np.maximum(n_views[:, i], 1)), np.nan)
    rows, column = np.nonzero(np.isin(poses.ids, motion.ids))
    score[rows, np.searchsorted(motion.ids, poses.ids[rows, column])] = poses.score[rows, column]
    extras = {"covariance": covariance, "reprojection_error": error, "n_views": n_views, "status": status}
    return poses.replace(points=points, score=score, ids=np.tile(motion.ids, (frames, 1)), extras=extras)


def _solve(track: Track, rig: Packed, motion: Motion, row: int, skeleton: Skeleton) -> tuple[Floats, Floats]:
    """points (T, K, 3) and their covariance (T, K, 3, 3); meaningless where a keypoint is not alive."""
    points, covariance = filled(track), np.zeros((*track.points.shape, 3))
    for terms in _components(skeleton, motion, row):
        if not track.alive[:, terms.keypoints].any():
            continue
        found = levenberg_marquardt(
            points[:, terms.keypoints],
            lambda x, terms=terms: path_equations(track, rig, x, terms),  # type: ignore[misc]
            banded,
            lambda x, step: x + step.reshape(x.shape),
            SOLVER,
        )
        points[:, terms.keypoints] = found.x
        system = path_equations(track, rig, found.x, terms)[1]
        covariance[:, terms.keypoints] = banded_covariance(system, 3).reshape(len(points), -1, 3, 3)
    return points, covariance


def _components(skeleton: Skeleton, motion: Motion, row: int) -> list[Terms]:
    """The keypoints that bones tie together, each set with its terms; a keypoint without bones is a set of its own."""
    known = np.isfinite(motion.bone_length[row])
    bones = np.sort(np.array(skeleton.bones, dtype=np.int64).reshape(-1, 2), axis=1)[known]
    n = len(skeleton)
    graph = coo_array((np.ones(len(bones)), (bones[:, 0], bones[:, 1])), shape=(n, n))
    label = connected_components(graph, directed=False)[1]
    acceleration = np.where(np.isfinite(motion.acceleration[row]), motion.acceleration[row], 1.0)
    length, spread = motion.bone_length[row][known], motion.bone_spread[row][known]
    sets = []
    for number in range(label.max() + 1):
        keypoints, inside = np.flatnonzero(label == number), label[bones[:, 0]] == number
        within = np.searchsorted(keypoints, bones[inside])
        sets.append(Terms(keypoints, acceleration[keypoints], within, length[inside], spread[inside], BURST))
    return sets


def add_rig_covariance(poses: Poses, views: Mapping[str, Poses], groups: Groups, rig: CameraRig) -> Poses:
    """The extra `covariance_total`: the random part of `refine` plus the rig's, common to all frames (J S J^T).

    The rig's part goes through the views that saw the keypoint, or through all of them where fewer than two did. Do
    this once, at the end: smoothing would average the rig's part away. Poses without `covariance` or a rig without
    one: nothing is known of that part, and it counts as zero.
    """
    frames, _, keypoints, _ = poses.shape
    random = poses.extras.get("covariance", np.zeros((*poses.points.shape, 3)))
    total = np.array(random)
    for identity in np.unique(poses.ids[poses.ids >= 0]):
        track = gather(poses, views, groups, rig, int(identity), 0)
        seen = np.isfinite(track.xy[..., 0]).reshape(len(rig), -1)
        seen |= seen.sum(axis=0) < 2
        part = rig_covariance_of_points(track.points.reshape(-1, 3), seen, rig).reshape(frames, keypoints, 3, 3)
        rows, column = np.nonzero(poses.ids == identity)
        total[rows, column] += part[rows]
    return poses.replace(extras={**poses.extras, "covariance_total": total})


def _check(poses: Poses, views: Mapping[str, Poses], groups: Groups) -> None:
    for name, view in views.items():
        if not np.array_equal(view.frame, poses.frame):
            raise InputError(
                f"refine: expected camera '{name}' to have the {len(poses.frame)} frames of the 3D poses, got "
                f"{len(view.frame)} others; align the views first"
            )
        if view.skeleton.keypoints != poses.skeleton.keypoints:
            raise InputError(f"refine: the keypoints of camera '{name}' are not those of the 3D poses")
    if len(groups.slots) != len(poses.frame):
        raise InputError(f"refine: expected groups of {len(poses.frame)} frames, got {len(groups.slots)}")


def _rows(poses: Poses, rows: NDArray[np.intp]) -> Poses:
    return poses.replace(
        points=poses.points[rows], score=poses.score[rows], ids=poses.ids[rows], frame=poses.frame[rows],
        time=poses.time[rows], extras={name: array[rows] for name, array in poses.extras.items()},
    )  # fmt: skip


def _joined(parts: list[Poses]) -> Poses:
    def join(*arrays: NDArray[np.generic]) -> NDArray[np.generic]:
        return np.concatenate(arrays)

    first = parts[0]
    return first.replace(
        **{name: join(*(getattr(p, name) for p in parts)) for name in ("points", "score", "ids", "frame", "time")},
        extras={name: join(*(p.extras[name] for p in parts)) for name in first.extras},
    )
