"""From images to candidates: the same whatever the batch, in image px, and what happens when memory or images fail."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from calibration.errors import InputError
from pose3d.nn.network import Network, NetworkSpec, make_module
from pose3d.nn.options import PredictOptions
from pose3d.nn.predict import Predictor, predict_candidates
from pose3d.poses import Candidates
from pose3d.skeleton import Skeleton

SKELETON = Skeleton(("red", "green", "blue"))
SPEC = NetworkSpec("mobilenet_v2", 0.35, 8, SKELETON, ((0, 1), (2, 1)), 0.5)
COLUMNS = ("frame_start", "keypoint", "xy", "score", "limb_start", "a", "b", "edge", "limb_score", "frame")


class Colours(torch.nn.Module):
    """A network that knows: each channel's brightness is its keypoint's heat, the offset leads to the top of the
    parabola through its logarithm; the fields point to the right along the first limb, to the left along the second.
    """

    def maps(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        heat = torch.nn.functional.avg_pool2d((images + 1) / 2, 4)
        n, k, h, w = heat.shape
        log = heat.clamp_min(1e-4).log()
        offset = torch.zeros(n, k, 2, h, w, device=images.device)
        for axis in (0, 1):
            ahead, behind = log.roll(-1, 3 - axis), log.roll(1, 3 - axis)
            offset[:, :, axis] = (ahead - behind) / (2 * (2 * log - ahead - behind)).clamp_min(1e-3)
        fields = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], device=images.device)
        return heat, offset, fields[None, :, :, None, None].expand(n, 2, 2, h, w), heat.new_zeros(n, 0, 3, h, w)


@pytest.fixture(scope="module")
def untrained() -> Network:
    module = make_module(SPEC)
    with torch.no_grad():
        module.head[-1].weight *= 0.02  # offsets of cells, not of images
    return Network(SPEC, module, np.array([1.0, np.nan, 3.0]))


def network_of(module: torch.nn.Module, scale: float = 0.5) -> Network:
    return Network(replace(SPEC, scale=scale), module, np.full(3, 1.0))  # type: ignore[arg-type]


def noise(n: int, size: tuple[int, int] = (90, 70)) -> list[tuple[int, np.ndarray]]:
    rng = np.random.default_rng(5)
    return [(3 * i + 2, rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)) for i in range(n)]


def blobs(centres: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image with one Gaussian of 14 px in each channel at centres (3, 2)."""
    v, u = np.mgrid[: size[1], : size[0]]
    squared = (u[..., None] - centres[:, 0]) ** 2 + (v[..., None] - centres[:, 1]) ** 2
    return np.round(250 * np.exp(-squared / (2 * 14.0**2))).astype(np.uint8)


def assert_same(one: Candidates, other: Candidates) -> None:
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.37, 1.6])
def test_candidates_stand_where_the_image_shows_them(scale: float, rng: np.random.Generator) -> None:
    """Without offsets the parabola through the logarithm is exact for a Gaussian; what is left are 8 bits."""
    centres = np.array([[60.3, 71.8], [140.6, 90.2], [99.5, 40.0]])
    size = (211, 157)
    found = predict_candidates([(7, blobs(centres, size))], network_of(Colours(), scale))
    np.testing.assert_array_equal(found.keypoint, [0, 1, 2])
    np.testing.assert_allclose(found.xy, centres, atol=0.25)
    np.testing.assert_array_equal(found.frame, [7])


