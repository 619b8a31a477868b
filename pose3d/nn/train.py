"""How does a network learn from labelled frames? Warm start, a schedule, averaged weights, held-out error in pixels."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save

from calibration.errors import InputError
from calibration.files.atomic import write_bytes
from pose3d.labels import Labels, hold_out
from pose3d.nn.coords import cells_from_image, image_from_cells, rescaled
from pose3d.nn.data import Pictures, animal_size, draw_batch, load_pictures, normalised, suitable_scale
from pose3d.nn.limbs import choose_limbs, limb_lengths
from pose3d.nn.losses import pose_loss
from pose3d.nn.memory import is_no_memory
from pose3d.nn.model import PoseNet, fold_norms, load_imagenet
from pose3d.nn.network import Network, NetworkSpec, make_module
from pose3d.nn.options import LEAST_LABELS, TrainOptions
from pose3d.nn.peaks import find_peaks
from pose3d.nn.targets import make_targets
from pose3d.skeleton import symmetry_by_name

__all__ = ["held_out_errors", "train_network"]

Progress = Callable[[str, int, int], None]
Float = NDArray[np.float64]

WARM_UP = 0.05
"""Share of the steps in which the learning rate rises."""
WEIGHT_DECAY = 1e-4
THRESHOLD = 0.05
"""Heat of a peak that counts as found when the held-out error is measured."""
POOR = 0.5
"""Share of the held-out keypoints that a network must find to be of use."""
MISSED = 0.25
"""A missed keypoint counts as far off as this share of the animal's size, and no error counts more."""
SHOWN = 16
"""Held-out frames that are looked at while training; all of them at its end."""
LEAST_PX = 0.01
"""Distances below are rounding: their logarithm would weigh without limit."""
CAUTION = 0.05
"""Ridge of the regression of log distance on doubt, so that little is learnt from few keypoints: the variance of the
logarithm of Rayleigh's distances, 0.64 squared, over that of slopes, of which 3 is usual."""
_SD = 1 / math.sqrt(2 * math.log(2))
"""SD per axis of a 2D Gaussian from its median distance: that follows Rayleigh's distribution."""
STATE = "training.safetensors"
IN_PARTS = "batch computed in parts"
HISTORY = "history: step, loss, mean capped held-out error px"


def train_network(
    labels: Labels,
    folder: Path,
    options: TrainOptions | None = None,
    *,
    start: Network | None = None,
    progress: Progress | None = None,
) -> Network:
    """A network for the keypoints of these labels; the weights are those with the least held-out error.

    start: a network of the same keypoints to go on from; its layers are taken instead of those of the options.
    folder: where the state of an unfinished training lies; the same call goes on from it, to the same bytes on a CPU.
    progress(text, done, total) is told the held-out error. Raises InputError for too few labels.
    """
    options = options or TrainOptions()
    labelled = np.isfinite(labels.points[..., 0]).any(axis=(1, 2))
    if labelled.sum() < LEAST_LABELS:
        raise InputError(
            f"{int(labelled.sum())} labelled frames: expected at least {LEAST_LABELS}; label more (20 to 100 a camera "
            "are a good beginning)"
        )
    pairs = labels.skeleton.symmetry or symmetry_by_name(labels.skeleton.keypoints)
    if options.flip and not pairs:
        raise InputError(
            "flip: expected pairs of keypoints that are each other's mirror image, found none; name them as `symmetry` "
            "under [skeleton], or leave `flip` out under [train]"
        )
    labels = labels.take(np.flatnonzero(labelled))
    training, held = hold_out(labels, options.held_out) if options.held_out else (np.arange(len(labels)), np.arange(0))
    module, spec = _beginning(labels.take(training), options, start)

    def loading(done: int) -> None:
        if progress:
            progress("reading labelled frames", done, len(labels))

    mirrored = replace(labels.skeleton, symmetry=pairs).flip_order()
    pictures = load_pictures(labels, spec.scale, mirrored, loading)
    run = _Training(spec, module, pictures.take(training), pictures.take(held), options, folder)
    run.resume()
    while not run.finished:
        run.advance()
        if progress:
            progress(run.told(), run.step, options.steps)
    network = run.result()
    names = labels.skeleton.keypoints
    told = ", ".join(f"{names[a]}-{names[b]}" for a, b in pairs) if options.flip else "not"
    return replace(network, metrics={**network.metrics, "mirrored": told})


