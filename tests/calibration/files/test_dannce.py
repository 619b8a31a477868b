"""calibration.files.dannce: MATLAB's conventions, both versions of its files, one file or one a camera."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.camera import Intrinsics
from calibration.errors import InputError
from calibration.files import load_rig
from calibration.rig import CameraRig

SIZE = (1152, 1024)


def dannce_rig(random_rig: Callable[..., CameraRig], seed: int, n: int, names: str = "Camera{}") -> CameraRig:
    """Pinhole cameras of one size, five coefficients and skew, numbered from 1."""
    cameras = []
    for i, camera in enumerate(random_rig(seed, n, models=("pinhole",), skew=1.5)):
        intrinsics = Intrinsics(SIZE, camera.intrinsics.K, camera.intrinsics.dist[:5])
        cameras.append(replace(camera, name=names.format(i + 1), intrinsics=intrinsics))
    return CameraRig(tuple(cameras), "mm")


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 7), version=st.sampled_from(["5", "7.3", "folder"]))
@settings(max_examples=30, deadline=None)
def test_rigs_come_back(
    tmp_path_factory: pytest.TempPathFactory, random_rig: Callable, same_rig: Callable, write_dannce: Callable,
    write_dannce_parts: Callable, seed: int, n: int, version: str,
) -> None:  # fmt: skip
    path = tmp_path_factory.mktemp("dannce") / "day1_dannce.mat"
    rig = dannce_rig(random_rig, seed, n, "Camera{}" if version == "folder" else "lens {}")
    if version == "folder":
        path = path.parent / "calibration"
        write_dannce_parts(path, rig)
    else:
        write_dannce(path, rig, version)
    same_rig(load_rig(path, unit="mm", size=SIZE), rig, atol=1e-14)


def test_matlab_counts_pixels_from_one_and_multiplies_from_the_left(tmp_path: Path) -> None:
    """A point by dannce's own rule, [X 1] @ [r; t] @ K, less the 1 of MATLAB's pixels."""
    rng = np.random.default_rng(0)
    K = np.array([[1600.0, 0, 0], [2.5, 1650, 0], [600, 500, 1]])
    r = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    r *= np.sign(np.linalg.det(r))
    t = np.array([[10.0, 20, 400]])
    scipy.io.savemat(
        tmp_path / "hires_cam3_params.mat", {"K": K, "r": r, "t": t, "RDistort": [0, 0], "TDistort": [0, 0]}
    )
    rig = load_rig(tmp_path / "hires_cam3_params.mat", unit="mm", size=SIZE)
    assert rig.names == ("Camera3",)
    X = rng.normal(0, 30, (8, 3))
    image = np.column_stack((X, np.ones(8))) @ np.vstack((r, t)) @ K
    np.testing.assert_allclose(rig.project(X)[0], image[:, :2] / image[:, 2:] - 1, atol=1e-9)
    assert load_rig(tmp_path, unit="mm", size=SIZE).names == ("Camera3",)


WHOLE = {
    "K": np.array([[900.0, 0, 0], [0, 900, 0], [600, 500, 1]]),
    "r": np.eye(3),
    "t": np.zeros((1, 3)),
    "RDistort": [0.1, 0.2, 0.3],
    "TDistort": [0.0, 0.0],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"K": WHOLE["K"].T}, r"Camera1: K: expected a 3x3 matrix"),
        ({"K": np.full((3, 3), np.nan)}, r"Camera1\.K: expected 3x3 finite numbers"),
        ({"r": np.diag([1.0, 1, -1])}, r"camera 'Camera1': R: expected a 3x3 rotation"),
        ({"t": np.zeros(2)}, r"Camera1\.t: expected 3 finite numbers"),
        ({"t": "far"}, r"Camera1\.t: expected numbers"),
        ({"RDistort": np.zeros(4)}, r"Camera1\.RDistort: expected 2 or 3 numbers"),
        ({"TDistort": None}, r"Camera1: expected a key 'TDistort'"),
        ({"m": 1.0}, r"Camera1: films by a mirror"),
    ],
)
def test_errors_name_file_camera_and_field(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "cam1_params.mat"
    scipy.io.savemat(path, {key: value for key, value in (WHOLE | change).items() if value is not None})
    with pytest.raises(InputError, match=r"cam1_params\.mat.*" + message):
        load_rig(path, unit="mm", size=SIZE)


def test_a_file_without_names_or_with_too_few(tmp_path: Path) -> None:
    path = tmp_path / "rig_dannce.mat"
    params = np.empty((2, 1), dtype=object)
    params[:, 0] = [WHOLE, WHOLE]
    scipy.io.savemat(path, {"params": params})
    assert load_rig(path, unit="mm", size=SIZE).names == ("Camera1", "Camera2")
    scipy.io.savemat(path, {"params": params, "camnames": "only"})
    with pytest.raises(InputError, match="as many camnames as params, got 1 and 2"):
        load_rig(path, unit="mm", size=SIZE)
    scipy.io.savemat(path, {"params": np.array([1.0, 2.0])})
    with pytest.raises(InputError, match="Camera1: expected the fields K, RDistort, TDistort, r, t, got 1"):
        load_rig(path, unit="mm", size=SIZE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="expected files such as hires_cam1_params"):
        load_rig(tmp_path / "empty", "dannce", unit="mm", size=SIZE)
    (tmp_path / "none.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    with pytest.raises(InputError, match="expected a whole MATLAB file"):
        load_rig(tmp_path / "none.mat", unit="mm", size=SIZE)
    with pytest.raises(InputError, match="expected a MATLAB file, found none"):
        load_rig(tmp_path / "away.mat", "dannce", unit="mm", size=SIZE)
