"""Where are the boards in the footage of all cameras? Corners of every synchronised frame, in parallel, cached."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.board import Board, BoardDetections, Pattern, refuse_alike
from calibration.board_check import edge_blur, mirrored_share, refuse_other_board, told_of_no_board
from calibration.board_corners import detect_board, find_markers
from calibration.errors import InputError, nearest_name
from calibration.footage import Footage, open_footage
from calibration.omissions import FrameNumbers, check_numbers, left_out, masked, read_masks

__all__ = ["DetectionOptions", "detect_boards", "find_pattern"]

Array = NDArray[Any]
Progress = Callable[[str, int, int], None]

_LOG = logging.getLogger(__name__)

VERSION = 2
"""Of what is found in an image; raised when that changes, so that cached corners of before are not taken."""
ENOUGH_CORNERS = 60
"""Corners after which the way a board is printed is decided, if no other way explains a third as many."""
PATTERN_FRAMES = 40
"""Frames of each camera that are looked at for that."""
CHECKED_FRAMES = 8
"""Frames of each camera in which the markers' order is compared with the board's, or a mirrored board is looked for."""
FEW_CORNERS, MIRRORED_SHARE = 8, 0.2
"""Corners of a frame below which a camera may be mirrored, and the share of frames that must then show it."""
SOFT_PX = 1.5
"""Blur (SD) of the sharpest edges in the pictures of a camera, beyond which boards are not found for want of focus."""
SEARCHED_IMAGES = 12
"""Images of all cameras together in which other dictionaries are looked for when there is no board."""
_MIB = 1 << 20


@dataclass(frozen=True)
class DetectionOptions:
    """step: only every step-th moment of the footage is looked at. leave_out: camera, or "all" -> numbers of frames in
    its own footage, single ones and ranges (first, last), that are not. masks: camera -> image of the size of its
    images, black where corners are to be ignored."""

    step: int = 1
    leave_out: Mapping[str, FrameNumbers] = field(default_factory=dict)
    masks: Mapping[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.step < 1:
            raise InputError(f"step: expected 1 or more, got {self.step}")
        check_numbers(self.leave_out)


def detect_boards(
    sources: Mapping[str, str | Path],
    boards: Board | Sequence[Board],
    options: DetectionOptions | None = None,
    *,
    frames: Mapping[str, ArrayLike] | None = None,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> BoardDetections:
    """Corners of one or more boards in the footage of all cameras; boards may be seen side by side.

    sources: {camera: video file or folder of images}. Frames belong together by number: the position in a video, the
    last integer of an image's name. frames: instead, {camera: (moments,) frame number in its footage, -1 = none}; then
    `BoardDetections.frame` is 0, 1, 2, ... cache: a folder in which each camera's corners are kept, and from which they
    are taken while footage and board are the same. progress(what, done, total) is called after each image.

    Whether a board is white on black, and of the pattern before OpenCV 4.7, is found out. Cameras that show no board
    are warned of. Raises InputError naming camera and file for footage that cannot be read or breaks off, videos of
    unequal length without `frames`, footage without any board (with the dictionaries that were seen), mirrored footage,
    another board than the one described, boards that an image cannot tell apart, and as `omissions` does for frames to
    leave out and masks that do not fit.
    """
    options = options or DetectionOptions()
    boards = (boards,) if isinstance(boards, Board) else tuple(boards)
    if not sources or not boards:
        raise InputError("board detection: expected at least one camera and one board, got none")
    refuse_alike(boards)
    with ExitStack() as stack:
        footage = {name: stack.enter_context(_open(name, path)) for name, path in sources.items()}
        counts_at = read_masks(options.masks, footage)
        moments, numbers = _moments(footage, frames)
        numbers = left_out(numbers, footage, options.leave_out)
        moments, numbers = moments[:: options.step], {name: rows[:: options.step] for name, rows in numbers.items()}
        patterns = [find_pattern(footage, board) for board in boards]
        for board, pattern in zip(boards, patterns, strict=True):
            for side in board.sides:
                refuse_other_board(_samples(footage, CHECKED_FRAMES), side, pattern)
        counts = {name: len(np.unique(rows[rows >= 0])) for name, rows in numbers.items()}
        found, done = {}, 0
        for name, reel in footage.items():
            report = _counted(progress, done, sum(counts.values()))
            found[name] = _camera(name, reel, numbers[name], boards, patterns, cache, report)
            done += counts[name]
            if name in counts_at:
                found[name] = masked(name, *found[name], counts_at[name])
        corners = np.stack([xy for xy, _ in found.values()])
        most = {name: np.isfinite(sigma).sum(axis=-1).max(initial=0) for name, (_, sigma) in found.items()}
        _refuse_mirrored({name: footage[name] for name in found if most[name] < FEW_CORNERS}, boards, patterns)
        blind = {name: footage[name] for name in found if not most[name]}
        if len(blind) == len(found):
            cameras = ", ".join(f"{name} ({reel.n_frames} frames)" for name, reel in footage.items())
            some = _samples(footage, max(1, SEARCHED_IMAGES // len(footage)))
            raise InputError(told_of_no_board(boards, cameras, some))
        _tell_of_few({name: footage[name] for name in found if most[name] < FEW_CORNERS}, blind)
        index = np.concatenate([np.full(board.n_corners, b) for b, board in enumerate(boards)])
        sizes = np.array([reel.size for reel in footage.values()], dtype=np.int64)
        sigma = np.stack([sigma for _, sigma in found.values()])
        time = _times(footage, numbers)
        own = np.stack([np.where(at < 0, -1, footage[name].frame_numbers[at]) for name, at in numbers.items()])
    return BoardDetections(tuple(footage), boards, sizes, moments, time, corners, sigma, index, own_number=own)


def find_pattern(footage: Mapping[str, Footage], board: Board) -> Pattern:
    """How the board in the footage is printed: the way that explains most corners, from few frames where they agree.

    Up to PATTERN_FRAMES of each camera are looked at, spread over the footage, until ENOUGH_CORNERS decide; black on
    white and not legacy where nothing is found. A chessboard with an odd and an even number of squares
    looks the same both ways.
    """
    ways = [
        Pattern(inverted, legacy)
        for inverted in (False, True)
        for legacy in (False, True)
        if (not inverted or board.marker_length or (board.columns + board.rows) % 2 == 0)
        and (not legacy or (board.marker_length and board.rows % 2 == 0))
    ]
    if len(ways) == 1:
        return ways[0]
    for thorough in (False, True):
        counts = dict.fromkeys(ways, 0)
        for gray in _samples(footage, PATTERN_FRAMES):
            for way in _worth_trying(gray, board, ways, thorough):
                counts[way] += int(np.isfinite(detect_board(gray, board, way)[1]).sum())
            best, second = sorted(counts.values(), reverse=True)[:2]
            if best >= ENOUGH_CORNERS and best >= 3 * second:
                break
        if any(counts.values()):
            break
    return max(ways, key=counts.__getitem__)


def _worth_trying(gray: Array, board: Board, ways: Sequence[Pattern], thorough: bool) -> list[Pattern]:
    """The ways to print a board of which an image shows markers (all of a chessboard)."""
    if not board.marker_length:
        return list(ways)
    shown = {inverted: _shown(picture, board, thorough) for inverted, picture in ((False, gray), (True, 255 - gray))}
    return [way for way in ways if shown[way.inverted]]


def _shown(gray: Array, board: Board, thorough: bool) -> int:
    """Markers of a board, of either side, in an image."""
    return sum(
        len(find_markers(gray, s.dictionary, s.n_markers, first=s.first_marker, thorough=thorough)[1])
        for s in board.sides
    )


def _open(name: str, path: str | Path) -> Footage:
    try:
        footage = open_footage(path)
    except InputError as error:
        raise InputError(f"camera '{name}': {error}") from None
    if not footage.complete:
        footage.close()
        raise InputError(
            f"camera '{name}': {path}: breaks off after frame {footage.n_frames - 1} though it says to be longer; "
            "copy it again, or keep what is there (ffmpeg -i IN -c copy OUT.mp4)"
        )
    return footage


def _moments(
    footage: Mapping[str, Footage], frames: Mapping[str, ArrayLike] | None
) -> tuple[NDArray[np.int64], dict[str, NDArray[np.int64]]]:
    """The moments' numbers (moments,), and of each camera the position (moments,) in its footage, -1 where none."""
    if frames is None:
        lengths = {name: reel.n_frames for name, reel in footage.items() if reel.path.is_file()}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{name} {count}" for name, count in lengths.items())
            raise InputError(
                f"calibration footage: expected videos of equal length, got {counts} frames; add to pose3d.toml\n"
                "[sync]\ntrim = true          # if all started together: the first frames of all\n"
                "or `offsets` or `timestamps`, if they did not"
            )
        moments = np.unique(np.concatenate([reel.frame_numbers for reel in footage.values()]))
        wanted = dict.fromkeys(footage, moments)
    else:
        for name in footage:
            if name not in frames:
                raise InputError(f"frames: none given for camera '{name}'; {nearest_name(name, frames)}")
        wanted = {name: np.asarray(frames[name], dtype=np.int64) for name in footage}
        lengths = {name: len(rows) for name, rows in wanted.items()}
        if len(set(lengths.values())) > 1:
            raise InputError(f"frames: expected as many moments for each camera, got {lengths}")
        moments = np.arange(next(iter(lengths.values())), dtype=np.int64)
    positions = {}
    for name, reel in footage.items():
        at = np.searchsorted(reel.frame_numbers, wanted[name]).clip(max=reel.n_frames - 1)
        there = reel.frame_numbers[at] == wanted[name]
        if frames is not None and not (there | (wanted[name] < 0)).all():
            missing = int(wanted[name][~there & (wanted[name] >= 0)][0])
            raise InputError(
                f"camera '{name}': {reel.path}: expected a frame {missing}, has {reel.n_frames}; correct `frames`"
            )
        positions[name] = np.where(there, at, -1)
    return moments, positions


