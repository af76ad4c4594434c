"""What passes from a source of a build through its processes to the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hpcore.errors import InvalidArgument

Cursor = list[int]
"""Where a source is in its input; JSON keeps it in the journal."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field to be written; see FieldInfo."""

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...] = ()
    vocabulary: int = 0
    separator: int | None = None


@dataclass(frozen=True)
class Piece:
    """Bytes for one field, and where rows or documents end in them.

    Attributes:
        field: its number.
        data: any contiguous array.
        lengths: of the documents (in tokens) or varying rows (in items) that end here; the first
            one without what earlier pieces held of it. None for fixed rows.
        tail: tokens or items behind the last end: the next piece goes on with their document.
    """

    field: int
    data: npt.NDArray[Any]
    lengths: npt.NDArray[np.uint64] | None = None
    tail: int = 0


@dataclass(frozen=True)
class Batch:
    """Some of the input, small enough to be held a few times.

    Attributes:
        payload: what the source's ``convert`` turns into pieces; can be pickled.
        cursor: where the source goes on behind it; None: nowhere, it is within a document.
        input_bytes: for the progress bar.
    """

    payload: Any
    cursor: Cursor | None
    input_bytes: int


class Source(Protocol):
    """Input, always cut in the same batches, wherever it is begun.

    Attributes:
        fingerprint: differs where the batches may: a killed build goes on only if it is the same.
        total_bytes: of input, if known.
    """

    fingerprint: str
    total_bytes: int | None

    def batches(self, cursor: Cursor | None) -> Iterator[Batch]:
        """From the cursor on; None: from the start."""


class Converter(Protocol):
    """Makes pieces of a payload: a pure function, run in any process."""

    def __call__(self, payload: Any) -> list[Piece]: ...


@dataclass(frozen=True)
class Texts:
    """A payload of text.

    Attributes:
        texts: pieces of documents, in order.
        ends: for each, does its document end with it?
    """

    texts: Sequence[bytes]
    ends: Sequence[bool]


def as_dtype(values: npt.NDArray[Any], dtype: str, vocabulary: int, where: str) -> npt.NDArray[Any]:
    """Tokens as that dtype. Raises InvalidArgument for one that is not in the vocabulary."""
    if values.size and values.dtype.itemsize <= 8 and values.dtype.kind in "iu":
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= vocabulary:
            wrong = low if low < 0 else high
            raise InvalidArgument(
                f"{where}: token {wrong} is not in a vocabulary of {vocabulary}; say a larger one"
            )
    return np.ascontiguousarray(values.astype(dtype, copy=False))


def token_dtype(vocabulary: int) -> str:
    """The narrowest that holds every token."""
    for dtype, limit in (("uint8", 1 << 8), ("uint16", 1 << 16), ("uint32", 1 << 32)):
        if vocabulary <= limit:
            return dtype
    raise InvalidArgument(f"a vocabulary of {vocabulary} tokens does not fit in 32 bits")
