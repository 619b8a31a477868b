"""What does a camera film of simulated animals? Furry bodies on a textured floor, and which keypoints it sees.

Colours are RGB in 0..255 as displayed. A camera's floor and rays are worked out once (`prepare`); a frame then touches
only the rectangles around animals and their shadows, and puts the sensor's noise on everything.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.camera import Camera
from calibration.errors import InputError, nearest_name
from pose3d.bodies import Solids, hiding_depth, seen, solids
from pose3d.poses import Poses
from pose3d.shading import cast, cover, draw, expose, lay_floor, paint
from pose3d.synthetic import QUADRUPED

__all__ = ["Look", "Scene", "Sensor", "film", "film_frame", "make_look", "prepare", "visible_keypoints"]

Float = NDArray[np.float64]
Image = NDArray[np.uint8]
Rectangle = tuple[int, int, int, int]  # left, top, right, bottom; the last two outside

_TEXELS = 1024  # of the floor's texture, per side
_CELLS_PER_RADIUS = 140  # of the shadows' grid, per radius of the floor
_NOISE_SIDE = 32  # of the block of random numbers of which fur is made; shading relies on it
_SENSOR_NUMBERS = 1 << 18  # each row of an image takes a piece of these, from a random place
_SKY, _SKY_COVER = 0.6, 0.75  # half angle of the sky's light in radians, share of it that a body takes from its spot
_MARGIN = 6  # px: the lens blur reaches no further


@dataclass(frozen=True, eq=False)
class Sensor:
    """How one camera records: factor on R, G, B (3,), share of light lost in the corners, SD of the lens blur in px, SD
    of the noise in black, and what is added to it in white; in between by the root of the light.
    """

    gain: Float
    vignetting: float
    blur_px: float
    read_noise: float
    shot_noise: float


@dataclass(frozen=True, eq=False)
class Look:
    """Everything random about a scene's appearance, except where the animals are.

    seed: of the textures. arena: radius of the floor; wall: height of the wall around it, of which the side towards the
    camera is clear; both in the rig's unit. floor, wall_colour, outside: colours (3,). relief: (4,) strength of the
    floor's noise, coarse to fine. litter: shavings, their number per square of side arena / 10, and litter_contrast.
    light: (3,) unit vector to the lamp; softness: half its angle in radians; ambient: share of the light from the whole
    sky; spot: share of light lost at the wall. fur, patch, belly, skin, ear, eye: colours (animals, 3); patches:
    (animals,) share of the fur in the patches' colour; texture: (animals,) strength of the fur's fine pattern. sensors:
    by camera.
    """

    seed: int
    arena: float
    wall: float
    floor: Float
    wall_colour: Float
    outside: Float
    relief: Float
    litter: float
    litter_contrast: float
    light: Float
    softness: float
    ambient: float
    spot: float
    fur: Float
    patch: Float
    belly: Float
    skin: Float
    ear: Float
    eye: Float
    patches: Float
    texture: Float
    sensors: Mapping[str, Sensor]


@dataclass(frozen=True, eq=False)
class Scene:
    """One camera before one floor: all that does not change from frame to frame.

    rays: (h, w, 3) unit, in world axes. ground: (h, w, 2) where they meet the floor, NaN elsewhere. empty, blurred:
    (h, w, 3) light without animals, before and after the lens blur. falloff: (h, w) share of the light that arrives.
    noise: random numbers of the sensor; fur: block of random numbers 0..1.
    """

    camera: Camera
    look: Look
    rays: NDArray[np.float32]
    ground: NDArray[np.float32]
    empty: NDArray[np.float32]
    blurred: NDArray[np.float32]
    falloff: NDArray[np.float32]
    noise: NDArray[np.float32]
    fur: NDArray[np.float32]


def make_look(rng: np.random.Generator, n_animals: int, cameras: Iterable[Camera], *, arena: float = 180.0) -> Look:
    """A look drawn at random; arena is the radius within which the animals walk, in the rig's unit.

    Furs are grey, white, black, brown or fawn, one-coloured or spotted; the floor is one that most of them stand out
    from.
    """
    coats = np.array([[205, 200, 192], [125, 120, 115], [40, 37, 35], [112, 82, 55], [172, 130, 88], [75, 66, 58]])
    drawn = rng.integers(len(coats), size=(n_animals, 2))
    fur, patch = (
        coats[d] * rng.uniform(0.8, 1.15, (n_animals, 1)) * rng.uniform(0.95, 1.05, (n_animals, 3)) for d in drawn.T
    )
    floors = rng.uniform(35, 215, (6, 1)) * (1 + rng.uniform(-0.05, 0.18, (6, 1)) * np.array([1.0, 0.3, -0.8]))
    apart = np.abs(floors.mean(axis=1)[:, None] - fur.mean(axis=1)).min(axis=1)
    pink = np.array([205, 148, 135]) * rng.uniform(0.75, 1.1, (n_animals, 1))
    angle, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 1.4)
    return Look(
        seed=int(rng.integers(2**31)),
        arena=arena * rng.uniform(1.65, 1.95),  # noses, tails and strides reach beyond where the backs are
        wall=arena * rng.uniform(0.0, 0.8),
        floor=floors[np.argmax(apart)],
        wall_colour=rng.uniform(25, 200) * rng.uniform(0.9, 1.1, 3),
        outside=rng.uniform(8, 190) * rng.uniform(0.85, 1.15, 3),
        relief=np.array([0.12, 0.12, 0.12, 0.15]) * rng.uniform(0, 1, 4),
        litter=rng.uniform(0, 12) * (rng.uniform() < 0.7),
        litter_contrast=rng.uniform(0.05, 0.35),
        light=np.array([np.cos(angle) * np.cos(height), np.sin(angle) * np.cos(height), np.sin(height)]),
        softness=rng.uniform(0.03, 0.3),
        ambient=rng.uniform(0.35, 0.7),
        spot=rng.uniform(0, 0.4),
        fur=fur,
        patch=np.where(rng.uniform(size=(n_animals, 1)) < 0.5, fur, patch),
        belly=fur + rng.uniform(0, 0.6, (n_animals, 1)) * (215 - fur),
        skin=pink + rng.normal(0, 8, (n_animals, 3)),
        ear=0.6 * pink + 0.4 * fur,
        eye=np.where(rng.uniform(size=(n_animals, 1)) < 0.15, [120.0, 20, 30], [14.0, 12, 12]),
        patches=rng.uniform(0.2, 0.6, n_animals),
        texture=rng.uniform(0.1, 0.5, n_animals),
        sensors={camera.name: _make_sensor(rng) for camera in cameras},
    )


def _make_sensor(rng: np.random.Generator) -> Sensor:
    return Sensor(
        gain=rng.uniform(0.8, 1.2) * rng.uniform(0.93, 1.07, 3),
        vignetting=rng.uniform(0, 0.35),
        blur_px=rng.uniform(0.4, 1.1),
        read_noise=rng.uniform(0.8, 3.0),
        shot_noise=rng.uniform(1.0, 6.0),
    )


def prepare(camera: Camera, look: Look) -> Scene:
    """The camera before the empty floor. Raises InputError when the look has no sensor for this camera."""
    if camera.name not in look.sensors:
        raise InputError(
            f"look: no sensor for camera '{camera.name}'; {nearest_name(camera.name, look.sensors)}, "
            "or make the look for this camera"
        )
    width, height = camera.intrinsics.size
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    rays = camera.rays(pixels).astype(np.float32)
    rng = np.random.default_rng(look.seed)
    sensor, bright = look.sensors[camera.name], look.ambient + (1 - look.ambient) * look.light[2]
    colours = np.stack([look.floor, look.wall_colour, look.outside]) * bright * sensor.gain
    empty, ground = lay_floor(rays, camera.center, look.arena, look.wall, _texture(look, rng), colours, look.spot)
    x, y = (np.arange(n) - (n - 1) / 2 for n in (width, height))
    falloff = (1 - sensor.vignetting * (x**2 + y[:, None] ** 2) / (x[0] ** 2 + y[0] ** 2)).astype(np.float32)
    empty *= falloff[..., None]
    blurred = cv2.GaussianBlur(empty, None, sensor.blur_px)
    noise = rng.standard_normal(_SENSOR_NUMBERS + 3 * width, dtype=np.float32)
    fur = rng.random((_NOISE_SIDE,) * 3, dtype=np.float32)
    return Scene(camera, look, rays, ground, empty, blurred, falloff, noise, fur)


def _texture(look: Look, rng: np.random.Generator) -> NDArray[np.float32]:
    """(_TEXELS, _TEXELS) factor on the floor's colour: noise of four scales, with shavings strewn over it."""
    texture = np.ones((_TEXELS, _TEXELS), dtype=np.float32)
    for strength, cells in zip(look.relief, (6, 32, 128, 512), strict=True):
        coarse = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
        texture += np.float32(strength) * cv2.resize(coarse, (_TEXELS, _TEXELS), interpolation=cv2.INTER_CUBIC)
    count = round(look.litter * 400)
    starts, angles = rng.uniform(0, _TEXELS, (count, 2)), rng.uniform(0, np.pi, count)
    steps = rng.uniform(4, 22, (count, 1)) * np.column_stack([np.cos(angles), np.sin(angles)])
    tones, widths = 1 + look.litter_contrast * rng.uniform(-1, 1, count), rng.integers(1, 4, count)
    for start, step, tone, wide in zip(starts, steps, tones, widths, strict=True):
        cv2.line(texture, start.astype(int).tolist(), (start + step).astype(int).tolist(), float(tone), int(wide))
    return np.clip(texture, 0.2, 1.8)


