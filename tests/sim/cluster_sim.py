"""A node in a nutshell: workers as small state machines, an agent that only does what `decide`
says, any order of events.

One `random.Random(seed)` makes every choice, so a seed is a replay. Invariants are asserted
where they would break.
"""

from __future__ import annotations

import random
from collections import defaultdict, deque
from dataclasses import dataclass, field

from cluster_truth import Plan, Process, Word, check_roster

from hpcore.membership.decide import decide
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
    Closed,
    Cluster,
    Decision,
    Died,
    Event,
    Exited,
    Faulted,
    FirstCommit,
    Policy,
    Resized,
    Spawn,
    Spawned,
    Stage,
    StageChanged,
    Stop,
    Tick,
)

SECOND = 1_000_000_000


@dataclass
class Simulation:
    """One run; `run()` returns how it ended."""

    seed: int
    plan: Plan
    rng: random.Random = field(init=False)
    now_ns: int = SECOND
    processes: dict[int, Process] = field(default_factory=dict)  # by slot
    words: dict[int, Word] = field(default_factory=lambda: defaultdict(Word))
    queues: dict[tuple[int, str], deque[Event]] = field(default_factory=lambda: defaultdict(deque))
    told_dead: set[int] = field(default_factory=set)
    incarnations: int = 0
    rosters: list[Roster] = field(default_factory=list)
    committed: int = 0
    first_commit_told: int = 0
    stop: Stop | None = None

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.policy = Policy(
            self.plan.min_ranks,
            deadline_ns=60 * SECOND,
            sizes=self.plan.sizes,
            settle_ns=SECOND // 10 if self.plan.patient else 0,
            standby_wait_ns=SECOND // 5 if self.plan.patient else 0,
            snooze_ns=SECOND // 2 if self.plan.patient else 0,
        )
        self.cluster = Cluster("sim", self.plan.nproc, self.plan.nproc, self.plan.standbys)
        self.faults_left = self.plan.faults

    # --- the agent ----------------------------------------------------------------------------

    def deliver(self, event: Event) -> None:
        if isinstance(event, Died):
            self.told_dead.add(event.incarnation)
        decision = decide(self.cluster, event, self.policy, self.now_ns)
        while True:
            self.cluster = decision.cluster
            if decision.stop is not None:
                self.stop = decision.stop
                return
            self.apply(decision)
            if not decision.close:
                return
            decision = decide(self.cluster, self.close(), self.policy, self.now_ns)

    def apply(self, decision: Decision) -> None:
        for slot in decision.kill:
            self.kill(self.processes[slot])
        if decision.roster is not None:
            assert not decision.close
            self.publish(decision.roster)
        for spawn in decision.spawn:
            self.spawn(spawn)

    def close(self) -> Closed:
        roster = self.rosters[-1]
        for slot in roster.slots:
            self.words[slot].closed = True
        steps = min(self.words[slot].steps for slot in roster.slots)
        assert steps == self.committed, f"{steps} frozen, {self.committed} committed"
        versions = {slot: self.processes[slot].version for slot in roster.slots}
        return Closed(self.now_ns, roster.generation, steps, versions)

    def publish(self, roster: Roster) -> None:
        old = self.rosters[-1] if self.rosters else None
        check_roster(roster, old, self.processes, self.told_dead)
        assert roster.steps == self.committed
        assert old is None or self.cluster.target >= roster.world_size
        assert roster.world_size >= min(self.plan.min_ranks, self.cluster.target)
        assert not self.plan.sizes or roster.world_size in self.plan.sizes
        self.rosters.append(roster)
        for slot in roster.slots:
            self.words[slot] = Word(roster.generation, roster.steps, closed=False)

    def spawn(self, spawn: Spawn) -> None:
        slot = next(s for s in range(64) if s not in self.processes)
        self.incarnations += 1
        self.processes[slot] = Process(slot, self.incarnations, spawn.rank)
        self.tell(
            slot, "spawn", Spawned(self.now_ns, slot, self.incarnations, 1000 + slot, spawn.rank)
        )

    # --- the workers --------------------------------------------------------------------------

    def tell(self, slot: int, kind: str, event: Event) -> None:
        self.queues[slot, kind].append(event)

    def kill(self, process: Process) -> None:
        if not process.alive:
            return
        process.alive = False
        args = (self.now_ns, process.slot, process.incarnation)
        ended = process.stage is Stage.FINISHED
        self.tell(process.slot, "death", Died(*args, process.stage, not ended, ended))
        self.tell(
            process.slot, "exit", Exited(*args, 0 if ended else 137, process.stage, not ended)
        )

    def act(self, process: Process) -> bool:
        """One move of one worker; False if it can only wait."""
        newest = self.rosters[-1] if self.rosters else None
        if process.stage is Stage.STARTING:
            process.stage = Stage.TRAINING if process.rank is not None else Stage.WARM
            args = (self.now_ns, process.slot, process.incarnation, process.stage, True)
            self.tell(process.slot, "stage", StageChanged(*args))
            return True
        if process.stage is Stage.FINISHED or newest is None:
            return False
        if process.version == APPLYING:  # the step is finished whatever the roster says
            assert process.roster is not None
            process.version = self.words_steps(process)
            return True
        if process.roster is not newest:
            process.roster, process.failed = newest, False
            if not process.member() or process.slot in newest.receivers:
                process.version = NONE
            elif process.version == NONE:
                process.version = 0  # first holder: what the script built
            return True
        return process.member() and not process.failed and self.train(process, newest)

    def words_steps(self, process: Process) -> int:
        return self.applied[process.incarnation]

    @property
    def applied(self) -> dict[int, int]:
        return self.__dict__.setdefault("_applied", {})

    def train(self, process: Process, roster: Roster) -> bool:
        word = self.words[process.slot]
        if process.version == TORN:
            return False  # the next roster has it heal
        if process.version == NONE:
            sources = [
                s for s in roster.sources if self.processes.get(s) and self.processes[s].alive
            ]
            ready = [s for s in sources if self.processes[s].version == roster.steps]
            if not ready or word.closed:
                return False
            process.version = roster.steps
            return True
        if word.steps == process.version:
            if word.closed or word.generation != roster.generation:
                return False
            if process.version == self.plan.total:
                return self.finish(process, roster)
            word.steps += 1
            if all(self.words[s].steps > process.version for s in roster.slots):
                assert self.committed == process.version, "a step committed twice"
                self.committed += 1
            return True
        if all(self.words[s].steps >= word.steps for s in roster.slots):
            self.applied[process.incarnation] = word.steps
            process.version = APPLYING
            return True
        return False

    def finish(self, process: Process, roster: Roster) -> bool:
        """After the last step: all have applied it, then all leave at once (the empty step)."""
        members = [self.processes[s] for s in roster.slots]
        done = [
            p.stage is Stage.FINISHED or (p.version == self.plan.total and not p.failed)
            for p in members
        ]
        if not all(done) or not all(p.alive or p.stage is Stage.FINISHED for p in members):
            return False
        self.faults_left = 0  # the empty step is committed: recovery is over
        process.stage = Stage.FINISHED
        args = (self.now_ns, process.slot, process.incarnation, Stage.FINISHED, False)
        self.tell(process.slot, "stage", StageChanged(*args))
        self.kill(process)
        return True

    def fault(self) -> None:
        """One fault of the plan."""
        self.faults_left -= 1
        victims = [p for p in self.processes.values() if p.alive]
        if not victims:
            return
        process = self.rng.choice(victims)
        if self.plan.resize and self.rng.random() < 0.5:
            self.tell(-1, "resize", Resized(self.now_ns, self.rng.randint(1, self.plan.nproc)))
            return
        roster = process.roster
        kind = self.rng.choice(self.plan.kinds)
        training = process.member() and process.version not in (NONE, TORN) and not process.failed
        if kind == "kill" or roster is None or not training:
            self.kill(process)
            return
        torn = process.version == APPLYING
        step = self.applied[process.incarnation] - 1 if torn else process.version
        if torn:
            process.version = TORN
        process.failed = True
        args = (self.now_ns, process.slot, process.incarnation, roster.generation, step, torn)
        self.tell(process.slot, "fault", Faulted(*args, f"Error {self.rng.random()}"))

    # --- the run ------------------------------------------------------------------------------

    def run(self) -> Stop:
        self.deliver(Tick(self.now_ns))
        idle = 0
        for _ in range(60_000):
            if self.stop is not None:
                return self.stop
            self.now_ns += self.rng.randint(1, SECOND // 100)
            if self.faults_left and self.rng.random() < 0.02:
                self.fault()
            idle = 0 if self.step() else idle + 1
            if idle > 50:
                self.now_ns += 10 * SECOND
                self.deliver(Tick(self.now_ns))
        raise AssertionError(f"seed {self.seed}: no end; {self.cluster}")

    def step(self) -> bool:
        roster = self.rosters[-1] if self.rosters else None
        begun = roster is not None and self.committed > roster.steps
        if begun and self.first_commit_told < len(self.rosters) and self.rng.random() < 0.5:
            self.first_commit_told = len(self.rosters)
            self.deliver(FirstCommit(self.now_ns, self.first_commit_told))
            return True
        queues = [key for key, queue in list(self.queues.items()) if queue and self.may(key)]
        if queues and self.rng.random() < 0.5:
            key = self.rng.choice(queues)
            event = self.queues[key].popleft()
            self.deliver(event)
            if isinstance(event, Exited):
                self.recycle(event)
            return True
        living = [p for p in self.processes.values() if p.alive]
        return (bool(living) and self.act(self.rng.choice(living))) or bool(queues)

    def may(self, key: tuple[int, str]) -> bool:
        """A worker is heard only after the agent knows that it was forked."""
        slot, kind = key
        return kind == "spawn" or not self.queues.get((slot, "spawn"))

    def recycle(self, event: Exited) -> None:
        """A slot is used again when its exit was seen, its death is told and no current roster
        names it."""
        for slot, process in list(self.processes.items()):
            told = not any(self.queues[slot, kind] for kind in ("death", "exit", "stage", "fault"))
            named = self.rosters and self.rosters[-1].rank_of(slot) is not None
            if not process.alive and told and not named:
                del self.processes[slot]
