from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest

from calibration.camera import Camera
from calibration.errors import InputError
from calibration.synthetic import ring_rig
from pose3d.bodies import EYE, FUR, SKIN, Solids, entry, hiding_depth, seen, solids
from pose3d.filming import Look, Scene, Sensor, _outlines, film, film_frame, make_look, prepare
from pose3d.poses import Poses
from pose3d.shading import cast, cover, draw, expose, lay_floor, paint
from pose3d.skeleton import Skeleton
from pose3d.synthetic import QUADRUPED, simulate_animals

SIZE = (240, 180)
NO_NOISE = Sensor(np.ones(3), 0.0, 0.5, 0.0, 0.0)


def camera(rng: np.random.Generator, focal_px: float = 225.0) -> Camera:
    return ring_rig(2, rng, radius=650, height=450, size=SIZE, focal_px=focal_px, off_centre_px=5).cameras[0]


def quiet(look: Look) -> Look:
    return replace(look, sensors=dict.fromkeys(look.sensors, NO_NOISE))


def scene_and_animals(rng: np.random.Generator, n_animals: int = 2, frames: int = 12) -> tuple[Scene, Poses]:
    own = camera(rng)
    return prepare(own, make_look(rng, n_animals, [own])), simulate_animals(rng, n_animals, frames)


def ball(centre: np.ndarray, radius: float, material: int = SKIN) -> Solids:
    zero = np.zeros(1, dtype=np.int32)
    return Solids(
        centre[None],
        np.eye(3)[None],
        np.array([[0.0, radius, radius]]),
        zero,
        zero + np.int32(material),
        np.zeros(1),
        np.full(1, 90.0),
    )


def entries(start: np.ndarray, axes: np.ndarray, shape: np.ndarray, rays: np.ndarray, balls: int = 101) -> np.ndarray:
    """(solids, rays) by brute force: a tapered capsule is all the balls between its two."""
    out = np.full((len(start), len(rays)), np.inf)
    for i, (length, first, last) in enumerate(shape):
        share = np.linspace(0, 1, 1 if length == 0 else balls)[:, None]
        local = rays @ axes[i].T
        offset = start[i] - share * [length, 0, 0]
        a = np.sum(local**2, axis=1)
        b = offset @ local.T
        c = np.sum(offset**2, axis=1)[:, None] - (first + share * (last - first)) ** 2
        h = b * b - a * c
        with np.errstate(invalid="ignore"):
            out[i] = np.where(h >= 0, (-b - np.sqrt(h)) / a, np.inf).min(axis=0)
    return out


def kernel_entries(start: np.ndarray, axes: np.ndarray, shape: np.ndarray, rays: np.ndarray) -> np.ndarray:
    return np.array([[entry(start, axes, shape, i, *ray) for ray in rays] for i in range(len(start))])


def test_a_ray_enters_the_nearest_of_the_balls_that_make_a_tapered_capsule(rng: np.random.Generator) -> None:
    """Long, short, flattened, cylindrical and one ball within the other."""
    shape = np.array([[40, 12, 5], [10, 4, 12], [20, 8, 8], [5, 12, 3], [0, 6, 6], [60, 1, 3.0]])
    axes = np.stack([np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in shape])
    axes[1, 2] *= 4.0
    start = np.einsum("nij,nj->ni", axes, np.array([-300.0, 0, 0]) + rng.uniform(-5, 5, (6, 3)))
    rays = np.array([1.0, 0, 0]) + rng.normal(0, 0.04, (400, 3))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    expected, found = entries(start, axes, shape, rays, 801), kernel_entries(start, axes, shape, rays)
    both = np.isfinite(expected) & np.isfinite(found)
    assert both.sum(axis=1).min() > 10
    assert np.mean(np.isfinite(expected) != np.isfinite(found)) < 0.003, "only grazing rays may differ"
    np.testing.assert_allclose(found[both], expected[both], atol=0.05)
    assert np.all(found[both] <= expected[both] + 1e-9), "the sampled balls lie within the capsule"
    assert np.median(np.abs(found[both] - expected[both])) < 1e-4


