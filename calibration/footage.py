"""What did one camera record? Frames of a video file or of a folder of images: exact counts, exact seeking."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError

__all__ = ["IMAGE_SUFFIXES", "VIDEO_SUFFIXES", "Footage", "find_sources", "open_footage"]

Array = NDArray[Any]

_LOG = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".m4v", ".mpg", ".webm")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")

_END_OF_JPEG = b"\xff\xd9"
"""Nowhere within a picture's own bytes; a thumbnail at the file's beginning has one, too."""
_EIGHT_BIT_LUMA = re.compile(r"yuvj?4\d\dp|nv12|nv21|gray")
"""Pixel formats whose first plane is the luma, one byte a pixel."""

MISSING_FRAMES, MICROSECONDS = 4, 1_000_000
"""A film that ends so many frames before its announced length was cut off; that length is in so many parts of 1 s."""


class Footage:
    """Frames of one camera; close it, or use it in a `with`.

    path: video file or folder. size: (width, height) px. fps: frames/s, NaN for folders.
    frame_numbers: (n_frames,) int64, strictly increasing: 0, 1, 2, ... in a video, the last integer of the file name in
    a folder. time: (n_frames,) s from the first frame, NaN for folders.
    complete: False where a video says that it holds more frames than there are.
    `read` and `frames` take positions 0 .. n_frames - 1, which in a video are the frame numbers.
    """

    path: Path
    size: tuple[int, int]
    fps: float
    frame_numbers: NDArray[np.int64]
    time: NDArray[np.float64]
    complete: bool = True

    @property
    def n_frames(self) -> int:
        """Frames that there are."""
        return len(self.frame_numbers)

    def read(self, position: int) -> NDArray[np.uint8]:
        """One frame, RGB (h, w, 3). Raises InputError naming the file when it cannot be read."""
        if not 0 <= position < self.n_frames:
            raise InputError(f"{self.path}: expected a frame position in 0..{self.n_frames - 1}, got {position}")
        return next(self.frames(position, position + 1))[1]

    def frames(
        self, start: int = 0, stop: int | None = None, step: int = 1, *, gray: bool = False
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """(frame number, image) of every step-th position from start to before stop, in order.

        Images are RGB (h, w, 3), with gray the luma (h, w) as stored. Raises InputError naming the file where it
        breaks off; the frames before have been given by then.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the file."""

    def __enter__(self) -> Footage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_footage(path: str | Path) -> Footage:
    """Open a video file or a folder of images. Raises InputError naming it when it is missing or cannot be read."""
    path = Path(path)
    if path.is_dir():
        return _Images(path)
    if not path.is_file():
        raise InputError(f"{path}: expected a video file or a folder of images, found nothing; correct the path")
    return _Video(path)


def find_sources(folder: str | Path) -> dict[str, Path]:
    """{camera: path} of the footage in a folder: <camera>.mp4 (.avi, .mov, .mkv, ...) or <camera>/ of images.

    Cameras are in natural order, cam_2 before cam_10. Raises InputError when there is none, or two of one name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder of board footage, found none; correct the path")
    sources: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda path: _natural(path.name)):
        if path.name.startswith("."):
            continue
        video = path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES
        if path.is_dir() and not any(path.iterdir()):
            _LOG.warning("%s: an empty folder, no camera", path)
        if not video and not (path.is_dir() and _images_in(path)):
            continue
        name = path.stem if video else path.name
        if name in sources:
            raise InputError(
                f"{folder}: expected one source for camera '{name}', got {sources[name].name} and {path.name}; "
                "move one away"
            )
        sources[name] = path
    if not sources:
        raise InputError(f"{folder}: expected <camera>.mp4 or <camera>/ of images, found neither; correct the folder")
    return sources


class _Images(Footage):
    def __init__(self, path: Path) -> None:
        self.path = path
        numbered: dict[int, Path] = {}
        for image in _images_in(path):
            digits = re.findall(r"\d+", image.stem)
            if not digits:
                raise InputError(f"{image}: expected a number in the file name, by which images are paired; rename it")
            number = int(digits[-1])
            if number in numbered:
                raise InputError(
                    f"{path}: {numbered[number].name} and {image.name} both end in the number {number}, by which "
                    "images are paired; number each once"
                )
            numbered[number] = image
        if not numbered:
            raise InputError(f"{path}: expected images ({', '.join(IMAGE_SUFFIXES)}), found none; correct the folder")
        self._paths = [numbered[number] for number in sorted(numbered)]
        self.frame_numbers = np.array(sorted(numbered), dtype=np.int64)
        self.time = np.full(len(numbered), np.nan)
        self.fps = float("nan")
        first = self._read(self._paths[0], gray=True)
        self.size = (first.shape[1], first.shape[0])

    def frames(
        self, start: int = 0, stop: int | None = None, step: int = 1, *, gray: bool = False
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        for position in range(*slice(start, stop, step).indices(self.n_frames)):
            image = self._read(self._paths[position], gray)
            size = (image.shape[1], image.shape[0])
            if size != self.size:
                raise InputError(
                    f"{self._paths[position]}: expected {self.size[0]} x {self.size[1]} px as {self._paths[0].name}, "
                    f"got {size[0]} x {size[1]}; give each size a folder of its own"
                )
            yield int(self.frame_numbers[position]), image

    @staticmethod
    def _read(path: Path, gray: bool) -> NDArray[np.uint8]:
        content = path.read_bytes()
        if path.suffix.lower() in (".jpg", ".jpeg") and content.rfind(_END_OF_JPEG) < len(content) // 2:
            raise InputError(f"{path}: expected a whole JPEG image, got one that is cut off; replace or remove it")
        flag = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR
        image = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), flag) if content else None
        if image is None:
            raise InputError(f"{path}: expected an image, got a file that cannot be read; replace or remove it")
        return np.asarray(image if gray else image[..., ::-1], dtype=np.uint8)


