"""calibration.files.pose2sim: told from aniposelib's files, in metres, four coefficients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.errors import InputError
from calibration.files import load_rig

CAMERA = """
[{name}]
name = "{name}"
size = [ 1088.0, 1920.0]
matrix = [ [ 1681.5, 0.0, 532.5], [ 0.0, 1681.25, 948.0], [ 0.0, 0.0, 1.0]]
distortions = [ -0.01, 0.02, 0.003, 0.004]
rotation = [ {angle}, 0.0, 0.0]
translation = [ 0.5, 0.25, 3.0]
fisheye = false
"""
METADATA = "\n[metadata]\nadjusted = false\nerror = 0.0\n"


def test_metres_and_four_coefficients(tmp_path: Path) -> None:
    path = tmp_path / "Calib_qualisys.toml"
    path.write_text(CAMERA.format(name="cam_10", angle=0.0) + CAMERA.format(name="cam_2", angle=np.pi / 2) + METADATA)
    rig = load_rig(path)
    assert rig.unit == "m"
    assert rig.names == ("cam_10", "cam_2")
    assert rig["cam_2"].intrinsics.size == (1088, 1920)
    np.testing.assert_array_equal(rig["cam_2"].intrinsics.dist, [-0.01, 0.02, 0.003, 0.004, 0.0])
    np.testing.assert_allclose(rig["cam_2"].R, [[1, 0, 0], [0, 0, -1], [0, 1, 0]], atol=1e-15)
    assert load_rig(path, format="pose2sim").unit == "m"
    assert load_rig(path, unit="m").unit == "m"
    with pytest.raises(InputError, match='in unit = "m", got unit="mm"'):
        load_rig(path, unit="mm")


@pytest.mark.parametrize(
    ("old", "new"),
    [("fisheye = false\n", ""), ("0.003, 0.004]", "0.003, 0.004, 0.0]"), ("error = 0.0", 'unit = "m"')],
)
def test_other_files_are_not_taken_for_pose2sims(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "calibration.toml"
    text = (CAMERA.format(name="cam_1", angle=0.1) + METADATA).replace(old, new)
    path.write_text(text)
    if "unit" in new:
        assert load_rig(path).unit == "m"
        assert load_rig(path, unit="m").unit == "m"
        with pytest.raises(
            InputError, match='unit = "m", got unit="mm"'
        ):  # our reader's words: the file says so itself
            load_rig(path, unit="mm")
    else:
        with pytest.raises(InputError, match="does not say its unit"):
            load_rig(path)
