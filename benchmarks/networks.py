"""What a network learns from real labels: python benchmarks/networks.py mouse | flies | openfield [--help]

DATA (--data, or POSE3D_REAL_DATA) holds sleap_anipose_minimal, sleap_tracks and dlc_openfield; results go to WORK, from
which a training that was cut off goes on. Figures: benchmarks/README.md. The last line is all of them as JSON.

mouse: trained on frames 0-39 of all four views, tested on frames 60-119, whose images are turned about their centre by
20-40 degrees to either side and shifted by up to 60 px in x and y (black beside them). Judged are labelled keypoints
that have a training label in their view and are still in the image; one that is not found is infinitely far. Moved:
further than 10 px from its mean over the training frames of its view, either the keypoint in the turned image, or
(upright) the labelled one before it was turned. The constant pose is that mean, left where it is or turned with the
image. Then videos to 3D as `pose3d run` does it, against the 3D of the proofread labels through the same rig and
stages.

flies: 100 training frames; test frames from other blocks of the clip (blocks), or from its end, where the flies walk,
while those trained on are of its beginning, where they stand (hard). Both are found in a frame when each is matched to
an estimate that holds at least half of its labelled keypoints; alike: with an OKS of at least 0.5.

openfield: the 58 images of a mouse from above, of which 12 random ones are for the test (--seed); ears that the look at
the labels calls exchanged are exchanged back, in all. Distances of all keypoints; a missed one is infinitely far.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np

from pose3d import Poses, assemble, evaluate_pose, load_poses
from pose3d.assembly import AssemblyOptions
from pose3d.config import load_session
from pose3d.detection_scores import DetectionOptions, evaluate_detections
from pose3d.files import load_labels
from pose3d.label_check import suspect_labels
from pose3d.labels import join_labels
from pose3d.nn.network import save_network
from pose3d.nn.options import PredictOptions, TrainOptions
from pose3d.nn.predict import predict_candidates
from pose3d.nn.train import train_network
from pose3d.pipeline import run_session

CONFIGS = Path(__file__).parent.parent / "configs"
VIEWS = ("back", "mid", "side", "top")
TURN_DEG, SHIFT_PX, NEAR_PX = (20.0, 40.0), 60.0, 10.0


def trained(labels, arguments, seed=0):
    """The network and the seconds that it took."""

    def progress(text, done, total):
        if done % 100 == 0 or done == total:
            print(f"  {text}: {done}/{total}", file=sys.stderr, flush=True)

    options = TrainOptions(
        seed=seed, **{name: getattr(arguments, name) for name in ("steps", "batch") if name in arguments}
    )
    start = time.perf_counter()
    network = train_network(labels, arguments.work / "training", options, progress=progress)
    seconds = time.perf_counter() - start
    told = {k: v for k, v in network.metrics.items() if not k.startswith("history")}
    print(f"trained on {len(labels)} frames for {seconds:.0f} s, {asdict(options)}\n  {told}")
    return network, seconds


def predicted(frames, network, individuals):
    """2D poses of frames (number, image)."""
    return assemble(predict_candidates(frames, network), None, AssemblyOptions(individuals=individuals))


def turns(rng, n, size):
    """(n, 2, 3) warps of images (width, height): turned about the centre, then shifted."""
    degrees = rng.uniform(*TURN_DEG, n) * rng.choice([-1, 1], n)
    shifts = rng.uniform(-SHIFT_PX, SHIFT_PX, (n, 2))
    center = (np.array(size) - 1) / 2
    warps = np.stack([cv2.getRotationMatrix2D(tuple(center), d, 1.0) for d in degrees])
    warps[:, :, 2] += shifts
    return warps


def distances(truth, poses):
    """(frames, keypoints) px of the only individual; infinite where missed, NaN where nothing is labelled."""
    apart = np.linalg.norm(poses.points[:, 0] - truth, axis=-1)
    return np.where(np.isnan(truth[..., 0]), np.nan, np.where(np.isnan(apart), np.inf, apart))


def told(what, errors):
    """Print and return the share within 10 px and the median of all errors that are not NaN."""
    known = np.sort(errors[~np.isnan(errors)])
    figures = {"n": len(known), "within 10 px, %": 100 * float((known <= NEAR_PX).mean()) if len(known) else None}
    figures["median, px"] = float(known[(len(known) - 1) // 2]) if len(known) else None
    print(f"  {what:48} " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items() if value is not None))
    return figures


def test_view(labels, trained_on, network, rng):
    """{what: (frames, keypoints)}: errors of the network and of the constant pose, and how far keypoints moved."""
    size = labels.image(0).shape[1::-1]
    warps = turns(rng, len(labels), size)
    upright = labels.points[:, 0]
    upright[:, np.isnan(trained_on).all(axis=(0, 1, 3))] = np.nan
    mean = np.array([p[np.isfinite(p[:, 0])].mean(axis=0) if np.isfinite(p).any() else [np.nan] * 2
                     for p in np.moveaxis(trained_on[:, 0], 1, 0)])  # fmt: skip
    turned = np.einsum("fij,fkj->fki", warps[:, :, :2], upright) + warps[:, None, :, 2]
    turned[((turned < -0.5) | (turned > np.array(size) - 0.5)).any(axis=-1)] = np.nan
    there = np.where(np.isnan(turned[..., 0]), np.nan, 0.0)
    straight = predicted(labels.images(), network, 1)
    rotated = predicted(((row, cv2.warpAffine(image, warps[row], size)) for row, image in labels.images()), network, 1)
    return {
        "upright": distances(upright, straight),
        "turned": distances(turned, rotated),
        "constant upright": np.linalg.norm(upright - mean, axis=-1),
        "constant turned": np.linalg.norm(turned - mean, axis=-1),
        "constant turned along": np.linalg.norm(upright - mean, axis=-1) + there,
    }


def mouse(arguments):
    """Keypoints in turned images, then 3D."""
    folder = arguments.data / "sleap_anipose_minimal"
    path = str(folder / "minimal_session/{0}/minimal_{0}_proofread.slp")
    parts = {view: load_labels(path.format(view), camera=view, frames=(0, 39)) for view in VIEWS}
    network, seconds = trained(join_labels(list(parts.values())), arguments)
    save_network(arguments.work / "network.safetensors", network)
    rng, results = np.random.default_rng(0), {}
    for view, part in parts.items():
        labels = load_labels(path.format(view), camera=view, frames=(60, 119))
        results[view] = test_view(labels.take(range(min(len(labels), arguments.frames))), part.points, network, rng)
    errors = {what: np.concatenate([results[view][what] for view in VIEWS]) for what in results["back"]}
    figures = {"training, s": round(seconds)}
    moved = {
        "": ~np.isnan(errors["turned"]),
        ", moved in the turned image": errors["constant turned"] > NEAR_PX,
        ", moved upright": errors["constant turned along"] > NEAR_PX,
    }
    for which, chosen in moved.items():
        for what in ("turned", "constant turned", "constant turned along"):
            figures[what + which] = told(what + which, errors[what][chosen])
    for view in VIEWS:
        for what in ("upright", "constant upright"):
            figures[f"{view}, {what}"] = told(f"{view}, {what}", results[view][what])
    if arguments.frames >= 60:
        figures |= mouse_3d(folder, arguments.work)
    return figures


def mouse_3d(folder, work):
    """Videos to 3D with the trained network; distance to the 3D of the labels through the same rig."""
    session = load_session(CONFIGS / "mouse_4cam_network.toml", folder, work / "predicted")
    options = {**session.options, "predict": PredictOptions(model=work / "network.safetensors")}
    start = time.perf_counter()
    for _ in run_session(replace(session, labels=(), options=options)):
        pass
    figures = {"pose3d run, s": round(time.perf_counter() - start)}
    proofread = load_session(CONFIGS / "mouse_4cam.toml", folder, work / "labelled")
    for _ in run_session(replace(proofread, calibration=str((work / "predicted/calibration.toml").resolve()))):
        pass
    found, truth = (load_poses(work / f"{name}/mouse/poses3d.nc") for name in ("predicted", "labelled"))
    for what, part in (("frames 60-119", truth.window(60, 120)), ("all frames", truth)):
        errors = evaluate_pose(part, found)
        figures[f"3D, {what}"] = told_3d = {
            "n": errors.n, "median, mm": errors.median, "95th percentile, mm": errors.p95,
            "delivered, %": 100 * errors.delivered, "size of the mouse, mm": errors.size,
        }  # fmt: skip
        print(f"  3D, {what}: " + ", ".join(f"{name} {value:.4g}" for name, value in told_3d.items()))
    return figures


def flies(arguments):
    """Both flies in frames that are not their neighbours'."""
    labels = load_labels(arguments.data / "sleap_tracks/tracks/clip.slp")
    frame, block = labels.frame, (labels.frame - 1000) % 100
    chosen = {
        "blocks": ((frame >= 1000) & (block < 40) & (frame % 2 == 0),
                   (frame >= 1000) & (block >= 50) & (block < 90) & (frame % 2 == 0)),
        "hard": ((frame < 1000) & (frame % 10 == 0), (frame >= 1100) & (frame < 1500) & (frame % 4 == 0)),
    }  # fmt: skip
    training, testing = chosen[arguments.split]
    network, seconds = trained(labels.take(training), arguments, arguments.seed)
    save_network(arguments.work / "network.safetensors", network)
    test = labels.take(np.flatnonzero(testing)[: arguments.frames])
    truth = Poses(test.points, frame=test.frame, skeleton=test.skeleton)
    poses = predicted(((int(test.frame[row]), image) for row, image in test.images()), network, 2)
    options = DetectionOptions()
    errors = evaluate_detections(truth, poses, options)
    figures = {
        "split": arguments.split, "seed": arguments.seed, "training, s": round(seconds), "n": errors.n,
        "median, px": errors.median, f"within {options.within:g} px, %": 100 * errors.within,
        "both found, %": 100 * errors.all_found, "both alike, %": 100 * errors.all_alike, "OKS-mAP": errors.oks_map,
    }  # fmt: skip
    print("  " + ", ".join(f"{name} {value}" for name, value in figures.items()))
    return figures


