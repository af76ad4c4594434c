"""Tokens that other programs wrote: nanoGPT's (and llm.c's) ``.bin``, Megatron's ``.bin/.idx``.

Read once from front to end, written once; narrowed where the vocabulary allows it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcore.dataset.pieces import Batch, Cursor, Piece, as_dtype
from hpcore.dataset.sources import fingerprint_of
from hpcore.errors import CorruptData, InvalidArgument, NotFound

_BATCH_TOKENS = 1 << 20
_NO_LENGTHS = np.empty(0, np.uint64)


@dataclass(frozen=True)
class RawTokens:
    """Tokens as they were read; lengths and tail as in Piece."""

    tokens: npt.NDArray[Any]
    lengths: npt.NDArray[np.uint64]
    tail: int
    where: str


class RawConverter:
    """Brings tokens to the dtype of the file; refuses one that is not in the vocabulary."""

    def __init__(self, dtype: str, vocabulary: int) -> None:
        self._dtype = dtype
        self._vocabulary = vocabulary

    def __call__(self, payload: Any) -> list[Piece]:
        """One piece of field 0."""
        assert isinstance(payload, RawTokens)
        data = as_dtype(payload.tokens, self._dtype, self._vocabulary, payload.where)
        return [Piece(0, data, payload.lengths, payload.tail)]


class NanoGpt:
    """Files of bare uint16 tokens, or with llm.c's header of 256 numbers.

    Args:
        separator: the token that ends a document; None: each file is one.
    """

    def __init__(self, files: Sequence[Path], separator: int | None) -> None:
        self._files = files
        self._separator = separator
        self._layouts = [_bin_layout(file) for file in files]
        self.fingerprint = fingerprint_of("nanogpt", files, separator)
        self.total_bytes: int | None = sum(file.stat().st_size for file in files)
        self.widest = max(dtype.itemsize for dtype, _, _ in self._layouts)

    def batches(self, cursor: Cursor | None) -> Iterator[Batch]:
        """Cursor: file, tokens of it that are done."""
        first, done = cursor or [0, 0]
        for number in range(first, len(self._files)):
            dtype, offset, count = self._layouts[number]
            path = self._files[number]
            with path.open("rb") as stream:
                while done < count:
                    stream.seek(offset + done * dtype.itemsize)
                    tokens = _read_tokens(stream, path, dtype, min(_BATCH_TOKENS, count - done))
                    done += tokens.size
                    lengths, tail = self._documents(tokens, done == count)
                    payload = RawTokens(tokens, lengths, tail, str(path))
                    yield Batch(payload, [number, done], tokens.nbytes)
            done = 0

    def _documents(
        self, tokens: npt.NDArray[Any], last: bool
    ) -> tuple[npt.NDArray[np.uint64], int]:
        ends = np.empty(0, np.int64)
        if self._separator is not None:
            ends = np.flatnonzero(tokens == self._separator) + 1
        if last and (ends.size == 0 or ends[-1] != tokens.size):
            ends = np.append(ends, tokens.size)
        if ends.size == 0:
            return _NO_LENGTHS, tokens.size
        return np.diff(ends, prepend=0).astype(np.uint64), int(tokens.size - ends[-1])


def _read_tokens(stream: Any, path: Path, dtype: np.dtype[Any], count: int) -> npt.NDArray[Any]:
    data = stream.read(count * dtype.itemsize)
    if len(data) != count * dtype.itemsize:
        raise CorruptData(f"{path} became shorter while it was read")
    return np.frombuffer(data, dtype)


def _bin_layout(path: Path) -> tuple[np.dtype[Any], int, int]:
    """dtype, offset of the first token, number of tokens."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(12)
    magic, version, tokens = struct.unpack("<iii", head) if len(head) == 12 else (0, 0, 0)
    known = {(20240520, 1): "<u2", (20240801, 7): "<u4"}
    if (magic, version) in known:
        dtype = np.dtype(known[magic, version])
        if size != 1024 + tokens * dtype.itemsize:
            raise CorruptData(
                f"{path} says that it holds {tokens} tokens, {1024 + tokens * dtype.itemsize} "
                f"bytes; it has {size}"
            )
        return dtype, 1024, tokens
    if size % 2:
        raise CorruptData(f"{path} has {size} bytes, no whole number of uint16 tokens")
    return np.dtype("<u2"), 0, size // 2


_MEGATRON_MAGIC = b"MMIDIDX\x00\x00"
_MEGATRON_DTYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
_DOCUMENTS = 1 << 16