def test_nothing_is_found_outside_the_image() -> None:
    """What a network places a little outside, past the image or in what pads it, is at the border; more is left out."""

    class Pushed(Colours):
        def maps(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            heat, offset, *others = super().maps(images)
            offset[:, 1, 0] += 1.5  # 6 px to the right of 5 px from the border
            offset[:, 2, 0] -= 20.0
            return heat, offset, *others

    centres, size = np.array([[60.3, 71.8], [205.0, 90.2], [20.0, 40.0]]), (211, 157)
    found = predict_candidates([(0, blobs(centres, size))], network_of(Pushed(), 1.0))
    np.testing.assert_array_equal(found.keypoint, [0, 1])
    np.testing.assert_allclose(found.xy, [centres[0], [210.5, 90.2]], atol=0.25)


def test_limbs_join_candidates_of_their_frame() -> None:
    """The field says red is left of green and blue right of it: only such pairs are joined, in every frame."""
    left, right, up = [40.0, 60.0], [160.0, 60.0], [100.0, 60.0]
    images = [blobs(np.array(c), (211, 130)) for c in ([left, up, right], [right, up, left], [left, up, right])]
    found = predict_candidates(list(enumerate(images)), network_of(Colours()))
    np.testing.assert_array_equal(found.frame_start, [0, 3, 6, 9])
    np.testing.assert_array_equal(found.limb_start, [0, 2, 2, 4])
    joined = np.stack((found.a, found.b, found.edge), axis=1)
    np.testing.assert_array_equal(joined, [(0, 1, 0), (2, 1, 1), (6, 7, 0), (8, 7, 1)])
    assert found.limbs == SPEC.limbs


def test_limbs_that_are_too_long_or_too_short_count_less() -> None:
    """The two limbs are 60 px long: as labelled, twice as long, three SDs off, or unlike anything."""
    image = blobs(np.array([[40.0, 60.0], [100.0, 60.0], [160.0, 60.0]]), (211, 130))
    plain = predict_candidates([(0, image)], network_of(Colours()))
    for median, sd, expected in (
        (60.0, 0.0, 1.0),
        (30.0, 1.0, 1.0),
        (60 * np.exp(0.75), 0.15, np.exp(-2)),
        (600, 0, 0),
    ):
        lengths = np.array([[median, sd], [np.nan, np.nan]])
        network = replace(network_of(Colours()), limb_px=lengths)
        found = predict_candidates([(0, image)], network, PredictOptions(limb_threshold=0.01))
        told = dict(zip(found.edge, found.limb_score, strict=True))
        assert told.get(0, 0.0) == pytest.approx(expected * plain.limb_score[0], abs=0.02)
        assert told[1] == pytest.approx(plain.limb_score[1])


def test_nothing_depends_on_batch_window_or_workers(untrained: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    options = PredictOptions(batch=1, threshold=0.01, limit=3)
    frames = noise(11)
    expected = predict_candidates(frames, untrained, options)
    assert len(expected.keypoint) > 20
    for batch in (3, 4, 20):
        assert_same(predict_candidates(frames, untrained, replace(options, batch=batch)), expected)
    predictor = Predictor(untrained, replace(options, batch=2))
    predictor.workers = 3
    windows = list(predictor.windows(iter(frames), 5))
    assert [len(window.frame) for window in windows] == [5, 5, 1]
    one = predict_candidates(frames[5:10], untrained, options)
    assert_same(windows[1], one)
    np.testing.assert_array_equal(np.concatenate([w.xy for w in windows]), expected.xy)
    assert_same(predict_candidates([], untrained), predict_candidates([], untrained, options))


def test_uncertainty_is_the_held_out_error(untrained: Network) -> None:
    found = predict_candidates(noise(2), untrained, PredictOptions(threshold=0.01))
    sigma = np.array([1.0, 2.0, 3.0])  # where nothing was held out, the others' median
    least = (0.05 * 4 / SPEC.scale) ** 2 * np.eye(2)
    np.testing.assert_allclose(found.covariance, sigma[found.keypoint, None, None] ** 2 * np.eye(2) + least)
    doubtful = predict_candidates(noise(2), replace(untrained, doubt=2.0), PredictOptions(threshold=0.01))
    grown = np.exp(4.0 * (1 - doubtful.score))[:, None, None]
    np.testing.assert_allclose(doubtful.covariance, grown * (found.covariance - least) + least)
    cell = 4 / SPEC.scale
    for known, expected in (([np.nan] * 3, 0.5 * cell), ([0.0] * 3, 0.0)):
        network = replace(untrained, sigma_px=np.array(known))
        found = predict_candidates(noise(1), network, PredictOptions(threshold=0.01))
        np.testing.assert_allclose(found.covariance[0], expected**2 * np.eye(2) + least)


class Greedy(torch.nn.Module):
    """A network for which memory suffices for so many images at once."""

    def __init__(self, module: torch.nn.Module, most: int, error: Exception) -> None:
        super().__init__()
        self.module, self.most, self.error = module, most, error
        self.sizes: list[int] = []

    def maps(self, images: torch.Tensor) -> object:
        self.sizes.append(len(images))
        if len(images) > self.most:
            raise self.error
        return self.module.maps(images)  # type: ignore[operator]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried to allocate 1"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. Error code 12"),
    ],
)
def test_a_smaller_batch_where_memory_does_not_suffice(untrained: Network, error: Exception) -> None:
    options = PredictOptions(batch=8, threshold=0.01)
    predictor = Predictor(replace(untrained, module=Greedy(untrained.module, 2, error)), options)
    found = next(predictor.windows(noise(20), 20))
    assert predictor.batch == 2
    assert max(predictor.module.sizes[-5:]) <= 2  # type: ignore[union-attr, arg-type]
    assert_same(found, predict_candidates(noise(20), untrained, options))
    with pytest.raises(InputError, match=r"memory does not suffice for a single image, 64 x 64 px in the network's"):
        predict_candidates(noise(2), replace(untrained, module=Greedy(untrained.module, 0, error)), options)


