"""Suggestions of a session: bad frames first, stubs that read back to the same points, and what is left out."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest
import yaml

from calibration.errors import InputError
from calibration.files import save_rig
from calibration.synthetic import ring_rig
from pose3d.cli import main
from pose3d.files import load_labels, load_poses, save_poses, write_groups
from pose3d.poses import Groups
from pose3d.session import LabelTable, Session
from pose3d.stages.recording import write_timeline
from pose3d.stages.suggestion import SuggestOptions, suggest_frames, takes_of_predictions, takes_of_session
from pose3d.synthetic import Faults, simulate_animals, simulate_views
from pose3d.timeline import Timeline
from pose3d.video import MovieWriter

FRAMES, SIZE = 120, (480, 360)
LATE = 7
"""Frame of cam1 at the first moment: its videos begin earlier."""
BAD = {("cam0", 20), ("cam0", 70), ("cam1", 40 + LATE), ("cam1", 100 + LATE), ("cam2", 55), ("cam2", 90)}
CLEAN = Faults(missed=0.0, outlier=0.0, dropout=0.0, ghosts=0.0, occluded_missed=0.0, occluded_noise=1.0)
OPTIONS = SuggestOptions(count=6, apart=5)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session's folder with videos and the results of a run, in which two frames of each camera are bad."""
    folder = tmp_path_factory.mktemp("session")
    rng = np.random.default_rng(3)
    rig = ring_rig(3, rng, radius=650.0, height=450.0, size=SIZE, focal_px=450.0)
    truth = simulate_animals(rng, 2, FRAMES)
    seen = simulate_views(truth, rig, rng, CLEAN)
    results = folder / "results/walk"
    slots = np.full((FRAMES, 2, 3), -1)
    frames = np.tile(np.arange(FRAMES)[:, None], 3)
    frames[:, 1] += LATE
    for v, (name, poses) in enumerate(seen.views.items()):
        score, points = np.where(poses.missing, 0.0, 0.9), poses.points.copy()
        for row, way in zip(sorted(f - LATE * (v == 1) for c, f in BAD if c == name), (0, 1), strict=True):
            if way:
                score[row] *= 0.3
            else:
                points[row, 0, 2:5] += 60.0
        save_poses(results / f"poses2d/{name}.nc", poses.replace(points=points, score=score))
        for animal in range(2):
            here = seen.identity[name] == animal
            slots[:, animal, v] = np.where(here.any(axis=1), here.argmax(axis=1), -1)
        with MovieWriter(folder / f"recordings/walk/{name}.mp4", 25.0, SIZE) as movie:
            for frame in range(FRAMES + LATE):
                movie.write(np.full((SIZE[1], SIZE[0], 3), 40 + frame, np.uint8))
    write_groups(results / "groups.nc", Groups(rig.names, slots, np.tile([0, 1], (FRAMES, 1))))
    save_poses(results / "poses3d.nc", truth)
    save_rig(folder / "results/calibration.toml", rig)
    time = np.arange(FRAMES) / 25.0
    write_timeline(results / "poses2d/timeline.npz", Timeline(rig.names, frames, time))
    (folder / "pose3d.toml").write_text('[session]\nrecordings = ["walk"]\n')
    return folder


def session_in(folder: Path) -> Session:
    return Session(
        file=folder / "pose3d.toml", data=folder, output=folder / "results", recordings=("walk",), cameras=()
    )


