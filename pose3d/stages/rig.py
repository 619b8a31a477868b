"""Where do the cameras of a session stand? Board footage, or a calibration that was given, in; calibration.toml out."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from calibration.board import Board, BoardDetections
from calibration.calibrate import CalibrationOptions, calibrate_rig
from calibration.camera import Intrinsics
from calibration.detection import DetectionOptions, detect_boards
from calibration.errors import InputError, nearest_name
from calibration.files import load_boards, load_rig, save_rig
from calibration.files.atomic import write_bytes
from calibration.files.calibration_toml import covariance_path
from calibration.footage import open_footage
from calibration.inspection import inspect_footage
from calibration.intrinsics import IntrinsicsOptions, estimate_intrinsics
from calibration.moved import MovedOptions, resettle_cameras
from calibration.rig import CameraRig
from calibration.world import WorldOptions, on_board, place_rig
from pose3d.records import Plan, Progress, StageReport, fingerprint_source, jsonable, run_stage
from pose3d.render.calibration_page import calibration_page
from pose3d.timeline import SyncOptions, Timeline, make_timeline

__all__ = ["calibrate_footage", "resettle_footage", "take_calibration"]

CALIBRATE_VERSION, TAKE_VERSION, RESETTLE_VERSION = 6, 1, 1


def calibrate_footage(
    output: Path,
    sources: Mapping[str, Path],
    board: Path | Board | Sequence[Board],
    *,
    intrinsics: Mapping[str, Path] | Path | None = None,
    options: Mapping[str, Any] | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> StageReport:
    """Calibrate a rig from footage of boards; writes `output`, and beside it its covariance, `<stem>.report.json` and
    the same as a page with pictures, `<stem>.html`.

    sources: {camera: video or folder of images}. board: the boards, or the file that describes them. intrinsics:
    {camera: footage of that camera alone}, or a calibration file whose intrinsics are taken as they are. options: by
    table, `detect`, `calibrate`, `world`, `sync_calibration`. Raises InputError.
    """
    if not sources:
        raise InputError(
            "calibration: expected board footage of every camera, a video or a folder of images, found none"
        )
    told = dict(options or {})
    detect, calibrate = told.get("detect") or DetectionOptions(), told.get("calibrate") or CalibrationOptions()
    sync = told.get("sync_calibration") or SyncOptions()
    inputs = _fingerprints(sources, board, intrinsics) | _mask_fingerprints(detect)
    if sync.timestamps is not None:
        inputs["timestamps"] = fingerprint_source(sync.timestamps)
    names = (output.name, covariance_path(output).name, f"{output.stem}.report.json", f"{output.stem}.html")
    plan = Plan(
        output.parent,
        f"calibrate.{output.stem}",
        CALIBRATE_VERSION,
        inputs,
        {"detect": replace(detect, masks={}), "calibrate": calibrate, "sync": replace(sync, timestamps=None)}
        | _told(told.get("world")),
        names,
    )

    def work() -> dict[str, Any]:
        boards = _boards(board)
        known = _known_intrinsics(intrinsics, sources, boards, detect, calibrate.intrinsics, progress)
        timeline = _timeline(sources, sync)
        detections = _detected(sources, boards, detect, timeline, plan.unfinished / "boards", progress)
        calibration = calibrate_rig(detections, calibrate, known or None)
        report = calibration.report.with_findings(inspect_footage(sources, detections))
        world = told.get("world") or WorldOptions()
        placed = calibration.rig, calibration.board_R, calibration.board_t, calibration.detections
        rig, said = place_rig(calibration.rig, world, lambda: on_board(*placed, world.floor_frame or 0))
        save_rig(output, rig)
        plain = jsonable(report.to_dict() | ({"world": said} if said else {}))
        write_bytes(plan.folder / names[2], (json.dumps(plain, indent=1) + "\n").encode())
        page = calibration_page(replace(calibration, report=report))
        write_bytes(plan.folder / names[3], page.encode())
        return {"text": report.text(), "report": plain} | said

    return run_stage(plan, work, force=force)


def _fingerprints(
    sources: Mapping[str, Path], board: Path | Board | Sequence[Board], intrinsics: Mapping[str, Path] | Path | None
) -> dict[str, Any]:
    """What a calibration is made from: footage, boards, and where intrinsics come from."""
    inputs: dict[str, Any] = {f"calibration.{name}": fingerprint_source(path) for name, path in sources.items()}
    inputs["board"] = fingerprint_source(board) if isinstance(board, Path) else board
    if isinstance(intrinsics, Path):
        inputs["intrinsics"] = fingerprint_source(intrinsics)
    elif intrinsics:
        inputs |= {f"intrinsics.{name}": fingerprint_source(path) for name, path in intrinsics.items()}
    return inputs


def take_calibration(
    output: Path,
    given: Path,
    *,
    file_format: str | None = None,
    unit: str | None = None,
    rename: Mapping[str, str] | None = None,
    world: WorldOptions | None = None,
    force: bool = False,
) -> StageReport:
    """Write a calibration that was made elsewhere as ours, its cameras under the session's names.

    rename: {name in the given file: name here}; cameras that it does not name keep theirs. world: where its origin
    shall be. Raises InputError for a
    camera to rename that the file does not have.
    """
    if not given.is_file():
        raise InputError(f"{given}: expected the given calibration, found no file; correct `calibration.file`")
    rig = load_rig(given, file_format, unit)
    rename = dict(rename or {})
    for name in rename:
        if name not in rig.names:
            raise InputError(f"cameras.rename: camera '{name}' is not in {given}; {nearest_name(name, rig.names)}")
    names = (output.name,) if rig.covariance is None else (output.name, covariance_path(output).name)
    inputs = {"calibration": fingerprint_source(given)}
    if covariance_path(given).is_file():
        inputs["covariance"] = fingerprint_source(covariance_path(given))
    options = {"format": file_format, "unit": unit, "rename": rename} | _told(world)
    plan = Plan(output.parent, f"calibrate.{output.stem}", TAKE_VERSION, inputs, options | {"given": True}, names)

    def work() -> dict[str, Any]:
        cameras = tuple(replace(camera, name=rename.get(camera.name, camera.name)) for camera in rig)
        placed, said = place_rig(CameraRig(cameras, rig.unit, rig.covariance), world or WorldOptions())
        save_rig(output, placed)
        return {"cameras": ", ".join(camera.name for camera in cameras), "unit": rig.unit} | said

    return run_stage(plan, work, force=force)


def resettle_footage(
    output: Path,
    keep: Path,
    moved: Collection[str],
    sources: Mapping[str, Path],
    board: Path,
    *,
    options: MovedOptions | None = None,
    detect: DetectionOptions | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> StageReport:
    """Place the cameras of a calibration that were moved, by new footage of a board; all others stay as they are.

    keep: the calibration. sources: {camera: video or folder of images} of the moved and of some others. Raises
    InputError.
    """
    if keep.resolve() == output.resolve():
        raise InputError(f"{output}: expected another file than the calibration to keep; give a new name as --output")
    options, detect = options or MovedOptions(), detect or DetectionOptions()
    rig = load_rig(keep)
    for name in moved:
        rig.index(name)
    used = {name: path for name, path in sources.items() if name in rig.names}
    inputs: dict[str, Any] = {f"calibration.{name}": fingerprint_source(path) for name, path in used.items()}
    inputs |= _mask_fingerprints(detect) | {"board": fingerprint_source(board), "keep": fingerprint_source(keep)}
    if covariance_path(keep).is_file():
        inputs["covariance"] = fingerprint_source(covariance_path(keep))
    names = (output.name, covariance_path(output).name)
    told = {"moved": sorted(moved), "options": options, "detect": replace(detect, masks={})}
    plan = Plan(output.parent, f"resettle.{output.stem}", RESETTLE_VERSION, inputs, told, names)

    def work() -> dict[str, Any]:
        timeline, cache = _timeline(used, SyncOptions()), plan.unfinished / "boards"
        detections = _detected(used, load_boards(board), detect, timeline, cache, progress)
        found = resettle_cameras(rig, moved, detections, options)
        save_rig(output, found.rig)
        return {"text": found.text}

    return run_stage(plan, work, force=force)


def _told(world: WorldOptions | None) -> dict[str, Any]:
    """What a plan says of the world: nothing where nothing was asked for, so that earlier results stay."""
    return {} if world is None else {"world": world}


def _mask_fingerprints(options: DetectionOptions) -> dict[str, Any]:
    """By role, of a plan's inputs. Raises InputError for a mask that is not there."""
    for name, path in options.masks.items():
        if not path.is_file():
            raise InputError(f"detect.masks.{name}: {path}: expected an image, found no file; correct the path")
    return {f"mask.{name}": fingerprint_source(path) for name, path in options.masks.items()}


