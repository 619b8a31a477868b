"""Does a check of the rig find a camera that was nudged, and only then? python benchmarks/drift.py RECORDINGS | RESULTS

RECORDINGS: how many undisturbed ones are simulated, and a quarter of it for each nudge. RESULTS: of `pose3d run` with
configs/mouse_4cam.toml; the mouse is checked as it is, and with each camera turned from the middle on.

Simulated animals in simulated rigs of 3 to 8 cameras (1280x1024, 0.7 m from the middle of the arena, 1,500 frames, 1 to
3 animals), found by a network with noise of 2.5 px that hangs together over time (0.8 from frame to frame), 5 %
outliers, 15 % missing, and biases of 1 to 3 px of every keypoint in every view. A nudge turns one camera, at a random
moment in the middle three fifths, about a random axis through a pivot 20 to 80 mm from its centre. `follow`: besides,
the biases hang on how the animals stand (1 px). Figures: benchmarks/README.md.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from calibration import load_rig
from calibration.camera import pixels_from_camera, rays_from_pixels
from calibration.drift import check_rig
from calibration.rig import CameraRig
from calibration.synthetic import ring_rig, simulate_tracks
from calibration.transforms import exp_so3, log_so3
from pose3d.files import load_poses, read_groups
from pose3d.rig_points import rig_points
from pose3d.synthetic import simulate_animals

FRAMES = 1500


def nudged(rig: CameraRig, view: int, degrees: float, rng: np.random.Generator) -> CameraRig:
    """The rig with one camera turned about a pivot near it."""
    axis, away = rng.normal(size=(2, 3))
    R = exp_so3(np.deg2rad(degrees) * axis / np.linalg.norm(axis))
    pivot = rng.uniform(20, 80) * away / np.linalg.norm(away)
    cameras = list(rig.cameras)
    old = cameras[view]
    cameras[view] = replace(old, R=R @ old.R, t=R @ (old.t - pivot) + pivot)
    return CameraRig(tuple(cameras), rig.unit)


def recording(seed: int, degrees: float, follow: float = 0.0):
    """rig, rig after the nudge, xy, kinds, the view, the moment."""
    rng = np.random.default_rng(seed)
    n_views, animals = 3 + seed % 6, 1 + seed // 6 % 3
    rig = ring_rig(n_views, rng, radius=600, height=400, size=(1280, 1024), focal_px=1100)
    points = simulate_animals(rng, animals, FRAMES).points
    view, since = int(rng.integers(n_views)), int(FRAMES * rng.uniform(0.2, 0.8))
    after = nudged(rig, view, degrees, rng)
    kind = np.tile(np.arange(12), animals)
    flat = points.reshape(FRAMES, -1, 3)
    before, xy = (simulate_tracks(r, flat, np.random.default_rng([seed, 1]), kind=kind) for r in (rig, after))
    xy[:, :since] = before[:, :since]
    if follow:  # what a network takes for the keypoint slides along the body's contour as the animal turns
        along = points[:, :, 3] - points[:, :, 5]
        heading = np.arctan2(along[..., 1], along[..., 0])[:, :, None]
        phase = rng.uniform(0, 2 * np.pi, (2, n_views, 1, 1, 12))
        slide = follow * np.stack([np.sin(heading + phase[0]), np.sin(heading + phase[1])], axis=-1)
        xy += slide.reshape(*xy.shape)
    return rig, after, xy, kind, view, since


def trial(seed: int, degrees: float, follow: float = 0.0) -> tuple[str, float, float, float]:
    """What was said ("quiet", "found", "doubt", "wrong"), the error of the pose in degrees, in its SD, of the frame."""
    rig, after, xy, kind, view, since = recording(seed, degrees, follow)
    report = check_rig(rig, xy, kind=kind)
    if report.holds:
        return "quiet", np.nan, np.nan, np.nan
    moved = report.cameras[0]
    if rig.names[view] not in (moved.name, *moved.others) or moved.since is None or len(report.cameras) > 1:
        return "wrong", np.nan, np.nan, np.nan
    if moved.others:
        return "doubt", np.nan, np.nan, abs(moved.since - since)
    error = np.rad2deg(np.linalg.norm(log_so3(moved.camera.R @ after[moved.name].R.T)))
    return "found", error, error / moved.turn_sd_deg, abs(moved.since - since)


def real(folder: Path) -> None:
    """Print what is said of a real recording, and of the same with the pixels of one camera turned."""
    rig = load_rig(folder.parent / "calibration.toml")
    groups = read_groups(folder / "groups.nc")
    told = rig_points({n: load_poses(folder / f"poses2d/{n}.nc") for n in groups.view_names}, groups)
    rig = rig.subset(groups.view_names)
    print(check_rig(rig, told.xy, told.covariance, kind=told.kind).text())
    for view, camera in enumerate(rig):
        for degrees in (0.5, 1.0, 2.0):
            xy, half = told.xy.copy(), told.xy.shape[1] // 2
            R = exp_so3(np.deg2rad(degrees) * np.array([0.6, 0.8, 0.0]))
            rays = rays_from_pixels(xy[view, half:], camera.intrinsics) @ R.T
            xy[view, half:] = pixels_from_camera(rays, camera.intrinsics)
            moved = check_rig(rig, xy, told.covariance, kind=told.kind).cameras
            said = [f"{m.name} at {m.since}, {m.turn_deg:.2f}° ± {m.turn_sd_deg:.2f}°" for m in moved]
            print(f"{camera.name} turned by {degrees}° at {half}: {'; '.join(said) or 'quiet'}", flush=True)


def main() -> None:
    if len(sys.argv) > 1 and not sys.argv[1].isdigit():
        real(Path(sys.argv[1]))
        return
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    for follow in (0.0, 1.0):
        for degrees, count in ((0.0, n), (0.05, n // 4), (0.1, n // 4), (0.2, n // 4), (0.3, n // 4), (0.5, n // 4)):
            told = [trial(seed, degrees, follow) for seed in range(count)]
            said = [t[0] for t in told]
            shares = ", ".join(f"{word} {said.count(word)}" for word in ("found", "doubt", "wrong", "quiet"))
            known = np.array([t[1:] for t in told if t[0] == "found"]).reshape(-1, 3)
            line = f"follow {follow:g} px, {degrees:.2f}°, {count} recordings: {shares}"
            if degrees and len(known):
                middle, high = np.percentile(known, 50, axis=0), np.percentile(known, 95, axis=0)
                line += (
                    f"; error of the turn {middle[0]:.3f}° (95th percentile {high[0]:.3f}), in its SD "
                    f"{np.sqrt(np.mean(known[:, 1] ** 2)):.2f} rms, of the frame {middle[2]:.0f} ({high[2]:.0f})"
                )
            print(line, flush=True)


if __name__ == "__main__":
    main()
