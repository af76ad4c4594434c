"""Members of loopback NCCL communicators, through ctypes: what the double itself is tested with.

``Library`` is the table of the double's functions that issues with communicators need; one process
may hold several members, each with nonblocking calls.
"""

from __future__ import annotations

import ctypes
import time
from typing import Any

import building

SUCCESS, REMOTE_ERROR, IN_PROGRESS = 0, 6, 7


class UniqueId(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_char * 128),)


class Config(ctypes.Structure):
    """The beginning of ncclConfig_t; nonblocking."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("magic", ctypes.c_uint),
        ("version", ctypes.c_uint),
        ("blocking", ctypes.c_int),
    )


def config() -> Any:
    return ctypes.byref(Config(ctypes.sizeof(Config), 0xCAFEBEEF, 21400, 0))


class Library:
    """The double; every call's result is returned as it is."""

    def __init__(self) -> None:
        self.native = ctypes.CDLL(building.library("nccl"))

    def unique_id(self) -> UniqueId:
        made = UniqueId()
        assert self.native.ncclGetUniqueId(ctypes.byref(made)) == SUCCESS
        return made

    def join(self, unique_id: UniqueId, rank: int, ranks: int) -> ctypes.c_void_p:
        comm = ctypes.c_void_p()
        call = self.native.ncclCommInitRankConfig
        result = call(ctypes.byref(comm), ranks, unique_id, rank, config())
        assert result in (SUCCESS, IN_PROGRESS)
        return comm

    def state(self, comm: ctypes.c_void_p) -> int:
        found = ctypes.c_int()
        assert self.native.ncclCommGetAsyncError(comm, ctypes.byref(found)) == SUCCESS
        return found.value

    def settle(self, *comms: ctypes.c_void_p) -> None:
        """Until all members are whole."""
        deadline = time.monotonic() + 10
        while IN_PROGRESS in [self.state(comm) for comm in comms]:
            assert time.monotonic() < deadline, "the members do not come together"
            time.sleep(0.001)

    def rank(self, comm: ctypes.c_void_p) -> tuple[int, int]:
        rank, count = ctypes.c_int(), ctypes.c_int()
        assert self.native.ncclCommUserRank(comm, ctypes.byref(rank)) == SUCCESS
        assert self.native.ncclCommCount(comm, ctypes.byref(count)) == SUCCESS
        return rank.value, count.value

    def shrink(self, comm: ctypes.c_void_p, excluded: list[int], flags: int) -> ctypes.c_void_p:
        made = ctypes.c_void_p()
        ranks = (ctypes.c_int * len(excluded))(*excluded)
        call = self.native.ncclCommShrink
        result = call(comm, ranks, len(excluded), ctypes.byref(made), config(), flags)
        assert result in (SUCCESS, IN_PROGRESS)
        return made

    def grow(
        self, comm: ctypes.c_void_p | None, ranks: int, unique_id: UniqueId | None, rank: int
    ) -> ctypes.c_void_p:
        made = ctypes.c_void_p()
        given = ctypes.byref(unique_id) if unique_id is not None else None
        call = self.native.ncclCommGrow
        result = call(comm, ranks, given, rank, ctypes.byref(made), config())
        assert result in (SUCCESS, IN_PROGRESS)
        return made

    def send(self, comm: ctypes.c_void_p, data: Any, peer: int) -> int:
        size = ctypes.c_size_t(len(data))
        return int(self.native.ncclSend(data, size, 1, peer, comm, None))

    def receive(self, comm: ctypes.c_void_p, data: Any, peer: int) -> int:
        size = ctypes.c_size_t(len(data))
        return int(self.native.ncclRecv(data, size, 1, peer, comm, None))