def _beginning(labels: Labels, options: TrainOptions, start: Network | None) -> tuple[PoseNet, NetworkSpec]:
    """The network before its first step: that of `start`, or a fresh one on its pretrained backbone."""
    scale = options.scale or suitable_scale(labels.points, options.animal_px)
    if start is not None:
        if start.spec.skeleton.keypoints != labels.skeleton.keypoints:
            raise InputError(
                f"the network to go on from knows the keypoints {', '.join(start.spec.skeleton.keypoints)}, the labels "
                f"{', '.join(labels.skeleton.keypoints)}; give one of the same keypoints in the same order"
            )
        return copy.deepcopy(start.module), replace(start.spec, scale=scale)
    limbs = choose_limbs(labels.points, labels.skeleton)
    spec = NetworkSpec(options.backbone, options.width, options.channels, labels.skeleton, limbs, scale)
    module = make_module(spec, torch.Generator().manual_seed(options.seed))
    if options.pretrained and options.backbone != "mobilenet_v2":
        load_imagenet(module)
    return module, spec


@dataclass
class _Progress:
    """What a training remembers beside its tensors. parts: in how many each batch is computed, for lack of memory."""

    step: int = 0
    best: float = math.inf
    best_step: int = 0
    history: tuple[tuple[int, float, float | None], ...] = ()
    parts: int = 1


