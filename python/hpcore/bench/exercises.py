"""The collectives that `hpcore bench collectives` measures: their buffers, their call, and the
check of what they gave.

Sizes and the factors of the bus bandwidth are those of NVIDIA's nccl-tests (doc/PERFORMANCE.md):
the size is that of the larger buffer of a rank, and bus bandwidth = factor x size / time, which can
be compared with what one memory or link does, whatever the number of ranks. One thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from hpcore.errors import HpcoreError

FACTORS: dict[str, Callable[[int], float]] = {
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "broadcast": lambda n: 1.0,
    "all_gather": lambda n: (n - 1) / n,
    "reduce_scatter": lambda n: (n - 1) / n,
    "all_to_all": lambda n: (n - 1) / n,
}
"""Bytes on the bus for each byte of size, by operation, as a function of the number of ranks."""


COPIES: dict[str, Callable[[int], float]] = {
    "all_reduce": lambda n: 2 * (n - 1) / n + (n + 1) / (2 * n),
    "broadcast": lambda n: 1.0,
    "all_gather": lambda n: 1 + 1 / n,
    "reduce_scatter": lambda n: (n - 1) / n + (n + 1) / (2 * n),
    "all_to_all": lambda n: 2 * (n - 1) / n + 1 / n,
}
"""Bytes that each rank must copy for each byte of size, by operation, as a function of the number
of ranks: what others want into shared memory, what it wants out of there, its own part from tensor
to tensor. A reduction of n parts reads n bytes and writes one: (n + 1) / 2 of a copy.
"""


@dataclass(frozen=True)
class Case:
    """One row: an operation, a dtype by torch's name, bytes of the larger buffer of a rank."""

    operation: str
    dtype: str
    size_bytes: int

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return int(getattr(torch, self.dtype).itemsize)

    def name(self, ranks: str) -> str:
        """`all_reduce/float32/1MiB/ranks=2`."""
        return f"{self.operation}/{self.dtype}/{size_name(self.size_bytes)}/ranks={ranks}"

    def fits(self, ranks: int) -> bool:
        """Whether each rank has at least one element to give."""
        return self.size_bytes >= self.itemsize * (
            1 if self.operation in ("all_reduce", "broadcast") else ranks
        )


def size_name(size_bytes: int) -> str:
    """8B, 4KiB, 1MiB."""
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if size_bytes >= unit:
            return f"{size_bytes // unit}{name}"
    return f"{size_bytes}B"


class Exercise:
    """A case with its buffers in one rank."""

    def __init__(self, case: Case, rank: int, ranks: int) -> None:
        self.case, self.rank, self.ranks = case, rank, ranks
        dtype = getattr(torch, case.dtype)
        each = max(1, case.size_bytes // case.itemsize // ranks)
        whole = max(1, case.size_bytes // case.itemsize)
        self.part = torch.zeros(each, dtype=dtype)
        self.whole = torch.zeros(
            whole if case.operation in ("all_reduce", "broadcast") else each * ranks, dtype=dtype
        )
        self.other = torch.zeros_like(self.whole) if case.operation == "all_to_all" else self.whole

    def run(self, group: Any) -> None:
        """The call, blocking."""
        match self.case.operation:
            case "all_reduce":
                dist.all_reduce(self.whole, group=group)
            case "broadcast":
                dist.broadcast(self.whole, 0, group=group)
            case "all_gather":
                dist.all_gather_into_tensor(self.whole, self.part, group=group)
            case "reduce_scatter":
                dist.reduce_scatter_tensor(self.part, self.whole, group=group)
            case "all_to_all":
                dist.all_to_all_single(self.other, self.whole, group=group)
            case other:
                raise HpcoreError(f"unknown operation {other}; known: {', '.join(FACTORS)}")

    def check(self, group: Any, name: str) -> None:
        """Runs once on known values. Raises HpcoreError if the result is not what it must be."""
        self.part.copy_(self._pattern(self.rank, self.part.numel()))
        self.whole.copy_(self._pattern(self.rank, self.whole.numel()))
        self.run(group)
        got, expected = self._outcome()
        if not torch.equal(got, expected):
            wrong = int((got != expected).sum())
            raise HpcoreError(
                f"{name}, {self.case.name(str(self.ranks))}: {wrong} of {got.numel()} elements are "
                f"wrong in rank {self.rank}"
            )
        for tensor in (self.part, self.whole, self.other):
            tensor.zero_()  # sums of zeros stay what they are, however often

    def _pattern(self, rank: int, elements: int) -> torch.Tensor:
        """Small whole numbers: exact in each dtype, also summed."""
        values = (torch.arange(elements, dtype=torch.int64) + rank) % 5
        return values.to(self.whole.dtype)

    def _outcome(self) -> tuple[torch.Tensor, torch.Tensor]:
        n, each = self.whole.numel(), self.part.numel()
        every = range(self.ranks)
        match self.case.operation:
            case "all_reduce":
                return self.whole, sum(self._pattern(r, n) for r in every)  # type: ignore[return-value]
            case "broadcast":
                return self.whole, self._pattern(0, n)
            case "all_gather":
                return self.whole, torch.cat([self._pattern(r, each) for r in every])
            case "reduce_scatter":
                total = sum(self._pattern(r, n) for r in every)
                return self.part, total[self.rank * each : (self.rank + 1) * each]  # type: ignore[index]
            case _:
                own = slice(self.rank * each, (self.rank + 1) * each)
                return self.other, torch.cat([self._pattern(r, n)[own] for r in every])
