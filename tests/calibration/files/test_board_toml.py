"""calibration.files: board.toml of ours and of sleap-anipose."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from calibration.errors import InputError
from calibration.files import load_board

OURS = 'columns = 8\nrows = 11\nsquare_length = 24.0\nmarker_length = 18.75\ndictionary = "DICT_5X5_100"\nunit = "cm"\n'
SLEAP_ANIPOSE = (
    "board_x = 8\nboard_y = 11\nsquare_length = 24.0\nmarker_length = 18.75\nmarker_bits = 5\ndict_size = 250"
)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "board.toml"
    path.write_text(text)
    return path


def test_our_keys(tmp_path: Path) -> None:
    board = load_board(write(tmp_path, OURS))
    assert (board.columns, board.rows) == (8, 11)
    assert (board.square_length, board.marker_length) == (24.0, 18.75)
    assert (board.dictionary, board.unit) == ("DICT_5X5_100", "cm")


def test_without_markers_it_is_a_chessboard(tmp_path: Path) -> None:
    board = load_board(write(tmp_path, "columns = 9\nrows = 6\nsquare_length = 30\n"))
    assert board.marker_length is None
    assert board.square_length == 30.0


def test_sleap_anipose_counts_squares_and_names_its_dictionary(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        board = load_board(write(tmp_path, SLEAP_ANIPOSE))
    assert (board.columns, board.rows, board.dictionary) == (8, 11, "DICT_5X5_250")
    assert "taken as mm" in caplog.text
    assert load_board(write(tmp_path, SLEAP_ANIPOSE + '\nunit = "m"')).unit == "m"
    chessboard = load_board(write(tmp_path, "board_x = 8\nboard_y = 11\nsquare_length = 24.0\n"))
    assert chessboard.marker_length is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (OURS.replace("columns", "column"), r"board\.toml: unknown key 'column'; did you mean 'columns'"),
        (OURS.replace("rows = 11\n", ""), r"board\.toml: expected a key 'rows'"),
        (OURS.replace("rows = 11", "rows = 10.5"), r"board\.toml\.rows: expected a whole number above 0, got 10\.5"),
        (OURS.replace("rows = 11", "rows = 0"), r"board\.toml\.rows: expected a whole number above 0"),
        (OURS.replace("24.0", "-24.0"), r"board\.toml\.square_length: expected a length above 0"),
        (OURS.replace("18.75", "0"), r"board\.toml\.marker_length: expected a length above 0"),
        (OURS.replace("5X5", "9X9"), r"board\.toml: .*9X9"),
        (SLEAP_ANIPOSE.replace("board_y", "rows"), r"board\.toml: unknown key 'rows'"),
        (SLEAP_ANIPOSE.replace("marker_bits = 5\n", ""), r"board\.toml: expected a key 'marker_bits'"),
    ],
)
def test_errors_name_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_board(write(tmp_path, text))
