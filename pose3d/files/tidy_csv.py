"""How do poses stand in a plain table? One line for each frame, individual and keypoint.

Columns: frame, time (s), individual, keypoint, x, y[, z], score, then the extras that there are (reprojection_error px,
    n_views,
status, occluded), sd_x, sd_y[, sd_z] (square roots of the covariance's diagonal; sd_total_x ... with the rig's part),
id. Missing values are empty cells. A slot without identity is the individual slot_0, slot_1, ... with id -1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError, nearest_name
from calibration.files.atomic import atomic_path
from pose3d.files.native import WINDOW_FRAMES, identities, read_windows
from pose3d.poses import ABSENT, BRIDGED, EXTRA_AXES, MEASURED, Poses
from pose3d.skeleton import Skeleton

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["is_tidy_csv", "read_tidy", "stream_tidy", "write_tidy"]

_LEADING = ("frame", "time", "individual", "keypoint")
_EXTRAS = ("reprojection_error", "n_views", "status", "occluded")
_STATUS = {ABSENT: "absent", MEASURED: "measured", BRIDGED: "bridged"}


def is_tidy_csv(path: Path) -> bool:
    """Whether the first line of a CSV is this table's."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline().startswith(",".join(_LEADING))


def write_tidy(path: Path, poses: Poses) -> None:
    """Write poses as a tidy CSV, by identity where known, with a line for every keypoint in every frame. Atomic."""
    ids = sorted({int(i) for i in np.unique(poses.ids) if i >= 0} | set(poses.names))
    windows = (poses.window(start, start + WINDOW_FRAMES) for start in range(0, len(poses.frame), WINDOW_FRAMES))
    _write(path, windows, ids)


def stream_tidy(source: Path, path: Path) -> None:
    """`write_tidy` of a native file, by windows: memory stays bounded however long the recording is."""
    _write(path, read_windows(source), identities(source))


def read_tidy(path: Path, unit: str | None = None) -> Poses:
    """The poses of a tidy CSV; the covariance is not rebuilt from its standard deviations. fps follows from the times.

    unit: of a 3D table's lengths, which the table does not say. Individuals are slots in the order of their first line.
    Raises InputError naming file and column.
    """
    import pandas as pd

    try:
        numeric = [column for column in pd.read_csv(path, nrows=0).columns if column not in ("individual", "keypoint")]
        missing = dict.fromkeys(numeric, ("", "nan", "NaN", "NA"))  # which may be the names of individuals
        table = pd.read_csv(path, keep_default_na=False, na_values=missing, dtype={"individual": str, "keypoint": str})
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a table: {error}") from None
    for column in (*_LEADING, "x", "y"):
        if column not in table.columns:
            raise InputError(f"{path}: expected a column '{column}'; {nearest_name(column, map(str, table.columns))}")
    axes = [axis for axis in "xyz" if axis in table.columns]
    if len(axes) == 3 and unit is None:
        raise InputError(f'{path}: a 3D table does not say its unit of length; give --unit mm, or unit="mm" in Python')
    frame, f = np.unique(table["frame"].to_numpy(dtype=np.int64), return_inverse=True)
    i, individuals = pd.factorize(table["individual"])
    k, keypoints = pd.factorize(table["keypoint"])
    shape = (len(frame), len(individuals), len(keypoints))
    if len(np.unique(np.ravel_multi_index((f, i, k), shape))) < len(table):
        raise InputError(f"{path}: expected one line for each frame, individual and keypoint, got one twice")

    def grid(values: Any, fill: Any, dtype: Any, depth: tuple[int, ...] = ()) -> NDArray[Any]:
        array = np.full(shape + depth, fill, dtype=dtype)
        array[f, i, k] = np.asarray(values)
        return array

    try:
        points = grid(table[axes].to_numpy(dtype=np.float64), np.nan, np.float64, (len(axes),))
        score = grid(table["score"] if "score" in table.columns else 1.0, 0.0, np.float64)
        time = np.full(len(frame), np.nan)
        time[f] = table["time"].to_numpy(dtype=np.float64)
        extras = _extras_from(table, grid)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: expected numbers: {error}") from None
    ids, names = _identities_from(table, [str(name) for name in individuals])
    return Poses(
        points=points,
        score=score,
        ids=np.broadcast_to(ids, shape[:2]),
        frame=frame,
        time=time,
        skeleton=Skeleton(tuple(str(name) for name in keypoints)),
        names=names,
        unit="px" if len(axes) == 2 else str(unit),
        fps=_rate(frame, time),
        extras=extras,
    )


