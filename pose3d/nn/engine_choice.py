"""Which engine is the fastest that finds the same keypoints? Tried on some frames of the video, against PyTorch.

A few seconds, spent only on long videos. The next engine is taken for the last only where it is clearly faster, so
that noise seldom decides; which one it was must be kept with unfinished work, since rounding differs between engines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from pose3d.nn.engines import installed_engines
from pose3d.nn.network import Network
from pose3d.nn.options import EngineName, PredictOptions
from pose3d.nn.predict import Predictor
from pose3d.poses import Candidates

__all__ = ["Agreement", "EngineChoice", "agreement", "choose_engine"]

MEDIAN_PX, P95_PX = 0.1, 0.3
"""Image px that keypoints may be off."""
LEAST_KEYPOINTS = 20
"""Fewer tell nothing."""
SURE = 0.1
"""Keypoints count so far up from the threshold to 1: at the threshold rounding alone makes them come and go."""
NEAR_CELLS = 1.0
"""Farther off, a keypoint is lost."""
MARGIN = 1.15
"""An engine must be so many times faster than the one before it."""
ROUNDS = 3


@dataclass(frozen=True)
class Agreement:
    """How an engine's keypoints stand to PyTorch's. n: of PyTorch; median_px, p95_px: distances in the image, NaN
    where there are none; lost: those that only one of the two finds."""

    n: int
    median_px: float
    p95_px: float
    lost: int

    @property
    def refusal(self) -> str | None:
        """Why the engine may not be used; None = it may."""
        if self.n < LEAST_KEYPOINTS:
            return f"only {self.n} keypoints to compare"
        if self.lost:
            return f"{self.lost} of {self.n} keypoints differ"
        if self.median_px > MEDIAN_PX or self.p95_px > P95_PX:
            return f"keypoints off by {self.median_px:.2f} px in the median, {self.p95_px:.2f} at the 95th percentile"
        return None


@dataclass(frozen=True)
class EngineChoice:
    """engine: a name for `PredictOptions`. told: how it did, and why others were refused; None where none was tried."""

    engine: EngineName
    told: str | None = None


def choose_engine(
    frames: Sequence[tuple[int, NDArray[np.uint8]]],
    network: Network,
    options: PredictOptions,
    engines: Sequence[EngineName] | None = None,
) -> EngineChoice:
    """The engine for the rest of a video, by some of its frames (number, RGB uint8 (h, w, 3)) in rising order.

    engines: those to try besides PyTorch, None = all that are installed. On a CUDA device it is always PyTorch.
    """
    engines = installed_engines() if engines is None else engines
    options = replace(options, region=False)  # the frames are far apart
    reference = Predictor(network, replace(options, engine="torch"))
    if reference.device.type != "cpu" or not engines or not frames:
        return EngineChoice("torch")
    truth, refused = _found(reference, frames), []
    right: dict[EngineName, Predictor] = {"torch": reference}
    agreed: dict[EngineName, Agreement] = {}
    for name in engines:
        try:
            predictor = Predictor(network, replace(options, engine=name))
            agreed[name] = agreement(truth, _found(predictor, frames), network, options.threshold)
            reason = agreed[name].refusal
        except Exception as error:  # packages of others, with errors of their own: PyTorch is there
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if reason is None:
            right[name] = predictor
        else:
            refused.append(f"{name}: {reason}")
    seconds = _seconds({name: _timed(predictor, frames) for name, predictor in right.items()})
    best: EngineName = "torch"
    for name in right:
        if seconds[name] * MARGIN < seconds[best]:
            best = name
    if best == "torch":
        slow = [f"{name}: {seconds['torch'] / seconds[name]:.1f} x as fast" for name in right if name != "torch"]
        return EngineChoice(best, "; ".join(["torch", *slow, *refused]))
    how = agreed[best]
    told = (
        f"{best}, {seconds['torch'] / seconds[best]:.1f} x as fast as torch; {how.n} keypoints off by "
        f"{how.median_px:.3f} px in the median, {how.p95_px:.3f} at the 95th percentile, none lost"
    )
    return EngineChoice(best, "; ".join([told, *refused]))


def agreement(truth: Candidates, found: Candidates, network: Network, threshold: float) -> Agreement:
    """Compare two engines' candidates of the same frames. A sure keypoint of one that the other does not have nearby
    is lost, in both directions."""
    sure = threshold + SURE * (1 - threshold)
    near = NEAR_CELLS * network.spec.stride / network.spec.scale
    distances, lost = _distances(truth, found, sure, near)
    extra = _distances(found, truth, sure, near)[1]
    n = len(distances) + lost
    if not len(distances):
        return Agreement(n, float("nan"), float("nan"), lost + extra)
    median, p95 = np.quantile(distances, (0.5, 0.95))
    return Agreement(n, float(median), float(p95), lost + extra)


def _distances(one: Candidates, other: Candidates, sure: float, near: float) -> tuple[NDArray[np.float64], int]:
    """How far each sure candidate of one is from the nearest of its kind in the other, px, and how many have none."""
    rows = [np.repeat(np.arange(len(c.frame)), np.diff(c.frame_start)) for c in (one, other)]
    keys = [np.stack((frame, c.keypoint), axis=1) for frame, c in zip(rows, (one, other), strict=True)]
    kept = np.flatnonzero(one.score >= sure)
    apart = cdist(one.xy[kept], other.xy)
    apart[(keys[0][kept][:, None] != keys[1][None]).any(axis=2)] = np.inf
    least = apart.min(axis=1, initial=np.inf)
    return least[least <= near], int((least > near).sum())


def _found(predictor: Predictor, frames: Sequence[tuple[int, NDArray[np.uint8]]]) -> Candidates:
    return next(predictor.windows(frames, len(frames)))


def _timed(predictor: Predictor, frames: Sequence[tuple[int, NDArray[np.uint8]]]) -> Callable[[], object]:
    return lambda: _found(predictor, frames)


def _seconds(works: dict[EngineName, Callable[[], object]]) -> dict[EngineName, float]:
    """The median time of each, taken in turns."""
    taken: dict[EngineName, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS if len(works) > 1 else 0):
        for name, work in works.items():
            begun = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - begun)
    return {name: float(np.median(times)) if times else 0.0 for name, times in taken.items()}
