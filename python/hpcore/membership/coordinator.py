"""Where rosters are committed: the contract of a coordinator, and the local one inside the agent.

A coordinator lets exactly one roster have each generation: whoever comes second is refused and
must look again.
"""

from __future__ import annotations

import threading
from typing import Protocol

from hpcore.membership.roster import Roster


class Coordinator(Protocol):
    """Thread-safe."""

    def current(self) -> Roster | None:
        """The newest committed roster."""
        ...

    def commit(self, roster: Roster, expected: int) -> bool:
        """Makes `roster` the newest if the newest has generation `expected` (0: there is none) and
        `roster` is its
        successor; False, and nothing changed, otherwise. Does not wait for others."""
        ...

    def wait(self, after: int, timeout_s: float) -> Roster | None:
        """The newest roster once its generation exceeds `after`, else None after `timeout_s`."""
        ...

    def close(self) -> None:
        """Ends all waits. Twice is fine."""
        ...


class LocalCoordinator:
    """The coordinator of a job on one node: memory of the agent's. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._roster: Roster | None = None
        self._closed = False

    def current(self) -> Roster | None:
        """See Coordinator."""
        with self._changed:
            return self._roster

    def commit(self, roster: Roster, expected: int) -> bool:
        """See Coordinator."""
        with self._changed:
            newest = self._roster.generation if self._roster is not None else 0
            if self._closed or newest != expected or roster.generation != expected + 1:
                return False
            self._roster = roster
            self._changed.notify_all()
            return True

    def wait(self, after: int, timeout_s: float) -> Roster | None:
        """See Coordinator."""

        def newer() -> bool:
            return self._closed or (self._roster is not None and self._roster.generation > after)

        with self._changed:
            self._changed.wait_for(newer, timeout_s)
            found = self._roster
        return found if found is not None and found.generation > after else None

    def close(self) -> None:
        """See Coordinator."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
