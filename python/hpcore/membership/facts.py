"""Folds one event into the facts. Pure; what is to be done about them is `decide`'s.

The one rule behind all of it: a dead worker is *lost* (recovery's business) if a Job was in
charge of it, and otherwise *failed* (the job ends with its exit code, as under torchrun).
"""

from __future__ import annotations

from dataclasses import replace

from hpcore.membership.places import node_of
from hpcore.membership.state import (
    Cause,
    Closed,
    Cluster,
    Died,
    Event,
    Exited,
    Faulted,
    FirstCommit,
    NodeLost,
    NodesChanged,
    Policy,
    Resized,
    ScriptFailed,
    Spawned,
    SpawnFailed,
    Stage,
    StageChanged,
    Stalled,
    Stop,
    StopAsked,
    WorkerFacts,
)


def fold(cluster: Cluster, event: Event, policy: Policy) -> Cluster:
    """The facts after `event`. Events of workers that are gone, or of older generations, change
    nothing."""
    if cluster.stop is not None:
        return cluster
    match event:
        case Spawned():
            return _spawned(cluster, event)
        case SpawnFailed():
            return _spawn_failed(cluster, event)
        case StageChanged():
            return _stage_changed(cluster, event)
        case Died():
            return _died(cluster, event, policy)
        case Exited():
            return _exited(cluster, event, policy)
        case Faulted():
            return _faulted(cluster, event, policy)
        case ScriptFailed():
            return _script_failed(cluster, event)
        case StopAsked():
            return replace(cluster, stop=Stop(event.code, event.reason))
        case Closed():
            return replace(cluster, closed=True, kept=cluster.kept or event.kept)
        case FirstCommit():
            return _first_commit(cluster, event)
        case Stalled():
            if cluster.roster is None or event.generation != cluster.roster.generation:
                return cluster
            return _because(cluster, event.reason, event.at_ns)
        case Resized():
            return replace(cluster, target=event.target, asked=True)
        case NodesChanged():
            return replace(cluster, target=event.target, standbys=event.standbys)
        case NodeLost():
            return _node_lost(cluster, event, policy)
    return cluster


def worker_of(cluster: Cluster, slot: int, incarnation: int) -> WorkerFacts | None:
    """The living worker in `slot`, if it is still that one."""
    worker = cluster.workers.get(slot)
    return worker if worker is not None and worker.incarnation == incarnation else None


def name_of(cluster: Cluster, worker: WorkerFacts) -> str:
    """'rank 2' or 'standby 4', as the user sees it."""
    member = cluster.member(worker)
    if member is not None:
        return f"rank {member.rank}"
    if cluster.roster is None and worker.rank is not None:
        return f"rank {worker.rank}"
    return f"standby {worker.slot}"


def _put(cluster: Cluster, worker: WorkerFacts) -> Cluster:
    return replace(cluster, workers={**cluster.workers, worker.slot: worker})


def _drop(cluster: Cluster, worker: WorkerFacts) -> Cluster:
    workers = {slot: facts for slot, facts in cluster.workers.items() if slot != worker.slot}
    return replace(cluster, workers=workers)


def _because(cluster: Cluster, reason: str, at_ns: int) -> Cluster:
    return replace(cluster, causes=(*cluster.causes, Cause(reason, at_ns)))


def _without_pending(cluster: Cluster, rank: int | None) -> Cluster:
    pending = list(cluster.pending)
    for spawn in pending:
        if spawn.rank == rank:
            pending.remove(spawn)
            break
    return replace(cluster, pending=tuple(pending))


def _spawned(cluster: Cluster, event: Spawned) -> Cluster:
    worker = WorkerFacts(event.slot, event.incarnation, event.pid, event.rank)
    return _put(_without_pending(cluster, event.rank), worker)


def _spawn_failed(cluster: Cluster, event: SpawnFailed) -> Cluster:
    cluster = _without_pending(cluster, event.rank)
    return replace(cluster, start_failures=cluster.start_failures + 1, start_error=event.reason)


