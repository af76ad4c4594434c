"""SharedStore between processes, some of which are killed inside a call."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import traceback
from collections.abc import Callable

import pytest

from hpcore import _core, errors


def fork(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(code)
    return pid


def reap(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_store_counts_across_processes() -> None:
    store = _core.SharedStore.create(1 << 20)

    def work() -> None:
        for i in range(500):
            store.add("sum", 1)
            store.queue_push("q", str(i))
            store.append("log", b"x")

    assert [reap(pid) for pid in [fork(work) for _ in range(4)]] == [0, 0, 0, 0]
    assert store.get("sum", 0.0) == b"2000"
    assert store.queue_len("q") == 2000
    assert len(store.get("log", 0.0)) == 2000


def test_store_wakes_waiters_of_other_processes() -> None:
    store = _core.SharedStore.create(1 << 20)

    def work() -> None:
        for i in range(200):
            store.get(f"ping{i}", 30.0)
            store.set(f"pong{i}", b"")

    pid = fork(work)
    for i in range(200):
        store.set(f"ping{i}", b"")
        store.get(f"pong{i}", 30.0)
    assert reap(pid) == 0


CHANGES: dict[str, Callable[[_core.SharedStore], object]] = {
    "set new": lambda store: store.set("new", b"N" * 300),
    "set old": lambda store: store.set("old", b"N" * 300),
    "add": lambda store: store.add("count", 1),
    "compare_set": lambda store: store.compare_set("old", "O" * 100, "N" * 300),
    "append within": lambda store: store.append("log", b"N"),
    "append beyond": lambda store: store.append("log", b"N" * 500),
    "delete": lambda store: store.delete("old"),
    "delete queue": lambda store: store.delete("q"),
    "push new": lambda store: store.queue_push("q2", b"N"),
    "push": lambda store: store.queue_push("q", b"N"),
    "pop": lambda store: store.queue_pop("q", False),
    "pop last": lambda store: store.queue_pop("single", False),
    "collect": lambda store: store.set("large", b"N" * 40_000),
}


def prepare() -> _core.SharedStore:
    """A store of 64 KiB whose free room is in small pieces: a large value makes it join them."""
    store = _core.SharedStore.create(64 << 10)
    room = store.free_bytes()
    fillers = [f"fill{i}" for i in range(room // 2200)]
    for key in fillers:
        store.set(key, b"f" * 2000)
    store.set("old", b"O" * 100)
    store.set("count", b"7")
    store.append("log", b"L")
    store.append("log", b"L" * 9)
    for item in (b"1", b"2", b"3"):
        store.queue_push("q", item)
    store.queue_push("single", b"1")
    for key in fillers:
        store.delete(key)
    return store


def snapshot(store: _core.SharedStore) -> dict[str, object]:
    found: dict[str, object] = {}
    for key in sorted(set(store.keys())):
        if store.queue_len(key):
            items = [store.queue_pop(key, False) for _ in range(store.queue_len(key))]
            for item in items:
                store.queue_push(key, item)
            found[key] = items
        else:
            found[key] = store.get(key, 0.0)
    return found


@pytest.mark.parametrize("name", CHANGES)
def test_store_change_is_whole_or_absent_after_a_kill_at_every_step(name: str) -> None:
    before = snapshot(prepare())
    done = prepare()
    CHANGES[name](done)
    after = snapshot(done)
    room = done.free_bytes()
    assert before != after

    steps = 0
    for steps in range(1, 500):
        store = prepare()

        def work(store: _core.SharedStore = store, steps: int = steps) -> None:
            store._crash_after(steps)
            CHANGES[name](store)

        code = reap(fork(work))
        seen = snapshot(store)
        assert seen in (before, after), f"torn by a kill at step {steps}"
        assert store.num_keys() == len(seen)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        with contextlib.suppress(errors.NotFound, errors.OutOfSpace):  # was done before the kill
            CHANGES[name](store)  # the store works on
        for key in list(store.keys()):
            store.delete(key)
        assert store.free_bytes() >= room, f"the kill at step {steps} left a leak"
        store.set("all", b"x" * 40_000)
    assert 2 <= steps < 499


def test_store_survives_kills_at_random_times() -> None:
    store = _core.SharedStore.create(256 << 10)
    seed = 20240

    def work() -> None:
        chance = random.Random(os.getpid())
        while True:
            key = f"k{chance.randrange(20)}"
            match chance.randrange(4):
                case 0:
                    store.set(key, bytes([chance.randrange(256)]) * chance.randrange(3000))
                case 1:
                    store.delete(key)
                case 2 if store.queue_len("q") < 30:
                    store.queue_push("q", b"item")
                case 3 if store.queue_len("q") > 0:
                    with contextlib.suppress(errors.NotFound):
                        store.queue_pop("q", False)

    chance = random.Random(seed)
    for _ in range(20):
        pids = [fork(work) for _ in range(3)]
        for _ in range(chance.randrange(200)):
            store.add("parent", 1)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            assert reap(pid) == -signal.SIGKILL
        for key in list(store.keys()):
            if key.startswith("k"):
                value = store.get(key, 0.0)
                assert value == value[:1] * len(value), key
        assert len(store.keys()) == store.num_keys()
    for key in list(store.keys()):
        store.delete(key)
    assert store.num_keys() == 0
    store.set("room", b"x" * 200_000)  # nothing leaked


def test_store_waiter_killed_does_not_disturb_others() -> None:
    store = _core.SharedStore.create(1 << 20)

    def work() -> None:
        store.set("waiting", b"")
        store.get("never", 60.0)

    pid = fork(work)
    store.get("waiting", 30.0)
    os.kill(pid, signal.SIGKILL)
    assert reap(pid) == -signal.SIGKILL
    store.set("never", b"now")
    assert store.get("never", 0.0) == b"now"
