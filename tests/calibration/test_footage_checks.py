"""Faults of the footage, made by hand in detections of a few frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibration.board import Board, BoardDetections
from calibration.errors import InputError
from calibration.footage_checks import (
    check_boards,
    check_coverage,
    check_duplicated,
    check_footage,
    check_frozen,
    check_links,
    coverage_cells,
    mirrored_views,
    refuse_mirrored,
)
from calibration.omissions import leave_out_line
from calibration.synthetic import board_path, ring_rig, simulate_detections

BOARD = Board(6, 5, 60.0)


@pytest.fixture
def detections(rng: np.random.Generator) -> BoardDetections:
    rig = ring_rig(3, rng, radius=900, height=600)
    R, t = board_path(rig, BOARD, 60, rng, reach=450, every=5)(np.arange(60))
    return simulate_detections(rig, BOARD, R, t, rng)


def test_good_footage_has_no_findings(detections: BoardDetections) -> None:
    assert check_footage(detections) == ()
    assert mirrored_views(detections) == ()


def test_cells_are_rows_of_columns() -> None:
    cells = coverage_cells(np.array([[799.0, 0.0], [0.0, 599.0], [0.0, 599.0], [np.nan, 0.0]]), (800, 600))
    assert cells.shape == (6, 8)
    assert (cells[0, 7], cells[5, 0], cells.sum()) == (1, 2, 3)


def test_mirrored_images_are_refused_by_name(detections: BoardDetections) -> None:
    corners = detections.corners.copy()
    corners[1, ..., 0] = 959 - corners[1, ..., 0]
    with pytest.raises(InputError, match=r"cameras whose images are mirrored: cam1 .*hflip"):
        refuse_mirrored(replace(detections, corners=corners))
    corners = detections.corners.copy()
    corners[..., 1] = 719 - corners[..., 1]
    with pytest.raises(InputError, match=r"mirrored: cam0, cam1, cam2 .*filmed through its back"):
        refuse_mirrored(replace(detections, corners=corners))
    few = detections.corners.copy()
    few[1, :10, :, 0] = 959 - few[1, :10, :, 0]  # a wrong detection now and then is not a mirrored camera
    assert mirrored_views(replace(detections, corners=few)) == ()


def test_a_board_that_is_found_nowhere_is_told(detections: BoardDetections) -> None:
    other = Board(4, 3, 20.0, 15.0, first_marker=40)
    nothing = np.full((*detections.corners.shape[:2], other.n_corners), np.nan)
    both = replace(
        detections,
        boards=(*detections.boards, other),
        corners=np.concatenate([detections.corners, np.stack([nothing, nothing], axis=-1)], axis=2),
        sigma=np.concatenate([detections.sigma, nothing], axis=2),
        board_index=np.concatenate([detections.board_index, np.ones(other.n_corners, dtype=np.int64)]),
    )
    (found,) = check_footage(both)
    assert (found.kind, found.grave) == ("unseen_board", False)
    assert str(found).startswith("board: number 2 of 2, 4 x 3 squares, is found in no image; film it, or")
    assert check_boards(detections) == ()


def test_rows_that_are_never_found_are_told(detections: BoardDetections) -> None:
    (board,) = detections.boards
    taller = replace(board, rows=board.rows + 2)
    more = ((0, 0), (0, 0), (0, taller.n_corners - board.n_corners))
    described = replace(
        detections,
        boards=(taller,),
        corners=np.pad(detections.corners, (*more, (0, 0)), constant_values=np.nan),
        sigma=np.pad(detections.sigma, more, constant_values=np.nan),
        board_index=np.zeros(taller.n_corners, dtype=np.int64),
    )
    (found,) = check_boards(described)
    assert (found.kind, found.measured, found.expected) == ("unseen_board", board.rows, taller.rows)
    assert f"Write rows = {board.rows}" in found.remedy


def test_one_video_under_two_names(detections: BoardDetections, rng: np.random.Generator) -> None:
    corners = detections.corners.copy()
    corners[2] = corners[0] + 0.2 * rng.normal(size=corners[0].shape)  # compressed anew
    (finding,) = check_duplicated(replace(detections, corners=corners))
    assert (finding.kind, finding.cameras) == ("duplicated_video", ("cam0", "cam2"))
    assert finding.measured < 0.4
    corners[2] = corners[0] + 3.0
    assert check_duplicated(replace(detections, corners=corners)) == ()


def test_frozen_pictures_are_numbered(detections: BoardDetections) -> None:
    detections = replace(detections, frame=detections.frame + 100)
    corners = detections.corners.copy()
    start = int(np.flatnonzero(np.isfinite(corners[1, :, :, 0]).sum(axis=1) > 10)[5])
    corners[1, start:] = corners[1, start]
    (finding,) = check_frozen(replace(detections, corners=corners))
    assert (finding.kind, finding.cameras) == ("frozen_video", ("cam1",))
    assert finding.frames[0] > 100 + start
    assert finding.remedy.endswith(leave_out_line({"cam1": finding.frames}))
    assert finding.measured == len(finding.frames) > 20
    still = np.repeat(detections.corners[:, start : start + 1], 60, axis=1)  # a board that rests in all cameras
    assert check_frozen(replace(detections, corners=still)) == ()


def test_few_common_frames(detections: BoardDetections) -> None:
    seen = np.isfinite(detections.corners[..., 0]).sum(axis=2) >= 6
    shared = np.flatnonzero(seen[2] & seen[:2].any(axis=0))
    for kept, weak in ((4, True), (5, False)):
        corners = detections.corners.copy()
        corners[2, shared[kept:]] = np.nan
        findings = check_links(replace(detections, corners=corners))
        assert [f.cameras for f in findings] == ([("cam2",)] if weak else [])
        if weak:
            assert (findings[0].kind, findings[0].measured) == ("hardly_linked", 4.0)


def test_common_frames_of_one_place() -> None:
    grid = BOARD.object_points[:, :2] + 100
    breadth = np.linalg.norm(np.ptp(grid, axis=0))
    for step, weak in ((0.02, True), (0.2, False), (0.0, False)):  # a board that rests may be filmed at any time
        corners = np.full((2, 20, BOARD.n_corners, 2), np.nan)
        corners[:, :6] = grid + step * breadth * np.arange(6)[:, None, None] * [1.0, 0.0]
        corners[0, 6:], corners[1, 5] = grid + 300, np.nan
        sigma = np.where(np.isfinite(corners[..., 0]), 0.3, np.nan)
        two = BoardDetections(
            ("a", "b"), (BOARD,), np.full((2, 2), 640), np.arange(20), np.full(20, np.nan), corners, sigma,
            np.zeros(BOARD.n_corners, dtype=np.int64),
        )  # fmt: skip
        findings = check_links(two)
        assert [(f.kind, f.cameras, f.measured) for f in findings] == [("hardly_linked", ("a", "b"), 1.0)] * weak


def test_two_groups_that_few_frames_tie(rng: np.random.Generator) -> None:
    corners = np.full((4, 43, BOARD.n_corners, 2), np.nan)
    grid = BOARD.object_points[:, :2] + 100
    corners[:2, :20], corners[2:, 20:40], corners[:, 40:] = grid, grid, grid
    sigma = np.where(np.isfinite(corners[..., 0]), 0.3, np.nan)
    both = BoardDetections(
        ("a", "b", "c", "d"), (BOARD,), np.full((4, 2), 640), np.arange(43), np.full(43, np.nan), corners, sigma,
        np.zeros(BOARD.n_corners, dtype=np.int64),
    )  # fmt: skip
    (finding,) = check_links(both)
    assert finding.cameras in (("a", "b"), ("c", "d"))
    assert finding.measured == 3.0


@pytest.mark.parametrize(("axis", "low", "half"), [(0, True, "right"), (0, False, "left"), (1, True, "lower")])
def test_half_an_image_without_corners(detections: BoardDetections, axis: int, low: bool, half: str) -> None:
    corners = detections.corners.copy()
    place = corners[0, ..., axis] / detections.sizes[0][axis]
    corners[0, (place > 0.48) if low else (place < 0.52)] = np.nan
    (finding,) = check_coverage(replace(detections, corners=corners))
    assert (finding.kind, finding.cameras) == ("clipped_coverage", ("cam0",))
    assert f"nothing in its {half} half" in finding.message
