"""`hpcore.Store`: torch.distributed's key/value store in shared memory, for use on its own.

It serves any backend of torch.distributed in TCPStore's place, without a server or a thread:

    store = hpcore.Store("my-run", create=rank == 0)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)

All methods of torch.distributed.Store, with their meaning there; thread-safe. `get` and `wait`
block until the keys are there, at most for the timeout, without Python's lock. The memory lives as
long as a process has it, and is gone with the last one, also after SIGKILL.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from datetime import timedelta

from hpcore import _c10d
from hpcore.errors import DeadlineExceeded, InvalidArgument

CAPACITY_BYTES = 64 << 20
DEFAULT_TIMEOUT = timedelta(minutes=5)


class Store(_c10d.Store):
    """A store of this host.

    Args:
        name: what the processes that share it call it; it may be taken by one creator of a user at
            a time. Without a name the store is this process's and its children's by fork.
        create: True in the one process that makes it; the others wait for that process.
        timeout: how long `get`, `wait` and the search for the creator may block.
        capacity_bytes: size of its memory; pages are taken as they are used.

    Raises DeadlineExceeded if no creator is found in time, InvalidArgument for a bad name or size.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        create: bool = True,
        timeout: timedelta = DEFAULT_TIMEOUT,
        capacity_bytes: int = CAPACITY_BYTES,
    ) -> None:
        if name is None and not create:
            raise InvalidArgument("hpcore.Store: a store that is to be found needs its name")
        memory = f"hpcore-user-{name}"
        if name is not None and not (name and len(memory) < 240 and "/" not in name):
            raise InvalidArgument(
                f"hpcore.Store: name {name!r} must have 1 to 227 characters, none of them '/'"
            )
        self._door = Door(memory) if create and name is not None else None
        if create:
            shared = create_memory(memory if name is not None else "hpcore-store", capacity_bytes)
        else:
            who = f"hpcore.Store({name!r}) found no store of its creator"
            shared = await_memory(memory, timeout.total_seconds(), who)
        super().__init__(shared.native_handle, "user/", timeout)


def create_memory(memory: str, capacity_bytes: int) -> _c10d.StoreMemory:
    """A store in a memfd of that name, which says who made it."""
    return _c10d.StoreMemory.create(capacity_bytes, memory, str(os.getpid()))


class Door:
    """Says which process made a store of some name: an abstract unix socket that listens.

    Nobody accepts: who connects is told by the kernel whose socket it is (SO_PEERCRED), and looks
    there for the memory: 7 us here, where a search through all processes takes 0.5 ms and more.
    Raises InvalidArgument if another living process of this user has a store of that name.
    """

    def __init__(self, memory: str) -> None:
        self._socket: socket.socket | None = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind("\0" + memory)
            self._socket.listen(4096)
        except OSError:
            self.close()  # found by the search, then
            owner = Door.owner(memory)
            if owner is not None and _held_by(str(owner), memory) is not None:
                raise InvalidArgument(
                    f"process {owner} has a store of this name already ({memory}): give this one "
                    "another name (for hpcore://, another MASTER_PORT), or end that process"
                ) from None

    def close(self) -> None:
        """Nobody finds the store here any more; twice is fine."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    @staticmethod
    def owner(memory: str) -> int | None:
        """The process behind the door of that name, if it is this user's; None if there is none."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knock:
            knock.setblocking(False)
            try:
                knock.connect("\0" + memory)
            except OSError:
                return None
            size = struct.calcsize("3i")
            credentials = knock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        pid, uid, _ = struct.unpack("3i", credentials)
        return pid if uid == os.getuid() else None


def await_memory(memory: str, timeout_s: float, who: str) -> _c10d.StoreMemory:
    """The store that another process of this host made; blocks until it is there."""
    begun = time.monotonic()
    pause_s = 0.00005
    next_search_s = 0.05  # a door is not seen from other network namespaces
    while True:
        owner = Door.owner(memory)
        found = None if owner is None else _held_by(str(owner), memory)
        waited_s = time.monotonic() - begun
        if found is None and (waited_s >= next_search_s or waited_s >= timeout_s):
            next_search_s = 1.5 * waited_s
            found = find_memory(memory)
        if found is not None:
            return found
        if waited_s >= timeout_s:
            raise DeadlineExceeded(
                f"{who} on this node within {timeout_s:.1f} s (memfd {memory}). Is that process "
                "running, under the same user and with the same MASTER_PORT?"
            )
        time.sleep(pause_s)
        pause_s = min(0.02, pause_s * 1.2)


def find_memory(memory: str) -> _c10d.StoreMemory | None:
    """Looks through all processes of this user; None if there is none yet."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        found = _held_by(pid, memory)
        if found is not None:
            return found
    return None


def _held_by(pid: str, memory: str) -> _c10d.StoreMemory | None:
    wanted = f"/memfd:{memory} (deleted)"
    folder = f"/proc/{pid}/fd"
    try:
        for descriptor in os.listdir(folder):
            path = f"{folder}/{descriptor}"
            if os.readlink(path) != wanted:
                continue
            # Only the creator itself counts: an older job's member may still hold an older store.
            store = _c10d.StoreMemory.open(path, pid)
            if store is not None:
                return store
    except OSError:
        pass  # not ours to look at, or gone meanwhile
    return None
