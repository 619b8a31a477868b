"""Records: what is skipped, what is done again, and windows that go on where they were cut off."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pose3d.records import Plan, State, fingerprint_product, fingerprint_source, jsonable, run_stage, run_windows

MIB = 1 << 20
SPANS = [(0, 5), (5, 10), (10, 15), (15, 20), (20, 23)]


def plan_in(folder: Path, **changes: Any) -> Plan:
    plan = Plan(folder, "stage", 1, {"poses": "abc"}, {"gate": 2.0}, ("out.txt",))
    return replace(plan, **changes)


def writing(plan: Plan, text: str = "done") -> Callable[[], dict[str, Any]]:
    def work() -> dict[str, Any]:
        for name in plan.outputs:
            (plan.folder / name).write_text(text)
        return {"count": np.int64(3), "worst": float("nan")}

    return work


def never() -> dict[str, Any]:
    raise AssertionError("the stage ran although nothing had changed")


def test_a_stage_runs_once(tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    first = run_stage(plan, writing(plan))
    second = run_stage(plan, never)
    assert (first.skipped, second.skipped) == (False, True)
    assert first.summary == second.summary == {"count": 3, "worst": None}
    assert first.outputs == second.outputs == (tmp_path / "out.txt",)
    assert first.seconds >= 0


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"inputs": {"poses": "abd"}},
        {"inputs": {"poses": "abc", "rig": "x"}},
        {"options": {"gate": 2.1}},
        {"outputs": ("out.txt", "more.txt")},
    ],
)
def test_a_changed_plan_runs_again(tmp_path: Path, change: dict[str, Any]) -> None:
    plan = plan_in(tmp_path)
    run_stage(plan, writing(plan))
    changed = replace(plan, **change)
    assert not run_stage(changed, writing(changed)).skipped
    assert run_stage(changed, never).skipped


def test_changed_or_missing_output_and_force_run_again(tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    run_stage(plan, writing(plan))
    assert not run_stage(plan, writing(plan), force=True).skipped
    (tmp_path / "out.txt").write_text("dome")
    assert not run_stage(plan, writing(plan)).skipped
    (tmp_path / "out.txt").unlink()
    assert not run_stage(plan, writing(plan)).skipped
    plan.record.write_text(plan.record.read_text()[:-20])
    assert not run_stage(plan, writing(plan)).skipped


def test_a_failed_stage_is_not_taken_for_finished_even_if_an_older_one_was(tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    run_stage(plan, writing(plan))

    def failing() -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(plan, failing, force=True)
    assert not run_stage(plan, writing(plan)).skipped


def test_options_with_nan_are_equal_to_themselves(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, options={"noise": float("nan")})
    run_stage(plan, writing(plan))
    assert run_stage(plan, never).skipped


def test_records_hold_no_clock(tmp_path: Path) -> None:
    bytes_of = []
    for name in "ab":
        plan = plan_in(tmp_path / name)
        run_stage(plan, writing(plan))
        bytes_of.append(plan.record.read_bytes())
    assert bytes_of[0] == bytes_of[1]
    assert set(json.loads(bytes_of[0])) == {"stage", "version", "inputs", "options", "outputs", "products", "summary"}


def cumulative(calls: list[int], stop_at: int | None = None) -> Callable[[int, int, State], tuple[str, State]]:
    """A windowed sum: every window needs the state of the one before."""

    def step(start: int, stop: int, state: State) -> tuple[str, State]:
        if start == stop_at:
            raise KeyboardInterrupt
        calls.append(start)
        total = float(state["total"]) if state else 0.0
        total = total * 1.5 + sum(range(start, stop)) / 3
        return f"{start}-{stop}:{total!r}\n", {"total": np.array(total)}

    return step


def windowed(
    plan: Plan, step: Callable[[int, int, State], tuple[str, State]], seen: list[tuple[str, int, int]] | None = None
) -> Callable[[], dict[str, Any]]:
    def work() -> dict[str, Any]:
        progress = None if seen is None else (lambda *what: seen.append(what))
        paths, state = run_windows(plan, SPANS, step, Path.write_text, suffix=".txt", progress=progress)
        (plan.folder / "out.txt").write_text("".join(p.read_text() for p in paths))
        return {"windows": len(paths), "total": state["total"]}

    return work


def test_windows_go_on_after_the_last_whole_one_with_the_same_bytes(tmp_path: Path) -> None:
    whole = plan_in(tmp_path / "whole")
    calls: list[int] = []
    seen: list[tuple[str, int, int]] = []
    report = run_stage(whole, windowed(whole, cumulative(calls), seen))
    assert report.summary["windows"] == 5
    assert calls == [0, 5, 10, 15, 20]
    assert seen == [("stage", done, 23) for done in (5, 10, 15, 20, 23)]
    assert not whole.unfinished.exists()
    cut = plan_in(tmp_path / "cut")
    for stop_at, expected in ((10, [0, 5]), (15, [10]), (None, [15, 20])):
        calls = []
        work = windowed(cut, cumulative(calls, stop_at))
        if stop_at is None:
            assert run_stage(cut, work).summary == report.summary
        else:
            with pytest.raises(KeyboardInterrupt):
                run_stage(cut, work)
        assert calls == expected
    assert (tmp_path / "cut/out.txt").read_bytes() == (tmp_path / "whole/out.txt").read_bytes()


@pytest.mark.parametrize("change", [{"version": 2}, {"options": {"gate": 9.0}}, {"inputs": {"poses": "other"}}])
def test_windows_of_another_plan_are_not_used(tmp_path: Path, change: dict[str, Any]) -> None:
    plan = plan_in(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_stage(plan, windowed(plan, cumulative([], stop_at=10)))
    changed, calls = replace(plan, **change), []
    run_stage(changed, windowed(changed, cumulative(calls)))
    assert calls == [0, 5, 10, 15, 20]


def test_force_drops_windows_and_half_written_files_go(tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_stage(plan, windowed(plan, cumulative([], stop_at=10)))
    (tmp_path / ".out.txt.partial").write_text("hal")
    (plan.unfinished / ".000002.txt.partial").write_text("hal")
    calls: list[int] = []
    run_stage(plan, windowed(plan, cumulative(calls)), force=True)
    assert calls == [0, 5, 10, 15, 20]
    assert not list(tmp_path.rglob("*.partial"))


def test_source_fingerprints_see_size_time_and_both_ends(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    content = bytearray(3 * MIB + 17)
    path.write_bytes(content)
    os.utime(path, ns=(0, 5))
    first = fingerprint_source(path)
    assert first["size"] == 3 * MIB + 17
    assert first["mtime_ns"] == 5
    assert first["name"] == "video.mp4"
    for place in (0, MIB - 1, 2 * MIB + 17, 3 * MIB + 16):
        changed = content.copy()
        changed[place] = 1
        path.write_bytes(changed)
        os.utime(path, ns=(0, 5))
        assert fingerprint_source(path) != first, place
    changed = content.copy()
    changed[2 * MIB] = 1  # the middle is not read
    path.write_bytes(changed)
    os.utime(path, ns=(0, 5))
    assert fingerprint_source(path) == first
    os.utime(path, ns=(0, 6))
    assert fingerprint_source(path) != first


def test_small_and_doubled_files_are_read_once_from_front_to_end(tmp_path: Path) -> None:
    import hashlib

    path = tmp_path / "a.bin"
    path.write_bytes(b"abc")
    assert fingerprint_source(path)["sha256"] == hashlib.sha256(b"abc").hexdigest()
    content = bytes(range(256)) * 6000
    path.write_bytes(content)
    assert fingerprint_source(path)["sha256"] == hashlib.sha256(content).hexdigest()


def test_folder_fingerprints_see_every_file(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png"):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, ns=(0, 1))
    first = fingerprint_source(folder)
    assert first["files"] == 2
    (folder / "sub/b.png").write_bytes(b"y")
    os.utime(folder / "sub/b.png", ns=(0, 1))
    assert fingerprint_source(folder) != first
    with pytest.raises(FileNotFoundError):
        fingerprint_source(tmp_path / "nothing")


def test_product_fingerprints_are_of_the_content_only(tmp_path: Path) -> None:
    for name, when in (("a", 1), ("b", 2)):
        (tmp_path / name).write_bytes(bytes(2 * MIB) + b"\x01" + bytes(2 * MIB))
        os.utime(tmp_path / name, ns=(0, when))
    assert fingerprint_product(tmp_path / "a") == fingerprint_product(tmp_path / "b")
    (tmp_path / "b").write_bytes(bytes(2 * MIB) + b"\x02" + bytes(2 * MIB))
    assert fingerprint_product(tmp_path / "a") != fingerprint_product(tmp_path / "b")


def test_jsonable() -> None:
    @dataclass(frozen=True)
    class Options:
        path: Path
        pair: tuple[float, float]

    value = {1: Options(Path("a/b"), (1.0, float("inf"))), "x": np.arange(2), "s": {"b", "a"}, "t": np.float64(0.5)}
    assert jsonable(value) == {"1": {"path": "a/b", "pair": [1.0, None]}, "x": [0, 1], "s": ["a", "b"], "t": 0.5}
