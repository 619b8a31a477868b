"""Which colour is whose? The same for an identity in every picture."""

from __future__ import annotations

__all__ = ["UNMATCHED", "Colour", "colour_of"]

Colour = tuple[int, int, int]

_PALETTE: tuple[Colour, ...] = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky blue
    (0, 158, 115),  # bluish green
    (204, 121, 167),  # reddish purple
    (213, 94, 0),  # vermilion
    (0, 114, 178),  # blue
    (240, 228, 66),  # yellow
)
"""RGB, told apart by colour-blind readers too: Okabe and Ito 2008, "Color Universal Design"."""

UNMATCHED: Colour = (150, 150, 150)
"""Of what belongs to nobody."""


def colour_of(identity: int) -> Colour:
    """RGB of an identity; UNMATCHED for -1. Identities beyond the palette take the colours again, in order."""
    return _PALETTE[identity % len(_PALETTE)] if identity >= 0 else UNMATCHED
