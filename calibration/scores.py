"""What would the fit gain if something that it holds were free, such as a camera's clock or the board's shape?

Score tests (Rao 1948) on an adjusted rig: the gain in chi-square of freeing a parameter follows from gradient and
curvature at the optimum, without another fit. Board poses are eliminated frame by frame, so that what all cameras have
wrong in a frame is told from what they disagree on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f as f_distribution

from calibration.board import BoardDetections
from calibration.camera import project_jacobian
from calibration.rig import RIG_PARAMETERS, CameraRig
from calibration.transforms import apply, skew

__all__ = ["Linearised", "Normals", "Placed", "camera_columns", "linearise", "normals"]

Array = NDArray[np.float64]
Columns = Callable[[int], Array]
"""View -> (poses, corners, 2, k) px: how projections change with k parameters that the fit does not have."""

N = len(RIG_PARAMETERS)
N_BLOCKS = 20
"""Blocks of consecutive boards, whose disagreement is the dispersion that chances are counted with."""
MOST_KEPT = 1e9
"""Bytes of derivatives that are kept instead of being made anew."""
SMALLEST_EIGENVALUE = 1e-9


@dataclass(frozen=True, eq=False)
class Placed:
    """Boards placed in the rig. frame, board: (poses,) indices into the detections, in the order of time. world:
    (poses, corners, 3) of the pose's board, NaN for other boards' corners. xy: (views, poses, corners, 2) px, NaN where
    not used. noise: (views,) px, what a coordinate of each camera scatters in its own images. side: (corners,) 1 on the
    back of a board, else 0."""

    rig: CameraRig
    frame: NDArray[np.intp]
    board: NDArray[np.intp]
    R: Array
    t: Array
    world: Array
    xy: Array
    noise: Array
    side: NDArray[np.int64]

    @classmethod
    def of(cls, rig: CameraRig, R: Array, t: Array, detections: BoardDetections, noise: Array) -> Placed:
        """R (frames, boards, 3, 3), t (frames, boards, 3): world_from_board, NaN where not placed."""
        frame, board = np.nonzero(np.isfinite(t).all(axis=-1))
        own = np.asarray(detections.board_index) == board[:, None]
        views = [list(detections.view_names).index(name) for name in rig.names]
        world = apply(R[frame, board], t[frame, board], detections.object_points)
        xy = np.where(own[..., None], detections.corners[views][:, frame], np.nan)
        world = np.where(own[..., None], world, np.nan)
        side = np.concatenate([described.side for described in detections.boards])
        return cls(rig, frame, board, R[frame, board], t[frame, board], world, xy, noise, side)

    def without(
        self, views_and_frames: Sequence[tuple[Sequence[str], Sequence[int]]], numbers: NDArray[np.int64]
    ) -> Placed:
        """The same without these cameras in these frames, by their numbers in the footage of the first camera named;
        numbers: (views, poses) of the pictures in each camera's own footage."""
        xy = self.xy.copy()
        for names, frames in views_and_frames:
            views = np.array([name in names for name in self.rig.names])
            xy[views[:, None] & np.isin(numbers[self.rig.index(names[0])], list(frames))] = np.nan
        return replace(self, xy=xy)

    @property
    def seen(self) -> NDArray[np.bool_]:
        """(views, poses, corners)."""
        return np.isfinite(self.xy[..., 0])


