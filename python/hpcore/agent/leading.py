"""The agent that leads, at work: hears nodes, judges their silence, sends orders.

One thread (the agent's). The protocol is membership.lead's; here are its links, its commits and its
sense of time. What concerns the own node goes through the same doors, without a link.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from hpcore.membership.lead import Frozen, Lead, Orders, Plan, Snapshot, cluster_of
from hpcore.membership.roster import Roster
from hpcore.membership.state import Event, Policy
from hpcore.nodes import messages
from hpcore.nodes.enrolment import Enrolment
from hpcore.nodes.link import Hub

SILENCE_S = 0.8
"""A node that has said nothing for so long is lost: eight heartbeats; less under full load is no
proof (docs/nodes.md)."""
LATE_S = 0.3
"""An agent that was itself so late judges nobody yet."""
REFUSED_FENCE_S = 0.1
"""Nobody listens at a node's address: its agent is dead, and its workers with it within 20 ms."""
SETTLE_S = 1.0
"""With fewer nodes than there may be, the first roster waits so long after the last that came."""
GATHER_S = 3.0
"""A new lead waits so long for nodes that are alive to say so, at most."""

Message = dict[str, Any]


class LeadDesk:
    """`own` gets what is for the node itself; `deposed` is called when another leads."""

    def __init__(
        self,
        plan: Plan,
        policy: Policy,
        hub: Hub,
        enrolment: Enrolment,
        lease_s: float,
        own: Callable[[Message], None],
        roster: Roster | None,
    ) -> None:
        self.lead = Lead(plan, policy, cluster_of(plan, roster))
        self._plan = plan
        self._hub = hub
        self._enrolment = enrolment
        self._lease_s = lease_s
        self._own = own
        self._taking_over = roster is not None
        self._since_s = self._last_join_s = self._ticked_s = time.monotonic()
        self._excused_until_s = 0.0
        self._addresses: dict[int, str] = {}
        self.alive: set[int] = set()  # as the coordinator knows them
        self.gone: dict[int, float] = {}  # when nodes that were lost before must have stopped
        self.stopped = False

    @property
    def number(self) -> int:
        """The node that leads."""
        return self._enrolment.number

    # --- what comes ---------------------------------------------------------------------------

    def hear(self, node: int, message: Message) -> None:
        """A message from a node, or of what became of its link."""
        now_ns = time.monotonic_ns()
        kind = message["kind"]
        if kind == "hello":
            self._addresses[node] = message["address"]
            self.join(messages.snapshot_of(message), int(message["generation"]))
        elif kind == "event":
            self.feed(node, messages.event_of(message))
        elif kind == "frozen":
            versions = {int(place): version for place, version in message["versions"]}
            told = Frozen(message["steps"], versions, message["kept"])
            self.do(self.lead.frozen(node, message["generation"], told, now_ns))
        elif kind == "leave":
            self._lose(node, time.monotonic() + self._lease_s, "it left")
        elif kind == "refused":
            self._lose(node, time.monotonic() + REFUSED_FENCE_S, "its agent is dead")
        elif kind == "unlinked" and node in self.lead.nodes and node in self._addresses:
            self._hub.connect(node, self._addresses[node])

    def join(self, snapshot: Snapshot, generation: int) -> None:
        """A node came. It gets the newest roster if it has another."""
        self._last_join_s = time.monotonic()
        node = snapshot.facts.number
        if node in self.gone:
            self._send(node, {"kind": "expelled"})
            return
        roster = self.lead.cluster.roster
        if roster is not None and generation < roster.generation and not self.lead.committing:
            self._send(node, {"kind": "roster", "roster": roster.to_dict()})
        self.do(self.lead.joined(snapshot, time.monotonic_ns()))

    def feed(self, node: int, event: Event) -> None:
        """An event of a node."""
        self.do(self.lead.feed(node, event, time.monotonic_ns()))

    def committed(self) -> None:
        """The coordinator took the roster."""
        self.do(self.lead.committed(time.monotonic_ns()))

    # --- time ---------------------------------------------------------------------------------

    def tick(self) -> float:
        """Ten times a second; since when a node of the roster has not been heard (now, if there
        are no others)."""
        now = time.monotonic()
        if now - self._ticked_s > LATE_S:
            self._excused_until_s = now + LATE_S
        self._ticked_s = now
        oldest = self._listen(now)
        if self.stopped:
            return oldest
        if self._taking_over:
            self._try_take_over(now)
        elif not self.lead.started:
            self._try_start(now)
        else:
            self.do(self.lead.tick(time.monotonic_ns()))
        return oldest

    def _listen(self, now: float) -> float:
        roster = self.lead.cluster.roster
        named = {m.node for m in roster.members} if roster is not None else set()
        oldest = now if named <= self.lead.nodes.keys() else 0.0
        for node in [n for n in self.lead.nodes if n != self.number]:
            heard = self._hub.heard_s(node) or 0.0
            silent = now - heard
            if silent > SILENCE_S and now > self._excused_until_s:
                self._enrolment.expel(node)
                self._lose(node, heard + self._lease_s, f"silent for {silent:.2f} s")
            elif node in named:
                oldest = min(oldest, heard)
        return oldest

    def _lose(self, node: int, fence_s: float, why: str) -> None:
        if node not in self.lead.nodes:
            return
        self.gone[node] = fence_s
        self._enrolment.expel(node)
        self._hub.drop(node)
        self.do(self.lead.lost(node, int(fence_s * 1e9), time.monotonic_ns(), why))

    def _try_start(self, now: float) -> None:
        count = len(self.lead.nodes)
        settled = now - self._last_join_s > SETTLE_S
        if count >= self._plan.max_nodes or (count >= self._plan.min_nodes and settled):
            self.do(self.lead.start(time.monotonic_ns()))

    def _try_take_over(self, now: float) -> None:
        """When all who live have said so, or have had the time."""
        missing = self.alive - self.lead.nodes.keys() - self.gone.keys()
        if missing and now - self._since_s < GATHER_S:
            return
        for node in missing:
            self._enrolment.expel(node)
        self._taking_over = False
        roster = self.lead.cluster.roster
        assert roster is not None
        absent = {m.node for m in roster.members} - self.lead.nodes.keys()
        self.gone |= {n: now + self._lease_s for n in absent if n not in self.gone}
        fences = {n: int(self.gone[n] * 1e9) for n in absent}
        self.do(self.lead.take_over(fences, time.monotonic_ns()))

    # --- orders -------------------------------------------------------------------------------

    def do(self, orders: Orders) -> None:
        """Sends what is to be done."""
        for node, generation in orders.close.items():
            self._send(node, {"kind": "close", "generation": generation})
        for node, slot in orders.kill:
            self._send(node, {"kind": "kill", "slot": slot})
        if orders.publish is not None:
            message = {"kind": "roster", "roster": orders.publish.to_dict()}
            for node in list(self.lead.nodes):
                self._send(node, message)
        ranks = self.lead.cluster.nproc
        for node, rank in orders.spawn:
            self._send(node, {"kind": "spawn", "rank": rank, "ranks": ranks})
        if orders.commit is not None:
            self._enrolment.commit(orders.commit)
        if orders.stop is not None and not self.stopped:
            self.stopped = True
            self._enrolment.finish(orders.stop.code, orders.stop.reason)
            for node in list(self.lead.nodes):
                self._send(node, {"kind": "stop", **asdict(orders.stop)})

    def _send(self, node: int, message: Message) -> None:
        if node == self.number:
            self._own(message)
        else:
            self._hub.send(node, message)
