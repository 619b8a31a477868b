"""Mistakes put into simulated labels are named with their frame; sound ones of many postures are left alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pose3d.label_check import LEAST_POSES, suspect_labels
from pose3d.labels import Labels, Picture
from pose3d.skeleton import Skeleton

SKELETON = Skeleton(("nose", "left_ear", "right_ear", "spine", "left_hip", "right_hip", "tail"))
REST = np.array([[0, 0], [-12, 14], [12, 14], [0, 40], [-14, 66], [14, 66], [0, 90]], dtype=float)
PAIRS = ((1, 2), (4, 5))


def animals(rng: np.random.Generator, n: int = 80, noise: float = 1.0, individuals: int = 1) -> Labels:
    """Animals of any place, size and heading that bend to both sides; one in ten keypoints is not labelled."""
    points = np.empty((n, individuals, len(REST), 2))
    for row, slot in np.ndindex(n, individuals):
        bend = np.interp(REST[:, 1], [0, 90], [0, rng.uniform(-1.2, 1.2)])
        x = REST[:, 0] * np.cos(bend) + np.cumsum(np.diff(REST[:, 1], prepend=0) * np.sin(bend)) * 0.8
        turn, size = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 1.4)
        R = size * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        points[row, slot] = np.stack((x, REST[:, 1]), axis=1) @ R.T + rng.uniform(200, 800, 2)
    points += noise * rng.normal(size=points.shape)
    points[rng.uniform(size=points.shape[:3]) < 0.1] = np.nan
    pictures = tuple(Picture(Path(f"{row}.png")) for row in range(n))
    return Labels(points, np.arange(n) * 3, ("top",) * n, ("walk",) * n, pictures, SKELETON)


def changed(labels: Labels, row: int, keypoints: list[int], points: np.ndarray) -> Labels:
    new = labels.points.copy()
    new[row, 0, keypoints] = points
    return replace(labels, points=new)


def test_sound_labels_are_left_alone(rng: np.random.Generator) -> None:
    """Of 4,000 keypoints at most one in a thousand; no sides."""
    found = [suspect for _ in range(5) for suspect in suspect_labels(animals(rng, 120))]
    assert {suspect.kind for suspect in found} <= {"outlier"}
    assert len(found) <= 4


@pytest.mark.parametrize("pair", [*PAIRS, PAIRS])
def test_exchanged_sides_are_named(rng: np.random.Generator, pair: tuple) -> None:
    labels = animals(rng)
    pairs = [pair] if isinstance(pair[0], int) else list(pair)
    known = np.isfinite(labels.points[:, 0, :, 0])
    rows = np.flatnonzero(known[:, [k for pair in pairs for k in pair]].all(axis=1) & (known.sum(axis=1) > 5))[:8]
    for row in rows:
        one = labels
        for a, b in pairs:
            one = changed(one, row, [a, b], one.points[row, 0, [b, a]])
        (found,) = [suspect for suspect in suspect_labels(one) if suspect.kind == "exchanged"]
        assert (found.row, found.slot) == (row, 0)
        assert set(found.keypoints) == {SKELETON.keypoints[k] for pair in pairs for k in pair}
        assert f"top, walk, frame {3 * row}" in str(found)
        assert not [suspect for suspect in suspect_labels(one) if suspect.row == row and suspect.kind == "outlier"]


def test_a_keypoint_on_another_place_is_named_first(rng: np.random.Generator) -> None:
    labels = animals(rng)
    for row, keypoint in ((5, 0), (17, 3), (40, 6), (63, 4)):
        away = 70 * np.array([np.cos(row), np.sin(row)])
        wrong = np.nan_to_num(labels.points[row, 0, keypoint], nan=2000.0) + away
        found = suspect_labels(changed(labels, row, [keypoint], wrong[None]))
        assert (found[0].kind, found[0].row, found[0].keypoints) == ("outlier", row, (SKELETON.keypoints[keypoint],))


def test_a_mirrored_video_is_ordinary_where_half_of_the_frames_are(rng: np.random.Generator) -> None:
    labels = animals(rng, 120)
    points = labels.points.copy()
    points[::2, ..., 0] *= -1
    assert "exchanged" not in {suspect.kind for suspect in suspect_labels(replace(labels, points=points))}


def test_what_is_on_one_spot_twice_or_never_given(rng: np.random.Generator) -> None:
    labels = animals(rng, individuals=2)
    points = labels.points.copy()
    points[3, 1], points[9, 0, 4] = points[3, 0], points[9, 0, 5] = (300.0, 301.0)
    points[:, :, 6] = np.nan
    points[3, 1] = points[3, 0] = rng.uniform(0, 100, (7, 2))
    cameras = ("top",) * 40 + ("side",) * 40
    points[40:, :, 0] = np.nan
    found = suspect_labels(replace(labels, points=np.where(np.arange(7)[:, None] == 6, np.nan, points), camera=cameras))
    told = {(suspect.kind, suspect.where, suspect.keypoints) for suspect in found}
    assert ("same_spot", "top, walk, frame 27", ("left_hip", "right_hip")) in told
    assert ("twice", "top, walk, frame 9", SKELETON.keypoints[:6]) in told
    assert ("never_labelled", "all frames", ("tail",)) in told
    assert ("never_labelled", "side", ("nose",)) in told


def test_few_labels_have_nothing_to_be_compared_with(rng: np.random.Generator) -> None:
    labels = animals(rng, LEAST_POSES - 1)
    wild = rng.uniform(0, 900, labels.points.shape)
    assert suspect_labels(replace(labels, points=wild)) == ()
    assert suspect_labels(labels.take([])) != ()  # never labelled at all
