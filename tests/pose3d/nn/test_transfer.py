"""What a network knew it knows still, by the names of its keypoints; all else begins fresh."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from pose3d.labels import Labels, Picture
from pose3d.nn.network import Network, NetworkSpec, make_module
from pose3d.nn.transfer import successor, taken_over, transferred
from pose3d.skeleton import Skeleton

OLD = NetworkSpec(
    "mobilenet_v2", 0.35, 16, Skeleton(("nose", "ear", "neck", "tail")), ((0, 1), (0, 2), (2, 3)), 0.5, unsure=True
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def start() -> Network:
    module = make_module(OLD, seeded(3))
    torch.nn.init.normal_(module.get_parameter("head.1.noise.weight"), std=0.1, generator=seeded(4))
    return Network(OLD, module, np.ones(4))


def labels_of(*keypoints: str) -> Labels:
    """Six frames of keypoints in a row, 10 px apart."""
    points = np.arange(len(keypoints))[:, None] * [10.0, 0.0] + np.arange(6)[:, None, None, None]
    shared = ("",) * 6
    return Labels(points, np.arange(6), shared, shared, (Picture("x"),) * 6, Skeleton(keypoints))  # type: ignore[arg-type]


def test_maps_of_what_was_known_are_the_same(start: Network) -> None:
    """In another order, with limbs that go the other way: `paw` and all its limbs are new, `ear` is gone."""
    spec = successor(OLD, labels_of("tail", "neck", "paw", "nose"), 0.25)
    assert (spec.backbone, spec.width, spec.channels, spec.scale) == ("mobilenet_v2", 0.35, 16, 0.25)
    assert {(0, 1), (1, 3)} <= set(spec.limbs)
    net = transferred(start, spec, seeded(0)).eval()
    images = torch.rand(2, 3, 64, 64, generator=seeded(1)) * 2 - 1
    with torch.inference_mode():
        heat, offset, paf, noise = net(images)
        known_heat, known_offset, known_paf, known_noise = start.module(images)
    new, old = [0, 1, 3], [3, 2, 0]
    torch.testing.assert_close(heat[:, new], known_heat[:, old], rtol=0, atol=1e-5)
    torch.testing.assert_close(offset[:, new], known_offset[:, old], rtol=0, atol=1e-5)
    torch.testing.assert_close(noise[:, new], known_noise[:, old], rtol=0, atol=1e-5)
    assert (noise[:, 2] == 0).all(), "an SD of one cell, until it has learnt"
    for limb, before in (((0, 1), (2, 3)), ((1, 3), (0, 2))):  # tail-neck was neck-tail, neck-nose nose-neck
        field, other = paf[:, spec.limbs.index(limb)], known_paf[:, OLD.limbs.index(before)]
        torch.testing.assert_close(field, -other, rtol=0, atol=1e-5)
    assert (heat[:, 2] - known_heat[:, 1]).abs().max() > 0.01
    assert net.head[-1].bias[2].item() == pytest.approx(math.log(0.01 / 0.99)), "a new keypoint is nowhere yet"
    assert (net.keypoints, net.limbs) == (4, len(spec.limbs))


def test_the_rest_is_taken_as_it_is(start: Network) -> None:
    before = {name: value.clone() for name, value in start.module.state_dict().items()}
    net = transferred(start, successor(OLD, labels_of("paw", "claw"), 1.0), seeded(0))
    after = net.state_dict()
    assert [name for name in before if not name.startswith("head.1.")] == [n for n in after if n[:7] != "head.1."]
    for name, value in before.items():
        assert name.startswith("head.1.") or torch.equal(value, after[name]), name
        assert torch.equal(value, start.module.state_dict()[name]), "the network to go on from is left alone"


def test_fresh_channels_are_the_seeds(start: Network) -> None:
    spec = successor(OLD, labels_of("paw", "nose"), 1.0)
    one, same, other = (transferred(start, spec, seeded(s)).head[-1].weight for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])


def test_the_same_keypoints_keep_their_limbs(start: Network) -> None:
    spec = successor(OLD, labels_of("nose", "ear", "neck", "tail"), 2.0)
    assert (spec.limbs, spec.scale) == (OLD.limbs, 2.0)
    net = transferred(start, spec, seeded(0))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), start.module.parameters(), strict=True))
    assert net is not start.module


def test_what_is_taken_over_is_told() -> None:
    spec = successor(OLD, labels_of("tail", "neck", "paw", "nose"), 0.25)
    assert taken_over(OLD, spec) == f"3 of 4 keypoints, 2 of {len(spec.limbs)} limbs; new: paw"
    assert taken_over(OLD, OLD) == "4 of 4 keypoints, 3 of 3 limbs"
    none = successor(OLD, labels_of("Nose"), 0.25)
    assert taken_over(OLD, none) == "0 of 1 keypoints, 0 of 0 limbs; new: Nose"


def test_a_network_that_states_no_noise_learns_to() -> None:
    """As the one that comes with pose3d: all its maps stay, and the noise begins as one cell."""
    silent = replace(OLD, unsure=False)
    start = Network(silent, make_module(silent, seeded(3)), np.ones(4))
    spec = successor(silent, labels_of("nose", "ear", "neck", "tail"), 0.5)
    assert spec == OLD
    images = torch.rand(1, 3, 64, 64, generator=seeded(1)) * 2 - 1
    with torch.inference_mode():
        *maps, noise = transferred(start, spec, seeded(0)).eval()(images)
        for found, known in zip(maps, start.module(images)[:3], strict=True):
            torch.testing.assert_close(found, known, rtol=0, atol=1e-5)
    assert noise.shape == (1, 4, 3, 16, 16)
    assert (noise == 0).all()
