"""Batches of one rank, from any position on, for any number of ranks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from hpcore.batches import Batches
from hpcore.dataset.cursor import Cursor
from hpcore.errors import InvalidArgument

if TYPE_CHECKING:
    from hpcore.dataset.samples import Samples

__all__ = ["BatchLoader", "StreamDataset", "this_rank"]

_STEPS_AHEAD = 4
"""How many steps ahead the file is read where it is not in memory."""


def this_rank() -> tuple[int, int]:
    """(rank, world size): of torch.distributed if it is initialised, else of the environment."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


class BatchLoader:
    """The micro-batches of a rank, step after step.

    A step's micro-batches are a function of (dataset, seed, step) alone; a rank takes a contiguous
    block of them. Going through it once is an epoch: as many steps as whole batches are left in
    it, from wherever it stands; going on afterwards is the next epoch. One thread.

    Args:
        data: what is read.
        batch_size: samples of a step, over all ranks.
        micro_batch: samples of what is yielded; divides `batch_size`. None: a rank's whole share,
            which then must be the same for all ranks.
        seed: key of the order.
        shuffle: else in the order of the file, epoch after epoch.
        rank, world_size: None: of torch.distributed, else of the environment, else 0 of 1.
        steps: how many steps are an epoch; None: `len(data) // batch_size`; for a mixture, which
            has no epochs, the steps that one pass takes.
        pin_memory: batches in pinned memory (of torch's caching allocator, so it is reused).
    """

    def __init__(
        self,
        data: Samples,
        batch_size: int,
        *,
        micro_batch: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        rank: int | None = None,
        world_size: int | None = None,
        steps: int | None = None,
        pin_memory: bool = False,
    ) -> None:
        own_rank, own_size = this_rank()
        self.rank = own_rank if rank is None else rank
        self.world_size = own_size if world_size is None else world_size
        if not 0 <= self.rank < self.world_size:
            raise InvalidArgument(f"rank {self.rank} must be from 0 to {self.world_size - 1}")
        if micro_batch is None:
            if batch_size % self.world_size:
                raise InvalidArgument(
                    f"batch_size {batch_size} is not a multiple of the {self.world_size} ranks: "
                    "choose a micro_batch, which is dealt to them"
                )
            micro_batch = batch_size // self.world_size
        self.data, self.shuffle, self.pin_memory = data, shuffle, pin_memory
        self.batches = Batches(batch_size, micro_batch, seed)
        self.steps = len(data) // batch_size if steps is None else steps
        if self.steps < 1:
            raise InvalidArgument(
                f"{data!r} has {len(data)} samples: not one batch of {batch_size}"
            )
        self.step = 0
        """Steps done since the first epoch; set it to go on from there."""

    @property
    def mine(self) -> range:
        """Which of a step's micro-batches are this rank's."""
        return self.batches.of_rank(self.rank, self.world_size)

    def __len__(self) -> int:
        """Micro-batches of this rank in an epoch."""
        return self.steps * len(self.mine)

    def __iter__(self) -> Iterator[Any]:
        end = (self.step // self.steps + 1) * self.steps
        each = range(len(self.mine))
        while self.step < end:
            step, self.step = self.step, self.step + 1
            for index in each:
                yield self.micro_batch_of(step, index)

    def micro_batch_of(self, step: int, index: int) -> Any:
        """This rank's micro-batch `index` of a step."""
        if index == 0 and step % _STEPS_AHEAD == 0:
            self._look_ahead(step)
        size = self.batches.micro_batch
        first = step * self.batches.global_batch + (self.mine.start + index) * size
        batch = self.data.read(self.batches.seed, first, size, self.shuffle)
        return pinned(batch) if self.pin_memory else batch

    def _look_ahead(self, step: int) -> None:
        mine, size = self.mine, self.batches.micro_batch
        for coming in range(step + 1, step + 1 + 2 * _STEPS_AHEAD):
            first = coming * self.batches.global_batch + mine.start * size
            self.data.announce(self.batches.seed, first, len(mine) * size, self.shuffle)

    # --- state --------------------------------------------------------------------------------

    def state(self) -> bytes:
        """40 bytes: the steps begun so far, for any number of ranks and any micro-batch."""
        position = self.step * self.batches.global_batch
        return Cursor.of(self.data, self.batches.seed, position).to_bytes()

    def load_state(self, state: bytes) -> None:
        """Goes on there. Raises CorruptData, MismatchError (another dataset, reading, or order),
        InvalidArgument (a position within a step of this size)."""
        cursor = Cursor.from_bytes(state)
        cursor.check(self.data)
        if cursor.position % self.batches.global_batch:
            raise InvalidArgument(
                f"position {cursor.position} is within a step of {self.batches.global_batch} "
                "samples: choose the batch_size that it was made with, or a divisor of it"
            )
        if cursor.seed != self.batches.seed:
            self.batches = Batches(self.batches.global_batch, self.batches.micro_batch, cursor.seed)
        self.step = cursor.position // self.batches.global_batch

    def state_dict(self) -> dict[str, Any]:
        """The state under a name, for frameworks that save dicts."""
        return {"cursor": self.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `load_state`."""
        self.load_state(state["cursor"])


class StreamDataset(IterableDataset[Any]):
    """A BatchLoader as torch's IterableDataset: use ``DataLoader(stream, batch_size=None)``.

    With n workers each takes every n-th micro-batch, and DataLoader takes from them in turn: the
    order stays that of one process. Has `state_dict` and `load_state_dict`, so a StatefulDataLoader
    goes on where it was. Workers that are not persistent begin anew from the main process's copy:
    say `set_epoch` before each epoch then. Arguments: those of `BatchLoader`.
    """

    def __init__(self, data: Samples, batch_size: int, **options: Any) -> None:
        super().__init__()
        self.loader = BatchLoader(data, batch_size, **options)
        self._begun = 0  # micro-batches of the step at which the loader stands

    def __len__(self) -> int:
        return len(self.loader)

    def set_epoch(self, epoch: int) -> None:
        """The next pass is this epoch, from its beginning."""
        self.loader.step, self._begun = epoch * self.loader.steps, 0

    def __iter__(self) -> Iterator[Any]:
        loader, worker = self.loader, get_worker_info()
        lane, lanes = (0, 1) if worker is None else (worker.id, worker.num_workers)
        end = (loader.step // loader.steps + 1) * loader.steps
        each = len(loader.mine)
        while loader.step < end and each:
            step, index = loader.step, self._begun
            self._begun += 1
            if self._begun == each:
                loader.step, self._begun = step + 1, 0
            if (step * each + index) % lanes == lane:
                yield loader.micro_batch_of(step, index)

    def state_dict(self) -> dict[str, Any]:
        """Where this process is: before which step, and how much of it is done here."""
        return {**self.loader.state_dict(), "begun": self._begun}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `BatchLoader.load_state`."""
        self.loader.load_state_dict(state)
        self._begun = state["begun"]


def pinned(batch: Any) -> Any:
    """The batch in pinned memory."""
    from torch.utils.data._utils import pin_memory

    return pin_memory.pin_memory(batch)  # type: ignore[no-untyped-call]
