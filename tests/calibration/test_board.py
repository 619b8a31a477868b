from __future__ import annotations

import cv2
import numpy as np
import pytest

from calibration import board_corners as module
from calibration.board import Board, BoardDetections, Pattern, charuco
from calibration.board_corners import detect_board, find_markers
from calibration.errors import InputError
from calibration.synthetic import board_motion, board_visible, render_board, ring_rig

CHARUCO = Board(6, 4, 20.0, 15.0, "DICT_4X4_50")
CHESS = Board(7, 6, 20.0)
H = np.array([[1.05, 0.22, 60.0], [-0.18, 0.98, 110.0], [1.2e-4, -1.5e-4, 1.0]])
SIZE = (640, 480)


def view(board: Board, pattern: Pattern | None = None, homography: np.ndarray = H, px: int = 60) -> np.ndarray:
    """A sharp view of the board's page of 60 px squares through a homography (page px -> image px), anti-aliased."""
    page = np.pad(board.image(px, pattern=pattern), px, constant_values=0 if pattern and pattern.inverted else 255)
    from_page = homography @ np.array([[1.0, 0, -px], [0, 1, -px], [0, 0, 1]])
    large = np.array([[4, 0, 1.5], [0, 4, 1.5], [0, 0, 1]]) @ from_page
    big = cv2.warpPerspective(page, large, (4 * SIZE[0], 4 * SIZE[1]), borderValue=128)
    return cv2.GaussianBlur(cv2.resize(big, SIZE, interpolation=cv2.INTER_AREA), (0, 0), 0.7)


def truth(board: Board, homography: np.ndarray = H, px: int = 60) -> np.ndarray:
    """Where `view` shows the corners."""
    page = board.object_points[:, :2] / board.square_length * px - 0.5
    return cv2.perspectiveTransform(page[None], homography)[0]


def corner_error(xy: np.ndarray, expected: np.ndarray) -> np.ndarray:
    assert np.isfinite(xy).all()
    return np.linalg.norm(xy - expected, axis=-1)


@pytest.mark.parametrize(("columns", "rows"), [(6, 4), (5, 4), (5, 5), (8, 11)])
@pytest.mark.parametrize("legacy", [False, True])
def test_corners_and_page_are_opencvs(columns: int, rows: int, legacy: bool) -> None:
    board = Board(columns, rows, 2.0, 1.5, "DICT_5X5_100")
    other = cv2.aruco.CharucoBoard((columns, rows), 2.0, 1.5, cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_5X5_100))
    other.setLegacyPattern(legacy)
    np.testing.assert_allclose(board.object_points, other.getChessboardCorners())
    assert board.n_corners == len(board.object_points) == (columns - 1) * (rows - 1)
    assert board.n_markers == len(other.getIds())
    page = board.image(40, pattern=Pattern(legacy=legacy))
    assert page.shape == (40 * rows, 40 * columns)
    found, ids, _, _ = cv2.aruco.CharucoDetector(other).detectBoard(np.pad(page, 40, constant_values=255))
    assert sorted(np.ravel(ids)) == list(range(board.n_corners))
    expected = board.object_points[np.ravel(ids), :2] / 2.0 * 40 - 0.5 + 40
    np.testing.assert_allclose(np.reshape(found, (-1, 2)), expected, atol=0.1)
    xy, _ = detect_board(np.pad(page, 40, constant_values=255), board, Pattern(legacy=legacy))
    np.testing.assert_allclose(xy, board.object_points[:, :2] / 2.0 * 40 - 0.5 + 40, atol=0.01)


def test_chessboard_page_starts_black() -> None:
    page = CHESS.image(10)
    assert page.shape == (60, 70)
    assert (page[:10, :10] == 0).all()
    assert (page[:10, 10:20] == 255).all()
    assert (page[10:20, :10] == 255).all()
    np.testing.assert_array_equal(CHESS.image(10, pattern=Pattern(inverted=True)), 255 - page)
    assert CHESS.n_markers == 0