def _stage_changed(cluster: Cluster, event: StageChanged) -> Cluster:
    worker = worker_of(cluster, event.slot, event.incarnation)
    if worker is None:
        return cluster
    if event.stage in (Stage.WARM, Stage.TRAINING) and worker.stage < Stage.WARM:
        cluster = replace(cluster, start_failures=0)
    if event.stage is Stage.TRAINING and cluster.ready_ns is None:
        cluster = replace(cluster, ready_ns=event.at_ns)
    if worker.recoverable and not event.recoverable and cluster.member(worker) is not None:
        cluster = replace(cluster, ended=True)
    told = event.announcement or worker.announcement
    worker = replace(worker, stage=event.stage, recoverable=event.recoverable, announcement=told)
    return _put(cluster, worker)


def _has_rank(cluster: Cluster, worker: WorkerFacts) -> bool:
    if cluster.roster is None:
        return worker.rank is not None
    return cluster.member(worker) is not None


def _recovers(cluster: Cluster, worker: WorkerFacts, policy: Policy) -> bool:
    """Whether the loss of a worker with a rank is recovery's business."""
    if worker.stage in (Stage.FINISHED, Stage.FAILED) or cluster.ended or cluster.finished:
        return False
    if policy.max_restarts is not None and cluster.losses >= policy.max_restarts:
        return False
    if cluster.roster is None:
        return any(other.recoverable for other in cluster.workers.values())
    return worker.recoverable


def _died(cluster: Cluster, event: Died, policy: Policy) -> Cluster:
    worker = worker_of(cluster, event.slot, event.incarnation)
    if worker is None or worker.dying:
        return cluster
    worker = replace(worker, stage=event.stage, recoverable=event.recoverable)
    cluster = _put(replace(cluster, ended=cluster.ended or event.ended), worker)
    if not _has_rank(cluster, worker):
        return cluster if event.stage is Stage.FINISHED else _standby_lost(cluster, worker)
    if _recovers(cluster, worker, policy):
        return _rank_lost(cluster, worker, event.at_ns)
    if event.stage is Stage.FINISHED:
        return cluster
    if cluster.first_dying is None:
        cluster = replace(cluster, first_dying=worker.incarnation)
    return _put(cluster, replace(worker, dying=True))


def _exited(cluster: Cluster, event: Exited, policy: Policy) -> Cluster:
    if event.incarnation in cluster.lost and cluster.lost_code is None:
        cluster = replace(cluster, lost_code=event.code)
    worker = worker_of(cluster, event.slot, event.incarnation)
    if worker is None:
        return cluster
    worker = replace(worker, stage=event.stage, recoverable=event.recoverable)
    cluster = _put(cluster, worker)
    if not _has_rank(cluster, worker):
        if event.code == 0 and worker.stage is Stage.FINISHED:  # a script without a Job
            return replace(_drop(cluster, worker), standbys_given_up=True)
        return _standby_lost(cluster, worker)
    well = worker.stage is Stage.FINISHED or not worker.recoverable or cluster.ended
    if event.code == 0 and well:
        return replace(_drop(cluster, worker), finished=cluster.finished | {worker.incarnation})
    if _recovers(cluster, worker, policy):
        return replace(_rank_lost(cluster, worker, event.at_ns), lost_code=event.code)
    if cluster.first_dying not in (None, worker.incarnation):  # it only followed
        return _drop(cluster, worker)
    return replace(cluster, stop=_failed(cluster, worker, event.code, policy))


def _failed(cluster: Cluster, worker: WorkerFacts, code: int, policy: Policy) -> Stop:
    name = name_of(cluster, worker)
    how = f"was ended by signal {code - 128}" if code > 128 else f"exited with code {code}"
    if policy.max_restarts is not None and worker.recoverable and cluster.losses:
        return Stop(code or 1, f"{name} {how}, after {cluster.losses} restarts (the limit)")
    if cluster.ended:
        return Stop(code or 1, f"{name} {how} after the last step was committed")
    return Stop(code or 1, f"{name} {how}")


def _standby_lost(cluster: Cluster, worker: WorkerFacts) -> Cluster:
    cluster = _drop(cluster, worker)
    if worker.stage < Stage.WARM or worker.stage is Stage.FAILED:
        cluster = replace(cluster, start_failures=cluster.start_failures + 1)
    return cluster


