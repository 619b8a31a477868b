"""What does a stage need to know of a recording? Where its files are, whose cameras, which rig and options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from calibration.files.atomic import atomic_path
from calibration.files.calibration_toml import covariance_path
from calibration.rig import CameraRig
from pose3d.files import count_frames, load_poses, read_groups
from pose3d.poses import Groups, Poses
from pose3d.records import Progress, fingerprint_product
from pose3d.timeline import Timeline

__all__ = ["CALIBRATION", "Recording", "read_timeline", "write_timeline"]

CALIBRATION = "calibration.toml"
"""The session's, in the folder of its results."""


@dataclass(frozen=True, eq=False)
class Recording:
    """One recording on its way through the stages.

    folder: of its results, with poses2d/<camera>.nc in it. cameras: whose. rig: where they stand; calibration: its
    file. options: options dataclasses by table, missing ones are the defaults. window: frames. force: run in any case.
    """

    folder: Path
    cameras: tuple[str, ...]
    rig: CameraRig
    calibration: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    window: int = 1000
    force: bool = False
    progress: Progress | None = None

    def inputs(self, *products: str) -> dict[str, Any]:
        """Fingerprints of the rig, the 2D poses and these products of earlier stages."""
        paths = {f"poses2d/{name}.nc": self.folder / f"poses2d/{name}.nc" for name in self.cameras}
        paths |= {name: self.folder / name for name in products}
        paths |= {"calibration": self.calibration}
        if covariance_path(self.calibration).is_file():
            paths["covariance"] = covariance_path(self.calibration)
        return {name: fingerprint_product(path) for name, path in paths.items()}

    def views(self, start: int, stop: int) -> dict[str, Poses]:
        """{camera: Poses 2D} of rows start..stop-1."""
        return {n: load_poses(self.folder / f"poses2d/{n}.nc", frames=slice(start, stop)) for n in self.cameras}

    def n_frames(self) -> int:
        """Rows of the recording."""
        return count_frames(self.folder / f"poses2d/{self.cameras[0]}.nc")

    def spans(self) -> list[tuple[int, int]]:
        """Rows (start, stop) of every window."""
        n = self.n_frames()
        return [(start, min(start + self.window, n)) for start in range(0, n, self.window)]

    def groups(self, start: int, stop: int) -> Groups:
        """Who is who in rows start..stop-1, after `identify_views`."""
        return read_groups(self.folder / "groups.nc", slice(start, stop))


def write_timeline(path: Path, timeline: Timeline) -> None:
    """Keep which frame of which camera belongs to which row. Atomic; same timeline, same bytes."""
    arrays: dict[str, Any] = {name: getattr(timeline, name) for name in ("frame", "time", "shift", "step")}
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez(file, view_names=np.array(timeline.view_names), **arrays)


def read_timeline(path: Path) -> Timeline:
    """What `write_timeline` kept."""
    with np.load(path, allow_pickle=False) as stored:
        names = tuple(str(name) for name in stored["view_names"])
        return Timeline(names, *(stored[name] for name in ("frame", "time", "shift", "step")))
