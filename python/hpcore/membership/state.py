"""What the decision function knows and what it can say: facts, events, policy, decision.

All immutable: a `Cluster` is replaced, never changed. Times are CLOCK_MONOTONIC nanoseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from hpcore.membership.roster import Member, Roster


class Stage(IntEnum):
    """How far a worker is; the values of the slot's state word."""

    EMPTY = 0
    STARTING = 1
    ATTACHED = 2
    WARM = 3
    TRAINING = 4
    FINISHED = 5
    FAILED = 6


VERSION_NONE, VERSION_TORN, VERSION_APPLYING = -1, -2, -3
"""What a version can be beside a number of steps (the native words are translated to these)."""


FLAG_KEPT = 4
"""Flag of a worker whose Job keeps copies of its state that outlive all ranks."""


@dataclass(frozen=True)
class WorkerFacts:
    """One living worker. `rank` is the one it was started with (None: standby); a roster
    overrides it."""

    slot: int
    incarnation: int
    pid: int
    rank: int | None = None
    stage: Stage = Stage.STARTING
    recoverable: bool = False
    released: bool = False  # was a member and was let go
    proved: bool = False  # was a member when a step was committed
    dying: bool = False  # dead, and its exit code decides what that means
    announcement: str = ""  # what ranks on other nodes must know of it


@dataclass(frozen=True)
class Stop:
    """The end of the job: exit code, reason in one line, a traceback to show (or nothing)."""

    code: int
    reason: str
    text: str = ""


@dataclass(frozen=True)
class Spawn:
    """A worker to be started: for a rank of the first roster, or as a standby (None)."""

    rank: int | None = None


@dataclass(frozen=True)
class Policy:
    """What the user allows. `max_restarts` None: as many as it takes."""

    min_ranks: int
    deadline_ns: int
    max_restarts: int | None = None
    same_fault_limit: int = 3
    failure_limit: int = 3
    barren_limit: int = 10  # generations in a row without a committed step
    sizes: tuple[int, ...] = ()  # allowed sizes, ascending; empty: all
    settle_ns: int = 0  # before the world grows onto those who came
    standby_wait_ns: int = 0  # before it shrinks after a loss
    snooze_ns: int = 0  # after a growth that failed


@dataclass(frozen=True)
class Cause:
    """Why the current generation must end."""

    reason: str
    at_ns: int


@dataclass(frozen=True)
class Cluster:
    """Everything `decide` remembers between events."""

    job: str
    nproc: int  # ranks of the first roster
    target: int  # ranks wanted now
    standbys: int  # standbys wanted
    workers: Mapping[int, WorkerFacts] = field(default_factory=dict)  # by slot, living
    roster: Roster | None = None
    kept: bool = False  # copies of the state outlive all members
    closed: bool = False  # the current generation takes no more commits
    committed: bool = False  # a step was committed in the current generation
    faulted: Mapping[int, bool] = field(default_factory=dict)  # slot -> torn, since the last roster
    causes: tuple[Cause, ...] = ()
    finished: frozenset[int] = frozenset()  # incarnations that ended well
    lost: Mapping[int, int] = field(default_factory=dict)  # incarnation -> rank it held
    lost_code: int | None = None  # exit code of the first one lost since the last roster
    losses: int = 0
    first_dying: int | None = None  # incarnation whose exit code will end the job
    ended: bool = False  # a member left the Job's loop: recovery is over
    pending: tuple[Spawn, ...] = ()  # asked for, not yet forked
    start_failures: int = 0  # in a row: died before it was WARM or TRAINING
    step_failures: Mapping[int, int] = field(
        default_factory=dict
    )  # by rank, in a row: died before its first commit
    start_error: str = ""
    standbys_given_up: bool = False
    faults: Mapping[tuple[int, str], frozenset[int]] = field(default_factory=dict)
    received: Mapping[int, int] = field(
        default_factory=dict
    )  # incarnation -> last generation it healed in
    barren: int = 0
    ready_ns: int | None = None  # when the first rank asked for the first roster
    vacant_ns: int | None = None  # since when ranks are missing that nobody can take
    growable_ns: int | None = None  # since when there are ranks to grow with
    growth_failed_ns: int | None = None  # when a newcomer was lost before its first commit
    asked: bool = False  # the target is what the user asked for, and was not reached yet
    stop: Stop | None = None

    def member(self, worker: WorkerFacts) -> Member | None:
        """The worker's place in the current roster, if it has one."""
        found = self.roster.member_of(worker.slot) if self.roster else None
        return found if found is not None and found.incarnation == worker.incarnation else None

    def alive(self, member: Member) -> WorkerFacts | None:
        """The living worker behind a member of the roster."""
        worker = self.workers.get(member.slot)
        if worker is None or worker.incarnation != member.incarnation or worker.dying:
            return None
        return worker


