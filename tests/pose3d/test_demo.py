"""The demo's comparison with the truth: exact on exact results, and right on known errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibration.camera import Camera
from calibration.files import load_board, load_rig, save_rig
from calibration.rig import CameraRig
from calibration.transforms import exp_so3
from pose3d import demo
from pose3d.config import load_session
from pose3d.files import load_poses, save_poses, write_groups
from pose3d.poses import Groups, Poses
from pose3d.session import find_files
from pose3d.synthetic import body_length, count_crossings


@pytest.fixture(scope="module")
def truth() -> demo.Simulation:
    return demo.simulate(0)


@pytest.fixture
def results(truth: demo.Simulation, tmp_path: Path) -> Path:
    """Perfect results, in another world: every stage's files as they would be without any error."""
    R, t = exp_so3(np.array([0.3, -0.2, 1.0])), np.array([10.0, 20.0, 30.0])
    save_rig(tmp_path / "calibration.toml", truth.rig.moved(1.0, R, t))
    covariance = np.broadcast_to(np.eye(3), (*truth.animals.points.shape, 3))
    moved = truth.animals.replace(points=truth.animals.points @ R.T + t, extras={"covariance_total": covariance})
    save_poses(tmp_path / "walk/poses3d.nc", moved)
    save_poses(tmp_path / "walk/triangulated.nc", moved.replace(extras={}))
    write_groups(tmp_path / "walk/groups.nc", groups_of(truth))
    return tmp_path


def groups_of(truth: demo.Simulation) -> Groups:
    names = truth.rig.names
    slots = np.full((demo.FRAMES, demo.ANIMALS, len(names)), -1)
    for v, name in enumerate(names):
        frame, slot = np.nonzero(truth.seen.identity[name] >= 0)
        slots[frame, truth.seen.identity[name][frame, slot], v] = slot
    return Groups(names, slots, np.where((slots >= 0).any(axis=2), np.arange(demo.ANIMALS), -1))


def changed(results: Path, **changes: object) -> None:
    poses = load_poses(results / "walk/poses3d.nc")
    save_poses(results / "walk/poses3d.nc", poses.replace(**changes))


def of(stage: str, truth: demo.Simulation, results: Path) -> dict:
    return demo.compare(stage, truth, results, results / "walk")


def test_the_recording_is_hard_enough(truth: demo.Simulation) -> None:
    assert len(truth.rig) >= 4
    assert all(np.abs(camera.intrinsics.dist[:2]).min() > 0.01 for camera in truth.rig)
    assert (demo.ANIMALS, demo.FRAMES >= 150, len(truth.animals.skeleton) >= 10) == (3, True, True)
    for seed in range(5):
        assert count_crossings(demo.simulate(seed).animals) >= 3
    assert (truth.seen.found.sum(axis=0) > 1).mean() > 0.95
    assert truth.seen.hidden.any()


def test_perfect_results_have_no_error(truth: demo.Simulation, results: Path) -> None:
    assert all(abs(value) < 1e-6 for value in of("calibrate.calibration", truth, results)["error"].values())
    assert list(of("identify", truth, results)["error"].values()) == [100.0, 0.0]
    for stage in ("triangulate", "refine"):
        told = of(stage, truth, results)
        assert told["identity"] == {"IDF1": 1.0, "switches": 0, "fragmentations": 0}
        assert told["error, mm"]["p95"] < 1e-6
        assert told["delivered, % of what two cameras saw"] == 100.0
    assert of("refine", truth, results)["points inside their 95% ellipsoid, %"] == 100.0
    assert "points inside their 95% ellipsoid, %" not in of("triangulate", truth, results)
    assert of("poses2d", truth, results) == {}


