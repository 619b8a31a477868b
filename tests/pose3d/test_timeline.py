from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.errors import InputError
from pose3d.poses import MEASURED, Poses
from pose3d.timeline import (
    SyncOptions,
    Timeline,
    align,
    make_timeline,
    timeline_from_timestamps,
    timeline_of,
)

NAN = float("nan")


def test_equal_counts_pair_frames_by_number() -> None:
    timeline = make_timeline({"top": 4, "side": 4}, fps=20.0)
    assert timeline.view_names == ("top", "side")
    assert timeline.frame.tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    assert timeline.time.tolist() == [0.0, 0.05, 0.1, 0.15]
    assert timeline.shift.tolist() == [[0, 0]] * 4
    assert timeline.fps == 20.0


def test_unequal_counts_name_every_count_and_the_line_to_add() -> None:
    with pytest.raises(InputError) as caught:
        make_timeline({"top": 120, "side": 118, "mid": 121}, fps=30.0)
    for part in ("top 120", "side 118", "mid 121", "[sync]", "trim = true", "offsets = { side ="):
        assert part in str(caught.value)


def test_trim_keeps_the_first_frames_of_all() -> None:
    timeline = make_timeline({"top": 5, "side": 3}, 10.0, SyncOptions(trim=True))
    assert timeline.frame.tolist() == [[0, 0], [1, 1], [2, 2]]


def test_fps_unknown_leaves_time_unknown() -> None:
    timeline = make_timeline({"top": 3})
    assert np.isnan(timeline.time).all()
    assert np.isnan(timeline.fps)


def moments(counts: dict[str, int], fps: float, sync: SyncOptions) -> dict[str, np.ndarray]:
    """Rig time of every frame, as SyncOptions says it."""
    out = {}
    for name, count in counts.items():
        offset = sync.offsets.get(name, 0.0) + sync.offset_frames.get(name, 0.0) / fps
        out[name] = offset + np.arange(count) / fps * (1 + sync.drift.get(name, 0.0))
    return out


@pytest.mark.parametrize(
    "sync",
    [
        SyncOptions(offsets={"b": 0.13}),
        SyncOptions(offsets={"b": -0.13}),
        SyncOptions(offset_frames={"b": 2.4}),
        SyncOptions(offsets={"b": 0.02}, drift={"c": 0.031}),
        SyncOptions(drift={"a": -0.02, "c": 0.01}),
    ],
)
def test_offsets_and_drift_give_the_nearest_frame_and_its_distance(sync: SyncOptions) -> None:
    fps, counts = 25.0, {"a": 40, "b": 37, "c": 44}
    timeline = make_timeline(counts, fps, sync)
    taken = moments(counts, fps, sync)
    assert timeline.step.tolist() == list(range(len(timeline)))
    np.testing.assert_allclose(np.diff(timeline.time), 1 / fps)
    for v, name in enumerate(counts):
        own = taken[name]
        interval = own[1] - own[0]
        for time, frame, shift in zip(timeline.time, timeline.frame[:, v], timeline.shift[:, v], strict=True):
            if frame < 0:
                assert np.abs(own - time).min() >= interval / 2 - 1e-9
                assert shift == 0
            else:
                assert abs(own[frame] - time) == pytest.approx(np.abs(own - time).min(), abs=1e-9)
                assert own[frame] + shift * interval == pytest.approx(time)
    assert (timeline.frame >= 0).any(axis=1).all()


def test_a_positive_offset_is_a_later_start() -> None:
    timeline = make_timeline({"a": 6, "b": 6}, 10.0, SyncOptions(offsets={"b": 0.2}))
    assert timeline.frame.tolist() == [[0, -1], [1, -1], [2, 0], [3, 1], [4, 2], [5, 3], [-1, 4], [-1, 5]]
    trimmed = make_timeline({"a": 6, "b": 6}, 10.0, SyncOptions(offsets={"b": 0.2}, trim=True))
    assert trimmed.frame.tolist() == [[2, 0], [3, 1], [4, 2], [5, 3]]
    assert trimmed.step.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(trimmed.time, [0.2, 0.3, 0.4, 0.5])


def test_sync_errors() -> None:
    with pytest.raises(InputError, match=r"offsets: no camera 'tpo'; did you mean 'top'"):
        make_timeline({"top": 3, "side": 3}, 10.0, SyncOptions(offsets={"tpo": 1.0}))
    with pytest.raises(InputError, match="need the frame rate"):
        make_timeline({"top": 3, "side": 3}, NAN, SyncOptions(offsets={"top": 1.0}))
    with pytest.raises(InputError, match="top, side have no moment in common"):
        make_timeline({"top": 3, "side": 3}, 10.0, SyncOptions(offsets={"top": 9.0}, trim=True))
    with pytest.raises(InputError, match="at least one camera"):
        make_timeline({})


