"""What is done with a session, in which order? Files in, files out; every stage is skipped or resumed by its record."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from calibration.calibrate import CalibrationOptions
from calibration.detection import DetectionOptions
from calibration.errors import InputError, nearest_name
from calibration.files import load_rig
from calibration.footage import find_sources
from calibration.intrinsics import IntrinsicsOptions
from calibration.lenses import Lens
from calibration.moved import MovedOptions
from calibration.rig import CameraRig
from calibration.world import WorldOptions
from pose3d.assembly import AssemblyOptions
from pose3d.identity import IdentityOptions
from pose3d.nn.options import PredictOptions
from pose3d.records import Progress, StageReport
from pose3d.session import Patterns, Session, drawn_skeleton, find_files, find_in, find_recordings
from pose3d.stages.labels import look_at_labels
from pose3d.stages.pictures import draw_overlay, draw_scene
from pose3d.stages.poses2d import expect_footage, import_poses2d
from pose3d.stages.poses3d import export_poses, identify_views, refine_poses, triangulate_groups
from pose3d.stages.prediction import (
    assemble_views,
    assembly_options,
    find_networks,
    find_session_networks,
    given_model,
    predict_videos,
    trained_skeleton,
)
from pose3d.stages.recording import CALIBRATION, Recording
from pose3d.stages.rig import calibrate_footage, resettle_footage, take_calibration
from pose3d.stages.training import train_networks

__all__ = ["calibrate_folder", "predict_files", "reconstruct_folder", "resettle_folder", "run_session", "train_session"]


def run_session(
    session: Session, recording: str | None = None, *, force: bool = False, progress: Progress | None = None
) -> Iterator[tuple[str, StageReport]]:
    """Run every stage of a session, yielding (recording, report) after each; the recording is "" for the session's rig
    and networks. A recording without 2D poses is predicted from its videos, where there are a network or labels.

    recording: only this one. force: run stages whose inputs did not change, too. Results lie in the session's output
    folder; a session without recordings ends with its calibration. Raises InputError.
    """
    names = find_recordings(session)
    if recording is not None and recording not in names:
        raise InputError(f"recording '{recording}' is not in {session.data}; {nearest_name(recording, names)}")
    yield "", _calibrated(session, force, progress)
    trained = False
    for name in names if recording is None else (recording,):
        calibration = session.output / CALIBRATION
        own = session.data / "recordings" / name / CALIBRATION
        if own.is_file():
            calibration = session.results(name) / CALIBRATION
            yield name, take_calibration(calibration, own, unit=session.unit, rename=session.rename, force=force)
        rig, sources, predicted = load_rig(calibration), find_files(session, "poses2d", name), None
        if not sources and (session.labels or given_model(session)) and find_files(session, "video", name):
            if not trained and given_model(session) is None:
                yield from (("", report) for report in train_session(session, force=force, progress=progress))
                trained = True
            sources = predicted = yield from _predicted(session, name, rig, force, progress)
        yield name, import_poses2d(session, name, rig, predicted=predicted, force=force, progress=progress)
        job = _recording(session, name, calibration, tuple(sources), force, progress)
        for stage in (identify_views, triangulate_groups, refine_poses):
            yield name, stage(job)
        yield name, export_poses(job, job.folder / "poses3d.csv")
        yield name, draw_scene(job)
        videos = find_files(session, "video", name)
        yield name, draw_overlay(job, {camera: path for camera, path in videos.items() if camera in job.cameras})


def train_session(session: Session, *, force: bool = False, progress: Progress | None = None) -> Iterator[StageReport]:
    """Look at the session's labels, then train on them, yielding a report after each stage. Raises InputError."""
    yield look_at_labels(session, force=force)
    yield from train_networks(session, force=force, progress=progress)