class _Training:
    """The state of a training: step by step, saved after every evaluation."""

    def __init__(
        self,
        spec: NetworkSpec,
        module: Any,
        training: Pictures,
        held: Pictures,
        options: TrainOptions,
        folder: Path,
    ) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.spec, self.options, self.folder = spec, options, folder
        self.training, self.held = training, held
        self.module = module.to(self.device)
        self.average = copy.deepcopy(self.module)
        self.best = copy.deepcopy(self.module)
        self.limbs = torch.tensor(spec.limbs, dtype=torch.long, device=self.device).reshape(-1, 2)
        backbone = list(self.module.backbone.parameters())
        head = [p for name, p in self.module.named_parameters() if not name.startswith("backbone.")]
        rates = [options.learning_rate * options.backbone_rate, options.learning_rate]
        groups = [{"params": p, "lr": r, "rate": r} for p, r in zip((backbone, head), rates, strict=True)]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY)
        self.parameters = [*backbone, *head]
        self.at = _Progress()
        told = hashlib.sha256(repr((spec, options)).encode() + training.points.tobytes() + held.points.tobytes())
        self.fingerprint = told.hexdigest()

    @property
    def step(self) -> int:
        return self.at.step

    @property
    def finished(self) -> bool:
        patience = self.options.patience * self.options.evaluate_every
        return self.at.step >= self.options.steps or (
            len(self.held) > 0 and self.at.step - self.at.best_step >= patience
        )

    def told(self) -> str:
        error = self.at.history[-1][2] if self.at.history else None
        text = "training" if error is None else f"training, held-out error {error:.2f} px"
        return f"{text}, {IN_PARTS}: {self.at.parts}" if self.at.parts > 1 else text

    def advance(self) -> None:
        """One step; an evaluation and a saved state where it is time."""
        options, step = self.options, self.at.step
        share = step / options.steps
        factor = min(1.0, (share + 1 / options.steps) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * share))
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * factor
        images, points = draw_batch(self.training, options, math.radians(options.rotation_deg), step)
        loss = self._gradients(images, cells_from_image(points, 1.0, self.spec.stride))
        torch.nn.utils.clip_grad_norm_(self.parameters, 10.0)
        self.optimizer.step()
        decay = min(options.average, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, value in zip(self.average.state_dict().values(), self.module.state_dict().values(), strict=True):
                if mean.is_floating_point():
                    mean.lerp_(value, 1 - decay)
                else:
                    mean.copy_(value)
        self.at.step += 1
        if self.at.step % options.evaluate_every == 0 or self.at.step == options.steps:
            self._evaluate(float(loss))
            self._save()

    def _gradients(self, images: NDArray[np.float32], cells: Float) -> torch.Tensor:
        """The loss of a batch, whose gradients are left in the parameters; where the memory does not suffice, the mean
        over 2, 4, ... parts of the batch, from then on. Batch norm sees each part alone."""
        self.module.train()
        before = [value.clone() for value in self.module.buffers()]
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            try:
                parts = np.array_split(np.arange(len(images)), self.at.parts)
                return torch.stack([self._part(images[r], cells[r], len(r) / len(images)) for r in parts]).sum()
            except (MemoryError, RuntimeError) as error:
                if not is_no_memory(error):
                    raise
                if self.at.parts >= len(images):
                    raise InputError(
                        f"the memory does not suffice to train on a single crop of {self.options.crop} px; free some, "
                        "or choose a smaller `crop` or `animal_px` under [train]"
                    ) from None
            self.at.parts = min(2 * self.at.parts, len(images))
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            for value, old in zip(self.module.buffers(), before, strict=True):
                value.copy_(old)

    def _part(self, images: NDArray[np.float32], cells: Float, share: float) -> torch.Tensor:
        """The loss of a part of a batch times its share, the gradients added to what the parameters have."""
        x = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        side = self.options.crop // self.spec.stride
        points = torch.from_numpy(cells).float().to(self.device)
        targets = make_targets(points, self.limbs, (side, side), self.options.unlabelled)
        loss = pose_loss(self.module(x), targets) * share
        loss.backward()
        return loss.detach()

    def _evaluate(self, loss: float) -> None:
        rows = np.unique(np.linspace(0, len(self.held) - 1, min(SHOWN, len(self.held))).astype(int))
        errors, _ = held_out_errors(self.average, self.held.take(rows), self.spec)
        known = errors[~np.isnan(errors)]
        error = float(np.minimum(known, self._limit()).mean()) if known.size else None
        self.at.history += ((self.at.step, loss, error),)
        if error is None or error < self.at.best:
            self.at.best, self.at.best_step = math.inf if error is None else error, self.at.step
            self.best.load_state_dict(self.average.state_dict())

    def _limit(self) -> float:
        """px, as far as which a keypoint that was missed counts in the mean."""
        size = animal_size(self.training.points)
        return MISSED * (size if size > 0 else self.options.animal_px) / self.spec.scale

    def result(self) -> Network:
        module = copy.deepcopy(self.best).cpu().eval()
        errors, scores = held_out_errors(module, self.held, self.spec)
        sigma, doubt = _noise(errors, scores)
        known = errors[~np.isnan(errors)]
        metrics: dict[str, Any] = {
            "training frames": len(self.training),
            "held-out frames": len(self.held),
            "steps": self.at.step,
            "best step": self.at.best_step,
            "scale": self.spec.scale,
            "held-out error, px, median": _quantile(known, 50),
            "95th percentile": _quantile(known, 95),
            "held-out keypoints found, %": 100 * float(np.isfinite(known).mean()) if known.size else None,
            HISTORY: [list(row) for row in self.at.history],
            "cap, px": self._limit(),
        }
        if known.size and np.isfinite(known).mean() < POOR:
            metrics["warning"] = "more than half of the held-out keypoints are not found: train longer, or label more"
        if self.at.parts > 1:
            metrics[IN_PARTS] = self.at.parts
        lengths = limb_lengths(self.training.points / self.spec.scale, self.spec.limbs)
        return Network(self.spec, module, sigma, doubt, metrics, lengths)

    def _tensors(self) -> dict[str, torch.Tensor]:
        named = {"module": self.module, "average": self.average, "best": self.best}
        tensors = {f"{who}.{name}": value for who, net in named.items() for name, value in net.state_dict().items()}
        for i, parameter in enumerate(self.parameters):
            for name, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{i}.{name}"] = value
        return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}

    def _save(self) -> None:
        told = {"progress": json.dumps(asdict(self.at)), "fingerprint": self.fingerprint}
        write_bytes(self.folder / STATE, save(self._tensors(), metadata=told))

    def resume(self) -> None:
        """Go on from the state in the folder, if there is one of the same labels and options."""
        path = self.folder / STATE
        if not path.is_file():
            return
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        if metadata.get("fingerprint") != self.fingerprint:
            return
        told = json.loads(metadata["progress"])
        self.at = _Progress(**told | {"history": tuple(tuple(row) for row in told["history"])})
        stored = load_file(path)
        for who, net in {"module": self.module, "average": self.average, "best": self.best}.items():
            net.load_state_dict({n: stored[f"{who}.{n}"] for n in net.state_dict()})
        for i, parameter in enumerate(self.parameters):
            own = {n.rpartition(".")[2]: v for n, v in stored.items() if n.startswith(f"optimizer.{i}.")}
            self.optimizer.state[parameter] = {n: v if n == "step" else v.to(self.device) for n, v in own.items()}


