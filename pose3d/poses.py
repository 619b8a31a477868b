"""The array types that the stages speak: Poses (2D and 3D), Candidates and Groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.errors import InputError
from pose3d.skeleton import Skeleton

if TYPE_CHECKING:
    import xarray

__all__ = ["ABSENT", "BRIDGED", "EXTRA_AXES", "GROUP_ARRAYS", "MEASURED", "Candidates", "Groups", "InputError", "Poses"]

Array = NDArray[Any]

ABSENT, MEASURED, BRIDGED = 0, 1, 2
"""Values of the extra `status`: nothing is known, seen in this frame, carried across a gap."""

_FIK = ("frames", "individuals", "keypoints")
EXTRA_AXES: dict[str, tuple[tuple[str, ...], Any]] = {
    "covariance": ((*_FIK, "coordinates", "coordinates"), np.float64),
    "covariance_total": ((*_FIK, "coordinates", "coordinates"), np.float64),
    "reprojection_error": (_FIK, np.float64),
    "n_views": (_FIK, np.int16),
    "status": (_FIK, np.int8),
    "occluded": (_FIK, np.bool_),
    "alternatives": ((*_FIK, "alternatives", "xys"), np.float64),
}
"""Axes and dtype of every extra that a Poses may carry."""


@dataclass(frozen=True, eq=False)
class Poses:
    """Keypoints of individuals over time, in 2D (px, one camera) or 3D (the rig's unit).

    points: (frames, individuals, keypoints, D) float64, D = 2 or 3; NaN in all coordinates where missing.
    score: (frames, individuals, keypoints) float64 in 0..1; 0 where missing. Default 1 where there is a point.
    ids: (frames, individuals) int32, who is in the slot; -1 = unknown or empty. Default -1.
    frame: (frames,) int64, number in the source video, strictly increasing. Default 0, 1, 2, ...
    time: (frames,) s, NaN where unknown. Default frame / fps.
    skeleton: the keypoints' names; names: {id: name}; unit: "px" or the rig's unit; fps: frames/s or NaN.
    extras: arrays by name, with the axes of `EXTRA_AXES`: covariance and covariance_total (..., D, D) in unit squared,
        reprojection_error in px, n_views, status (ABSENT, MEASURED, BRIDGED), occluded, alternatives (..., A, 3):
        x, y, score.

    The individuals axis is only a slot: identity is `ids`. Raises InputError when shapes or values do not fit.
    """

    points: NDArray[np.float64]
    score: NDArray[np.float64] = None  # type: ignore[assignment]
    ids: NDArray[np.int32] = None  # type: ignore[assignment]
    frame: NDArray[np.int64] = None  # type: ignore[assignment]
    time: NDArray[np.float64] = None  # type: ignore[assignment]
    skeleton: Skeleton = None  # type: ignore[assignment]
    names: Mapping[int, str] = field(default_factory=dict)
    unit: str = "px"
    fps: float = float("nan")
    extras: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        points = np.asarray(self.points, dtype=np.float64)
        if points.ndim != 4 or points.shape[3] not in (2, 3):
            raise InputError(f"poses: expected points (frames, individuals, keypoints, 2 or 3), got {points.shape}")
        frames, individuals, keypoints, _ = points.shape
        missing: NDArray[np.bool_] = ~np.all(np.isfinite(points), axis=-1)
        points = _nan_where(points, missing)
        score = np.ones(points.shape[:3]) if self.score is None else np.asarray(self.score, dtype=np.float64)
        _expect("score", score, (frames, individuals, keypoints))
        score = np.where(missing | ~np.isfinite(score), 0.0, np.clip(score, 0.0, 1.0))
        frame = np.arange(frames) if self.frame is None else np.asarray(self.frame)
        _expect("frame", frame, (frames,))
        if np.any(np.diff(frame) <= 0):
            raise InputError("poses: frame numbers must increase strictly")
        ids = np.full((frames, individuals), -1) if self.ids is None else np.asarray(self.ids)
        _expect("ids", ids, (frames, individuals))
        time = frame / self.fps if self.time is None else np.asarray(self.time, dtype=np.float64)
        _expect("time", time, (frames,))
        skeleton = self.skeleton
        if skeleton is None:
            skeleton = Skeleton(tuple(f"keypoint_{k}" for k in range(keypoints)))
        if len(skeleton) != keypoints:
            raise InputError(f"poses: the skeleton has {len(skeleton)} keypoints, the points have {keypoints}")
        ids = np.where(np.all(missing, axis=2), -1, ids)
        values: dict[str, Any] = {
            "points": points,
            "score": score,
            "ids": ids.astype(np.int32),
            "frame": frame.astype(np.int64),
            "time": time,
        }
        values |= {"skeleton": skeleton, "names": {int(k): str(v) for k, v in sorted(self.names.items())}}
        values |= {"unit": str(self.unit), "fps": float(self.fps), "extras": _checked_extras(self.extras, points)}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(frames, individuals, keypoints, D)."""
        return self.points.shape

    @property
    def missing(self) -> NDArray[np.bool_]:
        """(frames, individuals, keypoints) True where there is no point."""
        return np.isnan(self.points[..., 0])

    def replace(self, **changes: Any) -> Poses:
        """A copy with these fields changed; everything is checked again."""
        return replace(self, **changes)

    def window(self, start: int, stop: int) -> Poses:
        """Rows start..stop-1 of the frames axis (positions, not frame numbers)."""
        part = slice(start, stop)
        return self.replace(
            points=self.points[part],
            score=self.score[part],
            ids=self.ids[part],
            frame=self.frame[part],
            time=self.time[part],
            extras={name: array[part] for name, array in self.extras.items()},
        )

    def take_slots(self, slots: NDArray[np.integer]) -> Poses:
        """Slots gathered per frame: slots (frames, new individuals) int, -1 = empty. Extras and ids move along."""
        slots = np.asarray(slots)
        rows = np.arange(len(self.frame))[:, None]
        empty = slots < 0
        gather = np.where(empty, 0, slots)

        def moved(array: Array, fill: Any) -> Array:
            if array.shape[1] == 0:
                return np.full((*slots.shape, *array.shape[2:]), fill, dtype=array.dtype)
            out = array[rows, gather]
            out[empty] = fill
            return out

        extras = {name: moved(array, _fill(array.dtype)) for name, array in self.extras.items()}
        return self.replace(
            points=moved(self.points, np.nan), score=moved(self.score, 0.0), ids=moved(self.ids, -1), extras=extras
        )

    def by_id(self, ids: ArrayLike | None = None) -> Poses:
        """Slots reordered so that slot i holds one identity throughout; the only place that reorders slots.

        ids: which identities, in which order; default all that occur or are named, ascending. Unknown ones (-1) are
        dropped. Raises InputError when an identity stands in two slots of one frame.
        """
        present = np.unique(self.ids[self.ids >= 0])
        wanted = np.union1d(present, np.array(sorted(self.names), dtype=int)) if ids is None else np.asarray(ids)
        slots = np.full((len(self.frame), len(wanted)), -1)
        for column, identity in enumerate(wanted):
            here = self.ids == identity
            if np.any(here.sum(axis=1) > 1):
                frame = self.frame[np.argmax(here.sum(axis=1) > 1)]
                raise InputError(f"poses: id {identity} stands in two slots of frame {frame}; run track or identify")
            found = here.any(axis=1)
            slots[found, column] = here[found].argmax(axis=1)
        return self.take_slots(slots)

    def to_xarray(self) -> xarray.Dataset:
        """The layout of the `movement` package: position (time, space, keypoints, individuals) and confidence.

        Slots are put in order of identity; time is in seconds where known, else in frame numbers.
        """
        import xarray

        poses = self.by_id() if np.any(self.ids >= 0) else self
        ids = [int(i) for i in np.unique(poses.ids[poses.ids >= 0])] if np.any(poses.ids >= 0) else []
        ids = sorted({*ids, *self.names}) if ids else []
        individuals = [self.names.get(i, f"individual_{i}") for i in ids] or [
            f"individual_{i}" for i in range(poses.shape[1])
        ]
        seconds = bool(np.isfinite(self.time).all())
        coords = {
            "time": self.time if seconds else self.frame,
            "space": list("xyz")[: self.shape[3]],
            "keypoints": list(self.skeleton.keypoints),
            "individuals": individuals,
        }
        return xarray.Dataset(
            {
                "position": (("time", "space", "keypoints", "individuals"), poses.points.transpose(0, 3, 2, 1)),
                "confidence": (("time", "keypoints", "individuals"), poses.score.transpose(0, 2, 1)),
            },
            coords=coords,
            attrs={"ds_type": "poses", "fps": self.fps, "time_unit": "seconds" if seconds else "frames"},
        )


GROUP_ARRAYS = ("slots", "ids", "confidence", "doubt", "rival")
"""Names of the arrays of `Groups`, all (frames, groups, ...)."""


@dataclass(frozen=True, eq=False)
class Groups:
    """Which slot of which view is which individual, frame by frame.

    view_names: the cameras, in the order of the last axis of slots.
    slots: (frames, groups, views) int32, slot in that view's Poses; -1 = not seen there.
    ids: (frames, groups) int32, -1 = unknown. confidence: (frames, groups) in 0..1, 0 for an empty group.
    doubt: (frames, groups) probability that from this frame on it is another individual, and rival: (frames, groups)
    int32, the id of that one, -1 = nobody.
    """

    view_names: tuple[str, ...]
    slots: NDArray[np.int32]
    ids: NDArray[np.int32] = None  # type: ignore[assignment]
    confidence: NDArray[np.float64] = None  # type: ignore[assignment]
    doubt: NDArray[np.float64] = None  # type: ignore[assignment]
    rival: NDArray[np.int32] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        slots = np.asarray(self.slots, dtype=np.int32)
        view_names = tuple(str(v) for v in self.view_names)
        if slots.ndim != 3 or slots.shape[2] != len(view_names):
            raise InputError(f"groups: expected slots (frames, groups, {len(view_names)} views), got {slots.shape}")
        ids = np.full(slots.shape[:2], -1) if self.ids is None else np.asarray(self.ids)
        _expect("ids", ids, slots.shape[:2])
        empty = (slots < 0).all(axis=2)
        confidence = (~empty).astype(float) if self.confidence is None else np.asarray(self.confidence, dtype=float)
        _expect("confidence", confidence, slots.shape[:2])
        doubt = np.zeros(slots.shape[:2]) if self.doubt is None else np.asarray(self.doubt, dtype=float)
        _expect("doubt", doubt, slots.shape[:2])
        rival = np.full(slots.shape[:2], -1) if self.rival is None else np.asarray(self.rival)
        _expect("rival", rival, slots.shape[:2])
        object.__setattr__(self, "view_names", view_names)
        object.__setattr__(self, "slots", slots)
        object.__setattr__(self, "ids", ids.astype(np.int32))
        object.__setattr__(self, "confidence", confidence)
        object.__setattr__(self, "doubt", doubt)
        object.__setattr__(self, "rival", rival.astype(np.int32))

    def take(self, rows: Any) -> Groups:
        """These rows of the frames axis: a slice, or their numbers."""
        return Groups(self.view_names, **{name: getattr(self, name)[rows] for name in GROUP_ARRAYS})

    def window(self, start: int, stop: int) -> Groups:
        """Rows start..stop-1 of the frames axis."""
        return self.take(slice(start, stop))

    @staticmethod
    def joined(parts: Sequence[Groups]) -> Groups:
        """Parts of equally many groups, one after the other; at least one."""
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in GROUP_ARRAYS}
        return Groups(parts[0].view_names, **arrays)


