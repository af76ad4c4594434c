"""`Job`: a training loop whose steps are transactions, and whose state outlives the ranks.
 Used by the script's main thread only. Without `hpcore run` the same loop runs as a world of one,
without recovery.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from torch import nn

from hpcore.batches import Batches
from hpcore.errors import InvalidArgument, Unsupported
from hpcore.loop import Loop
from hpcore.membership.process import this_job, this_worker
from hpcore.protection import Protection
from hpcore.sharding import is_dtensor
from hpcore.step import Step

__all__ = ["Job"]

M = TypeVar("M", bound=nn.Module)


class Job:
    """A job's identity, its tracked state, and its loop.

    Args:
        global_batch: samples of one step, over all ranks; stays the same whatever the number of
            ranks.
        micro_batch: samples of the unit that is dealt to ranks; divides `global_batch`.
        seed: key of the sample order and of all random numbers, at least 0.
        ledger: write every rank's samples to the events of every step; a path: note them in this
            file, too, as `hpcore run --ledger FILE` does, for `hpcore ledger verify FILE`.
        shadow_every: copy each rank's state of every so many steps into host memory that outlives
            the rank, beside the next step; 0: never. Worth it where sharding leaves no second
            replica (FSDP without HSDP): when a rank is lost, all go back to the last copy. Takes
            twice the rank's state.
        compare_every: replicas compare digests of parameters and optimizer state in every so many
            steps; 0: never. Of three or more the odd one out is healed and reported as suspect.
        on_corruption: "stop" or "warn", where replicas differ and there is no majority.
        checkpoint_dir: a folder, on a disk that all ranks see, for durable checkpoints; a job that
            starts and finds one there goes on from the newest.
        checkpoint_every: write one every so many steps, beside the next ones; 0: never.
        exact: the loss curve is the same to the bit at any number of ranks and after any history of
            faults and resizes: gradients and sums are added up exactly and rounded once, and a
            micro-batch starts from the buffers of the step's begin. Costs 8 bytes a parameter; give
            commit lists, with one value for each micro-batch (docs/elastic.md).
    """

    def __init__(
        self,
        global_batch: int,
        micro_batch: int,
        seed: int = 0,
        ledger: bool | str = False,
        shadow_every: int = 0,
        compare_every: int = 0,
        on_corruption: str = "stop",
        checkpoint_dir: str = "",
        checkpoint_every: int = 0,
        exact: bool = False,
    ) -> None:
        batches = Batches(global_batch, micro_batch, seed)
        worker = this_worker()
        facts = this_job() if worker is not None else None
        protection = Protection(
            shadow_every=shadow_every,
            compare_every=compare_every,
            on_corruption=on_corruption,
            checkpoint_dir=checkpoint_dir,
            checkpoint_every=checkpoint_every,
            exact=exact,
        )
        self._loop = Loop(batches, worker, facts, ledger, protection)
        self._started = False

    # --- who am I -----------------------------------------------------------------------------

    @property
    def rank(self) -> int:
        """This worker's rank in the current generation; a standby's is the last one."""
        return self._loop.world.rank

    @property
    def world_size(self) -> int:
        """Number of ranks in the current generation."""
        return self._loop.world.world_size

    @property
    def generation(self) -> int:
        """Number of the current roster; 0 before the first, and without `hpcore run`."""
        return self._loop.world.generation

    @property
    def rehearsing(self) -> bool:
        """Whether this is a standby's rehearsal, of which nothing is kept."""
        return self._loop.rehearsing

    @property
    def steps_done(self) -> int:
        """Number of committed steps."""
        return self._loop.steps_done

    @property
    def rank_local(self) -> dict[str, Any]:
        """Plain values of this rank alone; whoever takes the rank over gets what they were at
        commit."""
        return self._loop.rank_local.values

    @property
    def global_batch(self) -> int:
        """Samples of one step, over all ranks."""
        return self._loop.batches.global_batch

    @property
    def micro_batch(self) -> int:
        """Samples of one micro-batch."""
        return self._loop.batches.micro_batch

    @property
    def seed(self) -> int:
        """Key of the sample order and of all random numbers."""
        return self._loop.batches.seed

    # --- what is held -------------------------------------------------------------------------

    def replicate(self, model: M) -> M:
        """Takes a module whose parameters and buffers every rank holds alike; returns the same
        module.

        Its gradients are summed at commit, its changed buffers spread, and it is tracked.
        """
        self._require_before_loop("replicate")
        if any(is_dtensor(parameter) for parameter in model.parameters()):
            raise InvalidArgument(
                f"{type(model).__name__} has sharded parameters: call job.shard(model) for it"
            )
        self._loop.replicate(model)
        return model

    def shard(self, model: M) -> M:
        """Takes a module that is sharded by FSDP2's fully_shard (FSDP, HSDP, over tensor parallel
        or not); returns the same module. Call it after fully_shard, before the optimizer is made.

        Its gradients are summed by FSDP2, in backward, instead of averaged: weights are in the
        loss. Each data-parallel rank runs as many micro-batches as the others. A newcomer takes
        its shards from the ranks that hold the same ones (HSDP). Meshes, and their groups, follow
        into each generation; other process groups of the script's do not.
        Raises InvalidArgument if nothing of it is sharded.
        """
        self._require_before_loop("shard")
        if self._loop.gradients.exact:
            raise Unsupported(
                "exact=True with a sharded model: FSDP2 adds up gradients in an order of its own; "
                "use job.replicate, or exact=False"
            )
        self._loop.shard(model)
        return model

    def track(self, **named: Any) -> None:
        """Tracks what a newcomer must receive and what a discarded step gives back.

        Takes modules, optimizers, objects with state_dict and load_state_dict, tensors, dicts,
        lists, sets, deques of plain values (restored in place) and torch.Generators. Raises
        Unsupported, with the name, for anything else.
        """
        self._require_before_loop("track")
        for name, holder in named.items():
            self._loop.state.add(name, holder)

    # --- the loop -----------------------------------------------------------------------------

    def steps(self, data: Any = None, *, total: int) -> Iterator[Step]:
        """Yields steps until `total` are committed. A step that was hit by a fault is yielded
        again.

        Args:
            data: a dataset with len() and `batch(samples)`, `__getitems__` or `__getitem__`; None:
                samples are positions.
            total: number of steps from the beginning of the job.

        Blocks at the start until all ranks are there. Raises JobStopped, MismatchError.
        """
        self._require_before_loop("steps")
        if total < 0:
            raise InvalidArgument(f"total must not be negative: {total}")
        if data is not None and len(data) == 0:
            raise InvalidArgument("the dataset is empty")
        self._started = True
        return self._loop.run(data, total)

    def _require_before_loop(self, what: str) -> None:
        if self._started:
            raise InvalidArgument(
                f"job.{what} after job.steps: a job has one loop, and its state is fixed when it "
                "begins"
            )
