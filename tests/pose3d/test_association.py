from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.camera import Camera, Intrinsics
from calibration.errors import InputError
from calibration.rig import CameraRig
from pose3d.association import (
    AGAINST,
    GATE,
    AssociationOptions,
    associate,
    baselines_between,
    divide,
    estimate_noise,
    group_distances,
    pair_evidence,
    radius,
    sightings,
)
from pose3d.poses import Groups, Poses
from pose3d.skeleton import Skeleton

Float = NDArray[np.float64]

SKELETON = Skeleton(tuple("abcdefghij"))
SIZE = 30.0  # rms radius of an animal, in the rig's unit


def ring(views: int = 4, scale: float = 1.0, order: list[int] | None = None) -> CameraRig:
    """Distorted cameras around and above the origin, each looking at it."""
    cameras = []
    for v in range(views):
        angle = 2 * np.pi * v / views + 0.1 * v
        centre = 500.0 * np.array([np.cos(angle), np.sin(angle), 0.7 + 0.1 * (v % 2)])
        z = -centre / np.linalg.norm(centre)
        x = np.cross(z, [0, 0, 1.0]) / np.linalg.norm(np.cross(z, [0, 0, 1.0]))
        R = np.stack([x, np.cross(z, x), z])
        K = np.array([[1000.0, 0, 640], [0, 1000, 512], [0, 0, 1]])
        intrinsics = Intrinsics((1280, 1024), K, np.array([-0.15, 0.05, 1e-3, -5e-4, 0.0]))
        cameras.append(Camera(f"cam{v}", intrinsics, R, scale * -R @ centre))
    return CameraRig(tuple(cameras[i] for i in (order or range(views))), "mm")


def scene(rng: np.random.Generator, rig: CameraRig, animals: int = 4, frames: int = 30, noise_px: float = 1.5) -> Float:
    """Pixels (views, frames, animals + 1, keypoints, 2): animals thrown at random, some keypoints and detections
    missing, gross errors; the last slot is a false detection in one half of the views and frames."""
    shape = SIZE / np.sqrt(3) * rng.normal(size=(animals, len(SKELETON), 3))
    place = rng.uniform(-120, 120, (frames, animals, 1, 3)) * [1, 1, 0.1]
    false = SIZE / np.sqrt(3) * rng.normal(size=(len(rig), frames, 1, len(SKELETON), 3))
    false += rng.uniform(-120, 120, (len(rig), frames, 1, 1, 3))
    xy = rig.project(shape + place) + noise_px * rng.normal(size=(len(rig), frames, animals, len(SKELETON), 2))
    wrong = rng.uniform(size=xy.shape[:-1]) < 0.03
    xy[wrong] += rng.uniform(-80, 80, (wrong.sum(), 2))
    xy[rng.uniform(size=xy.shape[:-1]) < 0.1] = np.nan
    xy[rng.uniform(size=xy.shape[:3]) < 0.05] = np.nan
    ghosts = np.stack([camera.project(points) for camera, points in zip(rig, false, strict=True)])
    ghosts[rng.uniform(size=ghosts.shape[:2]) < 0.5] = np.nan
    return np.concatenate([xy, ghosts], axis=2)


def shuffled(
    rng: np.random.Generator, rig: CameraRig, xy: Float
) -> tuple[dict[str, Poses], dict[str, NDArray[np.int64]]]:
    """Views with slots in random order, and who is in them: the animal, -1 for the last."""
    views, who = {}, {}
    for camera, pixels in zip(rig, xy, strict=True):
        order = rng.permuted(np.tile(np.arange(xy.shape[2]), (xy.shape[1], 1)), axis=1)
        views[camera.name] = Poses(np.take_along_axis(pixels, order[..., None, None], axis=1), skeleton=SKELETON)
        who[camera.name] = np.where(order == xy.shape[2] - 1, -1, order)
    return views, who


