"""Training as a stage: which labels are taken, one network or several, skipping, going on, labels that do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from calibration.errors import InputError
from pose3d.config import load_session
from pose3d.nn.network import load_network, save_network
from pose3d.nn.options import TrainOptions
from pose3d.session import LabelTable, Session, SkeletonTable, find_files
from pose3d.stages.training import gather_labels, train_networks

OPTIONS = TrainOptions(
    backbone="mobilenet_v2", width=0.35, pretrained=False, channels=8, steps=4, batch=2, crop=64, scale=1.0,
    evaluate_every=2, held_out=0.2,
)  # fmt: skip
SIZE, FRAMES = (96, 64), 10


def write_labels(folder: Path, seed: int, keypoints: tuple[str, ...] = ("nose", "tail"), frames: int = FRAMES) -> None:
    """A DeepLabCut folder of images with two discs, labelled."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    lines = [",".join(["scorer", "", "", *["me"] * 2 * len(keypoints)])]
    lines.append(",".join(["bodyparts", "", "", *(name for name in keypoints for _ in "xy")]))
    lines.append(",".join(["coords", "", "", *["x", "y"] * len(keypoints)]))
    for f in range(frames):
        points = rng.uniform((10, 10), (85, 53), (len(keypoints), 2))
        image = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
        for k, (x, y) in enumerate(points):
            cv2.circle(image, (round(x), round(y)), 5, [(30, 30, 230), (230, 30, 30), (30, 230, 30)][k], -1)
        cv2.imwrite(str(folder / f"img{f:03d}.png"), image)
        lines.append(",".join(["labeled-data", folder.name, f"img{f:03d}.png", *(f"{v:.3f}" for v in points.ravel())]))
    (folder / "CollectedData_me.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for seed, camera in enumerate(("left", "right")):
        write_labels(folder / f"labels/{camera}", seed)
    return folder


def session_of(data: Path, output: Path, **changes: object) -> Session:
    session = Session(
        file=data / "pose3d.toml", data=data, output=output, labels=(LabelTable("labels/{camera}"),),
        options={"train": OPTIONS},
    )  # fmt: skip
    return replace(session, **changes)


def test_labels_of_all_cameras_on_the_sessions_skeleton(data: Path, tmp_path: Path) -> None:
    labels = gather_labels(session_of(data, tmp_path))
    assert (len(labels), labels.skeleton.keypoints) == (2 * FRAMES, ("nose", "tail"))
    assert labels.camera == ("left",) * FRAMES + ("right",) * FRAMES
    table = SkeletonTable(keypoints=("tail", "nose"), edges=(("nose", "tail"),), symmetry=())
    drawn = gather_labels(session_of(data, tmp_path, skeleton=table))
    assert (drawn.skeleton.keypoints, drawn.skeleton.edges) == (("tail", "nose"), ((1, 0),))
    np.testing.assert_array_equal(drawn.points, labels.points[:, :, ::-1])
    some = (LabelTable("labels/{camera}", frames=(2, 4)),)
    np.testing.assert_array_equal(gather_labels(session_of(data, tmp_path, labels=some)).frame, [2, 3, 4] * 2)
    assert set(gather_labels(session_of(data, tmp_path, cameras=("right",))).camera) == {"right"}
    apart = (LabelTable("labels/left", camera="left"), LabelTable("labels/right/CollectedData_me.csv", frames=(0, 1)))
    assert gather_labels(session_of(data, tmp_path, labels=apart)).camera == ("left",) * FRAMES + ("",) * 2


def test_one_network_for_all_cameras(data: Path, tmp_path: Path) -> None:
    told: list[str] = []
    session = session_of(data, tmp_path)
    (report,) = train_networks(session, progress=lambda what, done, total: told.append(what))
    assert report.stage == "train"
    beside = ("safetensors", "json", "training.csv", "training.svg", "worst.png")
    assert report.outputs == tuple(tmp_path / f"models/network.{ending}" for ending in beside)
    curve = pd.read_csv(report.outputs[2])
    assert curve["step"].tolist() == [2, 4]
    assert np.isfinite(curve[["loss", "held_out_px"]]).all(axis=None)
    assert report.outputs[3].read_text().startswith("<svg")
    assert cv2.imread(str(report.outputs[4])).shape[1] > 400
    assert report.summary["labelled frames"] == {"left": FRAMES, "right": FRAMES}
    assert "held-out error, px, median" in report.summary
    assert any("held-out error" in what and what.endswith(" px") for what in told)
    assert load_network(report.outputs[0]).spec.skeleton.keypoints == ("nose", "tail")
    assert next(train_networks(session)).skipped
    assert not next(train_networks(session, force=True)).skipped
    assert not next(train_networks(replace(session, options={"train": replace(OPTIONS, seed=1)}))).skipped


def test_changed_labels_or_images_are_trained_anew(tmp_path: Path) -> None:
    write_labels(tmp_path / "labels/left", 0)
    session = session_of(tmp_path, tmp_path / "out", options={"train": replace(OPTIONS, steps=1)})
    assert not next(train_networks(session)).skipped
    table = tmp_path / "labels/left/CollectedData_me.csv"
    text = table.read_text()
    table.write_text(text)
    assert next(train_networks(session)).skipped, "the file is newer, the labels are the same"
    table.write_text(text.rstrip().rpartition("\n")[0] + "\n")  # the last frame's labels are gone
    assert not next(train_networks(session)).skipped
    cv2.imwrite(str(tmp_path / "labels/left/img000.png"), np.zeros((SIZE[1], SIZE[0], 3), np.uint8))
    assert not next(train_networks(session)).skipped


def test_one_network_for_each_camera(data: Path, tmp_path: Path) -> None:
    options = {"train": replace(OPTIONS, networks="per_camera", steps=1)}
    reports = list(train_networks(session_of(data, tmp_path, options=options)))
    assert [report.stage for report in reports] == ["train.left", "train.right"]
    assert [report.outputs[0].name for report in reports] == ["left.safetensors", "right.safetensors"]
    assert [report.summary["labelled frames"] for report in reports] == [{"left": FRAMES}, {"right": FRAMES}]
    unknown = (LabelTable("labels/left"),)
    with pytest.raises(InputError, match=r"one network a camera .* needs to know whose labels are whose"):
        list(train_networks(session_of(data, tmp_path, options=options, labels=unknown)))


def test_networks_on_a_shared_backbone(data: Path, tmp_path: Path) -> None:
    """One training, one report, and the files of a network for each camera, its sheet of its own frames."""
    some = (LabelTable("labels/left", camera="left"), LabelTable("labels/right", camera="right", frames=(0, 5)))
    options = {"train": replace(OPTIONS, networks="shared_backbone", batch=3)}
    session = session_of(data, tmp_path, options=options, labels=some)
    (report,) = train_networks(session)
    assert report.stage == "train"
    endings = ("safetensors", "json", "training.csv", "training.svg", "worst.png")
    assert report.outputs == tuple(tmp_path / f"models/{name}.{end}" for name in ("left", "right") for end in endings)
    assert report.summary["labelled frames"] == {"left": FRAMES, "right": 6}
    assert report.summary["held-out frames"] == {"left": 2, "right": 1}
    assert report.summary["steps"] == 4
    left, right = (load_network(tmp_path / f"models/{name}.safetensors") for name in ("left", "right"))
    own, other = left.module.state_dict(), right.module.state_dict()
    assert {name.split(".")[0] for name in own if not torch.equal(own[name], other[name])} == {"head"}
    assert next(train_networks(session)).skipped
    unknown = replace(session, labels=(LabelTable("labels/left"),))
    expect_error(unknown, r'networks = "shared_backbone"\) needs to know whose labels are whose')


def test_going_on_from_a_network(data: Path, tmp_path: Path) -> None:
    """What is in the file counts, not where it is; a network cannot be its own beginning."""
    session = session_of(data, tmp_path / "first")
    trained = next(train_networks(session)).outputs[0]
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        for path in (trained, trained.with_suffix(".json")):
            (tmp_path / folder / path.name).write_bytes(path.read_bytes())

    def going_on(start: Path, **changes: object) -> Session:
        options = {"train": replace(OPTIONS, steps=1, start=start)}
        return session_of(data, tmp_path / "second", options=options, **changes)

    here, there = (tmp_path / folder / trained.name for folder in ("here", "there"))
    table = SkeletonTable(keypoints=("tail", "paw", "nose"))
    report = next(train_networks(going_on(here, skeleton=table)))
    assert report.summary["taken over"].startswith("2 of 3 keypoints, 1 of ")
    assert load_network(report.outputs[0]).spec.skeleton.keypoints == ("tail", "paw", "nose")
    assert next(train_networks(going_on(there, skeleton=table))).skipped
    save_network(there, replace(load_network(there), sigma_px=np.ones(2)))
    assert not next(train_networks(going_on(there, skeleton=table))).skipped
    expect_error(going_on(tmp_path / "no.safetensors"), r"no\.safetensors: expected the network to go on from, .*found")
    there.with_suffix(".json").unlink()
    expect_error(going_on(there), r"network\.json: expected the network to go on from, .*correct `start`")
    own = tmp_path / "second/models/network.safetensors"
    expect_error(going_on(own), "expected another network than the one that is written; copy it")


def test_interrupted_and_started_again_gives_the_same_bytes(data: Path, tmp_path: Path) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        if done == 3 and total == OPTIONS.steps:
            raise KeyboardInterrupt

    (whole,) = train_networks(session_of(data, tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        next(train_networks(session_of(data, tmp_path / "cut"), progress=interrupt))
    assert any((tmp_path / "cut/.pose3d/train").iterdir())
    (cut,) = train_networks(session_of(data, tmp_path / "cut"))
    assert [path.read_bytes() for path in cut.outputs] == [path.read_bytes() for path in whole.outputs]
    assert cut.summary == whole.summary
    assert not (tmp_path / "cut/.pose3d/train").exists()


def expect_error(session: Session, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(train_networks(session))


def test_labels_that_are_not_there(data: Path, tmp_path: Path) -> None:
    expect_error(session_of(data, tmp_path, labels=()), r"pose3d\.toml: expected \[labels\] to train on, found none")
    wrong = (LabelTable("label/{camera}"),)
    message = r"label/\{camera\}: expected labelled frames, found none; correct `labels\.files` in .*pose3d\.toml"
    expect_error(session_of(data, tmp_path, labels=wrong), message)
    wrong = (LabelTable("labels/{camera}", video="{camera}"),)
    expect_error(session_of(data, tmp_path, labels=wrong), "camera 'left': expected the labelled video .*left, found")


def test_labels_that_cannot_be_used(data: Path, tmp_path: Path) -> None:
    table = SkeletonTable(keypoints=("nose", "tial"))
    message = "keypoint 'tail' is not in the skeleton; did you mean 'tial'"
    expect_error(session_of(data, tmp_path, skeleton=table), message)
    few = (LabelTable("labels/{camera}", frames=(0, 1)),)
    expect_error(session_of(data, tmp_path, labels=few), r"pose3d\.toml: 4 labelled frames: expected at least 5")
    write_labels(tmp_path / "labels/left", 0)
    write_labels(tmp_path / "labels/right", 0, ("nose", "ear"))
    expect_error(session_of(tmp_path, tmp_path / "out"), "expected the same keypoints in all, .*ear, tail")


def test_images_that_are_missing_are_named_or_left_out(tmp_path: Path) -> None:
    write_labels(tmp_path / "labels/left", 0)
    for number in (1, 4):
        (tmp_path / f"labels/left/img00{number}.png").unlink()
    message = r"(?s)2 of 10 labelled frames have no image; .*img001\.png.*img004\.png"
    expect_error(session_of(tmp_path, tmp_path / "out"), message)
    skipping = (LabelTable("labels/{camera}", missing="skip"),)
    assert len(gather_labels(session_of(tmp_path, tmp_path / "out", labels=skipping))) == 8


def test_labels_outside_the_image(tmp_path: Path) -> None:
    write_labels(tmp_path / "labels/left", 0)
    image = cv2.imread(str(tmp_path / "labels/left/img006.png"))
    cv2.imwrite(str(tmp_path / "labels/left/img006.png"), image[:8, :8])
    message = r"img006\.png, camera 'left', frame 6: expected labels inside the image of 8 x 8"
    expect_error(session_of(tmp_path, tmp_path / "out"), message)


@pytest.mark.real
def test_the_mouses_labels_in_all_views(real_data: Path, tmp_path: Path) -> None:
    """The projects' own paths lead nowhere here; the session's pattern does."""
    config = Path(__file__).parents[3] / "configs/mouse_4cam_network.toml"
    session = load_session(config, real_data / "sleap_anipose_minimal", tmp_path)
    labels = gather_labels(session)
    assert [labels.camera.count(name) for name in ("back", "mid", "side", "top")] == [40] * 4
    assert (labels.frame.min(), labels.frame.max()) == (0, 39)
    assert labels.image(0).shape == (1024, 1280, 3)
    assert find_files(session, "poses2d", "mouse") == {}
    assert len(find_files(session, "video", "mouse")) == 4
