"""What agents have in common: small values under keys, changed by compare-and-swap only, leases,
watches.

`LocalCoordinator` is memory of one process; `membership.etcd.EtcdCoordinator` is etcd. One contract
test suite (tests/contract/test_coordinator.py) holds for both.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from hpcore.errors import CoordinatorUnavailable


@dataclass(frozen=True)
class Entry:
    """A value; `version` rises with each change of any key, `lease` is 0 or what it lives with."""

    value: bytes
    version: int
    lease: int = 0


Guard = tuple[str, int]
"""A key and the version that it must have (0: it must not be there)."""


class Watch(Protocol):
    """Says when to look again. One thread waits, any may close."""

    def wait(self, timeout_s: float) -> bool:
        """Whether something under the prefix may have changed since the last call; True now and
        then without cause, never False after a change that was there before the call."""
        ...

    def close(self) -> None:
        """Ends a wait. Twice is fine."""
        ...


class Coordinator(Protocol):
    """Thread-safe. Each call but `close` raises CoordinatorUnavailable if nobody answers in time;
    what was asked for may then have happened or not."""

    def get(self, key: str) -> Entry | None:
        """The newest value that was agreed."""
        ...

    def entries(self, prefix: str) -> dict[str, Entry]:
        """All keys that begin so."""
        ...

    def swap(
        self, key: str, value: bytes, expected: int, lease: int = 0, guards: tuple[Guard, ...] = ()
    ) -> int | None:
        """Sets `key` if its version is `expected` (0: absent) and all guards hold: the new version,
        else None and nothing changed, also if the lease is gone."""
        ...

    def delete(self, key: str, expected: int) -> bool:
        """Removes `key` if its version is `expected`."""
        ...

    def grant(self, ttl_s: float) -> int:
        """A lease: keys made with it go when it was not renewed for `ttl_s`, or somewhat longer."""
        ...

    def renew(self, lease: int) -> bool:
        """False if it is gone."""
        ...

    def revoke(self, lease: int) -> None:
        """Ends a lease and removes its keys. One that is gone is fine."""
        ...

    def watch(self, prefix: str) -> Watch:
        """Follows all keys that begin so."""
        ...

    def close(self) -> None:
        """Ends all watches. Twice is fine."""
        ...


class LocalCoordinator:
    """The coordinator of agents in one process. `available` False is an outage, for tests; `clock`
    tells leases their age in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.available = True
        self._clock = clock
        self._changed = threading.Condition()
        self._entries: dict[str, Entry] = {}
        self._leases: dict[int, tuple[float, float]] = {}  # id -> (ttl, when it ends)
        self._version = 0
        self._closed = False

    def get(self, key: str) -> Entry | None:
        """See Coordinator."""
        with self._ready():
            return self._entries.get(key)

    def entries(self, prefix: str) -> dict[str, Entry]:
        """See Coordinator."""
        with self._ready():
            return {k: e for k, e in sorted(self._entries.items()) if k.startswith(prefix)}

    def swap(
        self, key: str, value: bytes, expected: int, lease: int = 0, guards: tuple[Guard, ...] = ()
    ) -> int | None:
        """See Coordinator."""
        with self._ready():
            held = all(self._version_of(k) == v for k, v in ((key, expected), *guards))
            if not held or (lease and lease not in self._leases):
                return None
            self._version += 1
            self._entries[key] = Entry(value, self._version, lease)
            self._changed.notify_all()
            return self._version

    def delete(self, key: str, expected: int) -> bool:
        """See Coordinator."""
        with self._ready():
            if not expected or self._version_of(key) != expected:
                return False
            self._remove([key])
            return True

    def grant(self, ttl_s: float) -> int:
        """See Coordinator."""
        with self._ready():
            self._version += 1
            self._leases[self._version] = (ttl_s, self._clock() + ttl_s)
            return self._version

    def renew(self, lease: int) -> bool:
        """See Coordinator."""
        with self._ready():
            found = self._leases.get(lease)
            if found is None:
                return False
            self._leases[lease] = (found[0], self._clock() + found[0])
            return True

    def revoke(self, lease: int) -> None:
        """See Coordinator."""
        with self._ready():
            self._end([lease])

    def watch(self, prefix: str) -> Watch:
        """See Coordinator."""
        return _LocalWatch(self, prefix)

    def close(self) -> None:
        """See Coordinator."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def newest(self, prefix: str) -> tuple[int, int]:
        """Something that differs after each change under `prefix`. With the lock held."""
        found = [e.version for k, e in self._entries.items() if k.startswith(prefix)]
        return max(found, default=0), len(found)

    def await_change(
        self, prefix: str, seen: tuple[int, int], closed: threading.Event, timeout_s: float
    ) -> tuple[int, int]:
        """`newest`, once it is not `seen` any more, at most for so long."""
        until = time.monotonic() + timeout_s
        with self._changed:
            while True:
                self._expire()
                found = self.newest(prefix)
                left = until - time.monotonic()
                if found != seen or left <= 0 or self._closed or closed.is_set():
                    return found
                self._changed.wait(min(left, 0.05))

    def wake(self) -> None:
        """Lets all watches look whether they are closed."""
        with self._changed:
            self._changed.notify_all()

    def _ready(self) -> threading.Condition:
        """The lock, with leases that ended taken out."""
        if self._closed or not self.available:
            raise CoordinatorUnavailable("the coordinator of this process is closed or away")
        with self._changed:
            self._expire()
        return self._changed

    def _expire(self) -> None:
        now = self._clock()
        if self.available:
            self._end([lease for lease, (_, end) in self._leases.items() if end <= now])

    def _end(self, leases: list[int]) -> None:
        for lease in leases:
            self._leases.pop(lease, None)
        gone = [k for k, e in self._entries.items() if e.lease and e.lease in leases]
        if gone:
            self._remove(gone)

    def _remove(self, keys: list[str]) -> None:
        self._version += 1
        for key in keys:
            del self._entries[key]
        self._changed.notify_all()

    def _version_of(self, key: str) -> int:
        found = self._entries.get(key)
        return 0 if found is None else found.version


class _LocalWatch:
    def __init__(self, coordinator: LocalCoordinator, prefix: str) -> None:
        self._coordinator = coordinator
        self._prefix = prefix
        self._closed = threading.Event()
        self._seen = coordinator.await_change(prefix, (-1, -1), self._closed, 0.0)

    def wait(self, timeout_s: float) -> bool:
        found = self._coordinator.await_change(self._prefix, self._seen, self._closed, timeout_s)
        changed, self._seen = found != self._seen, found
        return changed

    def close(self) -> None:
        self._closed.set()
        self._coordinator.wake()
