"""The agent that leads: turns what nodes report into rosters over all of them.

No I/O, no clock: `Orders` say what is to be sent, committed or stopped; tests/sim drives it as it
is. One thread. Rules (docs/nodes.md): a generation is closed on every node that is left before the
next is made, C is the minimum of what these nodes froze; what a lost node held is dealt out only
when it must have stopped (its fence is over); a roster is told to nobody before it is committed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hpcore.membership.decide import decide
from hpcore.membership.places import node_of, slot_of
from hpcore.membership.roster import Node, Roster
from hpcore.membership.state import (
    Cause,
    Closed,
    Cluster,
    Event,
    FirstCommit,
    NodeLost,
    NodesChanged,
    Policy,
    Spawned,
    SpawnFailed,
    Stop,
    Tick,
    WorkerFacts,
)
from hpcore.membership.succession import spares, survivors, vacancies


@dataclass(frozen=True)
class NodeFacts:
    """A node that joined. `rack`, `keeper`: see Roster.nodes."""

    number: int
    nproc: int
    standbys: int = 0
    host: str = ""
    rack: str = ""
    keeper: str = ""


@dataclass(frozen=True)
class Plan:
    """What all nodes of a job agree on: nodes to begin with, and at most."""

    job: str
    min_nodes: int
    max_nodes: int
    min_ranks: int | None = None


@dataclass(frozen=True)
class Snapshot:
    """What an agent says of its node when it comes to a new lead."""

    facts: NodeFacts
    workers: tuple[WorkerFacts, ...] = ()  # by place
    finished: tuple[int, ...] = ()
    closed: bool = False


@dataclass(frozen=True)
class Frozen:
    """What a node's words were when it closed a generation; versions by place, `kept`: a copy of
    state there outlives the ranks."""

    steps: int
    versions: Mapping[int, int] = field(default_factory=dict)
    kept: bool = False


@dataclass
class Orders:
    """What is to be done; `publish` to all nodes, `close` and `spawn` and `kill` by node."""

    close: dict[int, int] = field(default_factory=dict)  # node -> generation
    spawn: list[tuple[int, int | None]] = field(default_factory=list)  # (node, rank)
    kill: list[tuple[int, int]] = field(default_factory=list)  # (node, slot)
    commit: Roster | None = None
    publish: Roster | None = None
    stop: Stop | None = None


class Lead:
    """Facts of the whole job."""

    unsafe_early_commit = False
    """A known bug, for tests of the simulation: deals out a lost node's ranks at once."""
    unsafe_forget_frozen = False
    """Another: takes the committed steps of the old roster instead of what nodes froze."""

    def __init__(self, plan: Plan, policy: Policy, cluster: Cluster) -> None:
        self.plan = plan
        self.policy = policy
        self.cluster = cluster
        self.nodes: dict[int, NodeFacts] = {}  # living
        self.started = False
        self._resuming = cluster.roster is not None  # until take_over: nothing is decided
        self.homes: dict[int, int] = {}  # rank of the first roster -> node
        self.block = 0
        self.committing: Roster | None = None
        self._closing: int = 0  # generation that was ordered closed
        self._frozen: dict[int, Frozen] = {}
        self._awaited = False  # decide waits for Closed
        self._fences: dict[int, int] = {}  # lost node -> when it must have stopped
        self._queue: deque[Event] = deque()
        self._asked: dict[int, list[int | None]] = {}  # node -> ranks of workers on their way
        self._unplaced: list[int | None] = []
        self._first_commits: set[int] = set()
        self._orders = Orders()

    # --- what happens ---------------------------------------------------------------------------

    def joined(self, snapshot: Snapshot, now_ns: int) -> Orders:
        """A node came, or came back after its link broke."""
        node = snapshot.facts.number
        known = node in self.nodes
        self.nodes[node] = snapshot.facts
        if not known:
            workers = {**self.cluster.workers, **{w.slot: w for w in snapshot.workers}}
            finished = self.cluster.finished | set(snapshot.finished)
            self.cluster = replace(self.cluster, workers=workers, finished=finished)
        if self._closing and node in self._roster_nodes() and node not in self._frozen:
            self._orders.close[node] = self._closing
        if self.started:
            self._replan(now_ns)
        return self._take(now_ns)

    def start(self, now_ns: int) -> Orders:
        """Deals out the ranks of the first roster, to as many nodes as may take part."""
        first = sorted(self.nodes.values(), key=lambda n: n.number)[: self.plan.max_nodes]
        ranks = 0
        for node in first:
            for _ in range(node.nproc):
                self.homes[ranks] = node.number
                ranks += 1
        self.block = first[0].nproc
        self.started = True
        self.cluster = replace(
            self.cluster, nproc=ranks, target=ranks, standbys=self._standbys(ranks)
        )
        self._allow_least()
        return self.tick(now_ns)

    def _allow_least(self) -> None:
        """The smallest world: what was asked for, else that of the fewest nodes."""
        least = self.plan.min_ranks
        self.policy = replace(
            self.policy, min_ranks=self.plan.min_nodes * self.block if least is None else least
        )

    def take_over(self, fences: Mapping[int, int], now_ns: int) -> Orders:
        """Begins where another lead left: the roster is committed, all living nodes have joined.
        Whatever it had not finished ends with this generation."""
        roster = self.cluster.roster
        assert roster is not None
        self.block = roster.block
        self._allow_least()
        self._fences.update(fences)
        gone = [f"rank {m.rank} lost" for m in vacancies(self.cluster)]
        causes = tuple(Cause(why, now_ns) for why in gone or ["another agent leads"])
        self.cluster = replace(self.cluster, causes=causes, committed=True)
        self.started, self._resuming = True, False
        self._replan(now_ns)
        return self.tick(now_ns)

    def lost(self, node: int, fence_ns: int, now_ns: int, why: str = "") -> Orders:
        """A node is gone, or as good as; it must have stopped at `fence_ns`."""
        if self.nodes.pop(node, None) is None:
            return self._take(now_ns)
        self._fences[node] = fence_ns
        self._frozen.pop(node, None)
        self._unplaced += self._asked.pop(node, [])
        self._feed(NodeLost(now_ns, node, why), now_ns)
        if self.started:
            self._replan(now_ns)
        return self._take(now_ns)

    def feed(self, node: int, event: Event, now_ns: int) -> Orders:
        """Something happened on a node (slots are places)."""
        if node not in self.nodes:
            return self._take(now_ns)
        if isinstance(event, FirstCommit):
            return self._first_commit(node, event, now_ns)
        if isinstance(event, (Spawned, SpawnFailed)):
            asked = self._asked.get(node, [])
            if event.rank in asked:
                asked.remove(event.rank)
        self._feed(event, now_ns)
        return self._take(now_ns)

    def frozen(self, node: int, generation: int, told: Frozen, now_ns: int) -> Orders:
        """A node has closed a generation."""
        if generation == self._closing and node in self.nodes:
            self._frozen[node] = told
        return self._take(now_ns)

    def committed(self, now_ns: int) -> Orders:
        """The coordinator took the roster: everybody may know."""
        assert self.committing is not None
        self._orders.publish, self.committing = self.committing, None
        self._closing, self._frozen, self._first_commits = 0, {}, set()
        self._fences = {n: at for n, at in self._fences.items() if at > now_ns}
        return self._take(now_ns)

    def tick(self, now_ns: int) -> Orders:
        """Time has passed."""
        if self.started:
            self._feed(Tick(now_ns), now_ns)
        return self._take(now_ns)

    # --- deciding -------------------------------------------------------------------------------

    def _take(self, now_ns: int) -> Orders:
        """Goes as far as it can now, and hands out what is to be done."""
        self._work_off(now_ns)
        if self._awaited and self.committing is None and not self._queue:
            self._try_closed(now_ns)
        self._place()
        orders, self._orders = self._orders, Orders()
        return orders

    def _feed(self, event: Event, now_ns: int) -> None:
        self._queue.append(event)
        self._work_off(now_ns)

    def _work_off(self, now_ns: int) -> None:
        if self._resuming:
            return
        while self._queue and self.committing is None and self._orders.stop is None:
            self._decide(self._queue.popleft(), now_ns)

    def _decide(self, event: Event, now_ns: int) -> None:
        decision = decide(self.cluster, event, self.policy, now_ns)
        self.cluster = decision.cluster
        self._orders.kill += [(node_of(place), slot_of(place)) for place in decision.kill]
        self._unplaced += [spawn.rank for spawn in decision.spawn]
        if decision.stop is not None:
            self._orders.stop = decision.stop
            return
        self._awaited = decision.close
        if decision.close:
            self._close()
        if decision.roster is not None:
            self._commit(decision.roster)

    def _roster_nodes(self) -> set[int]:
        roster = self.cluster.roster
        return set() if roster is None else {m.node for m in roster.members}

    def _close(self) -> None:
        roster = self.cluster.roster
        assert roster is not None
        if self._closing == roster.generation:
            return
        self._closing, self._frozen = roster.generation, {}
        for node in self._roster_nodes() & self.nodes.keys():
            self._orders.close[node] = roster.generation

    def _try_closed(self, now_ns: int) -> None:
        """All nodes that are left have frozen their words, those that are not have stopped."""
        roster = self.cluster.roster
        assert roster is not None
        members = self._roster_nodes()
        if any(node not in self._frozen for node in members & self.nodes.keys()):
            return
        early = self.unsafe_early_commit
        if not early and any(self._fences.get(n, 0) > now_ns for n in members - self.nodes.keys()):
            return
        self._awaited = False
        told = self._frozen.values()
        if not told:  # nobody knows how many steps were committed: not even whether any was
            gone = ", ".join(f"node {node}" for node in sorted(members))
            reason = f"all that hold the state of generation {roster.generation} are lost: {gone}"
            self._orders.stop = Stop(1, f"{reason}; go on from your last checkpoint")
            return
        steps = min(one.steps for one in told)
        if self.unsafe_forget_frozen:
            steps = roster.steps
        versions = {p: v for one in told for p, v in one.versions.items()}
        kept = any(one.kept for one in told)
        self._decide(Closed(now_ns, roster.generation, steps, versions, kept), now_ns)

    def _commit(self, roster: Roster) -> None:
        nodes = {m.node for m in roster.members}
        told = tuple(
            Node(n, self.nodes[n].host, self.nodes[n].rack, self.nodes[n].keeper)
            for n in sorted(nodes)
            if n in self.nodes
        )
        roster = replace(roster, nodes=told, block=self.block)
        self.cluster = replace(self.cluster, roster=roster)
        self.committing = self._orders.commit = roster

    def _first_commit(self, node: int, event: FirstCommit, now_ns: int) -> Orders:
        roster = self.cluster.roster
        if roster is not None and event.generation == roster.generation and not self.committing:
            self._first_commits.add(node)
            if self._roster_nodes() & self.nodes.keys() <= self._first_commits:
                self._feed(event, now_ns)
        return self._take(now_ns)

    # --- nodes ----------------------------------------------------------------------------------

    def _standbys(self, target: int) -> int:
        """Standbys wanted: what nodes keep, and all of the nodes that have no ranks to run."""
        own = sum(node.standbys for node in self.nodes.values())
        return own + max(0, self._capacity() - target)

    def _capacity(self) -> int:
        return sum(node.nproc for node in self.nodes.values())

    def _replan(self, now_ns: int) -> None:
        """Nodes came or went: how many ranks there should be."""
        cluster = self.cluster
        most = max(self.plan.max_nodes * (self.block or 1), 1)
        there = len(survivors(cluster)) + len(spares(cluster)) if cluster.roster else 0
        wanted = min(most, max(self._capacity(), min(there, cluster.target)))
        target = max(self.policy.min_ranks, wanted) if cluster.roster else cluster.target
        standbys = self._standbys(target)
        if (target, standbys) != (cluster.target, cluster.standbys):
            self._feed(NodesChanged(now_ns, target, standbys), now_ns)

    def _place(self) -> None:
        """Finds a node for each worker that is to be started; those without one wait."""
        left = []
        for rank in self._unplaced:
            node = self._home(rank)
            if node is None:
                left.append(rank)
                continue
            self._asked.setdefault(node, []).append(rank)
            self._orders.spawn.append((node, rank))
        self._unplaced = left

    def _home(self, rank: int | None) -> int | None:
        home = self.homes.get(rank) if rank is not None else None
        if home in self.nodes:
            return home
        room = {n: self._room(n) for n in self.nodes}
        best = max(room, key=lambda n: (room[n], -n), default=None)
        return best if best is not None and room[best] > 0 else None

    def _room(self, node: int) -> int:
        facts = self.nodes[node]
        here = sum(1 for place in self.cluster.workers if node_of(place) == node)
        return facts.nproc + facts.standbys - here - len(self._asked.get(node, []))


def cluster_of(plan: Plan, roster: Roster | None, target: int = 0) -> Cluster:
    """Facts of a job that has this newest roster, before any node has joined."""
    ranks = target or (roster.world_size if roster is not None else 0)
    return Cluster(plan.job, ranks, ranks, 0, roster=roster)
