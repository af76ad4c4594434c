"""Several datasets of the same fields as one: their records one behind the other."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hpcore import _core
from hpcore.dataset.construction import BuildOptions, construct
from hpcore.dataset.info import DatasetInfo, FieldInfo, describe
from hpcore.dataset.pieces import Batch, Cursor, Field, Piece
from hpcore.dataset.records import pass_on
from hpcore.errors import InvalidArgument, MismatchError

_PIECE_BYTES = 4 << 20
_PIECE_ROWS = 1 << 16


class Files:
    """The fields of some datasets, block by block, each checked."""

    def __init__(self, paths: Sequence[str | os.PathLike[str]]) -> None:
        self._files = [_core.DatasetFile(os.fspath(path), True) for path in paths]
        self.infos = [
            describe(path, file.info()) for path, file in zip(paths, self._files, strict=True)
        ]
        self.fingerprint = repr(("merge", [about.digest for about in self.infos]))
        self.total_bytes: int | None = sum(about.data_bytes for about in self.infos)

    def batches(self, cursor: Cursor | None) -> Iterator[Batch]:
        """Cursor: file, field, bytes and rows of it that are done."""
        first, at, done, rows = cursor or [0, 0, 0, 0]
        for number in range(first, len(self._files)):
            fields = self.infos[number].fields
            for field in range(at, len(fields)):
                yield from self._field(number, field, done, rows)
                done = rows = 0
            at = 0

    def _field(self, number: int, at: int, done: int, rows: int) -> Iterator[Batch]:
        file, field = self._files[number], self.infos[number].fields[at]
        while done < field.data_bytes:
            count = min(_PIECE_BYTES, field.data_bytes - done)
            data = np.frombuffer(file.read(at, done, count), np.uint8)
            done += count
            yield Batch([Piece(at, data)], [number, at, done, rows], count)
        total = {"fixed": 0, "tokens": field.documents}.get(field.kind, field.rows)
        unit = field.row_bytes if field.kind == "varying" else 1
        while rows < total:
            count = min(_PIECE_ROWS, total - rows)
            starts = np.frombuffer(file.starts(at, rows, count), np.uint64)
            rows += count
            lengths = np.diff(starts) // np.uint64(unit)
            piece = Piece(at, np.empty(0, np.uint8), lengths)
            yield Batch([piece], [number, at, done, rows], 0)


def merge(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    options: BuildOptions | None = None,
) -> DatasetInfo:
    """Makes one dataset of several. The vocabulary is the largest; the other facts must be equal.

    Raises CorruptData (a block of one does not match its checksum), MismatchError, NotFound,
    InvalidArgument, OSError.
    """
    if not paths:
        raise InvalidArgument("there is no dataset to merge")
    source = Files(paths)
    fields, metadata = _common(source.infos)
    return construct(
        out,
        fields,
        source,
        (pass_on, ()),
        metadata=metadata,
        identity=repr(("merge", fields)),
        options=options or BuildOptions(),
    )


def _common(infos: Sequence[DatasetInfo]) -> tuple[list[Field], dict[str, Any]]:
    first = infos[0]
    for other in infos[1:]:
        if [_facts(field) for field in other.fields] != [_facts(field) for field in first.fields]:
            raise MismatchError(
                f"{other.path} cannot follow {first.path}: their fields (name, kind, dtype, shape, "
                f"separator) are {[_facts(field) for field in other.fields]} and "
                f"{[_facts(field) for field in first.fields]}"
            )
        if other.metadata != first.metadata:
            raise MismatchError(
                f"{other.path} cannot follow {first.path}: their metadata are {other.metadata} and "
                f"{first.metadata}"
            )
    fields = [
        Field(
            name=field.name,
            kind=field.kind,
            dtype=field.dtype,
            shape=field.shape,
            vocabulary=max(about.fields[number].vocabulary for about in infos),
            separator=field.separator,
        )
        for number, field in enumerate(first.fields)
    ]
    return fields, first.metadata


def _facts(field: FieldInfo) -> tuple[object, ...]:
    return field.name, field.kind, field.dtype, field.shape, field.separator
