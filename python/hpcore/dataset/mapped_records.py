"""Reading rows: records of one or several fields, images or measurements, say."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from typing import Any

from hpcore import _core
from hpcore.dataset.info import FieldInfo, describe
from hpcore.dataset.reader import is_mapped, open_file, thread_count
from hpcore.dataset.samples import Samples, reading_code
from hpcore.errors import InvalidArgument


class MappedRecords(Samples):
    """A ``.hpd`` file's rows as dicts of tensors, one entry a field, in the stored dtypes.

    A batch has a tensor ``[n, *shape]`` for each field of fixed rows, and a list of tensors for
    each field of rows of varying size. Can be pickled. Thread-safe.

    Args:
        path: the file, or a URL that fsspec knows.
        fields: names of the fields that are read; None: all that hold rows.
        verify, mode, threads, cache_dir: as in `MappedDataset`.

    Raises CorruptData, NotFound, InvalidArgument (no such field of rows, or of unequal length).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fields: Sequence[str] | None = None,
        verify: bool = True,
        *,
        mode: str = "auto",
        threads: int | None = None,
        cache_dir: str | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self._arguments = {
            **{"fields": fields, "verify": verify, "mode": mode},
            **{"threads": threads, "cache_dir": cache_dir},
        }
        self._file: Any = open_file(self.path, verify, cache_dir)
        self.info = describe(self.path, self._file.info())
        self._fields = self._chosen(fields)
        mapped, count = is_mapped(mode, self.info.file_bytes), thread_count(threads)
        self._readers = {
            number: _core.SampleReader(self._file, number, 1, 1, mapped, count)
            for number, field in self._fields.items()
            if field.kind == "fixed"
        }
        self._length = next(iter(self._fields.values())).rows

    def _chosen(self, names: Sequence[str] | None) -> dict[int, FieldInfo]:
        rows = {i: field for i, field in enumerate(self.info.fields) if field.kind != "tokens"}
        found = {i: field for i, field in rows.items() if names is None or field.name in names}
        missing = set(names or ()) - {field.name for field in found.values()}
        if missing or not found or len({field.rows for field in found.values()}) > 1:
            there = ", ".join(f"{f.name} ({f.kind}, {f.rows} rows)" for f in self.info.fields)
            raise InvalidArgument(
                f"dataset {self.path} has no such records: "
                f"{sorted(missing) or 'fields of rows, as many in each'}; its fields: {there}"
            )
        return found

    def __len__(self) -> int:
        return self._length

    @property
    def identity(self) -> bytes:
        """The uuid's 16 bytes."""
        return uuid.UUID(self.info.uuid).bytes

    @property
    def reading(self) -> int:
        """The fields, as 32 bits."""
        return reading_code("records", sorted(self._fields))

    def batch(self, indices: Sequence[int]) -> dict[str, Any]:
        """These records. Blocks on reads only. Raises InvalidArgument, CorruptData."""
        found: dict[str, Any] = {}
        for number, field in self._fields.items():
            if number in self._readers:
                found[field.name] = self._fixed(number, field, indices)
            else:
                found[field.name] = [self._varying(number, field, index) for index in indices]
        return found

    def _fixed(self, number: int, field: FieldInfo, indices: Sequence[int]) -> Any:
        import torch

        dtype = getattr(torch, field.dtype)
        out = torch.empty((len(indices), *field.shape), dtype=dtype)
        self._readers[number].gather(indices, out.data_ptr(), dtype.itemsize)
        return out

    def _varying(self, number: int, field: FieldInfo, index: int) -> Any:
        import torch

        begin, end = self._file.row_range(number, index)
        items = (end - begin) // field.row_bytes if field.row_bytes else 0
        out = torch.empty((items, *field.shape), dtype=getattr(torch, field.dtype))
        _core.copy_bytes(self._file, number, begin, end - begin, out.data_ptr())
        return out

    def will_need(self, indices: Sequence[int]) -> int:
        """See `Samples.will_need`; fields of fixed rows only."""
        return sum(reader.will_need(indices) for reader in self._readers.values())

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, **self._arguments}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __repr__(self) -> str:
        names = [field.name for field in self._fields.values()]
        return f"MappedRecords({self.path!r}, fields={names}, samples={self._length})"
