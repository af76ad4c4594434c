"""A small FSDP2 or HSDP training, its steps abortable at chosen places: shared by tests."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor


class Trap:
    """Calls an action once, the `count`-th time its place is passed."""

    def __init__(self) -> None:
        self.place = ""
        self.count = 0
        self.action: Callable[[], None] = lambda: None

    def set(self, place: str, count: int, action: Callable[[], None]) -> None:
        self.place, self.count, self.action = place, count, action

    def passed(self, place: str) -> None:
        if place == self.place:
            self.count -= 1
            if self.count == 0:
                self.place = ""
                self.action()


class Block(nn.Module):
    """A residual block whose forward and backward pass a trap."""

    def __init__(self, width: int, trap: Trap) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, 29), nn.Linear(29, width)
        self.trap = trap

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        self.trap.passed("forward")
        hidden = torch.tanh(self.first(values))
        if hidden.requires_grad:
            hidden.register_hook(lambda _: self.trap.passed("backward"))
        return values + self.second(hidden)


class Training:
    """Model, mesh and optimizer of one rank; `replicas` > 1: HSDP."""

    def __init__(self, world_size: int, replicas: int, prefetch: bool = True) -> None:
        shape = (replicas, world_size // replicas)
        names = ("replicate", "shard")
        mesh = (
            init_device_mesh("cpu", shape, mesh_dim_names=names)
            if replicas > 1
            else init_device_mesh("cpu", (world_size,), mesh_dim_names=("shard",))
        )
        self.trap = Trap()
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Linear(7, 13), *(Block(13, self.trap) for _ in range(3)), nn.Linear(13, 3)
        )
        blocks = [module for module in self.model if isinstance(module, Block)]
        for block in blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(self.model, mesh=mesh)
        if prefetch:
            for one, after in itertools.pairwise(blocks):
                one.set_modules_to_forward_prefetch([after])
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)

    def step(self, number: int, rank: int) -> float:
        """Two micro-batches, then the optimizer."""
        self.optimizer.zero_grad()
        total = 0.0
        for half in range(2):
            generator = torch.Generator().manual_seed(1000 * number + 10 * rank + half)
            data = torch.randn(8, 7, generator=generator)
            loss = self.model(data).square().mean()
            loss.backward()
            total += loss.item()
        self.optimizer.step()
        return total

    def digest(self) -> str:
        """Of this rank's shards and optimizer state."""
        total = hashlib.sha256()
        states: list[Any] = list(self.model.parameters())
        for parameter in self.model.parameters():
            states += [v for _, v in sorted(self.optimizer.state[parameter].items())]
        for tensor in states:
            local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
            total.update(local.detach().reshape(-1).contiguous().numpy().tobytes())
        return total.hexdigest()
