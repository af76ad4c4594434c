"""`hpcore.Store` beside torch's own stores: the same calls, the same answers."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from c10d_ranks import read_results

import hpcore
from hpcore import errors

pytestmark = pytest.mark.torch
SOON = timedelta(seconds=0.2)
PATIENCE = timedelta(seconds=30)


@pytest.fixture(params=["hpcore", "prefixed", "tcp"])
def store(request: pytest.FixtureRequest) -> Iterator[Any]:
    """torch's own stores say what the answers are."""
    if request.param == "tcp":
        yield dist.TCPStore("127.0.0.1", 0, None, True, PATIENCE)
        return
    own = hpcore.Store(timeout=PATIENCE)
    yield own if request.param == "hpcore" else dist.PrefixStore("p", own)


def test_store_methods_answer_as_torchs(store: Any) -> None:
    store.set("a", "1")
    assert store.get("a") == b"1" and store.check(["a"]) and not store.check(["a", "b"])
    assert store.add("n", 5) == 5 and store.add("n", -2) == 3 and store.get("n") == b"3"
    assert store.compare_set("c", "", "x") == b"x"
    assert store.compare_set("c", "y", "z") == b"x" and store.compare_set("c", "x", "z") == b"z"
    store.append("t", "ab")
    store.append("t", "cd")
    assert store.get("t") == b"abcd"
    store.multi_set(["m1", "m2"], ["v1", "v2"])
    assert store.multi_get(["m2", "m1"]) == [b"v2", b"v1"]
    assert store.delete_key("m1") and not store.delete_key("m1") and not store.check(["m1"])
    store.queue_push("q", "first")
    store.queue_push("q", "second")
    assert store.queue_len("q") == 2
    assert store.queue_pop("q") == b"first" and store.queue_pop("q", False) == b"second"
    with pytest.raises(dist.QueueEmptyError):
        store.queue_pop("q", False)
    store.set("binary", "\x00\xff")
    assert len(store.get("binary")) == len("\x00\xff".encode())
    store.wait(["a", "c"], SOON)


def test_store_waits_end_by_a_set_and_by_their_timeout(store: Any) -> None:
    with pytest.raises((RuntimeError, errors.DeadlineExceeded)):
        store.wait(["never"], SOON)
    setter = threading.Timer(0.05, store.clone().set, ("later", "v"))  # TCPStore's have one socket
    setter.start()
    assert store.get("later") == b"v"
    setter.join()


def test_store_barrier_opens_with_the_last_and_can_be_used_again() -> None:
    store = hpcore.Store(timeout=PATIENCE)
    if not hasattr(store, "barrier"):
        pytest.skip("this torch's Store has no barrier in Python")
    done: list[int] = []

    def come(who: int) -> None:
        for turn in range(5):
            store.barrier("b", 3, PATIENCE)
            done.append(turn)

    threads = [threading.Thread(target=come, args=(who,)) for who in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == sorted(done) and len(done) == 15


def test_store_serves_gloo_in_several_processes(tmp_path: Path) -> None:
    """Found by its name, in TCPStore's place under stock Gloo."""
    name = f"test-{os.getpid()}"
    pipes, pids = [], []
    for rank in range(3):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            import pickle

            value: tuple[bool, Any] = (False, "no word")
            try:
                os.environ["GLOO_SOCKET_IFNAME"] = "lo"
                store = hpcore.Store(name, create=rank == 0, timeout=PATIENCE)
                dist.init_process_group("gloo", store=store, rank=rank, world_size=3)
                tensor = torch.full((4,), float(rank))
                dist.all_reduce(tensor)
                value = (True, (tensor.tolist(), dist.get_backend()))
                dist.barrier()
            except BaseException as error:
                value = (False, repr(error))
            finally:
                with os.fdopen(writer, "wb") as pipe:
                    pickle.dump(value, pipe)
                os._exit(0)
        os.close(writer)
        pids.append(pid)
        pipes.append(reader)
    results = read_results(pipes, 60.0)
    for pid, pipe in zip(pids, pipes, strict=True):
        os.waitpid(pid, 0)
        os.close(pipe)
    assert results == [(True, ([3.0] * 4, "gloo"))] * 3


def test_store_of_a_name_has_one_creator_at_a_time() -> None:
    name = f"taken-{os.getpid()}"
    first = hpcore.Store(name)
    first.set("who", "first")
    with pytest.raises(errors.InvalidArgument, match=f"process {os.getpid()} has a store"):
        hpcore.Store(name)
    assert hpcore.Store(name, create=False, timeout=PATIENCE).get("who") == b"first"
    del first
    gc.collect()
    second = hpcore.Store(name)
    second.set("who", "second")
    assert hpcore.Store(name, create=False, timeout=PATIENCE).get("who") == b"second"


def test_store_is_found_without_its_door(monkeypatch: pytest.MonkeyPatch) -> None:
    """From another network namespace only the search through /proc finds it."""
    from hpcore import store as module

    name = f"closed-{os.getpid()}"
    made = hpcore.Store(name)
    made.set("key", "value")
    monkeypatch.setattr(module.Door, "owner", staticmethod(lambda memory: None))
    assert hpcore.Store(name, create=False, timeout=PATIENCE).get("key") == b"value"


def test_store_refuses_what_cannot_be() -> None:
    with pytest.raises(errors.InvalidArgument, match="needs its name"):
        hpcore.Store(create=False)
    with pytest.raises(errors.InvalidArgument, match="must have 1 to 227"):
        hpcore.Store("a/b")
    with pytest.raises(errors.DeadlineExceeded, match="found no store of its creator"):
        hpcore.Store("nobody-made-this", create=False, timeout=SOON)
    small = hpcore.Store(capacity_bytes=1 << 20)
    with pytest.raises(errors.OutOfSpace):
        small.set("big", "x" * (2 << 20))
    assert small.add("still", 1) == 1
