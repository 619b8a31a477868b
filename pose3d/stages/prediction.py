"""What does a network see in a recording's videos? candidates/<camera>.nc, and assembled/<camera>.nc of individuals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np

from calibration.errors import InputError
from calibration.footage import Footage, open_footage
from pose3d.assembly import AssemblyOptions, assemble
from pose3d.files import (
    count_candidates,
    join_candidates,
    join_poses,
    load_poses,
    read_candidates,
    read_windows,
    save_poses,
    write_candidates,
)  # fmt: skip
from pose3d.identity import IdentityOptions
from pose3d.nn.options import PredictOptions, TrainOptions
from pose3d.poses import Candidates, Poses
from pose3d.records import (
    Plan,
    Progress,
    StageReport,
    State,
    fingerprint_product,
    fingerprint_source,
    run_stage,
    run_windows,
)
from pose3d.session import Session
from pose3d.skeleton import Skeleton
from pose3d.stages.engine import settle_engine
from pose3d.stages.training import MODELS, NETWORK

__all__ = [
    "assemble_views",
    "assembly_options",
    "find_networks",
    "find_session_networks",
    "given_model",
    "predict_videos",
    "trained_skeleton",
]

PREDICT_VERSION, ASSEMBLE_VERSION = 5, 4


def find_networks(model: Path, cameras: Iterable[str]) -> dict[str, Path]:
    """{camera: network}: the file `model` for all, or of the folder `model` <camera>.safetensors or
    network.safetensors. Raises InputError where a camera has none.
    """
    networks = {}
    for camera in cameras:
        choice = [model / f"{camera}.safetensors", model / f"{NETWORK}.safetensors"] if model.is_dir() else [model]
        found = next((path for path in choice if path.is_file()), None)
        if found is None:
            places = " or ".join(map(str, choice))
            raise InputError(f"camera '{camera}': expected a network, {places}, found none; correct the path")
        description = found.with_suffix(".json")
        if not description.is_file():
            raise InputError(f"{description}: the network's description is missing; copy it beside the weights")
        networks[camera] = found
    return networks


def given_model(session: Session) -> Path | None:
    """The network, or folder of networks, that the session names."""
    options: PredictOptions | None = session.options.get("predict")
    return None if options is None else options.model


def find_session_networks(session: Session, cameras: Iterable[str]) -> dict[str, Path]:
    """{camera: network}: the session's given one or ones, else what its own training left. Raises InputError where a
    camera has none."""
    model, trained = given_model(session), session.output / MODELS
    if model is not None:
        return find_networks(model, cameras)
    if (session.options.get("train") or TrainOptions()).networks == "shared":
        return find_networks(trained / f"{NETWORK}.safetensors", cameras)
    return {c: find_networks(trained / f"{c}.safetensors", (c,))[c] for c in cameras}


def assembly_options(session: Session) -> AssemblyOptions:
    """How the session's candidates become individuals."""
    assembly: AssemblyOptions = session.options.get("assemble") or AssemblyOptions()
    identify: IdentityOptions = session.options.get("identify") or IdentityOptions()
    if assembly.individuals is None and identify.individuals == 1:  # of several, fragments are better left apart
        return replace(assembly, individuals=1)
    return assembly


