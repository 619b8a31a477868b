"""What are one camera's intrinsics, judged by its own images of boards alone?

A maximum a posteriori estimate: weak priors (a square-pixelled lens of ordinary width, its axis near the image's
middle, small distortion) give way wherever the images say more, and stand where they say nothing. Errors within one
image are related, so the images' weight is reduced until the formal covariance agrees with the scatter over blocks of
frames.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calibration.bundle import BundleOptions, BundleResult, adjust_boards, board_system
from calibration.camera import Camera, Intrinsics, pixels_from_camera, rays_from_pixels
from calibration.determination import LEAST_BLOCKS, Spread, corner_losses, corner_noise, intrinsic_spread
from calibration.errors import InputError, nearest_name
from calibration.lenses import LENSES, Lens, free_parameters, lens_of, prior_intrinsics
from calibration.planar import board_views, board_views_by_lens
from calibration.rig import CameraRig
from calibration.solver import SolverOptions, schur_reduced
from calibration.transforms import apply

if TYPE_CHECKING:
    from calibration.board import BoardDetections

__all__ = ["IntrinsicsEstimate", "IntrinsicsOptions", "estimate_intrinsics", "refined_intrinsics"]

Array = NDArray[np.float64]

START_FOCALS = (0.5, 0.7, 1.5, 2.2, 3.3, 5.0)
"""Where the search for the focal length may begin besides at its prior, in units of that."""
START_BOARDS = 10
WRONG_POSE = 2.0
"""rms error of a board, in the median of all, from which it may have been adjusted from the wrong pose."""
WIDEST_PINHOLE = 1.4
"""rad from the axis to which a fisheye is imitated by a pinhole."""
WIDE = 1.5
"""Half of an image's diagonal over the focal length (113 degrees across) beyond which hardly any lens is a pinhole,"""
WIDE_KNOWN = 0.1
"""if the focal length is known to this share."""
LEAST_GAIN = 0.02
"""Share of a block's held-out squared error that a less ordinary lens must save on the average,"""
MOST_GAIN = 0.5
"""and what more or less than this share counts no more: a block that a lens cannot explain at all is one block."""
LEAST_SIGMAS = 2.5
"""Standard errors over blocks of frames by which it must save."""
VAGUE = 0.03
"""Relative standard deviation of the focal length above which a less ordinary lens is not believed, unless the most
ordinary one knows hardly more: few boards are fitted by many coefficients that bend all of the image away."""
REFINED = 0.01
"""Of focal lengths, and of the image for the principal point: how well intrinsics to be refined are known (SD)."""
LOSS, LOSS_SCALE = "huber", 3.0
MOST_INFLATION = 10.0
SOLVER = SolverOptions(cost_tolerance=1e-6, initial_damping=1e-6)


@dataclass(frozen=True)
class IntrinsicsOptions:
    """max_frames: boards used, chosen to differ in place, distance and tilt. min_corners: a board with fewer is not
    used. lens: camera -> "pinhole" (5 distortion coefficients), "fisheye" or "rational" (pinhole with 8); what a camera
    that is not named has is found out."""

    max_frames: int = 30
    min_corners: int = 8
    lens: dict[str, Lens] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, lens in self.lens.items():
            if lens not in LENSES:
                raise InputError(f"lens: camera '{name}': '{lens}' is not known; {nearest_name(lens, LENSES)}")


@dataclass(frozen=True, eq=False)
class IntrinsicsEstimate:
    """intrinsics: the most probable ones. covariance (12, 12): theirs, over INTRINSIC_PARAMETERS, errors within images
    included, 0 where not sought. noise: px, scatter of one coordinate of the corners. n_boards: boards
    used. reason: why it is this kind of lens. prior: what was known before, with sigma (12,); None = that it is an
    ordinary lens."""

    intrinsics: Intrinsics
    covariance: Array
    noise: float
    n_boards: int
    reason: str = ""
    prior: tuple[Intrinsics, Array] | None = None

    @property
    def sigma(self) -> Array:
        """(12,) standard deviations."""
        return np.sqrt(np.diagonal(self.covariance))

    @property
    def focal(self) -> float:
        """px, the mean of fx and fy."""
        return float(self.intrinsics.parameters[:2].mean())

    @property
    def focal_sigma(self) -> float:
        """px."""
        return float(self.sigma[:2].mean())


