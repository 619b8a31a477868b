"""A camera that was moved is found, and only then: by name, frame and pose, from points with realistic noise."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration import drift
from calibration.drift import DriftOptions, check_rig
from calibration.errors import InputError
from calibration.hypotheses import judge
from calibration.normal_equations import stepped, with_cameras
from calibration.rig import CameraRig
from calibration.synthetic import ring_rig, simulate_tracks
from calibration.transforms import exp_so3, log_so3

Array = NDArray[np.float64]
KINDS = 12


def animals(rng: np.random.Generator, frames: int, n: int) -> tuple[Array, NDArray[np.intp]]:
    """(frames, n * KINDS, 3) rigid bodies of 80 mm that wander and turn on a floor of 300 mm, and the points' kinds."""
    body = rng.normal(0, 30, (KINDS, 3))
    out = []
    for _ in range(n):
        turn = np.cumsum(rng.normal(0, 0.1, frames))
        R = exp_so3(np.stack((0.2 * np.sin(turn), 0 * turn, turn), axis=1))
        path = np.cumsum(rng.normal(size=(frames + 50, 2)), axis=0)
        path = np.stack([np.convolve(p, np.ones(51) / 51, mode="valid") for p in path.T], axis=1)
        path = 150 * np.sin(path / 8)
        place = np.concatenate((path, np.full((frames, 1), 20.0)), axis=1)
        out.append(np.einsum("fij,kj->fki", R, body) + place[:, None])
    return np.concatenate(out, axis=1), np.tile(np.arange(KINDS), n)


def turned(rig: CameraRig, view: int, degrees: float, axis: Array, pivot: Array) -> CameraRig:
    """The rig with one camera turned about a pivot in its own frame."""
    R = exp_so3(np.deg2rad(degrees) * axis / np.linalg.norm(axis))
    cameras = list(rig.cameras)
    cameras[view] = replace(cameras[view], R=R @ cameras[view].R, t=R @ (cameras[view].t - pivot) + pivot)
    return CameraRig(tuple(cameras), rig.unit, rig.covariance)


def recording(
    seed: int, views: int = 4, frames: int = 400, n: int = 1, degrees: float = 0.0, since: int = 0, view: int = 1
) -> tuple[CameraRig, CameraRig, Array, NDArray[np.intp]]:
    """rig, rig after the nudge, pixels, kinds."""
    rng = np.random.default_rng(seed)
    rig = ring_rig(views, rng, radius=600, height=400, size=(1280, 1024), focal_px=1100)
    points, kind = animals(rng, frames, n)
    after = turned(rig, view, degrees, rng.normal(size=3), rng.uniform(-40, 40, 3))
    before = simulate_tracks(rig, points, np.random.default_rng([seed, 1]), kind=kind)
    xy = simulate_tracks(after, points, np.random.default_rng([seed, 1]), kind=kind)
    xy[:, :since] = before[:, :since]
    return rig, after, xy, kind


def test_a_nudge_in_mid_recording_is_found_by_name_frame_and_pose() -> None:
    rig, after, xy, kind = recording(1, frames=3000, n=3, degrees=0.3, since=1700)
    report = check_rig(rig, xy, kind=kind)
    assert not report.holds
    (moved,) = report.cameras
    assert moved.name == "cam1"
    assert moved.others == ()
    assert moved.since is not None
    assert abs(moved.since - 1700) <= 30
    away = np.rad2deg(np.linalg.norm(log_so3(moved.camera.R @ after["cam1"].R.T)))
    assert away < 0.05
    assert away < 3 * moved.turn_sd_deg
    assert moved.turn_deg == pytest.approx(0.3, abs=0.05)
    repaired = report.repaired(rig)
    assert repaired.names == rig.names
    np.testing.assert_array_equal(repaired["cam1"].R, moved.camera.R)
    np.testing.assert_array_equal(repaired["cam2"].R, rig["cam2"].R)
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert (plain["holds"], plain["cameras"][0]["name"]) == (False, "cam1")
    text = report.text([f"f{i}" for i in range(3000)])
    assert f"cam1: moved at frame f{moved.since}: turned by {moved.turn_deg:.2f}°" in text
    assert "--moved cam1" in text


@pytest.mark.parametrize(("seed", "views"), [(3, 3), (4, 4), (5, 6)])
def test_no_alarm_while_nothing_moves(seed: int, views: int) -> None:
    rig, _, xy, kind = recording(seed, views)
    report = check_rig(rig, xy, kind=kind)
    assert report.holds, report.text()
    assert "the rig holds" in report.text()
    assert 2 < report.noise_px < 4
    assert 0.7 < report.bias_px < 2.2  # 1 to 3 px long: 1.45 px a coordinate
    assert all(0.05 < turn < 2 for turn in report.smallest_turn_deg)


def test_a_camera_that_was_off_from_the_start() -> None:
    rig, after, xy, kind = recording(6, degrees=1.0)
    (moved,) = check_rig(rig, xy, kind=kind).cameras
    assert (moved.name, moved.since) == ("cam1", None)
    away = np.rad2deg(np.linalg.norm(log_so3(moved.camera.R @ after["cam1"].R.T)))
    assert away < 3 * moved.turn_sd_deg
    known = np.diag(np.tile([0.02**2] * 3 + [10.0**2] * 3 + [0.0] * 12, 4))
    expected = check_rig(replace(rig, covariance=known), xy, kind=kind)
    assert expected.holds  # a calibration that is so poorly known is not contradicted


