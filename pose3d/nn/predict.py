"""What does a network find in images? Reading, the network, and peaks and limbs overlap; candidates come by windows.

One thread reads and resizes, several take a batch each through the network and look for its peaks: on a CPU that uses
all cores without waiting within an operation, on a GPU one batch is computed while another is looked over.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from calibration.errors import InputError
from pose3d.nn.coords import cells_from_image, image_from_cells, input_from_image, padded_size
from pose3d.nn.engines import make_engine
from pose3d.nn.memory import is_no_memory
from pose3d.nn.model import fold_norms
from pose3d.nn.network import Network
from pose3d.nn.noise import candidate_covariance, stated_covariance
from pose3d.nn.options import EngineName, PredictOptions
from pose3d.nn.peaks import find_peaks, score_limbs
from pose3d.nn.region import Window, look, maps_within, stretch_of
from pose3d.poses import Candidates

__all__ = ["Predictor", "predict_candidates"]

Image = NDArray[np.uint8]
Batch = tuple[list[int], Image, NDArray[np.float64]]
Found = tuple[int, tuple[NDArray[Any], ...]]

CPU_BATCH, GPU_BATCH = 1, 16
GPU_WORKERS, MOST_WORKERS = 3, 8
AHEAD = 3
"""Batches that are read ahead."""
OUTSIDE_CELLS = 1.0
"""Candidates farther than this outside the image are none; those nearer are moved to its border."""
LENGTH_SD = 0.2
"""SD of the logarithm of a limb's length at least: animals move as no label has shown it yet."""
LEAST_CELLS = 0.05
"""Limbs are as long as this at least, where their logarithm is taken."""


def predict_candidates(
    frames: Iterable[tuple[int, Image]], network: Network, options: PredictOptions | None = None
) -> Candidates:
    """All candidates in frames (number, RGB uint8 (h, w, 3)) in rising order; for long videos see `Predictor`."""
    found = next(Predictor(network, options).windows(frames, sys.maxsize), None)
    return _candidates([], network) if found is None else found


