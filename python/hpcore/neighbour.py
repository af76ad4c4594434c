"""Shadow copies and other nodes: waiting for the neighbour's copy, and reading copies from there.

Within a node a rank reads a copy where it lies. From another node it reads over the fabric what a
rank of that node lays open, straight into its tensors, and proves it by the record's digest.
Training thread only.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hpcore import _core
from hpcore.agent.shadow_memory import Record, address_of, aligned
from hpcore.errors import CorruptData, JobStopped, PeerDead, TransferFailed
from hpcore.gathering import gather
from hpcore.manifest import install
from hpcore.membership.neighbours import keeper_of
from hpcore.membership.roster import Roster
from hpcore.plain import decode
from hpcore.replicas import Copy, HealPlan, RankFacts
from hpcore.transfer import apart

if TYPE_CHECKING:
    from hpcore.loop import Loop
    from hpcore.shadow_copies import ShadowCopies

PATIENCE_S = 5.0
"""How long a step waits for the neighbour's copy before the job goes on without it."""

_LOOK_S = 0.0005


def is_leader(roster: Roster, rank: int) -> bool:
    """Whether no rank of its node is before it."""
    node = roster.members[rank].node
    return next(m.rank for m in roster.members if m.node == node) == rank


class NeighbourWait:
    """Whether and how long one rank waits for its neighbour's copy."""

    def __init__(self) -> None:
        self._generation = -1
        self._name = ""
        self._late = False

    def expected(self, roster: Roster, rank: int) -> bool:
        """Whether some other node keeps copies of this rank."""
        if roster.generation != self._generation:
            keeper = keeper_of(roster, roster.members[rank].node)
            self._generation, self._late = roster.generation, False
            self._name = "" if keeper is None else keeper.host or f"node {keeper.number}"
        return bool(self._name)

    def wait(self, loop: Loop, copies: ShadowCopies, step: int) -> None:
        """Returns when the neighbour holds `step`; or, having said so, when it does not come up
        with it in time: it is then not waited for until it has. Raises RosterChanged."""
        limit = time.monotonic() + (0.0 if self._late else PATIENCE_S)
        while copies.memory.confirmed(copies.rank) < step:
            loop.world.check()
            if time.monotonic() >= limit:
                self._say(loop, step, late=True)
                return
            time.sleep(_LOOK_S)
        self._say(loop, step, late=False)

    def _say(self, loop: Loop, step: int, late: bool) -> None:
        if late == self._late:
            return
        self._late, rank = late, loop.world.rank
        loop.record("shadow_late", rank=rank, step=step, late=late, neighbour=self._name)
        text = (
            f"warning: {self._name} has no copy of rank {rank}'s step {step} after {PATIENCE_S} s: "
            "the job goes on, and does not survive the loss of this rank's host until it has"
            if late
            else f"{self._name} has a copy of rank {rank}'s step {step} again"
        )
        print(f"hpcore: {text}", file=sys.stderr, flush=True)


def with_copies(
    roster: Roster, facts: Sequence[RankFacts], told: Sequence[Mapping[str, Any]]
) -> list[RankFacts]:
    """The facts with what ranks said of copies (`Tiers.told`).

    A node whose memory is of a past that all others gave up has none that count. Pure.
    """
    newest = max(one["era"] for one in told)
    found = []
    for member, one, message in zip(roster.members, facts, told, strict=True):
        counts = message["era"] in (-1, newest)
        found.append(
            replace(
                one,
                shadows=tuple(message["steps"]) if counts else (),
                kept=tuple((rank, step) for rank, step in message["kept"]) if counts else (),
                node=member.node,
            )
        )
    return found


def copy_back(loop: Loop, roster: Roster, plan: HealPlan) -> dict[str, Any]:
    """All ranks that take a shadow copy do; returns what a heal event tells of it.

    Raises RosterChanged, CorruptData, JobStopped (on all ranks, if there is no way to a copy).
    """
    slots = {member.slot: member for member in roster.members}
    forced, network = loop.network.forced, loop.network
    far = [
        copy
        for group in plan.groups
        for copy in group.shadows
        if apart(slots[copy.slot], roster.members[copy.holder], forced)
    ]
    me = roster.members[loop.world.rank]
    messages: list[dict[str, Any]] = []
    if far:
        network.prepare()
        message = {"layout": loop.state.digest(), "no_fabric": network.why_not, "copies": {}}
        if network.fabric is not None:
            message["copies"] = _lay_open(loop, roster, plan, far)
        messages = gather(loop, message)
        _check_ways(messages, far, slots)
    copy = plan.group_of(me.rank).shadow_for(me.slot)
    if copy is None:
        return {}
    loop.drill.fire("heal", loop.drill_rank, roster.steps)
    if copy not in far:
        return {"bytes": loop.tiers.load(copy.rank, plan.step), "copy_of": copy.rank}
    place = messages[copy.holder]["copies"][str(copy.rank)]
    begun = time.monotonic()
    try:
        copied = _Reading(loop, roster, place).run()
    except PeerDead as error:
        raise TransferFailed(f"rank {me.rank}: {error}") from error
    seconds = time.monotonic() - begun
    held = next((n for n in roster.nodes if n.number == roster.members[copy.holder].node), None)
    return {
        "bytes": copied,
        "copy_of": copy.rank,
        "host": held.host if held is not None else "",
        "method": f"fabric/{network.fabric.provider}",
        "fabric": network.describe(),
        "gb_per_s": float(f"{copied / max(seconds, 1e-9) / 1e9:.3g}"),
    }


