"""What do the results of a recording look like? scene.png, scene.mp4 and overlay.png of its poses, rig and footage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibration.errors import InputError
from calibration.files import load_rig
from calibration.footage import find_sources
from calibration.rig import CameraRig
from pose3d.files import load_poses, read_groups
from pose3d.poses import Poses
from pose3d.records import Plan, Progress, StageReport, fingerprint_source, run_stage
from pose3d.render import offscreen
from pose3d.render.moments import row_of
from pose3d.render.overlay import OverlayOptions, render_overlay
from pose3d.render.scene import SceneOptions, render_scene, show_scene
from pose3d.session import find_in
from pose3d.stages.recording import Recording, read_timeline
from pose3d.timeline import Timeline
from pose3d.video import synced_frames

__all__ = ["draw_overlay", "draw_scene", "show_files"]

SCENE_VERSION, OVERLAY_VERSION = 1, 1
FRAMES = 2000
"""Of a longer recording, the pictures show the first so many frames; `pose3d render` draws any of it."""


def draw_scene(recording: Recording) -> StageReport:
    """Rig, floor and animals in 3D: scene.png and scene.mp4. Where nothing can be drawn in 3D the report says why."""
    try:
        offscreen.prepare()
    except InputError as error:
        return StageReport("scene", True, 0.0, {"left out": str(error)})
    options = recording.options.get("scene") or SceneOptions()
    names = ("scene.png", "scene.mp4")
    plan = Plan(recording.folder, "scene", SCENE_VERSION, recording.inputs("poses3d.nc"), {"scene": options}, names)

    def work() -> dict[str, Any]:
        poses = load_poses(recording.folder / "poses3d.nc", frames=slice(0, FRAMES))
        for name in names:
            render_scene(poses, recording.rig, recording.folder / name, options, progress=recording.progress)
        return {"frames": len(poses.frame)}

    return run_stage(plan, work, force=recording.force)


def draw_overlay(recording: Recording, videos: Mapping[str, Path]) -> StageReport:
    """All views of one moment with detections and reprojected 3D poses: overlay.png. videos: {camera: footage}."""
    options = recording.options.get("overlay") or OverlayOptions()
    inputs = recording.inputs("poses3d.nc", "groups.nc", "poses2d/timeline.npz")
    inputs |= {f"video.{name}": fingerprint_source(path) for name, path in videos.items()}
    plan = Plan(recording.folder, "overlay", OVERLAY_VERSION, inputs, {"overlay": options}, ("overlay.png",))

    def work() -> dict[str, Any]:
        stop = min(FRAMES, recording.n_frames())
        poses = load_poses(recording.folder / "poses3d.nc", frames=slice(0, stop))
        views, groups = recording.views(0, stop), recording.groups(0, stop)
        timeline = read_timeline(recording.folder / "poses2d/timeline.npz").window(0, stop)
        path = recording.folder / "overlay.png"
        shown = _readable(videos, timeline, row_of(poses, options.frame))
        render_overlay(views, poses, groups, recording.rig, shown, path, options, timeline=timeline)
        return {"cameras": len(views), "with footage": len(shown)}

    return run_stage(plan, work, force=recording.force)


def _readable(videos: Mapping[str, Path], timeline: Timeline, row: int) -> dict[str, Path]:
    """The videos of which this moment can be read: one that broke off before is no reason to have no picture."""
    found = {}
    for name, path in videos.items():
        try:
            next(synced_frames({name: path}, {name: timeline.frame[row : row + 1, timeline.view(name)]}))
        except InputError:
            continue
        found[name] = path
    return found


def show_files(
    poses3d: Path,
    calibration: Path,
    output: Path | None,
    *,
    frame: int | None = None,
    unit: str | None = None,
    videos: Path | None = None,
    poses2d: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Draw files: the scene, or with 2D poses all views; into a picture, a movie, or (output None) a window.

    poses2d: folder of {camera}.nc ... on the frames of the 3D poses, such as a recording's poses2d. videos: folder of
    <camera>.mp4 or <camera>/ of images. Raises InputError when files do not fit together.
    """
    poses, rig = load_poses(poses3d, unit=None if poses3d.suffix == ".nc" else unit), load_rig(calibration, unit=unit)
    if poses.unit != rig.unit:
        raise InputError(f"{poses3d} is in {poses.unit}, {calibration} in {rig.unit}; give the rig of these poses")
    if poses2d is not None or videos is not None:
        if output is None:
            raise InputError("render: --videos and --poses2d are drawn into a file; give --output, a .png or .mp4")
        _overlay_of_files(poses, rig, output, OverlayOptions(frame=frame), videos, poses2d, progress)
    elif output is None:
        show_scene(poses, rig, SceneOptions(frame=frame))
    else:
        render_scene(poses, rig, output, SceneOptions(frame=frame), progress=progress)


def _overlay_of_files(
    poses: Poses,
    rig: CameraRig,
    output: Path,
    options: OverlayOptions,
    videos: Path | None,
    poses2d: Path | None,
    progress: Progress | None,
) -> None:
    footage = {} if videos is None else find_sources(videos)
    views, groups, timeline = {}, None, None
    if poses2d is not None:
        views = {name: load_poses(path) for name, path in find_in(poses2d, "poses2d").items()}
        if (poses2d / "timeline.npz").is_file():
            timeline = read_timeline(poses2d / "timeline.npz")
        if (poses2d.parent / "groups.nc").is_file():
            groups = read_groups(poses2d.parent / "groups.nc")
    known = {name: path for name, path in footage.items() if name in rig.names}
    render_overlay(views, poses, groups, rig, known, output, options, timeline=timeline, progress=progress)
