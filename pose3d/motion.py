"""How does an individual move? Pixel noise, acceleration and bone lengths, learnt from its own recording.

The model behind `refine`: a keypoint's pixels scatter about its projection, its second difference over frames is white
noise, the length of a bone is constant up to a spread. None of these is given; the recording tells them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from calibration.geometry import estimate_noise
from calibration.rig import CameraRig, Packed
from calibration.solver import BandedSystem, banded, banded_covariance
from pose3d.poses import Groups, Poses
from pose3d.skeleton import Skeleton
from pose3d.trajectory import GATE, Terms, Track, data_equations, filled, gather, with_prior, without_strays

__all__ = ["Motion", "estimate_motion"]

Floats = NDArray[np.float64]

GRID, GRID_STEP = 8, 3.0
"""Accelerations tried: so many, each this factor from the next, down from the typical second difference of the raw
points."""
LEAST_NOISE_PX = 0.01
FEW = 10
"""Frames; a keypoint triangulated in fewer cannot tell how it accelerates."""
STIFFEST = 0.2
"""No bone is taken to be more constant than this share of the spread that smoothing leaves in its length."""


@dataclass(frozen=True, eq=False)
class Motion:
    """What was learnt of individuals (I), in the order of ids, keypoints (K) and bones (B) of the skeleton.

    noise (I, K): standard deviation in px of an observation of score 1 (a factor on the 2D covariances' own where
    there are any). acceleration (I, K): root mean square of each coordinate's second difference, rig's unit per frame
    squared.
    bone_length, bone_spread (I, B) in the rig's unit. NaN where there was nothing to learn from.
    """

    ids: NDArray[np.int32]
    noise: Floats
    acceleration: Floats
    bone_length: Floats
    bone_spread: Floats


def estimate_motion(poses: Poses, views: Mapping[str, Poses], groups: Groups, rig: CameraRig, max_gap: int) -> Motion:
    """Learn the motion model of every identity from a recording or a part of it.

    poses, views, groups, rig: as in `refine`; frames need not be contiguous, a step over more than max_gap frames is a
    break.
    Noise: by how well views agree (`geometry.estimate_noise`), all individuals together, raised where points scatter
    more than that from frame to frame. Acceleration: see `_smooth_alone`. Raises InputError when no individual has an
    id.
    """
    identities = np.unique(poses.ids[poses.ids >= 0])
    if not len(identities):
        raise InputError("refine: expected individuals with ids, got none; run identify or track first")
    tracks = [gather(poses, views, groups, rig, int(i), max_gap) for i in identities]
    noise = _view_noise(tracks, rig, any("covariance" in view.extras for view in views.values()))
    tracks = [without_strays(track.with_noise(noise), rig.packed(), max_gap).with_noise(1 / noise) for track in tracks]
    shape, n_bones = (len(identities), poses.shape[2]), len(poses.skeleton.bones)
    motion = Motion(
        identities.astype(np.int32), np.full(shape, np.nan), np.full(shape, np.nan),
        np.full((shape[0], n_bones), np.nan), np.full((shape[0], n_bones), np.nan),
    )  # fmt: skip
    for i, track in enumerate(tracks):
        paths = _smooth_alone(track, noise, rig.packed())
        motion.noise[i], motion.acceleration[i] = paths.noise, paths.acceleration
        quiet = track.with_noise(np.nan_to_num(motion.noise[i], nan=1.0))
        motion.bone_length[i], motion.bone_spread[i] = _bones(quiet, rig.packed(), paths, poses.skeleton)
    return motion


def _view_noise(tracks: Sequence[Track], rig: CameraRig, given: bool) -> Floats:
    """(K,) px, of an observation of score 1; where covariances are given, the factor on them, never below 1.

    By the median squared residual of each keypoint's pixels from the triangulated points, per degree of freedom:
    against that of Gaussian noise (chi-square with 2 degrees of freedom: 2 log 2) where covariances are given, else
    against that of all keypoints, whose noise `estimate_noise` tells.
    """
    everything = np.arange(tracks[0].xy.shape[2])
    squared = np.concatenate([data_equations(t, rig.packed(), t.points, everything)[3] for t in tracks], axis=1)
    n_views = np.isfinite(squared).sum(axis=0)
    squared = np.where(n_views >= 2, squared / (1 - 1.5 / np.maximum(n_views, 2)), np.nan)
    typical = np.array([_middle(squared[:, :, k]) for k in everything])
    if given:
        return np.maximum(np.sqrt(typical / (2 * np.log(2))), 1.0)
    xy = np.concatenate([track.xy for track in tracks], axis=1).reshape(len(rig), -1, 2)
    score = np.sqrt(np.concatenate([track.information[..., 0] for track in tracks], axis=1)).reshape(len(rig), -1)
    share = np.where(typical > 0, typical / (_middle(squared) or 1.0), 1.0)
    return np.maximum(estimate_noise(xy, rig, score=score) * np.sqrt(share), LEAST_NOISE_PX)


def _middle(values: Floats) -> float:
    """Median of what is finite; 0 where nothing is."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else 0.0


