"""The pipeline on a small session: stages in order, files equal to what the functions give, whatever the windows."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibration.errors import InputError
from calibration.files import load_rig, save_rig
from calibration.rig import CameraRig
from calibration.synthetic import ring_rig
from pose3d.config import load_session
from pose3d.files import load_poses, read_groups, save_poses
from pose3d.identity import identify
from pose3d.pipeline import reconstruct_folder, run_session
from pose3d.poses import Poses
from pose3d.refinement import RefineOptions, add_rig_covariance, refine
from pose3d.session import Session
from pose3d.synthetic import simulate_animals, simulate_views
from pose3d.triangulation import triangulate

FRAMES = 45
TOML = """
[session]
recordings = ["walk"]
window = {window}
[calibration]
file = "calibration.toml"
[refine]
window = 20
margin = 10
[scene]
size = [64, 48]
every = 30
[overlay]
width = 160
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session's folder with a given calibration (with a covariance) and 2D poses of three cameras."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(3)
    rig = ring_rig(3, rng, radius=650.0, height=450.0, size=(480, 360), focal_px=450.0)
    covariance = np.diag(np.tile([1e-8] * 3 + [1e-4] * 3 + [0.0] * 12, 3))
    save_rig(folder / "calibration.toml", CameraRig(rig.cameras, rig.unit, covariance))
    animals = simulate_animals(rng, 2, FRAMES)
    for name, poses in simulate_views(animals, rig, rng).views.items():
        save_poses(folder / f"recordings/walk/poses2d/{name}.nc", poses)
    save_poses(folder / "truth.nc", animals)
    return folder


def session_of(data: Path, output: Path, window: int = 20) -> Session:
    (data / "pose3d.toml").write_text(TOML.format(window=window))
    return load_session(data, output=output)


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a whole run in windows of 20 frames."""
    output = tmp_path_factory.mktemp("done")
    reports = list(run_session(session_of(data, output)))
    assert [(recording, report.stage) for recording, report in reports] == [("", "calibrate.calibration")] + [
        ("walk", stage) for stage in ("poses2d", "identify", "triangulate", "refine", "export", "scene", "overlay")
    ]
    assert not any(report.skipped for _, report in reports)
    assert all(path.is_file() for _, report in reports for path in report.outputs)
    return output


def views_in(results: Path) -> dict[str, Poses]:
    return {f"cam{i}": load_poses(results / f"walk/poses2d/cam{i}.nc") for i in range(3)}


def assert_same(found: Poses, expected: Poses) -> None:
    for name in ("points", "score", "ids", "frame", "time"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    assert set(found.extras) == set(expected.extras)
    for name, array in expected.extras.items():
        np.testing.assert_array_equal(found.extras[name], array, err_msg=name)


def test_files_hold_what_the_functions_give(done: Path) -> None:
    rig, views = load_rig(done / "calibration.toml"), views_in(done)
    groups = read_groups(done / "walk/groups.nc")
    expected = identify(views, rig)
    for name in ("slots", "ids", "confidence"):
        np.testing.assert_array_equal(getattr(groups, name), getattr(expected, name), err_msg=name)
    triangulated = load_poses(done / "walk/triangulated.nc")
    assert_same(triangulated, triangulate(views, groups, rig))
    refined = refine(triangulated, views, groups, rig, RefineOptions(window=20, margin=10))
    assert_same(load_poses(done / "walk/poses3d.nc"), add_rig_covariance(refined, views, groups, rig))


def test_poses_are_true_and_named(data: Path, done: Path) -> None:
    truth, poses = load_poses(data / "truth.nc"), load_poses(done / "walk/poses3d.nc")
    assert poses.unit == "mm"
    assert poses.shape[:2] == (FRAMES, 2)
    assert (poses.ids == [0, 1]).all()
    apart = np.linalg.norm(poses.points[:, :, None] - truth.points[:, None], axis=-1)
    apart = np.nanmedian(apart, axis=(0, 3))
    assert min(np.diag(apart).max(), np.fliplr(apart).diagonal().max()) < 3.0
    total, random = poses.extras["covariance_total"], poses.extras["covariance"]
    rig_part = np.trace(total - random, axis1=-2, axis2=-1)[~poses.missing]
    assert (rig_part > 0).all()


def test_results_do_not_depend_on_the_windows(data: Path, done: Path, tmp_path: Path) -> None:
    list(run_session(session_of(data, tmp_path, window=13)))
    for name in ("triangulated.nc", "poses3d.nc"):
        assert_same(load_poses(tmp_path / "walk" / name), load_poses(done / "walk" / name))
    assert (tmp_path / "walk/poses3d.csv").read_bytes() == (done / "walk/poses3d.csv").read_bytes()


def test_a_second_run_does_nothing_and_force_everything(data: Path, done: Path) -> None:
    session = session_of(data, done)
    assert all(report.skipped for _, report in run_session(session))
    before = (done / "walk/poses3d.nc").read_bytes()
    assert not any(report.skipped for _, report in run_session(session, force=True))
    assert (done / "walk/poses3d.nc").read_bytes() == before


def test_a_changed_option_runs_its_stage_and_what_depends_on_it(data: Path, done: Path, tmp_path: Path) -> None:
    output = shutil.copytree(done, tmp_path / "results")
    session = session_of(data, output)
    changed = replace(session, options=dict(session.options) | {"refine": RefineOptions(window=20, margin=11)})
    skipped = {report.stage: report.skipped for _, report in run_session(changed)}
    assert [stage for stage, state in skipped.items() if state] == [
        "calibrate.calibration",
        "poses2d",
        "identify",
        "triangulate",
    ]


def test_a_recordings_own_calibration_overrides_the_sessions(data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(data, tmp_path / "session")
    rig = load_rig(folder / "calibration.toml")
    save_rig(folder / "recordings/walk/calibration.toml", rig.moved(1.0, np.eye(3), np.array([1000.0, 0.0, 0.0])))
    reports = list(run_session(session_of(folder, tmp_path / "out")))
    assert next(report.stage for recording, report in reports if recording == "walk") == "calibrate.calibration"
    poses, truth = load_poses(tmp_path / "out/walk/poses3d.nc"), load_poses(data / "truth.nc")
    shift = np.nanmean(poses.points, axis=(0, 1, 2)) - truth.points.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(shift, [1000.0, 0.0, 0.0], atol=5.0)


def test_only_one_recording(data: Path, tmp_path: Path) -> None:
    session = replace(session_of(data, tmp_path), recordings=("walk", "other"))
    assert {recording for recording, _ in run_session(session, "walk")} == {"", "walk"}
    with pytest.raises(InputError, match=r"recording 'wal' is not in .*; did you mean 'walk'"):
        list(run_session(session, "wal"))


def test_reconstructing_a_folder_gives_the_same_poses(data: Path, done: Path, tmp_path: Path) -> None:
    output = tmp_path / "my.nc"
    reports = list(
        reconstruct_folder(data / "recordings/walk/poses2d", data / "calibration.toml", output, individuals=2)
    )
    assert reports[-1].outputs == (output,)
    mine, other = load_poses(output), load_poses(done / "walk/triangulated.nc")
    assert np.nanmedian(np.linalg.norm(mine.points - other.points, axis=-1)) < 3.0
    again = reconstruct_folder(data / "recordings/walk/poses2d", data / "calibration.toml", output, individuals=2)
    assert all(report.skipped for report in again)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".my.pose3d", "my.nc"]
    with pytest.raises(InputError, match="expected 2D poses, a file or folder for each camera, found none"):
        list(reconstruct_folder(tmp_path / ".my.pose3d/.pose3d", data / "calibration.toml", output))
