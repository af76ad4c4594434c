"""The scaling policy on traces: a fleet of 10,000 nodes over a week, flapping places, random
histories. The clock is a number; a failure prints its seed."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pytest

from hpcore.elastic import (
    GrowthFailed,
    Lost,
    Places,
    Plan,
    Policy,
    Preempted,
    Replaced,
    Resized,
    Scaling,
    Tick,
    plan,
)

RESIZE_S = 2.0
DAY_S = 86_400.0


@dataclass
class Fleet:
    """One job under a policy: what the agents would do, by a driven clock.

    A resize takes RESIZE_S; places that go are gone at once, so ranks on them are lost to the job
    in that moment. `growth_fails` says whether a growth does.
    """

    policy: Policy
    random: random.Random
    growth_failures: float = 0.0
    scaling: Scaling = field(default_factory=Scaling)
    now_s: float = 0.0
    used_s: float = 0.0
    offered_s: float = 0.0
    resizes: list[tuple[float, int, int]] = field(default_factory=list)
    _target: int = 0
    _done_s: float | None = None
    _ask_s: float | None = None

    def run(self, trace: Iterable[tuple[float, object]], end_s: float) -> None:
        """Feeds events at their times, and what follows from the plans between them."""
        for at_s, event in trace:
            self._until(at_s)
            self._take(plan(self.policy, self.scaling, event, self.now_s))  # type: ignore[arg-type]
        self._until(end_s)

    def _until(self, at_s: float) -> None:
        while True:
            due = [t for t in (self._done_s, self._ask_s) if t is not None and t <= at_s]
            if not due:
                break
            self._pass(max(self.now_s, min(due)))
            if self._done_s is not None and self._done_s <= self.now_s:
                self._done_s = None
                self._finish()
            else:
                self._ask_s = None
                self._take(plan(self.policy, self.scaling, Tick(), self.now_s))
        self._pass(at_s)

    def _pass(self, at_s: float) -> None:
        running = min(self.scaling.size, self.scaling.places)
        self.used_s += running * (at_s - self.now_s)
        self.offered_s += min(self.scaling.places, self.policy.max) * (at_s - self.now_s)
        self.now_s = at_s

    def _finish(self) -> None:
        grows = self._target > self.scaling.size
        if grows and self.random.random() < self.growth_failures:
            self._take(plan(self.policy, self.scaling, GrowthFailed(), self.now_s))
            return
        size = self._target
        assert size == 0 or self.policy.fit(size) == size
        self.resizes.append((self.now_s, self.scaling.size, size))
        self._take(plan(self.policy, self.scaling, Resized(size), self.now_s))

    def _take(self, decided: Plan) -> None:
        assert decided.target == 0 or decided.target >= self.policy.min, decided
        assert decided.target <= self.policy.max
        if decided.ask_again_s is not None:
            assert decided.ask_again_s > self.now_s, decided
        self.scaling, self._ask_s = decided.scaling, decided.ask_again_s
        if decided.target != self.scaling.size:
            if self._done_s is None or decided.target != self._target:
                self._target, self._done_s = decided.target, self.now_s + RESIZE_S
        else:
            self._done_s = None


def diurnal(seed: int, nodes: int, days: int) -> Iterator[tuple[float, object]]:
    """Places by the minute: many at night, few by day, spot nodes that come and go, now and then a
    rack that is gone for ten minutes; ranks that die, most of them replaced within seconds."""
    draw = random.Random(seed)
    events: list[tuple[float, int, object]] = []
    racks: list[tuple[float, int]] = []
    for minute in range(days * 24 * 60):
        at_s = minute * 60.0
        share = 0.65 + 0.3 * math.cos(2 * math.pi * at_s / DAY_S)
        if draw.random() < 1 / 240:
            racks.append((at_s + 600.0, 32))
        racks = [(until, count) for until, count in racks if until > at_s]
        gone = sum(count for _, count in racks)
        places = int(nodes * share) + draw.randrange(-8, 9) - gone
        heapq.heappush(events, (at_s, minute, Places(places)))
        if draw.random() < 0.2:
            died_s = at_s + draw.uniform(1, 40)
            heapq.heappush(events, (died_s, minute, Lost(1)))
            if draw.random() < 0.9:
                heapq.heappush(events, (died_s + draw.uniform(0.1, 5), minute, Replaced(1)))
    while events:
        at_s, _, event = heapq.heappop(events)
        yield at_s, event


@pytest.mark.parametrize(
    "policy",
    [
        Policy(min=1000, max=10_000),
        Policy(min=1000, max=10_000, step=8),
        Policy(min=1024, max=9600, sizes=tuple(range(1024, 9601, 64)), settle_s=120.0),
    ],
    ids=["any", "step8", "sizes64"],
)
def test_fleet_uses_what_a_diurnal_trace_offers(policy: Policy) -> None:
    for seed in range(2):
        fleet = Fleet(policy, random.Random(seed), growth_failures=0.02)
        fleet.run(diurnal(seed, 10_000, days=7), 7 * DAY_S)
        used = fleet.used_s / fleet.offered_s
        assert used > 0.95, f"seed {seed}: {used:.4f} of what was offered"
        assert all(size >= policy.min for _, _, size in fleet.resizes), f"seed {seed}"
        peak = max(size for _, _, size in fleet.resizes)
        assert peak > 0.9 * policy.max and len(fleet.resizes) > 100, f"seed {seed}"


def test_flapping_inside_the_settle_time_gives_no_resize() -> None:
    policy = Policy(min=2, max=16, settle_s=30.0)
    trace: list[tuple[float, object]] = [(0.0, Places(8))]
    for cycle in range(200):  # eight more places, for 29 s of each 35
        trace += [(100 + 35.0 * cycle, Places(16)), (129 + 35.0 * cycle, Places(8))]
    fleet = Fleet(policy, random.Random(0))
    fleet.run(trace, 100 + 35 * 200.0)
    assert fleet.resizes == [(RESIZE_S, 0, 8)]
    fleet.run([(fleet.now_s, Places(16))], fleet.now_s + 40)  # and then they stay
    assert [size for _, _, size in fleet.resizes] == [8, 16]
    # Of places that flap between 10 and 16, those that stay are used.
    trace = [(0.0, Places(8))]
    for cycle in range(20):
        trace += [(100 + 20.0 * cycle, Places(16)), (110 + 20.0 * cycle, Places(10))]
    fleet = Fleet(policy, random.Random(0))
    fleet.run(trace, 500.0)
    assert [size for _, _, size in fleet.resizes] == [8, 10]


@pytest.mark.parametrize("seed", range(30))
def test_random_histories_keep_their_promises(seed: int) -> None:
    """Never below min and never an odd size (Fleet asserts both); after a quiet time the job runs
    on all that fits."""
    draw = random.Random(seed)
    low = draw.randrange(1, 6)
    high = low + draw.randrange(20)
    sizes = tuple(draw.sample(range(low, high + 1), k=draw.randrange(1, high - low + 2)))
    kind = draw.randrange(3)
    policy = Policy(
        min=low,
        max=high,
        step=draw.randrange(1, 5) if kind == 1 else None,
        sizes=sizes if kind == 2 else (),
        settle_s=draw.choice([0.0, 5.0, 60.0]),
        standby_wait_s=draw.choice([0.0, 10.0]),
        snooze_s=draw.choice([0.0, 100.0]),
    )
    fleet = Fleet(policy, draw, growth_failures=0.3)
    trace: list[tuple[float, object]] = []
    at_s = 0.0
    for _ in range(200):
        at_s += draw.choice([0.0, 0.5, 3.0, 20.0, 100.0])
        kinds = [Places(draw.randrange(high + 4)), Lost(1), Replaced(1), Preempted(1, 5.0)]
        trace.append((at_s, draw.choice(kinds)))
    places = draw.randrange(high + 4)
    trace.append((at_s, Places(places)))
    fleet.run(trace, at_s)
    fleet.growth_failures = 0.0
    fleet.run([], at_s + 1000.0)
    assert fleet.scaling.size == policy.fit(places), f"seed {seed}"