@dataclass(frozen=True, eq=False)
class Linearised:
    """Residuals over noise, and their derivatives, at the optimum; board poses whitened, ready to be eliminated.

    own (views, poses, 18, 18), slope (views, poses, 18): normal equations of each camera's parameters. shared (views,
    poses, 18, 6), pull (poses, 6): with and of the pose, in its whitened coordinates; whiten (poses, 6, 6) takes a
    pose's plain derivatives there. weight (views, poses, corners). residual (views, poses, corners, 2).
    """

    placed: Placed
    own: Array
    slope: Array
    shared: Array
    pull: Array
    whiten: Array
    weight: Array
    residual: Array
    _kept: dict[int, tuple[Array, Array]] = field(default_factory=dict)

    @property
    def misfit(self) -> float:
        """Chi-square beyond noise that is left with every board at its best place."""
        return float((self.residual**2).sum() - (self.pull**2).sum() - 2 * self.placed.seen.sum())

    def derivatives(self, view: int) -> tuple[Array, Array]:
        """Over noise, (poses, 2 corners, 18) by the camera and (poses, 2 corners, 6) by the board's pose; 0 where a
        corner is not used. Kept for the next time while they are not too large."""
        if view not in self._kept:
            _, G, B = _derivatives(self.placed, view)
            pair = _flat(G, self.weight[view]), _flat(B, self.weight[view])
            if pair[0].nbytes * len(self.weight) > MOST_KEPT:
                return pair
            self._kept[view] = pair
        return self._kept[view]

    def place_columns(self, view: int) -> Array:
        """Over noise, (poses, 2 corners, 6) by the camera's turn and shift."""
        return self.derivatives(view)[0][..., :6]

    def over_noise(self, view: int, columns: Array) -> Array:
        """(poses, corners, 2, k) px -> (poses, 2 corners, k) over noise, 0 where a corner is not used."""
        return _flat(columns, self.weight[view])

    def by_pose(self, view: int, columns: Array) -> tuple[Array, Array, Array]:
        """Parameters that each board has anew in one view, whose columns are (poses, 2 corners, k) over noise: gradient
        (poses, k), curvature (poses, k, k), and that with all cameras' parameters (poses, k, 18 views); boards
        eliminated."""
        G, B = self.derivatives(view)
        E, turned = columns, columns.transpose(0, 2, 1)
        shared = turned @ B @ self.whiten
        slope = (turned @ self.residual[view].reshape(len(E), -1, 1))[..., 0]
        gradient = slope - np.einsum("pij,pj->pi", shared, self.pull)
        rows = -np.einsum("pij,vpkj->pivk", shared, self.shared, optimize=True)
        rows[:, :, view] += turned @ G
        return gradient, turned @ E - shared @ shared.transpose(0, 2, 1), rows.reshape(*gradient.shape, -1)

    def disagreement(self, view: int) -> tuple[Array, NDArray[np.int64]]:
        """(poses,) chi-square of where this camera alone would have the board instead of where all have it, and its
        degrees of freedom; 0 and 0 where no other camera sees that board."""
        gradient, curvature, _ = self.by_pose(view, self.place_columns(view))
        scale = np.sqrt((self.place_columns(view) ** 2).sum(axis=1))
        scale = np.where(scale > 0, scale, 1.0)
        values, vectors = np.linalg.eigh(curvature / (scale[:, :, None] * scale[:, None, :]))
        along = np.einsum("pij,pi->pj", vectors, gradient / scale)
        others = self.placed.seen.any(axis=2).sum(axis=0) >= 2
        solid = (values > SMALLEST_EIGENVALUE) & (others & self.placed.seen[view].any(axis=1))[:, None]
        return np.where(solid, along**2 / np.maximum(values, SMALLEST_EIGENVALUE), 0.0).sum(axis=1), solid.sum(axis=1)


