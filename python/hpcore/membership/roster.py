"""The roster: which worker holds which rank in one generation.

Immutable and thread-safe. The agent makes one a generation and publishes its bytes (JSON) on
the notice board; workers read them there.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from hpcore.errors import InvalidArgument


@dataclass(frozen=True)
class Member:
    """One worker with a rank: `slot` is its place in the node segment, `incarnation` is never
    reused. `announcement`: what others must know to reach it from another node; opaque here."""

    rank: int
    slot: int
    incarnation: int
    pid: int
    node: int = 0
    announcement: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values; an announcement only where there is one."""
        value = {
            "rank": self.rank,
            "slot": self.slot,
            "incarnation": self.incarnation,
            "pid": self.pid,
            "node": self.node,
        }
        return {**value, "announcement": self.announcement} if self.announcement else value


@dataclass(frozen=True)
class Node:
    """One host: its number (`Member.node`), name, rack (nodes of one rack are near each other and
    fail together; "": not known), and what its shadow keeper announced ("": it has none)."""

    number: int
    host: str = ""
    rack: str = ""
    keeper: str = ""


@dataclass(frozen=True)
class Roster:
    """An immutable, numbered list of members, ordered by rank.

    `steps` is the number of committed steps, `receivers` the slots that need state, `sources` the
    slots that hold it whole, `detected_ns` and `decided_ns` are CLOCK_MONOTONIC nanoseconds.
    `block`: ranks of one node as the job began; sums over nodes are formed block by block, whoever
    holds the ranks later (0: one node).
    """

    generation: int
    job: str
    steps: int
    members: tuple[Member, ...]
    receivers: tuple[int, ...] = ()
    sources: tuple[int, ...] = ()
    reason: str = ""
    detected_ns: int = 0
    decided_ns: int = 0
    nodes: tuple[Node, ...] = ()
    block: int = 0
    _ranks: dict[int, int] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.members, key=lambda member: member.rank))
        held = [member.rank for member in ordered]
        if held != list(range(len(ordered))):
            raise InvalidArgument(
                f"roster {self.generation} has ranks {held}; they must be 0..{len(ordered) - 1}"
            )
        ranks = {member.slot: member.rank for member in ordered}
        if len(ranks) != len(ordered):
            raise InvalidArgument(
                f"roster {self.generation} names a slot twice: {[m.slot for m in ordered]}"
            )
        object.__setattr__(self, "members", ordered)
        object.__setattr__(self, "receivers", tuple(self.receivers))
        object.__setattr__(self, "sources", tuple(self.sources))
        object.__setattr__(self, "nodes", tuple(self.nodes))
        object.__setattr__(self, "_ranks", ranks)

    @property
    def world_size(self) -> int:
        """Number of members."""
        return len(self.members)

    @property
    def slots(self) -> list[int]:
        """Slots in the order of ranks."""
        return [member.slot for member in self.members]

    def rank_of(self, slot: int) -> int | None:
        """The rank that `slot` holds, or None if this roster does not name it."""
        return self._ranks.get(slot)

    def member_of(self, slot: int) -> Member | None:
        """The member in `slot`, or None if this roster does not name it."""
        rank = self._ranks.get(slot)
        return None if rank is None else self.members[rank]

    def racks(self) -> dict[int, int]:
        """Labels by node number: equal ones are of one rack; of unknown racks each is its own."""
        named = {node.number: node.rack for node in self.nodes if node.rack}
        numbers: dict[str, int] = {}
        labels: dict[int, int] = {}
        for member in self.members:
            if member.node not in labels:
                name = named.get(member.node) or f"node {member.node}"
                labels[member.node] = numbers.setdefault(name, len(numbers))
        return labels

    def to_bytes(self) -> bytes:
        """JSON, as it lies on the notice board."""
        return json.dumps(self.to_dict(), separators=(",", ":")).encode()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, in the schema of docs/architecture.md."""
        return {
            "generation": self.generation,
            "job": self.job,
            "steps": self.steps,
            "members": [m.to_dict() for m in self.members],
            "receivers": list(self.receivers),
            "sources": list(self.sources),
            "reason": self.reason,
            "detected_ns": self.detected_ns,
            "decided_ns": self.decided_ns,
            "nodes": [asdict(node) for node in self.nodes],
            "block": self.block,
        }

    @staticmethod
    def from_dict(value: dict[str, Any]) -> Roster:
        """The inverse of `to_dict`. Raises TypeError or KeyError if it is no roster."""
        value = dict(value)
        members = tuple(Member(**member) for member in value.pop("members"))
        nodes = tuple(Node(**node) for node in value.pop("nodes", ()))
        return Roster(members=members, nodes=nodes, **value)

    @staticmethod
    def from_bytes(data: bytes) -> Roster:
        """The inverse of `to_bytes`.

        Raises InvalidArgument if the bytes are no roster.
        """
        try:
            return Roster.from_dict(json.loads(data))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, InvalidArgument):
                raise
            raise InvalidArgument(f"not a roster ({error}): {data[:80]!r}") from error
