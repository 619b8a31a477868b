"""Groups of 2D individuals become 3D poses: gathered rightly, with everything carried along."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import pose3d.triangulation as module
from calibration.camera import Camera, Intrinsics
from calibration.errors import InputError
from calibration.geometry import TriangulationOptions, estimate_noise, triangulate_points
from calibration.rig import CameraRig
from pose3d.poses import ABSENT, MEASURED, Groups, Poses
from pose3d.skeleton import Skeleton
from pose3d.triangulation import triangulate

Array = NDArray[np.float64]
FRAMES, ANIMALS, KEYPOINTS = 6, 3, 4


def rig_of() -> CameraRig:
    K = np.array([[800.0, 0, 320], [0, 800, 240], [0, 0, 1]])
    cameras = []
    for i, name in enumerate("abcd"):
        angle = np.pi / 2 * i + 0.2
        z = -np.array([np.cos(angle), np.sin(angle), 0.7])
        z /= np.linalg.norm(z)
        x = np.cross(z, [0, 0, 1.0])
        R = np.stack((x / np.linalg.norm(x), np.cross(z, x / np.linalg.norm(x)), z))
        intrinsics = Intrinsics((640, 480), K, [-0.1, 0.02, 0.001, 0.0])
        cameras.append(Camera(name, intrinsics, R, np.array([0, 0, 50.0 + 3 * i])))
    return CameraRig(tuple(cameras), "cm")


def scene(rng: np.random.Generator, noise: float = 0.0) -> tuple[Array, dict[str, Poses], Groups, CameraRig]:
    """Points (frames, animals, keypoints, 3); views with shuffled slots and one slot too many; the right groups."""
    rig = rig_of()
    points = rng.uniform(-8, 8, (FRAMES, ANIMALS, KEYPOINTS, 3))
    skeleton = Skeleton(tuple(f"k{k}" for k in range(KEYPOINTS)), edges=((0, 1),))
    views, slots = {}, np.empty((FRAMES, ANIMALS, 4), dtype=int)
    for v, camera in enumerate(rig):
        xy = camera.project(points) + noise * rng.normal(size=(*points.shape[:3], 2))
        xy = np.concatenate((xy, rng.uniform(0, 400, (FRAMES, 1, KEYPOINTS, 2))), axis=1)  # and a ghost
        score = rng.uniform(0.4, 1, xy.shape[:3])
        order = rng.permuted(np.tile(np.arange(ANIMALS + 1), (FRAMES, 1)), axis=1)
        rows = np.arange(FRAMES)[:, None]
        slots[..., v] = np.argsort(order, axis=1)[:, :ANIMALS]
        frame = 10 + 2 * np.arange(FRAMES)
        views[camera.name] = Poses(
            xy[rows, order], score[rows, order], frame=frame, skeleton=skeleton, fps=50, names={7: "Anna"}
        )
    ids = np.tile([7, 8, -1], (FRAMES, 1))
    return points, views, Groups(rig.names, slots, ids), rig


def test_every_group_gets_its_own_points(rng: np.random.Generator) -> None:
    points, views, groups, rig = scene(rng)
    poses = triangulate(views, groups, rig)
    np.testing.assert_allclose(poses.points, points, atol=1e-8)
    np.testing.assert_array_equal(poses.ids, groups.ids)
    np.testing.assert_array_equal(poses.frame, views["a"].frame)
    np.testing.assert_array_equal(poses.time, views["a"].time)
    assert poses.unit == "cm"
    assert poses.fps == 50
    assert poses.names == {7: "Anna"}
    assert poses.skeleton == views["a"].skeleton
    assert (poses.extras["n_views"] == 4).all()
    assert (poses.extras["status"] == MEASURED).all()
    assert poses.extras["reprojection_error"].max() < 1e-8
    scores = [views[n].score[np.arange(FRAMES)[:, None], groups.slots[..., v]] for v, n in enumerate("abcd")]
    np.testing.assert_allclose(poses.score, np.mean(scores, axis=0))


def test_it_is_triangulate_points_of_all_points_at_once(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, views, groups, rig = scene(rng, noise=2.0)
    xy = np.stack([views[n].points[np.arange(FRAMES)[:, None], groups.slots[..., v]] for v, n in enumerate("abcd")])
    score = np.stack([views[n].score[np.arange(FRAMES)[:, None], groups.slots[..., v]] for v, n in enumerate("abcd")])
    flat_xy, flat_score = xy.reshape(4, -1, 2), score.reshape(4, -1)
    flat_xy[1, 5] += 90
    row, column, keypoint = np.unravel_index(5, (FRAMES, ANIMALS, KEYPOINTS))
    views["b"].points[row, groups.slots[row, column, 1], keypoint] += 90
    expected = triangulate_points(flat_xy, rig, score=flat_score)
    assert not expected.seen[1, 5]
    poses = triangulate(views, groups, rig)
    np.testing.assert_array_equal(poses.points, expected.points.reshape(poses.points.shape))
    np.testing.assert_array_equal(poses.extras["covariance"], expected.covariance.reshape(*poses.points.shape, 3))
    np.testing.assert_array_equal(poses.extras["reprojection_error"].ravel(), expected.reprojection_error)
    np.testing.assert_array_equal(poses.extras["n_views"].ravel(), expected.seen.sum(axis=0))
    assert poses.score.ravel()[5] == pytest.approx(flat_score[expected.seen[:, 5], 5].mean())
    monkeypatch.setattr(module, "_CHUNK_POINTS", 2 * ANIMALS * KEYPOINTS)  # frames worked off two by two
    again = triangulate(views, groups, rig)
    np.testing.assert_array_equal(again.points, poses.points)
    for name, extra in poses.extras.items():
        np.testing.assert_array_equal(again.extras[name], extra)
    monkeypatch.setattr(module, "_NOISE_POINTS", 3 * ANIMALS * KEYPOINTS)  # the noise from every second frame
    every_second = estimate_noise(xy[:, ::2].reshape(4, -1, 2), rig, score=score[:, ::2].reshape(4, -1))
    fewer, given = triangulate(views, groups, rig), TriangulationOptions(noise_px=every_second)
    np.testing.assert_array_equal(
        fewer.extras["covariance"], triangulate(views, groups, rig, given).extras["covariance"]
    )
    parts = [
        triangulate({n: p.window(i, i + 3) for n, p in views.items()}, groups.window(i, i + 3), rig, given)
        for i in (0, 3)
    ]
    np.testing.assert_array_equal(np.concatenate([p.points for p in parts]), fewer.points)


def test_what_fewer_than_two_views_see_is_absent(rng: np.random.Generator) -> None:
    points, views, groups, rig = scene(rng)
    slots = groups.slots.copy()
    slots[0, 0, 1:] = -1
    slots[1, 2] = -1
    slots[2, 1, :2] = -1
    views["c"].points[3, slots[3, 0, 2], 1] = np.nan
    views["c"].score[3, slots[3, 0, 2], 1] = 0
    poses = triangulate(views, Groups(rig.names, slots, groups.ids), rig)
    n_views = np.full((FRAMES, ANIMALS, KEYPOINTS), 4)
    n_views[0, 0], n_views[1, 2], n_views[2, 1], n_views[3, 0, 1] = 0, 0, 2, 3
    np.testing.assert_array_equal(poses.extras["n_views"], n_views)
    np.testing.assert_array_equal(poses.extras["status"], np.where(n_views == 0, ABSENT, MEASURED))
    np.testing.assert_array_equal(poses.missing, n_views == 0)
    assert poses.ids[0, 0] == -1
    assert (poses.score[n_views == 0] == 0).all()
    np.testing.assert_allclose(poses.points[n_views > 0], points[n_views > 0], atol=1e-8)
    three = triangulate(views, Groups(rig.names, slots), rig, TriangulationOptions(min_views=3))
    np.testing.assert_array_equal(three.missing, n_views < 3)


def test_the_covariance_of_2d_points_is_used_where_all_views_have_it(rng: np.random.Generator) -> None:
    _, views, groups, rig = scene(rng, noise=1.0)
    spread = {name: np.zeros((*poses.points.shape, 2)) for name, poses in views.items()}
    for name, covariance in spread.items():
        covariance[..., 0, 0], covariance[..., 1, 1] = (1.0, 4.0) if name == "a" else (9.0, 1.0)
    given = {name: poses.replace(extras={"covariance": spread[name]}) for name, poses in views.items()}
    poses = triangulate(given, groups, rig)
    xy = np.stack([views[n].points[np.arange(FRAMES)[:, None], groups.slots[..., v]] for v, n in enumerate("abcd")])
    covariance = np.broadcast_to(np.diag([9.0, 1.0]), (4, *xy.shape[1:], 2)).copy()
    covariance[0] = np.diag([1.0, 4.0])
    expected = triangulate_points(xy.reshape(4, -1, 2), rig, covariance=covariance.reshape(4, -1, 2, 2))
    np.testing.assert_array_equal(poses.points.reshape(-1, 3), expected.points)
    np.testing.assert_array_equal(poses.extras["covariance"].reshape(-1, 3, 3), expected.covariance)
    without = triangulate(given | {"d": views["d"]}, groups, rig)
    np.testing.assert_array_equal(without.points, triangulate(views, groups, rig).points)


def test_cameras_are_matched_by_name(rng: np.random.Generator) -> None:
    points, views, groups, rig = scene(rng)
    shuffled = rig.subset(["c", "a", "d", "b"])
    poses = triangulate(dict(reversed(views.items())), groups, shuffled)
    np.testing.assert_allclose(poses.points, points, atol=1e-8)
    two = Groups(("d", "b"), groups.slots[..., [3, 1]], groups.ids)
    np.testing.assert_allclose(triangulate(views, two, rig).points, points, atol=1e-7)


def test_nothing_in_nothing_out(rng: np.random.Generator) -> None:
    _, views, groups, rig = scene(rng)
    none = triangulate(views, Groups(rig.names, np.zeros((FRAMES, 0, 4), dtype=int)), rig)
    assert none.points.shape == (FRAMES, 0, KEYPOINTS, 3)
    empty = views["a"].take_slots(np.zeros((FRAMES, 0), dtype=int))
    slots = groups.slots.copy()
    slots[..., 0] = -1
    poses = triangulate(views | {"a": empty}, Groups(rig.names, slots), rig)
    assert (poses.extras["n_views"] == 3).all()


def test_mistakes_are_named(rng: np.random.Generator) -> None:
    _, views, groups, rig = scene(rng)
    with pytest.raises(InputError, match="camera 'd' of the groups has no 2D poses"):
        triangulate({n: views[n] for n in "abc"}, groups, rig)
    with pytest.raises(InputError, match="camera 'd' is not in the rig"):
        triangulate(views, groups, rig.subset("abc"))
    with pytest.raises(InputError, match="'a' and 'b' do not have the same frames; align them"):
        triangulate(views | {"b": views["b"].replace(frame=views["b"].frame + 1)}, groups, rig)
    with pytest.raises(InputError, match="expected 6 frames as in the views, got 5"):
        triangulate(views, groups.window(0, 5), rig)
    other = Skeleton(("k0", "k1", "k2", "nose"))
    with pytest.raises(InputError, match="'a' and 'c' do not have the same keypoints"):
        triangulate(views | {"c": views["c"].replace(skeleton=other)}, groups, rig)
    solid = {n: p.replace(points=np.zeros((*p.points.shape[:3], 3)), unit="mm") for n, p in views.items()}
    with pytest.raises(InputError, match="view 'a': expected 2D poses"):
        triangulate(solid, groups, rig)
