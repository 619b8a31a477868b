"""Labelled frames of real projects: as many as there are, on the images that they were made on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from calibration.errors import InputError
from calibration.footage import open_footage
from pose3d.files import load_labels, load_poses
from pose3d.label_check import suspect_labels
from pose3d.labels import Labels, check_labels, hold_out, join_labels

pytestmark = pytest.mark.real

MOUSE = "sleap_anipose_minimal/minimal_session"
OPENFIELD = "dlc_openfield/openfield-Pranav-2018-10-30"
MIRROR = "lp_mirror_mouse/mirror-mouse-example"


@pytest.mark.parametrize(
    ("name", "shape", "video"),
    [
        (f"{MOUSE}/side/minimal_side_proofread.slp", (120, 1, 15, 2), "minimal_side.mp4"),
        ("sleap_tracks/tracks/clip.slp", (1500, 2, 13, 2), "clip.mp4"),
        ("sleap_misc/datasets/minimal_instance.pkg.slp", (1, 2, 2, 2), "centered_pair_low_quality.mp4"),
        ("sleap_misc/datasets/small_robot_minimal.slp", (2, 1, 2, 2), "small_robot.mp4"),
        ("sleap_misc/slp_hdf5/dance.mp4.labels.slp", (3, 1, 17, 2), "dance.mp4"),  # 450 frames are predicted only
        (f"{MIRROR}/CollectedData.csv", (90, 1, 17, 2), "labeled-data"),
        (MIRROR, (90, 1, 17, 2), "labeled-data"),
    ],
)
def test_labels_stand_in_their_images(real_data: Path, name: str, shape: tuple[int, ...], video: str) -> None:
    labels = load_labels(real_data / name)
    assert labels.points.shape == shape
    assert set(labels.video) == {video}
    check_labels(labels)
    assert labels.image(0).shape[2] == 3


@pytest.mark.parametrize(
    ("name", "frames", "keypoints", "edges", "video"),
    [
        ("ak/test_animalkingdom.json", [27, 28], 12, 22, "AAOYRUDX"),  # of a category that it does not list
        ("animalpose/test_animalpose.json", [105, 110], 32, 20, "test_animalpose"),
        ("ap10k/test_ap10k.json", [4, 37516], 32, 17, "test_ap10k"),  # 54 categories of the same keypoints
        ("atrw/test_atrw.json", [61, 3464], 30, 14, "test_atrw"),  # edges from 0
        ("fly/test_fly.json", [1400, 1450], 64, 25, "test_fly"),
        ("horse10/test_horse10.json", [244, 292, 465], 52, 0, "test_horse10"),
        ("locust/test_locust.json", [630, 650], 70, 26, "test_locust"),
        ("macaque/test_macaque.json", [1473, 3217], 31, 19, "test_macaque"),
        ("zebra/test_zebra.json", [810, 850], 18, 8, "test_zebra"),
    ],
)
def test_coco_keypoints_of_nine_sets_of_animals(
    real_data: Path, name: str, frames: list[int], keypoints: int, edges: int, video: str
) -> None:
    labels = load_labels(real_data / "mmpose_animals" / name)
    check_labels(labels)
    np.testing.assert_array_equal(labels.frame, frames)
    assert labels.points.shape[:2] == (len(frames), 1)
    assert np.isfinite(labels.points[..., 0]).sum() == keypoints
    assert len(labels.skeleton.edges) == edges
    assert set(labels.video) == {video}
    data = json.loads((real_data / "mmpose_animals" / name).read_text())
    assert sum(animal["num_keypoints"] for animal in data["annotations"]) == keypoints
    sizes = {Path(image["file_name"]).name: (image["height"], image["width"], 3) for image in data["images"]}
    for row, image in labels.images():
        assert image.shape == sizes[labels.pictures[row].path.name]


def test_edges_of_coco_join_what_belongs_together(real_data: Path) -> None:
    """Of 0-based and 1-based skeletons: with the wrong base edges would go across the animal."""
    for name, pair in (
        ("atrw/test_atrw.json", ("left_ear", "nose")),
        ("ak/test_animalkingdom.json", ("Ankle_Left", "Knee_Left")),
        ("zebra/test_zebra.json", ("head", "snout")),
        ("macaque/test_macaque.json", ("right_ankle", "right_knee")),
    ):
        skeleton = load_labels(real_data / "mmpose_animals" / name).skeleton
        assert pair in {
            tuple(sorted((skeleton.keypoints[a], skeleton.keypoints[b]), key=str)) for a, b in skeleton.edges
        }


def test_the_mirrors_views_as_a_project_of_two(real_data: Path, tmp_path: Path) -> None:
    """The mirror mouse's table as Lightning Pose splits it: a table for each view, the keypoints' names alike."""
    whole = load_labels(real_data / MIRROR)
    lines = [line.split(",") for line in (real_data / MIRROR / "CollectedData.csv").read_text().splitlines()]
    for view in ("top", "bot"):
        columns = [place for place, part in enumerate(lines[1]) if re.fullmatch(rf"(?!obs).*_{view}", part)]
        rows = [[line[0], *(line[place].removesuffix(f"_{view}") for place in columns)] for line in lines]
        for row in rows[3:]:
            row[0] = row[0].replace("labeled-data/", f"labeled-data/mouse_{view}/")
        (tmp_path / f"CollectedData_{view}.csv").write_text("\n".join(",".join(row) for row in rows) + "\n")
        (tmp_path / "labeled-data").mkdir(exist_ok=True)
        (tmp_path / f"labeled-data/mouse_{view}").symlink_to(real_data / MIRROR / "labeled-data")
    labels = load_labels(tmp_path)
    check_labels(labels)
    for view in ("top", "bot"):
        own = labels.take([camera == view for camera in labels.camera])
        assert set(own.video) == {f"mouse_{view}"}
        np.testing.assert_array_equal(own.frame, whole.frame)
        parts = [whole.skeleton.index(f"{name}_{view}") for name in own.skeleton.keypoints]
        np.testing.assert_array_equal(own.points, whole.points[:, :, parts])
        np.testing.assert_array_equal(own.image(0), whole.image(0))


def test_the_flies_are_where_their_labels_are(real_data: Path) -> None:
    """Flies are bright on a dark floor, and walk: at the labels it is brighter than at those of another frame, or at
    labels half a fly off.
    """
    labels = load_labels(real_data / "sleap_tracks/tracks/clip.slp", frames=(950, 1499)).take(range(0, 550, 50))
    brightness = []
    for row, image in labels.images():
        other = labels.points[row - 1]
        points = labels.points[row], other, labels.points[row] + 30, labels.points[row] - 30
        places = [p[np.isfinite(p[..., 0])].round().astype(int) for p in points]
        brightness.append([image[y, x].mean() for x, y in (place.T for place in places)])
    own, *others = np.mean(brightness, axis=0)
    assert own > 1.5 * max(others)


def test_four_cameras_are_joined(real_data: Path) -> None:
    views = ("back", "mid", "side", "top")
    parts = [load_labels(real_data / MOUSE / v / f"minimal_{v}_proofread.slp", camera=v, frames=(0, 39)) for v in views]
    labels = join_labels(parts)
    assert len(labels) == 160
    _, held = hold_out(labels)
    for view in views:
        rows = [row for row in held if labels.camera[row] == view]
        np.testing.assert_array_equal(labels.frame[rows], [18, 19, 20, 21])
    poses = load_poses(real_data / MOUSE / "side/minimal_side_proofread.slp")
    np.testing.assert_array_equal(labels.points[80:120], poses.points[:40])
    row = 80 + 17
    with open_footage(labels.pictures[row].path) as footage:
        np.testing.assert_array_equal(labels.image(row), footage.read(17))


def test_an_embedded_image_is_grey_as_its_flies(real_data: Path) -> None:
    labels = load_labels(real_data / "sleap_misc/datasets/minimal_instance.pkg.slp")
    image = labels.image(0)
    assert image.shape == (384, 384, 3)
    assert (image == image[..., :1]).all()


def test_half_of_the_openfields_images_are_missing(real_data: Path) -> None:
    with pytest.raises(InputError, match=r"58 of 116 labelled frames have no image") as told:
        load_labels(real_data / OPENFIELD)
    assert str(told.value).count(".png") == 58
    labels = load_labels(real_data / OPENFIELD, missing="skip")
    np.testing.assert_array_equal(labels.frame, range(0, 116, 2))
    assert labels.skeleton.keypoints == ("snout", "leftear", "rightear", "tailbase")
    check_labels(labels)
    table = load_labels(real_data / OPENFIELD / "labeled-data/m4s1/CollectedData_Pranav.csv", missing="skip")
    np.testing.assert_allclose(table.points, labels.points, rtol=0, atol=1e-9)  # the H5 and the CSV of one table


def test_labels_of_a_larger_image_are_refused(real_data: Path) -> None:
    """The labels of a video of 1280 x 1024 px on one of 560 x 320."""
    slp = real_data / MOUSE / "side/minimal_side_proofread.slp"
    robot = real_data / "sleap_misc/datasets/small_robot.mp4"
    wrong: Labels = load_labels(slp, camera="side", video=robot)
    with pytest.raises(InputError, match=r"small_robot\.mp4, camera 'side', frame 0: .* 560 x 320 px, got '\w+' at \("):
        check_labels(wrong)
    flies = load_labels(real_data / "sleap_tracks/tracks/clip.slp", video=robot)
    with h5py.File(real_data / "sleap_tracks/tracks/clip.slp") as file:
        last = int(file["frames"]["frame_idx"].max())
    with pytest.raises(InputError, match=rf"small_robot\.mp4: expected frame {last}, which is labelled"):
        check_labels(flies)


def test_labels_that_look_wrong_are_those_that_are(real_data: Path) -> None:
    """The open field's one image whose ears are exchanged; the mouse's haunch, whose label drifts while it sits still;
    two paws of the mirror mouse on one spot."""
    (ears,) = suspect_labels(load_labels(real_data / OPENFIELD, missing="skip"))
    assert (ears.kind, ears.keypoints, ears.where) == ("exchanged", ("leftear", "rightear"), "m4s1, frame 102")
    views = ("back", "mid", "side", "top")
    mouse = [load_labels(next((real_data / MOUSE / view).glob("*.slp")), camera=view) for view in views]
    found = [suspect for suspect in suspect_labels(join_labels(mouse)) if suspect.row >= 0]
    assert {suspect.kind for suspect in found} == {"outlier"}
    assert found[0].keypoints == ("Haunch_left",)
    assert len(found) <= 0.001 * np.isfinite(join_labels(mouse).points[..., 0]).sum()
    (paws,) = suspect_labels(load_labels(real_data / MIRROR))
    assert (paws.kind, paws.where) == ("same_spot", "labeled-data, frame 88")
