from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from calibration.camera import Camera, Intrinsics
from calibration.errors import InputError
from calibration.rig import CameraRig
from pose3d.poses import Groups, Poses
from pose3d.render import overlay
from pose3d.render.colours import UNMATCHED, colour_of
from pose3d.render.overlay import BACKGROUND, CANVAS, GAP, OverlayOptions, draw_overlay, render_overlay
from pose3d.skeleton import Skeleton
from pose3d.timeline import Timeline
from pose3d.video import MovieWriter, save_picture

SKELETON = Skeleton(("a", "b", "c"), edges=((0, 1), (1, 2)))
K = np.array([[400.0, 0, 319.5], [0, 400.0, 239.5], [0, 0, 1]])


@pytest.fixture
def rig() -> CameraRig:
    """Two cameras 640 x 480 side by side, the left one at the origin."""
    intrinsics = Intrinsics((640, 480), K, np.zeros(5))
    right = Camera("right", intrinsics, np.eye(3), np.array([-1.0, 0, 0]))
    return CameraRig((Camera("left", intrinsics, np.eye(3), np.zeros(3)), right), "m")


@pytest.fixture
def poses() -> Poses:
    """Two animals in two frames, far apart from each other."""
    one = np.array([(-0.6, -0.6, 4.0), (0.0, -0.6, 4.0), (0.6, -0.6, 4.0)])
    points = np.stack([np.stack([one, one + np.array((0, 1.2, 0))])] * 2)
    return Poses(points, ids=np.tile([2, 0], (2, 1)), skeleton=SKELETON, fps=10.0, names={0: "Ada", 2: "Bo"}, unit="m")


def seen(poses: Poses, rig: CameraRig, shift: tuple[float, float] = (0, 0)) -> dict[str, Poses]:
    """Detections where the 3D pose projects, plus shift, in slots 1 (first animal) and 0 (second)."""
    xy = rig.project(poses.points)[:, :, ::-1] + np.array(shift)
    return {name: Poses(xy[v], skeleton=SKELETON) for v, name in enumerate(rig.names)}


def groups_of(n: int = 2) -> Groups:
    slots = np.tile(np.array([[1, 1], [0, 0]]), (n, 1, 1))
    return Groups(("left", "right"), slots, np.tile([2, 0], (n, 1)))


def at(picture: np.ndarray, xy: np.ndarray, view: int = 0) -> np.ndarray:
    """The pixel of a picture in which both cameras keep their own size, one beside the other."""
    x, y = np.round(xy).astype(int)
    return picture[GAP + y, GAP + view * (640 + GAP) + x].astype(int)


def draw(
    rig: CameraRig, poses: Poses, views: dict[str, Poses], groups: Groups | None, **images: np.ndarray
) -> np.ndarray:
    return draw_overlay(views, poses, groups, rig, images, 0, OverlayOptions(width=4000))


def test_detections_have_the_colour_of_their_individual(rig: CameraRig, poses: Poses) -> None:
    picture = draw(rig, poses, seen(poses, rig), groups_of())
    assert picture.shape[1] == 2 * 640 + 3 * GAP
    for v in range(2):
        xy = rig.project(poses.points[0])[v]
        for slot, identity in ((0, 2), (1, 0)):
            for point in xy[slot]:
                np.testing.assert_array_equal(at(picture, point, v), colour_of(identity))
            edge = at(picture, xy[slot, :2].mean(axis=0), v)
            np.testing.assert_allclose(edge, colour_of(identity), atol=45)  # drawn between pixels
        np.testing.assert_array_equal(at(picture, xy[0, [0, 2]].mean(axis=0) + np.array((0, 30)), v), CANVAS)
        assert (at(picture, xy[:, 1].mean(axis=0), v) == CANVAS).all()  # nothing between two animals


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_dots_are_drawn_at_sub_pixel_places(rig: CameraRig, scale: float) -> None:
    """Pixel (0, 0) is the centre of the first one, at any size."""
    for shift in ((0.0, 0.0), (0.4, -0.3), (0.75, 0.5)):
        views = {"left": Poses(np.array([[[[200.0, 300.0]]]]) + shift, ids=[[0]])}
        lone = Poses(np.full((1, 1, 1, 3), np.nan), unit="m")
        options = OverlayOptions(width=round(640 * scale) + 2 * GAP)
        picture = draw_overlay(views, lone, None, rig, {}, 0, options).astype(float)
        x, y = (np.array([200.0, 300.0]) + shift + 0.5) * scale - 0.5
        rows, columns = np.mgrid[int(y) - 8 : int(y) + 9, int(x) - 8 : int(x) + 9]
        weight = np.abs(picture[GAP + rows, GAP + columns] - CANVAS).sum(axis=2)
        centre = (columns * weight).sum() / weight.sum(), (rows * weight).sum() / weight.sum()
        np.testing.assert_allclose(centre, (x, y), atol=0.12)  # cv2 draws in 16ths of a pixel


