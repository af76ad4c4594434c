"""Time of a transfer plan: 16,384 ranks, 10,000 tensors. Run: pytest bench/test_bench_plan.py
--benchmark-only."""

from __future__ import annotations

from typing import Any

import pytest

from hpcore import _core

RANKS, TENSORS, PER_NODE, NODES_A_RACK = 16_384, 10_000, 8, 16


def request(lost: int, shards: int) -> Any:
    """Half the tensors replicated, half sharded over `shards` ranks; the first `lost` are lost."""
    facts = [
        _core.RankFacts(r, r // PER_NODE, r // (PER_NODE * NODES_A_RACK), 5) for r in range(RANKS)
    ]
    tensors = [_core.TensorSize(f"layer{i}", 3_000_000 + i, i % 2) for i in range(TENSORS)]
    families = [
        _core.PlanFamily([0] * RANKS),
        _core.PlanFamily([rank % shards for rank in range(RANKS)]),
    ]
    return _core.PlanRequest(tensors, families, facts, list(range(lost)), 5)


@pytest.mark.parametrize("lost", [1, 64, 2048, 8192])
@pytest.mark.parametrize("shards", [8, 1024])
def test_plan_time(benchmark: Any, lost: int, shards: int) -> None:
    made = request(lost, shards)
    pulls = benchmark.pedantic(lambda: _core.plan_transfer(made), rounds=5, warmup_rounds=1)
    benchmark.extra_info["intervals"] = len(pulls)
    assert benchmark.stats.stats.max < 1.0, "a plan must take less than a second"
