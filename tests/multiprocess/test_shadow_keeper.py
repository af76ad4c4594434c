"""Shadow records on a neighbour: pulled over the fabric, whole at any time, there when their own
node is gone. Two memories stand for two nodes; each has a keeper process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from running import until
from torch import Tensor

from hpcore import _core, errors
from hpcore.agent.keeping import ShadowKeeper
from hpcore.agent.shadow_memory import ShadowMemory, make_memory
from hpcore.membership.roster import Member, Node, Roster
from hpcore.shadow_copies import ShadowCopies, copy_out

pytestmark = pytest.mark.torch

RANKS = 2  # a node


class Host:
    """A node's memory and its keeper."""

    def __init__(self) -> None:
        self.descriptor = make_memory()
        self.memory = ShadowMemory(os.dup(self.descriptor))
        self.memory.set_era(0)
        env = {**os.environ, "HPCORE_FABRIC": "tcp@lo"}
        self.keeper = ShadowKeeper(self.descriptor, env)
        self.told: list[dict[str, Any]] = []
        self.opened: list[ShadowCopies] = []

    def copies(self, rank: int) -> ShadowCopies:
        self.opened.append(ShadowCopies(os.getpid(), self.descriptor, rank))
        return self.opened[-1]

    def events(self, name: str) -> list[dict[str, Any]]:
        self.told += self.keeper.events()
        return [event for event in self.told if event["event"] == name]

    def kill(self) -> None:
        """The node is gone, its memory with it."""
        os.kill(self.keeper.pid, signal.SIGKILL)
        self.close()

    def close(self) -> None:
        self.keeper.close()
        for copies in self.opened:
            copies.close()
        self.opened.clear()
        self.memory.close()
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1


