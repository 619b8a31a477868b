"""pose3d.labels: every picture is the one that was put in, what is held out are blocks, labels stay in their images."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.errors import InputError
from pose3d.labels import Labels, Picture, check_labels, hold_out, join_labels, labels_of_poses
from pose3d.poses import Poses
from pose3d.skeleton import Skeleton

SKELETON = Skeleton(("nose", "ear", "tail"), edges=((0, 1), (1, 2)))
NAN = float("nan")


def make(
    pictures: list[Picture],
    points: np.ndarray | None = None,
    frame: list[int] | None = None,
    skeleton: Skeleton = SKELETON,
    camera: str = "top",
    video: str = "a.mp4",
) -> Labels:
    n = len(pictures)
    points = np.zeros((n, 1, len(skeleton), 2)) if points is None else points
    return Labels(points, np.array(frame or range(n)), (camera,) * n, (video,) * n, tuple(pictures), skeleton)


def frames_of(camera: str, numbers: list[int], folder: str = "a") -> Labels:
    return make([Picture(Path(folder) / "v.mp4", n) for n in numbers], frame=numbers, camera=camera)


def images(rng: np.random.Generator, n: int) -> np.ndarray:
    """(n, 24, 32, 3) RGB noise: no two alike, no channel like another."""
    return rng.integers(0, 256, (n, 24, 32, 3), dtype=np.uint8)


def write_png(path: Path, rgb: np.ndarray) -> Path:
    cv2.imwrite(str(path), rgb[..., ::-1])
    return path


def write_video(path: Path, frames: np.ndarray) -> Path:
    """Without loss."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0")))
        container.mux(stream.encode())
    return path


def write_dataset(path: Path, rows: list[np.ndarray], version: float | None = None, **attributes: object) -> Path:
    """Encoded rows of any length, as in a SLEAP package."""
    with h5py.File(path, "w") as file:
        data = file.create_dataset("video0/video", shape=(len(rows),), dtype=h5py.vlen_dtype(np.int8))
        for place, row in enumerate(rows):
            data[place] = row.view(np.int8)
        data.attrs.update(attributes)
        if version is not None:
            file.create_group("metadata").attrs["format_id"] = version
    return path


def test_a_half_known_point_is_not_labelled() -> None:
    points = np.array([[[[1.0, 2.0], [3.0, NAN], [np.inf, 1.0]]]])
    labels = make([Picture(Path("a.png"))], points)
    np.testing.assert_array_equal(labels.points, [[[[1, 2], [NAN, NAN], [NAN, NAN]]]])


def test_shapes_are_checked() -> None:
    with pytest.raises(InputError, match=r"labels: expected points \(2, individuals, 3, 2\), got \(2, 1, 4, 2\)"):
        make([Picture(Path("a.png"))] * 2, np.zeros((2, 1, 4, 2)))
    with pytest.raises(InputError, match="labels: expected 2 of camera, one a frame, got 1"):
        Labels(np.zeros((2, 1, 3, 2)), np.arange(2), ("a",), ("v", "v"), (Picture(Path("a")),) * 2, SKELETON)


def test_rows_are_taken_in_order(rng: np.random.Generator) -> None:
    labels = make([Picture(Path(f"{n}.png")) for n in range(4)], rng.random((4, 2, 3, 2)))
    part = labels.take([3, 1])
    np.testing.assert_array_equal(part.points, labels.points[[3, 1]])
    np.testing.assert_array_equal(part.frame, [3, 1])
    assert [p.path.name for p in part.pictures] == ["3.png", "1.png"]
    assert len(part) == len(part.camera) == len(part.video) == 2
    np.testing.assert_array_equal(labels.take(labels.frame > 1).frame, [2, 3])
    assert len(labels.take([])) == 0


def test_poses_without_a_keypoint_are_no_labels() -> None:
    points = np.full((3, 2, 3, 2), NAN)
    points[0, 1, 2] = 5, 6
    points[2, 0, 0] = 7, 8
    pictures = [Picture(Path("v.mp4"), n) for n in (4, 6, 9)]
    labels = labels_of_poses(Poses(points, frame=np.array([4, 6, 9]), skeleton=SKELETON), pictures, "top", "v")
    np.testing.assert_array_equal(labels.frame, [4, 9])
    np.testing.assert_array_equal(labels.points, points[[0, 2]])
    assert labels.pictures == (pictures[0], pictures[2])


