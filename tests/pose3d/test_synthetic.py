from __future__ import annotations

import numpy as np
import pytest

from calibration.camera import Camera, Intrinsics
from calibration.errors import InputError
from calibration.rig import CameraRig
from pose3d import synthetic
from pose3d.poses import Poses
from pose3d.synthetic import (
    QUADRUPED,
    Faults,
    _kept_apart,
    body_length,
    count_crossings,
    simulate_animals,
    simulate_views,
)

NO_FAULTS = Faults(noise_px=0.0, missed=0.0, outlier=0.0, dropout=0.0, ghosts=0.0, occluded_missed=0.0)


def ring(n: int = 4) -> CameraRig:
    """Cameras 600 mm from the middle of the floor, looking at it."""
    cameras = []
    for i in range(n):
        angle = 2 * np.pi * i / n
        centre = np.array([600 * np.cos(angle), 600 * np.sin(angle), 450.0])
        z = -centre / np.linalg.norm(centre)
        x = np.cross(z, [0, 0, 1])
        x /= np.linalg.norm(x)
        R = np.stack([x, np.cross(z, x), z])
        K = np.array([[800, 0, 480], [0, 800, 360], [0, 0, 1.0]])
        cameras.append(Camera(f"cam{i}", Intrinsics((960, 720), K, np.zeros(5)), R, -R @ centre))
    return CameraRig(tuple(cameras), "mm")


def test_animals_are_rigid_where_their_bones_say_so_and_stand_on_the_floor(rng: np.random.Generator) -> None:
    truth = simulate_animals(rng, 3, 120)
    assert truth.shape == (120, 3, 12, 3)
    assert not truth.missing.any()
    for a, b in QUADRUPED.bones:
        lengths = np.linalg.norm(truth.points[:, :, a] - truth.points[:, :, b], axis=-1)
        np.testing.assert_allclose(lengths, lengths[:1].repeat(120, 0), rtol=1e-9)
    assert truth.points[..., 2].min() >= -1e-9
    paws = truth.points[:, :, 8:, 2]
    assert (paws.min(axis=0) < 1e-9).all(), "every paw touches the floor"
    assert 0.9 * 90 * 0.85 < body_length(truth) < 1.1 * 90 * 1.01


def test_mirrored_keypoints_lie_on_their_sides(rng: np.random.Generator) -> None:
    points = simulate_animals(rng, 2, 60).points
    forward = points[:, :, 3] - points[:, :, 5]
    for left, right in QUADRUPED.symmetry:
        across = points[:, :, left] - points[:, :, right]
        side = forward[..., 0] * across[..., 1] - forward[..., 1] * across[..., 0]
        assert (side > 0).mean() > 0.95, "left is counter-clockwise of the walking direction seen from above"


def test_animals_walk_the_way_they_look(rng: np.random.Generator) -> None:
    points = simulate_animals(rng, 3, 300).points
    step = np.diff(points[:, :, 4, :2], axis=0)
    facing = (points[:, :, 3] - points[:, :, 5])[:-1, :, :2]
    ahead = np.sum(step * facing, axis=-1) / np.linalg.norm(step, axis=-1) / np.linalg.norm(facing, axis=-1)
    assert np.median(ahead) > 0.9


def test_a_paw_on_the_floor_stays_where_it_is() -> None:
    path = np.column_stack([0.7 * np.arange(400), np.zeros(400)])
    points = synthetic._body(path, 100.0, np.random.default_rng(0))
    for paw, partner in ((8, 11), (9, 10)):
        height = points[:, paw, 2] - (points[:, 3, 2] - 22.0)  # a rearing animal lifts its front paws with its neck
        assert height.max() == pytest.approx(0.05 * 100, rel=0.01)
        np.testing.assert_allclose(height, points[:, partner, 2], atol=1e-9, err_msg="diagonal paws step together")
    assert points[:, 3, 2].max() > 25.0, "it rears"
    down = points[:, 10, 2] == 0
    starts, ends = np.flatnonzero(down[1:] & ~down[:-1]) + 1, np.flatnonzero(~down[1:] & down[:-1])
    ends = ends[ends > starts[0]]
    assert len(ends) >= 4
    for start, end in zip(starts, ends, strict=False):
        assert abs(points[end, 10, 0] - points[start, 10, 0]) < 2 * 0.7, "no further than the two frames at its ends"
        assert end - start == pytest.approx(2 * 0.14 * 100 / 0.7, abs=2), "half a stride at walking speed"
    assert points[:, 8, 1] == pytest.approx(0.13 * 100)
    assert points[:, 9, 1] == pytest.approx(-0.13 * 100)


