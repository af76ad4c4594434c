"""The parts of the scaling policy that rosters hang on: sizes, waits, settling, snoozing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_decide import POLICY, SECOND, say, training

from hpcore.agent.options import AgentOptions
from hpcore.elastic import Policy as Scaling
from hpcore.elastic import SizeSettings
from hpcore.errors import InvalidArgument
from hpcore.membership.state import (
    Closed,
    Cluster,
    Decision,
    Died,
    FirstCommit,
    Policy,
    Resized,
    Spawned,
    Stage,
    StageChanged,
    Tick,
)

PATIENT = Policy(
    min_ranks=1,
    deadline_ns=60 * SECOND,
    sizes=(1, 2, 4),
    settle_ns=30 * SECOND,
    standby_wait_ns=10 * SECOND,
    snooze_ns=300 * SECOND,
)


def closed(cluster: Cluster, now_s: float, policy: Policy = PATIENT, steps: int = 5) -> Decision:
    assert cluster.roster is not None
    versions = {m.slot: steps for m in cluster.roster.members if m.slot in cluster.workers}
    generation = cluster.roster.generation
    event = Closed(0, generation, steps, versions)
    return say(cluster, event, policy=policy, now_s=now_s)


def lost(cluster: Cluster, slot: int, now_s: float) -> Decision:
    died = Died(int(now_s * SECOND), slot, 10 + slot, Stage.TRAINING, True)
    return say(cluster, died, policy=PATIENT, now_s=now_s)


def standby(cluster: Cluster, slot: int, now_s: float) -> Decision:
    """A standby comes and is warm."""
    at = int(now_s * SECOND)
    return say(
        cluster,
        Spawned(at, slot, 10 + slot, 100 + slot),
        StageChanged(at, slot, 10 + slot, Stage.WARM, True),
        policy=PATIENT,
        now_s=now_s,
    )


def shrunk() -> Cluster:
    """Four ranks, one lost at 10 s, no standby until 20 s: two ranks go on."""
    first = lost(training(4, standbys=0), 3, 10)
    decision = closed(first.cluster, 10.1)
    assert decision.roster is None
    decision = closed(say(decision.cluster, Tick(), policy=PATIENT, now_s=20.2).cluster, 20.2)
    assert decision.roster is not None and decision.roster.world_size == 2
    return decision.cluster


def test_lost_rank_is_waited_for_before_the_world_shrinks() -> None:
    decision = lost(training(4, standbys=0), 3, 10)
    assert decision.close and decision.roster is None and len(decision.spawn) == 1
    waiting = closed(decision.cluster, 10.1)
    assert waiting.roster is None
    assert not say(waiting.cluster, Tick(), policy=PATIENT, now_s=19).close
    came = standby(waiting.cluster, 4, 15)
    replaced = closed(came.cluster, 15)
    assert replaced.roster is not None and replaced.roster.world_size == 4
    impatient = replace(PATIENT, standby_wait_ns=0)
    at_once = closed(decision.cluster, 10.1, impatient)
    assert at_once.roster is not None and at_once.roster.world_size == 2  # 3 is not allowed


def test_world_grows_when_newcomers_have_settled() -> None:
    cluster = standby(shrunk(), 4, 25).cluster
    cluster = say(cluster, FirstCommit(0, 2), policy=PATIENT, now_s=25).cluster
    early = say(cluster, Tick(), policy=PATIENT, now_s=54)
    assert not early.close
    late = say(early.cluster, Tick(), policy=PATIENT, now_s=56)
    assert late.close
    grown = closed(late.cluster, 56, steps=9)
    assert grown.roster is not None and grown.roster.world_size == 4
    assert grown.roster.reason == "grow to 4"


def test_newcomer_that_flaps_begins_to_settle_anew() -> None:
    cluster = standby(shrunk(), 4, 25).cluster
    cluster = say(cluster, FirstCommit(0, 2), policy=PATIENT, now_s=25).cluster
    gone = say(cluster, Died(0, 4, 14, Stage.WARM, True), policy=PATIENT, now_s=40)
    back = standby(gone.cluster, 5, 45)
    assert not say(back.cluster, Tick(), policy=PATIENT, now_s=74).close
    assert say(back.cluster, Tick(), policy=PATIENT, now_s=75.5).close


def test_growth_that_failed_is_snoozed_unless_it_is_asked_for() -> None:
    cluster = standby(shrunk(), 4, 25).cluster
    grown = closed(say(cluster, Tick(), policy=PATIENT, now_s=56).cluster, 56, steps=9)
    assert grown.roster is not None and grown.roster.world_size == 4
    failed = lost(grown.cluster, 4, 57)
    waiting = say(closed(failed.cluster, 57, steps=9).cluster, Tick(), policy=PATIENT, now_s=68)
    small = closed(waiting.cluster, 68, steps=9)
    assert small.roster is not None and small.roster.world_size == 2
    again = standby(small.cluster, 6, 70).cluster
    assert not say(again, Tick(), policy=PATIENT, now_s=300).close
    assert say(again, Tick(), policy=PATIENT, now_s=358).close
    assert say(again, Resized(0, 4), policy=PATIENT, now_s=71).close


def test_without_a_policy_nothing_is_waited_for() -> None:
    cluster = say(training(3), Resized(0, 4), now_s=10).cluster
    assert say(cluster, Tick(), policy=POLICY, now_s=10).close


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"nproc": 3, "policy": Scaling(max=4, sizes=(2, 4))}, "--nproc 3 .*allows: 2, 4"),
        ({"nproc": 2, "min": 1, "policy": Scaling(max=4)}, "are the policy's"),
        ({"nproc": 2, "policy": Scaling(max=4, by_size={2: SizeSettings(lr=1.0)})}, "by_size"),
        ({"nproc": 2, "policy": Scaling(max=100)}, "max 100: one node"),
    ],
)
def test_options_refuse_policies(tmp_path: Path, options: dict[str, object], said: str) -> None:
    script = tmp_path / "s.py"
    script.write_text("")
    with pytest.raises(InvalidArgument, match=said):
        AgentOptions(command=[str(script)], **options).check()  # type: ignore[arg-type]