def film(
    animals: Poses, camera: Camera | Scene, look: Look, seed: int, frames: Sequence[int] | None = None
) -> Iterator[tuple[Image, NDArray[np.bool_]]]:
    """Images and visible keypoints (`film_frame`) of the given rows of the poses, by default all in order.

    The noise depends on the seed, the camera's name and the frame's number alone, so that frames may be filmed in any
    order and by several threads at once (hand in a prepared Scene instead of a camera). QUADRUPED's keypoints are
    needed, in 3D.
    """
    if animals.points.shape[-1] != 3 or animals.skeleton is None:
        raise InputError("film: expected 3D poses with a skeleton; film what simulate_animals gives")
    scene = camera if isinstance(camera, Scene) else prepare(camera, look)
    own = zlib.crc32(scene.camera.name.encode())
    for row in range(len(animals.points)) if frames is None else frames:
        rng = np.random.default_rng((seed, own, int(animals.frame[row])))
        yield film_frame(scene, animals.points[row], rng, animals.skeleton.keypoints)


def film_frame(
    scene: Scene, points: Float, rng: np.random.Generator, keypoints: tuple[str, ...] = QUADRUPED.keypoints
) -> tuple[Image, NDArray[np.bool_]]:
    """One frame: image RGB (h, w, 3) and visible (animals, keypoints) of animals whose points are (animals, keypoints,
    3).

    An animal with a missing keypoint is not there. Raises InputError for more animals than the look has.
    """
    camera, look = scene.camera, scene.look
    if len(points) > len(look.fur):
        raise InputError(f"film: the look has {len(look.fur)} animals, the poses {len(points)}; make a look for all")
    there = np.flatnonzero(np.isfinite(points).all(axis=(1, 2)))
    visible = np.zeros(points.shape[:2], dtype=bool)
    sensor, image = look.sensors[camera.name], np.empty(scene.empty.shape, dtype=np.uint8)
    width, height = camera.intrinsics.size
    offsets = rng.integers(_SENSOR_NUMBERS, size=height)
    sensing = (np.float32(sensor.read_noise), np.float32(sensor.shot_noise), scene.noise, offsets)
    rows = image.reshape(height, -1)
    expose(scene.blurred.reshape(height, -1), (0, 0, 0, 0), 0, 0, *sensing, rows)
    if not len(there):
        return image, visible
    visible = visible_keypoints(camera, points, keypoints)
    bodies = solids(points[there], keypoints)
    start = bodies.seen_from(camera.center)
    cell = look.arena / _CELLS_PER_RADIUS
    shadow, corner, floor_boxes = _shadows(bodies, look, cell)
    outlines = _outlines(bodies, camera)
    order = np.argsort(outlines[:, 6])
    circles = outlines[:, :6].reshape(-1, 2, 3)
    low, high = (circles[..., :2] + sign * circles[..., 2:] for sign in (-1, 1))
    boxes = np.concatenate([low.min(axis=1), high.max(axis=1)], axis=1)
    colours = np.stack([look.fur, look.skin, look.ear, look.eye, look.patch, look.belly], axis=1)[there] * sensor.gain
    coats = (colours, np.stack([look.patches, look.texture], axis=1)[there], there, scene.fur)
    for left, top, right, bottom in _rectangles(bodies, boxes, floor_boxes, camera):
        window = np.s_[top:bottom, left:right]
        sharp = scene.empty[window].copy()
        cast(sharp, scene.ground[window], shadow, corner, cell)
        here = order[np.all((boxes[order, :2] < [right, bottom]) & (boxes[order, 2:] > [left, top]), axis=1)]
        if len(here):
            x, y = np.maximum(boxes[here, :2].min(axis=0).astype(int), [left, top])
            x_end, y_end = np.minimum(boxes[here, 2:].max(axis=0).astype(int) + 1, [right, bottom])
            rays = cv2.resize(scene.rays[y:y_end, x:x_end], None, fx=2, fy=2)  # through the pixels' quarters
            drawn = draw(rays, start, bodies.axes, bodies.shape, outlines - [x, y, 0, x, y, 0, 0], here)
            part, falloff = sharp[y - top : y_end - top, x - left : x_end - left], scene.falloff[y:y_end, x:x_end]
            body = (start, *bodies.coat)
            paint(part, falloff, rays, *drawn, body, coats, camera.center[2], look.light, look.ambient)
        cv2.GaussianBlur(sharp, None, sensor.blur_px, dst=sharp)
        # The blur is wrong at the rectangle's border, which holds nothing but floor; at the image's border it is right.
        cut = tuple(_MARGIN * int(inner) for inner in (left > 0, top > 0, right < width, bottom < height))
        expose(sharp.reshape(bottom - top, -1), cut, left, top, *sensing, rows)
    return image, visible


