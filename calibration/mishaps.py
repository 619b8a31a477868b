"""What goes wrong when people film boards? Simulated recordings with one mistake each, and without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.board import Board, BoardDetections
from calibration.camera import Camera, Intrinsics
from calibration.rig import CameraRig
from calibration.synthetic import board_path, looking, simulate_detections
from calibration.transforms import exp_so3

__all__ = ["MISHAPS", "Scene", "clean_scene", "filmed"]

Array = NDArray[np.float64]
LAYOUTS = ("ring", "ceiling", "facing", "stereo", "arc")
BOARDS = ((6, 5), (8, 6), (8, 11), (4, 5), (10, 7))


@dataclass(frozen=True, eq=False)
class Scene:
    """A recording: rig, board, its path (function of times in frames), how many frames, px noise, frames/s (NaN: the
    times are not known). detections: what the
    cameras saw. given: intrinsics that the user gives, by camera. kind, cameras: the finding that is due, and whom it
    must name (any of them where `either`); error: words of the InputError that is due instead."""

    rig: CameraRig
    board: Board
    path: Callable[[ArrayLike], tuple[Array, Array]]
    n_frames: int
    noise_px: float
    fps: float
    detections: BoardDetections
    given: dict[str, Intrinsics] = field(default_factory=dict)
    kind: str = ""
    cameras: tuple[str, ...] = ()
    error: str = ""
    what: str = ""


def clean_scene(rng: np.random.Generator, layout: str | None = None, n_cameras: int | None = None) -> Scene:
    """A rig of 2 to 12 cameras filmed as one should: near and far, tilted, over the images, so slowly that nothing
    blurs. 10 to 200 frames, noise 0.1 to 0.5 px."""
    layout = layout or str(rng.choice(LAYOUTS))
    fewest, most = {"ring": (3, 12), "ceiling": (3, 9), "facing": (4, 4), "stereo": (2, 2), "arc": (3, 6)}[layout]
    n = n_cameras or int(rng.integers(fewest, most + 1))
    distance = float(rng.uniform(500, 3000))
    rig = _rig(layout, n, distance, rng)
    columns, rows = BOARDS[rng.integers(len(BOARDS))]
    square = rng.uniform(0.26, 0.36) * distance / np.hypot(columns, rows)
    board = Board(columns, rows, round(float(square), 1))
    n_frames = int(rng.integers(max(10, 9 * n), max(201, 9 * n + 1)))
    every = int(np.clip(n_frames / max(12, 2.5 * n), 1, 12))
    path = board_path(rig, board, n_frames, rng, reach=0.42 * distance, tilt=0.8, every=every)
    noise = float(rng.uniform(0.1, 0.5))
    fps = float(rng.choice([30.0, np.nan]))
    scene = Scene(rig, board, path, n_frames, noise, fps, None)  # type: ignore[arg-type]
    return replace(
        scene, detections=filmed(scene, rng), what=f"{layout} of {n}, {n_frames} frames, {noise:.2f} px, {fps:g}/s"
    )


def filmed(scene: Scene, rng: np.random.Generator, times: Array | None = None, **changed: object) -> BoardDetections:
    """What all cameras see at times (frames,), default 0, 1, 2, ...; changed: other fields of the scene."""
    scene = replace(scene, **changed)  # type: ignore[arg-type]
    R, t = scene.path(_clock(scene) if times is None else times)
    seen = simulate_detections(scene.rig, scene.board, R, t, rng, noise_px=scene.noise_px)
    return replace(seen, time=_clock(scene) / scene.fps)


def _clock(scene: Scene) -> Array:
    """(frames,) times of the frames, in frames."""
    return np.arange(scene.n_frames, dtype=np.float64)


def _rig(layout: str, n: int, distance: float, rng: np.random.Generator) -> CameraRig:
    """Cameras around, above or beside the origin, about `distance` away, each a little different."""
    size = ((1280, 1024), (1280, 720), (960, 720), (1920, 1080))[rng.integers(4)]
    focal = rng.uniform(0.75, 1.3) * size[0]
    k1 = rng.uniform(-0.3, 0.1)
    angle = np.arange(n) * 2 * np.pi / n
    if layout == "ring":
        height = rng.uniform(0.3, 0.8) + (0.5 if n == 3 else 0.0)  # three see one board from above only
        centers = np.stack((np.cos(angle), np.sin(angle), np.full(n, height)), axis=1)
    elif layout == "ceiling":
        across = int(np.ceil(np.sqrt(n)))
        row, column = np.divmod(np.arange(n), across)
        column = np.where(row % 2, across - 1 - column, column)  # back and forth, so that the next one stands beside
        centers = np.stack((0.8 * row / (across - 1) - 0.4, 0.8 * column / (across - 1) - 0.4, np.ones(n)), axis=1)
    elif layout == "facing":
        side = np.array([-0.3, 0.3, 0.3, -0.3])
        centers = np.stack((np.array([1.0, 1.0, -1.0, -1.0]), side, np.full(4, 0.8)), axis=1)
    else:
        spread = rng.uniform(0.3, 0.6) if n == 2 else rng.uniform(0.3, 0.5) * (n - 1)
        angle = np.linspace(-spread / 2, spread / 2, n)
        centers = np.stack((np.cos(angle), np.sin(angle), np.full(n, 0.4)), axis=1)
    centers = distance * (centers / np.linalg.norm(centers, axis=1, keepdims=True) + 0.04 * rng.uniform(-1, 1, (n, 3)))
    cameras = []
    for i, center in enumerate(centers):
        f = focal * rng.uniform(0.93, 1.07)
        cx, cy = (np.array(size) - 1) / 2 + 0.01 * size[0] * rng.uniform(-1, 1, 2)
        dist = np.array([k1, 0.3 * abs(k1), 1e-3, -5e-4, 0.0]) * rng.uniform(0.8, 1.2, 5)
        R = exp_so3(0.05 * rng.uniform(-1, 1, 3)) @ looking(-center)
        lens = Intrinsics(size, np.array([[f, 0.0, cx], [0.0, f, cy], [0.0, 0.0, 1.0]]), dist)
        cameras.append(Camera(f"cam{i}", lens, R, -R @ center))
    return CameraRig(tuple(cameras), "mm")


def _mixed(scene: Scene, view: int, other: BoardDetections, frames: slice = slice(None)) -> BoardDetections:
    """The scene's detections, one camera's in these frames from another filming."""
    corners, sigma = scene.detections.corners.copy(), scene.detections.sigma.copy()
    corners[view, frames], sigma[view, frames] = other.corners[view, frames], other.sigma[view, frames]
    return replace(scene.detections, corners=corners, sigma=sigma)


def _erased(scene: Scene, gone: NDArray[np.bool_]) -> BoardDetections:
    """The scene's detections without corners (views, frames, corners)."""
    corners = np.where(gone[..., None], np.nan, scene.detections.corners)
    return replace(scene.detections, corners=corners, sigma=np.where(gone, np.nan, scene.detections.sigma))


