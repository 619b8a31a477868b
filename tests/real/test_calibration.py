"""Rigs from real board footage: mice in four cameras, and webcams whose footage misleads about their focal lengths."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from calibration.board import Board, BoardDetections
from calibration.calibrate import Calibration, calibrate_rig
from calibration.camera import Intrinsics
from calibration.detection import detect_boards
from calibration.files import save_rig

pytestmark = pytest.mark.real

WEBCAMS = "caliscope_charuco_calibration"


@pytest.fixture(scope="module")
def webcams(request: pytest.FixtureRequest) -> tuple[BoardDetections, dict[str, Intrinsics]]:
    """Detections of the four webcams, and their intrinsics from other footage of each camera alone."""
    folder: Path = request.getfixturevalue("real_data") / WEBCAMS
    sources = {f"cam_{k}": folder / "calibration" / "extrinsic" / f"cam_{k}.mp4" for k in range(4)}
    detections = detect_boards(sources, Board(4, 5, 54.0, 54.0 * 0.75))
    cameras = tomllib.loads((folder / "camera_array.toml").read_text())["cameras"]
    known = {
        f"cam_{name}": Intrinsics(tuple(c["size"]), np.array(c["matrix"]), np.array(c["distortions"]))
        for name, c in cameras.items()
    }
    return detections, known


@pytest.fixture(scope="module")
def mouse(request: pytest.FixtureRequest) -> Calibration:
    folder: Path = request.getfixturevalue("real_data") / "sleap_anipose_minimal" / "minimal_session"
    sources = {name: folder / name / "calibration_images" for name in ("back", "mid", "side", "top")}
    return calibrate_rig(detect_boards(sources, Board(8, 11, 24.0, 18.75)))


def test_mouse_rig_from_a_cold_start(mouse: Calibration, tmp_path: Path) -> None:
    report = mouse.report
    assert report.n_corners >= 5822
    assert report.n_unplaced == 0
    assert report.rms < 0.32
    assert report.rms_held_out < 0.35
    assert report.n_rejected < 0.005 * report.n_corners
    (squares,) = report.squares
    assert abs(squares.mean - 24) < 0.01
    assert squares.sd < 0.08
    assert [camera.intrinsics for camera in report.cameras] == ["adjusted"] * 4
    np.testing.assert_allclose([c.focal for c in report.cameras], [762, 760.5, 762.5, 958], rtol=0.004)
    json.dumps(report.to_dict(), allow_nan=False)
    save_rig(tmp_path / "calibration.toml", mouse.rig)


def test_webcams_name_the_focal_lengths_that_the_footage_does_not_determine(
    webcams: tuple[BoardDetections, dict[str, Intrinsics]],
) -> None:
    detections, known = webcams
    cold = calibrate_rig(detections)
    assert cold.rig.names == detections.view_names
    for camera in cold.report.cameras:
        assert camera.intrinsics == "held"
        assert {"fx", "fy"} <= set(camera.held)
        assert any(w.startswith(f"{camera.name}: its focal length is not determined") for w in cold.report.warnings)
        truth = known[camera.name].parameters[:2].mean()
        assert camera.focal == pytest.approx(truth, rel=0.03)
        assert camera.focal == pytest.approx(truth, abs=3 * camera.focal_sigma)
    assert cold.report.rms < 1.30, "a plain adjustment reaches 1.31 px with the cameras taken to be in step"
    assert cold.report.n_corners >= 2000
    assert cold.report.rms_held_out < 1.2 * cold.report.rms
    (squares,) = cold.report.squares
    assert squares.mean == pytest.approx(54, abs=0.15)
    assert squares.sd < 0.6
    late = {camera.name: camera.offset for camera in cold.report.cameras}
    assert late["cam_1"] < -0.05 < 0.01 < min(late["cam_2"], late["cam_3"])


def test_webcams_with_their_intrinsics(webcams: tuple[BoardDetections, dict[str, Intrinsics]]) -> None:
    detections, known = webcams
    given = calibrate_rig(detections, intrinsics=known)
    assert [camera.intrinsics for camera in given.report.cameras] == ["given"] * 4
    assert given.report.rms < 1.0
    assert given.report.n_rejected < 0.005 * given.report.n_corners  # a board that moved too fast, seen in part
    cold = calibrate_rig(detections)
    away = np.linalg.norm(cold.rig.centers - given.rig.centers, axis=1)
    assert away.max() < 0.04 * np.linalg.norm(given.rig.centers, axis=1).max()
