"""What would a known rig see of a known board? Rigs, board motions, noisy detections and rendered images."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.board import Board, BoardDetections, Pattern
from calibration.camera import Camera, Intrinsics, rays_from_pixels
from calibration.rig import CameraRig
from calibration.transforms import compose, exp_so3, log_so3

__all__ = [
    "board_motion", "board_path", "board_visible", "looking", "render_board", "ring_rig", "simulate_detections",
    "simulate_tracks",
]  # fmt: skip

Float = NDArray[np.float64]

_SUPERSAMPLING = 3
_TEXTURE_PX = 48  # per square: finer than the image even where a square is 100 px wide
_RIM = 0.5  # white rim around the board, in squares
_PAPER, _INK, _BACK = 225.0, 30.0, 150.0
_LENS_BLUR_PX, _NOISE = 0.6, 2.0


def ring_rig(
    n_cameras: int,
    rng: np.random.Generator,
    *,
    radius: float,
    height: float,
    size: tuple[int, int] = (960, 720),
    focal_px: float = 900.0,
    distortion: tuple[float, ...] = (-0.15, 0.05, 1e-3, -5e-4, 0.0),
    off_centre_px: float = 15.0,
    unit: str = "mm",
    model: str = "pinhole",
) -> CameraRig:
    """Cameras on a ring of this radius and height about the z axis, looking at the origin; image down is world down.

    Each differs a little: focal length by up to 3 %, distortion by up to 20 %, principal point by up to
    off_centre_px from
    the image's centre, place by up to 5 % of the radius. Names are cam0, cam1, ...
    """
    cameras = []
    for i in range(n_cameras):
        angle = 2 * np.pi * i / n_cameras
        centre = np.array([radius * np.cos(angle), radius * np.sin(angle), height]) + 0.05 * radius * rng.uniform(
            -1, 1, 3
        )
        R = looking(-centre)
        focal = focal_px * rng.uniform(0.97, 1.03)
        cx, cy = (np.array(size) - 1) / 2 + off_centre_px * rng.uniform(-1, 1, 2)
        K = np.array([[focal, 0.0, cx], [0.0, focal, cy], [0.0, 0.0, 1.0]])
        dist = np.array(distortion) * rng.uniform(0.8, 1.2, len(distortion))
        cameras.append(Camera(f"cam{i}", Intrinsics(size, K, dist, model), R, -R @ centre))
    return CameraRig(tuple(cameras), unit)


def looking(direction: Float) -> Float:
    """(3, 3) cam_from_world of a camera that looks along direction (3,), world z being up in its image; y, where it
    looks straight up or down."""
    forward = direction / np.linalg.norm(direction)
    right = np.cross(forward, [0.0, 0.0, 1.0] if abs(forward[2]) < 0.999 else [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward])


def board_motion(
    rig: CameraRig,
    board: Board,
    n_frames: int,
    rng: np.random.Generator,
    *,
    reach: float,
    tilt: float = 0.8,
    roll: float = np.pi,
) -> tuple[Float, Float]:
    """world_from_board R (frames, 3, 3), t (frames, 3): the board's middle within `reach` of the origin, shown to
    two neighbours at a time.

    The board faces the direction between two cameras that stand next to each other, a different pair each frame,
    turned away
    from it by up to `tilt` radians about a random axis in its plane and by up to `roll` about its normal.
    """
    centres = rig.centers
    middle = np.array([*board.object_points.mean(axis=0)[:2], 0.0])
    R, t = np.empty((n_frames, 3, 3)), np.empty((n_frames, 3))
    for frame in range(n_frames):
        place = reach * rng.uniform(-1, 1, 3) / np.sqrt(3)
        one, other = centres[frame % len(rig)], centres[(frame + 1) % len(rig)]
        share = rng.uniform(0.2, 0.8)
        towards = share * one + (1 - share) * other - place
        facing = -towards / np.linalg.norm(towards)
        across = np.cross([0.0, 0.0, 1.0] if abs(facing[2]) < 0.9 else [1.0, 0.0, 0.0], facing)
        across /= np.linalg.norm(across)
        plain = np.stack([across, np.cross(facing, across), facing], axis=1)
        axis = rng.uniform(0, 2 * np.pi)
        turn = tilt * np.sqrt(rng.uniform()) * np.array([np.cos(axis), np.sin(axis), 0.0])
        R[frame] = plain @ exp_so3(turn) @ exp_so3(np.array([0.0, 0.0, rng.uniform(-roll, roll)]))
        t[frame] = place - R[frame] @ middle
    return R, t


def board_path(
    rig: CameraRig,
    board: Board,
    n_frames: int,
    rng: np.random.Generator,
    *,
    reach: float,
    tilt: float = 0.8,
    every: int = 15,
) -> Callable[[ArrayLike], tuple[Float, Float]]:
    """A board carried about as by hand: from one place of `board_motion` to the next in `every` frames, resting at
    each.

    Returns a function of times (n,) in frames, 0 to n_frames - 1 (beyond, the board rests): world_from_board R (n, 3,
    3), t (n, 3).
    """
    n_places = int(np.ceil(n_frames / every)) + 1
    R, t = board_motion(rig, board, n_places, rng, reach=reach, tilt=tilt, roll=0.6)
    middle = np.array([*board.object_points.mean(axis=0)[:2], 0.0])
    place, turn = t + R @ middle, log_so3(np.swapaxes(R[:-1], -1, -2) @ R[1:])

    def at(times: ArrayLike) -> tuple[Float, Float]:
        now = np.clip(np.asarray(times, dtype=np.float64) / every, 0.0, n_places - 1.0)
        leg = np.minimum(now.astype(int), n_places - 2)
        share = (now - leg)[:, None]
        share = share**2 * (3 - 2 * share)
        R_now = R[leg] @ exp_so3(share * turn[leg])
        return R_now, place[leg] + share * (place[leg + 1] - place[leg]) - R_now @ middle

    return at


def board_visible(
    camera: Camera, board: Board, R: Float, t: Float, *, steepest: float = np.deg2rad(70)
) -> NDArray[np.bool_]:
    """(frames, corners) whether the camera sees a corner of the board at world_from_board R (frames, 3, 3), t
    (frames, 3).

    It does inside the image, from where its side is printed, and under an angle of at most `steepest` to the board's
    normal.
    """
    world = np.einsum("fij,cj->fci", R, board.object_points) + t[:, None]
    sight = world - camera.center
    sight /= np.linalg.norm(sight, axis=-1, keepdims=True)
    behind = np.where(board.side == 0, 1.0, -1.0)
    front = np.einsum("fci,fi->fc", sight, R[:, :, 2]) * behind > np.cos(steepest)
    xy = camera.project(world)
    inside = ((xy > -0.5) & (xy < np.array(camera.intrinsics.size) - 0.5)).all(axis=-1)
    return front & inside


def simulate_detections(
    rig: CameraRig,
    board: Board,
    R: Float,
    t: Float,
    rng: np.random.Generator,
    *,
    noise_px: float = 0.3,
    dropout: float = 0.05,
) -> BoardDetections:
    """Corners of the board at world_from_board R (frames, 3, 3), t (frames, 3), with Gaussian noise of this SD per
    axis.

    A share `dropout` of the visible corners is missing. sigma is the noise that was put in.
    """
    frames, corners = len(R), board.n_corners
    world = np.einsum("fij,cj->fci", R, board.object_points) + t[:, None]
    xy = rig.project(world) + noise_px * rng.normal(size=(len(rig), frames, corners, 2))
    seen = np.stack([board_visible(camera, board, R, t) for camera in rig])
    seen &= rng.uniform(size=seen.shape) >= dropout
    return BoardDetections(
        view_names=tuple(rig.names),
        boards=(board,),
        sizes=np.array([camera.intrinsics.size for camera in rig]),
        frame=np.arange(frames),
        time=np.full(frames, np.nan),
        corners=np.where(seen[..., None], xy, np.nan),
        sigma=np.where(seen, max(noise_px, 1e-3), np.nan),
        board_index=np.zeros(corners, dtype=np.int64),
    )


def render_board(
    camera: Camera, board: Board, R: Float, t: Float, rng: np.random.Generator, *, pattern: Pattern | None = None
) -> NDArray[np.uint8]:
    """RGB (height, width, 3) uint8: the camera's picture of the board at world_from_board R (3, 3), t (3,).

    Every pixel is the mean of nine rays, distorted as the lens does, then blurred by the lens, unevenly lit, and
    noisy. From behind
    the board is a grey sheet, unless it is printed on both sides.
    """
    width, height = camera.intrinsics.size
    across = np.cos((np.arange(width) - rng.uniform(0, width)) / width)
    down = np.cos((np.arange(height) - rng.uniform(0, height)) / height)
    light = (0.8 + 0.2 * np.outer(down, across)).astype(np.float32)
    wall = rng.uniform(70, 120, (9, 12)).astype(np.float32)
    picture = cv2.resize(wall, (width, height), interpolation=cv2.INTER_CUBIC)
    board, R, t = _facing(camera, board, R, t)
    region = _region(camera, board, R, t)
    if region is not None:
        rows, columns = region
        sheet, cover = _sheet(camera, board, R, t, region, pattern or Pattern())
        picture[rows, columns] = picture[rows, columns] * (1 - cover) + sheet
    picture = cv2.GaussianBlur(picture * light, (0, 0), _LENS_BLUR_PX)
    picture += np.float32(_NOISE) * rng.standard_normal(picture.shape, dtype=np.float32)
    grey = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _facing(camera: Camera, board: Board, R: Float, t: Float) -> tuple[Board, Float, Float]:
    """The side of a board that is turned to the camera, and where that is; the front where none is."""
    front, *rest = board.sides
    if rest:
        corner, right, down = board.object_points[board.side == 1][[0, 1, board.columns - 1]]
        x, y = (right - corner) / board.square_length, (down - corner) / board.square_length
        turn = np.stack((x, y, np.cross(x, y)), axis=1)
        back_R, back_t = compose(R, t, turn, corner - turn @ rest[0].object_points[0])
        if (back_t - camera.center) @ back_R[:, 2] > 0:
            return rest[0], back_R, back_t
    return front, R, t


def _outline(board: Board) -> Float:
    """(n, 3) points around the board's white rim, in its own frame."""
    low, high = -_RIM, np.array([board.columns, board.rows]) + _RIM
    along = np.linspace(0, 1, 20)
    x, y = low + along * (high[0] - low), low + along * (high[1] - low)
    edges = [(x, np.full(20, low)), (x, np.full(20, high[1])), (np.full(20, low), y), (np.full(20, high[0]), y)]
    flat = np.concatenate([np.stack(edge, axis=-1) for edge in edges]) * board.square_length
    return np.concatenate([flat, np.zeros((len(flat), 1))], axis=1)


