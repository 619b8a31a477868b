"""Labels that other cameras contradict are named, one by one or together; those that agree tell how noisy they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibration.rig import CameraRig
from calibration.synthetic import ring_rig
from pose3d.labels import Labels, Picture, join_labels
from pose3d.skeleton import Skeleton
from pose3d.view_check import LEAST_AGREEING, contradicted_labels, label_noise

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


def test_recordings_are_kept_apart(rng: np.random.Generator) -> None:
    """Frames of the same number, of two recordings, are two moments, whether videos are called by camera or not."""
    rig, labels = labelled(rng)
    whole = np.isfinite(labels.points[:, 0, 0, 0]).reshape(5, N).all(axis=0)
    row = N // 2 + int(whole[N // 2 :].argmax())
    labels = moved(labels, [row], 0, 25.0)
    assert [suspect.row for suspect in contradicted_labels(labels, rig)] == [row]
    late = labels.frame >= N // 2
    one, other = labels.take(~late), labels.take(late)
    other = replace(other, frame=other.frame - N // 2)
    assert contradicted_labels(join_labels([one, other]), rig) == (), "nothing tells which rows are of one moment"
    for names in (("day1", "day2"), ("{0}_1.mp4", "{0}_2.mp4"), ("day1-{0}", "day2-{0}")):
        parts = [
            replace(part, video=tuple(name.format(camera) for camera in part.camera))
            for part, name in zip((one, other), names, strict=True)
        ]
        joined = join_labels(parts)
        assert [suspect.row for suspect in contradicted_labels(joined, rig)] == [len(one) + row - N // 2]
        assert label_noise(joined, rig)["tail"].sd == pytest.approx(label_noise(labels, rig)["tail"].sd)


def test_the_noise_of_labels_by_keypoint_and_camera(rng: np.random.Generator) -> None:
    rig, labels = labelled(rng, cameras=4, noise=1.0)
    points = labels.points.copy()
    worse = np.array([name == "cam2" for name in labels.camera])
    points[worse, 0, 1] += np.sqrt(8.0) * rng.normal(size=(int(worse.sum()), 2))  # 3 px in all
    told = label_noise(replace(labels, points=points), rig)
    assert tuple(told) == SKELETON.keypoints
    for name, noise in told.items():
        sd = np.array([1.0, 1.0, 3.0 if name == "spine" else 1.0, 1.0])
        np.testing.assert_array_less(np.abs(noise.sd - sd), 3 * noise.se)
    assert label_noise(labels.take(~worse & (np.arange(len(labels)) < N)), rig) == {}, "one camera alone"
