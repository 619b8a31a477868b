"""COCO's keypoints: files written here, and what becomes of damaged ones."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from calibration.errors import InputError
from pose3d.files import load_labels
from pose3d.labels import check_labels
from pose3d.skeleton import Skeleton

NAN = float("nan")
SIZE = 32, 24


def write_image(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((SIZE[1], SIZE[0], 3), value, dtype=np.uint8))
    return path


def dataset(files: list[str], animals: list[tuple[int, list[float]]]) -> dict[str, Any]:
    """Mice with nose and tail; animals: (place of the image, x, y, v of both)."""
    mouse = {"id": 1, "name": "mouse", "supercategory": "animal", "keypoints": ["nose", "tail"], "skeleton": [[1, 2]]}
    return {
        "info": {"year": 2026},
        "images": [{"id": 10 + i, "file_name": f, "width": SIZE[0], "height": SIZE[1]} for i, f in enumerate(files)],
        "annotations": [
            {
                "id": 100 + place,
                "image_id": 10 + image,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [0, 0, 9, 9],
                "area": 81,
            }
            | {"keypoints": triples, "num_keypoints": sum(v > 0 for v in triples[2::3])}
            for place, (image, triples) in enumerate(animals)
        ],
        "categories": [mouse],
    }


def write(path: Path, data: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    return path


def example(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """Three images: two mice in frame 12, one in frame 3, none in frame 5."""
    files = [f"img{frame:04d}.png" for frame in (12, 3, 5)]
    for value, name in enumerate(files):
        write_image(tmp_path / name, 50 * value)
    data = dataset(files, [(0, [1, 2, 2, 3.5, 4.25, 1]), (1, [5, 6, 2, 0, 0, 0]), (0, [7, 8, 2, 9, 10, 2])])
    return tmp_path / "top.json", data


def test_annotations_of_an_image_are_its_individuals(tmp_path: Path) -> None:
    path, data = example(tmp_path)
    labels = load_labels(write(path, data), camera="cam1")
    check_labels(labels)
    np.testing.assert_array_equal(labels.frame, [3, 12])
    np.testing.assert_array_equal(  # hidden keypoints (1) are labelled, and no pixel is moved
        labels.points, [[[[5, 6], [NAN, NAN]], [[NAN, NAN]] * 2], [[[1, 2], [3.5, 4.25]], [[7, 8], [9, 10]]]]
    )
    assert labels.skeleton == Skeleton(("nose", "tail"), edges=((0, 1),))
    assert labels.camera == ("cam1", "cam1")
    assert labels.video == ("top", "top")
    assert [labels.image(row)[0, 0, 0] for row in range(2)] == [50, 0]
    np.testing.assert_array_equal(load_labels(path, frames=(10, 20)).frame, [12])
    wanted = Skeleton(("tail", "ear", "nose"))
    np.testing.assert_array_equal(load_labels(path, skeleton=wanted).points[1, 0, :, 0], [3.5, NAN, 1])


def test_what_labels_no_keypoint_is_left_out(tmp_path: Path) -> None:
    path, data = example(tmp_path)
    crowd, box, outline, empty = (copy.deepcopy(data["annotations"][1]) for _ in range(4))
    crowd["iscrowd"] = 1
    crowd["image_id"] = box["image_id"] = outline["image_id"] = empty["image_id"] = 12
    del box["keypoints"]
    outline["keypoints"] = []
    empty["keypoints"] = [-1, -1, 0, None, None, 0]
    data["annotations"] += [crowd, box, outline, empty]
    data["categories"].append({"id": 2, "name": "box"})
    assert load_labels(write(path, data)).points.shape == (2, 2, 2, 2)
    data["annotations"] = [crowd, box, outline, empty]
    with pytest.raises(InputError, match=r"top\.json: expected annotations with labelled keypoints, found none"):
        load_labels(write(path, data))


def test_images_that_are_listed_twice_are_one(tmp_path: Path) -> None:
    path, data = example(tmp_path)
    data["images"].append(data["images"][0] | {"id": 77})
    data["annotations"][2]["image_id"] = 77
    assert load_labels(write(path, data)).points.shape == (2, 2, 2, 2)


def test_ids_may_be_text_or_floats(tmp_path: Path) -> None:
    path, data = example(tmp_path)
    expected = load_labels(write(path, data)).points
    for entry, annotation in ((data["images"][0], data["annotations"][0]), (data["images"][1], data["annotations"][1])):
        entry["id"] = annotation["image_id"] = f"uuid-{entry['id']}"
    data["annotations"][2]["image_id"] = data["images"][0]["id"]
    data["annotations"][0]["category_id"] = 1.0
    np.testing.assert_array_equal(load_labels(write(path, data)).points, expected)


@pytest.mark.parametrize(
    ("pairs", "edges"),
    [
        ([[1, 2], [2, 3]], ((0, 1), (1, 2))),
        ([[0, 1], [1, 2]], ((0, 1), (1, 2))),  # as in ATRW and Animal Kingdom
        ([[3, 1], [2, 2], [3, 1]], ((2, 0),)),
        ([[1, 2], [2, 33]], ()),
        ([[0, 3]], ()),
        ([[-1, 2]], ()),
        ([], ()),
        (None, ()),
    ],
)
def test_edges_count_from_one_or_zero(
    tmp_path: Path, pairs: object, edges: tuple[tuple[int, int], ...], caplog: pytest.LogCaptureFixture
) -> None:
    write_image(tmp_path / "1.png")
    data = dataset(["1.png"], [(0, [1, 1, 2] * 3)])
    data["categories"][0] |= {"keypoints": ["a", "b", "c "], "skeleton": pairs}
    with caplog.at_level(logging.WARNING):
        labels = load_labels(write(tmp_path / "a.json", data))
    assert labels.skeleton == Skeleton(("a", "b", "c"), edges=edges)
    assert bool(caplog.records) == bool(pairs and not edges)


def test_categories_with_the_same_keypoints_are_one_skeleton(tmp_path: Path) -> None:
    path, data = example(tmp_path)
    rat = {"id": 2, "name": "rat", "keypoints": ["tail", "nose"], "skeleton": [[2, 1], [1, 2]]}
    data["categories"] += [rat, {"id": 3, "name": "fish", "keypoints": ["fin"]}]  # no fish is labelled
    data["annotations"][2]["category_id"] = 2
    labels = load_labels(write(path, data))
    np.testing.assert_array_equal(labels.points[1, 1], [[9, 10], [7, 8]])
    assert labels.skeleton == Skeleton(("nose", "tail"), edges=((0, 1), (1, 0)))


def test_categories_with_other_keypoints_are_named(tmp_path: Path) -> None:
    path, data = example(tmp_path)
    data["categories"].append({"id": 2, "name": "rat", "keypoints": ["nose", "ear"]})
    data["annotations"][2]["category_id"] = 2
    with pytest.raises(InputError, match=r"same keypoints .* in 'rat' than in 'mouse': ear, tail only in one"):
        load_labels(write(path, data))


def test_an_unknown_category_is_any_where_all_have_the_same_keypoints(tmp_path: Path) -> None:
    """Animal Kingdom's sample labels elephants of category 4, and lists 1 and 2."""
    path, data = example(tmp_path)
    expected = load_labels(write(path, data)).points
    data["categories"].append(data["categories"][0] | {"id": 2, "name": "rat"})
    data["annotations"][0]["category_id"] = 4
    del data["annotations"][1]["category_id"]
    np.testing.assert_array_equal(load_labels(write(path, data)).points, expected)
    data["categories"][1]["keypoints"] = ["fin", "tail"]
    with pytest.raises(InputError, match="same keypoints in all that are labelled, got others in 'rat'"):
        load_labels(write(path, data))


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("top.json", "."),
        ("top.json", "images"),
        ("top.json", "top"),
        ("annotations/person_keypoints_default.json", "images/default"),  # CVAT
        ("annotations/train.json", "images"),  # DeepLabCut
        ("annotations/person_keypoints_val2017.json", "val2017"),  # COCO
        ("annotations/ap10k-train-split1.json", "data"),  # AP-10K
        ("train/_annotations.coco.json", "train"),  # Roboflow
    ],
)
def test_images_are_found(tmp_path: Path, file: str, images: str) -> None:
    names = [f"img{frame}.png" for frame in range(3)]
    for value, name in enumerate(names):
        write_image(tmp_path / images / name, 50 + value)
        write_image(tmp_path / "other" / name)
    write_image(tmp_path / "images" / names[0], 50)
    labels = load_labels(write(tmp_path / file, dataset(names, [(i, [1, 1, 2, 2, 2, 2]) for i in range(3)])))
    assert [labels.image(row)[0, 0, 0] for row in range(3)] == [50, 51, 52]