@pytest.mark.parametrize("board", [CHARUCO, CHESS])
def test_neighbours_are_all_pairs_one_square_apart(board: Board) -> None:
    points = board.object_points
    apart = np.linalg.norm(points[:, None] - points, axis=-1)
    expected = {(a, b) for a, b in np.argwhere(np.isclose(apart, board.square_length)) if a < b}
    assert {tuple(pair) for pair in board.neighbours} == expected
    assert len(board.neighbours) == len(expected)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"columns": 2}, "3 or more columns"),
        ({"rows": 1}, "3 or more columns and rows"),
        ({"square_length": 0.0}, "square_length above 0"),
        ({"marker_length": 25.0}, "between 0 and square_length = 20"),
        ({"marker_length": 20.0}, "marker_length"),
        ({"dictionary": "DICT_4X4_51"}, "did you mean 'DICT_4X4_50'"),
        ({"columns": 11, "rows": 11}, "need 60 markers, DICT_4X4_50 has 50"),
    ],
)
def test_what_is_no_board_is_refused(told: dict, message: str) -> None:
    values = {"columns": 6, "rows": 4, "square_length": 20.0, "marker_length": 15.0, "dictionary": "DICT_4X4_50"} | told
    with pytest.raises(InputError, match=message):
        Board(**values)


def test_detections_check_their_shapes() -> None:
    n = CHARUCO.n_corners + CHESS.n_corners
    arrays = {"sizes": (2, 2), "frame": (4,), "time": (4,)}
    arrays |= {"corners": (2, 4, n, 2), "sigma": (2, 4, n), "board_index": (n,)}
    good = {name: np.zeros(shape, dtype=int) for name, shape in arrays.items()}
    detections = BoardDetections(("a", "b"), (CHARUCO, CHESS), **good)
    both = np.concatenate([CHARUCO.object_points, CHESS.object_points])
    np.testing.assert_array_equal(detections.object_points, both)
    for name in ("sizes", "time", "corners", "sigma", "board_index"):
        with pytest.raises(InputError, match=f"expected {name}"):
            BoardDetections(("a", "b"), (CHARUCO, CHESS), **{**good, name: np.zeros((3, 3))})


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
def test_every_corner_in_every_print(inverted: bool, legacy: bool) -> None:
    pattern = Pattern(inverted, legacy)
    picture = view(CHARUCO, pattern)
    xy, sigma = detect_board(picture, CHARUCO, pattern)
    assert corner_error(xy, truth(CHARUCO)).max() < 0.02
    assert (sigma < 0.2).all()
    np.testing.assert_array_equal(detect_board(np.repeat(picture[..., None], 3, axis=2), CHARUCO, pattern)[0], xy)
    for wrong in (Pattern(not inverted, legacy), Pattern(inverted, not legacy)):
        assert np.isfinite(detect_board(picture, CHARUCO, wrong)[1]).sum() == 0


def test_corners_whose_markers_are_covered_are_found_and_covered_corners_are_not() -> None:
    picture = view(CHARUCO)
    expected = truth(CHARUCO)
    middle = expected.reshape(3, 5, 2)[1, 2]
    covered = picture.copy()
    cv2.circle(covered, tuple(np.rint(middle).astype(int)), 40, 128, -1)
    xy, sigma = detect_board(covered, CHARUCO)
    distance = np.linalg.norm(expected - middle, axis=-1)
    assert np.isnan(sigma[distance < 40]).all()
    assert np.isfinite(sigma[distance > 55]).all()
    assert np.nanmax(np.linalg.norm(xy - expected, axis=-1)) < 0.05
    blind = picture.copy()
    for marker in find_markers(picture, "DICT_4X4_50")[0][[0, 1, 3, 5, 6, 8, 11]]:
        x, y = np.rint(marker.mean(axis=0)).astype(int)
        cv2.circle(blind, (x, y), 12, 128, -1)
    assert len(find_markers(blind, "DICT_4X4_50", 12)[1]) == 5
    assert corner_error(detect_board(blind, CHARUCO)[0], expected).max() < 0.02