def _with_camera(rig: CameraRig, view: int, camera: Camera) -> CameraRig:
    return CameraRig(tuple(camera if i == view else c for i, c in enumerate(rig)), rig.unit)


def _one(scene: Scene, rng: np.random.Generator) -> tuple[int, str]:
    view = int(rng.integers(len(scene.rig)))
    return view, scene.rig.names[view]


def _shared(scene: Scene, view: int) -> NDArray[np.intp]:
    """Frames in which a camera and another see the board well."""
    seen = np.isfinite(scene.detections.sigma).sum(axis=2) >= 8
    return np.flatnonzero(seen[view] & np.delete(seen, view, axis=0).any(axis=0))


def _midway(scene: Scene, view: int, rng: np.random.Generator) -> int:
    """A frame with a quarter or more of those that a camera shares with others before it, and after it."""
    shared = _shared(scene, view)
    return int(shared[int(rng.uniform(0.25, 0.75) * len(shared))])


def no_board(scene: Scene, rng: np.random.Generator) -> Scene:
    """A camera that never sees the board."""
    view, name = _one(scene, rng)
    gone = np.zeros(scene.detections.sigma.shape, dtype=bool)
    gone[view] = True
    return replace(scene, detections=_erased(scene, gone), cameras=(name,), error="see no board")


def unlinked(scene: Scene, rng: np.random.Generator) -> Scene:
    """A camera that sees the board only while no other does."""
    view, name = _one(scene, rng)
    gone = np.zeros(scene.detections.sigma.shape, dtype=bool)
    alone = rng.uniform(size=scene.n_frames) < 0.3
    gone[:, alone], gone[view] = True, ~alone[:, None]
    return replace(scene, detections=_erased(scene, gone), cameras=(name,), error="cut off")