def _rank_lost(cluster: Cluster, worker: WorkerFacts, at_ns: int) -> Cluster:
    member = cluster.member(worker)
    rank = member.rank if member is not None else worker.rank
    assert rank is not None
    cluster = _because(_drop(cluster, worker), f"rank {rank} lost", at_ns)
    cluster = replace(cluster, lost={**cluster.lost, worker.incarnation: rank})
    if member is None:
        return replace(cluster, start_failures=cluster.start_failures + 1)
    failures = dict(cluster.step_failures)
    if not worker.proved:
        failures[rank] = failures.get(rank, 0) + 1
        if cluster.roster is not None and "grow to" in cluster.roster.reason:
            cluster = replace(cluster, growth_failed_ns=at_ns, asked=False)
    return replace(
        cluster,
        losses=cluster.losses + 1,
        step_failures=failures,
    )


def _node_lost(cluster: Cluster, event: NodeLost, policy: Policy) -> Cluster:
    """All its workers at once. The loss of a standby is no failed start."""
    why = f"node {event.node} lost{f': {event.reason}' if event.reason else ''}"
    for worker in list(cluster.workers.values()):
        if node_of(worker.slot) != event.node:
            continue
        if not _has_rank(cluster, worker):
            cluster = _drop(cluster, worker)
        elif _recovers(cluster, worker, policy):
            cluster = _rank_lost(cluster, worker, event.at_ns)
            cluster = replace(cluster, start_failures=0, step_failures={})
        elif cluster.stop is None and worker.stage is not Stage.FINISHED:
            cluster = replace(cluster, stop=Stop(1, f"{name_of(cluster, worker)} lost: {why}"))
    return cluster


def _faulted(cluster: Cluster, event: Faulted, policy: Policy) -> Cluster:
    worker = worker_of(cluster, event.slot, event.incarnation)
    roster = cluster.roster
    if worker is None or roster is None:
        return cluster
    member = cluster.member(worker)
    if member is None:  # a rehearsal failed: `decide` has it killed, its death is counted
        return replace(cluster, start_error=event.text)
    generation = event.generation or roster.generation
    if cluster.ended or cluster.finished:
        reason = f"exception in rank {member.rank} after the last step was committed"
        return replace(cluster, stop=Stop(1, reason, event.text))
    if generation < roster.generation:
        if event.torn and cluster.received.get(event.incarnation, 0) <= generation:
            reason = f"rank {member.rank} torn at step {event.step}"
            cluster = replace(cluster, faulted={**cluster.faulted, event.slot: True})
            return _because(cluster, reason, event.at_ns)
        return cluster
    key = (event.step, event.signature)
    seen = cluster.faults.get(key, frozenset()) | {generation}
    torn = event.torn or cluster.faulted.get(event.slot, False)
    cluster = replace(
        cluster,
        faults={**cluster.faults, key: seen},
        faulted={**cluster.faulted, event.slot: torn},
    )
    if len(seen) >= policy.same_fault_limit:
        reason = (
            f"step {event.step} failed {len(seen)} times for the same reason "
            f"(last in rank {member.rank}): {event.signature}"
        )
        return replace(cluster, stop=Stop(1, reason, event.text))
    what = "torn" if event.torn else "exception"
    return _because(cluster, f"{what} in rank {member.rank} at step {event.step}", event.at_ns)


def _script_failed(cluster: Cluster, event: ScriptFailed) -> Cluster:
    worker = worker_of(cluster, event.slot, event.incarnation)
    if worker is None:
        return cluster
    if not _has_rank(cluster, worker):
        return _put(replace(cluster, start_error=event.text), replace(worker, stage=Stage.FAILED))
    if cluster.first_dying not in (None, worker.incarnation):  # it lost its peer, and says so
        return _put(cluster, replace(worker, stage=Stage.FAILED))
    lines = event.text.strip().splitlines() or ["no traceback"]
    reason = f"the script failed in {name_of(cluster, worker)}: {lines[-1]}"
    return replace(cluster, stop=Stop(1, reason, event.text))


def _first_commit(cluster: Cluster, event: FirstCommit) -> Cluster:
    roster = cluster.roster
    if roster is None or event.generation != roster.generation:
        return cluster
    workers = {
        slot: replace(worker, proved=True) if cluster.member(worker) else worker
        for slot, worker in cluster.workers.items()
    }
    return replace(cluster, workers=workers, committed=True, step_failures={}, barren=0)
