"""Who is a member: `decide(cluster, event, policy, now_ns) -> Decision`. Pure: no clock, no I/O,
no randomness.

One event is folded into the facts (`facts.fold`); then the facts as a whole say what is to be
done, so that any order of events ends in the same place. A roster is made only upon `Closed`,
which brings the committed step and who holds its state: whoever wants a new generation asks for
`close` first.
"""

from __future__ import annotations

from dataclasses import replace

from hpcore.membership.facts import fold, worker_of
from hpcore.membership.patience import fit, may_grow, note_growth, size_now
from hpcore.membership.reasons import (
    failing,
    failing_starts,
    hopeless,
    late,
    missing,
    on_the_way,
    state_lost,
)
from hpcore.membership.roster import Member, Roster
from hpcore.membership.state import (
    Closed,
    Cluster,
    Decision,
    Event,
    Faulted,
    Policy,
    Spawn,
    Stage,
    Stop,
    WorkerFacts,
)
from hpcore.membership.succession import (
    assign,
    candidates,
    healing,
    members_of,
    spares,
    survivors,
    vacancies,
)

FINISHED = Stop(0, "finished")


def decide(cluster: Cluster, event: Event, policy: Policy, now_ns: int) -> Decision:
    """What is to be done after `event`; the decision carries the facts for the next call."""
    cluster = fold(cluster, event, policy)
    if cluster.stop is not None:
        return Decision(cluster, stop=cluster.stop)
    if cluster.roster is None:
        return _start(cluster, policy, now_ns)
    if _is_done(cluster):
        return _stop(cluster, FINISHED)
    kill = _failed_rehearsal(cluster, event)
    cluster = note_growth(cluster, _can_grow(cluster), now_ns)
    assert cluster.roster is not None
    reasons = _reasons(cluster, policy, now_ns)
    if not reasons:
        return _upkeep(replace(cluster, vacant_ns=None), policy, kill)
    stop = hopeless(cluster, policy)
    if stop is not None:
        return _stop(cluster, stop)
    size = size_now(cluster, policy, _reachable(cluster), now_ns)
    if size is None:
        return _wait(cluster, event, policy, now_ns, kill)
    if not isinstance(event, Closed) or event.generation != cluster.roster.generation:
        return Decision(cluster, kill=kill, close=True)
    decision = _next(cluster, event, policy, now_ns, size, reasons)
    return replace(decision, kill=kill)


def _stop(cluster: Cluster, stop: Stop) -> Decision:
    return Decision(replace(cluster, stop=stop), stop=stop)


def _is_done(cluster: Cluster) -> bool:
    """All members finished; or some did, and the others are newcomers that came too late: nobody
    leaves a Job's loop before all members of a generation have committed its last step."""
    roster = cluster.roster
    assert roster is not None
    left = [m for m in roster.members if m.incarnation not in cluster.finished]
    if not left or not cluster.finished:
        return not left
    return not cluster.committed and all(_came_late(cluster, member) for member in left)


def _came_late(cluster: Cluster, member: Member) -> bool:
    worker = cluster.alive(member)
    assert cluster.roster is not None
    late = member.slot in cluster.roster.receivers and cluster.roster.steps > 0
    return late and worker is not None and worker.recoverable


def _failed_rehearsal(cluster: Cluster, event: Event) -> tuple[int, ...]:
    """A standby that faults is no use: its death counts as a failed start."""
    if isinstance(event, Faulted):
        worker = worker_of(cluster, event.slot, event.incarnation)
        if worker is not None and cluster.member(worker) is None and not worker.released:
            return (worker.slot,)
    return ()


# --- the first roster -------------------------------------------------------------------------


