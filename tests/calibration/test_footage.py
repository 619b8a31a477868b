from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from calibration.errors import InputError
from calibration.footage import find_sources, open_footage

SIZE = (64, 48)


def picture(number: int) -> np.ndarray:
    """(48, 64, 3) RGB: the number in blocks of 16 px, one a bit, over a reddish ground."""
    bits = [(number >> bit) & 1 for bit in range(12)]
    cells = np.array(bits, dtype=np.uint8).reshape(3, 4).repeat(16, axis=0).repeat(16, axis=1)
    return np.stack([60 + 140 * cells, 30 + 140 * cells, 30 + 140 * cells], axis=-1).astype(np.uint8)


def number_in(image: np.ndarray) -> int:
    gray = image if image.ndim == 2 else image[..., 1]
    bits = (gray[8::16, 8::16].ravel() > 100).astype(int)
    return int((bits << np.arange(12)).sum())


def write_video(path: Path, numbers: list[int], *, options: dict[str, str]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(30000, 1001), options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for number in numbers:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        container.mux(stream.encode())
    return path


def write_folder(path: Path, names: list[str], size: tuple[int, int] = SIZE) -> Path:
    path.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        cv2.imwrite(str(path / name), cv2.resize(picture(i), size, interpolation=cv2.INTER_NEAREST)[..., ::-1])
    return path


@pytest.fixture(scope="module")
def h264(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = {"g": "12", "bf": "3", "sc_threshold": "0"}
    return write_video(tmp_path_factory.mktemp("video") / "cam.mp4", list(range(100, 160)), options=options)


def test_video_says_what_it_holds(h264: Path) -> None:
    with open_footage(str(h264)) as footage:
        assert (footage.n_frames, footage.size, footage.complete, footage.path) == (60, SIZE, True, h264)
        assert footage.fps == pytest.approx(30000 / 1001)
        np.testing.assert_array_equal(footage.frame_numbers, np.arange(60))
        np.testing.assert_allclose(footage.time, np.arange(60) * 1001 / 30000, atol=1e-3)


def test_every_frame_is_found_in_any_order(h264: Path, rng: np.random.Generator) -> None:
    with open_footage(h264) as footage:
        assert [(n, number_in(image)) for n, image in footage.frames()] == [(n, 100 + n) for n in range(60)]
        for position in rng.permutation(60):
            assert number_in(footage.read(int(position))) == 100 + position
        assert [n for n, _ in footage.frames(7, 31, 5)] == [7, 12, 17, 22, 27]
        assert [number_in(image) for _, image in footage.frames(7, 31, 5, gray=True)] == [107, 112, 117, 122, 127]
        assert [n for n, _ in footage.frames(55)] == [55, 56, 57, 58, 59]
        assert list(footage.frames(60)) == []
        assert footage.read(3).shape == (48, 64, 3)
        red, green, blue = footage.read(0)[8, 8].astype(int)
        assert red > green + 15
        assert abs(green - blue) < 8
        for outside in (-1, 60):
            with pytest.raises(InputError, match=r"0\.\.59"):
                footage.read(outside)


def test_gray_is_the_stored_luma(h264: Path) -> None:
    with av.open(str(h264)) as container:
        frame = next(container.decode(video=0))
        luma = frame.to_ndarray()[:48, :64]
    with open_footage(h264) as footage:
        np.testing.assert_array_equal(next(footage.frames(gray=True))[1], luma)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.avi", "mpeg4"), ("a.mkv", "ffv1"), ("a.avi", "mjpeg"), ("a.mov", "mpeg4")]
)
def test_other_containers_and_codecs(tmp_path: Path, name: str, codec: str) -> None:
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number in range(30):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        container.mux(stream.encode())
    with open_footage(path) as footage:
        assert footage.n_frames == 30
        for position in (29, 3, 17, 0):
            assert number_in(footage.read(position)) == position


def test_deep_and_packed_pictures_become_gray(tmp_path: Path) -> None:
    path = tmp_path / "deep.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p10le"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(77), format="rgb24")))
        container.mux(stream.encode())
    with open_footage(path) as footage:
        gray = next(footage.frames(gray=True))[1]
        assert (gray.shape, gray.dtype, number_in(gray)) == ((48, 64), np.uint8, 77)


