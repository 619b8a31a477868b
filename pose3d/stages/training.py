"""Which network do the session's labels give? Labelled frames in; models/network.safetensors, or one a camera, out."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.errors import InputError
from calibration.files.atomic import write_bytes
from pose3d.files import load_labels
from pose3d.labels import Labels, check_labels, join_labels
from pose3d.nn.options import TrainOptions
from pose3d.records import Plan, Progress, StageReport, fingerprint_source, run_stage
from pose3d.session import Session, drawn_skeleton, find_labels
from pose3d.skeleton import Skeleton

if TYPE_CHECKING:
    from pose3d.nn.network import Network

__all__ = ["MODELS", "NETWORK", "fingerprint_labels", "gather_labels", "train_networks"]

VERSION = 3
MODELS, NETWORK = "models", "network"
"""Folder of the networks in the results, and the name of the one that is for all cameras."""


def train_networks(session: Session, *, force: bool = False, progress: Progress | None = None) -> Iterator[StageReport]:
    """Train the session's network, or with `per_camera` one for each labelled camera, yielding a report after each.

    Skipped where labels, images and options are what they were. Raises InputError for labels that cannot be used.
    """
    options = session.options.get("train") or TrainOptions()
    labels = gather_labels(session)
    if not options.per_camera:
        yield _train(session, labels, NETWORK, options, force, progress)
        return
    if "" in labels.camera:
        raise InputError(
            f"{session.file}: one network a camera ([train] per_camera) needs to know whose labels are whose; name it "
            "by {camera} in `labels.files`, or by `labels.camera`"
        )
    for camera in dict.fromkeys(labels.camera):
        own = labels.take(np.array([name == camera for name in labels.camera]))
        yield _train(session, own, camera, options, force, progress)


def gather_labels(session: Session) -> Labels:
    """All labelled frames of a session on its skeleton. Raises InputError where there are none, files are missing,
    keypoints differ, or a label lies outside its image."""
    if not session.labels:
        raise InputError(
            f"{session.file}: expected [labels] to train on, found none; add the table, with files = "
            '"labels/{camera}.slp" or wherever they are'
        )
    table = session.skeleton
    wanted = None if table.keypoints is None else Skeleton(table.keypoints)
    parts = [
        load_labels(path, camera=camera, skeleton=wanted, frames=told.frames, video=video, missing=told.missing)
        for told in session.labels
        for camera, path, video in find_labels(session, told)
    ]
    labels = join_labels(parts)
    labels = labels.onto(drawn_skeleton(labels.skeleton, table))
    check_labels(labels)
    return labels


def _show(path: Path, network: Network, labels: Labels, options: TrainOptions) -> None:
    """How the training went, step by step, and a sheet of the held-out animals that are found worst."""
    import pandas as pd

    from pose3d.nn.review import held_out_labels, nearest_candidates, worst_keypoints
    from pose3d.nn.train import HISTORY
    from pose3d.render.curve import training_curve
    from pose3d.render.label_sheet import label_sheet
    from pose3d.video import save_picture

    history = network.metrics[HISTORY]
    table = pd.DataFrame(history, columns=["step", "loss", "held_out_px"])
    write_bytes(path.with_suffix(".training.csv"), table.to_csv(index=False, lineterminator="\n").encode())
    write_bytes(path.with_suffix(".training.svg"), training_curve(history).encode())
    if options.held_out:
        held = held_out_labels(labels, options)
        estimates = nearest_candidates(network, held)
        sheet = label_sheet(held, worst_keypoints(held, estimates), estimates=estimates)
        save_picture(path.with_suffix(".worst.png"), sheet)


def fingerprint_labels(labels: Labels) -> dict[str, Any]:
    """What tells whether labels or their pictures have changed, wherever and in which file they lie."""
    digest = hashlib.sha256(labels.points.tobytes())
    pictures = [(picture.path.name, picture.position, picture.dataset) for picture in labels.pictures]
    for part in (labels.points.shape, labels.frame.tolist(), labels.camera, labels.video, pictures, labels.skeleton):
        digest.update(repr(part).encode())
    sources = dict.fromkeys(picture.path for picture in labels.pictures)
    told = {"frames": len(labels), "sha256": digest.hexdigest()}
    return {"labels": told, "images": [fingerprint_source(source) for source in sources]}


def _train(
    session: Session, labels: Labels, name: str, options: TrainOptions, force: bool, progress: Progress | None
) -> StageReport:
    path = session.output / MODELS / f"{name}.safetensors"
    beside = (".json", ".training.csv", ".training.svg") + ((".worst.png",) if options.held_out else ())
    outputs = (f"{MODELS}/{path.name}", *(f"{MODELS}/{path.stem}{ending}" for ending in beside))
    stage = "train" if name == NETWORK else f"train.{name}"
    plan = Plan(session.output, stage, VERSION, fingerprint_labels(labels), {"train": options}, outputs)

    def work() -> dict[str, Any]:
        from pose3d.nn.network import save_network
        from pose3d.nn.train import train_network

        try:
            network = train_network(labels, plan.unfinished, options, progress=progress)
        except InputError as error:
            raise InputError(f"{session.file}: {error}") from None
        save_network(path, network)
        _show(path, network, labels, options)
        cameras = Counter(camera or "unknown" for camera in labels.camera)
        numbers = {key: value for key, value in network.metrics.items() if not isinstance(value, list)}
        counted = dict(cameras) if any(labels.camera) else len(labels)
        return {"keypoints": len(labels.skeleton), "labelled frames": counted} | numbers

    return run_stage(plan, work, force=force)