def test_less_than_four_corners_are_no_board() -> None:
    small = Board(3, 3, 20.0, 15.0, "DICT_4X4_50")
    picture = view(small)
    assert np.isfinite(detect_board(picture, small)[1]).sum() == 4
    x, y = np.rint(truth(small)[0]).astype(int)
    cv2.circle(picture, (x, y), 12, 128, -1)
    assert np.isfinite(detect_board(picture, small)[1]).sum() == 0
    assert np.isnan(detect_board(np.full((480, 640), 128, np.uint8), small)[0]).all()


@pytest.mark.parametrize("board", [CHESS, Board(6, 7, 20.0)])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_chessboard_has_one_order_however_it_is_turned(board: Board, turns: int) -> None:
    angle = np.pi / 2 * turns
    c, s = round(np.cos(angle)), round(np.sin(angle))
    centre = np.array([[1, 0, SIZE[0] / 2], [0, 1, SIZE[1] / 2], [0, 0, 1.0]])
    homography = centre @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]]) @ np.linalg.inv(centre)
    homography = homography @ np.diag([0.9, 0.9, 1.0]) @ H
    xy, _ = detect_board(view(board, homography=homography), board)
    assert corner_error(xy, truth(board, homography)).max() < 0.02


def test_a_chessboard_that_looks_the_same_upside_down_runs_to_the_right() -> None:
    board = Board(7, 5, 20.0)
    turned = np.array([[-1.0, 0, SIZE[0]], [0, -1, SIZE[1]], [0, 0, 1]]) @ H
    for homography in (H, turned):
        xy, _ = detect_board(view(board, homography=homography), board)
        expected = truth(board, homography)
        expected = expected if expected[0].sum() < expected[-1].sum() else expected[::-1]
        assert corner_error(xy, expected).max() < 0.02
    assert np.isnan(detect_board(np.full((480, 640), 128, np.uint8), board)[0]).all()


