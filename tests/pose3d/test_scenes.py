"""Scenes whose truth is exact: what hides, merges and exchanges does just that."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibration.errors import InputError
from calibration.synthetic import ring_rig
from pose3d.poses import Poses
from pose3d.scenes import SCENES, Scene, SceneOptions, merged, screened, sides_exchanged, simulate_scene
from pose3d.synthetic import QUADRUPED, Faults, SimulatedViews, simulate_animals

EXACT = Faults(noise_px=0, missed=0, outlier=0, dropout=0, ghosts=0, occluded_missed=0)
SMALL = SceneOptions(3, 3, frames=60, faults=EXACT)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return simulate_scene(SMALL, 0)


@pytest.mark.parametrize("name", SCENES)
def test_named_scenes_are_what_they_say(name: str) -> None:
    options = replace(SCENES[name], frames=80)
    scene = simulate_scene(options, 3)
    assert len(scene.rig.cameras) == options.views == len(scene.seen.views)
    assert scene.truth.shape[:2] == (80, options.animals)
    again = simulate_scene(options, 3)
    for camera, poses in scene.seen.views.items():
        np.testing.assert_array_equal(poses.points, again.seen.views[camera].points)
        there = ~poses.missing.all(axis=2)
        assert not (there & (scene.seen.identity[camera] >= 0)).sum(axis=1).max() > options.animals
        assert (~there <= (scene.seen.identity[camera] < 0)).all(), "who is not seen has no identity"


def test_an_unknown_scene() -> None:
    with pytest.raises(InputError, match=r"scene 'crowds' is unknown.*crowd"):
        simulate_scene("crowds", 0)


def by_animal(seen: SimulatedViews, camera: str, animals: int) -> np.ndarray:
    """(frames, animals, keypoints, 2)."""
    points, who = seen.views[camera].points, seen.identity[camera]
    found = np.full((len(points), animals, *points.shape[2:]), np.nan)
    frame, slot = np.nonzero(who >= 0)
    found[frame, who[frame, slot]] = points[frame, slot]
    return found


def test_columns_hide_what_a_ray_meets(scene: Scene) -> None:
    """Sight lines sampled finely: a point on one within a column."""
    columns = np.array([[40.0, 30.0, 25.0, 90.0], [-60.0, 10.0, 20.0, 60.0]])
    seen = screened(scene.seen, scene.truth, scene.rig, columns)
    share = np.linspace(0, 1, 2001)[:, None, None, None, None]
    for v, camera in enumerate(scene.rig):
        line = camera.center + share * (scene.truth.points[::20] - camera.center)
        inside = np.zeros(line.shape[:-1], dtype=bool)
        for x, y, radius, height in columns:
            inside |= (np.hypot(line[..., 0] - x, line[..., 1] - y) < radius) & (line[..., 2] < height)
        met = inside[:-1].any(axis=0)
        before, after = (by_animal(s, camera.name, 3)[::20, ..., 0] for s in (scene.seen, seen))
        assert met.any()
        agree = np.isnan(after) == (np.isnan(before) | met)
        assert agree.mean() > 0.995, "a ray that grazes a column's top may fall between the samples"
        assert not (seen.found[v][::20] & met & agree).any()


def test_left_and_right_change_places_and_nothing_else_does(scene: Scene, rng: np.random.Generator) -> None:
    seen = sides_exchanged(scene.seen, rng, 0.05)
    changed = 0
    for camera in scene.seen.views:
        before, after = (by_animal(s, camera, 3) for s in (scene.seen, seen))
        mirrored = before.copy()
        for left, right in QUADRUPED.symmetry:
            mirrored[:, :, [left, right]] = before[:, :, [right, left]]
        same, other = (np.isclose(after, x, equal_nan=True).all(axis=(2, 3)) for x in (before, mirrored))
        assert (same | other).all()
        changed += int((~same).sum())
    assert changed > 3 * 3 * 60 * 0.05, "most last longer than one frame"


def test_merged_animals_are_one_of_both(rng: np.random.Generator) -> None:
    """Two animals in one place."""
    rig = ring_rig(2, rng, radius=600, height=450)
    truth = simulate_animals(rng, 1, 10)
    both = Poses(
        np.concatenate([truth.points, truth.points + [5.0, 0, 0]], axis=1), ids=np.tile([0, 1], (10, 1)),
        skeleton=QUADRUPED, unit="mm",
    )  # fmt: skip
    views = {camera.name: Poses(camera.project(both.points), skeleton=QUADRUPED) for camera in rig}
    identity = {name: np.tile(np.array([0, 1], np.int32), (10, 1)) for name in views}
    none = np.zeros((2, 10, 2, 12), dtype=bool)
    found = merged(SimulatedViews(views, identity, none, none), rng, 1.0)
    for name, poses in found.views.items():
        assert poses.missing.all(axis=2).tolist() == [[False, True]] * 10
        assert found.identity[name].tolist() == [[0, -1]] * 10
        of = [np.isclose(poses.points[:, 0], views[name].points[:, i]).all(axis=-1) for i in (0, 1)]
        assert (of[0] | of[1]).all()
        assert 0 < of[1].mean() < 1


def test_a_huddle_brings_all_together(rng: np.random.Generator) -> None:
    apart = simulate_animals(rng, 5, 200, arena=250).points[:, :, 4]
    close = simulate_animals(rng, 5, 200, arena=250, huddles=1).points[80:120, :, 4]
    assert np.linalg.norm(close - close.mean(axis=1, keepdims=True), axis=-1).max() < 60
    assert np.linalg.norm(apart - apart.mean(axis=1, keepdims=True), axis=-1).mean() > 100
