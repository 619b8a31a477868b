"""What a user sees: messages for their mistakes and the machine's, numbers, bars, Ctrl-C."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from calibration.errors import InputError
from pose3d.console import message_for, progress_bars, say, show_numbers, show_reports, show_table, tell_json
from pose3d.records import StageReport


def test_messages(tmp_path: Path) -> None:
    assert message_for(InputError("a.toml: unknown key")) == "a.toml: unknown key"
    assert "run the same command again to go on" in str(message_for(KeyboardInterrupt()))
    assert message_for(ZeroDivisionError("a mistake of ours")) is None
    assert message_for(RuntimeError("a mistake of ours")) is None
    denied = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "x"))
    assert message_for(denied) == f"{tmp_path / 'x'}: Permission denied; check the path and your rights on it"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError("Can't write data (file write failed: errno = 28, error message = 'No space left on device')"),
        RuntimeError("Can't decrement id ref count (errno = 27, error message = 'File too large')"),
    ],
)
def test_full_disks_of_all_libraries(error: Exception) -> None:
    message = str(message_for(error))
    assert message.startswith("disk full while writing")
    assert "MB free" in message
    assert "what was finished is kept; free some space and run the same command again" in message


def test_full_disk_names_the_file_and_its_disk(tmp_path: Path) -> None:
    error = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "not/there/poses3d.nc"))
    assert f"disk full while writing {tmp_path / 'not/there/poses3d.nc'}" in str(message_for(error))


def test_json_is_one_object_without_nan(capsys: pytest.CaptureFixture[str]) -> None:
    tell_json({"a": float("nan"), "path": Path("x")})
    assert json.loads(capsys.readouterr().out) == {"a": None, "path": "x"}
    reports = [("", StageReport("one", True, 0.0, {"n": 1})), StageReport("two", False, 1.5, {}, (Path("out.nc"),))]
    show_reports(reports, json=True)
    told = json.loads(capsys.readouterr().out)["stages"]
    assert told[0] == {
        "recording": "",
        "stage": "one",
        "skipped": True,
        "seconds": 0.0,
        "summary": {"n": 1},
        "outputs": [],
    }
    assert told[1]["outputs"] == ["out.nc"]


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    paths = tuple(Path(f"out{i}.nc") for i in range(9))
    summary = {"frames": 200, "error px": {"median": 0.123456, "p95": 2.0}, "names": ["a", "b"], "none": None}
    show_reports([("walk", StageReport("refine", False, 1.25, summary, paths))], json=False)
    told = capsys.readouterr().out
    for part in ("walk: refine (1.2 s)", "200", "median: 0.1235", "p95: 2", "-> out0.nc", "and 3 more"):
        assert part in told
    assert "out6.nc" not in told
    show_reports(
        [StageReport("calibrate", True, 0.0, {"text": "board [error] 0.3 px", "report": {"a": 1}})], json=False
    )
    told = capsys.readouterr().out
    assert "calibrate (nothing changed, skipped)\nboard [error] 0.3 px" in told
    assert "report" not in told
    show_numbers("title", {})
    assert capsys.readouterr().out == "title\n"


def test_nothing_but_what_was_asked_for_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    say("written [bold]")
    with progress_bars(quiet=False) as progress:
        progress("stage", 1, 2)
    told = capsys.readouterr()
    assert told.out == ""
    assert "written [bold]" in told.err
    assert "stage" not in told.err  # a pipe gets no bars


def test_bars_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with progress_bars(quiet=False) as progress:
        progress("refine", 1, 4)
        progress("refine", 4, 4)
        progress("identify", 0, 2)
    told = capsys.readouterr()
    assert "identify" in told.err
    assert told.out == ""


def test_what_changes_after_the_comma_stays_in_one_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress_bars(quiet=False) as progress:
        for step in range(3):
            progress(f"training, held-out error {9 - step}.00 px", step, 4)
        time.sleep(0.2)  # the last picture of the bars, which refresh ten times a second
    last = capsys.readouterr().err.rpartition("held-out error 7.00 px")
    assert last[1], "the text follows what is told"
    assert "training" not in last[2]
    assert last[0].rpartition("\x1b[2K")[2].count("training") == 1


def dropped_interrupt() -> None:
    """Ctrl-C whose exception gets lost, as in a destructor."""
    with suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)
        raise AssertionError("no signal came")


def work_on(steps: int) -> None:
    with progress_bars(quiet=True) as progress:
        dropped_interrupt()
        for step in range(steps):
            progress("stage", step, steps)
            raise AssertionError("went on")


@pytest.mark.parametrize("steps", [0, 2])
def test_ctrl_c_is_heard_even_where_python_drops_it(steps: int) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        work_on(steps)
    assert signal.getsignal(signal.SIGINT) is before


class Interrupted:
    """Ctrl-C strikes in its destructor, or another mistake does."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __del__(self) -> None:
        if self.error is not KeyboardInterrupt:
            raise self.error
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)


@pytest.mark.parametrize(("error", "told"), [(KeyboardInterrupt, []), (ValueError, [ValueError])])
def test_a_dropped_ctrl_c_prints_no_traceback(
    error: type[BaseException], told: list[type[BaseException]], monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda event: dropped.append(event.exc_type))
    hook = sys.unraisablehook
    with suppress(KeyboardInterrupt), progress_bars(quiet=True):
        Interrupted(error)
    assert dropped == told
    assert sys.unraisablehook is hook


def test_a_table_has_the_columns_of_which_something_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"who": "[top]", "n": 1200, "px": 1.23456, "no": float("nan")}, {"who": "a", "n": 3, "px": float("nan")}]
    show_table(
        "by camera",
        [row | {"no": float("nan")} for row in rows],
        {"who": "camera", "n": "n", "px": "p x", "no": "never"},
    )
    told = capsys.readouterr().out
    assert told.startswith("by camera\n")
    assert [line.split() for line in told.splitlines() if "[top]" in line or " a " in line] == [
        ["[top]", "1200", "1.23"], ["a", "3", "-"]
    ]  # fmt: skip
    assert "p x" in told
    assert "never" not in told
