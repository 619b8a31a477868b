"""What can be typed about how good poses are? Imports are inside, as in `cli`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pose3d.flags import Json

__all__ = ["evaluate"]

TABLE = "evaluation.csv"
COLUMNS = {
    "n": "n", "delivered": "found", "median": "median", "rms": "rms", "p95": "p95", "pck_0.05": "PCK .05",
    "pck_0.1": ".1", "pck_0.2": ".2", "inside_95": "in 95 %", "oks_map": "OKS mAP", "label_sd": "label SD",
}  # fmt: skip
"""What is shown of a keypoint or a camera where it is known, under which heading; the CSV has more."""


def evaluate(
    truth: Path,
    estimate: Path | None = None,
    *,
    calibration: Path | None = None,
    csv: Path | None = None,
    data: Path | None = None,
    output: Path | None = None,
    unit: str | None = None,
    json: Json = False,
) -> None:
    """How good is a session's network, on labels it has not learnt from, or are poses against the truth?

    By keypoint and camera: distances, PCK, OKS, beside the labels' own noise; what covariances and scores are worth.

    Parameters
    ----------
    truth
        a session whose network was trained (a TOML file, or a folder with a pose3d.toml); or, with an estimate, poses,
        2D or 3D, in any format; or a folder with labels or 2D poses, a file for each camera
    estimate
        poses of the same keypoints; or a folder with a file for each camera; or the results of a recording
    calibration
        of the rig that shows how noisy the labels are (default: that of the session's results)
    csv
        file for the table of all keypoints and cameras (default: evaluation.csv in a session's results)
    data
        folder that a session's patterns are relative to; only read from (default: the file's folder)
    output
        folder of a session's results (default: `results` beside the file)
    unit
        of the lengths, where a file of poses does not say
    """
    from pose3d.console import progress_bars, say, tell_json
    from pose3d.stages.scores import write_table

    with progress_bars(quiet=json) as progress:
        told, table = _figures(truth, estimate, calibration, data, output, unit, progress)
    table = csv or table
    if table is not None:
        write_table(table, told)
    if json:
        tell_json(told | ({"output": table} if table is not None else {}))
        return
    _show(told, f"{truth}" if estimate is None else f"{estimate} against {truth}")
    if table is not None:
        say(f"{table} written")


def _figures(
    truth: Path, estimate: Path | None, calibration: Path | None, data: Path | None, output: Path | None,
    unit: str | None, progress: Any,
) -> tuple[dict[str, Any], Path | None]:  # fmt: skip
    """The figures, and where a session's table goes. Raises InputError for words that do not belong together."""
    from calibration.errors import InputError
    from pose3d.config import load_session
    from pose3d.session import find_in
    from pose3d.stages.scores import score_files, score_folders, score_session

    if estimate is None:
        if truth.is_file() and truth.suffix != ".toml":
            raise InputError(f"{truth}: expected a session's .toml, or an ESTIMATE to compare it with; name one")
        session = load_session(truth, data, output)
        return score_session(session, calibration=calibration, progress=progress), session.output / TABLE
    if data is not None or output is not None:
        raise InputError("--data and --output are for a session; leave them out where an estimate is given")
    if truth.is_dir() and estimate.is_dir() and find_in(truth, "poses2d"):
        return score_folders(truth, estimate, calibration=calibration), None
    if calibration is not None:
        raise InputError("--calibration is for several cameras: a session, or two folders; leave it out for files")
    return score_files(truth, estimate, unit=unit), None


def _show(told: dict[str, Any], title: str) -> None:
    from pose3d.console import show_numbers, show_table
    from pose3d.keypoint_scores import ALL
    from pose3d.stages.scores import KEYPOINTS

    rows = told[KEYPOINTS]
    for place, (what, numbers) in enumerate(told.items()):
        if what != KEYPOINTS:  # by keypoint it stands in the table
            shown = {name: value for name, value in numbers.items() if not name.startswith("keypoint_")}
            show_numbers(what if place else f"{title}: {what}", shown)
    cameras = [row for row in rows if row["keypoint"] == ALL]
    several = len(cameras) > 1
    together = [row for row in rows if not several or row["camera"] == ALL]
    whole = {"oks_map"} if several else set()  # of whole animals, and said by camera
    columns = {name: head for name, head in COLUMNS.items() if name not in whole}
    show_table("by keypoint", together, {"keypoint": "keypoint"} | columns)
    if several:
        show_table("by camera", cameras, {"camera": "camera"} | COLUMNS)
