"""The reduction kernels, for each instruction set, against numpy in rank order."""

from __future__ import annotations

import numpy as np
import pytest
from rank_order import (
    DTYPES,
    NARROW,
    random_array,
    reduce_in_rank_order,
    reductions,
    same,
    storage,
)

from hpcore import _core

FACTOR = -0.7
ALL = ("avx512", "avx2", "portable")


@pytest.fixture(params=ALL)
def instructions(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if name not in _core.reduction_instructions():
        pytest.skip(f"this CPU has no {name}")
    return name


def kernel(
    dtype: str, op: str, parts: list[np.ndarray], target: np.ndarray, instructions: str
) -> np.ndarray:
    _core.reduce_in_rank_order(
        target.ctypes.data,
        [part.ctypes.data for part in parts],
        target.size,
        dtype,
        op,
        FACTOR,
        instructions,
    )
    return target


@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_equal_rank_order(dtype: str, instructions: str) -> None:
    for op in reductions(dtype):
        for count in (1, 2, 3, 4, 5, 9):
            size = 1_500 + count  # more than a block, and a tail
            parts = [random_array(dtype, size, count, rank) for rank in range(count)]
            expected = reduce_in_rank_order(dtype, op, parts, FACTOR)
            apart = kernel(dtype, op, parts, np.empty(size, storage(dtype)), instructions)
            assert same(dtype, apart, expected), (op, count)
            in_place = kernel(dtype, op, parts, parts[-1], instructions)
            assert same(dtype, in_place, expected), (op, count)


@pytest.mark.parametrize("dtype", NARROW)
def test_kernels_round_narrow_floats_to_nearest_even(dtype: str, instructions: str) -> None:
    """Every code survives; every sum of two codes, some of them halfway, is rounded."""
    codes = np.arange(1 << (8 * storage(dtype).itemsize), dtype=storage(dtype))
    kept = kernel(dtype, "avg", [codes], np.empty_like(codes), instructions)
    assert same(dtype, kept, codes)
    for shift in (1, 3, 1 << 6, 0x93, 0x3C01 if codes.size > 256 else 0x31):
        parts = [codes, np.roll(codes, shift)]
        got = kernel(dtype, "sum", parts, np.empty_like(codes), instructions)
        assert same(dtype, got, reduce_in_rank_order(dtype, "sum", parts)), shift


def test_kernels_have_one_nan_wherever_it_stands() -> None:
    """Blocks of a vector and the tail after them agree to the bit on NaNs, too."""
    for dtype, code in {"float16": 0x7D55, "bfloat16": 0x7F91}.items():
        data = np.full(45, code, np.uint16)
        for instructions in _core.reduction_instructions():
            got = kernel(dtype, "sum", [data, data], np.empty_like(data), instructions)
            assert len(set(got.tolist())) == 1
