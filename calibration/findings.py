"""What is wrong with a calibration, with which camera, and what helps?"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["VAGUE_FOCAL", "Finding"]

LIMITS = ("blurred", "clipped_coverage", "focal_unknown", "other_markers", "outlier_frames", "rejected_corners",
          "unseen_board", "wrong_marker_length")  # fmt: skip
"""Kinds that limit what a rig is good for, and do not make it wrong."""
VAGUE_FOCAL = 0.03
"""Relative standard deviation of a focal length from which nothing that is measured with it can be trusted."""


@dataclass(frozen=True)
class Finding:
    """One thing that a user should know and can change.

    kind: machine-readable, such as "out_of_sync"; docs/architecture.md lists all. cameras: whom it is about; several
    where the footage cannot say which of them; none: the board. message: what was found, in words, without the
    cameras' names. measured, expected: the figure behind it and the one that would be ordinary, in `unit`; NaN where
    there is none. remedy: what to do. frames: frame numbers it is about, in the footage of the first of
    these cameras; of a change, the first one after it.
    slight: true, and too small to make a rig wrong.
    """

    kind: str
    cameras: tuple[str, ...]
    message: str
    remedy: str
    measured: float = float("nan")
    expected: float = float("nan")
    unit: str = ""
    frames: tuple[int, ...] = ()
    slight: bool = False

    @property
    def grave(self) -> bool:
        """Whether the rig is not to be trusted before this is mended."""
        vague = self.kind == "focal_unknown" and self.measured > VAGUE_FOCAL
        return vague or (self.kind not in LIMITS and not self.slight)

    def __str__(self) -> str:
        return f"{' or '.join(self.cameras) or 'board'}: {self.message}; {self.remedy}"
