"""Which detections of the different views show the same animal, each frame alone?

Two detections of two views are compared keypoint by keypoint: how far must their rays be bent to meet (Sampson distance
of the epipolar constraint; Hartley and Zisserman 2004, 11.4.3), in units of the 2D noise, which grows with the size of
a detection. A keypoint within `GATE` noise levels speaks for the pair, one beyond against it, by at most `AGAINST`; one
that would lie behind a camera speaks against it in full. The sums are the evidence; the detections are divided into
groups, at most one of each view, so that the evidence inside groups is greatest (correlation clustering: greedy
merging, then single moves and swaps while they gain). All views agree with all by that sum, no view leads, and
detections that match nothing stay out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from calibration.errors import InputError, nearest_name
from calibration.rig import CameraRig
from pose3d.poses import Groups, Poses

__all__ = [
    "AGAINST",
    "GATE",
    "NOISE_RANGE",
    "AssociationOptions",
    "Sightings",
    "associate",
    "baselines_between",
    "divide",
    "estimate_noise",
    "group_distances",
    "pair_evidence",
    "radius",
    "sightings",
]

Array = NDArray[Any]

GATE = 3.4
"""Noise levels at which a keypoint speaks neither for nor against a pair."""
AGAINST = 1.0
"""What a keypoint far off counts against a pair, in units of what a perfect one counts for it."""
_FIRST_NOISE = 0.12
NOISE_RANGE = (0.01, 0.2)
"""2D noise relative to the detections' size: where its estimate starts, and what is believed."""
_NOISE_FRAMES, _NOISE_ROUNDS = 200, 3
_SMALLEST = 2e-3
"""rad: a detection that has no extent (one keypoint) is taken to be this large."""


@dataclass(frozen=True)
class AssociationOptions:
    """noise: SD of a 2D keypoint relative to its detection's rms radius; None = estimated from the recording."""

    noise: float | None = None


@dataclass(frozen=True, eq=False)
class Sightings:
    """The detections of all views as rays, the views sorted by name.

    view_names: (views,). centers: (views, 3) in the rig's unit.
    rays: (frames, views, slots, keypoints, 3) unit rays in world axes, NaN where missing.
    weight: (frames, views, slots, keypoints) the keypoint's score, 0 where missing.
    size: (frames, views, slots) rad, rms radius about the mean ray, at least the median of its view in its frame.
    """

    view_names: tuple[str, ...]
    centers: Array
    xy: Array
    rays: Array
    weight: Array
    size: Array


def associate(views: Mapping[str, Poses], rig: CameraRig, options: AssociationOptions | None = None) -> Groups:
    """Group the detections of aligned views, each frame alone; the ids of the views are not looked at.

    views: {camera: Poses 2D (frames, slots, keypoints, 2)} with the same frames and keypoints; cameras are matched by
    name. Returns groups of at least two views, ids -1, strongest evidence first, views in the rig's order; confidence
    is the mean evidence per keypoint pair, 0..1. The result does not depend on the order of cameras. No length in the
    rig's unit enters. Raises InputError for cameras unknown to the rig, views that are not aligned, or no keypoint in
    any view.
    """
    options = options or AssociationOptions()
    seen = sightings(views, rig)
    if not (seen.weight > 0).any():
        raise InputError(f"association: no keypoint in any frame of {', '.join(seen.view_names)}; check the 2D poses")
    noise = estimate_noise(seen) if options.noise is None else options.noise
    label, confidence = _associate(seen.rays, seen.weight, seen.size, seen.centers, noise)
    order = [seen.view_names.index(name) for name in rig.names if name in seen.view_names]
    slots = np.full((len(label), label.max(initial=-1) + 1, len(order)), -1, dtype=np.int32)
    frame, view, slot = np.nonzero(label >= 0)
    slots[frame, label[frame, view, slot], view] = slot
    view_names = tuple(seen.view_names[v] for v in order)
    return Groups(view_names, slots[:, :, order], confidence=confidence[:, : slots.shape[1]])


