"""What do windows around the animals save? python benchmarks/regions.py VIDEO NETWORK ANIMALS START STOP [ENGINE]

Frames START to STOP on one thread, whole and as `region = "auto"` looks at them: frames for each second of CPU time,
how much of the pixels is looked at, and how far keypoints move. Figures: benchmarks/README.md.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch

from calibration.footage import open_footage
from pose3d import assemble
from pose3d.assembly import AssemblyOptions
from pose3d.nn.engine_choice import agreement
from pose3d.nn.network import load_network
from pose3d.nn.options import PredictOptions
from pose3d.nn.predict import Predictor

SCORES = (0.1, 0.3, 0.5, 0.7)
WITHIN = 2.0


def nearest(one, other):
    """How far each keypoint of one's individuals is from the nearest of its kind in the same frame of the other, px."""
    apart = np.linalg.norm(one.points[:, :, None] - other.points[:, None], axis=-1)
    apart = np.where(np.isnan(apart), np.inf, apart).min(axis=2, initial=np.inf)
    return apart[~one.missing]


def main(video: Path, model: Path, animals: int, start: int, stop: int, engine: str = "onnxruntime") -> None:
    network = load_network(model)
    with open_footage(video) as footage:
        frames = list(footage.frames(start, stop))
    found, taken, pixels = {}, {}, {}
    for region in (False, "auto"):
        predictor = Predictor(network, PredictOptions(engine=engine, region=region))
        next(predictor.windows(frames[:1], 1))  # warms up
        engine_maps, sizes = predictor.maps, []
        predictor.maps = lambda images, f=engine_maps, to=sizes: (to.append(images[..., 0].size), f(images))[1]
        begun = time.process_time()
        found[region] = next(predictor.windows(frames, len(frames)))
        taken[region], pixels[region] = time.process_time() - begun, sum(sizes)
    rate = {region: len(frames) / seconds for region, seconds in taken.items()}
    share = 100 * pixels["auto"] / pixels[False]
    print(f"{len(frames)} frames: {rate[False]:.2f} -> {rate['auto']:.2f} frames/s, {share:.0f} % of the pixels")
    whole, windows = (assemble(candidates, None, AssemblyOptions(individuals=animals)) for candidates in found.values())
    for what, apart in (("whole in windows", nearest(whole, windows)), ("windows in whole", nearest(windows, whole))):
        near = apart[apart <= WITHIN]
        median, p95 = np.quantile(near, (0.5, 0.95))
        lost = f"{len(apart) - len(near)} of {len(apart)} not within {WITHIN:g} px"
        print(f"individuals' keypoints, {what}: {lost}; median {median:.4f} px, 95 % {p95:.4f}")
    for score in SCORES:
        told = agreement(found[False], found["auto"], network, (score - 0.1) / 0.9)
        print(f"candidates from score {score:g}: {told.n}, in one only {told.lost}, median {told.median_px:.4f} px")


if __name__ == "__main__":
    torch.set_num_threads(1)
    video, model, *rest = sys.argv[1:]
    main(Path(video), Path(model), *map(int, rest[:3]), *rest[3:])
