"""calibration.files: rigs there and back in every format that is written, what a format cannot hold, damaged files."""

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

from calibration.camera import Camera, Intrinsics
from calibration.errors import InputError
from calibration.files import READABLE_RIGS, WRITABLE_RIGS, load_rig, save_rig
from calibration.rig import CameraRig

Make = Callable[..., CameraRig]
Same = Callable[..., None]
SUFFIX = {"opencv": "yml"}
OTHERS = ("aniposelib", "pose2sim", "opencv")


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 12), format=st.sampled_from(sorted(WRITABLE_RIGS)))
@settings(max_examples=60, deadline=None)
def test_every_rig_comes_back_from_every_format(
    tmp_path_factory: pytest.TempPathFactory, random_rig: Make, same_rig: Same, seed: int, n: int, format: str
) -> None:
    models = ("pinhole",) if format == "pose2sim" else ("pinhole", "fisheye")
    rig = random_rig(seed, n, unit="m" if format == "pose2sim" else "mm", models=models)
    path = tmp_path_factory.mktemp("rig") / f"rig.{SUFFIX.get(format, 'toml')}"
    save_rig(path, rig, format)
    written = path.read_bytes()
    for told in (None, format):
        same_rig(load_rig(path, told), rig, atol=0 if format == "opencv" else 1e-13)
    save_rig(path, rig, format)
    assert path.read_bytes() == written


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(names=st.lists(NAMES, min_size=1, max_size=3, unique=True), format=st.sampled_from(sorted(WRITABLE_RIGS)))
@settings(max_examples=60, deadline=None)
def test_names_come_back_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, random_rig: Make, names: list[str], format: str
) -> None:
    path = tmp_path_factory.mktemp("names") / f"rig.{SUFFIX.get(format, 'toml')}"
    cameras = random_rig(4, len(names), "m", models=("pinhole",)).cameras
    rig = CameraRig(tuple(replace(c, name=name) for c, name in zip(cameras, names, strict=True)), "m")
    if format == "opencv" and not all(name.isprintable() for name in names):
        with pytest.raises(InputError, match="cannot hold the name"):
            save_rig(path, rig, format)
    else:
        save_rig(path, rig, format)
        assert load_rig(path, format).names == rig.names


@pytest.mark.parametrize("unit", ["mm", "cm", "um", "inch", "m"])
def test_pose2sim_wants_metres(tmp_path: Path, random_rig: Make, unit: str) -> None:
    rig = random_rig(1, 3, unit, models=("pinhole",))
    save_rig(tmp_path / "rig.toml", rig, "pose2sim")
    found = load_rig(tmp_path / "rig.toml")
    assert found.unit == "m"
    scale = {"mm": 1e-3, "cm": 1e-2, "um": 1e-6, "inch": 0.0254, "m": 1.0}[unit]
    np.testing.assert_allclose(found.centers, scale * rig.centers, rtol=1e-12)
    points = rig.cameras[0].center + rig.cameras[0].R[2] * np.linspace(100, 900, 5)[:, None]
    np.testing.assert_allclose(found.cameras[0].project(scale * points), rig.cameras[0].project(points), atol=1e-8)


def one_camera(**change: object) -> CameraRig:
    K, dist, model, skew, unit = np.diag([500.0, 500, 1]), np.zeros(5), "pinhole", 0.0, "mm"
    K[0, 1] = change.pop("skew", skew)
    intrinsics = Intrinsics((640, 480), K, dist[: 4 if "model" in change else 5], str(change.pop("model", model)))
    unit = str(change.pop("unit", unit))
    return CameraRig(
        (Camera(**({"name": "top", "intrinsics": intrinsics, "R": np.eye(3), "t": np.ones(3)} | change)),), unit
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("format", "change", "message"),
    [
        *((f, {"offset": 0.02}, "cannot hold the clock's offset of 0.02; set it to 0") for f in OTHERS),
        *((f, {"drift": 1e-5}, "cannot hold the clock's drift of 1e-05") for f in OTHERS),
        *((f, {"skew": 2.0}, "cannot hold the skew of 2 px; calibrate without") for f in OTHERS),
        ("pose2sim", {"model": "fisheye"}, "cannot hold a fisheye; calibrate it as a pinhole camera, or write calib"),
        ("pose2sim", {"unit": "board"}, "wants metres, and how long is a 'board'"),
        ("pose2sim", {"name": "metadata"}, "rename the camera"),
        ("opencv", {"name": "a\nb"}, "cannot hold the name 'a\\\\nb'"),
    ],
)  # fmt: skip
def test_what_a_format_cannot_hold_is_an_error(
    tmp_path: Path, format: str, change: dict[str, object], message: str
) -> None:
    path = tmp_path / "rig.toml"
    with pytest.raises(InputError, match=message) as told:
        save_rig(path, one_camera(**change), format)
    assert str(path) in str(told.value)
    assert change.keys() <= {"unit", "name"} or "camera 'top'" in str(told.value)
    assert not path.exists()
    if "name" not in change:
        save_rig(path, one_camera(**change))  # ours holds all of it
        found = load_rig(path).cameras[0]
        assert (found.offset, found.drift) == (change.get("offset", 0.0), change.get("drift", 0.0))
        assert found.intrinsics.K[0, 1] == change.get("skew", 0.0)


@pytest.mark.parametrize("format", ["aniposelib", "pose2sim", "opencv"])
def test_a_covariance_is_left_out_with_a_warning(tmp_path: Path, format: str, caplog: pytest.LogCaptureFixture) -> None:
    rig = replace(one_camera(), covariance=np.eye(18))
    with caplog.at_level(logging.WARNING):
        save_rig(tmp_path / "rig.toml", rig, format)
    assert "cannot hold the rig's covariance; only calibration.toml does" in caplog.text
    assert [p.name for p in tmp_path.iterdir()] == ["rig.toml"]