def test_every_number_below_zero_is_a_dropped_frame_and_steps_may_have_gaps() -> None:
    timeline = Timeline(
        ("a",), np.array([[-7], [2], [3]]), np.array([0.2, 0.4, 0.8]), np.full((3, 1), 0.3), np.array([1, 2, 4])
    )
    assert timeline.frame[:, 0].tolist() == [-1, 2, 3]
    assert timeline.shift[:, 0].tolist() == [0, 0.3, 0.3]
    assert timeline.fps == 5.0


def test_timeline_checks_its_shapes() -> None:
    with pytest.raises(InputError, match=r"frame \(steps, 2 views\)"):
        Timeline(("a", "b"), np.zeros((3, 1)), np.zeros(3))
    with pytest.raises(InputError, match="time"):
        Timeline(("a",), np.zeros((3, 1)), np.zeros(2))
    with pytest.raises(InputError, match="increase"):
        Timeline(("a",), np.zeros((2, 1)), np.zeros(2), step=np.array([3, 3]))
    with pytest.raises(InputError, match="no camera 'c'"):
        Timeline(("a",), np.zeros((2, 1)), np.zeros(2)).view("c")


def test_a_window_keeps_the_steps_numbers() -> None:
    whole = make_timeline({"a": 9, "b": 9}, 10.0, SyncOptions(offset_frames={"b": 0.3}))
    part = whole.window(3, 6)
    assert part.step.tolist() == [3, 4, 5]
    assert part.frame.tolist() == whole.frame[3:6].tolist()
    np.testing.assert_array_equal(part.shift, whole.shift[3:6])
    np.testing.assert_array_equal(part.time, whole.time[3:6])


def write(path: Path, header: str, rows: list[tuple[object, ...]]) -> Path:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def test_timestamps_without_sync_index_take_the_nearest_frame(tmp_path: Path) -> None:
    early = {4: 0.02}  # so the gap of the dropped frame is 1.8 intervals, the next one 1.2
    rows: list[tuple[object, ...]] = [("left", n, 5 + 0.1 * n - early.get(n, 0)) for n in range(8) if n != 3]
    rows += [("right", n, 5 + 0.12 + 0.1 * n) for n in range(6)] + [("other", 0, 5.0)]
    path = write(tmp_path / "times.csv", "camera,frame,time", rows[::-1])
    timeline = timeline_from_timestamps(path, ("left", "right"))
    assert timeline.frame.tolist() == [[0, -1], [1, 0], [2, 1], [-1, 2], [4, 3], [5, 4], [6, 5], [7, -1]]
    np.testing.assert_allclose(timeline.time, [5.0, 5.1, 5.2, 5.29, 5.38, 5.5, 5.6, 5.7])
    np.testing.assert_allclose(timeline.shift[1:7, 1], [-0.2, -0.2, -0.3, -0.4, -0.2, -0.2], atol=1e-9)
    assert timeline.shift[[0, 7], 1].tolist() == [0, 0]


