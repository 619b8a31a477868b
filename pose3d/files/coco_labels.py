"""Which keypoints are labelled in COCO's JSON (images, annotations, categories), and where are its images?

(0, 0) is the centre of the first pixel, so nothing is moved: COCO's keypoints are 0-indexed pixels, its polygons and
boxes count from the corner (cocoapi `CocoApi.m`, `showAnns`, takes them to MATLAB's pixels by + 1 and by + .5;
detectron2 `datasets/coco.py`: "we assume the coordinates are pixel indices"); DeepLabCut (`COCOLoader`), mmpose and
sleap-io read them unchanged. Tools that draw in a browser (CVAT, Label Studio) count from the image's corner and write
that unchanged: their labels are half a pixel to the right and below, which no key of the file tells.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from pose3d.files.moved import find_moved
from pose3d.files.numbering import last_integer
from pose3d.labels import Labels, Picture
from pose3d.skeleton import Skeleton

__all__ = ["read_coco_labels"]

_LOG = logging.getLogger(__name__)

_KEYS = ("images", "annotations", "categories")
_IMAGE_FOLDERS = ("", "images", "data")
"""Where images stand, from the file's folder or the one above: beside it, as CVAT and DeepLabCut do, as AP-10K does."""
_SAMPLE = 100
"""Images that are looked for to tell the folder of all."""
_LONGEST_NAME = 255  # bytes, of a file system
_HIGHEST_FRAME = 2**62

Id = int | str


class _Category(NamedTuple):
    """A kind of animal: what it is called, its keypoints, and the pairs of them that are joined."""

    name: str
    keypoints: tuple[str, ...]
    edges: tuple[tuple[str, str], ...]


class _Animal(NamedTuple):
    """One annotation: where it stands in the file, its image, category, and keypoints (k, 2), NaN = not labelled."""

    where: str
    file: str
    category: Id | None
    points: NDArray[np.float64]


def read_coco_labels(path: Path, camera: str = "", video: str | os.PathLike[str] | None = None) -> Labels:
    """The images of a COCO file in which a keypoint is labelled; annotations of one image are its individuals.

    A keypoint of visibility 0 is not labelled, hidden ones (1) are. Crowds and annotations without keypoints (boxes,
    outlines) are left out. Categories of the animals may be several if they have the same keypoints. Edges are those of
    the categories' skeletons, which count from 1, or from 0 where a 0 is in them; none where they name keypoints that
    are not there. camera: name of the camera, of all images. video: its folder of images, where one of several is
    wanted. frame: the last integer in an image's name, or where that does not tell a folder's images apart, its place
    among them by name. Images are sought beside the file and one folder above, there in `images`, `data`, and folders
    whose name is in the file's; pictures may name files that do not exist. Raises InputError naming the file, the entry
    and the key when it is no such file, damaged, or has no labels, and for categories with different keypoints.
    """
    data = _read(path)
    files = _image_files(path, data["images"])
    animals = [_animal(path, files, place, entry) for place, entry in enumerate(data["annotations"])]
    labelled = [animal for animal in animals if animal is not None]
    if not labelled:
        raise InputError(f"{path}: expected annotations with labelled keypoints, found none; label some")
    skeleton, points = _onto_one_skeleton(path, labelled, _categories(path, data["categories"]))
    individuals: dict[str, list[NDArray[np.float64]]] = {}
    for animal, own in zip(labelled, points, strict=True):
        individuals.setdefault(animal.file, []).append(own)
    recordings = _recordings(path, files.values())
    rows = [
        (name, file, frame)
        for name, frames in recordings
        if video is None or name in (Path(video).name, Path(video).stem)
        for file, frame in frames
        if file in individuals
    ]
    if not rows:
        names = ", ".join(dict.fromkeys(name for name, _ in recordings))
        raise InputError(f"{path}: expected labelled images of {video}, found none; it holds {names}")
    slots = np.full((len(rows), max(len(individuals[file]) for _, file, _ in rows), len(skeleton), 2), np.nan)
    for row, (_, file, _) in enumerate(rows):
        slots[row, : len(individuals[file])] = individuals[file]
    return Labels(
        points=slots,
        frame=np.array([frame for _, _, frame in rows], dtype=np.int64),
        camera=(camera,) * len(rows),
        video=tuple(name for name, _, _ in rows),
        pictures=tuple(Picture(file) for file in _places(path, [file for _, file, _ in rows])),
        skeleton=skeleton,
    )


def _read(path: Path) -> dict[str, list[Any]]:
    """The lists under COCO's keys."""
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON, cut off or damaged ({error}); write it anew") from None
    if not isinstance(data, dict) or not set(_KEYS) <= set(data):
        got = ", ".join(list(data)[:10]) if isinstance(data, dict) else f"a {type(data).__name__}"
        raise InputError(
            f"{path}: expected COCO's labels, with the keys {', '.join(_KEYS)}, got {got or 'none'}; give the file of "
            "annotations"
        )
    for key in _KEYS:
        if not isinstance(data[key], list):
            raise InputError(f"{path}: {key}: expected a list, got {_told(data[key])}; correct it")
    return data


