"""Training and prediction on the command line: killed and started again they end with the same bytes; bad input."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from pose3d.cli import main
from pose3d.files import count_candidates, load_poses
from pose3d.nn.network import Network, NetworkSpec, make_module, save_network
from pose3d.skeleton import Skeleton
from pose3d.video import MovieWriter

pytestmark = pytest.mark.e2e

SIZE, LABELLED, FRAMES = (96, 64), 8, 1100
KEYPOINTS = ("nose", "tail")
TOML = """\
[labels]
files = "labels/{camera}"

[train]
backbone = "mobilenet_v2"
width = 0.35
pretrained = false
channels = 8
steps = 10
batch = 2
crop = 64
scale = 1.0
evaluate_every = 2
patience = 100
"""


def picture(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """RGB with a red and a blue disc, and where they are."""
    points = rng.uniform((10, 10), (85, 53), (2, 2))
    image = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
    for (x, y), colour in zip(points, [(230, 30, 30), (30, 30, 230)], strict=True):
        cv2.circle(image, (round(x), round(y)), 5, colour, -1)
    return image, points


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session's folder with DeepLabCut labels of one camera, a video and an untrained network."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    (folder / "labels/top").mkdir(parents=True)
    lines = ["scorer,,,me,me,me,me", "bodyparts,,,nose,nose,tail,tail", "coords,,,x,y,x,y"]
    for f in range(LABELLED):
        image, points = picture(rng)
        cv2.imwrite(str(folder / f"labels/top/img{f}.png"), image[..., ::-1])
        lines.append(f"labeled-data,top,img{f}.png," + ",".join(f"{value:.2f}" for value in points.ravel()))
    (folder / "labels/top/CollectedData_me.csv").write_text("\n".join(lines) + "\n")
    (folder / "pose3d.toml").write_text(TOML)
    with MovieWriter(folder / "top.mp4", 50.0, (32, 32)) as movie:
        for _ in range(FRAMES):
            movie.write(cv2.resize(picture(rng)[0], (32, 32)))
    spec = NetworkSpec("mobilenet_v2", 0.35, 8, Skeleton(KEYPOINTS), ((0, 1),), 1.0)
    save_network(folder / "network.safetensors", Network(spec, make_module(spec), np.ones(2)))
    return folder


def start(*tokens: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pose3d.cli", *map(str, tokens), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(*tokens: object) -> list[dict]:
    told, complaints = (process := start(*tokens)).communicate()
    assert process.returncode == 0, complaints.decode()
    return json.loads(told)["stages"]


def kill_when(output: Path, pattern: str, *tokens: object) -> None:
    """Start a command and SIGKILL it as soon as a file of that pattern is there."""
    process = start(*tokens)
    while process.poll() is None and not any(output.glob(pattern)):
        time.sleep(0.001)
    assert process.poll() is None, "it was done before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.communicate()


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_training_killed_and_started_again(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    told = finish("train", data, "--output", whole)
    assert [stage["stage"] for stage in told] == ["labels", "train"]
    assert told[1]["outputs"][0] == str(whole / "models/network.safetensors")
    assert told[1]["summary"]["labelled frames"] == {"top": LABELLED}
    assert "held-out error, px, median" in told[1]["summary"]
    kill_when(cut, ".pose3d/train/training.safetensors", "train", data, "--output", cut)
    assert not (cut / "models/network.safetensors").exists()
    again = finish("train", data, "--output", cut)
    assert [stage["summary"] for stage in again] == [stage["summary"] for stage in told]
    assert content(cut) == content(whole)
    main(["train", str(data), "--output", str(cut), "--json"])
    assert all(stage["skipped"] for stage in json.loads(capsys.readouterr().out)["stages"])


def test_prediction_killed_and_started_again(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    command = ("predict", data / "top.mp4", "--model", data / "network.safetensors", "--individuals", 2)
    told = finish(*command, "--output", whole)
    assert [stage["stage"] for stage in told] == ["predict", "assemble"]
    kill_when(cut, ".pose3d/predict.top/000000.nc", *command, "--output", cut)
    assert not (cut / "candidates/top.nc").exists()
    finish(*command, "--output", cut)
    assert content(cut) == content(whole)
    main([*map(str, command), "--output", str(cut), "--json"])
    assert all(stage["skipped"] for stage in json.loads(capsys.readouterr().out)["stages"])
    assert count_candidates(cut / "candidates/top.nc")[0] == FRAMES
    poses = load_poses(cut / "top.nc")
    assert poses.shape[1] <= 2
    np.testing.assert_allclose(poses.time, np.arange(FRAMES) / 50.0)


def test_bad_input_of_training(data: Path, tmp_path: Path, failing: Callable[..., str]) -> None:
    def told(*tables: str) -> str:
        (tmp_path / "pose3d.toml").write_text(TOML + "\n".join(tables))
        return failing("train", tmp_path, "--data", data)

    assert "keypoint 'nose' is not in the skeleton; did you mean 'nos'?" in told('[skeleton]\nkeypoints = ["nos"]')
    (tmp_path / "pose3d.toml").write_text(TOML.replace('{camera}"', '{camera}"\nframes = [2, 4]', 1))
    assert "3 labelled frames: expected at least 5" in failing("train", tmp_path, "--data", data)
    message = told("[assemble]\nindividual = 2")
    assert "assemble.individual: unknown key; did you mean 'individuals'?" in message


def test_bad_input_of_prediction(data: Path, tmp_path: Path, failing: Callable[..., str]) -> None:
    model, video = data / "network.safetensors", data / "top.mp4"

    def told(video: Path, model: Path, *more: object) -> str:
        return failing("predict", video, *more, "--model", model, "--output", tmp_path / "out")

    assert "no.mp4: expected a video file or a folder of images" in told(data / "no.mp4", model)
    assert "no.safetensors, found none" in told(video, data / "no.safetensors")
    assert "batch: expected at least 1 image, got 0" in told(video, model, "--batch", 0)
    (tmp_path / "top.mkv").write_bytes(video.read_bytes())
    assert "expected videos of different names" in told(video, model, tmp_path / "top.mkv")
    (tmp_path / "cut.safetensors").write_bytes(model.read_bytes()[:5000])
    (tmp_path / "cut.json").write_bytes(model.with_suffix(".json").read_bytes())
    assert "cut.safetensors: damaged" in told(video, tmp_path / "cut.safetensors")
    assert not (tmp_path / "out/candidates/top.nc").exists()
