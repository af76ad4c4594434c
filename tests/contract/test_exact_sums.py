"""Exact sums, with each instruction set, against fractions: in any order, any grouping, any
range."""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest

from hpcore import _core
from hpcore.errors import InvalidArgument, Unsupported

Array = np.ndarray
SETS = ("portable", "avx2", "avx512")
NAN, INF = float("nan"), float("inf")


@pytest.fixture(params=SETS)
def instructions(request: pytest.FixtureRequest) -> str:
    try:
        _core.ExactSums(0, 0, request.param)
    except Unsupported:
        pytest.skip(f"this CPU has no {request.param}")
    return str(request.param)


def rounded(values: list[float]) -> float:
    """The sum of finite values, rounded once to float64; +0 for zero."""
    total = sum((Fraction(v) for v in values), Fraction(0))
    try:
        return total.numerator / total.denominator
    except OverflowError:
        return INF if total > 0 else -INF


def random_bits(generator: np.random.Generator, shape: tuple[int, int]) -> Array:
    """float32 of all sizes, denormals among them."""
    bits = generator.integers(0, 1 << 32, size=shape, dtype=np.uint64).astype(np.uint32)
    values = bits.view(np.float32)
    return np.where(np.isfinite(values), values, np.float32(-0.0))


def adversarial(terms: int, elements: int, seed: int) -> Array:
    """float32 of shape (terms, elements), a quarter each: alike, of all sizes, cancelling to the
    last bit but one tiny term, denormals."""
    generator = np.random.default_rng(seed)
    data = generator.standard_normal((terms, elements)).astype(np.float32)
    quarter = elements // 4
    data[:, :quarter] = random_bits(generator, (terms, quarter))
    huge = random_bits(generator, (terms // 2, quarter))
    data[: terms // 2, quarter : 2 * quarter] = huge
    data[terms // 2 : 2 * (terms // 2), quarter : 2 * quarter] = -huge
    data[-1, quarter : 2 * quarter] += np.float32(2.0**-149)
    denormal = generator.integers(0, 1 << 23, size=(terms, quarter)).astype(np.uint32)
    data[:, 2 * quarter : 3 * quarter] = denormal.view(np.float32)
    return np.ascontiguousarray(data)


def sums_in_order(
    data: Array, deal: list[list[int]], instructions: str, dtype: str = "float32"
) -> Array:
    """What ranks get that fold these rows of `data`; `deal`: the rows of each rank, in order."""
    elements = data.shape[1]
    planes = [np.zeros(elements) for _ in deal]
    ranks = [_core.ExactSums(p.ctypes.data, elements, instructions) for p in planes]
    for rank, rows in zip(ranks, deal, strict=True):
        for number, row in enumerate(rows):
            rank.fold([(0, data[row].ctypes.data, elements, number == 0)], dtype)
    unfit = np.unique(np.concatenate([np.frombuffer(r.unfit(), np.uint64) for r in ranks]))
    words = np.zeros((len(unfit), _core.EXACT_WORDS), np.int64)
    for rank in ranks:
        own = np.zeros_like(words)
        rank.put_words(unfit.ctypes.data, len(unfit), own.ctypes.data)
        words += own
    total = np.zeros(elements)
    sources = [plane.ctypes.data for plane in planes]
    _core.reduce_exactly(total.ctypes.data, sources, elements, "float64", instructions)
    last = _core.ExactSums(total.ctypes.data, elements, instructions)
    last.settle(unfit.ctypes.data, len(unfit), words.ctypes.data)
    result = np.zeros(elements, data.dtype)
    last.narrow([(0, result.ctypes.data, elements, False)], dtype)
    return result


def expected(data: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.array([rounded(c) for c in data.T.astype(float).tolist()]).astype(np.float32)


def same_bits(one: Array, other: Array) -> bool:
    return one.tobytes() == other.tobytes()


def deals(terms: int, seed: int) -> Iterator[list[list[int]]]:
    """Every number of ranks up to 8, uneven parts, shuffled order; ranks without anything."""
    shuffle = random.Random(seed)
    for ranks in (1, 2, 3, 4, 5, 8):
        rows = list(range(terms))
        shuffle.shuffle(rows)
        yield [rows[terms * r // ranks : terms * (r + 1) // ranks] for r in range(ranks)]
    yield [[], list(range(terms)), []]


@pytest.mark.parametrize("terms", [2, 3, 16, 37])
def test_sums_are_rounded_once_however_they_are_dealt(terms: int, instructions: str) -> None:
    data = adversarial(terms, 1203, terms)
    wanted = expected(data)
    for deal in deals(terms, terms):
        assert same_bits(sums_in_order(data, deal, instructions), wanted), deal


def test_error_is_no_worse_than_a_tree_of_float32(instructions: str) -> None:
    data = adversarial(32, 800, 5)
    exact = [sum(map(Fraction, c), Fraction(0)) for c in data.T.astype(float).tolist()]
    ours = sums_in_order(data, [list(range(20)), list(range(20, 32))], instructions)
    tree = data
    with np.errstate(over="ignore", invalid="ignore"):
        while len(tree) > 1:
            tree = tree[0::2] + tree[1::2]
    worse, better = 0, 0
    for own, other, truth in zip(ours.tolist(), tree[0].tolist(), exact, strict=True):
        if not np.isfinite(own) or not np.isfinite(other):
            assert np.isfinite(own) or not np.isfinite(other) or abs(truth) > 2**128 - 2**103
            continue
        worse += abs(Fraction(own) - truth) > abs(Fraction(other) - truth)
        better += abs(Fraction(own) - truth) < abs(Fraction(other) - truth)
    assert worse == 0 and better > 100


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_terms_do_not_depend_on_the_deal(dtype: str, instructions: str) -> None:
    codes = np.random.default_rng(3).integers(0, 1 << 16, size=(24, 4000)).astype(np.uint16)
    first, *others = [sums_in_order(codes, deal, instructions, dtype) for deal in deals(24, 1)]
    assert all(same_bits(first, other) for other in others)
    if dtype == "bfloat16":
        values = (codes.astype(np.uint32) << 16).view(np.float32)
        whole = np.isfinite(values).all(axis=0)
        found = (first.astype(np.uint32) << 16).view(np.float32)
        with np.errstate(over="ignore"):
            wanted = expected(values[:, whole])
        near = np.isfinite(wanted)
        difference = np.abs(found[whole][near].astype(float) - wanted[near].astype(float))
        assert (difference <= np.abs(wanted[near].astype(float)) * 2.0**-8 + 2.0**-133).all()
        assert whole.sum() > 1000


def test_infinities_and_nans_are_the_same_in_any_order(instructions: str) -> None:
    big = float(np.finfo(np.float32).max)
    columns = [
        ([1.0, INF, 2.0, 3.0e-40], INF),
        ([1.0, -INF, big, big], -INF),
        ([INF, 1.0, -INF, 2.0], NAN),
        ([NAN, 1.0, 2.0, INF], NAN),
        ([big, big, big, big], INF),
        ([big, 1e-45, big, INF], INF),
        ([big, -big, 1e-45, 0.0], 1e-45),
        ([-0.0, -0.0, -0.0, -0.0], 0.0),
        ([1.0, -1.0, -0.0, 0.0], 0.0),
    ]
    data = np.array([terms for terms, _ in columns], np.float32).T.copy()
    wanted = np.array([value for _, value in columns], np.float32)
    for deal in deals(4, 2):
        assert same_bits(sums_in_order(data, deal, instructions), wanted), deal
    nans = np.array([[0x7F800001, 0xFFC12345]], np.uint32).view(np.float32)
    plain = np.full(2, NAN, np.float32)
    assert same_bits(sums_in_order(nans, [[0]], instructions), plain)  # one NaN, one rank


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_reduction_of_values_of_all_sizes_is_rounded_once(dtype: str, instructions: str) -> None:
    generator = np.random.default_rng(11)
    bits = 64 if dtype == "float64" else 32
    kind = np.dtype(dtype)
    for ranks in (1, 2, 5, 9):
        raw = generator.integers(0, 1 << 63, size=(ranks, 700), dtype=np.uint64) << np.uint64(1)
        data = (raw >> np.uint64(64 - bits)).astype(f"u{bits // 8}").view(kind)
        data = np.where(np.isfinite(data), data, 0).astype(kind)
        data[-1, ::3] = -data[0, ::3]
        data[0, 650:] = np.finfo(kind).max
        got = np.zeros(700, kind)
        order = list(generator.permutation(ranks))
        sources = [data[rank].ctypes.data for rank in order]
        _core.reduce_exactly(got.ctypes.data, sources, 700, dtype, instructions)
        with np.errstate(over="ignore"):
            wanted = np.array([rounded(c) for c in data.T.tolist()]).astype(kind)
        assert same_bits(got, wanted), ranks


def test_rests_stay_bounded_however_often_terms_do_not_fit() -> None:
    """Each of 40 folds leaves a rest of each element: they are put together on the way."""
    elements = 5000
    data = random_bits(np.random.default_rng(1), (40, elements))
    got = sums_in_order(data, [list(range(40))], "")
    assert same_bits(got, expected(data))


def test_mistakes_are_refused() -> None:
    plane = np.zeros(4)
    sums = _core.ExactSums(plane.ctypes.data, 4)
    with pytest.raises(InvalidArgument, match="of 5 elements from 0 on, of 4"):
        sums.fold([(0, plane.ctypes.data, 5, True)], "float32")
    with pytest.raises(InvalidArgument, match="of 4 elements from 18446744073709551615"):
        sums.zero((1 << 64) - 1, 4)
    with pytest.raises(Unsupported, match="float64 are not kept"):
        sums.fold([(0, plane.ctypes.data, 4, True)], "float64")
    with pytest.raises(Unsupported, match="exact_sum has no meaning for int64"):
        _core.reduce_exactly(plane.ctypes.data, [plane.ctypes.data], 4, "int64")
    assert _core.exact_sum([1e308, 1e308, -1e308, 5e-324]) == 1e308
