"""What should be labelled next? 2D and 3D poses of recordings in; suggestions, pictures, and stubs to label out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError, nearest_name
from calibration.files import load_rig
from calibration.files.atomic import write_bytes
from calibration.footage import open_footage
from calibration.rig import CameraRig
from pose3d.active import (
    HALF_APART,
    USUAL_TIMES,
    Doubts,
    Expected,
    Usual,
    choose_frames,
    expected_in_views,
    normal_pose,
    view_doubts,
    view_usual,
)
from pose3d.files import count_frames, load_poses, read_groups
from pose3d.label_check import Suspect
from pose3d.labels import Labels, Picture, join_labels
from pose3d.poses import Poses
from pose3d.records import Plan, Progress, StageReport, fingerprint_product, fingerprint_source, run_stage
from pose3d.session import Session, find_files, find_in, find_recordings
from pose3d.stages.recording import read_timeline
from pose3d.stages.training import fingerprint_labels, gather_labels

__all__ = ["SuggestOptions", "Take", "suggest_frames", "takes_of_predictions", "takes_of_session"]

VERSION = 1
CSV, SHEET, SLEAP, DEEPLABCUT = "suggestions.csv", "suggestions.png", "sleap", "deeplabcut"
WINDOW, STRETCHES, STRETCH = 1000, 20, 50
"""Frames in memory at a time; what is usual is learnt from so many stretches of so many frames."""
DOUBTFUL = 0.5
"""A keypoint with such a doubt is named."""


@dataclass(frozen=True)
class SuggestOptions:
    """count: frames to suggest. apart: frames that suggestions of one video keep from each other and from labelled
    ones."""

    count: int = 20
    apart: int = 10


@dataclass(frozen=True, eq=False)
class Take:
    """Poses that belong together: a recording's, or those of one video. poses, videos: {camera: path}. frames: {camera:
    (rows,) number in its video of each row of the poses, -1 = none}. results: folder with groups.nc and poses3d.nc, and
    calibration, where there are 3D poses."""

    recording: str
    poses: Mapping[str, Path]
    videos: Mapping[str, Path]
    frames: Mapping[str, NDArray[np.int64]]
    results: Path | None = None
    calibration: Path | None = None

    def folder(self, camera: str) -> str:
        """What the images of a camera are called in DeepLabCut's layout."""
        return "-".join(part for part in (self.recording, camera) if part)


@dataclass(frozen=True, eq=False)
class _Choice:
    """One suggested frame: of which take and camera, which row there, the slot it is about (-1 = somebody missing)."""

    take: Take
    camera: str
    row: int
    score: float
    slot: int


def takes_of_session(session: Session, recording: str | None = None) -> list[Take]:
    """The recordings of a session as `pose3d run` left them. Raises InputError without results or footage."""
    names = find_recordings(session)
    if recording is not None and recording not in names:
        raise InputError(f"recording '{recording}' is not in {session.data}; {nearest_name(recording, names)}")
    takes = []
    for name in names if recording is None else (recording,):
        results = session.results(name)
        if not (results / "poses2d/timeline.npz").is_file():
            raise InputError(
                f"{results}: expected the 2D poses of recording '{name}', found none; first: pose3d run {session.file}"
            )
        timeline = read_timeline(results / "poses2d/timeline.npz")
        videos = {c: p for c, p in find_files(session, "video", name).items() if c in timeline.view_names}
        if not videos:
            raise InputError(
                f"{session.data / session.patterns.video.replace('{recording}', name)}: expected the videos to take "
                f"pictures from, found none; correct `cameras.video` in {session.file}"
            )
        poses = {camera: results / f"poses2d/{camera}.nc" for camera in timeline.view_names}
        frames = {camera: timeline.frame[:, timeline.view(camera)] for camera in timeline.view_names}
        whole = all((results / file).is_file() for file in ("groups.nc", "poses3d.nc"))
        own = results / "calibration.toml"
        calibration = own if own.is_file() else session.output / "calibration.toml"
        takes.append(Take(name, poses, videos, frames, *((results, calibration) if whole else (None, None))))
    if not takes:
        raise InputError(f"{session.data}: expected recordings, found none; correct `cameras` in {session.file}")
    return takes


def takes_of_predictions(predictions: Path, videos: Iterable[Path]) -> list[Take]:
    """The poses that `pose3d predict` left of these videos, each one alone. Raises InputError where one is missing."""
    found = find_in(predictions, "poses2d")
    takes = []
    for video in videos:
        name = video.name if video.is_dir() else video.stem
        if name not in found:
            raise InputError(
                f"{predictions}: expected {name}.nc, the 2D poses of {video}; first: pose3d predict {video}"
            )
        frame = load_poses(found[name]).frame
        takes.append(Take("", {name: found[name]}, {name: video}, {name: frame}))
    return takes


