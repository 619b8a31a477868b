"""Where is the world's origin, which way is up, is its unit right? A rig brought onto a board, points or a floor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.board import BoardDetections
from calibration.bundle import BundleOptions, adjust_boards, board_system
from calibration.camera import INTRINSIC_PARAMETERS
from calibration.errors import InputError, nearest_name
from calibration.geometry import TriangulationOptions, points_by_rig, triangulate_points
from calibration.rig import CameraRig
from calibration.transforms import compose, invert, log_so3, similarity, skew

__all__ = ["Distance", "KnownDistance", "World", "WorldOptions", "WorldPoint", "measure_distance", "on_board",
           "on_floor", "on_points", "place_rig"]  # fmt: skip

Array = NDArray[np.float64]
Similarity = tuple[float, Array, Array]

STEP = 1e-6
"""Of the points' extent: how far each is moved to see how the world follows."""
FLAT = 1e-3
"""Points whose second extent is less than this share of the first lie on one line."""


@dataclass(frozen=True)
class WorldPoint:
    """pixels: {camera: (x, y) px} of one point in two cameras or more. position: its place in the new world, in the
    rig's unit; None = not known."""

    pixels: Mapping[str, tuple[float, float]]
    position: tuple[float, float, float] | None = None

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


@dataclass(frozen=True)
class KnownDistance:
    """between: the names of two points. length: what lies between them, in the rig's unit."""

    between: tuple[str, str]
    length: float

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


@dataclass(frozen=True)
class WorldOptions:
    """One way to say where the world is, or none; and distances that check its scale.

    floor_frame: frame of the calibration's footage in which the board lies on the floor. points: by name; those with a
    position define the world. floor: names of at least three points on the floor. free_scale: the positions set the
    scale too. noise_px: SD of a point's pixels.
    """

    floor_frame: int | None = None
    points: dict[str, WorldPoint] = field(default_factory=dict)
    floor: tuple[str, ...] = ()
    free_scale: bool = False
    distances: tuple[KnownDistance, ...] = ()
    noise_px: float = 1.0

    def __post_init__(self) -> None:
        placed = any(point.position is not None for point in self.points.values())
        ways = {"floor_frame": self.floor_frame is not None, "positions of points": placed, "floor": bool(self.floor)}
        told = [name for name, given in ways.items() if given]
        if len(told) > 1:
            raise InputError(f"points: expected one way to say where the world is, got {' and '.join(told)}")
        for name in (*self.floor, *(n for known in self.distances for n in known.between)):
            if name not in self.points:
                raise InputError(f"points: '{name}' is used but not given; {nearest_name(name, self.points)}")
        for known in self.distances:
            if not known.length > 0:
                raise InputError(f"distances: expected a length above 0, got {known.length}")


@dataclass(frozen=True)
class Distance:
    """A distance as measured by the rig, its standard deviation, and what it should be; all in the rig's unit."""

    between: tuple[str, str]
    measured: float
    sd: float
    known: float

    def text(self, unit: str) -> str:
        """One line for people."""
        off = self.measured - self.known
        return (
            f"{' - '.join(self.between)}: {self.measured:.4g} ± {self.sd:.2g} {unit}, known {self.known:.4g} {unit} "
            f"({off / self.known:+.2%}, {abs(off) / self.sd:.1f} SD)"
        )


@dataclass(frozen=True, eq=False)
class World:
    """rig: in the new world. scale: by which lengths were multiplied. residuals: {point: distance from where it should
    be, in the new world's unit}."""

    rig: CameraRig
    scale: float = 1.0
    residuals: Mapping[str, float] = field(default_factory=dict)


def place_rig(
    rig: CameraRig, options: WorldOptions, board: Callable[[], World] | None = None
) -> tuple[CameraRig, dict[str, object]]:
    """The rig in the world that the options describe, and what is to be said of it, ready for JSON.

    board: `on_board` of the footage, for options.floor_frame. Raises InputError.
    """
    world = World(rig)
    said: dict[str, object] = {}
    names = list(options.points)
    xy = _pixels(rig, options.points)
    if options.floor_frame is not None:
        if board is None:
            raise InputError(
                "world.floor_frame: expected footage of the board, got a finished calibration; give points"
            )
        world, said["z is up from"] = board(), f"the board in frame {options.floor_frame}"
    elif options.floor:
        rows = [names.index(name) for name in options.floor]
        world = on_floor(rig, xy[:, rows], options.floor, noise_px=options.noise_px)
        said["z is up from"] = f"the floor through {', '.join(options.floor)}"
    elif placed := [name for name in names if options.points[name].position is not None]:
        rows = [names.index(name) for name in placed]
        known = [options.points[name].position for name in placed]
        told = {"free_scale": options.free_scale, "noise_px": options.noise_px}
        world = on_points(rig, xy[:, rows], np.array(known, dtype=np.float64), placed, **told)  # type: ignore[arg-type]
        said["points"] = ", ".join(placed)
        said["lengths multiplied by"] = world.scale
    if world.residuals:
        said[f"distance from the world's plane or position, {rig.unit}"] = dict(world.residuals)
    checks = []
    for distance in options.distances:
        pair = [names.index(name) for name in distance.between]
        checks.append(measure_distance(world.rig, xy[:, pair], distance, noise_px=options.noise_px).text(rig.unit))
    return world.rig, said | ({"known distances": checks} if checks else {})


