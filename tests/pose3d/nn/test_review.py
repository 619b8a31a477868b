"""What a network finds on held-out frames, and which animals are shown: the worst, with the keypoints at fault."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pose3d.labels import Labels, Picture, hold_out
from pose3d.nn.options import PredictOptions, TrainOptions
from pose3d.nn.review import held_out_labels, labelled_candidates, nearest_candidates, worst_keypoints
from pose3d.poses import Candidates
from pose3d.skeleton import Skeleton

SKELETON = Skeleton(("nose", "tail"))


def labels_of(points: np.ndarray, folder: Path = Path("none")) -> Labels:
    n = len(points)
    pictures = tuple(Picture(folder / f"{row}.png") for row in range(n))
    return Labels(points, np.arange(n), ("top",) * n, ("walk",) * n, pictures, SKELETON)


def test_the_frames_are_those_that_training_holds_out(rng: np.random.Generator) -> None:
    points = rng.uniform(0, 90, (30, 1, 2, 2))
    points[4] = np.nan
    held = held_out_labels(labels_of(points), TrainOptions(held_out=0.2))
    rest = np.delete(np.arange(30), 4)
    np.testing.assert_array_equal(held.frame, rest[hold_out(labels_of(points[rest]), 0.2)[1]])
    assert len(held_out_labels(labels_of(points), TrainOptions(held_out=0.0))) == 0


def test_as_many_of_the_strongest_candidates_as_there_are_animals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = np.full((2, 2, 2, 2), np.nan)
    points[0, 0] = [[10, 10], [20, 20]]
    points[1] = [[[10, 10], [20, 20]], [[50, 50], [60, 60]]]
    for row in range(2):
        cv2.imwrite(str(tmp_path / f"{row}.png"), np.zeros((90, 90, 3), np.uint8))
    rows = [(0, 0, 14, 10, 0.9), (0, 0, 11, 10, 0.3), (1, 0, 10, 11, 0.5), (1, 0, 53, 50, 0.4), (1, 0, 50, 50, 0.2)]
    _, keypoint, x, y, score = np.array(rows).T
    none = np.zeros(0, np.int64)
    found = Candidates(
        frame_start=np.array([0, 2, 5]), keypoint=keypoint.astype(int), xy=np.stack((x, y), axis=1), score=score,
        covariance=np.tile(np.eye(2), (5, 1, 1)), limb_start=np.zeros(3, np.int64), a=none, b=none, edge=none,
        limb_score=np.zeros(0), frame=np.arange(2), skeleton=SKELETON,
    )  # fmt: skip
    monkeypatch.setattr("pose3d.nn.review.predict_candidates", lambda frames, *_: (list(frames), found)[1])
    estimates = nearest_candidates(None, labels_of(points, tmp_path))
    np.testing.assert_array_equal(estimates[0, 0, 0], [14, 10])  # one animal: the strongest, not the nearest
    np.testing.assert_array_equal(estimates[1, :, 0], [[10, 11], [53, 50]])
    assert np.isnan(estimates[:, :, 1]).all()
    assert np.isnan(estimates[0, 1]).all()


def test_pictures_of_cameras_with_different_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network takes pictures of one size at a time: those of another begin anew."""
    sizes = [(90, 60), (90, 60), (40, 50), (90, 60)]
    for row, (width, height) in enumerate(sizes):
        cv2.imwrite(str(tmp_path / f"{row}.png"), np.full((height, width, 3), row, np.uint8))
    asked: list[PredictOptions] = []

    def predict(frames, network, options):
        asked.append(options)
        return [(number, image.shape, int(image[0, 0, 0])) for number, image in frames]

    monkeypatch.setattr("pose3d.nn.review.predict_candidates", predict)
    found = list(labelled_candidates(None, labels_of(np.zeros((4, 1, 2, 2)), tmp_path), PredictOptions(limit=7)))
    assert {(options.region, options.limit) for options in asked} == {(False, 7)}, "no frames of a video"
    assert sorted(row for rows, _ in found for row in rows) == [0, 1, 2, 3]
    for rows, images in found:
        assert [(row, (*sizes[row][::-1], 3), row) for row in rows] == [(rows[n], *rest) for n, *rest in images]
        assert [number for number, *_ in images] == list(range(len(rows)))
        assert len({shape for _, shape, _ in images}) == 1


def test_the_worst_come_first_with_what_is_not_found(rng: np.random.Generator) -> None:
    points = rng.uniform(0, 90, (20, 1, 2, 2))
    points[3, 0, 1] = np.nan
    estimates = points + 0.5
    estimates[7, 0, 0] += 30
    estimates[9, 0, 1] = np.nan
    lost, far, *rest = worst_keypoints(labels_of(points), estimates)
    assert (lost.row, lost.keypoints, str(lost)) == (
        9, ("tail",), "top, walk, frame 9: tail off by up to 0.7 px; tail not found"
    )  # fmt: skip
    assert (far.row, far.keypoints) == (7, ("nose",))
    assert far.score == pytest.approx(np.hypot(30.5, 30.5))
    assert len(rest) == 10
    assert worst_keypoints(labels_of(np.full((2, 1, 2, 2), np.nan)), np.full((2, 1, 2, 2), np.nan)) == ()
