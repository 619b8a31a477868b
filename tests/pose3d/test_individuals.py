from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pose3d.individuals import (
    CONFIRM,
    IdentityState,
    born,
    buried,
    corrected,
    counted,
    initial_state,
    learned,
    motion,
    noise,
    radius_3d,
    state_from_arrays,
    state_to_arrays,
    step_rms,
    together,
)
from pose3d.kalman import predict

Float = NDArray[np.float64]

# rms radius 10: the corners of a square of half diagonal 10
SQUARE = 10.0 * np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
NOTHING = np.zeros(0)


def at(*places: float) -> Float:
    """Animals (n, 4, 3), each a square centred at (place, 0, 0)."""
    return SQUARE + np.array(places)[:, None, None] * np.array([1.0, 0, 0])


def step(
    state: IdentityState, points: Float, *, sd: float = 0.1, max_gap: int = 5, individuals: int | None = None
) -> IdentityState:
    """One frame in which the live tracks, then new ones, were measured at points (n, 4, 3)."""
    from dataclasses import replace

    mean, covariance = predict(state.mean, state.covariance, motion(state))
    state = learned(replace(state, mean=mean, covariance=covariance), points, NOTHING)
    state = born(state, points[len(mean) :])
    state = corrected(state, points, np.broadcast_to(sd**2 * np.eye(3), (*points.shape, 3)))
    return buried(state, max_gap, individuals)


def test_a_track_is_born_seen_and_remembered() -> None:
    state = step(initial_state(4), at(0.0, 100.0))
    assert state.live.tolist() == [0, 1]
    assert int(state.frames) == 1
    state = step(state, at(1.0, 99.0, 50.0))
    assert state.live.tolist() == [0, 1, 2]
    assert (state.first.tolist(), state.last.tolist(), state.seen.tolist()) == ([0, 0, 1], [1, 1, 1], [2, 2, 1])
    np.testing.assert_array_equal(state.began, at(0.0, 100.0, 50.0))
    np.testing.assert_allclose(state.ended[:, :, :3], at(1.0, 99.0, 50.0), atol=0.1)
    np.testing.assert_array_equal(state.ended[:2], state.mean[:2])
    ended = state.ended.copy()
    state = step(state, np.where(np.array([True, False, True])[:, None, None], np.nan, at(0, 98.0, 0)))
    assert state.missed.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(state.ended[[0, 2]], ended[[0, 2]])
    assert state.last.tolist() == [1, 2, 1]


def test_tracks_are_forgotten_after_the_gap_and_unconfirmed_ones_at_once() -> None:
    state = initial_state(4)
    for f in range(CONFIRM):
        state = step(state, at(float(f)) if f < CONFIRM - 1 else at(float(f), 500.0))
    for missed in range(1, 7):
        state = step(state, np.full((len(state.live), 4, 3), np.nan), max_gap=5)
        expected = [0, 1] if missed == 1 else [0] if missed <= 5 else []
        assert state.live.tolist() == expected
    assert len(state.seen) == 2
    assert state.mean.shape == (0, 4, 6)
    assert state.recent.shape == (0, 4, 3)
    assert state.covariance.shape == (0, 4, 6, 6)


@pytest.mark.parametrize(("individuals", "kept"), [(None, 50), (3, 50), (2, 10)])
def test_a_track_too_many_is_forgotten_sooner(individuals: int | None, kept: int) -> None:
    """Three were seen, then only two: where no more than two are there, another has taken over the third's."""
    state = initial_state(4)
    for _ in range(CONFIRM):
        state = step(state, at(0.0, 100.0, 200.0), max_gap=50)
    gone = at(0.0, 100.0, np.nan)
    for missed in range(1, 52):
        state = step(state, gone[: len(state.live)], max_gap=50, individuals=individuals)
        assert state.live.tolist() == [0, 1, 2][: 3 if missed <= kept else 2]


def test_a_keypoint_that_could_be_anywhere_is_forgotten() -> None:
    state = step(initial_state(4), at(0.0))
    state = step(state, at(1.0))
    for _ in range(3):
        points = at(2.0)
        points[0, 1] = np.nan
        state = step(state, points)
    sd = np.sqrt(np.trace(state.covariance[0, 0, :3, :3]) / 3)
    assert sd < 1.0
    assert np.isnan(state.mean[0, 1]).all() == np.isnan(state.covariance[0, 1]).all()
    for _ in range(20):
        points = at(2.0)
        points[0, 1] = np.nan
        before = state
        state = step(state, points)
        unsure = np.sqrt(np.trace(predict(before.mean, before.covariance, motion(before))[1][0, 1, :3, :3]) / 3)
        if not np.isnan(unsure):
            assert np.isnan(state.mean[0, 1]).all() == (unsure > radius_3d(state))
    assert np.isnan(state.mean[0, 1]).all()
    assert np.isfinite(state.mean[0, 0]).all()