def counts(groups: Groups, views: dict[str, Poses], who: dict[str, NDArray[np.int64]]) -> tuple[int, int, int]:
    """Right, wrong and missing pairs of detections in one group."""
    label = {name: np.full(ids.shape, -1) for name, ids in who.items()}
    for v, name in enumerate(groups.view_names):
        frame, group = np.nonzero(groups.slots[:, :, v] >= 0)
        label[name][frame, groups.slots[frame, group, v]] = group
    right = wrong = missing = 0
    names = list(views)
    for i, a in enumerate(names):
        for b in names[:i]:
            there = ~views[a].missing.all(axis=2)[:, :, None] & ~views[b].missing.all(axis=2)[:, None]
            true = there & (who[a][:, :, None] == who[b][:, None]) & (who[a] >= 0)[:, :, None]
            found = there & (label[a][:, :, None] == label[b][:, None]) & (label[a] >= 0)[:, :, None]
            right, wrong, missing = (
                right + (true & found).sum(),
                wrong + (found & ~true).sum(),
                missing + (true & ~found).sum(),
            )
    return int(right), int(wrong), int(missing)


@pytest.mark.parametrize("views", [2, 3, 6])
def test_animals_are_told_apart_in_every_frame_alone(rng: np.random.Generator, views: int) -> None:
    rig = ring(views)
    seen, who = shuffled(rng, rig, scene(rng, rig))
    groups = associate(seen, rig)
    right, wrong, missing = counts(groups, seen, who)
    assert 2 * right / (2 * right + wrong + missing) > 0.985
    assert groups.view_names == rig.names
    assert (groups.ids == -1).all()
    members = (groups.slots >= 0).sum(axis=2)
    assert set(np.unique(members)) <= {0, *range(2, views + 1)}
    assert ((groups.confidence > 0) == (members > 0)).all()
    assert groups.confidence.max() <= 1.0
    for f in range(3):
        again = associate({name: poses.window(f, f + 1) for name, poses in seen.items()}, rig, AssociationOptions(0.05))
        together = associate(seen, rig, AssociationOptions(0.05)).slots[f]
        np.testing.assert_array_equal(again.slots[0], together[: again.slots.shape[1]])


def test_neither_the_order_of_cameras_nor_the_unit_matters(rng: np.random.Generator) -> None:
    rig = ring(4)
    views, _ = shuffled(rng, rig, scene(rng, rig, frames=8))
    groups = associate(views, rig)
    other_rig = ring(4, scale=1e-3, order=[2, 0, 3, 1])
    other = associate({name: views[name] for name in reversed(views)}, other_rig)
    assert other.view_names == ("cam2", "cam0", "cam3", "cam1")
    np.testing.assert_array_equal(other.slots, groups.slots[:, :, [2, 0, 3, 1]])
    np.testing.assert_allclose(other.confidence, groups.confidence, rtol=1e-9)


def test_a_camera_of_the_rig_without_detections_may_be_absent(rng: np.random.Generator) -> None:
    rig = ring(4)
    views, _ = shuffled(rng, rig, scene(rng, rig, frames=3))
    del views["cam1"]
    assert associate(views, rig).view_names == ("cam0", "cam2", "cam3")


def test_confidence_is_the_mean_evidence_and_orders_nothing_but_evidence_does(rng: np.random.Generator) -> None:
    rig = ring(3)
    xy = scene(rng, rig, animals=2, frames=5, noise_px=0.0)[:, :, :2]
    views, _ = shuffled(rng, rig, np.concatenate([xy, np.full_like(xy[:, :, :1], np.nan)], axis=2))
    seen = sightings(views, rig)
    groups = associate(views, rig, AssociationOptions(0.03))
    for f in range(5):
        strengths = []
        for g in range(groups.slots.shape[1]):
            members = [(v, s) for v, s in enumerate(groups.slots[f, g]) if s >= 0]
            if not members:
                continue
            view, slot = np.array(members).T
            evidence, possible = pair_evidence(
                seen.rays[f, view, slot],
                seen.weight[f, view, slot],
                seen.size[f, view, slot],
                view,
                baselines_between(seen.centers),
                0.03,
            )
            strengths.append(evidence.sum())
            assert groups.confidence[f, g] == pytest.approx(evidence.sum() / possible.sum())
        assert strengths == sorted(strengths, reverse=True)


def sampson(ray_a: Float, ray_b: Float, centre_a: Float, centre_b: Float, sd_a: float, sd_b: float) -> float:
    """By definition: the epipolar constraint over its standard deviation, derivatives by finite differences."""
    e = (centre_b - centre_a) / np.linalg.norm(centre_b - centre_a)

    def constraint(a: Float, b: Float) -> float:
        return float(e @ np.cross(a, b))

    variance = 0.0
    for ray, sd, turned in ((ray_a, sd_a, 0), (ray_b, sd_b, 1)):
        for axis in np.linalg.svd(ray[None])[2][1:]:  # the two directions across the ray
            h = 1e-6
            pair = [[ray_a, ray_b], [ray_a, ray_b]]
            pair[0][turned], pair[1][turned] = ray + h * axis, ray - h * axis
            variance += (sd * (constraint(*pair[0]) - constraint(*pair[1])) / (2 * h)) ** 2
    return constraint(ray_a, ray_b) ** 2 / variance


