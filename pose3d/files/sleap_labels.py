"""Which frames are labelled in a SLEAP project (.slp, also packages with images), and where are their images?"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np

from calibration.errors import InputError
from pose3d.files.hdf5 import open_hdf5
from pose3d.files.moved import find_moved
from pose3d.files.sleap import PREDICTED, USER, Project, Video, poses_of, read_project
from pose3d.labels import Labels, Picture, join_labels, labels_of_poses
from pose3d.poses import Poses

__all__ = ["read_sleap_labels"]

_LOG = logging.getLogger(__name__)


def read_sleap_labels(path: Path, camera: str = "", video: str | os.PathLike[str] | None = None) -> Labels:
    """The users' instances of all videos of a project; its predictions only where no user made any (a proofread file).

    camera: name of the camera, of all rows. video: of several videos the one to take, by its file name or the end of
    its path; a video file where the stored path is wrong. Pictures may name files that do not exist; a video is sought
    as in `find_moved`. Raises InputError naming the file when it is damaged, has no labels, or the video cannot be
    told.
    """
    project = read_project(path)
    kind = USER if np.any(project.instances["instance_type"] == USER) else PREDICTED
    if kind == PREDICTED:
        _LOG.info("%s: no instance is a user's; the predictions are taken as labels", path)
    names = _names(project)
    parts = []
    for entry, file in _wanted(project, None if video is None else Path(video)):
        poses = poses_of(project, entry, (kind,))
        pictures = _pictures(project, entry, file, poses)
        parts.append(labels_of_poses(poses, pictures, camera, names[entry.number]))
    parts = [part for part in parts if len(part)]
    if not parts:
        raise InputError(f"{path}: expected labelled frames, found none{f' of {video}' if video else ''}; label some")
    return join_labels(parts)


def _wanted(project: Project, video: Path | None) -> list[tuple[Video, Path | None]]:
    """The videos to take, and the file to take instead of the one that is stored."""
    if video is None:
        return [(entry, None) for entry in project.videos]
    named = [entry for entry in project.videos if f"/{entry.name}".endswith(f"/{video.as_posix()}")]
    replaced = [entry for entry in project.videos if entry.name.rpartition("/")[2] == video.name]
    matches = named or (replaced if len(project.videos) > 1 else list(project.videos))
    if len(matches) != 1:
        listed = ", ".join(entry.name for entry in project.videos)
        raise InputError(f"{project.path}: expected one video named '{video}', got {len(matches)}; it holds {listed}")
    return [(matches[0], video if video.exists() or not named else None)]


def _names(project: Project) -> dict[int, str]:
    """What each video is called: its file's name, or all that is stored where two have one name."""
    names = [entry.name.rpartition("/")[2].strip(".") or str(entry.backend.get("dataset")) for entry in project.videos]
    return {
        entry.number: name if names.count(name) == 1 else entry.name
        for entry, name in zip(project.videos, names, strict=True)
    }


def _pictures(project: Project, entry: Video, file: Path | None, poses: Poses) -> list[Picture]:
    """Where the image of each frame stands."""
    frames, path, dataset = poses.frame.tolist(), project.path, str(entry.backend.get("dataset") or "")
    if file is not None:
        return [Picture(file, frame) for frame in frames]
    if images := entry.backend.get("filenames"):
        if frames and frames[-1] >= len(images):
            raise InputError(f"{path}: labels image {frames[-1]}, of {len(images)} in '{entry.name}'; it is damaged")
        return [Picture(find_moved(path, images[frame])) for frame in frames]
    source = find_moved(path, entry.name)
    places: dict[int, int] = {}
    if dataset and entry.backend.get("filename") == ".":
        with open_hdf5(path) as stored:
            group = stored[dataset].parent
            numbers = group["frame_numbers"][()] if "frame_numbers" in group else range(len(stored[dataset]))
        places = {int(frame): row for row, frame in enumerate(numbers)}
    return [Picture(path, places[f], dataset) if f in places else Picture(source, f) for f in frames]
