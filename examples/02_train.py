"""From a few labelled frames to 2D keypoints in a video: python examples/02_train.py [SESSION] [OUTPUT]

Takes the frames of one of the SESSION's videos whose keypoints are known as labels; with `load_labels` they come from a
SLEAP or DeepLabCut project. A small network and few steps, so that the example is quick: it has seen 12 frames of one
camera and is not good. Your own training leaves TrainOptions as they are and takes minutes.
"""

import sys
from pathlib import Path

import numpy as np

from calibration.footage import open_footage
from pose3d import assemble, evaluate_pose, load_poses, save_poses
from pose3d.labels import Picture, labels_of_poses
from pose3d.nn.network import save_network
from pose3d.nn.options import TrainOptions
from pose3d.nn.predict import predict_candidates
from pose3d.nn.train import train_network

session = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
output = Path(sys.argv[2] if len(sys.argv) > 2 else "example")
video = next((session / "recordings").glob("*/cam0.mp4"))

truth = load_poses(session / "truth/poses2d/cam0.nc")
every = np.arange(0, len(truth.frame), 16)
labels = labels_of_poses(truth, [Picture(video, int(f)) for f in truth.frame], "cam0", video.name).take(every)

options = TrainOptions(
    backbone="mobilenet_v2", width=0.35, pretrained=False, steps=80, evaluate_every=40, batch=4, crop=128, animal_px=64
)
network = train_network(labels, output / "training", options, progress=lambda what, done, total: None)
save_network(output / "network.safetensors", network)
print(f"held-out error {network.metrics['held-out error, px, median']:.1f} px (median) after {options.steps} steps")

with open_footage(video) as footage:
    poses = assemble(predict_candidates(footage.frames(100, 110), network))
save_poses(output / "predicted.nc", poses)
found = evaluate_pose(truth.window(100, 110), poses)
print(f"{found.delivered:.0%} of the keypoints of ten other frames found")