def test_a_displaced_camera_and_a_wrong_focal_length(truth: demo.Simulation, results: Path) -> None:
    first, *others = truth.rig
    lens = first.intrinsics
    K = lens.K * np.array([[1.01, 1, 1], [1, 1.01, 1], [1, 1, 1]])
    t = first.t - first.R @ np.array([8.0, 0.0, 0.0])
    save_rig(
        results / "calibration.toml", CameraRig((Camera(first.name, replace(lens, K=K), first.R, t), *others), "mm")
    )
    error = of("calibrate.calibration", truth, results)["error"]
    assert error["largest"] == pytest.approx(6.0, abs=0.5)  # of 8 mm, a quarter goes into the best rigid motion
    assert error["camera centres, mm, median"] < error["largest"]
    assert error["focal lengths, %, largest"] == pytest.approx(1.0)
    assert error["keypoints in the images, px, rms"] > 1.0


def test_wrong_groups(truth: demo.Simulation, results: Path) -> None:
    groups = groups_of(truth)
    slots = groups.slots.copy()
    slots[:50, [0, 1], 0] = slots[:50, [1, 0], 0]
    write_groups(results / "walk/groups.nc", replace(groups, slots=slots))
    error = of("identify", truth, results)["error"]
    theirs = sum((who >= 0).sum() for who in truth.seen.identity.values())
    swapped = (groups.slots[:50, :2, 0] >= 0).sum()
    assert error["detections with the right animal, %"] == pytest.approx(100 * (1 - swapped / theirs))
    assert error["wrongly grouped, %"] == pytest.approx(100 * swapped / theirs)


def test_pose_errors_in_body_lengths(truth: demo.Simulation, results: Path) -> None:
    poses = load_poses(results / "walk/poses3d.nc")
    points = poses.points + np.array([0.0, 2.0, 0.0])
    points[100:, 0] = np.nan
    changed(results, points=points)
    told = of("refine", truth, results)
    assert told["error, mm"]["median"] == pytest.approx(2.0)
    assert told["error, % of body length"]["median"] == pytest.approx(200 / body_length(truth.animals))
    seen = truth.seen.found.sum(axis=0) > 1
    assert told["delivered, % of what two cameras saw"] == pytest.approx(100 * (1 - seen[100:, 0].sum() / seen.sum()))


def test_ellipsoids_are_turned_into_the_true_world(truth: demo.Simulation, results: Path) -> None:
    """Errors drawn from an elongated covariance lie in its 95 % ellipsoid in 95 % of all cases."""
    poses = load_poses(results / "walk/poses3d.nc")
    rng = np.random.default_rng(0)
    axes = exp_so3(rng.normal(size=3)) @ np.diag([0.05, 0.5, 3.0])
    off = rng.normal(size=poses.points.shape) @ axes.T
    covariance = np.broadcast_to(axes @ axes.T, (*poses.points.shape, 3))
    order = [2, 0, 1]  # identities need not be those of the truth
    changed(
        results,
        points=(poses.points + off)[:, order],
        extras={"covariance_total": covariance},
        ids=poses.ids,
        names={},
    )
    inside = of("refine", truth, results)["points inside their 95% ellipsoid, %"]
    assert inside == pytest.approx(95.0, abs=1.0)


def test_the_session_is_one_as_users_have_them(truth: demo.Simulation, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(demo, "BOARD_FRAMES", 2)
    seen: list[tuple[str, int, int]] = []
    report = demo.write_session(tmp_path, truth, 0, progress=lambda *what: seen.append(what))
    assert report.summary["crossings"] == count_crossings(truth.animals)
    assert seen[-1] == ("rendering the board", 8, 8)
    session = load_session(tmp_path)
    assert list(find_files(session, "calibration")) == list(truth.rig.names)
    assert list(find_files(session, "poses2d", "walk")) == list(truth.rig.names)
    assert load_board(tmp_path / "board.toml") == demo.BOARD
    for name in truth.rig.names:
        poses: Poses = load_poses(tmp_path / f"recordings/walk/poses2d/{name}.nc")
        np.testing.assert_array_equal(poses.points, truth.seen.views[name].points)
        assert (poses.ids == -1).all()
    np.testing.assert_allclose(load_rig(tmp_path / "truth/calibration.toml").centers, truth.rig.centers)
    assert demo.write_session(tmp_path, truth, 0).skipped
    assert not demo.write_session(tmp_path, demo.simulate(1), 1).skipped
