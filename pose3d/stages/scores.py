"""How good are poses in a file, against the truth in another?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from calibration.errors import InputError
from pose3d.covariance_scores import evaluate_covariance, evaluate_scores
from pose3d.detection_scores import evaluate_detections
from pose3d.evaluation import evaluate_pose, evaluate_tracks
from pose3d.files import load_poses

__all__ = ["score_files"]


def score_files(truth: Path, estimate: Path, *, unit: str | None = None) -> dict[str, dict[str, Any]]:
    """Figures by what they tell of: pose, tracks; in 2D detection; covariance and scores where the estimate has them.

    Raises InputError naming the file where nothing can be compared.
    """
    known, found = load_poses(truth, unit=unit), load_poses(estimate, unit=unit)
    pose = evaluate_pose(known, found).to_dict()
    if pose["n"] == 0:
        raise InputError(
            f"{estimate}: no keypoint is within an animal's size of {truth}; are both in the same world? A calibration "
            "has a world of its own: examples/04_evaluate_render.py shows how to bring poses into another"
        )
    told = {"pose": pose, "tracks": evaluate_tracks(known, found).to_dict()}
    if known.shape[-1] == 2:
        told["detection"] = evaluate_detections(known, found).to_dict()
    if (stated := evaluate_covariance(known, found)) is not None:
        told["covariance"] = stated.to_dict()
    if bins := evaluate_scores(known, found):
        px = known.unit
        told["scores"] = {
            f"{part.low:.3g} to {part.high:.3g}": f"median {part.median:.3g} {px}, 95 % {part.p95:.3g} {px} ({part.n})"
            for part in bins
        }
    return told
