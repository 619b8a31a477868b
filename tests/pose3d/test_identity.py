from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibration.errors import InputError
from calibration.rig import CameraRig
from calibration.synthetic import ring_rig
from pose3d import identity_step
from pose3d.association import AGAINST, GATE
from pose3d.identity import (
    IdentityOptions,
    IdentityState,
    IdentityStream,
    final_ids,
    identify,
    identify_window,
    initial_state,
    named,
    state_from_arrays,
    state_to_arrays,
)
from pose3d.individuals import born
from pose3d.poses import Groups, Poses
from pose3d.scenes import SCENES, simulate_scene
from pose3d.synthetic import SimulatedViews, count_crossings, simulate_animals, simulate_views


def recording(seed: int = 0, frames: int = 160, views: int = 4) -> tuple[SimulatedViews, CameraRig]:
    rng = np.random.default_rng(seed)
    rig = ring_rig(views, rng, radius=450.0, height=350.0)
    truth = simulate_animals(rng, 3, frames)
    assert count_crossings(truth) >= 3 or frames < 150
    return simulate_views(truth, rig, rng), rig


def follower(groups: Groups, seen: SimulatedViews) -> np.ndarray:
    """(animals, groups) how many detections of an animal, false ones in the last row, stand in a group."""
    table = np.zeros((4, groups.slots.shape[1]), dtype=int)
    for v, name in enumerate(groups.view_names):
        frame, group = np.nonzero(groups.slots[:, :, v] >= 0)
        np.add.at(table, (seen.identity[name][frame, groups.slots[frame, group, v]], group), 1)
    return table


def test_crossing_animals_are_never_mixed_up() -> None:
    seen, rig = recording()
    groups = identify(seen.views, rig)
    table = follower(groups, seen)
    assert table.shape[1] == 3
    assert (np.sort(table[:3], axis=1)[:, :2] == 0).all(), "every animal is one group"
    assert table[3].sum() <= 2, "false detections stay out"
    detections = sum((who >= 0).sum() for who in seen.identity.values())
    assert table[:3].sum() > 0.99 * detections
    assert set(np.unique(groups.ids)) <= {-1, 0, 1, 2}
    assert ((groups.ids >= 0) == (groups.slots >= 0).any(axis=2)).all()


def test_windows_resuming_and_the_order_of_cameras_do_not_matter() -> None:
    seen, rig = recording(1, frames=40)
    whole = identify(seen.views, rig)
    state, parts = initial_state(12), []
    for begin, stop in ((0, 7), (7, 30), (30, 40)):
        window = {name: poses.window(begin, stop) for name, poses in seen.views.items()}
        part, state = identify_window(window, state_from_arrays(state_to_arrays(state)), rig)
        parts.append(part)
    ids = final_ids(state)
    np.testing.assert_array_equal(np.concatenate([named(part, ids).slots for part in parts]), whole.slots)
    other = identify(dict(reversed(seen.views.items())), rig.subset(rig.names[::-1]))
    np.testing.assert_array_equal(other.slots[:, :, ::-1], whole.slots)


def test_online_is_the_same() -> None:
    seen, rig = recording(2, frames=30)
    stream = IdentityStream(rig, 12)
    whole = identify(seen.views, rig)
    for f in range(30):
        now = stream.step({name: poses.window(f, f + 1) for name, poses in seen.views.items()})
    column = np.flatnonzero(now.ids[0] >= 0)
    assert sorted(now.slots[0, column].tolist()) == sorted(whole.slots[-1][whole.ids[-1] >= 0].tolist())


def test_known_number_of_individuals() -> None:
    seen, rig = recording(3, frames=40)
    assert identify(seen.views, rig, IdentityOptions(individuals=2)).slots.shape[1] == 2
    with pytest.raises(InputError, match="expected at least 1, got 0"):
        IdentityOptions(individuals=0)


def test_the_recording_tells_how_many_there_are() -> None:
    """Five animals that cross and are found as one by some cameras: nobody is born beside them, told or not. (Without
    the count there are six.)"""
    scene = simulate_scene(replace(SCENES["crossings"], frames=250), 0)
    told = identify(scene.seen.views, scene.rig, IdentityOptions(individuals=5))
    found = identify(scene.seen.views, scene.rig)
    assert found.slots.shape[1] == 5
    assert (found.slots == told.slots).mean() > 0.98


def tracks(first: list[int], last: list[int], seen: list[int]) -> IdentityState:
    """The end of 100 frames in which tracks of 10 mm radius stood still in two places: the last one apart."""
    n = len(first)
    place = np.zeros((n, 2, 6))
    place[-1, :, 0] = 500.0
    return replace(
        initial_state(2), frames=np.array(100), radius=np.array([10.0, 1.0]),
        first=np.array(first), last=np.array(last), seen=np.array(seen), began=place[..., :3], ended=place,
    )  # fmt: skip