def openfield(arguments):
    """Distances in random images of one mouse."""
    labels = load_labels(arguments.data / "dlc_openfield/openfield-Pranav-2018-10-30", missing="skip")
    points = labels.points.copy()
    for suspect in suspect_labels(labels):
        print("  " + str(suspect))
        if suspect.kind == "exchanged":
            a, b = map(labels.skeleton.index, suspect.keypoints)
            points[suspect.row, suspect.slot, [a, b]] = points[suspect.row, suspect.slot, [b, a]]
    labels = replace(labels, points=points)
    order = np.random.default_rng(arguments.seed).permutation(len(labels))
    network, seconds = trained(labels.take(np.sort(order[12:])), arguments, arguments.seed)
    save_network(arguments.work / "network.safetensors", network)
    test = labels.take(np.sort(order[:12]))
    errors = distances(test.points[:, 0], predicted(test.images(), network, 1))
    figures = {"seed": arguments.seed, "training, s": round(seconds)} | told("all", errors)
    known = errors[~np.isnan(errors)]
    figures |= {"mean, px": known.mean(), "RMSE, px": np.sqrt((known**2).mean()), "errors, px": errors.ravel().tolist()}
    print(f"  mean {known.mean():.3g} px, RMSE {figures['RMSE, px']:.3g} px, worst {known.max():.3g} px")
    return figures


def parsed():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("mouse", "flies", "openfield"))
    parser.add_argument("--data", type=Path, default=os.environ.get("POSE3D_REAL_DATA"))
    parser.add_argument("--work", type=Path, help="default: a temporary folder")
    parser.add_argument("--split", choices=("blocks", "hard"), default="blocks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=argparse.SUPPRESS, help="default: TrainOptions', for flies 1800")
    parser.add_argument("--batch", type=int, default=argparse.SUPPRESS)
    parser.add_argument("--frames", type=int, default=1000, help="test frames (of each view) at most; below 60 no 3D")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("expected --data or POSE3D_REAL_DATA")
    if arguments.what == "flies" and "steps" not in arguments:
        arguments.steps = 1800
    return arguments


arguments = parsed()
with tempfile.TemporaryDirectory() as temporary:
    arguments.work = arguments.work or Path(temporary)
    print(json.dumps({"mouse": mouse, "flies": flies, "openfield": openfield}[arguments.what](arguments)))
