"""Prediction and assembly as stages: windows, skipping, going on, videos that break off, networks that do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from calibration.errors import InputError
from calibration.footage import open_footage
from pose3d.assembly import AssemblyOptions, assemble
from pose3d.files import load_poses, read_candidates
from pose3d.nn import engine_choice, engines, predict
from pose3d.nn.model import PoseNet
from pose3d.nn.network import Network, NetworkSpec, load_network, make_module, save_network
from pose3d.nn.options import PredictOptions
from pose3d.poses import Candidates
from pose3d.skeleton import Skeleton
from pose3d.stages import engine as engine_stage
from pose3d.stages.prediction import assemble_views, find_networks, predict_videos
from pose3d.video import MovieWriter

SPEC = NetworkSpec("mobilenet_v2", 0.35, 8, Skeleton(("nose", "tail", "ear")), ((0, 1), (0, 2)), 1.0)
OPTIONS = PredictOptions(batch=4, threshold=0.01, limit=3)
FRAMES, WINDOW = 22, 10
COLUMNS = ("frame_start", "keypoint", "xy", "score", "covariance", "a", "b", "edge", "limb_score", "frame")


def picture(rng: np.random.Generator, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def write_movie(path: Path, frames: int, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    with MovieWriter(path, 50.0, (64, 48)) as movie:
        for _ in range(frames):
            movie.write(picture(rng))
    return path


def write_network(path: Path, **changes: object) -> Path:
    spec = replace(SPEC, **changes)  # type: ignore[arg-type]
    module = make_module(spec)
    with torch.no_grad():
        module.head[-1].weight *= 0.02  # offsets of cells, not of images
    save_network(path, Network(spec, module, np.full(len(spec.skeleton), 2.0)))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(("left", "right")):
        write_movie(folder / f"{name}.mp4", FRAMES, seed)
    write_network(folder / "network.safetensors")
    return folder


def videos_of(data: Path) -> dict[str, Path]:
    return {name: data / f"{name}.mp4" for name in ("left", "right")}


def run(data: Path, folder: Path, videos: dict[str, Path] | None = None, **more):
    videos = videos or videos_of(data)
    networks = find_networks(data / "network.safetensors", videos)
    return predict_videos(folder, videos, networks, OPTIONS, window=WINDOW, **more)


def whole(data: Path, video: Path) -> Candidates:
    with open_footage(video) as footage:
        return predict.predict_candidates(footage.frames(), load_network(data / "network.safetensors"), OPTIONS)


def assert_same(one: Candidates, other: Candidates) -> None:
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def test_candidates_and_poses_of_every_camera(data: Path, tmp_path: Path) -> None:
    report = run(data, tmp_path)
    assert report.stage == "predict"
    assert report.summary["frames"] == {"left": FRAMES, "right": FRAMES}
    assert report.summary["frames/s"] == {"left": 50.0, "right": 50.0}
    assert set(report.summary) == {"frames", "frames/s", "candidates a frame"}
    assert [path.name for path in report.outputs] == ["left.nc", "right.nc"]
    for name, video in videos_of(data).items():
        expected = whole(data, video)
        assert_same(read_candidates(tmp_path / f"candidates/{name}.nc"), expected)
        assert report.summary["candidates a frame"][name] == len(expected.keypoint) / FRAMES
    options = AssemblyOptions(individuals=2)
    told = assemble_views(tmp_path, ("left", "right"), options, fps=report.summary["frames/s"], window=WINDOW)
    for name in ("left", "right"):
        poses, expected = load_poses(tmp_path / f"assembled/{name}.nc"), assemble(whole(data, data / f"{name}.mp4"))
        expected = assemble(whole(data, data / f"{name}.mp4"), None, options)
        np.testing.assert_array_equal(poses.points, expected.points)
        np.testing.assert_array_equal(poses.extras["covariance"], expected.extras["covariance"])
        np.testing.assert_allclose(poses.time, np.arange(FRAMES) / 50.0)
        assert (poses.ids == -1).all()
        seen = ~poses.missing.all(axis=2)
        assert told.summary["individuals a frame"][name] == seen.sum() / FRAMES
        assert told.summary["share of their keypoints"][name] == pytest.approx((~poses.missing)[seen].mean())
    assert run(data, tmp_path).skipped
    assert not run(data, tmp_path, force=True).skipped


def test_another_network_or_video_is_predicted_anew(data: Path, tmp_path: Path) -> None:
    videos = {"left": write_movie(tmp_path / "left.mp4", 5)}
    write_network(tmp_path / "network.safetensors")
    assert not run(tmp_path, tmp_path / "out", videos).skipped
    assert run(tmp_path, tmp_path / "out", videos).skipped
    write_network(tmp_path / "network.safetensors", scale=0.5)
    assert not run(tmp_path, tmp_path / "out", videos).skipped
    write_movie(tmp_path / "left.mp4", 6)
    assert not run(tmp_path, tmp_path / "out", videos).skipped


@pytest.mark.parametrize("at", [3, 14, 21])
def test_interrupted_and_started_again_gives_the_same_bytes(data: Path, tmp_path: Path, at: int) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        assert (what, total) == ("predict.left", FRAMES)
        if done == at:
            raise KeyboardInterrupt

    videos = {"left": data / "left.mp4"}
    run(data, tmp_path / "whole", videos)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "cut", videos, progress=interrupt)
    kept = sorted(path.name for path in (tmp_path / "cut/.pose3d/predict.left").glob("*.nc"))
    assert kept == ["000000.nc", "000001.nc", "000002.nc"][: (at - 1) // WINDOW]
    run(data, tmp_path / "cut", videos)
    for name in ("candidates/left.nc", ".pose3d/predict.left.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A video of 60 frames whose data are spoiled from the middle on."""
    path = write_movie(tmp_path / "left.mp4", 60)
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    spoiled = bytearray(path.read_bytes())
    spoiled[places[30] : places[-1]] = b"\xff" * (places[-1] - places[30])
    path.write_bytes(spoiled)
    return path