def roster(*hosts: Host) -> Roster:
    nodes = tuple(
        Node(n, f"host{n}", keeper=h.keeper.wait_address(20)) for n, h in enumerate(hosts)
    )
    members = tuple(
        Member(rank, rank, rank + 1, 100 + rank, rank // RANKS)
        for rank in range(len(hosts) * RANKS)
    )
    return Roster(1, "job", 0, members, nodes=nodes)


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    try:
        _core.Fabric(provider="tcp", domains=["lo"])
    except (errors.NotFound, errors.Unsupported) as error:
        pytest.skip(str(error))
    made = [Host(), Host()]
    try:
        where = roster(*made)
        assert all(node.keeper for node in where.nodes), [host.keeper.why for host in made]
        for number, host in enumerate(made):
            host.keeper.follow(where, number)
        yield made
    finally:
        for host in made:
            host.close()


def state(rank: int, step: int, size: int = 200_003) -> list[Tensor]:
    fill = torch.Generator().manual_seed(1000 * rank + step)
    return [torch.randn(size, generator=fill), torch.arange(step + 3), torch.tensor([step])]


def take(copies: ShadowCopies, step: int) -> None:
    copies.take(step, {"step": step}, state(copies.rank, step))
    copies.settle()


def confirmed(copies: ShadowCopies, step: int) -> None:
    until(lambda: copies.memory.confirmed(copies.rank) >= step, f"step {step} is confirmed")


def same(host: Host, rank: int, step: int) -> bool:
    """Whether the host's memory holds that record, to the bit."""
    expected = state(rank, step)
    found = [torch.zeros_like(tensor) for tensor in expected]
    meta, memory, at = host.copies(99).load(rank, step)
    copy_out(memory, at, found)
    assert meta == {"step": step}
    return all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_state_of_a_lost_host_is_on_its_neighbour(hosts: list[Host]) -> None:
    mine = [hosts[0].copies(rank) for rank in (0, 1)]
    for step in range(5):
        for copies in mine:
            take(copies, step)
        for copies in mine:
            confirmed(copies, step)
    theirs = hosts[1].copies(2)  # both ways at once
    take(theirs, 4)
    confirmed(theirs, 4)
    assert same(hosts[0], 2, 4)
    kept = hosts[1].events("shadow_kept")
    assert {event["rank"] for event in kept} == {0, 1}
    assert all(event["gb_per_s"] > 0 for event in kept)
    hosts[0].kill()
    for rank in (0, 1):
        assert hosts[1].memory.verified(rank) == [3, 4]
        assert same(hosts[1], rank, 3) and same(hosts[1], rank, 4)


def test_one_whole_step_is_there_while_the_next_is_pulled(hosts: list[Host]) -> None:
    """The neighbour's keeper dies at some byte of a pull; the step before is whole."""
    copies = hosts[0].copies(0)
    take(copies, 1)
    confirmed(copies, 1)
    take(copies, 2)
    confirmed(copies, 2)
    copies.take(3, {"step": 3}, state(0, 3, 30_000_000))
    copies.settle()
    # A pull has begun once the older record does not count any more.
    held = hosts[1].memory
    until(lambda: all(record.step != 1 for record in held.records(0)), "a pull begins")
    os.kill(hosts[1].keeper.pid, signal.SIGKILL)
    assert held.verified(0)[0] == 2
    until(lambda: bool(hosts[1].events("shadow_keeper_lost")), "the loss is told")
    assert hosts[1].keeper.address == ""


def test_source_that_dies_in_the_middle_of_a_pull_leaves_the_step_before(
    hosts: list[Host],
) -> None:
    copies = hosts[0].copies(0)
    take(copies, 1)
    confirmed(copies, 1)
    copies.take(2, {"step": 2}, state(0, 2, 30_000_000))
    copies.settle()
    hosts[0].kill()
    until(lambda: bool(hosts[1].events("shadow_neighbour")), "the trouble is told")
    assert hosts[1].memory.verified(0)[-1] in (1, 2)
    assert hosts[1].events("shadow_neighbour")[0]["trouble"]


def test_neighbour_that_stops_is_not_confirmed_and_catches_up(hosts: list[Host]) -> None:
    copies = hosts[0].copies(0)
    take(copies, 1)
    confirmed(copies, 1)
    os.kill(hosts[1].keeper.pid, signal.SIGSTOP)
    try:
        for step in (2, 3, 4):
            take(copies, step)
        assert copies.memory.confirmed(0) == 1
    finally:
        os.kill(hosts[1].keeper.pid, signal.SIGCONT)
    confirmed(copies, 4)
    assert same(hosts[1], 0, 4)


def test_what_all_ranks_gave_up_is_not_taken_over(hosts: list[Host]) -> None:
    copies = hosts[0].copies(0)
    for step in (1, 2):
        take(copies, step)
        confirmed(copies, step)
    for host in hosts:  # all went back to step 1; host 0's rank has not dropped its record yet
        host.memory.set_era(-1)
    hosts[1].memory.forget_after(0, 1)
    hosts[1].memory.set_era(1)
    take(hosts[1].copies(2), 1)  # something to wait for: the keeper has looked since
    hosts[0].memory.forget_after(0, 1)
    hosts[0].memory.set_era(1)
    until(lambda: hosts[0].memory.newest(2) == 1, "the keepers go on")
    assert hosts[1].memory.verified(0) == [1]
    take(copies, 2)
    until(lambda: hosts[1].memory.newest(0) == 2, "the new step 2 is kept")


def test_state_that_grows_is_kept(hosts: list[Host]) -> None:
    copies = hosts[0].copies(0)
    for step, size in enumerate((10, 3_000_000, 100, 5_000_000)):
        copies.take(step, {"step": step}, state(0, step, size))
        copies.settle()
        confirmed(copies, step)
    assert hosts[1].memory.verified(0) == [2, 3]


def test_keeper_without_a_fabric_says_why() -> None:
    descriptor = make_memory()
    env = {**os.environ, "HPCORE_LIBFABRIC": "/nowhere/libfabric.so"}
    keeper = ShadowKeeper(descriptor, env)
    try:
        assert keeper.wait_address(20) == ""
        assert "no libfabric found" in keeper.why
    finally:
        keeper.close()
        os.close(descriptor)
