"""The compiled normal equations against finite differences of the cost, and the cost against the cameras' own
projection."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibration.camera import Camera, Intrinsics
from calibration.normal_equations import (
    UNSEEN_PX,
    block_diagonal,
    board_equations,
    board_residuals,
    point_equations,
    stepped,
    track_equations,
    with_cameras,
)
from calibration.rig import CameraRig, Packed
from calibration.solver import LOSSES, loss_weight
from calibration.transforms import exp_so3

VIEWS, POSES, CORNERS = 3, 2, 9


def three_cameras() -> CameraRig:
    """Two pinhole cameras and a fisheye, about 1 m from the origin."""
    kinds = [
        ("pinhole", [-0.15, 0.05, 1e-3, -5e-4, 0.01]),
        ("pinhole", [0.1, 0.02, 0, 0, 0, 0.05, 0.01, 0.0]),
        ("fisheye", [0.05, -0.01, 0, 0]),
    ]
    cameras = []
    for i, (model, dist) in enumerate(kinds):
        K = np.array([[800.0 + 10 * i, 0, 320], [0, 790.0, 240 + i], [0, 0, 1]])
        R = exp_so3(np.array([0.1 * i, 0.5 * i - 0.5, 0.2]))
        cameras.append(
            Camera(f"c{i}", Intrinsics((640, 480), K, np.array(dist), model), R, np.array([0.02 * i, -0.03, 1.0]))
        )
    return CameraRig(tuple(cameras), "m")


@pytest.fixture
def scene():
    rng = np.random.default_rng(1)
    rig = three_cameras()
    board_R, board_t = exp_so3(rng.normal(0, 0.4, (POSES, 3))), rng.normal(0, 0.05, (POSES, 3))
    corner = np.concatenate((rng.uniform(-0.1, 0.1, (CORNERS, 2)), np.zeros((CORNERS, 1))), axis=1)
    block, rows, xy = [], [], []
    for p in range(POSES):
        for v, camera in enumerate(rig):
            block.append((p, v, len(rows) * CORNERS, (len(rows) + 1) * CORNERS))
            rows.append(corner)
            xy.append(camera.project(corner @ board_R[p].T + board_t[p]))
    return rig, board_R, board_t, np.concatenate(xy), np.concatenate(rows), np.array(block, dtype=np.int64), rng


def boards(rig, board_R, board_t, xy, corner, block, sigma, free, loss="linear", scale=1.0):
    """(cost, g, H) over all 18 V camera and 6 P board parameters."""
    c = rig if isinstance(rig, Packed) else rig.packed()
    columns, n_columns = np.argsort(~free, axis=1, kind="stable"), free.sum(axis=1)
    H_cc, g_c, H_pp, g_p = (
        np.zeros((VIEWS, 18, 18)),
        np.zeros((VIEWS, 18)),
        np.zeros((POSES, 6, 6)),
        np.zeros((POSES, 6)),
    )
    H_cp = np.zeros((POSES, VIEWS, 18, 6))
    cost = board_equations(
        c.R, c.t, c.parameters, c.model, board_R[block[:, 0]], board_t[block[:, 0]], xy, sigma, corner, block, columns,
        n_columns, np.zeros((len(block), 0, 6)), LOSSES.index(loss), scale, H_cc, g_c, H_pp, g_p, H_cp,
    )  # fmt: skip
    cross = H_cp.reshape(POSES, -1, 6).transpose(1, 0, 2).reshape(18 * VIEWS, -1)
    H = np.block([[block_diagonal(H_cc), cross], [cross.T, block_diagonal(H_pp)]])
    return cost, np.concatenate((g_c.ravel(), g_p.ravel())), H


def moved(packed, board_R, board_t, step):
    cameras = stepped(packed, step[: 18 * VIEWS].reshape(VIEWS, 18))
    poses = step[18 * VIEWS :].reshape(POSES, 6)
    return cameras, exp_so3(poses[:, :3]) @ board_R, board_t + poses[:, 3:]


@pytest.mark.parametrize(("loss", "scale"), [("linear", 1.0), ("cauchy", 1.3)])
def test_boards_gradient_is_that_of_the_cost(scene, loss, scale):
    rig, board_R, board_t, xy, corner, block, rng = scene
    xy = xy + rng.normal(0, 1.0, xy.shape)
    sigma = rng.uniform(0.3, 1.0, len(xy))
    free = np.ones((VIEWS, 12), dtype=bool)
    free[0, 3] = free[1, 8] = free[2, 8:] = False

    def cost(step):
        return boards(*moved(rig.packed(), board_R, board_t, step), xy, corner, block, sigma, free, loss, scale)[0]

    away = [rig.cameras[v].project(corner[a:b] @ board_R[p].T + board_t[p]) - xy[a:b] for p, v, a, b in block]
    squared = np.sum(np.concatenate(away) ** 2, axis=1) / sigma**2
    expected = 0.5 * loss_weight(squared, loss, scale)[0].sum()
    assert cost(np.zeros(18 * VIEWS + 6 * POSES)) == pytest.approx(expected, rel=1e-12)
    _, g, _ = boards(rig, board_R, board_t, xy, corner, block, sigma, free, loss, scale)
    held = np.concatenate(
        (np.concatenate((np.zeros((VIEWS, 6), bool), ~free), axis=1).ravel(), np.zeros(6 * POSES, bool))
    )
    assert np.all(g[held] == 0)
    size = np.array(([1e-6] * 6 + [1e-3] * 4 + [1e-6] * 8) * VIEWS + [1e-6] * 6 * POSES)
    for i in np.flatnonzero(~held):
        step = np.zeros(len(g))
        step[i] = size[i]
        slope = (cost(step) - cost(-step)) / (2 * size[i])
        assert g[i] == pytest.approx(slope, rel=1e-5, abs=2e-9 * expected / size[i])


def test_boards_matrix_is_the_hessian_where_the_fit_is_exact(scene):
    rig, board_R, board_t, xy, corner, block, rng = scene
    sigma, free = rng.uniform(0.3, 1.0, len(xy)), np.ones((VIEWS, 12), dtype=bool)
    free[2, 8:] = False
    cost, g, H = boards(rig, board_R, board_t, xy, corner, block, sigma, free)
    assert cost == pytest.approx(0, abs=1e-20)
    size = np.array(([1e-5] * 6 + [1e-2] * 4 + [1e-3] * 8) * VIEWS + [1e-5] * 6 * POSES)
    scale = np.sqrt(np.diag(H)) + 1e-12
    for i in range(len(g)):
        step = np.zeros(len(g))
        step[i] = size[i]
        up = boards(*moved(rig.packed(), board_R, board_t, step), xy, corner, block, sigma, free)[1]
        down = boards(*moved(rig.packed(), board_R, board_t, -step), xy, corner, block, sigma, free)[1]
        column = (up - down) / (2 * size[i])
        if H[i, i] == 0:
            continue
        np.testing.assert_allclose(column / scale / scale[i], H[:, i] / scale / scale[i], atol=1e-5)


def test_board_residuals_are_projected_less_measured(scene):
    rig, board_R, board_t, xy, corner, block, rng = scene
    shift = rng.normal(0, 1, xy.shape)
    out = np.empty_like(xy)
    c = rig.packed()
    board_residuals(
        c.R, c.t, c.parameters, c.model, board_R[block[:, 0]], board_t[block[:, 0]], xy + shift, corner, block, out
    )
    np.testing.assert_allclose(out, -shift, atol=1e-9)
    board_t[0, 2] = -3.0  # behind the pinhole cameras
    board_residuals(c.R, c.t, c.parameters, c.model, board_R[block[:, 0]], board_t[block[:, 0]], xy, corner, block, out)
    assert np.isinf(out[: 2 * CORNERS]).all()
    free = np.zeros((VIEWS, 12), dtype=bool)
    only = block[:1]
    cost, g, _ = boards(rig, board_R, board_t, xy, corner, only, np.full(len(xy), 2.0), free)
    assert cost == pytest.approx(CORNERS * 0.5 * (UNSEEN_PX / 2.0) ** 2)
    assert not g.any()


@pytest.fixture
def points_seen():
    rng = np.random.default_rng(2)
    rig = three_cameras()
    points = rng.uniform(-0.15, 0.15, (5, 3))
    xy = rig.project(points)
    xy[1, 2] = np.nan
    root = rng.normal(0, 1, (VIEWS, 5, 2, 2)) + 2 * np.eye(2)
    full = root @ root.swapaxes(-1, -2)
    information = np.stack((full[..., 0, 0], full[..., 0, 1], full[..., 1, 1]), axis=-1)
    return rig, points, xy, information, full, rng


def tracks(packed, points, xy, information, loss="linear", scale=1.0):
    n = len(points)
    H_cc, g_c, H_pp, g_p = np.zeros((VIEWS, 6, 6)), np.zeros((VIEWS, 6)), np.zeros((n, 3, 3)), np.zeros((n, 3))
    H_cp = np.zeros((n, VIEWS, 6, 3))
    cost = track_equations(
        packed.R, packed.t, packed.parameters, packed.model, points, xy, information, LOSSES.index(loss), scale,
        H_cc, g_c, H_pp, g_p, H_cp,
    )  # fmt: skip
    cross = H_cp.reshape(n, -1, 3).transpose(1, 0, 2).reshape(6 * VIEWS, -1)
    H = np.block([[block_diagonal(H_cc), cross], [cross.T, block_diagonal(H_pp)]])
    return cost, np.concatenate((g_c.ravel(), g_p.ravel())), H


def test_tracks_and_points_agree_with_finite_differences(points_seen):
    rig, points, xy, information, full, rng = points_seen
    packed = rig.packed()

    def at(step, noisy, *loss):
        cameras = stepped(packed, step[: 6 * VIEWS].reshape(VIEWS, 6))
        return tracks(cameras, points + step[6 * VIEWS :].reshape(-1, 3), noisy, information, *loss)

    noisy = xy + rng.normal(0, 1.0, xy.shape)
    zero, size = np.zeros(6 * VIEWS + 15), 1e-6
    exact, H = at(zero, xy)[1:]
    np.testing.assert_allclose(exact, 0, atol=1e-6)
    scale = np.sqrt(np.diag(H))
    for loss in (("linear", 1.0), ("cauchy", 2.0)):
        cost, g, _ = at(zero, noisy, *loss)
        r = (rig.project(points) - noisy).reshape(-1, 2)
        squared = np.einsum("ni,nij,nj->n", r, full.reshape(-1, 2, 2), r)
        assert cost == pytest.approx(0.5 * loss_weight(squared[np.isfinite(squared)], *loss)[0].sum())
        for i in range(len(g)):
            step = zero.copy()
            step[i] = size
            assert g[i] == pytest.approx(
                (at(step, noisy, *loss)[0] - at(-step, noisy, *loss)[0]) / (2 * size), rel=1e-4, abs=0.1
            )
            column = (at(step, xy)[1] - at(-step, xy)[1]) / (2 * size)
            np.testing.assert_allclose(column / scale / scale[i], H[:, i] / scale / scale[i], atol=1e-4)
        H_point, g_point, squared_seen = np.zeros((5, 3, 3)), np.zeros((5, 3)), np.empty((VIEWS, 5))
        same = point_equations(
            packed.R, packed.t, packed.parameters, packed.model, points, noisy, information, LOSSES.index(loss[0]),
            loss[1],
            H_point, g_point, squared_seen,
        )  # fmt: skip
        assert same == pytest.approx(cost)
        np.testing.assert_allclose(g_point.ravel(), g[6 * VIEWS :], rtol=1e-10)
        np.testing.assert_allclose(
            block_diagonal(H_point), at(zero, noisy, *loss)[2][6 * VIEWS :, 6 * VIEWS :], rtol=1e-10
        )
        np.testing.assert_allclose(squared_seen.ravel(), squared, rtol=1e-8)


def test_points_that_a_camera_cannot_see_cost_a_constant(points_seen):
    rig, points, xy, information, _, _ = points_seen
    c = rig.packed()
    points = points.copy()
    points[0] = c.R[0].T @ (np.array([0, 0, -1.0]) - c.t[0])
    only = xy.copy()
    only[1:], only[:, 1:] = np.nan, np.nan
    H, g, squared = np.zeros((5, 3, 3)), np.zeros((5, 3)), np.empty((VIEWS, 5))
    cost = point_equations(c.R, c.t, c.parameters, c.model, points, only, information, 0, 1.0, H, g, squared)
    assert cost == pytest.approx(0.5 * UNSEEN_PX**2 * (information[0, 0, 0] + information[0, 0, 2]))
    assert cost == pytest.approx(tracks(c, points, only, information)[0])
    assert squared[0, 0] == np.inf
    assert np.isnan(squared.ravel()[1:]).all()
    assert not H.any()


def test_a_rig_with_other_cameras_keeps_names_and_models():
    rig = three_cameras()
    skewed = [replace(c.intrinsics, K=c.intrinsics.K + np.array([[0, 2.5, 0], [0, 0, 0], [0, 0, 0]])) for c in rig]
    cameras = tuple(replace(c, intrinsics=intrinsics) for c, intrinsics in zip(rig, skewed, strict=True))
    rig = replace(rig, cameras=cameras)
    step = np.zeros((VIEWS, 18))
    step[:, 3], step[:, 6] = 0.5, 7.0
    new = with_cameras(rig, stepped(rig.packed(), step))
    assert (new.names, new.unit, new.covariance) == (rig.names, rig.unit, None)
    for old, camera in zip(rig, new, strict=True):
        np.testing.assert_allclose(camera.t - old.t, [0.5, 0, 0])
        assert camera.intrinsics.K[0, 0] == pytest.approx(old.intrinsics.K[0, 0] + 7)
        assert camera.intrinsics.K[0, 1] == 2.5
        np.testing.assert_array_equal(camera.intrinsics.dist, old.intrinsics.dist)
        assert camera.intrinsics.model == old.intrinsics.model
