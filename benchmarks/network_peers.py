"""SLEAP-NN beside our networks, same labels: python benchmarks/network_peers.py openfield | flies | speed [--help]

PEER (--peer) is the folder of `sleap-nn` and `sleap-io` of an environment of their own: pip install torch torchvision
sleap-nn. DATA (--data, or POSE3D_REAL_DATA) holds sleap_tracks and dlc_openfield.

openfield, flies: the splits and scores of networks.py. Labels and images go to SLEAP-NN as COCO's keypoints and PNG.
Its configuration is that of its documentation for such data (config_single_instance_unet_medium_rf.yaml and
config_bottomup_unet_medium_rf.yaml), turned by any angle, as it recommends for what is seen from above, images cached;
except --scale and --rate (at half scale it found nothing after 360 s; full scale was not tried) and, for flies, maps
of stride 2 and 4 and fields of 75 px of the whole image. OMP_NUM_THREADS=1. The training is stopped --seconds of CPU
time after its start, which on a core of its own are seconds, loading not counted; the weights that are best on a tenth
of the frames predict, by its own command.

speed: from a video to saved poses by the commands of both, in turns: --model of theirs, --network of ours. What a frame
takes is the slope between the first FRAMES_SHORT and --frames frames; the start is what remains.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import cv2
import numpy as np
from network_splits import flies_figures, flies_split, openfield_figures, openfield_split

from calibration.errors import InputError
from pose3d import Poses, load_poses

FRAMES_SHORT = 12
UNET = {"in_channels": 1, "kernel_size": 3, "filters": 16, "filters_rate": 2.0, "middle_block": True,
        "up_interpolate": True, "convs_per_block": 2}  # fmt: skip


def exported(labels, folder, peer):
    """The .slp of these labels, which SLEAP's own converter makes of COCO's keypoints and PNG."""
    (folder / "images").mkdir(parents=True)
    skeleton, images, instances = labels.skeleton, [], []
    for row, image in labels.images():
        name = f"images/{row:05d}.png"
        gray = (image == image[..., :1]).all()
        cv2.imwrite(str(folder / name), image[..., 0] if gray else image[..., ::-1])
        images.append({"id": row, "file_name": name, "height": image.shape[0], "width": image.shape[1]})
        for points in labels.points[row]:
            known = np.isfinite(points[:, 0])
            if known.any():
                xyv = np.column_stack([np.where(known[:, None], points, 0), 2 * known])
                instances.append({"id": len(instances), "image_id": row, "category_id": 1, "iscrowd": 0,
                                  "keypoints": xyv.ravel().tolist(), "num_keypoints": int(known.sum())})  # fmt: skip
    category = {"id": 1, "name": "animal", "keypoints": list(skeleton.keypoints)}
    category["skeleton"] = [[a + 1, b + 1] for a, b in skeleton.edges]
    images.sort(key=lambda image: image["id"])
    coco = {"images": images, "annotations": instances, "categories": [category]}
    (folder / "labels.json").write_text(json.dumps(coco))
    command = [peer / "sleap-io", "convert", "-i", folder / "labels.json", "--from", "coco"]
    subprocess.run([*command, "-o", folder / "labels.slp"], check=True)
    return folder / "labels.slp"


def configuration(arguments, labels):
    """Of one training, as JSON, which YAML reads."""
    scale, sigma, steps = arguments.scale, arguments.sigma, arguments.steps
    if arguments.what == "openfield":
        unet = UNET | {"max_stride": 16, "output_stride": 2}
        head = {"single_instance": {"confmaps": {"part_names": None, "sigma": sigma, "output_stride": 2}}}
    else:
        unet = UNET | {"max_stride": 32, "output_stride": 2}
        head = {"bottomup": {
            "confmaps": {"part_names": None, "sigma": sigma, "output_stride": 2, "loss_weight": 1.0},
            "pafs": {"edges": None, "sigma": 75.0 * scale, "output_stride": 4, "loss_weight": 1.0},
        }}  # fmt: skip
    turned = {"rotation_min": -180.0, "rotation_max": 180.0, "scale_min": 0.9, "scale_max": 1.1, "affine_p": 1.0}
    return {
        "data_config": {
            "train_labels_path": [str(labels)],
            "validation_fraction": 0.1,
            "data_pipeline_fw": "torch_dataset_cache_img_memory",
            "preprocessing": {"scale": scale},
            "use_augmentations_train": True,
            "augmentation_config": {"geometric": turned},
        },
        "model_config": {"init_weights": "default", "backbone_config": {"unet": unet}, "head_configs": head},
        "trainer_config": {
            "train_data_loader": {"batch_size": 4, "shuffle": True, "num_workers": 0},
            "val_data_loader": {"batch_size": 4, "num_workers": 0},
            "model_ckpt": {"save_top_k": 1, "save_last": True},
            "trainer_accelerator": "cpu",
            "trainer_devices": 1,
            "enable_progress_bar": False,
            "min_train_steps_per_epoch": steps,
            "train_steps_per_epoch": steps,
            "visualize_preds_during_training": False,
            "max_epochs": 1000,
            "seed": arguments.seed,
            "use_wandb": False,
            "save_ckpt": True,
            "ckpt_dir": str(arguments.work),
            "run_name": "model",
            "optimizer_name": "Adam",
            "optimizer": {"lr": arguments.rate},
            "lr_scheduler": {"reduce_lr_on_plateau": {"threshold": 1e-6, "patience": 5 * 200 // steps, "factor": 0.5}},
            "early_stopping": {"stop_training_on_plateau": False},
        },
    }


def cpu_seconds(pid):
    """Of a running process and the children that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def trained(arguments, labels):
    """The folder of SLEAP-NN's model, and what its training took."""
    work = arguments.work
    config = configuration(arguments, labels)
    (work / "config.yaml").write_text(json.dumps(config, indent=1))
    with (work / "training.txt").open("w") as log:
        command = [arguments.peer / "sleap-nn", "train", "--config", work / "config.yaml"]
        training = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    start = wall = used = None
    while training.poll() is None:
        time.sleep(0.5)
        if start is None and "Starting training loop" in (work / "training.txt").read_text():
            start, wall = cpu_seconds(training.pid), time.perf_counter()
        elif start is not None and (used := cpu_seconds(training.pid) - start) >= arguments.seconds:
            training.kill()
            training.wait()
    if start is None or training.returncode > 0:
        sys.exit((work / "training.txt").read_text()[-3000:])
    curve = (work / "model/training_log.csv").read_text().strip().splitlines()
    print("\n".join(curve))
    epochs = len(curve) - 2  # the first row is a look at the held-out frames before any step
    return work / "model", {
        "training, CPU s": round(used), "training, s": round(time.perf_counter() - wall),
        "steps of 4": f"{epochs * arguments.steps} to {(epochs + 1) * arguments.steps}",
    }  # fmt: skip


