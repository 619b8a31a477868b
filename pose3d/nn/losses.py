"""How wrong is the network's answer?"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pose3d.nn.model import Maps
from pose3d.nn.targets import Targets

__all__ = ["noise_loss", "pose_loss"]

PEAK = 20.0
"""How much more than an empty cell a keypoint's own cell counts."""
OFFSET, FIELD = 0.5, 0.5
"""Weights of the offsets and the fields beside the heatmap's 1."""
FREEDOM = 4.0
"""Degrees of freedom of the offsets' errors: labels have gross errors, which must not blur all the others."""


def pose_loss(maps: Maps, targets: Targets) -> Tensor:
    """Scalar: squared error of the heat in 0..1 (the maps hold logits), smooth L1 of the offsets in cells and of the
    fields, each weighted as the targets say and relative to how much there is to see in the batch; and `noise_loss`.

    Squared error learns from few steps what a focal loss needs many for: its pull on a half-found peak is stronger.
    """
    heat, offset, paf, noise = maps
    weight = targets.heat_weight * (1 + PEAK * targets.heat)
    heat_loss = ((heat.sigmoid() - targets.heat) ** 2 * weight).sum() / targets.heat.sum().clamp(min=1.0)
    near = targets.offset_weight
    off = functional.smooth_l1_loss(offset, targets.offset, reduction="none", beta=0.5).sum(dim=2)
    offset_loss = (off * near).sum() / near.sum().clamp(min=1.0)
    field = functional.smooth_l1_loss(paf, targets.paf, reduction="none", beta=0.2).sum(dim=2) * targets.paf_weight
    on = (targets.paf_weight == 1.0).sum().clamp(min=1)
    loss = heat_loss + OFFSET * offset_loss + FIELD * field.sum() / on
    return loss + noise_loss(noise, targets.offset - offset.detach(), near) if noise.shape[1] else loss


def noise_loss(noise: Tensor, error: Tensor, weight: Tensor) -> Tensor:
    """Scalar: the negative logarithm of the likelihood of the offsets' errors, but for a constant, under Student's t
    distribution in two dimensions, the mean over all cells by weight.

    noise (n, K, 3, h, w): see `PoseNet.forward`; error (n, K, 2, h, w) cells; weight (n, K, h, w).
    """
    p, q, r = noise.unbind(dim=2)
    x, y = error.unbind(dim=2)
    squared = (p.exp() * x + r * y) ** 2 + (q.exp() * y) ** 2  # |L^T error|^2
    likelihood = p + q - 0.5 * (FREEDOM + 2) * torch.log1p(squared / FREEDOM)
    return -(likelihood * weight).sum() / weight.sum().clamp(min=1.0)
