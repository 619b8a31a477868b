"""Every mistake is named, and who made it; benchmarks/failure_zoo.py does the same with many more seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from calibration.calibrate import calibrate_rig
from calibration.errors import InputError
from calibration.mishaps import MISHAPS, Scene, clean_scene, outlier_frames
from calibration.omissions import leave_out_line


def small(seed: int) -> tuple[Scene, np.random.Generator]:
    rng = np.random.default_rng(seed)
    return clean_scene(rng, "ring", 3), rng


def test_a_good_rig_has_no_findings() -> None:
    for layout, seed in (("ring", 1), ("stereo", 2)):
        report = calibrate_rig(clean_scene(np.random.default_rng(seed), layout).detections).report
        assert report.findings == ()
        assert report.precision is not None
        assert report.precision.rig_middle < report.precision.pixel_middle
        assert report.verdict.startswith("No fault found.")


@pytest.mark.parametrize("mishap", MISHAPS, ids=lambda m: m.__name__)
def test_mistakes_are_named(mishap: Callable[[Scene, np.random.Generator], Scene]) -> None:
    scene = mishap(*small(5))
    if scene.error:
        with pytest.raises(InputError, match=scene.error) as error:
            calibrate_rig(scene.detections, intrinsics=scene.given or None)
        assert all(name in str(error.value) for name in scene.cameras)
        return
    findings = calibrate_rig(scene.detections, intrinsics=scene.given or None).report.findings
    own = [f for f in findings if f.kind == scene.kind]
    assert own, [str(f) for f in findings]
    if scene.cameras:
        assert any(set(f.cameras) & set(scene.cameras) for f in own)
    for finding in findings:
        assert finding.remedy


def test_odd_frames_are_told_by_the_numbers_of_their_own_footage() -> None:
    """Cameras that started at other times: the numbers are those that a user finds in the camera's own video, and the
    line that leaves them out can be copied."""
    scene = outlier_frames(*small(5))
    detections = scene.detections
    own = detections.frame + 1000 * np.arange(1, len(detections.view_names) + 1)[:, None]
    plain = calibrate_rig(detections).report.findings
    shifted = calibrate_rig(replace(detections, own_number=own)).report.findings
    pairs = [(a, b) for a, b in zip(plain, shifted, strict=True) if a.kind == "outlier_frames"]
    assert pairs
    for before, after in pairs:
        first = 1000 * (detections.view_names.index(after.cameras[0]) + 1)
        assert after.frames == tuple(first + frame for frame in before.frames)
        assert f": {after.frames[0]}" in after.message
        assert f"leave_out.{after.cameras[0]} = [{after.frames[0]}" in after.remedy
        assert leave_out_line({after.cameras[0]: after.frames}).split(" under")[0] in after.remedy


def through_rolling_shutter(scene: Scene, view: int, readout: float, rng: np.random.Generator) -> Scene:
    """The scene as a camera sees it that takes the lowest row `readout` frames after the uppermost: every corner where
    it was when its row was taken."""
    camera, points = scene.rig.cameras[view], scene.board.object_points
    times = np.arange(scene.n_frames, dtype=float)
    corners = scene.detections.corners.copy()
    for c, point in enumerate(points):
        below = np.zeros(scene.n_frames)
        for _ in range(4):
            R, t = scene.path(times + readout * below)
            xy = camera.project(R @ point + t)
            below = np.nan_to_num((xy[:, 1] + 0.5) / camera.intrinsics.size[1] - 0.5)
        seen = np.isfinite(corners[view, :, c, 0])
        corners[view, seen, c] = (xy + scene.noise_px * rng.normal(size=xy.shape))[seen]
    sigma = np.where(np.isfinite(corners[..., 0]), scene.detections.sigma, np.nan)
    return replace(scene, detections=replace(scene.detections, corners=corners, sigma=sigma))


@pytest.mark.parametrize("seed", [1, 2])
def test_a_rolling_shutter_is_told_with_its_readout(seed: int) -> None:
    scene, rng = small(seed)
    report = calibrate_rig(through_rolling_shutter(scene, 1, 0.5, rng).detections).report
    (found,) = [finding for finding in report.findings if finding.grave]
    assert (found.kind, found.cameras) == ("rolling_shutter", (scene.rig.names[1],))
    assert found.measured == pytest.approx(0.5, abs=0.1)  # one linear step from a rig that the shutter bent
