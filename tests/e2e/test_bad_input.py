"""What is wrong is said with file, camera and remedy; exit code 1, no traceback, nothing lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.camera import Camera
from calibration.files import save_rig
from calibration.rig import CameraRig
from pose3d.cli import main
from pose3d.files import load_poses, save_poses
from pose3d.video import MovieWriter

pytestmark = pytest.mark.e2e

GIVEN = '[calibration]\nfile = "calibration.toml"\n[session]\nrecordings = ["walk"]\n'


@pytest.fixture
def given(made, session: Path) -> Path:
    """The session with a finished calibration."""
    save_rig(session / "calibration.toml", made.rig)
    (session / "pose3d.toml").write_text(GIVEN)
    return session


def movie(path: Path, size: tuple[int, int], frames: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with MovieWriter(path, 50.0, size) as writer:
        for _ in range(frames):
            writer.write(np.zeros((size[1], size[0], 3), dtype=np.uint8))


def spoil(path: Path, **changes: object) -> None:
    save_poses(path, load_poses(path).replace(**changes))


def test_unknown_keys_and_tables(given: Path, failing: Callable[..., str]) -> None:
    (given / "pose3d.toml").write_text(GIVEN + "[identify]\nindividual = 2\n[refin]\n")
    message = failing("run", given)
    assert f"{given / 'pose3d.toml'}: 2 mistakes" in message
    assert "identify.individual: unknown key; did you mean 'individuals'?" in message
    assert "refin: unknown table; did you mean 'refine'?" in message


def test_missing_file_of_a_camera(given: Path, failing: Callable[..., str]) -> None:
    (given / "pose3d.toml").write_text(GIVEN + '[cameras]\nnames = ["cam0", "cam1", "cam2"]\n')
    (given / "recordings/walk/poses2d/cam1.nc").unlink()
    message = failing("run", given)
    assert "camera 'cam1': expected" in message
    assert "recordings/walk/poses2d/cam1" in message
    assert "cameras.poses2d" in message


def test_unreadable_video(given: Path, failing: Callable[..., str]) -> None:
    (given / "recordings/walk/cam0.mp4").write_bytes(b"no video")
    assert f"{given / 'recordings/walk/cam0.mp4'}" in failing("run", given)
    assert "calibration.toml" in [p.name for p in (given / "results").iterdir()], "what was finished is kept"


def test_unequal_lengths_without_sync(given: Path, failing: Callable[..., str]) -> None:
    for name, frames in (("cam0", 60), ("cam1", 60), ("cam2", 57)):
        movie(given / f"recordings/walk/{name}.mp4", (480, 360), frames)
        path = given / f"recordings/walk/poses2d/{name}.nc"
        save_poses(path, load_poses(path).window(0, frames))
    message = failing("run", given)
    for part in ("cam0 60", "cam1 60", "cam2 57", "[sync]\ntrim = true"):
        assert part in message
    with (given / "pose3d.toml").open("a") as file:
        file.write("[sync]\ntrim = true\n[scene]\nsize = [160, 120]\nevery = 30\n")
    main(["run", str(given), "--json"])
    assert len(load_poses(given / "results/walk/poses3d.nc").frame) == 57


def test_video_of_another_size_than_the_calibration(given: Path, failing: Callable[..., str]) -> None:
    movie(given / "recordings/walk/cam0.mp4", (480, 360), 60)
    movie(given / "recordings/walk/cam1.mp4", (640, 480), 60)
    message = failing("run", given)
    assert "camera 'cam1'" in message
    assert "640 x 480" in message
    assert "480 x 360" in message


def test_poses_that_go_beyond_the_video(given: Path, failing: Callable[..., str]) -> None:
    movie(given / "recordings/walk/cam0.mp4", (480, 360), 50)
    message = failing("run", given)
    assert "camera 'cam0': its 2D poses reach frame 59" in message
    assert "only 50 frames" in message


def test_no_board_found_names_the_dictionaries_that_were_seen(session: Path, failing: Callable[..., str]) -> None:
    for path in session.glob("calibration/*/[2-9].png"):
        path.unlink()
    text = (session / "pose3d.toml").read_text()
    (session / "pose3d.toml").write_text(text.replace("marker_length", 'dictionary = "DICT_5X5_50"\nmarker_length'))
    message = failing("run", session)
    assert "DICT_5X5_50" in message
    assert "DICT_4X4" in message.split("seen", 1)[1]


def test_a_camera_that_never_sees_the_board_with_others_is_named(session: Path, failing: Callable[..., str]) -> None:
    for path in sorted((session / "calibration/cam2").iterdir()):
        path.rename(path.with_name(f"{1000 + int(path.stem)}.png"))
    assert "cam2" in failing("run", session)


def test_board_footage_of_unequal_length(session: Path, failing: Callable[..., str]) -> None:
    for name, frames in (("cam0", 8), ("cam1", 8), ("cam2", 6)):
        with MovieWriter(session / f"calibration/{name}.mp4", 10.0, (480, 360)) as writer:
            for frame in range(frames):
                writer.write(cv2.imread(str(session / f"calibration/{name}/{frame}.png"))[..., ::-1])
        shutil.rmtree(session / "calibration" / name)
    message = failing("run", session)
    assert "cam2 6" in message
    assert "[sync_calibration]\ntrim = true" in message


def test_missing_board_and_calibration(session: Path, failing: Callable[..., str]) -> None:
    (session / "pose3d.toml").write_text("")
    message = failing("run", session)
    assert f"{session / 'board.toml'}: expected the board's description" in message
    assert "[calibration]" in message
    (session / "pose3d.toml").write_text('[calibration]\nfile = "rig.toml"\n')
    assert f"{session / 'rig.toml'}: expected the given calibration" in failing("run", session)


def test_keypoints_that_are_not_in_the_skeleton(given: Path, failing: Callable[..., str]) -> None:
    (given / "pose3d.toml").write_text(GIVEN + '[skeleton]\nkeypoints = ["nose", "ear_l"]\n')
    message = failing("run", given)
    assert "cam0.nc" in message
    assert "keypoint 'ear_left' is not in the skeleton; did you mean 'ear_l'?" in message


def test_camera_names_that_do_not_match_and_the_remedy(made, given: Path, failing: Callable[..., str]) -> None:
    cameras = tuple(Camera(f"cam_{i}", c.intrinsics, c.R, c.t) for i, c in enumerate(made.rig))
    save_rig(given / "calibration.toml", CameraRig(cameras, "mm"))
    message = failing("run", given)
    assert "camera 'cam0'" in message
    assert "did you mean 'cam_0'" in message
    assert "[cameras]" in message
    remedy = "[cameras]\nrename = { cam_0 = 'cam0', cam_1 = 'cam1', cam_2 = 'cam2' }\n"
    (given / "pose3d.toml").write_text(GIVEN + remedy + "[scene]\nsize = [160, 120]\nevery = 30\n")
    main(["run", str(given), "--json"])
    assert (given / "results/walk/poses3d.csv").is_file()
    (given / "pose3d.toml").write_text(GIVEN + "[cameras]\nrename = { cam_9 = 'cam0' }\n")
    assert "cameras.rename: camera 'cam_9' is not in" in failing("run", given)


def test_poses_of_nothing_but_nan(given: Path, failing: Callable[..., str]) -> None:
    path = given / "recordings/walk/poses2d/cam1.nc"
    spoil(path, points=np.full_like(load_poses(path).points, np.nan))
    assert f"{path}: holds no keypoint" in failing("run", given)


def test_a_camera_that_shares_no_moment_with_the_others(given: Path, failing: Callable[..., str]) -> None:
    path = given / "recordings/walk/poses2d/cam1.nc"
    spoil(path, frame=np.arange(60) + 500, time=(np.arange(60) + 500) / 50)
    message = failing("run", given)
    assert "camera 'cam1' shares no frame with the others" in message
    assert "500 to 559" in message
    assert "[sync]" in message


def test_one_camera_is_not_enough(given: Path, failing: Callable[..., str]) -> None:
    for name in ("cam1", "cam2"):
        (given / f"recordings/walk/poses2d/{name}.nc").unlink()
    assert "at least two cameras, got one" in failing("run", given)


def test_three_dimensional_poses_as_input(made, given: Path, failing: Callable[..., str]) -> None:
    save_poses(given / "recordings/walk/poses2d/cam1.nc", made.animals)
    assert "expected 2D poses, got 3D ones" in failing("run", given)


def test_cameras_that_have_no_keypoint_in_common(given: Path, failing: Callable[..., str]) -> None:
    for k in range(3):
        path = given / f"recordings/walk/poses2d/cam{k}.nc"
        points = load_poses(path).points.copy()
        points[:, :, [i for i in range(points.shape[2]) if i != k]] = np.nan
        spoil(path, points=points)
    assert "no individual is seen by two cameras at once" in failing("run", given)


def test_unknown_recording(given: Path, failing: Callable[..., str]) -> None:
    assert "recording 'wlak' is not in" in failing("run", given, "--recording", "wlak")


def test_a_folder_that_cannot_be_written_to(given: Path, failing: Callable[..., str]) -> None:
    (given / "results").write_text("a file where the folder should be")
    assert "results" in failing("run", given)
