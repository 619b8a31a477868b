from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from calibration.camera import Camera, Intrinsics
from calibration.errors import InputError
from calibration.rig import CameraRig
from pose3d.poses import Poses
from pose3d.render import offscreen, scene
from pose3d.render.colours import colour_of
from pose3d.render.content import FRUSTUM, Content, SceneOptions, gather
from pose3d.render.scene import render_scene, show_scene
from pose3d.render.stage import FLOOR, LABEL, Stage
from pose3d.render.viewpoint import frustum, in_picture
from pose3d.skeleton import Skeleton

SIZE = (480, 360)
SKELETON = Skeleton(("tail", "back", "nose"), edges=((0, 1), (1, 2)))


@pytest.fixture
def graphics() -> None:
    try:
        offscreen.prepare()
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture
def rig() -> CameraRig:
    K = np.array([[500.0, 0, 319.5], [0, 500.0, 239.5], [0, 0, 1]])
    cameras = []
    for name, bearing in (("a", 0.3), ("b", 1.9), ("c", 3.4), ("d", 5.0)):
        center = np.array([900 * np.cos(bearing), 900 * np.sin(bearing), 500])
        forward = -center / np.linalg.norm(center)
        right = np.cross(forward, (0, 0, 1)) / np.linalg.norm(np.cross(forward, (0, 0, 1)))
        R = np.stack([right, np.cross(forward, right), forward])
        cameras.append(Camera(name, Intrinsics((640, 480), K, np.zeros(5)), R, -R @ center))
    return CameraRig(tuple(cameras), "mm")


@pytest.fixture
def poses() -> Poses:
    """Two animals 200 long that walk apart along x for 6 frames; ids 4 and 1, slots change hands in the third."""
    frames = np.arange(6.0)
    shape = np.array([(-100, 0, 20.0), (0, 0, 60), (100, 0, 30)])
    step = np.array([40.0, 0, 0])
    one = shape - np.array((0, 150, 0)) + frames[:, None, None] * step
    two = shape + np.array((0, 150, 0)) - frames[:, None, None] * step
    points, ids = np.stack([one, two], axis=1), np.tile([4, 1], (6, 1))
    points[2], ids[2] = points[2, ::-1], ids[2, ::-1]
    points[5, 1] = np.nan
    return Poses(points, ids=ids, skeleton=SKELETON, names={4: "Dora"}, unit="mm", fps=20.0, frame=10 + np.arange(6))


def options(**more: object) -> SceneOptions:
    return SceneOptions(size=SIZE, **more)  # type: ignore[arg-type]


def places(stage: Stage, points: np.ndarray) -> np.ndarray:
    """Pixels of world points in the picture, from the graphics' own camera."""
    camera = stage.plotter.camera
    position, focus = np.array(camera.position), np.array(camera.focal_point)
    return in_picture(points, position, focus, stage.content.floor.up, SIZE[0] / SIZE[1]) * SIZE - 0.5


def near(picture: np.ndarray, xy: np.ndarray, colour: tuple[int, ...], within: int = 2) -> float:
    """Cosine between a colour and the most like it, shading apart, among the pixels about a place."""
    x, y = np.round(xy).astype(int)
    patch = picture[y - within : y + within + 1, x - within : x + within + 1].reshape(-1, 3).astype(float) + 1e-9
    like = patch @ np.array(colour, float) / np.linalg.norm(patch, axis=1) / np.linalg.norm(colour)
    return float(like.max())


# --- what is in a scene, without graphics ----------------------------------------------------------------------------


def test_content_is_by_identity(poses: Poses, rig: CameraRig) -> None:
    content = gather(poses, rig, options())
    assert content.names == {1: "animal 1", 4: "Dora"}
    np.testing.assert_array_equal(content.colours, [colour_of(1), colour_of(4)])
    np.testing.assert_allclose(np.diff(content.poses.points[:, 1, 0, 0]), 40)
    np.testing.assert_allclose(content.trail[0, 1], poses.points[0, 0].mean(axis=0))
    assert np.isnan(content.trail[5, 0]).all()
    assert content.size == pytest.approx(np.linalg.norm((200, 0, 40)))
    reach = np.median(np.linalg.norm(rig.centers - content.floor.origin, axis=1))
    for camera, points in zip(rig, content.frusta, strict=True):
        np.testing.assert_allclose(points, frustum(camera, FRUSTUM * reach))
    np.testing.assert_array_equal(content.floor.up, (0, 0, 1))