@dataclass(frozen=True)
class Event:
    """Something that happened; `at_ns` is when it was noticed."""

    at_ns: int = 0


@dataclass(frozen=True)
class Tick(Event):
    """Nothing but time has passed (also: the beginning)."""


@dataclass(frozen=True)
class Spawned(Event):
    """A worker was forked."""

    slot: int = 0
    incarnation: int = 0
    pid: int = 0
    rank: int | None = None


@dataclass(frozen=True)
class SpawnFailed(Event):
    """A worker could not be forked."""

    rank: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class StageChanged(Event):
    """A worker's state word or flags changed."""

    slot: int = 0
    incarnation: int = 0
    stage: Stage = Stage.ATTACHED
    recoverable: bool = False
    announcement: str = ""


@dataclass(frozen=True)
class Died(Event):
    """A worker's life word says that it is dead. `ended`: some member has left the Job's loop."""

    slot: int = 0
    incarnation: int = 0
    stage: Stage = Stage.TRAINING
    recoverable: bool = False
    ended: bool = False


@dataclass(frozen=True)
class Exited(Event):
    """A worker's process was reaped; `code` is 128+signal if a signal ended it. Stage and flag
    as it left them."""

    slot: int = 0
    incarnation: int = 0
    code: int = 0
    stage: Stage = Stage.TRAINING
    recoverable: bool = False


@dataclass(frozen=True)
class Faulted(Event):
    """A worker caught an exception in a step. `generation` 0: the current one."""

    slot: int = 0
    incarnation: int = 0
    generation: int = 0
    step: int = 0
    torn: bool = False
    signature: str = ""
    text: str = ""


@dataclass(frozen=True)
class ScriptFailed(Event):
    """An exception left a worker's script."""

    slot: int = 0
    incarnation: int = 0
    text: str = ""


@dataclass(frozen=True)
class StopAsked(Event):
    """A worker or the user asks for the end of the job."""

    code: int = 1
    reason: str = ""


@dataclass(frozen=True)
class Closed(Event):
    """The current generation is closed: committed steps, and the members' versions (or
    VERSION_...). `kept`: there are copies of the state that outlive the members."""

    generation: int = 0
    steps: int = 0
    versions: Mapping[int, int] = field(default_factory=dict)  # by slot
    kept: bool = False


@dataclass(frozen=True)
class FirstCommit(Event):
    """All members of `generation` committed a step in it."""

    generation: int = 0


@dataclass(frozen=True)
class Stalled(Event):
    """The current generation does not move, and nobody in particular is to blame."""

    generation: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Resized(Event):
    """The user wants another number of ranks."""

    target: int = 0


@dataclass(frozen=True)
class NodeLost(Event):
    """A node is gone with all its workers; their places are `node * 64` and above."""

    node: int = 0
    reason: str = ""


@dataclass(frozen=True)
class NodesChanged(Event):
    """Nodes came or went: so many ranks and standbys are wanted now."""

    target: int = 0
    standbys: int = 0


@dataclass(frozen=True)
class Decision:
    """What is to be done, in this order: stop, else kill, close (then say Closed), roster,
    spawn, wait."""

    cluster: Cluster
    stop: Stop | None = None
    kill: tuple[int, ...] = ()
    close: bool = False
    roster: Roster | None = None
    spawn: tuple[Spawn, ...] = ()
    wait_until_ns: int | None = None
