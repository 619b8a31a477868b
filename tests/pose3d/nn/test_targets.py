"""Targets against the plain formulas, cell by cell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pose3d.nn.targets import Targets, make_targets

SHAPE = (12, 15)
LIMBS = np.array([(0, 1), (1, 2), (0, 2)])


def reference(points: np.ndarray, limbs: np.ndarray, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """One image: loops over keypoints, cells and animals."""
    animals, keypoints = points.shape[:2]
    out = {
        "heat": np.zeros((keypoints, *shape)),
        "offset": np.zeros((keypoints, 2, *shape)),
        "heat_weight": np.ones((keypoints, *shape)),
        "offset_weight": np.zeros((keypoints, *shape)),
        "paf": np.zeros((len(limbs), 2, *shape)),
        "paf_weight": np.full((len(limbs), *shape), 0.1),
    }
    known = ~np.isnan(points[..., 0])
    for y, x in np.ndindex(*shape):
        cell = np.array([x, y])
        for k in range(keypoints):
            gaps = [points[i, k] - cell for i in range(animals) if known[i, k]]
            if gaps:
                gap = min(gaps, key=np.linalg.norm)
                out["heat"][k, y, x] = heat = np.exp(-(gap @ gap) / (2 * 1.5**2))
                if np.linalg.norm(gap) < 2.5:
                    out["offset"][k, :, y, x] = gap
                    out["offset_weight"][k, y, x] = heat
            for i in range(animals):
                if known[i].any() and not known[i, k]:
                    low, high = points[i, known[i]].min(axis=0), points[i, known[i]].max(axis=0)
                    margin = 0.2 * (high - low).max()
                    inside = ((cell >= low - margin) & (cell <= high + margin)).all()
                    if inside and out["heat"][k, y, x] < 0.1:
                        out["heat_weight"][k, y, x] = 0.1
        for j, (a, b) in enumerate(limbs):
            vectors = []
            for i in range(animals):
                length = np.linalg.norm(points[i, b] - points[i, a])
                if not length > 1e-3:
                    continue
                unit = (points[i, b] - points[i, a]) / length
                gap = cell - points[i, a]
                if -1 <= gap @ unit <= length + 1 and abs(gap[0] * unit[1] - gap[1] * unit[0]) <= 1:
                    vectors.append(unit)
            if vectors:
                out["paf"][j, :, y, x] = np.mean(vectors, axis=0)
                out["paf_weight"][j, y, x] = 1.0
    return out


def scenes() -> dict[str, np.ndarray]:
    """Points (individuals, 3, 2) in cells."""
    one = np.array([[3.3, 4.2], [9.1, 5.7], [11.4, 9.9]])
    nothing = np.full((3, 2), np.nan)
    partly = one.copy()
    partly[1] = np.nan
    return {
        "one": np.stack([one, nothing]),
        "one without a keypoint": np.stack([partly, nothing]),
        "two that overlap": np.stack([one, one[::-1] + [0.4, -1.3]]),
        "two, one partly labelled": np.stack([partly, one + [-2.2, 1.7]]),
        "beyond the border": np.stack([one + [6.5, 4.0], one - [5.0, 5.0]]),
        "on top of each other": np.stack([np.stack([one[0], one[0], one[2]]), nothing]),
        "one keypoint only": np.stack([np.stack([one[0], *nothing[:2]]), nothing]),
        "nothing": np.stack([nothing, nothing]),
    }


def targets_of(points: np.ndarray, limbs: np.ndarray = LIMBS) -> Targets:
    return make_targets(torch.from_numpy(points).float(), torch.from_numpy(limbs).long(), SHAPE, unlabelled=0.1)


@pytest.mark.parametrize("scene", scenes())
def test_targets_follow_the_formulas(scene: str) -> None:
    points = scenes()[scene].astype(np.float32)
    found, expected = targets_of(points[None]), reference(points.astype(np.float64), LIMBS, SHAPE)
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(found, name)[0], value, atol=1e-5, err_msg=name)


def test_a_batch_is_its_images() -> None:
    batch = np.stack(list(scenes().values()))
    together = targets_of(batch)
    for i, points in enumerate(batch):
        alone = targets_of(points[None])
        for name in ("heat", "offset", "heat_weight", "offset_weight", "paf", "paf_weight"):
            assert torch.equal(getattr(together, name)[i], getattr(alone, name)[0]), name


def test_one_keypoint_has_no_limbs() -> None:
    found = targets_of(scenes()["one"][None, :, :1], np.zeros((0, 2), int))
    assert found.heat.shape == (1, 1, *SHAPE)
    assert found.paf.shape == (1, 0, 2, *SHAPE)
    assert found.paf_weight.shape == (1, 0, *SHAPE)