def suggest_frames(
    folder: Path,
    takes: Sequence[Take],
    session: Session | None = None,
    options: SuggestOptions | None = None,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> StageReport:
    """Choose frames to label and write them into a folder: suggestions.csv, suggestions.png, sleap/<camera>.slp, and
    deeplabcut/, a project whose predictions the napari plugin refines.

    session: whose labels and their neighbours in time are left out. Raises InputError for results that do not fit, and
    where the folder holds other suggestions (somebody may be labelling there) without `force`.
    """
    options = options or SuggestOptions()
    if options.count < 1 or options.apart < 1:
        raise InputError(f"suggest: expected count and apart of at least 1, got {options.count} and {options.apart}")
    labels = gather_labels(session) if session is not None and session.labels else None
    inputs: dict[str, Any] = {} if labels is None else dict(fingerprint_labels(labels))
    for take in takes:
        for camera, path in take.poses.items():
            inputs[f"poses2d.{take.folder(camera)}"] = fingerprint_product(path)
        for camera, path in take.videos.items():
            inputs[f"video.{take.folder(camera)}"] = fingerprint_source(path)
        if take.results is not None and take.calibration is not None:
            products = (take.results / "groups.nc", take.results / "poses3d.nc", take.calibration)
            inputs |= {f"{path.name}.{take.recording}": fingerprint_product(path) for path in products}
    plan = Plan(folder, "suggest", VERSION, inputs, {"suggest": options}, (CSV, SHEET))
    if not force:
        _expect_nobody_labels(plan)

    def work() -> dict[str, Any]:
        choices = _chosen(takes, labels, options, progress)
        if not choices:
            raise InputError("suggest: no frame is doubtful, or all are near labelled ones; nothing is to be suggested")
        _write(folder, choices)
        told: dict[str, Any] = {"suggested": len(choices)}
        told["cameras"] = dict(Counter(choice.take.folder(choice.camera) for choice in choices))
        without = [t.folder(c) for t in takes for c in t.poses if c not in t.videos]
        return told | ({"left out, no video": without} if without else {})

    return run_stage(plan, work, force=force)


def _expect_nobody_labels(plan: Plan) -> None:
    """Raise InputError where finished suggestions of another plan would be overwritten."""
    if not plan.record.is_file() or not ((plan.folder / SLEAP).exists() or (plan.folder / DEEPLABCUT).exists()):
        return
    try:
        known = json.loads(plan.record.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        return
    if any(known.get(key) != value for key, value in plan.to_dict().items()):
        raise InputError(
            f"{plan.folder}: holds earlier suggestions, in which somebody may have labelled; give another folder "
            "(--into), or --force to write over them"
        )


def _chosen(
    takes: Sequence[Take], labels: Labels | None, options: SuggestOptions, progress: Progress | None
) -> list[_Choice]:
    """The frames to label, the best first."""
    found: list[_Choice] = []
    poses: list[NDArray[np.float64]] = []
    for done, take in enumerate(takes):
        if progress:
            progress("looking for doubtful frames", done, len(takes))
        for camera, (score, worst, pose) in _scores(take).items():
            frames = take.frames[camera]
            score = np.where((frames >= 0) & ~_labelled(take, camera, labels, options.apart), score, 0.0)
            for row in _best_of_stretches(score, frames, options.apart):
                found.append(_Choice(take, camera, int(row), float(score[row]), int(worst[row])))
                poses.append(pose[row])
    if progress:
        progress("looking for doubtful frames", len(takes), len(takes))
    if not found:
        return []
    if len({pose.shape for pose in poses}) > 1:
        raise InputError("suggest: expected the same keypoints in all poses, got different ones; suggest one by one")
    rows = choose_frames(
        np.array([choice.score for choice in found]),
        np.array([choice.take.frames[choice.camera][choice.row] for choice in found]),
        [choice.camera for choice in found],
        [choice.take.recording for choice in found],
        np.stack(poses),
        options.count,
        options.apart,
    )
    return [found[row] for row in rows]


def _best_of_stretches(score: NDArray[np.float64], frames: NDArray[np.int64], apart: int) -> NDArray[np.intp]:
    """The row with the highest score of each stretch of `apart` frames, where it is above 0."""
    order = np.lexsort((np.arange(len(score)), -score, frames // apart))
    order = order[(frames[order] >= 0) & (score[order] > 0)]
    return order[np.unique(frames[order] // apart, return_index=True)[1]]


def _labelled(take: Take, camera: str, labels: Labels | None, apart: int) -> NDArray[np.bool_]:
    """(rows,) which rows of a camera are labelled or near a labelled frame: of its video's path, or where the path does
    not tell, of a video or folder of its name, or of its camera."""
    frames = take.frames[camera]
    if labels is None:
        return np.zeros(len(frames), dtype=bool)
    video = take.videos[camera].absolute()
    names = {video.stem, video.name, take.folder(camera)}
    own = [
        frame
        for frame, name, of, picture in zip(labels.frame, labels.video, labels.camera, labels.pictures, strict=True)
        if picture.path.absolute() == video
        or (name in names and of in ("", camera) and (picture.position < 0 or picture.dataset))
    ]
    known = np.unique(np.array(own, dtype=np.int64))
    if not len(known):
        return np.zeros(len(frames), dtype=bool)
    right = np.searchsorted(known, frames).clip(0, len(known) - 1)
    left = (right - 1).clip(0)
    return np.minimum(np.abs(frames - known[left]), np.abs(frames - known[right])) < apart


def _scores(
    take: Take,
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.float64]]]:
    """{camera with footage: score (rows,), worst slot (rows,), normal pose of it (rows, keypoints, 2)}."""
    usual, n = _usual(take), _length(take)
    parts: dict[str, list[Any]] = {camera: [] for camera in take.videos}
    for start in range(0, n, WINDOW):
        for camera, poses, doubts in _doubts(take, usual, slice(start, min(start + WINDOW, n))):
            parts[camera].append((doubts.score, doubts.worst, normal_pose(poses, doubts.worst)))
    return {
        camera: (np.concatenate(a), np.concatenate(b), np.concatenate(c))
        for camera, (a, b, c) in ((camera, zip(*own, strict=True)) for camera, own in parts.items() if own)
    }


def _length(take: Take) -> int:
    return min(count_frames(path) for path in take.poses.values())


def _views(take: Take, rows: slice) -> tuple[dict[str, Poses], dict[str, Expected]]:
    """The 2D poses of all cameras with footage, and what the 3D poses say of them."""
    views = {camera: load_poses(take.poses[camera], frames=rows) for camera in take.videos}
    if take.results is None or take.calibration is None:
        return views, {}
    rig: CameraRig = load_rig(take.calibration)
    poses3d = load_poses(take.results / "poses3d.nc", frames=rows)
    return views, expected_in_views(poses3d, read_groups(take.results / "groups.nc", rows), rig)


def _usual(take: Take) -> dict[str, Usual]:
    """What is usual in each camera, from stretches spread over the recording."""
    n = _length(take)
    parts = [slice(0, n)]
    if n > STRETCH * STRETCHES:
        starts = np.linspace(0, n - STRETCH, STRETCHES).astype(int).tolist()
        parts = [slice(start, start + STRETCH) for start in starts]
    loaded = [_views(take, part) for part in parts]
    usual = {}
    for camera in take.videos:
        seen = [view_usual(views[camera], expected.get(camera)) for views, expected in loaded]
        share, (size, found, apart) = (
            np.mean([one.seen for one in seen], axis=0),
            np.median([(one.size, one.found, one.apart) for one in seen], axis=0).tolist(),
        )
        usual[camera] = Usual(size, share, found, apart)
    return usual


def _doubts(take: Take, usual: Mapping[str, Usual], rows: slice) -> Iterator[tuple[str, Poses, Doubts]]:
    views, expected = _views(take, rows)
    for camera, poses in views.items():
        yield camera, poses, view_doubts(poses, usual[camera], expected.get(camera))


def _write(folder: Path, choices: Sequence[_Choice]) -> None:
    """Everything that is told of the chosen frames."""
    import pandas as pd

    from pose3d.files.deeplabcut_stub import write_deeplabcut_stub
    from pose3d.files.sleap_stub import write_sleap_stub
    from pose3d.render.label_sheet import label_sheet
    from pose3d.video import save_picture

    usual = {id(take): _usual(take) for take in {id(c.take): c.take for c in choices}.values()}
    parts, scores, suspects, rows = [], [], [], []
    for rank, choice in enumerate(choices):
        labels, score, keypoints, why = _told(choice, usual[id(choice.take)])
        parts.append(labels)
        scores.append(score)
        where = f"{rank + 1}. {choice.take.folder(choice.camera)}, frame {labels.frame[0]}"
        suspects.append(Suspect("suggested", keypoints, why, where, rank, min(choice.slot, 0), choice.score))
        rows.append(
            {
                "rank": rank + 1, "recording": choice.take.recording, "camera": choice.camera,
                "video": choice.take.videos[choice.camera].name, "frame": int(labels.frame[0]), "score": choice.score,
                "why": " ".join(filter(None, (", ".join(keypoints), why))),
            }
        )  # fmt: skip
    labels = join_labels(parts)
    score = np.zeros(labels.points.shape[:3])
    for rank, own in enumerate(scores):
        score[rank, : own.shape[0]] = own
    images = dict(labels.images())
    nobody = np.full((len(labels), 1, *labels.points.shape[2:]), np.nan)  # the slot of who is missing: all of the image
    shown = replace(labels, points=np.concatenate((labels.points, nobody), axis=1))
    save_picture(folder / SHEET, label_sheet(shown, suspects, most=len(choices)))
    for camera in dict.fromkeys(labels.camera):
        mine = np.flatnonzero([name == camera for name in labels.camera])
        write_sleap_stub(folder / SLEAP / f"{camera}.slp", labels.take(mine), score[mine])
    folders = [choice.take.folder(choice.camera) for choice in choices]
    for row, path in enumerate(write_deeplabcut_stub(folder / DEEPLABCUT, labels, score, folders)):
        save_picture(path, images[row])
    table = pd.DataFrame(rows).to_csv(index=False, float_format="%.3g", lineterminator="\n")
    write_bytes(folder / CSV, table.encode())


def _told(choice: _Choice, usual: Mapping[str, Usual]) -> tuple[Labels, NDArray[np.float64], tuple[str, ...], str]:
    """One row of labels with the predictions of all animals there, the one it is about included, their scores
    (individuals, keypoints), the doubtful keypoints, and why, in words. Moves the choice's slot to the front."""
    take, camera, row = choice.take, choice.camera, choice.row
    near = slice(max(row - WINDOW // 20, 0), row + WINDOW // 20 + 1)
    poses, doubts = next((p, d) for name, p, d in _doubts(take, usual, near) if name == camera)
    here = row - near.start
    frame = int(take.frames[camera][row])
    with open_footage(take.videos[camera]) as footage:
        position = int(np.searchsorted(footage.frame_numbers, frame))
        if position == footage.n_frames or footage.frame_numbers[position] != frame:
            raise InputError(
                f"{take.videos[camera]}: expected frame {frame}, as in the poses, found none; give the video"
            )
    present = np.flatnonzero(~poses.missing[here].all(axis=1))
    first = [choice.slot] if choice.slot >= 0 else []
    order = np.array([*first, *(slot for slot in present.tolist() if slot not in first)], dtype=np.intp)
    order = order if len(order) else np.array([0] if poses.shape[1] else [], dtype=np.intp)
    points = poses.points[here : here + 1, order]
    picture = Picture(take.videos[camera], position)
    labels = Labels(points, np.array([frame]), (camera,), (take.folder(camera),), (picture,), poses.skeleton)
    return labels, poses.score[here, order], *_reason(doubts, usual[camera], poses, here, choice.slot)


def _reason(doubts: Doubts, usual: Usual, poses: Poses, row: int, slot: int) -> tuple[tuple[str, ...], str]:
    """The doubtful keypoints, and what is doubtful, in words."""
    if slot < 0:
        if doubts.lost[row]:
            return (), f"animals that other views see, but this one does not: {doubts.lost[row]}"
        return (), f"{doubts.count[row]} animals, {doubts.usual_count[row]} in most frames around"
    unsure, apart = doubts.unsure[row, slot], doubts.apart[row, slot]
    there = np.isfinite(poses.points[row, slot, :, 0])
    off = np.nan_to_num(apart) >= max(HALF_APART, USUAL_TIMES * usual.apart)
    doubtful = (unsure >= DOUBTFUL) | off
    if not doubtful.any():
        doubtful = unsure >= np.max(unsure)
    parts = []
    if (doubtful & off).any():
        parts.append(f"{np.nanmax(apart[off]):.2g} times the animal's size from where the other views have it")
    if (doubtful & there & ~off).any():
        parts.append(f"score {poses.score[row, slot][doubtful & there & ~off].min():.2f}")
    if (doubtful & ~there).any():
        parts.append(f"{np.count_nonzero(doubtful & ~there)} not found")
    if doubtful.all():
        return (), f"all keypoints doubtful: {', '.join(parts)}"
    names = tuple(np.array(poses.skeleton.keypoints)[doubtful].tolist())
    return names, f"doubtful: {', '.join(parts)}"