def sightings(views: Mapping[str, Poses], rig: CameraRig) -> Sightings:
    """The detections of aligned views as rays; see `associate` for what is checked."""
    names = tuple(sorted(views))
    if len(names) < 2:
        raise InputError(f"association: expected at least two views, got {', '.join(names) or 'none'}")
    first = views[names[0]]
    for name in names:
        if name not in rig.names:
            raise InputError(f"camera '{name}' is not in the calibration; {nearest_name(name, rig.names)}")
        if not np.array_equal(views[name].frame, first.frame):
            raise InputError(
                f"views '{names[0]}' and '{name}' do not have the same frames; align them to a timeline first"
            )
        if views[name].skeleton.keypoints != first.skeleton.keypoints:
            raise InputError(
                f"views '{names[0]}' and '{name}' do not have the same keypoints; use one skeleton for all"
            )
    slots = max(poses.shape[1] for poses in views.values())
    frames, keypoints = len(first.frame), first.shape[2]
    xy, rays = (np.full((frames, len(names), slots, keypoints, n), np.nan) for n in (2, 3))
    weight = np.zeros(rays.shape[:-1])
    for v, name in enumerate(names):
        count = views[name].shape[1]
        xy[:, v, :count] = views[name].points
        rays[:, v, :count] = rig[name].rays(views[name].points)
        weight[:, v, :count] = np.where(np.isnan(rays[:, v, :count, :, 0]), 0.0, views[name].score)
    centers = np.stack([rig[name].center for name in names])
    return Sightings(names, centers, xy, rays, weight, np.maximum(radius(rays), _SMALLEST))


def estimate_noise(seen: Sightings) -> float:
    """SD of 2D keypoints relative to the size of their detection, from the recording itself.

    The grouping is made with a first guess, the normalised distances inside its groups give a robust SD (median /
    0.6745), and so on; up to `_NOISE_FRAMES` frames spread over the recording.
    """
    pick = np.unique(np.linspace(0, max(len(seen.rays) - 1, 0), _NOISE_FRAMES).astype(int))[: len(seen.rays)]
    rays, weight, size = seen.rays[pick], seen.weight[pick], seen.size[pick]
    noise = _FIRST_NOISE
    for _ in range(_NOISE_ROUNDS):
        label, _ = _associate(rays, weight, size, seen.centers, noise)
        distance = group_distances(rays, weight, size, seen.centers, label)
        distance = distance[np.isfinite(distance)]
        if not len(distance):
            break
        noise = float(np.clip(np.median(distance) / 0.6745, *NOISE_RANGE))
    return noise


def radius(points: Array) -> Array:
    """(frames, views, slots) rms distance from their mean of the points (frames, views, slots, keypoints, D).

    At least the median of the detections of the same view and frame, since one that is seen in part is no smaller
    animal.
    """
    known = ~np.isnan(points[..., 0])
    count = known.sum(axis=-1)
    filled = np.where(known[..., None], points, 0.0)
    mean = filled.sum(axis=-2) / np.maximum(count, 1)[..., None]
    spread = np.where(known, ((filled - mean[..., None, :]) ** 2).sum(axis=-1), 0.0)
    size = np.sqrt(spread.sum(axis=-1) / np.maximum(count, 1))
    ordered = np.sort(np.where(count > 1, size, np.inf), axis=-1)
    middle = np.maximum((count > 1).sum(axis=-1) - 1, 0) // 2
    median = np.take_along_axis(ordered, middle[..., None], axis=-1)
    return np.maximum(size, np.where(np.isfinite(median), median, 0.0))


@njit(cache=True, error_model="numpy")
def _squared_distance(a, b, e, variance_a, variance_b):  # type: ignore[no-untyped-def]
    """Squared Sampson distance of two unit rays whose directions have these angular variances; inf behind a camera.

    The constraint is c = e . (a x b), e the unit baseline from a's centre to b's; its variance is
    va (|e x b|^2 - c^2) + vb (|e x a|^2 - c^2), the gradients' parts tangential to the rays.
    """
    px, py, pz = e[1] * a[2] - e[2] * a[1], e[2] * a[0] - e[0] * a[2], e[0] * a[1] - e[1] * a[0]
    constraint = px * b[0] + py * b[1] + pz * b[2]
    cosine = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    along_a, along_b = e[0] * a[0] + e[1] * a[1] + e[2] * a[2], e[0] * b[0] + e[1] * b[1] + e[2] * b[2]
    if along_a - cosine * along_b < 0.0 or cosine * along_a - along_b < 0.0:
        return np.inf
    squared = constraint * constraint
    variance = variance_a * (1.0 - along_b * along_b - squared) + variance_b * (1.0 - along_a * along_a - squared)
    return squared / variance if variance > 0.0 else np.inf


