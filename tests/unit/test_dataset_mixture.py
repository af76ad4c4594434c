"""Mixtures: exact shares over any window, one pure function, and the same one for ever."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcore import _core
from hpcore.errors import InvalidArgument

WEIGHTS = st.lists(st.integers(0, 40), min_size=1, max_size=9).filter(any)


@given(WEIGHTS)
@settings(max_examples=60)
def test_interleave_is_never_off_by_one(weights: list[int]) -> None:
    total = sum(weights)
    turns = _core.Interleave(weights)
    had = [0] * len(weights)
    active = sum(weight > 0 for weight in weights)
    bound = 1 - Fraction(1, 2 * active - 2) if active > 1 else Fraction(0)
    for k, party in enumerate(turns.many(0, total), 1):
        assert turns.nth(k - 1) == had[party]
        had[party] += 1
        for i, weight in enumerate(weights):
            assert turns.count(i, k) == had[i]
            assert abs(had[i] - Fraction(weight * k, total)) <= bound
    assert had == weights


@given(WEIGHTS, st.integers(0, 2**50), st.integers(0, 300))
def test_interleave_counts_any_window(weights: list[int], first: int, length: int) -> None:
    turns = _core.Interleave(weights)
    window = turns.many(first, length)
    for i, weight in enumerate(weights):
        counted = turns.count(i, first + length) - turns.count(i, first)
        assert window.count(i) == counted
        assert abs(counted - Fraction(weight * length, turns.total)) < 2


def test_interleave_refuses_what_is_no_weighting() -> None:
    for weights in ([], [0, 0], [65536, 1], [1] * 4097):
        with pytest.raises(InvalidArgument, match="weights"):
            _core.Interleave(weights)
    with pytest.raises(InvalidArgument, match="no party 2"):
        _core.Interleave([1, 1]).count(2, 5)


@given(
    st.lists(st.integers(1, 40), min_size=2, max_size=4),
    st.lists(st.integers(1, 9), min_size=4, max_size=4),
    st.integers(0, 2**63 - 1),
)
@settings(max_examples=40)
def test_mixture_walks_each_member_epoch_by_epoch(
    counts: list[int], weights: list[int], seed: int
) -> None:
    later = weights[::-1]
    phases = [(0, weights[: len(counts)]), (37, later[: len(counts)])]
    order = _core.MixtureOrder(counts, phases, seed)
    members, samples = order.many(0, 400)
    for member, count in enumerate(counts):
        own = [s for m, s in zip(members, samples, strict=True) if m == member]
        assert len(own) == order.count(member, 400)
        for epoch in range(len(own) // count):
            assert sorted(own[epoch * count : (epoch + 1) * count]) == list(range(count))
    assert order.many(123, 50) == (members[123:173], samples[123:173])


def test_mixture_changes_its_weights_at_the_position_said() -> None:
    order = _core.MixtureOrder([1000, 1000], [(0, [1, 0]), (10, [1, 1]), (30, [0, 1])], 5)
    members, _ = order.many(0, 60)
    assert members[:10] == [0] * 10
    assert members[10:30].count(0) == 10
    assert members[30:] == [1] * 30


def test_mixture_reaches_far_positions_at_once() -> None:
    order = _core.MixtureOrder([10**9, 2**40], [(0, [7, 3])], 1)
    far = 2**60
    members, samples = order.many(far, 10)
    assert members.count(0) == 7
    assert all(s < (10**9, 2**40)[m] for m, s in zip(members, samples, strict=True))
    assert order.count(0, far + 10) + order.count(1, far + 10) == far + 10


def test_mixture_is_the_one_we_promised() -> None:
    assert _core.ORDER_VERSION == 1
    members, samples = _core.MixtureOrder([100, 50, 7], [(0, [5, 3, 2])], 7).many(0, 12)
    assert (members, samples) == GOLDEN


def test_mixture_refuses_what_is_no_mixture() -> None:
    for counts, phases, why in (
        ([5, 5], [], "at least one phase"),
        ([5, 5], [(1, [1, 1])], "out of order"),
        ([5, 5], [(0, [1, 1]), (0, [1, 1])], "out of order"),
        ([5, 5], [(0, [1])], "1 weights for 2 members"),
        ([5, 0], [(0, [1, 1])], "no sample"),
        ([2**63], [(0, [1])], "limit"),
    ):
        with pytest.raises(InvalidArgument, match=why):
            _core.MixtureOrder(counts, phases, 1)


GOLDEN = ([0, 1, 0, 2, 0, 1, 0, 2, 1, 0, 0, 1], [46, 7, 73, 2, 53, 1, 24, 6, 48, 44, 25, 17])
