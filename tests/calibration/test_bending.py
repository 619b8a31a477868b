"""A bent board is found with the rig, whose cameras then stand where they do."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.calibrate import CalibrationOptions, calibrate_rig
from calibration.explanations import shape_directions
from calibration.mishaps import bent_board, clean_scene
from calibration.rig import CameraRig
from calibration.transforms import similarity


def away(rig: CameraRig, truth: CameraRig) -> float:
    _, R, _ = similarity(rig.centers, truth.centers)
    left = (rig.centers - rig.centers.mean(axis=0)) @ R.T - (truth.centers - truth.centers.mean(axis=0))
    return float(np.sqrt((left**2).sum(axis=1).mean()))


@pytest.mark.parametrize("seed", [1, 2])
def test_a_bent_board_is_straightened(seed: int) -> None:
    rng = np.random.default_rng([seed, 1])
    scene = bent_board(clean_scene(rng), rng)
    flat, bent = (calibrate_rig(scene.detections, CalibrationOptions(bend=bend)) for bend in (False, True))
    assert any(finding.kind == "bent_board" for finding in flat.report.findings)
    assert bent.report.findings == ()
    assert bent.report.rms == pytest.approx(np.sqrt(2) * scene.noise_px, rel=0.03)
    assert away(bent.rig, scene.rig) < 0.3 * away(flat.rig, scene.rig)
    assert "boards bent by" in bent.report.text()


def test_a_flat_board_stays_flat() -> None:
    scene = clean_scene(np.random.default_rng(1), "ring", 4)
    flat, bent = (calibrate_rig(scene.detections, CalibrationOptions(bend=bend)) for bend in (False, True))
    size = np.ptp(scene.board.object_points, axis=0).max()
    assert bent.report.bent[0] < 0.005 * size
    assert away(bent.rig, scene.rig) < 1.5 * away(flat.rig, scene.rig)
    np.testing.assert_array_equal(flat.detections.object_points, scene.board.object_points)


def test_directions_leave_the_rows_alone(rng: np.random.Generator) -> None:
    points = rng.normal(size=(30, 3)) * [100, 80, 0]
    moved = points + shape_directions(points) @ [0.01, 0.0, 0.0, 0.0, 0.0]
    np.testing.assert_allclose(np.ptp(moved, axis=0), np.ptp(points, axis=0) * [1, 1.01, 1])
    moved = points + shape_directions(points) @ [0.0, 0.0, 0.1, 0.0, 0.1]
    np.testing.assert_array_equal(moved[:, :2], points[:, :2])
    middle = np.linalg.norm(points - points.mean(axis=0), axis=1)
    np.testing.assert_allclose(moved[:, 2], 0.1 * middle**2 / middle.max())
    half = points.copy()
    half[10:] = np.nan
    np.testing.assert_array_equal(shape_directions(half)[:10], shape_directions(points[:10]))
