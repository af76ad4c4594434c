"""What the agent says: events.jsonl, the caller's `on_event`, and short lines on the terminal.

One thread. Nothing is written when an event is noted, only at `flush`: the path from a death to
the next roster touches no disk.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from hpcore.agent.events import EventLog
from hpcore.agent.logs import LogRelay
from hpcore.agent.mail import roster_line
from hpcore.membership.roster import Roster


class Journal:
    """Owns the event log."""

    def __init__(
        self, path: str, relay: LogRelay, on_event: Callable[[dict[str, Any]], None] | None
    ) -> None:
        self._log = EventLog(path)
        self._relay = relay
        self._on_event = on_event
        self._noted: list[dict[str, Any]] = []
        self._lines: list[str] = []

    def note(self, event: str, ns: int | None = None, **fields: Any) -> None:
        """An event, written at the next flush."""
        at_ns = time.monotonic_ns() if ns is None else ns
        self._noted.append({"ns": at_ns, "event": event, **fields})

    def note_json(self, text: str) -> None:
        """An event that a worker mailed; text that is none is kept as such."""
        try:
            value = json.loads(text)
            event = {"ns": time.monotonic_ns(), **value}
            event["event"] = str(value["event"])
        except (ValueError, TypeError, KeyError):
            event = {"ns": time.monotonic_ns(), "event": "timeline", "text": text}
        self._noted.append(event)

    def note_roster(self, roster: Roster, published_ns: int, revoked_ns: int | None) -> None:
        """A new generation: revoke, decide, roster; and a line for the terminal, unless it is the
        first."""
        if revoked_ns is not None:
            self.note("revoke", ns=revoked_ns, generation=roster.generation - 1)
        self.note(
            "decide",
            ns=roster.decided_ns,
            generation=roster.generation,
            reason=roster.reason,
            detected_ns=roster.detected_ns,
            decided_ns=roster.decided_ns,
        )
        value = roster.to_dict()
        del value["decided_ns"], value["job"]
        self.note("roster", ns=published_ns, published_ns=published_ns, **value)
        if roster.generation > 1:
            self.say(roster_line(roster, published_ns))

    def say(self, line: str) -> None:
        """A line for the terminal."""
        self._lines.append(line)

    def flush(self) -> None:
        """Writes what was noted."""
        if self._noted:
            noted, self._noted = self._noted, []
            self._log.write(noted)
            if self._on_event is not None:
                for event in noted:
                    self._on_event(event)
        if self._lines:
            lines, self._lines = self._lines, []
            self._relay.say(lines)

    def close(self) -> None:
        """Flushes and closes."""
        self.flush()
        self._log.close()
