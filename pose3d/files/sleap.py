"""Which poses does a SLEAP file hold? Projects and predictions (.slp, also packages with images) and analysis .h5.

SLEAP counts pixels from the centre of the first one since format 1.1; older files from its corner, so half a pixel is
taken off: talmolab/sleap issue 296, and sleap-io 0.9 `io/slp.py`, `read_instances` ("Legacy coordinate system: top-left
of pixel is (0, 0)"). Analysis files are exported from points already converted. Scores may exceed 1 and are clipped. A
point that is not marked visible is missing, as in SLEAP's own exports, and stays marked in the extra `occluded`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from pose3d.files.hdf5 import open_hdf5, text
from pose3d.poses import Poses
from pose3d.skeleton import Skeleton

__all__ = ["PREDICTED", "USER", "Project", "Video", "poses_of", "read_analysis", "read_project", "read_slp"]

USER, PREDICTED = 0, 1
"""Values of the column instance_type."""
_EDGE, _SYMMETRY = 1, 2
_FIRST_CENTRED_FORMAT = 1.1
_FIRST_UNKNOWN_FORMAT = 3.0
_CANONICAL_AXES = ("frame", "track", "node", "xy")
_MATLAB_AXES = ("track", "xy", "node", "frame")


@dataclass(frozen=True)
class Video:
    """A video of a project: what the frames table calls it, its path as stored (with /), and how it is read.

    A package's embedded images have the name of the video that they were taken from, where it is known.
    """

    number: int
    name: str
    backend: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Project:
    """What stands in a .slp: the metadata, the videos, the tracks' names, and the tables as stored."""

    path: Path
    version: float
    metadata: dict[str, Any]
    videos: tuple[Video, ...]
    tracks: tuple[str, ...]
    frames: NDArray[Any]
    instances: NDArray[Any]
    points: NDArray[Any]
    predicted: NDArray[Any]


def read_slp(path: Path, video: int | str | None = None) -> Poses:
    """The labelled and predicted instances of one video, one row for each labelled frame, slots in the file's order.

    video: its number in the project, or its file name (or the end of its path); needed when the project has several.
    A user's instance takes the place of the prediction that it was made from or that has its track. ids are track
    numbers, names the tracks' names; an instance without track has id -1. Frames without instances stay, empty. Time is
    unknown. Raises InputError naming the file when it is damaged, newer than format 2, or the video cannot be told.
    """
    project = read_project(path)
    return poses_of(project, _chosen(project, video))


def read_project(path: Path) -> Project:
    """The tables of a .slp. Raises InputError naming the file when it is damaged or newer than format 2."""
    with open_hdf5(path) as file:
        version = float(file["metadata"].attrs.get("format_id", 1.0))
        if version >= _FIRST_UNKNOWN_FORMAT:
            raise InputError(
                f"{path}: SLEAP format {version:g} is newer than this program reads (below 3); export an analysis .h5"
            )
        frames = file["frames"][()]
        return Project(
            path=path,
            version=version,
            metadata=json.loads(text(file["metadata"].attrs["json"])),
            videos=_videos(file, np.unique(frames["video"])),
            tracks=tuple(json.loads(text(row))[1] for row in file["tracks_json"][()])
            if file["tracks_json"].size
            else (),
            frames=frames,
            instances=file["instances"][()],
            points=file["points"][()],
            predicted=file["pred_points"][()],
        )


