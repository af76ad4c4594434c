"""Shadow copies: each rank's state of every K-th step, in memory of the node's agent.

Written by a thread that runs beside the next step, into the older of the rank's two records
(agent/shadow_memory.py): so there always is one consistent step of a rank that died. One thread,
apart from the copying one; `settle` before anything that changes state.

Memory: two records of the rank's state. A header is 4 KiB; nothing is used that was not written.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hpcore import _core
from hpcore.agent.shadow_memory import Record, ShadowMemory, aligned
from hpcore.errors import CorruptData
from hpcore.plain import decode, encode


def flat_bytes(tensor: Tensor) -> Tensor:
    """The memory of a dense tensor as one range of bytes."""
    flat = tensor.detach().as_strided((tensor.numel(),), (1,), tensor.storage_offset())
    return flat.view(torch.uint8)


class ShadowCopies:
    """The records of one rank, and the reading of everybody's."""

    def __init__(self, agent_pid: int, descriptor: int, rank: int) -> None:
        path = f"/proc/{agent_pid}/fd/{descriptor}"
        self.memory = ShadowMemory(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        self.rank = rank
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def close(self) -> None:
        """Twice is fine."""
        self.settle()
        self.memory.close()

    def enter(self, rank: int) -> None:
        """From now on this process writes the region of that rank."""
        self.settle()
        self.rank = rank

    # --- writing ------------------------------------------------------------------------------

    def take(self, step: int, meta: Any, tensors: Sequence[Tensor]) -> None:
        """Starts to copy; `meta` is plain. Tensors must not change before `settle`."""
        self.settle()
        half = self.memory.older_half(self.rank)
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
        self.memory.forget_after(self.rank, step)

    def _copy(self, half: int, step: int, meta: Any, tensors: list[Tensor]) -> None:
        try:
            text = encode(meta)
            sizes = [tensor.nbytes for tensor in tensors]
            at = aligned(len(text))
            size = at + sum(map(aligned, sizes))
            self.memory.forget(self.rank, half)
            body = self.memory.body(self.rank, half, size)
            body[: len(text)] = text
            into = torch.frombuffer(body, dtype=torch.uint8)
            for tensor, count in zip(tensors, sizes, strict=True):
                into[at : at + count].copy_(flat_bytes(tensor))
                at += aligned(count)
            digest = _core.digest128(memoryview(body)[:size])
            data_bytes = size - aligned(len(text))
            record = Record(self.rank, half, step, len(text), data_bytes, digest)
            self.memory.finish(record)
        except BaseException as error:
            self._error = error

    # --- reading ------------------------------------------------------------------------------

    def records(self, rank: int) -> list[Record]:
        """The whole records of a rank; content is not verified."""
        return self.memory.records(rank)

    def verified(self, rank: int) -> list[int]:
        """The steps of a rank whose content has the digest that it was written with."""
        self.settle()
        return self.memory.verified(rank)

    def find(self, rank: int, step: int) -> Record:
        """A record that is whole. Raises CorruptData."""
        for record in self.memory.records(rank):
            if record.step == step and self.memory.is_whole(record):
                return record
        raise CorruptData(f"the shadow copy of rank {rank}, step {step}, is not whole any more")

    def load(self, rank: int, step: int) -> tuple[Any, mmap.mmap, int]:
        """(meta, memory, where in it the first tensor begins) of a record. Raises CorruptData."""
        record = self.find(rank, step)
        memory = self.memory.body(rank, record.half, record.size)
        return decode(bytes(memory[: record.meta_bytes])), memory, aligned(record.meta_bytes)


def copy_out(memory: mmap.mmap, at: int, tensors: Sequence[Tensor]) -> int:
    """Fills tensors from a record, in the order in which they were copied; returns their bytes."""
    source, total = torch.frombuffer(memory, dtype=torch.uint8), 0
    for tensor in tensors:
        flat_bytes(tensor).copy_(source[at : at + tensor.nbytes])
        at += aligned(tensor.nbytes)
        total += tensor.nbytes
    return total
