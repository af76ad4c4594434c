"""`hpcore.Store`: torch.distributed's key/value store in shared memory, for use on its own.

It serves any backend of torch.distributed in TCPStore's place, without a socket or a thread:

    store = hpcore.Store("my-run", create=rank == 0)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)

All methods of torch.distributed.Store, with their meaning there; thread-safe. `get` and `wait`
block until the keys are there, at most for the timeout, without Python's lock. The memory lives as
long as a process has it, and is gone with the last one, also after SIGKILL.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from hpcore import _c10d
from hpcore.errors import DeadlineExceeded, HpcoreError, InvalidArgument

if TYPE_CHECKING:
    from hpcore import _core

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
        if create:
            shared = create_memory(memory if name is not None else "hpcore-store", capacity_bytes)
        else:
            who = f"hpcore.Store({name!r}) found no store of its creator"
            shared = await_memory(memory, timeout.total_seconds(), who)
        super().__init__(shared.native_handle, "user/", timeout)


def create_memory(memory: str, capacity_bytes: int) -> _core.SharedStore:
    """A store in a memfd of that name, which says who made it."""
    from hpcore import _core

    store = _core.SharedStore.create(capacity_bytes, memory)
    store.set("creator", str(os.getpid()))
    return store


def await_memory(memory: str, timeout_s: float, who: str) -> _core.SharedStore:
    """The store that another process of this host made; blocks until it is there."""
    deadline = time.monotonic() + timeout_s
    pause_s = 0.0005
    while True:
        found = find_memory(memory)
        if found is not None:
            return found
        if time.monotonic() >= deadline:
            raise DeadlineExceeded(
                f"{who} on this node within {timeout_s:.1f} s (memfd {memory}). Is that process "
                "running, under the same user and with the same MASTER_PORT?"
            )
        time.sleep(pause_s)
        pause_s = min(0.02, pause_s * 1.3)


def find_memory(memory: str) -> _core.SharedStore | None:
    """Looks through the processes of this user; None if there is none yet."""
    for pid in _likely_first():
        found = _held_by(pid, memory)
        if found is not None:
            return found
    return None


def _likely_first() -> list[str]:
    """All processes: the children of this one's parent, which are most likely ranks, first."""
    parent = os.getppid()
    try:
        with open(f"/proc/{parent}/task/{parent}/children") as file:
            siblings = file.read().split()
    except OSError:
        siblings = []
    known = set(siblings)
    others = [n for n in os.listdir("/proc") if n.isdigit() and n not in known]
    return siblings + others


def _held_by(pid: str, memory: str) -> _core.SharedStore | None:
    from hpcore import _core

    wanted = f"/memfd:{memory} (deleted)"
    folder = f"/proc/{pid}/fd"
    try:
        for descriptor in os.listdir(folder):
            path = f"{folder}/{descriptor}"
            if os.readlink(path) != wanted:
                continue
            store = _core.SharedStore.open_path(path)
            # Only the creator itself counts: an older job's member may still hold an older store.
            if store.check(["creator"]) and store.get("creator", 0.0) == pid.encode():
                return store
    except (OSError, HpcoreError):
        pass  # not ours to look at, gone meanwhile, or not formatted yet
    return None
