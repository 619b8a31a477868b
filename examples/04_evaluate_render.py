"""How good is it, and what does it look like? python examples/04_evaluate_render.py [SESSION] [OUTPUT]

Compares OUTPUT/poses3d.nc, which 03_reconstruct.py wrote, with the truth of the demo's SESSION, and draws it.
"""

import sys
from pathlib import Path

from calibration import load_rig
from calibration.transforms import similarity
from pose3d import evaluate_pose, evaluate_tracks, load_poses
from pose3d.render.scene import render_scene

session = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
output = Path(sys.argv[2] if len(sys.argv) > 2 else "example")

rig, poses = load_rig(output / "calibration.toml"), load_poses(output / "poses3d.nc")
true_rig, truth = load_rig(session / "truth/calibration.toml"), load_poses(session / "truth/poses3d.nc")

# A calibration has a world of its own; the cameras' centres tell how it lies in the true one.
_, R, t = similarity(rig.subset(true_rig.names).centers, true_rig.centers)
errors = evaluate_pose(truth, poses.replace(points=poses.points @ R.T + t))
tracks = evaluate_tracks(truth, poses.replace(points=poses.points @ R.T + t))
print(f"{errors.delivered:.1%} delivered, error median {errors.median:.2f}, 95 % below {errors.p95:.2f} {errors.unit}")
print(f"{tracks.switches} identity switches, IDF1 {tracks.idf1:.3f}")

render_scene(poses, rig, output / "scene.png")
print(f"see {output / 'scene.png'}")
