"""Nodes in a nutshell: the real `Lead` over a network that delays, doubles, loses and parts, with
nodes that crash, are cut off and come back. Time moves in ticks; one `random.Random(seed)` makes
every choice, so a seed is a replay.

A link keeps its order, as TCP does; when it breaks, what was under way is lost and the node says
hello again. What spokesmen tell each other of steps comes in any order, twice, or never.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from hpcore.membership.lead import Frozen, Lead, NodeFacts, Orders, Plan, Snapshot, cluster_of
from hpcore.membership.places import node_of, place_of
from hpcore.membership.roster import Roster
from hpcore.membership.state import (
    FirstCommit,
    Policy,
    Spawned,
    Stage,
    StageChanged,
    WorkerFacts,
)

TICK_NS = 10_000_000
SILENCE_NS, LEASE_NS, STOP_NS = 800_000_000, 2_000_000_000, 1_400_000_000
SECOND = 1_000_000_000


@dataclass
class SimNode:
    """One agent with its workers, as far as the protocol goes."""

    number: int
    nproc: int
    alive: bool = True
    stopped: bool = False
    cut: bool = False
    roster: Roster | None = None
    closed: bool = False
    ready: int = 0
    applied: int = 0
    peers: dict[int, int] = field(default_factory=dict)
    workers: dict[int, WorkerFacts] = field(default_factory=dict)
    lead: Lead | None = None
    linked_to: int = -1
    contact_ns: int = SECOND
    heard_ns: dict[int, int] = field(default_factory=dict)
    told_first: int = 0

    @property
    def up(self) -> bool:
        return self.alive and not self.stopped

    def ranks(self) -> set[int]:
        if self.roster is None or self.closed or not self.up:
            return set()
        return {m.rank for m in self.roster.members if m.node == self.number}


class NodesSimulation:
    """One run. `lead_class` may carry a planted bug."""

    def __init__(self, seed: int, lead_class: type[Lead] = Lead) -> None:
        self.rng = random.Random(seed)
        self.lead_class = lead_class
        self.now_ns = SECOND
        self.nodes: dict[int, SimNode] = {}
        self.wire: list[tuple[int, int, int, tuple]] = []  # type: ignore[type-arg]  # due, from, to
        self.rosters: list[Roster] = []  # the coordinator's
        self.leader: int | None = None
        self.led_since_ns = 0
        self.expelled: set[int] = set()
        self.pending: list[tuple[int, Roster]] = []
        self.seen = 0  # steps that anybody saw committed
        self.coordinator_away_until = 0
        self.total = self.rng.randrange(8, 20)
        self.faults = self.rng.randrange(1, 5)
        count = self.rng.randrange(2, 4)
        self.plan = Plan("sim", count, count)
        for _ in range(count + 1):
            self.add()

    def add(self) -> None:
        number = len(self.nodes)
        self.nodes[number] = SimNode(number, 1, contact_ns=self.now_ns)

    # --- one run ------------------------------------------------------------------------------

    def run(self) -> str:
        for tick in range(6000):
            self.now_ns += TICK_NS
            self.disturb(tick)
            self.deliver()
            for node in list(self.nodes.values()):
                if node.up:
                    self.live(node)
            self.coordinate()
            self.check_ranks()
            if self.seen >= self.total:
                return "done"
            if not self.holders():
                return "lost"  # nobody is left that holds the state: there is nothing to go on from
        raise AssertionError(f"no progress: {self.seen} of {self.total}, {self.rosters[-1:]}")

    def holders(self) -> bool:
        """Whether a node that can go on has seen the newest roster, or none is there yet."""
        if not self.rosters:
            return any(n.up for n in self.nodes.values())
        last = self.rosters[-1]
        named = {node_of(place) for place in last.sources}
        return any(self.nodes[n].up and not self.nodes[n].cut for n in named)

    def disturb(self, tick: int) -> None:
        rng = self.rng
        if tick > 40 and self.faults and rng.random() < 0.01:
            self.faults -= 1
            node = rng.choice([n for n in self.nodes.values() if n.up] or [None])
            what = rng.randrange(4)
            if node is None:
                return
            if what == 0:
                node.alive = False
                self.add()
            elif what == 1:
                node.cut = True
                self.add()
            elif what == 2:
                self.break_link(node.number)
            else:
                self.coordinator_away_until = self.now_ns + rng.randrange(1, 100) * TICK_NS
        for node in self.nodes.values():
            if node.cut and rng.random() < 0.003:
                node.cut = False

    def break_link(self, number: int) -> None:
        self.wire = [m for m in self.wire if number not in (m[1], m[2])]
        self.nodes[number].linked_to = -1
        for node in self.nodes.values():
            if node.linked_to == number:
                node.linked_to = -1

    def reach(self, one: SimNode, other: SimNode) -> bool:
        return one.up and other.up and not one.cut and not other.cut

    def ask(self, node: SimNode) -> bool:
        """Whether the coordinator answers a node."""
        return node.up and not node.cut and self.now_ns >= self.coordinator_away_until

    def send(self, sender: int, to: int, *message: object) -> None:
        due = self.now_ns + self.rng.randrange(0, 4) * TICK_NS
        behind = [m[0] for m in self.wire if m[1:3] == (sender, to) and m[3][0] != "ready"]
        due = max([due, *behind]) if message[0] != "ready" else due
        self.wire.append((due, sender, to, message))
        if message[0] in ("ready", "frozen") and self.rng.random() < 0.2:
            self.wire.append((due + 2 * TICK_NS, sender, to, message))

    def deliver(self) -> None:
        due = [m for m in self.wire if m[0] <= self.now_ns]
        self.wire = [m for m in self.wire if m[0] > self.now_ns]
        for _, sender, to, message in due:
            one, other = self.nodes[sender], self.nodes[to]
            if not other.up or (sender != to and not self.reach(one, other)):
                continue
            if message[0] == "ready" and self.rng.random() < 0.1:
                self.wire.append((self.now_ns + 5 * TICK_NS, sender, to, message))  # late
                continue
            self.hear(other, sender, message)

    # --- an agent -----------------------------------------------------------------------------

    def live(self, node: SimNode) -> None:
        leader = self.nodes.get(self.leader) if self.leader is not None else None
        if self.ask(node):
            node.contact_ns = self.now_ns
            if node.number in self.expelled:
                self.stop(node)
                return
        if leader is not None and self.may_link(node, leader):
            node.linked_to = leader.number
            node.heard_ns[leader.number] = leader.heard_ns[node.number] = self.now_ns
            self.hello(node, leader.number)
        if node.linked_to >= 0:
            other = self.nodes[node.linked_to]
            if self.reach(node, other):
                node.heard_ns[other.number] = other.heard_ns[node.number] = self.now_ns
                if self.hears_all(other):
                    node.contact_ns = self.now_ns
        if leader is not None and leader is not node:
            heard = max(node.heard_ns.get(leader.number, 0), self.led_since_ns)
            if self.now_ns - heard > SILENCE_NS and self.ask(node):
                self.expel(leader.number)
                node.linked_to = -1
        if node.lead is not None:
            if self.hears_all(node):
                node.contact_ns = self.now_ns
            self.lead_on(node, node.lead)
        if self.now_ns - node.contact_ns > STOP_NS:
            self.stop(node)
            return
        self.train(node)

    def may_link(self, node: SimNode, leader: SimNode) -> bool:
        new = node.linked_to != leader.number and leader is not node and node.lead is None
        return new and self.ask(node) and self.reach(node, leader)

    def hears_all(self, leader: SimNode) -> bool:
        roster = leader.roster
        if leader.lead is None or roster is None:
            return False
        named = {m.node for m in roster.members} - {leader.number}
        return all(self.reach(leader, self.nodes[n]) for n in named)

    def stop(self, node: SimNode) -> None:
        node.stopped = True
        self.break_link(node.number)

    def hello(self, node: SimNode, leader: int) -> None:
        workers = tuple(replace(w) for w in node.workers.values())
        snapshot = Snapshot(NodeFacts(node.number, node.nproc), workers)
        self.send(node.number, leader, "hello", snapshot)

    def hear(self, node: SimNode, sender: int, message: tuple) -> None:  # type: ignore[type-arg]
        kind, *rest = message
        now = self.now_ns
        if kind == "ready":
            generation, steps = rest
            if node.roster is not None and node.roster.generation == generation and not node.closed:
                node.peers[sender] = max(node.peers.get(sender, 0), steps)
        elif kind == "close":
            self.close(node, sender, rest[0])
        elif kind == "roster":
            self.publish(node, rest[0])
        elif kind == "spawn":
            self.spawn(node, sender, rest[0])
        elif node.lead is None:
            return
        elif kind == "hello":
            roster = node.lead.cluster.roster
            if sender in self.expelled:
                return
            if roster is not None and not node.lead.committing:
                self.send(node.number, sender, "roster", roster)
            self.do(node, node.lead.joined(rest[0], now))
        elif kind == "event":
            self.do(node, node.lead.feed(sender, rest[0], now))
        elif kind == "frozen":
            self.do(node, node.lead.frozen(sender, rest[0], rest[1], now))

    def close(self, node: SimNode, sender: int, generation: int) -> None:
        if node.roster is None or node.roster.generation != generation:
            return
        node.closed = True
        places = [m.slot for m in node.roster.members if m.node == node.number]
        versions = dict.fromkeys(places, node.applied)
        self.send(node.number, sender, "frozen", generation, Frozen(node.ready, versions))

    def publish(self, node: SimNode, roster: Roster) -> None:
        if node.roster is not None and roster.generation <= node.roster.generation:
            return
        if node.ranks() and not node.closed:
            node.closed = True
        assert node.applied <= roster.steps, (
            f"node {node.number} applied {node.applied}, generation {roster.generation} goes on "
            f"from {roster.steps}"
        )
        node.roster, node.closed, node.peers = roster, False, {}
        node.ready = node.applied = roster.steps

    def spawn(self, node: SimNode, sender: int, rank: int | None) -> None:
        slot = len(node.workers)
        place = place_of(node.number, slot)
        incarnation = (node.number << 32) + slot + 1
        node.workers[slot] = WorkerFacts(
            place, incarnation, 1000 + place, rank, Stage.TRAINING, True, announcement="a"
        )
        if rank is None:
            node.workers[slot] = replace(node.workers[slot], stage=Stage.WARM)
        stage = node.workers[slot].stage
        now = self.now_ns
        event = Spawned(now, place, incarnation, 1000 + place, rank)
        self.send(node.number, sender, "event", event)
        self.send(
            node.number, sender, "event", StageChanged(now, place, incarnation, stage, True, "a")
        )

    def train(self, node: SimNode) -> None:
        roster = node.roster
        if roster is None or node.closed or not node.ranks():
            return
        others = {m.node for m in roster.members} - {node.number}
        if node.ready > node.applied and all(node.peers.get(n, 0) >= node.ready for n in others):
            node.applied = node.ready
            self.seen = max(self.seen, node.applied)
            if node.told_first < roster.generation:
                node.told_first = roster.generation
                to = node.number if node.lead is not None else node.linked_to
                if to >= 0:
                    event = FirstCommit(self.now_ns, roster.generation)
                    self.send(node.number, to, "event", event)
        if node.ready == node.applied and self.rng.random() < 0.5:
            node.ready += 1
        for other in others:
            if self.rng.random() < 0.5:  # until it is heard: a connection repeats itself
                self.send(node.number, other, "ready", roster.generation, node.ready)

    # --- the lead -----------------------------------------------------------------------------

    def lead_on(self, node: SimNode, lead: Lead) -> None:
        for number in [n for n in lead.nodes if n != node.number]:
            heard = node.heard_ns.get(number, 0)
            if self.now_ns - heard > SILENCE_NS:
                if self.ask(node):
                    self.expel(number)
                self.do(node, lead.lost(number, heard + LEASE_NS, self.now_ns, "silent"))
        if not lead.started and len(lead.nodes) >= self.plan.max_nodes:
            self.do(node, lead.start(self.now_ns))
        self.do(node, lead.tick(self.now_ns))

    def do(self, node: SimNode, orders: Orders) -> None:
        for number, generation in orders.close.items():
            self.send(node.number, number, "close", generation)
        if orders.publish is not None and node.lead is not None:
            for number in node.lead.nodes:
                self.send(node.number, number, "roster", orders.publish)
        for number, rank in orders.spawn:
            self.send(node.number, number, "spawn", rank)
        if orders.commit is not None:
            self.pending.append((node.number, orders.commit))
        assert orders.stop is None or not self.holders() or orders.stop.code, orders.stop
        if orders.stop is not None:
            raise Stopped(orders.stop.reason)

    # --- the coordinator ----------------------------------------------------------------------

    def expel(self, number: int) -> None:
        self.expelled.add(number)
        if self.leader == number:
            self.leader = None

    def coordinate(self) -> None:
        waiting, self.pending = self.pending, []
        for number, roster in waiting:
            node = self.nodes[number]
            if not node.up:
                continue
            if not self.ask(node):
                self.pending.append((number, roster))
                continue
            if self.leader != number or roster.generation != len(self.rosters) + 1:
                self.stop(node)  # deposed
                continue
            assert roster.steps >= self.seen, f"{self.seen} steps committed, C {roster.steps}"
            self.rosters.append(roster)
            assert node.lead is not None
            self.do(node, node.lead.committed(self.now_ns))
        if self.leader is None:
            able = [n for n in self.nodes.values() if self.ask(n) and n.number not in self.expelled]
            if able:
                self.elect(self.rng.choice(able))

    def elect(self, node: SimNode) -> None:
        self.leader = node.number
        self.led_since_ns = self.now_ns
        node.linked_to = -1
        newest = self.rosters[-1] if self.rosters else None
        policy = Policy(1, 600 * SECOND)
        node.lead = self.lead_class(self.plan, policy, cluster_of(self.plan, newest))
        facts = NodeFacts(node.number, node.nproc)
        snapshot = Snapshot(facts, tuple(node.workers.values()))
        if newest is not None:
            self.publish(node, newest)
        self.do(node, node.lead.joined(snapshot, self.now_ns))
        if newest is None:
            return
        for other in self.nodes.values():
            if other is not node and self.reach(node, other) and other.number not in self.expelled:
                other.linked_to = node.number
                other.heard_ns[node.number] = node.heard_ns[other.number] = self.now_ns
                self.publish(other, newest)
                workers = tuple(other.workers.values())
                told = Snapshot(NodeFacts(other.number, other.nproc), workers)
                self.do(node, node.lead.joined(told, self.now_ns))
        absent = {m.node for m in newest.members} - node.lead.nodes.keys()
        fences = dict.fromkeys(absent, self.now_ns + LEASE_NS)
        for number in absent:
            self.expel(number)
        self.do(node, node.lead.take_over(fences, self.now_ns))

    def check_ranks(self) -> None:
        held: dict[int, int] = {}
        for node in self.nodes.values():
            for rank in node.ranks():
                assert rank not in held, (
                    f"rank {rank} is held by nodes {held[rank]} and {node.number}, both unfenced"
                )
                held[rank] = node.number


class Stopped(Exception):
    """The lead ended the job."""