def hardly_linked(scene: Scene, rng: np.random.Generator) -> Scene:
    """A camera that shares one to three boards with the others."""
    view, name = _one(scene, rng)
    seen = np.isfinite(scene.detections.sigma).sum(axis=2) >= 8
    shared = rng.permutation(_shared(scene, view))[int(rng.integers(1, 4)) :]
    gone = np.zeros(scene.detections.sigma.shape, dtype=bool)
    half = rng.uniform(size=len(shared)) < 0.5
    gone[view, shared[half]] = True
    others = np.arange(len(seen)) != view
    gone[np.ix_(others, shared[~half])] = True
    thin = np.isfinite(scene.detections.sigma).sum(axis=2)[view] < 8
    gone[view, thin] = True
    return replace(scene, detections=_erased(scene, gone), kind="hardly_linked", cameras=(name,))


def collapsed(scene: Scene, rng: np.random.Generator) -> Scene:
    """Two cameras in one place, as when a camera that was carried elsewhere counts for two."""
    view, name = _one(scene, rng)
    near = (view + 1) % len(scene.rig)
    one, other = scene.rig.cameras[view], scene.rig.cameras[near]
    R = exp_so3(np.array([0.06, -0.05, 0.3])) @ other.R
    rig = _with_camera(scene.rig, view, replace(one, R=R, t=-R @ other.center))
    return replace(
        scene, detections=filmed(scene, rng, rig=rig), rig=rig, kind="collapsed", cameras=(name, rig.names[near])
    )


def mirrored(scene: Scene, rng: np.random.Generator) -> Scene:
    """A camera whose software turns the image left to right."""
    view, name = _one(scene, rng)
    corners = scene.detections.corners.copy()
    corners[view, ..., 0] = scene.detections.sizes[view][0] - 1 - corners[view, ..., 0]
    return replace(
        scene, detections=replace(scene.detections, corners=corners), cameras=(name,), error="images are mirrored"
    )


def moved(scene: Scene, rng: np.random.Generator) -> Scene:
    """A camera that was knocked, by 0.5 to 5 degrees and up to 3 % of its distance, midway."""
    view, name = _one(scene, rng)
    camera = scene.rig.cameras[view]
    turn = rng.normal(size=3)
    turn *= np.deg2rad(rng.uniform(0.5, 5)) / np.linalg.norm(turn)
    center = camera.center + 0.03 * np.linalg.norm(camera.center) * rng.uniform(-1, 1, 3)
    R = exp_so3(turn) @ camera.R
    rig = _with_camera(scene.rig, view, replace(camera, R=R, t=-R @ center))
    start = _midway(scene, view, rng)
    detections = _mixed(scene, view, filmed(scene, rng, rig=rig), slice(start, None))
    return replace(scene, detections=detections, kind="moved", cameras=(name,))


def late(scene: Scene, rng: np.random.Generator) -> Scene:
    """A camera that is 1 to 15 frames late or early."""
    view, name = _one(scene, rng)
    delay = int(rng.integers(1, 16)) * int(rng.choice([-1, 1]))
    other = filmed(scene, rng, _clock(scene) - delay)
    return replace(
        scene, detections=_mixed(scene, view, other), kind="out_of_sync", cameras=(name,), what=f"{delay} frames late"
    )


def slightly_late(scene: Scene, rng: np.random.Generator) -> Scene:
    """A camera that is a third to a whole frame late or early."""
    view, name = _one(scene, rng)
    delay = rng.uniform(0.33, 1.0) * rng.choice([-1, 1])
    other = filmed(scene, rng, _clock(scene) - delay)
    return replace(
        scene, detections=_mixed(scene, view, other), kind="out_of_sync", cameras=(name,), what=f"{delay:.2f} late"
    )


def dropped_frames(scene: Scene, rng: np.random.Generator) -> Scene:
    """A camera that drops 1 to 3 frames midway."""
    view, name = _one(scene, rng)
    start = _midway(scene, view, rng)
    other = filmed(scene, rng, _clock(scene) + rng.integers(1, 4))
    detections = _mixed(scene, view, other, slice(start, None))
    return replace(scene, detections=detections, kind="out_of_sync", cameras=(name,))


def jittering(scene: Scene, rng: np.random.Generator) -> Scene:
    """A camera whose frames come at uneven times, by 0.5 to 1.5 frames."""
    view, name = _one(scene, rng)
    times = _clock(scene) + rng.uniform(0.5, 1.5) * rng.normal(size=scene.n_frames)
    detections = _mixed(scene, view, filmed(scene, rng, times))
    return replace(scene, detections=detections, kind="sync_jitter", cameras=(name,))