def test_a_keypoint_seen_first_moves_with_its_animal() -> None:
    state = initial_state(4)
    for f in range(30):
        points = at(3.0 * f)
        points[0, 2] = np.nan
        state = step(state, points)
    state = step(state, at(90.0))
    np.testing.assert_allclose(state.mean[0, 2], [90.0, 10, 0, 3, 0, 0], atol=0.2)
    variance = step_rms(state)[2] ** 2
    np.testing.assert_allclose(np.diag(state.covariance[0, 2])[3:], variance, rtol=0.2)


def test_what_is_learned_from_a_frame() -> None:
    state = initial_state(4)
    assert radius_3d(state) == np.inf
    state = learned(state, at(0.0, 50.0), np.array([0.02, np.nan, 0.02]))
    assert state.radius.tolist() == [20.0, 2.0]
    assert radius_3d(state) == 10.0
    assert state.histogram.sum() == 2
    assert step_rms(state) == pytest.approx(0.3 * 10.0), "the guess"
    assert motion(state).acceleration == pytest.approx((0.1 * 10.0) ** 2)
    assert motion(state).walk == 0.0
    state = step(initial_state(4), at(0.0))
    for f in range(1, 2001):
        state = step(state, at(2.0 * f))
    known = 4.0 / 3.0 * 2000 * 3
    expected = np.sqrt((known + 30 * 9.0) / (2000 * 3 + 30))
    np.testing.assert_allclose(step_rms(state), expected, rtol=1e-9)
    assert (state.steps[1] == 6000).all()


def test_one_wild_step_counts_at_most_six_times_the_usual() -> None:
    state = step(initial_state(4), at(0.0))
    before = step_rms(state)
    state = step(state, at(1e6))
    np.testing.assert_allclose(state.steps[0], (6 * before) ** 2)


@pytest.mark.parametrize("true", [0.02, 0.05, 0.15])
def test_the_2d_noise_is_the_robust_spread_of_the_distances(rng: np.random.Generator, true: float) -> None:
    state = initial_state(1)
    assert noise(state) == pytest.approx(0.1, rel=0.05)
    distances = np.abs(true * rng.normal(size=20000))
    distances[:1000] = 5.0
    state = learned(state, np.full((0, 1, 3), np.nan), distances)
    assert noise(state) == pytest.approx(true, rel=0.1)
    assert noise(learned(initial_state(1), np.full((0, 1, 3), np.nan), np.full(9999, 9.0))) == 0.2
    assert noise(learned(initial_state(1), np.full((0, 1, 3), np.nan), np.full(9999, 0.0))) == 0.01


@pytest.mark.parametrize(("sd", "most"), [(0.05, 1.0), (2.0, 30.0)])
def test_the_filter_learns_how_unsteady_the_animals_are(rng: np.random.Generator, sd: float, most: float) -> None:
    """Acceleration of known variance: the filter's own comes near it from a guess that is far off."""
    velocity, place, state = np.zeros((3, 4, 3)), at(0.0, 200.0, 400.0), initial_state(4)
    for _ in range(300):
        acceleration = sd * rng.normal(size=velocity.shape)
        place = place + velocity + acceleration / 2
        velocity = velocity + acceleration
        state = step(state, place + 0.1 * sd * rng.normal(size=place.shape), sd=0.1 * sd)
    radius = radius_3d(state)
    found = np.sqrt(np.mean(motion(state).acceleration))
    assert sd / 2.5 < found < 2.5 * sd
    assert radius > 0


def test_the_state_is_arrays_and_back() -> None:
    state = step(step(initial_state(4), at(0.0, 9.0)), at(1.0, 8.0))
    arrays = state_to_arrays(state)
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
    again = state_from_arrays(arrays)
    for name, array in state_to_arrays(again).items():
        np.testing.assert_array_equal(array, arrays[name])


def test_as_many_are_there_as_are_seen_at_once_now_and_then() -> None:
    """A tenth of the frames, lately: a newcomer counts after a while, one that is gone no longer."""
    state = initial_state(2)
    for _ in range(20):
        state = counted(state, 4)
    assert together(state) == 0, "too few frames to say"
    for f in range(100):
        state = counted(state, 5 if f == 50 else 3 + f % 2)
    assert together(state) == 4
    for _ in range(20):
        state = counted(state, 5)
    assert together(state) == 5
    for _ in range(10_000):
        state = counted(state, 2)
    assert together(state) == 2
    assert len(state_to_arrays(state)["at_once"]) == 6
