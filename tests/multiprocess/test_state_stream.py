"""Pulls by plan, from arenas, and with sources that die or lag: who gave what, counted in bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from state_process import Process

from hpcore import _core

MIB = 1 << 20
ODD = [3 * MIB + 5, 0, 1, 7, *([4] * 3000), 2 * MIB, 0, 12345, *([4096] * 200)]
EVEN = [8 * MIB] * 8
RECEIVER = 3
FAST = 1e12


@pytest.fixture
def segment() -> Iterator[Any]:
    made = _core.NodeSegment.create(4, 1 << 16, 1 << 20)
    yield made
    made.close()


@pytest.fixture
def net(segment: Any) -> Iterator[Callable[..., tuple[list[Process], Process]]]:
    processes: list[Process] = []

    def start(sources: int, sizes: list[int], where: str = "heap", publish: bool = True) -> Any:
        processes.extend(Process(segment, slot, 11, sizes, where) for slot in range(sources))
        given = list(processes)
        receiver = Process(segment, RECEIVER, None, sizes)
        processes.append(receiver)
        for source in given if publish else ():
            source.ask("publish", 1, source.slot, sources, [RECEIVER])
        return given, receiver

    yield start
    for process in processes:
        process.end()


def addresses(sources: list[Process], paces: dict[int, tuple[int, float]] | None = None) -> Any:
    return [[*source.address, (paces or {}).get(source.slot)] for source in sources]


def check(
    stats: dict[str, Any], sources: list[Process], receiver: Process, sizes: list[int]
) -> None:
    assert stats["bytes"] == sum(sizes)
    assert sum(stats["bytes_by_source"]) >= sum(sizes)
    alive = [source for source in sources if source.process.poll() is None]
    assert receiver.ask("digest") == alive[0].ask("digest")
    assert receiver.ask("guards_untouched")


@pytest.mark.parametrize("where", ["arena", "mixed"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_state_in_arenas_arrives_by_plain_copies(net: Any, count: int, where: str) -> None:
    sources, receiver = net(count, ODD, where)
    mapped = receiver.ask("map_arenas", addresses(sources))
    assert mapped >= count * sum(ODD)
    stats = receiver.ask("pull", 1, addresses(sources), 20, "probe")
    assert stats["method"] == ("arena" if where == "arena" else "arena+process_vm_readv")
    assert (stats["refetched"], stats["reread"]) == (0, 0)
    assert all(stats["bytes_by_source"])
    check(stats, sources, receiver, ODD)
    assert receiver.ask("map_arenas", addresses(sources)) == mapped


def test_state_in_arenas_needs_no_leave_to_read_processes(net: Any) -> None:
    sources, receiver = net(2, ODD, "arena")
    receiver.ask("forbid_reading")
    stats = receiver.ask("pull", 1, addresses(sources), 20, "probe")
    assert (stats["method"], stats["notes"]) == ("arena", "")
    check(stats, sources, receiver, ODD)


def test_state_outside_of_arenas_is_staged_where_reading_is_forbidden(net: Any) -> None:
    sources, receiver = net(1, ODD, "mixed")
    receiver.ask("forbid_reading")
    stats = receiver.ask("pull", 1, addresses(sources), 20, "probe")
    assert stats["method"] == "arena+staging"
    assert "forbids process_vm_readv" in stats["notes"]
    check(stats, sources, receiver, ODD)


def test_arena_that_is_another_file_by_now_is_not_read(net: Any) -> None:
    sources, receiver = net(1, EVEN, "arena")
    fake = addresses(sources)
    fd, inode, address, size = fake[0][3][0]
    fake[0][3] = [[fd, inode + 1, address, size]]
    kind, message = receiver.fails("pull", 1, fake, 20, "arena")
    assert kind == "PeerDead" or "another file by now" in message
    stats = receiver.ask("pull", 1, fake, 20, "probe")
    assert stats["method"] == "process_vm_readv"
    assert "another file by now" in stats["notes"]
    fake[0][3] = [[segment_fd(sources[0]), inode, address, size]]
    assert "another file by now" in receiver.fails("pull", 1, fake, 20, "arena")[1]


def segment_fd(source: Process) -> int:
    """A descriptor of the source that is not its arena."""
    folder = f"/proc/{source.process.pid}/fd"
    names = {int(fd): os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder)}
    return next(fd for fd, name in names.items() if "hpcore-segment" in name)


def test_plan_decides_who_gives_how_much(net: Any) -> None:
    sources, receiver = net(3, EVEN)
    plan = [(2, 0, 40 * MIB), (0, 40 * MIB, 60 * MIB), (1, 60 * MIB, 64 * MIB)]
    # One thread follows the plan to the byte; a second one would help whoever has most left.
    stats = receiver.ask("pull", 1, addresses(sources), 20, "probe", plan=plan, threads=1)
    check(stats, sources, receiver, EVEN)
    assert sum(stats["bytes_by_source"]) == 64 * MIB
    if stats["moved"] == 0:  # a source that seemed to lag on a busy machine is helped
        assert stats["bytes_by_source"] == [20 * MIB, 4 * MIB, 40 * MIB]


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ([(0, 0, 63 * MIB)], "ends at byte"),
        ([(0, 0, MIB), (0, 2 * MIB, 64 * MIB)], "does not go on at byte 1048576"),
        ([(7, 0, 64 * MIB)], "source 7 of 1"),
    ],
)
def test_plan_that_leaves_gaps_is_refused(net: Any, plan: Any, words: str) -> None:
    sources, receiver = net(1, EVEN)
    kind, message = receiver.fails("pull", 1, addresses(sources), 20, "probe", plan=plan)
    assert kind == "InvalidArgument"
    assert words in message


@pytest.mark.parametrize("where", ["heap", "arena"])
def test_source_that_is_gone_in_the_middle_is_replaced(net: Any, where: str) -> None:
    sources, receiver = net(3, EVEN, where)
    paced = addresses(sources, {1: (5 * MIB, 0)})
    # Two threads share the work as they are scheduled; one takes turns.
    stats = receiver.ask("pull", 1, paced, 20, "probe", threads=1)
    check(stats, sources, receiver, EVEN)
    assert stats["bytes_by_source"][1] <= 5 * MIB
    assert min(stats["bytes_by_source"][0], stats["bytes_by_source"][2]) > 20 * MIB
    assert "slot 1" in stats["notes"]
    assert "gone" in stats["notes"]


def test_source_that_lags_in_the_middle_gives_little(net: Any) -> None:
    sources, receiver = net(3, EVEN)
    whole, rate = sum(EVEN), 100e6
    paces = {0: (0, rate), 1: (4 * MIB, rate / 10), 2: (0, rate)}
    stats = receiver.ask("pull", 1, addresses(sources, paces), 60, "probe", threads=3)
    check(stats, sources, receiver, EVEN)
    # A third was planned for it. At a tenth of the others' rate it gives a twentieth of what they
    # give together, plus what it gave before.
    assert stats["bytes_by_source"][1] < whole / 5
    assert stats["moved"] > 8


def test_source_killed_and_another_slowed_cost_little(net: Any) -> None:
    sources, receiver = net(3, EVEN, publish=False)
    rate, whole = 100e6, sum(EVEN)
    paces = {0: (0, rate), 1: (0, rate), 2: (8 * MIB, rate / 10)}
    for source in sources[:1] + sources[2:]:
        source.ask("publish", 1, source.slot, 3, [RECEIVER])
    # Source 1 is killed before it published a single digest.
    stats = receiver.ask(
        "pull",
        *(1, addresses(sources, paces), 60, "probe"),
        threads=3,
        kill=[sources[1].process.pid, 12 * MIB],
    )
    check(stats, sources, receiver, EVEN)
    dead, slow = stats["bytes_by_source"][1:]
    assert dead < whole / 3
    assert slow < whole / 3
    assert stats["reread"] > 0  # its digests never came
    assert stats["refetched"] == 0
    assert "slot 1" in stats["notes"]


def test_digests_that_never_come_are_replaced_by_a_second_reading(net: Any) -> None:
    sources, receiver = net(3, ODD, publish=False)
    for source in sources[:2]:
        source.ask("publish", 1, source.slot, 3, [RECEIVER])
    stats = receiver.ask("pull", 1, addresses(sources), 20, "probe")
    check(stats, sources, receiver, ODD)
    assert 0 < stats["reread"] <= stats["chunks"]


def test_second_reading_finds_the_replica_that_differs(net: Any) -> None:
    sources, receiver = net(3, EVEN, publish=False)
    sources[0].ask("flip", 50 * MIB)  # of what source 2 digests, and source 0 is read for
    for source in sources[:2]:
        source.ask("publish", 1, source.slot, 3, [RECEIVER])
    stats = receiver.ask("pull", 1, addresses(sources), 20, "probe", threads=1)
    assert stats["refetched"] == 1
    assert receiver.ask("digest") == sources[1].ask("digest")


def test_second_reading_of_two_that_differ_is_corrupt(net: Any) -> None:
    sources, receiver = net(2, EVEN, publish=False)
    sources[0].ask("flip", 50 * MIB)
    sources[0].ask("publish", 1, 0, 2, [RECEIVER])
    kind, message = receiver.fails("pull", 1, addresses(sources), 20, "probe")
    assert kind == "CorruptData"
    assert "chunk 50 " in message


@pytest.mark.parametrize("where", ["heap", "arena"])
def test_pull_needs_little_memory_beyond_the_state(net: Any, where: str) -> None:
    sizes = [48 * MIB] * 4
    sources, receiver = net(2, sizes, where)
    receiver.ask("map_arenas", addresses(sources))
    receiver.ask("footprint")  # resets the peak
    before = receiver.ask("footprint")
    receiver.ask("pull", 1, addresses(sources, {1: (20 * MIB, 0)}), 60, "probe")
    after = receiver.ask("footprint")
    assert after["peak_kib"] - before["rss_kib"] < 64 << 10
    assert after["descriptors"] == before["descriptors"]
    assert after["threads"] == before["threads"]


def test_arena_larger_than_memory_is_refused() -> None:
    script = """
import resource
# Whatever the code under test does, no file of this process grows beyond 64 MiB.
resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, 64 << 20))
from hpcore import _core
try:
    _core.Arena(1 << 50)
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("OutOfSpace an arena of 1073741824 MiB needs more memory")
