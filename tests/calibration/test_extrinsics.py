"""The first rig: exact on exact corners, unmoved by wrong frames, by name where cameras are cut off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibration.board import Board, BoardDetections
from calibration.errors import InputError
from calibration.extrinsics import ExtrinsicsOptions, _cost, _relative_pose, camera_graph, initial_rig
from calibration.planar import BoardViews
from calibration.rig import CameraRig
from calibration.synthetic import board_motion, ring_rig, simulate_detections
from calibration.transforms import compose, exp_so3, log_so3

BOARD = Board(7, 10, 25.0)
N_CAMERAS = 4
OPTIONS = ExtrinsicsOptions()


def footage(
    rng: np.random.Generator, n_frames: int = 40, noise: float = 0.0, n_cameras: int = N_CAMERAS
) -> tuple[CameraRig, np.ndarray, np.ndarray, BoardDetections]:
    rig = ring_rig(n_cameras, rng, radius=1000, height=700, off_centre_px=0.0)
    R, t = board_motion(rig, BOARD, n_frames, rng, reach=150)
    return rig, R, t, simulate_detections(rig, BOARD, R, t, rng, noise_px=noise, dropout=0.0)


def known(rig: CameraRig) -> dict:
    return {camera.name: camera.intrinsics for camera in rig}


def in_first(rig: CameraRig) -> CameraRig:
    """The same rig in the frame of its first camera."""
    first = rig.cameras[0]
    return rig.moved(1.0, first.R, first.t)


def far(rig: CameraRig, truth: CameraRig) -> tuple[float, float]:
    """Largest rotation error in rad and camera centre error in mm, both rigs in their first camera's frame."""
    truth = in_first(truth)
    turned = [np.linalg.norm(log_so3(a.R @ b.R.T)) for a, b in zip(rig, truth, strict=True)]
    return max(turned), float(np.linalg.norm(rig.centers - truth.centers, axis=1).max())


def only(detections: BoardDetections, keep: np.ndarray) -> BoardDetections:
    """keep: (views, frames) True where the view's corners stay."""
    corners = np.where(keep[:, :, None, None], detections.corners, np.nan)
    return replace(detections, corners=corners, sigma=np.where(keep[:, :, None], detections.sigma, np.nan))


def test_exact_corners_give_the_exact_rig(rng: np.random.Generator) -> None:
    truth, R, t, detections = footage(rng)
    rig, board_R, board_t = initial_rig(detections, known(truth))
    assert rig.names == truth.names
    assert rig.unit == "mm"
    np.testing.assert_array_equal(rig.cameras[0].R, np.eye(3))
    turned, moved = far(rig, truth)
    assert turned < 1e-6
    assert moved < 1e-3
    first = truth.cameras[0]
    expected_R, expected_t = compose(first.R, first.t, R, t)
    seen = np.isfinite(board_t[:, 0, 0])
    assert seen.mean() > 0.9
    np.testing.assert_allclose(board_R[seen, 0], expected_R[seen], atol=1e-6)
    np.testing.assert_allclose(board_t[seen, 0], expected_t[seen], atol=1e-3)


def test_frames_that_do_not_belong_together_are_outvoted(rng: np.random.Generator) -> None:
    truth, _, _, detections = footage(rng, 60, noise=0.3)
    corners, sigma = detections.corners.copy(), detections.sigma.copy()
    wrong = rng.permutation(60)[:15]
    corners[1, wrong], sigma[1, wrong] = corners[1, (wrong + 7) % 60], sigma[1, (wrong + 7) % 60]
    clean = far(initial_rig(detections, known(truth))[0], truth)
    rig, _, _ = initial_rig(replace(detections, corners=corners, sigma=sigma), known(truth))
    turned, moved = far(rig, truth)
    assert turned < 2 * clean[0] + 0.01
    assert moved < 2 * clean[1] + 10


def test_boards_outside_the_gates_are_not_averaged(rng: np.random.Generator) -> None:
    """Boards that camera 1 sees farther away by more than the gate leave the pair exact; by less they do not."""
    truth, R, t, _ = footage(rng, 30)
    pair = truth.subset(truth.names[:2])
    middle = R @ BOARD.object_points.mean(axis=0) + t
    for factor, exact in ((1.15, True), (1.05, False)):
        shifted = t.copy()
        shifted[::3] += (factor - 1) * (middle - pair.centers[1])[::3]
        a = simulate_detections(pair, BOARD, R, t, rng, noise_px=0, dropout=0)
        b = simulate_detections(pair, BOARD, R, shifted, rng, noise_px=0, dropout=0)
        mixed = replace(a, corners=np.stack((a.corners[0], b.corners[1])), sigma=np.stack((a.sigma[0], b.sigma[1])))
        moved = far(initial_rig(mixed, known(pair))[0], pair)[1]
        assert (moved < 1e-2) == exact
    turned = R.copy()
    turned[::3] = R[::3] @ exp_so3([0.0, 0.0, 0.3])
    about = t + (R - turned) @ BOARD.object_points.mean(axis=0)
    b = simulate_detections(pair, BOARD, turned, about, rng, noise_px=0, dropout=0)
    mixed = replace(a, corners=np.stack((a.corners[0], b.corners[1])), sigma=np.stack((a.sigma[0], b.sigma[1])))
    assert far(initial_rig(mixed, known(pair))[0], pair)[0] < 1e-5
    loose = ExtrinsicsOptions(rotation_gate=0.4)
    assert far(initial_rig(mixed, known(pair), loose)[0], pair)[0] > 0.01


