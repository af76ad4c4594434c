"""Steps of FSDP2 and HSDP models that are aborted, run again: the bits of an undisturbed run.

By an exception of the user's, by a collective that raises RosterChanged in a hook (the step then
goes on in a new generation), and by SIGKILL.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import torch.distributed as dist
from c10d_agent import AgentDouble
from c10d_ranks import run_ranks
from fsdp2_training import Training

from hpcore import _core, distributed, errors
from hpcore.integrations import fsdp2, meshes
from hpcore.membership.process import this_worker
from hpcore.membership.roster import Roster

pytestmark = pytest.mark.torch

WORLD = 4
STEPS = 5
PLACES = [("forward", 2), ("forward", 5), ("backward", 1), ("backward", 4), ("backward", 6)]
"""(place, how often it is passed before): three blocks, two micro-batches."""


class Oops(Exception):
    """Of the user's."""


@functools.cache
def undisturbed(replicas: int) -> list[Any]:
    def work(rank: int) -> Any:
        training = Training(WORLD, replicas)
        losses = [training.step(number, rank) for number in range(STEPS)]
        return losses, training.digest()

    return run_ranks(WORLD, work)


@pytest.mark.parametrize("replicas", [1, 2])
def test_step_that_an_exception_aborted_runs_again_bit_equal(replicas: int) -> None:
    def work(rank: int) -> Any:
        training = Training(WORLD, replicas)
        losses = []
        for number in range(STEPS):
            place, count = PLACES[number]

            def fail() -> None:
                raise Oops

            training.trap.set(place, count, fail)
            with pytest.raises(Oops):
                training.step(number, rank)
            fsdp2.reset(training.model)
            losses.append(training.step(number, rank))
        return losses, training.digest()

    assert run_ranks(WORLD, work) == undisturbed(replicas)


def test_reset_drops_gradients_that_were_accumulated_unsharded() -> None:
    """As set_requires_gradient_sync(False) leaves them: FSDP2's own reset keeps them."""

    def work(rank: int) -> Any:
        training = Training(WORLD, 1)
        training.step(0, rank)
        training.model.set_requires_gradient_sync(False)
        training.trap.set("backward", 5, _fail)
        with pytest.raises(Oops):
            training.step(1, rank)
        fsdp2.reset(training.model)
        training.model.set_requires_gradient_sync(True)
        losses = [training.step(number, rank) for number in range(1, STEPS)]
        return losses, training.digest()

    expected = [(losses[1:], digest) for losses, digest in undisturbed(1)]
    assert run_ranks(WORLD, work) == expected


def _fail() -> None:
    raise Oops


def enter(generation: int, timeout_s: float = 40.0) -> meshes.Membership:
    """Waits for the roster of that generation and makes all groups anew."""
    worker = this_worker()
    assert worker is not None
    found = worker.wait_roster(generation - 1, timeout_s)
    assert found is not None
    roster = Roster.from_bytes(found[1])
    rank = roster.rank_of(worker.slot)
    assert rank is not None
    timeout = timedelta(seconds=timeout_s)
    store = distributed.store_of(worker, roster, timeout)
    membership = meshes.Membership(store, rank, roster.world_size, timeout)
    meshes.rebuild(membership)
    return membership


def through_generations(replicas: int) -> Callable[[], Any]:
    """A rank that loses each step once to the end of its generation, in the middle of a hook."""

    def work() -> Any:
        dist.init_process_group("hpcore", timeout=timedelta(seconds=40))
        rank, worker = dist.get_rank(), this_worker()
        assert worker is not None
        training = Training(WORLD, replicas)
        losses = []
        for number in range(STEPS):
            generation = number + 1
            place, count = PLACES[number]

            def lose(generation: int = generation) -> None:
                worker.segment.store.set(f"lost/{generation}/{rank}", b"")
                if rank == 1:  # the others go on, into a collective that ends with the generation
                    worker.segment.store.get(f"over/{generation}", 40.0)

            training.trap.set(place, count, lose)
            with pytest.raises(errors.RosterChanged):
                training.step(number, rank)
                dist.barrier()
            membership = enter(generation + 1)
            fsdp2.reset(training.model)
            fsdp2.repoint(training.model, membership)
            losses.append(training.step(number, rank))
        return losses, training.digest()

    return work


@pytest.mark.parametrize("replicas", [1, 2])
def test_step_goes_on_in_the_next_generation_bit_equal(replicas: int) -> None:
    slots = list(range(WORLD))
    with AgentDouble(WORLD) as agent:
        for slot in slots:
            agent.start(slot, through_generations(replicas))
        agent.await_state(slots, _core.STATE_TRAINING)
        agent.publish(1, slots)
        for generation in range(1, STEPS + 1):
            for rank in slots:
                agent.segment.store.get(f"lost/{generation}/{rank}", 40.0)
            agent.segment.close_generation(generation)
            agent.segment.store.set(f"over/{generation}", b"")
            agent.publish(generation + 1, slots)
        assert agent.results(slots) == undisturbed(replicas)
