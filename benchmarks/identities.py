"""Identities over views and time in simulated scenes: python benchmarks/identities.py [--help]

Each scene of pose3d.scenes, several seeds, 3D identities against the truth (similarity max(0, 1 - mean distance / d0),
d0 the animals' size), of the same detections:
(a) frame by frame: `associate`, `triangulate`, then `track` in 3D;
(b) 2D first: `track` in each view, the groups of `associate` say which of these tracks belong together, by votes;
(c) ours: `identify`; (known) with the number of animals given.
Times are seconds of a run after compilation, on whatever else the machine does. The last line is all as JSON.
"""

import argparse
import json
import time
from collections import Counter

import numpy as np

from pose3d import associate, identify, track, triangulate
from pose3d.evaluation import evaluate_tracks
from pose3d.identity import IdentityOptions
from pose3d.poses import Groups
from pose3d.scenes import SCENES, simulate_scene

TOLD = ("IDF1", "HOTA", "switches", "s")


def frame_by_frame(views, rig):
    """(a) 3D poses with ids."""
    return track(triangulate(views, associate(views, rig), rig))


def tracks_first(views, rig):
    """(b) 3D poses of 2D tracks that were grouped together most often, never two at once in a view."""
    tracks = {name: track(poses) for name, poses in views.items()}
    groups = associate(views, rig)
    votes, frames = Counter(), {}
    for v, name in enumerate(groups.view_names):
        for number in np.unique(tracks[name].ids[tracks[name].ids >= 0]).tolist():
            frames[v, number] = (tracks[name].ids == number).any(axis=1)
    for f, slots in enumerate(groups.slots):
        for group in slots:
            members = [
                (v, int(tracks[name].ids[f, group[v]])) for v, name in enumerate(groups.view_names) if group[v] >= 0
            ]
            members = [member for member in members if member[1] >= 0]
            votes.update((a, b) for i, a in enumerate(members) for b in members[i + 1 :])
    home = {member: [member] for member in frames}
    for (a, b), _ in votes.most_common():
        if home[a] is home[b]:
            continue
        both = [*home[a], *home[b]]
        if all(not (frames[p] & frames[q]).any() for i, p in enumerate(both) for q in both[i + 1 :] if p[0] == q[0]):
            for member in both:
                home[member] = both
    several = list({id(own): own for own in home.values() if len({v for v, _ in own}) > 1}.values())
    slots = np.full((len(groups.slots), len(several), len(groups.view_names)), -1, np.int32)
    for g, own in enumerate(several):
        for v, number in own:
            frame, slot = np.nonzero(tracks[groups.view_names[v]].ids == number)
            slots[frame, g, v] = slot
    ids = np.broadcast_to(np.arange(len(several), dtype=np.int32), slots.shape[:2])
    ids = np.where((slots >= 0).any(axis=2), ids, -1)
    return triangulate(views, Groups(groups.view_names, slots, ids), rig)


def ours(views, rig, individuals=None):
    """(c) 3D poses with ids."""
    return triangulate(views, identify(views, rig, IdentityOptions(individuals=individuals)), rig)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", nargs="*", default=list(SCENES))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    figures = []
    for name in arguments.scenes:
        rows = []
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            scene = simulate_scene(name, seed)
            ways = {"a": frame_by_frame, "b": tracks_first, "c": ours,
                    "known": lambda views, rig, n=scene.truth.shape[1]: ours(views, rig, n)}  # fmt: skip
            row = {"scene": name, "seed": seed}
            for way, function in ways.items():
                start = time.perf_counter()
                errors = evaluate_tracks(scene.truth, function(scene.seen.views, scene.rig))
                row[way] = {"IDF1": errors.idf1, "HOTA": errors.hota, "MOTA": errors.mota, "switches": errors.switches,
                            "s": time.perf_counter() - start}  # fmt: skip
            rows.append(row)
            print(
                f"  {name} {seed}: "
                + ", ".join(f"{way} {row[way]['IDF1']:.3f} ({row[way]['switches']})" for way in ways),
                flush=True,
            )
        means = {way: {what: float(np.mean([row[way][what] for row in rows])) for what in rows[0][way]} for way in ways}
        told = ("{} IDF1 {:.3f}, HOTA {:.3f}, switches {:.1f}, {:.1f} s".format(way, *(m[what] for what in TOLD))
                for way, m in means.items())  # fmt: skip
        print(f"{name}: " + "; ".join(told), flush=True)
        figures += rows
    print(json.dumps(figures))


main()
