"""Reading another process's memory beside memcpy, on small and huge pages, by size of one call.

Sets kStretchBytes (csrc/transport/remote_memory.hpp) and shows what use_huge_pages is worth.
Run: pytest bench/test_bench_copies.py --benchmark-only.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from hpcore import _core

SIZE = 256 << 20
HUGE = 2 << 20
LIBC = ctypes.CDLL(None, use_errno=True)


class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Memory:
    """Anonymous memory whose start is aligned to a huge page."""

    def __init__(self, huge: bool) -> None:
        self.map = mmap.mmap(-1, SIZE + HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        self.address = (start + HUGE - 1) // HUGE * HUGE
        if huge:
            self.map.madvise(mmap.MADV_HUGEPAGE)
        ctypes.memset(self.address, 1, SIZE)
        self.huge = _core.use_huge_pages([(self.address, SIZE)]) if huge else 0


@pytest.fixture(scope="module", params=["small", "huge"])
def other(request: pytest.FixtureRequest) -> Iterator[tuple[int, int, Memory]]:
    """A process with memory of its own: pid, address, and memory of ours."""
    huge = request.param == "huge"
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        memory = Memory(huge)
        os.write(writing, memory.address.to_bytes(8, "little"))
        signal.pause()
    address = int.from_bytes(os.read(reading, 8), "little")
    mine = Memory(huge)
    yield pid, address, mine
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("call_kib", [64, 256, 512, 1024, 4096])
def test_read_speed(benchmark: Any, other: tuple[int, int, Memory], call_kib: int) -> None:
    pid, address, mine = other
    step = call_kib << 10

    def read() -> None:
        for offset in range(0, SIZE, step):
            local = Vector(mine.address + offset, step)
            remote = Vector(address + offset, step)
            copied = LIBC.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
            assert copied == step, os.strerror(ctypes.get_errno())

    benchmark.pedantic(read, rounds=5, warmup_rounds=1)
    benchmark.extra_info["gb_per_s"] = SIZE / benchmark.stats.stats.median / 1e9
    benchmark.extra_info["on_huge_pages"] = mine.huge


@pytest.mark.parametrize("pages", ["small", "huge"])
def test_copy_speed(benchmark: Any, pages: str) -> None:
    one, two = Memory(pages == "huge"), Memory(pages == "huge")
    benchmark.pedantic(
        lambda: ctypes.memmove(one.address, two.address, SIZE), rounds=5, warmup_rounds=1
    )
    benchmark.extra_info["gb_per_s"] = SIZE / benchmark.stats.stats.median / 1e9
