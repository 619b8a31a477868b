"""Footage looked at: blur by camera, and markers of another size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.board import Board, BoardDetections
from calibration.detection import detect_boards
from calibration.errors import InputError
from calibration.inspection import inspect_footage
from calibration.synthetic import board_motion, render_board, ring_rig

BOARD = Board(5, 4, 60.0, 45.0, "DICT_4X4_50")


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("footage")
    rng = np.random.default_rng(3)
    rig = ring_rig(2, rng, radius=800, height=600, size=(480, 360), focal_px=480)
    R, t = board_motion(rig, BOARD, 6, rng, reach=60, tilt=0.3)
    for camera in rig:
        (folder / camera.name).mkdir()
        for frame in range(6):
            picture = render_board(camera, BOARD, R[frame], t[frame], rng)
            cv2.imwrite(str(folder / camera.name / f"{frame}.png"), picture[..., ::-1])
    return {camera.name: folder / camera.name for camera in rig}


def copied(source: Path, target: Path, change) -> Path:  # type: ignore[no-untyped-def]
    target.mkdir()
    for file in sorted(source.iterdir()):
        cv2.imwrite(str(target / file.name), change(cv2.imread(str(file))))
    return target


def test_good_footage(footage: dict[str, Path]) -> None:
    assert inspect_footage(footage, detect_boards(footage, BOARD)) == ()


def test_a_camera_out_of_focus(footage: dict[str, Path], tmp_path: Path) -> None:
    detections = detect_boards(footage, BOARD)
    soft = copied(footage["cam1"], tmp_path / "cam1", lambda picture: cv2.GaussianBlur(picture, (0, 0), 3.0))
    (finding,) = inspect_footage({"cam0": footage["cam0"], "cam1": soft}, detections)
    assert (finding.kind, finding.cameras) == ("blurred", ("cam1",))
    assert finding.measured == pytest.approx(3.0, rel=0.25)


def test_frames_by_camera(footage: dict[str, Path]) -> None:
    """Moments that the cameras have under other numbers: the same pictures are looked at."""
    detections = detect_boards(footage, BOARD)
    shifted: BoardDetections = replace(detections, frame=np.arange(6) + 1000, own_number=np.tile(np.arange(6), (2, 1)))
    assert inspect_footage(footage, shifted) == ()


def test_markers_of_another_size(footage: dict[str, Path]) -> None:
    wrong = Board(5, 4, 60.0, 30.0, "DICT_4X4_50")
    (finding,) = inspect_footage(footage, detect_boards(footage, wrong))
    assert (finding.kind, finding.cameras) == ("wrong_marker_length", ())
    assert finding.measured == pytest.approx(0.75, rel=0.1)
    assert finding.expected == 0.5


def test_more_rows_than_described(footage: dict[str, Path]) -> None:
    (finding,) = inspect_footage(footage, detect_boards(footage, Board(5, 3, 60.0, 45.0, "DICT_4X4_50")))
    assert (finding.kind, finding.grave) == ("other_markers", False)
    assert finding.remedy.endswith("rows = 4")


def test_detection_refuses_other_and_mirrored_boards(footage: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="columns and rows are exchanged"):
        detect_boards(footage, Board(4, 5, 60.0, 45.0, "DICT_4X4_50"))
    turned = copied(footage["cam1"], tmp_path / "cam1", lambda picture: picture[:, ::-1])
    with pytest.raises(InputError, match=r"images are mirrored: cam1 .*hflip"):
        detect_boards({"cam0": footage["cam0"], "cam1": turned}, BOARD)
