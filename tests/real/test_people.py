from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration import load_rig
from pose3d import identify, load_poses, triangulate
from pose3d.identity import IdentityOptions

pytestmark = pytest.mark.real


def test_both_people_stand_where_pose2sim_has_them_from_raw_detections(real_data: Path) -> None:
    """At least 95 % of each person's keypoints within 30 mm of the TRC; one that is not delivered counts as missed."""
    folder = real_data / "pose2sim_multi"
    session = folder / "S00_P01_MultiParticipants" / "S00_P01_T02_Participants1-2"
    rig = load_rig(folder / "Demo_MultiPerson" / "calibration" / "Calib_qualisys.toml")
    views = {
        name: load_poses(session / "pose" / f"{name.replace('_', '')}_json", "openpose_body25b", fps=60.0)
        for name in rig.names
    }
    groups = identify(views, rig, IdentityOptions(individuals=2))
    poses = triangulate(views, groups, rig).by_id()
    assert poses.shape[1] == 2
    partners = []
    for person in (1, 2):
        trc = load_poses(session / "pose-3d" / f"S00_P01_T02_Participants1-2_P{person}_0-100.trc").window(0, 100)
        order = [poses.skeleton.index(name) for name in trc.skeleton.keypoints]
        apart = np.linalg.norm(poses.points[:, :, order] - trc.points, axis=-1)
        near = [(apart[:, i][~trc.missing[:, 0]] < 0.03).mean() for i in (0, 1)]
        assert max(near) >= 0.95
        partners.append(int(np.argmax(near)))
    assert sorted(partners) == [0, 1]