@dataclass(frozen=True, eq=False)
class _First:
    """A lens fitted to one camera's images; loss: of all corners, in their stated sigmas squared."""

    result: BundleResult
    loss: float

    @property
    def found(self) -> Intrinsics:
        return self.result.rig.cameras[0].intrinsics


@dataclass(frozen=True, eq=False)
class _Fit:
    """One lens fitted to one camera's images: its focal length's prior, the corners' noise (in their stated sigmas),
    the adjustment; spread and error that blocks of frames have when they are left out."""

    prior: tuple[Intrinsics, Array]
    noise: float
    result: BundleResult
    spread: Spread

    @property
    def vague(self) -> float:
        """Relative standard deviation of the focal length."""
        return float(self.spread.larger[0, :2].mean() / self.result.rig.cameras[0].intrinsics.parameters[:2].mean())


def estimate_intrinsics(
    detections: BoardDetections, view: str, options: IntrinsicsOptions | None = None
) -> IntrinsicsEstimate:
    """The intrinsics of the camera `view` from its own images of boards, which may be footage of this camera alone.

    A lens that the options do not name is the most ordinary one of `LENSES` that no other beats clearly on blocks of
    frames that took no part in the fit.
    Raises InputError when the view is not in the detections, or sees no board with enough corners.
    """
    options = options or IntrinsicsOptions()
    alone, size = _one_camera(detections, view)
    told = options.lens.get(view)
    alone = _diverse(alone, view, prior_intrinsics(size, lens=told or "pinhole")[0], options)
    if told:
        fit, reason = _fitted(alone, _first(alone, view, told)), "as told"
    else:
        fit, reason = _most_ordinary(alone, view)
    free = free_parameters(fit.prior[0])
    ratio = fit.spread.jackknife[0, free] / fit.spread.formal[0, free]
    inflation = float(np.clip(np.median(ratio), 1.0, MOST_INFLATION))
    best, _ = _adjusted(alone, fit.result.rig.cameras[0].intrinsics, fit.prior, fit.noise, inflation, fit.result, True)
    assert best.rig.covariance is not None
    covariance = best.rig.covariance[6:, 6:] / best.variance
    noise = corner_noise(best.residuals, int(free.sum()) + 6 * int(np.isfinite(best.board_t[..., 0]).sum()))
    return IntrinsicsEstimate(best.rig.cameras[0].intrinsics, covariance, noise, len(alone.frame), reason)


def refined_intrinsics(
    detections: BoardDetections, view: str, known: Intrinsics, options: IntrinsicsOptions | None = None
) -> IntrinsicsEstimate:
    """As above, of a camera whose intrinsics are known about as well as REFINED says, and its lens for certain."""
    options = options or IntrinsicsOptions()
    lens = lens_of(known)
    own = estimate_intrinsics(detections, view, replace(options, lens={**options.lens, view: lens}))
    sigma = prior_intrinsics(known.size, lens=lens)[1]
    sigma[:4] = REFINED * np.array([*known.parameters[:2], max(known.size), max(known.size)])
    covariance = np.diag(np.where(np.isfinite(sigma), sigma, 0.0) ** 2)
    return replace(own, intrinsics=known, covariance=covariance, reason="as given", prior=(known, sigma))


