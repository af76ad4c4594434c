"""What ranks alone know (`job.rank_local`), on more nodes than their own.

Where ranks keep shadow copies and are on several nodes, all ranks tell each other before they say
that they are ready, and the first rank of each node leaves what ranks of other nodes said with its
own agent. So whatever step is agreed, each node that is left has what every rank knew after it: a
step is agreed only if all ranks that are left were ready (docs/nodes.md). Training thread only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcore.gradients import STEP_TIMEOUT_S
from hpcore.neighbour import is_leader
from hpcore.nodes.communicator import pack, unpack
from hpcore.plain import decode
from hpcore.world import RosterWorld

if TYPE_CHECKING:
    from hpcore.loop import Loop


def _on_several(loop: Loop) -> bool:
    world = loop.world
    return isinstance(world, RosterWorld) and world.over_nodes


def _blob(loop: Loop, rank: int, tag: int) -> bytes:
    assert loop.worker is not None
    found = [blob for at, blob in loop.worker.segment.rank_blob(rank) if at == tag]
    return bytes(found[0]) if found else b""


def hand_round(loop: Loop, tag: int) -> None:
    """All ranks, before they are ready for the boundary `tag`. Raises RosterChanged."""
    if not _on_several(loop):
        return
    world, worker = loop.world, loop.worker
    assert isinstance(world, RosterWorld) and worker is not None
    own = _blob(loop, world.rank, tag)
    blobs = world.communicator.all_gather_bytes(own, STEP_TIMEOUT_S)
    if not is_leader(world.roster, world.rank):
        return
    node = world.roster.members[world.rank].node
    for member, blob in zip(world.roster.members, blobs, strict=True):
        if blob and member.node != node:
            worker.set_rank_blob(member.rank, tag, blob)


def bring_back(loop: Loop) -> None:
    """All ranks, when some have just got their state: what those alone knew, if their node has not
    got it. Raises RosterChanged."""
    if not _on_several(loop):
        return
    world, worker = loop.world, loop.worker
    assert isinstance(world, RosterWorld) and worker is not None
    gather, limit = world.communicator.all_gather_bytes, loop.recovery.deadline_s
    asked = gather(b"?" if loop.rank_local.missing else b"", limit)
    missing = [rank for rank, text in enumerate(asked) if text]
    tag = loop.tag(loop.steps_done)
    if not missing:
        return
    speaks = is_leader(world.roster, world.rank)
    told = gather(pack([_blob(loop, rank, tag) for rank in missing]) if speaks else b"", limit)
    if world.rank not in missing:
        return
    place = missing.index(world.rank)
    blob = next((held for text in told if text and (held := unpack(text)[place])), b"")
    loop.rank_local.missing = False
    if blob:
        loop.rank_local.replace(decode(blob))
        loop.rank_local.save(worker, world.rank, tag)
    loop.record("rank_local", rank=world.rank, step=loop.steps_done, bytes=len(blob))
