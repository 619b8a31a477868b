"""May one build on this calibration? One HTML page with pictures, complete in itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from calibration.board import BoardDetections
from calibration.calibrate import Calibration
from calibration.findings import Finding
from calibration.footage_checks import coverage_cells
from calibration.report import CalibrationReport, corner_residuals, measured_squares
from calibration.rig import CameraRig
from calibration.transforms import apply
from pose3d.render import svg
from pose3d.render.colours import colour_of
from pose3d.render.viewpoint import up_direction

__all__ = ["calibration_page"]

Array = NDArray[np.float64]

PICTURE, RIG_SIDE, BARS = 300.0, 420.0, 24
"""px: width of a camera's pictures, side of a drawing of the rig; bars of the histogram of squares."""
FIELD = (12, 9)
"""Columns and rows of cells over which residuals are averaged."""
LEAST_IN_CELL, LONGEST_PX = 10, 20.0
"""Corners in a cell for a mean to be shown; px, what longer residuals count for in it."""
MOST_DOTS = 3000
STYLE = """
body { font: 15px/1.45 sans-serif; color: #222; max-width: 1080px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; font-size: 13px; } th, td { padding: 3px 9px; text-align: right; }
th { background: #f3f3f3; } td:first-child, th:first-child { text-align: left; }
tr + tr td { border-top: 1px solid #eee; }
.verdict { padding: .8em 1em; border-left: 6px solid #009e73; background: #eef8f4; }
.verdict.look { border-color: #d55e00; background: #fdf1ea; }
.finding { margin: .6em 0; } .kind { font-weight: bold; } .remedy { color: #444; }
figure { display: inline-block; margin: .6em 1em .6em 0; }
figcaption { font-size: 13px; color: #555; max-width: 420px; min-height: 2.9em; }
"""


