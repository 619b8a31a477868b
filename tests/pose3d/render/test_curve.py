"""A training's curve is well-formed and where its numbers say."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from pose3d.render.curve import training_curve


def test_points_fall_as_the_error_does() -> None:
    text = training_curve([[100, 0.9, 8.0], [200, 0.5, 4.0], [300, 0.4, 2.0]])
    root = ElementTree.fromstring(text)
    circles = [(float(c.get("cx")), float(c.get("cy"))) for c in root if c.tag.endswith("circle")]
    assert len(circles) == 6
    errors = circles[3:]
    assert errors[0][0] < errors[1][0] < errors[2][0]
    # from 8 to 4 px is twice as far as from 4 to 2
    assert abs((errors[1][1] - errors[0][1]) - 2 * (errors[2][1] - errors[1][1])) < 0.02
    assert "held-out error, px" in text


def test_nothing_held_out_and_nothing_trained() -> None:
    alone = training_curve([[100, 0.9, None]])
    assert len(re.findall("<circle", alone)) == 1
    assert ">none<" in alone
    assert len(re.findall(">none<", training_curve([]))) == 2
