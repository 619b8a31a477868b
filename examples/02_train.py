"""From a few labelled frames to 2D keypoints in a video: python examples/02_train.py [SESSION] [OUTPUT]

Takes the frames of one of the SESSION's videos whose keypoints are known as labels; with `load_labels` they come from a
SLEAP, DeepLabCut, Lightning Pose or COCO project. To be quick it goes on from the demo's network for a few steps; your
own training starts from ImageNet's weights (leave `start` out, and TrainOptions as they are) and takes minutes.
"""

import sys
from pathlib import Path

import numpy as np

from calibration.footage import open_footage
from pose3d import assemble, evaluate_pose, load_poses, save_poses
from pose3d.labels import Picture, labels_of_poses
from pose3d.nn.network import load_network, save_network
from pose3d.nn.options import TrainOptions
from pose3d.nn.predict import predict_candidates
from pose3d.nn.train import train_network

session = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
output = Path(sys.argv[2] if len(sys.argv) > 2 else "example")
video = next((session / "recordings").glob("*/cam0.mp4"))

truth = load_poses(session / "truth/poses2d/cam0.nc")
every = np.arange(0, len(truth.frame), 16)
labels = labels_of_poses(truth, [Picture(video, int(f)) for f in truth.frame], "cam0", video.name).take(every)

start = load_network(session / "models/quadruped.safetensors")
options = TrainOptions(steps=40, evaluate_every=20, batch=4, learning_rate=5e-4, scale=start.spec.scale)
network = train_network(labels, output / "training", options, start=start)
save_network(output / "network.safetensors", network)
print(f"held-out error {network.metrics['held-out error, px, median']:.1f} px (median) after {options.steps} steps")

with open_footage(video) as footage:
    poses = assemble(predict_candidates(footage.frames(100, 110), network))
save_poses(output / "predicted.nc", poses)
found = evaluate_pose(truth.window(100, 110), poses)
print(f"{found.delivered:.0%} of the keypoints of ten other frames found")
