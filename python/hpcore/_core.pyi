# Generated from the built module by `make stubs`. Not to be edited.
"""
hpcore's native rooms below torch/
"""

from __future__ import annotations
import collections.abc
import typing
import typing_extensions

__all__: list[str] = [
    "Communicator",
    "DatasetFile",
    "DatasetWriter",
    "Permutation",
    "SharedGroup",
    "SharedStore",
    "digest128",
    "digest_code",
    "monotonic_ns",
    "use_huge_pages",
]

class SharedStore:
    """
    A key/value store shared by the processes of a node. Thread-safe.
    """
    @staticmethod
    def create(size_bytes: typing.SupportsInt | typing.SupportsIndex = 67108864) -> SharedStore:
        """
        A store in a memfd of its own.
        """
    @staticmethod
    def open(fd: typing.SupportsInt | typing.SupportsIndex) -> SharedStore:
        """
        The store in an inherited descriptor, which is duplicated.
        """
    @staticmethod
    def open_path(path: str) -> SharedStore:
        """
        The store in another process's descriptor: /proc/<pid>/fd/<fd>.
        """
    def _crash_after(self, steps: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Tests only: kills this process at the n-th step of a change.
        """
    def add(self, key: str, delta: typing.SupportsInt | typing.SupportsIndex) -> int:
        """
        Adds to a counter kept as decimal text; returns the sum.
        """
    def append(self, key: str, value: str) -> None: ...
    def check(self, keys: collections.abc.Sequence[str]) -> bool:
        """
        True if all keys are there. Does not wait.
        """
    def close(self) -> None:
        """
        Wakes this process's waiters: they raise Aborted.
        """
    def compare_set(self, key: str, expected: str, desired: str) -> bytes:
        """
        Sets desired if the value is expected (or the key is missing and expected is empty); returns the value after.
        """
    def delete(self, key: str) -> bool:
        """
        True if the key was there.
        """
    def free_bytes(self) -> int: ...
    def get(
        self, key: str, timeout_s: typing.SupportsFloat | typing.SupportsIndex = 300.0
    ) -> bytes:
        """
        The value of key; blocks until it is there.
        """
    def keys(self) -> list[str]: ...
    def multi_get(
        self,
        keys: collections.abc.Sequence[str],
        timeout_s: typing.SupportsFloat | typing.SupportsIndex = 300.0,
    ) -> list[bytes]:
        """
        The values of keys; blocks until all are there.
        """
    def multi_set(
        self, keys: collections.abc.Sequence[str], values: collections.abc.Sequence[str]
    ) -> None: ...
    def num_keys(self) -> int: ...
    def queue_len(self, key: str) -> int: ...
    def queue_pop(
        self,
        key: str,
        block: bool = True,
        timeout_s: typing.SupportsFloat | typing.SupportsIndex = 300.0,
    ) -> bytes:
        """
        The oldest item of the queue; blocks until there is one, or raises NotFound with block=False.
        """
    def queue_push(self, key: str, value: str) -> None: ...
    def set(self, key: str, value: str) -> None: ...
    def wait(
        self,
        keys: collections.abc.Sequence[str],
        timeout_s: typing.SupportsFloat | typing.SupportsIndex = 300.0,
    ) -> None:
        """
        Blocks until all keys are there.
        """
    @property
    def fd(self) -> int:
        """
        Its own memfd; -1 in the memory of a segment.
        """
    @property
    def native_handle(self) -> typing_extensions.CapsuleType:
        """
        For _c10d.
        """
    @property
    def size_bytes(self) -> int: ...

class SharedGroup:
    """
    The memory of a communicator of its own: a memfd.
    """
    @staticmethod
    def create(
        members: typing.SupportsInt | typing.SupportsIndex,
        area_bytes: typing.SupportsInt | typing.SupportsIndex = 4194304,
    ) -> SharedGroup: ...
    @staticmethod
    def open(fd: typing.SupportsInt | typing.SupportsIndex) -> SharedGroup: ...
    def revoke(self, generation: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Ends this generation and all before it for all members.
        """
    @property
    def fd(self) -> int: ...
    @property
    def members(self) -> int: ...

class Communicator:
    """
    Collective operations between the processes of one node, for one generation. One operation at a time; abort() and close() from any thread.
    """
    @staticmethod
    def over_group(
        group: SharedGroup,
        generation: typing.SupportsInt | typing.SupportsIndex,
        rank: typing.SupportsInt | typing.SupportsIndex,
    ) -> Communicator:
        """
        A communicator over memory of its own, outside of a node segment.
        """
    @staticmethod
    def rehearsal(world_size: typing.SupportsInt | typing.SupportsIndex) -> Communicator:
        """
        A communicator whose operations complete at once on the caller's own data, as the last of world_size ranks. Reductions return the data unscaled.
        """
    def __enter__(self) -> typing.Any: ...
    def __exit__(self, *args) -> None: ...
    def abort(self) -> None:
        """
        Ends the operation under way in another thread, and all later ones, with Aborted.
        """
    def all_gather_bytes(
        self, data: str, timeout_s: typing.SupportsFloat | typing.SupportsIndex
    ) -> list[bytes]:
        """
        Each rank's data, of any size, in rank order.
        """
    def all_reduce(
        self,
        buffers: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
            ]
        ],
        dtype: str,
        op: str,
        timeout_s: typing.SupportsFloat | typing.SupportsIndex,
        factor: typing.SupportsFloat | typing.SupportsIndex = 1.0,
    ) -> None:
        """
        Reduces the buffers, seen as one range, over all ranks in place, in rank order.
        """
    def barrier(self, timeout_s: typing.SupportsFloat | typing.SupportsIndex) -> None:
        """
        Returns when all ranks have called it.
        """
    def broadcast(
        self,
        buffers: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
            ]
        ],
        root: typing.SupportsInt | typing.SupportsIndex,
        timeout_s: typing.SupportsFloat | typing.SupportsIndex,
    ) -> None:
        """
        Copies root's buffers, (address, bytes) each, into everybody's.
        """
    def close(self) -> None:
        """
        As abort; a second call does nothing.
        """
    def reduce(
        self,
        buffers: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
            ]
        ],
        dtype: str,
        op: str,
        root: typing.SupportsInt | typing.SupportsIndex,
        timeout_s: typing.SupportsFloat | typing.SupportsIndex,
        factor: typing.SupportsFloat | typing.SupportsIndex = 1.0,
    ) -> None:
        """
        As all_reduce, but only root's buffers are written.
        """
    @property
    def generation(self) -> int: ...
    @property
    def rank(self) -> int: ...
    @property
    def sequence(self) -> int:
        """
        Operations begun so far.
        """
    @property
    def world_size(self) -> int: ...

