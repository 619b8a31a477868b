"""A run that is killed, in whatever stage, and started again ends with the same bytes; a finished one does nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pose3d.evaluation import evaluate_pose, evaluate_tracks
from pose3d.files import load_poses

pytestmark = pytest.mark.e2e

KILL_WHEN = (  # a file appears that a stage writes on its way: the stage is cut off in the middle
    ".pose3d/calibrate.calibration/boards/*.npz",
    "walk/.pose3d/poses2d/cam1.nc",
    "walk/.pose3d/identify/000001.nc",
    "walk/.pose3d/triangulate/000000.nc",
    "walk/.pose3d/refine/000001.nc",
    "walk/.pose3d/export/plan.json",
    "walk/.pose3d/scene/plan.json",
)


def start(session: Path, output: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pose3d.cli", "run", str(session), "--output", str(output), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(session: Path, output: Path, *more: str) -> bytes:
    process = start(session, output, *more)
    told, complaints = process.communicate()
    assert process.returncode == 0, complaints.decode()
    return told


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def kill_when(session: Path, output: Path, pattern: str) -> bool:
    """Start a run and SIGKILL it as soon as a file of that pattern is there; whether it was still running."""
    process = start(session, output)
    while process.poll() is None and not any(output.glob(pattern)):
        time.sleep(0.001)
    running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return running


def test_killed_in_every_stage_and_started_again_ends_with_the_same_bytes(made, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    told = json.loads(finish(made.folder, whole, "--json"))
    assert [stage["stage"] for stage in told["stages"]] == [
        "calibrate.calibration", "poses2d", "identify", "triangulate", "refine", "export", "scene", "overlay",
    ]  # fmt: skip
    assert not any(stage["skipped"] for stage in told["stages"])
    expected = content(whole)
    assert not [name for name in expected if "partial" in name or "/000" in name], "unfinished work was left behind"
    killed = [kill_when(made.folder, cut, pattern) for pattern in KILL_WHEN]
    assert sum(killed) >= len(KILL_WHEN) - 2, killed
    again = json.loads(finish(made.folder, cut, "--json"))
    found = content(cut)
    assert list(found) == list(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    summaries = [[s["summary"] for s in stages["stages"]] for stages in (told, again)]
    assert summaries[0] == summaries[1]
    started = time.perf_counter()
    third = json.loads(finish(made.folder, cut, "--json"))
    assert all(stage["skipped"] for stage in third["stages"])
    assert time.perf_counter() - started < 60
    assert content(cut) == expected
    estimate = load_poses(whole / "walk/poses3d.nc")
    assert_true(made, estimate)


def assert_true(made, estimate) -> None:
    """The poses of the run are those of the animals: in the first camera's frame, which the truth is moved to."""
    camera = made.rig.cameras[0]
    truth = made.animals.replace(points=made.animals.points @ camera.R.T + camera.t)
    tracks, pose = evaluate_tracks(truth, estimate), evaluate_pose(truth, estimate)
    assert (tracks.switches, tracks.idf1 > 0.97) == (0, True)
    assert pose.median < 3.0  # mm; 1.2 px of noise are 2 mm at this distance
    assert np.isfinite(estimate.extras["covariance_total"][~estimate.missing]).all()


def test_interrupted_by_ctrl_c_says_how_to_go_on_and_does(made, tmp_path: Path) -> None:
    output = tmp_path / "results"
    process = start(made.folder, output)
    while process.poll() is None and not any(output.glob("walk/.pose3d/identify/000000.nc")):
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate()
    assert process.returncode == 130, complaints.decode()
    assert "finished stages and windows are kept; run the same command again to go on" in complaints.decode()
    assert "Traceback" not in complaints.decode()
    again = json.loads(finish(made.folder, output, "--json"))
    assert [stage["skipped"] for stage in again["stages"]][:2] == [True, True]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="limits on file size are POSIX")
def test_full_disk_is_said_and_what_was_finished_is_kept(made, tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: the kernel refuses to write, as it does then."""
    output = tmp_path / "results"
    limited = f"ulimit -f 60; exec {sys.executable} -m pose3d.cli run {made.folder} --output {output}"
    process = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, check=False)
    assert process.returncode == 1, process.stderr
    assert "disk full while writing" in process.stderr
    assert "run the same command again" in process.stderr
    assert "Traceback" not in process.stderr
    assert (output / "calibration.toml").is_file()
    assert not list(output.rglob(".*.partial"))
    again = json.loads(finish(made.folder, output, "--json"))
    assert again["stages"][0]["skipped"]
