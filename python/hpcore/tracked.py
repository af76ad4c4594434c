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


@dataclass
class Capture:
    """Trees of some parts and the tensors they stand for."""

    trees: list[Any]
    names: list[str]
    tensors: list[Tensor]

    def by_name(self) -> dict[str, Tensor]:
        """name -> tensor."""
        return dict(zip(self.names, self.tensors, strict=True))


def capture(parts: Sequence[Part]) -> Capture:
    """Takes parts apart."""
    into = Collector()
    trees = [part.capture(into) for part in parts]
    return Capture(trees, into.names, into.tensors)


@dataclass
class TrackedState:
    """All that was given to `Job.replicate` and `Job.track`."""

    settled: list[Part] = field(default_factory=list)
    fluid: list[Part] = field(default_factory=list)
    buffers: list[ModuleBuffers] = field(default_factory=list)
    layout: list[tuple[str, str]] = field(default_factory=list)
    """(name, description) of what must be equal on all ranks from the start."""
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
        for key, tensor in zip(captured.names, captured.tensors, strict=True):
            check_tensor(key, tensor)
        self._objects[name] = holder
        self.settled += settled
        self.fluid += fluid
        self.buffers += [part for part in fluid if isinstance(part, ModuleBuffers)]
        self.layout += _layout_of(name, holder, captured)

    def digest(self) -> bytes:
        """16 bytes, equal on ranks whose layouts are equal."""
        lines = "\n".join(f"{name} {text}" for name, text in self.layout)
        return hashlib.blake2b(lines.encode(), digest_size=16).digest()


def _layout_of(name: str, holder: Any, captured: Capture) -> list[tuple[str, str]]:
    lines = [(name, type(holder).__qualname__)]
    if isinstance(holder, torch.optim.Optimizer):
        groups = [len(group["params"]) for group in holder.param_groups]
        return [(name, f"{type(holder).__qualname__} over {groups} parameters")]
    if isinstance(holder, nn.Module | Tensor):
        lines += [
            (key, str(TensorSpec.of(key, tensor)))
            for key, tensor in zip(captured.names, captured.tensors, strict=True)
        ]
    return lines
