"""Who is who and where in space? poses2d/ and a rig in; groups.nc, triangulated.nc and poses3d.nc out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calibration.errors import InputError
from calibration.files.atomic import atomic_path
from calibration.geometry import estimate_noise
from pose3d.files import (
    join_groups,
    join_poses,
    load_poses,
    read_groups,
    read_windows,
    save_poses,
    stream_tidy,
    write_groups,
)  # fmt: skip
from pose3d.identity import (
    IdentityOptions,
    final_ids,
    identify_window,
    initial_state,
    named,
    state_from_arrays,
    state_to_arrays,
)  # fmt: skip
from pose3d.identity_doubt import Swap, suspected_swaps, swapped
from pose3d.motion import Motion
from pose3d.poses import BRIDGED, Groups, Poses
from pose3d.records import Plan, StageReport, State, fingerprint_product, run_stage, run_windows
from pose3d.refinement import RefineOptions, add_rig_covariance, learn_motion, refine_window, windows
from pose3d.stages.recording import Recording
from pose3d.triangulation import TriangulationOptions, triangulate

__all__ = ["export_poses", "identify_views", "refine_poses", "triangulate_groups"]

IDENTIFY_VERSION, TRIANGULATE_VERSION, REFINE_VERSION, EXPORT_VERSION = 5, 1, 1, 1
CORRECTIONS, SUSPECTED = "corrections.csv", "suspected_swaps.csv"
"""Tables in the folder of a recording's results: exchanges that somebody tells, and those worth a look."""
NOISE_FRAMES, NOISE_STRETCHES = 200, 5
"""The pixel noise is estimated from so many frames in so many places of a recording."""
Stretch = tuple[Poses, dict[str, Poses], Groups]
_BINS = np.geomspace(1e-4, 1e5, 4001)
"""Edges of the histogram from which medians of a whole recording are read, to 0.5 %, in bounded memory."""


def identify_views(recording: Recording) -> StageReport:
    """Which slot of which view is which individual: groups.nc, with the exchanges that corrections.csv tells; the
    moments where two may have been exchanged: suspected_swaps.csv."""
    options = recording.options.get("identify") or IdentityOptions()
    told = [CORRECTIONS] if (recording.folder / CORRECTIONS).is_file() else []
    inputs = recording.inputs(*told)
    plan = _plan(recording, "identify", IDENTIFY_VERSION, options, inputs, "groups.nc", SUSPECTED)

    def step(start: int, stop: int, state: State) -> tuple[Groups, State]:
        views = recording.views(start, stop)
        before = state_from_arrays(state) if state else initial_state(next(iter(views.values())).shape[2])
        groups, after = identify_window(views, before, recording.rig, options)
        return groups, state_to_arrays(after)

    def work() -> dict[str, Any]:
        n_frames = recording.n_frames()
        parts, state = run_windows(
            plan, recording.spans(), step, write_groups, suffix=".nc", progress=recording.progress
        )
        ids = final_ids(state_from_arrays(state), options)
        if not (ids >= 0).any():
            raise InputError(
                f"{recording.folder}: no individual is seen by two cameras at once; check that the 2D poses belong to "
                f"this calibration and that the cameras run in step ([sync])"
            )
        frame = np.concatenate(
            [poses.frame for poses in read_windows(recording.folder / f"poses2d/{recording.cameras[0]}.nc")]
        )
        corrections = _corrections(recording.folder / CORRECTIONS, frame) if told else []
        named_parts = [part.with_name(f"named_{part.name}") for part in parts]
        for part, renamed, (start, _) in zip(parts, named_parts, recording.spans(), strict=True):
            here = [replace(swap, row=swap.row - start) for swap in corrections]
            write_groups(renamed, swapped(named(read_groups(part), ids), here))
        join_groups(named_parts, plan.folder / "groups.nc")
        swaps = suspected_swaps(read_groups(part) for part in named_parts)
        _write_swaps(plan.folder / SUSPECTED, swaps, frame)
        return _who(named_parts, n_frames) | {"corrections": len(corrections), "suspected swaps": len(swaps)}

    return run_stage(plan, work, force=recording.force)


def triangulate_groups(recording: Recording) -> StageReport:
    """Where the keypoints of every individual are, each frame alone: triangulated.nc."""
    options = recording.options.get("triangulate") or TriangulationOptions()
    inputs = recording.inputs("groups.nc")
    plan = _plan(recording, "triangulate", TRIANGULATE_VERSION, options, inputs, "triangulated.nc")

    def step(start: int, stop: int, state: State) -> tuple[Poses, State]:
        state = state or {"noise_px": np.array(_noise(recording, options))}
        views, groups = recording.views(start, stop), recording.groups(start, stop)
        poses = triangulate(views, groups, recording.rig, replace(options, noise_px=float(state["noise_px"])))
        return poses.replace(names={}), state  # names of 2D tracks say nothing of who is who in 3D

    def work() -> dict[str, Any]:
        parts, _ = run_windows(plan, recording.spans(), step, save_poses, suffix=".nc", progress=recording.progress)
        join_poses(parts, plan.folder / "triangulated.nc")
        return _how_good(plan.folder / "triangulated.nc")

    return run_stage(plan, work, force=recording.force)


