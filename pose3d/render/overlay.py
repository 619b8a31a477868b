"""Do the 2D detections and the 3D poses agree with the footage? All views of a moment in one picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from calibration.rig import CameraRig
from pose3d.poses import Groups, Poses
from pose3d.render.colours import UNMATCHED, Colour, colour_of
from pose3d.render.moments import movie_fps, movie_rows, named_ids, row_of
from pose3d.render.text import text_width, write_text
from pose3d.timeline import Timeline
from pose3d.video import MovieWriter, save_picture, synced_frames

__all__ = ["OverlayOptions", "draw_overlay", "render_overlay"]

Image = NDArray[np.uint8]
FloatArray = NDArray[np.float64]

BACKGROUND: Colour = (24, 24, 24)
CANVAS: Colour = (48, 48, 48)
"""Of a camera without a picture at this moment."""
TEXT: Colour = (235, 235, 235)

GAP = 6
"""px between the views."""
_SHIFT = 4  # cv2 draws at 1 / 2**4 px


@dataclass(frozen=True)
class OverlayOptions:
    """What an overlay shows.

    width: px of the whole picture (less where the cameras' images are smaller). frame: the step number that a PNG
        shows, None = the one with most keypoints.
    every: a movie shows every n-th step. fps: of the movie, None = as recorded (30 where unknown). crf: its quality, 0
        (best) to 51.
    """

    width: int = 1920
    frame: int | None = None
    every: int = 1
    fps: float | None = None
    crf: int = 20


@dataclass(frozen=True, eq=False)
class _Moments:
    """What is drawn, row by row of the shared frames axis."""

    views: Mapping[str, Poses]
    poses: Poses
    rig: CameraRig
    identity: Mapping[str, NDArray[np.int32]]  # of every slot of every view: (frames, slots)
    timeline: Timeline


def render_overlay(
    views: Mapping[str, Poses],
    poses: Poses,
    groups: Groups | None,
    rig: CameraRig,
    videos: Mapping[str, str | Path] | None,
    path: str | Path,
    options: OverlayOptions | None = None,
    *,
    timeline: Timeline | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> None:
    """Write a picture (.png) of one moment or a movie (.mp4) of all moments, every view in one grid.

    views: {camera: Poses 2D}, aligned. poses: Poses 3D on the same frames axis. groups: which detection is whose, row
    by row of the same axis; None = a detection's own id says it. videos: {camera: video or folder of images}; a camera
    without one has a dark canvas, one without detections either is not shown. timeline: which frame of each video
    belongs to a step; None = frame numbers agree.

    Filled dots and lines: detections in the colour of their individual, grey where they are nobody's. Rings and thin
    lines: the 3D pose, reprojected; a thin line joins a ring and its dot where they are apart.
    Raises InputError when frames, cameras or the path's ending do not fit.
    """
    options = options or OverlayOptions()
    path, videos = Path(path), {} if videos is None else videos
    moments = _moments(views, poses, groups, _shown(rig, views, videos), timeline)

    def pictures(rows: Sequence[int]) -> Iterator[tuple[int, Mapping[str, Image | None]]]:
        numbers = {name: moments.timeline.frame[rows, moments.timeline.view(name)] for name in videos}
        return zip(rows, synced_frames(videos, numbers) if videos else repeat({}), strict=False)

    if path.suffix == ".png":
        row, images = next(pictures([row_of(poses, options.frame)]))
        save_picture(path, _draw(moments, row, images, options))
    elif path.suffix == ".mp4":
        rows = movie_rows(poses, options.every)
        fps = movie_fps(poses, options.fps, options.every)
        size = _draw(moments, 0, {}, options).shape[1::-1]
        with MovieWriter(path, fps, size, crf=options.crf) as movie:
            for done, (row, images) in enumerate(pictures(rows), start=1):
                movie.write(_draw(moments, row, images, options))
                if progress is not None:
                    progress("overlay", done, len(rows))
    else:
        raise InputError(f"{path}: expected an overlay to end in .png or .mp4")


def draw_overlay(
    views: Mapping[str, Poses],
    poses: Poses,
    groups: Groups | None,
    rig: CameraRig,
    images: Mapping[str, Image | None],
    row: int,
    options: OverlayOptions | None = None,
) -> Image:
    """One moment as an RGB uint8 picture (height, width, 3): row of the frames axis, see `render_overlay`.

    images: {camera: RGB uint8 of the camera's size, or None}.
    """
    moments = _moments(views, poses, groups, _shown(rig, views, images), None)
    return _draw(moments, row, images, options or OverlayOptions())


def _shown(rig: CameraRig, views: Mapping[str, Poses], images: Iterable[str]) -> CameraRig:
    """The cameras that have detections or pictures, in the rig's order; all where none has."""
    names = {*views, *images}
    for name in names:
        rig.index(name)
    return rig.subset([name for name in rig.names if name in names or not names])


def _moments(
    views: Mapping[str, Poses], poses: Poses, groups: Groups | None, rig: CameraRig, timeline: Timeline | None
) -> _Moments:
    for name, view in views.items():
        if not np.array_equal(view.frame, poses.frame):
            raise InputError(
                f"overlay: view '{name}' and the 3D poses do not have the same frames; align the views first"
            )
    if groups is not None and len(groups.slots) != len(poses.frame):
        raise InputError(f"overlay: expected groups of {len(poses.frame)} frames, got {len(groups.slots)}")
    if timeline is None:
        timeline = Timeline(rig.names, np.tile(poses.frame[:, None], len(rig)), poses.time, step=poses.frame)
    if not np.array_equal(timeline.step, poses.frame):
        raise InputError(
            "overlay: the timeline's steps are not the frames of the 3D poses; give the one they were made with"
        )
    if len(poses.frame) == 0:
        raise InputError("overlay: the poses have no frame")
    identity = {name: _identity(view, groups, name) for name, view in views.items()}
    return _Moments(views, poses, rig, identity, timeline)


def _identity(view: Poses, groups: Groups | None, name: str) -> NDArray[np.int32]:
    """Who is in each slot of a view: (frames, slots), -1 = nobody known."""
    if groups is None:
        return view.ids
    identity = np.full(view.ids.shape, -1, dtype=np.int32)
    if name in groups.view_names:
        slots = groups.slots[:, :, groups.view_names.index(name)]
        frames, columns = np.nonzero(slots >= 0)
        identity[frames, slots[frames, columns]] = groups.ids[frames, columns]
    return identity


@dataclass(frozen=True)
class _Grid:
    columns: int
    cell: tuple[int, int]  # width, height
    rows: int

    def corner(self, i: int) -> tuple[int, int]:
        """x, y of the top left pixel of cell i."""
        return GAP + i % self.columns * (self.cell[0] + GAP), GAP + i // self.columns * (self.cell[1] + GAP)


def _grid(sizes: Sequence[tuple[int, int]], width: int) -> _Grid:
    """Cells of one size, as many columns as bring the whole nearest to 16:9."""
    n = len(sizes)
    aspect = max(w / h for w, h in sizes)

    def shape_off(columns: int) -> tuple[float, int]:
        rows = -(-n // columns)
        return abs(math.log(columns * aspect / rows / (16 / 9))) + (columns * rows - n) / n, columns

    columns = min(range(1, n + 1), key=shape_off)
    across = min((width - GAP) // columns - GAP, max(w for w, _ in sizes))
    return _Grid(columns, (across, round(across / aspect)), -(-n // columns))


def _draw(moments: _Moments, row: int, images: Mapping[str, Image | None], options: OverlayOptions) -> Image:
    cameras = moments.rig.cameras
    grid = _grid([camera.intrinsics.size for camera in cameras], options.width)
    letter = max(13.0, grid.cell[0] / 48)  # px, height of a capital
    width, height = grid.corner(0)[0] + grid.columns * (grid.cell[0] + GAP), GAP + grid.rows * (grid.cell[1] + GAP)
    picture = np.full((height + round(3 * letter), width, 3), BACKGROUND, dtype=np.uint8)
    for i, camera in enumerate(cameras):
        (x, y), (w, h) = grid.corner(i), grid.cell
        cell = picture[y : y + h, x : x + w]
        own_width, own_height = camera.intrinsics.size
        scale = min(w / own_width, h / own_height)
        left, top = (w - round(own_width * scale)) // 2, (h - round(own_height * scale)) // 2
        inner = cell[top : top + round(own_height * scale), left : left + round(own_width * scale)]
        _draw_image(inner, images.get(camera.name), camera.name, camera.intrinsics.size)
        _draw_view(inner, moments, row, camera.name, scale)
        number = moments.timeline.frame[row, moments.timeline.view(camera.name)]
        _label(cell, f"{camera.name}   frame {number}" if number >= 0 else f"{camera.name}   no frame", letter)
    _legend(picture[height:], named_ids(moments.poses), letter)
    return picture


def _draw_image(inner: Image, image: Image | None, name: str, size: tuple[int, int]) -> None:
    if image is None:
        inner[:] = CANVAS
        return
    if image.shape[1::-1] != size:
        raise InputError(
            f"camera '{name}': expected a picture of {size[0]} x {size[1]} px as in the calibration, "
            f"got {image.shape[1]} x {image.shape[0]}"
        )
    shrunk = inner.shape[0] < image.shape[0]
    cv2.resize(image, inner.shape[1::-1], dst=inner, interpolation=cv2.INTER_AREA if shrunk else cv2.INTER_LINEAR)


def _draw_view(inner: Image, moments: _Moments, row: int, name: str, scale: float) -> None:
    """Detections and reprojections of one camera into its part of the picture."""
    stroke = max(1.0, max(inner.shape[:2]) / 480)
    thin = max(1, round(0.5 * stroke))
    edges = _edges(moments.poses)
    reprojected = {}
    for slot, identity in enumerate(moments.poses.ids[row]):
        xy = _scaled(moments.rig[name].project(moments.poses.points[row, slot]), scale, inner)
        colour = colour_of(int(identity))
        reprojected[int(identity)] = xy
        _lines(inner, xy[edges], _pale(colour), thin)
        _dots(inner, xy, _pale(colour), 3.0 * stroke, thin)
    if name not in moments.views:
        return
    view, identities = moments.views[name], moments.identity[name][row]
    for slot in np.argsort(identities >= 0, kind="stable"):
        xy = _scaled(view.points[row, slot], scale, inner)
        identity = int(identities[slot])
        colour = colour_of(identity) if identity >= 0 else UNMATCHED
        if identity in reprojected:
            common = [k for k in view.skeleton.keypoints if k in moments.poses.skeleton.keypoints]
            ends = xy[[view.skeleton.index(k) for k in common]]
            starts = reprojected[identity][[moments.poses.skeleton.index(k) for k in common]]
            _lines(inner, np.stack((starts, ends), axis=1), colour, thin)
        _lines(inner, xy[_edges(view)], colour, max(1, round(stroke)))
        _dots(inner, xy, colour, 1.7 * stroke, cv2.FILLED)


def _edges(poses: Poses) -> NDArray[np.int64]:
    return np.array(poses.skeleton.edges, dtype=np.int64).reshape(-1, 2)


def _pale(colour: Colour) -> Colour:
    """Half way to white."""
    r, g, b = ((c + 255) // 2 for c in colour)
    return r, g, b


def _scaled(xy: FloatArray, scale: float, inner: Image) -> FloatArray:
    """Pixels of the camera -> pixels of the picture's part; NaN far outside, where cv2's integers would overflow."""
    xy = (xy + 0.5) * scale - 0.5
    with np.errstate(invalid="ignore"):
        far = (np.abs(xy) > 4 * max(inner.shape)).any(axis=-1)
    return np.where(far[..., None], np.nan, xy)


def _fixed(xy: FloatArray) -> tuple[int, int]:
    x, y = np.round(xy * (1 << _SHIFT)).astype(int)
    return int(x), int(y)


def _lines(image: Image, ends: FloatArray, colour: Colour, thickness: int) -> None:
    """Lines from their ends (n, 2, 2); those with NaN are left out."""
    for start, end in ends[np.isfinite(ends).all(axis=(1, 2))]:
        cv2.line(image, _fixed(start), _fixed(end), colour, thickness, cv2.LINE_AA, _SHIFT)


def _dots(image: Image, xy: FloatArray, colour: Colour, radius: float, thickness: int) -> None:
    for point in xy[np.isfinite(xy).all(axis=-1)]:
        cv2.circle(image, _fixed(point), round(radius * (1 << _SHIFT)), colour, thickness, cv2.LINE_AA, _SHIFT)


def _label(cell: Image, text: str, letter: float) -> None:
    """Name and frame number at the top left, on a darkened ground."""
    ground = cell[: round(2.2 * letter), : round(text_width(text, letter) + 1.6 * letter)]
    ground[:] = ground // 3
    write_text(cell, text, 0.8 * letter, 1.6 * letter, letter, TEXT)


def _legend(bar: Image, names: Mapping[int, str], letter: float) -> None:
    """Whose colour is which and what dots and rings mean, in one line as far as there is room."""
    x, middle, radius = 1.5 * letter, bar.shape[0] / 2, 0.4 * letter
    entries = [(colour_of(identity), cv2.FILLED, name) for identity, name in names.items()]
    entries += [(UNMATCHED, cv2.FILLED, "unmatched"), (TEXT, cv2.FILLED, "detected"), (TEXT, 1, "3D reprojected")]
    for colour, thickness, name in entries:
        if x + letter * (2 + 0.7 * len(name)) > bar.shape[1]:
            return
        _dots(bar, np.array([[x, middle]]), colour, radius, thickness)
        x = write_text(bar, name, x + letter, middle + 0.5 * letter, letter, TEXT) + 2.5 * letter
