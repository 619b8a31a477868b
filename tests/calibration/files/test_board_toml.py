"""calibration.files: board.toml of ours and of sleap-anipose."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from calibration.board import Back, Board
from calibration.errors import InputError
from calibration.files import load_board, load_boards

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


def test_a_dictionary_without_markers_is_no_chessboard(tmp_path: Path) -> None:
    (tmp_path / "board.toml").write_text('columns = 8\nrows = 11\nsquare_length = 24\ndictionary = "DICT_4X4_50"\n')
    with pytest.raises(InputError, match=r"board\.toml\.marker_length: expected the side of a marker"):
        load_boards(tmp_path / "board.toml")


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


BACK = '[back]\nfirst_marker = 44\nthickness = 5\nflipped = "top_bottom"\n'
SMALL = "[[board]]\ncolumns = 5\nrows = 4\nsquare_length = 20\nmarker_length = 15\n"


def test_two_sides(tmp_path: Path) -> None:
    board = load_board(write(tmp_path, OURS + BACK))
    assert board == Board(8, 11, 24.0, 18.75, "DICT_5X5_100", "cm", 0, Back(44, 5.0, "top_bottom"))
    other = load_board(write(tmp_path, OURS + BACK.replace("= 44", "= 0") + 'dictionary = "DICT_4X4_50"\n'))
    assert [side.dictionary for side in other.sides] == ["DICT_5X5_100", "DICT_4X4_50"]


def test_several_boards(tmp_path: Path) -> None:
    second = SMALL + "first_marker = 10\n[board.back]\nfirst_marker = 20\nthickness = 3.5\nflipped = 'left_right'\n"
    path = write(tmp_path, SMALL + second)
    one = Board(5, 4, 20.0, 15.0)
    two = Board(5, 4, 20.0, 15.0, first_marker=10, back=Back(20, 3.5, "left_right"))
    assert load_boards(path) == (one, two)
    assert load_boards(write(tmp_path, OURS)) == (load_board(tmp_path / "board.toml"),)
    with pytest.raises(InputError, match=r"board\.toml: expected one board, got 2; read them with load_boards"):
        load_board(write(tmp_path, SMALL + second))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALL + SMALL, r"board 1 and board 2 have the markers 0 to 9 of DICT_4X4_1000 .* first_marker = 10"),
        (SMALL + SMALL + "first_marker = 6\n", r"board 1 and board 2 have the markers 6 to 9"),
        (SMALL + SMALL + 'dictionary = "DICT_4X4_50"\n', r"board 1 and board 2 have the markers 0 to 9 of DICT_4X4_50"),
        (SMALL + SMALL + 'first_marker = 10\nunit = "cm"\n', r"board 1 in mm and board 2 in cm"),
        (SMALL + SMALL + "first_marker = 995\n", r"board 2: board: 5 x 4 squares need 10 markers from 995 on, .* 1000"),
        (SMALL + SMALL + "colums = 5\n", r"board\.toml: board 2: unknown key 'colums'; did you mean 'columns'"),
        (
            SMALL + SMALL + "first_marker = 0.5\n",
            r"board 2\.first_marker: expected a whole number of 0 or more, got 0\.5",
        ),
        ("columns = 3\n" + SMALL, r"beside \[\[board\]\]: unknown key 'columns'"),
        (SMALL.replace("[[board]]", "[board]"), r"\.board: expected tables \[\[board\]\]"),
        (2 * SMALL.replace("marker_length = 15\n", ""), r"board 1 and board 2 are chessboards of 5 x 4 squares both"),
        (OURS + BACK.replace("44", "40"), r"the front and the back have the markers 40 to 43 .* first_marker = 84"),
        (OURS + BACK.replace("44", "57"), r"back: 8 x 11 squares need 44 markers from 57 on, DICT_5X5_100 has 100"),
        (OURS + BACK.replace("5\n", "-1\n"), r"back: expected thickness of 0 or more, got -1"),
        (OURS + BACK.replace("thickness = 5\n", ""), r"board\.toml: back: expected a key 'thickness'"),
        (OURS + BACK.replace("top_bottom", "upside"), r"flipped = \"left_right\" .*got 'upside'"),
        (OURS + BACK.replace('flipped = "top_bottom"\n', ""), r"page of a book: .* flipped = \"left_right\", else"),
        (OURS + BACK + "rows = 3", r"back: unknown key 'rows'"),
        (
            OURS.replace("marker_length = 18.75\n", "").replace('dictionary = "DICT_5X5_100"\n', "") + BACK,
            r"expected no back on a chessboard",
        ),
        ("back = 3\n" + OURS, r"back: expected a table \[back\], got 3"),
    ],
)
def test_boards_that_are_no_set(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_boards(write(tmp_path, text))
