from __future__ import annotations

import logging
import os
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from calibration import board_check
from calibration import detection as module
from calibration.board import Back, Board, Pattern
from calibration.board_corners import detect_board
from calibration.detection import DetectionOptions, detect_boards, find_pattern
from calibration.errors import InputError
from calibration.footage import open_footage
from calibration.omissions import leave_out_line

BOARD = Board(5, 4, 20.0, 15.0, "DICT_5X5_50")
WIDTH, HEIGHT = 320, 240


def view(board: Board, shift: float, pattern: Pattern | None = None) -> np.ndarray:
    """(240, 320) uint8: the board, its corners `shift` px to the right and half of it down."""
    page = np.pad(board.image(40, pattern=pattern), 20, constant_values=0 if pattern and pattern.inverted else 255)
    warp = np.array([[0.95, 0.12, 30.0 + shift], [-0.1, 0.9, 40.0 + shift / 2], [1e-4, 1e-4, 1.0]])
    picture = cv2.warpPerspective(page, warp, (WIDTH, HEIGHT), flags=cv2.INTER_AREA, borderValue=120)
    return cv2.GaussianBlur(picture, (0, 0), 0.8)


def folder(path: Path, pictures: dict[int, np.ndarray]) -> Path:
    path.mkdir()
    for number, picture in pictures.items():
        cv2.imwrite(str(path / f"{path.name}-{number}.png"), picture)
    return path


def video(path: Path, pictures: list[np.ndarray]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "gray"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="gray")))
        container.mux(stream.encode())
    return path


