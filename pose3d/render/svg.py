"""How is a small drawing written as SVG? Text in, text out; nothing is looked up elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

__all__ = ["circle", "drawing", "line", "polygon", "rectangle", "text"]


def drawing(width: float, height: float, parts: Iterable[str], *, title: str = "") -> str:
    """An inline drawing with coordinates 0..width, 0..height, y down."""
    name = f"<title>{escape(title)}</title>" if title else ""
    inside = "".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img">{name}{inside}</svg>'
    )


def line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1.0) -> str:
    return (
        f'<line x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}" stroke="{colour}" stroke-width="{width:g}" '
        'stroke-linecap="round"/>'
    )


def rectangle(x: float, y: float, width: float, height: float, fill: str, stroke: str = "none") -> str:
    return f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" fill="{fill}" stroke="{stroke}"/>'


def circle(x: float, y: float, radius: float, fill: str) -> str:
    return f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{radius:g}" fill="{fill}"/>'


def polygon(points: Iterable[tuple[float, float]], fill: str, stroke: str = "none") -> str:
    path = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
    return f'<polygon points="{path}" fill="{fill}" stroke="{stroke}"/>'


def text(x: float, y: float, words: str, *, size: float = 11, anchor: str = "start", colour: str = "#333") -> str:
    return (
        f'<text x="{x:.2f}" y="{y:.2f}" font-size="{size:g}" text-anchor="{anchor}" fill="{colour}" '
        f'font-family="sans-serif">{escape(words)}</text>'
    )
