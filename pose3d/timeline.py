"""Which frame of which camera belongs to which moment of the recording?"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError, nearest_name
from pose3d.poses import Poses

__all__ = ["SyncOptions", "Timeline", "align", "make_timeline", "timeline_from_timestamps", "timeline_of"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MIN_SHIFT = 0.05
"""Frames: 2D points are interpolated to rig time only where the rig's moment is further than this from the frame's."""

SAME_INDIVIDUAL = 0.5
"""Of an individual's size: how near its detections in adjacent frames must be where they have no ids."""


@dataclass(frozen=True, eq=False)
class Timeline:
    """The moments of a recording ("steps") and the frame that each camera took of them.

    view_names: the cameras, in the order of the views axis.
    frame: (steps, views) int64, number in the camera's source; -1 where it has none (dropped or not running).
    time: (steps,) s on the rig's clock, NaN where unknown.
    shift: (steps, views) frames, how long after the camera's frame the rig's moment is; 0 where frame is -1. Default 0.
    step: (steps,) int64 numbers of the steps, strictly increasing. Default 0, 1, 2, ...

    Raises InputError when shapes do not fit or the steps do not increase.
    """

    view_names: tuple[str, ...]
    frame: IntArray
    time: FloatArray
    shift: FloatArray = None  # type: ignore[assignment]
    step: IntArray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        view_names = tuple(str(name) for name in self.view_names)
        frame = np.asarray(self.frame, dtype=np.int64)
        if frame.ndim != 2 or frame.shape[1] != len(view_names):
            raise InputError(f"timeline: expected frame (steps, {len(view_names)} views), got {frame.shape}")
        shift = np.zeros(frame.shape) if self.shift is None else np.asarray(self.shift, dtype=np.float64)
        step = np.arange(len(frame)) if self.step is None else np.asarray(self.step)
        time = np.asarray(self.time, dtype=np.float64)
        for name, array, axes in (("shift", shift, 2), ("step", step, 1), ("time", time, 1)):
            if array.shape != frame.shape[:axes]:
                raise InputError(f"timeline: expected {name} {frame.shape[:axes]}, got {array.shape}")
        if np.any(np.diff(step) <= 0):
            raise InputError("timeline: step numbers must increase strictly")
        values = {"view_names": view_names, "frame": np.maximum(frame, -1), "time": time}
        values |= {"shift": np.where(frame < 0, 0.0, shift), "step": step.astype(np.int64)}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.step)

    @property
    def fps(self) -> float:
        """Steps a second: one over the median interval between step numbers, to six decimals; NaN where unknown."""
        intervals = np.diff(self.time) / np.diff(self.step)
        known = intervals[np.isfinite(intervals) & (intervals > 0)]
        return round(1.0 / float(np.median(known)), 6) if len(known) else float("nan")

    def view(self, name: str) -> int:
        """The position of a camera on the views axis. Raises InputError with the nearest valid name."""
        if name not in self.view_names:
            raise InputError(f"timeline: no camera '{name}'; {nearest_name(name, self.view_names)}")
        return self.view_names.index(name)

    def window(self, start: int, stop: int) -> Timeline:
        """Rows start..stop-1 of the steps axis (positions); the steps keep their numbers."""
        part = slice(start, stop)
        return replace(self, frame=self.frame[part], time=self.time[part], shift=self.shift[part], step=self.step[part])


@dataclass(frozen=True)
class SyncOptions:
    """What `[sync]` says about the clocks of the cameras; cameras that are not named are on the rig's clock.

    Frame k of a camera was taken at rig time  offset + (k / fps) * (1 + drift).

    offsets: {camera: s}; offset_frames: {camera: frames of the rig's rate}, instead of seconds. A camera that started
        later has a positive offset.
    drift: {camera: share} by which a camera's frames come slower than the rig's rate (2e-5 = 20 ppm too slow).
    trim: keep only the moments of which every camera has a frame; without offsets: the first frames of all.
    timestamps: a CSV file with the time of every frame, see `timeline_from_timestamps`; nothing else is needed then.
    """

    offsets: Mapping[str, float] = field(default_factory=dict)
    offset_frames: Mapping[str, float] = field(default_factory=dict)
    drift: Mapping[str, float] = field(default_factory=dict)
    trim: bool = False
    timestamps: Path | None = None


