"""The permutation against chance: fixed seeds, so a test either holds for ever or never did."""

from __future__ import annotations

import math
from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from hpcore import _core


def chi_square_deviation(observed: list[int], expected: float) -> float:
    """How many standard deviations the chi-square of equal cells is off (Wilson-Hilferty)."""
    cells = len(observed)
    chi = sum((count - expected) ** 2 for count in observed) / expected
    free = cells - 1
    return ((chi / free) ** (1 / 3) - (1 - 2 / (9 * free))) / math.sqrt(2 / (9 * free))


def test_order_of_small_sets_is_any_with_equal_chance() -> None:
    draws = 24_000
    seen = Counter(tuple(_core.Permutation(5, seed, 3).many(0, 5)) for seed in range(draws))
    counts = [seen[order] for order in permutations(range(5))]
    assert abs(chi_square_deviation(counts, draws / 120)) < 4


@pytest.mark.parametrize("count", [10, 33, 64, 100, 1000])
def test_order_puts_any_sample_at_any_position(count: int) -> None:
    draws = 200 * count
    for position in (0, count // 2, count - 1):
        cells = [0] * count
        for seed in range(draws // 20):
            for epoch in range(20):
                cells[_core.Permutation(count, seed, epoch)(position)] += 1
        assert abs(chi_square_deviation(cells, draws / count)) < 4, position


def test_order_leaves_one_sample_in_place_on_average() -> None:
    # Fixed points of a random permutation: Poisson with mean and variance 1.
    fixed = []
    for seed in range(4000):
        order = np.array(_core.Permutation(100, seed, 0).many(0, 100))
        fixed.append(int((order == np.arange(100)).sum()))
    assert abs(np.mean(fixed) - 1) < 4 / math.sqrt(4000)
    assert abs(np.var(fixed) - 1) < 4 * math.sqrt(3 / 4000)


@pytest.mark.parametrize("count", [1 << 16, 100_003, 10**9, 2**48])
def test_order_has_no_memory(count: int) -> None:
    n = min(1 << 16, count // 16)  # drawn without replacement: nearly as if with
    window = np.array(_core.Permutation(count, 11, 2).many(count // 3, n))
    scaled = window / count
    cells = np.histogram(scaled, 256, (0, 1))[0]
    assert abs(chi_square_deviation(cells.tolist(), n / 256)) < 4
    for lag in (1, 2, 3, 64, 1024):  # serial correlation: about normal, deviation 1 / sqrt(n)
        found = np.corrcoef(scaled[:-lag], scaled[lag:])[0, 1]
        assert abs(found) < 4.5 / math.sqrt(n), lag
    pairs = np.histogram2d(scaled[:-1], scaled[1:], 16, ((0, 1), (0, 1)))[0]
    assert abs(chi_square_deviation(pairs.reshape(-1).tolist(), (n - 1) / 256)) < 4
    lowest_bits = (window & 7).astype(int)
    assert abs(chi_square_deviation(np.bincount(lowest_bits, minlength=8).tolist(), n / 8)) < 4


def test_orders_of_epochs_are_unrelated() -> None:
    count = 1 << 15
    one, two = (np.array(_core.Permutation(count, 9, e).many(0, count)) for e in (0, 1))
    assert abs(np.corrcoef(one, two)[0, 1]) < 4.5 / math.sqrt(count)
    assert int((one == two).sum()) < 8