@dataclass(frozen=True, eq=False)
class _Paths:
    """Every keypoint smoothed by itself: points (T, K, 3), covariance (T, K, 3, 3), noise (K,) px, acceleration (K,),
    white (K,): share of the noise's variance that is new in every frame."""

    points: Floats
    covariance: Floats
    noise: Floats
    acceleration: Floats
    white: Floats


def _smooth_alone(track: Track, view_noise: Floats, rig: Packed) -> _Paths:
    """Every keypoint smoothed by itself, with the acceleration that the recording asks for.

    The acceleration, relative to the noise, is the one of least generalised cross-validation (Craven & Wahba 1979):
    unlike the likelihood it does not ask that accelerations be white, which those of animals are not. Found on a grid,
    then by a parabola. Where points scatter about the smooth path by more than their views' noise tells, the noise is
    raised, and the acceleration with it. A keypoint seen in few frames takes the acceleration that is typical of the
    others. NaN for keypoints never triangulated.
    """
    points = filled(track)
    track = track.with_noise(view_noise)
    seen = np.isfinite(track.points[..., 0]).sum(axis=0)
    known, few = seen > 0, seen < FEW
    step = np.log(GRID_STEP)
    centre = np.log(_typical(track, _pixels(track, rig, points).inverse)) - step * (GRID - 1) / 2
    for width in (GRID, 3, 3):
        pixels = _pixels(track, rig, points)
        grid = centre + step * (np.arange(width)[:, None] - (width - 1) / 2)
        tried = (_smoothed(track, pixels, np.exp(a)) for a in grid)
        centre = _lowest(grid, np.array([squares / left**2 for _, _, squares, left in tried]), step)
        centre = np.where(few & ~few.all(), np.median(centre[~few]) if (~few).any() else 0.0, centre)
        points, covariance, squares, freedom = _smoothed(track, pixels, np.exp(centre))
    scatter2 = squares / freedom
    louder = np.where(known, np.sqrt(np.maximum(scatter2, 1.0)), np.nan)
    covariance = covariance * np.nan_to_num(louder, nan=1.0)[:, None, None] ** 2
    white = np.minimum(scatter2 * (1 + 2 * np.sqrt(2 / freedom)), 1.0)  # by two standard errors
    return _Paths(points, covariance, view_noise * louder, np.exp(centre) * louder, white)


@dataclass(frozen=True, eq=False)
class _Pixels:
    """What the pixels say near points (T, K, 3): H, inverse (T, K, 3, 3), g (T, K, 3); inverse is 0 where fewer than
    two views do."""

    points: Floats
    H: Floats
    g: Floats
    inverse: Floats


def _pixels(track: Track, rig: Packed, points: Floats) -> _Pixels:
    """Pixels beyond the gate are left out, all others count in full: weights would make the noise look smaller."""
    everything = np.arange(points.shape[1])
    kept = data_equations(track, rig, points, everything)[3] < GATE**2
    gated = replace(track, xy=np.where(kept[..., None], track.xy, np.nan))
    _, H, g, _ = data_equations(gated, rig, points, everything, "linear")
    used = track.alive & (kept.sum(axis=0) >= 2) & (np.linalg.det(H) > 0)
    inverse = np.zeros_like(H)
    inverse[used] = np.linalg.inv(H[used])
    return _Pixels(points, H, g, inverse)


