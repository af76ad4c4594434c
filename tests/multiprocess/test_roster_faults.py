"""The node segment between real processes that are killed at any moment."""

from __future__ import annotations

import mmap
import os
import random
import select
import signal
import time
from collections.abc import Callable
from types import FrameType

import pytest
from roster_family import FOREVER_S, Family, attached, family, wait_for_ever

from hpcore import _core
from hpcore.errors import InvalidArgument

__all__ = ["family"]


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


def test_death_before_publishing_revokes_at_once(family: Family) -> None:
    """A worker that died after it was chosen: its generation is over before anybody waits in it."""
    for slot in range(2):
        family.start(slot, wait_for_ever)
    attached(family, range(2))
    family.kill(1)
    family.next("death", 1)
    assert family.segment.revoked_generation == 0
    family.segment.open_commit([0, 1], 1, 0)
    family.segment.set_ranked([0, 1])
    family.segment.publish(1, b"first")
    assert family.segment.revoked_generation == 1
    assert family.segment.slot_info(0).commit_closed


def test_finished_worker_revokes_nothing(family: Family) -> None:
    family.start(0, wait_for_ever)
    family.start(1, lambda worker: worker.wait_roster(0, FOREVER_S) and worker.finish(0))
    attached(family, range(2))
    family.segment.open_commit([0, 1], 1, 0)
    family.segment.set_ranked([0, 1])
    family.segment.publish(1, b"first")
    assert family.next("death", 1).state == _core.STATE_FINISHED
    assert family.segment.revoked_generation == 0


def test_slot_of_a_living_worker_is_not_given_away(family: Family) -> None:
    pid = family.start(0, wait_for_ever)
    attached(family, range(1))
    with pytest.raises(InvalidArgument, match=str(pid)):
        family.segment.prepare_slot(0, 50)
    family.kill(0)
    family.next("death", 0)
    family.segment.prepare_slot(0, 50)


def test_watch_survives_in_a_forked_child(family: Family) -> None:
    """The child has none of the threads: closing and dropping the watch there must not block."""
    family.start(0, wait_for_ever)
    attached(family, range(1))
    pid = os.fork()
    if pid == 0:
        family.watch.close()
        del family.watch
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    family.kill(0)
    assert family.next("death", 0).slot == 0


def test_full_queue_leaves_mail_in_the_box(family: Family) -> None:
    def write_often(worker: _core.Worker) -> None:
        for step in range(1500):
            worker.post(1, step, 0, "", FOREVER_S)
        os.kill(os.getpid(), signal.SIGKILL)

    family.start(0, write_often)
    steps = []
    while True:
        event = family.watch.next_event(FOREVER_S)
        assert event is not None
        if event.kind == "mail":
            steps.append(event.step)
        if event.kind == "death":
            break
        if len(steps) == 1:
            deadline = time.monotonic() + FOREVER_S
            while not box_stays_full(family, 0):
                assert time.monotonic() < deadline
    assert steps == list(range(1500))


def box_stays_full(family: Family, slot: int) -> bool:
    """True once two heartbeats passed without progress of the queue: it is full."""
    before = queued(family)
    beats = family.segment.slot_info(slot).heartbeats
    while family.segment.slot_info(slot).heartbeats < beats + 3:
        os.sched_yield()
    return queued(family) == before and before >= 1000


def queued(family: Family) -> int:
    """Events in the queue: the eventfd's counter, as the kernel shows it."""
    with open(f"/proc/self/fdinfo/{family.watch.fileno()}") as about:
        for line in about:
            if line.startswith("eventfd-count:"):
                return int(line.split()[1], 16)
    raise AssertionError("not an eventfd")


WAITS: list[Callable[[_core.Worker], object]] = [
    lambda worker: worker.wait_roster(0, FOREVER_S),
    lambda worker: worker.wait_commit(1, 0, [0, 1], FOREVER_S),
]


@pytest.mark.parametrize("wait", WAITS, ids=["roster", "commit"])
def test_waiting_worker_still_gets_its_signals(
    family: Family, wait: Callable[[_core.Worker], object]
) -> None:
    def wait_interrupted(worker: _core.Worker) -> None:
        def handle(_: int, frame: FrameType | None) -> None:
            assert frame is not None
            worker.post(1, 0, 0, frame.f_code.co_name)

        signal.signal(signal.SIGUSR1, handle)
        worker.state = _core.STATE_WARM
        wait(worker)

    pid = family.start(0, wait_interrupted)
    while family.next("state", 0).state != _core.STATE_WARM:
        pass
    interrupted = ""
    while interrupted != "<lambda>":  # else it came just before the wait
        os.kill(pid, signal.SIGUSR1)
        interrupted = family.next("mail", 0).text
