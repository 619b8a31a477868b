"""Who is who in all views and over time? Association, triangulation and tracking working together, online and offline.

Identity lives in 3D. In every frame the known individuals, predicted to this moment, stand beside the detections as if
they were those of one more view: a prediction speaks for a detection keypoint by keypoint as another detection does,
the more weakly the less sure it is. One division into groups then settles views and time together. Groups without a
known individual found a new one; individuals that nothing supports wait, and are forgotten when they could be anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from calibration.errors import InputError
from calibration.geometry import triangulate_points
from calibration.rig import CameraRig
from pose3d.association import (
    AGAINST,
    GATE,
    Sightings,
    baselines_between,
    divide,
    group_distances,
    pair_evidence,
    radius,
    sightings,
)
from pose3d.individuals import (
    CONFIRM,
    IdentityState,
    born,
    buried,
    corrected,
    initial_state,
    learned,
    motion,
    noise,
    radius_3d,
    state_from_arrays,
    state_to_arrays,
    step_rms,
)
from pose3d.kalman import predict
from pose3d.poses import Groups, Poses
from pose3d.tracking import Tracklets, reach, stitch

__all__ = [
    "IdentityOptions",
    "IdentityState",
    "IdentityStream",
    "final_ids",
    "identify",
    "identify_window",
    "initial_state",
    "named",
    "state_from_arrays",
    "state_to_arrays",
]

Array = NDArray[Any]

WINDOW = 500
"""Frames that `identify` handles at once; the result does not depend on it."""
_MEMORY = 2.0
"""What a prediction counts, in detections: it fixes two coordinates of a keypoint where another detection fixes one."""
_SAME = 0.5
"""Two individuals most of whose common keypoints are closer than this many radii are one."""
_BESIDE, _JUST = 2.0, 5
"""The same where as many individuals as there are were seen in the last so many frames."""
_JUMP = 1.0
"""Radii that an individual may be from where it was expected, when nobody else is nearer."""
_TAKEOVER = 25
"""Frames in which two tracks of one individual may be seen at once, where there are too many."""
_AGREES = 0.34
"""Share of the keypoints, of those that three views saw, in which a view must agree to stay in its group."""


@dataclass(frozen=True)
class IdentityOptions:
    """individuals: how many there are, None = as many as are seen. max_gap: frames for which an unseen one is
    remembered at most. min_frames: an individual seen in fewer is taken for an error, in a recording of at least ten
    times as many."""

    individuals: int | None = None
    max_gap: int = 100
    min_frames: int = 10

    def __post_init__(self) -> None:
        if self.individuals is not None and self.individuals < 1:
            raise InputError(f"individuals: expected at least 1, got {self.individuals}")


def identify(
    views: Mapping[str, Poses],
    rig: CameraRig,
    options: IdentityOptions | None = None,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> Groups:
    """Who is who: which slot of which view is which individual, through the whole recording.

    views: {camera: Poses 2D} aligned to one timeline, ids not needed; cameras matched by name.
    Returns Groups in which group g is the individual with id g in every frame, numbered in order of first appearance,
    views in the rig's order; -1 where not seen; confidence is the evidence per keypoint, 0..1. It is the loop of
    `identify_window` over windows, `final_ids` and `named`, and does not depend on the windows. Raises InputError for
    views that do not fit together or the rig, or that hold no keypoint at all.
    """
    options = options or IdentityOptions()
    if all(poses.missing.all() for poses in views.values()):
        raise InputError(f"identity: no keypoint in any frame of {', '.join(sorted(views))}; check the 2D poses")
    first = next(iter(views.values()))
    state = initial_state(first.shape[2])
    parts = []
    for begin in range(0, len(first.frame), WINDOW):
        window = {name: poses.window(begin, begin + WINDOW) for name, poses in views.items()}
        part, state = identify_window(window, state, rig, options)
        parts.append(part)
        if progress is not None:
            progress("identify", min(begin + WINDOW, len(first.frame)), len(first.frame))
    ids = final_ids(state, options)
    done = [named(part, ids) for part in parts]
    return Groups(
        done[0].view_names,
        np.concatenate([part.slots for part in done]),
        np.concatenate([part.ids for part in done]),
        np.concatenate([part.confidence for part in done]),
    )


def identify_window(
    views: Mapping[str, Poses], state: IdentityState, rig: CameraRig, options: IdentityOptions | None = None
) -> tuple[Groups, IdentityState]:
    """Some frames on: Groups of this window whose ids are track numbers, and the state after it.

    Track numbers are not yet identities: at the end `final_ids` says which tracks are one individual and which are
    errors, and `named` applies that to every window. Windows may have any length; the tracks do not depend on it.
    """
    options = options or IdentityOptions()
    seen = sightings(views, rig)
    size_px = radius(seen.xy)
    sorted_rig = rig.subset(seen.view_names)
    results = []
    for f in range(len(seen.xy)):
        frame = _Frame(seen.xy[f], seen.rays[f], seen.weight[f], seen.size[f], size_px[f], seen.centers, sorted_rig)
        tracks, slots, confidence, state = _step(frame, state, options)
        results.append((tracks, slots, confidence))
    return _as_groups(results, seen, rig), state


def final_ids(state: IdentityState, options: IdentityOptions | None = None) -> Array:
    """(S,) identity of every track number at the end of a recording, -1 for those taken for errors.

    Tracks that can be one individual, the later beginning where the earlier could have gone, are stitched. Where that
    leaves more than there are, a track may also take over from one that is still seen now and then: views of different
    animals that crowd come together by chance. Identities are numbered in order of first appearance.
    """
    options = options or IdentityOptions()
    good = np.flatnonzero(state.seen >= min(CONFIRM, max(int(state.frames) // 2, 1)))
    ids = np.full(len(state.seen), -1)
    if not len(good):
        return ids
    first, last, began, ended = (array[good] for array in (state.first, state.last, state.began, state.ended))
    part = Tracklets(first, last, began, ended, radius_3d(state), float(step_rms(state).mean()))
    least = max(min(options.min_frames, int(state.frames) // 10), 1)
    for until in (None, np.minimum(last, first + state.seen[good]) - _TAKEOVER):
        chain = stitch(part, until)
        seen = np.bincount(chain, weights=state.seen[good])
        enough = seen >= least
        if options.individuals is None or enough.sum() <= options.individuals:
            break
    if options.individuals is not None:
        best = np.lexsort((np.arange(len(seen)), -seen))[: options.individuals]
        enough &= np.isin(np.arange(len(seen)), best)
    number = np.where(enough, np.cumsum(enough) - 1, -1)
    ids[good] = number[chain]
    return ids


def named(groups: Groups, ids: Array) -> Groups:
    """Groups whose ids are track numbers -> group g is identity g, for `ids` (S,) of `final_ids`; of two tracks of one
    identity the later counts."""
    n = int(ids.max(initial=-1)) + 1
    slots = np.full((len(groups.slots), n, len(groups.view_names)), -1)
    confidence = np.zeros(slots.shape[:2])
    frame, column = np.nonzero(groups.ids >= 0)
    who = ids[groups.ids[frame, column]]
    frame, column, who = frame[who >= 0], column[who >= 0], who[who >= 0]
    slots[frame, who] = groups.slots[frame, column]
    confidence[frame, who] = groups.confidence[frame, column]
    seen = (slots >= 0).any(axis=2)
    return Groups(groups.view_names, slots, np.where(seen, np.arange(n), -1), confidence)


class IdentityStream:
    """`identify` online: frame by frame, with the identities that can be known by then (track numbers, -1 until
    confirmed)."""

    def __init__(self, rig: CameraRig, keypoints: int, options: IdentityOptions | None = None) -> None:
        self.rig = rig
        self.options = options or IdentityOptions()
        self.state = initial_state(keypoints)

    def step(self, frame_views: Mapping[str, Poses]) -> Groups:
        """Groups of the next frame, or frames: {camera: Poses 2D}."""
        groups, self.state = identify_window(frame_views, self.state, self.rig, self.options)
        known = (groups.ids >= 0) & (self.state.seen >= CONFIRM)[groups.ids]
        return replace(groups, ids=np.where(known, groups.ids, -1))


@dataclass(frozen=True, eq=False)
class _Frame:
    """One frame of all V views with N slots: xy (V, N, K, 2), rays (V, N, K, 3), weight (V, N, K), size (V, N) rad,
    size_px (V, N); centers (V, 3); rig with the views in this order."""

    xy: Array
    rays: Array
    weight: Array
    size: Array
    size_px: Array
    centers: Array
    rig: CameraRig


def _step(frame: _Frame, state: IdentityState, options: IdentityOptions) -> tuple[Array, Array, Array, IdentityState]:
    """One frame: track numbers (G,) seen, their slots (G, V), confidence (G,), and the state after it."""
    noise_now = noise(state)
    mean, covariance = predict(state.mean, state.covariance, motion(state))
    slots, confidence = _grouped(frame, mean, covariance, noise_now)
    points, spread, slots = _triangulated(frame, slots, noise_now)
    rows, found = _settled(points, mean[:, :, :3], state, options.individuals)
    mean[found], covariance[found] = np.nan, np.nan
    slots, confidence, points, spread = slots[rows], confidence[rows], points[rows], spread[rows]
    state = learned(replace(state, mean=mean, covariance=covariance), points, _distances(frame, slots))
    state = corrected(born(state, points[len(mean) :]), points, spread)
    here = (slots >= 0).any(axis=1)
    return state.live[here], slots[here], confidence[here], buried(state, options.max_gap, options.individuals)


def _grouped(frame: _Frame, mean: Array, covariance: Array, noise: float) -> tuple[Array, Array]:
    """Slots (T + new, V) of the T known individuals and of new ones, seen in two views at least; confidence (T +
    new,)."""
    view, slot = np.nonzero((frame.weight > 0).any(axis=-1))
    T, n, V = len(mean), len(view), len(frame.xy)
    rays, weight, size = frame.rays[view, slot], frame.weight[view, slot], frame.size[view, slot]
    evidence, possible = np.zeros((n + T, n + T)), np.zeros((n + T, n + T))
    evidence[:n, :n], possible[:n, :n] = pair_evidence(
        rays, weight, size, view, baselines_between(frame.centers), noise
    )
    prior, most = _track_evidence(mean, covariance, rays, weight, size, frame.centers[view], noise)
    evidence[n:, :n], possible[n:, :n] = prior, most
    evidence[:n, n:], possible[:n, n:] = prior.T, most.T
    label = divide(evidence, np.r_[view, np.full(T, V)], V + 1)
    inside = label[:, None] == label
    total, most = (evidence * inside).sum(axis=1), (possible * inside).sum(axis=1)
    fresh = np.setdiff1d(label[:n], label[n:])
    strength = np.array([(evidence[label == g][:, label == g]).sum() for g in fresh])
    fresh = fresh[np.argsort(-strength, kind="stable")][: int((strength > 0).sum())]
    slots, confidence = np.full((T + len(fresh), V), -1), np.zeros(T + len(fresh))
    for row, g in enumerate([*label[n:], *fresh]):
        members = np.flatnonzero(label[:n] == g)
        slots[row, view[members]] = slot[members]
        if len(members):
            confidence[row] = np.clip(total[members].sum() / max(most[members].sum(), 1e-12), 0.0, 1.0)
    return slots, confidence


def _triangulated(frame: _Frame, slots: Array, noise: float) -> tuple[Array, Array, Array]:
    """Points (G, K, 3) and covariances (G, K, 3, 3) of groups (G, V), and the groups without the views that
    disagree."""
    G, V = slots.shape
    K = frame.xy.shape[2]
    views = np.arange(V)
    here = np.where(slots >= 0, slots, 0)
    xy = np.where((slots >= 0)[:, :, None, None], frame.xy[views, here], np.nan)
    sd = noise * frame.size_px[views, here][:, :, None] / np.maximum(frame.weight[views, here], 1e-3)
    found = triangulate_points(
        xy.swapaxes(0, 1).reshape(V, G * K, 2),
        frame.rig,
        covariance=((sd**2)[..., None, None] * np.eye(2)).swapaxes(0, 1).reshape(V, G * K, 2, 2),
    )
    points, spread = found.points.reshape(G, K, 3), found.covariance.reshape(G, K, 3, 3)
    used = found.seen.T.reshape(G, K, V)
    measured = ~np.isnan(xy[..., 0]).transpose(0, 2, 1)
    judged = measured & (measured.sum(axis=2) > 2)[..., None] & ~np.isnan(points[..., :1])
    agrees = (used & judged).sum(axis=1) >= _AGREES * judged.sum(axis=1)
    return points, spread, np.where(agrees, slots, -1)


def _settled(points: Array, predicted: Array, state: IdentityState, individuals: int | None) -> tuple[Array, Array]:
    """Which of the groups, points (T + new, K, 3), is the measurement of each of T known individuals, followed by the
    new ones; and which of the known were found again where they were not expected.

    An individual without any point takes the nearest new group within `_JUMP` radii of where it was expected or
    last seen, and what it may have moved while it was not seen. A new group where another is, or without points, is
    nobody; so is one beside another when as many individuals as there are have just been seen: where animals crowd,
    views of different ones come together by chance.
    """
    T = len(predicted)
    if len(points) == T:
        return np.arange(T), np.zeros(0, dtype=np.intp)
    rows, fresh, size = np.arange(T), np.arange(T, len(points)), _radius(points)
    empty = np.flatnonzero(np.isnan(points[:T, :, 0]).all(axis=1))
    moved = reach(state.missed[empty] + 1, float(step_rms(state).mean()), 3)
    apart = np.minimum(
        _apart(predicted[empty], points[fresh]), _apart(state.ended[state.live[empty], :, :3], points[fresh])
    )
    apart /= _JUMP * size[fresh] + moved[:, None]
    row, column = linear_sum_assignment(np.minimum(apart, 1.0))
    near = apart[row, column] < 1.0
    row, column = row[near], column[near]
    rows[empty[row]] = fresh[column]
    measured = list(rows)
    known = int(((state.seen[state.live] >= CONFIRM) & (state.missed <= _JUST)).sum())
    radii = _SAME if individuals is None or known < individuals else _BESIDE
    for g in np.delete(fresh, column):
        if size[g] > 0 and not (_apart(points[measured], points[g : g + 1])[:, 0] < radii * size[g]).any():
            measured.append(g)
    return np.array(measured, dtype=np.intp), empty[row]


def _radius(points: Array) -> Array:
    """(G,) rms distance of points (G, K, 3) from their median, 0 where there is none."""
    return np.array(
        [
            np.sqrt(((p - np.median(p, axis=0)) ** 2).sum(axis=1).mean()) if len(p) else 0.0
            for p in (q[~np.isnan(q[:, 0])] for q in points)
        ]
    )


def _apart(a: Array, b: Array) -> Array:
    """(n, m) median distance of the common keypoints of poses (n, K, 3) and (m, K, 3); infinite without any."""
    distance = np.linalg.norm(a[:, None] - b, axis=-1)
    distance = np.sort(np.where(np.isnan(distance), np.inf, distance), axis=-1)
    count = np.isfinite(distance).sum(axis=-1)
    return np.take_along_axis(distance, np.maximum(count - 1, 0)[..., None] // 2, axis=-1)[..., 0]


def _distances(frame: _Frame, slots: Array) -> Array:
    """2D distances inside groups (G, V) relative to the detections' size; see `association.group_distances`."""
    label = np.full((1, *frame.size.shape), -1)
    group, view = np.nonzero(slots >= 0)
    label[0, view, slots[group, view]] = group
    return group_distances(frame.rays[None], frame.weight[None], frame.size[None], frame.centers, label)


