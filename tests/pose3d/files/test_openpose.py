"""pose3d.files.openpose: folders of JSON, the two models of 25 keypoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.errors import InputError
from pose3d.files import load_poses
from pose3d.files.openpose import BODY_25, BODY_25B, read_openpose
from pose3d.skeleton import Skeleton

# A standing person, px.
PLACES = {
    "Nose": (100, 40), "LEye": (105, 35), "REye": (95, 35), "LEar": (112, 38), "REar": (88, 38), "LShoulder": (130, 80),
    "RShoulder": (70, 80), "LElbow": (140, 130), "RElbow": (60, 130), "LWrist": (145, 180), "RWrist": (55, 180),
    "LHip": (118, 180), "RHip": (82, 180), "LKnee": (120, 260), "RKnee": (80, 260), "LAnkle": (122, 340),
    "RAnkle": (78, 340), "Neck": (100, 75), "Head": (100, 15), "MidHip": (100, 180), "LBigToe": (126, 360),
    "LSmallToe": (132, 358), "LHeel": (120, 350), "RBigToe": (74, 360), "RSmallToe": (68, 358), "RHeel": (80, 350),
}  # fmt: skip


def person(skeleton: Skeleton, shift: float = 0.0, score: float = 0.5, **extra: Any) -> dict[str, Any]:
    triples = [[PLACES[name][0] + shift, PLACES[name][1] + shift, score] for name in skeleton.keypoints]
    return {"pose_keypoints_2d": [v for triple in triples for v in triple], **extra}


def write(folder: Path, name: str, people: list[Any]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps({"version": 1.3, "people": people}))


@pytest.mark.parametrize("model", [BODY_25, BODY_25B])
def test_people_of_all_frames(tmp_path: Path, model: Skeleton) -> None:
    missing = person(model, 3)
    missing["pose_keypoints_2d"][3:6] = [0, 0, 0]
    write(tmp_path / "cam01", "cam01.0010.json", [person(model, 1), person(model, 2, 1.3)])
    write(tmp_path / "cam01", "cam01.0009.json", [])
    write(tmp_path / "cam01", "cam01.0002.json", [missing, {"person_id": [-1]}, {"pose_keypoints_2d": []}])
    poses = read_openpose(tmp_path / "cam01")
    assert poses.skeleton == model
    np.testing.assert_array_equal(poses.frame, [2, 9, 10])
    assert poses.shape == (3, 2, 25, 2)
    nose = model.index("Nose")
    np.testing.assert_array_equal(poses.points[2, :, nose], [[101, 41], [102, 42]])
    np.testing.assert_array_equal(poses.score[2], np.array([0.5, 1.0])[:, None] * np.ones(25))
    np.testing.assert_array_equal(np.flatnonzero(poses.missing[0, 0]), [1])
    assert poses.score[0, 0, 1] == 0
    assert poses.missing[1].all()
    assert poses.missing[0, 1].all()
    assert (poses.ids == -1).all()


def test_frame_numbers_of_openposes_own_names(tmp_path: Path) -> None:
    for name in ("clip2_000000000012_keypoints.json", "clip2_000000000003_keypoints.json"):
        write(tmp_path / "x", name, [person(BODY_25)])
    np.testing.assert_array_equal(read_openpose(tmp_path / "x").frame, [3, 12])
    write(tmp_path / "x", "clip3_000000000012_keypoints.json", [person(BODY_25)])
    with pytest.raises(InputError, match="two files have frame number 12"):
        read_openpose(tmp_path / "x")


def test_ids_where_openpose_tracks(tmp_path: Path) -> None:
    write(
        tmp_path / "x",
        "0.json",
        [person(BODY_25, person_id=[4]), person(BODY_25, person_id=[-1]), person(BODY_25, person_id=7)],
    )
    np.testing.assert_array_equal(read_openpose(tmp_path / "x").ids, [[4, -1, 7]])


def test_what_cannot_be_told_is_asked(tmp_path: Path) -> None:
    blob = {"pose_keypoints_2d": [v for k in range(25) for v in (50 + 10 * np.cos(k), 50 + 10 * np.sin(k), 1.0)]}
    for name in BODY_25.keypoints[:19]:  # the feet are the same in both models
        k = BODY_25.keypoints.index(name)
        blob["pose_keypoints_2d"][3 * k + 2] = 0.0
    write(tmp_path / "x", "0.json", [blob])
    with pytest.raises(
        InputError, match=r'x: 25 keypoints .* say which with format="openpose_body25" or "openpose_body25b"'
    ):
        load_poses(tmp_path / "x")
    assert load_poses(tmp_path / "x", "openpose_body25").skeleton == BODY_25
    assert load_poses(tmp_path / "x", "openpose_body25b").skeleton == BODY_25B


def test_other_numbers_of_keypoints_need_a_skeleton(tmp_path: Path) -> None:
    write(tmp_path / "x", "0.json", [{"pose_keypoints_2d": [1, 2, 0.5, 3, 4, 0.5]}])
    with pytest.raises(InputError, match="people have 2 keypoints; give the skeleton="):
        load_poses(tmp_path / "x")
    own = Skeleton(("a", "b"))
    poses = load_poses(tmp_path / "x", skeleton=own)
    assert poses.skeleton == own
    np.testing.assert_array_equal(poses.points[0, 0], [[1, 2], [3, 4]])
    with pytest.raises(InputError, match="expected 3 keypoints, got people with 2"):
        load_poses(tmp_path / "x", skeleton=Skeleton(("a", "b", "c")))
    write(tmp_path / "x", "1.json", [{"pose_keypoints_2d": [1, 2, 0.5]}])
    with pytest.raises(InputError, match=r"expected one number of keypoints, got \[1, 2\]"):
        load_poses(tmp_path / "x", skeleton=own)


def test_a_wanted_skeleton_tells_the_model(tmp_path: Path) -> None:
    write(tmp_path / "x", "0.json", [person(BODY_25B)])
    wanted = Skeleton((*sorted(BODY_25B.keypoints), "hat"), edges=((0, 1),))
    poses = load_poses(tmp_path / "x", skeleton=wanted)
    assert poses.skeleton == wanted
    for name, place in PLACES.items():
        if name in BODY_25B.keypoints:
            np.testing.assert_array_equal(poses.points[0, 0, wanted.index(name)], place)
    assert poses.missing[0, 0, wanted.index("hat")]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"people": 3}', '{"people": [{"pose_keypoints_2d": [1, 2]}]}', '{"people": ["x"]}']
)
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    write(tmp_path / "x", "0.json", [person(BODY_25)])
    (tmp_path / "x" / "1.json").write_text(text)
    with pytest.raises(InputError, match=r"1\.json: cannot be read as OpenPose JSON"):
        read_openpose(tmp_path / "x")
    with pytest.raises(InputError, match=r"expected OpenPose's \.json files"):
        read_openpose(tmp_path)


def test_the_models_orders_and_partners() -> None:
    """Numbers of openpose `poseParameters.cpp` and of the table of BODY_25B."""
    body_25 = {
        0: "Nose", 1: "Neck", 2: "RShoulder", 3: "RElbow", 4: "RWrist", 5: "LShoulder", 6: "LElbow", 7: "LWrist",
        8: "MidHip", 9: "RHip", 10: "RKnee", 11: "RAnkle", 12: "LHip", 13: "LKnee", 14: "LAnkle", 15: "REye",
        16: "LEye", 17: "REar", 18: "LEar", 19: "LBigToe", 20: "LSmallToe", 21: "LHeel", 22: "RBigToe",
        23: "RSmallToe", 24: "RHeel",
    }  # fmt: skip
    body_25b = {
        0: "Nose", 1: "LEye", 2: "REye", 3: "LEar", 4: "REar", 5: "LShoulder", 6: "RShoulder", 7: "LElbow", 8: "RElbow",
        9: "LWrist", 10: "RWrist", 11: "LHip", 12: "RHip", 13: "LKnee", 14: "RKnee", 15: "LAnkle", 16: "RAnkle",
        17: "Neck", 18: "Head", 19: "LBigToe", 20: "LSmallToe", 21: "LHeel", 22: "RBigToe", 23: "RSmallToe",
        24: "RHeel",
    }  # fmt: skip
    assert dict(enumerate(BODY_25.keypoints)) == body_25
    assert dict(enumerate(BODY_25B.keypoints)) == body_25b
    for model, midline in ((BODY_25, {"Nose", "Neck", "MidHip"}), (BODY_25B, {"Nose", "Neck", "Head"})):
        flipped = model.flip_order()
        assert {n for k, n in enumerate(model.keypoints) if flipped[k] == k} == midline
        assert all(
            model.keypoints[a][1:] == model.keypoints[b][1:] and model.keypoints[a][0] == "L" for a, b in model.symmetry
        )
        mirrored = {frozenset((int(flipped[a]), int(flipped[b]))) for a, b in model.edges}
        assert mirrored == {frozenset(e) for e in model.edges}
        mirrored = {frozenset((int(flipped[a]), int(flipped[b]))) for a, b in model.bones}
        assert mirrored == {frozenset(e) for e in model.bones}
        assert {k for edge in model.edges for k in edge} == set(range(25))
