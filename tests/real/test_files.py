"""Every real file is read, and agrees with what other readers or other files of the same recording say."""

from __future__ import annotations

import csv
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.errors import InputError
from calibration.files import load_board, load_rig, save_rig
from pose3d.files import BODY_25B, load_poses, save_poses

pytestmark = pytest.mark.real

SLP = {  # frames, most individuals in one, keypoints, tracks
    "sleap_anipose_minimal/minimal_session/back/minimal_back_proofread.slp": (120, 1, 15, 1),
    "sleap_anipose_minimal/minimal_session/mid/minimal_mid_proofread.slp": (120, 1, 15, 1),
    "sleap_anipose_minimal/minimal_session/side/minimal_side_proofread.slp": (120, 1, 15, 1),
    "sleap_anipose_minimal/minimal_session/top/minimal_top_proofread.slp": (120, 1, 15, 1),
    "sleap_misc/datasets/minimal_instance.pkg.slp": (1, 2, 2, 0),
    "sleap_misc/datasets/small_robot_minimal.slp": (2, 1, 2, 0),
    "sleap_misc/hdf5_format_v1/centered_pair_predictions.slp": (1100, 5, 24, 27),
    "sleap_misc/slp_hdf5/dance.mp4.labels.slp": (450, 1, 17, 0),
    "sleap_misc/slp_hdf5/minimal_instance.slp": (1, 2, 2, 0),
    "sleap_misc/slp_hdf5/small_robot_minimal.slp": (2, 1, 2, 0),
    "sleap_mot/slp/centered_pair_predictions.clean.slp": (1100, 2, 24, 2),
    "sleap_tracks/tracks/clip.2node.slp": (1500, 2, 2, 2),
    "sleap_tracks/tracks/clip.predictions.slp": (1500, 2, 2, 2),
    "sleap_tracks/tracks/clip.slp": (1500, 2, 13, 2),
}
PEOPLE = "pose2sim_multi/S00_P01_MultiParticipants/S00_P01_T02_Participants1-2"


@pytest.mark.parametrize("name", SLP)
def test_slp(real_data: Path, name: str) -> None:
    poses = load_poses(real_data / name)
    frames, individuals, keypoints, tracks = SLP[name]
    assert poses.shape == (frames, individuals, keypoints, 2)
    assert len(poses.names) == tracks
    assert poses.score.max() <= 1


if find_spec("sleap_io"):  # not part of the environment, and a real test must not be skipped where the data are

    @pytest.mark.parametrize("name", SLP)
    def test_slp_as_sleap_io_reads_it(real_data: Path, name: str) -> None:
        import sleap_io

        labels = sleap_io.load_slp(str(real_data / name), open_videos=False)
        poses = load_poses(real_data / name)
        skeleton = labels.skeletons[-1]
        assert poses.skeleton.keypoints == tuple(skeleton.node_names)
        assert set(poses.skeleton.edges) == set(map(tuple, skeleton.edge_inds))
        assert len(labels) == len(poses.frame)
        for labelled in labels:
            row = int(np.searchsorted(poses.frame, labelled.frame_idx))
            assert poses.frame[row] == labelled.frame_idx
            expected = [i for i in labelled.instances if not superseded(i, labelled.instances)]
            seen = sorted(
                (-1 if i.track is None else labels.tracks.index(i.track), i.numpy().tolist()) for i in expected
            )
            slots = [s for s in range(poses.shape[1]) if not poses.missing[row, s].all()]
            ours = sorted((int(poses.ids[row, s]), poses.points[row, s].tolist()) for s in slots)
            assert len(ours) == len(seen)
            for (identity, xy), (track, theirs) in zip(ours, seen, strict=True):
                assert identity == track
                np.testing.assert_array_equal(xy, theirs)


def superseded(instance: Any, instances: list[Any]) -> bool:
    """Whether a user's instance was made from this prediction."""
    return any(getattr(other, "from_predicted", None) is instance for other in instances)


@pytest.mark.parametrize("view", ["back", "mid", "side", "top"])
def test_analysis_file_and_project_of_one_recording_agree(real_data: Path, view: str) -> None:
    stem = real_data / "sleap_anipose_minimal" / "minimal_session" / view / f"minimal_{view}_proofread"
    project, analysis = load_poses(f"{stem}.slp"), load_poses(f"{stem}.analysis.h5")
    order = [project.skeleton.index(name) for name in analysis.skeleton.keypoints]
    np.testing.assert_array_equal(analysis.points, project.points[:, :, order])
    np.testing.assert_array_equal(analysis.score, project.score[:, :, order])
    np.testing.assert_array_equal(analysis.ids, project.ids)

    def by_name(poses: Any) -> list[tuple[str, str]]:
        return [(poses.skeleton.keypoints[a], poses.skeleton.keypoints[b]) for a, b in poses.skeleton.edges]

    assert by_name(project) == by_name(analysis)  # in SLEAP's own order of edges
    assert load_poses(f"{stem}.slp", skeleton=analysis.skeleton).skeleton == analysis.skeleton