NOTHING = np.full((HEIGHT, WIDTH), 120, np.uint8)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Camera left sees frames 3, 4, 10, camera right 4, 5, 10 (nothing in 5)."""
    root = tmp_path_factory.mktemp("two")
    left = folder(root / "left", {n: view(BOARD, n) for n in (3, 4, 10)})
    right = folder(root / "right", {n: NOTHING if n == 5 else view(BOARD, -n) for n in (4, 5, 10)})
    return {"left": left, "right": right}


def test_images_are_paired_by_their_numbers(two: dict[str, Path]) -> None:
    steps: list[tuple[str, int, int]] = []
    found = detect_boards(two, BOARD, progress=lambda *step: steps.append(step))
    assert found.view_names == ("left", "right")
    assert found.boards == (BOARD,)
    np.testing.assert_array_equal(found.frame, [3, 4, 5, 10])
    np.testing.assert_array_equal(found.sizes, [[WIDTH, HEIGHT]] * 2)
    np.testing.assert_array_equal(found.board_index, np.zeros(12))
    assert np.isnan(found.time).all()
    for v, (sign, seen) in enumerate(((1, (3, 4, 10)), (-1, (4, 10)))):
        for f, number in enumerate(found.frame):
            if number in seen:
                xy, sigma = detect_board(view(BOARD, sign * number), BOARD)
                assert np.isfinite(xy).all()
                np.testing.assert_array_equal(found.corners[v, f], xy)
                np.testing.assert_array_equal(found.sigma[v, f], sigma)
            else:
                assert np.isnan(found.corners[v, f]).all()
                assert np.isnan(found.sigma[v, f]).all()
    assert steps == [("detect boards", done, 6) for done in range(1, 7)]


def test_steps_and_order_of_cameras(two: dict[str, Path]) -> None:
    whole = detect_boards(two, BOARD)
    half = detect_boards(two, [BOARD], DetectionOptions(step=2))
    np.testing.assert_array_equal(half.frame, [3, 5])
    np.testing.assert_array_equal(half.corners, whole.corners[:, ::2])
    turned = detect_boards(dict(reversed(two.items())), BOARD)
    assert turned.view_names == ("right", "left")
    np.testing.assert_array_equal(turned.corners, whole.corners[::-1])
    with pytest.raises(InputError, match=r"^step: expected 1 or more, got 0"):
        DetectionOptions(step=0)
    with pytest.raises(InputError, match="at least one camera"):
        detect_boards({}, BOARD)


def test_videos_are_paired_by_position_or_as_told(tmp_path: Path) -> None:
    sources = {
        "a": video(tmp_path / "a.mkv", [view(BOARD, 2 * n) for n in range(5)]),
        "b": video(tmp_path / "b.mkv", [view(BOARD, -2 * n) for n in range(5)]),
    }
    found = detect_boards(sources, BOARD)
    np.testing.assert_array_equal(found.frame, np.arange(5))
    np.testing.assert_allclose(found.time, np.arange(5) / 10, atol=1e-3)
    assert np.isfinite(found.corners).all()
    told = detect_boards(sources, BOARD, frames={"a": [-1, 4, 1, 1], "b": [-1, -1, 0, 3]})
    np.testing.assert_array_equal(told.frame, np.arange(4))
    for v, rows in enumerate(([-1, 4, 1, 1], [-1, -1, 0, 3])):
        expected = np.where(np.array(rows)[:, None, None] >= 0, found.corners[v][rows], np.nan)
        np.testing.assert_array_equal(told.corners[v], expected)
    np.testing.assert_allclose(told.time, [np.nan, 0.4, 0.1, 0.1], atol=1e-3)
    with pytest.raises(InputError, match=r"camera 'b'.*expected a frame 5, has 5"):
        detect_boards(sources, BOARD, frames={"a": [0], "b": [5]})
    with pytest.raises(InputError, match="none given for camera 'b'"):
        detect_boards(sources, BOARD, frames={"a": [0]})
    with pytest.raises(InputError, match="as many moments"):
        detect_boards(sources, BOARD, frames={"a": [0], "b": [0, 1]})
    sources["b"] = video(tmp_path / "c.mkv", [view(BOARD, -2 * n) for n in range(4)])
    with pytest.raises(InputError, match=r"(?s)a 5, b 4 frames.*\[sync\]\ntrim = true"):
        detect_boards(sources, BOARD)
    trimmed = detect_boards(sources, BOARD, frames={"a": range(4), "b": range(4)})
    np.testing.assert_array_equal(trimmed.corners, found.corners[:, :4])


@pytest.mark.parametrize("pattern", [Pattern(i, j) for i in (False, True) for j in (False, True)])
def test_the_print_of_the_board_is_found_out(tmp_path: Path, pattern: Pattern) -> None:
    pictures = {0: NOTHING, **{n: view(BOARD, n, pattern) for n in range(1, 4)}}
    source = folder(tmp_path / "cam", pictures)
    with open_footage(source) as footage:
        assert find_pattern({"cam": footage}, BOARD) == pattern
    found = detect_boards({"cam": source}, BOARD)
    np.testing.assert_array_equal(np.isfinite(found.sigma).sum(axis=-1), [[0, 12, 12, 12]])
    np.testing.assert_allclose(found.corners[0, 1], detect_board(view(BOARD, 1), BOARD)[0], atol=0.05)


def test_one_image_that_fits_two_prints_does_not_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folder(tmp_path / "cam", {n: view(BOARD, n) for n in range(4)})
    looked: list[Pattern] = []

    def ambiguous(gray: np.ndarray, board: Board, way: Pattern) -> tuple[np.ndarray, np.ndarray]:
        """All of 80 corners in the first image for either print, later only in the legacy one."""
        looked.append(way)
        return np.zeros((80, 2)), np.full(80, 0.1 if len(looked) <= 2 or way.legacy else np.nan)

    monkeypatch.setattr(module, "detect_board", ambiguous)
    with open_footage(source) as footage:
        assert find_pattern({"cam": footage}, BOARD) == Pattern(legacy=True)
    assert len(looked) == 6, "80 : 80, 160 : 80, 240 : 80 decides"


def test_the_print_of_boards_that_leave_no_choice(tmp_path: Path) -> None:
    odd, chess, even_chess = Board(4, 5, 20.0, 15.0, "DICT_5X5_50"), Board(6, 5, 20.0), Board(6, 4, 20.0)
    for board, expected in ((odd, Pattern(True)), (chess, Pattern()), (even_chess, Pattern(True))):
        name = f"{board.columns}{board.rows}{board.marker_length}"
        source = folder(tmp_path / name, {n: view(board, n, Pattern(inverted=True)) for n in range(5)})
        with open_footage(source) as footage:
            assert find_pattern({"cam": footage}, board) == expected
        assert np.isfinite(detect_boards({"cam": source}, board).corners).all()


def test_two_boards_in_one_footage(tmp_path: Path) -> None:
    other = Board(4, 3, 20.0, 15.0, "DICT_4X4_50")
    source = folder(tmp_path / "cam", {0: view(BOARD, 3), 1: view(other, 3)})
    found = detect_boards({"cam": source}, (BOARD, other))
    assert found.corners.shape == (1, 2, 18, 2)
    np.testing.assert_array_equal(found.board_index, [0] * 12 + [1] * 6)
    seen = np.isfinite(found.sigma[0])
    np.testing.assert_array_equal(seen, [[True] * 12 + [False] * 6, [False] * 12 + [True] * 6])


def test_boards_of_one_dictionary_side_by_side(tmp_path: Path) -> None:
    """In one image, each with markers of its own: each is found as if it were alone."""
    boards = (BOARD, Board(5, 4, 20.0, 15.0, "DICT_5X5_50", first_marker=10))
    picture = np.concatenate([view(board, shift) for board, shift in zip(boards, (0, 12), strict=True)], axis=1)
    found = detect_boards({"cam": folder(tmp_path / "cam", {0: picture, 1: picture})}, boards)
    assert np.isfinite(found.corners).all()
    alone = [detect_board(view(board, shift), board)[0] for board, shift in zip(boards, (0, 12), strict=True)]
    np.testing.assert_allclose(found.corners[0, 0, :12], alone[0], atol=0.05)
    np.testing.assert_allclose(found.corners[0, 0, 12:], alone[1] + [WIDTH, 0], atol=0.05)
    with pytest.raises(InputError, match="board 1 and board 2 have the markers 0 to 9 of DICT_5X5_50 both"):
        detect_boards({"cam": tmp_path / "cam"}, (BOARD, BOARD))
    with pytest.raises(InputError, match=r"5 x 4 squares, DICT_5X5_100 from marker 80 on, found in no image"):
        detect_boards({"cam": tmp_path / "cam"}, Board(5, 4, 20.0, 15.0, "DICT_5X5_100", first_marker=80))


def test_a_board_with_two_sides(tmp_path: Path) -> None:
    board = Board(5, 4, 20.0, 15.0, "DICT_5X5_50", back=Back(20, 4.0, "left_right"))
    front, back = board.sides
    found = detect_boards({"cam": folder(tmp_path / "cam", {0: view(front, 3), 1: view(back, 3)})}, board)
    seen = np.isfinite(found.sigma[0])
    np.testing.assert_array_equal(seen, [[True] * 12 + [False] * 12, [False] * 12 + [True] * 12])
    np.testing.assert_allclose(found.corners[0, 1, 12:], found.corners[0, 0, :12], atol=0.1)
    np.testing.assert_array_equal(found.side_index, [0] * 12 + [1] * 12)
    other = Board(4, 5, 20.0, 15.0, "DICT_5X5_50", back=Back(20, 4.0, "left_right"))
    with pytest.raises(InputError, match="columns and rows are exchanged"):
        detect_boards({"cam": tmp_path / "cam"}, other)


def test_a_camera_without_board_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sources = {"one": folder(tmp_path / "one", {0: view(BOARD, 0)}), "two": folder(tmp_path / "two", {0: NOTHING})}
    with caplog.at_level(logging.WARNING):
        found = detect_boards(sources, BOARD)
    assert [record.getMessage() for record in caplog.records] == [f"camera 'two': no board in {sources['two']}"]
    np.testing.assert_array_equal(np.isfinite(found.sigma).sum(axis=(1, 2)), [12, 0])
    soft = cv2.GaussianBlur(view(BOARD, 0), (0, 0), 4.0)
    with caplog.at_level(logging.WARNING):
        detect_boards({"one": sources["one"], "soft": folder(tmp_path / "soft", {0: soft})}, BOARD)
    assert "camera 'soft': no board" in caplog.records[-1].getMessage()
    assert "its sharpest edges are blurred by" in caplog.records[-1].getMessage()


def test_no_board_anywhere_says_which_dictionaries_were_seen(tmp_path: Path) -> None:
    sources = {"one": folder(tmp_path / "one", {0: view(BOARD, 0), 7: NOTHING})}
    told = r"8 x 6 squares, DICT_6X6_250.*one \(2 frames\).*DICT_5X5_50: 10 different markers, ids 0 to 9"
    with pytest.raises(InputError, match=told):
        detect_boards(sources, Board(8, 6, 20.0, 15.0, "DICT_6X6_250"))
    white = {"one": folder(tmp_path / "white", {0: view(BOARD, 0, Pattern(inverted=True))})}
    with pytest.raises(InputError, match=r"dictionaries seen: DICT_5X5_50"):
        detect_boards(white, Board(8, 6, 20.0, 15.0, "DICT_6X6_250"))
    blank = {"one": folder(tmp_path / "blank", {0: NOTHING})}
    with pytest.raises(InputError, match="nor markers of a known dictionary"):
        detect_boards(blank, BOARD)
    assert board_check._smallest("DICT_4X4_1000", 49) == "DICT_4X4_50"
    assert board_check._smallest("DICT_4X4_1000", 50) == "DICT_4X4_100"
    assert board_check._smallest("DICT_4X4_1000", 999) == "DICT_4X4_1000"
    assert board_check._smallest("DICT_ARUCO_ORIGINAL", 5) == "DICT_ARUCO_ORIGINAL"
    assert board_check._FAMILIES[0] == "DICT_4X4_1000"
    assert len(board_check._FAMILIES) == 10


def test_frames_to_leave_out(two: dict[str, Path]) -> None:
    whole = detect_boards(two, BOARD)
    np.testing.assert_array_equal(whole.numbers, [[3, 4, -1, 10], [-1, 4, 5, 10]])
    some = detect_boards(two, BOARD, DetectionOptions(leave_out={"left": ((2, 3),), "all": (10,)}))
    np.testing.assert_array_equal(some.frame, whole.frame)
    np.testing.assert_array_equal(np.isfinite(some.sigma).any(axis=2), [[0, 1, 0, 0], [0, 1, 0, 0]])
    np.testing.assert_array_equal(some.numbers, [[-1, 4, -1, -1], [-1, 4, 5, -1]])
    told = {"left": [3, 4, 10], "right": [10, 4, 5]}
    own = detect_boards(two, BOARD, DetectionOptions(leave_out={"right": (10,)}), frames=told)
    np.testing.assert_array_equal(own.numbers, [[3, 4, 10], [-1, 4, 5]])
    np.testing.assert_array_equal(np.isfinite(own.sigma).any(axis=2), [[1, 1, 1], [0, 1, 0]])


@pytest.mark.parametrize(
    ("leave_out", "message"),
    [
        ({"lft": (3,)}, r"leave_out: camera 'lft' is not in the footage; did you mean 'left'"),
        ({"left": (7,)}, r"leave_out\.left: expected frames of .*left, which has 3 to 10, got 7"),
        ({"all": ((11, 20),)}, r"leave_out\.all: expected frames of .*left, which has 3 to 10, got \[11, 20\]"),
        ({"left": ((0, 99),)}, r"leave_out: camera 'left': none of its frames is left"),
        ({"left": ((4, 3),)}, r"leave_out\.left: expected frame numbers from 0 on and ranges .* got \[4, 3\]"),
        ({"left": (-1,)}, r"leave_out\.left: expected frame numbers from 0 on .* got -1"),
    ],
)
def test_frames_that_cannot_be_left_out(two: dict[str, Path], leave_out: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(InputError, match=message):
        detect_boards(two, BOARD, DetectionOptions(leave_out=leave_out))


def test_masks_hide_corners_and_nothing_else(tmp_path: Path, two: dict[str, Path]) -> None:
    whole = detect_boards(two, BOARD)
    picture = np.full((HEIGHT, WIDTH), 255, np.uint8)
    column = int(np.nanmedian(whole.corners[0, ..., 0]))
    picture[:, :column] = 0
    path = tmp_path / "left.png"
    cv2.imwrite(str(path), picture)
    cache = tmp_path / "cache"
    for _ in range(2):  # the second time from what is kept
        found = detect_boards(two, BOARD, DetectionOptions(masks={"left": path}), cache=cache)
        hidden = np.isfinite(whole.sigma[0]) & ~np.isfinite(found.sigma[0])
        np.testing.assert_array_equal(hidden, np.rint(whole.corners[0, ..., 0]) < column)
        assert hidden.any()
        np.testing.assert_array_equal(found.corners[1], whole.corners[1])
        np.testing.assert_array_equal(found.corners[0][~hidden], whole.corners[0][~hidden])
    np.testing.assert_array_equal(detect_boards(two, BOARD, cache=cache).corners, whole.corners)
    cv2.imwrite(str(path), picture[:, :-1])
    told = r"masks\.left: .*left\.png: expected an image of 320 x 240 px, as .*left, got 319 x 240"
    with pytest.raises(InputError, match=told):
        detect_boards(two, BOARD, DetectionOptions(masks={"left": path}))
    cv2.imwrite(str(path), 0 * picture)
    with pytest.raises(InputError, match=r"masks\.left: hides all 36 corners .* the wrong way round"):
        detect_boards(two, BOARD, DetectionOptions(masks={"left": path}))
    with pytest.raises(InputError, match=r"masks: camera 'lft' .* did you mean 'left'"):
        detect_boards(two, BOARD, DetectionOptions(masks={"lft": path}))
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"masks\.left: .*expected an image that OpenCV can read"):
        detect_boards(two, BOARD, DetectionOptions(masks={"left": path}))


def test_lines_that_leave_frames_out() -> None:
    told = leave_out_line({"cam0": [3, 9, 10, 11, 12, 20, 21, -1], "my cam": [5]})
    assert told == 'add leave_out.cam0 = [3, [9, 12], 20, 21] and leave_out."my cam" = [5] under [detect]'


def test_footage_that_cannot_be_read_names_the_camera(tmp_path: Path, two: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"camera 'top': .*gone\.mp4"):
        detect_boards({**two, "top": tmp_path / "gone.mp4"}, BOARD)
    broken = folder(tmp_path / "broken", {0: view(BOARD, 0), 1: view(BOARD, 1)})
    (broken / "broken-1.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"camera 'top': .*broken-1\.png"):
        detect_boards({"top": broken}, BOARD)
    mixed = folder(tmp_path / "mixed", {0: view(BOARD, 0), 1: view(BOARD, 1)[:200]})
    with pytest.raises(InputError, match=r"camera 'top': .*expected 320 x 240 px .* got 320 x 200"):
        detect_boards({"top": mixed}, BOARD)
    source = video(tmp_path / "whole.mkv", [view(BOARD, n) for n in range(3)])
    with open_footage(source) as footage:
        footage.complete = False
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "open_footage", lambda path: footage)
            with pytest.raises(InputError, match=r"camera 'top': .*breaks off after frame 2"):
                detect_boards({"top": source}, BOARD)


def test_corners_are_kept_and_taken_while_nothing_changes(
    tmp_path: Path, two: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    first = detect_boards(two, BOARD, cache=cache)
    kept = sorted(cache.iterdir())
    assert len(kept) == 2
    assert all(file.name.startswith("boards-") and file.suffix == ".npz" for file in kept)
    looked = []
    monkeypatch.setattr(module, "_looked_at", lambda *told: looked.append(told) or iter(()))
    steps: list[int] = []
    second = detect_boards(two, BOARD, cache=cache, progress=lambda _, done, total: steps.append(done))
    np.testing.assert_array_equal(second.corners, first.corners)
    np.testing.assert_array_equal(second.sigma, first.sigma)
    assert steps == [3, 6]
    assert looked == []
    monkeypatch.undo()
    frames = np.array([0, 1])
    keys = {
        module._key(two["left"], frames, [BOARD], [Pattern()]),
        module._key(two["right"], frames, [BOARD], [Pattern()]),
        module._key(two["left"], frames[:1], [BOARD], [Pattern()]),
        module._key(two["left"], frames, [Board(5, 4, 21.0, 15.0, "DICT_5X5_50")], [Pattern()]),
        module._key(two["left"], frames, [BOARD], [Pattern(legacy=True)]),
    }
    assert len(keys) == 5
    image = folder(tmp_path / "copy", {0: NOTHING}) / "copy-0.png"
    key = module._key(image, frames, [BOARD], [Pattern()])
    assert module._key(image, frames, [BOARD], [Pattern()]) == key
    data, status = bytearray(image.read_bytes()), image.stat()
    data[-1] ^= 1
    image.write_bytes(data)
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    changed = module._key(image, frames, [BOARD], [Pattern()])
    assert changed != key, "the content counts"
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert module._key(image, frames, [BOARD], [Pattern()]) != changed, "and the time of change"
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    assert module._key(two["left"], frames, [BOARD], [Pattern()]) not in keys


def test_samples_go_from_coarse_to_fine() -> None:
    assert module._coarse_to_fine(8) == [0, 4, 2, 6, 1, 5, 3, 7]
    assert module._coarse_to_fine(1) == [0]
    for n in (2, 5, 13):
        assert sorted(module._coarse_to_fine(n)) == list(range(n))
