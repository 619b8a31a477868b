"""Which keypoints did somebody mark, in which images? Labelled frames, their pictures, and what is held out of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.errors import InputError
from pose3d.poses import Poses
from pose3d.skeleton import Skeleton

__all__ = ["Labels", "Picture", "check_labels", "hold_out", "join_labels", "labels_of_poses"]

RGB = NDArray[np.uint8]

_SEEK_FRAMES = 100
"""Labelled frames of a video that are further apart are sought; nearer ones are reached by decoding what is between."""
_SHORT_FRAMES = 5
"""Labelled frames below which a recording is too short to hold some out; also how long a held block should be."""
_HELD_BLOCKS = 5
"""Blocks of one recording at most: a frame at a block's border is almost its neighbour, which is trained on."""
_OUTSIDE_PX = 0.5
"""How far beyond the image's border a label may stand."""
_FIRST_TRUE_COLOUR_FORMAT = 1.4
_PNG, _PNG_SIZE = b"\x89PNG\r\n\x1a\n", 16
"""How a PNG begins, and where its head has width and height."""


@dataclass(frozen=True)
class Picture:
    """Where an image stands: an image file (position -1), frame `position` of a video (or of a folder of images), or
    row `position` of an HDF5 dataset of images.
    """

    path: Path
    position: int = -1
    dataset: str = ""


@dataclass(frozen=True, eq=False)
class Labels:
    """Labelled frames, one a row, of any number of cameras and videos.

    points: (n, individuals, keypoints, 2) px, NaN = not labelled; the individuals axis is only a slot.
    frame: (n,) number in the source video. camera, video: (n) names, of the camera ("" = unknown) and of the recording.
    pictures: (n) where the images stand. skeleton: the keypoints. Raises InputError when the shapes do not fit.
    """

    points: NDArray[np.float64]
    frame: NDArray[np.int64]
    camera: tuple[str, ...]
    video: tuple[str, ...]
    pictures: tuple[Picture, ...]
    skeleton: Skeleton

    def __post_init__(self) -> None:
        points = np.asarray(self.points, dtype=np.float64)
        frame = np.asarray(self.frame, dtype=np.int64)
        n, keypoints = len(frame), len(self.skeleton)
        if points.ndim != 4 or (points.shape[0], *points.shape[2:]) != (n, keypoints, 2):
            raise InputError(f"labels: expected points ({n}, individuals, {keypoints}, 2), got {points.shape}")
        for name in ("camera", "video", "pictures"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if len(getattr(self, name)) != n:
                raise InputError(f"labels: expected {n} of {name}, one a frame, got {len(getattr(self, name))}")
        known = np.isfinite(points).all(axis=-1, keepdims=True)
        object.__setattr__(self, "points", np.where(known, points, np.nan))
        object.__setattr__(self, "frame", frame)

    def __len__(self) -> int:
        return len(self.frame)

    def take(self, rows: ArrayLike) -> Labels:
        """These rows (numbers or a mask), in this order."""
        chosen = np.asarray(rows)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.intp)
        return replace(
            self,
            points=self.points[chosen],
            frame=self.frame[chosen],
            camera=tuple(self.camera[row] for row in chosen),
            video=tuple(self.video[row] for row in chosen),
            pictures=tuple(self.pictures[row] for row in chosen),
        )

    def onto(self, skeleton: Skeleton) -> Labels:
        """The same labels in a skeleton's order of keypoints; not labelled where these have none.

        Raises InputError for a keypoint that is not in the skeleton.
        """
        points = np.full((*self.points.shape[:2], len(skeleton), 2), np.nan)
        points[:, :, [skeleton.index(keypoint) for keypoint in self.skeleton.keypoints]] = self.points
        return replace(self, points=points, skeleton=skeleton)

    def image(self, row: int) -> RGB:
        """The image of one row, RGB (h, w, 3). Raises InputError naming a file that cannot be read."""
        return next(self.take([row]).images())[1]

    def images(self) -> Iterator[tuple[int, RGB]]:
        """(row, image) of every row, RGB (h, w, 3), source after source and by position in each, so not in the order of
        the rows: every file is opened once and read in one direction. Raises InputError naming a file that cannot be
        read.
        """
        for (path, dataset), rows in _by_source(self).items():
            positions = np.array([self.pictures[row].position for row in rows])
            for position, image in _read(path, dataset, np.unique(positions)):
                for place in np.flatnonzero(positions == position):
                    yield rows[place], image


