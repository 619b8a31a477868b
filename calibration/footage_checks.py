"""What is wrong with the footage itself, before any camera is placed? Findings from the detected corners alone."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from calibration.board import BoardDetections
from calibration.errors import InputError
from calibration.extrinsics import camera_graph
from calibration.findings import Finding
from calibration.omissions import leave_out_line
from calibration.planar import MIN_CORNERS

__all__ = [
    "BROKEN", "check_boards", "check_coverage", "check_duplicated", "check_footage", "check_frozen", "check_links",
    "coverage", "coverage_cells", "mirrored_views", "refuse_mirrored",
]  # fmt: skip

Array = NDArray[np.float64]

BROKEN = ("duplicated_video", "frozen_video")
"""Kinds of findings after which nothing else that is found says anything."""
COVERAGE_CELLS = (8, 6)
"""Columns and rows of cells into which an image is cut to say how much of it the corners reach."""
LEAST_COVERAGE, LEAST_HALF = 0.1, 1 / 12
"""Share of an image's cells, and of the cells of each of its halves, that corners should reach: less than that is one
board held in one place."""
LEAST_LINKS = 5
"""Frames that should tie one part of the rig to the rest, so that no single one of them decides."""
ELSEWHERE = 0.5
"""Of a board's breadth in the image by which a corner of it must be off where it was, to be in another place."""
SAME_PX = 1.0
"""No two lenses show the same corners within this distance for a whole recording."""
STILL_PX, MOVING_PX, LEAST_STILL = 0.1, 1.0, 3
"""A board that stays within the first in one camera, for this many frames, while others see it move by the second."""
LEAST_SHARED = 50
MANY_BOARDS = 20
"""Of each camera, by which it is told whether it is mirrored, about."""


def check_footage(detections: BoardDetections) -> tuple[Finding, ...]:
    """All findings of this module but mirrored views, which are refused."""
    return (
        *check_duplicated(detections),
        *check_frozen(detections),
        *check_boards(detections),
        *check_links(detections),
        *check_coverage(detections),
    )


def refuse_mirrored(detections: BoardDetections) -> None:
    """Raises InputError naming the cameras whose images are mirrored."""
    if mirrored := mirrored_views(detections):
        whole = len(mirrored) == len(detections.view_names)
        cause = "; or the board is printed mirrored or filmed through its back: film its printed side" if whole else ""
        raise InputError(
            f"cameras whose images are mirrored: {', '.join(mirrored)} (the board's corners run the wrong way round, "
            "as in a looking-glass); expected images as the eye sees the scene; turn mirroring off in the camera's "
            f"software, or turn the video back (ffmpeg -i IN -vf hflip OUT.mp4), of the recordings as well{cause}"
        )