def visible_keypoints(
    camera: Camera, points: Float, keypoints: tuple[str, ...] = QUADRUPED.keypoints
) -> NDArray[np.bool_]:
    """(animals, keypoints) which of points (animals, keypoints, 3) a camera sees: inside the image, no other animal nor
    a far part of its own body before it. Of an animal with a missing keypoint none."""
    visible = np.zeros(points.shape[:2], dtype=bool)
    there = np.flatnonzero(np.isfinite(points).all(axis=(1, 2)))
    if not len(there):
        return visible
    bodies = solids(points[there], keypoints)
    start = bodies.seen_from(camera.center)
    sights = (points[there] - camera.center).reshape(-1, 3)
    depth = bodies.unit.reshape(len(there), -1)[:, :1] * hiding_depth(keypoints)
    free = seen(start, bodies.axes, bodies.shape, sights, depth.ravel()).reshape(depth.shape)
    xy, size = camera.project(points[there]), np.array(camera.intrinsics.size)
    visible[there] = free & ((xy > -0.5) & (xy < size - 0.5)).all(axis=-1)
    return visible


def _outlines(bodies: Solids, camera: Camera) -> Float:
    """(n, 7) pixel x, y of each solid's first ball and how far from there it may reach, the same of the last ball, and
    a distance from the camera that all of it lies beyond.
    """
    ends = bodies.ends
    relative = (ends - camera.center) @ camera.R.T
    away, ahead = np.linalg.norm(relative, axis=-1), relative[..., 2]
    # A ball off the axis is drawn out to an ellipse, by this much at most.
    stretch = (away / np.maximum(ahead, 0.2 * away)) ** 2
    reach = 1.05 * stretch * bodies.shape[:, 1:] / away * camera.intrinsics.K[[0, 1], [0, 1]].max() + 1.5
    circles = np.concatenate([camera.project(ends), reach[..., None]], axis=-1).reshape(-1, 6)
    return np.column_stack([circles, (away - bodies.shape[:, 1:]).min(axis=1)])