def _image_files(path: Path, entries: Sequence[Any]) -> dict[Id, str]:
    """The name of each image's file, by the image's id."""
    files: dict[Id, str] = {}
    for place, entry in enumerate(entries):
        where = f"{path}: images[{place}]"
        name, number = _value(where, entry, "file_name"), _identity(where, entry, "id")
        if not isinstance(name, str) or not _is_file_name(name):
            raise InputError(f"{where}: file_name: expected the name of a file, got {_told(name)}; correct it")
        if number in files:
            raise InputError(f"{where}: id: {_told(number)} is another image's, too; number the images anew")
        for key in ("width", "height"):
            size = entry.get(key)
            if size is not None and not (_is_number(size) and size > 0):
                raise InputError(f"{where}: {key}: expected pixels, above 0, got {_told(size)}; correct it")
        files[number] = name.replace("\\", "/")
    return files


def _is_file_name(name: str) -> bool:
    try:
        parts = name.replace("\\", "/").encode().split(b"/")
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    return b"\0" not in name.encode() and parts[-1].strip() != b"" and max(map(len, parts)) <= _LONGEST_NAME


def _animal(path: Path, files: Mapping[Id, str], place: int, entry: Any) -> _Animal | None:
    """What an annotation labels, None where that is no keypoint."""
    where = f"{path}: annotations[{place}]"
    if not isinstance(entry, dict):
        raise InputError(f"{where}: expected an object, got {_told(entry)}; correct it")
    if entry.get("iscrowd") == 1 or entry.get("keypoints") in (None, []):
        return None
    points = _points(where, entry["keypoints"])
    if np.isnan(points).all():
        return None
    image = _identity(where, entry, "image_id")
    if image not in files:
        raise InputError(
            f"{where}: image_id: expected the id of one of the images, got {_told(image)}; add the image, or take the "
            "annotation out"
        )
    category = None if entry.get("category_id") is None else _identity(where, entry, "category_id")
    return _Animal(where, files[image], category, points)


def _points(where: str, values: Any) -> NDArray[np.float64]:
    """(k, 2) of x, y, v triples, NaN where v is 0."""
    if not isinstance(values, list) or len(values) % 3:
        got = f"{len(values)} values" if isinstance(values, list) else _told(values)
        raise InputError(f"{where}: keypoints: expected a list of x, y, v for each keypoint, got {got}; correct it")
    known = [value is None or _is_number(value) for value in values]
    if not all(known):
        raise InputError(f"{where}: keypoints: expected numbers, got {_told(values[known.index(False)])}; correct it")
    triples = np.array([np.nan if value is None else value for value in values], dtype=np.float64).reshape(-1, 3)
    labelled = triples[:, 2] > 0
    bad = np.isnan(triples[:, 2]) | (labelled & ~np.isfinite(triples).all(axis=1))
    if bad.any():
        k = int(np.argmax(bad))
        raise InputError(
            f"{where}: keypoints: expected x, y, v of keypoint {k} to be finite, got {values[3 * k : 3 * k + 3]}; "
            "correct them, or write 0, 0, 0 for one that is not labelled"
        )
    return np.where(labelled[:, None], triples[:, :2], np.nan)


def _categories(path: Path, entries: Sequence[Any]) -> dict[Id, _Category]:
    categories: dict[Id, _Category] = {}
    for place, entry in enumerate(entries):
        where = f"{path}: categories[{place}]"
        number = _identity(where, entry, "id")
        names, name = entry.get("keypoints") or [], str(entry.get("name", number))
        if not isinstance(names, list) or not all(isinstance(k, str) and k.strip() for k in names):
            raise InputError(f"{where}: keypoints: expected a list of names, got {_told(names)}; correct it")
        keypoints = tuple(k.strip() for k in names)
        if len(set(keypoints)) < len(keypoints):
            raise InputError(f"{where}: keypoints: expected names that differ, got {_told(names)}; rename some")
        if number in categories:
            raise InputError(f"{where}: id: {_told(number)} is another category's, too; number the categories anew")
        categories[number] = _Category(name, keypoints, _edges(where, entry.get("skeleton"), keypoints))
    return categories


