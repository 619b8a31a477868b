"""Another board than the described one, mirrored and blurred pictures, from rendered images."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from calibration.board import Board, Pattern
from calibration.board_check import edge_blur, first_of_markers, measure_board, mirrored_share, refuse_other_board
from calibration.errors import InputError
from calibration.synthetic import board_motion, render_board, ring_rig

BOARD = Board(8, 6, 40.0, 30.0, "DICT_4X4_50")
PLAIN = Pattern()


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    rig = ring_rig(2, rng, radius=800, height=600, size=(640, 480), focal_px=640)
    R, t = board_motion(rig, BOARD, 5, rng, reach=100, tilt=0.5)
    return [
        cv2.cvtColor(render_board(rig.cameras[0], BOARD, *pose, rng), cv2.COLOR_RGB2GRAY)
        for pose in zip(R, t, strict=True)
    ]


def test_the_described_board_is_let_pass(pictures: list[np.ndarray]) -> None:
    measured = measure_board(pictures, BOARD, PLAIN)
    assert measured is not None
    assert measured.columns == 8
    assert measured.marker_share == pytest.approx(0.75, rel=0.1)
    refuse_other_board(pictures, BOARD, PLAIN)
    refuse_other_board([255 - picture for picture in pictures], BOARD, Pattern(inverted=True))
    assert measure_board([np.full((480, 640), 90, np.uint8)], BOARD, PLAIN) is None


@pytest.mark.parametrize(
    ("columns", "rows", "said"),
    [(6, 8, "columns and rows are exchanged .*columns = 8, rows = 6"), (7, 6, "on one of 8 columns .*columns = 8,")],
)
def test_another_board_is_refused_with_its_columns(
    pictures: list[np.ndarray], columns: int, rows: int, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        refuse_other_board(pictures, Board(columns, rows, 40.0, 30.0, "DICT_4X4_50"), PLAIN)


def test_another_board_is_told_under_a_wrong_pattern_too(pictures: list[np.ndarray]) -> None:
    """What board.toml says also decided which pattern was thought to be seen."""
    with pytest.raises(InputError, match="columns and rows are exchanged"):
        refuse_other_board(pictures, Board(6, 8, 40.0, 30.0, "DICT_4X4_50"), Pattern(legacy=True))


@pytest.mark.parametrize(
    ("first", "rows", "told"), [(0, 6, (0, 6)), (0, 5, (0, 6)), (0, 7, (0, 7)), (1, 6, (0, 6)), (2, 5, (0, 6))]
)
def test_other_markers_than_described(pictures: list[np.ndarray], first: int, rows: int, told: tuple[int, int]) -> None:
    """The markers tell where they begin, and of rows that are not described; not of rows that are not there."""
    described = Board(8, rows, 40.0, 30.0, "DICT_4X4_100", first_marker=first)
    assert first_of_markers(pictures, described, PLAIN) == told
    assert first_of_markers([np.full((480, 640), 90, np.uint8)], described, PLAIN) == (first, rows)


def test_mirrored_pictures_show_the_board_once_turned(pictures: list[np.ndarray]) -> None:
    assert mirrored_share([picture[:, ::-1] for picture in pictures], BOARD, PLAIN) > 0.5
    assert mirrored_share(pictures, BOARD, PLAIN) == 0.0


@pytest.mark.parametrize("sigma", [2.0, 4.0])
def test_blur_of_a_step_is_measured(sigma: float) -> None:
    step = np.full((200, 200), 40.0)
    step[:, 100:] = 200.0
    picture = cv2.GaussianBlur(step, (0, 0), sigma) + np.random.default_rng(0).normal(size=step.shape)
    assert edge_blur(picture.astype(np.uint8)) == pytest.approx(sigma, rel=0.15)
    assert edge_blur(picture.astype(np.uint8), (slice(0, 200), slice(70, 130))) == pytest.approx(sigma, rel=0.15)


def test_blur_grows_in_pictures(pictures: list[np.ndarray]) -> None:
    blur = [np.median([edge_blur(cv2.GaussianBlur(p, (0, 0), s)) for p in pictures]) for s in (0.1, 2, 4)]
    assert blur[0] < 1.2
    assert blur[1] == pytest.approx(2.1, rel=0.25)
    assert blur[2] == pytest.approx(4.0, rel=0.25)
