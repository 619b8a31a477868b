"""calibration.files.kalibr: chains of cameras, both distortions, and models that no camera here has."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.camera import Intrinsics
from calibration.errors import InputError
from calibration.files import load_rig
from calibration.rig import CameraRig
from calibration.transforms import invert

WIKI = """
cam0:
  camera_model: pinhole
  intrinsics: [461.629, 460.152, 362.680, 246.049]  # fu, fv, pu, pv
  distortion_model: radtan
  distortion_coeffs: [-0.27695497, 0.06712482, 0.00087538, 0.00011556]
  T_cam_imu:
  - [0.01779318, 0.99967549,-0.01822936, 0.07008565]
  - [-0.9998017, 0.01795239, 0.00860714,-0.01771023]
  - [0.00893160, 0.01807260, 0.99979678, 0.00399246]
  - [0.0, 0.0, 0.0, 1.0]
  timeshift_cam_imu: -8.121e-05
  rostopic: /cam0/image_raw
  resolution: [752, 480]
cam1:
  camera_model: pinhole
  intrinsics: [456.587, 455.134, 379.999, 255.238]
  distortion_model: equidistant
  distortion_coeffs: [-0.01, 0.02, 0.003, 1.0e-04]
  T_cn_cnm1:
  - [0.0, -1.0, 0.0, -0.11]
  - [1.0, 0.0, 0.0, 0.02]
  - [0.0, 0.0, 1.0, 0.003]
  - [0.0, 0.0, 0.0, 1.0]
  timeshift_cam_imu: -8.681e-05
  resolution: [752, 480]
"""


def test_as_its_wiki_shows_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "camchain.yaml"
    path.write_text(WIKI)
    with caplog.at_level(logging.WARNING):
        rig = load_rig(path)
    assert "time shifts to the IMU differ and are left out: -8.121e-05, -8.681e-05 s" in caplog.text
    assert (rig.names, rig.unit, rig["cam0"].intrinsics.size) == (("cam0", "cam1"), "m", (752, 480))
    np.testing.assert_array_equal(rig["cam0"].R, np.eye(3))
    np.testing.assert_array_equal(rig["cam1"].t, [-0.11, 0.02, 0.003])
    points = np.random.default_rng(0).normal(0, 0.3, (9, 3)) + [0, 0, 2]
    radtan = np.array([-0.27695497, 0.06712482, 0.00087538, 0.00011556])
    K = np.array([[461.629, 0, 362.680], [0, 460.152, 246.049], [0, 0, 1]])
    expected = cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, radtan)[0][:, 0]
    np.testing.assert_allclose(rig["cam0"].project(points), expected, atol=1e-9)
    K = np.array([[456.587, 0, 379.999], [0, 455.134, 255.238], [0, 0, 1]])
    turn, equidistant = cv2.Rodrigues(rig["cam1"].R)[0], np.array([-0.01, 0.02, 0.003, 1e-4])
    expected = cv2.fisheye.projectPoints(points[:, None], turn, rig["cam1"].t, K, equidistant)[0][:, 0]
    np.testing.assert_allclose(rig["cam1"].project(points), expected, atol=1e-9)
    path.write_text("%YAML:1.0\n" + WIKI)
    assert load_rig(path, "kalibr").names == ("cam0", "cam1")


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 12))
@settings(max_examples=20, deadline=None)
def test_chains_come_back(
    tmp_path_factory: pytest.TempPathFactory, random_rig: Callable, same_rig: Callable, write_kalibr: Callable,
    seed: int, n: int,
) -> None:  # fmt: skip
    """Twelve cameras too: cam10 comes after cam2."""
    path = tmp_path_factory.mktemp("kalibr") / "camchain.yaml"
    cameras = []
    for i, camera in enumerate(random_rig(seed, n, "m")):
        old = camera.intrinsics
        intrinsics = Intrinsics(old.size, old.K, old.dist[:4], old.model)
        cameras.append(replace(camera, name=f"cam{i}", intrinsics=intrinsics, t=camera.t / 100))
    rig = CameraRig(tuple(cameras), "m")
    rig = rig.moved(1.0, rig.cameras[0].R, rig.cameras[0].t)  # cam0 is the world
    write_kalibr(path, rig)
    same_rig(load_rig(path), rig, atol=1e-11)
    np.testing.assert_array_equal(invert(load_rig(path).cameras[0].R, load_rig(path).cameras[0].t)[1], 0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("camera_model: pinhole", "camera_model: omni", r"cam0\.camera_model: expected 'pinhole', got 'omni'"),
        ("distortion_model: radtan", "distortion_model: fov", r"cam0\.distortion_model: expected radtan, equi.*'fov'"),
        ("0.00087538, ", "", r"cam0\.distortion_coeffs: expected 4 finite numbers"),
        ("461.629", "fast", r"cam0\.intrinsics: expected numbers"),
        ("461.629", ".nan", r"cam0\.intrinsics: expected 4 finite numbers"),
        ("461.629", "-461.629", r"cam0: K: expected a 3x3 matrix"),
        ("T_cn_cnm1", "T_cn", r"cam1: expected a key 'T_cn_cnm1'"),
        ("[0.0, -1.0, 0.0, -0.11]", "[0.0, 1.0, 0.0, -0.11]", r"cam1\.T_cn_cnm1: expected a rotation"),
        ("cam1:", "cam2:", r"cam2: expected cam1"),
        ("resolution: [752, 480]", "resolution: 752", r"cam0\.resolution: expected 2 finite"),
        ("cam0:", "cam0: 1\ncam3:", r"cam0: expected a camera's values, got 1"),
        ("  intrinsics", " intrinsics", r"expected YAML, got: .*line"),
    ],
)  # fmt: skip
def test_errors_name_file_camera_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "camchain.yaml"
    assert old in WIKI
    path.write_text(WIKI.replace(old, new, 1))
    with pytest.raises(InputError, match=r"(?s)camchain\.yaml: " + message):
        load_rig(path, "kalibr")


def test_no_distortion_and_no_camera(tmp_path: Path) -> None:
    path = tmp_path / "camchain.yaml"
    path.write_text(WIKI.replace("radtan", "none").replace("[-0.27695497, 0.06712482, 0.00087538, 0.00011556]", "[]"))
    assert not load_rig(path)["cam0"].intrinsics.dist.any()
    path.write_text("imu0: {}\n")
    with pytest.raises(InputError, match=r"expected cam0, cam1, \.\.\., got imu0"):
        load_rig(path, "kalibr")
