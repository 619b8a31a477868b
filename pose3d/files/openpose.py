"""Which poses does a folder of OpenPose JSON files hold? One file a frame, with a list of people.

The frame is the last integer in the file's name ("cam02.0080.json", "clip_000000000012_keypoints.json"). A score of 0
is a missing keypoint. Pixels count from the centre of the first one: OpenPose's training takes 1 off COCO's coordinates
("from matlab 1-index to c++ 0-index", openpose_train `oPDataTransformer.cpp`) and its peaks get 0.5 added ("+0.5 to
both to keep Matlab format", openpose `nmsBase.cpp`), which leaves COCO's coordinate minus 0.5.
Keypoints of BODY_25: openpose `poseParameters.cpp`; of BODY_25B: openpose_train, experimental models; names as in
Pose2Sim.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InputError
from pose3d.files.numbering import last_integer
from pose3d.poses import Poses
from pose3d.skeleton import Skeleton

__all__ = ["BODY_25", "BODY_25B", "read_openpose"]

_LOG = logging.getLogger(__name__)


def _skeleton(keypoints: str, edges: str, bones: str) -> Skeleton:
    """A skeleton from names and pairs of names; left and right partners are those whose names differ in the first
    letter.
    """
    names = keypoints.split()
    plain = Skeleton(tuple(names))
    pairs = {
        text: plain.pairs_by_name([(a, b) for a, b in (pair.split("-") for pair in text.split())])
        for text in (edges, bones)
    }
    symmetry = plain.pairs_by_name([(n, "R" + n[1:]) for n in names if n[0] == "L" and "R" + n[1:] in names])
    return Skeleton(plain.keypoints, edges=pairs[edges], bones=pairs[bones], symmetry=symmetry)


_LIMBS = (
    "LShoulder-LElbow LElbow-LWrist RShoulder-RElbow RElbow-RWrist LHip-LKnee LKnee-LAnkle RHip-RKnee RKnee-RAnkle "
    "LAnkle-LHeel LAnkle-LBigToe LBigToe-LSmallToe RAnkle-RHeel RAnkle-RBigToe RBigToe-RSmallToe"
)
BODY_25 = _skeleton(
    "Nose Neck RShoulder RElbow RWrist LShoulder LElbow LWrist MidHip RHip RKnee RAnkle LHip LKnee LAnkle REye LEye "
    "REar LEar LBigToe LSmallToe LHeel RBigToe RSmallToe RHeel",
    edges=f"{_LIMBS} Neck-MidHip Neck-RShoulder Neck-LShoulder MidHip-RHip MidHip-LHip Neck-Nose Nose-REye REye-REar "
    "Nose-LEye LEye-LEar",
    bones=f"{_LIMBS} RHip-LHip Nose-REye Nose-LEye",
)
"""OpenPose's default model."""
BODY_25B = _skeleton(
    "Nose LEye REye LEar REar LShoulder RShoulder LElbow RElbow LWrist RWrist LHip RHip LKnee RKnee LAnkle RAnkle Neck "
    "Head LBigToe LSmallToe LHeel RBigToe RSmallToe RHeel",
    edges=f"{_LIMBS} LShoulder-LHip RShoulder-RHip LHip-RHip LShoulder-RShoulder Neck-LShoulder Neck-RShoulder "
    "Neck-Head Nose-LEye LEye-LEar Nose-REye REye-REar",
    bones=f"{_LIMBS} LHip-RHip Neck-Head Nose-LEye Nose-REye",
)
"""OpenPose's experimental model; the upper neck and the top of the head are Neck and Head, as Pose2Sim names them."""

_TELLING_RATIO = 1.3
"""How much longer a person's edges must be in the wrong model to tell the right one; on real people they are 1.5 to 3
times.
"""