def read_found(path, test):
    """What was found in the test frames, in their order; nothing at all is no error here."""
    n, keypoints = len(test), len(test.skeleton)
    try:
        found = load_poses(path)
    except InputError:
        return Poses(np.full((n, 1, keypoints, 2), np.nan), frame=test.frame, skeleton=test.skeleton)
    order = [found.skeleton.index(name) for name in test.skeleton.keypoints]
    points = np.full((n, found.points.shape[1], keypoints, 2), np.nan)
    score = np.zeros(points.shape[:3])
    points[found.frame], score[found.frame] = found.points[:, :, order], found.score[:, :, order]
    return Poses(points, frame=test.frame, score=score, skeleton=test.skeleton)


def accuracy(arguments):
    """Train on a split, predict its test frames, judge them."""
    of_flies = arguments.what == "flies"
    split = (arguments.data, arguments.split) if of_flies else (arguments.data, arguments.seed)
    parts = dict(zip(("training", "test"), (flies_split if of_flies else openfield_split)(*split), strict=True))
    paths = {name: exported(part, arguments.work / name, arguments.peer) for name, part in parts.items()}
    model, figures = trained(arguments, paths["training"])
    command = [arguments.peer / "sleap-nn", "predict", "-i", paths["test"], "-m", model, "-d", "cpu"]
    subprocess.run([*command, *arguments.options.split(), "-o", arguments.work / "found.slp"], check=True)
    test = parts["test"]
    poses = read_found(arguments.work / "found.slp", test)
    head = {"split": arguments.split} if of_flies else {}
    head |= {name: getattr(arguments, name) for name in ("seed", "scale", "sigma", "rate")}
    return head | figures | (flies_figures if of_flies else openfield_figures)(test, poses)