@dataclass(frozen=True, eq=False)
class Candidates:
    """Keypoint and limb candidates of one view's whole recording, in columns; those of frame f are rows
    frame_start[f] .. frame_start[f + 1] - 1.

    frame_start: (frames + 1,) int64. keypoint: (n,) int32 kind. xy: (n, 2) px. score: (n,). covariance: (n, 2, 2)
    px squared.
    limb_start: (frames + 1,) int64 into the limb columns; a, b: (m,) int64 rows of candidates; edge: (m,) int32;
    limb_score: (m,).
    frame: (frames,) int64 source frame numbers.
    """

    frame_start: NDArray[np.int64]
    keypoint: NDArray[np.int32]
    xy: NDArray[np.float64]
    score: NDArray[np.float64]
    covariance: NDArray[np.float64]
    limb_start: NDArray[np.int64]
    a: NDArray[np.int64]
    b: NDArray[np.int64]
    edge: NDArray[np.int32]
    limb_score: NDArray[np.float64]
    frame: NDArray[np.int64]
    skeleton: Skeleton
    limbs: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        n, m, frames = len(self.keypoint), len(self.a), len(self.frame)
        expected = {
            "frame_start": (frames + 1,), "keypoint": (n,), "xy": (n, 2), "score": (n,), "covariance": (n, 2, 2),
            "limb_start": (frames + 1,), "a": (m,), "b": (m,), "edge": (m,), "limb_score": (m,),
        }  # fmt: skip
        for name, shape in expected.items():
            _expect(name, getattr(self, name), shape)
        for name, end in (("frame_start", n), ("limb_start", m)):
            starts = getattr(self, name)
            if starts[0] != 0 or starts[-1] != end or np.any(np.diff(starts) < 0):
                raise InputError(f"candidates: {name} must rise from 0 to {end}")