def _check_ways(
    messages: Sequence[Mapping[str, Any]], far: Sequence[Copy], slots: Mapping[int, Any]
) -> None:
    for copy in far:
        reader = messages[slots[copy.slot].rank]
        why = messages[copy.holder]["no_fabric"] or reader["no_fabric"]
        if why or str(copy.rank) not in messages[copy.holder]["copies"]:
            raise JobStopped(
                f"rank {slots[copy.slot].rank} cannot read the shadow copy of rank {copy.rank} on "
                f"the node of rank {copy.holder}: {why or 'it is not whole any more'}"
            )


class _LaidOpen:
    """Copies that other nodes read, until `close`."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._regions: list[tuple[int, int]] = []

    def expose(self, memory: Any, size: int, generation: int) -> bytes:
        region = (address_of(memory), size)
        self._regions.append(region)
        return bytes(self._server.expose([region], generation))

    def close(self) -> None:
        """Twice is fine."""
        if self._regions:
            self._server.withdraw(self._regions)
        self._regions = []


def _lay_open(loop: Loop, roster: Roster, plan: HealPlan, far: Sequence[Copy]) -> dict[str, Any]:
    """Of the copies that this rank is to give: where they are to be read."""
    mine = {copy.rank for copy in far if copy.holder == loop.world.rank}
    if not mine:
        return {}
    opened, told = _LaidOpen(loop.network.server), {}
    loop.serve(opened)
    memory = loop.tiers.copies.memory
    for rank in sorted(mine):
        try:
            record = loop.tiers.copies.find(rank, plan.step)
        except CorruptData:
            continue
        body = memory.body(rank, record.half, record.size)
        address = opened.expose(body, record.size, roster.generation)
        told[str(rank)] = [record.meta_bytes, record.data_bytes, record.digest, address]
    return told


class _Reading:
    """One copy that is read from another node."""

    def __init__(self, loop: Loop, roster: Roster, place: Sequence[Any]) -> None:
        meta_bytes, data_bytes, digest, address = place
        self._loop = loop
        self._record = Record(-1, 0, -1, meta_bytes, data_bytes, digest)
        self._head = torch.zeros(max(aligned(meta_bytes), 1), dtype=torch.uint8)
        self._gaps = torch.zeros(0, dtype=torch.uint8)
        self._remote = _core.RemoteMemory.over_fabric(
            loop.network.fabric, address, roster.generation, [(0, self._record.size)]
        )

    def run(self) -> int:
        """Returns the bytes. Raises PeerDead, CorruptData."""
        head = (self._head.data_ptr(), aligned(self._record.meta_bytes))
        self._read(0, head[1], [head])
        meta = decode(bytes(self._head[: self._record.meta_bytes].numpy()))
        copied = install(self._loop.state, meta, lambda tensors: self._fill(head, tensors))
        self._loop.tiers.keep_rank_local(meta["rank_local"])
        return copied

    def _fill(self, head: tuple[int, int], tensors: Sequence[Tensor]) -> int:
        self._gaps = torch.zeros(64 * len(tensors) + 1, dtype=torch.uint8)
        regions, gap = [head], self._gaps.data_ptr()
        for tensor in tensors:
            regions.append((tensor.data_ptr(), tensor.nbytes))
            regions.append((gap, aligned(tensor.nbytes) - tensor.nbytes))
            gap += 64
        regions = [region for region in regions if region[1]]
        size = sum(count for _, count in regions)
        if size != self._record.size:
            raise CorruptData(
                f"a shadow copy has {self._record.size} bytes, its manifest speaks of {size}"
            )
        self._read(head[1], size - head[1], regions)
        if _core.digest_regions(regions) != self._record.digest:
            raise CorruptData("a shadow copy that was read from another node is damaged")
        return size - head[1]

    def _read(self, offset: int, count: int, into: list[tuple[int, int]]) -> None:
        try:
            if count:
                self._remote.read(offset, count, into, self._loop.recovery.deadline_s)
        finally:
            self._loop.network.fabric.release(into)