def test_content_of_a_chosen_keypoint_without_cameras(poses: Poses, rig: CameraRig) -> None:
    content = gather(poses, rig, options(trail_keypoint="nose", cameras=False, up=(0, 2, 0)))
    np.testing.assert_array_equal(content.trail[0], poses.points[0, ::-1, 2])
    assert content.frusta.shape == (0, 5, 3)
    np.testing.assert_array_equal(content.floor.up, (0, 1, 0))
    with pytest.raises(InputError, match="did you mean 'nose'"):
        gather(poses, rig, options(trail_keypoint="noose"))


def test_a_trail_of_the_mean_leaves_missing_keypoints_out(poses: Poses, rig: CameraRig) -> None:
    poses.points[0, 0, 1] = np.nan
    np.testing.assert_allclose(gather(poses, rig, options()).trail[0, 1], poses.points[0, 0, [0, 2]].mean(axis=0))


def test_content_without_ids_is_by_slot(poses: Poses, rig: CameraRig) -> None:
    content = gather(poses.replace(ids=None), rig, options())
    assert content.names == {0: "", 1: ""}
    np.testing.assert_array_equal(content.poses.points, poses.points)


def test_uncertainty_is_the_total_where_known(poses: Poses, rig: CameraRig) -> None:
    random, total = (np.full((6, 2, 3, 3, 3), value) for value in (1.0, 2.0))
    with_random = poses.replace(extras={"covariance": random})
    assert gather(with_random, rig, options()).covariance is None
    assert gather(with_random, rig, options(uncertainty=2.0)).covariance[0, 0, 0, 0, 0] == 1
    both = poses.replace(extras={"covariance": random, "covariance_total": total})
    assert gather(both, rig, options(uncertainty=2.0)).covariance[0, 0, 0, 0, 0] == 2
    assert gather(poses, rig, options(uncertainty=2.0)).covariance is None


def test_scene_errors(poses: Poses, rig: CameraRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"end in \.png or \.mp4"):
        render_scene(poses, rig, tmp_path / "scene.obj")
    with pytest.raises(InputError, match="expected 3D poses"):
        gather(Poses(np.ones((1, 1, 1, 2))), rig, options())
    with pytest.raises(InputError, match="no keypoint at all"):
        gather(poses.replace(points=np.full(poses.shape, np.nan)), rig, options())
    monkeypatch.setattr(offscreen, "has_screen", lambda: False)
    with pytest.raises(InputError, match="no screen here"):
        show_scene(poses, rig)


# --- with graphics ----------------------------------------------------------------------------------------------------


@pytest.fixture
def content(poses: Poses, rig: CameraRig) -> Content:
    return gather(poses, rig, options(trail=3))


@pytest.mark.usefixtures("graphics")
def test_animals_floor_and_cameras_are_where_they_project(content: Content, rig: CameraRig) -> None:
    with Stage(content, off_screen=True) as stage:
        still = stage.still
        whole = (0, 0, *SIZE)
        stage._aim(whole)
        stage.part = whole
        picture = stage.picture(1)
        assert picture.shape == (SIZE[1], SIZE[0], 3)
        for slot, identity in enumerate(content.names):
            for xy in places(stage, content.poses.points[1, slot]):
                assert near(picture, xy, colour_of(identity)) > 0.985
        corners = places(stage, content.floor.corners())
        x, y = np.round(corners.mean(axis=0) + 0.8 * (corners[0] - corners.mean(axis=0)) + (3, 2)).astype(int)
        assert np.abs(picture[y, x].astype(int) - FLOOR).max() < 40  # floor or one of its lines
        for points in content.frusta:
            for a, b in ((0, 1), (0, 2), (1, 2), (3, 4)):
                x, y = np.round(places(stage, points[[a, b]].mean(axis=0)[None])[0]).astype(int)
                assert still[y - 1 : y + 2, x - 1 : x + 2].min() < 200
        assert tuple(picture[2, 2]) == (255, 255, 255)


@pytest.mark.usefixtures("graphics")
def test_the_part_drawn_anew_is_as_if_all_were(poses: Poses, rig: CameraRig) -> None:
    aside = poses.replace(points=poses.points + np.array((250, 200, 0)))  # so that the part is not in the middle
    content = gather(aside, rig, options())
    with Stage(content, off_screen=True) as stage:
        left, top, right, bottom = stage.part
        assert (right - left) * (bottom - top) < 0.8 * SIZE[0] * SIZE[1]
        in_part = stage.picture(3)
        for slot, identity in enumerate(content.names):
            for xy in places(stage, content.poses.points[3, slot]):
                assert near(in_part, xy, colour_of(identity)) > 0.985
        stage.part = (0, 0, *SIZE)
        stage._aim(stage.part)
        whole = stage.picture(3)
        away = np.abs(in_part.astype(int) - whole).max(axis=2)
        assert (away > 20).mean() < 0.006  # letters move by less than a pixel
        outside = np.ones(away.shape, dtype=bool)
        outside[top:bottom, left:right] = False
        assert away[outside].max() == 0


