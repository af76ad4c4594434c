"""When a rank that waits leaves the core that it shares, over cores that are made up (`FakeCores`)
and, for the move itself, over the real ones."""

from __future__ import annotations

import os
import threading

import pytest

from hpcore import _core

OWN = 1  # the core that both ranks are on


class FakeCores:
    """Cores of a machine that does not exist: what is told is set by the test."""

    def __init__(self, online: int = 2) -> None:
        self.time_s = 100.0
        self.wanting = 2
        self.count = online
        self.idle = [0.0] * online
        self.may_run = list(range(1, online + 1))
        self.moves: list[int] = []

    def now(self) -> float:
        return self.time_s

    def runnable(self) -> int:
        return self.wanting

    def online(self) -> int:
        return self.count

    def idle_s(self) -> list[float]:
        return self.idle

    def allowed(self) -> list[int]:
        return self.may_run

    def move_to(self, core: int) -> int:
        self.moves.append(core)
        return core

    def wait(self, spread: _core._CoreSpread, seconds: float, taken: list[int]) -> None:
        """Waits for a rank on the same core, looking every 0.1 ms; the other cores are idle."""
        for _ in range(round(seconds / 1e-4)):
            spread.look(True, OWN, taken)
            if self.moves:
                return
            self.time_s += 1e-4
            self.idle = [s + (1e-4 if core != OWN - 1 else 0) for core, s in enumerate(self.idle)]


def test_core_spread_moves_soon_where_only_the_ranks_run() -> None:
    cores = FakeCores()
    spread = _core._CoreSpread(cores)
    begun = cores.time_s
    cores.wait(spread, 0.1, [OWN])
    assert cores.moves == [2]
    assert 0.0005 <= cores.time_s - begun < 0.001
    assert spread.idle(shared=False)


def test_core_spread_waits_for_a_core_idle_all_the_while_beside_others() -> None:
    cores = FakeCores(online=4)
    cores.wanting = 4  # two ranks and two others
    cores.idle = [0.0] * 4
    spread = _core._CoreSpread(cores)
    begun = cores.time_s
    cores.wait(spread, 0.1, [OWN])
    assert cores.moves == [2]
    assert 0.012 <= cores.time_s - begun < 0.013


def test_core_spread_leaves_busy_cores_alone() -> None:
    cores = FakeCores(online=3)
    cores.wanting = 3
    spread = _core._CoreSpread(cores)
    for _ in range(1000):  # 0.1 s in which core 2 is idle half of the time, core 3 always
        spread.look(True, OWN, [OWN])
        cores.time_s += 1e-4
        cores.idle = [0.0, cores.idle[1] + 0.5e-4, cores.idle[2] + 1e-4]
        if cores.moves:
            break
    assert cores.moves == [3]


@pytest.mark.parametrize("wanting", [3, 8, 0])
def test_core_spread_stays_where_more_want_to_run_than_there_are_cores(wanting: int) -> None:
    """Also where that cannot be known (0): no /proc."""
    cores = FakeCores()
    cores.wanting = wanting
    cores.wait(_core._CoreSpread(cores), 0.1, [OWN])
    assert cores.moves == []


def test_core_spread_keeps_to_the_affinity_that_the_user_set() -> None:
    cores = FakeCores(online=4)
    cores.may_run = [OWN]
    cores.wait(_core._CoreSpread(cores), 0.1, [OWN])
    assert cores.moves == []


def test_core_spread_takes_no_core_of_another_rank() -> None:
    cores = FakeCores(online=3)
    cores.wanting = 3
    cores.wait(_core._CoreSpread(cores), 0.1, [OWN, 2])
    assert cores.moves == [3]
    cores = FakeCores(online=2)
    cores.wait(_core._CoreSpread(cores), 0.1, [OWN, 2])
    assert cores.moves == []


def test_core_spread_forgets_what_did_not_last() -> None:
    cores = FakeCores()
    spread = _core._CoreSpread(cores)
    for _ in range(200):  # apart after 0.4 ms, or nobody waits for 60 ms
        cores.wait(spread, 0.0004, [OWN])
        spread.look(False, 2, [OWN])
        assert spread.idle(shared=False)
    for _ in range(20):
        spread.look(True, OWN, [OWN])
        cores.time_s += 0.06
    assert cores.moves == []


def test_moving_to_a_core_leaves_the_affinity_as_it_was() -> None:
    before = os.sched_getaffinity(0)
    outcome: list[object] = []

    def move() -> None:  # in a thread of its own: this one stays where it is
        outcome.extend(_core._move_to_core(core + 1) == core + 1 for core in sorted(before))
        outcome.append(os.sched_getaffinity(0) == before)
        only = {min(before)}
        os.sched_setaffinity(0, only)
        outcome.append(_core._move_to_core(max(before) + 2) == 0)
        outcome.append(len(before) == 1 or _core._move_to_core(max(before) + 1) == 0)
        outcome.append(os.sched_getaffinity(0) == only)

    thread = threading.Thread(target=move)
    thread.start()
    thread.join()
    assert outcome and all(outcome)
    assert os.sched_getaffinity(0) == before