def _edges(where: str, pairs: Any, keypoints: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """By name; none where a pair names a keypoint that is not there: nothing tells what the others count from then."""
    pairs = pairs or []
    if not isinstance(pairs, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(_is_whole(end) for end in pair) for pair in pairs
    ):
        raise InputError(f"{where}: skeleton: expected pairs of keypoints' numbers, got {_told(pairs)}; correct it")
    numbers = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    numbers -= 0 if (numbers == 0).any() else 1
    if (numbers < 0).any() or (numbers >= len(keypoints)).any():
        if keypoints:
            _LOG.warning("%s: skeleton: names keypoints beyond the %d there are: left out", where, len(keypoints))
        return ()
    return tuple((keypoints[a], keypoints[b]) for a, b in numbers.astype(int).tolist() if a != b)


def _onto_one_skeleton(
    path: Path, animals: Sequence[_Animal], categories: Mapping[Id, _Category]
) -> tuple[Skeleton, list[NDArray[np.float64]]]:
    """The skeleton of all animals' categories, and each animal's points on it. One of an unknown category (parts of
    large files have such) may be of any."""
    with_keypoints = [category for category in categories.values() if category.keypoints]
    if not with_keypoints:
        raise InputError(f"{path}: categories: expected one with keypoints, their names, got none; add them")
    if all(animal.category in categories for animal in animals):
        numbers = dict.fromkeys(animal.category for animal in animals)
        used = [category for number, category in categories.items() if number in numbers]
    else:
        used = with_keypoints
    first = used[0]
    for other in used:
        if set(other.keypoints) != set(first.keypoints):
            differing = sorted(set(other.keypoints) ^ set(first.keypoints))
            raise InputError(
                f"{path}: categories: expected the same keypoints in all that are labelled, got others in "
                f"'{other.name}' than in '{first.name}': {', '.join(differing)} only in one of them; write each "
                "category into a file of its own, or rename its keypoints"
            )
    skeleton = Skeleton(first.keypoints)
    edges = skeleton.pairs_by_name(dict.fromkeys(edge for category in used for edge in category.edges))
    points = []
    for animal in animals:
        own = first if animal.category is None else categories.get(animal.category, first)
        if len(animal.points) != len(own.keypoints):
            raise InputError(
                f"{animal.where}: keypoints: expected {3 * len(own.keypoints)} numbers, x, y, v of each of the "
                f"{len(own.keypoints)} keypoints of '{own.name}', got {3 * len(animal.points)}; correct one of them"
            )
        points.append(animal.points[[own.keypoints.index(keypoint) for keypoint in skeleton.keypoints]])
    return Skeleton(first.keypoints, edges=edges), points


def _recordings(path: Path, files: Iterable[str]) -> list[tuple[str, list[tuple[str, int]]]]:
    """(name, (file, frame) of its images by frame) of each folder of images, in the file's order."""
    folders: dict[PurePosixPath, list[str]] = {}
    for file in dict.fromkeys(files):
        folders.setdefault(PurePosixPath(file).parent, []).append(file)
    recordings = []
    for folder, own in folders.items():
        frames = [_frame(path, file) for file in own]
        if min(frames) < 0 or len(set(frames)) < len(frames):
            own = sorted(own)
            frames = list(range(len(own)))
        recordings.append((folder.name or path.stem, sorted(zip(own, frames, strict=True), key=lambda pair: pair[1])))
    return recordings


def _frame(path: Path, file: str) -> int:
    """The last integer of a name, -1 where there is none."""
    try:
        frame = last_integer(PurePosixPath(file).name, path)
    except InputError:
        return -1
    return frame if frame < _HIGHEST_FRAME else -1


def _places(path: Path, files: Sequence[str]) -> list[Path]:
    """Where the images are, or are expected: in the folder in which the most of some of them stand."""
    sample = files[:: max(1, len(files) // _SAMPLE)]
    folder = path.absolute().parent
    folders = []
    for base in (base / name for base in (folder, folder.parent) for name in _IMAGE_FOLDERS):
        if base.is_dir():
            inside = sorted(entry.name for entry in os.scandir(base) if entry.name in path.stem and entry.is_dir())
            folders += [base, *(base / name for name in inside)]
    best = max(folders, key=lambda base: sum((base / file).exists() for file in sample), default=folder)
    expected = [best / file for file in files]
    moved = [place if place.exists() else find_moved(path, file) for place, file in zip(expected, files, strict=True)]
    return [found if found.exists() else place for found, place in zip(moved, expected, strict=True)]


def _value(where: str, entry: Any, key: str) -> Any:
    if not isinstance(entry, dict):
        raise InputError(f"{where}: expected an object, got {_told(entry)}; correct it")
    if key not in entry:
        raise InputError(f"{where}: {key}: expected, but not there; add it")
    return entry[key]


def _identity(where: str, entry: Any, key: str) -> Id:
    """A number or a text; 7.0, as tables write it, is 7."""
    value = _value(where, entry, key)
    if isinstance(value, str):
        return value
    if not _is_whole(value):
        raise InputError(f"{where}: {key}: expected a whole number, got {_told(value)}; correct it")
    return int(value)


def _is_number(value: Any) -> bool:
    """Whether it is a number that an array of floats can hold; NaN and infinity are."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)


def _is_whole(value: Any) -> bool:
    return _is_number(value) and float(value).is_integer()


def _told(value: Any) -> str:
    """A value for people: as JSON, cut short."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
