"""Where this process stands: its rank in one generation, how it agrees with the others, what it
tells the agent.
 `SoloWorld` is a process without an agent, or a standby in its rehearsal: all is agreed at once.
`RosterWorld` is a member of one roster. Both are used by the training thread only.
"""

from __future__ import annotations

from typing import Any, Protocol

from hpcore import _core
from hpcore.errors import RosterChanged
from hpcore.gradients import STEP_TIMEOUT_S
from hpcore.membership.places import slots_here
from hpcore.membership.roster import Roster
from hpcore.membership.state import FLAG_KEPT
from hpcore.nodes.joining import communicator_over_nodes


class Phase:
    """What a worker is doing, for the agent's hang detection."""

    START, FORWARD, REDUCE, APPLY, IDLE, REFORM, HEAL, STANDBY, ENDED = range(9)


class Flag:
    """Flags of a slot that a worker sets."""

    RECOVERABLE = _core.FLAG_RECOVERABLE
    KEPT = FLAG_KEPT


class State:
    """States of a slot that a Job sets."""

    WARM = _core.STATE_WARM
    TRAINING = _core.STATE_TRAINING


class Mail:
    """Kinds of mail to the agent."""

    FAULT, SCRIPT_ERROR, STOP, TIMELINE, RELEASED = range(1, 6)


class Version:
    """What a worker's version word says when it is no number of steps."""

    NONE = _core.VERSION_NONE
    TORN = _core.VERSION_TORN
    APPLYING = _core.VERSION_APPLYING


class World(Protocol):
    """A rank in a generation.

    `rewound`: by how many steps all ranks went back so far. The commit words count agreed steps,
    which is a step's number plus this.
    """

    rank: int
    rewound: int
    world_size: int
    generation: int
    communicator: Any

    def check(self) -> None:
        """Raises RosterChanged if the generation is over."""

    def ready(self, step: int) -> None:
        """Says ready. Raises RosterChanged if the generation is over."""

    def wait(self, step: int) -> None:
        """Waits until `step` is committed. Raises RosterChanged if it is discarded."""

    def progress(self, step: int, phase: int) -> None:
        """Tells the agent that this worker moves."""

    def close(self) -> None:
        """Lets the communicator go."""


class SoloWorld:
    """Alone, or as if all others did the same at once."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank = rank
        self.rewound = 0
        self.world_size = world_size
        self.generation = 0
        self.communicator: Any = _core.Communicator.rehearsal(world_size)

    def check(self) -> None: ...

    def ready(self, step: int) -> None: ...

    def wait(self, step: int) -> None: ...

    def progress(self, step: int, phase: int) -> None: ...

    def close(self) -> None:
        self.communicator.close()


class RosterWorld:
    """A member of a roster. Making one builds its communicator; raises RosterChanged if the roster
    is out of date."""

    def __init__(self, worker: Any, roster: Roster) -> None:
        rank = roster.rank_of(worker.slot)
        assert rank is not None, "a roster that does not name this slot"
        self.rank = rank
        self.rewound = 0
        self.world_size = roster.world_size
        self.generation = roster.generation
        self.roster = roster
        self._worker = worker
        self._slots = slots_here(roster)
        self.communicator: Any = (
            _core.Communicator.world(worker, roster.generation, rank, roster.slots)
            if len(self._slots) == roster.world_size
            else communicator_over_nodes(worker, roster, rank, self._slots)
        )
        self.over_nodes = len(self._slots) != roster.world_size
        self._speaks = getattr(self.communicator, "speaks", False)

    def check(self) -> None:
        if self._worker.revoked(self.generation):
            raise RosterChanged(f"generation {self.generation} is over")

    def ready(self, step: int) -> None:
        if not self._worker.ready(self.generation, step + self.rewound):
            raise RosterChanged(f"generation {self.generation} is over: step {step} was not agreed")

    def wait(self, step: int) -> None:
        count = step + self.rewound
        if self._speaks:
            self._tell_other_nodes(count)
        outcome = self._worker.wait_commit(self.generation, count, self._slots, STEP_TIMEOUT_S)
        if outcome != "committed":
            raise RosterChanged(f"step {step} of generation {self.generation} was {outcome}")

    def _tell_other_nodes(self, count: int) -> None:
        """This node's spokesman: what was not told is settled by the agents."""
        worker, generation = self._worker, self.generation
        here = worker.wait_commit(generation, count, self._slots, STEP_TIMEOUT_S, here=True)
        if here != "committed":
            return
        try:
            self.communicator.ready_everywhere(generation, count + 1, STEP_TIMEOUT_S)
        except RosterChanged:
            return
        worker.segment.advance_peers(generation, count + 1)

    def progress(self, step: int, phase: int) -> None:
        self._worker.progress(step + self.rewound, phase)

    def close(self) -> None:
        self.communicator.close()
