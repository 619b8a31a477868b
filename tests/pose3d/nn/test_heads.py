"""Cameras share all but their heads: each head learns from its camera's labels alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from calibration.errors import InputError
from pose3d.labels import Labels, Picture, hold_out
from pose3d.nn import train as training
from pose3d.nn.beginning import prepare
from pose3d.nn.data import load_pictures
from pose3d.nn.heads import CameraNets, CameraTraining, hold_each, train_cameras
from pose3d.nn.model import build_model
from pose3d.nn.network import Network, save_network
from pose3d.nn.noise import calibrate_noise
from pose3d.nn.options import TrainOptions
from pose3d.nn.train import held_out_errors, train_network
from pose3d.skeleton import Skeleton

SKELETON = Skeleton(("red", "green", "blue"), edges=((0, 1), (1, 2)))
SIDE, CAMERAS = 64, ("left", "right")
QUICK = TrainOptions(
    backbone="mobilenet_v2", width=0.35, channels=16, steps=4, batch=3, crop=64, scale=1.0, learning_rate=1e-2,
    backbone_rate=1.0, rotation_deg=30.0, held_out=0.2, evaluate_every=2, average=0.9,
)  # fmt: skip


def write_labels(folder: Path, counts: dict[str, int]) -> Labels:
    """Pictures with a blob of each colour; to all but the first camera what is red is `blue`, and the reverse."""
    rng = np.random.default_rng(11)
    v, u = np.mgrid[:SIDE, :SIDE]
    cameras = [name for name, count in counts.items() for _ in range(count)]
    points = rng.uniform(8, SIDE - 9, (len(cameras), 1, 3, 2))
    for f, frame in enumerate(points[:, 0]):
        squared = (u[..., None] - frame[:, 0]) ** 2 + (v[..., None] - frame[:, 1]) ** 2
        image = (40 + 200 * np.exp(-squared / 18)).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{f}.png"), image[..., ::-1])
    other = [name != next(iter(counts)) for name in cameras]
    points[other] = points[other][:, :, ::-1]
    pictures = tuple(Picture(folder / f"{f}.png") for f in range(len(cameras)))
    return Labels(points, np.arange(len(cameras)), tuple(cameras), ("v",) * len(cameras), pictures, SKELETON)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Labels:
    return write_labels(tmp_path_factory.mktemp("pictures"), {"left": 20, "right": 10})


def of(labels: Labels, camera: str) -> Labels:
    return labels.take(np.array(labels.camera) == camera)


def nets(cameras: int, seed: int = 0) -> CameraNets:
    """Whose heads differ."""
    generator = torch.Generator().manual_seed(seed)
    told = CameraNets(build_model("mobilenet_v2", 0.35, 16, 3, 2, generator), cameras)
    for head in told.heads:
        torch.nn.init.normal_(head[-1].weight, 0, 0.1, generator=generator)
    return told


def images(n: int) -> torch.Tensor:
    return torch.rand(n, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_every_image_goes_through_its_cameras_network() -> None:
    """In the order of the batch, also where a camera has no image in it."""
    net, cameras = nets(4).eval(), [2, 0, 3, 0, 2]
    with torch.inference_mode():
        together = net(images(5), torch.tensor(cameras))
        for row, camera in enumerate(cameras):
            for found, alone in zip(together, net.of(camera)(images(5)[row : row + 1]), strict=True):
                torch.testing.assert_close(found[row : row + 1], alone, rtol=1e-3, atol=1e-3)
        assert (net.of(0)(images(1))[0] - net.of(1)(images(1))[0]).abs().max() > 0.01


def test_a_camera_teaches_its_own_head_and_what_is_common() -> None:
    net = nets(3).train()
    before = net.heads[0][0].norm.running_mean.clone()
    sum(maps[1::2].square().mean() for maps in net(images(4), torch.tensor([0, 1, 0, 1])) if maps.numel()).backward()
    for camera, taught in ((0, False), (1, True), (2, False)):
        for parameter in net.heads[camera].parameters():
            assert (parameter.grad is not None and bool(parameter.grad.any())) == taught
    assert all(parameter.grad is not None for parameter in net.net.parameters())
    means = [head[0].norm.running_mean for head in net.heads]
    assert not torch.equal(means[0], means[1]), "each of what its own camera shows"
    assert torch.equal(means[2], before), "nothing"


def test_cameras_that_contradict_each_other(labels: Labels, tmp_path: Path) -> None:
    """What is red to one is blue to the other: one network cannot know both, two on a backbone can."""
    options = replace(QUICK, steps=120, evaluate_every=40, batch=8, channels=32)
    told: list[str] = []
    networks = train_cameras(labels, tmp_path / "each", options, progress=lambda text, *_: told.append(text))
    one = train_network(labels, tmp_path / "one", options)
    assert tuple(networks) == CAMERAS
    for name, network in networks.items():
        assert network.metrics["held-out error, px, median"] < 3, name
        assert (network.sigma_px < 3).all()
        assert not network.module.training
    assert one.metrics["95th percentile"] > 8
    assert told[-1].startswith("training, held-out error ")
    left, right = (networks[name].module.state_dict() for name in CAMERAS)
    for name, value in left.items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, right[name]) != name.startswith("head."), name


def test_each_network_knows_its_own_cameras_frames(labels: Labels, tmp_path: Path) -> None:
    networks = train_cameras(labels, tmp_path, QUICK)
    for name, network in networks.items():
        own = of(labels, name)
        learnt, held = hold_out(own, 0.2)
        pictures = load_pictures(own.take(held), 1.0, np.arange(3))
        _, scores, relative = held_out_errors(network.module, pictures, network.spec)
        sigma, doubt = calibrate_noise(relative, scores)
        np.testing.assert_array_equal(network.sigma_px, sigma)
        assert network.doubt == doubt
        assert (network.metrics["training frames"], network.metrics["held-out frames"]) == (len(learnt), len(held))
        limb = np.linalg.norm(np.diff(own.points[learnt, 0, :2], axis=1)[:, 0], axis=-1)
        assert network.limb_px is not None
        assert network.limb_px[0, 0] == pytest.approx(np.exp(np.median(np.log(limb))))
    history = [network.metrics[training.HISTORY] for network in networks.values()]
    assert history[0] == history[1]


class Interrupted(Exception):  # noqa: N818 - it is what happens
    pass


def saved(networks: dict[str, Network], folder: Path) -> list[bytes]:
    for name, network in networks.items():
        save_network(folder / f"{name}.safetensors", network)
    return [path.read_bytes() for path in sorted(folder.glob("*.*"))]


@pytest.mark.parametrize("most", [3, 1])
def test_cut_off_it_goes_on_to_the_same_bytes(
    labels: Labels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Also where memory suffices for one crop at once only."""
    passed: list[int] = []
    forward = CameraNets.forward

    def limited(net: CameraNets, x: torch.Tensor, cameras: torch.Tensor) -> Any:
        maps = forward(net, x, cameras)
        if len(x) > most:
            raise MemoryError
        passed.append(len(x))
        return maps

    def interrupt(text: str, done: int, total: int) -> None:
        if text.startswith("training") and done == 3:
            raise Interrupted

    monkeypatch.setattr(CameraNets, "forward", limited)
    whole = train_cameras(labels, tmp_path / "whole", QUICK)
    with pytest.raises(Interrupted):
        train_cameras(labels, tmp_path / "cut", QUICK, progress=interrupt)
    passed.clear()
    cut = train_cameras(labels, tmp_path / "cut", QUICK)
    assert passed == ([3] * 2 if most == 3 else [1, 1, 1] * 2), "two steps were left to do"
    assert saved(cut, tmp_path / "a") == saved(whole, tmp_path / "b")
    assert ("batch computed in parts" in cut["left"].metrics) == (most == 1)
    other = train_cameras(labels, tmp_path / "cut", replace(QUICK, seed=1))
    assert saved(other, tmp_path / "c") != saved(whole, tmp_path / "b")


