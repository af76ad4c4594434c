"""Binds hpcore to torch.distributed: the `hpcore` backend, its store, and `hpcore://`.

torch calls `register` at import through the entry point group `torch.backends`; nothing else is
done then. In a worker of `hpcore run` also `env://` (the default) meets through shared memory, so
that a torchrun script needs no TCPStore. Thread-safe as far as torch.distributed is: one
init_process_group at a time.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlparse

from hpcore.errors import DeadlineExceeded, HpcoreError, InvalidArgument
from hpcore.groups import Hosts, Place, Resources, create

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Backend

    from hpcore import _c10d, _core
    from hpcore.membership.roster import Roster
    from hpcore.store import Door

_DEFAULT_TIMEOUT = timedelta(minutes=30)
_ONCE = "hpcore:// cannot meet again by itself: call init_process_group anew"

Meeting = Iterator[tuple[Any, int, int]]  # what torch calls a rendezvous: store, rank, world size


def register() -> None:
    """Makes the backend `hpcore` and the init method `hpcore://` known to torch.

    Cheap, and harmless when repeated.
    """
    import torch.distributed as dist

    if not dist.is_available():
        return
    if "hpcore" not in dist.Backend.backend_list:
        dist.Backend.register_backend(
            "hpcore", _create_backend, extended_api=True, devices=["cpu", "cuda"]
        )
    # torch.distributed.rendezvous, the attribute, is the function of that name.
    handlers = importlib.import_module("torch.distributed.rendezvous")._rendezvous_handlers
    handlers.setdefault("hpcore", _meet)
    if not isinstance(handlers["env"], _EnvMeeting):
        handlers["env"] = _EnvMeeting(handlers["env"])


class _Places:
    """What this process remembers from one init_process_group to the next.

    The stores that it made or found, how many groups it had in each, and where it is now.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stores: dict[str, _c10d.StoreMemory] = {}
        self.doors: dict[str, Door] = {}
        self.counts: dict[str, int] = {}
        self.current: Place | None = None
        self.current_prefix = ""
        self.hosts = Hosts()
        self.shared: Resources | None = None

    def next_prefix(self, scope: str) -> str:
        """Keys of each default group have a prefix of their own, the same in all ranks."""
        with self.lock:
            count = self.counts.get(scope, 0)
            self.counts[scope] = count + 1
        return f"c10d/{scope}/{count}/"

    def of(self, store: Any) -> Place | None:
        """The place of a group whose store this is; None for stores that a caller brought."""
        return self.current if getattr(store, "prefix", None) == self.current_prefix else None

    def resources(self) -> Resources:
        """Made with the first group."""
        with self.lock:
            if self.shared is None:
                self.shared = Resources(os.environ)
            return self.shared


_places = _Places()


class _EnvMeeting:
    """`env://` in a worker of `hpcore run`; elsewhere (a child process of a worker) torch's own."""

    def __init__(self, torchs_own: Callable[..., Meeting]) -> None:
        self._torchs_own = torchs_own

    def __call__(self, url: str, timeout: timedelta = _DEFAULT_TIMEOUT, **options: Any) -> Meeting:
        worker = _this_worker()
        if worker is None:
            yield from self._torchs_own(url, timeout=timeout, **options)
        else:
            yield from _meet_in_job(worker, timeout)


def _this_worker() -> _core.Worker | None:
    if "HPCORE_SEGMENT_FD" not in os.environ:
        return None
    from hpcore.membership.process import this_worker

    return this_worker()


def _meet(url: str, timeout: timedelta = _DEFAULT_TIMEOUT, **_options: Any) -> Meeting:
    """`hpcore://[name][?rank=R&world_size=W]`."""
    worker = _this_worker()
    if worker is not None:
        yield from _meet_in_job(worker, timeout)
        return
    rank, world_size = _identity(url)
    name = _meeting_name(url)
    with _places.lock:
        store = _places.stores.get(name)
    if store is None:
        store = _open_store(name, rank, world_size, timeout.total_seconds())
        with _places.lock:
            _places.stores[name] = store
    yield from _hand_over(Place(store, None, 1, rank, world_size, rehearsal=False), name, timeout)


def _meet_in_job(worker: _core.Worker, timeout: timedelta) -> Meeting:
    from hpcore.nodes.joining import refuse_on_several  # imports torch, which imports this

    refuse_on_several(worker, "init_process_group")
    from hpcore.membership.process import this_job

    job = this_job()
    assert job is not None
    store = worker.segment.store
    roster = _newest_roster(worker)
    named = roster is not None and roster.rank_of(worker.slot) is not None
    if job.standby and not named:  # it may only rehearse, under the identity it was given
        rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        place = Place(store, worker, 0, rank, world_size, rehearsal=True)
        yield from _hand_over(place, f"standby/{worker.slot}.{worker.incarnation}", timeout)
        return
    roster = _await_roster(worker, timeout.total_seconds())
    rank_held = roster.rank_of(worker.slot)
    assert rank_held is not None
    yield store_of(worker, roster, timeout), rank_held, roster.world_size
    raise HpcoreError(_ONCE)