def _start(cluster: Cluster, policy: Policy, now_ns: int) -> Decision:
    ranks = {w.rank: w for w in cluster.workers.values() if w.rank is not None}
    if not ranks and not cluster.pending and len(cluster.finished) >= cluster.nproc:
        return _stop(cluster, FINISHED)
    if cluster.start_failures >= policy.failure_limit:
        return _stop(cluster, Stop(cluster.lost_code or 1, failing_starts(cluster, policy)))
    asking = [rank for rank in range(cluster.nproc) if _asks(ranks.get(rank))]
    if len(asking) == cluster.nproc:
        return _first(cluster, [ranks[rank] for rank in range(cluster.nproc)], policy, now_ns)
    deadline = None
    if cluster.ready_ns is not None and asking:
        deadline = cluster.ready_ns + policy.deadline_ns
        if now_ns >= deadline:
            behind = [rank for rank in range(cluster.nproc) if rank not in asking]
            return _stop(cluster, Stop(1, late(behind, asking, policy)))
    pending = {spawn.rank for spawn in cluster.pending}
    missing = [r for r in range(cluster.nproc) if r not in ranks and r not in pending]
    spawn = () if cluster.finished else tuple(Spawn(rank) for rank in missing)
    cluster = replace(cluster, pending=(*cluster.pending, *spawn))
    return Decision(cluster, spawn=spawn, wait_until_ns=deadline)


def _asks(worker: WorkerFacts | None) -> bool:
    return worker is not None and worker.stage is Stage.TRAINING


def _first(cluster: Cluster, ranks: list[WorkerFacts], policy: Policy, now_ns: int) -> Decision:
    members = members_of(list(enumerate(ranks)))
    roster = Roster(
        generation=1,
        job=cluster.job,
        steps=0,
        members=members,
        receivers=tuple(m.slot for m in members[1:]),
        sources=(members[0].slot,),
        reason="start",
        detected_ns=cluster.ready_ns or now_ns,
        decided_ns=now_ns,
    )
    cluster = replace(cluster, roster=roster, causes=(), start_failures=0, lost={}, lost_code=None)
    decision = _upkeep(cluster, policy, ())
    return replace(decision, roster=roster)


# --- later rosters ----------------------------------------------------------------------------


def _reasons(cluster: Cluster, policy: Policy, now_ns: int) -> list[str]:
    """Why there must be a new generation; empty if the current one may go on."""
    assert cluster.roster is not None
    reasons = [cause.reason for cause in cluster.causes]
    if cluster.ended or cluster.finished:
        return reasons if vacancies(cluster) else []
    world = cluster.roster.world_size
    if cluster.target < world:
        reasons.append(f"resize to {cluster.target}")
    elif not reasons and may_grow(cluster, policy, _reachable(cluster), now_ns):
        reasons.append(f"grow to {fit(policy, _reachable(cluster))}")
    return reasons


def _reachable(cluster: Cluster) -> int:
    return min(cluster.target, len(survivors(cluster)) + len(candidates(cluster)))


def _can_grow(cluster: Cluster) -> bool:
    """Grow once for all who come, not once for each: as long as more are on the way, wait for
    them."""
    assert cluster.roster is not None
    ready, wanted = len(candidates(cluster)), cluster.target - cluster.roster.world_size
    if wanted <= 0:
        return False
    coming = len(spares(cluster)) - ready + sum(1 for s in cluster.pending if s.rank is None)
    return ready >= wanted or (ready > 0 and coming == 0)


def _wait(
    cluster: Cluster, event: Event, policy: Policy, now_ns: int, kill: tuple[int, ...]
) -> Decision:
    """Ranks are missing and nobody can take them yet: wait for a standby on its way, or start
    one."""
    since = cluster.vacant_ns if cluster.vacant_ns is not None else now_ns
    cluster = replace(cluster, vacant_ns=since)
    deadline = since + policy.deadline_ns
    if cluster.start_failures >= policy.failure_limit:
        return _stop(cluster, failing(cluster, policy))
    lost = not survivors(cluster) and not cluster.kept
    if isinstance(event, Closed) and event.steps > 0 and lost:
        return _stop(cluster, state_lost(cluster, event.steps))
    if now_ns >= deadline:
        reason = (
            f"{missing(cluster)} and no replacement was ready within "
            f"{policy.deadline_ns / 1e9:.1f} s: {on_the_way(cluster)}; keep a standby "
            "(--standbys), allow fewer ranks (--min) or a higher --recovery-deadline"
        )
        return _stop(cluster, Stop(cluster.lost_code or 1, reason))
    decision = _upkeep(cluster, policy, kill)
    return replace(decision, close=not cluster.closed, wait_until_ns=deadline)