def refine_poses(recording: Recording) -> StageReport:
    """Smooth paths of bodies with constant bones, with the uncertainty of pixels and rig: poses3d.nc."""
    options = recording.options.get("refine") or RefineOptions()
    inputs = recording.inputs("groups.nc", "triangulated.nc")
    plan = _plan(recording, "refine", REFINE_VERSION, options, inputs, "poses3d.nc")
    source = recording.folder / "triangulated.nc"

    def stretch(start: int, stop: int) -> Stretch:
        return (
            load_poses(source, frames=slice(start, stop)),
            recording.views(start, stop),
            recording.groups(start, stop),
        )

    def work() -> dict[str, Any]:
        frame, everyone = _frames_and_ids(source)
        borders = {first: (start, stop, last) for start, stop, first, last in windows(frame, options)}

        def step(first: int, last: int, state: State) -> tuple[Poses, State]:
            motion = Motion(**state) if state else _learn(recording, stretch, options, everyone)
            start, stop, _ = borders[first]
            poses, views, groups = stretch(start, stop)
            solved = refine_window(poses, views, groups, recording.rig, motion, options)
            _, views, groups = stretch(first, last)
            kept = add_rig_covariance(solved.window(first - start, last - start), views, groups, recording.rig)
            return kept, {f.name: getattr(motion, f.name) for f in fields(motion)}

        spans = [(first, last) for first, (_, _, last) in borders.items()]
        parts, _ = run_windows(plan, spans, step, save_poses, suffix=".nc", progress=recording.progress)
        join_poses(parts, plan.folder / "poses3d.nc")
        return _how_good(plan.folder / "poses3d.nc")

    return run_stage(plan, work, force=recording.force)


def export_poses(recording: Recording, path: Path) -> StageReport:
    """The final poses in the format of the path's ending: .csv (a plain table), .trc, or .nc (a copy of poses3d.nc)."""
    source = recording.folder / "poses3d.nc"
    name = os.path.relpath(path, recording.folder)
    inputs = {"poses3d.nc": fingerprint_product(source)}
    plan = _plan(recording, "export", EXPORT_VERSION, {}, inputs, name)

    def work() -> dict[str, Any]:
        if path.suffix == ".csv":
            stream_tidy(source, path)
        elif path.suffix == ".nc":
            join_poses([source], path)
        else:
            save_poses(path, load_poses(source))
        return {"megabytes": path.stat().st_size / 1e6}

    return run_stage(plan, work, force=recording.force)


def _write_swaps(path: Path, swaps: list[Swap], frame: NDArray[np.int64]) -> None:
    columns = ("frame", "first", "second", "probability", "cost_frames")
    rows = [(frame[swap.row], swap.first, swap.second, swap.probability, swap.cost) for swap in swaps]
    table = pd.DataFrame(rows, columns=columns).to_csv(index=False, float_format="%.3g", lineterminator="\n")
    with atomic_path(path) as partial:
        partial.write_text(table)


def _corrections(path: Path, frame: NDArray[np.int64]) -> list[Swap]:
    """The exchanges that a table tells: columns frame, first, second; any others are not looked at."""
    try:
        table = pd.read_csv(path, comment="#", skipinitialspace=True)
        rows = table[["frame", "first", "second"]].astype(np.int64)
    except (KeyError, ValueError, OSError) as error:
        raise InputError(f"{path}: expected whole numbers in columns frame, first, second ({error})") from None
    lost = rows["frame"][~rows["frame"].isin(frame)]
    if len(lost):
        raise InputError(f"{path}: there is no frame {lost.iloc[0]}; expected numbers from {frame[0]} to {frame[-1]}")
    return [Swap(int(np.searchsorted(frame, at)), a, b) for at, a, b in rows.to_numpy().tolist()]


