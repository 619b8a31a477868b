"""What a network learns from real labels: python benchmarks/networks.py mouse | flies | openfield [--help]

DATA (--data, or POSE3D_REAL_DATA) holds sleap_anipose_minimal, sleap_tracks and dlc_openfield; results go to WORK, from
which a training that was cut off goes on. Figures: benchmarks/README.md. The last line is all of them as JSON.

mouse: trained on frames 0-39 of all four views, tested on frames 60-119, whose images are turned about their centre by
20-40 degrees to either side and shifted by up to 60 px in x and y (black beside them). Judged are labelled keypoints
that have a training label in their view and are still in the image; one that is not found is infinitely far. Moved:
further than 10 px from its mean over the training frames of its view, either the keypoint in the turned image, or
(upright) the labelled one before it was turned. The constant pose is that mean, left where it is or turned with the
image. Inside the 95 % ellipses: upright images, of what was found and has a stated covariance. --networks: one network
for all views (shared), one for each trained alone, each with so many steps (per_camera), or one for each on a common
backbone (shared_backbone). Then videos to 3D as `pose3d run` does it, against the 3D of the proofread labels through
the same rig and stages.

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
from network_splits import NEAR_PX, distances, flies_figures, flies_split, openfield_figures, openfield_split, told

from pose3d import Poses, assemble, evaluate_pose, load_poses
from pose3d.assembly import AssemblyOptions
from pose3d.config import load_session
from pose3d.covariance_scores import evaluate_covariance
from pose3d.files import load_labels
from pose3d.labels import join_labels
from pose3d.nn.heads import train_cameras
from pose3d.nn.network import save_network
from pose3d.nn.options import PredictOptions, TrainOptions
from pose3d.nn.predict import predict_candidates
from pose3d.nn.train import train_network
from pose3d.pipeline import run_session

CONFIGS = Path(__file__).parent.parent / "configs"
VIEWS = ("back", "mid", "side", "top")
TURN_DEG, SHIFT_PX = (20.0, 40.0), 60.0


def trained(labels, arguments, seed=0):
    """The network and the seconds that it took."""
    networks, seconds = trained_as("shared", labels, arguments, seed)
    return networks["network"], seconds


def trained_as(which, labels, arguments, seed=0):
    """{name of its file: network}, for [train] networks = `which`, and the seconds that they took."""

    def progress(text, done, total):
        if done % 100 == 0 or done == total:
            print(f"  {text}: {done}/{total}", file=sys.stderr, flush=True)

    named = {name: getattr(arguments, name) for name in ("steps", "batch") if name in arguments}
    options = TrainOptions(seed=seed, networks=which, pretrained=not arguments.scratch, **named)
    folder, start = arguments.work / "training", time.perf_counter()
    if which == "shared":
        networks = {"network": train_network(labels, folder, options, progress=progress)}
    elif which == "shared_backbone":
        networks = train_cameras(labels, folder, options, progress=progress)
    else:
        parts = {name: labels.take(np.array(labels.camera) == name) for name in dict.fromkeys(labels.camera)}
        networks = {name: train_network(part, folder / name, options, progress=progress)
                    for name, part in parts.items()}  # fmt: skip
    seconds = time.perf_counter() - start
    print(f"trained on {len(labels)} frames for {seconds:.0f} s, {asdict(options)}")
    for name, network in networks.items():
        print(f"  {name}: { ({k: v for k, v in network.metrics.items() if not k.startswith('history')}) }")
    return networks, seconds


def predicted(frames, network, individuals):
    """2D poses of frames (number, image), which are no video."""
    return assemble(
        predict_candidates(frames, network, PredictOptions(region=False)),
        None,
        AssemblyOptions(individuals=individuals),
    )


def turns(rng, n, size):
    """(n, 2, 3) warps of images (width, height): turned about the centre, then shifted."""
    degrees = rng.uniform(*TURN_DEG, n) * rng.choice([-1, 1], n)
    shifts = rng.uniform(-SHIFT_PX, SHIFT_PX, (n, 2))
    center = (np.array(size) - 1) / 2
    warps = np.stack([cv2.getRotationMatrix2D(tuple(center), d, 1.0) for d in degrees])
    warps[:, :, 2] += shifts
    return warps


def test_view(labels, trained_on, network, rng):
    """{what: (frames, keypoints)}: errors of the network and of the constant pose, and how far keypoints moved; and the
    upright images' errors against the stated covariances."""
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
    stated = evaluate_covariance(Poses(upright[:, None], frame=np.arange(len(labels)), skeleton=labels.skeleton),
                                 straight)  # fmt: skip
    rotated = predicted(((row, cv2.warpAffine(image, warps[row], size)) for row, image in labels.images()), network, 1)
    return {
        "upright": distances(upright, straight),
        "turned": distances(turned, rotated),
        "constant upright": np.linalg.norm(upright - mean, axis=-1),
        "constant turned": np.linalg.norm(turned - mean, axis=-1),
        "constant turned along": np.linalg.norm(upright - mean, axis=-1) + there,
    }, stated


