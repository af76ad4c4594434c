"""torch 2.14: a process group moves to other members, in a job to another generation, in place."""

from __future__ import annotations

import json
import os
import threading
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from c10d_agent import AgentDouble
from c10d_ranks import run_ranks
from test_c10d_revocation import revoked, say, start

from hpcore import _core, errors
from hpcore.membership.process import this_worker

HAS_RECONFIGURE = hasattr(dist.ProcessGroup, "reconfigure")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(not HAS_RECONFIGURE, reason=f"torch {torch.__version__}: since 2.14"),
]
TIMEOUT = timedelta(seconds=40)


def meeting() -> Any:
    """The store that run_ranks gave to init_process_group."""
    return dist.distributed_c10d._get_default_store()


def exchange(key: str, ranks: list[int], rank: int) -> list[str]:
    """The handles of these members (by the rank they began with)."""
    store = meeting()
    store.set(f"{key}/{rank}", dist._get_reconfigure_handle())
    return [store.get(f"{key}/{other}").decode() for other in ranks]


def reconfigure(uuid: int, handles: Any, **options: Any) -> None:
    dist._reconfigure(uuid, handles, timeout=options.pop("timeout", TIMEOUT), **options).wait()


def total() -> tuple[int, int, float]:
    tensor = torch.full((1000,), dist.get_rank() + 1.0)
    dist.all_reduce(tensor)
    assert tensor.eq(tensor[0]).all()
    return dist.get_rank(), dist.get_world_size(), tensor[0].item()


def test_reconfigure_moves_a_group_to_fewer_and_to_more() -> None:
    def work(rank: int) -> list[Any]:
        assert dist._supports_reconfigure()
        seen: list[Any] = [total()]
        if rank != 1:
            reconfigure(1, exchange("few", [2, 0], rank))  # a list: rank by position
            seen.append(total())
            handles = set(exchange("many", [0, 1, 2], rank))
        else:
            handles = set(exchange("many", [0, 1, 2], rank))
        reconfigure(2, handles)  # a set: by the rank that each began with
        seen.append(total())
        other = [(rank + 1) % 3, (rank + 2) % 3]
        received = torch.empty(4)
        requests = [dist.isend(torch.full((4,), float(rank)), other[0]), dist.irecv(received)]
        for request in requests:
            request.wait()
        assert received.tolist() == [float(other[1])] * 4
        return seen

    first, second, third = run_ranks(3, work)
    assert first == [(0, 3, 6.0), (1, 2, 3.0), (0, 3, 6.0)]
    assert second == [(1, 3, 6.0), (1, 3, 6.0)]
    assert third == [(2, 3, 6.0), (0, 2, 3.0), (2, 3, 6.0)]


def test_reconfigure_goes_on_after_abort_and_cuts_operations_short() -> None:
    def work(rank: int) -> Any:
        if rank == 0:
            stuck = dist.all_reduce(torch.ones(3), async_op=True)  # rank 1 never comes
            receive = dist.irecv(torch.ones(3), 1)
        else:
            dist.group.WORLD._get_backend(torch.device("cpu")).abort()
            with pytest.raises(errors.Aborted):
                dist.all_reduce(torch.ones(3))
        reconfigure(7, exchange("again", [0, 1], rank))
        if rank == 0:
            for work in (stuck, receive):
                with pytest.raises(errors.Aborted):
                    work.wait()
        handle = torch.ones(5)
        dist.all_reduce(handle, async_op=True).wait()
        assert handle.tolist() == [2.0] * 5
        return total()

    assert run_ranks(2, work) == [(0, 2, 3.0), (1, 2, 3.0)]


