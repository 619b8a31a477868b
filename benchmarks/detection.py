"""How many corners of a board are found, how exactly and how fast, beside OpenCV? python benchmarks/detection.py [N]

N (20) renderings of a 7x10 ChArUco board of 25 mm in an image of 1280x1024 px of each kind: sharp; blurred by a motion
of 5 px; tilted by 70 degrees; dark (an eighth of the light); inverted (white on black); half covered by a hand. The
truth are the projected corners inside the image that nothing covers. Found: corners within 2 px of the truth, as a
share of those; errors are of these. One thread each. OpenCV: CharucoDetector with default parameters (the board told to
it as it is printed: an inverted image is inverted for it, which our detector finds out for itself).
"""

import sys
import time

import cv2
import numpy as np

from calibration.board import Board
from calibration.board_corners import detect_board
from calibration.camera import Camera, Intrinsics
from calibration.detection import Pattern
from calibration.synthetic import render_board
from calibration.transforms import exp_so3

BOARD = Board(7, 10, 25.0, 18.75, "DICT_4X4_1000")
SIZE, FOCAL, NEAR_PX = (1280, 1024), 1100.0, 2.0
KINDS = ("sharp", "blurred", "tilted", "dark", "inverted", "half covered")


def scene(kind, rng):
    """Image, corners (n, 2), which of them are to be seen."""
    K = np.array([[FOCAL, 0, SIZE[0] / 2 - 0.5], [0, FOCAL, SIZE[1] / 2 - 0.5], [0, 0, 1]])
    camera = Camera("cam", Intrinsics(SIZE, K, np.array([-0.15, 0.05, 1e-3, -5e-4, 0])), np.eye(3), np.zeros(3))
    tilt = np.deg2rad(70 if kind == "tilted" else rng.uniform(0, 45))
    axis = rng.uniform(0, 2 * np.pi)
    R = exp_so3(tilt * np.array([np.cos(axis), np.sin(axis), 0])) @ exp_so3(
        np.array([0, 0, rng.uniform(-np.pi, np.pi)])
    )
    middle = BOARD.object_points.mean(axis=0)
    t = np.array([rng.uniform(-80, 80), rng.uniform(-60, 60), rng.uniform(380, 620)]) - R @ middle
    image = render_board(camera, BOARD, R, t, rng, pattern=Pattern(inverted=kind == "inverted"))
    xy = camera.project(BOARD.object_points @ R.T + t)
    seen = ((xy > 2) & (xy < np.array(SIZE) - 3)).all(axis=1)
    if kind == "blurred":
        angle = rng.uniform(0, np.pi)
        kernel = np.zeros((9, 9), np.float32)
        for s in np.linspace(-2.5, 2.5, 101):
            x, y = 4 + s * np.cos(angle), 4 + s * np.sin(angle)
            fx, fy = x - int(x), y - int(y)
            kernel[int(y) : int(y) + 2, int(x) : int(x) + 2] += np.outer([1 - fy, fy], [1 - fx, fx])
        image = cv2.filter2D(image, -1, kernel / kernel.sum())
    if kind == "dark":
        dark = image[..., 0] / 8 + rng.normal(0, 1.5, image.shape[:2])
        image = np.repeat(np.clip(np.rint(dark), 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    if kind == "half covered":
        centre, normal = xy.mean(axis=0), rng.normal(size=2)
        normal /= np.linalg.norm(normal)
        y, x = np.mgrid[: SIZE[1], : SIZE[0]]
        hand = (x - centre[0]) * normal[0] + (y - centre[1]) * normal[1] > 0
        image = np.where(hand[..., None], np.uint8(120), image)
        seen &= (xy - centre) @ normal < -4
    return image, xy, seen


def opencv_detector():
    board = cv2.aruco.CharucoBoard(
        (BOARD.columns, BOARD.rows), BOARD.square_length, BOARD.marker_length,
        cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_1000),
    )  # fmt: skip
    detector = cv2.aruco.CharucoDetector(board)

    def detect(gray):
        corners, ids, _, _ = detector.detectBoard(gray)
        out = np.full((BOARD.n_corners, 2), np.nan)
        if ids is not None:
            out[ids.ravel()] = corners.reshape(-1, 2)
        return out

    return detect


def main(n):
    cv2.setNumThreads(1)
    opencv = opencv_detector()
    print("kind          who      found, %   wrong   median px   95th pct   images/s")
    for kind in KINDS:
        rng = np.random.default_rng(KINDS.index(kind))
        pictures = [scene(kind, rng) for _ in range(n)]
        grays = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image, _, _ in pictures]
        pattern = Pattern(inverted=kind == "inverted")
        ways = {
            "ours": lambda gray, pattern=pattern: detect_board(gray, BOARD, pattern)[0],
            "OpenCV": lambda gray, pattern=pattern: opencv(255 - gray if pattern.inverted else gray),
        }
        for who, way in ways.items():
            way(grays[0])
            start = time.perf_counter()
            found = [way(gray) for gray in grays]
            seconds = time.perf_counter() - start
            away = [np.linalg.norm(xy - true, axis=1) for xy, (_, true, _) in zip(found, pictures, strict=True)]
            right = [(a <= NEAR_PX) & seen for a, (_, _, seen) in zip(away, pictures, strict=True)]
            total = sum(int(seen.sum()) for _, _, seen in pictures)
            wrong = sum(int((np.isfinite(a) & ~(a <= NEAR_PX)).sum()) for a in away)
            errors = np.concatenate([a[r] for a, r in zip(away, right, strict=True)] or [np.zeros(0)])
            print(
                f"{kind:13} {who:8} {100 * len(errors) / total:7.1f} {wrong:7d} {np.median(errors):11.3f} "
                f"{np.percentile(errors, 95):10.3f} {n / seconds:10.1f}"
            )


main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
