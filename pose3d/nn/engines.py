"""Who computes a network's maps? PyTorch, ONNX Runtime or OpenVINO behind one call: images in, maps
out.

All but PyTorch are optional (`pip install 'pose3d[fast]'`) and get the network as ONNX, the step from uint8 to -1..1
included. OpenVINO reads ONNX too, rather than the module itself: that takes seconds less.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from calibration.errors import InputError
from pose3d.nn.model import PoseNet
from pose3d.nn.options import EngineName

__all__ = ["Engine", "installed_engines", "make_engine"]

Engine = Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]]
"""Images (n, h, w, 3) RGB, h and w multiples of 32, to heat (n, K, h/4, w/4) in 0..1, offset (n, K, 2, h/4, w/4), paf
(n, L, 2, h/4, w/4) and noise (n, K or 0, 3, h/4, w/4), see `PoseNet`. Several threads may call it at once."""

NEEDS: dict[EngineName, tuple[str, ...]] = {
    "onnxruntime": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
    "openvino-bf16": ("onnx", "openvino"),
}
"""Packages of each engine that is not PyTorch."""
_NAMES = ("heat", "offset", "paf", "noise")
_EMPTY = {"paf": 2, "noise": 3}
"""Maps that may be empty, which ONNX does not know, and their numbers in each cell."""
_OPSET = 17
_EXAMPLE = 64
_ERRORS_ONLY = 3
_ALLOCATION = ("allocate memory", "bad allocation", "bad_alloc")


def installed_engines() -> tuple[EngineName, ...]:
    """Names of the engines besides PyTorch whose packages are here, in a fixed order."""
    return tuple(name for name, packages in NEEDS.items() if not _missing(packages))


def make_engine(
    name: EngineName, module: PoseNet, device: torch.device, *, half: bool = False, workers: int = 1, threads: int = 1
) -> Engine:
    """An engine by its name in `PredictOptions.engine`, for a network whose norms are folded.

    half: PyTorch in float16 on CUDA. workers: threads that will call it at once, each with so many threads of its own.
    Raises InputError where its packages are missing or it cannot take this network.
    """
    if name in ("torch", "torch-bf16"):
        kind = torch.bfloat16 if name == "torch-bf16" else torch.float16 if half and device.type == "cuda" else None
        return _torch(module, device, kind)
    missing = _missing(NEEDS[name])
    if missing:
        raise InputError(
            f"engine: expected {' and '.join(missing)} for '{name}', found none; pip install 'pose3d[fast]', or "
            'take "torch"'
        )
    try:
        model = onnx_bytes(module)
        if name == "onnxruntime":
            return _onnxruntime(model, threads)
        return _openvino(model, "bf16" if name == "openvino-bf16" else "f32", workers, threads)
    except Exception as error:  # each package has errors of its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"engine: '{name}' does not take this network ({reason}); take \"torch\"") from error


def onnx_bytes(module: PoseNet) -> bytes:
    """The network in ONNX: images (n, h, w, 3) uint8 to those of the maps that are not empty."""
    exported = _FromBytes(module).eval()
    example = torch.zeros(1, _EXAMPLE, _EXAMPLE, 3, dtype=torch.uint8)
    maps = exported.module.maps(_normalised(example))
    names = [name for name, found in zip(_NAMES, maps, strict=True) if found.shape[1]]
    axes = {"images": {0: "n", 1: "h", 2: "w"}, "heat": {0: "n", 2: "rows", 3: "columns"}}
    axes |= {name: {0: "n", 3: "rows", 4: "columns"} for name in names[1:]}
    file = io.BytesIO()
    with warnings.catch_warnings():  # the first names a newer exporter, which needs onnxscript
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.filterwarnings("ignore", "Constant folding", UserWarning)
        torch.onnx.export(
            exported,
            (example,),
            file,  # type: ignore[arg-type]
            input_names=["images"],
            output_names=names,
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,
        )
    return file.getvalue()


class _FromBytes(torch.nn.Module):
    """A network that takes images as they come."""

    def __init__(self, module: PoseNet) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        maps = self.module.maps(_normalised(images))
        return tuple(m for m in maps if m.shape[1])


def _normalised(images: torch.Tensor) -> torch.Tensor:
    """(n, 3, h, w) in -1..1 of images (n, h, w, 3) uint8."""
    return images.permute(0, 3, 1, 2).float().mul_(2 / 255).sub_(1)


def _torch(module: PoseNet, device: torch.device, kind: torch.dtype | None) -> Engine:
    """kind: of the numbers it computes with, None = float32."""

    @torch.inference_mode()
    def maps(images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        x = _normalised(torch.from_numpy(images).to(device))
        with torch.autocast(device.type, kind, enabled=kind is not None):
            found = list(module.maps(x.contiguous(memory_format=torch.channels_last)))
        if device.type == "cuda":  # copied to pinned memory many times as fast as to any other
            found = [torch.empty(m.shape, pin_memory=True).copy_(m) for m in found]
        return [m.float().numpy() for m in found]

    return maps


def _onnxruntime(model: bytes, threads: int) -> Engine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = _ERRORS_ONLY
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return _of_outputs(lambda images: dict(zip(names, session.run(None, {"images": images}), strict=True)))


def _openvino(model: bytes, precision: str, workers: int, threads: int) -> Engine:
    import openvino

    core = openvino.Core()
    hints = {"INFERENCE_PRECISION_HINT": precision, "NUM_STREAMS": workers}
    compiled = core.compile_model(core.read_model(model), "CPU", hints | {"INFERENCE_NUM_THREADS": workers * threads})
    local = threading.local()  # a request serves one thread

    names = [output.get_any_name() for output in compiled.outputs]

    def run(images: NDArray[np.uint8]) -> dict[str, Any]:
        if not hasattr(local, "request"):
            local.request = compiled.create_infer_request()
        found = local.request.infer({"images": images})
        return {name: found[name] for name in names}

    return _of_outputs(run)


def _of_outputs(run: Callable[[NDArray[np.uint8]], dict[str, Any]]) -> Engine:
    """An engine of what gives the named outputs of `onnx_bytes`; what lacks memory becomes a MemoryError."""

    def maps(images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        try:
            found = {name: np.asarray(m, np.float32) for name, m in run(np.ascontiguousarray(images)).items()}
        except Exception as error:
            if any(text in str(error).lower() for text in _ALLOCATION):
                raise MemoryError(str(error)) from error
            raise
        n, _, height, width = found["heat"].shape
        for name, numbers in _EMPTY.items():
            found.setdefault(name, np.zeros((n, 0, numbers, height, width), np.float32))
        return [found[name] for name in _NAMES]

    return maps


def _missing(packages: tuple[str, ...]) -> list[str]:
    return [package for package in packages if find_spec(package) is None]
