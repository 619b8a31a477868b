"""What would the pose3d.toml of this folder say? Cameras, footage, 2D poses, labels and calibration, as found."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from calibration.errors import InputError
from calibration.files import load_boards, load_rig
from calibration.files.atomic import write_bytes
from calibration.footage import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from pose3d.session import ENDINGS, LabelTable, Patterns, Session, find_files, find_labels, find_recordings

__all__ = ["Findings", "look_around", "write_session"]

_BOARD_WORDS = re.compile(r"calib|charuco|checker|board", re.IGNORECASE)
_CAMERA_WORDS = ("cam", "camera", "view", "kamera")
_LOOK_AT = 20000  # files
_LABELS = "labels/{camera}"
_IMAGES = "labeled-data"
"""The images of DeepLabCut's and Lightning Pose's projects."""
_OWN_FOLDERS = ("labels", "models")
"""What lies in these is neither 2D poses nor footage."""


@dataclass(frozen=True)
class Findings:
    """What a folder holds.

    patterns: {field of Patterns: pattern} that differ from the house's layout. cameras, recordings: names. board,
    calibration: paths relative to the folder, or None; rig_unit: None where the calibration does not say.
    labels: pattern of labelled frames, or None. model: a network, or a folder of several, or None.
    """

    patterns: dict[str, str]
    cameras: tuple[str, ...]
    recordings: tuple[str, ...]
    board: str | None
    calibration: str | None
    rig_unit: str | None
    labels: str | None = None
    model: str | None = None

    def lines(self) -> list[str]:
        """For people: one line for each thing."""
        told = self.patterns | {"labels": self.labels, "network": self.model}
        places = [f"{what}: {pattern}" for what, pattern in told.items() if pattern is not None]
        return [
            f"cameras: {', '.join(self.cameras) or 'none found'}",
            f"recordings: {', '.join(self.recordings) or 'none found'}",
            f"board: {self.board or 'none found'}",
            f"calibration: {self.calibration or 'none found'}",
            *places,
        ]


def write_session(folder: Path, *, force: bool = False) -> tuple[Path, list[str]]:
    """Write a commented pose3d.toml into a folder; returns its path and what was found, a line each.

    Raises InputError where the folder is missing, or holds a pose3d.toml already (force: overwrite it).
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: expected the folder of a session, found none; make it and put the data there")
    path = folder / "pose3d.toml"
    if path.exists() and not force:
        raise InputError(f"{path}: is there already; edit it, or write it anew with --force")
    found = look_around(folder)
    write_bytes(path, _text(found).encode())
    return path, found.lines()


def look_around(folder: Path) -> Findings:
    """Look for the files of a session: in the house's layout first, else wherever names differ only by the camera."""
    house = _session(folder, Patterns())
    everything, pictures = _tree(folder)
    labelled = _labelled((*everything, *pictures))
    files = [f for f in everything if f.partition("/")[0] not in _OWN_FOLDERS and f not in labelled]
    guesses = {
        "calibration": _first_guess(
            [p for p in (*pictures, *_ending(files, VIDEO_SUFFIXES)) if _BOARD_WORDS.search(p)]
        ),
        "poses2d": _poses_guess(folder, files),
        "video": _first_guess([p for p in _ending(files, VIDEO_SUFFIXES) if not _BOARD_WORDS.search(p)]),
    }
    recordings = find_recordings(house)
    usual = {"calibration": bool(find_files(house, "calibration"))}
    usual |= {what: any(find_files(house, what, name) for name in recordings) for what in ("poses2d", "video")}
    patterns = {what: guess for what, guess in guesses.items() if guess is not None and not usual[what]}
    session = _session(folder, Patterns(**patterns))
    recordings = find_recordings(session)
    cameras: dict[str, None] = {}
    for what in ("poses2d", "video", "calibration"):
        for name in recordings or ("",):
            cameras |= dict.fromkeys(find_files(session, what, name))
    tomls = _ending(files, (".toml",))
    board = next((p for p in tomls if _reads(load_boards, folder / p)), None)
    rigs = [p for p in tomls if _reads(load_rig, folder / p) or _reads(_rig_in_no_unit, folder / p)]
    unit = None if not rigs or not _reads(load_rig, folder / rigs[0]) else load_rig(folder / rigs[0]).unit
    found = Findings(patterns, tuple(cameras), recordings, board, rigs[0] if rigs else None, unit)
    return replace(found, labels=_labels(house), model=_model(everything))


