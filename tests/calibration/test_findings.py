"""Findings in words."""

from __future__ import annotations

from calibration.findings import Finding


def test_a_finding_names_cameras_and_remedy() -> None:
    assert str(Finding("moved", ("top", "side"), "moved", "film again")) == "top or side: moved; film again"
    assert str(Finding("bent_board", (), "it is bent", "flatten it")) == "board: it is bent; flatten it"


def test_what_makes_a_rig_wrong_is_grave() -> None:
    assert Finding("out_of_sync", ("top",), "", "").grave
    assert not Finding("out_of_sync", ("top",), "", "", slight=True).grave
    assert not Finding("clipped_coverage", ("top",), "", "").grave
