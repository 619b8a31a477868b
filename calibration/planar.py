"""From where can one camera have seen a board? The two poses that explain the corners of a flat side, for every frame.

Seen from one place, a flat board has two poses of nearly the same pixels (its tilt towards and away from the camera);
which one is true is for the other views or the sequence to say. A second pose that clearly fits worse is dropped here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calibration.camera import Intrinsics, pixels_from_camera, rays_from_pixels
from calibration.transforms import apply, compose, skew

if TYPE_CHECKING:
    from calibration.board import BoardDetections

__all__ = ["MIN_CORNERS", "BoardViews", "board_views", "board_views_by_lens", "plane_poses"]

Array = NDArray[np.float64]

MIN_CORNERS = 6
"""A board of which a view sees fewer corners, or only corners on one line, gives no pose of its own."""
SECOND_POSE_RATIO = 2.0
"""The second pose is kept where its rms error is at most this many times the first one's."""
LEAST_FORWARD = 0.05
"""Cosine from the middle of a board's rays below which a corner takes no part: the homography lives on x/z about it."""


@dataclass(frozen=True, eq=False)
class BoardViews:
    """What one camera alone says about every board of every frame.

    R (frames, boards, 2, 3, 3), t (frames, boards, 2, 3): cam_from_board, the better pose first; NaN where there is
    none. error (frames, boards, 2): px rms of the corners, NaN where there is no pose. n_corners (frames, boards):
    corners seen.
    """

    R: Array
    t: Array
    error: Array
    n_corners: NDArray[np.int64]


def board_views(detections: BoardDetections, view: str, intrinsics: Intrinsics) -> BoardViews:
    """The poses of every board that the camera `view` sees with at least `MIN_CORNERS` corners not on one line, by the
    side of which it sees more."""
    return board_views_by_lens(detections, view, (intrinsics,))[0]


def board_views_by_lens(detections: BoardDetections, view: str, lenses: Sequence[Intrinsics]) -> list[BoardViews]:
    """As above, if the camera had each of these lenses."""
    seen_by = np.asarray(detections.corners[list(detections.view_names).index(view)], dtype=np.float64)
    n, xy = len(seen_by), np.tile(seen_by, (len(lenses), 1, 1))
    rays = np.concatenate([rays_from_pixels(seen_by, lens) for lens in lenses])
    shape = (len(xy), len(detections.boards))
    R, t, error = np.full((*shape, 2, 3, 3), np.nan), np.full((*shape, 2, 3), np.nan), np.full((*shape, 2), np.nan)
    n_corners = np.zeros(shape, dtype=np.int64)
    for side in np.unique(detections.side_index):
        corners = np.flatnonzero(detections.side_index == side)
        board, points = int(detections.board_index[corners[0]]), detections.object_points[corners]
        turn, flat = _faced(rays[:, corners])
        seen = np.isfinite(flat[..., 0])
        seen[(seen.sum(axis=1) < MIN_CORNERS) | _on_one_line(points, seen)] = False
        count = seen.sum(axis=1)
        rows = np.flatnonzero(count > n_corners[:, board])  # of a board's two sides the one that shows more
        n_corners[rows, board] = count[rows]
        pose_R, pose_t = plane_poses(points[:, :2], flat[rows])
        pose_t -= points[:, 2].mean() * pose_R[..., 2]
        R[rows, board], t[rows, board] = compose(turn[rows, None], 0.0, pose_R, pose_t)
        there = np.split(
            apply(R[rows, board], t[rows, board], points), np.searchsorted(rows, n * np.arange(1, len(lenses)))
        )
        pixels = np.concatenate([pixels_from_camera(own, lens) for own, lens in zip(there, lenses, strict=True)])
        squared = np.where(seen[rows, None], ((pixels - xy[rows][:, None, corners]) ** 2).sum(axis=-1), 0.0)
        error[rows, board] = np.sqrt(squared.sum(axis=-1) / count[rows, None])
    parts = [slice(n * i, n * i + n) for i in range(len(lenses))]
    return [_sorted_by_error(R[part], t[part], error[part], n_corners[part]) for part in parts]