def test_timestamps_with_sync_index_use_the_median_of_a_moment(tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = []
    for n in range(5):
        rows += [(n, camera, n, 0.1 * n + late) for camera, late in (("a", 0.0), ("b", 0.01), ("c", 0.04))]
    rows = [row for row in rows if row[:2] != (2, "c")]
    path = write(tmp_path / "times.csv", "sync_index,camera,frame,time", rows)
    timeline = timeline_from_timestamps(path, ("a", "b", "c"))
    assert timeline.frame[:, 2].tolist() == [0, 1, -1, 3, 4]
    np.testing.assert_allclose(timeline.time, [0.01, 0.11, 0.205, 0.31, 0.41])
    np.testing.assert_allclose(timeline.shift[0], [0.1, 0.0, -0.3], atol=1e-9)


def test_timestamps_numbered_from_the_start_of_the_recording(tmp_path: Path) -> None:
    rows = [(camera, n + 26, n / 6) for camera in (0, 1) for n in range(4)]
    path = write(tmp_path / "t.csv", "cam_id,frame_index,frame_time", rows)
    assert timeline_from_timestamps(path, ("cam_0", "cam_1")).frame[:, 0].tolist() == [26, 27, 28, 29]
    counted = timeline_from_timestamps(path, ("cam_0", "cam_1"), {"cam_0": 4, "cam_1": 40})
    assert counted.frame[:, 0].tolist() == [0, 1, 2, 3]
    assert counted.frame[:, 1].tolist() == [26, 27, 28, 29]
    with pytest.raises(InputError, match=r"camera 'cam_1': 4 lines for frames 26 to 29, but its video has 5"):
        timeline_from_timestamps(path, ("cam_0", "cam_1"), {"cam_0": 4, "cam_1": 5})
    sync = SyncOptions(timestamps=path, trim=True)
    assert make_timeline({"cam_0": 4, "cam_1": 4}, sync=sync).frame.tolist() == [[n, n] for n in range(4)]


def test_timestamp_errors_name_file_line_and_camera(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv: cannot read"):
        timeline_from_timestamps(tmp_path / "none.csv", ("a",))
    path = write(tmp_path / "a.csv", "camera,time", [("a", 0)])
    with pytest.raises(InputError, match="columns camera, frame, time, got camera, time"):
        timeline_from_timestamps(path, ("a",))
    path = write(tmp_path / "b.csv", "camera,frame,time", [("a", 0, 0), ("a", 1, "soon")])
    with pytest.raises(InputError, match=r"b\.csv, line 3"):
        timeline_from_timestamps(path, ("a",))
    path = write(tmp_path / "c.csv", "camera,frame,time", [("a", 0, 0), ("a", 1, 1)])
    with pytest.raises(InputError, match=r"c\.csv: camera 'b'.*got 0 lines"):
        timeline_from_timestamps(path, ("a", "b"))
    path = write(tmp_path / "d.csv", "camera,frame,time", [("a", 0, 0), ("a", 1, 0)])
    with pytest.raises(InputError, match="increasing times"):
        timeline_from_timestamps(path, ("a",))


@pytest.mark.real
def test_timestamps_of_real_webcams(real_data: Path) -> None:
    path = real_data / "caliscope_charuco_calibration/calibration/extrinsic/timestamps.csv"
    names = tuple(f"cam_{n}" for n in range(4))
    timeline = timeline_from_timestamps(path, names, dict.fromkeys(names, 111))
    assert timeline.frame.tolist() == [[n] * 4 for n in range(111)]
    assert timeline.fps == pytest.approx(6.0, abs=0.02)
    late = np.abs(timeline.shift) / timeline.fps
    assert np.median(late) < 0.004
    assert np.quantile(late, 0.95) < 0.03


# --- align ---------------------------------------------------------------------------------------------------------


def walker(frames: np.ndarray, start: tuple[float, float], speed: tuple[float, float]) -> np.ndarray:
    """(frames, 3 keypoints, 2) px at these (fractional) frames."""
    shape = np.array([[0.0, 0.0], [20.0, 0.0], [10.0, 15.0]])
    return np.array(start) + frames[:, None, None] * np.array(speed) + shape


def test_align_without_timeline_unites_the_frames() -> None:
    a = Poses(np.ones((3, 1, 2, 2)), frame=np.array([4, 5, 7]), fps=10.0, ids=np.full((3, 1), 8))
    b = Poses(np.full((2, 2, 2, 2), 5.0), frame=np.array([5, 9]), time=np.array([0.5, 0.9]))
    extras = {"n_views": np.full((3, 1, 2), 3), "status": np.full((3, 1, 2), MEASURED)}
    out = align({"a": a.replace(extras=extras | {"covariance": np.ones((3, 1, 2, 2, 2))}), "b": b})
    for poses in out.values():
        assert poses.frame.tolist() == [4, 5, 7, 9]
        np.testing.assert_allclose(poses.time, [0.4, 0.5, 0.7, 0.9])
    assert out["a"].missing[:, 0, 0].tolist() == [False, False, False, True]
    assert out["a"].ids.tolist() == [[8], [8], [8], [-1]]
    assert out["a"].score[:, 0, 0].tolist() == [1, 1, 1, 0]
    assert out["a"].extras["n_views"][:, 0, 0].tolist() == [3, 3, 3, 0]
    assert out["a"].extras["status"][:, 0, 0].tolist() == [1, 1, 1, 0]
    assert np.isnan(out["a"].extras["covariance"][3]).all()
    assert out["b"].missing[:, 1, 0].tolist() == [True, False, True, False]
    assert timeline_of({"a": a, "b": b}).frame.tolist() == [[4, -1], [5, 5], [7, -1], [-1, 9]]


def test_align_of_an_empty_view() -> None:
    out = align({"a": Poses(np.ones((2, 1, 1, 2))), "b": Poses(np.ones((0, 3, 1, 2)))})
    assert out["b"].shape == (2, 3, 1, 2)
    assert out["b"].missing.all()
    assert align({}) == {}


@pytest.mark.parametrize("offset", [0.3, -0.4, 2.25, 0.06])
@pytest.mark.parametrize("with_ids", [True, False])
def test_align_interpolates_each_individual_to_rig_time(offset: float, with_ids: bool) -> None:
    """Walkers at constant speed: linear interpolation is exact, whatever slots they stand in."""
    n = 12
    frames = np.arange(n)
    both = np.stack([walker(frames, (50, 50), (2, -1)), walker(frames, (120, 90), (-3, 1))], axis=1)
    order = np.arange(n) % 2 == 1  # slots change hands every frame
    points = np.where(order[:, None, None, None], both[:, ::-1], both)
    ids = np.where(order[:, None], [[1, 0]], [[0, 1]]) if with_ids else None
    view = Poses(points, ids=ids, fps=10.0)
    timeline = make_timeline({"fixed": n, "late": n}, 10.0, SyncOptions(offset_frames={"late": offset}))
    out = align({"late": view}, timeline)["late"]
    assert out.frame.tolist() == timeline.step.tolist()
    exact = timeline.time * 10.0 - offset
    inside = (exact >= 0) & (exact <= n - 1)
    truth = np.stack([walker(exact, (50, 50), (2, -1)), walker(exact, (120, 90), (-3, 1))], axis=1)
    here = timeline.frame[:, 1]
    expected = np.where((here % 2 == 1)[:, None, None, None], truth[:, ::-1], truth)
    np.testing.assert_allclose(out.points[inside], expected[inside], atol=1e-9)
    if with_ids:
        np.testing.assert_array_equal(out.ids[inside], ids[here[inside]])


def test_align_leaves_small_offsets_alone() -> None:
    view = Poses(walker(np.arange(5), (0, 0), (2, 0))[:, None])
    timeline = make_timeline({"a": 5, "b": 5}, sync=SyncOptions(offset_frames={"b": 0.049}))
    np.testing.assert_array_equal(align({"b": view}, timeline)["b"].points[:5], view.points)


def test_align_keeps_the_measured_point_without_a_partner() -> None:
    points = walker(np.arange(4), (0, 0), (2, 0))[:, None]
    points[2, 0, 1] = np.nan  # one keypoint dropped
    timeline = Timeline(("a",), np.arange(4)[:, None], np.full(4, NAN), shift=np.full((4, 1), 0.5))
    out = align({"a": Poses(points)}, timeline)["a"].points[:, 0]
    assert out[1, 0, 0] == pytest.approx(3.0)  # half way
    assert out[1, 1, 0] == points[1, 0, 1, 0]  # its neighbour is missing
    assert np.isnan(out[2, 1]).all()  # nothing is invented
    np.testing.assert_array_equal(out[3], points[3, 0])  # no frame after it

    ids = np.array([[0], [0], [1], [1]])
    out = align({"a": Poses(points, ids=ids)}, timeline)["a"].points[:, 0]
    assert out[0, 0, 0] == pytest.approx(1.0)
    assert out[1, 0, 0] == points[1, 0, 0, 0]  # somebody else comes next
    ids = np.array([[0], [-1], [-1], [-1]])
    out = align({"a": Poses(points, ids=ids)}, timeline)["a"].points[:, 0]
    assert out[0, 0, 0] == points[0, 0, 0, 0]


def test_align_without_ids_needs_a_near_and_mutual_neighbour() -> None:
    timeline = Timeline(("a",), np.array([[0]]), np.array([0.0]), shift=np.array([[0.5]]))
    size = np.sqrt(((walker(np.zeros(1), (0, 0), (0, 0))[0] - [10, 5]) ** 2).sum(axis=1).mean())
    for share, moved in ((0.48, True), (0.52, False)):
        points = walker(np.arange(2), (0, 0), (share * size, 0))[:, None]
        out = align({"a": Poses(points)}, timeline)["a"].points
        assert out[0, 0, 0, 0] == pytest.approx(0.5 * share * size if moved else 0.0)
    # two near ones and a single one afterwards, nearer to the second
    first, second, after = (walker(np.zeros(1), (x, 0), (0, 0)) for x in (0, 5, 4))
    points = np.stack([np.stack([first[0], second[0]]), np.stack([after[0], np.full((3, 2), NAN)])])
    out = align({"a": Poses(points)}, timeline)["a"].points
    assert out[0, 0, 0, 0] == 0.0
    assert out[0, 1, 0, 0] == pytest.approx(4.5)
    lone = Poses(np.array([[[[0.0, 0.0]]], [[[1.0, 0.0]]]]))
    assert align({"a": lone}, timeline)["a"].points[0, 0, 0, 0] == 0.0


def test_align_names_an_unknown_view() -> None:
    timeline = make_timeline({"top": 2})
    with pytest.raises(InputError, match="no camera 'Top'; did you mean 'top'"):
        align({"Top": Poses(np.ones((2, 1, 1, 2)))}, timeline)


def test_the_odd_camera_is_the_one_whose_offset_is_asked_for() -> None:
    with pytest.raises(InputError, match=r"offsets = \{ side = 0.0 \}"):
        make_timeline({"top": 120, "side": 130, "mid": 120}, fps=30.0)
