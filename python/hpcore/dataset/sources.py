"""Text to be tokenised: plain files, JSON Lines, Parquet and Arrow."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from hpcore.dataset.pieces import Batch, Cursor, Texts
from hpcore.dataset.tokenizers import library
from hpcore.errors import InvalidArgument, NotFound

BATCH_BYTES = 1 << 20
"""Text in a batch: a longer document is cut."""
_LINE_BYTES = 16 << 20
_CUT_WITHIN = 64 << 10
_TABLE_ROWS = 32
"""Of a table in memory as Python's texts at once."""
# Places that no tokenizer of GPT-2's family joins text across, whatever follows: a line end, else a
# space, between words; else behind a word.
_SAFE_CUTS = (
    re.compile(rb"(?<=[!-~]\n)(?=[0-9A-Za-z])"),
    re.compile(rb"(?<=[A-Za-z])(?= [A-Za-z])"),
    re.compile(rb'(?<=[A-Za-z])(?=[,;:"(){}<>=])'),
)


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


def fingerprint_of(kind: str, files: Sequence[Path], *options: object) -> str:
    """Of the files' names, sizes and times of change: reading them all would take too long."""
    digest = hashlib.sha256(repr((kind, options)).encode())
    for file in files:
        about = file.stat()
        digest.update(repr((os.fspath(file), about.st_size, about.st_mtime_ns)).encode())
    return digest.hexdigest()


class Gathering:
    """Collects texts until they make a batch."""

    def __init__(self) -> None:
        self.texts: list[bytes] = []
        self.ends: list[bool] = []
        self.bytes = 0

    def add(self, text: bytes, end: bool) -> None:
        """One piece of a document."""
        self.texts.append(text)
        self.ends.append(end)
        self.bytes += len(text)

    def take(self, cursor: Cursor | None, input_bytes: int) -> Batch:
        """The batch, and begins another."""
        batch = Batch(Texts(self.texts, self.ends), cursor, input_bytes)
        self.__init__()  # type: ignore[misc]
        return batch


class TextFiles:
    """Files, each a document; long ones are cut at the end of a line."""

    def __init__(self, files: Sequence[Path], max_bytes: int | None = None) -> None:
        self._files = files
        self._max_bytes = max_bytes
        self.fingerprint = fingerprint_of("text", files, max_bytes)
        total = sum(file.stat().st_size for file in files)
        self.total_bytes: int | None = total if max_bytes is None else min(total, max_bytes)

    def batches(self, cursor: Cursor | None) -> Iterator[Batch]:
        """Cursor: file, offset in it, bytes read before."""
        first, offset, used = cursor or [0, 0, 0]
        gathering = Gathering()
        for number in range(first, len(self._files)):
            with self._files[number].open("rb") as stream:
                stream.seek(offset)
                while True:
                    left = self._left(used)
                    if left == 0:
                        break
                    text = read_piece(stream, min(BATCH_BYTES, left))
                    used += len(text)
                    end = _at_end(stream) or self._left(used) == 0
                    if text:
                        gathering.add(text, end)
                    if gathering.bytes >= BATCH_BYTES and not end:
                        yield gathering.take([number, stream.tell(), used], gathering.bytes)
                    if end:
                        break
            offset = 0
            if gathering.bytes >= BATCH_BYTES or len(gathering.texts) >= 4096:
                yield gathering.take([number + 1, 0, used], gathering.bytes)
        if gathering.texts:
            yield gathering.take([len(self._files), 0, used], gathering.bytes)

    def _left(self, used: int) -> int:
        return 1 << 62 if self._max_bytes is None else self._max_bytes - used


def _at_end(stream: BinaryIO) -> bool:
    at = stream.tell()
    more = stream.read(1)
    stream.seek(at)
    return not more


def read_piece(stream: BinaryIO, most: int) -> bytes:
    """At most that many bytes, ending where a tokenizer would cut anyway, if the text goes on."""
    text = stream.read(most)
    if len(text) < most or _at_end(stream):
        return text
    cut = cut_before(text)
    stream.seek(cut - len(text), os.SEEK_CUR)
    return text[:cut]


def cut_before(text: bytes) -> int:
    """Where to cut a text that goes on: at a safe place if one is near, else between characters."""
    begin = max(0, len(text) - _CUT_WITHIN)
    for safe in _SAFE_CUTS:
        cuts = [match.start() for match in safe.finditer(text, begin)]
        if cuts and cuts[-1] > 0:
            return cuts[-1]
    line = text.rfind(b"\n", begin)
    if line > 0:
        return line + 1
    at = len(text)
    while at > len(text) - 4 and at > 1 and text[at - 1] & 0xC0 == 0x80:  # inside a character
        at -= 1
    return at - 1 if at > 1 and text[at - 1] >= 0xC0 else len(text)


