"""Shadow records of one host on another, over a link between two network namespaces."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from links import Host, join, why_not
from memory_process import TRANSPORTS

from hpcore.agent.keeping import ShadowKeeper
from hpcore.agent.shadow_memory import make_memory
from hpcore.membership.roster import Member, Node, Roster
from hpcore.shadow_copies import ShadowCopies, copy_out

pytestmark = pytest.mark.torch

CLONE_NEWNET = 0x40000000
TCP = next(transport for transport in TRANSPORTS if transport.name == "tcp")


@contextmanager
def within(host: Host) -> Iterator[None]:
    """What this thread starts is on that host."""
    libc = ctypes.CDLL(None, use_errno=True)
    own, there = (os.open(f"/proc/{pid}/ns/net", os.O_RDONLY) for pid in ("self", host.pid))
    try:
        assert libc.setns(there, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        yield
    finally:
        assert libc.setns(own, CLONE_NEWNET) == 0
        os.close(own)
        os.close(there)


class Hosts:
    """Two hosts with a link, each with a memory and a keeper; rank r is on host r."""

    def __init__(self) -> None:
        self.hosts = [Host(), Host()]
        self.memories: list[int] = []
        self.keepers: list[ShadowKeeper] = []
        self.copies: list[ShadowCopies] = []
        join(*self.hosts, "hpshadow", 9)
        env = {**os.environ, "HPCORE_FABRIC": "tcp@hpshadow"}
        for rank, host in enumerate(self.hosts):
            self.memories.append(descriptor := make_memory())
            self.copies.append(ShadowCopies(os.getpid(), descriptor, rank))
            self.copies[rank].memory.set_era(0)
            with within(host):
                self.keepers.append(ShadowKeeper(descriptor, env))
        nodes = tuple(
            Node(n, f"host{n}", keeper=one.wait_address(20)) for n, one in enumerate(self.keepers)
        )
        assert all(node.keeper for node in nodes), [keeper.why for keeper in self.keepers]
        members = tuple(Member(rank, rank, rank + 1, 100, rank) for rank in range(2))
        for number, keeper in enumerate(self.keepers):
            keeper.follow(Roster(1, "job", 0, members, nodes=nodes), number)

    def take(self, step: int) -> list[torch.Tensor]:
        state = [torch.full((500_001,), float(step)), torch.arange(step)]
        self.copies[0].take(step, {"step": step}, state)
        self.copies[0].settle()
        return state

    def confirmed(self) -> int:
        return self.copies[0].memory.confirmed(0)

    def close(self) -> None:
        for keeper in self.keepers:
            keeper.close()
        for copies in self.copies:
            copies.close()
        for descriptor in self.memories:
            os.close(descriptor)
        for host in self.hosts:
            host.close()


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if why := why_not() or TCP.why_not():
        pytest.skip(why)
    made = Hosts()
    yield made
    made.close()


def test_state_of_a_host_that_is_gone_is_on_the_other(hosts: Hosts) -> None:
    for step in (1, 2, 3):
        state = hosts.take(step)
        until(lambda step=step: hosts.confirmed() == step, f"step {step}")  # type: ignore[misc]
    hosts.keepers[0].close()
    hosts.copies[0].memory.forget_after(0, -1)
    found = [torch.zeros_like(tensor) for tensor in state]
    meta, memory, at = hosts.copies[1].load(0, 3)
    copy_out(memory, at, found)
    assert meta == {"step": 3}
    assert all(torch.equal(one, other) for one, other in zip(found, state, strict=True))


def test_cut_link_is_not_confirmed_and_a_mended_one_is_caught_up_with(hosts: Hosts) -> None:
    hosts.take(1)
    until(lambda: hosts.confirmed() == 1, "step 1")
    hosts.hosts[0].run("ip", "link", "set", "hpshadow", "down")
    hosts.take(2)
    hosts.take(3)
    told: list[str] = []

    def noticed() -> bool:
        told.extend(event["event"] for event in hosts.keepers[1].events())
        return "shadow_neighbour" in told

    until(noticed, "the keeper tells that its neighbour does not answer")
    assert hosts.confirmed() == 1
    assert hosts.copies[1].verified(0) == [1]
    hosts.hosts[0].run("ip", "link", "set", "hpshadow", "up")
    until(lambda: hosts.confirmed() == 3, "step 3, once the link is back")