def mouse(arguments):
    """Keypoints in turned images, then 3D."""
    folder = arguments.data / "sleap_anipose_minimal"
    path = str(folder / "minimal_session/{0}/minimal_{0}_proofread.slp")
    parts = {view: load_labels(path.format(view), camera=view, frames=(0, 39)) for view in VIEWS}
    networks, seconds = trained_as(arguments.networks, join_labels(list(parts.values())), arguments, arguments.seed)
    for name, network in networks.items():
        save_network(arguments.work / f"models/{name}.safetensors", network)
    rng, results, stated = np.random.default_rng(0), {}, {}
    for view, part in parts.items():
        labels = load_labels(path.format(view), camera=view, frames=(60, 119))
        network, labels = networks.get(view) or networks["network"], labels.take(range(arguments.frames)[: len(labels)])
        results[view], stated[view] = test_view(labels, part.points, network, rng)
    errors = {what: np.concatenate([results[view][what] for view in VIEWS]) for what in results["back"]}
    figures = {"networks": arguments.networks, "seed": arguments.seed, "training, s": round(seconds)}
    figures["upright"] = told("upright", errors["upright"])
    for view, covariance in stated.items():
        figures[f"{view}, inside the 95 % ellipses, %"] = round(100 * covariance.inside["95 %"], 1)
    n = np.array([covariance.n for covariance in stated.values()])
    inside = np.array([covariance.inside["95 %"] for covariance in stated.values()])
    figures["upright, inside the 95 % ellipses, %"] = round(100 * float((n * inside).sum() / n.sum()), 1)
    print(f"  of {n.sum()} found, {figures['upright, inside the 95 % ellipses, %']} % inside their 95 % ellipses")
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
    options = {**session.options, "predict": PredictOptions(model=work / "models")}
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
    training, test = flies_split(arguments.data, arguments.split)
    training = training.take(some(len(training), arguments))
    network, seconds = trained(training, arguments, arguments.seed)
    save_network(arguments.work / "network.safetensors", network)
    test = test.take(range(min(len(test), arguments.frames)))
    poses = predicted(((int(test.frame[row]), image) for row, image in test.images()), network, 2)
    head = {"split": arguments.split, "seed": arguments.seed, "labels": len(training), "training, s": round(seconds)}
    return head | flies_figures(test, poses)


def some(n, arguments):
    """Rows of n labelled frames to train on: as many as --labels, at random."""
    return np.sort(np.random.default_rng([arguments.seed, n]).permutation(n)[: arguments.labels])


def openfield(arguments):
    """Distances in random images of one mouse."""
    training, test = openfield_split(arguments.data, arguments.seed)
    training = training.take(some(len(training), arguments))
    network, seconds = trained(training, arguments, arguments.seed)
    save_network(arguments.work / "network.safetensors", network)
    head = {"seed": arguments.seed, "labels": len(training), "training, s": round(seconds)}
    poses = predicted(test.images(), network, 1)
    truth = Poses(test.points, frame=np.arange(len(test)), skeleton=test.skeleton)
    head["inside 95 %"] = evaluate_covariance(truth, poses).inside["95 %"]
    return head | openfield_figures(test, poses)


def parsed():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("mouse", "flies", "openfield"))
    parser.add_argument("--data", type=Path, default=os.environ.get("POSE3D_REAL_DATA"))
    parser.add_argument("--work", type=Path, help="default: a temporary folder")
    parser.add_argument("--split", choices=("blocks", "hard"), default="blocks")
    parser.add_argument("--networks", choices=("shared", "per_camera", "shared_backbone"), default="shared",
                        help="of the mouse: see [train] networks")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--labels", type=int, help="labelled frames to train on, at random; not of the mouse")
    parser.add_argument("--scratch", action="store_true", help="without ImageNet weights")
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
