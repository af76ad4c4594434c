"""torch.compile of functions with functional collectives, forwards and backwards."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from c10d_ranks import run_ranks

pytestmark = [pytest.mark.torch, pytest.mark.timeout(280)]

Function = Callable[[torch.Tensor], torch.Tensor]


def reductions(x: torch.Tensor) -> torch.Tensor:
    total = functional.all_reduce(x * 2, "sum", dist.group.WORLD)
    mean = functional.all_reduce(x.sin(), "avg", dist.group.WORLD)
    part = functional.reduce_scatter_tensor(total + mean, "sum", 0, dist.group.WORLD)
    return functional.all_gather_tensor(part * 3, 0, dist.group.WORLD) + 1


def exchanges(x: torch.Tensor) -> torch.Tensor:
    swapped = functional.all_to_all_single_autograd(x * x, None, None, dist.group.WORLD)
    gathered = functional.all_gather_tensor_autograd(swapped.cos(), 0, dist.group.WORLD)
    part = functional.reduce_scatter_tensor_autograd(gathered * x[0], "sum", 0, dist.group.WORLD)
    return part.sum() * x


def gradient(function: Function, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.clone().requires_grad_()
    out = function(x)
    out.square().sum().backward()
    assert x.grad is not None
    return out.detach(), x.grad


def test_c10d_compiled_functions_equal_eager_ones(tmp_path: Path) -> None:
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("inductor needs a C++ compiler: none was found as $CXX or g++")

    def work(rank: int) -> None:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path / str(rank))
        os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
        x = torch.linspace(0, 1, 8) + rank
        compiled = torch.compile(reductions, fullgraph=True)
        for _ in range(3):  # compiled once, then run again
            torch.testing.assert_close(compiled(x), reductions(x))
        wanted = gradient(exchanges, x)
        got = gradient(torch.compile(exchanges, fullgraph=True), x)
        torch.testing.assert_close(got, wanted)

    run_ranks(2, work, timeout_s=240.0)
