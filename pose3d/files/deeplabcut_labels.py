"""Which images are labelled in a DeepLabCut project, or in one of its tables (CollectedData), and where are they?"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path, PurePosixPath

from calibration.errors import InputError
from pose3d.files.deeplabcut import is_deeplabcut_csv, poses_of_table, read_table, row_names
from pose3d.files.moved import find_moved
from pose3d.files.numbering import last_integer
from pose3d.labels import Labels, Picture, join_labels, labels_of_poses
from pose3d.skeleton import Skeleton

__all__ = ["read_deeplabcut_labels", "read_label_tables"]

_TABLE = "CollectedData*"
_SUFFIXES = (".h5", ".csv")
"""In the order of preference: DeepLabCut trains on the first."""


def read_deeplabcut_labels(path: Path, camera: str = "", video: str | os.PathLike[str] | None = None) -> Labels:
    """The labelled images of a project (its folder or config.yaml), of a folder of labelled images, or of one table.

    camera: name of the camera, of all rows. video: its folder of labelled images, where one of several is wanted. Edges
    are those of the skeleton in config.yaml whose ends are body parts. Body parts that belong to no animal are an
    individual of their own. Pictures may name files that do not exist. Raises InputError naming the file when it is no
    table of labels, or there are none.
    """
    project = path.parent if path.name == "config.yaml" else path
    config = project / "config.yaml"
    text = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else ""
    tables = _tables(project, _value(text, "scorer")) if project.is_dir() else [path]
    labels = read_label_tables(path, dict.fromkeys(tables, camera), video)
    edges = _edges(_block(text, "skeleton"), labels.skeleton.keypoints)
    return replace(labels, skeleton=Skeleton(labels.skeleton.keypoints, edges=edges))


def read_label_tables(path: Path, tables: Mapping[Path, str], video: str | os.PathLike[str] | None = None) -> Labels:
    """The labelled images of some tables of the project `path`, {table: name of its camera}; video: the folder of
    images that is wanted, of several. Raises InputError naming the file where one is no such table, and the project
    where nothing is labelled."""
    wanted = None if video is None else {Path(video).name, Path(video).stem}
    parts: list[Labels] = []
    known: list[str] = []
    for table, camera in tables.items():
        for name, labels in _read(table, camera):
            known.append(name)
            if len(labels) and (wanted is None or name in wanted):
                parts.append(labels)
    if not parts:
        sought = f" of {video}; it holds {', '.join(known)}" if video else "; label some"
        raise InputError(f"{path}: expected labelled images, found none{sought}")
    return join_labels(parts)


def _tables(project: Path, scorer: str) -> list[Path]:
    """One table of each folder of labelled images, of the project's scorer where there are several. Where the project
    has such folders, a table at its root (dlc2lp makes one for Lightning Pose) would label their images twice."""
    tables: list[Path] = []
    for folder in [*sorted((project / "labeled-data").glob("*/")), project]:
        if folder == project and tables:
            break
        found = [file for suffix in _SUFFIXES for file in sorted(folder.glob(_TABLE + suffix))]
        stems = sorted({file.stem for file in found})
        if len(stems) > 1:
            found = [file for file in found if file.stem == f"CollectedData_{scorer}"]
            if not found:
                raise InputError(f"{folder}: expected one scorer's table, got {', '.join(stems)}; give one of them")
        tables += found[:1]
    if not tables:
        raise InputError(
            f"{project}: expected a DeepLabCut project with labeled-data/<video>/{_TABLE}.h5 or .csv, or a Lightning "
            "Pose project with CollectedData.csv, found none; correct the folder, or label frames (of COCO's labels, "
            "give the .json)"
        )
    return tables


def _read(path: Path, camera: str) -> Iterator[tuple[str, Labels]]:
    """Name and labels of each folder of images of a table."""
    if path.suffix.lower() not in _SUFFIXES or (path.suffix.lower() == ".csv" and not is_deeplabcut_csv(path)):
        raise InputError(
            f"{path}: expected labels: a SLEAP .slp, a DeepLabCut project, its config.yaml or a CollectedData table, a "
            "Lightning Pose project or one of its tables, or COCO's .json"
        )
    table = read_table(path)
    images = [PurePosixPath(name) for name in row_names(table)]
    if not any(image.suffix for image in images):
        raise InputError(f"{path}: expected rows named by images, got frame numbers: predictions, not labels")
    for folder in dict.fromkeys(image.parent for image in images):
        poses = poses_of_table(path, table, folder.name)
        stored = {last_integer(image.name, path): str(image) for image in images if image.parent == folder}
        pictures = [Picture(find_moved(path, stored[frame])) for frame in poses.frame.tolist()]
        name = folder.name or path.absolute().parent.name
        yield name, labels_of_poses(poses, pictures, camera, name)


def _block(text: str, key: str) -> str:
    """What stands under a top-level key of a YAML file, comments left out; "" where it is not there."""
    found = re.search(rf"^{key}:(.*(?:\n(?:[ \t-].*|#.*|))*)", text, flags=re.MULTILINE)
    return re.sub(r"(?m)(^|\s)#.*$", "", found[1]) if found else ""


def _value(text: str, key: str) -> str:
    return _block(text, key).strip().strip("'\"")


def _edges(block: str, keypoints: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """The pairs of body parts in a list of lists, in YAML's block or flow style; one of other names (the template's) is
    left out.
    """
    chains = [part.split(",") for part in re.findall(r"\[([^\[\]]+)\]", block)]
    if not chains:  # block style: "- - a" begins a list, "- b" goes on with it
        lists = re.split(r"(?m)^[ \t]*-[ \t]+(?=-)", block)[1:]
        chains = [re.findall(r"-[ \t]+(.+)", part) for part in lists]
    named = [[name.strip().strip("'\"") for name in chain] for chain in chains]
    pairs = [pair for chain in named for pair in pairwise(chain)]
    return tuple((keypoints.index(a), keypoints.index(b)) for a, b in pairs if {a, b} <= set(keypoints) and a != b)