def test_folders_of_images_are_recordings(tmp_path: Path) -> None:
    names = ["day1/2.png", "day2/1.png", "day1/1.png"]
    for value, name in enumerate(names):
        write_image(tmp_path / "images" / name, value)
    gone = [f"C:\\lab\\images\\{name}".replace("/", "\\") for name in names]
    for files in (names, gone):
        path = write(tmp_path / "a.json", dataset(files, [(i, [i, 1, 2, 0, 0, 0]) for i in range(3)]))
        if files is gone:
            path = path.rename(tmp_path / "images/a.json")
        labels = load_labels(path)
        assert labels.video == ("day1", "day1", "day2")
        np.testing.assert_array_equal(labels.frame, [1, 2, 1])
        assert [labels.image(row)[0, 0, 0] for row in range(3)] == [2, 0, 1]
        assert nose(load_labels(path, video="day2")) == [1]
        assert nose(load_labels(path, video=tmp_path / "day2.mp4")) == [1]
        with pytest.raises(
            InputError, match=r"a\.json: expected labelled images of day3, found none; it holds day1, d"
        ):
            load_labels(path, video="day3")


def nose(labels: Any) -> list[float]:
    return labels.points[:, 0, 0, 0].tolist()


@pytest.mark.parametrize(
    ("names", "frames"),
    [
        (["b.png", "a.png", "c1.png"], [1, 0, 2]),
        (["b_jpg.rf.0c1.png", "a_jpg.rf.ff1.png"], [1, 0]),
        (["20260101120000000000001.png", "2.png"], [1, 0]),
        (["b20260101.png", "a3.png"], [20260101, 3]),
    ],
)
def test_frames_are_numbers_or_places_by_name(tmp_path: Path, names: list[str], frames: list[int]) -> None:
    for name in names:
        write_image(tmp_path / name)
    path = write(tmp_path / "a.json", dataset(names, [(i, [i, 1, 2, 0, 0, 0]) for i in range(len(names))]))
    labels = load_labels(path)
    assert dict(zip(nose(labels), labels.frame.tolist(), strict=True)) == dict(enumerate(frames))


