"""Refined poses against known truth: accuracy, honesty, gaps, windows, jumps, identities."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibration.camera import Camera, Intrinsics
from calibration.errors import InputError
from calibration.geometry import rig_covariance_of_points, triangulate_points
from calibration.rig import CameraRig
from calibration.synthetic import ring_rig
from pose3d import refinement
from pose3d.motion import Motion
from pose3d.poses import ABSENT, BRIDGED, MEASURED, Groups, Poses
from pose3d.refinement import (
    RefineOptions,
    add_rig_covariance,
    gap_limit,
    learn_motion,
    refine,
    refine_window,
    windows,
)
from pose3d.skeleton import Skeleton
from pose3d.synthetic import simulate_animals
from pose3d.triangulation import triangulate

FRAMES, NOISE = 240, 1.5
LENGTHS = (20.0, 26.0, 17.0)
CHAIN = Skeleton(tuple("abcd"), bones=((0, 1), (2, 1), (2, 3)))


def ring(n: int) -> CameraRig:
    cameras = []
    for i in range(n):
        angle = 1.5 * i
        center = np.array([1000 * np.cos(angle), 1000 * np.sin(angle), 300.0])
        z = -center / np.linalg.norm(center)
        x = np.cross([0.0, 0, -1], z) / np.linalg.norm(np.cross([0.0, 0, -1], z))
        R = np.stack((x, np.cross(z, x), z))
        K = np.array([[1100.0, 0, 640], [0, 1100, 512], [0, 0, 1]])
        cameras.append(Camera(f"cam{i}", Intrinsics((1280, 1024), K, np.array([-0.1, 0.03, 0, 0, 0])), R, -R @ center))
    return CameraRig(tuple(cameras), "mm")


RIG = ring(4)


def smooth(rng: np.random.Generator, size: float) -> np.ndarray:
    """(FRAMES, 3) sums of sines with periods of 40 to 90 frames."""
    period, phase = rng.uniform(40, 90, (4, 3)), rng.uniform(0, 6.28, (4, 3))
    waves = np.sin(2 * np.pi * np.arange(FRAMES)[:, None, None] / period + phase)
    return size / 2 * np.sum(rng.normal(size=(4, 3)) * waves, axis=1)


def animal(rng: np.random.Generator) -> np.ndarray:
    """(FRAMES, 4, 3) mm: three stiff segments that turn smoothly."""
    points = [smooth(rng, 60.0)]
    for length in LENGTHS:
        turn = smooth(rng, 1.0) + rng.normal(size=3)
        points.append(points[-1] + length * turn / np.linalg.norm(turn, axis=1, keepdims=True))
    return np.stack(points, axis=1)


def detected(rng: np.random.Generator, truth: np.ndarray, missing: float = 0.15, wrong: float = 0.03) -> np.ndarray:
    """Pixels (views, frames, keypoints, 2) of truth (frames, keypoints, 3)."""
    xy = RIG.project(truth) + rng.normal(0, NOISE, (len(RIG), *truth.shape[:2], 2))
    bad = rng.random(xy.shape[:3]) < wrong
    angle, away = rng.uniform(0, 2 * np.pi, bad.sum()), rng.uniform(20, 200, bad.sum())
    xy[bad] += away[:, None] * np.stack((np.cos(angle), np.sin(angle)), axis=1)
    xy[rng.random(xy.shape[:3]) < missing] = np.nan
    return xy


def recording(xys: list[np.ndarray], skeleton: Skeleton = CHAIN, fps: float = 100.0):
    """Poses, views and groups of individuals 0, 1, ... from their pixels (views, frames, keypoints, 2)."""
    frames, n = xys[0].shape[1], len(xys)
    ids = np.tile(np.arange(n), (frames, 1))
    xy = np.stack(xys, axis=2)
    views = {name: Poses(xy[v], skeleton=skeleton, fps=fps) for v, name in enumerate(RIG.names)}
    groups = Groups(RIG.names, np.tile(np.arange(n)[:, None], (frames, 1, len(RIG))), ids)
    points = triangulate_points(xy.reshape(len(RIG), -1, 2), RIG).points.reshape(frames, n, -1, 3)
    return Poses(points, ids=ids, skeleton=skeleton, unit="mm", fps=fps), views, groups


@pytest.fixture(scope="module")
def session():
    rng = np.random.default_rng(1)
    truth = animal(rng)
    poses, views, groups = recording([detected(rng, truth)])
    return truth, poses, views, groups, refine(poses, views, groups, RIG)


def distance(poses: Poses, truth: np.ndarray) -> np.ndarray:
    away = np.linalg.norm(poses.points[:, 0] - truth, axis=-1)
    return away[np.isfinite(away)]


def test_better_than_triangulation_and_says_how_good(session):
    truth, poses, _, _, refined = session
    linear, found = distance(poses, truth), distance(refined, truth)
    assert np.median(found) < 0.5 * np.median(linear)
    assert found.max() < 6.0 < 20.0 < linear.max()  # wrong pixels do not pull
    assert found.size >= linear.size
    away = (refined.points[:, 0] - truth)[~refined.missing[:, 0]]
    covariance = refined.extras["covariance"][:, 0][~refined.missing[:, 0]]
    # chi-square over its degrees of freedom; this motion is smoother than the white accelerations of the model
    assert 0.4 < np.mean(np.einsum("ni,nij,nj->n", away, np.linalg.inv(covariance), away)) / 3 < 1.2
    jitter = [np.nanmedian(np.linalg.norm(np.diff(p, 2, axis=0), axis=-1)) for p in (poses.points, refined.points)]
    assert jitter[1] < 0.3 * jitter[0]


def test_bones_are_constant_and_help(session):
    truth, poses, views, groups, refined = session
    spread = {}
    for name, p in (("refined", refined.points[:, 0]), ("linear", poses.points[:, 0])):
        lengths = np.linalg.norm(p[:, [0, 1, 2]] - p[:, [1, 2, 3]], axis=-1)
        spread[name] = np.nanstd(lengths[20:-20], axis=0)
        if name == "refined":
            np.testing.assert_allclose(np.nanmedian(lengths, axis=0), LENGTHS, atol=0.5)
    assert np.all(spread["refined"] < 0.4)
    boneless = replace(CHAIN, bones=())
    loose = refine(
        poses.replace(skeleton=boneless), {n: v.replace(skeleton=boneless) for n, v in views.items()}, groups, RIG
    )
    assert np.median(distance(refined, truth)) < 0.93 * np.median(distance(loose, truth))


def test_what_is_delivered(session):
    _, poses, views, _, refined = session
    assert refined.extras["n_views"].dtype == np.int16
    measured = refined.extras["status"] == MEASURED
    assert np.all(refined.extras["n_views"][measured] >= 2)
    np.testing.assert_array_equal(refined.extras["status"] == ABSENT, refined.missing)
    np.testing.assert_array_equal(
        refined.score[~poses.missing & ~refined.missing], poses.score[~poses.missing & ~refined.missing]
    )
    xy = np.stack([views[name].points for name in RIG.names])
    errors = np.linalg.norm(RIG.project(refined.points) - xy, axis=-1)
    agree = errors < 6.0  # of 1.5 px noise and outliers from 20 px on, nearly all; the gate lies at 7.5 px
    close = measured & (refined.extras["n_views"] == agree.sum(axis=0))
    assert close.sum() > 0.97 * measured.sum()
    rms = np.sqrt(np.where(agree, errors**2, 0).sum(axis=0) / np.maximum(agree.sum(axis=0), 1))
    np.testing.assert_allclose(refined.extras["reprojection_error"][close], rms[close])
    assert refined.ids.tolist() == [[0]] * FRAMES
    assert refined.unit == "mm"


def test_what_is_not_sure_enough_is_not_delivered(session):
    _, poses, views, groups, refined = session
    sd = np.sqrt(np.trace(refined.extras["covariance"], axis1=-2, axis2=-1))
    limit = float(np.nanmedian(sd))
    strict = refine(poses, views, groups, RIG, RefineOptions(max_sd=limit))
    np.testing.assert_array_equal(strict.missing, ~(sd <= limit))
    np.testing.assert_array_equal(strict.points[~strict.missing], refined.points[~strict.missing])
    np.testing.assert_array_equal(strict.extras["status"] == ABSENT, strict.missing)
    assert np.isnan(strict.extras["covariance"][strict.missing]).all()
    with pytest.raises(InputError, match=r"^max_sd: expected a distance above 0, or none, got 0"):
        RefineOptions(max_sd=0)


def test_gaps_are_bridged_up_to_the_limit():
    rng = np.random.default_rng(2)
    truth = animal(rng)
    xy = detected(rng, truth, missing=0.0, wrong=0.0)
    xy[:, 50:60, 1] = np.nan  # ten frames
    xy[:, 100:112, 2] = np.nan  # twelve
    xy[:, :4, 3] = np.nan  # before the first
    xy[1:, 150:155, 0] = np.nan  # one view is left
    poses, views, groups = recording([xy])
    refined = refine(poses, views, groups, RIG, RefineOptions(max_gap_s=0.10))
    status = refined.extras["status"][:, 0]
    assert np.all(status[50:60, 1] == BRIDGED)
    assert np.all(status[100:112, 2] == ABSENT)
    assert np.all(status[:4, 3] == ABSENT)
    assert np.all(status[150:155, 0] == BRIDGED)
    assert refined.extras["n_views"][52, 0, 1] == 0
    assert refined.extras["n_views"][152, 0, 0] == 1
    assert np.isnan(refined.extras["reprojection_error"][52, 0, 1])
    assert (status == MEASURED).sum() == FRAMES * 4 - 10 - 12 - 4 - 5
    sd = np.sqrt(np.trace(refined.extras["covariance"][:, 0], axis1=-2, axis2=-1))
    assert np.all(np.diff(sd[49:55, 1]) > 0)
    assert np.all(np.diff(sd[55:61, 1]) < 0)
    assert np.isnan(sd[105, 2])
    away = np.linalg.norm(refined.points[50:60, 0, 1] - truth[50:60, 1], axis=-1)
    assert np.all(away < 4 * sd[50:60, 1])
    assert np.linalg.norm(refined.points[150:155, 0, 0] - truth[150:155, 0], axis=-1).max() < 4 * sd[150:155, 0].max()


def test_windows_leave_no_seams(session):
    _, poses, views, groups, refined = session
    cut = refine(poses, views, groups, RIG, RefineOptions(window=80, margin=50))
    np.testing.assert_array_equal(cut.extras["status"], refined.extras["status"])
    sd = np.sqrt(np.trace(refined.extras["covariance"], axis1=-2, axis2=-1))
    both = ~refined.missing
    apart = np.linalg.norm(cut.points - refined.points, axis=-1)[both] / sd[both]
    assert np.max(apart) < 0.35
    assert np.median(apart) < 0.02


def test_window_borders_lie_at_multiples_in_frame_numbers():
    frame = np.concatenate((np.arange(95, 130), np.arange(210, 305)))
    assert list(windows(frame, RefineOptions(window=100, margin=20))) == [
        (0, 25, 0, 5),
        (0, 45, 5, 35),
        (35, 130, 35, 125),
        (105, 130, 125, 130),
    ]


def test_a_jump_that_views_agree_on_stays_a_jump():
    rng = np.random.default_rng(3)
    truth = animal(rng)
    truth[120:] += (60.0, 0, 0)
    poses, views, groups = recording([detected(rng, truth, missing=0.1, wrong=0.0)])
    refined = refine(poses, views, groups, RIG)
    assert np.linalg.norm(refined.points[117:123, 0] - truth[117:123], axis=-1).max() < 5.0
    assert np.all(refined.extras["n_views"][117:123] >= 2)


def test_individuals_are_told_by_id_and_cameras_by_name():
    rng = np.random.default_rng(4)
    truths = [animal(rng), animal(rng) + 200.0]
    poses, views, groups = recording([detected(rng, truth) for truth in truths])
    straight = refine(poses, views, groups, RIG)
    # the same with slots exchanged in every other frame, other ids, and cameras in another order
    turn = np.where(np.arange(FRAMES)[:, None] % 2, [[1, 0]], [[0, 1]])
    order = [2, 0, 3, 1]
    ids = np.array([7, 3])[turn]
    slots = np.take_along_axis(groups.slots, turn[..., None], axis=1)[..., order]
    mixed = refine(
        poses.take_slots(turn).replace(ids=ids, names={7: "A", 3: "B"}),
        {RIG.names[i]: views[RIG.names[i]] for i in order},
        Groups(tuple(RIG.names[i] for i in order), slots, ids),
        RIG,
    )
    np.testing.assert_array_equal(mixed.ids, np.tile([3, 7], (FRAMES, 1)))
    assert mixed.names == {3: "B", 7: "A"}
    np.testing.assert_allclose(mixed.points[:, [1, 0]], straight.points, atol=1e-9)
    np.testing.assert_allclose(mixed.extras["covariance"][:, [1, 0]], straight.extras["covariance"], atol=1e-9)


def test_the_model_is_learnt_from_a_sample(session):
    _, poses, views, groups, _ = session
    whole, part = (
        learn_motion(poses, views, groups, RIG),
        learn_motion(poses, views, groups, RIG, RefineOptions(sample=150)),
    )
    assert isinstance(part, Motion)
    np.testing.assert_allclose(part.noise, whole.noise, rtol=0.15)
    np.testing.assert_allclose(part.bone_length, whole.bone_length, atol=0.6)
    assert not np.array_equal(part.noise, whole.noise)
    same = refine_window(poses, views, groups, RIG, whole)
    np.testing.assert_array_equal(same.points, refine_window(poses, views, groups, RIG, whole).points)


def test_progress_is_told(session):
    _, poses, views, groups, _ = session
    told = []
    refine(poses, views, groups, RIG, RefineOptions(window=120), progress=lambda *args: told.append(args))
    assert told == [("refine", 0, 2), ("refine", 1, 2), ("refine", 2, 2)]


def test_gap_limit_by_rate_or_time_or_count():
    poses = Poses(np.zeros((5, 1, 1, 3)), frame=np.array([0, 1, 2, 6, 7]))
    assert gap_limit(poses.replace(fps=100.0)) == 25
    assert gap_limit(poses.replace(time=poses.frame / 40.0)) == 10
    assert gap_limit(poses.replace(time=poses.frame / 40.0), RefineOptions(max_gap_s=0.5)) == 20
    assert gap_limit(poses, RefineOptions(max_gap=4)) == 4


def test_the_rig_adds_its_part_of_the_covariance(session):
    _, _, views, groups, refined = session
    exact = add_rig_covariance(refined, views, groups, RIG)
    np.testing.assert_array_equal(exact.extras["covariance_total"], refined.extras["covariance"])
    rng = np.random.default_rng(5)
    root = rng.normal(0, 1, (72, 72)) * np.tile([1e-4] * 3 + [0.1] * 3 + [0.5] * 4 + [0] * 8, 4)[:, None]
    rig = CameraRig(RIG.cameras, "mm", root @ root.T)
    total = add_rig_covariance(refined, views, groups, rig).extras["covariance_total"]
    added = total - refined.extras["covariance"]
    xy = np.stack([views[name].points[:, 0] for name in RIG.names])
    seen = np.isfinite(xy[..., 0])
    few = seen.sum(axis=0) < 2
    seen[:, few] = True
    expected = rig_covariance_of_points(refined.points[:, 0].reshape(-1, 3), seen.reshape(4, -1), rig).reshape(
        -1, 4, 3, 3
    )
    np.testing.assert_allclose(added[:, 0], expected, atol=1e-9)
    assert np.isfinite(expected[few & ~refined.missing[:, 0]]).all()


def test_errors(session):
    _, poses, views, groups, _ = session
    late = {**views, "cam1": views["cam1"].window(1, FRAMES)}
    with pytest.raises(InputError, match=r"camera 'cam1' .*240 frames .*239.*align"):
        refine(poses, late, groups, RIG)
    other = Skeleton(tuple("abce"))
    with pytest.raises(InputError, match="keypoints of camera 'cam0'"):
        refine(poses, {**views, "cam0": views["cam0"].replace(skeleton=other)}, groups, RIG)
    with pytest.raises(InputError, match="groups of 240 frames, got 100"):
        refine(poses, views, groups.window(0, 100), RIG)
    with pytest.raises(InputError, match="run identify or track first"):
        refine(poses.replace(ids=np.full((FRAMES, 1), -1)), views, groups, RIG)


def test_who_is_not_in_the_sample_moves_as_the_others_do() -> None:
    nan = np.nan
    learnt = Motion(
        np.array([1, 4, 9], dtype=np.int32),
        np.array([[1.0, nan, nan], [3.0, 2.0, nan], [4.0, nan, nan]]),
        np.array([[5.0, 6.0, 7.0], [nan, 8.0, 9.0], [nan, nan, nan]]),
        np.array([[10.0], [20.0], [30.0]]),
        np.array([[0.1], [0.2], [0.3]]),
    )
    everyone = refinement._for_everyone(learnt, np.array([1, 2, 4, 9], dtype=np.int32))
    np.testing.assert_array_equal(everyone.ids, [1, 2, 4, 9])
    usual = 2.5  # median of 1, 3, 2, 4 for a keypoint that nobody's noise is known of
    np.testing.assert_array_equal(everyone.noise, [[1, 2, usual], [3, 2, usual], [3, 2, usual], [4, 2, usual]])
    np.testing.assert_array_equal(everyone.acceleration, [[5, 6, 7], [5, 7, 8], [5, 8, 9], [5, 7, 8]])
    np.testing.assert_array_equal(everyone.bone_length[:, 0], [10, nan, 20, 30])
    np.testing.assert_array_equal(everyone.bone_spread[:, 0], [0.1, nan, 0.2, 0.3])


def test_an_individual_outside_the_sample_is_refined_too(rng: np.random.Generator) -> None:
    truth = simulate_animals(rng, 2, 60)
    rig = ring_rig(3, rng, radius=600.0, height=400.0)
    views = {camera.name: Poses(camera.project(truth.points), skeleton=truth.skeleton, fps=50.0) for camera in rig}
    slots = np.tile(np.array([[0] * 3, [1] * 3]), (60, 1, 1))
    ids = np.tile([0, 1], (60, 1))
    slots[:40, 1], ids[:40, 1] = -1, -1  # the second comes late
    groups = Groups(tuple(rig.names), slots, ids)
    early = learn_motion(triangulate(views, groups, rig).window(0, 30), *first(views, groups), rig)
    assert list(early.ids) == [0]
    both = refinement._for_everyone(early, np.array([0, 1], dtype=np.int32))
    refined = refine_window(triangulate(views, groups, rig), views, groups, rig, both)
    off = np.linalg.norm(refined.points[40:, 1] - truth.points[40:, 1], axis=-1)
    assert np.isfinite(off).all()
    assert np.median(off) < 0.5  # mm; pixels are exact, what is left is smoothing


def first(views: dict[str, Poses], groups: Groups) -> tuple[dict[str, Poses], Groups]:
    """The first 30 frames."""
    return {name: view.window(0, 30) for name, view in views.items()}, groups.window(0, 30)