def test_what_is_drawn_is_what_every_ray_meets_first(rng: np.random.Generator) -> None:
    """All solids against all rays of a window, without outlines, order or shortcuts; with a distorting lens."""
    scene, animals = scene_and_animals(rng)
    bodies = solids(animals.points[3], QUADRUPED.keypoints)
    start, outlines = bodies.seen_from(scene.camera.center), _outlines(bodies, scene.camera)
    left, top = np.floor(scene.camera.project(animals.points[3, 0, 3])).astype(int) - 13
    rays = cv2.resize(scene.rays[top : top + 26, left : left + 26], None, fx=2, fy=2)
    moved = outlines - [left, top, 0, left, top, 0, 0]
    nearest, owner = draw(rays, start, bodies.axes, bodies.shape, moved, np.argsort(outlines[:, 6]))
    expected = entries(start, bodies.axes, bodies.shape, rays.reshape(-1, 3).astype(float))
    first = expected.min(axis=0).reshape(52, 52)
    hit = np.isfinite(first)
    assert 300 < hit.sum() < 2600
    assert np.mean(hit != (owner >= 0)) < 0.005
    both = hit & (owner >= 0)
    assert np.mean(np.abs(nearest[both] - first[both]) > 0.1) < 0.01
    own = np.take_along_axis(expected, np.maximum(owner, 0).reshape(1, -1), axis=0).reshape(52, 52)
    assert np.mean(own[both] < first[both] + 0.1) > 0.99


@pytest.mark.parametrize("radius", [4.0, 20.0])
def test_a_ball_is_drawn_where_the_camera_projects_it(rng: np.random.Generator, radius: float) -> None:
    own = camera(rng)
    scene = prepare(own, make_look(rng, 1, [own]))
    for place in rng.uniform(-150, 150, (5, 3)) * [1, 1, 0] + [0, 0, radius]:
        lone = ball(place, radius)
        rays = cv2.resize(scene.rays, None, fx=2, fy=2)
        _, owner = draw(rays, lone.seen_from(own.center), lone.axes, lone.shape, _outlines(lone, own), np.arange(1))
        v, u = np.nonzero(owner == 0)
        found = np.array([u.mean() + 0.5, v.mean() + 0.5]) / 2 - 0.5
        np.testing.assert_allclose(found, own.project(place), atol=0.15)
        across = 2 * radius * own.intrinsics.K[0, 0] / np.linalg.norm(place - own.center)
        assert np.sqrt(4 * len(v) / 4 / np.pi) == pytest.approx(across, rel=0.12), "so large as it is"


def test_ears_and_paws_appear_where_the_keypoints_are(rng: np.random.Generator) -> None:
    """Everything black but one material: its pixels lie around the keypoints that wear it."""
    own = camera(rng, focal_px=450.0)
    look = quiet(make_look(rng, 1, [own]))
    black = np.zeros((1, 3))
    look = replace(look, floor=np.zeros(3), wall_colour=np.zeros(3), outside=np.zeros(3), texture=np.zeros(1))
    look = replace(look, fur=black, patch=black, belly=black, skin=black, eye=black, ear=black + 255, ambient=1.0)
    points = simulate_animals(rng, 1, 40).points
    points -= points[:, :, 4:5] * [1, 1, 0]
    scene, near = prepare(own, look), 0
    for row in range(0, 40, 8):
        image, visible = film_frame(scene, points[row], rng)
        v, u = np.nonzero(image[..., 0] > 110)
        if not visible[0, 1:3].all():
            continue
        near += 1
        ears = own.project(points[row, 0, 1:3])
        side = np.linalg.norm(np.column_stack([u, v])[:, None] - ears, axis=-1).argmin(axis=1)
        for k in range(2):
            centre = np.array([u[side == k].mean(), v[side == k].mean()])
            assert np.linalg.norm(centre - ears[k]) < 3.0, "within half an ear"
    assert near >= 2


def test_visible_is_what_brute_force_says(rng: np.random.Generator) -> None:
    scene, animals = scene_and_animals(rng)
    own, some = scene.camera, 0
    for points in animals.points[::4]:
        _, visible = film_frame(scene, points, rng)
        bodies = solids(points, QUADRUPED.keypoints)
        sights = (points - own.center).reshape(-1, 3)
        away = np.linalg.norm(sights, axis=1)
        first = entries(bodies.seen_from(own.center), bodies.axes, bodies.shape, sights / away[:, None]).min(axis=0)
        unit = np.repeat(bodies.unit.reshape(2, -1)[:, 0], 12)
        before = (away - first) / unit - np.tile(hiding_depth(QUADRUPED.keypoints), 2)
        expected = before <= 0
        sure = np.abs(before) > 0.003
        np.testing.assert_array_equal(visible.ravel()[sure], expected[sure])
        some += int((~expected).sum())
    assert some > 5