def test_missing_images_are_named_or_left_out(tmp_path: Path) -> None:
    path, data = example(tmp_path)
    write(path, data)
    (tmp_path / "img0012.png").unlink()
    with pytest.raises(InputError, match=r"(?s)1 of 2 labelled frames have no image; .*not found:\n  .*/img0012\.png$"):
        load_labels(path)
    np.testing.assert_array_equal(load_labels(path, missing="skip").frame, [3])


Damage = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda d: d.pop("categories"), "expected COCO's labels, with the keys images, annotations, categories, got"),
        (lambda d: d.update(images={"id": 1}), r'images: expected a list, got \{"id": 1\}'),
        (lambda d: d["images"].append(3), r"images\[3\]: expected an object, got 3"),
        (lambda d: d["images"][1].pop("file_name"), r"images\[1\]: file_name: expected, but not there; add it"),
        (lambda d: d["images"][1].update(file_name=""), r"images\[1\]: file_name: expected the name of a file"),
        (lambda d: d["images"][1].update(file_name="a\0"), r"images\[1\]: file_name: expected the name of a file"),
        (lambda d: d["images"][1].update(file_name="\ud800.png"), r"images\[1\]: file_name: expected the name of"),
        (lambda d: d["images"][1].update(file_name="a" * 300), r"images\[1\]: file_name: expected the name of a file"),
        (lambda d: d["images"][1].update(id=10), r"images\[1\]: id: 10 is another image's, too"),
        (lambda d: d["images"][1].update(id=[1]), r"images\[1\]: id: expected a whole number, got \[1\]"),
        (lambda d: d["images"][1].update(id=NAN), r"images\[1\]: id: expected a whole number, got NaN"),
        (lambda d: d["images"][1].update(width=-640), r"images\[1\]: width: expected pixels, above 0, got -640"),
        (lambda d: d["images"][1].update(height="24"), r'images\[1\]: height: expected pixels, above 0, got "24"'),
        (lambda d: d["annotations"].append(None), r"annotations\[3\]: expected an object, got null"),
        (
            lambda d: d["annotations"][1].update(image_id=9),
            r"annotations\[1\]: image_id: expected the id of one of .* 9;",
        ),
        (lambda d: d["annotations"][1].pop("image_id"), r"annotations\[1\]: image_id: expected, but not there"),
        (lambda d: d["annotations"][1].update(category_id={}), r"annotations\[1\]: category_id: expected a whole"),
        (
            lambda d: d["annotations"][1].update(keypoints="1"),
            r"annotations\[1\]: keypoints: expected a list of x, y, v",
        ),
        (
            lambda d: d["annotations"][1]["keypoints"].pop(),
            r"annotations\[1\]: keypoints: .* for each .*, got 5 values",
        ),
        (
            lambda d: d["annotations"][1].update(keypoints=[1, 2, 2] * 3),
            r"annotations\[1\]: keypoints: expected 6 numbers, x, y, v of each of the 2 keypoints of 'mouse', got 9",
        ),
        (
            lambda d: d["annotations"][1]["keypoints"].__setitem__(1, NAN),
            r"annotations\[1\]: keypoints: .* keypoint 0 to",
        ),
        (
            lambda d: d["annotations"][1]["keypoints"].__setitem__(0, None),
            r"annotations\[1\]: keypoints: .* keypoint 0 ",
        ),
        (
            lambda d: d["annotations"][1]["keypoints"].__setitem__(5, NAN),
            r"annotations\[1\]: keypoints: .* keypoint 1 to",
        ),
        (lambda d: d["annotations"][1]["keypoints"].__setitem__(1, "6"), r'annotations\[1\]: .* numbers, got "6"'),
        (lambda d: d["annotations"][1]["keypoints"].__setitem__(1, 10**400), r"annotations\[1\]: .* numbers, got 1000"),
        (
            lambda d: d["categories"][0].pop("keypoints"),
            "categories: expected one with keypoints, their names, got none",
        ),
        (lambda d: d["categories"][0].pop("id"), r"categories\[0\]: id: expected, but not there"),
        (
            lambda d: d["categories"][0].update(keypoints="nose"),
            r"categories\[0\]: keypoints: expected a list of names",
        ),
        (
            lambda d: d["categories"][0].update(keypoints=["nose", 2]),
            r"categories\[0\]: keypoints: expected a list of na",
        ),
        (
            lambda d: d["categories"][0].update(keypoints=["a", "a "]),
            r"categories\[0\]: keypoints: expected names that d",
        ),
        (lambda d: d["categories"].append(d["categories"][0]), r"categories\[1\]: id: 1 is another category's, too"),
        (
            lambda d: d["categories"][0].update(skeleton=[[1, 2, 3]]),
            r"categories\[0\]: skeleton: expected pairs of keyp",
        ),
        (
            lambda d: d["categories"][0].update(skeleton=[[1, 1.5]]),
            r"categories\[0\]: skeleton: expected pairs of keypo",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, damage: Damage, told: str) -> None:
    path, data = example(tmp_path)
    damage(data)
    with pytest.raises(InputError, match=rf"top\.json: (.*)?{told}"):
        load_labels(write(path, data))


