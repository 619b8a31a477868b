"""pose3d.toml: what is said is taken, and every mistake is named with its dotted path."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field, fields, is_dataclass
from importlib import import_module
from pathlib import Path

import pytest

from calibration.board import Back, Board
from calibration.errors import InputError
from pose3d.config import OPTION_TABLES, load_session, options_from
from pose3d.session import LabelTable, Patterns, SkeletonTable

FULL = """
[session]
unit = "mm"
fps = 50
recordings = ["walk"]
window = 200

[cameras]
names = ["top", "side"]
rename = { cam_01 = "top" }
poses2d = "labels/{camera}.h5"

[board]
columns = 8
rows = 11
square_length = 24
marker_length = 18.75

[calibration]
file = "calibration.toml"
format = "pose2sim"

[poses2d]
format = "openpose"

[skeleton]
keypoints = ["nose", "tail"]
bones = [["nose", "tail"]]

[sync]
offsets = { side = 0.25 }
trim = true
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "pose3d.toml"
    path.write_text(text)
    return path


def test_everything_that_is_said_is_taken(tmp_path: Path) -> None:
    session = load_session(written(tmp_path, FULL))
    assert (session.unit, session.fps, session.recordings, session.window) == ("mm", 50.0, ("walk",), 200)
    assert (session.cameras, session.rename) == (("top", "side"), {"cam_01": "top"})
    assert session.patterns == Patterns(poses2d="labels/{camera}.h5")
    assert (session.board.columns, session.board.rows, session.board.square_length) == (8, 11, 24.0)
    assert (session.calibration, session.calibration_format, session.poses2d_format) == (
        "calibration.toml",
        "pose2sim",
        "openpose",
    )
    assert session.skeleton == SkeletonTable(keypoints=("nose", "tail"), bones=(("nose", "tail"),))
    assert (session.options["sync"].offsets, session.options["sync"].trim) == ({"side": 0.25}, True)
    assert set(session.options) == {"sync"}
    assert (session.file, session.data, session.output) == (tmp_path / "pose3d.toml", tmp_path, tmp_path / "results")


def test_an_empty_file_is_a_session_in_the_house_layout(tmp_path: Path) -> None:
    written(tmp_path, "")
    session = load_session(tmp_path)
    assert session.patterns == Patterns()
    assert (session.cameras, session.recordings, session.board, session.calibration) == ((), (), None, None)
    assert session.options == {}


def test_labels_and_networks(tmp_path: Path) -> None:
    tables = '[labels]\nfiles = "labels/{camera}.slp"\nframes = [0, 39]\nmissing = "skip"\nvideo = "{camera}.mp4"\n'
    tables += '[train]\nnetworks = "per_camera"\nstart = "old.safetensors"\nzoom = [0.9, 1.1]\n'
    path = written(tmp_path, tables + '[predict]\nmodel = "models"\n')
    session = load_session(path)
    assert session.labels == (LabelTable("labels/{camera}.slp", frames=(0, 39), missing="skip", video="{camera}.mp4"),)
    assert session.options["predict"].model == tmp_path / "models"
    train = session.options["train"]
    assert (train.networks, train.start, train.zoom) == ("per_camera", tmp_path / "old.safetensors", (0.9, 1.1))
    several = '[[labels]]\nfiles = "a"\ncamera = "top"\n[[labels]]\nfiles = "b"\n'
    session = load_session(written(tmp_path, several + "[predict]\nbatch = 2\n"))
    assert session.labels == (LabelTable("a", camera="top"), LabelTable("b"))
    assert session.options["predict"].model is None


def test_reading_a_sessions_file_does_not_import_torch(tmp_path: Path) -> None:
    path = written(tmp_path, '[labels]\nfiles = "a"\n[train]\n[predict]\n[assemble]\n')
    code = "import sys; from pathlib import Path; from pose3d.config import load_session; "
    code += f"load_session(Path({str(path)!r})); print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert told.strip() == "False"


SMALL = "[[board]]\ncolumns = 5\nrows = 4\nsquare_length = 20\nmarker_length = 15\n"


