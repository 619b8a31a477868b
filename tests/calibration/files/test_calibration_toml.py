"""calibration.files: calibration.toml there and back, beside its covariance, and aniposelib as a reader and writer."""

from __future__ import annotations

import logging
import tomllib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration.camera import Camera, Intrinsics
from calibration.errors import InputError
from calibration.files import load_rig, save_rig
from calibration.files.calibration_toml import covariance_path
from calibration.rig import RIG_PARAMETERS, CameraRig

ANIPOSELIB = """
[cam_0]
name = "left"
size = [ 640, 480,]
matrix = [ [ 500.0, 0.0, 320.5,], [ 0.0, 510.0, 240.25,], [ 0.0, 0.0, 1.0,],]
distortions = [ -0.1, 0.02, 0.001, -0.002, 0.003,]
rotation = [ 0.3, -0.2, 1.1,]
translation = [ 10.0, -20.0, 300.0,]

[cam_1]
name = "wide"
size = [ 640, 480,]
matrix = [ [ 300.0, 0.0, 320.0,], [ 0.0, 300.0, 240.0,], [ 0.0, 0.0, 1.0,],]
distortions = [ 0.01, 0.002, 0.0003, 0.0,]
rotation = [ 0.0, 0.0, 0.0,]
translation = [ 0.0, 0.0, 100.0,]
fisheye = true

[metadata]
adjusted = true
error = 0.4
"""


def make_rig(rng: np.random.Generator, n: int = 3, covariance: bool = True) -> CameraRig:
    cameras = []
    for i in range(n):
        fisheye = i % 3 == 2
        fx, fy, cx, cy = rng.uniform(400, 900, 4)
        intrinsics = Intrinsics(
            size=(1280 + i, 1024),
            K=np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]),
            dist=rng.normal(0, 0.05, 4 if fisheye else (5, 8)[i % 2]),
            model="fisheye" if fisheye else "pinhole",
        )
        R = cv2.Rodrigues(rng.normal(0, 1.5, 3))[0]
        cameras.append(Camera(f"camera {i}", intrinsics, R, rng.normal(0, 300, 3), offset=0.01 * i, drift=1e-5 * i))
    half = rng.normal(size=(18 * n, 18 * n))
    return CameraRig(tuple(cameras), "mm", half @ half.T if covariance else None)


def assert_same_rig(a: CameraRig, b: CameraRig) -> None:
    assert a.names == b.names
    assert a.unit == b.unit
    for one, other in zip(a, b, strict=True):
        assert one.intrinsics.size == other.intrinsics.size
        assert one.intrinsics.model == other.intrinsics.model
        np.testing.assert_array_equal(one.intrinsics.K, other.intrinsics.K)
        np.testing.assert_array_equal(one.intrinsics.dist, other.intrinsics.dist)
        np.testing.assert_allclose(one.R, other.R, rtol=0, atol=1e-14)
        np.testing.assert_array_equal(one.t, other.t)
        assert (one.offset, one.drift) == (other.offset, other.drift)
    if a.covariance is None or b.covariance is None:
        assert a.covariance is b.covariance
    else:
        np.testing.assert_array_equal(a.covariance, b.covariance)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 12))
@settings(max_examples=15, deadline=None)
def test_a_rig_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, seed: int, n: int) -> None:
    path = tmp_path_factory.mktemp("rig") / "calibration.toml"
    rig = make_rig(np.random.default_rng(seed), n, covariance=n < 4)
    save_rig(path, rig)
    assert_same_rig(load_rig(path), rig)


def test_rotation_is_world_to_camera_as_a_rodrigues_vector(tmp_path: Path) -> None:
    path = tmp_path / "calibration.toml"
    path.write_text(ANIPOSELIB)
    rig = load_rig(path, unit="mm")
    point = np.array([[30.0, 40.0, 50.0]])
    expected, _ = cv2.projectPoints(
        point,
        np.array([0.3, -0.2, 1.1]),
        np.array([10.0, -20.0, 300.0]),
        np.array([[500.0, 0, 320.5], [0, 510, 240.25], [0, 0, 1]]),
        np.array([-0.1, 0.02, 0.001, -0.002, 0.003]),
    )
    np.testing.assert_allclose(rig["left"].project(point)[0], expected.ravel(), atol=1e-9)
    assert rig["wide"].intrinsics.model == "fisheye"
    assert rig["left"].intrinsics.size == (640, 480)


