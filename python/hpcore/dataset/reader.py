"""Reading: samples out of a mapped ``.hpd`` file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hpcore import _core
from hpcore.dataset.info import describe
from hpcore.errors import InvalidArgument

if TYPE_CHECKING:
    import torch

Permutation = _core.Permutation
"""``Permutation(count, seed, epoch)``: ``p(k)`` is the sample at position k."""


class MappedDataset:
    """A ``.hpd`` file as samples of ``sequence + 1`` tokens, ``sequence`` apart.

    Works as a map-style ``torch.utils.data`` dataset and can be pickled (it is opened again by its
    path). Thread-safe. The file must not change while it is open: one that is cut short raises
    CorruptData at the next batch.

    Args:
        path: the file.
        sequence: tokens a sample, less the one that is only a target.
        verify: check each block of 256 KiB against its checksum when this process first touches it.

    Raises CorruptData, NotFound, InvalidArgument (no whole sample in the file).
    """

    def __init__(
        self, path: str | os.PathLike[str], sequence: int = 128, verify: bool = True
    ) -> None:
        if sequence < 1:
            raise InvalidArgument(f"sequence must be at least 1 token, not {sequence}")
        self.path = os.fspath(path)
        self.sequence = sequence
        self._verify = verify
        self._file: Any = _core.DatasetFile(self.path, verify)
        self.info = describe(self.path, self._file.info())
        self._field = self._stream()
        self._length: int = _core.sample_count(self._file, self._field, sequence, sequence + 1)
        if self._length == 0:
            raise InvalidArgument(
                f"dataset {self.path} has {self.info.tokens} tokens: not one sample of "
                f"{sequence} + 1; choose a shorter sequence"
            )

    def _stream(self) -> int:
        for number, field in enumerate(self.info.fields):
            if field.kind == "tokens":
                return number
        raise InvalidArgument(f"dataset {self.path} holds no stream of tokens")

    @property
    def vocabulary(self) -> int:
        """Every token is below this."""
        return self.info.vocabulary

    @property
    def uuid(self) -> str:
        """Made from the content: equal for equal files."""
        return self.info.uuid

    def __len__(self) -> int:
        return self._length

    def batch(self, indices: Sequence[int]) -> torch.Tensor:
        """Samples as int64 ``[len(indices), sequence + 1]``, in that order. Blocks on reads only.

        Raises InvalidArgument (index out of range), CorruptData.
        """
        import torch

        out = torch.empty((len(indices), self.sequence + 1), dtype=torch.int64)
        _core.gather(
            self._opened(), self._field, indices, self.sequence, self.sequence + 1, out.data_ptr()
        )
        return out

    def __getitem__(self, index: int) -> torch.Tensor:
        if not 0 <= index < self._length:
            raise IndexError(f"sample {index} of {self._length} in dataset {self.path}")
        return self.batch([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[torch.Tensor]:
        """What torch's DataLoader calls for a whole batch."""
        return list(self.batch(indices))

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (self[index] for index in range(self._length))

    def order(self, seed: int, epoch: int) -> _core.Permutation:
        """The permutation of one epoch: position -> sample."""
        return Permutation(self._length, seed, epoch)

    def close(self) -> None:
        """Unmaps the file when the last reader is done. Twice is fine."""
        self._file = None

    def _opened(self) -> Any:
        if self._file is None:
            raise InvalidArgument(f"dataset {self.path} is closed")
        return self._file

    def __enter__(self) -> MappedDataset:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "sequence": self.sequence, "verify": self._verify}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"MappedDataset({self.path!r}, sequence={self.sequence}, samples={self._length})"