def calibration_page(calibration: Calibration) -> str:
    """The page's text."""
    report, rig, detections = calibration.report, calibration.rig, calibration.detections
    residuals = corner_residuals(rig, calibration.board_R, calibration.board_t, detections)
    views = [list(detections.view_names).index(name) for name in rig.names]
    sizes = [camera.intrinsics.size for camera in rig]
    means = [_cell_means(detections.corners[views[v]], residuals[v], size) for v, size in enumerate(sizes)]
    longest = max(
        float(np.nanmax(np.linalg.norm(m, axis=1), initial=0.0)) / s[0] for m, s in zip(means, sizes, strict=True)
    )
    longer = _round_length(1.5 / FIELD[0] / max(longest, 1e-6))
    figures = []
    for v, (name, size) in enumerate(zip(rig.names, sizes, strict=True)):
        xy = detections.corners[views[v]]
        figures.append(f"<div>{_coverage(name, xy, size)}{_field(name, means[v], size, longer)}</div>")
    parts = [
        f'<div class="verdict{" look" if report.findings else ""}">{escape(report.verdict)}</div>',
        _findings(report.findings),
        "<h2>Figures</h2>" + _figures(report),
        "<h2>Cameras</h2>" + _cameras(report),
        "<h2>The rig</h2>" + _rig(calibration),
        "<h2>Squares, measured again</h2>" + _squares(rig, report, detections),
        "<h2>Where the corners were, and what is left of them</h2>" + "".join(figures),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Calibration</title>'
        f"<style>{STYLE}</style></head><body><h1>Calibration of {len(rig)} cameras</h1>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _findings(findings: Sequence[Finding]) -> str:
    if not findings:
        return ""
    items = [
        f'<div class="finding"><span class="kind">{escape(" or ".join(f.cameras) or "board")}: '
        f'{escape(f.kind.replace("_", " "))}</span> – {escape(f.message)}.<br><span class="remedy">'
        f"What helps: {escape(f.remedy)}.</span></div>"
        for f in findings
    ]
    return "<h2>What to look at</h2>" + "".join(items)


def _figures(report: CalibrationReport) -> str:
    rows = [
        ("board error, every corner", f"{report.rms:.3f} px rms over {report.n_corners} corners"),
        (f"without {report.n_rejected} rejected corners", f"{report.rms_kept:.3f} px rms"),
        ("on frames that the cameras were not fitted to", f"{report.rms_held_out:.3f} px rms"),
    ]
    rows += [
        (f"squares of {s.nominal:g} {report.unit}", f"{s.mean:.3f} {report.unit}, SD {s.sd:.3f}, {s.count} measured")
        for s in report.squares
        if s.count
    ]
    p = report.precision
    if p is not None:
        size = " × ".join(f"{length:.4g}" for length in p.size)
        rows += [
            ("volume that the board was in", f"{size} {p.unit}"),
            ("SD of a point by the calibration: middle, corners", f"{p.rig_middle:.2g}, {p.rig_corners:.2g} {p.unit}"),
            ("SD of a point by 1 px of noise", f"{p.pixel_middle:.2g}, {p.pixel_corners:.2g} {p.unit}"),
            ("SD of all lengths, together, by the calibration", f"{100 * p.scale:.2g} %"),
        ]
    return _table(None, rows)


def _cameras(report: CalibrationReport) -> str:
    head = [
        "camera",
        "corners",
        "boards",
        "rejected",
        "rms px",
        "noise px",
        "alone px",
        "covered",
        "focal px",
        "lens",
        "intrinsics",
    ]
    rows = []
    for c in report.cameras:
        sigma = f" ± {c.focal_sigma:.1f}" if c.focal_sigma > 0 else ""
        held = f" ({', '.join(c.held)} held)" if c.held and c.intrinsics != "held" else ""
        alone = "–" if math.isnan(c.noise_alone) else f"{c.noise_alone:.2f}"
        rows.append(
            (
                c.name, str(c.corners), str(c.boards), str(c.rejected), f"{c.rms:.3f}", f"{c.noise:.2f}", alone,
                f"{c.coverage:.0%}", f"{c.focal:.1f}{sigma}", c.lens, c.intrinsics + held,
            )
        )  # fmt: skip
    links = [(f"{a} and {b}", str(n)) for a, b, n in report.links]
    told = (
        "rms: of all corners to the rigid board. Noise: scatter of one coordinate in the rig, and in the camera's own "
        "images alone; where the first is much larger, something in the rig is wrong."
    )
    return (
        _table(head, rows) + f"<p>{told}</p>" + "<h2>Frames in which two cameras see a board</h2>" + _table(None, links)
    )


def _table(head: Sequence[str] | None, rows: Iterable[Sequence[str]]) -> str:
    top = "" if head is None else "<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{top}{body}</table>"


def _figure(picture: str, caption: str) -> str:
    return f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>"


def _coverage(name: str, xy: Array, size: tuple[int, int]) -> str:
    """Corners as dots over the cells that they reach."""
    scale = PICTURE / size[0]
    cells = coverage_cells(xy, size)
    rows, columns = cells.shape
    w, h = PICTURE / columns, size[1] * scale / rows
    parts = [svg.rectangle(0, 0, PICTURE, size[1] * scale, "#f7f7f7", "#999")]
    parts += [svg.rectangle(c * w, r * h, w, h, "#cfe8f7") for r, c in np.argwhere(cells > 0)]
    seen = xy[np.isfinite(xy).all(axis=-1)]
    dots = seen[:: max(1, math.ceil(len(seen) / MOST_DOTS))]
    parts += [svg.circle((x + 0.5) * scale, (y + 0.5) * scale, 1.1, "#0072b2") for x, y in dots]
    share = float((cells > 0).mean())
    return _figure(
        svg.drawing(PICTURE, size[1] * scale, parts, title=f"corners of {name}"),
        f"{name}: {len(seen)} corners, in {share:.0%} of the image",
    )


def _cell_means(xy: Array, residuals: Array, size: tuple[int, int]) -> Array:
    """(cells, 2) px, mean residual (projected - measured) of the corners in every cell of FIELD, row by row; NaN where
    there are few."""
    seen = np.isfinite(residuals).all(axis=-1)
    cell = np.clip(((xy[seen] + 0.5) / size * FIELD).astype(int), 0, np.array(FIELD) - 1)
    flat = cell[:, 1] * FIELD[0] + cell[:, 0]
    off = np.clip(residuals[seen], -LONGEST_PX, LONGEST_PX)
    count = np.bincount(flat, minlength=FIELD[0] * FIELD[1])
    sums = np.stack([np.bincount(flat, off[:, i], minlength=len(count)) for i in range(2)], axis=1)
    return np.where(count[:, None] >= LEAST_IN_CELL, sums / np.maximum(count, 1)[:, None], np.nan)


def _field(name: str, means: Array, size: tuple[int, int], longer: float) -> str:
    """Mean residuals of the cells as lines from their middles, so much longer, in all cameras' pictures alike."""
    scale = PICTURE / size[0]
    parts = [svg.rectangle(0, 0, PICTURE, size[1] * scale, "#f7f7f7", "#999")]
    for i in np.flatnonzero(np.isfinite(means[:, 0])):
        row, column = divmod(int(i), FIELD[0])
        x = (column + 0.5) * PICTURE / FIELD[0]
        y = (row + 0.5) * size[1] * scale / FIELD[1]
        dx, dy = means[i] * scale * longer
        parts += [svg.line(x, y, x + dx, y + dy, "#d55e00", 1.6), svg.circle(x, y, 1.6, "#333")]
    longest = float(np.nanmax(np.linalg.norm(means, axis=1), initial=0.0))
    return _figure(
        svg.drawing(PICTURE, size[1] * scale, parts, title=f"mean residuals of {name}"),
        f"{name}: mean residuals, {longer:g} times as long; the longest is {longest:.2f} px",
    )


def _rig(calibration: Calibration) -> str:
    """Cameras and the boards' middles from above and from the side."""
    rig, t, detections = calibration.rig, calibration.board_t, calibration.detections
    placed = np.asarray(np.isfinite(t).all(axis=-1))
    index, points = np.asarray(detections.board_index), detections.object_points
    middles = np.concatenate(
        [
            apply(calibration.board_R[placed[:, b], b], t[placed[:, b], b], points[index == b].mean(axis=0)[None])[:, 0]
            for b in range(t.shape[1])
        ]
    )
    up = up_direction(rig, middles)
    across = rig.centers - rig.centers.mean(axis=0)
    across = across - np.outer(across @ up, up)
    x = np.linalg.svd(across, full_matrices=True)[2][0]
    x = x - (x @ up) * up
    x = x / np.linalg.norm(x) if np.linalg.norm(x) > 1e-6 else np.linalg.svd(up[None])[2][1]
    y = np.cross(up, x)
    above = _projected(rig, middles, np.stack((x, -y)), "from above")
    return above + _projected(rig, middles, np.stack((x, -up)), "from the side")


def _projected(rig: CameraRig, middles: Array, axes: Array, caption: str) -> str:
    """axes: (2, 3) world directions to the right and down in the drawing."""
    sight = np.stack([camera.R[2] for camera in rig])
    reach = 0.18 * np.linalg.norm(rig.centers - middles.mean(axis=0), axis=1).max()
    everything = np.concatenate((rig.centers, rig.centers + reach * sight, middles)) @ axes.T
    low, high = everything.min(axis=0), everything.max(axis=0)
    margin = 36.0
    scale = (RIG_SIDE - 2 * margin) / max(float((high - low).max()), 1e-12)
    offset = (RIG_SIDE - scale * (high - low)) / 2

    def at(points: Array) -> Array:
        return np.asarray((points @ axes.T - low) * scale + offset)

    parts = [svg.rectangle(0, 0, RIG_SIDE, RIG_SIDE, "#fbfbfb", "#ccc")]
    parts += [svg.circle(px, py, 1.5, "#aaa") for px, py in at(middles)]
    for i, camera in enumerate(rig):
        colour = "#{:02x}{:02x}{:02x}".format(*colour_of(i))
        width = reach * camera.intrinsics.size[0] / camera.intrinsics.K[0, 0] / 2
        ends = camera.center + reach * sight[i] + np.outer([-width, width], camera.R[0])
        (cx, cy), (ax, ay), (bx, by) = at(np.stack((camera.center, *ends)))
        parts.append(svg.polygon([(cx, cy), (ax, ay), (bx, by)], colour + "55", colour))
        right = cx > 0.8 * RIG_SIDE
        anchor, shift = ("end", -6.0) if right else ("start", 6.0)
        parts += [svg.circle(cx, cy, 4, colour), svg.text(cx + shift, cy - 6, camera.name, anchor=anchor)]
    length = _round_length((high - low).max() / 4)
    bar = RIG_SIDE - 14
    parts += [svg.line(14, bar, 14 + length * scale, bar, "#333", 2), svg.text(14, bar - 5, f"{length:g} {rig.unit}")]
    return _figure(svg.drawing(RIG_SIDE, RIG_SIDE, parts, title=caption), f"{caption}; grey: the boards' middles")


def _round_length(length: float) -> float:
    """The nearest of 1, 2, 5 times a power of ten from below."""
    power = 10.0 ** math.floor(math.log10(length)) if length > 0 else 1.0
    return max((m * power for m in (1, 2, 5) if m * power <= length), default=power)


def _squares(rig: CameraRig, report: CalibrationReport, detections: BoardDetections) -> str:
    """A histogram of the squares' sides for each board."""
    figures = []
    for board, lengths in zip(report.squares, measured_squares(rig, detections), strict=True):
        if len(lengths) < 2:
            continue
        spread = 4 * max(float(np.median(np.abs(lengths - np.median(lengths)))) * 1.4826, 1e-3 * board.nominal)
        reach = max(spread, 1.2 * abs(board.mean - board.nominal))
        edges = np.linspace(board.nominal - reach, board.nominal + reach, BARS + 1)
        count, _ = np.histogram(lengths, edges)
        width, height = RIG_SIDE, 150.0
        parts = [
            svg.rectangle(i * width / BARS, height - 20 - 120 * n / count.max(initial=1), width / BARS - 1,
                          120 * n / count.max(initial=1), "#56b4e9")
            for i, n in enumerate(count)
        ]  # fmt: skip
        parts += [svg.line(width / 2, 0, width / 2, height - 20, "#d55e00", 1.5)]
        parts += [
            svg.text(2, height - 6, f"{edges[0]:.2f}"),
            svg.text(width / 2, height - 6, f"{board.nominal:g} {report.unit}", anchor="middle"),
            svg.text(width - 2, height - 6, f"{edges[-1]:.2f}", anchor="end"),
        ]
        caption = f"{board.count} sides, mean {board.mean:.3f}, SD {board.sd:.3f} {report.unit}; line: as described"
        figures.append(_figure(svg.drawing(width, height, parts, title="squares"), caption))
    return "".join(figures)
