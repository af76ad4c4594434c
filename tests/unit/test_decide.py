"""Single decisions; any order of events is tests/sim's."""

from __future__ import annotations

from dataclasses import replace

from hpcore.membership.decide import decide
from hpcore.membership.roster import Member, Roster
from hpcore.membership.state import (
    VERSION_APPLYING,
    VERSION_NONE,
    VERSION_TORN,
    Closed,
    Cluster,
    Decision,
    Died,
    Event,
    Exited,
    Faulted,
    FirstCommit,
    Policy,
    Resized,
    ScriptFailed,
    Spawn,
    Spawned,
    Stage,
    StageChanged,
    Tick,
    WorkerFacts,
)

SECOND = 1_000_000_000
POLICY = Policy(min_ranks=3, deadline_ns=60 * SECOND)


def training(nproc: int = 3, standbys: int = 1, recoverable: bool = True) -> Cluster:
    """A job in generation 1 at step 0 whose ranks are in slots 0.., followed by warm standbys."""
    workers = {
        slot: WorkerFacts(
            slot,
            10 + slot,
            100 + slot,
            slot if slot < nproc else None,
            Stage.TRAINING if slot < nproc else Stage.WARM,
            recoverable,
        )
        for slot in range(nproc + standbys)
    }
    members = tuple(Member(rank, rank, 10 + rank, 100 + rank) for rank in range(nproc))
    roster = Roster(1, "job", 0, members, sources=tuple(range(nproc)), reason="start")
    return Cluster("job", nproc, nproc, standbys, workers, roster)


def say(cluster: Cluster, *events: Event, policy: Policy = POLICY, now_s: float = 10) -> Decision:
    """The last decision."""
    decision = Decision(cluster)
    for event in events:
        decision = decide(decision.cluster, event, policy, int(now_s * SECOND))
    return decision


def died(slot: int, recoverable: bool = True) -> Died:
    return Died(SECOND, slot, 10 + slot, Stage.TRAINING, recoverable)


def closed(steps: int, *versions: int) -> Closed:
    return Closed(SECOND, 1, steps, dict(enumerate(versions)))


def test_copies_that_outlive_the_ranks_let_a_job_go_on_that_lost_all_of_them() -> None:
    lost = say(training(), died(0), died(1), died(2))
    over = Closed(SECOND, 1, 7, dict.fromkeys(range(3), 7))
    assert say(lost.cluster, over).stop is not None
    decision = say(lost.cluster, replace(over, kept=True))
    assert decision.stop is None and decision.roster is None
    for slot in range(4, 6):
        fork = Spawned(SECOND, slot, slot + 10, 200 + slot)
        warm = StageChanged(SECOND, slot, slot + 10, Stage.WARM, True)
        decision = say(decision.cluster, fork, warm)
    again = Closed(SECOND, 1, 7, dict.fromkeys(range(3), VERSION_NONE))  # the slots were released
    roster = say(decision.cluster, again).roster
    assert roster is not None
    assert (roster.sources, roster.receivers) == ((), (3, 4, 5))


def test_first_roster_waits_for_all_ranks() -> None:
    decision = say(Cluster("job", 2, 2, 1), Tick())
    assert decision.spawn == (Spawn(0), Spawn(1))
    decision = say(decision.cluster, Spawned(0, 0, 1, 100, 0), Spawned(0, 1, 2, 101, 1))
    asks = [StageChanged(5, slot, slot + 1, Stage.TRAINING, True) for slot in range(2)]
    decision = say(decision.cluster, asks[0])
    assert decision.roster is None and decision.wait_until_ns is not None
    decision = say(decision.cluster, asks[1])
    assert decision.roster is not None
    assert (decision.roster.receivers, decision.roster.sources) == ((1,), (0,))
    assert decision.spawn == (Spawn(None),)


def test_lost_rank_is_replaced_by_the_standby_which_heals() -> None:
    decision = say(training(), died(1))
    assert decision.close and decision.roster is None
    roster = say(decision.cluster, closed(7, 7, 7, 6)).roster
    assert roster is not None
    assert (roster.generation, roster.steps, roster.slots) == (2, 7, [0, 3, 2])
    assert (roster.receivers, roster.sources) == ((3,), (0, 2))
    assert roster.detected_ns == SECOND and "rank 1 lost" in roster.reason


def test_member_that_still_applies_is_a_source() -> None:
    roster = say(training(), died(1), closed(7, VERSION_APPLYING, 7, 7)).roster
    assert roster is not None and roster.sources == (0, 2)


