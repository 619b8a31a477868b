"""Delays of whole frames, from single views."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibration.board import Board, BoardDetections
from calibration.rig import CameraRig
from calibration.synthetic import board_path, ring_rig, simulate_detections
from calibration.timing import odd_ones_out, pair_delays, whole_delays

BOARD = Board(8, 6, 45.0)


def late(rng: np.random.Generator, n_cameras: int, delays: dict[int, int]) -> tuple[CameraRig, BoardDetections]:
    rig = ring_rig(6, rng, radius=900, height=600).subset([f"cam{i}" for i in range(n_cameras)])
    path = board_path(rig, BOARD, 90, rng, reach=300, tilt=0.6)
    clean = simulate_detections(rig, BOARD, *path(np.arange(90)), rng)
    corners = clean.corners.copy()
    for view, delay in delays.items():
        corners[view] = simulate_detections(rig, BOARD, *path(np.arange(90) - delay), rng).corners[view]
    return rig, replace(clean, corners=corners)


@pytest.mark.parametrize(("n_cameras", "delays"), [(4, {1: 7}), (4, {0: -3}), (3, {2: 15}), (2, {1: 4}), (4, {})])
def test_late_cameras(rng: np.random.Generator, n_cameras: int, delays: dict[int, int]) -> None:
    """A late camera shows in frame n + delay what the others show in frame n."""
    rig, detections = late(rng, n_cameras, delays)
    pairs = pair_delays(detections, [camera.intrinsics for camera in rig])
    assert whole_delays(pairs, n_cameras).tolist() == [delays.get(v, 0) for v in range(n_cameras)]
    assert odd_ones_out(pairs, n_cameras) == ()


@pytest.mark.parametrize(("n_cameras", "odd"), [(4, (2,)), (2, (0, 1))])
def test_a_recording_that_goes_with_no_other(rng: np.random.Generator, n_cameras: int, odd: tuple[int, ...]) -> None:
    """One camera's frames run backwards."""
    rig, detections = late(rng, n_cameras, {})
    corners = detections.corners.copy()
    corners[odd[-1]] = corners[odd[-1], ::-1]
    pairs = pair_delays(replace(detections, corners=corners), [camera.intrinsics for camera in rig])
    assert odd_ones_out(pairs, n_cameras) == odd
