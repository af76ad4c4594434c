"""How an operation ends when it cannot be done: mismatch, timeout, revocation, abort, signals."""

from __future__ import annotations

import mmap
import os
import re
import signal
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from ranks import GENERATION, fork, member, reap, run_ranks

from hpcore import _core, errors

LIMIT_S = 30.0


def reduce(communicator: _core.Communicator, size: int = 10, dtype: str = "float32") -> np.ndarray:
    data = np.ones(size, dtype)
    communicator.all_reduce([(data.ctypes.data, size)], dtype, "sum", LIMIT_S)
    return data


def broadcast(communicator: _core.Communicator, size: int = 40) -> None:
    data = np.ones(size, np.uint8)
    communicator.broadcast([(data.ctypes.data, size)], 0, LIMIT_S)


def gather(communicator: _core.Communicator, mine: int, expected: int) -> None:
    data, outputs = np.ones(mine, np.int64), np.ones((communicator.world_size, expected), np.int64)
    rows = [(row.ctypes.data, expected) for row in outputs] if communicator.rank == 1 else []
    communicator.gather((data.ctypes.data, mine), rows, "int64", 1, LIMIT_S)


def all_to_all(communicator: _core.Communicator, sent: int, expected: int) -> None:
    data, ranks = np.ones(9, np.int64), range(communicator.world_size)
    inputs = [(data.ctypes.data, sent if rank != communicator.rank else 1) for rank in ranks]
    outputs = [(data.ctypes.data, expected if rank != communicator.rank else 1) for rank in ranks]
    communicator.all_to_all(inputs, outputs, "int64", LIMIT_S)


Call = Callable[[_core.Communicator], object]
MISMATCHES: dict[str, tuple[Call, Call, str]] = {
    "operation": (reduce, broadcast, r"all_reduce\(sum, float32, 10 .*broadcast\(uint8, 40 .*root"),
    "size": (reduce, lambda c: reduce(c, 11), "10 elements.*11 elements"),
    "dtype": (reduce, lambda c: reduce(c, 10, "int32"), "float32.*int32"),
    "large": (lambda c: reduce(c, 1_000_000), lambda c: reduce(c, 10), "1000000 elements"),
    "gather": (lambda c: gather(c, 4, 4), lambda c: gather(c, 5, 4), "sends 5.*expects 4"),
    "pairs": (lambda c: all_to_all(c, 4, 4), lambda c: all_to_all(c, 5, 4), "sends 5.*expects 4"),
}


@pytest.mark.parametrize("what", MISMATCHES)
def test_mismatch_is_seen_by_all_and_survived(what: str) -> None:
    usual, odd, text = MISMATCHES[what]

    def body(communicator: _core.Communicator) -> None:
        for odd_rank in range(3):
            reduce(communicator)
            sequence = communicator.sequence + 1
            with pytest.raises(errors.MismatchError) as raised:
                (odd if communicator.rank == odd_rank else usual)(communicator)
            message = str(raised.value)
            assert f"operation {sequence}" in message and "rank" in message
            if communicator.rank != odd_rank:
                assert re.search(text, message), message
            assert (reduce(communicator, 100_000) == 3).all()

    run_ranks(3, body)


def test_timeout_names_who_is_missing() -> None:
    reader, writer = os.pipe()

    def body(communicator: _core.Communicator) -> None:
        reduce(communicator)
        if communicator.rank == 1:  # lives until the others are done, or it would be told as dead
            assert os.read(reader, 1) and os.read(reader, 1)
            return
        with pytest.raises(errors.DeadlineExceeded) as raised:
            communicator.barrier(0.2)
        message = str(raised.value)
        assert "1 of 3 ranks are missing: 1 (last seen in operation 1)" in message
        assert "barrier(), operation 2 timed out after 0.2" in message
        with pytest.raises(errors.Aborted, match=r"cannot go on since barrier\(\), operation 2"):
            communicator.barrier(0.2)
        os.write(writer, b"!")

    try:
        run_ranks(3, body)
    finally:
        os.close(reader)
        os.close(writer)


def test_timeout_names_who_never_came() -> None:
    group = _core.SharedGroup.create(2, 1 << 20)
    communicator = _core.Communicator.over_group(group, GENERATION, 0)
    with pytest.raises(errors.DeadlineExceeded, match=r"1 \(never arrived in this generation\)"):
        communicator.all_gather_bytes(b"", 0.05)


