"""What is learnt of noise, acceleration and bones, against what was put in."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.camera import Camera, Intrinsics
from calibration.errors import InputError
from calibration.geometry import triangulate_points
from calibration.rig import CameraRig
from pose3d.motion import _lowest, estimate_motion
from pose3d.poses import Groups, Poses
from pose3d.refinement import refine_window
from pose3d.skeleton import Skeleton

FRAMES, NOISE = 300, 1.5


def ring(n: int) -> CameraRig:
    cameras = []
    for i in range(n):
        angle = 1.5 * i
        center = np.array([1000 * np.cos(angle), 1000 * np.sin(angle), 300.0])
        z = -center / np.linalg.norm(center)
        x = np.cross([0.0, 0, -1], z) / np.linalg.norm(np.cross([0.0, 0, -1], z))
        R = np.stack((x, np.cross(z, x), z))
        K = np.array([[1100.0, 0, 640], [0, 1100, 512], [0, 0, 1]])
        cameras.append(Camera(f"cam{i}", Intrinsics((1280, 1024), K, np.array([-0.1, 0.03, 0, 0, 0])), R, -R @ center))
    return CameraRig(tuple(cameras), "mm")


def smooth(rng: np.random.Generator, size: float, slowest: float = 60.0, fastest: float = 25.0) -> np.ndarray:
    """(FRAMES, 3) a sum of sines of periods between the two, in frames."""
    period, phase = rng.uniform(fastest, slowest, (4, 3)), rng.uniform(0, 6.28, (4, 3))
    waves = np.sin(2 * np.pi * np.arange(FRAMES)[:, None, None] / period + phase)
    return size / 2 * np.sum(rng.normal(size=(4, 3)) * waves, axis=1)


def seen(rig: CameraRig, truth: np.ndarray, rng: np.random.Generator, skeleton: Skeleton, noise=NOISE, covariance=None):
    """truth (T, I, K, 3) -> poses, views, groups with ids 0.. and pixels of standard deviation noise (..., K)."""
    xy = (
        rig.project(truth)
        + rng.normal(size=(len(rig), *truth.shape[:3], 2)) * np.broadcast_to(noise, truth.shape[2])[:, None]
    )
    xy[rng.random(xy.shape[:4]) < 0.1] = np.nan
    frames, individuals = truth.shape[:2]
    ids = np.tile(np.arange(individuals), (frames, 1))
    extras = {} if covariance is None else {"covariance": np.broadcast_to(covariance, (*truth.shape[:3], 2, 2))}
    views = {name: Poses(xy[v], ids=ids, skeleton=skeleton, extras=extras) for v, name in enumerate(rig.names)}
    groups = Groups(rig.names, np.tile(np.arange(individuals)[:, None], (frames, 1, len(rig))), ids)
    points = triangulate_points(xy.reshape(len(rig), -1, 2), rig).points.reshape(truth.shape)
    return Poses(points, ids=ids, skeleton=skeleton, unit="mm"), views, groups


def chain(rng: np.random.Generator, lengths: tuple[float, ...]) -> np.ndarray:
    """(FRAMES, len(lengths) + 1, 3) segments of these lengths that turn smoothly."""
    points = [smooth(rng, 60.0)]
    for length in lengths:
        turn = smooth(rng, 1.0) + rng.normal(size=3)
        points.append(points[-1] + length * turn / np.linalg.norm(turn, axis=1, keepdims=True))
    return np.stack(points, axis=1)


def test_noise_and_lengths_of_two_individuals():
    rng = np.random.default_rng(1)
    rig = ring(4)
    lengths = ((20.0, 30.0), (24.0, 36.0))
    skeleton = Skeleton(("a", "b", "c", "never"), bones=((0, 1), (2, 1), (2, 3)))
    truth = np.stack([chain(rng, length) for length in lengths], axis=1)
    truth = np.concatenate((truth, np.full((FRAMES, 2, 1, 3), np.nan)), axis=2)
    motion = estimate_motion(*seen(rig, truth, rng, skeleton, np.array([1.0, 1.0, 2.0, 1.0])), rig, 10)
    assert motion.ids.tolist() == [0, 1]
    np.testing.assert_allclose(motion.noise[:, :3], [[1.0, 1.0, 2.0]] * 2, rtol=0.12)
    # a length has a standard deviation of about 2 mm in each frame
    np.testing.assert_allclose(motion.bone_length[:, :2], lengths, atol=4 * 2.0 / np.sqrt(300))
    assert np.all(motion.bone_spread[:, :2] < 0.5)  # a fourth of that
    assert np.isnan(motion.noise[:, 3]).all()
    assert np.isnan(motion.acceleration[:, 3]).all()
    assert np.isnan(motion.bone_length[:, 2]).all()


def test_smoothing_is_near_the_best_that_any_acceleration_gives():
    """The oracle tries accelerations about the one learnt and looks at the truth."""
    rng = np.random.default_rng(2)
    rig = ring(4)
    truth = np.stack((smooth(rng, 60.0), smooth(rng, 60.0, 25.0, 12.0), smooth(rng, 5.0, 90.0, 60.0)), axis=1)[:, None]
    poses, views, groups = seen(rig, truth, rng, Skeleton(("slow", "fast", "still")))
    motion = estimate_motion(poses, views, groups, rig, 10)

    def errors(factor: float) -> np.ndarray:
        scaled = type(motion)(**{**vars(motion), "acceleration": factor * motion.acceleration})
        away = refine_window(poses, views, groups, rig, scaled).points - truth
        return np.sqrt(np.nanmean(np.sum(away**2, axis=-1), axis=(0, 1)))

    tried = np.array([errors(f) for f in (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 10.0)])
    assert np.all(tried[3] < 1.15 * tried.min(axis=0))
    raw = np.sqrt(np.nanmean(np.sum((poses.points - truth) ** 2, axis=-1), axis=(0, 1)))
    assert np.all(tried[3] < np.array([0.7, 0.85, 0.35]) * raw)
    assert motion.acceleration[0, 1] > 2 * motion.acceleration[0, 0] > 4 * motion.acceleration[0, 2]


def test_bones_that_bend_are_found_to():
    rng = np.random.default_rng(3)
    rig = ring(4)
    stiff, root = chain(rng, (30.0,)), smooth(rng, 60.0)
    stretch = 30.0 + 4.0 * np.sin(np.arange(FRAMES) / 7.0)
    along = stiff[:, 1] - stiff[:, 0]
    soft = root + along / np.linalg.norm(along, axis=1, keepdims=True) * stretch[:, None]
    truth = np.stack((stiff[:, 0], stiff[:, 1], root, soft), axis=1)[:, None]
    motion = estimate_motion(*seen(rig, truth, rng, Skeleton(tuple("abcd"), bones=((0, 1), (2, 3)))), rig, 10)
    assert motion.bone_spread[0, 0] < 0.4
    # the spread of a sine by its median absolute deviation: 1.4826 sin(45 degrees) of its height
    assert motion.bone_spread[0, 1] == pytest.approx(1.4826 * np.sqrt(0.5) * 4.0, rel=0.15)


def test_mirrored_bones_share_their_length():
    rng = np.random.default_rng(4)
    rig = ring(3)
    truth = np.concatenate((chain(rng, (20.0,)), chain(rng, (22.0,)), chain(rng, (35.0,))), axis=1)[:, None]
    skeleton = Skeleton(tuple("abcdef"), bones=((0, 1), (3, 2), (4, 5)), symmetry=((0, 2), (1, 3)))
    motion = estimate_motion(*seen(rig, truth, rng, skeleton), rig, 10)
    assert motion.bone_length[0, 0] == motion.bone_length[0, 1] == pytest.approx(21.0, abs=0.6)
    assert motion.bone_spread[0, 0] == motion.bone_spread[0, 1]
    assert motion.bone_length[0, 2] == pytest.approx(35.0, abs=0.6)


def test_covariances_are_believed_but_raised_where_points_scatter_more():
    rng = np.random.default_rng(5)
    rig = ring(4)
    truth = chain(rng, (30.0,))[:, None]
    skeleton = Skeleton(("a", "b"))
    for said, factor in ((NOISE, 1.0), (NOISE / 3, 3.0)):
        motion = estimate_motion(*seen(rig, truth, rng, skeleton, covariance=said**2 * np.eye(2)), rig, 10)
        np.testing.assert_allclose(motion.noise, factor, rtol=0.12)
    quiet = estimate_motion(*seen(rig, truth, rng, skeleton, covariance=(4 * NOISE) ** 2 * np.eye(2)), rig, 10)
    np.testing.assert_array_equal(quiet.noise, 1.0)  # never lowered
    right = estimate_motion(*seen(rig, truth, rng, skeleton, covariance=NOISE**2 * np.eye(2)), rig, 10)
    np.testing.assert_allclose(quiet.acceleration / quiet.noise, 4 * right.acceleration / right.noise, rtol=0.5)


def test_few_frames_take_after_the_others():
    rng = np.random.default_rng(7)
    rig = ring(4)
    truth = np.stack((smooth(rng, 60.0), smooth(rng, 60.0), smooth(rng, 60.0)), axis=1)[:, None]
    poses, views, groups = seen(rig, truth, rng, Skeleton(("a", "b", "rare")))
    points = poses.points.copy()
    points[9:, 0, 2] = np.nan
    points[:9, 0, 2] = truth[:9, 0, 2]
    motion = estimate_motion(poses.replace(points=points), views, groups, rig, 10)
    ratio = motion.acceleration[0] / np.maximum(motion.noise[0] / motion.noise[0].min(), 1.0)
    assert min(ratio[:2]) * 0.8 < ratio[2] < max(ratio[:2]) * 1.25
    points[1:3, 0, 2] = np.nan  # two frames alone: no unit's length may enter
    alone = Poses(points[[0, 1, 2, 3], :, 2:], ids=poses.ids[:4], unit="mm")
    few = {n: Poses(v.points[:4, :, 2:], ids=v.ids[:4]) for n, v in views.items()}
    small = {n: Groups(rig.names, groups.slots[:4], groups.ids[:4]) for n in ("groups",)}["groups"]
    learnt = estimate_motion(alone, few, small, rig, 10)
    metres = estimate_motion(
        alone.replace(points=alone.points / 1000, unit="m"), few, small, rig.moved(1e-3, np.eye(3), np.zeros(3)), 10
    )
    np.testing.assert_allclose(metres.acceleration, learnt.acceleration / 1000, rtol=1e-6)


def test_the_least_of_a_parabola():
    grid = np.array([0.0, 1.0, 2.0, 3.0])[:, None] * np.ones(3)
    score = np.stack((1 + 2 * (grid[:, 0] - 1.3) ** 2, grid[:, 0], -grid[:, 0]), axis=1)
    np.testing.assert_allclose(_lowest(grid, score, 1.0), [1.3, 0.0, 3.0])


def test_nobody_known_is_an_error():
    rng = np.random.default_rng(6)
    rig = ring(2)
    poses, views, groups = seen(rig, chain(rng, (30.0,))[:, None], rng, Skeleton(("a", "b")))
    with pytest.raises(InputError, match="run identify or track first"):
        estimate_motion(poses.replace(ids=np.full((FRAMES, 1), -1)), views, groups, rig, 10)