def test_a_mistake_is_not_taken_for_lack_of_memory(untrained: Network) -> None:
    broken = replace(untrained, module=Greedy(untrained.module, 0, RuntimeError("a mistake of ours")))
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        predict_candidates(noise(2), broken)


def test_what_was_read_before_an_error_is_given_first(untrained: Network) -> None:
    def breaking():
        yield from noise(7)
        raise InputError("breaks off")

    options = PredictOptions(batch=2, threshold=0.01)
    windows = Predictor(untrained, options).windows(breaking(), 3)
    given = [next(windows), next(windows)]
    with pytest.raises(InputError, match="breaks off"):
        next(windows)
    whole = predict_candidates(noise(6), untrained, options)
    np.testing.assert_array_equal(np.concatenate([w.xy for w in given]), whole.xy)


def test_frames_of_another_size(untrained: Network) -> None:
    frames = noise(2) + [(9, np.zeros((50, 60, 3), np.uint8))]
    with pytest.raises(InputError, match="frame 9: expected 90 x 70 px as the frames before, got 60 x 50"):
        predict_candidates(frames, untrained)


def test_stopping_early_leaves_nothing_running(untrained: Network) -> None:
    import threading

    before, threads = threading.active_count(), torch.get_num_threads()
    windows = Predictor(untrained, PredictOptions(batch=1)).windows(noise(30), 2)
    next(windows)
    windows.close()
    assert threading.active_count() == before
    assert torch.get_num_threads() == threads


def test_devices(untrained: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "cuda", SimpleNamespace(is_available=lambda: False))
    assert Predictor(untrained, PredictOptions(device="auto")).device.type == "cpu"
    with pytest.raises(InputError, match="expected a CUDA device, found none"):
        Predictor(untrained, PredictOptions(device="cuda"))
    for wrong in ({"batch": 0}, {"limit": 0}, {"threshold": 0.0}, {"limb_threshold": 1.0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            PredictOptions(**wrong)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("half", [False, True])
def test_cuda_finds_the_same(rng: np.random.Generator, half: bool) -> None:
    images = [blobs(rng.uniform((30, 30), (180, 130), (3, 2)), (211, 157)) for _ in range(20)]
    network = network_of(Colours())
    on_cpu = predict_candidates(enumerate(images), network, PredictOptions(device="cpu"))
    on_gpu = predict_candidates(enumerate(images), network, PredictOptions(device="cuda", batch=3, half=half))
    np.testing.assert_array_equal(on_gpu.keypoint, on_cpu.keypoint)
    np.testing.assert_allclose(on_gpu.xy, on_cpu.xy, atol=0.05)
