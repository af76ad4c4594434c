"""Memory for shadow copies: the agent's, because it outlives the ranks. Sparse: what nobody wrote
is not there.

A region for each rank of the job, in each region two records: while one is written, the other is
whole. A record counts once its header does, which carries digests of itself and of the content.
Who writes a region: the rank, on its own node; the shadow keeper, on the node of the neighbour. The
first header's page also says which step the neighbour is known to hold whole. One thread an object;
any number of processes may read.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from dataclasses import dataclass

from hpcore import _core
from hpcore.errors import OutOfSpace

REGION_BYTES = 1 << 40
"""Address space of one rank."""

MOST_RANKS = 1 << 16

STORE_KEY = "shadow"
"""Key of the node's store under which the agent says which of its descriptors the memory is."""

WANTED_KEY = "shadow/keeper"
"""Key of the node's store once a worker keeps shadow copies: other nodes are to hold them, too."""

HALF_BYTES = REGION_BYTES // 2
_PAGE = 4096
_ALIGN = 64
_HEADER = struct.Struct("<8sQQQ16s")
_MAGIC = b"HPSHADOW"
_CONFIRMED = struct.Struct("<8sQ")
_CONFIRMED_MAGIC = b"HPSHKEPT"
_CONFIRMED_AT = 2048
_ERA_AT = 3072


def make_memory() -> int:
    """A descriptor of memory with a region for each rank; it is gone with the agent."""
    descriptor = os.memfd_create("hpcore-shadow", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, MOST_RANKS * REGION_BYTES)
    return descriptor


def aligned(size: int) -> int:
    """Where the next tensor of a record begins."""
    return -(-size // _ALIGN) * _ALIGN


def address_of(memory: mmap.mmap) -> int:
    """Where a map lies."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


@dataclass(frozen=True)
class Record:
    """A whole copy: of which rank and step (number of steps done), where, and how large."""

    rank: int
    half: int
    step: int
    meta_bytes: int
    data_bytes: int
    digest: bytes

    @property
    def size(self) -> int:
        """Bytes of the content, trees and tensors."""
        return aligned(self.meta_bytes) + self.data_bytes


class ShadowMemory:
    """The records in one node's memory. Owns `descriptor`."""

    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor
        self._maps: dict[tuple[int, int], mmap.mmap] = {}

    def close(self) -> None:
        """Twice is fine."""
        self._maps.clear()
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    # --- writing ------------------------------------------------------------------------------

    def older_half(self, rank: int) -> int:
        """The half that is to be written next."""
        kept = {record.half: record.step for record in self.records(rank)}
        return min((0, 1), key=lambda half: kept.get(half, -1))

    def forget(self, rank: int, half: int) -> None:
        """What is in this half does not count any more."""
        self._write(rank, half, bytes(_HEADER.size + 16))

    def finish(self, record: Record) -> None:
        """The content of the record is written: from now on it counts."""
        header = _HEADER.pack(
            _MAGIC, record.step, record.meta_bytes, record.data_bytes, record.digest
        )
        self._write(record.rank, record.half, header + _core.digest128(header))

    def forget_after(self, rank: int, step: int) -> None:
        """Drops records of later steps: they belong to a past that is given up."""
        for record in self.records(rank):
            if record.step > step:
                self.forget(rank, record.half)

    def _write(self, rank: int, half: int, header: bytes) -> None:
        os.pwrite(self._fd, header, rank * REGION_BYTES + half * HALF_BYTES)

    # --- reading ------------------------------------------------------------------------------

    def records(self, rank: int) -> list[Record]:
        """The whole records of a rank; content is not verified."""
        found = []
        for half in (0, 1):
            page = os.pread(self._fd, _HEADER.size + 16, rank * REGION_BYTES + half * HALF_BYTES)
            header, check = page[: _HEADER.size], page[_HEADER.size :]
            magic, step, meta_bytes, data_bytes, digest = _HEADER.unpack(header)
            if magic == _MAGIC and check == _core.digest128(header):
                found.append(Record(rank, half, step, meta_bytes, data_bytes, digest))
        return found

    def newest(self, rank: int) -> int:
        """The newest step of a rank; -1 if there is none."""
        return max((record.step for record in self.records(rank)), default=-1)

    def verified(self, rank: int) -> list[int]:
        """The steps of a rank whose content has the digest that it was written with."""
        return sorted(r.step for r in self.records(rank) if self.is_whole(r))

    def is_whole(self, record: Record) -> bool:
        """Whether the content has the digest that it was written with; reads it all."""
        memory = self.body(record.rank, record.half, record.size)
        return bool(_core.digest128(memoryview(memory)[: record.size]) == record.digest)

    def body(self, rank: int, half: int, size: int) -> mmap.mmap:
        """The content's memory, at least `size` bytes of it. Raises OutOfSpace."""
        if size > HALF_BYTES - _PAGE:
            raise OutOfSpace(f"a shadow copy of {size} bytes; the limit is {HALF_BYTES - _PAGE}")
        known = self._maps.get((rank, half))
        if known is None or len(known) < size:
            room = max(-(-(size + size // 8) // _PAGE), 1) * _PAGE
            at = rank * REGION_BYTES + half * HALF_BYTES + _PAGE
            known = self._maps[rank, half] = mmap.mmap(self._fd, room, offset=at)
        return known

    # --- the neighbour's copy -----------------------------------------------------------------

    def confirm(self, rank: int, step: int) -> None:
        """The neighbour holds this step of the rank whole; -1: none is known to be held."""
        word = _CONFIRMED.pack(_CONFIRMED_MAGIC, step + 1)
        os.pwrite(self._fd, word, rank * REGION_BYTES + _CONFIRMED_AT)

    def confirmed(self, rank: int) -> int:
        """The newest step that the neighbour is known to hold; -1: none."""
        word = os.pread(self._fd, _CONFIRMED.size, rank * REGION_BYTES + _CONFIRMED_AT)
        magic, step = _CONFIRMED.unpack(word)
        return int(step) - 1 if magic == _CONFIRMED_MAGIC else -1

    def set_era(self, era: int) -> None:
        """By how many steps all ranks went back so far, as far as what lies here is concerned; -1
        while records of a past that was given up may still be here."""
        os.pwrite(self._fd, _CONFIRMED.pack(_CONFIRMED_MAGIC, era + 1), _ERA_AT)

    @property
    def era(self) -> int:
        """-1 if nobody has said."""
        magic, era = _CONFIRMED.unpack(os.pread(self._fd, _CONFIRMED.size, _ERA_AT))
        return int(era) - 1 if magic == _CONFIRMED_MAGIC else -1
