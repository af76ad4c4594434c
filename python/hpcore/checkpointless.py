"""Healing: ranks that lack state take it from the memory of healthy peers, or from shadow copies.

Where state is sharded, all ranks first say what they hold, and each works out the same plan. Then
one `all_gather_bytes` carries what receivers must know: every rank's layout digest, every source's
addresses, and from the first source of each replica group the manifest (trees and tensor specs).
Receivers build what they lack and pull; sources publish digests and go on at once: settled tensors
cannot change before a commit, which needs the receivers; fluid ones are served from the rollback
shadow. Training thread only, apart from the native threads that read and digest.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from hpcore import _core
from hpcore.errors import JobStopped, MismatchError
from hpcore.layout import check_tensor
from hpcore.manifest import install, manifest_of
from hpcore.membership.roster import Roster
from hpcore.plain import decode, encode
from hpcore.replicas import HealPlan, RankFacts, ReplicaGroup, plan_from_disk, plan_heal
from hpcore.sharding import part_held
from hpcore.tracked import Capture, capture

if TYPE_CHECKING:
    from hpcore.loop import Loop

CHUNK_BYTES = 1 << 20
PULL_THREADS = 2  # bench/: one thread does not fill the memory bus, a third adds nothing

Region = tuple[int, int]


def heal(loop: Loop, worker: Any, roster: Roster) -> bool:
    """Gives state, or takes it, as the roster says. Call with the new generation's world in place.

    A source returns as soon as it has published its digests; a receiver when it holds its state
    whole. All ranks have that of one step then: the newest, unless its last holder is gone and
    there is a shadow copy of an earlier one. Returns whether this rank's state is another. Raises
    RosterChanged, MismatchError (layouts differ: all ranks raise it), CorruptData, JobStopped (some
    part of the state is lost).
    """
    begin_ns = time.monotonic_ns()
    loop.tiers.settle()
    plan = _plan(loop, worker, roster)
    group = plan.group_of(loop.world.rank)
    role = _role(worker.slot, group)
    if group.made and worker.slot == group.sources[0]:
        loop.become_source()
    fields: dict[str, Any] = {"bytes": 0, "chunks": 0, "refetched": 0}
    gathered_ns = begin_ns
    if any(one.receivers for one in plan.groups):
        stats, gathered_ns = _exchange(loop, worker, roster, group, role)
        if stats is not None:
            names = ("bytes", "chunks", "refetched", "moved", "reread", "method", "notes")
            fields = {name: getattr(stats, name) for name in names}
    if group.disk:
        fields["bytes"] = loop.tiers.load_saved(plan.step)
    copied = group.shadow_for(worker.slot)
    if copied is not None:
        loop.drill.fire("heal", loop.drill_rank, roster.steps)
        fields["bytes"] = loop.tiers.load(copied, plan.step)
    loop.rewind(plan, roster)
    loop.record(
        "heal",
        generation=roster.generation,
        rank=loop.world.rank,
        role=role,
        tier="disk" if group.disk else "shadow" if copied is not None else "peer",
        step=plan.step,
        begin_ns=begin_ns,
        gathered_ns=gathered_ns,
        end_ns=time.monotonic_ns(),
        **fields,
    )
    return role == "receiver" or worker.slot in roster.receivers


def _role(slot: int, group: ReplicaGroup) -> str:
    if slot in group.receivers or group.disk or group.shadow_for(slot) is not None:
        return "receiver"
    return "source" if slot in group.sources and group.receivers else "none"


def _exchange(
    loop: Loop, worker: Any, roster: Roster, group: ReplicaGroup, role: str
) -> tuple[Any, int]:
    """Between live ranks: what a receiver pulled (None elsewhere), and when all had come."""
    offer = _offer(loop) if role == "source" else None
    message: dict[str, Any] = {"layout": loop.state.digest()}
    if offer is not None:
        message["addresses"] = [list(region) for region in offer.regions()]
        if worker.slot == group.sources[0]:
            message["manifest"] = offer.manifest()
    messages = _gather(loop, message)
    gathered_ns = time.monotonic_ns()
    loop.drill.fire("heal", loop.drill_rank, roster.steps)
    if offer is not None:
        loop.serve(_publish(worker, roster, group, offer.regions()))
    elif worker.slot in group.receivers:
        return _receive(loop, worker, roster, group, messages), gathered_ns
    return None, gathered_ns


def _gather(loop: Loop, message: dict[str, Any]) -> list[dict[str, Any]]:
    """Every rank's message. Raises MismatchError, on all ranks, if layouts differ."""
    texts = loop.world.communicator.all_gather_bytes(encode(message), loop.recovery.deadline_s)
    messages = [decode(text) for text in texts]
    _check_layouts(loop, messages)
    return messages


def _plan(loop: Loop, worker: Any, roster: Roster) -> HealPlan:
    """Who takes what from whom. Asks the others if state is sharded at all.

    Raises JobStopped, on all ranks, if the last holder of some part is gone.
    """
    resumed = _plan_start(loop, roster)
    if resumed is not None:
        return resumed
    if not loop.state.sharded and loop.tiers.checkpoints is None:  # nobody ever goes back
        ranks = tuple(range(roster.world_size))
        step = roster.steps - loop.rewound
        return HealPlan(step, step, (ReplicaGroup("", ranks, roster.sources, roster.receivers),))
    holds = worker.slot in roster.sources
    message = {
        "layout": loop.state.digest(),
        "part": loop.state.part(),
        "pristine": loop.shards.pristine,
        "held": loop.steps_done if holds else None,
    }
    facts = [RankFacts(m["part"], m["pristine"], m["held"]) for m in _gather(loop, message)]
    plan = plan_heal(roster, facts)
    if not plan.groups:  # a copy is read whole before it counts: only when it is needed
        message = {
            "layout": message["layout"],
            "steps": list(loop.tiers.steps()),
            "saved": loop.tiers.saved(),
        }
        shadows = _gather(loop, message)
        facts = [
            replace(one, shadows=tuple(m["steps"])) for one, m in zip(facts, shadows, strict=True)
        ]
        plan = plan_heal(roster, facts)
        saved = _on_all(shadows)
        if not plan.groups and saved:
            return plan_from_disk(roster, facts, saved[-1])
    if not plan.groups:
        raise JobStopped(_what_is_lost(loop, plan))
    return plan