def test_a_known_number_lets_one_track_take_over_from_another() -> None:
    """The second begins while the first is still seen, in a last frame long after it among others."""
    state = tracks([0, 40, 0], [90, 99, 99], [45, 55, 100])
    assert final_ids(state, IdentityOptions(individuals=2)).tolist() == [0, 0, 1]
    assert final_ids(state).tolist() == [0, 1, 2], "there may be three"
    assert final_ids(state, IdentityOptions(individuals=3)).tolist() == [0, 1, 2]
    both = tracks([0, 40, 0], [90, 99, 99], [90, 60, 100])
    assert final_ids(both, IdentityOptions(individuals=2)).tolist() == [0, -1, 1], "seen side by side: one is too many"


def test_nobody_is_born_beside_all_that_there_are() -> None:
    """Two animals 500 mm apart, a new group 15 mm beside one of them: more than half a radius, less than two."""
    body = np.array([[0.0, 0, 0], [20, 0, 0]])
    known = np.stack([body, body + [500, 0, 0]])
    state = born(replace(initial_state(2), radius=np.array([10.0, 1.0])), known)
    points = np.concatenate([known, [body + [0, 15, 0]]])

    def settled(seen: int, missed: int, individuals: int | None) -> int:
        told = replace(state, seen=np.array([9, seen]), missed=np.array([0, missed]))
        return len(identity_step._settled(points, known, told, individuals)[0])

    assert settled(9, 0, 2) == 2
    assert settled(9, 0, 3) == settled(9, 0, None) == 3
    assert settled(9, 6, 2) == settled(2, 0, 2) == 3, "one of them was not seen for long, or is not believed yet"
    points[2] += [0, 10, 0]
    assert settled(9, 0, 2) == 3, "far enough from all"


def test_of_two_tracks_of_one_individual_the_later_counts() -> None:
    slots = np.array([[[0, 0], [-1, -1]], [[0, 1], [1, 0]], [[-1, -1], [1, 1]]])
    groups = Groups(("a", "b"), slots, np.array([[0, -1], [0, 1], [-1, 1]]), np.ones((3, 2)))
    np.testing.assert_array_equal(named(groups, np.array([0, 0])).slots[:, 0], [[0, 0], [1, 0], [1, 1]])


def test_nothing_to_identify_is_an_error() -> None:
    seen, rig = recording(4, frames=3)
    nothing = {name: Poses(np.full(p.shape, np.nan)) for name, p in seen.views.items()}
    with pytest.raises(InputError, match="no keypoint in any frame"):
        identify(nothing, rig)


def test_evidence_for_a_prediction_is_its_log_likelihood_ratio(rng: np.random.Generator) -> None:
    """The kernel against the formula in its docstring, with a projector on the plane across the ray."""
    T, n, K, noise = 2, 3, 4, 0.02
    centers = rng.normal(scale=5.0, size=(n, 3))
    mean = np.concatenate([rng.normal(scale=2.0, size=(T, K, 3)) + [0, 0, 30.0], np.zeros((T, K, 3))], axis=-1)
    rays = mean[0, None, :, :3] - centers[:, None] + rng.normal(scale=0.7, size=(n, K, 3))
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    rays[2, 3] *= -1  # seen behind the camera
    root = rng.normal(scale=0.3, size=(T, K, 6, 6))
    covariance = root @ root.swapaxes(-1, -2)
    weight, size = rng.uniform(0.2, 1.0, (n, K)), rng.uniform(0.5, 1.5, n)
    weight[1, 2] = 0.0
    mean[1, 1] = np.nan
    evidence, possible = identity_step._track_evidence(mean, covariance, rays, weight, size, centers, noise)
    for t in range(T):
        for i in range(n):
            total = most = 0.0
            for k in np.flatnonzero((weight[i] > 0) & ~np.isnan(mean[t, :, 0])):
                apart, ray = mean[t, k, :3] - centers[i], rays[i, k]
                share = identity_step._MEMORY * weight[i, k]
                most += share
                across = np.eye(3) - np.outer(ray, ray)
                own = (ray @ apart * noise * size[i]) ** 2
                variance = own + np.trace(across @ covariance[t, k, :3, :3]) / 2
                against = (apart @ across @ apart / variance + 2 * np.log(variance / own)) / GATE**2
                total += share * (1 - min(against, 1 + AGAINST)) if ray @ apart > 0 else -share * AGAINST
            assert evidence[t, i] == pytest.approx(total, abs=1e-9)
            assert possible[t, i] == pytest.approx(most)


def test_apart_is_the_median_of_the_common_keypoints(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(2, 5, 3)), rng.normal(size=(3, 5, 3))
    a[0, :2], b[1, 1:3], b[2] = np.nan, np.nan, np.nan
    got = identity_step._apart(a, b)
    for i in range(2):
        for j in range(3):
            distance = np.sort(np.linalg.norm(a[i] - b[j], axis=-1))
            distance = distance[~np.isnan(distance)]
            assert got[i, j] == (distance[(len(distance) - 1) // 2] if len(distance) else np.inf)


def test_radius_is_the_rms_distance_from_the_median() -> None:
    points = np.array([[[0, 0, 0], [2.0, 0, 0], [10, 0, 0], [np.nan] * 3], [[np.nan] * 3] * 4])
    np.testing.assert_allclose(identity_step._radius(points), [np.sqrt((4 + 0 + 64) / 3), 0.0])
