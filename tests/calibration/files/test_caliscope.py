"""calibration.files.caliscope: what its versions wrote, and cameras that it did not place."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.errors import InputError
from calibration.files import load_rig

VECTOR = np.array([0.3, -0.2, 1.1])
CAMERA = """
[cameras.{key}]
cam_id = {key}
size = [1280, 720]
rotation_count = 1
error = 0.5
matrix = [[900.0, 0.0, 618.0], [0.0, 908.0, 394.0], [0.0, 0.0, 1.0]]
distortions = {distortions}
translation = [0.5, 0.25, 3.0]
rotation = {rotation}
grid_count = 39
fisheye = {fisheye}
"""
FIVE = "[-0.3, 0.05, -0.004, 0.004, 0.07]"


def camera(key: int = 0, rotation: object = None, distortions: str = FIVE, fisheye: str = "false") -> str:
    return CAMERA.format(key=key, rotation=rotation or VECTOR.tolist(), distortions=distortions, fisheye=fisheye)


def test_rotations_as_vectors_and_matrices_and_fisheyes(tmp_path: Path) -> None:
    R = cv2.Rodrigues(VECTOR)[0]
    path = tmp_path / "camera_array.toml"
    path.write_text(
        camera(10)
        + camera(2, R.tolist())
        + camera(3, [[v] for v in VECTOR.tolist()], "[[0.1, 0.02, 0.003, 0.0004]]", "true")
    )
    rig = load_rig(path)
    assert (rig.names, rig.unit) == (("cam_10", "cam_2", "cam_3"), "m")
    for one in rig:
        np.testing.assert_allclose(one.R, R, atol=1e-15)
        np.testing.assert_array_equal(one.t, [0.5, 0.25, 3.0])
        assert one.intrinsics.size == (1280, 720)
    assert [one.intrinsics.model for one in rig] == ["pinhole", "pinhole", "fisheye"]
    points = np.random.default_rng(0).normal(0, 0.3, (9, 3))
    expected = cv2.projectPoints(points, VECTOR, rig["cam_2"].t, rig["cam_2"].intrinsics.K, np.array(eval(FIVE)))[0]
    np.testing.assert_allclose(rig["cam_2"].project(points), expected[:, 0], atol=1e-9)


@pytest.mark.parametrize("word", ["cam", "port"])
def test_config_toml_of_earlier_versions(tmp_path: Path, word: str) -> None:
    path = tmp_path / "config.toml"
    old = camera(1, cv2.Rodrigues(VECTOR)[0].tolist()).replace("cameras.1", f"{word}_1").replace("fisheye = false", "")
    path.write_text(
        "CreationDate = 2023-03-31T09:56:43\n"
        + old.replace("cam_id", word + "_id" * (word == "cam"))
        + "[charuco]\ncolumns = 4\n"
    )
    rig = load_rig(path)
    assert rig.names == ("cam_1",)
    np.testing.assert_allclose(rig["cam_1"].R, cv2.Rodrigues(VECTOR)[0], atol=1e-15)


def test_cameras_that_were_not_placed_are_left_out_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "camera_array.toml"
    unposed = camera(1).replace("rotation = ", "# ").replace("translation = ", "# ")
    null = camera(2).replace(f"rotation = {VECTOR.tolist()}", 'rotation = "null"')
    ignored = camera(3) + "ignore = true\n"
    path.write_text(camera(0) + unposed + null + ignored)
    with caplog.at_level(logging.WARNING):
        assert load_rig(path).names == ("cam_0",)
    assert "cam_1, cam_2, cam_3" in caplog.text
    path.write_text(unposed + null)
    with pytest.raises(InputError, match=r"camera_array\.toml: no camera is placed; calibrate the extrinsics"):
        load_rig(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[0.3, -0.2, 1.1]", "[0.3, -0.2]", r"\[cameras\.0\]\.rotation: expected 3 finite numbers"),
        ("[0.3, -0.2, 1.1]", "[0.3, -0.2, nan]", r"\[cameras\.0\]\.rotation: expected 3 finite numbers"),
        ("[0.3, -0.2, 1.1]", "[[1, 0, 0], [0, 2, 0], [0, 0, 1]]", r"\[cameras\.0\]: camera 'cam_0': R: expected a 3x3"),
        ("[0.3, -0.2, 1.1]", "[[1, 0, 0], [0, 1, 0], [0, 0, -1]]", r"R: expected a 3x3 rotation"),
        ("size = [1280, 720]", "", r"\[cameras\.0\]: expected a key 'size'"),
        (FIVE, "[1.0]", r"\[cameras\.0\]: distortion"),
        ("fisheye = false", "fisheye = 1", r"\[cameras\.0\]\.fisheye: expected true or false"),
    ],
)
def test_errors_name_file_camera_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "camera_array.toml"
    text = camera()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        load_rig(path)
