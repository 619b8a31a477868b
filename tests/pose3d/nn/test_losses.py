"""The loss is zero at the truth, pulls towards it, and asks nothing where the targets say nothing."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import multivariate_t

from pose3d.nn.losses import FIELD, FREEDOM, OFFSET, PEAK, noise_loss, pose_loss
from pose3d.nn.model import Maps
from pose3d.nn.noise import stated_covariance
from pose3d.nn.targets import Targets, make_targets

LIMBS = torch.tensor([(0, 1), (1, 2)])


def targets_of(dtype: torch.dtype = torch.float64) -> Targets:
    points = torch.tensor([[[3.3, 2.2], [6.4, 5.1], [torch.nan, torch.nan]], [[4.1, 4.6], [1.2, 6.3], [7.0, 1.5]]])
    return make_targets(points[None].to(dtype), LIMBS, (8, 9), unlabelled=0.1)


def perfect(targets: Targets) -> Maps:
    return torch.logit(targets.heat), targets.offset.clone(), targets.paf.clone(), torch.zeros(1, 0, 3, 8, 9)


def wrong(seed: int = 0) -> Maps:
    g = torch.Generator().manual_seed(seed)
    shapes = (1, 3, 8, 9), (1, 3, 2, 8, 9), (1, 2, 2, 8, 9), (1, 0, 3, 8, 9)
    return tuple(torch.randn(shape, generator=g, dtype=torch.float64) for shape in shapes)  # type: ignore[return-value]


def test_nothing_is_wrong_with_the_truth() -> None:
    targets = targets_of()
    assert pose_loss(perfect(targets), targets) < 1e-20
    assert pose_loss(wrong(), targets) > 1


def test_the_weighted_sum_written_out() -> None:
    targets, maps = targets_of(), wrong()
    t = {name: value.numpy() for name, value in vars(targets).items()}
    heat, offset, paf, _ = (m.numpy() for m in maps)

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
    maps = tuple(m.requires_grad_(m.numel() > 0) for m in wrong())
    pose_loss(maps, targets).backward()  # type: ignore[arg-type]
    step = 1e-6
    for i, (m, cell) in enumerate(zip(maps[:3], [(0, 1, 5, 6), (0, 0, 1, 2, 3), (0, 1, 0, 6, 2)], strict=True)):
        moved = [[x.detach().clone() for x in maps] for _ in range(2)]
        moved[0][i][cell] += step
        moved[1][i][cell] -= step
        up, down = (pose_loss(tuple(each), targets) for each in moved)  # type: ignore[arg-type]
        np.testing.assert_allclose(m.grad[cell], (up - down) / (2 * step), rtol=1e-4, atol=1e-9)
    truths = (targets.heat, targets.offset, targets.paf)
    values = (maps[0].sigmoid(), maps[1], maps[2])
    for m, value, truth in zip(maps[:3], values, truths, strict=True):
        pulled = m.grad != 0
        assert ((m.grad > 0) == (value > truth))[pulled].all()


def test_cells_count_as_the_targets_say() -> None:
    targets = targets_of()
    maps = [m.requires_grad_(m.numel() > 0) for m in wrong()]
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
    maps = [m.float().requires_grad_() for m in (*wrong()[:3], torch.zeros(1, 3, 3, 8, 9))]
    loss = pose_loss(tuple(maps), empty)  # type: ignore[arg-type]
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(m.grad).all() for m in maps)


def test_the_likelihood_is_student_ts() -> None:
    """Against scipy's density with the shape matrix (L L^T)^-1, whose constant is that of the unit matrix at 0."""
    g = torch.Generator().manual_seed(1)
    noise = torch.randn(1, 1, 3, 2, 3, generator=g, dtype=torch.float64)
    error = torch.randn(1, 1, 2, 2, 3, generator=g, dtype=torch.float64)
    weight = torch.rand(1, 1, 2, 3, generator=g, dtype=torch.float64)
    constant = multivariate_t.logpdf([0, 0], shape=np.eye(2), df=FREEDOM)
    expected = 0.0
    for v, u in np.ndindex(2, 3):
        p, q, r = noise[0, 0, :, v, u].numpy()
        root = np.array([[np.exp(p), 0], [r, np.exp(q)]])
        density = multivariate_t(shape=np.linalg.inv(root @ root.T), df=FREEDOM).logpdf(error[0, 0, :, v, u].numpy())
        expected -= float(weight[0, 0, v, u]) * (density - constant)
    np.testing.assert_allclose(noise_loss(noise, error, weight), expected / float(weight.sum()), rtol=1e-9)


def test_the_noise_is_learnt_from_errors_and_pulls_at_nothing_else(rng: np.random.Generator) -> None:
    """The minimum is at the errors' own covariance, here 3 x 1 cells along a slanting axis; the offsets' gradient is
    the same with and without it."""
    turn = np.array([[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]])
    truth = turn @ np.diag([3.0, 1.0]) ** 2 @ turn.T
    errors = multivariate_t(shape=truth, df=FREEDOM).rvs(20_000, random_state=rng)
    error = torch.from_numpy(errors.T.reshape(1, 1, 2, 100, 200).copy())
    free = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([free], max_iter=50)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        noise = free[None, None, :, None, None].expand(1, 1, 3, 100, 200)
        loss = noise_loss(noise, error, torch.ones(1, 1, 100, 200, dtype=torch.float64))
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    stated = stated_covariance(free.detach().numpy()[None, :, None, None], np.zeros(1, np.int32), np.zeros((1, 2)))
    np.testing.assert_allclose(stated[0], truth, rtol=0.05, atol=0.15)
    targets, pulls = targets_of(), []
    for keypoints in (0, 3):
        maps = [m.requires_grad_(m.numel() > 0) for m in (*wrong()[:3], torch.zeros(1, keypoints, 3, 8, 9))]
        pose_loss(tuple(maps), targets).backward()  # type: ignore[arg-type]
        pulls.append(maps[1].grad)
    torch.testing.assert_close(pulls[0], pulls[1])
