"""Labels that other cameras contradict are named, one by one or together; those that agree are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from calibration.rig import CameraRig
from calibration.synthetic import ring_rig
from pose3d.labels import Labels, Picture, join_labels
from pose3d.skeleton import Skeleton
from pose3d.view_check import LEAST_AGREEING, contradicted_labels

SKELETON = Skeleton(("nose", "spine", "tail"))
N = 40


def labelled(rng: np.random.Generator, cameras: int = 5, noise: float = 1.5) -> tuple[CameraRig, Labels]:
    """One animal in all cameras of a rig, camera after camera, 5 % of its keypoints not labelled."""
    rig = ring_rig(cameras, rng, radius=1000, height=700)
    points = rng.uniform(-150, 150, (N, 3, 3))
    parts = []
    for camera in rig:
        xy = (camera.project(points) + noise * rng.normal(size=(N, 3, 2)))[:, None]
        xy[rng.uniform(size=(N, 1, 3)) < 0.05] = np.nan
        pictures = tuple(Picture(Path(f"{camera.name}/{f}.png")) for f in range(N))
        parts.append(Labels(xy, np.arange(N), (camera.name,) * N, ("v",) * N, pictures, SKELETON))
    return rig, join_labels(parts)


def moved(labels: Labels, rows: list[int], keypoint: int, px: float) -> Labels:
    points = labels.points.copy()
    points[rows, 0, keypoint] += px
    return replace(labels, points=points)


def test_labels_that_agree_are_not_named(rng: np.random.Generator) -> None:
    rig, labels = labelled(rng)
    assert contradicted_labels(labels, rig) == ()


def test_a_wrong_label_is_named_with_its_camera(rng: np.random.Generator) -> None:
    rig, labels = labelled(rng)
    for row, keypoint in ((3, 0), (N + 17, 1), (4 * N + 39, 2)):
        seen = np.isfinite(labels.points[row % N :: N, 0, keypoint, 0])
        known = bool(seen[row // N] and seen.sum() > LEAST_AGREEING)
        found = contradicted_labels(moved(labels, [row], keypoint, 25.0), rig)
        assert [suspect.row for suspect in found] == [row] * known
        for suspect in found:
            assert (suspect.kind, suspect.keypoints) == ("contradicted", (SKELETON.keypoints[keypoint],))
            assert suspect.where == f"cam{row // N}, v, frame {row % N}"


def test_a_camera_that_marks_another_spot_is_told_of_once(rng: np.random.Generator) -> None:
    rig, labels = labelled(rng)
    (found,) = contradicted_labels(moved(labels, list(range(2 * N, 3 * N)), 2, 40.0), rig)
    assert found.keypoints == ("tail",)
    assert found.where.startswith("cam2, ")
    seen = np.isfinite(labels.points[:, 0, 2, 0]).reshape(5, N)
    judged = int((seen[2] & (seen.sum(axis=0) > LEAST_AGREEING)).sum())
    assert f"{judged} of its {seen[2].sum()} labels" in str(found)


def test_what_cannot_be_judged_is_left_alone(rng: np.random.Generator) -> None:
    rig, labels = labelled(rng, cameras=3)
    wrong = moved(labels, [3], 0, 60.0)
    assert contradicted_labels(wrong, rig) == (), "two other cameras nearly always agree on something"
    rig, labels = labelled(rng)
    wrong = moved(labels, [3], 0, 60.0)
    assert contradicted_labels(replace(wrong, camera=("elsewhere",) * len(wrong)), rig) == ()
    two = replace(wrong, points=np.concatenate((wrong.points, wrong.points + 9), axis=1))
    assert contradicted_labels(two, rig) == ()
