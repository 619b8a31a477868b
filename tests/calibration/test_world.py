"""A rig in another world: the truth, the covariance by finite differences and Monte Carlo, errors by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.board import Board, BoardDetections
from calibration.errors import InputError
from calibration.normal_equations import stepped, with_cameras
from calibration.rig import CameraRig
from calibration.synthetic import board_motion, ring_rig, simulate_detections
from calibration.transforms import exp_so3, log_so3
from calibration.world import (
    KnownDistance,
    World,
    WorldOptions,
    WorldPoint,
    measure_distance,
    on_board,
    on_floor,
    on_points,
    place_rig,
)

Array = NDArray[np.float64]
BOARD = Board(6, 8, 30.0)
NOISE = 0.4
POINTS = np.array([[-120.0, -90, 0], [130, -80, 5], [110, 100, -4], [-100, 120, 60], [10, 15, 90]])


def tilted(rng: np.random.Generator, n: int = 3) -> CameraRig:
    """A ring above a floor, in a world that is turned and shifted against it."""
    return ring_rig(n, rng, radius=700, height=600, size=(1280, 1024), focal_px=1100).moved(
        1.0, exp_so3([0.5, -0.3, 0.8]), [50.0, 20, -70]
    )


def lying(rig: CameraRig, rng: np.random.Generator) -> tuple[Array, Array, BoardDetections]:
    """A board on a floor in frame 7 of ten, face up; detections have noise."""
    R, t = board_motion(rig, BOARD, 10, rng, reach=100)
    up = np.linalg.svd(rig.centers - rig.centers.mean(axis=0))[2][2]
    up = up if up @ rig.centers.mean(axis=0) > 0 else -up
    x = np.cross(up, [0.3, 0.5, 0.1])
    x /= np.linalg.norm(x)
    R[7] = np.stack((x, np.cross(-up, x), -up), axis=1)
    t[7] = -R[7] @ BOARD.object_points.mean(axis=0)
    return R, t, simulate_detections(rig, BOARD, R, t, rng, noise_px=NOISE, dropout=0.0)


def random_covariance(n_views: int, rng: np.random.Generator) -> Array:
    """Of turns by 1e-4 rad, shifts of 0.1 mm, intrinsics of some px and 1e-3, all correlated."""
    sd = np.tile([1e-4] * 3 + [0.1] * 3 + [2.0] * 4 + [1e-3] * 5 + [0.0] * 3, n_views)
    root = rng.normal(size=(18 * n_views, 18 * n_views)) / np.sqrt(18 * n_views)
    return sd[:, None] * (root @ root.T) * sd


def between(rig: CameraRig, base: CameraRig) -> Array:
    """(18 V,) by what the base's parameters must change to make the rig."""
    rows = [
        np.concatenate((log_so3(a.R @ b.R.T), a.t - b.t, a.intrinsics.parameters - b.intrinsics.parameters))
        for a, b in zip(rig, base, strict=True)
    ]
    return np.concatenate(rows)


def by_differences(make: Callable[[CameraRig], CameraRig], rig: CameraRig) -> Array:
    """(18 V, 18 V) derivative of the new rig's parameters by the old one's."""
    steps = np.tile([1e-6] * 3 + [1e-3] * 3 + [1e-2] * 4 + [1e-5] * 5 + [0.0] * 3, len(rig))
    base, out = make(rig), np.zeros((18 * len(rig), 18 * len(rig)))
    for i in np.flatnonzero(steps):
        nudge = np.zeros(len(steps))
        nudge[i] = steps[i]
        ahead, back = (
            make(with_cameras(rig, stepped(rig.packed(), sign * nudge.reshape(len(rig), 18)))) for sign in (1, -1)
        )
        out[:, i] = (between(ahead, base) - between(back, base)) / (2 * steps[i])
    return out


def worlds(rig: CameraRig, rng: np.random.Generator) -> dict[str, Callable[[CameraRig], World]]:
    """Every way to a new world, from pixels with noise."""
    R, t, detections = lying(rig, rng)
    xy = rig.project(POINTS) + rng.normal(0, 0.5, (len(rig), len(POINTS), 2))
    turned = 0.8 * POINTS @ exp_so3([1.0, 0.2, -0.4]).T + [5.0, 3, 1] + rng.normal(0, 1.0, POINTS.shape)
    return {
        "board": lambda r: on_board(r, R[:, None], t[:, None], detections, 7),
        "points": lambda r: on_points(r, xy, turned),
        "points and scale": lambda r: on_points(r, xy, turned, free_scale=True),
        "floor": lambda r: on_floor(r, xy[:, :4]),
    }


def test_a_board_on_the_floor_is_the_world(rng: np.random.Generator) -> None:
    rig = tilted(rng, 4)
    R, t, detections = lying(rig, rng)
    exact = simulate_detections(rig, BOARD, R, t, rng, noise_px=0.0, dropout=0.0)
    found = on_board(rig, R[:, None], t[:, None], exact, 7).rig
    seen = exact.corners[:, 7]
    corners = BOARD.object_points - BOARD.object_points[0]
    expected = found.project(corners * [1, -1, 1])  # x from column to column; the rows go down, y goes up
    visible = np.isfinite(seen)
    assert visible.any()
    np.testing.assert_allclose(seen[visible], expected[visible], atol=1e-6)
    assert (found.centers[:, 2] > 300).all()
    noisy = on_board(rig, R[:, None], t[:, None], detections, 7).rig
    np.testing.assert_allclose(noisy.centers, found.centers, atol=5)


