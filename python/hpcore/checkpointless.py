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
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hpcore import _core
from hpcore.errors import MismatchError
from hpcore.layout import TensorSpec, check_tensor
from hpcore.membership.roster import Roster
from hpcore.plain import decode, encode
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
    role = (
        "receiver" if slot in roster.receivers else "source" if slot in roster.sources else "none"
    )
    offer = _offer(loop) if role == "source" else None
    message: dict[str, Any] = {"layout": loop.state.digest()}
    if offer is not None:
        message["addresses"] = [list(region) for region in offer.regions()]
        if slot == roster.sources[0]:
            message["manifest"] = offer.manifest()
    texts = loop.world.communicator.all_gather_bytes(encode(message), loop.recovery.deadline_s)
    gathered_ns = time.monotonic_ns()
    messages = [decode(text) for text in texts]
    _check_layouts(loop, messages)
    loop.drill.fire("heal", loop.drill_rank, steps)
    fields: dict[str, Any] = {"bytes": 0, "chunks": 0, "refetched": 0}
    if offer is not None:
        loop.serve(_publish(worker, roster, offer.regions()))
    elif role == "receiver":
        stats = _receive(loop, worker, roster, messages)
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


class Offer:
    """What a source lays open: live settled tensors, and the shadow of fluid ones."""

    def __init__(self, settled: Capture, fluid: Capture) -> None:
        self.settled = settled
        self.fluid = fluid
        for name, tensor in zip(settled.names, settled.tensors, strict=True):
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
    specs = [
        TensorSpec.of(name, tensor)
        for name, tensor in zip(captured.names, captured.tensors, strict=True)
    ]
    return {
        "trees": captured.trees,
        "specs": [[s.name, s.dtype, list(s.shape), list(s.stride)] for s in specs],
    }


def regions_of(tensors: Sequence[Tensor]) -> list[Region]:
    """Where dense tensors lie: (address, bytes), empty ones left out."""
    return [(t.data_ptr(), t.nbytes) for t in tensors if t.nbytes]


def _publish(worker: Any, roster: Roster, regions: list[Region]) -> Any:
    index = roster.sources.index(worker.slot)
    source = _core.StateSource(
        worker,
        roster.generation,
        regions,
        CHUNK_BYTES,
        index,
        len(roster.sources),
        list(roster.receivers),
    )
    source.publish()
    return source


def _receive(loop: Loop, worker: Any, roster: Roster, messages: list[dict[str, Any]]) -> Any:
    """Builds, pulls, and puts in place."""
    members = {member.slot: member for member in roster.members}
    manifest = messages[members[roster.sources[0]].rank]["manifest"]
    plans = [
        (loop.state.settled, manifest["settled"]),
        (loop.state.fluid, manifest["fluid"]),
    ]
    targets = [_targets(capture(parts), part["specs"]) for parts, part in plans]
    sources = [
        _core.SourceAddress(
            slot,
            members[slot].pid,
            [(address, size) for address, size in messages[members[slot].rank]["addresses"]],
        )
        for slot in roster.sources
    ]
    regions = regions_of([*targets[0], *targets[1]])
    receiver = _core.StateReceiver(
        worker, roster.generation, regions, CHUNK_BYTES, sources, PULL_THREADS
    )
    stats = receiver.pull(loop.recovery.deadline_s)
    with torch.no_grad():
        for (parts, part), tensors in zip(plans, targets, strict=True):
            for one, tree in zip(parts, part["trees"], strict=True):
                one.restore(tree, tensors)
    return stats


def _targets(own: Capture, specs: list[list[Any]]) -> list[Tensor]:
    """Memory for what comes: this rank's own tensors where they fit, new ones elsewhere."""
    known = own.by_name()
    found: list[Tensor] = []
    for name, dtype, shape, stride in specs:
        spec = TensorSpec(name, dtype, tuple(shape), tuple(stride))
        tensor = known.get(name)
        found.append(tensor if tensor is not None and spec.fits(tensor) else spec.make())
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
