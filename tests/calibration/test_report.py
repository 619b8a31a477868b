"""The report's figures: by hand on small cases, and what it says in words."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from calibration.board import Board
from calibration.findings import Finding
from calibration.footage_checks import coverage
from calibration.geometry import triangulate_linear
from calibration.precision import VolumePrecision
from calibration.report import (
    CalibrationReport,
    CameraReport,
    SquareReport,
    corner_residuals,
    rms,
    square_lengths,
)
from calibration.synthetic import board_motion, ring_rig, simulate_detections

BOARD = Board(6, 5, 40.0)
CAMERA = CameraReport(
    name="top",
    corners=1000,
    boards=50,
    rejected=20,
    rms=0.4,
    rms_kept=0.3,
    noise=0.29,
    noise_alone=0.1,
    coverage=0.2,
    focal=900.0,
    focal_sigma=2.5,
    intrinsics="adjusted",
)
SQUARES = (SquareReport(40.0, 40.19, 0.1, 10),)
LINKS = (("top", "side", 10),)
REPORT = CalibrationReport(
    unit="mm",
    cameras=(CAMERA, replace(CAMERA, name="side", held=("k3",))),
    rms=0.41,
    n_corners=2000,
    rms_kept=0.31,
    n_rejected=40,
    n_unplaced=7,
    rms_held_out=float("nan"),
    squares=SQUARES,
    links=LINKS,
    findings=(Finding("moved", ("top",), "something", "do it", 3.0, 0.0, "px", (7,)),),
)


def test_rms_is_of_distances() -> None:
    assert rms(np.array([[3.0, 4.0], [0.0, 0.0], [np.nan, np.nan]])) == pytest.approx(np.sqrt(12.5))
    assert np.isnan(rms(np.full((2, 2), np.nan)))


def test_coverage_counts_cells() -> None:
    """8 x 6 cells of 100 px; pixel -0.5 is the image's left border, 99.5 that of the second cell."""
    xy = np.array(
        [[0.0, 0.0], [99.4, 0.0], [99.6, 0.0], [-0.4, 599.4], [799.4, 599.4], [np.nan, np.nan], [850.0, 650.0]]
    )
    assert coverage(xy, (800, 600)) == pytest.approx(4 / 48)
    assert coverage(np.full((3, 2), np.nan), (800, 600)) == 0.0


def test_residuals_are_projected_minus_measured(rng: np.random.Generator) -> None:
    rig = ring_rig(3, rng, radius=900, height=600)
    R, t = board_motion(rig, BOARD, 10, rng, reach=100)
    detections = simulate_detections(rig, BOARD, R, t, rng, noise_px=0.0, dropout=0.0)
    assert np.nanmax(np.abs(corner_residuals(rig, R[:, None], t[:, None], detections))) < 1e-9
    moved = replace(detections, corners=detections.corners + np.array([2.0, -1.0]))
    swapped = rig.subset(rig.names[::-1])
    residuals = corner_residuals(swapped, R[:, None], t[:, None], moved)
    np.testing.assert_array_equal(np.isfinite(residuals[::-1, ..., 0]), np.isfinite(detections.corners[..., 0]))
    np.testing.assert_allclose(
        residuals[np.isfinite(residuals[..., 0])], [[-2.0, 1.0]] * int(np.isfinite(residuals[..., 0]).sum()), atol=1e-8
    )
    assert np.isnan(corner_residuals(rig, R[:, None], np.full_like(t[:, None], np.nan), detections)).all()


def test_squares_measure_the_rig_not_the_board(rng: np.random.Generator) -> None:
    rig = ring_rig(3, rng, radius=900, height=600)
    R, t = board_motion(rig, BOARD, 10, rng, reach=100)
    detections = simulate_detections(rig, BOARD, R, t, rng, noise_px=0.0, dropout=0.0)
    (exact,) = square_lengths(rig, detections)
    assert exact.nominal == 40.0
    assert exact.mean == pytest.approx(40.0, abs=1e-6)
    assert exact.sd < 1e-6
    both = np.isfinite(detections.corners[..., 0]).sum(axis=0) >= 2
    assert exact.count == sum(int((both[:, a] & both[:, b]).sum()) for a, b in BOARD.neighbours)
    (larger,) = square_lengths(rig.moved(1.1, np.eye(3), np.zeros(3)).subset(rig.names[::-1]), detections)
    assert larger.mean == pytest.approx(44.0, abs=1e-6)
    noisy = simulate_detections(rig, BOARD, R, t, rng, noise_px=0.5, dropout=0.0)
    points = triangulate_linear(noisy.corners.reshape(3, -1, 2), rig).reshape(10, -1, 3)
    lengths = np.linalg.norm(points[:, BOARD.neighbours[:, 0]] - points[:, BOARD.neighbours[:, 1]], axis=-1)
    (measured,) = square_lengths(rig, noisy)
    assert (measured.mean, measured.sd) == pytest.approx((np.nanmean(lengths), np.nanstd(lengths)))
    blind = replace(detections, corners=np.full_like(detections.corners, np.nan))
    assert square_lengths(rig, blind)[0].count == 0


def test_text_names_what_matters() -> None:
    text = REPORT.text()
    for part in (
        "0.410 px rms over all 2000 corners",
        "0.310 without 40 rejected",
        "7 more corners",
        "squares 40.190 mm (nominal 40), SD 0.100, 10 triangulated",
        "focal 900.0 ± 2.5 px, adjusted",
        "adjusted (k3 held)",
        "top - side: 10 common frames",
        "warning: top: something",
    ):
        assert part in text


def test_dict_is_json() -> None:
    read = json.loads(json.dumps(REPORT.to_dict(), allow_nan=False))
    assert read["rms"] == 0.41
    assert read["rms_held_out"] is None
    assert read["cameras"][1]["held"] == ["k3"]
    assert read["links"] == [["top", "side", 10]]


def test_verdict_tells_what_is_wrong_from_what_limits() -> None:
    assert REPORT.verdict == "Not to be trusted before this is mended: moved (top)."
    limited = replace(REPORT, findings=(Finding("clipped_coverage", ("top",), "a", "b"),))
    assert limited.verdict.startswith("Usable within limits: clipped coverage (top). Points are known to a precision")
    whole = replace(
        REPORT, findings=(), precision=VolumePrecision("mm", (0, 0, 0), (1, 1, 1), 0.04, 0.08, 1.2, 1.3, 0.1)
    )
    assert whole.verdict.startswith(
        "No fault found. Points are known to 0.04 mm in the middle of the volume and 0.08 mm"
    )
    assert "1.2 and 1.3 mm" in whole.text()


def test_findings_from_elsewhere_are_added_once() -> None:
    same, new = replace(REPORT.findings[0], message="again"), Finding("blurred", ("top",), "a", "b")
    assert REPORT.with_findings((same, new)).findings == (*REPORT.findings, new)
