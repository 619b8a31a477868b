"""The look at a session's labels: a table and a sheet that name the exchanged frame, once."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from pose3d.session import LabelTable, Session
from pose3d.stages.labels import look_at_labels

KEYPOINTS = ("nose", "ear_l", "ear_r", "tail")
REST = np.array([[10, 0], [4, 6], [4, -6], [-20, 0]], dtype=float)


def test_an_exchanged_frame_is_named_and_shown(tmp_path: Path, rng: np.random.Generator) -> None:
    folder = tmp_path / "labels/top"
    folder.mkdir(parents=True)
    lines = [",".join(["scorer", "", "", *["me"] * 8])]
    lines.append(",".join(["bodyparts", "", "", *(name for name in KEYPOINTS for _ in "xy")]))
    lines.append(",".join(["coords", "", "", *["x", "y"] * 4]))
    for frame in range(20):
        a = rng.uniform(0, 2 * np.pi)
        R = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
        points = REST @ R.T + rng.uniform(25, 70, 2) + 0.2 * rng.normal(size=REST.shape)
        points = points[[0, 2, 1, 3]] if frame == 7 else points
        cv2.imwrite(str(folder / f"img{frame:03d}.png"), np.full((96, 96, 3), 90, np.uint8))
        lines.append(",".join(["labeled-data", "top", f"img{frame:03d}.png", *(f"{v:.3f}" for v in points.ravel())]))
    (folder / "CollectedData_me.csv").write_text("\n".join(lines) + "\n")
    session = Session(
        file=tmp_path / "pose3d.toml", data=tmp_path, output=tmp_path / "out", labels=(LabelTable("labels/{camera}"),)
    )
    report = look_at_labels(session)
    assert (report.stage, report.skipped, report.summary["exchanged"]) == ("labels", False, 1)
    assert report.summary["look at"][0].startswith("top, top, frame 7: ear_l, ear_r look exchanged")
    (row,) = pd.read_csv(tmp_path / "out/labels.csv").to_dict("records")
    assert (row["camera"], row["frame"], row["keypoints"]) == ("top", 7, "ear_l ear_r")
    assert cv2.imread(str(tmp_path / "out/labels.png")) is not None
    assert look_at_labels(session).skipped
    assert not look_at_labels(session, force=True).skipped
