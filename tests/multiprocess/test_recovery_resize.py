"""Ranks are taken away and given back between two steps: no sample is lost, nobody restarts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from drills import SCRIPTS, Outcome, train
from running import Run

from hpcore.ledger_proof import verify

STEPS = 120


def test_world_shrinks_and_grows_in_place(tmp_path: Path) -> None:
    command = [str(SCRIPTS / "train_small.py"), str(tmp_path), str(STEPS)]
    with Run(tmp_path / "logs", command, nproc=3, standbys=0, preload=("torch",)) as run:
        run.wait("first_commit", generation=1)
        pids = {m["rank"]: m["pid"] for m in run.wait("roster", generation=1)["members"]}
        run.agent.resize(2)
        run.wait("first_commit", generation=2)
        run.agent.resize(3)
        run.wait("first_commit", generation=3)
        assert run.finish() == 0, run.stop_reason()
    outcome = Outcome(0, "", tmp_path)
    ranks = outcome.ranks()
    assert {rank: about["about"]["pid"] for rank, about in enumerate(ranks)} == pids
    commits = outcome.events("commit")
    assert {event["world_size"] for event in commits} == {2, 3}, outcome.story()
    assert len({rank["result"]["digest"] for rank in ranks}) == 1
    dealt: dict[int, list[int]] = {}
    for event in commits:
        dealt.setdefault(event["step"], []).extend(event["samples"])
    order = [sorted(dealt[step]) for step in range(STEPS)]
    assert all(len(samples) == 32 for samples in order)
    for epoch in range(STEPS // 3):  # 96 samples are three steps
        samples = [s for step in order[3 * epoch : 3 * epoch + 3] for s in step]
        assert sorted(samples) == list(range(96))
    undisturbed = train(tmp_path / "undisturbed", standbys=0, steps=STEPS)
    expected = undisturbed.results()[0]["diary"]
    found = ranks[0]["result"]["diary"]
    assert order == _order(undisturbed) and found["seen"] == expected["seen"]
    # Sums are taken in another order where the world has another size, and errors grow.
    assert found["losses"][:3] == pytest.approx(expected["losses"][:3], rel=1e-3)


def _order(outcome: Outcome) -> list[list[int]]:
    dealt: dict[int, list[int]] = {}
    for event in outcome.events("commit"):
        dealt.setdefault(event["step"], []).extend(event["samples"])
    return [sorted(dealt[step]) for step in range(STEPS)]


def test_world_shrinks_when_no_replacement_is_kept(tmp_path: Path) -> None:
    outcome = train(
        tmp_path,
        "rank=1 step=4 point=backward action=sigkill",
        standbys=0,
        steps=60,
        options=("--min", "2"),
    )
    assert outcome.code == 0, outcome.story()
    sizes = [len(event["members"]) for event in outcome.events("roster")]
    assert sizes[:2] == [3, 2], outcome.story()
    results = outcome.results()
    assert len({result["digest"] for result in results}) == 1, json.dumps(results)
    assert results[0]["diary"]["seen"] == list(range(60))


def test_policy_file_says_which_sizes_there_are(tmp_path: Path) -> None:
    """Of three that are left two go on, as three is no size; the third waits and comes back."""
    policy = tmp_path / "policy.yaml"
    policy.write_text("min: 2\nmax: 4\nsizes: [2, 4]\nstandby_wait_s: 0\nsettle_s: 0\n")
    outcome = train(
        tmp_path,
        "rank=1 step=4 point=backward action=sigkill",
        nproc=4,
        standbys=0,
        steps=40,
        options=("--policy", str(policy), "--ledger", str(tmp_path / "ledger")),
    )
    assert outcome.code == 0, outcome.story()
    sizes = [len(event["members"]) for event in outcome.events("roster")]
    assert sizes[:2] == [4, 2] and set(sizes) == {2, 4}, outcome.story()
    proof = verify(str(tmp_path / "ledger"))
    assert proof.holds and proof.steps == 40, proof.problems
