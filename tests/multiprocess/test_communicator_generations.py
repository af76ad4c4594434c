"""The world communicator over generations whose members are killed in the middle of operations.

After each kill the same slots, one of them with a new process, serve the next generation; every
result that an operation returns must be exact, whatever a dying process still wrote.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
import traceback

import numpy as np
import pytest

from hpcore import _core, errors

LIMIT_S = 60.0
RANKS = 3
SIZES = (1, 700, 60_000, 500_000)  # of int64: one step, and many


def operand(generation: int, rank: int, turn: int) -> np.ndarray:
    size = SIZES[turn % len(SIZES)]
    return np.arange(size, dtype=np.int64) * (rank + 1) + generation * 1_000_003 + turn


def run_generation(worker: _core.Worker, generation: int, slots: list[int]) -> None:
    """Operations that check their results, until the generation is revoked."""
    rank = slots.index(worker.slot)
    communicator = _core.Communicator.world(worker, generation, rank, slots)
    for turn in range(1_000_000):
        mine = operand(generation, rank, turn)
        communicator.all_reduce([(mine.ctypes.data, mine.size)], "int64", "sum", LIMIT_S)
        expected = sum(operand(generation, other, turn) for other in range(len(slots)))
        assert np.array_equal(mine, expected), (generation, turn)
        said = communicator.all_gather_bytes(f"{generation}/{rank}/{turn}".encode() * turn, LIMIT_S)
        assert said == [f"{generation}/{r}/{turn}".encode() * turn for r in range(len(slots))]
        worker.progress(generation * 1000 + min(turn, 999), 2)


def worker_main(fd: int, slot: int, incarnation: int) -> int:
    worker = _core.Worker.attach(_core.NodeSegment.attach(fd), slot, incarnation)
    generation = 0
    while True:
        notice = worker.wait_roster(generation, LIMIT_S)
        if notice is None:
            return 4
        generation, roster = notice
        slots: list[int] = json.loads(roster)
        if not slots:
            return 0
        if slot not in slots:
            continue
        try:
            run_generation(worker, generation, slots)
        except errors.RosterChanged:
            pass


class Agent:
    """Starts, kills and replaces workers as hpcore's agent does, without its policy."""

    def __init__(self, slots: int, staging_bytes: int) -> None:
        self.segment = _core.NodeSegment.create(slots, staging_bytes, 1 << 16)
        self.watch = _core.AgentWatch(self.segment)
        self.incarnation = 0
        self.generation = 0
        self.pids: dict[int, int] = {}

    def start(self, slot: int) -> None:
        self.incarnation += 1
        self.segment.prepare_slot(slot, self.incarnation)
        self.watch.watch(slot, self.incarnation)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = worker_main(self.segment.fd, slot, self.incarnation)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        self.pids[slot] = pid

    def publish(self, slots: list[int]) -> None:
        self.generation += 1
        self.segment.set_ranked(slots)
        self.segment.publish(self.generation, json.dumps(slots).encode())

    def wait_turns(self, slots: list[int], turns: int) -> None:
        """Until every slot has finished that many turns of this generation."""
        goal = self.generation * 1000 + turns
        deadline = time.monotonic() + LIMIT_S
        while any(self.segment.slot_info(slot).step < goal for slot in slots):
            assert time.monotonic() < deadline, "a worker does not get on"
            for slot, pid in self.pids.items():
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    del self.pids[slot]
                    raise AssertionError(f"slot {slot} ended by itself: status {status}")
            os.sched_yield()

    def kill(self, slot: int) -> None:
        """Returns when the death was seen natively and the process is reaped."""
        os.kill(self.pids[slot], signal.SIGKILL)
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            event = self.watch.next_event(LIMIT_S)
            if event is not None and event.kind == "death" and event.slot == slot:
                os.waitpid(self.pids.pop(slot), 0)
                assert self.segment.revoked_generation == self.generation
                return
        raise AssertionError(f"the death of slot {slot} was not seen")

    def finish(self) -> list[int]:
        self.segment.close_generation(self.generation)
        self.publish([])
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in self.pids.values()]
        self.pids.clear()
        return codes

    def close(self) -> None:
        for pid in self.pids.values():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.watch.close()


@pytest.mark.parametrize("seed", range(3))
def test_generations_stay_exact_through_kills(seed: int) -> None:
    rng = random.Random(seed)
    agent = Agent(RANKS + 1, staging_bytes=512 << 10)
    try:
        for slot in range(RANKS):
            agent.start(slot)
        slots = list(range(RANKS))
        for _ in range(8):
            agent.publish(slots)
            agent.wait_turns(slots, rng.randrange(1, 12))
            for _ in range(rng.randrange(300)):  # somewhere within a turn
                os.sched_yield()
            victim = rng.choice(slots)
            agent.kill(victim)
            spare = victim if rng.random() < 0.5 else (set(range(RANKS + 1)) - set(slots)).pop()
            agent.start(spare)  # its old slot, or the free one
            slots = [spare if slot == victim else slot for slot in slots]
            rng.shuffle(slots)
        agent.publish(slots)
        agent.wait_turns(slots, 8)
        assert agent.finish() == [0] * RANKS
    finally:
        agent.close()


def test_world_shrinks_and_grows_in_place() -> None:
    agent = Agent(4, staging_bytes=512 << 10)
    try:
        for slot in range(4):
            agent.start(slot)
        for slots in ([0, 1, 2, 3], [2, 0], [3, 2, 1, 0], [1], [0, 3, 1]):
            agent.publish(slots)
            agent.wait_turns(slots, 5)
            agent.segment.close_generation(agent.generation)
        assert agent.finish() == [0] * 4
    finally:
        agent.close()


def test_world_refuses_a_roster_that_is_not_its_own() -> None:
    pid = os.fork()
    if pid == 0:  # a worker's sentinel thread stays for good: not in pytest's process
        code = 1
        try:
            segment = _core.NodeSegment.create(2, 1 << 20, 1 << 16)
            segment.prepare_slot(0, 7)
            worker = _core.Worker.attach(segment, 0, 7)
            for rank, slots, text in (
                (1, [0, 1], "gives rank 1 to slot 1, but this worker has slot 0"),
                (2, [0, 1], "rank 2 is not among the 2 ranks"),
                (0, [0, 0], "another rank has too"),
                (0, [0, 9], "slot 9, which the node segment does not have"),
            ):
                with pytest.raises(errors.InvalidArgument, match=text):
                    _core.Communicator.world(worker, 1, rank, slots)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
