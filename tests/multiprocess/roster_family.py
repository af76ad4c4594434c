"""A family of forked workers over one node segment, for the roster's tests."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from hpcore import _core

FOREVER_S = 60.0


class Family:
    """Forks workers over one segment and ends them with the test."""

    def __init__(self, slots: int) -> None:
        self.segment = _core.NodeSegment.create(slots, staging_bytes=4096, store_bytes=4096)
        self.watch = _core.AgentWatch(self.segment)
        self.incarnation = 0
        self.pids: dict[int, int] = {}

    def start(self, slot: int, body: Callable[[_core.Worker], object]) -> int:
        self.incarnation += 1
        self.segment.prepare_slot(slot, self.incarnation)
        self.watch.watch(slot, self.incarnation)
        pid = os.fork()
        if pid == 0:
            try:
                segment = _core.NodeSegment.attach(self.segment.fd)
                body(_core.Worker.attach(segment, slot, self.incarnation))
            finally:
                os._exit(3)
        self.pids[slot] = pid
        return pid

    def next(self, kind: str, slot: int) -> _core.Event:
        deadline = time.monotonic() + FOREVER_S
        while time.monotonic() < deadline:
            event = self.watch.next_event(FOREVER_S)
            if event is not None and event.kind == kind and event.slot == slot:
                return event
        raise AssertionError(f"no {kind} of slot {slot}")

    def steps_of_mails(self, slots: list[int]) -> dict[int, int]:
        steps: dict[int, int] = {}
        while len(steps) < len(slots):
            event = self.watch.next_event(FOREVER_S)
            assert event is not None, f"mail from {sorted(steps)} only"
            if event.kind == "mail":
                steps[event.slot] = event.step
        return steps

    def kill(self, slot: int) -> None:
        os.kill(self.pids[slot], signal.SIGKILL)

    def close(self) -> None:
        for pid in self.pids.values():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.watch.close()


@pytest.fixture
def family() -> Iterator[Family]:
    family = Family(4)
    yield family
    family.close()


def wait_for_ever(_: _core.Worker) -> None:
    signal.pause()


def attached(family: Family, slots: range) -> None:
    missing = set(slots)
    while missing:
        event = family.watch.next_event(FOREVER_S)
        assert event is not None, f"slots {missing} did not attach"
        missing.discard(event.slot)
