"""Which labels look wrong? Sides exchanged, keypoints where others like them have none, on one spot, or never given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pose3d.labels import Labels
from pose3d.skeleton import symmetry_by_name

__all__ = ["Suspect", "place_of", "suspect_labels"]

Complex = NDArray[np.complex128]
Float = NDArray[np.float64]

LEAST_POSES, LEAST_KEYPOINTS = 10, 3
"""Labelled animals from which others are judged, and keypoints that fix where one stands, how large, and turned."""
MOST_REFERENCES = 500
"""Labelled animals that each one is compared with, spread over all."""
NEIGHBOURS = 3
"""Animals in the most similar poses that a pose is compared with: fewer than ever show one posture in a hundred."""
EXCHANGED = 2.0
"""How much nearer a pose must be to others with its sides exchanged. Proofread recordings have at most 1.7."""
OUTLYING = 4.0
"""Times the usual distance from where similar poses have a keypoint. Proofread recordings have 0.1 % beyond."""
LEAST_SPREAD = 0.01
"""Of an animal's size: no keypoint is labelled better."""
TOUCHING_PX = 1e-3


@dataclass(frozen=True)
class Suspect:
    """Labels that somebody should look at again.

    kind: "exchanged", "outlier", "same_spot", "twice", "never_labelled"; "contradicted" by other cameras
    (`view_check`). keypoints: names. row, slot: of the labels,
    -1 where it is about a whole camera. where: camera, video and frame, for people. score: how many times as far from
    what is usual; those worst come first. message: what is wrong, for people.
    """

    kind: str
    keypoints: tuple[str, ...]
    message: str
    where: str
    row: int = -1
    slot: int = -1
    score: float = float("nan")

    def __str__(self) -> str:
        return " ".join(filter(None, (f"{self.where}:", ", ".join(self.keypoints), self.message)))


def suspect_labels(labels: Labels) -> tuple[Suspect, ...]:
    """Labels that look wrong, by kind, the worst first; the same for the same labels.

    Every labelled animal of LEAST_KEYPOINTS or more is compared with the most similar others, each brought onto it by
    the similarity (no mirror image) of least squares. Sides are exchanged where the pose comes nearer to others with
    left and right exchanged, for one pair of which both are labelled, or for all. A keypoint is an outlier where all
    similar poses, aligned without it, have it elsewhere, by more than they differ: it is wrong, or the posture is rare.
    A mistake that most labels share is ordinary here and is not found.
    """
    row, slot = np.nonzero(np.isfinite(labels.points[..., 0]).sum(axis=-1) >= LEAST_KEYPOINTS)
    poses = labels.points[row, slot] @ np.array([1.0, 1.0j])
    found = [*_never_labelled(labels), *_touching(labels), *_twice(labels)]
    if len(poses) >= LEAST_POSES:
        exchanged = list(_exchanged(labels, row, slot, poses))
        told = {(suspect.row, suspect.slot) for suspect in exchanged}
        outliers = _outliers(labels, row, slot, poses)
        found = [*exchanged, *(one for one in outliers if (one.row, one.slot) not in told), *found]
    kinds = list(dict.fromkeys(one.kind for one in found))
    return tuple(sorted(found, key=lambda one: (kinds.index(one.kind), -one.score if one.score > 0 else 0.0)))


def place_of(labels: Labels, row: int) -> str:
    """Camera, video and frame of a row, for people."""
    camera, video = labels.camera[row], labels.video[row]
    return f"{f'{camera}, ' if camera else ''}{f'{video}, ' if video else ''}frame {labels.frame[row]}"


def _aligned(pose: Complex, others: Complex, without: int = -1) -> tuple[Complex, Float]:
    """Others (n, keypoints) brought onto a pose (keypoints) by their common keypoints, `without` aside, and how far off
    these are then: rms over the pose's size, each axis of each keypoint beyond the four that are fitted counting.
    inf where they have too few in common.
    """
    both = np.isfinite(pose) & np.isfinite(others)
    if without >= 0:
        both[:, without] = False
    count = both.sum(axis=1)
    here, there = (np.where(both, z, 0.0) for z in (np.broadcast_to(pose, others.shape), others))
    middle, their_middle = (z.sum(axis=1, keepdims=True) / np.maximum(count, 1)[:, None] for z in (here, there))
    here, there = np.where(both, here - middle, 0.0), np.where(both, there - their_middle, 0.0)
    power = (np.abs(there) ** 2).sum(axis=1)
    turn = (np.conj(there) * here).sum(axis=1) / np.maximum(power, 1e-300)
    left = (np.abs(here - turn[:, None] * there) ** 2).sum(axis=1)
    off = np.sqrt(left / np.maximum(2 * count - 4, 1)) / np.maximum(_size(pose), 1e-300)
    usable = (count >= LEAST_KEYPOINTS) & (power > 0)
    return middle + turn[:, None] * (others - their_middle), np.where(usable, off, np.inf)


def _size(pose: Complex) -> float:
    """px, rms distance of the keypoints from their middle."""
    known = pose[np.isfinite(pose)]
    return float(np.sqrt((np.abs(known - known.mean()) ** 2).mean()))


def _references(n: int) -> NDArray[np.intp]:
    return np.linspace(0, n - 1, min(n, MOST_REFERENCES)).round().astype(np.intp)