def _as_groups(results: list[tuple[Array, Array, Array]], seen: Sightings, rig: CameraRig) -> Groups:
    """Frames' (track numbers, slots, confidence) as Groups with one column a track, views in the rig's order."""
    tracks = np.unique(np.concatenate([numbers for numbers, _, _ in results])) if results else np.zeros(0, dtype=int)
    order = [seen.view_names.index(name) for name in rig.names if name in seen.view_names]
    slots = np.full((len(results), len(tracks), len(order)), -1)
    confidence, ids = np.zeros(slots.shape[:2]), np.full(slots.shape[:2], -1)
    for f, (numbers, members, sure) in enumerate(results):
        column = np.searchsorted(tracks, numbers)
        slots[f, column], confidence[f, column], ids[f, column] = members[:, order], sure, numbers
    return Groups(tuple(seen.view_names[v] for v in order), slots, ids, confidence)


@njit(cache=True, error_model="numpy")
def _track_evidence(mean, covariance, rays, weight, size, centers, noise):  # type: ignore[no-untyped-def]
    """Evidence (T, n) of predicted individuals (T, K, 6) for n detections from centers (n, 3), and what it could have
    been.

    A keypoint's squared distance d from the ray has two coordinates, each with variance v = prediction's + m, m = the
    detection's. Twice the log likelihood ratio is GATE^2 - d / v - 2 log(v / m), where a prediction as sure as a
    detection is good counts in full; scaled as `association.pair_evidence`, times `_MEMORY`.
    """
    T, n, keypoints = len(mean), len(rays), rays.shape[1]
    evidence, possible = np.zeros((T, n)), np.zeros((T, n))
    for t in range(T):
        for i in range(n):
            for k in range(keypoints):
                w = _MEMORY * weight[i, k]
                if w <= 0.0 or np.isnan(mean[t, k, 0]):
                    continue
                along, squared, trace, across = 0.0, 0.0, 0.0, 0.0
                for a in range(3):
                    apart = mean[t, k, a] - centers[i, a]
                    along += apart * rays[i, k, a]
                    squared += apart * apart
                    trace += covariance[t, k, a, a]
                    for b in range(3):
                        across += rays[i, k, a] * covariance[t, k, a, b] * rays[i, k, b]
                possible[t, i] += w
                if along <= 0.0:
                    evidence[t, i] -= w * AGAINST
                    continue
                own = (along * noise * size[i]) ** 2
                variance = own + (trace - across) / 2.0
                against = (max(squared - along * along, 0.0) / variance + 2.0 * np.log(variance / own)) / GATE**2
                evidence[t, i] += w * (1.0 - min(against, 1.0 + AGAINST))
    return evidence, possible
