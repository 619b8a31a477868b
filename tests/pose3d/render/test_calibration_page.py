"""The page is one file, names every finding, and draws what was measured."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from calibration.calibrate import Calibration, calibrate_rig
from calibration.findings import Finding
from calibration.mishaps import Scene, clean_scene
from pose3d.render.calibration_page import calibration_page


@pytest.fixture(scope="module")
def made() -> tuple[Scene, Calibration]:
    scene = clean_scene(np.random.default_rng(1), "ring", 3)
    return scene, calibrate_rig(scene.detections)


class Tags(HTMLParser):
    """Counts tags and finds those that are not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: dict[str, int] = {}
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def test_page_is_whole_and_needs_nothing_else(made: tuple[Scene, Calibration]) -> None:
    _, calibration = made
    page = calibration_page(calibration)
    tags = Tags()
    tags.feed(page)
    assert tags.open == tags.wrong == []
    assert not re.search(r"(src|href)=|url\(|@import|<script", page)
    assert tags.count["svg"] == 2 * 3 + 2 + 1  # corners and residuals of each camera, the rig twice, squares
    assert page == calibration_page(calibration)


def test_page_names_every_finding_and_its_remedy(made: tuple[Scene, Calibration]) -> None:
    _, calibration = made
    assert "No fault found." in calibration_page(calibration)
    finding = Finding("out_of_sync", ("cam<1>",), "it is late", "shift it")
    page = calibration_page(replace(calibration, report=replace(calibration.report, findings=(finding,))))
    for part in (
        "cam&lt;1&gt;: out of sync",
        "it is late",
        "What helps: shift it.",
        "Not to be trusted",
        "verdict look",
    ):
        assert part in page


def test_page_tells_the_figures(made: tuple[Scene, Calibration]) -> None:
    _, calibration = made
    page, report = calibration_page(calibration), calibration.report
    assert report.precision is not None
    for part in (
        f"{report.rms:.3f} px rms over {report.n_corners} corners",
        f"{report.rms_held_out:.3f} px rms",
        f"{report.precision.rig_middle:.2g}, {report.precision.rig_corners:.2g} mm",
        f"{report.squares[0].mean:.3f} mm",
    ):
        assert part in page


def test_a_rig_of_one_camera_has_a_page() -> None:
    scene = clean_scene(np.random.default_rng(1), "ring", 3)
    detections = scene.detections
    alone = replace(
        detections, view_names=("cam0",), sizes=detections.sizes[:1], corners=detections.corners[:1],
        sigma=detections.sigma[:1],
    )  # fmt: skip
    page = calibration_page(calibrate_rig(alone))
    assert "Calibration of 1 cameras" in page
