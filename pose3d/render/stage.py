"""How is a scene drawn? The graphics: built once, then only what moves is moved and drawn again."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pose3d.render import offscreen, shapes
from pose3d.render.content import Content
from pose3d.render.text import text_width, write_text
from pose3d.render.viewpoint import VIEW_ANGLE, in_picture, viewpoint

__all__ = ["Stage"]

Image = NDArray[np.uint8]
FloatArray = NDArray[np.float64]
Part = tuple[int, int, int, int]  # left, top, right, bottom px of the picture

BACKGROUND, FLOOR, GRID = (255, 255, 255), (246, 246, 244), (212, 212, 208)
CAMERA, SHADOW, TEXT = (70, 70, 76), (214, 214, 211), (60, 60, 64)

BALL = 0.024
"""Radius of a keypoint's ball, as a share of the animals' size."""
LIFT = 0.004
"""How far above the floor shadows are drawn, as a share of the animals' size."""
LABEL = 0.15
"""How far above an animal its name stands, as a share of the animals' size."""
LETTER = 17
"""Size of the font of the animals' names in a picture 720 px high."""
SAMPLES = 2
"""Pixels are the mean of this many in each direction: smoother and faster than the graphics library's own smoothing."""


class Stage:
    """The graphics of one recording. Off screen, only the part of the picture where something moves is drawn anew."""

    def __init__(self, content: Content, off_screen: bool) -> None:
        if off_screen:
            offscreen.prepare()
        import pyvista

        self.content, self.samples = content, SAMPLES if off_screen else 1
        width, height = content.options.size
        self.stroke = height * self.samples / 720
        self.plotter = pyvista.Plotter(off_screen=off_screen, window_size=(width * self.samples, height * self.samples))
        self.plotter.render_window.SetMultiSamples(0 if off_screen else 4)
        self.plotter.set_background(_share(BACKGROUND))
        self._add_floor()
        self._add_cameras()
        self._look()
        if off_screen:
            self.still = self._drawn((0, 0, width, height))
            self.part = self._moving_part()
            self._aim(self.part)
        self._add_animals()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self.plotter.close()

    def picture(self, row: int) -> Image:
        """The moment of a row as RGB uint8 (height, width, 3)."""
        self.show_row(row)
        picture, (left, top, right, bottom) = self.still.copy(), self.part
        picture[top:bottom, left:right] = self._drawn(self.part)
        height, width = picture.shape[:2]
        letter, grid = height / 64, f"grid {self.content.floor.spacing:g} {self.content.poses.unit}"
        write_text(picture, self._moment(row), 0.02 * width, 0.975 * height, letter, TEXT)
        write_text(picture, grid, 0.98 * width - text_width(grid, letter), 0.975 * height, letter, TEXT)
        return picture

    def window(self, row: int) -> None:
        """Show the window, at a row, until it is closed."""

        def moved(value: float) -> None:
            self.show_row(round(value))
            self.plotter.add_text(self._moment(round(value)), position="lower_left", color=_share(TEXT), name="moment")

        last = len(self.content.poses.frame) - 1
        self.plotter.add_slider_widget(moved, (0, last), value=row, fmt="", color=_share(TEXT))
        self.plotter.show()

    def show_row(self, row: int) -> None:
        """Move everything that moves to where it is at this row."""
        content, poses, floor = self.content, self.content.poses, self.content.floor
        hidden = floor.origin - 2 * LIFT * content.size * floor.up
        points = poses.points[row]
        vertices, normals = shapes.skeleton_surface(points, poses.skeleton.edges, BALL * content.size, hidden)
        _update(self.animals, vertices, normals)
        _update(self.shadows, floor.shadow(vertices) + LIFT * content.size * floor.up)
        if content.covariance is not None:
            covariance = content.covariance[row].reshape(-1, 3, 3)
            surfaces = shapes.ellipsoids(points.reshape(-1, 3), covariance, content.options.uncertainty, hidden)
            _update(self.ellipsoids, *surfaces)
        if content.options.trail > 0:
            _update(self.trails, shapes.trail_segments(content.trail, row, content.options.trail, hidden))
        for label, own in zip(self.labels, points, strict=True):
            height = own @ floor.up
            label.SetVisibility(bool(np.isfinite(height).any()))
            if np.isfinite(height).any():
                label.SetPosition(*(own[np.nanargmax(height)] + LABEL * content.size * floor.up))

    def _moment(self, row: int) -> str:
        frame, seconds = self.content.poses.frame[row], self.content.poses.time[row]
        return f"frame {frame}" + (f"    {seconds:.2f} s" if math.isfinite(seconds) else "")

    def _drawn(self, part: Part) -> Image:
        """This part of the picture, RGB uint8, as the window shows it now."""
        from vtkmodules.util.numpy_support import vtk_to_numpy
        from vtkmodules.vtkCommonCore import vtkUnsignedCharArray

        window, pixels = self.plotter.render_window, vtkUnsignedCharArray()
        window.Render()
        width, height = window.GetSize()
        window.GetPixelData(0, 0, width - 1, height - 1, 0, pixels, 0)
        image = vtk_to_numpy(pixels).reshape(height, width, 3)[::-1]
        size = (part[2] - part[0], part[3] - part[1])
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)

    def _moving_part(self) -> Part:
        """The part of the picture that holds all animals of all frames, their shadows and names."""
        content, floor = self.content, self.content.floor
        width, height = content.options.size
        axes = np.stack([floor.x, floor.y, floor.up])
        along = (content.poses.points[~content.poses.missing] - floor.origin) @ axes.T
        margin = 0.3 * content.size
        low, high = np.minimum(along.min(axis=0), 0) - margin, np.maximum(along.max(axis=0), 0) + margin
        corners = np.stack(np.meshgrid(*np.stack([low, high], axis=1)), axis=-1).reshape(-1, 3) @ axes + floor.origin
        position, focus = (np.array(place) for place in (self.plotter.camera.position, self.plotter.camera.focal_point))
        seen = in_picture(corners, position, focus, floor.up, width / height)
        letter = LETTER * self.stroke / self.samples
        aside = 0.4 * letter * max(len(name) for name in content.names.values())
        left, top = (seen * (width, height)).min(axis=0) - np.array((aside, 2 * letter))
        right, bottom = (seen * (width, height)).max(axis=0) + np.array((aside, 0))
        return max(0, int(left)), max(0, int(top)), min(width, math.ceil(right)), min(height, math.ceil(bottom))

    def _aim(self, part: Part) -> None:
        """Let the window show this part of the picture only."""
        left, top, right, bottom = part
        width, height = self.content.options.size
        self.plotter.window_size = ((right - left) * self.samples, (bottom - top) * self.samples)
        camera = self.plotter.camera
        camera.view_angle = math.degrees(2 * math.atan(math.tan(VIEW_ANGLE / 2) * (bottom - top) / height))
        camera.SetWindowCenter((left + right - width) / (right - left), (height - top - bottom) / (bottom - top))

    def _add_floor(self) -> None:
        floor, size = self.content.floor, self.content.size
        import pyvista

        corners = floor.corners()
        self._add(pyvista.PolyData(corners, faces=[4, 0, 1, 2, 3]), color=_share(FLOOR), lighting=False)
        lines = shapes.grid_lines(floor) + 0.5 * LIFT * size * floor.up
        self._add(_segments(lines), color=_share(GRID), line_width=self.stroke, lighting=False)

    def _add_cameras(self) -> None:
        frusta = self.content.frusta
        if len(frusta) == 0:
            return
        import pyvista

        images = pyvista.PolyData.from_regular_faces(
            frusta[:, 1:].reshape(-1, 3), np.arange(4 * len(frusta)).reshape(-1, 4)
        )
        self._add(images, color=_share(CAMERA), opacity=0.12, lighting=False)
        lines = shapes.frustum_lines(frusta)
        self._add(_segments(lines), color=_share(CAMERA), line_width=1.4 * self.stroke, lighting=False)
        feet = np.stack((frusta[:, 0], self.content.floor.shadow(frusta[:, 0])), axis=1)
        self._add(_segments(feet), color=_share(GRID), line_width=self.stroke, lighting=False)
        for camera, corners in zip(self.content.rig, frusta, strict=True):
            label = self._add_label(camera.name, TEXT, 0.9 * LETTER)
            label.SetPosition(*corners[0])
            label.SetDisplayOffset(0, round(8 * self.stroke))

    def _add_animals(self) -> None:
        import pyvista

        content, skeleton = self.content, self.content.poses.skeleton
        animals, keypoints, edges = len(content.names), len(skeleton), len(skeleton.edges)
        colours = shapes.per_vertex(content.colours, keypoints, edges)
        faces = shapes.skeleton_faces(animals, keypoints, edges)
        blank = np.zeros((len(colours), 3))
        self.shadows = pyvista.PolyData.from_regular_faces(blank, faces)
        self._add(self.shadows, color=_share(SHADOW), lighting=False)
        self.animals = pyvista.PolyData.from_regular_faces(blank.copy(), faces)
        self.animals.point_data["colour"] = colours
        self._add(self.animals, scalars="colour", rgb=True, smooth=True)
        if content.covariance is not None:
            vertices, triangles = shapes.ball()
            first = np.arange(animals * keypoints)[:, None, None] * len(vertices)
            blank = np.zeros((animals * keypoints * len(vertices), 3))
            self.ellipsoids = pyvista.PolyData.from_regular_faces(blank, (triangles + first).reshape(-1, 3))
            self.ellipsoids.point_data["colour"] = np.repeat(content.colours, keypoints * len(vertices), axis=0)
            self._add(self.ellipsoids, scalars="colour", rgb=True, opacity=0.25, smooth=True)
        if content.options.trail > 0:
            self.trails = _segments(np.zeros((animals * content.options.trail, 2, 3)))
            self.trails.cell_data["colour"] = shapes.trail_colours(content.colours, content.options.trail, FLOOR)
            self._add(self.trails, scalars="colour", rgb=True, line_width=2.2 * self.stroke, lighting=False)
        self.labels = [
            self._add_label(name, tuple(colour * 0.72), LETTER)
            for name, colour in zip(content.names.values(), content.colours, strict=True)
        ]

    def _look(self) -> None:
        content, floor = self.content, self.content.floor
        width, height = content.options.size
        seen = np.concatenate(
            (content.frusta.reshape(-1, 3), floor.corners(), floor.corners() + content.size * floor.up)
        )
        position, focus = viewpoint(seen, content.rig.centers, floor, width / height)
        camera = self.plotter.camera
        camera.position, camera.focal_point, camera.up = tuple(position), tuple(focus), tuple(floor.up)
        camera.view_angle = math.degrees(VIEW_ANGLE)
        depth = (position - seen) @ (position - focus) / np.linalg.norm(position - focus)
        camera.clipping_range = (0.5 * float(depth.min()), 1.5 * float(depth.max()))

    def _add(self, mesh: Any, smooth: bool = False, **look: Any) -> None:
        actor = self.plotter.add_mesh(mesh, reset_camera=False, show_scalar_bar=False, copy_mesh=False, **look)
        if smooth:
            actor.prop.interpolation = "Phong"
            actor.prop.specular, actor.prop.specular_power, actor.prop.ambient = 0.25, 20.0, 0.15

    def _add_label(self, text: str, colour: tuple[float, float, float], letter: float) -> Any:
        """Text that stands at a place in the world and faces the viewer."""
        from vtkmodules.vtkRenderingCore import vtkBillboardTextActor3D

        actor = vtkBillboardTextActor3D()
        actor.SetInput(text)
        self._style(actor.GetTextProperty(), colour, letter)
        actor.GetTextProperty().SetJustificationToCentered()
        self.plotter.add_actor(actor, reset_camera=False)
        return actor

    def _style(self, text: Any, colour: tuple[float, float, float], letter: float) -> None:
        text.SetFontFamilyToArial()
        text.SetFontSize(round(letter * self.stroke))
        text.SetColor(*_share(colour))


def _segments(ends: FloatArray) -> Any:
    """Separate lines (n, 2, 3) as a mesh."""
    import pyvista

    n = len(ends)
    pairs = np.column_stack((np.full(n, 2), 2 * np.arange(n), 2 * np.arange(n) + 1))
    return pyvista.PolyData(ends.reshape(-1, 3).copy(), lines=pairs.ravel())


def _update(mesh: Any, points: FloatArray, normals: FloatArray | None = None) -> None:
    mesh.points[:] = points.reshape(-1, 3)
    if normals is not None:
        mesh.point_data.active_normals = normals


def _share(colour: tuple[float, float, float]) -> tuple[float, float, float]:
    """0..255 -> 0..1."""
    r, g, b = (float(c) / 255 for c in colour)
    return r, g, b
