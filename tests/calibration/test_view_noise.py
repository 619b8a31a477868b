"""The noise of each view is what was put in, within its standard error; mistakes do not count."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.errors import InputError
from calibration.rig import CameraRig
from calibration.synthetic import ring_rig
from calibration.view_noise import view_noise


def seen_by(rng: np.random.Generator, sd: tuple[float, ...], n: int = 600) -> tuple[CameraRig, np.ndarray]:
    """A rig and n points in its views (V, n, 2), with noise of these standard deviations."""
    rig = ring_rig(len(sd), rng, radius=1000.0, height=700.0)
    xy = rig.project(rng.uniform(-150, 150, (n, 3)))
    return rig, xy + np.array(sd)[:, None, None] * rng.normal(size=xy.shape)


@pytest.mark.parametrize("sd", [(1.0, 2.0, 4.0), (3.0, 0.5, 0.5, 1.5), (2.0, 2.0, 2.0, 2.0, 2.0, 6.0)])
def test_each_view_has_its_own(rng: np.random.Generator, sd: tuple[float, ...]) -> None:
    rig, xy = seen_by(rng, sd)
    noise = view_noise(xy, rig)
    assert (noise.n > 590).all()
    np.testing.assert_array_less(np.abs(noise.sd - sd), 3 * noise.se)
    assert (noise.se < 0.35 * noise.sd).all()


def test_the_standard_error_is_what_repeated_estimates_scatter(rng: np.random.Generator) -> None:
    sd = (1.0, 2.0, 3.0, 1.0, 1.5)
    told = [view_noise(*reversed(seen_by(rng, sd, n=200))) for _ in range(60)]
    deviations = (np.array([one.sd for one in told]) - sd) / np.mean([one.se for one in told], axis=0)
    # of 60 standard deviates the mean is known to 0.13, the SD to 0.09
    assert np.abs(deviations.mean(axis=0)).max() < 0.5
    assert deviations.std(axis=0).min() > 0.7
    assert deviations.std(axis=0).max() < 1.3


def test_two_views_are_taken_as_alike(rng: np.random.Generator) -> None:
    """With one residual a point, few points tell no more than a mean of both."""
    rig, xy = seen_by(rng, (1.5, 1.5), n=100)
    noise = view_noise(xy, rig)
    assert abs(np.diff(noise.sd)) < 0.2 * noise.sd[0]
    common = np.sqrt((noise.sd**2).mean())
    assert abs(common - 1.5) < 3 * 1.5 / np.sqrt(2 * 100)
    assert (noise.se > 1.5 / np.sqrt(2 * 100)).all(), "how they differ is not known so well"
    rig, xy = seen_by(rng, (1.0, 2.0), n=100)
    assert np.sqrt((view_noise(xy, rig).sd ** 2).mean()) == pytest.approx(np.sqrt(2.5), rel=0.25)


def test_mistakes_and_gaps_do_not_count(rng: np.random.Generator) -> None:
    sd = (1.0, 1.0, 2.0, 2.0)
    rig, xy = seen_by(rng, sd)
    xy[rng.uniform(size=xy.shape[:2]) < 0.1] = np.nan
    wrong = rng.uniform(size=xy.shape[:2]) < 0.03
    xy[wrong] += rng.uniform(60, 200, (int(wrong.sum()), 2))
    noise = view_noise(xy, rig)
    np.testing.assert_array_less(np.abs(noise.sd - sd), 0.15 * np.array(sd))
    np.testing.assert_array_less(noise.n, np.isfinite(xy[..., 0]).sum(axis=1))


def test_nothing_is_said_of_what_is_hardly_seen(rng: np.random.Generator) -> None:
    rig, xy = seen_by(rng, (1.0, 1.0, 1.0))
    few = view_noise(xy[:, :3], rig)
    assert np.isnan(few.sd).all()
    assert not few.n.any()
    xy[2] = np.nan
    noise = view_noise(xy, rig)
    assert np.isfinite(noise.sd[:2]).all()
    assert np.isnan(noise.sd[2])
    with pytest.raises(InputError, match="expected \\(3 views, points, 2\\)"):
        view_noise(xy[:2], rig)


def test_perfect_views_have_next_to_no_noise(rng: np.random.Generator) -> None:
    rig, xy = seen_by(rng, (0.0, 0.0, 0.0), n=50)
    assert (view_noise(xy, rig).sd < 0.01).all()
