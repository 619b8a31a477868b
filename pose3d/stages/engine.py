"""Which engine predicts this video? The one that is named; the one that began it; or the fastest that is as good.

A choice goes by timing, so it is kept: with the unfinished windows, because a rerun must go on with the same engine,
and in the folder of the results, where later videos of that size, and the same ones anew, take it over.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from calibration.files.atomic import write_bytes
from calibration.footage import Footage
from pose3d.nn.coords import padded_size
from pose3d.nn.options import PredictOptions
from pose3d.records import Plan, Progress, jsonable

if TYPE_CHECKING:
    from pose3d.nn.engine_choice import EngineChoice
    from pose3d.nn.network import Network

__all__ = ["settle_engine"]

LEAST_MEGAPIXELS = 200.0
"""Of all a video's inputs together: half a minute of a small network on two cores. Below, nothing is tried."""
SAMPLES = 6
"""Frames that engines are tried on."""


def settle_engine(
    plan: Plan, network: Network, options: PredictOptions, footage: Footage, progress: Progress | None = None
) -> EngineChoice:
    """The engine for a camera's footage; where it was chosen, with how it did."""
    from pose3d.nn.engine_choice import EngineChoice, choose_engine
    from pose3d.nn.engines import installed_engines

    if options.engine != "auto":
        return EngineChoice(options.engine, None if options.engine == "torch" else options.engine)
    own, common = plan.unfinished / "engine.json", plan.unfinished.parent / "engines.json"
    begun = _read(own)
    if begun:
        return EngineChoice(**begun)
    width, height = padded_size(footage.size, network.spec.scale)
    choice, engines = EngineChoice("torch"), installed_engines()
    if engines and footage.n_frames * width * height >= LEAST_MEGAPIXELS * 1e6:
        key, kept = _key(plan, (width, height)), _read(common)
        known = kept.get(key, {})
        if known.get("engine") in ("torch", *engines):
            choice = EngineChoice(**known)
        else:
            if progress:
                progress(f"{plan.stage}, choosing an engine", 0, footage.n_frames)
            choice = choose_engine(_samples(footage), network, options)
            _write(common, kept | {key: jsonable(choice)})
    _write(own, jsonable(choice))
    return choice


def _samples(footage: Footage) -> list[tuple[int, NDArray[np.uint8]]]:
    """Frames from all over the footage, as far as it can be read."""
    found: list[tuple[int, NDArray[np.uint8]]] = []
    try:
        for position in range(0, footage.n_frames, -(-footage.n_frames // SAMPLES)):
            found.extend(footage.frames(position, position + 1))
    except InputError:  # said where it is predicted
        pass
    return found


def _key(plan: Plan, size: tuple[int, int]) -> str:
    """What a choice holds for: the network, the options and the size of its input."""
    told = {name: plan.inputs[name] for name in ("network", "description")}
    text = json.dumps(jsonable(told | {"options": plan.options, "size": size}))
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    """{} where there is no such file."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _write(path: Path, value: dict[str, Any]) -> None:
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode())
