"""Runs a function on several forked ranks over memory of its own; used by the contract tests."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable

from hpcore import _core

GENERATION = 1
Body = Callable[[_core.Communicator], None]


def fork(work: Callable[[], None]) -> int:
    """Starts a process that runs work and ends with 0, or with 1 and a traceback."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(code)
    return pid


def reap(pids: list[int], limit_s: float = 60.0) -> list[int]:
    """Exit codes (negative: signals).

    What still runs after limit_s, or 2 s after a rank has failed, is killed: -9.
    """
    codes: dict[int, int] = {}
    deadline = time.monotonic() + limit_s
    while len(codes) < len(pids):
        for pid in pids:
            if pid in codes:
                continue
            late = time.monotonic() > deadline
            if late:
                os.kill(pid, signal.SIGKILL)
            done, status = os.waitpid(pid, 0 if late else os.WNOHANG)
            if done:
                codes[pid] = os.waitstatus_to_exitcode(status)
                if codes[pid] > 0:  # its peers wait for it in vain
                    deadline = min(deadline, time.monotonic() + 2.0)
        time.sleep(0.001)
    return [codes[pid] for pid in pids]


def member(group: _core.SharedGroup, rank: int, body: Body, generation: int = GENERATION) -> int:
    """Forks the process of one rank."""

    def work() -> None:
        with _core.Communicator.over_group(group, generation, rank) as communicator:
            body(communicator)

    return fork(work)


def run_ranks(world_size: int, body: Body, area_bytes: int = 1 << 20) -> None:
    """Runs body on each rank; fails if one of them did."""
    group = _core.SharedGroup.create(world_size, area_bytes)
    codes = reap([member(group, rank, body) for rank in range(world_size)])
    assert codes == [0] * world_size
