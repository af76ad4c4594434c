"""The loopback double of libnccl behaves as NCCL does where our code depends on it."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback_members import IN_PROGRESS, REMOTE_ERROR, SUCCESS, Library

SHRINK_ABORT = 1


@pytest.fixture
def nccl() -> Iterator[Library]:
    library = Library()
    yield library
    for name in ("init_hangs", "init_error", "flip_send", "async_error", "stall_send"):
        library.native.loopback_fault(name.encode(), ctypes.c_long(0))


def exchange(nccl: Library, one: Any, other: Any, peers: tuple[int, int] = (1, 0)) -> bytes:
    """Ten bytes from one member to another, both in this process: small enough not to wait."""
    got = (ctypes.c_ubyte * 10)()
    assert nccl.send(one, (ctypes.c_ubyte * 10)(*range(10)), peers[0]) == SUCCESS
    assert nccl.receive(other, got, peers[1]) == SUCCESS
    return bytes(got)


def test_members_come_together_when_all_are_there(nccl: Library) -> None:
    unique_id = nccl.unique_id()
    first = nccl.join(unique_id, 0, 2)
    assert nccl.state(first) == IN_PROGRESS
    second = nccl.join(unique_id, 1, 2)
    nccl.settle(first, second)
    assert nccl.rank(second) == (1, 2)
    assert exchange(nccl, first, second) == bytes(range(10))
    for comm in (first, second):
        assert nccl.native.ncclCommAbort(comm) == SUCCESS


def test_shrink_leaves_out_who_is_gone_and_renumbers(nccl: Library) -> None:
    unique_id = nccl.unique_id()
    comms = [nccl.join(unique_id, rank, 3) for rank in range(3)]
    nccl.settle(*comms)
    nccl.native.ncclCommAbort(comms[0])  # rank 0 is lost
    left = [nccl.shrink(comm, [0], SHRINK_ABORT) for comm in comms[1:]]
    nccl.settle(*left)
    assert [nccl.rank(comm) for comm in left] == [(0, 2), (1, 2)]
    assert exchange(nccl, left[0], left[1]) == bytes(range(10))
    for comm in [*comms[1:], *left]:
        nccl.native.ncclCommAbort(comm)


def test_grow_takes_newcomers_in(nccl: Library) -> None:
    unique_id = nccl.unique_id()
    comms = [nccl.join(unique_id, rank, 2) for rank in range(2)]
    nccl.settle(*comms)
    door = nccl.unique_id()
    grown = [
        nccl.grow(comms[0], 3, door, -1),
        nccl.grow(comms[1], 3, None, -1),
        nccl.grow(None, 3, door, 2),
    ]
    nccl.settle(*grown)
    assert [nccl.rank(comm) for comm in grown] == [(0, 3), (1, 3), (2, 3)]
    assert exchange(nccl, grown[1], grown[2], (2, 1)) == bytes(range(10))
    for comm in [*comms, *grown]:
        nccl.native.ncclCommAbort(comm)


def test_faults_strike_when_they_are_set(nccl: Library) -> None:
    unique_id = nccl.unique_id()
    comms = [nccl.join(unique_id, rank, 2) for rank in range(2)]
    nccl.settle(*comms)
    nccl.native.loopback_fault(b"flip_send", ctypes.c_long(1))
    assert exchange(nccl, *comms) == bytes([1, *range(1, 10)])
    assert exchange(nccl, *comms) == bytes(range(10))
    nccl.native.loopback_fault(b"async_error", ctypes.c_long(1))
    data = (ctypes.c_ubyte * 10)()
    assert nccl.send(comms[0], data, 1) == REMOTE_ERROR
    assert nccl.state(comms[0]) == REMOTE_ERROR
    for comm in comms:
        nccl.native.ncclCommAbort(comm)
    nccl.native.loopback_fault(b"init_hangs", ctypes.c_long(1))
    alone = nccl.join(nccl.unique_id(), 0, 1)
    assert nccl.state(alone) == IN_PROGRESS
    nccl.native.ncclCommAbort(alone)


DESTROY = """
import ctypes, sys, threading
sys.path[:0] = [{here!r}, {doubles!r}]
from loopback_members import IN_PROGRESS, Library
nccl = Library()
unique_id = nccl.unique_id()
comms = [nccl.join(unique_id, rank, 2) for rank in range(2)]
nccl.settle(*comms)
got = (ctypes.c_ubyte * 10)()
waiting = threading.Thread(target=nccl.receive, args=(comms[1], got, 0), daemon=True)
waiting.start()
while nccl.native.ncclCommFinalize(comms[1]) != IN_PROGRESS:
    pass
nccl.native.ncclCommDestroy(comms[1])
"""


def test_destroying_with_work_in_flight_ends_the_process() -> None:
    here = Path(__file__).parent
    code = DESTROY.format(here=str(here), doubles=str(here.parent / "doubles"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 86, done
    assert "destroyed with work in flight" in done.stderr
