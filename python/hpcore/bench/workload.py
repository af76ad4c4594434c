"""What every contender of `bench recovery` trains: a small model whose state is filled up to a
given size.

A 4-layer network of 0.8 M parameters is really trained with AdamW; the rest of the state is frozen
tensors of at most 64 MiB. Each step changes one of them in part, so that two replicas agree only if
the state was truly carried over, while the step itself costs little: what is measured is recovery,
not arithmetic. Imports torch and nothing of hpcore, so that the drivers in bench/peers load this
very file into an environment without hpcore.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

WIDTH = 448
LAYERS = 4
BATCH = 32
TENSOR_BYTES = 64 << 20
TOUCHED_BYTES = 1 << 20


class Filled(nn.Module):
    """A trained network plus frozen tensors, `state_mib` MiB in all (parameters and AdamW's two
    moments).

    With `state_mib` 0 there is as good as no state: a network of width 16, 13 KiB with its moments.
    """

    def __init__(self, state_mib: int) -> None:
        super().__init__()
        self.width = WIDTH if state_mib else 16
        layers: list[nn.Module] = []
        for _ in range(LAYERS):
            layers += [nn.Linear(self.width, self.width), nn.GELU()]
        self.trained = nn.Sequential(*layers)
        self.frozen = nn.ParameterList()
        left = (state_mib << 20) - 3 * sum(p.numel() * 4 for p in self.trained.parameters())
        while left >= 4:
            size = min(left, TENSOR_BYTES)
            self.frozen.append(nn.Parameter(torch.zeros(size // 4), requires_grad=False))
            left -= size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Loss of a batch of shape (n, WIDTH): to reproduce its input, shifted by one column."""
        x = x[:, : self.width]
        error = self.trained(x) - x.roll(1, dims=1)
        loss: torch.Tensor = error.square().mean()
        return loss

    @torch.no_grad()
    def touch(self, step: int) -> None:
        """Changes 1 MiB of one frozen tensor, as a function of `step`."""
        if not len(self.frozen):
            return
        tensor = self.frozen[step % len(self.frozen)]
        count = TOUCHED_BYTES // 4
        start = (step * count) % max(1, tensor.numel() - count)
        tensor[start : start + count].add_(step + 1)


def build(state_mib: int, seed: int = 0) -> tuple[Filled, torch.optim.AdamW]:
    """The model and its optimizer, equal in every process."""
    torch.manual_seed(seed)
    model = Filled(state_mib)
    trained = [p for p in model.parameters() if p.requires_grad]
    return model, torch.optim.AdamW(trained, lr=1e-3)


def batch_of(step: int, rank: int) -> torch.Tensor:
    """The samples of a rank in a step, shape (BATCH, WIDTH), a pure function of both."""
    generator = torch.Generator().manual_seed(step * 1009 + rank)
    return torch.randn(BATCH, WIDTH, generator=generator)


def all_reduce_gradients(model: Filled, reduce: Callable[[torch.Tensor], object]) -> None:
    """Sums gradients in one bucket, for the peers whose own wrapper does not survive a fault."""
    trained = [p for p in model.parameters() if p.grad is not None]
    bucket = torch.cat([p.grad.flatten() for p in trained if p.grad is not None])
    reduce(bucket)
    for p, part in zip(trained, torch.split(bucket, [p.numel() for p in trained]), strict=True):
        p.grad = part.view_as(p)


class EventFile:
    """Appends JSON lines with CLOCK_MONOTONIC nanoseconds; one write a line, so that processes may
    share the file.
    """

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, event: str, **fields: Any) -> None:
        """Writes one line at once."""
        line = json.dumps({"ns": time.monotonic_ns(), "event": event, "pid": os.getpid(), **fields})
        os.write(self._fd, (line + "\n").encode())