def _smoothed(track: Track, pixels: _Pixels, acceleration: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """One linear step of all keypoints, each by itself: points, covariance, squares and degrees of freedom (K,) of the
    data.

    Squares: from the smoothed to the triangulated point, in its covariance. They have as many degrees of freedom as
    coordinates were triangulated, less what the path takes: the trace of covariance times information.
    """
    frames, keypoints = pixels.points.shape[:2]
    systems = []
    for k in range(keypoints):
        terms = Terms(np.array([k]), acceleration[[k]], np.zeros((0, 2), dtype=np.int64), np.zeros(0), np.zeros(0))
        systems.append(with_prior(track, pixels.points[:, [k]], pixels.H[:, [k]], pixels.g[:, [k]], terms)[1])
    bands = np.concatenate([system.bands for system in systems], axis=1)
    system = BandedSystem(bands, np.concatenate([system.gradient for system in systems]))
    moves = banded(system, 0.0)[0].reshape(keypoints, frames, 3).swapaxes(0, 1)
    covariance = banded_covariance(system, 3).reshape(keypoints, frames, 3, 3).swapaxes(0, 1)
    away = pixels.g + (pixels.H @ moves[..., None])[..., 0]
    squares = np.sum(away * (pixels.inverse @ away[..., None])[..., 0], axis=(0, 2))
    taken = np.sum(np.where(track.alive[..., None, None], covariance * pixels.H, 0.0), axis=(0, 2, 3))
    left = np.maximum(3 * (pixels.inverse[..., 0, 0] > 0).sum(axis=0) - taken, 1e-3)
    return pixels.points + moves, covariance, squares, left


def _typical(track: Track, noise: Floats) -> Floats:
    """(K,) the median second difference of triangulated points, whatever their spacing; of fewer than three, or of
    points that never move, the noise of one: noise (T, K, 3, 3)."""
    out = np.ones(noise.shape[1])
    for k in range(len(out)):
        points = track.points[np.isfinite(track.points[:, k, 0]), k]
        size = float(np.median(np.abs(np.diff(points, 2, axis=0)))) if len(points) > 2 else 0.0
        variance = noise[noise[:, k, 0, 0] > 0, k]
        if size > 0:
            out[k] = size
        elif len(variance):
            out[k] = np.sqrt(np.median(np.trace(variance, axis1=1, axis2=2)) / 3)
    return out


def _lowest(grid: Floats, score: Floats, step: float) -> Floats:
    """(K,) where the scores (n, K) over an even grid (n, K) are least, by a parabola through the least and its
    neighbours."""
    columns = np.arange(grid.shape[1])
    best = score.argmin(axis=0)
    inner = best.clip(1, len(grid) - 2)
    low, mid, high = (score[inner + i, columns] for i in (-1, 0, 1))
    curvature = low - 2 * mid + high
    shift = np.where(
        (best == inner) & (curvature > 0), 0.5 * (low - high) / np.where(curvature > 0, curvature, 1.0), best - inner
    )
    return grid[inner, columns] + step * shift


def _bones(track: Track, rig: Packed, paths: _Paths, skeleton: Skeleton) -> tuple[Floats, Floats]:
    """Length and spread (B,) of every bone; those that mirror each other share both.

    Length: root of the mean squared distance of the ends as the pixels near the smooth paths have them, without strays,
    less what noise adds to it. Spread: what the smoothed distances vary by beyond their own covariance; and, since
    noise that stays the same for long makes the length itself wrong, that share of the distance's variance in one
    frame. NaN where two views never saw both ends.
    """
    pixels = _pixels(track, rig, paths.points)
    noise, good = pixels.inverse, pixels.inverse[..., 0, 0] > 0
    points = paths.points - (noise @ pixels.g[..., None])[..., 0]
    bones = np.array(skeleton.bones, dtype=int).reshape(-1, 2)
    kinds = _kinds(skeleton)
    length, spread = np.full(len(bones), np.nan), np.full(len(bones), np.nan)
    for kind in np.unique(kinds):
        found = [_distances(points, noise, good, paths, a, b) for a, b in bones[kinds == kind]]
        square, distance, variance, lasting = (np.concatenate(part) for part in zip(*found, strict=True))
        if not len(square):
            continue
        usual = np.abs(square - np.median(square)) <= 3 * _deviation(square)
        length[kinds == kind] = np.sqrt(max(float(np.mean(square[usual])), 0.0))
        seen, own = _deviation(distance) ** 2, float(np.median(variance))
        flexible = max(seen - own, STIFFEST**2 * max(seen, own))
        spread[kinds == kind] = np.sqrt(flexible + np.median(lasting))
    return length, spread


def _distances(
    points: Floats, noise: Floats, good: NDArray[np.bool_], paths: _Paths, a: int, b: int
) -> tuple[Floats, Floats, Floats, Floats]:
    """Where both ends of a bone are good (n,): squared distance of the points less their noise, distance of the paths,
    its variance, and the part of one frame's variance that lasts."""
    both = good[:, a] & good[:, b]
    white_a, white_b = paths.white[a], paths.white[b]
    added = np.trace(white_a * noise[both, a] + white_b * noise[both, b], axis1=1, axis2=2)
    square = np.sum((points[both, a] - points[both, b]) ** 2, axis=1) - added
    apart = paths.points[both, a] - paths.points[both, b]
    distance = np.linalg.norm(apart, axis=1)
    along = apart / np.where(distance > 0, distance, 1.0)[:, None]
    variance = np.einsum("ti,tij,tj->t", along, paths.covariance[both, a] + paths.covariance[both, b], along)
    lasting = (1 - white_a) * noise[both, a] + (1 - white_b) * noise[both, b]
    return square, distance, variance, np.einsum("ti,tij,tj->t", along, lasting, along)


def _deviation(values: Floats) -> float:
    """Standard deviation, by the median absolute deviation."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _kinds(skeleton: Skeleton) -> NDArray[np.intp]:
    """(B,) the first bone that is the same or the mirror image of each."""
    flip = skeleton.flip_order()
    names = [min(tuple(sorted(bone)), tuple(sorted(int(flip[i]) for i in bone))) for bone in skeleton.bones]
    return np.array([names.index(name) for name in names], dtype=int)