def make_timeline(counts: Mapping[str, int], fps: float = float("nan"), sync: SyncOptions | None = None) -> Timeline:
    """The timeline of videos with these numbers of frames.

    counts: {camera: number of frames}; frame numbers are 0 .. count - 1. fps: frames/s of the rig; NaN = time unknown.
    sync: offsets, drift, trim or timestamps; None or empty = all cameras started together and dropped nothing.

    Raises InputError for unequal counts without sync (with the counts and the lines to add), for cameras in sync that
    are not in counts, for offsets in seconds without fps, and when the cameras have no moment in common.
    """
    sync = sync or SyncOptions()
    if not counts:
        raise InputError("timeline: expected at least one camera, got none")
    for key in ("offsets", "offset_frames", "drift"):
        for name in getattr(sync, key):
            if name not in counts:
                raise InputError(f"[sync] {key}: no camera '{name}'; {nearest_name(name, counts)}")
    if sync.timestamps is not None:
        timeline = timeline_from_timestamps(sync.timestamps, tuple(counts), counts)
        return _common(timeline) if sync.trim else timeline
    moved = bool(sync.offsets or sync.offset_frames or sync.drift)
    if len(set(counts.values())) > 1 and not moved and not sync.trim:
        raise InputError(_unequal(counts))
    return _from_clocks(counts, fps, sync)


def timeline_of(views: Mapping[str, Poses]) -> Timeline:
    """The timeline of views whose frame numbers already agree: the union of the frames of all, numbered as they are.

    time: of the first view that knows it.
    """
    step = np.unique(np.concatenate([poses.frame for poses in views.values()])) if views else np.zeros(0, int)
    frame = np.full((len(step), len(views)), -1)
    time = np.full(len(step), np.nan)
    for v, poses in enumerate(views.values()):
        rows = np.searchsorted(step, poses.frame)
        frame[rows, v] = poses.frame
        time[rows] = np.where(np.isnan(time[rows]), poses.time, time[rows])
    return Timeline(tuple(views), frame, time, step=step)


def timeline_from_timestamps(
    path: str | Path, view_names: Sequence[str], counts: Mapping[str, int] | None = None
) -> Timeline:
    """The timeline from a CSV file with one line a frame.

    Columns, found by name: camera or cam_id (the name, or its last integer), frame or frame_index, time or frame_time
    in seconds on one clock, and, optionally, sync_index: frames with the same one belong to one moment, at the median
    of their times. Without it the moments are those of the camera with most frames, its own dropped ones filled in.
    At each moment every camera's nearest frame is taken, if it is within half of the camera's median frame interval.

    counts: {camera: frames in its video}. Recorders number from the start of the recording, not of the clip: where a
        number lies outside the video but the lines are as many as its frames, line n is frame n.
    Raises InputError naming file and camera when columns, numbers or cameras do not fit.
    """
    path = Path(path)
    lines = _read_timestamps(path, view_names)
    tables = {}
    for name in view_names:
        table = np.array(sorted(line[1:] for line in lines if line[0] == name), dtype=np.float64).reshape(-1, 3)
        if len(table) < 2 or np.any(np.diff(table[:, 1]) <= 0):
            raise InputError(
                f"{path}: camera '{name}': expected two or more frames at increasing times, got {len(table)} lines"
            )
        if counts is not None and not np.all((table[:, 0] >= 0) & (table[:, 0] < counts[name])):
            if len(table) != counts[name]:
                first, last = table[0, 0], table[-1, 0]
                raise InputError(
                    f"{path}: camera '{name}': {len(table)} lines for frames {first:.0f} to {last:.0f}, but its video "
                    f"has {counts[name]} frames; number them from 0"
                )
            table[:, 0] = np.arange(len(table))
        tables[name] = table
    return _from_times(tables)


def align(views: Mapping[str, Poses], timeline: Timeline | None = None) -> dict[str, Poses]:
    """The 2D poses of all views on one frames axis: the timeline's steps, in its numbers.

    timeline: None = `timeline_of(views)`. A view without a frame at a step has empty slots there. Where the rig's
    moment is more than 0.05 frame from the camera's frame, points are linearly interpolated towards the adjacent frame,
    each with the same keypoint of the same individual: the slot with the same id or, where neither has an id, the
    mutually nearest slot if closer than half the individual's size (rms distance of its keypoints from their mean;
    so a lone keypoint needs an id). Score, covariance and all other extras, and points without a partner, stay those of
    the frame itself.

    Raises InputError when a view is not in the timeline.
    """
    timeline = timeline_of(views) if timeline is None else timeline
    return {name: _aligned(poses, timeline, timeline.view(name)) for name, poses in views.items()}