def test_3d_points_without_names_are_no_poses(real_data: Path) -> None:
    with pytest.raises(InputError, match=r"points3d\.h5: not a format"):
        load_poses(real_data / "sleap_anipose_minimal" / "minimal_session" / "points3d.h5")


def test_deeplabcut_csv_and_h5_agree_with_the_raw_text(real_data: Path) -> None:
    folder = real_data / "dlc_openfield" / "openfield-Pranav-2018-10-30" / "labeled-data" / "m4s1"
    poses = load_poses(folder / "CollectedData_Pranav.csv")
    twin = load_poses(folder / "CollectedData_Pranav.h5")
    np.testing.assert_array_equal(poses.points, twin.points)
    np.testing.assert_array_equal(poses.frame, twin.frame)
    assert poses.shape == (116, 1, 4, 2)
    assert poses.skeleton.keypoints == ("snout", "leftear", "rightear", "tailbase")
    rows = list(csv.reader((folder / "CollectedData_Pranav.csv").read_text().splitlines()))[3:]
    by_frame = {int(row[0][-8:-4]): [float(cell) for cell in row[1:]] for row in rows}
    for frame, points in zip(poses.frame, poses.points, strict=True):
        np.testing.assert_allclose(points.ravel(), by_frame[int(frame)], rtol=1e-15)


def test_lightning_pose_labels(real_data: Path) -> None:
    poses = load_poses(real_data / "lp_mirror_mouse" / "mirror-mouse-example" / "CollectedData.csv")
    assert poses.shape == (90, 1, 17, 2)
    np.testing.assert_array_equal(poses.points[0, 0, 0], [77.25, 36.25])
    assert 0 < poses.missing.mean() < 0.2


@pytest.mark.parametrize("camera", ["cam01", "cam02", "cam03", "cam04"])
@pytest.mark.parametrize("kind", ["pose", "pose-associated"])
def test_openpose_folders(real_data: Path, camera: str, kind: str) -> None:
    folder = real_data / PEOPLE / kind / f"{camera}_json"
    poses = load_poses(folder)
    assert poses.skeleton == BODY_25B  # told from the people
    np.testing.assert_array_equal(poses.frame, range(100))
    for frame in (0, 37, 99):
        people = json.loads((folder / f"{camera}.{frame:04d}.json").read_text())["people"]
        people = [p["pose_keypoints_2d"] for p in people if p.get("pose_keypoints_2d")]
        for slot in range(poses.shape[1]):
            if slot >= len(people):
                assert poses.missing[frame, slot].all()
                continue
            triples = np.array(people[slot]).reshape(25, 3)
            seen = triples[:, 2] > 0
            np.testing.assert_array_equal(poses.points[frame, slot][seen], triples[seen, :2])
            assert poses.missing[frame, slot][~seen].all()


@pytest.mark.parametrize("person", ["P1", "P2"])
def test_trc_pose2sim_calibration_and_openpose_speak_of_one_world(real_data: Path, person: str) -> None:
    """Pose2Sim's score-weighted linear triangulation of the detections (its `weighted_triangulation`) is the TRC to the
    last
    digits: axes, unit, frame numbers, pixels, keypoint names, K, R and t are all right at once."""
    trc = load_poses(real_data / PEOPLE / "pose-3d" / f"S00_P01_T02_Participants1-2_{person}_0-100.trc")
    rig = load_rig(real_data / "pose2sim_multi" / "Demo_MultiPerson" / "calibration" / "Calib_qualisys.toml")
    assert (trc.unit, rig.unit) == ("m", "m")
    assert (trc.shape, trc.fps) == ((100, 1, 21, 3), 60)
    views = {c.name: load_poses(real_data / PEOPLE / "pose" / f"{c.name.replace('_', '')}_json") for c in rig}

    def median_distance(xyz: np.ndarray, frame: np.ndarray) -> float:
        """m between points (frames, keypoints, 3) and the triangulation of the detection nearest to them in each
        view.
        """
        rows = []
        for camera in rig:
            poses = views[camera.name]
            order = [poses.skeleton.index(name) for name in trc.skeleton.keypoints]
            found, score = poses.points[frame][:, :, order], poses.score[frame][:, :, order]
            off = np.linalg.norm(found - camera.project(xyz)[:, None], axis=-1)
            nearest = np.where(np.isnan(off), np.inf, off).argmin(axis=1)[:, None]
            xy = np.nan_to_num(np.take_along_axis(found, nearest[..., None], 1)[:, 0])
            weight = np.take_along_axis(score, nearest, 1)[:, 0, :, None]
            weight = np.where(weight >= 0.3, weight, 0)  # its likelihood_threshold
            projection = camera.intrinsics.K @ np.column_stack((camera.R, camera.t))
            rows += [(projection[i] - xy[..., i : i + 1] * projection[2]) * weight for i in (0, 1)]
        solution = np.linalg.svd(np.stack(rows, axis=-2))[2][..., -1, :]
        return float(np.median(np.linalg.norm(solution[..., :3] / solution[..., 3:] - xyz, axis=-1)))

    xyz = trc.points[:, 0]
    assert median_distance(xyz, trc.frame) < 1e-6
    assert median_distance(xyz[:-1], trc.frame[1:]) > 1e-4  # one frame off
    assert median_distance(xyz[..., [1, 2, 0]], trc.frame) > 0.1  # the file's own axes


