"""The calibration stages: footage or a given file in, calibration.toml with its report out."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration import detection
from calibration.board import Board
from calibration.detection import DetectionOptions
from calibration.errors import InputError
from calibration.files import load_rig, save_rig
from calibration.rig import CameraRig
from calibration.synthetic import board_motion, render_board, ring_rig
from pose3d.records import StageReport
from pose3d.stages.rig import calibrate_footage, take_calibration

BOARD = Board(6, 5, 50.0, 37.5)


@pytest.fixture(scope="module")
def truth() -> CameraRig:
    return ring_rig(3, np.random.default_rng(7), radius=650.0, height=450.0, size=(480, 360), focal_px=450.0)


@pytest.fixture(scope="module")
def footage(truth: CameraRig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("footage")
    rng = np.random.default_rng(8)
    R, t = board_motion(truth, BOARD, 8, rng, reach=120.0)
    for camera in truth:
        (folder / camera.name).mkdir()
        for frame in range(8):
            picture = render_board(camera, BOARD, R[frame], t[frame], rng)
            cv2.imwrite(str(folder / camera.name / f"{frame}.png"), picture[..., ::-1])
    return {name: folder / name for name in truth.names}


def distances(rig: CameraRig) -> np.ndarray:
    return np.linalg.norm(rig.centers[:, None] - rig.centers, axis=-1)


def test_footage_to_rig_and_report(truth: CameraRig, footage: dict[str, Path], tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    report = calibrate_footage(tmp_path / "rig.toml", footage, BOARD, progress=lambda *what: seen.append(what))
    assert [path.name for path in report.outputs] == [
        "rig.toml", "rig.covariance.npz", "rig.report.json", "rig.html",
    ]  # fmt: skip
    assert seen[-1][1:] == (24, 24)
    rig = load_rig(tmp_path / "rig.toml")
    assert rig.names == truth.names
    np.testing.assert_allclose(distances(rig), distances(truth), atol=5.0)
    told = json.loads((tmp_path / "rig.report.json").read_text())
    assert told == report.summary["report"]
    assert f"{told['rms']:.3f} px rms over all {told['n_corners']} corners" in report.summary["text"]
    assert {finding["kind"] for finding in told["findings"]} <= {"clipped_coverage", "focal_unknown", "hardly_linked"}
    assert told["verdict"] in (tmp_path / "rig.html").read_text()
    assert calibrate_footage(tmp_path / "rig.toml", footage, BOARD).skipped
    bigger = Board(6, 5, 100.0, 75.0)
    assert not calibrate_footage(tmp_path / "rig.toml", footage, bigger).skipped
    np.testing.assert_allclose(distances(load_rig(tmp_path / "rig.toml")), 2 * distances(rig), rtol=1e-3)


@pytest.mark.parametrize("workers", [1, 2])
def test_same_bytes_on_repeated_runs_and_with_any_number_of_workers(
    footage: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    made = []
    for run, count in enumerate((1, workers)):
        monkeypatch.setattr(detection.os, "cpu_count", lambda count=count: count)
        report = calibrate_footage(tmp_path / str(run) / "rig.toml", footage, BOARD)
        made.append([path.read_bytes() for path in report.outputs if path.suffix != ".npz"])
    assert made[0] == made[1]


def test_given_intrinsics_are_held(truth: CameraRig, footage: dict[str, Path], tmp_path: Path) -> None:
    save_rig(tmp_path / "known.toml", truth)
    calibrate_footage(tmp_path / "rig.toml", footage, BOARD, intrinsics=tmp_path / "known.toml")
    for mine, theirs in zip(load_rig(tmp_path / "rig.toml"), truth, strict=True):
        np.testing.assert_allclose(mine.intrinsics.parameters, theirs.intrinsics.parameters, rtol=1e-12)


def test_intrinsics_from_footage_of_each_camera_alone(
    truth: CameraRig, footage: dict[str, Path], tmp_path: Path
) -> None:
    calibrate_footage(tmp_path / "rig.toml", footage, BOARD, intrinsics={"cam1": footage["cam1"]})
    told = json.loads((tmp_path / "rig.report.json").read_text())
    assert {camera["name"]: camera["intrinsics"] for camera in told["cameras"]}["cam1"] == "given"
    with pytest.raises(InputError, match="intrinsics: camera 'cam9' has no footage with the others; did you mean 'cam"):
        calibrate_footage(tmp_path / "rig.toml", footage, BOARD, intrinsics={"cam9": footage["cam1"]}, force=True)


def test_masks_and_frames_left_out_count_as_inputs(footage: dict[str, Path], tmp_path: Path) -> None:
    """A mask that was painted anew makes a new calibration; the frames' numbers do."""
    output, mask = tmp_path / "rig.toml", tmp_path / "cam1.png"
    white = np.full((360, 480), 255, np.uint8)
    cv2.imwrite(str(mask), white)

    def run(**told: object) -> StageReport:
        return calibrate_footage(output, footage, BOARD, options={"detect": DetectionOptions(**told)})  # type: ignore[arg-type]

    first = run(masks={"cam1": mask})
    assert run(masks={"cam1": mask}).skipped
    white[:180] = 0
    cv2.imwrite(str(mask), white)
    second = run(masks={"cam1": mask})
    assert not second.skipped
    corners = [report.summary["report"]["cameras"][1]["corners"] for report in (first, second)]
    assert 0 < corners[1] < corners[0]
    third = run(masks={"cam1": mask}, leave_out={"all": (3,)})
    assert not third.skipped
    assert third.summary["report"]["n_corners"] < second.summary["report"]["n_corners"]
    known = {"cam1": footage["cam1"]}
    options = {"detect": DetectionOptions(masks={"cam0": mask, "cam1": mask}, leave_out={"cam0": (2,)})}
    calibrate_footage(output, footage, BOARD, intrinsics=known, options=options)
    with pytest.raises(InputError, match=r"detect\.masks\.cam1: .*gone\.png: expected an image, found no file"):
        run(masks={"cam1": tmp_path / "gone.png"})


def test_no_footage(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected board footage of every camera"):
        calibrate_footage(tmp_path / "rig.toml", {}, BOARD)


def test_given_calibration_under_other_names(truth: CameraRig, tmp_path: Path) -> None:
    covariance = np.diag(np.arange(54.0))
    save_rig(tmp_path / "given.toml", CameraRig(truth.cameras, "mm", covariance))
    output = tmp_path / "out/calibration.toml"
    report = take_calibration(output, tmp_path / "given.toml", rename={"cam1": "side"})
    rig = load_rig(output)
    assert rig.names == ("cam0", "side", "cam2")
    np.testing.assert_array_equal(rig.covariance, covariance)
    np.testing.assert_allclose(rig.centers, truth.centers)
    assert report.summary == {"cameras": "cam0, side, cam2", "unit": "mm"}
    assert take_calibration(output, tmp_path / "given.toml", rename={"cam1": "side"}).skipped
    assert not take_calibration(output, tmp_path / "given.toml").skipped
    with pytest.raises(InputError, match=r"cameras\.rename: camera 'cam7' is not in .*given\.toml; did you mean 'cam"):
        take_calibration(output, tmp_path / "given.toml", rename={"cam7": "x"})
    with pytest.raises(InputError, match=r"nothing\.toml: expected the given calibration, found no file"):
        take_calibration(output, tmp_path / "nothing.toml")
