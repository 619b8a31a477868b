"""What can be typed about the rig? Calibrate it, check it; what they need is imported inside, as in `cli`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from pose3d.flags import Force, Json

if TYPE_CHECKING:
    from calibration.detection import DetectionOptions
    from calibration.world import WorldOptions

__all__ = ["calibrate", "check"]


def calibrate(
    folder: Path,
    *,
    board: Path,
    output: Path,
    intrinsics: Path | None = None,
    lens: dict[str, Literal["pinhole", "fisheye", "rational"]] | None = None,
    floor: int | None = None,
    world: Path | None = None,
    detect: Path | None = None,
    keep: Path | None = None,
    moved: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    refine: Annotated[bool, Parameter(negative="")] = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Calibrate cameras from footage of a board.

    Parameters
    ----------
    folder
        CAMERA.mp4 or CAMERA/ of images, one for each camera
    board
        the description of the board, or of several: board.toml
    output
        the calibration to write, such as calibration.toml
    intrinsics
        folder with footage of each camera alone, or a calibration whose intrinsics are taken as they are
    lens
        a camera's lens, such as --lens.top fisheye; that of a camera that is not named is found out
    floor
        frame in which the board lies on the floor: it becomes z = 0, with the cameras above
    world
        file with the keys of pose3d.toml's table [world]: points that say where the world is, distances to check
    detect
        file with the keys of pose3d.toml's table [detect]: frames to leave out, masks; paths relative to it
    keep
        a calibration of which only the cameras named by --moved are placed anew, all others stay
    moved
        a camera that was moved; may be given several times
    refine
        adjust the intrinsics of moved cameras, or those of --intrinsics, too, from what they are on
    """
    from pose3d.console import progress_bars, show_reports
    from pose3d.pipeline import calibrate_folder, resettle_folder

    options, looked = _world(floor, world), _detect(detect)
    with progress_bars(quiet=json) as progress:
        if keep is None and not moved:
            report = calibrate_folder(
                folder, board, output, intrinsics, lens=lens, world=options, refine=refine, detect=looked, force=force,
                progress=progress,
            )  # fmt: skip
        else:
            besides = intrinsics or lens or options
            report = resettle_folder(
                folder, board, output, keep, moved, besides, detect=looked, refine=refine, force=force,
                progress=progress,
            )  # fmt: skip
    show_reports([report], json=json)


def check(
    recordings: list[Path],
    /,
    *,
    calibration: Path,
    output: Path | None = None,
    unit: str | None = None,
    poses2d_format: Annotated[str | None, Parameter(name="--format")] = None,
    json: Json = False,
) -> None:
    """Does the rig still hold? Find cameras that were moved, and when, from the animals' 2D poses.

    Parameters
    ----------
    recordings
        results of recordings, in order of time, or folders with 2D poses by camera
    calibration
        the rig that they were, or shall be, reconstructed with
    output
        the calibration as it stands at the end, written if the rig does not hold
    unit
        of the calibration's lengths, where its file does not say
    poses2d_format
        of the 2D poses, where the files do not tell
    """
    from pose3d.console import say, tell_json
    from pose3d.stages.check import check_recordings

    told = check_recordings(recordings, calibration, output, unit=unit, file_format=poses2d_format)
    if json:
        tell_json(told.to_dict())
        return
    say(told.text())
    if told.output is not None:
        say(f"{told.output} written")


def _table(tables: dict[str, Any], name: str) -> dict[str, Any]:
    """The keys of a file, which may stand under the header that they have in pose3d.toml."""
    inner = tables.get(name)
    return inner if len(tables) == 1 and isinstance(inner, dict) else tables


def _world(floor: int | None, file: Path | None) -> WorldOptions | None:
    """What the command line says of the world: a frame, or a TOML with the keys of [world]. Raises InputError."""
    from calibration.files.toml_tables import read_toml
    from calibration.world import WorldOptions
    from pose3d.config import options_from

    if file is None:
        return None if floor is None else WorldOptions(floor_frame=floor)
    told: WorldOptions = options_from(WorldOptions, _table(read_toml(file), "world"), str(file))
    return told if floor is None else replace(told, floor_frame=floor)


def _detect(file: Path | None) -> DetectionOptions | None:
    """A TOML with the keys of [detect]. Raises InputError."""
    from calibration.detection import DetectionOptions
    from calibration.files.toml_tables import read_toml
    from pose3d.config import options_from

    if file is None:
        return None
    told: DetectionOptions = options_from(DetectionOptions, _table(read_toml(file), "detect"), str(file))
    return replace(told, masks={name: file.parent / mask for name, mask in told.masks.items()})
