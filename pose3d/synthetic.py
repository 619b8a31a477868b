"""What would a recording of walking animals look like? Animals, their faulty 2D detections and their truth."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from calibration.rig import CameraRig
from pose3d.poses import Poses
from pose3d.skeleton import Skeleton

__all__ = [
    "QUADRUPED",
    "Faults",
    "SimulatedViews",
    "body_length",
    "count_crossings",
    "simulate_animals",
    "simulate_views",
]

Float = NDArray[np.float64]

_KEYPOINTS = (
    *("nose", "ear_left", "ear_right", "neck", "back", "tail_base", "tail_mid", "tail_tip"),
    *("paw_front_left", "paw_front_right", "paw_hind_left", "paw_hind_right"),
)
_RIGID = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7))
QUADRUPED = Skeleton(
    keypoints=_KEYPOINTS,
    edges=((0, 1), (0, 2), (1, 3), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7), (3, 8), (3, 9), (5, 10), (5, 11)),
    bones=_RIGID,
    symmetry=((1, 2), (8, 9), (10, 11)),
)
"""A mouse-like animal of 12 keypoints; its bones keep their lengths exactly."""

# Lengths in body lengths (nose to tail base, stretched out).
_NOSE, _EAR, _EAR_WIDTH, _NECK, _REAR = 0.25, 0.11, 0.09, 0.35, 0.40
_TAIL = 0.30
_HEIGHT, _EAR_LIFT = 0.22, 0.05
_HIP_WIDTH, _STRIDE, _PAW_LIFT = 0.13, 0.14, 0.05
_CAPSULE = 0.11  # radius of the trunk that hides what is behind it
_TURN_FRAMES = 5.0  # an animal that turns round on the spot takes about four times this
_APART = 0.16  # an animal's own share of the distance at which two pass each other
_MILL, _MILL_FRAMES = 0.03, 8  # radians a frame at which a huddle turns, and frames between its knots
_DETOUR_FRAMES, _DETOUR_ROUNDS = 8.0, 5  # how long (SD) an animal gives way to another that it would walk through


@dataclass(frozen=True)
class Faults:
    """How a 2D detector fails. Probabilities are per keypoint, animal or view and frame, as each line says.

    noise_px: SD of a visible keypoint per axis. missed: a visible keypoint is not found. outlier, outlier_px: a
    keypoint is
    found this far away. dropout, dropout_frames: an animal vanishes from a view for that many frames. ghosts: a
    false animal
    appears in a view, for ghost_frames. occluded_missed, occluded_noise: share of hidden keypoints not found, and the
    factor on the noise of those that are.
    """

    noise_px: float = 1.2
    missed: float = 0.03
    outlier: float = 0.01
    outlier_px: tuple[float, float] = (20.0, 80.0)
    dropout: float = 0.002
    dropout_frames: tuple[int, int] = (5, 25)
    ghosts: float = 0.02
    ghost_frames: tuple[int, int] = (1, 6)
    occluded_missed: float = 0.7
    occluded_noise: float = 3.0


@dataclass(frozen=True)
class SimulatedViews:
    """What a detector saw of known animals.

    views: {camera: Poses 2D in px, ids all -1, slots in random order}. identity: {camera: (frames, slots) int32},
    the true id
    in each slot, -1 = nobody. found: (views, frames, animals, keypoints) bool, the keypoint was detected in that
    view, also
    where it is an outlier. hidden: same shape, another animal stood before it.
    """

    views: dict[str, Poses]
    identity: dict[str, NDArray[np.int32]]
    found: NDArray[np.bool_]
    hidden: NDArray[np.bool_]


def simulate_animals(
    rng: np.random.Generator,
    n_animals: int = 3,
    n_frames: int = 200,
    *,
    fps: float = 50.0,
    length: float = 90.0,
    arena: float = 180.0,
    unit: str = "mm",
    meet_every: float = 40.0,
    huddles: int = 0,
) -> Poses:
    """Quadrupeds that walk about a round arena and pass each other closely, on the floor z = 0 of a z-up world.

    length: mean body length; arena: radius of the floor they walk on, both in `unit`. meet_every: frames between two
    meetings; at each, two animals pass with their backs less than half a body length apart. huddles: how often all of
    them crowd together and mill about one place for a while. Animals differ in size by up to 10 %.
    Returns Poses (frames, n_animals, 12, 3) of QUADRUPED with ids 0.. and names; nothing is missing.
    """
    if n_animals < 1 or n_frames < 2:
        raise InputError(f"simulation: expected at least 1 animal and 2 frames, got {n_animals} and {n_frames}")
    lengths = length * rng.uniform(0.9, 1.1, n_animals)
    paths = _paths(rng, n_animals, n_frames, lengths, arena, meet_every, huddles)
    points = np.stack([_body(paths[:, a], lengths[a], rng) for a in range(n_animals)], axis=1)
    return Poses(
        points,
        ids=np.tile(np.arange(n_animals), (n_frames, 1)),
        skeleton=QUADRUPED,
        names={a: f"animal_{a}" for a in range(n_animals)},
        unit=unit,
        fps=fps,
    )


def simulate_views(
    truth: Poses, rig: CameraRig, rng: np.random.Generator, faults: Faults | None = None
) -> SimulatedViews:
    """The truth as a 2D detector with faults would report it, camera by camera.

    Keypoints outside the image are not found. A keypoint is hidden where another animal's trunk, a capsule along its
    back, stands between it and the camera. Scores fall with the noise that was drawn.
    """
    faults = faults or Faults()
    views, identity, found, hidden = {}, {}, [], []
    for camera in rig:
        behind = _hidden(truth.points, camera.center, body_length(truth))
        seen, xy, score = _detections(camera.project(truth.points), camera.intrinsics.size, behind, rng, faults)
        poses, who = _shuffled(truth, xy, score, rng, faults, camera.intrinsics.size)
        views[camera.name], identity[camera.name] = poses, who
        found.append(seen)
        hidden.append(behind)
    return SimulatedViews(views, identity, np.array(found), np.array(hidden))


def body_length(poses: Poses) -> float:
    """Median length of the animals from the first to the last keypoint of the trunk, in the unit of the poses.

    For QUADRUPED nose to tail base; for any other skeleton the median over frames of the largest distance between two
    keypoints. NaN where there are no points.
    """
    points = poses.points
    if poses.skeleton.keypoints == QUADRUPED.keypoints:
        return float(np.nanmedian(np.linalg.norm(points[:, :, 0] - points[:, :, 5], axis=-1)))
    apart = np.linalg.norm(points[:, :, :, None] - points[:, :, None], axis=-1)
    largest = np.nanmax(np.where(np.isnan(apart), -np.inf, apart), axis=(2, 3))
    largest = largest[np.isfinite(largest) & (largest > 0)]
    return float(np.median(largest)) if largest.size else float("nan")


def count_crossings(truth: Poses, closer_than: float = 0.5) -> int:
    """How often two animals come closer than this many body lengths (centres of their keypoints), each meeting once."""
    centre = np.nanmean(truth.points, axis=2)
    limit = closer_than * body_length(truth)
    count = 0
    for a in range(truth.shape[1]):
        for b in range(a):
            near = np.linalg.norm(centre[:, a] - centre[:, b], axis=-1) < limit
            count += int(near[0]) + int(np.sum(near[1:] & ~near[:-1]))
    return count


def _paths(
    rng: np.random.Generator,
    n_animals: int,
    n_frames: int,
    lengths: Float,
    arena: float,
    meet_every: float,
    huddles: int,
) -> Float:
    """(frames, animals, 2) smooth tracks of the animals' backs: wandering, with a rendezvous of two now and then, and
    huddles of all."""
    from scipy.interpolate import CubicSpline

    n_meetings = int(n_frames // meet_every)
    meet_at = (np.arange(n_meetings) + 0.5) * n_frames / max(n_meetings, 1)
    knots: list[list[tuple[float, Float]]] = [[] for _ in range(n_animals)]
    for moment in meet_at if n_animals > 1 else ():
        pair = rng.choice(n_animals, 2, replace=False)
        place = _in_disc(rng, 0.4 * arena)
        along = rng.uniform(0, 2 * np.pi)
        direction = np.array([np.cos(along), np.sin(along)])
        across = np.array([-direction[1], direction[0]])
        for sign, animal in zip((1.0, -1.0), pair, strict=True):
            beside = place + sign * _APART * lengths[animal] * across
            step = sign * 0.9 * lengths[animal] * direction
            knots[animal] += [
                (moment - meet_every / 4, beside - step),
                (moment, beside),
                (moment + meet_every / 4, beside + step),
            ]
    for huddle in range(huddles):
        begin, end = (np.array([0.25, 0.75]) + huddle) * n_frames / huddles
        place, start = _in_disc(rng, 0.3 * arena), rng.uniform(0, 2 * np.pi)
        ring = _APART * 2 * lengths.mean() / (2 * np.sin(np.pi / max(n_animals, 2)))  # neighbours touch
        for animal, own in enumerate(knots):
            own[:] = [knot for knot in own if not begin - meet_every < knot[0] < end + meet_every]
            for moment in np.arange(begin, end, _MILL_FRAMES):
                angle = start + 2 * np.pi * animal / n_animals + _MILL * (moment - begin) + rng.normal(0, 0.05)
                own.append((moment, place + ring * np.array([np.cos(angle), np.sin(angle)])))
    paths = np.empty((n_frames, n_animals, 2))
    for animal, own in enumerate(knots):
        wander = [(t, _in_disc(rng, arena)) for t in np.arange(-meet_every, n_frames + 2 * meet_every, meet_every)]
        busy = np.array([t for t, _ in own])
        free = [(t, p) for t, p in wander if not busy.size or np.abs(busy - t).min() > 0.4 * meet_every]
        moments, places = zip(*sorted(own + free, key=lambda knot: knot[0]), strict=True)
        paths[:, animal] = CubicSpline(moments, np.array(places))(np.arange(n_frames))
    return _kept_apart(paths, lengths)


def _kept_apart(paths: Float, lengths: Float) -> Float:
    """The paths (frames, animals, 2) with detours where two animals would walk through each other.

    About the moment at which two are nearest, each gives way by half of what is lacking, across the direction in which
    they move past each other. A detour may lead to a third animal, hence the rounds.
    """
    frames = np.arange(len(paths))
    for _ in range(_DETOUR_ROUNDS):
        for a, b in combinations(range(paths.shape[1]), 2):
            least = _APART * (lengths[a] + lengths[b])
            apart = paths[:, a] - paths[:, b]
            distance = np.linalg.norm(apart, axis=1)
            around = np.pad(distance, 1, constant_values=np.inf)
            for t in np.flatnonzero((distance < least) & (distance <= around[:-2]) & (distance < around[2:])):
                past = apart[t : t + 2][-1] - apart[max(int(t) - 1, 0)]
                across = np.array([-past[1], past[0]]) / max(np.linalg.norm(past), 1e-9)
                side = 1.0 if across @ apart[t] >= 0 else -1.0
                step = (side * least - across @ apart[t]) / 2 * across
                share = np.exp(-0.5 * ((frames - t) / _DETOUR_FRAMES) ** 2)[:, None]
                paths[:, a] += share * step
                paths[:, b] -= share * step
    return paths


def _in_disc(rng: np.random.Generator, radius: float) -> Float:
    angle = rng.uniform(0, 2 * np.pi)
    return radius * np.sqrt(rng.uniform()) * np.array([np.cos(angle), np.sin(angle)])


def _body(path: Float, length: float, rng: np.random.Generator) -> Float:
    """(frames, 12, 3) one animal along its path (frames, 2): trunk and head as a chain of rigid bones, paws in a
    gait.
    """
    n = len(path)
    speed, heading, bend = _motion(path, length)
    t, level = np.arange(n), np.zeros(n)
    rearing = np.clip(np.sin(2 * np.pi * (t / rng.uniform(90, 150) + rng.uniform())) - 0.6, 0, None) * 1.5
    nodding = 0.15 * np.sin(2 * np.pi * (t / rng.uniform(25, 40) + rng.uniform()))
    sway = 0.35 * np.sin(2 * np.pi * (t / rng.uniform(20, 35) + rng.uniform()))
    points = np.empty((n, 12, 3))
    back = np.column_stack([path, np.full(n, _HEIGHT * length)])
    front, rear = _pointing(heading + bend, rearing), _pointing(heading - bend, level)
    head = _pointing(heading + 2 * bend, rearing * 0.5 + nodding)
    side = np.column_stack([-np.sin(heading + 2 * bend), np.cos(heading + 2 * bend), np.zeros(n)])
    neck = back + _NECK * length * front
    above = np.cross(head, side)
    for k, sign in ((1, 1.0), (2, -1.0)):
        points[:, k] = neck + length * (_EAR * head + sign * _EAR_WIDTH * side + _EAR_LIFT * above)
    points[:, 0], points[:, 3], points[:, 4] = neck + _NOSE * length * head, neck, back
    points[:, 5] = back - _REAR * length * rear
    points[:, 6] = points[:, 5] - _TAIL * length * _pointing(heading - bend + sway, np.full(n, 0.3))
    points[:, 7] = points[:, 6] - _TAIL * length * _pointing(heading - bend + 2 * sway, np.full(n, 0.1))
    phase = np.cumsum(speed) / (2 * _STRIDE * length) * np.pi
    wide = np.column_stack([-np.sin(heading), np.cos(heading), np.zeros(n)])
    for k, root, sign, lag in (
        (8, neck, 1, 0.0),
        (9, neck, -1, np.pi),
        (10, points[:, 5], 1, np.pi),
        (11, points[:, 5], -1, 0.0),
    ):
        reach = _STRIDE * length * np.sin(phase + lag)[:, None] * _pointing(heading, level)
        points[:, k] = root + reach + sign * _HIP_WIDTH * length * wide
        lifted = np.clip(np.cos(phase + lag), 0, None) * _PAW_LIFT * length
        points[:, k, 2] = lifted + np.clip(root[:, 2] - _HEIGHT * length, 0, None) * (k < 10)
    return points


def _motion(path: Float, length: float) -> tuple[Float, Float, Float]:
    """Speed in units a frame, heading and bend of the body in radians, each (frames,), along a path (frames, 2)."""
    from scipy.ndimage import gaussian_filter1d

    velocity = np.gradient(path, axis=0)
    speed = np.linalg.norm(velocity, axis=1)
    heading = np.unwrap(np.arctan2(velocity[:, 1], velocity[:, 0]))
    heading = gaussian_filter1d(heading, _TURN_FRAMES, mode="nearest")
    turning = gaussian_filter1d(np.gradient(heading), 3.0, mode="nearest") / np.maximum(speed, 0.01 * length)
    return speed, heading, np.clip(0.3 * length * turning, -0.5, 0.5)


def _pointing(heading: Float, pitch: Float) -> Float:
    """(frames, 3) unit vectors at this heading about z, lifted by the pitch; radians."""
    flat = np.cos(pitch)
    return np.column_stack([flat * np.cos(heading), flat * np.sin(heading), np.sin(pitch)])


def _hidden(points: Float, centre: Float, length: float) -> NDArray[np.bool_]:
    """(frames, animals, keypoints) whether another animal's trunk stands between the keypoint and the camera.

    The trunk is a capsule from neck to tail base; the sight line is sampled from the keypoint towards the camera over
    three body lengths, beyond which nothing on the same floor can hide it.
    """
    sight = centre - points
    sight /= np.linalg.norm(sight, axis=-1, keepdims=True)
    samples = points[..., None, :] + sight[..., None, :] * (np.linspace(0.05, 3.0, 60) * length)[:, None]
    hidden = np.zeros(points.shape[:3], dtype=bool)
    for other in range(points.shape[1]):
        start, end = points[:, other, 3], points[:, other, 5]
        axis = end - start
        offset = samples - start[:, None, None, None]
        along = np.einsum("fakni,fi->fakn", offset, axis) / np.sum(axis**2, axis=1)[:, None, None, None]
        gap = offset - np.clip(along, 0, 1)[..., None] * axis[:, None, None, None]
        blocked = (np.linalg.norm(gap, axis=-1) < _CAPSULE * length).any(axis=-1)
        blocked[:, other] = False
        hidden |= blocked
    return hidden


def _detections(
    exact: Float, size: tuple[int, int], hidden: NDArray[np.bool_], rng: np.random.Generator, faults: Faults
) -> tuple[NDArray[np.bool_], Float, Float]:
    """One camera: found (frames, animals, keypoints), xy (..., 2) with NaN where not found, score."""
    frames, animals, _ = hidden.shape
    inside = ((exact > -0.5) & (exact < np.array(size) - 0.5)).all(axis=-1)
    lost = rng.uniform(size=hidden.shape) < np.where(hidden, faults.occluded_missed, faults.missed)
    for frame, animal in np.argwhere(rng.uniform(size=(frames, animals)) < faults.dropout):
        lost[frame : frame + rng.integers(*faults.dropout_frames, endpoint=True), animal] = True
    found = inside & ~lost
    sigma = faults.noise_px * np.where(hidden, faults.occluded_noise, 1.0) * rng.uniform(0.7, 1.3, hidden.shape)
    xy = exact + sigma[..., None] * rng.normal(size=exact.shape)
    score = np.clip(1.0 - 0.15 * sigma / max(faults.noise_px, 1e-9) + 0.05 * rng.normal(size=sigma.shape), 0.05, 1.0)
    wrong = rng.uniform(size=hidden.shape) < faults.outlier
    angle, distance = rng.uniform(0, 2 * np.pi, hidden.shape), rng.uniform(*faults.outlier_px, hidden.shape)
    xy += (wrong * distance)[..., None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    score = np.where(wrong, rng.uniform(0.2, 0.9, hidden.shape), score)
    return found, np.where(found[..., None], xy, np.nan), np.where(found, score, 0.0)


def _shuffled(
    truth: Poses, xy: Float, score: Float, rng: np.random.Generator, faults: Faults, size: tuple[int, int]
) -> tuple[Poses, NDArray[np.int32]]:
    """Poses 2D with false animals added and the slots of every frame in random order, and the true id in each slot."""
    frames, animals = xy.shape[:2]
    ghost_xy, ghost_score = np.full((frames, 1, *xy.shape[2:]), np.nan), np.zeros((frames, 1, xy.shape[2]))
    for start in np.flatnonzero(rng.uniform(size=frames) < faults.ghosts):
        shape = xy[start, rng.integers(animals)]
        shape = shape - np.nanmean(shape, axis=0) if np.isfinite(shape).any() else shape
        for frame in range(start, min(frames, start + rng.integers(*faults.ghost_frames, endpoint=True))):
            ghost_xy[frame, 0] = shape[:, ::-1] + rng.uniform(0.05, 0.95, 2) * size
            ghost_score[frame, 0] = rng.uniform(0.1, 0.6, xy.shape[2])
    xy, score = np.concatenate([xy, ghost_xy], axis=1), np.concatenate([score, ghost_score], axis=1)
    who = np.concatenate([truth.ids, np.full((frames, 1), -1, dtype=np.int32)], axis=1)
    order = np.argsort(rng.uniform(size=(frames, animals + 1)), axis=1)
    empty = np.isnan(xy[..., 0]).all(axis=2)
    order = np.take_along_axis(
        order, np.argsort(np.take_along_axis(empty, order, axis=1), axis=1, kind="stable"), axis=1
    )
    rows = np.arange(frames)[:, None]
    poses = Poses(
        xy[rows, order], score[rows, order], frame=truth.frame, time=truth.time, skeleton=truth.skeleton, fps=truth.fps
    )
    return poses, np.where(poses.missing.all(axis=2), -1, who[rows, order]).astype(np.int32)
