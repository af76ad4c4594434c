"""`hpcore bench stream`: state from one process's memory into another's, digest included.

Each figure stands beside a limit measured in the same process, turn by turn: an arena beside one
thread's memcpy of the same bytes, process_vm_readv beside the bare system call. One thread reads
from one source, two from two, so that sources are compared, not threads. Sources digest their share
while the receiver pulls, as in a job. What arrived is compared with what was sent in every case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

from hpcore import _core
from hpcore.bench.result import Report, Result
from hpcore.bench.stream_peers import run_stream_peers
from hpcore.bench.stream_ranks import Actor
from hpcore.errors import HpcoreError

MIB = 1 << 20
RECEIVER = 3
METHODS = {"arena": True, "process_vm_readv": False}  # whether the state lies in an arena


@dataclass(frozen=True)
class StreamOptions:
    """How much, how often, and beside whom."""

    mib: int = 1024
    tensors: int = 64
    rounds: int = 10
    peers: bool = False
    peers_python: str = ""
    say: Callable[[str], None] = print

    @property
    def size(self) -> str:
        """As cases say it."""
        return f"{self.mib // 1024}GiB" if self.mib % 1024 == 0 else f"{self.mib}MiB"


def measure(options: StreamOptions) -> Report:
    """Runs all cases. Blocks for some minutes; raises HpcoreError if what arrived is not what was
    sent."""
    report = Report("stream")
    big = [options.mib * MIB // options.tensors] * options.tensors
    for method, in_arena in METHODS.items():
        options.say(f"{method}: {options.size} as {options.tensors} tensors")
        with _net(3, big, in_arena) as net:
            rate = _big(report, net, options, method)
            _faults(report, net, options, method)
        options.say(f"{method}: 10000 tensors of 4 KiB")
        with _net(1, [4096] * 10_000, in_arena) as net:
            _small(report, net, options, method, rate)
    if options.peers:
        run_stream_peers(report, options.mib, options.tensors, options.peers_python, options.say)
    return report


class Net:
    """Sources in slots 0, 1, 2 and a receiver; generations count up."""

    def __init__(self, sources: list[Actor], receiver: Actor) -> None:
        self.sources = sources
        self.receiver = receiver
        self.generation = 0
        self.expected = sources[0].ask("digest")

    def pull(
        self,
        count: int,
        threads: int,
        method: str,
        paces: dict[int, tuple[int, float]] | None = None,
        kill: tuple[int, int] | None = None,
    ) -> dict[str, Any]:
        """One pull from the first `count` sources, which publish meanwhile."""
        self.generation += 1
        used = self.sources[:count]
        for index, source in enumerate(used):
            source.send("publish", self.generation, index, count, RECEIVER)
        addresses = [source.source((paces or {}).get(source.slot)) for source in used]
        stats: dict[str, Any] = self.receiver.ask(
            "pull", self.generation, addresses, threads, method, kill
        )
        for source in used:
            if kill is None or source.pid != kill[0]:
                source.answer()
        return stats

    def check(self) -> None:
        """Raises HpcoreError unless the receiver holds what the sources hold."""
        if self.receiver.ask("digest") != self.expected:
            raise HpcoreError("what arrived is not what was sent")


@contextmanager
def _net(count: int, sizes: list[int], in_arena: bool) -> Iterator[Net]:
    segment = _core.NodeSegment.create(RECEIVER + 1, 1 << 16, 1 << 20)
    actors: list[Actor] = []
    try:
        for slot in [*range(count), RECEIVER]:
            actors.append(Actor(segment, slot, sizes, in_arena and slot != RECEIVER))
            actors[-1].ask("fill", 7 if slot != RECEIVER else 1)
        net = Net(actors[:-1], actors[-1])
        for source in net.sources:
            net.receiver.ask("map_arenas", source.pid, source.arenas)
        yield net
    finally:
        for actor in actors:
            actor.end()
        segment.close()


def _limit(net: Net, method: str) -> tuple[str, float]:
    """The bare copy of the same bytes on one thread: its name and bytes/s."""
    source = net.sources[0]
    size = sum(size for _, size in source.regions)
    if method == "arena":
        return "memcpy", size / net.receiver.ask(
            "memcpy", source.pid, source.regions, source.arenas
        )
    return "raw_process_vm_readv", size / net.receiver.ask("raw_read", source.pid, source.regions)


def _big(report: Report, net: Net, options: StreamOptions, method: str) -> float:
    """One source and two, and the peak of memory; returns the rate of one."""
    rates: dict[str, list[float]] = {"one": [], "one-2": [], "two": [], "limit": []}
    beyond: list[float] = []
    shapes = {"one": (1, 1), "one-2": (1, 2), "two": (2, 2)}
    for turn in range(options.rounds + 1):
        name, rate = _limit(net, method)
        found = {"limit": rate}
        for shape, (count, threads) in shapes.items():
            stats = net.pull(count, threads, method)
            found[shape] = stats["bytes"] / stats["seconds"]
            beyond.append(stats["beyond_bytes"] / MIB)
        if turn > 0:  # the first one warms up
            for shape, rate in found.items():
                rates[shape].append(rate)
    net.check()
    one = report.add(
        Result(f"one-source/{method}/{options.size}", "bandwidth", "B/s", rates["one"])
    )
    one.hold_against(name, rates["limit"], "one thread")
    case = f"one-source/{method}/{options.size}/threads=2"
    report.add(Result(case, "bandwidth", "B/s", rates["one-2"])).hold_against(
        name, rates["limit"], "one thread"
    )
    two = report.add(
        Result(f"two-sources/{method}/{options.size}", "bandwidth", "B/s", rates["two"])
    )
    two.hold_against("one-source", rates["one"], "one thread a source")
    report.add(Result(f"memory/{method}/{options.size}", "peak_beyond_state", "MiB", beyond))
    return median(rates["one"])


def _small(report: Report, net: Net, options: StreamOptions, method: str, big: float) -> None:
    rates, limits = [], []
    for turn in range(options.rounds + 1):
        name, limit = _limit(net, method)
        stats = net.pull(1, 1, method)
        if turn > 0:
            limits.append(limit)
            rates.append(stats["bytes"] / stats["seconds"])
    net.check()
    result = report.add(Result(f"small-tensors/{method}/10000x4KiB", "bandwidth", "B/s", rates))
    result.hold_against("big-tensors", [big], f"{options.size} as {options.tensors} tensors")
    result.hold_against(name, limits, "one thread")


def _faults(report: Report, net: Net, options: StreamOptions, method: str) -> None:
    """One of three sources is killed and another slowed to a tenth after a quarter. Last: a source
    is gone afterwards."""
    size = options.mib * MIB
    calm = [net.pull(3, 2, method)["seconds"] for _ in range(max(3, options.rounds // 2))]
    tenth = size / median(calm) / 2 / 10  # of what one thread gets
    slowed = {2: (size // 12, tenth)}
    stats = net.pull(3, 2, method, slowed, (net.sources[1].pid, size // 4))
    net.check()
    result = report.add(
        Result(f"killed-and-slowed/{method}/{options.size}", "time", "s", [stats["seconds"]])
    )
    shares = ", ".join(f"{given / size:.0%}" for given in stats["bytes_by_source"])
    result.hold_against("undisturbed", calm, f"from the healthy, killed, slowed one: {shares}")
