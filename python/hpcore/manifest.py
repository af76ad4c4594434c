"""The manifest: what a rank's state is made of, in plain values, and state made equal to one.

It holds the trees of settled and fluid parts, and of each tensor name, dtype, shape and strides of
the local part, and what it is a part of. One thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from hpcore.layout import TensorSpec
from hpcore.sharding import Sharding, local_of
from hpcore.tracked import Capture, TrackedState, capture

T = TypeVar("T")


def manifest_of(settled: Capture, fluid: Capture) -> dict[str, Any]:
    """Of a rank's state."""
    return {"settled": _describe(settled), "fluid": _describe(fluid)}


def _describe(captured: Capture) -> dict[str, Any]:
    return {
        "trees": captured.trees,
        "specs": [
            [s.name, s.dtype, list(s.shape), list(s.stride), s.sharding] for s in captured.specs()
        ],
    }


def install(
    state: TrackedState,
    manifest: dict[str, Any],
    fill: Callable[[list[Tensor]], T],
    wholes: bool = False,
) -> T:
    """Makes the live state what a manifest says; returns what `fill` does.

    `fill` gets the local tensors (`wholes`: the tensors themselves, DTensors among them) in the
    manifest's order and writes their content; nothing else has been changed if it raises.
    """
    plans = [(state.settled, manifest["settled"]), (state.fluid, manifest["fluid"])]
    meshes = state.meshes()
    targets = [targets_of(capture(parts), part["specs"], meshes) for parts, part in plans]
    with torch.no_grad():
        flat = [tensor for tensors in targets for tensor in tensors]
        filled = fill(flat if wholes else [local_of(tensor) for tensor in flat])
        for (parts, part), tensors in zip(plans, targets, strict=True):
            for one, tree in zip(parts, part["trees"], strict=True):
                one.restore(tree, tensors)
    return filled


def targets_of(own: Capture, specs: list[list[Any]], meshes: Mapping[str, Any]) -> list[Tensor]:
    """Memory for what comes: this rank's own tensors where they fit, new ones elsewhere."""
    known = own.wholes_by_name()
    found: list[Tensor] = []
    for name, dtype, shape, stride, sharding in specs:
        spec = TensorSpec(name, dtype, tuple(shape), tuple(stride), sharding)
        tensor = known.get(name)
        if tensor is None or not spec.fits(tensor):
            tensor = spec.make()
            if sharding:
                tensor = Sharding.parse(sharding).wrap(name, tensor, meshes)
        found.append(tensor)
    return found
