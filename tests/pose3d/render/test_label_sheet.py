"""The sheet shows suspects first, at their place, and as many animals as asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from pose3d.label_check import Suspect
from pose3d.labels import Labels, Picture
from pose3d.render.label_sheet import BAD, CELL, GOOD, label_sheet
from pose3d.skeleton import Skeleton

SKELETON = Skeleton(("a", "b"), edges=((0, 1),))


def labels_in(folder: Path, n: int) -> Labels:
    """Gray pictures, each with two keypoints 40 px apart, the second animal at the image's corner."""
    for row in range(n):
        cv2.imwrite(str(folder / f"{row}.png"), np.full((120, 200, 3), 40 + row, np.uint8))
    points = np.full((n, 2, 2, 2), np.nan)
    points[:, 0] = [[60, 50], [100, 50]]
    points[0, 1] = [[0, 0], [3, 0]]
    pictures = tuple(Picture(folder / f"{row}.png") for row in range(n))
    return Labels(points, np.arange(n), ("",) * n, ("walk",) * n, pictures, SKELETON)


def drawn(sheet: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """(cells) how many pixels of a colour each cell has, row by row."""
    same = (sheet == colour).all(axis=-1)
    rows, columns = sheet.shape[0] // (CELL + 81), sheet.shape[1] // CELL
    return same.reshape(rows, CELL + 81, columns, CELL).sum(axis=(1, 3)).ravel()


def test_suspects_come_first(tmp_path: Path) -> None:
    labels = labels_in(tmp_path, 6)
    sheet = label_sheet(labels, [Suspect("outlier", ("b",), "is far", "frame 4", 4, 0), Suspect("x", (), "", "all")])
    assert (drawn(sheet, BAD) > 0).tolist() == [True] + [False] * 7
    assert (drawn(sheet, GOOD) > 0).tolist() == [True] * 7 + [False]  # six frames, seven animals
    assert abs(int(np.median(sheet[200:400, :CELL])) - 44) <= 1, "the picture of frame 4"


def test_as_many_as_asked_for_and_none_where_none_are(tmp_path: Path) -> None:
    labels = labels_in(tmp_path, 6)
    assert (drawn(label_sheet(labels, [], most=3), GOOD) > 0).sum() == 3
    nothing = replace(labels, points=np.full_like(labels.points, np.nan))
    assert drawn(label_sheet(nothing, []), GOOD).tolist() == [0]


def test_who_is_missing_is_sought_in_all_of_the_picture(tmp_path: Path) -> None:
    labels = labels_in(tmp_path, 2)
    picture = np.zeros((120, 200, 3), np.uint8)
    picture[:, :10], picture[:, -10:] = (0, 0, 200), (0, 200, 0)  # BGR: red on the left, green on the right
    cv2.imwrite(str(tmp_path / "1.png"), picture)
    sheet = label_sheet(labels, [Suspect("suggested", (), "an animal is missing", "frame 1", 1, 1)], most=1)
    assert not drawn(sheet, GOOD).any()
    row = sheet[sheet.shape[0] - CELL // 2, 4:-4]
    assert row[4, 0] > 150
    assert row[-5, 1] > 150
