"""How does a run look to whoever started it? Bars, a table after each stage, one clear message when it fails."""

from __future__ import annotations

import errno
import math
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from json import dumps
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from calibration.errors import InputError
from pose3d.records import Progress as Callback
from pose3d.records import StageReport, jsonable

__all__ = [
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "message_for",
    "progress_bars",
    "say",
    "show_numbers",
    "show_stage",
    "show_table",
    "tell_json",
]

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130

_PATHS = 6
"""Outputs of a stage that are listed."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_TEXTS = ("no space left", "disk quota exceeded", "file too large", "errno = 28", "errno = 27", "errno = 122")


def say(text: str) -> None:
    """A line for people, on stderr, so that stdout stays for what was asked for."""
    Console(stderr=True, highlight=False).print(escape(text), soft_wrap=True)


def complain(text: str) -> None:
    """The message that a command failed with, on stderr."""
    Console(stderr=True, highlight=False).print(f"[bold red]error:[/bold red] {escape(text)}", soft_wrap=True)


def tell_json(value: Any) -> None:
    """The one JSON object of `--json` on stdout; NaN is null."""
    sys.stdout.write(dumps(jsonable(value), indent=1) + "\n")


def show_reports(reports: Iterable[StageReport | tuple[str, StageReport]], *, json: bool) -> None:
    """Run the stages by asking for their reports: a table as each is finished, or one JSON object at the end.

    reports: of stages, or (recording, report); the recording is "" for the session's own stages.
    """
    told = []
    for item in reports:
        recording, report = item if isinstance(item, tuple) else ("", item)
        if json:
            told.append({"recording": recording} | jsonable(report))
        else:
            show_stage(report, recording)
    if json:
        tell_json({"stages": told})


def show_stage(report: StageReport, recording: str = "") -> None:
    """A finished stage: what it counted, its errors, its time; a summary's `text` as it is, for its `report`."""
    state = "nothing changed, skipped" if report.skipped else f"{report.seconds:.1f} s"
    title = f"{recording + ': ' if recording else ''}{report.stage} ({state})"
    numbers = {name: value for name, value in report.summary.items() if name not in ("text", "report")}
    if "text" in report.summary:
        title = f"{title}\n{report.summary['text']}"
    show_numbers(title, numbers)
    more = len(report.outputs) - _PATHS
    paths = [str(path) for path in report.outputs[:_PATHS]] + ([f"and {more} more"] if more > 0 else [])
    for path in paths:
        Console(highlight=False).print(f"  -> {escape(path)}", soft_wrap=True, style="dim")


def show_numbers(title: str, numbers: Mapping[str, Any]) -> None:
    """A table of names and values; a list takes a line for each item, a mapping too."""
    console = Console(highlight=False)
    if title:
        first, _, rest = title.partition("\n")
        console.print(f"[bold]{escape(first)}[/bold]\n{escape(rest)}".rstrip(), soft_wrap=True)
    table = Table(show_header=False)
    for name, value in numbers.items():
        if not isinstance(value, list | Mapping):
            table.add_row(escape(name), escape(_shown(value)))
        elif isinstance(value, Mapping):
            table.add_row(escape(name), escape("\n".join(f"{key}: {_shown(item)}" for key, item in value.items())))
        else:
            table.add_row(escape(name), escape("\n".join(_shown(item) for item in value)))
    if numbers:
        console.print(table)


def show_table(title: str, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """Rows under the headings of their columns {name: heading}; columns of which nothing is known (NaN) are left
    out."""
    known = {name: head for name, head in columns.items() if any(row[name] == row[name] for row in rows)}
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0), collapse_padding=True)
    for place, head in enumerate(known.values()):
        table.add_column(escape(head), justify="right" if place else "left", no_wrap=not place)
    for row in rows:
        table.add_row(*(escape(_cell(row[name])) for name in known))
    console = Console(highlight=False)
    console.print(f"[bold]{escape(title)}[/bold]")
    console.print(table)


@contextmanager
def progress_bars(quiet: bool) -> Iterator[Callback]:
    """A progress callback that draws a bar for each thing in work and says when numba compiles. What it is told up to
    the first comma names the bar; the rest may change, such as an error that falls.

    quiet: nobody asked for bars (--json); nor does a pipe or a log file. Ctrl-C ends the block with KeyboardInterrupt,
    at the next step at the latest: Python drops the exception where it strikes inside a destructor.
    """
    console = Console(stderr=True)
    with _interruptible() as check:
        if quiet or not console.is_terminal:
            yield lambda what, done, total: check()
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bars, _compiling(bars):
            tasks: dict[str, Any] = {}

            def progress(what: str, done: int, total: int) -> None:
                check()
                name = what.partition(",")[0]
                if name not in tasks:
                    tasks[name] = bars.add_task(escape(what), total=total)
                bars.update(tasks[name], completed=done, total=total, description=escape(what))
                if done >= total:
                    bars.remove_task(tasks.pop(name))

            yield progress


@contextmanager
def _interruptible() -> Iterator[Callable[[], None]]:
    """A function that raises KeyboardInterrupt once Ctrl-C was pressed, whatever became of the first exception.

    Python prints the traceback of an exception that it drops; this one is not lost, so that print is spared.
    """
    pressed = False

    def press(*_: Any) -> None:
        nonlocal pressed
        pressed = True
        raise KeyboardInterrupt

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    def dropped(event: sys.UnraisableHookArgs) -> None:
        if event.exc_type is not KeyboardInterrupt:
            report(event)

    report, sys.unraisablehook = sys.unraisablehook, dropped
    before = signal.signal(signal.SIGINT, press)
    try:
        yield check
        check()
    finally:
        signal.signal(signal.SIGINT, before)
        sys.unraisablehook = report


def message_for(error: BaseException) -> str | None:
    """What a user is told about an error that is theirs or the machine's; None for a mistake in the program."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted: finished stages and windows are kept; run the same command again to go on"
    if isinstance(error, InputError):
        return str(error)
    if _disk_is_full(error):
        path = getattr(error, "filename", None)
        free = shutil.disk_usage(_existing(Path(path or "."))).free / 1e6
        return (
            f"disk full while writing {path or 'the results'} ({free:.1f} MB free; {error}): "
            f"what was finished is kept; free some space and run the same command again to go on"
        )
    if isinstance(error, OSError):
        return f"{error.filename or 'file'}: {error.strerror or error}; check the path and your rights on it"
    return None


def _disk_is_full(error: BaseException) -> bool:
    """Libraries report a full disk in their own ways: by number, or only by text."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return isinstance(error, OSError | RuntimeError) and any(text in str(error).lower() for text in _FULL_TEXTS)


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.absolute().parent)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.3g}" if abs(value) >= 1 else f"{value:.2g}"
    return str(value)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value)


@contextmanager
def _compiling(bars: Progress) -> Iterator[None]:
    """A line that says what numba compiles: on the first run it takes a while and nothing else moves."""
    from numba.core import event

    class Listener(event.Listener):
        task = bars.add_task("compiling (first run only)", total=None, visible=False)

        def on_start(self, event: Any) -> None:
            name = event.data["dispatcher"].py_func.__name__.strip("_")
            bars.update(self.task, description=f"compiling {name} (first run only)", visible=True)

        def on_end(self, event: Any) -> None:
            bars.update(self.task, visible=False)

    listener = Listener()
    event.register("numba:compile", listener)
    try:
        yield
    finally:
        event.unregister("numba:compile", listener)