def test_what_was_read_of_a_video_that_breaks_off_stays(data: Path, tmp_path: Path, broken: Path) -> None:
    read = []
    with open_footage(broken) as footage, pytest.raises(InputError, match="breaks off"):
        read.extend(frame for frame in footage.frames())
    assert 10 < len(read) < 50
    report = run(data, tmp_path / "out", {"left": broken})
    assert report.summary["frames"] == {"left": len(read)}
    warning = report.summary["warning"]["left"]
    assert warning.startswith(f"{broken} breaks off at frame {len(read)} of 60: what was read before stays")
    expected = predict.predict_candidates(read, load_network(data / "network.safetensors"), OPTIONS)
    assert_same(read_candidates(tmp_path / "out/candidates/left.nc"), expected)
    assemble_views(tmp_path / "out", ("left",), window=WINDOW)
    assert len(load_poses(tmp_path / "out/assembled/left.nc").frame) == len(read)

    def interrupt(what: str, done: int, total: int) -> None:
        if done > len(read):  # after the window in which it broke off
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "cut", {"left": broken}, progress=interrupt)
    run(data, tmp_path / "cut", {"left": broken})
    name = "candidates/left.nc"
    assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_a_video_that_is_shorter_than_it_says(data: Path, tmp_path: Path) -> None:
    """A copy that was cut off: its head, which comes first, tells of frames that are not there."""
    cut = tmp_path / "left.mp4"
    with av.open(str(data / "left.mp4")) as container:
        packets = [(packet.pts, packet.pos) for packet in container.demux(video=0) if packet.size]
    times = [time for time, _ in packets]
    k = next(k for k in range(10, FRAMES) if sorted(times[:k]) == sorted(times)[:k])  # none shown later comes before
    cut.write_bytes((data / "left.mp4").read_bytes()[: packets[k][1]])
    report = run(data, tmp_path, {"left": cut})
    assert report.summary["frames"] == {"left": k}
    assert report.summary["warning"]["left"].startswith(f"{cut} should be longer, but ends with frame {k - 1}")