def test_a_board_seen_from_behind_still_has_the_cameras_above(rng: np.random.Generator) -> None:
    """A glass table filmed from below: z points to the cameras, x still runs along the columns."""
    rig = tilted(rng, 3)
    R, t, _ = lying(rig, rng)
    turned = R[7] @ np.diag([1.0, -1.0, -1.0])
    t[7] = -turned @ BOARD.object_points.mean(axis=0)
    R[7] = turned
    world = np.einsum("ij,cj->ci", R[7], BOARD.object_points) + t[7]
    detections = simulate_detections(rig, BOARD, R, t, rng, noise_px=0.0)
    corners = detections.corners.copy()
    corners[:, 7] = rig.project(world)
    whole = replace(detections, corners=corners, sigma=np.where(np.isfinite(corners[..., 0]), 1e-3, np.nan))
    found = on_board(rig, R[:, None], t[:, None], whole, 7).rig
    assert (found.centers[:, 2] > 300).all()
    np.testing.assert_allclose(found.project(BOARD.object_points - BOARD.object_points[0]), corners[:, 7], atol=1e-5)


@pytest.mark.parametrize("way", ["board", "points", "points and scale", "floor"])
def test_the_covariance_follows_the_rig(way: str, rng: np.random.Generator) -> None:
    rig = tilted(rng)
    covariance = random_covariance(3, rng)
    make = worlds(rig, rng)[way]
    J = by_differences(lambda r: make(r).rig, rig)
    told = make(replace(rig, covariance=covariance)).rig.covariance
    pixels = make(replace(rig, covariance=np.zeros_like(covariance))).rig.covariance
    assert told is not None
    assert pixels is not None
    expected = J @ covariance @ J.T
    used = np.flatnonzero(np.tile([1] * 15 + [0] * 3, 3))
    sd = np.sqrt(np.diagonal(expected)[used])
    away = (told - pixels - expected)[np.ix_(used, used)] / np.outer(sd, sd)
    assert np.abs(away).max() < 0.02  # small residuals are taken for none in the derivative of triangulated points


@pytest.mark.parametrize("way", ["board", "points", "points and scale", "floor"])
def test_the_pixels_part_of_the_covariance_is_the_scatter(way: str, rng: np.random.Generator) -> None:
    rig = replace(tilted(rng), covariance=np.zeros((54, 54)))
    R, t, _ = lying(rig, rng)
    found, told = [], []
    for _ in range(60):
        xy = rig.project(POINTS) + rng.normal(0, 1.0, (3, len(POINTS), 2))
        if way == "floor":
            result = on_floor(rig, xy[:, :4]).rig
        elif way == "board":
            detections = simulate_detections(rig, BOARD, R, t, rng, noise_px=NOISE, dropout=0.0)
            result = on_board(rig, R[:, None], t[:, None], detections, 7).rig
        else:
            known = POINTS if way == "points" else 0.8 * POINTS
            result = on_points(rig, xy, known, free_scale=way != "points").rig
        found.append(result)
        told.append(np.diagonal(result.covariance).reshape(3, 18)[:, :6])
    scatter = np.var([between(r, found[0]) for r in found], axis=0).reshape(3, 18)[:, :6]
    ratio = scatter / np.mean(told, axis=0)
    for part in (slice(0, 3), slice(3, 6)):
        assert np.mean(ratio[:, part]) == pytest.approx(1.0, abs=0.4)


def test_points_bring_the_rig_where_they_are_known_to_be(rng: np.random.Generator) -> None:
    rig = tilted(rng, 4)
    turn, shift = exp_so3([0.2, 1.0, -0.4]), np.array([5.0, -3, 12])
    known = 1.25 * POINTS @ turn.T + shift
    exact = on_points(rig, rig.project(POINTS), known, "abcde", free_scale=True)
    assert exact.scale == pytest.approx(1.25)
    np.testing.assert_allclose(exact.rig.project(known), rig.project(POINTS), atol=1e-6)
    assert max(exact.residuals.values()) < 1e-6
    kept = on_points(rig, rig.project(POINTS), known, "abcde")
    assert kept.scale == 1.0
    np.testing.assert_allclose(
        np.linalg.norm(kept.rig.centers[0] - kept.rig.centers[1]), np.linalg.norm(rig.centers[0] - rig.centers[1])
    )
    wrong = known.copy()
    wrong[3] += [30.0, 0, 0]
    residuals = on_points(rig, rig.project(POINTS), wrong, "abcde", free_scale=True).residuals
    assert max(residuals, key=lambda name: residuals[name]) == "d"


