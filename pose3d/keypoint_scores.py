"""How far off is each keypoint, in each camera? Median, RMS, 95th percentile and PCK, beside the labels' own noise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from calibration.errors import InputError
from calibration.view_noise import ViewNoise
from pose3d.comparison import matched, on_common_ground
from pose3d.covariance_scores import squared_deviations
from pose3d.detection_scores import evaluate_detections
from pose3d.poses import Poses
from pose3d.skeleton import Skeleton

__all__ = [
    "ALL",
    "KeypointErrors",
    "beside_labels",
    "evaluate_keypoints",
    "evaluate_views",
    "join_frames",
    "join_views",
]

Float = NDArray[np.float64]

ALL = "all"
"""What all keypoints, and all cameras, together are called."""
SHARES = (0.05, 0.1, 0.2)
"""Of the animals' size, up to which a keypoint counts as right in PCK."""
LEVEL = 0.95
MEDIAN_PER_SD = float(np.sqrt(2 * np.log(2)))
"""Median distance of a 2D Gaussian over its SD per axis: it follows Rayleigh's distribution."""


@dataclass(frozen=True)
class KeypointErrors:
    """Errors of one keypoint, or of ALL, in one camera, or in ALL ("" where there is but one).

    n: labelled ones, which the truth holds. delivered: share of them that the estimate holds. median, rms, p95: of the
    distances of those, in the poses' unit. pck: {share: part of the n that is within this share of the animals' size};
    what was not delivered is not within. size: of the camera's animals, the median over frames of the truth's largest
    keypoint distance; of several cameras each has its own, and this is NaN. inside_95: share of the errors inside the
    stated 95 % ellipses. oks_map: see `evaluate_detections`; of ALL keypoints in 2D. label_sd: px, SD per axis of the
    labels, as far as the cameras show it; label_median: the median distance that such labels have from the truth. NaN
    where something is not known.
    """

    camera: str
    keypoint: str
    n: int
    delivered: float
    median: float
    rms: float
    p95: float
    pck: dict[str, float] = field(default_factory=dict)
    size: float = float("nan")
    inside_95: float = float("nan")
    oks_map: float = float("nan")
    label_sd: float = float("nan")

    @property
    def label_median(self) -> float:
        """px, the median distance from the truth of labels with this SD."""
        return MEDIAN_PER_SD * self.label_sd

    def to_dict(self) -> dict[str, Any]:
        """One line of a table: all fields, one column for each share of PCK."""
        told = asdict(self)
        pck = {f"pck_{share}": value for share, value in told.pop("pck").items()}
        head = {name: told.pop(name) for name in ("camera", "keypoint", "n", "delivered", "median", "rms", "p95")}
        return head | pck | told | {"label_median": self.label_median}


@dataclass(frozen=True)
class _Errors:
    """Of one keypoint's labels (n,): distance, infinite where not delivered; the same over the animals' size; whether
    the error is inside the stated ellipse, NaN where nothing is stated."""

    distance: Float
    relative: Float
    inside: Float


def evaluate_keypoints(truth: Poses, estimate: Poses) -> tuple[KeypointErrors, ...]:
    """One for each keypoint that the truth holds, then one for ALL; 2D or 3D.

    Frames, keypoints and individuals meet as in `evaluate_pose`. Raises InputError when nothing can be compared.
    """
    errors, size = _errors(truth, estimate)
    return _rows("", errors, size, _oks_map(truth, estimate))


def evaluate_views(views: Mapping[str, tuple[Poses, Poses]]) -> tuple[KeypointErrors, ...]:
    """Of each camera's truth and estimate in 2D, {camera: (truth, estimate)}: for each camera what `evaluate_keypoints`
    gives; of several cameras the same for ALL of them at the end.

    Individuals meet frame by frame, whoever they are. Raises InputError naming the camera where nothing can be
    compared.
    """
    told: list[KeypointErrors] = []
    pooled: dict[str, list[_Errors]] = {}
    for camera, pair in views.items():
        truth, estimate = (poses.replace(ids=None) for poses in pair)
        try:
            errors, size = _errors(truth, estimate)
            told += _rows(camera, errors, size, _oks_map(truth, estimate))
        except InputError as error:
            raise InputError(f"camera '{camera}': {error}") from None
        for name, own in errors.items():
            pooled.setdefault(name, []).append(own)
    if len(views) > 1:
        everything = {name: _pooled(own) for name, own in pooled.items()}
        told += _rows(ALL, everything, float("nan"), _oks_map(*join_views(views)))
    return tuple(told)