def _aligned(poses: Poses, timeline: Timeline, view: int) -> Poses:
    wanted, shift = timeline.frame[:, view], timeline.shift[:, view]
    here, there = _rows(poses, wanted), _rows(poses, wanted + np.sign(shift).astype(int))
    points, ids = _gathered(poses.points, here, np.nan), _gathered(poses.ids, here, -1)
    steps = np.flatnonzero((np.abs(shift) > MIN_SHIFT) & (here >= 0) & (there >= 0))
    now, then = points[steps], poses.points[there[steps]]
    partner = _partners(now, ids[steps], then, poses.ids[there[steps]])
    target = then[np.arange(len(steps))[:, None], partner]
    moved = now + np.abs(shift[steps])[:, None, None, None] * (target - now)
    points[steps] = np.where((partner < 0)[..., None, None] | np.isnan(moved), now, moved)
    extras = {
        name: _gathered(array, here, np.nan if array.dtype.kind == "f" else 0) for name, array in poses.extras.items()
    }
    return poses.replace(
        points=points,
        score=_gathered(poses.score, here, 0.0),
        ids=ids,
        frame=timeline.step,
        time=timeline.time,
        fps=timeline.fps if np.isfinite(timeline.fps) else poses.fps,
        extras=extras,
    )


def _gathered(array: NDArray[Any], rows: IntArray, empty: float) -> NDArray[Any]:
    """array[rows], `empty` where a row is -1."""
    out = np.full((len(rows), *array.shape[1:]), empty, dtype=array.dtype)
    out[rows >= 0] = array[rows[rows >= 0]]
    return out


def _rows(poses: Poses, frame: IntArray) -> IntArray:
    """The row of each frame number in poses, -1 where it has none."""
    row = np.searchsorted(poses.frame, frame)
    found = np.isin(frame, poses.frame) & (frame >= 0)
    return np.where(found, row, -1)


def _partners(a: FloatArray, ids_a: NDArray[np.int32], b: FloatArray, ids_b: NDArray[np.int32]) -> IntArray:
    """Which slot of b is the individual in each slot of a: (n, slots), -1 = none. a, b: (n, slots, keypoints, 2)."""
    slots = range(a.shape[1])
    distance = np.full((len(a), a.shape[1], a.shape[1]), np.inf)
    same = np.zeros(distance.shape, dtype=bool)
    for i in slots:
        for j in slots:
            apart = np.linalg.norm(a[:, i] - b[:, j], axis=-1)
            mean = _mean(apart[..., None])[:, 0]
            unknown = (ids_a[:, i] < 0) & (ids_b[:, j] < 0) & np.isfinite(mean)
            distance[unknown, i, j] = mean[unknown]
            same[:, i, j] = (ids_a[:, i] == ids_b[:, j]) & (ids_a[:, i] >= 0)
    partner = np.full(a.shape[:2], -1)
    for i in slots:
        nearest = distance[:, i].argmin(axis=1)
        rows = np.arange(len(a))
        mutual = distance[rows, :, nearest].argmin(axis=1) == i
        size = np.sqrt(_mean(((a[:, i] - _mean(a[:, i])[:, None]) ** 2).sum(axis=-1, keepdims=True)))[:, 0]
        near = distance[rows, i, nearest] < SAME_INDIVIDUAL * np.nan_to_num(size)
        partner[:, i] = np.where(mutual & near, nearest, -1)
        partner[:, i] = np.where(same[:, i].any(axis=1), same[:, i].argmax(axis=1), partner[:, i])
    return partner