class MegatronIndex:
    """A Megatron ``.idx``: where documents begin in its ``.bin``. Reads pieces, holds nothing."""

    def __init__(self, path: Path) -> None:
        self.bin = path.with_suffix(".bin")
        self._path = path = path.with_suffix(".idx")
        for file in (self.bin, path):
            if not file.is_file():
                raise NotFound(f"there is no file {file}; Megatron's data are a .bin and an .idx")
        with path.open("rb") as stream:
            head = stream.read(34)
        if len(head) < 34 or head[:9] != _MEGATRON_MAGIC:
            raise CorruptData(f"{path} is not Megatron's (its first 9 bytes are {head[:9]!r})")
        version, code, self._sequences, self.entries = struct.unpack("<QBQQ", head[9:])
        if version != 1 or code not in _MEGATRON_DTYPES:
            raise InvalidArgument(
                f"{path} is of version {version} with dtype code {code}: version 1 with tokens of "
                "8 to 64 bits can be read"
            )
        self.dtype = np.dtype(_MEGATRON_DTYPES[code])
        self._pointers = 34 + 4 * self._sequences
        self._entries = self._pointers + 8 * self._sequences
        wanted = self._entries + 8 * self.entries
        if path.stat().st_size != wanted:
            raise CorruptData(f"{path} has {path.stat().st_size} bytes, should have {wanted}")
        size = self.bin.stat().st_size
        self.tokens = size // self.dtype.itemsize
        if size % self.dtype.itemsize:
            raise CorruptData(f"{self.bin} has {size} bytes, no whole number of {self.dtype}")

    @property
    def documents(self) -> int:
        """How many it names."""
        return max(0, int(self.entries) - 1)

    def ends(self, first: int, count: int) -> npt.NDArray[np.int64]:
        """Token behind the last of each document from ``first`` on."""
        sequences = self._numbers("<i8", self._entries + 8 * (first + 1), count)
        if sequences.size == 0:
            return sequences
        low, high = int(sequences.min()), int(sequences.max())
        if low < 0 or high > self._sequences or high - low > 64 * _DOCUMENTS:
            raise CorruptData(f"{self._path}: documents end at sequences {low} to {high}")
        count = min(high + 1, self._sequences) - low
        pointers = self._numbers("<i8", self._pointers + 8 * low, count)
        starts = np.append(pointers // self.dtype.itemsize, self.tokens)
        return starts[sequences - low]

    def _numbers(self, dtype: str, offset: int, count: int) -> npt.NDArray[np.int64]:
        with self._path.open("rb") as stream:
            stream.seek(offset)
            return np.frombuffer(stream.read(8 * count), dtype)


class Megatron:
    """Megatron's indexed datasets, whose sequences lie one behind the other."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._indices = [MegatronIndex(file) for file in files]
        bins = [index.bin for index in self._indices]
        self.fingerprint = fingerprint_of("megatron", [*bins, *files])
        self.total_bytes: int | None = sum(file.stat().st_size for file in bins)
        self.widest = max(index.dtype.itemsize for index in self._indices)

    def batches(self, cursor: Cursor | None) -> Iterator[Batch]:
        """Cursor: file, tokens and documents of it that are done, where the last one ended."""
        first, done, document, ended = cursor or [0, 0, 0, 0]
        for number in range(first, len(self._indices)):
            index = self._indices[number]
            with index.bin.open("rb") as stream:
                while done < index.tokens:
                    stream.seek(done * index.dtype.itemsize)
                    count = min(_BATCH_TOKENS, index.tokens - done)
                    tokens = _read_tokens(stream, index.bin, index.dtype, count)
                    done += count
                    ends, document = _ends_up_to(index, document, ended, done)
                    if done == index.tokens and (ends.size == 0 or ends[-1] != done):
                        ends = np.append(ends, done)  # behind the last document that is named
                    lengths, tail = _lengths(ends, done - count, done)
                    ended = int(ends[-1]) if ends.size else ended
                    payload = RawTokens(tokens, lengths, tail, str(index.bin))
                    yield Batch(payload, [number, done, document, ended], tokens.nbytes)
            done = document = ended = 0


def _ends_up_to(
    index: MegatronIndex, document: int, ended: int, limit: int
) -> tuple[npt.NDArray[np.int64], int]:
    found = [np.empty(0, np.int64)]
    while document < index.documents:
        ends = index.ends(document, min(_DOCUMENTS, index.documents - document))
        if ends.size == 0 or np.any(np.diff(ends, prepend=ended) < 0) or ends[-1] > index.tokens:
            raise InvalidArgument(
                f"{index.bin}: its documents do not lie one behind the other (near document "
                f"{document}); write it again with Megatron's own merge tool"
            )
        within = int(np.searchsorted(ends, limit, side="right"))
        found.append(ends[:within])
        document += within
        if within < ends.size:
            break
        ended = int(ends[-1])
    return np.concatenate(found), document


def _lengths(
    ends: npt.NDArray[np.int64], begin: int, limit: int
) -> tuple[npt.NDArray[np.uint64], int]:
    """Lengths within [begin, limit), without empty documents; what is behind the last end."""
    if ends.size == 0:
        return _NO_LENGTHS, limit - begin
    lengths = np.diff(ends, prepend=begin)
    return lengths[lengths > 0].astype(np.uint64), int(limit - ends[-1])