@dataclass(frozen=True, eq=False)
class Normals:
    """Normal equations in blocks of consecutive poses, boards eliminated, over all cameras' parameters and then the
    candidates: H (blocks, n, n), g (blocks, n), prior (n, n). base: which parameters the fit has free."""

    H: Array
    g: Array
    prior: Array
    base: NDArray[np.bool_]

    def solved(self, active: NDArray[np.bool_]) -> tuple[Array, Array]:
        """Step (n,) to the optimum with these parameters free, and their covariance (n, n); 0 elsewhere."""
        H = (self.H.sum(axis=0) + self.prior)[np.ix_(active, active)]
        step, covariance = np.zeros(len(self.base)), np.zeros_like(self.prior)
        inverse = _inverse(H, np.diagonal(H))
        covariance[np.ix_(active, active)] = inverse
        step[active] = -inverse @ self.g.sum(axis=0)[active]
        return step, covariance

    def scatter(self, step: Array, covariance: Array) -> Array:
        """(n,) variances of the parameters at an optimum (`solved`) by the scatter of the blocks' own gradients."""
        away = (self.g + self.H @ step) @ covariance
        return np.asarray((away**2).sum(axis=0) * len(away) / max(len(away) - 1, 1))

    def gain(self, optimum: tuple[Array, Array], columns: NDArray[np.intp]) -> tuple[float, float, Array]:
        """Chi-square gained by freeing `columns` beside those of an optimum (`solved`), the chance of that much in a
        fit without fault, and the values (k,) that they take.

        The gain over its degrees of freedom is compared with the scatter of the blocks' own gradients around the new
        optimum, an F test of two scatters, so that errors common to neighbouring frames make no fault; and so is the
        step alone that is taken, along its own direction. The greater chance counts.
        """
        before, covariance = optimum
        H = self.H.sum(axis=0) + self.prior
        along = covariance @ H[:, columns]
        spread = _inverse(H[np.ix_(columns, columns)] - H[columns] @ along, np.diagonal(H)[columns])
        slope = (self.g.sum(axis=0) + H @ before)[columns]
        value = -spread @ slope
        step = before - along @ value
        step[columns] = value
        away = self.g + self.H @ step
        scores = away[:, columns] - away @ along
        k, rest = len(columns), max(len(scores) - 1, 1)
        scatter = float(np.einsum("bi,ij,bj->", scores, spread, scores)) * len(scores) / rest
        gained = float(slope @ spread @ slope)
        along_step = float(((scores @ value) ** 2).sum()) * len(scores) / rest
        chances = (
            f_distribution.sf(gained / k / max(1.0, scatter / k), k, k * rest),
            f_distribution.sf(gained**2 / k / max(along_step, gained, np.finfo(float).tiny), k, rest),
        )
        return gained, float(max(chances)), value


def linearise(placed: Placed) -> Linearised:
    """Residuals (projected - measured) and derivatives of every used corner."""
    views, poses = placed.seen.shape[:2]
    own, slope = np.zeros((views, poses, N, N)), np.zeros((views, poses, N))
    with_pose, pose, push = np.zeros((views, poses, N, 6)), np.zeros((poses, 6, 6)), np.zeros((poses, 6))
    weight, residual = np.zeros(placed.seen.shape), np.zeros(placed.xy.shape)
    kept: dict[int, tuple[Array, Array]] = {}
    for v in range(views):
        xy, G, B = _derivatives(placed, v)
        usable = np.isfinite(xy).all(axis=-1) & placed.seen[v]
        weight[v] = np.where(usable, 1.0 / placed.noise[v], 0.0)
        residual[v] = np.where(usable[..., None], xy - placed.xy[v], 0.0) * weight[v][..., None]
        G, B = _flat(G, weight[v]), _flat(B, weight[v])
        if G.nbytes * views <= MOST_KEPT:
            kept[v] = G, B
        r = residual[v].reshape(poses, -1, 1)
        own[v], slope[v] = G.transpose(0, 2, 1) @ G, (G.transpose(0, 2, 1) @ r)[..., 0]
        with_pose[v] = G.transpose(0, 2, 1) @ B
        pose += B.transpose(0, 2, 1) @ B
        push += (B.transpose(0, 2, 1) @ r)[..., 0]
    scale = np.sqrt(np.einsum("pii->pi", pose))
    scale = np.where(scale > 0, scale, 1.0)
    values, vectors = np.linalg.eigh(pose / (scale[:, :, None] * scale[:, None, :]))
    solid = values > SMALLEST_EIGENVALUE
    whiten = vectors / scale[:, :, None] * np.where(solid, 1.0 / np.sqrt(np.where(solid, values, 1.0)), 0.0)[:, None]
    pull = np.einsum("pij,pi->pj", whiten, push)
    return Linearised(placed, own, slope, with_pose @ whiten, pull, whiten, weight, residual, kept)


