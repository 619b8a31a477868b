"""Where are the animals and the cameras in space? A picture, a movie or a window of the scene in 3D."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from calibration.errors import InputError
from calibration.rig import CameraRig
from pose3d.poses import Poses
from pose3d.render import offscreen
from pose3d.render.content import SceneOptions, gather
from pose3d.render.moments import movie_fps, movie_rows, row_of
from pose3d.render.stage import Stage
from pose3d.video import MovieWriter, save_picture

__all__ = ["SceneOptions", "render_scene", "show_scene"]


def render_scene(
    poses: Poses,
    rig: CameraRig,
    path: str | Path,
    options: SceneOptions | None = None,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> None:
    """Write a picture (.png) of one moment or a movie (.mp4) of all moments, without a screen.

    poses: 3D, in the rig's world; animals without an id are left out unless none has one. Raises InputError when the
    poses are not 3D or hold nothing, for another ending, and where there is no OpenGL (with the remedy).
    """
    options = options or SceneOptions()
    path = Path(path)
    if path.suffix not in (".png", ".mp4"):
        raise InputError(f"{path}: expected a scene to end in .png or .mp4")
    content = gather(poses, rig, options)
    with Stage(content, off_screen=True) as stage:
        if path.suffix == ".png":
            save_picture(path, stage.picture(row_of(poses, options.frame)))
            return
        rows = movie_rows(poses, options.every)
        fps = movie_fps(poses, options.fps, options.every)
        with MovieWriter(path, fps, options.size, crf=options.crf) as movie:
            for done, row in enumerate(rows, start=1):
                movie.write(stage.picture(row))
                if progress is not None:
                    progress("scene", done, len(rows))


def show_scene(poses: Poses, rig: CameraRig, options: SceneOptions | None = None) -> None:
    """Open a window with a slider over the frames; returns when it is closed. Turn with the mouse, zoom with the wheel.

    Raises InputError where there is no screen, and as `render_scene`.
    """
    if not offscreen.has_screen():
        raise InputError("scene: no screen here for a window; write a .png or .mp4 instead")
    options = options or SceneOptions()
    content = gather(poses, rig, options)
    with Stage(content, off_screen=False) as stage:
        stage.window(row_of(poses, options.frame))
