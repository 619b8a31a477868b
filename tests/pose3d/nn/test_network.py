"""A network on the disk is the network, and every file that is not one is named."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from calibration.errors import InputError
from pose3d.nn.network import Network, NetworkSpec, load_network, make_module, save_network, spec_path
from pose3d.skeleton import Skeleton

SKELETON = Skeleton(("nose", "neck", "tail"), edges=((0, 1), (1, 2)), symmetry=((0, 2),), sigmas=(0.1, 0.2, 0.3))
SPEC = NetworkSpec("mobilenet_v2", 0.35, 8, SKELETON, ((0, 1), (1, 2)), 0.5946)


@pytest.fixture(scope="module")
def network() -> Network:
    module = make_module(SPEC, torch.Generator().manual_seed(3))
    module.backbone.stem.norm.running_mean += 0.1
    module.backbone.stem.norm.num_batches_tracked += 70
    metrics = {"steps": 7, "history": [[1, 0.5, 2.0]]}
    lengths = np.array([[20.5, 0.25], [np.nan, np.nan]])
    return Network(SPEC, module, np.array([1.25, np.nan, 1 / 3]), 2.5, metrics, lengths)


@pytest.fixture
def path(network: Network, tmp_path: Path) -> Path:
    save_network(tmp_path / "cam.1.safetensors", network)
    return tmp_path / "cam.1.safetensors"


def test_there_and_back(network: Network, path: Path) -> None:
    assert {file.name for file in path.parent.iterdir()} == {"cam.1.safetensors", "cam.1.json"}
    again = load_network(path)
    assert again.spec == network.spec
    np.testing.assert_array_equal(again.sigma_px, network.sigma_px)
    assert again.doubt == network.doubt
    assert again.metrics == network.metrics
    np.testing.assert_array_equal(again.limb_px, network.limb_px)  # type: ignore[arg-type]
    save_network(path, replace(network, limb_px=None))
    assert load_network(path).limb_px is None
    assert not again.module.training
    own = network.module.state_dict()
    assert list(own) == list(again.module.state_dict())
    for name, value in again.module.state_dict().items():
        assert value.dtype == own[name].dtype
        assert torch.equal(value, own[name]), name
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        for one, other in zip(again.module.maps(x), network.module.maps(x), strict=True):
            assert torch.equal(one, other)


def test_half_the_size_and_almost_the_same(network: Network, path: Path) -> None:
    half = path.with_name("half.safetensors")
    save_network(half, network, half=True)
    assert half.stat().st_size < 0.6 * path.stat().st_size
    own = network.module.state_dict()
    for name, value in load_network(half).module.state_dict().items():
        assert value.dtype == own[name].dtype
        torch.testing.assert_close(value, own[name], rtol=2**-11, atol=2**-24, msg=name)


def test_the_same_network_is_the_same_bytes(network: Network, path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_network(other, network)
    assert other.read_bytes() == path.read_bytes()
    assert spec_path(other).read_bytes() == spec_path(path).read_bytes()


def test_what_is_missing_or_damaged_is_named(path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.safetensors: expected a network"):
        load_network(path.with_name("nowhere.safetensors"))
    whole = path.read_bytes()
    for broken in (whole[:-100], whole[:50], b"", b"\xff" * 400):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=r"cam\.1\.safetensors: damaged"):
            load_network(path)
    path.write_bytes(whole)
    spec_path(path).write_bytes(spec_path(path).read_bytes()[:-30])
    with pytest.raises(InputError, match=r"cam\.1\.json: damaged"):
        load_network(path)
    spec_path(path).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"cam\.1\.json: damaged"):
        load_network(path)
    spec_path(path).unlink()
    with pytest.raises(InputError, match=r"cam\.1\.json: the network's description is missing"):
        load_network(path)


class Trap:
    """Unpickled, it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_nothing_is_unpickled(path: Path) -> None:
    trap = path.with_name("sprung")
    pickle.loads(pickle.dumps(Trap(trap)))
    assert trap.exists()
    trap.unlink()
    path.write_bytes(pickle.dumps(Trap(trap)))
    with pytest.raises(InputError, match=r"cam\.1\.safetensors: damaged"):
        load_network(path)
    torch.save(Trap(trap), path)
    with pytest.raises(InputError, match=r"cam\.1\.safetensors: damaged"):
        load_network(path)
    assert not trap.exists()


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    told = json.loads(spec_path(path).read_text())
    change(told)
    spec_path(path).write_text(json.dumps(told))


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told.pop("network"),
        lambda told: told.update(network="mobilenet"),
        lambda told: told.update(network=[]),
        lambda told: told["network"].update(extra=1),
        lambda told: told["network"].update(backbone="resnet"),
        lambda told: told["network"].update(backbone=3),
        lambda told: told["network"].update(width="wide"),
        lambda told: told["network"].update(stride=8),
        lambda told: told["network"].update(scale=0),
        lambda told: told["network"].update(scale=float("nan")),
        lambda told: told["network"].update(scale="half"),
        lambda told: told["network"].update(limbs=[[0, 1], [1, 3]]),
        lambda told: told["network"].update(limbs=[[0, 1], [-1, 2]]),
        lambda told: told["network"].update(limbs=[[0, 1, 2]]),
        lambda told: told["network"].update(skeleton={}),
        lambda told: told["network"]["skeleton"].update(keypoints=["a", "a", "b"]),
        lambda told: told["network"]["skeleton"].update(edges=[[0, 9]]),
        lambda told: told.update(sigma_px=[1.0]),
        lambda told: told.update(sigma_px=None),
        lambda told: told["network"].update(scale=1e6),
        lambda told: told.update(sigma_px=[-1.0, 1.0, 1.0]),
        lambda told: told.update(doubt=-1.0),
        lambda told: told.update(limb_px=[[1.0, 0.5]]),
        lambda told: told.update(limb_px=[[1.0, 0.5], [0.0, 0.5]]),
        lambda told: told.update(limb_px=[[1.0, -0.5], [1.0, 0.5]]),
        lambda told: told.update(limb_px=[["long", 0.5], [1.0, 0.5]]),
        lambda told: told.pop("doubt"),
        lambda told: told.pop("metrics"),
    ],
)
def test_a_description_that_is_none(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    changed(path, change)
    with pytest.raises(InputError, match=r"cam\.1\.json: does not describe a network"):
        load_network(path)


@pytest.mark.parametrize("foreign", ["[]", '{"model": 1}', '{"format": 1}', '{"format": 99}', "null"])
def test_a_foreign_or_newer_description(path: Path, foreign: str) -> None:
    spec_path(path).write_text(foreign)
    with pytest.raises(InputError, match=r"cam\.1\.json: expected a network of format 2, got (None|1|99)"):
        load_network(path)


def test_weights_of_another_network(path: Path) -> None:
    fits = r"cam\.1\.safetensors: its weights do not fit cam\.1\.json"
    tensors = load_file(path)
    save_file(tensors | {"more": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=fits):
        load_network(path)
    save_file({name: value for name, value in tensors.items() if not name.startswith("head")}, path)
    with pytest.raises(InputError, match=fits):
        load_network(path)
    save_file(tensors, path)
    changed(path, lambda told: told["network"].update(channels=16))
    with pytest.raises(InputError, match=fits):
        load_network(path)
