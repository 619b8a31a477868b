"""Which labelled frames does a project of SLEAP, DeepLabCut, Lightning Pose or COCO hold, and where are the images?"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from calibration.errors import InputError, nearest_name
from pose3d.files.coco_labels import read_coco_labels
from pose3d.files.deeplabcut_labels import read_deeplabcut_labels
from pose3d.files.lightning_pose_labels import lightning_pose_tables, read_lightning_pose_labels
from pose3d.files.sleap_labels import read_sleap_labels
from pose3d.labels import Labels
from pose3d.skeleton import Skeleton

__all__ = ["MISSING_IMAGES", "load_labels"]

MISSING_IMAGES = ("error", "skip")
"""What `load_labels` does about labels whose image file is not there."""


def load_labels(
    path: str | os.PathLike[str],
    *,
    camera: str = "",
    skeleton: Skeleton | None = None,
    frames: tuple[int, int] | None = None,
    video: str | os.PathLike[str] | None = None,
    missing: str = "error",
) -> Labels:
    """The labelled frames of a SLEAP project (.slp, .pkg.slp), of a DeepLabCut project (its folder or config.yaml), of
    a Lightning Pose project (its folder or project.yaml), of one of their tables (CollectedData .h5 or .csv), or of
    COCO's keypoints (.json); all videos. Frames in which nothing is labelled are left out.

    In a SLEAP project users' instances are the labels; predictions only where the whole file has no user's (one that
    was proofread). camera: the name of the camera that filmed all of it; of a Lightning Pose project of several views
    the view to take, "" = all, each named. skeleton: to bring the keypoints into; those that the file lacks are not
    labelled. frames: (first, last) number in the source videos to keep, last included. video: which of several to take,
    by file name (SLEAP) or folder of images (the others); a path to the video of a SLEAP project whose stored path is
    wrong. missing: "error", or "skip" to leave out labels whose image file is not there. Raises InputError naming the
    file when it is no such project, or damaged; for a keypoint that is not in the skeleton; naming image files that are
    missing; where no labels are left. `check_labels` compares labels and image sizes.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: expected a file or folder of labels, found none; check the path")
    if missing not in MISSING_IMAGES:
        raise InputError(f"missing: expected one of {', '.join(MISSING_IMAGES)}, got '{missing}'")
    labels = _reader(path)(path, camera, video)
    if skeleton is not None:
        for keypoint in labels.skeleton.keypoints:
            if keypoint not in skeleton.keypoints:
                near = nearest_name(keypoint, skeleton.keypoints)
                raise InputError(f"{path}: keypoint '{keypoint}' is not in the skeleton; {near}")
        labels = labels.onto(skeleton)
    if frames is not None:
        kept = labels.take((labels.frame >= frames[0]) & (labels.frame <= frames[1]))
        if not len(kept):
            raise InputError(
                f"{path}: expected labels in frames {frames[0]} to {frames[1]}, found none; there are labels in frames "
                f"{labels.frame.min()} to {labels.frame.max()}"
            )
        labels = kept
    return _with_images(path, labels, missing)


def _reader(path: Path) -> Callable[[Path, str, str | os.PathLike[str] | None], Labels]:
    """Who reads a file, by its ending; a folder, by what stands in it."""
    if path.suffix.lower() == ".slp":
        return read_sleap_labels
    if path.suffix.lower() == ".json":
        return read_coco_labels
    if path.name == "project.yaml" or (path.is_dir() and lightning_pose_tables(path)):
        return read_lightning_pose_labels
    return read_deeplabcut_labels


def _with_images(path: Path, labels: Labels, missing: str) -> Labels:
    """The labels whose image files (or videos) are there."""
    there = {file: file.exists() for file in dict.fromkeys(picture.path for picture in labels.pictures)}
    kept = np.array([there[picture.path] for picture in labels.pictures])
    if kept.all() or (missing == "skip" and kept.any()):
        return labels.take(kept)
    absent = [str(file) for file, exists in there.items() if not exists]
    raise InputError(
        f"{path}: {np.count_nonzero(~kept)} of {len(kept)} labelled frames have no image; put them there, name the "
        'video (video), or leave these frames out (missing = "skip"). Expected, but not found:\n  '
        + "\n  ".join(absent)
    )
