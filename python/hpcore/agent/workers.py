"""The processes of a job: slots, pidfds, pipes, signals, reaping.

One thread (the agent's). Owns the pidfds. A slot is used again only after its process was reaped
and no roster names it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hpcore.agent.environment import JobEnvironment
from hpcore.agent.forge import Forge
from hpcore.agent.logs import LogRelay, make_pipe

if TYPE_CHECKING:
    from hpcore import _core


@dataclass
class WorkerProcess:
    """One worker: asked for (pid 0), running, or reaped (code is not None)."""

    slot: int
    incarnation: int
    rank: int | None
    log_path: str
    asked_ns: int
    pid: int = 0
    pidfd: int = -1
    code: int | None = None
    stop_reason: str = ""


class WorkerTable:
    """All workers of one job, by slot."""

    def __init__(
        self,
        segment: _core.NodeSegment,
        watch: _core.AgentWatch,
        forge: Forge,
        relay: LogRelay,
        environment: JobEnvironment,
        first_incarnation: int = 1,
    ) -> None:
        self._segment = segment
        self._watch = watch
        self._forge = forge
        self._relay = relay
        self._environment = environment
        self._incarnations = first_incarnation - 1
        self._used: list[int] = []  # free slots that had a worker, longest free first
        self._groups: set[int] = set()  # process groups of dead workers that may have members
        self.by_slot: dict[int, WorkerProcess] = {}
        self.by_incarnation: dict[int, WorkerProcess] = {}

    def set_ranks(self, ranks: int) -> None:
        """How many ranks the job has on all its nodes: workers that start from now on see it."""
        self._environment = replace(self._environment, ranks=ranks)

    def living(self) -> list[WorkerProcess]:
        """Forked and not reaped."""
        return [w for w in self.by_slot.values() if w.pid and w.code is None]

    def spawn(self, rank: int | None) -> WorkerProcess | None:
        """Asks the template for a worker; None if all slots are taken."""
        slot = self._free_slot()
        if slot is None:
            return None
        self._incarnations += 1
        incarnation = self._incarnations
        worker = WorkerProcess(
            slot, incarnation, rank, self._log_path(slot, incarnation, rank), time.monotonic_ns()
        )
        self._segment.prepare_slot(slot, incarnation)
        self._watch.watch(slot, incarnation)
        ours, theirs = make_pipe()
        label = f"standby {slot}" if rank is None else f"rank {rank}"
        self._relay.add(incarnation, ours, worker.log_path, label)
        self.by_slot[slot] = worker
        self.by_incarnation[incarnation] = worker
        env = self._environment.of_worker(slot, incarnation, rank)
        self._forge.request(incarnation, env, theirs)
        return worker

    def _free_slot(self) -> int | None:
        for slot in range(self._segment.slots):
            if slot not in self.by_slot and slot not in self._used:
                return slot
        return self._used.pop(0) if self._used else None

    def _log_path(self, slot: int, incarnation: int, rank: int | None) -> str:
        name = f"standby{slot}" if rank is None else f"rank{rank}"
        path = os.path.join(self._environment.log_dir, f"{name}.log")
        if any(w.log_path == path for w in self.by_incarnation.values()):
            path = os.path.join(self._environment.log_dir, f"{name}-{incarnation & 0xFFFFFFFF}.log")
        return path

    def forked(self, incarnation: int, pid: int) -> WorkerProcess:
        """The template's answer: from now on the worker's end is noticed."""
        worker = self.by_incarnation[incarnation]
        worker.pid = pid
        worker.pidfd = os.pidfd_open(pid)
        return worker

    def not_forked(self, incarnation: int) -> WorkerProcess:
        """The template's answer if there is no worker."""
        worker = self.by_incarnation[incarnation]
        worker.code = 1
        self._relay.finish(incarnation)
        return worker

    def reap(self, worker: WorkerProcess) -> bool:
        """Collects a dead worker's exit code and ends what it had started; False if it lives."""
        if worker.code is not None:
            return True
        peek = os.waitid(os.P_PIDFD, worker.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if peek is None:
            return False
        _kill_group(worker.pid)  # before the pid can be someone else's
        self._groups.add(worker.pid)
        result = os.waitid(os.P_PIDFD, worker.pidfd, os.WEXITED)
        assert result is not None
        exited = result.si_code == os.CLD_EXITED
        worker.code = result.si_status if exited else 128 + result.si_status
        os.close(worker.pidfd)
        worker.pidfd = -1
        self._relay.finish(worker.incarnation)
        return True

    def reap_orphans(self) -> None:
        """Zombies that dead workers left to us."""
        for group in list(self._groups):
            try:
                while os.waitid(os.P_PGID, group, os.WEXITED | os.WNOHANG) is not None:
                    pass
            except ChildProcessError:  # noqa: PERF203
                self._groups.discard(group)

    @property
    def has_orphans(self) -> bool:
        """Whether a dead worker's process group may still have zombies of ours."""
        return bool(self._groups)

    def recycle(self, named: Iterable[int]) -> None:
        """Gives back the slots of reaped workers that no roster names."""
        kept = set(named)
        for slot, worker in list(self.by_slot.items()):
            if worker.code is not None and slot not in kept:
                self._watch.unwatch(slot)
                self._segment.release_slot(slot)
                del self.by_slot[slot]
                self._used.append(slot)

    def signal(self, worker: WorkerProcess, number: int) -> None:
        """Sends a signal to a living worker; SIGKILL also to what it has started."""
        if worker.code is not None or worker.pidfd < 0:
            return
        if number == signal.SIGKILL:
            _kill_group(worker.pid)
        try:
            signal.pidfd_send_signal(worker.pidfd, number)
        except ProcessLookupError:
            pass

    def close(self) -> None:
        """Closes descriptors; all workers must have been reaped."""
        for worker in self.by_incarnation.values():
            if worker.pidfd >= 0:
                os.close(worker.pidfd)
                worker.pidfd = -1


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