def test_reconfigure_refuses_what_cannot_be() -> None:
    def work(rank: int) -> Any:
        handles = exchange("first", [0, 1], rank)
        own = handles[rank]
        refused: list[tuple[Any, str]] = [
            ([], "no handles"),
            ([own, own], "twice"),
            ([handles[1 - rank]], "not among the 1"),
            ([own, "gloo:0:-1:0:"], "no handle of the hpcore backend"),
            ([own + "x"], "not among"),
        ]
        for wrong, why in refused:
            with pytest.raises(errors.InvalidArgument, match=why):
                reconfigure(1, wrong)
        with pytest.raises(errors.InvalidArgument, match="hint colour=red"):
            reconfigure(1, handles, hints={"colour": "red"})
        with pytest.raises(errors.InvalidArgument, match="is for jobs of hpcore run"):
            reconfigure(1, handles, hints={"generation": "2"})
        assert total() == (rank, 2, 3.0), "the group is as it was"
        reconfigure(1, handles)
        with pytest.raises(errors.InvalidArgument, match="out of date"):
            reconfigure(2, handles)
        again = exchange("second", [0, 1], rank)
        with pytest.raises(errors.InvalidArgument, match="uuid was already used for rank"):
            reconfigure(1, again)
        with pytest.raises(errors.MismatchError if rank else errors.DeadlineExceeded) as caught:
            more = [*again, "hpcore:2:-1:0123456789abcdef"]
            reconfigure(3, more if rank else again, timeout=timedelta(seconds=1))
        assert "other handles" in str(caught.value) if rank else "missing" in str(caught.value)
        return True

    run_ranks(2, work)


def test_reconfigure_names_who_is_missing() -> None:
    def work(rank: int) -> str:
        handles = exchange("all", [0, 1, 2], rank)
        if rank == 2:
            meeting().wait(["late"], TIMEOUT)
            return ""
        with pytest.raises(errors.DeadlineExceeded) as caught:
            reconfigure(1, handles, timeout=timedelta(seconds=1))
        with pytest.raises(errors.Aborted):
            dist.barrier()
        reconfigure(2, exchange("two", [0, 1], rank))  # the handles are those of before
        assert total() == (rank, 2, 3.0)
        meeting().set("late", "")
        return str(caught.value)

    told = run_ranks(3, work)
    assert all("2" in text and "barrier" in text for text in told[:2]), told


def test_reconfigure_comes_first_where_it_was_asked_for() -> None:
    """enable_reconfigure: no members, no memory, until the first one; ranks may join late."""

    def work(rank: int) -> Any:
        store = meeting()
        dist.destroy_process_group()
        dist.init_process_group(
            "hpcore",
            store=dist.PrefixStore("second", store),
            rank=rank,
            world_size=3,
            timeout=TIMEOUT,
            enable_reconfigure=True,
        )
        with pytest.raises(errors.InvalidArgument, match="enable_reconfigure=True"):
            dist.barrier()
        alone = exchange("alone", [rank], rank)
        reconfigure(10 + rank, alone)
        assert total() == (0, 1, 1.0)
        reconfigure(20, exchange("all", [0, 1, 2], rank))
        return total()

    assert run_ranks(3, work) == [(rank, 3, 6.0) for rank in range(3)]


def test_reconfigure_of_a_subgroup_leaves_the_others_alone() -> None:
    def work(rank: int) -> Any:
        pair = dist.new_group([1, 2])
        if rank:
            store = meeting()
            store.set(f"pair/{rank}", dist._get_reconfigure_handle(pair))
            handles = [store.get(f"pair/{other}").decode() for other in (2, 1)]
            dist._reconfigure(5, handles, group=pair, timeout=TIMEOUT).wait()
            mine = torch.full((2,), float(rank))
            dist.broadcast(mine, group=pair, group_src=0)
            assert mine.tolist() == [2.0, 2.0]
            assert pair.rank() == 2 - rank
        return total()

    assert run_ranks(3, work) == [(rank, 3, 6.0) for rank in range(3)]


