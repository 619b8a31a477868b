"""pose3d.files.load_labels: projects made here, with images whose colour says which they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import cv2
import h5py
import numpy as np
import pandas as pd
import pytest

from calibration.errors import InputError
from pose3d.files import load_labels
from pose3d.labels import Labels
from pose3d.skeleton import Skeleton

USER, PREDICTED = 0, 1
NAN = float("nan")
SIZE = 32, 24
Instance = tuple[int, int, int, float]
"""(video, frame, kind, x of the nose); the tail is at x + 1, y is 2 everywhere."""


def painted(value: int) -> np.ndarray:
    """RGB of one value, no channel like another."""
    return np.full((SIZE[1], SIZE[0], 3), (value, 255 - value, 100), dtype=np.uint8)


def write_video(path: Path, n: int, first: int = 0) -> Path:
    """Frame f has the value first + f."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "bgr0"
        for f in range(n):
            image = av.VideoFrame.from_ndarray(painted(first + f), format="rgb24")
            container.mux(stream.encode(image.reformat(format="bgr0")))
        container.mux(stream.encode())
    return path


def write_image(path: Path, value: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), painted(value)[..., ::-1])
    return path


def write_slp(path: Path, backends: list[dict[str, Any]], instances: list[Instance], version: float = 1.2) -> Path:
    """A SLEAP project with the keypoints nose and tail."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = sorted({(video, frame) for video, frame, _, _ in instances})
    instances = sorted(instances, key=lambda i: i[:2])
    rows, points, predicted, spans = [], [], [], []
    for number, place in enumerate(frames):
        start = len(rows)
        for _, _, kind, x in (i for i in instances if i[:2] == place):
            table = points if kind == USER else predicted
            rows.append((len(rows), kind, number, 0, -1, -1, 1.0, len(table), len(table) + 2))
            table += [(x + k, 2.0, True, True, *([0.5] if kind == PREDICTED else [])) for k in range(2)]
        spans.append((number, *place, start, len(rows)))
    point = [("x", "f8"), ("y", "f8"), ("visible", "?"), ("complete", "?")]
    names = ("instance_id", "instance_type", "frame_id", "skeleton", "track", "from_predicted", "score")
    columns = [(name, "f4" if name == "score" else "i8") for name in (*names, "point_id_start", "point_id_end")]
    graph = {"nodes": [{"id": 0}, {"id": 1}], "links": [{"source": 0, "target": 1}]}
    with h5py.File(path, "w") as file:
        frame_columns = ("frame_id", "video", "frame_idx", "instance_id_start", "instance_id_end")
        file["frames"] = np.array(spans, dtype=[(name, "u8") for name in frame_columns])
        file["instances"] = np.array(rows, dtype=columns)
        file["points"] = np.array(points, dtype=point)
        file["pred_points"] = np.array(predicted, dtype=[*point, ("score", "f8")])
        file["videos_json"] = [json.dumps({"backend": backend}).encode() for backend in backends]
        file["tracks_json"] = np.zeros(0)
        metadata = {"nodes": [{"name": "nose"}, {"name": "tail"}], "skeletons": [graph]}
        file.create_group("metadata").attrs.update(format_id=version, json=np.bytes_(json.dumps(metadata)))
    return path


def assert_pictures(labels: Labels, values: list[int]) -> None:
    for row, image in labels.images():
        np.testing.assert_array_equal(image, painted(values[row]))


def nose(labels: Labels) -> list[list[float]]:
    return labels.points[:, :, 0, 0].tolist()


def test_users_instances_are_the_labels(tmp_path: Path) -> None:
    write_video(tmp_path / "top.mkv", 9)
    instances = [
        (0, 2, USER, 10.0),
        (0, 2, PREDICTED, 15.0),
        (0, 5, PREDICTED, 20.0),
        (0, 7, USER, 5.0),
        (0, 7, USER, 6.0),
    ]
    path = write_slp(tmp_path / "a.slp", [{"filename": "D:\\lab\\top.mkv"}], instances)
    labels = load_labels(path, camera="top")
    np.testing.assert_array_equal(labels.frame, [2, 7])
    np.testing.assert_array_equal(labels.points[..., 0], [[[10, 11], [NAN, NAN]], [[5, 6], [6, 7]]])
    assert labels.skeleton == Skeleton(("nose", "tail"), edges=((0, 1),))
    assert labels.camera == ("top", "top")
    assert labels.video == ("top.mkv", "top.mkv")
    assert_pictures(labels, [2, 7])


def test_predictions_are_labels_where_no_user_made_any(tmp_path: Path) -> None:
    write_video(tmp_path / "top.mkv", 9)
    path = write_slp(tmp_path / "a.slp", [{"filename": "top.mkv"}], [(0, 2, PREDICTED, 10.0), (0, 5, PREDICTED, 20.0)])
    assert nose(load_labels(path)) == [[10], [20]]


def test_old_projects_count_from_the_pixels_corner(tmp_path: Path) -> None:
    write_video(tmp_path / "top.mkv", 3)
    path = write_slp(tmp_path / "a.slp", [{"filename": "top.mkv"}], [(0, 2, USER, 10.0)], version=1.0)
    np.testing.assert_array_equal(load_labels(path).points, [[[[9.5, 1.5], [10.5, 1.5]]]])


def test_all_videos_of_a_project_or_one(tmp_path: Path) -> None:
    write_video(tmp_path / "videos/top.mkv", 9)
    write_video(tmp_path / "videos/side.mkv", 9, first=100)
    backends = [{"filename": f"/gone/videos/{name}.mkv"} for name in ("top", "side")]
    path = write_slp(tmp_path / "labels/a.slp", backends, [(0, 2, USER, 10.0), (1, 2, USER, 5.0), (1, 4, USER, 6.0)])
    labels = load_labels(path)  # found in a folder above
    assert labels.video == ("top.mkv", "side.mkv", "side.mkv")
    assert nose(labels) == [[10], [5], [6]]
    assert_pictures(labels, [2, 102, 104])
    assert nose(load_labels(path, video="side.mkv")) == [[5], [6]]
    elsewhere = write_video(tmp_path / "elsewhere/side.mkv", 9, first=50)
    assert_pictures(load_labels(path, video=elsewhere), [52, 54])
    with pytest.raises(
        InputError, match=r"a\.slp: expected one video named 'back\.mkv', got 0; it holds /gone/videos/top"
    ):
        load_labels(path, video="back.mkv")


def test_videos_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for place, folder in enumerate(("x", "y")):
        write_video(tmp_path / folder / "v.mkv", 3, first=100 * place)
    backends = [{"filename": f"{folder}/v.mkv"} for folder in ("x", "y")]
    labels = load_labels(write_slp(tmp_path / "a.slp", backends, [(0, 1, USER, 1.0), (1, 1, USER, 2.0)]))
    assert labels.video == ("x/v.mkv", "y/v.mkv")
    assert_pictures(labels, [1, 101])


def test_the_only_video_may_be_another_file(tmp_path: Path) -> None:
    path = write_slp(tmp_path / "a.slp", [{"filename": "gone.mp4"}], [(0, 2, USER, 10.0)])
    renamed = write_video(tmp_path / "elsewhere/renamed.mkv", 3)
    assert_pictures(load_labels(path, video=renamed), [2])
    with pytest.raises(InputError, match=r"(?s)1 of 1 labelled frames have no image; .*not found:\n  .*gone\.mp4$"):
        load_labels(path)
    with pytest.raises(InputError, match=r"not found:\n  absent\.mp4$"):
        load_labels(path, video="absent.mp4")


def test_videos_of_single_images(tmp_path: Path) -> None:
    names = [f"img{n}.png" for n in range(3)]
    for n, name in enumerate(names):
        write_image(tmp_path / "images" / name, 50 + n)
    backend = {"filename": f"/gone/images/{names[0]}", "filenames": [f"/gone/images/{name}" for name in names]}
    path = write_slp(tmp_path / "a.slp", [backend], [(0, 1, USER, 1.0), (0, 2, USER, 2.0)])
    assert_pictures(load_labels(path), [51, 52])
    path = write_slp(tmp_path / "a.slp", [backend], [(0, 3, USER, 1.0)])
    with pytest.raises(InputError, match=r"a\.slp: labels image 3, of 3"):
        load_labels(path)


def test_packages_hold_their_images(tmp_path: Path) -> None:
    backends = [{"filename": ".", "dataset": "video15/video"}]
    path = write_slp(tmp_path / "a.pkg.slp", backends, [(15, 40, USER, 1.0), (15, 70, USER, 2.0)])
    with h5py.File(path, "a") as file:
        data = file.create_dataset("video15/video", shape=(3,), dtype=h5py.vlen_dtype(np.int8))
        for row, value in enumerate((1, 70, 40)):
            data[row] = cv2.imencode(".png", painted(value))[1].ravel().view(np.int8)
        file["video15/frame_numbers"] = [1, 70, 40]
        source = {"backend": {"filename": "C:\\lab\\top.mkv"}}
        file.create_group("video15/source_video").attrs["json"] = json.dumps(source)
    labels = load_labels(path)
    assert labels.video == ("top.mkv", "top.mkv")
    np.testing.assert_array_equal(labels.frame, [40, 70])
    assert_pictures(labels, [40, 70])
    write_slp(tmp_path / "b.pkg.slp", backends, [(15, 40, USER, 1.0), (15, 2, USER, 2.0)])
    with h5py.File(tmp_path / "b.pkg.slp", "a") as file, h5py.File(path) as other:
        other.copy("video15", file)
    with pytest.raises(InputError, match=r"(?s)1 of 2 labelled frames have no image; .*top\.mkv"):
        load_labels(tmp_path / "b.pkg.slp")
    write_video(tmp_path / "top.mkv", 3)  # frame 2 is not in the package, but in the video
    assert_pictures(load_labels(tmp_path / "b.pkg.slp"), [2, 40])


def test_a_range_of_frames(tmp_path: Path) -> None:
    write_video(tmp_path / "top.mkv", 9)
    path = write_slp(tmp_path / "a.slp", [{"filename": "top.mkv"}], [(0, f, USER, f) for f in range(2, 8)])
    np.testing.assert_array_equal(load_labels(path, frames=(3, 5)).frame, [3, 4, 5])
    with pytest.raises(InputError, match=r"a\.slp: expected labels in frames 8 to 20, found none; .* in frames 2 to 7"):
        load_labels(path, frames=(8, 20))


def test_keypoints_are_brought_into_a_skeleton(tmp_path: Path) -> None:
    write_video(tmp_path / "top.mkv", 3)
    path = write_slp(tmp_path / "a.slp", [{"filename": "top.mkv"}], [(0, 2, USER, 10.0)])
    skeleton = Skeleton(("tail", "ear", "nose"))
    labels = load_labels(path, skeleton=skeleton)
    assert labels.skeleton == skeleton
    np.testing.assert_array_equal(labels.points[0, 0, :, 0], [11, NAN, 10])
    with pytest.raises(InputError, match=r"a\.slp: keypoint 'nose' is not in the skeleton; did you mean 'noses'"):
        load_labels(path, skeleton=Skeleton(("noses", "tail")))


def table(folder: str, images: list[str], individuals: list[str] | None = None) -> pd.DataFrame:
    """DeepLabCut's: the nose of image i is at (i, 2), further body parts and individuals one px to the right each."""
    parts = [("nose",), ("tail",)] if individuals is None else [(i, p) for i in individuals for p in ("nose", "tail")]
    columns = [("me", *part, axis) for part in parts for axis in "xy"]
    levels = ["scorer", *(["individuals"] if individuals else []), "bodyparts", "coords"]
    values = [
        [row + column // 2 if column % 2 == 0 else 2 for column in range(len(columns))] for row in range(len(images))
    ]
    index = pd.MultiIndex.from_tuples([("labeled-data", folder, image) for image in images])
    return pd.DataFrame(values, index, pd.MultiIndex.from_tuples(columns, names=levels), dtype=np.float64)


def write_project(tmp_path: Path, config: str = "scorer: me\n") -> Path:
    """Two videos, the first with an H5 table, the second with a CSV."""
    project = tmp_path / "project"
    for place, folder in enumerate(("m1", "m2")):
        names = [f"img{n:03d}.png" for n in (30, 10, 20)]
        for n, name in enumerate(names):
            write_image(project / "labeled-data" / folder / name, 100 * place + n)
        file = project / "labeled-data" / folder / "CollectedData_me"
        frame = table(folder, names)
        if place:
            frame.to_csv(file.with_suffix(".csv"))
        else:
            frame.to_hdf(file.with_suffix(".h5"), key="df_with_missing")
    (project / "config.yaml").write_text(config)
    return project


def test_all_videos_of_a_deeplabcut_project(tmp_path: Path) -> None:
    project = write_project(tmp_path)
    for path in (project, project / "config.yaml"):
        labels = load_labels(path, camera="top")
        assert labels.video == ("m1",) * 3 + ("m2",) * 3
        np.testing.assert_array_equal(labels.frame, [10, 20, 30] * 2)
        np.testing.assert_array_equal(labels.points[:3, 0], [[[n, 2], [n + 1, 2]] for n in (1, 2, 0)])
        assert_pictures(labels, [1, 2, 0, 101, 102, 100])
    assert load_labels(project, video="m2").video == ("m2",) * 3
    with pytest.raises(InputError, match=r"found none of m3; it holds m1, m2"):
        load_labels(project, video="m3")
    labels = load_labels(project / "labeled-data/m2/CollectedData_me.csv")
    assert_pictures(labels, [101, 102, 100])


def test_several_animals_and_parts_that_belong_to_none(tmp_path: Path) -> None:
    write_image(tmp_path / "m1/img1.png", 7)
    frame = table("m1", ["img1.png", "img2.png"], ["a", "b", "single"])
    frame.iloc[0, 2:4] = frame.iloc[0, 8:10] = NAN
    frame.iloc[1] = NAN  # extracted, but nothing labelled in it
    frame.to_csv(tmp_path / "m1/CollectedData_me.csv")
    labels = load_labels(tmp_path / "m1/CollectedData_me.csv")
    np.testing.assert_array_equal(labels.points[..., 0], [[[0, NAN], [2, 3], [NAN, 5]]])


def test_images_that_are_missing_are_named(tmp_path: Path) -> None:
    project = write_project(tmp_path)
    gone = project / "labeled-data/m2/img010.png"
    gone.unlink()
    with pytest.raises(
        InputError, match=rf"(?s)project: 1 of 6 labelled frames have no image; .*not found:\n  {gone}$"
    ):
        load_labels(project)
    assert_pictures(load_labels(project, missing="skip"), [1, 2, 0, 102, 100])
    with pytest.raises(InputError, match="missing: expected one of error, skip, got 'ignore'"):
        load_labels(project, missing="ignore")
    table("m1", [f"img{n}.png" for n in range(31, 43)]).to_csv(project / "labeled-data/m1/CollectedData_me.csv")
    (project / "labeled-data/m1/CollectedData_me.h5").unlink()
    with pytest.raises(
        InputError, match=r"(?s)13 of 15 labelled frames have no image; .*img31\.png.*img42\.png"
    ) as told:
        load_labels(project)
    assert len(str(told.value).splitlines()) == 14
    with pytest.raises(InputError, match=r"12 of 12 labelled frames have no image"):
        load_labels(project, video="m1", missing="skip")


@pytest.mark.parametrize(
    ("block", "edges"),
    [
        ("skeleton:\n- - nose\n  - tail\nskeleton_color: black\n", ((0, 1),)),
        ("skeleton:\n  - - 'tail'\n    - nose  # a comment\n\n  - - objectA\n    - tail\nx: 1\n- - nose\n", ((1, 0),)),
        ("skeleton: [[nose, tail], [tail, nose]]\n", ((0, 1), (1, 0))),
        ('skeleton:\n- ["tail", nose]\n', ((1, 0),)),
        ("skeleton: []\nskeleton_color: [[nose, tail]]\n", ()),
        ("bodyparts:\n- nose\n- tail\n", ()),
    ],
)
def test_edges_of_the_configuration(tmp_path: Path, block: str, edges: tuple[tuple[int, int], ...]) -> None:
    project = write_project(tmp_path, f"Task: x\nscorer: me\n{block}")
    assert load_labels(project).skeleton.edges == edges


def test_of_several_scorers_the_projects_is_taken(tmp_path: Path) -> None:
    project = write_project(tmp_path, "scorer: 'me'  # who\n")
    other = project / "labeled-data/m2/CollectedData_you.csv"
    (table("m2", ["img010.png"]) + 5).to_csv(other)
    assert len(load_labels(project)) == 6
    (project / "config.yaml").unlink()
    with pytest.raises(InputError, match=r"m2: expected one scorer's table, got CollectedData_me, CollectedData_you"):
        load_labels(project)


def test_what_holds_no_labels_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.slp: expected a file or folder of labels, found none"):
        load_labels(tmp_path / "absent.slp")
    with pytest.raises(InputError, match=r"a\.slp: expected labelled frames, found none; label some"):
        load_labels(write_slp(tmp_path / "a.slp", [{"filename": "top.mkv"}], []))
    with pytest.raises(InputError, match="expected a DeepLabCut project with labeled-data"):
        load_labels(tmp_path)
    (tmp_path / "a.csv").write_text("frame,x\n1,2\n")
    with pytest.raises(InputError, match=r"a\.csv: expected labels: a SLEAP \.slp, .*, or COCO's \.json"):
        load_labels(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("scorer,n,n,n\nbodyparts,nose,nose,nose\ncoords,x,y,likelihood\n0,1,2,0.9\n")
    with pytest.raises(InputError, match=r"b\.csv: expected rows named by images, got frame numbers"):
        load_labels(tmp_path / "b.csv")
