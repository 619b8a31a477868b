"""Windows around animals: the same candidates as on whole frames, whoever moves, comes or goes, for less work."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from pose3d.nn.network import Network, NetworkSpec
from pose3d.nn.options import PredictOptions
from pose3d.nn.predict import Predictor
from pose3d.nn.region import Window, find_windows, look
from pose3d.poses import Candidates
from pose3d.skeleton import Skeleton

SIZE = (640, 448)
STRIDE = 4
SPEC = NetworkSpec("mobilenet_v2", 0.35, 8, Skeleton(("red", "green", "blue")), ((0, 1),), 1.0)
BODY = np.array([[-24.0, 0.0], [0.0, 6.0], [24.0, 0.0]])
COLUMNS = ("frame_start", "keypoint", "xy", "score", "limb_start", "a", "b", "edge", "limb_score", "frame")


class Colours(torch.nn.Module):
    """A network that knows: each channel's brightness is its keypoint's heat. It counts what it looks at."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels, self.images = 0, 0

    def maps(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        heat = torch.nn.functional.avg_pool2d((images + 1) / 2, STRIDE)
        n, k, h, w = heat.shape
        self.pixels, self.images = self.pixels + n * h * w * STRIDE**2, self.images + n
        there = (heat.amax(dim=1) > 0.05).float()  # the field points to the right wherever an animal is
        paf = torch.stack((there, torch.zeros_like(there)), dim=1)[:, None]
        return heat, torch.zeros(n, k, 2, h, w), paf, torch.zeros(n, 0, 3, h, w)


def film(*animals: Callable[[int], tuple[float, float] | None], n: int) -> list[tuple[int, np.ndarray]]:
    """n frames (number, image) of animals of three coloured blobs whose centres are told by frame; None = not there."""
    u, v = np.arange(SIZE[0]), np.arange(SIZE[1])
    frames = []
    for i in range(n):
        image = np.zeros((SIZE[1], SIZE[0], 3))
        for place in (animal(i) for animal in animals):
            for channel, (x, y) in enumerate(BODY + place if place is not None else ()):
                across, down = np.exp(-((u - x) ** 2) / 72.0), np.exp(-((v - y) ** 2) / 72.0)  # an SD of 6 px
                image[..., channel] += 240 * np.outer(down, across)
        frames.append((i, np.clip(image, 0, 255).round().astype(np.uint8)))
    return frames


def predicted(
    frames: list[tuple[int, np.ndarray]], *, workers: int = 1, **options: object
) -> tuple[Candidates, Colours]:
    network = Network(SPEC, Colours(), np.ones(3))  # type: ignore[arg-type]
    predictor = Predictor(network, PredictOptions(**options))  # type: ignore[arg-type]
    predictor.workers = workers
    return next(predictor.windows(frames, len(frames))), predictor.module  # type: ignore[return-value]


def assert_same(one: Candidates, other: Candidates) -> None:
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def walking(i: int) -> tuple[float, float]:
    return 90.0 + 4.0 * i, 100.0 + 20 * np.sin(i / 5)


def resting(i: int) -> tuple[float, float]:
    return 480.0, 370.0


SCENES = {
    "one walks, another rests": (walking, resting),
    "one comes and stays": (resting, lambda i: (700.0 - 8 * i, 90.0) if i > 12 else None),
    "one leaves": (resting, lambda i: (100.0, 120.0 - 6 * i)),
    "one is there for three frames only": (resting, lambda i: (120.0, 80.0) if 8 <= i < 11 else None),
    "one runs there and back": (resting, lambda i: (120.0, 90.0 + 25 * (12 - abs(i % 24 - 12)))),
    "nobody, then somebody": (lambda i: (300.0, 200.0) if i > 30 else None,),
}


@pytest.mark.parametrize("scene", SCENES)
def test_candidates_are_those_of_whole_frames(scene: str) -> None:
    """Exactly, because this network sees no farther than a cell."""
    frames = film(*SCENES[scene], n=60)
    whole, everything = predicted(frames, region=False)
    found, looked = predicted(frames)
    assert len(whole.keypoint) > 60
    assert_same(found, whole)
    assert everything.pixels == 60 * SIZE[0] * SIZE[1]
    if scene == "one walks, another rests":
        assert looked.pixels < 0.5 * everything.pixels


def test_nothing_depends_on_threads_batch_or_where_reading_begins() -> None:
    frames = film(walking, resting, SCENES["one comes and stays"][1], n=70)
    expected = predicted(frames)[0]
    for workers, batch in ((1, 5), (3, 1), (3, 40)):
        assert_same(predicted(frames, workers=workers, batch=batch)[0], expected)
    predictor = Predictor(Network(SPEC, Colours(), np.ones(3)))  # type: ignore[arg-type]
    windows = list(predictor.windows(iter(frames), 33))
    later = Predictor(Network(SPEC, Colours(), np.ones(3)))  # type: ignore[arg-type]
    assert_same(next(later.windows(iter(frames[33:]), 33)), windows[1])


def test_it_costs_nothing_where_animals_fill_the_frame_or_frames_do_not_follow() -> None:
    spread = [lambda i, x=x, y=y: (x, y) for x in (90.0, 320.0, 560.0) for y in (70.0, 230.0, 380.0)]
    for frames in (film(*spread, n=30), [(7 * i, image) for i, image in film(resting, n=30)]):
        looked = predicted(frames)[1]
        assert (looked.images, looked.pixels) == (30, 30 * SIZE[0] * SIZE[1])


def candidates(*places: tuple[float, float], kinds: int = 4) -> tuple[np.ndarray, ...]:
    """An animal of 4 keypoints 12 px apart at each place, in input px; no limbs."""
    keypoint = np.repeat(np.arange(kinds, dtype=np.int32), len(places))
    cell = (np.tile(np.reshape(places, (-1, 2)), (kinds, 1)) + 12.0 * keypoint[:, None]) / STRIDE
    none = np.zeros(0, np.int64)
    return keypoint, cell, np.full(len(keypoint), 0.9), none, none, none, np.zeros(0)


@pytest.mark.parametrize("what", ["missing", "at the border", "as it was"])
def test_what_is_doubtful_in_a_window_is_looked_at_whole(what: str) -> None:
    """In the fifth frame an animal of two is missing, or one is near the border of its window."""
    shown = {
        "missing": candidates((100.0, 100.0)),
        "at the border": candidates((100.0, 100.0), (500.0, 455.0)),
        "as it was": candidates((100.0, 100.0), (500.0, 405.0)),
    }
    calls: list[tuple[list[int], Sequence[Window]]] = []

    def predict(numbers, images, border, windows=()):
        calls.append((numbers, windows))
        truth = candidates((100.0, 100.0), (500.0, 400.0))
        return [(n, shown[what] if windows and n == 5 else truth) for n in numbers]

    numbers, images = list(range(20)), np.zeros((20, 640, 640, 3), np.uint8)
    found = look(numbers, images, np.array([160.0, 160.0]), STRIDE, 4, predict)
    assert [n for n, _ in found] == numbers
    assert [n for n, windows in calls if not windows] == [[0, 19]] + ([] if what == "as it was" else [[5]])
    for n, arrays in found:
        if what != "as it was" or n != 5:
            np.testing.assert_array_equal(arrays[1], candidates((100.0, 100.0), (500.0, 400.0))[1])


def test_windows_hold_the_animals(rng: np.random.Generator) -> None:
    """In the frame, apart from each other, sides of multiples of 64 px or the frame's, 64 px around all candidates."""
    shape, several = (736, 1056), 0
    for _ in range(300):
        first = rng.uniform(0, (1000, 700), (rng.integers(1, 4), 2))
        last = np.clip(first + rng.normal(0, 40, first.shape), 0, (1000, 700))
        windows = find_windows(candidates(*first), candidates(*last), shape, STRIDE, 4)
        several += len(windows) > 1
        covered = np.zeros(shape, dtype=int)
        for left, top, right, bottom in windows:
            assert 0 <= left < right <= shape[1]
            assert 0 <= top < bottom <= shape[0]
            assert all(side % 64 == 0 or side in shape for side in (right - left, bottom - top))
            assert not np.any([n % 32 for n in (left, top, right, bottom)])
            covered[top:bottom, left:right] += 1
        assert covered.max(initial=0) <= 1
        assert covered.mean() <= 0.7
        if windows:
            for corner in (-64, 0, 64):
                for share in (0.0, 1.0):
                    x, y = (first + share * (last - first) + corner).round().astype(int).T
                    assert covered[np.clip(y, 0, shape[0] - 1), np.clip(x, 0, shape[1] - 1)].all()
    assert several > 50
    one, two = candidates((100.0, 100.0)), candidates((100.0, 100.0), (500.0, 400.0))
    assert find_windows(one, two, shape, STRIDE, 4) == ()
    assert find_windows(candidates(), candidates(), shape, STRIDE, 4) == ()