def test_an_animal_is_hidden_by_the_one_before_it_and_only_by_that(rng: np.random.Generator) -> None:
    own = camera(rng)
    scene = prepare(own, make_look(rng, 2, [own]))
    toward = own.center * [1, 1, 0] / np.linalg.norm(own.center[:2])
    one = simulate_animals(rng, 1, 10).points[5, 0]
    one = one - one[4] * [1, 1, 0]
    axis, side = one[3] - one[5], np.cross(toward, [0, 0, 1.0])
    turn = np.arctan2(*side[1::-1]) - np.arctan2(*axis[1::-1])
    c, s = np.cos(turn), np.sin(turn)
    one = one @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1.0]])  # broadside
    pair = np.stack([one, one + 30 * toward + [0, 0, 15]])
    _, before = film_frame(scene, pair, rng)
    _, apart = film_frame(scene, np.stack([one, one + 120 * toward]), rng)
    _, alone = film_frame(scene, one[None], rng)
    assert not before[0, 8:10].any(), "the front paws are behind the other's trunk"
    assert before[1, :5].sum() >= 4
    assert before[0].sum() < alone[0].sum()
    np.testing.assert_array_equal(apart[0], alone[0])
    np.testing.assert_array_equal(apart[1], film_frame(scene, one[None] + 120 * toward, rng)[1][0])


def test_a_keypoint_outside_the_image_and_an_animal_that_is_not_there(rng: np.random.Generator) -> None:
    scene, animals = scene_and_animals(rng)
    points = animals.points[0].copy()
    points[0, :, :2] += 3000.0
    points[1, 7] = np.nan
    image, visible = film_frame(scene, points, np.random.default_rng(1))
    assert not visible.any()
    empty, _ = film_frame(scene, np.full((2, 12, 3), np.nan), np.random.default_rng(1))
    np.testing.assert_array_equal(image, empty)


def test_same_seed_same_bytes_in_any_order_and_any_thread(rng: np.random.Generator) -> None:
    scene, animals = scene_and_animals(rng)
    look = scene.look
    images = [image for image, _ in film(animals, scene.camera, look, 7)]
    with ThreadPoolExecutor(2) as pool:
        again = list(pool.map(lambda row: next(film(animals, scene, look, 7, [row]))[0], reversed(range(12))))
    for one, other in zip(images, reversed(again), strict=True):
        np.testing.assert_array_equal(one, other)
    assert images[0].shape == (SIZE[1], SIZE[0], 3)
    other_seed, _ = next(film(animals, scene, look, 8))
    assert np.mean(other_seed != images[0]) > 0.3
    late = replace(animals, frame=animals.frame + 1, time=None)
    assert np.mean(next(film(late, scene, look, 7))[0] != images[0]) > 0.3


def test_only_animals_and_their_shadows_change_the_picture(rng: np.random.Generator) -> None:
    """No seam where the rectangles end, and all of the shadow inside them."""
    own = camera(rng)
    look = quiet(make_look(rng, 1, [own]))
    look = replace(look, softness=0.05, light=np.array([0.6, 0.0, 0.8]), floor=np.full(3, 150.0))
    scene, points = prepare(own, look), simulate_animals(rng, 1, 10).points[5]
    points = points - points[:, 4:5] * [1, 1, 0]
    image, _ = film_frame(scene, points, rng)
    empty, _ = film_frame(scene, np.full_like(points, np.nan), rng)
    v, u = np.nonzero((image != empty).any(axis=-1))
    reach = np.linalg.norm(scene.ground[v, u], axis=1)
    assert len(v) > 300
    assert np.nanmax(reach) < 200.0
    floor = own.project(points[0] * [1, 1, 0] - points[0, :, 2:] * [0.75, 0, 0])[4]
    x, y = np.round(floor).astype(int)
    assert image[y, x].mean() < 0.9 * empty[y, x].mean(), "the back's shadow falls away from the lamp"


