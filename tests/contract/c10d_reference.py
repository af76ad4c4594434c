"""What c10d operations must give, computed on one process in 64 bits, and how far off they may be.

How far: a reduction adds in rank order, so n ranks make at most n - 1 roundings of a partial sum,
which is no larger than the sum of magnitudes M. PREMUL_SUM and AVG round once more, and the factor
itself is rounded once. u is half the distance from 1 to the next number.
  float64, complex128  same order, same precision: no difference (product of complex: 4 n u |x|)
  float32, complex64   (n + 2) u32 M
  float16, bfloat16,   accumulated in float32, rounded once at the end: as float32, and u of the
  float8               dtype times the result, and half of the smallest subnormal
  integers, bool       none: modulo 2^bits, averages rounded towards zero
MIN and MAX give one of their inputs: no difference. What is only copied has the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

FLOATS = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
)
COMPLEX = (torch.complex64, torch.complex128)
SIGNED = (torch.int8, torch.int16, torch.int32, torch.int64)
UNSIGNED = (torch.uint8, torch.uint16, torch.uint32, torch.uint64)
REDUCED = (*FLOATS, *COMPLEX, *SIGNED, *UNSIGNED, torch.bool)
MOVED = (*REDUCED, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.complex32)
FACTOR = 0.3

_UNIT = {torch.float32: 2.0**-24, torch.complex64: 2.0**-24}
_UNIT |= {torch.float64: 2.0**-53, torch.complex128: 2.0**-53}


def reductions(dtype: torch.dtype) -> tuple[str, ...]:
    """The ReduceOps that make sense for a dtype."""
    if dtype in COMPLEX:
        return ("SUM", "AVG", "PRODUCT")
    if dtype in FLOATS:
        return ("SUM", "AVG", "PRODUCT", "MIN", "MAX", "PREMUL_SUM")
    bits = ("SUM", "PRODUCT", "MIN", "MAX", "BAND", "BOR", "BXOR")
    return bits if dtype == torch.bool else (*bits, "AVG")


def numbers(dtype: torch.dtype, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Values whose sums and products over a few ranks are finite; integers of all sizes."""
    count = int(np.prod(shape, dtype=np.int64))
    rng = np.random.default_rng(seed)
    if dtype == torch.bool:
        return torch.from_numpy(rng.integers(0, 2, count).astype(bool)).reshape(shape)
    if dtype in SIGNED or dtype in UNSIGNED:
        name = str(dtype).removeprefix("torch.")
        limits = np.iinfo(name)
        values = rng.integers(limits.min, limits.max, count, dtype=name, endpoint=True)
        return torch.from_numpy(values).reshape(shape)
    values = np.clip(rng.standard_normal(2 * count), -3, 3)
    if dtype in COMPLEX:
        return torch.from_numpy(values.view(np.complex128)).to(dtype).reshape(shape)
    return torch.from_numpy(values[:count]).to(dtype).reshape(shape)


