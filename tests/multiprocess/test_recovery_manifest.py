"""State of every kind in one job, with kills: tensor parallel, experts, tied and aliased tensors,
optimizer state that is made late, random generators, plain and pickled values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from drills import Outcome, train

pytestmark = pytest.mark.torch


def run(folder: Path, replicas: int, *faults: str, **more: Any) -> Outcome:
    return train(
        folder,
        *faults,
        script="train_manifest.py",
        nproc=4,
        steps=8,
        arguments=(str(replicas),),
        **more,
    )


@pytest.mark.parametrize(("replicas", "tier"), [(1, "shadow"), (2, "peer")])
def test_state_of_every_kind_survives_kills(
    replicas: int, tier: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if tier == "shadow":
        monkeypatch.setenv("TEST_SHADOW_EVERY", "1")
    undisturbed = run(tmp_path / "undisturbed", replicas, standbys=0)
    assert undisturbed.code == 0, undisturbed.story()
    faults = [
        "rank=1 step=2 point=backward action=sigkill",  # before `late` has optimizer state
        "rank=2 step=5 point=before_ready action=sigkill",
        "rank=0 step=6 point=forward action=exception",
    ]
    outcome = run(tmp_path / "faults", replicas, *faults)
    assert outcome.code == 0, outcome.story()
    assert len(outcome.events("fault_injected")) == 3, outcome.story()
    assert outcome.results() == undisturbed.results(), outcome.story()
    healed = {e["rank"] for e in outcome.events("heal", role="receiver", tier=tier)}
    assert healed >= {1, 2}, outcome.story()