def store_of(worker: _core.Worker, roster: Roster, timeout: timedelta) -> Any:
    """A c10d store for one default group in the generation of this roster, which names the worker.

    Every rank of the roster must ask for as many as the others. Does not block.
    """
    rank = roster.rank_of(worker.slot)
    assert rank is not None
    if rank == 0:
        _forget_older(worker.segment.store, roster.generation)
    place = Place(
        worker.segment.store, worker, roster.generation, rank, roster.world_size, rehearsal=False
    )
    return _open(place, f"g{roster.generation}", timeout)


def _newest_roster(worker: _core.Worker) -> Roster | None:
    from hpcore.membership.roster import Roster

    newest = worker.roster()
    return None if newest is None else Roster.from_bytes(newest[1])


def _await_roster(worker: _core.Worker, timeout_s: float) -> Roster:
    """The newest roster that names this worker and is not revoked.

    Asks for the first one by state TRAINING.
    """
    from hpcore import _core
    from hpcore.membership.roster import Roster

    if worker.roster() is None and worker.state < _core.STATE_TRAINING:
        worker.state = _core.STATE_TRAINING
    deadline = time.monotonic() + timeout_s
    after = 0
    while True:
        newest = worker.wait_roster(after, max(0.0, deadline - time.monotonic()))
        if newest is None:
            raise DeadlineExceeded(
                f"init_process_group: no roster that names slot {worker.slot} after generation "
                f"{after} within {timeout_s:.1f} s: not all ranks have called it. See their logs"
            )
        after = newest[0]
        roster = Roster.from_bytes(newest[1])
        if roster.rank_of(worker.slot) is not None and not worker.revoked(after):
            return roster


def _forget_older(store: _core.SharedStore, generation: int) -> None:
    """Deletes the keys of generations that are over."""
    keys: list[str] = store.keys()
    for key in keys:
        root, _, rest = key.partition("/")
        scope = rest.partition("/")[0]
        if root == "c10d" and scope[:1] == "g" and int(scope[1:]) < generation:
            store.delete(key)


def _hand_over(place: Place, scope: str, timeout: timedelta) -> Meeting:
    yield _open(place, scope, timeout), place.rank, place.world_size
    raise HpcoreError(_ONCE)


def _open(place: Place, scope: str, timeout: timedelta) -> Any:
    from hpcore import _c10d

    prefix = _places.next_prefix(scope)
    _places.current, _places.current_prefix = place, prefix
    return _c10d.Store(
        place.store.native_handle,
        prefix,
        timeout,
        place.worker.native_handle if place.worker is not None and not place.rehearsal else None,
        place.generation,
    )


def _identity(url: str) -> tuple[int, int]:
    """Rank and world size: from the URL, else from the environment, else a world of one."""
    query = {key: values[-1] for key, values in parse_qs(urlparse(url).query).items()}
    rank = query.get("rank", os.environ.get("RANK", "0"))
    world_size = query.get("world_size", os.environ.get("WORLD_SIZE", "1"))
    if not 0 <= int(rank) < int(world_size):
        raise InvalidArgument(
            f"hpcore://: rank {rank} is not in a world of {world_size}: set RANK and WORLD_SIZE"
        )
    return int(rank), int(world_size)


def _meeting_name(url: str) -> str:
    """The name of the store's memfd: the same in all ranks of one start of one job only."""
    parsed = urlparse(url)
    facts = [parsed.netloc, parsed.path, str(os.getuid())]
    names = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
    facts += [os.environ.get(name, "") for name in names]
    # Not SHA-256: OpenSSL takes milliseconds to set itself up for the first of them.
    digest = hashlib.blake2b("\0".join(facts).encode(), digest_size=10)
    return "hpcore-store-" + digest.hexdigest()


def _open_store(name: str, rank: int, world_size: int, timeout_s: float) -> _c10d.StoreMemory:
    """Rank 0 makes the store in a memfd, the others find it. No TCP, no file."""
    from hpcore.store import CAPACITY_BYTES, Door, await_memory, create_memory

    if rank == 0 and world_size == 1:
        return create_memory("hpcore-alone", CAPACITY_BYTES)
    if rank == 0:
        _places.doors[name] = Door(name)
        return create_memory(name, CAPACITY_BYTES)
    return await_memory(name, timeout_s, f"hpcore://: rank {rank} found no store of rank 0")


def _create_backend(options: Any, _backend_options: Any) -> Backend:
    """Called by torch for each group: the default one and each sub-group."""
    from hpcore import _c10d

    store = options.store
    while hasattr(store, "underlying_store"):  # torch gives each group a prefix of its own
        store = store.underlying_store
    place = _places.of(store)
    members = list(options.global_ranks_in_group)
    # In shared memory: whoever has it is on this host. Members that come later tell no host.
    if isinstance(store, _c10d.Store) or getattr(options, "enable_reconfigure", False):
        _places.hosts.forget()
        one_host = True
    else:
        one_host = _places.hosts.all_one(
            options.store, options.group_rank, options.group_size, members
        )
    return create(options, place, one_host, _places.resources())


def flight_record() -> dict[str, Any]:
    """The last operations of this process's hpcore groups, and how far each came.

    In the format of torch's own flight recorder (version 2.10, without stack traces), which
    torch.distributed.flight_recorder analyses. Thread-safe; does not block.
    """
    found: dict[str, Any] = json.loads(_places.resources().recorder.json())
    return found
