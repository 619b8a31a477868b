"""What can be typed? One short function per command; what it needs is imported inside, so that --help is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from pose3d import __version__
from pose3d.flags import Force, Json
from pose3d.label_commands import suggest
from pose3d.nn.options import EngineName
from pose3d.rig_commands import calibrate, check
from pose3d.score_commands import evaluate

__all__ = ["app", "main"]

app = App(
    name="pose3d",
    version=__version__,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
    help="From synchronised cameras to named 3D animals, with honest uncertainty. "
    "Begin with `pose3d demo`; for your own data: `pose3d new FOLDER`.",
)

app.command(calibrate)
app.command(check)
app.command(suggest)
app.command(evaluate)


@app.command
def new(folder: Path, *, force: Force = False, json: Json = False) -> None:
    """Write a commented pose3d.toml for a folder, from the cameras, footage and 2D poses that are in it.

    Parameters
    ----------
    folder
        of the session; see the README for the layout, which patterns in the file can change
    """
    from pose3d.console import say, tell_json
    from pose3d.scaffold import write_session

    path, found = write_session(folder, force=force)
    if json:
        tell_json({"file": path, "found": found})
        return
    for line in found:
        say(line)
    say(f"{path} written; read it, then: pose3d run {folder}")


@app.command
def run(
    session: Path,
    *,
    data: Path | None = None,
    output: Path | None = None,
    recording: str | None = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Do all that a session file says: calibrate, read 2D poses (or train and predict), identify, triangulate, refine,
    export, draw.

    Parameters
    ----------
    session
        a TOML file, or a folder with a pose3d.toml
    data
        folder that the file's patterns are relative to; only read from (default: the file's folder)
    output
        folder of the results (default: `results` beside the file)
    recording
        only this one
    """
    from pose3d.config import load_session
    from pose3d.console import progress_bars, show_reports
    from pose3d.pipeline import run_session

    told = load_session(session, data, output)
    with progress_bars(quiet=json) as progress:
        show_reports(run_session(told, recording, force=force, progress=progress), json=json)


@app.command
def labels(
    session: Path,
    *,
    data: Path | None = None,
    output: Path | None = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Look for labels that are wrong: left and right exchanged, keypoints far from where similar poses have them.

    Parameters
    ----------
    session
        a TOML file, or a folder with a pose3d.toml, with a table [labels]
    data
        folder that the file's patterns are relative to; only read from (default: the file's folder)
    output
        folder of the results, for labels.csv and labels.png (default: `results` beside the file)
    """
    from pose3d.config import load_session
    from pose3d.console import show_reports
    from pose3d.stages.labels import look_at_labels

    show_reports([look_at_labels(load_session(session, data, output), force=force)], json=json)


@app.command
def train(
    session: Path,
    *,
    data: Path | None = None,
    output: Path | None = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Train a network on the labelled frames of a session file: its tables [labels] and [train].

    Parameters
    ----------
    session
        a TOML file, or a folder with a pose3d.toml
    data
        folder that the file's patterns are relative to; only read from (default: the file's folder)
    output
        folder of the results; the networks go to its models/ (default: `results` beside the file)
    """
    from pose3d.config import load_session
    from pose3d.console import progress_bars, show_reports
    from pose3d.pipeline import train_session

    told = load_session(session, data, output)
    with progress_bars(quiet=json) as progress:
        show_reports(train_session(told, force=force, progress=progress), json=json)


@app.command
def predict(
    videos: list[Path],
    /,
    *,
    model: Path,
    output: Path,
    individuals: int | None = None,
    batch: int | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    engine: EngineName = "auto",
    force: Force = False,
    json: Json = False,
) -> None:
    """Find the keypoints of animals in videos with a trained network: 2D poses of each video.

    Parameters
    ----------
    videos
        video files, or folders of images
    model
        the network, .safetensors, or a folder with one for each video's name
    output
        folder for VIDEO.nc (2D poses) and candidates/VIDEO.nc (all that the network saw)
    individuals
        how many animals there are at most (default: as many as are seen)
    batch
        images at once (default: 1 on a CPU, 16 on a GPU)
    device
        auto takes a CUDA device where there is one
    engine
        who computes, on a CPU; auto takes the fastest installed one that finds the same keypoints as torch
    """
    from pose3d.console import progress_bars, show_reports
    from pose3d.nn.options import PredictOptions
    from pose3d.pipeline import predict_files

    options = PredictOptions(batch=batch, device=device, engine=engine)
    with progress_bars(quiet=json) as progress:
        reports = predict_files(
            videos, model, output, individuals=individuals, options=options, force=force, progress=progress
        )
        show_reports(reports, json=json)