@njit(cache=True, error_model="numpy")
def baselines_between(centers):  # type: ignore[no-untyped-def]
    """Unit vectors (views, views, 3) from each centre to each other."""
    views = len(centers)
    out = np.zeros((views, views, 3))
    for v in range(views):
        for w in range(views):
            length = 0.0
            for i in range(3):
                out[v, w, i] = centers[w, i] - centers[v, i]
                length += out[v, w, i] ** 2
            for i in range(3):
                out[v, w, i] /= max(np.sqrt(length), 1e-300)
    return out


@njit(cache=True, error_model="numpy")
def pair_evidence(rays, weight, size, view, baselines, noise):  # type: ignore[no-untyped-def]
    """Evidence (n, n) for two detections being one animal, and the weight (n, n) it could have had; 0 within a view."""
    n, keypoints = weight.shape
    evidence, possible = np.zeros((n, n)), np.zeros((n, n))
    for a in range(n):
        variance_a = (noise * size[a]) ** 2
        for b in range(a + 1, n):
            if view[a] == view[b]:
                continue
            baseline = baselines[view[a], view[b]]
            variance_b = (noise * size[b]) ** 2
            for k in range(keypoints):
                w = weight[a, k] * weight[b, k]
                if w > 0.0:
                    squared = _squared_distance(rays[a, k], rays[b, k], baseline, variance_a, variance_b)
                    evidence[a, b] += w * (1.0 - min(squared / GATE**2, 1.0 + AGAINST))
                    possible[a, b] += w
            evidence[b, a], possible[b, a] = evidence[a, b], possible[a, b]
    return evidence, possible


@njit(cache=True, error_model="numpy")
def _merge(evidence, view, n_views):  # type: ignore[no-untyped-def]
    """Greedy groups: always the two with most evidence between them, while it is positive and no view would be double.

    Returns label (n,) and member (n, views): who of a view is in the group of that label, -1 = none.
    """
    n = len(evidence)
    label, member = np.arange(n), np.full((n, n_views), -1)
    between = evidence.copy()
    for i in range(n):
        member[i, view[i]] = i
    for _ in range(n):
        best, first, second = 0.0, -1, -1
        for a in range(n):
            for b in range(a + 1, n):
                if between[a, b] > best:
                    best, first, second = between[a, b], a, b
        if first < 0:
            break
        for v in range(n_views):
            if member[second, v] >= 0:
                label[member[second, v]] = first
                member[first, v], member[second, v] = member[second, v], -1
        for c in range(n):
            between[first, c] += between[second, c]
            between[second, c] = between[c, second] = -np.inf
            for v in range(n_views):
                if member[first, v] >= 0 and member[c, v] >= 0:
                    between[first, c] = -np.inf
            between[c, first] = between[first, c]
    return label, member


@njit(cache=True, error_model="numpy")
def _improve(evidence, view, label, member):  # type: ignore[no-untyped-def]
    """Move a detection to another group, or swap two of one view, always the move that gains most, while one gains.

    In place. `support[i, g]` is the evidence of i for the members of g; a group that nobody is in is always among the
    labels as long as any group has two members, so leaving one is a move like any other.
    """
    n = len(label)
    support = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            support[i, label[j]] += evidence[i, j]
    for _ in range(4 * n):
        best, mover, target = 1e-9, -1, -1
        for i in range(n):
            here = label[i]
            for g in range(n):
                gain = support[i, g] - support[i, here]
                j = member[g, view[i]]
                if j >= 0 and g != here:
                    gain += support[j, here] - support[j, g]
                if gain > best:
                    best, mover, target = gain, i, g
        if mover < 0:
            break
        here, v = label[mover], view[mover]
        other = member[target, v]
        member[target, v], member[here, v] = mover, other
        label[mover] = target
        if other >= 0:
            label[other] = here
        for i in range(n):
            change = evidence[i, mover] - (evidence[i, other] if other >= 0 else 0.0)
            support[i, target] += change
            support[i, here] -= change


