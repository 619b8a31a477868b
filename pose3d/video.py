"""What did all cameras see at one moment, and how do pictures become a movie?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from calibration.files.atomic import atomic_path, write_bytes
from calibration.footage import Footage, open_footage

__all__ = ["MovieWriter", "save_picture", "synced_frames"]

Image = NDArray[np.uint8]

READ_ON = 50
"""Frames: footage is read on to a frame that is at most this far ahead, else sought."""
_BT709 = 1
_LIMITED_RANGE = 1


def synced_frames(
    videos: Mapping[str, str | Path], numbers: Mapping[str, NDArray[np.integer]]
) -> Iterator[dict[str, Image | None]]:
    """What all cameras saw, moment by moment: {camera: RGB uint8 (height, width, 3) or None}.

    videos: {camera: video file or folder of images}. numbers: {camera: (moments,) frame numbers}, of every camera in
    videos; -1 = no frame (None). Rising numbers are decoded in one pass, any others are sought.
    Raises InputError for footage that cannot be read or lacks a frame.
    """
    moments = zip(*(numbers[name] for name in videos), strict=True)
    with ExitStack() as stack:
        readers = [_Reader(name, stack.enter_context(open_footage(path))) for name, path in videos.items()]
        for moment in moments:
            yield {reader.name: reader.read(int(number)) for reader, number in zip(readers, moment, strict=True)}


class _Reader:
    """One camera's frames by number: rising numbers are read on, others sought. The last picture is kept."""

    def __init__(self, name: str, footage: Footage) -> None:
        self.name, self.footage = name, footage
        self.numbers = np.asarray(footage.frame_numbers)
        self.position = -1
        self.image: Image | None = None
        self.frames: Iterator[tuple[int, Image]] = footage.frames()

    def read(self, number: int) -> Image | None:
        if number < 0:
            return None
        position = int(np.searchsorted(self.numbers, number))
        if position == len(self.numbers) or self.numbers[position] != number:
            raise InputError(
                f"camera '{self.name}': frame {number} is not in its footage of {len(self.numbers)} frames; "
                "check [sync], or that the poses belong to this recording"
            )
        if not self.position <= position <= self.position + READ_ON:
            self.frames = self.footage.frames(start=position)
            self.position = position - 1
        while self.position < position:
            _, self.image = next(self.frames)
            self.position += 1
        return self.image


class MovieWriter:
    """An H.264 movie (mp4, yuv420p, BT.709) that appears at `path` whole, when its `with` block ends without an error.

    path: ends in .mp4. fps: frames/s. size: (width, height) px of every picture; odd ones are padded by repeating the
    last row or column, since the format wants even ones. crf: constant quality, 0 (best) to 51; 18 looks lossless.

        with MovieWriter("scene.mp4", 30.0, (960, 720)) as movie:
            movie.write(picture)

    The same pictures give the same bytes. Raises InputError for a path, frame rate or picture that does not fit.
    """

    def __init__(self, path: str | Path, fps: float, size: tuple[int, int], *, crf: int = 20) -> None:
        self.path, self.size, self.crf = Path(path), (int(size[0]), int(size[1])), crf
        if self.path.suffix.lower() != ".mp4":
            raise InputError(f"{path}: expected a movie's name to end in .mp4")
        if not (math.isfinite(fps) and fps > 0):
            raise InputError(f"{path}: expected a frame rate above 0, got {fps}; give the movie's fps")
        if min(self.size) < 1:
            raise InputError(f"{path}: expected a size of at least 1 x 1 px, got {self.size}")
        self.rate = Fraction(fps).limit_denominator(1001)
        self._stack = ExitStack()

    def __enter__(self) -> MovieWriter:
        import av

        with ExitStack() as stack:
            partial = stack.enter_context(atomic_path(self.path))
            options = {"movflags": "+faststart", "fflags": "+bitexact"}
            self._file = stack.enter_context(av.open(str(partial), "w", format="mp4", options=options))
            stream = self._file.add_stream("libx264", rate=self.rate)
            stream.width, stream.height = (n + n % 2 for n in self.size)
            stream.pix_fmt = "yuv420p"
            # The same bytes every time: x264's depend on the threads, and with mbtree they vary by themselves.
            stream.options = {
                "crf": str(self.crf),
                "preset": "veryfast",
                "mbtree": "0",
                "threads": "1",
                "flags": "+bitexact",
            }
            codec = stream.codec_context
            codec.color_primaries = codec.color_trc = codec.colorspace = _BT709
            codec.color_range = _LIMITED_RANGE
            self._stream = stream
            self._stack = stack.pop_all()
        return self

    def write(self, picture: Image) -> None:
        """Append one picture: RGB uint8 (height, width, 3)."""
        import av

        width, height = self.size
        if picture.shape != (height, width, 3) or picture.dtype != np.uint8:
            raise InputError(
                f"{self.path}: expected pictures ({height}, {width}, 3) uint8, got {picture.shape} {picture.dtype}"
            )
        even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
        self._file.mux(self._stream.encode(frame))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if error is not None:
                raise error
            self._file.mux(self._stream.encode())


def save_picture(path: str | Path, picture: Image) -> None:
    """Write an RGB uint8 (height, width, 3) picture as PNG, whole or not at all."""
    done, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not done:
        raise InputError(f"{path}: cannot encode a picture of shape {picture.shape}")
    write_bytes(path, data.tobytes())