def labels_of_poses(poses: Poses, pictures: Sequence[Picture], camera: str, video: str) -> Labels:
    """The frames of 2D poses that have a keypoint at all, as labels of one recording; pictures (frames)."""
    labels = Labels(
        points=poses.points,
        frame=poses.frame,
        camera=(camera,) * len(poses.frame),
        video=(video,) * len(poses.frame),
        pictures=tuple(pictures),
        skeleton=poses.skeleton,
    )
    return labels.take(~poses.missing.all(axis=(1, 2)))


def join_labels(parts: Sequence[Labels]) -> Labels:
    """One after the other, on the first one's skeleton. Raises InputError naming both where the keypoints differ."""
    if not parts:
        raise InputError("labels: expected labelled frames, got none; give some")
    skeleton = parts[0].skeleton
    for part in parts:
        if set(part.skeleton.keypoints) != set(skeleton.keypoints):
            first, other = (", ".join(dict.fromkeys(labels.video)) or "no video" for labels in (parts[0], part))
            differing = sorted(set(part.skeleton.keypoints) ^ set(skeleton.keypoints))
            raise InputError(
                f"labels: expected the same keypoints in all, got others in {other} than in {first}: "
                f"{', '.join(differing)} only in one of them; rename them, or give a skeleton that has all"
            )
    individuals = max(part.points.shape[1] for part in parts)
    points = [
        np.pad(p, ((0, 0), (0, individuals - p.shape[1]), (0, 0), (0, 0)), constant_values=np.nan)
        for p in (part.onto(skeleton).points for part in parts)
    ]
    return Labels(
        points=np.concatenate(points),
        frame=np.concatenate([part.frame for part in parts]),
        camera=tuple(name for part in parts for name in part.camera),
        video=tuple(name for part in parts for name in part.video),
        pictures=tuple(picture for part in parts for picture in part.pictures),
        skeleton=skeleton,
    )


