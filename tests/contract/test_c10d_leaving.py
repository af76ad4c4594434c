"""Ranks that leave a group while others still need what they have sent."""

from __future__ import annotations

import os
import signal
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from c10d_ranks import run_ranks

from hpcore import errors

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("size", [3, 100_000])
@pytest.mark.parametrize("how", ["destroy", "exit"])
def test_c10d_message_arrives_although_its_sender_has_left(how: str, size: int) -> None:
    def work(rank: int) -> None:
        if rank == 0:
            dist.send(torch.full((size,), 5.0), 1)
            if how == "destroy":
                dist.destroy_process_group()
            else:
                os.kill(os.getpid(), signal.SIGKILL)
            return
        got = torch.zeros(size)
        dist.recv(got, 0)
        assert (got == 5).all()

    run_ranks(2, work, expect_killed=(0,) if how == "exit" else ())


def test_c10d_send_is_done_when_its_receiver_can_find_it_without_the_sender() -> None:
    """Else a rank that sends and leaves at once would take with it the way to the memory."""

    def work(rank: int) -> None:
        store = dist.distributed_c10d._get_default_store()
        group = dist.new_group(timeout=timedelta(milliseconds=200))
        if rank == 0:
            handle = dist.isend(torch.ones(3), 1)
            with pytest.raises(errors.DeadlineExceeded, match="missing rank 1"):
                dist.send(torch.ones(3), 1, group=group)
            assert not handle.is_completed()
            store.set("may receive", b"")
            handle.wait()
            dist.destroy_process_group()
            store.set("has left", b"")
        else:
            store.wait(["may receive"])
            opened = dist.irecv(torch.empty(1), 0, tag=9)  # opens the memory, no more
            store.wait(["has left"])
            got = torch.zeros(3)
            dist.recv(got, 0)
            assert got.tolist() == [1.0] * 3
            assert not opened.is_completed()

    run_ranks(2, work)
