"""A node's place in a job, as the coordinator knows it: number, lease, the lead, commits.

Three threads: one renews the lease, one follows what changes, one carries out what is asked for, in
order. All that comes of it is put into `received`, then `wake` is called. A coordinator that is
away delays what was asked for; it loses nothing.
"""

from __future__ import annotations

import json
import queue
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from hpcore.errors import CoordinatorUnavailable, InvalidArgument
from hpcore.membership.coordinator import Coordinator
from hpcore.membership.roster import Roster
from hpcore.membership.rosters import KeptRosters

STOP_KEPT_S = 3600.0
"""How long the end of a job is remembered, so that a late node does not begin it anew."""


TTL_LEASES = 5.0
"""Nodes are expelled by those who miss them; by itself the coordinator forgets one only later."""


class JobEnded(InvalidArgument):
    """The job that this node was to join is over; `code`: its exit code."""

    def __init__(self, job: str, code: int, reason: str) -> None:
        super().__init__(f"--job {job} has ended ({reason}): take another name")
        self.code = code
        self.reason = reason


class Enrolment:
    """`close()` twice is fine. `renewed_s`: when the lease was last renewed for sure."""

    def __init__(
        self, coordinator: Coordinator, job: str, lease_s: float, wake: Callable[[], None]
    ) -> None:
        """Takes a number. Raises CoordinatorUnavailable, JobEnded."""
        self._coordinator = coordinator
        self._prefix = f"hpcore/{job}/"
        self._lease_s = lease_s
        self._wake = wake
        self.rosters = KeptRosters(coordinator, self._prefix)
        self.received: deque[dict[str, Any]] = deque()
        stopped = coordinator.get(self._key("stop"))
        if stopped is not None:
            raise JobEnded(job, **json.loads(stopped.value))
        self.secret = self._shared_secret()
        self.number = self._take_number()
        self.renewed_s = time.monotonic()
        self.lease = coordinator.grant(TTL_LEASES * lease_s)
        coordinator.swap(self._key(f"nodes/{self.number}"), b"", 0, self.lease)
        self._lead_version = 0
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._watch = coordinator.watch(self._prefix)
        self._threads = [
            threading.Thread(target=run, name=name, daemon=True)
            for name, run in (
                ("lease", self._renew),
                ("coordinator-watch", self._follow),
                ("coordinator", self._work),
            )
        ]
        for thread in self._threads:
            thread.start()

    # --- asked for by the agent; answers come through `received` ----------------------------------

    def seek_lead(self, address: str) -> None:
        """Tries to become the lead: "leads" with the newest roster (None: there is none)."""
        self._tasks.put(lambda: self._seek_lead(address))

    def commit(self, roster: Roster) -> None:
        """Commits as the lead: "committed", or "deposed"; waits for a coordinator that is away."""
        self._tasks.put(lambda: self._commit(roster))

    def expel(self, number: int) -> None:
        """Ends a node's lease, and its lead if it had it."""
        self._tasks.put(lambda: self._expel(number))

    def finish(self, code: int, reason: str) -> None:
        """The end of the job, for those who come late."""
        self._tasks.put(lambda: self._finish(code, reason))

    def close(self) -> None:
        """Gives the lease back. Waits for what was asked for, if the coordinator answers."""
        if self._closed.is_set():
            return
        self._tasks.put(self._leave)
        self._tasks.put(None)
        self._threads[2].join(2.0)
        self._closed.set()
        self._watch.close()
        for thread in self._threads:
            thread.join(5.0)
        self._coordinator.close()

    # --- threads ----------------------------------------------------------------------------------

    def _renew(self) -> None:
        while not self._closed.wait(self._lease_s / 4):
            asked_s = time.monotonic()
            try:
                if self._coordinator.renew(self.lease):
                    self.renewed_s = asked_s
                    continue
                self._tell({"kind": "expelled"})
                return
            except CoordinatorUnavailable:
                continue

    def _follow(self) -> None:
        seen: dict[str, Any] = {}
        while not self._closed.is_set():
            try:
                found = self._look()
            except CoordinatorUnavailable:
                self._closed.wait(0.2)
                continue
            if found != seen:
                seen = found
                self._tell({"kind": "look", **found})
            self._watch.wait(1.0)

    def _look(self) -> dict[str, Any]:
        entries = self._coordinator.entries(self._prefix + "n")
        lead = self._coordinator.get(self._key("lead"))
        stop = self._coordinator.get(self._key("stop"))
        start = len(self._key("nodes/"))
        return {
            "nodes": sorted(int(k[start:]) for k in entries if k.startswith(self._key("nodes/"))),
            "lead": None if lead is None else {**json.loads(lead.value), "version": lead.version},
            "stop": None if stop is None else json.loads(stop.value),
        }

    def _work(self) -> None:
        while True:
            task = self._tasks.get()
            if task is None:
                return
            while not self._closed.is_set():
                try:
                    task()
                    break
                except CoordinatorUnavailable:
                    if task == self._leave:
                        break
                    self._closed.wait(0.2)

    # --- what they do -----------------------------------------------------------------------------

    def _key(self, name: str) -> str:
        return self._prefix + name

    def _tell(self, message: dict[str, Any]) -> None:
        self.received.append(message)
        self._wake()

    def _shared_secret(self) -> bytes:
        key = self._key("secret")
        self._coordinator.swap(key, secrets.token_bytes(32), 0)
        entry = self._coordinator.get(key)
        assert entry is not None
        return entry.value

    def _take_number(self) -> int:
        key = self._key("count")
        while True:
            entry = self._coordinator.get(key)
            number, version = (0, 0) if entry is None else (int(entry.value), entry.version)
            if self._coordinator.swap(key, b"%d" % (number + 1), version) is not None:
                return number

    def _seek_lead(self, address: str) -> None:
        text = json.dumps({"number": self.number, "address": address}).encode()
        version = self._coordinator.swap(self._key("lead"), text, 0, self.lease)
        if version is not None:
            self._lead_version = version
            self._tell({"kind": "leads", "roster": self.rosters.current()})

    def _commit(self, roster: Roster) -> None:
        done = self.rosters.commit(roster, ((self._key("lead"), self._lead_version),))
        self._tell({"kind": "committed" if done else "deposed", "generation": roster.generation})

    def _expel(self, number: int) -> None:
        entry = self._coordinator.get(self._key(f"nodes/{number}"))
        if entry is not None:
            self._coordinator.revoke(entry.lease)

    def _finish(self, code: int, reason: str) -> None:
        lease = self._coordinator.grant(STOP_KEPT_S)
        text = json.dumps({"code": code, "reason": reason}).encode()
        self._coordinator.swap(self._key("stop"), text, 0, lease)
        for name in ("roster", "count", "chunk/"):
            for key, entry in self._coordinator.entries(self._key(name)).items():
                self._coordinator.delete(key, entry.version)

    def _leave(self) -> None:
        self._coordinator.revoke(self.lease)