def test_markers_are_scaled_back_from_the_quick_search(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = view(CHARUCO)
    whole, ids = find_markers(picture, "DICT_4X4_50", 12)
    assert ids.tolist() == list(range(12))
    monkeypatch.setattr(module, "LARGE_PX", 240)
    quick, quick_ids = find_markers(picture[:479], "DICT_4X4_50", 12, thorough=False)
    np.testing.assert_array_equal(quick_ids, ids)
    assert np.abs(quick - whole).max() < 3, "pixels of the small image are two wide"
    assert np.abs((quick - whole).mean(axis=(0, 1))).max() < 0.5
    assert len(find_markers(255 - picture, "DICT_4X4_50", 12)[1]) == 0
    assert len(find_markers(255 - picture, "DICT_4X4_50", 12, either_colour=True)[1]) == 12
    assert find_markers(picture, "DICT_4X4_50", 5)[1].tolist() == list(range(5))
    xy, _ = detect_board(picture, CHARUCO)
    assert corner_error(xy, truth(CHARUCO)).max() < 0.02


def test_the_quick_search_prefers_no_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE_PX", 240)
    picture = view(CHARUCO)
    upright, turned = (
        find_markers(np.ascontiguousarray(shown), "DICT_4X4_50", 12, thorough=False)
        for shown in (picture, picture[::-1, ::-1])
    )
    np.testing.assert_array_equal(upright[1], turned[1])
    both = (upright[0] + turned[0]).mean(axis=(0, 1))
    np.testing.assert_allclose(both, [SIZE[0] - 1, SIZE[1] - 1], atol=0.6)


def test_a_corner_much_fainter_than_the_others_is_none() -> None:
    picture = view(CHARUCO)
    place = tuple(np.rint(truth(CHARUCO)[7]).astype(int))
    disc = cv2.circle(np.zeros_like(picture), place, 45, 1, -1).astype(bool)
    for share, seen in ((0.4, True), (0.15, False)):
        veiled = np.where(disc, 128 + share * (picture.astype(float) - 128), picture)
        sigma = detect_board(np.rint(veiled).astype(np.uint8), CHARUCO)[1]
        assert np.isfinite(sigma[7]) == seen


def test_markers_foretell_the_corners_beside_them() -> None:
    layout = np.array(charuco(CHARUCO, False).getObjPoints())[:, :, :2]
    page = layout / 20.0 * 60 - 0.5
    markers = cv2.perspectiveTransform(page.reshape(1, -1, 2), H).reshape(-1, 4, 2)
    xy, step_u, step_v = module._from_markers(markers, np.arange(12), CHARUCO, False)
    np.testing.assert_allclose(xy, truth(CHARUCO), atol=1e-3)
    half = np.array([30.0, 0])
    at = [CHARUCO.object_points[:, :2] * 3 - 0.5 + s * half for s in (1, -1)]
    ahead, back = (cv2.perspectiveTransform(points[None], H)[0] for points in at)
    np.testing.assert_allclose(step_u, ahead - back, atol=1e-3)
    at = [CHARUCO.object_points[:, :2] * 3 - 0.5 + s * half[::-1] for s in (1, -1)]
    ahead, back = (cv2.perspectiveTransform(points[None], H)[0] for points in at)
    np.testing.assert_allclose(step_v, ahead - back, atol=1e-3)
    side = np.minimum(*(np.linalg.norm(step, axis=-1) for step in (step_u, step_v)))
    # the two markers of an inner corner deviate by half of it each: population SD = half the difference
    for share, kept in ((0.4, True), (0.6, False)):
        moved = markers.copy()
        moved[4] += share * side.mean() * np.array([1.0, 0])
        touched = np.isfinite(module._from_markers(moved, np.arange(12), CHARUCO, False)[0][:, 0])
        assert touched.all() == kept
        assert 15 - touched.sum() in ((0,) if kept else (2, 3, 4))
    alone = module._from_markers(markers[:1], np.array([0]), CHARUCO, False)[0]
    assert np.isfinite(alone[:, 0]).sum() == 2, "marker 0 is on the first row, between the first two corners"


def test_others_foretell_a_corner_through_lens_distortion() -> None:
    board = Board(9, 8, 1.0, 0.7)
    grid = board.object_points[:, :2]
    flat = cv2.perspectiveTransform((grid * 60)[None], H)[0]
    centre = flat.mean(axis=0)
    offset = flat - centre
    bent = flat - 4e-7 * (offset**2).sum(axis=-1, keepdims=True) * offset
    near, step_u, step_v = module._interpolated(grid, bent)
    side = module._side(step_u, step_v)
    assert np.linalg.norm(bent - flat, axis=-1).max() > 5
    assert (np.linalg.norm(near - bent, axis=-1) / side).max() < 0.05
    inner = (grid > 1).all(axis=-1) & (grid < (8, 7)).all(axis=-1)
    index = np.flatnonzero(inner)
    np.testing.assert_allclose(step_u[index], (bent[index + 1] - bent[index - 1]) / 2, atol=0.5)
    np.testing.assert_allclose(step_v[index], (bent[index + 8] - bent[index - 8]) / 2, atol=0.5)
    expected = plain_interpolation(grid, bent)
    np.testing.assert_allclose(np.stack([near, step_u, step_v]), expected, atol=1e-6)


def plain_interpolation(grid: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """(3, corners, 2): homography plus a weighted plane through the residuals of the 8 nearest others, one by one."""
    homography, _ = cv2.findHomography(grid, xy)

    def plane(at: np.ndarray) -> np.ndarray:
        return cv2.perspectiveTransform(np.atleast_2d(at)[None], homography)[0]

    result = np.zeros((3, len(grid), 2))
    for i, place in enumerate(grid):
        distance = np.linalg.norm(grid - place, axis=-1)
        distance[i] = np.inf
        others = np.argsort(distance, kind="stable")[:8]
        root = 1 / np.sqrt(1 + distance[others] ** 2)
        design = np.concatenate([np.ones((8, 1)), grid[others] - place], axis=1) * root[:, None]
        design = np.concatenate([design, np.sqrt(1e-3) * np.eye(3)])
        right = np.concatenate([(xy - plane(grid))[others] * root[:, None], np.zeros((3, 2))])
        fit = np.linalg.lstsq(design, right, rcond=None)[0]
        result[0, i] = plane(place)[0] + fit[0]
        for axis in (0, 1):
            ahead = 1e-5 * np.eye(2)[axis]
            result[1 + axis, i] = (plane(place + ahead) - plane(place - ahead))[0] / 2e-5 + fit[1 + axis]
    return result


def test_corners_that_the_others_contradict_are_dropped() -> None:
    grid = CHARUCO.object_points[:, :2] / 20.0
    xy = truth(CHARUCO)
    wrong = xy.copy()
    wrong[7] += (20.0, -4.0)
    wrong[0] += (0.0, 30.0)
    kept = module._consistent(grid, wrong)[0]
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(kept[:, 0])), [0, 7])
    np.testing.assert_array_equal(module._consistent(grid, xy)[0], xy)
    five = np.where(np.arange(15)[:, None] < 5, wrong, np.nan)
    np.testing.assert_array_equal(module._consistent(grid, five)[0], five)
    far = np.where((grid[:, :1] < 3) | (grid[:, :1] > 4), xy, np.nan)
    near, _, _ = module._interpolated(grid, far)
    assert np.isfinite(near).all(), "a gap of one square is bridged"
    far = np.where(grid[:, :1] < 3, xy, np.nan)
    near, _, _ = module._interpolated(grid, far)
    np.testing.assert_array_equal(np.isfinite(near[:, 0]), grid[:, 0] < 4)
    assert np.isnan(module._interpolated(grid, five)[0]).all()