def hold_out(labels: Labels, share: float = 0.1) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(rows to train on, rows held out), both ascending: a share of the labelled frames of every recording, in blocks.

    Neighbouring frames look alike, so what is held are blocks of frames that follow each other, in the middles of equal
    parts of the recording: as many as give blocks of 5 frames, at most 5. A recording with fewer than 5 labelled frames
    gives none; where all have fewer, every tenth row (for a share of 0.1) is held. Recordings are told apart by camera,
    video and folder; rows of one frame stay together. Raises InputError for a share that is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise InputError(f"hold_out: expected a share between 0 and 1, got {share}; 0.1 is usual")
    recordings: dict[tuple[str, str, Path], list[int]] = {}
    for row, picture in enumerate(labels.pictures):
        recordings.setdefault((labels.camera[row], labels.video[row], picture.path.parent), []).append(row)
    held = np.zeros(len(labels), dtype=bool)
    for rows in recordings.values():
        frames, order = np.unique(labels.frame[rows], return_inverse=True)
        if len(frames) >= _SHORT_FRAMES:
            held[rows] = _held_blocks(len(frames), share)[order]
    if not held.any() and len(labels) > 1:
        step = max(2, round(1 / share))
        held[min(step, len(labels)) // 2 :: step] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def check_labels(labels: Labels) -> None:
    """Raise InputError where a label stands more than half a pixel outside its image, or its frame is not in the video.

    Reads the sizes only, from the files' heads where these have them.
    """
    size = np.zeros((len(labels), 1, 1, 2))
    for (path, dataset), rows in _by_source(labels).items():
        size[rows] = _size(path, dataset, max(labels.pictures[row].position for row in rows))
    border = 0.5 + _OUTSIDE_PX
    outside = ((labels.points < -border) | (labels.points > size - 1 + border)).any(axis=-1)
    if outside.any():
        row, slot, keypoint = np.argwhere(outside)[0]
        x, y = labels.points[row, slot, keypoint]
        width, height = size[row, 0, 0].astype(int)
        camera = f", camera '{labels.camera[row]}'" if labels.camera[row] else ""
        raise InputError(
            f"{labels.pictures[row].path}{camera}, frame {labels.frame[row]}: expected labels inside the image of "
            f"{width} x {height} px, got '{labels.skeleton.keypoints[keypoint]}' at ({x:.1f}, {y:.1f}), and "
            f"{outside.sum()} of {np.isfinite(labels.points[..., 0]).sum()} labels outside in all; "
            "correct them, or give the video that was labelled"
        )


def _held_blocks(n: int, share: float) -> NDArray[np.bool_]:
    """(n,) which frames of a recording are held."""
    count = min(max(1, round(share * n)), n - 1)
    blocks = min(max(1, count // _SHORT_FRAMES), _HELD_BLOCKS)
    held = np.zeros(n, dtype=bool)
    for part, block in zip(*(np.array_split(np.arange(whole), blocks) for whole in (n, count)), strict=True):
        first = part[0] + (len(part) - len(block)) // 2
        held[first : first + len(block)] = True
    return held


def _by_source(labels: Labels) -> dict[tuple[Path, str], list[int]]:
    """The rows of each file (and dataset in it)."""
    sources: dict[tuple[Path, str], list[int]] = {}
    for row, picture in enumerate(labels.pictures):
        sources.setdefault((picture.path, picture.dataset), []).append(row)
    return sources


def _read(path: Path, dataset: str, positions: NDArray[np.integer]) -> Iterator[tuple[int, RGB]]:
    """(position, image) at rising positions of one source."""
    if dataset:
        yield from _embedded(path, dataset, positions)
    elif positions[0] < 0:
        yield -1, _decoded(path, _bytes_of(path))[..., ::-1]
    else:
        yield from _video_frames(path, positions)


def _video_frames(path: Path, positions: NDArray[np.integer]) -> Iterator[tuple[int, RGB]]:
    from calibration.footage import open_footage

    with open_footage(path) as footage:
        _expect_frame(path, footage.n_frames, int(positions[-1]))
        for run in np.split(positions, np.flatnonzero(np.diff(positions) > _SEEK_FRAMES) + 1):
            wanted = set(run.tolist())
            images = footage.frames(int(run[0]), int(run[-1]) + 1)
            for position, (_, image) in enumerate(images, start=int(run[0])):
                if position in wanted:
                    yield position, image


def _embedded(path: Path, dataset: str, positions: NDArray[np.integer]) -> Iterator[tuple[int, RGB]]:
    """Images of an HDF5 dataset, which are encoded, or arrays (h, w[, 1 or 3]).

    OpenCV encoded RGB as if it were BGR in SLEAP's packages before format 1.4; since then the dataset says what it is
    (sleap-io `io/video_reading.py`, `HDF5Video`, "channel_order").
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            data = file[dataset]
            version = file["metadata"].attrs.get("format_id", 1.0) if "metadata" in file else 1.0
            order = str(data.attrs.get("channel_order", "BGR" if version < _FIRST_TRUE_COLOUR_FORMAT else "RGB"))
            for position in positions:
                image = np.asarray(data[position])
                if image.ndim == 1:
                    image = _decoded(path, image.tobytes())[..., :: 1 if order == "BGR" else -1]
                yield int(position), np.array(np.broadcast_to(np.atleast_3d(image), (*image.shape[:2], 3)), np.uint8)
    except (OSError, KeyError, IndexError) as error:
        raise _unreadable(f"{path}, {dataset}", error) from None


def _decoded(path: Path, encoded: bytes) -> RGB:
    """BGR (h, w, 3)."""
    import cv2

    image = cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), cv2.IMREAD_COLOR) if encoded else None
    if image is None:
        raise _unreadable(path, "it cannot be decoded")
    return np.asarray(image, dtype=np.uint8)


def _size(path: Path, dataset: str, last: int) -> tuple[int, int]:
    """(width, height) px of one source's images, of which `last` is the highest position needed."""
    if dataset:
        image = next(_embedded(path, dataset, np.array([last])))[1]
    elif last < 0:
        encoded = _bytes_of(path)
        if encoded.startswith(_PNG):
            width, height = np.frombuffer(encoded, ">u4", count=2, offset=_PNG_SIZE).tolist()
            return width, height
        image = _decoded(path, encoded)
    else:
        from calibration.footage import open_footage

        with open_footage(path) as footage:
            _expect_frame(path, footage.n_frames, last)
            return footage.size
    return image.shape[1], image.shape[0]


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error.strerror) from None


def _expect_frame(path: Path, n_frames: int, position: int) -> None:
    if position >= n_frames:
        raise InputError(
            f"{path}: expected frame {position}, which is labelled, got {n_frames} frames; give the video that was "
            "labelled"
        )


def _unreadable(path: object, why: object) -> InputError:
    return InputError(f"{path}: expected an image, cannot read it ({why}); replace it, or leave its labels out")