@pytest.mark.parametrize("waiting", ["barrier", "large"])
def test_revocation_ends_the_wait(waiting: str) -> None:
    group = _core.SharedGroup.create(3, 1 << 20)
    ready = mmap.mmap(-1, 4096)

    def body(communicator: _core.Communicator) -> None:
        ready[communicator.rank] = 1
        with pytest.raises(errors.RosterChanged, match="generation 1 is over"):
            while True:
                reduce(communicator, 1 if waiting == "barrier" else 500_000)
        with pytest.raises(errors.RosterChanged):
            communicator.barrier(LIMIT_S)

    pids = [member(group, rank, body) for rank in range(2 if waiting == "barrier" else 3)]
    while sum(ready[:3]) < len(pids):
        os.sched_yield()
    group.revoke(GENERATION)
    assert reap(pids) == [0] * len(pids)


def test_abort_ends_another_threads_wait() -> None:
    group = _core.SharedGroup.create(2, 1 << 20)
    communicator = _core.Communicator.over_group(group, GENERATION, 0)
    seen: list[BaseException] = []

    def wait() -> None:
        try:
            communicator.barrier(LIMIT_S)
        except errors.Aborted as error:
            seen.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while communicator.sequence == 0:
        os.sched_yield()
    communicator.abort()
    thread.join()
    assert len(seen) == 1 and "closed or aborted" in str(seen[0])
    communicator.close()
    communicator.close()
    with pytest.raises(errors.Aborted):
        communicator.barrier(LIMIT_S)


def test_signal_reaches_a_waiting_main_thread() -> None:
    class Alarm(Exception):
        pass

    def ring(*_: object) -> None:
        raise Alarm

    def work() -> None:
        group = _core.SharedGroup.create(2, 1 << 20)
        communicator = _core.Communicator.over_group(group, GENERATION, 0)
        signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Alarm):
            communicator.barrier(LIMIT_S)

    begun = time.monotonic()
    assert reap([fork(work)]) == [0]
    assert time.monotonic() - begun < LIMIT_S


def test_communicator_is_made_once_a_generation() -> None:
    def body(communicator: _core.Communicator) -> None:
        communicator.barrier(LIMIT_S)

    group = _core.SharedGroup.create(2, 1 << 20)
    assert reap([member(group, rank, body) for rank in range(2)]) == [0, 0]
    with pytest.raises(errors.InvalidArgument, match="already had a communicator"):
        _core.Communicator.over_group(group, GENERATION, 0)
    with pytest.raises(errors.InvalidArgument, match="rank 2 is not among the 2"):
        _core.Communicator.over_group(group, GENERATION + 1, 2)
    assert reap([member(group, rank, body, GENERATION + 1) for rank in range(2)]) == [0, 0]


def test_group_refuses_bad_sizes() -> None:
    with pytest.raises(errors.InvalidArgument, match="257"):
        _core.SharedGroup.create(257)
    with pytest.raises(errors.InvalidArgument, match="staging_bytes"):
        _core.SharedGroup.create(200, 1 << 16)


def test_new_generation_waits_for_an_operation_of_the_old_one() -> None:
    """Both would write the same slot; the older one is refused once the newer one has begun."""
    group = _core.SharedGroup.create(2, 1 << 20)
    old = _core.Communicator.over_group(group, 1, 0)
    idle = _core.Communicator.over_group(group, 1, 0)
    ended: list[type[BaseException]] = []

    def wait() -> None:
        try:
            old.barrier(LIMIT_S)
        except errors.HpcoreError as error:
            ended.append(type(error))

    thread = threading.Thread(target=wait)
    thread.start()
    while old.sequence == 0:
        os.sched_yield()
    new = _core.Communicator.over_group(group, 2, 0)
    with pytest.raises(errors.DeadlineExceeded, match="generation 1 is still using"):
        new.barrier(0.05)
    old.abort()
    thread.join()
    assert ended == [errors.Aborted]
    with pytest.raises(errors.DeadlineExceeded, match="1 of 2 ranks are missing"):
        new.barrier(0.05)
    with pytest.raises(errors.RosterChanged, match="already takes part in generation 2"):
        idle.barrier(0.05)