def normals(fit: Linearised, free: NDArray[np.bool_], precision: Array, candidates: Sequence[Columns]) -> Normals:
    """The equations with every candidate's columns appended. free, precision: (views, 18) what the fit had free, and
    its priors."""
    views, poses = fit.weight.shape[:2]
    blocks = np.array_split(np.arange(poses), min(N_BLOCKS, poses))
    extra, extra_slope, extra_shared, with_own = _appended(fit, candidates)
    k = extra.shape[1]
    n = N * views + k
    H, g = np.zeros((len(blocks), n, n)), np.zeros((len(blocks), n))
    K = np.concatenate((fit.shared.transpose(1, 0, 2, 3).reshape(poses, -1, 6), extra_shared), axis=1)
    slope = np.concatenate((fit.slope.transpose(1, 0, 2).reshape(poses, -1), extra_slope), axis=1)
    slope = slope - np.einsum("pij,pj->pi", K, fit.pull)
    for b, block in enumerate(blocks):
        flat = K[block].transpose(1, 0, 2).reshape(n, -1)
        H[b] = -flat @ flat.T
        for v in range(views):
            rows = slice(N * v, N * v + N)
            H[b, rows, rows] += fit.own[v, block].sum(axis=0)
            cross = with_own[v, block].sum(axis=0)
            H[b, rows, N * views :] += cross
            H[b, N * views :, rows] += cross.T
        H[b, N * views :, N * views :] += extra[block].sum(axis=0)
        g[b] = slope[block].sum(axis=0)
    base = np.concatenate((free.ravel(), np.zeros(k, dtype=bool)))
    return Normals(H, g, np.diag(np.concatenate((precision.ravel(), np.zeros(k)))), base)


def camera_columns(placed: Placed, view: int) -> Array:
    """(poses, corners, 2, 18) px by the camera's own parameters, NaN for other boards' corners."""
    return _derivatives(placed, view)[1]


def _appended(fit: Linearised, candidates: Sequence[Columns]) -> tuple[Array, Array, Array, Array]:
    """Of all candidates' columns: (poses, k, k), (poses, k), (poses, k, 6) whitened, (views, poses, 18, k)."""
    views, poses = fit.weight.shape[:2]
    parts = []
    for v in range(views):
        none = np.zeros((*fit.residual[v].shape, 0))
        E = np.concatenate([none, *(columns(v) for columns in candidates)], axis=-1)
        E, (G, B) = _flat(E, fit.weight[v]), fit.derivatives(v)
        r = fit.residual[v].reshape(poses, -1, 1)
        turned = E.transpose(0, 2, 1)
        parts.append((turned @ E, (turned @ r)[..., 0], turned @ B @ fit.whiten, G.transpose(0, 2, 1) @ E))
    extra, slope, shared = (sum(part[i] for part in parts) for i in range(3))
    return np.asarray(extra), np.asarray(slope), np.asarray(shared), np.stack([part[3] for part in parts])


def _derivatives(placed: Placed, view: int) -> tuple[Array, Array, Array]:
    """Projections (poses, corners, 2) px and their derivatives (..., 18) by the camera and (..., 6) by the board's turn
    about its own origin, in world axes, and its shift."""
    camera = placed.rig.cameras[view]
    x_cam = apply(camera.R, camera.t, placed.world)
    xy, J, J_intrinsic = project_jacobian(x_cam, camera.intrinsics)
    G = np.concatenate((-J @ skew(x_cam - camera.t), J, J_intrinsic), axis=-1)
    J_world = J @ camera.R
    B = np.concatenate((-J_world @ skew(placed.world - placed.t[:, None]), J_world), axis=-1)
    return xy, G, B


def _flat(J: Array, weight: Array) -> Array:
    """(poses, corners, 2, k) times weight -> (poses, 2 corners, k), 0 where not used."""
    J = np.where(weight[..., None, None] > 0, J, 0.0) * weight[..., None, None]
    return J.reshape(len(J), 2 * weight.shape[1], J.shape[-1])


def _inverse(matrix: Array, size: Array) -> Array:
    """Of a symmetric matrix, directions that nothing determines left at 0. size: (n,) of its diagonal before anything
    was eliminated, which is what rounding is measured by."""
    scale = np.sqrt(np.where(size > 0, size, 1.0))
    values, vectors = np.linalg.eigh(matrix / np.outer(scale, scale))
    solid = values > SMALLEST_EIGENVALUE
    vectors = vectors[:, solid] / scale[:, None]
    return np.asarray((vectors / values[solid]) @ vectors.T)
