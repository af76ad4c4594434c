"""gather, scatter, all_gather, all_to_all: any sizes, against what each rank is known to send."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ranks import run_ranks

from hpcore import _core

LIMIT_S = 30.0
AREA_BYTES = 512 << 10
WORLD_SIZES = [1, 2, 3, 5]
SETTINGS = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
SEEDS = st.lists(st.integers(0, 10_000), min_size=6, max_size=6)


def sizes_of(seed: int, count: int) -> list[int]:
    """A few sizes: some nothing, some small, some of many steps."""
    rng = np.random.default_rng(seed)
    largest = int(rng.choice([5, 300, 40_000]))
    return [int(size) * (rng.random() > 0.2) for size in rng.integers(0, largest, count)]


def part(seed: int, source: int, target: int, size: int) -> np.ndarray:
    return np.random.default_rng([seed, source, target]).integers(-1000, 1000, size, np.int64)


def address(array: np.ndarray) -> tuple[int, int]:
    return array.ctypes.data, array.size


def addresses(arrays: list[np.ndarray]) -> list[tuple[int, int]]:
    return [address(array) for array in arrays]


def nothing(size: int) -> np.ndarray:
    return np.full(size, 7777, np.int64)


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@SETTINGS
@given(seeds=SEEDS, in_place=st.booleans())
def test_all_gather_takes_uneven_inputs(world_size: int, seeds: list[int], in_place: bool) -> None:
    def body(communicator: _core.Communicator) -> None:
        rank = communicator.rank
        for seed in seeds:
            sizes = sizes_of(seed, world_size)
            outputs = [nothing(size) for size in sizes]
            mine = part(seed, rank, 0, sizes[rank])
            if in_place:
                outputs[rank][:] = mine
                mine = outputs[rank]
            communicator.all_gather(address(mine), addresses(outputs), "int64", LIMIT_S)
            for source, output in enumerate(outputs):
                assert np.array_equal(output, part(seed, source, 0, sizes[source])), seed

    run_ranks(world_size, body, AREA_BYTES)


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@SETTINGS
@given(seeds=SEEDS)
def test_gather_reaches_root_only(world_size: int, seeds: list[int]) -> None:
    def body(communicator: _core.Communicator) -> None:
        rank = communicator.rank
        for seed in seeds:
            root = seed % world_size
            sizes = sizes_of(seed, world_size)
            outputs = [nothing(size) for size in sizes] if rank == root else []
            mine = part(seed, rank, 0, sizes[rank])
            communicator.gather(address(mine), addresses(outputs), "int64", root, LIMIT_S)
            for source, output in enumerate(outputs):
                assert np.array_equal(output, part(seed, source, 0, sizes[source])), seed

    run_ranks(world_size, body, AREA_BYTES)


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@SETTINGS
@given(seeds=SEEDS)
def test_scatter_deals_roots_inputs(world_size: int, seeds: list[int]) -> None:
    def body(communicator: _core.Communicator) -> None:
        rank = communicator.rank
        for seed in seeds:
            root = seed % world_size
            sizes = sizes_of(seed, world_size)
            inputs = [part(seed, root, to, size) for to, size in enumerate(sizes)]
            output = nothing(sizes[rank])
            communicator.scatter(
                addresses(inputs) if rank == root else [], address(output), "int64", root, LIMIT_S
            )
            assert np.array_equal(output, part(seed, root, rank, sizes[rank])), seed

    run_ranks(world_size, body, AREA_BYTES)


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@SETTINGS
@given(seeds=SEEDS)
def test_all_to_all_takes_uneven_parts(world_size: int, seeds: list[int]) -> None:
    def body(communicator: _core.Communicator) -> None:
        rank = communicator.rank
        for seed in seeds:
            table = np.array(sizes_of(seed, world_size**2)).reshape(world_size, world_size)
            inputs = [part(seed, rank, to, table[rank, to]) for to in range(world_size)]
            outputs = [nothing(table[source, rank]) for source in range(world_size)]
            communicator.all_to_all(addresses(inputs), addresses(outputs), "int64", LIMIT_S)
            for source, output in enumerate(outputs):
                assert np.array_equal(output, part(seed, source, rank, output.size)), seed

    run_ranks(world_size, body, AREA_BYTES)


def test_operations_mix_without_disturbing_each_other() -> None:
    """Short and long operations of all kinds in a row: buffers are used again at any phase."""

    def body(communicator: _core.Communicator) -> None:
        rank = communicator.rank
        for turn in range(150):
            size = int(np.random.default_rng(turn).choice([1, 3_000, 60_000]))
            root = turn % 3
            values = np.full(size, rank + turn, np.int64)
            communicator.all_reduce([address(values)], "int64", "sum", LIMIT_S)
            assert (values == 3 * turn + 3).all()
            values[:] = rank * turn
            communicator.broadcast([(values.ctypes.data, values.nbytes)], root, LIMIT_S)
            assert (values == root * turn).all()
            assert communicator.all_gather_bytes(bytes([rank]) * (turn * rank), LIMIT_S) == [
                bytes([source]) * (turn * source) for source in range(3)
            ]
            values[:] = rank + 10
            communicator.reduce([address(values)], "int64", "max", root, LIMIT_S)
            assert (values == (12 if rank == root else rank + 10)).all()

    run_ranks(3, body, AREA_BYTES)
