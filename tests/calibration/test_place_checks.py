"""Squares of another size, boards out of sight, rigs that other frames contradict (collapsed ones: test_audit.py)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from calibration.board import Board
from calibration.place_checks import check_repeatable, check_squares
from calibration.report import SquareReport
from calibration.scores import Placed
from calibration.synthetic import board_path, ring_rig, simulate_detections

BOARD = Board(6, 5, 60.0)


def test_squares_of_another_size(rng: np.random.Generator) -> None:
    rig = ring_rig(3, rng, radius=900, height=600)
    R, t = board_path(rig, BOARD, 12, rng, reach=300, every=3)(np.arange(12))
    placed = Placed.of(rig, R[:, None], t[:, None], simulate_detections(rig, BOARD, R, t, rng), np.full(3, 0.3))
    right, large = SquareReport(60.0, 60.06, 0.1, 100), SquareReport(60.0, 60.6, 0.1, 100)
    assert check_squares([right], placed) == ()
    (found,) = check_squares([large], placed)
    assert (found.kind, found.measured) == ("wrong_scale", 60.6)
    world = placed.world.copy()
    world[:6, :, 2] += 1e5  # far behind all cameras, where a wrong lens may put boards
    assert check_squares([large], replace(placed, world=world)) == (found,)
    world[:, :, 2] += 1e5
    assert check_squares([large], replace(placed, world=world)) == ()


def test_a_rig_that_other_frames_contradict() -> None:
    assert check_repeatable(0.3, 0.5) == check_repeatable(0.3, np.nan) == ()
    (found,) = check_repeatable(4.2, 19.2)
    assert (found.kind, found.grave, found.measured) == ("not_repeatable", True, 19.2)
    assert "19.20 px off, in the fit 4.20 px" in str(found)