def calibrate_folder(
    folder: Path,
    board: Path,
    output: Path,
    intrinsics: Path | None = None,
    *,
    lens: Mapping[str, Lens] | None = None,
    world: WorldOptions | None = None,
    refine: bool = False,
    detect: DetectionOptions | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> StageReport:
    """Calibrate the cameras of a folder of <camera>.mp4 or <camera>/ of images.

    intrinsics: such a folder with footage of each camera alone, or a calibration whose intrinsics are taken, and
    adjusted where `refine`. lens: {camera: its kind of lens}, see `IntrinsicsOptions`. world: where the world's origin
    is. detect: what takes no part. Raises InputError.
    """
    sources = {name: path for name, path in find_sources(folder).items() if path != intrinsics}
    known = find_sources(intrinsics) if intrinsics is not None and intrinsics.is_dir() else intrinsics
    calibrate = CalibrationOptions(refine=refine, intrinsics=IntrinsicsOptions(lens=dict(lens or {})))
    options = {"calibrate": calibrate, "world": world, "detect": detect}
    return calibrate_footage(output, sources, board, intrinsics=known, options=options, force=force, progress=progress)


def resettle_folder(
    folder: Path,
    board: Path,
    output: Path,
    keep: Path | None,
    moved: Sequence[str],
    besides: object = None,
    *,
    detect: DetectionOptions | None = None,
    refine: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> StageReport:
    """Place the cameras named `moved` of the calibration `keep` by footage of a board, as in `calibrate_folder`.

    besides: what else was asked for, which does not go with it. Raises InputError.
    """
    if keep is None or not moved:
        raise InputError("expected both --keep CALIBRATION and --moved CAMERA, got one of them; add the other")
    if besides:
        raise InputError("--keep keeps intrinsics and world; leave out --intrinsics, --lens, --floor and --world")
    sources, options = find_sources(folder), MovedOptions(refine=refine)
    told: dict[str, Any] = {"options": options, "detect": detect, "force": force, "progress": progress}
    return resettle_footage(output, keep, moved, sources, board, **told)


def reconstruct_folder(
    poses2d: Path,
    calibration: Path,
    output: Path,
    *,
    unit: str | None = None,
    individuals: int | None = None,
    file_format: str | None = None,
    fps: float | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Iterator[StageReport]:
    """3D poses of a folder of 2D poses (<camera>.h5 and so on), into the file `output`, stage by stage.

    The stages work in a hidden folder beside the output, from which the same command goes on. Raises InputError.
    """
    if output.suffix not in (".nc", ".csv"):
        raise InputError(f"{output}: expected the name of the 3D poses to end in .nc or .csv; others: `pose3d convert`")
    if not find_in(poses2d, "poses2d"):
        raise InputError(f"{poses2d}: expected 2D poses, a file or folder for each camera, found none")
    work = output.absolute().parent / f".{output.stem}.pose3d"
    session = Session(
        file=poses2d,
        data=poses2d,
        output=work.parent,
        unit=unit,
        fps=fps,
        patterns=Patterns(poses2d="{camera}"),
        poses2d_format=file_format,
        options={"identify": IdentityOptions(individuals=individuals)},
    )
    yield take_calibration(work / CALIBRATION, calibration, unit=unit, force=force)
    yield import_poses2d(session, work.name, load_rig(work / CALIBRATION), force=force, progress=progress)
    cameras = tuple(find_files(session, "poses2d", work.name))
    job = _recording(session, work.name, work / CALIBRATION, cameras, force, progress)
    for stage in (identify_views, triangulate_groups, refine_poses):
        yield stage(job)
    yield export_poses(job, output.absolute())


def predict_files(
    videos: Sequence[Path],
    model: Path,
    output: Path,
    *,
    individuals: int | None = None,
    options: PredictOptions | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Iterator[StageReport]:
    """2D poses of videos or folders of images, <name>.nc in the folder `output`, and candidates/<name>.nc.

    model: a network, or a folder with one for each name. individuals: at most so many in each video. Raises InputError.
    """
    named: dict[str, Path] = {}
    for video in videos:
        name = video.name if video.is_dir() else video.stem
        if not video.exists():
            raise InputError(f"{video}: expected a video file or a folder of images, found nothing; correct the path")
        if name in named:
            raise InputError(f"{video}: expected videos of different names, got {named[name]} too; predict it apart")
        named[name] = video
    assembly = AssemblyOptions(individuals=individuals)
    told: dict[str, Any] = {"force": force, "progress": progress}
    seen = predict_videos(output, named, find_networks(model, named), options, **told)
    yield seen
    yield assemble_views(output, named, assembly, fps=seen.summary["frames/s"], place="{camera}.nc", **told)


def _predicted(
    session: Session, name: str, rig: CameraRig, force: bool, progress: Progress | None
) -> Generator[tuple[str, StageReport], None, dict[str, Path]]:
    """Predict and assemble a recording's videos: yields (recording, report), returns {camera: 2D poses}."""
    videos, folder = find_files(session, "video", name), session.results(name)
    expect_footage(videos, rig, session)
    options = session.options.get("predict") or PredictOptions()
    networks = find_session_networks(session, videos)
    for network in set(networks.values()):  # what is wrong with [skeleton] is said before anything is predicted
        drawn_skeleton(trained_skeleton(network), session.skeleton)
    assembly = assembly_options(session)
    told: dict[str, Any] = {"keypoints": session.skeleton.keypoints, "window": session.window}
    told |= {"force": force, "progress": progress}
    seen = predict_videos(folder, videos, networks, options, **told)
    yield name, seen
    yield name, assemble_views(folder, videos, assembly, fps=seen.summary["frames/s"], **told)
    return {camera: folder / f"assembled/{camera}.nc" for camera in videos}


def _recording(
    session: Session,
    name: str,
    calibration: Path,
    cameras: tuple[str, ...],
    force: bool,
    progress: Progress | None,
) -> Recording:
    return Recording(
        folder=session.results(name),
        cameras=cameras,
        rig=load_rig(calibration),
        calibration=calibration,
        options=session.options,
        window=session.window,
        force=force,
        progress=progress,
    )


def _calibrated(session: Session, force: bool, progress: Progress | None) -> StageReport:
    """The session's calibration: the given one, else the data folder's calibration.toml, else from board footage."""
    path = session.output / CALIBRATION
    if session.calibration is not None or (session.data / CALIBRATION).is_file():
        return take_calibration(
            path,
            session.data / (session.calibration or CALIBRATION),
            file_format=session.calibration_format,
            unit=session.unit,
            rename=session.rename,
            world=session.options.get("world"),
            force=force,
        )
    board = session.board if session.board is not None else "board.toml"
    if isinstance(board, str):
        board = session.data / board
        if not board.is_file():
            raise InputError(
                f"{board}: expected the board's description, found none; write it, or name a finished calibration "
                f'under [calibration] in {session.file}: file = "calibration.toml"'
            )
    known = find_files(session, "intrinsics")
    return calibrate_footage(
        path,
        find_files(session, "calibration"),
        board,
        intrinsics=known or (None if session.intrinsics is None else session.data / session.intrinsics),
        options=session.options,
        force=force,
        progress=progress,
    )