def test_abort_hooks_run_before_an_abort_and_at_a_deadline() -> None:
    def work(rank: int) -> Any:
        backend = dist.group.WORLD._get_backend(torch.device("cpu"))
        seen: list[str] = []
        backend.register_abort_hook(1, lambda: seen.append("one"))
        backend.register_abort_hook(2, lambda: seen.append("two"))
        backend.unregister_abort_hook(2)
        if rank == 0:
            backend.set_timeout(timedelta(milliseconds=200))
            with pytest.raises(errors.DeadlineExceeded):
                dist.barrier()
            assert seen == ["one"]
        backend.abort()
        meeting().set(f"done{rank}", "")
        meeting().wait(["done0", "done1"], TIMEOUT)
        return seen

    assert run_ranks(2, work) == [["one", "one"], ["one"]]


def test_gather_single_and_windows() -> None:
    def work(rank: int) -> Any:
        output = torch.empty(6, 2)
        given = torch.arange(4.0).view(2, 2) + 10 * rank
        dist.gather_single(given, output if rank == 1 else None, dst=1)
        if rank == 1:
            expected = torch.cat([torch.arange(4.0).view(2, 2) + 10 * other for other in range(3)])
            assert output.equal(expected)
        assert not dist._supports_window()
        with pytest.raises(RuntimeError, match="hpcore does not support new_window"):
            dist._new_window(torch.ones(3))
        pending = dist.all_reduce(torch.ones(3), async_op=True)
        assert pending.timeout > timedelta(0)
        pending.wait()

    run_ranks(3, work)


def new_members(generation: int, rank: int) -> list[str]:
    """What a job's script does after RosterChanged: the handles of the next roster's members."""
    worker = this_worker()
    assert worker is not None
    roster = worker.wait_roster(generation - 1, 40.0)
    assert roster is not None
    world = len(json.loads(roster[1])["members"])
    store = worker.segment.store
    store.set(f"handles/{generation}/{rank}", dist._get_reconfigure_handle().encode())
    keys = [f"handles/{generation}/{member}" for member in range(world)]
    return [handle.decode() for handle in store.multi_get(keys, 40.0)]


def test_reconfigure_moves_a_jobs_group_to_the_next_generation() -> None:
    """Rank 1 is killed; the survivors keep their process group, a newcomer takes rank 1's place."""

    def work() -> list[Any]:
        worker = this_worker()
        assert worker is not None
        newcomer = worker.slot == 3
        rank = {0: 2, 2: 0, 3: 1}.get(worker.slot, -1)  # in generation 2
        seen: list[Any] = []
        dist.init_process_group("hpcore", timeout=TIMEOUT, enable_reconfigure=newcomer)
        if not newcomer:
            seen.append(total())
            say(f"ready{dist.get_rank()}")
            if worker.slot == 1:
                threading.Event().wait()
            revoked(lambda: [dist.barrier() for _ in range(1_000_000)])
        with pytest.raises(errors.RosterChanged, match="generation 1"):
            hint = {"generation": "1"}
            dist._reconfigure(1, [dist._get_reconfigure_handle()], hints=hint)
        dist._reconfigure(2, new_members(2, rank), timeout=TIMEOUT).wait()
        seen.append(total())
        gathered: list[Any] = [None] * 3
        dist.all_gather_object(gathered, os.getpid())
        assert len(set(gathered)) == 3
        say(f"second{dist.get_rank()}")
        with pytest.raises(errors.RosterChanged, match="generation 2"):
            for _ in range(1_000_000):
                dist.barrier()
        return seen

    with AgentDouble(4) as agent:
        start(agent, [0, 1, 2], work)
        agent.segment.store.wait(["ready0", "ready1", "ready2"], 60.0)
        agent.kill(1)
        while agent.segment.revoked_generation < 1:
            agent.watch.next_event(1.0)
        agent.start(3, work)
        agent.await_state([3], _core.STATE_ATTACHED)
        agent.publish(2, [2, 3, 0])
        agent.segment.store.wait(["second0", "second1", "second2"], 60.0)
        agent.segment.close_generation(2)
        results = agent.results([0, 2, 3])
    assert results == [[(0, 3, 6.0), (2, 3, 6.0)], [(2, 3, 6.0), (0, 3, 6.0)], [(1, 3, 6.0)]]
