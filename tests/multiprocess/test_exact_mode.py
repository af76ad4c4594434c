"""Exact mode: the same losses, gradient norms and final state, to the bit, at any number of ranks
and after kills and resizes; and the sample ledger of the same run."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from drills import SCRIPTS, Outcome, train
from running import Run

from hpcore.ledger_proof import verify

SCRIPT = "train_exact.py"


def _result(outcome: Outcome) -> dict[str, Any]:
    assert outcome.code == 0, outcome.story()
    results = outcome.results()
    assert all(result == results[0] for result in results), outcome.story()
    found: dict[str, Any] = results[0]
    return found


def _losses(outcome: Outcome) -> dict[int, str]:
    """The bits of each step's loss, as those ranks heard it that said so."""
    found: dict[int, str] = {}
    for event in outcome.events("commit"):
        loss = float(event["sums"]["loss"]).hex()
        assert found.setdefault(event["step"], loss) == loss, event["step"]
    return found


def test_every_size_with_kills_and_resizes_gives_the_same_bits(tmp_path: Path) -> None:
    wild = tmp_path / "wild"
    command = [str(SCRIPTS / SCRIPT), str(wild), "1000000", "open"]
    faults = (
        "rank=1 step=3 point=backward action=sigkill",
        "rank=2 step=6 point=optimizer action=sigkill",
        "rank=0 step=12 point=after_ready action=sigkill",
        "rank=0 step=20 point=before_ready action=exception",
    )
    options: dict[str, Any] = {"nproc": 3, "standbys": 1, "max_nproc": 8, "inject": faults}
    options["env"] = {"HPCORE_LEDGER": str(tmp_path / "ledger")}
    wild.mkdir()
    with Run(wild / "logs", command, preload=("torch",), **options) as run:
        run.wait("death", 3)
        for size in (2, 5, 8, 1, 4):
            members = _wait_for_size(run, len(run.all("roster")[-1]["members"]))
            run.agent.resize(size)
            if len(members) == 8:  # in the middle of a resize
                os.kill(members[5]["pid"], signal.SIGKILL)
            _wait_for_size(run, size)
        (wild / "end").touch()
        assert run.finish() == 0, run.stop_reason()
    outcome = Outcome(0, "", wild)
    sizes = {event["world_size"] for event in outcome.events("commit")}
    assert sizes >= {1, 2, 3, 4, 5, 8}, outcome.story()
    assert len(outcome.events("fault_injected")) == len(faults), outcome.story()
    found = _result(outcome)
    calm = train(tmp_path / "calm", script=SCRIPT, nproc=1, standbys=0, steps=found["steps"])
    wanted = _result(calm)
    wild_losses, calm_losses = _losses(outcome), _losses(calm)
    assert len(set(calm_losses.values())) > 20
    assert [s for s, loss in wild_losses.items() if calm_losses[s] != loss] == []
    assert len(wild_losses) >= len(calm_losses) - len(faults)
    assert found == wanted
    proof = verify(str(tmp_path / "ledger"))
    assert proof.holds, proof.problems
    assert (proof.steps, proof.samples) == (found["steps"], 36 * found["steps"])
    assert proof.discarded >= 1  # the others were about to agree on step 20


def _wait_for_size(run: Run, size: int) -> list[dict[str, Any]]:
    """Until a step was committed by that many ranks; these."""
    for count in range(1, 1000):
        event = run.wait("first_commit", count)
        roster = run.wait("roster", generation=event["generation"])
        members: list[dict[str, Any]] = roster["members"]
        if len(members) == size:
            return members
    raise AssertionError(f"no {size} ranks")


def test_without_exact_mode_the_bits_differ(tmp_path: Path) -> None:
    """The test above could fail: plain sums do depend on the number of ranks."""
    plain = [
        _losses(
            train(
                tmp_path / str(nproc),
                script=SCRIPT,
                nproc=nproc,
                standbys=0,
                steps=6,
                arguments=("plain",),
            )
        )
        for nproc in (1, 2)
    ]
    assert len(plain[0]) == len(plain[1]) == 6
    assert plain[0] != plain[1]
