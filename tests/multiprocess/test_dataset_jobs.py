"""Datasets in jobs: what a dead rank computed is read by its replacement, and a job goes on with no
other data than its own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from drills import SCRIPTS, Outcome, train
from running import Run

from hpcore import dataset
from hpcore.dataset import MappedDataset

pytestmark = pytest.mark.torch
BATCH, SEED = 8, 3


def make_data(folder: Path, name: str = "tokens", text: bytes = bytes(range(256)) * 8) -> Path:
    (folder / f"{name}.txt").write_bytes(text)
    dataset.build_text([folder / f"{name}.txt"], folder / f"{name}.hpd", dtype="uint16")
    return folder / f"{name}.hpd"


def cached(folder: Path, data: Path, *faults: str, steps: int = 8) -> Outcome:
    return train(
        *(folder, *faults),
        script="train_cached.py",
        nproc=2,
        standbys=1 if faults else 0,
        steps=steps,
        arguments=(str(data),),
    )


def calls(folder: Path) -> Counter[int]:
    """How often the function ran, by position."""
    return Counter(int(line) for line in (folder / "calls").read_text().split())


def test_results_of_a_killed_rank_are_read_by_its_replacement(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    fault = "rank=1 step=4 point=before_ready action=sigkill"  # it has made all its results
    outcome = cached(tmp_path / "job", data, fault)
    assert outcome.code == 0, outcome.story()
    assert len(outcome.events("death")) == 1 and outcome.events("heal", generation=2)
    ran = calls(tmp_path / "job")
    assert sorted(ran) == list(range(8 * BATCH))
    # Step 0 is rehearsed by the standby while the ranks run it.
    twice = {place: times for place, times in ran.items() if times > 1 and place >= BATCH}
    assert not twice, outcome.story()
    losses = outcome.ranks()
    assert len(losses[0]) == 8 and losses[0] == losses[1]


def test_job_resumed_with_other_data_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_CHECKPOINT_DIR", str(tmp_path / "saved"))
    data = make_data(tmp_path)
    other = make_data(tmp_path, "other", bytes(range(255, -1, -1)) * 8)
    assert cached(tmp_path / "first", data, steps=4).code == 0
    refused = cached(tmp_path / "other-data", other)
    assert refused.code != 0 and not (tmp_path / "other-data" / "rank0.json").exists()
    assert f"data position is of dataset {MappedDataset(data).identity.hex()}" in refused.output
    assert not (tmp_path / "other-data" / "calls").exists()  # nothing was trained with it
    again = cached(tmp_path / "again", data)
    assert again.code == 0, again.story()
    assert sorted(calls(tmp_path / "again")) == list(range(4 * BATCH, 8 * BATCH))


def test_order_is_the_same_through_resizes(tmp_path: Path) -> None:
    data, folder, steps = make_data(tmp_path), tmp_path / "job", 300
    folder.mkdir()
    command = [str(SCRIPTS / "train_cached.py"), str(folder), str(steps), str(data)]
    with Run(folder / "logs", command, nproc=3, standbys=0, preload=("torch",)) as run:
        run.wait("first_commit", generation=1)
        run.agent.resize(2)
        run.wait("first_commit", generation=2)
        run.agent.resize(3)
        run.wait("first_commit", generation=3)
        assert run.finish() == 0, run.stop_reason()
    commits = Outcome(0, "", folder).events("commit")
    assert {event["world_size"] for event in commits} == {2, 3}
    dealt: dict[int, dict[int, list[int]]] = {}
    for event in commits:
        dealt.setdefault(event["step"], {})[event["rank"]] = event["samples"]
    seen = [s for step in range(steps) for rank in sorted(dealt[step]) for s in dealt[step][rank]]
    assert seen == MappedDataset(data, 16).samples_at(SEED, 0, steps * BATCH)
    assert max(calls(folder).values()) == 1
