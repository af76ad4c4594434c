"""The truth that a simulated agent cannot see: processes and commit words, and what rosters must
not do to them."""

from __future__ import annotations

from dataclasses import dataclass

from hpcore.membership.roster import Roster
from hpcore.membership.state import (
    VERSION_APPLYING as APPLYING,
)
from hpcore.membership.state import (
    VERSION_NONE as NONE,
)
from hpcore.membership.state import (
    VERSION_TORN as TORN,
)
from hpcore.membership.state import (
    Stage,
)


@dataclass
class Process:
    """The truth about one worker."""

    slot: int
    incarnation: int
    rank: int | None
    stage: Stage = Stage.STARTING
    alive: bool = True
    version: int = NONE
    roster: Roster | None = None  # the newest it has noticed
    failed: bool = False  # posted a fault in the roster's generation

    def member(self) -> bool:
        return self.roster is not None and any(
            m.slot == self.slot and m.incarnation == self.incarnation for m in self.roster.members
        )


@dataclass
class Word:
    """A commit word."""

    generation: int = 0
    steps: int = 0
    closed: bool = True


@dataclass
class Plan:
    """What a run is made of."""

    nproc: int
    standbys: int
    min_ranks: int
    total: int
    faults: int
    resize: bool = False
    kinds: tuple[str, ...] = ("kill", "fault", "kill")
    sizes: tuple[int, ...] = ()
    patient: bool = False  # waits for standbys, lets newcomers settle, snoozes


def holds(process: Process, steps: int) -> bool:
    """Whether a process has the state of `steps`, or will have it when it has applied."""
    return process.version == APPLYING or process.version >= max(0, steps - 1)


def check_roster(
    roster: Roster, old: Roster | None, processes: dict[int, Process], told_dead: set[int]
) -> None:
    """What must hold for every roster, against the truth."""
    assert roster.generation == (old.generation + 1 if old else 1)
    assert [m.rank for m in roster.members] == list(range(roster.world_size))
    assert len(set(roster.slots)) == roster.world_size
    assert roster.reason and roster.decided_ns >= roster.detected_ns > 0
    for member in roster.members:
        assert member.incarnation not in told_dead, "a dead member"
        assert processes[member.slot].incarnation == member.incarnation
    assert set(roster.receivers) | set(roster.sources) == set(roster.slots)
    assert not set(roster.receivers) & set(roster.sources) and roster.sources
    for slot in roster.sources if old and roster.steps else ():
        assert old is not None
        assert holds(processes[slot], roster.steps), "a source without the state"
        assert old.rank_of(slot) is not None, "a newcomer as a source"
    stayed = {m.incarnation for m in old.members} if old else set()
    for slot in roster.receivers if roster.steps else ():
        process = processes[slot]
        needs = process.version in (NONE, TORN) or process.incarnation not in stayed
        lags = process.failed and process.version < roster.steps
        assert needs or lags, "a healthy member made to heal"
