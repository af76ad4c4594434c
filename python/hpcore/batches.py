"""How a step is made up: micro-batches, which samples are in them, and which rank runs which.
 All of it is a function of (seed, step, world size): nothing has to be restored after a fault. One
thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hpcore import _core
from hpcore.errors import InvalidArgument

STEPS_AHEAD = 8
"""So many steps ahead a dataset is told what will be read."""


@dataclass(frozen=True)
class MicroBatch:
    """Samples of one micro-batch.

    `data` is what the dataset gives for them (None without one), `samples` their numbers, `index`
    the number of the micro-batch in the step, `weight` its share of the global batch: the factor
    that turns a mean over the micro-batch into its part of the mean over the global batch.
    """

    data: Any
    samples: list[int]
    index: int
    weight: float


class Batches:
    """Deals the samples of a global batch, `micro_batch` at a time."""

    def __init__(self, global_batch: int, micro_batch: int, seed: int) -> None:
        if micro_batch < 1 or global_batch < 1 or global_batch % micro_batch:
            raise InvalidArgument(
                f"global_batch {global_batch} must be a positive multiple of "
                f"micro_batch {micro_batch}"
            )
        if not 0 <= seed < 1 << 63:
            raise InvalidArgument(f"seed {seed} must be from 0 to 2**63 - 1")
        self.global_batch = global_batch
        self.micro_batch = micro_batch
        self.seed = seed
        self.count = global_batch // micro_batch
        self.weight = micro_batch / global_batch
        self._order: tuple[int, int, Any] = (0, -1, None)  # samples, epoch, its permutation
        self._announced = (range(0), 0)  # for which micro-batches, and before which step

    def of_rank(self, rank: int, world_size: int) -> range:
        """The micro-batches of a rank: one contiguous block, as even as can be."""
        return range(self.count * rank // world_size, self.count * (rank + 1) // world_size)

    def first_with_work(self, world_size: int) -> int:
        """The lowest rank that has a micro-batch."""
        return next(rank for rank in range(world_size) if self.of_rank(rank, world_size))

    def first(self, step: int, index: int) -> int:
        """The position at which a micro-batch begins."""
        return step * self.global_batch + index * self.micro_batch

    def announce(self, data: Any, step: int, dealt: range) -> None:
        """Tells a dataset that reads ahead what comes after this step; each step once."""
        if not dealt or not hasattr(data, "announce"):
            return
        known = self._announced[1] if self._announced[0] == dealt else 0
        begin = known if step < known <= step + STEPS_AHEAD else step + 1
        if begin > step + STEPS_AHEAD // 2:
            return
        for coming in range(begin, step + 1 + STEPS_AHEAD):
            first = self.first(coming, dealt.start)
            data.announce(self.seed, first, len(dealt) * self.micro_batch)
        self._announced = (dealt, step + 1 + STEPS_AHEAD)

    def samples(self, data: Any, step: int, index: int) -> list[int]:
        """The samples of a micro-batch, in order: positions themselves if there is no dataset."""
        first = self.first(step, index)
        if data is None:
            return list(range(first, first + self.micro_batch))
        if hasattr(data, "samples_at"):  # a dataset of ours knows its own order
            order: list[int] = data.samples_at(self.seed, first, self.micro_batch)
            return order
        size = len(data)
        found: list[int] = []
        while len(found) < self.micro_batch:
            epoch, k = divmod(first + len(found), size)
            if self._order[:2] != (size, epoch):
                self._order = (size, epoch, _core.Permutation(size, self.seed, epoch))
            found += self._order[2].many(k, min(self.micro_batch - len(found), size - k))
        return found


def gather(data: Any, samples: list[int], first: int = 0) -> Any:
    """The batch of these samples, at positions `first` and following, from a dataset: `batch_at`
    or `batch`, else `__getitems__` or `__getitem__`, collated."""
    if data is None:
        return None
    if hasattr(data, "batch_at"):
        return data.batch_at(samples, first)
    if hasattr(data, "batch"):
        return data.batch(samples)
    from torch.utils.data import default_collate

    items: Iterable[Any] = (
        data.__getitems__(samples)
        if hasattr(data, "__getitems__")
        else [data[sample] for sample in samples]
    )
    return default_collate(list(items))
