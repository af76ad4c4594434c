"""Events of a run as the agent and its workers write them, for tests of what reads them. Times in
milliseconds.
"""

from __future__ import annotations

import math
from typing import Any

from hpcore.demo.plan import Plan, PlannedFault

Event = dict[str, Any]
STEP_MS = 100
PIDS = {slot: 1000 + slot for slot in range(12)}


def small_plan() -> Plan:
    """Twelve steps, a kill at 3, two overlapping kills at 6, a resize at 9 and back at 10."""
    return Plan(
        "small",
        steps=12,
        faults=(
            PlannedFault(1, 3, "backward", "sigkill", "SIGKILL in mid-backward"),
            PlannedFault(0, 6, "backward", "sigkill", "SIGKILL of rank 0"),
            PlannedFault(2, 6, "heal", "sigkill", "second SIGKILL"),
        ),
        resizes=((9, 2), (10, 4)),
        global_batch=8,
        micro_batch=2,
        context=4,
    )


class Recorder:
    """Writes a run by hand: `step` and `recover` move the clock."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.events: list[Event] = []
        self.ms = 0.0
        self.generation = 0
        self.slots = list(range(plan.nproc))
        self.next_slot = plan.nproc
        self.put("start", pid=1, nproc=plan.nproc, standbys=1, argv=[])

    def put(self, event: str, ms: float | None = None, **fields: Any) -> None:
        """One event now, or at `ms`."""
        at = self.ms if ms is None else ms
        self.events.append({"ns": round(at * 1e6), "event": event, **fields})

    def roster(self, receivers: list[int], detected: float, reason: str) -> None:
        """Publishes the next generation now; members notice after 1 ms and have communicators after
        2.
        """
        self.generation += 1
        members = [{"rank": r, "slot": s, "pid": PIDS[s]} for r, s in enumerate(self.slots)]
        times = {"detected_ns": round(detected * 1e6), "published_ns": round(self.ms * 1e6)}
        decided = round((self.ms - 1) * 1e6)
        self.put("decide", generation=self.generation, reason=reason, decided_ns=decided)
        self.put(
            "roster",
            generation=self.generation,
            steps=0,
            members=members,
            receivers=receivers,
            sources=[],
            reason=reason,
            **times,
        )
        for rank in range(len(self.slots)):
            noticed, made = round((self.ms + 1) * 1e6), round((self.ms + 2) * 1e6)
            self.put(
                "reform",
                self.ms + 2,
                generation=self.generation,
                rank=rank,
                noticed_ns=noticed,
                communicator_ns=made,
            )
        self.ms += 2

    def heal(self, took: float) -> None:
        """One receiver got its state."""
        ends = {"begin_ns": round(self.ms * 1e6), "end_ns": round((self.ms + took) * 1e6)}
        self.ms += took
        self.put("heal", generation=self.generation, rank=0, role="receiver", bytes=1, **ends)

    def step(self, step: int, first: bool = False, loss: float | None = None) -> None:
        """All ranks commit a step, STEP_MS from now."""
        self.ms += STEP_MS
        size, batch = len(self.slots), self.plan.global_batch
        loss = 5 * math.exp(-step / 8) if loss is None else loss
        for rank in range(size):
            share = range(
                step * batch + batch * rank // size, step * batch + batch * (rank + 1) // size
            )
            self.put(
                "commit",
                generation=self.generation,
                step=step,
                rank=rank,
                world_size=size,
                first=first,
                sums={"loss": loss},
                begin_ns=0,
                samples=list(share),
            )

    def fault(self, rank: int, step: int, point: str, action: str) -> float:
        """Hurts a rank now; its death is seen half a millisecond later, where the clock then is."""
        self.put("fault_injected", rank=rank, step=step, point=point, action=action)
        self.ms += 0.5
        at = round(self.ms * 1e6)
        self.put("death", slot=self.slots[rank], rank=rank, pid=PIDS[self.slots[rank]], at_ns=at)
        return self.ms

    def replace(self, rank: int) -> int:
        """Gives the rank to a fresh slot, which is the receiver."""
        self.slots[rank], self.next_slot = self.next_slot, self.next_slot + 1
        return self.slots[rank]


def calm_events(plan: Plan) -> list[Event]:
    """The undisturbed run."""
    run = Recorder(plan)
    run.roster([], 0, "start")
    for step in range(plan.steps):
        run.step(step, first=step == 0)
    return run.events


def disturbed_events(plan: Plan) -> list[Event]:
    """The run of `small_plan`: 0.5 detect + 1.5 decide + 1 notify + 1 reform + 6 heal + one step
    for the kill at step 3.
    """
    run = Recorder(plan)
    run.roster([], 0, "start")
    for step in range(3):
        run.step(step, first=step == 0)
    detected = run.fault(1, 3, "backward", "sigkill")
    run.ms += 1.5
    run.roster([run.replace(1)], detected, "rank 1 died")
    run.heal(6)
    for step in range(3, 6):
        run.step(step, first=step == 3)
    detected = run.fault(0, 6, "backward", "sigkill")
    run.ms += 1.5
    run.roster([run.replace(0)], detected, "rank 0 died")
    run.ms += 2
    detected = run.fault(2, 6, "heal", "sigkill")
    cold = run.replace(2)
    run.ms += 700
    run.put("attach", run.ms - 650, slot=cold)
    run.ms += 1
    run.roster([run.slots[0], cold], detected, "rank 2 died")
    run.heal(8)
    for step in range(6, 9):
        run.step(step, first=step == 6)
    all_slots = list(run.slots)
    for step, size in plan.resizes:
        run.put("resize", to=size)
        run.slots = all_slots[:size]
        run.roster([], run.ms, f"resize to {size}")
        run.step(step, first=True, loss=5 * math.exp(-step / 8) + 1e-7)
    run.step(11)
    return run.events