def test_trc_files_of_other_programs(real_data: Path) -> None:
    files = sorted((real_data / "pose2sim_multi").rglob("*.trc"))
    assert len(files) == 9
    for path in files:
        poses = load_poses(path)
        assert poses.shape[1:] in ((1, 21, 3), (1, 64, 3))
        assert not poses.missing.any()
        np.testing.assert_allclose(np.diff(poses.time), 1 / 60, atol=1e-6)
    augmented, plain = (load_poses(p) for p in (files[-1], files[-1].with_name(files[-1].name.replace("_LSTM", ""))))
    shared = [augmented.skeleton.index(name) for name in plain.skeleton.keypoints]
    offset = (
        augmented.points[:, :, shared] - plain.points
    )  # the augmenter puts the floor at 0: a shift along z, the rest equal
    np.testing.assert_allclose(offset[..., :2], 0, atol=1e-6)
    np.testing.assert_allclose(offset[..., 2], offset[0, 0, 0, 2], atol=1e-6)


def test_calibrations_and_boards(real_data: Path) -> None:
    folder = real_data / "sleap_anipose_minimal" / "minimal_session"
    with pytest.raises(InputError, match="does not say its unit"):
        load_rig(folder / "calibration.toml")
    rig = load_rig(folder / "calibration.toml", unit="mm")
    assert rig.names == ("back", "mid", "side", "top")
    board = load_board(folder / "board.toml")
    assert (board.columns, board.rows, board.square_length, board.marker_length) == (8, 11, 24.0, 18.75)
    assert board.dictionary == "DICT_4X4_1000"
    assert load_board(folder / "board_checker.toml").marker_length is None


@pytest.mark.parametrize("name", ["camera_array.toml", "config.toml", "capture_volume.toml"])
def test_caliscope(real_data: Path, name: str) -> None:
    path = real_data / "caliscope_charuco_calibration" / name
    if name == "capture_volume.toml":
        with pytest.raises(InputError, match=r"capture_volume\.toml: "):
            load_rig(path)
        return
    rig = load_rig(path)
    assert (rig.names, rig.unit) == (("cam_0", "cam_1", "cam_2", "cam_3"), "m")
    assert [round(camera.intrinsics.K[0, 0]) for camera in rig] == [904, 760, 651, 640]
    assert {camera.intrinsics.size for camera in rig} == {(1280, 720)}
    apart = np.linalg.norm(rig.centers[:, None] - rig.centers, axis=-1)[np.triu_indices(4, 1)]
    assert 0.3 < apart.min() < apart.max() < 2  # webcams around a desk


@pytest.mark.parametrize("format", ["pose2sim", "opencv", "aniposelib"])
def test_real_rigs_in_other_formats(real_data: Path, tmp_path: Path, format: str, rng: np.random.Generator) -> None:
    """Pose2Sim's, caliscope's and sleap-anipose's rigs project alike after they were written and read again."""
    sources = {
        "pose2sim_multi/Demo_MultiPerson/calibration/Calib_qualisys.toml": None,
        "caliscope_charuco_calibration/camera_array.toml": None,
        "sleap_anipose_minimal/minimal_session/calibration.toml": "mm",
    }
    for source, unit in sources.items():
        rig = load_rig(real_data / source, unit=unit)
        save_rig(tmp_path / "rig", rig, format)
        back = load_rig(tmp_path / "rig", format)
        scale = 1e-3 if (rig.unit, back.unit) == ("mm", "m") else 1.0
        points = rig.centers.mean(axis=0) + rng.normal(0, 0.1, (50, 3)) * np.ptp(rig.centers, axis=0).max()
        np.testing.assert_allclose(back.project(scale * points), rig.project(points), atol=1e-6)


@pytest.mark.parametrize("name", ["a.nc", "a.csv"])
def test_real_poses_there_and_back(real_data: Path, tmp_path: Path, name: str) -> None:
    poses = load_poses(real_data / "sleap_tracks" / "tracks" / "clip.slp", fps=30).by_id()
    save_poses(tmp_path / name, poses)
    back = load_poses(tmp_path / name)
    np.testing.assert_array_equal(back.points, poses.points)
    np.testing.assert_array_equal(back.ids, poses.ids)
    assert back.names == {0: "female", 1: "male"}
    assert back.fps == pytest.approx(30)
