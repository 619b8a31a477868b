"""Boards and frames of real recordings, against what is known of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.board import Board, BoardDetections, Pattern
from calibration.board_corners import detect_board
from calibration.detection import detect_boards, find_pattern
from calibration.footage import open_footage

pytestmark = pytest.mark.real


def one_camera_rms(detections: BoardDetections, view: int, keep: np.ndarray | None = None) -> float:
    """rms px of a camera calibrated alone by OpenCV, over all its corners (in images that show six or more)."""
    points, pixels = [], []
    for f, xy in enumerate(detections.corners[view]):
        seen = np.isfinite(xy[:, 0]) & (True if keep is None else keep[view, f])
        if seen.sum() >= 6:
            points.append(detections.object_points[seen].astype(np.float32))
            pixels.append(xy[seen].astype(np.float32))
    return float(cv2.calibrateCamera(points, pixels, tuple(map(int, detections.sizes[view])), None, None)[0])


def opencv_corners(gray: np.ndarray, board: Board) -> np.ndarray:
    page = cv2.aruco.CharucoBoard(
        (board.columns, board.rows), board.square_length, board.marker_length,
        cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, board.dictionary)),
    )  # fmt: skip
    corners, ids, _, _ = cv2.aruco.CharucoDetector(page).detectBoard(gray)
    xy = np.full((board.n_corners, 2), np.nan)
    if ids is not None:
        xy[np.ravel(ids)] = np.reshape(corners, (-1, 2))
    return xy


def test_mouse_rig_shows_every_corner(real_data: Path) -> None:
    session = real_data / "sleap_anipose_minimal" / "minimal_session"
    board = Board(8, 11, 24.0, 18.75)
    sources = {name: session / name / "calibration_images" for name in ("back", "mid", "side", "top")}
    found = detect_boards(sources, board)
    np.testing.assert_array_equal(found.frame, np.arange(21))
    assert np.isfinite(found.sigma).sum() >= 5822, "as many as OpenCV finds, of the 5,880 that there are"
    rms = [one_camera_rms(found, view) for view in range(4)]
    opencv = (0.205, 0.165, 0.439, 0.171)  # measured: its own corners, fewer of them
    assert all(own < theirs for own, theirs in zip(rms, opencv, strict=True)), rms
    xy = opencv_corners(cv2.imread(str(next(sources["mid"].glob("*-7.jpg"))), cv2.IMREAD_GRAYSCALE), board)
    apart = np.linalg.norm(found.corners[1, 7] - xy, axis=-1)
    assert np.nanmedian(apart) < 0.1
    assert np.nanmax(apart) < 1


def test_webcams_show_an_inverted_board(real_data: Path) -> None:
    folder = real_data / "caliscope_charuco_calibration" / "calibration" / "extrinsic"
    board = Board(4, 5, 54.0, 40.5)
    sources = {f"cam_{i}": folder / f"cam_{i}.mp4" for i in range(4)}
    with open_footage(sources["cam_2"]) as footage:
        assert find_pattern({"cam_2": footage}, board) == Pattern(inverted=True)
        assert footage.n_frames == 111
        gray = footage.read(80)[..., 1]
    frames = {name: np.arange(60, 111) for name in sources}
    found = detect_boards(sources, board, frames=frames)
    assert np.isfinite(found.sigma).sum() >= 1910, "OpenCV's count on all frames"
    assert max(one_camera_rms(found, view) for view in range(4)) < 0.25
    opencv = opencv_corners(255 - gray, board)
    apart = np.linalg.norm(detect_board(gray, board, Pattern(inverted=True))[0] - opencv, axis=-1)
    assert np.isfinite(apart).sum() >= 8
    assert np.nanmax(apart) < 1


def test_chessboards_in_photographs(real_data: Path) -> None:
    folder = real_data / "caliscope_chessboard_intrinsic"
    board = Board(10, 7, 25.0)
    for path in sorted(folder.glob("*.jpg")):
        gray = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        xy, sigma = detect_board(gray, board)
        if path.name == "cam_0_frame_000.jpg":
            assert np.isnan(sigma).all(), "only a part of the board is in this one"
            continue
        assert np.isfinite(sigma).all()
        opencv = np.reshape(cv2.findChessboardCornersSB(gray, (9, 6), flags=cv2.CALIB_CB_NORMALIZE_IMAGE)[1], (-1, 2))
        apart = min((np.linalg.norm(xy - order, axis=-1) for order in (opencv, opencv[::-1])), key=np.max)
        assert np.median(apart) < 0.5, "moved boards have double edges"
        assert apart.max() < 2
        across, down = xy[1] - xy[0], xy[9] - xy[0]
        black, white = (xy[0] + 0.5 * (sign * across - down) for sign in (-1, 1))
        levels = [int(gray[round(y), round(x)]) for x, y in (black, white)]
        assert levels[0] + 50 < levels[1], "the first square is black"


def test_every_frame_is_the_one_whose_number_is_drawn_in_it(real_data: Path, rng: np.random.Generator) -> None:
    path = real_data / "caliscope_h264_extrinsic" / "cam_0.mp4"
    with open_footage(path) as footage:
        assert (footage.n_frames, footage.size, footage.complete) == (180, (320, 240), True)

        def digits(position: int) -> list[np.ndarray]:
            """The drawn number's cells, ones first: orange on dark, right-aligned, 8 px wide."""
            ink = footage.read(position)[20:35, :, 0] > 128
            return [ink[:, 92 - 8 * place : 100 - 8 * place] for place in range(3)]

        glyphs = [digits(n)[0] for n in range(10)]
        for position in rng.permutation(180)[:60]:
            cells = digits(int(position))
            read = [int(np.argmin([(cell != glyph).sum() for glyph in glyphs])) for cell in cells]
            assert sum(10**place * digit for place, digit in enumerate(read[: len(str(position))])) == position


@pytest.mark.parametrize("name", ["back", "mid", "side", "top"])
def test_mouse_videos_have_120_frames_and_seek_exactly(real_data: Path, name: str, rng: np.random.Generator) -> None:
    path = real_data / "sleap_anipose_minimal" / "minimal_session" / name / f"minimal_{name}.mp4"
    with open_footage(path) as footage:
        assert (footage.n_frames, footage.fps, footage.size) == (120, 30.0, (1280, 1024))
        sums = [int(image.sum()) for _, image in footage.frames(gray=True)]
        assert len(sums) == 120
        for position in rng.permutation(120)[:3]:
            n, image = next(footage.frames(int(position), gray=True))
            assert (n, int(image.sum())) == (position, sums[position])


def test_a_film_that_is_read_by_its_first_packet(real_data: Path) -> None:
    """4:4:4 of an old x264: FFmpeg decodes it rightly only once it has read x264's version in the first packet."""
    path = real_data / "dlc_openfield/openfield-Pranav-2018-10-30/videos/m3v1mp4.mp4"
    with open_footage(path) as footage:
        expected = next(image for n, image in footage.frames(stop=241) if n == 240)
    with open_footage(path) as footage:
        _, image = next(footage.frames(240))
        np.testing.assert_array_equal(image, expected)
