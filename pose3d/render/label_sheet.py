"""How do the labels look? One sheet of labelled animals, those that look wrong first."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pose3d.label_check import Suspect
from pose3d.labels import Labels
from pose3d.render.colours import Colour
from pose3d.render.text import write_text

__all__ = ["label_sheet"]

Image = NDArray[np.uint8]

COLUMNS, MOST = 4, 12
CELL, LETTER, LINES = 400, 9.0, 4
"""px: side of an animal's picture, height of a capital; and lines of text above it."""
AROUND, LEAST_SIDE = 1.5, 48.0
"""An animal's extent times this is shown, at least so many px of its image."""
BACKGROUND: Colour = (24, 24, 24)
TEXT: Colour = (235, 235, 235)
GOOD: Colour = (86, 180, 233)
BAD: Colour = (255, 110, 20)
GUESS: Colour = (240, 228, 66)
_SHIFT = 4


def label_sheet(
    labels: Labels,
    suspects: Sequence[Suspect],
    *,
    estimates: NDArray[np.float64] | None = None,
    most: int = MOST,
) -> Image:
    """RGB (height, width, 3): at most so many animals, each with its keypoints and, where it is suspected, what of.

    Suspects about single animals come first, in their order; then others, spread over the labels. Keypoints that are
    suspected are rings with a name. estimates: (n, individuals, keypoints, 2) px, where a network has them: crosses,
    joined to the labels. Reads the pictures. Raises InputError naming a file that cannot be read.
    """
    told: dict[tuple[int, int], list[Suspect]] = {}
    for suspect in suspects:
        if suspect.row >= 0:
            told.setdefault((suspect.row, suspect.slot), []).append(suspect)
    animals = np.argwhere(np.isfinite(labels.points[..., 0]).any(axis=-1))
    spread = animals[np.linspace(0, len(animals) - 1, min(len(animals), most)).round().astype(int)]
    chosen = list(dict.fromkeys([*told, *((int(row), int(slot)) for row, slot in spread)]))[:most]
    columns = min(COLUMNS, max(1, len(chosen)))
    head = round(LINES * 2 * LETTER + LETTER)
    sheet = np.full((max(1, -(-len(chosen) // columns)) * (CELL + head), columns * CELL, 3), BACKGROUND, dtype=np.uint8)
    images = dict(labels.take(rows).images()) if (rows := [row for row, _ in chosen]) else {}
    for i, (row, slot) in enumerate(chosen):
        y, x = i // columns * (CELL + head), i % columns * CELL
        own = told.get((row, slot), [])
        text = "; ".join(map(str, own)) or f"{labels.camera[row]} {labels.video[row]}, frame {labels.frame[row]}"
        for line, words in enumerate(textwrap.wrap(text, round(CELL / (0.75 * LETTER)))[:LINES]):
            write_text(sheet, words, x + 6, y + (line + 1) * 2 * LETTER, LETTER, BAD if own else TEXT)
        wrong = {name for suspect in own for name in suspect.keypoints}
        cell = sheet[y + head : y + head + CELL - 4, x + 2 : x + CELL - 2]
        guessed = np.full((len(labels.skeleton), 2), np.nan) if estimates is None else estimates[row, slot]
        _draw(cell, images[i], labels, row, slot, wrong, guessed)
    return sheet


def _draw(
    cell: Image, image: Image, labels: Labels, row: int, slot: int, wrong: set[str], guessed: NDArray[np.float64]
) -> None:
    """One animal of an image, enlarged to a cell."""
    points = labels.points[row, slot]
    known = points[np.isfinite(points[:, 0])]
    if not len(known):  # somebody is missing: all of the image
        known = np.array([[0.0, 0.0], [image.shape[1] - 1.0, image.shape[0] - 1.0]]) / AROUND
        known += (1 - 1 / AROUND) * np.array([image.shape[1], image.shape[0]]) / 2
    side = max(LEAST_SIDE, AROUND * float(np.ptp(known, axis=0).max()))
    height, width = cell.shape[:2]
    scale = min(height, width) / side
    middle = (known.min(axis=0) + known.max(axis=0)) / 2
    shift = np.array([width, height]) / 2 - scale * middle
    inter = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    move = np.array([[scale, 0.0, shift[0]], [0.0, scale, shift[1]]])
    cv2.warpAffine(image, move, (width, height), dst=cell, flags=inter)
    xy = points * scale + shift
    for a, b in labels.skeleton.edges:
        if np.isfinite(xy[[a, b]]).all():
            cv2.line(cell, _fixed(xy[a]), _fixed(xy[b]), (160, 160, 160), 1, cv2.LINE_AA, _SHIFT)
    for point, guess in zip(xy, guessed * scale + shift, strict=True):
        if np.isfinite([point, guess]).all():
            guess = np.clip(guess, -width, 2 * width)
            cv2.line(cell, _fixed(point), _fixed(guess), GUESS, 1, cv2.LINE_AA, _SHIFT)
            cv2.drawMarker(cell, (round(guess[0]), round(guess[1])), GUESS, cv2.MARKER_TILTED_CROSS, 10, 1, cv2.LINE_AA)
    for name, point in zip(labels.skeleton.keypoints, xy, strict=True):
        if not np.isfinite(point).all():
            continue
        if name in wrong:
            cv2.circle(cell, _fixed(point), 8 << _SHIFT, BAD, 2, cv2.LINE_AA, _SHIFT)
            write_text(cell, name, point[0] + 11, point[1] + LETTER / 2, LETTER, BAD)
        else:
            cv2.circle(cell, _fixed(point), 3 << _SHIFT, GOOD, cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _fixed(xy: NDArray[np.float64]) -> tuple[int, int]:
    x, y = np.round(xy * (1 << _SHIFT)).astype(int)
    return int(x), int(y)