def _write(path: Path, windows: Iterable[Poses], ids: Sequence[int]) -> None:
    import pandas as pd

    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        for number, poses in enumerate(windows):
            labels = [poses.names.get(i, f"individual_{i}") for i in ids]
            tables = [_table(poses.by_id(ids), labels, ids)] if ids else []
            unknown = (poses.ids < 0) & (~poses.missing.all(axis=2) if ids else True)
            if unknown.any() or not tables:
                slots = np.where(unknown, np.arange(poses.shape[1]), -1)
                labels = [f"slot_{i}" for i in range(poses.shape[1])]
                table = _table(poses.take_slots(slots), labels, [-1] * poses.shape[1])
                tables.append(table[np.repeat(unknown.ravel(), poses.shape[2])])
            table = pd.concat(tables).sort_values("frame", kind="stable") if len(tables) > 1 else tables[0]
            table.to_csv(file, index=False, header=number == 0, lineterminator="\n")


def _table(poses: Poses, labels: Sequence[str], ids: Sequence[int]) -> pd.DataFrame:
    """The lines of all frames, individuals (a label and an id for each slot) and keypoints of a window."""
    import pandas as pd

    n_frames, n_individuals, n_keypoints, n_axes = poses.shape
    axes = "xyz"[:n_axes]
    columns: dict[str, Any] = {
        "frame": np.repeat(poses.frame, n_individuals * n_keypoints),
        "time": np.repeat(poses.time, n_individuals * n_keypoints),
        "individual": np.tile(np.repeat(np.array(labels, dtype=object), n_keypoints), n_frames),
        "keypoint": np.tile(np.array(poses.skeleton.keypoints, dtype=object), n_frames * n_individuals),
    }
    columns |= {axis: poses.points[..., d].ravel() for d, axis in enumerate(axes)}
    columns["score"] = poses.score.ravel()
    for name in _EXTRAS:
        if name in poses.extras:
            values = poses.extras[name].ravel()
            columns[name] = pd.Series(values).map(_STATUS).to_numpy() if name == "status" else values
    for name, prefix in (("covariance", "sd_"), ("covariance_total", "sd_total_")):
        if name in poses.extras:
            variance = np.diagonal(poses.extras[name], axis1=-2, axis2=-1).reshape(-1, n_axes)
            columns |= {prefix + axis: np.sqrt(variance[:, d]) for d, axis in enumerate(axes)}
    columns["id"] = np.tile(np.repeat(np.array(ids, dtype=np.int32), n_keypoints), n_frames)
    return pd.DataFrame(columns)


def _extras_from(table: pd.DataFrame, grid: Any) -> dict[str, NDArray[Any]]:
    extras = {}
    for name in _EXTRAS:
        if name in table.columns:
            values = (
                table[name].map({word: value for value, word in _STATUS.items()}) if name == "status" else table[name]
            )
            dtype = EXTRA_AXES[name][1]
            extras[name] = grid(values, np.nan if dtype is np.float64 else 0, dtype)
    return extras


def _identities_from(table: pd.DataFrame, individuals: list[str]) -> tuple[NDArray[np.int32], dict[int, str]]:
    """(individuals,) ids and the names that are more than a number; without a column id they are numbered anew."""
    stored = table.groupby("individual", sort=False)["id"].max() if "id" in table.columns else None
    ids, names = [], {}
    for place, name in enumerate(individuals):
        plain = re.fullmatch(r"(individual|slot)_(\d+)", name)
        if stored is not None and stored[name] >= 0:
            identity = int(stored[name])
        elif plain and plain[1] == "slot":
            identity = -1
        else:
            identity = int(plain[2]) if plain else place
        if identity >= 0 and not plain:
            names[identity] = name
        ids.append(identity)
    return np.array(ids, dtype=np.int32), names


def _rate(frame: NDArray[np.int64], time: NDArray[np.float64]) -> float:
    """Frames/s from the first and last known time; NaN where that says nothing."""
    known = np.flatnonzero(np.isfinite(time))
    if len(known) < 2 or not time[known[-1]] > time[known[0]]:
        return float("nan")
    return float((frame[known[-1]] - frame[known[0]]) / (time[known[-1]] - time[known[0]]))
