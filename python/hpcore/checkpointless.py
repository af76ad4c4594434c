"""Healing: ranks that lack state take it from the memory of healthy peers, or from shadow copies.

Where state is sharded, all ranks first say what they hold, and each works out the same plan:
between live ranks as exchange.py does it, else from copies (tiers.py). Training thread only.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hpcore.errors import JobStopped
from hpcore.exchange import exchange
from hpcore.gathering import gather
from hpcore.membership.roster import Roster
from hpcore.neighbour import copy_back, with_copies
from hpcore.replicas import HealPlan, RankFacts, ReplicaGroup, plan_from_disk, plan_heal
from hpcore.sharding import part_held
from hpcore.transfer import serving

if TYPE_CHECKING:
    from hpcore.loop import Loop


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
    group = replace(group, sources=serving(roster, group, loop.network.forced))
    role = _role(worker.slot, group)
    if group.made and worker.slot == group.sources[0]:
        loop.become_source()
    fields: dict[str, Any] = {"bytes": 0, "chunks": 0, "refetched": 0}
    gathered_ns = begin_ns
    if any(one.receivers for one in plan.groups):
        told, gathered_ns = exchange(loop, worker, roster, plan, group)
        fields |= told
    if group.disk:
        fields["bytes"] = loop.tiers.load_saved(plan.step)
    copied = group.shadow_for(worker.slot)
    if group.shadows or any(one.shadows for one in plan.groups):
        fields |= copy_back(loop, roster, plan)
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


def _plan(loop: Loop, worker: Any, roster: Roster) -> HealPlan:
    """Who takes what from whom. Asks the others if state is sharded at all.

    Raises JobStopped, on all ranks, if the last holder of some part is gone.
    """
    resumed = _plan_start(loop, roster)
    if resumed is not None:
        return resumed
    alike = not loop.state.sharded and loop.tiers.checkpoints is None
    if alike and roster.sources:  # nobody goes back
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
    facts = [RankFacts(m["part"], m["pristine"], m["held"]) for m in gather(loop, message)]
    plan = plan_heal(roster, facts)
    if not plan.groups:  # a copy is read whole before it counts: only when it is needed
        message = {
            "layout": message["layout"],
            "saved": loop.tiers.saved(),
            **loop.tiers.told(roster),
        }
        shadows = gather(loop, message)
        facts = with_copies(roster, facts, shadows)
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
    saved = _on_all(gather(loop, message))
    if not saved:
        return None
    facts = [RankFacts("", False, None)] * roster.world_size
    return plan_from_disk(roster, facts, saved[-1])


def _what_is_lost(loop: Loop, plan: HealPlan) -> str:
    if not loop.state.sharded:
        return (
            f"the state of step {plan.step} is lost: no rank is left that holds it, and no step is "
            "left that all ranks have a copy of"
        )
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
