"""How are suggested frames handed to SLEAP? A project (.slp) with the predictions on them, to be corrected there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from pose3d.files.hdf5 import create_hdf5
from pose3d.files.numbering import last_integer
from pose3d.files.sleap import PREDICTED
from pose3d.labels import Labels
from pose3d.skeleton import Skeleton

__all__ = ["write_sleap_stub"]

FORMAT = 1.2
"""The newest that both SLEAP 1.3 and sleap-io read; (0, 0) is the centre of the first pixel."""
_EDGE, _SYMMETRY = 1, 2
_FRAME = [
    ("frame_id", "u8"),
    ("video", "u4"),
    ("frame_idx", "u8"),
    ("instance_id_start", "u8"),
    ("instance_id_end", "u8"),
]
_INSTANCE = [
    ("instance_id", "i8"), ("instance_type", "u1"), ("frame_id", "u8"), ("skeleton", "u4"), ("track", "i4"),
    ("from_predicted", "i8"), ("score", "f4"), ("point_id_start", "u8"), ("point_id_end", "u8"),
    ("tracking_score", "f4"),
]  # fmt: skip
_POINT = [("x", "f8"), ("y", "f8"), ("visible", "?"), ("complete", "?")]


def write_sleap_stub(path: Path, labels: Labels, score: NDArray[np.float64]) -> None:
    """Write frames of videos as predicted instances and as labelling suggestions, in the order of the rows. Atomic.

    labels: pictures are frames of videos (or of folders of images). score (n, individuals, keypoints): 0..1. The videos
    are named by their absolute paths. Instances without a keypoint are left out, frames without instances stay, as
    suggestions. Raises InputError for pictures that are no frames of footage.
    """
    if any(picture.position < 0 or picture.dataset for picture in labels.pictures):
        raise InputError(
            f"{path}: expected frames of videos or of folders of images, got single images; give the video"
        )
    videos = {source: number for number, source in enumerate(dict.fromkeys(p.path for p in labels.pictures))}
    keypoints = len(labels.skeleton)
    frames: list[tuple[Any, ...]] = []
    instances: list[tuple[Any, ...]] = []
    points: list[tuple[Any, ...]] = []
    suggestions: list[dict[str, Any]] = []
    for row, picture in enumerate(labels.pictures):
        known = np.isfinite(labels.points[row, ..., 0])
        slots = np.flatnonzero(known.any(axis=1))
        suggestions.append({"video": str(videos[picture.path]), "frame_idx": picture.position, "group": 0})
        if not len(slots):
            continue
        frames.append(
            (len(frames), videos[picture.path], picture.position, len(instances), len(instances) + len(slots))
        )
        for slot in slots:
            mean = float(score[row, slot][known[slot]].mean())
            first = len(points)
            instances.append((len(instances), PREDICTED, frames[-1][0], 0, -1, -1, mean, first, first + keypoints, 0.0))
            xy = labels.points[row, slot]
            points += [
                (*xy[k].tolist(), bool(known[slot, k]), False, float(score[row, slot, k])) for k in range(keypoints)
            ]
    with create_hdf5(path) as file:
        metadata = file.create_group("metadata")
        metadata.attrs["format_id"] = FORMAT
        metadata.attrs["json"] = np.bytes_(json.dumps(_metadata(labels.skeleton)))
        _write_rows(file, "videos_json", [_video(source) for source in videos])
        _write_rows(file, "tracks_json", [])
        _write_rows(file, "suggestions_json", suggestions)
        file["frames"] = np.array(frames, dtype=_FRAME)
        file["instances"] = np.array(instances, dtype=_INSTANCE)
        file["points"] = np.array([], dtype=_POINT)
        file["pred_points"] = np.array(points, dtype=[*_POINT, ("score", "f8")])


def _write_rows(file: h5py.File, name: str, rows: list[Any]) -> None:
    """JSON, one a row."""
    file.create_dataset(name, data=[json.dumps(row) for row in rows], dtype=h5py.string_dtype(), maxshape=(None,))


def _video(source: Path) -> dict[str, Any]:
    """What SLEAP says of footage."""
    from calibration.footage import IMAGE_SUFFIXES, open_footage

    with open_footage(source) as footage:
        width, height = footage.size
        shape = [footage.n_frames, height, width, 3]
    name = source.absolute().as_posix()
    if source.is_dir():
        images = [file for file in source.absolute().iterdir() if file.suffix.lower() in IMAGE_SUFFIXES]
        files = [file.as_posix() for file in sorted(images, key=lambda file: last_integer(file.name, source))]
        backend = {"type": "ImageVideo", "filename": files[0], "filenames": files, "shape": shape, "grayscale": False}
        return {"filename": files, "backend": backend}
    backend = {"type": "MediaVideo", "filename": name, "shape": shape, "grayscale": False, "bgr": True, "dataset": ""}
    return {"filename": name, "backend": backend | {"input_format": ""}}


def _metadata(skeleton: Skeleton) -> dict[str, Any]:
    """The skeleton as jsonpickle spells it: a link's type in full where it first occurs, then by its number."""
    links: list[dict[str, Any]] = []
    spelt: list[int] = []

    def kind(value: int) -> dict[str, Any]:
        if value in spelt:
            return {"py/id": spelt.index(value) + 1}
        spelt.append(value)
        return {"py/reduce": [{"py/type": "sleap.skeleton.EdgeType"}, {"py/tuple": [value]}]}

    for number, (a, b) in enumerate(skeleton.edges):
        links.append({"edge_insert_idx": number, "key": 0, "source": a, "target": b, "type": kind(_EDGE)})
    for a, b in skeleton.symmetry:
        for source, target in ((a, b), (b, a)):
            links.append({"key": 0, "source": source, "target": target, "type": kind(_SYMMETRY)})
    graph = {
        "directed": True, "graph": {"name": "Skeleton-0", "num_edges_inserted": len(skeleton.edges)}, "links": links,
        "multigraph": True, "nodes": [{"id": k} for k in range(len(skeleton))],
    }  # fmt: skip
    nodes = [{"name": name, "weight": 1.0} for name in skeleton.keypoints]
    empty: dict[str, Any] = {"videos": [], "tracks": [], "suggestions": [], "negative_anchors": {}, "provenance": {}}
    return {"version": "2.0.0", "skeletons": [graph], "nodes": nodes} | empty
