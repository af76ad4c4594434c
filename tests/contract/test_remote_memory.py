"""One contract for all ways to read another process's memory."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from memory_peer import Memory
from memory_process import GENERATION, TRANSPORTS, Process, Transport, reader

from hpcore import _core, errors

MIB = 1 << 20
# Big ones, odd ones, empty ones, and many tiny ones.
SIZES = [3 * MIB + 5, 0, 1, 7, *([4] * 300), 2 * MIB, 0, 12345]
HUGE_SIZES, HUGE_TIMES = [3 * MIB + 64], 1400
TOTAL = sum(SIZES)


@pytest.fixture(params=TRANSPORTS, ids=lambda transport: transport.name)
def transport(request: pytest.FixtureRequest) -> Transport:
    chosen: Transport = request.param
    if why := chosen.why_not():
        pytest.skip(why)
    return chosen


@pytest.fixture
def served(transport: Transport) -> Transport:
    if not transport.has_server:
        pytest.skip("reads without the other process's help")
    return transport


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    segment = _core.NodeSegment.create(2, 1 << 16, 1 << 20)
    peers: list[Process] = []

    def run(sizes: list[int] = SIZES, seed: int = 11, times: int = 1) -> Process:
        peers.append(Process(segment, len(peers)))
        peers[-1].make(sizes, seed, times)
        return peers[-1]

    yield run
    for peer in peers:
        peer.end()
    segment.close()


class Reading:
    """A read on a thread of its own."""

    def __init__(self, memory: Any, bytes_: int, into: Memory, timeout_s: float = 60) -> None:
        self.error: BaseException | None = None
        self._arguments = (0, bytes_, into.regions(), timeout_s)
        self._memory, self._into = memory, into
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._memory.read(*self._arguments)
        except errors.HpcoreError as error:
            self.error = error

    def await_first_bytes(self) -> None:
        """Until something has arrived and the read is under way."""
        view = self._into.views()[0]
        while not any(view[:64]) and self._thread.is_alive():
            time.sleep(0.001)

    def end(self) -> BaseException | None:
        self._thread.join(60)
        assert not self._thread.is_alive(), "the read hangs"
        return self.error


def test_read_copies_any_range_of_many_regions(
    transport: Transport, start: Callable[..., Process]
) -> None:
    peer = start()
    expected = Memory(SIZES, 11).content()
    mine = Memory(SIZES, None)
    memory = reader(transport, peer, peer.serve(transport), mine.regions())
    choose = random.Random(5)
    ranges = [(0, TOTAL), (0, 1), (TOTAL - 1, 1), (3 * MIB + 4, 30), (3 * MIB - 7, 2000)]
    ranges += [(at := choose.randrange(TOTAL), choose.randrange(TOTAL - at)) for _ in range(12)]
    for offset, count in ranges:
        mine.fill(None)
        memory.read(offset, count, mine.regions())
        content = mine.content()
        assert content[offset : offset + count] == expected[offset : offset + count]
        assert not any(content[:offset])
        assert not any(content[offset + count :])
    assert mine.guards_untouched()


def test_read_of_nothing_does_nothing(transport: Transport, start: Callable[..., Process]) -> None:
    peer = start([0, 0, 5])
    mine = Memory([0, 0, 5], None)
    memory = reader(transport, peer, peer.serve(transport), mine.regions())
    for offset in (0, 3, 5):
        memory.read(offset, 0, mine.regions())
    assert not any(mine.content())
    with pytest.raises(errors.InvalidArgument, match="outside"):
        memory.read(3, 3, mine.regions())


def test_read_of_no_regions_does_nothing(
    transport: Transport, start: Callable[..., Process]
) -> None:
    peer = start([])
    reader(transport, peer, peer.serve(transport), []).read(0, 0, [])


def test_read_reaches_behind_4_gib(transport: Transport, start: Callable[..., Process]) -> None:
    peer = start(HUGE_SIZES, times=HUGE_TIMES)
    expected = Memory(HUGE_SIZES, 11).content()
    mine = Memory(HUGE_SIZES, None, HUGE_TIMES)
    memory = reader(transport, peer, peer.serve(transport), mine.regions())
    size = HUGE_SIZES[0]
    offset = (4 << 30) // size * size
    assert offset + size > 4 << 30
    memory.read(offset, size, mine.regions())
    assert mine.content() == expected


def test_reads_of_several_threads_do_not_mix(
    transport: Transport, start: Callable[..., Process]
) -> None:
    peer = start()
    place = peer.serve(transport)
    targets = [Memory(SIZES, None) for _ in range(3)]
    memory = reader(transport, peer, place, targets[0].regions())
    readings = [Reading(memory, TOTAL, target) for target in targets]
    assert [reading.end() for reading in readings] == [None] * 3
    expected = Memory(SIZES, 11).content()
    assert all(target.content() == expected for target in targets)


def test_read_ends_when_the_peer_is_killed(
    transport: Transport, start: Callable[..., Process]
) -> None:
    if transport.fabric.get("provider") == "shm":
        pytest.skip("shm's locks are not robust: a peer killed while it holds one blocks readers")
    peer = start(HUGE_SIZES, times=HUGE_TIMES)
    mine = Memory(HUGE_SIZES, None, HUGE_TIMES)
    memory = reader(transport, peer, peer.serve(transport), mine.regions())
    reading = Reading(memory, HUGE_TIMES * HUGE_SIZES[0], mine)
    reading.await_first_bytes()
    peer.kill()
    assert isinstance(reading.end(), errors.PeerDead | errors.DeadlineExceeded)
    with pytest.raises((errors.PeerDead, errors.DeadlineExceeded)):
        memory.read(0, 10, mine.regions())
    assert mine.guards_untouched()


def test_read_ends_when_the_server_is_closed(
    served: Transport, start: Callable[..., Process]
) -> None:
    peer = start(HUGE_SIZES, times=HUGE_TIMES)
    mine = Memory(HUGE_SIZES, None, HUGE_TIMES)
    memory = reader(served, peer, peer.serve(served), mine.regions())
    reading = Reading(memory, HUGE_TIMES * HUGE_SIZES[0], mine)
    reading.await_first_bytes()
    peer.ask("close")
    peer.ask("close")
    assert isinstance(reading.end(), errors.PeerDead | errors.DeadlineExceeded)


def test_read_gives_up_a_silent_peer_and_writes_nothing_later(
    served: Transport, start: Callable[..., Process]
) -> None:
    peer = start(HUGE_SIZES, times=HUGE_TIMES)
    mine = Memory(HUGE_SIZES, None, HUGE_TIMES)
    memory = reader(served, peer, peer.serve(served), mine.regions())
    memory.read(0, HUGE_SIZES[0], mine.regions())
    os.kill(peer.process.pid, signal.SIGSTOP)
    mine.fill(None)
    error = Reading(memory, 64 * HUGE_SIZES[0], mine).end()
    if served.fabric.get("provider") == "shm" and error is None:
        pytest.skip("this version of shm reads without the other process's help")
    assert isinstance(error, errors.DeadlineExceeded)
    mine.fill(7)
    before = mine.content()
    os.kill(peer.process.pid, signal.SIGCONT)
    other = Memory(HUGE_SIZES, None, HUGE_TIMES)
    # Of staging the taken cell ends with the generation, of nccl the link does at once.
    if served.method != "staging" and not served.device:
        memory.read(0, 3 * HUGE_SIZES[0], other.regions())
        assert other.content() == Memory(HUGE_SIZES, 11).content()
    assert mine.content() == before


def test_read_ends_when_it_is_told_to(served: Transport, start: Callable[..., Process]) -> None:
    peer = start(HUGE_SIZES, times=HUGE_TIMES)
    mine = Memory(HUGE_SIZES, None, HUGE_TIMES)
    memory = reader(served, peer, peer.serve(served), mine.regions())
    reading = Reading(memory, HUGE_TIMES * HUGE_SIZES[0], mine)
    reading.await_first_bytes()
    memory.abort()
    assert isinstance(reading.end(), errors.Aborted)
    peer.ask("digest")


def test_read_keeps_its_deadline(transport: Transport, start: Callable[..., Process]) -> None:
    peer = start(HUGE_SIZES, times=HUGE_TIMES)
    mine = Memory(HUGE_SIZES, None, HUGE_TIMES)
    memory = reader(transport, peer, peer.serve(transport), mine.regions())
    with pytest.raises(errors.DeadlineExceeded):
        memory.read(0, HUGE_TIMES * HUGE_SIZES[0], mine.regions(), 0.0)
    memory.read(0, HUGE_SIZES[0], mine.regions())
    assert mine.content() == Memory(HUGE_SIZES, 11).content()


def test_memory_names_its_method(transport: Transport, start: Callable[..., Process]) -> None:
    peer = start()
    memory = reader(transport, peer, peer.serve(transport), peer.regions)
    names = (transport.method, transport.device)
    assert memory.method in names or memory.method.startswith("fabric/")
    assert memory.note == ""
    assert GENERATION == 3