class Predictor:
    """A network on its device. batch: images at once; halved, for good, where the memory does not suffice for them."""

    def __init__(self, network: Network, options: PredictOptions | None = None) -> None:
        """Engine "auto" is PyTorch here; `choose_engine` finds a faster one. Raises InputError where CUDA is asked for
        and there is none, or an engine that is not installed or cannot take the network."""
        self.network, self.options = network, options or PredictOptions()
        engine: EngineName = "torch" if self.options.engine == "auto" else self.options.engine
        self.device = _device(self.options.device if engine == "torch" else "cpu")
        on_cpu = self.device.type == "cpu"
        self.module = fold_norms(network.module).to(self.device)
        self.batch = self.options.batch or (CPU_BATCH if on_cpu else GPU_BATCH)
        self.workers = min(torch.get_num_threads(), MOST_WORKERS) if on_cpu else GPU_WORKERS
        threads = max(1, torch.get_num_threads() // self.workers)
        told: dict[str, Any] = {"half": self.options.half, "workers": self.workers, "threads": threads}
        self.maps = make_engine(engine, self.module, self.device, **told)

    def windows(
        self, frames: Iterable[tuple[int, Image]], window: int, progress: Callable[[int], None] | None = None
    ) -> Generator[Candidates, None, None]:
        """The candidates of every `window` frames, the last ones of what is left; progress is told each frame's count.

        frames: (number, RGB uint8 (h, w, 3)), all of one size, in rising order. Batches begin with the windows, so that
        a later window alone gives the same. What frames raises is raised after the windows before it have been given.
        Raises InputError where the memory does not suffice for a single image.
        """
        found: list[Found] = []
        batches = _batches(frames, self.network, window, self.batch, stretches=bool(self.options.region))
        for done, frame in enumerate(self._found(batches), start=1):
            found.append(frame)
            if progress:
                progress(done)
            if len(found) == window:
                yield _candidates(found, self.network)
                found = []
        if found:
            yield _candidates(found, self.network)

    def _found(self, batches: Iterator[Batch]) -> Iterator[Found]:
        """What is in each frame, in order, while later batches are read and computed."""
        jobs: deque[Future[list[Found]]] = deque()
        broken: BaseException | None = None
        with _threads(self.workers) as threads, ExitStack() as stack:
            reader = ThreadPoolExecutor(1)
            pool = ThreadPoolExecutor(self.workers, initializer=torch.set_num_threads, initargs=(threads,))
            for executor in (reader, pool):  # one who interrupts does not wait for what is read ahead
                stack.callback(executor.shutdown, cancel_futures=True)
            reads = deque(reader.submit(next, batches, None) for _ in range(AHEAD))
            while True:
                try:
                    batch = reads.popleft().result()
                except Exception as error:  # told when what was read before has been given
                    batch, broken = None, error
                if batch is None:
                    break
                reads.append(reader.submit(next, batches, None))
                jobs.append(pool.submit(self._look, *batch))
                if len(jobs) > self.workers:
                    yield from jobs.popleft().result()
            while jobs:
                yield from jobs.popleft().result()
        if broken is not None:
            raise broken

    def _look(self, numbers: list[int], images: Image, border: NDArray[np.float64]) -> list[Found]:
        """What is in each image of a batch, in most of them only where the animals are if that saves time."""
        if not self.options.region:
            return self._predict(numbers, images, border)
        spec = self.network.spec
        return look(numbers, images, border, spec.stride, len(spec.skeleton), self._predict)

    def _predict(
        self, numbers: list[int], images: Image, border: NDArray[np.float64], windows: Sequence[Window] = ()
    ) -> list[Found]:
        """What is in each image of a batch, or in windows of them, in parts where the memory does not suffice for all
        at once. border: x, y where the images end, in cells."""
        size = min(self.batch, len(images))
        try:
            return [
                (number, self._peaks(maps, border))
                for start in range(0, len(images), size)
                for number, *maps in zip(
                    numbers[start : start + size],
                    *maps_within(self.maps, images[start : start + size], windows),
                    strict=True,
                )
            ]
        except (MemoryError, RuntimeError) as error:
            if not is_no_memory(error):
                raise
            if size == 1:
                height, width = images.shape[1:3]
                raise InputError(
                    f"the memory does not suffice for a single image, {width} x {height} px in the network's input; "
                    "free some, or train a network with a smaller `animal_px` under [train]"
                ) from None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.batch = min(self.batch, size // 2)
        return self._predict(numbers, images, border, windows)

    def _peaks(self, maps: list[NDArray[np.float32]], border: NDArray[np.float64]) -> tuple[NDArray[Any], ...]:
        """keypoint, cell, score of the candidates of one frame; a, b, edge, score of its limbs; stated covariance."""
        heat, offset, paf, noise = maps
        options, limbs = self.options, np.array(self.network.spec.limbs, dtype=np.int32).reshape(-1, 2)
        keypoint, cell, score = find_peaks(heat, offset, options.threshold, options.limit)
        inside = np.all((cell > -0.5 - OUTSIDE_CELLS) & (cell < border + OUTSIDE_CELLS), axis=1)
        keypoint, cell, score = keypoint[inside], np.clip(cell[inside], -0.5, border), score[inside]
        a, b, edge, limb_score = score_limbs(paf, limbs, keypoint, cell, options.limb_threshold)
        limb_score *= self._plausible(np.linalg.norm(cell[a] - cell[b], axis=1), edge)
        kept = limb_score >= options.limb_threshold
        stated = stated_covariance(noise, keypoint, cell)
        return keypoint, cell, score, a[kept], b[kept], edge[kept], limb_score[kept], stated

    def _plausible(self, cells: NDArray[np.float64], edge: NDArray[np.int32]) -> NDArray[np.float64]:
        """(m,) 0..1, how well limbs of this length fit the labelled ones: 1 within an SD of the logarithm's mean, then
        falling like a Gaussian."""
        if self.network.limb_px is None:
            return np.ones(len(edge))
        spec = self.network.spec
        median, sd = self.network.limb_px[edge].T
        apart = np.log(np.maximum(cells, LEAST_CELLS) * spec.stride / spec.scale / median)
        beyond = np.maximum(np.abs(apart / np.hypot(sd, LENGTH_SD)) - 1, 0)
        return np.nan_to_num(np.exp(-0.5 * beyond**2), nan=1.0)


def _batches(
    frames: Iterable[tuple[int, Image]], network: Network, window: int, size: int, *, stretches: bool = False
) -> Iterator[Batch]:
    """Numbers and network inputs (n, h, w, 3) of `size` frames at once, or of a stretch where that is more, none across
    the border of two windows; and where the images end in the maps, x, y in cells."""
    scale, stride = network.spec.scale, network.spec.stride
    numbered, left, shape = iter(frames), 0, None
    first = next(numbered, None)
    if first is not None and stretches:
        width, height = padded_size((first[1].shape[1], first[1].shape[0]), scale)
        size = max(size, stretch_of(height, width))
    numbered = chain(() if first is None else (first,), numbered)
    while True:
        left = left or window
        numbers: list[int] = []
        inputs: list[Image] = []
        broken = None
        try:
            for number, image in islice(numbered, min(size, left)):
                shape = shape or image.shape
                if image.shape != shape:
                    raise InputError(
                        f"frame {number}: expected {shape[1]} x {shape[0]} px as the frames before, got "
                        f"{image.shape[1]} x {image.shape[0]}; cut the video where its size changes"
                    )
                numbers.append(number)
                inputs.append(input_from_image(image, scale))
        except Exception as error:
            broken = error
        if inputs and shape:
            yield numbers, np.stack(inputs), cells_from_image((shape[1] - 0.5, shape[0] - 0.5), scale, stride)
        if broken is not None:
            raise broken
        if not inputs:
            return
        left -= len(inputs)


def _candidates(found: list[Found], network: Network) -> Candidates:
    """The columns of a window."""
    spec = network.spec
    empty = (np.zeros(0, np.int32), np.zeros((0, 2)), np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64),
             np.zeros(0, np.int32), np.zeros(0), np.zeros((0, 2, 2)))  # fmt: skip
    columns = [np.concatenate(parts) for parts in zip(empty, *(arrays for _, arrays in found), strict=True)]
    keypoint, cell, score, a, b, edge, limb_score, stated = columns
    starts = np.cumsum([0] + [len(arrays[0]) for _, arrays in found])
    limb_starts = np.cumsum([0] + [len(arrays[3]) for _, arrays in found])
    shift = np.repeat(starts[:-1], np.diff(limb_starts))
    score = np.clip(score, 0.0, 1.0)
    return Candidates(
        frame_start=starts,
        keypoint=keypoint,
        xy=image_from_cells(cell, spec.scale, spec.stride),
        score=score,
        covariance=candidate_covariance(stated, keypoint, score, network),
        limb_start=limb_starts,
        a=a + shift,
        b=b + shift,
        edge=edge,
        limb_score=limb_score,
        frame=np.array([number for number, _ in found], dtype=np.int64),
        skeleton=spec.skeleton,
        limbs=spec.limbs,
    )


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError('device: expected a CUDA device, found none; use "auto" or "cpu", or install torch with CUDA')
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@contextmanager
def _threads(workers: int) -> Iterator[int]:
    """The threads of an operation of torch within the block: one, unless there are more cores than workers."""
    before = torch.get_num_threads()
    threads = max(1, before // workers)
    torch.set_num_threads(threads)
    try:
        yield threads
    finally:
        torch.set_num_threads(before)
