"""Which scenes put identities to the test? Named ones, with exact truth: crossings, crowds, huddles, hiding places, and
a detector that merges animals and exchanges left and right."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError, nearest_name
from calibration.rig import CameraRig
from calibration.synthetic import ring_rig
from pose3d.poses import Poses
from pose3d.synthetic import Faults, SimulatedViews, body_length, simulate_animals, simulate_views

__all__ = ["SCENES", "Scene", "SceneOptions", "merged", "screened", "sides_exchanged", "simulate_scene"]

Float = NDArray[np.float64]


@dataclass(frozen=True)
class SceneOptions:
    """views, animals, frames: how many. arena: radius of the floor, mm. meet_every: frames between two meetings of two
    animals. huddles: of all. objects: columns on the floor that hide what is behind them. merged: share of the moments
    in which two animals cover each other in a view and are found as one. exchanged: share of the animals' moments in a
    view in which left and right begin to be exchanged, for 1 to 10 frames. faults: of the detector otherwise."""

    views: int
    animals: int
    frames: int = 600
    arena: float = 180.0
    meet_every: float = 40.0
    huddles: int = 0
    objects: int = 0
    merged: float = 0.0
    exchanged: float = 0.0
    faults: Faults = field(default_factory=Faults)


WORSE = Faults(missed=0.05, outlier=0.02, dropout=0.004, ghosts=0.05)
SCENES = {
    "few": SceneOptions(6, 3, meet_every=60),
    "pen": SceneOptions(4, 4, arena=260, meet_every=60, exchanged=0.002),
    "columns": SceneOptions(5, 4, meet_every=60, objects=3, merged=0.2, faults=WORSE),
    "crossings": SceneOptions(4, 5, arena=260, meet_every=28, merged=0.3, exchanged=0.003, faults=WORSE),
    "crowd": SceneOptions(8, 10, arena=280, meet_every=17, merged=0.3, exchanged=0.003, faults=WORSE),
    "huddle": SceneOptions(6, 5, meet_every=40, huddles=1, merged=0.2, faults=WORSE),
}
"""By rising difficulty for whoever looks at one frame after the other."""


@dataclass(frozen=True, eq=False)
class Scene:
    """rig, truth (3D, mm), and what a detector saw of it."""

    rig: CameraRig
    truth: Poses
    seen: SimulatedViews


def simulate_scene(scene: str | SceneOptions, seed: int) -> Scene:
    """The scene of this name, or of these options; the same for the same seed. Raises InputError for an unknown one."""
    if isinstance(scene, str):
        if scene not in SCENES:
            raise InputError(f"scene '{scene}' is unknown; {nearest_name(scene, tuple(SCENES))}")
        scene = SCENES[scene]
    rng = np.random.default_rng(seed)
    rig = ring_rig(scene.views, rng, radius=600.0, height=450.0)
    truth = simulate_animals(rng, scene.animals, scene.frames, arena=scene.arena, meet_every=scene.meet_every,
                             huddles=scene.huddles)  # fmt: skip
    seen = simulate_views(truth, rig, rng, scene.faults)
    if scene.objects:
        seen = screened(seen, truth, rig, _columns(scene, rng))
    if scene.exchanged:
        seen = sides_exchanged(seen, rng, scene.exchanged)
    if scene.merged:
        seen = merged(seen, rng, scene.merged)
    return Scene(rig, truth, seen)


def _columns(scene: SceneOptions, rng: np.random.Generator) -> Float:
    """(objects, 4) x, y, radius and height of columns, mm, spread about the floor."""
    angle = 2 * np.pi * (np.arange(scene.objects) + rng.uniform(0, 0.5, scene.objects)) / scene.objects
    away = scene.arena * rng.uniform(0.4, 0.9, scene.objects)
    radius, height = rng.uniform(15, 30, scene.objects), rng.uniform(60, 120, scene.objects)
    return np.column_stack((away * np.cos(angle), away * np.sin(angle), radius, height))


def screened(seen: SimulatedViews, truth: Poses, rig: CameraRig, columns: Float) -> SimulatedViews:
    """The same without what columns (n, 4: x, y, radius, height; they stand on z = 0) hide. Animals walk through them:
    they are there for the cameras only."""
    views, found, hidden = {}, seen.found.copy(), seen.hidden.copy()
    for v, camera in enumerate(rig):
        behind = np.zeros(truth.shape[:3], dtype=bool)
        start, way = camera.center, truth.points - camera.center
        flat = (way[..., :2] ** 2).sum(axis=-1)
        for x, y, radius, height in columns:
            to = np.array([x, y]) - start[:2]
            middle = (to * way[..., :2]).sum(axis=-1) / flat  # of the chord, 0 = camera, 1 = keypoint
            half = np.sqrt(
                np.maximum(radius**2 - ((to - middle[..., None] * way[..., :2]) ** 2).sum(axis=-1), 0) / flat
            )
            near, far = np.maximum(middle - half, 0), np.minimum(middle + half, 1)
            low = start[2] + np.minimum(near * way[..., 2], far * way[..., 2])
            behind |= (near < far) & (low < height)
        hidden[v] |= behind
        found[v] &= ~behind
        poses = seen.views[camera.name]
        who = seen.identity[camera.name]
        slot_behind = np.zeros(poses.shape[:3], dtype=bool)
        for a, ids in enumerate(truth.ids.T):
            slot_behind |= np.expand_dims(who == ids[:, None], axis=2) & behind[:, None, a]
        views[camera.name] = _without(poses, slot_behind)
    return SimulatedViews(views, _still_there(views, seen.identity), found, hidden)


def sides_exchanged(seen: SimulatedViews, rng: np.random.Generator, share: float) -> SimulatedViews:
    """The same with left and right keypoints exchanged, animal by animal and view by view: from a share of the moments
    on, for 1 to 10 frames."""
    views = {}
    for name, poses in seen.views.items():
        points, score, who = poses.points.copy(), poses.score.copy(), seen.identity[name]
        wrong = np.zeros((len(who), int(who.max(initial=0)) + 1), dtype=bool)
        for frame, animal in np.argwhere(rng.uniform(size=wrong.shape) < share):
            wrong[frame : frame + rng.integers(1, 10, endpoint=True), animal] = True
        frames, slots = np.nonzero((who >= 0) & np.take_along_axis(wrong, np.maximum(who, 0), axis=1))
        for left, right in poses.skeleton.symmetry:
            for values in (points, score):
                values[frames, slots, left], values[frames, slots, right] = (
                    values[frames, slots, right], values[frames, slots, left],
                )  # fmt: skip
        views[name] = poses.replace(points=points, score=score)
    return replace(seen, views=views)


def merged(seen: SimulatedViews, rng: np.random.Generator, share: float) -> SimulatedViews:
    """The same with animals found as one: of two that cover each other in a view (their middles are closer than half of
    their size), in a share of these moments, one detection holds some keypoints of either and the other is gone."""
    views, identity = {}, {}
    for name, poses in seen.views.items():
        points, score, who = poses.points.copy(), poses.score.copy(), seen.identity[name].copy()
        nobody = np.asarray(poses.missing.all(axis=2))
        middle = np.nanmean(np.where(nobody[..., None, None], 0.0, points), axis=2)
        near = 0.5 * body_length(poses)
        for frame, animals in enumerate(who):
            there = np.flatnonzero(animals >= 0)
            for i, a in enumerate(there):
                for b in there[i + 1 :]:
                    if who[frame, a] < 0 or who[frame, b] < 0 or rng.uniform() >= share:
                        continue
                    if np.linalg.norm(middle[frame, a] - middle[frame, b]) < near:
                        take = np.isnan(points[frame, a, :, 0]) | (rng.uniform(size=points.shape[2]) < 0.3)
                        take &= np.isfinite(points[frame, b, :, 0])
                        points[frame, a, take], score[frame, a, take] = points[frame, b, take], score[frame, b, take]
                        points[frame, b], score[frame, b], who[frame, b] = np.nan, 0.0, -1
        views[name], identity[name] = poses.replace(points=points, score=score), who
    return replace(seen, views=views, identity=identity)


def _without(poses: Poses, gone: NDArray[np.bool_]) -> Poses:
    return poses.replace(points=np.where(gone[..., None], np.nan, poses.points), score=np.where(gone, 0.0, poses.score))


def _still_there(views: dict[str, Poses], identity: dict[str, NDArray[np.int32]]) -> dict[str, NDArray[np.int32]]:
    return {name: np.where(views[name].missing.all(axis=2), -1, who).astype(np.int32) for name, who in identity.items()}
