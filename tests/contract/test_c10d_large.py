"""More than 2^31 elements in one operation: counts and offsets that do not fit 32 bits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from c10d_ranks import run_ranks

pytestmark = [pytest.mark.torch, pytest.mark.timeout(200)]

SIZE = 2**31 + 5_003
# Around these a count or an offset of 31 or 32 bits would go wrong.
PLACES = [0, 1, 2**30, 2**31 - 2, 2**31 - 1, 2**31, 2**31 + 1, SIZE - 2, SIZE - 1]
NEEDED_BYTES = 12 << 30


def available_bytes() -> int:
    with open("/proc/meminfo") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return 0


def mark(tensor: torch.Tensor, rank: int) -> None:
    tensor[torch.tensor(PLACES)] = torch.tensor(
        [10 * (i + 1) + rank for i in range(len(PLACES))], dtype=tensor.dtype
    )


def check(tensor: torch.Tensor, value: Callable[[int], int], rest: int) -> None:
    """What the marked places hold, and that everything else is `rest`."""
    assert tensor[torch.tensor(PLACES)].tolist() == [value(i) for i in range(len(PLACES))]
    tensor[torch.tensor(PLACES)] = rest
    assert tensor.min().item() == tensor.max().item() == rest


def test_c10d_operations_on_more_than_two_to_the_31_elements() -> None:
    if available_bytes() < NEEDED_BYTES:
        pytest.skip(f"{available_bytes() >> 30} GiB of memory are free, it takes 12")

    def work(rank: int) -> None:
        torch.set_num_threads(1)
        tensor = torch.full((SIZE,), 1 + rank, dtype=torch.uint8)
        mark(tensor, rank)
        dist.all_reduce(tensor)
        check(tensor, lambda i: 20 * (i + 1) + 1, 3)
        if rank == 1:
            tensor.fill_(7)
            mark(tensor, 1)
        dist.broadcast(tensor, 1)
        check(tensor, lambda i: 10 * (i + 1) + 1, 7)
        if rank == 0:
            tensor.fill_(9)
            mark(tensor, 0)
            dist.send(tensor, 1)
        else:
            dist.recv(tensor, 0)
            check(tensor, lambda i: 10 * (i + 1), 9)
        dist.barrier()

    run_ranks(2, work, timeout_s=150.0)
