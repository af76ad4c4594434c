"""The protocol between nodes under any order of events: one roster for each generation, no rank
held twice among the unfenced, no committed step lost, progress once faults stop."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from nodes_sim import NodesSimulation, Stopped

from hpcore.membership.lead import Lead

SEEDS = int(os.environ.get("HPCORE_SIM_SEEDS", "300"))


def outcome(seed: int, lead_class: type[Lead] = Lead) -> str:
    try:
        return NodesSimulation(seed, lead_class).run()
    except Stopped as stopped:
        return f"stopped: {stopped}"
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}") from error


def test_nodes_keep_their_promises_in_any_order() -> None:
    told: Counter[str] = Counter()
    for seed in range(SEEDS):
        told[outcome(seed).partition(":")[0]] += 1
    assert told["done"] > SEEDS // 2, told


class EarlyCommit(Lead):
    unsafe_early_commit = True


class ForgetFrozen(Lead):
    unsafe_forget_frozen = True


@pytest.mark.parametrize(
    ("bug", "sign"), [(EarlyCommit, "both unfenced"), (ForgetFrozen, r"steps committed|applied")]
)
def test_simulation_finds_planted_bugs(bug: type[Lead], sign: str) -> None:
    with pytest.raises(AssertionError, match=sign):
        for seed in range(SEEDS):
            outcome(seed, bug)
