"""Board bundle adjustment: known truth, scipy's optimum, the dense covariance."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import least_squares

from calibration.bundle import BundleOptions, adjust_boards
from calibration.camera import Camera, Intrinsics
from calibration.errors import InputError
from calibration.normal_equations import stepped, with_cameras
from calibration.rig import CameraRig
from calibration.transforms import exp_so3

NOISE = 0.3
FOCAL_CENTRE_K = np.array([1] * 6 + [0] * 6, dtype=bool)


def ring(n: int) -> CameraRig:
    cameras = []
    for i in range(n):
        angle = 0.7 * i
        center = np.array([np.cos(angle), np.sin(angle), 0.4])
        z = -center / np.linalg.norm(center)
        x = np.cross([0.0, 0, -1], z) / np.linalg.norm(np.cross([0.0, 0, -1], z))
        R = np.stack((x, np.cross(z, x), z))
        K = np.array([[1100, 0, 640 + 9.0 * i], [0, 1095, 512 - 7.0 * i], [0, 0, 1]])
        cameras.append(
            Camera(f"cam{i}", Intrinsics((1280, 1024), K, np.array([-0.15, 0.05, 1e-3, -5e-4, 0])), R, -R @ center)
        )
    return CameraRig(tuple(cameras), "m")


def recording(rig: CameraRig, n_frames: int, rng: np.random.Generator, noise: float = NOISE):
    """Board poses (world from board) and detections of a 5 x 6 board of 40 mm squares that faces the cameras
    roughly."""
    grid = np.stack(np.meshgrid(np.arange(6), np.arange(5)), axis=-1).reshape(-1, 2) - (2.5, 2.0)
    points = np.concatenate((grid * 0.04, np.zeros((30, 1))), axis=1)
    facing = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    R = (
        exp_so3(
            np.stack((0.4 * rng.normal(size=n_frames), 0.4 * rng.normal(size=n_frames), rng.uniform(0, 2, n_frames)), 1)
        )
        @ facing
    )
    t = rng.uniform(-0.12, 0.12, (n_frames, 3))
    xy = rig.project(np.einsum("fij,cj->fci", R, points) + t[:, None])
    xy += rng.normal(0, noise, xy.shape)
    xy[rng.random(xy.shape[:3]) < 0.05] = np.nan
    return (
        R,
        t,
        SimpleNamespace(
            view_names=rig.names,
            corners=xy,
            sigma=np.full(xy.shape[:3], noise),
            object_points=points,
            board_index=np.zeros(30, int),
        ),
    )


def disturbed(rig: CameraRig, R, t, rng: np.random.Generator):
    step = np.zeros((len(rig), 18))
    step[:, :6] = rng.normal(0, 0.01, (len(rig), 6))
    step[0, :6] = 0
    step[:, 6:10] = rng.normal(0, 10, (len(rig), 4))
    step[:, 10:12] = (0.05, -0.02)
    return (
        with_cameras(rig, stepped(rig.packed(), step)),
        exp_so3(rng.normal(0, 0.02, t.shape)) @ R,
        t + rng.normal(0, 0.01, t.shape),
    )


def free_all(rig: CameraRig) -> dict[str, np.ndarray]:
    return {name: np.array([1] * 8 + [0] * 4, dtype=bool) for name in rig.names}


def error(found: CameraRig, true: CameraRig) -> np.ndarray:
    """(18 V,) what the found rig must be stepped by, over RIG_PARAMETERS, to be the true one; small angles."""
    out = np.zeros((len(true), 18))
    for i, (a, b) in enumerate(zip(found, true, strict=True)):
        delta = b.R @ a.R.T
        out[i, :3] = (delta[2, 1] - delta[1, 2]) / 2, (delta[0, 2] - delta[2, 0]) / 2, (delta[1, 0] - delta[0, 1]) / 2
        out[i, 3:6] = b.t - a.t
        out[i, 6:] = b.intrinsics.parameters - a.intrinsics.parameters
    return out.ravel()


def test_recovers_the_truth_within_its_own_covariance():
    rng = np.random.default_rng(1)
    rig = ring(4)
    ratios = []
    for _ in range(4):
        R, t, detections = recording(rig, 60, rng)
        start = disturbed(rig, R, t, rng)
        result = adjust_boards(*start, detections, BundleOptions(free=free_all(rig)))
        assert result.converged
        assert result.iterations < 12
        np.testing.assert_array_equal(result.rig.cameras[0].R, start[0].cameras[0].R)  # the gauge
        np.testing.assert_array_equal(result.rig.cameras[0].t, start[0].cameras[0].t)
        covariance, away = result.rig.covariance, error(result.rig, rig)
        assert covariance is not None
        known = np.diag(covariance) > 0
        assert not known.reshape(4, 18)[0, :6].any()
        assert not known.reshape(4, 18)[:, 14:].any()
        assert known.sum() == 3 * 6 + 4 * 8
        ratios.append(away[known] @ np.linalg.solve(covariance[np.ix_(known, known)], away[known]) / known.sum())
        seen = np.isfinite(detections.corners[..., 0])
        np.testing.assert_array_equal(np.isfinite(result.residuals[..., 0]), seen)
        degrees = 1 - (known.sum() + 6 * 60) / (2 * seen.sum())
        rms = np.sqrt(np.nanmean(np.sum(result.residuals**2, axis=-1)))
        assert rms == pytest.approx(NOISE * np.sqrt(2 * degrees), rel=0.03)
        assert result.variance == pytest.approx(1.0, abs=0.06)
        np.testing.assert_allclose(
            np.linalg.norm(np.diff(result.board_t, axis=0), axis=1),
            np.linalg.norm(np.diff(t, axis=0), axis=1),
            atol=2e-3,
        )
    assert np.mean(ratios) == pytest.approx(
        1.0, abs=4 * np.sqrt(2 / (4 * 50))
    )  # chi-square over its degrees of freedom


def small_problem(prior: bool):
    """Two cameras, three frames, as adjust_boards and as scipy see it."""
    rng = np.random.default_rng(2)
    rig = ring(2)
    R, t, detections = recording(rig, 3, rng)
    detections.sigma = rng.uniform(0.2, 0.6, detections.sigma.shape)
    start, R0, t0 = disturbed(rig, R, t, rng)
    free = dict.fromkeys(rig.names, FOCAL_CENTRE_K)
    mean, sigma = np.zeros(12), np.full(12, np.inf)
    mean[:4], sigma[:4] = (1090, 1090, 640, 512), (5.0, 6.0, 3.0, 2.0)
    sigma[6] = 0.01  # p1 is held: says only how well it is known
    priors = {"cam1": (mean, sigma)} if prior else {}

    def unpacked(x, rig, R, t):
        step = np.zeros((2, 18))
        step[0, 6:12], step[1, :12] = x[:6], x[6:18]
        poses = x[18:].reshape(3, 6)
        return with_cameras(rig, stepped(rig.packed(), step)), exp_so3(poses[:, :3]) @ R, t + poses[:, 3:]

    seen = np.isfinite(detections.corners[..., 0])

    def residual(x, *about):
        cameras, R, t = unpacked(x, *about)
        xy = cameras.project(np.einsum("fij,cj->fci", R, detections.object_points) + t[:, None])
        r = ((xy - detections.corners) / detections.sigma[..., None])[seen].ravel()
        if prior:
            r = np.concatenate((r, (cameras.cameras[1].intrinsics.parameters[:4] - mean[:4]) / sigma[:4]))
        return r

    return start, R0, t0, detections, BundleOptions(free=free, priors=priors), residual, seen


def test_held_intrinsics_with_a_covariance_of_their_own(rng):
    """A focal length held, fx and fy wrong together by 10 px at one sigma: cam1 may be off by what refits say."""
    truth = ring(3)
    R, t, detections = recording(truth, 12, rng)
    covariance = np.zeros((12, 12))
    covariance[:2, :2] = 100.0
    held = adjust_boards(truth, R, t, detections, BundleOptions(held={"cam1": covariance}))
    plain = adjust_boards(truth, R, t, detections)
    np.testing.assert_array_equal(held.rig.packed().t, plain.rig.packed().t)
    np.testing.assert_allclose(held.rig.covariance[24:26, 24:26], 100.0, rtol=1e-9)
    moved = []
    for nudge in (0.1, -0.1):
        camera = truth.cameras[1]
        parameters = camera.intrinsics.parameters + nudge * (np.arange(12) < 2)
        other = replace(camera, intrinsics=Intrinsics.from_parameters(camera.intrinsics.size, parameters))
        rig = CameraRig((truth.cameras[0], other, truth.cameras[2]), "mm")
        moved.append(adjust_boards(rig, R, t, detections).rig.packed().t[1:].ravel())
    follows = np.zeros(54)
    follows[[21, 22, 23, 39, 40, 41]] = 10 * (moved[0] - moved[1]) / 0.2
    rows = np.flatnonzero(follows)
    added = (held.rig.covariance - plain.rig.covariance)[np.ix_(rows, rows)]
    np.testing.assert_allclose(added, np.outer(follows, follows)[np.ix_(rows, rows)], rtol=0.02, atol=1e-9)
    np.testing.assert_allclose(held.rig.covariance[24, rows], 10 * follows[rows], rtol=0.02, atol=1e-6)


@pytest.mark.parametrize("prior", [False, True])
def test_same_optimum_and_covariance_as_dense_least_squares(prior):
    start, R0, t0, detections, options, residual, seen = small_problem(prior)
    result = adjust_boards(start, R0, t0, detections, options)
    tight = {"xtol": 1e-12, "ftol": 1e-12, "gtol": 1e-12}
    peer = least_squares(residual, np.zeros(36), method="lm", x_scale="jac", args=(start, R0, t0), **tight)
    assert result.cost == pytest.approx(peer.cost, rel=1e-7)
    here = (result.rig, result.board_R, result.board_t)
    jacobian = least_squares(residual, np.zeros(36), jac="3-point", args=here, max_nfev=1).jac
    dense = np.linalg.inv(jacobian.T @ jacobian)[:18, :18]
    rows = np.concatenate((np.arange(6, 12), np.arange(18, 30)))
    if prior:  # what is adjusted follows p1
        sides = []
        for nudge in (1e-5, -1e-5):
            packed = result.rig.packed()
            packed.parameters[1, 6] += nudge
            sides.append(residual(np.zeros(36), with_cameras(result.rig, packed), *here[1:]))
        column = (sides[0] - sides[1]) / 2e-5
        follows = 0.01 * np.linalg.lstsq(jacobian, -column, rcond=None)[0][:18]
        dense += np.outer(follows, follows) / result.variance
    covariance = result.rig.covariance[np.ix_(rows, rows)] / result.variance
    scale = np.sqrt(np.diag(dense))
    np.testing.assert_allclose(covariance / np.outer(scale, scale), dense / np.outer(scale, scale), atol=2e-3)
    assert result.rig.covariance[18 + 12, 18 + 12] == (0.01**2 if prior else 0.0)
    assert result.variance == pytest.approx(
        np.sum(residual(np.zeros(36), *here)[: 2 * seen.sum()] ** 2) / (2 * seen.sum() - 36), rel=1e-3
    )


def test_a_robust_loss_forgets_wrong_corners():
    rng = np.random.default_rng(3)
    rig = ring(3)
    R, t, detections = recording(rig, 40, rng)
    wrong = rng.random(detections.corners.shape[:3]) < 0.03
    detections.corners[wrong] += rng.normal(0, 20, (wrong.sum(), 2))
    start = disturbed(rig, R, t, rng)
    away = {}
    for loss, scale in (("linear", 1.0), ("cauchy", 2.0)):
        result = adjust_boards(*start, detections, BundleOptions(loss, scale, free_all(rig)))
        away[loss] = np.abs(error(result.rig, rig).reshape(3, 18)[:, 6:8]).mean()
        if loss == "cauchy":
            sd = np.sqrt(np.diag(result.rig.covariance)).reshape(3, 18)[:, 6:8].mean()
            assert result.variance == pytest.approx(1.0, abs=0.35)
            assert away[loss] < 3 * sd
    assert away["cauchy"] < 0.5 * away["linear"]


def test_two_boards_names_and_what_is_left_out():
    rng = np.random.default_rng(4)
    rig = ring(3)
    R, t, one = recording(rig, 12, rng, noise=0.05)
    R2, t2, two = recording(rig, 12, rng, noise=0.05)
    order = [2, 0, 1]
    both = SimpleNamespace(
        view_names=tuple(rig.names[i] for i in order),
        corners=np.concatenate((one.corners, two.corners), axis=2)[order],
        sigma=np.concatenate((one.sigma, two.sigma), axis=2)[order],
        object_points=np.concatenate((one.object_points, two.object_points)),
        board_index=np.repeat([0, 1], 30),
    )
    boards_R, boards_t = np.stack((R, R2), axis=1), np.stack((t, t2), axis=1)
    boards_R[3, 1], boards_t[3, 1] = np.nan, np.nan
    both.corners[:, 5, 30:] = np.nan
    both.corners[0, 5, 30:33] = 600.0  # three corners do not make a pose
    start = disturbed(rig, R, t, rng)[0]
    start = CameraRig(tuple(Camera(c.name, true.intrinsics, c.R, c.t) for c, true in zip(start, rig, strict=True)), "m")
    result = adjust_boards(start, boards_R, boards_t, both)
    assert result.board_R.shape == (12, 2, 3, 3)
    gone = np.zeros((12, 2), dtype=bool)
    gone[3, 1] = gone[5, 1] = True
    np.testing.assert_array_equal(np.isnan(result.board_t[..., 0]), gone)
    np.testing.assert_allclose(result.board_t[~gone], np.stack((t, t2), axis=1)[~gone], atol=3e-4)
    expected = np.isfinite(both.corners[..., 0]) & ~gone[:, both.board_index]
    np.testing.assert_array_equal(np.isfinite(result.residuals[..., 0]), expected)
    found = result.rig.project(
        np.einsum("fij,cj->fci", result.board_R[:, 0], one.object_points) + result.board_t[:, 0, None]
    )
    for view, name in enumerate(both.view_names):  # projected - measured, in the detections' order of views
        camera = rig.names.index(name)
        np.testing.assert_allclose(
            result.residuals[view, :, :30], found[camera] - both.corners[view, :, :30], atol=1e-9
        )
    assert result.rig.cameras[1].intrinsics.parameters.tolist() == rig.cameras[1].intrinsics.parameters.tolist()


def test_exactly_four_corners_make_a_pose():
    rng = np.random.default_rng(5)
    rig = ring(2)
    R, t, detections = recording(rig, 8, rng)
    detections.corners[:, 7] = np.nan
    detections.corners[0, 7, [0, 5, 24]] = 600.0 + 50 * np.array([[0, 0], [1, 0], [0, 1]])
    detections.corners[1, 7, 29] = 650.0
    result = adjust_boards(rig, R, t, detections)
    assert np.isfinite(result.board_t).all()


def test_errors_name_what_is_wrong():
    rng = np.random.default_rng(6)
    rig = ring(2)
    R, t, detections = recording(rig, 4, rng)
    detections.view_names = ("cam0", "cam11")
    with pytest.raises(InputError, match=r"camera 'cam1'; did you mean 'cam11'"):
        adjust_boards(rig, R, t, detections)
    detections.view_names = rig.names
    with pytest.raises(InputError, match="'kam0' is not in the rig"):
        adjust_boards(rig, R, t, detections, BundleOptions(free={"kam0": FOCAL_CENTRE_K}))
    with pytest.raises(InputError, match="4 measured corners"):
        adjust_boards(rig, R * np.nan, t, detections)
