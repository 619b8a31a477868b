"""The commands on a rig, with boards that are seen in thought: floor, known points, moved cameras, drift."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.board import Board
from calibration.errors import InputError
from calibration.files import load_rig, save_rig
from calibration.rig import CameraRig
from calibration.synthetic import board_motion, ring_rig, simulate_detections, simulate_tracks
from calibration.transforms import exp_so3, log_so3
from pose3d.cli import main
from pose3d.config import load_session
from pose3d.files import save_poses, write_groups
from pose3d.pipeline import run_session
from pose3d.poses import Groups, Poses
from pose3d.stages import rig as stage
from pose3d.synthetic import QUADRUPED, simulate_animals

BOARD = Board(7, 10, 25.0)
FLOOR = 5


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> dict[str, Any]:
    """A folder that looks like footage of four cameras; what is detected in it is simulated for the rig in the dict.
    In frame 5 the board lies on the floor z = -50."""
    rig = ring_rig(4, rng, radius=900, height=650, size=(1280, 1024), focal_px=1100)
    R, t = board_motion(rig, BOARD, 40, rng, reach=150)
    R[FLOOR] = np.diag([1.0, -1.0, -1.0])
    t[FLOOR] = -R[FLOOR] @ BOARD.object_points.mean(axis=0) + [0, 0, -50]
    told: dict[str, Any] = {"rig": rig, "folder": tmp_path / "footage", "board": tmp_path / "board.toml"}
    for name in rig.names:
        (told["folder"] / name).mkdir(parents=True)
        (told["folder"] / name / "0.png").write_bytes(b"")
    told["board"].write_text("columns = 7\nrows = 10\nsquare_length = 25.0\n")

    def detect(sources: dict[str, Path], *_: object, **__: object):  # type: ignore[no-untyped-def]
        now: CameraRig = told["rig"].subset(list(sources))
        return simulate_detections(now, BOARD, R, t, np.random.default_rng(1), noise_px=0.2)

    monkeypatch.setattr(stage, "detect_boards", detect)
    monkeypatch.setattr(stage, "inspect_footage", lambda *_: ())
    return told


def calibrate(seen: dict[str, Any], output: Path, *more: str) -> list[str]:
    return ["calibrate", str(seen["folder"]), "--board", str(seen["board"]), "--output", str(output), *more]


def test_the_floor_becomes_the_world(seen: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(calibrate(seen, tmp_path / "c.toml", "--floor", str(FLOOR), "--json"))
    assert "frame 5" in json.loads(capsys.readouterr().out)["stages"][0]["summary"]["z is up from"]
    rig = load_rig(tmp_path / "c.toml")
    np.testing.assert_allclose(rig.centers[:, 2], seen["rig"].centers[:, 2] + 50, atol=4)
    first = [0, 0, -50] + np.array([-62.5, 100, 0])  # the first corner: the board's middle is over the origin
    np.testing.assert_allclose(rig.centers, seen["rig"].centers - first, atol=5)
    assert rig.covariance is not None
    with pytest.raises(SystemExit):
        main(calibrate(seen, tmp_path / "d.toml", "--floor", "99"))
    assert "floor_frame: expected a frame in which the board is seen well enough, got 99" in _words(capsys)


def test_what_takes_no_part_from_a_file(
    seen: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told, simulated = [], stage.detect_boards
    two = "".join(f"[[board]]\ncolumns = 7\nrows = {rows}\nsquare_length = 25\n" for rows in (10, 9))

    def detect(sources: dict[str, Path], boards: Any, options: Any, **more: Any) -> Any:
        told.append((boards, options))
        return simulated(sources, boards, options, **more)

    monkeypatch.setattr(stage, "detect_boards", detect)
    (tmp_path / "mask.png").write_bytes(b"any")
    (tmp_path / "detect.toml").write_text('leave_out.cam1 = [3, [5, 9]]\nmasks = { cam0 = "mask.png" }\n')
    seen["board"].write_text(two)
    main(calibrate(seen, tmp_path / "c.toml", "--detect", str(tmp_path / "detect.toml"), "--json"))
    moved = ["--keep", str(tmp_path / "c.toml"), "--moved", "cam1"]
    main(calibrate(seen, tmp_path / "d.toml", "--detect", str(tmp_path / "detect.toml"), *moved))
    assert len(told) == 2
    for boards, options in told:
        assert boards == (BOARD, Board(7, 9, 25.0))
        assert options.leave_out == {"cam1": (3, (5, 9))}
        assert options.masks == {"cam0": tmp_path / "mask.png"}
    capsys.readouterr()


def test_points_and_distances_from_a_file(
    seen: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    positions = np.array([[0.0, 0, 0], [200, 0, 0], [0, 150, 0], [100, 100, 80]])
    xy = seen["rig"].project(positions)
    text = 'distances = [{ between = ["p1", "p2"], length = 250.0 }]\n'
    for i, position in enumerate(positions):
        pixels = ", ".join(f"cam{v} = [{xy[v, i, 0]}, {xy[v, i, 1]}]" for v in range(4))
        text += f"[points.p{i}]\nposition = {position.tolist()}\npixels = {{ {pixels} }}\n"
    (tmp_path / "world.toml").write_text(text)
    main(calibrate(seen, tmp_path / "c.toml", "--world", str(tmp_path / "world.toml"), "--json"))
    summary = json.loads(capsys.readouterr().out)["stages"][0]["summary"]
    assert summary["known distances"][0].startswith("p1 - p2: 250")
    np.testing.assert_allclose(load_rig(tmp_path / "c.toml").centers, seen["rig"].centers, atol=3)
    headed = "[world]\n" + text.replace("[points", "[world.points")
    (tmp_path / "headed.toml").write_text(headed)
    main(calibrate(seen, tmp_path / "h.toml", "--world", str(tmp_path / "headed.toml"), "--json"))
    assert (tmp_path / "h.toml").read_bytes() == (tmp_path / "c.toml").read_bytes()
    capsys.readouterr()
    (tmp_path / "world.toml").write_text(text.replace("pixels", "pixel", 1))
    with pytest.raises(SystemExit):
        main(calibrate(seen, tmp_path / "c.toml", "--world", str(tmp_path / "world.toml")))
    assert "points.p0.pixel: unknown key" in _words(capsys)


def test_a_given_calibration_is_brought_into_the_world_of_a_session(tmp_path: Path, rng: np.random.Generator) -> None:
    rig = ring_rig(3, rng, radius=900, height=650, size=(1280, 1024), focal_px=1100)
    save_rig(tmp_path / "calibration.toml", rig.moved(1.0, exp_so3([0.4, 0.1, 2.0]), [7.0, 8, 9]))
    corners = np.array([[0.0, 0, 0], [200, 0, 0], [0, 150, 0]])
    text = '[calibration]\nfile = "calibration.toml"\n[world]\nfloor = ["p0", "p1", "p2"]\n'
    for i, xy in enumerate(rig.project(corners).swapaxes(0, 1)):
        text += f"[world.points.p{i}.pixels]\n" + "".join(f"cam{v} = {pixel.tolist()}\n" for v, pixel in enumerate(xy))
    (tmp_path / "pose3d.toml").write_text(text)
    (_, report), *_ = run_session(load_session(tmp_path))
    np.testing.assert_allclose(load_rig(tmp_path / "results/calibration.toml").centers, rig.centers, atol=1e-3)
    assert report.summary["z is up from"] == "the floor through p0, p1, p2"
    (tmp_path / "pose3d.toml").write_text('[calibration]\nfile = "calibration.toml"\n[world]\nfloor_frame = 3\n')
    with pytest.raises(InputError, match="floor_frame: expected footage of the board"):
        list(run_session(load_session(tmp_path)))


def test_only_the_moved_camera_is_placed_anew(
    seen: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = seen["rig"]
    save_rig(tmp_path / "old.toml", old)
    cameras = list(old.cameras)
    cameras[0] = replace(cameras[0], R=exp_so3([0.03, 0, 0.02]) @ cameras[0].R)
    seen["rig"] = CameraRig(tuple(cameras), "mm")
    keep = ("--keep", str(tmp_path / "old.toml"))
    main(calibrate(seen, tmp_path / "new.toml", *keep, "--moved", "cam0"))
    new = load_rig(tmp_path / "new.toml")
    np.testing.assert_allclose(new["cam2"].t, old["cam2"].t)
    assert np.rad2deg(np.linalg.norm(log_so3(new["cam0"].R @ cameras[0].R.T))) < 0.05
    assert "cam0: turned by" in capsys.readouterr().out
    for tokens, said in (
        (keep, "expected both --keep CALIBRATION and --moved CAMERA"),
        ((*keep, "--moved", "cam7"), "camera 'cam7' is not in the rig"),
        ((*keep, "--moved", "cam0", "--floor", "5"), "leave out --intrinsics, --lens, --floor and --world"),
    ):
        with pytest.raises(SystemExit):
            main(calibrate(seen, tmp_path / "x.toml", *tokens))
        assert said in _words(capsys)
    with pytest.raises(SystemExit):
        main(calibrate(seen, tmp_path / "old.toml", *keep, "--moved", "cam0"))
    assert "another file than the calibration to keep" in _words(capsys)


def test_check_finds_a_nudged_camera(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the results of two recordings, between which the camera was nudged; and in plain 2D poses of the second."""
    rng = np.random.default_rng(2)
    rig = ring_rig(4, rng, radius=650, height=450, size=(1280, 1024), focal_px=1100)
    save_rig(tmp_path / "c.toml", rig)
    cameras = list(rig.cameras)
    turn = exp_so3([0.012, 0, 0])
    cameras[2] = replace(cameras[2], R=turn @ cameras[2].R, t=turn @ cameras[2].t)
    after = CameraRig(tuple(cameras), "mm")
    for name, now, seed in (("day1", rig, 5), ("day2", after, 5)):
        xy = simulate_tracks(now, simulate_animals(rng, 1, 300).points[:, 0], np.random.default_rng(seed))
        for camera, pixels in zip(rig.names, xy, strict=True):
            save_poses(tmp_path / f"{name}/poses2d/{camera}.nc", Poses(pixels[:, None], skeleton=QUADRUPED))
        write_groups(tmp_path / f"{name}/groups.nc", Groups(rig.names, np.zeros((300, 1, 4)), np.zeros((300, 1))))
    days = [str(tmp_path / "day1"), str(tmp_path / "day2")]
    output = tmp_path / "later.toml"
    main(["check", *days, "--calibration", str(tmp_path / "c.toml"), "--output", str(output), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (told["holds"], told["cameras"][0]["name"]) == (False, "cam2")
    assert told["cameras"][0]["since"].endswith(("of day1", "of day2"))
    later = load_rig(output)
    assert np.rad2deg(np.linalg.norm(log_so3(later["cam2"].R @ cameras[2].R.T))) < 0.3
    main(["check", days[0], "--calibration", str(tmp_path / "c.toml"), "--output", str(tmp_path / "none.toml")])
    assert "the rig holds" in _words(capsys)
    assert not (tmp_path / "none.toml").exists()
    main(["check", str(tmp_path / "day1/poses2d"), "--calibration", str(tmp_path / "c.toml")])
    assert "the rig holds" in _words(capsys)
    with pytest.raises(SystemExit):
        main(["check", str(tmp_path), "--calibration", str(tmp_path / "c.toml")])
    assert "expected groups.nc and poses2d/ of a run" in _words(capsys)


def _words(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())
