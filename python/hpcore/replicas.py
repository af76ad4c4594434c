"""Replica groups: the ranks that hold the same parts of sharded state; which step all can have, and
who takes it from whom. Pure.

A job without sharded state is one replica group. Where a part has no live holder left, shadow
copies of it serve, if need be of an earlier step, to which then all ranks go back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpcore.membership.roster import Roster


@dataclass(frozen=True)
class RankFacts:
    """What a rank says of itself.

    Args:
        part: which part of the state it is to hold.
        pristine: what its script made is the state before step 0.
        held: the step whose state it holds live; None if it holds none.
        shadows: steps of which its shadow copies are whole, in memory of its own node.
        kept: (rank, step) of whole copies of ranks of other nodes that its node's memory holds.
        node: where it is.
    """

    part: str
    pristine: bool
    held: int | None
    shadows: tuple[int, ...] = ()
    kept: tuple[tuple[int, int], ...] = ()
    node: int = 0


@dataclass(frozen=True)
class Copy:
    """A shadow copy that serves `slot`: of which rank, and a rank on the node that holds it."""

    slot: int
    rank: int
    holder: int


@dataclass(frozen=True)
class ReplicaGroup:
    """The ranks of one part, by slot: who gives state, who takes it from them, and who from a
    shadow copy. `made`: the source gives what its script made.
    `disk`: all read a durable checkpoint.
    """

    part: str
    ranks: tuple[int, ...]
    sources: tuple[int, ...]
    receivers: tuple[int, ...]
    made: bool = False
    shadows: tuple[Copy, ...] = ()
    disk: bool = False

    def shadow_for(self, slot: int) -> Copy | None:
        """The shadow copy that this slot takes."""
        return next((copy for copy in self.shadows if copy.slot == slot), None)


@dataclass(frozen=True)
class HealPlan:
    """All have the state of `step` afterwards; the newest that anybody holds is `newest`.

    `lost`: ranks, by part, that cannot have it; then there are no groups.
    """

    step: int
    newest: int
    groups: tuple[ReplicaGroup, ...] = ()
    lost: tuple[tuple[int, ...], ...] = ()

    @property
    def tier(self) -> str:
        """'peer', or 'shadow' or 'disk' if that is needed anywhere."""
        if any(group.disk for group in self.groups):
            return "disk"
        return "shadow" if any(group.shadows for group in self.groups) else "peer"

    def group_of(self, rank: int) -> ReplicaGroup:
        """The group that a rank is in."""
        return next(group for group in self.groups if rank in group.ranks)


def plan_heal(roster: Roster, facts: Sequence[RankFacts]) -> HealPlan:
    """The newest step that every rank can have, and how each comes to it.

    `facts` by rank. Before the first step what scripts made serves, too.
    """
    newest = newest_of(roster, facts)
    known = {step for one in facts for step in (one.held, *one.shadows) if step is not None}
    known |= {step for one in facts for _, step in one.kept}
    parts: dict[str, list[int]] = {}
    for rank, one in enumerate(facts):
        parts.setdefault(one.part, []).append(rank)
    lost: list[tuple[int, ...]] = []
    for step in sorted({newest, *(step for step in known if step < newest)}, reverse=True):
        groups = [_group(roster, facts, part, ranks, step) for part, ranks in parts.items()]
        if all(group is not None for group in groups):
            return HealPlan(step, newest, tuple(group for group in groups if group is not None))
        if not lost:
            lost = [
                tuple(ranks)
                for ranks, group in zip(parts.values(), groups, strict=True)
                if group is None
            ]
    return HealPlan(newest, newest, lost=tuple(lost))


def newest_of(roster: Roster, facts: Sequence[RankFacts]) -> int:
    """The newest step that anybody holds; if nobody holds any, the last that was agreed."""
    return max((one.held for one in facts if one.held is not None), default=roster.steps)


def plan_from_disk(roster: Roster, facts: Sequence[RankFacts], step: int) -> HealPlan:
    """All ranks read the durable checkpoint of that step."""
    newest = newest_of(roster, facts)
    ranks = tuple(range(len(facts)))
    return HealPlan(step, newest, (ReplicaGroup("", ranks, (), (), disk=True),))


def _group(
    roster: Roster, facts: Sequence[RankFacts], part: str, ranks: list[int], step: int
) -> ReplicaGroup | None:
    """How the ranks of one part come to that step; None if they cannot."""
    slots = {rank: roster.members[rank].slot for rank in ranks}
    holders = [rank for rank in ranks if facts[rank].held == step]
    needy = [rank for rank in ranks if rank not in holders]
    made = False
    if needy and not holders and roster.steps == 0:
        holders = [rank for rank in needy if facts[rank].pristine][:1]
        made = bool(holders)
        needy = [rank for rank in needy if rank not in holders]
    sources = tuple(slots[rank] for rank in holders)
    if not needy or holders:
        receivers = tuple(slots[rank] for rank in needy)
        return ReplicaGroup(part, tuple(ranks), sources, receivers, made)
    copied = [(rank, rank) for rank in ranks if step in facts[rank].shadows]
    copied += [
        (rank, holder)
        for holder, one in enumerate(facts)
        for rank, at in one.kept
        if at == step and rank in slots
    ]
    if not copied:
        return None

    def distance(rank: int, copy: tuple[int, int]) -> tuple[bool, bool, bool]:
        whose, holder = copy
        return facts[holder].node != facts[rank].node, whose != rank, holder != rank

    nearest = {r: min(copied, key=lambda copy, r=r: distance(r, copy)) for r in needy}  # type: ignore[misc]
    shadows = tuple(Copy(slots[r], *nearest[r]) for r in needy)
    return ReplicaGroup(part, tuple(ranks), (), (), shadows=shadows)