def on_board(
    rig: CameraRig, board_R: ArrayLike, board_t: ArrayLike, detections: BoardDetections, frame: int, board: int = 0
) -> World:
    """The rig in the world of a board that lies on the floor: its plane is z = 0 with the cameras above, x runs along
    its rows from column to column, the origin is its first inner corner; of a board with two sides, of the upper one.

    board_R (frames, boards, 3, 3), board_t (frames, boards, 3): world_from_board, as `calibrate_rig` finds them.
    frame: as in detections.frame. Raises InputError where the board was not placed in that frame.
    """
    row = np.flatnonzero(np.asarray(detections.frame) == frame)
    R, t = np.full_like(board_R, np.nan), np.full_like(board_t, np.nan)
    if len(row):
        R[row[0], board], t[row[0], board] = np.asarray(board_R)[row[0], board], np.asarray(board_t)[row[0], board]
    if not np.isfinite(t).any():
        placed = np.asarray(detections.frame)[np.isfinite(np.asarray(board_t)[:, board, 0])]
        near = placed[np.argsort(np.abs(placed - frame), kind="stable")[:3]]
        raise InputError(
            f"world.floor_frame: expected a frame in which the board is seen well enough, got {frame}; the nearest "
            f"are {', '.join(map(str, sorted(near)))}"
        )
    found = adjust_boards(rig, R, t, detections, BundleOptions(fixed=rig.names))
    everything = dict.fromkeys(rig.names, np.ones(len(INTRINSIC_PARAMETERS), dtype=bool))
    system = board_system(rig, found.board_R, found.board_t, detections, BundleOptions(free=everything, fixed=()))
    inverse = np.linalg.inv(system.H_bb[0])
    R, t = found.board_R[row[0], board], found.board_t[row[0], board]
    above = np.sum((rig.centers - t) @ R[:, 2]) > 0
    described = detections.boards[board]
    shown = described.side == (len(described.sides) - 1 if above else 0)
    first, second = described.object_points[shown][:2]
    x, z = (second - first) / described.square_length, np.array([0.0, 0.0, 1.0 if above else -1.0])
    new_R = np.stack((x, np.cross(z, x), z))
    new_t = -new_R @ first
    to_new, shift = compose(new_R, new_t, *invert(R, t))
    world = np.zeros((7, 6))  # how the new world follows a turn and a shift of the board
    world[:3, :3] = world[3:6, 3:] = -to_new
    world[3:6, :3] = -skew(new_t) @ to_new
    by_rig, spread = -world @ inverse @ system.H_ab[0].T, found.variance * world @ inverse @ world.T
    return World(rig.moved(1.0, to_new, shift, by_rig=by_rig, spread=spread))


def on_points(
    rig: CameraRig,
    xy: ArrayLike,
    known: ArrayLike,
    names: Sequence[str] = (),
    *,
    free_scale: bool = False,
    noise_px: float = 1.0,
) -> World:
    """The rig in the world in which points are where they are known to be, by least squares (Umeyama 1991).

    xy: (views, points, 2) px, NaN = not seen. known: (points, 3). names: for residuals and messages. free_scale: the
    known positions set the scale too, and a calibrated unit gives way. Raises InputError for fewer than three points,
    points on a line, and points seen by fewer than two cameras.
    """
    known = np.asarray(known, dtype=np.float64)
    names = names or [str(i) for i in range(len(known))]

    def world(points: Array) -> Similarity:
        scale, R, t = similarity(points, known)
        return (scale, R, t) if free_scale else (1.0, R, known.mean(axis=0) - R @ points.mean(axis=0))

    return _moved(rig, xy, names, world, noise_px, lambda placed: np.linalg.norm(placed - known, axis=1))


