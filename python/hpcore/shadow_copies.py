"""Shadow copies: each rank's state of every K-th step, in memory of the node's agent.

One sparse memfd holds a region for each rank, and each region two records: while one is written, by
a thread that runs beside the next step, the other is whole. So there always is one consistent step
of a rank that died. A record counts once its header does, which carries digests of itself and of
the content. A region is written by whoever holds the rank; others may read it. One thread, apart
from the copying one; `settle` before anything that changes state.

Memory: two records of the rank's state. A header is 4 KiB; nothing is used that was not written.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hpcore import _core
from hpcore.agent.shadow_memory import REGION_BYTES
from hpcore.errors import CorruptData, OutOfSpace
from hpcore.plain import decode, encode

_HALF = REGION_BYTES // 2
_PAGE = 4096
_ALIGN = 64
_HEADER = struct.Struct("<8sQQQ16s")
_MAGIC = b"HPSHADOW"


@dataclass(frozen=True)
class Record:
    """A whole copy: of which rank and step (number of steps done), where, and how large."""

    rank: int
    half: int
    step: int
    meta_bytes: int
    data_bytes: int
    digest: bytes


def flat_bytes(tensor: Tensor) -> Tensor:
    """The memory of a dense tensor as one range of bytes."""
    flat = tensor.detach().as_strided((tensor.numel(),), (1,), tensor.storage_offset())
    return flat.view(torch.uint8)


class ShadowCopies:
    """The records of one rank, and the reading of everybody's."""

    def __init__(self, agent_pid: int, descriptor: int, rank: int) -> None:
        self._fd = os.open(f"/proc/{agent_pid}/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
        self.rank = rank
        self._maps: dict[int, mmap.mmap] = {}
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def close(self) -> None:
        """Twice is fine."""
        self.settle()
        self._maps.clear()
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def enter(self, rank: int) -> None:
        """From now on this process writes the region of that rank."""
        self.settle()
        if rank != self.rank:
            self.rank = rank
            self._maps.clear()

    # --- writing ------------------------------------------------------------------------------

    def take(self, step: int, meta: Any, tensors: Sequence[Tensor]) -> None:
        """Starts to copy; `meta` is plain. Tensors must not change before `settle`."""
        self.settle()
        kept = {record.half: record.step for record in self.records(self.rank)}
        half = min((0, 1), key=lambda at: kept.get(at, -1))
        self._thread = threading.Thread(
            target=self._copy, args=(half, step, meta, list(tensors)), name="hpcore-shadow"
        )
        self._thread.start()

    def settle(self) -> None:
        """Waits until the copy that was started is whole. Raises what its thread raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def forget_after(self, step: int) -> None:
        """Drops this rank's records of later steps: they belong to a past that is given up."""
        self.settle()
        for record in self.records(self.rank):
            if record.step > step:
                self._write_header(record.half, bytes(_HEADER.size + 16))

    def _copy(self, half: int, step: int, meta: Any, tensors: list[Tensor]) -> None:
        try:
            text = encode(meta)
            sizes = [tensor.nbytes for tensor in tensors]
            start = _aligned(len(text))
            data_bytes = sum(map(_aligned, sizes))
            self._write_header(half, bytes(_HEADER.size + 16))
            body = self._body(half, start + data_bytes)
            body[: len(text)] = text
            into = torch.frombuffer(body, dtype=torch.uint8)
            at = start
            for tensor, size in zip(tensors, sizes, strict=True):
                into[at : at + size].copy_(flat_bytes(tensor))
                at += _aligned(size)
            digest = _core.digest128(memoryview(body)[: start + data_bytes])
            header = _HEADER.pack(_MAGIC, step, len(text), data_bytes, digest)
            self._write_header(half, header + _core.digest128(header))
        except BaseException as error:
            self._error = error

    def _write_header(self, half: int, header: bytes) -> None:
        os.pwrite(self._fd, header, self.rank * REGION_BYTES + half * _HALF)

    def _body(self, half: int, size: int) -> mmap.mmap:
        if size > _HALF - _PAGE:
            raise OutOfSpace(f"a shadow copy of {size} bytes; the limit is {_HALF - _PAGE}")
        known = self._maps.get(half)
        if known is None or len(known) < size:
            room = -(-(size + size // 8) // _PAGE) * _PAGE
            known = self._maps[half] = self._map(self.rank, half, room)
        return known

    def _map(self, rank: int, half: int, size: int) -> mmap.mmap:
        return mmap.mmap(self._fd, size, offset=rank * REGION_BYTES + half * _HALF + _PAGE)

    # --- reading ------------------------------------------------------------------------------

    def records(self, rank: int) -> list[Record]:
        """The whole records of a rank; content is not verified."""
        found = []
        for half in (0, 1):
            at = rank * REGION_BYTES + half * _HALF
            header = os.pread(self._fd, _HEADER.size, at)
            check = os.pread(self._fd, 16, at + _HEADER.size)
            magic, step, meta_bytes, data_bytes, digest = _HEADER.unpack(header)
            if magic == _MAGIC and check == _core.digest128(header):
                found.append(Record(rank, half, step, meta_bytes, data_bytes, digest))
        return found

    def verified(self, rank: int) -> list[int]:
        """The steps of a rank whose content has the digest that it was written with."""
        self.settle()
        return sorted(r.step for r in self.records(rank) if self._digest(r) == r.digest)

    def load(self, rank: int, step: int) -> tuple[Any, mmap.mmap, int]:
        """(meta, memory, where in it the first tensor begins) of a record. Raises CorruptData."""
        for record in self.records(rank):
            if record.step == step and self._digest(record) == record.digest:
                size = _aligned(record.meta_bytes) + record.data_bytes
                memory = self._map(rank, record.half, max(size, 1))
                meta = decode(bytes(memory[: record.meta_bytes]))
                return meta, memory, _aligned(record.meta_bytes)
        raise CorruptData(f"the shadow copy of rank {rank}, step {step}, is not whole any more")

    def _digest(self, record: Record) -> bytes:
        size = _aligned(record.meta_bytes) + record.data_bytes
        memory = self._map(record.rank, record.half, max(size, 1))
        return bytes(_core.digest128(memoryview(memory)[:size]))


def copy_out(memory: mmap.mmap, at: int, tensors: Sequence[Tensor]) -> int:
    """Fills tensors from a record, in the order in which they were copied; returns their bytes."""
    source, total = torch.frombuffer(memory, dtype=torch.uint8), 0
    for tensor in tensors:
        flat_bytes(tensor).copy_(source[at : at + tensor.nbytes])
        at += _aligned(tensor.nbytes)
        total += tensor.nbytes
    return total


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN
