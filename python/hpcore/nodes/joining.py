"""How a worker takes part in a job on several nodes: its door, announced before a roster names it,
and its communicator over all nodes. Training thread only.

What agent and worker tell each other lies in the node's store: the job's secret, the address to
listen on, and what each worker announces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hpcore.errors import Unsupported
from hpcore.membership.roster import Roster
from hpcore.nodes.communicator import Layout, NodesCommunicator
from hpcore.nodes.mesh import Door, Mesh, no_longer

if TYPE_CHECKING:
    from hpcore import _core

SECRET_KEY, HOST_KEY = "nodes/secret", "nodes/host"
MEET_S = 86_400.0  # the agents' deadlines are shorter

_doors: dict[int, Door] = {}  # by incarnation: one, for the life of the process


def announcement_key(incarnation: int) -> str:
    """Where a worker leaves what others must know of it."""
    return f"nodes/announce/{incarnation}"


def announce(worker: _core.Worker) -> None:
    """Opens this worker's door and tells the agent; nothing in a job on one node."""
    store = worker.segment.store
    if worker.incarnation in _doors or not store.check([HOST_KEY]):
        return
    host = store.get(HOST_KEY, 1.0).decode()
    door = Door(host, bytes.fromhex(store.get(SECRET_KEY, 1.0).decode()))
    _doors[worker.incarnation] = door
    store.set(announcement_key(worker.incarnation), door.address)


def refuse_on_several(worker: _core.Worker | None, what: str) -> None:
    """Raises Unsupported in a job on several nodes: the groups of torch.distributed meet in the
    store, which is one node's."""
    if worker is not None and worker.segment.store.check([HOST_KEY]):
        raise Unsupported(
            f"{what} in a job of --nnodes: its groups meet in a store that is one node's; run it "
            "on one node (hpcore run without --nnodes), or let every rank hold the whole model and "
            "train with hpcore.Job and job.replicate(model)"
        )


def communicator_over_nodes(worker: Any, roster: Roster, rank: int, slots: list[int]) -> Any:
    """The communicator of a roster that has members on other nodes, too. Blocks, in a spokesman,
    until those of all nodes have come. Raises RosterChanged."""
    from hpcore import _core

    layout = Layout(roster, rank)
    generation = roster.generation
    local = _core.Communicator.world(worker, generation, layout.local_rank, slots)
    mesh = None
    if layout.speaks:
        mesh = Mesh(
            _doors[worker.incarnation],
            generation,
            [roster.members[r].announcement for r in layout.spokesmen()],
            layout.node,
            no_longer(worker, generation),
            MEET_S,
        )
    return NodesCommunicator(local, layout, mesh, generation)
