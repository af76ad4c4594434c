"""Token datasets in one mapped file: built once, read by every process, order not stored.

The sample at position ``k`` of an epoch is ``Permutation(len(dataset), seed, epoch)(k)``: a pure
function, so a job that goes on after a fault, or with another number of ranks, needs no saved data
position.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hpcore import _core
from hpcore.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    import torch

__all__ = [
    "DatasetInfo",
    "MappedDataset",
    "Permutation",
    "build_text",
    "info",
    "text_files",
    "verify",
]

Permutation = _core.Permutation
"""``Permutation(count, seed, epoch)``: ``p(k)`` is the sample at position k."""

_TOKEN_BYTES = {"uint8": 1, "uint16": 2}


@dataclass(frozen=True)
class DatasetInfo:
    """What the superblock of a ``.hpd`` file says. ``uuid`` is made from the content."""

    path: str
    uuid: str
    version: int
    dtype: str
    vocabulary: int
    separator: int | None
    tokens: int
    documents: int
    data_bytes: int
    file_bytes: int
    blocks: int
    block_bytes: int


def _describe(path: str, fields: dict[str, Any]) -> DatasetInfo:
    return DatasetInfo(path=path, **{**fields, "uuid": str(uuid.UUID(bytes=fields["uuid"]))})


def text_files(paths: Iterable[str | os.PathLike[str]], pattern: str = "*") -> list[Path]:
    """The files meant by ``paths``, in a fixed order: folders are searched and sorted.

    Args:
        paths: files and folders.
        pattern: which files of a folder, as in ``Path.rglob``.

    Raises NotFound for a path that is not there.
    """
    found: list[Path] = []
    for entry in paths:
        path = Path(entry)
        if path.is_dir():
            found.extend(sorted(file for file in path.rglob(pattern) if file.is_file()))
        elif path.is_file():
            found.append(path)
        else:
            raise NotFound(f"there is no file or folder {path}")
    return found


def build_text(
    paths: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    dtype: str = "uint8",
    separator: int | None = None,
    vocabulary: int | None = None,
    pattern: str = "*",
    max_bytes: int | None = None,
) -> DatasetInfo:
    """Builds a dataset from files: bytes are tokens, a file is a document, empty ones are left out.

    Args:
        paths: files and folders (searched for ``pattern``, in sorted order).
        out: the ``.hpd`` file; it appears when it is whole, an old one stays until then.
        dtype: ``uint8`` or ``uint16``.
        separator: token appended to each document (256 needs ``uint16``); None: none.
        vocabulary: number of tokens; None: 256, or 257 with separator 256.
        pattern: which files of a folder.
        max_bytes: stop after this many bytes of text; the last document is cut.

    Raises InvalidArgument, NotFound, OSError. Two builds of the same input are equal to the byte.
    """
    if dtype not in _TOKEN_BYTES:
        raise InvalidArgument(f"dtype {dtype!r} is not one of {', '.join(_TOKEN_BYTES)}")
    last_token = -1 if separator is None else separator
    if vocabulary is None:
        vocabulary = max(256, last_token + 1)
    target = os.fspath(out)
    writer = _core.DatasetWriter(target, _TOKEN_BYTES[dtype], vocabulary, last_token)
    left = max_bytes
    for path in text_files(paths, pattern):
        with path.open("rb") as stream:
            document = stream.read() if left is None else stream.read(left)
        if document:
            writer.append_bytes(document)
        if left is not None:
            left -= len(document)
            if left <= 0:
                break
    return _describe(target, writer.finish())


def info(path: str | os.PathLike[str]) -> DatasetInfo:
    """Reads and checks superblock and tables. Raises CorruptData, NotFound."""
    file = _core.DatasetFile(os.fspath(path), True)
    return _describe(os.fspath(path), file.info())


def verify(path: str | os.PathLike[str]) -> DatasetInfo:
    """Reads the whole file; raises CorruptData that names the first block that does not match."""
    file = _core.DatasetFile(os.fspath(path), True)
    file.verify_all()
    return _describe(os.fspath(path), file.info())


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
        self.info = _describe(self.path, self._file.info())
        self._length: int = self._file.samples(sequence, sequence + 1)
        if self._length == 0:
            raise InvalidArgument(
                f"dataset {self.path} has {self.info.tokens} tokens: not one sample of "
                f"{sequence} + 1; choose a shorter sequence"
            )

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
        self._opened().gather(indices, self.sequence, self.sequence + 1, out.data_ptr())
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