@pytest.mark.usefixtures("graphics")
def test_what_moves_moves_and_what_is_gone_is_gone(content: Content) -> None:
    with Stage(content, off_screen=True) as stage:
        label = stage.labels[1]
        stage.show_row(1)
        highest = content.poses.points[1, 1, 1]
        np.testing.assert_allclose(label.GetPosition(), highest + np.array((0, 0, LABEL * content.size)), atol=1e-3)
        assert label.GetInput() == "Dora"
        vertices = np.array(stage.animals.points)
        stage.show_row(5)
        assert not stage.labels[0].GetVisibility()
        assert stage.labels[1].GetVisibility()
        moved = np.array(stage.animals.points) - vertices
        np.testing.assert_allclose(moved[3 * 162 : 6 * 162], np.tile([160.0, 0, 0], (3 * 162, 1)), atol=1e-3)
        under = content.floor.origin[2]
        assert (np.array(stage.animals.points)[: 3 * 162, 2] < under).all()
        shadows = np.array(stage.shadows.points)
        np.testing.assert_allclose(shadows[:, 2], under + 0.004 * content.size, atol=1e-3)
        trail = np.array(stage.trails.points).reshape(2, 3, 2, 3)
        np.testing.assert_allclose(trail[1, :, :, 0], [[200, 160], [160, 120], [120, 80]], atol=1e-3)


@pytest.mark.usefixtures("graphics")
def test_a_picture_is_the_same_every_time(poses: Poses, rig: CameraRig, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        render_scene(poses, rig, tmp_path / name, options(frame=12))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    image = cv2.imread(str(tmp_path / "a.png"))
    assert image.shape == (SIZE[1], SIZE[0], 3)
    render_scene(poses, rig, tmp_path / "c.png", options(frame=13))
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "c.png").read_bytes()


@pytest.mark.usefixtures("graphics")
def test_a_movie_shows_every_nth_frame_and_is_the_same_every_time(poses: Poses, rig: CameraRig, tmp_path: Path) -> None:
    done: list[tuple[str, int, int]] = []

    def progress(what: str, now: int, total: int) -> None:
        done.append((what, now, total))

    for name in ("a.mp4", "b.mp4"):
        render_scene(poses, rig, tmp_path / name, options(every=2, trail=0), progress=progress)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert done[:3] == [("scene", 1, 3), ("scene", 2, 3), ("scene", 3, 3)]
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert float(container.streams.video[0].average_rate) == 10.0
        assert len(list(container.decode(video=0))) == 3


@pytest.mark.usefixtures("graphics")
def test_ellipsoids_are_as_large_as_the_uncertainty(poses: Poses, rig: CameraRig) -> None:
    covariance = np.tile(np.diag([100.0, 400.0, 25.0]), (6, 2, 3, 1, 1))
    content = gather(poses.replace(extras={"covariance": covariance}), rig, options(uncertainty=2.0))
    with Stage(content, off_screen=True) as stage:
        stage.picture(0)
        surface = np.array(stage.ellipsoids.points)[:162] - content.poses.points[0, 0, 0]
        np.testing.assert_allclose(np.ptp(surface, axis=0) / 2, (20, 40, 10), rtol=0.02)


@pytest.mark.usefixtures("graphics")
def test_the_window_is_driven_by_a_slider(content: Content, monkeypatch: pytest.MonkeyPatch) -> None:
    """No screen here: the window is off screen, what it would do is called by hand."""
    stages: list[Stage] = []

    class Hidden(Stage):
        def __init__(self, content: Content, off_screen: bool) -> None:
            assert not off_screen
            super().__init__(content, off_screen=True)
            self._aim((0, 0, *SIZE))
            monkeypatch.setattr(self.plotter, "show", lambda: stages.append(self))
            monkeypatch.setattr(self.plotter, "add_slider_widget", lambda moved, rng, value, **_: moved(value))

    monkeypatch.setattr(scene, "Stage", Hidden)
    monkeypatch.setattr(offscreen, "has_screen", lambda: True)
    show_scene(content.poses, content.rig, options(frame=13))
    (stage,) = stages
    np.testing.assert_allclose(stage.labels[1].GetPosition()[0], content.poses.points[3, 1, 1, 0], atol=1e-3)
