"""What is a trained network, and how does it lie on the disk? Weights as safetensors, all else as JSON beside them.

Opening a stranger's network never runs code: safetensors holds numbers only, and nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from calibration.errors import InputError
from calibration.files.atomic import write_bytes
from pose3d.nn.model import PoseNet, build_model
from pose3d.skeleton import Skeleton

__all__ = ["Network", "NetworkSpec", "load_network", "make_module", "save_network", "spec_path"]

FORMAT = 2
STRIDE = 4
SCALE_LIMIT = 64.0
"""No network enlarges or shrinks images further."""


@dataclass(frozen=True)
class NetworkSpec:
    """All that must be known of a network to use it, beside its weights.

    backbone, width, channels: see `build_model`. skeleton: its keypoints are those of the heatmaps. limbs: pairs (a, b)
    of keypoints, one for each part affinity field. scale: input px per image px. stride: input px per cell of the maps.
    unsure: it tells each keypoint's covariance.
    """

    backbone: str
    width: float
    channels: int
    skeleton: Skeleton
    limbs: tuple[tuple[int, int], ...]
    scale: float
    stride: int = STRIDE
    unsure: bool = False


@dataclass(frozen=True, eq=False)
class Network:
    """A trained network. module: in eval mode. sigma_px: (keypoints,) SD per axis of its held-out error at score 1,
    image px, NaN where nothing was held out; of an `unsure` network the SD of that error over what the network states.
    doubt: at score s it is exp(doubt (1 - s)) times that. limb_px: (limbs, 2)
    see `limb_lengths`, NaN where nothing was labelled, None where nothing is known. metrics: what its training
    measured, ready for JSON.
    """

    spec: NetworkSpec
    module: PoseNet
    sigma_px: NDArray[np.float64]
    doubt: float = 0.0
    metrics: Mapping[str, Any] = field(default_factory=dict)
    limb_px: NDArray[np.float64] | None = None


def make_module(spec: NetworkSpec, generator: torch.Generator | None = None) -> PoseNet:
    """The network of a spec with random weights, in eval mode."""
    generator = generator or torch.Generator().manual_seed(0)
    n, m = len(spec.skeleton), len(spec.limbs)
    module = build_model(spec.backbone, spec.width, spec.channels, n, m, generator, unsure=spec.unsure)
    return module.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def spec_path(path: Path) -> Path:
    """The JSON beside the weights."""
    return path.with_suffix(".json")


def save_network(path: Path, network: Network, *, half: bool = False) -> None:
    """Write `path`, which ends in .safetensors, and the JSON beside it, each whole or not at all. half: as float16."""
    tensors = {name: value.contiguous().cpu() for name, value in network.module.state_dict().items()}
    tensors = {name: value.half() if half and value.is_floating_point() else value for name, value in tensors.items()}
    spec = asdict(network.spec) | {"skeleton": asdict(network.spec.skeleton)}
    lengths = None if network.limb_px is None else [_or_null(row) for row in network.limb_px]
    told = {"format": FORMAT, "network": spec, "sigma_px": _or_null(network.sigma_px), "doubt": network.doubt}
    told |= {"limb_px": lengths, "metrics": dict(network.metrics)}
    write_bytes(spec_path(path), (json.dumps(told, indent=1) + "\n").encode())
    write_bytes(path, save({name: value.contiguous() for name, value in tensors.items()}))


def load_network(path: Path) -> Network:
    """The network of a .safetensors file and the JSON beside it, on the CPU, in float32.

    Raises InputError naming the file that is missing, damaged, newer than this program or not of this network.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: expected a network (.safetensors), found nothing; correct the path, or train one")
    told = _described(spec_path(path))
    try:
        skeleton = Skeleton(**told["network"].pop("skeleton"))
        limbs = tuple((int(a), int(b)) for a, b in told["network"].pop("limbs"))
        spec = NetworkSpec(**told["network"], skeleton=skeleton, limbs=limbs)
        sigma, lengths = np.array(told["sigma_px"], dtype=float), told.get("limb_px")
        lengths = None if lengths is None else np.array(lengths, dtype=float).reshape(len(limbs), 2)
        doubt, metrics = float(told["doubt"]), dict(told["metrics"])
        _check(spec, sigma, doubt, lengths)
        module = make_module(spec)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise InputError(f"{spec_path(path)}: does not describe a network ({reason}); copy it again") from None
    try:
        module.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: damaged ({error}); copy or train the network again") from None
    except RuntimeError:
        raise InputError(
            f"{path}: its weights do not fit {spec_path(path).name} beside it; copy both files of the network again"
        ) from None
    return Network(spec, module, sigma, doubt, metrics, lengths)


def _or_null(values: NDArray[np.float64]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _check(spec: NetworkSpec, sigma: NDArray[np.float64], doubt: float, lengths: NDArray[np.float64] | None) -> None:
    """Raise ValueError for what the compiled code that looks for limbs would take on trust."""
    n = len(spec.skeleton)
    if any(not 0 <= keypoint < n for limb in spec.limbs for keypoint in limb):
        raise ValueError(f"limbs: expected indices below {n}")
    if len(sigma) != n or (sigma < 0).any():
        raise ValueError(f"sigma_px: expected {n} numbers, none below 0, or null")
    if lengths is not None and ((lengths[:, 0] <= 0) | (lengths[:, 1] < 0)).any():
        raise ValueError("limb_px: expected lengths above 0 and SDs of at least 0, or null")
    if spec.stride != STRIDE:
        raise ValueError(f"stride: expected {STRIDE}, got {spec.stride}")
    if not 1 / SCALE_LIMIT <= spec.scale <= SCALE_LIMIT:
        raise ValueError(f"scale: expected {1 / SCALE_LIMIT} to {SCALE_LIMIT}, got {spec.scale}")
    if not 0 <= doubt < np.inf:
        raise ValueError(f"expected a doubt of at least 0, got {doubt}")


def _described(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: the network's description is missing; copy it beside the weights") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: damaged ({error}); copy the network again") from None
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        found = told.get("format") if isinstance(told, dict) else None
        raise InputError(f"{path}: expected a network of format {FORMAT}, got {found}; update pose3d, or train anew")
    return told
