"""Healing: newcomers take tracked state from the memory of healthy peers; nothing is read from
disk.
 One `all_gather_bytes` carries what receivers must know: every rank's layout digest, every source's
addresses, and from the first source the manifest (trees and tensor specs). Receivers build what
they lack and pull; sources publish digests and go on at once: settled tensors cannot change before
a commit, which needs the receivers; fluid ones are served from the shadow. Training thread only,
apart from the native threads that read and digest.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hpcore import _core
from hpcore.errors import JobStopped, MismatchError
from hpcore.layout import TensorSpec, check_tensor
from hpcore.membership.roster import Roster
from hpcore.plain import decode, encode
from hpcore.replicas import ReplicaGroup, replica_groups
from hpcore.sharding import Sharding, local_of, part_held
from hpcore.tracked import Capture, capture

if TYPE_CHECKING:
    from hpcore.loop import Loop

CHUNK_BYTES = 1 << 20
PULL_THREADS = 2  # bench/: one thread does not fill the memory bus, a third adds nothing

Region = tuple[int, int]


def heal(loop: Loop, worker: Any, roster: Roster) -> None:
    """Gives state, or takes it, as the roster says. Call with the new generation's world in place.

    A source returns as soon as it has published its digests; a receiver when it holds the state of
    `roster.steps` whole. Raises RosterChanged, MismatchError (layouts differ: all ranks raise it),
    CorruptData.
    """
    begin_ns = time.monotonic_ns()
    slot, steps, rank = worker.slot, roster.steps, loop.world.rank
    group = _replica_group(loop, roster)
    role = "receiver" if slot in group.receivers else "source" if slot in group.sources else "none"
    if role == "source" and slot in roster.receivers:
        loop.become_source()
    offer = _offer(loop) if role == "source" else None
    message: dict[str, Any] = {"layout": loop.state.digest()}
    if offer is not None:
        message["addresses"] = [list(region) for region in offer.regions()]
        if slot == group.sources[0]:
            message["manifest"] = offer.manifest()
    messages = _gather(loop, message)
    gathered_ns = time.monotonic_ns()
    loop.drill.fire("heal", loop.drill_rank, steps)
    fields: dict[str, Any] = {"bytes": 0, "chunks": 0, "refetched": 0}
    if offer is not None:
        loop.serve(_publish(worker, roster, group, offer.regions()))
    elif role == "receiver":
        stats = _receive(loop, worker, roster, group, messages)
        fields = {"bytes": stats.bytes, "chunks": stats.chunks, "refetched": stats.refetched}
    loop.record(
        "heal",
        generation=roster.generation,
        rank=rank,
        role=role,
        begin_ns=begin_ns,
        gathered_ns=gathered_ns,
        end_ns=time.monotonic_ns(),
        **fields,
    )


def _gather(loop: Loop, message: dict[str, Any]) -> list[dict[str, Any]]:
    """Every rank's message. Raises MismatchError, on all ranks, if layouts differ."""
    texts = loop.world.communicator.all_gather_bytes(encode(message), loop.recovery.deadline_s)
    messages = [decode(text) for text in texts]
    _check_layouts(loop, messages)
    return messages


def _replica_group(loop: Loop, roster: Roster) -> ReplicaGroup:
    """Those who hold the same as this rank. Asks the others if state is sharded at all.

    Raises JobStopped, on all ranks, if the last holder of some part is gone.
    """
    if not loop.state.sharded:
        ranks = tuple(range(roster.world_size))
        return ReplicaGroup("", ranks, roster.sources, roster.receivers)
    message = {
        "layout": loop.state.digest(),
        "part": loop.state.part(),
        "pristine": loop.shards.pristine,
    }
    messages = _gather(loop, message)
    groups = replica_groups(
        roster, [m["part"] for m in messages], [m["pristine"] for m in messages]
    )
    lost = [group for group in groups if group.lost]
    if lost:
        raise JobStopped(_what_is_lost(loop, roster, lost))
    return next(group for group in groups if loop.world.rank in group.ranks)


def _what_is_lost(loop: Loop, roster: Roster, lost: list[ReplicaGroup]) -> str:
    names = [name for name, tensor in loop.state.sharded if part_held(tensor)]
    some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    ranks = "; ".join(f"ranks {list(group.ranks)}" for group in lost)
    return (
        f"the state of step {roster.steps} is lost: nobody is left that holds the shards of "
        f"{ranks} ({some}, and what the optimizer keeps for them)"
    )