def _camera(
    name: str,
    reel: Footage,
    positions: NDArray[np.int64],
    boards: Sequence[Board],
    patterns: Sequence[Pattern],
    cache: str | Path | None,
    report: Callable[[int], None],
) -> tuple[Array, Array]:
    """Corners (moments, corners, 2) and sigma (moments, corners) of one camera."""
    file = None if cache is None else Path(cache) / f"boards-{_key(reel.path, positions, boards, patterns)}.npz"
    if file is not None and file.is_file():
        with np.load(file) as kept:
            report(len(np.unique(positions[positions >= 0])))
            return kept["corners"], kept["sigma"]
    wanted = np.unique(positions[positions >= 0])
    n_corners = sum(board.n_corners for board in boards)
    found = np.full((len(wanted) + 1, n_corners, 3), np.nan)

    def look(gray: Array) -> Array:
        pairs = [detect_board(gray, board, pattern) for board, pattern in zip(boards, patterns, strict=True)]
        return np.concatenate([np.concatenate([xy, sigma[:, None]], axis=-1) for xy, sigma in pairs])

    try:
        for done, answer in enumerate(_looked_at(reel, wanted.tolist(), look)):
            found[done] = answer
            report(done + 1)
    except InputError as error:
        raise InputError(f"camera '{name}': {error}") from None
    found = found[np.where(positions >= 0, np.searchsorted(wanted, positions), -1)]
    corners, sigma = found[..., :2], found[..., 2]
    if file is not None:
        _keep(file, corners, sigma)
    return corners, sigma


