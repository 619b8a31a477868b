"""Which 3D poses does a TRC file hold (OpenSim, Pose2Sim)?

TRC is Y-up; the world here is Z-up, as in Pose2Sim before it writes: world (x, y, z) = file (Z, X, Y) (Pose2Sim 0.10
`common.py`, `zup2yup`: "X->Y, Y->Z, Z->X"). One individual a file. A frame's number in the video is Frame# counted from
OrigDataStartFrame.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from calibration.errors import InputError
from calibration.files.atomic import atomic_path
from pose3d.poses import Poses
from pose3d.skeleton import Skeleton

__all__ = ["read_trc", "write_trc"]

_WORLD_FROM_FILE = [2, 0, 1]
_FILE_FROM_WORLD = [1, 2, 0]
_HEADER = (
    "DataRate",
    "CameraRate",
    "NumFrames",
    "NumMarkers",
    "Units",
    "OrigDataRate",
    "OrigDataStartFrame",
    "OrigNumFrames",
)


def read_trc(path: Path, unit: str | None = None) -> Poses:
    """The markers of a TRC as one individual, in world axes, in the file's unit; score 1 where there is a point.

    unit: where the header has none; one unlike the header's is an error, nothing is rescaled. Time is the file's.
    Raises InputError naming the file when it is no TRC or damaged.
    """
    import pandas as pd

    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[:5]
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if len(lines) < 5 or not lines[0].startswith("PathFileType"):
        raise InputError(
            f"{path}: expected a TRC, whose first line begins with PathFileType; it is damaged or of another format"
        )
    header = dict(zip(lines[1].split("\t"), lines[2].split("\t"), strict=False))
    stored = header.get("Units", "").strip() or None
    if stored and unit and stored != unit:
        raise InputError(f'{path}: the file is in {stored}, got unit="{unit}"; leave it out')
    if not (stored or unit):
        raise InputError(f'{path}: the header names no unit of length; give --unit mm, or unit="mm" in Python')
    markers = tuple(cell for cell in lines[3].rstrip("\t").split("\t")[2:] if cell)
    try:
        columns = range(3 * len(markers) + 2)
        table = pd.read_csv(
            path, sep="\t", skiprows=5, header=None, names=columns, usecols=columns, index_col=False, dtype=np.float64
        ).to_numpy()
        fps, start = float(header["DataRate"]), int(float(header.get("OrigDataStartFrame", 0)))
    except (ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot be read as TRC: {error}") from None
    frame = table[:, 0].astype(np.int64)
    points = table[:, 2:].reshape(len(table), 1, len(markers), 3)[..., _WORLD_FROM_FILE]
    return Poses(
        points=points,
        frame=frame - frame[:1] + start,
        time=table[:, 1],
        skeleton=Skeleton(markers),
        unit=str(stored or unit),
        fps=fps,
    )


def write_trc(path: Path, poses: Poses) -> tuple[Path, ...]:
    """Write 3D poses as TRC; several individuals as one file each, named after them: poses.trc -> poses_NAME.trc.
    Atomic. Returns the files.

    By identity where known. Raises InputError for 2D poses, or where the frame rate is unknown.
    """
    if poses.shape[3] != 3:
        raise InputError(f"{path}: TRC holds 3D poses, got 2D; reconstruct first")
    if not np.isfinite(poses.fps):
        raise InputError(f"{path}: TRC needs the frame rate, which these poses do not know; load them with fps=")
    known = bool(np.any(poses.ids >= 0))
    ids = (
        sorted({int(i) for i in np.unique(poses.ids) if i >= 0} | set(poses.names))
        if known
        else list(range(poses.shape[1]))
    )
    poses = poses.by_id() if known else poses
    files = []
    for slot, identity in enumerate(ids):
        name = (poses.names if known else {}).get(identity, f"individual_{identity}").replace("/", "_")
        files.append(path if len(ids) == 1 else path.with_name(f"{path.stem}_{name}{path.suffix}"))
        _write_individual(files[-1], poses, slot)
    return tuple(files)


def _write_individual(path: Path, poses: Poses, slot: int) -> None:
    keypoints = poses.skeleton.keypoints
    n, rate, start = len(poses.frame), f"{poses.fps:.10g}", int(poses.frame[0]) if len(poses.frame) else 0
    axes = [f"{axis}{k + 1}" for k in range(len(keypoints)) for axis in "XYZ"]
    time = np.where(np.isfinite(poses.time), poses.time, poses.frame / poses.fps)
    points = poses.points[:, slot][..., _FILE_FROM_WORLD].reshape(n, -1)
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f"PathFileType\t4\t(X/Y/Z)\t{path.name}\n")
        file.write("\t".join(_HEADER) + "\n")
        file.write("\t".join([rate, rate, str(n), str(len(keypoints)), poses.unit, rate, str(start), str(n)]) + "\n")
        file.write("Frame#\tTime\t" + "\t\t\t".join(keypoints) + "\t\t\n")
        file.write("\t\t" + "\t".join(axes) + "\n")
        for frame, seconds, row in zip(poses.frame, time, points, strict=True):
            cells = ["" if np.isnan(v) else repr(float(v)) for v in row]
            file.write("\t".join([str(int(frame)), repr(float(seconds)), *cells]) + "\n")