def test_joined_by_the_names_of_keypoints(rng: np.random.Generator) -> None:
    a = make([Picture(Path("a.png"))], rng.random((1, 1, 3, 2)))
    other = Skeleton(("tail", "nose", "ear"))
    b = make([Picture(Path("b.png"))] * 2, rng.random((2, 2, 3, 2)), skeleton=other, camera="side", video="b.mp4")
    joined = join_labels([a, b])
    assert joined.skeleton == SKELETON
    np.testing.assert_array_equal(joined.points[0], np.concatenate((a.points[0], np.full((1, 3, 2), NAN))))
    np.testing.assert_array_equal(joined.points[1:], b.points[:, :, [1, 2, 0]])
    assert joined.camera == ("top", "side", "side")
    assert joined.video == ("a.mp4", "b.mp4", "b.mp4")
    np.testing.assert_array_equal(joined.frame, [0, 0, 1])
    b = make([Picture(Path("b.png"))], np.zeros((1, 1, 2, 2)), skeleton=Skeleton(("nose", "paw")), video="b.mp4")
    with pytest.raises(InputError, match=r"others in b\.mp4 than in a\.mp4: ear, paw, tail only in one"):
        join_labels([a, b])
    with pytest.raises(InputError, match="got none"):
        join_labels([])


def test_onto_a_larger_skeleton(rng: np.random.Generator) -> None:
    labels = make([Picture(Path("a.png"))], rng.random((1, 1, 3, 2)))
    onto = labels.onto(Skeleton(("tail", "paw", "ear", "nose")))
    np.testing.assert_array_equal(onto.points[:, :, [3, 2, 0]], labels.points)
    assert np.isnan(onto.points[:, :, 1]).all()
    with pytest.raises(InputError, match=r"'nose' is not in the skeleton"):
        labels.onto(Skeleton(("noses", "ear", "tail")))


