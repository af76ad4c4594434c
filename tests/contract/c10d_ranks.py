"""Runs a function as several ranks, forked from a pytest process that has imported torch once."""

from __future__ import annotations

import os
import pickle
import select
import signal
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from hpcore import _core, distributed

TIMEOUT_S = 60.0


class RankFailed(AssertionError):
    """A rank raised; the message carries its traceback."""


def run_ranks(
    world_size: int,
    work: Callable[[int], Any],
    *,
    backend: str = "hpcore",
    timeout_s: float = TIMEOUT_S,
    expect_killed: tuple[int, ...] = (),
) -> list[Any]:
    """Calls work(rank) in `world_size` processes that share a default group; returns the results.

    A rank in expect_killed must die by SIGKILL (its result is None).
    """
    store = _core.SharedStore.create(32 << 20)
    torch.set_num_threads(1)
    ranks = [_fork(rank, world_size, work, backend, store) for rank in range(world_size)]
    try:
        results = read_results([pipe for _, pipe in ranks], timeout_s)
    finally:
        codes = []
        for pid, pipe in ranks:
            os.close(pipe)
            os.kill(pid, signal.SIGKILL)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    values = []
    failed = [rank for rank, result in enumerate(results) if result is not None and not result[0]]
    if failed:
        told = [f"rank {rank}:\n{results[rank][1]}" for rank in failed]  # type: ignore[index]
        raise RankFailed("\n".join(told))
    for rank, result in enumerate(results):
        if rank in expect_killed:
            assert result is None, f"rank {rank} should have been killed, it returned {result}"
            values.append(None)
            continue
        if result is None:
            raise RankFailed(f"rank {rank} ended without a result, exit code {codes[rank]}")
        values.append(result[1])
    return values


def _fork(
    rank: int, world_size: int, work: Callable[[int], Any], backend: str, store: _core.SharedStore
) -> tuple[int, int]:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    try:
        os.close(reader)
        try:
            value = (True, _as_rank(rank, world_size, work, backend, store))
        except BaseException:
            value = (False, traceback.format_exc())
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(value, pipe)
        signal.pause()  # shared descriptors stay open until all are done
    finally:
        os._exit(1)


def _as_rank(
    rank: int, world_size: int, work: Callable[[int], Any], backend: str, store: _core.SharedStore
) -> Any:
    from hpcore import _c10d

    distributed.register()
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    c10d_store = _c10d.Store(store.native_handle, "test/", timedelta(seconds=TIMEOUT_S))
    dist.init_process_group(
        backend,
        store=c10d_store,
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=TIMEOUT_S),
    )
    return work(rank)


def read_results(pipes: list[int], timeout_s: float) -> list[tuple[bool, Any] | None]:
    """What each rank wrote before it closed its pipe. Ends at the first failure."""
    deadline = time.monotonic() + timeout_s
    data = dict.fromkeys(pipes, b"")
    results: dict[int, tuple[bool, Any] | None] = {}
    while len(results) < len(pipes):
        waiting = [pipe for pipe in pipes if pipe not in results]
        ready, _, _ = select.select(waiting, [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            results |= dict.fromkeys(waiting, (False, f"no result within {timeout_s} s"))
        for pipe in ready:
            piece = os.read(pipe, 1 << 20)
            data[pipe] += piece
            if not piece:
                results[pipe] = pickle.loads(data[pipe]) if data[pipe] else None
        failed = any(result is not None and not result[0] for result in results.values())
        if failed and time.monotonic() < deadline:
            deadline = min(deadline, time.monotonic() + 1.0)  # others may fail for the same reason
    return [results[pipe] for pipe in pipes]