def read_openpose(path: Path, skeleton: Skeleton | None = None) -> Poses:
    """The people of all frames of a folder, slots in the files' order, padded to the most in a frame; ids where
    OpenPose gives them.

    skeleton: which keypoint each triple is (`BODY_25`, `BODY_25B` or one's own). Default for 25 keypoints: the model
        whose edges
    are shorter on these people. Entries without keypoints are skipped. Time is unknown.
    Raises InputError naming the file when one is no OpenPose JSON, two have one number, or the model cannot be told.
    """
    files = sorted(
        (last_integer(file.name.removesuffix("_keypoints.json"), path), file) for file in path.glob("*.json")
    )
    if not files:
        raise InputError(f"{path}: expected OpenPose's .json files, one a frame, found none")
    frame = np.array([number for number, _ in files])
    if np.any(np.diff(frame) == 0):
        number = frame[np.argmax(np.diff(frame) == 0)]
        raise InputError(f"{path}: two files have frame number {number}; put each recording into a folder of its own")
    people = [_people(file) for _, file in files]
    n_keypoints = {len(triples) for persons in people for _, triples in persons}
    if len(n_keypoints) > 1:
        raise InputError(f"{path}: expected one number of keypoints, got {sorted(n_keypoints)}")
    shape = (len(files), max(len(persons) for persons in people), max(n_keypoints, default=0))
    triples, ids = np.zeros((*shape, 3)), np.full(shape[:2], -1, dtype=np.int32)
    for f, persons in enumerate(people):
        for slot, (identity, values) in enumerate(persons):
            ids[f, slot], triples[f, slot] = identity, values
    if skeleton is None and shape[2]:
        skeleton = _told_model(path, triples)
    if skeleton is None or len(skeleton) != shape[2]:
        expected = "a skeleton=" if skeleton is None else f"{len(skeleton)} keypoints"
        raise InputError(
            f"{path}: expected {expected}, got people with {shape[2]} keypoints; give the skeleton that they have"
        )
    score = triples[..., 2]
    points = np.where((score > 0)[..., None], triples[..., :2], np.nan)
    return Poses(points=points, score=score, ids=ids, frame=frame, skeleton=skeleton)


def _people(file: Path) -> list[tuple[int, NDArray[np.float64]]]:
    """(id or -1, triples (keypoints, 3)) of each person in a file that has keypoints."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))["people"]
        return [
            (_identity(entry), np.array(entry["pose_keypoints_2d"], dtype=np.float64).reshape(-1, 3))
            for entry in entries
            if entry.get("pose_keypoints_2d")
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: cannot be read as OpenPose JSON ({type(error).__name__}: {error})") from None


def _identity(entry: dict[str, Any]) -> int:
    """OpenPose writes person_id as a list of one, -1 where it does not track."""
    identity = entry.get("person_id", -1)
    return int(identity[0] if isinstance(identity, list) else identity)


def _told_model(path: Path, triples: NDArray[np.float64]) -> Skeleton:
    """BODY_25 or BODY_25B, by which has the shorter edges: the wrong one joins elbows to hips. The number of keypoints
    is 25 in both.
    """
    if triples.shape[2] != len(BODY_25):
        raise InputError(f"{path}: people have {triples.shape[2]} keypoints; give the skeleton= that they have")
    xy = np.where(triples[..., 2:] > 0, triples[..., :2], np.nan).reshape(-1, len(BODY_25), 2)
    length, length_b = _mean_edge_length(xy, BODY_25), _mean_edge_length(xy, BODY_25B)
    told = length[(length > 0) & (length_b > 0)] / length_b[(length > 0) & (length_b > 0)]
    ratio = float(np.median(told)) if len(told) else 1.0
    if 1 / _TELLING_RATIO < ratio < _TELLING_RATIO:
        raise InputError(
            f"{path}: 25 keypoints are BODY_25 or BODY_25B, these people do not tell; "
            'say which with format="openpose_body25" or "openpose_body25b"'
        )
    _LOG.info(
        "%s: taken as %s (edges in BODY_25 %.2f times as long as in BODY_25B)",
        path,
        "BODY_25B" if ratio > 1 else "BODY_25",
        ratio,
    )
    return BODY_25B if ratio > 1 else BODY_25


def _mean_edge_length(xy: NDArray[np.float64], skeleton: Skeleton) -> NDArray[np.float64]:
    """(people,) px, over the edges of which both ends are seen; 0 where there is none."""
    a, b = np.array(skeleton.edges).T
    length = np.linalg.norm(xy[:, a] - xy[:, b], axis=2)
    return np.nansum(length, axis=1) / np.maximum(np.isfinite(length).sum(axis=1), 1)
