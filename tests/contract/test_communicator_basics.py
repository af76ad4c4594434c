"""all_reduce, broadcast, barrier and all_gather_bytes between processes."""

from __future__ import annotations

import mmap

import numpy as np
import pytest
from ranks import run_ranks

from hpcore import _core

LIMIT_S = 30.0
SIZES = (0, 1, 1000, 40_000, 700_001)


def contribution(rank: int, size: int) -> np.ndarray:
    return np.random.default_rng([rank, size]).standard_normal(size).astype(np.float32)


def address(array: np.ndarray) -> tuple[int, int]:
    return array.ctypes.data, array.size


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_all_reduce_adds_in_rank_order(world_size: int) -> None:
    def body(communicator: _core.Communicator) -> None:
        for size in SIZES:
            mine = contribution(communicator.rank, size)
            expected = contribution(0, size)
            for rank in range(1, world_size):
                expected = expected + contribution(rank, size)
            first = mine[: size // 3]
            communicator.all_reduce(
                [address(first), address(mine[size // 3 :])], "float32", "sum", LIMIT_S
            )
            assert np.array_equal(mine, expected), size

    run_ranks(world_size, body)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_broadcast_copies_roots_bytes(world_size: int) -> None:
    def body(communicator: _core.Communicator) -> None:
        for root in range(world_size):
            for size in SIZES:
                mine = contribution(communicator.rank, size)
                communicator.broadcast([(mine.ctypes.data, mine.nbytes)], root, LIMIT_S)
                assert np.array_equal(mine, contribution(root, size))

    run_ranks(world_size, body)


def test_all_gather_bytes_takes_any_sizes() -> None:
    def data(rank: int, size: int) -> bytes:
        return bytes([rank + 1]) * (size * rank)

    def body(communicator: _core.Communicator) -> None:
        for size in SIZES:
            gathered = communicator.all_gather_bytes(data(communicator.rank, size), LIMIT_S)
            assert gathered == [data(rank, size) for rank in range(3)]

    run_ranks(3, body)


def test_barrier_returns_after_all_have_come() -> None:
    counters = np.frombuffer(mmap.mmap(-1, 4096), dtype=np.int64)

    def body(communicator: _core.Communicator) -> None:
        for turn in range(1, 200):
            counters[communicator.rank] = turn
            communicator.barrier(LIMIT_S)
            assert min(counters[rank] for rank in range(3)) >= turn
            communicator.barrier(LIMIT_S)

    run_ranks(3, body)