class Offer:
    """What a source lays open: live settled tensors, and the shadow of fluid ones."""

    def __init__(self, settled: Capture, fluid: Capture) -> None:
        self.settled = settled
        self.fluid = fluid
        for name, tensor in zip(settled.names, settled.wholes, strict=True):
            check_tensor(name, tensor)

    def regions(self) -> list[Region]:
        """(address, bytes) in the order of the manifest, empty tensors left out."""
        return regions_of([*self.settled.tensors, *self.fluid.tensors])

    def manifest(self) -> dict[str, Any]:
        """Trees and tensor specs, as plain values."""
        return {"settled": _describe(self.settled), "fluid": _describe(self.fluid)}


def _offer(loop: Loop) -> Offer:
    return Offer(capture(loop.state.settled), loop.shadow.captured())


def _describe(captured: Capture) -> dict[str, Any]:
    return {
        "trees": captured.trees,
        "specs": [
            [s.name, s.dtype, list(s.shape), list(s.stride), s.sharding] for s in captured.specs()
        ],
    }


def regions_of(tensors: Sequence[Tensor]) -> list[Region]:
    """Where dense tensors lie: (address, bytes), empty ones left out."""
    return [(t.data_ptr(), t.nbytes) for t in tensors if t.nbytes]


def _publish(worker: Any, roster: Roster, group: ReplicaGroup, regions: list[Region]) -> Any:
    index = group.sources.index(worker.slot)
    source = _core.StateSource(
        worker,
        roster.generation,
        regions,
        CHUNK_BYTES,
        index,
        len(group.sources),
        list(group.receivers),
    )
    source.publish()
    return source


def _receive(
    loop: Loop,
    worker: Any,
    roster: Roster,
    group: ReplicaGroup,
    messages: list[dict[str, Any]],
) -> Any:
    """Builds, pulls, and puts in place."""
    members = {member.slot: member for member in roster.members}
    manifest = messages[members[group.sources[0]].rank]["manifest"]
    plans = [
        (loop.state.settled, manifest["settled"]),
        (loop.state.fluid, manifest["fluid"]),
    ]
    meshes = loop.state.meshes()
    targets = [_targets(capture(parts), part["specs"], meshes) for parts, part in plans]
    sources = [
        _core.SourceAddress(
            slot,
            members[slot].pid,
            [(address, size) for address, size in messages[members[slot].rank]["addresses"]],
        )
        for slot in group.sources
    ]
    regions = regions_of([local_of(tensor) for tensor in [*targets[0], *targets[1]]])
    receiver = _core.StateReceiver(
        worker, roster.generation, regions, CHUNK_BYTES, sources, PULL_THREADS
    )
    stats = receiver.pull(loop.recovery.deadline_s)
    with torch.no_grad():
        for (parts, part), tensors in zip(plans, targets, strict=True):
            for one, tree in zip(parts, part["trees"], strict=True):
                one.restore(tree, tensors)
    return stats


def _targets(own: Capture, specs: list[list[Any]], meshes: Mapping[str, Any]) -> list[Tensor]:
    """Memory for what comes: this rank's own tensors where they fit, new ones elsewhere."""
    known = own.wholes_by_name()
    found: list[Tensor] = []
    for name, dtype, shape, stride, sharding in specs:
        spec = TensorSpec(name, dtype, tuple(shape), tuple(stride), sharding)
        tensor = known.get(name)
        if tensor is None or not spec.fits(tensor):
            tensor = spec.make()
            if sharding:
                tensor = Sharding.parse(sharding).wrap(name, tensor, meshes)
        found.append(tensor)
    return found


def _check_layouts(loop: Loop, messages: list[dict[str, Any]]) -> None:
    """Every rank sees the same digests, so all go on or all exchange layouts and raise."""
    if all(message["layout"] == messages[0]["layout"] for message in messages):
        return
    texts = loop.world.communicator.all_gather_bytes(
        encode([list(line) for line in loop.state.layout]), loop.recovery.deadline_s
    )
    raise MismatchError(difference([decode(text) for text in texts]))


def difference(layouts: Sequence[list[list[str]]]) -> str:
    """The first difference between rank 0's layout and another's, in words."""
    for rank, layout in enumerate(layouts):
        for here, there in zip(layouts[0], layout, strict=False):
            if here != there:
                return (
                    f"tracked state differs between ranks: {here[0]} is {here[1]} on rank 0, but "
                    f"{there[0]} is {there[1]} on rank {rank}; build the same state on every rank"
                )
        if len(layout) != len(layouts[0]):
            more, name = (0, layouts[0]) if len(layouts[0]) > len(layout) else (rank, layout)
            shorter = min(len(layout), len(layouts[0]))
            return (
                f"tracked state differs between ranks: {name[shorter][0]} ({name[shorter][1]}) is "
                f"on rank {more} only; rank 0 has {len(layouts[0])} entries, rank {rank} has "
                f"{len(layout)}"
            )
    return "tracked state differs between ranks"
