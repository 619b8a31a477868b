"""One frame on: which detections show which known individual, who is new, who is gone?

The known individuals, predicted to this moment, stand beside the detections as if they were those of one more view: a
prediction speaks for a detection keypoint by keypoint as another detection does, the more weakly the less sure it is.
One division into groups then settles views and time together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from calibration.geometry import triangulate_points
from calibration.rig import CameraRig
from pose3d.association import AGAINST, GATE, baselines_between, divide, group_distances, pair_evidence
from pose3d.identity_doubt import exchange_probability
from pose3d.individuals import (
    CONFIRM,
    IdentityState,
    born,
    buried,
    corrected,
    counted,
    learned,
    motion,
    noise,
    step_rms,
    together,
)
from pose3d.kalman import predict
from pose3d.tracking import reach

__all__ = ["FrameSightings", "Seen", "step"]

Array = NDArray[Any]

_MEMORY = 2.0
"""What a prediction counts, in detections: it fixes two coordinates of a keypoint where another detection fixes one."""
_SAME = 0.5
"""Two individuals most of whose common keypoints are closer than this many radii are one."""
_BESIDE, _JUST = 2.0, 5
"""The same where as many individuals as there are were seen in the last so many frames."""
_SURE = 0.5
"""Evidence of a group, in what it could have been, from which it is an individual for sure."""
_JUMP = 1.0
"""Radii that an individual may be from where it was expected, when nobody else is nearer."""
_AGREES = 0.34
"""Share of the keypoints, of those that three views saw, in which a view must agree to stay in its group."""


@dataclass(frozen=True, eq=False)
class FrameSightings:
    """One frame of all V views with N slots: xy (V, N, K, 2), rays (V, N, K, 3), weight (V, N, K), size (V, N) rad,
    size_px (V, N); centers (V, 3); rig with the views in this order."""

    xy: Array
    rays: Array
    weight: Array
    size: Array
    size_px: Array
    centers: Array
    rig: CameraRig


@dataclass(frozen=True, eq=False)
class Seen:
    """Who is seen in a frame: track numbers (G,), slots (G, V), confidence (G,); doubt (G,), how probable it is that it
    is another track, and rival (G,), the number of that one, -1 = none."""

    tracks: Array
    slots: Array
    confidence: Array
    doubt: Array
    rival: Array


def step(
    frame: FrameSightings, state: IdentityState, individuals: int | None, max_gap: int
) -> tuple[Seen, IdentityState]:
    """One frame: who is seen in it, and the state after it."""
    noise_now = noise(state)
    mean, covariance = predict(state.mean, state.covariance, motion(state))
    slots, confidence, sure = _grouped(frame, mean, covariance, noise_now)
    state = counted(state, sure)
    individuals = together(state) or None if individuals is None else individuals
    points, spread, slots = _triangulated(frame, slots, noise_now)
    rows, found = _settled(points, mean[:, :, :3], state, individuals)
    slots, confidence, points, spread = slots[rows], confidence[rows], points[rows], spread[rows]
    T, known = len(mean), state.seen[state.live] >= CONFIRM
    doubt, rival = np.zeros(len(rows)), np.full(len(rows), -1)
    doubt[:T], other = exchange_probability(mean, covariance, points[:T], spread[:T], known)
    rival[:T][other >= 0] = state.live[other[other >= 0]]
    mean[found], covariance[found] = np.nan, np.nan
    state = learned(replace(state, mean=mean, covariance=covariance), points, _distances(frame, slots))
    state = corrected(born(state, points[len(mean) :]), points, spread)
    here = (slots >= 0).any(axis=1)
    seen = Seen(state.live[here], slots[here], confidence[here], doubt[here], rival[here])
    return seen, buried(state, max_gap, individuals)


def _grouped(frame: FrameSightings, mean: Array, covariance: Array, noise: float) -> tuple[Array, Array, int]:
    """Slots (T + new, V) of the T known individuals and of new ones, seen in two views at least; confidence (T + new,);
    and how many individuals the frame alone shows for sure."""
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
    sure = _sure(evidence[:n, :n], possible[:n, :n], view, V)
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
    return slots, confidence, sure


def _sure(evidence: Array, possible: Array, view: Array, views: int) -> int:
    """How many individuals n detections show for sure: view (n,) int; evidence for pairs (n, n), and what it could have
    been. Where the known ones are predicted has no say, or an error would count itself."""
    label = divide(np.ascontiguousarray(evidence), view, views)
    inside = label[:, None] == label
    total, most = (np.bincount(label, (of * inside).sum(axis=1), len(label)) for of in (evidence, possible))
    return int((total > _SURE * most).sum())


def _triangulated(frame: FrameSightings, slots: Array, noise: float) -> tuple[Array, Array, Array]:
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


def _distances(frame: FrameSightings, slots: Array) -> Array:
    """2D distances inside groups (G, V) relative to the detections' size; see `association.group_distances`."""
    label = np.full((1, *frame.size.shape), -1)
    group, view = np.nonzero(slots >= 0)
    label[0, view, slots[group, view]] = group
    return group_distances(frame.rays[None], frame.weight[None], frame.size[None], frame.centers, label)


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
