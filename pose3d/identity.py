"""Who is who in all views and over time? Association, triangulation and tracking working together, online and offline.

Identity lives in 3D: every frame is divided into individuals by its own views and by where those known so far must be
(`identity_step`). Groups without a known individual found a new one; individuals that nothing supports wait, and are
forgotten when they could be anywhere. At the end the pieces are put together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from calibration.rig import CameraRig
from pose3d.association import Sightings, radius, sightings
from pose3d.identity_step import FrameSightings, Seen, step
from pose3d.individuals import (
    CONFIRM,
    IdentityState,
    initial_state,
    radius_3d,
    state_from_arrays,
    state_to_arrays,
    step_rms,
)
from pose3d.poses import Groups, Poses
from pose3d.tracking import Tracklets, stitch

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
_TAKEOVER = 25
"""Frames in which two tracks of one individual may be seen at once, where there are too many."""


@dataclass(frozen=True)
class IdentityOptions:
    """individuals: how many there are; None = not known, as many as the recording shows at once are taken to be there
    until it shows more. max_gap: frames for which an unseen one is remembered at most. min_frames: an individual seen
    in fewer is taken for an error, in a recording of at least ten times as many."""

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
    views in the rig's order; -1 where not seen; confidence is the evidence per keypoint, 0..1; doubt and rival say
    where two may have been exchanged (`identity_doubt`). It is the loop of `identify_window` over windows, `final_ids`
    and `named`, and does not depend on the windows. Raises InputError for views that do not fit together or the rig, or
    that hold no keypoint at all.
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
    return Groups.joined([named(part, ids) for part in parts])


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
        frame = FrameSightings(
            seen.xy[f], seen.rays[f], seen.weight[f], seen.size[f], size_px[f], seen.centers, sorted_rig
        )
        found, state = step(frame, state, options.individuals, options.max_gap)
        results.append(found)
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
    confidence, doubt, rival = np.zeros(slots.shape[:2]), np.zeros(slots.shape[:2]), np.full(slots.shape[:2], -1)
    frame, column = np.nonzero(groups.ids >= 0)
    who = ids[groups.ids[frame, column]]
    frame, column, who = frame[who >= 0], column[who >= 0], who[who >= 0]
    other = np.r_[ids, -1][groups.rival[frame, column]]
    other[other == who] = -1
    slots[frame, who] = groups.slots[frame, column]
    confidence[frame, who] = groups.confidence[frame, column]
    doubt[frame, who] = np.where(other >= 0, groups.doubt[frame, column], 0.0)
    rival[frame, who] = other
    seen = (slots >= 0).any(axis=2)
    return Groups(groups.view_names, slots, np.where(seen, np.arange(n), -1), confidence, doubt, rival)


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


def _as_groups(results: list[Seen], seen: Sightings, rig: CameraRig) -> Groups:
    """Frames as Groups with one column a track, views in the rig's order."""
    tracks = np.unique(np.concatenate([found.tracks for found in results])) if results else np.zeros(0, dtype=int)
    order = [seen.view_names.index(name) for name in rig.names if name in seen.view_names]
    shape = (len(results), len(tracks))
    slots, ids, rival = np.full((*shape, len(order)), -1), np.full(shape, -1), np.full(shape, -1)
    confidence, doubt = np.zeros(shape), np.zeros(shape)
    for f, found in enumerate(results):
        column = np.searchsorted(tracks, found.tracks)
        slots[f, column], ids[f, column] = found.slots[:, order], found.tracks
        confidence[f, column], doubt[f, column], rival[f, column] = found.confidence, found.doubt, found.rival
    return Groups(tuple(seen.view_names[v] for v in order), slots, ids, confidence, doubt, rival)