def test_the_body_follows_the_bend_of_its_way() -> None:
    angle, radius, length = np.linspace(0, 12 * np.pi, 2400), 200.0, 90.0
    path = radius * np.column_stack([np.cos(angle), np.sin(angle)])
    points = synthetic._body(path, length, np.random.default_rng(0))[50:-50]

    def heading(a: int, b: int) -> np.ndarray:
        along = points[:, a] - points[:, b]
        return np.arctan2(along[:, 1], along[:, 0])

    def turned(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.angle(np.exp(1j * (one - other)))

    bend = 0.3 * length / radius
    way = angle[50:-50] + np.pi / 2
    np.testing.assert_allclose(turned(heading(3, 4), way), bend, atol=0.02)
    np.testing.assert_allclose(turned(heading(4, 5), way), -bend, atol=0.02)
    np.testing.assert_allclose(turned(heading(0, 3), way), 2 * bend, atol=0.02)
    assert np.mean(turned(heading(5, 6), way)) == pytest.approx(-bend, abs=0.02)
    assert np.mean(turned(heading(6, 7), way)) == pytest.approx(-bend, abs=0.04)
    swing = turned(heading(5, 6), way) + bend
    assert np.abs(swing).max() == pytest.approx(0.35, abs=0.02)
    np.testing.assert_allclose(turned(heading(6, 7), way) + bend, 2 * swing, atol=0.04)
    np.testing.assert_allclose(points[:, 5, 2] - points[:, 6, 2], 0.3 * length * np.sin(0.3))
    np.testing.assert_allclose(points[:, 6, 2] - points[:, 7, 2], 0.3 * length * np.sin(0.1))
    np.testing.assert_allclose(points[:, 4, 2], 0.22 * length)
    ears = np.linalg.norm(points[:, 1] - points[:, 2], axis=-1)
    np.testing.assert_allclose(ears, 2 * 0.09 * length)
    middle = (points[:, 1] + points[:, 2]) / 2
    ahead = points[:, 0] - points[:, 3]
    ahead /= np.linalg.norm(ahead, axis=-1, keepdims=True)
    np.testing.assert_allclose(np.sum((middle - points[:, 3]) * ahead, axis=-1), 0.11 * length)
    assert (middle[:, 2] > points[:, 3, 2]).mean() > 0.9, "ears stand above the neck"


@pytest.mark.parametrize("seed", range(6))
def test_nobody_walks_through_another(seed: int) -> None:
    """They pass at the distance of a planned meeting, of which detours about a third animal may cost a tenth."""
    truth = simulate_animals(np.random.default_rng(seed), 3, 200, length=90.0)
    length = np.linalg.norm(truth.points[0, :, 3] - truth.points[0, :, 4], axis=-1) / 0.35
    backs = truth.points[:, :, 4, :2]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        least = 0.16 * (length[a] + length[b])
        assert np.linalg.norm(backs[:, a] - backs[:, b], axis=-1).min() > 0.9 * least


def test_two_that_meet_head_on_each_give_way_by_half() -> None:
    x = np.linspace(-300, 300, 101)
    straight = np.stack([np.stack([x, np.zeros(101)], axis=1), np.stack([-x, np.full(101, 4.0)], axis=1)], axis=1)
    paths = _kept_apart(straight.copy(), np.array([100.0, 50.0]))
    np.testing.assert_allclose(paths.mean(axis=1), straight.mean(axis=1), atol=1e-9)
    np.testing.assert_allclose(paths[50, :, 1], [2 - 12, 2 + 12], atol=1e-9)  # 0.16 (100 + 50) = 24 apart
    np.testing.assert_allclose(paths[[0, -1]], straight[[0, -1]], atol=1e-3)
    np.testing.assert_array_equal(paths[..., 0], straight[..., 0])


@pytest.mark.parametrize("seed", range(6))
def test_animals_meet_as_often_as_promised(seed: int) -> None:
    truth = simulate_animals(np.random.default_rng(seed), 3, 200)
    assert count_crossings(truth) >= 5, "one meeting in 40 frames"


def test_crossings_of_two_points_on_known_ways() -> None:
    frames = np.arange(21)
    points = np.zeros((21, 2, 2, 3))
    points[:, :, 1, 0] = 10.0  # both are 10 long
    points[:, 1, :, 1] = np.abs(frames - 10)[:, None]  # comes from 10 away to 0 and leaves again
    truth = Poses(points)
    assert body_length(truth) == 10.0
    assert count_crossings(truth, closer_than=0.5) == 1
    points[10, 1, :, 1] = 9.0  # apart in between: two meetings
    assert count_crossings(Poses(points), closer_than=0.5) == 2
    assert count_crossings(Poses(points[8:]), closer_than=0.5) == 2, "the first frame may be a meeting"
    assert count_crossings(Poses(points), closer_than=0.05) == 0
    assert np.isnan(body_length(Poses(np.full((2, 1, 2, 3), np.nan))))


def test_without_faults_the_views_are_the_projections(rng: np.random.Generator) -> None:
    truth, rig = simulate_animals(rng, 2, 20), ring()
    simulated = simulate_views(truth, rig, rng, NO_FAULTS)
    for v, camera in enumerate(rig):
        poses, who = simulated.views[camera.name], simulated.identity[camera.name]
        assert (poses.ids == -1).all()
        exact = camera.project(truth.points)
        for frame, slot in np.argwhere(who >= 0):
            seen = simulated.found[v, frame, who[frame, slot]]
            np.testing.assert_allclose(poses.points[frame, slot][seen], exact[frame, who[frame, slot]][seen], atol=1e-9)
            assert poses.missing[frame, slot][~seen].all()
        assert (np.sort(who, axis=1)[:, -2:] == [0, 1]).all(), "both animals are there"


def test_faults_have_the_sizes_that_they_say(rng: np.random.Generator) -> None:
    truth, rig = simulate_animals(rng, 3, 300, arena=100), ring(2)
    faults = Faults(noise_px=2.0, missed=0.1, outlier=0.0, dropout=0.0, ghosts=0.1)
    simulated = simulate_views(truth, rig, rng, faults)
    errors, missed, ghosts = [], [], []
    for v, camera in enumerate(rig):
        poses, who = simulated.views[camera.name], simulated.identity[camera.name]
        exact = camera.project(truth.points)
        frame, slot = np.nonzero(who >= 0)
        visible = ~simulated.hidden[v, frame, who[frame, slot]]
        errors.append((poses.points[frame, slot] - exact[frame, who[frame, slot]])[visible])
        inside = ((exact > 0) & (exact < [959, 719])).all(-1)
        missed.append(1 - simulated.found[v][inside & ~simulated.hidden[v]].mean())
        ghosts.append(((who == -1) & ~poses.missing.all(axis=2)).mean() * who.shape[1])
    sd = np.nanstd(np.concatenate(errors))
    expected = 2.0 * np.sqrt(np.mean(np.linspace(0.7, 1.3, 1001) ** 2))
    assert sd == pytest.approx(expected, rel=0.05)  # over 10,000 coordinates: SE of the SD below 1 %
    assert np.mean(missed) == pytest.approx(0.1, abs=0.02)
    # A ghost starts with probability 0.1 and lasts 1 to 6 frames: P(none) = prod over d of (1 - 0.1 * P(lasting > d)).
    share = 1 - np.prod([1 - 0.1 * (6 - d) / 6 for d in range(6)])
    assert np.mean(ghosts) == pytest.approx(share, abs=0.08)


CAMERA_AT = np.array([-200.0, 0.0, 0.0])


def test_a_trunk_hides_what_is_behind_it() -> None:
    points = np.zeros((1, 2, 12, 3))
    points[0, 0] = [100.0, 0, 0]  # the hidden one, nearly all its keypoints in one place
    points[0, 0, 5] = [101.0, 0, 0]
    points[0, 1, 3], points[0, 1, 5] = [50.0, -40, 0], [50.0, 40, 0]  # a trunk across the way to the camera
    hidden = synthetic._hidden(points, CAMERA_AT, 80.0)
    assert hidden[0, 0].all()
    assert not hidden[0, 1].any(), "nobody hides itself, nor is hidden from behind"
    moved = np.array([700.0, 300, 900])  # where the origin is must not matter
    assert synthetic._hidden(points + moved, CAMERA_AT + moved, 80.0)[0, 0].all()
    aside = points.copy()
    aside[0, 1, [3, 5], 2] = 0.12 * 80  # passes just above
    assert not synthetic._hidden(aside, CAMERA_AT, 80.0)[0, 0].any()
    aside[0, 1, [3, 5], 2] = 0.09 * 80  # and just within
    assert synthetic._hidden(aside, CAMERA_AT, 80.0)[0, 0].all()


def test_hidden_keypoints_are_missed_and_blurred_as_asked(rng: np.random.Generator) -> None:
    exact = np.full((4000, 1, 1, 2), 100.0)
    hidden = np.arange(4000)[:, None, None] % 2 == 0
    faults = Faults(noise_px=2.0, missed=0.0, outlier=0.0, dropout=0.0, occluded_missed=0.5, occluded_noise=3.0)
    found, xy, score = synthetic._detections(exact, (200, 200), hidden, rng, faults)
    assert found[~hidden].all()
    assert found[hidden].mean() == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / 2000))
    wide = np.sqrt(np.mean(np.linspace(0.7, 1.3, 1001) ** 2))
    assert np.nanstd(xy[~hidden] - 100) == pytest.approx(2 * wide, rel=0.06)
    assert np.nanstd(xy[hidden] - 100) == pytest.approx(6 * wide, rel=0.08)
    assert score[~hidden].mean() == pytest.approx(0.85, abs=0.01)
    assert score[hidden & found].mean() == pytest.approx(0.55, abs=0.02)
    assert (score[~found] == 0).all()


