"""`hpcore bench store`: the store beside torch's TCPStore, and what it takes to bring up a group.

Both stores are torch.distributed.Store objects, called from Python. TCPStore's set and multi_set
return before the server has the value; `set+get` also reads it back. `wait` is the time from just
before another process's set() to the return of a wait() that slept. `init/ranks=N` is the time from
the first to the last of N processes, which have torch imported, for init_process_group and the
first all_reduce: hpcore over `hpcore://`, Gloo over `tcp://` (a TCPStore), and torch's own part of
it: its `fake` backend, which connects nothing, over a HashStore in the process itself.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from hpcore.bench.ranks import run_ranks
from hpcore.bench.result import Report, Result
from hpcore.errors import HpcoreError

PATIENCE = timedelta(seconds=120)
VALUE = b"v" * 64
ASLEEP_S = 0.003  # longer than any of the stores spins
STORES = ("hpcore", "tcpstore")
INITS = (*STORES, "fake")


@dataclass(frozen=True)
class StoreOptions:
    """How often: `calls` of each method, `waits` wake-ups, `inits` groups of each size."""

    calls: int = 2000
    waits: int = 200
    inits: int = 5
    ranks: Sequence[int] = (2, 4, 8, 16, 32)
    say: Callable[[str], None] = print


def measure(options: StoreOptions) -> Report:
    """Runs all cases. Blocks for a minute or two; raises HpcoreError if a value is wrong."""
    report = Report("store")
    import torch

    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    options.say("methods")
    with _stores() as stores:
        found = {name: _methods(stores[name][0], options.calls) for name in STORES}
        for method in found["hpcore"]:
            result = report.add(Result(method, "latency", "s", found["hpcore"][method]))
            result.hold_against("tcpstore", found["tcpstore"][method])
        options.say("wake-ups")
        waits = {name: _waits(*stores[name], options.waits) for name in STORES}
    report.add(Result("wait", "latency", "s", waits["hpcore"])).hold_against(
        "tcpstore", waits["tcpstore"], "from set() in another process"
    )
    for ranks in options.ranks:
        options.say(f"init and first all_reduce, {ranks} ranks")
        inits: dict[str, list[float]] = {name: [] for name in INITS}
        for _ in range(options.inits):  # turn by turn
            for name in INITS:
                inits[name].append(_init(name, ranks))
        result = report.add(Result(f"init/ranks={ranks}", "latency", "s", inits["hpcore"]))
        result.hold_against("tcpstore", inits["tcpstore"], "with Gloo")
        result.hold_against("torch", inits["fake"], "torch's own part: its fake backend")
    return report


Open = Callable[[], Any]


@contextmanager
def _stores() -> Iterator[dict[str, tuple[Any, Open]]]:
    """By name: a store of this process, and how a forked process opens it."""
    from torch._C._distributed_c10d import TCPStore

    from hpcore import _c10d, _core

    def server(port: int, master: bool) -> Any:
        return TCPStore("127.0.0.1", port, None, master, PATIENCE, wait_for_workers=False)

    tcp = server(0, True)
    shared = _core.SharedStore.create(8 << 20)

    def own() -> Any:
        return _c10d.Store(shared.native_handle, "bench/", PATIENCE)

    yield {"hpcore": (own(), own), "tcpstore": (tcp, lambda: server(tcp.port, False))}


def _methods(store: Any, calls: int) -> dict[str, list[float]]:
    """Seconds of each call, by method."""
    keys = [f"key{i}" for i in range(16)]
    values = [VALUE.decode()] * 16
    methods: dict[str, Callable[[], Any]] = {
        "set": lambda: store.set("key", VALUE),
        "get": lambda: store.get("key"),
        "set+get": lambda: (store.set("key", VALUE), store.get("key")),
        "add": lambda: store.add("count", 1),
        "check": lambda: store.check(["key"]),
        "compare_set": lambda: store.compare_set("turn", "", VALUE.decode()),
        "multi_set/keys=16": lambda: store.multi_set(keys, values),
        "multi_get/keys=16": lambda: store.multi_get(keys),
    }
    taken: dict[str, list[float]] = {}
    clock = time.perf_counter_ns
    for name, call in methods.items():
        for _ in range(20):
            call()
        samples = []
        for _ in range(calls):
            before = clock()
            call()
            samples.append((clock() - before) / 1e9)
        taken[name] = samples
    counted = store.add("count", 0)
    if store.get("key") != VALUE or counted != calls + 20 or store.multi_get(keys) != [VALUE] * 16:
        raise HpcoreError(f"{type(store).__name__} does not hold what was written: count {counted}")
    return taken


def _waits(store: Any, open_store: Open, count: int) -> list[float]:
    """Seconds from before set() here until wait() returns in another process."""

    def waiter(_: int) -> list[int]:
        mine = open_store()
        woken = []
        for turn in range(count):
            mine.set(f"asleep{turn}", b"1")
            mine.wait([f"wake{turn}"], PATIENCE)
            woken.append(time.monotonic_ns())
        return woken

    told: list[int] = []

    def both(rank: int) -> Any:
        if rank == 1:
            return waiter(rank)
        mine = open_store()
        for turn in range(count):
            mine.wait([f"asleep{turn}"], PATIENCE)
            time.sleep(ASLEEP_S)
            told.append(time.monotonic_ns())
            mine.set(f"wake{turn}", b"1")
        return told

    sent, woken = run_ranks(2, both)
    return [(b - a) / 1e9 for a, b in zip(sent, woken, strict=True)]


def _init(name: str, ranks: int) -> float:
    """Seconds from the first rank's call to the last rank's first result."""
    port = _free_port()
    meeting = f"bench-{os.getpid()}-{time.monotonic_ns()}"
    start_ns = time.monotonic_ns() + int((0.1 + 0.02 * ranks) * 1e9)  # all are forked by then

    def body(rank: int) -> tuple[int, int]:
        import torch
        import torch.distributed as dist

        # Loaded before the clock starts, as Gloo is with torch.
        import torch.testing._internal.distributed.fake_pg
        from torch._C._distributed_c10d import HashStore

        from hpcore import distributed, store  # noqa: F401

        distributed.register()
        ways: dict[str, dict[str, Any]] = {
            "hpcore": {"init_method": f"hpcore://{meeting}?rank={rank}&world_size={ranks}"},
            "tcpstore": {"init_method": f"tcp://127.0.0.1:{port}?rank={rank}&world_size={ranks}"},
            "fake": {"store": HashStore(), "rank": rank, "world_size": ranks},
        }
        backend = {"tcpstore": "gloo"}.get(name, name)
        tensor = torch.ones(1)
        time.sleep(max(0.0, (start_ns - time.monotonic_ns()) / 1e9))
        begun = time.monotonic_ns()
        dist.init_process_group(backend, timeout=PATIENCE, **ways[name])
        dist.all_reduce(tensor)
        ended = time.monotonic_ns()
        if name != "fake" and float(tensor) != ranks:
            raise HpcoreError(f"the first all_reduce of {ranks} ones gave {float(tensor)}")
        return begun, ended

    times = run_ranks(ranks, body)
    elapsed_ns: int = max(end for _, end in times) - min(begin for begin, _ in times)
    return elapsed_ns / 1e9


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
