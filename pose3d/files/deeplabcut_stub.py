"""How are suggested frames handed to DeepLabCut's napari plugin? As machine labels in a project's layout.

DeepLabCut puts what a network found on frames that were extracted into labeled-data/<video>/machinelabels-iter0.h5
(`extract_outlier_frames`, key df_with_missing), with likelihoods; its napari plugin shows unlikely points marked, and
saves what was corrected as CollectedData_<scorer>.h5. So a prediction that nobody looked at is never taken for a label.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calibration.files.atomic import atomic_path, write_bytes
from pose3d.labels import Labels
from pose3d.skeleton import Skeleton

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MACHINE_LABELS", "write_deeplabcut_stub"]

MACHINE_LABELS = "machinelabels-iter0.h5"
SCORER = "pose3d"
_DIGITS = 6


def write_deeplabcut_stub(
    project: Path, labels: Labels, score: NDArray[np.float64], folders: Sequence[str]
) -> list[Path]:
    """Write the predictions on images, and a config.yaml that the plugin needs; where the image of each row is to be
    saved: labeled-data/<folder>/img<frame>.png.

    labels: frame numbers, points, skeleton. score (n, individuals, keypoints): likelihoods. folders (n): of each row.
    One individual at most anywhere makes a project of one animal.
    """
    several = labels.points.shape[1] > 1
    names = [f"img{frame:0{_DIGITS}d}.png" for frame in labels.frame]
    for folder in dict.fromkeys(folders):
        own = np.array([name == folder for name in folders])
        rows = np.flatnonzero(own)[np.argsort(labels.frame[own], kind="stable")]
        table = _table(labels.take(rows), score[rows], folder, [names[row] for row in rows], several)
        place = project / "labeled-data" / folder
        with atomic_path(place / MACHINE_LABELS) as partial:
            table.to_hdf(partial, key="df_with_missing", mode="w")
        write_bytes(place / "machinelabels.csv", table.to_csv(lineterminator="\n").encode())
    config = _config(labels.skeleton, labels.points.shape[1] if several else 0, dict.fromkeys(folders))
    write_bytes(project / "config.yaml", config.encode())
    return [project / "labeled-data" / folder / name for folder, name in zip(folders, names, strict=True)]


def _table(
    labels: Labels, score: NDArray[np.float64], folder: str, names: Sequence[str], several: bool
) -> pd.DataFrame:
    """Rows labeled-data, folder, image; columns scorer, [individuals,] bodyparts, coords."""
    import pandas as pd

    header = [
        (SCORER, *((_individual(i),) if several else ()), keypoint, coord)
        for i in range(labels.points.shape[1])
        for keypoint in labels.skeleton.keypoints
        for coord in ("x", "y", "likelihood")
    ]
    levels = ["scorer", *(["individuals"] if several else []), "bodyparts", "coords"]
    likelihood = np.where(np.isfinite(labels.points[..., :1]), score[..., None], np.nan)
    values = np.concatenate((labels.points, likelihood), axis=-1).reshape(len(names), -1)
    index = _plain([("labeled-data", folder, name) for name in names], [None, None, None])
    return pd.DataFrame(values, index=index, columns=_plain(header, levels))


def _plain(rows: list[Any], names: list[Any]) -> pd.MultiIndex:
    """An index of plain objects, which older pandas read too: its strings are of a new type since 3."""
    import pandas as pd

    return pd.MultiIndex.from_arrays([np.array(level, dtype=object) for level in zip(*rows, strict=True)], names=names)


def _config(skeleton: Skeleton, individuals: int, folders: Sequence[str] | dict[str, None]) -> str:
    """What the plugin and DeepLabCut ask of a project; individuals 0 = a project of one animal."""
    import yaml

    keypoints = list(skeleton.keypoints)
    bodyparts: dict[str, Any] = {"multianimalproject": individuals > 0}
    if individuals:
        bodyparts |= {
            "individuals": [_individual(i) for i in range(individuals)], "uniquebodyparts": [],
            "multianimalbodyparts": keypoints, "bodyparts": "MULTI!",
        }  # fmt: skip
    else:
        bodyparts["bodyparts"] = keypoints
    project = {"Task": "suggestions", "scorer": SCORER, "date": "", "project_path": ".", "iteration": 0}
    drawn = {
        "skeleton": [[keypoints[a], keypoints[b]] for a, b in skeleton.edges], "skeleton_color": "black",
        "pcutoff": 0.6, "dotsize": 8, "alphavalue": 0.7, "colormap": "rainbow",
    }  # fmt: skip
    videos = {"video_sets": {f"{folder}.mp4": {"crop": "0, 1, 0, 1"} for folder in folders}}
    return str(yaml.safe_dump(project | bodyparts | videos | drawn, sort_keys=False))


def _individual(number: int) -> str:
    return f"individual{number + 1}"
