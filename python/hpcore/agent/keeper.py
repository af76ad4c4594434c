"""The shadow keeper: a process of the agent that keeps a second copy of other nodes' records.

It lays the records of its own node's ranks open (directory.py), pulls the newest record of each
rank that it keeps, one-sided, into the same memory of its own node, and tells the ranks of its own
node (ShadowMemory.confirm) which step their neighbour holds. It never touches the record that it
holds whole while it pulls the next. A process of its own: what a fabric's provider does to it, it
does not do to the agent. It ends when the agent does (its standard input ends).

Commands, one JSON line each, on standard input: {"ranks": [own], "kept_by": hex, "keeps":
[{"keeper": hex, "ranks": [..]}]}. Told, on standard output: {"address": hex} first, then
{"event": ...}.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from typing import Any

from hpcore import _core
from hpcore.agent.directory import Directory, RemoteDirectory
from hpcore.agent.shadow_memory import Record, ShadowMemory, address_of
from hpcore.errors import HpcoreError

READ_LIMIT_S = 10.0
SHORTEST_S, LONGEST_S = 0.001, 0.05
_PART = 16  # looks in the time between two records
RETRY_S = 0.5


class Neighbour:
    """Another node's keeper: read until it does not answer, then tried again after a while."""

    def __init__(self, fabric: Any, address: str) -> None:
        self.address = address
        self._fabric = fabric
        self._directory: RemoteDirectory | None = None
        self._retry_at = 0.0
        self.trouble = ""

    def look(self) -> Any:
        """Its directory; None while there is none to be had."""
        if time.monotonic() < self._retry_at:
            return None
        try:
            if self._directory is None:
                self._directory = RemoteDirectory(self._fabric, bytes.fromhex(self.address))
            found = self._directory.read(READ_LIMIT_S)
        except (HpcoreError, ValueError) as error:
            self.failed(error)
            return None
        self.trouble = ""
        return found

    def failed(self, error: Exception) -> None:
        """Nothing more of it for a while."""
        self.close()
        self.trouble = str(error)
        self._retry_at = time.monotonic() + RETRY_S

    def close(self) -> None:
        """Twice is fine."""
        if self._directory is not None:
            self._directory.close()
        self._directory = None


