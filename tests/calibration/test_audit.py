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