def _exchanged(labels: Labels, row: NDArray[np.intp], slot: NDArray[np.intp], poses: Complex) -> Iterator[Suspect]:
    names = labels.skeleton.keypoints
    pairs = labels.skeleton.symmetry or symmetry_by_name(names)
    chosen = _references(len(poses))

    def far(i: int, exchanged: list[tuple[int, int]]) -> float:
        order = np.arange(len(names))
        for a, b in exchanged:
            order[a], order[b] = b, a
        return float(np.sort(_aligned(poses[i][order], poses[chosen[chosen != i]])[1])[NEIGHBOURS - 1])

    for i in range(len(poses)):
        known = np.isfinite(poses[i])
        both = [pair for pair in pairs if known[list(pair)].all()]  # else the other way round has other keypoints
        asked = [[pair] for pair in both] + ([both] if len(both) > 1 else [])
        distances = [far(i, way) for way in asked]
        best = int(np.argmin(distances)) if asked else -1
        score = far(i, []) / max(distances[best], LEAST_SPREAD / 10) if asked else 0.0
        if np.isfinite(score) and score > EXCHANGED:
            who = tuple(names[k] for pair in asked[best] for k in pair)
            yield Suspect(
                "exchanged", who,
                f"look exchanged (the other way round, the pose is {score:.1f} times as near to similar ones)",
                place_of(labels, int(row[i])), int(row[i]), int(slot[i]), score,
            )  # fmt: skip


def _outliers(labels: Labels, row: NDArray[np.intp], slot: NDArray[np.intp], poses: Complex) -> Iterator[Suspect]:
    chosen = _references(len(poses))
    away, spread = np.full(poses.shape, np.nan), np.full(poses.shape, np.nan)
    for i, pose in enumerate(poses):
        others = poses[chosen[chosen != i]]
        for k in np.flatnonzero(np.isfinite(pose)):
            moved, off = _aligned(pose, others, without=int(k))
            off = np.where(np.isfinite(moved[:, k]), off, np.inf)
            near = np.argsort(off, kind="stable")[: NEIGHBOURS + 2]
            if np.isfinite(off[near]).all():
                there = moved[near, k]
                middle = np.median(there.real) + 1j * np.median(there.imag)
                away[i, k] = np.abs(there - pose[k]).min() / _size(pose)
                spread[i, k] = np.median(np.abs(there - middle)) / _size(pose) + np.median(off[near])
    usual = np.array([np.median(own[np.isfinite(own)]) if np.isfinite(own).any() else np.nan for own in away.T])
    score = away / (np.maximum(usual, LEAST_SPREAD) + spread)
    for i, k in np.argwhere(score > OUTLYING):
        yield Suspect(
            "outlier", (labels.skeleton.keypoints[k],),
            f"is {away[i, k] * _size(poses[i]):.0f} px from where similar poses have it, {score[i, k]:.0f} times as "
            "far as usual", place_of(labels, int(row[i])), int(row[i]), int(slot[i]), float(score[i, k]),
        )  # fmt: skip


def _touching(labels: Labels) -> Iterator[Suspect]:
    """Two keypoints of one animal on the same spot."""
    names = labels.skeleton.keypoints
    for a in range(len(names)):
        apart = np.linalg.norm(labels.points[:, :, a + 1 :] - labels.points[:, :, a : a + 1], axis=-1)
        for row, slot, b in np.argwhere(apart < TOUCHING_PX):
            pair = (names[a], names[a + 1 + b])
            yield Suspect(
                "same_spot", pair, "are on the very same spot", place_of(labels, int(row)), int(row), int(slot)
            )


def _twice(labels: Labels) -> Iterator[Suspect]:
    """Two animals of one picture with the same keypoints in the same places."""
    points = labels.points
    for a in range(points.shape[1]):
        for b in range(a + 1, points.shape[1]):
            apart = np.linalg.norm(points[:, a] - points[:, b], axis=-1)
            both = np.isfinite(apart).sum(axis=1)
            near = (np.nan_to_num(apart, nan=np.inf) < TOUCHING_PX).sum(axis=1)
            for row in np.flatnonzero((both >= LEAST_KEYPOINTS) & (near == both)):
                who = tuple(np.array(labels.skeleton.keypoints)[np.isfinite(apart[row])].tolist())
                yield Suspect("twice", who, "are those of another animal, too", place_of(labels, int(row)), int(row), b)


def _never_labelled(labels: Labels) -> Iterator[Suspect]:
    """Keypoints that no frame has, or none of a camera."""
    given = np.asarray(np.isfinite(labels.points[..., 0]).any(axis=1))
    names = np.array(labels.skeleton.keypoints)
    for name in names[~given.any(axis=0)]:
        yield Suspect("never_labelled", (str(name),), "is never labelled: it cannot be learnt", "all frames")
    cameras = dict.fromkeys(labels.camera)
    for camera in cameras if len(cameras) > 1 else ():
        own = given[np.array([name == camera for name in labels.camera])].any(axis=0)
        for name in names[~own & given.any(axis=0)]:
            message = "is never labelled there, but in other cameras"
            yield Suspect("never_labelled", (str(name),), message, camera or "no camera")
