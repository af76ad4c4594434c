"""This process's place in a job started by `hpcore run`.

Thread-safe. The environment is read at the first call only; the worker attached then lives as
long as the process.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpcore import _core

_lock = threading.Lock()
_attached: dict[int, _core.Worker] = {}  # by pid: a fork of a worker is no worker


@dataclass(frozen=True)
class JobFacts:
    """What the agent told this worker through its environment."""

    job: str
    slot: int
    incarnation: int
    log_dir: str
    recovery_deadline_s: float
    standby: bool
    faults: str
    agent_pid: int
    ledger: str = ""


def this_job() -> JobFacts | None:
    """The facts of this process's job, or None outside `hpcore run`."""
    env = os.environ
    if "HPCORE_SEGMENT_FD" not in env:
        return None
    return JobFacts(
        job=env.get("HPCORE_JOB", ""),
        slot=int(env["HPCORE_SLOT"]),
        incarnation=int(env["HPCORE_INCARNATION"]),
        log_dir=env.get("HPCORE_LOG_DIR", ""),
        recovery_deadline_s=float(env.get("HPCORE_RECOVERY_DEADLINE_S", "60")),
        standby=env.get("HPCORE_STANDBY", "") == "1",
        faults=env.get("HPCORE_FAULTS", ""),
        agent_pid=int(env.get("HPCORE_AGENT_PID", "0")),
        ledger=env.get("HPCORE_LEDGER", ""),
    )


def this_worker() -> _core.Worker | None:
    """This process's Worker, attached at the first call; None outside `hpcore run`.

    A process that a worker started inherits the environment but is no worker: it gets None, too.
    """
    pid = os.getpid()
    with _lock:
        worker = _attached.get(pid)
        if worker is not None:
            return worker
        if os.environ.get("HPCORE_WORKER_PID", str(pid)) != str(pid):
            return None
        facts = this_job()
        if facts is None:
            return None
        from hpcore import _core

        segment = _core.NodeSegment.attach(int(os.environ["HPCORE_SEGMENT_FD"]))
        worker = _core.Worker.attach(segment, facts.slot, facts.incarnation)
        _attached[pid] = worker
        return worker