def _labels(house: Session) -> str | None:
    """The house's pattern where there are labels, else the folder of a DeepLabCut or Lightning Pose project."""
    try:
        find_labels(house, LabelTable(_LABELS))
    except InputError:
        folders = [
            path.parent for path in (house.data / _IMAGES, *sorted(house.data.glob(f"*/{_IMAGES}"))) if path.is_dir()
        ]
        projects = [path for path in folders if (path / "config.yaml").is_file() or any(path.glob("*.csv"))]
        return projects[0].relative_to(house.data).as_posix() if projects else None
    return _LABELS


def _labelled(paths: Iterable[str]) -> set[str]:
    """What is part of a project's labels, and no 2D poses: what lies among its images, tables beside these or of their
    name."""
    parts = {path: path.split("/") for path in paths}
    roots = {tuple(own[: own.index(_IMAGES)]) for own in parts.values() if _IMAGES in own}
    return {
        path
        for path, own in parts.items()
        if _IMAGES in own or own[-1].startswith("CollectedData") or (path.endswith(".csv") and tuple(own[:-1]) in roots)
    }


def _model(files: list[str]) -> str | None:
    """The network in models/, or that folder where there are several."""
    networks = [f for f in files if f.startswith("models/") and f.endswith(".safetensors")]
    return None if not networks else networks[0] if len(networks) == 1 else "models"


def _session(folder: Path, patterns: Patterns) -> Session:
    return Session(file=folder / "pose3d.toml", data=folder, output=folder / "results", patterns=patterns)


def _tree(folder: Path) -> tuple[list[str], list[str]]:
    """Files, and folders of images, relative to the folder; results and hidden ones are not looked at."""
    files: list[str] = []
    pictures: dict[str, None] = {}
    for path in sorted(folder.rglob("*"))[:_LOOK_AT]:
        place = path.relative_to(folder)
        if place.parts[0] == "results" or any(part.startswith(".") for part in place.parts) or not path.is_file():
            continue
        if path.suffix.lower() in IMAGE_SUFFIXES and place.parts[0] not in _OWN_FOLDERS:
            pictures[place.parent.as_posix()] = None
        else:
            files.append(place.as_posix())
    return files, list(pictures)


def _ending(files: Iterable[str], endings: Iterable[str]) -> list[str]:
    return [f for f in files if f.lower().endswith(tuple(endings))]


def _poses_guess(folder: Path, files: list[str]) -> str | None:
    """The pattern of the 2D poses: the preferred kind of file of which there are several, or folders of OpenPose."""
    for ending in ENDINGS["poses2d"]:
        if ending.startswith("."):
            plain = [f for f in _ending(files, (ending,)) if ending != ".h5" or not f.endswith(".analysis.h5")]
            guess = _first_guess(plain)
            if guess is not None:
                return guess
    return _first_guess(sorted({Path(f).parent.as_posix() for f in _ending(files, (".json",))}))


def _first_guess(paths: list[str]) -> str | None:
    """The pattern of the first set of paths that differ only by one name, {camera}; None where no two do."""
    alike: dict[tuple[str, ...], list[list[str]]] = defaultdict(list)
    for path in paths:
        tokens = re.split(r"([/_.\-])", path)
        alike[tuple(tokens[1::2])].append(tokens)
    for group in alike.values():
        varying = [i for i, column in enumerate(zip(*group, strict=True)) if len(set(column)) > 1]
        if len(group) < 2 or not varying or any(len({tokens[i] for i in varying}) > 1 for tokens in group):
            continue
        tokens = list(group[0])
        for i in varying:
            tokens[i] = "{camera}"
            if i >= 2 and tokens[i - 2].lower() in _CAMERA_WORDS and tokens[i - 1] in "_-":
                tokens[i - 2] = tokens[i - 1] = ""
        return "".join(tokens)
    return None


def _reads(load: object, path: Path) -> bool:
    try:
        load(path)  # type: ignore[operator]
    except InputError:
        return False
    return True


def _rig_in_no_unit(path: Path) -> None:
    load_rig(path, unit="any")


