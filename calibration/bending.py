"""Which shape has a board that is not flat? Its corners, adjusted together with the rig."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from calibration.board import BoardDetections
from calibration.bundle import BundleOptions, BundleResult, adjust_boards
from calibration.explanations import board_shape, freedom, shape_directions
from calibration.scores import Placed, linearise, normals

__all__ = ["bend_boards"]

Array = NDArray[np.float64]

ROUNDS = 3
"""Gauss-Newton steps of the shape, after each of which rig and boards are adjusted again."""


def bend_boards(
    result: BundleResult, kept: BoardDetections, options: BundleOptions
) -> tuple[BundleResult, Array, tuple[float, ...]]:
    """An adjusted rig with boards that may be bent (to second order), skewed, and stretched one way.

    kept: what was fitted, options: how. Lengths along a board's rows stay as described: scale comes from them.
    Returns the fit, the boards' corners (corners, 3), each in the frame of its own board, and by how much each board is
    bent (from its lowest to its highest corner), in its unit.
    """
    index, flat = np.asarray(kept.board_index), kept.object_points
    boards = range(int(index.max()) + 1)
    for _ in range(ROUNDS):
        noise = np.nanmedian(kept.sigma, axis=(1, 2))[[kept.view_names.index(name) for name in result.rig.names]]
        placed = Placed.of(result.rig, result.board_R, result.board_t, kept, noise)
        free, precision = freedom(result.rig, options)
        equations = normals(linearise(placed), free, precision, [board_shape(placed, b) for b in boards])
        step, _ = equations.solved(equations.base | (np.arange(len(equations.base)) >= free.size))
        points = kept.object_points.copy()
        for b, value in enumerate(step[free.size :].reshape(len(boards), -1)):
            points[index == b] += shape_directions(points[index == b]) @ value
        kept = replace(kept, points=points)
        result = adjust_boards(result.rig, result.board_R, result.board_t, kept, options)
    away = kept.object_points - flat
    return result, kept.object_points, tuple(float(np.ptp(away[index == b, 2])) for b in boards)