def test_unmatched_detections_are_grey(rig: CameraRig, poses: Poses) -> None:
    groups = groups_of()
    groups.slots[:, 1] = -1
    views = seen(poses, rig, (0, 60))
    picture = draw(rig, poses, views, groups)
    np.testing.assert_array_equal(at(picture, views["left"].points[0, 0, 0]), UNMATCHED)
    np.testing.assert_array_equal(at(picture, views["left"].points[0, 1, 0]), colour_of(2))


def test_without_groups_a_detections_own_id_counts(rig: CameraRig, poses: Poses) -> None:
    views = {name: view.replace(ids=np.tile([5, -1], (2, 1))) for name, view in seen(poses, rig, (0, 60)).items()}
    picture = draw(rig, poses, views, None)
    np.testing.assert_array_equal(at(picture, views["left"].points[0, 0, 0]), colour_of(5))
    np.testing.assert_array_equal(at(picture, views["left"].points[0, 1, 0]), UNMATCHED)


def test_reprojections_are_rings_and_residuals_lines(rig: CameraRig, poses: Poses) -> None:
    views = seen(poses, rig, (0, 60))
    picture = draw(rig, poses, views, groups_of())
    centre = rig.project(poses.points[0, 0, 0])[0]
    pale = (np.array(colour_of(2)) + 255) // 2
    radius = 3.0 * 640 / 480
    ring = [at(picture, centre + radius * np.array((np.cos(a), np.sin(a)))) for a in np.arange(0.5, 6, 0.25)]
    assert np.abs(np.array(ring) - pale).max(axis=1).min() < 40
    assert np.mean([np.abs(p - CANVAS).sum() > 60 for p in ring]) > 0.8
    inside = at(picture, centre - 2)
    np.testing.assert_array_equal(inside, CANVAS)  # open
    half_way = at(picture, centre + np.array((0, 30)))
    np.testing.assert_allclose(half_way, colour_of(2), atol=45)
    hidden = views["left"].points.copy()
    hidden[:, 1, 0] = np.nan
    picture = draw(rig, poses, {**views, "left": views["left"].replace(points=hidden)}, groups_of())
    np.testing.assert_array_equal(at(picture, centre + np.array((0, 30))), CANVAS)
    thin = at(picture, rig.project(poses.points[0, 0, :2]).mean(axis=1)[0])
    assert np.abs(thin - pale).max() < 50


def test_residuals_join_keypoints_by_name(rig: CameraRig, poses: Poses) -> None:
    views = seen(poses, rig, (0, 60))
    other = Skeleton(("x", "c", "a"))
    views["left"] = Poses(views["left"].points[:, :, [1, 2, 0]], skeleton=other)
    picture = draw(rig, poses, views, groups_of())
    xy = rig.project(poses.points[0, 0])[0]
    np.testing.assert_allclose(at(picture, xy[0] + np.array((0, 30))), colour_of(2), atol=45)
    np.testing.assert_allclose(at(picture, xy[2] + np.array((0, 30))), colour_of(2), atol=45)
    np.testing.assert_array_equal(at(picture, xy[1] + np.array((0, 30))), CANVAS)