def trained_skeleton(network: Path) -> Skeleton:
    """What a network finds, by the JSON beside it. Raises InputError where that does not say."""
    description = network.with_suffix(".json")
    try:
        return Skeleton(**json.loads(description.read_bytes())["network"]["skeleton"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{description}: does not describe a network; copy it again") from None


def predict_videos(
    folder: Path,
    videos: Mapping[str, Path],
    networks: Mapping[str, Path],
    options: PredictOptions | None = None,
    *,
    keypoints: tuple[str, ...] | None = None,
    window: int = 1000,
    force: bool = False,
    progress: Progress | None = None,
) -> StageReport:
    """Keypoint candidates in every camera's footage: candidates/<camera>.nc in the folder of the results.

    videos, networks: {camera: path}. keypoints: that the networks must have, None = any. window: frames that are saved
    at once. A video that breaks off gives what was read before, and a warning in the summary. Raises InputError.
    """
    reports = {}
    for camera, video in videos.items():
        job = _Camera(folder, camera, video, networks[camera], options or PredictOptions(), keypoints, window, progress)
        reports[camera] = job.predict(force)
    return _together("predict", reports)


def assemble_views(
    folder: Path,
    cameras: Iterable[str],
    options: AssemblyOptions | None = None,
    *,
    fps: Mapping[str, float | None] | None = None,
    keypoints: tuple[str, ...] | None = None,
    place: str = "assembled/{camera}.nc",
    window: int = 1000,
    force: bool = False,
    progress: Progress | None = None,
) -> StageReport:
    """Individuals of every camera's candidates, in 2D and without identity: assembled/<camera>.nc.

    fps: frames/s of each camera's footage, None = unknown. keypoints, window: see `predict_videos`. place: of the
    files. Raises InputError.
    """
    options = options or AssemblyOptions()
    reports = {}
    for camera in cameras:
        source = folder / f"candidates/{camera}.nc"
        skeleton = read_candidates(source, slice(0, 0)).skeleton
        _expect_keypoints(skeleton, keypoints, source)
        rate = (fps or {}).get(camera)
        inputs = {"candidates": fingerprint_product(source)}
        told = {"options": options, "fps": rate, "window": window}
        output = place.replace("{camera}", camera)
        plan = Plan(folder, f"assemble.{camera}", ASSEMBLE_VERSION, inputs, told, (output,))
        work = _assembling(plan, source, options, nan if rate is None else rate, window, progress)
        reports[camera] = run_stage(plan, work, force=force)
    return _together("assemble", reports)


@dataclass(frozen=True)
class _Camera:
    """One camera's prediction."""

    folder: Path
    camera: str
    video: Path
    network: Path
    options: PredictOptions
    keypoints: tuple[str, ...] | None
    window: int
    progress: Progress | None

    def predict(self, force: bool) -> StageReport:
        network = {"network": self.network, "description": self.network.with_suffix(".json")}
        inputs: dict[str, Any] = {"video": fingerprint_source(self.video)}
        inputs |= {name: fingerprint_product(path) for name, path in network.items()}
        told = {"options": replace(self.options, model=None), "window": self.window}
        output = f"candidates/{self.camera}.nc"
        plan = Plan(self.folder, f"predict.{self.camera}", PREDICT_VERSION, inputs, told, (output,))
        return run_stage(plan, lambda: self._work(plan, self.folder / output), force=force)

    def _work(self, plan: Plan, output: Path) -> dict[str, Any]:
        with open_footage(self.video) as footage, ExitStack() as stack:
            n = footage.n_frames
            spans = [(start, min(start + self.window, n)) for start in range(0, n, self.window)]
            step, engine = self._step(plan, footage, stack)
            parts, state = run_windows(plan, spans, step, write_candidates, suffix=".nc", progress=self.progress)
            join_candidates(parts, output)
            told = _summary(footage, output, int(state["batch"]), int(state["wanted"]))
            return told | ({"engine": engine} if engine else {})

    def _step(
        self, plan: Plan, footage: Footage, stack: ExitStack
    ) -> tuple[Callable[[int, int, State], tuple[Candidates, State]], str | None]:
        """The step of `run_windows`, and what is to be told of the engine; reading begins with the first window that is
        not there yet."""
        from pose3d.nn.network import load_network
        from pose3d.nn.predict import Predictor, predict_candidates

        network = load_network(self.network)
        _expect_keypoints(network.spec.skeleton, self.keypoints, self.network)
        engine = settle_engine(plan, network, self.options, footage, self.progress)
        predictor, stream = Predictor(network, replace(self.options, engine=engine.engine)), None
        wanted = predictor.batch

        def begun(first: int) -> Iterator[Candidates]:
            def told(done: int) -> None:
                if self.progress:
                    few = f", memory for {predictor.batch} images at once" if predictor.batch < wanted else ""
                    self.progress(plan.stage + few, first + done, footage.n_frames)

            return stack.enter_context(closing(predictor.windows(_readable(footage, first), self.window, told)))

        def step(start: int, stop: int, state: State) -> tuple[Candidates, State]:
            nonlocal stream
            if state and not state["whole"]:  # the video broke off in an earlier window
                return predict_candidates([], network), state
            if stream is None:
                predictor.batch = int(state["batch"]) if state else wanted
                stream = begun(start)
            found = next(stream, None) or predict_candidates([], network)
            whole = len(found.frame) == stop - start
            after = {"batch": predictor.batch, "wanted": wanted, "whole": whole}
            return found, {name: np.array(value) for name, value in after.items()}

        return step, engine.told


def _summary(footage: Footage, output: Path, batch: int, wanted: int) -> dict[str, Any]:
    frames, candidates = count_candidates(output)
    told: dict[str, Any] = {"frames": frames, "frames/s": footage.fps, "candidates a frame": candidates / frames}
    if batch < wanted:
        told["memory"] = f"did not suffice for {wanted} images at once; {batch} were taken"
    if frames < footage.n_frames:
        told["warning"] = (
            f"{footage.path} breaks off at frame {frames} of {footage.n_frames}: what was read before stays; "
            "copy or record it again"
        )
    elif not footage.complete:
        told["warning"] = f"{footage.path} should be longer, but ends with frame {frames - 1}; copy or record it again"
    return told


def _readable(footage: Footage, start: int) -> Iterator[tuple[int, Any]]:
    """The frames from a position on, as far as a video can be read; one of which nothing can be read is an error."""
    read = start
    try:
        for frame in footage.frames(start):
            yield frame
            read += 1
    except InputError:
        if footage.path.is_dir() or read == 0:
            raise


def _assembling(
    plan: Plan, source: Path, options: AssemblyOptions, fps: float, window: int, progress: Progress | None
) -> Callable[[], dict[str, Any]]:
    """The work of assembling one camera's candidates."""

    def step(start: int, stop: int, state: State) -> tuple[Poses, State]:
        poses = assemble(read_candidates(source, slice(start, stop)), None, options)
        time = poses.frame / fps if isfinite(fps) else poses.time
        return poses.replace(fps=fps, time=time), state

    def work() -> dict[str, Any]:
        n, _ = count_candidates(source)
        spans = [(start, min(start + window, n)) for start in range(0, n, window)]
        parts, _ = run_windows(plan, spans, step, save_poses, suffix=".nc", progress=progress)
        output = plan.folder / plan.outputs[0]
        join_poses(parts, output)
        individuals = keypoints = 0
        for poses in read_windows(output):
            individuals += int((~poses.missing.all(axis=2)).sum())
            keypoints += int((~poses.missing).sum())
        share = keypoints / max(individuals * len(load_poses(output, frames=slice(0, 0)).skeleton), 1)
        return {"individuals a frame": individuals / n, "share of their keypoints": share}

    return work


def _expect_keypoints(skeleton: Skeleton, wanted: tuple[str, ...] | None, path: Path) -> None:
    if wanted is not None and set(wanted) != set(skeleton.keypoints):
        raise InputError(
            f"{path}: expected a network for the keypoints of [skeleton] ({', '.join(wanted)}), got one for "
            f"{', '.join(skeleton.keypoints)}; name the network of this skeleton, or correct `skeleton.keypoints`"
        )


def _together(stage: str, reports: Mapping[str, StageReport]) -> StageReport:
    """One report of all cameras: {what: {camera: value}}."""
    summary: dict[str, dict[str, Any]] = {}
    for camera, report in reports.items():
        for what, value in report.summary.items():
            summary.setdefault(what, {})[camera] = value
    return StageReport(
        stage,
        all(report.skipped for report in reports.values()),
        sum(report.seconds for report in reports.values()),
        summary,
        tuple(path for report in reports.values() for path in report.outputs),
    )