def _region(camera: Camera, board: Board, R: Float, t: Float) -> tuple[slice, slice] | None:
    """The part of the image (rows, columns) that may show the board, None where it is out of sight."""
    xy = camera.project(_outline(board) @ R.T + t)
    width, height = camera.intrinsics.size
    if not np.isfinite(xy).all():
        return None
    x0, y0 = np.maximum(np.floor(xy.min(axis=0)).astype(int) - 1, 0)
    x1, y1 = np.minimum(np.ceil(xy.max(axis=0)).astype(int) + 2, (width, height))
    return (slice(y0, y1), slice(x0, x1)) if x0 < x1 and y0 < y1 else None


def _sheet(
    camera: Camera, board: Board, R: Float, t: Float, region: tuple[slice, slice], pattern: Pattern
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Brightness times coverage, and coverage (0..1), of the board's sheet in the region."""
    rows, columns = region
    y, x = np.mgrid[rows, columns].astype(np.float64)
    rays = rays_from_pixels(np.stack([x, y], axis=-1), camera.intrinsics)
    cam_R, cam_t = camera.R @ R, camera.R @ t + camera.t
    towards = rays @ cam_R[:, 2]
    depth = (cam_R[:, 2] @ cam_t) / np.where(towards == 0, np.nan, towards)
    flat = ((rays * depth[..., None] - cam_t) @ cam_R[:, :2]) / board.square_length
    flat = np.where((depth > 0)[..., None], flat, -1e6).astype(np.float32)
    flat = cv2.resize(flat, None, fx=_SUPERSAMPLING, fy=_SUPERSAMPLING, interpolation=cv2.INTER_LINEAR)
    on = ((flat > -_RIM) & (flat < np.array([board.columns, board.rows], dtype=np.float32) + _RIM)).all(axis=-1)
    if cam_R[:, 2] @ cam_t > 0:
        page = board.image(_TEXTURE_PX, pattern=pattern).astype(np.float32)
        page = np.pad(page, round(_RIM * _TEXTURE_PX), constant_values=0 if pattern.inverted else 255)
        place = (flat + np.float32(_RIM)) * _TEXTURE_PX - np.float32(0.5)
        shown = cv2.remap(page, place, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        shown = np.float32(_INK) + np.float32((_PAPER - _INK) / 255.0) * shown
    else:
        shown = np.full(on.shape, _BACK, dtype=np.float32)
    size = (x.shape[1], x.shape[0])
    cover = cv2.resize(on.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return cv2.resize(np.where(on, shown, np.float32(0)), size, interpolation=cv2.INTER_AREA), cover


def simulate_tracks(
    rig: CameraRig,
    points: Float,
    rng: np.random.Generator,
    *,
    kind: NDArray[np.intp] | None = None,
    noise_px: float = 2.5,
    correlation: float = 0.8,
    bias_px: tuple[float, float] = (1.0, 3.0),
    outliers: float = 0.05,
    missing: float = 0.15,
) -> Float:
    """(views, frames, points, 2) px: what a network that was trained by hand-made labels finds of points (frames,
    points, 3); NaN where it finds nothing or the point is outside the image.

    noise_px: SD per axis, with this correlation from one frame to the next. bias_px: every kind (points,) of point
    (default: every point) is off in each view by a distance in this range, always the same. outliers, missing: shares.
    """
    kind = np.arange(points.shape[1]) if kind is None else kind
    xy = rig.project(points)
    views, frames, n, _ = xy.shape
    fresh = rng.normal(size=xy.shape)
    noise = fresh.copy()
    for f in range(1, frames):
        noise[:, f] = correlation * noise[:, f - 1] + np.sqrt(1 - correlation**2) * fresh[:, f]
    angle, length = (
        rng.uniform(0, 2 * np.pi, (views, int(kind.max()) + 1)),
        rng.uniform(*bias_px, (views, int(kind.max()) + 1)),
    )
    bias = (length * np.array([np.cos(angle), np.sin(angle)])).transpose(1, 2, 0)[:, kind]
    found = xy + noise_px * noise + bias[:, None]
    wrong = rng.uniform(size=(views, frames, n)) < outliers
    found[wrong] += rng.normal(0, 20 * noise_px, (int(wrong.sum()), 2))
    size = np.array([camera.intrinsics.size for camera in rig])[:, None, None]
    lost = (rng.uniform(size=wrong.shape) < missing) | ((found < 0) | (found > size - 1)).any(axis=-1)
    return np.where(lost[..., None], np.nan, found)
