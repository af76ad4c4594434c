"""What the collectives must compute, once more in numpy: element by element, in rank order.

Narrow floats are rounded by looking for the nearest value in a table made from the format.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class NarrowFloat:
    """A float of 8 or 16 bits; `finite` has no infinities and one NaN per sign, all bits set."""

    exponent_bits: int
    mantissa_bits: int
    finite: bool = False

    @cached_property
    def storage(self) -> np.dtype:
        return np.dtype(np.uint8 if self.exponent_bits + self.mantissa_bits == 7 else np.uint16)

    @cached_property
    def top(self) -> int:
        """The code of infinity, or of the NaN that overflow gives."""
        all_ones = (1 << (self.exponent_bits + self.mantissa_bits)) - 1
        return all_ones if self.finite else all_ones & ~((1 << self.mantissa_bits) - 1)

    @cached_property
    def values(self) -> Array:
        """The value of each code from 0 to top; top as if numbers went on."""
        codes = np.arange(self.top + 1)
        exponent = codes >> self.mantissa_bits
        mantissa = (codes & ((1 << self.mantissa_bits) - 1)) / (1 << self.mantissa_bits)
        bias = (1 << (self.exponent_bits - 1)) - 1
        scale = np.exp2(np.maximum(exponent, 1) - bias)
        return scale * np.where(exponent > 0, 1 + mantissa, mantissa)

    def decode(self, codes: Array) -> Array:
        sign = 1 << (self.exponent_bits + self.mantissa_bits)
        magnitude = (codes & (sign - 1)).astype(np.int64)
        table = self.values.copy()
        table[self.top] = np.nan if self.finite else np.inf
        values = np.where(magnitude <= self.top, table[np.minimum(magnitude, self.top)], np.nan)
        return np.copysign(values, np.where(codes & sign, -1.0, 1.0)).astype(np.float32)

    def encode(self, values: Array) -> Array:
        magnitude = np.abs(values.astype(np.float64))
        middles = (self.values[1:] + self.values[:-1]) / 2
        codes = np.searchsorted(middles, magnitude, side="left")
        tie = (codes < len(middles)) & (middles[np.minimum(codes, len(middles) - 1)] == magnitude)
        codes = np.where(tie & (codes % 2 == 1), codes + 1, codes)
        nan = self.top if self.finite else self.top + 1
        codes = np.where(np.isnan(values), nan, codes)
        sign = 1 << (self.exponent_bits + self.mantissa_bits)
        return (codes | np.where(np.signbit(values), sign, 0)).astype(self.storage)


NARROW = {
    "float16": NarrowFloat(5, 10),
    "bfloat16": NarrowFloat(8, 7),
    "float8_e4m3fn": NarrowFloat(4, 3, finite=True),
    "float8_e5m2": NarrowFloat(5, 2),
}
FLOATS = ("float32", "float64", *NARROW)
COMPLEX = ("complex64", "complex128")
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
DTYPES = (*FLOATS, *COMPLEX, *INTEGERS, "bool")


def reductions(dtype: str) -> tuple[str, ...]:
    """The reductions that make sense for a dtype."""
    if dtype in FLOATS:
        return ("sum", "avg", "product", "min", "max", "premul_sum")
    if dtype in COMPLEX:
        return ("sum", "avg", "product")
    bits = ("sum", "product", "min", "max", "band", "bor", "bxor")
    return bits if dtype == "bool" else (*bits, "avg")


def storage(dtype: str) -> np.dtype:
    return NARROW[dtype].storage if dtype in NARROW else np.dtype(dtype)


def random_array(dtype: str, size: int, *seed: int) -> Array:
    """Values as they come, with some zeros, subnormals, infinities and NaNs among floats."""
    rng = np.random.default_rng(list(seed))
    if dtype in INTEGERS:
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, size, dtype=dtype, endpoint=True)
    if dtype == "bool":
        return rng.integers(0, 2, size).astype(bool)
    values = rng.standard_normal(size) * 10.0 ** rng.integers(-3, 3, size)
    odd = rng.random(size) < 0.05
    values[odd] = rng.choice([0.0, -0.0, 1e-7, -1e-6, 1e-40, np.inf, -np.inf, np.nan], odd.sum())
    if dtype in COMPLEX:
        both = np.stack([values, rng.permutation(values)], axis=-1)
        return both.astype(np.dtype(dtype).type(0).real.dtype).view(dtype)[:, 0]
    if dtype in NARROW:
        return NARROW[dtype].encode(values.astype(np.float32))
    return values.astype(dtype)


def _join(op: str, a: Array, x: Array) -> Array:
    if op in ("sum", "avg", "premul_sum"):
        return a + x
    if op == "product" and np.iscomplexobj(a):  # numpy may fuse; the collectives do not
        product = np.empty_like(a)
        product.real = a.real * x.real - a.imag * x.imag
        product.imag = a.real * x.imag + a.imag * x.real
        return product
    if op == "product":
        return a * x
    if op in ("min", "max"):
        better = x < a if op == "min" else x > a
        return np.where(better | ((x != x) & (a == a)), x, a)
    return {"band": np.bitwise_and, "bor": np.bitwise_or, "bxor": np.bitwise_xor}[op](a, x)


def reduce_in_rank_order(dtype: str, op: str, parts: list[Array], factor: float = 1.0) -> Array:
    """((x0 op x1) op x2) ... with the accumulation and rounding that kernels.hpp promises."""
    if dtype == "bool":
        op = {"sum": "bor", "max": "bor", "product": "band", "min": "band"}.get(op, op)
    narrow = NARROW.get(dtype)
    if narrow:
        parts = [narrow.decode(part) for part in parts]
    elif dtype in INTEGERS and op == "avg":
        parts = [part.astype(np.uint64 if dtype.startswith("u") else np.int64) for part in parts]
    with np.errstate(all="ignore"):
        if op == "premul_sum":
            parts = [part * part.dtype.type(factor) for part in parts]
        total = parts[0]
        for part in parts[1:]:
            total = _join(op, total, part)
        if op == "avg":
            total = _divided(total, len(parts))
        return narrow.encode(total) if narrow else total.astype(storage(dtype))


def _divided(total: Array, ranks: int) -> Array:
    if np.iscomplexobj(total):
        halves = total.view(total.real.dtype)
        return (halves / halves.dtype.type(ranks)).view(total.dtype)
    if total.dtype.kind == "f":
        return total / total.dtype.type(ranks)
    quotient = total // total.dtype.type(ranks)
    return np.where((total < 0) & (total % total.dtype.type(ranks) != 0), quotient + 1, quotient)


def same(dtype: str, got: Array, expected: Array) -> bool:
    """Equal to the bit; of NaNs only the place counts."""
    if dtype in NARROW:
        got_nan = np.isnan(NARROW[dtype].decode(got))
        expected_nan = np.isnan(NARROW[dtype].decode(expected))
        equal = (got == expected) | (got_nan & expected_nan)
        return bool(equal.all())
    if dtype in COMPLEX:
        real = np.dtype(dtype).type(0).real.dtype
        got, expected = got.view(real), expected.view(real)
    if got.dtype.kind == "f":
        bits = np.uint32 if got.dtype.itemsize == 4 else np.uint64
        equal = (got.view(bits) == expected.view(bits)) | (np.isnan(got) & np.isnan(expected))
        return bool(equal.all())
    return np.array_equal(got, expected)
