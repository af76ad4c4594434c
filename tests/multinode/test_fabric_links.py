"""State pulled from host to host over provider tcp; hosts are network namespaces."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from links import Host, await_up, join, why_not
from memory_process import GENERATION, TRANSPORTS, Process

TCP = next(transport for transport in TRANSPORTS if transport.name == "tcp")
MIB = 1 << 20
SIZES = [9 * MIB + 5, 0, 1, *([4096] * 500), 3 * MIB, 77]
HUGE_SIZES, HUGE_TIMES = [3 * MIB + 64], 1400
LINK = "hplink0"


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    if why := why_not() or TCP.why_not():
        pytest.skip(why)
    made = [Host(), Host()]
    yield made
    for host in made:
        host.close()


@pytest.fixture
def start(hosts: list[Host]) -> Iterator[Callable[..., Process]]:
    peers: list[Process] = []

    def run(host: Host, sizes: list[int], seed: int, times: int = 1) -> Process:
        peers.append(Process(prefix=host.prefix))
        peers[-1].make(sizes, seed, times)
        return peers[-1]

    yield run
    for peer in peers:
        peer.end()


def options(*domains: str) -> dict[str, Any]:
    return {**TCP.options(), "domains": list(domains)}


def await_traffic(host: Host, interface: str, count: int) -> None:
    deadline = time.monotonic() + 30
    while host.received_bytes(interface) < count:
        assert time.monotonic() < deadline, "nothing comes over the link"
        time.sleep(0.002)


def test_state_arrives_from_another_host(hosts: list[Host], start: Callable[..., Process]) -> None:
    join(*hosts, LINK, 0)
    source, receiver = start(hosts[0], SIZES, 11), start(hosts[1], SIZES, 12)
    assert source.ask("digest") != receiver.ask("digest")
    address = source.ask("expose", GENERATION, options())
    stats = receiver.ask("pull", address, GENERATION, options())
    assert stats["method"].startswith("fabric/")
    assert LINK in stats["fabric"]
    assert receiver.ask("digest") == source.ask("digest")
    assert hosts[1].received_bytes(LINK) > sum(SIZES)


def test_state_comes_over_all_rails_that_are_named(
    hosts: list[Host], start: Callable[..., Process]
) -> None:
    links = [f"hplink{number}" for number in range(3)]
    for number, link in enumerate(links):
        join(*hosts, link, number)
    source, receiver = start(hosts[0], SIZES, 11), start(hosts[1], SIZES, 12)
    address = source.ask("expose", GENERATION, options(*links))
    # In another order: rails find each other by their networks.
    receiver.ask("pull", address, GENERATION, options(*reversed(links)))
    assert receiver.ask("digest") == source.ask("digest")
    assert all(host.received_bytes(link) > 1000 for host in hosts for link in links)
    assert min(hosts[1].received_bytes(link) for link in links) > sum(SIZES) // 6


def fails(receiver: Process) -> str:
    answer = receiver.answer()
    assert "error" in answer, answer
    return str(answer["error"])


def test_pull_ends_when_the_source_is_killed(
    hosts: list[Host], start: Callable[..., Process]
) -> None:
    join(*hosts, LINK, 0)
    source = start(hosts[0], HUGE_SIZES, 11, HUGE_TIMES)
    receiver = start(hosts[1], HUGE_SIZES, 12, HUGE_TIMES)
    address = source.ask("expose", GENERATION, options())
    receiver.send("pull", address, GENERATION, options())
    await_traffic(hosts[1], LINK, 16 * MIB)
    source.kill()
    assert fails(receiver) in ("PeerDead", "DeadlineExceeded")
    other = start(hosts[0], HUGE_SIZES, 11, HUGE_TIMES)
    again = other.ask("expose", GENERATION, options())
    receiver.ask("pull", again, GENERATION, options())
    assert receiver.ask("digest") == other.ask("digest")


def test_pull_ends_when_the_link_is_cut(hosts: list[Host], start: Callable[..., Process]) -> None:
    join(*hosts, LINK, 0)
    source = start(hosts[0], HUGE_SIZES, 11, HUGE_TIMES)
    receiver = start(hosts[1], HUGE_SIZES, 12, HUGE_TIMES)
    address = source.ask("expose", GENERATION, options())
    receiver.send("pull", address, GENERATION, options())
    await_traffic(hosts[1], LINK, 16 * MIB)
    hosts[0].run("ip", "link", "set", LINK, "down")
    assert fails(receiver) in ("PeerDead", "DeadlineExceeded")
    # With its only interface down, a host has no way out at all, once libfabric knows.
    receiver.send("pull", address, GENERATION, options())
    assert fails(receiver) in ("Unsupported", "DeadlineExceeded")
    hosts[0].run("ip", "link", "set", LINK, "up")
    await_up(LINK, *hosts)
    small = start(hosts[0], SIZES, 11), start(hosts[1], SIZES, 12)
    small[1].ask("pull", small[0].ask("expose", 4, options()), 4, options())
    assert small[0].ask("digest") == small[1].ask("digest")


def test_host_without_a_link_says_so(hosts: list[Host], start: Callable[..., Process]) -> None:
    source = start(hosts[0], SIZES, 11)
    for named in ([], ["hplink9"]):  # the loopback is no way to another host
        source.send("expose", GENERATION, options(*named))
        assert fails(source) == "Unsupported"