def add_document(gathering: Gathering, text: bytes) -> Iterator[Batch]:
    """A document that is in memory; a long one makes batches, between which no build can go on."""
    while len(text) > BATCH_BYTES:
        cut = cut_before(text[:BATCH_BYTES])
        gathering.add(text[:cut], False)
        text = text[cut:]
        yield gathering.take(None, 0)
    gathering.add(text, True)


class JsonLines:
    """Files of JSON objects, one a line; a member of each is a document."""

    def __init__(self, files: Sequence[Path], member: str) -> None:
        self._files = files
        self._member = member
        self.fingerprint = fingerprint_of("jsonl", files, member)
        self.total_bytes: int | None = sum(file.stat().st_size for file in files)

    def batches(self, cursor: Cursor | None) -> Iterator[Batch]:
        """Cursor: file, offset of a line in it."""
        first, offset = cursor or [0, 0]
        gathering = Gathering()
        for number in range(first, len(self._files)):
            path = self._files[number]
            with path.open("rb") as stream:
                stream.seek(offset)
                begin = offset
                while line := stream.readline(_LINE_BYTES):
                    if text := self._document(line, path, offset):
                        yield from add_document(gathering, text)
                    offset += len(line)
                    if gathering.bytes >= BATCH_BYTES or len(gathering.texts) >= 16384:
                        yield gathering.take([number, offset], offset - begin)
                        begin = offset
            yield gathering.take([number + 1, 0], offset - begin)
            offset = 0

    def _document(self, line: bytes, path: Path, offset: int) -> bytes:
        if not line.strip():
            return b""
        where = f"{path}, offset {offset}"
        if len(line) == _LINE_BYTES and not line.endswith(b"\n"):
            raise InvalidArgument(f"{where}: a line has more than {_LINE_BYTES} bytes; cut it")
        try:
            text = json.loads(line)[self._member]
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidArgument(
                f"{where}: not a JSON object with a member {self._member!r} "
                f"({type(error).__name__}: {error})"
            ) from error
        if not isinstance(text, str):
            raise InvalidArgument(f"{where}: member {self._member!r} is not text: {text!r:.60}")
        return text.encode("utf-8", "replace")


class Tables:
    """A column of text of Parquet or Arrow files; each value is a document, null is none."""

    def __init__(self, files: Sequence[Path], column: str) -> None:
        self._files = files
        self._column = column
        library("pyarrow", "pyarrow", "parquet")
        self.fingerprint = fingerprint_of("tables", files, column)
        self.total_bytes: int | None = None

    def batches(self, cursor: Cursor | None) -> Iterator[Batch]:
        """Cursor: file, rows of it that are done."""
        first, done = cursor or [0, 0]
        gathering = Gathering()
        for number in range(first, len(self._files)):
            row = 0
            for values in self._values(self._files[number]):
                for value in values:
                    row += 1
                    if row <= done or value is None:
                        continue
                    text = value if isinstance(value, bytes) else str(value).encode()
                    if text:
                        yield from add_document(gathering, text)
                    if gathering.bytes >= BATCH_BYTES or len(gathering.texts) >= 16384:
                        yield gathering.take([number, row], gathering.bytes)
            yield gathering.take([number + 1, 0], gathering.bytes)
            done = 0

    def _values(self, path: Path) -> Iterator[Any]:
        arrow = library("pyarrow", "pyarrow", "parquet")
        with path.open("rb") as stream:
            magic = stream.read(6)
        try:
            if magic[:4] == b"PAR1":
                yield from self._parquet(path)
            elif magic == b"ARROW1":
                with arrow.memory_map(os.fspath(path)) as memory:
                    reader = arrow.ipc.open_file(memory)
                    for index in range(reader.num_record_batches):
                        yield from self._slices(reader.get_batch(index))
            else:
                with arrow.OSFile(os.fspath(path)) as file:
                    for batch in arrow.ipc.open_stream(file):
                        yield from self._slices(batch)
        except (arrow.ArrowException, KeyError) as error:
            raise InvalidArgument(
                f"{path}: column {self._column!r} cannot be read ({type(error).__name__}: {error})"
            ) from error

    def _parquet(self, path: Path) -> Iterator[Any]:
        parquet = library("pyarrow.parquet", "pyarrow", "parquet")
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            if self._column not in file.schema_arrow.names:
                raise KeyError(f"it has {', '.join(file.schema_arrow.names)}")
            for batch in file.iter_batches(
                batch_size=_TABLE_ROWS, columns=[self._column], use_threads=False
            ):
                yield from self._slices(batch)

    def _slices(self, batch: Any) -> Iterator[Any]:
        if self._column not in batch.schema.names:
            raise KeyError(f"it has {', '.join(batch.schema.names)}")
        column = batch.column(self._column)
        for begin in range(0, len(column), _TABLE_ROWS):
            yield column.slice(begin, _TABLE_ROWS).to_pylist()
