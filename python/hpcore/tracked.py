"""Tracked state: what a newcomer must receive and a discarded step gives back. One thread."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hpcore.errors import InvalidArgument
from hpcore.layout import TensorSpec, check_tensor
from hpcore.parts import ModuleBuffers, Part, parts_of
from hpcore.plain import Collector
from hpcore.sharding import is_dtensor, mesh_key, part_held


@dataclass
class Capture:
    """Trees of some parts and the tensors they stand for.

    `tensors` lie in this rank's memory; `wholes` are the same, but for DTensors, whose local parts
    are in `tensors`.
    """

    trees: list[Any]
    names: list[str]
    tensors: list[Tensor]
    wholes: list[Tensor]

    def by_name(self) -> dict[str, Tensor]:
        """name -> tensor in memory."""
        return dict(zip(self.names, self.tensors, strict=True))

    def wholes_by_name(self) -> dict[str, Tensor]:
        """name -> tensor as its holder has it."""
        return dict(zip(self.names, self.wholes, strict=True))

    def specs(self) -> list[TensorSpec]:
        """How each tensor lies here."""
        return [TensorSpec.of(n, w) for n, w in zip(self.names, self.wholes, strict=True)]


def capture(parts: Sequence[Part]) -> Capture:
    """Takes parts apart."""
    into = Collector()
    trees = [part.capture(into) for part in parts]
    return Capture(trees, into.names, into.tensors, into.wholes)


@dataclass
class TrackedState:
    """All that was given to `Job.replicate` and `Job.track`."""

    settled: list[Part] = field(default_factory=list)
    fluid: list[Part] = field(default_factory=list)
    buffers: list[ModuleBuffers] = field(default_factory=list)
    layout: list[tuple[str, str]] = field(default_factory=list)
    """(name, description) of what must be equal on all ranks from the start."""
    sharded: list[tuple[str, Any]] = field(default_factory=list)
    """(name, DTensor) of what there is from the start: what decides which ranks are replicas."""
    _objects: dict[str, Any] = field(default_factory=dict)

    def has(self, holder: Any) -> bool:
        """Whether exactly this object is tracked."""
        return any(known is holder for known in self._objects.values())

    def add(self, name: str, holder: Any) -> None:
        """Tracks one object.

        Raises InvalidArgument for a name that is taken, Unsupported for what cannot be restored.
        """
        if self.has(holder):
            return
        if name in self._objects:
            raise InvalidArgument(f"the name {name!r} is taken by another tracked object")
        settled, fluid = parts_of(name, holder)
        captured = capture([*settled, *fluid])
        for key, tensor in zip(captured.names, captured.wholes, strict=True):
            check_tensor(key, tensor)
            if is_dtensor(tensor) and not isinstance(holder, torch.optim.Optimizer):
                self.sharded.append((key, tensor))
        self._objects[name] = holder
        self.settled += settled
        self.fluid += fluid
        self.buffers += [part for part in fluid if isinstance(part, ModuleBuffers)]
        self.layout += _layout_of(name, holder, captured)

    def digest(self) -> bytes:
        """16 bytes, equal on ranks whose layouts are equal."""
        lines = "\n".join(f"{name} {text}" for name, text in self.layout)
        return hashlib.blake2b(lines.encode(), digest_size=16).digest()

    def part(self) -> str:
        """Which part of the sharded state this rank holds: equal on ranks that are replicas."""
        parts = "\n".join(f"{name} {part_held(tensor)}" for name, tensor in self.sharded)
        return hashlib.blake2b(parts.encode(), digest_size=8).hexdigest() if parts else ""

    def meshes(self) -> dict[str, Any]:
        """The meshes that tracked tensors are sharded over, by key."""
        return {mesh_key(t.device_mesh): t.device_mesh for _, t in self.sharded}


def _layout_of(name: str, holder: Any, captured: Capture) -> list[tuple[str, str]]:
    lines = [(name, getattr(holder, "layout_text", type(holder).__qualname__))]
    if isinstance(holder, torch.optim.Optimizer):
        groups = [len(group["params"]) for group in holder.param_groups]
        return [(name, f"{type(holder).__qualname__} over {groups} parameters")]
    if isinstance(holder, nn.Module | Tensor):
        lines += [(spec.name, str(spec)) for spec in captured.specs()]
    return lines
