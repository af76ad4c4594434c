"""Rank processes of a bench, forked from one process that has imported torch: their start costs
nothing that is to be measured.

One thread, and call it from a process without other threads (fork). Nothing outlives `run_ranks`,
and the ranks die with a killed parent.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from hpcore.agent.system import die_with_parent
from hpcore.errors import HpcoreError

Body = Callable[[int], Any]
"""What a rank does, given its number; what it returns must be picklable."""


def run_ranks(count: int, body: Body, *, timeout_s: float = 600.0) -> list[Any]:
    """Calls body(rank) in `count` processes at once and returns what each returned.

    Blocks at most `timeout_s` seconds. Raises HpcoreError with the traceback of a rank that failed.
    """
    fork = multiprocessing.get_context("fork")
    pipes, processes = [], []
    try:
        for rank in range(count):
            reader, writer = fork.Pipe(duplex=False)
            process = fork.Process(target=_as_rank, args=(rank, body, writer), daemon=True)
            process.start()
            writer.close()
            pipes.append(reader)
            processes.append(process)
        return _collect(pipes, time.monotonic() + timeout_s, timeout_s)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        for pipe in pipes:
            pipe.close()


def _as_rank(rank: int, body: Body, writer: Connection) -> None:
    die_with_parent()
    try:
        writer.send((True, body(rank)))
    except BaseException:
        writer.send((False, traceback.format_exc()))
    signal.pause()  # what others find through this process stays until all are done


def _collect(pipes: list[Connection], deadline: float, timeout_s: float) -> list[Any]:
    results: dict[int, Any] = {}
    while len(results) < len(pipes):
        waiting = [pipe for rank, pipe in enumerate(pipes) if rank not in results]
        ready = wait(waiting, max(0.0, deadline - time.monotonic()))
        if not ready:
            missing = [rank for rank in range(len(pipes)) if rank not in results]
            raise HpcoreError(f"ranks {missing} have no result after {timeout_s:.0f} s")
        for pipe in ready:
            assert isinstance(pipe, Connection)
            rank = pipes.index(pipe)
            try:
                well, value = pipe.recv()
            except EOFError:
                raise HpcoreError(f"rank {rank} of the bench died without a word") from None
            if not well:
                raise HpcoreError(f"rank {rank} of the bench failed:\n{value}")
            results[rank] = value
    return [results[rank] for rank in range(len(pipes))]


@contextlib.contextmanager
def busy_loop() -> Iterator[None]:
    """A process beside that computes without pause, for benches of more runners than cores."""
    process = multiprocessing.get_context("fork").Process(target=_spin, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _spin() -> None:
    die_with_parent()
    while True:  # killed by busy_loop(), or with the parent
        sum(range(10_000))
