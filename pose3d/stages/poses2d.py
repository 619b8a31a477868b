"""Which 2D poses are there, all cameras on one frames axis? Any tool's files in, poses2d/<camera>.nc out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError, nearest_name
from calibration.footage import open_footage
from calibration.rig import CameraRig
from pose3d.files import load_poses, save_poses
from pose3d.poses import Poses
from pose3d.records import Plan, Progress, StageReport, fingerprint_source, run_stage
from pose3d.session import Session, drawn_skeleton, find_files
from pose3d.skeleton import Skeleton
from pose3d.stages.recording import write_timeline
from pose3d.timeline import SyncOptions, Timeline, align, make_timeline, timeline_of

__all__ = ["import_poses2d"]

VERSION = 1


def import_poses2d(
    session: Session, recording: str, rig: CameraRig, *, force: bool = False, progress: Progress | None = None
) -> StageReport:
    """Read every camera's 2D poses, put them on the rig's moments, write the recording's poses2d/<camera>.nc.

    One camera is in memory at a time. Raises InputError when there are none, a camera is not in the rig, footage and
    calibration differ in size, lengths differ without [sync], or a camera shares no moment with the others.
    """
    sources = find_files(session, "poses2d", recording)
    videos = {name: path for name, path in find_files(session, "video", recording).items() if name in sources}
    _expect_cameras(sources, rig, session, recording)
    sync = session.options.get("sync") or SyncOptions()
    table = {name: getattr(session.skeleton, name) for name in ("keypoints", "edges", "bones", "symmetry")}
    inputs = {f"poses2d.{name}": fingerprint_source(path) for name, path in sources.items()}
    inputs |= {f"video.{name}": fingerprint_source(path) for name, path in videos.items()}
    if sync.timestamps is not None:
        inputs["timestamps"] = fingerprint_source(sync.timestamps)
    options = {
        "format": session.poses2d_format,
        "fps": session.fps,
        "skeleton": table,
        "sync": replace(sync, timestamps=None),
    }
    outputs = (*(f"poses2d/{name}.nc" for name in sources), "poses2d/timeline.npz")
    plan = Plan(session.results(recording), "poses2d", VERSION, inputs, options, outputs)

    def work() -> dict[str, Any]:
        clocks = {}
        for done, (name, path) in enumerate(sources.items()):
            if progress:
                progress("reading 2D poses", done, len(sources))
            clocks[name] = _read(path, plan.unfinished / f"{name}.nc", session)
        timeline, fps = _timeline(clocks, videos, rig, session)
        seen = {}
        for done, name in enumerate(sources):
            poses = align({name: load_poses(plan.unfinished / f"{name}.nc")}, timeline)[name].replace(fps=fps)
            save_poses(plan.folder / f"poses2d/{name}.nc", poses)
            seen[name] = ~poses.missing
            if progress:
                progress("reading 2D poses", done + 1, len(sources))
        _expect_common_moments(seen, timeline)
        write_timeline(plan.folder / "poses2d/timeline.npz", timeline)
        return _summary(seen, clocks, timeline, fps)

    return run_stage(plan, work, force=force)


def _expect_cameras(sources: Mapping[str, Path], rig: CameraRig, session: Session, recording: str) -> None:
    if not sources:
        place = session.data / session.patterns.poses2d.replace("{recording}", recording)
        raise InputError(
            f"{place}: expected 2D poses of every camera, found none; correct `cameras.poses2d` in {session.file}"
        )
    for name in sources:
        if name not in rig.names:
            free = [other for other in rig.names if other not in sources]
            raise InputError(
                f"camera '{name}' of {sources[name]} is not in the calibration; {nearest_name(name, rig.names)} "
                f"Where two names mean one camera, say so under [cameras]: "
                f'rename = {{ "{(free or list(rig.names))[0]}" = "{name}" }}'
            )
    if len(sources) < 2:
        raise InputError(f"{', '.join(map(str, sources.values()))}: expected 2D poses of at least two cameras, got one")


def _read(path: Path, native: Path, session: Session) -> Poses:
    """Put the poses of a file down as a native one with the session's skeleton; returned without slots: frames only."""
    table = session.skeleton
    wanted = None if table.keypoints is None else Skeleton(table.keypoints)
    poses = load_poses(path, session.poses2d_format, skeleton=wanted, fps=session.fps)
    if poses.shape[3] != 2:
        raise InputError(f"{path}: expected 2D poses, got 3D ones")
    if poses.missing.all():
        raise InputError(f"{path}: holds no keypoint at all; every one is missing")
    save_poses(native, poses.replace(skeleton=drawn_skeleton(poses.skeleton, table)))
    return poses.take_slots(np.zeros((len(poses.frame), 0), dtype=int))