def _most_ordinary(alone: BoardDetections, view: str) -> tuple[_Fit, str]:
    """The fit of the lens to take, and why: the most ordinary one that none which fits better clearly beats on held-out
    blocks of frames. At angles that hardly any pinhole has a fisheye is more ordinary."""
    first: dict[Lens, _First] = {"pinhole": _first(alone, view, "pinhole")}
    wide = np.hypot(*first["pinhole"].found.size) / 2 > WIDE * first["pinhole"].found.parameters[:2].mean()
    wide = wide and _fitted(alone, first["pinhole"]).vague < WIDE_KNOWN
    if wide or _promised(first["pinhole"], alone, view) > LEAST_GAIN * first["pinhole"].loss:
        fisheye = _first(alone, view, "fisheye")
        pinhole = _first(alone, view, "pinhole", _as_pinhole(fisheye.found, alone))
        first = {"pinhole": pinhole, "fisheye": fisheye, "rational": _first(alone, view, "rational", pinhole.found)}
    order: tuple[Lens, ...] = ("fisheye", "pinhole", "rational") if wide else LENSES
    own, least = order[0], (1 - LEAST_GAIN) * first[order[0]].loss
    fits = {
        lens: _fitted(alone, first[lens])
        for lens in order
        if lens in first and (lens == own or first[lens].loss < least)
    }
    fits = {lens: fit for lens, fit in fits.items() if lens == own or fit.vague < max(VAGUE, 3 * fits[own].vague)}
    nothing = np.finfo(float).tiny  # one Gauss-Newton step may promise less than no error of a block
    errors = {lens: np.maximum(fit.noise**2 * fit.spread.held_out, nothing) for lens, fit in fits.items()}
    chosen = next(lens for lens in fits if not any(_beats(errors[other], errors[lens]) for other in fits))
    px = float(np.nanmedian(alone.sigma)) / np.sqrt(np.isfinite(alone.corners[..., 0]).sum())
    rms = {lens: px * float(np.sqrt(error.sum())) for lens, error in errors.items()}
    others = [f"{lens} {rms[lens]:.3f} px" if lens in rms else f"{lens} fits no better" for lens in LENSES]
    others.pop(LENSES.index(chosen))
    return fits[chosen], f"held-out error {rms[chosen]:.3f} px ({', '.join(others)})"


def _first(alone: BoardDetections, view: str, lens: Lens, like: Intrinsics | None = None) -> _First:
    """A lens of this kind fitted to all boards while their noise is not known, from the best of some starts: `like`, or
    undistorted with one of `START_FOCALS`."""
    prior = prior_intrinsics((int(alone.sizes[0][0]), int(alone.sizes[0][1])), lens=lens)
    starts = [prior[0]]
    if like is not None:
        starts.append(Intrinsics.from_parameters(like.size, like.parameters, n_dist=len(prior[0].dist)))
    else:
        for factor in START_FOCALS:
            K = prior[0].K * [[factor, 1.0, 1.0], [1.0, factor, 1.0], [1.0, 1.0, 1.0]]
            starts.append(replace(prior[0], K=K))
    some = np.linspace(0, len(alone.frame) - 1, min(len(alone.frame), START_BOARDS)).round().astype(int)
    few = _frames(alone, some, alone.corners[0, some])
    errors = [np.nan_to_num(views.error[..., 0], nan=np.inf) for views in board_views_by_lens(few, view, starts)]
    start = starts[int(np.argmin([np.median(error) for error in errors]))]
    for _ in range(2):  # a board that began in the wrong one of its two poses begins in the right one then
        result, options = _adjusted(alone, start, prior, 1.0, 1.0)
        start = result.rig.cameras[0].intrinsics
        squared = (result.residuals[0] ** 2).sum(axis=-1)
        seen = np.isfinite(squared).sum(axis=1)
        off = np.sqrt(np.where(np.isfinite(squared), squared, 0.0).sum(axis=1)[seen > 0] / seen[seen > 0])
        if off.max(initial=0.0) < WRONG_POSE * np.median(off):
            break
    return _First(result, float(corner_losses(result.residuals, alone, options).sum()))


def _beats(error: Array, other: Array) -> bool:
    """Whether a lens is clearly better than another, by their errors on blocks (n,) that took no part in the fit."""
    gain = np.clip(np.log(other) - np.log(error), -MOST_GAIN, MOST_GAIN)
    doubt = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) >= LEAST_BLOCKS else np.inf
    return bool(gain.mean() > max(LEAST_SIGMAS * doubt, LEAST_GAIN))


