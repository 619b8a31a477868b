"""From videos to 3D through a network: stages in order, positions true, mistakes said before the work is done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from calibration.errors import InputError
from calibration.files import load_rig, save_rig
from calibration.synthetic import ring_rig
from pose3d.assembly import AssemblyOptions
from pose3d.config import load_session
from pose3d.files import load_poses, save_poses
from pose3d.identity import IdentityOptions
from pose3d.nn.network import Network, NetworkSpec, make_module, save_network
from pose3d.nn.options import PredictOptions, TrainOptions
from pose3d.nn.train import HISTORY
from pose3d.pipeline import run_session
from pose3d.session import LabelTable, Session
from pose3d.skeleton import Skeleton
from pose3d.video import MovieWriter

FRAMES, SIZE, BLOB_PX = 24, (320, 240), 9.0
SPEC = NetworkSpec("mobilenet_v2", 0.35, 8, Skeleton(("red", "green", "blue")), ((0, 1), (1, 2)), 0.5)
STAGES = ["poses2d", "identify", "triangulate", "refine", "export", "scene", "overlay"]
TOML = """
[session]
recordings = ["walk"]
window = 10
[calibration]
file = "calibration.toml"
[predict]
model = "models/network.safetensors"
[identify]
individuals = 1
[scene]
size = [64, 48]
every = 30
[overlay]
width = 160
"""


class Colours(torch.nn.Module):
    """A network that knows: each channel's brightness is its keypoint's heat, the offset leads to the top of the
    parabola through its logarithm; its fields say nothing."""

    def maps(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        heat = torch.nn.functional.avg_pool2d((images + 1) / 2, 4)
        n, k, h, w = heat.shape
        log = heat.clamp_min(1e-3).log()
        offset = torch.zeros(n, k, 2, h, w)
        for axis in (0, 1):
            ahead, behind = log.roll(-1, 3 - axis), log.roll(1, 3 - axis)
            offset[:, :, axis] = ((ahead - behind) / (2 * (2 * log - ahead - behind)).clamp_min(1e-2)).clamp(-1, 1)
        return heat, offset, torch.zeros(n, 2, 2, h, w), torch.zeros(n, 0, 3, h, w)


def truth() -> np.ndarray:
    """(frames, 3, 3) mm: a stiff triangle that walks and turns."""
    body = np.array([[60.0, 0.0, 20.0], [0.0, 10.0, 40.0], [-60.0, 0.0, 30.0]])
    angles = np.linspace(0.0, 1.5, FRAMES)
    turn = np.array([[[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]] for a in angles])
    return np.einsum("fij,kj->fki", turn, body) + np.linspace((-40, -30, 0), (50, 30, 0), FRAMES)[:, None]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session's folder with a calibration, videos of coloured spots on black, and a network's files."""
    folder = tmp_path_factory.mktemp("data")
    rig = ring_rig(3, np.random.default_rng(3), radius=500.0, height=400.0, size=SIZE, focal_px=300.0)
    save_rig(folder / "calibration.toml", rig)
    v, u = np.mgrid[: SIZE[1], : SIZE[0]]
    for name, points in zip(rig.names, rig.project(truth()), strict=True):
        (folder / "recordings/walk").mkdir(parents=True, exist_ok=True)
        with MovieWriter(folder / f"recordings/walk/{name}.mp4", 50.0, SIZE, crf=10) as movie:
            for frame in points:
                squared = (u[..., None] - frame[:, 0]) ** 2 + (v[..., None] - frame[:, 1]) ** 2
                movie.write(np.round(230 * np.exp(-squared / (2 * BLOB_PX**2))).astype(np.uint8))
    save_network(folder / "models/network.safetensors", Network(SPEC, make_module(SPEC), np.full(3, 0.5)))
    (folder / "pose3d.toml").write_text(TOML)
    return folder