def any_bits(dtype: torch.dtype, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Any bit patterns, NaNs among them."""
    if dtype == torch.bool:
        return numbers(dtype, shape, seed)
    count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    data = torch.zeros(count, dtype=torch.uint8)
    data.numpy()[:] = np.random.default_rng(seed).integers(0, 256, count, dtype=np.uint8)
    return data.view(dtype).reshape(shape)


@dataclass(frozen=True)
class Expected:
    """A value and how far each element may be from it; without a bound: the same bits."""

    value: torch.Tensor
    bound: torch.Tensor | None = None

    def check(self, got: torch.Tensor) -> None:
        """Raises AssertionError, with the first element that is wrong."""
        assert got.shape == self.value.shape, f"shape {got.shape}, not {self.value.shape}"
        if self.bound is None:
            wrong = (_bits(got) != _bits(self.value)).any(1)
        else:
            distance = (_wide(got) - self.value).abs()
            wrong = ~(distance <= self.bound).flatten()
        if wrong.any():
            at = int(wrong.int().argmax())
            bound = "the same bits" if self.bound is None else self.bound.flatten()[at].item()
            pair = [repr(t.contiguous().flatten()[at].item()) for t in (got, self.value)]
            raise AssertionError(
                f"{int(wrong.sum())} of {wrong.numel()} elements are wrong; first at {at}: got "
                f"{pair[0]}, expected {pair[1]}, may differ by {bound}"
            )


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """One row of bytes for each element."""
    plain = tensor.clone(memory_format=torch.contiguous_format)
    return plain.reshape(tensor.numel(), 1).view(torch.uint8)


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.complex128 if tensor.dtype.is_complex else torch.float64)


def reduced(op: str, parts: list[torch.Tensor], factor: float = FACTOR) -> Expected:
    """What the reduction of one tensor per rank must give."""
    dtype = parts[0].dtype
    if dtype == torch.bool or dtype in SIGNED or dtype in UNSIGNED:
        return Expected(_integers(op, parts))
    wide = [_wide(part) for part in parts]
    if op in ("MIN", "MAX"):
        choose = torch.minimum if op == "MIN" else torch.maximum
        total = wide[0]
        for part in wide[1:]:
            total = choose(total, part)
        return Expected(total, torch.zeros_like(total))  # but -0.0 equals 0.0
    if op == "PREMUL_SUM":
        wide = [part * factor for part in wide]
    total = wide[0].clone()
    for part in wide[1:]:
        total = total * part if op == "PRODUCT" else total + part
    if op == "AVG":
        halves = torch.view_as_real(total) if total.is_complex() else total
        halves /= len(parts)  # in place; dividing a complex number rounds more than once
    return Expected(total, _bound(op, dtype, wide, total))


def _bound(
    op: str, dtype: torch.dtype, parts: list[torch.Tensor], total: torch.Tensor
) -> torch.Tensor:
    """See the top of this file."""
    magnitude = total.abs() if op == "PRODUCT" else torch.stack([p.abs() for p in parts]).sum(0)
    if dtype == torch.float64 or (dtype == torch.complex128 and op != "PRODUCT"):
        return torch.zeros_like(magnitude)
    steps = 4 * len(parts) if op == "PRODUCT" and dtype.is_complex else len(parts) + 2
    bound = steps * _UNIT.get(dtype, 2.0**-24) * magnitude
    if dtype not in _UNIT:
        info = torch.finfo(dtype)
        subnormal = info.smallest_normal * info.eps
        bound = bound + info.eps / 2 * (total.abs() + bound) + subnormal / 2
    return bound


def _integers(op: str, parts: list[torch.Tensor]) -> torch.Tensor:
    arrays = [part.numpy() for part in parts]
    dtype = arrays[0].dtype
    if dtype == np.bool_:
        op = {"SUM": "BOR", "MAX": "BOR", "PRODUCT": "BAND", "MIN": "BAND"}.get(op, op)
    if op in ("SUM", "PRODUCT", "AVG"):  # exact in 64 bits, or modulo 2^64
        arrays = [array.astype(np.int64 if dtype.kind == "i" else np.uint64) for array in arrays]
    join = {
        "SUM": np.add,
        "AVG": np.add,
        "PRODUCT": np.multiply,
        "MIN": np.minimum,
        "MAX": np.maximum,
        "BAND": np.bitwise_and,
        "BOR": np.bitwise_or,
        "BXOR": np.bitwise_xor,
    }[op]
    with np.errstate(over="ignore"):
        total = arrays[0]
        for array in arrays[1:]:
            total = np.asarray(join(total, array))
        if op == "AVG":  # // rounds down
            ranks = total.dtype.type(len(arrays))
            quotient, rest = np.asarray(total // ranks), np.asarray(total % ranks)
            total = np.where((total < 0) & (rest != 0), quotient + 1, quotient)
        return torch.from_numpy(np.asarray(total).astype(dtype))
