"""Each recovery, split into its phases, from the events of a run. Pure.

detect      fault injected     -> the agent knows (death's at_ns; the FAULT mail for an exception)
replace     the agent knows    -> a replacement is warm, only where no standby was left
decide      (either of both)   -> the new roster is published
notify      published          -> the last rank has noticed
reform      noticed            -> the last rank has its communicator
heal        communicator       -> the last receiver has its state
first_step  healed             -> the generation's first commit
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hpcore.demo.run_record import Event, RunRecord, incarnations

PHASES = ("detect", "replace", "decide", "notify", "reform", "heal", "first_step")


@dataclass
class Recovery:
    """One fault and the way back. `phases_ms` has only phases that were there; `interrupted`: the
    next fault came in between.
    """

    number: int
    title: str
    action: str
    point: str
    rank: int
    step: int
    fault_ns: int
    end_ns: int = 0
    generation: int = 0
    phases_ms: dict[str, float] = field(default_factory=dict)
    interrupted: bool = False
    survivors: int = 0
    survivors_kept: int = 0
    note: str = ""

    @property
    def total_ms(self) -> float:
        """From the fault to the first commit, or to the fault that interrupted."""
        return (self.end_ns - self.fault_ns) / 1e6

    def to_dict(self) -> dict[str, Any]:
        """Plain values for report.json."""
        names = ("number", "title", "action", "point", "rank", "step", "fault_ns", "end_ns")
        more = ("generation", "phases_ms", "interrupted", "survivors", "survivors_kept", "note")
        fields = {name: getattr(self, name) for name in (*names, *more)}
        return {**fields, "total_ms": self.total_ms}


def recoveries_of(record: RunRecord, titles: dict[tuple[str, str, int], str]) -> list[Recovery]:
    """All recoveries of a run in the order of their faults; `titles` by (point, action, rank)."""
    faults = record.of_kind("fault_injected")
    found = []
    for index, fault in enumerate(faults):
        following = faults[index + 1]["ns"] if index + 1 < len(faults) else None
        key = (fault["point"], fault["action"], fault["rank"])
        title = titles.get(key, f"{fault['action']} in {fault['point']}")
        recovery = Recovery(
            index + 1,
            title,
            fault["action"],
            fault["point"],
            fault["rank"],
            fault["step"],
            fault["ns"],
        )
        _measure(recovery, record, following)
        _count_survivors(recovery, record, faults)
        found.append(recovery)
    return found


def _measure(recovery: Recovery, record: RunRecord, following: int | None) -> None:
    detected = _detected_ns(recovery, record)
    if detected is None:
        recovery.note = "never noticed"
        recovery.end_ns = recovery.fault_ns
        return
    generation = _generation(record, detected)
    committed = record.first_commits.get(generation, 0)
    if following is not None and (not committed or following < committed):
        recovery.interrupted = True
        recovery.note = "interrupted by the next fault"
    recovery.generation = generation
    marks = [("detect", detected), *_marks(record, generation, detected)]
    at = recovery.fault_ns
    limit = following if recovery.interrupted else None
    for name, ns in marks:
        ns = max(at, ns if limit is None else min(ns, limit))
        if ns > at or name in ("detect", "decide", "notify", "reform", "first_step"):
            recovery.phases_ms[name] = (ns - at) / 1e6
        at = ns
        if limit is not None and at >= limit:
            break
    if limit is not None and at < limit:
        last = "heal" if "reform" in recovery.phases_ms else "decide"
        recovery.phases_ms[last] = recovery.phases_ms.get(last, 0.0) + (limit - at) / 1e6
        at = limit
    recovery.end_ns = at


def _detected_ns(recovery: Recovery, record: RunRecord) -> int | None:
    """When the agent knew of this fault."""
    if recovery.action == "exception":
        seen = [e["ns"] for e in record.of_kind("mail") if e.get("rank") == recovery.rank]
    else:
        seen = [e["at_ns"] for e in record.of_kind("death") if e.get("rank") == recovery.rank]
    return next((ns for ns in sorted(seen) if ns >= recovery.fault_ns - 1_000_000), None)


def _generation(record: RunRecord, detected: int) -> int:
    """The first generation whose roster was published after `detected`; 0 if there is none."""
    later = [g for g, roster in record.rosters.items() if roster["published_ns"] >= detected]
    return min(later, default=0)


def _marks(record: RunRecord, generation: int, detected: int) -> list[tuple[str, int]]:
    """Ends of the phases after detection, as far as they were reached."""
    if not generation:
        return []
    roster = record.rosters[generation]
    marks: list[tuple[str, int]] = []
    started = [
        e["slot"]
        for e in record.of_kind("attach")
        if e["slot"] in roster["receivers"] and detected < e["ns"] <= roster["published_ns"]
    ]
    decided = [e["decided_ns"] for e in record.of_kind("decide") if e["generation"] == generation]
    if started and decided:
        marks.append(("replace", decided[0]))
    marks.append(("decide", roster["published_ns"]))
    reforms = [e for e in record.of_kind("reform") if e["generation"] == generation]
    if reforms:
        marks.append(("notify", max(e["noticed_ns"] for e in reforms)))
        marks.append(("reform", max(e["communicator_ns"] for e in reforms)))
    heals = [
        e["end_ns"]
        for e in record.of_kind("heal")
        if e["generation"] == generation and e["role"] == "receiver"
    ]
    if heals:
        marks.append(("heal", max(heals)))
    if generation in record.first_commits:
        marks.append(("first_step", record.first_commits[generation]))
    return marks


def _count_survivors(recovery: Recovery, record: RunRecord, faults: list[Event]) -> None:
    """Counts the ranks that no fault hit, and how many of them are the same processes as before."""
    before = record.rosters.get(recovery.generation - 1)
    after = record.rosters.get(recovery.generation)
    if before is None or after is None:
        return
    begin, end = before["published_ns"], after["published_ns"]
    hit = {
        fault["rank"]
        for fault in faults
        if begin <= fault["ns"] <= end and fault["action"] in ("sigkill", "sigstop", "hang")
    }
    old, new = incarnations(before), set(incarnations(after).values())
    survivors = [pid for rank, pid in old.items() if rank not in hit]
    recovery.survivors = len(survivors)
    recovery.survivors_kept = sum(pid in new for pid in survivors)
