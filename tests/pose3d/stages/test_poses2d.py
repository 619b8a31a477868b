"""Import of 2D poses: any tool's files and clocks become one frames axis."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.errors import InputError
from calibration.rig import CameraRig
from calibration.synthetic import ring_rig
from pose3d.files import load_poses, save_poses
from pose3d.poses import Poses
from pose3d.session import Session, SkeletonTable
from pose3d.skeleton import Skeleton
from pose3d.stages.poses2d import import_poses2d
from pose3d.stages.recording import read_timeline
from pose3d.timeline import SyncOptions

SKELETON = Skeleton(("nose", "tail", "ear"), edges=((0, 1),), bones=((0, 1),))


@pytest.fixture
def rig() -> CameraRig:
    return ring_rig(2, np.random.default_rng(0), radius=500.0, height=300.0, size=(320, 240))


def moving(frames: np.ndarray, start: float = 0.0) -> Poses:
    """Three keypoints that move by 2 px a frame to the right, from `start` frames before the first one."""
    points = np.array([[10.0, 10.0], [50.0, 20.0], [30.0, 40.0]]) + np.zeros((len(frames), 1, 3, 2))
    points[..., 0] += 2.0 * (frames + start)[:, None, None]
    return Poses(points, ids=np.zeros((len(frames), 1)), frame=frames, skeleton=SKELETON, fps=50.0)


def session_with(folder: Path, **views: Poses) -> Session:
    for name, poses in views.items():
        save_poses(folder / f"recordings/r/poses2d/{name}.nc", poses)
    return Session(file=folder / "pose3d.toml", data=folder, output=folder / "results")


def result(session: Session, name: str) -> Poses:
    return load_poses(session.results("r") / f"poses2d/{name}.nc")


def test_equal_clocks_change_nothing(tmp_path: Path, rig: CameraRig) -> None:
    session = session_with(tmp_path, cam0=moving(np.arange(20)), cam1=moving(np.arange(20)))
    report = import_poses2d(session, "r", rig)
    assert report.summary == {
        "cameras": 2,
        "frames": 20,
        "frames/s": 50.0,
        "keypoints": 3,
        "detections a frame": {"cam0": 1.0, "cam1": 1.0},
    }
    for name in ("cam0", "cam1"):
        found = result(session, name)
        np.testing.assert_array_equal(found.points, moving(np.arange(20)).points)
        np.testing.assert_allclose(found.time, np.arange(20) / 50.0)
        assert found.skeleton == SKELETON
    assert len(read_timeline(session.results("r") / "poses2d/timeline.npz")) == 20
    assert import_poses2d(session, "r", rig).skipped
    assert not import_poses2d(session, "r", rig, force=True).skipped


def test_offsets_are_interpolated_to_the_rigs_moments(tmp_path: Path, rig: CameraRig) -> None:
    """cam1 started half a frame later: its own points at a moment of cam0 lie between two of its frames."""
    late = moving(np.arange(20), start=0.5)
    session = session_with(tmp_path, cam0=moving(np.arange(20)), cam1=late)
    import_poses2d(replace(session, options={"sync": SyncOptions(offset_frames={"cam1": 0.5})}), "r", rig)
    one, other = result(session, "cam0"), result(session, "cam1")
    np.testing.assert_array_equal(one.frame, other.frame)
    both = ~(one.missing | other.missing)
    np.testing.assert_allclose(other.points[both][5:15], one.points[both][5:15], atol=1e-9)


def test_frames_per_second_of_the_session_win(tmp_path: Path, rig: CameraRig) -> None:
    session = replace(session_with(tmp_path, cam0=moving(np.arange(5)), cam1=moving(np.arange(5))), fps=10.0)
    import_poses2d(session, "r", rig)
    np.testing.assert_allclose(result(session, "cam1").time, np.arange(5) / 10.0)
    assert result(session, "cam1").fps == 10.0


def test_sparse_labels_keep_their_frame_numbers(tmp_path: Path, rig: CameraRig) -> None:
    session = session_with(tmp_path, cam0=moving(np.array([3, 10, 40])), cam1=moving(np.array([3, 40, 77])))
    import_poses2d(session, "r", rig)
    for name, missing in (("cam0", [77]), ("cam1", [10])):
        found = result(session, name)
        np.testing.assert_array_equal(found.frame, [3, 10, 40, 77])
        np.testing.assert_array_equal(found.frame[found.missing.all(axis=(1, 2))], missing)


def test_unequal_lengths_without_sync(tmp_path: Path, rig: CameraRig) -> None:
    session = session_with(tmp_path, cam0=moving(np.arange(20)), cam1=moving(np.arange(18)))
    with pytest.raises(InputError, match=r"cam0 20, cam1 18(.|\n)*\[sync\]\ntrim = true"):
        import_poses2d(session, "r", rig)
    import_poses2d(replace(session, options={"sync": SyncOptions(trim=True)}), "r", rig)
    assert len(result(session, "cam0").frame) == 18


def test_the_sessions_skeleton(tmp_path: Path, rig: CameraRig) -> None:
    session = session_with(tmp_path, cam0=moving(np.arange(5)), cam1=moving(np.arange(5)))
    table = SkeletonTable(keypoints=("ear", "nose", "chin", "tail"), bones=(("ear", "tail"),))
    import_poses2d(replace(session, skeleton=table), "r", rig)
    found = result(session, "cam0")
    assert found.skeleton == Skeleton(("ear", "nose", "chin", "tail"), bones=((0, 3),))
    np.testing.assert_array_equal(found.points[:, :, [1, 3, 0]], moving(np.arange(5)).points)
    assert found.missing[:, :, 2].all()


def test_timestamps_are_an_input(tmp_path: Path, rig: CameraRig) -> None:
    session = session_with(tmp_path, cam0=moving(np.arange(4)), cam1=moving(np.arange(4)))
    text = "camera,frame,time\n" + "".join(f"cam{c},{f},{f / 50 + c / 1000}\n" for f in range(4) for c in range(2))
    (tmp_path / "t.csv").write_text(text)
    session = replace(session, options={"sync": SyncOptions(timestamps=tmp_path / "t.csv")})
    assert not import_poses2d(session, "r", rig).skipped
    assert import_poses2d(session, "r", rig).skipped
    (tmp_path / "t.csv").write_text(text.replace("0.02", "0.0201"))
    assert not import_poses2d(session, "r", rig).skipped


@pytest.mark.parametrize("offset", [0.0, 0.5, -3.25])
def test_predicted_poses_in_windows_are_those_of_the_whole(tmp_path: Path, rig: CameraRig, offset: float) -> None:
    rng = np.random.default_rng(1)
    views = {}
    for name, start in (("cam0", 0), ("cam1", 2)):  # cam1 did not begin with frame 0, and lacks some
        frames = np.setdiff1d(np.arange(start, 40), [11, 25, 26])
        poses = moving(frames)
        points = poses.points.repeat(2, axis=1) + rng.normal(0.0, 0.3, (len(frames), 2, 3, 2))
        points[:, 1] += 100.0
        points[rng.random(points.shape[:3]) < 0.1] = np.nan
        ids, extras = np.full(points.shape[:2], -1), {"covariance": rng.random((*points.shape, 2))}
        views[name] = poses.replace(points=points, score=np.isfinite(points[..., 0]) * 0.5, ids=ids, extras=extras)
    session = replace(session_with(tmp_path, **views), window=7)
    session = replace(session, options={"sync": SyncOptions(offset_frames={"cam1": offset})})
    expected = import_poses2d(session, "r", rig).summary
    wholes = {name: result(session, name) for name in views}
    predicted = {name: tmp_path / f"recordings/r/poses2d/{name}.nc" for name in views}
    report = import_poses2d(session, "r", rig, predicted=predicted, force=True)
    assert report.summary == expected
    for name, whole in wholes.items():
        found = result(session, name)
        for what in ("points", "score", "ids", "frame", "time"):
            np.testing.assert_array_equal(getattr(found, what), getattr(whole, what), err_msg=what)
        np.testing.assert_array_equal(found.extras["covariance"], whole.extras["covariance"])
        assert (found.skeleton, found.fps) == (whole.skeleton, whole.fps)
    assert import_poses2d(session, "r", rig, predicted=predicted).skipped


def test_footage_of_numbered_images_is_counted_by_its_numbers(tmp_path: Path, rig: CameraRig) -> None:
    frames = np.array([5, 6, 9])
    session = session_with(tmp_path, cam0=moving(frames), cam1=moving(frames))
    for camera in ("cam0", "cam1"):
        (tmp_path / f"recordings/r/{camera}").mkdir()
        for frame in frames:
            cv2.imwrite(str(tmp_path / f"recordings/r/{camera}/{frame}.png"), np.zeros((240, 320, 3), np.uint8))
    import_poses2d(session, "r", rig)
    np.testing.assert_array_equal(result(session, "cam1").frame, frames)
    np.testing.assert_array_equal(read_timeline(session.results("r") / "poses2d/timeline.npz").frame[:, 1], frames)
    (tmp_path / "recordings/r/cam1/9.png").unlink()
    with pytest.raises(InputError, match=r"camera 'cam1': its 2D poses reach frame 9, .*cam1 has only 7 frames"):
        import_poses2d(session, "r", rig)
