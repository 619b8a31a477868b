"""Do cameras and squares come out where, and as large as, they can be?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.findings import Finding
from calibration.geometry import points_by_rig
from calibration.report import SquareReport
from calibration.rig import CameraRig
from calibration.scores import Placed

__all__ = ["check_collapsed", "check_repeatable", "check_squares"]

Array = NDArray[np.float64]

LEAST_BASELINE = 0.005
"""Of the distance to the boards: lenses are broader than that, so two cameras do not stand nearer to each other."""
MOST_SCALE_ERROR = 0.005
"""Relative error of the mean square above which a warning is due."""
MOST_HELD_OUT = 2.0
"""Error on held-out frames over that of the fit: 1.0 to 1.1 in ordinary footage."""
SAMPLE = 400
"""Points whose covariance stands for all."""


def check_collapsed(rig: CameraRig, middle: Array) -> tuple[Finding, ...]:
    """Cameras that came out in one place. middle: (3,) of the boards."""
    centers, findings = rig.centers, []
    distance = np.linalg.norm(centers - middle, axis=1)
    for v in range(len(rig)):
        for w in range(v + 1, len(rig)):
            apart = float(np.linalg.norm(centers[v] - centers[w]))
            least = LEAST_BASELINE * float(min(distance[v], distance[w]))
            if apart < least:
                findings.append(
                    Finding(
                        "collapsed", (rig.names[v], rig.names[w]),
                        f"they came out in one place ({apart:.3g} {rig.unit} apart), from which nothing tells depth",
                        "check that their footage is not of one camera, and film the board in between them",
                        apart, least, rig.unit,
                    )
                )  # fmt: skip
    return tuple(findings)


def check_repeatable(rms: float, held_out: float) -> tuple[Finding, ...]:
    """A rig that other frames contradict. rms, held_out: px, of all corners in the fit and on held-out frames."""
    if not held_out > MOST_HELD_OUT * rms:
        return ()
    return (
        Finding(
            "not_repeatable", (),
            f"on frames that took no part in the fit its corners are {held_out:.2f} px off, in the fit {rms:.2f} px: "
            "another half of the footage makes another rig",
            "film more boards, large in the images, tilted, each seen by several cameras at once", held_out,
            MOST_HELD_OUT * rms, "px",
        ),
    )  # fmt: skip


def check_squares(squares: Sequence[SquareReport], placed: Placed) -> tuple[Finding, ...]:
    """Boards that come out larger or smaller than they are said to be, by more than noise lengthens the distance of two
    points: by the trace of a point's covariance over the distance."""
    unit, findings = placed.rig.unit, []
    for b, s in enumerate(squares):
        seen = placed.seen[:, placed.board == b]
        both = np.argwhere(seen.sum(axis=0) >= 2)
        pose, corner = both[:: max(1, len(both) // SAMPLE)].T
        points = placed.world[placed.board == b][pose, corner]
        normal = [n for n in points_by_rig(points, seen[:, pose, corner], placed.rig)[1] if np.isfinite(n).all()]
        if not normal:
            continue
        spread = np.trace(np.linalg.pinv(normal, hermitian=True), axis1=1, axis2=2) * placed.noise.mean() ** 2
        lengthened = float(spread.mean()) / s.nominal**2
        if s.mean / s.nominal - 1 > MOST_SCALE_ERROR + lengthened or s.mean / s.nominal - 1 < -MOST_SCALE_ERROR:
            findings.append(
                Finding(
                    "wrong_scale", (), f"squares of {s.nominal:g} {unit} come out as {s.mean:.3f}",
                    "check that the board is flat and its size right", s.mean, s.nominal, unit,
                )
            )  # fmt: skip
    return tuple(findings)
