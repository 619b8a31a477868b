"""What should the network answer for known keypoints? Heatmaps, offsets, part affinity fields, and their weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Targets", "make_targets"]

SPREAD = 1.5
"""SD of a keypoint's Gaussian in the heatmap, in cells."""
REACH = 2.5
"""Cells around a keypoint whose offsets are trained."""
BAND = 1.0
"""Half the width of a limb in its field, in cells."""
SHORTEST = 1e-3
"""Cells below which a limb has no direction, and is as if it were not labelled."""
BACKGROUND = 0.1
"""Weight of a field's cells that lie on no limb; there are so many more of them."""
MARGIN = 0.2
"""The box of an animal reaches this share of its size beyond its labelled keypoints."""


@dataclass(frozen=True, eq=False)
class Targets:
    """heat (n, K, h, w) in 0..1, offset (n, K, 2, h, w) cells, paf (n, L, 2, h, w); weights of each without the 2."""

    heat: Tensor
    offset: Tensor
    paf: Tensor
    heat_weight: Tensor
    offset_weight: Tensor
    paf_weight: Tensor


def make_targets(points: Tensor, limbs: Tensor, shape: tuple[int, int], unlabelled: float = 1.0) -> Targets:
    """Targets of keypoints (n, individuals, K, 2) in cells, NaN where not labelled. limbs: (L, 2). shape: (h, w).

    unlabelled: weight of the empty heatmap in the box of an animal whose keypoint has no label: it may be there.
    """
    known = torch.isfinite(points).all(dim=-1)
    xy = torch.where(known[..., None], points, torch.full_like(points, 1e6))
    x = torch.arange(shape[1], dtype=points.dtype, device=points.device)
    y = torch.arange(shape[0], dtype=points.dtype, device=points.device)
    dx, dy = xy[..., 0, None] - x, xy[..., 1, None] - y  # (n, I, K, w), (n, I, K, h)
    every = torch.exp(-(dy**2)[..., None] / (2 * SPREAD**2)) * torch.exp(-(dx**2)[..., None, :] / (2 * SPREAD**2))
    heat, nearest = every.max(dim=1)  # (n, K, h, w)
    pick = nearest[:, None, :, :, :]
    off_x = dx[..., None, :].expand_as(every).gather(1, pick)[:, 0]
    off_y = dy[..., None].expand_as(every).gather(1, pick)[:, 0]
    near = off_x**2 + off_y**2 < REACH**2
    offset = torch.stack([off_x, off_y], dim=2) * near[:, :, None]
    unsure = _boxes(points, known, x, y)
    heat_weight = torch.where(unsure & (heat < 0.1), unlabelled, 1.0)
    paf, paf_weight = _fields(xy, known, limbs, x, y)
    return Targets(heat, offset, paf, heat_weight, near * heat, paf_weight)


def _boxes(points: Tensor, known: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(n, K, h, w) whether a cell lies in the box of an animal that lacks this keypoint's label."""
    low = torch.where(known[..., None], points, torch.inf).amin(dim=2)  # (n, I, 2)
    high = torch.where(known[..., None], points, -torch.inf).amax(dim=2)
    margin = MARGIN * (high - low).amax(dim=-1, keepdim=True)
    low, high = low - margin, high + margin
    in_x = (x >= low[..., 0, None]) & (x <= high[..., 0, None])  # (n, I, w)
    in_y = (y >= low[..., 1, None]) & (y <= high[..., 1, None])
    box = in_y[..., :, None] & in_x[..., None, :]  # (n, I, h, w)
    lacks = ~known & known.any(dim=2, keepdim=True)  # (n, I, K)
    return torch.einsum("nik,nihw->nkhw", lacks.float(), box.float()) > 0


def _fields(xy: Tensor, known: Tensor, limbs: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """paf (n, L, 2, h, w), the mean of the unit vectors of all limbs that cover a cell, and its weight (n, L, h, w).

    Cao et al. 2019, section 3.3. A limb that was not labelled says nothing where its animal is: weight 0 would let it
    invent, so the background's weight stays.
    """
    a, b = xy[:, :, limbs[:, 0]], xy[:, :, limbs[:, 1]]  # (n, I, L, 2)
    there = known[:, :, limbs[:, 0]] & known[:, :, limbs[:, 1]]
    along = b - a
    length = along.norm(dim=-1)
    there &= length > SHORTEST
    unit = along / length.clamp(min=SHORTEST)[..., None]
    px = (x - a[..., 0, None])[..., None, :]  # (n, I, L, 1, w)
    py = (y - a[..., 1, None])[..., :, None]  # (n, I, L, h, 1)
    ux, uy = unit[..., 0, None, None], unit[..., 1, None, None]
    run = px * ux + py * uy
    off = (px * uy - py * ux).abs()
    on = (off <= BAND) & (run >= -BAND) & (run <= length[..., None, None] + BAND) & there[..., None, None]
    on = on.to(xy.dtype)
    count = on.sum(dim=1)
    vector = torch.einsum("nilhw,nilc->nlchw", on, unit) / count.clamp(min=1)[:, :, None]
    return vector, torch.where(count > 0, 1.0, BACKGROUND)
