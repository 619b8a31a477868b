"""Where is everything of a session? Its cameras, files, recordings and options, whatever the layout of its folders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from calibration.errors import InputError
from calibration.footage import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from pose3d.skeleton import Skeleton

__all__ = [
    "ENDINGS",
    "LabelTable",
    "Patterns",
    "Session",
    "SkeletonTable",
    "drawn_skeleton",
    "find_files",
    "find_in",
    "find_labels",
    "find_recordings",
]

VIDEO_ENDINGS = (*VIDEO_SUFFIXES, *(suffix.upper() for suffix in VIDEO_SUFFIXES))
ENDINGS: dict[str, tuple[str, ...]] = {
    "calibration": (*VIDEO_ENDINGS, ""),
    "intrinsics": (*VIDEO_ENDINGS, ""),
    "poses2d": (".nc", ".analysis.h5", ".slp", ".h5", ".csv", "_json", ""),
    "video": (*VIDEO_ENDINGS, ""),
    "labels": (".pkg.slp", ".slp", ".h5", ".csv", ".json", ""),
}
"""What a pattern without an ending may end in, the preferred one first; "" is a folder."""

_COCO = (b'"annotations"', b'"keypoints"')
"""What stands in COCO's labels, and not in any .json."""

NamePairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Patterns:
    """Where the files of a camera lie, relative to the data folder.

    {camera} and {recording} stand for their names, * for anything. A pattern may leave the ending out.
    """

    calibration: str = "calibration/{camera}"
    intrinsics: str = "calibration/intrinsics/{camera}"
    poses2d: str = "recordings/{recording}/poses2d/{camera}"
    video: str = "recordings/{recording}/{camera}"


@dataclass(frozen=True)
class SkeletonTable:
    """What `[skeleton]` says about the animals, by keypoint name; None = as the files of the poses say.

    keypoints: all there are, in order; a file's other keypoints are an error, those that a file lacks are missing, and
    the files' pairs no longer count.
    """

    keypoints: tuple[str, ...] | None = None
    edges: NamePairs | None = None
    bones: NamePairs | None = None
    symmetry: NamePairs | None = None


@dataclass(frozen=True)
class LabelTable:
    """Where labelled frames lie: one `[labels]` or `[[labels]]`, paths relative to the data folder.

    files: SLEAP projects, DeepLabCut or Lightning Pose tables or projects' folders, COCO's .json; {camera} stands for
    the camera's name, "." for the data folder. camera: whose a file without {camera} is, "" = several (a Lightning Pose
    project names its views) or unknown. frames: (first, last) to take, None = all. missing: "error", or
    "skip" to leave out labels whose image is missing. video: where the labelled videos lie, if not where a SLEAP
    project says.
    """

    files: str
    camera: str = ""
    frames: tuple[int, int] | None = None
    missing: str = "error"
    video: str | None = None