def test_a_file_that_does_not_say_its_unit_needs_one(tmp_path: Path) -> None:
    path = tmp_path / "calibration.toml"
    path.write_text(ANIPOSELIB)
    with pytest.raises(InputError, match=r"calibration\.toml: .*unit"):
        load_rig(path)
    assert load_rig(path, unit="cm").unit == "cm"
    path.write_text(ANIPOSELIB + 'unit = "mm"\n')
    assert load_rig(path).unit == "mm"
    assert load_rig(path, unit="mm").unit == "mm"
    with pytest.raises(InputError, match='unit = "mm", got unit="m"'):
        load_rig(path, unit="m")


def test_cameras_stay_in_the_files_order_and_tables_sort_as_strings(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "calibration.toml"
    rig = make_rig(rng, 12, covariance=False)
    save_rig(path, rig)
    assert load_rig(path).names == rig.names
    tables = tomllib.loads(path.read_text())
    in_string_order = [tables[key]["name"] for key in sorted(tables) if key != "metadata"]
    assert in_string_order == list(rig.names)  # aniposelib sorts like this
    swapped = "\n".join(["[cam_10]", *path.read_text().split("[cam_10]")[1].split("[cam_11]")[0].splitlines()[1:]])
    path.write_text(swapped + "\n" + path.read_text().split("[cam_01]")[0] + '[metadata]\nunit = "mm"\n')
    assert load_rig(path).names == ("camera 10", "camera 0")


def test_same_rig_same_bytes_and_no_half_written_file(tmp_path: Path, rng: np.random.Generator) -> None:
    rig = make_rig(rng)
    for name in ("a", "b"):
        save_rig(tmp_path / name / "calibration.toml", rig)
    for file in ("calibration.toml", "calibration.covariance.npz"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["calibration.covariance.npz", "calibration.toml"]


def test_covariance_belongs_to_the_bytes_of_its_toml(
    tmp_path: Path, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "calibration.toml"
    rig = make_rig(rng)
    save_rig(path, rig)
    with np.load(covariance_path(path), allow_pickle=False) as stored:
        assert list(stored["parameters"][:2]) == ["camera 0.rx", "camera 0.ry"]
        assert len(stored["parameters"]) == len(RIG_PARAMETERS) * 3
    path.write_text(path.read_text() + "\n# touched\n")
    with caplog.at_level(logging.WARNING):
        assert load_rig(path).covariance is None
    assert "another version" in caplog.text


def test_a_damaged_covariance_is_left_out_with_a_warning(
    tmp_path: Path, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "calibration.toml"
    save_rig(path, make_rig(rng))
    whole = covariance_path(path).read_bytes()
    for damaged in (b"", b"not a zip", whole[: len(whole) // 2]):
        covariance_path(path).write_bytes(damaged)
        caplog.clear()
        assert load_rig(path).covariance is None
        assert "calibration.covariance.npz" in caplog.text
    other = make_rig(rng, 2)
    save_rig(tmp_path / "other.toml", other)
    assert load_rig(tmp_path / "other.toml").covariance is not None


def test_an_exact_rig_takes_an_old_covariance_away(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "calibration.toml"
    save_rig(path, make_rig(rng))
    save_rig(path, make_rig(rng, covariance=False))
    assert not covariance_path(path).exists()
    assert load_rig(path).covariance is None


def test_names_with_quotes_and_controls_survive(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "calibration.toml"
    camera = make_rig(rng, 1).cameras[0]
    odd = 'a "b" \\ c\td\n é \x7f'
    save_rig(path, CameraRig((Camera(odd, camera.intrinsics, camera.R, camera.t),), "µm"))
    assert load_rig(path).names == (odd,)
    assert load_rig(path).unit == "µm"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "left"', 'nam = "left"', r"\[cam_0\]: unknown key 'nam'; did you mean 'name'"),
        ("size = [ 640, 480,]", "size = [ 640 ]", r"\[cam_0\]\.size: expected 2 finite numbers"),
        ("rotation = [ 0.3, -0.2, 1.1,]", "", r"\[cam_0\]: expected a key 'rotation'"),
        ("0.003,]", '"x",]', r"\[cam_0\]\.distortions: expected numbers"),
        ("0.003,]", "0.003, 0.1]", r"\[cam_0\]: distortion"),
        ('name = "wide"', 'name = "left"', r"calibration\.toml: rig: .*left more than once"),
        ("[ 500.0, 0.0,", "[ -500.0, 0.0,", r"\[cam_0\]: K: expected a 3x3 matrix"),
        ("[ 500.0, 0.0,", "[ nan, 0.0,", r"\[cam_0\]\.matrix: expected 3x3 finite numbers"),
        ("fisheye = true", 'fisheye = "yes"', r"\[cam_1\]\.fisheye: expected true or false, got 'yes'"),
        ("fisheye = true", "offset = nan", r"\[cam_1\]\.offset: expected one finite"),
        ("fisheye = true", 'drift = "none"', r"\[cam_1\]\.drift: expected numbers"),
        ("\n[cam_0]", "version = 3\n[cam_0]", r"calibration\.toml: \[version\]: expected a camera's table, got 3"),
    ],
)
def test_errors_name_file_camera_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "calibration.toml"
    assert old in ANIPOSELIB
    path.write_text(ANIPOSELIB.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        load_rig(path, unit="mm")


def test_no_camera_and_no_format_of_ours(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "calibration.toml"
    path.write_text('[metadata]\nunit = "mm"\n')
    with pytest.raises(InputError, match="expected a table for each camera"):
        load_rig(path)
    with pytest.raises(InputError, match="unknown rig format 'pose2simm'; did you mean 'pose2sim'"):
        load_rig(path, format="pose2simm")
    with pytest.raises(InputError, match="cannot write rig format 'kalibr'; valid: calibration, aniposelib"):
        save_rig(path, make_rig(rng), format="kalibr")
    with pytest.raises(InputError, match=r"rig\.json: the suffix names no format; use \.toml, \.yml"):
        save_rig(tmp_path / "rig.json", make_rig(rng))


def project(camera: object, points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(camera.project(points)).reshape(-1, 2)  # type: ignore[attr-defined]


def test_aniposelib_reads_what_we_write_and_we_what_it_writes(tmp_path: Path, rng: np.random.Generator) -> None:
    cameras = pytest.importorskip("aniposelib.cameras", reason="aniposelib is not installed")
    path = tmp_path / "calibration.toml"
    cameras_here = tuple(replace(c, offset=0.0, drift=0.0) for c in make_rig(rng, 12, covariance=False))
    rig = CameraRig(cameras_here, "mm")  # fisheyes and eight coefficients too
    save_rig(path, rig, "aniposelib")
    group = cameras.CameraGroup.load(str(path))
    assert group.get_names() == list(rig.names)
    points = np.stack([camera.center + camera.R[2] * 500 + rng.normal(0, 30, (5, 3)) for camera in rig])
    for theirs, ours, xyz in zip(group.cameras, rig, points, strict=True):
        np.testing.assert_allclose(project(theirs, xyz), ours.project(xyz), atol=1e-6)
    group.metadata = {"adjusted": True}
    group.dump(str(tmp_path / "theirs.toml"))
    back = load_rig(tmp_path / "theirs.toml", unit="mm")
    for name in rig.names:
        np.testing.assert_allclose(back[name].R, rig[name].R, atol=1e-12)
        np.testing.assert_array_equal(back[name].intrinsics.parameters, rig[name].intrinsics.parameters)
