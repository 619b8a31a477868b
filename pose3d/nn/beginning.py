"""What does a training begin with? Pictures to learn from, pictures held out, and the network before its first step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from calibration.errors import InputError
from pose3d.labels import Labels, hold_out
from pose3d.nn.data import Pictures, load_pictures, suitable_scale
from pose3d.nn.limbs import choose_limbs
from pose3d.nn.model import PoseNet, load_imagenet
from pose3d.nn.network import Network, NetworkSpec, load_network, make_module
from pose3d.nn.options import LEAST_LABELS, TrainOptions
from pose3d.nn.transfer import successor, taken_over, transferred
from pose3d.skeleton import symmetry_by_name

__all__ = ["Prepared", "Progress", "Rows", "first_network", "hold_share", "prepare"]

Progress = Callable[[str, int, int], None]
Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a training begins with. labels: the usable ones; rows: of `labels`, (to train on, held out), as are the
    pictures. told: for the metrics."""

    options: TrainOptions
    spec: NetworkSpec
    module: PoseNet
    labels: Labels
    rows: tuple[Rows, Rows]
    training: Pictures
    held: Pictures
    told: dict[str, Any]


def prepare(
    labels: Labels,
    options: TrainOptions | None,
    start: Network | None,
    split: Callable[[Labels, float], tuple[Rows, Rows]],
    progress: Progress | None,
) -> Prepared:
    """The network before its first step and the pictures that it learns from; see `train_network`. split(labels, share
    to hold out): rows to train on and rows held out."""
    options = options or TrainOptions()
    if start is None and options.start is not None:
        start = load_network(options.start)
    options = replace(options, start=None)
    labelled = np.isfinite(labels.points[..., 0]).any(axis=(1, 2))
    if labelled.sum() < LEAST_LABELS:
        raise InputError(
            f"{int(labelled.sum())} labelled frames: expected at least {LEAST_LABELS}; label more (20 to 100 a camera "
            "are a good beginning)"
        )
    pairs = labels.skeleton.symmetry or symmetry_by_name(labels.skeleton.keypoints)
    if options.flip and not pairs:
        raise InputError(
            "flip: expected pairs of keypoints that are each other's mirror image, found none; name them as `symmetry` "
            "under [skeleton], or leave `flip` out under [train]"
        )
    labels = labels.take(np.flatnonzero(labelled))
    training, held = split(labels, options.held_out)
    module, spec = first_network(labels.take(training), options, start)

    def loading(done: int) -> None:
        if progress:
            progress("reading labelled frames", done, len(labels))

    mirrored = replace(labels.skeleton, symmetry=pairs).flip_order()
    pictures = load_pictures(labels, spec.scale, mirrored, loading)
    names = labels.skeleton.keypoints
    told = {"mirrored": ", ".join(f"{names[a]}-{names[b]}" for a, b in pairs) if options.flip else "not"}
    told |= {} if start is None else {"taken over": taken_over(start.spec, spec)}
    rows = (training, held)
    return Prepared(options, spec, module, labels, rows, pictures.take(training), pictures.take(held), told)


def hold_share(labels: Labels, share: float) -> tuple[Rows, Rows]:
    """`hold_out`, also of nothing: (rows to train on, rows held out)."""
    return hold_out(labels, share) if share else (np.arange(len(labels)), np.arange(0))


def first_network(labels: Labels, options: TrainOptions, start: Network | None) -> tuple[PoseNet, NetworkSpec]:
    """The network before its first step: that of `start`, or a fresh one on its pretrained backbone."""
    scale = options.scale or suitable_scale(labels.points, options.animal_px)
    generator = torch.Generator().manual_seed(options.seed)
    if start is not None:
        spec = successor(start.spec, labels, scale)
        return transferred(start, spec, generator), spec
    limbs = choose_limbs(labels.points, labels.skeleton)
    spec = NetworkSpec(options.backbone, options.width, options.channels, labels.skeleton, limbs, scale, unsure=True)
    module = make_module(spec, generator)
    if options.pretrained and options.backbone != "mobilenet_v2":
        load_imagenet(module)
    return module, spec
