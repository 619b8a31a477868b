"""How is text written into a picture?"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pose3d.render.colours import Colour

__all__ = ["text_width", "write_text"]

Image = NDArray[np.uint8]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_CAPITAL = 21.0  # px, at scale 1


def text_width(text: str, letter: float) -> int:
    """px across, with capitals `letter` px high."""
    return int(cv2.getTextSize(text, _FONT, letter / _CAPITAL, 1)[0][0])


def write_text(image: Image, text: str, x: float, baseline: float, letter: float, colour: Colour) -> float:
    """Write text into an RGB image from x (px) on, with capitals `letter` px high; returns the x where it ends."""
    place = (round(x), round(baseline))
    cv2.putText(image, text, place, _FONT, letter / _CAPITAL, colour, 1, cv2.LINE_AA)
    return x + text_width(text, letter)
