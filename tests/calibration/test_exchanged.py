"""Two cameras with each other's name are told from a rig that does not hold."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.drift import check_rig
from calibration.errors import InputError
from calibration.exchanged import exchanged_names
from calibration.rig import CameraRig
from calibration.synthetic import ring_rig


@pytest.fixture(params=[2, 3, 6])
def seen(request: pytest.FixtureRequest, rng: np.random.Generator) -> tuple[CameraRig, np.ndarray]:
    """A rig and pixels (views, frames, points, 2) with noise of 1 px, an eighth missing and one in thirty wrong."""
    rig = ring_rig(request.param, rng, radius=600, height=400, size=(1280, 1024), focal_px=1100)
    xy = rig.project(rng.uniform(-100, 100, (70, 4, 3)))
    xy += rng.normal(0, 1.0, xy.shape)
    xy[rng.random(xy.shape[:-1]) < 0.125] = np.nan
    return rig, np.where(rng.random(xy.shape[:-1])[..., None] < 1 / 30, rng.uniform(0, 1000, xy.shape), xy)


def test_exchanged_names_are_found(seen: tuple[CameraRig, np.ndarray]) -> None:
    rig, xy = seen
    n = len(rig)
    assert exchanged_names(rig, xy.reshape(n, -1, 2)) is None
    wrong = xy[[n - 1, *range(1, n - 1), 0]]
    found = exchanged_names(rig, wrong.reshape(n, -1, 2))
    assert found is not None or n == 2, "of two cameras, either way may fit as badly"
    if n > 2:
        assert found == (rig.names[0], rig.names[-1])
        with pytest.raises(InputError, match=f"cameras '{rig.names[0]}' and '{rig.names[-1]}': .* exchanged"):
            check_rig(rig, wrong)


def test_a_camera_that_was_moved_far_is_not_called_exchanged(rng: np.random.Generator) -> None:
    rig = ring_rig(4, rng, radius=600, height=400, size=(1280, 1024), focal_px=1100)
    xy = rig.project(rng.uniform(-100, 100, (300, 3)))
    xy[1] += 150.0
    assert exchanged_names(rig, xy) is None
