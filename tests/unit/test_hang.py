"""Who hangs, by looks and a clock that the test drives."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpcore.agent.hang import FORWARD, HEAL, REDUCE, HangJudge, Look
from hpcore.membership.state import Stage

TICK_S = 0.1


def look(slot: int, **fields: object) -> Look:
    healthy = Look(
        slot=slot,
        stage=Stage.TRAINING,
        process_state="S",
        heartbeats=5,
        heartbeat_age_s=0.01,
        step=3,
        phase=FORWARD,
        progress_age_s=0.01,
        commit_steps=3,
        age_s=5.0,
        member=True,
    )
    return replace(healthy, **fields)  # type: ignore[arg-type]


def judge_with_pace(step_s: float = 0.05) -> HangJudge:
    """A judge that has seen ten steps."""
    judge = HangJudge(deadline_s=30.0)
    for index in range(11):
        looks = [look(slot, commit_steps=index) for slot in range(3)]
        assert judge.judge(index * step_s, looks, True) == []
    return judge


def test_stopped_process_hangs_at_the_second_look() -> None:
    judge = HangJudge(30.0)
    looks = [look(0), look(1, process_state="T")]
    assert judge.judge(0.0, looks, True) == []
    assert [verdict.slot for verdict in judge.judge(TICK_S, looks, True)] == [1]


def test_stopped_standby_hangs_too() -> None:
    judge = HangJudge(30.0)
    stopped = look(4, process_state="T", member=False, stage=Stage.WARM)
    judge.judge(0.0, [stopped], True)
    assert [verdict.slot for verdict in judge.judge(TICK_S, [stopped], True)] == [4]


def test_traced_process_does_not_hang() -> None:
    judge = HangJudge(30.0)
    traced = look(0, process_state="t", heartbeat_age_s=100.0)
    assert judge.judge(0.0, [traced], True) == judge.judge(9.0, [traced], True) == []


@pytest.mark.parametrize(("age_s", "hangs"), [(0.4, False), (0.6, True)])
def test_overdue_heartbeat_hangs(age_s: float, hangs: bool) -> None:
    verdicts = HangJudge(30.0).judge(0.0, [look(0, heartbeat_age_s=age_s)], True)
    assert bool(verdicts) == hangs


def test_heartbeat_limit_follows_the_usual_gap() -> None:
    judge = HangJudge(30.0)
    for index in range(60):  # a loaded machine: a heartbeat each 0.2 s
        judge.judge(index * 0.2, [look(0, heartbeats=index + 1)], True)
    assert judge.judge(12.0, [look(0, heartbeats=60, heartbeat_age_s=1.5)], True) == []
    assert judge.judge(12.1, [look(0, heartbeats=60, heartbeat_age_s=2.5)], True)


def test_starved_worker_gets_longer() -> None:
    judge = HangJudge(30.0)
    assert judge.judge(0.0, [look(0, heartbeat_age_s=2.0, starved=True)], True) == []
    assert judge.judge(0.1, [look(0, heartbeat_age_s=6.0, starved=True)], True)


def test_rank_that_all_others_wait_for_hangs() -> None:
    judge = judge_with_pace()
    waiting = [look(slot, phase=REDUCE, progress_age_s=1.2) for slot in (0, 2)]
    late = look(1, phase=FORWARD, progress_age_s=1.3)
    verdicts = judge.judge(1.0, [waiting[0], late, waiting[1]], True)
    assert [verdict.slot for verdict in verdicts] == [1]
    assert "FORWARD of step 3" in verdicts[0].reason


def test_slow_steps_make_the_judge_patient() -> None:
    judge = judge_with_pace(step_s=1.0)
    looks = [look(0, phase=REDUCE, progress_age_s=4.0), look(1, progress_age_s=4.0)]
    assert judge.judge(11.0, looks, True) == []


def test_nobody_hangs_before_the_pace_is_known() -> None:
    looks = [look(0, phase=REDUCE, progress_age_s=20.0), look(1, progress_age_s=20.0)]
    assert HangJudge(30.0).judge(0.0, looks, True) == []
    late = [replace(one, progress_age_s=31.0) for one in looks]
    assert [verdict.slot for verdict in HangJudge(30.0).judge(0.0, late, True)] == [1]


def test_long_heal_is_no_hang() -> None:
    looks = [
        look(0, phase=REDUCE, progress_age_s=9.0),
        look(1, phase=HEAL, progress_age_s=9.0),
    ]
    assert judge_with_pace().judge(1.0, looks, True) == []


def test_closed_generation_blames_nobody() -> None:
    looks = [look(0, phase=REDUCE, progress_age_s=9.0), look(1, progress_age_s=9.0)]
    assert judge_with_pace().judge(1.0, looks, False) == []


def test_stalled_generation_is_named_only_when_all_wait() -> None:
    judge = judge_with_pace()
    waiting = [look(slot, phase=REDUCE, progress_age_s=40.0) for slot in range(2)]
    assert "no rank has moved" in judge.stalled(waiting)
    assert judge.stalled([waiting[0], look(1, phase=FORWARD, progress_age_s=40.0)]) == ""


def test_standby_that_never_gets_warm_hangs() -> None:
    judge = HangJudge(30.0)
    judge.started(4.0)
    cold = look(5, member=False, stage=Stage.ATTACHED, age_s=15.0)
    assert judge.judge(0.0, [cold], True) == []
    assert judge.judge(0.1, [replace(cold, age_s=17.0)], True)


def test_steps_before_the_first_look_count() -> None:
    """A job quicker than the agent's looks: a hang in step 5 is not left for the deadline."""
    judge = HangJudge(30.0)
    judge.new_generation(0.0, steps=0)
    late = look(1, phase=FORWARD, step=5, commit_steps=5, progress_age_s=0.1)
    waiting = [look(slot, phase=REDUCE, step=5, commit_steps=5) for slot in (0, 2)]
    assert judge.judge(0.4, [late, *waiting], True) == []
    late = replace(late, progress_age_s=2.0)
    waiting = [replace(other, progress_age_s=1.9) for other in waiting]
    assert [verdict.slot for verdict in judge.judge(2.3, [late, *waiting], True)] == [1]