def _on_all(messages: list[dict[str, Any]]) -> list[int]:
    """Durable checkpoints that every rank sees."""
    return sorted(set.intersection(*(set(one["saved"]) for one in messages)))


def _plan_start(loop: Loop, roster: Roster) -> HealPlan | None:
    """A job that has not stepped goes on from the newest durable checkpoint, if there is one."""
    if roster.steps or loop.tiers.checkpoints is None:
        return None
    message = {"layout": loop.state.digest(), "saved": loop.tiers.saved()}
    saved = _on_all(_gather(loop, message))
    if not saved:
        return None
    facts = [RankFacts("", False, None)] * roster.world_size
    return plan_from_disk(roster, facts, saved[-1])


def _what_is_lost(loop: Loop, plan: HealPlan) -> str:
    names = [name for name, tensor in loop.state.sharded if part_held(tensor)]
    some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    ranks = "; ".join(f"ranks {list(lost)}" for lost in plan.lost)
    way_out = (
        "no step is left that all ranks have a shadow copy of"
        if loop.tiers.on
        else "shadow copies would have kept it: Job(shadow_every=1)"
    )
    return (
        f"the state of step {plan.step} is lost: nobody is left that holds the shards of "
        f"{ranks} ({some}, and what the optimizer keeps for them); {way_out}"
    )


class Offer:
    """What a source lays open: live settled tensors, and the shadow of fluid ones."""

    def __init__(self, settled: Capture, fluid: Capture) -> None:
        self.settled = settled
        self.fluid = fluid
        for name, tensor in zip(settled.names, settled.wholes, strict=True):
            check_tensor(name, tensor)

    def regions(self) -> list[Region]:
        """(address, bytes) in the order of the manifest, empty tensors left out."""
        return regions_of([*self.settled.tensors, *self.fluid.tensors])

    def manifest(self) -> dict[str, Any]:
        """Trees and tensor specs, as plain values."""
        return manifest_of(self.settled, self.fluid)


def _offer(loop: Loop) -> Offer:
    return Offer(capture(loop.state.settled), loop.shadow.captured())


def regions_of(tensors: Sequence[Tensor]) -> list[Region]:
    """Where dense tensors lie: (address, bytes), empty ones left out."""
    return [(t.data_ptr(), t.nbytes) for t in tensors if t.nbytes]


def _publish(worker: Any, roster: Roster, group: ReplicaGroup, regions: list[Region]) -> Any:
    index = group.sources.index(worker.slot)
    source = _core.StateSource(
        worker,
        roster.generation,
        regions,
        CHUNK_BYTES,
        index,
        len(group.sources),
        list(group.receivers),
    )
    source.publish()
    return source


def _receive(
    loop: Loop,
    worker: Any,
    roster: Roster,
    group: ReplicaGroup,
    messages: list[dict[str, Any]],
) -> Any:
    """Builds, pulls, and puts in place."""
    members = {member.slot: member for member in roster.members}
    sources = [
        _core.SourceAddress(
            slot,
            members[slot].pid,
            [(address, size) for address, size in messages[members[slot].rank]["addresses"]],
        )
        for slot in group.sources
    ]

    def pull(tensors: list[Tensor]) -> Any:
        receiver = _core.StateReceiver(
            worker, roster.generation, regions_of(tensors), CHUNK_BYTES, sources, PULL_THREADS
        )
        return receiver.pull(loop.recovery.deadline_s)

    return install(loop.state, messages[members[group.sources[0]].rank]["manifest"], pull)


def _check_layouts(loop: Loop, messages: list[dict[str, Any]]) -> None:
    """Every rank sees the same digests, so all go on or all exchange layouts and raise."""
    if all(message["layout"] == messages[0]["layout"] for message in messages):
        return
    texts = loop.world.communicator.all_gather_bytes(
        encode([list(line) for line in loop.state.layout]), loop.recovery.deadline_s
    )
    raise MismatchError(difference([decode(text) for text in texts]))


def difference(layouts: Sequence[list[list[str]]]) -> str:
    """The first difference between rank 0's layout and another's, in words."""
    for rank, layout in enumerate(layouts):
        for here, there in zip(layouts[0], layout, strict=False):
            if here != there:
                return (
                    f"tracked state differs between ranks: {here[0]} is {here[1]} on rank 0, but "
                    f"{there[0]} is {there[1]} on rank {rank}; build the same state on every rank"
                )
        if len(layout) != len(layouts[0]):
            more, name = (0, layouts[0]) if len(layouts[0]) > len(layout) else (rank, layout)
            shorter = min(len(layout), len(layouts[0]))
            return (
                f"tracked state differs between ranks: {name[shorter][0]} ({name[shorter][1]}) is "
                f"on rank {more} only; rank 0 has {len(layouts[0])} entries, rank {rank} has "
                f"{len(layout)}"
            )
    return "tracked state differs between ranks"
