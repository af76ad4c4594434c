"""The commit words between real processes: whoever looks, at any moment, sees the same steps."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest
from roster_family import FOREVER_S, Family, attached, family

from hpcore import _core
from hpcore.errors import DeadlineExceeded

__all__ = ["family"]


def race_to_commit(worker: _core.Worker, slots: list[int], seed: int) -> None:
    rng = random.Random(seed)
    while worker.roster() is None:
        worker.wait_roster(0, FOREVER_S)
    step = 0
    while True:
        if rng.random() < 0.2:
            time.sleep(rng.random() * 1e-4)
        if not worker.ready(1, step):
            break
        if worker.wait_commit(1, step, slots, FOREVER_S) != "committed":
            break
        step += 1
    worker.post(1, step, 0, "")
    signal.pause()


@pytest.mark.parametrize("seed", range(8))
def test_closing_gives_all_observers_one_step(family: Family, seed: int) -> None:
    slots = [0, 1, 2]
    for slot in slots:
        family.start(slot, lambda worker, slot=slot: race_to_commit(worker, slots, seed * 9 + slot))
    attached(family, range(3))
    family.segment.open_commit(slots, 1, 0)
    family.segment.set_ranked(slots)
    family.segment.publish(1, b"go")
    deadline = time.monotonic() + FOREVER_S
    while family.segment.slot_info(0).commit_steps < 50 * (seed + 1):
        assert time.monotonic() < deadline
        os.sched_yield()
    committed = min(family.segment.close_generation(1))
    assert family.steps_of_mails(slots) == dict.fromkeys(slots, committed)


def test_wait_commit_is_cut_short_by_its_deadline(family: Family) -> None:
    def wait_in_vain(worker: _core.Worker) -> None:
        worker.ready(1, 0)
        worker.post(1, 0, 0, worker.wait_commit(1, 0, [0, 1], 0.05))
        try:  # the box is full until the agent took the mail, and this agent is told not to look
            worker.post(1, 0, 0, "")
        except DeadlineExceeded:
            pass
        signal.pause()

    family.start(0, wait_in_vain)
    attached(family, range(1))
    family.segment.open_commit([0, 1], 1, 0)
    assert family.next("mail", 0).text == "timeout"


def test_late_observer_learns_what_was_decided(family: Family) -> None:
    """Ready, then away while its generation ends and two more begin: the answer is still exact."""

    def come_late(worker: _core.Worker) -> None:
        worker.wait_roster(0, FOREVER_S)
        assert worker.ready(1, 0) and worker.ready(1, 1)
        worker.wait_roster(2, FOREVER_S)
        told = [worker.wait_commit(1, step, [0, 1], FOREVER_S) for step in (0, 1)]
        worker.post(1, 0, 0, " ".join(told))
        signal.pause()

    def leave_early(worker: _core.Worker) -> None:
        worker.wait_roster(0, FOREVER_S)
        assert worker.ready(1, 0)

    family.start(0, come_late)
    family.start(1, leave_early)
    attached(family, range(2))
    family.segment.open_commit([0, 1], 1, 0)
    family.segment.publish(1, b"one")
    family.next("death", 1)
    os.waitpid(family.pids.pop(1), 0)
    deadline = time.monotonic() + FOREVER_S
    while family.segment.slot_info(0).commit_steps < 2:
        assert time.monotonic() < deadline
        os.sched_yield()
    family.segment.close_generation(1)
    assert family.segment.committed_steps(1) == 1
    family.segment.prepare_slot(1, 99)  # the word of slot 1 is gone
    family.segment.open_commit([0], 2, 1)
    family.segment.set_ranked([0])
    family.segment.publish(2, b"two")
    family.segment.close_generation(2)
    family.segment.open_commit([0], 3, 9)
    family.segment.publish(3, b"three")
    assert family.next("mail", 0).text == "committed discarded"


@pytest.mark.parametrize("seed", range(4))
def test_committed_steps_never_differ_under_kills(family: Family, seed: int) -> None:
    """Members are killed at random points of a commit; each survivor's view of every step is C."""
    slots = [0, 1, 2]
    rng = random.Random(seed)
    committed = 0
    for generation in range(1, 7):
        for slot in slots:
            if slot not in family.pids:
                family.start(slot, lambda worker, base=seed: commit_for_ever(worker, slots, base))
        family.segment.open_commit(slots, generation, committed)
        family.segment.set_ranked(slots)
        family.segment.publish(generation, committed.to_bytes(8, "little"))
        victim = rng.choice(slots)
        goal = committed + rng.randrange(1, 60)
        deadline = time.monotonic() + FOREVER_S
        while family.segment.slot_info(victim).commit_steps < goal:
            assert time.monotonic() < deadline
            os.sched_yield()
        family.kill(victim)
        os.waitpid(family.pids.pop(victim), 0)
        answers: dict[int, int] = {}
        dead = False
        while not dead or len(answers) < 2:
            event = family.watch.next_event(FOREVER_S)
            assert event is not None
            dead |= event.kind == "death" and event.slot == victim
            if event.kind == "mail" and event.slot != victim and event.flags == generation:
                answers[event.slot] = event.step
        committed = min(family.segment.close_generation(generation))
        assert family.segment.committed_steps(generation) == committed
        assert set(answers.values()) == {committed}, f"seed {seed}, generation {generation}"


def commit_for_ever(worker: _core.Worker, slots: list[int], seed: int) -> None:
    """Commits until the generation ends, says how many steps it saw committed; then the next."""
    rng = random.Random(seed * 7 + worker.slot)
    generation = 0
    while True:
        notice = worker.wait_roster(generation, FOREVER_S)
        assert notice is not None
        generation, step = notice[0], int.from_bytes(notice[1], "little")
        while worker.ready(generation, step):
            if worker.wait_commit(generation, step, slots, FOREVER_S) != "committed":
                break
            step += 1
            if rng.random() < 0.1:
                time.sleep(0)
        worker.post(1, step, generation, "", FOREVER_S)