def _mean(values: FloatArray) -> FloatArray:
    """Mean over axis 1 of the finite values (n, m, d) -> (n, d); NaN where there is none."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    return np.where(count > 0, np.where(known, values, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan)


def _from_clocks(counts: Mapping[str, int], fps: float, sync: SyncOptions) -> Timeline:
    if sync.offsets and not np.isfinite(fps):
        raise InputError("[sync] offsets: seconds need the frame rate, which is unknown; give offset_frames instead")
    start = np.array([sync.offset_frames.get(name, 0.0) for name in counts])
    start += [sync.offsets[name] * fps if name in sync.offsets else 0.0 for name in counts]
    slow = 1.0 + np.array([sync.drift.get(name, 0.0) for name in counts])
    count = np.array(list(counts.values()))
    end = start + (count - 1) * slow
    moment = np.arange(np.floor(start.min()), np.ceil(end.max()) + 1)
    exact = (moment[:, None] - start) / slow
    frame = np.floor(exact + 0.5)
    shift = exact - frame
    frame[(frame < 0) | (frame >= count)] = -1
    some = (frame >= 0).any(axis=1)
    timeline = Timeline(tuple(counts), frame[some], moment[some] / fps, shift[some])
    return _common(timeline) if sync.trim else timeline


def _common(timeline: Timeline) -> Timeline:
    """Only the steps at which every camera has a frame, numbered from 0."""
    whole = (timeline.frame >= 0).all(axis=1)
    if not whole.any():
        names = ", ".join(timeline.view_names)
        raise InputError(f"[sync] the cameras {names} have no moment in common; check the offsets")
    return Timeline(timeline.view_names, timeline.frame[whole], timeline.time[whole], timeline.shift[whole])


def _unequal(counts: Mapping[str, int]) -> str:
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    lengths = list(counts.values())
    odd = min(counts, key=lambda name: (lengths.count(counts[name]), counts[name]))
    return (
        f"videos of unequal length: expected as many frames from every camera, got {listed}; add to pose3d.toml "
        "(`pose3d new FOLDER` writes one for `pose3d run`)\n"
        f"[sync]\ntrim = true                      # all started together: use the first {min(lengths)} frames\n"
        f"or\n[sync]\noffsets = {{ {odd} = 0.0 }}     # in place of 0.0, seconds that this camera started later"
    )


def _read_timestamps(path: Path, view_names: Sequence[str]) -> list[tuple[str, float, float, float]]:
    """(camera, frame, time, sync_index or NaN) of every line whose camera is among view_names."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read the timestamps: {error}") from error
    columns = set(lines[0]) if lines else set()
    camera, frame, time = (
        next((name for name in names if name in columns), None)
        for names in (("camera", "cam_id"), ("frame", "frame_index"), ("time", "frame_time"))
    )
    if camera is None or frame is None or time is None:
        raise InputError(f"{path}: expected the columns camera, frame, time, got {', '.join(sorted(columns)) or 'no'}")
    by_number = {int(found[-1]): name for name in view_names if (found := re.findall(r"\d+", name))}
    table = []
    for number, line in enumerate(lines, start=2):
        named = line[camera]
        name = named if named in view_names else by_number.get(int(named)) if named.isdecimal() else None
        if name is None:
            continue
        try:
            table.append((name, float(line[frame]), float(line[time]), float(line.get("sync_index", "nan"))))
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}, line {number}: expected numbers for frame and time, got {line}") from error
    return table


def _from_times(tables: Mapping[str, FloatArray]) -> Timeline:
    """tables: {camera: (frames, 3) frame, time, sync_index} in order of time."""
    sync = np.unique(np.concatenate([table[:, 2] for table in tables.values()]))
    if np.isnan(sync).any():
        longest = max(tables.values(), key=len)
        moment = _without_gaps(longest[:, 1])
    else:
        moment = np.sort([np.median([t[t[:, 2] == s, 1][0] for t in tables.values() if s in t[:, 2]]) for s in sync])
    frame = np.full((len(moment), len(tables)), -1)
    shift = np.zeros(frame.shape)
    for v, table in enumerate(tables.values()):
        times = table[:, 1]
        after = np.clip(np.searchsorted(times, moment), 1, len(times) - 1)
        nearest = after - (moment - times[after - 1] < times[after] - moment)
        shift[:, v] = (moment - times[nearest]) / np.median(np.diff(times))
        frame[:, v] = np.where(np.abs(shift[:, v]) <= 0.5, table[nearest, 0], -1)
    return Timeline(tuple(tables), frame, moment, shift)


def _without_gaps(times: FloatArray) -> FloatArray:
    """Times with those of dropped frames put in, evenly, wherever an interval is longer than 1.5 of the median."""
    interval = np.diff(times)
    pieces = np.maximum(np.floor(interval / np.median(interval) + 0.5), 1).astype(int)
    return np.interp(np.arange(pieces.sum() + 1), np.concatenate(([0], np.cumsum(pieces))), times)