def stretched_board(scene: Scene, rng: np.random.Generator) -> Scene:
    """A board whose squares are 1.5 to 4 % longer one way than the other."""
    stretch = 1 + rng.uniform(0.015, 0.04) * rng.choice([-1, 1])
    detections = filmed(scene, rng, board=_Warped(scene.board, lambda p, _: p * np.array([1.0, stretch, 1.0])))
    return replace(scene, detections=replace(detections, boards=(scene.board,)), kind="wrong_board_geometry")


def bent_board(scene: Scene, rng: np.random.Generator) -> Scene:
    """A board that sags by 1.5 to 4 % of its length."""
    sag, axis = rng.uniform(0.015, 0.04) * rng.choice([-1, 1]), rng.uniform(0, np.pi)

    def bend(points: Array, size: float) -> Array:
        along = (points - points.mean(axis=0))[:, :2] @ np.array([np.cos(axis), np.sin(axis)]) / (size / 2)
        return points + sag * size * np.stack((np.zeros_like(along), np.zeros_like(along), along**2), axis=1)

    detections = filmed(scene, rng, board=_Warped(scene.board, bend))
    return replace(scene, detections=replace(detections, boards=(scene.board,)), kind="bent_board")


class _Warped(Board):
    """A board whose corners are not where its description says."""

    def __init__(self, board: Board, warp: Callable[[Array, float], Array]) -> None:
        super().__init__(board.columns, board.rows, board.square_length, board.marker_length, board.dictionary)
        points = board.object_points
        object.__setattr__(self, "points", warp(points, float(np.linalg.norm(points[-1] - points[0]))))

    @property
    def object_points(self) -> Array:
        points: Array = self.__dict__["points"]
        return points


def few_tilts(scene: Scene, rng: np.random.Generator) -> Scene:
    """A board held flat before two parallel cameras, at one distance."""
    scene = clean_scene(rng, "stereo")
    one = scene.rig.cameras[0]
    away = float(np.linalg.norm(one.center))
    cameras = tuple(replace(c, R=np.eye(3), t=np.array([0.3 * away * i, 0.0, away])) for i, c in enumerate(scene.rig))
    rig = CameraRig(cameras, "mm")
    middle = np.array([*scene.board.object_points.mean(axis=0)[:2], 0.0])

    def path(times: ArrayLike) -> tuple[Array, Array]:
        times = np.asarray(times, dtype=np.float64)
        turn = 0.02 * np.stack((np.sin(times / 7), np.cos(times / 9), 5 * np.sin(times / 11)), axis=1)
        place = 0.2 * away * np.stack((np.sin(times / 13), np.cos(times / 8), 0.1 * np.sin(times / 5)), axis=1)
        R = exp_so3(turn)
        return R, place - [0.15 * away, 0, 0] - R @ middle

    detections = filmed(scene, rng, rig=rig, path=path)
    return replace(scene, rig=rig, path=path, detections=detections, kind="focal_unknown", cameras=rig.names)


def outlier_frames(scene: Scene, rng: np.random.Generator) -> Scene:
    """A camera that shows another moment in two frames."""
    view, name = _one(scene, rng)
    shared = _shared(scene, view)
    wrong = rng.permutation(shared)[:2]
    corners = scene.detections.corners.copy()
    for frame in wrong:
        other = shared[np.argmax(np.abs(shared - frame))]
        corners[view, frame] = corners[view, other] + scene.noise_px * rng.normal(size=corners.shape[2:])
    sigma = np.where(np.isfinite(corners[..., 0]), scene.noise_px, np.nan)
    detections = replace(scene.detections, corners=corners, sigma=sigma)
    return replace(
        scene, detections=detections, kind="outlier_frames", cameras=(name,), what=f"frames {sorted(map(int, wrong))}"
    )


def blurred(scene: Scene, rng: np.random.Generator) -> Scene:
    """A camera out of focus: corners scatter by 1.5 to 4 px."""
    view, name = _one(scene, rng)
    other = filmed(scene, rng, noise_px=float(rng.uniform(1.5, 4)))
    return replace(scene, detections=_mixed(scene, view, other), kind="blurred", cameras=(name,))


