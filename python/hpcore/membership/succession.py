"""Who holds which rank in the next generation, who must heal and from whom. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from hpcore.membership.places import node_of
from hpcore.membership.roster import Member, Roster
from hpcore.membership.state import VERSION_APPLYING, VERSION_NONE, Cluster, Stage, WorkerFacts


def survivors(cluster: Cluster) -> list[WorkerFacts]:
    """Living members of the current roster, by rank."""
    if cluster.roster is None:
        return []
    found = (cluster.alive(member) for member in cluster.roster.members)
    return [worker for worker in found if worker is not None]


def vacancies(cluster: Cluster) -> list[Member]:
    """Members that were lost: neither living, nor finished, nor waiting for their exit code."""
    if cluster.roster is None:
        return []
    gone = []
    for member in cluster.roster.members:
        worker = cluster.workers.get(member.slot)
        present = worker is not None and worker.incarnation == member.incarnation
        if not present and member.incarnation not in cluster.finished:
            gone.append(member)
    return gone


def spares(cluster: Cluster) -> list[WorkerFacts]:
    """Living workers without a rank, however far they are."""
    return [
        worker
        for _, worker in sorted(cluster.workers.items())
        if cluster.member(worker) is None
        and worker.stage not in (Stage.FINISHED, Stage.FAILED)
        and not worker.dying
    ]


def candidates(cluster: Cluster) -> list[WorkerFacts]:
    """Spares that can take a rank now: warm ones first, and among them those that had a rank."""
    ready = [w for w in spares(cluster) if w.stage is Stage.WARM or w.released]
    return sorted(ready, key=lambda w: (w.stage is not Stage.WARM, not w.released, w.slot))


def assign(
    cluster: Cluster, size: int, steps: int, versions: Mapping[int, int]
) -> list[tuple[int, WorkerFacts]]:
    """(rank, worker) for `size` ranks: who stays keeps its rank if there still is one, newcomers
    fill the gaps.

    If ranks must go, those that do not hold the state of `steps` go first.
    """
    roster = cluster.roster
    assert roster is not None
    ranked = survivors(cluster)
    staying = sorted(
        ranked,
        key=lambda w: not _holds(cluster, w.slot, steps, versions),  # stable: by rank otherwise
    )[:size]
    ranks: dict[int, WorkerFacts] = {}
    moving = []
    for worker in staying:
        rank = roster.rank_of(worker.slot)
        assert rank is not None
        if rank < size:
            ranks[rank] = worker
        else:
            moving.append(worker)
    queue = [*moving, *candidates(cluster)]
    for rank in range(size):
        if rank not in ranks:
            ranks[rank] = queue.pop(_nearest(roster, rank, queue))
    return sorted(ranks.items())


def _nearest(roster: Roster, rank: int, queue: list[WorkerFacts]) -> int:
    """Whom to take for a rank: the first who is on the node where it was, else the first."""
    if rank < roster.world_size:
        for index, worker in enumerate(queue):
            if node_of(worker.slot) == roster.members[rank].node:
                return index
    return 0


def members_of(assigned: list[tuple[int, WorkerFacts]]) -> tuple[Member, ...]:
    """Roster members, from what `assign` returned."""
    return tuple(
        Member(rank, w.slot, w.incarnation, w.pid, node_of(w.slot), w.announcement)
        for rank, w in assigned
    )


def healing(
    cluster: Cluster, members: tuple[Member, ...], steps: int, versions: Mapping[int, int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(receivers, sources) among `members`, as slots in the order of ranks.

    A newcomer receives whatever its version says: one that was let go and is taken back at once
    still has its old one. Before the first committed step the state is what the script built; if
    nobody has been named its holder (or the holder is lost), the first who is left is. Sources are
    empty if the state of `steps` > 0 is lost.
    """
    old = cluster.roster
    assert old is not None
    whole: list[int] = []
    for member in members:
        before = old.member_of(member.slot)
        stayed = before is not None and before.incarnation == member.incarnation
        if stayed and _holds(cluster, member.slot, steps, versions):
            whole.append(member.slot)
    if not whole and steps == 0:
        whole = [_first_holder(old, members)]
    receivers = tuple(member.slot for member in members if member.slot not in whole)
    return receivers, tuple(whole)


def _holds(cluster: Cluster, slot: int, steps: int, versions: Mapping[int, int]) -> bool:
    """Whether a member that stays has the state of `steps`, or will have it as soon as it has
    applied what it holds. One that faulted will not: the gradients of its step are gone."""
    version = versions.get(slot, VERSION_NONE)
    torn = cluster.faulted.get(slot)
    if torn is not None:
        return version == steps and not torn
    return version in (steps, VERSION_APPLYING) or version == steps - 1 >= 0


def _first_holder(old: Roster, members: tuple[Member, ...]) -> int:
    stayed = {member.incarnation for member in old.members}
    before = [member for member in members if member.incarnation in stayed]
    named = [member for member in before if member.slot in old.sources]
    return (named or before or list(members))[0].slot