def test_images_are_scaled_with_their_points(rig: CameraRig, poses: Poses) -> None:
    """A white cross in the image is covered by the detection that stands on it, whatever the size of the picture."""
    views = {"left": Poses(np.array([[[[99.5, 199.5]]]] * 2), ids=np.zeros((2, 1)))}
    lone = Poses(np.full((2, 1, 1, 3), np.nan), unit="m")
    image = np.zeros((480, 640, 3), dtype=np.uint8)
    image[196:204, 96:104] = 255
    for width in (640 + 2 * GAP, 320 + 2 * GAP, 900):
        picture = draw_overlay(views, lone, None, rig, {"left": image}, 0, OverlayOptions(width=width))
        scale = min(width - 2 * GAP, 640) / 640
        cell = picture[GAP : GAP + round(480 * scale), GAP : GAP + round(640 * scale)]
        x, y = np.round((np.array([99.5, 199.5]) + 0.5) * scale - 0.5).astype(int)
        np.testing.assert_array_equal(cell[y, x], colour_of(0))
        bright = np.argwhere(cell[60:].min(axis=2) > 120) + np.array((60, 0))
        if scale == 1:
            np.testing.assert_allclose(bright.mean(axis=0), (199.5, 99.5), atol=0.5)
    np.testing.assert_array_equal(cell[-5, -5], (0, 0, 0))


def test_every_image_fits_its_cell(rig: CameraRig) -> None:
    """A portrait camera beside a landscape one keeps its shape, in the middle of its cell."""
    upright = Camera("right", Intrinsics((300, 600), K, np.zeros(5)), np.eye(3), np.zeros(3))
    lone = Poses(np.full((1, 1, 1, 3), np.nan), unit="m")
    images = {"left": np.full((480, 640, 3), 200, np.uint8), "right": np.full((600, 300, 3), 100, np.uint8)}
    picture = draw_overlay(
        {}, lone, None, CameraRig((rig["left"], upright), "m"), images, 0, OverlayOptions(width=4000)
    )
    cell = picture[GAP + 40 : GAP + 480, 2 * GAP + 640 : 2 * GAP + 1280]
    across = np.flatnonzero((cell[200] == 100).all(axis=1))
    assert (across[0], across[-1]) == (200, 439)  # 300 x 600 in 640 x 480 is 240 x 480
    assert (cell[:, across] == 100).all()
    np.testing.assert_array_equal(cell[200, 100], BACKGROUND)


def test_the_grid_fills_a_wide_picture() -> None:
    assert overlay._grid([(640, 480)] * 4, 1920).columns == 2
    assert overlay._grid([(1088, 1920)] * 4, 1920).columns == 4
    assert overlay._grid([(640, 480)] * 6, 1920).columns == 3
    assert overlay._grid([(640, 480)], 1920) == overlay._Grid(1, (640, 480), 1)
    grid = overlay._grid([(1280, 1024)] * 3, 1920)
    assert (grid.columns, grid.rows) == (2, 2) or grid.columns == 3
    assert grid.columns * (grid.cell[0] + GAP) + GAP <= 1920
    assert grid.corner(1) == (2 * GAP + grid.cell[0], GAP)
    assert grid.corner(grid.columns) == (GAP, 2 * GAP + grid.cell[1])


def test_only_cameras_with_something_to_show(rig: CameraRig, poses: Poses) -> None:
    views = seen(poses, rig)
    del views["right"]
    assert draw(rig, poses, views, groups_of()).shape[1] == 640 + 2 * GAP
    assert draw(rig, poses, views, groups_of(), right=np.zeros((480, 640, 3), np.uint8)).shape[1] == 2 * 640 + 3 * GAP
    picture = draw(rig, poses, {}, None)
    assert picture.shape[1] == 2 * 640 + 3 * GAP
    np.testing.assert_array_equal(picture[0, 0], BACKGROUND)


def test_the_legend_shows_the_colours(rig: CameraRig, poses: Poses) -> None:
    picture = draw(rig, poses, seen(poses, rig), groups_of())
    bar = picture[GAP + 480 + GAP :]
    for colour in (colour_of(0), colour_of(2), UNMATCHED):
        assert (bar == colour).all(axis=2).sum() > 40
    assert not (bar == colour_of(1)).all(axis=2).any()


