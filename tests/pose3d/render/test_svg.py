"""Drawings are well-formed and say what they were given."""

from __future__ import annotations

from xml.etree import ElementTree

from pose3d.render import svg


def test_a_drawing_is_well_formed() -> None:
    parts = [
        svg.line(0, 0, 10, 5, "#123456", 2),
        svg.rectangle(1, 2, 3, 4, "red"),
        svg.circle(5, 5, 2, "blue"),
        svg.polygon([(0, 0), (1, 0), (1, 1)], "green"),
        svg.text(1, 1, "a < b & c"),
    ]
    root = ElementTree.fromstring(svg.drawing(20, 10, parts, title="x > y"))
    assert root.get("viewBox") == "0 0 20 10"
    assert [child.tag.split("}")[1] for child in root] == ["title", "line", "rect", "circle", "polygon", "text"]
    assert (root[0].text, root[-1].text) == ("x > y", "a < b & c")
    assert root[1].get("x2") == "10.00"
