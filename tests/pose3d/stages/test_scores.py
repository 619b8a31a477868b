"""A session's network is judged by the frames that it has not learnt from; folders, camera by camera."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from calibration.errors import InputError
from calibration.files import save_rig
from calibration.synthetic import ring_rig
from pose3d.files import save_poses
from pose3d.identity import IdentityOptions
from pose3d.labels import Labels, hold_out
from pose3d.nn.network import Network
from pose3d.nn.options import PredictOptions, TrainOptions
from pose3d.poses import Candidates, Poses
from pose3d.session import LabelTable, Session
from pose3d.skeleton import Skeleton
from pose3d.stages.recording import write_timeline
from pose3d.stages.scores import KEYPOINTS, score_files, score_folders, score_session, write_table
from pose3d.stages.training import gather_labels, train_networks
from pose3d.timeline import SyncOptions, Timeline

OPTIONS = TrainOptions(
    backbone="mobilenet_v2", width=0.35, pretrained=False, channels=8, steps=1, batch=2, crop=64, scale=1.0,
    evaluate_every=1, held_out=0.2,
)  # fmt: skip
FRAMES, NAMES, OFF = 20, ("nose", "spine", "tail"), {"cam0": 3.0, "cam1": 1.0, "cam2": 2.0}
SIZES = {"cam0": (160, 120), "cam1": (160, 120), "cam2": (192, 128)}


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """Labels of an animal in three cameras of two sizes, whose rig is in its results."""
    rng = np.random.default_rng(0)
    rig = ring_rig(3, rng, radius=500.0, height=300.0, size=(160, 120), focal_px=150.0, off_centre_px=2.0)
    save_rig(tmp_path / "out/calibration.toml", rig)
    points = rng.uniform(-60, 60, (FRAMES, 3, 3))
    for camera in rig:
        folder = tmp_path / "labels" / camera.name
        folder.mkdir(parents=True)
        header = ["scorer,,," + ",".join(["me"] * 6), "bodyparts,,," + ",".join(n for n in NAMES for _ in "xy")]
        lines = [*header, "coords,,," + ",".join(["x,y"] * 3)]
        width, height = SIZES[camera.name]
        for f, xy in enumerate(camera.project(points) + 0.5 * rng.normal(size=(FRAMES, 3, 2))):
            cv2.imwrite(str(folder / f"img{f:03d}.png"), np.full((height, width, 3), 90, np.uint8))
            lines.append(f"labeled-data,{camera.name},img{f:03d}.png," + ",".join(f"{v:.4f}" for v in xy.ravel()))
        (folder / "CollectedData_me.csv").write_text("\n".join(lines) + "\n")
    table = LabelTable("labels/{camera}")
    return Session(tmp_path / "pose3d.toml", tmp_path, tmp_path / "out", labels=(table,), options={"train": OPTIONS})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """(camera, frame) of the pictures that a network which knows, but for OFF px, was asked for."""
    seen: list[tuple[str, int]] = []

    def predict(network: Network, labels: Labels, options: object = None) -> Iterator[tuple[list[int], Candidates]]:
        rows = list(range(len(labels)))[::-1]
        if options is not None:  # else it is the training that looks at its worst
            seen.extend((labels.camera[row], int(labels.frame[row])) for row in rows)
        off = np.array([OFF[labels.camera[row]] for row in rows])
        xy = labels.points[rows, 0] + np.stack((off, 0 * off), axis=-1)[:, None]
        n, k = xy.shape[:2]
        none = np.zeros(0, np.int64)
        yield rows, Candidates(
            frame_start=np.arange(n + 1) * k, keypoint=np.tile(np.arange(k), n), xy=xy.reshape(-1, 2),
            score=np.linspace(0.5, 0.9, n * k), covariance=np.tile(np.eye(2), (n * k, 1, 1)),
            limb_start=np.zeros(n + 1, np.int64), a=none, b=none, edge=none, limb_score=np.zeros(0),
            frame=np.arange(n), skeleton=labels.skeleton,
        )  # fmt: skip

    monkeypatch.setattr("pose3d.nn.review.labelled_candidates", predict)
    return seen


def by(told: dict, camera: str, keypoint: str = "all") -> dict:
    (row,) = [one for one in told[KEYPOINTS] if (one["camera"], one["keypoint"]) == (camera, keypoint)]
    return row


def alone(session: Session, **options: object) -> Session:
    """With one animal, which need not be assembled by limbs."""
    return replace(session, options=dict(session.options) | {"identify": IdentityOptions(individuals=1)} | options)


def test_the_frames_that_training_held_out(session: Session, asked: list[tuple[str, int]]) -> None:
    session = alone(session)
    with pytest.raises(InputError, match=r"expected the network of these labels, found none; first: pose3d train"):
        score_session(session)
    list(train_networks(session))
    told = score_session(session)
    labels = gather_labels(session)
    held = labels.take(hold_out(labels, 0.2)[1])
    assert sorted(asked) == sorted(zip(held.camera, held.frame.tolist(), strict=True))
    assert told["compared"] == {"frames": 12, "labelled frames": 60, "which": "held out of training"}
    for camera, off in OFF.items():
        row = by(told, camera)
        assert (row["n"], row["delivered"]) == (12, 1.0)
        assert (row["median"], row["rms"]) == (pytest.approx(off), pytest.approx(off))
    assert by(told, "all", "nose")["rms"] == pytest.approx(np.sqrt((9 + 1 + 4) / 3))
    assert by(told, "all")["inside_95"] == pytest.approx(2 / 3), "1 and 2 of the stated SD"
    assert told["covariance"]["n"] == 36
    assert by(told, "all")["label_sd"] == pytest.approx(0.5, rel=0.25)
    write_table(session.output / "table.csv", told)
    table = pd.read_csv(session.output / "table.csv")
    assert len(table) == 4 * 4
    assert table.set_index(["camera", "keypoint"]).loc[("cam0", "tail"), "median"] == pytest.approx(3.0)
    smaller = replace(session, options=dict(session.options) | {"train": replace(OPTIONS, held_out=0.5, steps=9)})
    assert score_session(smaller)["compared"]["frames"] == 12, "what was held out when it was trained"


def test_without_frames_that_were_held_out(session: Session, asked: list[tuple[str, int]]) -> None:
    none = alone(session, train=replace(OPTIONS, held_out=0.0))
    list(train_networks(none))
    with pytest.raises(InputError, match="has learnt from all labelled frames, none was held out"):
        score_session(none)
    list(train_networks(alone(session)))
    with pytest.raises(InputError, match="not trained on these labels as they are now"):
        score_session(alone(replace(session, labels=(LabelTable("labels/{camera}", frames=(0, 18)),))))
    network = session.output / "models/network.safetensors"
    network.write_bytes(network.read_bytes() + b" ")
    with pytest.raises(InputError, match="not trained on these labels as they are now"):
        score_session(alone(session))
    assert not asked


@pytest.mark.parametrize("networks", ["per_camera", "shared_backbone"])
def test_a_network_for_each_camera_and_one_from_elsewhere(
    networks: str, session: Session, asked: list[tuple[str, int]]
) -> None:
    each = alone(session, train=replace(OPTIONS, networks=networks))
    list(train_networks(each))
    told = score_session(each)
    assert told["compared"]["frames"] == 12
    assert by(told, "cam2")["median"] == pytest.approx(2.0)
    asked.clear()
    given = alone(session, predict=PredictOptions(model=session.output / "models/cam1.safetensors"))
    told = score_session(given)
    assert len(asked) == told["compared"]["frames"] == 60
    assert "nothing tells here whether" in told["compared"]["which"]


def test_where_the_labels_noise_is_not_known(session: Session, asked: list[tuple[str, int]]) -> None:
    given = alone(session)
    list(train_networks(given))
    sync = score_session(alone(given, sync=SyncOptions(offset_frames={"cam1": 2.0})))
    assert "[sync]" in sync["label noise"]["labels"]
    assert np.isnan(by(sync, "all")["label_sd"])
    calibration = session.output / "calibration.toml"
    calibration.rename(session.data / "elsewhere.toml")
    assert "there is no" in score_session(given)["label noise"]["labels"]
    told = score_session(given, calibration=session.data / "elsewhere.toml")
    assert np.isfinite(by(told, "cam1")["label_sd"])


def test_pictures_of_several_sizes_go_through_a_real_network(session: Session) -> None:
    session = alone(session)
    list(train_networks(session))
    assert sum(by(score_session(session), camera)["n"] for camera in OFF) == 36


def walk(rng: np.random.Generator) -> Poses:
    return Poses(rng.uniform(0, 100, (8, 1, 3, 2)), skeleton=Skeleton(NAMES))


def test_folders_camera_by_camera(tmp_path: Path, rng: np.random.Generator) -> None:
    for camera, off in OFF.items():
        poses = walk(rng)
        save_poses(tmp_path / f"labels/{camera}.csv", poses)
        shifted = poses.replace(points=poses.points + [0.0, off])
        save_poses(tmp_path / f"results/poses2d/{camera}.nc", shifted.replace(points=shifted.points + 50.0))
        save_poses(tmp_path / f"results/assembled/{camera}.nc", shifted)
    save_poses(tmp_path / "labels/other.nc", walk(rng))
    told = score_folders(tmp_path / "labels", tmp_path / "results")
    assert told["compared"]["left out, in one folder only"] == ["other"]
    for camera, off in OFF.items():
        assert by(told, camera, "tail")["median"] == pytest.approx(off)
    assert by(told, "all")["n"] == 3 * 24
    (alone,) = {row["camera"] for row in score_files(
        tmp_path / "labels/cam0.csv", tmp_path / "results/assembled/cam0.nc"
    )[KEYPOINTS]}  # fmt: skip
    assert alone == ""
    save_poses(tmp_path / "elsewhere/front.nc", walk(rng))
    with pytest.raises(InputError, match=r"expected files of the cameras of .*cam0, cam1, cam2.*, got front"):
        score_folders(tmp_path / "labels", tmp_path / "elsewhere")


def test_folders_with_the_rig(tmp_path: Path, rng: np.random.Generator) -> None:
    rig = ring_rig(3, rng, radius=1000.0, height=700.0)
    save_rig(tmp_path / "calibration.toml", rig)
    points = rng.uniform(-150, 150, (100, 1, 3, 3))
    for camera in rig:
        xy = camera.project(points) + 2.0 * rng.normal(size=(100, 1, 3, 2))
        save_poses(tmp_path / f"labels/{camera.name}.nc", Poses(xy, skeleton=Skeleton(NAMES)))
        save_poses(tmp_path / f"found/{camera.name}.nc", Poses(camera.project(points), skeleton=Skeleton(NAMES)))
    told = score_folders(tmp_path / "labels", tmp_path / "found", calibration=tmp_path / "calibration.toml")
    row = by(told, "all")
    assert row["label_sd"] == pytest.approx(2.0, rel=0.1)
    assert row["label_median"] == pytest.approx(row["median"], rel=0.15), "a perfect network errs as the labels do"


def test_moments_are_not_taken_for_frames(tmp_path: Path, rng: np.random.Generator) -> None:
    for camera in ("a", "b"):
        save_poses(tmp_path / f"labels/{camera}.nc", walk(rng))
        save_poses(tmp_path / f"results/poses2d/{camera}.nc", walk(rng))
    frame = np.stack((np.arange(8), np.arange(8)), axis=1)
    write_timeline(tmp_path / "results/poses2d/timeline.npz", Timeline(("a", "b"), frame, np.arange(8.0)))
    assert by(score_folders(tmp_path / "labels", tmp_path / "results"), "all")["n"] > 0
    write_timeline(tmp_path / "results/poses2d/timeline.npz", Timeline(("a", "b"), frame + [0, 2], np.arange(8.0)))
    with pytest.raises(InputError, match="numbers the moments that cameras out of step share"):
        score_folders(tmp_path / "labels", tmp_path / "results")