def test_the_floor_is_seen_where_points_of_it_project_to(rng: np.random.Generator) -> None:
    """Texture, wall and surroundings, from points in space instead of from pixels."""
    own, arena, wall = camera(rng), 200.0, 60.0
    x, y = np.meshgrid(np.arange(256), np.arange(256))
    texture = (1 + 0.3 * np.sin(x / 40) * np.cos(y / 30)).astype(np.float32)
    colours = np.array([[100.0, 50, 20], [30, 90, 30], [10, 10, 80]])
    scene = prepare(own, make_look(rng, 1, [own]))
    light, ground = lay_floor(scene.rays, own.center, arena, wall, texture, colours, 0.3)
    angle = rng.uniform(0, 2 * np.pi, 400)
    ring = np.column_stack([np.cos(angle), np.sin(angle)])
    radius = rng.uniform(0, 195, 400)

    def pixel(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        xy = np.round(own.project(points)).astype(int)
        on = (xy >= 0).all(axis=1) & (xy < SIZE).all(axis=1)
        return np.where(on[:, None], xy, 0).T, on

    points = np.column_stack([ring * radius[:, None], np.zeros(400)])
    (u, v), on = pixel(points)
    assert on.sum() > 200
    assert np.abs(ground[v, u] - points[:, :2])[on].max() < 4.0, "half a pixel, on a floor seen aslant"
    place = (ground[v, u] / arena + 1) * 128 - 0.5
    factor = 1 + 0.3 * np.sin(place[:, 0] / 40) * np.cos(place[:, 1] / 30)
    factor *= 1 - 0.3 * np.sum(ground[v, u] ** 2, axis=1) / arena**2
    np.testing.assert_allclose(light[v, u][on], (factor[:, None] * colours[0])[on], rtol=2e-3)
    far = ring @ own.center[:2] < -0.3 * np.linalg.norm(own.center[:2])
    for height, wanted in ((0.5 * wall, 1), (1.5 * wall, 2)):
        (u, v), on = pixel(np.column_stack([ring * arena, np.full(400, height)]))
        hue = light[v, u][on & far]
        assert len(hue) > 50
        assert (hue.argmax(axis=1) == wanted).all()
    near = ring @ own.center[:2] > 0.8 * np.linalg.norm(own.center[:2])
    (u, v), on = pixel(np.column_stack([ring * arena * 1.05, np.full(400, 0.0)]))
    assert (light[v, u][on & near].argmax(axis=1) == 2).all(), "the wall towards the camera is clear"


def test_cover_is_a_hard_shadow_of_a_small_lamp(rng: np.random.Generator) -> None:
    ends = np.array([[[0.0, 0, 20], [30, 10, 35]], [[-30, 5, 8], [-30, 5, 8]]])
    radii = np.array([[6.0, 6.0], [8.0, 8.0]])
    light = np.array([0.48, 0.36, 0.8])
    out = np.zeros((80, 90), dtype=np.float32)
    corner, cell = np.array([-70.0, -50.0]), 1.5
    cover(ends, radii, np.array([[0, 0, 90, 80]] * 2), light, 1e-9, corner, cell, out)
    x, y = np.meshgrid(np.arange(90) * cell + corner[0], np.arange(80) * cell + corner[1])
    cells = np.stack([x, y, np.zeros_like(x)], axis=-1).reshape(-1, 3)
    hidden = np.zeros(len(cells), dtype=bool)
    for (a, b), (r, _) in zip(ends, radii, strict=True):
        for share in np.linspace(0, 1, 40 if (a != b).any() else 1):
            gap = cells - (a + share * (b - a))
            hidden |= (np.linalg.norm(gap - (gap @ light)[:, None] * light, axis=1) < r) & (gap @ light < 0)
    hidden = hidden.reshape(80, 90)
    assert 150 < hidden.sum() < 3000
    assert hidden[out > 0.99].all()
    assert not hidden[out < 0.01].any()
    assert np.mean((out > 0.5) == hidden) > 0.99


def test_a_shadow_is_cast_between_cells_as_opencv_does(rng: np.random.Generator) -> None:
    shadow = rng.uniform(0.2, 1, (12, 15)).astype(np.float32)
    ground = rng.uniform(-40, 60, (30, 40, 2)).astype(np.float32)
    ground[3, 4] = np.nan
    light, corner, cell = np.full((30, 40, 3), 100, dtype=np.float32), np.array([-20.0, -10.0]), 4.0
    cast(light, ground, shadow, corner, cell)
    place = ((ground - corner) / cell).astype(np.float32)
    expected = 100 * cv2.remap(shadow, np.nan_to_num(place, nan=-9.0), None, cv2.INTER_LINEAR)
    on = (place >= 0).all(axis=-1) & (place[..., 0] < 14) & (place[..., 1] < 11)
    np.testing.assert_allclose(light[..., 1][on], expected[on], atol=1.0)  # remap rounds places to 1/32
    assert (light[~on] == 100).all()


def test_paint_shades_a_ball_by_its_normal_and_mixes_at_its_edge() -> None:
    lone, eye = ball(np.array([0.0, 0.0, 200.0]), 10.0), np.zeros(3)
    v, u = np.mgrid[:40, :40]
    rays = np.stack([(u - 19.5) / 300, (v - 19.5) / 300, np.ones((40, 40))], axis=-1)
    rays = (rays / np.linalg.norm(rays, axis=-1, keepdims=True)).astype(np.float32)
    fine, start = cv2.resize(rays, None, fx=2, fy=2), lone.seen_from(eye)
    outline = np.array([[19.5, 19.5, 19.0, 19.5, 19.5, 19.0, 100.0]])
    nearest, owner = draw(fine, start, lone.axes, lone.shape, outline, np.arange(1))
    light, falloff = np.full((40, 40, 3), 80, dtype=np.float32), np.full((40, 40), 0.5, dtype=np.float32)
    colours, lamp = np.full((1, 6, 3), 200.0), np.array([0.6, 0.0, -0.8])
    coats = (colours, np.zeros((1, 2)), np.arange(1), np.zeros((32, 32, 32), dtype=np.float32))
    paint(light, falloff, fine, nearest, owner, (start, *lone.coat), coats, 1000.0, lamp, 0.0)
    covered = (owner.reshape(40, 2, 40, 2) >= 0).sum(axis=(1, 3))
    point = np.where(owner >= 0, nearest, 0)[..., None] * fine - [0, 0, 200.0]
    value = 0.5 * 200 * np.maximum(point @ lamp / 10 + 0.2, 0) / 1.2
    value = np.where(owner >= 0, value, 80).reshape(40, 2, 40, 2)
    expected = value[:, 0, :, 0]  # a solid is shaded once in a pixel, in the first quarter that shows it
    np.testing.assert_allclose(light[covered == 4, 0], expected[covered == 4], atol=1e-3)
    np.testing.assert_allclose(light[covered == 0, 0], 80)
    edge = (covered > 0) & (covered < 4)
    low, high = value.min(axis=(1, 3)), value.max(axis=(1, 3))
    assert edge.sum() > 30
    assert np.all((light[edge, 0] >= low[edge] - 1e-3) & (light[edge, 0] <= high[edge] + 1e-3))
    assert {FUR, SKIN, EYE} == {0, 1, 3}


def test_expose_adds_noise_of_the_sensors_variance_inside_the_cut(rng: np.random.Generator) -> None:
    light = rng.uniform(-20, 280, (30, 3 * 40)).astype(np.float32)
    noise = rng.standard_normal(5000, dtype=np.float32)
    offsets, image = rng.integers(4000, size=50), np.zeros((50, 3 * 70), dtype=np.uint8)
    expose(light, (2, 3, 4, 5), 10, 7, np.float32(1.5), np.float32(4.0), noise, offsets, image)
    clean = np.maximum(light, 0)
    random = np.stack([noise[offsets[7 + v] + 30 : offsets[7 + v] + 150] for v in range(30)])
    expected = np.clip(clean + random * (1.5 + 4.0 * np.sqrt(clean / 255)), 0, 255)
    window = np.s_[3:25, 6:108]
    assert np.abs(image[7:37, 30:150][window] - expected[window]).max() <= 0.51
    image[7:37, 30:150][window] = 0
    assert not image.any()


def test_looks_differ_and_animals_stand_out_from_the_floor(rng: np.random.Generator) -> None:
    own = camera(rng)
    looks = [make_look(rng, 2, [own]) for _ in range(40)]
    floors = np.array([look.floor.mean() for look in looks])
    assert floors.std() > 30
    apart = [np.abs(look.floor.mean() - look.fur.mean(axis=1)).min() for look in looks]
    assert np.mean(np.array(apart) > 15) > 0.9
    images = [film_frame(prepare(own, look), np.full((2, 12, 3), np.nan), rng)[0].mean() for look in looks[:6]]
    assert np.std(images) > 10


def test_bad_input_is_named(rng: np.random.Generator) -> None:
    scene, animals = scene_and_animals(rng)
    with pytest.raises(InputError, match="no sensor for camera 'cam0'"):
        prepare(scene.camera, replace(scene.look, sensors={"cam1": NO_NOISE}))
    with pytest.raises(InputError, match="the look has 2 animals, the poses 3"):
        film_frame(scene, np.zeros((3, 12, 3)), rng)
    with pytest.raises(InputError, match="expected 3D poses"):
        next(film(replace(animals, points=animals.points[..., :2]), scene, scene.look, 0))
    fly = Poses(animals.points, skeleton=Skeleton(tuple(f"k{i}" for i in range(12)), edges=()))
    with pytest.raises(InputError, match="got none of"):
        next(film(fly, scene, scene.look, 0))


def test_seen_knows_no_keypoint_behind_the_camera(rng: np.random.Generator) -> None:
    lone = ball(np.array([100.0, 0.0, 0.0]), 10.0)
    sights = np.array([[200.0, 0, 0], [-200, 0, 0], [80, 0, 0], [95, 0, 0]])
    free = seen(lone.seen_from(np.zeros(3)), lone.axes, lone.shape, sights, np.full(4, 6.0))
    np.testing.assert_array_equal(free, [False, True, True, True])