def _expect(name: str, array: Array, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise InputError(f"{name}: expected shape {shape}, got {array.shape}")


def _fill(dtype: np.dtype[Any]) -> Any:
    return np.nan if dtype.kind == "f" else np.zeros((), dtype)[()]


def _nan_where(points: NDArray[np.float64], missing: NDArray[np.bool_]) -> NDArray[np.float64]:
    """NaN in all coordinates where any is not finite; copies only when something changes."""
    if np.array_equal(np.isnan(points), np.broadcast_to(missing[..., None], points.shape)):
        return points
    return np.where(missing[..., None], np.nan, points)


def _checked_extras(extras: Mapping[str, Array], points: NDArray[np.float64]) -> dict[str, Array]:
    sizes = dict(zip((*_FIK, "coordinates"), points.shape, strict=True)) | {"xys": 3}
    checked = {}
    for name, array in extras.items():
        if name not in EXTRA_AXES:
            raise InputError(f"poses: unknown extra '{name}'; valid: {', '.join(EXTRA_AXES)}")
        axes, dtype = EXTRA_AXES[name]
        array = np.asarray(array, dtype=dtype)
        if array.ndim != len(axes) or any(
            axis in sizes and size != sizes[axis] for axis, size in zip(axes, array.shape, strict=True)
        ):
            raise InputError(f"poses: extra '{name}' expected axes {axes} for points {points.shape}, got {array.shape}")
        checked[name] = array
    return checked