def started(labels: Labels, cameras: tuple[str, ...], folder: Path, batch: int = 3) -> CameraTraining:
    ready = prepare(labels, replace(QUICK, batch=batch), None, hold_each, None)
    return CameraTraining(ready, cameras, folder)


def test_cameras_take_turns(labels: Labels, tmp_path: Path) -> None:
    """Two crops each, however many frames a camera has, and each of its frames once an epoch of its own."""
    run = started(labels, CAMERAS, tmp_path, batch=6)
    rows = []
    for step in range(16):
        run.at.step = step
        rows.append(run._rows())
    drawn = np.concatenate(rows)
    np.testing.assert_array_equal(run.of_training[drawn], np.arange(96) // 2 % 2)
    for camera, n in ((0, 16), (1, 8)):
        epochs = drawn[run.of_training[drawn] == camera].reshape(-1, n)
        own = np.flatnonzero(run.of_training == camera)
        np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(own, (len(epochs), 1)))
        assert not np.array_equal(epochs[0], epochs[1])


def test_more_cameras_than_pairs_in_a_batch(labels: Labels, tmp_path: Path) -> None:
    """A head whose camera has no turn stays as it is."""
    run = started(labels, CAMERAS, tmp_path, batch=2)
    states = []
    for _ in range(3):
        states.append({name: value.clone() for name, value in run.module.heads.state_dict().items()})
        run.advance()
    after = run.module.heads.state_dict()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]) != name.startswith("0."), name
        assert torch.equal(states[1][name], states[2][name]) != name.startswith("1."), "nor does it go on by itself"
        assert torch.equal(states[2][name], after[name]) != name.startswith("0."), name


def test_all_begin_as_the_network_that_is_gone_on_from(labels: Labels, tmp_path: Path) -> None:
    first = train_network(of(labels, "left"), tmp_path / "first", replace(QUICK, steps=2))
    still = replace(QUICK, steps=1, learning_rate=1e-12, average=0.5)
    for network in train_cameras(labels, tmp_path / "second", still, start=first).values():
        for name, parameter in first.module.named_parameters():
            torch.testing.assert_close(network.module.get_parameter(name), parameter, rtol=0, atol=1e-6)
        assert network.metrics["taken over"] == "3 of 3 keypoints, 3 of 3 limbs"


def test_every_camera_has_frames_of_its_own_held_out(labels: Labels) -> None:
    """Also where no recording is long enough to hold out a block of it."""
    videos = tuple(str(row) for row in range(len(labels)))
    learnt, held = hold_each(replace(labels, video=videos), 0.1)
    assert [labels.camera[row] for row in held] == ["left", "left", "right"]
    assert sorted([*learnt, *held]) == list(range(len(labels)))
    assert len(hold_each(labels, 0.0)[1]) == 0


def test_a_camera_of_few_labels(labels: Labels, tmp_path: Path) -> None:
    few = labels.take(range(24))
    message = "camera 'right': 4 labelled frames: expected at least 5 of each camera; label more, or train one network"
    with pytest.raises(InputError, match=message):
        train_cameras(few, tmp_path, QUICK)
