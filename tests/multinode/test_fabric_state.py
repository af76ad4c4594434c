"""A newcomer's state from sources on other hosts: read over links, proved by their digests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from links import Host, join, why_not
from memory_process import TRANSPORTS, Process

TCP = next(transport for transport in TRANSPORTS if transport.name == "tcp")
OPTIONS = {**TCP.options(), "domains": []}
MIB = 1 << 20
SIZES = [9 * MIB + 5, 0, 1, *([4096] * 500), 3 * MIB, 77, 20 * MIB]
GENERATION = 5


class Net:
    """A receiver's host, and one host for each source, each with a link to the receiver."""

    def __init__(self, sources: int) -> None:
        self.hosts = [Host() for _ in range(sources + 1)]
        for number in range(sources):
            join(self.hosts[number], self.hosts[-1], f"hplink{number}", number)
        self.sources = [Process(prefix=host.prefix) for host in self.hosts[:-1]]
        self.receiver = Process(prefix=self.hosts[-1].prefix)
        self.addresses: list[str] = []

    def make(self, sizes: list[int] = SIZES, times: int = 1) -> None:
        for source in self.sources:
            source.make(sizes, 11, times)
        self.receiver.make(sizes, 12, times)

    def open(self, generation: int = GENERATION) -> None:
        count = len(self.sources)
        self.addresses = [
            source.ask("open_source", generation, index, count, OPTIONS)
            for index, source in enumerate(self.sources)
        ]

    def publish(self) -> None:
        for source in self.sources:
            source.ask("publish")

    def pull(self, timeout_s: float = 60) -> dict[str, Any]:
        self.send_pull(timeout_s)
        answer = self.receiver.answer()
        assert "ok" in answer, answer
        stats: dict[str, Any] = answer["ok"]
        return stats

    def send_pull(self, timeout_s: float = 60) -> None:
        # Each source is reached over the rail that leads into its network.
        links = [f"hplink{number}" for number in range(len(self.sources))]
        options = {**OPTIONS, "domains": links}
        self.receiver.send("pull_state", GENERATION, self.addresses, options, timeout_s)

    def same(self) -> bool:
        return bool(self.receiver.ask("digest") == self.sources[-1].ask("digest"))

    def close(self) -> None:
        for process in (*self.sources, self.receiver):
            process.end()
        for host in self.hosts:
            host.close()


@pytest.fixture
def net() -> Iterator[Callable[[int], Net]]:
    if why := why_not() or TCP.why_not():
        pytest.skip(why)
    made: list[Net] = []

    def make(sources: int) -> Net:
        made.append(Net(sources))
        made[-1].make()
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("sources", [1, 3])
def test_state_arrives_from_other_hosts(net: Callable[[int], Net], sources: int) -> None:
    hosts = net(sources)
    hosts.open()
    hosts.publish()
    stats = hosts.pull()
    assert stats["bytes"] == sum(SIZES)
    assert stats["refetched"] == 0
    assert stats["method"].startswith("fabric/")
    assert all(stats["bytes_by_source"])
    assert hosts.same()
    # The next generation, over what is open and registered already.
    hosts.sources[0].ask("flip", 100)
    for source in hosts.sources[1:]:
        source.ask("flip", 100)
    hosts.open(GENERATION + 1)
    hosts.publish()
    hosts.receiver.ask("pull_state", GENERATION + 1, hosts.addresses, OPTIONS, 60)
    assert hosts.same()


def test_state_is_pulled_ahead_of_the_digests(net: Callable[[int], Net]) -> None:
    hosts = net(2)
    hosts.open()
    hosts.send_pull()
    hosts.publish()
    assert hosts.receiver.answer()["ok"]["bytes"] == sum(SIZES)
    assert hosts.same()


def test_chunk_that_differs_is_read_from_another_host(net: Callable[[int], Net]) -> None:
    hosts = net(3)
    hosts.open()
    hosts.publish()
    hosts.sources[0].ask("flip", 12 * MIB)  # after its digests were made
    hosts.sources[1].ask("flip", 10)
    hosts.sources[1].ask("flip", 30 * MIB)
    assert hosts.pull()["refetched"] >= 1
    assert hosts.same()


def test_state_survives_a_host_that_dies_in_mid_transfer(net: Callable[[int], Net]) -> None:
    hosts = net(3)
    sizes, times = [4 * MIB + 64], 300
    hosts.make(sizes, times)
    hosts.open()
    hosts.publish()
    hosts.send_pull()
    receiver = hosts.hosts[-1]
    while receiver.received_bytes("hplink1") < 8 * MIB:
        pass
    hosts.sources[1].kill()
    answer = hosts.receiver.answer()
    assert answer["ok"]["bytes"] == times * sizes[0]
    assert hosts.same()


def test_source_of_another_generation_or_layout_is_refused(net: Callable[[int], Net]) -> None:
    hosts = net(1)
    hosts.open(GENERATION - 1)
    hosts.publish()
    hosts.send_pull()
    answer = hosts.receiver.answer()
    assert "generation 4" in answer["message"], answer
    hosts.sources[0].make([5, 6], 1)
    hosts.open()
    hosts.send_pull()
    answer = hosts.receiver.answer()
    assert answer["error"] == "MismatchError"
    assert "regions" in answer["message"]


def test_pull_ends_when_the_only_host_is_dead(net: Callable[[int], Net]) -> None:
    hosts = net(1)
    hosts.open()
    hosts.sources[0].kill()
    hosts.send_pull()
    assert hosts.receiver.answer()["error"] in ("PeerDead", "DeadlineExceeded")
