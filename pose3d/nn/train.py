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
from pose3d.labels import Labels
from pose3d.nn.beginning import hold_share, prepare
from pose3d.nn.coords import cells_from_image, image_from_cells, rescaled
from pose3d.nn.data import Pictures, animal_size, draw_batch, normalised
from pose3d.nn.limbs import limb_lengths
from pose3d.nn.losses import pose_loss
from pose3d.nn.memory import is_no_memory
from pose3d.nn.model import PoseNet, fold_norms
from pose3d.nn.network import Network, NetworkSpec
from pose3d.nn.noise import calibrate_noise, stated_covariance
from pose3d.nn.options import TrainOptions
from pose3d.nn.peaks import find_peaks
from pose3d.nn.pruning import discrimination, limbs_that_tell, without_limbs
from pose3d.nn.targets import make_targets

__all__ = ["Training", "held_out_errors", "train_network"]

Progress = Callable[[str, int, int], None]
Float = NDArray[np.float64]

WARM_UP = 0.05
"""Share of the steps in which the learning rate rises."""
WEIGHT_DECAY = 1e-4
THRESHOLD = 0.05
"""Heat of a peak that counts as found when the held-out error is measured."""
CLEAR = 2.0
"""Standard errors by which an evaluation must be worse for earlier weights to be kept."""
POOR = 0.5
"""Share of the held-out keypoints that a network must find to be of use."""
MISSED = 0.25
"""A missed keypoint counts as far off as this share of the animal's size, and no error counts more."""
SHOWN = 16
"""Held-out frames that are looked at while training; all of them at its end."""
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
    """A network for the keypoints of these labels; its weights are the last that held-out frames find no worse than the
    best.

    start: a network to go on from, instead of `options.start`; its layers are taken instead of those of the options,
    with its outputs for keypoints of the same names (see `transferred`).
    folder: where the state of an unfinished training lies; the same call goes on from it, to the same bytes on a CPU.
    progress(text, done, total) is told the held-out error. Raises InputError for too few labels.
    """
    ready = prepare(labels, options, start, hold_share, progress)
    run = Training(ready.spec, ready.module, ready.training, ready.held, ready.options, folder)
    run.finish(progress)
    network = run.result()
    return replace(network, metrics={**network.metrics, **ready.told})


@dataclass
class _Progress:
    """What a training remembers beside its tensors. least: held-out error of each frame that is looked at, px, where
    their mean was least; best_step: whose weights are kept. parts: in how many each batch is computed, for lack of
    memory."""

    step: int = 0
    least: tuple[float, ...] = ()
    best_step: int = 0
    history: tuple[tuple[int, float, float | None], ...] = ()
    parts: int = 1


