"""Cameras that were moved, placed anew: the truth, the covariance, what stays, errors by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibration.board import Board, BoardDetections
from calibration.errors import InputError
from calibration.moved import MovedOptions, resettle_cameras
from calibration.normal_equations import stepped, with_cameras
from calibration.rig import CameraRig
from calibration.synthetic import board_motion, ring_rig, simulate_detections
from calibration.tracks import TrackOptions, adjust_rig
from calibration.transforms import exp_so3, log_so3

BOARD = Board(7, 10, 25.0)


def rig_of(n: int = 4) -> CameraRig:
    rig = ring_rig(n, np.random.default_rng(4), radius=900, height=600, size=(1280, 1024), focal_px=1100)
    return rig.moved(1.0, exp_so3([0.3, -0.2, 0.5]), [100.0, -50, 30])


def with_moved(rig: CameraRig, name: str, turn_deg: float) -> CameraRig:
    step = np.zeros((len(rig), 18))
    step[rig.index(name), :6] = *np.deg2rad([0.6, -0.7, 0.4]) * turn_deg, 20.0, -15, 30
    return with_cameras(rig, stepped(rig.packed(), step))


def footage(rig: CameraRig, rng: np.random.Generator, n_frames: int = 30, noise: float = 0.3) -> BoardDetections:
    there = rig.moved(1.0, exp_so3([0.3, -0.2, 0.5]).T, -exp_so3([0.3, -0.2, 0.5]).T @ [100.0, -50, 30])
    R, t = board_motion(there, BOARD, n_frames, rng, reach=150)
    return simulate_detections(there, BOARD, R, t, rng, noise_px=noise)


def poses(rig: CameraRig, name: str, base: CameraRig) -> np.ndarray:
    """(6,) by how much a camera's pose differs from that in another rig."""
    return np.concatenate((log_so3(rig[name].R @ base[name].R.T), rig[name].t - base[name].t))


@pytest.mark.parametrize("moved", [("cam2",), ("cam0", "cam2")])
def test_moved_cameras_are_found_and_the_others_stay(moved: tuple[str, ...], rng: np.random.Generator) -> None:
    old = rig_of()
    now = old
    for name in moved:
        now = with_moved(now, name, 8.0)
    found = resettle_cameras(old, moved, footage(now, rng))
    for camera in old:
        if camera.name not in moved:
            np.testing.assert_array_equal(found.rig[camera.name].R, camera.R)
            np.testing.assert_array_equal(found.rig[camera.name].t, camera.t)
    assert found.rig.names == old.names
    covariance = found.rig.covariance
    assert covariance is not None
    for name in moved:
        np.testing.assert_array_equal(found.rig[name].intrinsics.parameters, old[name].intrinsics.parameters)
        row = 18 * old.index(name)
        away = poses(found.rig, name, now)
        assert away @ np.linalg.solve(covariance[row : row + 6, row : row + 6], away) < 25  # chi-square, 6 degrees
        assert np.linalg.norm(found.rig[name].center - now[name].center) < 0.6
        turn = np.rad2deg(np.linalg.norm(log_so3(now[name].R @ old[name].R.T)))
        assert f"{name}: turned by {turn:.1f}" in found.text
    assert "warning" not in found.text
    kept = [i for i, name in enumerate(old.names) if name not in moved]
    assert not np.diagonal(covariance).reshape(4, 18)[kept].any()


def test_what_the_others_are_known_by_carries_over(rng: np.random.Generator) -> None:
    """The kept cameras and all intrinsics are a little wrong, as their covariance says, and so is the moved one."""
    truth = with_moved(rig_of(3), "cam1", 5.0)
    old = rig_of(3)
    detections = footage(truth, rng, 15, noise=0.01)
    sd = np.tile([3e-5] * 3 + [0.05] * 3 + [0.3] * 4 + [3e-4] * 5 + [0.0] * 3, 3)
    ratio = []
    for _ in range(15):
        error = rng.normal(size=54) * sd
        wrong = with_cameras(old, stepped(old.packed(), error.reshape(3, 18)))
        found = resettle_cameras(replace(wrong, covariance=np.diag(sd**2)), ("cam1",), detections).rig
        away = poses(found, "cam1", truth)
        assert found.covariance is not None
        ratio.append(away @ np.linalg.solve(found.covariance[18:24, 18:24], away) / 6)
    assert np.mean(ratio) == pytest.approx(1.0, abs=0.6)