def _boards(told: Path | Board | Sequence[Board]) -> tuple[Board, ...]:
    if isinstance(told, Path):
        return load_boards(told)
    return (told,) if isinstance(told, Board) else tuple(told)


def _detected(
    sources: Mapping[str, Path],
    boards: Sequence[Board],
    options: DetectionOptions,
    timeline: Timeline | None,
    cache: Path,
    progress: Progress | None,
) -> BoardDetections:
    """Boards in the footage; of videos also when each picture was taken, as far as it is known."""
    if timeline is None:
        return detect_boards(sources, boards, options, cache=cache, progress=progress)
    frames = {name: timeline.frame[:, timeline.view(name)] for name in sources}
    found = detect_boards(sources, boards, options, frames=frames, cache=cache, progress=progress)
    rows = found.frame
    delay = np.stack([-timeline.shift[rows, timeline.view(name)] for name in found.view_names]) / timeline.fps
    return replace(found, time=timeline.time[rows], delay=delay)


def _timeline(sources: Mapping[str, Path], sync: SyncOptions) -> Timeline | None:
    """Which frames of videos belong together, and when; None for images, which pair by their numbers."""
    if not all(path.is_file() for path in sources.values()):
        return None
    counts, fps = {}, math.nan
    for name, path in sources.items():
        with open_footage(path) as footage:
            counts[name], fps = footage.n_frames, fps if math.isfinite(fps) else footage.fps
    try:
        return make_timeline(counts, fps, sync)
    except InputError as error:
        message = str(error).replace("[sync]", "[sync_calibration]")
        raise InputError(f"board footage: {message}") from None


def _known_intrinsics(
    given: Mapping[str, Path] | Path | None,
    sources: Mapping[str, Path],
    boards: Sequence[Board],
    options: DetectionOptions,
    estimate: IntrinsicsOptions,
    progress: Progress | None,
) -> dict[str, Intrinsics]:
    """{camera: Intrinsics} that were given or follow from footage of each camera alone."""
    if given is None:
        return {}
    if isinstance(given, Path):
        rig = load_rig(given, unit=None)
        return {camera.name: camera.intrinsics for camera in rig if camera.name in sources}
    for name in given:
        if name not in sources:
            raise InputError(
                f"intrinsics: camera '{name}' has no footage with the others; {nearest_name(name, sources)}"
            )
    alone = {}
    for name, path in given.items():
        own = DetectionOptions(options.step, masks={n: mask for n, mask in options.masks.items() if n == name})
        alone[name] = detect_boards({name: path}, boards, own, progress=progress)
    return {name: estimate_intrinsics(detections, name, estimate).intrinsics for name, detections in alone.items()}
