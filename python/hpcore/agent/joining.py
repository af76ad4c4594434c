"""How an agent becomes a node of a job on several: its number, its links, its registrar."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from hpcore.agent.keeping import KeeperDesk
from hpcore.agent.node_registrar import NodeParts, NodeRegistrar
from hpcore.membership.lead import NodeFacts, Plan
from hpcore.membership.state import Cluster, Policy
from hpcore.nodes.enrolment import Enrolment
from hpcore.nodes.joining import HOST_KEY, SECRET_KEY
from hpcore.nodes.link import Hub
from hpcore.nodes.options import NodesOptions

if TYPE_CHECKING:
    from hpcore import _core
    from hpcore.agent.options import AgentOptions


def enrol(options: AgentOptions, nodes: NodesOptions, wake: Callable[[], None]) -> NodeParts:
    """Takes a number from the coordinator, and listens.

    Raises CoordinatorUnavailable, InvalidArgument (no such address; the job has ended), OSError.
    """
    host = nodes.own_address()
    enrolment = Enrolment(nodes.connect(), nodes.job, nodes.lease_s, wake)
    try:
        hub = Hub(enrolment.secret, enrolment.number, host, wake)
    except OSError:
        enrolment.close()
        raise
    least, most = nodes.bounds
    plan = Plan(nodes.job, least, most, options.min)
    name = socket.gethostname()
    facts = NodeFacts(enrolment.number, options.nproc, options.standbys, name, nodes.rack)
    return NodeParts(plan, facts, enrolment, hub, nodes.lease_s)


def registrar_of(
    node: NodeParts,
    segment: _core.NodeSegment,
    options: AgentOptions,
    policy: Policy,
    keepers: KeeperDesk | None,
) -> NodeRegistrar:
    """Tells the node's workers where to listen, and begins to take part."""
    store = segment.store
    store.set(SECRET_KEY, node.enrolment.secret.hex())
    store.set(HOST_KEY, node.hub.address.rpartition(":")[0])
    cluster = Cluster(node.plan.job, options.nproc, options.nproc, 0)
    return NodeRegistrar(segment, cluster, policy, node, keepers)
