"""The sample order: a permutation, a pure function, and the same one for ever."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcore import _core
from hpcore.errors import InvalidArgument


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_permutation_visits_every_sample_once(count: int, seed: int, epoch: int) -> None:
    order = _core.Permutation(count, seed, epoch).many(0, count)
    assert sorted(order) == list(range(count))


@given(st.integers(1, 2**62), st.integers(0, 2**64 - 1), st.data())
def test_permutation_stays_in_range_and_is_injective(
    count: int, seed: int, draw: st.DataObject
) -> None:
    permutation = _core.Permutation(count, seed, 0)
    first = draw.draw(st.integers(0, max(0, count - 50)))
    window = permutation.many(first, min(50, count - first))
    assert all(0 <= sample < count for sample in window)
    assert len(set(window)) == len(window)
    assert window[0] == permutation(first)


def test_permutation_differs_between_epochs_and_seeds() -> None:
    orders = {
        tuple(_core.Permutation(1000, s, e).many(0, 1000)) for s in range(4) for e in range(4)
    }
    assert len(orders) == 16


def test_permutation_spreads_neighbours() -> None:
    count = 1 << 16
    order = _core.Permutation(count, 3, 0).many(0, count)
    halves = [sample < count // 2 for sample in order[:4096]]
    # 4096 fair coins: 6 standard deviations are 192.
    assert abs(sum(halves) - 2048) < 192
    steps = sum(abs(a - b) for a, b in pairwise(order)) / (count - 1)
    assert 0.9 < steps / (count / 3) < 1.1  # the mean distance of two uniform draws


# The order is part of a run's identity: these numbers never change.
GOLDEN = {
    (10, 0, 0): [9, 0, 6, 3, 8, 1, 2, 7],
    (1000, 7, 0): [492, 50, 820, 302, 883, 380, 810, 170],
    (1000, 7, 1): [544, 841, 777, 800, 547, 976, 463, 348],
    (2**40 + 1, 2**64 - 1, 5): [
        286156371560,
        1057684441857,
        11952450137,
        815023151405,
        824262926568,
        640963807560,
        546640276956,
        1007625640491,
    ],
}


@pytest.mark.parametrize("key", GOLDEN)
def test_permutation_is_the_one_we_promised(key: tuple[int, int, int]) -> None:
    assert _core.Permutation(*key).many(0, 8) == GOLDEN[key]


def test_permutation_refuses_what_is_out_of_range() -> None:
    permutation = _core.Permutation(10, 1, 0)
    assert len(permutation) == 10
    for position in (-1, 10, 2**62):
        with pytest.raises(InvalidArgument):
            permutation(position)
    with pytest.raises(InvalidArgument):
        permutation.many(5, 6)
    for count in (0, -1, 2**62 + 1):
        with pytest.raises(InvalidArgument):
            _core.Permutation(count, 1, 0)
