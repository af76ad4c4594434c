"""What a script gives to commit to be summed over ranks, as float64 numbers whose plain sums are
the result.

In exact mode each value goes as a fixed-point number wide enough for all float64 (R. M. Neal, Fast
exact summation using small and large superaccumulators, 2015), in digits of 32 bits: sums of digits
are exact. One thread.
"""

from __future__ import annotations

import math
import numbers
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hpcore.errors import InvalidArgument

_DIGITS = 68  # 2176 bits: 2^-1074 to 2^1024, times 2^78 numbers
_WIDTH = _DIGITS + 3  # and how many NaNs, infinities, negative infinities
_ONE = 1 << 1074


class Totals:
    """The sums of one step, by name; the same names on every rank."""

    def __init__(self, sums: Mapping[str, Any], exact: bool) -> None:
        self.names = sorted(sums)
        self.key = float(zlib.crc32("\n".join(self.names).encode()))
        self._sums = sums
        self._exact = exact

    def encode(self, counts: bool) -> list[float]:
        """Numbers to be summed over ranks; zeros on a rank that does not count.

        Raises InvalidArgument, in exact mode, for a rank's own total of floats.
        """
        found: list[float] = []
        for name in self.names:
            value = self._sums[name]
            if self._exact:
                own = _digits(_terms(name, value)) if counts else [0.0] * _WIDTH
                found += own
            else:
                number = float(math.fsum(value)) if _is_list(value) else float(value)
                found.append(number if counts else 0.0)
        return found

    def decode(self, values: Sequence[float]) -> dict[str, float]:
        """The sums, from what encode gave, summed over ranks."""
        if not self._exact:
            return dict(zip(self.names, values, strict=True))
        parts = [values[i : i + _WIDTH] for i in range(0, len(values), _WIDTH)]
        return {name: _rounded(part) for name, part in zip(self.names, parts, strict=True)}


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) or getattr(value, "ndim", 0) == 1


def _terms(name: str, value: Any) -> Iterable[float]:
    if _is_list(value):
        return [float(term) for term in value]
    whole = isinstance(value, numbers.Integral)
    if hasattr(value, "is_floating_point"):
        whole = not value.is_floating_point()
    if whole:
        return [float(value)]
    raise InvalidArgument(
        f"exact=True: commit({name}={value!r}): a rank's own total depends on which micro-batches "
        "it ran; pass a list with one value for each of them (empty on a rank without any)"
    )


def _digits(terms: Iterable[float]) -> list[float]:
    total, nans, infinities, negative = 0, 0.0, 0.0, 0.0
    for term in terms:
        if math.isfinite(term):
            numerator, denominator = term.as_integer_ratio()
            total += numerator * (_ONE // denominator)
        else:
            nans += math.isnan(term)
            infinities += term == math.inf
            negative += term == -math.inf
    sign = -1.0 if total < 0 else 1.0
    digits = struct.unpack(f"<{_DIGITS}I", abs(total).to_bytes(4 * _DIGITS, "little"))
    return [*(sign * digit for digit in digits), nans, infinities, negative]


def _rounded(digits: Sequence[float]) -> float:
    *limbs, nans, infinities, negative = digits
    if nans or (infinities and negative):
        return math.nan
    if infinities or negative:
        return math.inf if infinities else -math.inf
    total = sum(int(limb) << 32 * i for i, limb in enumerate(limbs) if limb)
    try:
        return total / _ONE  # of integers: rounded once, to nearest
    except OverflowError:
        return math.inf if total > 0 else -math.inf
