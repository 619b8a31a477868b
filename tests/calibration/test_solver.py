"""The solver against scipy's, dense linear algebra and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import least_squares

from calibration.solver import (
    LOSSES,
    BandedSystem,
    SchurSystem,
    SolverOptions,
    banded,
    banded_covariance,
    levenberg_marquardt,
    loss_weight,
    m_estimator_variance,
    robust,
    schur,
    schur_covariance,
    schur_reduced,
)

TIGHT = SolverOptions(cost_tolerance=1e-15)


def dense_step(system, damping):
    """(H + damping diag(H)) step = -g with plain linear algebra."""
    H, g = system
    damped = H + damping * np.diag(np.diag(H))
    step = -np.linalg.solve(damped, g)
    return step, -(g @ step + 0.5 * step @ H @ step)


def minimise(residual, jacobian, x0, loss, scale, options=TIGHT):
    def evaluate(x):
        r, J = residual(x), jacobian(x)
        rho, w = loss_weight(r**2, loss, scale)
        return 0.5 * rho.sum(), (J.T @ (w[:, None] * J), J.T @ (w * r))

    return levenberg_marquardt(x0, evaluate, dense_step, np.add, options)


def curve(rng, outliers=0.0):
    t = np.linspace(0, 3, 80)
    y = 2.0 * np.exp(-0.7 * t) + 0.5 + rng.normal(0, 0.02, t.size)
    y[rng.random(t.size) < outliers] += 3.0

    def residual(x):
        return x[0] * np.exp(-x[1] * t) + x[2] - y

    def jacobian(x):
        e = np.exp(-x[1] * t)
        return np.stack((e, -x[0] * t * e, np.ones_like(t)), axis=1)

    return residual, jacobian


@pytest.mark.parametrize("loss", ["linear", "huber", "soft_l1", "cauchy"])
def test_same_optimum_as_scipy(loss):
    residual, jacobian = curve(np.random.default_rng(1), outliers=0.1)
    found = minimise(residual, jacobian, np.array([1.0, 1.0, 0.0]), loss, 0.05)
    peer = least_squares(
        residual, [1.0, 1.0, 0.0], jacobian, loss=loss, f_scale=0.05, xtol=1e-14, ftol=1e-14, gtol=1e-14
    )
    assert found.converged
    assert found.cost == pytest.approx(peer.cost, rel=1e-9)
    np.testing.assert_allclose(found.x, peer.x, atol=2e-6)


def test_tukey_forgets_outliers_entirely():
    rng = np.random.default_rng(2)
    residual, jacobian = curve(rng, outliers=0.2)
    start = minimise(residual, jacobian, np.array([1.0, 1.0, 0.0]), "cauchy", 0.05).x
    found = minimise(residual, jacobian, start, "tukey", 0.12)
    clean = np.abs(residual(found.x)) < 0.12
    assert 5 <= (~clean).sum() <= 30
    np.testing.assert_allclose(found.x, [2.0, 0.7, 0.5], atol=4 * 0.02 * 3 / np.sqrt(clean.sum()))


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_agree_with_their_derivatives_and_scipy(loss):
    code, scale = LOSSES.index(loss), 1.7
    for s in (0.0, 0.3, 2.0, 2.8, 3.0, 7.0, 60.0):
        rho, weight, slope = robust(code, s, scale)
        h = 1e-5
        if s > 0:
            upper, lower = robust(code, s + h, scale), robust(code, s - h, scale)
            assert (upper[0] - lower[0]) / (2 * h) == pytest.approx(weight, abs=1e-8)
            assert (upper[1] - lower[1]) / (2 * h) == pytest.approx(slope, abs=1e-8)
        assert loss_weight(s, loss, scale)[0] == rho
        assert loss_weight(np.full((2, 3), s), loss, scale)[1].tolist() == [[weight] * 3] * 2
        if loss != "tukey":
            at = least_squares(lambda x, s=s: [x[0] + np.sqrt(s)], [0.0], loss=loss, f_scale=scale, max_nfev=1)
            assert rho == pytest.approx(2 * at.cost, abs=1e-12)
    assert robust(code, 0.0, scale)[:2] == (0.0, 1.0)  # small residuals are left alone
    if loss == "tukey":
        assert robust(code, 3.0, scale) == (scale**2 / 3, 0.0, 0.0)


def test_stops_and_says_whether_it_converged():
    residual, jacobian = curve(np.random.default_rng(3))
    start = np.array([1.0, 1.0, 0.0])
    short = minimise(residual, jacobian, start, "linear", 1.0, SolverOptions(max_iterations=2))
    assert (short.iterations, short.converged) == (2, False)
    assert minimise(residual, jacobian, start, "linear", 1.0).iterations < 15
    wrong = minimise(residual, lambda x: -jacobian(x), start, "linear", 1.0)  # uphill: every step is refused
    assert not wrong.converged
    np.testing.assert_array_equal(wrong.x, start)
    with pytest.raises(ValueError, match="not finite"):
        minimise(lambda x: np.full(80, np.nan), jacobian, start, "linear", 1.0)


def test_exact_fit_ends():
    x = np.linspace(0, 1, 9)
    found = minimise(
        lambda p: p[0] * x + p[1] - (3 * x + 1), lambda p: np.stack((x, x * 0 + 1), 1), np.zeros(2), "linear", 1
    )
    assert found.converged
    np.testing.assert_allclose(found.x, [3, 1], atol=1e-9)


def test_small_steps_for_want_of_trust_are_not_convergence():
    for damping in (0.5, 2.0):
        options = SolverOptions(initial_damping=damping)
        found = levenberg_marquardt(1.0, lambda x: (x, None), lambda *_: (0.0, 1e-12), float.__add__, options)
        assert found.converged == (damping < 1)


def test_damping_follows_the_gain_ratio():
    """On a quadratic the model is exact: gain 1, so the damping falls by three with every step (Nielsen's formula)."""
    dampings = []

    def solve(system, damping):
        dampings.append(damping)
        return dense_step(system, damping)

    H = np.diag([1.0, 100.0])
    levenberg_marquardt(
        np.array([1.0, 1.0]), lambda x: (0.5 * x @ H @ x, (H, H @ x)), solve, np.add,
        SolverOptions(initial_damping=0.9, max_iterations=4),
    )  # fmt: skip
    np.testing.assert_allclose(dampings, 0.9 / 3.0 ** np.arange(4))
    accepted, costs = [], iter([10.0, 9.25, 9.15, 9.15 - 0.999])

    def promising(system, damping):
        accepted.append(damping)
        return 0.0, 1.0

    options = SolverOptions(max_iterations=4, initial_damping=0.5)
    with pytest.raises(StopIteration):
        levenberg_marquardt(0.0, lambda x: (next(costs), None), promising, float.__add__, options)
    np.testing.assert_allclose(accepted, 0.5 * np.cumprod([1, 1 - 0.5**3, 1 + 0.8**3, 1 / 3]))  # gains 0.75, 0.1, 0.999
    refused = []

    def lying(system, damping):
        refused.append(damping)
        return np.ones(2), 1.0

    levenberg_marquardt(
        np.zeros(2), lambda x: (x @ x, x), lying, np.add, SolverOptions(max_iterations=4, initial_damping=1.0)
    )
    np.testing.assert_allclose(refused, [1, 2, 8, 64])


def schur_example(rng, held=()):
    n, A, b = 6, 5, 3
    J = rng.normal(size=(n, 12, A + b))
    J[:, :, list(held)] = 0
    r = rng.normal(size=(n, 12))
    H = np.einsum("nri,nrj->nij", J, J)
    g = np.einsum("nri,nr->ni", J, r)
    system = SchurSystem(H[:, :A, :A].sum(0), g[:, :A].sum(0), H[:, A:, A:], g[:, A:], H[:, :A, A:])
    full = np.zeros((A + n * b, A + n * b))
    full[:A, :A] = system.H_aa
    for i in range(n):
        rows = slice(A + i * b, A + (i + 1) * b)
        full[rows, rows] = system.H_bb[i]
        full[:A, rows] = system.H_ab[i]
        full[rows, :A] = system.H_ab[i].T
    return system, full, np.concatenate((system.g_a, system.g_b.ravel()))


@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_schur_equals_the_dense_solution(damping):
    system, H, g = schur_example(np.random.default_rng(4))
    (step_a, step_b), predicted = schur(system, damping)
    step, expected = dense_step((H, g), damping)
    np.testing.assert_allclose(np.concatenate((step_a, step_b.ravel())), step, atol=1e-10)
    if damping == 0:
        assert predicted == pytest.approx(expected)
    else:  # of the damped model: half of (damping step'D step - g'step)
        assert predicted == pytest.approx(0.5 * (damping * step @ (np.diag(H) * step) - g @ step))
    assert predicted == pytest.approx(-(g @ step + 0.5 * step @ H @ step))


def test_schur_holds_what_has_no_columns():
    system, H, g = schur_example(np.random.default_rng(5), held=(1, 6))
    free = np.diag(H) > 0
    (step_a, step_b), _ = schur(system, 0.1)
    step = np.zeros(len(g))
    step[free] = dense_step((H[np.ix_(free, free)], g[free]), 0.1)[0]
    np.testing.assert_allclose(np.concatenate((step_a, step_b.ravel())), step, atol=1e-10)
    covariance = schur_covariance(system)
    expected = np.zeros_like(H)
    expected[np.ix_(free, free)] = np.linalg.inv(H[np.ix_(free, free)])
    np.testing.assert_allclose(covariance, expected[:5, :5], atol=1e-9)


def test_reduced_equations_are_those_of_a_dense_elimination():
    """Also where a block's data leave it open in a direction: it stays where it is in that."""
    system, _, _ = schur_example(np.random.default_rng(4))
    H_bb, g_b, H_ab = system.H_bb.copy(), system.g_b.copy(), system.H_ab.copy()
    H_bb[1, 2], H_bb[1, :, 2], g_b[1, 2], H_ab[1, :, 2] = 0.0, 0.0, 0.0, 0.0
    H, g = system.H_aa.copy(), system.g_a.copy()
    for block, gradient, coupling in zip(H_bb, g_b, H_ab, strict=True):
        inverse = np.linalg.pinv(block)
        H -= coupling @ inverse @ coupling.T
        g -= coupling @ inverse @ gradient
    reduced = schur_reduced(SchurSystem(system.H_aa, system.g_a, H_bb, g_b, H_ab))
    np.testing.assert_allclose(reduced[0], H, atol=1e-9 * np.abs(H).max())
    np.testing.assert_allclose(reduced[1], g, atol=1e-9 * np.abs(g).max())


def test_an_undetermined_direction_is_not_taken_for_known():
    system, _, _ = schur_example(np.random.default_rng(6))
    J = np.array([1.0, 1.0, 0, 0, 0])  # only the sum of the first two is measured
    blank = np.diag([0.0, 0.0, 1.0, 1.0, 1.0]) + np.outer(J, J)
    covariance = schur_covariance(SchurSystem(blank, system.g_a, system.H_bb, system.g_b, 0 * system.H_ab))
    assert min(covariance[0, 0], covariance[1, 1]) > 1e10
    assert J @ covariance @ J == pytest.approx(1.0, rel=1e-3)
    (step_a, _), _ = schur(SchurSystem(blank, -blank[0], system.H_bb, system.g_b, 0 * system.H_ab), 0.0)
    assert J @ step_a == pytest.approx(1.0)


def banded_example(rng, n=30, u=7):
    L = np.tril(rng.normal(size=(n, n)))
    L[np.subtract.outer(np.arange(n), np.arange(n)) > u] = 0
    L[np.diag_indices(n)] = 3 + rng.random(n)
    H = L @ L.T
    bands = np.zeros((u + 1, n))
    for i in range(u + 1):
        bands[i, : n - i] = np.diagonal(H, -i)
    return BandedSystem(bands, rng.normal(size=n)), H


def test_banded_equals_the_dense_solution():
    system, H = banded_example(np.random.default_rng(7))
    before = system.bands.copy()
    step, predicted = banded(system, 0.2)
    expected, decrease = dense_step((H, system.gradient), 0.2)
    np.testing.assert_allclose(step, expected, atol=1e-10)
    assert predicted == pytest.approx(decrease)
    np.testing.assert_array_equal(system.bands, before)


@pytest.mark.parametrize(("n", "u", "block"), [(30, 7, 3), (12, 11, 3), (9, 2, 3), (6, 0, 1), (20, 5, 2)])
def test_selected_inverse_equals_the_dense_inverse(n, u, block):
    system, H = banded_example(np.random.default_rng(8), n, u)
    inverse = np.linalg.inv(H)
    expected = [inverse[i : i + block, i : i + block] for i in range(0, n, block)]
    np.testing.assert_allclose(banded_covariance(system, block), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("loss", "scale"), [("linear", 1.0), ("huber", 0.8), ("soft_l1", 1.0), ("cauchy", 1.5), ("tukey", 3.0)]
)
def test_variance_of_a_robust_mean(loss, scale):
    """Monte Carlo: the mean of 40 points in the plane, 2000 times; the stated variance is that of the estimates."""
    rng = np.random.default_rng(9)
    data = rng.normal(0, 1.3, size=(2000, 40, 2))
    mean = data.mean(1)
    for _ in range(60):
        _, w = loss_weight(((data - mean[:, None]) ** 2).sum(-1), loss, scale)
        mean = (w[..., None] * data).sum(1) / w.sum(1)[:, None]
    squared = ((data - mean[:, None]) ** 2).sum(-1)
    _, w = loss_weight(squared, loss, scale)
    stated = [m_estimator_variance(s, loss, scale, 2) / v.sum() for s, v in zip(squared, w, strict=True)]
    assert np.mean(stated) == pytest.approx(mean.var(), rel=0.08)
