"""Healing between real processes: what arrives is what the sources hold, or an error says where."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from state_process import Process

from hpcore import _core

MIB = 1 << 20
# Big ones, odd ones, empty ones, and thousands of tiny ones within one chunk.
SIZES = [3 * MIB + 5, 0, 1, 7, *([4] * 3000), 2 * MIB, 0, 12345]
RECEIVER = 3


class Node:
    """A segment with sources in slots 0 .. n-1 and one receiver."""

    def __init__(self, segment: Any, start: Callable[..., Process], sources: int) -> None:
        self.segment = segment
        self.sources = [start(slot, 11) for slot in range(sources)]
        self.receiver = start(RECEIVER, None)
        segment.set_ranked([*range(sources), RECEIVER])

    def publish(self, generation: int = 1, but: int | None = None) -> None:
        for source in self.sources:
            if source.slot != but:
                source.ask("publish", generation, source.slot, len(self.sources), [RECEIVER])

    def pull_arguments(self, timeout_s: float = 20, method: str = "probe") -> list[Any]:
        return [1, [source.address for source in self.sources], timeout_s, method]


@pytest.fixture
def segment() -> Iterator[Any]:
    made = _core.NodeSegment.create(4, 1 << 16, 1 << 20)
    yield made
    made.close()


@pytest.fixture
def start(segment: Any) -> Iterator[Callable[..., Process]]:
    processes: list[Process] = []

    def run(slot: int, seed: int | None, sizes: list[int] = SIZES) -> Process:
        processes.append(Process(segment, slot, seed, sizes))
        return processes[-1]

    yield run
    for process in processes:
        process.end()


@pytest.fixture
def node(segment: Any, start: Callable[..., Process]) -> Callable[[int], Node]:
    return lambda sources: Node(segment, start, sources)


@pytest.mark.parametrize("method", ["process_vm_readv", "staging"])
@pytest.mark.parametrize("sources", [1, 2, 3])
def test_state_arrives_whole_from_any_number_of_sources(
    node: Callable[[int], Node], sources: int, method: str
) -> None:
    net = node(sources)
    net.publish()
    stats = net.receiver.ask("pull", *net.pull_arguments(method=method))
    assert stats["bytes"] == sum(SIZES)
    assert (stats["chunks"], stats["refetched"], stats["method"]) == (6, 0, method)
    assert sum(stats["bytes_by_source"]) == sum(SIZES)
    assert all(stats["bytes_by_source"])
    assert net.receiver.ask("digest") == net.sources[0].ask("digest")
    assert net.receiver.ask("guards_untouched")


def test_state_is_staged_where_the_kernel_forbids_reading(node: Callable[[int], Node]) -> None:
    net = node(2)
    net.receiver.ask("forbid_reading")
    net.publish()
    stats = net.receiver.ask("pull", *net.pull_arguments())
    assert stats["method"] == "staging"
    assert net.receiver.ask("digest") == net.sources[0].ask("digest")
    refused = net.receiver.fails("pull", *net.pull_arguments(method="process_vm_readv"))
    assert refused[0] == "Unsupported"
    assert "forbids" in refused[1]


def test_state_is_pulled_ahead_of_the_digests(node: Callable[[int], Node]) -> None:
    net = node(2)
    net.receiver.send("pull", *net.pull_arguments())
    net.publish()
    assert net.receiver.answer()["ok"]["bytes"] == sum(SIZES)
    assert net.receiver.ask("digest") == net.sources[0].ask("digest")


@pytest.mark.parametrize("method", ["process_vm_readv", "staging"])
def test_state_that_differs_is_read_from_another_source(
    node: Callable[[int], Node], method: str
) -> None:
    net = node(3)
    # Chunk 0 is digested by source 0 and read from source 1.
    net.sources[1].ask("flip", 10)
    net.publish()
    stats = net.receiver.ask("pull", *net.pull_arguments(method=method))
    assert stats["refetched"] == 1
    assert net.receiver.ask("digest") == net.sources[0].ask("digest")


def test_state_that_no_source_has_right_is_named(node: Callable[[int], Node]) -> None:
    net = node(2)
    net.publish()
    for source in net.sources:
        source.ask("flip", 4 * MIB)
    kind, message = net.receiver.fails("pull", *net.pull_arguments())
    assert kind == "CorruptData"
    region = next(i for i in range(len(SIZES)) if sum(SIZES[: i + 1]) > 4 * MIB)
    assert "chunk 4 " in message
    assert f"region {region} " in message
    assert "slots 0, 1, 0" in message or "slots 1, 0, 1" in message


def test_state_survives_a_source_that_dies_after_publishing(node: Callable[[int], Node]) -> None:
    net = node(2)
    net.publish()
    digest = net.sources[0].ask("digest")
    net.sources[0].kill()
    stats = net.receiver.ask("pull", *net.pull_arguments())
    assert stats["bytes_by_source"] == [0, sum(SIZES)]
    assert net.receiver.ask("digest") == digest


@pytest.mark.parametrize("method", ["process_vm_readv", "staging"])
def test_state_survives_a_source_that_stops_after_publishing(
    node: Callable[[int], Node], method: str
) -> None:
    net = node(2)
    net.publish()
    digest = net.sources[0].ask("digest")
    os.kill(net.sources[1].process.pid, signal.SIGSTOP)
    net.receiver.ask("pull", *net.pull_arguments(method=method))
    assert net.receiver.ask("digest") == digest


def test_pull_ends_when_the_generation_does(node: Callable[[int], Node]) -> None:
    net = node(2)
    net.receiver.send("pull", *net.pull_arguments(timeout_s=60))
    net.segment.close_generation(1)
    answer = net.receiver.answer()
    assert answer["error"] == "RosterChanged"
    assert "generation 1" in answer["message"]


def test_pull_ends_when_all_sources_are_dead(node: Callable[[int], Node]) -> None:
    net = node(1)
    net.sources[0].kill()
    kind, message = net.receiver.fails("pull", *net.pull_arguments())
    assert kind == "PeerDead"
    assert "slot 0" in message
    net.segment.close_generation(1)
    assert net.receiver.fails("pull", *net.pull_arguments())[0] == "RosterChanged"


def test_pull_names_the_slots_whose_digests_are_missing(node: Callable[[int], Node]) -> None:
    net = node(3)
    kind, message = net.receiver.fails("pull", *net.pull_arguments(timeout_s=0.5))
    assert kind == "DeadlineExceeded"
    assert "6 chunks lack the digests of slots [0, 1, 2]" in message


def test_pull_ignores_digests_of_an_older_generation(node: Callable[[int], Node]) -> None:
    net = node(1)
    net.publish(generation=1)
    arguments = net.pull_arguments(timeout_s=0.2)
    kind, _ = net.receiver.fails("pull", 2, *arguments[1:])
    assert kind == "DeadlineExceeded"
    net.publish(generation=2)
    net.receiver.ask("pull", 2, *net.pull_arguments()[1:])


def test_pull_refuses_another_layout(start: Callable[..., Process]) -> None:
    source = start(0, 1, [100, 200])
    receiver = start(RECEIVER, None, [100, 201])
    kind, message = receiver.fails("pull", 1, [source.address], 5, "probe")
    assert kind == "MismatchError"
    assert "region 1" in message
    assert "201" in message
    # The addresses agree, what the source publishes does not.
    source.ask("publish", 1, 0, 1, [RECEIVER])
    fake = [0, source.process.pid, [source.regions[0], [source.regions[1][0], 201]]]
    kind, message = receiver.fails("pull", 1, [fake], 5, "probe")
    assert kind == "MismatchError"
    assert "300 bytes" in message


def test_pull_is_interrupted_by_a_signal(node: Callable[[int], Node]) -> None:
    net = node(1)
    net.receiver.send("pull", *net.pull_arguments(timeout_s=60))
    net.receiver.process.send_signal(signal.SIGINT)
    assert net.receiver.process.wait(timeout=20) != 0


def test_publish_ends_when_the_generation_does(node: Callable[[int], Node]) -> None:
    net = node(1)
    net.sources[0].ask("open", 1, 0, 1, [RECEIVER])
    net.segment.close_generation(1)
    assert net.sources[0].fails("publish")[0] == "RosterChanged"


def test_publish_refuses_an_index_out_of_range(node: Callable[[int], Node]) -> None:
    net = node(1)
    assert net.sources[0].fails("publish", 1, 1, 1, [RECEIVER])[0] == "InvalidArgument"
    assert net.sources[0].fails("publish", 1, 0, 1, [99])[0] == "InvalidArgument"


def test_state_of_no_bytes_is_healed(start: Callable[..., Process]) -> None:
    source, receiver = start(0, 1, [0, 0]), start(RECEIVER, None, [0, 0])
    assert source.ask("publish", 1, 0, 1, [RECEIVER]) == 0
    assert receiver.ask("pull", 1, [source.address], 5, "probe")["chunks"] == 0


def test_state_over_4_gib_is_healed(start: Callable[..., Process]) -> None:
    sizes, times = [3 * MIB + 64], 1400
    source, receiver = start(0, 1, sizes), start(RECEIVER, None, sizes)
    source.regions = source.ask("repeat", times)
    receiver.ask("repeat", times)
    source.ask("publish", 1, 0, 1, [RECEIVER])
    stats = receiver.ask("pull", 1, [source.address], 120, "probe")
    assert stats["bytes"] == times * sizes[0] > 4 << 30
    assert receiver.ask("digest") == source.ask("digest")


def test_closed_staging_is_told_apart_from_a_wait(node: Callable[[int], Node]) -> None:
    net = node(1)
    net.publish()
    net.sources[0].ask("close_source")
    kind, message = net.receiver.fails("pull", *net.pull_arguments(method="staging"))
    assert kind == "PeerDead"
    assert "did not answer" in message


def test_heals_leave_nothing_behind(start: Callable[..., Process]) -> None:
    sizes = [48 * MIB, 48 * MIB]
    source, receiver = start(0, 5, sizes), start(RECEIVER, None, sizes)
    source.ask("publish", 1, 0, 1, [RECEIVER])
    receiver.ask("footprint")  # resets the peak
    before = receiver.ask("footprint")
    receiver.ask("pull", 1, [source.address], 60, "probe", 3)
    after = receiver.ask("footprint")
    assert after["peak_kib"] - before["rss_kib"] < 16 << 10
    assert (after["threads"], after["descriptors"]) == (before["threads"], before["descriptors"])
    threads = source.ask("footprint")["threads"]
    for generation in range(2, 6):
        source.ask("publish", generation, 0, 1, [RECEIVER])
    assert source.ask("footprint")["threads"] == threads