def test_an_animal_of_a_category_without_keypoints_is_named(tmp_path: Path) -> None:
    path, data = example(tmp_path)
    data["categories"].append({"id": 2, "name": "box"})
    data["annotations"][1]["category_id"] = 2
    with pytest.raises(
        InputError, match=r"same keypoints in all that are labelled, got others in 'box' than in 'mouse'"
    ):
        load_labels(write(path, data))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "cannot be read as JSON, cut off or damaged"),
        (b"[" * 100_000, "cannot be read as JSON, cut off or damaged"),
        (b"\xff\xfe\x00", "cannot be read as JSON, cut off or damaged"),
        (b'[{"image_id": 1, "keypoints": []}]', "expected COCO's labels, with the keys .*, got a list"),
        (b"{}", "expected COCO's labels, with the keys .*, got none"),
        (
            b'{"version": "5.0", "shapes": []}',
            "expected COCO's labels, .*, got version, shapes; give the file of annotations",
        ),
    ],
)
def test_other_files_are_told(tmp_path: Path, text: bytes, told: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(InputError, match=rf"a\.json: {told}"):
        load_labels(path)


def test_a_byte_order_mark_is_no_harm(tmp_path: Path) -> None:
    path, data = example(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(data).encode())
    assert len(load_labels(path)) == 2


def test_every_cut_is_told(tmp_path: Path) -> None:
    path, data = example(tmp_path)
    text = json.dumps(data)
    for end in range(0, len(text), 7):
        path.write_text(text[:end])
        with pytest.raises(InputError, match=r"top\.json: "):
            load_labels(path)


def test_damaged_files_are_labels_or_an_error(tmp_path: Path, rng: np.random.Generator) -> None:
    """Any value anywhere in its place: labels, or an error that names the file; never another exception."""
    path, whole = example(tmp_path)
    odd = [None, True, -1, 0, 1e308, -1e308, 10**400, NAN, float("inf"), "", "x", "\ud800", "../..", ".", [], [[]], {}]
    told = []
    for _ in range(1500):
        data = copy.deepcopy(whole)
        for _ in range(rng.integers(1, 4)):
            place: Any = data
            while isinstance(place, dict | list) and place:
                key = list(place)[rng.integers(len(place))] if isinstance(place, dict) else rng.integers(len(place))
                if not isinstance(place[key], dict | list) or not place[key] or rng.random() < 0.2:
                    if rng.random() < 0.2:
                        del place[key]
                    else:
                        place[key] = copy.deepcopy(odd[rng.integers(len(odd))])
                    break
                place = place[key]
        try:
            labels = load_labels(write(path, data), missing="skip")
        except InputError as error:
            told.append(str(error))
        else:
            assert np.isfinite(labels.points).any(axis=(1, 2, 3)).all()
    assert 300 < len(told) < 1450
    assert all(str(path) in error for error in told)