class Permutation:
    """
    Keyed permutation of range(count): the sample order of one epoch.
    """
    def __call__(self, position: typing.SupportsInt | typing.SupportsIndex) -> int: ...
    def __init__(
        self,
        count: typing.SupportsInt | typing.SupportsIndex,
        seed: typing.SupportsInt | typing.SupportsIndex,
        epoch: typing.SupportsInt | typing.SupportsIndex,
    ) -> None: ...
    def __len__(self) -> int: ...
    def many(
        self,
        first: typing.SupportsInt | typing.SupportsIndex,
        count: typing.SupportsInt | typing.SupportsIndex,
    ) -> list[int]: ...

class DatasetFile:
    """
    A mapped .hpd file. Thread-safe.
    """
    def __init__(self, path: str, verify: bool = True) -> None: ...
    def documents(self) -> list[int]: ...
    def gather(
        self,
        indices: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        stride: typing.SupportsInt | typing.SupportsIndex,
        length: typing.SupportsInt | typing.SupportsIndex,
        out_address: typing.SupportsInt | typing.SupportsIndex,
    ) -> None:
        """
        Writes int64 [len(indices), length] at out_address; the caller keeps that memory alive.
        """
    def info(self) -> dict: ...
    def samples(
        self,
        stride: typing.SupportsInt | typing.SupportsIndex,
        length: typing.SupportsInt | typing.SupportsIndex,
    ) -> int: ...
    def tokens(
        self,
        first: typing.SupportsInt | typing.SupportsIndex,
        count: typing.SupportsInt | typing.SupportsIndex,
        out_address: typing.SupportsInt | typing.SupportsIndex,
    ) -> None: ...
    def verify_all(self) -> None: ...
    @property
    def path(self) -> str: ...

class DatasetWriter:
    """
    Writes a .hpd file. One thread.
    """
    def __init__(
        self,
        path: str,
        token_bytes: typing.SupportsInt | typing.SupportsIndex,
        vocabulary: typing.SupportsInt | typing.SupportsIndex,
        separator: typing.SupportsInt | typing.SupportsIndex = -1,
    ) -> None: ...
    def append_bytes(self, document: bytes) -> None: ...
    def finish(self) -> dict: ...

def digest128(buffer: typing_extensions.Buffer, portable: bool = False) -> bytes:
    """
    16 bytes: four CRC-32C lanes, little-endian. Detects accidents, not attackers.
    """

def digest_code() -> str:
    """
    sse4.2, armv8-crc or portable.
    """

def monotonic_ns() -> int:
    """
    CLOCK_MONOTONIC in nanoseconds: comparable between processes of one node.
    """

def use_huge_pages(
    regions: collections.abc.Sequence[
        tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex]
    ],
) -> int:
    """
    Puts [(address, nbytes)] on huge pages: heals are twice as fast. Returns the bytes on them.
    """
