"""What all datasets here have in common: numbered samples in an order that is computed."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpcore import _core
from hpcore.errors import InvalidArgument

if TYPE_CHECKING:
    from hpcore.dataset.computed import Computed
    from hpcore.dataset.loaders import BatchLoader, StreamDataset
    from hpcore.dataset.split import Part


def reading_code(*facts: Any) -> int:
    """32 bits for how content is cut into samples."""
    return zlib.crc32(repr(facts).encode())


class Samples(ABC):
    """Numbered samples: a map-style ``torch.utils.data`` dataset with an order.

    The sample at a position of the order is a pure function of (dataset, seed, position): nothing
    has to be saved to go on, and who reads it does not matter.
    """

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batch(self, indices: Sequence[int]) -> Any:
        """These samples, in that order. Raises InvalidArgument for an index out of range."""

    @property
    @abstractmethod
    def identity(self) -> bytes:
        """16 bytes that name the content."""

    @property
    @abstractmethod
    def reading(self) -> int:
        """32 bits that say how the content is cut into samples."""

    # --- the order ----------------------------------------------------------------------------

    def samples_at(self, seed: int, first: int, count: int, shuffle: bool = True) -> list[int]:
        """The samples at positions [first, first + count), epoch after epoch."""
        size, found = len(self), list[int]()
        if not size:
            raise InvalidArgument(f"{self!r} has no sample")
        while len(found) < count:
            epoch, k = divmod(first + len(found), size)
            run = min(count - len(found), size - k)
            if shuffle:
                found += _core.Permutation(size, seed, epoch).many(k, run)
            else:
                found += range(k, k + run)
        return found

    def batch_at(self, indices: Sequence[int], first: int) -> Any:
        """As `batch`; the samples stand at positions `first` and following."""
        return self.batch(indices)

    def read(self, seed: int, first: int, count: int, shuffle: bool = True) -> Any:
        """The batch at positions [first, first + count)."""
        return self.batch_at(self.samples_at(seed, first, count, shuffle), first)

    def will_need(self, indices: Sequence[int]) -> int:
        """Says that these samples come soon: what is not in memory is read meanwhile.

        Never blocks; returns how many blocks of the file that were.
        """
        return 0

    def announce(self, seed: int, first: int, count: int, shuffle: bool = True) -> int:
        """`will_need` for the samples at positions [first, first + count)."""
        return self.will_need(self.samples_at(seed, first, count, shuffle))

    # --- views --------------------------------------------------------------------------------

    def split(self, shares: Mapping[str, float], seed: int = 0, group: int = 1) -> dict[str, Part]:
        """Disjoint parts, by a keyed hash of the sample numbers: see `hpcore.dataset.split`."""
        from hpcore.dataset.split import split

        return split(self, shares, seed, group)

    def map(self, fn: Callable[..., Any], **options: Any) -> Computed:
        """Samples as ``fn(sample)``, computed once per node if asked: see `Computed`."""
        from hpcore.dataset.computed import Computed

        return Computed(self, fn, **options)

    def loader(self, batch_size: int, **options: Any) -> BatchLoader:
        """Batches of this rank, from any position on: see `BatchLoader`."""
        from hpcore.dataset.loaders import BatchLoader

        return BatchLoader(self, batch_size, **options)

    def iterable(self, batch_size: int, **options: Any) -> StreamDataset:
        """The same as an IterableDataset, for ``DataLoader(..., batch_size=None)``."""
        from hpcore.dataset.loaders import StreamDataset

        return StreamDataset(self, batch_size, **options)

    # --- as a map-style dataset ---------------------------------------------------------------

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)} in {self!r}")
        return unbatch(self.batch([index]), 1)[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """What torch's DataLoader calls for a whole batch."""
        return unbatch(self.batch(indices), len(indices))

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))


def unbatch(batch: Any, count: int) -> list[Any]:
    """A collated batch as its samples."""
    if isinstance(batch, dict):
        columns = {name: unbatch(column, count) for name, column in batch.items()}
        return [{name: column[i] for name, column in columns.items()} for i in range(count)]
    if isinstance(batch, tuple):
        return list(zip(*(unbatch(column, count) for column in batch), strict=True))
    return list(batch)
