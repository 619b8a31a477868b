"""How do cameras share a backbone? One network learns from the frames of all; its head is there once a camera."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calibration.errors import InputError
from pose3d.labels import Labels
from pose3d.nn.beginning import Prepared, Progress, Rows, hold_share, prepare
from pose3d.nn.data import draw_batch, shuffled
from pose3d.nn.model import Maps, PoseNet
from pose3d.nn.network import Network
from pose3d.nn.options import LEAST_LABELS, TrainOptions
from pose3d.nn.train import Training, held_out_errors

__all__ = ["CameraNets", "CameraTraining", "hold_each", "train_cameras"]


def train_cameras(
    labels: Labels,
    folder: Path,
    options: TrainOptions | None = None,
    *,
    start: Network | None = None,
    progress: Progress | None = None,
) -> dict[str, Network]:
    """{camera: its network}, in the order of the labels: all but the head is the same in all of them.

    The scale of the input is common, too; a network's noise, metrics and lengths of limbs are those of its camera's own
    frames, but "history" and what it stops by are means over all cameras. Else as `train_network`. Raises InputError
    for a camera of too few labelled frames.
    """
    cameras = tuple(dict.fromkeys(labels.camera))
    labelled = np.isfinite(labels.points[..., 0]).any(axis=(1, 2))
    for name in cameras:
        count = np.count_nonzero(labelled & (np.array(labels.camera) == name))
        if count < LEAST_LABELS:
            raise InputError(
                f"camera '{name}': {count} labelled frames: expected at least {LEAST_LABELS} of each camera; label "
                'more, or train one network for all (`networks = "shared"` under [train])'
            )
    ready = prepare(labels, options, start, hold_each, progress)
    run = CameraTraining(ready, cameras, folder)
    run.finish(progress)
    networks = run.results()
    return {name: replace(net, metrics={**net.metrics, **ready.told}) for name, net in networks.items()}


class CameraNets(nn.Module):
    """`net` with a head for each camera, which all begin as its own.

    Images (n, 3, h, w) and cameras (n,) to the maps of `PoseNet`, each image's by its camera's head, whose batch norm
    sees that camera's images alone: as in prediction."""

    def __init__(self, net: PoseNet, cameras: int) -> None:
        super().__init__()
        self.net = copy.deepcopy(net)
        self.net.head = nn.Sequential()
        self.heads = nn.ModuleList(copy.deepcopy(net.head) for _ in range(cameras))

    @property
    def backbone(self) -> nn.Module:
        return self.net.backbone

    def forward(self, images: Tensor, cameras: Tensor) -> Maps:
        x = self.net.trunk(images)
        rows = [torch.nonzero(cameras == camera)[:, 0] for camera in range(len(self.heads))]
        parts = [head(x[own]) for head, own in zip(self.heads, rows, strict=True) if len(own)]
        return self.net.parted(torch.cat(parts)[torch.argsort(torch.cat(rows))])

    def of(self, camera: int) -> PoseNet:
        """This camera's network, a copy."""
        net = copy.deepcopy(self.net)
        net.head = copy.deepcopy(self.heads[camera])  # type: ignore[assignment]
        return net


class CameraTraining(Training):
    """The training of `CameraNets`. The crops of a batch, and of all batches after each other, are of the cameras in
    turn, however many labels each has: the backbone sees mixed batches, and every head learns equally often. They come
    in pairs, because a head's batch norm says little of a single crop; where there are more cameras than pairs in a
    batch, the others wait for the next, and stay as they are."""

    def __init__(self, ready: Prepared, cameras: tuple[str, ...], folder: Path) -> None:
        module = CameraNets(ready.module, len(cameras)).eval()
        super().__init__(ready.spec, module, ready.training, ready.held, ready.options, folder)
        self.cameras = cameras
        self.of_training, self.of_held = (
            np.array([cameras.index(ready.labels.camera[row]) for row in rows], np.intp) for rows in ready.rows
        )
        told = (self.fingerprint, cameras, self.of_training.tolist(), self.of_held.tolist())
        self.fingerprint = hashlib.sha256(repr(told).encode()).hexdigest()

    def results(self) -> dict[str, Network]:
        best = copy.deepcopy(self.best).cpu().eval()
        networks = {}
        for number, name in enumerate(self.cameras):
            training, held = (np.flatnonzero(of == number) for of in (self.of_training, self.of_held))
            networks[name] = self.measured(best.of(number), self.training.take(training), self.held.take(held))
        return networks

    def _turn(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """(batch,) whose turn it is, and the number of the crop among all of that camera's, counted from 0."""
        pair, second = np.divmod(
            np.arange(self.at.step * self.options.batch, (self.at.step + 1) * self.options.batch), 2
        )
        turn, camera = np.divmod(pair, len(self.cameras))
        return camera, 2 * turn + second

    def _rows(self) -> NDArray[np.intp]:
        """(batch,) of the training pictures: of the cameras in turn, every frame once in an epoch of its camera's."""
        cameras, numbers = self._turn()
        rows = np.zeros(len(cameras), np.intp)
        for camera in np.unique(cameras).tolist():
            own = np.flatnonzero(self.of_training == camera)
            drawn = shuffled(len(own), numbers[cameras == camera], [self.options.seed, 1, camera])
            rows[cameras == camera] = own[drawn]
        return rows

    def _draw(self, rotation: float) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        return draw_batch(self.training, self.options, rotation, self.at.step, self._rows())

    def _maps(self, x: Tensor, rows: NDArray[np.integer]) -> Any:
        return self.module(x, torch.from_numpy(self._turn()[0][rows]).to(x.device))

    def _held_errors(self, rows: NDArray[np.integer]) -> NDArray[np.float64]:
        errors = np.full((len(rows), *self.held.points.shape[1:3]), np.nan)
        for camera in np.unique(self.of_held[rows]).tolist():
            own = self.of_held[rows] == camera
            errors[own] = held_out_errors(self.average.of(camera), self.held.take(rows[own]), self.spec)[0]
        return errors


def hold_each(labels: Labels, share: float) -> tuple[Rows, Rows]:
    """As each camera's frames alone would be held out, rows ascending."""
    parts = []
    for name in dict.fromkeys(labels.camera):
        own = np.flatnonzero(np.array(labels.camera) == name)
        parts.append(tuple(own[rows] for rows in hold_share(labels.take(own), share)))
    training, held = (np.sort(np.concatenate(rows)) for rows in zip(*parts, strict=True))
    return training, held