def test_points_far_outside_are_left_out(rig: CameraRig, poses: Poses) -> None:
    points = poses.points.copy()
    points[0, 0, 0] = (1e9, 0, 1.0)
    points[0, 0, 1] = (0, 0, -1.0)
    draw(rig, poses.replace(points=points), seen(poses, rig), groups_of())


def test_overlay_errors(rig: CameraRig, poses: Poses, tmp_path: Path) -> None:
    views = seen(poses, rig)
    with pytest.raises(InputError, match="view 'left' and the 3D poses do not have the same frames"):
        draw(rig, poses.window(0, 1), views, None)
    with pytest.raises(InputError, match="groups of 2 frames, got 5"):
        draw(rig, poses, views, groups_of(5))
    with pytest.raises(InputError, match="camera 'lefd' is not in the rig; did you mean 'left'"):
        draw(rig, poses, {"lefd": views["left"]}, None)
    with pytest.raises(InputError, match=r"camera 'left': expected a picture of 640 x 480 px.*got 100 x 50"):
        draw(rig, poses, views, None, left=np.zeros((50, 100, 3), np.uint8))
    with pytest.raises(InputError, match="no frame"):
        draw(rig, poses.window(0, 0), {}, None)
    with pytest.raises(InputError, match=r"end in \.png or \.mp4"):
        render_overlay(views, poses, None, rig, None, tmp_path / "overlay.gif")
    timeline = Timeline(rig.names, np.zeros((2, 2)), np.zeros(2), step=np.array([5, 6]))
    with pytest.raises(InputError, match="the timeline's steps"):
        render_overlay(views, poses, None, rig, None, tmp_path / "overlay.png", timeline=timeline)


def test_render_takes_each_cameras_own_frame(rig: CameraRig, poses: Poses, tmp_path: Path) -> None:
    """The left camera's video is one frame late, the right one dropped the second moment."""
    levels = (40, 120, 200)
    for n, level in enumerate(levels):
        save_picture(tmp_path / "left" / f"{n}.png", np.full((480, 640, 3), level, dtype=np.uint8))
    with MovieWriter(tmp_path / "right.mp4", 10.0, (640, 480)) as movie:
        for level in levels:
            movie.write(np.full((480, 640, 3), level, dtype=np.uint8))
    videos = {"left": tmp_path / "left", "right": tmp_path / "right.mp4"}
    timeline = Timeline(("right", "left"), np.array([[0, 1], [-1, 2]]), np.array([0.0, 0.1]))
    corner = np.array([600.0, 440.0])
    done: list[tuple[str, int, int]] = []

    def progress(what: str, now: int, total: int) -> None:
        done.append((what, now, total))

    for frame, left, right in ((0, 120, 40), (1, 200, CANVAS[0])):
        path = tmp_path / f"{frame}.png"
        options = OverlayOptions(width=4000, frame=frame)
        render_overlay(seen(poses, rig), poses, groups_of(), rig, videos, path, options, timeline=timeline)
        picture = cv2.imread(str(path))[..., ::-1]
        assert at(picture, corner, 0) == pytest.approx(left)
        assert at(picture, corner, 1) == pytest.approx(right, abs=3)

    path = tmp_path / "overlay.mp4"
    options = OverlayOptions(width=700)
    args = (seen(poses, rig), poses, groups_of(), rig, videos, path, options)
    render_overlay(*args, timeline=timeline, progress=progress)
    assert done == [("overlay", 1, 2), ("overlay", 2, 2)]
    with av.open(str(path)) as container:
        assert float(container.streams.video[0].average_rate) == 10.0
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [round(float(p[220:250, 200:300].mean()), -1) for p in pictures] == [120, 200]
    first = path.read_bytes()
    render_overlay(*args, timeline=timeline)
    assert path.read_bytes() == first
    render_overlay(*args[:-1], replace(options, every=2, fps=7.0), timeline=timeline)
    with av.open(str(path)) as container:
        assert float(container.streams.video[0].average_rate) == 7.0
        assert len(list(container.decode(video=0))) == 1
