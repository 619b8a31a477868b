"""How good are poses against the truth: in a file, in a file for each camera, or those of a session's network?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calibration.errors import InputError
from calibration.files import load_rig
from calibration.files.atomic import write_bytes
from pose3d.assembly import assemble
from pose3d.covariance_scores import evaluate_covariance, evaluate_scores
from pose3d.detection_scores import evaluate_detections
from pose3d.evaluation import evaluate_pose, evaluate_tracks
from pose3d.files import load_poses
from pose3d.keypoint_scores import (
    KeypointErrors,
    beside_labels,
    evaluate_keypoints,
    evaluate_views,
    join_frames,
    join_views,
)
from pose3d.labels import Labels, Picture, join_labels, labels_of_poses
from pose3d.nn.options import PredictOptions
from pose3d.poses import Poses
from pose3d.records import Progress
from pose3d.session import Session, find_in
from pose3d.stages.prediction import assembly_options, find_session_networks, given_model
from pose3d.stages.recording import CALIBRATION, read_timeline
from pose3d.stages.training import gather_labels, held_out_of
from pose3d.timeline import SyncOptions
from pose3d.view_check import label_noise

__all__ = ["KEYPOINTS", "score_files", "score_folders", "score_session", "write_table"]

KEYPOINTS = "keypoints"
"""Where the table of all keypoints and cameras is, among the figures."""
Figures = dict[str, Any]


def score_files(truth: Path, estimate: Path, *, unit: str | None = None) -> Figures:
    """Figures by what they tell of: pose, tracks; in 2D detection; covariance and scores where the estimate has them;
    and KEYPOINTS, rows of a table.

    Raises InputError naming the file where nothing can be compared.
    """
    known, found = load_poses(truth, unit=unit), load_poses(estimate, unit=unit)
    pose = evaluate_pose(known, found).to_dict()
    if pose["n"] == 0:
        raise InputError(
            f"{estimate}: no keypoint is within an animal's size of {truth}; are both in the same world? A calibration "
            "has a world of its own: examples/04_evaluate_render.py shows how to bring poses into another"
        )
    told: Figures = {"pose": pose, "tracks": evaluate_tracks(known, found).to_dict()}
    if known.shape[-1] == 2:
        told["detection"] = evaluate_detections(known, found).to_dict()
    return told | _stated(known, found) | {KEYPOINTS: [row.to_dict() for row in evaluate_keypoints(known, found)]}


def score_folders(truth: Path, estimate: Path, *, calibration: Path | None = None) -> Figures:
    """Figures of 2D poses in folders with a file for each camera, over all cameras, and KEYPOINTS by camera.

    truth: labels or poses. estimate: such a folder too, or a recording's results. calibration: of the rig that shows
    how noisy the truth is. Raises InputError naming folder and camera where nothing can be compared.
    """
    known, found = find_in(truth, "poses2d"), _estimates(estimate, truth)
    cameras = [camera for camera in known if camera in found]
    if not cameras:
        raise InputError(
            f"{estimate}: expected files of the cameras of {truth} ({', '.join(known)}), got {', '.join(found)}; "
            "name both after the cameras"
        )
    views = {camera: (load_poses(known[camera]), load_poses(found[camera])) for camera in cameras}
    frames = {"frames": {camera: len(pair[0].frame) for camera, pair in views.items()}}
    left_out = sorted({*known, *found} - set(cameras))
    told: Figures = {"compared": frames | ({"left out, in one folder only": left_out} if left_out else {})}
    if calibration is None:
        return told | _told_of_views(views)
    parts = [
        labels_of_poses(poses, [Picture(known[camera])] * len(poses.frame), camera, "")
        for camera, (poses, _) in views.items()
    ]
    return told | _told_of_views(views, join_labels(parts), calibration)


def score_session(session: Session, *, calibration: Path | None = None, progress: Progress | None = None) -> Figures:
    """Figures of the session's network on the labelled frames that its training held out, over all cameras, and
    KEYPOINTS by camera. Of a network that the session names (`model` under [predict]), on all labelled frames.

    calibration: of the rig that shows how noisy the labels are; default that of the session's results, if it is there.
    Raises InputError where labels or network are missing, or none of the labels were held out.
    """
    labels = gather_labels(session)
    parts, which = _unseen(session, labels)
    networks = find_session_networks(session, dict.fromkeys(camera for part in parts for camera in part.camera))
    pieces: dict[str, list[tuple[Poses, Poses]]] = {camera: [] for camera in dict.fromkeys(labels.camera)}
    total, done = sum(map(len, parts)), 0
    for path in dict.fromkeys(networks.values()):
        for part in parts:
            own = part.take([networks[camera] == path for camera in part.camera])
            for camera, pair in _predicted(session, path, own):
                pieces[camera].append(pair)
                done += len(pair[0].frame)
                if progress:
                    progress("looking at labelled frames", done, total)
    views = {
        camera: (join_frames([pair[0] for pair in pairs]), join_frames([pair[1] for pair in pairs]))
        for camera, pairs in pieces.items()
        if pairs
    }
    told = {"compared": {"frames": total, "labelled frames": len(labels), "which": which}}
    found = session.output / CALIBRATION
    sync = session.options.get("sync") or SyncOptions()
    why = None
    if calibration is None and not found.is_file():
        why = f"not known: there is no {found} yet; name one by --calibration, or first: pose3d run {session.file}"
    elif sync != SyncOptions(trim=sync.trim):
        why = "not known: [sync] says that frames of one number are not of one moment"
    if why:
        return told | _told_of_views(views) | {"label noise": {"labels": why}}
    return told | _told_of_views(views, labels, calibration or found)


def write_table(path: Path, figures: Figures) -> None:
    """The KEYPOINTS of figures as CSV: one line for each keypoint and camera, "all" for all of them."""
    import pandas as pd

    table = pd.DataFrame(figures[KEYPOINTS]).to_csv(index=False, float_format="%.4g", lineterminator="\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, table.encode())


def _unseen(session: Session, labels: Labels) -> tuple[list[Labels], str]:
    """Labels that the networks have not learnt from, as far as that is known, and what is to be said of them."""
    model = given_model(session)
    if model is not None:
        some = labels.take(np.isfinite(labels.points[..., 0]).any(axis=(1, 2)))
        return [some], f"all; nothing tells here whether {model} has learnt from them"
    return held_out_of(session, labels), "held out of training"


def _predicted(session: Session, network: Path, labels: Labels) -> Iterator[tuple[str, tuple[Poses, Poses]]]:
    """(camera, (labels, what the network's individuals are in their pictures)), camera by camera."""
    from pose3d.nn.network import load_network
    from pose3d.nn.review import labelled_candidates

    if not len(labels):
        return
    options = session.options.get("predict") or PredictOptions()
    loaded = load_network(network)
    for rows, candidates in labelled_candidates(loaded, labels, options):
        found, seen = assemble(candidates, None, assembly_options(session)), labels.take(rows)
        for camera in dict.fromkeys(seen.camera):
            own = np.array([name == camera for name in seen.camera])
            extras = {name: values[own] for name, values in found.extras.items()}
            estimate = Poses(found.points[own], found.score[own], skeleton=found.skeleton, extras=extras)
            yield camera, (Poses(seen.points[own], skeleton=seen.skeleton), estimate)


def _told_of_views(
    views: Mapping[str, tuple[Poses, Poses]], labels: Labels | None = None, calibration: Path | None = None
) -> Figures:
    """Figures of {camera: (truth, estimate)}; where their rig's calibration is given, with the noise of the labels."""
    rows: Sequence[KeypointErrors] = evaluate_views(views)
    told: Figures = {}
    if labels is not None and calibration is not None:
        rig = load_rig(calibration)
        noise = label_noise(labels, rig)
        rows = beside_labels(rows, noise, rig.names)
        most = max((int(own.n.max()) for own in noise.values()), default=0)
        said = f"from up to {most} labels of a keypoint in a camera, and {calibration}"
        none = f"not known: {calibration} has no two cameras that show one animal, labelled in the same frame"
        told["label noise"] = {"labels": said if most else none}
    return _stated(*join_views(views)) | told | {KEYPOINTS: [row.to_dict() for row in rows]}


def _stated(known: Poses, found: Poses) -> Figures:
    """What the estimate's covariances and scores are worth."""
    told: Figures = {}
    if (stated := evaluate_covariance(known, found)) is not None:
        told["covariance"] = stated.to_dict()
    if bins := evaluate_scores(known, found):
        px = known.unit
        told["scores"] = {
            f"{part.low:.3g} to {part.high:.3g}": f"median {part.median:.3g} {px}, 95 % {part.p95:.3g} {px} ({part.n})"
            for part in bins
        }
    return told


def _estimates(folder: Path, truth: Path) -> dict[str, Path]:
    """{camera: 2D poses} of a folder, or of a recording's results, in each camera's own frames. Raises InputError where
    they are numbered by moments that are not."""
    found = next((inner for name in ("assembled", "poses2d") if (inner := folder / name).is_dir()), folder)
    timeline = found / "timeline.npz"
    if timeline.is_file() and not (truth / timeline.name).is_file():
        frame = read_timeline(timeline).frame
        if (frame != np.arange(len(frame))[:, None]).any():
            raise InputError(
                f"{found}: numbers the moments that cameras out of step share, not each camera's own frames as labels "
                "do; give 2D poses as they were before: those imported, or the results' folder `assembled`"
            )
    return find_in(found, "poses2d")
