"""Named cameras together, and what moving the world does to them and to their covariance."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.camera import Camera, Intrinsics
from calibration.errors import InputError
from calibration.rig import RIG_PARAMETERS, CameraRig
from calibration.transforms import exp_so3, log_so3

Array = NDArray[np.float64]


def rig_of(names: str = "abc", covariance: Array | None = None) -> CameraRig:
    cameras = []
    for i, name in enumerate(names):
        model = "fisheye" if name == "b" else "pinhole"
        K = np.array([[500.0 + i, 0, 320], [0, 510 + i, 240], [0, 0, 1]])
        intrinsics = Intrinsics((640, 480), K, [-0.1, 0.01 * i, 0.001, 0.002], model)
        cameras.append(Camera(name, intrinsics, exp_so3([0.1 * i, -0.2, 0.3 * i]), np.array([0.1 * i, 0.2, 5 + i])))
    return CameraRig(tuple(cameras), "mm", covariance)


def random_covariance(n: int, rng: np.random.Generator) -> Array:
    factor = rng.normal(size=(n, n))
    return factor @ factor.T


def test_a_rig_is_its_cameras_in_order(rng: np.random.Generator) -> None:
    rig = rig_of()
    assert rig.names == ("a", "b", "c")
    assert len(rig) == 3
    assert [c.name for c in rig] == ["a", "b", "c"]
    assert rig["b"] is rig.cameras[1]
    assert rig.index("c") == 2
    points = rng.normal(size=(4, 5, 3))
    xy = rig.project(points)
    assert xy.shape == (3, 4, 5, 2)
    rays = rig.rays(xy)
    assert rays.shape == (3, 4, 5, 3)
    for i, camera in enumerate(rig):
        np.testing.assert_array_equal(xy[i], camera.project(points))
        np.testing.assert_array_equal(rays[i], camera.rays(xy[i]))
        np.testing.assert_array_equal(rig.centers[i], camera.center)
    packed = rig.packed()
    np.testing.assert_array_equal(packed.model, [0, 1, 0])
    np.testing.assert_array_equal(packed.parameters[1], rig["b"].intrinsics.row)
    np.testing.assert_array_equal(packed.R[2], rig["c"].R)
    np.testing.assert_array_equal(packed.t[2], rig["c"].t)


def test_a_subset_takes_its_part_of_the_covariance(rng: np.random.Generator) -> None:
    covariance = random_covariance(54, rng)
    subset = rig_of(covariance=covariance).subset(["c", "a"])
    assert subset.names == ("c", "a")
    assert subset.unit == "mm"
    order = [*range(36, 54), *range(18)]
    np.testing.assert_array_equal(subset.covariance, covariance[np.ix_(order, order)])
    assert rig_of().subset(["b"]).covariance is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rig_of()["aa"], "camera 'aa' is not in the rig; did you mean 'a'"),
        (lambda: rig_of().subset(["a", "nobody"]), "'nobody' is not in the rig"),
        (lambda: rig_of("aba"), "names must differ, got a"),
        (lambda: CameraRig((), "mm"), "at least one camera"),
        (lambda: rig_of(covariance=np.eye(53)), r"covariance \(54, 54\)"),
        (lambda: rig_of().rays(np.zeros((2, 5, 2))), "3 views, got 2"),
    ],
)
def test_mistakes_are_named(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        make()


def test_moving_the_world_keeps_every_pixel(rng: np.random.Generator) -> None:
    rig = rig_of()
    R, t = exp_so3([0.4, 0.5, -0.6]), np.array([10.0, -20, 5])
    moved = rig.moved(2.5, R, t)
    points = rng.normal(size=(30, 3))
    np.testing.assert_allclose(moved.project(2.5 * points @ R.T + t), rig.project(points), atol=1e-9)
    np.testing.assert_allclose(moved.centers, 2.5 * rig.centers @ R.T + t, atol=1e-12)
    assert moved.covariance is None
    assert moved.names == rig.names
    assert moved.unit == rig.unit


def perturbed(rig: CameraRig, change: Array) -> CameraRig:
    """The rig with its 18 parameters a camera changed, as RIG_PARAMETERS defines them."""
    cameras = []
    for camera, d in zip(rig, change.reshape(len(rig), -1), strict=True):
        old = camera.intrinsics
        parameters = old.parameters + d[6:]
        intrinsics = Intrinsics.from_parameters(old.size, parameters, old.model, len(old.dist))
        cameras.append(Camera(camera.name, intrinsics, exp_so3(d[:3]) @ camera.R, camera.t + d[3:6]))
    return CameraRig(tuple(cameras), rig.unit)


def parameters_between(rig: CameraRig, base: CameraRig) -> Array:
    """The change that `perturbed` would need to make rig of base."""
    rows = []
    for camera, old in zip(rig, base, strict=True):
        turn = log_so3(camera.R @ old.R.T)
        rows.append(np.concatenate((turn, camera.t - old.t, camera.intrinsics.parameters - old.intrinsics.parameters)))
    return np.concatenate(rows)


def test_the_covariance_moves_with_the_world(rng: np.random.Generator) -> None:
    n = len(RIG_PARAMETERS) * 3
    covariance = random_covariance(n, rng)
    rig = rig_of(covariance=covariance)
    similarity = (1.7, exp_so3([0.4, 0.5, -0.6]), np.array([3.0, -2, 5]))
    moved = rig.moved(*similarity)
    step = 1e-6
    jacobian = np.empty((n, n))
    for i, nudge in enumerate(step * np.eye(n)):
        ahead, back = (perturbed(rig, sign * nudge).moved(*similarity) for sign in (1, -1))
        jacobian[:, i] = (parameters_between(ahead, moved) - parameters_between(back, moved)) / (2 * step)
    # the unused distortion columns of 4- and 5-coefficient cameras cannot be nudged; they pass through
    held = ~jacobian.any(axis=0)
    jacobian[held, held] = 1
    expected = jacobian @ covariance @ jacobian.T
    np.testing.assert_allclose(moved.covariance, expected, atol=1e-6 * np.abs(expected).max())
