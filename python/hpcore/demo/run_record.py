"""What happened in one run, read from its events.jsonl: commits, rosters, faults, ledger. One
thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

Event = dict[str, Any]


@dataclass(frozen=True)
class Commit:
    """One committed step, as rank 0 saw it; `ns` is when its gradients were agreed."""

    step: int
    ns: int
    loss: float
    world_size: int
    generation: int
    begin_ns: int


@dataclass
class RunRecord:
    """Events of a run by kind. Feed it event by event; it may be read at any time in between."""

    commits: dict[int, Commit] = field(default_factory=dict)
    repeated: list[int] = field(default_factory=list)
    first_commits: dict[int, int] = field(default_factory=dict)
    rosters: dict[int, Event] = field(default_factory=dict)
    samples: dict[int, list[int]] = field(default_factory=dict)
    ranks_of_step: dict[int, list[int]] = field(default_factory=dict)
    events: dict[str, list[Event]] = field(default_factory=dict)
    start_ns: int = 0

    @staticmethod
    def of(events: Iterable[Event]) -> RunRecord:
        """The record of all these events."""
        record = RunRecord()
        for event in events:
            record.add(event)
        return record

    def add(self, event: Event) -> None:
        """Takes one event."""
        kind = event["event"]
        if not self.start_ns:
            self.start_ns = event["ns"]
        if kind == "commit":
            self._add_commit(event)
            return
        if kind == "roster":
            self.rosters[event["generation"]] = event
        self.events.setdefault(kind, []).append(event)

    def of_kind(self, kind: str) -> list[Event]:
        """All events of one kind, in the order of their time."""
        return sorted(self.events.get(kind, []), key=lambda event: event["ns"])

    def _add_commit(self, event: Event) -> None:
        step, generation, ns = event["step"], event["generation"], event["ns"]
        self.first_commits[generation] = min(ns, self.first_commits.get(generation, ns))
        if "samples" in event:
            self._add_ledger(step, event["rank"], event["samples"])
        if event["rank"] != 0:
            return
        if step in self.commits:
            self.repeated.append(step)
        loss = float(event.get("sums", {}).get("loss", float("nan")))
        self.commits[step] = Commit(
            step, ns, loss, event["world_size"], generation, event.get("begin_ns") or 0
        )

    def _add_ledger(self, step: int, rank: int, samples: list[int]) -> None:
        ranks = self.ranks_of_step.setdefault(step, [])
        if rank in ranks:
            self.repeated.append(step)
        ranks.append(rank)
        self.samples.setdefault(step, []).extend(samples)

    def seconds(self, ns: int) -> float:
        """Seconds since the run's first event."""
        return (ns - self.start_ns) / 1e9

    def ordered(self) -> list[Commit]:
        """Commits in the order of steps."""
        return [self.commits[step] for step in sorted(self.commits)]


def incarnations(roster: Event) -> dict[int, int]:
    """Rank -> pid of a roster event."""
    return {member["rank"]: member["pid"] for member in roster["members"]}
