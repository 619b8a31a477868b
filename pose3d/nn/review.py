"""What does a network find in labelled frames that it has not learnt from, and where is it most wrong?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from pose3d.label_check import Suspect, place_of
from pose3d.labels import Labels, hold_out
from pose3d.nn.network import Network
from pose3d.nn.options import PredictOptions, TrainOptions
from pose3d.nn.predict import predict_candidates
from pose3d.poses import Candidates

__all__ = ["held_out_labels", "labelled_candidates", "nearest_candidates", "worst_keypoints"]

MOST = 12
"""Animals that are shown, the worst first."""
APART = 2.0
"""Keypoints this many times as far off as the median are shown with their names; the worst always."""


def held_out_labels(labels: Labels, options: TrainOptions) -> Labels:
    """The frames that a training with these options holds out."""
    labels = labels.take(np.isfinite(labels.points[..., 0]).any(axis=(1, 2)))
    return labels.take(hold_out(labels, options.held_out)[1] if options.held_out else [])


def labelled_candidates(
    network: Network, labels: Labels, options: PredictOptions | None = None
) -> Iterator[tuple[list[int], Candidates]]:
    """(rows of the labels, what the network finds in their pictures, in this order), pictures of one size together.
    Reads the pictures, source after source; they are no video, so each is looked at whole."""
    options = replace(options or PredictOptions(), region=False)
    for _, run in groupby(labels.images(), key=lambda item: item[1].shape):
        rows: list[int] = []
        yield rows, predict_candidates(_numbered(run, rows), network, options)


def _numbered(
    images: Iterable[tuple[int, NDArray[np.uint8]]], rows: list[int]
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The images with rising numbers; their rows are written down."""
    for number, (row, image) in enumerate(images):
        rows.append(row)
        yield number, image


def nearest_candidates(network: Network, labels: Labels) -> NDArray[np.float64]:
    """(n, individuals, keypoints, 2) px: for each label the nearest of the strongest candidates of its kind, as many as
    there are animals; NaN where nothing is labelled, or nothing found. Reads the pictures."""
    estimates = np.full(labels.points.shape, np.nan)
    for order, found in labelled_candidates(network, labels):
        for place, row in enumerate(order):
            rows = slice(int(found.frame_start[place]), int(found.frame_start[place + 1]))
            truth = labels.points[row]
            animals = int(np.isfinite(truth[..., 0]).any(axis=1).sum())
            for k in range(truth.shape[1]):
                own = np.flatnonzero(found.keypoint[rows] == k)
                strongest = own[np.argsort(-found.score[rows][own], kind="stable")][:animals]
                for slot in np.flatnonzero(np.isfinite(truth[:, k, 0])) if len(strongest) else ():
                    xy = found.xy[rows][strongest]
                    estimates[row, slot, k] = xy[np.linalg.norm(xy - truth[slot, k], axis=1).argmin()]
    return estimates


def worst_keypoints(labels: Labels, estimates: NDArray[np.float64]) -> tuple[Suspect, ...]:
    """One of each of the animals that are estimated worst, those first of which keypoints are not found at all."""
    errors = np.linalg.norm(estimates - labels.points, axis=-1)
    errors[np.isfinite(labels.points[..., 0]) & np.isnan(errors)] = np.inf
    known = errors[np.isfinite(errors)]
    usual = float(np.median(known)) if known.size else math.inf
    worst = np.where(np.isnan(errors).all(axis=-1), -1.0, np.nanmax(np.nan_to_num(errors, nan=-1.0), axis=-1))
    told = []
    for place in np.argsort(-worst, axis=None, kind="stable")[:MOST]:
        row, slot = (int(i) for i in np.unravel_index(place, worst.shape))
        if worst[row, slot] < 0:
            break
        far = errors[row, slot]
        which = np.flatnonzero((far > APART * usual) | (far == worst[row, slot]))
        names = tuple(labels.skeleton.keypoints[k] for k in which)
        lost = [labels.skeleton.keypoints[k] for k in np.flatnonzero(np.isinf(far))]
        most = np.max(far[np.isfinite(far)], initial=0.0)
        message = f"off by up to {most:.1f} px" + (f"; {', '.join(lost)} not found" if lost else "")
        told.append(Suspect("worst", names, message, place_of(labels, row), row, slot, float(worst[row, slot])))
    return tuple(told)
