"""calibration.files.opencv: stereo pairs as OpenCV's sample leaves them, XML, and files that are no rig."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.errors import InputError
from calibration.files import load_rig
from calibration.transforms import exp_so3

K = np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]])
R, T = exp_so3([0.1, -0.2, 0.3]), np.array([[-100.0], [2], [3]])
D = np.array([[-0.1, 0.02, 0.001, -0.002, 0.003, 0.1, 0.2, 0.3, 0, 0, 0, 0, 0, 0]])  # as the rational model has it


def write(path: Path, **values: object) -> None:
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    for key, value in values.items():
        storage.write(key, value)
    storage.release()


@pytest.mark.parametrize("suffix", ["yml", "xml"])
@pytest.mark.parametrize("letter", ["M", "K"])
def test_a_pair_in_one_file_or_in_two(tmp_path: Path, suffix: str, letter: str) -> None:
    intrinsics = {f"{letter}1": K, "D1": D, f"{letter}2": 2 * K - np.diag([0, 0, 1]), "D2": D[:, :5]}
    write(tmp_path / f"pair.{suffix}", **intrinsics, R=R, T=T)
    write(tmp_path / f"intrinsics.{suffix}", **intrinsics)
    write(tmp_path / f"extrinsics.{suffix}", R=R, T=T.T, Q=np.eye(4))
    for name in ("pair", "intrinsics", "extrinsics"):
        rig = load_rig(tmp_path / f"{name}.{suffix}", unit="mm", size=(640, 480))
        assert rig.names == ("camera1", "camera2")
        np.testing.assert_array_equal(rig["camera1"].R, np.eye(3))
        np.testing.assert_array_equal(rig["camera2"].R, R)
        points = np.random.default_rng(0).normal(0, 100, (9, 3)) + [0, 0, 1000]
        expected = cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, D)[0][:, 0]
        np.testing.assert_allclose(rig["camera1"].project(points), expected, atol=1e-9)
        expected = cv2.projectPoints(points, cv2.Rodrigues(R)[0], T, 2 * K - np.diag([0, 0, 1]), D[:, :5])[0][:, 0]
        np.testing.assert_allclose(rig["camera2"].project(points), expected, atol=1e-9)
    with pytest.raises(InputError, match="does not say its unit"):
        load_rig(tmp_path / f"pair.{suffix}", size=(640, 480))
    with pytest.raises(InputError, match="does not say the size"):
        load_rig(tmp_path / f"pair.{suffix}", unit="mm")


def test_a_pair_of_fisheyes(tmp_path: Path) -> None:
    write(tmp_path / "pair.yml", K1=K, D1=D[:, :4].T, K2=K, D2=D[:, :4].T, R=R, T=T, fisheye_model=1)
    rig = load_rig(tmp_path / "pair.yml", unit="mm", size=(640, 480))
    assert [camera.intrinsics.model for camera in rig] == ["fisheye", "fisheye"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"camera_matrix": K, "distortion_coefficients": D}, "what says nothing of where a camera is makes no rig"),
        ({"M1": K, "D1": D, "M2": K, "D2": D}, "calibrate the cameras together"),
        ({"M1": K, "D1": D, "M2": K, "R": R, "T": T}, "expected a key 'D2'"),
        ({"M1": K, "D1": D, "M2": K, "D2": D, "R": 2 * R, "T": T}, "camera 'camera2': R: expected a 3x3 rotation"),
        ({"M1": K, "D1": D + 0.1, "M2": K, "D2": D, "R": R, "T": T}, "distortion: expected"),
        ({"M1": K, "D1": D, "M2": K * np.nan, "D2": D, "R": R, "T": T}, r"\.M2: expected 3x3 finite numbers"),
        ({"M1": "K", "D1": D, "M2": K, "D2": D, "R": R, "T": T}, r"\.M1: expected numbers"),
        ({"flags": 3}, "not a rig's format that is known from its content"),
        ({"cameras": 3, "R": R, "T": T}, "expected `cameras`, or a pair's"),
    ],
)  # fmt: skip
def test_errors_name_file_and_key(tmp_path: Path, values: dict[str, object], message: str) -> None:
    write(tmp_path / "cameras.yml", **values)
    with pytest.raises(InputError, match=message) as told:
        load_rig(tmp_path / "cameras.yml", unit="mm", size=(640, 480))
    assert "cameras.yml" in str(told.value)


def test_ours_with_something_missing(tmp_path: Path) -> None:
    path = tmp_path / "rig.yml"
    path.write_text("%YAML:1.0\n---\ncameras:\n   - 3\n")
    with pytest.raises(InputError, match=r"cameras\[0\]: expected a camera's values, got 3"):
        load_rig(path, unit="mm")
    path.write_text("%YAML:1.0\n---\ncameras:\n   -\n      image_width: 3\n")
    with pytest.raises(InputError, match=r"cameras\[0\]\.name: expected the camera's name, got None"):
        load_rig(path, unit="mm")
    path.write_text('%YAML:1.0\n---\ncameras:\n   -\n      name: "a"\n      image_width: 3\n')
    with pytest.raises(InputError, match=r"cameras\[0\]: expected a key 'image_height'"):
        load_rig(path, unit="mm")
    path.write_text("%YAML:1.0\n---\ncameras: [ ]\n")
    with pytest.raises(InputError, match=r"expected at least one camera|expected `cameras`"):
        load_rig(path, unit="mm")