def test_member_that_faulted_before_it_saw_the_commit_heals() -> None:
    fault = Faulted(SECOND, 0, 10, 1, 6, False, "E", "text")
    roster = say(training(), fault, closed(7, 6, 7, 6)).roster
    assert roster is not None
    assert (roster.receivers, roster.sources) == ((0,), (1, 2))


def test_fault_before_the_commit_heals_nobody() -> None:
    fault = Faulted(SECOND, 0, 10, 1, 7, False, "E", "text")
    roster = say(training(), fault, closed(7, 7, 7, 7)).roster
    assert roster is not None and roster.receivers == () and roster.slots == [0, 1, 2]


def test_torn_member_heals() -> None:
    fault = Faulted(SECOND, 2, 12, 1, 6, True, "E", "text")
    roster = say(training(), fault, closed(7, 7, 7, VERSION_TORN)).roster
    assert roster is not None and roster.receivers == (2,)


def test_faults_of_one_generation_count_once() -> None:
    faults = [Faulted(SECOND, slot, 10 + slot, 1, 7, False, "E", "t") for slot in range(3)]
    decision = say(training(), *faults)
    assert decision.stop is None
    assert [len(seen) for seen in decision.cluster.faults.values()] == [1]


def test_standby_starts_only_after_the_first_commit() -> None:
    decision = say(training(), died(1), closed(7, 7, 7, 7))
    assert decision.spawn == ()
    assert say(decision.cluster, FirstCommit(0, 2)).spawn == (Spawn(None),)


def test_replacement_starts_at_once_if_there_is_no_standby() -> None:
    decision = say(training(standbys=0), died(1))
    assert decision.close and decision.spawn == (Spawn(None),)
    assert decision.wait_until_ns == 70 * SECOND
    assert decision.cluster.vacant_ns == 10 * SECOND
    stop = say(decision.cluster, Tick(), now_s=71).stop
    assert stop is not None and "rank 1 was lost and no replacement" in stop.reason


def test_shrink_moves_the_last_rank_into_the_gap() -> None:
    policy = replace(POLICY, min_ranks=2)
    roster = say(training(standbys=0), died(0), closed(7, 7, 7, 7), policy=policy).roster
    assert roster is not None and roster.slots == [2, 1]


def test_resize_lets_the_last_ranks_go_and_takes_them_back_as_receivers() -> None:
    down = say(training(standbys=0), Resized(0, 1), closed(7, 7, 7, 7))
    assert down.roster is not None and down.roster.slots == [0]
    up = say(down.cluster, Resized(0, 3))
    assert up.close
    roster = say(up.cluster, Closed(0, 2, 9, {0: 9, 1: 7, 2: VERSION_NONE})).roster
    assert roster is not None
    assert (roster.slots, roster.receivers, roster.sources) == ([0, 1, 2], (1, 2), (0,))


def test_lost_state_stops_with_a_reason() -> None:
    stop = say(training(), died(0), died(1), died(2), closed(7, 7, 7, 7)).stop
    assert stop is not None and "no member is left that holds the state of step 7" in stop.reason


def test_plain_rank_ends_the_job_with_its_exit_code() -> None:
    decision = say(training(standbys=0, recoverable=False), died(1, recoverable=False))
    assert decision.stop is None and not decision.close
    stop = say(decision.cluster, Exited(0, 1, 11, 137, Stage.TRAINING, False)).stop
    assert stop is not None and (stop.code, stop.reason) == (137, "rank 1 was ended by signal 9")


def test_ranks_that_fail_because_a_peer_died_are_not_the_reason() -> None:
    decision = say(
        training(standbys=0, recoverable=False),
        died(1, recoverable=False),
        ScriptFailed(0, 0, 10, "Traceback\nRosterChanged: gone"),
        Exited(0, 0, 10, 1, Stage.FAILED, False),
    )
    assert decision.stop is None
    stop = say(decision.cluster, Exited(0, 1, 11, 137, Stage.TRAINING, False)).stop
    assert stop is not None and stop.code == 137


def test_finished_ranks_end_the_job() -> None:
    exits = [Exited(0, slot, 10 + slot, 0, Stage.FINISHED, False) for slot in range(3)]
    decision = say(training(), *exits[:2])
    assert decision.stop is None
    stop = say(decision.cluster, exits[2]).stop
    assert stop is not None and stop.code == 0


def test_death_after_the_last_step_is_not_recovered() -> None:
    left = StageChanged(0, 0, 10, Stage.TRAINING, False)
    stop = say(training(), left, died(1), Exited(0, 1, 11, 139, Stage.TRAINING, True)).stop
    assert stop is not None and stop.code == 139
