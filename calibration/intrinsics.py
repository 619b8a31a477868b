"""What are one camera's intrinsics, judged by its own images of boards alone?

A maximum a posteriori estimate: weak priors (a square-pixelled lens of ordinary width, its axis near the image's
middle, small distortion) give way wherever the images say more, and stand where they say nothing. Errors within one
image are related, so the images' weight is reduced until the formal covariance agrees with the scatter over blocks of
frames.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calibration.bundle import BundleOptions, BundleResult, adjust_boards
from calibration.camera import INTRINSIC_PARAMETERS, Camera, Intrinsics, pixels_from_camera
from calibration.determination import corner_noise, intrinsic_spread
from calibration.errors import InputError, nearest_name
from calibration.planar import board_views
from calibration.rig import CameraRig
from calibration.solver import SolverOptions
from calibration.transforms import apply

if TYPE_CHECKING:
    from calibration.board import BoardDetections

__all__ = ["IntrinsicsEstimate", "IntrinsicsOptions", "estimate_intrinsics", "prior_intrinsics"]

Array = NDArray[np.float64]

FREE = np.array([name in ("fx", "fy", "cx", "cy", "d1", "d2", "d3", "d4", "d5") for name in INTRINSIC_PARAMETERS])
"""What is sought of a pinhole camera: fx fy cx cy k1 k2 p1 p2 k3."""
ORDINARY_FOCAL, FOCAL_SIGMA = 0.9, 0.45
"""Prior of the focal length, in units of the image's longer side."""
LONG_SIGMA = 0.5
"""At least this share of the focal length first found is the sigma of its prior: there is no longest lens."""
CENTRE_SIGMA = 0.02
"""Prior of the principal point about the image's middle, in units of the image's longer side."""
DISTORTION_SIGMA = (0.3, 0.3, 0.003, 0.003, 0.3)
"""Prior of k1 k2 p1 p2 k3 about 0."""
LOSS, LOSS_SCALE = "huber", 3.0
MOST_INFLATION = 10.0
SOLVER = SolverOptions(cost_tolerance=1e-6, initial_damping=1e-6)


@dataclass(frozen=True)
class IntrinsicsOptions:
    """max_frames: boards used, chosen to differ in place, distance and tilt. min_corners: a board with fewer is not
    used."""

    max_frames: int = 30
    min_corners: int = 8


@dataclass(frozen=True, eq=False)
class IntrinsicsEstimate:
    """intrinsics: the most probable ones. sigma (12,): their standard deviations over INTRINSIC_PARAMETERS, errors
    within images included, 0 where not sought. noise: px, scatter of one coordinate of the corners. n_boards: boards
    used."""

    intrinsics: Intrinsics
    sigma: Array
    noise: float
    n_boards: int

    @property
    def focal(self) -> float:
        """px, the mean of fx and fy."""
        return float(self.intrinsics.parameters[:2].mean())

    @property
    def focal_sigma(self) -> float:
        """px."""
        return float(self.sigma[:2].mean())


def estimate_intrinsics(
    detections: BoardDetections, view: str, options: IntrinsicsOptions | None = None
) -> IntrinsicsEstimate:
    """The pinhole intrinsics of the camera `view` from its own images of boards, which may be footage of this camera
    alone.

    Raises InputError when the view is not in the detections, or sees no board with enough corners.
    """
    options = options or IntrinsicsOptions()
    alone, size = _one_camera(detections, view)
    prior = prior_intrinsics(size)
    alone = _diverse(alone, view, prior[0], options)
    fitted, _ = _fit(alone, prior[0], prior, 1.0, 1.0)
    prior = prior_intrinsics(size, fitted.rig.cameras[0].intrinsics.parameters[:2].mean())
    noise = float(np.sqrt(fitted.variance))
    fitted, bundle = _fit(alone, fitted.rig.cameras[0].intrinsics, prior, noise, 1.0)
    spread = intrinsic_spread(fitted, _weighted(alone, noise), bundle)
    ratio = spread.jackknife[0, FREE] / spread.formal[0, FREE]
    inflation = float(np.clip(np.median(ratio), 1.0, MOST_INFLATION))
    best, _ = _fit(alone, fitted.rig.cameras[0].intrinsics, prior, noise, inflation)
    assert best.rig.covariance is not None
    sigma = np.sqrt(np.diagonal(best.rig.covariance)[6:] / best.variance)
    noise = corner_noise(best.residuals, int(FREE.sum()) + 6 * int(np.isfinite(best.board_t[..., 0]).sum()))
    return IntrinsicsEstimate(best.rig.cameras[0].intrinsics, sigma, noise, len(alone.frame))


