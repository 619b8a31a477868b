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
from pose3d.filming import film, make_look, prepare
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
    steps=3000,
    evaluate_every=250,
    patience=16,
    backbone_rate=1.0,
    average=0.995,
    unlabelled=1.0,
    held_out=0.05,
)
FINE = replace(COARSE, animal_px=96.0, crop=192, batch=12, steps=6000, learning_rate=3e-3)
"""How the network that comes with pose3d was trained: first on small images, which is quick, then on larger ones."""

Row = tuple[Path, int, str, NDArray[np.float64]]

SCENES, FRAMES, EVERY = 280, 120, 40
MOST_ANIMALS = 4
CAMERAS = 4
SEED = 1_000_000
"""Far from the seeds that a demo is likely to be given: its scenes are not among these."""


def film_labels(
    folder: Path, radius: float, height: float, *, scenes: int = SCENES, progress: Progress | None = None
) -> Labels:
    """Film scenes of 1 to 4 animals, each with a rig, looks and ways of its own, into JPEG files of the folder.

    radius, height: of the ring of cameras, in mm; both vary by 15 %. What a camera does not see is not labelled.
    """

    def filmed(scene: int) -> list[Row]:
        rng = np.random.default_rng([SEED, scene])
        rig = ring_rig(CAMERAS, rng, radius=radius * rng.uniform(0.85, 1.15), height=height * rng.uniform(0.85, 1.15))
        animals = simulate_animals(rng, int(rng.integers(1, MOST_ANIMALS + 1)), FRAMES)
        look = make_look(rng, animals.shape[1], rig)
        rows = range(int(rng.integers(EVERY)), FRAMES, EVERY)
        found = []
        for camera in rig:
            place = prepare(camera, look)
            truth = camera.project(animals.points)
            for row, (image, visible) in zip(rows, film(animals, place, look, scene, rows), strict=True):
                path = folder / f"{scene:03d}_{camera.name}" / f"{row:04d}.jpg"
                quality = int(rng.integers(60, 96))
                write_bytes(path, bytes(cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]))
                points = np.full((MOST_ANIMALS, len(QUADRUPED), 2), np.nan)
                points[: len(visible)] = np.where(visible[..., None], truth[row], np.nan)
                found.append((path, row, camera.name, points))
        return found

    rows: list[Row] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, part in enumerate(pool.map(filmed, range(scenes))):
            rows += part
            if progress:
                progress("filming scenes to learn from", done + 1, scenes)
    return Labels(
        points=np.array([points for *_, points in rows]),
        frame=np.array([row for _, row, _, _ in rows]),
        camera=tuple(camera for _, _, camera, _ in rows),
        video=tuple(path.parent.name for path, *_ in rows),
        pictures=tuple(Picture(path) for path, *_ in rows),
        skeleton=QUADRUPED,
    )
