"""Collectives between forked ranks beside memcpy; the others repeat what rank 0 does: this process.

Sets kOneStepBytes (csrc/collective/reduction.cpp) and the spinning of csrc/collective/channel.cpp.
Run: pytest bench/test_bench_collective.py --benchmark-only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from hpcore import _core, errors

LIMIT_S = 60.0
SIZES = (8, 4 << 10, 64 << 10, 1 << 20, 64 << 20)
Body = Callable[[_core.Communicator], None]


class Ranks:
    """This process as rank 0, the others in a loop until the group is revoked."""

    def __init__(self, count: int) -> None:
        self.group = _core.SharedGroup.create(count)
        self.communicator = _core.Communicator.over_group(self.group, 1, 0)
        self.count = count
        self.pids: list[int] = []

    def repeat(self, make: Callable[[], Body]) -> Body:
        """Forks the other ranks; returns the body for this one. Its buffers are made in each."""
        for rank in range(1, self.count):
            pid = os.fork()
            if pid == 0:
                try:
                    communicator = _core.Communicator.over_group(self.group, 1, rank)
                    body = make()
                    while True:
                        body(communicator)
                except errors.RosterChanged:
                    os._exit(0)
                finally:
                    os._exit(1)
            self.pids.append(pid)
        return make()

    def close(self) -> None:
        self.group.revoke(1)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in self.pids]
        assert codes == [0] * len(codes)


@pytest.fixture(params=[2, 4], ids=lambda count: f"ranks={count}")
def ranks(request: pytest.FixtureRequest) -> Iterator[Ranks]:
    ranks = Ranks(request.param)
    yield ranks
    ranks.close()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", SIZES)
def test_bench_all_reduce(benchmark: Any, ranks: Ranks, size: int, dtype: str) -> None:
    def make() -> Body:
        data = np.zeros(size, np.uint8)
        elements = size // (4 if dtype == "float32" else 2)
        return lambda communicator: communicator.all_reduce(
            [(data.ctypes.data, elements)], dtype, "sum", LIMIT_S
        )

    body = ranks.repeat(make)
    benchmark.group = f"all_reduce {size} bytes"
    benchmark(body, ranks.communicator)


@pytest.mark.parametrize("size", [4 << 10, 64 << 20])
def test_bench_broadcast(benchmark: Any, ranks: Ranks, size: int) -> None:
    def make() -> Body:
        data = np.zeros(size, np.uint8)
        return lambda communicator: communicator.broadcast(
            [(data.ctypes.data, data.nbytes)], 0, LIMIT_S
        )

    body = ranks.repeat(make)
    benchmark.group = f"broadcast {size} bytes"
    benchmark(body, ranks.communicator)


def test_bench_barrier(benchmark: Any, ranks: Ranks) -> None:
    body = ranks.repeat(lambda: lambda communicator: communicator.barrier(LIMIT_S))
    benchmark.group = "barrier"
    benchmark(body, ranks.communicator)


@pytest.mark.parametrize("size", SIZES)
def test_bench_memcpy(benchmark: Any, size: int) -> None:
    source, target = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    benchmark.group = f"all_reduce {size} bytes"
    benchmark(np.copyto, target, source)
