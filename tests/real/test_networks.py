"""A network learns from twenty real labelled frames: it finds the mouse in images turned as none of them was."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pose3d.assembly import AssemblyOptions, assemble
from pose3d.files import load_labels
from pose3d.nn.options import TrainOptions
from pose3d.nn.predict import predict_candidates
from pose3d.nn.train import train_network

pytestmark = pytest.mark.real

TOP = "sleap_anipose_minimal/minimal_session/top/minimal_top_proofread.slp"
OPTIONS = TrainOptions(steps=60, batch=4, crop=128, animal_px=96.0, evaluate_every=60, rotation_deg=60.0)


def test_twenty_frames_teach_where_the_mouse_is(real_data: Path, tmp_path: Path) -> None:
    labels = load_labels(real_data / TOP, camera="top")
    training, test = labels.take(range(0, 40, 2)), labels.take(range(60, 120, 10))
    network = train_network(training, tmp_path, OPTIONS)
    height, width = test.image(0).shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), 30.0, 1.0)
    frames = ((row, cv2.warpAffine(image, turn, (width, height))) for row, image in test.images())
    found = assemble(predict_candidates(frames, network), None, AssemblyOptions(individuals=1))
    truth = test.points[:, 0] @ turn[:, :2].T + turn[:, 2]
    apart = np.linalg.norm(found.points[:, 0] - truth, axis=-1)[np.isfinite(truth[..., 0])]
    mean = np.nanmean(training.points[:, 0], axis=0)
    constant = np.nanmedian(np.linalg.norm(mean - truth, axis=-1))
    middle = np.median(np.where(np.isnan(apart), np.inf, apart))
    assert middle < 0.5 * constant