def test_broken_video_keeps_what_was_read(tmp_path: Path, h264: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", list(range(60)), options={"g": "5"})
    data = whole.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: int(len(data) * 0.7)])
    with open_footage(tmp_path / "cut.mkv") as footage:
        assert 20 < footage.n_frames < 60
    with av.open(str(h264)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    spoiled = bytearray(h264.read_bytes())
    spoiled[places[30] : places[-1]] = b"\xff" * (places[-1] - places[30])
    (tmp_path / "spoiled.mp4").write_bytes(spoiled)
    read = []
    with open_footage(tmp_path / "spoiled.mp4") as footage, pytest.raises(InputError, match=r"spoiled\.mp4") as error:
        read.extend(n for n, _ in footage.frames())
    assert f"breaks off at frame {len(read)} of" in str(error.value)
    assert len(read) > 20
    assert read == list(range(len(read)))
    moov_first = write_video(tmp_path / "first.mp4", list(range(60)), options={"g": "5"})
    index_first = {"movflags": "faststart"}
    with av.open(str(moov_first)) as source, av.open(str(tmp_path / "fast.mp4"), "w", options=index_first) as fast:
        stream = fast.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                fast.mux(packet)
    data = (tmp_path / "fast.mp4").read_bytes()
    (tmp_path / "short.mp4").write_bytes(data[: int(len(data) * 0.8)])
    with open_footage(tmp_path / "short.mp4") as footage:
        assert not footage.complete
        assert footage.n_frames < 60
        assert number_in(footage.read(10)) == 10


def test_a_matroska_file_that_was_cut_off_is_not_complete(tmp_path: Path) -> None:
    """It does not count its frames, but says how long it is."""
    whole = write_video(tmp_path / "whole.mkv", list(range(60)), options={"g": "5"})
    (tmp_path / "cut.mkv").write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.6)])
    with open_footage(whole) as footage:
        assert (footage.complete, footage.n_frames) == (True, 60)
    with open_footage(tmp_path / "cut.mkv") as footage:
        assert not footage.complete
        assert 10 < footage.n_frames < 60


def test_a_frame_that_the_decoder_leaves_out_is_no_silent_gap(h264: Path) -> None:
    with open_footage(h264) as footage:
        decoded = footage._decoded  # type: ignore[attr-defined]
        footage._decoded = lambda start: (pair for pair in decoded(start) if pair[0] != 5)  # type: ignore[attr-defined]
        read: list[int] = []
        with pytest.raises(InputError, match="breaks off at frame 5 of 60"):
            read.extend(n for n, _ in footage.frames())


def test_what_is_no_footage(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("this is no video")
    with pytest.raises(InputError, match=r"text\.mp4.*cannot open"):
        open_footage(tmp_path / "text.mp4")
    with pytest.raises(InputError, match=r"gone\.mp4.*found nothing"):
        open_footage(tmp_path / "gone.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: expected images"):
        open_footage(tmp_path / "empty")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(InputError, match="without a picture"):
        open_footage(tmp_path / "sound.mp4")


def test_folder_is_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "cam", ["c-2022-10.png", "c-2022-9.png", "c-2022-2.jpg", "c-2022-11.bmp"])
    (folder / "notes.txt").write_text("no image")
    with open_footage(folder) as footage:
        np.testing.assert_array_equal(footage.frame_numbers, [2, 9, 10, 11])
        assert (footage.n_frames, footage.size) == (4, SIZE)
        assert np.isnan(footage.fps)
        assert np.isnan(footage.time).all()
        assert [(n, number_in(image)) for n, image in footage.frames()] == [(2, 2), (9, 1), (10, 0), (11, 3)]
        np.testing.assert_array_equal(footage.read(1), picture(1))
        gray = cv2.cvtColor(picture(1), cv2.COLOR_RGB2GRAY)
        np.testing.assert_allclose(next(footage.frames(1, gray=True))[1], gray, atol=1)
        assert [n for n, _ in footage.frames(1, 4, 2)] == [9, 11]


def test_folders_that_cannot_be_paired_or_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"left\.png: expected a number"):
        open_footage(write_folder(tmp_path / "a", ["left.png"]))
    with pytest.raises(InputError, match=r"1\.png and x01\.png both end in the number 1"):
        open_footage(write_folder(tmp_path / "b", ["1.png", "x01.png"]))
    folder = write_folder(tmp_path / "c", ["0.png"])
    write_folder(folder, ["1.png"], (32, 24))
    with open_footage(write_folder(folder, ["0.png"])) as footage:  # noqa: SIM117
        with pytest.raises(InputError, match=r"1\.png: expected 64 x 48 px as 0\.png, got 32 x 24"):
            list(footage.frames())
    (folder / "2.png").write_bytes(b"no image")
    with open_footage(folder) as footage, pytest.raises(InputError, match=r"2\.png: expected an image"):
        footage.read(2)


def test_an_image_that_is_cut_off_is_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "cam0", ["1.jpg", "2.jpg"])
    whole = (folder / "2.jpg").read_bytes()
    (folder / "2.jpg").write_bytes(whole[: len(whole) // 2])
    with open_footage(folder) as reel, pytest.raises(InputError, match=r"2\.jpg: .*one that is cut off; replace or"):
        list(reel.frames())


def test_sources_are_videos_and_folders_of_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("cam_10.mp4", "cam_2.avi", "notes.txt", ".hidden.mp4"):
        (tmp_path / name).write_bytes(b"")
    write_folder(tmp_path / "cam_1", ["0.png"])
    (tmp_path / "intrinsics").mkdir()
    sources = find_sources(str(tmp_path))
    assert f"{tmp_path / 'intrinsics'}: an empty folder, no camera" in caplog.text
    assert list(sources.items()) == [
        ("cam_1", tmp_path / "cam_1"),
        ("cam_2", tmp_path / "cam_2.avi"),
        ("cam_10", tmp_path / "cam_10.mp4"),
    ]
    (tmp_path / "cam_2.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"camera 'cam_2', got cam_2\.avi and cam_2\.mp4"):
        find_sources(tmp_path)
    with pytest.raises(InputError, match="found neither"):
        find_sources(tmp_path / "intrinsics")
    with pytest.raises(InputError, match="found none"):
        find_sources(tmp_path / "nowhere")