def plane_poses(plane: Array, flat: Array) -> tuple[Array, Array]:
    """The two poses cam_from_plane of a plane at whose points (n, 2) the camera sees flat (..., n, 2) = x/z, y/z; NaN =
    unseen.

    R (..., 2, 3, 3), t (..., 2, 3), in no order. Infinitesimal plane-based pose estimation (Collins and Bartoli 2014,
    section 4): the homography's derivative at the middle of the seen points fixes the rotation up to a reflection.
    """
    seen = np.isfinite(flat[..., 0])
    weight = seen / seen.sum(axis=-1, keepdims=True)
    flat = np.where(seen[..., None], flat, 0.0)
    middle = np.einsum("...n,nx->...x", weight, plane)
    H = _homography(plane - middle[..., None, :], flat, weight)
    slant = H[..., :2, 2]  # where the middle is seen; H[2, 2] = 1
    J = H[..., :2, :2] - slant[..., :, None] * H[..., None, 2, :2]
    turn = _turn_to(np.concatenate((slant, np.ones((*slant.shape[:-1], 1))), axis=-1))
    B = turn[..., :2, :2] - slant[..., :, None] * turn[..., None, 2, :2]
    A = np.linalg.solve(B, J)
    squares, det = (A**2).sum(axis=(-2, -1)), A[..., 0, 0] * A[..., 1, 1] - A[..., 0, 1] * A[..., 1, 0]
    A /= np.sqrt((squares + np.sqrt(np.maximum(squares**2 - 4 * det**2, 0.0))) / 2)[..., None, None]  # spectral norm
    rest = np.eye(2) - np.swapaxes(A, -1, -2) @ A
    last = np.sqrt(np.maximum(np.stack((rest[..., 0, 0], rest[..., 1, 1]), axis=-1), 0.0))
    last[..., 1] *= np.where(rest[..., 0, 1] < 0, -1.0, 1.0)
    columns = np.stack([np.concatenate((A, sign * last[..., None, :]), axis=-2) for sign in (1.0, -1.0)], axis=-3)
    R = np.concatenate((columns, np.cross(columns[..., 0], columns[..., 1])[..., None]), axis=-1)
    R = turn[..., None, :, :] @ R
    return R, _shift(plane, flat[..., None, :, :], weight[..., None, :], R)


def _faced(rays: Array) -> tuple[Array, Array]:
    """Unit rays (frames, n, 3), NaN = unseen, as a camera that faces their middle sees them: camera_from_facing
    (frames, 3, 3) and x/z, y/z there (frames, n, 2). So boards at the side of a fisheye and behind it are like all."""
    middle = np.nansum(rays, axis=1)
    middle[~middle.any(axis=1)] = (0.0, 0.0, 1.0)
    turn = _turn_to(middle)
    rays = rays @ turn
    rays[~(rays[..., 2] > LEAST_FORWARD)] = np.nan
    return turn, rays[..., :2] / rays[..., 2:]


