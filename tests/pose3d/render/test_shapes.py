from __future__ import annotations

import numpy as np

from calibration.camera import Camera, Intrinsics
from pose3d.render import shapes
from pose3d.render.viewpoint import Floor, frustum

HIDDEN = np.array([9.0, 9.0, -9.0])


def volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Of a closed surface whose triangles turn counterclockwise seen from outside; else negative."""
    a, b, c = vertices[faces].transpose(1, 0, 2)
    return float((a * np.cross(b, c)).sum() / 6)


def test_a_ball_is_a_closed_sphere_turned_outward() -> None:
    vertices, faces = shapes.ball()
    np.testing.assert_allclose(np.linalg.norm(vertices, axis=1), 1)
    assert (len(vertices), len(faces)) == (162, 320)
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
    assert 0.96 * 4 / 3 * np.pi < volume(vertices, faces) < 4 / 3 * np.pi


def test_a_skeleton_has_balls_at_its_keypoints_and_rods_between(rng: np.random.Generator) -> None:
    points = rng.normal(0, 100, (2, 3, 3))
    edges = ((0, 1), (2, 1))
    vertices, normals = shapes.skeleton_surface(points, edges, 2.0, HIDDEN)
    faces = shapes.skeleton_faces(2, 3, 2)
    assert faces.max() == len(vertices) - 1
    balls = vertices[: 6 * 162].reshape(2, 3, 162, 3) - points[:, :, None]
    np.testing.assert_allclose(np.linalg.norm(balls, axis=-1), 2.0)
    np.testing.assert_allclose(normals[: 6 * 162].reshape(2, 3, 162, 3), balls / 2.0, atol=1e-12)
    rods = vertices[6 * 162 :].reshape(2, 2, 2, -1, 3)
    rod_normals = normals[6 * 162 :].reshape(rods.shape)
    for animal in range(2):
        for edge, ends in enumerate(edges):
            along = points[animal, ends[1]] - points[animal, ends[0]]
            for end, keypoint in enumerate(ends):
                ring = rods[animal, edge, end] - points[animal, keypoint]
                np.testing.assert_allclose(np.linalg.norm(ring, axis=-1), 1.0)  # half the ball's radius
                np.testing.assert_allclose(ring @ along, 0, atol=1e-9)
                np.testing.assert_allclose(ring.mean(axis=0), 0, atol=1e-12)
                np.testing.assert_allclose(rod_normals[animal, edge, end], ring, atol=1e-12)


def test_rods_are_turned_outward() -> None:
    points = np.array([[[0.0, 0, 0], [0, 3, 4]]])
    vertices, normals = shapes.skeleton_surface(points, ((0, 1),), 2.0, HIDDEN)
    faces = shapes.skeleton_faces(1, 2, 1)
    rod = faces[(faces >= 2 * 162).all(axis=1)]
    a, b, c = vertices[rod].transpose(1, 0, 2)
    assert ((np.cross(b - a, c - a) * normals[rod].mean(axis=1)).sum(axis=1) > 0).all()
    assert len(rod) == 24


def test_what_is_missing_shrinks_to_the_hidden_point() -> None:
    points = np.array([[[0.0, 0, 0], [1, 0, 0], [np.nan] * 3, [1.0, 0, 0]]])
    vertices, normals = shapes.skeleton_surface(points, ((0, 1), (1, 2), (1, 3)), 0.1, HIDDEN)
    assert np.isfinite(vertices).all()
    assert np.isfinite(normals).all()
    assert (vertices[2 * 162 : 3 * 162] == HIDDEN).all()
    rods = vertices[4 * 162 :].reshape(3, -1, 3)
    assert not (rods[0] == HIDDEN).any(axis=1).all()
    assert (rods[1] == HIDDEN).all()
    assert (rods[2] == HIDDEN).all()  # an edge without length


def test_a_skeleton_without_edges() -> None:
    vertices, _ = shapes.skeleton_surface(np.zeros((1, 2, 3)), (), 1.0, HIDDEN)
    assert len(vertices) == 2 * 162
    assert shapes.skeleton_faces(1, 2, 0).max() == 2 * 162 - 1


def test_per_vertex_follows_the_surface() -> None:
    colours = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.uint8)
    out = shapes.per_vertex(colours, 3, 2)
    points = np.zeros((2, 3, 3))
    points[1] = 100
    points += np.arange(3)[:, None]
    vertices, _ = shapes.skeleton_surface(points, ((0, 1), (1, 2)), 0.1, HIDDEN)
    assert len(out) == len(vertices)
    np.testing.assert_array_equal(out, colours[(vertices[:, 0] > 50).astype(int)])


def test_ellipsoids_lie_at_a_constant_mahalanobis_distance(rng: np.random.Generator) -> None:
    points = rng.normal(size=(5, 3))
    half = rng.normal(size=(5, 3, 3))
    covariance = half @ half.swapaxes(1, 2)
    covariance[3, 0, 0] = np.nan
    points[4] = np.nan
    vertices, normals = (a.reshape(5, -1, 3) for a in shapes.ellipsoids(points, covariance, 2.5, HIDDEN))
    for i in range(3):
        away = vertices[i] - points[i]
        inverse = np.linalg.inv(covariance[i])
        np.testing.assert_allclose(np.einsum("ni,ij,nj->n", away, inverse, away), 2.5**2, rtol=1e-6)
        gradient = away @ inverse
        np.testing.assert_allclose(normals[i], gradient / np.linalg.norm(gradient, axis=1, keepdims=True), atol=1e-6)
        assert volume(vertices[i], shapes.ball()[1]) > 0 or np.linalg.det(covariance[i]) < 1e-9
    assert (vertices[3:] == HIDDEN).all()


def test_trails_go_back_in_time() -> None:
    trail = (
        np.stack([np.arange(6.0), np.zeros(6), np.zeros(6)], axis=1)[:, None]
        + np.array([[[0, 0, 0]], [[0, 50, 0]]])[:, 0]
    )
    trail[2, 1] = np.nan
    out = shapes.trail_segments(trail, 3, 2, HIDDEN).reshape(2, 2, 2, 3)
    np.testing.assert_array_equal(out[0, :, :, 0], [[3, 2], [2, 1]])
    assert (out[1] == HIDDEN).all()  # both touch the missing one
    out = shapes.trail_segments(trail, 1, 3, HIDDEN).reshape(2, 3, 2, 3)
    np.testing.assert_array_equal(out[0, 0, :, 0], [1, 0])
    assert (out[:, 1:] == HIDDEN).all()  # before the beginning


def test_trails_fade_to_the_ground() -> None:
    colours = shapes.trail_colours(np.array([[200, 100, 0], [0, 0, 0]], dtype=np.uint8), 4, (240, 240, 240))
    np.testing.assert_array_equal(colours[:4], [[200, 100, 0], [210, 135, 60], [220, 170, 120], [230, 205, 180]])
    np.testing.assert_array_equal(colours[4], [0, 0, 0])


def test_grid_lines_cover_the_floor() -> None:
    floor = Floor(np.array([1.0, 2, 3]), *np.eye(3), np.array([4.0, 2.0]), 2.0)
    lines = shapes.grid_lines(floor) - floor.origin
    upright = lines[:5]
    np.testing.assert_allclose(upright[:, :, 0], np.repeat([[-4], [-2], [0], [2], [4]], 2, axis=1))
    np.testing.assert_allclose(upright[:, :, 1], [[-2, 2]] * 5)
    np.testing.assert_allclose(lines[5:, :, 1], np.repeat([[-2], [0], [2]], 2, axis=1))
    np.testing.assert_allclose(lines[5:, :, 0], [[-4, 4]] * 3)
    assert (lines[..., 2] == 0).all()


def test_frustum_lines_have_a_roof_over_the_images_top() -> None:
    K = np.array([[100.0, 0, 100], [0, 100, 50], [0, 0, 1]])
    camera = Camera("a", Intrinsics((201, 101), K, np.zeros(5)), np.eye(3), np.zeros(3))
    lines = shapes.frustum_lines(frustum(camera, 1.0)[None])
    assert len(lines) == 10
    np.testing.assert_allclose(lines[:4, 0], 0, atol=1e-12)
    np.testing.assert_allclose(lines[:4, 1, :2], [(-1, -0.5), (1, -0.5), (1, 0.5), (-1, 0.5)])
    np.testing.assert_allclose(lines[4:8, 1, :2], [(1, -0.5), (1, 0.5), (-1, 0.5), (-1, -0.5)])
    np.testing.assert_allclose(lines[8:, 0, :2], [(-1, -0.5), (1, -0.5)])
    np.testing.assert_allclose(lines[8:, 1, :2], [(0, -0.75)] * 2)
