"""What is said about a rig that was checked by a recording's points? Which camera moved, when, how far, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.camera import Camera
from calibration.rig import RIG_PARAMETERS, CameraRig

__all__ = ["DriftReport", "MovedCamera"]


@dataclass(frozen=True, eq=False)
class MovedCamera:
    """One move of one camera. since: first frame (row of what was checked) of its new place; None: before the first.

    others: cameras whose move would explain it as well or nearly. p: probability of such a finding by chance. moved_px:
    how far its pixels moved, rms over the points. turn_deg, shift (the rig's unit): of the camera, each with its SD
    (root of the summed variances). camera: at its new place; covariance (6, 6) of the move, over the first six of
    RIG_PARAMETERS.
    """

    name: str
    since: int | None
    others: tuple[str, ...]
    p: float
    moved_px: float
    turn_deg: float
    turn_sd_deg: float
    shift: float
    shift_sd: float
    camera: Camera
    covariance: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DriftReport:
    """Whether a rig holds. cameras: the moves, in order of time. n_frames: of the recording, of which frames_used were
    looked at. noise_px: SD of a coordinate, biases included; bias_px: SD of the points' constant biases in one view.
    smallest_turn_deg: (views,) a turn in the middle of the recording, about an axis of no particular direction, that
    would just be found; NaN where no change was sought. notes: what could not be told.
    """

    names: tuple[str, ...]
    unit: str
    cameras: tuple[MovedCamera, ...]
    n_frames: int
    frames_used: int
    noise_px: float
    bias_px: float
    smallest_turn_deg: tuple[float, ...]
    notes: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """No camera moved, as far as these points tell."""
        return not self.cameras

    def repaired(self, rig: CameraRig) -> CameraRig:
        """The rig that was checked, as it stands at the end: cameras that moved at their new places.

        The covariance of the moves is added to the rig's; without one of its own the rig stays exact.
        """
        cameras = {camera.name: camera for camera in rig}
        covariance = None if rig.covariance is None else rig.covariance.copy()
        for moved in self.cameras:
            cameras[moved.name] = moved.camera
            if covariance is not None:
                row = len(RIG_PARAMETERS) * rig.index(moved.name)
                covariance[row : row + 6, row : row + 6] += moved.covariance
        return CameraRig(tuple(cameras[name] for name in rig.names), rig.unit, covariance)

    def messages(self, frames: Sequence[str] | None = None) -> tuple[str, ...]:
        """A sentence for every move, with the camera's name and the remedy. frames: what the rows are called."""
        return tuple(self._message(moved, frames) for moved in self.cameras)

    def _message(self, moved: MovedCamera, frames: Sequence[str] | None) -> str:
        how = (
            f"turned by {moved.turn_deg:.2f}° ± {moved.turn_sd_deg:.2f}°, shifted by {moved.shift:.3g} ± "
            f"{moved.shift_sd:.2g} {self.unit}, so that its pixels are {moved.moved_px:.1f} px off"
        )
        who = " or ".join((moved.name, *moved.others))
        if moved.since is None:
            said = f"{who}: does not stand where the calibration says, in any of the frames: {how}"
        else:
            said = f"{who}: moved at frame {frames[moved.since] if frames else moved.since}: {how}"
        if moved.others:
            said += f"; which of them it was, these points do not tell (the numbers are for {moved.name})"
        return (
            f"{said}; calibrate anew with a few pictures of the board (pose3d calibrate --keep CALIBRATION --moved "
            f"{moved.name}), or use the calibration that `--output` writes from then on"
        )

    def text(self, frames: Sequence[str] | None = None) -> str:
        """Plain text."""
        lines = [
            f"the rig {'holds' if self.holds else 'does not hold'}: {self.frames_used} of {self.n_frames} frames "
            f"looked at, noise {self.noise_px:.1f} px with biases of {self.bias_px:.1f} px"
        ]
        lines += self.messages(frames)
        known = [(n, d) for n, d in zip(self.names, self.smallest_turn_deg, strict=True) if np.isfinite(d)]
        if known:
            listed = ", ".join(f"{name} {degrees:.2f}°" for name, degrees in known)
            lines.append(f"turns in mid-recording that would just have been found: {listed}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def to_dict(self) -> dict[str, Any]:
        """For JSON: plain dicts, lists and numbers; None for NaN."""
        plain = {name: getattr(self, name) for name in ("n_frames", "frames_used", "noise_px", "bias_px", "unit")}
        turns = [turn if np.isfinite(turn) else None for turn in self.smallest_turn_deg]
        moves = [
            {
                name: getattr(moved, name)
                for name in MovedCamera.__dataclass_fields__
                if name not in ("camera", "covariance")
            }
            | {"R": moved.camera.R.tolist(), "t": moved.camera.t.tolist(), "covariance": moved.covariance.tolist()}
            for moved in self.cameras
        ]
        return plain | {
            "holds": self.holds,
            "cameras": moves,
            "smallest_turn_deg": dict(zip(self.names, turns, strict=True)),
            "notes": list(self.notes),
        }