def beside_labels(
    rows: Iterable[KeypointErrors], noise: Mapping[str, ViewNoise], cameras: Sequence[str]
) -> tuple[KeypointErrors, ...]:
    """The same with the labels' own noise {keypoint: of each of the cameras, in this order}: root mean squares over the
    labels where it is of ALL."""

    def known(row: KeypointErrors) -> float:
        squares = count = 0.0
        for name, own in noise.items():
            for camera, sd, n in zip(cameras, own.sd, own.n, strict=True):
                if row.keypoint in (name, ALL) and row.camera in (camera, ALL) and n > 0:
                    squares, count = squares + n * sd**2, count + n
        return float(np.sqrt(squares / count)) if count else float("nan")

    return tuple(replace(row, label_sd=known(row)) for row in rows)


def join_views(views: Mapping[str, tuple[Poses, Poses]]) -> tuple[Poses, Poses]:
    """Truth and estimate of all cameras, frames one after the other; each camera's on its truth's frames and common
    keypoints."""
    pairs = [on_common_ground(truth, estimate) for truth, estimate in views.values()]
    return join_frames([truth for truth, _ in pairs]), join_frames([estimate for _, estimate in pairs])


def join_frames(parts: Sequence[Poses]) -> Poses:
    """Frames of 2D poses one after the other, numbered anew, without identities: on all their keypoints, with their
    covariance."""
    names = tuple(dict.fromkeys(name for part in parts for name in part.skeleton.keypoints))
    starts = np.cumsum([0, *(len(part.frame) for part in parts)])
    shape = (int(starts[-1]), max(part.shape[1] for part in parts), len(names))
    points, score = np.full((*shape, 2), np.nan), np.zeros(shape)
    covariance = np.full((*shape, 2, 2), np.nan)
    for start, part in zip(starts, parts, strict=False):
        order = np.array([names.index(name) for name in part.skeleton.keypoints])
        here = np.ix_(np.arange(start, start + len(part.frame)), np.arange(part.shape[1]), order)
        points[here], score[here] = part.points, part.score
        if "covariance" in part.extras:
            covariance[here] = part.extras["covariance"]
    stated = any("covariance" in part.extras for part in parts)
    extras = {"covariance": covariance} if stated else {}
    return Poses(points, score, skeleton=Skeleton(names), extras=extras)


def _errors(truth: Poses, estimate: Poses) -> tuple[dict[str, _Errors], float]:
    """{keypoint that the truth holds: its errors}, and the animals' size."""
    true, found, size = matched(truth, estimate)
    distance = np.linalg.norm(true.points - found.points, axis=-1)
    distance[np.isnan(distance)] = np.inf
    squared = squared_deviations(true, found)
    inside = np.where(np.isnan(squared), np.nan, squared <= chi2.ppf(LEVEL, true.shape[3]))
    told = {}
    for k, name in enumerate(true.skeleton.keypoints):
        wanted = ~true.missing[..., k]
        if wanted.any():
            own = distance[..., k][wanted]
            told[name] = _Errors(own, own / size, inside[..., k][wanted])
    return told, size


def _pooled(parts: Iterable[_Errors]) -> _Errors:
    columns = zip(*((part.distance, part.relative, part.inside) for part in parts), strict=True)
    return _Errors(*(np.concatenate(column) for column in columns))


def _rows(camera: str, errors: Mapping[str, _Errors], size: float, oks_map: float) -> tuple[KeypointErrors, ...]:
    if not errors:
        raise InputError("expected keypoints in the truth, got none; label some")
    last = _row(camera, ALL, _pooled(errors.values()), size)
    rows = (_row(camera, name, own, size) for name, own in errors.items())
    return (*rows, replace(last, oks_map=oks_map))


def _row(camera: str, keypoint: str, errors: _Errors, size: float) -> KeypointErrors:
    known = errors.distance[np.isfinite(errors.distance)]
    stated = errors.inside[~np.isnan(errors.inside)]
    median, rms, p95 = float("nan"), float("nan"), float("nan")
    if known.size:
        median, rms, p95 = np.median(known), np.sqrt((known**2).mean()), np.percentile(known, 95)
    return KeypointErrors(
        camera, keypoint, len(errors.distance), len(known) / len(errors.distance), float(median), float(rms),
        float(p95), {f"{share:g}": _share(errors.relative, share) for share in SHARES}, size,
        float(stated.mean()) if stated.size else float("nan"),
    )  # fmt: skip


def _share(relative: Float, share: float) -> float:
    """NaN where animals have no size: they have one keypoint."""
    return float("nan") if np.isnan(relative).any() else float((relative <= share).mean())


def _oks_map(truth: Poses, estimate: Poses) -> float:
    if truth.shape[3] != 2 or truth.missing.all():
        return float("nan")
    return evaluate_detections(truth, estimate).oks_map
