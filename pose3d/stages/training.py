"""Which network do the session's labels give? Labelled frames in; models/network.safetensors, or one a camera, out."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.errors import InputError
from calibration.files.atomic import write_bytes
from pose3d.files import load_labels
from pose3d.labels import Labels, check_labels, join_labels
from pose3d.nn.options import TrainOptions
from pose3d.records import (
    Plan,
    Progress,
    StageReport,
    fingerprint_product,
    fingerprint_source,
    read_record,
    run_stage,
)
from pose3d.session import Session, drawn_skeleton, find_labels
from pose3d.skeleton import Skeleton

if TYPE_CHECKING:
    from pose3d.nn.network import Network

__all__ = ["MODELS", "NETWORK", "fingerprint_labels", "gather_labels", "held_out_of", "train_networks"]

VERSION = 5
MODELS, NETWORK = "models", "network"
"""Folder of the networks in the results, and the name of the one that is for all cameras."""


def train_networks(session: Session, *, force: bool = False, progress: Progress | None = None) -> Iterator[StageReport]:
    """Train the session's network, or as `networks` says one for each labelled camera, yielding a report after each
    training: those on a shared backbone have one for all.

    Skipped where labels, images, options and the network to go on from are what they were. Raises InputError for
    labels that cannot be used.
    """
    options = session.options.get("train") or TrainOptions()
    for stage, parts in _trainings(session, gather_labels(session)):
        yield _train(session, stage, parts, options, force, progress)


def _trainings(session: Session, labels: Labels) -> list[tuple[str, dict[str, Labels]]]:
    """(its stage, {name of a network: the labels that it shall know}) of each training: several may learn together."""
    networks = (session.options.get("train") or TrainOptions()).networks
    if networks == "shared":
        return [("train", {NETWORK: labels})]
    if "" in labels.camera:
        raise InputError(
            f'{session.file}: one network a camera ([train] networks = "{networks}") needs to know whose labels are '
            "whose; name it by {camera} in `labels.files`, or by `labels.camera`"
        )
    parts = {name: labels.take(np.array(labels.camera) == name) for name in dict.fromkeys(labels.camera)}
    if networks == "shared_backbone":
        return [("train", parts)]
    return [(f"train.{camera}", {camera: own}) for camera, own in parts.items()]


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


def held_out_of(session: Session, labels: Labels) -> list[Labels]:
    """Those of the labels that each network of the session's training has not learnt from, as its record tells. labels:
    of all cameras.

    Raises InputError where there is no such network, where labels have changed since, and where none were held out.
    """
    from pose3d.nn.review import held_out_labels

    found = []
    for stage, parts in _trainings(session, labels):
        record, told = read_record(session.output, stage), fingerprint_labels(join_labels(list(parts.values())))
        for name, own in parts.items():
            file = f"{MODELS}/{name}.safetensors"
            path = session.output / file
            if record is None or not path.is_file():
                raise InputError(
                    f"{path}: expected the network of these labels, found none; first: pose3d train {session.file}"
                )
            if (
                record["version"] != VERSION
                or record["products"].get(file) != fingerprint_product(path)
                or record["inputs"]["labels"] != told["labels"]
            ):
                raise InputError(
                    f"{path}: was not trained on these labels as they are now, so nothing tells which of them it has "
                    f"learnt from; train it anew: pose3d train {session.file}"
                )
            held = held_out_labels(own, TrainOptions(held_out=record["options"]["train"]["held_out"]))
            if not len(held):
                raise InputError(
                    f"{path}: has learnt from all labelled frames, none was held out, so labels tell nothing of its "
                    f"error; train it anew without `held_out = 0` under [train] in {session.file}"
                )
            found.append(held)
    return found


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
    session: Session,
    stage: str,
    parts: Mapping[str, Labels],
    options: TrainOptions,
    force: bool,
    progress: Progress | None,
) -> StageReport:
    """One training. parts: {name of a network: the labels that it shall know}; several learn together."""
    endings = (".safetensors", ".json", ".training.csv", ".training.svg", *([".worst.png"] if options.held_out else []))
    outputs = tuple(f"{MODELS}/{name}{ending}" for name in parts for ending in endings)
    labels = join_labels(list(parts.values()))
    inputs = fingerprint_labels(labels)
    if options.start is not None:
        inputs |= {"start": _fingerprint_start(session, options.start, outputs)}
    plan = Plan(session.output, stage, VERSION, inputs, {"train": replace(options, start=None)}, outputs)

    def work() -> dict[str, Any]:
        from pose3d.nn.network import save_network

        try:
            networks = _learnt(parts, labels, plan.unfinished, options, progress)
        except InputError as error:
            raise InputError(f"{session.file}: {error}") from None
        for name, network in networks.items():
            path = session.output / MODELS / f"{name}.safetensors"
            save_network(path, network)
            _show(path, network, parts[name], options)
        cameras = Counter(camera or "unknown" for camera in labels.camera)
        counted = dict(cameras) if any(labels.camera) else len(labels)
        return {"keypoints": len(labels.skeleton), "labelled frames": counted} | _numbers(networks)

    return run_stage(plan, work, force=force)


def _fingerprint_start(session: Session, start: Path, outputs: tuple[str, ...]) -> dict[str, str]:
    """Of the network to go on from and its description. Raises InputError where it is missing, or written over."""
    if start.resolve() in [(session.output / name).resolve() for name in outputs]:
        raise InputError(
            f"{start}: expected another network than the one that is written; copy it and its .json elsewhere, and "
            f"name the copy as `start` under [train] in {session.file}"
        )
    for path in (start, start.with_suffix(".json")):
        if not path.is_file():
            raise InputError(
                f"{path}: expected the network to go on from, .safetensors and .json, found none; correct `start` "
                f"under [train] in {session.file}"
            )
    return {"network": fingerprint_product(start), "description": fingerprint_product(start.with_suffix(".json"))}


def _learnt(
    parts: Mapping[str, Labels], labels: Labels, folder: Path, options: TrainOptions, progress: Progress | None
) -> Mapping[str, Network]:
    if options.networks == "shared_backbone":
        from pose3d.nn.heads import train_cameras

        return train_cameras(labels, folder, options, progress=progress)
    from pose3d.nn.train import train_network

    return {name: train_network(labels, folder, options, progress=progress) for name in parts}


def _numbers(networks: Mapping[str, Network]) -> dict[str, Any]:
    """What their trainings measured, {what: {name: number}} where networks differ."""
    told: dict[str, dict[str, Any]] = {}
    for name, network in networks.items():
        for what, value in network.metrics.items():
            if not isinstance(value, list):
                told.setdefault(what, {})[name] = value
    same = {what: len(values) == len(networks) and len(set(values.values())) == 1 for what, values in told.items()}
    return {what: next(iter(values.values())) if same[what] else values for what, values in told.items()}
