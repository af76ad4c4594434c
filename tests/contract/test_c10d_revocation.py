"""A generation that ends: every group of every survivor raises RosterChanged, at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from c10d_agent import AgentDouble
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hpcore import _core, errors
from hpcore.membership.process import this_worker

pytestmark = pytest.mark.torch


def start(agent: AgentDouble, slots: list[int], work: Callable[[], Any]) -> None:
    for slot in slots:
        agent.start(slot, work)
    agent.await_state(slots, _core.STATE_TRAINING)  # they ask for the roster
    agent.publish(1, slots)


def say(key: str) -> None:
    worker = this_worker()
    assert worker is not None
    worker.segment.store.set(key, b"")


def revoked(operation: Callable[[], Any]) -> int:
    """Nanoseconds of CLOCK_MONOTONIC at which the operation raised RosterChanged."""
    with pytest.raises(errors.RosterChanged, match="generation 1"):
        operation()
    return _core.monotonic_ns()


def test_c10d_all_groups_raise_when_a_member_is_killed() -> None:
    def work() -> dict[str, int]:
        dist.init_process_group("hpcore", timeout=timedelta(seconds=50))
        rank = dist.get_rank()
        pair, lonely = dist.new_group([0, 2]), dist.new_group([1, 2])
        dist.barrier()
        dist.all_reduce(torch.ones(1), group=pair)
        dist.all_reduce(torch.ones(1), group=lonely)
        store = dist.distributed_c10d._get_default_store()
        if rank == 1:
            say("ready1")
            threading.Event().wait()
        seen: dict[str, int] = {}
        waits: dict[str, Callable[[], Any]] = {
            "store": lambda: store.get("never"),
            "world": lambda: dist.all_reduce(torch.ones(1000)),
        }
        if rank == 0:
            waits["pair"] = lambda: dist.barrier(group=pair)
            waits["recv"] = dist.irecv(torch.ones(3), 2).wait
            waits["future"] = dist.all_reduce(torch.ones(3), async_op=True).get_future().wait
        else:
            waits["lonely"] = lambda: dist.all_reduce(torch.ones(3), group=lonely)
            waits["send"] = dist.isend(torch.ones(1 << 20), 1).wait
            waits["any"] = lambda: dist.recv(torch.ones(3), group=lonely)
        threads = [
            threading.Thread(target=lambda n=n, w=w: seen.update({n: revoked(w)}))
            for n, w in waits.items()
        ]
        for thread in threads:
            thread.start()
        say(f"ready{rank}")
        for thread in threads:
            thread.join(40.0)
        assert seen.keys() == waits.keys()
        for group in (None, pair, lonely if rank == 2 else pair):  # and from now on
            revoked(lambda g=group: dist.all_reduce(torch.ones(2), group=g))
            revoked(lambda g=group: dist.send(torch.ones(2), group=g, group_dst=0 if rank else 1))
        return seen

    with AgentDouble(3) as agent:
        start(agent, [0, 1, 2], work)
        agent.segment.store.wait(["ready0", "ready1", "ready2"], 60.0)
        began = _core.monotonic_ns()
        agent.kill(1)
        for seen in agent.results([0, 2]):
            print({name: f"{(at - began) / 1e6:.2f} ms" for name, at in seen.items()})


def test_c10d_survivors_make_the_group_again_in_place() -> None:
    def work() -> list[float]:
        sums = []
        for _ in range(2):
            dist.init_process_group("hpcore", timeout=timedelta(seconds=50))
            tensor = torch.ones(1000) * (dist.get_rank() + 1)
            dist.all_reduce(tensor)
            sums.append(tensor[0].item())
            if dist.get_world_size() == 3:
                say(f"ready{dist.get_rank()}")
                revoked(lambda: [dist.barrier() for _ in range(1_000_000)])
            dist.destroy_process_group()
        return [*sums, dist.get_rank() if dist.is_initialized() else -1]

    with AgentDouble(3) as agent:
        start(agent, [0, 1, 2], work)
        agent.segment.store.wait(["ready0", "ready1", "ready2"], 60.0)
        agent.kill(0)  # the one that made the memory
        while agent.segment.revoked_generation < 1:
            agent.watch.next_event(1.0)
        keys = list(agent.segment.store.keys())
        assert any(key.startswith("c10d/g1/") for key in keys)
        agent.publish(2, [2, 1])
        assert agent.results([1, 2]) == [[6.0, 3.0, -1]] * 2
        keys = list(agent.segment.store.keys())
        assert not any(key.startswith("c10d/g1/") for key in keys), "the old keys are deleted"


def test_c10d_backward_of_ddp_raises_roster_changed() -> None:
    def work() -> None:
        dist.init_process_group("hpcore", timeout=timedelta(seconds=50))
        model = DistributedDataParallel(nn.Linear(100, 100))
        model(torch.ones(2, 100)).sum().backward()
        say(f"ready{dist.get_rank()}")
        if dist.get_rank() == 1:
            threading.Event().wait()
        with pytest.raises(errors.RosterChanged):
            while True:
                model(torch.ones(2, 100)).sum().backward()

    with AgentDouble(2) as agent:
        start(agent, [0, 1], work)
        agent.segment.store.wait(["ready0", "ready1"], 60.0)
        agent.kill(1)
        agent.results([0])


def test_c10d_standby_rehearses_alone() -> None:
    def work() -> None:
        dist.init_process_group("hpcore")
        assert (dist.get_rank(), dist.get_world_size()) == (2, 3)
        tensor = torch.arange(4.0)
        dist.all_reduce(tensor)
        assert tensor.tolist() == [0.0, 1.0, 2.0, 3.0]
        group = dist.new_group([0, 2])
        outs = [torch.empty(4), torch.empty(4)]
        dist.all_gather(outs, tensor, group=group)
        assert outs[0].tolist() == tensor.tolist()
        dist.send(tensor, 0)
        dist.recv(tensor, 1)
        dist.barrier()
        everything: list[Any] = [None] * 3
        dist.all_gather_object(everything, "me")
        assert everything == ["me"] * 3
        model = DistributedDataParallel(nn.Linear(3, 3))
        model(torch.ones(1, 3)).sum().backward()
        dist.destroy_process_group()

    with AgentDouble(1) as agent:
        agent.start(0, work, HPCORE_STANDBY="1", RANK="2", WORLD_SIZE="3")
        agent.results([0])