@dataclass(frozen=True)
class Session:
    """One session, as `pose3d.toml` describes it.

    file: the TOML, for messages. data: folder that patterns and paths are relative to; never written to. output: folder
    of the results. unit: of the world; None = the board's or the calibration's. recordings, cameras: their names,
    empty = find them. rename: a camera's name in the given calibration -> its name here.
    board: a path relative to data, a Board, several, or None. calibration: path of a given one relative to data, or
    None; intrinsics: of a calibration whose intrinsics are taken and only the cameras' places sought, or None.
    labels: where frames to train a network on lie. options: options dataclasses by the name of their table.
    window: frames per window of every stage.
    """

    file: Path
    data: Path
    output: Path
    unit: str | None = None
    fps: float | None = None
    recordings: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    patterns: Patterns = Patterns()
    board: Any = None
    calibration: str | None = None
    calibration_format: str | None = None
    intrinsics: str | None = None
    poses2d_format: str | None = None
    skeleton: SkeletonTable = SkeletonTable()
    labels: tuple[LabelTable, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    window: int = 1000

    def results(self, recording: str) -> Path:
        """The folder of a recording's results."""
        return self.output / recording


def find_files(session: Session, what: str, recording: str = "") -> dict[str, Path]:
    """{camera: path} of what the pattern `what` (a field of Patterns) matches, in the session's order of cameras.

    Without names in the session every camera that is found, by name; empty where there is none. Raises InputError with
    the camera and the place where a named camera's file was looked for and is missing.
    """
    pattern = getattr(session.patterns, what).replace("{recording}", recording)
    if not session.cameras:
        return _matching(session.data, pattern, what)
    found = {name: _matching(session.data, pattern.replace("{camera}", name), what) for name in session.cameras}
    if not any(found.values()):
        return {}
    for name, paths in found.items():
        if not paths:
            raise InputError(
                f"camera '{name}': expected {_place(session, pattern, name)}, found nothing there; "
                f"correct `cameras.{what}` or `cameras.names` in {session.file}"
            )
    return {name: next(iter(paths.values())) for name, paths in found.items()}


def find_labels(session: Session, table: LabelTable) -> list[tuple[str, Path, Path | None]]:
    """(camera, labels, the video that was labelled or None) of every file of a table; of the session's cameras only,
    where it names them. Raises InputError where there is none, or a video is missing."""
    found = _matching(session.data, table.files, "labels")
    wanted = ("", *session.cameras) if session.cameras else tuple(found)
    named = {name or table.camera: path for name, path in found.items() if name in wanted}
    if not named:
        raise InputError(
            f"{session.data / table.files}: expected labelled frames, found none; correct `labels.files` in "
            f"{session.file}"
        )
    files = []
    for name, path in named.items():
        video = None
        if table.video is not None:
            pattern = table.video.replace("{camera}", name)
            video = next(iter(_matching(session.data, pattern, "video").values()), None)
            if video is None:
                raise InputError(
                    f"camera '{name}': expected the labelled video {session.data / pattern}, found nothing there; "
                    f"correct `labels.video` in {session.file}"
                )
        files.append((name, path, video))
    return files


def find_in(folder: Path, what: str) -> dict[str, Path]:
    """{camera: path} of what a folder holds under the cameras' names; what: a field of Patterns. Raises InputError."""
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder, found none; check the path")
    return _matching(folder, "{camera}", what)


def find_recordings(session: Session) -> tuple[str, ...]:
    """The session's recordings: those it names, else every folder that stands where the patterns say {recording}.

    A layout without {recording} holds one, named after the data folder. Empty where there is nothing, and where
    {recording} is only part of a file's name: name the recordings then.
    """
    if session.recordings:
        return session.recordings
    names: set[str] = set()
    for what in ("poses2d", "video"):
        pattern = getattr(session.patterns, what)
        if "{recording}" in pattern:
            names |= {
                n
                for n in _folders(session.data, pattern)
                if _matching(session.data, pattern.replace("{recording}", n), what)
            }
        elif _matching(session.data, pattern, what):
            names.add(session.data.resolve().name)
    return tuple(sorted(names))


def drawn_skeleton(skeleton: Skeleton, table: SkeletonTable) -> Skeleton:
    """The skeleton with the pairs that the session names; those it does not name stay. Raises InputError for a keypoint
    that the skeleton lacks."""
    pairs: dict[str, Any] = {}
    for what in ("edges", "bones", "symmetry"):
        named = getattr(table, what)
        if named is not None:
            try:
                pairs[what] = skeleton.pairs_by_name(named)
            except InputError as error:
                raise InputError(f"skeleton.{what}: {error}; correct pose3d.toml") from None
    return replace(skeleton, **pairs)


def _matching(root: Path, pattern: str, what: str) -> dict[str, Path]:
    """{what stands for {camera}: path} by name; of several endings the first wins. Without {camera} one, named ""."""
    root, pattern = _anchored(root, pattern)
    if pattern == ".":
        return {"": root} if root.is_dir() and _holds(root, what) else {}
    found: dict[str, Path] = {}
    taken: set[Path] = set()
    endings = ("",) if Path(pattern).suffix else ENDINGS[what]
    for ending in endings:
        expression = _expression(pattern + ending)
        for path in sorted(root.glob(pattern.replace("{camera}", "*") + ending)):
            match = expression.fullmatch(path.relative_to(root).as_posix())
            plain_file = ending == "" and not Path(pattern).suffix and not path.is_dir()
            other_json = ending == ".json" and not _is_coco(path)
            if match is None or plain_file or other_json or path in taken or not _holds(path, what):
                continue
            name = match.groupdict().get("camera", "")
            if name != "intrinsics":
                found.setdefault(name, path)
                taken.add(path)
    return dict(sorted(found.items()))


def _anchored(root: Path, pattern: str) -> tuple[Path, str]:
    """Where a pattern begins, which may be an absolute path, and the pattern from there."""
    anchor = Path(pattern).anchor
    return (Path(anchor), Path(pattern).relative_to(anchor).as_posix()) if anchor else (root, pattern)


def _folders(root: Path, pattern: str) -> list[str]:
    """The names of the folders that stand where a pattern says {recording}."""
    root, pattern = _anchored(root, pattern)
    upto, slash, _ = pattern.partition("{recording}")[2].partition("/")
    head = pattern.partition("{recording}")[0] + "{recording}" + upto
    if not slash:
        return []
    expression = _expression(head.replace("{camera}", "*").replace("{recording}", "{camera}"))
    places = (p for p in sorted(root.glob(head.replace("{recording}", "*").replace("{camera}", "*"))) if p.is_dir())
    matches = (expression.fullmatch(place.relative_to(root).as_posix()) for place in places)
    return [match["camera"] for match in matches if match]


def _holds(path: Path, what: str) -> bool:
    """Whether a folder holds what it should: OpenPose's JSON, labels of DeepLabCut or Lightning Pose, or images. A file
    always does."""
    if not path.is_dir():
        return True
    if what == "labels":
        named = any((path / name).exists() for name in ("config.yaml", "project.yaml", "labeled-data"))
        return named or any(path.glob("CollectedData*"))
    suffixes = (".json",) if what == "poses2d" else IMAGE_SUFFIXES
    return any(file.suffix.lower() in suffixes for file in path.iterdir())


def _is_coco(path: Path) -> bool:
    try:
        text = path.read_bytes()
    except OSError:
        return False
    return all(key in text for key in _COCO)


def _expression(pattern: str) -> re.Pattern[str]:
    """The pattern as a regular expression; {camera} is the same name everywhere."""
    text = re.escape(pattern).replace(r"\*", "[^/]*")
    camera = re.escape("{camera}")
    text = text.replace(camera, "(?P<camera>[^/]+?)", 1)
    return re.compile(text.replace(camera, "(?P=camera)"))


def _place(session: Session, pattern: str, camera: str) -> Path:
    return session.data / pattern.replace("{camera}", camera)
