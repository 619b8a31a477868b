"""Training learns, says how well, stops in time, goes on where it was cut off, and makes do with little memory."""

from __future__ import annotations

import inspect
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from calibration.errors import InputError
from pose3d.labels import Labels, Picture
from pose3d.nn import beginning
from pose3d.nn import train as module
from pose3d.nn.beginning import first_network, hold_share, prepare
from pose3d.nn.data import Pictures
from pose3d.nn.model import PoseNet
from pose3d.nn.network import Network, NetworkSpec, save_network
from pose3d.nn.noise import calibrate_noise
from pose3d.nn.options import TrainOptions
from pose3d.nn.train import held_out_errors, train_network
from pose3d.skeleton import Skeleton

SKELETON = Skeleton(("red", "green", "blue"), edges=((0, 1), (1, 2)))
SIDE, FRAMES = 64, 20
QUICK = TrainOptions(
    backbone="mobilenet_v2", width=0.35, channels=16, steps=4, batch=2, crop=64, scale=1.0, learning_rate=1e-2,
    backbone_rate=1.0, rotation_deg=30.0, held_out=0.2, evaluate_every=2, average=0.9,
)  # fmt: skip
COLOURS = np.eye(3)


def write_labels(folder: Path, skeleton: Skeleton = SKELETON, frames: int = FRAMES) -> Labels:
    """Pictures with a coloured blob for each keypoint, somewhere."""
    rng = np.random.default_rng(11)
    v, u = np.mgrid[:SIDE, :SIDE]
    points = rng.uniform(8, SIDE - 9, (frames, 1, len(skeleton), 2))
    for f in range(frames):
        image = np.full((SIDE, SIDE, 3), 40.0)
        for k, (x, y) in enumerate(points[f, 0]):
            image += np.exp(-((u - x) ** 2 + (v - y) ** 2) / 18)[..., None] * 200 * COLOURS[k]
        cv2.imwrite(str(folder / f"{f}.png"), image.clip(0, 255).astype(np.uint8)[..., ::-1])
    pictures = tuple(Picture(folder / f"{f}.png") for f in range(frames))
    return Labels(points, np.arange(frames), ("",) * frames, ("v",) * frames, pictures, skeleton)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Labels:
    return write_labels(tmp_path_factory.mktemp("pictures"))


def assert_same(one: Network, other: Network) -> None:
    assert one.spec == other.spec
    state = other.module.state_dict()
    for name, value in one.module.state_dict().items():
        assert torch.equal(value, state[name]), name
    np.testing.assert_array_equal(one.sigma_px, other.sigma_px)
    assert one.metrics == other.metrics


def test_it_learns(labels: Labels, tmp_path: Path) -> None:
    """A few dozen steps find blobs of 3 px in pictures that were not trained on."""
    told: list[tuple[str, int, int]] = []
    options = replace(QUICK, steps=90, evaluate_every=30, batch=8, crop=64)
    network = train_network(labels, tmp_path, options, progress=lambda *what: told.append(what))
    assert network.metrics["held-out error, px, median"] < 2
    assert network.metrics["held-out keypoints found, %"] == 100
    assert (network.metrics["training frames"], network.metrics["held-out frames"]) == (16, 4)
    assert (network.sigma_px < 2).all()
    history = network.metrics["history: step, loss, mean capped held-out error px"]
    assert [row[0] for row in history] == [30, 60, 90]
    assert history[-1][1] < history[0][1]
    assert told[:FRAMES] == [("reading labelled frames", i + 1, FRAMES) for i in range(FRAMES)]
    assert [done for _, done, _ in told[FRAMES:]] == list(range(1, 91))
    assert told[-1][0] == f"training, held-out error {history[-1][2]:.2f} px"
    assert not network.module.training
    assert all(value.device.type == "cpu" for value in network.module.state_dict().values())