def test_intrinsics_are_refined_when_asked(rng: np.random.Generator) -> None:
    old = rig_of()
    now = with_moved(old, "cam2", 4.0)
    cameras = list(now.cameras)
    zoomed = cameras[2].intrinsics
    K = zoomed.K * np.array([[1.03, 1, 1], [1, 1.03, 1], [1, 1, 1]])
    cameras[2] = replace(cameras[2], intrinsics=replace(zoomed, K=K))
    detections = footage(CameraRig(tuple(cameras), "mm"), rng, 60)
    kept = resettle_cameras(old, ("cam2",), detections)
    assert kept.rig["cam2"].intrinsics.K[0, 0] == zoomed.K[0, 0]
    found = resettle_cameras(old, ("cam2",), detections, MovedOptions(refine=True))
    assert found.rig["cam2"].intrinsics.K[0, 0] == pytest.approx(K[0, 0], rel=2e-3)
    assert found.rig.covariance is not None
    assert found.rig.covariance[36 + 6, 36 + 6] > 0


def test_misdetections_and_another_camera_that_moved(rng: np.random.Generator) -> None:
    old = rig_of()
    now = with_moved(old, "cam2", 4.0)
    detections = footage(now, rng)
    corners = detections.corners.copy()
    wrong = rng.uniform(size=corners.shape[:3]) < 0.02
    corners[wrong] += 40
    found = resettle_cameras(old, ("cam2",), replace(detections, corners=corners))
    assert np.linalg.norm(found.rig["cam2"].center - now["cam2"].center) < 0.6
    both = footage(with_moved(now, "cam3", 1.0), rng)
    assert "--moved cam3" in resettle_cameras(old, ("cam2",), both).text


def test_points_resettle_a_camera_too(rng: np.random.Generator) -> None:
    old = rig_of()
    now = with_moved(old, "cam2", 6.0)
    points = rng.uniform(-150, 150, (300, 3, 3)) @ exp_so3([0.3, -0.2, 0.5]).T + [100.0, -50, 30]
    xy = now.project(points) + rng.normal(0, 1.0, (4, 300, 3, 2))
    xy[rng.random(xy.shape[:3]) < 0.03] += 60
    found = adjust_rig(old, xy, options=TrackOptions(fixed=("cam0", "cam1", "cam3")))
    away = poses(found, "cam2", now)
    assert found.covariance is not None
    assert away @ np.linalg.solve(found.covariance[36:42, 36:42], away) < 25
    assert np.rad2deg(np.linalg.norm(away[:3])) < 0.1
    np.testing.assert_array_equal(found["cam1"].t, old["cam1"].t)
    known = replace(old, covariance=np.diag(np.tile([1e-8] * 3 + [0.04] * 3 + [0.0] * 12, 4)))
    later = adjust_rig(known, xy, options=TrackOptions(fixed=("cam0", "cam1", "cam3"))).covariance
    assert later is not None
    grown = np.diagonal(later - found.covariance)[36:42]
    assert (grown > 0).all()  # of what the others are known by
    with pytest.raises(InputError, match="two or more of cam0, cam1, cam2, cam3 to be fixed"):
        adjust_rig(old, xy, options=TrackOptions(fixed=("cam0",)))


def test_mistakes_are_named(rng: np.random.Generator) -> None:
    old = rig_of()
    detections = footage(old, rng, 8)
    with pytest.raises(InputError, match="camera 'cam9' is not in the rig"):
        resettle_cameras(old, ("cam9",), detections)
    with pytest.raises(InputError, match="kept: none; if all moved, calibrate anew"):
        resettle_cameras(old, old.names, detections)
    sizes = detections.sizes.copy()
    sizes[1] = (640, 480)
    with pytest.raises(InputError, match=r"camera 'cam1': expected images of 1280x1024 px.*got 640x480"):
        resettle_cameras(old, ("cam2",), replace(detections, sizes=sizes))
    with pytest.raises(InputError, match="keep is in m, the board in mm"):
        resettle_cameras(CameraRig(old.cameras, "m"), ("cam2",), detections)
    part = [0, 1, 3]
    less = replace(
        detections, view_names=tuple(old.names[i] for i in part), sizes=detections.sizes[part],
        corners=detections.corners[part], sigma=detections.sigma[part],
    )  # fmt: skip
    with pytest.raises(InputError, match="camera 'cam2' moved, but there is no footage of it"):
        resettle_cameras(old, ("cam2",), less)
