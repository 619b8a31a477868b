"""Which of the session's labels should somebody look at again? labels.csv and a sheet of pictures, labels.png."""

from __future__ import annotations

from collections import Counter
from typing import Any

from calibration.files import load_rig
from calibration.files.atomic import write_bytes
from pose3d.label_check import suspect_labels
from pose3d.records import Plan, StageReport, fingerprint_product, run_stage
from pose3d.session import Session
from pose3d.stages.recording import CALIBRATION
from pose3d.stages.training import fingerprint_labels, gather_labels
from pose3d.view_check import contradicted_labels

__all__ = ["look_at_labels"]

VERSION = 1
CSV, SHEET = "labels.csv", "labels.png"
MOST_TOLD = 8


def look_at_labels(session: Session, *, force: bool = False) -> StageReport:
    """Look for labels that are wrong, before a network learns from them; where the session's results have a
    calibration, also for those that other cameras contradict. Skipped where nothing has changed.

    Raises InputError for labels that cannot be used.
    """
    labels = gather_labels(session)
    calibration = session.output / CALIBRATION
    inputs = fingerprint_labels(labels)
    if calibration.is_file():
        inputs["calibration"] = fingerprint_product(calibration)
    plan = Plan(session.output, "labels", VERSION, inputs, {}, (CSV, SHEET))

    def work() -> dict[str, Any]:
        import pandas as pd

        from pose3d.render.label_sheet import label_sheet
        from pose3d.video import save_picture

        others = contradicted_labels(labels, load_rig(calibration)) if calibration.is_file() else ()
        suspects = (*others, *suspect_labels(labels))
        rows = [
            {
                "kind": one.kind, "camera": labels.camera[one.row] if one.row >= 0 else "",
                "video": labels.video[one.row] if one.row >= 0 else "",
                "frame": labels.frame[one.row] if one.row >= 0 else "", "individual": one.slot if one.row >= 0 else "",
                "keypoints": " ".join(one.keypoints), "score": one.score, "message": str(one),
            }
            for one in suspects
        ]  # fmt: skip
        columns = ["kind", "camera", "video", "frame", "individual", "keypoints", "score", "message"]
        table = pd.DataFrame(rows, columns=columns).to_csv(index=False, float_format="%.3g", lineterminator="\n")
        write_bytes(session.output / CSV, table.encode())
        save_picture(session.output / SHEET, label_sheet(labels, suspects))
        told: dict[str, Any] = {"labelled frames": len(labels)}
        if suspects:
            more = [f"and {len(suspects) - MOST_TOLD} more in {CSV}"] if len(suspects) > MOST_TOLD else []
            told["look at"] = [str(one) for one in suspects[:MOST_TOLD]] + more
            told |= {kind.replace("_", " "): count for kind, count in Counter(one.kind for one in suspects).items()}
        return told

    return run_stage(plan, work, force=force)
