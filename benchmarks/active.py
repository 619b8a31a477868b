"""Frames that `pose3d suggest` would have labelled against random ones: python benchmarks/active.py [--help]

DATA (--data, or POSE3D_REAL_DATA) holds sleap_tracks: two flies that stand until about frame 950, then walk. Labels are
bought from every second of the first 40 frames of each hundred; those 50 to 89 of each hundred, every fourth, are for
the test. A network learns from the first 10, drawn at random, predicts the frames that could be bought, and of what
`pose3d suggest` ranks 10 more are bought, and again 20 more; beside it as many at random, of the same first 10.
Each network starts from ImageNet's weights. The last line is all figures as JSON. Figures: benchmarks/README.md.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from network_splits import flies_figures

from pose3d import assemble
from pose3d.active import choose_frames, normal_pose, view_doubts, view_usual
from pose3d.assembly import AssemblyOptions
from pose3d.files import load_labels
from pose3d.nn.options import PredictOptions, TrainOptions
from pose3d.nn.predict import predict_candidates
from pose3d.nn.train import train_network

COUNTS = (10, 20, 40)
APART = 4
"""Frames that suggestions keep from each other: those to be bought lie close together."""


def predicted(labels, network, engine):
    """2D poses of labelled frames, looked at whole."""
    frames = ((int(labels.frame[row]), image) for row, image in labels.images())
    candidates = predict_candidates(frames, network, PredictOptions(region=False, engine=engine))
    return assemble(candidates, None, AssemblyOptions(individuals=2))


def suggested(pool, chosen, network, count, engine):
    """Rows of the pool to label next, as `pose3d suggest` ranks them; near labelled ones if there are no others."""
    poses = predicted(pool, network, engine)
    doubts = view_doubts(poses, view_usual(poses))
    near = np.abs(pool.frame[:, None] - pool.frame[chosen]).min(axis=1)
    for apart in (APART, 1):
        rows = np.flatnonzero(near >= apart)
        pose = normal_pose(poses, doubts.worst)[rows]
        names = ["view"] * len(rows)
        best = choose_frames(doubts.score[rows], pool.frame[rows], names, names, pose, count, apart)
        if len(best) == count:
            break
    return rows[best]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("POSE3D_REAL_DATA"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=600, help="of each training")
    parser.add_argument("--engine", default="onnxruntime")
    arguments = parser.parse_args()
    labels = load_labels(arguments.data / "sleap_tracks/tracks/clip.slp")
    block = labels.frame % 100
    pool = labels.take(np.flatnonzero((block < 40) & (labels.frame % 2 == 0)))
    test = labels.take(np.flatnonzero((block >= 50) & (block < 90) & (labels.frame % 4 == 0)))
    walking = test.frame >= 1000
    order = np.random.default_rng(arguments.seed).permutation(len(pool))
    figures, networks, chosen = {}, {}, {}
    for count in COUNTS:
        for how in ("random", "active"):
            start = time.perf_counter()
            if how == "random" or count == COUNTS[0]:
                rows = order[:count]
            else:
                before = chosen[how]
                rows = np.r_[before, suggested(pool, before, networks[how], count - len(before), arguments.engine)]
            chosen[how] = rows
            told = f"{count} labels, {how}"
            if how == "active" and count == COUNTS[0]:
                networks[how], figures[told] = networks["random"], figures[f"{count} labels, random"]
                continue
            options = TrainOptions(seed=arguments.seed, steps=arguments.steps)
            with tempfile.TemporaryDirectory() as folder:
                networks[how] = train_network(pool.take(np.sort(rows)), Path(folder), options)
            poses = predicted(test, networks[how], arguments.engine)
            print(told, "of frames in which the flies walk:", int((pool.frame[rows] >= 1000).sum()), file=sys.stderr)
            parts = {"all": np.arange(len(test)), "walking": np.flatnonzero(walking)}
            figures[told] = {what: flies_figures(test.take(part), poses) for what, part in parts.items()}
            figures[told]["seconds"] = round(time.perf_counter() - start)
            figures[told]["walking"]["bought"] = int((pool.frame[rows] >= 1000).sum())
    print(json.dumps({"seed": arguments.seed} | figures))


main()
