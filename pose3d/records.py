"""Is this work already done? Fingerprints of inputs, records of finished stages, windows of an interrupted one."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from calibration.files.atomic import atomic_path, write_bytes

__all__ = [
    "Plan",
    "Progress",
    "StageReport",
    "State",
    "fingerprint_product",
    "fingerprint_source",
    "jsonable",
    "read_record",
    "run_stage",
    "run_windows",
]

Progress = Callable[[str, int, int], None]
State = dict[str, NDArray[Any]]

T = TypeVar("T")

HIDDEN = ".pose3d"
"""Folder of the records and of unfinished work, inside the folder of the results."""
_ENDS = 1 << 20


@dataclass(frozen=True)
class Plan:
    """What a stage is about to do; equal plans give equal bytes.

    folder: where the results lie. stage: its name. version: of its code, raised when its result changes. inputs:
    fingerprints by role. options: the effective ones. outputs: paths relative to folder.
    """

    folder: Path
    stage: str
    version: int
    inputs: Mapping[str, Any]
    options: Mapping[str, Any]
    outputs: tuple[str, ...]

    @property
    def record(self) -> Path:
        """The JSON file that says that the stage is finished."""
        return _record(self.folder, self.stage)

    @property
    def unfinished(self) -> Path:
        """The folder of its finished windows while the stage runs; gone afterwards."""
        return self.folder / HIDDEN / self.stage

    def to_dict(self) -> dict[str, Any]:
        """What must be equal for the stage to be skipped, ready for JSON."""
        return dict(jsonable({f.name: getattr(self, f.name) for f in fields(self) if f.name != "folder"}))


@dataclass(frozen=True)
class StageReport:
    """What a stage did. summary: numbers by name, kept for when it is skipped; seconds: of this run, never stored."""

    stage: str
    skipped: bool
    seconds: float
    summary: Mapping[str, Any]
    outputs: tuple[Path, ...] = ()


def run_stage(plan: Plan, work: Callable[[], Mapping[str, Any]], *, force: bool = False) -> StageReport:
    """Do the work of a stage, or nothing when its record holds the same plan and its outputs are what it wrote.

    work: writes every output of the plan and returns the summary (no times in it). The record is written after the
    outputs, so a stage that was cut off is never taken for finished. force: forget what was done.
    """
    started = time.perf_counter()
    outputs = tuple(Path(os.path.normpath(plan.folder / name)) for name in plan.outputs)
    known = None if force else _finished(plan)
    if known is None:
        _prepare(plan, force)
        known = dict(jsonable(work()))
        hashes = {name: fingerprint_product(plan.folder / name) for name in plan.outputs}
        _write_json(plan.record, plan.to_dict() | {"products": hashes, "summary": known})
        skipped = False
    else:
        skipped = True
    if plan.unfinished.exists():
        shutil.rmtree(plan.unfinished)
    return StageReport(plan.stage, skipped, time.perf_counter() - started, known, outputs)


def read_record(folder: Path, stage: str) -> dict[str, Any] | None:
    """What a finished stage wrote down: its plan, its products' fingerprints, its summary; None where there is none."""
    return _read_json(_record(folder, stage))


def run_windows(
    plan: Plan,
    spans: Sequence[tuple[int, int]],
    step: Callable[[int, int, State], tuple[T, State]],
    write: Callable[[Path, T], object],
    *,
    suffix: str,
    progress: Progress | None = None,
) -> tuple[list[Path], State]:
    """The window files of a stage in order, and its last state; those finished before an interruption are kept.

    spans: (start, stop) rows of every window, the same whatever happened before.
    step(start, stop, state): the result of these rows and the state after them; the first state is {}. write: puts a
    result into a file of this suffix, whole or not at all; a window counts once its file is there, its state before it.
    """
    paths: list[Path] = []
    state: State = {}
    for number, (start, stop) in enumerate(spans):
        path = plan.unfinished / f"{number:06d}{suffix}"
        state_path = plan.unfinished / f"{number:06d}.state.npz"
        if path.exists():
            if not (plan.unfinished / f"{number + 1:06d}{suffix}").exists():
                state = _load_state(state_path)
        else:
            result, state = step(start, stop, state)
            with atomic_path(state_path) as partial, partial.open("wb") as file:
                np.savez(file, **state)  # type: ignore[arg-type]
            write(path, result)
        paths.append(path)
        if progress:
            progress(plan.stage, stop, spans[-1][1])
    return paths, state


def fingerprint_source(path: Path) -> dict[str, Any]:
    """What tells whether a user's file has changed: name, size, mtime, SHA-256 of its first and last MiB.

    A folder is the list of its files. Raises FileNotFoundError where there is none.
    """
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        parts = [(str(p.relative_to(path)), fingerprint_source(p)) for p in files]
        listing = hashlib.sha256(json.dumps(parts).encode())
        return {"name": path.name, "files": len(files), "sha256": listing.hexdigest()}
    status = path.stat()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(_ENDS))
        file.seek(max(_ENDS, status.st_size - _ENDS))
        digest.update(file.read(_ENDS))
    return {"name": path.name, "size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": digest.hexdigest()}


def fingerprint_product(path: Path) -> str:
    """SHA-256 of the whole content of a file that we wrote: equal bytes are equal, whenever they were written."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def jsonable(value: Any) -> Any:
    """The same in what JSON knows: dataclasses become dicts, arrays lists, paths text, NaN and infinity None."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: jsonable(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return jsonable(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _record(folder: Path, stage: str) -> Path:
    return folder / HIDDEN / f"{stage}.json"


def _finished(plan: Plan) -> dict[str, Any] | None:
    """The summary of a stage that has nothing left to do, else None."""
    record = _read_json(plan.record)
    if record is None or any(record.get(key) != value for key, value in plan.to_dict().items()):
        return None
    for name in plan.outputs:
        path = plan.folder / name
        if not path.is_file() or fingerprint_product(path) != record["products"].get(name):
            return None
    return dict(record["summary"])


def _prepare(plan: Plan, force: bool) -> None:
    """Leave in the folder of unfinished windows only what the same plan wrote, and nothing half-written anywhere."""
    plan.record.unlink(missing_ok=True)
    same = _read_json(plan.unfinished / "plan.json") == plan.to_dict()
    if (force or not same) and plan.unfinished.exists():
        shutil.rmtree(plan.unfinished)
    for name in (*plan.outputs, f"{HIDDEN}/{plan.stage}/x"):
        folder = (plan.folder / name).parent
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".*.partial"):
            left.unlink()
    _write_json(plan.unfinished / "plan.json", plan.to_dict())


def _write_json(path: Path, value: Any) -> None:
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode())


def _read_json(path: Path) -> dict[str, Any] | None:
    """None where there is no such file or not a whole one."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _load_state(path: Path) -> State:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
