"""The normal equations of a path against finite differences, and the bookkeeping of gaps, breaks and strays."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from calibration.camera import Camera, Intrinsics
from calibration.geometry import triangulate_points
from calibration.rig import CameraRig
from pose3d.poses import Groups, Poses
from pose3d.skeleton import Skeleton
from pose3d.trajectory import (
    GATE,
    STRAY,
    Terms,
    bridged,
    data_equations,
    filled,
    gather,
    path_equations,
    with_prior,
    without_strays,
)

NOBODY = np.zeros((0, 2), dtype=np.int64)


def ring(n: int) -> CameraRig:
    cameras = []
    for i in range(n):
        angle = 0.9 * i
        center = np.array([1000 * np.cos(angle), 1000 * np.sin(angle), 300.0])
        z = -center / np.linalg.norm(center)
        x = np.cross([0.0, 0, -1], z) / np.linalg.norm(np.cross([0.0, 0, -1], z))
        R = np.stack((x, np.cross(z, x), z))
        K = np.array([[1100.0, 0, 640], [0, 1100, 512], [0, 0, 1]])
        cameras.append(Camera(f"cam{i}", Intrinsics((1280, 1024), K, np.array([-0.1, 0.03, 0, 0, 0])), R, -R @ center))
    return CameraRig(tuple(cameras), "mm")


def one_animal(rig: CameraRig, points: np.ndarray, xy: np.ndarray, frame: np.ndarray | None = None):
    """points (T, K, 3), xy (V, T, K, 2) -> poses, views, groups of one individual with id 5 in the only slot."""
    frames, keypoints, _ = points.shape
    skeleton = Skeleton(tuple(f"k{k}" for k in range(keypoints)))
    ids = np.full((frames, 1), 5)
    views = {name: Poses(xy[v][:, None], skeleton=skeleton, frame=frame) for v, name in enumerate(rig.names)}
    groups = Groups(rig.names, np.zeros((frames, 1, len(rig)), int), ids)
    return Poses(points[:, None], ids=ids, skeleton=skeleton, unit=rig.unit, frame=frame), views, groups


def wiggle(rng: np.random.Generator, frames: int, keypoints: int) -> np.ndarray:
    return np.cumsum(rng.normal(0, 3, (frames, keypoints, 3)), axis=0) + rng.normal(0, 30, (keypoints, 3))


@pytest.fixture
def scene():
    """Seven frames with a step of two in between, three keypoints, of which one is away in two frames; pixels off by 1
    px."""
    rng = np.random.default_rng(1)
    rig = ring(3)
    points = wiggle(rng, 7, 3)
    xy = rig.project(points)
    seen = points.copy()
    seen[5:, 2] = np.nan
    frame = np.array([0, 1, 2, 4, 5, 6, 7])
    track = gather(*one_animal(rig, seen, xy, frame), rig, 5, 3)
    terms = Terms(
        np.array([0, 1, 2]),
        np.array([0.5, 0.8, 1.1]),
        np.array([[0, 1], [0, 2]]),
        np.array([20.0, 33.0]),
        np.array([0.7, 1.3]),
    )
    return rig, track, points, terms, rng


def dense(system) -> np.ndarray:
    n = len(system.gradient)
    H = np.zeros((n, n))
    for i in range(len(system.bands)):
        j = np.arange(n - i)
        H[j + i, j] = H[j, j + i] = system.bands[i, : n - i]
    return H


@pytest.mark.parametrize("burst", [np.inf, 3.0])
def test_gradient_is_that_of_the_cost(scene, burst):
    rig, track, points, terms, rng = scene
    track = replace(track, xy=track.xy + rng.normal(0, 1.0, track.xy.shape))
    terms = replace(terms, burst=burst)
    cost, system = path_equations(track, rig.packed(), points, terms)
    held = np.repeat(~track.alive.ravel(), 3)
    assert held.sum() == 6
    assert np.all(system.gradient[held] == 0)
    for i in np.flatnonzero(~held):
        step = np.zeros(points.size)
        step[i] = 1e-5
        up, down = (
            path_equations(track, rig.packed(), points + s * step.reshape(points.shape), terms)[0] for s in (1, -1)
        )
        assert system.gradient[i] == pytest.approx((up - down) / 2e-5, rel=1e-5, abs=1e-5 * abs(cost))


def test_matrix_is_the_hessian_where_data_and_bones_fit(scene):
    rig, track, points, terms, _ = scene
    points = points.copy()
    points[:, 1] = points[:, 0] + np.array([20.0, 0, 0])
    points[:, 2] = points[:, 0] + np.array([0.0, 33.0, 0])
    track = replace(track, xy=rig.project(points))
    H = dense(path_equations(track, rig.packed(), points, terms)[1])
    held = np.repeat(~track.alive.ravel(), 3)
    np.testing.assert_allclose(H[held][:, held], np.eye(6), rtol=1e-9, atol=0)
    assert not H[held][:, ~held].any()
    for i in np.flatnonzero(~held):
        step = np.zeros(points.size)
        step[i] = 1e-4
        up, down = (
            path_equations(track, rig.packed(), points + s * step.reshape(points.shape), terms)[1] for s in (1, -1)
        )
        np.testing.assert_allclose(
            H[:, i][~held], ((up.gradient - down.gradient) / 2e-4)[~held], atol=2e-4 * H.max() ** 0.5
        )


def test_cost_adds_pixels_second_differences_and_bones(scene):
    rig, track, points, terms, _ = scene
    data, H, g, squared = data_equations(track, rig.packed(), points, terms.keypoints)
    assert data == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(squared, 0, atol=1e-12)
    x = points
    second = [  # change of slope over the root of the mean step
        x[2] - 2 * x[1] + x[0],
        ((x[3] - x[2]) / 2 - (x[2] - x[1])) / np.sqrt(1.5),
        ((x[4] - x[3]) - (x[3] - x[2]) / 2) / np.sqrt(1.5),
        x[5] - 2 * x[4] + x[3],
        x[6] - 2 * x[5] + x[4],
    ]
    second = np.array(second) / terms.acceleration[:, None]
    second[3:, 2] = 0  # keypoint 2 is gone
    bones = [
        (np.linalg.norm(x[:, 1] - x[:, 0], axis=1) - 20) / 0.7,
        (np.linalg.norm(x[:, 2] - x[:, 0], axis=1) - 33)[:5] / 1.3,
    ]
    expected = 0.5 * (np.sum(second**2) + sum(np.sum(b**2) for b in bones))
    assert with_prior(track, points, H, g, terms)[0] == pytest.approx(expected)
    robust = 0.5 * np.sum(9 * np.log1p(np.sum(second**2, axis=-1) / 9)) + 0.5 * sum(np.sum(b**2) for b in bones)
    assert with_prior(track, points, H, g, replace(terms, burst=3.0))[0] == pytest.approx(robust)
    loose = replace(terms, spread=np.array([np.inf, 1.3]))
    assert with_prior(track, points, H, g, loose)[0] == pytest.approx(expected - 0.5 * np.sum(bones[0] ** 2))


def test_pixels_far_off_count_nothing(scene):
    rig, track, points, _, _ = scene
    shifted = track.xy.copy()
    shifted[1, 3, 0] += (GATE + 0.01, 0)
    assert GATE == 5.0  # sigmas; what `n_views` and `status` of refined poses mean depends on it
    with_outlier = data_equations(replace(track, xy=shifted), rig.packed(), points[:, [0]], np.array([0]))
    shifted[1, 3, 0] = np.nan
    without = data_equations(replace(track, xy=shifted), rig.packed(), points[:, [0]], np.array([0]))
    np.testing.assert_array_equal(with_outlier[1], without[1])
    assert with_outlier[0] == pytest.approx(GATE**2 / 6)
    assert np.isnan(without[3][1, 3, 0])
    np.testing.assert_allclose(
        track.with_noise(np.array([2.0, 1, 1])).information[:, :, 0], track.information[:, :, 0] / 4
    )


def test_a_break_has_no_second_difference():
    rng = np.random.default_rng(2)
    rig = ring(2)
    points = wiggle(rng, 6, 1)
    frame = np.array([0, 1, 2, 6, 7, 8])
    poses = one_animal(rig, points, rig.project(points), frame)
    spans = gather(*poses, rig, 5, 3).spacing
    np.testing.assert_allclose(spans[1], [1, -2, 1])
    np.testing.assert_allclose(spans[2], np.array([1, -1.25, 0.25]) / np.sqrt(2.5))
    np.testing.assert_array_equal(gather(*poses, rig, 5, 2).spacing[[0, 2, 3, 5]], np.zeros((4, 3)))
    np.testing.assert_array_equal(gather(*poses, rig, 5, 2).spacing[[1, 4]], [[1, -2, 1]] * 2)
    straight = frame[:, None] * np.array([1.0, 2.0, -3.0])
    about = np.stack((straight[:-2], straight[1:-1], straight[2:]), axis=1)
    np.testing.assert_allclose(np.einsum("tj,tjc->tc", spans[1:-1], about), 0, atol=1e-12)


def test_bridged_equals_its_definition():
    rng = np.random.default_rng(3)
    measured = rng.random((40, 6)) < 0.4
    measured[:, 5] = False
    frame = np.cumsum(rng.integers(1, 3, 40))
    for limit in (0, 1, 3, 6):
        expected = measured.copy()
        for k in range(6):
            at = np.flatnonzero(measured[:, k])
            for a, b in itertools.pairwise(at):
                if frame[b] - frame[a] - 1 <= limit:
                    expected[a:b, k] = True
        np.testing.assert_array_equal(bridged(measured, frame, limit), expected)


def test_gather_finds_an_identity_in_slots_that_change():
    rng = np.random.default_rng(4)
    rig = ring(2)
    skeleton = Skeleton(("a", "b"))
    truth = rng.normal(0, 50, (4, 2, 2, 3))
    xy = rig.project(truth)
    ids = np.array([[3, 8], [8, 3], [3, 8], [-1, 8]])
    slots = np.array([[[0, 1], [1, 0]], [[0, 1], [1, 0]], [[-1, 0], [1, 1]], [[0, 0], [1, 1]]])
    covariance = np.broadcast_to(np.array([[4.0, 1.0], [1.0, 2.0]]), (4, 2, 2, 2, 2))
    score = np.full((4, 2, 2), 0.5)
    score[0, 0, 1] = 0.0
    views = {
        "cam1": Poses(xy[1], skeleton=skeleton, extras={"covariance": covariance}),
        "cam0": Poses(xy[0], score, skeleton=skeleton),
    }
    points = rng.normal(0, 50, (4, 2, 2, 3))
    track = gather(Poses(points, ids=ids, skeleton=skeleton), views, Groups(("cam0", "cam1"), slots, ids), rig, 3, 1)
    np.testing.assert_array_equal(track.points, [points[0, 0], points[1, 1], points[2, 0], np.full((2, 3), np.nan)])
    np.testing.assert_array_equal(track.xy[0, 0], [xy[0, 0, 0, 0], [np.nan, np.nan]])  # a score of 0 is not seen
    np.testing.assert_array_equal(track.xy[:, 1], [xy[0, 1, 1], xy[1, 1, 0]])
    np.testing.assert_array_equal(track.xy[:, 2], [np.full((2, 2), np.nan), xy[1, 2, 0]])
    assert np.isnan(track.xy[:, 3]).all()
    np.testing.assert_allclose(track.information[0, 1, 0], [0.25, 0, 0.25])
    np.testing.assert_allclose(track.information[1, 1, 0], np.array([2, -1, 4]) / 7)
    np.testing.assert_array_equal(track.alive, [[True, True]] * 3 + [[False, False]])


def test_gaps_start_on_straight_lines(scene):
    _, track, _, _, _ = scene
    points = track.points.copy()
    points[2:4, 1] = np.nan
    out = filled(replace(track, points=points))
    np.testing.assert_array_equal(out[:2, 1], points[:2, 1])
    np.testing.assert_allclose(out[2, 1], points[1, 1] + (points[4, 1] - points[1, 1]) * 1 / 4)
    np.testing.assert_allclose(out[3, 1], points[1, 1] + (points[4, 1] - points[1, 1]) * 3 / 4)
    assert not filled(replace(track, points=points * np.nan)).any()


def test_strays_are_points_of_few_views_far_from_their_time():
    rng = np.random.default_rng(5)
    rig = ring(3)
    points = rng.normal(0, 1.0, (30, 1, 3))
    xy = rig.project(points)
    track = gather(*one_animal(rig, points, xy), rig, 5, 4)
    usual = np.median(
        [np.linalg.norm(points[t, 0] - np.median(points[max(t - 3, 0) : t + 4, 0], axis=0)) for t in range(3, 27)]
    )

    def strays(offset: float, views: int) -> np.ndarray:
        far = points.copy()
        far[12, 0, 0] += offset
        seen = rig.project(far)
        seen[views:, 12] = np.nan
        moved = gather(*one_animal(rig, far, seen), rig, 5, 4)
        return np.flatnonzero(np.isnan(without_strays(moved, rig.packed(), 4).points[:, 0, 0]))

    assert strays(2 * STRAY * usual, 2).tolist() == [12]
    assert strays(0.5 * STRAY * usual, 2).tolist() == []
    assert strays(2 * STRAY * usual, 3).tolist() == []  # three views agree: it did jump
    assert without_strays(track, rig.packed(), 4).alive.all()
    far = points.copy()
    far[12] += 50.0
    seen = rig.project(far)
    seen[2:, 12] = np.nan
    lost = without_strays(gather(*one_animal(rig, far, seen), rig, 5, 0), rig.packed(), 0)
    assert not lost.alive[12, 0]


@pytest.mark.parametrize("noise_px", [0.0, 0.05])
@pytest.mark.parametrize("bend", [0.0, 0.3])
def test_a_moving_animal_keeps_the_ends_of_its_track(noise_px: float, bend: float):
    """Seen by two cameras: in a window that ends with the track, the median lies behind an animal that moves on."""
    rng = np.random.default_rng(6)
    rig = ring(2)
    at = np.arange(60.0)[:, None]
    points = np.concatenate((4.0 * at - 120, 90 * np.sin(bend * at), -1.0 * at), axis=1)[:, None]
    frame = np.arange(60)
    frame[40:] += 20  # a pause, which is an end of its own
    xy = rig.project(points)
    xy += rng.normal(0, noise_px, xy.shape)
    seen = triangulate_points(xy.reshape(2, -1, 2), rig).points.reshape(points.shape)

    def strays(points: np.ndarray, xy: np.ndarray) -> list[int]:
        track = gather(*one_animal(rig, points, xy, frame), rig, 5, 4)
        return np.flatnonzero(np.isnan(without_strays(track, rig.packed(), 4).points[:, 0, 0])).tolist()

    assert strays(seen, xy) == []
    for stray in (0, 25, 58, 59):
        far = seen.copy()
        far[stray, 0] += 150.0
        assert strays(far, rig.project(far)) == [stray]
