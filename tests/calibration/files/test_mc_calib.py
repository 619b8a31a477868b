"""calibration.files.mc_calib: poses are inverted, models told by number, groups that nothing connects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.camera import Intrinsics
from calibration.errors import InputError
from calibration.files import load_rig
from calibration.rig import CameraRig


def mc_calib_rig(random_rig: Callable[..., CameraRig], seed: int, n: int) -> CameraRig:
    cameras = []
    for i, camera in enumerate(random_rig(seed, n, "square")):
        old = camera.intrinsics
        cameras.append(
            replace(camera, name=f"camera_{i}", intrinsics=Intrinsics(old.size, old.K, old.dist[:5], old.model))
        )
    return CameraRig(tuple(cameras), "square")


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 12))
@settings(max_examples=20, deadline=None)
def test_rigs_come_back(
    tmp_path_factory: pytest.TempPathFactory, random_rig: Callable, same_rig: Callable, write_mc_calib: Callable,
    seed: int, n: int,
) -> None:  # fmt: skip
    path = tmp_path_factory.mktemp("mc") / "calibrated_cameras_data.yml"
    rig = mc_calib_rig(random_rig, seed, n)
    write_mc_calib(path, rig)
    same_rig(load_rig(path, unit="square"), rig, atol=1e-14)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("distortion_type: 0", "distortion_type: 2", r"camera_0\.distortion_type: expected 0 \(Brown\) or 1"),
        ("distortion_type: 0", "", r"camera_0: expected a key 'distortion_type'"),
        ("camera_group: 0", "camera_group: 1", r"camera_0 and camera_1|camera_1 and camera_0"),
        ("img_width: ", "img_width: - ", r"expected|whole file"),
        ("rows: 3", "rows: 4", r"camera_0: camera_matrix: expected a matrix of rows x cols numbers"),
    ],
)
def test_errors_name_file_camera_and_key(
    tmp_path: Path, random_rig: Callable, write_mc_calib: Callable, old: str, new: str, message: str
) -> None:
    path = tmp_path / "calibrated_cameras_data.yml"
    write_mc_calib(path, mc_calib_rig(random_rig, 2, 2))
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message) as told:
        load_rig(path, unit="mm")
    assert str(path) in str(told.value)


def test_a_pose_that_is_no_rigid_motion(tmp_path: Path, random_rig: Callable, write_mc_calib: Callable) -> None:
    path = tmp_path / "calibrated_cameras_data.yml"
    write_mc_calib(path, mc_calib_rig(random_rig, 6, 1))
    text = path.read_text()
    at = text.index("data: [", text.index("camera_pose_matrix")) + len("data: [")
    path.write_text(text[:at] + " 2." + text[text.index(",", at) :])
    with pytest.raises(InputError, match=r"camera_0\.camera_pose_matrix: expected a rotation and a translation"):
        load_rig(path, unit="mm")


def test_a_whole_file_says_how_many_cameras_there_are(
    tmp_path: Path, random_rig: Callable, write_mc_calib: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "calibrated_cameras_data.yml"
    write_mc_calib(path, mc_calib_rig(random_rig, 2, 2))
    path.write_text(path.read_text().replace("nb_camera: 2", "nb_camera: 3"))
    assert len(load_rig(path, unit="mm")) == 2
    assert "says 3.0 cameras, holds 2" in caplog.text
    assert np.isfinite(load_rig(path, unit="mm").centers).all()