def test_too_few_labels(labels: Labels, tmp_path: Path) -> None:
    few = replace(labels, points=np.where(np.arange(FRAMES)[:, None, None, None] < 4, labels.points, np.nan))
    with pytest.raises(InputError, match="4 labelled frames: expected at least 5; label more"):
        train_network(few, tmp_path, QUICK)


def test_a_mirror_needs_to_know_left_from_right(labels: Labels, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"flip: expected pairs of keypoints.*name them as `symmetry`"):
        train_network(labels, tmp_path, replace(QUICK, flip=True))
    pair = replace(labels, skeleton=replace(SKELETON, symmetry=((0, 2),)))
    told = f"{SKELETON.keypoints[0]}-{SKELETON.keypoints[2]}"
    for flip, skeleton, mirrored in (
        (True, pair.skeleton, told),
        (False, pair.skeleton, "not"),
        (True, replace(SKELETON, keypoints=("paw_R", "nose", "paw_L")), "paw_L-paw_R"),
    ):
        named = replace(labels, skeleton=skeleton)
        network = train_network(named, tmp_path / mirrored, replace(QUICK, flip=flip, steps=2))
        assert network.metrics["mirrored"] == mirrored
        assert network.spec.skeleton == skeleton


def test_a_useless_network_is_not_praised(labels: Labels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for missed, warned in ((0.6, True), (0.4, False)):
        distances = np.where(np.arange(100) < 100 * missed, np.inf, 1.0)[:, None, None] * np.ones(3)
        monkeypatch.setattr(module, "held_out_errors", lambda *_, d=distances: (d, np.ones(d.shape), d))
        network = train_network(labels, tmp_path / str(missed), replace(QUICK, steps=1))
        assert ("warning" in network.metrics) == warned


class Interrupted(Exception):  # noqa: N818 - it is what happens
    pass


@pytest.mark.parametrize("after", [1, 3])
def test_cut_off_it_goes_on_to_the_same_bytes(labels: Labels, tmp_path: Path, after: int) -> None:
    def interrupt(text: str, done: int, total: int) -> None:
        if text.startswith("training") and done == after:
            raise Interrupted

    whole = train_network(labels, tmp_path / "whole", QUICK)
    with pytest.raises(Interrupted):
        train_network(labels, tmp_path / "cut", QUICK, progress=interrupt)
    steps: list[int] = []
    cut = train_network(labels, tmp_path / "cut", QUICK, progress=lambda _, done, total: steps.append(done))
    assert steps[FRAMES:] == list(range(after // 2 * 2 + 1, QUICK.steps + 1))
    assert_same(cut, whole)
    assert_same(train_network(labels, tmp_path / "cut", QUICK), whole)  # nothing is left to do
    for name, network in (("a", cut), ("b", whole)):
        save_network(tmp_path / f"{name}.safetensors", network)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_the_seed_decides(labels: Labels, tmp_path: Path) -> None:
    options = replace(QUICK, steps=2)
    one = train_network(labels, tmp_path / "1", options)
    assert_same(train_network(labels, tmp_path / "2", options), one)
    other = train_network(labels, tmp_path / "3", replace(options, seed=1))
    assert not torch.equal(one.module.head[-1].weight, other.module.head[-1].weight)


def scripted(errors: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Held-out errors as written, one after the other."""
    script = iter(errors)

    def fake(net: PoseNet, pictures: Pictures, spec: NetworkSpec) -> tuple[np.ndarray, ...]:
        errors = np.full(pictures.points.shape[:3], next(script))
        return errors, np.ones(errors.shape), errors

    monkeypatch.setattr(module, "held_out_errors", fake)


def test_it_stops_and_keeps_the_best(labels: Labels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = replace(QUICK, steps=40, patience=2)
    scripted([5.0, 3.0, 4.0, np.inf, 1.0], monkeypatch)
    kept: list[dict[str, torch.Tensor]] = []
    load = PoseNet.load_state_dict
    monkeypatch.setattr(
        PoseNet, "load_state_dict",
        lambda self, state: (kept.append({n: v.clone() for n, v in state.items()}), load(self, state))[1],
    )  # fmt: skip
    network = train_network(labels, tmp_path, options)
    assert (network.metrics["steps"], network.metrics["best step"]) == (8, 4)
    history = network.metrics["history: step, loss, mean capped held-out error px"]
    limit = history[3][2]
    assert [row[2] for row in history] == [5.0, 3.0, 4.0, limit]
    assert 5 < limit < SIDE / 4, "a missed keypoint counts a quarter of an animal"
    assert len(kept) == 2
    assert all(torch.equal(value, kept[1][name]) for name, value in network.module.state_dict().items())


def test_sigma_is_the_held_out_error(
    labels: Labels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """Gaussian errors of 3 px an axis give 3; a few far ones, and missed keypoints, change little."""
    distances = np.linalg.norm(rng.normal(0, 3.0, (4001, 1, 3, 2)), axis=-1)
    distances[:100], distances[100:200], distances[200:300] = 500.0, np.inf, np.nan
    distances[:, :, 2] = np.nan
    monkeypatch.setattr(module, "held_out_errors", lambda *_: (distances, np.ones(distances.shape), distances))
    network = train_network(labels, tmp_path, replace(QUICK, steps=1))
    assert network.doubt == 0.0
    np.testing.assert_allclose(network.sigma_px, [3.0, 3.0, np.nan], rtol=0.12)
    np.testing.assert_allclose(network.metrics["held-out keypoints found, %"], 100 * 3801 / 3901)


@pytest.mark.parametrize("slope", [0.0, 4.0])
def test_what_scores_low_is_less_certain(slope: float, rng: np.random.Generator) -> None:
    """Rayleigh distances whose scale grows with the doubt; another keypoint is twice as exact, the third was missed."""
    scores = rng.uniform(0.4, 1.0, (3000, 1, 3))
    spread = np.array([2.0, 1.0, 1.0]) * np.exp(slope * (1 - scores))
    errors = np.linalg.norm(rng.normal(0, spread[..., None], (3000, 1, 3, 2)), axis=-1)
    errors[:, :, 2] = np.inf
    scores[:, :, 2] = 0.0
    errors[::7], scores[::7] = np.nan, np.nan
    sigma, doubt = calibrate_noise(errors, scores)
    # SD of the slope: 0.64 / (0.173 sqrt(5142))
    assert doubt == pytest.approx(slope, abs=4 * 0.052)
    np.testing.assert_allclose(sigma, [2.0, 1.0, np.nan], rtol=0.1)
    few = calibrate_noise(errors[1:3], scores[1:3])[1]
    assert few < 4.0, "four points say little"


def test_without_held_out_frames_the_last_weights_count(labels: Labels, tmp_path: Path) -> None:
    told: list[str] = []
    options = replace(QUICK, held_out=0.0, patience=1)
    network = train_network(labels, tmp_path, options, progress=lambda text, *_: told.append(text))
    assert (network.metrics["steps"], network.metrics["best step"]) == (4, 4)
    assert set(told[FRAMES:]) == {"training"}, "no error is made up"
    assert [row[2] for row in network.metrics["history: step, loss, mean capped held-out error px"]] == [None] * 2
    assert network.metrics["held-out error, px, median"] is None
    assert np.isnan(network.sigma_px).all()
    json.dumps(network.metrics, allow_nan=False)


def test_a_single_keypoint(tmp_path: Path) -> None:
    """No limbs, and no size of an animal."""
    labels = write_labels(tmp_path, Skeleton(("red",)), 8)
    network = train_network(labels, tmp_path / "work", replace(QUICK, scale=None))
    assert (network.spec.limbs, network.spec.scale) == ((), 1.0)
    assert network.metrics["best step"] > 0
    assert all(np.isfinite(row[2]) for row in network.metrics["history: step, loss, mean capped held-out error px"])


def test_the_scale_follows_from_the_animals(labels: Labels, tmp_path: Path) -> None:
    options = replace(QUICK, steps=1, scale=None, animal_px=16.0)
    size = np.median(np.ptp(labels.points[:, 0], axis=1).max(axis=-1))
    network = train_network(labels, tmp_path, options)
    assert abs(np.log2(network.spec.scale * size / 16.0)) < 0.2, "in quarters of an octave, of the training frames"
    assert network.metrics["scale"] == network.spec.scale


def test_going_on_from_a_network(labels: Labels, tmp_path: Path) -> None:
    first = train_network(labels, tmp_path / "first", replace(QUICK, steps=2))
    before = {name: value.clone() for name, value in first.module.state_dict().items()}
    still = replace(QUICK, steps=1, learning_rate=1e-12, average=0.5, width=1.0, channels=8)
    second = train_network(labels, tmp_path / "second", replace(still, scale=0.5), start=first)
    assert second.spec == replace(first.spec, scale=0.5), "its layers, at another scale"
    for name, parameter in second.module.named_parameters():
        torch.testing.assert_close(parameter, before[name], rtol=0, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in first.module.state_dict().items())
    assert second.metrics["taken over"] == "3 of 3 keypoints, 3 of 3 limbs"
    assert "taken over" not in first.metrics
    path = tmp_path / "first.safetensors"
    save_network(path, first)
    named = train_network(labels, tmp_path / "third", replace(still, scale=0.5, start=path))
    assert_same(named, second)


def test_what_was_begun_from_another_network_is_begun_anew(labels: Labels, tmp_path: Path) -> None:
    """A state is gone on from only by the training that left it."""
    one, other = (train_network(labels, tmp_path / str(s), replace(QUICK, steps=2, seed=s)) for s in (0, 1))
    whole = train_network(labels, tmp_path / "whole", QUICK, start=other)
    assert_same(train_network(labels, tmp_path / "whole", QUICK, start=other), whole)
    anew = train_network(labels, tmp_path / "whole", QUICK, start=one)
    assert_same(anew, train_network(labels, tmp_path / "anew", QUICK, start=one))


def test_going_on_with_other_keypoints(labels: Labels, tmp_path: Path) -> None:
    """The fields and peaks of what it knew are there from the first step on; what is new is learnt."""
    first = train_network(labels, tmp_path / "first", replace(QUICK, steps=60, evaluate_every=30, batch=8))
    renamed = replace(labels, skeleton=Skeleton(("yellow", "red", "green")), points=labels.points[:, :, [2, 0, 1]])
    options = replace(QUICK, steps=1, learning_rate=1e-12, average=0.0)
    second = train_network(renamed, tmp_path / "second", options, start=first)
    assert second.spec.skeleton == renamed.skeleton
    assert second.metrics["taken over"] == "2 of 3 keypoints, 1 of 3 limbs; new: yellow"
    assert (second.sigma_px[1:] < 4).all(), "found without a step"
    assert not second.sigma_px[0] < 4
    options = replace(QUICK, steps=60, evaluate_every=30, batch=8, seed=1)
    third = train_network(renamed, tmp_path / "third", options, start=first)
    assert third.metrics["held-out error, px, median"] < 3


def test_imagenet_weights_where_there_are_any(labels: Labels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[PoseNet] = []
    monkeypatch.setattr(beginning, "load_imagenet", given.append)
    for backbone, pretrained in (("efficientnet_lite0", True), ("efficientnet_lite0", False), ("mobilenet_v2", True)):
        first_network(labels, replace(QUICK, backbone=backbone, pretrained=pretrained), None)
        assert len(given) == 1


class Fixed(torch.nn.Module):
    """Maps that are known: a peak of each (keypoint, cell x, cell y), 0.25 cells beside its cell."""

    def __init__(self, peaks: list[tuple[int, int, int]]) -> None:
        super().__init__()
        self.unsure = False
        self.nothing = torch.nn.Parameter(torch.zeros(1))
        self.heat, self.offset = torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 2, 16, 16)
        self.offset[:, :, 0] = 0.25
        for height, (k, x, y) in enumerate(peaks):
            self.heat[0, k, y, x] = 0.9 - 0.1 * height

    def maps(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        noise = torch.zeros(1, 3, 3, 16, 16)
        noise[:, :, 1] = math.log(2)  # SDs of 1 and half a cell
        told = noise if self.unsure else noise[:, :0]
        return self.heat, self.offset, torch.zeros(1, 0, 2, 16, 16), told


def test_errors_are_distances_in_image_px(labels: Labels) -> None:
    spec = NetworkSpec("mobilenet_v2", 0.35, 16, SKELETON, (), 0.5)
    peaks = [(0, 4, 5), (0, 10, 10), (0, 5, 12), (1, 2, 2)]
    truth = np.full((2, 3, 2), np.nan)  # (4.25, 5) cells of 8 image px are at (4.75 * 8 - 0.5, 5.5 * 8 - 0.5)
    truth[0, 0], truth[1, 0] = [37.5 + 3, 43.5 - 4], [81.5, 83.5]
    truth[1, 2] = [50, 50]
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    points = (truth[None] + 0.5) * 0.5 - 0.5
    net: Any = Fixed(peaks)
    pictures = Pictures((image,), points, np.arange(points.shape[2]))
    errors, scores, relative = held_out_errors(net, pictures, spec)
    np.testing.assert_array_equal(relative, errors)
    net.unsure = True
    _, _, relative = held_out_errors(net, pictures, replace(spec, unsure=True))
    np.testing.assert_allclose(relative[0, 0, 0], np.hypot(3, 2 * 4) / 8, atol=1e-4)
    expected = [[5, np.nan, np.nan], [4, np.nan, np.inf]]
    np.testing.assert_allclose(errors[0], expected, atol=1e-4)
    np.testing.assert_array_equal(np.isnan(scores), np.isnan(errors))
    assert scores[0, 1, 2] == 0.0
    assert 0.0 < scores[0, 1, 0] < scores[0, 0, 0] <= 1.0
    third = (np.array([[5.25, 12]]) + 0.5) * 8 - 0.5
    only = np.full((1, 2, 3, 2), np.nan)
    only[0, 0, 0] = (third + 0.5) * 0.5 - 0.5
    found = held_out_errors(net, Pictures((image,), only, np.arange(only.shape[2])), spec)[0][0, 0, 0]
    assert found > 20, "as many peaks as animals: here the highest one alone"


class Greedy:
    """Memory suffices for so many crops at once; `passed` are the sizes that did."""

    def __init__(self, most: int, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passed: list[int] = []
        forward = PoseNet.forward

        def limited(net: PoseNet, images: torch.Tensor) -> Any:
            maps = forward(net, images)  # batch norm has seen the batch when memory ends
            if net.training and len(images) > most:
                raise error
            if net.training:
                self.passed.append(len(images))
            return maps

        monkeypatch.setattr(PoseNet, "forward", limited)


NO_MEMORY = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


@pytest.mark.parametrize("error", [MemoryError(), NO_MEMORY, RuntimeError("[...] not enough memory: you tried")])
def test_a_batch_too_large_is_computed_in_parts(
    labels: Labels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    options = replace(QUICK, batch=6)
    greedy = Greedy(2, error, monkeypatch)
    told: list[str] = []

    def interrupt(text: str, done: int, total: int) -> None:
        told.append(text)
        if text.startswith("training") and done == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        train_network(labels, tmp_path / "cut", options, progress=interrupt)
    assert greedy.passed == [2, 2, 1, 1] * 3, "tried in 1, 2, then 4 parts, once and for all"
    assert all(text.endswith("batch computed in parts: 4") for text in told[FRAMES:])
    cut = train_network(labels, tmp_path / "cut", options)
    assert greedy.passed[12:] == [2, 2, 1, 1] * 2, "resumed in parts from the first"
    assert cut.metrics["batch computed in parts"] == 4
    whole = train_network(labels, tmp_path / "whole", options)
    assert_same(cut, whole)


def test_parts_are_averaged(labels: Labels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without batch norm and with the same loss everywhere, parts make no difference but rounding."""
    monkeypatch.setattr(module, "pose_loss", lambda maps, targets: sum((m**2).mean() for m in maps))
    monkeypatch.setattr(PoseNet, "train", lambda self, mode=True: torch.nn.Module.train(self, False))
    gradients = []
    for parts in (1, 3, 4):
        run = training(labels, tmp_path)
        run.at.parts = parts
        images = torch.rand(4, 32, 32, 3, generator=torch.Generator().manual_seed(1)).numpy()
        loss = run._gradients(images, np.full((4, 1, 3, 2), np.nan))
        gradients.append([loss, *(p.grad.clone() for p in run.parameters)])
    for other in gradients[1:]:
        for one, same in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(one, same, rtol=1e-3, atol=1e-3 * float(one.abs().max()))


def training(labels: Labels, folder: Path) -> Any:
    net, spec = first_network(labels, QUICK, None)
    images = tuple(np.zeros((32, 32, 3), np.uint8) for _ in range(4))
    pictures = Pictures(images, labels.points[:4], labels.skeleton.flip_order())
    return module.Training(spec, net, pictures, pictures, QUICK, folder)


def test_no_memory_for_one_crop_and_other_errors(
    labels: Labels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        Greedy(0, NO_MEMORY, patch)
        with pytest.raises(InputError, match="memory does not suffice to train on a single crop of 64 px; free some"):
            train_network(labels, tmp_path, QUICK)
    with monkeypatch.context() as patch:
        greedy = Greedy(1, RuntimeError("a mistake of ours"), patch)
        with pytest.raises(RuntimeError, match="a mistake of ours"):
            train_network(labels, tmp_path, QUICK)
        assert not greedy.passed


def test_labels_are_compared_with_their_images_once() -> None:
    """By the stage, which gathers them; not again by the training."""
    from pose3d.stages import training as stage

    calls = [inspect.getsource(where).count("check_labels(") for where in (stage, module)]
    assert calls == [1, 0]


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 0), ("batch", 0), ("crop", 100), ("crop", 32), ("held_out", 0.95), ("zoom", (1.2, 0.8)), ("scale", 0.0),
     ("animal_px", -1.0), ("learning_rate", float("nan")), ("width", 0.0),
     ("rotation_deg", -20.0), ("rotation_deg", float("inf")), ("seed", -1), ("seed", 2**64), ("average", 1.0)],
)  # fmt: skip
def test_options_that_cannot_be(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{name}: expected"):
        replace(QUICK, **{name: value})  # type: ignore[arg-type]


def test_of_weights_that_cannot_be_told_apart_the_later_are_kept(
    labels: Labels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """After the least error: 0.1 px more with a scatter of 1 px between frames, then 5 px more in every frame."""
    means = iter([6.0, 3.0, 3.1, 8.0])

    def fake(net: PoseNet, pictures: Pictures, spec: NetworkSpec) -> tuple[np.ndarray, ...]:
        scatter = rng.normal(size=(len(pictures), 1, 1))
        errors = np.zeros(pictures.points.shape[:3]) + (scatter - scatter.mean()) + next(means)
        return errors, np.ones(errors.shape), errors

    monkeypatch.setattr(module, "held_out_errors", fake)
    ready = prepare(labels, replace(QUICK, steps=8, held_out=0.5), None, hold_share, None)
    run = module.Training(ready.spec, ready.module, ready.training, ready.held, ready.options, tmp_path)
    while not run.finished:
        run.advance()
    assert run.at.best_step == 6
    assert np.mean(run.at.least) == pytest.approx(3.0)
