from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pose3d.association import associate, sightings
from pose3d.identity import identify
from pose3d.poses import Poses

pytestmark = pytest.mark.real


def test_two_people_are_told_apart_in_raw_openpose_detections(real_data: Path) -> None:
    from calibration.files import load_rig
    from pose3d.files import load_poses

    folder = real_data / "pose2sim_multi"
    rig = load_rig(folder / "Demo_MultiPerson" / "calibration" / "Calib_qualisys.toml")
    pose = folder / "S00_P01_MultiParticipants" / "S00_P01_T02_Participants1-2" / "pose"
    views: dict[str, Poses] = {}
    for name in rig.names:
        loaded = load_poses(pose / f"{name.replace('_', '')}_json", fps=60.0)
        assert isinstance(loaded, Poses)
        views[name] = loaded
    assert sightings(views, rig).weight.any()
    groups = identify(views, rig)
    everywhere = (groups.slots >= 0).all(axis=2).mean(axis=0)
    assert (everywhere[:2] >= 0.97).all(), "two people, seen by all four cameras"
    assert (everywhere[2:] == 0).all(), "a bystander, seen by two of them"
    alone = associate(views, rig)
    for f in range(len(groups.slots)):
        mine = {tuple(row) for row in groups.slots[f, :2].tolist()}
        assert len(mine & {tuple(row) for row in alone.slots[f].tolist()}) >= 1
    np.testing.assert_array_equal(np.unique(groups.ids[:, :2]), [0, 1])
