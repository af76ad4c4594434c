"""What a ``.hpd`` file says of itself, and whether it is sound."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass
from typing import Any

from hpcore import _core


@dataclass(frozen=True)
class FieldInfo:
    """One field of a dataset.

    Attributes:
        kind: ``tokens`` (one stream, cut into sequences when it is read), ``fixed`` (rows of one
            shape) or ``varying`` (rows whose first dimension varies).
        shape: of a row; of a varying one, behind its first dimension.
        rows: tokens, or rows.
        row_bytes: of a token, of a fixed row, of an item of a varying row.
        data_offset: where its data begin in the file; ``data_bytes``: how many.
        documents: how many the stream holds; ``vocabulary``: every token is below;
            ``separator``: the token that ends each document, or None. Streams of tokens only.
    """

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    rows: int
    row_bytes: int
    data_offset: int
    data_bytes: int
    documents: int
    vocabulary: int
    separator: int | None


@dataclass(frozen=True)
class DatasetInfo:
    """What the head of a ``.hpd`` file says. ``uuid`` and ``digest`` are made from the content."""

    path: str
    uuid: str
    digest: str
    version: int
    file_bytes: int
    blocks: int
    block_bytes: int
    fields: tuple[FieldInfo, ...]
    metadata: dict[str, Any]

    @property
    def stream(self) -> FieldInfo | None:
        """The first stream of tokens, if there is one."""
        return next((field for field in self.fields if field.kind == "tokens"), None)

    @property
    def records(self) -> int:
        """Rows of the fields, or documents where there are only streams."""
        first = self.fields[0]
        return first.documents if first.kind == "tokens" else first.rows

    @property
    def tokens(self) -> int:
        """Tokens of the first stream; 0 without one."""
        return self.stream.rows if self.stream else 0

    @property
    def documents(self) -> int:
        """Documents of the first stream; 0 without one."""
        return self.stream.documents if self.stream else 0

    @property
    def vocabulary(self) -> int:
        """Every token of the first stream is below; 0 without one."""
        return self.stream.vocabulary if self.stream else 0

    @property
    def separator(self) -> int | None:
        """The token that ends each document of the first stream, if there is one."""
        return self.stream.separator if self.stream else None

    @property
    def dtype(self) -> str:
        """Of the first stream, else of the first field."""
        return (self.stream or self.fields[0]).dtype

    @property
    def data_bytes(self) -> int:
        """Of all fields."""
        return sum(field.data_bytes for field in self.fields)


def describe(path: str | os.PathLike[str], head: dict[str, Any]) -> DatasetInfo:
    """The native description of a head, as a DatasetInfo."""
    return DatasetInfo(
        **{
            **head,
            "path": os.fspath(path),
            "uuid": str(uuid.UUID(bytes=head["uuid"])),
            "digest": head["digest"].hex(),
            "fields": tuple(FieldInfo(**field) for field in head["fields"]),
            "metadata": json.loads(head["metadata"] or b"{}"),
        }
    )


def info(path: str | os.PathLike[str]) -> DatasetInfo:
    """Reads and checks the head. Raises CorruptData, NotFound, Unsupported."""
    return describe(path, _core.DatasetFile(os.fspath(path), True).info())


def verify(path: str | os.PathLike[str]) -> DatasetInfo:
    """Reads the whole file; raises CorruptData that names the first part that does not match."""
    file = _core.DatasetFile(os.fspath(path), True)
    file.verify_all()
    return describe(path, file.info())