def on_floor(rig: CameraRig, xy: ArrayLike, names: Sequence[str] = (), *, noise_px: float = 1.0) -> World:
    """The rig in the world whose plane z = 0 is nearest to at least three points, cameras above; the first point is
    over the origin, the second lies in the direction of x.

    xy, names: as in `on_points`; residuals are heights. Raises InputError as there.
    """
    xy = np.asarray(xy, dtype=np.float64)
    names = names or [str(i) for i in range(xy.shape[1])]
    cameras = rig.centers.mean(axis=0)

    def world(points: Array) -> Similarity:
        middle = points.mean(axis=0)
        z = np.linalg.svd(points - middle)[2][2]
        z = z if z @ (cameras - middle) > 0 else -z
        x = points[1] - points[0]
        x = x - (x @ z) * z
        x /= np.linalg.norm(x)
        R = np.stack((x, np.cross(z, x), z))
        origin = points[0] - ((points[0] - middle) @ z) * z
        return 1.0, R, -R @ origin

    return _moved(rig, xy, names, world, noise_px, lambda placed: np.abs(placed[:, 2]))


def measure_distance(rig: CameraRig, xy: ArrayLike, known: KnownDistance, *, noise_px: float = 1.0) -> Distance:
    """How long the rig finds what lies between two points, xy (views, 2, 2) px; the SD is from pixels and rig alike."""
    points, spread, by_rig = _triangulated(rig, xy, known.between, noise_px)
    apart = points[1] - points[0]
    length = float(np.linalg.norm(apart))
    along = apart / length
    variance = along @ (spread[0] + spread[1]) @ along
    if rig.covariance is not None:
        slope = along @ (by_rig[1] - by_rig[0])
        variance += slope @ rig.covariance @ slope
    return Distance(known.between, length, float(np.sqrt(variance)), known.length)


def _pixels(rig: CameraRig, points: Mapping[str, WorldPoint]) -> Array:
    """(views, points, 2) px; NaN where a point has none. Raises InputError for an unknown camera."""
    xy = np.full((len(rig), len(points), 2), np.nan)
    for i, (name, point) in enumerate(points.items()):
        for camera, pixel in point.pixels.items():
            if camera not in rig.names:
                near = nearest_name(camera, rig.names)
                raise InputError(f"world.points.{name}.pixels: camera '{camera}' is not in the rig; {near}")
            xy[rig.index(camera), i] = pixel
    return xy


def _triangulated(rig: CameraRig, xy: ArrayLike, names: Sequence[str], noise_px: float) -> tuple[Array, Array, Array]:
    """Points (n, 3), covariance (n, 3, 3) for an exact rig, derivative (n, 3, 18 V) by the rig's parameters."""
    found = triangulate_points(xy, rig, options=TriangulationOptions(noise_px=noise_px))
    for name, lost in zip(names, np.isnan(found.points[:, 0]), strict=True):
        if lost:
            raise InputError(f"world: point '{name}': expected pixels in two cameras that agree; add or correct them")
    return found.points, found.covariance, points_by_rig(found.points, found.seen, rig)[0]


def _moved(
    rig: CameraRig,
    xy: ArrayLike,
    names: Sequence[str],
    world: Callable[[Array], Similarity],
    noise_px: float,
    residuals: Callable[[Array], Array],
) -> World:
    """The rig in the world that a function makes of triangulated points, with the covariance that follows from it."""
    if len(names) < 3:
        raise InputError(f"world: expected three points or more, got {', '.join(names) or 'none'}; add points")
    points, spread, by_rig = _triangulated(rig, xy, names, noise_px)
    extent = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    if extent[1] < FLAT * extent[0]:
        raise InputError(f"world: the points {', '.join(names)} lie on one line; add one beside it")
    scale, R, t = world(points)
    follows = np.empty((7, len(points), 3))
    step = STEP * extent[0]
    for i in np.ndindex(points.shape):
        nudge = np.zeros_like(points)
        nudge[i] = step
        ahead, back = (_between((scale, R, t), world(points + sign * nudge)) for sign in (1, -1))
        follows[(slice(None), *i)] = (ahead - back) / (2 * step)
    spread = np.einsum("ani,nij,bnj->ab", follows, spread, follows)
    moved = rig.moved(scale, R, t, by_rig=np.einsum("ani,nip->ap", follows, by_rig), spread=spread)
    left = residuals(scale * points @ R.T + t)
    return World(moved, scale, dict(zip(names, map(float, left), strict=True)))


def _between(one: Similarity, other: Similarity) -> Array:
    """(7,) turn, shift and relative scale that must follow the first similarity to make the second; small."""
    scale, turn = other[0] / one[0], other[1] @ one[1].T
    return np.concatenate((log_so3(turn), other[2] - scale * turn @ one[2], [np.log(scale)]))
