"""Who serves state, and which receiver takes which bytes from whom. Pure: equal on all ranks.

The plan is `_core.plan_transfer` (csrc/state/transfer_plan.hpp), asked for one replica group: near
sources first, all at once, never one that is itself healed. What dies, lags or does not match in
the middle is dealt anew by the pull itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpcore import _core
from hpcore.membership.roster import Member, Roster
from hpcore.replicas import ReplicaGroup

CHUNK_BYTES = 1 << 20
MOST_SOURCES = 64
"""Of one replica group in one heal: each digests a part, and each receiver asks all of them."""

Share = tuple[int, int, int]
_LONE = 1 << 24  # nodes of ranks that are treated as if each were on a host of its own


@dataclass(frozen=True)
class Way:
    """What a rank says of its way to other hosts: its provider, or why it has none."""

    provider: str = ""
    why_not: str = ""


def apart(one: Member, other: Member, forced: bool) -> bool:
    """Whether one reads the other over a fabric; `forced`: even if they are on one node."""
    return one.rank != other.rank if forced else one.node != other.node


def serving(roster: Roster, group: ReplicaGroup, forced: bool) -> tuple[int, ...]:
    """The slots that serve, in the order of ranks: those near to receivers if there are too many.

    Slots of the roster; of a group without receivers all its sources.
    """
    if len(group.sources) <= MOST_SOURCES or not group.receivers:
        return group.sources
    members = {member.slot: member for member in roster.members}
    needy = [members[slot] for slot in group.receivers]
    racks = roster.racks()
    near = {racks[member.node] for member in needy}

    def distance(slot: int) -> int:
        source = members[slot]
        if not all(apart(source, member, forced) for member in needy):
            return 0
        return 1 if racks[source.node] in near else 2

    chosen = set(sorted(group.sources, key=distance)[:MOST_SOURCES])
    return tuple(slot for slot in group.sources if slot in chosen)


def reachable(source: Member, receiver: Member, ways: Mapping[int, Way], forced: bool) -> bool:
    """Whether `receiver` can read `source`; `ways` by rank."""
    if not apart(source, receiver, forced):
        return True
    one, other = ways[source.rank], ways[receiver.rank]
    return bool(one.provider) and one.provider == other.provider


def out_of_reach(
    roster: Roster, groups: Sequence[ReplicaGroup], ways: Mapping[int, Way], forced: bool
) -> str:
    """Which receivers can read no source, and why; '' if all can read one."""
    members = {member.slot: member for member in roster.members}
    told: list[str] = []
    for group in groups:
        sources = [members[slot] for slot in group.sources]
        for receiver in (members[slot] for slot in group.receivers):
            if any(reachable(source, receiver, ways, forced) for source in sources):
                continue
            whys = [_way_text(member.rank, ways[member.rank]) for member in (receiver, *sources)]
            told.append(
                f"rank {receiver.rank} on node {receiver.node} can read none of its sources, ranks "
                f"{[source.rank for source in sources]}, which are on other hosts: "
                + "; ".join(dict.fromkeys(whys))
            )
    return "\n".join(told)


def _way_text(rank: int, way: Way) -> str:
    return f"rank {rank}: {way.why_not or 'provider ' + way.provider}"


def shares(
    roster: Roster,
    group: ReplicaGroup,
    own_slot: int,
    size: int,
    able: Sequence[bool],
    rates: Mapping[str, float],
    forced: bool,
) -> list[Share]:
    """What one receiver takes from whom: (index of the source, begin, end), ascending.

    Args:
        size: bytes of the state.
        able: by index of the source: whether this receiver can read it.
        rates: for `_core.PlanRates`.
    """
    members = {member.slot: member for member in roster.members}
    part = [members[slot] for slot in (*group.sources, *group.receivers)]
    count, racks = len(group.sources), roster.racks()
    nodes = {m.slot: _LONE + m.rank if forced else m.node for m in part}
    version = roster.steps
    facts = [
        _core.RankFacts(index, nodes[m.slot], racks[m.node], version, index >= count or able[index])
        for index, m in enumerate(part)
    ]
    request = _core.PlanRequest(
        [_core.TensorSize("the state", size)],
        [_core.PlanFamily([0] * len(part))],
        facts,
        list(range(count, len(part))),
        version,
        CHUNK_BYTES,
        _core.PlanRates(**rates),
    )
    own = count + group.receivers.index(own_slot)
    pulls = _core.plan_transfer(request)
    return [(p.source, p.begin, p.end) for p in pulls if p.receiver == own]
