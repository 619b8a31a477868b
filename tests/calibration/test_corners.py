from __future__ import annotations

import numpy as np
import pytest
from scipy.special import erf

from calibration.corners import refine_corners

U, V = np.array([26.0, 5.0]), np.array([-7.0, 24.0])
DET = U[0] * V[1] - U[1] * V[0]


def saddle(
    centre: np.ndarray, u: np.ndarray = U, v: np.ndarray = V, *, blur: float = 1.0, high: float = 90.0
) -> np.ndarray:
    """(80, 90) float: four squares meeting at `centre`, dark towards -u -v and +u +v, 128 - high to 128 + high."""
    y, x = np.mgrid[0:80, 0:90].astype(float)
    dx, dy = x - centre[0], y - centre[1]
    across_v = (dx * v[1] - dy * v[0]) / np.hypot(*v)
    across_u = (dy * u[0] - dx * u[1]) / np.hypot(*u)
    return 128 - high * erf(across_v / blur / np.sqrt(2)) * erf(across_u / blur / np.sqrt(2))


def refine(
    picture: np.ndarray, start: np.ndarray, u: np.ndarray = U, v: np.ndarray = V, rim: float = 0.5, dark: bool = True
) -> tuple[np.ndarray, float, float]:
    """Centre (2,), sigma, contrast of one corner."""
    gray = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    xy, sigma, contrast = refine_corners(gray, start[None], u[None], v[None], rim, np.array([dark]))
    return xy[0], sigma[0], contrast[0]


def plain_refine(
    gray: np.ndarray, start: np.ndarray, u: np.ndarray, v: np.ndarray, rim: float
) -> tuple[np.ndarray, float]:
    """The paper's estimate over all pixels of the image at once, to convergence."""
    det = u[0] * v[1] - u[1] * v[0]
    high_v, high_u = det / np.hypot(*u), det / np.hypot(*v)  # px across the square, along v and along u
    half_u, half_v = (np.clip(0.7 * rim * high, 2.0, 9.0) / high for high in (high_u, high_v))
    reach_u, reach_v = min(0.45, 16 / np.hypot(*u)), min(0.45, 16 / np.hypot(*v))
    grey = gray.astype(float)
    gradient = np.stack([(grey[1:-1, 2:] - grey[1:-1, :-2]) / 2, (grey[2:, 1:-1] - grey[:-2, 1:-1]) / 2], axis=-1)
    columns, rows = (np.arange(1.0, side - 1) for side in gray.shape[::-1])
    pixels = np.stack(np.meshgrid(columns, rows), axis=-1)
    point = start.copy()
    for _ in range(60):
        offset = pixels - point
        a, b = np.moveaxis(offset @ np.linalg.inv(np.stack([u, v])), -1, 0)
        bump = lambda s: np.maximum(1 - s**2, 0) ** 2  # noqa: E731
        weight = np.maximum(bump(a / reach_u) * bump(b / half_v), bump(a / half_u) * bump(b / reach_v))
        normal = np.einsum("yx,yxi,yxj->ij", weight, gradient, gradient)
        along = (gradient * offset).sum(axis=-1)
        step = np.linalg.solve(normal, np.einsum("yx,yxi,yx->i", weight, gradient, along))
        point = point + step
    rest = (weight * along**2).sum() / weight.sum() * (weight**2).sum() / weight.sum()
    return point, float(np.sqrt(rest * np.trace(np.linalg.inv(normal)) / 2))


@pytest.mark.parametrize("rim", [0.06, 0.11, 0.5])
@pytest.mark.parametrize("scale", [1.0, 1.7])
def test_kernel_is_the_estimate_of_the_paper(rng: np.random.Generator, rim: float, scale: float) -> None:
    for _ in range(3):
        centre = np.array([44.0, 39.0]) + rng.uniform(-0.5, 0.5, 2)
        picture = saddle(centre, scale * U, scale * V) + rng.normal(0, 4, (80, 90))
        start = centre + rng.uniform(-1, 1, 2)
        xy, sigma, _ = refine(picture, start, scale * U, scale * V, rim)
        gray = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
        expected, precision = plain_refine(gray, start, scale * U, scale * V, rim)
        np.testing.assert_allclose(xy, expected, atol=2e-3)
        assert sigma == pytest.approx(precision, rel=0.02)