@pytest.fixture(autouse=True)
def knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever network is loaded, it is the one that knows."""
    network = Network(SPEC, Colours(), np.full(3, 0.5))  # type: ignore[arg-type]
    monkeypatch.setattr("pose3d.nn.network.load_network", lambda path: network)


def session_of(data: Path, output: Path, /, **changes: object) -> Session:
    return replace(load_session(data, output=output), **changes)


def test_from_videos_to_3d(data: Path, tmp_path: Path) -> None:
    session = session_of(data, tmp_path)
    reports = list(run_session(session))
    assert [report.stage for _, report in reports] == ["calibrate.calibration", "predict", "assemble", *STAGES]
    assert [recording for recording, _ in reports] == [""] + ["walk"] * 9
    found = load_poses(tmp_path / "walk/poses3d.nc")
    assert found.shape[:3] == (FRAMES, 1, 3)
    assert not found.missing.any()
    apart = np.linalg.norm(found.points[:, 0] - truth(), axis=-1)
    assert np.median(apart) < 1.0  # mm; a pixel is 2 mm
    assert apart.max() < 4.0
    np.testing.assert_allclose(found.time, np.arange(FRAMES) / 50.0)
    assert found.fps == 50.0
    assert all(report.skipped for _, report in run_session(session))


def test_frames_of_a_camera_that_started_later(data: Path, tmp_path: Path) -> None:
    """Its frames are imported in windows: each moment still finds the frame beside it, also across a border."""
    text = (data / "pose3d.toml").read_text() + "[sync]\noffset_frames = { cam1 = 2.5 }\n"
    (tmp_path / "pose3d.toml").write_text(text)
    list(run_session(load_session(tmp_path / "pose3d.toml", data, tmp_path)))
    late, own = load_poses(tmp_path / "walk/poses2d/cam1.nc"), load_poses(tmp_path / "walk/assembled/cam1.nc")
    for row in range(3, FRAMES + 2):  # moment `row` lies between its frames row - 3 and row - 2
        between = 0.5 * (own.points[row - 3] + own.points[row - 2])
        np.testing.assert_allclose(late.points[row], between, atol=1e-9)
    np.testing.assert_array_equal(late.extras["covariance"].shape[:3], late.shape[:3])


def test_trained_once_from_labels_where_there_is_no_network(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "labels/cam0").mkdir(parents=True)
    lines = ["scorer,,,me,me", "bodyparts,,,red,red", "coords,,,x,y", "labeled-data,cam0,img0.png,5.0,6.0"]
    (tmp_path / "labels/cam0/CollectedData_me.csv").write_text("\n".join(lines) + "\n")
    cv2.imwrite(str(tmp_path / "labels/cam0/img0.png"), np.zeros((20, 20, 3), np.uint8))
    trained = []

    def train(labels, folder, options, *, progress=None):
        trained.append(len(labels))
        return Network(SPEC, make_module(SPEC), np.ones(3), metrics={HISTORY: [], "held-out error, px, median": 1.5})

    monkeypatch.setattr("pose3d.nn.train.train_network", train)
    for name in ("recordings", "calibration.toml"):
        (tmp_path / name).symlink_to(data / name)
    session = session_of(data, tmp_path / "out", data=tmp_path, labels=(LabelTable("labels/{camera}"),))
    session = replace(session, options={k: v for k, v in session.options.items() if k != "predict"})
    patterns = replace(session.patterns, video="recordings/walk/{camera}")
    session = replace(session, recordings=("walk", "again"), patterns=patterns)
    reports = list(run_session(session))
    stages = [(recording, report.stage) for recording, report in reports]
    assert [stage for _, stage in stages[:5]] == ["calibrate.calibration", "labels", "train", "predict", "assemble"]
    assert [recording for recording, stage in stages if stage == "train"] == [""]
    assert trained == [1]
    assert (tmp_path / "out/models/network.safetensors").is_file()
    options = dict(session.options) | {"train": TrainOptions(networks="per_camera")}
    alone = replace(session, recordings=("walk",), options=options)
    message = r"camera 'cam1': expected a network, .*out/models/cam1\.safetensors, found none"
    assert expect_error(alone, message) == ["calibrate.calibration", "labels", "train.cam0"]
    assert (tmp_path / "out/again/poses3d.nc").read_bytes() == (tmp_path / "out/walk/poses3d.nc").read_bytes()


def test_poses_that_are_there_are_not_predicted(data: Path, tmp_path: Path) -> None:
    rig = load_rig(data / "calibration.toml")
    list(run_session(session_of(data, tmp_path / "first")))
    for name in ("recordings", "calibration.toml", "models"):
        (tmp_path / name).symlink_to(data / name)
    for name in rig.names:
        save_poses(tmp_path / f"poses/{name}.nc", load_poses(tmp_path / f"first/walk/assembled/{name}.nc"))
    session = session_of(data, tmp_path / "out", data=tmp_path)
    session = replace(session, patterns=replace(session.patterns, poses2d="poses/{camera}"))
    stages = [report.stage for _, report in run_session(session)]
    assert stages == ["calibrate.calibration", *STAGES]


def test_one_animal_is_one_in_every_view_and_several_are_left_in_parts(data: Path, tmp_path: Path, monkeypatch) -> None:
    told = []

    def assemble_views(folder, cameras, options, **more):
        told.append(options)
        raise InputError("enough")

    monkeypatch.setattr("pose3d.pipeline.assemble_views", assemble_views)
    session = session_of(data, tmp_path)
    for more in (
        {},
        {"assemble": AssemblyOptions(individuals=3)},
        {"identify": IdentityOptions(2)},
        {"identify": None},
    ):
        with pytest.raises(InputError, match="enough"):
            list(run_session(replace(session, options=dict(session.options) | more)))
    assert [options.individuals for options in told] == [1, 3, None, None]


def expect_error(session: Session, message: str) -> list[str]:
    """The stages that were finished before this error."""
    done: list[str] = []
    with pytest.raises(InputError, match=message):
        done.extend(report.stage for _, report in run_session(session))
    return done


def test_mistakes_are_said_before_hours_of_prediction(data: Path, tmp_path: Path) -> None:
    session = session_of(data, tmp_path / "out", data=tmp_path)
    save_rig(tmp_path / "calibration.toml", load_rig(data / "calibration.toml"))
    folder = tmp_path / "recordings/walk"
    folder.mkdir(parents=True)
    for camera in ("cam0", "cam1"):
        (folder / f"{camera}.mp4").write_bytes((data / f"recordings/walk/{camera}.mp4").read_bytes())
    calibrated = ["calibrate.calibration"]
    with MovieWriter(folder / "cam2.mp4", 50.0, SIZE) as movie:
        movie.write(np.zeros((SIZE[1], SIZE[0], 3), np.uint8))
    assert expect_error(session, "videos of unequal length") == calibrated
    with MovieWriter(folder / "cam2.mp4", 50.0, (64, 48)) as movie:
        movie.write(np.zeros((48, 64, 3), np.uint8))
    assert expect_error(session, "camera 'cam2': .* is 64 x 48 px, its calibration 320 x 240") == calibrated
    (folder / "cam2.mp4").rename(folder / "cam7.mp4")
    assert expect_error(session, "camera 'cam7' of .* is not in the calibration") == calibrated
    (folder / "cam7.mp4").unlink()
    lacking = replace(session, options={"predict": PredictOptions(model=tmp_path / "no.safetensors")})
    assert expect_error(lacking, r"camera 'cam0': expected a network, .*no\.safetensors, found none") == calibrated
    none = replace(session, options={})
    assert expect_error(none, r"name a network \(`model` under \[predict\]\) or labelled frames") == calibrated


def test_a_network_of_another_skeleton(data: Path, tmp_path: Path) -> None:
    (tmp_path / "pose3d.toml").write_text(TOML + '[skeleton]\nkeypoints = ["red", "yellow"]\n')
    message = r"network\.safetensors: expected .* \(red, yellow\), got one for red, green, blue"
    assert expect_error(load_session(tmp_path, data, tmp_path / "out"), message) == ["calibrate.calibration"]


def test_a_network_that_sees_nothing(data: Path, tmp_path: Path) -> None:
    options = {"predict": PredictOptions(model=data / "models/network.safetensors", threshold=0.99)}
    done = expect_error(session_of(data, tmp_path, options=options), "found no keypoint in any frame; .*`threshold`")
    assert done == ["calibrate.calibration", "predict", "assemble"]


def test_a_video_that_breaks_off_is_used_as_far_as_it_goes(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "recordings/walk"
    folder.mkdir(parents=True)
    for path in (data / "recordings/walk").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    with av.open(str(folder / "cam1.mp4")) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    spoiled = bytearray((folder / "cam1.mp4").read_bytes())
    spoiled[places[14] : places[-1]] = b"\xff" * (places[-1] - places[14])
    (folder / "cam1.mp4").write_bytes(spoiled)
    save_rig(tmp_path / "calibration.toml", load_rig(data / "calibration.toml"))
    reports = {report.stage: report for _, report in run_session(session_of(data, tmp_path / "out", data=tmp_path))}
    kept = reports["predict"].summary["frames"]["cam1"]
    assert 5 < kept < FRAMES
    assert f"cam1.mp4 breaks off at frame {kept} of {FRAMES}" in reports["predict"].summary["warning"]["cam1"]
    seen = ~load_poses(tmp_path / "out/walk/poses2d/cam1.nc").missing.all(axis=(1, 2))
    np.testing.assert_array_equal(seen, np.arange(FRAMES) < kept)
    found = load_poses(tmp_path / "out/walk/triangulated.nc")  # each frame alone, at its end from two cameras
    assert np.linalg.norm(found.points[:, 0] - truth(), axis=-1).max() < 6.0
