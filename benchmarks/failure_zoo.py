"""Does the audit name every mistake, and nothing else? python benchmarks/failure_zoo.py [FIRST_SEED] [SEEDS] [CLEAN]

Simulated recordings (`calibration.mishaps`) with one mistake each, SEEDS of every kind, CLEAN faultless rigs, and
rendered footage where the detector matters; seeds from FIRST_SEED on. Prints what was named and what should have been.
Figures: benchmarks/README.md.
"""

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from calibration.board import Board
from calibration.calibrate import calibrate_rig
from calibration.detection import detect_boards
from calibration.errors import InputError
from calibration.inspection import inspect_footage
from calibration.mishaps import MISHAPS, Scene, clean_scene
from calibration.synthetic import board_motion, render_board, ring_rig


def said(scene: Scene) -> tuple[str, list]:
    """The error, and the findings."""
    try:
        return "", list(calibrate_rig(scene.detections, intrinsics=scene.given or None).report.findings)
    except InputError as error:
        return str(error), []


def flagged(scene: Scene, error: str, findings: list) -> bool:
    """Whether the mistake is named together with a camera that has it."""
    if scene.error:
        return scene.error in error and all(name in error for name in scene.cameras)
    hits = [f for f in findings if f.kind == scene.kind]
    return any(not scene.cameras or set(f.cameras) & set(scene.cameras) for f in hits)


def rendered(seed: int, folder: Path) -> list[tuple[str, str, dict[str, Path], Board]]:
    """(mistake, what must be said of it, footage, board described) of one filmed board, where the detector matters."""
    rng = np.random.default_rng([seed, 2])
    board = Board(*((6, 5), (7, 5), (5, 4))[seed % 3], 60.0, 45.0, "DICT_4X4_50")
    rig = ring_rig(3, rng, radius=750, height=650, size=(640, 480), focal_px=600)
    R, t = board_motion(rig, board, 10, rng, reach=90, tilt=0.4)
    changes = {
        "good": lambda picture: picture,
        "turned": lambda picture: picture[:, ::-1],
        "soft": lambda picture: cv2.GaussianBlur(picture, (0, 0), 2.2),
    }
    for camera in rig:
        for name in changes:
            (folder / name / camera.name).mkdir(parents=True)
        for frame in range(len(R)):
            picture = render_board(camera, board, R[frame], t[frame], rng)[..., ::-1]
            for name, change in changes.items():
                cv2.imwrite(str(folder / name / camera.name / f"{frame}.png"), change(picture))
    good = {name: folder / "good" / name for name in rig.names}
    columns, rows = board.columns, board.rows
    return [
        ("no mistake", "", good, board),
        ("mirrored video", "images are mirrored: cam1", good | {"cam1": folder / "turned/cam1"}, board),
        ("out of focus", "cam1: the board's edges are blurred", good | {"cam1": folder / "soft/cam1"}, board),
        ("wrong dictionary", "dictionaries seen: DICT_4X4", good, Board(columns, rows, 60.0, 45.0, "DICT_6X6_50")),
        ("exchanged", "columns and rows are exchanged", good, Board(rows, columns, 60.0, 45.0, "DICT_4X4_50")),
        ("wrong columns", f"one of {columns} columns", good, Board(columns + 1, rows, 60.0, 45.0, "DICT_4X4_50")),
        ("wrong markers", "board: its markers are about", good, Board(columns, rows, 60.0, 30.0, "DICT_4X4_50")),
    ]


def said_of_footage(sources: dict[str, Path], board: Board) -> str:
    """All that is said of footage, the page's way."""
    try:
        detections = detect_boards(sources, board)
        report = calibrate_rig(detections).report
        return "\n".join(str(f) for f in report.with_findings(inspect_footage(sources, detections)).findings)
    except InputError as error:
        return str(error)


first, seeds, clean = (int(a) for a in (*sys.argv[1:4], *("0", "5", "100")[len(sys.argv[1:4]) :]))
only = sys.argv[4].split(",") if len(sys.argv) > 4 else None
for mishap in MISHAPS:
    if only and mishap.__name__ not in only:
        continue
    named, beside, misses = 0, Counter(), []
    for seed in range(first, first + seeds):
        rng = np.random.default_rng([seed, 1])
        scene = mishap(base := clean_scene(rng), rng)
        error, findings = said(scene)
        ok = flagged(scene, error, findings)
        named += ok
        beside.update(f.kind for f in findings if f.kind != scene.kind)
        if not ok:
            told = error or [str(f) for f in findings]
            misses.append(f"seed {seed} ({base.what}; {scene.what}) {scene.cameras}: {told}")
    print(f"{mishap.__name__:16} {named}/{seeds} named; beside: {dict(beside)}", flush=True)
    for miss in misses:
        print("   missed", miss[:700], flush=True)
false, began = 0, time.perf_counter()
for seed in range(first, first + clean):
    scene = clean_scene(np.random.default_rng([seed, 0]))
    error, findings = said(scene)
    if error or findings:
        false += 1
        print(f"   false alarm, seed {seed} ({scene.what}): {error or [str(f) for f in findings]}"[:900], flush=True)
print(f"clean rigs: {clean - false}/{clean} without a finding, {time.perf_counter() - began:.0f} s")

named = Counter()
for seed in range(first, first + seeds if only is None else first):
    with tempfile.TemporaryDirectory() as folder:
        for mistake, due, sources, board in rendered(seed, Path(folder)):
            told = said_of_footage(sources, board)
            bad = any(word in told for word in ("mirrored", "blurred", "markers", "expected"))
            named[mistake] += due in told if due else not bad
            if (due and due not in told) or (not due and bad):
                print(f"   missed, seed {seed}, {mistake}: {told[:500]}", flush=True)
for mistake, count in named.items():
    print(f"rendered, {mistake}: {count}/{seeds}")
