"""What agents say to each other, as plain values. Pure.

node -> lead: hello, event, frozen, leave. lead -> node: close, roster, spawn, kill, stop.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from hpcore.membership import state
from hpcore.membership.lead import NodeFacts, Snapshot
from hpcore.membership.places import place_of
from hpcore.membership.state import Event, Stage, WorkerFacts

Message = dict[str, Any]

_EVENTS: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        state.Spawned,
        state.SpawnFailed,
        state.StageChanged,
        state.Died,
        state.Exited,
        state.Faulted,
        state.ScriptFailed,
        state.StopAsked,
        state.FirstCommit,
        state.Stalled,
        state.Resized,
    )
}


def event_message(event: Event, node: int) -> Message:
    """An event of a node, its slot as a place."""
    fields = {f.name: getattr(event, f.name) for f in dataclasses.fields(event)}
    if "slot" in fields:
        fields["slot"] = place_of(node, fields["slot"])
    return {"kind": "event", "type": type(event).__name__, "fields": fields}


def event_of(message: Message) -> Event:
    """The inverse. Raises KeyError, TypeError or ValueError for anything else."""
    kind = _EVENTS[message["type"]]
    fields = dict(message["fields"])
    if "stage" in fields:
        fields["stage"] = Stage(fields["stage"])
    return kind(**fields)


def hello_message(snapshot: Snapshot, generation: int, address: str) -> Message:
    """What an agent says first to a lead: its node as it is, the newest roster it has."""
    return {
        "kind": "hello",
        "facts": dataclasses.asdict(snapshot.facts),
        "workers": [dataclasses.asdict(worker) for worker in snapshot.workers],
        "finished": list(snapshot.finished),
        "generation": generation,
        "address": address,
    }


def snapshot_of(message: Message) -> Snapshot:
    """The inverse. Raises KeyError, TypeError or ValueError for anything else."""
    workers = [
        WorkerFacts(**{**worker, "stage": Stage(worker["stage"])}) for worker in message["workers"]
    ]
    facts = NodeFacts(**message["facts"])
    return Snapshot(facts, tuple(workers), tuple(message["finished"]))