def _promised(pinhole: _First, alone: BoardDetections, view: str) -> float:
    """How much of a pinhole's loss a rational lens, which can imitate the others, would save by one Gauss-Newton step
    from there."""
    free = free_parameters(prior_intrinsics(pinhole.found.size, lens="rational")[0])
    found = pinhole.result
    options = BundleOptions(loss=LOSS, scale=LOSS_SCALE, free={view: free})
    H, g = schur_reduced(board_system(found.rig, found.board_R, found.board_t, alone, options))
    own = np.diagonal(H) > 0
    return float(g[own] @ np.linalg.lstsq(H[np.ix_(own, own)], g[own], rcond=None)[0])


def _as_pinhole(fisheye: Intrinsics, alone: BoardDetections) -> Intrinsics:
    """The pinhole whose radial curve is nearest to a fisheye's over the angles of the corners seen."""
    rays = rays_from_pixels(alone.corners, fisheye)
    widest = np.nanmax(np.arccos(np.clip(rays[..., 2], -1.0, 1.0)), initial=0.0)
    angle = np.linspace(0.0, min(widest, WIDEST_PINHOLE), 50)
    radius = angle * np.polynomial.polynomial.polyval(angle**2, [1.0, *fisheye.dist])
    one, *bend = np.linalg.lstsq(np.tan(angle)[:, None] ** [1, 3, 5, 7], radius, rcond=None)[0]
    K = fisheye.K * [[one, 1.0, 1.0], [1.0, one, 1.0], [1.0, 1.0, 1.0]]
    k1, k2, k3 = np.array(bend) / one
    return Intrinsics(fisheye.size, K, np.array([k1, k2, 0.0, 0.0, k3]))


def _fitted(alone: BoardDetections, first: _First) -> _Fit:
    """The lens fitted anew, now that the noise is known."""
    prior = prior_intrinsics(first.found.size, first.found.parameters[:2].mean(), lens_of(first.found))
    noise = float(np.sqrt(first.result.variance))
    result, bundle = _adjusted(alone, first.found, prior, noise, 1.0, first.result)
    return _Fit(prior, noise, result, intrinsic_spread(result, _weighted(alone, noise), bundle))


def _one_camera(detections: BoardDetections, view: str) -> tuple[BoardDetections, tuple[int, int]]:
    names = list(detections.view_names)
    if view not in names:
        raise InputError(f"camera '{view}' is not in the detections; {nearest_name(view, names)}")
    v = names.index(view)
    size = (int(detections.sizes[v][0]), int(detections.sizes[v][1]))
    return detections.of_views([v]), size


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
    return replace(alone.of_frames(rows), corners=corners[None])


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


def _adjusted(
    alone: BoardDetections,
    start: Intrinsics,
    prior: tuple[Intrinsics, Array],
    noise: float,
    inflation: float,
    poses: BundleResult | None = None,
    covariance: bool = False,
) -> tuple[BundleResult, BundleOptions]:
    """The most probable intrinsics where corners scatter by noise (in their stated sigmas) and count 1 / inflation^2
    each. poses: where the boards begin, else where `start` has them."""
    (view,) = alone.view_names
    rig = CameraRig((Camera(view, start, np.eye(3), np.zeros(3)),), alone.boards[0].unit)
    options = BundleOptions(
        loss=LOSS, scale=LOSS_SCALE / inflation, free={view: free_parameters(start)},
        priors={view: (prior[0].parameters, prior[1])}, solver=SOLVER,
    )  # fmt: skip
    if poses is None:
        views = board_views(alone, view, start)
        R, t = views.R[:, :, 0], views.t[:, :, 0]
    else:
        R, t = poses.board_R, poses.board_t
    weighted = _weighted(alone, noise * inflation)
    return adjust_boards(rig, R, t, weighted, options, covariance=covariance), options