def poses_of(project: Project, video: Video, kinds: Collection[int] = (USER, PREDICTED)) -> Poses:
    """The instances of one video, as `read_slp` gives them; of some kinds only, where `kinds` says."""
    path, frames, instances = project.path, project.frames, project.instances
    frames = frames[frames["video"] == video.number]
    rows, row_frame = _rows_of_frames(frames)
    of_kinds = np.isin(instances["instance_type"][rows], list(kinds))
    rows, row_frame = rows[of_kinds], row_frame[of_kinds]
    rows, row_frame = _without_replaced(instances[rows], rows, row_frame)
    instances = instances[rows]
    skeleton = _skeleton(path, project.metadata, np.unique(instances["skeleton"]))
    frame, slot_frame = np.unique(frames["frame_idx"].astype(np.int64), return_inverse=True)
    row_frame = slot_frame[row_frame]
    order = np.argsort(row_frame, kind="stable")
    instances, row_frame = instances[order], row_frame[order]
    slot = np.arange(len(row_frame)) - np.searchsorted(row_frame, row_frame)
    shape = (len(frame), int(slot.max(initial=-1)) + 1, len(skeleton))
    xy, score, occluded = np.full((*shape, 2), np.nan), np.zeros(shape), np.zeros(shape, dtype=bool)
    for kind, table in ((USER, project.points), (PREDICTED, project.predicted)):
        of_kind = instances["instance_type"] == kind
        where = row_frame[of_kind], slot[of_kind]
        part = _points_of(path, instances[of_kind], table, len(skeleton))
        xy[where] = np.stack((part["x"], part["y"]), axis=-1)
        score[where] = part["score"] if kind == PREDICTED else 1.0
        occluded[where] = ~part["visible"] & np.isfinite(part["x"])
    if project.version < _FIRST_CENTRED_FORMAT:
        xy -= 0.5
    xy[occluded] = np.nan
    ids = np.full(shape[:2], -1, dtype=np.int32)
    ids[row_frame, slot] = instances["track"]
    names = {int(i): project.tracks[i] for i in np.unique(instances["track"]) if 0 <= i < len(project.tracks)}
    return Poses(
        points=xy, score=score, ids=ids, frame=frame, skeleton=skeleton, names=names, extras={"occluded": occluded}
    )


def read_analysis(path: Path) -> Poses:
    """The tracks of an analysis .h5: slot and id i are its i-th track, row f its frame f. Time is unknown.

    Points without a score (a user's) get 1. The axes' order is read from the file where it says (sleap-io), else
    SLEAP's own (tracks, xy, nodes, frames). Raises InputError naming the file when it is damaged.
    """
    with open_hdf5(path) as file:
        tracks = file["tracks"]
        axes = tuple(json.loads(text(tracks.attrs["dims"]))) if "dims" in tracks.attrs else _MATLAB_AXES
        if sorted(axes) != sorted(_CANONICAL_AXES) or tracks.ndim != 4:
            raise InputError(f"{path}: expected tracks with axes {_MATLAB_AXES}, got {axes} of shape {tracks.shape}")
        points = np.transpose(tracks[()], [axes.index(axis) for axis in _CANONICAL_AXES])
        score = np.ones(points.shape[:3])
        if "point_scores" in file:
            score_axes = [axis for axis in axes if axis != "xy"]
            score = np.transpose(file["point_scores"][()], [score_axes.index(axis) for axis in _CANONICAL_AXES[:3]])
        keypoints = tuple(text(name) for name in file["node_names"][()])
        edges = file["edge_inds"][()].reshape(-1, 2) if "edge_inds" in file else np.zeros((0, 2), dtype=int)
        names = [text(name) for name in file["track_names"][()]] if "track_names" in file else []
    skeleton = Skeleton(keypoints, edges=tuple((int(a), int(b)) for a, b in edges))
    ids = np.broadcast_to(np.arange(points.shape[1]) if names else -1, points.shape[:2])
    return Poses(
        points=points,
        score=np.where(np.isnan(score), 1.0, score),
        ids=ids,
        skeleton=skeleton,
        names=dict(enumerate(names)),
    )


def _videos(file: h5py.File, used: NDArray[Any]) -> tuple[Video, ...]:
    """The videos of a project, of which the frames table uses these numbers.

    Such a number is the video's place in the list; in packages whose videos were renumbered it is the number in the
    name of the group that holds the images ("video15/video"), as in sleap-io's `_read_labels_from_open_file`.
    """
    entries = [json.loads(text(row)) for row in file["videos_json"][()]]
    by_place = bool(np.isin(used, np.arange(len(entries))).all())
    videos = []
    for place, entry in enumerate(entries):
        backend = entry.get("backend", entry)
        name = str(backend.get("filename", entry.get("filename", "")))
        group = re.match(r"(video(\d+))/", str(backend.get("dataset") or ""))
        if group and f"{group[1]}/source_video" in file:
            source = json.loads(text(file[f"{group[1]}/source_video"].attrs["json"]))
            name = str(source.get("backend", source).get("filename", name))
        number = place if by_place or group is None else int(group[2])
        videos.append(Video(number, name.replace("\\", "/"), backend))
    return tuple(videos)


