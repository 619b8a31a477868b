"""Peaks, limbs and assembly on drawn maps: python benchmarks/assembly.py [SEED] [FRAMES] [NOISE]

Images of 512x512 px, maps at stride 4; animals are bent chains of 12 keypoints, 14 px apart, thrown at random, so that
they overlap; 5 % of the keypoints are missing. 21 limbs: neighbours and next but one. Gaussians of 1.5 cells, limbs of
half a width of 1 cell, the mean where several overlap, offsets within 2.5 cells; NOISE (0.1) is the SD of offsets and
fields, 0.3 of it that of the heat.

Grouped keypoints recalled: individuals are matched to the animals one to one, so that most keypoints lie within 3 px;
of the keypoints that are there, how many are delivered within 3 px by the individual matched to their animal. Found: by
any individual. Times are medians of a frame, compiled; assembly's in a window of 10 times the frames. Figures:
benchmarks/README.md.
"""

import sys
import time

import numpy as np
from scipy.optimize import linear_sum_assignment

from pose3d import Candidates, Skeleton, assemble
from pose3d.nn.peaks import find_peaks, score_limbs

SIZE, STRIDE, KEYPOINTS, SEGMENT, MISSING, BEND = 512, 4, 12, 14.0, 0.05, 0.35
SIGMA, BAND, REACH, WITHIN = 1.5, 1.0, 2.5, 3.0
LIMBS = np.array([(k, k + 1) for k in range(KEYPOINTS - 1)] + [(k, k + 2) for k in range(KEYPOINTS - 2)], np.int32)
SKELETON = Skeleton(tuple(f"k{k}" for k in range(KEYPOINTS)))
THRESHOLD, LIMIT, LEAST_LIMB = 0.3, 40, 0.2


def throw(rng, animals):
    """Keypoints (animals, K, 2) px, NaN where missing."""
    points = np.empty((animals, KEYPOINTS, 2))
    for animal in points:
        animal[:] = np.nan
        while not ((animal > 2) & (animal < SIZE - 3)).all():
            heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, BEND, KEYPOINTS - 1))
            steps = SEGMENT * np.column_stack((np.cos(heading), np.sin(heading)))
            chain = np.vstack((np.zeros(2), np.cumsum(steps, axis=0)))
            animal[:] = chain - chain.mean(axis=0) + rng.uniform(0, SIZE, 2)
    points[rng.uniform(size=points.shape[:2]) < MISSING] = np.nan
    return points


def draw(rng, points, noise):
    """heat (K, H, W), offset (K, 2, H, W), paf (L, 2, H, W) of the keypoints, with noise."""
    cells = (points + 0.5) / STRIDE - 0.5
    x, y = np.meshgrid(*[np.arange(SIZE // STRIDE, dtype=float)] * 2)
    to = cells[..., None, None] - np.stack((x, y))
    squared = (np.where(np.isnan(to), np.inf, to) ** 2).sum(axis=2)
    nearest = squared.argmin(axis=0)[None]
    squared = np.take_along_axis(squared, nearest, axis=0)[0]
    offset = np.nan_to_num(np.take_along_axis(to, nearest[:, :, None], axis=0)[0]) * (squared < REACH**2)[:, None]
    heat = np.exp(-squared / (2 * SIGMA**2))
    paf = np.zeros((len(LIMBS), 2, *x.shape))
    for field, (a, b) in zip(paf, LIMBS, strict=True):
        count = np.zeros(x.shape)
        for start, end in zip(cells[:, a], cells[:, b], strict=True):
            length = np.hypot(*(end - start))
            unit = (end - start) / length
            run = (x - start[0]) * unit[0] + (y - start[1]) * unit[1]
            off = (x - start[0]) * unit[1] - (y - start[1]) * unit[0]
            on = (np.abs(off) <= BAND) & (run >= -BAND) & (run <= length + BAND)
            field += np.where(on, unit[:, None, None], 0.0)
            count += on
        field /= np.maximum(count, 1)
    noisy = (heat, 0.3 * noise), (offset, noise), (paf, noise)
    return [(m + rng.normal(0, sd, m.shape)).astype(np.float32) for m, sd in noisy]


def gathered(found):
    """The Candidates of frames of (keypoint, cell, score, a, b, edge, limb score)."""
    keypoint, cell, score, a, b, edge, limb_score = (np.concatenate(column) for column in zip(*found, strict=True))
    starts = np.cumsum([0] + [len(f[0]) for f in found])
    limb_starts = np.cumsum([0] + [len(f[3]) for f in found])
    shift = np.repeat(starts[:-1], np.diff(limb_starts))
    covariance = np.broadcast_to(np.eye(2), (len(cell), 2, 2))
    limbs = tuple((int(p), int(q)) for p, q in LIMBS)
    return Candidates(
        starts, keypoint, (cell + 0.5) * STRIDE - 0.5, score, covariance, limb_starts, a + shift, b + shift, edge,
        limb_score, np.arange(len(found)), SKELETON, limbs,
    )  # fmt: skip


def recalled(truth, poses):
    """How many keypoints of truth (frames of (animals, K, 2)) are there, found, and delivered in their group."""
    counts = np.zeros(3, dtype=int)
    for points, estimate in zip(truth, poses.points, strict=True):
        near = np.linalg.norm(points[:, None] - estimate, axis=-1) < WITHIN
        matched = linear_sum_assignment(-near.sum(axis=2))
        counts += np.isfinite(points[..., 0]).sum(), near.any(axis=1).sum(), near.sum(axis=2)[matched].sum()
    return counts


def milliseconds(function, *arguments, times=15):
    """Median of several calls after the first."""
    function(*arguments)
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        function(*arguments)
        spent.append(1e3 * (time.perf_counter() - start))
    return float(np.median(spent))


seed, frames = int(sys.argv[1]) if len(sys.argv) > 1 else 0, int(sys.argv[2]) if len(sys.argv) > 2 else 12
noise = float(sys.argv[3]) if len(sys.argv) > 3 else 0.1
for animals in (4, 10, 20):
    rng = np.random.default_rng(seed)
    truth, found, spent = [], [], []
    for _ in range(frames):
        truth.append(throw(rng, animals))
        heat, offset, paf = draw(rng, truth[-1], noise)
        peaks = find_peaks(heat, offset, THRESHOLD, LIMIT)
        found.append((*peaks, *score_limbs(paf, LIMBS, *peaks[:2], LEAST_LIMB)))
        spent.append(
            (
                milliseconds(find_peaks, heat, offset, THRESHOLD, LIMIT),
                milliseconds(score_limbs, paf, LIMBS, *peaks[:2], LEAST_LIMB),
            )
        )
    candidates = gathered(found)
    there, seen, grouped = recalled(truth, assemble(candidates))
    times = [*np.median(spent, axis=0), milliseconds(assemble, gathered(found * 10), times=5) / (10 * frames)]
    print(
        f"{animals:2} animals: grouped {grouped / there:.4f}, found {seen / there:.4f} of {there} keypoints | peaks, "
        f"limbs, assembly {times[0]:.3f} + {times[1]:.3f} + {times[2]:.3f} = {sum(times):.3f} ms"
    )