def mirrored_views(detections: BoardDetections) -> tuple[str, ...]:
    """Cameras in which most boards run the wrong way round: x to the right and y down on the board turn clockwise in
    the image, as they do on it."""
    index, points = detections.side_index, np.asarray(detections.object_points)[:, :2]
    facing = np.concatenate(
        [1 - 2 * board.side for board in detections.boards]
    )  # a back, in the front's frame, runs back
    wrong = []
    for name, xy in zip(detections.view_names, detections.corners, strict=True):
        signs = []
        for side in np.unique(index):
            own = index == side
            full = np.flatnonzero(np.isfinite(xy[:, own, 0]).sum(axis=1) >= MIN_CORNERS)
            for corners in xy[full[:: max(1, len(full) // MANY_BOARDS)]][:, own]:
                seen = np.isfinite(corners[:, 0])
                plane = np.column_stack((points[own][seen], np.ones(seen.sum())))
                turn = np.linalg.det(np.linalg.lstsq(plane, corners[seen], rcond=None)[0][:2])
                signs.append(np.sign(turn) * facing[own][0])
        if signs and np.mean(np.array(signs) < 0) > 0.5:
            wrong.append(name)
    return tuple(wrong)


def check_duplicated(detections: BoardDetections) -> tuple[Finding, ...]:
    """Two cameras that show the same pixels: one file under two names."""
    findings = []
    for a, b in combinations(range(len(detections.view_names)), 2):
        apart = np.linalg.norm(detections.corners[a] - detections.corners[b], axis=-1)
        apart = apart[np.isfinite(apart)]
        if tuple(detections.sizes[a]) == tuple(detections.sizes[b]) and len(apart) >= LEAST_SHARED:
            middle = float(np.median(apart))
            if middle < SAME_PX:
                names = (detections.view_names[a], detections.view_names[b])
                findings.append(
                    Finding(
                        "duplicated_video", names,
                        f"both show the same pictures (half of {len(apart)} common corners within {middle:.2f} px)",
                        "one of the two files is a copy of the other's; put the right one in its place",
                        middle, SAME_PX, "px",
                    )
                )  # fmt: skip
    return tuple(findings)


def check_frozen(detections: BoardDetections) -> tuple[Finding, ...]:
    """Cameras that repeat a picture while others see the board move."""
    step = np.linalg.norm(np.diff(detections.corners, axis=1), axis=-1)
    both = np.isfinite(step)
    enough = both.sum(axis=2) >= MIN_CORNERS
    largest = np.where(enough, np.where(both, step, 0.0).max(axis=2), np.nan)
    moved = np.full(enough.shape, np.nan)
    for v, f in np.argwhere(enough):
        moved[v, f] = np.median(step[v, f][both[v, f]])
    findings = []
    for v, name in enumerate(detections.view_names):
        others = np.delete(moved, v, axis=0)
        others = np.where(np.isfinite(others), others, 0.0).max(axis=0, initial=0.0)
        still = np.flatnonzero((largest[v] < STILL_PX) & (others > MOVING_PX))
        if len(still) >= LEAST_STILL:
            frames = tuple(int(n) for n in detections.numbers[v, still + 1])
            findings.append(
                Finding(
                    "frozen_video", (name,),
                    f"its picture stands still in {len(still)} frames in which others see the board move, the first "
                    f"being frame {frames[0]}",
                    f"its recording stopped or repeats frames; film again, or {leave_out_line({name: frames})}",
                    float(len(still)), 0.0, "frames", frames,
                )
            )  # fmt: skip
    return tuple(findings)


def check_boards(detections: BoardDetections) -> tuple[Finding, ...]:
    """Boards that are described and found nowhere, whole or with their last rows."""
    seen = np.asarray(np.isfinite(detections.corners[..., 0]).sum(axis=(0, 1)))
    index, boards, found = np.asarray(detections.board_index), detections.boards, []
    for b, board in enumerate(boards):
        told = f"number {b + 1} of {len(boards)}, {board.columns} x {board.rows} squares, is found in no image"
        front = seen[index == b][: (board.rows - 1) * (board.columns - 1)].reshape(board.rows - 1, -1)
        lost = int((np.cumsum(front.sum(axis=1)[::-1]) == 0).sum())
        if not seen[index == b].any():
            found.append(Finding("unseen_board", (), told, "film it, or take it out of board.toml"))
        elif lost and front[: len(front) - lost].min() >= LEAST_LINKS:
            rows = board.rows - lost
            told = f"corners beside its last row{'s' * (lost > 1)} of squares ({lost}) are found in no image"
            remedy = f"is it the board that was filmed? Write rows = {rows}, or film it whole"
            found.append(Finding("unseen_board", (), told, remedy, rows, board.rows, "rows"))
    return tuple(found)


def check_links(detections: BoardDetections) -> tuple[Finding, ...]:
    """The part of the rig that fewest frames tie to the rest, where those are few."""
    import networkx as nx

    graph, names = camera_graph(detections), list(detections.view_names)
    if len(names) < 2 or not nx.is_connected(graph):
        return ()
    index = np.asarray(detections.board_index)
    seen = np.isfinite(detections.corners[..., 0])
    boards = range(len(detections.boards))
    placed = np.stack([seen[..., index == b].sum(axis=-1) >= MIN_CORNERS for b in boards], axis=-1)
    parts = [[name] for name in names] if len(names) > 2 else [names[:1]]
    parts.append(min(nx.stoer_wagner(graph, weight="common")[1], key=lambda part: (len(part), names.index(part[0]))))
    weak: dict[tuple[str, ...], tuple[str, float, float, str]] = {}
    for part in parts:
        inside = np.isin(names, part)
        frames = np.flatnonzero((placed[inside].any(axis=0) & placed[~inside].any(axis=0)).any(axis=-1))
        ties, who = len(frames), tuple(name for name in names if name in part or len(names) == 2)
        where = "both cameras" if len(names) == 2 else f"{'it' if len(part) == 1 else 'them'} and another camera"
        told = f"frame{'s' * (ties != 1)} with a board in {where} at once"
        if ties < LEAST_LINKS:
            what = f"only {ties} {told}, so each of them decides how the cameras stand to each other"
            weak[who] = what, ties, LEAST_LINKS, "frames"
        elif _one_place(detections.corners[:, frames]):
            what = f"{ties} {told}, all of them in one place, so nothing tells whether the cameras were in step"
            weak[who] = what, 1, 2, "places"
    return tuple(
        Finding(
            "hardly_linked", part, message, "film more where the views overlap",
            float(value), float(least), unit,
        )
        for part, (message, value, least, unit) in weak.items()
    )  # fmt: skip


def _one_place(corners: Array) -> bool:
    """Whether boards, corners (views, frames, corners, 2) px, move, but stay near where the first frame has them, in
    all views that see both. Of boards that stand still it does not matter whether cameras are in step."""
    seen = np.isfinite(corners)
    size = np.where(seen, corners, -np.inf).max(axis=2)[:, 0] - np.where(seen, corners, np.inf).min(axis=2)[:, 0]
    away = np.linalg.norm(corners - corners[:, :1], axis=-1)
    away = np.where(np.isfinite(away), away, -np.inf).max(axis=2)
    near = away < ELSEWHERE * np.linalg.norm(size, axis=-1)[:, None]
    return bool((np.isfinite(away).any(axis=0) & near.all(axis=0)).all() and away.max() > MOVING_PX)


def check_coverage(detections: BoardDetections) -> tuple[Finding, ...]:
    """Cameras whose corners reach only a small or one-sided part of the image."""
    findings = []
    for name, xy, size in zip(detections.view_names, detections.corners, detections.sizes, strict=True):
        cells = coverage_cells(xy, (int(size[0]), int(size[1]))) > 0
        rows, columns = cells.shape
        halves = {
            "left": cells[:, : columns // 2], "right": cells[:, columns // 2 :],
            "upper": cells[: rows // 2], "lower": cells[rows // 2 :],
        }  # fmt: skip
        empty = [side for side, half in halves.items() if half.mean() < LEAST_HALF]
        if not cells.any() or (cells.mean() >= LEAST_COVERAGE and not empty):
            continue
        where = f", nothing in its {' and '.join(empty)} half" if empty else ""
        findings.append(
            Finding(
                "clipped_coverage", (name,),
                f"corners reach only {cells.mean():.0%} of its image{where}; distortion elsewhere is a guess",
                "film the board in all parts of this camera's image, near its edges too",
                float(cells.mean()), LEAST_COVERAGE, "share",
            )
        )  # fmt: skip
    return tuple(findings)


def coverage_cells(xy: Array, size: tuple[int, int]) -> NDArray[np.int64]:
    """(rows, columns) of cells: corners (..., 2) px in each, of an image of size (width, height)."""
    seen = xy[np.isfinite(xy).all(axis=-1)]
    columns, rows = COVERAGE_CELLS
    cell = ((seen + 0.5) / np.asarray(size, dtype=np.float64) * COVERAGE_CELLS).astype(int)
    cell = np.clip(cell, 0, (columns - 1, rows - 1))
    counts: NDArray[np.int64] = np.bincount(cell[:, 1] * columns + cell[:, 0], minlength=columns * rows)
    return counts.reshape(rows, columns)


def coverage(xy: Array, size: tuple[int, int]) -> float:
    """Share of the cells of an image of size (width, height) in which a corner (..., 2) px was seen."""
    return float((coverage_cells(xy, size) > 0).mean())
