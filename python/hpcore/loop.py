"""The loop behind `Job.steps`: steps, boundaries, rollback, rehearsal and the end.
 Holds what a step needs: world, tracked state, gradients, shadow, drills, events. Training thread
only.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from torch import nn

from hpcore.agent.events import EventLog
from hpcore.batches import Batches
from hpcore.buffers import ReplicatedBuffers
from hpcore.drill import Drill, Rule, parse
from hpcore.errors import InvalidArgument, JobStopped, RosterChanged
from hpcore.gradients import Gradients
from hpcore.membership.process import JobFacts
from hpcore.ranklocal import RankLocal
from hpcore.recovery import Recovery
from hpcore.rollback import Pristine, Shadow
from hpcore.step import Step
from hpcore.tracked import TrackedState
from hpcore.world import Flag, Phase, SoloWorld, State, Version, World

_FOREVER = 1 << 40  # a generation that never comes


class Loop:
    """Everything of a job that is not its public face."""

    def __init__(self, batches: Batches, worker: Any, facts: JobFacts | None, ledger: bool) -> None:
        self.batches = batches
        self.worker = worker
        self.ledger = ledger
        self.steps_done = 0
        self.rehearsing = False
        self.member = False
        self.first_of_generation = True
        self.state = TrackedState()
        self.gradients = Gradients()
        self.replicated: list[nn.Module] = []
        self.rank_local = RankLocal()
        self.shadow = Shadow(self.state)
        self.buffers = ReplicatedBuffers(self.state, (), self.shadow)
        self._facts = facts
        self._events: EventLog | None = None
        self._pristine: Pristine | None = None
        self._source: Any = None
        self._checked: set[int] = set()
        rank, world_size, faults = 0, 1, ""
        if facts is not None:
            rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
            faults = facts.faults
            if facts.log_dir:
                self._events = EventLog(os.path.join(facts.log_dir, "events.jsonl"))
            worker.version = Version.NONE
            worker.flags = worker.flags | Flag.RECOVERABLE
            self.recovery = Recovery(self, worker, facts.recovery_deadline_s)
        self.world: World = SoloWorld(rank, world_size)
        self.drill = Drill(parse(faults), self._fire_once, self._record_fault)

    # --- before the loop ----------------------------------------------------------------------

    def replicate(self, model: nn.Module) -> None:
        """Remembers the module and its parameters."""
        if all(known is not model for known in self.replicated):
            self.replicated.append(model)
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    self.gradients.add(name, parameter)

    def check_optimizers(self, optimizers: list[Any]) -> None:
        """Raises InvalidArgument unless each is tracked and works on replicated parameters only."""
        for optimizer in optimizers:
            if id(optimizer) in self._checked:
                continue
            kind = type(optimizer).__name__
            if not self.state.has(optimizer):
                raise InvalidArgument(f"{kind} is not tracked: call job.track(optimizer=...) first")
            for number, group in enumerate(optimizer.param_groups):
                for index, parameter in enumerate(group["params"]):
                    if parameter.requires_grad and not self.gradients.covers(parameter):
                        raise InvalidArgument(
                            f"parameter {index} of group {number} of {kind} belongs to no "
                            "replicated module: its gradient would differ between ranks; call "
                            "job.replicate(module) first"
                        )
            self._checked.add(id(optimizer))

    # --- the loop -----------------------------------------------------------------------------

    def run(self, data: Any, total: int) -> Iterator[Step]:
        """See `Job.steps`."""
        for index, model in enumerate(self.replicated):
            if not self.state.has(model):
                self.state.add(f"replica{index}", model)
        self.shadow = Shadow(self.state)
        self.buffers = ReplicatedBuffers(self.state, self.replicated, self.shadow)
        self._boundary()
        if self.worker is not None:
            yield from self._rehearse(data)
            self.recovery.enter()
        attempt = 1
        while True:
            if self.steps_done < total:
                step = Step(self, self.steps_done, data, attempt)
                yield step
                _require_ended(step)
                attempt = attempt + 1 if step.discarded else 1
                if not step.discarded:
                    continue
            elif self._agree_on_end(total):
                return
            self.recovery.rejoin()

    def _rehearse(self, data: Any) -> Iterator[Step]:
        """A standby runs one step as the last rank and throws it away; others say that they want a
        rank."""
        assert self._facts is not None
        if not self._facts.standby:
            self.worker.state = State.TRAINING
            return
        self.rehearsing = True
        self._pristine = Pristine(self.state)
        step = Step(self, 0, data)
        yield step
        _require_ended(step)
        while step.discarded:  # the agent replaces a standby that faults
            self.worker.wait_roster(_FOREVER, 3600.0)
        self._pristine.give_back()
        self.shadow.restore()
        self.rank_local.roll_back()
        self.gradients.clear()
        self.rehearsing = False
        self.worker.progress(0, Phase.STANDBY)
        self.worker.state = State.WARM

    def _agree_on_end(self, total: int) -> bool:
        """One empty step, so that nobody leaves before all have ended the last one."""
        if self.worker is None:
            return True
        if self.steps_done > total:
            raise JobStopped(
                f"a rank was lost after all {total} steps were done and the others had left the "
                "loop"
            )
        try:
            self.world.progress(total, Phase.REDUCE)
            self.world.ready(total)
            self.world.wait(total)
        except RosterChanged:
            return False
        self.worker.flags = self.worker.flags & ~Flag.RECOVERABLE
        self.world.progress(total, Phase.ENDED)
        return True

    # --- called by Step -----------------------------------------------------------------------

    def begin_step(self, step: int) -> list[Any]:
        """Drops old gradients and arms drills; returns the hooks to be removed at the end."""
        self.gradients.clear()
        rank = self.drill_rank
        hooks = []
        if self.replicated and self.drill.armed("forward", rank, step):
            hooks.append(
                self.replicated[0].register_forward_hook(
                    lambda *_: self.drill.fire("forward", rank, step)
                )
            )
        if self.drill.armed("backward", rank, step):
            hooks.append(self.gradients.hook(lambda: self.drill.fire("backward", rank, step)))
        return hooks

    @property
    def drill_rank(self) -> int | None:
        """The rank that fault rules speak of; None for a standby."""
        return None if self.rehearsing else self.world.rank

    def committed(self, step: Step) -> None:
        """The step is agreed: from here on it happens."""
        if self.worker is None or self.rehearsing:
            return
        self.worker.version = Version.APPLYING
        self.serve(None)  # this commit needed every receiver: all have what they wanted
        world = self.world
        if world.rank == 0 or self.first_of_generation or self.ledger:
            fields: dict[str, Any] = {"samples": step.samples} if self.ledger else {}
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
            self.worker.version = self.steps_done

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
            self.recovery.fault(step.index, self.world.generation, torn, text)
        return True

    def save_rank_local(self, tag: int) -> None:
        """Leaves what this rank alone knows with the agent."""
        if self.worker is not None and not self.rehearsing:
            self.rank_local.save(self.worker, self.world.rank, tag)

    # --- called by Recovery -------------------------------------------------------------------

    def enter_world(self, world: World) -> None:
        """Swaps the generation."""
        self.serve(None)
        self.world.close()
        self.world = world
        self.first_of_generation = True

    def serve(self, source: Any) -> None:
        """Keeps a source of state open, and closes the one before."""
        if self._source is not None:
            self._source.close()
        self._source = source

    def roll_back(self, step: int) -> None:
        """All that a forward may have changed, as it was at the boundary."""
        self.gradients.clear()
        self.shadow.restore()
        self.rank_local.roll_back()
        self.record("rollback", generation=self.world.generation, rank=self.world.rank, step=step)

    def healed(self, steps: int) -> None:
        """State has arrived: this is the boundary after `steps` steps."""
        self.steps_done = steps
        self._pristine = None
        self.gradients.clear()
        self.shadow.refresh()
        self.rank_local.load(self.worker, self.world.rank, steps)

    def become_source(self) -> None:
        """Before any step is committed: the state is what the script made, without a rehearsal's
        traces."""
        if self._pristine is not None:
            self._pristine.forget_rehearsal()
            self._pristine = None

    def record(self, event: str, **fields: Any) -> None:
        """Appends to events.jsonl, if there is one."""
        if self._events is not None:
            self._events.append(event, **fields)

    # --- parts --------------------------------------------------------------------------------

    def _boundary(self) -> None:
        self.shadow.refresh()
        self.rank_local.reached_boundary()

    def _fire_once(self, index: int) -> bool:
        return bool(self.worker is not None and self.worker.segment.fire_fault(index))

    def _record_fault(self, rule: Rule, step: int) -> None:
        self.record(
            "fault_injected",
            rank=-1 if rule.rank is None else rule.rank,
            step=step,
            point=rule.point,
            action=rule.action,
            ns=time.monotonic_ns(),
        )


def _require_ended(step: Step) -> None:
    if not step.ended:
        raise InvalidArgument(f"step {step.index} was not run: write `with step:` around its body")