def _timeline(
    clocks: Mapping[str, Poses], videos: Mapping[str, Path], rig: CameraRig, session: Session
) -> tuple[Timeline, float]:
    """The moments of the recording and frames/s: by the lengths of videos, else by the poses' frames."""
    counts, rates = {}, [poses.fps for poses in clocks.values()]
    for name, poses in clocks.items():
        counts[name] = int(poses.frame[-1]) + 1 if len(poses.frame) else 0
        if name in videos:
            with open_footage(videos[name]) as footage:
                _expect_size(name, videos[name], footage.size, rig)
                if counts[name] > footage.n_frames:
                    raise InputError(
                        f"camera '{name}': its 2D poses reach frame {counts[name] - 1}, {videos[name]} has only "
                        f"{footage.n_frames} frames; correct `cameras.video` or `cameras.poses2d` in {session.file}"
                    )
                counts[name] = footage.n_frames
                rates.append(footage.fps)
    fps = session.fps or next((rate for rate in rates if math.isfinite(rate)), math.nan)
    sync = session.options.get("sync")
    dense = all(np.array_equal(poses.frame, np.arange(len(poses.frame))) for poses in clocks.values())
    if sync is None and not dense and len(videos) < len(clocks):
        return timeline_of(clocks), fps
    return make_timeline(counts, fps, sync), fps


def _expect_size(name: str, path: Path, size: tuple[int, int], rig: CameraRig) -> None:
    calibrated = rig[name].intrinsics.size
    if tuple(size) != tuple(calibrated):
        raise InputError(
            f"camera '{name}': {path} is {size[0]} x {size[1]} px, its calibration {calibrated[0]} x {calibrated[1]}; "
            f"calibrate with footage of the recording's size, or give the video as it was recorded"
        )


def _expect_common_moments(seen: Mapping[str, NDArray[np.bool_]], timeline: Timeline) -> None:
    """Raise InputError for a camera that never sees a keypoint at a moment at which another one does."""
    at = np.stack([found.any(axis=(1, 2)) for found in seen.values()])
    alone = ~(at & (at.sum(axis=0) > 1)).any(axis=1)
    for name, row in zip(seen, at, strict=True):
        if alone[list(seen).index(name)]:
            steps = timeline.step[row]
            span = f"{steps[0]} to {steps[-1]}" if len(steps) else "none"
            raise InputError(
                f"camera '{name}' shares no frame with the others: it has 2D poses in frames {span}; "
                f'check its file, or add its offset under [sync]: offset_frames = {{ "{name}" = ... }}'
            )


def _summary(
    seen: Mapping[str, NDArray[np.bool_]], clocks: Mapping[str, Poses], timeline: Timeline, fps: float
) -> dict[str, Any]:
    found = {name: float(s.any(axis=2).sum() / max(len(timeline), 1)) for name, s in seen.items()}
    return {
        "cameras": len(seen),
        "frames": len(timeline),
        "frames/s": fps,
        "keypoints": next(iter(clocks.values())).shape[2],
        "detections a frame": found,
    }
