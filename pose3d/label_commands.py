"""What can be typed about labels yet to be made? Which frames to label next; imports are inside, as in `cli`."""

from __future__ import annotations

from pathlib import Path

from pose3d.flags import Force, Json

__all__ = ["suggest"]


def suggest(
    session: Path,
    videos: list[Path] | None = None,
    /,
    *,
    data: Path | None = None,
    output: Path | None = None,
    recording: str | None = None,
    count: int = 20,
    apart: int = 10,
    into: Path | None = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Which frames to label next: where the network is unsure and views disagree, unlike each other and what is known.

    Writes a ranked table, a sheet of pictures, and projects that SLEAP and DeepLabCut's napari plugin open.

    Parameters
    ----------
    session
        a TOML file, or a folder with a pose3d.toml, after `pose3d run`; or what `pose3d predict` left of the videos
    videos
        video files, or folders of images, that were predicted, where there is no session
    data
        folder that the file's patterns are relative to; only read from (default: the file's folder)
    output
        folder of the results (default: `results` beside the file)
    recording
        only this one
    count
        how many frames
    apart
        frames that suggestions keep from each other and from labelled ones
    into
        folder to write to (default: `suggestions` in the results, in those of the recording, or of the predictions)
    """
    from pose3d.config import load_session
    from pose3d.console import progress_bars, show_reports
    from pose3d.stages.suggestion import SuggestOptions, suggest_frames, takes_of_predictions, takes_of_session

    options = SuggestOptions(count=count, apart=apart)
    with progress_bars(quiet=json) as progress:
        if videos:
            takes, told, results = takes_of_predictions(session, videos), None, session
        else:
            told = load_session(session, data, output)
            takes = takes_of_session(told, recording)
            results = told.output if recording is None else told.results(recording)
        folder = into or results / "suggestions"
        report = suggest_frames(folder, takes, told, options, force=force, progress=progress)
        show_reports([report], json=json)