def test_a_large_move_and_a_second_camera() -> None:
    rig, after, xy, kind = recording(7, views=5, frames=600, degrees=4.0, since=200)
    rng = np.random.default_rng(8)
    later = turned(after, 3, 1.0, rng.normal(size=3), np.zeros(3))
    _, _, both, _ = recording(7, views=5, frames=600, degrees=4.0, since=200)
    points, _ = animals_of(7, 5, 600)
    both[:, 420:] = simulate_tracks(later, points, np.random.default_rng([7, 1]), kind=kind)[:, 420:]
    report = check_rig(rig, both, kind=kind)
    assert [moved.name for moved in report.cameras] == ["cam1", "cam3"]
    assert report.cameras[0].turn_deg == pytest.approx(4.0, abs=0.3)
    assert [abs(moved.since - when) <= 15 for moved, when in zip(report.cameras, (200, 420), strict=True)]
    del xy


def animals_of(seed: int, views: int, frames: int) -> tuple[Array, NDArray[np.intp]]:
    """The points of `recording` of this seed."""
    rng = np.random.default_rng(seed)
    ring_rig(views, rng, radius=600, height=400, size=(1280, 1024), focal_px=1100)
    return animals(rng, frames, 1)


@pytest.mark.parametrize(("seed", "n", "degrees"), [(14, 1, 0.3), (18, 2, 0.5)])
def test_of_three_cameras_the_one_that_explains_most_moved(seed: int, n: int, degrees: float) -> None:
    """Where the evidence is clear every p is tiny, and which one is smallest says nothing."""
    rng = np.random.default_rng(seed)
    rig = ring_rig(3, rng, radius=600, height=400, size=(1280, 1024), focal_px=1100)
    points, kind = animals(rng, 1500, n)
    after = turned(rig, 2, degrees, rng.normal(size=3), rng.uniform(-40, 40, 3))
    before, xy = (
        simulate_tracks(r, points, np.random.default_rng([seed, 1]), kind=kind, correlation=0.0) for r in (rig, after)
    )
    xy[:, :750] = before[:, :750]
    (moved,) = check_rig(rig, xy, kind=kind).cameras
    assert moved.name == "cam2"
    assert abs(moved.since - 750) <= 15
    away = np.rad2deg(np.linalg.norm(log_so3(moved.camera.R @ after["cam2"].R.T)))
    assert away < 4 * moved.turn_sd_deg


def test_two_cameras_do_not_tell_which_one() -> None:
    rig, _, xy, kind = recording(9, views=2, degrees=1.0, since=200)
    (moved,) = check_rig(rig, xy, kind=kind).cameras
    assert {moved.name, *moved.others} == {"cam0", "cam1"}
    assert "which of them it was, these points do not tell" in check_rig(rig, xy, kind=kind).text()


def test_standard_deviations_are_those_of_the_scatter() -> None:
    """Moves of zero, judged at a known moment, in 16 recordings: squared over their covariance, about the rank."""
    squared = []
    points, kind = animals_of(10, 4, 400)
    for seed in range(16):
        rig = ring_rig(4, np.random.default_rng(10), radius=600, height=400, size=(1280, 1024), focal_px=1100)
        xy = simulate_tracks(rig, points, np.random.default_rng([seed, 1]), kind=kind)
        search = drift._Search(rig, DriftOptions(), *drift._checked(rig, xy, None, kind))
        verdict = judge(search.evidence, search.terms(), search.bias, search.term(drift._Move(2, 200)))
        squared.append(verdict.step @ verdict.information @ verdict.step / 6)
    assert 0.6 < np.mean(squared) < 2.2  # few stretches of time: the scatter itself is uncertain


def test_the_moment_of_a_step_is_where_the_pixels_change(monkeypatch: pytest.MonkeyPatch) -> None:
    rig, _, xy, kind = recording(11, degrees=0.6, since=237)
    (moved,) = check_rig(rig, xy, kind=kind).cameras
    assert moved.since is not None
    assert abs(moved.since - 237) <= 8
    monkeypatch.setattr(drift, "MOST_POINTS", xy.shape[1] * xy.shape[2] // 3)
    less = check_rig(rig, xy, kind=kind)  # frames are left out where there are many
    assert less.frames_used < less.n_frames / 2
    assert less.cameras[0].since is not None
    assert abs(less.cameras[0].since - 237) <= 20


def test_short_recordings_and_few_kinds_say_what_they_cannot_tell() -> None:
    rig, _, xy, kind = recording(12, frames=50)
    assert any("only 50 frames" in note for note in check_rig(rig, xy, kind=kind).notes)
    few = check_rig(rig, xy[:, :, :2], kind=[0, 1])
    assert any("too few to tell a camera that was off from the first frame on" in note for note in few.notes)


def test_mistakes_are_named() -> None:
    rig, _, xy, _ = recording(13, frames=5)
    with pytest.raises(InputError, match=r"expected xy \(4 views, frames, points, 2\), got \(3, 5, 12, 2\)"):
        check_rig(rig, xy[:3])
    with pytest.raises(InputError, match="kind of 12 points, got 3"):
        check_rig(rig, xy, kind=[0, 1, 2])
    with pytest.raises(InputError, match="expected covariance"):
        check_rig(rig, xy, np.zeros((4, 5, 12, 2)))
    xy[1:] = np.nan
    with pytest.raises(InputError, match="two cameras at once, got none"):
        check_rig(rig, xy)


def test_the_rig_is_moved_as_told() -> None:
    rig, *_ = recording(14, frames=5)
    step = np.zeros((4, 18))
    step[1, :6] = 1e-6 * np.array([1.0, -2, 3, 400, 500, -600])
    expected = with_cameras(rig, stepped(rig.packed(), step)).cameras[1]
    back = drift.turn_and_shift(rig.cameras[1].t)
    found = drift.moved_camera(rig.cameras[1], np.linalg.solve(back, step[1, :6]))
    np.testing.assert_allclose(found.t, expected.t, atol=1e-6)
    np.testing.assert_allclose(found.R, expected.R, atol=1e-10)
