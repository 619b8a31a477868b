"""Stages of 3D poses: windows, what is learnt from samples, and the numbers of the summaries."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibration.errors import InputError
from calibration.files import save_rig
from calibration.synthetic import ring_rig
from pose3d.files import load_poses, read_groups, save_poses, write_groups
from pose3d.identity import identify
from pose3d.poses import ABSENT, BRIDGED, MEASURED, Groups, Poses
from pose3d.refinement import RefineOptions, learn_motion
from pose3d.stages import poses3d
from pose3d.stages.recording import Recording, read_timeline, write_timeline
from pose3d.synthetic import simulate_animals, simulate_views
from pose3d.timeline import Timeline
from pose3d.triangulation import TriangulationOptions, triangulate

FRAMES = 60


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """A recording whose 2D poses and groups are there."""
    folder = tmp_path_factory.mktemp("walk")
    rng = np.random.default_rng(5)
    rig = ring_rig(3, rng, radius=650.0, height=450.0, size=(480, 360), focal_px=450.0)
    save_rig(folder / "calibration.toml", rig)
    views = simulate_views(simulate_animals(rng, 2, FRAMES), rig, rng).views
    for name, poses in views.items():
        save_poses(folder / f"poses2d/{name}.nc", poses)
    write_groups(folder / "groups.nc", identify(views, rig))
    return Recording(folder, tuple(views), rig, folder / "calibration.toml", window=25)


def test_windows_cover_all_rows_once(recording: Recording) -> None:
    assert recording.n_frames() == FRAMES
    assert recording.spans() == [(0, 25), (25, 50), (50, 60)]
    assert [len(p.frame) for p in recording.views(50, 75).values()] == [10, 10, 10]
    assert recording.groups(25, 50).slots.shape[0] == 25


def test_inputs_name_what_a_stage_reads(recording: Recording) -> None:
    inputs = recording.inputs("groups.nc")
    assert set(inputs) == {"poses2d/cam0.nc", "poses2d/cam1.nc", "poses2d/cam2.nc", "groups.nc", "calibration"}
    save_rig(recording.calibration, type(recording.rig)(recording.rig.cameras, "mm", np.eye(54)))
    assert "covariance" in recording.inputs()
    save_rig(recording.calibration, recording.rig)


def test_noise_is_that_of_the_whole_recording_or_as_given(recording: Recording) -> None:
    views, groups = recording.views(0, FRAMES), recording.groups(0, FRAMES)
    whole = triangulate(views, groups, recording.rig)
    noise = poses3d._noise(recording, TriangulationOptions())
    given = triangulate(views, groups, recording.rig, TriangulationOptions(noise_px=noise))
    np.testing.assert_allclose(given.extras["covariance"], whole.extras["covariance"], rtol=1e-12)
    assert noise == pytest.approx(1.2, rel=0.3)  # px, as put in
    assert poses3d._noise(recording, TriangulationOptions(noise_px=0.7)) == 0.7


def test_noise_of_a_long_recording_is_read_in_stretches(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poses3d, "NOISE_FRAMES", 10)
    monkeypatch.setattr(poses3d, "NOISE_STRETCHES", 3)
    seen: list[tuple[int, int]] = []
    views = Recording.views

    def spying(self: Recording, start: int, stop: int) -> dict[str, Poses]:
        seen.append((start, stop))
        return views(self, start, stop)

    monkeypatch.setattr(Recording, "views", spying)
    assert poses3d._noise(recording, TriangulationOptions()) == pytest.approx(1.2, rel=0.4)
    assert seen == [(0, 10), (25, 35), (50, 60)]


def test_a_sampled_motion_model_is_the_one_that_refine_learns(recording: Recording) -> None:
    views, groups = recording.views(0, FRAMES), recording.groups(0, FRAMES)
    whole = triangulate(views, groups, recording.rig)

    def stretch(start: int, stop: int) -> poses3d.Stretch:
        part = {name: poses.window(start, stop) for name, poses in views.items()}
        return whole.window(start, stop), part, groups.window(start, stop)

    for options in (RefineOptions(), RefineOptions(sample=40)):
        mine = poses3d._learn(recording, stretch, options, np.unique(whole.ids[whole.ids >= 0]))
        theirs = learn_motion(whole, views, groups, recording.rig, options)
        for name in ("ids", "noise", "acceleration", "bone_length", "bone_spread"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name), err_msg=name)


def test_export_follows_the_ending(recording: Recording, tmp_path: Path) -> None:
    poses = triangulate(recording.views(0, FRAMES), recording.groups(0, FRAMES), recording.rig)
    save_poses(recording.folder / "poses3d.nc", poses)
    for name in ("a.csv", "a.nc"):
        report = poses3d.export_poses(recording, tmp_path / name)
        assert report.outputs == (tmp_path / name,)
        assert report.summary["megabytes"] == (tmp_path / name).stat().st_size / 1e6
        unit = "mm" if name == "a.csv" else None
        np.testing.assert_allclose(load_poses(tmp_path / name, unit=unit).points, poses.points, rtol=1e-12)


def test_counts_of_groups(tmp_path: Path) -> None:
    slots = np.array([[[0, 0], [1, -1]], [[0, -1], [-1, -1]], [[0, 1], [1, 0]], [[0, 1], [-1, 0]]])
    ids = np.array([[0, 3], [0, -1], [0, 3], [0, 3]])
    write_groups(tmp_path / "a.nc", Groups(("a", "b"), slots[:2], ids[:2]))
    write_groups(tmp_path / "b.nc", Groups(("a", "b"), slots[2:], ids[2:]))
    who = poses3d._who([tmp_path / "a.nc", tmp_path / "b.nc"], 4)
    assert who == {
        "individuals": 2,
        "frames": 4,
        "share of frames seen": {"individual_0": 1.0, "individual_3": 0.75},
        "views of an individual, mean": 11 / 7,
    }


def test_numbers_of_poses(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(40, 2, 5, 3))
    points[:10, 0, 0] = np.nan
    points[:, 1, :, :] = np.nan
    points[:20, 1, 1:] = 1.0
    status = np.where(np.isnan(points[..., 0]), ABSENT, MEASURED)
    status[30:, 0, 4] = BRIDGED
    error = np.where(np.isnan(points[..., 0]), np.nan, rng.uniform(1, 3, points.shape[:3]))
    covariance = np.broadcast_to(np.diag([1.0, 4.0, 4.0]), (*points.shape, 3))
    extras = {"status": status, "reprojection_error": error, "covariance": covariance}
    save_poses(tmp_path / "p.nc", Poses(points, unit="cm", extras=extras))
    told = poses3d._how_good(tmp_path / "p.nc")
    assert told["keypoints"] == 40 * 5 - 10 + 80
    assert told["share of a seen individual's keypoints"] == pytest.approx(270 / 300)
    assert told["bridged"] == 10
    assert told["reprojection px"]["median"] == pytest.approx(np.nanmedian(error), rel=0.02)
    assert told["reprojection px"]["p95"] == pytest.approx(np.nanpercentile(error, 95), rel=0.02)
    assert told["standard deviation cm"]["median"] == pytest.approx(3.0, rel=0.01)


def test_quantiles_of_histograms() -> None:
    rng = np.random.default_rng(1)
    values = np.exp(rng.normal(0, 2, 20000))
    histogram = poses3d._histogram(np.append(values, [np.nan, np.inf]))
    assert histogram.sum() == 20000
    for q in (0.05, 0.5, 0.95):
        assert poses3d._quantile(histogram, q) == pytest.approx(np.quantile(values, q), rel=0.01)
    assert np.isnan(poses3d._quantile(poses3d._histogram(np.array([np.nan])), 0.5))


def test_timeline_comes_back(tmp_path: Path) -> None:
    timeline = Timeline(
        ("b", "a"), np.array([[0, -1], [1, 2]]), np.array([0.0, 0.5]), np.array([[0.1, 0], [0.2, 0]]), np.array([3, 5])
    )
    write_timeline(tmp_path / "t.npz", timeline)
    back = read_timeline(tmp_path / "t.npz")
    assert back.view_names == ("b", "a")
    for name in ("frame", "time", "shift", "step"):
        np.testing.assert_array_equal(getattr(back, name), getattr(timeline, name))


def test_force_is_passed_on(recording: Recording) -> None:
    assert not poses3d.identify_views(recording).skipped
    assert poses3d.identify_views(recording).skipped
    assert not poses3d.identify_views(replace(recording, force=True)).skipped


def test_corrections_are_applied_to_all_views_and_doubts_are_written(recording: Recording, tmp_path: Path) -> None:
    shutil.copytree(recording.folder / "poses2d", tmp_path / "poses2d")
    mine = replace(recording, folder=tmp_path)
    before = poses3d.identify_views(mine)
    plain = read_groups(tmp_path / "groups.nc")
    assert (tmp_path / "suspected_swaps.csv").read_text().startswith("frame,first,second,probability,cost_frames\n")
    assert before.summary["corrections"] == 0
    (tmp_path / "corrections.csv").write_text("# looked at by hand\nframe, first, second, why\n31, 0, 1, ears\n")
    after = poses3d.identify_views(mine)
    assert not after.skipped
    assert after.summary["corrections"] == 1
    groups = read_groups(tmp_path / "groups.nc")
    np.testing.assert_array_equal(groups.slots[:31], plain.slots[:31])
    np.testing.assert_array_equal(groups.slots[31:], plain.slots[31:, ::-1])
    assert poses3d.identify_views(mine).skipped


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("frame,first\n3,0\n", "columns frame, first, second"),
        ("frame,first,second\n3,a,0\n", "whole numbers in columns frame, first, second"),
        ("", "columns frame, first, second"),
        ("frame,first,second\n60,0,1\n", "there is no frame 60; expected numbers from 0 to 59"),
        ("frame,first,second\n3,0,7\n", "individuals 0 and 7: expected two of 0 to 1"),
    ],
)
def test_corrections_that_cannot_be_are_refused(recording: Recording, tmp_path: Path, table: str, message: str) -> None:
    shutil.copytree(recording.folder / "poses2d", tmp_path / "poses2d")
    (tmp_path / "corrections.csv").write_text(table)
    with pytest.raises(InputError, match=message) as error:
        poses3d.identify_views(replace(recording, folder=tmp_path))
    assert "corrections.csv" in str(error.value)
