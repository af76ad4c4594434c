"""Records of several fields: from a Python iterable, and from images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcore.dataset.pieces import Batch, Cursor, Field, Piece, as_dtype
from hpcore.dataset.sources import fingerprint_of
from hpcore.dataset.tokenizers import library
from hpcore.errors import InvalidArgument

_BATCH_BYTES = 1 << 20
_BATCH_RECORDS = 4096


def pass_on() -> Any:
    """A converter for sources that make the pieces themselves."""
    return lambda pieces: pieces


class Records:
    """An iterable of mappings, name of a field -> its value in this record.

    Args:
        key: names the content: a killed build of the same key goes on, by leaving out the records
            that it has. None: it begins anew.
    """

    def __init__(
        self, records: Iterable[Mapping[str, Any]], fields: Sequence[Field], key: str | None
    ) -> None:
        self._records = records
        self._fields = fields
        self.fingerprint = repr(("records", key)) if key is not None else os.urandom(16).hex()
        self.total_bytes: int | None = None

    def batches(self, cursor: Cursor | None) -> Iterator[Batch]:
        """Cursor: records that are done."""
        done = cursor[0] if cursor else 0
        columns: list[list[npt.NDArray[Any]]] = [[] for _ in self._fields]
        size = count = 0
        for record in islice(self._records, done, None):
            for column, field in zip(columns, self._fields, strict=True):
                value = field_value(record, field, done)
                column.append(value)
                size += value.nbytes
            done += 1
            count += 1
            if size >= _BATCH_BYTES or count >= _BATCH_RECORDS:
                yield Batch(stack_columns(self._fields, columns), [done], size)
                columns = [[] for _ in self._fields]
                size = count = 0
        if count:
            yield Batch(stack_columns(self._fields, columns), [done], size)


def stack_columns(
    fields: Sequence[Field], columns: Sequence[Sequence[npt.NDArray[Any]]]
) -> list[Piece]:
    """The values of some records as one piece a field."""
    pieces = []
    for number, (field, values) in enumerate(zip(fields, columns, strict=True)):
        lengths = None
        if field.kind != "fixed":
            lengths = np.array([len(value) for value in values], np.uint64)
        flat = [np.ascontiguousarray(value).reshape(-1).view(np.uint8) for value in values]
        pieces.append(Piece(number, np.concatenate(flat), lengths))
    return pieces


def field_value(record: Mapping[str, Any], field: Field, number: int) -> npt.NDArray[Any]:
    """A record's value for a field, of the right dtype and shape. Raises InvalidArgument."""
    where = f"record {number}, field {field.name!r}"
    try:
        given = record[field.name]
    except (KeyError, TypeError, IndexError) as error:
        raise InvalidArgument(f"{where}: it is not there") from error
    if isinstance(given, str):
        given = given.encode()
    if isinstance(given, bytes | bytearray | memoryview):
        value: npt.NDArray[Any] = np.frombuffer(given, np.uint8)
    else:
        value = _as_numpy(given)
    value = _right_dtype(value, field, where)
    shape = value.shape if field.kind == "fixed" else value.shape[1:]
    if shape != field.shape or (field.kind != "fixed" and value.ndim == 0):
        free = "" if field.kind == "fixed" else "n, "
        wanted = f"({free}{', '.join(map(str, field.shape))})"
        raise InvalidArgument(f"{where}: has shape {value.shape}, should have {wanted}")
    return value


def _as_numpy(given: Any) -> npt.NDArray[Any]:
    if str(getattr(given, "dtype", "")) == "torch.bfloat16":
        import torch

        return np.asarray(given.detach().cpu().contiguous().view(torch.int16)).view(np.uint16)
    return np.asarray(given)


