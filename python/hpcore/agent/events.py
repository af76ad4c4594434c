"""events.jsonl: what happened in a job, one JSON object a line.

Thread-safe and safe between processes: each line is one O_APPEND write. Every object has "ns"
(CLOCK_MONOTONIC, when it was appended unless the caller gives it) and "event".
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

from hpcore.errors import InvalidArgument


class EventLog:
    """Appends events to a file that several processes share. `close()` twice is fine."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def append(self, event: str, **fields: Any) -> None:
        """Writes one line; `ns` may be given among the fields."""
        ns = fields.pop("ns", None)
        self.write([{"ns": time.monotonic_ns() if ns is None else ns, "event": event, **fields}])

    def write(self, events: list[dict[str, Any]]) -> None:
        """Writes ready-made events in one write."""
        if self._fd < 0 or not events:
            return
        lines = "".join(
            json.dumps(event, separators=(",", ":"), default=str) + "\n" for event in events
        )
        os.write(self._fd, lines.encode())

    def close(self) -> None:
        """Closes the file; later events are dropped."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_events(path: str | os.PathLike[str], event: str | None = None) -> Iterator[dict[str, Any]]:
    """The events of a file in the order they were written, optionally of one name only.

    A last line without a line end (a process died while writing, or still writes) is left out.

    Raises InvalidArgument with the line's number if a whole line is no event.
    """
    with open(path, encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith("\n"):
                return
            try:
                value = json.loads(line)
            except ValueError as error:
                raise InvalidArgument(
                    f"{os.fspath(path)}:{number} is no event: {line[:80]!r}"
                ) from error
            if event is None or value.get("event") == event:
                yield value
