"""A double of the agent: a node segment, forked workers, rosters; no `hpcore run`."""

from __future__ import annotations

import os
import pickle
import signal
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch
from c10d_ranks import RankFailed, read_results

from hpcore import _core, distributed
from hpcore.membership.roster import Member, Roster

PATIENCE_S = 60.0


class AgentDouble:
    """Forks workers into slots and publishes rosters. A context manager that leaves nothing."""

    def __init__(self, slots: int) -> None:
        self.segment = _core.NodeSegment.create(slots, staging_bytes=1 << 20, store_bytes=8 << 20)
        self.watch = _core.AgentWatch(self.segment)
        self.pids: dict[int, int] = {}
        self.pipes: dict[int, int] = {}
        torch.set_num_threads(1)

    def __enter__(self) -> AgentDouble:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self.pipes.values():
            os.close(pipe)
        for pid in self.pids.values():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.watch.close()

    def start(self, slot: int, work: Callable[[], Any], **environment: str) -> None:
        """Forks a worker; `environment` is what else the agent tells it."""
        incarnation = slot + 1
        self.segment.prepare_slot(slot, incarnation)
        self.watch.watch(slot, incarnation)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid:
            os.close(writer)
            self.pids[slot], self.pipes[slot] = pid, reader
            return
        try:
            os.environ.update(
                HPCORE_SEGMENT_FD=str(self.segment.fd),
                HPCORE_SLOT=str(slot),
                HPCORE_INCARNATION=str(incarnation),
                HPCORE_WORKER_PID=str(os.getpid()),
                HPCORE_AGENT_PID=str(os.getppid()),
                **environment,
            )
            try:
                distributed.register()
                value = (True, work())
            except BaseException:
                value = (False, traceback.format_exc())
            with os.fdopen(writer, "wb") as pipe:
                pickle.dump(value, pipe)
            signal.pause()
        finally:
            os._exit(3)

    def await_state(self, slots: list[int], state: int) -> None:
        """Returns when all slots have reached the state."""
        deadline = time.monotonic() + PATIENCE_S
        while any(self.segment.slot_info(slot).state < state for slot in slots):
            assert time.monotonic() < deadline, f"slots {slots} do not reach state {state}"
            self.watch.next_event(0.05)

    def publish(self, generation: int, slots: list[int]) -> None:
        """A roster in which slots[r] holds rank r."""
        members = tuple(
            Member(rank, slot, slot + 1, self.pids[slot]) for rank, slot in enumerate(slots)
        )
        roster = Roster(generation, "test", 0, members)
        self.segment.set_ranked(slots)
        self.segment.open_commit(slots, generation, 0)
        self.segment.publish(generation, roster.to_bytes())

    def kill(self, slot: int) -> None:
        os.kill(self.pids[slot], signal.SIGKILL)

    def results(self, slots: list[int]) -> list[Any]:
        """What the workers in those slots returned."""
        results = read_results([self.pipes[slot] for slot in slots], PATIENCE_S)
        failed = [f"slot {s}: {r}" for s, r in zip(slots, results, strict=True) if not (r and r[0])]
        if failed:
            raise RankFailed("\n".join(failed).replace("\\n", "\n"))
        return [result[1] for result in results if result is not None]
