"""The last resort: what is lost in memory is read from a durable checkpoint, and said so."""

from __future__ import annotations

from pathlib import Path

import pytest
from drills import Outcome, train

pytestmark = pytest.mark.torch

STEPS = 10


def run(folder: Path, replicas: int, *faults: str, steps: int = STEPS) -> Outcome:
    return train(
        folder,
        *faults,
        script="train_sharded.py",
        nproc=4,
        standbys=1 if faults else 0,
        steps=steps,
        arguments=(str(replicas),),
    )


def test_fsdp_rank_without_any_copy_takes_all_back_to_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = run(tmp_path / "undisturbed", 1)
    assert undisturbed.code == 0, undisturbed.story()
    monkeypatch.setenv("TEST_CHECKPOINT_DIR", str(tmp_path / "saved"))
    faults = [f"rank={rank} step=7 point=before_ready action=sigkill" for rank in (2,)]
    outcome = run(tmp_path / "disturbed", 1, *faults)
    assert outcome.code == 0, outcome.story()
    told = outcome.events("heal", generation=2)
    assert [event["tier"] for event in told] == ["disk"] * 4, outcome.story()
    assert {event["step"] for event in told} <= {2, 4, 6}
    assert "all ranks go back to step" in outcome.output
    assert f"from disk ({tmp_path / 'saved'})" in outcome.output
    assert outcome.results() == undisturbed.results(), outcome.story()


@pytest.mark.parametrize("replicas", [0, 2])
def test_job_that_starts_again_goes_on_from_the_newest_checkpoint(
    replicas: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = run(tmp_path / "undisturbed", replicas)
    assert undisturbed.code == 0, undisturbed.story()
    monkeypatch.setenv("TEST_CHECKPOINT_DIR", str(tmp_path / "saved"))
    first = run(tmp_path / "first", replicas, steps=6)
    assert first.code == 0, first.story()
    again = run(tmp_path / "again", replicas, "rank=1 step=8 point=backward action=sigkill")
    assert again.code == 0, again.story()
    begun = again.events("heal", generation=1)
    assert [(event["step"], event["tier"]) for event in begun] == [(6, "disk")] * 4
    assert "goes on from step 6, from disk" in again.output
    results = [outcome.results() for outcome in (again, undisturbed)]
    if not replicas:  # one replica speaks for all: what ranks alone know is rank 0's
        for ranks in results:
            for result in ranks[1:]:
                result.pop("local")
    assert results[0] == results[1], again.story()
