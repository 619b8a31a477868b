"""What the demo's network learns from: whole scenes, true labels where a camera sees, the same files every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pose3d.labels import check_labels, hold_out
from pose3d.rehearsal import EVERY, FRAMES, MOST_ANIMALS, film_labels
from pose3d.synthetic import QUADRUPED


def test_scenes_are_filmed_and_labelled_by_their_truth(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    labels = film_labels(tmp_path / "a", 600.0, 400.0, scenes=2, progress=lambda *what: told.append(what))
    assert told == [("filming scenes to learn from", 1, 2), ("filming scenes to learn from", 2, 2)]
    assert (len(labels), labels.skeleton) == (2 * FRAMES // EVERY, QUADRUPED)
    assert labels.points.shape[1] == MOST_ANIMALS
    held = hold_out(labels, 0.2)[1]
    assert (np.diff(held) == 1).all(), "whole scenes are held out, not one frame of many"
    check_labels(labels)  # every picture is there, every label inside it
    known = np.isfinite(labels.points[..., 0])
    there = known.any(axis=(0, 2))
    assert there[0]
    assert (np.diff(there.astype(int)) <= 0).all(), "slots are filled from the first"
    share = known[:, there].mean()
    assert 0.3 < share < 1.0, "most is seen, what is hidden is not labelled"
    again = film_labels(tmp_path / "b", 600.0, 400.0, scenes=2)
    np.testing.assert_array_equal(again.points, labels.points)
    for one, other in zip(labels.pictures, again.pictures, strict=True):
        assert one.path.read_bytes() == other.path.read_bytes()
