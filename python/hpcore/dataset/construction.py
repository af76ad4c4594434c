"""The loop of every build: batches -> pieces -> file, with a journal to go on from.

What is built is a function of the input and the options alone: neither the number of processes nor
where a build was killed shows in the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hpcore import _core
from hpcore.dataset.info import DatasetInfo, describe
from hpcore.dataset.pieces import Batch, Cursor, Field, Piece, Source
from hpcore.dataset.processes import MakeConverter, converted
from hpcore.errors import HpcoreError, InvalidArgument

Progress = Callable[[int, "int | None"], None]
"""Called with bytes of input that are done, and the total if it is known."""


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How a build goes; none of it shows in the file.

    Attributes:
        processes: that convert; 1: this one alone.
        progress: told after each batch.
        checkpoint_s: seconds between two points that a killed build goes on from.
        resume: go on where a killed build of the same input and options was.
    """

    processes: int = 1
    progress: Progress | None = None
    checkpoint_s: float = 5.0
    resume: bool = True


def construct(
    out: str | os.PathLike[str],
    fields: Sequence[Field],
    source: Source,
    convert: MakeConverter,
    *,
    metadata: dict[str, Any],
    identity: str,
    options: BuildOptions,
) -> DatasetInfo:
    """Builds ``out``.

    Args:
        identity: of everything but the source that the content depends on.

    Raises InvalidArgument (bad or empty input, another build of the same name under way), OSError
    (disk full, say). Bad input removes what was built; after anything else it stays in
    ``out + ".building"`` once there was a checkpoint, and the same build goes on from it.
    """
    target = os.fspath(out)
    plan = hashlib.sha256(f"{identity} {source.fingerprint}".encode()).hexdigest()
    text = json.dumps(metadata, sort_keys=True) if metadata else ""
    writer = _core.DatasetWriter(target, [asdict(field) for field in fields], text)
    build = _Build(writer, plan, len(fields), options)
    try:
        build.start()
        batches = source.batches(build.cursor)
        with contextlib.closing(converted(batches, convert, options.processes)) as results:
            build.run(results, source.total_bytes)
        return describe(target, writer.finish())
    except InvalidArgument:
        writer.give_up()
        raise
    except BaseException as error:
        if not build.has_checkpoint:
            writer.give_up()
            raise
        writer.keep()
        _say_how_to_go_on(error, target)
        raise


def _say_how_to_go_on(error: BaseException, target: str) -> None:
    if isinstance(error, HpcoreError | OSError) and hasattr(error, "add_note"):
        error.add_note(
            f"What was built is kept in {target}.building: the same build goes on from it; "
            "remove that folder to give it up"
        )


class _Build:
    """Where a build is. One thread."""

    def __init__(self, writer: Any, plan: str, fields: int, options: BuildOptions) -> None:
        self.cursor: Cursor | None = None
        self.has_checkpoint = False
        self._writer = writer
        self._plan = plan
        self._open = [0] * fields  # tokens or items of the unfinished document of each field
        self._done_bytes = 0
        self._options = options

    def start(self) -> None:
        """Takes over what a killed build left, or begins anew."""
        note = self._writer.resumed
        if note is None:
            return
        try:
            state = json.loads(note)
        except ValueError:
            state = {}
        if not self._options.resume or state.get("plan") != self._plan:
            self._writer.restart()
            return
        self.cursor, self._open, self._done_bytes = state["cursor"], state["open"], state["done"]
        self.has_checkpoint = True

    def run(self, results: Iterator[tuple[Batch, list[Piece]]], total_bytes: int | None) -> None:
        """Writes all of it."""
        last = time.monotonic()
        for batch, pieces in results:
            for piece in pieces:
                self._write(piece)
            self.cursor = batch.cursor
            self._done_bytes += batch.input_bytes
            due = time.monotonic() - last >= self._options.checkpoint_s
            if due and batch.cursor is not None:
                self._checkpoint()
                last = time.monotonic()
            if self._options.progress is not None:
                self._options.progress(self._done_bytes, total_bytes)

    def _write(self, piece: Piece) -> None:
        self._writer.append(piece.field, piece.data)
        if piece.lengths is None:
            return
        lengths = piece.lengths
        if lengths.size == 0:
            self._open[piece.field] += piece.tail
            return
        if self._open[piece.field]:
            lengths = lengths.copy()
            lengths[0] += np.uint64(self._open[piece.field])
        self._writer.end_rows(piece.field, np.ascontiguousarray(lengths, np.uint64))
        self._open[piece.field] = piece.tail

    def _checkpoint(self) -> None:
        state = {
            "plan": self._plan,
            "cursor": self.cursor,
            "open": self._open,
            "done": self._done_bytes,
        }
        self._writer.checkpoint(json.dumps(state).encode())
        self.has_checkpoint = True
