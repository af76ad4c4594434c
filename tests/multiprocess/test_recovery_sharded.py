"""Faults in jobs with sharded models, HSDP on 2 x 2 ranks and plain FSDP, SIGKILL and exceptions.

Every run ends with the bits of the undisturbed one: losses, gradient norms, each rank's shards and
optimizer state, scheduler, tracked Python state and what each rank alone knows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from drills import Outcome, kill_all_at_once, train

pytestmark = pytest.mark.torch

STEPS = 10


def run(folder: Path, replicas: int, *faults: str, standbys: int = 1, **more: Any) -> Outcome:
    return train(
        folder,
        *faults,
        script="train_sharded.py",
        nproc=4,
        standbys=standbys,
        steps=STEPS,
        arguments=(str(replicas),),
        **more,
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Outcome]:
    found = {}
    for replicas in (0, 1, 2):
        folder = tmp_path_factory.mktemp(f"replicas{replicas}")
        found[replicas] = outcome = run(folder, replicas, standbys=0)
        assert outcome.code == 0, outcome.story()
        assert len(outcome.results()[0]["diary"]["losses"]) == STEPS
    return found


def check(outcome: Outcome, expected: Outcome, faults: int) -> None:
    assert outcome.code == 0, outcome.story()
    assert len(outcome.events("fault_injected")) == faults, outcome.story()
    assert outcome.results() == expected.results(), outcome.story()


def test_a_sharded_job_trains_as_one_that_is_not(undisturbed: dict[int, Outcome]) -> None:
    whole = undisturbed[0].results()[0]["diary"]
    for replicas in (1, 2):
        results = undisturbed[replicas].results()
        assert results[0]["diary"]["losses"] == pytest.approx(whole["losses"], rel=1e-3)
        assert results[0]["diary"]["norms"] == pytest.approx(whole["norms"], rel=1e-2)
        assert all(result["diary"] == results[0]["diary"] for result in results)
    digests = [result["digest"] for result in undisturbed[2].results()]
    assert digests[0] == digests[2] != digests[1] == digests[3]


@pytest.mark.parametrize("point", ["forward", "backward", "before_ready", "after_ready"])
def test_hsdp_fault_before_the_commit_leaves_no_trace(
    point: str, undisturbed: dict[int, Outcome], tmp_path: Path
) -> None:
    faults = [
        f"rank=1 step=2 point={point} action=sigkill",
        f"rank=2 step=5 point={point} action=exception",
    ]
    outcome = run(tmp_path, 2, *faults)
    check(outcome, undisturbed[2], 2)
    assert outcome.events("heal", role="receiver", rank=1, generation=2)[0]["bytes"] > 0


@pytest.mark.parametrize("point", ["after_commit", "optimizer"])
def test_hsdp_fault_after_the_commit_is_healed_by_the_replica(
    point: str, undisturbed: dict[int, Outcome], tmp_path: Path
) -> None:
    faults = [
        f"rank=0 step=2 point={point} action=sigkill",
        f"rank=3 step=5 point={point} action=exception",
    ]
    outcome = run(tmp_path, 2, *faults)
    check(outcome, undisturbed[2], 2)
    healed = {event["rank"] for event in outcome.events("heal", role="receiver")}
    assert {0, 3} <= healed, outcome.story()


def test_hsdp_two_ranks_of_different_shards_die_at_once(
    undisturbed: dict[int, Outcome], tmp_path: Path
) -> None:
    faults = [f"rank={rank} step=3 point=backward action=sigkill" for rank in (0, 3)]
    check(run(tmp_path, 2, *faults, standbys=2), undisturbed[2], 2)


def test_hsdp_second_kill_while_the_first_is_being_healed(
    undisturbed: dict[int, Outcome], tmp_path: Path
) -> None:
    faults = [
        "rank=1 step=3 point=backward action=sigkill",
        "rank=0 step=3 point=heal action=sigkill",
    ]
    check(run(tmp_path, 2, *faults, standbys=2), undisturbed[2], 2)


def test_fsdp_exceptions_before_the_commit_need_no_replica(
    undisturbed: dict[int, Outcome], tmp_path: Path
) -> None:
    faults = [
        "rank=1 step=1 point=forward action=exception",
        "rank=0 step=3 point=backward action=exception",
        "rank=3 step=6 point=before_ready action=exception",
    ]
    outcome = run(tmp_path, 1, *faults)
    check(outcome, undisturbed[1], 3)


def test_fsdp_lost_shards_stop_the_job_by_name(tmp_path: Path) -> None:
    outcome = run(tmp_path, 1, "rank=2 step=3 point=backward action=sigkill")
    assert outcome.code != 0
    assert "the state of step 3 is lost" in outcome.output, outcome.story()
    assert "shards of ranks [2] (model.0.0.weight" in outcome.output, outcome.story()


def test_micro_batches_that_cannot_be_dealt_evenly_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEST_MICRO_BATCH", "16")
    outcome = run(tmp_path, 2, standbys=0)
    assert outcome.code != 0
    assert "2 micro-batches a step cannot be dealt evenly to 4" in outcome.output


# --- shadow copies ----------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["forward", "backward", "before_ready", "after_ready"])
def test_fsdp_rank_killed_before_the_commit_comes_back_from_its_shadow_copy(
    point: str, undisturbed: dict[int, Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEST_SHADOW_EVERY", "1")
    faults = [
        f"rank=2 step=3 point={point} action=sigkill",
        f"rank=0 step=6 point={point} action=sigkill",
    ]
    outcome = run(tmp_path, 1, *faults)
    check(outcome, undisturbed[1], 2)
    copied = outcome.events("heal", tier="shadow")
    assert {event["rank"] for event in copied} >= {0, 2}, outcome.story()
    # A copy that was not whole yet costs one step, which all run again.
    assert all(event["back"] <= 1 for event in outcome.events("rewind")), outcome.story()


@pytest.mark.parametrize("point", ["after_commit", "optimizer"])
def test_fsdp_rank_killed_after_the_commit_takes_all_back_one_step(
    point: str, undisturbed: dict[int, Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEST_SHADOW_EVERY", "1")
    faults = [
        f"rank=2 step=3 point={point} action=sigkill",
        f"rank=1 step=6 point={point} action=exception",
    ]
    outcome = run(tmp_path, 1, *faults)
    check(outcome, undisturbed[1], 2)
    back = [(event["step"], event["newest"]) for event in outcome.events("rewind", rank=3)]
    assert back == [(3, 4), (6, 7)], outcome.story()
    assert "all ranks go back to step 3, from shadow copies" in outcome.output


def test_fsdp_all_go_back_to_the_last_copy_with_every_other_step_copied(
    undisturbed: dict[int, Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEST_SHADOW_EVERY", "4")
    faults = [
        "rank=3 step=6 point=before_ready action=sigkill",
        "rank=1 step=7 point=backward action=sigkill",
    ]
    outcome = run(tmp_path, 1, *faults)
    check(outcome, undisturbed[1], 2)
    back = [(event["step"], event["newest"]) for event in outcome.events("rewind", rank=0)]
    assert back == [(4, 6), (4, 7)], outcome.story()


def test_fsdp_second_kill_while_all_go_back(
    undisturbed: dict[int, Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEST_SHADOW_EVERY", "1")
    faults = [
        "rank=2 step=3 point=optimizer action=sigkill",
        "rank=1 step=4 point=heal action=sigkill",
        "rank=0 step=7 point=backward action=sigkill",
        "rank=3 step=7 point=backward action=sigkill",
    ]
    outcome = run(tmp_path, 1, *faults, standbys=2)
    check(outcome, undisturbed[1], 4)


def test_hsdp_whole_replica_group_comes_back_from_shadow_copies(
    undisturbed: dict[int, Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEST_SHADOW_EVERY", "1")
    faults = [
        "rank=1 step=5 point=before_ready action=sigkill",
        "rank=3 step=5 point=heal action=sigkill",  # the one that was to heal it
    ]
    outcome = run(tmp_path, 2, *faults, standbys=2)
    check(outcome, undisturbed[2], 2)
    assert {e["rank"] for e in outcome.events("heal", tier="shadow")} >= {1, 3}, outcome.story()


def test_fsdp_rank_killed_in_the_first_step_comes_back(
    undisturbed: dict[int, Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEST_SHADOW_EVERY", "1")
    outcome = run(tmp_path, 1, "rank=1 step=0 point=before_ready action=sigkill")
    check(outcome, undisturbed[1], 1)


@pytest.mark.parametrize("replicas", [0, 2])
def test_all_ranks_die_at_once_and_the_job_goes_on_from_shadow_copies(
    replicas: int, undisturbed: dict[int, Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEST_SHADOW_EVERY", "1")
    monkeypatch.setenv("TEST_PAUSE", "4")
    outcome = run(tmp_path, replicas, meanwhile=lambda agent: kill_all_at_once(agent, tmp_path, 4))
    check(outcome, undisturbed[replicas], 0)
    assert {e["rank"] for e in outcome.events("heal", tier="shadow")} == {0, 1, 2, 3}


def test_all_ranks_die_at_once_without_copies_and_the_job_stops(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEST_PAUSE", "4")
    outcome = run(tmp_path, 0, meanwhile=lambda agent: kill_all_at_once(agent, tmp_path, 4))
    assert outcome.code != 0
    assert "no member is left that holds the state of step 4 whole" in outcome.output
