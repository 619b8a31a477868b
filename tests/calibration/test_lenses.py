"""Kinds of lenses: what is sought of each, under which names, with which prior."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.camera import INTRINSIC_PARAMETERS, Intrinsics, pixels_from_camera
from calibration.lenses import LENSES, RADIAL, Lens, free_parameters, lens_of, parameter_names, prior_intrinsics


def test_prior_is_an_ordinary_lens() -> None:
    prior, sigma = prior_intrinsics((1000, 600))
    np.testing.assert_allclose(prior.parameters, [900, 900, 499.5, 299.5] + [0] * 8)
    np.testing.assert_allclose(sigma[:9], [450, 450, 20, 20, 0.3, 0.3, 0.003, 0.003, 0.3])
    assert np.isinf(sigma[9:]).all()
    np.testing.assert_array_equal(prior_intrinsics((600, 1000), 880.0)[1][:2], 450)
    np.testing.assert_array_equal(prior_intrinsics((600, 1000), 2000.0)[1][:2], 1000)


@pytest.mark.parametrize(("lens", "n"), [("pinhole", 9), ("fisheye", 8), ("rational", 12)])
def test_what_is_sought_has_a_prior_and_a_name(lens: Lens, n: int) -> None:
    prior, sigma = prior_intrinsics((1000, 600), lens=lens)
    assert lens_of(prior) == lens
    np.testing.assert_array_equal(np.isfinite(sigma), free_parameters(prior))
    assert free_parameters(prior).sum() == n == len(parameter_names(prior))
    assert not prior.dist.any()


def test_radial_coefficients_are_those_that_turn_with_the_image() -> None:
    """A nudge of a radial coefficient moves a pixel along its radius by a power of it; the columns fall in power."""
    powers = {"pinhole": (7, 5, 3), "fisheye": (9, 7, 5, 3), "rational": (7, 5, 3, 7, 5, 3)}
    for lens in LENSES:
        prior = prior_intrinsics((1000, 600), lens=lens)[0]
        r = np.array([0.2, 0.4])
        x_cam = np.stack((r, 0 * r, 1 + 0 * r), axis=-1)
        if lens == "fisheye":
            x_cam = np.stack((np.sin(r), 0 * r, np.cos(r)), axis=-1)
        for column, power in zip(RADIAL[lens], powers[lens], strict=True):
            parameters = prior.parameters + 1e-3 * (np.arange(12) == column)
            bent = Intrinsics.from_parameters(prior.size, parameters, prior.model, len(prior.dist))
            moved = pixels_from_camera(x_cam, bent) - pixels_from_camera(x_cam, prior)
            assert moved[1, 0] / moved[0, 0] == pytest.approx(2.0**power, rel=0.01)
            assert not moved[:, 1].any()
        rest = [INTRINSIC_PARAMETERS[c] for c in range(4, 12) if free_parameters(prior)[c] and c not in RADIAL[lens]]
        assert rest == ([] if lens == "fisheye" else ["d3", "d4"])