def test_outliers_and_dropouts_come_as_often_and_as_far_as_asked(rng: np.random.Generator) -> None:
    exact, nothing = np.full((4000, 2, 1, 2), 500.0), np.zeros((4000, 2, 1), dtype=bool)
    only = Faults(noise_px=0.0, missed=0.0, outlier=0.1, outlier_px=(20, 80), dropout=0.0)
    away = np.linalg.norm(synthetic._detections(exact, (1000, 1000), nothing, rng, only)[1] - 500, axis=-1)
    assert (away > 1).mean() == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / 8000))
    assert 20 <= away[away > 1].min() < 23
    assert 77 < away.max() <= 80
    only = Faults(noise_px=0.0, missed=0.0, outlier=0.0, dropout=0.01, dropout_frames=(3, 3))
    gone = ~synthetic._detections(exact, (1000, 1000), nothing, rng, only)[0][:, 0, 0]
    lasted = np.diff(np.flatnonzero(np.diff(np.r_[0, gone, 0])))[::2]
    assert lasted[:-1].min() == 3  # the recording may end within the last
    assert gone.mean() == pytest.approx(1 - 0.99**3, abs=0.012)


def test_same_generator_same_bytes() -> None:
    rig = ring()
    one, two = (
        simulate_views(simulate_animals(np.random.default_rng(3), 3, 30), rig, np.random.default_rng(4))
        for _ in range(2)
    )
    for name in rig.names:
        np.testing.assert_array_equal(one.views[name].points, two.views[name].points)
        np.testing.assert_array_equal(one.identity[name], two.identity[name])


def test_nonsense_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="at least 1 animal"):
        simulate_animals(rng, 0)