def _looked_at(reel: Footage, positions: Sequence[int], look: Callable[[Array], Array]) -> Iterator[Array]:
    """What `look` says of each frame, in order; frames are decoded here and looked at in threads."""
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Array]] = deque()
        try:
            for gray in _decoded(reel, positions):
                waiting.append(pool.submit(look, gray))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _decoded(reel: Footage, positions: Sequence[int]) -> Iterator[Array]:
    """The gray frames at increasing positions; a video is read in one go."""
    if reel.path.is_dir():
        for position in positions:
            yield next(reel.frames(position, position + 1, gray=True))[1]
    elif positions:
        wanted = set(positions)
        for position, gray in reel.frames(positions[0], positions[-1] + 1, gray=True):
            if position in wanted:
                yield gray


def _tell_of_few(footage: Mapping[str, Footage], blind: Collection[str]) -> None:
    """Warn of cameras that show no board, or too few corners of one, and whether they are out of focus."""
    for name, reel in footage.items():
        told = "no board" if name in blind else f"no board with {FEW_CORNERS} corners"
        blur = float(np.median([edge_blur(gray) for gray in _samples({name: reel}, CHECKED_FRAMES)]))
        soft = f"; its sharpest edges are blurred by {blur:.1f} px: focus it" if SOFT_PX < blur < np.inf else ""
        _LOG.warning("camera '%s': %s in %s%s", name, told, reel.path, soft)