def speed(arguments):
    """Seconds of both from a video to saved poses, a long and a short part of it, in turns."""
    seconds = {}
    for frames in (FRAMES_SHORT, arguments.frames):
        video = arguments.work / f"{frames}.mp4"
        shortened(arguments.video, video, frames)
        ours = [sys.executable, "-m", "pose3d.cli", "predict", video, "--model", arguments.network, "--force"]
        commands = {
            "SLEAP-NN": [arguments.peer / "sleap-nn", "predict", "-i", video, "-m", arguments.model, "-d", "cpu"],
            "pose3d": [*ours, "--engine", arguments.engine],
        }
        for turn in range(arguments.turns):
            for who, command in commands.items():
                output = arguments.work / (f"{frames}.{turn}.slp" if who == "SLEAP-NN" else f"{frames}")
                before, start = os.times(), time.perf_counter()
                subprocess.run([*command, "-o" if who == "SLEAP-NN" else "--output", output], check=True)
                wall, after = time.perf_counter() - start, os.times()
                cpu = sum(after[2:4]) - sum(before[2:4])
                seconds.setdefault((who, frames), []).append((wall, cpu))
    figures = {}
    for who in ("SLEAP-NN", "pose3d"):
        short, long = (np.median(seconds[who, frames], axis=0) for frames in (FRAMES_SHORT, arguments.frames))
        per_frame = (long - short) / (arguments.frames - FRAMES_SHORT)
        figures[who] = {
            "frames": arguments.frames, "wall, s": long[0], "CPU, s": long[1], "wall, ms a frame": 1e3 * per_frame[0],
            "CPU, ms a frame": 1e3 * per_frame[1], "start, CPU s": long[1] - arguments.frames * per_frame[1],
        }  # fmt: skip
        print(f"  {who}: " + ", ".join(f"{name} {value:.4g}" for name, value in figures[who].items()))
    return figures


def shortened(video, target, frames):
    """The first frames of a video, without being encoded anew."""
    with av.open(str(video)) as source, av.open(str(target), "w") as sink:
        stream = sink.add_stream_from_template(source.streams.video[0])
        for done, packet in enumerate(source.demux(source.streams.video[0])):
            if packet.dts is None or done == frames:
                break
            packet.stream = stream
            sink.mux(packet)


def parsed():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("openfield", "flies", "speed"))
    parser.add_argument("--peer", type=Path, required=True, help="folder of the commands sleap-nn and sleap-io")
    parser.add_argument("--data", type=Path, default=os.environ.get("POSE3D_REAL_DATA"))
    parser.add_argument("--work", type=Path, help="default: a temporary folder")
    parser.add_argument("--split", choices=("blocks", "hard"), default="blocks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, help="default: 360, for flies 900")
    parser.add_argument("--scale", type=float, default=0.25, help="of SLEAP-NN's input")
    parser.add_argument("--sigma", type=float, default=2.5, help="of SLEAP-NN's peaks, px of its input")
    parser.add_argument("--rate", type=float, default=1e-3, help="of SLEAP-NN's learning")
    parser.add_argument("--steps", type=int, default=50, help="between two looks at the held-out frames")
    parser.add_argument("--options", default="", help="more of sleap-nn predict")
    parser.add_argument("--model", type=Path, help="speed: folder of a model of SLEAP-NN")
    parser.add_argument("--network", type=Path, help="speed: .safetensors of ours")
    parser.add_argument("--engine", default="torch", help="speed: ours (auto chooses another for long videos)")
    parser.add_argument("--video", type=Path, help="speed")
    parser.add_argument("--frames", type=int, default=120, help="speed")
    parser.add_argument("--turns", type=int, default=1, help="speed")
    arguments = parser.parse_args()
    if arguments.what != "speed" and arguments.data is None:
        parser.error("expected --data or POSE3D_REAL_DATA")
    arguments.seconds = arguments.seconds or {"flies": 900.0}.get(arguments.what, 360.0)
    return arguments


arguments = parsed()
with tempfile.TemporaryDirectory() as temporary:
    arguments.work = arguments.work or Path(temporary)
    arguments.work.mkdir(parents=True, exist_ok=True)
    print(json.dumps((speed if arguments.what == "speed" else accuracy)(arguments)))
