"""From 2D keypoints of every camera to named 3D skeletons: python examples/03_reconstruct.py [SESSION] [OUTPUT]

Needs the calibration that 01_calibrate.py wrote into OUTPUT, and results/<name>/poses2d/<camera>.nc in SESSION, which
`pose3d demo` predicted; any format that `load_poses` reads will do in their place.
"""

import sys
from pathlib import Path

from calibration import load_rig
from pose3d import identify, load_poses, refine, save_poses, triangulate

session = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
output = Path(sys.argv[2] if len(sys.argv) > 2 else "example")

rig = load_rig(output / "calibration.toml")
folder = next((session / "results").glob("*/poses2d"))
views = {name: load_poses(folder / f"{name}.nc") for name in rig.names}

groups = identify(views, rig)  # which detection of which view is which animal, over the whole recording
poses = triangulate(views, groups, rig)  # robust: a wrong view does not spoil a point
refined = refine(poses, views, groups, rig)  # smooth, bones of constant length, gaps bridged, covariance

share = 1 - refined.missing.mean()
print(f"{refined.shape[1]} individuals in {refined.shape[0]} frames, {share:.1%} of their keypoints delivered")
save_poses(output / "poses3d.nc", refined)
save_poses(output / "poses3d.csv", refined)