def test_the_floor_is_below_the_cameras(rng: np.random.Generator) -> None:
    rig = tilted(rng, 4)
    back = rig.moved(1.0, exp_so3([0.5, -0.3, 0.8]).T, np.zeros(3))  # upright again
    corners = np.array([[-150.0, -100, 10], [140, -120, 10], [160, 130, 10], [-120, 110, 10], [0, 0, 10]])
    found = on_floor(back, back.project(corners))
    assert max(found.residuals.values()) < 1e-6
    np.testing.assert_allclose(found.rig.centers[:, 2], back.centers[:, 2] - 10, atol=1e-6)
    np.testing.assert_allclose(found.rig.project(np.zeros(3)), back.project(corners[0]), atol=1e-6)
    ahead = np.array([np.linalg.norm(corners[1] - corners[0]), 0, 0])
    np.testing.assert_allclose(found.rig.project(ahead), back.project(corners[1]), atol=1e-6)


def test_a_known_distance_checks_the_scale(rng: np.random.Generator) -> None:
    """Measured lengths scatter as their standard deviation says, rig and pixels together."""
    truth = ring_rig(3, rng, radius=700, height=600, size=(1280, 1024), focal_px=1100)
    covariance = random_covariance(3, rng)
    root = np.linalg.cholesky(covariance + 1e-18 * np.eye(54))
    ends = POINTS[[0, 2]]
    known = KnownDistance(("a", "b"), float(np.linalg.norm(ends[1] - ends[0])))
    off = []
    for _ in range(150):
        step = (root @ rng.normal(size=54)).reshape(3, 18)
        step[:, 15:] = 0
        rig = replace(with_cameras(truth, stepped(truth.packed(), step)), covariance=covariance)
        told = measure_distance(rig, truth.project(ends) + rng.normal(0, 0.7, (3, 2, 2)), known, noise_px=0.7)
        off.append((told.measured - told.known) / told.sd)
    assert np.mean(np.square(off)) == pytest.approx(1.0, abs=0.35)
    grown = measure_distance(truth.moved(1.02, np.eye(3), np.zeros(3)), truth.project(ends), known)
    assert grown.measured / grown.known == pytest.approx(1.02)
    assert "+2.00%" in grown.text("mm")


def test_options_place_a_rig_and_say_so(rng: np.random.Generator) -> None:
    rig = tilted(rng, 4)
    xy = rig.project(POINTS)
    pixels = [{name: tuple(xy[v, i]) for v, name in enumerate(rig.names)} for i in range(5)]
    points = {name: WorldPoint(pixels[i]) for i, name in enumerate("abcde")}
    length = float(np.linalg.norm(POINTS[4] - POINTS[0]))
    distances = (KnownDistance(("a", "e"), length),)
    placed, said = place_rig(rig, WorldOptions(points=points, floor=("a", "b", "c"), distances=distances))
    np.testing.assert_allclose(placed.project(np.zeros(3)), xy[:, 0], atol=1e-6)
    assert "+0.00%" in str(said["known distances"]) or "-0.00%" in str(said["known distances"])
    positions = {name: WorldPoint(pixels[i], tuple(POINTS[i])) for i, name in enumerate("abcde")}
    placed, said = place_rig(rig, WorldOptions(points=positions))
    np.testing.assert_allclose(placed.project(POINTS), xy, atol=1e-6)
    kept, said = place_rig(rig, WorldOptions(points=points, distances=distances))
    np.testing.assert_array_equal(kept.centers, rig.centers)  # a distance alone moves nothing


def test_mistakes_are_named(rng: np.random.Generator) -> None:
    rig = tilted(rng)
    R, t, detections = lying(rig, rng)
    t[6] = np.nan
    with pytest.raises(InputError, match=r"got 6; the nearest are 4, 5, 7"):
        on_board(rig, R[:, None], t[:, None], detections, 6)
    xy = rig.project(POINTS)
    with pytest.raises(InputError, match=r"three points or more, got a, b"):
        on_points(rig, xy[:, :2], POINTS[:2], "ab")
    xy[1:, 1] = np.nan
    with pytest.raises(InputError, match=r"point 'b': expected pixels in two cameras"):
        on_points(rig, xy, POINTS, "abcde")
    line = np.linspace(0, 1, 4)[:, None] * [100.0, 50, 20]
    with pytest.raises(InputError, match=r"k, l, m, n lie on one line"):
        on_floor(rig, rig.project(line), "klmn")
    with pytest.raises(InputError, match=r"'b' is used but not given"):
        WorldOptions(points={"a": WorldPoint({})}, floor=("a", "b"))
    with pytest.raises(InputError, match=r"one way to say where the world is, got floor_frame and floor"):
        WorldOptions(floor_frame=3, points={"a": WorldPoint({})}, floor=("a",))
    with pytest.raises(InputError, match=r"world\.points\.a\.pixels: camera 'cam9' is not in the rig"):
        place_rig(rig, WorldOptions(points={"a": WorldPoint({"cam9": (1.0, 2.0)})}))
    with pytest.raises(InputError, match=r"floor_frame: expected footage of the board"):
        place_rig(rig, WorldOptions(floor_frame=3))
