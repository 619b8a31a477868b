"""Points triangulated from other people's pixels, against the points that they triangulated."""

from __future__ import annotations

import itertools
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray

from calibration.camera import Camera, Intrinsics
from calibration.files import load_rig
from calibration.geometry import reprojection_errors, triangulate_linear, triangulate_points
from calibration.rig import CameraRig
from calibration.transforms import exp_so3

Array = NDArray[np.float64]


def dannce(folder: Path) -> tuple[CameraRig, Array, Array]:
    """Six cameras, pixels (6, n, 2), points (n, 3) mm; MATLAB's pixels count from 1."""
    path = folder / "dannce_mouse/markerless_mouse_1/label3d_dannce.mat"
    labels = [cell[0][0, 0] for cell in scipy.io.loadmat(path)["labelData"]]
    xy = np.stack([view["data_2d"].reshape(-1, 2) - 1 for view in labels])
    return load_rig(path, unit="mm", size=(1152, 1024)), xy, labels[0]["data_3d"].reshape(-1, 3)


@pytest.mark.real
def test_real_dannce_mouse_is_where_its_authors_put_it(real_data: Path) -> None:
    rig, xy, points = dannce(real_data)
    assert rig.names == tuple(f"Camera{i}" for i in range(1, 7))
    skews = [camera.intrinsics.K[0, 1] for camera in rig]  # px; without them the points would be 0.06 mm off
    np.testing.assert_allclose(skews, [-5.8, 1.4, -0.9, -5.9, -1.3, -4.9], atol=0.06)
    labelled = np.isfinite(points[:, 0])
    assert labelled.sum() > 1700
    # their pixels are the projections of their points: K with its skew, r, t and distortion are read right to rounding
    assert reprojection_errors(points, xy, rig)[:, labelled].max() < 1e-6
    for found in (triangulate_linear(xy, rig), triangulate_points(xy, rig).points):
        assert np.linalg.norm(found - points, axis=1)[labelled].max() < 1e-6


BODY_25B = [12, 14, 16, 22, 23, 24, 11, 13, 15, 19, 20, 21, 17, 18, 0, 6, 8, 10, 5, 7, 9]
"""Where OpenPose has the TRC's keypoints: hip to heel right (6) and left (6), neck, head, nose, right and left arm
(6)."""


def two_people(folder: Path) -> tuple[CameraRig, list[Array], list[Array]]:
    """The rig, the TRC's points (frames, 21, 3) m of both people, and their OpenPose x, y, score (4, frames, 21, 3)."""
    folder = folder / "pose2sim_multi"
    cameras = []
    for entry in tomllib.loads((folder / "Demo_MultiPerson/calibration/Calib_qualisys.toml").read_text()).values():
        if "matrix" in entry:
            intrinsics = Intrinsics(tuple(map(int, entry["size"])), entry["matrix"], entry["distortions"])
            cameras.append(Camera(entry["name"], intrinsics, exp_so3(entry["rotation"]), entry["translation"]))
    rig = CameraRig(tuple(cameras), "m")
    trial = folder / "S00_P01_MultiParticipants/S00_P01_T02_Participants1-2"
    truth = []
    for person in (1, 2):
        table = np.genfromtxt(next((trial / "pose-3d").glob(f"*_P{person}_0-100.trc")), skip_header=5, delimiter="\t")
        truth.append(table[:, 2:65].reshape(100, 21, 3)[..., [2, 0, 1]])  # Y is up
    found = [np.zeros((4, 100, 21, 3)) for _ in truth]
    for view, camera in enumerate(rig):
        for frame, file in enumerate(
            sorted((trial / f"pose/{camera.name.replace('_', '')}_json").glob("*.json"))[:100]
        ):
            people = [p["pose_keypoints_2d"] for p in json.loads(file.read_text())["people"] if p["pose_keypoints_2d"]]
            keypoints = np.array(people).reshape(-1, 25, 3)[:, BODY_25B]
            for person, points in enumerate(truth):
                far = np.linalg.norm(keypoints[..., :2] - camera.project(points[frame]), axis=-1)
                far = np.where(keypoints[..., 2] > 0, far, np.nan)
                enough = np.flatnonzero(np.isfinite(far).sum(axis=1) >= 5)
                if len(enough):
                    distance = np.nanmedian(far[enough], axis=1)
                    if distance.min() < 60:
                        found[person][view, frame] = keypoints[enough[distance.argmin()]]
    return rig, truth, found


def pose2sim_rule(xy: Array, score: Array, rig: CameraRig) -> Array:
    """Pose2Sim's point of one keypoint (3,): score-weighted DLT; drop views until the mean error is at most 15 px."""
    P = [camera.intrinsics.K @ np.column_stack((camera.R, camera.t)) for camera in rig]
    there = np.flatnonzero(score >= 0.3)
    for n in range(len(there), 1, -1):
        best = (np.inf, np.full(3, np.nan))
        for views in itertools.combinations(there, n):
            rows = [score[v] * (P[v][i] - xy[v, i] * P[v][2]) for v in views for i in (0, 1)]
            X = np.linalg.svd(np.array(rows))[2][-1]
            h = np.array([P[v] @ X for v in views])
            error = np.linalg.norm(h[:, :2] / h[:, 2:] - xy[list(views)], axis=1).mean()
            if error < best[0]:
                best = (error, X[:3] / X[3])
        if best[0] <= 15:
            return best[1]
    return np.full(3, np.nan)


@pytest.mark.real
def test_real_people_from_raw_openpose_agree_with_pose2sim(real_data: Path) -> None:
    rig, truth, found = two_people(real_data)
    for person, points in enumerate(truth):
        xy, score = found[person].reshape(4, -1, 3)[..., :2], found[person].reshape(4, -1, 3)[..., 2]
        points = points.reshape(-1, 3)
        some = slice(None, None, 11)  # the reading of the data is right: by Pose2Sim's own rule we get its own points
        own = [pose2sim_rule(xy[:, i], score[:, i], rig) for i in range(2100)[some]]
        interpolated = ~(np.linalg.norm(own - points[some], axis=1) < 1e-3)
        assert interpolated.mean() < 0.02
        result = triangulate_points(xy, rig, score=score)
        error = np.linalg.norm(result.points - points, axis=1)
        assert np.mean(error[some][~interpolated] < 0.030) > 0.96
        assert np.mean(error < 0.030) > 0.96
