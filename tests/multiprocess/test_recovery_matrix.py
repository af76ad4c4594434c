"""Faults at every named point, of every kind: each run ends bit-equal to the undisturbed one.

One run carries the three kinds of a point, at different steps; what is compared is every loss,
every tensor of model and optimizer, scheduler, scaler, tracked Python state and what each rank
alone knows.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from drills import Outcome, train

STEPS = 12
KINDS = ("exception", "sigkill", "sigstop")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    outcome = train(tmp_path_factory.mktemp("undisturbed"), steps=STEPS, standbys=0)
    assert outcome.code == 0, outcome.story()
    results = outcome.results()
    assert len(results) == 3 and len(results[0]["diary"]["losses"]) == STEPS
    assert len({result["digest"] for result in results}) == 1
    samples = [sample for part in _ledger(outcome).values() for sample in part]
    assert sorted(samples) == sorted(list(range(96)) * (STEPS * 32 // 96))
    return outcome


def _ledger(outcome: Outcome) -> dict[tuple[int, int], list[int]]:
    return {(e["step"], e["rank"]): e["samples"] for e in outcome.events("commit")}


def _check(outcome: Outcome, undisturbed: Outcome, faults: int) -> None:
    assert outcome.code == 0, outcome.story()
    assert len(outcome.events("fault_injected")) == faults, outcome.story()
    assert outcome.results() == undisturbed.results(), outcome.story()
    ledger, expected = _ledger(outcome), _ledger(undisturbed)
    # A rank that dies between saying ready and hearing of the commit cannot write its line.
    assert len(ledger) >= len(expected) - faults
    assert all(expected[key] == samples for key, samples in ledger.items())


@pytest.mark.parametrize("point", ["forward", "backward", "before_ready", "after_ready"])
def test_fault_before_the_commit_leaves_no_trace(
    point: str, undisturbed: Outcome, tmp_path: Path
) -> None:
    faults = [f"rank={i} step={2 + 3 * i} point={point} action={KINDS[i]}" for i in range(3)]
    _check(train(tmp_path, *faults), undisturbed, 3)


@pytest.mark.parametrize("point", ["after_commit", "optimizer"])
def test_fault_after_the_commit_is_healed(point: str, undisturbed: Outcome, tmp_path: Path) -> None:
    faults = [f"rank={i} step={2 + 3 * i} point={point} action={KINDS[i]}" for i in range(3)]
    outcome = train(tmp_path, *faults)
    _check(outcome, undisturbed, 3)
    healed = {event["rank"] for event in outcome.events("heal", role="receiver")}
    assert {0, 1} <= healed, outcome.story()


@pytest.mark.parametrize("point", ["notify", "reform", "heal"])
@pytest.mark.parametrize("who", ["newcomer", "healthy"])
def test_fault_while_another_is_being_healed(
    point: str, who: str, undisturbed: Outcome, tmp_path: Path
) -> None:
    faults = []
    for step, kind in zip((2, 5, 8), KINDS, strict=True):
        # The optimizer fails on rank 1, so step + 1 begins with a heal of rank 1.
        faults.append(f"rank=1 step={step} point=optimizer action=exception")
        rank = 1 if who == "newcomer" else 2
        at = step + 1 if point != "notify" or who == "healthy" else step
        faults.append(f"rank={rank} step={at} point={point} action={kind}")
    _check(train(tmp_path, *faults), undisturbed, 6)


def test_rank_0_is_replaced_like_any_other(undisturbed: Outcome, tmp_path: Path) -> None:
    faults = [
        "rank=0 step=2 point=backward action=sigkill",
        "rank=0 step=5 point=optimizer action=exception",
        "rank=0 step=8 point=after_ready action=sigkill",
    ]
    _check(train(tmp_path, *faults), undisturbed, 3)


def test_two_faults_at_once(undisturbed: Outcome, tmp_path: Path) -> None:
    faults = [
        "rank=0 step=3 point=backward action=sigkill",
        "rank=2 step=3 point=backward action=sigkill",
        "rank=1 step=7 point=forward action=exception",
        "rank=2 step=7 point=forward action=sigstop",
    ]
    _check(train(tmp_path, *faults, standbys=2), undisturbed, 4)


def test_second_kill_while_the_first_is_being_healed(undisturbed: Outcome, tmp_path: Path) -> None:
    faults = [
        "rank=1 step=3 point=backward action=sigkill",
        "rank=1 step=3 point=heal action=sigkill",  # the standby that took its place
        "rank=2 step=7 point=backward action=sigkill",
        "rank=0 step=7 point=heal action=sigkill",  # a source
    ]
    outcome = train(tmp_path, *faults)
    _check(outcome, undisturbed, 4)


def test_hang_is_noticed_and_the_rank_replaced(undisturbed: Outcome, tmp_path: Path) -> None:
    faults = [
        "rank=1 step=5 point=forward action=hang",
        "rank=2 step=8 point=optimizer action=hang",
    ]
    outcome = train(tmp_path, *faults)
    _check(outcome, undisturbed, 2)
    assert [event["rank"] for event in outcome.events("hang")] == [1, 2], outcome.story()


@pytest.mark.parametrize("kind", ["exception", "sigkill"])
def test_fault_while_the_first_generation_forms(
    kind: str, undisturbed: Outcome, tmp_path: Path
) -> None:
    faults = [
        f"rank=0 step=0 point=heal action={kind}",  # the only source
        f"rank=2 step=0 point=reform action={kind}",
        f"rank=1 step=0 point=after_commit action={kind}",
    ]
    _check(train(tmp_path, *faults), undisturbed, 3)


def test_fault_in_the_last_step_and_after_it(undisturbed: Outcome, tmp_path: Path) -> None:
    last = STEPS - 1
    faults = [
        f"rank=1 step={last} point=after_commit action=sigkill",
        f"rank=2 step={STEPS} point=heal action=exception",  # a source, with no step left to run
        f"rank=0 step={STEPS} point=notify action=sigkill",
    ]
    _check(train(tmp_path, *faults), undisturbed, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_standby_that_fails_is_replaced(kind: str, undisturbed: Outcome, tmp_path: Path) -> None:
    faults = [
        f"standby=1 point=rehearsal action={kind}",
        "rank=1 step=3 point=backward action=sigkill",
    ]
    _check(train(tmp_path, *faults), undisturbed, 2)
