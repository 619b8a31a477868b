"""Which labels do the other cameras contradict, and how noisy are labels, as several cameras show it?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import TriangulationOptions, estimate_noise, reprojection_errors, triangulate_points
from calibration.rig import CameraRig
from calibration.view_noise import ViewNoise, view_noise
from pose3d.label_check import Suspect, place_of
from pose3d.labels import Labels

__all__ = ["contradicted_labels", "label_noise"]

LEAST_AGREEING = 3
"""Views that must agree on a point before one more is said to be wrong: two nearly always agree on something."""
FAR = 4.0
"""Standard deviations of the labels, as the views show them, beyond which one is wrong."""
OFTEN = 0.2
"""Share of a keypoint's labels in a camera that are wrong, beyond which they are told of together."""


def contradicted_labels(labels: Labels, rig: CameraRig) -> tuple[Suspect, ...]:
    """Labels that stand elsewhere than where LEAST_AGREEING or more other cameras see the keypoint, the worst first.

    Rows of different cameras with the same frame number, of one recording, are taken for one moment; those with more
    than one labelled animal are left out, as nothing tells who is who, and so are cameras that the rig does not have.
    Suspects' kind is "contradicted", their score the distance over the labels' standard deviation.
    """
    rows = _moments(labels, rig, LEAST_AGREEING + 1)
    if not len(rows):
        return ()
    seen, first = _seen(labels, rows)
    flat = seen.reshape(len(rig), -1, 2)
    noise = estimate_noise(flat, rig)
    found = triangulate_points(flat, rig, options=TriangulationOptions(noise_px=noise, max_error_px=np.inf))
    away = reprojection_errors(found.points, flat, rig)
    wrong = ~found.seen & (away > FAR * noise) & (found.seen.sum(axis=0) >= LEAST_AGREEING)
    told = list(_suspects(labels, rows, first, wrong, away, noise))
    return tuple(sorted(told, key=lambda one: -one.score))


def label_noise(labels: Labels, rig: CameraRig) -> dict[str, ViewNoise]:
    """{keypoint: how far labels scatter in each camera of the rig}, mistakes left out; see `view_noise` for what counts
    as noise. Moments are those of `contradicted_labels`, but two cameras suffice. Empty where there is no such moment.
    """
    rows = _moments(labels, rig, 2)
    if not len(rows):
        return {}
    seen, _ = _seen(labels, rows)
    return {name: view_noise(seen[:, :, k], rig) for k, name in enumerate(labels.skeleton.keypoints)}


def _seen(labels: Labels, rows: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """(views, moments, keypoints, 2) px of the only labelled animal, NaN where there are none or several, and the slot
    (n) of each row's first one."""
    points = np.concatenate((labels.points, np.full((1, *labels.points.shape[1:]), np.nan)))
    single = np.isfinite(points[..., 0]).any(axis=2)
    first = single.argmax(axis=1)
    xy = np.where((single.sum(axis=1) == 1)[:, None, None], points[np.arange(len(points)), first], np.nan)
    return np.ascontiguousarray(xy[rows].swapaxes(0, 1)), first


def _suspects(
    labels: Labels,
    rows: NDArray[np.intp],
    slots: NDArray[np.intp],
    wrong: NDArray[np.bool_],
    away: NDArray[np.float64],
    noise: float,
) -> Iterator[Suspect]:
    """One for each wrong label; one for all of a camera's labels of a keypoint where many of them are wrong."""
    shape = (len(away), len(rows), len(labels.skeleton))
    wrong, away = wrong.reshape(shape), away.reshape(shape)
    known = np.isfinite(away)
    for view, k in np.argwhere(wrong.any(axis=1)):
        moments = np.flatnonzero(wrong[view, :, k])
        count, whole = len(moments), int(known[view, :, k].sum())
        often = count > OFTEN * whole
        if often:
            moments = moments[[away[view, moments, k].argmax()]]
        for moment in moments:
            row, px = int(rows[moment, view]), float(away[view, moment, k])
            elsewhere = f"{px:.0f} px from where the other cameras see it (labels agree within {noise:.1f} px)"
            many = f"; {count} of its {whole} labels in this camera are wrong: does it mark the same spot in all?"
            yield Suspect(
                "contradicted", (labels.skeleton.keypoints[k],), f"is {elsewhere}{many if often else ''}",
                place_of(labels, row), row, int(slots[row]), px / noise,
            )  # fmt: skip


def _moments(labels: Labels, rig: CameraRig, least: int) -> NDArray[np.intp]:
    """(moments, views) the row of each camera's labels, -1 where it has none, or two for one moment; of moments that
    `least` cameras or more have."""
    views = {name: v for v, name in enumerate(rig.names)}
    moments: dict[tuple[str, int], NDArray[np.intp]] = {}
    twice: list[tuple[tuple[str, int], int]] = []
    for row, (camera, recording) in enumerate(zip(labels.camera, _recordings(labels), strict=True)):
        if camera in views:
            moment, view = (recording, int(labels.frame[row])), views[camera]
            rows = moments.setdefault(moment, np.full(len(views), -1, dtype=np.intp))
            if rows[view] >= 0:
                twice.append((moment, view))
            rows[view] = row
    for moment, view in twice:
        moments[moment][view] = -1
    enough = [rows for rows in moments.values() if (rows >= 0).sum() >= least]
    return np.array(enough, dtype=np.intp).reshape(-1, len(views))


def _recordings(labels: Labels) -> list[str]:
    """The recording of each row: its video's name without the camera's; one for all where no camera has two videos."""
    if len(set(zip(labels.camera, labels.video, strict=True))) == len(set(labels.camera)):
        return [""] * len(labels)
    return [video.replace(camera, "") for camera, video in zip(labels.camera, labels.video, strict=True)]
