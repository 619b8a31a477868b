"""What does a network take over from one that was trained before? All but the channels of keypoints that it lacked."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from pose3d.labels import Labels
from pose3d.nn.limbs import choose_limbs
from pose3d.nn.model import PoseNet, output_rows
from pose3d.nn.network import Network, NetworkSpec, make_module

__all__ = ["successor", "taken_over", "transferred"]


def successor(spec: NetworkSpec, labels: Labels, scale: float) -> NetworkSpec:
    """What a network of this spec becomes when it goes on with labels, perhaps of other keypoints: its layers stay, its
    limbs where the keypoints do, and it tells their noise. scale: input px per image px."""
    same = spec.skeleton.keypoints == labels.skeleton.keypoints
    limbs = spec.limbs if same else choose_limbs(labels.points, labels.skeleton)
    return replace(spec, skeleton=labels.skeleton, limbs=limbs, scale=scale, unsure=True)


def transferred(start: Network, spec: NetworkSpec, generator: torch.Generator) -> PoseNet:
    """The module of `start` with the outputs of `spec`, a successor of its own: those of keypoints of the same name and
    of limbs between two such are copied, the others fresh from the generator."""
    module = copy.deepcopy(start.module)
    if replace(start.spec, skeleton=spec.skeleton, scale=spec.scale) == spec and _names(start.spec) == _names(spec):
        return module
    fresh = make_module(spec, generator)
    known, wanted = (output_rows(told.skeleton.keypoints, told.limbs) for told in (start.spec, spec))
    last, old = fresh.head[-1], module.head[-1]
    shared = [(k, _names(start.spec).index(name)) for k, name in enumerate(_names(spec)) if name in _names(start.spec)]
    with torch.no_grad():
        if start.spec.unsure:
            for layer in ("noise.weight", "noise.bias"):
                for k, before in shared:
                    source = old.get_parameter(layer)[3 * before : 3 * before + 3]
                    last.get_parameter(layer)[3 * k : 3 * k + 3] = source
        for what, rows in wanted.items():
            origin, sign = known.get(what), 1.0
            if origin is None and what[0] == "limb":  # its field points the other way
                origin, sign = known.get((what[0], what[2], what[1])), -1.0
            if origin is not None:
                for layer in ("weight", "bias"):
                    last.get_parameter(layer)[rows] = sign * old.get_parameter(layer)[origin]
    module.head[-1] = last
    module.keypoints, module.limbs = fresh.keypoints, fresh.limbs
    return module


def taken_over(old: NetworkSpec, new: NetworkSpec) -> str:
    """What `transferred` copies, in words: "5 of 7 keypoints, 4 of 9 limbs; new: tail, paw"."""
    (before, links), (after, wanted) = ((told.skeleton.keypoints, _linked(told)) for told in (old, new))
    lacking = [name for name in after if name not in before]
    told = f"{len(after) - len(lacking)} of {len(after)} keypoints, {len(links & wanted)} of {len(wanted)} limbs"
    return f"{told}; new: {', '.join(lacking)}" if lacking else told


def _linked(spec: NetworkSpec) -> set[frozenset[str]]:
    """The limbs by the names of their keypoints."""
    names = spec.skeleton.keypoints
    return {frozenset((names[a], names[b])) for a, b in spec.limbs}


def _names(spec: NetworkSpec) -> tuple[str, ...]:
    return spec.skeleton.keypoints
