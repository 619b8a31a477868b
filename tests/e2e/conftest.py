"""A small session as a user has it: rendered pictures of a board, 2D poses with faults, and the truth of both."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.board import Board
from calibration.rig import CameraRig
from calibration.synthetic import board_motion, render_board, ring_rig
from pose3d.cli import main
from pose3d.files import save_poses
from pose3d.poses import Poses
from pose3d.synthetic import simulate_animals, simulate_views

BOARD = Board(6, 5, 50.0, 37.5)
FRAMES, BOARD_FRAMES = 60, 8
TOML = """\
[session]
recordings = ["walk"]
window = 20

[board]
columns = 6
rows = 5
square_length = 50.0
marker_length = 37.5

[refine]
window = 20
margin = 10

[scene]
size = [160, 120]
every = 20

[overlay]
width = 320
"""


@dataclass(frozen=True)
class Made:
    """A session's folder, and what is true of it."""

    folder: Path
    rig: CameraRig
    animals: Poses


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Written once; tests copy it (`session`) or only read it."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(7)
    rig = ring_rig(3, rng, radius=650.0, height=450.0, size=(480, 360), focal_px=450.0)
    R, t = board_motion(rig, BOARD, BOARD_FRAMES, rng, reach=120.0)
    for camera in rig:
        (folder / "calibration" / camera.name).mkdir(parents=True)
        for frame in range(BOARD_FRAMES):
            picture = render_board(camera, BOARD, R[frame], t[frame], rng)
            cv2.imwrite(str(folder / f"calibration/{camera.name}/{frame}.png"), picture[..., ::-1])
    animals = simulate_animals(rng, 2, FRAMES)
    for name, poses in simulate_views(animals, rig, rng).views.items():
        save_poses(folder / f"recordings/walk/poses2d/{name}.nc", poses)
    (folder / "pose3d.toml").write_text(TOML)
    return Made(folder, rig, animals)


@pytest.fixture
def session(made: Made, tmp_path: Path) -> Path:
    """A copy of the session to spoil, file times kept."""
    return shutil.copytree(made.folder, tmp_path / "session", copy_function=shutil.copy2)


@pytest.fixture
def failing(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one message of a command that fails as it should."""

    def message(*tokens: object) -> str:
        with pytest.raises(SystemExit) as stopped:
            main([str(token) for token in tokens])
        told = capsys.readouterr()
        assert stopped.value.code == 1
        assert told.err.startswith("error: ")
        assert "Traceback" not in told.err
        return told.err

    return message
