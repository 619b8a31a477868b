"""What pose3d reaches on the real recordings: python benchmarks/real_recordings.py DATA [WORK]

DATA holds sleap_anipose_minimal, pose2sim_multi and caliscope_charuco_calibration; results go to WORK. Prints the rig's
board error, the share of Pose2Sim's keypoints within 30 mm before refinement, and the error of predicting a view from
the others, triangulated and refined. Figures: benchmarks/README.md.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from calibration import load_rig
from pose3d import Poses, load_poses, refine, triangulate
from pose3d.config import load_session
from pose3d.evaluation import left_out_errors
from pose3d.files import read_groups
from pose3d.pipeline import run_session

CONFIGS = Path(__file__).parent.parent / "configs"
TRC = "S00_P01_MultiParticipants/S00_P01_T02_Participants1-2/pose-3d/S00_P01_T02_Participants1-2_P{}_0-100.trc"


def refined_groups(views, groups, rig) -> Poses:
    """Refined poses whose slots are the groups, as `left_out_errors` wants them."""
    linear = triangulate(views, groups, rig)
    refined = refine(linear, views, groups, rig)
    points = np.full_like(linear.points, np.nan)
    for slot, identity in enumerate(refined.ids.max(axis=0)):
        frame, group = np.nonzero(groups.ids == identity)
        points[frame, group] = refined.points[frame, slot]
    return linear.replace(points=points, extras={})


def left_out(folder: Path) -> None:
    """Print the error of predicting each view from the others."""
    rig, groups = load_rig(folder.parent / "calibration.toml"), read_groups(folder / "groups.nc")
    views = {name: load_poses(folder / f"poses2d/{name}.nc") for name in rig.names}
    for what, reconstruct in (("triangulated", triangulate), ("refined", refined_groups)):
        for name, error in left_out_errors(views, groups, rig, reconstruct).items():
            known = error[np.isfinite(error)]
            middle, high = np.percentile(known, [50, 95])
            print(f"  {what:12} predicting {name:6} median {middle:6.2f} px  mean {known.mean():6.2f}  p95 {high:6.2f}")


def against_trc(folder: Path, data: Path) -> None:
    """Print how many of Pose2Sim's keypoints stand within 30 mm of ours; one that we do not deliver does not."""
    ours = load_poses(folder / "triangulated.nc").by_id()
    for person in (1, 2):
        theirs = load_poses(data / TRC.format(person))
        order = [ours.skeleton.index(name) for name in theirs.skeleton.keypoints]
        apart = np.linalg.norm(ours.points[:, :, order] - theirs.points[: len(ours.frame)], axis=-1)
        wanted = ~theirs.missing[: len(ours.frame), 0]
        near = [(apart[:, i][wanted] < 0.03).mean() for i in range(ours.shape[1])]
        best = int(np.argmax(near))
        middle = 1000 * np.nanmedian(apart[:, best][wanted])
        print(f"  person {person} is individual {best}: {near[best]:.1%} within 30 mm, median {middle:.1f} mm")


data = Path(sys.argv[1])
work = Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp())
for config, folder in (
    ("mouse_4cam", "sleap_anipose_minimal"),
    ("people_openpose", "pose2sim_multi"),
    ("webcams_charuco", "caliscope_charuco_calibration"),
):
    print(config)
    session = load_session(CONFIGS / f"{config}.toml", data / folder, work / config)
    for _, report in run_session(session):
        if report.stage.startswith("calibrate") and "text" in report.summary:
            print("  " + report.summary["text"].replace("\n", "\n  "))
    for recording in sorted(path.parent for path in (work / config).glob("*/groups.nc")):
        left_out(recording)
        if config == "people_openpose":
            against_trc(recording, data / folder)
