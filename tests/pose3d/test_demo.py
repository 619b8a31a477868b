"""The demo's comparison with the truth: exact on exact results, and right on known errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibration.camera import Camera
from calibration.errors import InputError
from calibration.files import load_board, load_rig, save_rig
from calibration.footage import open_footage
from calibration.rig import CameraRig
from calibration.transforms import exp_so3
from pose3d import demo
from pose3d.config import load_session
from pose3d.files import load_poses, save_poses, write_groups
from pose3d.nn.network import load_network
from pose3d.poses import Groups, Poses
from pose3d.session import find_files
from pose3d.synthetic import QUADRUPED, body_length, count_crossings


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
    for name in truth.rig.names:
        found = truth.in_view(name).replace(ids=None, names={})
        save_poses(tmp_path / f"walk/poses2d/{name}.nc", found)
        save_poses(tmp_path / f"walk/assembled/{name}.nc", found)
    return tmp_path


def groups_of(truth: demo.Simulation) -> Groups:
    """In `in_view` an animal's slot is its number, empty where the camera sees nothing of it."""
    shown = truth.visible.any(axis=3).transpose(1, 2, 0)
    slots = np.where(shown, np.arange(demo.ANIMALS)[:, None], -1)
    return Groups(truth.rig.names, slots, np.where(shown.any(axis=2), np.arange(demo.ANIMALS), -1))


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
    assert 0.8 < (truth.visible.sum(axis=0) > 1).mean() < 1.0


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
    found = of("assemble", truth, results)
    assert set(found["error, px, median"].values()) == {0.0}
    assert set(found["found, % of what the camera sees"].values()) == {100.0}


def test_a_displaced_camera_and_a_wrong_focal_length(truth: demo.Simulation, results: Path) -> None:
    first, *others = truth.rig
    lens = first.intrinsics
    K = lens.K * np.array([[1.01, 1, 1], [1, 1.01, 1], [1, 1, 1]])
    t = first.t - first.R @ np.array([8.0, 0.0, 0.0])
    save_rig(
        results / "calibration.toml", CameraRig((Camera(first.name, replace(lens, K=K), first.R, t), *others), "mm")
    )
    error = of("calibrate.calibration", truth, results)["error"]
    left = 8.0 * (1 - 1 / len(truth.rig))  # one share goes into the best rigid motion, and a little into its turn
    assert left - 1.0 < error["largest"] < left
    assert error["camera centres, mm, median"] < error["largest"]
    assert error["focal lengths, %, largest"] == pytest.approx(1.0)
    assert error["keypoints in the images, px, rms"] > 1.0


def test_wrong_groups(truth: demo.Simulation, results: Path) -> None:
    groups = groups_of(truth)
    slots = groups.slots.copy()
    slots[:50, [0, 1], 0] = slots[:50, [1, 0], 0]
    write_groups(results / "walk/groups.nc", replace(groups, slots=slots))
    error = of("identify", truth, results)["error"]
    theirs = truth.visible.any(axis=3).sum()
    swapped = (groups.slots[:50, :2, 0] >= 0).sum()
    assert error["detections with the right animal, %"] == pytest.approx(100 * (1 - swapped / theirs))
    assert error["wrongly grouped, %"] == pytest.approx(100 * swapped / theirs)


def test_a_seed_below_nought_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="seed: expected a whole number from 0, got -1"):
        next(demo.run_demo(tmp_path, -1))


def test_pose_errors_in_body_lengths(truth: demo.Simulation, results: Path) -> None:
    poses = load_poses(results / "walk/poses3d.nc")
    points = poses.points + np.array([0.0, 2.0, 0.0])
    points[100:, 0] = np.nan
    changed(results, points=points)
    told = of("refine", truth, results)
    assert told["error, mm"]["median"] == pytest.approx(2.0)
    assert told["error, % of body length"]["median"] == pytest.approx(200 / body_length(truth.animals))
    seen = truth.visible.sum(axis=0) > 1
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


def test_false_detections_are_nobodys(truth: demo.Simulation) -> None:
    """Detections are told apart by their keypoints' places, whatever their slots; one beside all animals is nobody."""
    seen = truth.in_view("cam0")
    ghost = np.nan_to_num(seen.points[:, :1], nan=300.0) + 400.0
    found = Poses(np.concatenate([ghost, seen.points[:, ::-1] + 3.0], axis=1), skeleton=seen.skeleton)
    expected = np.where(seen.missing.all(axis=2), -1, np.arange(demo.ANIMALS))[:, ::-1]
    identity = demo._identified(seen, found)
    assert (identity[:, 0] == -1).all()
    np.testing.assert_array_equal(identity[:, 1:], expected)


@pytest.mark.parametrize("seed", [0, 3])
def test_what_a_camera_sees(seed: int) -> None:
    truth = demo.simulate(seed)
    seen = truth.in_view("cam1")
    np.testing.assert_array_equal(~seen.missing, truth.visible[1])
    np.testing.assert_allclose(
        seen.points[truth.visible[1]], truth.rig["cam1"].project(truth.animals.points)[truth.visible[1]]
    )


def test_the_session_is_one_as_users_have_them(tmp_path: Path, monkeypatch) -> None:
    for name, value in {"BOARD_FRAMES": 2, "FRAMES": 4, "CAMERAS": 2}.items():
        monkeypatch.setattr(demo, name, value)
    truth = demo.simulate(0)
    seen: list[tuple[str, int, int]] = []
    report = demo.write_session(tmp_path, truth, 0, progress=lambda *what: seen.append(what))
    assert report.summary["crossings"] == count_crossings(truth.animals)
    assert ("rendering the board", 4, 4) in seen
    assert seen[-1] == ("filming the animals", 2, 2)
    assert demo.take_network(tmp_path).outputs[0].is_file()
    session = load_session(tmp_path)
    for what, recording in (("calibration", ""), ("video", "walk")):
        assert list(find_files(session, what, recording)) == list(truth.rig.names)
    assert session.options["predict"].model == tmp_path / demo.MODEL
    assert load_board(tmp_path / "board.toml") == demo.BOARD
    for name in truth.rig.names:
        np.testing.assert_array_equal(
            load_poses(tmp_path / f"truth/poses2d/{name}.nc").points, truth.in_view(name).points
        )
        with open_footage(tmp_path / f"recordings/walk/{name}.mp4") as footage:
            assert (footage.n_frames, footage.size) == (4, truth.rig[name].intrinsics.size)
    np.testing.assert_allclose(load_rig(tmp_path / "truth/calibration.toml").centers, truth.rig.centers)
    assert demo.write_session(tmp_path, truth, 0).skipped
    assert not demo.write_session(tmp_path, demo.simulate(1), 1).skipped


def test_the_shipped_network_is_small_and_knows_the_animals() -> None:
    assert demo.SHIPPED.stat().st_size < 5e6
    network = load_network(demo.SHIPPED)
    assert (network.spec.backbone, network.spec.width) == ("mobilenet_v2", 0.5)
    assert network.spec.skeleton.keypoints == QUADRUPED.keypoints
