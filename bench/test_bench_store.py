"""The store and the c10d backend, beside torch's TCPStore and gloo.

Run: PYTHONPATH=python pytest bench/test_bench_store.py. Each value read is compared with what was
written, each sum with what it must be.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "contract"))

from c10d_ranks import run_ranks

from hpcore import _c10d, _core

FOREVER = timedelta(seconds=60)
VALUE = "v" * 64
ROUNDS = 300


@pytest.fixture(params=["hpcore", "tcpstore"])
def store(request: pytest.FixtureRequest) -> Iterator[dist.Store]:
    if request.param == "tcpstore":
        yield dist.TCPStore("127.0.0.1", 0, None, True, FOREVER)
    else:
        native = _core.SharedStore.create(8 << 20)
        yield _c10d.Store(native.native_handle, "", FOREVER)


@pytest.fixture
def echo(store: dist.Store) -> Iterator[Callable[[int], None]]:
    """Another process that answers `ping<n>` by `pong<n>`; call with n to go there and back."""
    pid = os.fork()
    if pid == 0:
        try:
            mine = store
            if isinstance(store, dist.TCPStore):
                mine = dist.TCPStore("127.0.0.1", store.port, None, False, FOREVER)
            for n in range(1 << 20):
                mine.wait([f"ping{n}"], FOREVER)
                mine.set(f"pong{n}", VALUE)
        finally:
            os._exit(0)

    def there_and_back(n: int) -> None:
        store.set(f"ping{n}", VALUE)
        assert store.get(f"pong{n}") == VALUE.encode()

    yield there_and_back
    os.kill(pid, 9)
    os.waitpid(pid, 0)


def test_store_set(benchmark: Any, store: dist.Store) -> None:
    benchmark.pedantic(store.set, ("key", VALUE), rounds=ROUNDS, warmup_rounds=10)
    assert store.get("key") == VALUE.encode()


def test_store_get(benchmark: Any, store: dist.Store) -> None:
    store.set("key", VALUE)
    got = benchmark.pedantic(store.get, ("key",), rounds=ROUNDS, warmup_rounds=10)
    assert got == VALUE.encode()


def test_store_add(benchmark: Any, store: dist.Store) -> None:
    benchmark.pedantic(store.add, ("count", 1), rounds=ROUNDS)
    assert store.add("count", 0) == ROUNDS


def test_store_wait(benchmark: Any, echo: Callable[[int], None]) -> None:
    """There and back: two waits."""
    numbers = iter(range(1 << 20))
    benchmark.pedantic(lambda: echo(next(numbers)), rounds=ROUNDS, warmup_rounds=10)


OPERATIONS: dict[str, Callable[[torch.Tensor], Any]] = {
    "all_reduce": dist.all_reduce,
    "all_reduce async": lambda tensor: dist.all_reduce(tensor, async_op=True).wait(),
    "there and back": lambda tensor: (
        (dist.send(tensor, 1), dist.recv(tensor, 1))
        if dist.get_rank() == 0
        else (dist.recv(tensor, 0), dist.send(tensor, 0))
    ),
    "barrier": lambda _: dist.barrier(),
}


@pytest.mark.parametrize("backend", ["hpcore", "gloo"])
@pytest.mark.parametrize("elements", [1, 1 << 18], ids=["4B", "1MiB"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_c10d(benchmark: Any, backend: str, elements: int, name: str) -> None:
    def work(rank: int) -> list[float]:
        from time import perf_counter

        tensor = torch.zeros(elements)
        seconds = []
        for _ in range(ROUNDS + 20):
            before = perf_counter()
            OPERATIONS[name](tensor)
            seconds.append(perf_counter() - before)
        assert tensor.sum() == 0
        return sorted(seconds[20:])

    results = benchmark.pedantic(run_ranks, (2, work), {"backend": backend}, rounds=1)
    benchmark.extra_info["p50_us"] = round(results[0][ROUNDS // 2] * 1e6, 1)
    benchmark.extra_info["p99_us"] = round(results[0][ROUNDS * 99 // 100] * 1e6, 1)


@pytest.mark.parametrize("backend", ["hpcore", "gloo"])
def test_c10d_init(benchmark: Any, backend: str) -> None:
    """From an open store to the first barrier of a group of 4."""

    def work(rank: int) -> list[float]:
        from time import perf_counter

        seconds = []
        dist.barrier()
        for _ in range(20):
            before = perf_counter()
            group = dist.new_group(list(range(4)))
            dist.barrier(group=group)
            seconds.append(perf_counter() - before)
        return sorted(seconds)

    results = benchmark.pedantic(run_ranks, (4, work), {"backend": backend}, rounds=1)
    benchmark.extra_info["p50_us"] = round(results[0][10] * 1e6, 1)
    benchmark.extra_info["max_us"] = round(results[0][-1] * 1e6, 1)
