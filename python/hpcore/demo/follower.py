"""Follows a running job's events.jsonl in a thread of its own.

`on_event` is called in that thread, in the order of the file's lines, for every event, whichever
process wrote it. `close` reads what is left and ends the thread; twice is fine.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

POLL_S = 0.02


class EventFollower:
    """Calls `on_event` for each line that is appended to a file, which may not exist yet."""

    def __init__(self, path: Path, on_event: Callable[[dict[str, Any]], None]) -> None:
        self._path = path
        self._on_event = on_event
        self._offset = 0
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._follow, name="event-follower", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Reads to the end, ends the thread, and raises what `on_event` raised, if it did."""
        self._stop.set()
        self._thread.join()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def __enter__(self) -> EventFollower:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _follow(self) -> None:
        try:
            while not self._stop.wait(POLL_S):
                self._read()
            self._read()
        except BaseException as error:  # raised again in close()
            self._error = error

    def _read(self) -> None:
        try:
            with self._path.open("rb") as stream:
                stream.seek(self._offset)
                data = stream.read()
        except FileNotFoundError:
            return
        whole = data.rfind(b"\n") + 1
        self._offset += whole
        for line in data[:whole].splitlines():
            self._on_event(json.loads(line))
