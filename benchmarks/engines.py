"""How fast is each engine, and how far are its keypoints from PyTorch's? python benchmarks/engines.py [VIDEO [NETWORK]]

Maps of noise on one thread, engines in turns, medians: the network that comes with pose3d and an EfficientNet-Lite0
of 256 channels. With a VIDEO (cam*.mp4 of `pose3d demo`): the keypoints of 30 of its frames, and what is chosen.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch

from calibration.footage import open_footage
from pose3d.demo import SHIPPED
from pose3d.nn.engine_choice import agreement, choose_engine
from pose3d.nn.engines import installed_engines, make_engine
from pose3d.nn.model import fold_norms
from pose3d.nn.network import NetworkSpec, load_network, make_module
from pose3d.nn.options import PredictOptions
from pose3d.nn.predict import Predictor
from pose3d.skeleton import Skeleton

SIZES = ((256, 256), (640, 480), (1024, 1024))
BATCHES = (1, 8)
SECONDS, LEAST_ROUNDS, MOST_ROUNDS = 6.0, 3, 15
FRAMES = 30
LITE = NetworkSpec(
    "efficientnet_lite0", 1.0, 256, Skeleton(tuple("abcdefghijkl")), tuple((i, i + 1) for i in range(11)), 1.0
)


def speed() -> None:
    names = ("torch", "torch-bf16", *installed_engines())
    rng = np.random.default_rng(0)
    for network, module in (("shipped", load_network(SHIPPED).module), ("lite0-256", make_module(LITE))):
        folded = fold_norms(module)
        engines = {name: make_engine(name, folded, torch.device("cpu")) for name in names}
        for width, height in SIZES:
            for batch in BATCHES:
                images = rng.integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
                taken: dict[str, list[float]] = {name: [] for name in names}
                begun = time.perf_counter()
                for done in range(MOST_ROUNDS + 1):
                    for name, engine in engines.items():
                        start = time.perf_counter()
                        engine(images)
                        if done:  # the first warms up
                            taken[name].append((time.perf_counter() - start) / batch)
                    if done >= LEAST_ROUNDS and time.perf_counter() - begun > SECONDS:
                        break
                median = {name: float(np.median(times)) for name, times in taken.items()}
                ratios = ", ".join(f"{name} {median['torch'] / median[name]:.2f} x" for name in names[1:])
                print(f"{network} {width}x{height} batch {batch}: {1e3 * median['torch']:.0f} ms an image, {ratios}")


def accuracy(video: Path, model: Path) -> None:
    network = load_network(model)
    with open_footage(video) as footage:
        frames = list(footage.frames(0, None, max(1, footage.n_frames // FRAMES)))[:FRAMES]
    found = {}
    for name in ("torch", "torch-bf16", *installed_engines()):
        found[name] = next(Predictor(network, PredictOptions(engine=name)).windows(frames, FRAMES))
        told = agreement(found["torch"], found[name], network, PredictOptions.threshold)
        print(f"{name}: {told.n} keypoints, median {told.median_px:.2g} px, 95 % {told.p95_px:.2g}, lost {told.lost}")
    print(choose_engine(frames[:: FRAMES // 6], network, PredictOptions()).told)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:]:
        accuracy(Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else SHIPPED)
    else:
        speed()
