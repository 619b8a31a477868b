"""Splits of real labels, and how what was found in them is judged; for networks.py and network_peers.py."""

from dataclasses import replace

import numpy as np

from pose3d import Poses
from pose3d.detection_scores import DetectionOptions, evaluate_detections
from pose3d.files import load_labels
from pose3d.label_check import suspect_labels

NEAR_PX = 10.0
TESTED = 12


def flies_split(data, split):
    """Labels to train on, and for the test, of two flies; the splits are told in networks.py."""
    labels = load_labels(data / "sleap_tracks/tracks/clip.slp")
    frame, block = labels.frame, (labels.frame - 1000) % 100
    chosen = {
        "blocks": ((frame >= 1000) & (block < 40) & (frame % 2 == 0),
                   (frame >= 1000) & (block >= 50) & (block < 90) & (frame % 2 == 0)),
        "hard": ((frame < 1000) & (frame % 10 == 0), (frame >= 1100) & (frame < 1500) & (frame % 4 == 0)),
    }  # fmt: skip
    training, testing = chosen[split]
    return labels.take(training), labels.take(testing)


def openfield_split(data, seed):
    """Labels to train on, and for the test, of a mouse from above; ears that look exchanged are exchanged back."""
    labels = load_labels(data / "dlc_openfield/openfield-Pranav-2018-10-30", missing="skip")
    points = labels.points.copy()
    for suspect in suspect_labels(labels):
        print("  " + str(suspect))
        if suspect.kind == "exchanged":
            a, b = map(labels.skeleton.index, suspect.keypoints)
            points[suspect.row, suspect.slot, [a, b]] = points[suspect.row, suspect.slot, [b, a]]
    labels = replace(labels, points=points)
    order = np.random.default_rng(seed).permutation(len(labels))
    return labels.take(np.sort(order[TESTED:])), labels.take(np.sort(order[:TESTED]))


def distances(truth, poses):
    """(frames, keypoints) px of the only individual; infinite where missed, NaN where nothing is labelled."""
    apart = np.linalg.norm(poses.points[:, 0] - truth, axis=-1)
    return np.where(np.isnan(truth[..., 0]), np.nan, np.where(np.isnan(apart), np.inf, apart))


def told(what, errors):
    """Print and return the share within 10 px and the median of all errors that are not NaN."""
    known = np.sort(errors[~np.isnan(errors)])
    figures = {"n": len(known), "within 10 px, %": 100 * float((known <= NEAR_PX).mean()) if len(known) else None}
    figures["median, px"] = float(known[(len(known) - 1) // 2]) if len(known) else None
    print(f"  {what:48} " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items() if value is not None))
    return figures


def openfield_figures(test, poses):
    """Distances of all keypoints of one mouse."""
    errors = distances(test.points[:, 0], poses)
    known = errors[~np.isnan(errors)]
    figures = told("all", errors) | {"mean, px": known.mean(), "RMSE, px": np.sqrt((known**2).mean())}
    print(f"  mean {known.mean():.3g} px, RMSE {figures['RMSE, px']:.3g} px, worst {known.max():.3g} px")
    return figures | {"errors, px": errors.ravel().tolist()}


def flies_figures(test, poses):
    """How many of both flies are found, and how well."""
    options = DetectionOptions()
    truth = Poses(test.points, frame=test.frame, skeleton=test.skeleton)
    errors = evaluate_detections(truth, poses, options)
    figures = {
        "n": errors.n, "median, px": errors.median, f"within {options.within:g} px, %": 100 * errors.within,
        "both found, %": 100 * errors.all_found, "both alike, %": 100 * errors.all_alike, "OKS-mAP": errors.oks_map,
    }  # fmt: skip
    print("  " + ", ".join(f"{name} {value}" for name, value in figures.items()))
    return figures
