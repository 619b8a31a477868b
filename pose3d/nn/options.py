"""What may be chosen about training and prediction? Torch-free, so that reading a session's file stays fast."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from calibration.errors import InputError

__all__ = ["EngineName", "PredictOptions", "TrainOptions"]

EngineName = Literal["auto", "torch", "torch-bf16", "onnxruntime", "openvino", "openvino-bf16"]

MOST_CROP, MOST_SCALE = 2048, 16
"""Beyond these no memory suffices for a single picture."""
LEAST_LABELS = 5
"""Labelled frames below which no training is begun."""


@dataclass(frozen=True)
class TrainOptions:
    """How a network is trained.

    backbone: "efficientnet_lite0", "mobilenet_v2" (of `width`), "timm:<name>". pretrained: ImageNet weights, where the
    backbone has them. channels: of the upsampling head. start: a network (.safetensors) to go on from, perhaps one of
    other keypoints: its layers are taken instead of those named so far.
    networks: "shared" = one for all cameras; "per_camera" = one for each, which learns from that camera's frames alone;
    "shared_backbone" = one for each, all but the head of which learns from the frames of all.
    steps: batches at most; batch: crops in each; crop: their side, input px. animal_px: how long an animal is in the
    network's input, from which follows the scale (1/8 to 1.41). scale: input px per image px instead.
    learning_rate: of the head; the backbone has backbone_rate times it.
    rotation_deg, zoom: crops are turned by up to +- rotation_deg and resized by zoom[0]..zoom[1]. flip: half of them
    are mirrored, left and right exchanged as the skeleton's symmetry says, or else the names of its
    keypoints.
    paste: share of the crops, 0..1, before whose animals one of another frame is put, where frames hold several.
    cover, blur, noise: share of the crops, 0..1, with things in the way, that moved, that are short of light.
    unlabelled: weight, 0..1, of "there is none" where an animal is but its keypoint has no label: 1 if what is not
    labelled cannot be seen, less if labels were forgotten.
    held_out: share of the frames that is kept for measuring the error. evaluate_every: steps; patience: evaluations
    without a better one after which it stops. average: decay of the exponential moving average of the weights.
    seed: same seed, same labels, same network.
    """

    backbone: str = "efficientnet_lite0"
    width: float = 1.0
    pretrained: bool = True
    channels: int = 256
    start: Path | None = None
    networks: Literal["shared", "per_camera", "shared_backbone"] = "shared"
    steps: int = 2000
    batch: int = 8
    crop: int = 128
    animal_px: float = 88.0
    scale: float | None = None
    learning_rate: float = 8e-3
    backbone_rate: float = 0.5
    rotation_deg: float = 180.0
    zoom: tuple[float, float] = (0.8, 1.25)
    flip: bool = False
    paste: float = 0.3
    cover: float = 0.1
    blur: float = 0.1
    noise: float = 0.1
    unlabelled: float = 0.1
    held_out: float = 0.1
    evaluate_every: int = 200
    patience: int = 5
    average: float = 0.99
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "evaluate_every", "patience", "channels"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("width", "animal_px", "scale", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name}: expected a number above 0, got {value}")
        if self.scale is not None and not 1 / MOST_SCALE <= self.scale <= MOST_SCALE:
            raise InputError(
                f"scale: expected 1/{MOST_SCALE} to {MOST_SCALE} input px per image px, got {self.scale:g}"
            )
        if self.crop % 32 or not 64 <= self.crop <= MOST_CROP:  # a single cell has no variance for batch norm
            raise InputError(f"crop: expected a multiple of 32 px, 64 to {MOST_CROP}, got {self.crop}")
        if not 0 <= self.held_out < 0.9:
            raise InputError(f"held_out: expected a share from 0 to below 0.9, got {self.held_out}")
        for name in ("paste", "cover", "blur", "noise", "unlabelled"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}: expected a number from 0 to 1, got {getattr(self, name)}")
        if not 0 <= self.rotation_deg <= 180:
            raise InputError(f"rotation_deg: expected 0 to 180 degrees, got {self.rotation_deg}")
        if not 0 <= self.average < 1:
            raise InputError(f"average: expected a decay from 0 to below 1, got {self.average}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed: expected a whole number from 0 to 2^63 - 1, got {self.seed}")
        if not 0 < self.zoom[0] <= self.zoom[1]:
            raise InputError(f"zoom: expected two rising factors above 0, got {self.zoom}")


@dataclass(frozen=True)
class PredictOptions:
    """How a network finds candidates in images.

    model: the network (.safetensors), or a folder with <camera>.safetensors for each camera or one network.safetensors
    for all; None where it is trained from labels. batch: images at once, None = 1 on a CPU, 16 on a GPU.
    device: "auto" takes a CUDA device where there is one. half: float16 on CUDA.
    engine: who computes, on a CPU. "auto" = for long videos the fastest installed one that finds the same keypoints as
    "torch" (`choose_engine`), else "torch"; a name where bytes must be the same on every machine. All but the two
    of torch need `pip install 'pose3d[fast]'`.
    threshold: heat, 0..1, from which a peak is a candidate; limit: candidates of each keypoint in a frame at most.
    limb_threshold: score, 0..1, from which two candidates may be joined.
    region: "auto" = of large frames in which the animals are small most are looked at only around the animals, as two
    whole frames within a second show them; what the background looks like elsewhere is then not among the candidates.
    False = all frames whole.
    """

    model: Path | None = None
    batch: int | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    half: bool = False
    engine: EngineName = "auto"
    threshold: float = 0.1
    limit: int = 20
    limb_threshold: float = 0.1
    region: Literal["auto", False] = "auto"

    def __post_init__(self) -> None:
        if self.batch is not None and self.batch < 1:
            raise InputError(f"batch: expected at least 1 image, got {self.batch}")
        if self.device == "cuda" and self.engine not in ("auto", "torch"):
            raise InputError(f'engine: expected "auto" or "torch" on CUDA, got "{self.engine}", which is for CPUs')
        if self.limit < 1:
            raise InputError(f"limit: expected at least 1 candidate, got {self.limit}")
        for name in ("threshold", "limb_threshold"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"{name}: expected a number between 0 and 1, got {getattr(self, name)}")