def test_a_video_of_which_nothing_can_be_read_is_an_error(data: Path, tmp_path: Path) -> None:
    (tmp_path / "left.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match=r"left\.mp4: expected a video"):
        run(data, tmp_path / "out", {"left": tmp_path / "left.mp4"})


def test_folders_of_images_keep_their_numbers(data: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    folder = tmp_path / "left"
    folder.mkdir()
    images = {number: picture(rng) for number in (3, 7, 20)}
    for number, image in images.items():
        cv2.imwrite(str(folder / f"img_{number:03d}.png"), image[..., ::-1])
    report = run(data, tmp_path / "out", {"left": folder})
    expected = predict.predict_candidates(images.items(), load_network(data / "network.safetensors"), OPTIONS)
    assert_same(read_candidates(tmp_path / "out/candidates/left.nc"), expected)
    np.testing.assert_array_equal(expected.frame, [3, 7, 20])
    assert report.summary["frames/s"] == {"left": None}
    assemble_views(tmp_path / "out", ("left",), fps=report.summary["frames/s"])
    assert np.isnan(load_poses(tmp_path / "out/assembled/left.nc").time).all()
    (folder / "img_007.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"img_007\.png: expected an image"):
        run(data, tmp_path / "out", {"left": folder})


def test_too_little_memory_for_the_batch_is_said(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, maps, told = whole(data, data / "left.mp4"), PoseNet.maps, []

    def greedy(self, images):
        if len(images) > 2:
            raise RuntimeError("DefaultCPUAllocator: not enough memory")
        return maps(self, images)

    monkeypatch.setattr(PoseNet, "maps", greedy)
    report = run(data, tmp_path, {"left": data / "left.mp4"}, progress=lambda what, done, total: told.append(what))
    assert report.summary["memory"] == {"left": "did not suffice for 4 images at once; 2 were taken"}
    assert "predict.left, memory for 2 images at once" in told
    assert_same(read_candidates(tmp_path / "candidates/left.nc"), expected)


def test_one_network_for_all_or_one_a_camera(data: Path, tmp_path: Path) -> None:
    one = write_network(tmp_path / "network.safetensors")
    assert find_networks(one, ("a", "b")) == {"a": one, "b": one}
    own = write_network(tmp_path / "b.safetensors")
    assert find_networks(tmp_path, ("a", "b")) == {"a": one, "b": own}
    one.unlink()
    with pytest.raises(InputError, match=r"camera 'a': expected a network, .*a\.safetensors or .*network\.safetensors"):
        find_networks(tmp_path, ("a", "b"))
    with pytest.raises(InputError, match=r"camera 'a': expected a network, .*network\.safetensors, found none"):
        find_networks(one, ("a",))
    (tmp_path / "b.json").unlink()
    with pytest.raises(InputError, match=r"b\.json: the network's description is missing"):
        find_networks(tmp_path, ("b",))


def test_a_network_of_another_skeleton(data: Path, tmp_path: Path) -> None:
    message = r"keypoints of \[skeleton\] \(nose, hip\), got one for nose, tail, ear; name the network"
    with pytest.raises(InputError, match=message):
        run(data, tmp_path, keypoints=("nose", "hip"))
    run(data, tmp_path, keypoints=("tail", "nose", "ear"))  # in any order
    assert run(data, tmp_path, keypoints=("nose", "hip")).skipped
    with pytest.raises(InputError, match=message):
        assemble_views(tmp_path, ("left",), keypoints=("nose", "hip"))


class Counted:
    """A choice that is made otherwise each time it is asked."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def __call__(self, frames, network, options):
        self.asked.append([number for number, _ in frames])
        engine = ("torch-bf16", "torch")[(len(self.asked) - 1) % 2]
        return engine_choice.EngineChoice(engine, f"{engine}, chosen")


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """Short videos count as long ones, and an engine as installed."""
    counted = Counted()
    monkeypatch.setattr(engine_choice, "choose_engine", counted)
    monkeypatch.setattr(engines, "installed_engines", lambda: ("torch-bf16",))
    monkeypatch.setattr(engine_stage, "LEAST_MEGAPIXELS", 0.0)
    return counted


def test_an_engine_is_chosen_once_for_all_videos_of_a_kind(data: Path, tmp_path: Path, chosen: Counted) -> None:
    report = run(data, tmp_path)
    assert chosen.asked == [[0, 4, 8, 12, 16, 20]]
    assert report.summary["engine"] == {"left": "torch-bf16, chosen", "right": "torch-bf16, chosen"}
    bytes_before = (tmp_path / "candidates/left.nc").read_bytes()
    plain = replace(OPTIONS, engine="torch")
    videos = videos_of(data)
    networks = find_networks(data / "network.safetensors", videos)
    predict_videos(tmp_path / "plain", videos, networks, plain, window=WINDOW)
    assert bytes_before != (tmp_path / "plain/candidates/left.nc").read_bytes()
    run(data, tmp_path, force=True)  # asked anew it would be another
    assert (tmp_path / "candidates/left.nc").read_bytes() == bytes_before
    assert len(chosen.asked) == 1


def test_what_was_begun_goes_on_with_the_same_engine(
    data: Path, tmp_path: Path, chosen: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        if done == 14:
            raise KeyboardInterrupt

    videos = {"left": data / "left.mp4"}
    run(data, tmp_path / "whole", videos)
    chosen.asked.clear()
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "cut", videos, progress=interrupt)
    (tmp_path / "cut/.pose3d/engines.json").unlink()
    run(data, tmp_path / "cut", videos)
    assert len(chosen.asked) == 1
    for name in ("candidates/left.nc", ".pose3d/predict.left.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    monkeypatch.setattr(engines, "installed_engines", lambda: ())  # begun without, finished with
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "late", videos, progress=interrupt)
    monkeypatch.setattr(engines, "installed_engines", lambda: ("torch-bf16",))
    assert "engine" not in run(data, tmp_path / "late", videos).summary
    assert len(chosen.asked) == 1


def test_short_videos_are_not_spent_on_choosing(
    data: Path, tmp_path: Path, chosen: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_stage, "LEAST_MEGAPIXELS", 200.0)
    assert "engine" not in run(data, tmp_path).summary
    assert not chosen.asked


def test_a_named_engine_is_taken_and_told(data: Path, tmp_path: Path, chosen: Counted) -> None:
    videos = {"left": data / "left.mp4"}
    networks = find_networks(data / "network.safetensors", videos)
    named = replace(OPTIONS, engine="torch-bf16")
    assert predict_videos(tmp_path, videos, networks, named).summary["engine"] == {"left": "torch-bf16"}
    assert not chosen.asked


def test_a_video_that_breaks_off_is_tried_as_far_as_it_goes(
    data: Path, tmp_path: Path, broken: Path, chosen: Counted
) -> None:
    report = run(data, tmp_path / "out", {"left": broken})
    assert chosen.asked[0][:2] == [0, 10]
    assert chosen.asked[0][-1] < report.summary["frames"]["left"]
