"""Score tests against fits made anew, and against finite differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2

from calibration.board import Board
from calibration.bundle import BundleOptions, adjust_boards
from calibration.rig import CameraRig
from calibration.scores import Placed, camera_columns, linearise, normals
from calibration.synthetic import board_path, ring_rig, simulate_detections
from calibration.transforms import exp_so3

BOARD = Board(6, 5, 60.0)
NOISE = 0.3


def fitted(rng: np.random.Generator, n_frames: int = 40, n_cameras: int = 3):  # type: ignore[no-untyped-def]
    """A rig with exact lenses adjusted to noisy corners: what was fitted, where it may be linearised."""
    rig = ring_rig(n_cameras, rng, radius=900, height=600)
    R, t = board_path(rig, BOARD, n_frames, rng, reach=300, every=5)(np.arange(n_frames))
    detections = simulate_detections(rig, BOARD, R, t, rng, noise_px=NOISE)
    result = adjust_boards(rig, R, t, detections)
    placed = Placed.of(
        result.rig, result.board_R[:, None], result.board_t[:, None], detections, np.full(n_cameras, NOISE)
    )
    free = np.zeros((n_cameras, 18), dtype=bool)
    free[1:, :6] = True
    return placed, free, detections, result


def test_gain_is_what_a_new_fit_gains(rng: np.random.Generator) -> None:
    """A camera's focal length freed: the chi-square that the score promises is the one that the adjustment finds."""
    placed, free, detections, result = fitted(rng)
    fit = linearise(placed)
    equations = normals(fit, free, np.zeros((3, 18)), [lambda v: camera_columns(placed, v)[..., 6:8] * (v == 1)])
    gained, chance, value = equations.gain(equations.solved(equations.base), np.array([54, 55]))
    mask = np.zeros(12, dtype=bool)
    mask[:2] = True
    freed = adjust_boards(result.rig, result.board_R, result.board_t, detections, BundleOptions(free={"cam1": mask}))
    assert gained == pytest.approx(2 * (result.cost - freed.cost), rel=0.02)
    moved = freed.rig.cameras[1].intrinsics.parameters[:2] - result.rig.cameras[1].intrinsics.parameters[:2]
    np.testing.assert_allclose(value, moved, rtol=0.02, atol=1e-3)
    assert 1e-4 < chance <= 1


def test_nothing_is_gained_by_a_rigid_shift_of_all_boards(rng: np.random.Generator) -> None:
    placed, free, _, _ = fitted(rng)
    fit = linearise(placed)
    shift = lambda v: (camera_columns(placed, v)[..., 3:6] @ placed.rig.cameras[v].R)[..., :1]  # noqa: E731
    equations = normals(fit, free, np.zeros((3, 18)), [shift])
    gained, _, _ = equations.gain(equations.solved(equations.base), np.array([54]))
    assert gained < 1e-6


def test_disagreement_follows_chi_square(rng: np.random.Generator) -> None:
    placed, _, _, _ = fitted(rng, 120)
    fit = linearise(placed)
    for view in range(3):
        total, dof = fit.disagreement(view)
        used = dof == 6
        assert used.sum() > 20
        assert np.median(total[used]) == pytest.approx(chi2.median(6), rel=0.35)
        assert (total[dof == 0] == 0).all()


def test_disagreement_shows_a_board_seen_elsewhere(rng: np.random.Generator) -> None:
    placed, _, _, _ = fitted(rng)
    total, dof = linearise(placed).disagreement(0)
    pose = int(np.argmax(dof == 6))
    xy = placed.xy.copy()
    xy[0, pose] += 5.0
    after, _ = linearise(replace(placed, xy=xy)).disagreement(0)
    assert after[pose] > 100 * total[pose]
    others = np.arange(len(total)) != pose
    np.testing.assert_allclose(after[others], total[others])


def test_camera_columns_are_derivatives(rng: np.random.Generator) -> None:
    placed, _, _, _ = fitted(rng, 10)
    columns = camera_columns(placed, 1)
    camera = placed.rig.cameras[1]
    for k, step in ((0, 1e-6), (4, 1e-3)):
        delta = np.zeros(6)
        delta[k] = step
        moved = replace(camera, R=exp_so3(delta[:3]) @ camera.R, t=camera.t + delta[3:])
        rig = CameraRig((placed.rig.cameras[0], moved, placed.rig.cameras[2]), "mm")
        change = (rig.project(placed.world)[1] - placed.rig.project(placed.world)[1]) / step
        np.testing.assert_allclose(columns[..., k], change, rtol=1e-3, atol=1e-3)


def test_without_takes_out_cameras_and_frames(rng: np.random.Generator) -> None:
    placed, _, _, _ = fitted(rng, 10)
    frames = placed.frame + 50
    left = placed.without([(("cam0", "cam2"), (52, 53))], np.stack((frames, frames + 100, frames + 200)))
    gone = np.isfinite(placed.xy) & ~np.isfinite(left.xy)
    assert set(frames[gone.any(axis=(0, 2, 3))]) <= {52, 53}
    assert not gone[1].any()
    assert not np.isfinite(left.xy[[0, 2]][:, np.isin(frames, [52, 53])]).any()