def test_no_bias_and_less_noise_than_a_hundredth_of_a_pixel(rng: np.random.Generator) -> None:
    errors = []
    for _ in range(60):
        centre = np.array([44.0, 39.0]) + rng.uniform(-0.5, 0.5, 2)
        xy, sigma, _ = refine(saddle(centre) + rng.normal(0, 2, (80, 90)), centre + rng.uniform(-1.5, 1.5, 2))
        errors.append(xy - centre)
        assert sigma < 0.15
    assert np.abs(np.mean(errors, axis=0)).max() < 0.005
    assert np.std(errors) < 0.02


def test_sigma_grows_with_noise_as_the_error_does(rng: np.random.Generator) -> None:
    def spread(noise: float) -> tuple[float, float]:
        centre = np.array([44.2, 39.4])
        results = [refine(saddle(centre) + rng.normal(0, noise, (80, 90)), centre) for _ in range(40)]
        actual = np.std([xy for xy, _, _ in results], axis=0).mean()
        return float(actual), float(np.mean([sigma for _, sigma, _ in results]))

    (quiet, claimed_quiet), (loud, claimed_loud) = spread(2.0), spread(25.0)
    assert loud > 5 * quiet
    assert claimed_loud > 1.3 * claimed_quiet
    assert 0.5 < loud / claimed_loud < 2, "about as good as it says where noise decides"
    assert quiet < claimed_quiet, "and better where the width of the edges does"


def test_only_the_corner_that_was_meant_is_taken() -> None:
    centre = np.array([44.0, 39.0])
    picture = saddle(centre)
    assert np.isfinite(refine(picture, centre + 0.2 * U)[1])
    assert np.isnan(refine(picture, centre + 0.28 * U)[1]), "a quarter of a square off"
    assert np.isnan(refine(picture, centre - 0.28 * V)[1])
    assert np.isnan(refine(picture, centre, dark=False)[1]), "black where white should be"
    assert np.isnan(refine(picture, centre, V, U)[1]), "mirrored"
    assert np.isnan(refine(np.full((80, 90), 128.0), centre)[1]), "nothing there"
    assert np.isnan(refine(picture, np.array([0.2, 39.0]))[1]), "outside"
    noise = np.random.default_rng(0).normal(0, 15, (80, 90))
    assert np.isnan(refine(saddle(centre, blur=3.0, high=6.0) + noise, centre)[1]), "too noisy to say"


def test_contrast_is_that_of_the_four_squares() -> None:
    centre = np.array([44.0, 39.0])
    for high, seen in ((90.0, True), (10.0, True), (3.0, False)):
        xy, sigma, contrast = refine(saddle(centre, high=high), centre)
        assert np.isfinite(sigma) == seen
        if seen:
            np.testing.assert_allclose(xy, centre, atol=0.02)
            assert contrast == pytest.approx(2 * high, abs=3)
    tilted = saddle(centre)
    tilted[:, :44] -= 60
    assert refine(np.maximum(tilted, 0), centre)[2] < 130, "the darkest white counts"
    u, v = 12 * U / np.hypot(*U), 12 * V / np.hypot(*V)
    assert refine(saddle(centre, u, v), centre, u, v, rim=0.1)[2] > 100, "sampled 2 px away at least, out of the blur"


def test_no_corners_are_no_error() -> None:
    empty = np.zeros((0, 2))
    xy, sigma, contrast = refine_corners(np.zeros((9, 9), np.uint8), empty, empty, empty, 0.1, np.zeros(0, bool))
    assert xy.shape == (0, 2)
    assert len(sigma) == len(contrast) == 0
    nothing = np.full((2, 2), np.nan)
    blank = np.zeros((9, 9), np.uint8)
    assert np.isnan(refine_corners(blank, nothing, nothing, nothing, 0.1, np.zeros(2, bool))[1]).all()
