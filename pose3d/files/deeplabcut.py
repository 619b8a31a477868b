"""Which poses does a DeepLabCut table hold? CSV or H5, one animal or several, predictions or labels (CollectedData).

Header rows scorer, [individuals,] bodyparts, coords (x, y, likelihood; labels have no likelihood, 3D tables x, y, z).
Rows are frame numbers, or the labelled images' paths, whose last integer is the frame. (0, 0) is the centre of the
first pixel (DeepLabCut issue 2906: "image coordinates are expressed in a discrete space"), so nothing is moved.
Lightning Pose writes the same tables; where its labels have a third column, `visible`, coordinates count only at 2
(its `label_csv_file_format`: 0 is not labelled, and at 1, hidden, "the coordinates are ignored").
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from calibration.files.atomic import atomic_path
from pose3d.files.hdf5 import open_hdf5
from pose3d.files.numbering import last_integer
from pose3d.poses import Poses
from pose3d.skeleton import Skeleton

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["is_deeplabcut_csv", "poses_of_table", "read_deeplabcut", "read_table", "row_names", "write_deeplabcut"]

_LEVELS = ("scorer", "individuals", "bodyparts", "coords")
_VISIBLE = 2
"""What Lightning Pose writes of a keypoint whose coordinates count."""
_UNIQUE = "single"
"""DeepLabCut's individual that holds the body parts which belong to no animal."""


def is_deeplabcut_csv(path: Path) -> bool:
    """Whether the first cell of a CSV is DeepLabCut's."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline().startswith("scorer,")


def read_deeplabcut(path: Path, video: str | None = None, unit: str | None = None) -> Poses:
    """The poses of a DeepLabCut table: frames ascending, one slot for each individual; ids by individual where there
    are several.

    video: the folder of labelled images to take, where the table holds several. unit: of a 3D table's lengths. score is
        the
    likelihood, 1 for labels. Time is unknown. Raises InputError naming the file when it is no such table or holds
    several videos.
    """
    return poses_of_table(path, read_table(path), video, unit)


def read_table(path: Path) -> pd.DataFrame:
    """The table as it stands. Raises InputError naming the file when it is none of DeepLabCut's."""
    return _read_h5(path) if path.suffix.lower() in (".h5", ".hdf5") else _read_csv(path)


def row_names(table: pd.DataFrame) -> list[str]:
    """The rows' names: frame numbers, or the images' paths, with /; DeepLabCut splits these into several index columns
    since 2.2.
    """
    parts = [name if isinstance(name, tuple) else (name,) for name in table.index]
    return ["/".join(str(part) for part in name).replace("\\", "/") for name in parts]


def poses_of_table(path: Path, table: pd.DataFrame, video: str | None = None, unit: str | None = None) -> Poses:
    """The poses of a table that was read, as `read_deeplabcut` gives them."""
    if len(set(table.columns.get_level_values("scorer"))) > 1:
        raise InputError(f"{path}: expected one scorer, got several; keep one of them in the table")
    frame, rows = _frames(path, row_names(table), video)
    columns: dict[tuple[str, str, str], int] = {}
    for place, column in enumerate(table.columns):
        cells = dict(zip(table.columns.names, column, strict=True))
        columns[str(cells.get("individuals", "")), str(cells["bodyparts"]), str(cells["coords"])] = place
    individuals = list(dict.fromkeys(individual for individual, _, _ in columns))
    keypoints = list(dict.fromkeys(keypoint for _, keypoint, _ in columns))
    axes = [axis for axis in "xyz" if any(coordinate == axis for _, _, coordinate in columns)]
    if len(axes) == 3 and unit is None:
        raise InputError(f'{path}: a 3D table does not say its unit of length; give --unit mm, or unit="mm" in Python')
    values = table.to_numpy(dtype=np.float64)[rows]
    points = np.full((len(frame), len(individuals), len(keypoints), len(axes)), np.nan)
    score, hidden = np.ones(points.shape[:3]), np.zeros(points.shape[:3], dtype=bool)
    for (individual, keypoint, coordinate), place in columns.items():
        i, k = individuals.index(individual), keypoints.index(keypoint)
        if coordinate in axes:
            points[:, i, k, axes.index(coordinate)] = values[:, place]
        elif coordinate == "likelihood":
            score[:, i, k] = values[:, place]
        elif coordinate == "visible":
            hidden[:, i, k] = values[:, place] < _VISIBLE
    points[hidden] = np.nan
    several = individuals != [""]
    return Poses(
        points=points,
        score=score,
        ids=np.broadcast_to(np.arange(len(individuals)) if several else -1, points.shape[:2]),
        frame=frame,
        skeleton=Skeleton(tuple(keypoints)),
        names=dict(enumerate(individuals)) if several else {},
        unit="px" if len(axes) == 2 else str(unit),
    )


