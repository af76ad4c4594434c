"""Random jobs in which state is transferred while ranks die and lag; what must always hold.

A model with its own clock: a transfer moves whole plans, interval by interval, and is re-planned at
each event, by the two pure functions of the native code.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from hpcore import _core
from hpcore.errors import NotFound

CHUNK = 1 << 20
HOLDS_NOTHING = 2**32 - 1
RATES = (20e9, 10e9, 2.5e9, 1e9)
INTAKE = 20e9


@dataclass
class Rank:
    """One rank as the simulation sees it."""

    process: int
    node: int
    rack: int
    version: int
    healthy: bool = True
    rate: float = 0.0

    def facts(self) -> Any:
        return _core.RankFacts(
            self.process, self.node, self.rack, self.version, self.healthy, self.rate
        )


def nearness(one: Rank, other: Rank) -> int:
    """0 to 3: same process, node, rack, elsewhere."""
    if one.rack != other.rack:
        return 3
    if one.node != other.node:
        return 2
    return 0 if one.process == other.process else 1


@dataclass
class Transfer:
    """A job, its lost ranks, and what has arrived."""

    seed: int
    version: int = 12
    ranks: list[Rank] = field(default_factory=list)
    families: list[list[int]] = field(default_factory=list)
    tensors: list[tuple[str, int, int]] = field(default_factory=list)
    receivers: list[int] = field(default_factory=list)
    arrived: dict[tuple[int, int], list[tuple[int, int, int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = self.rng = random.Random(self.seed)
        nodes, per_node = rng.randint(1, 12), rng.randint(1, 8)
        per_rack = rng.randint(1, 4)
        count = nodes * per_node
        for rank in range(count):
            node = rank // per_node
            process = rank // 2 if per_node % 2 == 0 and self.seed % 3 == 0 else rank
            self.ranks.append(Rank(process, node, node // per_rack, self.version))
        shards = rng.choice([d for d in range(1, count + 1) if count % d == 0])
        self.families = [[0] * count, [rank % shards for rank in range(count)]]
        if rng.random() < 0.3:  # some ranks hold nothing of a third one
            self.families.append([0 if rng.random() < 0.7 else HOLDS_NOTHING for _ in range(count)])
        for number in range(rng.randint(1, 30)):
            size = rng.choice([0, 5, CHUNK, 40 * CHUNK + 7, rng.randint(1, 200 * CHUNK)])
            self.tensors.append((f"t{number}", size, rng.randrange(len(self.families))))
        lost = rng.sample(range(count), rng.randint(1, max(1, count // 3)))
        self.receivers = sorted(lost)
        for rank in self.receivers:
            self.ranks[rank].version = rng.choice([0, self.version - 1, self.version])
        for rank in set(range(count)) - set(lost):
            if rng.random() < 0.05:
                self.ranks[rank].version = self.version - 1
            elif rng.random() < 0.05:
                self.ranks[rank].healthy = False

    def request(self) -> Any:
        return _core.PlanRequest(
            [_core.TensorSize(*tensor) for tensor in self.tensors],
            [_core.PlanFamily(groups) for groups in self.families],
            [rank.facts() for rank in self.ranks],
            self.receivers,
            self.version,
            CHUNK,
        )

    def family_bytes(self, family: int) -> int:
        return sum(size for _, size, of in self.tensors if of == family)

    def wanted(self) -> list[tuple[int, int, int, int]]:
        """(receiver, family, begin, end) of all that must arrive."""
        return [
            (receiver, family, 0, self.family_bytes(family))
            for receiver in self.receivers
            for family, groups in enumerate(self.families)
            if groups[receiver] != HOLDS_NOTHING and self.family_bytes(family)
        ]

    def holders(self, receiver: int, family: int) -> list[int]:
        """Who may give a family's bytes to a receiver."""
        groups = self.families[family]
        return [
            rank
            for rank, facts in enumerate(self.ranks)
            if groups[rank] == groups[receiver]
            and facts.healthy
            and facts.version == self.version
            and rank not in self.receivers
        ]

    def run(self) -> str:
        """Until all has arrived; the error's text if something is lost."""
        wanted = [(*part, []) for part in self.wanted()]
        try:
            pulls = _core.plan_transfer(self.request())
            self.check(pulls, wanted)
            self.check_load(pulls)
            self.check_near()
            while pulls:
                wanted = self.advance(pulls)
                remaining = [_core.Remaining(r, f, b, e, no) for r, f, b, e, no in wanted]
                pulls = _core.replan_transfer(self.request(), remaining)
                self.check(pulls, wanted)
        except NotFound as error:
            self.check_lost(str(error), wanted)
            return str(error)
        self.check_arrived()
        return ""

    def advance(self, pulls: list[Any]) -> list[Any]:
        """Some intervals arrive, whole or in part; then something happens. Returns what is left."""
        rng, left = self.rng, []
        calm = rng.random() < 0.3
        for pull in pulls:
            chunks = -(-(pull.end - pull.begin) // CHUNK)
            done = chunks if calm else rng.randint(0, chunks)
            middle = min(pull.begin + done * CHUNK, pull.end)
            if middle > pull.begin:
                key = (pull.receiver, pull.family)
                self.arrived.setdefault(key, []).append((pull.begin, middle, pull.source))
            if middle < pull.end:
                bad = [pull.source] if rng.random() < 0.05 else []
                left.append((pull.receiver, pull.family, middle, pull.end, bad))
        event, victim = rng.random(), rng.choice(self.ranks)
        if event < 0.3:
            victim.healthy = False
        elif event < 0.6:
            victim.rate = rng.choice([0.1, 1.0]) * rng.choice(RATES)
        return left

    # --- what must hold -----------------------------------------------------------------------

    def check(self, pulls: list[Any], wanted: list[Any]) -> None:
        """Every byte that is wanted once, whole chunks, from those who may give it."""
        parts: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for pull in pulls:
            assert pull.source in self.holders(pull.receiver, pull.family)
            parts.setdefault((pull.receiver, pull.family), []).append((pull.begin, pull.end))
            for receiver, family, begin, end, bad in wanted:
                if (receiver, family) == (pull.receiver, pull.family):
                    inside = begin <= pull.begin and pull.end <= end
                    assert not inside or pull.source not in bad
        needs: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for receiver, family, begin, end, _ in wanted:
            needs.setdefault((receiver, family), []).append((begin, end))
        assert {k: union(v) for k, v in parts.items()} == {k: union(v) for k, v in needs.items()}

    def check_load(self, pulls: list[Any]) -> None:
        """The busiest source is done within a factor of what no plan can beat."""
        busy = [0.0] * len(self.ranks)
        needs: dict[tuple[int, int], int] = {}
        takers: dict[tuple[int, int], list[int]] = {}
        for receiver, family, _, size in self.wanted():
            key = (family, self.families[family][receiver])
            needs[key] = needs.get(key, 0) + size
            takers.setdefault(key, []).append(receiver)
        for pull in pulls:
            busy[pull.source] += (pull.end - pull.begin) / self.rate(pull.receiver, pull.source)
        bound = 0.0
        for key, size in needs.items():
            sources = self.holders(takers[key][0], key[0])
            speed = sum(max(self.rate(r, s) for r in takers[key]) for s in sources)
            bound = max(bound, size / speed)
        portion = max(CHUNK, self.largest() // 256 + 2 * CHUNK)
        taken = sum(self.family_bytes(f) for f in range(len(self.families))) / INTAKE
        slack = 2 * len(self.families) * portion / min(RATES)
        assert max(busy) <= len(self.families) * bound * 1.5 + taken + slack

    def check_near(self) -> None:
        """A lone receiver takes nothing from far while a nearer source would be done before."""
        receiver, family, _, size = self.rng.choice(self.wanted() or [(0, 0, 0, 0)])
        if not size or not self.holders(receiver, family):
            return
        facts = [rank.facts() for rank in self.ranks]
        for other in self.receivers:  # they are no sources here either
            if other != receiver:
                facts[other].healthy = False
        request = _core.PlanRequest(
            [_core.TensorSize("all", size)],
            [_core.PlanFamily(self.families[family])],
            facts,
            [receiver],
            self.version,
            CHUNK,
        )
        pulls = _core.plan_transfer(request)
        busy = [0.0] * len(self.ranks)
        for pull in pulls:
            busy[pull.source] += (pull.end - pull.begin) / self.rate(receiver, pull.source)
        portion = max(CHUNK, size // 256 + 2 * CHUNK)
        for pull in pulls:
            for other in self.holders(receiver, family):
                nearer = nearness(self.ranks[receiver], self.ranks[other])
                if nearer < nearness(self.ranks[receiver], self.ranks[pull.source]):
                    step = 2 * portion / self.rate(receiver, other)
                    assert busy[other] + step >= busy[pull.source]

    def largest(self) -> int:
        return max(self.family_bytes(f) for f in range(len(self.families)))

    def rate(self, receiver: int, source: int) -> float:
        known = RATES[nearness(self.ranks[receiver], self.ranks[source])]
        measured = self.ranks[source].rate
        return min(known, measured) if measured else known

    def check_lost(self, text: str, wanted: list[Any]) -> None:
        """Only what really has no holder is called lost, and it is named."""
        lost = {
            family
            for receiver, family, _, _, bad in wanted
            if not set(self.holders(receiver, family)) - set(bad)
        }
        assert lost, text
        named = [name for name, _, family in self.tensors if family in lost]
        assert any(f"{name} " in text or f"{name}," in text or f"{name}:" in text for name in named)
        assert f"version {self.version} is lost" in text

    def check_arrived(self) -> None:
        got: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for key, parts in self.arrived.items():
            got[key] = union([(begin, end) for begin, end, _ in parts])
        assert got == {(r, f): [(b, e)] for r, f, b, e in self.wanted()}


def union(parts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Neighbouring intervals joined; fails if two overlap."""
    joined: list[tuple[int, int]] = []
    for begin, end in sorted(parts):
        assert not joined or joined[-1][1] <= begin, f"bytes from {begin} are planned twice"
        if joined and joined[-1][1] == begin:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((begin, end))
    return joined
