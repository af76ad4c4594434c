"""Who pulls what from whom, by example; tests/sim/test_transfer_sim.py has the random ones."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from hpcore import _core
from hpcore.errors import InvalidArgument, NotFound

MIB = 1 << 20


def request(
    places: list[tuple[int, int, int]],
    receivers: list[int],
    mib: int = 512,
    *,
    groups: list[int] | None = None,
    **changes: Any,
) -> Any:
    """One family of two tensors; ranks at (process, node, rack), `changes` by rank as r3={...}."""
    facts = []
    for rank, (process, node, rack) in enumerate(places):
        own = {"version": 7, **changes.get(f"r{rank}", {})}
        facts.append(_core.RankFacts(process, node, rack, **own))
    tensors = [_core.TensorSize("wte", mib * MIB - 100), _core.TensorSize("head", 100)]
    family = _core.PlanFamily(groups or [0] * len(places))
    return _core.PlanRequest(tensors, [family], facts, receivers, 7)


def on_one_node(count: int) -> list[tuple[int, int, int]]:
    return [(rank, 0, 0) for rank in range(count)]


def given(pulls: list[Any]) -> Counter[int]:
    """Bytes by source."""
    total: Counter[int] = Counter()
    for pull in pulls:
        total[pull.source] += pull.end - pull.begin
    return total


def test_plan_lets_all_replicas_serve_alike() -> None:
    pulls = _core.plan_transfer(request(on_one_node(5), [3]))
    assert set(given(pulls).values()) == {128 * MIB}
    assert [(p.source, p.begin) for p in pulls] == [
        (1, 0),
        (2, 128 * MIB),
        (4, 256 * MIB),
        (0, 384 * MIB),
    ]


def test_plan_prefers_the_same_node_and_fills_up_from_afar() -> None:
    near_two = [(0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 1, 1)]
    assert set(given(_core.plan_transfer(request(near_two, [0])))) == {1, 2}
    near_one = [(0, 0, 0), (1, 0, 0), (2, 1, 1), (3, 1, 1)]
    load = given(_core.plan_transfer(request(near_one, [0])))
    assert load[1] > 4 * load[2] > 0
    assert abs(load[2] - load[3]) <= 2 * MIB


def test_plan_spreads_several_receivers_over_the_sources() -> None:
    pulls = _core.plan_transfer(request(on_one_node(8), [1, 4, 6]))
    load = given(pulls)
    assert set(load) == {0, 2, 3, 5, 7}
    assert max(load.values()) - min(load.values()) <= 4 * MIB
    for receiver in (1, 4, 6):
        assert sum(p.end - p.begin for p in pulls if p.receiver == receiver) == 512 * MIB


def test_plan_uses_the_measured_rate() -> None:
    slow = request(on_one_node(4), [0], r2={"rate_bytes_per_s": 1e9})
    load = given(_core.plan_transfer(slow))
    assert 0 < load[2] < 0.15 * load[1]


def test_plan_never_uses_older_unhealthy_or_foreign_ranks() -> None:
    made = request(
        on_one_node(6), [0], groups=[0, 0, 0, 0, 1, 0], r1={"version": 6}, r2={"healthy": False}
    )
    assert set(given(_core.plan_transfer(made))) == {3, 5}


def test_plan_names_what_is_lost_and_why() -> None:
    made = request(
        on_one_node(5), [0, 4], groups=[0, 0, 0, 1, 0], r1={"version": 6}, r2={"healthy": False}
    )
    with pytest.raises(NotFound) as caught:
        _core.plan_transfer(made)
    for words in (
        "version 7 is lost",
        "wte, head",
        "rank 0 is itself to be healed",
        "rank 1 holds version 6",
        "rank 2 is not healthy",
        "1 more",
    ):
        assert words in str(caught.value)


def test_replan_moves_only_what_is_left() -> None:
    made = request(on_one_node(4), [0], r1={"healthy": False})
    left = [_core.Remaining(0, 0, 5 * MIB, 9 * MIB), _core.Remaining(0, 0, 510 * MIB, 512 * MIB)]
    pulls = _core.replan_transfer(made, left)
    assert set(given(pulls)) == {2, 3}
    assert sum(given(pulls).values()) == 6 * MIB
    refused = [_core.Remaining(0, 0, 5 * MIB, 9 * MIB, [3])]
    assert set(given(_core.replan_transfer(made, refused))) == {2}
    with pytest.raises(NotFound, match="rank 2 gave bytes whose digest differs"):
        _core.replan_transfer(made, [_core.Remaining(0, 0, 0, MIB, [2, 3])])


def test_replan_refuses_parts_of_chunks() -> None:
    made = request(on_one_node(2), [0])
    with pytest.raises(InvalidArgument, match="whole chunks"):
        _core.replan_transfer(made, [_core.Remaining(0, 0, 5, MIB)])
    with pytest.raises(InvalidArgument, match="names rank 1"):
        _core.replan_transfer(made, [_core.Remaining(1, 0, 0, MIB)])


def test_plan_refuses_what_contradicts_itself() -> None:
    with pytest.raises(InvalidArgument, match="receiver 9 of 2 ranks"):
        _core.plan_transfer(request(on_one_node(2), [9]))
    with pytest.raises(InvalidArgument, match="not ascending"):
        _core.plan_transfer(request(on_one_node(4), [2, 1]))
    with pytest.raises(InvalidArgument, match="speaks of 1 ranks"):
        _core.plan_transfer(request(on_one_node(2), [0], groups=[0]))


def test_plan_stays_compact() -> None:
    pulls = _core.plan_transfer(request(on_one_node(300), [5], mib=100_000))
    assert len(pulls) <= 64
