"""The sample ledger: which samples each step trained on, so that anyone can prove afterwards that
each was used exactly once an epoch (`hpcore ledger verify FILE`).

Before a rank says ready for a step it notes the samples that it ran; when it has heard that the
step happens it notes that, before it changes any state. So a rank that dies in between has left
its samples behind, and what was run for a step that was discarded is told apart.

Each note is a line of its own, written by one append: CRC-32, JSON object. It begins with a line
end, too: what a process that died left of a line does not spoil the next one. Not synced to the
disk: it outlives processes, not the machine. One thread.
"""

from __future__ import annotations

import json
import os
import uuid
import zlib
from typing import TYPE_CHECKING, Any

from hpcore.batches import Batches
from hpcore.errors import InvalidArgument, OutOfSpace

if TYPE_CHECKING:
    from hpcore.step import Step
    from hpcore.world import World


class Ledger:
    """Appends to a file that all ranks share, over runs of a job, too. Without a path it does
    nothing."""

    def __init__(self, path: str, batches: Batches, job: str) -> None:
        self._path = path
        self._batches = batches
        self._run = job or uuid.uuid4().hex
        self._fd = -1
        if path:
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._fd = os.open(path, flags, 0o644)
            except OSError as error:
                raise InvalidArgument(
                    f"ledger {path!r} cannot be written: {error.strerror}"
                ) from error

    def intend(self, step: Step, world: World, lane: tuple[int, int], counts: bool) -> None:
        """Notes what this rank ran for a step, before it says ready. `lane`: index and count of
        its part of the work. Raises OutOfSpace."""
        if self._fd < 0 or not counts:
            return
        first = self._batches.of_rank(*lane).start
        self._append(
            {
                "ran": step.index,
                "lane": lane[0],
                "lanes": lane[1],
                "generation": world.generation,
                "rewound": world.rewound,
                "first": first * self._batches.micro_batch,
                "samples": step.samples,
            }
        )

    def happened(self, step: Step, world: World, size: int | None) -> None:
        """Notes that a step was agreed, before it is applied. `size`: samples in the dataset; None:
        there is none. Raises OutOfSpace."""
        if self._fd < 0:
            return
        self._append(
            {
                "step": step.index,
                "generation": world.generation,
                "rewound": world.rewound,
                "batch": self._batches.global_batch,
                "size": size,
            }
        )

    def close(self) -> None:
        """Closes the file. Twice is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _append(self, note: dict[str, Any]) -> None:
        line = encode({"run": self._run, **note})
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            raise OutOfSpace(
                f"ledger {self._path!r}: {error.strerror}: a step that cannot be noted is not taken"
            ) from error
        if written != len(line):
            raise OutOfSpace(
                f"ledger {self._path!r}: {written} of {len(line)} bytes were written: a step that "
                "cannot be noted is not taken; make room on the disk"
            )


def encode(note: dict[str, Any]) -> bytes:
    """A note as it is appended."""
    text = json.dumps(note, separators=(",", ":")).encode()
    return b"\n%08x %s\n" % (zlib.crc32(text), text)


def decode(line: bytes) -> dict[str, Any] | None:
    """The note of a line without its end; None if it is torn."""
    try:
        if line[8:9] != b" " or int(line[:8], 16) != zlib.crc32(line[9:]):
            return None
        note = json.loads(line[9:])
    except ValueError:
        return None
    return note if isinstance(note, dict) else None