def test_evidence_is_what_the_definition_says(rng: np.random.Generator) -> None:
    centers = rng.normal(size=(3, 3)) * 4
    target = rng.normal(size=(5, 6, 3)) + [0, 0, 20.0]
    view = np.array([0, 0, 1, 1, 2])
    rays = target - centers[view][:, None] + 0.1 * rng.normal(size=target.shape)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    rays[4, 0] *= -1  # a point behind
    weight, size, noise = rng.uniform(0.2, 1, (5, 6)), rng.uniform(0.02, 0.1, 5), 0.1
    weight[2, 3] = 0.0
    evidence, possible = pair_evidence(rays, weight, size, view, baselines_between(centers), noise)
    for a in range(5):
        for b in range(5):
            total = most = 0.0
            for k in range(6):
                w = weight[a, k] * weight[b, k] * (view[a] != view[b])
                squared = np.inf
                if k or 4 not in (a, b):
                    squared = (
                        sampson(
                            rays[a, k], rays[b, k], centers[view[a]], centers[view[b]], noise * size[a], noise * size[b]
                        )
                        if w
                        else 0
                    )
                total += w * max(1 - squared / GATE**2, -AGAINST)
                most += w
            assert evidence[a, b] == pytest.approx(total, abs=1e-6)
            assert possible[a, b] == pytest.approx(most)


def test_baselines_are_unit_vectors_from_centre_to_centre() -> None:
    baselines = baselines_between(np.array([[0.0, 0, 0], [3, 4, 0], [0, 0, 2]]))
    np.testing.assert_allclose(baselines[0, 1], [0.6, 0.8, 0])
    np.testing.assert_allclose(baselines[1, 0], [-0.6, -0.8, 0])
    np.testing.assert_allclose(baselines[0, 2], [0, 0, 1])
    assert not baselines[[0, 1, 2], [0, 1, 2]].any()


def best_partition(evidence: Float, view: NDArray[np.int64]) -> float:
    """Greatest evidence inside groups, by trying every partition with at most one of each view in a group."""
    n = len(view)

    def extend(i: int, groups: list[list[int]]) -> float:
        if i == n:
            return 0.0
        best = extend(i + 1, [*groups, [i]])
        for g, group in enumerate(groups):
            if view[i] not in view[group]:
                gain = float(evidence[i, group].sum())
                best = max(best, gain + extend(i + 1, [*groups[:g], [*group, i], *groups[g + 1 :]]))
        return best

    return extend(0, [])


def inside(evidence: Float, label: NDArray[np.int64]) -> float:
    return float((evidence * (label[:, None] == label)).sum() / 2)


def test_the_division_is_near_the_best_of_all_and_no_single_move_betters_it(rng: np.random.Generator) -> None:
    shares = []
    for _ in range(60):
        view = np.sort(rng.integers(0, 3, 8))
        evidence = rng.normal(size=(8, 8))
        evidence = np.where(view[:, None] == view, 0.0, evidence + evidence.T)
        label = divide(evidence, view, 3)
        for g in np.unique(label):
            assert len(np.unique(view[label == g])) == (label == g).sum()
        found = inside(evidence, label)
        shares.append(found / max(best_partition(evidence, view), 1e-9))
        for i in range(8):
            for target in [*np.unique(label), -1]:
                moved = np.where(np.arange(8) == i, target, label)
                other = (label == target) & (view == view[i])
                moved[other] = label[i]
                assert inside(evidence, moved) <= found + 1e-9
    assert np.mean(shares) > 0.97
    assert max(shares) <= 1 + 1e-9


def test_clear_evidence_is_divided_exactly() -> None:
    view = np.array([0, 0, 1, 1, 2, 2])
    who = np.array([0, 1, 0, 1, 0, 1])
    evidence = np.where(who[:, None] == who, 5.0, -5.0) * (view[:, None] != view)
    label = divide(evidence, view, 3)
    assert (label[:, None] == label).tolist() == (who[:, None] == who).tolist()
    alone = divide(-np.abs(evidence), view, 3)
    assert len(np.unique(alone)) == 6
    greedy_takes_5_and_1 = np.array([[0, 0, 4.0, 5.0], [0, 0, 1.0, 4.0], [4.0, 1.0, 0, 0], [5.0, 4.0, 0, 0]])
    label = divide(greedy_takes_5_and_1, np.array([0, 0, 1, 1]), 2)
    assert label[0] == label[2]
    assert label[1] == label[3]


