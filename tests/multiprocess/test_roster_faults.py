"""The node segment between real processes that are killed at any moment."""

from __future__ import annotations

import mmap
import os
import random
import select
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from hpcore import _core
from hpcore.errors import DeadlineExceeded, InvalidArgument

FOREVER_S = 60.0


class Family:
    """Forks workers over one segment and ends them with the test."""

    def __init__(self, slots: int) -> None:
        self.segment = _core.NodeSegment.create(slots, staging_bytes=4096, store_bytes=4096)
        self.watch = _core.AgentWatch(self.segment)
        self.incarnation = 0
        self.pids: dict[int, int] = {}

    def start(self, slot: int, body: Callable[[_core.Worker], None]) -> int:
        self.incarnation += 1
        self.segment.prepare_slot(slot, self.incarnation)
        self.watch.watch(slot, self.incarnation)
        pid = os.fork()
        if pid == 0:
            try:
                segment = _core.NodeSegment.attach(self.segment.fd)
                body(_core.Worker.attach(segment, slot, self.incarnation))
            finally:
                os._exit(3)
        self.pids[slot] = pid
        return pid

    def next(self, kind: str, slot: int) -> _core.Event:
        deadline = time.monotonic() + FOREVER_S
        while time.monotonic() < deadline:
            event = self.watch.next_event(FOREVER_S)
            if event is not None and event.kind == kind and event.slot == slot:
                return event
        raise AssertionError(f"no {kind} of slot {slot}")

    def steps_of_mails(self, slots: list[int]) -> dict[int, int]:
        steps: dict[int, int] = {}
        while len(steps) < len(slots):
            event = self.watch.next_event(FOREVER_S)
            assert event is not None, f"mail from {sorted(steps)} only"
            if event.kind == "mail":
                steps[event.slot] = event.step
        return steps

    def kill(self, slot: int) -> None:
        os.kill(self.pids[slot], signal.SIGKILL)

    def close(self) -> None:
        for pid in self.pids.values():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.watch.close()


@pytest.fixture
def family() -> Iterator[Family]:
    family = Family(4)
    yield family
    family.close()


def wait_for_ever(_: _core.Worker) -> None:
    signal.pause()


def attached(family: Family, slots: range) -> None:
    missing = set(slots)
    while missing:
        event = family.watch.next_event(FOREVER_S)
        assert event is not None, f"slots {missing} did not attach"
        missing.discard(event.slot)


def test_death_revokes_before_python_hears_of_it(family: Family) -> None:
    for slot in range(3):
        family.start(slot, wait_for_ever)
    attached(family, range(3))
    family.segment.open_commit([0, 1, 2], 1, 0)
    family.segment.set_ranked([0, 1, 2])
    family.segment.publish(1, b"first")
    family.kill(1)
    assert family.next("death", 1).at_ns > 0
    assert family.segment.revoked_generation == 1
    assert all(family.segment.slot_info(slot).commit_closed for slot in range(3))


def test_death_of_standby_revokes_nothing(family: Family) -> None:
    for slot in range(2):
        family.start(slot, wait_for_ever)
    attached(family, range(2))
    family.segment.open_commit([0], 1, 0)
    family.segment.set_ranked([0])
    family.segment.publish(1, b"first")
    family.kill(1)
    family.next("death", 1)
    assert family.segment.revoked_generation == 0
    assert not family.segment.slot_info(0).commit_closed


def test_death_is_seen_before_memory_is_freed(family: Family) -> None:
    def hold_memory(worker: _core.Worker) -> None:
        memory = mmap.mmap(-1, 512 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(0, len(memory), 4096):
            memory[page] = 1
        worker.state = _core.STATE_WARM
        signal.pause()

    pid = family.start(0, hold_memory)
    while family.next("state", 0).state != _core.STATE_WARM:
        pass
    pidfd = os.pidfd_open(pid)
    family.kill(0)
    family.next("death", 0)
    ready, _, _ = select.select([pidfd], [], [], 0)
    os.close(pidfd)
    assert not ready  # the kernel still frees its half GiB


def test_sentinel_wakes_waiters_upon_roster(family: Family) -> None:
    def wait_and_answer(worker: _core.Worker) -> None:
        notice = worker.wait_roster(0, FOREVER_S)
        assert notice is not None
        worker.post(7, notice[0], 5, notice[1].decode() * 2)
        signal.pause()

    family.start(0, wait_and_answer)
    attached(family, range(1))
    family.segment.publish(3, "roster ü".encode())
    mail = family.next("mail", 0)
    assert (mail.mail_kind, mail.step, mail.flags, mail.text) == (7, 3, 5, "roster üroster ü")


def test_last_mail_comes_before_death(family: Family) -> None:
    def mail_and_die(worker: _core.Worker) -> None:
        worker.post(1, 9, 0, "x" * 20_000 + "end")
        os.kill(os.getpid(), signal.SIGKILL)

    family.start(0, mail_and_die)
    kinds = []
    while "death" not in kinds:
        event = family.watch.next_event(FOREVER_S)
        assert event is not None
        kinds.append(event.kind)
        if event.kind == "mail":
            assert event.text.endswith("xend") and len(event.text) == 16 << 10
    assert "mail" in kinds


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_workers_die_with_the_agent() -> None:
    read, write = os.pipe()
    agent = os.fork()
    if agent == 0:
        family = Family(2)
        for slot in range(2):
            os.write(write, family.start(slot, wait_for_ever).to_bytes(4, "little"))
        attached(family, range(2))
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(write)
    pids = [int.from_bytes(os.read(read, 4), "little") for _ in range(2)]
    os.waitpid(agent, 0)
    while os.read(read, 1):  # end of file: the last holder of the pipe is gone
        pass
    os.close(read)
    deadline = time.monotonic() + FOREVER_S
    while any(alive(pid) for pid in pids):  # their files are closed a moment before they are gone
        assert time.monotonic() < deadline
        os.sched_yield()


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


@pytest.mark.parametrize("seed", range(5))
def test_kill_at_any_moment_leaves_the_segment_usable(family: Family, seed: int) -> None:
    def busy(worker: _core.Worker) -> None:
        for step in range(1 << 40):
            worker.progress(step, 1)
            worker.set_rank_blob(0, step, step.to_bytes(8, "little") * 4000)
            worker.post(2, step, 0, "y" * 1000)

    rng = random.Random(seed)
    for _ in range(3):
        family.start(0, busy)
        for _ in range(rng.randrange(1, 40)):
            family.next("mail", 0)
        family.kill(0)
        family.next("death", 0)
        os.waitpid(family.pids.pop(0), 0)
        for tag, blob in family.segment.rank_blob(0):
            assert blob == tag.to_bytes(8, "little") * 4000


def test_attach_twice_is_refused(family: Family) -> None:
    family.start(0, wait_for_ever)
    attached(family, range(1))
    with pytest.raises(InvalidArgument, match="incarnation"):
        _core.Worker.attach(family.segment, 0, family.incarnation)
    with pytest.raises(InvalidArgument, match="slot 1"):
        _core.Worker.attach(family.segment, 1, 99)


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