def _homography(plane: Array, flat: Array, weight: Array) -> Array:
    """(..., 3, 3) with flat ~ H (plane, 1), H[2, 2] = 1: direct linear transform, both sides scaled to unit spread."""
    scale = np.sqrt(np.einsum("...n,...nx->...", weight, plane**2))[..., None, None]
    middle = np.einsum("...n,...nx->...x", weight, flat)[..., None, :]
    spread = np.sqrt(np.einsum("...n,...nx->...", weight, (flat - middle) ** 2))[..., None, None]
    source = np.concatenate((plane / scale, np.ones((*plane.shape[:-1], 1))), axis=-1)
    target = (flat - middle) / spread
    factors = np.stack((np.ones_like(weight), -target[..., 0], -target[..., 1], (target**2).sum(axis=-1)), axis=-2)
    moments = (factors * weight[..., None, :])[..., None, :] * np.swapaxes(source, -1, -2)[..., None, :, :]
    blocks = (moments.reshape(*weight.shape[:-1], 12, -1) @ source).reshape(*weight.shape[:-1], 4, 3, 3)
    normal = np.zeros((*weight.shape[:-1], 9, 9))
    normal[..., :3, :3] = normal[..., 3:6, 3:6] = blocks[..., 0, :, :]
    normal[..., 6:, :3], normal[..., 6:, 3:6], normal[..., 6:, 6:] = (blocks[..., i, :, :] for i in (1, 2, 3))
    H = np.linalg.eigh(normal)[1][..., :, 0].reshape(*normal.shape[:-2], 3, 3)
    H = np.concatenate((spread * H[..., :2, :] + np.swapaxes(middle, -1, -2) * H[..., 2:, :], H[..., 2:, :]), axis=-2)
    H[..., :2] /= scale
    return H / H[..., 2:, 2:]


def _turn_to(ray: Array) -> Array:
    """The smallest rotation (..., 3, 3) that turns the axis (0, 0, 1) to rays (..., 3) of any length, not backward."""
    ray = ray / np.linalg.norm(ray, axis=-1, keepdims=True)
    cross = skew(np.stack((-ray[..., 1], ray[..., 0], np.zeros(ray.shape[:-1])), axis=-1))
    return np.eye(3) + cross + cross @ cross / (1.0 + ray[..., 2, None, None])


def _shift(plane: Array, flat: Array, weight: Array, R: Array) -> Array:
    """t (..., 3) that brings the turned plane to where it is seen, linear least squares."""
    turned = plane @ np.swapaxes(R[..., :2], -1, -2)
    right = flat * turned[..., 2:] - turned[..., :2]
    normal, gradient = np.zeros((*weight.shape[:-1], 3, 3)), np.zeros((*R.shape[:-2], 3))
    sums = np.einsum("...n,...nx->...x", weight, flat)
    normal[..., 0, 0] = normal[..., 1, 1] = 1.0
    normal[..., :2, 2] = normal[..., 2, :2] = -sums
    normal[..., 2, 2] = np.einsum("...n,...nx->...", weight, flat**2)
    gradient[..., :2] = np.einsum("...n,...nx->...x", weight, right)
    gradient[..., 2] = -np.einsum("...n,...nx->...", weight, flat * right)
    return np.linalg.solve(normal, gradient[..., None])[..., 0]


def _on_one_line(points: Array, seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(frames,) whether the seen ones (frames, n) of points (n, 3) on a board have no breadth."""
    weight = seen / np.maximum(seen.sum(axis=1, keepdims=True), 1)
    x, y = (points[:, :2] - points[:, :2].mean(axis=0)).T
    mx, my, xx, xy, yy = (weight @ np.stack((x, y, x * x, x * y, y * y), axis=1)).T
    xx, xy, yy = xx - mx * mx, xy - mx * my, yy - my * my
    line: NDArray[np.bool_] = ~(xx * yy - xy * xy > 1e-6 * (xx + yy) ** 2)  # the lesser over the greater variance
    return line


def _sorted_by_error(R: Array, t: Array, error: Array, n_corners: NDArray[np.int64]) -> BoardViews:
    """The better pose first; the second only where it is nearly as good."""
    order = np.argsort(error, axis=-1, kind="stable")
    error = np.take_along_axis(error, order, axis=-1)
    R = np.take_along_axis(R, order[..., None, None], axis=2)
    t = np.take_along_axis(t, order[..., None], axis=2)
    worse = ~(error[..., 1] <= SECOND_POSE_RATIO * error[..., 0])
    R[worse, 1], t[worse, 1], error[worse, 1] = np.nan, np.nan, np.nan
    return BoardViews(R, t, error, n_corners)
