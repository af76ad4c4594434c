"""The loop behind `Job.steps`: steps, boundaries, rollback, rehearsal and the end.
 Holds what a step needs: world, tracked state, gradients, shadow, drills, events. Training thread
only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from hpcore import _core, carried
from hpcore.agent.events import EventLog
from hpcore.batches import Batches
from hpcore.buffers import ReplicatedBuffers
from hpcore.comparison import Comparison
from hpcore.data_position import TRACKED_AS, DataPosition
from hpcore.drill import job_drill
from hpcore.errors import InvalidArgument
from hpcore.exact import ExactGradients
from hpcore.gradients import Gradients
from hpcore.ledger import Ledger
from hpcore.loop_end import agree_on_end, leave
from hpcore.membership.process import JobFacts
from hpcore.membership.roster import Roster
from hpcore.network import Network
from hpcore.nodes.joining import announce, refuse_on_several
from hpcore.protection import Protection
from hpcore.ranklocal import RankLocal
from hpcore.recovery import Recovery
from hpcore.rehearsal import Rehearsal
from hpcore.replicas import HealPlan
from hpcore.rollback import Shadow
from hpcore.serving import regions_of
from hpcore.shards import Lane, Shards
from hpcore.step import Step
from hpcore.tiers import Tiers
from hpcore.tracked import TrackedState, capture
from hpcore.world import Flag, RosterWorld, SoloWorld, State, Version, World

_LOOKS_IN_BACKWARD = 16
"""How often a backward looks whether the generation is over: a lost rank is to be noticed within a
part of a micro-batch, at less than 20 us a micro-batch."""


class Loop:
    """Everything of a job that is not its public face."""

    def __init__(
        self,
        batches: Batches,
        worker: Any,
        facts: JobFacts | None,
        ledger: bool | str,
        protection: Protection,
    ) -> None:
        self.batches = batches
        self.worker = worker
        self.shows_samples = bool(ledger)
        path = ledger if isinstance(ledger, str) else "" if facts is None else facts.ledger
        self.ledger = Ledger(path, batches, "" if facts is None else facts.job)
        self.steps_done = 0
        self.rewound = 0  # by how many steps all ranks went back so far
        self.rehearsing = False
        self.member = False
        self.first_of_generation = True
        self.state = TrackedState()
        self.gradients = ExactGradients() if protection.exact else Gradients()
        self.replicated: list[nn.Module] = []
        self.shards = Shards()
        self.lane = Lane(0, 1)
        self.comparison = Comparison(self, protection)
        self.tiers = Tiers(self, protection, 0 if facts is None else facts.agent_pid)
        self.network = Network.from_environment()
        self.rank_local = RankLocal()
        self.shadow = Shadow(self.state)
        self.buffers = ReplicatedBuffers(self.state, (), self.shadow)
        self._facts = facts
        self._events: EventLog | None = None
        self._rehearsal = Rehearsal(self)
        self._served: list[Any] = []
        self._on_huge_pages = False
        self._checked: set[int] = set()
        rank, world_size, faults = 0, 1, ""
        if facts is not None:
            rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
            faults = facts.faults
            if facts.log_dir:
                self._events = EventLog(os.path.join(facts.log_dir, "events.jsonl"))
            self.tiers.ask_for_keeper(worker)
            announce(worker)
            worker.version = Version.NONE
            worker.flags |= Flag.RECOVERABLE | (Flag.KEPT if protection.keeps else 0)
            self.recovery = Recovery(self, worker, facts.recovery_deadline_s)
        self.world: World = SoloWorld(rank, world_size)
        self.drill = job_drill(faults, worker, self.record)

    # --- before the loop ----------------------------------------------------------------------

    def replicate(self, model: nn.Module) -> None:
        """Remembers the module and its parameters."""
        if all(known is not model for known in self.replicated):
            self.replicated.append(model)
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    self.gradients.add(name, parameter)

    def shard(self, model: nn.Module) -> None:
        """Remembers a sharded module; what of it is not sharded is replicated."""
        refuse_on_several(self.worker, f"job.shard({type(model).__name__})")
        if all(known is not model for known in self.shards.modules):
            managed, plain = self.shards.add(model)
            self.gradients.add_reduced(managed)
            for name, parameter in plain:
                self.gradients.add(name, parameter)

    def check_optimizers(self, optimizers: list[Any]) -> None:
        """Raises InvalidArgument unless each is tracked and works on replicated parameters only."""
        for optimizer in optimizers:
            if id(optimizer) not in self._checked:
                if not self.state.has(optimizer):
                    kind = type(optimizer).__name__
                    raise InvalidArgument(
                        f"{kind} is not tracked: call job.track(optimizer=...) first"
                    )
                self.gradients.check_covers(optimizer)
                self._checked.add(id(optimizer))

    # --- the loop -----------------------------------------------------------------------------

    def run(self, data: Any, total: int) -> Iterator[Step]:
        """See `Job.steps`."""
        for index, model in enumerate(self.models):
            if not self.state.has(model):
                self.state.add(f"replica{index}", model)
        self.state.add(TRACKED_AS, DataPosition(data, self.batches, lambda: self.steps_done))
        world = self.world
        self.gradients.prepare()
        self.shards.check(self.batches.count, world.world_size, len(self.gradients.parameters))
        self.lane = self.shards.lane(world.rank, world.world_size)
        self.shadow = Shadow(self.state)
        self.buffers = ReplicatedBuffers(self.state, self.models, self.shadow)
        self._boundary()
        if self.worker is not None:
            self.gradients.watch(lambda: self.world.check(), _LOOKS_IN_BACKWARD)
            if self._facts is not None and self._facts.standby:
                yield from self._rehearsal.run(data)
            else:
                self.worker.state = State.TRAINING
            self.recovery.enter()
        attempt = 1
        while True:
            if self.steps_done < total:
                step = Step(self, self.steps_done, data, attempt)
                try:
                    yield step
                except GeneratorExit:  # the script breaks out: nothing after this is recovered
                    leave(self)
                    raise
                step.require_ended()
                attempt = attempt + 1 if step.discarded else 1
                if not step.discarded:
                    continue
            elif agree_on_end(self, total):
                return
            self.recovery.rejoin()

    # --- called by Step -----------------------------------------------------------------------

    def begin_step(self, step: int) -> list[Any]:
        """Drops old gradients and arms drills; returns the hooks to be removed at the end."""
        self.gradients.clear()
        places = {"forward": self._hook_forward, "backward": self.gradients.hook}
        return self.drill.hooks(self.drill_rank, step, places)

    @property
    def models(self) -> list[nn.Module]:
        """Modules whose gradients are summed over ranks, replicated ones first."""
        return [*self.replicated, *self.shards.modules]

    def _hook_forward(self, action: Callable[[], None]) -> Any:
        return self.models[0].register_forward_hook(lambda *_: action())

    @property
    def drill_rank(self) -> int | None:
        """The rank that fault rules speak of; None for a standby."""
        return None if self.rehearsing else self.world.rank

    def intend(self, step: Step) -> None:
        """The step is about to be agreed: what it would use is noted first."""
        if not self.rehearsing:
            lane = self.lane
            self.ledger.intend(step, self.world, (lane.index, lane.count), lane.counts)

    def committed(self, step: Step, data: Any) -> None:
        """The step is agreed: from here on it happens."""
        if not self.rehearsing:
            self.ledger.happened(step, self.world, None if data is None else len(data))
        if self.worker is None or self.rehearsing:
            return
        self.worker.version = Version.APPLYING
        self.serve(None)  # this commit needed every receiver: all have what they wanted
        world = self.world
        if world.rank == 0 or self.first_of_generation or self.shows_samples:
            fields: dict[str, Any] = {"samples": step.samples} if self.shows_samples else {}
            fields |= {"stall_ns": self.tiers.stall_ns} if self.tiers.on else {}
            if self.comparison.due(step.index):
                fields["compare_ns"] = self.comparison.spent_ns
            self.record(
                "commit",
                generation=world.generation,
                step=step.index,
                rank=world.rank,
                world_size=world.world_size,
                first=self.first_of_generation,
                sums=step.sums,
                begin_ns=step.begin_ns,
                **fields,
            )
        self.first_of_generation = False

    def end_step(self, step: Step) -> None:
        """The body has ended: a new boundary."""
        if self.rehearsing:
            return
        self.steps_done = step.index + 1
        self._boundary()
        if self.worker is not None:
            self.worker.version = self.steps_done + self.rewound
            self.use_huge_pages()
        self.tiers.boundary()

    def discard_step(self, step: Step, torn: bool, text: str) -> bool:
        """The step does not happen here, or (torn) was interrupted while it did. Returns whether to
        go on.

        `text` is the traceback of an exception that others must hear of.
        """
        if self.worker is None:
            return False
        step.discarded = True
        if self.rehearsing:
            self.recovery.fault(step.index, 0, False, text)
            return True
        if torn:
            self.worker.version = Version.TORN
        else:
            self.roll_back(step.index)
        if text:
            count = step.index + self.rewound
            self.recovery.fault(count, self.world.generation, torn, text)
        return True

    def save_rank_local(self, step: int) -> None:
        """Leaves what this rank alone knows with the agent: the state after `step` steps."""
        if self.worker is not None and not self.rehearsing:
            self.rank_local.save(self.worker, self.world.rank, self.tag(step))
            if self.tiers.on:
                carried.hand_round(self, self.tag(step))

    # --- called by Recovery -------------------------------------------------------------------

    def enter_world(self, world: RosterWorld) -> None:
        """Swaps the generation: communicator, meshes and groups of sharded models, copies."""
        self.serve(None)
        self.world.close()
        self.world = world
        world.rewound = self.rewound
        self.first_of_generation = True
        if self.network.needed(world.roster):
            self.network.prepare()
        self.tiers.enter(world.rank)
        self.shards.enter(self.worker, world.roster, self.state.sharded)
        self.lane = self.shards.lane(world.rank, world.world_size)

    def serve(self, source: Any) -> None:
        """Keeps what others read open; None: closes all."""
        if source is not None:
            self._served.append(source)
            return
        while self._served:
            self._served.pop().close()

    def roll_back(self, step: int) -> None:
        """All that a forward may have changed, as it was at the boundary."""
        self.gradients.clear()
        self.shadow.restore()
        self.rank_local.roll_back()
        self.record("rollback", generation=self.world.generation, rank=self.world.rank, step=step)

    def rewind(self, plan: HealPlan, roster: Roster) -> None:
        """All ranks are to have the state of one step, which may be an earlier one."""
        back, self.steps_done = self.steps_done - plan.step, plan.step
        self.rewound = self.world.rewound = roster.steps - plan.step
        if plan.step != plan.newest:
            self.tiers.rewound(plan, back)

    def tag(self, step: int) -> int:
        """What rank blobs of a boundary are filed under: none of a past that was given up."""
        return step + self.rewound | (self.rewound & 0xFFFFF) << 40

    def healed(self) -> None:
        """State has arrived: this is the boundary after `steps_done` steps."""
        self._rehearsal.forget_trees()
        self.gradients.clear()
        self.shadow.refresh()
        tag = self.tag(self.steps_done)
        self.rank_local.missing = not (
            self.rank_local.load(self.worker, self.world.rank, tag)
            or self.tiers.load_rank_local(tag)
        )

    def become_source(self) -> None:
        """Before any step is committed: the state is what the script made, without a rehearsal's
        traces."""
        self._rehearsal.take_back_optimizer_state()

    def use_huge_pages(self) -> None:
        """Once, when all state is there: a heal from or into huge pages takes half the time."""
        if not self._on_huge_pages:
            self._on_huge_pages = True
            _core.use_huge_pages(regions_of(capture(self.state.settled).tensors))

    def record(self, event: str, **fields: Any) -> None:
        """Appends to events.jsonl, if there is one."""
        if self._events is not None:
            self._events.append(event, **fields)

    # --- parts --------------------------------------------------------------------------------

    def _boundary(self) -> None:
        self.shadow.refresh()
        self.rank_local.reached_boundary()
