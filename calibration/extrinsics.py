"""Where do the cameras stand to one another? Board poses -> pairwise poses -> their average -> first rig."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calibration.averaging import average_poses
from calibration.camera import Camera, Intrinsics
from calibration.errors import InputError
from calibration.planar import MIN_CORNERS, BoardViews, board_views
from calibration.rig import CameraRig
from calibration.transforms import apply, compose, invert, mean_rotation

if TYPE_CHECKING:
    import networkx

    from calibration.board import BoardDetections

__all__ = ["ExtrinsicsOptions", "board_poses", "camera_graph", "initial_rig"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ExtrinsicsOptions:
    """max_common: boards seen by both cameras of a pair that its pose is found from, the best seen ones, spread over
    time. rotation_gate: rad, and distance_gate: share of the board's distance; where two poses of a board disagree
    more, one is wrong.
    """

    max_common: int = 40
    rotation_gate: float = 0.2
    distance_gate: float = 0.1


def initial_rig(
    detections: BoardDetections, intrinsics: Mapping[str, Intrinsics], options: ExtrinsicsOptions | None = None
) -> tuple[CameraRig, Array, Array]:
    """A first rig and the board poses in it, from cameras whose intrinsics are known roughly.

    Returns the rig (cameras in the detections' order, its world the first camera's frame, its unit the boards'), and
    world_from_board R (frames, boards, 3, 3), t (frames, boards, 3), NaN where no view gives a pose.
    Raises InputError when cameras cannot be linked by boards that two of them see at once.
    """
    import networkx as nx

    options = options or ExtrinsicsOptions()
    names = list(detections.view_names)
    views = [board_views(detections, name, intrinsics[name]) for name in names]
    graph = _graph(names, views, _middles(detections), options)
    reached = nx.node_connected_component(graph, names[0])
    if len(reached) < len(names):
        raise InputError(_cut_off([[n for n in names if n in part] for part in nx.connected_components(graph)]))
    poses = average_poses(graph, names)
    cameras = tuple(Camera(name, intrinsics[name], *poses[name]) for name in names)
    rig = CameraRig(cameras, detections.boards[0].unit)
    return rig, *_board_poses(detections, rig, views)


def board_poses(detections: BoardDetections, rig: CameraRig) -> tuple[Array, Array]:
    """world_from_board R (frames, boards, 3, 3), t (frames, boards, 3) of a known rig, NaN where no view gives a pose.

    Each is the pose that a single view proposes and all views contradict least, a start for an adjustment.
    """
    views = [board_views(detections, camera.name, camera.intrinsics) for camera in rig]
    return _board_poses(detections, rig, views)


def camera_graph(detections: BoardDetections) -> networkx.Graph:
    """Cameras, linked where both see a board at once: edge attribute `common` = frames in which both see one well
    enough."""
    import networkx as nx

    board = np.asarray(detections.board_index)
    seen = np.isfinite(detections.corners[..., 0])
    enough = np.stack(
        [seen[..., board == b].sum(axis=-1) >= MIN_CORNERS for b in range(len(detections.boards))], axis=-1
    )
    graph: networkx.Graph = nx.Graph()
    graph.add_nodes_from(detections.view_names)
    for a, b in combinations(range(len(seen)), 2):
        common = int((enough[a] & enough[b]).any(axis=-1).sum())
        if common:
            graph.add_edge(detections.view_names[a], detections.view_names[b], common=common)
    return graph


def _middles(detections: BoardDetections) -> Array:
    """(boards, 3) the middle of each board in its own frame."""
    index, points = np.asarray(detections.board_index), np.asarray(detections.object_points, dtype=np.float64)
    return np.stack([points[index == b].mean(axis=0) for b in range(len(detections.boards))])


def _graph(names: list[str], views: list[BoardViews], middles: Array, options: ExtrinsicsOptions) -> networkx.Graph:
    """Cameras as nodes; an edge holds the pose b_from_a of two cameras (in the order of names) and the corners behind
    it."""
    import networkx as nx

    graph: networkx.Graph = nx.Graph()
    graph.add_nodes_from(names)
    for a, b in combinations(range(len(names)), 2):
        pair = _relative_pose(views[a], views[b], middles, options)
        if pair is not None:
            graph.add_edge(names[a], names[b], first=names[a], R=pair[0], t=pair[1], weight=pair[2])
    return graph


def _relative_pose(
    a: BoardViews, b: BoardViews, middles: Array, options: ExtrinsicsOptions
) -> tuple[Array, Array, float] | None:
    """b_from_a (R, t) on which most common boards agree, and the number of corners behind it; None without a common
    board.

    Every combination of the two poses in both views of every common board is a candidate; the one that the boards
    contradict least (truncated squares) wins, and the boards within the gates are averaged. No random sampling.
    """
    common = np.isfinite(a.error[..., 0]) & np.isfinite(b.error[..., 0])
    if not common.any():
        return None
    corners = np.minimum(a.n_corners, b.n_corners)
    frame, board = _best_spread(common, corners, options.max_common)
    Ra, ta, Rb, tb = a.R[frame, board], a.t[frame, board], b.R[frame, board], b.t[frame, board]  # (n, 2, ...)
    middle_a = apply(Ra, ta, middles[board][:, None, None])[:, :, 0]
    middle_b = apply(Rb, tb, middles[board][:, None, None])[:, :, 0]
    a_inverse, a_shift = invert(Ra, ta)
    R, t = compose(Rb[:, None], tb[:, None], a_inverse[:, :, None], a_shift[:, :, None])  # (n, i in a, j in b, ...)
    candidate_R, candidate_t = R.reshape(-1, 3, 3), t.reshape(-1, 3)
    whole = np.isfinite(candidate_t).all(axis=1)
    candidate_R, candidate_t = candidate_R[whole], candidate_t[whole]

    # how far each candidate (k) puts the board of frame (n), seen by a in pose i, from where b sees it in pose j
    turned = np.einsum("kxy,nijxy->knij", candidate_R, R)  # trace of candidate^T R
    angle = np.arccos(np.clip((turned - 1.0) / 2.0, -1.0, 1.0))
    moved = np.einsum("kxy,niy->knix", candidate_R, middle_a) + candidate_t[:, None, None]
    apart = np.linalg.norm(moved[:, :, :, None] - middle_b[None, :, None], axis=-1)
    apart /= np.linalg.norm(middle_b, axis=-1)[:, None]
    away = (angle / options.rotation_gate) ** 2 + (apart / options.distance_gate) ** 2
    away = np.where(np.isfinite(away), away, np.inf).reshape(len(away), len(frame), 4)
    weight = corners[frame, board].astype(np.float64)
    best = int(np.argmin(np.minimum(away.min(axis=2), 1.0) @ weight))
    agree = away[best].min(axis=1) < 1.0
    i, j = np.divmod(away[best].argmin(axis=1), 2)
    rows = np.flatnonzero(agree)
    i, j, weight = i[rows], j[rows], weight[rows]
    rotation = mean_rotation(R[rows, i, j], weight)
    shift = np.average(middle_b[rows, j] - middle_a[rows, i] @ rotation.T, axis=0, weights=weight)
    share = float(weight.sum() / corners[frame, board].sum())
    return rotation, shift, share * float(corners[common].sum())


def _best_spread(
    common: NDArray[np.bool_], corners: NDArray[np.int64], n: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(frame, board) of at most n common boards: those with the most corners, ties spread evenly over time."""
    frame, board = np.nonzero(common)
    count = corners[frame, board]
    if len(frame) > n:
        keep = np.flatnonzero(count >= np.sort(count)[-n])
        keep = keep[np.linspace(0, len(keep) - 1, n).round().astype(int)]
        frame, board = frame[keep], board[keep]
    return frame, board


def _cut_off(parts: list[list[str]]) -> str:
    parts = sorted(parts, key=len, reverse=True)
    main, rest = ", ".join(parts[0]), "; ".join(", ".join(part) for part in parts[1:])
    return (
        f"cameras cut off: {rest} (no board is seen by one of them and one of {main} in the same frame, with at least "
        f"{MIN_CORNERS} corners in each); expected every camera to be linked with the others; film the board where a "
        "camera of each group sees it at the same time, or check that the frames of these cameras belong together"
    )


def _board_poses(detections: BoardDetections, rig: CameraRig, views: list[BoardViews]) -> tuple[Array, Array]:
    """world_from_board of every frame and board: of all poses that the views propose, the one with the least pixel
    error in all views. The error of a corner counts up to a tenth of the image's width, so one wrong view cannot
    decide."""
    shape = views[0].n_corners.shape
    best_R, best_t, least = np.full((*shape, 3, 3), np.nan), np.full((*shape, 3), np.nan), np.full(shape, np.inf)
    for camera, proposal in zip(rig, views, strict=True):
        world_from_cam = invert(camera.R, camera.t)
        for i in range(2):
            here = np.nonzero(np.isfinite(proposal.error[..., i]))
            R, t = compose(*world_from_cam, proposal.R[here][:, i], proposal.t[here][:, i])
            cost = _cost(detections, rig, here, R, t)
            better = cost < least[here]
            where = tuple(index[better] for index in here)
            best_R[where], best_t[where], least[where] = R[better], t[better], cost[better]
    return best_R, best_t


def _cost(detections: BoardDetections, rig: CameraRig, here: tuple[NDArray[np.intp], ...], R: Array, t: Array) -> Array:
    """(n,) summed pixel error over all views of boards here = (frame, board) at world_from_board (R (n, 3, 3), t (n,
    3))."""
    frame, board = here
    cost = np.zeros(len(frame))
    index = np.asarray(detections.board_index)
    for b in np.unique(board):
        rows, corners = np.flatnonzero(board == b), np.flatnonzero(index == b)
        world = apply(R[rows], t[rows], np.asarray(detections.object_points, dtype=np.float64)[corners])
        for v, camera in enumerate(rig):
            xy = detections.corners[v][frame[rows][:, None], corners]
            most = camera.intrinsics.size[0] / 10
            error = np.linalg.norm(camera.project(world) - xy, axis=-1)
            error = np.where(np.isfinite(error), np.minimum(error, most), most)
            cost[rows] += np.where(np.isfinite(xy[..., 0]), error, 0.0).sum(axis=1)
    return cost
