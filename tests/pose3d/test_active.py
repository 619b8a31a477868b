"""Frames that were made bad on purpose come first; choices differ from each other and from nothing at random."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.rig import CameraRig
from calibration.synthetic import ring_rig
from pose3d.active import choose_frames, expected_in_views, normal_pose, view_doubts, view_usual
from pose3d.poses import Groups, Poses
from pose3d.synthetic import Faults, simulate_animals, simulate_views

FRAMES = 400
CLEAN = Faults(missed=0.0, outlier=0.0, dropout=0.0, ghosts=0.0, occluded_missed=0.0, occluded_noise=1.0)


def scene(seed: int) -> tuple[dict[str, Poses], Groups, Poses, CameraRig]:
    """2D poses of two animals in three cameras with scores of 0.9, who is who, the truth in 3D, and the rig."""
    rng = np.random.default_rng(seed)
    rig = ring_rig(3, rng, radius=650.0, height=450.0, size=(480, 360), focal_px=450.0)
    truth = simulate_animals(rng, 2, FRAMES)
    seen = simulate_views(truth, rig, rng, CLEAN)
    views = {name: poses.replace(score=np.where(poses.missing, 0.0, 0.9)) for name, poses in seen.views.items()}
    slots = np.full((FRAMES, 2, 3), -1)
    for v, name in enumerate(rig.names):
        for animal in range(2):
            here = seen.identity[name] == animal
            slots[:, animal, v] = np.where(here.any(axis=1), here.argmax(axis=1), -1)
    ids = np.broadcast_to(np.arange(2), (FRAMES, 2))
    return views, Groups(rig.names, slots, ids), truth, rig


def spoil(poses: Poses, kind: str, row: int, size: float) -> Poses:
    """One frame of a view made bad: all scores low, four keypoints not found, or one elsewhere with a good score."""
    points, score = poses.points.copy(), poses.score.copy()
    slot = int(np.isfinite(points[row, ..., 0]).sum(axis=1).argmax())
    if kind == "unsure":
        score[row, slot] *= 0.3
    elif kind == "missing":
        points[row, slot, :4] = np.nan
    elif kind == "elsewhere":
        points[row, slot, 5] += [1.5 * size, 0.0]
    elif kind == "vague":
        extras = {"covariance": np.tile(np.eye(2), (*score.shape, 1, 1))}
        extras["covariance"][row, slot] *= size**2
        return poses.replace(extras=extras)
    elif kind == "lost":
        points[row, slot] = np.nan
    return poses.replace(points=points, score=score)


@pytest.mark.parametrize("kind", ["unsure", "missing", "elsewhere", "vague", "lost"])
def test_what_is_bad_has_the_highest_score(kind: str) -> None:
    views, groups, truth, rig = scene(1)
    size = view_usual(views["cam0"]).size
    row = 200
    views["cam0"] = spoil(views["cam0"], kind, row, size)
    if kind == "lost":
        slot = int(views["cam0"].missing[row].all(axis=1).argmax())
        groups.slots[row, groups.slots[row, :, 0] == slot, 0] = -1
    expected = expected_in_views(truth, groups, rig)
    scores = []
    for name, poses in views.items():
        doubts = view_doubts(poses, view_usual(poses, expected[name]), expected[name])
        assert ((doubts.score >= 0) & (doubts.score <= 1)).all()
        scores.append(doubts.score)
    assert int(np.argmax(scores[0])) == row
    assert scores[0][row] == max(score.max() for score in scores)
    doubts = view_doubts(views["cam0"], view_usual(views["cam0"], expected["cam0"]), expected["cam0"])
    if kind == "elsewhere":
        assert doubts.apart[row, doubts.worst[row], 5] == pytest.approx(1.5, abs=0.2)
    if kind == "lost":
        assert doubts.worst[row] == -1
        assert doubts.lost[row] == 1


def test_one_camera_tells_unsure_and_missing_animals_alone() -> None:
    views, *_ = scene(2)
    poses = views["cam1"]
    size = view_usual(poses).size
    for kind in ("unsure", "lost"):
        doubts = view_doubts(spoil(poses, kind, 100, size), view_usual(poses))
        assert int(np.argmax(doubts.score)) == 100, kind
        assert np.isnan(doubts.apart).all()
    assert (doubts.count[100], doubts.usual_count[100], doubts.worst[100]) == (1, 2, -1)


def test_what_a_camera_never_sees_costs_nothing() -> None:
    views, *_ = scene(2)
    points = views["cam0"].points.copy()
    points[:, :, 3] = np.nan
    blind = views["cam0"].replace(points=points)
    assert not view_doubts(blind, view_usual(blind)).unsure[:, :, 3].any()


def test_a_vague_keypoint_is_not_told_twice() -> None:
    views, groups, truth, rig = scene(1)
    size = view_usual(views["cam0"]).size
    bad = spoil(views["cam0"], "elsewhere", 200, size)
    expected = expected_in_views(truth, groups, rig)["cam0"]
    usual = view_usual(bad, expected)
    vague = bad.replace(extras={"covariance": np.tile((2 * size) ** 2 * np.eye(2), (*bad.score.shape, 1, 1))})
    told, before = view_doubts(vague, usual, expected).score, view_doubts(bad, usual, expected).score
    assert told[200] / np.median(told) < before[200] / np.median(before)


def test_bad_frames_are_chosen_first() -> None:
    """24 bad frames of 1200, of four kinds: the first 24 suggestions are these."""
    views, groups, truth, rig = scene(5)
    rng = np.random.default_rng(0)
    bad = set()
    for v, name in enumerate(views):
        rows = 15 + 45 * np.arange(8) + rng.integers(0, 20, 8)
        for row, kind in zip(rows.tolist(), ["unsure", "missing", "elsewhere", "unsure"] * 2, strict=True):
            views[name] = spoil(views[name], kind, row, view_usual(views[name]).size)
            bad.add((v, row))
    expected = expected_in_views(truth, groups, rig)
    score, pose = [], []
    for name, poses in views.items():
        doubts = view_doubts(poses, view_usual(poses, expected[name]), expected[name])
        score.append(doubts.score)
        pose.append(normal_pose(poses, doubts.worst))
    frame, camera = np.tile(np.arange(FRAMES), 3), np.repeat(rig.names, FRAMES)
    rows = choose_frames(
        np.concatenate(score), frame, camera.tolist(), ["walk"] * len(frame), np.concatenate(pose), 24, 5
    )
    chosen = {(int(row) // FRAMES, int(row) % FRAMES) for row in rows}
    assert chosen == bad


def choices(score: np.ndarray, pose: np.ndarray, count: int, apart: int = 3) -> list[int]:
    n = len(score)
    return choose_frames(score, np.arange(n), ["top"] * n, ["walk"] * n, pose, count, apart).tolist()


def test_equal_doubts_are_spread_over_poses_and_time(rng: np.random.Generator) -> None:
    """Nine in ten frames show one posture, every tenth one of two others: each comes among the first four."""
    postures = rng.normal(size=(3, 6, 2))
    which = np.where(np.arange(200) % 20 == 7, 1, np.where(np.arange(200) % 20 == 17, 2, 0))
    rows = choices(np.ones(200), postures[which] + 0.01 * rng.normal(size=(200, 6, 2)), 4)
    assert set(which[rows[:4]]) == {0, 1, 2}
    same = np.broadcast_to(postures[0], (200, 6, 2))
    rows = sorted(choices(np.ones(200), same, 5))
    assert np.diff(rows).min() >= 30, "one posture: spread over time"
    assert choices(np.ones(200), same, 5) == choices(np.ones(200), same, 5)


def test_choices_keep_apart_and_leave_out_what_is_not_doubtful() -> None:
    score = np.zeros(50)
    score[[10, 11, 12, 13, 30]] = [0.7, 0.8, 0.9, 0.8, 0.1]
    score[40] = np.nan
    pose = np.full((50, 4, 2), np.nan)
    assert choices(score, pose, 10) == [12, 30]
    assert choices(np.zeros(50), pose, 10) == []


def test_cameras_and_recordings_get_their_share() -> None:
    n = 400
    camera = ["left", "right"] * (n // 2)
    recording = ["a"] * (n // 2) + ["b"] * (n // 2)
    pose = np.broadcast_to(np.random.default_rng(0).normal(size=(5, 2)), (n, 5, 2))
    rows = choose_frames(np.ones(n), np.arange(n), camera, recording, pose, 12, 3)
    told = [(camera[row], recording[row]) for row in rows]
    assert {told.count(place) for place in set(told)} == {3}