@pytest.fixture(scope="module")
def told(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the suggestions."""
    folder = tmp_path_factory.mktemp("suggestions")
    session = session_in(made)
    report = suggest_frames(folder, takes_of_session(session), session, OPTIONS)
    assert (report.stage, report.skipped, report.summary["suggested"]) == ("suggest", False, 6)
    assert suggest_frames(folder, takes_of_session(session), session, OPTIONS).skipped
    return folder


def predictions(made: Path, camera: str, frame: int) -> np.ndarray:
    """(animals, keypoints, 2) the 2D poses of a frame of a video, animals in order."""
    poses = load_poses(made / f"results/walk/poses2d/{camera}.nc")
    points = poses.points[frame - LATE * (camera == "cam1")]
    return ordered(points)


def ordered(points: np.ndarray) -> np.ndarray:
    """The animals that are there, by their first coordinate."""
    points = points[np.isfinite(points[..., 0]).any(axis=1)]
    return points[np.argsort(np.nanmin(points[..., 0], axis=1))]


def test_bad_frames_are_told_and_shown(told: Path) -> None:
    table = pd.read_csv(told / "suggestions.csv")
    assert table["rank"].tolist() == [1, 2, 3, 4, 5, 6]
    assert {(row.camera, row.frame) for row in table.itertuples()} == BAD
    assert (table["video"] == table["camera"] + ".mp4").all()
    assert (table["recording"] == "walk").all()
    why = dict(zip(zip(table["camera"], table["frame"], strict=True), table["why"], strict=True))
    assert why["cam0", 20].startswith("ear_right, neck, back doubtful: ")
    assert "from where the other views have it" in why["cam0", 20]
    assert why["cam0", 70] == "all keypoints doubtful: score 0.27"
    assert cv2.imread(str(told / "suggestions.png")) is not None


def test_sleap_stubs_read_back(made: Path, told: Path) -> None:
    for camera in ("cam0", "cam1", "cam2"):
        labels = load_labels(told / f"sleap/{camera}.slp", camera=camera)
        assert {(camera, frame) for frame in labels.frame.tolist()} == {one for one in BAD if one[0] == camera}
        assert labels.skeleton.edges
        for row, frame in enumerate(labels.frame.tolist()):
            np.testing.assert_allclose(ordered(labels.points[row]), predictions(made, camera, frame), atol=1e-9)
            assert abs(int(np.median(labels.image(row))) - 40 - frame) <= 2
        with h5py.File(told / f"sleap/{camera}.slp") as file:
            suggested = [json.loads(row)["frame_idx"] for row in file["suggestions_json"][()]]
            assert set(suggested) == set(labels.frame.tolist())
            assert (file["instances"]["instance_type"] == 1).all(), "predictions, until somebody corrects them"


def test_deeplabcut_stub_reads_back(made: Path, told: Path, tmp_path: Path) -> None:
    project = shutil.copytree(told / "deeplabcut", tmp_path / "moved")
    config = yaml.safe_load((project / "config.yaml").read_text())
    assert config["multianimalproject"] is True
    assert config["scorer"] == "pose3d"
    for camera in ("cam0", "cam1", "cam2"):
        folder = project / f"labeled-data/walk-{camera}"
        for name in ("machinelabels-iter0.h5", "machinelabels.csv"):
            labels = load_labels(folder / name, camera=camera)
            assert {(camera, frame) for frame in labels.frame.tolist()} == {one for one in BAD if one[0] == camera}
            assert list(labels.skeleton.keypoints) == config["multianimalbodyparts"]
            for row, frame in enumerate(labels.frame.tolist()):
                np.testing.assert_allclose(ordered(labels.points[row]), predictions(made, camera, frame), atol=1e-9)
                assert labels.pictures[row].path.parent == folder
                assert abs(int(np.median(labels.image(row))) - 40 - frame) <= 2
        stored = pd.read_hdf(folder / "machinelabels-iter0.h5", key="df_with_missing")
        assert stored.index[0][:2] == ("labeled-data", f"walk-{camera}")
        assert stored.columns.names == ["scorer", "individuals", "bodyparts", "coords"]
    with pytest.raises(InputError, match="expected a DeepLabCut project"):
        load_labels(project)  # nobody has labelled: predictions are not taken for labels


def test_labelled_frames_and_their_neighbours_are_left_out(made: Path, told: Path, tmp_path: Path) -> None:
    stub = shutil.copy(told / "sleap/cam0.slp", tmp_path / "cam0.slp")
    session = replace(session_in(made), labels=(LabelTable(str(stub), camera="cam0"),))
    suggest_frames(tmp_path / "more", takes_of_session(session), session, OPTIONS)
    table = pd.read_csv(tmp_path / "more/suggestions.csv")
    found = {(row.camera, row.frame) for row in table.itertuples()}
    assert {one for one in BAD if one[0] != "cam0"} <= found
    assert all(abs(frame - bad) >= 5 for camera, frame in found for of, bad in BAD if camera == of == "cam0")


def test_earlier_suggestions_are_not_written_over(made: Path, told: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(told, tmp_path / "again")
    session, other = session_in(made), replace(OPTIONS, count=3)
    with pytest.raises(InputError, match="in which somebody may have labelled"):
        suggest_frames(folder, takes_of_session(session), session, other)
    assert suggest_frames(folder, takes_of_session(session), session, other, force=True).summary["suggested"] == 3


def test_what_predict_left_is_enough(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    poses = load_poses(made / "results/walk/poses2d/cam0.nc")
    save_poses(tmp_path / "seen/cam0.nc", poses.take_slots(np.zeros((FRAMES, 1), dtype=int)))
    video = made / "recordings/walk/cam0.mp4"
    main(["suggest", str(tmp_path / "seen"), str(video), "--count", "1", "--json"])
    capsys.readouterr()
    table = pd.read_csv(tmp_path / "seen/suggestions/suggestions.csv")
    assert table["frame"].tolist() == [70], "the unsure one; alone, a camera cannot know of the other"
    folder = tmp_path / "seen/suggestions/deeplabcut/labeled-data/cam0"
    assert load_labels(folder / "machinelabels-iter0.h5").points.shape == (1, 1, 12, 2)
    with pytest.raises(InputError, match="first: pose3d predict"):
        takes_of_predictions(tmp_path / "seen", [tmp_path / "other.mp4"])


def test_folders_of_images(made: Path, tmp_path: Path) -> None:
    """Numbers in the files' names are the frames; SLEAP counts the images."""
    poses = load_poses(made / "results/walk/poses2d/cam0.nc").window(60, 90)
    save_poses(tmp_path / "seen/top.nc", poses)
    (tmp_path / "top").mkdir()
    for frame in poses.frame:
        cv2.imwrite(str(tmp_path / f"top/shot{frame}.png"), np.full((SIZE[1], SIZE[0], 3), frame, np.uint8))
    takes = takes_of_predictions(tmp_path / "seen", [tmp_path / "top"])
    suggest_frames(tmp_path / "out", takes, options=SuggestOptions(count=1))
    assert pd.read_csv(tmp_path / "out/suggestions.csv")["frame"].tolist() == [70]
    labels = load_labels(tmp_path / "out/sleap/top.slp")
    assert labels.pictures[0].path == tmp_path / "top/shot70.png"
    np.testing.assert_allclose(ordered(labels.points[0]), ordered(poses.points[10]), atol=1e-9)


def test_mistakes_are_told(made: Path, tmp_path: Path) -> None:
    session = session_in(made)
    with pytest.raises(InputError, match="first: pose3d run"):
        takes_of_session(replace(session, output=tmp_path))
    with pytest.raises(InputError, match="recording 'wlak' is not in"):
        takes_of_session(session, "wlak")
    patterns = replace(session.patterns, video="films/{recording}/{camera}")
    with pytest.raises(InputError, match="expected the videos to take pictures from"):
        takes_of_session(replace(session, patterns=patterns))
    with pytest.raises(InputError, match="count and apart of at least 1"):
        suggest_frames(tmp_path, takes_of_session(session), session, SuggestOptions(count=0))