def swapped_names(scene: Scene, rng: np.random.Generator) -> Scene:
    """Intrinsics of two cameras exchanged; their focal lengths differ by 4 to 30 %."""
    a, b = (int(v) for v in rng.permutation(len(scene.rig))[:2])
    names, lens = scene.rig.names, scene.rig.cameras[b].intrinsics
    K = lens.K * np.array([[f := 1 + rng.uniform(0.04, 0.3), 1, 1], [1, f, 1], [1, 1, 1]])
    focal = scene.rig.cameras[a].intrinsics.K[0, 0] / lens.K[0, 0]
    K[[0, 1], [0, 1]] *= focal
    rig = _with_camera(scene.rig, b, replace(scene.rig.cameras[b], intrinsics=Intrinsics(lens.size, K, lens.dist)))
    given = {camera.name: camera.intrinsics for camera in rig}
    given[names[a]], given[names[b]] = given[names[b]], given[names[a]]
    return replace(
        scene, rig=rig, detections=filmed(scene, rng, rig=rig), given=given, kind="swapped_names",
        cameras=(names[a], names[b]),
    )  # fmt: skip


def wrong_zoom(scene: Scene, rng: np.random.Generator) -> Scene:
    """Given intrinsics whose focal length is 2 to 10 % off in one camera."""
    _, name = _one(scene, rng)
    given = {camera.name: camera.intrinsics for camera in scene.rig}
    f = 1 + rng.uniform(0.02, 0.1) * rng.choice([-1, 1])
    lens = given[name]
    given[name] = Intrinsics(lens.size, lens.K * np.array([[f, 1, 1], [1, f, 1], [1, 1, 1]]), lens.dist)
    return replace(scene, given=given, kind="wrong_intrinsics", cameras=(name,))


def resized(scene: Scene, rng: np.random.Generator) -> Scene:
    """Given intrinsics of images half the size."""
    _, name = _one(scene, rng)
    lens = scene.rig[name].intrinsics
    half = Intrinsics((lens.size[0] // 2, lens.size[1] // 2), lens.K * np.array([[0.5], [0.5], [1.0]]), lens.dist)
    return replace(scene, given={name: half}, cameras=(name,), error="expected images of")


def clipped(scene: Scene, rng: np.random.Generator) -> Scene:
    """Corners in 45 % of one camera's image only, at one of its borders."""
    view, name = _one(scene, rng)
    axis, near = int(rng.integers(2)), bool(rng.integers(2))
    place = scene.detections.corners[view, ..., axis] / scene.detections.sizes[view][axis]
    gone = np.zeros(scene.detections.sigma.shape, dtype=bool)
    gone[view] = place > 0.45 if near else place < 0.55
    return replace(scene, detections=_erased(scene, gone), kind="clipped_coverage", cameras=(name,))


def duplicated(scene: Scene, rng: np.random.Generator) -> Scene:
    """One camera's file under two names."""
    view, name = _one(scene, rng)
    other = (view + 1) % len(scene.rig)
    detections = scene.detections
    corners, sigma, sizes = detections.corners.copy(), detections.sigma.copy(), detections.sizes.copy()
    corners[other], sigma[other], sizes[other] = corners[view], sigma[view], sizes[view]
    detections = replace(detections, corners=corners, sigma=sigma, sizes=sizes)
    return replace(scene, detections=detections, kind="duplicated_video", cameras=(name, scene.rig.names[other]))


def frozen(scene: Scene, rng: np.random.Generator) -> Scene:
    """A camera that repeats one picture from somewhere on."""
    view, name = _one(scene, rng)
    seen = np.isfinite(scene.detections.sigma[view]).sum(axis=1) >= 8
    rows = np.flatnonzero(seen)
    start = int(rows[int(rng.uniform(0.1, 0.6) * len(rows))])
    corners, sigma = scene.detections.corners.copy(), scene.detections.sigma.copy()
    corners[view, start:], sigma[view, start:] = corners[view, start], sigma[view, start]
    detections = replace(scene.detections, corners=corners, sigma=sigma)
    return replace(scene, detections=detections, kind="frozen_video", cameras=(name,))


MISHAPS: tuple[Callable[[Scene, np.random.Generator], Scene], ...] = (
    no_board, unlinked, hardly_linked, collapsed, mirrored, moved, late, slightly_late, dropped_frames, jittering,
    stretched_board, bent_board, few_tilts, outlier_frames, blurred, swapped_names, wrong_zoom, resized, clipped,
    duplicated, frozen,
)  # fmt: skip