def prior_intrinsics(size: tuple[int, int], focal_found: float = 0.0) -> tuple[Intrinsics, Array]:
    """What a camera of this image size (width, height) is before anything was seen, and the sigma (12,) of that; inf =
    not sought. focal_found: px, a first estimate, which widens the prior of a long lens."""
    longer, (width, height) = max(size), size
    focal = ORDINARY_FOCAL * longer
    K = np.array([[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]])
    sigma = np.full(len(INTRINSIC_PARAMETERS), np.inf)
    sigma[:2] = max(FOCAL_SIGMA * longer, LONG_SIGMA * focal_found)
    sigma[2:9] = CENTRE_SIGMA * longer, CENTRE_SIGMA * longer, *DISTORTION_SIGMA
    return Intrinsics(size, K, np.zeros(5)), sigma


def _one_camera(detections: BoardDetections, view: str) -> tuple[BoardDetections, tuple[int, int]]:
    names = list(detections.view_names)
    if view not in names:
        raise InputError(f"camera '{view}' is not in the detections; {nearest_name(view, names)}")
    v = names.index(view)
    size = (int(detections.sizes[v][0]), int(detections.sizes[v][1]))
    alone = replace(
        detections, view_names=(view,), sizes=np.array([size]), corners=detections.corners[v : v + 1],
        sigma=detections.sigma[v : v + 1],
    )  # fmt: skip
    return alone, size


def _diverse(alone: BoardDetections, view: str, rough: Intrinsics, options: IntrinsicsOptions) -> BoardDetections:
    """The frames whose boards differ most, at most max_frames, in the order of time; corners of boards seen too little
    are out.

    Two boards differ by the distance of their outer corners in the image, which place, distance and tilt all move. The
    next frame is the one farthest from all chosen ones (Gonzalez 1985), the first the one with the most corners.
    """
    board = np.asarray(alone.board_index)
    seen = np.isfinite(alone.corners[0]).all(axis=-1)
    enough = np.stack(
        [seen[:, board == b].sum(axis=1) >= options.min_corners for b in range(len(alone.boards))], axis=1
    )
    rows = np.flatnonzero(enough.any(axis=1))
    if not len(rows):
        raise InputError(
            f"camera '{view}': expected a board with at least {options.min_corners} corners in "
            f"one of {len(seen)} frames, got none; "
            "film the board so that this camera sees it whole, or give the camera's intrinsics"
        )
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), 4 * options.max_frames)).round().astype(int)]
    alone = _frames(alone, rows, np.where(enough[rows][:, board, None], alone.corners[0, rows], np.nan))
    outline = _outlines(alone, view, rough)
    chosen = [int(np.argmax(np.isfinite(alone.corners[0, :, :, 0]).sum(axis=1)))]
    distance = np.full(len(rows), np.inf)
    while len(chosen) < min(options.max_frames, len(rows)):
        distance = np.minimum(distance, np.nan_to_num(np.linalg.norm(outline - outline[chosen[-1]], axis=-1), nan=0.0))
        distance[chosen] = -1.0
        chosen.append(int(np.argmax(distance)))
    chosen = sorted(chosen)
    return _frames(alone, np.array(chosen), alone.corners[0, chosen])


def _frames(alone: BoardDetections, rows: NDArray[np.intp], corners: Array) -> BoardDetections:
    return replace(
        alone, frame=alone.frame[rows], time=alone.time[rows], corners=corners[None], sigma=alone.sigma[:, rows]
    )


def _outlines(alone: BoardDetections, view: str, rough: Intrinsics) -> Array:
    """(frames, 8) px, the outer corners of each frame's best seen board in the image; NaN without a pose."""
    views = board_views(alone, view, rough)
    index, points = np.asarray(alone.board_index), alone.object_points
    best, frames = views.n_corners.argmax(axis=1), np.arange(len(views.n_corners))
    boxes = []
    for b in range(len(alone.boards)):
        low, high = points[index == b].min(axis=0), points[index == b].max(axis=0)
        boxes.append([[low[0], low[1], 0.0], [high[0], low[1], 0.0], [high[0], high[1], 0.0], [low[0], high[1], 0.0]])
    corners = apply(views.R[frames, best, 0], views.t[frames, best, 0], np.array(boxes)[best])
    return pixels_from_camera(corners, rough).reshape(len(frames), 8)


def _weighted(alone: BoardDetections, factor: float) -> BoardDetections:
    return replace(alone, sigma=alone.sigma * factor)


def _fit(
    alone: BoardDetections, start: Intrinsics, prior: tuple[Intrinsics, Array], noise: float, inflation: float
) -> tuple[BundleResult, BundleOptions]:
    """The most probable intrinsics where corners scatter by noise (in their stated sigmas) and count 1 / inflation^2
    each."""
    (view,) = alone.view_names
    views = board_views(alone, view, start)
    rig = CameraRig((Camera(view, start, np.eye(3), np.zeros(3)),), alone.boards[0].unit)
    options = BundleOptions(
        loss=LOSS, scale=LOSS_SCALE / inflation, free={view: FREE}, priors={view: (prior[0].parameters, prior[1])},
        solver=SOLVER,
    )  # fmt: skip
    result = adjust_boards(rig, views.R[:, :, 0], views.t[:, :, 0], _weighted(alone, noise * inflation), options)
    return result, options
