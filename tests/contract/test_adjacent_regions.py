"""Regions that lie side by side in memory, here, there or on both sides, over a fabric."""

from __future__ import annotations

import ctypes
import random

import pytest
from memory_process import GENERATION, TRANSPORTS, Transport

from hpcore import _core

FABRICS = [
    transport for transport in TRANSPORTS if transport.fabric.get("provider", "shm") != "shm"
]
SIZES = [4096] * 64 + [1, 7, 0, 4095, 4999, 3] * 20 + [300_000, 5, 900_000, 4096]


class Layout:
    """Regions cut from one buffer, with a gap of 64 guarded bytes before each named one."""

    def __init__(self, gaps: set[int], content: bytes | None) -> None:
        self.buffer = (ctypes.c_ubyte * (sum(SIZES) + 64 * len(SIZES)))()
        ctypes.memset(self.buffer, 0xA5, len(self.buffer))
        self.view = memoryview(self.buffer).cast("B")
        self.starts: list[int] = []
        at = taken = 0
        for number, size in enumerate(SIZES):
            at += 64 if number in gaps else 0
            self.starts.append(at)
            if content is not None:
                self.view[at : at + size] = content[taken : taken + size]
            at, taken = at + size, taken + size

    def regions(self) -> list[tuple[int, int]]:
        base = ctypes.addressof(self.buffer)
        return [(base + at, size) for at, size in zip(self.starts, SIZES, strict=True)]

    def expected(self, content: bytes, offset: int, count: int) -> bytes:
        """Of the whole buffer, once so many bytes from `offset` were read into it."""
        whole = bytearray(b"\xa5" * len(self.buffer))
        taken = 0
        for at, size in zip(self.starts, SIZES, strict=True):
            first, last = max(offset - taken, 0), min(offset + count - taken, size)
            if first < last:
                whole[at + first : at + last] = content[taken + first : taken + last]
            taken += size
        return bytes(whole)


@pytest.mark.parametrize("transport", FABRICS, ids=lambda transport: transport.name)
@pytest.mark.parametrize(("mine", "theirs"), [(0, 0), (0, 9), (9, 0), (7, 5)])
def test_neighbours_are_read_whole_and_gaps_left(
    transport: Transport, mine: int, theirs: int
) -> None:
    if why := transport.why_not():
        pytest.skip(why)
    content = random.Random(3).randbytes(sum(SIZES))

    def gaps(every: int) -> set[int]:
        return set(range(0, len(SIZES), every)) if every else set()

    source = Layout(gaps(theirs), content)
    fabric = _core.Fabric(**transport.options())
    server = _core.FabricServer(fabric)
    place = server.expose(source.regions(), GENERATION)
    try:
        for offset, count in [
            (0, len(content)),
            (4090, 300_001),
            (len(content) - 901_000, 900_500),
        ]:
            target = Layout(gaps(mine), None)
            reader = _core.Fabric(**transport.options())
            memory = _core.RemoteMemory.over_fabric(reader, place, GENERATION, target.regions())
            memory.read(offset, count, target.regions())
            assert bytes(target.view) == target.expected(content, offset, count)
    finally:
        server.close()
