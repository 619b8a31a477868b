"""Which limbs tell animals apart, and what is left without the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pose3d.nn.data import Pictures
from pose3d.nn.model import fold_norms
from pose3d.nn.network import NetworkSpec, make_module
from pose3d.nn.pruning import discrimination, limbs_that_tell, without_limbs
from pose3d.skeleton import Skeleton

SKELETON = Skeleton(("a", "b", "c"))
SPEC = NetworkSpec("mobilenet_v2", 0.35, 8, SKELETON, ((0, 1), (1, 2), (0, 2)), 1.0, unsure=True)


class Fields(torch.nn.Module):
    """The first limb's field points right everywhere, the second's down, the third's nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.zeros(1))

    def maps(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        paf = torch.zeros(1, 3, 2, 16, 16)
        paf[0, 0, 0] = paf[0, 1, 1] = 1.0
        return torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 2, 16, 16), paf, torch.zeros(1, 0, 3, 16, 16)


def test_a_limb_tells_as_often_as_its_field_prefers_its_own_animal() -> None:
    """Two animals side by side: a-b runs right in both, so from the left one's a to the right one's b as well; the way
    back from the right one's a to the left one's b does not: 1 of 2. b-c runs down in both and slants otherwise."""
    left = np.array([[10.0, 20.0], [18.0, 20.0], [18.0, 40.0]])
    points = np.stack([left, left + (30, 0)])[None]
    images = (np.zeros((64, 64, 3), np.uint8),) * 3
    many = Pictures(images, np.repeat(points, 3, axis=0), np.arange(3))
    net: Any = Fields()
    won, count = discrimination(net, many, SPEC)
    np.testing.assert_array_equal(count, [[6, 6]] * 3)
    np.testing.assert_allclose(won, [0.75, 1.0, 0.5])  # a tie with one of two, won against the other; all; all ties
    alone = Pictures(images[:1], points[:, :1], np.arange(3))
    won, count = discrimination(net, alone, SPEC)
    assert np.isnan(won).all()
    np.testing.assert_array_equal(count, [[1, 0]] * 3)


@pytest.mark.parametrize(
    ("won", "count", "kept"),
    [
        ([0.95, 0.99, 0.5], 30, [0, 1]),
        ([0.5, 0.99, 0.6], 30, [1, 2]),  # what joins all three keypoints stays, the better one
        ([0.95, 0.99, 0.5], 19, [0, 1, 2]),
        ([np.nan, 0.99, 0.5], 30, [0, 1]),
    ],
)
def test_what_is_kept(won: list[float], count: int, kept: list[int]) -> None:
    assert limbs_that_tell(np.array(won), np.full((3, 2), count), SPEC.limbs) == kept


def test_all_other_maps_stay() -> None:
    module = make_module(SPEC)
    smaller, spec = without_limbs(module, SPEC, [0, 2])
    assert spec.limbs == ((0, 1), (0, 2))
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        heat, offset, paf, noise = module(x)
        again = smaller(x)
    for found, wanted in zip(again, (heat, offset, paf[:, [0, 2]], noise), strict=True):
        assert torch.equal(found, wanted)
    assert fold_norms(smaller).limbs == 2
