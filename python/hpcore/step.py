"""A step: one optimizer step over one global batch, which happens exactly once or not at all.

A context manager made by `Job.steps`, used by the training thread only.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch

from hpcore.batches import MicroBatch, gather
from hpcore.drill import apply_half
from hpcore.errors import (
    CorruptData,
    InvalidArgument,
    JobStopped,
    MismatchError,
    OutOfSpace,
    RosterChanged,
    Unsupported,
)
from hpcore.gradients import STEP_TIMEOUT_S, parameters_of, scale_gradients
from hpcore.randomness import seed_micro_batch, seed_step
from hpcore.totals import Totals
from hpcore.world import Phase

if TYPE_CHECKING:
    from hpcore.loop import Loop

USAGE_ERRORS = (InvalidArgument, MismatchError, Unsupported, OutOfSpace, JobStopped)
"""Mistakes in the script: the same on every try, so they leave the loop at once."""


_ALL_RANKS = -1  # what all ranks draw alike, outside of micro-batches


class Step:
    """One transaction. `index` counts from 0; `attempt`: how often it was begun here, from 1."""

    def __init__(self, loop: Loop, index: int, data: Any, attempt: int = 1) -> None:
        self.index = index
        self.attempt = attempt
        self.grad_norm: float | None = None
        self.discarded = False
        self.begin_ns = 0
        self.sums: dict[str, float] = {}
        self.samples: list[int] = []
        self._loop = loop
        self._world = loop.world
        self._data = data
        self._stage = "new"
        self._torn = False
        self._hooks: list[Any] = []

    @property
    def ended(self) -> bool:
        """Whether the `with` block was left."""
        return self._stage == "ended"

    def require_ended(self) -> None:
        """Raises InvalidArgument if the loop goes on although the step was not run."""
        if not self.ended:
            raise InvalidArgument(
                f"step {self.index} was not run: write `with step:` around its body"
            )

    # --- the block ----------------------------------------------------------------------------

    def __enter__(self) -> Step:
        if self._stage != "new":
            raise InvalidArgument(f"step {self.index} was entered before: each step has one `with`")
        self._stage = "open"
        self.begin_ns = time.monotonic_ns()
        self._world.progress(self.index, Phase.FORWARD)
        rank = _ALL_RANKS if self._loop.gradients.exact else self._world.rank
        seed_step(self._loop.batches.seed, self.index, rank)
        self._hooks = self._loop.begin_step(self.index)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        for hook in self._hooks:
            hook.remove()
        committed, self._stage = self._stage == "committed", "ended"
        if kind is None:
            if not committed:
                raise InvalidArgument(
                    f"step {self.index} ended without commit: call step.commit(optimizer) once in "
                    "each `with step:` block (to leave the loop early, break after the block)"
                )
            self._loop.end_step(self)
            return False
        if not issubclass(kind, Exception) or issubclass(kind, USAGE_ERRORS):
            return False
        lost = issubclass(kind, RosterChanged) and not self._torn
        text = "" if lost else "".join(traceback.format_exception(kind, error, trace))
        return self._loop.discard_step(self, self._torn, text)

    # --- work ---------------------------------------------------------------------------------

    def micro_batches(self) -> Iterator[MicroBatch]:
        """The micro-batches of this rank, in order; each draws its own random numbers.

        Raises RosterChanged (left to the `with` block) as soon as the generation is over.
        """
        self._require_open("micro_batches")
        world, batches, lane = self._world, self._loop.batches, self._loop.lane
        gradients, buffers = self._loop.gradients, self._loop.buffers
        dealt = batches.of_rank(lane.index, lane.count)
        buffers.forget_first()
        batches.announce(self._data, self.index, dealt)
        for index in dealt:
            world.check()
            if gradients.exact and index != dealt.start:
                buffers.begin_again(keep=index == dealt.start + 1)
            world.progress(self.index, Phase.FORWARD)
            samples = batches.samples(self._data, self.index, index)
            data = gather(self._data, samples, batches.first(self.index, index))
            self.samples += samples
            seed_micro_batch(batches.seed, self.index, index)
            yield MicroBatch(data, samples, index, batches.weight)
            gradients.end_micro_batch()
        if gradients.exact:
            if len(dealt) > 1:
                buffers.take_first()
            seed_step(batches.seed, self.index, _ALL_RANKS)
        world.check()

    def weight(self, batch: MicroBatch) -> float:
        """The share of the global batch that `batch` is."""
        return batch.weight

    def commit(
        self,
        optimizers: Any,
        *,
        scaler: Any = None,
        clip_grad_norm: float | None = None,
        before_apply: Callable[[], None] | None = None,
        **sums: Any,
    ) -> dict[str, float]:
        """Sums the gradients over all ranks, agrees that the step happens, and applies it.

        Args:
            optimizers: one optimizer or a list; each tracked, over replicated parameters.
            scaler: a torch GradScaler: gradients are unscaled, and steps with infinities skipped on
                all ranks alike.
            clip_grad_norm: largest 2-norm of all gradients together; the norm found is
                `step.grad_norm`.
            before_apply: called when the step is agreed, before clipping and the optimizers.
            sums: numbers, one-element tensors, or lists with one for each micro-batch, which are
                summed over ranks; the same names on every rank. Exact mode: lists and integers.

        Returns the sums, the same on every rank. Blocks until all ranks came. Raises
        InvalidArgument if called twice or outside of `with`, MismatchError if ranks pass different
        names, RosterChanged (left to the `with` block).
        """
        self._require_open("commit")
        loop, world = self._loop, self._world
        chosen: list[Any] = list(optimizers) if isinstance(optimizers, Sequence) else [optimizers]
        loop.check_optimizers(chosen)
        if loop.rehearsing:
            loop.drill.fire("rehearsal", None, self.index)
        world.progress(self.index, Phase.REDUCE)
        if loop.comparison.due(self.index):
            self._compare()
        self.sums = self._reduce(sums)
        if loop.shards.modules:
            self._prepare_sharded(chosen, scaler, clip_grad_norm)
        loop.drill.fire("before_ready", loop.drill_rank, self.index)
        loop.save_rank_local(self.index + 1)
        loop.intend(self)
        self._agree()
        loop.drill.fire("after_commit", loop.drill_rank, self.index)
        self._apply(chosen, scaler, clip_grad_norm, before_apply)
        world.progress(self.index, Phase.IDLE)
        return dict(self.sums)

    # --- parts of commit ----------------------------------------------------------------------

    def _require_open(self, what: str) -> None:
        if self._stage == "open":
            return
        why = {
            "new": "was not entered: write `with step:` around its body",
            "committed": "is committed already: commit once, as the last call that needs gradients",
            "ended": "has ended: its `with` block was left",
        }[self._stage]
        raise InvalidArgument(f"step.{what}: step {self.index} {why}")

    def _reduce(self, sums: dict[str, Any]) -> dict[str, float]:
        """Sums flags, keyword values and gradients over ranks; spreads buffers that a forward
        changed."""
        loop, world = self._loop, self._world
        gradients, totals = loop.gradients, Totals(sums, loop.gradients.exact)
        flags, changed = gradients.flags(), loop.buffers.flags()
        head = [totals.key, gradients.unfit()]
        own = [*head, *flags, *changed, *totals.encode(loop.lane.counts)]
        control = torch.tensor(own, dtype=torch.float64)
        where = [(control.data_ptr(), control.numel())]
        try:
            world.communicator.all_reduce(where, "float64", "sum", STEP_TIMEOUT_S)
        except MismatchError as error:
            raise self._different_sums(totals.names) from error
        values: list[float] = control.tolist()
        if not loop.rehearsing and values[0] != totals.key * world.world_size:
            raise self._different_sums(totals.names)
        buffers_at = len(head) + len(flags)
        sums_at = buffers_at + len(changed)
        gradients.reduce(world.communicator, values[len(head) : buffers_at], values[1])
        root = 0 if loop.shards.modules else loop.batches.first_with_work(world.world_size)
        loop.buffers.spread(world.communicator, root, values[buffers_at:sums_at])
        return totals.decode(values[sums_at:])

    def _compare(self) -> None:
        try:
            self._loop.comparison.run(self.index)
        except CorruptData:
            self._torn = True  # a suspect is healed
            raise

    def _prepare_sharded(
        self, optimizers: list[Any], scaler: Any, clip_grad_norm: float | None
    ) -> None:
        """What takes all ranks must be done before the step is agreed: afterwards it cannot fail.

        Raises Unsupported for a gradient scaler, RosterChanged.
        """
        if scaler is not None:
            raise Unsupported(
                "a gradient scaler for a sharded model: ranks would skip steps each by itself; "
                "train in bfloat16"
            )
        if clip_grad_norm is not None:
            world = self._world
            self.grad_norm = self._loop.shards.norm(
                parameters_of(optimizers), world.communicator, world.world_size
            )

    def _different_sums(self, names: list[str]) -> MismatchError:
        return MismatchError(
            f"step {self.index}: ranks pass different sums to commit; rank {self._world.rank} "
            f"passes {names}: pass the same names on every rank, 0.0 where there is nothing to add"
        )

    def _agree(self) -> None:
        """Between saying ready and hearing the outcome this rank does not know whether the step
        happens."""
        world, loop = self._world, self._loop
        loop.tiers.settle()
        loop.tiers.confirm()
        world.ready(self.index)
        self._torn = True
        loop.drill.fire("after_ready", loop.drill_rank, self.index)
        try:
            world.wait(self.index)
        except RosterChanged:
            self._torn = False
            raise
        self._stage = "committed"
        loop.committed(self, self._data)
        world.progress(self.index, Phase.APPLY)

    def _apply(
        self,
        optimizers: list[Any],
        scaler: Any,
        clip_grad_norm: float | None,
        before_apply: Callable[[], None] | None,
    ) -> None:
        if before_apply is not None:
            before_apply()
        if scaler is not None:
            if scaler.is_enabled() and scaler._scale is None:  # a rank without micro-batches
                scaler._lazy_init_scale_growth_tracker(torch.device("cpu"))
            for optimizer in optimizers:
                scaler.unscale_(optimizer)
        if clip_grad_norm is not None:
            parameters = parameters_of(optimizers)
            if self.grad_norm is None:
                self.grad_norm = float(torch.nn.utils.clip_grad_norm_(parameters, clip_grad_norm))
            else:
                scale_gradients(parameters, clip_grad_norm / (self.grad_norm + 1e-6))
        half = partial(apply_half, optimizers[0])
        self._loop.drill.fire("optimizer", self._loop.drill_rank, self.index, half)
        for optimizer in optimizers:
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
        if scaler is not None:
            scaler.update()
