"""2D poses as points of the rig: everyone in one place throughout, bones as pairs."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.errors import InputError
from calibration.normal_equations import stepped, with_cameras
from calibration.synthetic import ring_rig
from calibration.transforms import similarity
from pose3d.poses import Groups, Poses
from pose3d.rig_points import MIN_SCORE, adjust_rig_to_poses, rig_points
from pose3d.synthetic import QUADRUPED, simulate_animals


def scene(rng: np.random.Generator, frames: int = 60, noise: float = 0.0):  # type: ignore[no-untyped-def]
    """rig, true points, views with slots in random order, and the groups in another one."""
    rig = ring_rig(3, rng, radius=700, height=500, size=(1280, 1024), focal_px=1100)
    truth = simulate_animals(rng, 2, frames)
    views, slots = {}, np.empty((frames, 2, 3), dtype=np.int32)
    ids = rng.permuted(np.tile([4, 9], (frames, 1)), axis=1)
    rows = np.arange(frames)[:, None]
    for v, camera in enumerate(rig):
        order = rng.permuted(np.tile([0, 1], (frames, 1)), axis=1)  # animal in each slot
        xy = camera.project(truth.points) + noise * rng.normal(size=(*truth.points.shape[:3], 2))
        views[camera.name] = Poses(xy[rows, order], frame=10 + np.arange(frames), skeleton=QUADRUPED)
        slots[..., v] = np.argsort(order, axis=1)[rows, (ids == 9).astype(int)]
    return rig, truth, views, Groups(rig.names, slots, ids)


def test_everyone_keeps_a_place(rng: np.random.Generator) -> None:
    rig, truth, views, groups = scene(rng)
    told = rig_points(views, groups)
    np.testing.assert_allclose(told.xy, rig.project(truth.points.reshape(60, 24, 3)), atol=1e-9)
    np.testing.assert_array_equal(told.kind, np.tile(np.arange(12), 2))
    np.testing.assert_array_equal(told.frame, np.arange(10, 70))
    n = len(QUADRUPED.bones)
    assert len(told.pairs) == 2 * n
    assert told.pairs[n] == (QUADRUPED.bones[0][0] + 12, QUADRUPED.bones[0][1] + 12)
    other = rig_points(views, groups, np.array([4, 7, 9]))
    assert np.isnan(other.xy[:, :, 12:24]).all()
    np.testing.assert_array_equal(other.xy[:, :, 24:], told.xy[:, :, 12:])


def test_scores_and_covariances_weigh(rng: np.random.Generator) -> None:
    _, _, views, groups = scene(rng)
    first = views["cam0"]
    score = np.where(first.score > 0, 0.5, 0)
    score[3] = 0.9 * MIN_SCORE
    told = rig_points(views | {"cam0": first.replace(score=score)}, groups)
    assert np.isnan(told.xy[0, 3]).all()
    np.testing.assert_allclose(told.covariance[0, 4], np.broadcast_to(4 * np.eye(2), (24, 2, 2)))
    np.testing.assert_allclose(told.covariance[1, 4], np.broadcast_to(np.eye(2), (24, 2, 2)))
    spread = {
        name: poses.replace(extras={"covariance": np.broadcast_to(np.diag([2.0, 3]), (*poses.points.shape, 2))})
        for name, poses in views.items()
    }
    np.testing.assert_allclose(rig_points(spread, groups).covariance[2, 5, 0], np.diag([2.0, 3]))


def test_bones_help_to_adjust_the_rig(rng: np.random.Generator) -> None:
    rig, _, views, groups = scene(rng, 150, 1.0)
    step = np.zeros((3, 18))
    step[:, :3], step[:, 3:6] = rng.normal(0, 0.005, (3, 3)), rng.normal(0, 5, (3, 3))
    start = with_cameras(rig, stepped(rig.packed(), step))
    found = adjust_rig_to_poses(start, views, groups)

    def off(other) -> float:  # type: ignore[no-untyped-def]
        """mm rms of the centres after the best similarity."""
        moved = other.moved(*similarity(other.centers, rig.centers))
        return float(np.sqrt(np.mean(np.sum((moved.centers - rig.centers) ** 2, axis=1))))

    turns = [np.linalg.norm(a.R @ start[a.name].R.T - b.R @ start[a.name].R.T) for a, b in zip(found, rig, strict=True)]
    assert max(turns) < 0.05
    assert off(found) < 0.5 * off(start)


def test_mistakes_are_named(rng: np.random.Generator) -> None:
    _, _, views, groups = scene(rng)
    with pytest.raises(InputError, match="2D poses of camera 'cam2'"):
        rig_points({name: views[name] for name in ("cam0", "cam1")}, groups)
    with pytest.raises(InputError, match="camera 'cam1': expected the frames"):
        rig_points(views | {"cam1": views["cam1"].window(0, 30)}, groups)
