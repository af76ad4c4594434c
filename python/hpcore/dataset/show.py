"""The records of a ``.hpd`` file as lines of text, for people."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hpcore import _core
from hpcore.dataset.info import DatasetInfo, FieldInfo, describe
from hpcore.dataset.tokenizers import Tokenizer, make_tokenizer
from hpcore.errors import HpcoreError, InvalidArgument


def shown(
    path: Path, first: int, count: int, width: int, tokenizer: str | None = None
) -> Iterator[str]:
    """Some records (of streams: documents), a line a field.

    Args:
        width: at most so many items of each value.
        tokenizer: shows tokens as text; None: what the file names, if that can be made here.

    Raises CorruptData, NotFound, InvalidArgument (no such record).
    """
    file = _core.DatasetFile(os.fspath(path), True)
    about = describe(path, file.info())
    if first >= about.records:
        raise InvalidArgument(f"dataset {path} has {about.records} records, no record {first}")
    made = make_tokenizer(tokenizer) if tokenizer else _named(about)
    for record in range(first, min(first + count, about.records)):
        for number, field in enumerate(about.fields):
            values, length = _values(file, number, field, record, width)
            more = f" ... {length:,} in all" if values.ndim and length > len(values) else ""
            yield f"{record}  {field.name}  {_text(values, field, made)}{more}"


def _named(about: DatasetInfo) -> Tokenizer | None:
    name = about.metadata.get("tokenizer")
    if name is None:
        return None
    try:
        return make_tokenizer(name)
    except (HpcoreError, OSError):
        return None
    except Exception:  # a name that its library would have to fetch, without a network
        return None


def _values(
    file: Any, number: int, field: FieldInfo, record: int, width: int
) -> tuple[np.ndarray[Any, Any], int]:
    """The first items of a value, and how many it has."""
    item = field.row_bytes
    if field.kind == "fixed":
        data = file.read(number, record * item, item)
        flat = _array(data, field).reshape(field.shape)
        return flat, len(flat) if field.shape else 0
    starts = np.frombuffer(file.starts(number, record, 1), np.uint64)
    unit = item if field.kind == "tokens" else 1
    begin, end = int(starts[0]) * unit, int(starts[1]) * unit
    taken = min(end - begin, width * item)
    values = _array(file.read(number, begin, taken), field).reshape((-1, *field.shape))
    return values, (end - begin) // item


def _array(data: bytes, field: FieldInfo) -> np.ndarray[Any, Any]:
    if field.dtype == "bfloat16":  # the upper half of a float32
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(data, np.dtype(field.dtype).newbyteorder("<"))


def _text(values: np.ndarray[Any, Any], field: FieldInfo, tokenizer: Tokenizer | None) -> str:
    if field.kind == "tokens" and tokenizer is not None:
        end = field.separator
        known = [token for token in values.tolist() if token != end]
        return repr(tokenizer.decode(known))
    with np.printoptions(threshold=16, edgeitems=3, linewidth=100_000):
        return " ".join(str(values).split())
