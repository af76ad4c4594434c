"""Carries out what `decide` says about generations: the short path from an event to a published
roster.

One thread. Nothing here writes to a disk, prints, or takes a lock that others hold for long.
Everything else that a decision asks for (kill, spawn, stop) is collected in an `Outcome` for the
agent.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hpcore.errors import HpcoreError
from hpcore.membership.decide import decide
from hpcore.membership.roster import Roster
from hpcore.membership.rosters import Rosters
from hpcore.membership.state import (
    FLAG_KEPT,
    VERSION_APPLYING,
    VERSION_NONE,
    VERSION_TORN,
    Closed,
    Cluster,
    Decision,
    Died,
    Event,
    Exited,
    Policy,
    Spawn,
    Stage,
    StageChanged,
    Stop,
)

if TYPE_CHECKING:
    from hpcore import _core

FLAG_RECOVERABLE = 1


@dataclass
class Outcome:
    """What one event led to. `published` has (roster, CLOCK_MONOTONIC ns when workers could see
    it)."""

    stop: Stop | None = None
    kill: list[int] = field(default_factory=list)
    spawn: list[Spawn] = field(default_factory=list)
    published: tuple[Roster, int] | None = None
    revoked_ns: int | None = None
    ranks: int = 0
    """Ranks of the job, if this is the first to say so."""
    wait_until_ns: int | None = None


class Registrar:
    """Holds the facts between events. `cluster` may be read from any thread (it is immutable)."""

    def __init__(
        self,
        segment: _core.NodeSegment,
        rosters: Rosters,
        cluster: Cluster,
        policy: Policy,
    ) -> None:
        from hpcore import _core

        self._segment = segment
        self._rosters = rosters
        self._policy = policy
        self._words = {
            _core.VERSION_NONE: VERSION_NONE,
            _core.VERSION_TORN: VERSION_TORN,
            _core.VERSION_APPLYING: VERSION_APPLYING,
        }
        self.cluster = cluster

    def feed(self, event: Event) -> Outcome:
        """One event, through to the published roster if there is to be one."""
        outcome = Outcome()
        decision = decide(self.cluster, event, self._policy, time.monotonic_ns())
        while True:
            self.cluster = decision.cluster
            self._collect(decision, outcome)
            if decision.stop is not None or not decision.close:
                return outcome
            closed = self._close(event.at_ns)
            outcome.revoked_ns = closed.at_ns
            decision = decide(self.cluster, closed, self._policy, time.monotonic_ns())

    def poll(self) -> list[Outcome]:
        """What came from elsewhere: nothing, in a job on one node."""
        return []

    def close(self) -> None:
        """Leaves the job. Twice is fine."""

    def died(self, slot: int, incarnation: int, at_ns: int) -> Outcome:
        """A life word says that its worker is dead."""
        info = self._segment.slot_info(slot)
        return self.feed(
            Died(
                at_ns,
                slot,
                incarnation,
                Stage(info.state),
                bool(info.flags & FLAG_RECOVERABLE),
                self._someone_left(slot),
            )
        )

    def exited(self, slot: int, incarnation: int, code: int) -> Outcome:
        """A process was reaped. Its slot still has its last words."""
        info = self._segment.slot_info(slot)
        recoverable = bool(info.flags & FLAG_RECOVERABLE)
        now = time.monotonic_ns()
        return self.feed(Exited(now, slot, incarnation, code, Stage(info.state), recoverable))

    def stage_changed(self, slot: int, incarnation: int, at_ns: int) -> Outcome | None:
        """Looks at a worker's state and flags; None if they are as known."""
        worker = self.cluster.workers.get(slot)
        if worker is None or worker.incarnation != incarnation:
            return None
        info = self._segment.slot_info(slot)
        stage, recoverable = Stage(info.state), bool(info.flags & FLAG_RECOVERABLE)
        if info.incarnation != incarnation or (worker.stage, worker.recoverable) == (
            stage,
            recoverable,
        ):
            return None
        return self.feed(StageChanged(at_ns, slot, incarnation, stage, recoverable))

    def revoke(self) -> None:
        """Ends the current generation, if there is one, without another: collectives return."""
        roster = self.cluster.roster
        if roster is not None:
            self._segment.close_generation(roster.generation)

    def _someone_left(self, dead: int) -> bool:
        """Whether a member has left its Job's loop: recovery is over then."""
        for slot, worker in self.cluster.workers.items():
            if slot != dead and worker.recoverable and self.cluster.member(worker) is not None:
                info = self._segment.slot_info(slot)
                if info.incarnation == worker.incarnation and not info.flags & FLAG_RECOVERABLE:
                    return True
        return False

    def _collect(self, decision: Decision, outcome: Outcome) -> None:
        outcome.wait_until_ns = decision.wait_until_ns
        outcome.kill.extend(decision.kill)
        if decision.stop is not None:
            outcome.stop = decision.stop
            return
        if decision.roster is not None:
            outcome.published = (decision.roster, self._publish(decision.roster))
        outcome.spawn.extend(decision.spawn)

    def _close(self, at_ns: int) -> Closed:
        roster = self.cluster.roster
        assert roster is not None
        steps = min(self._segment.close_generation(roster.generation))
        versions, kept = {}, False
        for slot in roster.slots:
            info = self._segment.slot_info(slot)
            versions[slot] = self._words.get(info.version, info.version)
            kept = kept or bool(info.flags & FLAG_KEPT)
        return Closed(at_ns, roster.generation, steps, versions, kept)

    def _publish(self, roster: Roster) -> int:
        if not self._rosters.commit(roster):
            raise HpcoreError(
                f"the coordinator has another roster of generation {roster.generation}: "
                "a second agent works on this job"
            )
        self._segment.open_commit(roster.slots, roster.generation, roster.steps)
        self._segment.set_ranked(roster.slots)
        self._segment.publish(roster.generation, roster.to_bytes().decode())
        return time.monotonic_ns()
