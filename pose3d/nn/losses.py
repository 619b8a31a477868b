"""How wrong is the network's answer?"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from pose3d.nn.targets import Targets

__all__ = ["pose_loss"]

PEAK = 20.0
"""How much more than an empty cell a keypoint's own cell counts."""
OFFSET, FIELD = 0.5, 0.5
"""Weights of the offsets and the fields beside the heatmap's 1."""


def pose_loss(maps: tuple[Tensor, Tensor, Tensor], targets: Targets) -> Tensor:
    """Scalar: squared error of the heat in 0..1 (the maps hold logits), smooth L1 of the offsets in cells and of the
    fields, each weighted as the targets say and relative to how much there is to see in the batch.

    Squared error learns from few steps what a focal loss needs many for: its pull on a half-found peak is stronger.
    """
    heat, offset, paf = maps
    weight = targets.heat_weight * (1 + PEAK * targets.heat)
    heat_loss = ((heat.sigmoid() - targets.heat) ** 2 * weight).sum() / targets.heat.sum().clamp(min=1.0)
    near = targets.offset_weight
    off = functional.smooth_l1_loss(offset, targets.offset, reduction="none", beta=0.5).sum(dim=2)
    offset_loss = (off * near).sum() / near.sum().clamp(min=1.0)
    field = functional.smooth_l1_loss(paf, targets.paf, reduction="none", beta=0.2).sum(dim=2) * targets.paf_weight
    on = (targets.paf_weight == 1.0).sum().clamp(min=1)
    return heat_loss + OFFSET * offset_loss + FIELD * field.sum() / on