class Keeper:
    """One node's keeper, in its own process. `turn` as often as `pause_s` says."""

    def __init__(self, memory: ShadowMemory, fabric: Any) -> None:
        self.memory = memory
        self._fabric = fabric
        self._server = _core.FabricServer(fabric)
        self._directory = Directory(self._server)
        self.address = self._directory.address.hex()
        self._ranks: list[int] = []
        self._kept_by: Neighbour | None = None
        self._keeps: list[tuple[Neighbour, list[int]]] = []
        self._exposed: dict[tuple[int, int], tuple[int, str]] = {}  # size and address
        self._told: dict[str, str] = {}
        self.pause_s = LONGEST_S
        self._pulled_at = 0.0

    def follow(self, command: dict[str, Any]) -> None:
        """The ranks of this node, who keeps them, and whom this node keeps, from now on."""
        known = {n.address: n for n, _ in self._keeps}
        if self._kept_by is not None:
            known.setdefault(self._kept_by.address, self._kept_by)
        self._ranks = command["ranks"]

        def neighbour(address: str) -> Neighbour:
            return known.pop(address, None) or Neighbour(self._fabric, address)

        kept_by = command["kept_by"]
        if self._kept_by is None or self._kept_by.address != kept_by:
            for rank in self._ranks:
                self.memory.confirm(rank, -1)
        self._kept_by = neighbour(kept_by) if kept_by else None
        self._keeps = []
        for one in command["keeps"]:
            same = self._kept_by is not None and self._kept_by.address == one["keeper"]
            found = self._kept_by if same and self._kept_by else neighbour(one["keeper"])
            self._keeps.append((found, one["ranks"]))
        for left in known.values():
            left.close()

    def turn(self) -> list[dict[str, Any]]:
        """Looks at everything once; returns what is to be told."""
        self._publish()
        told: list[dict[str, Any]] = []
        seen: dict[str, Any] = {}
        for neighbour, ranks in self._keeps:
            seen[neighbour.address] = found = neighbour.look()
            era = self.memory.era
            if found is not None and found["era"] == era >= 0:
                told += self._pull_all(neighbour, ranks, found["records"], era)
        if self._kept_by is not None:
            by = self._kept_by
            found = seen[by.address] if by.address in seen else by.look()
            if found is not None:
                self._confirm(found)
        return told + self._troubles()

    def close(self) -> None:
        """Cuts off whoever reads."""
        self._server.close()
        self.memory.close()

    def _confirm(self, found: dict[str, Any]) -> None:
        era = self.memory.era
        for rank in self._ranks if found["era"] == era else []:
            held = int(found["held"].get(str(rank), -1))
            if held == self.memory.confirmed(rank):
                continue
            self.memory.confirm(rank, held)
            if self.memory.era != era:  # what was held may be of a past that is given up
                self.memory.confirm(rank, -1)

    # --- what others see ----------------------------------------------------------------------

    def _publish(self) -> None:
        era = self.memory.era  # before the records: they are not of an older one
        records = {
            str(rank): [self._entry(record) for record in self.memory.records(rank)]
            for rank in self._ranks
        }
        kept = [rank for _, ranks in self._keeps for rank in ranks]
        held = {str(rank): self.memory.newest(rank) for rank in kept}
        self._directory.write({"era": era, "records": records, "held": held})

    def _entry(self, record: Record) -> list[Any]:
        place = self._place(record.rank, record.half, record.size)
        sizes = [record.step, record.meta_bytes, record.data_bytes]
        return [*sizes, record.digest.hex(), *place]

    def _place(self, rank: int, half: int, size: int) -> tuple[int, str]:
        """(bytes, address) of what is laid open of a record's memory."""
        known = self._exposed.get((rank, half))
        if known is None or known[0] < size:
            if known is not None:
                old = self.memory.body(rank, half, 1)
                self._server.withdraw([(address_of(old), known[0])])
            body = self.memory.body(rank, half, size)
            room = len(body)
            address = self._server.expose([(address_of(body), room)]).hex()
            known = self._exposed[rank, half] = (room, address)
        return known

    # --- what others have ---------------------------------------------------------------------

    def _pull_all(
        self, neighbour: Neighbour, ranks: list[int], records: dict[str, Any], era: int
    ) -> list[dict[str, Any]]:
        told = []
        for rank in ranks:
            theirs = records.get(str(rank), [])
            newest = max(theirs, default=None)
            if newest is not None and newest[0] > self.memory.newest(rank):
                try:
                    told += self._pull(rank, newest, era)
                except HpcoreError as error:
                    neighbour.failed(error)
                    break
        return told

    def _pull(self, rank: int, entry: list[Any], era: int) -> list[dict[str, Any]]:
        step, meta_bytes, data_bytes, digest, room, address = entry
        half = self.memory.older_half(rank)
        record = Record(rank, half, step, meta_bytes, data_bytes, bytes.fromhex(digest))
        self.memory.forget(rank, half)
        begun = time.monotonic()
        body = self.memory.body(rank, half, record.size)
        into = [(address_of(body), len(body))]
        remote = _core.RemoteMemory.over_fabric(
            self._fabric, bytes.fromhex(address), 0, [(0, room)]
        )
        try:
            remote.read(0, record.size, into, READ_LIMIT_S)
        finally:
            self._fabric.release(into)
        if not self.memory.is_whole(record):  # overwritten meanwhile: the next look finds a newer
            return []
        self.memory.finish(record)
        if self.memory.era != era:  # all ranks went back: this may be of a past that is given up
            self.memory.forget(rank, half)
            return []
        self._publish()
        return [self._pulled(record, time.monotonic() - begun)]

    def _pulled(self, record: Record, seconds: float) -> dict[str, Any]:
        now = time.monotonic()
        gap, self._pulled_at = now - self._pulled_at, now
        self.pause_s = min(max(gap / _PART, SHORTEST_S), LONGEST_S)
        rate = round(record.size / max(seconds, 1e-9) / 1e9, 3)
        fields = {"rank": record.rank, "step": record.step, "bytes": record.size, "gb_per_s": rate}
        return {"event": "shadow_kept", **fields}

    def _troubles(self) -> list[dict[str, Any]]:
        """Neighbours that do not answer, or do again: each change once."""
        now = {n.address: n.trouble for n, _ in self._keeps}
        if self._kept_by is not None:
            now[self._kept_by.address] = self._kept_by.trouble
        changed = {a: text for a, text in now.items() if bool(text) != bool(self._told.get(a))}
        self._told = now
        return [{"event": "shadow_neighbour", "trouble": text} for text in changed.values()]


def main() -> None:
    """HPCORE_SHADOW_FD: the memory; HPCORE_FABRIC, HPCORE_LIBFABRIC as for workers."""
    from hpcore.network import NetworkOptions, open_fabric

    try:
        fabric = open_fabric(NetworkOptions.of(os.environ))
        keeper = Keeper(ShadowMemory(int(os.environ["HPCORE_SHADOW_FD"])), fabric)
    except HpcoreError as error:
        _say({"address": "", "why": str(error)})
        return
    _say({"address": keeper.address})
    pending = b""
    while True:
        if select.select([0], [], [], keeper.pause_s)[0]:
            read = os.read(0, 1 << 16)
            if not read:
                break
            *lines, pending = (pending + read).split(b"\n")
            for line in lines:
                keeper.follow(json.loads(line))
        for event in keeper.turn():
            _say(event)
    keeper.close()


def _say(message: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    main()
