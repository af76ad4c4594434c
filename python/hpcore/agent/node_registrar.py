"""The registrar of a node among several: reports to the agent that leads, and does what it orders.

One thread (the agent's). Any agent may lead: whoever the coordinator lets. A node without an answer
of the coordinator and without contact to all nodes of its generation stops its workers before
anybody else may hold their ranks.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hpcore.agent.keeping import KeeperDesk
from hpcore.agent.leading import REFUSED_FENCE_S, SILENCE_S, LeadDesk
from hpcore.agent.registrar import FLAG_RECOVERABLE, Outcome, Registrar
from hpcore.membership.lead import NodeFacts, Plan, Snapshot
from hpcore.membership.places import localise, place_of, slots_here
from hpcore.membership.roster import Roster
from hpcore.membership.rosters import LocalRosters
from hpcore.membership.state import (
    FLAG_KEPT,
    Cluster,
    Died,
    Event,
    Exited,
    FirstCommit,
    Policy,
    Spawn,
    Spawned,
    SpawnFailed,
    Stage,
    StageChanged,
    Stop,
    StopAsked,
    Tick,
    WorkerFacts,
)
from hpcore.nodes import messages
from hpcore.nodes.enrolment import Enrolment
from hpcore.nodes.joining import announcement_key
from hpcore.nodes.link import Hub

if TYPE_CHECKING:
    from hpcore import _core

FENCED = 75
"""Exit code of a node that had to stop its workers; it may join again as another."""
STOP_SHARE = 0.7
"""Of the lease: what is left is for noticing and for killing."""
LEAVES = (128 + 15, 128 + 1)  # SIGTERM, SIGHUP: this node goes, the job stays

Message = dict[str, Any]


@dataclass(frozen=True)
class NodeParts:
    """What a node among several has beside the rest."""

    plan: Plan
    facts: NodeFacts
    enrolment: Enrolment
    hub: Hub
    lease_s: float


class NodeRegistrar(Registrar):
    """`cluster` is this node's part: its workers by slot, the roster as seen from here."""

    def __init__(
        self,
        segment: _core.NodeSegment,
        cluster: Cluster,
        policy: Policy,
        node: NodeParts,
        keepers: KeeperDesk | None = None,
    ) -> None:
        super().__init__(segment, LocalRosters(), cluster, policy)
        self._node = node
        self._keepers = keepers
        self._hub = node.hub
        self._enrolment = node.enrolment
        self.number = node.enrolment.number
        self._desk: LeadDesk | None = None
        self._leader: dict[str, Any] | None = None  # number, address, version
        self._linked = False
        self._suspected = 0  # version of the lead that was given up
        self._alive: set[int] = set()
        self._gone: dict[int, float] = {}
        self._finished: set[int] = set()
        self._died: set[int] = set()
        self._unsent: deque[Event] = deque(maxlen=1000)
        # Heard before this node knew that it leads.
        self._early: deque[tuple[int, Message]] = deque(maxlen=1000)
        self._outcomes: list[Outcome] = []
        self._contact_s = time.monotonic()
        self._led_since_s = time.monotonic()
        self._fenced = False
        self._leading_asked = False

    # --- from this node -------------------------------------------------------------------------

    def feed(self, event: Event) -> Outcome:
        """Reports an event; what follows from it may come later, through `poll`."""
        if isinstance(event, Tick):
            self._tick()
        elif isinstance(event, StopAsked) and event.code in LEAVES:
            self._leave(event)
        else:
            self._note(event)
            self._report(event)
        return self._merge()

    def poll(self) -> list[Outcome]:
        """What came from other nodes and the coordinator."""
        while self._enrolment.received:
            self._hear_coordinator(self._enrolment.received.popleft())
        while self._hub.received:
            self._hear(*self._hub.received.popleft())
        found, self._outcomes = self._outcomes, []
        return found

    def stage_changed(self, slot: int, incarnation: int, at_ns: int) -> Outcome | None:
        """See Registrar; what a worker announces goes along."""
        worker = self.cluster.workers.get(slot)
        if worker is None or worker.incarnation != incarnation:
            return None
        info = self._segment.slot_info(slot)
        stage, recoverable = Stage(info.state), bool(info.flags & FLAG_RECOVERABLE)
        known = (worker.stage, worker.recoverable) == (stage, recoverable)
        if info.incarnation != incarnation or known:
            return None
        told, key = worker.announcement, announcement_key(incarnation)
        if not told and stage in (Stage.WARM, Stage.TRAINING) and self._segment.store.check([key]):
            told = self._segment.store.get(key, 1.0).decode()
            self._start_keeper()
        return self.feed(StageChanged(at_ns, slot, incarnation, stage, recoverable, told))

    def _start_keeper(self) -> None:
        """Before a worker can be named in a roster: that one is to name the keeper, too."""
        address = self._keepers.address_if_wanted() if self._keepers is not None else ""
        if address == self._node.facts.keeper:
            return
        self._node = replace(self._node, facts=replace(self._node.facts, keeper=address))
        if self._desk is not None:
            self._desk.join(self._snapshot(), self._generation)
        elif self._linked and self._leader is not None:
            hello = messages.hello_message(self._snapshot(), self._generation, self._hub.address)
            self._hub.send(self._leader["number"], hello)

    def close(self) -> None:
        """Leaves: links end when all is sent, the lease is given back."""
        self._hub.close()
        self._enrolment.close()

    def _merge(self) -> Outcome:
        """One outcome for what was ordered so far; if there are several rosters, the dispatcher
        polls the rest."""
        return self._outcomes.pop(0) if self._outcomes else Outcome()

    def _note(self, event: Event) -> None:
        """Keeps this node's own facts."""
        workers = dict(self.cluster.workers)
        if isinstance(event, Spawned):
            workers[event.slot] = WorkerFacts(event.slot, event.incarnation, event.pid, event.rank)
        elif isinstance(event, StageChanged):
            workers[event.slot] = replace(
                workers[event.slot],
                stage=event.stage,
                recoverable=event.recoverable,
                announcement=event.announcement,
            )
        elif isinstance(event, Died):
            self._died.add(event.incarnation)
        elif isinstance(event, Exited):
            if event.code == 0 and event.stage is Stage.FINISHED:
                self._finished.add(event.incarnation)
            workers.pop(event.slot, None)
        elif isinstance(event, FirstCommit):
            self.cluster = replace(self.cluster, committed=True)
        self.cluster = replace(self.cluster, workers=workers)

    def _report(self, event: Event) -> None:
        if self._desk is not None:
            message = messages.event_message(event, self.number)
            self._desk.hear(self.number, message)
        elif self._linked and self._leader is not None:
            self._hub.send(self._leader["number"], messages.event_message(event, self.number))
        elif not isinstance(event, (Spawned, SpawnFailed, StageChanged, FirstCommit)):
            self._unsent.append(event)  # the others are in the snapshot

    def _leave(self, event: StopAsked) -> None:
        if self._desk is None and self._leader is not None:
            self._hub.send(self._leader["number"], {"kind": "leave"})
        self._outcomes.append(Outcome(stop=Stop(event.code, event.reason)))

    # --- from elsewhere -------------------------------------------------------------------------

    def _hear_coordinator(self, message: Message) -> None:
        kind = message["kind"]
        if kind == "look":
            self._look(message)
        elif kind == "leads":
            self._begin_to_lead(message["roster"])
        elif kind == "committed":
            if self._desk is not None:
                self._desk.committed()
        elif kind in ("expelled", "deposed"):
            self._fence(f"the coordinator says that it was {kind}")

    def _look(self, message: Message) -> None:
        self._alive = set(message["nodes"])
        if self._desk is not None:
            self._desk.alive = self._alive
        stop, lead = message["stop"], message["lead"]
        if stop is not None:
            self._outcomes.append(Outcome(stop=Stop(stop["code"], stop["reason"])))
        if lead is None:
            self._leader, self._linked = None, False
            if self._desk is None and not self._leading_asked:
                self._leading_asked = True
                self._enrolment.seek_lead(self._hub.address)
        elif self._leader is None or lead["version"] != self._leader["version"]:
            self._leader, self._linked = lead, False
            self._leading_asked = lead["number"] == self.number
            if not self._leading_asked:
                self._early.clear()
            self._contact_s = self._led_since_s = time.monotonic()
            if lead["number"] != self.number:
                self._hub.connect(lead["number"], lead["address"])

    def _begin_to_lead(self, roster: Roster | None) -> None:
        node = self._node
        self._desk = LeadDesk(
            node.plan,
            self._policy,
            self._hub,
            self._enrolment,
            node.lease_s,
            lambda message: self._obey(message),
            roster,
        )
        self._desk.alive = self._alive
        self._desk.gone.update(self._gone)
        self._desk.join(self._snapshot(), self._generation)
        while self._unsent:
            self._report(self._unsent.popleft())
        while self._early:
            self._desk.hear(*self._early.popleft())

    def _hear(self, peer: int, message: Message) -> None:
        leader = self._leader["number"] if self._leader is not None else None
        if self._desk is not None:
            if message["kind"] in ("linked",):
                return
            self._desk.hear(peer, message)
        elif peer != leader:
            # The lead's key is seen by all at once: a node's hello may be here before our answer.
            if self._leading_asked and message["kind"] != "linked":
                self._early.append((peer, message))
            return
        elif message["kind"] == "linked":
            self._linked = True
            hello = messages.hello_message(self._snapshot(), self._generation, self._hub.address)
            self._hub.send(peer, hello)
            while self._unsent:
                self._report(self._unsent.popleft())
        elif message["kind"] == "refused":
            self._suspect(time.monotonic() + REFUSED_FENCE_S)
        elif message["kind"] == "unlinked":
            self._linked = False
            assert self._leader is not None
            self._hub.connect(peer, self._leader["address"])
        else:
            self._obey(message)

    def _obey(self, message: Message) -> None:
        """An order of the lead's."""
        kind = message["kind"]
        if kind == "close":
            self._close_here(message["generation"])
        elif kind == "roster":
            self._publish_here(Roster.from_dict(message["roster"]))
        elif kind == "spawn":
            outcome = Outcome(spawn=[Spawn(message["rank"])], ranks=message["ranks"])
            self._outcomes.append(outcome)
        elif kind == "kill":
            self._outcomes.append(Outcome(kill=[message["slot"]]))
        elif kind == "stop":
            stop = Stop(message["code"], message["reason"], message["text"])
            self._outcomes.append(Outcome(stop=stop))
        elif kind == "expelled":
            self._fence("the lead says that it was lost")

    @property
    def _generation(self) -> int:
        return self.cluster.roster.generation if self.cluster.roster is not None else 0

    def _snapshot(self) -> Snapshot:
        workers = tuple(
            replace(worker, slot=place_of(self.number, worker.slot))
            for worker in self.cluster.workers.values()
            if worker.incarnation not in self._died
        )
        return Snapshot(self._node.facts, workers, tuple(self._finished))

    # --- generations ----------------------------------------------------------------------------

    def _close_here(self, generation: int) -> None:
        roster = self.cluster.roster
        if roster is None or roster.generation != generation:
            return
        slots = slots_here(roster)
        steps = min(self._segment.close_generation(generation), default=roster.steps)
        self.cluster = replace(self.cluster, closed=True)
        versions, kept = [], False
        for slot in slots:
            info = self._segment.slot_info(slot)
            version = self._words.get(info.version, info.version)
            versions.append([place_of(self.number, slot), version])
            kept = kept or bool(info.flags & FLAG_KEPT)
        message = {
            "kind": "frozen",
            "generation": generation,
            "steps": steps,
            "versions": versions,
            "kept": kept,
        }
        if self._desk is not None:
            self._desk.hear(self.number, message)
        elif self._leader is not None:
            self._hub.send(self._leader["number"], message)

    def _publish_here(self, roster: Roster) -> None:
        before = self.cluster.roster
        if before is not None and roster.generation <= before.generation:
            return
        local = localise(roster, self.number)
        slots = slots_here(local)
        segment, revoked_ns = self._segment, None
        if before is not None:
            if roster.generation > before.generation + 1 and slots_here(before):
                self._fence(f"generations went by between {before.generation} and this")
                return
            segment.close_generation(before.generation)
            segment.settle(before.generation, roster.steps)
            revoked_ns = time.monotonic_ns()
        segment.open_commit(slots, roster.generation, roster.steps, len(slots) < roster.world_size)
        segment.set_ranked(slots)
        segment.publish(roster.generation, local.to_bytes().decode())
        workers = {
            slot: replace(worker, released=self._released(worker, local))
            for slot, worker in self.cluster.workers.items()
        }
        self.cluster = replace(
            self.cluster, roster=local, workers=workers, closed=False, committed=False,
            target=len(slots),
        )  # fmt: skip
        self._outcomes.append(
            Outcome(published=(local, time.monotonic_ns()), revoked_ns=revoked_ns)
        )

    def _released(self, worker: WorkerFacts, roster: Roster) -> bool:
        named = roster.rank_of(worker.slot) is not None
        was = self.cluster.member(worker) is not None
        return not named and (was or worker.released)

    # --- time -----------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = time.monotonic()
        if self._desk is not None:
            oldest = self._desk.tick()
            self._hub.beat = {"full_s": oldest}
            self._contact_s = max(self._contact_s, oldest)
        elif self._leader is not None:
            beat = self._hub.beats.get(self._leader["number"])
            if beat is not None and "full_s" in beat[1]:
                age = beat[1]["sent_s"] - beat[1]["full_s"]
                self._contact_s = max(self._contact_s, beat[0] - age)
            heard = max(self._hub.heard_s(self._leader["number"]) or 0.0, self._led_since_s)
            if now - heard > SILENCE_S:
                self._suspect(now + self._node.lease_s)
        last = max(self._contact_s, self._enrolment.renewed_s)
        if now - last > STOP_SHARE * self._node.lease_s:
            self._fence(f"no word of the coordinator, nor of all nodes, for {now - last:.2f} s")

    def _suspect(self, fence_s: float) -> None:
        """The agent that leads is gone, or as good as."""
        leader = self._leader
        if leader is None or leader["version"] == self._suspected:
            return
        self._suspected = leader["version"]
        self._gone[leader["number"]] = fence_s
        self._linked = False
        self._hub.drop(leader["number"])
        self._enrolment.expel(leader["number"])

    def _fence(self, why: str) -> None:
        if not self._fenced:
            self._fenced = True
            reason = f"node {self.number} stopped its workers: {why}"
            self._outcomes.insert(0, Outcome(stop=Stop(FENCED, reason)))
