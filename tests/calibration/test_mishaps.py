"""Simulated mistakes are the ones that they say."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.extrinsics import camera_graph
from calibration.mishaps import LAYOUTS, MISHAPS, clean_scene, filmed


@pytest.mark.parametrize("layout", LAYOUTS)
def test_clean_scenes_are_filmed_well(layout: str) -> None:
    import networkx as nx

    for seed in range(3):
        scene = clean_scene(np.random.default_rng(seed), layout)
        seen = np.isfinite(scene.detections.corners[..., 0])
        assert nx.is_connected(camera_graph(scene.detections))
        assert (seen.sum(axis=2) >= 8).sum(axis=1).min() >= 3
        R, t = scene.path(np.arange(scene.n_frames))
        world = np.einsum("fij,cj->fci", R, scene.board.object_points) + t[:, None]
        away = scene.rig.project(world)[seen] - scene.detections.corners[seen]
        assert away.std() == pytest.approx(scene.noise_px, rel=0.1)


@pytest.mark.parametrize("mishap", MISHAPS, ids=lambda m: m.__name__)
def test_mishaps_say_what_is_due(mishap) -> None:  # type: ignore[no-untyped-def]
    scene = clean_scene(np.random.default_rng(3), "ring", 4)
    spoiled = mishap(scene, np.random.default_rng(4))
    assert bool(spoiled.kind) != bool(spoiled.error)
    assert set(spoiled.cameras) <= set(spoiled.rig.names)
    assert spoiled.detections.corners.shape[-1] == 2
    again = mishap(scene, np.random.default_rng(4))
    assert again.detections.corners.tobytes() == spoiled.detections.corners.tobytes()


def test_filmed_at_other_times() -> None:
    scene = clean_scene(np.random.default_rng(3), "ring", 3)
    late = filmed(scene, np.random.default_rng(0), np.arange(scene.n_frames) - 2.0, noise_px=0.0)
    now = filmed(scene, np.random.default_rng(0), noise_px=0.0)
    both = np.isfinite(late.corners[:, 2:]) & np.isfinite(now.corners[:, :-2])
    np.testing.assert_allclose(late.corners[:, 2:][both], now.corners[:, :-2][both])
