"""Every mistake is named, and who made it; benchmarks/failure_zoo.py does the same with many more seeds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from calibration.calibrate import calibrate_rig
from calibration.errors import InputError
from calibration.mishaps import MISHAPS, Scene, clean_scene


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
