"""Agreement of a step with other nodes: two segments play two nodes, the test their agents."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator

import pytest
from roster_family import FOREVER_S, Family, attached

from hpcore import _core


@pytest.fixture
def nodes() -> Iterator[list[Family]]:
    made = [Family(2), Family(2)]
    yield made
    for family in made:
        family.close()


def step_on(worker: _core.Worker, seed: int) -> None:
    """Says ready and waits, until a step is discarded; mails the first that was not committed."""
    rng = random.Random(seed)
    worker.wait_roster(0, FOREVER_S)
    step = 0
    while worker.ready(1, step):
        if worker.wait_commit(1, step, [0, 1], FOREVER_S) != "committed":
            break
        step += 1
        for _ in range(rng.randrange(3)):
            os.sched_yield()
    worker.post(1, step, 0, "")
    signal.pause()


def begin(nodes: list[Family]) -> None:
    for number, family in enumerate(nodes):
        for slot in (0, 1):
            family.start(slot, lambda worker, seed=2 * number + slot: step_on(worker, seed))
        attached(family, range(2))
        family.segment.open_commit([0, 1], 1, 0, peers=True)
        family.segment.set_ranked([0, 1])
        family.segment.publish(1, b"go")


def ready_here(family: Family) -> int:
    return min(family.segment.slot_info(slot).commit_steps for slot in (0, 1))


def carry(nodes: list[Family], sender: int) -> None:
    """One node's progress is told to the other."""
    nodes[1 - sender].segment.advance_peers(1, ready_here(nodes[sender]))


@pytest.mark.parametrize("seed", range(8))
def test_nodes_agree_whatever_was_carried(nodes: list[Family], seed: int) -> None:
    rng = random.Random(seed)
    begin(nodes)
    deadline = time.monotonic() + FOREVER_S
    while ready_here(nodes[0]) < 20 + seed:
        carry(nodes, rng.randrange(2))
        assert time.monotonic() < deadline
    order = [0, 1] if seed % 2 else [1, 0]
    frozen = {n: min(nodes[n].segment.close_generation(1)) for n in order}
    committed = min(frozen.values())
    assert max(frozen.values()) <= committed + 1
    for family in nodes:
        known = family.segment.committed_steps(1)
        assert known in (None, committed)
        family.segment.settle(1, committed)
        assert family.segment.committed_steps(1) == committed
    for family in nodes:
        assert family.steps_of_mails([0, 1]) == {0: committed, 1: committed}


@pytest.mark.parametrize("told", [True, False])
def test_node_that_alone_is_left_goes_by_its_own_word(nodes: list[Family], told: bool) -> None:
    """Both were ready, the other one heard of it, and died with what it knew."""
    begin(nodes)
    deadline = time.monotonic() + FOREVER_S
    while ready_here(nodes[0]) < 1 or ready_here(nodes[1]) < 1:
        assert time.monotonic() < deadline
    carry(nodes, 0)
    if told:
        carry(nodes, 1)
        while ready_here(nodes[0]) < 2:
            assert time.monotonic() < deadline
    left = nodes[0].segment
    committed = min(left.close_generation(1))
    assert committed == (2 if told else 1)
    assert left.committed_steps(1) is None  # its own word is ahead of what it has heard
    left.settle(1, committed)
    assert nodes[0].steps_of_mails([0, 1]) == {0: committed, 1: committed}


def test_progress_of_another_generation_counts_for_nothing(nodes: list[Family]) -> None:
    segment = nodes[0].segment
    segment.open_commit([0, 1], 2, 5, peers=True)
    assert not segment.advance_peers(1, 9)
    assert not segment.advance_peers(3, 9)
    assert segment.advance_peers(2, 6)
    assert segment.advance_peers(2, 5)  # late, and known already
    segment.close_generation(2)
    assert not segment.advance_peers(2, 7)
    segment.settle(2, 5)
    segment.settle(2, 6)  # the first to say it counts
    assert segment.committed_steps(2) == 5