def test_boards_of_two_sides_and_several(tmp_path: Path) -> None:
    back = "[board.back]\nfirst_marker = 20\nthickness = 3\nflipped = 'left_right'\n"
    one, two = Board(5, 4, 20.0, 15.0), Board(5, 4, 20.0, 15.0, first_marker=10, back=Back(20, 3.0, "left_right"))
    told = load_session(written(tmp_path, SMALL + SMALL + "first_marker = 10\n" + back)).board
    assert told == (one, two)
    assert load_session(written(tmp_path, SMALL)).board == one
    wrong = written(tmp_path, SMALL + back.replace("flipped", "fliped"))
    with pytest.raises(InputError, match=r"board\.back\.fliped: unknown key; did you mean 'flipped'"):
        load_session(wrong)


def test_what_detection_leaves_out(tmp_path: Path) -> None:
    text = '[detect]\nmasks = { top = "masks/top.png" }\nleave_out.top = [3, [7, 9]]\nleave_out.all = [0]\n'
    options = load_session(written(tmp_path, text)).options["detect"]
    assert options.leave_out == {"top": (3, (7, 9)), "all": (0,)}
    assert options.masks == {"top": tmp_path / "masks/top.png"}


def test_data_and_output_can_be_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    path = written(tmp_path, 'board = "boards/b.toml"')
    session = load_session(path, tmp_path / "data", tmp_path / "out")
    assert (session.data, session.output, session.board) == (tmp_path / "data", tmp_path / "out", "boards/b.toml")
    with pytest.raises(
        InputError, match="nowhere: expected the folder of the session's data, got none; correct --data"
    ):
        load_session(path, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sesion]", "sesion: unknown table; did you mean 'session'?"),
        ("[cameras]\nvideos = 'a'", "cameras.videos: unknown key; did you mean 'video'?"),
        ("[session]\nfps = 0", "session.fps: input should be greater than 0, got 0"),
        ("[session]\nwindow = 9", "session.window: input should be greater than or equal to 10, got 9"),
        ("[session]\nfps = 'fast'", "session.fps: input should be a valid number"),
        ("[sync]\ntrimm = true", "sync.trimm: unknown key; did you mean 'trim'?"),
        ("sync = 3", "sync: expected a table [sync], got 3"),
        ("[calibration]", "calibration: expected `file` (a finished calibration) or `intrinsics`"),
        (
            "[calibration]\nfile = 'a'\nintrinsics = 'b'",
            "calibration: expected `file` (a finished calibration) or `intrin",
        ),
        ("[board]\ncolumns = 3", "board: expected `file`, or at least columns, rows and square_length"),
        ("[board]\nfile = 'b'\nrows = 3", "board: expected `file` or the board itself, got both (file and rows)"),
        ("[board]\ncolumns = 3\nrows = 3\nsquare_length = 1\nback = { thicknes = 3 }", "4 mistakes:\n"),
        ("[[board]]\nfile = 'b'\n[[board]]\nfile = 'c'", "board: expected one `file`, which may describe several"),
        (2 * "[[board]]\ncolumns = 4\nrows = 3\nsquare_length = 2\nmarker_length = 1\n", "board: boards: board 1 and"),
        ("[detect]\nleave_out = { top = [[9, 3]] }", "detect.leave_out.top: expected frame numbers from 0 on"),
        ("[detect]\nleave_out = { top = ['a'] }", "2 mistakes:\n  detect.leave_out.top.0"),
        ("[skeleton]\nbones = [['a', 'b', 'c']]", "skeleton.bones.0"),
        ("[labels]\nframes = [0, 3]", "labels.files: missing; add it"),
        ("[[labels]]\nfiles = 'a'\nmising = 'skip'", "labels.mising: unknown key; did you mean 'missing'?"),
        ("[labels]\nfiles = 'a'\nmissing = 'ignore'", "labels.missing: input should be 'error' or 'skip', got"),
        ("[labels]\nfiles = 'a'\nframes = [5, 2]", "labels.frames: expected the first and the last frame, rising"),
        ("[labels]\nfiles = 'a'\nframes = [-3, 2]", "labels.frames: expected the first and the last frame, rising"),
        ("[train]\ncrop = 1000000", "train.crop: expected a multiple of 32 px, 64 to 2048, got 1000000"),
        ("[train]\nscale = 1000", "train.scale: expected 1/16 to 16 input px per image px, got 1000"),
        ("[label]\nfiles = 'a'", "label: unknown table; did you mean 'labels'?"),
        ("[train]\nper_camera = true", 'train.per_camera: unknown key; write networks = "per_camera"'),
        ("[train]\nstep = 3", "train.step: unknown key; did you mean 'steps'?"),
        ("[predict]\nbatch = 0", "predict.batch: expected at least 1 image, got 0"),
        ("[predict]\ndevice = 'gpu'", "predict.device: input should be 'auto', 'cpu' or 'cuda', got 'gpu'"),
        ("[session", "expected TOML, got: "),
    ],
)
def test_one_mistake(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        load_session(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, "[session]\nunits = 'mm'\nfps = -1\n[cams]\n[sync]\noffset = {}\n")
    with pytest.raises(InputError) as caught:
        load_session(path)
    first, *rest = str(caught.value).splitlines()
    assert first == f"{path}: 4 mistakes:"
    assert sorted(line.split(":")[0].strip() for line in rest) == [
        "cams",
        "session.fps",
        "session.units",
        "sync.offset",
    ]


def test_a_folder_without_a_file_says_what_writes_one(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"pose3d\.toml: expected a session's file, got none; write one with `pose3d new"
    ):
        load_session(tmp_path)
    with pytest.raises(InputError, match="readable TOML file"):
        load_session(tmp_path / "other.toml")


@dataclass(frozen=True)
class Inner:
    gate_px: float = 3.0


@dataclass(frozen=True)
class Outer:
    names: tuple[str, ...] = ()
    inner: Inner = field(default_factory=Inner)
    noise: float | None = None

    def __post_init__(self) -> None:
        if self.noise is not None and self.noise <= 0:
            raise InputError(f"noise: expected more than 0, got {self.noise}")


def test_options_come_from_the_stages_own_dataclasses() -> None:
    assert options_from(Outer, {}, "stage") == Outer()
    told = options_from(Outer, {"names": ["a"], "inner": {"gate_px": 4}, "noise": 1}, "stage")
    assert told == Outer(("a",), Inner(4.0), 1.0)
    for table, message in (
        ({"inner": {"gate": 4}}, "options: stage.inner.gate: unknown key; did you mean 'gate_px'?"),
        ({"noise": -1}, "options: stage.noise: expected more than 0, got -1.0"),
        ({"inner": {"gate_px": "x"}}, "options: stage.inner.gate_px: input should be a valid number"),
        ({"noise": "1"}, "options: stage.noise: input should be a valid number, got '1'"),
        ({"noise": True}, "options: stage.noise: input should be a valid number, got True"),
    ):
        with pytest.raises(InputError) as caught:
            options_from(Outer, table, "stage")
        assert str(caught.value).startswith(message)


def test_lenses_are_told_by_camera(tmp_path: Path) -> None:
    told = load_session(written(tmp_path, '[calibrate.intrinsics]\nlens = { top = "fisheye" }\n')).options["calibrate"]
    assert told.intrinsics.lens == {"top": "fisheye"}
    with pytest.raises(InputError, match=r"calibrate.intrinsics.lens.top: input should be 'pinhole', 'fisheye' or"):
        load_session(written(tmp_path, '[calibrate.intrinsics]\nlens = { top = "fish" }\n'))


@pytest.mark.parametrize("table", OPTION_TABLES)
def test_every_option_table_is_a_dataclass_that_an_empty_table_fills(table: str) -> None:
    module, name = OPTION_TABLES[table]
    cls = getattr(import_module(module), name)
    assert is_dataclass(cls)
    assert options_from(cls, {}, table) == cls()
    with pytest.raises(InputError, match=f"{table}.no_such_key_here: unknown key"):
        options_from(cls, {"no_such_key_here": 1}, table)
    for option in fields(cls):
        assert option.name in (cls.__doc__ or ""), f"{name}.{option.name} is not explained"