def _text(found: Findings) -> str:
    """The file: what was found is said, what may be said besides stands in comments."""
    names = ", ".join(f'"{name}"' for name in found.cameras)
    recordings = ", ".join(f'"{name}"' for name in found.recordings)
    patterns = "".join(f'{what} = "{pattern}"\n' for what, pattern in found.patterns.items())
    from_board = found.board is not None
    give = found.calibration is not None and not from_board
    return _TEMPLATE.format(
        unit=f'unit = "{found.rig_unit or "mm"}"' if give else '# unit = "mm"',
        recordings=f"recordings = [{recordings}]" if recordings else "# recordings = []",
        names=f"names = [{names}]" if names else "# names = []",
        patterns=patterns
        or "# All lie where they are expected; see the README for the layout, or give patterns here.\n",
        board=f'file = "{found.board}"' if from_board else '# file = "board.toml"',
        board_table="" if from_board else "# ",
        calibration_table="" if give else "# ",
        labels_table="" if found.labels else "# ",
        labels=found.labels or _LABELS,
        labelled=found.recordings[0] if found.recordings else "day1",
        model_table="" if found.model else "# ",
        model=found.model or "models/network.safetensors",
        calibration=f'{"" if give else "# "}file = "{found.calibration or "calibration.toml"}"',
    )


_TEMPLATE = """\
# A session of pose3d. Paths are relative to this file's folder, or to --data; results go to `results`, or to --output.

[session]
# Unit of length of a given calibration that does not say its own. A board says it for itself.
{unit}
{recordings}
# fps = 50.0                  # frames per second, where the files do not say

[cameras]
{names}
# Where each camera's files lie; {{camera}} and {{recording}} stand for their names. An ending may be left out.
{patterns}
# Where a calibration calls a camera otherwise: its name there = its name here.
# rename = {{ cam_01 = "cam01" }}

# The printed board, or boards, filmed to calibrate the cameras.
{board_table}[board]
{board}

# What takes no part in finding it.
# [detect]
# leave_out.top = [12, [100, 140]]          # frames of its board footage, ranges with both ends; all = of each camera
# masks = {{ side = "masks/side.png" }}     # an image of the size of the camera's: corners on black are ignored

# A finished calibration, instead of footage of a board.
{calibration_table}[calibration]
{calibration}

# Where the world is: default the first camera's place, or that of the given calibration. One way of these, if any.
# [world]
# floor_frame = 12            # frame of the board footage in which the board lies on the floor: z is up from it
# floor = ["a", "b", "c"]     # or points on the floor, three or more
# [world.points.a]            # seen by two cameras or more
# pixels = {{ top = [512.0, 400.5], side = [310.2, 633.0] }}
# position = [0, 0, 0]        # or where the points shall be, of three or more; [world] free_scale = true: the scale too
# [[world.distances]]         # what the rig measures, and how sure that is, against what is known
# between = ["a", "b"]
# length = 300.0

# Frames that were labelled by hand (SLEAP, DeepLabCut, Lightning Pose, COCO's .json): a network learns from them to
# predict recordings that have only videos. Alone: `pose3d train`.
{labels_table}[labels]
{labels_table}files = "{labels}"
# video = "recordings/{labelled}/{{camera}}.mp4"   # the labelled videos, if not where a SLEAP project says
# missing = "skip"            # leave out labels whose images are not there

# [train]                     # how; every key may be left out
# backbone = "efficientnet_lite0"   # or "mobilenet_v2" of any width, or "timm:<name>"
# steps = 2000                # batches of 8 pictures at most; it stops earlier where nothing is gained
# flip = true                 # learn from mirrored pictures, too: for animals whose left and right look alike
# networks = "shared_backbone"      # one for each camera: on a common backbone, or "per_camera": trained alone
# start = "old.safetensors"   # go on from a network that was trained before, perhaps on other keypoints

# A network that was trained before, instead.
{model_table}[predict]
{model_table}model = "{model}"

# [skeleton]                  # where the files of the 2D poses do not say
# edges = [["nose", "neck"], ["neck", "tail_base"]]       # drawn as lines
# bones = [["nose", "neck"]]                              # constant in length: steadies the 3D poses

# [sync]                      # where cameras did not start together
# offset_frames = {{ top = 3 }}   # this camera started 3 frames later
# trim = true                 # keep only what all cameras saw

# [assemble]                  # candidates of keypoints to individuals, where a network predicts them
# min_score = 0.3             # less sure keypoints are left out

# [identify]
# individuals = 2             # how many animals there are (default: as many as are seen)
"""