def test_every_row_gets_its_picture(tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = images(rng, 300)
    video = write_video(tmp_path / "v.mkv", truth)
    package = write_dataset(tmp_path / "p.slp", [cv2.imencode(".png", i)[1].ravel() for i in truth[:3]], 1.2)
    rows = [
        (video, 299, ""),
        (package, 2, "video0/video"),
        (video, 3, ""),
        (video, 299, ""),
        (package, 0, "video0/video"),
    ]
    wanted = [truth[position] for _, position, _ in rows] + [truth[7]]
    pictures = [Picture(*row) for row in rows] + [Picture(write_png(tmp_path / "7.png", truth[7]))]
    opened = []
    monkeypatch.setattr(av, "open", lambda name, *a, real=av.open, **k: opened.append(name) or real(name, *a, **k))
    labels = make(pictures)
    found = dict(labels.images())
    assert len(opened) == 1  # although its frames are far apart
    assert sorted(found) == list(range(6))
    for row, image in enumerate(wanted):
        np.testing.assert_array_equal(found[row], image)
        np.testing.assert_array_equal(labels.image(row), image)


@pytest.mark.parametrize(
    ("version", "attributes", "bgr"),
    [(None, {}, True), (1.3, {}, True), (1.4, {}, False), (1.2, {"channel_order": "RGB"}, False),
     (1.5, {"channel_order": "BGR"}, True)],
)  # fmt: skip
def test_packages_colours(
    tmp_path: Path, rng: np.random.Generator, version: float | None, attributes: dict[str, str], bgr: bool
) -> None:
    """OpenCV takes what it encodes for BGR; other writers are given RGB for what it is."""
    truth = images(rng, 1)[0]
    row = cv2.imencode(".png", truth if bgr else truth[..., ::-1])[1].ravel()
    padded = np.concatenate((row, np.zeros(100, dtype=np.uint8)))
    path = write_dataset(tmp_path / "p.slp", [row, padded], version, **attributes)
    for _, image in make([Picture(path, n, "video0/video") for n in (0, 1)]).images():
        np.testing.assert_array_equal(image, truth)


def test_datasets_of_arrays(tmp_path: Path, rng: np.random.Generator) -> None:
    truth = images(rng, 4)
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["colour"], file["grey"] = truth, truth[..., :1]
    labels = make([Picture(tmp_path / "p.h5", 3, name) for name in ("colour", "grey")])
    np.testing.assert_array_equal(labels.image(0), truth[3])
    np.testing.assert_array_equal(labels.image(1), np.repeat(truth[3, ..., :1], 3, axis=-1))


def test_pictures_that_cannot_be_read_are_named(tmp_path: Path, rng: np.random.Generator) -> None:
    video = write_video(tmp_path / "v.mkv", images(rng, 4))
    (tmp_path / "broken.png").write_bytes(b"no image")
    bad = write_dataset(tmp_path / "bad.slp", [np.zeros(9, dtype=np.uint8)])
    for picture, message in (
        (Picture(tmp_path / "absent.png"), r"absent\.png: expected an image, cannot read it \(No such file"),
        (Picture(tmp_path / "broken.png"), r"broken\.png: expected an image, cannot read it \(it cannot be decoded\)"),
        (Picture(video, 4), r"v\.mkv: expected frame 4, which is labelled, got 4 frames"),
        (Picture(bad, 0, "video0/video"), r"bad\.slp: expected an image, cannot read it \(it cannot be decoded\)"),
        (Picture(bad, 0, "video1/video"), r"bad\.slp, video1/video: expected an image, cannot read"),
        (Picture(tmp_path / "broken.png", 0, "video0/video"), r"broken\.png, video0/video: expected an image"),
    ):
        with pytest.raises(InputError, match=message):
            make([picture]).image(0)
        with pytest.raises(InputError, match=message):
            check_labels(make([picture]))


@pytest.mark.parametrize("source", ["png", "jpg", "video", "dataset"])
def test_labels_outside_the_image_are_named(tmp_path: Path, rng: np.random.Generator, source: str) -> None:
    """Pixel centres are integers: the image of 32 x 24 ends at 31.5 and 23.5, and half a pixel more is let pass."""
    truth = images(rng, 2)
    encoded = cv2.imencode(".png", truth[0])[1].ravel()
    picture = {
        "png": lambda: Picture(write_png(tmp_path / "a.png", truth[0])),
        "jpg": lambda: Picture(write_png(tmp_path / "a.jpg", truth[0])),
        "video": lambda: Picture(write_video(tmp_path / "a.mkv", truth), 1),
        "dataset": lambda: Picture(write_dataset(tmp_path / "a.h5", [encoded]), 0, "video0/video"),
    }[source]()  # fmt: skip
    inside = np.array([[[[-1.0, -1.0], [32.0, 24.0], [NAN, NAN]]]])
    check_labels(make([picture], inside))
    for x, y in ((-1.01, 5), (32.01, 5), (5, -1.01), (5, 24.01)):
        points = np.concatenate((inside, inside))
        points[1, 0, 1] = x, y
        with pytest.raises(
            InputError,
            match=rf"{picture.path.name}, camera 'top', frame 17: .* 32 x 24 px, got 'ear' at "
            rf"\({x:.1f}, {y:.1f}\), and 1 of 4 labels outside",
        ):
            check_labels(make([picture, picture], points, [5, 17]))


numbers = st.lists(st.integers(0, 3000), min_size=1, max_size=400)


@settings(deadline=None, max_examples=100)
@given(a=numbers, b=numbers, share=st.floats(0.01, 0.9))
def test_what_is_held_are_blocks(a: list[int], b: list[int], share: float) -> None:
    labels = join_labels([frames_of("left", a), frames_of("right", b)])
    train, held = hold_out(labels, share)
    np.testing.assert_array_equal(np.sort(np.concatenate((train, held))), np.arange(len(labels)))
    again = hold_out(labels, share)
    np.testing.assert_array_equal(again[1], held)
    for camera in ("left", "right"):
        rows = np.array([name == camera for name in labels.camera])
        frames = np.unique(labels.frame[rows])
        if len(frames) < 5:
            continue
        mine = np.isin(np.arange(len(labels)), held)[rows]
        is_held = np.array([mine[labels.frame[rows] == frame] for frame in frames], dtype=object)
        assert all(len(set(flags)) == 1 for flags in is_held)  # rows of one frame stay together
        flags = np.array([bool(flags[0]) for flags in is_held])
        count = min(max(1, round(share * len(frames))), len(frames) - 1)
        assert flags.sum() == count
        blocks = np.count_nonzero(np.diff(np.concatenate(([0], flags.astype(int)))) == 1)
        assert 1 <= blocks <= min(max(1, count // 5), 5)


def test_blocks_lie_in_the_middle_of_equal_parts() -> None:
    labels = frames_of("top", list(range(0, 200, 2))).take(np.random.default_rng(0).permutation(100))
    train, held = hold_out(labels)
    blocks = np.concatenate((np.arange(22, 27), np.arange(72, 77)))  # of the 100 frames, which are the even numbers
    np.testing.assert_array_equal(np.sort(labels.frame[held]), 2 * blocks)
    assert len(train) == 90


def test_short_recordings() -> None:
    long, short = frames_of("top", list(range(20))), frames_of("side", list(range(4)))
    labels = join_labels([long, short])
    assert {labels.camera[row] for row in hold_out(labels)[1]} == {"top"}
    single = join_labels([frames_of("top", [n], folder=str(n)) for n in range(30)])
    np.testing.assert_array_equal(hold_out(single)[1], [5, 15, 25])
    np.testing.assert_array_equal(hold_out(single.take(range(2)))[1], [1])
    assert len(hold_out(single.take([0]))[1]) == 0
    with pytest.raises(InputError, match="expected a share between 0 and 1, got 1"):
        hold_out(labels, 1)