def test_the_noise_is_found_in_the_recording(rng: np.random.Generator) -> None:
    rig = ring(4)
    for noise_px in (2.0, 5.0):
        xy = scene(rng, rig, frames=60, noise_px=noise_px)
        views, _ = shuffled(rng, rig, xy)
        size_px = np.nanmedian(radius(xy[:, :, :-1].swapaxes(0, 1)))
        assert estimate_noise(sightings(views, rig)) == pytest.approx(noise_px / size_px, rel=0.15)
    nothing = {name: poses.replace(points=np.full_like(poses.points, np.nan)) for name, poses in views.items()}
    assert 0.01 <= estimate_noise(sightings(nothing, rig)) <= 0.2


def test_distances_inside_groups_are_relative_to_the_size(rng: np.random.Generator) -> None:
    rig = ring(3)
    views, _ = shuffled(rng, rig, scene(rng, rig, animals=1, frames=2))
    seen = sightings(views, rig)
    label = np.zeros(seen.size.shape, dtype=np.int64)
    label[:, :, 1:] = -1
    distance = group_distances(seen.rays, seen.weight, seen.size, seen.centers, label)
    checked = 0
    for f, k in np.ndindex(2, 10):
        for v, w in pairwise(range(3)):
            a, b = seen.rays[f, v, 0, k], seen.rays[f, w, 0, k]
            if np.isfinite(distance[f, v, w, 0, k]):
                expected = sampson(a, b, seen.centers[v], seen.centers[w], seen.size[f, v, 0], seen.size[f, w, 0])
                assert distance[f, v, w, 0, k] == pytest.approx(np.sqrt(expected), rel=1e-4)
                checked += 1
    assert checked > 10
    assert np.isnan(distance[:, :, :, 1:]).all()


def test_the_radius_is_the_rms_spread_and_not_less_than_its_neighbours_median() -> None:
    square = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    part = np.where(np.arange(4)[:, None] < 2, square, np.nan)
    points = np.stack([5 * square + 7, 3 * square, part, np.full((4, 2), np.nan)])[None, None]
    np.testing.assert_allclose(radius(points)[0, 0], np.sqrt(2) * np.array([5, 3, 3, 3]))
    assert radius(points[:, :, 2:])[0, 0, 0] == pytest.approx(1.0)
    single = np.where(np.arange(4)[:, None] < 1, square, np.nan)[None, None, None]
    assert radius(single)[0, 0, 0] == 0.0


def test_a_skeleton_of_one_keypoint_can_be_grouped() -> None:
    rig = ring(4)
    points = np.array([[0.0, 0, 0], [60, 10, 5]])[:, None]
    views = {camera.name: Poses(camera.project(points)[None]) for camera in rig}
    groups = associate(views, rig)
    assert sorted(groups.slots[0].tolist()) == [[0, 0, 0, 0], [1, 1, 1, 1]]


def test_bad_input_is_named(rng: np.random.Generator) -> None:
    rig = ring(3)
    views, _ = shuffled(rng, rig, scene(rng, rig, frames=3))
    with pytest.raises(InputError, match="at least two views, got cam0"):
        associate({"cam0": views["cam0"]}, rig)
    with pytest.raises(InputError, match="'cam_1' is not in the calibration; did you mean 'cam1'"):
        associate({"cam0": views["cam0"], "cam_1": views["cam1"]}, rig)
    with pytest.raises(InputError, match="'cam0' and 'cam1' do not have the same frames; align"):
        associate(views | {"cam1": views["cam1"].window(1, 3)}, rig)
    other = views["cam2"].replace(skeleton=Skeleton(tuple("klmnopqrst")))
    with pytest.raises(InputError, match="'cam0' and 'cam2' do not have the same keypoints"):
        associate(views | {"cam2": other}, rig)
    nothing = {name: poses.replace(points=np.full_like(poses.points, np.nan)) for name, poses in views.items()}
    with pytest.raises(InputError, match="no keypoint in any frame of cam0, cam1, cam2"):
        associate(nothing, rig)