def _frames_and_ids(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """(frames,) all frame numbers, and all identities, ascending."""
    windows = [(poses.frame, np.unique(poses.ids[poses.ids >= 0])) for poses in read_windows(path)]
    frames, ids = zip(*windows, strict=True)
    return np.concatenate(frames), np.unique(np.concatenate(ids))


def _noise(recording: Recording, options: TriangulationOptions) -> float:
    """The pixel noise of the 2D poses, one for all windows: as given, else from stretches spread over the recording."""
    if options.noise_px is not None:
        return options.noise_px
    n_frames = recording.n_frames()
    starts = np.unique(np.linspace(0, max(n_frames - NOISE_FRAMES, 0), NOISE_STRETCHES).astype(int))
    xy, score = [], []
    for start in starts:
        views, groups = recording.views(start, start + NOISE_FRAMES), recording.groups(start, start + NOISE_FRAMES)
        seen = [views[name].take_slots(groups.slots[:, :, v]) for v, name in enumerate(groups.view_names)]
        xy.append(np.stack([poses.points.reshape(-1, 2) for poses in seen]))
        score.append(np.stack([poses.score.ravel() for poses in seen]))
    rig = recording.rig.subset(groups.view_names)
    return estimate_noise(np.concatenate(xy, axis=1), rig, score=np.concatenate(score, axis=1), options=options)


def _learn(
    recording: Recording,
    stretch: Callable[[int, int], Stretch],
    options: RefineOptions,
    everyone: NDArray[np.int32],
) -> Motion:
    """The motion model; of a long recording only what `learn_motion` would look at is read: five stretches."""
    n_frames, length = recording.n_frames(), options.sample // 5
    if n_frames <= options.sample:
        return learn_motion(*stretch(0, n_frames), recording.rig, options, everyone)
    starts = np.linspace(0, n_frames - length, 5).astype(int)
    parts = [stretch(start, start + length) for start in starts]
    views = parts[0][1]
    views = {name: _joined([part[1][name] for part in parts]) for name in views}
    groups = Groups.joined([part[2] for part in parts])
    return learn_motion(_joined([part[0] for part in parts]), views, groups, recording.rig, options, everyone)


def _joined(parts: list[Poses]) -> Poses:
    """Stretches of one file, one after the other."""
    arrays = {n: np.concatenate([getattr(p, n) for p in parts]) for n in ("points", "score", "ids", "frame", "time")}
    extras = {n: np.concatenate([p.extras[n] for p in parts]) for n in parts[0].extras}
    return parts[0].replace(**arrays, extras=extras)


def _plan(
    recording: Recording, stage: str, version: int, options: Any, inputs: Mapping[str, Any], *outputs: str
) -> Plan:
    table = {"options": options, "window": recording.window}
    return Plan(recording.folder, stage, version, inputs, table, outputs)


def _who(parts: list[Path], n_frames: int) -> dict[str, Any]:
    """Counts of groups files: individuals, in how many frames each is seen, by how many views on average."""
    frames: dict[int, int] = {}
    views = seen = 0
    for part in parts:
        groups = read_groups(part)
        for identity, count in zip(*np.unique(groups.ids[groups.ids >= 0], return_counts=True), strict=True):
            frames[int(identity)] = frames.get(int(identity), 0) + int(count)
        views, seen = views + int((groups.slots >= 0).sum()), seen + int((groups.ids >= 0).sum())
    return {
        "individuals": len(frames),
        "frames": n_frames,
        "share of frames seen": {f"individual_{i}": count / n_frames for i, count in sorted(frames.items())},
        "views of an individual, mean": views / max(seen, 1),
    }


def _how_good(path: Path) -> dict[str, Any]:
    """Counts and errors of a 3D poses file, by windows."""
    delivered = possible = bridged = 0
    errors, spreads = np.zeros(len(_BINS) - 1), np.zeros(len(_BINS) - 1)
    for poses in read_windows(path):
        here = (~poses.missing.all(axis=2)).sum()
        delivered, possible = delivered + int((~poses.missing).sum()), possible + int(here) * poses.shape[2]
        bridged += int((poses.extras["status"] == BRIDGED).sum())
        errors += _histogram(poses.extras["reprojection_error"])
        spreads += _histogram(np.sqrt(np.trace(poses.extras["covariance"], axis1=-2, axis2=-1)))
    return {
        "keypoints": delivered,
        "share of a seen individual's keypoints": delivered / max(possible, 1),
        "bridged": bridged,
        "reprojection px": {"median": _quantile(errors, 0.5), "p95": _quantile(errors, 0.95)},
        f"standard deviation {poses.unit}": {"median": _quantile(spreads, 0.5), "p95": _quantile(spreads, 0.95)},
    }


def _histogram(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.histogram(values[np.isfinite(values)], _BINS)[0].astype(float)


def _quantile(histogram: NDArray[np.float64], q: float) -> float:
    """The value below which a share q lies; NaN of nothing."""
    total = histogram.sum()
    return float(_BINS[np.searchsorted(np.cumsum(histogram), q * total)]) if total else float("nan")
