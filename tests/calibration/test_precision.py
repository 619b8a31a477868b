"""Millimetres in the volume against simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibration.board import Board
from calibration.bundle import adjust_boards
from calibration.geometry import triangulate_linear
from calibration.precision import volume_precision
from calibration.scores import Placed
from calibration.synthetic import board_path, ring_rig, simulate_detections
from calibration.transforms import similarity

BOARD = Board(6, 5, 60.0)


def test_precision_is_what_repeated_calibrations_scatter(rng: np.random.Generator) -> None:
    truth = ring_rig(3, rng, radius=900, height=600)
    R, t = board_path(truth, BOARD, 24, rng, reach=300, every=3)(np.arange(24))
    places, told = [], []
    for _ in range(60):
        detections = simulate_detections(truth, BOARD, R, t, rng, noise_px=0.5)
        result = adjust_boards(truth, R, t, detections)
        placed = Placed.of(result.rig, result.board_R[:, None], result.board_t[:, None], detections, np.full(3, 0.5))
        told.append(volume_precision(placed))
        middle, half = np.array(told[0].middle), np.array(told[0].size) / 2
        box = middle + np.concatenate((np.zeros((1, 3)), np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, -1).T * half))
        found = triangulate_linear(truth.project(box), result.rig)
        _, turn, shift = similarity(found, box)
        shift = box.mean(axis=0) - turn @ found.mean(axis=0)
        places.append(found @ turn.T + shift - box)
    scatter = np.sqrt((np.array(places) ** 2).sum(axis=2).mean(axis=0))
    assert np.median([p.rig_middle for p in told]) == pytest.approx(scatter[0], rel=0.35)
    assert np.median([p.rig_corners for p in told]) == pytest.approx(np.sqrt((scatter[1:] ** 2).mean()), rel=0.35)


def test_a_pixel_of_noise_in_the_middle(rng: np.random.Generator) -> None:
    rig = ring_rig(4, rng, radius=900, height=600)
    R, t = board_path(rig, BOARD, 30, rng, reach=300, every=3)(np.arange(30))
    placed = Placed.of(rig, R[:, None], t[:, None], simulate_detections(rig, BOARD, R, t, rng), np.full(4, 0.3))
    told = volume_precision(placed)
    assert np.isnan(told.rig_middle)  # an exact rig has no covariance
    assert np.linalg.norm(told.middle) < 150
    point = np.tile(told.middle, (4000, 1))
    noisy = triangulate_linear(rig.project(point) + rng.normal(size=(4, 4000, 2)), rig)
    assert told.pixel_middle == pytest.approx(np.sqrt(((noisy - point) ** 2).sum(axis=1).mean()), rel=0.05)
    bigger = volume_precision(replace(placed, world=placed.world * 2, rig=rig.moved(2.0, np.eye(3), np.zeros(3))))
    assert bigger.pixel_middle == pytest.approx(2 * told.pixel_middle, rel=1e-6)