def test_rendered_boards_are_found_without_bias(rng: np.random.Generator) -> None:
    board = Board(7, 5, 30.0, 22.5, "DICT_4X4_50")
    rig = ring_rig(4, rng, radius=600.0, height=400.0)
    R, t = board_motion(rig, board, 8, rng, reach=80.0)
    other = cv2.aruco.CharucoDetector(
        cv2.aruco.CharucoBoard((7, 5), 30.0, 22.5, cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_50))
    )
    errors, scaled, found, could, theirs = [], [], 0, 0, 0
    for frame in range(8):
        camera = rig.cameras[frame % 4]
        picture = render_board(camera, board, R[frame], t[frame], rng)
        xy, sigma = detect_board(picture, board)
        visible = board_visible(camera, board, R[frame : frame + 1], t[frame : frame + 1])[0]
        error = (xy - camera.project(board.object_points @ R[frame].T + t[frame]))[visible & np.isfinite(sigma)]
        errors.append(error)
        scaled.append(error / sigma[visible & np.isfinite(sigma)][:, None])
        found, could = found + len(error), could + int(visible.sum())
        ids = other.detectBoard(picture[..., 0])[1]
        theirs += 0 if ids is None else int(visible[np.ravel(ids)].sum())
    error = np.concatenate(errors)
    assert could > 150
    assert found >= 0.98 * could
    assert found >= theirs
    assert np.abs(error.mean(axis=0)).max() < 0.01
    assert np.sqrt((error**2).sum(axis=-1).mean()) < 0.06
    assert np.quantile(np.linalg.norm(error, axis=-1), 0.95) < 0.1
    assert np.sqrt(np.mean(np.concatenate(scaled) ** 2)) < 1