@app.command
def reconstruct(
    poses2d: Path,
    *,
    calibration: Path,
    output: Path,
    unit: str | None = None,
    individuals: int | None = None,
    poses2d_format: Annotated[str | None, Parameter(name="--format")] = None,
    fps: float | None = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """2D poses of several cameras and their calibration in, named 3D poses out.

    Parameters
    ----------
    poses2d
        folder with a file or folder of 2D poses for each camera, by its name
    calibration
        calibration.toml, or another tool's calibration; the README lists them
    output
        .nc (everything), .csv (a plain table) or .trc
    unit
        of the calibration's lengths, where its file does not say
    individuals
        how many animals there are (default: as many as are seen)
    poses2d_format
        of the 2D poses, where the files do not tell
    fps
        frames/s, where the files do not say
    """
    from pose3d.console import progress_bars, show_reports
    from pose3d.pipeline import reconstruct_folder

    with progress_bars(quiet=json) as progress:
        reports = reconstruct_folder(
            poses2d,
            calibration,
            output,
            unit=unit,
            individuals=individuals,
            file_format=poses2d_format,
            fps=fps,
            force=force,
            progress=progress,
        )
        show_reports(reports, json=json)


@app.command
def render(
    poses3d: Path,
    *,
    calibration: Path,
    output: Path | None = None,
    frame: int | None = None,
    unit: str | None = None,
    videos: Path | None = None,
    poses2d: Path | None = None,
    json: Json = False,
) -> None:
    """Draw 3D poses: the scene, or with --poses2d all views of the footage with detections and reprojections.

    Parameters
    ----------
    poses3d
        the 3D poses
    calibration
        the rig that they were made with
    output
        .png of one moment or .mp4 of all (default: a window to look around in)
    frame
        which moment a picture shows (default: the one with most keypoints)
    unit
        of the lengths, where a file does not say
    videos
        folder with CAMERA.mp4 or CAMERA/ of images
    poses2d
        folder of 2D poses of the same frames, such as results/RECORDING/poses2d
    """
    from pose3d.console import progress_bars, say, tell_json
    from pose3d.stages.pictures import show_files

    with progress_bars(quiet=json) as progress:
        show_files(
            poses3d, calibration, output, frame=frame, unit=unit, videos=videos, poses2d=poses2d, progress=progress
        )
    if json:
        tell_json({"output": output})
    elif output is not None:
        say(f"{output} written")


@app.command
def convert(
    source: Path,
    output: Path,
    *,
    source_format: Annotated[str | None, Parameter(name="--from")] = None,
    output_format: Annotated[str | None, Parameter(name="--to")] = None,
    unit: str | None = None,
    fps: float | None = None,
    size: tuple[int, int] | None = None,
    json: Json = False,
) -> None:
    """Turn poses or a calibration of one format into another.

    Parameters
    ----------
    source
        poses or a calibration: a file or folder of another tool; the README lists them
    output
        what to write
    source_format
        where the content does not tell: sleap, deeplabcut, openpose, trc, csv, ...; aniposelib, dannce, opencv, ...
    output_format
        native, csv, trc or deeplabcut; calibration, aniposelib, pose2sim or opencv (default: by the ending)
    unit
        of 3D lengths, where the file does not say
    fps
        frames/s, where the file of poses does not say
    size
        width and height of the images, px, where the calibration does not say
    """
    from pose3d.console import say, tell_json
    from pose3d.stages.conversion import convert_file

    told = convert_file(source, output, source_format, output_format, unit=unit, fps=fps, size=size)
    if json:
        tell_json(told)
    else:
        files, in_unit = ", ".join(map(str, told.pop("output"))), told.pop("unit")
        say(f"{files} written: {', '.join(f'{count} {what}' for what, count in told.items())}, in {in_unit}")


@app.command
def demo(
    *,
    output: Path = Path("demo"),
    seed: int = 0,
    train: Annotated[bool, Parameter(negative="", help="make the network anew first: two hours, 4 GB")] = False,
    json: Json = False,
) -> None:
    """Film three walking animals, run everything on the videos, and compare each stage with the truth.

    Parameters
    ----------
    output
        folder to leave it all in
    seed
        of the animals' ways and looks
    """
    from pose3d.console import progress_bars, show_reports
    from pose3d.demo import run_demo

    with progress_bars(quiet=json) as progress:
        show_reports(run_demo(output, seed, train=train, progress=progress), json=json)


def main(tokens: list[str] | None = None) -> None:
    """Run a command. Exit code 0; 1 with one message for what the user can put right; 130 when interrupted."""
    try:
        app(tokens)
    except (Exception, KeyboardInterrupt) as error:
        from pose3d.console import EXIT_FAILED, EXIT_INTERRUPTED, complain, message_for

        message = message_for(error)
        if message is None:
            raise
        complain(message)
        sys.exit(EXIT_INTERRUPTED if isinstance(error, KeyboardInterrupt) else EXIT_FAILED)


if __name__ == "__main__":
    main()