def write_deeplabcut(path: Path, poses: Poses) -> None:
    """Write poses as a DeepLabCut CSV: by identity where known, one animal without the individuals' row. Atomic.

    2D with likelihood; 3D with x, y, z only, as DeepLabCut has no likelihood there. Raises InputError for another
    suffix than .csv (DeepLabCut's `convertcsv2h5` makes the H5).
    """
    if path.suffix.lower() != ".csv":
        raise InputError(
            f"{path}: DeepLabCut tables are written as .csv only; convertcsv2h5 of DeepLabCut makes an .h5 of it"
        )
    known = bool(np.any(poses.ids >= 0))
    ids = sorted({int(i) for i in np.unique(poses.ids) if i >= 0} | set(poses.names)) if known else []
    poses = poses.by_id() if known else poses
    labels = [poses.names.get(i, f"individual_{i}") for i in ids] or [f"individual_{i}" for i in range(poses.shape[1])]
    coords = [*"xyz"[: poses.shape[3]]] + (["likelihood"] if poses.shape[3] == 2 else [])
    header = [(label, keypoint, c) for label in labels for keypoint in poses.skeleton.keypoints for c in coords]
    rows: list[list[str]] = [["scorer", *("pose3d" for _ in header)]]
    if poses.shape[1] > 1:
        rows.append(["individuals", *(label for label, _, _ in header)])
    rows.append(["bodyparts", *(keypoint for _, keypoint, _ in header)])
    rows.append(["coords", *(c for _, _, c in header)])
    values = np.concatenate((poses.points, poses.score[..., None]), axis=3)[..., : len(coords)]
    with atomic_path(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows(rows)
        for frame, row in zip(poses.frame, values.reshape(len(poses.frame), len(header)), strict=True):
            writer.writerow([int(frame), *("" if np.isnan(v) else repr(float(v)) for v in row)])


def _read_csv(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        with path.open(newline="", encoding="utf-8") as file:
            head = [row for row, _ in zip(csv.reader(file), range(len(_LEVELS)), strict=False)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected a DeepLabCut table, got: {error}; it is of another format") from None
    levels = [row[0] for row in head if row and row[0] in _LEVELS]
    if levels[-1:] != ["coords"]:
        raise InputError(
            f"{path}: expected header rows {', '.join(_LEVELS)}, got {', '.join(levels) or 'none'}; not DeepLabCut's"
        )
    coords = head[len(levels) - 1]
    n_index = next((i for i, cell in enumerate(coords) if i and cell), 1)
    try:
        table = pd.read_csv(path, skiprows=len(levels), header=None, index_col=list(range(n_index)))
        table.columns = pd.MultiIndex.from_arrays([row[n_index:] for row in head[: len(levels)]], names=levels)
        return table.astype(np.float64)
    except ValueError as error:
        raise InputError(f"{path}: cannot be read as a DeepLabCut table: {error}") from None


def _read_h5(path: Path) -> pd.DataFrame:
    import pandas as pd

    with open_hdf5(path):  # names a damaged file in plain words
        pass
    try:
        table = pd.read_hdf(path)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot be read as a DeepLabCut table: {error}") from None
    if not isinstance(table, pd.DataFrame) or not {"scorer", "bodyparts", "coords"} <= set(table.columns.names):
        raise InputError(f"{path}: expected a table with columns {', '.join(_LEVELS)}; not DeepLabCut's")
    return table


def _frames(path: Path, names: list[str], video: str | None) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Frame numbers, ascending, and the table's rows in that order."""
    folders = [name.rpartition("/")[0] for name in names]
    wanted = [video is None or folder.rpartition("/")[2] == video for folder in folders]
    listed = ", ".join(sorted({folder.rpartition("/")[2] for folder in folders}))
    if not any(wanted):
        raise InputError(f"{path}: holds no images of '{video}'; it holds {listed or 'no folders'}")
    rows = np.flatnonzero(wanted)
    frame = np.array([last_integer(names[row].rpartition("/")[2], path) for row in rows], dtype=np.int64)
    order = np.argsort(frame, kind="stable")
    doubled = frame[order][1:][np.diff(frame[order]) == 0]
    if len(doubled):
        raise InputError(f"{path}: frame {doubled[0]} occurs more than once; say which video with video= ({listed})")
    return frame[order], rows[order]