def _quantile(errors: Float, percent: float) -> float | None:
    """None where there are no errors or it is infinite, which JSON does not know."""
    value = float(np.percentile(errors, percent, method="higher")) if errors.size else math.inf
    return value if math.isfinite(value) else None


def _noise(errors: Float, scores: Float) -> tuple[Float, float]:
    """sigma_px (keypoints,) and doubt of `Network`, from distances and scores (n, individuals, keypoints).

    doubt: the slope of the logarithm of the distance against 1 - score, the same for all keypoints, by ridge regression
    over what was found, never negative. sigma_px: from the medians of what is left, with what was missed infinitely
    far; NaN where that is more than half of them.
    """
    found = np.isfinite(errors)
    log = np.log(np.where(found, np.maximum(errors, LEAST_PX), 1.0))
    doubts = np.where(found, 1 - scores, 0.0)
    count = np.maximum(found.sum(axis=(0, 1)), 1)
    away, apart = (np.where(found, a - a.sum(axis=(0, 1)) / count, 0.0) for a in (doubts, log))
    doubt = max(0.0, float((away * apart).sum()) / (float((away**2).sum()) + CAUTION))
    sigma = np.full(errors.shape[2], np.nan)
    for k, left in enumerate(np.moveaxis(errors / np.exp(doubt * doubts), 2, 0)):
        known = left[~np.isnan(left)]
        median = np.median(known) if known.size else np.inf
        sigma[k] = _SD * median if np.isfinite(median) else np.nan
    return sigma, doubt


def held_out_errors(module: Any, pictures: Pictures, spec: NetworkSpec) -> tuple[Float, Float]:
    """(n, individuals, keypoints) distance in image px from each labelled keypoint to the nearest peak of its kind, of
    as many peaks as there are animals, and that peak's score; infinite and 0 where none was found, NaN where nothing is
    labelled."""
    device = next(module.parameters()).device
    module = fold_norms(module.eval())
    errors, scores = np.full((2, *pictures.points.shape[:3]), np.nan)
    for row, image in enumerate(pictures.images):
        x = torch.from_numpy(normalised(image))[None].to(device).permute(0, 3, 1, 2)
        with torch.inference_mode():
            heat, offset, _ = module.maps(x.contiguous(memory_format=torch.channels_last))
        truth = pictures.points[row]
        animals = int(np.isfinite(truth[..., 0]).any(axis=1).sum())
        kind, cell, score = find_peaks(heat[0].cpu().numpy(), offset[0].cpu().numpy(), THRESHOLD, animals)
        xy = image_from_cells(cell, spec.scale, spec.stride)
        apart = np.linalg.norm(rescaled(truth, 1 / spec.scale)[:, :, None] - xy, axis=-1)
        apart[:, np.arange(truth.shape[1])[:, None] != kind] = np.inf
        labelled = ~np.isnan(truth[..., 0])
        errors[row] = np.where(labelled, apart.min(axis=-1, initial=np.inf), np.nan)
        best = score[apart.argmin(axis=-1)] if len(score) else np.zeros(labelled.shape)
        scores[row] = np.where(labelled, np.where(np.isinf(errors[row]), 0.0, np.clip(best, 0.0, 1.0)), np.nan)
    return errors, scores
