"""Which images are labelled in a Lightning Pose project, and of which view is each table?

At the project's root stands CollectedData.csv, or CollectedData_<view>.csv (<view>.csv in older ones) for each view, as
DeepLabCut's tables; rows name images from the root, labeled-data/<session>_<view>/img00000012.png (lightning-pose,
`multiview_structure`). (0, 0) is the centre of the first pixel.
"""

from __future__ import annotations

import csv
import logging
import os
import re
from pathlib import Path, PurePosixPath

from calibration.errors import InputError
from pose3d.files.deeplabcut import is_deeplabcut_csv
from pose3d.files.deeplabcut_labels import read_label_tables
from pose3d.labels import Labels

__all__ = ["lightning_pose_tables", "read_lightning_pose_labels"]

_LOG = logging.getLogger(__name__)

_DEFAULT = "CollectedData"
"""The labels that Lightning Pose trains on; further sets, such as those of a test, have further names."""
_HEADER_ROWS = 3


def read_lightning_pose_labels(project: Path, camera: str = "", video: str | os.PathLike[str] | None = None) -> Labels:
    """The labelled images of a project's folder (or project.yaml), of all views; each view's name is its camera's.

    camera: the view to take, of several; the camera's name, where there is one. video: folder of labelled images to
    take. Pictures may name files that do not exist. Raises InputError naming the file when it is no such project, has
    no labels, or no such view.
    """
    folder = project.parent if project.name == "project.yaml" else project
    tables = lightning_pose_tables(folder)
    if not tables:
        raise InputError(
            f"{project}: expected {_DEFAULT}.csv, or {_DEFAULT}_<view>.csv for each view, beside the folder of images "
            "that they name, found none; correct the folder, or label frames"
        )
    views = [view for view in tables.values() if view]
    if camera and views:
        if camera not in views:
            raise InputError(f"{project}: expected labels of camera '{camera}', found those of {', '.join(views)}")
        tables = {table: view for table, view in tables.items() if view == camera}
    return read_label_tables(project, {table: view or camera for table, view in tables.items()}, video)


def lightning_pose_tables(project: Path) -> dict[Path, str]:
    """The tables that a project trains on, and the view of each, "" where there is but one; empty where the folder is
    none of Lightning Pose's: no table at its root names images beneath it. Of a DeepLabCut project, whose tables stand
    beside the images, none.

    Views are those that project.yaml names; else a table's name is a view where its folders of images bear it. Raises
    InputError where none of several tables tells its view, and for a project.yaml that cannot be read.
    """
    if (project / "config.yaml").is_file() and any(project.glob(f"labeled-data/*/{_DEFAULT}*")):
        return {}
    told = _views(project / "project.yaml")
    folders = {table: _folders(table) for table in sorted(project.glob("*.csv")) if is_deeplabcut_csv(table)}
    own = {table: named for table, named in folders.items() if any((project / folder).is_dir() for folder in named)}
    views: dict[str, Path] = {}
    for table in folders if told else own:  # CollectedData_top before top
        view = _key(table)
        if view in told if told else _is_view(view, own[table]):
            views.setdefault(view, table)
    if absent := [view for view in told if view not in views]:
        _LOG.warning("%s: no table of labels for view %s", project, ", ".join(absent))
    tables = {table: view for view, table in views.items()}
    if not told:
        tables = {table: "" for table in own if table.stem == _DEFAULT} or tables or dict.fromkeys(own, "")
    if len(tables) > 1 and not all(tables.values()):
        raise InputError(
            f"{project}: expected {_DEFAULT}.csv, or a table for each view, {_DEFAULT}_<view>.csv, with its images in "
            f"labeled-data/<session>_<view>, got {', '.join(table.name for table in tables)}; give one of them"
        )
    if len(tables) < len(own):
        left = ", ".join(table.name for table in own if table not in tables)
        _LOG.info("%s: other labels than those of training are left out: %s; give such a file itself", project, left)
    return tables


def _views(path: Path) -> tuple[str, ...]:
    """The views that a project.yaml names; none where there is no such file."""
    if not path.is_file():
        return ()
    import yaml

    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        views = told.get("view_names") or []
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: expected YAML with view_names, cannot be read ({reason}); correct it") from None
    if not isinstance(views, list) or not all(isinstance(view, str | int) for view in views):
        raise InputError(f"{path}: view_names: expected a list of names, got {views!r}; correct it")
    return tuple(str(view) for view in views)


def _folders(table: Path) -> tuple[str, ...]:
    """The folders of images that a table's rows name; none where they are frame numbers, or bare names."""
    try:
        with table.open(newline="", encoding="utf-8") as file:
            names = [row[0].replace("\\", "/") for row in csv.reader(file) if row][_HEADER_ROWS:]
    except (OSError, ValueError, csv.Error):
        return ()
    images = [PurePosixPath(name) for name in names]
    return tuple(dict.fromkeys(str(image.parent) for image in images if image.suffix and image.parent.name))


def _key(table: Path) -> str:
    return table.stem.removeprefix(f"{_DEFAULT}_")


def _is_view(name: str, folders: tuple[str, ...]) -> bool:
    """Whether all folders of images bear a name: session0_top bears top, but not op."""
    bears = re.compile(rf"(^|[_.\-]){re.escape(name)}($|[_.\-])")
    return all(bears.search(PurePosixPath(folder).name) for folder in folders)