def _right_dtype(value: npt.NDArray[Any], field: Field, where: str) -> npt.NDArray[Any]:
    if field.kind == "tokens":
        if value.dtype.kind not in "iu" and value.size:
            raise InvalidArgument(f"{where}: tokens are whole numbers, not {value.dtype}")
        return as_dtype(value, field.dtype, field.vocabulary, where)
    wanted = np.dtype("uint16" if field.dtype == "bfloat16" else field.dtype)
    if value.dtype == wanted or np.can_cast(value.dtype, wanted, "safe"):
        return value.astype(wanted, copy=False)
    if value.dtype.kind not in "iuf":
        raise InvalidArgument(f"{where}: {value.dtype} does not fit in {field.dtype}")
    cast = value.astype(wanted)
    # Python's numbers come as int64 and float64: what is meant is what fits.
    exact = value.dtype.kind in "iu" and wanted.kind in "iu" and np.array_equal(cast, value)
    if exact or (value.dtype == np.float64 and wanted.kind == "f"):
        return cast
    raise InvalidArgument(f"{where}: {value.dtype} does not fit in {field.dtype} without a loss")


class Images:
    """Files of images; what folder one lies in is its label, if there are several."""

    def __init__(self, files: Sequence[Path], labels: Sequence[str], options: object) -> None:
        library("PIL.Image", "Pillow", "images")
        self._files = files
        self._labels = labels
        self.fingerprint = fingerprint_of("images", files, labels, options)
        self.total_bytes: int | None = sum(file.stat().st_size for file in files)

    def batches(self, cursor: Cursor | None) -> Iterator[Batch]:
        """Cursor: files that are done."""
        done = cursor[0] if cursor else 0
        while done < len(self._files):
            files = self._files[done : done + 64]
            payload = []
            for file in files:
                label = self._labels.index(file.parent.name) if self._labels else 0
                payload.append((os.fspath(file), label))
            done += len(files)
            yield Batch(payload, [done], sum(file.stat().st_size for file in files))


class ImageConverter:
    """Decodes images into rows.

    Args:
        size: height and width that all are brought to; None: each keeps its own, and a field
            ``shape`` says it.
        mode: Pillow's: ``RGB`` or ``L``.
    """

    def __init__(self, size: tuple[int, int] | None, mode: str, fields: Sequence[Field]) -> None:
        self._pillow = library("PIL.Image", "Pillow", "images")
        self._size = size
        self._mode = mode
        self._fields = fields

    def __call__(self, payload: Any) -> list[Piece]:
        """A piece a field."""
        columns: list[list[npt.NDArray[Any]]] = [[] for _ in self._fields]
        for name, label in payload:
            values = self._values(name, label)
            for column, field in zip(columns, self._fields, strict=True):
                column.append(values[field.name])
        return stack_columns(self._fields, columns)

    def _values(self, name: str, label: int) -> dict[str, npt.NDArray[Any]]:
        try:
            with self._pillow.open(name) as image:
                picture = image.convert(self._mode)
                if self._size is not None:
                    picture = picture.resize((self._size[1], self._size[0]))
                pixels = np.asarray(picture, np.uint8)
        except OSError as error:
            raise InvalidArgument(f"image {name} cannot be decoded: {error}") from error
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        return {
            "image": pixels if self._size is not None else pixels.reshape(-1),
            "shape": np.array(pixels.shape, np.int32),
            "label": np.array(label, np.int32),
        }


def image_fields(size: tuple[int, int] | None, mode: str, labelled: bool) -> list[Field]:
    """What ImageConverter makes."""
    channels = {"RGB": 3, "L": 1}.get(mode)
    if channels is None:
        raise InvalidArgument(f"image mode {mode!r} is not one of RGB, L")
    fields = [
        Field(name="image", kind="fixed", dtype="uint8", shape=(*size, channels))
        if size is not None
        else Field(name="image", kind="varying", dtype="uint8")
    ]
    if size is None:
        fields.append(Field(name="shape", kind="fixed", dtype="int32", shape=(3,)))
    if labelled:
        fields.append(Field(name="label", kind="fixed", dtype="int32"))
    return fields
