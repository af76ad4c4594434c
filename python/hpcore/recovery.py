"""How a worker gets into a generation: waits for a roster that names it, builds the communicator,
gives or takes state.
 Every phase can be hit by the next fault: `RosterChanged` starts it again with the newer roster,
any other exception is mailed to the agent, which then makes a new generation. Training thread only.
"""

from __future__ import annotations

import time
import traceback
from typing import TYPE_CHECKING, Any

from hpcore import carried
from hpcore.checkpointless import heal
from hpcore.errors import JobStopped, MismatchError, PeerDead, RosterChanged
from hpcore.membership.roster import Roster
from hpcore.step import USAGE_ERRORS
from hpcore.world import Mail, Phase, RosterWorld, State, Version

if TYPE_CHECKING:
    from hpcore.loop import Loop

_PATIENT_S = 3600.0  # one wait of a standby, or for the first roster; repeated


class Recovery:
    """The way of one worker from roster to roster."""

    def __init__(self, loop: Loop, worker: Any, deadline_s: float) -> None:
        self._loop = loop
        self._worker = worker
        self.deadline_s = deadline_s
        self._seen = 0  # newest generation that was tried

    def enter(self) -> None:
        """Waits for the first roster that names this worker, as long as it takes, and joins it."""
        self._join(patient=True)

    def rejoin(self) -> None:
        """Joins the next generation after a discarded step.

        Raises JobStopped if none is published in time; the agent stops the job before that.
        """
        self._seen = max(self._seen, self._loop.world.generation)
        self._join(patient=False)

    def fault(self, step: int, generation: int, torn: bool, text: str) -> None:
        """Mails an exception to the agent."""
        self._worker.post(Mail.FAULT, step, generation << 8 | int(torn), text)

    def _join(self, patient: bool) -> None:
        joined = False
        while not joined:
            joined, patient = self._try_next(patient)

    def _try_next(self, patient: bool) -> tuple[bool, bool]:
        """Takes the next roster: (joined, whether the one after may take as long as it likes)."""
        loop = self._loop
        try:
            if not patient:
                loop.drill.fire("notify", loop.drill_rank, loop.steps_done)
            roster = self._next_roster(patient)
            self._seen = roster.generation
            if not self._names_me(roster):
                self._be_released()
                return False, True
            self._reform(roster)
            return True, False
        except (RosterChanged, PeerDead):  # of a dead source the agent knows, or will at once
            return False, False
        except USAGE_ERRORS:
            raise
        except Exception:
            torn = self._worker.version in (Version.NONE, Version.TORN)
            self.fault(loop.steps_done, self._seen, torn, traceback.format_exc())
            return False, False

    def _next_roster(self, patient: bool) -> Roster:
        waited = time.monotonic()
        # The agent's own deadline is the same; it speaks first.
        limit = _PATIENT_S if patient else 2 * self.deadline_s + 10
        while True:
            found = self._worker.wait_roster(self._seen, limit)
            if found is not None:
                return Roster.from_bytes(found[1])
            if not patient:
                raise JobStopped(
                    f"rank {self._loop.world.rank}: no roster after generation {self._seen} within "
                    f"{time.monotonic() - waited:.1f} s; the agent's log says why"
                )

    def _names_me(self, roster: Roster) -> bool:
        member = roster.member_of(self._worker.slot)
        return member is not None and member.incarnation == self._worker.incarnation

    def _be_released(self) -> None:
        """Becomes (or stays) a standby: its state is not needed any more."""
        worker = self._worker
        if worker.state == State.TRAINING and self._loop.member:
            worker.post(Mail.RELEASED, self._loop.steps_done, 0, "")
        if self._loop.member:
            worker.version = Version.NONE
            self._loop.member = False
            worker.state = State.WARM
        worker.progress(self._loop.steps_done, Phase.STANDBY)

    def _reform(self, roster: Roster) -> None:
        loop, worker = self._loop, self._worker
        noticed_ns = time.monotonic_ns()
        rank = roster.rank_of(worker.slot)
        assert rank is not None
        if worker.state != State.TRAINING:
            worker.state = State.TRAINING
        worker.progress(roster.steps, Phase.REFORM)
        loop.drill.fire("reform", rank, roster.steps)
        loop.enter_world(RosterWorld(worker, roster))
        loop.record(
            "reform",
            generation=roster.generation,
            rank=rank,
            noticed_ns=noticed_ns,
            communicator_ns=time.monotonic_ns(),
        )
        self._take_state(roster)
        loop.member = True

    def _take_state(self, roster: Roster) -> None:
        loop, worker = self._loop, self._worker
        receiving = worker.slot in roster.receivers
        changed = receiving
        if not receiving:
            self._check_version(roster)
        if roster.receivers:
            worker.progress(roster.steps, Phase.HEAL)
            if receiving:
                worker.version = Version.NONE
            try:
                changed = heal(loop, worker, roster)
            except (MismatchError, JobStopped) as error:
                worker.post(Mail.STOP, roster.steps, 0, str(error))
                raise
        if changed:
            loop.healed()
        if roster.receivers and loop.tiers.on:
            carried.bring_back(loop)
        if changed:
            worker.version = roster.steps
        loop.tiers.joined()
        worker.progress(roster.steps, Phase.IDLE)

    def _check_version(self, roster: Roster) -> None:
        """A member that is to go on must hold the state of the boundary."""
        loop, worker = self._loop, self._worker
        if worker.version == roster.steps:
            return
        if (
            worker.version == Version.NONE and roster.steps == 0
        ):  # nobody has stepped: what the script made
            loop.become_source()
            worker.version = 0
            return
        found = worker.version
        if found == Version.TORN:
            raise RosterChanged(
                "this worker's fault is not in this roster yet: the next one heals it"
            )
        worker.version = Version.TORN
        raise RuntimeError(
            f"rank {loop.world.rank} is to go on from step {roster.steps} in generation "
            f"{roster.generation} but holds version {found:#x}: it must be healed"
        )
