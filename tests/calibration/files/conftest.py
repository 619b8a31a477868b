"""Rigs of every kind that a camera may be, and files of other tools that hold them, for all formats' tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import scipy.io
import yaml

from calibration.camera import Camera, Intrinsics
from calibration.rig import CameraRig
from calibration.transforms import exp_so3, invert

N_DIST = {"pinhole": (0, 4, 5, 8), "fisheye": (0, 4)}


@pytest.fixture(scope="session")
def random_rig() -> Callable[..., CameraRig]:
    """A rig of n cameras with every model and number of coefficients in turn; rotations from none to half a turn."""

    def make(
        seed: int, n: int = 6, unit: str = "mm", models: tuple[str, ...] = ("pinhole", "fisheye"), skew: float = 0.0
    ) -> CameraRig:
        rng = np.random.default_rng(seed)
        kinds = [(model, n_dist) for model in models for n_dist in N_DIST[model]]
        cameras = []
        for i in range(n):
            model, n_dist = kinds[(seed + i) % len(kinds)]
            fx, fy, cx, cy = rng.uniform(300, 1800, 4)
            K = np.array([[fx, skew * (i + 1), cx], [0, fy, cy], [0, 0, 1]])
            size = (int(rng.integers(2, 4000)), int(rng.integers(2, 4000)))
            intrinsics = Intrinsics(size, K, rng.normal(0, 0.05, n_dist), model)
            axis = rng.normal(size=3)
            angle = (0.0, np.pi, *rng.uniform(0, np.pi, 4))[i % 6]
            R = exp_so3(angle * axis / np.linalg.norm(axis))
            cameras.append(Camera(f"cam {i}", intrinsics, R, rng.normal(0, 300, 3)))
        return CameraRig(tuple(cameras), unit)

    return make


@pytest.fixture(scope="session")
def same_rig() -> Callable[..., None]:
    """Assert that two rigs are one, exactly but for rotations and translations within atol (relative for the
    latter)."""

    def same(found: CameraRig, truth: CameraRig, atol: float = 0.0) -> None:
        assert (found.names, found.unit) == (truth.names, truth.unit)
        for a, b in zip(found, truth, strict=True):
            assert (a.intrinsics.size, a.intrinsics.model) == (b.intrinsics.size, b.intrinsics.model)
            np.testing.assert_allclose(a.intrinsics.K, b.intrinsics.K, rtol=atol, atol=0)
            np.testing.assert_array_equal(a.intrinsics.parameters[4:], b.intrinsics.parameters[4:])
            np.testing.assert_allclose(a.R, b.R, rtol=0, atol=atol)
            np.testing.assert_allclose(a.t, b.t, rtol=atol, atol=atol * np.abs(b.t).max())
            assert (a.offset, a.drift) == (b.offset, b.drift)

    return same


@pytest.fixture(scope="session")
def write_mc_calib() -> Callable[[Path, CameraRig], None]:
    """What MC-Calib's `saveCamerasParams` writes, with OpenCV itself."""

    def write(path: Path, rig: CameraRig) -> None:
        storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
        storage.write("nb_camera", len(rig))
        for i, camera in enumerate(rig):
            storage.startWriteStruct(f"camera_{i}", cv2.FileNode_MAP)
            storage.write("camera_matrix", camera.intrinsics.K)
            storage.write("distortion_vector", camera.intrinsics.dist[None])
            storage.write("distortion_type", int(camera.intrinsics.model == "fisheye"))
            storage.write("camera_group", 0)
            storage.write("img_width", camera.intrinsics.size[0])
            storage.write("img_height", camera.intrinsics.size[1])
            storage.write("camera_pose_matrix", homogeneous(*invert(camera.R, camera.t)))
            storage.endWriteStruct()
        storage.release()

    return write


@pytest.fixture(scope="session")
def write_kalibr() -> Callable[[Path, CameraRig], None]:
    """What Kalibr's `CameraChainParameters` holds, dumped by PyYAML as it does it."""

    def write(path: Path, rig: CameraRig) -> None:
        chain: dict[str, Any] = {}
        for i, camera in enumerate(rig):
            K, fisheye = camera.intrinsics.K, camera.intrinsics.model == "fisheye"
            chain[f"cam{i}"] = {
                "cam_overlaps": [1],
                "camera_model": "pinhole",
                "distortion_coeffs": camera.intrinsics.dist[:4].tolist(),
                "distortion_model": "equidistant" if fisheye else "radtan",
                "intrinsics": K[[0, 1, 0, 1], [0, 1, 2, 2]].tolist(),
                "resolution": list(camera.intrinsics.size),
                "rostopic": f"/cam{i}/image_raw",
            }
            if i:
                before = rig.cameras[i - 1]
                step = homogeneous(camera.R, camera.t) @ homogeneous(*invert(before.R, before.t))
                chain[f"cam{i}"]["T_cn_cnm1"] = step.tolist()
        path.write_text(yaml.dump(chain))

    return write


@pytest.fixture(scope="session")
def write_dannce() -> Callable[..., None]:
    """A DANNCE file of version 5 (SciPy's) or 7.3 (HDF5 as MATLAB lays it out)."""

    def write(path: Path, rig: CameraRig, version: str = "5") -> None:
        fields = [matlab_fields(camera) for camera in rig]
        if version == "5":
            params = np.empty((len(rig), 1), dtype=object)
            names = np.empty((1, len(rig)), dtype=object)
            params[:, 0], names[0] = fields, rig.names
            scipy.io.savemat(path, {"params": params, "camnames": names, "sync": np.zeros(3)})
            return
        with h5py.File(path, "w", userblock_size=512) as file:
            cells: dict[str, list[Any]] = {"params": [], "camnames": []}
            for i, (name, values) in enumerate(zip(rig.names, fields, strict=True)):
                group = file.create_group(f"#refs#/p{i}")
                for key, value in values.items():
                    group[key] = np.atleast_2d(value).T
                text = file.create_dataset(f"#refs#/n{i}", data=np.array([[ord(c)] for c in name], dtype=np.uint16))
                text.attrs["MATLAB_class"] = np.bytes_("char")
                cells["params"].append(group.ref)
                cells["camnames"].append(text.ref)
            file.create_dataset("params", data=np.array([cells["params"]], dtype=h5py.ref_dtype))
            file.create_dataset("camnames", data=np.array(cells["camnames"], dtype=h5py.ref_dtype)[:, None])

    return write


@pytest.fixture(scope="session")
def write_dannce_parts() -> Callable[[Path, CameraRig], None]:
    """A folder of hires_cam1_params.mat, ..."""

    def write(folder: Path, rig: CameraRig) -> None:
        folder.mkdir()
        for i, camera in enumerate(rig):
            scipy.io.savemat(folder / f"hires_cam{i + 1}_params.mat", matlab_fields(camera))

    return write


def homogeneous(R: np.ndarray, t: np.ndarray) -> np.ndarray:
    return np.vstack((np.column_stack((R, t)), [0, 0, 0, 1]))


def matlab_fields(camera: Camera) -> dict[str, np.ndarray]:
    """MATLAB's transposed matrices, row vectors, and pixels that count from 1."""
    K = camera.intrinsics.K + np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0]])
    k1, k2, p1, p2, k3 = camera.intrinsics.dist[:5]
    fields = {"K": K.T, "RDistort": [k1, k2, k3], "TDistort": [p1, p2], "r": camera.R.T, "t": camera.t[None]}
    return {key: np.array(value) for key, value in fields.items()}