def _chosen(project: Project, video: int | str | None) -> Video:
    path, videos = project.path, project.videos
    if video is None and len(videos) == 1:
        return videos[0]
    listed = "; ".join(f"{i}: {video.name}" for i, video in enumerate(videos))
    if video is None:
        raise InputError(f"{path}: holds {len(videos)} videos; say which with video= ({listed})")
    if isinstance(video, str):
        matches = [known for known in videos if f"/{known.name}".endswith(f"/{video}")]
        if len(matches) != 1:
            raise InputError(f"{path}: expected one video named '{video}', got {len(matches)}; it holds {listed}")
        return matches[0]
    if not 0 <= video < len(videos):
        raise InputError(f"{path}: has no video {video}; it holds {listed}")
    return videos[video]


def _rows_of_frames(frames: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows of the instances table that the frames point to, and for each the frame's row."""
    start, stop = frames["instance_id_start"].astype(np.intp), frames["instance_id_end"].astype(np.intp)
    count = stop - start
    row_frame = np.repeat(np.arange(len(frames)), count)
    within = np.arange(len(row_frame)) - np.repeat(np.cumsum(count) - count, count)
    return start[row_frame] + within, row_frame


def _without_replaced(
    instances: NDArray[Any], rows: NDArray[np.intp], row_frame: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Drop predictions that a user's instance of the same frame was made from, or whose track it has."""
    user = instances["instance_type"] == USER
    made_from = {(int(f), int(i)) for f, i in zip(row_frame[user], instances["from_predicted"][user], strict=True)}
    tracked = {(int(f), int(t)) for f, t in zip(row_frame[user], instances["track"][user], strict=True) if t >= 0}
    keep = np.array(
        [
            mine or ((int(f), int(i)) not in made_from and (int(f), int(t)) not in tracked)
            for mine, f, i, t in zip(user, row_frame, instances["instance_id"], instances["track"], strict=True)
        ],
        dtype=bool,
    )
    return rows[keep], row_frame[keep]


def _points_of(path: Path, instances: NDArray[Any], table: NDArray[Any], n_keypoints: int) -> dict[str, NDArray[Any]]:
    """Columns of the point table as (instances, keypoints)."""
    start, stop = instances["point_id_start"].astype(np.intp), instances["point_id_end"].astype(np.intp)
    if np.any(stop - start != n_keypoints) or np.any(stop > len(table)):
        raise InputError(f"{path}: expected {n_keypoints} points an instance, one a keypoint; the file is damaged")
    index = start[:, None] + np.arange(n_keypoints)
    return {name: table[name][index] for name in table.dtype.names or ()}


def _skeleton(path: Path, metadata: dict[str, Any], used: NDArray[Any]) -> Skeleton:
    """The skeleton of the instances, its edges in the order in which they were drawn.

    The project's nodes are one list, a skeleton's nodes and links are numbers in it. A link's type is spelt out where
    it first occurs ("py/reduce": 1 edge, 2 symmetry) and referred to by the order of those spellings ("py/id") later.
    """
    if len(used) > 1:
        raise InputError(
            f"{path}: the instances have {len(used)} different skeletons; keep one in SLEAP and save again"
        )
    graph = metadata["skeletons"][int(used[0]) if len(used) else 0]
    graph = graph.get("nx_graph", graph)
    nodes = [node["id"] for node in graph["nodes"]]
    pairs: dict[int, list[tuple[float, int, int]]] = {_EDGE: [], _SYMMETRY: []}
    spelt: list[int] = []
    for link in graph["links"]:
        kind = link.get("type", {})
        if "py/reduce" in kind:
            spelt.append(int(kind["py/reduce"][1]["py/tuple"][0]))
            value = spelt[-1]
        else:
            number = int(kind.get("py/id", 1))
            value = spelt[number - 1] if number <= len(spelt) else number
        place = float(link.get("edge_insert_idx", np.inf))
        pairs[value].append((place, nodes.index(link["source"]), nodes.index(link["target"])))
    edges = tuple((a, b) for _, a, b in sorted(pairs[_EDGE], key=lambda pair: pair[0]))
    symmetry = dict.fromkeys((min(a, b), max(a, b)) for _, a, b in pairs[_SYMMETRY])
    keypoints = tuple(metadata["nodes"][i]["name"] for i in nodes)
    return Skeleton(keypoints, edges=edges, symmetry=tuple(symmetry))
