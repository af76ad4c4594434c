"""Wake-ups between processes over a node segment. Run: pytest bench/test_bench_roster.py.

Times are CLOCK_MONOTONIC of two processes of one machine. The figure is what the other side saw:
from the write (publish, ready, kill) to the sleeper's next instruction.
"""

from __future__ import annotations

import os
import signal
import statistics
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hpcore import _core

FOREVER_S = 60.0
ROUNDS = 200


class Bench:
    """A segment, its watch and forked workers."""

    def __init__(self) -> None:
        self.segment = _core.NodeSegment.create(4)
        self.watch = _core.AgentWatch(self.segment)
        self.pids: dict[int, int] = {}
        self.incarnation = 0

    def start(self, slot: int, body: Callable[[Any], None]) -> int:
        self.incarnation += 1
        self.segment.prepare_slot(slot, self.incarnation)
        self.watch.watch(slot, self.incarnation)
        pid = os.fork()
        if pid == 0:
            try:
                body(_core.Worker.attach(self.segment, slot, self.incarnation))
            finally:
                os._exit(0)
        self.pids[slot] = pid
        while self.event("state").slot != slot:
            pass
        return pid

    def event(self, kind: str) -> Any:
        while True:
            event = self.watch.next_event(FOREVER_S)
            assert event is not None, f"no {kind} within {FOREVER_S} s"
            if event.kind == kind:
                return event

    def kill(self, slot: int) -> int:
        """The time of the kill, in ns."""
        before = _core.monotonic_ns()
        os.kill(self.pids[slot], signal.SIGKILL)
        return before

    def reap(self, slot: int) -> None:
        os.waitpid(self.pids.pop(slot), 0)

    def close(self) -> None:
        for slot in list(self.pids):
            self.kill(slot)
            self.reap(slot)
        self.watch.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


@pytest.fixture(params=["idle", "busy"])
def load(request: pytest.FixtureRequest) -> Iterator[str]:
    """busy: two endless loops a core."""
    count = 0 if request.param == "idle" else 2 * (os.cpu_count() or 1)
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    yield request.param
    for loop in loops:
        loop.kill()
        loop.wait()


def report(benchmark: Any, one_way_s: list[float]) -> None:
    one_way_s.sort()
    benchmark.extra_info["p50_us"] = round(statistics.median(one_way_s) * 1e6, 1)
    benchmark.extra_info["p99_us"] = round(one_way_s[len(one_way_s) * 99 // 100] * 1e6, 1)


def test_notice_board_wakes(benchmark: Any, bench: Bench, load: str) -> None:
    """publish -> wait_roster returns in the worker's Python (extra_info); and back by a pipe."""
    read, write = os.pipe()

    def body(worker: Any) -> None:
        generation = 0
        while True:
            generation = worker.wait_roster(generation, FOREVER_S)[0]
            os.write(write, struct.pack("q", _core.monotonic_ns()))

    bench.start(0, body)
    generations = iter(range(1, 1 << 20))
    seconds: list[float] = []

    def there_and_back() -> None:
        before = _core.monotonic_ns()
        bench.segment.publish(next(generations), b"x" * 2000)
        seconds.append((struct.unpack("q", os.read(read, 8))[0] - before) * 1e-9)

    benchmark.pedantic(there_and_back, rounds=ROUNDS)
    report(benchmark, seconds)


def test_commit_agrees(benchmark: Any, bench: Bench, load: str) -> None:
    """ready + wait_commit of two ranks that do nothing else, as rank 0 sees a step (extra_info);
    ten of them (benchmark)."""
    read, write = os.pipe()

    def body(worker: Any) -> None:
        worker.wait_roster(0, FOREVER_S)
        for step in range(1 << 40):
            before = _core.monotonic_ns()
            worker.ready(1, step)
            worker.wait_commit(1, step, [0, 1], FOREVER_S)
            if worker.slot == 0 and step % 10 == 0:  # the pipe is full while nobody reads
                os.write(write, struct.pack("q", _core.monotonic_ns() - before))

    for slot in (0, 1):
        bench.start(slot, body)
    bench.segment.open_commit([0, 1], 1, 0)
    bench.segment.publish(1, b"go")
    seconds: list[float] = []
    benchmark.pedantic(
        lambda: seconds.append(struct.unpack("q", os.read(read, 8))[0] * 1e-9), rounds=ROUNDS
    )
    report(benchmark, seconds)


@pytest.mark.parametrize("memory_mib", [0, 256])
def test_death_is_noticed(benchmark: Any, bench: Bench, load: str, memory_mib: int) -> None:
    """kill of a computing worker -> its death is read from the life word (extra_info); -> the
    agent's Python has the event (benchmark)."""

    def body(worker: Any) -> None:
        held = bytearray((memory_mib << 20) + 1)
        worker.state = _core.STATE_WARM
        while True:
            held[-1] ^= 1

    seconds: list[float] = []

    def start() -> None:
        if bench.pids:
            bench.reap(0)
        bench.start(0, body)
        while bench.segment.slot_info(0).state != _core.STATE_WARM:
            os.sched_yield()
        beats = bench.segment.slot_info(0).heartbeats
        while bench.segment.slot_info(0).heartbeats < beats + 2:
            os.sched_yield()

    def die() -> None:
        killed = bench.kill(0)
        seconds.append((bench.event("death").at_ns - killed) * 1e-9)

    benchmark.pedantic(die, setup=start, rounds=40 if memory_mib == 0 else 10)
    report(benchmark, seconds)