def _next(
    cluster: Cluster, event: Closed, policy: Policy, now_ns: int, size: int, reasons: list[str]
) -> Decision:
    old = cluster.roster
    assert old is not None
    barren = 0 if event.steps > old.steps or not cluster.causes else cluster.barren + 1
    if barren >= policy.barren_limit:
        reason = f"{barren} generations in a row committed no step; last: {'; '.join(reasons)}"
        return _stop(cluster, Stop(cluster.lost_code or 1, reason))
    members = members_of(assign(cluster, size, event.steps, event.versions))
    receivers, sources = healing(cluster, members, event.steps, event.versions)
    if not sources and not cluster.kept:
        return _stop(cluster, state_lost(cluster, event.steps))
    roster = Roster(
        generation=old.generation + 1,
        job=cluster.job,
        steps=event.steps,
        members=members,
        receivers=receivers,
        sources=sources,
        reason="; ".join(dict.fromkeys(reasons)),
        detected_ns=min((cause.at_ns for cause in cluster.causes), default=event.at_ns),
        decided_ns=now_ns,
    )
    cluster = _succeed(cluster, roster, barren)
    return replace(_upkeep(cluster, policy, ()), roster=roster)


def _succeed(cluster: Cluster, roster: Roster, barren: int) -> Cluster:
    """The facts under the new roster."""
    workers = {}
    for slot, worker in cluster.workers.items():
        named = roster.rank_of(slot) is not None
        was = cluster.member(worker) is not None
        workers[slot] = replace(worker, released=not named and (was or worker.released))
    return replace(
        cluster,
        workers=workers,
        roster=roster,
        closed=False,
        committed=False,
        faulted={},
        causes=(),
        faults={key: seen for key, seen in cluster.faults.items() if key[0] >= roster.steps},
        received={
            m.incarnation: roster.generation if m.slot in roster.receivers else received
            for m in roster.members
            if (received := cluster.received.get(m.incarnation, 0)) or m.slot in roster.receivers
        },
        barren=barren,
        vacant_ns=None,
        growable_ns=None,
        asked=cluster.asked and roster.world_size != cluster.target,
        lost={},
        lost_code=None,
    )


# --- standbys ---------------------------------------------------------------------------------


def _upkeep(cluster: Cluster, policy: Policy, kill: tuple[int, ...]) -> Decision:
    """Starts what is missing: a rank's replacement at once, a standby only when the generation
    has committed a step, so that its start does not slow the heal."""
    roster = cluster.roster
    assert roster is not None
    cluster = _give_up(cluster, policy)
    if cluster.ended or cluster.finished or cluster.standbys_given_up:
        return Decision(cluster, kill=kill)
    if not cluster.lost and not any(worker.recoverable for worker in survivors(cluster)):
        return Decision(cluster, kill=kill)
    short = max(0, cluster.target - len(survivors(cluster)))
    have = len(spares(cluster)) + len(cluster.pending)
    settled = cluster.committed or roster.generation == 1
    wanted = short + (cluster.standbys if settled else 0)
    spawn = tuple(Spawn() for _ in range(max(0, wanted - have)))
    cluster = replace(cluster, pending=(*cluster.pending, *spawn))
    return Decision(cluster, kill=kill, spawn=spawn)


def _give_up(cluster: Cluster, policy: Policy) -> Cluster:
    """Standbys that die at once, again and again, are not started any more; the ranks go on
    without."""
    if cluster.start_failures >= policy.failure_limit:
        return replace(cluster, standbys_given_up=True)
    return cluster