def _rectangles(bodies: Solids, boxes: Float, floor_boxes: Float, camera: Camera) -> list[Rectangle]:
    """Disjoint rectangles of pixels that hold all animals and their shadows, two margins wide around them."""
    found: list[Rectangle] = []
    for animal in np.unique(bodies.animal):
        own = bodies.animal == animal
        low, high = floor_boxes[own, :2].min(axis=0), floor_boxes[own, 2:].max(axis=0)
        floor = camera.project([[x, y, 0.0] for x in (low[0], high[0]) for y in (low[1], high[1])])
        corners = np.concatenate([boxes[own].reshape(-1, 2), floor])
        corners = corners[np.isfinite(corners).all(axis=1)]
        if not len(corners):
            continue
        low, high = np.floor(corners.min(axis=0)) - 2 * _MARGIN, np.ceil(corners.max(axis=0)) + 2 * _MARGIN
        left, top = (int(v) for v in np.clip(low, 0, camera.intrinsics.size))
        right, bottom = (int(v) for v in np.clip(high, 0, camera.intrinsics.size))
        while touching := [r for r in found if r[0] < right and left < r[2] and r[1] < bottom and top < r[3]]:
            found = [r for r in found if r not in touching]
            left, top = min(left, *(r[0] for r in touching)), min(top, *(r[1] for r in touching))
            right, bottom = max(right, *(r[2] for r in touching)), max(bottom, *(r[3] for r in touching))
        if right > left and bottom > top:
            found.append((left, top, right, bottom))
    return found