@pytest.fixture(scope="module")
def samples(
    tmp_path_factory: pytest.TempPathFactory, random_rig: Make, write_mc_calib: Callable, write_kalibr: Callable,
    write_dannce: Callable,
) -> dict[str, Path]:  # fmt: skip
    """A whole file of every format."""
    folder = tmp_path_factory.mktemp("samples")
    suffixes = {"mc_calib": "yml", "kalibr": "yaml", "dannce": "mat", "dannce73": "mat", "opencv": "yml"}
    paths = {name: folder / f"{name}.{suffixes.get(name, 'toml')}" for name in (*READABLE_RIGS, "dannce73")}
    rig = random_rig(3, 3, "m", models=("pinhole",))
    for name in WRITABLE_RIGS:
        save_rig(paths[name], rig, name)
    write_mc_calib(paths["mc_calib"], rig)
    write_kalibr(paths["kalibr"], rig)
    write_dannce(paths["dannce"], rig)
    write_dannce(paths["dannce73"], rig, "7.3")
    text = paths["calibration"].read_text().split("[metadata]")[0]
    paths["caliscope"].write_text(
        text.replace("[cam_", "[cameras.").replace('name = "cam ', "cam_id = ").replace('"\nsize', "\nsize")
    )
    return paths


def load_any(path: Path, format: str | None = None) -> CameraRig | None:
    """The rig, whatever must be said besides; None where the file is refused."""
    for unit in (None, "m"):
        for size in (None, (640, 480)):
            told = ""
            try:
                return load_rig(path, format, unit, size)
            except InputError as error:
                told = str(error)
            assert path.stem in told
    return None


@pytest.mark.parametrize("name", [*READABLE_RIGS, "dannce73"])
def test_every_format_is_told_by_its_content(samples: dict[str, Path], name: str) -> None:
    found = load_any(samples[name])
    assert found is not None
    assert len(found) == 3


@given(name=st.sampled_from([*READABLE_RIGS, "dannce73"]), data=st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, samples: dict[str, Path], name: str, data: st.DataObject
) -> None:
    """Cut off, or with some bytes exchanged: never anything but a rig or an InputError that names the file."""
    whole = samples[name].read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:at]
    if samples[name].suffix != ".mat" and data.draw(st.booleans()):  # exchanged sizes of arrays could ask for gigabytes
        junk = data.draw(st.sampled_from([b"nan", b"0", b"]", b'"', b"\x00", b"\xff", b"- ", b"\n", b"inf", b": "]))
        damaged += junk + whole[at + len(junk) :]
    path = tmp_path_factory.mktemp("damaged") / samples[name].name
    path.write_bytes(damaged)
    for format in (None, name.removesuffix("73")):
        load_any(path, format)


def test_errors_say_what_to_do(tmp_path: Path, samples: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="expected a calibration file, found none; check the path"):
        load_rig(tmp_path / "none.toml")
    (tmp_path / "a.yml").write_text("- 1\n- 2\n")
    with pytest.raises(
        InputError, match=r"a\.yml: not a rig's format .* give format=, or pose3d convert --from \(calibration: our"
    ):
        load_rig(tmp_path / "a.yml")
    with pytest.raises(InputError, match=r"found none; check|not a rig's format"):
        load_rig(tmp_path)
    with pytest.raises(InputError, match=r"the file says images of .* px, got size=.*; leave it out"):
        load_rig(samples["calibration"], size=(1, 1))
    with pytest.raises(InputError, match=r"the file says images of .* px, got size=.*; leave it out"):
        load_rig(samples["opencv"], size=(1, 1))
    for name in ("dannce", "mc_calib"):
        with pytest.raises(InputError, match="does not say its unit of length; give --unit"):
            load_rig(samples[name], size=(640, 480) if name == "dannce" else None)
    with pytest.raises(InputError, match=r"size of the images; give size=.*pose3d convert --size"):
        load_rig(samples["dannce"], unit="mm")
    for name in ("kalibr", "caliscope", "pose2sim"):
        with pytest.raises(InputError, match='in unit = "m", got unit="mm"'):
            load_rig(samples[name], unit="mm")


def test_opencv_reads_what_we_write_and_projects_alike(tmp_path: Path, random_rig: Make) -> None:
    rig = random_rig(7, 6)
    save_rig(tmp_path / "rig.yml", rig)
    storage = cv2.FileStorage(str(tmp_path / "rig.yml"), cv2.FILE_STORAGE_READ)
    assert storage.getNode("unit").string() == "mm"
    cameras = storage.getNode("cameras")
    for i, camera in enumerate(rig):
        node = cameras.at(i)
        K, dist, R, T = (node.getNode(key).mat() for key in ("camera_matrix", "distortion_coefficients", "R", "T"))
        points = camera.center + camera.R[2] * 500 + np.random.default_rng(i).normal(0, 40, (9, 3))
        fisheye = node.getNode("fisheye_model").real()
        project = cv2.fisheye.projectPoints if fisheye else cv2.projectPoints
        expected = (
            project(points[:, None], cv2.Rodrigues(R)[0], T, K, dist)
            if fisheye
            else project(points, cv2.Rodrigues(R)[0], T, K, dist)
        )[0]
        np.testing.assert_allclose(camera.project(points), expected.reshape(-1, 2), atol=1e-6)
    assert cameras.size() == 6
