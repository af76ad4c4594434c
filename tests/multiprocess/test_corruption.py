"""A bit that flips in one rank's parameters, and what its replicas make of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from drills import Outcome, train

pytestmark = pytest.mark.torch

STEPS = 8


def run(folder: Path, replicas: int) -> Outcome:
    return train(
        folder,
        script="train_sharded.py",
        nproc=4,
        standbys=0,
        steps=STEPS,
        arguments=(str(replicas),),
    )


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("TEST_COMPARE_EVERY", "2")
    return monkeypatch


def test_odd_one_out_is_healed_and_reported(compared: pytest.MonkeyPatch, tmp_path: Path) -> None:
    undisturbed = run(tmp_path / "undisturbed", 0)
    assert undisturbed.code == 0, undisturbed.story()
    assert not undisturbed.events("suspect")
    compared.setenv("TEST_CORRUPT", "[2, 4]")
    outcome = run(tmp_path / "corrupt", 0)
    assert outcome.code == 0, outcome.story()
    assert [(e["rank"], e["step"]) for e in outcome.events("suspect")] == [(2, 4)]
    assert "rank 2 is suspect: its state before step 4 differs" in outcome.output
    healed = outcome.events("heal", role="receiver", generation=2)
    assert [event["rank"] for event in healed] == [2], outcome.story()
    assert outcome.results() == undisturbed.results(), outcome.story()


def test_two_replicas_that_differ_stop_the_job(
    compared: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compared.setenv("TEST_CORRUPT", "[1, 4]")
    outcome = run(tmp_path, 2)
    assert outcome.code != 0
    assert "the state of ranks [1, 3] before step 4 should be equal" in outcome.output
    assert len(outcome.events("commit", rank=0)) == 4, outcome.story()


def test_two_replicas_that_differ_are_warned_of_and_go_on(
    compared: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compared.setenv("TEST_CORRUPT", "[1, 4]")
    compared.setenv("TEST_ON_CORRUPTION", "warn")
    outcome = run(tmp_path, 2)
    assert outcome.code == 0, outcome.story()
    assert outcome.output.count("hpcore: warning: the state of ranks [1, 3]") == 1
    told = outcome.events("corruption")
    assert {tuple(event["ranks"]) for event in told} == {(1, 3)}, outcome.story()