def _shadows(bodies: Solids, look: Look, cell: float) -> tuple[NDArray[np.float32], Float, Float]:
    """Share of light (rows along y, columns along x) left on the floor, in cells; the first cell's centre (2,); and
    each solid's part of the floor (n, 4).
    """
    ends, radii = bodies.ends, bodies.shape[:, 1:]
    height = np.maximum(ends[..., 2:], 0.0)
    cast = ends[..., :2] - height * look.light[:2] / look.light[2]
    wide = (radii[..., None] + height * look.softness / look.light[2]) / look.light[2]
    around = radii[..., None] + height * _SKY
    low = np.minimum(cast - wide, ends[..., :2] - around).min(axis=1)
    high = np.maximum(cast + wide, ends[..., :2] + around).max(axis=1)
    low, high = np.maximum(low, -look.arena), np.minimum(high, look.arena)
    corner = low.min(axis=0) - cell
    columns, rows = np.maximum(np.ceil((high.max(axis=0) - corner) / cell).astype(int) + 2, 2)
    boxes = np.concatenate([np.floor((low - corner) / cell), np.ceil((high - corner) / cell) + 1], axis=1)
    boxes = np.clip(boxes, 0, [columns, rows, columns, rows]).astype(np.int64)
    direct, sky = (np.zeros((rows, columns), dtype=np.float32) for _ in range(2))
    cover(ends, radii, boxes, look.light, look.softness, corner, cell, direct)
    cover(ends, radii, boxes, np.array([0.0, 0.0, 1.0]), _SKY, corner, cell, sky)
    lamp = (1 - look.ambient) * look.light[2]
    left = (look.ambient * (1 - _SKY_COVER * sky) + lamp * (1 - direct)) / (look.ambient + lamp)
    return left.astype(np.float32), corner, np.concatenate([low, high], axis=1)
