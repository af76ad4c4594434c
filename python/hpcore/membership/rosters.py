"""Where rosters are committed: exactly one for each generation.

A large roster is more than etcd takes in one value, and little of it changes: members are kept in
chunks named by their digest, so that a commit writes those that are new, and one short record that
lists them. Whoever comes second is refused and must look again.
"""

from __future__ import annotations

import hashlib
import json
import threading
from typing import Any, Protocol

from hpcore.errors import CorruptData
from hpcore.membership.coordinator import Coordinator, Guard
from hpcore.membership.roster import Roster

CHUNK_MEMBERS = 512


class Rosters(Protocol):
    """Thread-safe."""

    def current(self) -> Roster | None:
        """The newest committed roster."""
        ...

    def commit(self, roster: Roster, guards: tuple[Guard, ...] = ()) -> bool:
        """Makes `roster` the newest if the newest is its predecessor (none: generation 1) and the
        guards hold; False, and nothing changed, otherwise. One that is committed already: True."""
        ...


class LocalRosters:
    """Of a job on one node: memory of the agent's. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._roster: Roster | None = None

    def current(self) -> Roster | None:
        """See Rosters."""
        with self._lock:
            return self._roster

    def commit(self, roster: Roster, guards: tuple[Guard, ...] = ()) -> bool:
        """See Rosters."""
        with self._lock:
            newest = self._roster.generation if self._roster is not None else 0
            if roster.generation != newest + 1:
                return False
            self._roster = roster
            return True


class KeptRosters:
    """In a coordinator, under `prefix`. Thread-safe; what is in the way raises
    CoordinatorUnavailable, after which a commit may have happened: commit it again."""

    def __init__(self, coordinator: Coordinator, prefix: str) -> None:
        self._coordinator = coordinator
        self._prefix = prefix
        self._written: dict[str, int] = {}  # chunks known to be there, and the generation of use

    def current(self) -> Roster | None:
        """See Rosters. Raises CorruptData if a chunk is missing or not what it should be."""
        entry = self._coordinator.get(f"{self._prefix}roster")
        return None if entry is None else self._read(json.loads(entry.value))

    def commit(self, roster: Roster, guards: tuple[Guard, ...] = ()) -> bool:
        """See Rosters."""
        value = roster.to_dict()
        members = value.pop("members")
        chunks = [
            json.dumps(members[first : first + CHUNK_MEMBERS], separators=(",", ":")).encode()
            for first in range(0, len(members), CHUNK_MEMBERS)
        ]
        value["chunks"] = [hashlib.sha256(chunk).hexdigest() for chunk in chunks]
        record = json.dumps(value, separators=(",", ":")).encode()
        before = self._coordinator.get(f"{self._prefix}roster")
        if before is not None and before.value == record:
            return True
        held = 0 if before is None else int(json.loads(before.value)["generation"])
        if held != roster.generation - 1:
            return False
        for name, chunk in zip(value["chunks"], chunks, strict=True):
            if name not in self._written:
                self._coordinator.swap(f"{self._prefix}chunk/{name}", chunk, 0)
            self._written[name] = roster.generation
        expected = 0 if before is None else before.version
        done = self._coordinator.swap(f"{self._prefix}roster", record, expected, guards=guards)
        if done is None:
            return False
        self._sweep(roster.generation)
        return True

    def _read(self, value: dict[str, Any]) -> Roster:
        members: list[dict[str, Any]] = []
        for name in value.pop("chunks"):
            entry = self._coordinator.get(f"{self._prefix}chunk/{name}")
            if entry is None or hashlib.sha256(entry.value).hexdigest() != name:
                raise CorruptData(
                    f"roster {value['generation']}: chunk {name[:12]} of its members "
                    f"{'is missing' if entry is None else 'has another digest'} in the coordinator"
                )
            self._written[name] = value["generation"]
            members += json.loads(entry.value)
        return Roster.from_dict({**value, "members": members})

    def _sweep(self, generation: int) -> None:
        """Removes chunks that the last two rosters did not name; what another agent wrote is swept
        by whoever read it."""
        for name in [n for n, used in self._written.items() if used < generation - 1]:
            key = f"{self._prefix}chunk/{name}"
            entry = self._coordinator.get(key)
            if entry is not None:
                self._coordinator.delete(key, entry.version)
            del self._written[name]
