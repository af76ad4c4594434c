"""What the agent looks at ten times a second: pace, heartbeats, first commits.

One thread. Looks are made here, judged by `hang.HangJudge` (pure).
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpcore.agent.hang import HangJudge, Look, Verdict, process_state
from hpcore.agent.workers import WorkerTable
from hpcore.membership.places import slots_here
from hpcore.membership.state import Cluster, Stage

if TYPE_CHECKING:
    from hpcore import _core

TICK_S = 0.1
LATE_S = 0.3
"""An agent that was itself this late judges nobody: the whole machine stood still."""


@dataclass(frozen=True)
class Observation:
    """What one look found."""

    first_commit: bool
    verdicts: list[Verdict]
    stalled: str


class Supervisor:
    """Looks at the workers of one job."""

    def __init__(
        self, segment: _core.NodeSegment, table: WorkerTable, recovery_deadline_s: float
    ) -> None:
        self._segment = segment
        self._table = table
        self.judge = HangJudge(recovery_deadline_s)
        self._due_s = time.monotonic()
        self._skip = 0

    def timeout_s(self) -> float:
        """Until the next look."""
        return max(0.0, self._due_s - time.monotonic())

    def due(self) -> bool:
        """Whether it is time to look."""
        return time.monotonic() >= self._due_s

    def look(self, cluster: Cluster) -> Observation:
        """One look at everybody."""
        now = time.monotonic()
        if now - self._due_s > LATE_S:
            self._skip = 5
        self._due_s = now + TICK_S
        looks = self._looks(cluster)
        committed = self.first_commit(cluster)
        if self._skip > 0:
            self._skip -= 1
            return Observation(committed, [], "")
        generation_open = cluster.roster is not None and not cluster.closed
        verdicts = self.judge.judge(now, looks, generation_open)
        stalled = "" if verdicts or not generation_open else self.judge.stalled(looks)
        return Observation(committed, verdicts, stalled)

    def _looks(self, cluster: Cluster) -> list[Look]:
        looks = []
        for worker in self._table.living():
            facts = cluster.workers.get(worker.slot)
            if facts is None or facts.incarnation != worker.incarnation:
                continue
            info = self._segment.slot_info(worker.slot)
            looks.append(
                Look(
                    slot=worker.slot,
                    stage=Stage(info.state),
                    process_state=process_state(worker.pid),
                    heartbeats=info.heartbeats,
                    heartbeat_age_s=info.heartbeat_age_s,
                    step=info.step,
                    phase=info.phase,
                    progress_age_s=info.progress_age_s,
                    commit_steps=info.commit_steps,
                    age_s=(time.monotonic_ns() - worker.asked_ns) / 1e9,
                    member=cluster.member(facts) is not None,
                    starved=info.heartbeat_age_s > 0.3 and _runnable(worker.pid),
                )
            )
        return looks

    def first_commit(self, cluster: Cluster) -> bool:
        """Whether all members committed a step in this generation, and it was not known yet."""
        roster = cluster.roster
        if roster is None or cluster.closed or cluster.committed:
            return False
        infos = [self._segment.slot_info(slot) for slot in slots_here(roster)]
        return bool(infos) and all(
            info.commit_generation == roster.generation and info.commit_steps > roster.steps
            for info in infos
        )


def _runnable(pid: int) -> bool:
    """Whether some thread waits for a CPU: then an overdue heartbeat may be the machine's fault."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return False
    return any(process_state_of(pid, thread) == "R" for thread in threads)


def process_state_of(pid: int, thread: str) -> str:
    """The letter of one thread's stat; 'X' if it is gone."""
    try:
        with open(f"/proc/{pid}/task/{thread}/stat", "rb") as stat:
            return chr(stat.read().rpartition(b") ")[2][0])
    except (OSError, IndexError):
        return "X"
