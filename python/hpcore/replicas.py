"""Replica groups: the ranks that hold the same parts of sharded state, and who gives it to whom.

Pure. A job without sharded state is one replica group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpcore.membership.roster import Roster


@dataclass(frozen=True)
class ReplicaGroup:
    """Slots of the ranks of one group that give state, and of those that need it.

    `made`: nobody has stepped yet, and the first source gives what its script made.
    """

    part: str
    ranks: tuple[int, ...]
    sources: tuple[int, ...]
    receivers: tuple[int, ...]
    made: bool = False

    @property
    def lost(self) -> bool:
        """Whether nobody in the group holds what others in it need."""
        return bool(self.receivers) and not self.sources


def replica_groups(
    roster: Roster, parts: Sequence[str], pristine: Sequence[bool]
) -> list[ReplicaGroup]:
    """The groups of a roster, by lowest rank.

    Args:
        parts: for each rank, which part of the state it is to hold.
        pristine: for each rank, whether what its script made is the state before step 0.
    """
    found = []
    for part in dict.fromkeys(parts):
        ranks = tuple(rank for rank, other in enumerate(parts) if other == part)
        slots = [roster.members[rank].slot for rank in ranks]
        sources = tuple(slot for slot in slots if slot in roster.sources)
        receivers = tuple(slot for slot in slots if slot in roster.receivers)
        made = False
        if receivers and not sources and roster.steps == 0:
            makers = [roster.members[rank].slot for rank in ranks if pristine[rank]]
            if makers:
                made, sources = True, (makers[0],)
                receivers = tuple(slot for slot in receivers if slot != makers[0])
        found.append(ReplicaGroup(part, ranks, sources, receivers, made))
    return found
