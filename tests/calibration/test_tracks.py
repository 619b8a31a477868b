"""Camera poses from tracked points: known truth, gauge, covariance."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.camera import Camera, Intrinsics
from calibration.errors import InputError
from calibration.normal_equations import stepped, with_cameras
from calibration.rig import CameraRig
from calibration.tracks import TrackOptions, adjust_rig
from calibration.transforms import similarity


def ring(n: int) -> CameraRig:
    cameras = []
    for i in range(n):
        angle = 1.3 * i
        center = np.array([1000 * np.cos(angle), 1000 * np.sin(angle), 300.0 + 100 * (i % 2)])
        z = -center / np.linalg.norm(center)
        x = np.cross([0.0, 0, -1], z) / np.linalg.norm(np.cross([0.0, 0, -1], z))
        R = np.stack((x, np.cross(z, x), z))
        K = np.array([[1100.0, 0, 640], [0, 1100, 512], [0, 0, 1]])
        cameras.append(Camera(f"cam{i}", Intrinsics((1280, 1024), K, np.array([-0.1, 0.03, 0, 0, 0])), R, -R @ center))
    return CameraRig(tuple(cameras), "mm")


def disturbed(rig: CameraRig, rng: np.random.Generator) -> CameraRig:
    step = np.zeros((len(rig), 18))
    step[:, :3], step[:, 3:6] = rng.normal(0, 0.01, (len(rig), 3)), rng.normal(0, 10, (len(rig), 3))
    return with_cameras(rig, stepped(rig.packed(), step))


def animal(rng: np.random.Generator, frames: int, points: int) -> np.ndarray:
    """A chain of segments of 40 mm that tumbles through a box of 400 mm."""
    steps = rng.normal(size=(frames, points, 3))
    steps *= 40 / np.linalg.norm(steps, axis=-1, keepdims=True)
    steps[:, 0] = rng.uniform(-200, 200, (frames, 3))
    return np.cumsum(steps, axis=1)


def aligned_error(found: CameraRig, true: CameraRig) -> np.ndarray:
    """(views,) mm between camera centres after the best similarity."""
    return np.linalg.norm(found.moved(*similarity(found.centers, true.centers)).centers - true.centers, axis=1)


def test_extrinsics_from_faulty_tracks():
    rng = np.random.default_rng(1)
    rig = ring(4)
    xy = rig.project(animal(rng, 100, 5)) + rng.normal(0, 1.0, (4, 100, 5, 2))
    xy[rng.random(xy.shape[:3]) < 0.1] = np.nan
    wrong = rng.random(xy.shape[:3]) < 0.03
    xy[wrong] += rng.normal(0, 60, (wrong.sum(), 2))
    start = disturbed(rig, rng)
    found = adjust_rig(start, xy)
    assert aligned_error(start, rig).mean() > 5
    sd = np.sqrt(np.diag(found.covariance)).reshape(4, 18)[:, 3:6]
    assert aligned_error(found, rig).mean() < 3 * np.linalg.norm(sd, axis=1).mean() < 1.5
    assert found.names == rig.names
    for camera, old in zip(found, start, strict=True):
        np.testing.assert_array_equal(camera.intrinsics.K, old.intrinsics.K)


def test_the_world_stays_where_it_was():
    rng = np.random.default_rng(2)
    rig = ring(3)
    start = disturbed(rig, rng)
    found = adjust_rig(start, rig.project(animal(rng, 40, 3)))
    np.testing.assert_allclose(found.centers.mean(axis=0), start.centers.mean(axis=0), atol=1e-9)
    size = [np.sum((r.centers - r.centers.mean(axis=0)) ** 2) for r in (found, start)]
    assert size[0] == pytest.approx(size[1], rel=1e-12)
    turn = sum(b.R.T @ a.R for a, b in zip(found, start, strict=True))
    np.testing.assert_allclose(turn, turn.T, atol=1e-9)  # no mean rotation is left
    assert aligned_error(found, rig).max() < 1e-3


def test_covariance_tells_the_spread():
    """Monte Carlo over 30 recordings: the spread of the poses, in the gauge that moves the cameras least."""
    rng = np.random.default_rng(3)
    rig = ring(3)
    points = animal(rng, 25, 3)
    poses, stated = [], []
    for _ in range(30):
        found = adjust_rig(rig, rig.project(points) + rng.normal(0, 1.5, (3, 25, 3, 2)), options=TrackOptions(rounds=2))
        delta = [b.R @ a.R.T for a, b in zip(rig, found, strict=True)]
        poses.append([[d[2, 1], d[0, 2], d[1, 0], *(b.t - a.t)] for a, b, d in zip(rig, found, delta, strict=True)])
        stated.append(np.diag(found.covariance).reshape(3, 18)[:, :6])
    for part in (slice(0, 3), slice(3, 6)):
        ratio = np.var(poses, axis=0)[:, part].sum() / np.mean(stated, axis=0)[:, part].sum()
        assert ratio == pytest.approx(1.0, abs=0.35)
    covariance = adjust_rig(rig, rig.project(points) + rng.normal(0, 1.0, (3, 25, 3, 2))).covariance
    assert covariance.shape == (54, 54)
    rows = (18 * np.arange(3)[:, None] + np.arange(6)).ravel()
    scale = np.sqrt(np.diag(covariance)[rows])
    values = np.linalg.eigvalsh(covariance[np.ix_(rows, rows)] / np.outer(scale, scale))
    assert np.all(np.abs(values[:7]) < 1e-9)  # the gauge has seven directions
    assert np.all(values[7:] > 1e-7)
    assert not np.diag(covariance).reshape(3, 18)[:, 6:].any()


def test_given_covariances_weigh_the_pixels():
    rng = np.random.default_rng(4)
    rig = ring(3)
    xy = rig.project(animal(rng, 80, 4))
    sigma = np.where(rng.random(xy.shape) < 0.5, 0.2, 6.0)  # each axis for itself, in axes turned by 0.5 rad
    turn = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    xy += (rng.normal(size=xy.shape) * sigma) @ turn.T
    covariance = turn @ (sigma[..., None] ** 2 * np.eye(2)) @ turn.T
    start = disturbed(rig, rng)
    plain, weighted = (aligned_error(adjust_rig(start, xy, c), rig).mean() for c in (None, covariance))
    assert weighted < 0.3 * plain
    scaled = adjust_rig(start, xy, 100 * covariance)  # only ratios count
    np.testing.assert_allclose(scaled.centers, adjust_rig(start, xy, covariance).centers, atol=1e-5)


def test_constant_pairs_help_where_pixels_alone_are_weak():
    """Two cameras: constant lengths in all directions tell of their angle what pixels tell badly."""
    rig = ring(2)
    away = {"none": 0.0, "pairs": 0.0}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        xy = rig.project(animal(rng, 60, 4)) + rng.normal(0, 2.0, (2, 60, 4, 2))
        start = disturbed(rig, rng)
        for name, pairs in (("none", ()), ("pairs", ((0, 1), (1, 2), (3, 2)))):
            found = adjust_rig(start, xy, None, pairs)
            turn = [a.R @ b.R.T for a, b in zip(found, rig, strict=True)]
            relative = (
                turn[0] @ rig.cameras[0].R @ rig.cameras[1].R.T @ turn[1].T @ (rig.cameras[1].R @ rig.cameras[0].R.T)
            )
            away[name] += np.arccos(np.clip((np.trace(relative) - 1) / 2, -1, 1))
    assert away["pairs"] < 0.8 * away["none"]


def test_errors():
    rig = ring(2)
    with pytest.raises(InputError, match=r"\(2 views, frames, points, 2\), got \(3, 4, 5, 2\)"):
        adjust_rig(rig, np.zeros((3, 4, 5, 2)))
    xy = np.full((2, 4, 5, 2), 500.0)
    xy[1] = np.nan
    with pytest.raises(InputError, match="at least two cameras"):
        adjust_rig(rig, xy)
