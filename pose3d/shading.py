"""What light do solids throw into a rectangle of pixels: which is nearest, what colour is it, what shadow does it cast?

Compiled; all let go of the interpreter's lock. A rectangle's light is (h, w, 3) float32, RGB in 0..255.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from pose3d.bodies import EYE, FUR, entry

__all__ = ["cast", "cover", "draw", "expose", "lay_floor", "paint"]

_PATCH, _BELLY = 4, 5  # rows of an animal's colours after the materials


@njit(cache=True, nogil=True, error_model="numpy")
def lay_floor(rays, centre, arena, wall, texture, colours, spot):  # type: ignore[no-untyped-def]
    """Light (h, w, 3) from a round floor of this radius at z = 0, the wall behind it and what is around, and the
    floor's x, y (h, w, 2) that each pixel sees, NaN elsewhere.

    texture: (n, n) factor on the floor's colour, over its square; repeated, and weaker, around it. colours: (3, 3) of
    the three. spot: share of light lost at the wall and beyond.
    """
    height, width, side = rays.shape[0], rays.shape[1], len(texture)
    light, ground = (
        np.empty((height, width, 3), dtype=np.float32),
        np.full((height, width, 2), np.nan, dtype=np.float32),
    )
    for v in range(height):
        for u in range(width):
            x, y, z = rays[v, u, 0], rays[v, u, 1], rays[v, u, 2]
            reach = -centre[2] / z if z < 0.0 else np.inf
            ground_x, ground_y = centre[0] + reach * x, centre[1] + reach * y
            radius, surface, factor, share = math.sqrt(ground_x**2 + ground_y**2), 2, 1.0, 1.0
            if radius < arena:
                surface, share = 0, radius / arena
                ground[v, u, 0], ground[v, u, 1] = ground_x, ground_y
            else:
                across, along = x * x + y * y, x * centre[0] + y * centre[1]
                h = along * along - across * (centre[0] ** 2 + centre[1] ** 2 - arena * arena)
                high = centre[2] + z * (math.sqrt(h) - along) / across if h >= 0.0 else -1.0
                if 0.0 <= high < wall and h >= along * abs(along):
                    surface, factor = 1, 0.7 + 0.3 * high / wall
            if surface != 1 and radius < 100.0 * arena:
                x, y = (ground_x / arena + 1.0) * 0.5 * side - 0.5, (ground_y / arena + 1.0) * 0.5 * side - 0.5
                i, j = math.floor(x), math.floor(y)
                x, y = x - i, y - j
                k, m, i, j = (i + 1) % side, (j + 1) % side, i % side, j % side
                factor = (1 - y) * ((1 - x) * texture[j, i] + x * texture[j, k])
                factor += y * ((1 - x) * texture[m, i] + x * texture[m, k])
                if surface == 2:
                    factor = 0.6 + 0.4 * factor
            for c in range(3):
                light[v, u, c] = factor * (1.0 - spot * share * share) * colours[surface, c]
    return light, ground


@njit(cache=True, nogil=True, error_model="numpy")
def cover(ends, radii, boxes, light, softness, corner, cell, out):  # type: ignore[no-untyped-def]
    """Share of a lamp of half angle softness (radians) in the direction of light that the solids hide from each cell,
    the most that one of them hides: by how far the sight line passes within the solid, over twice the penumbra's width
    there.
    """
    for i in range(len(ends)):
        ax, ay, az = ends[i, 0]
        bx, by, bz = ends[i, 1] - ends[i, 0]
        upto = bx * light[0] + by * light[1] + bz * light[2]
        ux, uy, uz = bx - upto * light[0], by - upto * light[1], bz - upto * light[2]
        square = ux * ux + uy * uy + uz * uz
        for row in range(boxes[i, 1], boxes[i, 3]):
            for column in range(boxes[i, 0], boxes[i, 2]):
                x, y, z = corner[0] + column * cell - ax, corner[1] + row * cell - ay, -az
                high = -(x * light[0] + y * light[1] + z * light[2])
                x, y, z = x + high * light[0], y + high * light[1], z + high * light[2]
                share = 0.0
                if square > 1e-12:
                    share = min(max((x * ux + y * uy + z * uz) / square, 0.0), 1.0)
                x, y, z = x - share * ux, y - share * uy, z - share * uz
                radius = radii[i, 0] + share * (radii[i, 1] - radii[i, 0])
                penumbra = softness * max(high + share * upto, 0.0) + cell
                hidden = 0.5 + 0.5 * (radius - math.sqrt(x * x + y * y + z * z)) / penumbra
                hidden = min(max(hidden, 0.0), 1.0)
                hidden *= hidden * (3.0 - 2.0 * hidden)
                if hidden > out[row, column]:
                    out[row, column] = hidden


@njit(cache=True, nogil=True, error_model="numpy")
def cast(light, ground, shadow, corner, cell):  # type: ignore[no-untyped-def]
    """Darken the floor of a rectangle (h, w, 3) by the shadows, bilinear between cells."""
    (rows, columns), scale = shadow.shape, 1.0 / cell
    for v in range(light.shape[0]):
        for u in range(light.shape[1]):
            x, y = (ground[v, u, 0] - corner[0]) * scale, (ground[v, u, 1] - corner[1]) * scale
            if 0.0 <= x < columns - 1 and 0.0 <= y < rows - 1:
                i, j = int(x), int(y)
                x, y = x - i, y - j
                left = (1 - y) * ((1 - x) * shadow[j, i] + x * shadow[j, i + 1])
                left += y * ((1 - x) * shadow[j + 1, i] + x * shadow[j + 1, i + 1])
                for c in range(3):
                    light[v, u, c] *= left


@njit(cache=True, nogil=True, error_model="numpy")
def draw(rays, start, axes, shape, outlines, order):  # type: ignore[no-untyped-def]
    """Distance (2h, 2w) to the nearest solid and its number, -1 where there is none, along the rays (2h, 2w, 3) through
    the four quarters of each pixel.

    outlines: (n, 7) pixel of either ball's centre and how far from it, in px, the solid may reach, NaN where unseen;
    and a distance that all of it lies beyond. order: of drawing; nearest first spares work on what lies behind.
    """
    height, width = rays.shape[0] // 2, rays.shape[1] // 2
    nearest = np.full(rays.shape[:2], np.inf, dtype=np.float32)
    owner = np.full(rays.shape[:2], -1, dtype=np.int32)
    for i in order:
        x, y, wide, x_last, y_last, wide_last, least = outlines[i]
        if not math.isfinite(x + y + x_last + y_last):
            continue
        left, right = max(min(x - wide, x_last - wide_last), 0.0), min(max(x + wide, x_last + wide_last) + 1, width)
        top, bottom = max(min(y - wide, y_last - wide_last), 0.0), min(max(y + wide, y_last + wide_last) + 1, height)
        along, down, wider = x_last - x, y_last - y, wide_last - wide
        square = max(along * along + down * down, 1e-9)
        for v in range(int(top), int(max(bottom, 0.0))):
            for u in range(int(left), int(max(right, 0.0))):
                share = min(max(((u - x) * along + (v - y) * down) / square, 0.0), 1.0)
                du, dv, reach = u - x - share * along, v - y - share * down, wide + share * wider
                if du * du + dv * dv > reach * reach:
                    continue
                row, column = 2 * v, 2 * u
                farthest = max(nearest[row, column], nearest[row, column + 1])
                if max(farthest, nearest[row + 1, column], nearest[row + 1, column + 1]) < least:
                    continue
                for row in range(2 * v, 2 * v + 2):
                    for column in range(2 * u, 2 * u + 2):
                        ray_x, ray_y, ray_z = rays[row, column, 0], rays[row, column, 1], rays[row, column, 2]
                        t = entry(start, axes, shape, i, ray_x, ray_y, ray_z)
                        if 0.0 < t < nearest[row, column]:
                            nearest[row, column], owner[row, column] = t, i
    return nearest, owner


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def paint(light, falloff, rays, nearest, owner, solids, coats, height, lamp, ambient):  # type: ignore[no-untyped-def]
    """Put the drawn solids (`draw`) over the light, times falloff (h, w): each pixel is the mean of its four quarters.

    solids: (`Solids.seen_from`, *`Solids.coat`). coats: colours (animals, 6, 3) of the materials, patches and belly,
    style (animals, 2) share of patches and strength of texture, who (animals,), the block of random numbers. height: of
    the camera above the floor.
    """
    colour, total = np.empty(3), np.empty(3)
    for v in range(light.shape[0]):
        for u in range(light.shape[1]):
            weight = 0
            for part in range(4):
                weight += owner[2 * v + part // 2, 2 * u + part % 2] < 0
            if weight == 4:
                continue
            for c in range(3):
                total[c] = weight * light[v, u, c]
            for part in range(4):
                row, column = 2 * v + part // 2, 2 * u + part % 2
                i, weight = owner[row, column], 1
                for other in range(4):  # one solid in several quarters is shaded once, in the first of them
                    if owner[2 * v + other // 2, 2 * u + other % 2] == i and other != part:
                        weight = weight + 1 if other > part else -4
                if i < 0 or weight < 1:
                    continue
                x, y, z = rays[row, column, 0], rays[row, column, 1], rays[row, column, 2]
                _shade(i, x, y, z, nearest[row, column], solids, coats, height, lamp, ambient, colour)
                for c in range(3):
                    total[c] += weight * falloff[v, u] * colour[c]
            for c in range(3):
                light[v, u, c] = 0.25 * total[c]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True, forceinline=True)
def _shade(i, dx, dy, dz, t, solids, coats, height, lamp, ambient, out):  # type: ignore[no-untyped-def]
    """Colour (3,) of solid i where the ray meets it at distance t."""
    start, axes, shape, along, units, animals, materials = solids
    colours, style, who, block = coats
    length, first, last = shape[i]
    unit, animal, material = units[i], animals[i], materials[i]
    x = start[i, 0] + t * (axes[i, 0, 0] * dx + axes[i, 0, 1] * dy + axes[i, 0, 2] * dz)
    y = start[i, 1] + t * (axes[i, 1, 0] * dx + axes[i, 1, 1] * dy + axes[i, 1, 2] * dz)
    z = start[i, 2] + t * (axes[i, 2, 0] * dx + axes[i, 2, 1] * dy + axes[i, 2, 2] * dz)
    middle = 0.0
    if length > abs(first - last):
        sine = (first - last) / length
        middle = min(max((x - first * sine) / (1.0 - sine * sine), 0.0), length)
    nx = axes[i, 0, 0] * (x - middle) + axes[i, 1, 0] * y + axes[i, 2, 0] * z
    ny = axes[i, 0, 1] * (x - middle) + axes[i, 1, 1] * y + axes[i, 2, 1] * z
    nz = axes[i, 0, 2] * (x - middle) + axes[i, 1, 2] * y + axes[i, 2, 2] * z
    size = math.sqrt(nx * nx + ny * ny + nz * nz)
    nx, ny, nz = nx / size, ny / size, nz / size
    facing = -(nx * dx + ny * dy + nz * dz)
    toward = nx * lamp[0] + ny * lamp[1] + nz * lamp[2]
    near_floor = min(max((height + t * dz) / (0.14 * unit), 0.0), 1.0)
    bright = ambient * (0.6 + 0.4 * nz) * (0.45 + 0.55 * near_floor)
    bright += (1.0 - ambient) * max(toward + 0.2, 0.0) / 1.2 * (0.7 + 0.3 * near_floor)
    shine = 0.0
    for c in range(3):
        out[c] = colours[animal, material, c]
    if material == FUR:
        phase = 7.3 * who[animal]
        a, b, c = (along[i] + x) / unit, y / unit + phase, z / unit
        patch = (_random(block, 4.0 * a, 4.0 * b, 4.0 * c) - 0.75 + 0.5 * style[animal, 0]) * 8.0
        patch = min(max(patch, 0.0), 1.0)
        belly = min(max(-1.5 * z / (first + last) * 2.0 - 0.4, 0.0), 1.0)
        for k in range(3):
            out[k] += patch * (colours[animal, _PATCH, k] - out[k])
            out[k] += belly * (colours[animal, _BELLY, k] - out[k])
        hair = _random(block, 16.0 * a, 45.0 * b, 45.0 * c) - 0.5 + 1.2 * (_random(block, 9 * a, 14 * b, 14 * c) - 0.5)
        bright *= 1.0 + style[animal, 1] * hair
        shine = 18.0 * (1.0 - facing) ** 2 * ambient
    elif material == EYE:
        glint = lamp[0] * (dx + 2 * facing * nx) + lamp[1] * (dy + 2 * facing * ny) + lamp[2] * (dz + 2 * facing * nz)
        shine = 170.0 * max(glint, 0.0) ** 12
    for k in range(3):
        out[k] = out[k] * bright + shine


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True, forceinline=True)
def _random(block, x, y, z):  # type: ignore[no-untyped-def]
    """A cubic block of random numbers, 32 a side and repeated without end, linear between them."""
    i, j, k = math.floor(x), math.floor(y), math.floor(z)
    x, y, z = x - i, y - j, z - k
    i, j, k = int(i) & 31, int(j) & 31, int(k) & 31
    p, q, r = (i + 1) & 31, (j + 1) & 31, (k + 1) & 31
    near = (1 - z) * block[i, j, k] + z * block[i, j, r]
    beside = (1 - z) * block[i, q, k] + z * block[i, q, r]
    ahead = (1 - z) * block[p, j, k] + z * block[p, j, r]
    across = (1 - z) * block[p, q, k] + z * block[p, q, r]
    return (1 - x) * ((1 - y) * near + y * beside) + x * ((1 - y) * ahead + y * across)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def expose(light, cut, left, top, read, shot, noise, offsets, image):  # type: ignore[no-untyped-def]
    """Into image (H, 3 W): light (h, 3 w) of a rectangle whose corner is (left, top), with the sensor's noise.

    Of the light, cut (left, top, right, bottom) pixels stay away. The noise of a row begins at its offset.
    """
    slope, black, white, half = shot / np.float32(math.sqrt(255.0)), np.float32(0.0), np.float32(255.0), np.float32(0.5)
    begin, count = 3 * cut[0], light.shape[1] - 3 * (cut[0] + cut[2])
    for v in range(cut[1], light.shape[0] - cut[3]):
        row = light[v, begin : begin + count]
        column = 3 * left + begin
        out = image[top + v, column : column + count]
        random = noise[offsets[top + v] + column : offsets[top + v] + column + count]
        for k in range(count):
            value = max(row[k], black)
            value += random[k] * (read + slope * np.sqrt(value)) + half
            out[k] = np.uint8(min(max(value, black), white))
