# Generated from the built module by `make stubs`. Not to be edited.
"""
hpcore's c10d store and backend
"""

from __future__ import annotations
import collections.abc
import datetime
import torch._C._distributed_c10d
import torch.distributed.distributed_c10d
import typing
import typing_extensions

__all__: list[str] = [
    "FlightRecorder",
    "MemoryBudget",
    "Store",
    "StoreMemory",
    "make_backend",
    "make_composite",
]

class StoreMemory:
    """
    The shared memory of a store.
    """
    @staticmethod
    def create(
        size_bytes: typing.SupportsInt | typing.SupportsIndex, name: str, creator: str
    ) -> StoreMemory:
        """
        Memory in a memfd, which /proc shows under that name.
        """
    @staticmethod
    def open(path: str, creator: str) -> StoreMemory | None:
        """
        That in another process's descriptor, /proc/<pid>/fd/<fd>. None if it is gone, not ready yet, or was made by another process than `creator`.
        """
    @property
    def native_handle(self) -> typing_extensions.CapsuleType:
        """
        For Store.
        """

class Store(torch.distributed.distributed_c10d.Store):
    """
    A torch.distributed.Store over a StoreMemory's (or _core.SharedStore's) native_handle; its keys begin with prefix. With a Worker's native_handle its waits raise RosterChanged when the generation is over.
    """
    def __init__(
        self,
        store: typing_extensions.CapsuleType,
        prefix: str,
        timeout: datetime.timedelta,
        worker: typing.Any = None,
        generation: typing.SupportsInt | typing.SupportsIndex = 1,
    ) -> None: ...
    @property
    def prefix(self) -> str:
        """
        What its keys begin with.
        """

class FlightRecorder:
    """
    The last operations of this process's groups. Thread-safe.
    """
    def __init__(
        self, capacity: typing.SupportsInt | typing.SupportsIndex, dump_prefix: str
    ) -> None: ...
    def in_flight(self, most: typing.SupportsInt | typing.SupportsIndex = 8) -> str:
        """
        What has begun and not ended, in one line.
        """
    def json(self) -> str:
        """
        All entries, in the format of torch's own flight recorder.
        """

class MemoryBudget:
    """
    Shared memory for the buffers of this process's groups, in bytes.
    """
    def __init__(
        self,
        total_bytes: typing.SupportsInt | typing.SupportsIndex = 67108864,
        group_bytes: typing.SupportsInt | typing.SupportsIndex = 4194304,
    ) -> None: ...
    @property
    def taken_bytes(self) -> int:
        """
        What its groups have now; each group counts with this rank's area.
        """

def make_backend(
    store: torch.distributed.distributed_c10d.Store,
    rank: typing.SupportsInt | typing.SupportsIndex,
    size: typing.SupportsInt | typing.SupportsIndex,
    timeout: datetime.timedelta,
    name: str,
    global_ranks: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    worker: typing.Any,
    generation: typing.SupportsInt | typing.SupportsIndex,
    rehearsal: bool,
    recorder: FlightRecorder | None = None,
    budget: MemoryBudget | None = None,
    waits: bool = False,
) -> torch._C._distributed_c10d.Backend:
    """
    The hpcore backend of one process group. worker: a Worker's native_handle or None. waits: it has no members before its first reconfigure (torch 2.14).
    """

def make_composite(
    cpu: torch._C._distributed_c10d.Backend,
    store: torch.distributed.distributed_c10d.Store,
    timeout: datetime.timedelta,
    make: typing.Any,
    device_type: str,
    worker: typing.Any,
    generation: typing.SupportsInt | typing.SupportsIndex,
) -> torch._C._distributed_c10d.Backend:
    """
    One backend of two: tensors on device_type go to the one that make(store, rank, size, timeout, name, global_ranks) returns when the first of them comes, all others to cpu.
    """