def test_strongest_links_make_the_tree(rng: np.random.Generator) -> None:
    """Camera 0 and 2 share two frames in which camera 2's are wrong; through camera 1 the way is long but sound."""
    truth, _, _, detections = footage(rng, 80)
    keep = np.zeros((N_CAMERAS, 80), dtype=bool)
    seen = np.isfinite(detections.corners[..., 0]).sum(axis=2) >= 20
    keep[1] = seen[1]
    keep[0, :40], keep[2, 40:], keep[3, 40:] = seen[0, :40], seen[2, 40:], seen[3, 40:]
    corners, sigma = detections.corners.copy(), detections.sigma.copy()
    both = np.flatnonzero(seen[0] & seen[2])[:2]
    keep[2, both] = keep[0, both] = True
    for frame in both:
        other = np.flatnonzero(seen[2] & (np.abs(np.arange(80) - frame) > 3))[0]
        corners[2, frame], sigma[2, frame] = corners[2, other], sigma[2, other]
    rig, _, _ = initial_rig(only(replace(detections, corners=corners, sigma=sigma), keep), known(truth))
    assert far(rig, truth)[1] < 1e-2


def views_turned(angles: list[float], corners: int) -> BoardViews:
    """Boards 1 m before a camera, turned about its axis by these angles, one per frame; no second poses."""
    n = len(angles)
    R, t, error = np.full((n, 1, 2, 3, 3), np.nan), np.full((n, 1, 2, 3), np.nan), np.full((n, 1, 2), np.nan)
    R[:, 0, 0] = exp_so3([[0.0, 0.0, angle] for angle in angles])
    t[:, 0, 0], error[:, 0, 0] = [0.0, 0.0, 1000.0], 0.1
    return BoardViews(R, t, error, np.full((n, 1), corners))


def test_pair_follows_the_boards_that_agree_not_the_middle() -> None:
    """Three boards at 0, one at 0.25, two at 0.5 rad: least squares would take the middle one."""
    pair = _relative_pose(
        views_turned([0.0] * 6, 30), views_turned([0, 0, 0, 0.25, 0.5, 0.5], 20), np.zeros((1, 3)), OPTIONS
    )
    assert pair is not None
    R, t, weight = pair
    np.testing.assert_allclose(R, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(t, 0.0, atol=1e-6)
    assert weight == pytest.approx(0.5 * 6 * 20)  # half of the boards, the corners that both see


def test_board_cost_is_capped_per_corner(rng: np.random.Generator) -> None:
    truth, R, t, detections = footage(rng, 1)
    seen = np.isfinite(detections.corners[..., 0])
    view, _, corner = np.argwhere(seen)[0]
    corners = detections.corners + np.array([0.0, 3.0])
    corners[view, 0, corner] += 1000.0
    cost = _cost(replace(detections, corners=corners), truth, (np.array([0]), np.array([0])), R, t)
    width = truth.cameras[0].intrinsics.size[0]
    np.testing.assert_allclose(cost, [3.0 * (seen.sum() - 1) + width / 10])


@pytest.mark.parametrize("which", [0, -1])
def test_one_view_alone_cannot_decide_a_board(rng: np.random.Generator, which: int) -> None:
    """One view sees a board displaced (a wrong moment): the pose that the other views agree on is taken."""
    truth, R, t, detections = footage(rng, 40, n_cameras=5)
    per_view = np.isfinite(detections.corners[..., 0]).sum(axis=2) >= 20
    frame = int(np.flatnonzero(per_view.sum(axis=0) >= 3)[0])
    view = int(np.flatnonzero(per_view[:, frame])[which])
    other = int(np.flatnonzero(per_view[view] & (np.arange(40) != frame))[-1])
    corners, sigma = detections.corners.copy(), detections.sigma.copy()
    corners[view, frame], sigma[view, frame] = corners[view, other], sigma[view, other]
    _, board_R, board_t = initial_rig(replace(detections, corners=corners, sigma=sigma), known(truth))
    first = truth.cameras[0]
    expected = compose(first.R, first.t, R[frame], t[frame])
    np.testing.assert_allclose(board_R[frame, 0], expected[0], atol=1e-4)
    np.testing.assert_allclose(board_t[frame, 0], expected[1], atol=0.1)


def test_graph_counts_common_frames(rng: np.random.Generator) -> None:
    _, _, _, detections = footage(rng, 30)
    seen = np.isfinite(detections.corners[..., 0]).sum(axis=2) >= 6
    graph = camera_graph(detections)
    names = detections.view_names
    for i in range(N_CAMERAS):
        for j in range(i):
            common = int((seen[i] & seen[j]).sum())
            assert graph.has_edge(names[i], names[j]) == (common > 0)
            assert not common or graph.edges[names[i], names[j]]["common"] == common


def test_cameras_cut_off_are_named(rng: np.random.Generator) -> None:
    truth, _, _, detections = footage(rng, 40)
    keep = np.ones((N_CAMERAS, 40), dtype=bool)
    keep[3, :20], keep[:3, 20:] = False, False
    with pytest.raises(InputError, match=r"cut off: cam3 .*cam0, cam1, cam2.*film"):
        initial_rig(only(detections, keep), known(truth))


def test_same_input_same_bytes(rng: np.random.Generator) -> None:
    truth, _, _, detections = footage(rng, 50, noise=0.3)
    options = ExtrinsicsOptions(max_common=12)
    one, two = (initial_rig(detections, known(truth), options) for _ in range(2))
    assert one[0].packed().R.tobytes() == two[0].packed().R.tobytes()
    assert one[2].tobytes() == two[2].tobytes()
    assert far(one[0], truth)[1] < 30
