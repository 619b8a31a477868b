"""What does the demo's network learn from? Filmed simulated animals of many looks, labelled by their truth."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.files.atomic import write_bytes
from calibration.synthetic import ring_rig
from pose3d.filming import film, make_look
from pose3d.labels import Labels, Picture
from pose3d.nn.options import TrainOptions
from pose3d.records import Progress
from pose3d.synthetic import QUADRUPED, simulate_animals

__all__ = ["COARSE", "FINE", "film_labels"]

COARSE = TrainOptions(
    backbone="mobilenet_v2",
    width=0.5,
    pretrained=False,
    channels=48,
    animal_px=64.0,
    crop=160,
    batch=16,
    learning_rate=4e-3,
    steps=3000,
    evaluate_every=250,
    patience=16,
    backbone_rate=1.0,
    average=0.995,
    rotation_deg=20.0,
    flip=True,
    unlabelled=1.0,
    held_out=0.05,
)
FINE = replace(COARSE, animal_px=96.0, crop=192, batch=12, steps=6000, learning_rate=3e-3)
"""How the network that comes with pose3d was trained: first on small images, which is quick, then on larger ones."""

Row = tuple[Path, NDArray[np.float64]]

SCENES, FRAMES, EVERY = 1500, 120, 30
MOST_ANIMALS = 4
CAMERAS = 4
WINDOW = 448
"""Side in px of the part of an image that is kept, about one of the animals."""
SEED = 1_000_000
"""Far from the seeds that a demo is likely to be given: its scenes are not among these."""


def film_labels(
    folder: Path, radius: float, height: float, *, scenes: int = SCENES, progress: Progress | None = None
) -> Labels:
    """Film scenes of 1 to 4 animals, each by one camera, with looks and ways of its own, into JPEG files of the folder.

    radius, height: of the ring that the camera stands on, in mm; both vary by 15 %. What it does not see is not
    labelled. The scenes follow each other as one recording, so that those held out look like none that is learnt from.
    """

    def filmed(scene: int) -> list[Row]:
        rng = np.random.default_rng([SEED, scene])
        rig = ring_rig(CAMERAS, rng, radius=radius * rng.uniform(0.85, 1.15), height=height * rng.uniform(0.85, 1.15))
        animals = simulate_animals(rng, int(rng.integers(1, MOST_ANIMALS + 1)), FRAMES)
        look = make_look(rng, animals.shape[1], rig)
        camera = rig.cameras[scene % CAMERAS]
        rows = range(int(rng.integers(EVERY)), FRAMES, EVERY)
        truth = camera.project(animals.points)
        found = []
        for row, (image, visible) in zip(rows, film(animals, camera, look, scene, rows), strict=True):
            path = folder / f"{scene:04d}_{row:03d}.jpg"
            middle = truth[row, rng.integers(animals.shape[1])].mean(axis=0) + rng.uniform(-0.2, 0.2, 2) * WINDOW
            left, top = np.clip(middle - WINDOW // 2, 0, np.array(camera.intrinsics.size) - WINDOW).astype(int)
            part = np.ascontiguousarray(image[top : top + WINDOW, left : left + WINDOW, ::-1])
            quality = int(rng.integers(60, 96))
            write_bytes(path, bytes(cv2.imencode(".jpg", part, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]))
            xy = truth[row] - (left, top)
            shown = visible & ((xy > -0.5) & (xy < WINDOW - 0.5)).all(axis=-1)
            points = np.full((MOST_ANIMALS, len(QUADRUPED), 2), np.nan)
            points[: len(visible)] = np.where(shown[..., None], xy, np.nan)
            found.append((path, points))
        return found

    rows: list[Row] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, part in enumerate(pool.map(filmed, range(scenes))):
            rows += part
            if progress:
                progress("filming scenes to learn from", done + 1, scenes)
    return Labels(
        points=np.array([points for _, points in rows]),
        frame=np.arange(len(rows)),
        camera=("",) * len(rows),
        video=("rehearsal",) * len(rows),
        pictures=tuple(Picture(path) for path, _ in rows),
        skeleton=QUADRUPED,
    )
