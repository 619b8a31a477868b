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
from pose3d.files import join_poses, load_poses, read_windows, save_poses
from pose3d.poses import Poses
from pose3d.records import Plan, Progress, StageReport, fingerprint_product, fingerprint_source, run_stage
from pose3d.session import Session, drawn_skeleton, find_files
from pose3d.skeleton import Skeleton
from pose3d.stages.recording import write_timeline
from pose3d.timeline import SyncOptions, Timeline, align, make_timeline, timeline_of

__all__ = ["expect_footage", "import_poses2d"]

VERSION = 2


def import_poses2d(
    session: Session,
    recording: str,
    rig: CameraRig,
    *,
    predicted: Mapping[str, Path] | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> StageReport:
    """Read every camera's 2D poses, put them on the rig's moments, write the recording's poses2d/<camera>.nc.

    predicted: {camera: 2D poses of our own}, in place of the session's files. One camera is in memory at a time. Raises
    InputError when there are none, a camera is not in the rig, footage and calibration differ in size, lengths differ
    without [sync], or a camera shares no moment with the others.
    """
    sources = find_files(session, "poses2d", recording) if predicted is None else dict(predicted)
    session = session if predicted is None else replace(session, poses2d_format=None)
    fingerprint = fingerprint_source if predicted is None else fingerprint_product
    videos = {name: path for name, path in find_files(session, "video", recording).items() if name in sources}
    _expect_sources(sources, session, recording)
    _expect_cameras(sources, rig)
    sync = session.options.get("sync") or SyncOptions()
    table = {name: getattr(session.skeleton, name) for name in ("keypoints", "edges", "bones", "symmetry")}
    inputs = {f"poses2d.{name}": fingerprint(path) for name, path in sources.items()}
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
            clocks[name] = _read(path, plan.unfinished / f"{name}.nc", session) if predicted is None else _clock(path)
        timeline, fps = _timeline(clocks, videos, rig, session)
        seen = {}
        for done, (name, path) in enumerate(sources.items()):
            output = plan.folder / f"poses2d/{name}.nc"
            if predicted is None:
                poses = align({name: load_poses(plan.unfinished / f"{name}.nc")}, timeline)[name].replace(fps=fps)
                save_poses(output, poses)
                seen[name] = _count(poses)
            else:
                parts = _aligned_parts(path, name, clocks[name].frame, timeline, fps, session, plan.unfinished)
                join_poses(parts, output)
                seen[name] = np.concatenate([_count(load_poses(part, frames=slice(None))) for part in parts])
            if progress:
                progress("reading 2D poses", done + 1, len(sources))
        _expect_common_moments(seen, timeline)
        write_timeline(plan.folder / "poses2d/timeline.npz", timeline)
        return _summary(seen, clocks, timeline, fps)

    return run_stage(plan, work, force=force)


def _expect_sources(sources: Mapping[str, Path], session: Session, recording: str) -> None:
    if not sources:
        place = session.data / session.patterns.poses2d.replace("{recording}", recording)
        raise InputError(
            f"{place}: expected 2D poses of every camera, found none; correct `cameras.poses2d` in {session.file}, or "
            "have them predicted from videos: name a network (`model` under [predict]) or labelled frames ([labels])"
        )


def expect_footage(videos: Mapping[str, Path], rig: CameraRig, session: Session) -> None:
    """Raise InputError where `import_poses2d` would, once these videos are predicted: it is better said before."""
    _expect_cameras(videos, rig)
    counts, fps = {}, session.fps or math.nan
    for name, path in videos.items():
        with open_footage(path) as footage:
            _expect_size(name, path, footage.size, rig)
            fps = fps if math.isfinite(fps) else footage.fps
            if path.is_file():
                counts[name] = footage.n_frames
    if len(counts) == len(videos):
        make_timeline(counts, fps, session.options.get("sync"))


def _expect_cameras(sources: Mapping[str, Path], rig: CameraRig) -> None:
    """Raise InputError where a camera of {camera: path} is not in the rig, or there is only one."""
    for name in sources:
        if name not in rig.names:
            free = [other for other in rig.names if other not in sources]
            raise InputError(
                f"camera '{name}' of {sources[name]} is not in the calibration; {nearest_name(name, rig.names)} "
                f"Where two names mean one camera, say so under [cameras]: "
                f'rename = {{ "{(free or list(rig.names))[0]}" = "{name}" }}'
            )
    if len(sources) < 2:
        raise InputError(f"{', '.join(map(str, sources.values()))}: expected at least two cameras, got one")


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


def _clock(path: Path) -> Poses:
    """The frames and times of predicted poses, without slots. One window is in memory at a time."""
    frame, time, some = [], [], False
    for poses in read_windows(path):
        frame.append(poses.frame)
        time.append(poses.time)
        some |= not bool(poses.missing.all())
        skeleton, fps = poses.skeleton, poses.fps
    if not some:
        raise InputError(
            f"{path}: the network found no keypoint in any frame; check that it was trained on such videos, or lower "
            "`threshold` under [predict]"
        )
    frames = np.concatenate(frame)
    points = np.zeros((len(frames), 0, len(skeleton), 2))
    return Poses(points, frame=frames, time=np.concatenate(time), skeleton=skeleton, fps=fps)


def _aligned_parts(
    path: Path, name: str, frame: NDArray[np.int64], timeline: Timeline, fps: float, session: Session, folder: Path
) -> list[Path]:
    """Predicted poses on the timeline, in files of one window each. frame: (rows,) of the predicted poses."""
    wanted = None if session.skeleton.keypoints is None else Skeleton(session.skeleton.keypoints)
    parts = []
    for number, start in enumerate(range(0, len(timeline), session.window)):
        steps = timeline.window(start, start + session.window)
        here = steps.frame[steps.frame[:, steps.view(name)] >= 0, steps.view(name)]
        rows = slice(0, 0)
        if len(here):  # a moment between two frames also needs the frame before or after
            rows = slice(*np.searchsorted(frame, [here.min() - 1, here.max() + 2]).tolist())
        poses = load_poses(path, skeleton=wanted, frames=rows)
        poses = align({name: poses}, steps)[name]
        parts.append(folder / f"{name}_{number:06d}.nc")
        save_poses(parts[-1], poses.replace(fps=fps, skeleton=drawn_skeleton(poses.skeleton, session.skeleton)))
    return parts


def _count(poses: Poses) -> NDArray[np.int64]:
    """(frames,) individuals in each frame."""
    return np.count_nonzero(~poses.missing.all(axis=2), axis=1)


def _timeline(
    clocks: Mapping[str, Poses], videos: Mapping[str, Path], rig: CameraRig, session: Session
) -> tuple[Timeline, float]:
    """The moments of the recording and frames/s: by the lengths of videos, else by the poses' frames."""
    counts, rates = {}, [poses.fps for poses in clocks.values()]
    counted = 0  # footage whose frames are numbered 0, 1, 2, ...
    for name, poses in clocks.items():
        counts[name] = int(poses.frame[-1]) + 1 if len(poses.frame) else 0
        if name in videos:
            with open_footage(videos[name]) as footage:
                _expect_size(name, videos[name], footage.size, rig)
                last = int(footage.frame_numbers[-1])
                if counts[name] > last + 1:
                    raise InputError(
                        f"camera '{name}': its 2D poses reach frame {counts[name] - 1}, {videos[name]} has only "
                        f"{last + 1} frames; correct `cameras.video` or `cameras.poses2d` in {session.file}"
                    )
                counts[name], counted = last + 1, counted + (footage.n_frames == last + 1)
                rates.append(footage.fps)
    fps = session.fps or next((rate for rate in rates if math.isfinite(rate)), math.nan)
    sync = session.options.get("sync")
    dense = all(np.array_equal(poses.frame, np.arange(len(poses.frame))) for poses in clocks.values())
    if sync is None and not dense and counted < len(clocks):
        return timeline_of(clocks), fps
    return make_timeline(counts, fps, sync), fps


def _expect_size(name: str, path: Path, size: tuple[int, int], rig: CameraRig) -> None:
    calibrated = rig[name].intrinsics.size
    if tuple(size) != tuple(calibrated):
        raise InputError(
            f"camera '{name}': {path} is {size[0]} x {size[1]} px, its calibration {calibrated[0]} x {calibrated[1]}; "
            f"calibrate with footage of the recording's size, or give the video as it was recorded"
        )


def _expect_common_moments(seen: Mapping[str, NDArray[np.int64]], timeline: Timeline) -> None:
    """Raise InputError for a camera that never sees a keypoint at a moment at which another one does."""
    at = np.stack([count > 0 for count in seen.values()])
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
    seen: Mapping[str, NDArray[np.int64]], clocks: Mapping[str, Poses], timeline: Timeline, fps: float
) -> dict[str, Any]:
    found = {name: float(count.sum() / max(len(timeline), 1)) for name, count in seen.items()}
    return {
        "cameras": len(seen),
        "frames": len(timeline),
        "frames/s": fps,
        "keypoints": next(iter(clocks.values())).shape[2],
        "detections a frame": found,
    }
