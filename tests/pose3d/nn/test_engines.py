"""Engines give PyTorch's maps, and one that does not is not chosen."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from calibration.errors import InputError
from pose3d.nn import engine_choice, engines
from pose3d.nn.engine_choice import Agreement, agreement, choose_engine
from pose3d.nn.engines import Engine, installed_engines, make_engine
from pose3d.nn.model import fold_norms
from pose3d.nn.network import Network, NetworkSpec, make_module
from pose3d.nn.options import EngineName, PredictOptions
from pose3d.nn.predict import Predictor, predict_candidates
from pose3d.poses import Candidates
from pose3d.skeleton import Skeleton

SPEC = NetworkSpec("mobilenet_v2", 0.35, 8, Skeleton(("nose", "tail", "ear")), ((0, 1), (0, 2)), 0.5)
OPTIONS = PredictOptions(threshold=0.02, limit=5)
CPU = torch.device("cpu")
OTHERS: tuple[EngineName, ...] = ("onnxruntime", "openvino", "openvino-bf16")


def needs(name: EngineName) -> None:
    for package in engines.NEEDS[name]:
        pytest.importorskip(package, reason=f"{package} is not installed (pip install 'pose3d[fast]')")


def network_of(**changes: object) -> Network:
    spec = replace(SPEC, **changes)  # type: ignore[arg-type]
    module = make_module(spec)
    with torch.no_grad():
        module.head[-1].weight *= 0.02  # offsets of cells, not of images
    return Network(spec, module, np.full(len(spec.skeleton), 2.0))


@pytest.fixture(scope="module")
def network() -> Network:
    return network_of()


def pictures(n: int, size: tuple[int, int] = (96, 64), seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, size[1], size[0], 3), dtype=np.uint8)


def frames(n: int) -> list[tuple[int, np.ndarray]]:
    return list(enumerate(pictures(n, (190, 130))))


def assert_near(found: np.ndarray, expected: np.ndarray, share: float) -> None:
    """The rms difference is less than a share of what the maps vary by."""
    if expected.size:
        assert np.sqrt(np.mean((found - expected) ** 2)) < share * expected.std()


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"limbs": ()},
        {"backbone": "efficientnet_lite0", "width": 1.0},
        {"skeleton": Skeleton(("one",)), "limbs": ()},
    ],
)
def test_maps_are_those_of_torch(name: EngineName, changes: dict[str, object]) -> None:
    """Whatever the batch and the size, also of networks without limbs; bf16 has 8 bits."""
    needs(name)
    module = fold_norms(network_of(**changes).module)
    engine, torch_engine = make_engine(name, module, CPU), make_engine("torch", module, CPU)
    for n, size in ((1, (64, 64)), (3, (96, 64)), (2, (128, 160))):
        images = pictures(n, size)
        for found, expected in zip(engine(images), torch_engine(images), strict=True):
            assert found.dtype == np.float32
            assert found.shape == expected.shape
            assert_near(found, expected, 0.2 if "bf16" in name else 1e-4)


def test_bf16_of_torch_is_near(network: Network) -> None:
    module = fold_norms(network.module)
    for found, expected in zip(
        make_engine("torch-bf16", module, CPU)(pictures(2)), make_engine("torch", module, CPU)(pictures(2)), strict=True
    ):
        assert found.dtype == np.float32
        assert_near(found, expected, 0.2)
        assert found.size == 0 or (found != expected).any()


@pytest.mark.parametrize("name", OTHERS[:2])
def test_candidates_do_not_depend_on_batch_or_workers(network: Network, name: EngineName) -> None:
    needs(name)
    expected = predict_candidates(frames(9), network, replace(OPTIONS, engine="torch"))
    assert len(expected.keypoint) > 20
    for batch, workers in ((1, 1), (4, 2), (2, 3)):
        predictor = Predictor(network, replace(OPTIONS, engine=name, batch=batch))
        predictor.workers = workers
        found = next(predictor.windows(frames(9), 9))
        np.testing.assert_array_equal(found.keypoint, expected.keypoint)
        np.testing.assert_allclose(found.xy, expected.xy, atol=0.01)
        np.testing.assert_allclose(found.score, expected.score, atol=1e-4)


def test_auto_without_frames_to_try_on_is_torch(network: Network) -> None:
    auto, plain = (predict_candidates(frames(3), network, replace(OPTIONS, engine=e)) for e in ("auto", "torch"))  # type: ignore[arg-type]
    for column in ("frame_start", "keypoint", "xy", "score", "limb_score"):
        np.testing.assert_array_equal(getattr(auto, column), getattr(plain, column))


def test_what_is_not_installed_is_said(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda package: None)
    assert installed_engines() == ()
    message = r"engine: expected onnx and openvino for 'openvino-bf16', found none; pip install 'pose3d\[fast\]'"
    with pytest.raises(InputError, match=message):
        Predictor(network, PredictOptions(engine="openvino-bf16"))
    assert choose_engine(frames(2), network, OPTIONS) == engine_choice.EngineChoice("torch")


def test_an_engine_that_cannot_take_the_network_is_said(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(module: object) -> bytes:
        raise RuntimeError("no such operation\nmore")

    monkeypatch.setattr(engines, "onnx_bytes", broken)
    monkeypatch.setattr(engines, "_missing", lambda packages: [])
    with pytest.raises(InputError, match=r"engine: 'onnxruntime' does not take this network \(no such operation\)"):
        Predictor(network, PredictOptions(engine="onnxruntime"))
    choice = choose_engine(frames(2), network, OPTIONS, ("onnxruntime",))
    assert choice.engine == "torch"
    assert "onnxruntime: engine: 'onnxruntime' does not take" in str(choice.told)


def test_engines_for_cpus_are_refused_on_cuda() -> None:
    with pytest.raises(InputError, match='engine: expected "auto" or "torch" on CUDA, got "openvino"'):
        PredictOptions(device="cuda", engine="openvino")


def test_lack_of_memory_is_told_apart() -> None:
    def failing(text: str) -> Engine:
        def run(images: np.ndarray) -> list[np.ndarray]:
            raise ValueError(text)

        return engines._of_outputs(run)

    with pytest.raises(MemoryError):
        failing("Failed to allocate memory for requested buffer of size 12")(pictures(1))
    with pytest.raises(ValueError, match="another"):
        failing("another mistake")(pictures(1))


def altered(change: Callable[[list[np.ndarray]], None]) -> Callable[..., Engine]:
    """make_engine, whose "openvino" is PyTorch with changed maps."""

    def make(name: EngineName, module: torch.nn.Module, device: torch.device, **told: object) -> Engine:
        plain = make_engine("torch", module, device)  # type: ignore[arg-type]

        def maps(images: np.ndarray) -> list[np.ndarray]:
            found = [m.copy() for m in plain(images)]
            change(found)
            return found

        return maps if name == "openvino" else plain

    return make


def shift(cells: float) -> Callable[[list[np.ndarray]], None]:
    def change(maps: list[np.ndarray]) -> None:
        maps[1][:, :, 0] += cells

    return change


def blind(maps: list[np.ndarray]) -> None:
    maps[0][:, 2] = 0


def ghost(maps: list[np.ndarray]) -> None:
    maps[0][:, 0, 5, 5] = 1.0


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, float]], None]:
    """Lets engines take the seconds that are told."""

    def told(seconds: dict[str, float]) -> None:
        monkeypatch.setattr(engine_choice, "_seconds", lambda works: {name: seconds[name] for name in works})

    return told


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda maps: None, None),
        (shift(0.005), None),  # cells of 8 px
        (shift(0.02), r"openvino: keypoints off by 0\.16 px in the median"),
        (blind, r"openvino: \d+ of \d+ keypoints differ"),
        (ghost, r"openvino: \d+ of \d+ keypoints differ"),
        (shift(np.nan), "openvino: "),
    ],
)
def test_a_wrong_engine_is_refused(
    network: Network,
    monkeypatch: pytest.MonkeyPatch,
    quick: Callable[[dict[str, float]], None],
    change: Callable[[list[np.ndarray]], None],
    reason: str | None,
) -> None:
    from pose3d.nn import predict

    monkeypatch.setattr(predict, "make_engine", altered(change))
    monkeypatch.setattr(engine_choice, "SURE", 0.0)
    quick({"torch": 1.0, "openvino": 0.1})
    choice = choose_engine(frames(6), network, OPTIONS, ("openvino",))
    assert choice.engine == ("openvino" if reason is None else "torch")
    if reason is None:
        assert str(choice.told).startswith("openvino, 10.0 x as fast as torch; ")
    else:
        assert re.search(reason, str(choice.told)), choice.told


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ((1.0, 0.9, 0.9, 0.9), "torch"),
        ((1.0, 0.5, 0.45, 0.6), "onnxruntime"),
        ((1.0, 0.5, 0.4, 0.38), "openvino"),
        ((1.0, 2.0, 2.0, 0.5), "openvino-bf16"),
    ],
)
def test_only_what_is_clearly_faster_is_taken(
    network: Network,
    monkeypatch: pytest.MonkeyPatch,
    quick: Callable[[dict[str, float]], None],
    seconds: tuple[float, ...],
    expected: str,
) -> None:
    from pose3d.nn import predict

    monkeypatch.setattr(predict, "make_engine", altered(lambda maps: None))
    monkeypatch.setattr(engine_choice, "SURE", 0.0)
    quick(dict(zip(("torch", *OTHERS), seconds, strict=True)))
    assert choose_engine(frames(6), network, OPTIONS, OTHERS).engine == expected


def candidates(xy: list[tuple[float, float]], score: list[float], keypoint: list[int]) -> Candidates:
    n = len(xy)
    none = np.zeros(0, np.int64)
    return Candidates(
        frame_start=np.array([0, n]),
        keypoint=np.array(keypoint, np.int32),
        xy=np.array(xy, float).reshape(n, 2),
        score=np.array(score, float),
        covariance=np.tile(np.eye(2), (n, 1, 1)),
        limb_start=np.array([0, 0]),
        a=none,
        b=none,
        edge=none.astype(np.int32),
        limb_score=np.zeros(0),
        frame=np.array([4]),
        skeleton=SPEC.skeleton,
        limbs=SPEC.limbs,
    )


def test_agreement_counts_what_is_sure(network: Network) -> None:
    truth = candidates([(10, 10), (50, 10), (90, 10)], [0.9, 0.8, 0.11], [0, 1, 2])
    found = candidates([(10.3, 10.4), (50, 10)], [0.9, 0.1], [0, 1])
    told = agreement(truth, found, network, 0.1)  # the second may be less sure, the third, just above 0.1, be missing
    assert (told.n, told.lost) == (2, 0)
    assert (told.median_px, told.p95_px) == pytest.approx((0.25, 0.475))
    other_kind = candidates([(10, 10), (50, 10)], [0.9, 0.9], [0, 2])
    told = agreement(truth, other_kind, network, 0.1)
    assert (told.n, told.lost, told.median_px) == (2, 2, 0.0)
    nothing = candidates([], [], [])
    assert agreement(truth, nothing, network, 0.1).lost == 2
    assert "only 0 keypoints" in str(agreement(nothing, nothing, network, 0.1).refusal)
    assert Agreement(30, 0.1, 0.3, 0).refusal is None
    assert Agreement(30, 0.1, 0.31, 0).refusal
    assert Agreement(30, 0.1, 0.3, 1).refusal


def test_the_shipped_network_finds_the_same_with_every_engine_of_float32() -> None:
    from pose3d.demo import SHIPPED
    from pose3d.nn.network import load_network

    shipped = load_network(Path(SHIPPED))
    blurred = torch.nn.functional.interpolate(
        torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(1)), (384, 512), mode="bicubic"
    )
    image = (blurred[0].permute(1, 2, 0).clamp(0, 1) * 255).to(torch.uint8).numpy()
    options = PredictOptions(threshold=0.02, engine="torch")
    truth = predict_candidates([(0, image)], shipped, options)
    tried = [name for name in OTHERS[:2] if name in installed_engines()]
    if not tried:
        pytest.skip("neither onnxruntime nor openvino is installed (pip install 'pose3d[fast]')")
    for name in tried:
        told = agreement(truth, predict_candidates([(0, image)], shipped, replace(options, engine=name)), shipped, 0.02)
        assert told.lost == 0
        assert not told.n or told.p95_px < 1e-3