def _samples(footage: Mapping[str, Footage], most: int) -> Iterator[Array]:
    """Gray frames of all cameras, in turn, from coarse to fine, at most `most` of each."""
    orders = [_coarse_to_fine(reel.n_frames)[:most] for reel in footage.values()]
    for turn in range(max(len(order) for order in orders)):
        for name, order in zip(footage, orders, strict=True):
            if turn < len(order):
                try:
                    yield next(footage[name].frames(order[turn], order[turn] + 1, gray=True))[1]
                except InputError as error:
                    raise InputError(f"camera '{name}': {error}") from None


def _coarse_to_fine(n: int) -> list[int]:
    """0 .. n - 1, each next one far from those before: by their bits reversed."""
    bits = max(n - 1, 1).bit_length()
    return sorted(range(n), key=lambda i: int(f"{i:0{bits}b}"[::-1], 2))


def _counted(progress: Progress | None, before: int, total: int) -> Callable[[int], None]:
    def report(done: int) -> None:
        if progress is not None:
            progress("detect boards", before + done, total)

    return report


def _times(footage: Mapping[str, Footage], positions: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float64]:
    """(moments,) s of the first camera that knows it."""
    time = np.full(len(next(iter(positions.values()))), np.nan)
    for name, reel in footage.items():
        own = np.where(positions[name] >= 0, reel.time[positions[name]], np.nan)
        time = np.where(np.isnan(time), own, time)
    return time


def _refuse_mirrored(blind: Mapping[str, Footage], boards: Sequence[Board], patterns: Sequence[Pattern]) -> None:
    """Raises InputError naming the cameras, which show hardly a corner, that show boards once they are turned left to
    right."""
    turned = [
        name
        for name, reel in blind.items()
        if any(
            mirrored_share(_samples({name: reel}, CHECKED_FRAMES), board, pattern) > MIRRORED_SHARE
            for board, pattern in zip(boards, patterns, strict=True)
        )
    ]
    if turned:
        raise InputError(
            f"cameras whose images are mirrored: {', '.join(turned)} (the board is found in them once they are turned "
            "left to right); expected images as the eye sees the scene; turn mirroring off in the camera's software, "
            "or turn the video back (ffmpeg -i IN -vf hflip OUT.mp4), of the recordings as well"
        )


def _key(path: Path, positions: Array, boards: Sequence[Board], patterns: Sequence[Pattern]) -> str:
    """What cached corners depend on, as a hash: files (size, mtime, first and last MiB), frames, boards, version."""
    digest = hashlib.sha256(repr((VERSION, tuple(boards), tuple(patterns), positions.tolist())).encode())
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.is_file():
            status = file.stat()
            digest.update(repr((file.name, status.st_size, status.st_mtime_ns)).encode())
            with file.open("rb") as stream:
                digest.update(stream.read(_MIB))
                stream.seek(max(0, status.st_size - _MIB))
                digest.update(stream.read(_MIB))
    return digest.hexdigest()[:32]


def _keep(file: Path, corners: Array, sigma: Array) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    with unfinished.open("wb") as stream:
        np.savez(stream, corners=corners, sigma=sigma)
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.replace(file)
