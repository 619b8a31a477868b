from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from calibration.errors import InputError
from pose3d.video import READ_ON, MovieWriter, save_picture, synced_frames


def numbered(n: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A picture from whose colours its number can be read back: two base-8 digits of red, in halves."""
    picture = np.full((height, width, 3), 16, dtype=np.uint8)
    picture[:, : width // 2, 0] = 16 + 28 * (n % 8)
    picture[:, width // 2 :, 0] = 16 + 28 * (n // 8 % 8)
    return picture


def number_of(picture: np.ndarray) -> int:
    width = picture.shape[1]
    halves = (slice(4, width // 2 - 4), slice(width // 2 + 4, -4))
    digits = [(picture[4:-4, half, 0].mean() - 16) / 28 for half in halves]
    return round(digits[0]) + 8 * round(digits[1])


def write(path: Path, pictures: list[np.ndarray], fps: float = 25.0, crf: int = 20) -> Path:
    with MovieWriter(path, fps, pictures[0].shape[1::-1], crf=crf) as movie:
        for picture in pictures:
            movie.write(picture)
    return path


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_movie_has_every_picture_in_order_at_its_rate(tmp_path: Path) -> None:
    path = write(tmp_path / "movie.mp4", [numbered(n) for n in range(60)], fps=29.97002997)
    assert [number_of(picture) for picture in decoded(path)] == list(range(60))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate) == pytest.approx(30000 / 1001)
        assert float(stream.duration * stream.time_base) == pytest.approx(60 * 1001 / 30000, abs=1e-3)
    assert list(tmp_path.iterdir()) == [path]


def test_colours_survive(tmp_path: Path) -> None:
    """The matrix that players take for HD (BT.709) is the one that was used, and it is written down in the file."""
    colours = [(230, 159, 0), (86, 180, 233), (0, 158, 115), (255, 255, 255), (200, 30, 30)]
    path = write(tmp_path / "movie.mp4", [np.full((64, 64, 3), colour, dtype=np.uint8) for colour in colours], crf=5)
    for picture, colour in zip(decoded(path), colours, strict=True):
        assert np.abs(picture[8:-8, 8:-8].astype(int) - colour).max() <= 4
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert int(frame.colorspace) == 1
        y, u, v = (np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[16, 16] for plane in frame.planes)
    red, green, blue = (c / 255 for c in colours[0])  # ITU-R BT.709: luma, chroma in limited range
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    expected = (16 + 219 * luma, 128 + 224 * (blue - luma) / 1.8556, 128 + 224 * (red - luma) / 1.5748)
    np.testing.assert_allclose((y, u, v), expected, atol=2)


def test_odd_sizes_are_padded_with_the_last_row_and_column(tmp_path: Path) -> None:
    picture = np.full((47, 63, 3), 40, dtype=np.uint8)
    picture[-9:, :] = picture[:, -9:] = (200, 200, 200)
    (back,) = decoded(write(tmp_path / "movie.mp4", [picture], crf=1))
    assert back.shape == (48, 64, 3)
    assert np.abs(back[:47, :63].astype(int) - picture).max() < 12
    assert back[47].min() > 30
    assert back[47, 20:].mean() == pytest.approx(200, abs=3)


def test_same_pictures_same_bytes(tmp_path: Path, rng: np.random.Generator) -> None:
    base = cv2.resize(rng.integers(0, 255, (30, 40, 3)).astype(np.uint8), (320, 240))
    pictures = [np.roll(base, (n, 3 * n), axis=(0, 1)) for n in range(40)]
    files = set()
    for n in range(4):
        scratch = [np.full(50_000 * (n + 1), 37 * n, dtype=np.uint8) for _ in range(5)]  # other memory each time
        files.add(write(tmp_path / "movie.mp4", pictures).read_bytes())
        del scratch
    assert len(files) == 1
    assert b"mbtree=0" in files.pop()  # with it, x264 gives other bytes now and then


def test_better_quality_is_a_larger_file(tmp_path: Path, rng: np.random.Generator) -> None:
    pictures = [rng.integers(0, 255, (48, 64, 3)).astype(np.uint8) for _ in range(3)]
    coarse, fine = (write(tmp_path / f"{crf}.mp4", pictures, crf=crf).stat().st_size for crf in (40, 10))
    assert fine > 2 * coarse


def test_an_unfinished_movie_leaves_nothing_and_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "movie.mp4"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with MovieWriter(path, 30.0, (64, 48)) as movie:
            movie.write(numbered(0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_movie_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"end in \.mp4"):
        MovieWriter(tmp_path / "movie.avi", 30.0, (64, 48))
    for fps in (float("nan"), 0.0, -1.0):
        with pytest.raises(InputError, match="frame rate above 0"):
            MovieWriter(tmp_path / "movie.mp4", fps, (64, 48))
    with pytest.raises(InputError, match="size of at least"):
        MovieWriter(tmp_path / "movie.mp4", 30.0, (0, 48))
    with (
        pytest.raises(InputError, match=r"pictures \(48, 64, 3\) uint8, got \(64, 48, 3\)"),
        MovieWriter(tmp_path / "movie.mp4", 30.0, (64, 48)) as movie,
    ):
        movie.write(np.zeros((64, 48, 3), dtype=np.uint8))


def test_save_picture_is_lossless_rgb(tmp_path: Path, rng: np.random.Generator) -> None:
    picture = rng.integers(0, 255, (20, 30, 3)).astype(np.uint8)
    save_picture(tmp_path / "new" / "picture.png", picture)
    back = cv2.imread(str(tmp_path / "new" / "picture.png"))
    np.testing.assert_array_equal(back[..., ::-1], picture)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["picture.png"]


@pytest.fixture
def footage(tmp_path: Path) -> dict[str, Path]:
    """A video of 63 frames and a folder of images numbered 10, 11, 13."""
    video = write(tmp_path / "left.mp4", [numbered(n) for n in range(63)])
    folder = tmp_path / "right"
    for n in (10, 11, 13):
        save_picture(folder / f"image-{n}.png", numbered(n))
    return {"left": video, "right": folder}


def seen(videos: dict[str, Path], numbers: dict[str, list[int]]) -> list[dict[str, int | None]]:
    return [
        {name: None if image is None else number_of(image) for name, image in images.items()}
        for images in synced_frames(videos, {name: np.array(n) for name, n in numbers.items()})
    ]


def test_synced_frames_by_number(footage: dict[str, Path]) -> None:
    numbers = {"left": [0, 1, 1, -1, 5, 4, 62, 0], "right": [10, -1, 11, 13, 13, 10, 11, -1]}
    expected = [
        {"left": None if a < 0 else a, "right": None if b < 0 else b}
        for a, b in zip(numbers["left"], numbers["right"], strict=True)
    ]
    assert seen(footage, numbers) == expected
    assert seen(footage, numbers | {"other": [3] * 8}) == expected  # of cameras in videos only


def test_far_frames_are_sought(footage: dict[str, Path]) -> None:
    videos = {"left": footage["left"]}
    for numbers in ([0, READ_ON], [0, READ_ON + 1], [2, READ_ON + 3, 3, READ_ON + 10], [60, 61, 62]):
        assert [moment["left"] for moment in seen(videos, {"left": numbers})] == numbers


def test_a_frame_that_is_not_there_is_named(footage: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="camera 'left': frame 63 is not in its footage of 63 frames"):
        seen({"left": footage["left"]}, {"left": [63]})
    with pytest.raises(InputError, match="camera 'right': frame 12"):
        seen({"right": footage["right"]}, {"right": [12]})