class Training:
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
        known = {id(p) for p in backbone}
        head = [p for p in self.module.parameters() if id(p) not in known]
        rates = [options.learning_rate * options.backbone_rate, options.learning_rate]
        groups = [{"params": p, "lr": r, "rate": r} for p, r in zip((backbone, head), rates, strict=True)]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY, fused=True)
        self.parameters = [*backbone, *head]
        self.at = _Progress()
        told = hashlib.sha256(repr((spec, options)).encode() + training.points.tobytes() + held.points.tobytes())
        for value in self.module.state_dict().values():
            told.update(value.cpu().numpy().tobytes())
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

    def finish(self, progress: Progress | None) -> None:
        """All that is left to do, from where the state in the folder says."""
        self.resume()
        while not self.finished:
            self.advance()
            if progress:
                progress(self.told(), self.step, self.options.steps)

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
        images, points = self._draw(math.radians(options.rotation_deg))
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

    def _draw(self, rotation: float) -> tuple[NDArray[np.float32], Float]:
        return draw_batch(self.training, self.options, rotation, self.at.step)

    def _maps(self, x: torch.Tensor, rows: NDArray[np.integer]) -> Any:
        """What the network makes of these rows of the step's batch."""
        return self.module(x)

    def _gradients(self, images: NDArray[np.float32], cells: Float) -> torch.Tensor:
        """The loss of a batch, whose gradients are left in the parameters; where the memory does not suffice, the mean
        over 2, 4, ... parts of the batch, from then on. Batch norm sees each part alone."""
        self.module.train()
        before = [value.clone() for value in self.module.buffers()]
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            try:
                parts = np.array_split(np.arange(len(images)), self.at.parts)
                return torch.stack([self._part(images, cells, rows) for rows in parts]).sum()
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

    def _part(self, images: NDArray[np.float32], cells: Float, rows: NDArray[np.integer]) -> torch.Tensor:
        """The loss of these rows of a batch times their share, the gradients added to what the parameters have."""
        x = torch.from_numpy(images[rows]).to(self.device).permute(0, 3, 1, 2)
        x = x.contiguous(memory_format=torch.channels_last)
        side = self.options.crop // self.spec.stride
        points = torch.from_numpy(cells[rows]).float().to(self.device)
        targets = make_targets(points, self.limbs, (side, side), self.options.unlabelled)
        loss = pose_loss(self._maps(x, rows), targets) * (len(rows) / len(images))
        loss.backward()
        return loss.detach()

    def _evaluate(self, loss: float) -> None:
        rows = np.unique(np.linspace(0, len(self.held) - 1, min(SHOWN, len(self.held))).astype(int))
        errors = np.minimum(self._held_errors(rows), self._limit())
        known = ~np.isnan(errors)
        self.at.history += ((self.at.step, loss, float(errors[known].mean()) if known.any() else None),)
        seen = known.any(axis=(1, 2))
        each = np.nanmean(errors[seen], axis=(1, 2))
        if _no_worse(each, np.array(self.at.least)):
            self.at.best_step = self.at.step
            self.best.load_state_dict(self.average.state_dict())
        if not self.at.least or each.mean() < np.mean(self.at.least):
            self.at.least = tuple(each.tolist())

    def _held_errors(self, rows: NDArray[np.integer]) -> Float:
        return held_out_errors(self.average, self.held.take(rows), self.spec)[0]

    def _limit(self) -> float:
        """px, as far as which a keypoint that was missed counts in the mean."""
        size = animal_size(self.training.points)
        return MISSED * (size if size > 0 else self.options.animal_px) / self.spec.scale

    def result(self) -> Network:
        return self.measured(copy.deepcopy(self.best).cpu().eval(), self.training, self.held)

    def measured(self, module: PoseNet, training: Pictures, held: Pictures) -> Network:
        """The network of this module, on the CPU, with what it leaves undone of the pictures that were held out."""
        errors, scores, relative = held_out_errors(module, held, self.spec)
        sigma, doubt = calibrate_noise(relative, scores)
        known = errors[~np.isnan(errors)]
        metrics: dict[str, Any] = {
            "training frames": len(training),
            "held-out frames": len(held),
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
        won, count = discrimination(module, held, self.spec)
        kept = limbs_that_tell(won, count, self.spec.limbs)
        if len(kept) < len(won):
            names = self.spec.skeleton.keypoints
            left = [f"{names[a]}-{names[b]}" for i, (a, b) in enumerate(self.spec.limbs) if i not in kept]
            metrics["limbs left out, which do not tell animals apart"] = ", ".join(left)
        module, spec = without_limbs(module, self.spec, kept)
        return Network(spec, module, sigma, doubt, metrics, limb_lengths(training.points / spec.scale, spec.limbs))

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
        self.at = _Progress(**told | {"history": tuple(map(tuple, told["history"])), "least": tuple(told["least"])})
        stored = load_file(path)
        for who, net in {"module": self.module, "average": self.average, "best": self.best}.items():
            net.load_state_dict({n: stored[f"{who}.{n}"] for n in net.state_dict()})
        for i, parameter in enumerate(self.parameters):
            own = {n.rpartition(".")[2]: v for n, v in stored.items() if n.startswith(f"optimizer.{i}.")}
            self.optimizer.state[parameter] = {  # laid out in memory like the parameter, which "fused" takes on trust
                n: v.to(self.device) if n == "step" else torch.empty_like(parameter).copy_(v) for n, v in own.items()
            }


def _no_worse(errors: Float, least: Float) -> bool:
    """Whether errors (frames,) are not clearly greater in the mean than the least so far, by CLEAR standard errors of
    their difference: of weights that held-out frames cannot tell apart the later ones are better, because the learning
    rate has fallen (as the rule of one standard error of Breiman et al. 1984; few frames are held out)."""
    if not len(least):
        return True
    apart = errors - least
    chance = apart.std(ddof=1) / math.sqrt(len(apart)) if len(apart) > 1 else 0.0
    return bool(apart.mean() < CLEAR * chance) or bool(apart.mean() < 0)


def _quantile(errors: Float, percent: float) -> float | None:
    """None where there are no errors or it is infinite, which JSON does not know."""
    value = float(np.percentile(errors, percent, method="higher")) if errors.size else math.inf
    return value if math.isfinite(value) else None


def held_out_errors(module: Any, pictures: Pictures, spec: NetworkSpec) -> tuple[Float, Float, Float]:
    """(n, individuals, keypoints) distance in image px from each labelled keypoint to the nearest peak of its kind, of
    as many peaks as there are animals, that peak's score, and the distance in units of what the network states there
    (px where it states nothing); infinite, 0 and infinite where none was found, NaN where nothing is labelled."""
    device = next(module.parameters()).device
    module = fold_norms(module.eval())
    errors, scores, relative = np.full((3, *pictures.points.shape[:3]), np.nan)
    for row, image in enumerate(pictures.images):
        x = torch.from_numpy(normalised(image))[None].to(device).permute(0, 3, 1, 2)
        with torch.inference_mode():
            maps = module.maps(x.contiguous(memory_format=torch.channels_last))
        heat, offset, _, noise = (m[0].cpu().numpy() for m in maps)
        truth = pictures.points[row]
        animals = int(np.isfinite(truth[..., 0]).any(axis=1).sum())
        kind, cell, score = find_peaks(heat, offset, THRESHOLD, animals)
        xy = image_from_cells(cell, spec.scale, spec.stride)
        away = rescaled(truth, 1 / spec.scale)[:, :, None] - xy
        apart = np.linalg.norm(away, axis=-1)
        apart[:, np.arange(truth.shape[1])[:, None] != kind] = np.inf
        labelled = ~np.isnan(truth[..., 0])
        errors[row] = np.where(labelled, apart.min(axis=-1, initial=np.inf), np.nan)
        found = np.isfinite(errors[row])
        scores[row] = np.where(labelled, 0.0, np.nan)
        relative[row] = errors[row]
        if len(score):
            best = apart.argmin(axis=-1)
            scores[row][found] = np.clip(score[best], 0.0, 1.0)[found]
            unit = spec.stride / spec.scale if spec.unsure else 1.0
            precision = np.linalg.inv(stated_covariance(noise, kind, cell))[best] / unit**2
            nearest = np.take_along_axis(away, best[..., None, None], axis=2)[:, :, 0]
            squared = np.einsum("nki,nkij,nkj->nk", nearest, precision, nearest)
            relative[row][found] = np.sqrt(squared)[found]
    return errors, scores, relative
