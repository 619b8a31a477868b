"""How did a training go? Its loss and its held-out error over the steps, as a drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from pose3d.render import svg

__all__ = ["training_curve"]

WIDTH, HEIGHT, LEFT, BELOW, ABOVE = 460.0, 260.0, 56.0, 34.0, 30.0
INK, GRID = "#0072b2", "#dddddd"


def training_curve(history: Sequence[Sequence[float | None]]) -> str:
    """SVG text of two panels. history: rows of step, loss, held-out error in px, None where nothing is held out."""
    parts = [svg.rectangle(0, 0, 2 * WIDTH, HEIGHT, "white")]
    for panel, (column, title) in enumerate(((1, "loss"), (2, "held-out error, px"))):
        rows = [(float(row[0] or 0), float(row[column])) for row in history if row[column] is not None]  # type: ignore[arg-type]
        known = [(step, value) for step, value in rows if math.isfinite(value)]
        parts += _panel(panel * WIDTH, title, known)
    return svg.drawing(2 * WIDTH, HEIGHT, parts, title="training")


def _panel(x0: float, title: str, rows: Sequence[tuple[float, float]]) -> list[str]:
    parts = [svg.text(x0 + LEFT, ABOVE - 10, title, size=13)]
    if not rows:
        return [*parts, svg.text(x0 + LEFT, HEIGHT / 2, "none")]
    last, top = max(step for step, _ in rows), _round_up(max(value for _, value in rows))
    across, down = WIDTH - LEFT - 20, HEIGHT - ABOVE - BELOW

    def place(step: float, value: float) -> tuple[float, float]:
        return x0 + LEFT + across * step / max(last, 1.0), ABOVE + down * (1 - value / top)

    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        (left, y), (right, _) = place(0, share * top), place(last, share * top)
        parts += [svg.line(left, y, right, y, GRID), svg.text(left - 6, y + 4, f"{share * top:g}", anchor="end")]
        x, y = place(share * last, 0)
        parts.append(svg.text(x, y + 18, f"{share * last:g}", anchor="middle"))
    points = [place(step, value) for step, value in rows]
    parts += [svg.line(*a, *b, INK, 2) for a, b in pairwise(points)]
    parts += [svg.circle(x, y, 3, INK) for x, y in points]
    least = min(rows, key=lambda row: row[1])
    x, y = place(*least)
    return [*parts, svg.text(x, y - 8, f"{least[1]:.3g}", anchor="middle", colour=INK)]


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 8 times a power of ten; 1 for 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 2, 4, 8, 10) if power * step >= value)
