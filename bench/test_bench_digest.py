"""digest128 from cache and memory, beside a copy. Run: pytest bench --benchmark-only."""

from __future__ import annotations

from typing import Any

import pytest

from hpcore import _core

SIZES = {"256KiB": 256 << 10, "64MiB": 64 << 20}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("work", [*_core.digest_codes(), "copy"])
def test_digest_speed(benchmark: Any, size: str, work: str) -> None:
    data = bytearray(range(256)) * (SIZES[size] // 256)
    out = bytearray(len(data))

    def copy() -> None:
        out[:] = data

    benchmark.extra_info["bytes"] = len(data)
    benchmark(copy if work == "copy" else lambda: _core.digest128(data, work))
    benchmark.extra_info["gb_per_s"] = len(data) / benchmark.stats.stats.median / 1e9
