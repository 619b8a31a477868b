"""The loss is zero at the truth, pulls towards it, and asks nothing where the targets say nothing."""

from __future__ import annotations

import numpy as np
import torch

from pose3d.nn.losses import FIELD, OFFSET, PEAK, pose_loss
from pose3d.nn.targets import Targets, make_targets

Maps = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
LIMBS = torch.tensor([(0, 1), (1, 2)])


def targets_of(dtype: torch.dtype = torch.float64) -> Targets:
    points = torch.tensor([[[3.3, 2.2], [6.4, 5.1], [torch.nan, torch.nan]], [[4.1, 4.6], [1.2, 6.3], [7.0, 1.5]]])
    return make_targets(points[None].to(dtype), LIMBS, (8, 9), unlabelled=0.1)


def perfect(targets: Targets) -> Maps:
    return torch.logit(targets.heat), targets.offset.clone(), targets.paf.clone()


def wrong(seed: int = 0) -> Maps:
    g = torch.Generator().manual_seed(seed)
    shapes = (1, 3, 8, 9), (1, 3, 2, 8, 9), (1, 2, 2, 8, 9)
    return tuple(torch.randn(shape, generator=g, dtype=torch.float64) for shape in shapes)  # type: ignore[return-value]


def test_nothing_is_wrong_with_the_truth() -> None:
    targets = targets_of()
    assert pose_loss(perfect(targets), targets) < 1e-20
    assert pose_loss(wrong(), targets) > 1


def test_the_weighted_sum_written_out() -> None:
    targets, maps = targets_of(), wrong()
    t = {name: value.numpy() for name, value in vars(targets).items()}
    heat, offset, paf = (m.numpy() for m in maps)

    def smooth(gap: np.ndarray, beta: float) -> np.ndarray:
        return np.where(np.abs(gap) < beta, gap**2 / (2 * beta), np.abs(gap) - beta / 2)

    expected = ((1 / (1 + np.exp(-heat)) - t["heat"]) ** 2 * t["heat_weight"] * (1 + PEAK * t["heat"])).sum()
    expected /= t["heat"].sum()
    near = t["offset_weight"]
    expected += OFFSET * (smooth(offset - t["offset"], 0.5).sum(axis=2) * near).sum() / near.sum()
    on = (t["paf_weight"] == 1).sum()
    expected += FIELD * (smooth(paf - t["paf"], 0.2).sum(axis=2) * t["paf_weight"]).sum() / on
    np.testing.assert_allclose(pose_loss(maps, targets), expected, rtol=1e-6)


def test_it_pulls_towards_the_truth() -> None:
    """Autograd against finite differences, and a step down the gradient brings every map nearer."""
    targets = targets_of()
    maps = tuple(m.requires_grad_() for m in wrong())
    pose_loss(maps, targets).backward()  # type: ignore[arg-type]
    step = 1e-6
    for i, (m, cell) in enumerate(zip(maps, [(0, 1, 5, 6), (0, 0, 1, 2, 3), (0, 1, 0, 6, 2)], strict=True)):
        moved = [[x.detach().clone() for x in maps] for _ in range(2)]
        moved[0][i][cell] += step
        moved[1][i][cell] -= step
        up, down = (pose_loss(tuple(each), targets) for each in moved)  # type: ignore[arg-type]
        np.testing.assert_allclose(m.grad[cell], (up - down) / (2 * step), rtol=1e-4, atol=1e-9)
    truths = (targets.heat, targets.offset, targets.paf)
    values = (maps[0].sigmoid(), maps[1], maps[2])
    for m, value, truth in zip(maps, values, truths, strict=True):
        pulled = m.grad != 0
        assert ((m.grad > 0) == (value > truth))[pulled].all()


def test_cells_count_as_the_targets_say() -> None:
    targets = targets_of()
    maps = [m.requires_grad_() for m in wrong()]
    pose_loss(tuple(maps), targets).backward()  # type: ignore[arg-type]
    far = (targets.offset_weight == 0)[:, :, None].expand_as(maps[1])
    assert (maps[1].grad[far] == 0).all(), "no offset is asked for far from a keypoint"
    assert (maps[1].grad[~far] != 0).all()
    unlabelled = targets.heat_weight < 1
    assert unlabelled.any()
    heat = maps[0].detach().sigmoid()
    pull = maps[0].grad / (2 * (heat - targets.heat) * heat * (1 - heat)) * targets.heat.sum()
    np.testing.assert_allclose(pull[unlabelled], 0.1 * (1 + PEAK * targets.heat[unlabelled]), rtol=1e-6)
    np.testing.assert_allclose(pull[~unlabelled], 1 + PEAK * targets.heat[~unlabelled], rtol=1e-6)


def test_a_batch_without_any_label_has_a_finite_loss() -> None:
    empty = make_targets(torch.full((1, 2, 3, 2), torch.nan), LIMBS, (8, 9))
    maps = [m.float().requires_grad_() for m in wrong()]
    loss = pose_loss(tuple(maps), empty)  # type: ignore[arg-type]
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(m.grad).all() for m in maps)