@njit(cache=True, error_model="numpy")
def divide(evidence, view, n_views):  # type: ignore[no-untyped-def]
    """Label (n,) of the group of each of n detections: much evidence (n, n) inside, at most one of each view (n,)
    int."""
    label, member = _merge(evidence, view, n_views)
    _improve(evidence, view, label, member)
    return label


@njit(cache=True, error_model="numpy")
def _group_detections(rays, weight, size, view, baselines, noise):  # type: ignore[no-untyped-def]
    """Group n detections of one frame: rays (n, keypoints, 3), weight (n, keypoints), size (n,) rad, view (n,) int.

    baselines: (views, views, 3) unit vectors between the centres; noise: relative to size. Returns group (n,) int, -1 =
    in none (fewer than two views), numbered by falling evidence, and confidence (n,) whose first entries are the
    groups'.
    """
    n = len(size)
    evidence, possible = pair_evidence(rays, weight, size, view, baselines, noise)
    label = divide(evidence, view, len(baselines))
    inside, most = np.zeros(n), np.zeros(n)
    for a in range(n):
        for b in range(a):
            if label[a] == label[b]:
                inside[label[a]] += evidence[a, b]
                most[label[a]] += possible[a, b]
    group, confidence = np.full(n, -1), np.zeros(n)
    for number in range(n):
        best = np.argmax(inside)
        if inside[best] <= 0.0:
            break
        confidence[number] = inside[best] / most[best]
        inside[best] = 0.0
        for i in range(n):
            if label[i] == best:
                group[i] = number
    return group, confidence


@njit(cache=True, error_model="numpy")
def _associate(rays, weight, size, centers, noise):  # type: ignore[no-untyped-def]
    """`_group_detections` for every frame: label (frames, views, slots), confidence (frames, views * slots)."""
    frames, views, slots, keypoints = weight.shape
    label = np.full((frames, views, slots), -1)
    confidence = np.zeros((frames, views * slots))
    baselines = baselines_between(centers)
    places = np.empty((views * slots, 2), np.int64)
    for f in range(frames):
        n = 0
        for v in range(views):
            for s in range(slots):
                for k in range(keypoints):
                    if weight[f, v, s, k] > 0.0:
                        places[n, 0], places[n, 1] = v, s
                        n += 1
                        break
        some_rays, some_weight = np.empty((n, keypoints, 3)), np.empty((n, keypoints))
        some_size, view = np.empty(n), np.empty(n, np.int64)
        for i in range(n):
            v, s = places[i, 0], places[i, 1]
            view[i], some_size[i] = v, size[f, v, s]
            for k in range(keypoints):
                some_weight[i, k] = weight[f, v, s, k]
                for c in range(3):
                    some_rays[i, k, c] = rays[f, v, s, k, c]
        group, sure = _group_detections(some_rays, some_weight, some_size, view, baselines, noise)
        for i in range(n):
            label[f, places[i, 0], places[i, 1]] = group[i]
            confidence[f, i] = sure[i]
    return label, confidence


@njit(cache=True, error_model="numpy")
def group_distances(rays, weight, size, centers, label):  # type: ignore[no-untyped-def]
    """Sampson distances relative to the detections' size, of every keypoint of every pair inside groups, NaN
    elsewhere."""
    frames, views, slots, keypoints = weight.shape
    baselines = baselines_between(centers)
    out = np.full((frames, views, views, slots, keypoints), np.nan)
    for f in range(frames):
        for v in range(views):
            for w in range(v + 1, views):
                for a in range(slots):
                    for b in range(slots):
                        if label[f, v, a] < 0 or label[f, v, a] != label[f, w, b]:
                            continue
                        for k in range(keypoints):
                            if weight[f, v, a, k] * weight[f, w, b, k] > 0.0:
                                out[f, v, w, a, k] = np.sqrt(
                                    _squared_distance(
                                        rays[f, v, a, k],
                                        rays[f, w, b, k],
                                        baselines[v, w],
                                        size[f, v, a] ** 2,
                                        size[f, w, b] ** 2,
                                    )
                                )
    return out