class _Video(Footage):
    def __init__(self, path: Path) -> None:
        import av

        self.path = path
        try:
            self._container = av.open(str(path))
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(f"{path}: expected a video, cannot open it ({error}); copy or record it again") from None
        if not self._container.streams.video:
            raise InputError(f"{path}: expected a video, got a file without a picture; give the camera's video")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self.size = (self._stream.codec_context.width, self._stream.codec_context.height)
        self._pts, packets = self._demux()
        if not len(self._pts):
            raise InputError(f"{path}: expected a video, got one without frames; copy or record it again")
        self.frame_numbers = np.arange(len(self._pts), dtype=np.int64)
        self.time = (self._pts - self._pts[0]) * float(self._stream.time_base or 1)
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.fps = float(rate) if rate else float("nan")
        self.complete = packets >= self._stream.frames and not self._ends_early()
        self._begin()

    def _begin(self) -> None:
        """Decode the first frame: its packet may hold what all later ones need, such as x264's version, by which
        FFmpeg knows how films in 4:4:4 of its older versions are to be read."""
        import av

        try:
            self._container.seek(int(self._pts[0]), stream=self._stream, backward=True)
            next(self._container.decode(self._stream), None)
        except av.error.FFmpegError:  # said where it is read
            pass

    def _ends_early(self) -> bool:
        """Whether a container that does not count its frames, and holds nothing else, announces a longer film."""
        alone = len(self._container.streams) == 1 and not self._stream.frames
        announced = (self._container.duration or 0) / MICROSECONDS
        return alone and announced - float(self.time[-1]) > MISSING_FRAMES / self.fps

    def _demux(self) -> tuple[NDArray[np.int64], int]:
        """Sorted times of the frames that are shown, in the stream's time base, and the number of all packets."""
        import av

        times, packets = [], 0
        try:
            for packet in self._container.demux(self._stream):
                if packet.size == 0:
                    continue
                packets += 1
                if not packet.is_discard:
                    times.append(packet.pts if packet.pts is not None else packet.dts)
        except av.error.FFmpegError:
            packets = -1
        if any(time is None for time in times):
            raise InputError(f"{self.path}: its frames carry no times; rewrite it (ffmpeg -i IN -c copy OUT.mp4)")
        return np.unique(np.array(times, dtype=np.int64)), packets

    def frames(
        self, start: int = 0, stop: int | None = None, step: int = 1, *, gray: bool = False
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        wanted = range(*slice(start, stop, step).indices(self.n_frames))
        if not wanted:
            return
        expected = wanted.start
        for position, frame in self._decoded(wanted.start):
            if position != expected:
                break
            expected += 1
            if position in wanted:
                yield position, _luma(frame) if gray else frame.to_ndarray(format="rgb24")
            if position >= wanted[-1]:
                return
        raise InputError(
            f"{self.path}: breaks off at frame {expected} of {self.n_frames}; copy or record it again, or cut it there "
            f"(ffmpeg -i IN -frames:v {expected} OUT)"
        )

    def _decoded(self, start: int) -> Iterator[tuple[int, Any]]:
        """(position, frame) from `start` on, until the end or the first packet that cannot be decoded."""
        import av

        frames: Iterator[Any] = iter(())
        for origin in dict.fromkeys((int(self._pts[start]), int(self._pts[0]))):
            self._container.seek(origin, stream=self._stream, backward=True)
            frames = self._container.decode(self._stream)
            try:
                first = next(frames, None)
            except av.error.FFmpegError:
                continue
            if first is not None and first.pts is not None and first.pts <= self._pts[start]:
                frames = chain([first], frames)
                break
        try:
            for frame in frames:
                position = int(np.searchsorted(self._pts, frame.pts))
                if start <= position < len(self._pts) and self._pts[position] == frame.pts:
                    yield position, frame
        except av.error.FFmpegError:
            return

    def close(self) -> None:
        self._container.close()


def _images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def _natural(name: str) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name) if part]


def _luma(frame: Any) -> NDArray[np.uint8]:
    if not _EIGHT_BIT_LUMA.fullmatch(frame.format.name):
        return np.asarray(frame.to_ndarray(format="gray"), dtype=np.uint8)
    plane = frame.planes[0]
    rows = np.frombuffer(plane, dtype=np.uint8).reshape(-1, plane.line_size)
    return rows[: frame.height, : frame.width].copy()
